//! What the store knows without reading: counts, limits, where to begin scanning.
//!
//! A count is raised when a message is accepted into the commit queue, not when it is on disk, so that a limit cannot
//! be overrun by what is under way. Whatever was raised is held by a value ([`Arrival`], [`Removal`]) that rides in
//! the batch's completion: if the batch fails, or is never written, dropping the value puts things back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use message::Priority;

use crate::StoreError;
use crate::keys::priority_octet;
use crate::metrics::{StoreMetrics, gauge_value};
use crate::record::Position;
use crate::store::StoreLimits;

pub(crate) struct Accounting {
    limits: StoreLimits,
    metrics: StoreMetrics,
    state: Mutex<State>,
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
    expiry: [ExpiryFloor; 2],
    counted: [Counted; 2],
}

#[derive(Default)]
struct Recipient {
    messages: usize,
    /// For each priority, a number that none of the recipient's messages is below: scans begin there, past the
    /// remains of what was delivered before.
    first: [u64; 3],
}

/// What is kept on one originator's account.
#[derive(Default)]
struct Originator {
    messages: u64,
    deduplication_records: u64,
}

/// Which expiry index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Index {
    Messages,
    Deduplication,
}

/// Which table of one record per key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    Registrations,
    ApplicationServers,
}

impl Accounting {
    pub(crate) fn new(limits: StoreLimits, metrics: StoreMetrics) -> Arc<Self> {
        Arc::new(Self { limits, metrics, state: Mutex::default() })
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

    /// Takes up what else was found on disk at start-up.
    pub(crate) fn recover_counts(&self, registrations: u64, application_servers: u64) {
        let mut state = self.state();
        state.counted_mut(Records::Registrations).count = registrations;
        state.counted_mut(Records::ApplicationServers).count = application_servers;
        // A recipient of whom nothing of some priority was found: what comes is above every number given out.
        for recipient in state.recipients.values_mut() {
            recipient.first.iter_mut().filter(|first| **first == u64::MAX).for_each(|first| *first = 0);
        }
        state.publish(&self.metrics);
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
        state.check_originator(limits, &message)?;
        if state.messages >= limits.messages_max {
            return Err(StoreError::Full { limit: "messages_max" });
        }
        if state.message_bytes.saturating_add(bytes) > limits.message_bytes_max {
            return Err(StoreError::Full { limit: "message_bytes_max" });
        }
        let records = u64::from(message.deduplication.is_some());
        if records > 0 && state.deduplication_records >= limits.deduplication_records_max {
            return Err(StoreError::Full { limit: "deduplication_records_max" });
        }
        let recipient = state
            .recipients
            .entry(message.recipient_key.clone())
            .or_insert_with(|| Recipient { messages: 0, first: [message.sequence; 3] });
        recipient.messages += 1;
        state.messages += 1;
        state.message_bytes += bytes;
        state.deduplication_records += records;
        if let Some(key) = &message.originator_key {
            state.originator_mut(key).messages += 1;
        }
        if let Some(record) = &message.deduplication {
            state.originator_mut(&record.originator_key).deduplication_records += 1;
        }
        state.note_expiry(Index::Messages, message.expires_us);
        state.note_expiry(Index::Deduplication, message.deduplication_expires_us());
        state.publish(&self.metrics);
        Ok(Arrival { accounting: self.clone(), message, stored: false })
    }

    /// Claims those of `positions` that no other removal has claimed.
    pub(crate) fn claim(self: &Arc<Self>, recipient_key: &[u8], positions: Vec<Position>) -> (Removal, Vec<Position>) {
        let mut state = self.state();
        let positions: Vec<_> =
            positions.into_iter().filter(|position| state.removing.insert(position.sequence())).collect();
        let claimed = positions.iter().map(|position| position.sequence()).collect();
        let recipient_key = recipient_key.into();
        let originators = Vec::new();
        (Removal { accounting: self.clone(), recipient_key, originators, claimed, messages: 0, bytes: 0 }, positions)
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

    /// Begins a scan of an expiry index. One at a time for each index.
    pub(crate) fn begin_expiry_scan(self: &Arc<Self>, index: Index) -> ExpiryScan {
        let from = self.state().expiry_mut(index).begin();
        ExpiryScan { accounting: self.clone(), index, from, next: from }
    }

    /// Tells that deduplication records of these originators, one each time, are gone.
    pub(crate) fn forget_deduplication_records(&self, originator_keys: &[Box<[u8]>]) {
        let mut state = self.state();
        for key in originator_keys {
            state.forget_deduplication_record(key);
        }
        state.publish(&self.metrics);
    }

    /// Counts a new record in, or says that there are too many. `None` when the same record is already arriving.
    pub(crate) fn arrive_record(self: &Arc<Self>, records: Records, key: &[u8]) -> Result<RecordChange, StoreError> {
        let (limit, max) = match records {
            Records::Registrations => ("registrations_max", self.limits.registrations_max),
            Records::ApplicationServers => ("application_servers_max", self.limits.application_servers_max),
        };
        let mut state = self.state();
        let counted = state.counted_mut(records);
        if counted.arriving.contains(key) {
            return Ok(RecordChange::none());
        }
        if counted.count >= max {
            return Err(StoreError::Full { limit });
        }
        counted.count += 1;
        counted.arriving.insert(key.into());
        state.publish(&self.metrics);
        Ok(RecordChange(Some((self.clone(), records, key.into()))))
    }

    /// Tells that a record is gone.
    pub(crate) fn forget_record(&self, records: Records) {
        let mut state = self.state();
        let counted = state.counted_mut(records);
        counted.count = counted.count.saturating_sub(1);
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

    fn counted_mut(&mut self, records: Records) -> &mut Counted {
        let [registrations, application_servers] = &mut self.counted;
        match records {
            Records::Registrations => registrations,
            Records::ApplicationServers => application_servers,
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

    fn check_originator(&self, limits: &StoreLimits, message: &Arriving) -> Result<(), StoreError> {
        let account = |key: &[u8]| self.originators.get(key);
        let messages = message.originator_key.as_deref().and_then(account).map_or(0, |found| found.messages);
        if message.originator_key.is_some() && messages >= limits.messages_per_originator_max {
            return Err(StoreError::OriginatorFull { limit: "messages_per_originator_max" });
        }
        let Some(record) = &message.deduplication else { return Ok(()) };
        let records = account(&record.originator_key).map_or(0, |found| found.deduplication_records);
        if records >= limits.deduplication_records_per_originator_max {
            return Err(StoreError::OriginatorFull { limit: "deduplication_records_per_originator_max" });
        }
        Ok(())
    }

    fn forget_originator(&mut self, key: &[u8], messages: u64, records: u64) {
        if let Some(originator) = self.originators.get_mut(key) {
            originator.messages = originator.messages.saturating_sub(messages);
            originator.deduplication_records = originator.deduplication_records.saturating_sub(records);
            if originator.messages == 0 && originator.deduplication_records == 0 {
                self.originators.remove(key);
            }
        }
    }

    fn forget_deduplication_record(&mut self, originator_key: &[u8]) {
        self.deduplication_records = self.deduplication_records.saturating_sub(1);
        self.forget_originator(originator_key, 0, 1);
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
        let [registrations, application_servers] = &self.counted;
        metrics.messages.set(gauge_value(self.messages));
        metrics.message_bytes.set(gauge_value(self.message_bytes));
        metrics.recipients.set(gauge_value(self.recipients.len() as u64));
        metrics.deduplication_records.set(gauge_value(self.deduplication_records));
        metrics.registrations.set(gauge_value(registrations.count));
        metrics.application_servers.set(gauge_value(application_servers.count));
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
                state.forget_originator(key, 1, 0);
            }
            if let Some(record) = &message.deduplication {
                state.forget_deduplication_record(&record.originator_key);
            }
            state.publish(&self.accounting.metrics);
        }
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
            state.forget_originator(key, 1, 0);
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

/// A scan of an expiry index under way. Dropped, the next scan begins where [`ExpiryScan::next`] was set, or at the
/// same place.
pub(crate) struct ExpiryScan {
    accounting: Arc<Accounting>,
    index: Index,
    /// No entry of the index is below this time.
    pub(crate) from: u64,
    next: u64,
}

impl ExpiryScan {
    /// No entry that this scan could see is below `next` any more.
    pub(crate) fn finish(mut self, next: u64) {
        self.next = next;
    }
}

impl Drop for ExpiryScan {
    fn drop(&mut self) {
        self.accounting.state().expiry_mut(self.index).finish(self.next);
    }
}

/// Where a scan of an expiry index is to begin: past the remains of what was removed before.
#[derive(Default)]
struct ExpiryFloor {
    /// No entry on disk is below this time, except those that a scan under way began at.
    floor: u64,
    /// Times of entries not yet readable, and how many of each.
    arriving: BTreeMap<u64, u32>,
}

impl ExpiryFloor {
    fn arrive(&mut self, expires_us: u64) {
        self.floor = self.floor.min(expires_us);
        *self.arriving.entry(expires_us).or_default() += 1;
    }

    fn settle(&mut self, expires_us: u64) {
        if let Some(count) = self.arriving.get_mut(&expires_us) {
            *count -= 1;
            if *count == 0 {
                self.arriving.remove(&expires_us);
            }
        }
    }

    /// From here on the floor gathers only what the scan may not see: entries arriving now or later.
    fn begin(&mut self) -> u64 {
        let unseen = self.arriving.keys().next().copied().unwrap_or(u64::MAX);
        std::mem::replace(&mut self.floor, unseen)
    }

    fn finish(&mut self, next: u64) {
        self.floor = self.floor.min(next);
    }
}

#[derive(Default)]
struct Counted {
    count: u64,
    /// New records counted but not yet readable.
    arriving: HashSet<Box<[u8]>>,
}

/// A record counted in. Dropped before [`RecordChange::stored`], it is counted out again.
pub(crate) struct RecordChange(Option<(Arc<Accounting>, Records, Box<[u8]>)>);

impl RecordChange {
    /// Nothing to count.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The record is on disk and readable.
    pub(crate) fn stored(mut self) {
        if let Some((accounting, records, key)) = self.0.take() {
            accounting.state().counted_mut(records).arriving.remove(&key);
        }
    }
}

impl Drop for RecordChange {
    fn drop(&mut self) {
        if let Some((accounting, records, key)) = self.0.take() {
            accounting.state().counted_mut(records).arriving.remove(&key);
            accounting.forget_record(records);
        }
    }
}
