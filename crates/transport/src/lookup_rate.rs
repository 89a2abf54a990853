//! How often one source may make us ask the key server. Reads no clock.
//!
//! Two allowances for each source, each of so many a second with [`BURST_SECONDS`] of them at once: one for every question, and
//! a smaller one for questions that found no key. Who comes with A-KIDs that are good, however many UEs share the address,
//! spends the first alone; who invents them is soon without the second.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Source;

/// An allowance that was not used is kept for so long.
const BURST_SECONDS: u32 = 10;

/// How often a full table is looked through for sources that may be forgotten, at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Which allowance is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spent {
    All,
    Unknown,
}

/// See the module. Holds a bounded number of sources; those beyond share what one has.
#[derive(Debug)]
pub(crate) struct LookupRate {
    all: Allowance,
    unknown: Allowance,
    sources_max: usize,
    sources: HashMap<Source, Spending>,
    others: Spending,
    swept_at: Option<Instant>,
}

/// So much time each question costs, and so much time may be owed.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    cost: Duration,
    debt_max: Duration,
}

/// Until when what was asked is not paid for; none: all of it is.
#[derive(Debug, Clone, Copy, Default)]
struct Spending {
    all: Option<Instant>,
    unknown: Option<Instant>,
}

impl LookupRate {
    pub(crate) fn new(per_second_max: u32, unknown_per_second_max: u32, sources_max: usize) -> Self {
        Self {
            all: Allowance::of(per_second_max),
            unknown: Allowance::of(unknown_per_second_max),
            sources_max,
            sources: HashMap::new(),
            others: Spending::default(),
            swept_at: None,
        }
    }

    /// Whether this source may ask now; then the question is counted.
    pub(crate) fn admit(&mut self, source: Source, now: Instant) -> Result<(), Spent> {
        let (all, unknown) = (self.all, self.unknown);
        let spending = self.spending(source, now);
        if unknown.is_spent(spending.unknown, now) {
            return Err(Spent::Unknown);
        }
        if all.is_spent(spending.all, now) {
            return Err(Spent::All);
        }
        spending.all = Some(all.spend(spending.all, now));
        Ok(())
    }

    /// A question of this source found no key.
    pub(crate) fn found_none(&mut self, source: Source, now: Instant) {
        let unknown = self.unknown;
        let spending = self.spending(source, now);
        spending.unknown = Some(unknown.spend(spending.unknown, now));
    }

    fn spending(&mut self, source: Source, now: Instant) -> &mut Spending {
        let due = self.swept_at.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL);
        if self.sources.len() >= self.sources_max && due {
            self.swept_at = Some(now);
            self.sources.retain(|_, spending| !spending.is_paid(now));
        }
        if self.sources.len() >= self.sources_max && !self.sources.contains_key(&source) {
            return &mut self.others;
        }
        self.sources.entry(source).or_default()
    }
}

impl Allowance {
    fn of(per_second_max: u32) -> Self {
        Self {
            cost: Duration::from_secs(1) / per_second_max.max(1),
            debt_max: Duration::from_secs(u64::from(BURST_SECONDS)),
        }
    }

    fn is_spent(self, until: Option<Instant>, now: Instant) -> bool {
        until.is_some_and(|until| until.saturating_duration_since(now) + self.cost > self.debt_max)
    }

    fn spend(self, until: Option<Instant>, now: Instant) -> Instant {
        until.map_or(now, |until| until.max(now)) + self.cost
    }
}

impl Spending {
    fn is_paid(self, now: Instant) -> bool {
        [self.all, self.unknown].into_iter().flatten().all(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn source(number: u32) -> Source {
        Source::from(IpAddr::from(Ipv4Addr::from(number)))
    }

    /// How many of `tries` questions at one moment are let through.
    fn asked(rate: &mut LookupRate, source: Source, now: Instant, tries: u32, found: bool) -> u32 {
        (0..tries)
            .filter(|_| {
                let admitted = rate.admit(source, now).is_ok();
                if admitted && !found {
                    rate.found_none(source, now);
                }
                admitted
            })
            .count()
            .try_into()
            .unwrap()
    }

    #[test]
    fn invented_a_kids_use_up_their_allowance_and_good_ones_do_not() {
        let (mut rate, now) = (LookupRate::new(100, 2, 10), Instant::now());
        assert_eq!(asked(&mut rate, source(1), now, 500, false), 2 * BURST_SECONDS);
        assert_eq!(rate.admit(source(1), now), Err(Spent::Unknown));
        assert_eq!(asked(&mut rate, source(2), now, 500, true), 500, "another source has its own");
        assert_eq!(asked(&mut rate, source(1), now + Duration::from_secs(1), 500, false), 2, "what a second brings");
    }

    #[test]
    fn found_keys_are_bounded_by_the_larger_allowance() {
        let (mut rate, now) = (LookupRate::new(5, 2, 10), Instant::now());
        assert_eq!(asked(&mut rate, source(1), now, 500, true), 5 * BURST_SECONDS);
        assert_eq!(rate.admit(source(1), now), Err(Spent::All));
    }

    #[test]
    fn the_table_is_bounded_those_beyond_share_and_the_paid_make_room() {
        let (mut rate, now) = (LookupRate::new(100, 1, 2), Instant::now());
        for number in 0..2 {
            assert_eq!(asked(&mut rate, source(number), now, 1, false), 1);
        }
        let beyond: u32 = (2..100).map(|number| asked(&mut rate, source(number), now, 1, false)).sum();
        assert_eq!((beyond, rate.sources.len()), (BURST_SECONDS, 2), "ninety-eight have what one has");
        let later = now + Duration::from_secs(2);
        assert_eq!(asked(&mut rate, source(200), later, 1, false), 1);
        assert_eq!(rate.sources.len(), 1);
    }

    proptest! {
        #[test]
        fn no_pattern_in_time_gets_more_than_the_rate_and_one_burst(
            pauses in proptest::collection::vec(0_u64..400, 1..300), per_second in 1_u32..50
        ) {
            let begun = Instant::now();
            let (mut rate, mut now, mut taken) = (LookupRate::new(1000, per_second, 4), begun, 0_u64);
            for pause in pauses {
                now += Duration::from_millis(pause);
                if rate.admit(source(1), now).is_ok() {
                    rate.found_none(source(1), now);
                    taken += 1;
                }
            }
            let seconds = (now - begun).as_secs() + 1 + u64::from(BURST_SECONDS);
            prop_assert!(taken <= seconds * u64::from(per_second));
        }
    }
}
