//! Latencies of single operations.

use std::time::Duration;

/// Latencies, each as it was.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    /// Takes one up, to the microsecond; beyond an hour counts as an hour.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).min(3_600_000_000));
    }

    pub(crate) fn extend(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// What to report; `None` when there is nothing.
    pub(crate) fn summary(mut self) -> Option<LatencySummary> {
        self.0.sort_unstable();
        let at = |share: f64| {
            let index = ((self.0.len() as f64 * share).ceil() as usize).saturating_sub(1);
            self.0.get(index).map(|microseconds| f64::from(*microseconds) / 1_000.0)
        };
        Some(LatencySummary { p50_ms: at(0.50)?, p99_ms: at(0.99)?, max_ms: at(1.0)? })
    }
}

/// What half, 99 of 100 and all of the operations took at most, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut latencies = Latencies::default();
        for milliseconds in (1..=100).rev() {
            latencies.record(Duration::from_millis(milliseconds));
        }
        assert_eq!(latencies.summary().unwrap(), LatencySummary { p50_ms: 50.0, p99_ms: 99.0, max_ms: 100.0 });
        let mut one = Latencies::default();
        one.record(Duration::from_secs(100_000));
        assert_eq!(one.summary().unwrap(), LatencySummary { p50_ms: 3.6e6, p99_ms: 3.6e6, max_ms: 3.6e6 });
        assert!(Latencies::default().summary().is_none());
    }
}
