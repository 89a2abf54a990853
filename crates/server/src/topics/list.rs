//! Who is told which topics there are (TS 23.554 clause 8.8.4.2, TS 29.538 MSGS_TopiclistEvent).
//!
//! A subscriber first hears of the topics there are, then of each that comes and goes, as far as it may subscribe to them
//! itself. What waits for it is one update for each topic, the latest; a subscriber that does not answer is tried again
//! with growing pauses, and after `topic_notification_attempts_max` of them in a row what it was told then is given up. After a
//! restart it hears again of the topics there are (INFERRED: TS 29.538 leaves the first notification, repetition and loss
//! open). A redirection (307, 308) leads no further than below the URI that was checked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use message::ts29538::{MessagingTopic as TopicUpdate, TopicListNotification, UpdateStatus};
use message::{Address, FailureCause, MessagingTopic, TOPICS_PER_NOTIFICATION_MAX};
use sbi::SbiClient;
use store::{StoreError, TopicListSubscriptionRecord};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::sleep;
use uuid::Uuid;

use crate::core::Core;
use crate::inbox;
use crate::log_budget::Topic;
use crate::policy::{Policy, TopicPolicy, word};
use crate::sync::lock;

/// Subscriptions to the list of topics. Bounded by the store, which holds every one that is here.
pub(crate) struct Lists {
    client: Option<SbiClient>,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
}

struct Entry {
    record: TopicListSubscriptionRecord,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    updates: BTreeMap<MessagingTopic, UpdateStatus>,
    ended: bool,
}

/// Why a subscription to the list was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListRefusal {
    /// There is none of that name.
    Unknown,
    /// It is somebody else's.
    NotYours,
    Failed(FailureCause),
}

impl Lists {
    pub(super) fn new(client: Option<SbiClient>) -> Self {
        Self { client: client.map(|client| client.for_callbacks()), entries: Mutex::default() }
    }

    pub(super) fn created(&self, core: &Core, policy: &TopicPolicy, topic: &MessagingTopic) {
        self.announce(core, policy, topic, &UpdateStatus::Created);
    }

    pub(super) fn deleted(&self, core: &Core, policy: &TopicPolicy, topic: &MessagingTopic) {
        self.announce(core, policy, topic, &UpdateStatus::Deleted);
    }

    fn announce(&self, core: &Core, policy: &TopicPolicy, topic: &MessagingTopic, status: &UpdateStatus) {
        for entry in lock(&self.entries).values() {
            if policy.may_subscribe(topic, &entry.record.originator) {
                entry.queue(core, topic, status.clone());
            }
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.entries).len()
    }

    fn end(&self, id: &str) {
        if let Some(entry) = lock(&self.entries).remove(id) {
            lock(&entry.waiting).ended = true;
            entry.wake.notify_one();
        }
    }
}

impl Entry {
    fn queue(&self, core: &Core, topic: &MessagingTopic, status: UpdateStatus) {
        let mut waiting = lock(&self.waiting);
        let full = waiting.updates.len() >= core.limits.topic_notifications_queue_max;
        if full && !waiting.updates.contains_key(topic) {
            drop(waiting);
            return self.lose(core, 1, "too many wait");
        }
        waiting.updates.insert(topic.clone(), status);
        drop(waiting);
        self.wake.notify_one();
    }

    fn lose(&self, core: &Core, count: usize, reason: &'static str) {
        core.fan_out.metrics.updates_lost(count);
        tracing::warn!(subscriber = %self.record.originator, count, reason, "topic updates lost");
    }

    /// The next updates to send, and whether the subscription lasts.
    fn take(&self) -> (Vec<TopicUpdate>, bool) {
        let mut waiting = lock(&self.waiting);
        let mut updates = Vec::new();
        while updates.len() < TOPICS_PER_NOTIFICATION_MAX
            && let Some((msg_topic, update_stat)) = waiting.updates.pop_first()
        {
            updates.push(TopicUpdate { msg_topic, update_stat });
        }
        (updates, !waiting.ended)
    }

