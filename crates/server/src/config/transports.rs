//! The sections that say how UEs reach the server: TLS, WebSocket, CoAP over DTLS. Those of OSCORE and HTTPS are beside what
//! serves them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use transport::{DtlsLimits, HandshakeLimits, OpeningLimits};

use crate::limits::DURATION_MAX;

/// `[tls]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// Accept TLS 1.2 without forward secrecy (TLS_PSK_WITH_AES_128_GCM_SHA256), for devices that have no more.
    pub allow_plain_psk_tls12: bool,
    /// Development only: append every connection's secrets to this file.
    pub key_log: Option<PathBuf>,
    /// Limits on handshakes.
    pub handshakes: HandshakeLimits,
}

/// `[websocket]`: CoAP over WebSocket (RFC 8323), for UEs in networks that let only port 443 through. A port of its own, so
/// that neither protocol can be taken for the other; TLS, its limits and who is let in are those of `[server]` and `[tls]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketSection {
    /// Where it is served. Port 0 takes a free one.
    #[serde(default = "default_websocket_listen")]
    pub listen: SocketAddr,
    /// Octets of the request that opens a WebSocket. A longer one is answered 431, and the connection closed.
    #[serde(default = "default_websocket_request_octets_max")]
    pub request_octets_max: usize,
    /// How long that request may take from the end of the TLS handshake. Then it is answered 408, and the connection closed.
    #[serde(default = "default_websocket_request_timeout_seconds")]
    pub request_timeout_seconds: u64,
}

/// `[coaps]`: MSGin5G-1 as CoAP over UDP (RFC 7252) and DTLS (TS 33.535 Annex C).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoapsSection {
    /// Where it is served. Port 0 takes a free one; the same number as that of TCP is free for UDP.
    pub listen: SocketAddr,
    /// Accept cipher suites without forward secrecy (TLS_PSK_WITH_AES_128_GCM_SHA256, AES_128_CCM and AES_128_CCM_8), for
    /// devices that have no more.
    pub allow_plain_psk: bool,
    /// Refuse a client that names no server (SNI). A wrong name always is refused.
    pub require_sni: bool,
    /// A peer that its Connection ID shows at another address has to answer from there before it is sent requests, or
    /// answers that are much larger than what it asked (RFC 9146 clause 6, RFC 9175 clause 2.4).
    pub prove_new_addresses: bool,
    /// A directory where a graceful stop leaves the sessions that rest, sealed, so that the next start goes on with them. None:
    /// they end with the stop. It holds the key, too: not to be backed up, and not to be shared.
    pub sealed_sessions: Option<PathBuf>,
    /// Limits on sessions and handshakes.
    pub dtls: DtlsLimits,
}

impl Default for CoapsSection {
    fn default() -> Self {
        Self {
            listen: default_listen(),
            allow_plain_psk: false,
            require_sni: false,
            prove_new_addresses: true,
            sealed_sessions: None,
            dtls: DtlsLimits::default(),
        }
    }
}

impl WebSocketSection {
    pub(crate) fn opening_limits(&self) -> OpeningLimits {
        OpeningLimits {
            request_octets_max: self.request_octets_max,
            request_timeout: Duration::from_secs(self.request_timeout_seconds),
        }
    }

    /// What is wrong with it: key and reason.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        if self.request_octets_max == 0 {
            Some(("websocket.request_octets_max", "must not be 0"))
        } else if self.request_timeout_seconds == 0 {
            Some(("websocket.request_timeout_seconds", "must not be 0"))
        } else if self.request_timeout_seconds > DURATION_MAX.as_secs() {
            Some(("websocket.request_timeout_seconds", "must not be longer than a hundred years"))
        } else {
            None
        }
    }
}

pub(super) fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 5684))
}

/// The port of `coaps+ws` (RFC 8323 clause 8.4).
fn default_websocket_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 443))
}

/// The fields that RFC 6455 asks for have some 300 octets; whatever a client library adds goes in, too.
fn default_websocket_request_octets_max() -> usize {
    4_096
}

fn default_websocket_request_timeout_seconds() -> u64 {
    10
}
