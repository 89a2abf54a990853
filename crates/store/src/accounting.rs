//! What the store knows without reading: counts, limits, where to begin scanning.
//!
//! A count is raised when a message is accepted into the commit queue, not when it is on disk, so that a limit cannot
//! be overrun by what is under way. Whatever was raised is held by a value ([`Arrival`], [`Removal`], ...) that rides in
//! the batch's completion: if the batch fails, or is never written, dropping the value puts things back.

mod expiry;
mod jobs;
mod records;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use message::Priority;
use tokio::sync::Notify;

use crate::StoreError;
use crate::keys::priority_octet;
use crate::metrics::{StoreMetrics, gauge_value};
use crate::record::Position;
use crate::store::StoreLimits;

use expiry::ExpiryFloor;
pub(crate) use expiry::Index;
pub(crate) use jobs::ArrivingJob;
use jobs::Jobs;
use records::Counted;
pub(crate) use records::{RecordChange, Records, Shares};

pub(crate) struct Accounting {
    limits: StoreLimits,
    metrics: StoreMetrics,
    state: Mutex<State>,
    /// Some update of a message ended.
    update_ended: Notify,
}

#[derive(Default)]
struct State {
    recipients: BTreeMap<Box<[u8]>, Recipient>,
    originators: HashMap<Box<[u8]>, Originator>,
    messages: u64,
    message_bytes: u64,
    deduplication_records: u64,
    /// Acceptance numbers of the messages that a removal under way has claimed.
    removing: HashSet<u64>,
    /// Acceptance numbers of the messages that an update under way rewrites.
    updating: HashSet<u64>,
    expiry: [ExpiryFloor; 2],
    jobs: Jobs,
    counted: [Counted; 4],
}

#[derive(Default)]
struct Recipient {
    messages: usize,
    /// For each priority, a number that none of the recipient's messages is below: scans begin there, past the
    /// remains of what was delivered before.
    first: [u64; 3],
}

/// What is kept on one originator's account.
#[derive(Default, PartialEq, Eq)]
struct Originator {
    messages: u64,
    deduplication_records: u64,
    jobs: u64,
}

