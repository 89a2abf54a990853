//! Sender sequence numbers that never repeat, not even after a crash (RFC 8613 7.2.1, Appendix B.1.1).
//!
//! A number may be used only below a limit that is on disk. The limit moves in steps, and early enough that no message
//! waits for the disk; after a restart the numbers go on from it, and those between are never used.

use std::num::NonZeroU32;

use super::error::OscoreError;
use super::limits::{SEQUENCE_NUMBER_MAX, SEQUENCE_STEP_DEFAULT};

/// Whether a context outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It does not: keys and numbers go together. Nothing is to be written.
    Volatile,
    /// It does: so many numbers are reserved on disk at a time.
    Steps(NonZeroU32),
}

impl Default for Durability {
    /// Steps of [`SEQUENCE_STEP_DEFAULT`].
    fn default() -> Self {
        Self::Steps(NonZeroU32::new(SEQUENCE_STEP_DEFAULT).unwrap_or(NonZeroU32::MIN))
    }
}

/// The numbers of one sender.
#[derive(Debug)]
pub(crate) struct Sequence {
    next: u64,
    /// Numbers below this one may be used.
    durable: u64,
    step: Option<NonZeroU32>,
}

const END: u64 = SEQUENCE_NUMBER_MAX + 1;

impl Sequence {
    /// Goes on from `next`; nothing from there on is reserved.
    pub(crate) fn new(next: u64, durability: Durability) -> Self {
        let next = next.min(END);
        match durability {
            Durability::Volatile => Self { next, durable: END, step: None },
            Durability::Steps(step) => Self { next, durable: next, step: Some(step) },
        }
    }

    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// What is to be written now: from the time on when half a step is left.
    pub(crate) fn to_persist(&self) -> Option<u64> {
        let step = u64::from(self.step?.get());
        let target = self.next.saturating_add(step).min(END);
        let left = self.durable.saturating_sub(self.next);
        (left <= step / 2 && target > self.durable).then_some(target)
    }

    pub(crate) fn persisted(&mut self, limit: u64) {
        self.durable = self.durable.max(limit.min(END));
    }

    /// The next number. It is used up by [`Sequence::advance`], once the message is there.
    pub(crate) fn peek(&self) -> Result<u64, OscoreError> {
        if self.next >= END {
            return Err(OscoreError::SequenceExhausted);
        }
        if self.next >= self.durable {
            return Err(OscoreError::SequenceNotDurable { persist_at_least: self.next + 1 });
        }
        Ok(self.next)
    }

    pub(crate) fn advance(&mut self) {
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn steps(step: u32) -> Durability {
        Durability::Steps(NonZeroU32::new(step).unwrap())
    }

    #[test]
    fn no_number_is_given_before_it_is_durable() {
        let mut sequence = Sequence::new(0, steps(4));
        assert_eq!(sequence.peek(), Err(OscoreError::SequenceNotDurable { persist_at_least: 1 }));
        assert_eq!(sequence.to_persist(), Some(4));
        sequence.persisted(4);
        assert_eq!(sequence.to_persist(), None);
        sequence.advance();
        assert_eq!(sequence.to_persist(), None);
        sequence.advance();
        assert_eq!(sequence.to_persist(), Some(6), "asked for again when half is used");
        assert_eq!(sequence.peek(), Ok(2), "and the rest can be used meanwhile");
    }

    #[test]
    fn the_last_number_is_given_and_none_after_it() {
        let mut sequence = Sequence::new(SEQUENCE_NUMBER_MAX, steps(1_024));
        assert_eq!(sequence.to_persist(), Some(END));
        sequence.persisted(END);
        assert_eq!(sequence.peek(), Ok(SEQUENCE_NUMBER_MAX));
        sequence.advance();
        assert_eq!(sequence.to_persist(), None);
        assert_eq!(sequence.peek(), Err(OscoreError::SequenceExhausted));
        let exhausted = Sequence::new(u64::MAX, Durability::Volatile);
        assert_eq!(exhausted.peek(), Err(OscoreError::SequenceExhausted));
    }

    proptest! {
        /// The disk is written late or not at all, and the process is killed anywhere.
        #[test]
        fn no_number_is_given_twice_across_restarts(step in 1_u32..20, events in prop::collection::vec(0_u8..4, 1..300)) {
            let mut disk = 0;
            let mut sequence = Sequence::new(disk, steps(step));
            let mut used = std::collections::BTreeSet::new();
            for event in events {
                match event {
                    0 | 1 => {
                        if let Ok(number) = sequence.peek() {
                            prop_assert!(number < disk);
                            prop_assert!(used.insert(number), "{} given twice", number);
                            sequence.advance();
                        }
                    }
                    2 => {
                        if let Some(limit) = sequence.to_persist() {
                            disk = limit;
                            sequence.persisted(limit);
                        }
                    }
                    _ => sequence = Sequence::new(disk, steps(step)),
                }
            }
        }
    }
}
