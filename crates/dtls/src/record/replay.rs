//! The window that lets each record in once (RFC 6347 4.1.2.6).

use crate::limits::REPLAY_WINDOW_RECORDS;

/// Which sequence numbers of one epoch were taken. Those older than the window count as taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplayWindow {
    /// One more than the highest taken; 0: none.
    pub(crate) next: u64,
    /// Bit `i`: `next - 1 - i` was taken.
    pub(crate) taken: u128,
}

impl ReplayWindow {
    /// Whether a record with `sequence` may still be taken.
    pub(crate) fn is_fresh(&self, sequence: u64) -> bool {
        if sequence >= self.next {
            return true;
        }
        let behind = self.next - 1 - sequence;
        behind < REPLAY_WINDOW_RECORDS && self.taken & (1 << behind) == 0
    }

    /// Notes that the authentic record with `sequence`, which was fresh, is taken. Returns whether it is the newest.
    pub(crate) fn take(&mut self, sequence: u64) -> bool {
        if sequence >= self.next {
            let ahead = sequence - self.next + 1;
            self.taken = if ahead < REPLAY_WINDOW_RECORDS { self.taken << ahead } else { 0 };
            self.taken |= 1;
            self.next = sequence + 1;
            return true;
        }
        let behind = self.next - 1 - sequence;
        if behind < REPLAY_WINDOW_RECORDS {
            self.taken |= 1 << behind;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set that remembers everything: nothing twice, and nothing of the last 128 refused.
        #[test]
        fn each_record_is_taken_once(steps in prop::collection::vec((0u64..300, any::<bool>()), 1..400)) {
            let mut window = ReplayWindow::default();
            let (mut seen, mut highest, mut base) = (HashSet::new(), None::<u64>, 0u64);
            for (offset, jump) in steps {
                if jump {
                    base += offset;
                }
                let sequence = base.saturating_sub(offset);
                let inside = highest.is_none_or(|highest| sequence + REPLAY_WINDOW_RECORDS > highest);
                let fresh = window.is_fresh(sequence);
                prop_assert_eq!(fresh, inside && !seen.contains(&sequence));
                if fresh {
                    let newest = window.take(sequence);
                    prop_assert_eq!(newest, highest.is_none_or(|highest| sequence > highest));
                    seen.insert(sequence);
                    highest = highest.max(Some(sequence));
                }
            }
        }
    }

    #[test]
    fn the_last_sequence_number_does_not_overflow() {
        let mut window = ReplayWindow::default();
        let last = (1 << 48) - 1;
        assert!(window.is_fresh(last));
        assert!(window.take(last));
        assert!(!window.is_fresh(last));
        assert!(!window.is_fresh(0));
    }
}