impl Accounting {
    pub(crate) fn new(limits: StoreLimits, metrics: StoreMetrics) -> Arc<Self> {
        Arc::new(Self { limits, metrics, state: Mutex::default(), update_ended: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up a message found on disk at start-up.
    pub(crate) fn recover_message(
        &self,
        recipient_key: &[u8],
        originator_key: Option<&[u8]>,
        position: Position,
        body_octets: usize,
    ) {
        let mut state = self.state();
        let recipient = match state.recipients.get_mut(recipient_key) {
            Some(recipient) => recipient,
            None => {
                state.recipients.entry(recipient_key.into()).or_insert(Recipient { messages: 0, first: [u64::MAX; 3] })
            }
        };
        recipient.messages += 1;
        if let Some(first) = recipient.first.get_mut(usize::from(priority_octet(position.priority()))) {
            *first = (*first).min(position.sequence());
        }
        state.messages += 1;
        state.message_bytes += body_octets as u64;
        if let Some(key) = originator_key {
            state.originator_mut(key).messages += 1;
        }
    }

    /// Takes up a deduplication record found on disk at start-up.
    pub(crate) fn recover_deduplication_record(&self, originator_key: &[u8]) {
        let mut state = self.state();
        state.deduplication_records += 1;
        state.originator_mut(originator_key).deduplication_records += 1;
    }

    /// Everything found on disk at start-up was taken up.
    pub(crate) fn recovered(&self) {
        let mut state = self.state();
        // A recipient of whom nothing of some priority was found: what comes is above every number given out.
        for recipient in state.recipients.values_mut() {
            recipient.first.iter_mut().filter(|first| **first == u64::MAX).for_each(|first| *first = 0);
        }
        state.publish(&self.metrics);
        state.publish_records(&self.metrics);
        state.publish_jobs(&self.metrics);
    }

    /// Counts a message in, or says which limit it meets.
    pub(crate) fn arrive(self: &Arc<Self>, message: Arriving) -> Result<Arrival, StoreError> {
        let mut state = self.state();
        let limits = &self.limits;
        let bytes = message.body_octets as u64;
        let waiting = state.recipients.get(&message.recipient_key).map_or(0, |recipient| recipient.messages);
        if waiting >= limits.messages_per_recipient_max {
            return Err(StoreError::RecipientFull);
        }
        state.check_originator(limits, message.originator_key.as_deref())?;
        if state.messages >= limits.messages_max {
            return Err(StoreError::Full { limit: "messages_max" });
        }
        if state.message_bytes.saturating_add(bytes) > limits.message_bytes_max {
            return Err(StoreError::Full { limit: "message_bytes_max" });
        }
        state.check_deduplication(limits, message.deduplication.as_ref())?;
        let recipient = state
            .recipients
            .entry(message.recipient_key.clone())
            .or_insert_with(|| Recipient { messages: 0, first: [message.sequence; 3] });
        recipient.messages += 1;
        state.messages += 1;
        state.message_bytes += bytes;
        if let Some(key) = &message.originator_key {
            state.originator_mut(key).messages += 1;
        }
        state.enter_deduplication(message.deduplication.as_ref());
        state.note_expiry(Index::Messages, message.expires_us);
        state.publish(&self.metrics);
        Ok(Arrival { accounting: self.clone(), message, stored: false })
    }

    /// Claims those of `positions` that no other removal has claimed, then waits until none of them is being updated:
    /// what an update rewrites is not read by a removal meanwhile. No update begins on what is claimed, so the wait
    /// ends.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        recipient_key: &[u8],
        positions: Vec<Position>,
    ) -> (Removal, Vec<Position>) {
        let (removal, positions) = self.claim_at_once(recipient_key, positions);
        loop {
            // From here on no end of an update is missed.
            let update_ended = self.update_ended.notified();
            let is_clear = {
                let updating = &self.state().updating;
                updating.is_empty() || !positions.iter().any(|position| updating.contains(&position.sequence()))
            };
            if is_clear {
                return (removal, positions);
            }
            update_ended.await;
        }
    }

    fn claim_at_once(self: &Arc<Self>, recipient_key: &[u8], mut positions: Vec<Position>) -> (Removal, Vec<Position>) {
        let mut state = self.state();
        positions.retain(|position| state.removing.insert(position.sequence()));
        let claimed = positions.iter().map(|position| position.sequence()).collect();
        let recipient_key = recipient_key.into();
        let originators = Vec::new();
        (Removal { accounting: self.clone(), recipient_key, originators, claimed, messages: 0, bytes: 0 }, positions)
    }

    /// Claims a message for an update to `expires_us`, once no other update has it. `None`: it is being removed.
    pub(crate) async fn claim_update(self: &Arc<Self>, position: Position, expires_us: Option<u64>) -> Option<Update> {
        let sequence = position.sequence();
        loop {
            let update_ended = self.update_ended.notified();
            {
                let mut state = self.state();
                if state.removing.contains(&sequence) {
                    return None;
                }
                if state.updating.insert(sequence) {
                    state.note_expiry(Index::Messages, expires_us);
                    return Some(Update { accounting: self.clone(), sequence, expires_us });
                }
            }
            update_ended.await;
        }
    }

    /// How many messages wait for the recipient, and where to begin scanning for those of `priority`.
    pub(crate) fn waiting(&self, recipient_key: &[u8]) -> usize {
        self.state().recipients.get(recipient_key).map_or(0, |recipient| recipient.messages)
    }

    /// The number that none of the recipient's messages of `priority` is below; `None` when it has no message at all.
    pub(crate) fn first(&self, recipient_key: &[u8], priority: Priority) -> Option<u64> {
        let state = self.state();
        state.recipients.get(recipient_key)?.first.get(usize::from(priority_octet(priority))).copied()
    }

    /// Tells that a scan from the start found `sequence` as the recipient's first message of its priority.
    ///
    /// Messages become readable in the order of their numbers, so none below it can appear later.
    pub(crate) fn found_first(&self, recipient_key: &[u8], position: Position) {
        if let Some(recipient) = self.state().recipients.get_mut(recipient_key)
            && let Some(first) = recipient.first.get_mut(usize::from(priority_octet(position.priority())))
        {
            *first = (*first).max(position.sequence());
        }
    }

    /// Keys of recipients with messages, after `after`.
    pub(crate) fn recipients(&self, after: Option<&[u8]>, limit: usize) -> Vec<Box<[u8]>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        state.recipients.range::<[u8], _>((start, Bound::Unbounded)).take(limit).map(|(key, _)| key.clone()).collect()
    }

    /// Tells that deduplication records of these originators, one each time, are gone.
    pub(crate) fn forget_deduplication_records(&self, originator_keys: &[Box<[u8]>]) {
        let mut state = self.state();
        for key in originator_keys {
            state.forget_deduplication_record(key);
        }
        state.publish(&self.metrics);
    }
}

impl State {
    fn expiry_mut(&mut self, index: Index) -> &mut ExpiryFloor {
        let [messages, deduplication] = &mut self.expiry;
        match index {
            Index::Messages => messages,
            Index::Deduplication => deduplication,
        }
    }

