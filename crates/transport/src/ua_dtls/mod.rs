//! Ua* over DTLS with K_AF as the pre-shared key (TS 33.535 Annex C), on UDP.
//!
//! The protocol is the crate `dtls`; here are the socket, the table of sessions, the key look-up and the limits.
//!
//! ```text
//! socket ─▶ Connection ID known? ─────────────▶ its session ─▶ bounded queue ─▶ whoever has the session
//!    │        no ▼
//!    │      source address known? ────────────▶ its session, a handshake under way first
//!    │        no, or a new ClientHello ▼
//!    │      cookie right? ── no ─▶ HelloVerifyRequest; nothing is kept
//!    │        yes ▼
//!    └────  limits ─▶ DtlsArrival ─▶ key looked up ─▶ DtlsSession
//! ```
//!
//! The reader of a socket never waits for a session, nor for a key: what a session does not take is dropped, as a network
//! drops it. There is no task, timer or channel for each peer here: whoever has an arrival or a session drives it.

mod arrival;
mod client;
mod freezing;
mod listener;
mod peer;
mod session;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use akma::Fqdn;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::handshake_error::HandshakeError;
use crate::profile::ProfileError;
use crate::psk_profile::TlsVersion;

pub use arrival::DtlsArrival;
pub use client::{DtlsClientConfig, DtlsClientSession, DtlsConnector};
pub use dtls::SealingKey;
pub use listener::{DtlsListener, DtlsSocket, RestoredSession};
pub use session::{DtlsLink, DtlsSession};

/// How to accept.
#[derive(Debug, Clone)]
pub struct DtlsServerConfig {
    /// The server's name, which is part of AF_ID: what a client that names a server must ask for.
    pub fqdn: Fqdn,
    /// Whether suites without forward secrecy (TLS_PSK with AES_128_GCM_SHA256, AES_128_CCM, AES_128_CCM_8) are accepted,
    /// too: all that many small devices have.
    pub allow_plain_psk: bool,
    /// Whether a ClientHello without server name is refused. A wrong name always is. Not by default: small stacks (TinyDTLS)
    /// do not have the extension, and the key is derived from the name anyway.
    pub require_sni: bool,
    /// Limits.
    pub limits: DtlsLimits,
    /// Development only: secrets of every session are appended to this file (SSLKEYLOGFILE format).
    pub key_log: Option<PathBuf>,
}

impl DtlsServerConfig {
    /// The defaults for a server of this name: forward secrecy required.
    pub fn new(fqdn: Fqdn) -> Self {
        Self { fqdn, allow_plain_psk: false, require_sni: false, limits: DtlsLimits::default(), key_log: None }
    }
}

/// Every limit on DTLS sessions and their handshakes, with the answer when it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DtlsLimits {
    /// Handshakes under way in all, from addresses that are proven. One more ClientHello is dropped: a client sends it
    /// again.
    pub in_progress_max: usize,
    /// Handshakes under way from one source (an IPv4 address, an IPv6 /64). One more ClientHello is dropped. Judged before
    /// the limit in all.
    pub in_progress_per_source_max: usize,
    /// Sessions, those in their handshake included. One more ClientHello is dropped.
    pub sessions_max: usize,
    /// Datagrams of one session that have been decrypted and not been taken. One more is dropped, as a network drops it.
    pub inbound_datagrams_max: usize,
    /// From the first ClientHello with a cookie to the end of the handshake, in milliseconds, the key look-up included.
    /// Then it ends; with `decrypt_error` if the peer seems to have another key, else without a word.
    pub handshake_timeout_ms: u64,
    /// Octets of a UDP payload that we send. What is larger goes in fragments, in CoAP in blocks. 512 to 4096.
    pub datagram_octets_max: usize,
    /// UDP sockets that share the port, each with a reader of its own. Above 1 the system spreads peers among them, and does
    /// not notice another program that wants the same port.
    pub sockets: usize,
}

impl Default for DtlsLimits {
    fn default() -> Self {
        Self {
            in_progress_max: 4_096,
            in_progress_per_source_max: 256,
            sessions_max: 1_000_000,
            inbound_datagrams_max: 32,
            handshake_timeout_ms: 30_000,
            datagram_octets_max: dtls::limits::DATAGRAM_OCTETS_DEFAULT,
            sockets: 1,
        }
    }
}

