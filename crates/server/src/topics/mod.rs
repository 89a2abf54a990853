//! Messaging Topics (TS 23.554 clause 8.8): who is subscribed to what, durable, until it expires.
//!
//! A topic is there as long as somebody is subscribed to it (clause 8.8.1: an unknown topic is created by the first
//! subscription); who may subscribe and publish is the operator's `[[topic]]` rules. A subscriber is registered here: its
//! subscriptions end with its registration. A subscription is in memory only after it is on disk, and off the disk before
//! it is out of memory.

pub(crate) mod list;
mod table;

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use message::{Address, AsServiceId, FailureCause, MessagingTopic};
use sbi::SbiClient;
use sbi::callback::is_well_formed_below;
use store::{StoreError, SubscriptionRecord, TopicListSubscriptionRecord};
use time::OffsetDateTime;

use crate::core::Core;
use crate::inbox;
use crate::log_budget::Topic;
use crate::policy::{Policy, ServerRules, word};
use crate::sync::lock;
pub(crate) use list::ListRefusal;
use list::Lists;
use table::Table;

/// Expired subscriptions removed in one go.
const SWEEP_BATCH: usize = 1024;

/// Topics and their subscribers.
pub(crate) struct Topics {
    rules: ServerRules,
    table: Mutex<Table>,
    pub(crate) lists: Lists,
}

impl Topics {
    /// Without a client nobody is notified of topics.
    pub(crate) fn new(rules: ServerRules, client: Option<SbiClient>) -> Self {
        Self { rules, table: Mutex::default(), lists: Lists::new(client) }
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> Arc<Policy> {
        self.rules.current()
    }

    pub(crate) fn are_served(&self) -> bool {
        !self.rules().topics.is_empty()
    }

    pub(crate) fn may_publish(&self, topic: &MessagingTopic, originator: &Address) -> bool {
        self.rules().topics.may_publish(topic, originator)
    }

    /// Everybody whose subscription lasts.
    pub(crate) fn subscribers(&self, topic: &MessagingTopic) -> Vec<Address> {
        lock(&self.table).subscribers(topic, OffsetDateTime::now_utc())
    }

    /// How many topics and subscriptions there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        lock(&self.table).counts()
    }

    fn insert(&self, core: &Arc<Core>, record: &SubscriptionRecord) {
        // Under the lock, so that what comes and goes is told in that order.
        let mut table = lock(&self.table);
        if table.insert(record) {
            self.lists.created(core, &self.rules().topics, &record.topic);
        }
    }

    fn remove(&self, core: &Arc<Core>, topic: &MessagingTopic, subscriber: &Address) {
        let mut table = lock(&self.table);
        if table.remove(topic, subscriber) {
            self.lists.deleted(core, &self.rules().topics, topic);
        }
    }
}

/// Subscribes `subscriber`, who is registered, to all of these topics or to none; says until when. `on_behalf_of` names
/// who asked if that is somebody else. Runs to its end even if whoever asked has left.
pub(crate) async fn subscribe(
    core: &Arc<Core>,
    subscriber: Address,
    topics: Vec<MessagingTopic>,
    wanted_until: Option<OffsetDateTime>,
    on_behalf_of: Option<String>,
) -> Result<OffsetDateTime, FailureCause> {
    let task_core = Arc::clone(core);
    let work = async move { subscribe_to_all(&task_core, &subscriber, topics, wanted_until, on_behalf_of).await };
    core.tasks.spawn(work).await.unwrap_or(Err(FailureCause::Stopping))
}

