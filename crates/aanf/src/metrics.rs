//! What the function counts.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    operation: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// `aanf_contexts`, `aanf_answers_total{operation,result}`, `aanf_latency_seconds{operation}`.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    contexts: Gauge,
    answers: Family<Answer, Counter>,
    latency: Family<Operation, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            contexts: Gauge::default(),
            answers: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 16))),
        };
        let registry = registry.sub_registry_with_prefix("aanf");
        registry.register("contexts", "AKMA contexts held", metrics.contexts.clone());
        registry.register("answers", "Answers, by operation and result", metrics.answers.clone());
        registry.register("latency_seconds", "Time from request to answer", metrics.latency.clone());
        metrics
    }

    pub(crate) fn contexts(&self, count: u64) {
        self.contexts.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn answered(&self, operation: &'static str, result: &'static str, since: Instant) {
        self.answers.get_or_create(&Answer { operation, result }).inc();
        self.latency.get_or_create(&Operation { operation }).observe(since.elapsed().as_secs_f64());
    }
}
