//! The embedded engine behind the trait [`Store`].

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use message::{Address, AsServiceId, MessageId, UeServiceId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::accounting::{Accounting, Arriving, ArrivingRecord, Index, RecordChange, Records};
use crate::database::{Batch, Database, DatabaseOptions, Table};
use crate::keys::{self, PRIORITIES};
use crate::metrics::StoreMetrics;
use crate::record::{
    self, ApplicationServerRecord, DeduplicationRecord, MESSAGE_HEAD_OCTETS, MessageHead, NewStoredMessage, Position,
    RegistrationRecord, StoredMessage,
};
use crate::store::{SCAN_MESSAGES_MAX, Store, StoreFuture, StoreLimits};
use crate::writer::{Completion, Durability};
use crate::{Statistics, StoreError};

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

struct Tables {
    messages: Table,
    message_expiry: Table,
    deduplication: Table,
    deduplication_expiry: Table,
    registrations: Table,
    application_servers: Table,
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
            meta: database.table(keys::META)?,
        };
        check_layout(path, &database, &tables.meta)?;
        let accounting = Accounting::new(options.limits.clone(), database.metrics().clone());
        let next_sequence = recover(&tables, &accounting)?;
        Ok(Self(Arc::new(Inner {
            database,
            tables,
            limits: options.limits,
            accounting,
            acceptance: Mutex::new(next_sequence),
            message_scan: Mutex::new(()),
            deduplication_scan: tokio::sync::Mutex::new(()),
        })))
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
            let key = record.ue_service_id.as_str();
            let value = record::encode_json(keys::REGISTRATIONS, &record)?;
            self.0.put_record(Records::Registrations, key, &value).await
        })
    }

    fn remove_registration<'a>(&'a self, ue_service_id: &'a UeServiceId) -> StoreFuture<'a, ()> {
        Box::pin(self.0.remove_record(Records::Registrations, ue_service_id.as_str()))
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
            let key = record.as_service_id.as_str();
            let value = record::encode_json(keys::APPLICATION_SERVERS, &record)?;
            self.0.put_record(Records::ApplicationServers, key, &value).await
        })
    }

    fn remove_application_server<'a>(&'a self, as_service_id: &'a AsServiceId) -> StoreFuture<'a, ()> {
        Box::pin(self.0.remove_record(Records::ApplicationServers, as_service_id.as_str()))
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
}

impl Inner {
    /// Gives the message its place and hands it to the writer.
    fn accept(&self, message: NewStoredMessage) -> Result<(Position, Answer), StoreError> {
        let answer_octets = message.deduplication.as_ref().map_or(0, |record| record.answer.len());
        if message.body.len() > self.limits.body_octets_max || answer_octets > self.limits.body_octets_max {
            return Err(StoreError::TooLarge);
        }
        let tables = &self.tables;
        let recipient_key = keys::address_key(&message.recipient)?;
        let expires_us = message.expires_at.map(record::microseconds);
        let originator_key = message.originator.as_ref().map(keys::address_key).transpose()?;
        let head = MessageHead { kind: message.kind, expires_us, originator_key: originator_key.as_deref() };
        let value = record::encode_message(&head, &message.body);
        let mut batch = Batch::new();
        let mut arriving_record = None;
        if let Some(deduplication) = &message.deduplication {
            let key = keys::deduplication_key(&deduplication.originator, &deduplication.message_id)?;
            let expires_us = record::microseconds(deduplication.expires_at);
            let originator_key = keys::address_key(&deduplication.originator)?.into();
            arriving_record = Some(ArrivingRecord { originator_key, expires_us });
            batch = batch.put(&tables.deduplication, &key, record::encode_deduplication(deduplication)).put(
                &tables.deduplication_expiry,
                keys::expiry_key(expires_us, &key),
                [],
            );
        }

        let mut next_sequence = self.acceptance.lock().unwrap_or_else(PoisonError::into_inner);
        let position = Position::new(message.priority, *next_sequence);
        let arrival = self.accounting.arrive(Arriving {
            recipient_key: recipient_key.as_slice().into(),
            originator_key: originator_key.map(Vec::into_boxed_slice),
            sequence: position.sequence(),
            body_octets: message.body.len(),
            expires_us,
            deduplication: arriving_record,
        })?;
        let key = keys::message_key(&recipient_key, position);
        if let Some(expires_us) = expires_us {
            batch = batch.put(&tables.message_expiry, keys::expiry_key(expires_us, &key), []);
        }
        let following = position.sequence() + 1;
        batch = batch.put(&tables.messages, key, value).put_last_of_group(
            &tables.meta,
            keys::META_NEXT_SEQUENCE,
            &following.to_be_bytes(),
        );
        let (completion, answer) = settled_by(move |is_written| {
            if is_written {
                arrival.stored()
            }
        });
        self.database.submit(batch, Durability::Synced, completion)?;
        *next_sequence = following;
        Ok((position, answer))
    }