async fn subscribe_to_all(
    core: &Arc<Core>,
    subscriber: &Address,
    mut topics: Vec<MessagingTopic>,
    wanted_until: Option<OffsetDateTime>,
    on_behalf_of: Option<String>,
) -> Result<OffsetDateTime, FailureCause> {
    if !core.topics.are_served() {
        return Err(FailureCause::TargetTypeNotSupported);
    }
    let now = OffsetDateTime::now_utc();
    // A time that is over is out of its range.
    if wanted_until.is_some_and(|at| at <= now) {
        return Err(FailureCause::Malformed);
    }
    let rules = core.topics.rules();
    if !topics.iter().all(|topic| rules.topics.may_subscribe(topic, subscriber)) {
        return Err(FailureCause::TopicNotAllowed);
    }
    topics.sort_unstable();
    topics.dedup();
    let latest = now.saturating_add(core.limits.topic_subscription_max());
    let wanted = wanted_until.unwrap_or_else(|| now.saturating_add(core.limits.topic_subscription_default()));
    let expires_at = wanted.min(latest);

    // Nobody de-registers, and no subscription of this one ends, meanwhile.
    let _turn = core.registering(subscriber).await;
    if core.registry.find(subscriber).is_none() {
        return Err(FailureCause::NotRegistered);
    }
    let earlier: Vec<_> = topics.iter().map(|topic| lock(&core.topics.table).find(topic, subscriber)).collect();
    let records = topics.into_iter().map(|topic| SubscriptionRecord {
        topic,
        subscriber: subscriber.clone(),
        expires_at: Some(expires_at),
        on_behalf_of: on_behalf_of.clone(),
    });
    let records: Vec<_> = records.collect();
    let results = join_all(records.iter().map(|record| core.store.put_subscription(record.clone()))).await;
    let failure = results.iter().find_map(|result| result.as_ref().err());
    if let Some(error) = failure {
        if core.log_budget.admits(Topic::NotStored) {
            tracing::warn!(%subscriber, %error, "subscription not stored");
        }
        let cause = cause_of(error);
        let stored = results.iter().zip(&records).zip(earlier).filter(|((result, _), _)| result.is_ok());
        for ((_, record), earlier) in stored {
            take_back(core, record, earlier).await;
        }
        return Err(cause);
    }
    for record in &records {
        core.topics.insert(core, record);
    }
    // The rules may have changed meanwhile, and nobody knew of these yet.
    let rules = core.topics.rules();
    if !records.iter().all(|record| rules.allow(record)) {
        let topics: Vec<_> = records.into_iter().map(|record| record.topic).collect();
        end(core, subscriber, &topics).await.map_err(|error| cause_of(&error))?;
        return Err(FailureCause::TopicNotAllowed);
    }
    tracing::debug!(%subscriber, topics = records.len(), %expires_at, "subscribed");
    Ok(expires_at)
}

/// All or none: what was stored before another was refused is as it was.
async fn take_back(core: &Arc<Core>, record: &SubscriptionRecord, earlier: Option<SubscriptionRecord>) {
    let taken_back = match earlier {
        Some(earlier) => core.store.put_subscription(earlier).await,
        None => core.store.remove_subscription(&record.topic, &record.subscriber).await.map(drop),
    };
    if let Err(error) = taken_back {
        tracing::error!(subscriber = %record.subscriber, %error, "refused subscription not taken back, it counts after a restart");
    }
}

/// Ends subscriptions; those that are none are ended already. Runs to its end even if whoever asked has left.
pub(crate) async fn unsubscribe(
    core: &Arc<Core>,
    subscriber: Address,
    mut topics: Vec<MessagingTopic>,
) -> Result<(), FailureCause> {
    // The store counts out each that it is told to remove, and takes one at a time of the same.
    topics.sort_unstable();
    topics.dedup();
    let task_core = Arc::clone(core);
    let work = async move {
        if !task_core.topics.are_served() {
            return Err(FailureCause::TargetTypeNotSupported);
        }
        let _turn = task_core.registering(&subscriber).await;
        end(&task_core, &subscriber, &topics).await.map_err(|error| cause_of(&error))
    };
    core.tasks.spawn(work).await.unwrap_or(Err(FailureCause::Stopping))
}