    /// What was not taken is tried again, unless something newer is known of it.
    fn put_back(&self, updates: Vec<TopicUpdate>) {
        let mut waiting = lock(&self.waiting);
        for update in updates {
            waiting.updates.entry(update.msg_topic).or_insert(update.update_stat);
        }
    }

    fn is_ended(&self) -> bool {
        lock(&self.waiting).ended
    }
}

/// Subscribes `originator`, who may be told at `notification_uri`; the subscription's name, and until when. Runs to its end
/// even if whoever asked has left.
pub(crate) async fn subscribe(
    core: &Arc<Core>,
    originator: Address,
    notification_uri: String,
    certificate_identity: Option<String>,
    wanted_until: Option<OffsetDateTime>,
) -> Result<(String, OffsetDateTime), FailureCause> {
    if !core.topics.are_served() {
        return Err(FailureCause::TargetTypeNotSupported);
    }
    let now = OffsetDateTime::now_utc();
    // A time that is over is out of its range.
    if wanted_until.is_some_and(|at| at <= now) {
        return Err(FailureCause::Malformed);
    }
    let wanted = wanted_until.unwrap_or_else(|| now.saturating_add(core.limits.topic_subscription_default()));
    let expires_at = wanted.min(now.saturating_add(core.limits.topic_subscription_max()));
    let record = TopicListSubscriptionRecord {
        id: Uuid::new_v4().to_string(),
        originator,
        notification_uri,
        certificate_identity,
        expires_at: Some(expires_at),
    };
    let id = record.id.clone();
    let task_core = Arc::clone(core);
    let work = async move {
        if let Err(error) = task_core.store.put_topic_list_subscription(record.clone()).await {
            if task_core.log_budget.admits(Topic::NotStored) {
                tracing::warn!(originator = %record.originator, %error, "subscription to the list of topics not stored");
            }
            return Err(inbox::cause_of(&error));
        }
        tracing::info!(originator = %record.originator, id = record.id, "subscribed to the list of topics");
        start(&task_core, record);
        Ok(())
    };
    core.tasks.spawn(work).await.unwrap_or(Err(FailureCause::Stopping))?;
    Ok((id, expires_at))
}

/// Ends the subscription of that name, if `may_end` says of its originator that whoever asks is it. Runs to its end even if
/// whoever asked has left.
pub(crate) async fn unsubscribe(
    core: &Arc<Core>,
    id: &str,
    may_end: impl FnOnce(&Address) -> bool,
) -> Result<(), ListRefusal> {
    let originator = lock(&core.topics.lists.entries).get(id).map(|entry| entry.record.originator.clone());
    let originator = originator.ok_or(ListRefusal::Unknown)?;
    if !may_end(&originator) {
        return Err(ListRefusal::NotYours);
    }
    let (task_core, id) = (Arc::clone(core), id.to_owned());
    let work = async move { end(&task_core, &id, &originator).await };
    core.tasks.spawn(work).await.unwrap_or(Err(FailureCause::Stopping)).map_err(ListRefusal::Failed)
}

/// Off the disk, then out of memory.
async fn end(core: &Arc<Core>, id: &str, originator: &Address) -> Result<(), FailureCause> {
    // The store counts out each that it is told to remove, and takes one at a time of the same.
    let _turn = core.registering(originator).await;
    core.store.remove_topic_list_subscription(id).await.map_err(|error| {
        tracing::error!(%originator, %error, "subscription to the list of topics not removed");
        inbox::cause_of(&error)
    })?;
    core.topics.lists.end(id);
    Ok(())
}

/// Takes up what is on disk; what `is_allowed` does not say is allowed any more is none.
pub(crate) async fn load(
    core: &Arc<Core>,
    is_allowed: impl Fn(&TopicListSubscriptionRecord) -> bool,
) -> Result<(), StoreError> {
    for record in core.store.topic_list_subscriptions().await? {
        if is_allowed(&record) {
            start(core, record);
        } else {
            tracing::warn!(originator = %record.originator, "subscription to the list of topics no longer allowed, removed");
            core.store.remove_topic_list_subscription(&record.id).await?;
        }
    }
    Ok(())
}

