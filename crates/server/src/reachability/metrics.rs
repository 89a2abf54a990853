//! What operators see of waking UEs.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sbi::ServerMetrics;

use super::table::Service;

/// Upper bounds of the time that the NEF takes, in seconds.
const NEF_SECONDS: [f64; 8] = [0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Counters; clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct ReachabilityMetrics {
    pub(super) watched: Gauge,
    triggers: Family<OutcomeLabel, Counter>,
    subscriptions: Family<OutcomeLabel, Counter>,
    notifications: Family<OutcomeLabel, Counter>,
    nef_seconds: Histogram,
    /// Connections, requests and bodies where notifications come in.
    pub(super) server: ServerMetrics,
}

impl Default for ReachabilityMetrics {
    fn default() -> Self {
        Self {
            watched: Gauge::default(),
            triggers: Family::default(),
            subscriptions: Family::default(),
            notifications: Family::default(),
            nef_seconds: Histogram::new(NEF_SECONDS),
            server: ServerMetrics::default(),
        }
    }
}

impl ReachabilityMetrics {
    #[rustfmt::skip]
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("triggers_watched", "UEs that are to be woken, by a device trigger or its repetition", self.watched.clone());
        registry.register("triggers", "Requests for device triggers, by outcome", self.triggers.clone());
        registry.register("reachability_subscriptions", "Subscriptions to the reachability of a UE, by outcome", self.subscriptions.clone());
        registry.register("exposure_notifications", "Notifications of the NEF, by what was made of them", self.notifications.clone());
        registry.register("nef_seconds", "Requests to the NEF, those without an answer included", self.nef_seconds.clone());
        self.server.register_as(registry, "notifications");
    }

    pub(super) fn asked(&self, service: Service, outcome: &'static str) {
        let family = match service {
            Service::Triggering => &self.triggers,
            Service::Monitoring => &self.subscriptions,
        };
        family.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn notified(&self, outcome: &'static str) {
        self.notifications.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn nef_took(&self, time: Duration) {
        self.nef_seconds.observe(time.as_secs_f64());
    }

    /// How often requests of a service ended so.
    #[cfg(test)]
    pub(crate) fn count(&self, family: &str, outcome: &'static str) -> u64 {
        let family = match family {
            "triggers" => &self.triggers,
            "subscriptions" => &self.subscriptions,
            _ => &self.notifications,
        };
        family.get_or_create(&OutcomeLabel { outcome }).get()
    }
}