/// The subscriber's turn is held.
async fn end(core: &Arc<Core>, subscriber: &Address, topics: &[MessagingTopic]) -> Result<(), StoreError> {
    let removals = topics.iter().map(|topic| core.store.remove_subscription(topic, subscriber));
    let results = join_all(removals).await;
    let mut failure = None;
    for (topic, result) in topics.iter().zip(results) {
        match result {
            Ok(_) => core.topics.remove(core, topic, subscriber),
            Err(error) => {
                tracing::error!(%subscriber, %error, "subscription not removed");
                failure = Some(error);
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Ends all subscriptions of one who de-registered and whose turn is held. What cannot be removed from disk now is removed
/// at the next start, because its subscriber is not registered.
pub(crate) async fn forget(core: &Arc<Core>, subscriber: &Address) {
    let topics = lock(&core.topics.table).topics_of(subscriber);
    if end(core, subscriber, &topics).await.is_err() {
        for topic in &topics {
            core.topics.remove(core, topic, subscriber);
        }
    }
}

/// Ends what is past its time.
pub(crate) async fn sweep(core: &Arc<Core>) {
    let now = OffsetDateTime::now_utc();
    let expired = lock(&core.topics.table).expired(now, SWEEP_BATCH);
    for (topic, subscriber) in expired {
        let _turn = core.registering(&subscriber).await;
        // It may have been renewed.
        let still = lock(&core.topics.table).find(&topic, &subscriber);
        if still.is_some_and(|record| record.expires_at.is_some_and(|at| at <= now)) {
            let _ = end(core, &subscriber, std::slice::from_ref(&topic)).await;
        }
    }
    list::sweep(core, now).await;
}

/// Takes up what is on disk. A subscription that is not allowed any more, that nobody here may have asked for, or whose
/// subscriber is not registered, is none. Registrations are loaded before. `may_name` tells whether an AS is configured and
/// may be notified there.
pub(crate) async fn load(core: &Arc<Core>, may_name: impl Fn(&AsServiceId, &str) -> bool) -> Result<(), StoreError> {
    let rules = core.topics.rules();
    for record in core.store.subscriptions().await? {
        if rules.allow(&record) && core.registry.find(&record.subscriber).is_some() {
            lock(&core.topics.table).insert(&record);
        } else {
            tracing::warn!(subscriber = %record.subscriber, topic = %record.topic, "subscription no longer allowed, removed");
            core.store.remove_subscription(&record.topic, &record.subscriber).await?;
        }
    }
    list::load(core, |record| rules.allow_list(record, &may_name)).await
}

/// Ends what the rules allow no longer, and tells those who hear of topics which they hear of from now on, as [`load`] would.
pub(crate) async fn reconcile(
    core: &Arc<Core>,
    earlier: &Policy,
    may_name: impl Fn(&AsServiceId, &str) -> bool,
) -> Result<(), StoreError> {
    let (rules, mut result) = (core.topics.rules(), Ok(()));
    let subscriptions = core.store.subscriptions().await.unwrap_or_else(|error| {
        result = Err(error);
        Vec::new()
    });
    for record in subscriptions {
        if rules.allow(&record) {
            continue;
        }
        let _turn = core.registering(&record.subscriber).await;
        let (subscriber, topic) = (record.subscriber.to_string(), record.topic.as_str());
        tracing::warn!(subscriber, topic, "subscription no longer allowed, removed");
        core.audit.refused_for(&subscriber, "topic-subscribe", topic, word::WITHDRAWN);
        if let Err(error) = end(core, &record.subscriber, std::slice::from_ref(&record.topic)).await {
            // Nothing goes there any more, whatever the disk says.
            core.topics.remove(core, &record.topic, &record.subscriber);
            result = Err(error);
        }
    }
    list::reconcile(core, earlier, |record| rules.allow_list(record, &may_name)).await;
    result
}

impl Policy {
    fn allow(&self, record: &SubscriptionRecord) -> bool {
        let may_act = |name: &String| {
            let mut servers = self.topic_servers.iter();
            servers.any(|server| server.server_id.as_str() == name && server.acts_for(&record.subscriber))
        };
        self.topics.may_subscribe(&record.topic, &record.subscriber) && record.on_behalf_of.as_ref().is_none_or(may_act)
    }

    fn allow_list(&self, record: &TopicListSubscriptionRecord, may_name: impl Fn(&AsServiceId, &str) -> bool) -> bool {
        match record.originator.as_application_server() {
            Some(id) => may_name(&id, &record.notification_uri),
            None => self.topic_servers.iter().any(|server| {
                server.address() == record.originator
                    && is_well_formed_below(&record.notification_uri, &server.notification_uris)
            }),
        }
    }
}

fn cause_of(error: &StoreError) -> FailureCause {
    inbox::cause_of(error)
}
