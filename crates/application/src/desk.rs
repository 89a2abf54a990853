//! Where the server delivers: `POST {targetUri}/deliver-message` and `POST {targetUri}/deliver-report` (docs/reference/as-api.md,
//! "What the AS serves"), and tells of topics, `POST {targetUri}/topic-list` (docs/reference/topics.md).
//!
//! A delivery's way: is the sender one of ours → is it well-formed and for us → was it decided upon → to the application → its
//! decision, or 503.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use message::ts29538::{
    DeliveryStatusReport as ReportDelivery, MessageDeliveryAck, TopicListNotification, UeMessageDelivery,
};
use message::{Address, DecodeLimits, DeliveryStatus, DeliveryStatusReport, FailureCause};
use sbi::{Json, PeerIdentity, ProblemDetails, cause};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::config::{ApplicationServerConfig, Senders};
use crate::hand_over::{Arrival, HandOvers, Key, Verdict};
use crate::incoming::{Incoming, IncomingStream, Received};
use crate::topics::{TOPIC_LIST, TopicChanges};

/// What the operations need.
#[derive(Clone)]
struct Desk {
    own: Address,
    senders: Arc<Senders>,
    limits: DecodeLimits,
    decision: Duration,
    hand_overs: Arc<HandOvers>,
    incoming: mpsc::Sender<Incoming>,
}

/// The operations, and what the application gets of them.
pub(crate) fn open(config: &ApplicationServerConfig) -> (Router, IncomingStream) {
    let limits = &config.limits;
    // As many places as there can be undecided deliveries, so that none has to wait for one; what is told of topics shares them.
    let (incoming, receiver) = mpsc::channel(limits.undecided_max);
    let desk = Desk {
        own: Address::application_server(&config.as_service_id),
        senders: Arc::new(config.senders.clone()),
        limits: DecodeLimits { payload_octets_max: limits.payload_octets_max, ..DecodeLimits::default() },
        decision: Duration::from_millis(limits.decision_milliseconds),
        hand_overs: Arc::new(HandOvers::new(limits.undecided_max, limits.decisions_remembered_max)),
        incoming,
    };
    let router = Router::new()
        .route("/deliver-message", post(deliver_message))
        .route("/deliver-report", post(deliver_report))
        .route(TOPIC_LIST, post(topics_changed))
        .route_layer(from_fn_with_state(Arc::clone(&desk.senders), admit))
        .with_state(desk);
    (router, IncomingStream { receiver })
}

/// Before anything of the body is read.
async fn admit(
    State(senders): State<Arc<Senders>>,
    Extension(peer): Extension<PeerIdentity>,
    request: Request,
    next: Next,
) -> Response {
    if senders.admit(&peer) {
        return next.run(request).await;
    }
    tracing::warn!(target: "security", subject = sbi::audit::subject(&peer), "a delivery by somebody else than the server");
    ProblemDetails::forbidden(SENDER_NOT_ALLOWED).into_response()
}

async fn deliver_message(
    State(desk): State<Desk>,
    Json(delivery): Json<UeMessageDelivery>,
) -> Result<Json<MessageDeliveryAck>, ProblemDetails> {
    let message = delivery
        .into_message(&desk.limits)
        .map_err(|error| ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT).with_detail(error.to_string()))?;
    let key = Key { report: false, originator: message.originator.clone(), message_id: message.message_id.clone() };
    desk.hand_over(key, message, Incoming::Message).await
}

async fn deliver_report(
    State(desk): State<Desk>,
    Json(delivery): Json<ReportDelivery>,
) -> Result<Json<MessageDeliveryAck>, ProblemDetails> {
    let report = DeliveryStatusReport::try_from(delivery)
        .map_err(|error| ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT).with_detail(error.to_string()))?;
    if report.destination != desk.own {
        return Err(ProblemDetails::not_found(FailureCause::UnknownTarget.as_str()));
    }
    let key = Key { report: true, originator: report.originator.clone(), message_id: report.message_id.clone() };
    desk.hand_over(key, report, Incoming::Report).await
}

/// What a subscriber to the list of topics is told at its `notificationURI`.
async fn topics_changed(
    State(desk): State<Desk>,
    Json(notification): Json<TopicListNotification>,
) -> Result<StatusCode, ProblemDetails> {
    let (answer, taken) = oneshot::channel();
    let changes = Incoming::Topics(TopicChanges::new(notification, answer));
    if desk.incoming.try_send(changes).is_err() {
        return Err(ProblemDetails::overloaded(RETRY_AFTER_SECONDS));
    }
    match timeout(desk.decision, taken).await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(_)) | Err(_) => Err(ProblemDetails::overloaded(RETRY_AFTER_SECONDS)),
    }
}

impl Desk {
    async fn hand_over<T>(
        &self,
        key: Key,
        content: T,
        incoming: impl FnOnce(Received<T>) -> Incoming,
    ) -> Result<Json<MessageDeliveryAck>, ProblemDetails> {
        match self.hand_overs.arrived(&key) {
            Arrival::New => {}
            Arrival::Decided(verdict) => return Ok(Json(acknowledgement(key, verdict))),
            Arrival::Undecided | Arrival::Full => return Err(ProblemDetails::overloaded(RETRY_AFTER_SECONDS)),
        }
        let (answer, decision) = oneshot::channel();
        let received = Received::new(content, key.clone(), Arc::clone(&self.hand_overs), answer);
        // Where nobody takes them, the one that comes back is given back as it is dropped.
        if self.incoming.try_send(incoming(received)).is_err() {
            return Err(ProblemDetails::overloaded(RETRY_AFTER_SECONDS));
        }
        match timeout(self.decision, decision).await {
            Ok(Ok(verdict)) => Ok(Json(acknowledgement(key, verdict))),
            // Given back, or not decided in time: it comes again.
            Ok(Err(_)) | Err(_) => Err(ProblemDetails::overloaded(RETRY_AFTER_SECONDS)),
        }
    }
}

fn acknowledgement(key: Key, verdict: Verdict) -> MessageDeliveryAck {
    let (status, failure_cause) = match verdict {
        Verdict::Accepted => (None, None),
        Verdict::Refused => (Some(DeliveryStatus::Failed), Some(FailureCause::TargetRefused.into())),
    };
    MessageDeliveryAck { ori_addr: key.originator, msg_id: key.message_id, status, failure_cause }
}

/// 403: the certificate has none of the names in [`Senders::Named`].
const SENDER_NOT_ALLOWED: &str = "SENDER_NOT_ALLOWED";
/// When a delivery is to come again that the application did not take.
const RETRY_AFTER_SECONDS: u32 = 1;
