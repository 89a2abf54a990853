//! `capif-events/v1` (TS 29.222 clause 8.3).
//!
//! Everybody with an identity may subscribe, and is told only what concerns it: an invoker, of the service APIs that it may use
//! and of itself; a provider's function, of invokers and service APIs, and of calls at its own domain.

use axum::response::Response;
use http::StatusCode;
use sbi::capif::events::{CapifEventDetail, CapifEventFilter, EventNotification, EventSubscription};
use sbi::{Json, Path};
use uuid::Uuid;

use super::patch::{MergePatch, merged};
use super::service::{Caller, Context, Refusal, Service, created, forbidden, not_found};
use super::state::{Change, State};

/// POST.
pub(crate) async fn subscribe(
    service: Context,
    caller: Caller,
    Path(subscriber): Path<String>,
    Json(subscription): Json<EventSubscription>,
) -> Result<Response, Refusal> {
    own(&caller, &subscriber)?;
    let id = Uuid::new_v4().to_string();
    let subscription = service
        .registry
        .change(|state| {
            let prefix = format!("{subscriber}/");
            let count = state.subscriptions.keys().filter(|key| key.starts_with(&prefix)).count();
            if count >= service.tables.subscriptions_per_subscriber_max {
                return Err(forbidden("TOO_MANY_SUBSCRIPTIONS"));
            }
            put(&service, format!("{prefix}{id}"), subscription)
        })
        .await?;
    created(&service.uri(&format!("/capif-events/v1/{subscriber}/subscriptions/{id}")), subscription)
}

/// PUT.
pub(crate) async fn replace(
    service: Context,
    caller: Caller,
    Path((subscriber, id)): Path<(String, String)>,
    Json(subscription): Json<EventSubscription>,
) -> Result<Json<EventSubscription>, Refusal> {
    change(&service, &caller, &subscriber, &id, |_| Ok(subscription)).await
}

/// PATCH.
pub(crate) async fn modify(
    service: Context,
    caller: Caller,
    Path((subscriber, id)): Path<(String, String)>,
    Json(patch): Json<MergePatch>,
) -> Result<Json<EventSubscription>, Refusal> {
    let patched = |before: &EventSubscription| merged(before, &patch, PATCHED);
    change(&service, &caller, &subscriber, &id, patched).await
}

/// DELETE.
pub(crate) async fn unsubscribe(
    service: Context,
    caller: Caller,
    Path((subscriber, id)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    own(&caller, &subscriber)?;
    let key = format!("{subscriber}/{id}");
    service
        .registry
        .change(|state| {
            state.subscriptions.get(&key).ok_or_else(|| not_found("SUBSCRIPTION_NOT_FOUND"))?;
            Ok(((), vec![Change::Subscription(key.clone(), None)]))
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells the subscribers of `event` whom it concerns.
pub(crate) fn emit(service: &Service, event: &str, detail: CapifEventDetail) {
    let state = service.registry.read();
    for (key, subscription) in &state.subscriptions {
        let Some((subscriber, id)) = key.split_once('/') else { continue };
        let wanted = subscription.events.iter().any(|wanted| wanted == event)
            && subscription
                .event_filters
                .as_ref()
                .is_none_or(|filters| filters.iter().any(|filter| passes(filter, &detail)))
            && concerns(service, &state, subscriber, &detail);
        if wanted {
            let notification = EventNotification {
                subscription_id: id.to_owned(),
                events: event.to_owned(),
                event_detail: Some(detail.clone()),
            };
            service.notifier.send(subscription.notification_destination.clone(), &notification);
        }
    }
}

async fn change(
    service: &Service,
    caller: &Caller,
    subscriber: &str,
    id: &str,
    to: impl FnOnce(&EventSubscription) -> Result<EventSubscription, Refusal>,
) -> Result<Json<EventSubscription>, Refusal> {
    own(caller, subscriber)?;
    let key = format!("{subscriber}/{id}");
    service
        .registry
        .change(|state| {
            let before = state.subscriptions.get(&key).ok_or_else(|| not_found("SUBSCRIPTION_NOT_FOUND"))?;
            put(service, key.clone(), to(before)?)
        })
        .await
        .map(Json)
}

fn put(
    service: &Service,
    key: String,
    subscription: EventSubscription,
) -> Result<(EventSubscription, Vec<Change>), Refusal> {
    service.check_destination(&subscription.notification_destination)?;
    let subscription = EventSubscription {
        request_test_notification: None,
        websock_notif_config: None,
        supported_features: subscription.supported_features.map(|_| super::NO_FEATURES.to_owned()),
        ..subscription
    };
    Ok((subscription.clone(), vec![Change::Subscription(key, Some(subscription))]))
}

fn own(caller: &Caller, subscriber: &str) -> Result<(), Refusal> {
    caller.must_be(caller.0.role, subscriber)
}

fn passes(filter: &CapifEventFilter, detail: &CapifEventDetail) -> bool {
    let any = |wanted: &Option<Vec<String>>, has: &[String]| {
        wanted.as_ref().is_none_or(|wanted| has.iter().any(|one| wanted.contains(one)))
    };
    let aefs: Vec<String> = aefs(detail);
    any(&filter.api_ids, detail.api_ids.as_deref().unwrap_or_default())
        && any(&filter.api_invoker_ids, detail.api_invoker_ids.as_deref().unwrap_or_default())
        && any(&filter.aef_ids, &aefs)
}

fn aefs(detail: &CapifEventDetail) -> Vec<String> {
    let published = detail.service_api_descriptions.iter().flatten().flat_map(|api| api.profiles());
    let logged = detail.invocation_logs.iter().flatten();
    published.map(|profile| profile.aef_id.clone()).chain(logged.map(|log| log.aef_id.clone())).collect()
}

fn concerns(service: &Service, state: &State, subscriber: &str, detail: &CapifEventDetail) -> bool {
    if let Some(invoker) = state.invokers.get(subscriber) {
        let about_it = detail.api_invoker_ids.as_ref().is_none_or(|ids| ids.iter().any(|id| id == subscriber));
        let apis = detail.service_api_descriptions.iter().flatten();
        return about_it
            && detail.invocation_logs.is_none()
            && apis.into_iter().all(|api| service.may_use(invoker, &api.api_name));
    }
    let Some((domain, _)) = state.function(subscriber) else { return false };
    let own =
        |log: &sbi::capif::logging::InvocationLog| state.function(&log.aef_id).is_some_and(|(of, _)| of == domain);
    detail.invocation_logs.iter().flatten().all(own)
}

/// What PATCH may change (TS 29.222).
const PATCHED: &[&str] = &["events", "eventFilters", "eventReq", "notificationDestination"];
