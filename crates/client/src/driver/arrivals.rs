//! What the server sends, on its way to the application.

use coap::{Code, ExchangeId, Request, Response};
use message::{
    Address, DeliveryStatusReport, FailureCause, Message, MessageId, MessageResponse, Priority, SegmentationSetId,
    UeMessage, failure, segmentation::SetKey,
};
use tokio::time::Instant;

use super::{Driver, JSON, Link};
use crate::{
    hand_over::{Arrival, HandOverKey, Owed, Terms},
    incoming::{Incoming, Received},
    reassembly::Taken,
    requests::set_name,
};

/// Where an acknowledgement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To the server, as the answer to a request.
    Exchange(ExchangeId),
    /// To the other messages or reports of the same request.
    Part(u64),
}

/// One thing for the application.
#[derive(Debug)]
pub(super) enum Content {
    Message(Box<Message>),
    Report(DeliveryStatusReport),
}

impl Content {
    fn key(&self) -> HandOverKey {
        match self {
            Self::Message(message) => HandOverKey::of_message(message),
            Self::Report(report) => HandOverKey::of_report(report),
        }
    }

    fn terms(&self) -> Terms {
        match self {
            Self::Message(message) => terms_of(message, None),
            Self::Report(_) => Terms { priority: Priority::default(), owed: Owed::default() },
        }
    }
}

/// What goes with `message`, which came as the set of segments named `confirmation` if it did.
fn terms_of(message: &Message, confirmation: Option<SegmentationSetId>) -> Terms {
    let owed = Owed { report: message.delivery_status_required, confirmation };
    Terms { priority: message.priority, owed }
}

