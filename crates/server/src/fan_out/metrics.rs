//! What operators see of messages to many, of groups and of topics.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::delivery::Answer;

/// Upper bounds of the time that group management takes, in seconds.
const LOOKUP_SECONDS: [f64; 8] = [0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FateLabel {
    fate: &'static str,
}

/// Counters of one server.
#[derive(Debug)]
pub(crate) struct FanOutMetrics {
    pub(crate) jobs: Gauge,
    pub(crate) topics: Gauge,
    pub(crate) subscriptions: Gauge,
    pub(crate) list_subscriptions: Gauge,
    copies: Family<FateLabel, Counter>,
    resumed: Counter,
    group_seconds: Histogram,
    notifications_failed: Counter,
    updates_lost: Counter,
}

impl Default for FanOutMetrics {
    fn default() -> Self {
        Self {
            jobs: Gauge::default(),
            topics: Gauge::default(),
            subscriptions: Gauge::default(),
            list_subscriptions: Gauge::default(),
            copies: Family::default(),
            resumed: Counter::default(),
            group_seconds: Histogram::new(LOOKUP_SECONDS),
            notifications_failed: Counter::default(),
            updates_lost: Counter::default(),
        }
    }
}

impl FanOutMetrics {
    #[rustfmt::skip]
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("fan_out_jobs", "Messages to groups and topics that are not done", self.jobs.clone());
        registry.register("fan_out_copies", "Copies of such messages, by fate: DELIVERED, STORED, or why not", self.copies.clone());
        registry.register("fan_out_resumed", "Messages to groups and topics taken up again after a restart", self.resumed.clone());
        registry.register("group_seconds", "Look-ups of groups, those without an answer included", self.group_seconds.clone());
        registry.register("topics", "Messaging Topics that somebody is subscribed to", self.topics.clone());
        registry.register("topic_subscriptions", "Subscriptions to Messaging Topics", self.subscriptions.clone());
        registry.register("topic_list_subscriptions", "Subscriptions to the list of topics", self.list_subscriptions.clone());
        registry.register("topic_notifications_failed", "Topic notifications that were not taken", self.notifications_failed.clone());
        registry.register("topic_updates_lost", "Topics whose coming or going a subscriber was not told", self.updates_lost.clone());
    }

    pub(super) fn copy(&self, answer: &Answer) {
        let fate = match answer {
            Answer::Delivered => "DELIVERED",
            Answer::Failed(cause) => cause.as_str(),
            _ => "STORED",
        };
        self.copies.get_or_create(&FateLabel { fate }).inc();
    }

    pub(super) fn resumed(&self) {
        self.resumed.inc();
    }

    pub(crate) fn group_asked(&self, took: Duration) {
        self.group_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn notification_failed(&self) {
        self.notifications_failed.inc();
    }

    pub(crate) fn updates_lost(&self, count: usize) {
        self.updates_lost.inc_by(count as u64);
    }
}