    fn pending(
        &self,
        recipient: &Address,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        let recipient_key = keys::address_key(recipient)?;
        let mut found = Vec::new();
        for priority in PRIORITIES.into_iter().filter(|p| after.is_none_or(|after| *p >= after.priority())) {
            if found.len() >= limit {
                break;
            }
            let Some(first) = self.accounting.first(&recipient_key, priority) else { break };
            let first_key = keys::message_key(&recipient_key, Position::new(priority, first));
            let last_key = keys::message_key(&recipient_key, Position::new(priority, u64::MAX));
            let after_key = after
                .filter(|after| after.priority() == priority && after.sequence() >= first)
                .map(|after| keys::message_key(&recipient_key, after));
            let start = match &after_key {
                Some(key) => Bound::Excluded(key.as_slice()),
                None => Bound::Included(first_key.as_slice()),
            };
            let mut is_first = after_key.is_none();
            for pair in self.tables.messages.range(start, Bound::Included(&last_key)).take(limit - found.len()) {
                let (key, value) = pair?;
                let (_, position) = keys::split_message_key(&key)?;
                if std::mem::take(&mut is_first) {
                    self.accounting.found_first(&recipient_key, position);
                }
                found.push(stored_message(recipient.clone(), position, &value)?);
            }
        }
        Ok(found)
    }

    async fn remove_messages(
        &self,
        recipient: &Address,
        positions: Vec<Position>,
    ) -> Result<Vec<Position>, StoreError> {
        let recipient_key = keys::address_key(recipient)?;
        let mut removed = Vec::with_capacity(positions.len());
        for chunk in positions.chunks(SCAN_MESSAGES_MAX) {
            removed.extend(self.remove_chunk(&recipient_key, chunk.to_vec()).await?);
        }
        Ok(removed)
    }

    async fn remove_chunk(&self, recipient_key: &[u8], positions: Vec<Position>) -> Result<Vec<Position>, StoreError> {
        let (mut removal, claimed) = self.accounting.claim(recipient_key, positions);
        let mut removed = Vec::with_capacity(claimed.len());
        let mut batch = Batch::new();
        for position in claimed {
            let key = keys::message_key(recipient_key, position);
            let Some(value) = self.tables.messages.value(&key)? else { continue };
            let (head, body) = record::decode_message(&value)?;
            if let Some(expires_us) = head.expires_us {
                batch = batch.delete(&self.tables.message_expiry, keys::expiry_key(expires_us, &key));
            }
            batch = batch.delete(&self.tables.messages, key);
            removal.includes(head.originator_key, body.len());
            removed.push(position);
        }
        if removed.is_empty() {
            return Ok(removed);
        }
        let (completion, answer) = settled_by(move |is_written| {
            if is_written {
                removal.removed()
            }
        });
        self.database.submit_waiting(batch, completion).await?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))?;
        Ok(removed)
    }

    fn expired(&self, now_us: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
        let _one_at_a_time = self.message_scan.lock().unwrap_or_else(PoisonError::into_inner);
        let scan = self.accounting.begin_expiry_scan(Index::Messages);
        let table = &self.tables.message_expiry;
        let mut found = Vec::new();
        let mut next = now_us.saturating_add(1);
        for pair in table.range(Bound::Included(&scan.from.to_be_bytes()), expired_end(now_us).as_bound()) {
            let (key, _) = pair?;
            let (expires_us, message_key) = keys::split_expiry_key(keys::MESSAGE_EXPIRY, &key)?;
            next = next.min(expires_us);
            if found.len() >= limit {
                break;
            }
            let (recipient_key, position) = keys::split_message_key(message_key)?;
            // Removed since the index was read.
            let Some(value) = self.tables.messages.value(message_key)? else { continue };
            let (recipient, _) = keys::split_address(keys::MESSAGES, recipient_key)?;
            found.push(stored_message(recipient, position, &value)?);
        }
        scan.finish(next);
        Ok(found)
    }

    async fn sweep_deduplication(&self, now_us: u64, limit: usize) -> Result<usize, StoreError> {
        let _one_at_a_time = self.deduplication_scan.lock().await;
        let scan = self.accounting.begin_expiry_scan(Index::Deduplication);
        let mut batch = Batch::new();
        let mut swept = Vec::new();
        let mut next = now_us.saturating_add(1);
        for pair in self
            .tables
            .deduplication_expiry
            .range(Bound::Included(&scan.from.to_be_bytes()), expired_end(now_us).as_bound())
        {
            let (key, _) = pair?;
            let (expires_us, record_key) = keys::split_expiry_key(keys::DEDUPLICATION_EXPIRY, &key)?;
            if swept.len() >= limit {
                next = expires_us;
                break;
            }
            if self.is_record_of(record_key, expires_us)? {
                batch = batch.delete(&self.tables.deduplication, record_key);
            }
            swept.push(originator_of(record_key)?.into());
            batch = batch.delete(&self.tables.deduplication_expiry, key);
        }
        let count = swept.len();
        if count > 0 {
            let accounting = self.accounting.clone();
            let (completion, answer) = settled_by(move |is_written| {
                if is_written {
                    accounting.forget_deduplication_records(&swept);
                }
            });
            self.database.submit_waiting(batch, completion).await?;
            answer.await.unwrap_or_else(|_| Err(self.database.stopped()))?;
        }
        scan.finish(next);
        Ok(count)
    }

    /// False when the record was renewed since: then another index entry stands for it.
    fn is_record_of(&self, record_key: &[u8], expires_us: u64) -> Result<bool, StoreError> {
        let (originator, message_id) = keys::split_address(keys::DEDUPLICATION, record_key)?;
        let corrupt = || StoreError::Corrupt { table: keys::DEDUPLICATION, reason: "the key has no message ID" };
        let message_id: MessageId =
            std::str::from_utf8(message_id).ok().and_then(|id| id.parse().ok()).ok_or_else(corrupt)?;
        let Some(value) = self.tables.deduplication.value(record_key)? else { return Ok(false) };
        let record = record::decode_deduplication(&originator, &message_id, &value)?;
        Ok(record::microseconds(record.expires_at) == expires_us)
    }

    async fn put_record(&self, records: Records, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let table = self.records(records);
        let change = if table.contains(key.as_bytes())? {
            RecordChange::none()
        } else {
            self.accounting.arrive_record(records, key.as_bytes())?
        };
        let (completion, answer) = settled_by(move |is_written| {
            if is_written {
                change.stored()
            }
        });
        self.database.submit(Batch::new().put(table, key, value), Durability::Synced, completion)?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))
    }

    async fn remove_record(&self, records: Records, key: &str) -> Result<(), StoreError> {
        let table = self.records(records);
        if !table.contains(key.as_bytes())? {
            return Ok(());
        }
        let accounting = self.accounting.clone();
        let (completion, answer) = settled_by(move |is_written| {
            if is_written {
                accounting.forget_record(records);
            }
        });
        self.database.submit(Batch::new().delete(table, key), Durability::Synced, completion)?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))
    }

    fn records(&self, records: Records) -> &Table {
        match records {
            Records::Registrations => &self.tables.registrations,
            Records::ApplicationServers => &self.tables.application_servers,
        }
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

/// The end of an expiry scan: every key whose time is `now` or before.
struct ExpiredEnd(Option<[u8; 8]>);

fn expired_end(now_us: u64) -> ExpiredEnd {
    ExpiredEnd(now_us.checked_add(1).map(u64::to_be_bytes))
}

impl ExpiredEnd {
    fn as_bound(&self) -> Bound<&[u8]> {
        self.0.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()))
    }
}

