//! The groups, durable.
//!
//! One table, `groups`: the key is the Group Service ID, the value the document as JSON. A document is on disk, synced,
//! before its change is answered.

use std::sync::atomic::{AtomicU64, Ordering};

use message::ServiceAddress;
use sbi::ProblemDetails;
use sbi::ss_gm::VALGroupDocument;
use store::{Batch, Database, Table};

use crate::config::TableLimits;
use crate::error::ConfigurationError;
use crate::locks::Locks;

/// What came of making a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is new.
    New,
    /// There is one of that name.
    Exists,
    /// The table is full.
    Full,
}

/// What came of changing a group.
#[derive(Debug)]
pub(crate) enum Changed {
    /// It is as the document says now.
    Done(Box<VALGroupDocument>),
    /// There is none of that name.
    Unknown,
    /// It would become what no group may be.
    Refused(Box<ProblemDetails>),
}

/// Part of all groups.
#[derive(Debug, Default)]
pub(crate) struct GroupPage {
    pub(crate) documents: Vec<VALGroupDocument>,
    /// There are more behind these.
    pub(crate) more: bool,
}

/// The table.
pub(crate) struct Groups {
    database: Database,
    table: Table,
    limits: TableLimits,
    count: AtomicU64,
    locks: Locks,
}

impl Groups {
    /// Opens the table. Blocks while it counts.
    pub(crate) fn open(database: Database, limits: TableLimits) -> Result<Self, ConfigurationError> {
        let table = database.table("groups")?;
        let count = AtomicU64::new(count(&table)?);
        Ok(Self { database, table, limits, count, locks: Locks::new() })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes a group. On disk when it returns [`Created::New`].
    pub(crate) async fn create(&self, document: &VALGroupDocument) -> Result<Created, ConfigurationError> {
        let _lock = self.locks.lock(&document.val_group_id).await;
        if self.get(&document.val_group_id)?.is_some() {
            return Ok(Created::Exists);
        }
        if self.count() >= self.limits.groups_max {
            return Ok(Created::Full);
        }
        self.write(document).await?;
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(Created::New)
    }

    /// Changes a group by `change`. On disk when it returns [`Changed::Done`].
    pub(crate) async fn change(
        &self,
        id: &ServiceAddress,
        change: impl FnOnce(VALGroupDocument) -> Result<VALGroupDocument, Box<ProblemDetails>>,
    ) -> Result<Changed, ConfigurationError> {
        let _lock = self.locks.lock(id).await;
        let Some(before) = self.get(id)? else { return Ok(Changed::Unknown) };
        match change(before) {
            Ok(document) => {
                self.write(&document).await?;
                Ok(Changed::Done(Box::new(document)))
            }
            Err(problem) => Ok(Changed::Refused(problem)),
        }
    }

    /// Removes a group; `false` when it was not there. On disk when it returns.
    pub(crate) async fn remove(&self, id: &ServiceAddress) -> Result<bool, ConfigurationError> {
        let _lock = self.locks.lock(id).await;
        let there = self.table.read(key(id))?.is_some();
        if there {
            self.database.commit(Batch::new().delete(&self.table, key(id))).await?;
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(there)
    }

    /// A group.
    pub(crate) fn get(&self, id: &ServiceAddress) -> Result<Option<VALGroupDocument>, ConfigurationError> {
        self.table.read(key(id))?.map(|octets| decode(&octets)).transpose()
    }

    /// Groups in the order of their names' octets: at most `limit` of those behind `after` on which `service` is enabled,
    /// and no more than [`TableLimits::page_octets_max`] of them. Blocks.
    pub(crate) fn page(
        &self,
        service: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<GroupPage, ConfigurationError> {
        let limit = limit.clamp(1, self.limits.page_max);
        let mut page = GroupPage::default();
        let (mut octets, mut after) = (0, after.map(|after| after.as_bytes().to_vec()));
        loop {
            let pairs = self.table.scan_prefix(b"", after.as_deref(), SCANNED_AT_ONCE)?;
            for (key, value) in &pairs {
                let document = decode(value)?;
                after = Some(key.clone());
                if !service.is_none_or(|service| document.serves(service)) {
                    continue;
                }
                octets += value.len();
                let full = page.documents.len() >= limit || octets > self.limits.page_octets_max;
                if full && !page.documents.is_empty() {
                    page.more = true;
                    return Ok(page);
                }
                page.documents.push(document);
            }
            if pairs.len() < SCANNED_AT_ONCE {
                return Ok(page);
            }
        }
    }

    async fn write(&self, document: &VALGroupDocument) -> Result<(), ConfigurationError> {
        let value = encode(document)?;
        self.database.commit(Batch::new().put(&self.table, key(&document.val_group_id), value)).await?;
        Ok(())
    }
}

/// The document as it is kept.
pub(crate) fn encode(document: &VALGroupDocument) -> Result<Vec<u8>, ConfigurationError> {
    serde_json::to_vec(document).map_err(|_| ConfigurationError::Corrupt)
}

fn decode(octets: &[u8]) -> Result<VALGroupDocument, ConfigurationError> {
    serde_json::from_slice(octets).map_err(|_| ConfigurationError::Corrupt)
}

fn key(id: &ServiceAddress) -> &[u8] {
    id.as_str().as_bytes()
}

fn count(table: &Table) -> Result<u64, ConfigurationError> {
    let (mut after, mut count): (Option<Vec<u8>>, u64) = (None, 0);
    loop {
        let page = table.scan_prefix(b"", after.as_deref(), SCANNED_AT_ONCE)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        count += page.len() as u64;
        after = Some(last.clone());
    }
}

/// Documents read at once: each may be large.
const SCANNED_AT_ONCE: usize = 64;
