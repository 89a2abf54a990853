//! What a server counts, and what functions count of their operations.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of one [`crate::SbiServer`]. A clone counts into the same.
#[derive(Debug, Clone, Default)]
pub struct ServerMetrics {
    connections: Gauge,
    refused: Family<Vec<(&'static str, &'static str)>, Counter>,
    requests: Family<Vec<(&'static str, u16)>, Counter>,
    bodies_refused: Family<Vec<(&'static str, &'static str)>, Counter>,
    abused: Family<Vec<(&'static str, &'static str)>, Counter>,
    withdrawn: Counter,
    reloads: Family<Vec<(&'static str, &'static str)>, Counter>,
}

impl ServerMetrics {
    /// Adds the counters to `registry`: `sbi_connections`, `sbi_connections_refused_total{reason}`,
    /// `sbi_connections_abused_total{reason}`, `sbi_connections_withdrawn_total`, `sbi_requests_total{status}`,
    /// `sbi_bodies_refused_total{limit}`, `sbi_certificate_reloads_total{outcome}`.
    pub fn register(&self, registry: &mut Registry) {
        self.register_as(registry, "sbi");
    }

    /// The same under another prefix, for a server that is one of several.
    pub fn register_as(&self, registry: &mut Registry, prefix: &str) {
        let registry = registry.sub_registry_with_prefix(prefix);
        registry.register("connections", "Authenticated connections open", self.connections.clone());
        registry.register("connections_refused", "Connections closed before the first request", self.refused.clone());
        registry.register("connections_abused", "Connections closed for HTTP/2 overdone", self.abused.clone());
        registry.register(
            "connections_withdrawn",
            "Connections closed because the peer's certificate lost its right",
            self.withdrawn.clone(),
        );
        registry.register("requests", "Requests answered, by HTTP status", self.requests.clone());
        registry.register(
            "bodies_refused",
            "Requests refused for their body's time or number, by limit",
            self.bodies_refused.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Changed certificate files taken, or not usable",
            self.reloads.clone(),
        );
    }

    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&vec![("reason", reason)]).inc();
    }

    pub(crate) fn connection_abused(&self, reason: &'static str) {
        self.abused.get_or_create(&vec![("reason", reason)]).inc();
    }

    pub(crate) fn connection_withdrawn(&self) {
        self.withdrawn.inc();
    }

    pub(crate) fn files_reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&vec![("outcome", outcome)]).inc();
    }

    pub(crate) fn request_answered(&self, status: StatusCode) {
        self.requests.get_or_create(&vec![("status", status.as_u16())]).inc();
    }

    pub(crate) fn body_refused(&self, limit: &'static str) {
        self.bodies_refused.get_or_create(&vec![("limit", limit)]).inc();
    }

    /// Counts a connection until the answer is dropped.
    pub(crate) fn connection_opened(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }
}

pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What the clients of this process count. Each is one of many, made where it is needed: what they count is the process's,
/// and the admin server shows it besides what its function registered.
#[derive(Debug, Default)]
struct ClientMetrics {
    reloads: Family<Vec<(&'static str, String)>, Counter>,
}

static CLIENTS: LazyLock<ClientMetrics> = LazyLock::new(ClientMetrics::default);

/// Counts that a client's certificate files, known by the certificate's, were taken anew or could not be used.
pub(crate) fn client_files_reloaded(certificate: &Path, outcome: &str) {
    let labels = vec![("certificate", certificate.display().to_string()), ("outcome", outcome.to_owned())];
    CLIENTS.reloads.get_or_create(&labels).inc();
}

/// Adds `sbi_client_certificate_reloads_total{certificate,outcome}` to `registry`.
pub(crate) fn register_clients(registry: &mut Registry) {
    registry.sub_registry_with_prefix("sbi_client").register(
        "certificate_reloads",
        "Changed certificate files of clients taken, or not usable",
        CLIENTS.reloads.clone(),
    );
}

/// What a function answered and how long it took, by operation. A clone counts into the same.
#[derive(Debug, Clone)]
pub struct OperationMetrics {
    answers: Family<Answer, Counter>,
    latency: Family<Operation, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    operation: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

impl OperationMetrics {
    /// Adds `answers_total{operation,result}` and `latency_seconds{operation}` to `registry`, under its prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            answers: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 16))),
        };
        registry.register("answers", "Answers, by operation and result", metrics.answers.clone());
        registry.register("latency_seconds", "Time from request to answer", metrics.latency.clone());
        metrics
    }

    /// Counts an answer to a request that came at `since`.
    pub fn answered(&self, operation: &'static str, result: &'static str, since: Instant) {
        self.answers.get_or_create(&Answer { operation, result }).inc();
        self.latency.get_or_create(&Operation { operation }).observe(since.elapsed().as_secs_f64());
    }
}
