//! The accepting side of Ua* over TLS-PSK (TS 33.535 B.1.3).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use akma::{AKid, Fqdn, UaProtocolId, UeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::key_lookup::KeyLookup;
use crate::key_source::LookupRefusal;
use crate::profile::ProfileError;

/// How to accept.
#[derive(Debug, Clone)]
pub struct PskServerConfig {
    /// The server's name: clients must ask for it by SNI, and it is part of AF_ID.
    pub fqdn: Fqdn,
    /// Whether TLS 1.2 without forward secrecy (TLS_PSK_WITH_AES_128_GCM_SHA256) is accepted besides ECDHE_PSK.
    pub allow_plain_psk_tls12: bool,
    /// Whether a ClientHello without server name is refused.
    pub require_sni: bool,
    /// From TCP accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Limits on handshakes.
    pub limits: HandshakeLimits,
    /// Development only: secrets of every connection are appended to this file (SSLKEYLOGFILE format).
    pub key_log: Option<PathBuf>,
}

impl PskServerConfig {
    /// The defaults for a server of this name: SNI required, forward secrecy required, 15 s per handshake.
    pub fn new(fqdn: Fqdn) -> Self {
        Self {
            fqdn,
            allow_plain_psk_tls12: false,
            require_sni: true,
            handshake_timeout: Duration::from_secs(15),
            limits: HandshakeLimits::default(),
            key_log: None,
        }
    }
}

/// Every limit on handshakes under way, with the answer when it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandshakeLimits {
    /// Handshakes under way in all. One more is dropped: TCP is closed, no alert.
    pub in_progress_max: usize,
    /// Handshakes under way from one source (an IPv4 address or an IPv6 /64). One more is dropped.
    pub in_progress_per_source_max: usize,
    /// Octets a peer may send before the handshake is done. One more gets `decode_error`.
    pub octets_max: usize,
    /// How long the whole ClientHello may take, in milliseconds; then TCP is closed, no alert.
    pub client_hello_timeout_ms: u64,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            in_progress_max: 4_096,
            in_progress_per_source_max: 256,
            octets_max: 16_384,
            client_hello_timeout_ms: 5_000,
        }
    }
}

/// Why a connection was not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// No key: see the cause.
    #[error("no key for the peer")]
    Lookup(#[from] LookupRefusal),
    /// The handshake took too long.
    #[error("the handshake took too long")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// The TLS version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Who is at the other end, proven by the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenPeer {
    /// The pseudonym the peer proved to hold the key of.
    pub a_kid: AKid,
    /// What the key server calls the UE.
    pub ue_id: Option<UeId>,
    /// When K_AF expires: the connection must not outlive it.
    pub expires_at: Option<SystemTime>,
    /// The Ua* protocol K_AF was derived for.
    pub protocol: UaProtocolId,
    /// The TLS version.
    pub tls_version: TlsVersion,
    /// The cipher suite's IANA name.
    pub cipher: &'static str,
}

/// Accepts TLS-PSK connections whose key is looked up while the handshake waits.
#[derive(Clone)]
pub struct PskAcceptor {
    _lookup: Arc<KeyLookup>,
}

impl PskAcceptor {
    /// An acceptor that asks `lookup`.
    ///
    /// # Errors
    /// [`ProfileError`] when OpenSSL refuses the profile or the key log cannot be opened.
    pub fn new(_config: PskServerConfig, lookup: Arc<KeyLookup>) -> Result<Self, ProfileError> {
        Ok(Self { _lookup: lookup })
    }

    /// Runs one handshake to its end; spawn it, so that a slow peer holds up nobody.
    ///
    /// # Errors
    /// [`HandshakeError`]; the peer has been told what it may know, and the connection is closed.
    pub async fn accept(&self, _stream: TcpStream, _source: SocketAddr) -> Result<SecuredStream, HandshakeError> {
        todo!()
    }
}

/// An accepted connection: decrypted octets in and out.
pub struct SecuredStream {
    stream: Pin<Box<tokio_openssl::SslStream<TcpStream>>>,
    peer: ProvenPeer,
}

impl SecuredStream {
    /// Who is at the other end.
    pub fn peer(&self) -> &ProvenPeer {
        &self.peer
    }
}

impl AsyncRead for SecuredStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for SecuredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}
