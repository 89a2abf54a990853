//! How often a device has used each of its nonces: each count once, and each higher than the one before (RFC 7616 clause
//! 3.4, `nc`).
//!
//! Only what proved its sender gets here. The table is small, and what it forgets is refused from then on instead of being
//! taken anew.

use tokio::time::Instant;

use super::nonce::{Nonce, Nonces};

/// See the module. Idle for longer than a nonce's lifetime, it may be forgotten as a whole: no nonce that it knew is good then.
#[derive(Debug, Default)]
pub(super) struct Counters {
    used: Vec<(Nonce, u32)>,
    /// Nonces made no later than this are not taken any more, unless they are among those in use.
    forgotten: Option<Nonce>,
    /// The latest time at which one was taken, or refused: what was forgotten then as too old is too old for whoever looked at
    /// the clock before, and comes after.
    latest: Option<Instant>,
}

impl Counters {
    /// Whether this count of this nonce is new, and the nonce still good; it is not new from then on.
    pub(super) fn take(&mut self, nonce: Nonce, count: u32, nonces: &Nonces, now: Instant, nonces_max: usize) -> bool {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        // It was good when the request came; looking up its key may have taken longer than it had left, and its count may have
        // been forgotten meanwhile.
        if nonces.is_over(nonce, now) {
            return false;
        }
        if let Some((_, last)) = self.used.iter_mut().find(|(known, _)| *known == nonce) {
            let new = count > *last;
            *last = count.max(*last);
            return new;
        }
        if self.forgotten.is_some_and(|forgotten| nonce.is_as_old_as(forgotten)) {
            return false;
        }
        if self.used.len() >= nonces_max {
            self.used.retain(|(known, _)| !nonces.is_over(*known, now));
        }
        if self.used.len() >= nonces_max {
            let oldest = self.used.iter().map(|(known, _)| *known).min();
            self.used.retain(|(known, _)| Some(*known) != oldest);
            self.forgotten = oldest.max(self.forgotten);
            if self.forgotten.is_some_and(|forgotten| nonce.is_as_old_as(forgotten)) {
                return false;
            }
        }
        self.used.push((nonce, count));
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::http_ue::DeviceLimits;

    const LIFETIME: Duration = Duration::from_secs(100);

    fn made(now: Instant) -> Nonces {
        let limits = DeviceLimits { nonce_lifetime_seconds: LIFETIME.as_secs(), ..DeviceLimits::default() };
        Nonces::new(&limits, now).unwrap()
    }

    #[test]
    fn a_nonce_whose_count_was_forgotten_as_too_old_is_not_taken_again_by_whoever_looked_at_the_clock_before() {
        let begun = Instant::now();
        let nonces = made(begun);
        let (before, after) = (begun + LIFETIME - Duration::from_secs(1), begun + LIFETIME);
        let old = nonces.check(&nonces.issue(begun), before).unwrap();
        let mut counters = Counters::default();
        assert!(counters.take(old, 1, &nonces, before, 1));
        let new = nonces.check(&nonces.issue(after), after).unwrap();
        assert!(counters.take(new, 1, &nonces, after, 1), "in the place of the old one");
        assert!(!counters.take(old, 1, &nonces, after, 1));
        assert!(!counters.take(old, 1, &nonces, before, 1));
        assert!(!counters.take(old, 2, &nonces, before, 4));
    }

    #[test]
    fn a_count_that_is_not_higher_is_refused() {
        let now = Instant::now();
        let nonces = made(now);
        let nonce = nonces.check(&nonces.issue(now), now).unwrap();
        let mut counters = Counters::default();
        let taken: Vec<bool> =
            [1, 1, 5, 4, 5, 6].iter().map(|count| counters.take(nonce, *count, &nonces, now, 4)).collect();
        assert_eq!(taken, [true, false, true, false, false, true]);
    }

    proptest! {
        #[test]
        fn nothing_is_taken_twice_whatever_is_forgotten(
            uses in proptest::collection::vec((0_usize..12, 1_u32..4, 0_u64..20), 1..200)
        ) {
            let begun = Instant::now();
            let nonces = made(begun);
            let mut now = begun;
            let mut issued = Vec::new();
            let (mut counters, mut taken) = (Counters::default(), HashSet::new());
            for (which, count, seconds) in uses {
                now += Duration::from_secs(seconds);
                issued.push(nonces.issue(now));
                let text: &String = issued.get(issued.len().saturating_sub(which + 1)).unwrap();
                let Ok(nonce) = nonces.check(text, now) else { continue };
                if counters.take(nonce, count, &nonces, now, 3) {
                    prop_assert!(taken.insert((text.clone(), count)));
                }
                prop_assert!(counters.used.len() <= 3);
            }
        }

        #[test]
        fn a_new_nonce_is_always_taken(count in 1_usize..50) {
            let begun = Instant::now();
            let nonces = made(begun);
            let mut counters = Counters::default();
            for number in 0..count {
                let now = begun + Duration::from_millis(u64::try_from(number).unwrap());
                let nonce = nonces.check(&nonces.issue(now), now).unwrap();
                prop_assert!(counters.take(nonce, 1, &nonces, now, 3));
            }
        }
    }
}
