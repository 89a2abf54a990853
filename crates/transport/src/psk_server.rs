//! The accepting side of Ua* over TLS-PSK (TS 33.535 B.1.3).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use akma::{AKid, Fqdn, Gpsi, UaProtocolId, UeId};
use openssl::ssl::{AlpnError, SslContext, SslContextBuilder, SslMethod, select_next_proto};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;
use tracing::{debug, info, warn};

use crate::admission::{Admission, Full};
use crate::detached::Detached;
use crate::ffi;
use crate::gate::Gate;
use crate::handshake::Handshake;
use crate::handshake_error::HandshakeError;
use crate::key_lookup::KeyLookup;
use crate::limit::{Limit, LimitFault};
use crate::log_throttle::LogThrottle;
use crate::profile::{ALPN_HTTP11, ProfileError};
use crate::psk::server_psk;
use crate::psk_profile::{self, TlsVersion};
use crate::record_layer::RECORDS_PER_KEY_MAX;

/// How to accept.
#[derive(Debug, Clone)]
pub struct PskServerConfig {
    /// The server's name: clients must ask for it by SNI, and it is part of AF_ID.
    pub fqdn: Fqdn,
    /// Whether TLS 1.2 without forward secrecy (TLS_PSK_WITH_AES_128_GCM_SHA256) is accepted besides ECDHE_PSK.
    pub allow_plain_psk_tls12: bool,
    /// Whether a ClientHello without server name is refused. A wrong name always is.
    pub require_sni: bool,
    /// From TCP accept to the end of the handshake; then TCP is closed, no alert.
    pub handshake_timeout: Duration,
    /// Limits on handshakes.
    pub limits: HandshakeLimits,
    /// Development only: secrets of every connection are appended to this file (SSLKEYLOGFILE format). The
    /// environment variable of that name is never read.
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
    /// Handshakes under way from one source (an IPv4 address, an IPv6 /64). One more is dropped: TCP is closed, no
    /// alert. Judged before the limit in all, so that one source cannot shut out the others.
    pub in_progress_per_source_max: usize,
    /// Octets a peer may send before the handshake is done. One more gets `decode_error`.
    pub octets_max: usize,
    /// How long the whole ClientHello may take, in milliseconds; then TCP is closed, no alert.
    pub client_hello_timeout_ms: u64,
    /// Records that we send under one key of TLS 1.3; then a KeyUpdate goes first. At most, and by default,
    /// [`RECORDS_PER_KEY_MAX`].
    pub records_per_key_max: u64,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            in_progress_max: 4_096,
            in_progress_per_source_max: 256,
            octets_max: 16_384,
            client_hello_timeout_ms: 5_000,
            records_per_key_max: RECORDS_PER_KEY_MAX,
        }
    }
}

impl HandshakeLimits {
    /// The limit that makes no sense, and what it must be.
    #[must_use]
    pub fn fault(&self) -> Option<LimitFault> {
        Limit::fault([
            Limit::count("in_progress_max", self.in_progress_max),
            Limit::count("in_progress_per_source_max", self.in_progress_per_source_max),
            // A ClientHello alone has some hundred octets.
            Limit::within("octets_max", u64::try_from(self.octets_max).unwrap_or(u64::MAX), 512..=1_048_576),
            Limit::milliseconds("client_hello_timeout_ms", self.client_hello_timeout_ms),
            Limit::within("records_per_key_max", self.records_per_key_max, 1..=u64::MAX),
        ])
    }
}

/// Who is at the other end, proven by the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenPeer {
    /// The pseudonym whose key the peer holds.
    pub a_kid: AKid,
    /// What the key server calls the UE; `None` when it would not tell, and then nothing can be authorised.
    pub ue_id: Option<UeId>,
    /// The UE's GPSI, where the key server tells it, alone or beside the SUPI.
    pub gpsi: Option<Gpsi>,
    /// When K_AF expires: the connection must not outlive it.
    pub expires_at: Option<SystemTime>,
    /// When the key server was asked for K_AF: of what it has learnt since, such as a newer A-KID of the UE, the handshake knows
    /// nothing.
    pub asked_at: tokio::time::Instant,
    /// The Ua* protocol K_AF was derived for.
    pub protocol: UaProtocolId,
    /// The version of TLS or DTLS.
    pub tls_version: TlsVersion,
    /// The cipher suite's IANA name.
    pub cipher: &'static str,
}

/// Accepts TLS-PSK connections whose key is looked up while the handshake waits. Cheap to clone.
#[derive(Clone)]
pub struct PskAcceptor {
    shared: Arc<Acceptor>,
}

/// What all handshakes share.
pub(crate) struct Acceptor {
    pub(crate) config: PskServerConfig,
    pub(crate) context: SslContext,
    pub(crate) lookup: Arc<KeyLookup>,
    admission: Arc<Admission>,
    key_log: Option<Arc<KeyLog>>,
}

impl PskAcceptor {
    /// An acceptor that asks `lookup`.
    ///
    /// # Errors
    /// [`ProfileError`] when OpenSSL refuses the profile or the key log cannot be opened.
    pub fn new(config: PskServerConfig, lookup: Arc<KeyLookup>) -> Result<Self, ProfileError> {
        let key_log = config.key_log.as_deref().map(KeyLog::open).transpose()?.map(Arc::new);
        let context = context(&config, key_log.clone())?.build();
        let admission = Admission::new(config.limits.in_progress_max, config.limits.in_progress_per_source_max);
        Ok(Self { shared: Arc::new(Acceptor { config, context, lookup, admission, key_log }) })
    }

