//! OSCORE with keys from AKMA (RFC 8613, TS 33.535 Annex D), over plain UDP and TCP.
//!
//! ```text
//! UE                                     listener                                        KeyLookup
//!  │ POST /akma [A-KID, N1, AF-SID]         │                                               │
//!  │ ─────────────────────────────────────▶ │ UDP, source not proven: 4.01 with Echo, no memory
//!  │ POST /akma, Echo                       │ ── A-KID, FQDN + FF 00 00 00 08 ────────────▶ │
//!  │ 2.01 [N2, UE-SID]                      │ ◀─────────────────── K_AF, expiry, UE ID ──── │
//!  │ ◀───────────────────────────────────── │ context, unproven: dropped if nothing comes
//!  │ first request that verifies, kid = UE-SID
//!  │ ─────────────────────────────────────▶ │ accepted: a Carrier and its ProvenPeer
//! ```
//!
//! Nothing but `/akma` is served without protection. [`OscoreUdpListener`] has one table of contexts by UE-SID;
//! [`OscoreTcpAcceptor`] binds a context to its connection. [`OscoreConnector`] is the other end of both. Contexts live in
//! memory only: after a restart of either side a new one is agreed on.

mod agreement;
mod client;
mod datagram;
mod echo;
mod elsewhere;
mod limits;
mod metrics;
mod stream;
mod tables;
mod tcp;
mod udp;

pub use client::{OscoreConnector, OwnSocket};
pub use datagram::{DatagramSocket, OscoreDatagramCarrier};
pub use limits::OscoreLimits;
pub use metrics::OscoreMetrics;
pub use stream::OscoreStreamCarrier;
pub use tables::Arrived;
pub use tcp::{OscoreAcceptError, OscoreTcpAcceptor};
pub use udp::{Accepted, OscoreUdpConfig, OscoreUdpListener, ServedPeer};

/// What stands where TLS has its cipher suite.
pub const OSCORE_ALGORITHMS: &str = "AES-CCM-16-64-128, HKDF-SHA-256";

/// The largest datagram that is looked at, in octets. More is passed over.
const DATAGRAM_OCTETS_MAX: usize = 8_192;