    fn note_expiry(&mut self, index: Index, expires_us: Option<u64>) {
        if let Some(expires_us) = expires_us {
            self.expiry_mut(index).arrive(expires_us);
        }
    }

    fn settle_expiry(&mut self, index: Index, expires_us: Option<u64>) {
        if let Some(expires_us) = expires_us {
            self.expiry_mut(index).settle(expires_us);
        }
    }

    fn originator_mut(&mut self, key: &[u8]) -> &mut Originator {
        self.originators.entry(key.into()).or_default()
    }

    fn check_originator(&self, limits: &StoreLimits, key: Option<&[u8]>) -> Result<(), StoreError> {
        let waiting = key.and_then(|key| self.originators.get(key)).map_or(0, |found| found.messages);
        if key.is_some() && waiting >= limits.messages_per_originator_max {
            return Err(StoreError::OriginatorFull { limit: "messages_per_originator_max" });
        }
        Ok(())
    }

    fn check_deduplication(&self, limits: &StoreLimits, record: Option<&ArrivingRecord>) -> Result<(), StoreError> {
        let Some(record) = record else { return Ok(()) };
        let records = self.originators.get(&record.originator_key).map_or(0, |found| found.deduplication_records);
        if records >= limits.deduplication_records_per_originator_max {
            return Err(StoreError::OriginatorFull { limit: "deduplication_records_per_originator_max" });
        }
        if self.deduplication_records >= limits.deduplication_records_max {
            return Err(StoreError::Full { limit: "deduplication_records_max" });
        }
        Ok(())
    }

    fn enter_deduplication(&mut self, record: Option<&ArrivingRecord>) {
        if let Some(record) = record {
            self.deduplication_records += 1;
            self.originator_mut(&record.originator_key).deduplication_records += 1;
            self.note_expiry(Index::Deduplication, Some(record.expires_us));
        }
    }

    fn forget_originator(&mut self, key: &[u8], forget: impl FnOnce(&mut Originator)) {
        if let Some(originator) = self.originators.get_mut(key) {
            forget(originator);
            if *originator == Originator::default() {
                self.originators.remove(key);
            }
        }
    }

    fn forget_message_of(&mut self, originator_key: &[u8]) {
        self.forget_originator(originator_key, |found| found.messages = found.messages.saturating_sub(1));
    }

    fn forget_deduplication_record(&mut self, originator_key: &[u8]) {
        self.deduplication_records = self.deduplication_records.saturating_sub(1);
        self.forget_originator(originator_key, |found| {
            found.deduplication_records = found.deduplication_records.saturating_sub(1);
        });
    }

