//! MSGin5G-3: `msgs-asregistration/v1`, `msgs-msgdelivery/v1` and `msgs-topiclistevent/v1` of TS 29.538, over the SBI rules
//! of mutual TLS.

mod topics;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Extension, Router};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use message::ts29538::{
    AsMessageDelivery, AsRegistration, AsRegistrationAck, DeliveryStatusReport, MessageDeliveryAck, RegistrationResult,
    UeMessageDelivery,
};
use message::{Address, AsServiceId, DecodeError, FailureCause, MessageId};
use sbi::audit::{Audit, subject};
use sbi::authorization::{Authorizer, ServiceScopes};
use sbi::{Json, Path, PeerIdentity, ProblemDetails, cause, openapi, services};
use tokio::sync::oneshot;

use crate::application_server::{ApplicationServers, Refusal};
use crate::core::Core;
use crate::delivery::{Answer, Reply};
use crate::log_budget::Topic;
use crate::registry::Party;

const REGISTRATIONS: &str = "/msgs-asregistration/v1/registrations";

/// What the operations need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) core: Arc<Core>,
    pub(crate) servers: Arc<ApplicationServers>,
    pub(crate) audit: Audit,
}

/// The services, not authorised: registration, delivery, topics.
fn services(api: &Api) -> [(Router, &'static ServiceScopes); 3] {
    let registration = Router::new()
        .route(REGISTRATIONS, post(register))
        .route("/msgs-asregistration/v1/registrations/{registration_id}", delete(deregister))
        .with_state(api.clone());
    let delivery = Router::new()
        .route("/msgs-msgdelivery/v1/deliver-as-message", post(deliver_as_message))
        .route("/msgs-msgdelivery/v1/deliver-ue-message", post(deliver_ue_message))
        .route("/msgs-msgdelivery/v1/deliver-report", post(deliver_report))
        .with_state(api.clone());
    [
        (registration, &services::MSGS_ASREGISTRATION),
        (delivery, &services::MSGS_MSGDELIVERY),
        (topics::router().with_state(api.clone()), &services::MSGS_TOPICLISTEVENT),
    ]
}

/// All services for those whom somebody else has authorised.
pub(crate) fn unprotected(api: &Api) -> Router {
    services(api).into_iter().fold(Router::new(), |router, (service, _)| router.merge(service))
}

/// All services, each behind its authorisation.
pub(crate) fn router(api: &Api, authorizer: &Arc<Authorizer>) -> Router {
    services(api)
        .into_iter()
        .fold(Router::new(), |router, (service, scopes)| router.merge(authorizer.protect(service, scopes)))
        .fallback(async || ProblemDetails::not_found(cause::RESOURCE_URI_STRUCTURE_NOT_FOUND))
        .merge(openapi::router(&[
            openapi::msgs_as_registration(),
            openapi::msgs_msg_delivery(),
            openapi::msgs_topiclist_event(),
        ]))
}

/// Registers an AS: 201 with `Location`.
async fn register(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Json(request): Json<AsRegistration>,
) -> Result<Response, ProblemDetails> {
    api.refuse_when_stopping()?;
    let as_svc_id = request.as_svc_id.clone();
    let registered = api.servers.register(&api.core, &identity, request).await;
    let registered = registered.map_err(|refusal| api.refusal(&identity, as_svc_id.as_str(), refusal));
    let id = api.told(&identity, "register", as_svc_id.as_str(), registered)?;
    let location = HeaderValue::from_str(&format!("{REGISTRATIONS}/{id}")).map_err(|_| ProblemDetails::internal())?;
    let ack = AsRegistrationAck { as_svc_id, result: RegistrationResult { status: Some(201), ..Default::default() } };
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(ack)).into_response())
}

/// Removes a registration: 204.
async fn deregister(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Path(registration_id): Path<String>,
) -> Result<StatusCode, ProblemDetails> {
    let removed = api.servers.deregister(&api.core, &identity, registration_id.clone()).await;
    let removed = removed.map_err(|refusal| api.refusal(&identity, &registration_id, refusal));
    // Only one that is ours is repeated.
    let object = if removed.is_ok() { registration_id.as_str() } else { "" };
    api.told(&identity, "deregister", object, removed).map(|_| StatusCode::NO_CONTENT)
}

/// A message from an AS.
async fn deliver_as_message(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Json(request): Json<AsMessageDelivery>,
) -> Result<Json<MessageDeliveryAck>, ProblemDetails> {
    let message = request.into_message(&api.core.whole_limits).map_err(|error| problem_of_decoding(&error))?;
    let party = api.sender(&identity, &message.originator, "deliver-as-message")?;
    let (originator, message_id) = (message.originator.clone(), message.message_id.clone());
    let (reply, answer) = oneshot::channel();
    api.core.route_message(&party, message, Reply::Api(reply));
    api.acknowledge(originator, message_id, answer).await
}

/// A message of a UE behind a message gateway. No gateway is configured, so nobody may send one.
async fn deliver_ue_message(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Json(request): Json<UeMessageDelivery>,
) -> ProblemDetails {
    api.not_yours(&identity, request.ori_addr.addr.as_str());
    api.audit.refused(subject(&identity), "deliver-ue-message", NOT_ALLOWED);
    ProblemDetails::forbidden(FailureCause::OriginatorNotAllowed.as_str())
}

