//! Answers by A-KID and Ua* protocol, so kept that all of one A-KID are found without a look at those of others: whoever has a
//! session may have them forgotten, again and again, while a lock is held that every handshake needs.

use std::collections::HashMap;

use akma::{AKid, UaProtocolId};
use tokio::time::Instant;

use crate::expiring::Expiring;

/// What the key server is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) a_kid: AKid,
    pub(crate) protocol: UaProtocolId,
}

/// Values by question. An A-KID has few: one for each protocol and cipher suite that a listener speaks.
#[derive(Debug)]
pub(crate) struct ByAKid<V>(HashMap<AKid, Vec<(UaProtocolId, V)>>);

impl<V> Default for ByAKid<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<V> ByAKid<V> {
    pub(crate) fn find(&self, question: &Question) -> Option<&V> {
        let those = self.0.get(&question.a_kid)?;
        those.iter().find(|(protocol, _)| *protocol == question.protocol).map(|(_, value)| value)
    }

    /// Puts a value in, in the place of the one of the same question.
    pub(crate) fn insert(&mut self, question: &Question, value: V) {
        // Almost every A-KID comes over one protocol.
        let those = self.0.entry(question.a_kid.clone()).or_insert_with(|| Vec::with_capacity(1));
        match those.iter_mut().find(|(protocol, _)| *protocol == question.protocol) {
            Some((_, before)) => *before = value,
            None => those.push((question.protocol, value)),
        }
    }

    pub(crate) fn remove(&mut self, question: &Question) {
        let Some(those) = self.0.get_mut(&question.a_kid) else { return };
        those.retain(|(protocol, _)| *protocol != question.protocol);
        if those.is_empty() {
            self.0.remove(&question.a_kid);
        }
    }

    /// Takes out whatever is of this A-KID: for which protocols.
    pub(crate) fn forget(&mut self, a_kid: &AKid) -> impl Iterator<Item = UaProtocolId> + use<V> {
        self.0.remove(a_kid).into_iter().flatten().map(|(protocol, _)| protocol)
    }
}

/// Answers that are remembered for a while.
#[derive(Debug)]
pub(crate) struct Remembered<V> {
    answers: Expiring<Question, V>,
    index: ByAKid<()>,
}

impl<V> Remembered<V> {
    /// At most so many; to make room, the one nearest its expiry goes.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { answers: Expiring::new(entries_max), index: ByAKid::default() }
    }

    pub(crate) fn live(&self, question: &Question, now: Instant) -> Option<&V> {
        self.answers.live(question, now)
    }

    pub(crate) fn insert(&mut self, question: &Question, value: V, expiry: Instant, now: Instant) {
        let index = &mut self.index;
        self.answers.insert_for(question.clone(), value, expiry, now, |gone| index.remove(gone));
        match self.answers.live(question, now) {
            Some(_) => self.index.insert(question, ()),
            // It has expired already, or there is room for none.
            None => self.index.remove(question),
        }
    }

    pub(crate) fn forget(&mut self, a_kid: &AKid) {
        for protocol in self.index.forget(a_kid) {
            self.answers.remove(&Question { a_kid: a_kid.clone(), protocol });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn question((number, suite): (u8, u16)) -> Question {
        let a_kid = format!("0.{number:02x}@5gc.mnc001.mcc001.3gppnetwork.org").parse().unwrap();
        Question { a_kid, protocol: UaProtocolId::tls_1_2(suite) }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u16, u64),
        Forget(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u8, 0..3_u16, 0..5_u64).prop_map(|(number, suite, seconds)| Step::Insert(number, suite, seconds)),
            1 => (0..6_u8).prop_map(Step::Forget),
            1 => (0..3_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// What is forgotten is gone for every protocol, nothing else is, and the index knows what the table does.
        #[test]
        fn an_a_kid_is_forgotten_whole_and_alone(steps in proptest::collection::vec(step(), 0..80)) {
            let mut now = Instant::now();
            let mut table = Remembered::new(5);
            let all: Vec<Question> =
                (0..6).flat_map(|number| (0..3).map(move |suite| question((number, suite)))).collect();
            for step in steps {
                let before: Vec<bool> = all.iter().map(|question| table.live(question, now).is_some()).collect();
                match step {
                    Step::Insert(number, suite, seconds) => {
                        table.insert(&question((number, suite)), (), now + Duration::from_secs(seconds), now);
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Forget(number) => {
                        let a_kid = question((number, 0)).a_kid;
                        table.forget(&a_kid);
                        for (question, was_there) in all.iter().zip(before) {
                            let is_there = table.live(question, now).is_some();
                            prop_assert_eq!(is_there, was_there && question.a_kid != a_kid);
                        }
                    }
                }
                for question in &all {
                    let kept = table.answers.live(question, now).is_some();
                    prop_assert!(!kept || table.index.find(question).is_some());
                }
                let indexed: usize = table.index.0.values().map(Vec::len).sum();
                prop_assert!(indexed <= 5, "{indexed} of 5");
            }
        }
    }
}
