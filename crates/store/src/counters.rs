//! Counts under names, in a directory of their own.

use std::path::Path;

use crate::{Batch, Database, DatabaseOptions, StoreError, Table};

/// A small database of counts. Clones share it.
#[derive(Debug, Clone)]
pub struct Counters {
    database: Database,
    table: Table,
}

impl Counters {
    /// Opens the directory at `path`, or makes it. Blocks, as [`Database::open`] does.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let options = DatabaseOptions {
            cache_bytes: SMALL_BYTES,
            memtable_bytes_max: SMALL_BYTES,
            worker_threads: 1,
            ..DatabaseOptions::default()
        };
        let database = Database::open(path, options)?;
        let table = database.table("counts")?;
        Ok(Self { database, table })
    }

    /// Every count, in the order of their names. Blocks.
    ///
    /// # Errors
    /// [`StoreError::ReadFailed`], [`StoreError::Corrupt`].
    pub fn all(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let damaged = || StoreError::Corrupt { table: "counts", reason: "a count of another length than eight octets" };
        let mut counts = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.table.scan_prefix(b"", after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(counts) };
            after = Some(last.clone());
            for (name, count) in page {
                let name = String::from_utf8(name).map_err(|_| damaged())?;
                counts.push((name, u64::from_be_bytes(count.try_into().map_err(|_| damaged())?)));
            }
        }
    }

    /// Puts `count` under `name`, or takes away what is there. On disk and synced when it returns.
    ///
    /// # Errors
    /// As [`Database::commit`].
    pub async fn put(&self, name: &str, count: Option<u64>) -> Result<(), StoreError> {
        let batch = match count {
            Some(count) => Batch::new().put(&self.table, name, count.to_be_bytes()),
            None => Batch::new().delete(&self.table, name),
        };
        self.database.commit(batch).await
    }
}

/// Counts are few and short.
const SMALL_BYTES: u64 = 1024 * 1024;
/// Counts read at once.
const PAGE: usize = 1_024;
