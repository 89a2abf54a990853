//! Requests and responses, both ways: from CoAP to the message model and back.

use std::sync::Arc;

use coap::{Code, ConnectionError, ExchangeId, Request, Response};
use message::{
    Address, AggregatedReport, FailureCause, IndividualResponse, MessageId, MessageResponse, RegistrationResponse,
    UeMessage, UeServiceId,
};
use tokio::time::Instant;

use super::{Ended, Session, Unanswered};
use crate::core::Core;
use crate::delivery::{Answer, Reply};
use crate::log_budget::Topic;
use crate::registry::{OpenRequest, Party};
use crate::segments::Notice;

/// Content-Format of JSON (RFC 7252 section 12.3).
pub(super) const JSON: u16 = 50;

impl Session {
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
                let named = (message.originator.clone(), message.message_id.clone());
                self.route(exchange, named, |core, party, reply| core.route_message(party, *message, reply));
            }
            Ok(UeMessage::AggregatedMessage(aggregated)) => {
                let named = (aggregated.originator.clone(), aggregated.message_id.clone());
                self.route(exchange, named, |core, party, reply| core.route_aggregate(party, *aggregated, reply));
            }
            Ok(UeMessage::DeliveryStatusReport(report)) => {
                let named = (report.originator.clone(), report.message_id.clone());
                self.route(exchange, named, |core, party, reply| core.route_report(party, report, reply));
            }
            Ok(UeMessage::AggregatedReport(aggregated)) => self.take_aggregated_report(exchange, aggregated),
            Ok(UeMessage::SegmentRecovery(recovery)) => self.take_notice(exchange, Notice::Recovery(recovery)),
            Ok(UeMessage::SegmentConfirmation(confirmation)) => {
                self.take_notice(exchange, Notice::Confirmation(confirmation));
            }
            Ok(UeMessage::StoredMessageUpdate(update)) => {
                let named = (update.originator.clone(), update.message_id.clone());
                self.route(exchange, named, |core, party, reply| core.route_update(party, update, reply));
            }
            Ok(UeMessage::Registration(registration)) => self.register(exchange, registration),
            Ok(UeMessage::Deregistration(deregistration)) => self.deregister(exchange, deregistration),
            Ok(UeMessage::TopicSubscription(request)) => self.subscribe(exchange, request),
            Ok(UeMessage::TopicUnsubscription(request)) => self.unsubscribe(exchange, request),
            Ok(_) => self.refuse(exchange, FailureCause::MessageTypeNotSupported),
            Err(error) => {
                if self.core.log_budget.admits(Topic::Malformed) {
                    tracing::info!(a_kid = %self.peer.a_kid, %error, "request refused");
                }
                self.refuse(exchange, error.cause());
            }
        }
    }

    fn take_aggregated_report(&mut self, exchange: ExchangeId, aggregated: AggregatedReport) {
        // It has no name of its own; its answer bears that of the first message reported on.
        let Some(first) = aggregated.reports.first() else { return self.refuse(exchange, FailureCause::Malformed) };
        let named = (aggregated.originator.clone(), first.message_id.clone());
        self.route(exchange, named, |core, party, reply| core.route_aggregated_report(party, aggregated, reply));
    }

    fn take_notice(&mut self, exchange: ExchangeId, notice: Notice) {
        let named = (notice.originator().clone(), notice.message_id().clone());
        self.route(exchange, named, |core, party, reply| core.route_notice(party, &notice, reply));
    }

    /// Hands a request on, unless it is answered here.
    fn route(
        &mut self,
        exchange: ExchangeId,
        (originator, message_id): (Address, MessageId),
        route: impl FnOnce(&Arc<Core>, &Arc<Party>, Reply),
    ) {
        if let Some((party, reply)) = self.begin_request(exchange, originator, message_id) {
            route(&self.core, &party, reply);
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

    pub(super) fn enter_request(&self) -> Result<(Arc<Party>, OpenRequest), FailureCause> {
        if self.core.stopping.is_cancelled() {
            return Err(FailureCause::Stopping);
        }
        self.check_key()?;
        let party = &self.registered.as_ref().ok_or(FailureCause::NotRegistered)?.party;
        let open_max = self.core.limits.requests_per_connection_max;
        // Here are the answers not written yet, there the requests of the UE's earlier connections.
        if self.unanswered.len() >= open_max {
            return Err(FailureCause::TooMany);
        }
        let open = OpenRequest::of(party, open_max).ok_or(FailureCause::TooMany)?;
        Ok((Arc::clone(party), open))
    }

    /// What comes after K_AF's expiry may be there before the connection is ended for that.
    pub(super) fn check_key(&self) -> Result<(), FailureCause> {
        match self.expires {
            Some(at) if at <= self.heard_at => Err(FailureCause::AuthenticationExpired),
            _ => Ok(()),
        }
    }

    /// Sends the answer to a message or report.
    pub(super) fn answer(&mut self, exchange: ExchangeId, answer: Answer) {
        let Some(index) = self.unanswered.iter().position(|waiting| waiting.exchange == exchange) else { return };
        let Unanswered { originator, message_id, .. } = self.unanswered.swap_remove(index);
        if self.unanswered.is_empty() && self.unanswered.capacity() > 16 {
            self.unanswered = Vec::new();
        }
        let code = match &answer {
            Answer::Failed(cause) => code_of(*cause),
            Answer::Discarded => Code::DELETED,
            _ => Code::CHANGED,
        };
        let (status, failure_cause) = answer.status();
        let individual = match &answer {
            Answer::Individually(answers) => answers.iter().map(individual_response).collect(),
            _ => Vec::new(),
        };
        let payload = MessageResponse { originator, message_id, status, failure_cause, individual }.encode();
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
        let response = self.response(code, payload);
        // A registration is good for as long as the key that proves who made it (INFERRED: no member says so).
        let lifetime =
            self.expires.filter(|_| code == Code::CREATED).map(|at| at.saturating_duration_since(Instant::now()));
        let response = match lifetime {
            Some(lifetime) => response.with_max_age(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)),
            None => response,
        };
        self.respond(exchange, response);
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

    pub(super) fn response(&self, code: Code, payload: Vec<u8>) -> Response {
        let response = Response::new(code).with_content_format(JSON).with_payload(payload);
        if matches!(code, Code::TOO_MANY_REQUESTS | Code::SERVICE_UNAVAILABLE) {
            response.with_max_age(self.core.limits.retry_after_seconds)
        } else {
            response
        }
    }

    pub(super) fn respond(&mut self, exchange: ExchangeId, response: Response) {
        match self.coap().respond(exchange, &response, Instant::now().into_std()) {
            Ok(()) | Err(ConnectionError::Closed | ConnectionError::UnknownExchange) => {}
            // The peer takes less than an answer has, or reads none of them: nothing can be said to it.
            Err(error) => {
                tracing::info!(a_kid = %self.peer.a_kid, %error, "answer cannot be sent");
                self.abort(Ended::NotReading);
            }
        }
    }
}

fn individual_response((message_id, answer): &(MessageId, Answer)) -> IndividualResponse {
    let (status, failure_cause) = answer.status();
    IndividualResponse { message_id: message_id.clone(), status, failure_cause }
}

/// The code a cause travels with.
pub(super) fn code_of(cause: FailureCause) -> Code {
    Code::from_octet(cause.coap_code())
}
