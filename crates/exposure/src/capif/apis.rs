//! `published-apis/v1` and `service-apis/v1` (TS 29.222 clauses 8.1 and 8.2).

use axum::response::Response;
use http::StatusCode;
use sbi::capif::events::{CapifEventDetail, event};
use sbi::capif::identity::Role;
use sbi::capif::publish::{DiscoveredApis, DiscoveryQuery, ServiceApiDescription};
use sbi::capif::security::{SecurityNotification, UNEXPECTED_REASON};
use sbi::{Json, Path, Query};
use uuid::Uuid;

use super::config::is_api_name;
use super::events::Event;
use super::patch::{MergePatch, merged};
use super::service::{Caller, Context, Refusal, Service, created, forbidden, full, incorrect, not_found};
use super::state::{Api, Change, FunctionRole, State};
use super::{events, security};

/// POST.
pub(crate) async fn publish(
    service: Context,
    caller: Caller,
    Path(apf_id): Path<String>,
    Json(description): Json<ServiceApiDescription>,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Apf, &apf_id)?;
    let api_id = Uuid::new_v4().to_string();
    let description = service
        .change(|state| {
            if state.apis.len() >= service.tables.apis_max {
                return Err(full());
            }
            if state.apis.values().filter(|api| api.apf_id == apf_id).count() >= service.tables.apis_per_apf_max {
                return Err(forbidden("TOO_MANY_APIS"));
            }
            put(&service, state, &apf_id, &api_id, description)
        })
        .await?;
    events::emit(&service, &described(event::SERVICE_API_AVAILABLE, &api_id, &description));
    created(&service.uri(&format!("/published-apis/v1/{apf_id}/service-apis/{api_id}")), description)
}

/// GET of all that an APF published.
pub(crate) async fn list(
    service: Context,
    caller: Caller,
    Path(apf_id): Path<String>,
) -> Result<Json<Vec<ServiceApiDescription>>, Refusal> {
    caller.must_be(Role::Apf, &apf_id)?;
    let state = service.registry.read();
    let own = state.apis.values().filter(|api| api.apf_id == apf_id);
    Ok(Json(own.map(|api| api.description.clone()).collect()))
}

/// GET of one.
pub(crate) async fn read(
    service: Context,
    caller: Caller,
    Path((apf_id, api_id)): Path<(String, String)>,
) -> Result<Json<ServiceApiDescription>, Refusal> {
    caller.must_be(Role::Apf, &apf_id)?;
    own(&service.registry.read(), &apf_id, &api_id).map(|api| Json(api.description.clone()))
}

/// PUT.
pub(crate) async fn replace(
    service: Context,
    caller: Caller,
    Path((apf_id, api_id)): Path<(String, String)>,
    Json(description): Json<ServiceApiDescription>,
) -> Result<Json<ServiceApiDescription>, Refusal> {
    change(&service, &caller, &apf_id, &api_id, |_| Ok(description)).await
}

/// PATCH.
pub(crate) async fn modify(
    service: Context,
    caller: Caller,
    Path((apf_id, api_id)): Path<(String, String)>,
    Json(patch): Json<MergePatch>,
) -> Result<Json<ServiceApiDescription>, Refusal> {
    let patched = |before: &ServiceApiDescription| merged(before, &patch, PATCHED);
    change(&service, &caller, &apf_id, &api_id, patched).await
}

