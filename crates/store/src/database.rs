//! Tables of octets with atomic, group-committed batches.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fjall::{KeyspaceCreateOptions, Readable};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::StoreError;
use crate::journal;
use crate::metrics::StoreMetrics;
use crate::reclaim::Reclaimer;
use crate::writer::{self, Durability, Job, Operation, Queue};

/// A directory of tables. Clones share it; the last one dropped writes out what is queued and closes it.
///
/// Dropping the last handle waits for the writer thread, so do it where a short block is acceptable.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    // The queue is emptied, and both threads joined, before the engine's handle goes.
    queue: Queue,
    writer: Option<JoinHandle<()>>,
    _reclaimer: Reclaimer,
    engine: fjall::Database,
    metrics: StoreMetrics,
    options: DatabaseOptions,
    // Last, so that nobody else opens the directory before the engine has closed it.
    _lock: File,
}

/// A database's limits and sizes. Every one is configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseOptions {
    /// Batches waiting for the writer. When reached: [`StoreError::Overloaded`].
    pub queue_batches_max: usize,
    /// Octets of the batches waiting for the writer. When reached: [`StoreError::Overloaded`].
    pub queue_bytes_max: usize,
    /// Batches written and synced together at most.
    pub group_batches_max: usize,
    /// Octets written and synced together at most; one larger batch still goes, alone.
    pub group_bytes_max: usize,
    /// Free space kept on the file system, for the engine's own tables. Below it: [`StoreError::DiskFull`].
    /// Batches that only delete may use half of it.
    pub free_bytes_min: u64,
    /// Memory for blocks read from disk.
    pub cache_bytes: u64,
    /// Memory of one table's recent writes before they go to a file of their own.
    pub memtable_bytes_max: u64,
    /// Memory of all tables' recent writes together before the largest goes to a file.
    pub memtables_bytes_max: u64,
    /// Journal on disk before the engine writes out what keeps it; at least 64 MiB.
    pub journal_bytes_max: u64,
    /// Threads that write out and compact tables; at least 1.
    pub worker_threads: usize,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            queue_batches_max: 16_384,
            queue_bytes_max: 64 * MEBIBYTE as usize,
            group_batches_max: 1_024,
            group_bytes_max: 8 * MEBIBYTE as usize,
            free_bytes_min: 256 * MEBIBYTE,
            cache_bytes: 32 * MEBIBYTE,
            memtable_bytes_max: 16 * MEBIBYTE,
            memtables_bytes_max: 48 * MEBIBYTE,
            journal_bytes_max: 256 * MEBIBYTE,
            worker_threads: 2,
        }
    }
}

impl DatabaseOptions {
    /// The option that makes no sense, and what it must be: with it nothing could be written. Of octets, none is one batch at a
    /// time.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        let of_something =
            [("queue_batches_max", self.queue_batches_max), ("group_batches_max", self.group_batches_max)];
        let of_something = of_something.into_iter().find(|(_, value)| *value == 0);
        let memory =
            [("memtable_bytes_max", self.memtable_bytes_max), ("memtables_bytes_max", self.memtables_bytes_max)];
        let memory = memory.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name);
        of_something.map(|(name, _)| name).or(memory).map(|name| (name, "must be 1 or more"))
    }
}

/// What the writer has done since the database was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Batches committed.
    pub batches: u64,
    /// Groups they were written in.
    pub groups: u64,
    /// Syncs of the journal.
    pub syncs: u64,
}

