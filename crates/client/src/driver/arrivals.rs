//! What the server sends, and what the application decides about it.

use coap::{Code, ExchangeId, Request, Response};
use message::{Address, DeliveryStatusReport, FailureCause, MessageResponse, ReportDeliveryStatus, UeMessage, failure};
use tokio::time::Instant;

use super::{Driver, JSON, Link};
use crate::{
    error::ClientError,
    hand_over::{Arrival, HandOverKey},
    incoming::{Decision, Incoming, Received, Verdict},
    journal::Record,
    journal_writer::Batch,
    requests::Purpose,
};

impl Driver {
    /// Takes over what an earlier run of this client left behind.
    pub(super) fn recall(&mut self, records: Vec<Record>) {
        for record in records {
            if let Record::Accepted { key, report_owed } = record {
                self.hand_overs.remember(key.clone());
                if report_owed {
                    self.owe_report(key);
                }
            }
        }
    }

    pub(super) fn on_request(&mut self, request: Request) {
        let exchange = request.exchange;
        match self.read(request) {
            Ok(incoming) => self.hand_over(exchange, incoming),
            Err((code, cause)) => self.respond(exchange, refusal(code, cause)),
        }
    }

    fn read(&self, request: Request) -> Result<UeMessage, (Code, FailureCause)> {
        if request.path != self.path_segments {
            return Err((Code::NOT_FOUND, FailureCause::UnknownTarget));
        }
        if request.method != Code::POST {
            return Err((Code::METHOD_NOT_ALLOWED, FailureCause::MessageTypeNotSupported));
        }
        if request.content_format.is_some_and(|format| format != JSON) {
            return Err(with_code(FailureCause::ContentFormatNotSupported));
        }
        let decoded = UeMessage::decode(&request.payload, &self.decode_limits()).map_err(|error| {
            tracing::warn!(%error, "the server sent something unreadable");
            with_code(error.cause())
        })?;
        let destination = match &decoded {
            UeMessage::Message(message) => &message.destination,
            UeMessage::DeliveryStatusReport(report) => &report.destination,
            _ => return Err(with_code(FailureCause::MessageTypeNotSupported)),
        };
        // What is addressed to a group or topic is for us if the server says so; to another UE it is not.
        if destination.as_ue().is_some_and(|ue| ue != self.config.ue_service_id) {
            return Err(with_code(FailureCause::UnknownTarget));
        }
        Ok(decoded)
    }

    fn hand_over(&mut self, exchange: ExchangeId, incoming: UeMessage) {
        let (key, report_wanted) = match &incoming {
            UeMessage::Message(message) => (HandOverKey::of_message(message), message.delivery_status_required),
            UeMessage::DeliveryStatusReport(report) => (HandOverKey::of_report(report), false),
            _ => return,
        };
        match self.hand_overs.arrive(&key, exchange, report_wanted, Instant::now()) {
            Arrival::New => {
                let decisions = self.decision_sender.clone();
                let incoming = match incoming {
                    UeMessage::Message(message) => Incoming::Message(Received::new(*message, key, decisions)),
                    UeMessage::DeliveryStatusReport(report) => Incoming::Report(Received::new(report, key, decisions)),
                    _ => return,
                };
                // Fails only if the application takes nothing any more; dropping it then gives it back to the server.
                let _ = self.to_application.try_send(incoming);
            }
            Arrival::Remembered => {
                tracing::debug!(message_id = %key.message_id, "came again; it was handed over before");
                self.respond(exchange, acknowledgement(&key));
            }
            Arrival::Undecided => {}
            Arrival::Later => self.put_off(exchange, &key),
        }
    }

    pub(super) fn on_decision(&mut self, decision: Decision) {
        let Decision { key, verdict } = decision;
        match verdict {
            Verdict::Accept(waiting) => {
                let Some(report_owed) = self.hand_overs.accept(&key, waiting) else { return };
                let record = Record::Accepted { key, report_owed };
                match &mut self.journal {
                    Some(journal) => journal.write(record),
                    None => self.settle(Batch { records: vec![record], result: Ok(()) }),
                }
            }
            Verdict::Refuse(cause) => {
                if let Some(exchange) = self.hand_overs.give_back(&key).and_then(|settled| settled.exchange) {
                    self.respond(exchange, refusal(Code::FORBIDDEN, cause));
                }
            }
            Verdict::GiveBack => {
                if let Some(exchange) = self.hand_overs.give_back(&key).and_then(|settled| settled.exchange) {
                    self.put_off(exchange, &key);
                }
            }
        }
    }

