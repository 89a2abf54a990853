//! Every limit of the listeners.

use serde::{Deserialize, Serialize};

/// Every limit of the OSCORE listeners, with the answer when it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OscoreLimits {
    /// Contexts over UDP in all, those that wait for their first verified request included. One more `/akma` gets 5.03.
    pub contexts_max: usize,
    /// `/akma` exchanges of all sources that are under way or whose context has not been used yet, over UDP and TCP each.
    /// One more gets 5.03; over TCP the connection is closed.
    pub unproven_max: usize,
    /// The same of one source (an IPv4 address, an IPv6 /64). One more gets 4.29; over TCP the connection is closed.
    pub unproven_per_source_max: usize,
    /// Contexts of one A-KID that have not been used yet, over UDP. With one more the oldest goes, of the source that has most
    /// of them.
    pub unproven_per_a_kid_max: usize,
    /// How long a context waits for its first verified request, in seconds; then it is dropped. Over TCP: how long a
    /// connection may take to come so far; then it is closed.
    pub unproven_seconds: u64,
    /// For how long the Echo value that a source has to repeat is good, in seconds, at least; at most for twice as long.
    pub echo_seconds: u64,
    /// Datagrams that wait for one session. One more is dropped: its sender sends again.
    pub queue_datagrams_max: usize,
    /// Octets of messages that come or go in blocks under OSCORE (RFC 8613 4.1.3.4.1) and are held for all peers together,
    /// over UDP and TCP each. A block or response over it is answered 5.03.
    pub blocks_octets_max: usize,
    /// Octets that a TCP connection may send before its first verified request. One more, and it is closed.
    pub octets_before_proof_max: usize,
}

impl Default for OscoreLimits {
    fn default() -> Self {
        Self {
            contexts_max: 100_000,
            unproven_max: 4_096,
            unproven_per_source_max: 64,
            unproven_per_a_kid_max: 4,
            unproven_seconds: 30,
            echo_seconds: 60,
            queue_datagrams_max: 64,
            blocks_octets_max: 64 << 20,
            octets_before_proof_max: 16_384,
        }
    }
}
