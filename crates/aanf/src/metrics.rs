//! What the function counts: `aanf_contexts`, `aanf_notification_uris`, `aanf_notifications_pending`,
//! `aanf_notifications_total{result}`, `aanf_answers_total{operation,result}`, `aanf_latency_seconds{operation}`.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sbi::OperationMetrics;

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    contexts: Gauge,
    notification_uris: Gauge,
    notifications_pending: Gauge,
    notifications: Family<Vec<(&'static str, &'static str)>, Counter>,
    operations: OperationMetrics,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("aanf");
        let contexts = Gauge::default();
        registry.register("contexts", "AKMA contexts held", contexts.clone());
        let notification_uris = Gauge::default();
        registry.register("notification_uris", "URIs for notifications kept", notification_uris.clone());
        let notifications_pending = Gauge::default();
        registry.register("notifications_pending", "Notifications that wait", notifications_pending.clone());
        let notifications = Family::default();
        registry.register("notifications", "Attempts to notify AFs, by result", notifications.clone());
        Self {
            contexts,
            notification_uris,
            notifications_pending,
            notifications,
            operations: OperationMetrics::register(registry),
        }
    }

    pub(crate) fn notification_uris(&self, count: u64) {
        self.notification_uris.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn notifications_pending(&self, count: u64) {
        self.notifications_pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts an attempt to notify an AF.
    pub(crate) fn notified(&self, result: &'static str) {
        self.notifications.get_or_create(&vec![("result", result)]).inc();
    }

    pub(crate) fn contexts(&self, count: u64) {
        self.contexts.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn answered(&self, operation: &'static str, result: &'static str, since: Instant) {
        self.operations.answered(operation, result, since);
    }
}
