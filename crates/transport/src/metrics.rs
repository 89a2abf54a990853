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
    lookups_at_limit: Family<Limit, Counter>,
    lookups_in_flight: Gauge,
    lookup_seconds: Histogram,
    breaker_open: Gauge,
    dtls_handshakes: Family<Outcome, Counter>,
    dtls_handshakes_in_progress: Gauge,
    dtls_handshake_seconds: Histogram,
    dtls_sessions: Gauge,
    dtls_sessions_frozen: Gauge,
    dtls_freezes: Counter,
    dtls_thaws: Family<Outcome, Counter>,
    dtls_cookies: Counter,
    dtls_dropped: Family<Reason, Counter>,
    dtls_address_changes: Counter,
    dtls_displaced: Family<Stage, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limit {
    limit: &'static str,
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
            lookups_at_limit: Family::default(),
            lookups_in_flight: Gauge::default(),
            lookup_seconds: seconds(),
            breaker_open: Gauge::default(),
            dtls_handshakes: Family::default(),
            dtls_handshakes_in_progress: Gauge::default(),
            dtls_handshake_seconds: seconds(),
            dtls_sessions: Gauge::default(),
            dtls_sessions_frozen: Gauge::default(),
            dtls_freezes: Counter::default(),
            dtls_thaws: Family::default(),
            dtls_cookies: Counter::default(),
            dtls_dropped: Family::default(),
            dtls_address_changes: Counter::default(),
            dtls_displaced: Family::default(),
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
            "akma_key_lookups_at_limit",
            "Requests for K_AF that were refused at one of our own limits, by limit",
            metrics.lookups_at_limit.clone(),
        );
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
        metrics.register_dtls(registry);
        metrics
    }

    fn register_dtls(&self, registry: &mut Registry) {
        registry.register("dtls_handshakes", "DTLS handshakes ended, by outcome", self.dtls_handshakes.clone());
        registry.register(
            "dtls_handshakes_in_progress",
            "DTLS handshakes under way",
            self.dtls_handshakes_in_progress.clone(),
        );
        registry.register(
            "dtls_handshake_seconds",
            "Duration of accepted DTLS handshakes, key lookup included",
            self.dtls_handshake_seconds.clone(),
        );
        registry.register("dtls_sessions", "DTLS sessions whose peer is proven", self.dtls_sessions.clone());
        registry.register(
            "dtls_sessions_frozen",
            "Those of them that are frozen because they are idle",
            self.dtls_sessions_frozen.clone(),
        );
        registry.register("dtls_freezes", "DTLS sessions frozen", self.dtls_freezes.clone());
        registry.register("dtls_thaws", "Frozen DTLS sessions thawed, by outcome", self.dtls_thaws.clone());
        registry.register("dtls_cookies", "ClientHellos answered with a cookie", self.dtls_cookies.clone());
        registry.register(
            "dtls_datagrams_dropped",
            "Datagrams of DTLS dropped on their way in or out, by reason",
            self.dtls_dropped.clone(),
        );
        registry.register(
            "dtls_address_changes",
            "Sessions found at another address by their Connection ID",
            self.dtls_address_changes.clone(),
        );
        registry.register(
            "dtls_displaced",
            "Sessions and handshakes that ended because another proved its address to be its own",
            self.dtls_displaced.clone(),
        );
    }

    pub(crate) fn dtls_handshake_begins(&self) -> InProgress {
        InProgress::of(&self.dtls_handshakes_in_progress)
    }

    pub(crate) fn dtls_handshake_ended(&self, outcome: &'static str) {
        self.dtls_handshakes.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn dtls_handshake_took(&self, elapsed: Duration) {
        self.dtls_handshake_seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn dtls_session_begins(&self) -> InProgress {
        InProgress::of(&self.dtls_sessions)
    }

    /// Counts a session that is frozen, until what is returned is dropped.
    pub(crate) fn dtls_frozen(&self) -> InProgress {
        self.dtls_freezes.inc();
        InProgress::of(&self.dtls_sessions_frozen)
    }

    pub(crate) fn dtls_thawed(&self, thawed: bool) {
        let outcome = if thawed { "thawed" } else { "failed" };
        self.dtls_thaws.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn cookie_sent(&self) {
        self.dtls_cookies.inc();
    }

    pub(crate) fn datagram_dropped(&self, reason: &'static str) {
        self.dtls_dropped.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn address_changed(&self) {
        self.dtls_address_changes.inc();
    }

    pub(crate) fn dtls_displaced(&self, established: bool) {
        let stage = if established { "session" } else { "handshake" };
        self.dtls_displaced.get_or_create(&Stage { stage }).inc();
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

    pub(crate) fn lookup_at_limit(&self, limit: &'static str) {
        self.lookups_at_limit.get_or_create(&Limit { limit }).inc();
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
