//! The associations, durable.
//!
//! Two tables with the same pairs, so that both directions are a scan: `associations_by_ue` has the key
//! `<UE ID> <UE Service ID>`, `associations_by_service` has `<UE Service ID> <UE ID>`. Neither identity can hold a
//! space. The values are empty. Both tables change in one commit.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use akma::UeId;
use message::UeServiceId;
use sbi::association::{Association, AssociationPage};
use store::{Batch, Database, StoreMetrics, Table};

use crate::config::TableLimits;
use crate::error::ConfigurationError;
use crate::locks::Locks;

/// What came of adding an association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// It is new.
    New,
    /// It was there already.
    Already,
    /// The UE ID has as many as it may.
    TooMany,
    /// The table is full.
    Full,
}

/// The tables.
pub(crate) struct Associations {
    database: Database,
    by_ue: Table,
    by_service: Table,
    limits: TableLimits,
    count: AtomicU64,
    /// For each UE ID.
    locks: Locks,
}

impl Associations {
    /// Opens the tables. Blocks while it counts.
    pub(crate) fn open(database: Database, limits: TableLimits) -> Result<Self, ConfigurationError> {
        let by_ue = database.table("associations_by_ue")?;
        let by_service = database.table("associations_by_service")?;
        let count = AtomicU64::new(count(&by_ue)?);
        Ok(Self { database, by_ue, by_service, limits, count, locks: Locks::new() })
    }

    /// The figures of the database below.
    pub(crate) fn store_metrics(&self) -> &StoreMetrics {
        self.database.metrics()
    }

    /// Why no writes are taken any more, if so.
    pub(crate) fn failure(&self) -> Option<store::StoreError> {
        self.database.failure()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Adds one. On disk when it returns [`Added::New`].
    pub(crate) async fn add(&self, ue_id: &UeId, ue_service_id: &UeServiceId) -> Result<Added, ConfigurationError> {
        let _lock = self.locks.lock(ue_id).await;
        let keys = keys(ue_id, ue_service_id);
        if self.by_ue.read(keys.by_ue.as_bytes())?.is_some() {
            return Ok(Added::Already);
        }
        if self.count() >= self.limits.associations_max {
            return Ok(Added::Full);
        }
        let max = self.limits.associations_per_ue_max;
        if self.by_ue.scan_prefix(prefix(ue_id.as_str()).as_bytes(), None, max)?.len() >= max {
            return Ok(Added::TooMany);
        }
        let batch = Batch::new().put(&self.by_ue, &keys.by_ue, b"").put(&self.by_service, &keys.by_service, b"");
        self.database.commit(batch).await?;
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(Added::New)
    }

    /// Removes one; `false` when it was not there. On disk when it returns.
    pub(crate) async fn remove(&self, ue_id: &UeId, ue_service_id: &UeServiceId) -> Result<bool, ConfigurationError> {
        let _lock = self.locks.lock(ue_id).await;
        let there = self.by_ue.read(keys(ue_id, ue_service_id).by_ue.as_bytes())?.is_some();
        if there {
            self.remove_pairs(ue_id, [ue_service_id]).await?;
        }
        Ok(there)
    }

    /// Removes all of a UE ID's; how many there were. On disk when it returns.
    pub(crate) async fn remove_all(&self, ue_id: &UeId) -> Result<usize, ConfigurationError> {
        let _lock = self.locks.lock(ue_id).await;
        let ue_service_ids = self.of_ue(ue_id)?;
        if !ue_service_ids.is_empty() {
            self.remove_pairs(ue_id, &ue_service_ids).await?;
        }
        Ok(ue_service_ids.len())
    }

    /// The UE Service IDs of a UE ID.
    pub(crate) fn of_ue(&self, ue_id: &UeId) -> Result<BTreeSet<UeServiceId>, ConfigurationError> {
        let prefix = prefix(ue_id.as_str());
        // The limit may have been higher when they were added; none may be left out.
        let mut ue_service_ids = BTreeSet::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.by_ue.scan_prefix(prefix.as_bytes(), after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(ue_service_ids) };
            after = Some(last.clone());
            for (key, _) in &page {
                ue_service_ids.insert(pair(key)?.1.parse().map_err(|_| ConfigurationError::Corrupt)?);
            }
            if page.len() < PAGE {
                return Ok(ue_service_ids);
            }
        }
    }

    /// A page of all associations, or of those with one UE Service ID.
    pub(crate) fn page(
        &self,
        ue_service_id: Option<&UeServiceId>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<AssociationPage, ConfigurationError> {
        let limit = limit.clamp(1, self.limits.page_max);
        let (table, prefix) = match ue_service_id {
            Some(ue_service_id) => (&self.by_service, prefix(ue_service_id.as_str())),
            None => (&self.by_ue, String::new()),
        };
        let pairs = table.scan_prefix(prefix.as_bytes(), after.map(str::as_bytes), limit)?;
        let next = match pairs.last() {
            Some((key, _)) if pairs.len() == limit => {
                Some(String::from_utf8(key.clone()).map_err(|_| ConfigurationError::Corrupt)?)
            }
            _ => None,
        };
        let associations = pairs
            .iter()
            .map(|(key, _)| {
                let (first, second) = pair(key)?;
                let (ue_id, ue_service_id) = if ue_service_id.is_some() { (second, first) } else { (first, second) };
                Ok(Association {
                    ue_id: ue_id.parse().map_err(|_| ConfigurationError::Corrupt)?,
                    ue_service_id: ue_service_id.parse().map_err(|_| ConfigurationError::Corrupt)?,
                })
            })
            .collect::<Result<_, ConfigurationError>>()?;
        Ok(AssociationPage { associations, next })
    }

    async fn remove_pairs(
        &self,
        ue_id: &UeId,
        ue_service_ids: impl IntoIterator<Item = &UeServiceId>,
    ) -> Result<(), ConfigurationError> {
        let mut batch = Batch::new();
        let mut removed = 0;
        for ue_service_id in ue_service_ids {
            let keys = keys(ue_id, ue_service_id);
            batch = batch.delete(&self.by_ue, &keys.by_ue).delete(&self.by_service, &keys.by_service);
            removed += 1;
        }
        self.database.commit(batch).await?;
        self.count.fetch_sub(removed, Ordering::Relaxed);
        Ok(())
    }
}

struct Keys {
    by_ue: String,
    by_service: String,
}

fn keys(ue_id: &UeId, ue_service_id: &UeServiceId) -> Keys {
    Keys {
        by_ue: format!("{}{ue_service_id}", prefix(ue_id.as_str())),
        by_service: format!("{}{}", prefix(ue_service_id.as_str()), ue_id.as_str()),
    }
}

fn prefix(first: &str) -> String {
    format!("{first}{SEPARATOR}")
}

fn pair(key: &[u8]) -> Result<(&str, &str), ConfigurationError> {
    std::str::from_utf8(key).ok().and_then(|key| key.split_once(SEPARATOR)).ok_or(ConfigurationError::Corrupt)
}

fn count(table: &Table) -> Result<u64, ConfigurationError> {
    let mut after: Option<Vec<u8>> = None;
    let mut count = 0;
    loop {
        let page = table.scan_prefix(b"", after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        count += page.len() as u64;
        after = Some(last.clone());
    }
}

const SEPARATOR: char = ' ';
/// Pairs read at once.
const PAGE: usize = 4096;
