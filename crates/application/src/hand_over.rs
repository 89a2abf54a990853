//! What was handed to the application and what it decided, so that each thing is handed over once.
//!
//! ```text
//! arrives ─▶ undecided ──accept, refuse──▶ decided, remembered ──oldest of too many──▶ forgotten
//!                └── given back ──▶ forgotten
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use message::{Address, MessageId};

/// What tells one delivery from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) report: bool,
    pub(crate) originator: Address,
    pub(crate) message_id: MessageId,
}

/// What the application decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
}

/// What there is to do about an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Hand it over; it is undecided from now on.
    New,
    /// It was decided upon before.
    Decided(Verdict),
    /// The application has it and has not decided.
    Undecided,
    /// The application has too much already.
    Full,
}

/// Every delivery that is undecided, and the latest that were decided upon.
#[derive(Debug)]
pub(crate) struct HandOvers {
    undecided_max: usize,
    remembered_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Key, Option<Verdict>>,
    /// Those with a verdict, the oldest first.
    decided: VecDeque<Key>,
}

impl HandOvers {
    pub(crate) fn new(undecided_max: usize, remembered_max: usize) -> Self {
        Self { undecided_max, remembered_max, table: Mutex::default() }
    }

    pub(crate) fn arrived(&self, key: &Key) -> Arrival {
        let mut table = self.table();
        match table.known.get(key) {
            Some(Some(verdict)) => Arrival::Decided(*verdict),
            Some(None) => Arrival::Undecided,
            None if table.known.len().saturating_sub(table.decided.len()) >= self.undecided_max => Arrival::Full,
            None => {
                table.known.insert(key.clone(), None);
                Arrival::New
            }
        }
    }

    pub(crate) fn decided(&self, key: &Key, verdict: Verdict) {
        let mut table = self.table();
        if table.known.insert(key.clone(), Some(verdict)).flatten().is_none() {
            table.decided.push_back(key.clone());
        }
        while table.decided.len() > self.remembered_max {
            let Some(oldest) = table.decided.pop_front() else { break };
            table.known.remove(&oldest);
        }
    }

    /// The application dropped it undecided.
    pub(crate) fn given_back(&self, key: &Key) {
        let mut table = self.table();
        if table.known.get(key) == Some(&None) {
            table.known.remove(key);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(number: usize) -> Key {
        let originator = Address::ue(&"meter@example".parse().unwrap());
        Key { report: false, originator, message_id: number.to_string().parse().unwrap() }
    }

    #[test]
    fn a_decision_stands_whatever_comes_again() {
        let hand_overs = HandOvers::new(4, 4);
        for (number, verdict) in [(1, Verdict::Accepted), (2, Verdict::Refused)] {
            assert_eq!(hand_overs.arrived(&key(number)), Arrival::New);
            assert_eq!(hand_overs.arrived(&key(number)), Arrival::Undecided);
            hand_overs.decided(&key(number), verdict);
            hand_overs.given_back(&key(number));
            assert_eq!(hand_overs.arrived(&key(number)), Arrival::Decided(verdict));
        }
        let report = Key { report: true, ..key(1) };
        assert_eq!(hand_overs.arrived(&report), Arrival::New, "a report has names of its own");
    }

    #[test]
    fn what_is_given_back_is_new_again() {
        let hand_overs = HandOvers::new(1, 4);
        assert_eq!(hand_overs.arrived(&key(1)), Arrival::New);
        assert_eq!(hand_overs.arrived(&key(2)), Arrival::Full);
        hand_overs.given_back(&key(1));
        assert_eq!(hand_overs.arrived(&key(2)), Arrival::New);
        assert_eq!(hand_overs.arrived(&key(1)), Arrival::Full);
    }

    #[test]
    fn the_oldest_decision_goes_when_there_are_too_many() {
        let hand_overs = HandOvers::new(1, 2);
        for number in 0..3 {
            assert_eq!(hand_overs.arrived(&key(number)), Arrival::New);
            hand_overs.decided(&key(number), Verdict::Accepted);
        }
        assert_eq!(hand_overs.arrived(&key(2)), Arrival::Decided(Verdict::Accepted));
        assert_eq!(hand_overs.arrived(&key(1)), Arrival::Decided(Verdict::Accepted));
        assert_eq!(hand_overs.arrived(&key(0)), Arrival::New);
        assert_eq!(hand_overs.table().known.len(), 3);
    }
}
