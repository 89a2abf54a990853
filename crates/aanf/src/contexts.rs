//! AKMA contexts: the latest key material of each UE, durable.
//!
//! Two tables. `aanf_contexts`: UE ID → [`Record`]. `aanf_a_kids`: A-KID → UE ID. An A-KID resolves only if the UE's
//! record names it, too, so a context that has been replaced stops resolving with the very commit that replaces it
//! (TS 33.535 clause 6.1: AAnF keeps only the latest set).

//! A third, `aanf_disabled_ues`, holds the UEs for which the operator has disabled AKMA: they get no context.
//!
//! What a change gives rise to, the notifications of AFs, is part of the commit that makes it.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use akma::{AKid, AfId, Fqdn, Gpsi, KAkma, UeId};
use sbi::naanf::NotificationUri;
use serde::{Deserialize, Serialize};
use store::{Batch, Database, StoreMetrics, Table};
use tokio::sync::{Mutex, MutexGuard};

use crate::config::TableLimits;
use crate::error::AanfError;
use crate::outbox::{Notification, Outbox};
use crate::seal::Sealer;

/// The key material of one UE, and what was handed out from it.
pub(crate) struct Context {
    pub(crate) ue_id: UeId,
    pub(crate) k_akma: KAkma,
    pub(crate) gpsi: GpsiState,
    /// When K_AF for the AF_ID asked about expires, in seconds since 1970.
    pub(crate) kaf_expires_at: i64,
    /// Whether the AF will be notified at the URI it left.
    pub(crate) notified: bool,
}

/// What is known of the GPSI that goes with a SUPI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GpsiState {
    /// UDM has not answered yet.
    NotAsked,
    /// UDM says that there is none.
    None,
    /// UDM says so.
    Known(Gpsi),
}

/// What to note when K_AF is asked for.
pub(crate) struct Use {
    /// The expiry to fix, if the AF_ID has had no K_AF from this context yet.
    pub(crate) expires_at: i64,
    /// Where the AF wants to be notified.
    pub(crate) notify: Option<NotificationUri>,
}

/// What a change needs to know of the time.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// Seconds since 1970.
    pub(crate) now: i64,
    /// When notifications that are queued now are given up.
    pub(crate) give_up_at: i64,
}

pub(crate) enum RegisterOutcome {
    /// The UE had no context.
    Added,
    /// It had another one, which is gone.
    Replaced,
    /// It had this one: AUSF repeated itself. Expiries stay as they are.
    Same,
    /// The A-KID belongs to another UE.
    AKidInUse,
    /// The operator has disabled AKMA for the UE.
    Disabled,
    /// The table is full.
    Full,
}

pub(crate) enum DisableOutcome {
    /// AKMA is disabled for the UE, and was not before or had a context all the same.
    Disabled,
    /// It was before.
    Same,
    /// The table is full.
    Full,
}

pub(crate) enum LookupOutcome {
    Found(Context),
    /// No context has this A-KID (any more).
    Unknown,
    /// The context has yielded as many different K_AF as it may.
    TooManyKeys,
    /// The AF may not have it.
    NotAllowed,
}

#[derive(Serialize, Deserialize)]
struct Record {
    a_kid: AKid,
    /// Output of [`Sealer::seal`].
    #[serde(with = "hex_octets")]
    k_akma: Vec<u8>,
    gpsi: GpsiState,
    /// K_AF handed out: for whom, until when.
    application_keys: Vec<ApplicationKey>,
}

#[derive(Serialize, Deserialize)]
struct ApplicationKey {
    af_id: AfId,
    expires_at: i64,
    /// Where its AF wants to be notified, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notification_uris: Vec<NotificationUri>,
}

impl Record {
    fn key(&self, af_id: &AfId) -> Option<&ApplicationKey> {
        self.application_keys.iter().find(|key| key.af_id == *af_id)
    }

    fn notification_uris(&self) -> u64 {
        self.application_keys.iter().map(|key| key.notification_uris.len() as u64).sum()
    }

    /// One for each URI of an AF whose K_AF is still valid, of those that `concerns` picks.
    fn notifications(&self, times: Times, concerns: impl Fn(&AfId) -> bool) -> Vec<Notification> {
        let mut notifications: Vec<Notification> = Vec::new();
        for key in self.application_keys.iter().filter(|key| key.expires_at > times.now && concerns(&key.af_id)) {
            for uri in &key.notification_uris {
                let give_up_at = key.expires_at.min(times.give_up_at);
                match notifications.iter_mut().find(|known| known.uri == *uri) {
                    Some(known) => known.give_up_at = known.give_up_at.max(give_up_at),
                    None => {
                        let (uri, a_kid) = (uri.clone(), self.a_kid.clone());
                        notifications.push(Notification { uri, a_kid, give_up_at });
                    }
                }
            }
        }
        notifications
    }
}

