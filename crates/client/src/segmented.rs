//! One message on its way as segments (TS 23.554 clause 8.5), without I/O: which segment is sent next, and when the
//! message as a whole has an outcome.
//!
//! Who puts the segments together decides what the answers mean. A server that does it itself holds each segment
//! (`SEGMENT_HELD`, no promise) until the one that completes the set, whose answer speaks for the whole message. A server
//! that forwards segments promises each one: the message is stored when all are delivered or stored and at least one is
//! stored, and delivered when all are delivered and the recipient has confirmed the set (SEGCONFIR). Segments that
//! somebody misses (SEGREC) are sent again. A connection that is lost takes the held segments along: a server that came
//! back may have forgotten them.

use message::{Address, MessageId, SegmentationSetId};
use tokio::time::Instant;

use crate::outbound::Outcome;

/// Status of an answer to a segment that the server holds for reassembly (INFERRED: the standards give it no name).
pub(crate) const SEGMENT_HELD: &str = message::SEGMENT_HELD;

/// Names one segmented message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetName {
    /// Whom the message is for: only they, or the server in their place, speak about the set.
    pub(crate) destination: Address,
    pub(crate) message_id: MessageId,
    pub(crate) set_id: SegmentationSetId,
}

/// What the server said about one segment, when it did not refuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Held,
    Delivered,
    Stored,
}

#[derive(Debug, PartialEq, Eq)]
enum State<X> {
    Ready,
    Sent(X),
    /// To be sent again, not before then.
    Later(Instant),
    Answered(Promise),
}

/// A segmented message. `X` names an exchange of the current connection.
#[derive(Debug)]
pub(crate) struct Segmented<X> {
    pub(crate) name: SetName,
    segments: Vec<(Vec<u8>, State<X>)>,
    /// The recipient's client puts the segments together, and says so.
    confirmed_by_recipient: bool,
    confirmed: bool,
    /// The server has held some segment: it puts them together, and will not have held them all along should it give
    /// its answer once more.
    held: bool,
    recoveries_left: u32,
}

impl<X: Copy + PartialEq> Segmented<X> {
    /// The coded segments in order, the first being number 1. For `recoveries_max` times what somebody misses is sent
    /// again.
    pub(crate) fn new(name: SetName, bodies: Vec<Vec<u8>>, recoveries_max: u32) -> Self {
        let confirmed_by_recipient = name.destination.as_ue().is_some();
        let segments = bodies.into_iter().map(|body| (body, State::Ready)).collect();
        Self { name, segments, confirmed_by_recipient, confirmed: false, held: false, recoveries_left: recoveries_max }
    }

    /// The next segment to send, if one may be sent now.
    pub(crate) fn next_ready(&self, now: Instant) -> Option<(usize, &[u8])> {
        self.segments.iter().enumerate().find_map(|(index, (body, state))| match state {
            State::Ready => Some((index, body.as_slice())),
            State::Later(when) if *when <= now => Some((index, body.as_slice())),
            _ => None,
        })
    }

    /// Whether some segment waits to be sent: what follows for the same recipient is not to overtake it.
    pub(crate) fn is_unsent(&self) -> bool {
        self.segments.iter().any(|(_, state)| matches!(state, State::Ready | State::Later(_)))
    }

