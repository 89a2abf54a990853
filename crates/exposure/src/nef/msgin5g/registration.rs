//! `msgs-asregistration` (TS 29.538): an Application Server registers here, and we at the MSGin5G Server on its behalf.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Extension, Router};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use message::Address;
use message::ts29538::{AsRegistration, AsRegistrationAck, RegistrationResult};
use sbi::{Json, Path, PeerIdentity, ProblemDetails, SbiError};
use uuid::Uuid;

use super::records::Registration;
use super::{MsGin5g, may_be, to_the_end};
use crate::nef::caller::Caller;
use crate::nef::refusal;
use crate::nef::service::{Refused, Service, refuse};

/// Path of registrations, here and at the server.
const REGISTRATIONS: &str = "/msgs-asregistration/v1/registrations";

pub(super) fn router() -> Router<Arc<Service>> {
    Router::new()
        .route(REGISTRATIONS, post(register))
        .route("/msgs-asregistration/v1/registrations/{registration_id}", delete(deregister))
}

/// Registers an AS, in place of an earlier registration of it: 201 with `Location`.
async fn register(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<PeerIdentity>,
    Json(request): Json<AsRegistration>,
) -> Response {
    let since = Instant::now();
    let outcome = match check(&caller, &peer, &request) {
        Ok(()) => {
            let (service, caller) = (Arc::clone(&service), caller.clone());
            to_the_end(async move { register_checked(&service, &caller, request).await }).await
        }
        Err(refused) => Err(refused),
    };
    service.answer(caller.af.id(), REGISTER, since, outcome.map(|answer| ("registered", answer)))
}

fn check(caller: &Caller, peer: &PeerIdentity, request: &AsRegistration) -> Result<(), Refused> {
    may_be(&caller.af, &Address::application_server(&request.as_svc_id))?;
    match &request.target_uri {
        Some(target) if !caller.af.may_name(target, peer) => {
            let problem = ProblemDetails::forbidden(refusal::TARGET_URI_NOT_ALLOWED);
            let why = "must be an https URI below what is configured, or at a name in the certificate";
            Err(refuse("target_uri_not_allowed", problem.with_invalid_param("/targetUri", why)))
        }
        _ => Ok(()),
    }
}

async fn register_checked(service: &Service, caller: &Caller, request: AsRegistration) -> Result<Response, Refused> {
    let msgin5g = service.msgin5g()?;
    let as_svc_id = request.as_svc_id.clone();
    let _turn = msgin5g.records.turn(&as_svc_id).await;
    let server_resource = msgin5g.register_at_server(&request).await.map_err(|error| service.told_inside(&error))?;
    let id = Uuid::new_v4().to_string();
    let location = HeaderValue::try_from(format!("{REGISTRATIONS}/{id}"))
        .map_err(|_| refuse("failed", ProblemDetails::internal()))?;
    let registration = Registration { id, af_id: caller.af.id().to_owned(), request, server_resource };
    msgin5g.records.put_registration(registration).await.map_err(|error| service.told_store(&error))?;
    let ack = AsRegistrationAck { as_svc_id, result: RegistrationResult { status: Some(201), ..Default::default() } };
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(ack)).into_response())
}

impl MsGin5g {
    /// Registers an AS at the server with a target of ours; yields the registration there. Without a `targetUri` of its own
    /// the AS takes no deliveries, so neither do we.
    pub(super) async fn register_at_server(&self, request: &AsRegistration) -> Result<Option<String>, SbiError> {
        let mut inside = request.clone();
        inside.target_uri = request.target_uri.as_ref().map(|_| self.target_of(&request.as_svc_id));
        let answer = self.registrations.post::<_, AsRegistrationAck>(&self.operation(REGISTRATIONS), &inside).await?;
        Ok(self.resource(answer.location.as_deref()))
    }
}

/// Removes a registration: 204.
async fn deregister(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Path(registration_id): Path<String>,
) -> Response {
    let since = Instant::now();
    let outcome = {
        let (service, caller) = (Arc::clone(&service), caller.clone());
        to_the_end(async move { remove(&service, &caller, &registration_id).await }).await
    };
    service.answer(caller.af.id(), DEREGISTER, since, outcome.map(|()| ("deregistered", StatusCode::NO_CONTENT)))
}

async fn remove(service: &Service, caller: &Caller, registration_id: &str) -> Result<(), Refused> {
    let unknown = || refuse("registration_unknown", ProblemDetails::not_found(refusal::REGISTRATION_NOT_FOUND));
    let msgin5g = service.msgin5g()?;
    // Another's registration is none of the caller's business, not even that it is there.
    let own = |held: &Registration| held.af_id == caller.af.id() && caller.af.may_be(&held.request.as_svc_id);
    let held = msgin5g.records.registration_by_id(registration_id).filter(own).ok_or_else(unknown)?;
    let id = &held.request.as_svc_id;
    let _turn = msgin5g.records.turn(id).await;
    let held = msgin5g.records.registration(id).filter(|now| now.id == registration_id).ok_or_else(unknown)?;
    if let Some(resource) = &held.server_resource {
        match msgin5g.registrations.delete::<serde_json::Value>(resource).await {
            Ok(_) => {}
            // It is gone there already.
            Err(SbiError::Problem(problem)) if problem.status_code() == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(service.told_inside(&error)),
        }
    }
    msgin5g.records.remove_registration(id).await.map_err(|error| service.told_store(&error))
}

const REGISTER: &str = "msgs-asregistration:register";
const DEREGISTER: &str = "msgs-asregistration:deregister";