/// The tables.
pub(crate) struct Contexts {
    database: Database,
    contexts: Table,
    a_kids: Table,
    disabled_ues: Table,
    sealer: Sealer,
    limits: TableLimits,
    /// Whether AFs go on with the K_AF of a context that has been replaced.
    kaf_may_outlive_kakma: bool,
    pub(crate) outbox: Arc<Outbox>,
    count: AtomicU64,
    notification_uris: AtomicU64,
    disabled_count: AtomicU64,
    /// Read, decide, write is one step for a UE. UEs share locks by hash.
    locks: Vec<Mutex<()>>,
    hasher: std::hash::RandomState,
}

impl Contexts {
    /// Opens the tables, and holds the storage key against what is in them. Blocks while it counts.
    pub(crate) fn open(
        database: Database,
        sealer: Sealer,
        limits: TableLimits,
        kaf_may_outlive_kakma: bool,
        pending_max: u64,
    ) -> Result<Self, AanfError> {
        let contexts = database.table("aanf_contexts")?;
        let a_kids = database.table("aanf_a_kids")?;
        let disabled_ues = database.table("aanf_disabled_ues")?;
        let outbox = Outbox::open(&database, pending_max)?;
        let mut this = Self {
            database,
            contexts,
            a_kids,
            disabled_ues,
            sealer,
            limits,
            kaf_may_outlive_kakma,
            outbox,
            count: AtomicU64::new(0),
            notification_uris: AtomicU64::new(0),
            disabled_count: AtomicU64::new(0),
            locks: (0..LOCKS).map(|_| Mutex::default()).collect(),
            hasher: std::hash::RandomState::new(),
        };
        this.count_and_check()?;
        Ok(this)
    }

    /// The figures of the database below.
    pub(crate) fn store_metrics(&self) -> &StoreMetrics {
        self.database.metrics()
    }

    /// Why no writes are taken any more, if so.
    pub(crate) fn failure(&self) -> Option<store::StoreError> {
        self.database.failure()
    }

    /// How many UEs have a context.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How many URIs for notifications are kept.
    pub(crate) fn notification_uris(&self) -> u64 {
        self.notification_uris.load(Ordering::Relaxed)
    }

