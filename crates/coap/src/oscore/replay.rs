//! The replay window: which requests were seen (RFC 8613 7.4).

use std::fmt;

use super::limits::{ECHO_OCTETS, REPLAY_WINDOW_SIZE, SEQUENCE_NUMBER_MAX};

/// The Partial IVs that were taken: every one below the window counts as taken, those in it each for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayWindow {
    /// One more than the highest that was taken; 0 before the first.
    next: u64,
    /// Bit i: the highest less i was taken.
    taken: u64,
}

impl ReplayWindow {
    /// Nothing was taken yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: 0, taken: 0 }
    }

    /// Everything up to `highest` counts as taken (RFC 8613 Appendix B.1.2).
    #[must_use]
    pub const fn above(highest: u64) -> Self {
        Self { next: highest + 1, taken: u64::MAX }
    }

    /// Whether a message with that Partial IV may be new.
    #[must_use]
    pub const fn is_new(&self, partial_iv: u64) -> bool {
        if partial_iv >= self.next {
            return true;
        }
        let behind = self.next - 1 - partial_iv;
        behind < REPLAY_WINDOW_SIZE && self.taken >> behind & 1 == 0
    }

    /// Notes that a message with that Partial IV was verified.
    pub(crate) fn take(&mut self, partial_iv: u64) {
        if partial_iv >= self.next {
            let ahead = partial_iv + 1 - self.next;
            self.taken = if ahead < REPLAY_WINDOW_SIZE { self.taken << ahead } else { 0 } | 1;
            self.next = partial_iv + 1;
        } else {
            let behind = self.next - 1 - partial_iv;
            if behind < REPLAY_WINDOW_SIZE {
                self.taken |= 1 << behind;
            }
        }
    }

    /// For the disk.
    #[must_use]
    pub fn to_octets(&self) -> [u8; 16] {
        let mut octets = [0; 16];
        let (next, taken) = octets.split_at_mut(8);
        next.copy_from_slice(&self.next.to_be_bytes());
        taken.copy_from_slice(&self.taken.to_be_bytes());
        octets
    }

    /// From the disk; none if it is no window.
    #[must_use]
    pub fn from_octets(octets: &[u8; 16]) -> Option<Self> {
        let both = u128::from_be_bytes(*octets);
        let (next, taken) = ((both >> 64) as u64, both as u64);
        let consistent = if next == 0 { taken == 0 } else { taken & 1 == 1 };
        (next <= SEQUENCE_NUMBER_MAX + 1 && consistent).then_some(Self { next, taken })
    }
}

/// The value of the Echo option by which a peer proves that its request is of now. Fresh and random at each start of
/// the program: a value that was used before lets old requests in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EchoValue(pub(crate) [u8; ECHO_OCTETS]);

impl EchoValue {
    /// From the caller's source of randomness.
    #[must_use]
    pub const fn new(random: [u8; ECHO_OCTETS]) -> Self {
        Self(random)
    }
}

impl fmt::Debug for EchoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EchoValue")
    }
}

/// What is known of the requests that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStart {
    /// There were none: the context is new.
    Nothing,
    /// Exactly these. The window is that of the last moment, as after an orderly stop; remove it from the disk before
    /// the context is used again, so that it cannot be restored twice.
    Known(ReplayWindow),
    /// Not known, as after a crash. The first request is answered 4.01 with this Echo value, and its repetition with it
    /// starts the window anew (RFC 8613 Appendix B.1.2).
    Unknown(EchoValue),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_takes_each_once_and_nothing_older_than_its_size() {
        let mut window = ReplayWindow::new();
        assert!(window.is_new(0));
        window.take(100);
        assert!(!window.is_new(100));
        assert!(window.is_new(100 - REPLAY_WINDOW_SIZE + 1));
        assert!(!window.is_new(100 - REPLAY_WINDOW_SIZE));
        window.take(SEQUENCE_NUMBER_MAX);
        assert!(!window.is_new(SEQUENCE_NUMBER_MAX) && !window.is_new(101));
        assert!(window.is_new(SEQUENCE_NUMBER_MAX - 1));
        let above = ReplayWindow::above(40);
        assert!(!above.is_new(0) && !above.is_new(40) && above.is_new(41));
    }

    #[test]
    fn a_window_that_cannot_be_is_not_restored() {
        for (next, taken) in [(0, 1), (1, 0), (5, 2), (SEQUENCE_NUMBER_MAX + 2, 1)] {
            assert_eq!(ReplayWindow::from_octets(&ReplayWindow { next, taken }.to_octets()), None, "{next} {taken}");
        }
    }

    proptest! {
        #[test]
        fn a_window_is_a_set_of_the_newest(start in 0..SEQUENCE_NUMBER_MAX - 400, steps in prop::collection::vec(0_u64..200, 1..200)) {
            let mut window = ReplayWindow::new();
            let mut seen = BTreeSet::new();
            for step in steps {
                let partial_iv = start + step;
                let highest = seen.last().copied();
                let too_old = highest.is_some_and(|highest: u64| partial_iv + REPLAY_WINDOW_SIZE <= highest);
                prop_assert_eq!(window.is_new(partial_iv), !too_old && !seen.contains(&partial_iv));
                if window.is_new(partial_iv) {
                    window.take(partial_iv);
                    seen.insert(partial_iv);
                }
                prop_assert_eq!(ReplayWindow::from_octets(&window.to_octets()), Some(window));
            }
        }
    }
}
