//! What the function counts: `configuration_associations`, `configuration_answers_total{operation,result}`,
//! `configuration_latency_seconds{operation}`.

use std::time::Instant;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sbi::OperationMetrics;

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    associations: Gauge,
    operations: OperationMetrics,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("configuration");
        let associations = Gauge::default();
        registry.register("associations", "Associations held", associations.clone());
        Self { associations, operations: OperationMetrics::register(registry) }
    }

    pub(crate) fn associations(&self, count: u64) {
        self.associations.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn answered(&self, operation: &'static str, result: &'static str, since: Instant) {
        self.operations.answered(operation, result, since);
    }
}
