//! Requests and responses, both ways: from CoAP to the message model and back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use coap::{Code, ExchangeId, Request, Response, StreamError};
use message::{
    Address, DeliveryStatus, FailureCause, MessageId, MessageResponse, RegistrationResponse, UeMessage, UeServiceId,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Ended, Sent, Session, Unanswered};
use crate::core::Core;
use crate::delivery::{Answer, Reply, Schedule};
use crate::log_budget::Topic;
use crate::registry::{OpenRequest, Party};

/// Content-Format of JSON (RFC 7252 section 12.3).
const JSON: u16 = 50;

/// How long a recipient that answered 4.29 or 5.xx is left alone if it does not say, and at most.
const PAUSE_DEFAULT: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// A request of the peer.
    pub(super) fn take_request(&mut self, request: Request) {
        let exchange = request.exchange;
        if !request.path.iter().map(String::as_str).eq(self.path.split('/')) {
            return self.refuse_plainly(exchange, Code::NOT_FOUND);
        }
        if request.method != Code::POST {
            return self.refuse_plainly(exchange, Code::METHOD_NOT_ALLOWED);
        }
        if request.accept.is_some_and(|accept| accept != JSON) {
            return self.refuse_plainly(exchange, Code::NOT_ACCEPTABLE);
        }
        if request.content_format != Some(JSON) {
            return self.refuse(exchange, FailureCause::ContentFormatNotSupported);
        }
        match UeMessage::decode(&request.payload, &self.core.decode_limits) {
            Ok(UeMessage::Message(message)) => {
                let (originator, id) = (message.originator.clone(), message.message_id.clone());
                if let Some((party, reply)) = self.begin_request(exchange, originator, id) {
                    self.core.route_message(&party, *message, reply);
                }
            }
            Ok(UeMessage::DeliveryStatusReport(report)) => {
                let (originator, id) = (report.originator.clone(), report.message_id.clone());
                if let Some((party, reply)) = self.begin_request(exchange, originator, id) {
                    self.core.route_report(&party, report, reply);
                }
            }
            Ok(UeMessage::Registration(registration)) => self.register(exchange, registration),
            Ok(UeMessage::Deregistration(deregistration)) => self.deregister(exchange, deregistration),
            Ok(_) => self.refuse(exchange, FailureCause::MessageTypeNotSupported),
            Err(error) => {
                if self.core.log_budget.admits(Topic::Malformed) {
                    tracing::info!(a_kid = %self.peer.a_kid, %error, "request refused");
                }
                self.refuse(exchange, error.cause());
            }
        }
    }

    /// Enters a request among those that wait for their answer, unless it is answered here.
    fn begin_request(
        &mut self,
        exchange: ExchangeId,
        originator: Address,
        message_id: MessageId,
    ) -> Option<(Arc<Party>, Reply)> {
        let entered = self.enter_request();
        self.unanswered.push(Unanswered { exchange, originator, message_id });
        match entered {
            Ok((party, open)) => Some((party, Reply::Session(Arc::clone(&self.mailbox), exchange, open))),
            Err(cause) => {
                self.core.metrics.answered(&Answer::Failed(cause));
                self.answer(exchange, Answer::Failed(cause));
                None
            }
        }
    }

    fn enter_request(&self) -> Result<(Arc<Party>, OpenRequest), FailureCause> {
        if self.core.stopping.is_cancelled() {
            return Err(FailureCause::Stopping);
        }
        let party = &self.registered.as_ref().ok_or(FailureCause::NotRegistered)?.party;
        let open_max = self.core.limits.requests_per_connection_max;
        // Here are the answers not written yet, there the requests of the UE's earlier connections.
        if self.unanswered.len() >= open_max {
            return Err(FailureCause::TooMany);
        }
        let open = OpenRequest::of(party, open_max).ok_or(FailureCause::TooMany)?;
        Ok((Arc::clone(party), open))
    }

    /// Sends the answer to a message or report.
    pub(super) fn answer(&mut self, exchange: ExchangeId, answer: Answer) {
        let Some(index) = self.unanswered.iter().position(|waiting| waiting.exchange == exchange) else { return };
        let Unanswered { originator, message_id, .. } = self.unanswered.swap_remove(index);
        if self.unanswered.is_empty() && self.unanswered.capacity() > 16 {
            self.unanswered = Vec::new();
        }
        let (code, status, failure_cause) = match answer {
            Answer::Delivered => (Code::CHANGED, None, None),
            Answer::Stored => (Code::CHANGED, Some(DeliveryStatus::Stored), None),
            Answer::Failed(cause) => (code_of(cause), Some(DeliveryStatus::Failed), Some(cause.into())),
        };
        let payload = MessageResponse { originator, message_id, status, failure_cause }.encode();
        self.respond(exchange, self.response(code, payload));
    }

    /// Sends the answer to a registration or de-registration.
    pub(super) fn answer_registration(
        &mut self,
        exchange: ExchangeId,
        ue_service_id: UeServiceId,
        result: Result<Code, FailureCause>,
    ) {
        let (code, failure_cause) = match result {
            Ok(code) => (code, None),
            Err(cause) => (code_of(cause), Some(cause.into())),
        };
        let payload = RegistrationResponse { ue_service_id, failure_cause }.encode();
        self.respond(exchange, self.response(code, payload));
    }

    /// Refuses a request that was not understood.
    fn refuse(&mut self, exchange: ExchangeId, cause: FailureCause) {
        self.core.metrics.answered(&Answer::Failed(cause));
        self.respond(exchange, self.response(code_of(cause), message::failure(&cause)));
    }

    /// Refuses a request that is none of this service.
    fn refuse_plainly(&mut self, exchange: ExchangeId, code: Code) {
        self.respond(exchange, Response::new(code));
    }

    fn response(&self, code: Code, payload: Vec<u8>) -> Response {
        let response = Response::new(code).with_content_format(JSON).with_payload(payload);
        if matches!(code, Code::TOO_MANY_REQUESTS | Code::SERVICE_UNAVAILABLE) {
            response.with_max_age(self.core.limits.retry_after_seconds)
        } else {
            response
        }
    }

    fn respond(&mut self, exchange: ExchangeId, response: Response) {
        match self.machine.respond(exchange, &response) {
            Ok(()) | Err(StreamError::Closed | StreamError::UnknownExchange) => {}
            // The peer takes less than an answer has, or reads none of them: nothing can be said to it.
            Err(error) => {
                tracing::info!(a_kid = %self.peer.a_kid, %error, "answer cannot be sent");
                self.abort(Ended::NotReading);
            }
        }
    }

    /// Sends what the pipeline has, as far as the windows allow.
    pub(super) fn dispatch(&mut self) -> bool {
        if !std::mem::take(&mut self.look) || self.ending.is_some() {
            return false;
        }
        let Some(registered) = &self.registered else { return false };
        let (party, generation) = (Arc::clone(&registered.party), registered.generation);
        let window = self.core.limits.delivery_window;
        let mut progress = false;
        while self.outbound_octets() < self.core.limits.outbound_octets_max {
            let dispatch = match self.core.dispatch(&party, generation, window, Schedule::Stream) {
                Ok(dispatch) => dispatch,
                Err(deadline) => {
                    self.pipeline_deadline = deadline;
                    return progress;
                }
            };
            progress = true;
            let request = Request::post(&self.path).content_format(JSON).payload(&*dispatch.body);
            match self.machine.request(request) {
                Ok(exchange) => self.sent.push_back(Sent { exchange, tag: dispatch.tag, at: Instant::now() }),
                Err(StreamError::MessageTooLargeForPeer { .. }) => {
                    self.core.refused(&party, generation, dispatch.tag, FailureCause::PayloadTooLarge);
                }
                Err(_) => {
                    let until = Instant::now() + PAUSE_DEFAULT;
                    self.core.postponed(&party, generation, dispatch.tag, until);
                }
            }
        }
        // Come again when some of it is written.
        self.look = true;
        progress
    }

    /// The recipient's answer to a delivery.
    pub(super) fn take_response(&mut self, exchange: ExchangeId, response: &Response) {
        let Some((party, generation, tag)) = self.landed(exchange) else { return };
        let core = &self.core;
        let code = response.code;
        if code.is_success() {
            match refusal_in(&response.payload, core) {
                None => core.acknowledged(&party, generation, tag),
                Some(cause) => core.refused(&party, generation, tag, cause),
            }
        } else if code == Code::TOO_MANY_REQUESTS || code.class() == 5 {
            let pause = response.max_age.map_or(PAUSE_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
            let until = Instant::now() + pause.clamp(Duration::from_secs(1), PAUSE_MAX);
            core.postponed(&party, generation, tag, until);
        } else {
            if core.log_budget.admits(Topic::DeliveryRefused) {
                tracing::info!(recipient = %party.address, %code, "delivery refused by the recipient");
            }
            core.refused(&party, generation, tag, FailureCause::TargetRefused);
        }
    }

    pub(super) fn take_unusable_response(&mut self, exchange: ExchangeId) {
        if let Some((party, generation, tag)) = self.landed(exchange) {
            self.core.refused(&party, generation, tag, FailureCause::TargetRefused);
        }
    }

    fn landed(&mut self, exchange: ExchangeId) -> Option<(Arc<Party>, u64, u64)> {
        let index = self.sent.iter().position(|sent| sent.exchange == exchange)?;
        let sent = self.sent.remove(index)?;
        if self.sent.is_empty() && self.sent.capacity() > 16 {
            self.sent = VecDeque::new();
        }
        self.look = true;
        let registered = self.registered.as_ref()?;
        Some((Arc::clone(&registered.party), registered.generation, sent.tag))
    }
}

/// The code a cause travels with.
fn code_of(cause: FailureCause) -> Code {
    Code::from_octet(cause.coap_code())
}

/// A client may refuse in the payload of a 2.04, as the server does. Most say nothing there.
fn refusal_in(payload: &[u8], core: &Core) -> Option<FailureCause> {
    if payload.is_empty() {
        return None;
    }
    match MessageResponse::decode(payload, &core.decode_limits) {
        Ok(MessageResponse { status: Some(DeliveryStatus::Failed), .. }) => Some(FailureCause::TargetRefused),
        _ => None,
    }
}
