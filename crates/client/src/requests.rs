//! Messages and reports on their way to the server, from the application's call to the server's answer, across any
//! number of connections.

use std::collections::BTreeMap;

use message::MessageId;
use tokio::{sync::oneshot, time::Instant};

use crate::{error::ClientError, hand_over::HandOverKey, outbound::Outcome};

/// Who waits for the answer to a request.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A message of the application.
    Message {
        message_id: MessageId,
        answer: oneshot::Sender<Result<Outcome, ClientError>>,
        /// When the application stops waiting.
        deadline: Instant,
    },
    /// The report on a message that the application accepted.
    Report(HandOverKey),
}

/// One request.
#[derive(Debug)]
pub(crate) struct Request<X> {
    pub(crate) body: Vec<u8>,
    pub(crate) purpose: Purpose,
    state: State<X>,
    /// What the server said when it asked to come back later.
    last_cause: Option<String>,
    /// How often it has asked so.
    pub(crate) postponements: u32,
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

/// All of them, in the order they were made. `X` names an exchange of the current connection.
#[derive(Debug)]
pub(crate) struct Requests<X> {
    entries: BTreeMap<u64, Request<X>>,
    next: u64,
    messages: usize,
    messages_max: usize,
    reports_sent: usize,
    reports_sent_max: usize,
}

impl<X: Copy + PartialEq> Requests<X> {
    /// Room for `messages_max` messages, and for `reports_sent_max` reports that are sent and not answered.
    pub(crate) fn new(messages_max: usize, reports_sent_max: usize) -> Self {
        Self { entries: BTreeMap::new(), next: 0, messages: 0, messages_max, reports_sent: 0, reports_sent_max }
    }

    /// Whether another message of the application may be taken up.
    pub(crate) fn has_room(&self) -> bool {
        self.messages < self.messages_max
    }

    /// How many reports have not reached the server.
    pub(crate) fn reports(&self) -> usize {
        self.entries.len() - self.messages
    }

    /// How many messages have no answer.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    pub(crate) fn push(&mut self, body: Vec<u8>, purpose: Purpose) {
        if matches!(purpose, Purpose::Message { .. }) {
            self.messages += 1;
        }
        let request = Request { body, purpose, state: State::Ready, last_cause: None, postponements: 0 };
        self.entries.insert(self.next, request);
        self.next += 1;
    }

    /// Takes out the oldest report if there are more than `reports_max`; yields the exchange it is to be abandoned on, too.
    pub(crate) fn give_up_report(&mut self, reports_max: usize) -> Option<(HandOverKey, Option<X>)> {
        if self.reports() <= reports_max {
            return None;
        }
        let is_report = |request: &Request<X>| matches!(request.purpose, Purpose::Report(_));
        let number = *self.entries.iter().find(|(_, request)| is_report(request))?.0;
        let (_, request) = self.remove(number)?;
        let exchange = match request.state {
            State::Sent(exchange) => Some(exchange),
            _ => None,
        };
        match request.purpose {
            Purpose::Report(key) => Some((key, exchange)),
            Purpose::Message { .. } => None,
        }
    }

    /// The next one to send.
    pub(crate) fn next_ready(&mut self, now: Instant) -> Option<(u64, &[u8])> {
        let reports_wait = self.reports_sent >= self.reports_sent_max;
        self.entries.iter().find_map(|(number, request)| match request.state {
            _ if reports_wait && matches!(request.purpose, Purpose::Report(_)) => None,
            State::Ready => Some((*number, request.body.as_slice())),
            State::Later(when) if when <= now => Some((*number, request.body.as_slice())),
            _ => None,
        })
    }

    /// It was sent.
    pub(crate) fn sent(&mut self, number: u64, exchange: X) {
        if let Some(request) = self.entries.get_mut(&number) {
            request.state = State::Sent(exchange);
            self.reports_sent += usize::from(matches!(request.purpose, Purpose::Report(_)));
        }
    }

    /// Takes out the request that an exchange was about.
    pub(crate) fn take(&mut self, exchange: X) -> Option<(u64, Request<X>)> {
        let number = *self.entries.iter().find(|(_, request)| request.state == State::Sent(exchange))?.0;
        self.remove(number)
    }

