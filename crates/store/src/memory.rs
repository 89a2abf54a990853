//! What all tables hold in memory together.

use fjall::{AbstractTree, KeyspaceCreateOptions};

use crate::metrics::{StoreMetrics, gauge_value};

/// Keeps what the tables' recent writes take in memory below a bound: the table with most of them is written out.
///
/// The engine bounds each table by itself. Tables that are written to seldom would each grow to that bound, over hours.
pub(crate) struct Memory {
    bytes_max: u64,
    written: u64,
}

impl Memory {
    pub(crate) fn new(bytes_max: u64) -> Self {
        // The first write looks, since recovery fills tables, too.
        Self { bytes_max, written: LOOK_BYTES }
    }

    /// Counts octets that were written, and looks after so many of them.
    ///
    /// # Errors
    /// The engine's, when it takes no more writes.
    pub(crate) fn grew(
        &mut self,
        engine: &fjall::Database,
        metrics: &StoreMetrics,
        bytes: u64,
    ) -> Result<(), fjall::Error> {
        self.written = self.written.saturating_add(bytes);
        if self.written < LOOK_BYTES.min(self.bytes_max / 8) {
            return Ok(());
        }
        self.written = 0;
        let mut tables = Vec::new();
        for name in engine.list_keyspace_names() {
            let keyspace = engine.keyspace(&name, KeyspaceCreateOptions::default)?;
            tables.push((keyspace.tree.active_memtable().size(), keyspace));
        }
        tables.sort_unstable_by_key(|(bytes, _)| *bytes);
        let mut held: u64 = tables.iter().map(|(bytes, _)| *bytes).sum();
        while held > self.bytes_max
            && let Some((bytes, keyspace)) = tables.pop()
            && bytes > 0
        {
            // Written out by the engine's own threads.
            keyspace.rotate_memtable()?;
            held = held.saturating_sub(bytes);
        }
        metrics.memory_bytes.set(gauge_value(held));
        Ok(())
    }
}

/// Octets written between two looks, at most.
const LOOK_BYTES: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn many_tables_together_stay_below_the_bound_and_keep_what_they_hold() {
        const BYTES_MAX: u64 = 256 * 1024;
        let directory = tempfile::tempdir().unwrap();
        let engine = fjall::Database::builder(directory.path()).open().unwrap();
        let tables: Vec<_> = (0..8)
            .map(|number| engine.keyspace(&format!("t{number}"), KeyspaceCreateOptions::default).unwrap())
            .collect();
        let (mut memory, metrics) = (Memory::new(BYTES_MAX), StoreMetrics::default());
        let mut most = 0;
        for number in 0..20_000_u32 {
            // Some are written to often, one hardly ever.
            let table = &tables[if number % 1_000 == 0 { 7 } else { number as usize % 7 }];
            table.insert(number.to_be_bytes(), [0; 100]).unwrap();
            memory.grew(&engine, &metrics, 104).unwrap();
            let held: u64 = tables.iter().map(|table| table.tree.active_memtable().size()).sum();
            most = most.max(held);
        }
        // Entries have a size of their own, which is not in what was written.
        assert!(most < BYTES_MAX * 3 / 2, "{most} octets in memory");
        assert!(most > BYTES_MAX / 2, "{most} octets: nothing was ever held");
        assert!(metrics.memory_bytes.get() > 0);
        let all: usize = tables.iter().map(|table| table.len().unwrap()).sum();
        assert_eq!(all, 20_000);
    }

    #[test]
    fn what_recovery_brought_counts() {
        const BYTES_MAX: u64 = 64 * 1024;
        let directory = tempfile::tempdir().unwrap();
        let held = |engine: &fjall::Database| {
            engine.keyspace("t", KeyspaceCreateOptions::default).unwrap().tree.active_memtable().size()
        };
        {
            let engine = fjall::Database::builder(directory.path()).open().unwrap();
            let table = engine.keyspace("t", KeyspaceCreateOptions::default).unwrap();
            (0..2_000_u32).for_each(|number| table.insert(number.to_be_bytes(), [0; 100]).unwrap());
            engine.persist(fjall::PersistMode::SyncAll).unwrap();
        }
        let engine = fjall::Database::builder(directory.path()).open().unwrap();
        assert!(held(&engine) > BYTES_MAX);
        Memory::new(BYTES_MAX).grew(&engine, &StoreMetrics::default(), 1).unwrap();
        assert_eq!(held(&engine), 0);
    }
}
