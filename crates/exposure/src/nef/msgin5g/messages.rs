//! `msgs-msgdelivery` (TS 29.538): messages and reports of Application Servers outside, handed to the MSGin5G Server.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use message::Address;
use message::ts29538::{AsMessageDelivery, DeliveryStatusReport, MessageDeliveryAck};
use sbi::{Json, ProblemDetails};
use serde::Serialize;

use crate::nef::caller::Caller;
use crate::nef::refusal;
use crate::nef::service::{Refused, Service, refuse};

const DELIVER_AS_MESSAGE: &str = "/msgs-msgdelivery/v1/deliver-as-message";
const DELIVER_REPORT: &str = "/msgs-msgdelivery/v1/deliver-report";

pub(super) fn router() -> Router<Arc<Service>> {
    Router::new().route(DELIVER_AS_MESSAGE, post(deliver_as_message)).route(DELIVER_REPORT, post(deliver_report))
}

/// A message of an AS. What the server answers is the answer, so that success means what it means there.
async fn deliver_as_message(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<AsMessageDelivery>,
) -> Response {
    let since = Instant::now();
    let outcome = relay(&service, &caller, DELIVER_AS_MESSAGE, &request.ori_addr, &request.dest_addr, &request).await;
    service.answer(caller.af.id(), "msgs-msgdelivery:deliver-as-message", since, outcome)
}

/// A report of an AS on a message that was delivered to it; to nobody that it may not send to.
async fn deliver_report(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<DeliveryStatusReport>,
) -> Response {
    let since = Instant::now();
    let outcome = relay(&service, &caller, DELIVER_REPORT, &request.ori_addr, &request.dest_addr, &request).await;
    service.answer(caller.af.id(), "msgs-msgdelivery:deliver-report", since, outcome)
}

async fn relay<B: Serialize + Sync>(
    service: &Service,
    caller: &Caller,
    path: &str,
    originator: &Address,
    recipient: &Address,
    body: &B,
) -> Result<(&'static str, Json<MessageDeliveryAck>), Refused> {
    service.registered(caller, originator)?;
    if !caller.af.may_address(recipient) {
        return Err(refuse("recipient_not_allowed", ProblemDetails::forbidden(refusal::RECIPIENT_NOT_ALLOWED)));
    }
    let msgin5g = service.msgin5g()?;
    let answer = msgin5g.messages.post(&msgin5g.operation(path), body).await;
    let ack = answer.and_then(|answer| answer.into_body()).map_err(|error| service.told_inside(&error))?;
    Ok(("relayed", Json(ack)))
}