impl Driver {
    pub(super) fn on_request(&mut self, request: Request) {
        let exchange = request.exchange;
        let place = Place::Exchange(exchange);
        match self.read(request) {
            Ok(UeMessage::Message(message)) if message.segment.is_some() => self.on_segment(exchange, *message),
            Ok(UeMessage::Message(message)) => self.hand_over(place, Content::Message(message)),
            Ok(UeMessage::DeliveryStatusReport(report)) => self.hand_over(place, Content::Report(report)),
            Ok(UeMessage::AggregatedMessage(aggregate)) => {
                let (originator, message_id) = (aggregate.originator.clone(), aggregate.message_id.clone());
                let messages = aggregate.into_messages().into_iter();
                let content = messages.map(|message| Content::Message(Box::new(message))).collect();
                self.on_bundle(exchange, originator, message_id, content);
            }
            Ok(UeMessage::AggregatedReport(aggregate)) => {
                let originator = aggregate.originator.clone();
                // It has no Message ID of its own; its answer names the first that it is about.
                let Some(message_id) = aggregate.reports.first().map(|report| report.message_id.clone()) else {
                    return;
                };
                let content = aggregate.into_reports().into_iter().map(Content::Report).collect();
                self.on_bundle(exchange, originator, message_id, content);
            }
            Ok(UeMessage::SegmentRecovery(recovery)) => {
                let name = set_name(&recovery.originator, &recovery.message_id, &recovery.set_id);
                let is_kept = self.requests.recover(&name, &recovery.missing);
                tracing::info!(message_id = %recovery.message_id, segments = recovery.missing.len(), is_kept, "segments are missed");
                let answer = match is_kept {
                    true => acknowledgement(&recovery.originator, &recovery.message_id),
                    false => refusal_of(FailureCause::MessageNotStored),
                };
                self.respond(exchange, answer);
            }
            Ok(UeMessage::SegmentConfirmation(confirmation)) => {
                let name = set_name(&confirmation.originator, &confirmation.message_id, &confirmation.set_id);
                self.requests.confirmed(&name, Instant::now() + self.config.limits.segmented_kept());
                self.respond(exchange, acknowledgement(&confirmation.originator, &confirmation.message_id));
            }
            Ok(_) => self.respond(exchange, refusal_of(FailureCause::MessageTypeNotSupported)),
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
        let (destination, recipient) = match &decoded {
            UeMessage::Message(message) => (&message.destination, message.recipient.as_ref()),
            UeMessage::AggregatedMessage(aggregate) => (&aggregate.destination, aggregate.recipient.as_ref()),
            UeMessage::DeliveryStatusReport(report) => (&report.destination, None),
            UeMessage::AggregatedReport(aggregate) => (&aggregate.destination, None),
            UeMessage::SegmentRecovery(recovery) => (&recovery.destination, None),
            UeMessage::SegmentConfirmation(confirmation) => (&confirmation.destination, None),
            _ => return Err(with_code(FailureCause::MessageTypeNotSupported)),
        };
        // What is addressed to a group or topic is for us if the server says so; to another UE it is not.
        let is_to_another = destination.as_ue().is_some_and(|ue| ue != self.config.ue_service_id);
        // The copy of a message to a group names the member that it is for (TS 23.554 table 8.3.3-1).
        let is_for_another = recipient.is_some_and(|ue| ue.as_ue().as_ref() != Some(&self.config.ue_service_id));
        if is_to_another || is_for_another {
            return Err(with_code(FailureCause::UnknownTarget));
        }
        Ok(decoded)
    }

    fn hand_over(&mut self, place: Place, content: Content) {
        let key = content.key();
        match self.hand_overs.arrive(&key, place, content.terms(), Instant::now()) {
            Arrival::New => self.give(key, content),
            Arrival::Remembered => {
                tracing::debug!(message_id = %key.message_id, "came again; it was handed over before");
                self.acknowledge(place, &key);
            }
            Arrival::Undecided => {}
            Arrival::Later | Arrival::Full => self.put_off(place, &key),
        }
    }

    /// Hands something to the application.
    fn give(&mut self, key: HandOverKey, content: Content) {
        let decisions = self.decision_sender.clone();
        let incoming = match content {
            Content::Message(message) => Incoming::Message(Received::new(*message, key, decisions)),
            Content::Report(report) => Incoming::Report(Received::new(report, key, decisions)),
        };
        // Fails only if the application takes nothing any more; dropping it then gives it back to the server.
        let _ = self.to_application.try_send(incoming);
    }

    fn on_segment(&mut self, exchange: ExchangeId, segment: Message) {
        let (place, now) = (Place::Exchange(exchange), Instant::now());
        let whole = HandOverKey::of_message(&segment).whole();
        if self.hand_overs.is_remembered(&whole) {
            self.acknowledge(place, &whole);
            return;
        }
        let set = SetKey::of(&segment);
        match self.reassembly.take(segment, place, now) {
            Taken::Acknowledge => self.acknowledge(place, &whole),
            Taken::Write(record) => self.record(record),
            Taken::Wait => {}
            Taken::Complete => self.hand_over_whole(place, &whole),
            Taken::Refuse(cause) => {
                tracing::warn!(message_id = %whole.message_id, %cause, "a segment is refused");
                if let Some(set) = set {
                    let (places, record) = self.reassembly.refused(&set);
                    places.into_iter().for_each(|place| self.refuse(place, &whole, cause));
                    record.into_iter().for_each(|record| self.record(record));
                }
                self.refuse(place, &whole, cause);
            }
        }
    }

    /// Hands over a message that was put together, or notes that it is asked for again.
    fn hand_over_whole(&mut self, place: Place, key: &HandOverKey) {
        let Some((message, set_id)) = self.reassembly.whole(key) else { return };
        let terms = terms_of(message, Some(set_id.clone()));
        match self.hand_overs.arrive(key, place, terms, Instant::now()) {
            Arrival::New => {
                let content = Content::Message(Box::new(message.clone()));
                self.reassembly.handed_over(key);
                self.give(key.clone(), content);
            }
            Arrival::Remembered => self.acknowledge(place, key),
            Arrival::Undecided => {}
            Arrival::Later | Arrival::Full => {
                self.reassembly.park(key, Instant::now());
                self.put_off(place, key);
            }
        }
    }

    /// Takes several messages or reports that came in one request.
    fn on_bundle(&mut self, exchange: ExchangeId, originator: Address, id: MessageId, content: Vec<Content>) {
        let known = |key: &HandOverKey| self.hand_overs.is_remembered(key) || self.hand_overs.is_undecided(key);
        if let Some(first) = content.iter().map(Content::key).find(|key| !known(key))
            && self.hand_overs.overtakes(&first, Instant::now())
        {
            self.put_off(Place::Exchange(exchange), &first);
            return;
        }
        self.bundles.push(exchange, originator, id, content);
        self.feed();
    }

    /// Hands over what came together with other things, as far as there is room.
    pub(super) fn feed(&mut self) {
        while let Some((number, content)) = self.bundles.first_waiting() {
            let (key, terms, place) = (content.key(), content.terms(), Place::Part(number));
            let arrival = self.hand_overs.arrive_in_turn(&key, place, terms);
            if matches!(arrival, Arrival::Later | Arrival::Full) {
                return;
            }
            let Some(content) = self.bundles.hand_over(number) else { return };
            match arrival {
                Arrival::New => self.give(key, content),
                Arrival::Remembered => self.acknowledge(place, &key),
                _ => {}
            }
        }
    }

    /// The application has it, or it is safe.
    pub(super) fn acknowledge(&mut self, place: Place, key: &HandOverKey) {
        match place {
            Place::Exchange(exchange) => self.respond(exchange, acknowledgement(&key.originator, &key.message_id)),
            Place::Part(number) => self.part_decided(number, key, None),
        }
    }

    /// It is refused; for a while only, if the cause says so.
    pub(super) fn refuse(&mut self, place: Place, key: &HandOverKey, cause: FailureCause) {
        let (code, _) = with_code(cause);
        match place {
            Place::Exchange(exchange) if code == Code::SERVICE_UNAVAILABLE => self.come_back(exchange, cause),
            // The application's own refusal; its cause is one that travels with an answer of success elsewhere.
            Place::Exchange(exchange) if code.is_success() => self.respond(exchange, refusal(Code::FORBIDDEN, cause)),
            Place::Exchange(exchange) => self.respond(exchange, refusal(code, cause)),
            Place::Part(number) => self.part_decided(number, key, Some(cause)),
        }
    }

    fn part_decided(&mut self, number: u64, key: &HandOverKey, refused: Option<FailureCause>) {
        if let Some((exchange, answer)) = self.bundles.decided(number, key.message_id.clone(), refused) {
            self.respond(exchange, changed(&answer));
        }
    }

    /// Tells the server to come back with it; until then nothing new is taken that could overtake it.
    pub(super) fn put_off(&mut self, place: Place, key: &HandOverKey) {
        let exchange = match place {
            Place::Exchange(exchange) => Some(exchange),
            Place::Part(number) => self.bundles.give_back(number),
        };
        let Some(exchange) = exchange else { return };
        let pause = self.hand_overs.hold_back(key, Instant::now(), self.config.limits.come_back());
        // Rounded up: the server is to come after the pause, not shortly before its end.
        let seconds = u32::try_from(pause.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        self.respond(exchange, refusal(Code::SERVICE_UNAVAILABLE, FailureCause::Overloaded).with_max_age(seconds));
    }

    /// Tells the server to come back with it; what follows need not wait.
    pub(super) fn put_off_alone(&mut self, place: Place) {
        let exchange = match place {
            Place::Exchange(exchange) => Some(exchange),
            Place::Part(number) => self.bundles.give_back(number),
        };
        exchange.into_iter().for_each(|exchange| self.come_back(exchange, FailureCause::Overloaded));
    }

    fn come_back(&mut self, exchange: ExchangeId, cause: FailureCause) {
        let seconds = self.config.limits.come_back_seconds;
        self.respond(exchange, refusal(Code::SERVICE_UNAVAILABLE, cause).with_max_age(seconds));
    }

    fn respond(&mut self, exchange: ExchangeId, response: Response) {
        if let Link::Up { session, .. } = &mut self.link
            && let Err(error) = session.respond(exchange, &response)
        {
            // The server delivers again, and is answered then.
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}

fn acknowledgement(originator: &Address, message_id: &MessageId) -> Response {
    changed(&MessageResponse {
        originator: originator.clone(),
        message_id: message_id.clone(),
        status: None,
        failure_cause: None,
        individual: Vec::new(),
    })
}

fn changed(answer: &MessageResponse) -> Response {
    Response::new(Code::CHANGED).with_content_format(JSON).with_payload(answer.encode())
}

fn with_code(cause: FailureCause) -> (Code, FailureCause) {
    (Code::from_octet(cause.coap_code()), cause)
}

fn refusal_of(cause: FailureCause) -> Response {
    let (code, cause) = with_code(cause);
    refusal(code, cause)
}

fn refusal(code: Code, cause: FailureCause) -> Response {
    Response::new(code).with_content_format(JSON).with_payload(failure(&cause))
}
