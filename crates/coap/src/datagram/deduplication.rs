//! Message IDs of the peer, and what each was answered with (RFC 7252 4.5): a copy of a message is not taken again, and a
//! copy of a confirmable one gets the same Acknowledgement or Reset.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// What a message was answered with, to be said again to a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing: it asked for none, or the answer is still to come, or is no longer known.
    Silence,
    /// An empty Acknowledgement.
    Acknowledged,
    Reset,
    /// This datagram.
    Answered(Box<[u8]>),
}

#[derive(Debug)]
struct Remembered {
    expires: Instant,
    outcome: Outcome,
}

/// One message, on its own.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) message_id: u16,
    pub(super) expires: Instant,
    pub(super) outcome: Outcome,
}

impl Memory {
    pub(super) fn expires(&self) -> Instant {
        self.expires
    }

    pub(super) fn is_of(&self, message_id: u16, now: Instant) -> bool {
        self.message_id == message_id && self.expires > now
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Seen {
    by_id: HashMap<u16, Remembered>,
    /// In the order they came; an entry whose time is another than that in `by_id` has been replaced.
    order: VecDeque<(u16, Instant)>,
    /// Those with an answer, in the order these were given.
    answered: VecDeque<u16>,
    answer_octets: usize,
    latest: Option<Instant>,
}

impl Seen {
    /// What was done about that message, if it is a copy of one that came before.
    pub(super) fn outcome(&self, message_id: u16, now: Instant) -> Option<&Outcome> {
        self.by_id.get(&message_id).filter(|remembered| remembered.expires > now).map(|remembered| &remembered.outcome)
    }

    /// Remembers a message that came for the first time.
    pub(super) fn enter(&mut self, message_id: u16, expires: Instant, entries_max: usize) {
        while self.by_id.len() >= entries_max.max(1) {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget(oldest);
        }
        self.drop_answer(message_id);
        self.by_id.insert(message_id, Remembered { expires, outcome: Outcome::Silence });
        self.order.push_back((message_id, expires));
        self.latest = self.latest.max(Some(expires));
    }

    /// The next message with that Message ID is not taken for a copy.
    pub(super) fn forget_message(&mut self, message_id: u16) {
        self.drop_answer(message_id);
        if self.by_id.remove(&message_id).is_some() {
            // A peer that uses one Message ID over and over would make it grow.
            self.order.retain(|(id, _)| *id != message_id);
        }
    }

    /// Says what it was answered with, if it is still remembered.
    pub(super) fn answer(&mut self, message_id: u16, outcome: Outcome, octets_max: usize) {
        self.drop_answer(message_id);
        let Some(remembered) = self.by_id.get_mut(&message_id) else { return };
        if let Outcome::Answered(octets) = &outcome {
            self.answer_octets += octets.len();
            self.answered.push_back(message_id);
        }
        remembered.outcome = outcome;
        while self.answer_octets > octets_max {
            let Some(oldest) = self.answered.front().copied() else { break };
            self.drop_answer(oldest);
        }
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.order.pop_front_if(|(_, expires)| *expires <= now) {
            self.forget(oldest);
        }
    }

    /// When nothing is remembered any more, unless more comes.
    pub(super) fn settled_at(&self) -> Option<Instant> {
        self.latest.filter(|_| !self.by_id.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether there is no more than this to remember.
    pub(super) fn is_within(&self, entries_max: usize, answer_octets_max: usize) -> bool {
        self.by_id.len() <= entries_max && self.answer_octets <= answer_octets_max
    }

    /// All that is remembered, in the order it came.
    pub(super) fn take(&mut self) -> Box<[Memory]> {
        let Self { mut by_id, order, .. } = std::mem::take(self);
        let remembered = order.into_iter().filter_map(|(message_id, expires)| {
            let remembered = by_id.remove(&message_id)?;
            if remembered.expires != expires {
                // Its later entry is still to come.
                by_id.insert(message_id, remembered);
                return None;
            }
            Some(Memory { message_id, expires, outcome: remembered.outcome })
        });
        remembered.collect()
    }

    /// What was taken, as it was; answers count as given in the order their messages came.
    pub(super) fn of(memories: Box<[Memory]>) -> Self {
        let mut seen = Self::default();
        for Memory { message_id, expires, outcome } in memories {
            seen.enter(message_id, expires, usize::MAX);
            seen.answer(message_id, outcome, usize::MAX);
        }
        seen
    }

    fn forget(&mut self, (message_id, expires): (u16, Instant)) {
        if self.by_id.get(&message_id).is_some_and(|remembered| remembered.expires == expires) {
            self.drop_answer(message_id);
            self.by_id.remove(&message_id);
        }
    }

    fn drop_answer(&mut self, message_id: u16) {
        let Some(remembered) = self.by_id.get_mut(&message_id) else { return };
        if let Outcome::Answered(octets) = &remembered.outcome {
            self.answer_octets = self.answer_octets.saturating_sub(octets.len());
            // Mostly it is the oldest.
            if self.answered.pop_front_if(|oldest| *oldest == message_id).is_none() {
                self.answered.retain(|answered| *answered != message_id);
            }
            remembered.outcome = Outcome::Silence;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn answered(octets: usize) -> Outcome {
        Outcome::Answered(vec![7; octets].into())
    }

    #[test]
    fn a_message_is_known_until_its_time_is_over() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.enter(5, start + Duration::from_secs(10), 8);
        seen.answer(5, answered(3), 100);
        assert_eq!(seen.outcome(5, start + Duration::from_secs(9)), Some(&answered(3)));
        assert_eq!(seen.outcome(5, start + Duration::from_secs(10)), None);
        seen.enter(5, start + Duration::from_secs(20), 8);
        assert_eq!(seen.answer_octets, 0, "the answer to the earlier message went with it");
        seen.expire(start + Duration::from_secs(15));
        assert_eq!(seen.outcome(5, start + Duration::from_secs(15)), Some(&Outcome::Silence));
        seen.expire(start + Duration::from_secs(20));
        assert!(seen.is_empty() && seen.order.is_empty() && seen.settled_at().is_none());
    }

    #[test]
    fn one_message_id_used_over_and_over_takes_no_memory() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.enter(4, start + Duration::from_secs(10), 8);
        for second in 0..1_000 {
            seen.enter(5, start + Duration::from_secs(10 + second), 8);
            seen.forget_message(5);
        }
        assert_eq!((seen.by_id.len(), seen.order.len()), (1, 1));
        assert_eq!(seen.outcome(4, start), Some(&Outcome::Silence));
    }

    #[test]
    fn over_its_limit_the_oldest_message_is_forgotten() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        for id in 0..5 {
            seen.enter(id, start + Duration::from_secs(10), 3);
            seen.answer(id, answered(1), 100);
        }
        assert_eq!(
            (0..5).map(|id| seen.outcome(id, start).is_some()).collect::<Vec<_>>(),
            [false, false, true, true, true]
        );
        assert_eq!((seen.answer_octets, seen.answered.len()), (3, 3));
    }

    #[test]
    fn over_its_limit_the_oldest_answer_is_forgotten_and_the_message_is_not() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        for id in 0..3 {
            seen.enter(id, start + Duration::from_secs(10), 8);
            seen.answer(id, answered(40), 100);
        }
        assert_eq!(seen.outcome(0, start), Some(&Outcome::Silence));
        assert_eq!(seen.outcome(1, start), Some(&answered(40)));
        assert_eq!(seen.answer_octets, 80);
    }
}
