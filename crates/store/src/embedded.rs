//! The embedded engine behind the trait [`Store`].

mod jobs;
mod messages;
mod records;

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex};

use message::{Address, AsServiceId, MessageId, MessagingTopic, UeServiceId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::accounting::{Accounting, Records, Shares};
use crate::database::{Batch, Database, DatabaseOptions, Table};
use crate::fan_out::{FanOutJob, JobId, MemberState, NewFanOutJob};
use crate::keys;
use crate::metrics::StoreMetrics;
use crate::record::{
    self, ApplicationServerRecord, DeduplicationRecord, MESSAGE_HEAD_OCTETS, NewStoredMessage, Position,
    RegistrationRecord, StoredMessage,
};
use crate::store::{SCAN_JOBS_MAX, SCAN_MESSAGES_MAX, Store, StoreFuture, StoreLimits};
use crate::topics::{SubscriptionRecord, TopicListSubscriptionRecord};
use crate::writer::{Completion, Durability};
use crate::{Statistics, StoreError};

use messages::originator_of;
use records::read_all;

/// A [`Store`] in one directory of this machine. Clones share it.
#[derive(Clone)]
pub struct EmbeddedStore(Arc<Inner>);

/// Everything that can be set about an [`EmbeddedStore`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    /// Sizes and limits of the database below.
    pub database: DatabaseOptions,
    /// How much is taken.
    pub limits: StoreLimits,
}

struct Inner {
    database: Database,
    tables: Tables,
    limits: StoreLimits,
    // Completions on the writer thread hold this, never the database: it ends by joining that thread.
    accounting: Arc<Accounting>,
    /// The next acceptance number. Held from taking a number until its batch is queued, so that messages become
    /// readable in the order of their numbers.
    acceptance: Mutex<u64>,
    message_scan: Mutex<()>,
    deduplication_scan: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Tables {
    messages: Table,
    message_expiry: Table,
    deduplication: Table,
    deduplication_expiry: Table,
    registrations: Table,
    application_servers: Table,
    message_names: Table,
    jobs: Table,
    job_members: Table,
    subscriptions: Table,
    topic_list_subscriptions: Table,
    meta: Table,
}

impl EmbeddedStore {
    /// Opens the store in `path`, making it when it is missing, and recovers it after a crash.
    ///
    /// Blocks while the journal is replayed and the messages are counted: reads every stored message once.
    ///
    /// # Errors
    /// As [`Database::open`]; [`StoreError::Layout`] when another version wrote it, [`StoreError::Corrupt`] when a
    /// key does not decode.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let database = Database::open(path, options.database)?;
        let tables = Tables {
            messages: database.table(keys::MESSAGES)?,
            message_expiry: database.table(keys::MESSAGE_EXPIRY)?,
            deduplication: database.table(keys::DEDUPLICATION)?,
            deduplication_expiry: database.table(keys::DEDUPLICATION_EXPIRY)?,
            registrations: database.table(keys::REGISTRATIONS)?,
            application_servers: database.table(keys::APPLICATION_SERVERS)?,
            message_names: database.table(keys::MESSAGE_NAMES)?,
            jobs: database.table(keys::JOBS)?,
            job_members: database.table(keys::JOB_MEMBERS)?,
            subscriptions: database.table(keys::SUBSCRIPTIONS)?,
            topic_list_subscriptions: database.table(keys::TOPIC_LIST_SUBSCRIPTIONS)?,
            meta: database.table(keys::META)?,
        };
        check_layout(path, &database, &tables.meta)?;
        let accounting = Accounting::new(options.limits.clone(), database.metrics().clone());
        let next_sequence = recover(&tables, &accounting)?;
        let inner = Inner {
            database,
            tables,
            limits: options.limits,
            accounting,
            acceptance: Mutex::new(next_sequence),
            message_scan: Mutex::new(()),
            deduplication_scan: tokio::sync::Mutex::new(()),
        };
        inner.recover_records()?;
        inner.recover_jobs()?;
        inner.accounting.recovered();
        Ok(Self(Arc::new(inner)))
    }

    /// Syncs everything done so far, removals included: for a graceful stop.
    ///
    /// # Errors
    /// As [`Database::commit`].
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.0.database.sync().await
    }

    /// Why no writes are taken any more; `None` while all is well. For a health check: the process needs a restart.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.0.database.failure()
    }

    /// The figures, to be put into a registry once.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        self.0.database.metrics()
    }

    /// What the writer has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.0.database.statistics()
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EmbeddedStore").field("database", &self.0.database).finish_non_exhaustive()
    }
}

