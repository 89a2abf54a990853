//! What the function counts: `configuration_associations`, `configuration_groups`, `configuration_connections`,
//! `configuration_observations`, `configuration_notifications_total`, `configuration_connections_ended_total{reason}`,
//! `configuration_answers_total{operation,result}`,
//! `configuration_latency_seconds{operation}`.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sbi::OperationMetrics;

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    associations: Gauge,
    groups: Gauge,
    connections: Gauge,
    observations: Gauge,
    notifications: Counter,
    connections_ended: Family<Reason, Counter>,
    operations: OperationMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("configuration");
        let metrics = Self {
            associations: Gauge::default(),
            groups: Gauge::default(),
            connections: Gauge::default(),
            observations: Gauge::default(),
            notifications: Counter::default(),
            connections_ended: Family::default(),
            operations: OperationMetrics::register(registry),
        };
        registry.register("associations", "Associations held", metrics.associations.clone());
        registry.register("groups", "Groups held", metrics.groups.clone());
        registry.register("connections", "CoAP connections of UEs, handshakes included", metrics.connections.clone());
        registry.register("observations", "Observations of UEs", metrics.observations.clone());
        registry.register("notifications", "Notifications to UEs that observe", metrics.notifications.clone());
        registry.register(
            "connections_ended",
            "CoAP connections of UEs that ended, by reason",
            metrics.connections_ended.clone(),
        );
        metrics
    }

    pub(crate) fn associations(&self, count: u64) {
        self.associations.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn groups(&self, count: u64) {
        self.groups.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn connection_begins(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_is_over(&self) {
        self.connections.dec();
    }

    pub(crate) fn connection_ended(&self, reason: &'static str) {
        self.connections_ended.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn observations(&self, more: i64) {
        self.observations.inc_by(more);
    }

    pub(crate) fn notified(&self) {
        self.notifications.inc();
    }

    pub(crate) fn answered(&self, operation: &'static str, result: &'static str, since: Instant) {
        self.operations.answered(operation, result, since);
    }
}
