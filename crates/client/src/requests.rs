//! What is on its way to the server, from the application's call to the server's answer, across any number of
//! connections: messages, aggregates, segments, reports, procedures.

use std::collections::BTreeMap;

use coap::Response;
use message::{Address, MessageId, MessagingTopic, Priority, SegmentationSetId};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    error::ClientError,
    hand_over::HandOverKey,
    outbound::Outcome,
    segmented::{Segmented, SetName},
};

/// Somebody in the application who waits for what becomes of a message.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) message_id: MessageId,
    pub(crate) answer: oneshot::Sender<Result<Outcome, ClientError>>,
    /// When the application stops waiting.
    pub(crate) deadline: Instant,
}

/// One message of an aggregate, and how it would be sent on its own.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) body: Vec<u8>,
    pub(crate) waiting: Waiting,
}

/// Who waits for the answer to a request.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A message of the application.
    Message(Waiting),
    /// Several messages of the application in one (TS 23.554 clause 8.4).
    Aggregate(Vec<Part>),
    /// A segmented message that the application has its answer about, kept for a recipient who misses segments.
    Kept { until: Instant },
    /// Something else that the application asks of the server, and the server's answer to it.
    Procedure { answer: oneshot::Sender<Result<Response, ClientError>>, deadline: Instant },
    /// The report on a message that the application accepted.
    Report(HandOverKey),
    /// Says that all segments of an accepted message are here (SEGCONFIR).
    Confirmation(HandOverKey),
    /// Asks for segments that are missing (SEGREC).
    Recovery,
    /// Subscribes again to these topics.
    Renewal(Vec<MessagingTopic>),
}

impl Purpose {
    /// Nobody waits for it, and whoever made it necessary may have made it undeliverable: it must not hold up the rest.
    fn is_report(&self) -> bool {
        matches!(self, Self::Report(_) | Self::Confirmation(_) | Self::Recovery | Self::Renewal(_))
    }

    fn is_kept(&self) -> bool {
        matches!(self, Self::Kept { .. })
    }

    /// How many calls of the application wait for it.
    fn calls(&self) -> usize {
        match self {
            Self::Message(_) | Self::Procedure { .. } => 1,
            Self::Aggregate(parts) => parts.len(),
            _ => 0,
        }
    }
}

/// What is kept in order: messages of one priority for one recipient.
pub(crate) type Lane = (Address, Priority);

/// What is sent.
#[derive(Debug)]
enum Content<X> {
    One { body: Vec<u8>, state: State<X> },
    Segments(Segmented<X>),
}

/// One request.
#[derive(Debug)]
pub(crate) struct Request<X> {
    pub(crate) purpose: Purpose,
    content: Content<X>,
    lane: Option<Lane>,
    /// What the server said when it asked to come back later.
    last_cause: Option<String>,
    /// How often it has asked so.
    postponements: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum State<X> {
    /// To be sent.
    Ready,
    /// Sent on the current connection.
    Sent(X),
    /// To be sent again, not before then.
    Later(Instant),
}

impl<X: Copy + PartialEq> Request<X> {
    fn new(content: Content<X>, lane: Option<Lane>, purpose: Purpose) -> Self {
        Self { purpose, content, lane, last_cause: None, postponements: 0 }
    }

    /// The exchanges that wait for an answer.
    pub(crate) fn exchanges(&self) -> Vec<X> {
        match &self.content {
            Content::One { state: State::Sent(exchange), .. } => vec![*exchange],
            Content::One { .. } => Vec::new(),
            Content::Segments(segmented) => segmented.exchanges(),
        }
    }

    fn is_sent(&self) -> bool {
        matches!(&self.content, Content::One { state: State::Sent(_), .. })
    }

    /// The server's last word about it, if that was to come back later.
    fn put_off(&self) -> Option<String> {
        let put_off = match &self.content {
            Content::One { state, .. } => matches!(state, State::Later(_)),
            Content::Segments(segmented) => segmented.is_put_off(),
        };
        self.last_cause.clone().filter(|_| put_off)
    }
}

/// Which request, or which segment of it, something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: u64,
    pub(crate) segment: Option<usize>,
}

