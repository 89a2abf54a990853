//! Group commit: one thread takes what is queued, writes it as one engine batch, syncs once, answers all.
//!
//! The flow, for each group:
//! 1. wait for a batch, then take whatever else is queued, up to the group's limits;
//! 2. refuse what the free space does not allow;
//! 3. sync the group before if it was not, then write the rest as one atomic batch, synced if any of it asks for that;
//! 4. answer each batch, in order.
//!
//! While the sync runs, the queue fills with the next group: the slower the disk, the larger the groups.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use fjall::PersistMode;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::StoreError;
use crate::database::DatabaseOptions;
use crate::error::is_disk_full;
use crate::memory::Memory;
use crate::metrics::StoreMetrics;

/// Runs on the writer thread when the batch's fate is known. Must not block.
pub(crate) type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// How far a batch is persisted before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On disk, synced.
    Synced,
    /// Handed to the operating system, after every batch before it.
    Ordered,
}

pub(crate) struct Operation {
    pub(crate) keyspace: fjall::Keyspace,
    pub(crate) key: fjall::Slice,
    /// `None` deletes.
    pub(crate) value: Option<fjall::Slice>,
    /// Of several in one group with the same key, only the last is written.
    pub(crate) last_of_group: bool,
}

pub(crate) struct Job {
    operations: Vec<Operation>,
    bytes: usize,
    durability: Durability,
    handed_in: Instant,
    done: Completion,
}

impl Job {
    pub(crate) fn new(operations: Vec<Operation>, durability: Durability, done: Completion) -> Self {
        let octets = |operation: &Operation| operation.key.len() + operation.value.as_ref().map_or(0, |v| v.len());
        let bytes = operations.iter().map(octets).sum();
        Self { operations, bytes, durability, handed_in: Instant::now(), done }
    }

    fn only_deletes(&self) -> bool {
        self.operations.iter().all(|operation| operation.value.is_none())
    }
}

/// The sending side: bounded in batches and in octets.
pub(crate) struct Queue {
    sender: Option<mpsc::Sender<Job>>,
    shared: Arc<Shared>,
    bytes_max: usize,
}

struct Shared {
    queued_bytes: AtomicUsize,
    /// Set once, by the first failed write; from then on nothing is written.
    poison: OnceLock<Arc<str>>,
    metrics: StoreMetrics,
}

impl Queue {
    /// Hands the job in, or refuses it.
    pub(crate) fn try_submit(&self, job: Job) -> Result<(), StoreError> {
        let Some(sender) = self.sender.as_ref() else { return Err(self.stopped()) };
        let bytes = job.bytes;
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // An empty queue takes any one batch, so that none is impossible to write.
        let refused = if queued > 0 && queued.saturating_add(bytes) > self.bytes_max {
            Some(StoreError::Overloaded)
        } else {
            self.shared.metrics.queued_batches.inc();
            match sender.try_send(job) {
                Ok(()) => None,
                Err(refused) => {
                    self.shared.metrics.queued_batches.dec();
                    Some(match refused {
                        TrySendError::Full(_) => StoreError::Overloaded,
                        TrySendError::Closed(_) => self.stopped(),
                    })
                }
            }
        };
        if let Some(error) = refused {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.metrics.refused.inc();
            return Err(error);
        }
        self.shared.metrics.queued_bytes.set(self.shared.queued_bytes_gauge());
        Ok(())
    }

    /// Hands the job in, waiting for room.
    pub(crate) async fn submit(&self, job: Job) -> Result<(), StoreError> {
        let Some(sender) = self.sender.as_ref() else { return Err(self.stopped()) };
        let Ok(permit) = sender.reserve().await else { return Err(self.stopped()) };
        self.shared.queued_bytes.fetch_add(job.bytes, Ordering::Relaxed);
        self.shared.metrics.queued_batches.inc();
        permit.send(job);
        Ok(())
    }