    /// Tells the server to come back with it; until then nothing new is taken that could overtake it.
    fn put_off(&mut self, exchange: ExchangeId, key: &HandOverKey) {
        let pause = self.hand_overs.hold_back(key, Instant::now(), self.config.limits.come_back());
        // Rounded up: the server is to come after the pause, not shortly before its end.
        let seconds = u32::try_from(pause.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        self.respond(exchange, refusal(Code::SERVICE_UNAVAILABLE, FailureCause::Overloaded).with_max_age(seconds));
    }

    pub(super) fn on_batch(&mut self, batch: Batch) {
        if let Err(error) = &batch.result {
            tracing::error!(%error, "cannot write the hand-over journal");
        }
        self.settle(batch);
    }

    /// The records are on disk, or could not be put there: acknowledges what was accepted, or does not.
    pub(super) fn settle(&mut self, batch: Batch) {
        for record in batch.records {
            let Record::Accepted { key, .. } = record else { continue };
            match &batch.result {
                Ok(()) => self.accepted(key),
                Err(error) => self.not_recorded(&key, error),
            }
        }
    }

    fn accepted(&mut self, key: HandOverKey) {
        let Some(settled) = self.hand_overs.settle(&key) else { return };
        if let Some(exchange) = settled.exchange {
            self.respond(exchange, acknowledgement(&key));
        }
        if settled.report_owed {
            self.owe_report(key);
        }
        if let Some(waiting) = settled.waiting {
            // The application may have stopped waiting.
            let _ = waiting.send(Ok(()));
        }
    }

    fn not_recorded(&mut self, key: &HandOverKey, error: &std::io::Error) {
        let Some(settled) = self.hand_overs.give_back(key) else { return };
        if let Some(exchange) = settled.exchange {
            self.put_off(exchange, key);
        }
        if let Some(waiting) = settled.waiting {
            let path = self.config.state_dir.clone().unwrap_or_default();
            let source = std::sync::Arc::new(std::io::Error::new(error.kind(), error.to_string()));
            let _ = waiting.send(Err(ClientError::State { path, source }));
        }
    }

    /// Puts the report on an accepted message among the requests (TS 23.554 clause 8.3.4).
    fn owe_report(&mut self, key: HandOverKey) {
        let report = DeliveryStatusReport {
            originator: Address::ue(&self.config.ue_service_id),
            destination: key.originator.clone(),
            message_id: key.message_id.clone(),
            delivery_status: ReportDeliveryStatus::Success,
            failure_cause: None,
        };
        let body = UeMessage::DeliveryStatusReport(report).encode();
        self.requests.push(body, Purpose::Report(key));
        while let Some((key, exchange)) = self.requests.give_up_report(self.config.limits.reports_owed_max) {
            tracing::warn!(message_id = %key.message_id, "too many delivery status reports: the oldest is given up");
            if let (Some(exchange), Link::Up { session, .. }) = (exchange, &mut self.link) {
                session.coap.cancel(exchange);
            }
            if let Some(journal) = &mut self.journal {
                journal.write(Record::Reported { key });
            }
        }
    }

    fn respond(&mut self, exchange: ExchangeId, response: Response) {
        if let Link::Up { session, .. } = &mut self.link
            && let Err(error) = session.coap.respond(exchange, response)
        {
            // The server delivers again, and is answered then.
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}

fn acknowledgement(key: &HandOverKey) -> Response {
    let answer = MessageResponse {
        originator: key.originator.clone(),
        message_id: key.message_id.clone(),
        status: None,
        failure_cause: None,
    };
    Response::new(Code::CHANGED).with_content_format(JSON).with_payload(answer.encode())
}

fn with_code(cause: FailureCause) -> (Code, FailureCause) {
    (Code::from_octet(cause.coap_code()), cause)
}

fn refusal(code: Code, cause: FailureCause) -> Response {
    Response::new(code).with_content_format(JSON).with_payload(failure(&cause))
}
