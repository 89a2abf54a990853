//! A token bucket: so many messages a second on average, so many at once.

use tokio::time::Instant;

/// Messages that may be sent now, in thousandths.
#[derive(Debug)]
pub(super) struct TokenBucket {
    thousandths: u64,
    capacity: u64,
    filled: Instant,
    /// Thousandths a millisecond, which is messages a second.
    rate: u64,
}

impl TokenBucket {
    /// A bucket for `burst` messages at once.
    pub(super) fn full(burst: u32, now: Instant) -> Self {
        let capacity = u64::from(burst) * 1000;
        Self { thousandths: capacity, capacity, filled: now, rate: 0 }
    }

    /// Takes one message; false if there is none.
    pub(super) fn take(&mut self, messages_per_second: u32, burst: u32, now: Instant) -> bool {
        (self.rate, self.capacity) = (messages_per_second.into(), u64::from(burst) * 1000);
        self.thousandths = self.at(now);
        self.filled = now;
        match self.thousandths.checked_sub(1000) {
            Some(left) => {
                self.thousandths = left;
                true
            }
            None => false,
        }
    }

    /// Whether a new bucket would be as full.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.at(now) >= self.capacity
    }

    fn at(&self, now: Instant) -> u64 {
        let milliseconds = u64::try_from(now.saturating_duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        self.thousandths.saturating_add(milliseconds.saturating_mul(self.rate)).min(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(3, start);
        for _ in 0..3 {
            assert!(bucket.take(2, 3, start));
        }
        assert!(!bucket.take(2, 3, start) && !bucket.is_full(start));
        assert!(!bucket.take(2, 3, start + Duration::from_millis(499)));
        assert!(bucket.take(2, 3, start + Duration::from_millis(500)));
        assert!(!bucket.take(2, 3, start + Duration::from_millis(500)));
        let later = start + Duration::from_secs(3600);
        assert!(bucket.is_full(later));
        for _ in 0..3 {
            assert!(bucket.take(2, 3, later));
        }
        assert!(!bucket.take(2, 3, later), "no more than a burst is saved up");
    }
}