    /// Why nothing is written any more, once that is so.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        self.shared.poison.get().map(|reason| StoreError::Poisoned { reason: reason.clone() })
    }

    /// Why an answer never came.
    pub(crate) fn stopped(&self) -> StoreError {
        self.failure().unwrap_or_else(|| StoreError::Poisoned { reason: "the writer has stopped".into() })
    }

    /// No more jobs; the writer ends once it has written what is queued.
    pub(crate) fn close(&mut self) {
        self.sender = None;
    }
}

impl Shared {
    fn queued_bytes_gauge(&self) -> i64 {
        i64::try_from(self.queued_bytes.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
    }
}

/// Starts the writer thread.
pub(crate) fn start(
    engine: fjall::Database,
    path: &Path,
    options: &DatabaseOptions,
    metrics: StoreMetrics,
) -> std::io::Result<(Queue, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel(options.queue_batches_max.max(1));
    let shared = Arc::new(Shared { queued_bytes: AtomicUsize::new(0), poison: OnceLock::new(), metrics });
    let writer = Writer {
        engine,
        receiver,
        shared: shared.clone(),
        path: path.to_path_buf(),
        group_batches_max: options.group_batches_max.max(1),
        group_bytes_max: options.group_bytes_max,
        free_bytes_min: options.free_bytes_min,
        held_over: None,
        is_tail_unsynced: false,
        memory: Memory::new(options.memtables_bytes_max),
    };
    let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run())?;
    Ok((Queue { sender: Some(sender), shared, bytes_max: options.queue_bytes_max }, thread))
}

struct Writer {
    engine: fjall::Database,
    receiver: mpsc::Receiver<Job>,
    shared: Arc<Shared>,
    path: PathBuf,
    group_batches_max: usize,
    group_bytes_max: usize,
    free_bytes_min: u64,
    /// Taken from the queue, but too large for the group before it.
    held_over: Option<Job>,
    /// The last group written was not synced.
    is_tail_unsynced: bool,
    memory: Memory,
}

impl Writer {
    fn run(mut self) {
        while let Some(group) = self.next_group() {
            self.write(group);
        }
        // Unsynced batches are complete in the journal; a clean stop leaves nothing to chance.
        if self.shared.poison.get().is_none()
            && let Err(error) = self.engine.persist(PersistMode::SyncAll)
        {
            tracing::error!(%error, "the last sync failed");
        }
    }

    fn next_group(&mut self) -> Option<Vec<Job>> {
        let first = match self.held_over.take() {
            Some(job) => job,
            None => self.receiver.blocking_recv()?,
        };
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while group.len() < self.group_batches_max {
            let Ok(job) = self.receiver.try_recv() else { break };
            bytes = bytes.saturating_add(job.bytes);
            if bytes > self.group_bytes_max {
                self.held_over = Some(job);
                break;
            }
            group.push(job);
        }
        for job in &group {
            self.shared.queued_bytes.fetch_sub(job.bytes, Ordering::Relaxed);
            self.shared.metrics.queued_batches.dec();
        }
        self.shared.metrics.queued_bytes.set(self.shared.queued_bytes_gauge());
        Some(group)
    }