    /// How many segments have been sent and have no answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.segments.iter().filter(|(_, state)| matches!(state, State::Sent(_))).count()
    }

    pub(crate) fn sent(&mut self, index: usize, exchange: X) {
        self.set(index, State::Sent(exchange));
    }

    /// To be sent again, not before `when`.
    pub(crate) fn later(&mut self, index: usize, when: Instant) {
        self.set(index, State::Later(when));
    }

    /// Whether the server's last word about some segment was to come back later.
    pub(crate) fn is_put_off(&self) -> bool {
        self.segments.iter().any(|(_, state)| matches!(state, State::Later(_)))
    }

    fn set(&mut self, index: usize, to: State<X>) {
        if let Some((_, state)) = self.segments.get_mut(index) {
            *state = to;
        }
    }

    /// Which segment an exchange is about.
    pub(crate) fn position(&self, exchange: X) -> Option<usize> {
        self.segments.iter().position(|(_, state)| *state == State::Sent(exchange))
    }

    /// The exchanges that wait for an answer.
    pub(crate) fn exchanges(&self) -> Vec<X> {
        let exchange = |state: &State<X>| match state {
            State::Sent(exchange) => Some(*exchange),
            _ => None,
        };
        self.segments.iter().filter_map(|(_, state)| exchange(state)).collect()
    }

    /// When the next segment that was put off may be sent, after `now`.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = |state: &State<X>| match state {
            State::Later(when) if *when > now => Some(*when),
            _ => None,
        };
        self.segments.iter().filter_map(|(_, state)| due(state)).min()
    }

    /// Notes the server's answer to one segment; yields the outcome of the whole message if it is known now.
    pub(crate) fn answered(&mut self, index: usize, answer: Outcome) -> Option<Outcome> {
        let promise = match answer {
            Outcome::Delivered => Promise::Delivered,
            Outcome::Stored => Promise::Stored,
            Outcome::Other(status) if status == SEGMENT_HELD => Promise::Held,
            // One segment that does not arrive makes the rest useless.
            other => {
                self.set(index, State::Ready);
                return Some(other);
            }
        };
        self.held |= promise == Promise::Held;
        self.set(index, State::Answered(promise));
        self.outcome()
    }

    /// The set is complete at whoever puts it together; yields the outcome of the whole message if it is known now.
    pub(crate) fn confirm(&mut self) -> Option<Outcome> {
        self.confirmed = true;
        self.outcome()
    }

    /// Whether nobody will miss a segment any more.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed || !self.confirmed_by_recipient || self.held
    }

    fn outcome(&self) -> Option<Outcome> {
        let mut promises = Vec::with_capacity(self.segments.len());
        for (_, state) in &self.segments {
            let State::Answered(promise) = state else { return None };
            promises.push(*promise);
        }
        if promises.iter().all(|promise| *promise == Promise::Held) {
            return None;
        }
        if promises.contains(&Promise::Stored) {
            return Some(Outcome::Stored);
        }
        (self.held || self.confirmed || !self.confirmed_by_recipient).then_some(Outcome::Delivered)
    }

    /// Sends again what somebody misses, whatever was answered about it before. Says no when that was asked for too
    /// often: a small request must not draw large answers without end.
    pub(crate) fn recover(&mut self, missing: &[u32]) -> bool {
        let Some(left) = self.recoveries_left.checked_sub(1) else { return false };
        self.recoveries_left = left;
        for number in missing {
            let index = usize::try_from(*number).ok().and_then(|number| number.checked_sub(1));
            if let Some((_, state)) = index.and_then(|index| self.segments.get_mut(index))
                && matches!(state, State::Answered(_))
            {
                *state = State::Ready;
            }
        }
        true
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self) {
        for (_, state) in &mut self.segments {
            if matches!(state, State::Sent(_) | State::Answered(Promise::Held)) {
                *state = State::Ready;
            }
        }
    }
}

