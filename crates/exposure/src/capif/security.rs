//! `capif-security/v1`, security contexts (TS 29.222 clause 8.5, TS 33.122 clauses 6.5.2 and 6.5.3).
//!
//! For each entry, the first of the invoker's methods that the interface has; PSK only where the request came over TLS 1.2,
//! whose session makes the key. None: the whole request is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Extension;
use axum::response::Response;
use http::StatusCode;
use sbi::capif::events::{CapifEventDetail, event};
use sbi::capif::identity::Role;
use sbi::capif::publish::{AefProfile, SecurityMethod};
use sbi::capif::security::{
    AuthorizationInfo, RevokeAuthorizationReq, SecurityInformation, SecurityNotification, ServiceSecurity,
    UNEXPECTED_REASON,
};
use sbi::{Json, Path, ProblemDetails, Query, Tls12Session};
use serde::Deserialize;

use super::events::{self, Event};
use super::grants::Grants;
use super::service::{Caller, Context, Refusal, Service, created, forbidden, incorrect, not_found};
use super::state::{Api, Change, Entry, Invoker, SecurityContext, State};

type Session = Option<Extension<Arc<Tls12Session>>>;

/// PUT.
pub(crate) async fn create(
    service: Context,
    caller: Caller,
    Path(id): Path<String>,
    session: Session,
    Json(wish): Json<ServiceSecurity>,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Invoker, &id)?;
    let agreed = agree(&service, &caller, session, wish, false).await?;
    created(&service.uri(&format!("/capif-security/v1/trustedInvokers/{id}")), agreed)
}

/// POST update: negotiated anew.
pub(crate) async fn update(
    service: Context,
    caller: Caller,
    Path(id): Path<String>,
    session: Session,
    Json(wish): Json<ServiceSecurity>,
) -> Result<Json<ServiceSecurity>, Refusal> {
    caller.must_be(Role::Invoker, &id)?;
    agree(&service, &caller, session, wish, true).await.map(Json)
}

/// What a reader wants to see besides.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reading {
    #[serde(default)]
    authentication_info: bool,
    #[serde(default)]
    authorization_info: bool,
}

/// GET: by an AEF, which sees its own entries; by the invoker, which sees all of them but no key.
pub(crate) async fn read(
    service: Context,
    caller: Caller,
    Path(id): Path<String>,
    Query(reading): Query<Reading>,
) -> Result<Json<ServiceSecurity>, Refusal> {
    let (grants, state) = (service.grants(), service.registry.read());
    let (invoker, context) = match caller.0.role {
        Role::Invoker => caller.must_be(Role::Invoker, &id).and_then(|()| context(&state, &id))?,
        Role::Aef => context(&state, &id)?,
        _ => return Err(forbidden(super::service::NOT_YOURS)),
    };
    let mut security_info = Vec::new();
    for entry in &context.entries {
        if caller.0.role == Role::Invoker {
            security_info.push(entry.agreed.clone());
        } else if entry.aef_id == caller.0.id {
            security_info.push(for_aef(&grants, &state, invoker, entry, &reading)?);
        }
    }
    if security_info.is_empty() {
        return Err(not_found("SECURITY_CONTEXT_NOT_FOUND"));
    }
    Ok(Json(answer(context.notification_destination.clone(), security_info)))
}

fn for_aef(
    grants: &Grants,
    state: &State,
    invoker: &Invoker,
    entry: &Entry,
    reading: &Reading,
) -> Result<SecurityInformation, Refusal> {
    let mut information = entry.agreed.clone();
    if reading.authentication_info {
        information.authentication_info = entry.aef_psk.clone().or_else(|| Some(invoker.serial.clone()));
    }
    if reading.authorization_info {
        let names = grants.of_invoker(invoker).map(|granted| granted.dns_names.clone());
        let authorization = AuthorizationInfo {
            api_names: usable(grants, state, invoker, entry).map(|(_, api)| api.description.api_name.clone()).collect(),
            names: names.unwrap_or_default(),
        };
        let text = serde_json::to_string(&authorization).map_err(|_| ProblemDetails::internal())?;
        information.authorization_info = Some(text);
    }
    Ok(information)
}

