//! What the function counts: `aanf_contexts`, `aanf_answers_total{operation,result}`,
//! `aanf_latency_seconds{operation}`.

use std::time::Instant;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sbi::OperationMetrics;

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    contexts: Gauge,
    operations: OperationMetrics,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("aanf");
        let contexts = Gauge::default();
        registry.register("contexts", "AKMA contexts held", contexts.clone());
        Self { contexts, operations: OperationMetrics::register(registry) }
    }

    pub(crate) fn contexts(&self, count: u64) {
        self.contexts.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn answered(&self, operation: &'static str, result: &'static str, since: Instant) {
        self.operations.answered(operation, result, since);
    }
}