impl Store for EmbeddedStore {
    fn put_registration(&self, record: RegistrationRecord) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let key = record.ue_service_id.as_str().as_bytes();
            self.0.put_record(Records::Registrations, key, Shares::default(), &record).await
        })
    }

    fn remove_registration<'a>(&'a self, ue_service_id: &'a UeServiceId) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let key = ue_service_id.as_str().as_bytes();
            self.0.remove_record(Records::Registrations, key, Shares::default()).await.map(drop)
        })
    }

    fn registration<'a>(&'a self, ue_service_id: &'a UeServiceId) -> StoreFuture<'a, Option<RegistrationRecord>> {
        Box::pin(async move {
            let value = self.0.tables.registrations.value(ue_service_id.as_str().as_bytes())?;
            value.map(|value| record::decode_json(keys::REGISTRATIONS, &value)).transpose()
        })
    }

    fn registrations(&self) -> StoreFuture<'_, Vec<RegistrationRecord>> {
        Box::pin(read_all(self.0.tables.registrations.clone(), keys::REGISTRATIONS))
    }

    fn put_application_server(&self, record: ApplicationServerRecord) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let key = record.as_service_id.as_str().as_bytes();
            self.0.put_record(Records::ApplicationServers, key, Shares::default(), &record).await
        })
    }

    fn remove_application_server<'a>(&'a self, as_service_id: &'a AsServiceId) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let key = as_service_id.as_str().as_bytes();
            self.0.remove_record(Records::ApplicationServers, key, Shares::default()).await.map(drop)
        })
    }

    fn application_servers(&self) -> StoreFuture<'_, Vec<ApplicationServerRecord>> {
        Box::pin(read_all(self.0.tables.application_servers.clone(), keys::APPLICATION_SERVERS))
    }

    fn store_message(&self, message: NewStoredMessage) -> StoreFuture<'_, Position> {
        Box::pin(async move {
            let (position, answer) = self.0.accept(message)?;
            answer.await.unwrap_or_else(|_| Err(self.0.database.stopped()))?;
            Ok(position)
        })
    }

    fn pending<'a>(
        &'a self,
        recipient: &'a Address,
        after: Option<Position>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<StoredMessage>> {
        Box::pin(async move { self.0.pending(recipient, after, limit.min(SCAN_MESSAGES_MAX)) })
    }

    fn remove_messages<'a>(
        &'a self,
        recipient: &'a Address,
        positions: Vec<Position>,
    ) -> StoreFuture<'a, Vec<Position>> {
        Box::pin(self.0.remove_messages(recipient, positions))
    }

    fn expired(&self, now: OffsetDateTime, limit: usize) -> StoreFuture<'_, Vec<StoredMessage>> {
        Box::pin(async move { self.0.expired(record::microseconds(now), limit.min(SCAN_MESSAGES_MAX)) })
    }

    fn find_stored<'a>(
        &'a self,
        originator: &'a Address,
        message_id: &'a MessageId,
        after: Option<Position>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<(Address, Position)>> {
        Box::pin(async move { self.0.find_stored(originator, message_id, after, limit.min(SCAN_MESSAGES_MAX)) })
    }

    fn update_expiry<'a>(
        &'a self,
        recipient: &'a Address,
        position: Position,
        now: OffsetDateTime,
        expires_at: Option<OffsetDateTime>,
    ) -> StoreFuture<'a, bool> {
        Box::pin(self.0.update_expiry(recipient, position, now, expires_at))
    }

    fn pending_count(&self, recipient: &Address) -> usize {
        keys::address_key(recipient).map_or(0, |key| self.0.accounting.waiting(&key))
    }

    fn pending_recipients(&self, after: Option<&Address>, limit: usize) -> Vec<Address> {
        let after = after.and_then(|address| keys::address_key(address).ok());
        let recipients = self.0.accounting.recipients(after.as_deref(), limit);
        // Every key in memory was made from an address, or decoded as one when the store was opened.
        recipients
            .iter()
            .filter_map(|key| keys::split_address(keys::MESSAGES, key).ok())
            .map(|(address, _)| address)
            .collect()
    }

    fn deduplication_lookup<'a>(
        &'a self,
        originator: &'a Address,
        message_id: &'a MessageId,
    ) -> StoreFuture<'a, Option<DeduplicationRecord>> {
        Box::pin(async move {
            let key = keys::deduplication_key(originator, message_id)?;
            let value = self.0.tables.deduplication.value(&key)?;
            value.map(|value| record::decode_deduplication(originator, message_id, &value)).transpose()
        })
    }

    fn sweep_deduplication(&self, now: OffsetDateTime, limit: usize) -> StoreFuture<'_, usize> {
        Box::pin(self.0.sweep_deduplication(record::microseconds(now), limit.min(SCAN_MESSAGES_MAX)))
    }

    fn put_job(&self, job: NewFanOutJob) -> StoreFuture<'_, JobId> {
        Box::pin(async move {
            let (id, answer) = self.0.accept_job(&job)?;
            drop(job);
            answer.await.unwrap_or_else(|_| Err(self.0.database.stopped()))?;
            Ok(id)
        })
    }

    fn job_progress(&self, id: JobId, states: Vec<(u32, MemberState)>) -> StoreFuture<'_, ()> {
        Box::pin(self.0.job_progress(id, states))
    }

    fn job(&self, id: JobId) -> StoreFuture<'_, Option<FanOutJob>> {
        Box::pin(async move { self.0.tables.job(id) })
    }

    fn jobs(&self, after: Option<JobId>, limit: usize) -> StoreFuture<'_, Vec<FanOutJob>> {
        Box::pin(self.0.jobs(after, limit.min(SCAN_JOBS_MAX)))
    }

    fn remove_job(&self, id: JobId) -> StoreFuture<'_, ()> {
        Box::pin(self.0.remove_job(id))
    }

    fn put_subscription(&self, record: SubscriptionRecord) -> StoreFuture<'_, ()> {
        Box::pin(self.0.put_subscription(record))
    }

    fn remove_subscription<'a>(&'a self, topic: &'a MessagingTopic, subscriber: &'a Address) -> StoreFuture<'a, bool> {
        Box::pin(self.0.remove_subscription(topic, subscriber))
    }

    fn subscriptions(&self) -> StoreFuture<'_, Vec<SubscriptionRecord>> {
        Box::pin(read_all(self.0.tables.subscriptions.clone(), keys::SUBSCRIPTIONS))
    }

    fn put_topic_list_subscription(&self, record: TopicListSubscriptionRecord) -> StoreFuture<'_, ()> {
        Box::pin(self.0.put_topic_list_subscription(record))
    }

    fn remove_topic_list_subscription<'a>(&'a self, id: &'a str) -> StoreFuture<'a, bool> {
        Box::pin(self.0.remove_topic_list_subscription(id))
    }

    fn topic_list_subscriptions(&self) -> StoreFuture<'_, Vec<TopicListSubscriptionRecord>> {
        Box::pin(read_all(self.0.tables.topic_list_subscriptions.clone(), keys::TOPIC_LIST_SUBSCRIPTIONS))
    }
}