impl Database {
    /// Opens the directory at `path`, making it (mode 0700) when it is missing, and recovers it after a crash.
    ///
    /// Blocks for as long as recovery takes: reading at most [`DatabaseOptions::journal_bytes_max`].
    ///
    /// # Errors
    /// [`StoreError::Locked`] when it is open elsewhere, [`StoreError::Open`] when it cannot be made or recovered.
    pub fn open(path: &Path, options: DatabaseOptions) -> Result<Self, StoreError> {
        let refused = |reason: String| StoreError::Open { path: shown(path), reason: reason.into() };
        let lock = lock_private_directory(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StoreError::Locked { path: shown(path) },
            _ => refused(error.to_string()),
        })?;
        let engine_path = path.join(ENGINE_DIRECTORY);
        journal::check(&engine_path).map_err(|error| refused(error.to_string()))?;
        let engine = fjall::Database::builder(&engine_path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes_max.max(JOURNAL_BYTES_FLOOR))
            .worker_threads(options.worker_threads.max(1))
            // The writer decides for each group how far it is persisted.
            .manual_journal_persist(true)
            .open()
            .map_err(|error| refused(error.to_string()))?;
        // What a killed process left in the kernel's pages, and the engine's directory if it is new.
        let settled = engine.persist(fjall::PersistMode::SyncAll).map_err(|error| error.to_string());
        let settled = settled.and_then(|()| sync_directory(path).map_err(|error| error.to_string()));
        settled.map_err(refused)?;
        let metrics = StoreMetrics::default();
        let (queue, thread) = writer::start(engine.clone(), path, &options, metrics.clone())
            .map_err(|error| refused(error.to_string()))?;
        let reclaimer =
            Reclaimer::start(engine.clone(), metrics.clone()).map_err(|error| refused(error.to_string()))?;
        let inner = Inner { queue, writer: Some(thread), _reclaimer: reclaimer, engine, metrics, options, _lock: lock };
        Ok(Self(Arc::new(inner)))
    }

    /// The table called `name`, made when it is missing. A name is 1 to 64 of `a-z`, `0-9`, `_`.
    ///
    /// # Errors
    /// [`StoreError::TableName`]; [`StoreError::WriteFailed`] when a new table's directory cannot be made.
    pub fn table(&self, name: &str) -> Result<Table, StoreError> {
        let allowed = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_';
        if name.is_empty() || name.len() > TABLE_NAME_OCTETS_MAX || !name.bytes().all(allowed) {
            return Err(StoreError::TableName);
        }
        let memtable_bytes = self.0.options.memtable_bytes_max;
        let keyspace = self
            .0
            .engine
            .keyspace(name, || {
                KeyspaceCreateOptions::default().manual_journal_persist(true).max_memtable_size(memtable_bytes)
            })
            .map_err(|error| StoreError::WriteFailed { reason: error.to_string().into() })?;
        Ok(Table { keyspace, database: self.clone() })
    }

    /// Commits `batch`: all of it or nothing, on disk and synced when this returns success.
    ///
    /// Batches handed in while a sync is under way go to disk together with one sync. They become readable in the
    /// order handed in. Once handed in, the batch is written even if the caller stops waiting.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] and [`StoreError::DiskFull`]: nothing was written. [`StoreError::WriteFailed`]:
    /// the batch may or may not be there after a restart, and no more writes are taken ([`StoreError::Poisoned`]):
    /// after a failed `fsync` the kernel may have dropped the pages, so a second `fsync` that succeeds proves nothing.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.submit(batch, Durability::Synced, answer_to(done))?;
        answer.await.unwrap_or_else(|_| Err(self.0.queue.stopped()))
    }

    /// Commits `batch` atomically and in order, but does not wait for a sync: it survives the end of the process, and
    /// after a power loss it is either there or not. Waits for room in the queue instead of refusing.
    ///
    /// # Errors
    /// As [`Database::commit`], without [`StoreError::Overloaded`].
    pub async fn commit_unsynced(&self, batch: Batch) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.submit_waiting(batch, Durability::Ordered, answer_to(done)).await?;
        answer.await.unwrap_or_else(|_| Err(self.0.queue.stopped()))
    }

    /// Syncs everything committed so far, unsynced batches included.
    ///
    /// # Errors
    /// As [`Database::commit`].
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.commit(Batch::new()).await
    }

    /// Why no writes are taken any more; `None` while all is well. For a health check: the process needs a restart.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.0.queue.failure()
    }

    /// The figures, to be put into a registry once.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        &self.0.metrics
    }

    /// What the writer has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let metrics = &self.0.metrics;
        Statistics { batches: metrics.batches.get(), groups: metrics.groups.get(), syncs: metrics.syncs.get() }
    }

    /// Hands `batch` in without waiting. `done` runs on the writer thread, in order; it is dropped unrun when the
    /// batch is never written.
    pub(crate) fn submit(
        &self,
        batch: Batch,
        durability: Durability,
        done: writer::Completion,
    ) -> Result<(), StoreError> {
        self.0.queue.try_submit(self.job(batch, durability, done)?)
    }

    /// As [`Database::submit`], but waits for room in the queue.
    pub(crate) async fn submit_waiting(
        &self,
        batch: Batch,
        durability: Durability,
        done: writer::Completion,
    ) -> Result<(), StoreError> {
        self.0.queue.submit(self.job(batch, durability, done)?).await
    }

    /// Why an answer never came.
    pub(crate) fn stopped(&self) -> StoreError {
        self.0.queue.stopped()
    }

    fn job(&self, batch: Batch, durability: Durability, done: writer::Completion) -> Result<Job, StoreError> {
        for operation in &batch.operations {
            if !Arc::ptr_eq(&operation.table.database.0, &self.0) {
                return Err(StoreError::ForeignTable);
            }
            let value_octets = operation.value.as_ref().map_or(0, |value| value.len());
            let key_octets = operation.key.len();
            if key_octets == 0 || key_octets > KEY_OCTETS_MAX || value_octets > VALUE_OCTETS_MAX {
                return Err(StoreError::Size);
            }
        }
        let operations = batch
            .operations
            .into_iter()
            .map(|operation| Operation {
                keyspace: operation.table.keyspace,
                key: operation.key,
                value: operation.value,
                last_of_group: operation.last_of_group,
            })
            .collect();
        Ok(Job::new(operations, durability, done))
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Database").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.writer.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread ended in a panic");
        }
    }
}