/// How much may be on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// Messages, aggregates and procedures without an answer.
    pub(crate) messages_max: usize,
    /// Reports sent and not answered.
    pub(crate) reports_sent_max: usize,
    /// Segments sent and not answered, of all messages together.
    pub(crate) segments_sent_max: usize,
    /// Segmented messages kept for recipients who may miss segments.
    pub(crate) kept_max: usize,
}

/// All of them, in the order they were made. `X` names an exchange of the current connection.
#[derive(Debug)]
pub(crate) struct Requests<X> {
    entries: BTreeMap<u64, Request<X>>,
    next: u64,
    windows: Windows,
    reports: usize,
    reports_sent: usize,
    kept: usize,
}

impl<X: Copy + PartialEq> Requests<X> {
    pub(crate) fn new(windows: Windows) -> Self {
        Self { entries: BTreeMap::new(), next: 0, windows, reports: 0, reports_sent: 0, kept: 0 }
    }

    /// How many more messages or procedures may be taken up.
    pub(crate) fn room(&self) -> usize {
        self.windows.messages_max.saturating_sub(self.entries.len() - self.reports - self.kept)
    }

    /// How many reports have not reached the server.
    pub(crate) fn reports(&self) -> usize {
        self.reports
    }

    /// How many calls of the application have no answer.
    pub(crate) fn calls(&self) -> usize {
        self.entries.values().map(|request| request.purpose.calls()).sum()
    }

    /// Puts something in line. A lane is given for what has an order.
    pub(crate) fn push(&mut self, body: Vec<u8>, lane: Option<Lane>, purpose: Purpose) {
        // An aggregate leaves room behind it for its parts, should they have to be sent one by one.
        let numbers = match &purpose {
            Purpose::Aggregate(parts) => parts.len().max(1) as u64,
            _ => 1,
        };
        self.insert(self.next, Request::new(Content::One { body, state: State::Ready }, lane, purpose));
        self.next += numbers;
    }

    /// Puts a segmented message in line.
    pub(crate) fn push_segments(&mut self, segmented: Segmented<X>, priority: Priority, waiting: Waiting) {
        let lane = (segmented.name.destination.clone(), priority);
        let request = Request::new(Content::Segments(segmented), Some(lane), Purpose::Message(waiting));
        self.insert(self.next, request);
        self.next += 1;
    }

    fn insert(&mut self, number: u64, request: Request<X>) {
        self.reports += usize::from(request.purpose.is_report());
        self.kept += usize::from(request.purpose.is_kept());
        self.entries.insert(number, request);
    }

