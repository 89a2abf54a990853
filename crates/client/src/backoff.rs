//! Pauses between attempts: exponential, with full jitter, so that a million clients of a restarted server come back
//! spread out and not in waves.

use std::time::Duration;

/// The pauses of one series of attempts.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// The n-th pause is drawn evenly from zero to `first` · 2ⁿ, and never exceeds `max`.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, attempt: 0 }
    }

    /// The pause before the next attempt. `draw` is evenly distributed over 0..1.
    pub(crate) fn pause(&mut self, draw: f64) -> Duration {
        let ceiling = self.first.saturating_mul(2_u32.saturating_pow(self.attempt)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(draw.clamp(0.0, 1.0))
    }

    /// Starts over: the last attempt held.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(3));
        let pauses: Vec<_> = (0..5).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 3000, 3000]);
        backoff.reset();
        assert_eq!(backoff.pause(1.0).as_millis(), 500);
    }

    #[test]
    fn the_draw_spreads_over_the_whole_pause() {
        let mut backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(60));
        assert_eq!(backoff.pause(0.0), Duration::ZERO);
        assert_eq!(backoff.pause(0.5), Duration::from_secs(4));
    }

    #[test]
    fn an_endless_outage_overflows_nothing() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..10_000 {
            assert!(backoff.pause(1.0) <= Duration::from_secs(60));
        }
    }
}
