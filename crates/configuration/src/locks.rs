//! Read, decide, write is one step for one name.

use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// Locks that names share by hash.
pub(crate) struct Locks {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Locks {
    pub(crate) fn new() -> Self {
        Self { locks: (0..LOCKS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits until nobody else changes what `name` names.
    pub(crate) async fn lock(&self, name: &impl Hash) -> Option<MutexGuard<'_, ()>> {
        let index = usize::try_from(self.hasher.hash_one(name) % LOCKS as u64).unwrap_or_default();
        match self.locks.get(index) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }
}

/// A power of two well above what the database commits at once.
const LOCKS: usize = 1024;