/// The service APIs that `entry` covers as things are: published, active there, allowed, not revoked.
pub(crate) fn usable<'a>(
    grants: &'a Grants,
    state: &'a State,
    invoker: &'a Invoker,
    entry: &'a Entry,
) -> impl Iterator<Item = (&'a str, &'a Api)> {
    state
        .apis_at(&entry.aef_id)
        .filter(move |(id, api)| entry.covers(id) && grants.may_use(invoker, &api.description.api_name))
}

/// DELETE: by an AEF, what the invoker may at it; by the invoker, everything.
pub(crate) async fn end(service: Context, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let by_aef = match caller.0.role {
        Role::Invoker => caller.must_be(Role::Invoker, &id).map(|()| None)?,
        Role::Aef => Some(caller.0.id.clone()),
        _ => return Err(forbidden(super::service::NOT_YOURS)),
    };
    let revoked = service
        .change(|state| {
            let (_, context) = context(state, &id)?;
            let goes = |entry: &Entry| by_aef.as_ref().is_none_or(|aef_id| entry.aef_id == *aef_id);
            let (gone, kept): (Vec<Entry>, Vec<Entry>) = context.entries.iter().cloned().partition(goes);
            if gone.is_empty() {
                return Err(not_found("SECURITY_CONTEXT_NOT_FOUND"));
            }
            let aefs: BTreeSet<&str> = gone.iter().map(|entry| entry.aef_id.as_str()).collect();
            let revoked: Vec<Revoked> = aefs
                .into_iter()
                .filter_map(|aef_id| {
                    let api_ids: Vec<String> = state.apis_at(aef_id).map(|(api_id, _)| api_id.to_owned()).collect();
                    let notification = SecurityNotification {
                        api_invoker_id: id.clone(),
                        aef_id: Some(aef_id.to_owned()),
                        cause: UNEXPECTED_REASON.to_owned(),
                        api_ids,
                    };
                    let destination = by_aef.is_some().then(|| context.notification_destination.clone());
                    (!notification.api_ids.is_empty()).then(|| Revoked::of(state, notification, destination))
                })
                .collect();
            let after = (!kept.is_empty()).then(|| SecurityContext { entries: kept, ..context.clone() });
            Ok((revoked, vec![Change::Context(id.clone(), after)]))
        })
        .await?;
    for one in revoked {
        one.tell(&service);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// POST delete: an AEF ends the authorization for some of its service APIs.
pub(crate) async fn revoke(
    service: Context,
    caller: Caller,
    Path(id): Path<String>,
    Json(notification): Json<SecurityNotification>,
) -> Result<StatusCode, Refusal> {
    let aef_id = caller.must_be_a(Role::Aef)?.to_owned();
    if notification.aef_id.as_ref().is_some_and(|named| *named != aef_id) {
        return Err(forbidden(super::service::NOT_YOURS));
    }
    if notification.api_invoker_id != id {
        return Err(incorrect("/apiInvokerId", "not the invoker of the path"));
    }
    let revoked = service
        .change(|state| {
            let (_, context) = context(state, &id)?;
            let mut after = context.clone();
            let mut api_ids = Vec::new();
            for api_id in &notification.api_ids {
                let published = state.apis.get(api_id).is_some_and(|api| api.is_at(&aef_id));
                for entry in after.entries.iter_mut().filter(|entry| entry.aef_id == aef_id && published) {
                    if entry.covers(api_id) {
                        entry.revoked.insert(api_id.clone());
                        api_ids.push(api_id.clone());
                    }
                }
            }
            if api_ids.is_empty() {
                return Err(not_found("AUTHORIZATION_NOT_FOUND"));
            }
            let told = SecurityNotification { aef_id: Some(aef_id.clone()), api_ids, ..notification };
            let revoked = Revoked::of(state, told, Some(context.notification_destination.clone()));
            Ok((revoked, vec![Change::Context(id.clone(), Some(after))]))
        })
        .await?;
    revoked.tell(&service);
    Ok(StatusCode::NO_CONTENT)
}

/// An authorization that ended, and who is to know: the AEF, the invoker, subscribers.
pub(crate) struct Revoked {
    notification: SecurityNotification,
    /// Roots of the AEF's interfaces where `aef-security/v1` is served.
    aef_root: Option<String>,
    invoker_destination: Option<String>,
}

impl Revoked {
    pub(crate) fn of(state: &State, notification: SecurityNotification, invoker_destination: Option<String>) -> Self {
        let aef_root = notification.aef_id.as_ref().and_then(|aef_id| {
            let profiles = state.apis_at(aef_id).flat_map(|(_, api)| api.description.profiles());
            profiles.filter(|profile| profile.aef_id == *aef_id).find_map(security_root)
        });
        Self { notification, aef_root, invoker_destination }
    }

    /// Tells them, each in its own time.
    pub(crate) fn tell(self, service: &Service) {
        let Self { notification, aef_root, invoker_destination } = self;
        if let Some(root) = aef_root {
            let request = RevokeAuthorizationReq {
                revoke_info: notification.clone(),
                supported_features: super::NO_FEATURES.to_owned(),
            };
            service.notifier.send_to_aef(format!("{root}/aef-security/v1/revoke-authorization"), &request);
        }
        if let Some(destination) = invoker_destination {
            service.notifier.send(destination, &notification);
        }
        let detail = CapifEventDetail {
            api_ids: Some(notification.api_ids),
            api_invoker_ids: Some(vec![notification.api_invoker_id]),
            ..CapifEventDetail::default()
        };
        let aef_ids = notification.aef_id.into_iter().collect();
        let event = Event { name: event::API_INVOKER_AUTHORIZATION_REVOKED, detail, aef_ids, api_name: None };
        events::emit(service, &event);
    }
}

/// Where an AEF serves `aef-security/v1`: at its first interface that takes certificates.
fn security_root(profile: &AefProfile) -> Option<String> {
    let by_certificate = |method: &SecurityMethod| matches!(method, SecurityMethod::Pki | SecurityMethod::Oauth);
    let interface =
        profile.interfaces().iter().find(|interface| profile.methods(Some(interface)).iter().any(by_certificate))?;
    Some(format!("https://{}:{}", interface.host(), interface.port.unwrap_or(443)))
}

async fn agree(
    service: &Service,
    caller: &Caller,
    session: Session,
    wish: ServiceSecurity,
    must_exist: bool,
) -> Result<ServiceSecurity, Refusal> {
    let id = caller.0.id.as_str();
    service.check_destination(&wish.notification_destination, caller.certificate())?;
    let grants = service.grants();
    if wish.security_info.len() > service.tables.interfaces_per_context_max {
        return Err(forbidden("TOO_MANY_INTERFACES"));
    }
    let session = session.map(|Extension(session)| session);
    let (answer, ended) = service
        .change(|state| {
            let invoker = state.invokers.get(id).ok_or_else(|| not_found("INVOKER_NOT_FOUND"))?;
            if must_exist && !state.contexts.contains_key(id) {
                return Err(not_found("SECURITY_CONTEXT_NOT_FOUND"));
            }
            let mut entries = Vec::new();
            for (at, one) in wish.security_info.into_iter().enumerate() {
                if !one.is_well_formed() {
                    let pointer = format!("/securityInfo/{at}");
                    return Err(incorrect(&pointer, "not exactly one of interfaceDetails and aefId"));
                }
                entries.push(choose(&grants, state, invoker, session.as_deref(), one)?);
            }
            let ended = ended(&grants, state, invoker, id, &entries);
            let agreed = entries.iter().map(|entry| entry.agreed.clone()).collect();
            let notification_destination = wish.notification_destination;
            let context = SecurityContext { notification_destination: notification_destination.clone(), entries };
            let answer = answer(notification_destination, agreed);
            Ok(((answer, ended), vec![Change::Context(id.to_owned(), Some(context))]))
        })
        .await?;
    for one in ended {
        one.tell(service);
    }
    Ok(answer)
}

/// What the invoker may as things are and may no longer with `entries` in place of what there is, for each AEF. The invoker
/// itself knows.
fn ended(grants: &Grants, state: &State, invoker: &Invoker, id: &str, entries: &[Entry]) -> Vec<Revoked> {
    let pairs = |entries: &[Entry]| -> BTreeSet<(String, String)> {
        let of = |entry: &Entry| -> Vec<_> {
            usable(grants, state, invoker, entry).map(|(api, _)| (entry.aef_id.clone(), api.to_owned())).collect()
        };
        entries.iter().flat_map(of).collect()
    };
    let before = state.contexts.get(id).map(|context| pairs(&context.entries)).unwrap_or_default();
    let mut gone: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (aef_id, api_id) in before.difference(&pairs(entries)) {
        gone.entry(aef_id.clone()).or_default().push(api_id.clone());
    }
    let revoked = |(aef_id, api_ids)| {
        let api_invoker_id = id.to_owned();
        let notification =
            SecurityNotification { api_invoker_id, aef_id: Some(aef_id), cause: UNEXPECTED_REASON.to_owned(), api_ids };
        Revoked::of(state, notification, None)
    };
    gone.into_iter().map(revoked).collect()
}

/// Chooses a method for one entry.
fn choose(
    grants: &Grants,
    state: &State,
    invoker: &Invoker,
    session: Option<&Tls12Session>,
    wish: SecurityInformation,
) -> Result<Entry, Refusal> {
    let profiles: Vec<&AefProfile> = candidates(state, &wish)
        .filter(|(api, _)| grants.may_use(invoker, &api.description.api_name))
        .map(|(_, profile)| profile)
        .collect();
    if profiles.is_empty() {
        let published = candidates(state, &wish).next().is_some();
        return Err(forbidden(if published { "API_NOT_ALLOWED" } else { "API_NOT_PUBLISHED" }));
    }
    let at = wish.interface_details.as_ref().map(sbi::capif::publish::InterfaceDescription::information);
    for method in &wish.pref_security_methods {
        for profile in &profiles {
            let wanted = |information: &str| at.as_ref().is_none_or(|at| at == information);
            let interface = profile.interfaces().iter().find(|interface| {
                wanted(&interface.information()) && profile.methods(Some(interface)).contains(method)
            });
            let aef_psk = match (method, interface, session) {
                (SecurityMethod::Psk, Some(interface), Some(session)) => {
                    let key = akma::aef_psk(&session.master_secret, &interface.information(), &session.session_id)
                        .map_err(|_| ProblemDetails::internal())?;
                    Some(key.to_hex().to_string())
                }
                (SecurityMethod::Pki | SecurityMethod::Oauth, Some(_), _) => None,
                (SecurityMethod::Pki | SecurityMethod::Oauth, None, _)
                    if profile.interfaces().is_empty() && profile.methods(None).contains(method) =>
                {
                    None
                }
                _ => continue,
            };
            let agreed = SecurityInformation {
                sel_security_method: Some(method.clone()),
                authentication_info: None,
                authorization_info: None,
                ..wish.clone()
            };
            let aef_id = profile.aef_id.clone();
            return Ok(Entry { agreed, aef_id, method: method.clone(), aef_psk, revoked: BTreeSet::new() });
        }
    }
    Err(forbidden("NO_SECURITY_METHOD_IN_COMMON"))
}

/// The profiles that an entry is about.
fn candidates<'a>(state: &'a State, wish: &'a SecurityInformation) -> impl Iterator<Item = (&'a Api, &'a AefProfile)> {
    let at = wish.interface_details.as_ref().map(sbi::capif::publish::InterfaceDescription::information);
    state
        .apis
        .iter()
        .filter(move |(id, _)| wish.api_id.as_ref().is_none_or(|only| only == *id))
        .flat_map(|(_, api)| api.description.profiles().iter().map(move |profile| (api, profile)))
        .filter(move |(api, profile)| {
            !api.withheld
                && api.description.is_active_at(&profile.aef_id)
                && wish.aef_id.as_ref().is_none_or(|only| *only == profile.aef_id)
                && at
                    .as_ref()
                    .is_none_or(|at| profile.interfaces().iter().any(|interface| interface.information() == *at))
        })
}

fn context<'a>(state: &'a State, id: &str) -> Result<(&'a Invoker, &'a SecurityContext), Refusal> {
    // By this an API exposing function knows that the invoker is gone for ever, and not only without a context.
    let invoker = state.invokers.get(id).ok_or_else(|| not_found("INVOKER_NOT_FOUND"))?;
    let context = state.contexts.get(id).ok_or_else(|| not_found("SECURITY_CONTEXT_NOT_FOUND"))?;
    Ok((invoker, context))
}

fn answer(notification_destination: String, security_info: Vec<SecurityInformation>) -> ServiceSecurity {
    ServiceSecurity {
        security_info,
        notification_destination,
        request_test_notification: None,
        websock_notif_config: None,
        supported_features: None,
    }
}