/// Ends what `is_allowed` does not say is allowed any more; the others hear which of the topics there are came into or went out of
/// what they may hear of.
pub(super) async fn reconcile(
    core: &Arc<Core>,
    earlier: &Policy,
    is_allowed: impl Fn(&TopicListSubscriptionRecord) -> bool,
) {
    let entries: Vec<_> = lock(&core.topics.lists.entries).values().cloned().collect();
    let rules = core.topics.rules();
    for entry in entries {
        let originator = &entry.record.originator;
        if !is_allowed(&entry.record) {
            tracing::warn!(%originator, "subscription to the list of topics no longer allowed, removed");
            core.audit.refused_for(&originator.to_string(), "topiclist-subscribe", "", word::WITHDRAWN);
            // What is not removed from disk now is not allowed at the next start either.
            if end(core, &entry.record.id, originator).await.is_err() {
                core.topics.lists.end(&entry.record.id);
            }
            continue;
        }
        let table = lock(&core.topics.table);
        for topic in table.topics() {
            match (earlier.topics.may_subscribe(topic, originator), rules.topics.may_subscribe(topic, originator)) {
                (false, true) => entry.queue(core, topic, UpdateStatus::Created),
                (true, false) => entry.queue(core, topic, UpdateStatus::Deleted),
                _ => {}
            }
        }
    }
}

pub(super) async fn sweep(core: &Arc<Core>, now: OffsetDateTime) {
    let is_over = |entry: &&Arc<Entry>| entry.record.expires_at.is_some_and(|at| at <= now);
    let over: Vec<_> = lock(&core.topics.lists.entries).values().filter(is_over).cloned().collect();
    for entry in over {
        // What is not removed now is over still at the next sweep.
        let _ = end(core, &entry.record.id, &entry.record.originator).await;
    }
}

/// From now on it is told, of what there is first.
fn start(core: &Arc<Core>, record: TopicListSubscriptionRecord) {
    let entry = Arc::new(Entry { record, waiting: Mutex::default(), wake: Notify::new() });
    lock(&core.topics.lists.entries).insert(entry.record.id.clone(), Arc::clone(&entry));
    {
        // Under the lock, so that what goes meanwhile is told after.
        let table = lock(&core.topics.table);
        let rules = core.topics.rules();
        for topic in table.topics().filter(|topic| rules.topics.may_subscribe(topic, &entry.record.originator)) {
            entry.queue(core, topic, UpdateStatus::Created);
        }
    }
    if let Some(client) = core.topics.lists.client.clone() {
        let core = Arc::clone(core);
        core.tasks.clone().spawn(async move {
            tokio::select! {
                () = notify(&core, &entry, &client) => {}
                () = core.stopped.cancelled() => {}
            }
        });
    }
}

/// Until the subscription ends.
async fn notify(core: &Core, entry: &Entry, client: &SbiClient) {
    let mut failures = 0_u32;
    loop {
        let (updates, lasts) = entry.take();
        if !lasts {
            return;
        }
        let pause = if updates.is_empty() {
            entry.wake.notified().await;
            continue;
        } else {
            let notification = TopicListNotification { msg_topics: updates, expr_time: entry.record.expires_at };
            match client.post_any(&entry.record.notification_uri, &notification).await {
                Ok(_) => {
                    failures = 0;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(subscriber = %entry.record.originator, %error, "topic notification failed");
                    core.fan_out.metrics.notification_failed();
                }
            }
            failures += 1;
            if failures >= core.limits.topic_notification_attempts_max {
                failures = 0;
                entry.lose(core, notification.msg_topics.len(), "too many attempts failed");
                continue;
            }
            entry.put_back(notification.msg_topics);
            pause_after(failures, core)
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = ended(entry) => return,
        }
    }
}

/// Doubled each time.
fn pause_after(failures: u32, core: &Core) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    Duration::from_millis(core.limits.backoff_first_milliseconds)
        .saturating_mul(factor)
        .min(Duration::from_secs(core.limits.backoff_max_seconds))
}

/// Further updates wake, too; they wait for the pause to end.
async fn ended(entry: &Entry) {
    while !entry.is_ended() {
        entry.wake.notified().await;
    }
}