    /// Makes this the UE's only context. On disk when it returns.
    pub(crate) async fn register(
        &self,
        ue_id: &UeId,
        a_kid: &AKid,
        k_akma: &KAkma,
        times: Times,
    ) -> Result<RegisterOutcome, AanfError> {
        let _lock = self.lock(ue_id).await;
        if self.is_disabled(ue_id)? {
            return Ok(RegisterOutcome::Disabled);
        }
        let old = self.record(ue_id)?;
        let same = match &old {
            Some(old) => old.a_kid == *a_kid && self.sealer.unseal(&old.k_akma, ue_id, a_kid)? == *k_akma,
            None => false,
        };
        if same {
            return Ok(RegisterOutcome::Same);
        }
        if old.is_none() && self.count() >= self.limits.contexts_max {
            return Ok(RegisterOutcome::Full);
        }
        if let Some(owner) = self.owner(a_kid)?
            && owner != *ue_id
            && self.record(&owner)?.is_some_and(|record| record.a_kid == *a_kid)
        {
            return Ok(RegisterOutcome::AKidInUse);
        }
        let gpsi = match ue_id {
            UeId::Supi(_) => GpsiState::NotAsked,
            UeId::Gpsi(gpsi) => GpsiState::Known(gpsi.clone()),
        };
        let record = Record {
            a_kid: a_kid.clone(),
            k_akma: self.sealer.seal(k_akma, ue_id, a_kid)?,
            gpsi,
            application_keys: Vec::new(),
        };
        let mut batch = Batch::new();
        if let Some(old) = &old {
            batch = batch.delete(&self.a_kids, old.a_kid.as_str());
        }
        batch = batch.put(&self.contexts, ue_id.as_str(), coded(&record)?).put(
            &self.a_kids,
            a_kid.as_str(),
            ue_id.as_str(),
        );
        let notifications = match &old {
            Some(old) if !self.kaf_may_outlive_kakma => old.notifications(times, |_| true),
            _ => Vec::new(),
        };
        self.commit_notifying(batch, notifications).await?;
        if let Some(old) = old {
            self.notification_uris.fetch_sub(old.notification_uris(), Ordering::Relaxed);
            return Ok(RegisterOutcome::Replaced);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(RegisterOutcome::Added)
    }

    /// Forgets the UE's context; `false` when there was none. AFs that asked for it are notified. On disk when it
    /// returns.
    pub(crate) async fn remove(&self, ue_id: &UeId, times: Times) -> Result<bool, AanfError> {
        let _lock = self.lock(ue_id).await;
        self.remove_with(ue_id, times, Batch::new()).await
    }

    /// Forgets the UE's context and lets it have no other. On disk when it returns.
    pub(crate) async fn disable_ue(&self, ue_id: &UeId, times: Times) -> Result<DisableOutcome, AanfError> {
        let _lock = self.lock(ue_id).await;
        let was_disabled = self.is_disabled(ue_id)?;
        let mut batch = Batch::new();
        if !was_disabled {
            let more = |count| (count < self.limits.disabled_ues_max).then_some(count + 1);
            if self.disabled_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                return Ok(DisableOutcome::Full);
            }
            batch = batch.put(&self.disabled_ues, ue_id.as_str(), b"{}");
        }
        match self.remove_with(ue_id, times, batch).await {
            Ok(removed) => Ok(if was_disabled && !removed { DisableOutcome::Same } else { DisableOutcome::Disabled }),
            Err(error) => {
                if !was_disabled {
                    self.disabled_count.fetch_sub(1, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }

    /// Lets the UE have a context again; `false` when it might already. On disk when it returns.
    pub(crate) async fn enable_ue(&self, ue_id: &UeId) -> Result<bool, AanfError> {
        let _lock = self.lock(ue_id).await;
        if !self.is_disabled(ue_id)? {
            return Ok(false);
        }
        self.database.commit(Batch::new().delete(&self.disabled_ues, ue_id.as_str())).await?;
        self.disabled_count.fetch_sub(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Whether the operator has disabled AKMA for the UE.
    pub(crate) fn is_disabled(&self, ue_id: &UeId) -> Result<bool, AanfError> {
        // Almost always there is nobody, and nothing to look up.
        if self.disabled_count.load(Ordering::Relaxed) == 0 {
            return Ok(false);
        }
        Ok(self.disabled_ues.read(ue_id.as_str().as_bytes())?.is_some())
    }

    /// Whoever has the UE's lock: commits `batch`, and with it that the UE has no context.
    async fn remove_with(&self, ue_id: &UeId, times: Times, mut batch: Batch) -> Result<bool, AanfError> {
        let record = self.record(ue_id)?;
        let mut notifications = Vec::new();
        if let Some(record) = &record {
            batch = batch.delete(&self.contexts, ue_id.as_str()).delete(&self.a_kids, record.a_kid.as_str());
            notifications = record.notifications(times, |_| true);
        }
        if !batch.is_empty() {
            self.commit_notifying(batch, notifications).await?;
        }
        let Some(record) = record else { return Ok(false) };
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.notification_uris.fetch_sub(record.notification_uris(), Ordering::Relaxed);
        Ok(true)
    }

    /// Takes away the URIs that AFs of `fqdn` left with the contexts from `after` on, a page of them, and queues
    /// notifications. Returns where to go on, if there is more.
    pub(crate) async fn withdraw_af(
        &self,
        fqdn: &Fqdn,
        after: Option<&[u8]>,
        times: Times,
    ) -> Result<Option<Vec<u8>>, AanfError> {
        let concerns = |key: &ApplicationKey| key.af_id.fqdn() == fqdn && !key.notification_uris.is_empty();
        let page = self.contexts.scan_prefix(b"", after, WITHDRAWAL_PAGE)?;
        for (key, value) in &page {
            let record: Record = serde_json::from_slice(value).map_err(|_| AanfError::Corrupt)?;
            if !record.application_keys.iter().any(concerns) {
                continue;
            }
            self.outbox.wait_for_room().await;
            let ue_id = ue_id_of(key)?;
            let _lock = self.lock(&ue_id).await;
            let Some(mut record) = self.record(&ue_id)? else { continue };
            let notifications = record.notifications(times, |af_id| af_id.fqdn() == fqdn);
            let before = record.notification_uris();
            record
                .application_keys
                .iter_mut()
                .filter(|key| concerns(key))
                .for_each(|key| key.notification_uris.clear());
            let batch = Batch::new().put(&self.contexts, ue_id.as_str(), coded(&record)?);
            self.commit_notifying(batch, notifications).await?;
            self.notification_uris.fetch_sub(before - record.notification_uris(), Ordering::Relaxed);
        }
        Ok(page.last().map(|(key, _)| key.clone()))
    }

    /// Returns when every change that was under way is done.
    pub(crate) async fn settle(&self) {
        for lock in &self.locks {
            drop(lock.lock().await);
        }
    }

    async fn commit_notifying(&self, batch: Batch, notifications: Vec<Notification>) -> Result<(), AanfError> {
        if notifications.is_empty() {
            return Ok(self.database.commit(batch).await?);
        }
        let (batch, queued) = self.outbox.queue(batch, notifications)?;
        if queued.lost > 0 {
            // Keys that are withdrawn stay withdrawn: the AF asks in vain, and K_AF expires.
            tracing::error!(target: "security", lost = queued.lost, "AFs are not notified: too many notifications wait");
        }
        self.database.commit(batch).await?;
        queued.committed();
        Ok(())
    }

    /// The context of an A-KID, with the expiry of its K_AF for `af_id`; `None` if that is not fixed yet, or `notify` is
    /// not among the URIs of its AF.
    pub(crate) fn known(
        &self,
        a_kid: &AKid,
        af_id: &AfId,
        notify: Option<&NotificationUri>,
    ) -> Result<Option<LookupOutcome>, AanfError> {
        let Some((ue_id, record)) = self.resolve(a_kid)? else { return Ok(Some(LookupOutcome::Unknown)) };
        let Some(key) = record.key(af_id) else { return Ok(None) };
        let notified = notify.is_some_and(|uri| key.notification_uris.contains(uri));
        if notify.is_some() && !notified {
            return Ok(None);
        }
        let expires_at = key.expires_at;
        self.found(ue_id, record, expires_at, notified).map(Some)
    }

    /// As [`Contexts::known`], and fixes the expiry, on disk, if this is the first time: asking again does not
    /// prolong a key. Keeps where the AF wants to be notified. Not to be dropped half way: the lock would go before the
    /// write is there to be read. `allowed` is asked under the lock, so that what it looks at can be changed before
    /// [`Contexts::settle`].
    pub(crate) async fn note_use(
        &self,
        a_kid: &AKid,
        af_id: &AfId,
        noted: Use,
        allowed: impl FnOnce() -> bool,
    ) -> Result<LookupOutcome, AanfError> {
        let Some((ue_id, _)) = self.resolve(a_kid)? else { return Ok(LookupOutcome::Unknown) };
        let _lock = self.lock(&ue_id).await;
        if !allowed() {
            return Ok(LookupOutcome::NotAllowed);
        }
        // What was read without the lock may have been replaced, or have got its expiry from somebody else.
        let Some((ue_id, mut record)) = self.resolve(a_kid)? else { return Ok(LookupOutcome::Unknown) };
        let known = record.application_keys.iter().position(|key| key.af_id == *af_id);
        if known.is_none() && record.application_keys.len() >= self.limits.application_keys_per_context_max {
            return Ok(LookupOutcome::TooManyKeys);
        }
        let mut key = match known {
            Some(index) => record.application_keys.swap_remove(index),
            None => {
                let (af_id, expires_at) = (af_id.clone(), noted.expires_at);
                ApplicationKey { af_id, expires_at, notification_uris: Vec::new() }
            }
        };
        let expires_at = key.expires_at;
        let kept = noted.notify.map_or(Kept::No, |uri| self.keep(&mut key, uri));
        record.application_keys.push(key);
        if (known.is_none() || matches!(kept, Kept::More | Kept::Instead))
            && let Err(error) = self.write(&ue_id, &record).await
        {
            if matches!(kept, Kept::More) {
                self.notification_uris.fetch_sub(1, Ordering::Relaxed);
            }
            return Err(error);
        }
        self.found(ue_id, record, expires_at, !matches!(kept, Kept::No))
    }

    /// Adds a URI to those of a key, as far as the limits allow.
    fn keep(&self, key: &mut ApplicationKey, uri: NotificationUri) -> Kept {
        if key.notification_uris.contains(&uri) {
            return Kept::Already;
        }
        if self.limits.notification_uris_per_key_max == 0 {
            return Kept::No;
        }
        if key.notification_uris.len() >= self.limits.notification_uris_per_key_max {
            key.notification_uris.remove(0);
            key.notification_uris.push(uri);
            return Kept::Instead;
        }
        let more = |count| (count < self.limits.notification_uris_max).then_some(count + 1);
        if self.notification_uris.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            tracing::warn!("an AF is not notified: the table of notification URIs is full");
            return Kept::No;
        }
        key.notification_uris.push(uri);
        Kept::More
    }

    /// Notes what UDM says about the GPSI of the UE, unless the context has changed meanwhile.
    pub(crate) async fn learn_gpsi(&self, ue_id: &UeId, a_kid: &AKid, gpsi: GpsiState) -> Result<(), AanfError> {
        let _lock = self.lock(ue_id).await;
        match self.record(ue_id)? {
            Some(mut record) if record.a_kid == *a_kid && record.gpsi != gpsi => {
                record.gpsi = gpsi;
                self.write(ue_id, &record).await
            }
            _ => Ok(()),
        }
    }

    fn found(
        &self,
        ue_id: UeId,
        record: Record,
        kaf_expires_at: i64,
        notified: bool,
    ) -> Result<LookupOutcome, AanfError> {
        let k_akma = self.sealer.unseal(&record.k_akma, &ue_id, &record.a_kid)?;
        Ok(LookupOutcome::Found(Context { ue_id, k_akma, gpsi: record.gpsi, kaf_expires_at, notified }))
    }

    /// The UE whose latest context has this A-KID.
    fn resolve(&self, a_kid: &AKid) -> Result<Option<(UeId, Record)>, AanfError> {
        let Some(ue_id) = self.owner(a_kid)? else { return Ok(None) };
        let record = self.record(&ue_id)?.filter(|record| record.a_kid == *a_kid);
        Ok(record.map(|record| (ue_id, record)))
    }

    fn owner(&self, a_kid: &AKid) -> Result<Option<UeId>, AanfError> {
        let Some(value) = self.a_kids.read(a_kid.as_str().as_bytes())? else { return Ok(None) };
        ue_id_of(&value).map(Some)
    }

    fn record(&self, ue_id: &UeId) -> Result<Option<Record>, AanfError> {
        let Some(value) = self.contexts.read(ue_id.as_str().as_bytes())? else { return Ok(None) };
        serde_json::from_slice(&value).map(Some).map_err(|_| AanfError::Corrupt)
    }

    async fn write(&self, ue_id: &UeId, record: &Record) -> Result<(), AanfError> {
        self.database.commit(Batch::new().put(&self.contexts, ue_id.as_str(), coded(record)?)).await?;
        Ok(())
    }

    async fn lock(&self, ue_id: &UeId) -> Option<MutexGuard<'_, ()>> {
        let index = usize::try_from(self.hasher.hash_one(ue_id) % LOCKS as u64).unwrap_or_default();
        match self.locks.get(index) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }

    /// Counts the contexts, and opens the first key: a wrong storage key is a fault to find at start, not at the
    /// first UE's handshake.
    fn count_and_check(&mut self) -> Result<(), AanfError> {
        let (mut count, mut notification_uris) = (0, 0);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.contexts.scan_prefix(b"", after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            for (key, value) in &page {
                let record: Record = serde_json::from_slice(value).map_err(|_| AanfError::Corrupt)?;
                if count == 0 {
                    self.sealer.unseal(&record.k_akma, &ue_id_of(key)?, &record.a_kid)?;
                }
                notification_uris += record.notification_uris();
                count += 1;
            }
            after = Some(last.clone());
        }
        let mut disabled = 0;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.disabled_ues.scan_prefix(b"", after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            disabled += page.len() as u64;
            after = Some(last.clone());
        }
        self.count = AtomicU64::new(count);
        self.notification_uris = AtomicU64::new(notification_uris);
        self.disabled_count = AtomicU64::new(disabled);
        Ok(())
    }
}

/// What became of a URI for notifications.
enum Kept {
    /// There is no room for it.
    No,
    /// It was there.
    Already,
    /// It took the place of an older one.
    Instead,
    /// There is one more.
    More,
}

fn ue_id_of(octets: &[u8]) -> Result<UeId, AanfError> {
    std::str::from_utf8(octets).ok().and_then(|text| text.parse().ok()).ok_or(AanfError::Corrupt)
}

fn coded(record: &Record) -> Result<Vec<u8>, AanfError> {
    serde_json::to_vec(record).map_err(|_| AanfError::Corrupt)
}

mod hex_octets {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(octets)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        hex::decode(&*text).map_err(|_| serde::de::Error::custom("not hexadecimal"))
    }
}

/// Locks that UEs share by hash; a power of two well above what the database commits at once.
const LOCKS: usize = 1024;
/// Records read at once while counting.
const PAGE: usize = 4096;
/// Records read at once while an AF's URIs are withdrawn: other tasks run in between.
const WITHDRAWAL_PAGE: usize = 256;
