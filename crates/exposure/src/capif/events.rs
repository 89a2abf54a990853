//! `capif-events/v1` (TS 29.222 clause 8.3).
//!
//! Everybody with an identity may subscribe, and is told only what concerns it: an invoker, of the service APIs that it may use
//! and of itself; a provider's function, of invokers and service APIs, and of calls at and policies of its own domain.

use axum::response::Response;
use http::StatusCode;
use sbi::capif::events::event::ACCESS_CONTROL_POLICY_UNAVAILABLE;
use sbi::capif::events::{
    AccessControlPolicyListExt, CapifEventDetail, CapifEventFilter, EventNotification, EventSubscription,
};
use sbi::capif::policy::ApiInvokerPolicy;
use sbi::{Json, Path};
use uuid::Uuid;

use super::grants::Grants;
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
            put(&service, &caller, format!("{prefix}{id}"), subscription)
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

/// Something that happened.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) name: &'static str,
    pub(crate) detail: CapifEventDetail,
    /// The API exposing functions where it happened.
    pub(crate) aef_ids: Vec<String>,
    /// The service API that it is about, where the detail does not describe it.
    pub(crate) api_name: Option<String>,
}

/// Tells the subscribers of `event` whom it concerns, each as far as it does.
pub(crate) fn emit(service: &Service, event: &Event) {
    let (grants, state) = (service.grants(), service.registry.read());
    for (key, subscription) in &state.subscriptions {
        let Some((subscriber, id)) = key.split_once('/') else { continue };
        if !subscription.events.iter().any(|wanted| wanted == event.name)
            || !service.may_still_notify(&subscription.notification_destination)
        {
            continue;
        }
        let Some(detail) = concerning(&grants, &state, subscriber, event) else { continue };
        let filters = subscription.event_filters.as_ref();
        if filters.is_none_or(|filters| filters.iter().any(|filter| passes(filter, &detail, &event.aef_ids))) {
            let notification = EventNotification {
                subscription_id: id.to_owned(),
                events: event.name.to_owned(),
                event_detail: Some(detail),
            };
            service.notifier.send(subscription.notification_destination.clone(), &notification);
        }
    }
}

/// Whether anybody has subscribed to `event`.
pub(crate) fn anybody_wants(state: &State, event: &str) -> bool {
    state.subscriptions.values().any(|subscription| subscription.events.iter().any(|wanted| wanted == event))
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
            put(service, caller, key.clone(), to(before)?)
        })
        .await
        .map(Json)
}

fn put(
    service: &Service,
    caller: &Caller,
    key: String,
    subscription: EventSubscription,
) -> Result<(EventSubscription, Vec<Change>), Refusal> {
    service.check_destination(&subscription.notification_destination, caller.certificate())?;
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

/// Whether the event is about one of each that the filter names. What an event is not about at all, no filter finds in it.
fn passes(filter: &CapifEventFilter, detail: &CapifEventDetail, aef_ids: &[String]) -> bool {
    let any = |wanted: &Option<Vec<String>>, has: &[String]| {
        wanted.as_ref().is_none_or(|wanted| has.iter().any(|one| wanted.contains(one)))
    };
    any(&filter.api_ids, detail.api_ids.as_deref().unwrap_or_default())
        && any(&filter.api_invoker_ids, detail.api_invoker_ids.as_deref().unwrap_or_default())
        && any(&filter.aef_ids, aef_ids)
}

/// What of `event` is for `subscriber`; `None` if nothing is.
fn concerning(grants: &Grants, state: &State, subscriber: &str, event: &Event) -> Option<CapifEventDetail> {
    let detail = &event.detail;
    if let Some(invoker) = state.invokers.get(subscriber) {
        let about_it = detail.api_invoker_ids.as_ref().is_none_or(|ids| ids.iter().any(|id| id == subscriber));
        let usable = event.api_name.as_ref().is_none_or(|name| grants.may_use(invoker, name));
        return (about_it && usable && detail.invocation_logs.is_none()).then(|| of_invoker(detail, subscriber));
    }
    let (domain, _) = state.function(subscriber)?;
    let is_own = |aef_id: &String| state.function(aef_id).is_some_and(|(of, _)| of == domain);
    // An AEF that is gone has no domain any more, and is nobody's.
    let at_home = event.aef_ids.iter().any(is_own);
    let of_own_domain_only = detail.invocation_logs.is_some()
        || detail.acc_ctrl_pol_list.is_some()
        || event.name == ACCESS_CONTROL_POLICY_UNAVAILABLE;
    (at_home || !of_own_domain_only).then(|| detail.clone())
}

/// The detail without what it says of other invokers.
fn of_invoker(detail: &CapifEventDetail, id: &str) -> CapifEventDetail {
    let own = |policy: &ApiInvokerPolicy| policy.api_invoker_id == id;
    let policies = detail.acc_ctrl_pol_list.clone().map(|list| AccessControlPolicyListExt {
        api_invoker_policies: list
            .api_invoker_policies
            .map(|policies| policies.into_iter().filter(own).collect::<Vec<_>>())
            .filter(|policies| !policies.is_empty()),
        ..list
    });
    CapifEventDetail {
        api_invoker_ids: detail.api_invoker_ids.as_ref().map(|_| vec![id.to_owned()]),
        acc_ctrl_pol_list: policies,
        ..detail.clone()
    }
}

/// What PATCH may change (TS 29.222).
const PATCHED: &[&str] = &["events", "eventFilters", "eventReq", "notificationDestination"];
