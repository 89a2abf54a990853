//! Removes from disk what was deleted long ago.
//!
//! The engine writes a deletion as an entry of its own, and drops it when it merges its file with files that hold what it
//! deletes. Where keys only ever grow, as those of jobs do, and what is written is deleted soon, files have no key in
//! common, and the engine moves them down unmerged: files of nothing but deletions stay, each with its octets on disk,
//! its index in memory, and its part in every look through the table.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{AbstractTree, Keyspace, KeyspaceCreateOptions};

use crate::metrics::StoreMetrics;

/// The thread that looks for such tables at once, and then every [`REST`]. Dropped, it ends; what it has begun is finished first.
pub(crate) struct Reclaimer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reclaimer {
    /// # Errors
    /// The system's, when it gives no thread.
    pub(crate) fn start(engine: fjall::Database, metrics: StoreMetrics) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let work = move || {
            loop {
                look(&engine, &metrics);
                if !matches!(stopped.recv_timeout(REST), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-reclaim".to_owned()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's reclaiming thread ended in a panic");
        }
    }
}

/// Rewrites each table that is for the most part deletions. What fails is tried again at the next look.
fn look(engine: &fjall::Database, metrics: &StoreMetrics) {
    for name in engine.list_keyspace_names() {
        let table = engine.keyspace(&name, KeyspaceCreateOptions::default);
        let reclaimed = table.and_then(|table| {
            let is_due = is_mostly_deletions(&table);
            if is_due {
                table.major_compact()?;
            }
            Ok(is_due)
        });
        match reclaimed {
            Ok(true) => {
                metrics.reclaimed.inc();
            }
            Ok(false) => {}
            Err(error) => {
                metrics.reclaims_failed.inc();
                tracing::warn!(table = %name, %error, "deletions were not reclaimed");
            }
        }
    }
}

/// As each rewriting drops at least half of what it reads, all of them together cost no more than the deletions did.
fn is_mostly_deletions(table: &Keyspace) -> bool {
    let deletions = table.tree.tombstone_count();
    table.table_count() >= FILES_MIN
        && table.tree.disk_space() <= BYTES_MAX
        && deletions.saturating_mul(2) >= table.approximate_len() as u64
}

/// Between two looks.
const REST: Duration = Duration::from_secs(30);

/// Fewer files than this are not worth it.
const FILES_MIN: usize = 4;

/// While a table is rewritten the engine merges nothing else of it, and the disk holds it twice: larger ones are left to
/// the engine's own merging. Half of the space that is kept free for the engine.
const BYTES_MAX: u64 = 128 * 1024 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// Writes and deletes keys that only grow, in files of their own, and keeps every `kept`th.
    fn come_and_go(engine: &fjall::Database, kept: u32) -> Keyspace {
        let table = engine.keyspace("jobs", KeyspaceCreateOptions::default).unwrap();
        for file in 0..40_u32 {
            for key in file * 100..(file + 1) * 100 {
                table.insert(key.to_be_bytes(), [7; 20]).unwrap();
                if !key.is_multiple_of(kept) {
                    table.remove(key.to_be_bytes()).unwrap();
                }
            }
            table.rotate_memtable_and_wait().unwrap();
        }
        table
    }

    #[test]
    fn files_of_deletions_go_and_what_was_not_deleted_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, metrics) = (50, StoreMetrics::default());
        {
            let engine = fjall::Database::builder(directory.path()).open().unwrap();
            let table = come_and_go(&engine, kept);
            let (files, octets) = (table.table_count(), table.disk_space());
            assert!(files >= 20, "{files} files: the engine has dropped deletions by itself");
            look(&engine, &metrics);
            assert!(table.table_count() <= 2, "{} files", table.table_count());
            assert!(table.disk_space() < octets / 4, "{} of {octets} octets", table.disk_space());
            assert_eq!((metrics.reclaimed.get(), metrics.reclaims_failed.get()), (1, 0));
            look(&engine, &metrics);
            assert_eq!(metrics.reclaimed.get(), 1, "there was nothing left to do");
        }
        let engine = fjall::Database::builder(directory.path()).open().unwrap();
        let table = engine.keyspace("jobs", KeyspaceCreateOptions::default).unwrap();
        let keys: Vec<u32> =
            table.iter().map(|entry| u32::from_be_bytes(entry.key().unwrap()[..].try_into().unwrap())).collect();
        assert_eq!(keys, (0..4_000).step_by(kept as usize).collect::<Vec<_>>());
    }

    #[test]
    fn a_table_of_what_is_kept_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let engine = fjall::Database::builder(directory.path()).open().unwrap();
        let metrics = StoreMetrics::default();
        let table = come_and_go(&engine, 1);
        let files = table.table_count();
        assert!(files >= FILES_MIN);
        look(&engine, &metrics);
        assert_eq!((metrics.reclaimed.get(), table.table_count()), (0, files));
    }

    #[test]
    fn it_ends_with_its_handle() {
        let directory = tempfile::tempdir().unwrap();
        let engine = fjall::Database::builder(directory.path()).open().unwrap();
        drop(Reclaimer::start(engine, StoreMetrics::default()).unwrap());
    }
}
