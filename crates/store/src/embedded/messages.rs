//! Waiting messages and deduplication records.

use std::ops::Bound;
use std::sync::PoisonError;

use message::{Address, MessageId, Priority};
use time::OffsetDateTime;

use super::{Answer, Inner, settled_by};
use crate::StoreError;
use crate::accounting::{Arriving, ArrivingRecord, Index};
use crate::database::Batch;
use crate::keys::{self, PRIORITIES};
use crate::record::{self, DeduplicationRecord, MessageHead, NewStoredMessage, Position, StoredMessage};
use crate::store::SCAN_MESSAGES_MAX;
use crate::writer::Durability;

impl Inner {
    /// Gives the message its place and hands it to the writer.
    pub(super) fn accept(&self, message: NewStoredMessage) -> Result<(Position, Answer), StoreError> {
        if message.body.len() > self.limits.body_octets_max {
            return Err(StoreError::TooLarge);
        }
        let tables = &self.tables;
        let recipient_key = keys::address_key(&message.recipient)?;
        let expires_us = message.expires_at.map(record::microseconds);
        let originator_key = message.originator.as_ref().map(keys::address_key).transpose()?;
        let message_id = message.message_id.as_ref().map(|id| id.as_str().as_bytes());
        let head =
            MessageHead { kind: message.kind, expires_us, originator_key: originator_key.as_deref(), message_id };
        let value = record::encode_message(&head, &message.body)?;
        let name_prefix = match (&originator_key, message_id) {
            (Some(originator_key), Some(message_id)) => Some(keys::name_prefix(originator_key, message_id)?),
            _ => None,
        };
        let (mut batch, arriving_record) = self.with_deduplication(Batch::new(), message.deduplication.as_ref())?;

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
        if let Some(prefix) = name_prefix {
            batch = batch.put(&tables.message_names, keys::name_key(prefix, position), recipient_key);
        }
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

    pub(super) fn pending(
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

    pub(super) async fn remove_messages(
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
        let (mut removal, claimed) = self.accounting.claim(recipient_key, positions).await;
        let mut removed = Vec::with_capacity(claimed.len());
        let mut batch = Batch::new();
        for position in claimed {
            let key = keys::message_key(recipient_key, position);
            let Some(value) = self.tables.messages.value(&key)? else { continue };
            let (head, body) = record::decode_message(&value)?;
            if let Some(expires_us) = head.expires_us {
                batch = batch.delete(&self.tables.message_expiry, keys::expiry_key(expires_us, &key));
            }
            if let (Some(originator_key), Some(message_id)) = (head.originator_key, head.message_id) {
                let prefix = keys::name_prefix(originator_key, message_id)?;
                batch = batch.delete(&self.tables.message_names, keys::name_key(prefix, position));
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
        self.database.submit_waiting(batch, Durability::Ordered, completion).await?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))?;
        Ok(removed)
    }

    pub(super) fn find_stored(
        &self,
        originator: &Address,
        message_id: &MessageId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Address, Position)>, StoreError> {
        let prefix = keys::name_prefix(&keys::address_key(originator)?, message_id.as_str().as_bytes())?;
        let after_key = after.map(|after| keys::name_key(prefix.clone(), after));
        let first_key = keys::name_key(prefix.clone(), Position::new(Priority::High, 0));
        let last_key = keys::name_key(prefix, Position::new(Priority::Low, u64::MAX));
        let start = match &after_key {
            Some(key) => Bound::Excluded(key.as_slice()),
            None => Bound::Included(first_key.as_slice()),
        };
        let found = self.tables.message_names.range(start, Bound::Included(&last_key)).take(limit);
        found
            .map(|pair| {
                let (key, recipient_key) = pair?;
                let (recipient, _) = keys::split_address(keys::MESSAGE_NAMES, &recipient_key)?;
                Ok((recipient, keys::position_of_name(&key)?))
            })
            .collect()
    }

    pub(super) async fn update_expiry(
        &self,
        recipient: &Address,
        position: Position,
        now: OffsetDateTime,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<bool, StoreError> {
        let key = keys::message_key(&keys::address_key(recipient)?, position);
        let expires_us = expires_at.map(record::microseconds);
        let Some(update) = self.accounting.claim_update(position, expires_us).await else { return Ok(false) };
        let Some(value) = self.tables.messages.value(&key)? else { return Ok(false) };
        let before = record::decode_message(&value)?.0.expires_us;
        if before.is_some_and(|before| before <= record::microseconds(now)) {
            return Ok(false);
        }
        if before == expires_us {
            return Ok(true);
        }
        let mut batch = Batch::new().put(&self.tables.messages, &key, record::with_expiry(&value, expires_us)?);
        if let Some(before) = before {
            batch = batch.delete(&self.tables.message_expiry, keys::expiry_key(before, &key));
        }
        if let Some(expires_us) = expires_us {
            batch = batch.put(&self.tables.message_expiry, keys::expiry_key(expires_us, &key), []);
        }
        let (completion, answer) = settled_by(move |_| drop(update));
        self.database.submit(batch, Durability::Synced, completion)?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))?;
        Ok(true)
    }

    pub(super) fn expired(&self, now_us: u64, limit: usize) -> Result<Vec<StoredMessage>, StoreError> {
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
            // Updated since.
            if record::decode_message(&value)?.0.expires_us != Some(expires_us) {
                continue;
            }
            let (recipient, _) = keys::split_address(keys::MESSAGES, recipient_key)?;
            found.push(stored_message(recipient, position, &value)?);
        }
        scan.finish(next);
        Ok(found)
    }

    pub(super) async fn sweep_deduplication(&self, now_us: u64, limit: usize) -> Result<usize, StoreError> {
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
            self.database.submit_waiting(batch, Durability::Ordered, completion).await?;
            answer.await.unwrap_or_else(|_| Err(self.database.stopped()))?;
        }
        scan.finish(next);
        Ok(count)
    }

    /// Adds a deduplication record to the batch that accepts its message.
    pub(super) fn with_deduplication(
        &self,
        batch: Batch,
        record: Option<&DeduplicationRecord>,
    ) -> Result<(Batch, Option<ArrivingRecord>), StoreError> {
        let Some(record) = record else { return Ok((batch, None)) };
        if record.answer.len() > self.limits.body_octets_max {
            return Err(StoreError::TooLarge);
        }
        let key = keys::deduplication_key(&record.originator, &record.message_id)?;
        let expires_us = record::microseconds(record.expires_at);
        let originator_key = keys::address_key(&record.originator)?.into();
        let batch = batch.put(&self.tables.deduplication, &key, record::encode_deduplication(record)).put(
            &self.tables.deduplication_expiry,
            keys::expiry_key(expires_us, &key),
            [],
        );
        Ok((batch, Some(ArrivingRecord { originator_key, expires_us })))
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

/// The originator's part of a deduplication record's key.
pub(super) fn originator_of(record_key: &[u8]) -> Result<&[u8], StoreError> {
    let corrupt = StoreError::Corrupt { table: keys::DEDUPLICATION, reason: "the key is not an address" };
    keys::split_address_key(record_key).map(|(key, _)| key).ok_or(corrupt)
}
