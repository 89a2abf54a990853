//! Where scans of the expiry indexes begin.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Accounting;

/// Which expiry index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Index {
    Messages,
    Deduplication,
}

impl Accounting {
    /// Begins a scan of an expiry index. One at a time for each index.
    pub(crate) fn begin_expiry_scan(self: &Arc<Self>, index: Index) -> ExpiryScan {
        let from = self.state().expiry_mut(index).begin();
        ExpiryScan { accounting: self.clone(), index, from, next: from }
    }
}

/// A scan of an expiry index under way. Dropped, the next scan begins where [`ExpiryScan::next`] was set, or at the
/// same place.
pub(crate) struct ExpiryScan {
    accounting: Arc<Accounting>,
    index: Index,
    /// No entry of the index is below this time.
    pub(crate) from: u64,
    next: u64,
}

impl ExpiryScan {
    /// No entry that this scan could see is below `next` any more.
    pub(crate) fn finish(mut self, next: u64) {
        self.next = next;
    }
}

impl Drop for ExpiryScan {
    fn drop(&mut self) {
        self.accounting.state().expiry_mut(self.index).finish(self.next);
    }
}

/// Where a scan of an expiry index is to begin: past the remains of what was removed before.
#[derive(Default)]
pub(super) struct ExpiryFloor {
    /// No entry on disk is below this time, except those that a scan under way began at.
    floor: u64,
    /// Times of entries not yet readable, and how many of each.
    arriving: BTreeMap<u64, u32>,
}

impl ExpiryFloor {
    pub(super) fn arrive(&mut self, expires_us: u64) {
        self.floor = self.floor.min(expires_us);
        *self.arriving.entry(expires_us).or_default() += 1;
    }

    pub(super) fn settle(&mut self, expires_us: u64) {
        if let Some(count) = self.arriving.get_mut(&expires_us) {
            *count -= 1;
            if *count == 0 {
                self.arriving.remove(&expires_us);
            }
        }
    }

    /// From here on the floor gathers only what the scan may not see: entries arriving now or later.
    pub(super) fn begin(&mut self) -> u64 {
        let unseen = self.arriving.keys().next().copied().unwrap_or(u64::MAX);
        std::mem::replace(&mut self.floor, unseen)
    }

    pub(super) fn finish(&mut self, next: u64) {
        self.floor = self.floor.min(next);
    }
}