fn stored_message(recipient: Address, position: Position, value: &[u8]) -> Result<StoredMessage, StoreError> {
    let (head, body) = record::decode_message(value)?;
    Ok(StoredMessage {
        recipient,
        position,
        expires_at: head.expires_us.map(record::from_microseconds),
        kind: head.kind,
        body: body.to_vec(),
    })
}

async fn read_all<T>(table: Table, name: &'static str) -> Result<Vec<T>, StoreError>
where
    T: DeserializeOwned + Send + 'static,
{
    let reading = tokio::task::spawn_blocking(move || {
        table
            .range(Bound::Unbounded, Bound::Unbounded)
            .map(|pair| pair.and_then(|(_, value)| record::decode_json(name, &value)))
            .collect()
    });
    reading.await.unwrap_or_else(|error| Err(StoreError::ReadFailed { reason: error.to_string().into() }))
}

/// Writes the layout's number into a new store, and refuses a store of another number.
fn check_layout(path: &Path, database: &Database, meta: &Table) -> Result<(), StoreError> {
    let found = meta.value(keys::META_LAYOUT)?;
    let found = found.map(|found| found.first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets)));
    match found {
        Some(LAYOUT) => return Ok(()),
        // A store of the layout before is read as it is: its messages are on nobody's account.
        None | Some(LAYOUT_BEFORE) => {
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

/// The originator's part of a deduplication record's key.
fn originator_of(record_key: &[u8]) -> Result<&[u8], StoreError> {
    let corrupt = StoreError::Corrupt { table: keys::DEDUPLICATION, reason: "the key is not an address" };
    keys::split_address_key(record_key).map(|(key, _)| key).ok_or(corrupt)
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
    let count = |table: &Table| -> Result<u64, StoreError> {
        table.range(Bound::Unbounded, Bound::Unbounded).try_fold(0, |count, pair| pair.map(|_| count + 1))
    };
    for pair in tables.deduplication_expiry.range(Bound::Unbounded, Bound::Unbounded) {
        let (key, _) = pair?;
        let (_, record_key) = keys::split_expiry_key(keys::DEDUPLICATION_EXPIRY, &key)?;
        accounting.recover_deduplication_record(originator_of(record_key)?);
    }
    accounting.recover_counts(count(&tables.registrations)?, count(&tables.application_servers)?);
    Ok(next_sequence)
}

/// Raised when keys or codings change so that an older program could not read them.
const LAYOUT: u32 = 2;
/// Without originators in messages.
const LAYOUT_BEFORE: u32 = 1;
