//! Counts of the tables of one record per key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Accounting, State};
use crate::StoreError;
use crate::metrics::{StoreMetrics, gauge_value};
use crate::store::StoreLimits;

/// Which table of one record per key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    Registrations,
    ApplicationServers,
    Subscriptions,
    TopicListSubscriptions,
}

/// Whose accounts a record is on besides the table's, as keys: what it is about (a topic), and who made it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares {
    pub(crate) subject: Option<Box<[u8]>>,
    pub(crate) owner: Option<Box<[u8]>>,
}

#[derive(Default)]
pub(super) struct Counted {
    pub(super) count: u64,
    by_subject: HashMap<Box<[u8]>, u64>,
    by_owner: HashMap<Box<[u8]>, u64>,
    /// New records counted but not yet readable.
    arriving: HashSet<Box<[u8]>>,
}

/// A table's limits, each with its name.
struct Limits {
    all: (&'static str, u64),
    subject: (&'static str, u64),
    owner: (&'static str, u64),
}

impl Limits {
    fn of(records: Records, limits: &StoreLimits) -> Self {
        let none = ("", u64::MAX);
        match records {
            Records::Registrations => {
                Self { all: ("registrations_max", limits.registrations_max), subject: none, owner: none }
            }
            Records::ApplicationServers => {
                Self { all: ("application_servers_max", limits.application_servers_max), subject: none, owner: none }
            }
            Records::Subscriptions => Self {
                all: ("subscriptions_max", limits.subscriptions_max),
                subject: ("subscriptions_per_topic_max", limits.subscriptions_per_topic_max),
                owner: ("subscriptions_per_subscriber_max", limits.subscriptions_per_subscriber_max),
            },
            Records::TopicListSubscriptions => Self {
                all: ("topic_list_subscriptions_max", limits.topic_list_subscriptions_max),
                subject: none,
                owner: (
                    "topic_list_subscriptions_per_originator_max",
                    limits.topic_list_subscriptions_per_originator_max,
                ),
            },
        }
    }
}

impl Counted {
    fn check(&self, limits: &Limits, shares: &Shares) -> Result<(), StoreError> {
        let used = |by: &HashMap<Box<[u8]>, u64>, key: &Option<Box<[u8]>>| {
            key.as_ref().and_then(|key| by.get(key)).copied().unwrap_or(0)
        };
        let (limit, max) = limits.owner;
        if used(&self.by_owner, &shares.owner) >= max {
            return Err(StoreError::OriginatorFull { limit });
        }
        let (limit, max) = limits.subject;
        if used(&self.by_subject, &shares.subject) >= max {
            return Err(StoreError::Full { limit });
        }
        let (limit, max) = limits.all;
        if self.count >= max { Err(StoreError::Full { limit }) } else { Ok(()) }
    }

    fn enter(&mut self, shares: &Shares) {
        self.count += 1;
        for (by, key) in [(&mut self.by_subject, &shares.subject), (&mut self.by_owner, &shares.owner)] {
            if let Some(key) = key {
                *by.entry(key.clone()).or_default() += 1;
            }
        }
    }

    fn leave(&mut self, shares: &Shares) {
        self.count = self.count.saturating_sub(1);
        for (by, key) in [(&mut self.by_subject, &shares.subject), (&mut self.by_owner, &shares.owner)] {
            if let Some(key) = key
                && let Some(count) = by.get_mut(key)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    by.remove(key);
                }
            }
        }
    }
}

impl Accounting {
    /// Counts a new record in, or says that there are too many. Nothing to count when the same record is already
    /// arriving.
    pub(crate) fn arrive_record(
        self: &Arc<Self>,
        records: Records,
        key: &[u8],
        shares: Shares,
    ) -> Result<RecordChange, StoreError> {
        let mut state = self.state();
        let counted = state.counted_mut(records);
        if counted.arriving.contains(key) {
            return Ok(RecordChange::none());
        }
        counted.check(&Limits::of(records, &self.limits), &shares)?;
        counted.enter(&shares);
        counted.arriving.insert(key.into());
        state.publish_records(&self.metrics);
        Ok(RecordChange(Some(Change { accounting: self.clone(), records, key: key.into(), shares })))
    }

    /// Takes up a record found on disk at start-up.
    pub(crate) fn recover_record(&self, records: Records, shares: &Shares) {
        self.state().counted_mut(records).enter(shares);
    }

    /// Tells that a record is gone.
    pub(crate) fn forget_record(&self, records: Records, shares: &Shares) {
        let mut state = self.state();
        state.counted_mut(records).leave(shares);
        state.publish_records(&self.metrics);
    }
}

impl State {
    fn counted_mut(&mut self, records: Records) -> &mut Counted {
        let [registrations, application_servers, subscriptions, topic_list_subscriptions] = &mut self.counted;
        match records {
            Records::Registrations => registrations,
            Records::ApplicationServers => application_servers,
            Records::Subscriptions => subscriptions,
            Records::TopicListSubscriptions => topic_list_subscriptions,
        }
    }

    pub(super) fn publish_records(&self, metrics: &StoreMetrics) {
        let [registrations, application_servers, subscriptions, topic_list_subscriptions] = &self.counted;
        metrics.registrations.set(gauge_value(registrations.count));
        metrics.application_servers.set(gauge_value(application_servers.count));
        metrics.subscriptions.set(gauge_value(subscriptions.count));
        metrics.topic_list_subscriptions.set(gauge_value(topic_list_subscriptions.count));
    }
}

/// A record counted in. Dropped before [`RecordChange::stored`], it is counted out again.
pub(crate) struct RecordChange(Option<Change>);

struct Change {
    accounting: Arc<Accounting>,
    records: Records,
    key: Box<[u8]>,
    shares: Shares,
}

impl RecordChange {
    /// Nothing to count.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The record is on disk and readable.
    pub(crate) fn stored(mut self) {
        if let Some(Change { accounting, records, key, .. }) = self.0.take() {
            accounting.state().counted_mut(records).arriving.remove(&key);
        }
    }
}

impl Drop for RecordChange {
    fn drop(&mut self) {
        if let Some(Change { accounting, records, key, shares }) = self.0.take() {
            accounting.state().counted_mut(records).arriving.remove(&key);
            accounting.forget_record(records, &shares);
        }
    }
}