    /// The same for a port where HTTP/1.1 is spoken, which WebSocket begins as: a client that offers protocols (ALPN)
    /// without `http/1.1` gets `no_application_protocol`, one that offers none is taken. Limits on handshakes count both
    /// ports' together.
    ///
    /// # Errors
    /// [`ProfileError`] when OpenSSL refuses the profile.
    pub fn for_http(&self) -> Result<Self, ProfileError> {
        let Acceptor { config, lookup, admission, key_log, .. } = &*self.shared;
        let mut context = context(config, key_log.clone())?;
        context.set_alpn_select_callback(|_, offered| {
            select_next_proto(ALPN_HTTP11, offered).ok_or(AlpnError::ALERT_FATAL)
        });
        Ok(Self {
            shared: Arc::new(Acceptor {
                config: config.clone(),
                context: context.build(),
                lookup: Arc::clone(lookup),
                admission: Arc::clone(admission),
                key_log: key_log.clone(),
            }),
        })
    }

    /// Runs one handshake to its end. Spawn it, so that a slow peer holds up nobody; what it may cost is limited
    /// here.
    ///
    /// # Errors
    /// [`HandshakeError`]; the peer has been told what it may know, and the connection is closed.
    pub async fn accept(&self, stream: TcpStream, source: SocketAddr) -> Result<SecuredStream, HandshakeError> {
        let metrics = self.shared.lookup.metrics();
        let begun = Instant::now();
        let result = match self.shared.admission.admit(source.ip()) {
            Ok(_slot) => {
                let _in_progress = metrics.handshake_begins();
                // On the heap: the handshake's state is not worth carrying once the connection stands.
                Box::pin(Handshake::run(&self.shared, stream, source.ip())).await
            }
            Err(full) => {
                let (limit, error) = match full {
                    Full::Source => ("in_progress_per_source_max", HandshakeError::TooManyFromSource),
                    Full::All => ("in_progress_max", HandshakeError::TooMany),
                };
                if let Some(unlogged) = DROPPED.admit() {
                    warn!(target: "security", %source, limit, unlogged, "connection dropped at a limit");
                }
                Err(error)
            }
        };
        match &result {
            Ok(secured) => {
                metrics.handshake_ended("accepted");
                metrics.handshake_took(begun.elapsed());
                let ProvenPeer { a_kid, tls_version, cipher, .. } = secured.peer();
                info!(target: "security", %source, %a_kid, %tls_version, cipher, "peer proven");
            }
            Err(error) => metrics.handshake_ended(error.label()),
        }
        result
    }
}

/// A context whose key is looked up from outside.
fn context(config: &PskServerConfig, key_log: Option<Arc<KeyLog>>) -> Result<SslContextBuilder, ProfileError> {
    let mut context = psk_profile::context(SslMethod::tls_server(), config.allow_plain_psk_tls12)?;
    ffi::use_server_psk(&mut context, psk_profile::IDENTITY_HINT)?;
    context.set_psk_server_callback(|ssl, identity, key| {
        let found = server_psk(ssl).zip(identity).and_then(|(psk, identity)| psk.key_of(identity));
        Ok(found.map_or(0, |k_af| copy_key(k_af.expose(), key)))
    });
    context.set_keylog_callback(move |ssl, line| {
        if let Some(psk) = server_psk(ssl) {
            psk.collect(line);
        }
        if let Some(key_log) = &key_log {
            key_log.append(line);
        }
    });
    Ok(context)
}

/// Copies a key into OpenSSL's buffer; 0, which means "no key", when it does not fit.
pub(crate) fn copy_key(key: &[u8], into: &mut [u8]) -> usize {
    match into.get_mut(..key.len()) {
        Some(place) => {
            place.copy_from_slice(key);
            key.len()
        }
        None => 0,
    }
}

/// The file that secrets are written to.
pub(crate) struct KeyLog(Mutex<File>);

impl KeyLog {
    pub(crate) fn open(path: &Path) -> Result<Self, ProfileError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| ProfileError::Unreadable { path: path.to_owned(), source })?;
        warn!(target: "security", path = %path.display(), "TLS secrets are written to a file: development only");
        Ok(Self(Mutex::new(file)))
    }

    pub(crate) fn append(&self, line: &str) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{line}") {
            debug!(%error, "the key log cannot be written");
        }
    }
}

/// An accepted connection: decrypted octets in and out. What was written has left when a flush says so. Closing it
/// (`shutdown`) sends close_notify.
pub struct SecuredStream {
    stream: Secured,
    peer: ProvenPeer,
}

/// Who protects the records.
enum Secured {
    /// TLS 1.2.
    OpenSsl(SslStream<Gate<TcpStream>>),
    /// TLS 1.3.
    Detached(Box<Detached>),
}

impl SecuredStream {
    pub(crate) fn over_openssl(stream: SslStream<Gate<TcpStream>>, peer: ProvenPeer) -> Self {
        Self { stream: Secured::OpenSsl(stream), peer }
    }

    pub(crate) fn detached(stream: Detached, peer: ProvenPeer) -> Self {
        Self { stream: Secured::Detached(Box::new(stream)), peer }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &ProvenPeer {
        &self.peer
    }
}

impl fmt::Debug for SecuredStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecuredStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncRead for SecuredStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Secured::OpenSsl(stream) => Pin::new(stream).poll_read(cx, buf),
            Secured::Detached(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for SecuredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Secured::OpenSsl(stream) => Pin::new(stream).poll_write(cx, octets),
            Secured::Detached(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Secured::OpenSsl(stream) => Pin::new(stream).poll_flush(cx),
            Secured::Detached(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Secured::OpenSsl(stream) => Pin::new(stream).poll_shutdown(cx),
            Secured::Detached(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Anybody can cause it over and over.
static DROPPED: LogThrottle = LogThrottle::new();
