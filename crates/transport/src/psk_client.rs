//! The connecting side of Ua* over TLS-PSK (TS 33.535 B.1.3).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use akma::{AKid, Fqdn, KAf, Separator, UaProtocolId};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::profile::ProfileError;
use crate::psk_server::TlsVersion;

/// Which TLS versions a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OfferedVersions {
    /// TLS 1.3 only.
    Tls13,
    /// TLS 1.2 only.
    Tls12,
    /// TLS 1.3, and TLS 1.2 for a server that lacks it.
    #[default]
    Both,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct PskClientConfig {
    /// TLS versions to offer.
    pub versions: OfferedVersions,
    /// Whether TLS 1.2 without forward secrecy is offered besides ECDHE_PSK.
    pub allow_plain_psk_tls12: bool,
    /// What to send between `3GPP-AKMA` and the A-KID.
    pub separator: Separator,
    /// From the call of `connect` to the end of the handshake.
    pub handshake_timeout: Duration,
}

impl Default for PskClientConfig {
    fn default() -> Self {
        Self {
            versions: OfferedVersions::default(),
            allow_plain_psk_tls12: false,
            separator: Separator::default(),
            handshake_timeout: Duration::from_secs(15),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientHandshakeError {
    /// The server knows no key for the A-KID: authenticate anew.
    #[error("the server does not know the A-KID")]
    UnknownIdentity,
    /// The server has another key for the A-KID: authenticate anew.
    #[error("the server has another key for the A-KID")]
    WrongKey,
    /// The server has another name.
    #[error("the server does not answer to this name")]
    ServerName,
    /// The server is too busy, or cannot reach its key server: try later.
    #[error("the server cannot look up the key at present")]
    Busy,
    /// The server closed the connection in mid-handshake without a word: most likely a limit; try later.
    #[error("the server closed the connection")]
    Closed,
    /// The handshake took too long.
    #[error("the handshake took too long")]
    TimedOut,
    /// Another failure.
    #[error("the handshake failed: {0}")]
    Protocol(String),
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// Connects by TLS-PSK with K_AF as the key.
#[derive(Clone)]
pub struct PskConnector {}

impl PskConnector {
    /// A connector.
    ///
    /// # Errors
    /// [`ProfileError`] when OpenSSL refuses the profile.
    pub fn new(_config: PskClientConfig) -> Result<Self, ProfileError> {
        Ok(Self {})
    }

    /// Runs one handshake to its end. `key` is asked for the K_AF of each Ua* protocol that may be negotiated.
    ///
    /// # Errors
    /// [`ClientHandshakeError`].
    pub async fn connect(
        &self,
        _stream: TcpStream,
        _server: &Fqdn,
        _a_kid: &AKid,
        _key: impl Fn(UaProtocolId) -> KAf,
    ) -> Result<ClientStream, ClientHandshakeError> {
        todo!()
    }
}

/// An established connection: decrypted octets in and out.
pub struct ClientStream {
    stream: Pin<Box<tokio_openssl::SslStream<TcpStream>>>,
    tls_version: TlsVersion,
    cipher: &'static str,
}

impl ClientStream {
    /// The TLS version.
    pub fn tls_version(&self) -> TlsVersion {
        self.tls_version
    }

    /// The cipher suite's IANA name.
    pub fn cipher(&self) -> &'static str {
        self.cipher
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
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
