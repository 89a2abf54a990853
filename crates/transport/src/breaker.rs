//! A circuit breaker: a failing key server is left alone for a while. Reads no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::expiring::later;

/// Closed until `failures_max` failures in a row; then open for `open_for`; then one probe at a time.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures_max: u32,
    open_for: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

impl Breaker {
    pub(crate) fn new(failures_max: u32, open_for: Duration) -> Self {
        Self { failures_max: failures_max.max(1), open_for, state: State::Closed { failures: 0 } }
    }

    /// Whether to ask now. Each `true` must be followed by [`success`](Self::success), [`failure`](Self::failure) or
    /// [`no_news`](Self::no_news).
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } if now >= until => {
                self.state = State::Probing;
                true
            }
            State::Open { .. } | State::Probing => false,
        }
    }

    pub(crate) fn success(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    pub(crate) fn failure(&mut self, now: Instant) {
        match &mut self.state {
            State::Closed { failures } if failures.saturating_add(1) < self.failures_max => *failures += 1,
            // A lookup from before the breaker opened: no news.
            State::Open { .. } => {}
            State::Closed { .. } | State::Probing => self.state = State::Open { until: later(now, self.open_for) },
        }
    }

    /// The key server was not asked after all: another may probe in its place.
    pub(crate) fn no_news(&mut self, now: Instant) {
        if matches!(self.state, State::Probing) {
            self.state = State::Open { until: now };
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_to_stay_open_for_ever_does() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, Duration::MAX);
        breaker.failure(start);
        assert!(!breaker.admit(start + Duration::from_secs(3600)));
    }

    const OPEN_FOR: Duration = Duration::from_secs(2);

    #[test]
    fn failures_in_a_row_open_it_and_a_good_probe_closes_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new(3, OPEN_FOR);
        for _ in 0..2 {
            assert!(breaker.admit(start));
            breaker.failure(start);
        }
        breaker.success();
        for _ in 0..3 {
            assert!(breaker.admit(start));
            breaker.failure(start);
        }
        assert!(!breaker.is_closed() && !breaker.admit(start));
        assert!(breaker.admit(start + OPEN_FOR), "one probe");
        assert!(!breaker.admit(start + OPEN_FOR), "and only one");
        breaker.failure(start + OPEN_FOR);
        assert!(!breaker.admit(start + OPEN_FOR));
        assert!(breaker.admit(start + 2 * OPEN_FOR));
        breaker.success();
        assert!(breaker.is_closed() && breaker.admit(start));
    }

    #[test]
    fn a_probe_that_asked_nothing_lets_another_probe_and_counts_for_nothing() {
        let start = Instant::now();
        let mut breaker = Breaker::new(2, OPEN_FOR);
        breaker.failure(start);
        breaker.no_news(start);
        assert!(breaker.is_closed(), "neither a failure");
        breaker.failure(start);
        assert!(!breaker.is_closed(), "nor a success");
        assert!(breaker.admit(start + OPEN_FOR) && !breaker.admit(start + OPEN_FOR));
        breaker.no_news(start + OPEN_FOR);
        assert!(!breaker.is_closed() && breaker.admit(start + OPEN_FOR));
    }

    #[test]
    fn a_late_failure_does_not_prolong_the_pause() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, OPEN_FOR);
        breaker.failure(start);
        breaker.failure(start + OPEN_FOR / 2);
        assert!(breaker.admit(start + OPEN_FOR));
    }
}