type Answer = oneshot::Receiver<Result<(), StoreError>>;

/// A completion that first puts the counts right, then answers: whoever has the answer sees the counts it implies.
fn settled_by(settle: impl FnOnce(bool) + Send + 'static) -> (Completion, Answer) {
    let (done, answer) = oneshot::channel();
    let completion = Box::new(move |result: Result<(), StoreError>| {
        settle(result.is_ok());
        // Whoever asked may have stopped waiting.
        let _ = done.send(result);
    });
    (completion, answer)
}

/// Writes the layout's number into a new store, and refuses a store of another number.
fn check_layout(path: &Path, database: &Database, meta: &Table) -> Result<(), StoreError> {
    let found = meta.value(keys::META_LAYOUT)?;
    let found = found.map(|found| found.first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets)));
    match found {
        Some(LAYOUT) => return Ok(()),
        // A store of a layout before is read as it is: its messages are on nobody's account, or not found by name.
        None | Some(LAYOUT_FIRST..LAYOUT) => {
            // Not synced: if it is lost, so is whatever followed it, and the store is what it was.
            return database.submit(
                Batch::new().put(meta, keys::META_LAYOUT, LAYOUT.to_be_bytes()),
                Durability::Ordered,
                Box::new(|_| ()),
            );
        }
        Some(_) => {}
    }
    let found = found.unwrap_or_default();
    Err(StoreError::Layout { path: path.display().to_string().into(), found, expected: LAYOUT })
}

/// Counts what is on disk, and returns the next acceptance number.
fn recover(tables: &Tables, accounting: &Accounting) -> Result<u64, StoreError> {
    let noted = tables.meta.value(keys::META_NEXT_SEQUENCE)?;
    let mut next_sequence = noted.and_then(|value| value.first_chunk().map(|n| u64::from_be_bytes(*n))).unwrap_or(1);
    for pair in tables.messages.range(Bound::Unbounded, Bound::Unbounded) {
        let (key, value) = pair?;
        let (recipient_key, position) = keys::split_message_key(&key)?;
        keys::split_address(keys::MESSAGES, recipient_key)?;
        // What does not decode is counted all the same; reading it is the error.
        let (originator_key, body_octets) = record::decode_message(&value)
            .map_or((None, value.len().saturating_sub(MESSAGE_HEAD_OCTETS)), |(head, body)| {
                (head.originator_key, body.len())
            });
        accounting.recover_message(recipient_key, originator_key, position, body_octets);
        next_sequence = next_sequence.max(position.sequence() + 1);
    }
    for pair in tables.deduplication_expiry.range(Bound::Unbounded, Bound::Unbounded) {
        let (key, _) = pair?;
        let (_, record_key) = keys::split_expiry_key(keys::DEDUPLICATION_EXPIRY, &key)?;
        accounting.recover_deduplication_record(originator_of(record_key)?);
    }
    Ok(next_sequence)
}

/// Raised when keys or codings change so that an older program could not read them.
const LAYOUT: u32 = 3;
/// Layout 1 has no originators in messages, layout 2 no Message IDs. Both have no tables for names, jobs and
/// subscriptions, which then begin empty.
const LAYOUT_FIRST: u32 = 1;