/// DELETE.
pub(crate) async fn unpublish(
    service: Context,
    caller: Caller,
    Path((apf_id, api_id)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    caller.must_be(Role::Apf, &apf_id)?;
    let withdrawn = service
        .change(|state| {
            let api = own(state, &apf_id, &api_id)?;
            Ok((Withdrawn::of(state, &api_id, api), vec![Change::Api(api_id.clone(), None)]))
        })
        .await?;
    tell_withdrawn(&service, vec![withdrawn]);
    Ok(StatusCode::NO_CONTENT)
}

/// GET of what an invoker may use.
pub(crate) async fn discover(
    service: Context,
    caller: Caller,
    Query(query): Query<DiscoveryQuery>,
) -> Result<Json<DiscoveredApis>, Refusal> {
    caller.must_be(Role::Invoker, &query.api_invoker_id)?;
    let (grants, state) = (service.grants(), service.registry.read());
    let invoker = state.invokers.get(&query.api_invoker_id).ok_or_else(|| not_found("INVOKER_NOT_FOUND"))?;
    let offered = state.apis.values().filter(|api| !api.withheld);
    let usable = offered.filter(|api| grants.may_use(invoker, &api.description.api_name));
    let found: Vec<_> = usable.filter_map(|api| query.find(&api.description)).collect();
    Ok(Json(DiscoveredApis { service_api_descriptions: Some(found).filter(|found| !found.is_empty()) }))
}

/// A service API that is no more, and whose authorizations end with it.
pub(crate) struct Withdrawn {
    api_id: String,
    description: ServiceApiDescription,
    revoked: Vec<security::Revoked>,
}

impl Withdrawn {
    pub(crate) fn of(state: &State, api_id: &str, api: &Api) -> Self {
        let mut revoked = Vec::new();
        for (invoker, context) in &state.contexts {
            for entry in context.entries.iter().filter(|entry| entry.covers(api_id) && api.is_at(&entry.aef_id)) {
                let notification = SecurityNotification {
                    api_invoker_id: invoker.clone(),
                    aef_id: Some(entry.aef_id.clone()),
                    api_ids: vec![api_id.to_owned()],
                    cause: UNEXPECTED_REASON.to_owned(),
                };
                let destination = Some(context.notification_destination.clone());
                revoked.push(security::Revoked::of(state, notification, destination));
            }
        }
        Self { api_id: api_id.to_owned(), description: api.description.clone(), revoked }
    }
}

/// Tells whoever wants to know.
pub(crate) fn tell_withdrawn(service: &Service, withdrawn: Vec<Withdrawn>) {
    for Withdrawn { api_id, description, revoked } in withdrawn {
        events::emit(service, &described(event::SERVICE_API_UNAVAILABLE, &api_id, &description));
        events::emit(service, &without_policy(&api_id, &description));
        for one in revoked {
            one.tell(service);
        }
    }
}

async fn change(
    service: &Service,
    caller: &Caller,
    apf_id: &str,
    api_id: &str,
    to: impl FnOnce(&ServiceApiDescription) -> Result<ServiceApiDescription, Refusal>,
) -> Result<Json<ServiceApiDescription>, Refusal> {
    caller.must_be(Role::Apf, apf_id)?;
    let description = service
        .change(|state| {
            let before = own(state, apf_id, api_id)?;
            put(service, state, apf_id, api_id, to(&before.description)?)
        })
        .await?;
    events::emit(service, &described(event::SERVICE_API_UPDATE, api_id, &description));
    Ok(Json(description))
}

fn own<'a>(state: &'a State, apf_id: &str, api_id: &str) -> Result<&'a Api, Refusal> {
    state.apis.get(api_id).filter(|api| api.apf_id == apf_id).ok_or_else(|| not_found("SERVICE_API_NOT_FOUND"))
}

/// The description as it is kept, if it is one, and exposed by functions of the same domain only.
fn put(
    service: &Service,
    state: &State,
    apf_id: &str,
    api_id: &str,
    description: ServiceApiDescription,
) -> Result<(ServiceApiDescription, Vec<Change>), Refusal> {
    if !is_api_name(&description.api_name) {
        return Err(incorrect("/apiName", "not a segment of a path"));
    }
    let (domain, provider) = state.provider_of(apf_id).ok_or_else(|| forbidden("CERTIFICATE_REVOKED"))?;
    if !service.grants().may_publish(provider, &description.api_name) {
        return Err(forbidden("API_NAME_NOT_ALLOWED"));
    }
    for (at, profile) in description.profiles().iter().enumerate() {
        if !profile.is_well_formed() {
            return Err(incorrect(&format!("/aefProfiles/{at}"), "not exactly one address, or one that is none"));
        }
        let exposing = state.function(&profile.aef_id).filter(|(_, function)| function.role == FunctionRole::Aef);
        if exposing.is_none_or(|(other, _)| other != domain) {
            return Err(forbidden("AEF_OF_ANOTHER_PROVIDER"));
        }
    }
    let description = ServiceApiDescription {
        api_id: Some(api_id.to_owned()),
        ccf_id: Some(service.id.clone()),
        supported_features: description.supported_features.map(|_| super::NO_FEATURES.to_owned()),
        ..description
    };
    let api = Api { apf_id: apf_id.to_owned(), description: description.clone(), withheld: false };
    Ok((description, vec![Change::Api(api_id.to_owned(), Some(api))]))
}

/// `name` about the API as it is described.
pub(crate) fn described(name: &'static str, api_id: &str, description: &ServiceApiDescription) -> Event {
    Event {
        name,
        detail: CapifEventDetail {
            api_ids: Some(vec![api_id.to_owned()]),
            service_api_descriptions: Some(vec![description.clone()]),
            ..CapifEventDetail::default()
        },
        aef_ids: description.profiles().iter().map(|profile| profile.aef_id.clone()).collect(),
        api_name: Some(description.api_name.clone()),
    }
}

/// The access control policy of an API that is no more is no more, either.
fn without_policy(api_id: &str, description: &ServiceApiDescription) -> Event {
    let event = described(event::ACCESS_CONTROL_POLICY_UNAVAILABLE, api_id, description);
    Event { detail: CapifEventDetail { service_api_descriptions: None, ..event.detail }, ..event }
}

/// What PATCH may change (TS 29.222).
const PATCHED: &[&str] = &[
    "apiStatus",
    "aefProfiles",
    "description",
    "shareableInfo",
    "serviceAPICategory",
    "apiSuppFeats",
    "pubApiPath",
    "ccfId",
];
