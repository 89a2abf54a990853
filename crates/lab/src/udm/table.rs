//! The subscriber table of the UDM: subscriptions, sequence numbers, the latest authentication event of each.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use akma::{Gpsi, Sqn, Supi};
use sbi::nudm::AuthEvent;
use serde::{Deserialize, Serialize};
use store::{Batch, Database, Table};
use tokio::sync::{Mutex, MutexGuard};
use zeroize::Zeroizing;

use crate::LabError;
use crate::subscription::{Subscription, SubscriptionSummary};

/// Locks that keep two changes of one subscriber apart; two subscribers rarely share one.
const LOCKS: usize = 64;

/// Durable subscriber table. Clones share it.
#[derive(Clone)]
pub struct SubscriberTable {
    database: Database,
    subscriptions: Table,
    sequence_numbers: Table,
    public_identities: Table,
    events: Table,
    locks: Arc<Vec<Mutex<()>>>,
    hasher: RandomState,
}

/// The latest authentication event of a subscriber, with its resource's name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredEvent {
    pub(crate) id: String,
    pub(crate) event: AuthEvent,
}

impl SubscriberTable {
    /// The table in `database`.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn open(database: &Database) -> Result<Self, LabError> {
        Ok(Self {
            database: database.clone(),
            subscriptions: database.table("subscriptions")?,
            sequence_numbers: database.table("sequence_numbers")?,
            public_identities: database.table("public_identities")?,
            events: database.table("authentication_events")?,
            locks: Arc::new((0..LOCKS).map(|_| Mutex::new(())).collect()),
            hasher: RandomState::new(),
        })
    }

    /// The subscriber with this SUPI.
    ///
    /// # Errors
    /// When the database fails or holds something else.
    pub fn subscription(&self, supi: &Supi) -> Result<Option<Subscription>, LabError> {
        self.subscriptions
            .read(supi.as_str().as_bytes())?
            .map(|stored| decode(Zeroizing::new(stored).as_slice()))
            .transpose()
    }

    /// The SUPI behind a GPSI.
    ///
    /// # Errors
    /// When the database fails or holds something else.
    pub fn supi_of(&self, gpsi: &Gpsi) -> Result<Option<Supi>, LabError> {
        let Some(stored) = self.public_identities.read(gpsi.as_str().as_bytes())? else { return Ok(None) };
        let supi = std::str::from_utf8(&stored).ok().and_then(|text| text.parse().ok());
        supi.map(Some).ok_or_else(corrupt)
    }

    /// Up to `limit` subscribers after `after`, in the order of their SUPIs, without keys.
    ///
    /// # Errors
    /// When the database fails or holds something else.
    pub fn list(&self, after: Option<&Supi>, limit: usize) -> Result<Vec<SubscriptionSummary>, LabError> {
        let after = after.map(|supi| supi.as_str().as_bytes());
        self.subscriptions
            .scan_prefix(b"", after, limit)?
            .into_iter()
            .map(|(_, stored)| Ok(decode::<Subscription>(Zeroizing::new(stored).as_slice())?.summary()))
            .collect()
    }

    /// Adds a subscriber or replaces it; `true` when it is new. Durable on return.
    ///
    /// A replaced subscriber goes on with its sequence number unless a later one is given: one that was used must not
    /// be used again.
    ///
    /// # Errors
    /// When a member is wrong, the GPSI is another subscriber's, or the database fails.
    pub async fn put(&self, subscription: &Subscription) -> Result<bool, LabError> {
        subscription.check()?;
        // A GPSI is unique over all subscribers, so changes of subscribers wait for each other.
        let _all = self.lock_all().await;
        let supi = &subscription.supi;
        let before = self.subscription(supi)?;
        let mut batch = Batch::new();
        if let Some(gpsi) = before.as_ref().and_then(|before| before.gpsi.as_ref()) {
            batch = batch.delete(&self.public_identities, gpsi.as_str().as_bytes());
        }
        if let Some(gpsi) = &subscription.gpsi {
            if self.supi_of(gpsi)?.is_some_and(|owner| owner != *supi) {
                return Err(LabError::Subscription("the GPSI is another subscriber's".to_owned()));
            }
            batch = batch.put(&self.public_identities, gpsi.as_str().as_bytes(), supi.as_str().as_bytes());
        }
        let last = subscription.sequence_number.unwrap_or(Sqn::ZERO).max(self.last_sqn(supi)?);
        let key = supi.as_str().as_bytes();
        let encoded = Zeroizing::new(encode(subscription)?);
        batch =
            batch.put(&self.subscriptions, key, encoded.as_slice()).put(&self.sequence_numbers, key, last.to_bytes());
        self.database.commit(batch).await?;
        Ok(before.is_none())
    }

    /// Takes a subscriber out; `false` when there was none. Durable on return.
    ///
    /// Its sequence number stays, for the day the same USIM is provisioned again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&self, supi: &Supi) -> Result<bool, LabError> {
        let _all = self.lock_all().await;
        let Some(before) = self.subscription(supi)? else { return Ok(false) };
        let key = supi.as_str().as_bytes();
        let mut batch = Batch::new().delete(&self.subscriptions, key).delete(&self.events, key);
        if let Some(gpsi) = &before.gpsi {
            batch = batch.delete(&self.public_identities, gpsi.as_str().as_bytes());
        }
        self.database.commit(batch).await?;
        Ok(true)
    }

    /// Takes the next sequence number for a vector. On disk on return, so that no fault makes UDM give it out twice.
    ///
    /// # Errors
    /// When the database fails, or the 48 bits are used up.
    pub async fn next_sqn(&self, supi: &Supi) -> Result<Sqn, LabError> {
        let _one = self.lock(supi).await;
        let next = self.last_sqn(supi)?.next().map_err(|_| LabError::SequenceExhausted)?;
        self.save_sqn(supi, next).await?;
        Ok(next)
    }

    /// Goes on from the USIM's sequence number where that is ahead of ours (TS 33.102 clause 6.3.5). Never goes back:
    /// a replayed AUTS must not make UDM repeat a number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resynchronise(&self, supi: &Supi, sqn_ms: Sqn) -> Result<(), LabError> {
        let _one = self.lock(supi).await;
        if sqn_ms > self.last_sqn(supi)? {
            self.save_sqn(supi, sqn_ms).await?;
        }
        Ok(())
    }

    fn last_sqn(&self, supi: &Supi) -> Result<Sqn, LabError> {
        let Some(stored) = self.sequence_numbers.read(supi.as_str().as_bytes())? else { return Ok(Sqn::ZERO) };
        <[u8; 6]>::try_from(stored.as_slice()).map(Sqn::from_bytes).map_err(|_| corrupt())
    }

    async fn save_sqn(&self, supi: &Supi, sqn: Sqn) -> Result<(), LabError> {
        let key = supi.as_str().as_bytes();
        let batch = Batch::new().put(&self.sequence_numbers, key, sqn.to_bytes());
        Ok(self.database.commit(batch).await?)
    }

    /// Keeps the latest authentication event of a subscriber.
    pub(crate) async fn save_event(&self, supi: &Supi, event: &StoredEvent) -> Result<(), LabError> {
        let encoded = encode(event)?;
        let batch = Batch::new().put(&self.events, supi.as_str().as_bytes(), encoded.as_slice());
        Ok(self.database.commit(batch).await?)
    }

    /// The latest authentication event of a subscriber.
    pub(crate) fn event(&self, supi: &Supi) -> Result<Option<StoredEvent>, LabError> {
        self.events.read(supi.as_str().as_bytes())?.map(|stored| decode(&stored)).transpose()
    }

    /// Forgets the event `id`; `false` when a later one has taken its place or there is none.
    pub(crate) async fn remove_event(&self, supi: &Supi, id: &str) -> Result<bool, LabError> {
        let _one = self.lock(supi).await;
        if self.event(supi)?.is_none_or(|stored| stored.id != id) {
            return Ok(false);
        }
        self.database.commit(Batch::new().delete(&self.events, supi.as_str().as_bytes())).await?;
        Ok(true)
    }

    async fn lock(&self, supi: &Supi) -> Option<MutexGuard<'_, ()>> {
        let index = usize::try_from(self.hasher.hash_one(supi)).unwrap_or_default() % LOCKS;
        match self.locks.get(index) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }

    /// Always in the same order, so that two callers cannot wait for each other.
    async fn lock_all(&self) -> Vec<MutexGuard<'_, ()>> {
        let mut guards = Vec::with_capacity(LOCKS);
        for lock in self.locks.iter() {
            guards.push(lock.lock().await);
        }
        guards
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, LabError> {
    serde_json::to_vec(value).map_err(|_| corrupt())
}

fn decode<T: serde::de::DeserializeOwned>(stored: &[u8]) -> Result<T, LabError> {
    // What serde says would quote what is stored.
    serde_json::from_slice(stored).map_err(|_| corrupt())
}

fn corrupt() -> LabError {
    LabError::Corrupt
}