/// An AS reports on a message that was delivered to it.
async fn deliver_report(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Json(request): Json<DeliveryStatusReport>,
) -> Result<Json<MessageDeliveryAck>, ProblemDetails> {
    let report = message::DeliveryStatusReport::try_from(request).map_err(|error| problem_of_decoding(&error))?;
    let party = api.sender(&identity, &report.originator, "deliver-report")?;
    let (originator, message_id) = (report.originator.clone(), report.message_id.clone());
    let (reply, answer) = oneshot::channel();
    api.core.route_report(&party, report, Reply::Api(reply));
    api.acknowledge(originator, message_id, answer).await
}

impl Api {
    /// The registered AS that the certificate and the originating address both name.
    fn sender(
        &self,
        identity: &PeerIdentity,
        originator: &Address,
        action: &'static str,
    ) -> Result<Arc<Party>, ProblemDetails> {
        self.refuse_when_stopping()?;
        let bound = originator.as_application_server().filter(|id: &AsServiceId| self.servers.is_bound(identity, id));
        if bound.is_none() {
            self.not_yours(identity, originator.addr.as_str());
            self.audit.refused(subject(identity), action, NOT_ALLOWED);
            return Err(self.problem(FailureCause::OriginatorNotAllowed));
        }
        self.audit.allowed(subject(identity), action, DONE);
        self.core.registry.find(originator).ok_or_else(|| self.problem(FailureCause::NotRegistered))
    }

    async fn acknowledge(
        &self,
        originator: Address,
        message_id: MessageId,
        answer: oneshot::Receiver<Answer>,
    ) -> Result<Json<MessageDeliveryAck>, ProblemDetails> {
        // Every request is answered; one that were not would be one that nothing is promised about.
        let answer = answer.await.unwrap_or(Answer::Failed(FailureCause::Internal));
        if let Answer::Failed(cause) = answer
            && cause.http_status() != 200
        {
            return Err(self.problem(cause));
        }
        let (status, failure_cause) = answer.status();
        Ok(Json(MessageDeliveryAck { ori_addr: originator, msg_id: message_id, status, failure_cause }))
    }

    fn refuse_when_stopping(&self) -> Result<(), ProblemDetails> {
        if self.core.stopping.is_cancelled() { Err(self.problem(FailureCause::Stopping)) } else { Ok(()) }
    }

    /// Tells what came of a change that the peer asked for.
    fn told<T>(
        &self,
        identity: &PeerIdentity,
        action: &'static str,
        object: &str,
        outcome: Result<T, ProblemDetails>,
    ) -> Result<T, ProblemDetails> {
        let problem = outcome.as_ref().err();
        self.audit.changed(subject(identity), action, object, problem.map_or(DONE, reason), problem);
        outcome
    }

    fn refusal(&self, identity: &PeerIdentity, claimed: &str, refusal: Refusal) -> ProblemDetails {
        if refusal == Refusal::NotYours {
            self.not_yours(identity, claimed);
        }
        self.problem_of(refusal)
    }

    fn not_yours(&self, identity: &PeerIdentity, claimed: &str) {
        if self.core.log_budget.admits(Topic::Api) {
            tracing::warn!(
                target: "security", nf_instance_id = ?identity.nf_instance_id, dns_names = ?identity.dns_names, claimed,
                "request for somebody else refused"
            );
        }
        self.core.metrics.forged();
    }

    fn problem_of(&self, refusal: Refusal) -> ProblemDetails {
        match refusal {
            Refusal::NotYours => self.problem(FailureCause::OriginatorNotAllowed),
            Refusal::Unknown => ProblemDetails::not_found(NO_SUCH_REGISTRATION),
            Refusal::TargetUri => ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
                .with_invalid_param("/targetUri", "must be an https URI that this AS may name"),
            Refusal::TargetHost => ProblemDetails::forbidden(TARGET_URI_NOT_ALLOWED)
                .with_invalid_param("/targetUri", "its host must be a name in the certificate, or be configured"),
            Refusal::Storage(cause) => self.problem(cause),
        }
    }

    fn problem(&self, cause: FailureCause) -> ProblemDetails {
        let status = StatusCode::from_u16(cause.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut problem = ProblemDetails::new(status).with_cause(cause.as_str());
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            problem.retry_after_seconds = Some(self.core.limits.retry_after_seconds);
        }
        problem
    }
}

/// The audit log's word for a problem.
fn reason(problem: &ProblemDetails) -> &'static str {
    match problem.status_code() {
        StatusCode::FORBIDDEN => NOT_ALLOWED,
        StatusCode::NOT_FOUND => "unknown",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "overloaded",
        status if status.is_client_error() => "incorrect",
        _ => "failed",
    }
}

/// The audit log's word for what was done.
const DONE: &str = "done";
/// The audit log's word for what the operator's rules do not allow this peer.
const NOT_ALLOWED: &str = "not_allowed";
/// Cause of the 404 for a registration identifier that names none.
const NO_SUCH_REGISTRATION: &str = "REGISTRATION_NOT_FOUND";
/// 403: the host of `targetUri` is neither configured nor named by the certificate.
const TARGET_URI_NOT_ALLOWED: &str = "TARGET_URI_NOT_ALLOWED";

fn problem_of_decoding(error: &DecodeError) -> ProblemDetails {
    let status = StatusCode::from_u16(error.cause().http_status()).unwrap_or(StatusCode::BAD_REQUEST);
    let problem = ProblemDetails::new(status).with_cause(error.cause().as_str());
    match error.member() {
        Some(member) => {
            problem.with_invalid_param(format!("/{}", member.to_string().replace('.', "/")), error.to_string())
        }
        None => problem.with_detail(error.to_string()),
    }
}
