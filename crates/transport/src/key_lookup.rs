//! K_AF for a connecting peer, asked of the key server with the discipline that an open port demands.

use std::sync::Arc;

use akma::{AKid, Fqdn};
use serde::{Deserialize, Serialize};

use crate::key_source::{KeyRequest, KeySource, LookupRefusal, ProvenKey};
use crate::metrics::TransportMetrics;

/// Every limit of [`KeyLookup`], with the answer when it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LookupLimits {
    /// Lookups in flight in all. One more gets [`LookupRefusal::Busy`].
    pub in_flight_max: usize,
    /// Lookups in flight that one source address started. One more gets [`LookupRefusal::Busy`].
    pub in_flight_per_source_max: usize,
    /// Handshakes that wait for one lookup besides the one that started it. One more gets [`LookupRefusal::Busy`].
    pub joiners_max: usize,
    /// How long the key server may take, in milliseconds; then [`LookupRefusal::TimedOut`].
    pub timeout_ms: u64,
    /// How long "unknown" is remembered, in milliseconds; meanwhile [`LookupRefusal::Unknown`] without asking.
    /// It protects the key server from a device in a retry loop. A-TIDs cannot be guessed, so nobody can plant an
    /// "unknown" for somebody's next A-KID. 0 turns it off.
    pub negative_cache_ms: u64,
    /// Entries of "unknown" remembered; beyond, the oldest is forgotten.
    pub negative_cache_entries_max: usize,
    /// How long a found K_AF is reused for new connections, in seconds, never beyond its expiry. 0, the default,
    /// asks for each connection (only concurrent ones share an answer): anything above lets an A-KID that a newer
    /// authentication has superseded connect for that long.
    pub positive_cache_seconds: u64,
    /// Found keys remembered; beyond, the one nearest its expiry is forgotten.
    pub positive_cache_entries_max: usize,
    /// Failures in a row that open the circuit breaker. While open: [`LookupRefusal::Unavailable`] at once.
    pub breaker_failures: u32,
    /// How long the breaker stays open, in milliseconds; then one lookup at a time probes.
    pub breaker_open_ms: u64,
}

impl Default for LookupLimits {
    fn default() -> Self {
        Self {
            in_flight_max: 256,
            in_flight_per_source_max: 64,
            joiners_max: 16,
            timeout_ms: 3_000,
            negative_cache_ms: 2_000,
            negative_cache_entries_max: 4_096,
            positive_cache_seconds: 0,
            positive_cache_entries_max: 4_096,
            breaker_failures: 8,
            breaker_open_ms: 2_000,
        }
    }
}

/// Asks a [`KeySource`] for K_AF, once per question however many ask, and never more than [`LookupLimits`] allow.
pub struct KeyLookup {
    _source: Arc<dyn KeySource>,
    _fqdn: Fqdn,
    _limits: LookupLimits,
    metrics: TransportMetrics,
}

impl KeyLookup {
    /// A lookup for the application function named `fqdn`.
    pub fn new(source: Arc<dyn KeySource>, fqdn: Fqdn, limits: LookupLimits, metrics: TransportMetrics) -> Self {
        Self { _source: source, _fqdn: fqdn, _limits: limits, metrics }
    }

    /// K_AF for this peer.
    ///
    /// # Errors
    /// [`LookupRefusal`]; anything undecided is a refusal.
    pub async fn resolve(&self, _request: KeyRequest) -> Result<ProvenKey, LookupRefusal> {
        todo!()
    }

    /// Forgets what is remembered about an A-KID.
    pub fn forget(&self, _a_kid: &AKid) {}

    /// The metrics given at the start.
    pub fn metrics(&self) -> &TransportMetrics {
        &self.metrics
    }
}