#[cfg(test)]
mod pair_tests;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn segmented(destination: &str, count: u8) -> Segmented<u32> {
        let (kind, id) = destination.split_once(':').unwrap();
        let destination = match kind {
            "ue" => Address::ue(&id.parse().unwrap()),
            _ => Address::application_server(&id.parse().unwrap()),
        };
        let name = SetName { destination, message_id: "1".parse().unwrap(), set_id: "1".parse().unwrap() };
        Segmented::new(name, (1..=count).map(|number| vec![number]).collect(), 2)
    }

    fn held() -> Outcome {
        Outcome::Other(SEGMENT_HELD.to_owned())
    }

    fn send_all(message: &mut Segmented<u32>) -> Vec<u8> {
        let mut sent = Vec::new();
        while let Some((index, body)) = message.next_ready(Instant::now()) {
            sent.extend_from_slice(body);
            message.sent(index, u32::try_from(index).unwrap());
        }
        sent
    }

    #[test]
    fn where_the_server_reassembles_the_answer_to_the_completing_segment_counts() {
        for (answer, expected) in [(Outcome::Delivered, Outcome::Delivered), (Outcome::Stored, Outcome::Stored)] {
            let mut message = segmented("as:b@x", 3);
            assert_eq!(send_all(&mut message), [1, 2, 3]);
            assert_eq!(message.answered(0, held()), None);
            assert_eq!(message.answered(2, answer), None, "the second has no answer");
            assert_eq!(message.answered(1, held()), Some(expected));
        }
        let mut message = segmented("as:b@x", 2);
        send_all(&mut message);
        assert_eq!(message.answered(0, held()), None);
        assert_eq!(message.answered(1, held()), None, "nothing is promised");
        assert_eq!(message.confirm(), None, "the server has it together, no more");
        assert_eq!(message.answered(1, Outcome::Failed("X".into())), Some(Outcome::Failed("X".into())));
    }

    #[test]
    fn forwarded_segments_are_a_delivered_message_only_when_the_recipient_has_it_together() {
        let mut message = segmented("ue:b@x", 2);
        send_all(&mut message);
        assert_eq!(message.answered(0, Outcome::Delivered), None);
        assert_eq!(message.answered(1, Outcome::Delivered), None);
        assert!(!message.is_confirmed());
        assert_eq!(message.confirm(), Some(Outcome::Delivered));
        let mut message = segmented("ue:b@x", 2);
        send_all(&mut message);
        assert_eq!(message.confirm(), None);
        message.answered(0, Outcome::Delivered);
        assert_eq!(message.answered(1, Outcome::Stored), Some(Outcome::Stored));
        // An AS does not put segments together.
        let mut message = segmented("as:b@x", 1);
        send_all(&mut message);
        assert_eq!(message.answered(0, Outcome::Delivered), Some(Outcome::Delivered));
    }

    #[test]
    fn what_is_missed_is_sent_again_and_not_without_end() {
        let mut message = segmented("ue:b@x", 4);
        send_all(&mut message);
        for index in 0..4 {
            message.answered(index, Outcome::Delivered);
        }
        assert!(message.recover(&[2, 4, 0, 5, u32::MAX]));
        assert_eq!(send_all(&mut message), [2, 4]);
        assert!(message.recover(&[2]));
        assert_eq!(send_all(&mut message), [] as [u8; 0], "it is on its way");
        assert!(!message.recover(&[1]));
        assert_eq!(send_all(&mut message), [] as [u8; 0]);
    }

    #[test]
    fn a_lost_connection_has_unanswered_and_held_segments_sent_again_and_no_promised_ones() {
        let mut message = segmented("as:b@x", 4);
        send_all(&mut message);
        message.answered(0, held());
        message.answered(1, Outcome::Stored);
        assert_eq!(message.exchanges(), [2, 3]);
        message.disconnected();
        assert_eq!(send_all(&mut message), [1, 3, 4]);
    }

    #[test]
    fn a_server_that_has_answered_the_whole_gives_each_segment_that_answer_when_asked_again() {
        let mut message = segmented("ue:b@x", 2);
        send_all(&mut message);
        assert_eq!(message.answered(0, held()), None);
        message.disconnected();
        assert_eq!(send_all(&mut message), [1, 2]);
        assert_eq!(message.answered(0, Outcome::Delivered), None);
        assert_eq!(message.answered(1, Outcome::Delivered), Some(Outcome::Delivered));
    }

    #[test]
    fn a_segment_that_was_put_off_waits_and_holds_up_what_follows() {
        let now = Instant::now();
        let mut message = segmented("ue:b@x", 2);
        send_all(&mut message);
        let when = now + Duration::from_secs(5);
        message.later(0, when);
        assert!(message.is_unsent() && message.is_put_off() && message.next_ready(now).is_none());
        assert_eq!((message.next_due(now), message.next_due(when)), (Some(when), None));
        assert_eq!(message.next_ready(when).unwrap().0, 0);
        assert_eq!(message.unanswered(), 1);
        assert_eq!(message.position(1), Some(1));
    }
}
