//! `api-invoker-management/v1` (TS 29.222 clause 8.4, TS 33.122 clause 6.1).

use std::collections::BTreeSet;

use axum::extract::{FromRequest, Request};
use axum::response::Response;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use sbi::capif::events::{CapifEventDetail, event};
use sbi::capif::identity::Role;
use sbi::capif::invoker_management::{ApiInvokerEnrolmentDetails, ApiList, OnboardingInformation};
use sbi::capif::security::{SecurityNotification, UNEXPECTED_REASON};
use sbi::{Json, Path, PeerIdentity, ProblemDetails};
use uuid::Uuid;

use super::authority::Issued;
use super::events::Event;
use super::patch::{MergePatch, merged};
use super::public_key::SubjectKey;
use super::service::{
    Caller, Context, Refusal, Service, became, created, digest, full, incorrect, not_found, unauthorized,
};
use super::state::{Change, Invoker, State};
use super::{events, security};

/// POST: an invoker comes with a credential and a public key, and gets an identity and a certificate.
pub(crate) async fn onboard(service: Context, request: Request) -> Result<Response, Refusal> {
    let credential = bearer(request.headers()).ok_or_else(|| unauthorized("NO_ONBOARDING_CREDENTIAL"))?;
    let spent = digest(credential);
    let grants = service.grants();
    let granted = grants.onboarding(&spent).ok_or_else(|| unauthorized("ONBOARDING_CREDENTIAL_UNKNOWN"))?;
    let Json(details) = Json::<ApiInvokerEnrolmentDetails>::from_request(request, &()).await?;
    // The certificate that it is about to get.
    let certified = PeerIdentity { dns_names: granted.dns_names.clone(), ..PeerIdentity::default() };
    service.check_destination(&details.notification_destination, &certified)?;
    let id = Uuid::new_v4().to_string();
    let invoker = service
        .change(|state| {
            if state.spent.contains(&spent) {
                return Err(unauthorized("ONBOARDING_CREDENTIAL_SPENT"));
            }
            if state.invokers.len() >= service.tables.invokers_max {
                return Err(full());
            }
            let issued = certificate(&service, &details.onboarding_information, &id, &granted.dns_names)?;
            let invoker = enrolled(&id, details, issued, granted.name.clone());
            Ok((invoker.clone(), vec![Change::Spent(spent), Change::Invoker(id.clone(), Some(invoker))]))
        })
        .await?;
    events::emit(&service, &about(event::API_INVOKER_ONBOARDED, &id));
    let answer = answer(&service, &service.registry.read(), &invoker);
    let answer = created(&service.uri(&format!("/api-invoker-management/v1/onboardedInvokers/{id}")), answer)?;
    Ok(became(answer, Role::Invoker.as_str(), &id))
}

/// PUT: another key gets another certificate, and the old one no longer counts.
pub(crate) async fn replace(
    service: Context,
    caller: Caller,
    Path(id): Path<String>,
    Json(details): Json<ApiInvokerEnrolmentDetails>,
) -> Result<Json<ApiInvokerEnrolmentDetails>, Refusal> {
    change(&service, &caller, &id, |_| Ok(details)).await
}

/// PATCH.
pub(crate) async fn modify(
    service: Context,
    caller: Caller,
    Path(id): Path<String>,
    Json(patch): Json<MergePatch>,
) -> Result<Json<ApiInvokerEnrolmentDetails>, Refusal> {
    let patched = |before: &Invoker| {
        let wanted = before
            .wanted
            .as_ref()
            .map(|wanted| ApiList { service_api_descriptions: Some(wanted.iter().map(|name| named(name)).collect()) });
        merged(&ApiInvokerEnrolmentDetails { api_list: wanted, ..before.details.clone() }, &patch, PATCHED)
    };
    change(&service, &caller, &id, patched).await
}

/// DELETE: off-boarding. The certificate, the security context and the subscriptions end with it.
pub(crate) async fn offboard(service: Context, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    caller.must_be(Role::Invoker, &id)?;
    let revoked = service
        .change(|state| {
            state.invokers.get(&id).ok_or_else(|| not_found("INVOKER_NOT_FOUND"))?;
            let prefix = format!("{id}/");
            let subscriptions = state.subscriptions.keys().filter(|key| key.starts_with(&prefix));
            let mut changes: Vec<Change> = subscriptions.map(|key| Change::Subscription(key.clone(), None)).collect();
            changes.push(Change::Context(id.clone(), None));
            changes.push(Change::Invoker(id.clone(), None));
            Ok((all_authorizations(state, &id), changes))
        })
        .await?;
    for one in revoked {
        one.tell(&service);
    }
    events::emit(&service, &about(event::API_INVOKER_OFFBOARDED, &id));
    Ok(StatusCode::NO_CONTENT)
}

