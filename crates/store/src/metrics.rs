//! The store's figures for Prometheus.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;

/// Counters, gauges and histograms of one database. Clones share the same figures.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    pub(crate) queued_batches: Gauge,
    pub(crate) queued_bytes: Gauge,
    pub(crate) memory_bytes: Gauge,
    pub(crate) batches: Counter,
    pub(crate) groups: Counter,
    pub(crate) syncs: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) refused: Counter,
    pub(crate) failed: Counter,
    pub(crate) reclaimed: Counter,
    pub(crate) reclaims_failed: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) group_batches: Histogram,
    pub(crate) messages: Gauge,
    pub(crate) message_bytes: Gauge,
    pub(crate) recipients: Gauge,
    pub(crate) deduplication_records: Gauge,
    pub(crate) registrations: Gauge,
    pub(crate) application_servers: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) topic_list_subscriptions: Gauge,
    pub(crate) jobs: Gauge,
    pub(crate) job_bytes: Gauge,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            queued_batches: Gauge::default(),
            memory_bytes: Gauge::default(),
            queued_bytes: Gauge::default(),
            batches: Counter::default(),
            groups: Counter::default(),
            syncs: Counter::default(),
            written_bytes: Counter::default(),
            refused: Counter::default(),
            failed: Counter::default(),
            reclaimed: Counter::default(),
            reclaims_failed: Counter::default(),
            commit_seconds: Histogram::new(COMMIT_SECONDS),
            group_batches: Histogram::new(GROUP_BATCHES),
            messages: Gauge::default(),
            message_bytes: Gauge::default(),
            recipients: Gauge::default(),
            deduplication_records: Gauge::default(),
            registrations: Gauge::default(),
            application_servers: Gauge::default(),
            subscriptions: Gauge::default(),
            topic_list_subscriptions: Gauge::default(),
            jobs: Gauge::default(),
            job_bytes: Gauge::default(),
        }
    }
}

impl StoreMetrics {
    /// Puts the figures into `registry`, each name beginning with `store_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("store");
        registry.register("queued_batches", "Batches waiting for the writer", self.queued_batches.clone());
        registry.register("queued_bytes", "Octets of the batches waiting for the writer", self.queued_bytes.clone());
        registry.register(
            "memory_bytes",
            "Octets of recent writes that all tables hold in memory",
            self.memory_bytes.clone(),
        );
        registry.register("batches", "Batches committed", self.batches.clone());
        registry.register("groups", "Groups of batches written together", self.groups.clone());
        registry.register("syncs", "Syncs of the journal", self.syncs.clone());
        registry.register("written_bytes", "Octets of keys and values written", self.written_bytes.clone());
        registry.register("refused", "Batches refused: queue full or disk full", self.refused.clone());
        registry.register("failed", "Batches failed in writing or syncing", self.failed.clone());
        registry.register("reclaimed", "Tables rewritten without what was deleted of them", self.reclaimed.clone());
        let help = "Tables that could not be rewritten without what was deleted of them";
        registry.register("reclaims_failed", help, self.reclaims_failed.clone());
        registry.register("commit_seconds", "From handing in a batch to its answer", self.commit_seconds.clone());
        registry.register("group_batches", "Batches in one group", self.group_batches.clone());
        registry.register("messages", "Messages stored", self.messages.clone());
        registry.register("message_bytes", "Octets of messages stored", self.message_bytes.clone());
        registry.register("recipients", "Recipients with messages stored", self.recipients.clone());
        registry.register("deduplication_records", "Deduplication records held", self.deduplication_records.clone());
        registry.register("registrations", "Registrations held", self.registrations.clone());
        registry.register("application_servers", "Application servers held", self.application_servers.clone());
        registry.register("subscriptions", "Subscriptions to topics held", self.subscriptions.clone());
        let help = "Subscriptions to the list of topics held";
        registry.register("topic_list_subscriptions", help, self.topic_list_subscriptions.clone());
        registry.register("jobs", "Fan-out jobs under way", self.jobs.clone());
        registry.register("job_bytes", "Octets of the fan-out jobs under way", self.job_bytes.clone());
    }
}

/// A gauge takes a signed number; the counts here cannot come near its end.
pub(crate) fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

const COMMIT_SECONDS: [f64; 10] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];
const GROUP_BATCHES: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];