    /// Answers one that cannot be sent.
    pub(crate) fn fail(&mut self, number: u64, error: ClientError) {
        if let Some((_, Request { purpose: Purpose::Message { answer, .. }, .. })) = self.remove(number) {
            // The application may have stopped waiting.
            let _ = answer.send(Err(error));
        }
    }

    /// Puts one back to be sent again at `when`, in its old place.
    pub(crate) fn retry(&mut self, number: u64, mut request: Request<X>, when: Instant, cause: String) {
        request.state = State::Later(when);
        request.last_cause = Some(cause);
        request.postponements = request.postponements.saturating_add(1);
        if matches!(request.purpose, Purpose::Message { .. }) {
            self.messages += 1;
        }
        self.entries.insert(number, request);
    }

    /// The connection is gone: everything unanswered is to be sent again, under the same Message IDs, so that the server
    /// recognises what it has already taken.
    pub(crate) fn disconnected(&mut self) {
        for request in self.entries.values_mut() {
            if matches!(request.state, State::Sent(_)) {
                request.state = State::Ready;
            }
        }
        self.reports_sent = 0;
    }

    /// When something falls due: a deadline passes, or a request may be sent again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.entries
            .values()
            .flat_map(|request| {
                let deadline = match &request.purpose {
                    Purpose::Message { deadline, .. } => Some(*deadline),
                    Purpose::Report(_) => None,
                };
                let later = match request.state {
                    State::Later(when) => Some(when),
                    _ => None,
                };
                [deadline, later]
            })
            .flatten()
            .min()
    }

    /// Answers the messages whose time is up, or whose sender has gone; yields the exchanges to be abandoned.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<X> {
        let over: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, request)| match &request.purpose {
                Purpose::Message { deadline, answer, .. } => *deadline <= now || answer.is_closed(),
                Purpose::Report(_) => false,
            })
            .map(|(number, _)| *number)
            .collect();
        let mut exchanges = Vec::new();
        for number in over {
            let Some((_, request)) = self.remove(number) else { continue };
            if let State::Sent(exchange) = request.state {
                exchanges.push(exchange);
            }
            if let Purpose::Message { message_id, answer, .. } = request.purpose {
                let outcome = match (request.state, request.last_cause) {
                    // The server's last word was that it did not take the message.
                    (State::Later(_), Some(cause)) => Ok(Outcome::Failed(cause)),
                    _ => Err(ClientError::NoAnswer { message_id }),
                };
                // Nobody waits any more: the application dropped its future.
                let _ = answer.send(outcome);
            }
        }
        exchanges
    }

    /// Tells everybody that the client has ended.
    pub(crate) fn close(&mut self) {
        for (_, request) in std::mem::take(&mut self.entries) {
            if let Purpose::Message { answer, .. } = request.purpose {
                let _ = answer.send(Err(ClientError::Closed));
            }
        }
        self.messages = 0;
        self.reports_sent = 0;
    }

    fn remove(&mut self, number: u64) -> Option<(u64, Request<X>)> {
        let request = self.entries.remove(&number)?;
        match (&request.purpose, &request.state) {
            (Purpose::Message { .. }, _) => self.messages -= 1,
            (Purpose::Report(_), State::Sent(_)) => self.reports_sent -= 1,
            (Purpose::Report(_), _) => {}
        }
        Some((number, request))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    type Answer = oneshot::Receiver<Result<Outcome, ClientError>>;

    fn push(requests: &mut Requests<u32>, id: &str, deadline: Instant) -> Answer {
        let (answer, receiver) = oneshot::channel();
        let purpose = Purpose::Message { message_id: id.parse().unwrap(), answer, deadline };
        requests.push(id.as_bytes().to_vec(), purpose);
        receiver
    }

    fn key(id: &str) -> HandOverKey {
        HandOverKey {
            kind: crate::hand_over::Kind::Message,
            originator: message::Address::ue(&"a@x".parse().unwrap()),
            message_id: id.parse().unwrap(),
            segment: None,
        }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn unanswered_requests_are_sent_again_in_their_first_order() {
        let mut requests = Requests::new(8, 8);
        let _answers: Vec<Answer> = ["1", "2", "3"].iter().map(|id| push(&mut requests, id, later())).collect();
        for exchange in [10, 11, 12] {
            let number = requests.next_ready(Instant::now()).unwrap().0;
            requests.sent(number, exchange);
        }
        assert!(requests.next_ready(Instant::now()).is_none());
        assert_eq!(requests.take(11).unwrap().1.body, b"2");
        requests.disconnected();
        let mut order = Vec::new();
        while let Some((number, body)) = requests.next_ready(Instant::now()) {
            order.push(body.to_vec());
            requests.sent(number, 20 + u32::try_from(number).unwrap());
        }
        assert_eq!(order, [b"1".to_vec(), b"3".to_vec()]);
        assert!(requests.take(10).is_none(), "exchanges of the lost connection mean nothing");
    }

    #[test]
    fn a_request_put_off_waits_and_keeps_its_place() {
        let mut requests = Requests::new(8, 8);
        let now = Instant::now();
        let _first = push(&mut requests, "1", later());
        let _second = push(&mut requests, "2", later());
        let number = requests.next_ready(now).unwrap().0;
        requests.sent(number, 1);
        let (number, request) = requests.take(1).unwrap();
        let when = now + Duration::from_secs(5);
        requests.retry(number, request, when, "OVERLOADED".into());
        assert_eq!(requests.next_ready(now).unwrap().1, b"2");
        assert_eq!(requests.next_due(), Some(when));
        assert_eq!(requests.next_ready(when).unwrap().1, b"1");
    }

    #[test]
    fn a_message_without_an_answer_in_time_is_in_doubt_and_a_refused_one_is_not() {
        let mut requests = Requests::new(8, 8);
        let now = Instant::now();
        let mut silent = push(&mut requests, "1", now);
        let mut refused = push(&mut requests, "2", now);
        requests.sent(0, 7);
        requests.sent(1, 8);
        let (number, request) = requests.take(8).unwrap();
        requests.retry(number, request, later(), "OVERLOADED".into());
        assert_eq!(requests.expire(now), [7]);
        assert!(matches!(silent.try_recv().unwrap(), Err(ClientError::NoAnswer { .. })));
        assert_eq!(refused.try_recv().unwrap().unwrap(), Outcome::Failed("OVERLOADED".into()));
        assert!(requests.has_room() && requests.messages() == 0);
    }

    #[test]
    fn room_is_for_messages_and_reports_do_not_take_it() {
        let mut requests = Requests::<u32>::new(1, 8);
        requests.push(Vec::new(), Purpose::Report(key("1")));
        assert!(requests.has_room());
        assert_eq!(requests.reports(), 1);
        let answer = push(&mut requests, "1", later());
        assert!(!requests.has_room());
        drop(answer);
        requests.expire(Instant::now());
        assert!(requests.has_room(), "a message that nobody waits for makes room");
    }

    #[test]
    fn reports_without_an_answer_do_not_keep_messages_waiting() {
        let mut requests = Requests::new(8, 2);
        for id in ["1", "2", "3"] {
            requests.push(id.into(), Purpose::Report(key(id)));
        }
        let _answer = push(&mut requests, "message", later());
        let mut sent = Vec::new();
        while let Some((number, body)) = requests.next_ready(Instant::now()) {
            sent.push(body.to_vec());
            requests.sent(number, u32::try_from(number).unwrap());
        }
        assert_eq!(sent, [b"1".to_vec(), b"2".to_vec(), b"message".to_vec()]);
        requests.take(0).unwrap();
        assert_eq!(requests.next_ready(Instant::now()).unwrap().1, b"3");
        requests.disconnected();
        assert_eq!(requests.next_ready(Instant::now()).unwrap().1, b"2");
    }

    #[test]
    fn the_oldest_report_is_given_up_when_there_are_too_many() {
        let mut requests = Requests::<u32>::new(8, 8);
        let _answer = push(&mut requests, "message", later());
        for id in ["1", "2", "3"] {
            requests.push(id.into(), Purpose::Report(key(id)));
        }
        requests.sent(1, 7);
        assert_eq!(requests.give_up_report(2), Some((key("1"), Some(7))));
        assert_eq!(requests.give_up_report(2), None);
        assert_eq!(requests.give_up_report(1), Some((key("2"), None)));
        assert_eq!((requests.messages(), requests.reports()), (1, 1));
    }
}
