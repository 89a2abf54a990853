//! From the MSGin5G Server to Application Servers outside: deliveries, reports, topic list notifications.
//!
//! These are call-backs to us, so the server's certificate authorises them (TS 33.501 clause 13.4.1: tokens are not for
//! notifications). A delivery that did not succeed outside is a failure to the server, which then stores or tries again; one
//! for an AS that is not known here is such a failure too, since its registration may be on its way.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use message::AsServiceId;
use message::ts29538::{DeliveryStatusReport, MessageDeliveryAck, TopicListNotification, UeMessageDelivery};
use sbi::audit::subject;
use sbi::{Json, Path, PeerIdentity, ProblemDetails, SbiError, resource};
use serde::Serialize;

use super::INSIDE_PATH;
use crate::nef::refusal;
use crate::nef::service::{Refused, Service, refuse};

/// What the MSGin5G Server may ask; nobody else may ask anything.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route(&format!("{INSIDE_PATH}/{{as_service_id}}/deliver-message"), post(deliver_message))
        .route(&format!("{INSIDE_PATH}/{{as_service_id}}/deliver-report"), post(deliver_report))
        .route(&format!("{INSIDE_PATH}/{{as_service_id}}/topic-lists/{{subscription_id}}"), post(notify))
        .layer(from_fn_with_state(Arc::clone(&service), only_the_server))
        .with_state(service)
}

async fn only_the_server(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<PeerIdentity>,
    request: Request,
    next: Next,
) -> Response {
    if service.msgin5g.as_ref().is_some_and(|msgin5g| msgin5g.is_server(&peer)) {
        return next.run(request).await;
    }
    service.refused(subject(&peer), "nef-msgin5g", "requester_not_allowed", Instant::now());
    ProblemDetails::forbidden(refusal::REQUESTER_NOT_ALLOWED).into_response()
}

async fn deliver_message(
    State(service): State<Arc<Service>>,
    Path(id): Path<AsServiceId>,
    Json(message): Json<UeMessageDelivery>,
) -> Response {
    let since = Instant::now();
    let outcome = hand_over(&service, &id, "deliver-message", &message).await;
    service.answer(id.as_str(), "nef-msgin5g:deliver-message", since, outcome)
}

async fn deliver_report(
    State(service): State<Arc<Service>>,
    Path(id): Path<AsServiceId>,
    Json(report): Json<DeliveryStatusReport>,
) -> Response {
    let since = Instant::now();
    let outcome = hand_over(&service, &id, "deliver-report", &report).await;
    service.answer(id.as_str(), "nef-msgin5g:deliver-report", since, outcome)
}

/// Hands a body to the AS; its MessageDeliveryAck, if it sent one, is the answer.
async fn hand_over<B: Serialize + Sync>(
    service: &Service,
    id: &AsServiceId,
    operation: &str,
    body: &B,
) -> Result<(&'static str, Response), Refused> {
    let msgin5g = service.msgin5g()?;
    let away = || away(service, None);
    let held = msgin5g.records.registration(id).ok_or_else(away)?;
    let af = service.afs.current().of_application_server(id).filter(|af| af.id() == held.af_id).ok_or_else(away)?;
    let target = held.request.target_uri.as_ref().filter(|target| af.may_still_name(target)).ok_or_else(away)?;
    let taken = msgin5g.outside.post_any(&resource(target, &format!("/{operation}")), body).await;
    let answer = taken.map_err(|error| told_outside(service, &error))?;
    let ack = answer.body.as_deref().and_then(|body| serde_json::from_slice::<MessageDeliveryAck>(body).ok());
    Ok(("delivered", ack.map_or_else(|| StatusCode::NO_CONTENT.into_response(), |ack| Json(ack).into_response())))
}

/// The list of topics has changed; the AS is told of those that its entry names.
async fn notify(
    State(service): State<Arc<Service>>,
    Path((id, subscription_id)): Path<(AsServiceId, String)>,
    Json(mut notification): Json<TopicListNotification>,
) -> Response {
    let since = Instant::now();
    let outcome = async {
        let msgin5g = service.msgin5g()?;
        let unknown = || refuse("subscription_unknown", ProblemDetails::not_found(refusal::SUBSCRIPTION_NOT_FOUND));
        let list = msgin5g.records.topic_list(&subscription_id).ok_or_else(unknown)?;
        let own =
            |id: &AsServiceId| list.subscriber.as_application_server().is_some_and(|subscriber| subscriber == *id);
        let af = service
            .afs
            .current()
            .of_application_server(&id)
            .filter(|af| own(&id) && af.id() == list.af_id && af.may_still_name(&list.notification_uri))
            .ok_or_else(unknown)?;
        notification.msg_topics.retain(|topic| af.may_subscribe(&topic.msg_topic));
        if notification.msg_topics.is_empty() {
            return Ok(("nothing_to_tell", StatusCode::NO_CONTENT));
        }
        let told = msgin5g.outside.post_any(&list.notification_uri, &notification).await;
        told.map_err(|error| told_outside(&service, &error))?;
        Ok(("notified", StatusCode::NO_CONTENT))
    };
    let outcome = outcome.await;
    service.answer(id.as_str(), "nef-msgin5g:notify", since, outcome)
}

/// What the server is told of a refusal outside, or of silence there. What may pass is a 503, so that the message is kept.
pub(crate) fn told_outside(service: &Service, error: &SbiError) -> Refused {
    tracing::warn!(%error, "delivery outside failed");
    match error {
        SbiError::Problem(problem) => {
            let status = problem.status_code();
            let refused = status.is_client_error()
                && !matches!(
                    status,
                    // The second is about our certificate or our entry there: no fault of this message.
                    StatusCode::REQUEST_TIMEOUT
                        | StatusCode::UNAUTHORIZED
                        | StatusCode::TOO_EARLY
                        | StatusCode::TOO_MANY_REQUESTS
                );
            if refused {
                refuse("refused_outside", ProblemDetails::new(status))
            } else {
                away(service, problem.retry_after_seconds)
            }
        }
        _ => away(service, None),
    }
}

/// About this AS alone: the server goes on to deliver to the others.
fn away(service: &Service, seconds: Option<u32>) -> Refused {
    let seconds = seconds.unwrap_or(service.retry_after_seconds);
    refuse("away", ProblemDetails::unavailable(refusal::TARGET_UNAVAILABLE, seconds))
}
