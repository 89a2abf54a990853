//! What operators see: everything that can fill up, fail or be slow.

use std::time::Duration;

use message::FailureCause;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::delivery::{Answer, Kind};

/// Upper bounds of the time from acceptance to acknowledgement, in seconds.
const DELIVERY_SECONDS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0];

/// Upper bounds of the time to put a message on disk, and of an association's look-up, in seconds.
const WAIT_SECONDS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counters of one server; clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) registered: Gauge,
    pub(crate) sessions_resting: Gauge,
    pub(crate) open_requests: Gauge,
    pub(crate) store_queue: Gauge,
    delivered: Counter,
    delivered_from_disk: Counter,
    reports_delivered: Counter,
    stored: Counter,
    failed: Family<CauseLabel, Counter>,
    buried: Family<CauseLabel, Counter>,
    connections_ended: Family<ReasonLabel, Counter>,
    registrations: Family<CauseLabel, Counter>,
    repeated: Counter,
    forged: Counter,
    reports_lost: Counter,
    unreadable: Counter,
    application_server_failures: Counter,
    aggregates_received: Counter,
    aggregates_sent: Counter,
    segments_held: Counter,
    reassembled: Counter,
    recoveries: Counter,
    reassemblies_failed: Family<CauseLabel, Counter>,
    stored_updated: Counter,
    stored_discarded: Counter,
    pub(crate) reassembly_sets: Gauge,
    pub(crate) reassembly_octets: Gauge,
    delivery_seconds: Histogram,
    store_seconds: Histogram,
    association_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            registered: Gauge::default(),
            sessions_resting: Gauge::default(),
            open_requests: Gauge::default(),
            store_queue: Gauge::default(),
            delivered: Counter::default(),
            delivered_from_disk: Counter::default(),
            reports_delivered: Counter::default(),
            stored: Counter::default(),
            failed: Family::default(),
            buried: Family::default(),
            connections_ended: Family::default(),
            registrations: Family::default(),
            repeated: Counter::default(),
            forged: Counter::default(),
            reports_lost: Counter::default(),
            unreadable: Counter::default(),
            application_server_failures: Counter::default(),
            aggregates_received: Counter::default(),
            aggregates_sent: Counter::default(),
            segments_held: Counter::default(),
            reassembled: Counter::default(),
            recoveries: Counter::default(),
            reassemblies_failed: Family::default(),
            stored_updated: Counter::default(),
            stored_discarded: Counter::default(),
            reassembly_sets: Gauge::default(),
            reassembly_octets: Gauge::default(),
            delivery_seconds: Histogram::new(DELIVERY_SECONDS),
            store_seconds: Histogram::new(WAIT_SECONDS),
            association_seconds: Histogram::new(WAIT_SECONDS),
        };
        metrics.register_all(registry.sub_registry_with_prefix("msgin5g"));
        metrics
    }

    #[rustfmt::skip]
    fn register_all(&self, registry: &mut Registry) {
        registry.register("connections", "MSGin5G-1 connections open", self.connections.clone());
        registry.register("registered", "UE Service IDs registered, connected or away", self.registered.clone());
        registry.register("sessions_resting", "Sessions of those that are idle, without a task of their own", self.sessions_resting.clone());
        registry.register("open_requests", "Messages and reports that wait for their answer", self.open_requests.clone());
        registry.register("store_queue", "Messages that wait for a writer of the store", self.store_queue.clone());
        registry.register("delivered", "Messages acknowledged by their recipient", self.delivered.clone());
        registry.register("delivered_from_disk", "Of those, messages that had been stored", self.delivered_from_disk.clone());
        registry.register("reports_delivered", "Delivery status reports acknowledged", self.reports_delivered.clone());
        registry.register("stored", "Messages and reports answered as stored", self.stored.clone());
        registry.register("failed", "Requests answered with a failure, by cause", self.failed.clone());
        registry.register("stored_failed", "Stored messages that failed, by cause", self.buried.clone());
        registry.register("connections_ended", "Connections ended, by reason", self.connections_ended.clone());
        registry.register("registrations", "Registrations, by failure cause; NONE succeeded", self.registrations.clone());
        registry.register("repeated", "Repeated messages answered from memory", self.repeated.clone());
        registry.register("forged_originators", "Messages with somebody else's originator", self.forged.clone());
        registry.register("reports_lost", "Failure reports that could not be stored", self.reports_lost.clone());
        registry.register("stored_unreadable", "Stored messages that did not decode", self.unreadable.clone());
        registry.register("application_server_failures", "Deliveries to an AS that failed for now", self.application_server_failures.clone());
        registry.register("aggregates_received", "Aggregated messages taken apart", self.aggregates_received.clone());
        registry.register("aggregates_sent", "Aggregated messages sent to UEs", self.aggregates_sent.clone());
        registry.register("segments_held", "Segments taken to be put together here", self.segments_held.clone());
        registry.register("reassembled", "Messages put together from segments", self.reassembled.clone());
        registry.register("segment_recoveries", "Times that missing segments were asked for", self.recoveries.clone());
        registry.register("reassemblies_failed", "Messages in segments given up, by cause", self.reassemblies_failed.clone());
        registry.register("reassembly_sets", "Messages in segments waiting for more", self.reassembly_sets.clone());
        registry.register("reassembly_octets", "Octets of payload in those", self.reassembly_octets.clone());
        registry.register("stored_updated", "Stored messages given another expiry by their originator", self.stored_updated.clone());
        registry.register("stored_discarded", "Stored messages discarded by their originator", self.stored_discarded.clone());
        registry.register("delivery_seconds", "From acceptance, or reading from disk, to acknowledgement", self.delivery_seconds.clone());
        registry.register("association_seconds", "Look-ups of associations, those without an answer included", self.association_seconds.clone());
        registry.register("store_seconds", "From a writer's start to the end of the sync", self.store_seconds.clone());
    }

    pub(crate) fn association_asked(&self, took: Duration) {
        self.association_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn delivered(&self, kind: Kind, from_disk: bool, after: Duration) {
        match kind {
            Kind::Message => self.delivered.inc(),
            Kind::Report => self.reports_delivered.inc(),
            Kind::Notice => return,
        };
        if from_disk {
            self.delivered_from_disk.inc();
        }
        self.delivery_seconds.observe(after.as_secs_f64());
    }

    pub(crate) fn answered(&self, answer: &Answer) {
        match answer {
            Answer::Delivered | Answer::Held | Answer::Discarded | Answer::Individually(_) => {}
            Answer::Stored => drop(self.stored.inc()),
            Answer::Failed(cause) => drop(self.failed.get_or_create(&CauseLabel { cause: cause.as_str() }).inc()),
        }
    }

    pub(crate) fn store_ended(&self, after: Duration) {
        self.store_seconds.observe(after.as_secs_f64());
    }

    pub(crate) fn buried(&self, cause: FailureCause) {
        self.buried.get_or_create(&CauseLabel { cause: cause.as_str() }).inc();
    }

    pub(crate) fn connection_ended(&self, reason: &'static str) {
        self.connections_ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn registration(&self, failure: Option<FailureCause>) {
        let cause = failure.map_or("NONE", FailureCause::as_str);
        self.registrations.get_or_create(&CauseLabel { cause }).inc();
    }

    pub(crate) fn repeated(&self) {
        self.repeated.inc();
    }

    pub(crate) fn forged(&self) {
        self.forged.inc();
    }

    pub(crate) fn report_lost(&self) {
        self.reports_lost.inc();
    }

    pub(crate) fn unreadable(&self, count: usize) {
        self.unreadable.inc_by(count as u64);
    }

    pub(crate) fn aggregate_received(&self) {
        self.aggregates_received.inc();
    }

    pub(crate) fn aggregate_sent(&self) {
        self.aggregates_sent.inc();
    }

    pub(crate) fn segment_held(&self) {
        self.segments_held.inc();
    }

    pub(crate) fn reassembled(&self) {
        self.reassembled.inc();
    }

    pub(crate) fn segments_asked_for(&self) {
        self.recoveries.inc();
    }

    pub(crate) fn reassembly_failed(&self, cause: FailureCause) {
        self.reassemblies_failed.get_or_create(&CauseLabel { cause: cause.as_str() }).inc();
    }

    pub(crate) fn stored_updated(&self, copies: usize) {
        self.stored_updated.inc_by(copies as u64);
    }

    pub(crate) fn stored_discarded(&self, copies: usize) {
        self.stored_discarded.inc_by(copies as u64);
    }

    pub(crate) fn application_server_failed(&self) {
        self.application_server_failures.inc();
    }
}
