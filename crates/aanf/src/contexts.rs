//! AKMA contexts: the latest key material of each UE, durable.
//!
//! Two tables. `aanf_contexts`: UE ID → [`Record`]. `aanf_a_kids`: A-KID → UE ID. An A-KID resolves only if the UE's
//! record names it, too, so a context that has been replaced stops resolving with the very commit that replaces it
//! (TS 33.535 clause 6.1: AAnF keeps only the latest set).

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use akma::{AKid, AfId, Gpsi, KAkma, UeId};
use serde::{Deserialize, Serialize};
use store::{Batch, Database, StoreMetrics, Table};
use tokio::sync::{Mutex, MutexGuard};

use crate::config::TableLimits;
use crate::error::AanfError;
use crate::seal::Sealer;

/// The key material of one UE, and what was handed out from it.
pub(crate) struct Context {
    pub(crate) ue_id: UeId,
    pub(crate) k_akma: KAkma,
    pub(crate) gpsi: GpsiState,
    /// When K_AF for the AF_ID asked about expires, in seconds since 1970.
    pub(crate) kaf_expires_at: i64,
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

/// What to do for an AF_ID that has had no K_AF from this context yet.
pub(crate) struct FirstUse {
    /// The expiry to fix.
    pub(crate) expires_at: i64,
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
    /// The table is full.
    Full,
}

pub(crate) enum LookupOutcome {
    Found(Context),
    /// No context has this A-KID (any more).
    Unknown,
    /// The context has yielded as many different K_AF as it may.
    TooManyKeys,
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
}

impl Record {
    fn expiry(&self, af_id: &AfId) -> Option<i64> {
        self.application_keys.iter().find(|key| key.af_id == *af_id).map(|key| key.expires_at)
    }
}

/// The tables.
pub(crate) struct Contexts {
    database: Database,
    contexts: Table,
    a_kids: Table,
    sealer: Sealer,
    limits: TableLimits,
    count: AtomicU64,
    /// Read, decide, write is one step for a UE. UEs share locks by hash.
    locks: Vec<Mutex<()>>,
    hasher: std::hash::RandomState,
}

impl Contexts {
    /// Opens the tables, and holds the storage key against what is in them. Blocks while it counts.
    pub(crate) fn open(database: Database, sealer: Sealer, limits: TableLimits) -> Result<Self, AanfError> {
        let contexts = database.table("aanf_contexts")?;
        let a_kids = database.table("aanf_a_kids")?;
        let this = Self {
            database,
            contexts,
            a_kids,
            sealer,
            limits,
            count: AtomicU64::new(0),
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

    /// Makes this the UE's only context. On disk when it returns.
    pub(crate) async fn register(
        &self,
        ue_id: &UeId,
        a_kid: &AKid,
        k_akma: &KAkma,
    ) -> Result<RegisterOutcome, AanfError> {
        let _lock = self.lock(ue_id).await;
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
        self.database.commit(batch).await?;
        if old.is_some() {
            return Ok(RegisterOutcome::Replaced);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(RegisterOutcome::Added)
    }

    /// Forgets the UE's context; `false` when there was none. On disk when it returns.
    pub(crate) async fn remove(&self, ue_id: &UeId) -> Result<bool, AanfError> {
        let _lock = self.lock(ue_id).await;
        let Some(record) = self.record(ue_id)? else { return Ok(false) };
        let batch = Batch::new().delete(&self.contexts, ue_id.as_str()).delete(&self.a_kids, record.a_kid.as_str());
        self.database.commit(batch).await?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Ok(true)
    }

    /// The context of an A-KID, with the expiry of its K_AF for `af_id`; `None` if that is not fixed yet.
    pub(crate) fn known(&self, a_kid: &AKid, af_id: &AfId) -> Result<Option<LookupOutcome>, AanfError> {
        let Some((ue_id, record)) = self.resolve(a_kid)? else { return Ok(Some(LookupOutcome::Unknown)) };
        let Some(expires_at) = record.expiry(af_id) else { return Ok(None) };
        self.found(ue_id, record, expires_at).map(Some)
    }

    /// As [`Contexts::known`], and fixes the expiry, on disk, if this is the first time: asking again does not
    /// prolong a key. Not to be dropped half way: the lock would go before the write is there to be read.
    pub(crate) async fn fix_expiry(
        &self,
        a_kid: &AKid,
        af_id: &AfId,
        first_use: FirstUse,
    ) -> Result<LookupOutcome, AanfError> {
        let Some((ue_id, _)) = self.resolve(a_kid)? else { return Ok(LookupOutcome::Unknown) };
        let _lock = self.lock(&ue_id).await;
        // What was read without the lock may have been replaced, or have got its expiry from somebody else.
        let Some((ue_id, mut record)) = self.resolve(a_kid)? else { return Ok(LookupOutcome::Unknown) };
        if let Some(expires_at) = record.expiry(af_id) {
            return self.found(ue_id, record, expires_at);
        }
        if record.application_keys.len() >= self.limits.application_keys_per_context_max {
            return Ok(LookupOutcome::TooManyKeys);
        }
        let expires_at = first_use.expires_at;
        record.application_keys.push(ApplicationKey { af_id: af_id.clone(), expires_at });
        self.write(&ue_id, &record).await?;
        self.found(ue_id, record, expires_at)
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

    fn found(&self, ue_id: UeId, record: Record, kaf_expires_at: i64) -> Result<LookupOutcome, AanfError> {
        let k_akma = self.sealer.unseal(&record.k_akma, &ue_id, &record.a_kid)?;
        Ok(LookupOutcome::Found(Context { ue_id, k_akma, gpsi: record.gpsi, kaf_expires_at }))
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
    fn count_and_check(&self) -> Result<(), AanfError> {
        let mut after: Option<Vec<u8>> = None;
        let mut count = 0;
        loop {
            let page = self.contexts.scan_prefix(b"", after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            if let (None, Some((key, value))) = (&after, page.first()) {
                let record: Record = serde_json::from_slice(value).map_err(|_| AanfError::Corrupt)?;
                self.sealer.unseal(&record.k_akma, &ue_id_of(key)?, &record.a_kid)?;
            }
            count += page.len() as u64;
            after = Some(last.clone());
        }
        self.count.store(count, Ordering::Relaxed);
        Ok(())
    }
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