    /// Takes a request out, whatever has become of it.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Request<X>> {
        let request = self.entries.remove(&number)?;
        if request.purpose.is_report() {
            self.reports -= 1;
            self.reports_sent -= usize::from(request.is_sent());
        }
        self.kept -= usize::from(request.purpose.is_kept());
        Some(request)
    }

    /// Takes out the oldest report if there are more than `reports_max`.
    pub(crate) fn give_up_report(&mut self, reports_max: usize) -> Option<Request<X>> {
        if self.reports <= reports_max {
            return None;
        }
        let number = *self.entries.iter().find(|(_, request)| request.purpose.is_report())?.0;
        self.remove(number)
    }

    /// Takes segments of the messages apart that are sent before others of their lane; yields the next one to send.
    pub(crate) fn next_ready(&mut self, now: Instant) -> Option<(Place, &[u8])> {
        let reports_wait = self.reports_sent >= self.windows.reports_sent_max;
        let segments_wait = self.segments_sent() >= self.windows.segments_sent_max;
        let mut blocked: Vec<&Lane> = Vec::new();
        for (number, request) in &self.entries {
            if reports_wait && request.purpose.is_report() {
                continue;
            }
            if request.lane.as_ref().is_some_and(|lane| blocked.contains(&lane)) {
                continue;
            }
            match &request.content {
                Content::One { body, state } => match state {
                    State::Ready => return Some((Place { number: *number, segment: None }, body)),
                    State::Later(when) if *when <= now => {
                        return Some((Place { number: *number, segment: None }, body));
                    }
                    _ => {}
                },
                Content::Segments(segmented) => {
                    if !segments_wait && let Some((index, body)) = segmented.next_ready(now) {
                        return Some((Place { number: *number, segment: Some(index) }, body));
                    }
                    if segmented.is_unsent() && !request.purpose.is_kept() {
                        blocked.extend(request.lane.as_ref());
                    }
                }
            }
        }
        None
    }

    fn segments_sent(&self) -> usize {
        let unanswered = |request: &Request<X>| match &request.content {
            Content::One { .. } => 0,
            Content::Segments(segmented) => segmented.unanswered(),
        };
        self.entries.values().map(unanswered).sum()
    }

    /// It was sent.
    pub(crate) fn sent(&mut self, place: Place, exchange: X) {
        let Some(request) = self.entries.get_mut(&place.number) else { return };
        match (&mut request.content, place.segment) {
            (Content::One { state, .. }, _) => {
                *state = State::Sent(exchange);
                self.reports_sent += usize::from(request.purpose.is_report());
            }
            (Content::Segments(segmented), Some(index)) => segmented.sent(index, exchange),
            (Content::Segments(_), None) => {}
        }
    }

    /// What an exchange was about.
    pub(crate) fn find(&self, exchange: X) -> Option<Place> {
        self.entries.iter().find_map(|(number, request)| {
            let segment = match &request.content {
                Content::One { state, .. } => (*state == State::Sent(exchange)).then_some(None),
                Content::Segments(segmented) => segmented.position(exchange).map(Some),
            };
            segment.map(|segment| Place { number: *number, segment })
        })
    }

    /// Whether a report is about to be sent again, and how often it was put off: nobody waits for it.
    pub(crate) fn report_postponements(&self, number: u64) -> Option<u32> {
        self.entries.get(&number).filter(|request| request.purpose.is_report()).map(|request| request.postponements)
    }

    /// Notes the server's promise about one segment, and that the application waits until `deadline` for the next one.
    /// Yields the exchanges to be abandoned when that decided about the message.
    pub(crate) fn segment_answered(
        &mut self,
        number: u64,
        index: usize,
        answer: Outcome,
        deadline: Instant,
        kept_until: Instant,
    ) -> Vec<X> {
        let Some(request) = self.entries.get_mut(&number) else { return Vec::new() };
        let Content::Segments(segmented) = &mut request.content else { return Vec::new() };
        if let Purpose::Message(waiting) = &mut request.purpose {
            waiting.deadline = deadline;
        }
        match segmented.answered(index, answer) {
            Some(outcome) => self.segments_decided(number, outcome, kept_until),
            None => Vec::new(),
        }
    }

    /// Somebody says about the set `name` that it is complete.
    pub(crate) fn confirmed(&mut self, name: &SetName, kept_until: Instant) -> bool {
        let Some(number) = self.find_set(name) else { return false };
        let Some(Request { content: Content::Segments(segmented), purpose, .. }) = self.entries.get_mut(&number) else {
            return false;
        };
        let outcome = segmented.confirm();
        if purpose.is_kept() {
            self.remove(number);
        } else if let Some(outcome) = outcome {
            self.segments_decided(number, outcome, kept_until);
        }
        true
    }

    /// Somebody misses segments of the set `name`.
    pub(crate) fn recover(&mut self, name: &SetName, missing: &[u32]) -> bool {
        let number = self.find_set(name);
        match number.and_then(|number| self.entries.get_mut(&number)) {
            Some(Request { content: Content::Segments(segmented), .. }) => segmented.recover(missing),
            _ => false,
        }
    }

    fn find_set(&self, name: &SetName) -> Option<u64> {
        let is_meant = |request: &Request<X>| match &request.content {
            Content::Segments(segmented) => segmented.name == *name,
            Content::One { .. } => false,
        };
        self.entries.iter().find(|(_, request)| is_meant(request)).map(|(number, _)| *number)
    }

    /// Answers a segmented message; what the recipient may still miss is kept.
    fn segments_decided(&mut self, number: u64, outcome: Outcome, kept_until: Instant) -> Vec<X> {
        let Some(mut request) = self.remove(number) else { return Vec::new() };
        let (is_confirmed, exchanges) = match &request.content {
            Content::Segments(segmented) => (segmented.is_confirmed(), segmented.exchanges()),
            Content::One { .. } => (true, Vec::new()),
        };
        let keep = !is_confirmed && outcome == Outcome::Stored;
        match std::mem::replace(&mut request.purpose, Purpose::Kept { until: kept_until }) {
            // The application may have stopped waiting.
            Purpose::Message(waiting) => drop(waiting.answer.send(Ok(outcome))),
            Purpose::Kept { until } if keep => request.purpose = Purpose::Kept { until },
            _ => return exchanges,
        }
        if keep {
            self.insert(number, request);
            self.limit_kept();
            return Vec::new();
        }
        exchanges
    }

    fn limit_kept(&mut self) {
        while self.kept > self.windows.kept_max
            && let Some(oldest) = self.entries.iter().find(|(_, request)| request.purpose.is_kept())
        {
            let number = *oldest.0;
            self.remove(number);
        }
    }

    /// The server wants to see something again at `when`.
    pub(crate) fn retry(&mut self, place: Place, when: Instant, cause: String) {
        let Some(request) = self.entries.get_mut(&place.number) else { return };
        match (&mut request.content, place.segment) {
            (Content::One { state, .. }, _) => {
                if matches!(state, State::Sent(_)) && request.purpose.is_report() {
                    self.reports_sent -= 1;
                }
                *state = State::Later(when);
            }
            (Content::Segments(segmented), Some(index)) => segmented.later(index, when),
            (Content::Segments(_), None) => {}
        }
        request.last_cause = Some(cause);
        request.postponements = request.postponements.saturating_add(1);
    }

    /// Sends the parts of an aggregate one by one, in its place. Says no if it is none.
    pub(crate) fn split(&mut self, number: u64) -> bool {
        if !matches!(self.entries.get(&number), Some(Request { purpose: Purpose::Aggregate(_), .. })) {
            return false;
        }
        let Some(Request { purpose: Purpose::Aggregate(parts), content, lane, last_cause, .. }) = self.remove(number)
        else {
            return false;
        };
        // What the server said about all of them, it said about each.
        let later = match content {
            Content::One { state: State::Later(when), .. } => Some(when),
            _ => None,
        };
        for (number, Part { body, waiting }) in (number..).zip(parts) {
            let content = Content::One { body, state: later.map_or(State::Ready, State::Later) };
            let mut request = Request::new(content, lane.clone(), Purpose::Message(waiting));
            request.last_cause.clone_from(&last_cause);
            self.insert(number, request);
        }
        true
    }

    /// Answers one that cannot be sent; yields the exchanges to be abandoned.
    pub(crate) fn fail(&mut self, number: u64, error: &ClientError) -> Vec<X> {
        let Some(request) = self.remove(number) else { return Vec::new() };
        let exchanges = request.exchanges();
        tell(request.purpose, error);
        exchanges
    }

    /// The connection is gone: everything unanswered is to be sent again, under the same Message IDs, so that the server
    /// recognises what it has already taken. Subscriptions are made again after the next registration in any case: kept,
    /// they would add up.
    pub(crate) fn disconnected(&mut self) {
        let is_renewal = |request: &Request<X>| matches!(request.purpose, Purpose::Renewal(_));
        let renewals: Vec<u64> =
            self.entries.iter().filter(|(_, request)| is_renewal(request)).map(|(number, _)| *number).collect();
        for number in renewals {
            self.remove(number);
        }
        for request in self.entries.values_mut() {
            match &mut request.content {
                Content::One { state, .. } if matches!(state, State::Sent(_)) => *state = State::Ready,
                Content::One { .. } => {}
                Content::Segments(segmented) => segmented.disconnected(),
            }
        }
        self.reports_sent = 0;
    }

    /// When something falls due: a deadline passes, or a request may be sent again. What might be sent `now` and was not
    /// waits for an event, not for a time.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.entries
            .values()
            .flat_map(|request| {
                let deadline = match &request.purpose {
                    Purpose::Message(waiting) => Some(waiting.deadline),
                    Purpose::Aggregate(parts) => parts.iter().map(|part| part.waiting.deadline).min(),
                    Purpose::Kept { until: deadline } | Purpose::Procedure { deadline, .. } => Some(*deadline),
                    _ => None,
                };
                let later = match &request.content {
                    Content::One { state: State::Later(when), .. } => Some(*when),
                    Content::One { .. } => None,
                    Content::Segments(segmented) => segmented.next_due(now),
                };
                [deadline, later.filter(|when| *when > now)]
            })
            .flatten()
            .min()
    }

    /// Answers the messages whose time is up, or whose sender has gone; yields the exchanges to be abandoned.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<X> {
        let (mut over, mut apart) = (Vec::new(), Vec::new());
        for (number, request) in &mut self.entries {
            let put_off = request.put_off();
            let is_over = match &mut request.purpose {
                Purpose::Message(waiting) => waiting.deadline <= now || waiting.answer.is_closed(),
                Purpose::Procedure { answer, deadline } => *deadline <= now || answer.is_closed(),
                Purpose::Kept { until } => *until <= now,
                Purpose::Aggregate(parts) => {
                    let is_over = |part: &mut Part| part.waiting.deadline <= now || part.waiting.answer.is_closed();
                    let count = parts.len();
                    for part in parts.extract_if(.., is_over) {
                        part.waiting.time_out(put_off.clone());
                    }
                    // What is said to have failed must not arrive with the rest.
                    if put_off.is_some() && parts.len() < count && !parts.is_empty() {
                        apart.push(*number);
                    }
                    parts.is_empty()
                }
                _ => false,
            };
            if is_over {
                over.push(*number);
            }
        }
        for number in apart {
            self.split(number);
        }
        let mut exchanges = Vec::new();
        for number in over {
            let Some(request) = self.remove(number) else { continue };
            exchanges.extend(request.exchanges());
            let put_off = request.put_off();
            match request.purpose {
                Purpose::Message(waiting) => waiting.time_out(put_off),
                Purpose::Procedure { answer, .. } => {
                    let _ = answer.send(Err(procedure_time_out(put_off)));
                }
                _ => {}
            }
        }
        exchanges
    }

    /// Tells everybody that the client has ended.
    pub(crate) fn close(&mut self) {
        for (_, request) in std::mem::take(&mut self.entries) {
            tell(request.purpose, &ClientError::Closed);
        }
        (self.reports, self.reports_sent, self.kept) = (0, 0, 0);
    }
}

