//! How often a connection may have a registration changed.

use std::time::Duration;

use tokio::time::Instant;

/// What a pace is reckoned by.
const MINUTE: Duration = Duration::from_secs(60);

/// So many in a minute, and as many at once after a silence of one.
#[derive(Debug)]
pub(super) struct Pace {
    /// When a minute's worth may come at once again.
    settled_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { settled_at: now }
    }

    /// Whether one more is in the pace of `per_minute`; then it counts.
    pub(super) fn admits(&mut self, per_minute: u32, now: Instant) -> bool {
        let settled_at = self.settled_at.max(now) + MINUTE / per_minute.max(1);
        let admitted = settled_at <= now + MINUTE;
        if admitted {
            self.settled_at = settled_at;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_comes_at_once_and_then_one_after_the_other() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace::new(begun);
        let mut admits = |seconds| pace.admits(3, after(seconds));
        assert_eq!([0, 0, 0, 0, 19].map(&mut admits), [true, true, true, false, false]);
        assert_eq!([20, 20, 40, 59].map(&mut admits), [true, false, true, false], "refusals do not count");
        assert_eq!([1000, 1000, 1000, 1000].map(&mut admits), [true, true, true, false]);
    }
}