    fn leave(&mut self, recipient_key: &[u8], messages: usize, bytes: u64) {
        if let Some(recipient) = self.recipients.get_mut(recipient_key) {
            recipient.messages = recipient.messages.saturating_sub(messages);
            if recipient.messages == 0 {
                self.recipients.remove(recipient_key);
            }
        }
        self.messages = self.messages.saturating_sub(messages as u64);
        self.message_bytes = self.message_bytes.saturating_sub(bytes);
    }

    fn publish(&self, metrics: &StoreMetrics) {
        metrics.messages.set(gauge_value(self.messages));
        metrics.message_bytes.set(gauge_value(self.message_bytes));
        metrics.recipients.set(gauge_value(self.recipients.len() as u64));
        metrics.deduplication_records.set(gauge_value(self.deduplication_records));
    }
}

/// A message about to be stored.
pub(crate) struct Arriving {
    pub(crate) recipient_key: Box<[u8]>,
    pub(crate) originator_key: Option<Box<[u8]>>,
    pub(crate) sequence: u64,
    pub(crate) body_octets: usize,
    pub(crate) expires_us: Option<u64>,
    pub(crate) deduplication: Option<ArrivingRecord>,
}

/// The deduplication record that comes with a message.
pub(crate) struct ArrivingRecord {
    pub(crate) originator_key: Box<[u8]>,
    pub(crate) expires_us: u64,
}

impl Arriving {
    fn deduplication_expires_us(&self) -> Option<u64> {
        self.deduplication.as_ref().map(|record| record.expires_us)
    }
}

/// A message counted in. Dropped before [`Arrival::stored`], it is counted out again.
pub(crate) struct Arrival {
    accounting: Arc<Accounting>,
    message: Arriving,
    stored: bool,
}

impl Arrival {
    /// The message is on disk and readable.
    pub(crate) fn stored(mut self) {
        self.stored = true;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let message = &self.message;
        let mut state = self.accounting.state();
        state.settle_expiry(Index::Messages, message.expires_us);
        state.settle_expiry(Index::Deduplication, message.deduplication_expires_us());
        if !self.stored {
            state.leave(&message.recipient_key, 1, message.body_octets as u64);
            if let Some(key) = &message.originator_key {
                state.forget_message_of(key);
            }
            if let Some(record) = &message.deduplication {
                state.forget_deduplication_record(&record.originator_key);
            }
            state.publish(&self.accounting.metrics);
        }
    }
}

/// A message claimed for an update, and the expiry it is to have. Dropped, the claim is given up.
pub(crate) struct Update {
    accounting: Arc<Accounting>,
    sequence: u64,
    expires_us: Option<u64>,
}

impl Drop for Update {
    fn drop(&mut self) {
        let mut state = self.accounting.state();
        state.settle_expiry(Index::Messages, self.expires_us);
        state.updating.remove(&self.sequence);
        drop(state);
        self.accounting.update_ended.notify_waiters();
    }
}

/// Messages claimed for removal. Dropped, the claims are given up.
pub(crate) struct Removal {
    accounting: Arc<Accounting>,
    recipient_key: Box<[u8]>,
    /// Of each message that has one.
    originators: Vec<Box<[u8]>>,
    claimed: Vec<u64>,
    messages: usize,
    bytes: u64,
}

impl Removal {
    /// One of the claimed messages is there, and is removed by the batch.
    pub(crate) fn includes(&mut self, originator_key: Option<&[u8]>, body_octets: usize) {
        self.originators.extend(originator_key.map(Box::from));
        self.messages += 1;
        self.bytes += body_octets as u64;
    }

    /// The batch is written.
    pub(crate) fn removed(self) {
        let mut state = self.accounting.state();
        state.leave(&self.recipient_key, self.messages, self.bytes);
        for key in &self.originators {
            state.forget_message_of(key);
        }
        state.publish(&self.accounting.metrics);
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let mut state = self.accounting.state();
        for sequence in &self.claimed {
            state.removing.remove(sequence);
        }
    }
}
