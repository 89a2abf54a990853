//! Log lines that anybody can cause, one a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one event a second into the log and counts the others: whoever can cause an event without being anybody must not
/// fill the disk with it, nor hide other events behind it. The metrics count every one.
///
/// ```
/// static REFUSED: transport::LogThrottle = transport::LogThrottle::new();
/// if let Some(unlogged) = REFUSED.admit() {
///     tracing::warn!(target: "security", unlogged, "peer refused");
/// }
/// assert!(REFUSED.admit().is_none());
/// ```
#[derive(Debug)]
pub struct LogThrottle(Mutex<State>);

#[derive(Debug)]
struct State {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl LogThrottle {
    /// Nothing logged yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State { logged_at: None, unlogged: 0 }))
    }

    /// Whether this event is to be logged: then, how many before it were not.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.logged_at.is_some_and(|at| now.saturating_duration_since(at) < INTERVAL) {
            state.unlogged = state.unlogged.saturating_add(1);
            return None;
        }
        state.logged_at = Some(now);
        Some(std::mem::take(&mut state.unlogged))
    }
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self::new()
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_a_second_is_logged_and_tells_how_many_were_not() {
        let throttle = LogThrottle::new();
        let start = Instant::now();
        assert_eq!(throttle.admit_at(start), Some(0));
        for _ in 0..3 {
            assert_eq!(throttle.admit_at(start + Duration::from_millis(999)), None);
        }
        assert_eq!(throttle.admit_at(start + INTERVAL), Some(3));
        assert_eq!(throttle.admit_at(start + 2 * INTERVAL), Some(0));
    }
}
