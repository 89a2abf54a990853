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
}

impl Counters {
    /// Whether this count of this nonce is new; it is not from then on.
    pub(super) fn take(&mut self, nonce: Nonce, count: u32, nonces: &Nonces, now: Instant, nonces_max: usize) -> bool {
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

    const LIFETIME: Duration = Duration::from_secs(100);

    #[test]
    fn a_count_that_is_not_higher_is_refused() {
        let now = Instant::now();
        let nonces = Nonces::new(LIFETIME, now).unwrap();
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
            let nonces = Nonces::new(LIFETIME, begun).unwrap();
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
            let nonces = Nonces::new(LIFETIME, begun).unwrap();
            let mut counters = Counters::default();
            for number in 0..count {
                let now = begun + Duration::from_millis(u64::try_from(number).unwrap());
                let nonce = nonces.check(&nonces.issue(now), now).unwrap();
                prop_assert!(counters.take(nonce, 1, &nonces, now, 3));
            }
        }
    }
}