/// What every AEF of the invoker's context is to forget.
fn all_authorizations(state: &State, id: &str) -> Vec<security::Revoked> {
    let entries = state.contexts.get(id).map(|context| context.entries.as_slice()).unwrap_or_default();
    let aefs: BTreeSet<&str> = entries.iter().map(|entry| entry.aef_id.as_str()).collect();
    aefs.into_iter()
        .filter_map(|aef_id| {
            let api_ids: Vec<String> = state.apis_at(aef_id).map(|(api_id, _)| api_id.to_owned()).collect();
            let notification = SecurityNotification {
                api_invoker_id: id.to_owned(),
                aef_id: Some(aef_id.to_owned()),
                cause: UNEXPECTED_REASON.to_owned(),
                api_ids,
            };
            // The invoker itself knows.
            (!notification.api_ids.is_empty()).then(|| security::Revoked::of(state, notification, None))
        })
        .collect()
}

async fn change(
    service: &Service,
    caller: &Caller,
    id: &str,
    to: impl FnOnce(&Invoker) -> Result<ApiInvokerEnrolmentDetails, Refusal>,
) -> Result<Json<ApiInvokerEnrolmentDetails>, Refusal> {
    caller.must_be(Role::Invoker, id)?;
    let invoker = service
        .change(|state| {
            let before = state.invokers.get(id).ok_or_else(|| not_found("INVOKER_NOT_FOUND"))?;
            let details = to(before)?;
            service.check_destination(&details.notification_destination, caller.certificate())?;
            let old = &before.details.onboarding_information;
            let issued = if details.onboarding_information.api_invoker_public_key == old.api_invoker_public_key {
                Issued { pem: old.api_invoker_certificate.clone().unwrap_or_default(), serial: before.serial.clone() }
            } else {
                let names = service.grants().of_invoker(before).map(|granted| granted.dns_names.clone());
                certificate(service, &details.onboarding_information, id, &names.unwrap_or_default())?
            };
            let invoker = enrolled(id, details, issued, before.credential.clone());
            Ok((invoker.clone(), vec![Change::Invoker(id.to_owned(), Some(invoker))]))
        })
        .await?;
    events::emit(service, &about(event::API_INVOKER_UPDATED, id));
    Ok(Json(answer(service, &service.registry.read(), &invoker)))
}

fn certificate(
    service: &Service,
    information: &OnboardingInformation,
    id: &str,
    dns_names: &[String],
) -> Result<Issued, Refusal> {
    let key = SubjectKey::parse(&information.api_invoker_public_key)
        .map_err(|error| incorrect("/onboardingInformation/apiInvokerPublicKey", &error.to_string()))?;
    service.authority.issue(&key, Role::Invoker, id, dns_names).map_err(|error| {
        tracing::error!(%error, "no certificate could be issued");
        ProblemDetails::internal().into()
    })
}

fn enrolled(id: &str, details: ApiInvokerEnrolmentDetails, issued: Issued, credential: String) -> Invoker {
    let wanted = details
        .api_list
        .and_then(|list| list.service_api_descriptions)
        .map(|apis| apis.into_iter().map(|api| api.api_name).collect());
    let onboarding_information = OnboardingInformation {
        api_invoker_public_key: details.onboarding_information.api_invoker_public_key,
        api_invoker_certificate: Some(issued.pem),
        onboarding_secret: None,
    };
    let details = ApiInvokerEnrolmentDetails {
        api_invoker_id: Some(id.to_owned()),
        onboarding_information,
        request_test_notification: None,
        websock_notif_config: None,
        api_list: None,
        supported_features: details.supported_features.map(|_| super::NO_FEATURES.to_owned()),
        ..details
    };
    Invoker { details, serial: issued.serial, credential, wanted }
}

/// The details with the APIs that the invoker may use as things are.
fn answer(service: &Service, state: &State, invoker: &Invoker) -> ApiInvokerEnrolmentDetails {
    let grants = service.grants();
    let usable: Vec<_> = state
        .apis
        .values()
        .filter(|api| !api.withheld && grants.may_use(invoker, &api.description.api_name))
        .map(|api| api.description.clone())
        .collect();
    let list = ApiList { service_api_descriptions: Some(usable).filter(|usable| !usable.is_empty()) };
    ApiInvokerEnrolmentDetails {
        api_list: list.service_api_descriptions.is_some().then_some(list),
        ..invoker.details.clone()
    }
}

fn named(name: &str) -> sbi::capif::publish::ServiceApiDescription {
    sbi::capif::publish::ServiceApiDescription { api_name: name.to_owned(), ..Default::default() }
}

fn about(name: &'static str, id: &str) -> Event {
    let detail = CapifEventDetail { api_invoker_ids: Some(vec![id.to_owned()]), ..CapifEventDetail::default() };
    Event { name, detail, ..Event::default() }
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty()).then_some(token.trim())
}

/// What PATCH may change (TS 29.222).
const PATCHED: &[&str] = &["onboardingInformation", "notificationDestination", "apiList", "apiInvokerInformation"];