impl Waiting {
    /// Tells that there is no answer, or what the server's last word was.
    fn time_out(self, put_off: Option<String>) {
        let outcome = match put_off {
            // The server's last word was that it did not take the message.
            Some(cause) => Ok(Outcome::Failed(cause)),
            None => Err(ClientError::NoAnswer { message_id: self.message_id }),
        };
        // Nobody waits any more: the application dropped its future.
        let _ = self.answer.send(outcome);
    }
}

fn procedure_time_out(put_off: Option<String>) -> ClientError {
    match put_off {
        Some(cause) => ClientError::Refused { cause, temporary: true },
        None => ClientError::Disconnected("no answer in time".into()),
    }
}

/// Tells whoever waits for a request that it came to nothing. They may have stopped waiting.
fn tell(purpose: Purpose, error: &ClientError) {
    match purpose {
        Purpose::Message(waiting) => drop(waiting.answer.send(Err(error.clone()))),
        Purpose::Procedure { answer, .. } => drop(answer.send(Err(error.clone()))),
        Purpose::Aggregate(parts) => {
            parts.into_iter().for_each(|part| drop(part.waiting.answer.send(Err(error.clone()))));
        }
        _ => {}
    }
}

/// The set that a SEGREC or SEGCONFIR is about.
pub(crate) fn set_name(speaker: &Address, message_id: &MessageId, set_id: &SegmentationSetId) -> SetName {
    SetName { destination: speaker.clone(), message_id: message_id.clone(), set_id: set_id.clone() }
}

#[cfg(test)]
mod tests;
