//! What operators see of OSCORE.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of `/akma` exchanges, contexts and refusals; clones share them.
#[derive(Debug, Clone, Default)]
pub struct OscoreMetrics {
    agreements: Family<Outcome, Counter>,
    refused: Family<Reason, Counter>,
    contexts: Gauge,
    address_changes: Counter,
    displaced: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl OscoreMetrics {
    /// Creates the metrics and registers them, under the names of `docs/reference/oscore.md`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("oscore_agreements", "/akma requests ended, by outcome", metrics.agreements.clone());
        registry.register("oscore_refused", "Messages refused or passed over, by reason", metrics.refused.clone());
        registry.register("oscore_contexts", "Security contexts in use by sessions", metrics.contexts.clone());
        registry.register(
            "oscore_address_changes",
            "Verified requests that came from another address than the last",
            metrics.address_changes.clone(),
        );
        registry.register(
            "oscore_displaced",
            "Sessions whose address another session has proven to be its own",
            metrics.displaced.clone(),
        );
        metrics
    }

    pub(super) fn agreement(&self, outcome: &'static str) {
        self.agreements.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn context_begins(&self) -> ContextInUse {
        self.contexts.inc();
        ContextInUse(self.contexts.clone())
    }

    pub(super) fn displaced(&self) {
        self.displaced.inc();
    }

    pub(super) fn address_changed(&self) {
        self.address_changes.inc();
    }
}

/// Counts as one for as long as it lives.
#[derive(Debug)]
pub(super) struct ContextInUse(Gauge);

impl Drop for ContextInUse {
    fn drop(&mut self) {
        self.0.dec();
    }
}