    fn write(&mut self, group: Vec<Job>) {
        if let Some(reason) = self.shared.poison.get() {
            let error = StoreError::Poisoned { reason: reason.clone() };
            group.into_iter().for_each(|job| (job.done)(Err(error.clone())));
            return;
        }
        let group = self.refuse_beyond_free_space(group);
        if group.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let metrics = &shared.metrics;
        let mut operations = Vec::new();
        let mut bytes = 0;
        let mut synced = false;
        let mut answers = Vec::with_capacity(group.len());
        for job in group {
            bytes += job.bytes as u64;
            synced |= job.durability == Durability::Synced;
            operations.extend(job.operations);
            answers.push((job.done, job.handed_in));
        }
        metrics.group_batches.observe(answers.len() as f64);
        let committed = self.commit(operations, synced);
        // What cannot be written out stops the engine: later writes are told so.
        if committed.is_ok()
            && let Err(error) = self.memory.grew(&self.engine, metrics, bytes)
        {
            self.poison(&error);
        }
        match committed {
            Ok(()) => {
                metrics.groups.inc();
                metrics.batches.inc_by(answers.len() as u64);
                metrics.written_bytes.inc_by(bytes);
                if synced {
                    metrics.syncs.inc();
                }
                for (done, handed_in) in answers {
                    metrics.commit_seconds.observe(handed_in.elapsed().as_secs_f64());
                    done(Ok(()));
                }
            }
            Err(error) => {
                metrics.failed.inc_by(answers.len() as u64);
                let error = self.poison(&error);
                answers.into_iter().for_each(|(done, _)| done(Err(error.clone())));
            }
        }
    }

    /// Answers with "disk full" what would eat into the reserve, and returns the rest.
    ///
    /// The engine stops for good once a write of its own fails for lack of space, so the line is drawn before that.
    fn refuse_beyond_free_space(&self, group: Vec<Job>) -> Vec<Job> {
        let free = match rustix::fs::statvfs(&self.path) {
            Ok(figures) => figures.f_bavail.saturating_mul(figures.f_frsize),
            // Not knowing is no reason to stop: a write that does fail is answered as such.
            Err(_) => return group,
        };
        if free >= self.free_bytes_min {
            return group;
        }
        let (allowed, refused): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|job| job.only_deletes() && free >= self.free_bytes_min / 2);
        if !refused.is_empty() {
            tracing::warn!(free_bytes = free, refused = refused.len(), "the file system is full");
        }
        for job in refused {
            self.shared.metrics.refused.inc();
            (job.done)(Err(StoreError::DiskFull));
        }
        allowed
    }

    fn commit(&mut self, operations: Vec<Operation>, synced: bool) -> Result<(), fjall::Error> {
        let mode = if synced { PersistMode::SyncAll } else { PersistMode::Buffer };
        if operations.is_empty() {
            self.is_tail_unsynced &= !synced;
            return self.engine.persist(mode);
        }
        // The disk may keep the pages of two unsynced groups in any order. So there is never more than one: what a
        // power loss leaves half written has nothing behind it, and is told by that from a damaged disk.
        if self.is_tail_unsynced {
            self.engine.persist(PersistMode::SyncAll)?;
            self.shared.metrics.syncs.inc();
        }
        self.is_tail_unsynced = !synced;
        let superseded = superseded(&operations);
        let mut batch =
            fjall::OwnedWriteBatch::with_capacity(self.engine.clone(), operations.len()).durability(Some(mode));
        for (index, operation) in operations.into_iter().enumerate() {
            if superseded.contains(&index) {
                continue;
            }
            match operation.value {
                Some(value) => batch.insert(&operation.keyspace, operation.key, value),
                None => batch.remove(&operation.keyspace, operation.key),
            }
        }
        batch.commit()
    }

    fn poison(&self, error: &fjall::Error) -> StoreError {
        let reason: Arc<str> = error.to_string().into();
        tracing::error!(%error, "writing failed; no further writes are taken");
        let _ = self.shared.poison.set(reason.clone());
        if is_disk_full(error) { StoreError::DiskFull } else { StoreError::WriteFailed { reason } }
    }
}

/// The places of those operations, of all marked `last_of_group`, that a later one with the same key replaces.
fn superseded(operations: &[Operation]) -> HashSet<usize> {
    let mut last: HashMap<(u64, &[u8]), usize> = HashMap::new();
    let mut superseded = HashSet::new();
    for (index, operation) in operations.iter().enumerate().filter(|(_, operation)| operation.last_of_group) {
        if let Some(before) = last.insert((operation.keyspace.id(), operation.key.as_ref()), index) {
            superseded.insert(before);
        }
    }
    superseded
}
