//! What operators see of devices over HTTPS.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sbi::ServerMetrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Clones count into the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpsMetrics {
    pub(super) devices: Gauge,
    authentications: Family<Outcome, Counter>,
    acknowledged: Counter,
    /// Connections, requests and bodies.
    pub(super) server: ServerMetrics,
}

impl HttpsMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("https_devices", "Devices over HTTPS that are remembered", self.devices.clone());
        registry.register(
            "https_authentications",
            "Requests over HTTPS, by what came of their authentication",
            self.authentications.clone(),
        );
        registry.register("https_acknowledged", "Deliveries acknowledged over HTTPS", self.acknowledged.clone());
        self.server.register_as(registry, "https");
    }

    pub(super) fn authenticated(&self, outcome: &'static str) {
        self.authentications.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn acknowledged(&self) {
        self.acknowledged.inc();
    }
}
