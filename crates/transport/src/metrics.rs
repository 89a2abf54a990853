//! What operators see of handshakes and key lookups, in Prometheus form.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of handshakes and key lookups; clones share them.
#[derive(Debug, Clone)]
pub struct TransportMetrics {
    handshakes: Family<Outcome, Counter>,
    handshakes_in_progress: Gauge,
    handshake_seconds: Histogram,
    lookups: Family<Outcome, Counter>,
    lookups_in_flight: Gauge,
    lookup_seconds: Histogram,
    breaker_open: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Default for TransportMetrics {
    /// Metrics that nobody reads.
    fn default() -> Self {
        Self {
            handshakes: Family::default(),
            handshakes_in_progress: Gauge::default(),
            handshake_seconds: seconds(),
            lookups: Family::default(),
            lookups_in_flight: Gauge::default(),
            lookup_seconds: seconds(),
            breaker_open: Gauge::default(),
        }
    }
}

impl TransportMetrics {
    /// Creates the metrics and registers them, under the names of `docs/reference/transport.md`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("psk_handshakes", "TLS-PSK handshakes ended, by outcome", metrics.handshakes.clone());
        registry.register(
            "psk_handshakes_in_progress",
            "TLS-PSK handshakes under way",
            metrics.handshakes_in_progress.clone(),
        );
        registry.register(
            "psk_handshake_seconds",
            "Duration of accepted TLS-PSK handshakes, key lookup included",
            metrics.handshake_seconds.clone(),
        );
        registry.register("akma_key_lookups", "Requests for K_AF, by outcome", metrics.lookups.clone());
        registry.register(
            "akma_key_lookups_in_flight",
            "Questions put to the key server and not answered yet",
            metrics.lookups_in_flight.clone(),
        );
        registry.register(
            "akma_key_lookup_seconds",
            "Time the key server took to answer",
            metrics.lookup_seconds.clone(),
        );
        registry.register(
            "akma_key_lookup_breaker_open",
            "1 while the key server is left alone after failures in a row",
            metrics.breaker_open.clone(),
        );
        metrics
    }

    pub(crate) fn handshake_begins(&self) -> InProgress {
        InProgress::of(&self.handshakes_in_progress)
    }

    pub(crate) fn handshake_ended(&self, outcome: &'static str) {
        self.handshakes.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn handshake_took(&self, elapsed: Duration) {
        self.handshake_seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn lookup_begins(&self) -> InProgress {
        InProgress::of(&self.lookups_in_flight)
    }

    pub(crate) fn lookup_took(&self, elapsed: Duration) {
        self.lookup_seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn lookup_ended(&self, outcome: &'static str) {
        self.lookups.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn breaker_is_open(&self, open: bool) {
        self.breaker_open.set(i64::from(open));
    }
}

/// Counts as one in a gauge for as long as it lives.
pub(crate) struct InProgress(Gauge);

impl InProgress {
    fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// 0.25 ms to about 16 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 17))
}