impl DtlsLimits {
    /// The first member that cannot work, and why.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        let zero = [
            ("in_progress_max", self.in_progress_max),
            ("in_progress_per_source_max", self.in_progress_per_source_max),
            ("sessions_max", self.sessions_max),
            ("inbound_datagrams_max", self.inbound_datagrams_max),
        ];
        if let Some((member, _)) = zero.into_iter().find(|(_, value)| *value == 0) {
            return Some((member, "must not be 0"));
        }
        if !(1..=HANDSHAKE_MILLISECONDS_MAX).contains(&self.handshake_timeout_ms) {
            return Some(("handshake_timeout_ms", "must be from 1 to 3600000"));
        }
        if !(DATAGRAM_OCTETS_LEAST..=DATAGRAM_READ_OCTETS).contains(&self.datagram_octets_max) {
            return Some(("datagram_octets_max", "must be from 512 to 4096"));
        }
        if !(1..=SOCKETS_MAX).contains(&self.sockets) {
            return Some(("sockets", "must be from 1 to 64"));
        }
        None
    }
}

/// An hour, which is the protocol's limit.
const HANDSHAKE_MILLISECONDS_MAX: u64 = 3_600_000;
/// Below it little but overhead would fit.
const DATAGRAM_OCTETS_LEAST: usize = 512;
const SOCKETS_MAX: usize = 64;

/// Why there is no listener or connector.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DtlsError {
    /// The address cannot be bound: most likely another program has it.
    #[error("UDP address: {0}")]
    Bind(#[from] std::io::Error),
    /// The key log cannot be opened.
    #[error(transparent)]
    KeyLog(#[from] ProfileError),
    /// A limit has a value that cannot work.
    #[error("DTLS: {0}")]
    Dtls(#[from] dtls::Error),
}

/// Octets of a datagram that are read: a server drops a longer one, a client cuts it off, and then it is not authentic. Also
/// the largest `datagram_octets_max`.
const DATAGRAM_READ_OCTETS: usize = 4_096;

/// Octets of the Connection IDs that we give out.
const CONNECTION_ID_OCTETS: usize = 8;

/// What both ends choose, in `session`.
fn choose(session: &mut dtls::SessionConfig, allow_plain_psk: bool, timeout: Duration, datagram_octets_max: usize) {
    if allow_plain_psk {
        // Not every suite: that of DTLS 1.3 with a tag of 8 octets has forward secrecy, and stands few forgeries.
        let plain = dtls::CipherSuite::DTLS12.into_iter().filter(|suite| !suite.is_forward_secret());
        session.cipher_suites = dtls::CipherSuite::FORWARD_SECRET.into_iter().chain(plain).collect();
    }
    session.handshake_timeout = timeout;
    session.datagram_octets_max = datagram_octets_max;
}

/// The version of a cipher suite: those of 1.3 have numbers of their own.
fn version_of(suite: u16) -> TlsVersion {
    if suite >> 8 == 0x13 { TlsVersion::Dtls13 } else { TlsVersion::Dtls12 }
}

/// The IANA name of a cipher suite.
fn name_of(suite: u16) -> &'static str {
    match suite {
        0x1301 => "TLS_AES_128_GCM_SHA256",
        0x1303 => "TLS_CHACHA20_POLY1305_SHA256",
        0x1304 => "TLS_AES_128_CCM_SHA256",
        0x1305 => "TLS_AES_128_CCM_8_SHA256",
        0x00a8 => "TLS_PSK_WITH_AES_128_GCM_SHA256",
        0xc0a4 => "TLS_PSK_WITH_AES_128_CCM",
        0xc0a8 => "TLS_PSK_WITH_AES_128_CCM_8",
        0xccac => "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256",
        0xd001 => "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256",
        0xd005 => "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256",
        _ => "unnamed",
    }
}

impl HandshakeError {
    /// What the protocol's error means.
    fn of_dtls(error: dtls::Error) -> Self {
        match error {
            dtls::Error::HandshakeTimeout { unauthentic: true } => Self::WrongKey,
            dtls::Error::HandshakeTimeout { unauthentic: false } => Self::TimedOut,
            dtls::Error::PeerAlert(alert) => Self::PeerAlert(alert.0),
            dtls::Error::CipherSuite | dtls::Error::Version | dtls::Error::ExtendedMasterSecret => {
                Self::NothingInCommon
            }
            dtls::Error::NoPresharedKey => Self::NoForwardSecrecy,
            dtls::Error::Finished | dtls::Error::Binder => Self::WrongKey,
            other => Self::Dtls(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use dtls::{CipherSuite, ServerConfig};

    use super::*;

    #[test]
    fn plain_psk_adds_the_suites_of_dtls_1_2_that_have_it_and_nothing_else() {
        let suites = |allow_plain_psk| {
            let mut session = ServerConfig::default().session;
            choose(&mut session, allow_plain_psk, Duration::from_secs(1), 1232);
            session.cipher_suites
        };
        assert_eq!(suites(false), CipherSuite::FORWARD_SECRET);
        let plain = [CipherSuite::PskAes128Gcm, CipherSuite::PskAes128Ccm, CipherSuite::PskAes128Ccm8];
        assert_eq!(suites(true), [&CipherSuite::FORWARD_SECRET[..], &plain].concat());
    }
}
