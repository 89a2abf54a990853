//! Locks that outlive a panic: nothing behind them is left half changed by the code that holds them, and a server that
//! refuses everybody because one task panicked would be worse than one that carries on.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
