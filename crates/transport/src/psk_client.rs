//! The connecting side of Ua* over TLS-PSK (TS 33.535 B.1.3).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use akma::{AKid, Fqdn, KAf, PskIdentity, Separator, UaProtocolId};
use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_openssl::SslStream;

use crate::alert::received_alert;
use crate::ffi;
use crate::profile::{ALPN_HTTP11, ProfileError};
use crate::psk::{ClientKeys, ClientPsk, attach_client_psk, client_psk};
use crate::psk_profile::{self, TlsVersion};
use crate::psk_server::copy_key;

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
    /// Whether HTTP/1.1 is offered by ALPN, which WebSocket begins as.
    pub offer_http: bool,
}

impl Default for PskClientConfig {
    /// Both versions, forward secrecy only, `;`, 15 s, no ALPN.
    fn default() -> Self {
        Self {
            versions: OfferedVersions::default(),
            allow_plain_psk_tls12: false,
            separator: Separator::default(),
            handshake_timeout: Duration::from_secs(15),
            offer_http: false,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientHandshakeError {
    /// The server has no key for the A-KID (`unknown_psk_identity`; in TLS 1.3 `handshake_failure`): authenticate
    /// anew.
    #[error("the server has no key for the A-KID")]
    UnknownIdentity,
    /// The server has another key for the A-KID (`decrypt_error`, `bad_record_mac`): authenticate anew.
    #[error("the server has another key for the A-KID")]
    WrongKey,
    /// The server answers to another name (`unrecognized_name`): the configuration is wrong.
    #[error("the server does not answer to this name")]
    ServerName,
    /// The server cannot look the key up at present (`internal_error`): try later.
    #[error("the server cannot look the key up at present")]
    Busy,
    /// The server closed the connection without a word, most likely at a limit: try later.
    #[error("the server closed the connection before the handshake was done")]
    Closed,
    /// The handshake took too long.
    #[error("the handshake took too long")]
    TimedOut,
    /// No version or suite in common (`protocol_version`, or `handshake_failure` when TLS 1.3 is not offered).
    #[error("the server accepts no version or suite that is offered")]
    NothingInCommon,
    /// The server sent another alert.
    #[error("the server sent alert {0}")]
    Alert(u8),
    /// The server broke the TLS protocol, or tried to prove itself by other means than the key.
    #[error("TLS failed: {0}")]
    Protocol(String),
    /// OpenSSL could not set the connection up.
    #[error("OpenSSL cannot make a connection")]
    OpenSsl(#[from] ErrorStack),
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// Connects by TLS-PSK with K_AF as the key. Cheap to clone.
#[derive(Clone)]
pub struct PskConnector {
    config: PskClientConfig,
    context: SslContext,
}

impl PskConnector {
    /// A connector.
    ///
    /// # Errors
    /// [`ProfileError`] when OpenSSL refuses the profile.
    pub fn new(config: PskClientConfig) -> Result<Self, ProfileError> {
        let mut context = psk_profile::context(SslMethod::tls_client(), config.allow_plain_psk_tls12)?;
        // No authority is trusted, so no server gets past by certificate.
        context.set_verify(SslVerifyMode::PEER);
        match config.versions {
            OfferedVersions::Tls13 => context.set_min_proto_version(Some(SslVersion::TLS1_3))?,
            OfferedVersions::Tls12 => context.set_max_proto_version(Some(SslVersion::TLS1_2))?,
            OfferedVersions::Both => {}
        }
        if config.offer_http {
            context.set_alpn_protos(ALPN_HTTP11)?;
        }
        ffi::use_client_psk(&mut context);
        context.set_psk_client_callback(|ssl, _hint, identity, key| {
            let Some(psk) = client_psk(ssl) else { return Ok(0) };
            let chosen = ffi::pending_cipher_suite(ssl).and_then(|suite| psk.tls12_key(suite));
            let Some(k_af) = chosen else { return Ok(0) };
            // A C string, so one octet more than the identity must fit.
            match identity.get_mut(..=psk.identity().len()).and_then(<[u8]>::split_last_mut) {
                Some((end, place)) => {
                    place.copy_from_slice(psk.identity());
                    *end = 0;
                    Ok(copy_key(k_af.expose(), key))
                }
                None => Ok(0),
            }
        });
        Ok(Self { config, context: context.build() })
    }

    /// Runs one handshake to its end. `key` is asked for the K_AF of each Ua* protocol that may be negotiated, at
    /// most three times, before anything is sent.
    ///
    /// # Errors
    /// [`ClientHandshakeError`], which tells what to do next.
    pub async fn connect(
        &self,
        stream: TcpStream,
        server: &Fqdn,
        a_kid: &AKid,
        key: impl Fn(UaProtocolId) -> KAf,
    ) -> Result<ClientStream, ClientHandshakeError> {
        stream.set_nodelay(true)?;
        let identity = PskIdentity::encode(a_kid, self.config.separator);
        let psk = Arc::new(ClientPsk::new(identity, self.keys(key)));
        let mut session = Ssl::new(&self.context)?;
        session.set_hostname(server.as_str())?;
        attach_client_psk(&mut session, Arc::clone(&psk))?;
        let mut stream = SslStream::new(session, stream)?;
        let handshake = Pin::new(&mut stream).connect();
        timeout(self.config.handshake_timeout, handshake)
            .await
            .map_err(|_| ClientHandshakeError::TimedOut)?
            .map_err(|error| self.meaning(error))?;
        psk.clear();
        // Whatever OpenSSL says: a server is proven only by the key.
        let (tls_version, _, cipher) = psk_profile::outcome(stream.ssl(), self.config.allow_plain_psk_tls12)
            .ok_or_else(|| ClientHandshakeError::Protocol("the handshake did not use the key".to_owned()))?;
        Ok(ClientStream { stream, tls_version, cipher })
    }

    fn keys(&self, key: impl Fn(UaProtocolId) -> KAf) -> ClientKeys {
        let mut keys = ClientKeys::default();
        if self.config.versions != OfferedVersions::Tls12 {
            keys.tls13 = Some(key(UaProtocolId::TLS_1_3));
        }
        if self.config.versions != OfferedVersions::Tls13 {
            let suites = psk_profile::tls12_suites(self.config.allow_plain_psk_tls12);
            keys.tls12 = suites.iter().map(|suite| (*suite, key(UaProtocolId::tls_1_2(*suite)))).collect();
        }
        keys
    }

    fn meaning(&self, error: openssl::ssl::Error) -> ClientHandshakeError {
        let Some(stack) = error.ssl_error() else {
            return match error.into_io_error() {
                Ok(io) if io.kind() == io::ErrorKind::ConnectionReset => ClientHandshakeError::Closed,
                Ok(io) => ClientHandshakeError::Io(io),
                Err(_) => ClientHandshakeError::Closed,
            };
        };
        let reasons = || stack.errors().iter().map(openssl::error::Error::reason_code);
        if reasons().any(|reason| reason == UNEXPECTED_EOF) {
            return ClientHandshakeError::Closed;
        }
        match reasons().find_map(received_alert) {
            Some(20 | 51) => ClientHandshakeError::WrongKey,
            // TLS 1.3 has no better word for it; a client of TLS 1.2 hears `unknown_psk_identity`.
            Some(40) if self.config.versions != OfferedVersions::Tls12 => ClientHandshakeError::UnknownIdentity,
            Some(40 | 70) => ClientHandshakeError::NothingInCommon,
            Some(80) => ClientHandshakeError::Busy,
            Some(112) => ClientHandshakeError::ServerName,
            Some(115) => ClientHandshakeError::UnknownIdentity,
            Some(other) => ClientHandshakeError::Alert(other),
            None => ClientHandshakeError::Protocol(stack.to_string()),
        }
    }
}

/// SSL_R_UNEXPECTED_EOF_WHILE_READING of openssl/sslerr.h.
const UNEXPECTED_EOF: i32 = 294;

/// An established connection: decrypted octets in and out. Closing it (`shutdown`) sends close_notify.
pub struct ClientStream {
    stream: SslStream<TcpStream>,
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

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls_version, cipher, .. } = self;
        write!(f, "ClientStream({tls_version}, {cipher})")
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
