//! Who may do what, by the identity in the peer's certificate (TS 33.535 clause 6.2: AAnF checks whether the AF is
//! authorised).

use std::sync::Arc;

use akma::AfId;
use sbi::{PeerIdentity, PeerName};

use crate::config::AfConfig;

/// The configured entries.
pub(crate) struct Policy {
    entries: Vec<(PeerName, Arc<AfConfig>)>,
    kaf_lifetime_seconds: u64,
}

impl Policy {
    pub(crate) fn new(entries: Vec<AfConfig>, kaf_lifetime_seconds: u64) -> Self {
        let entries = entries.into_iter().map(|entry| (entry.peer_name(), Arc::new(entry))).collect();
        Self { entries, kaf_lifetime_seconds }
    }

    /// The first entry that names the peer.
    pub(crate) fn entry(&self, peer: &PeerIdentity) -> Option<Arc<AfConfig>> {
        self.entries.iter().find(|(name, _)| name.names(peer)).map(|(_, entry)| Arc::clone(entry))
    }

    /// How long K_AF is valid for the peer of `entry`.
    pub(crate) fn kaf_lifetime_seconds(&self, entry: &AfConfig) -> u64 {
        entry.kaf_lifetime_seconds.unwrap_or(self.kaf_lifetime_seconds)
    }
}

/// Whether the peer of `entry` may have K_AF for `af_id`.
pub(crate) fn owns(entry: &AfConfig, af_id: &AfId) -> bool {
    entry.fqdns.contains(af_id.fqdn())
}