/// One table of a [`Database`]: octets to octets, ordered by key.
#[derive(Clone)]
pub struct Table {
    keyspace: fjall::Keyspace,
    database: Database,
}

impl Table {
    /// The value at `key`.
    ///
    /// Reads memory, then at most a few blocks of disk: short enough for an asynchronous thread.
    ///
    /// # Errors
    /// [`StoreError::ReadFailed`].
    pub fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.value(key)?.map(|value| value.to_vec()))
    }

    /// Up to `limit` pairs, in the order of their keys, whose keys begin with `prefix` and come after `after`
    /// (a whole key, the last one of the previous page). The page is one consistent view.
    ///
    /// # Errors
    /// [`StoreError::ReadFailed`].
    pub fn scan_prefix(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let end = prefix_end(prefix);
        self.range(start, end.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
            .take(limit)
            .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect()
    }

    pub(crate) fn value(&self, key: &[u8]) -> Result<Option<fjall::Slice>, StoreError> {
        self.keyspace.get(key).map_err(|error| StoreError::read(&error))
    }

    pub(crate) fn contains(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.keyspace.contains_key(key).map_err(|error| StoreError::read(&error))
    }

    /// The pairs between two keys, as they are now: what is committed while iterating is not seen.
    pub(crate) fn range(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> impl Iterator<Item = Result<(fjall::Slice, fjall::Slice), StoreError>> + use<> {
        let snapshot = self.database.0.engine.snapshot();
        let pairs = (!is_empty_range(start, end)).then(|| snapshot.range::<&[u8], _>(&self.keyspace, (start, end)));
        pairs.into_iter().flatten().map(|guard| guard.into_inner().map_err(|error| StoreError::read(&error)))
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Table").field(self.keyspace.name()).finish()
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Writes to be done together. Operations take effect in the order given.
#[derive(Debug, Default)]
pub struct Batch {
    operations: Vec<BatchOperation>,
}

#[derive(Debug)]
struct BatchOperation {
    table: Table,
    key: fjall::Slice,
    value: Option<fjall::Slice>,
    last_of_group: bool,
}

impl Batch {
    /// A batch that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`. A key has 1 to [`KEY_OCTETS_MAX`] octets, a value at most [`VALUE_OCTETS_MAX`].
    #[must_use]
    pub fn put(self, table: &Table, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.with(table, key.as_ref(), Some(value.as_ref()), false)
    }

    /// Removes `key`; no error when it is not there.
    #[must_use]
    pub fn delete(self, table: &Table, key: impl AsRef<[u8]>) -> Self {
        self.with(table, key.as_ref(), None, false)
    }

    /// As [`Batch::put`], but of all such puts to the same key in one group only the last is written.
    #[must_use]
    pub(crate) fn put_last_of_group(self, table: &Table, key: &[u8], value: &[u8]) -> Self {
        self.with(table, key, Some(value), true)
    }

    /// True when the batch does nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn with(mut self, table: &Table, key: &[u8], value: Option<&[u8]>, last_of_group: bool) -> Self {
        self.operations.push(BatchOperation {
            table: table.clone(),
            key: key.into(),
            value: value.map(fjall::Slice::from),
            last_of_group,
        });
        self
    }
}

/// The longest key, in octets.
pub const KEY_OCTETS_MAX: usize = 65_535;
/// The longest value, in octets.
pub const VALUE_OCTETS_MAX: usize = 16 * MEBIBYTE as usize;
const TABLE_NAME_OCTETS_MAX: usize = 64;
const MEBIBYTE: u64 = 1024 * 1024;
const ENGINE_DIRECTORY: &str = "db";
const LOCK_FILE: &str = "lock";
// The engine accepts no less.
const JOURNAL_BYTES_FLOOR: u64 = 64 * MEBIBYTE;

fn answer_to(done: oneshot::Sender<Result<(), StoreError>>) -> writer::Completion {
    Box::new(move |result| {
        // Whoever asked may have stopped waiting.
        let _ = done.send(result);
    })
}

/// Makes the directory, for its owner only, and locks it until the file returned is closed.
fn lock_private_directory(path: &Path) -> std::io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    // A directory's entry in its parent is durable only once the parent is synced.
    let parent: PathBuf = std::path::absolute(path)?.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    sync_directory(&parent)?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK_FILE))?;
    lock.try_lock()?;
    Ok(lock)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn shown(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

/// The first key after all that begin with `prefix`; `None` when there is no such key.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

fn is_empty_range(start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
        _ => false,
    }
}
