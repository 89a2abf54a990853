//! The server side: HTTP/2 over mutual TLS, with every limit in [`ServerLimits`].
//!
//! A connection's life: accept → handshake slot → TLS with client certificate → `h2` by ALPN → connection slot →
//! HTTP/2 until the peer leaves, stops answering pings, floods, loses its certificate, or the server drains. A request's:
//! request slot → body, or what says that it may be sent → handler (the asking side's patience or ours, whichever is shorter;
//! panics caught) → answer.
//!
//! Devices, which prove themselves in their requests, may speak HTTP/1.1: [`SbiServer::start_for_devices`].

mod bodies;
mod devices;
mod limits;
mod refusal;

pub use bodies::read_body;
pub(crate) use bodies::whole;
pub use devices::DeviceTls;
pub(crate) use devices::tls_of;
pub(crate) use limits::HEADER_LIST_BYTES;
pub use limits::ServerLimits;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use openssl::ssl::Ssl;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::Instrument;
use transport::capif::{Tls12Session, tls12_session};
use transport::profile::{
    CertificateFiles, PeerCertificates, PeerIdentity, ReloadOutcome, ReloadingContext, peer_certificates, peer_identity,
};
use transport::{ApiPskAcceptor, ApiPskStream, LogThrottle, Source};

use self::refusal::Refusal;
use crate::answers::Answers;
use crate::audit::{Audit, subject};
use crate::authorization::{Authorizer, FromNetwork, NdsIpConfig};
use crate::error::SbiError;
use crate::flood_guard::FloodGuard;
use crate::metrics::ServerMetrics;
use crate::problem::{ProblemDetails, cause};
use crate::slots::{Full, Slot, Slots};
use crate::{correlation, deadline};
use bodies::{Bodies, Reading};

/// What a server listens with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SbiServerConfig {
    /// Where to listen; port 0 takes a free one, told by [`SbiServer::local_addr`].
    pub listen: SocketAddr,
    /// Own certificate and key, and the authority client certificates must come from.
    pub tls: CertificateFiles,
    /// The limits; all have defaults.
    #[serde(default)]
    pub limits: ServerLimits,
}

/// A running server. Dropping it does not stop it: cancel the token it was started with.
#[derive(Debug)]
pub struct SbiServer {
    local_addr: SocketAddr,
    tasks: TaskTracker,
    /// Listeners without TLS, in the order of the configuration.
    protected_networks: Vec<SbiServer>,
}

impl SbiServer {
    /// Binds, and serves `router` until `shutdown` is cancelled; then takes no more connections, lets requests
    /// under way finish within the drain time, and closes.
    ///
    /// Handlers find who asks in the request extension [`PeerIdentity`] and from where in
    /// [`ConnectInfo`]`<SocketAddr>`. Unknown paths and methods are answered in problem details.
    ///
    /// # Errors
    /// [`SbiError::Tls`] for an unusable certificate, key or authority; [`SbiError::Listen`] for the address.
    pub async fn start(config: SbiServerConfig, router: Router, shutdown: CancellationToken) -> Result<Self, SbiError> {
        Self::start_observed(config, router, shutdown, ServerMetrics::default()).await
    }

    /// [`SbiServer::start`], counting into `metrics`.
    ///
    /// # Errors
    /// As [`SbiServer::start`].
    pub async fn start_observed(
        config: SbiServerConfig,
        router: Router,
        shutdown: CancellationToken,
        metrics: ServerMetrics,
    ) -> Result<Self, SbiError> {
        Self::start_reading(config, Reading::AtOnce, router, shutdown, metrics.into()).await
    }

    /// [`SbiServer::start_observed`] for a `router` that finds by the head of a request whether its sender may ask: a body is
    /// read when a handler's [`Json`](crate::Json) or [`WholeBody`](crate::WholeBody) asks for it, and one that nobody asks for
    /// is not waited for.
    ///
    /// # Errors
    /// As [`SbiServer::start`].
    pub async fn start_admitting(
        config: SbiServerConfig,
        router: Router,
        shutdown: CancellationToken,
        metrics: ServerMetrics,
    ) -> Result<Self, SbiError> {
        Self::start_reading(config, Reading::OnceAdmitted, router, shutdown, metrics.into()).await
    }

    /// With certificates of clients.
    async fn start_reading(
        config: SbiServerConfig,
        reading: Reading,
        router: Router,
        shutdown: CancellationToken,
        observers: Observers,
    ) -> Result<Self, SbiError> {
        let strict_server_name = config.limits.unknown_server_name_refused;
        let proof = PeerProof::Certificate(Arc::new(ReloadingContext::server(config.tls, strict_server_name)?));
        Self::listen(config.listen, config.limits, proof, reading, |_| router, shutdown, observers).await
    }

    /// [`SbiServer::start_observed`] behind `authorizer`, which also says for which networks the same router is served
    /// without TLS, and where. `router` must be protected by that authorizer, which has the body read of what it allows; a
    /// handler outside it reads its own.
    ///
    /// # Errors
    /// As [`SbiServer::start`].
    pub async fn start_authorized(
        config: SbiServerConfig,
        router: Router,
        authorizer: &Authorizer,
        shutdown: CancellationToken,
        metrics: ServerMetrics,
    ) -> Result<Self, SbiError> {
        let limits = config.limits.clone();
        let mut protected_networks = Vec::new();
        for statement in authorizer.protected_networks() {
            tracing::warn!(target: "security", address = %statement.listen, protected_by = statement.protected_by,
                "served without TLS to networks that are stated to be protected below IP");
            let proof = PeerProof::SourceNetwork(statement.clone());
            let observers = Observers { metrics: metrics.clone(), audit: authorizer.audit().clone() };
            let (router, shutdown) = (router.clone(), shutdown.clone());
            let reading = Reading::OnceAdmitted;
            let listener =
                Self::listen(statement.listen, limits.clone(), proof, reading, |_| router, shutdown, observers);
            protected_networks.push(listener.await?);
        }
        let observers = Observers { metrics, audit: authorizer.audit().clone() };
        let server = Self::start_reading(config, Reading::OnceAdmitted, router, shutdown, observers).await?;
        Ok(Self { protected_networks, ..server })
    }

    /// [`SbiServer::start_admitting`] for CAPIF-1e: a client may come without a certificate, and then has no [`PeerIdentity`]
    /// extension. The session of a connection with TLS 1.2 is there as
    /// [`Arc`]`<`[`Tls12Session`]`>`. `router` is given the address bound, before the first request.
    ///
    /// # Errors
    /// As [`SbiServer::start`].
    pub async fn start_optional_certificate(
        config: SbiServerConfig,
        router: impl FnOnce(SocketAddr) -> Router,
        shutdown: CancellationToken,
        metrics: ServerMetrics,
    ) -> Result<Self, SbiError> {
        let strict_server_name = config.limits.unknown_server_name_refused;
        let tls = ReloadingContext::server_for_any_client(config.tls, strict_server_name)?;
        let proof = PeerProof::CertificateIfShown(Arc::new(tls));
        Self::listen(config.listen, config.limits, proof, Reading::OnceAdmitted, router, shutdown, metrics.into()).await
    }

    /// [`SbiServer::start_admitting`] for CAPIF-2e with TLS-PSK: instead of a [`PeerIdentity`], requests have the extension
    /// [`PskPeer`].
    ///
    /// # Errors
    /// [`SbiError::Listen`] for the address.
    pub async fn start_psk(
        listen: SocketAddr,
        limits: ServerLimits,
        acceptor: ApiPskAcceptor,
        router: Router,
        shutdown: CancellationToken,
        metrics: ServerMetrics,
    ) -> Result<Self, SbiError> {
        let proof = PeerProof::PreSharedKey(acceptor);
        Self::listen(listen, limits, proof, Reading::OnceAdmitted, |_| router, shutdown, metrics.into()).await
    }

    /// [`SbiServer::start_observed`] for devices (TS 33.535 Annex B.1.2): none has a certificate, `router` has them prove
    /// themselves, and reads the bodies of those that may send one ([`read_body`]); HTTP/2 and HTTP/1.1. Of `config.tls`, the authority is not used. Requests have the extension [`DeviceTls`].
    ///
    /// # Errors
    /// As [`SbiServer::start`].
    pub async fn start_for_devices(
        config: SbiServerConfig,
        router: Router,
        shutdown: CancellationToken,
        metrics: ServerMetrics,
    ) -> Result<Self, SbiError> {
        let strict_server_name = config.limits.unknown_server_name_refused;
        let tls = ReloadingContext::server_for_devices(config.tls, strict_server_name)?;
        let proof = PeerProof::InRequests(Arc::new(tls));
        let reading = Reading::OnceAdmitted;
        Self::listen(config.listen, config.limits, proof, reading, |_| router, shutdown, metrics.into()).await
    }

    async fn listen(
        listen: SocketAddr,
        limits: ServerLimits,
        proof: PeerProof,
        reading: Reading,
        router: impl FnOnce(SocketAddr) -> Router,
        shutdown: CancellationToken,
        observers: Observers,
    ) -> Result<Self, SbiError> {
        let listener =
            TcpListener::bind(listen).await.map_err(|source| SbiError::Listen { address: listen, source })?;
        let local_addr = listener.local_addr().map_err(|source| SbiError::Listen { address: listen, source })?;
        let router = router(local_addr)
            .method_not_allowed_fallback(async || ProblemDetails::new(StatusCode::METHOD_NOT_ALLOWED))
            .fallback(async || ProblemDetails::not_found(cause::RESOURCE_URI_STRUCTURE_NOT_FOUND))
            .layer(DefaultBodyLimit::max(limits.request_body_bytes_max));
        let shared = Arc::new(Shared {
            proof,
            router,
            connections: Slots::new(limits.connections_max, limits.connections_per_peer_max),
            handshakes: Slots::new(limits.handshakes_max, limits.handshakes_per_source_max),
            requests: Arc::new(Semaphore::new(limits.requests_max)),
            bodies: Bodies::new(reading, &limits, &observers.metrics),
            limits,
            metrics: observers.metrics,
            audit: observers.audit,
            interface: local_addr.to_string(),
            reloads: watch::Sender::default(),
            shutdown,
        });
        let tasks = TaskTracker::new();
        if let Some(tls) = shared.proof.files() {
            tasks.spawn(follow_files(Arc::clone(tls), Arc::clone(&shared)));
        }
        tasks.spawn(accept_connections(listener, shared, tasks.clone()));
        tasks.close();
        Ok(Self { local_addr, tasks, protected_networks: Vec::new() })
    }

    /// The address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The addresses bound for networks that are protected below IP, in the order of the configuration.
    pub fn protected_network_addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.protected_networks.iter().map(|listener| listener.local_addr)
    }

    /// Waits until the server has stopped: token cancelled, last connection closed.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
        for listener in &self.protected_networks {
            listener.tasks.wait().await;
        }
    }
}

/// Who is told what becomes of connections and requests. The audit is a function's where it has one for its decisions.
struct Observers {
    metrics: ServerMetrics,
    audit: Audit,
}

impl From<ServerMetrics> for Observers {
    fn from(metrics: ServerMetrics) -> Self {
        Self { metrics, audit: Audit::default() }
    }
}

/// How a server has its peers prove who they are.
enum PeerProof {
    Certificate(Arc<ReloadingContext>),
    CertificateIfShown(Arc<ReloadingContext>),
    InRequests(Arc<ReloadingContext>),
    PreSharedKey(ApiPskAcceptor),
    SourceNetwork(NdsIpConfig),
}

impl PeerProof {
    fn files(&self) -> Option<&Arc<ReloadingContext>> {
        match self {
            Self::Certificate(tls) | Self::CertificateIfShown(tls) | Self::InRequests(tls) => Some(tls),
            Self::PreSharedKey(_) | Self::SourceNetwork(_) => None,
        }
    }
}

/// Put into an answer's extensions by a handler whose body ends when it ends: [`ServerLimits::answer_timeout_seconds`] is for
/// each piece of it instead of the whole. The handler bounds what such an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongAnswer;

/// Whom a connection was opened with a pre-shared key by: the identity whose key the peer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PskPeer(pub String);

struct Shared {
    proof: PeerProof,
    router: Router,
    connections: Arc<Slots<Holder>>,
    handshakes: Arc<Slots<Source>>,
    requests: Arc<Semaphore>,
    bodies: Arc<Bodies>,
    limits: ServerLimits,
    metrics: ServerMetrics,
    audit: Audit,
    /// Where it listens, for the audit.
    interface: String,
    /// Told whenever certificate, key, authorities or CRL were taken anew.
    reloads: watch::Sender<()>,
    shutdown: CancellationToken,
}

/// Looks at the files now and then, and tells the connections of a change.
async fn follow_files(tls: Arc<ReloadingContext>, shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(shared.limits.reload_interval_seconds)) => {}
            () = shared.shutdown.cancelled() => return,
        }
        let looked = Arc::clone(&tls);
        // A panic in there would be ours; the old files then serve on.
        let Ok(outcome) = tokio::task::spawn_blocking(move || looked.refresh()).await else { continue };
        match outcome {
            ReloadOutcome::Reloaded => {
                shared.metrics.files_reloaded("reloaded");
                shared.reloads.send_replace(());
            }
            ReloadOutcome::Failed(_) => shared.metrics.files_reloaded("failed"),
            _ => {}
        }
    }
}

async fn accept_connections(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.shutdown.cancelled() => return,
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: what is open may close meanwhile.
                if let Some(unlogged) = NOT_ACCEPTED.admit() {
                    tracing::warn!(target: "security", %error, unlogged, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = shared.handshakes.take(Source::from(source.ip())) else {
            shared.metrics.connection_refused("handshakes_max");
            tracing::debug!(target: "security", %source, "too many handshakes under way, connection closed");
            continue;
        };
        tasks.spawn(serve_connection(stream, source, slot, Arc::clone(&shared)));
    }
}

async fn serve_connection(stream: TcpStream, source: SocketAddr, slot: Slot<Source>, shared: Arc<Shared>) {
    let handshake = async {
        let authenticated =
            timeout(Duration::from_secs(shared.limits.handshake_timeout_seconds), prove(stream, source, &shared.proof));
        tokio::select! {
            outcome = authenticated => outcome.unwrap_or(Err(Refusal::new("handshake_timeout", "no handshake in time"))),
            () = shared.shutdown.cancelled() => Err(Refusal::new("stopping", "the server stops")),
        }
    };
    let outcome = handshake.await;
    drop(slot);
    let Proven { stream, peer, certificates } = match outcome {
        Ok(proven) => proven,
        Err(refusal) => {
            shared.metrics.connection_refused(refusal.kind);
            if let Some(unlogged) = REFUSED.admit() {
                tracing::info!(target: "security", %source, kind = refusal.kind, reason = %refusal.reason, unlogged,
                    "connection refused");
            }
            if let Some(reason) = refusal.decision {
                // Whoever has proven nothing has no name but where it comes from.
                let subject = source.ip().to_canonical().to_string();
                shared.audit.refused_for(&subject, CONNECT, &shared.interface, reason);
            }
            return;
        }
    };
    let holder = Holder::of(&peer, source);
    let _slot = match shared.connections.take(holder.clone()) {
        Ok(slot) => slot,
        Err(full) => {
            let limit = if full == Full::Total { "connections_max" } else { "connections_per_peer_max" };
            shared.metrics.connection_refused(limit);
            if let Some(unlogged) = TOO_MANY.admit() {
                tracing::warn!(target: "security", %source, limit, unlogged, "too many connections open, connection closed");
            }
            return;
        }
    };
    let _open = shared.metrics.connection_opened();
    let name = peer.certificate.as_ref().map(|certificate| subject(certificate).to_owned());
    let served = async {
        match stream {
            Secured::Certificate(stream) => serve_http2(stream, source, peer, holder, &shared).await,
            Secured::PreSharedKey(stream) => serve_http2(stream, source, peer, holder, &shared).await,
            Secured::BelowIp(stream) => serve_http2(stream, source, peer, holder, &shared).await,
            Secured::Device(stream) => devices::serve(stream, source, peer, holder, &shared).await,
        }
    };
    tokio::select! {
        () = served => {}
        reason = withdrawn(certificates, &shared) => {
            shared.metrics.connection_withdrawn();
            tracing::warn!(target: "security", %source, reason, "certificate withdrawn, connection closed");
            shared.audit.refused_for(name.as_deref().unwrap_or_default(), CONNECT, &shared.interface, "certificate_withdrawn");
        }
    }
}

/// A connection that has proven who is at its other end.
struct Proven {
    stream: Secured,
    peer: Peer,
    certificates: Option<Shown>,
}

/// The certificates that a peer has shown, and when they were verified.
struct Shown {
    certificates: PeerCertificates,
    tls: Arc<ReloadingContext>,
    generation: u64,
}

/// Waits until the peer could not prove itself any more: with `None`, for ever.
async fn withdrawn(shown: Option<Shown>, shared: &Shared) -> &'static str {
    let Some(mut shown) = shown else { return std::future::pending().await };
    let mut reloads = shared.reloads.subscribe();
    loop {
        let generation = shown.tls.generation();
        let mut due = generation != shown.generation;
        if !due {
            tokio::select! {
                // The sender lives as long as this connection.
                _ = reloads.changed() => {}
                () = tokio::time::sleep(Duration::from_secs(shared.limits.reverify_interval_seconds)) => due = true,
            }
        }
        if due {
            shown.generation = generation;
            if let Err(refusal) = shown.tls.vouches_for(&shown.certificates) {
                return refusal.error_string();
            }
        }
    }
}

enum Secured {
    Certificate(SslStream<TcpStream>),
    PreSharedKey(ApiPskStream),
    BelowIp(TcpStream),
    Device(SslStream<TcpStream>),
}

/// What a connection proved, as its requests' extensions have it.
#[derive(Clone, Default)]
struct Peer {
    certificate: Option<PeerIdentity>,
    session: Option<Arc<Tls12Session>>,
    psk: Option<PskPeer>,
    network: Option<FromNetwork>,
    device: Option<DeviceTls>,
}

/// Whose a connection is, for counting.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Holder {
    NfInstance(String),
    Certificate([u8; 32]),
    PreSharedKey(String),
    Source(Source),
}

impl Holder {
    fn of(peer: &Peer, source: SocketAddr) -> Self {
        let by_source = || Self::Source(Source::from(source.ip()));
        if peer.network.is_some() {
            return by_source();
        }
        if let Some(PskPeer(identity)) = &peer.psk {
            return Self::PreSharedKey(identity.clone());
        }
        let Some(certificate) = &peer.certificate else { return by_source() };
        let instance = certificate.nf_instance_id.clone().map(Self::NfInstance);
        instance.or(certificate.certificate_sha256.map(Self::Certificate)).unwrap_or_else(by_source)
    }
}

async fn prove(stream: TcpStream, source: SocketAddr, proof: &PeerProof) -> Result<Proven, Refusal> {
    match proof {
        PeerProof::Certificate(tls) => {
            let (stream, certificate, certificates) = authenticate(stream, tls).await?;
            let missing = || Refusal::new("certificate", "no client certificate").decided("certificate_missing");
            let certificate = certificate.ok_or_else(missing)?;
            let peer = Peer { certificate: Some(certificate), ..Peer::default() };
            Ok(Proven { stream: Secured::Certificate(stream), peer, certificates })
        }
        PeerProof::CertificateIfShown(tls) => {
            let (stream, certificate, certificates) = authenticate(stream, tls).await?;
            let session = tls12_session(stream.ssl()).map(Arc::new);
            let peer = Peer { certificate, session, ..Peer::default() };
            Ok(Proven { stream: Secured::Certificate(stream), peer, certificates })
        }
        PeerProof::InRequests(tls) => {
            let stream = devices::accept(stream, tls).await?;
            let peer = Peer { device: devices::tls_of(&stream), ..Peer::default() };
            Ok(Proven { stream: Secured::Device(stream), peer, certificates: None })
        }
        PeerProof::PreSharedKey(acceptor) => {
            let refused = |error| Refusal::new("psk", error).decided("psk_refused");
            let stream = acceptor.accept(stream, source.ip()).await.map_err(refused)?;
            if !stream.speaks_http2() {
                return Err(Refusal::new("alpn", "the client did not offer h2"));
            }
            let peer = Peer { psk: Some(PskPeer(stream.identity().to_owned())), ..Peer::default() };
            Ok(Proven { stream: Secured::PreSharedKey(stream), peer, certificates: None })
        }
        PeerProof::SourceNetwork(statement) => {
            let stream = from_network(stream, source, statement).await?;
            let peer = Peer { certificate: Some(statement.peer()), network: Some(FromNetwork), ..Peer::default() };
            Ok(Proven { stream: Secured::BelowIp(stream), peer, certificates: None })
        }
    }
}

/// A connection from one of the networks, whose client has begun to speak.
async fn from_network(stream: TcpStream, source: SocketAddr, statement: &NdsIpConfig) -> Result<TcpStream, Refusal> {
    if !statement.networks.iter().any(|network| network.contains(source.ip())) {
        let stranger = Refusal::new("nds_ip_source", "the source is in none of the protected networks");
        return Err(stranger.decided("network_not_stated"));
    }
    stream.set_nodelay(true).map_err(|error| Refusal::new("socket", error))?;
    match stream.peek(&mut [0]).await {
        Ok(1) => Ok(stream),
        Ok(_) => Err(Refusal::new("closed", "the client left without a request")),
        Err(error) => Err(Refusal::new("socket", error)),
    }
}

async fn authenticate(
    stream: TcpStream,
    tls: &Arc<ReloadingContext>,
) -> Result<(SslStream<TcpStream>, Option<PeerIdentity>, Option<Shown>), Refusal> {
    // Before the context: a change in between makes us look twice, not never.
    let generation = tls.generation();
    // Small answers must not wait for the peer's acknowledgement of earlier ones.
    stream.set_nodelay(true).map_err(|error| Refusal::new("socket", error))?;
    let ssl = Ssl::new(&tls.current()).map_err(|error| Refusal::new("tls", error))?;
    let mut stream = SslStream::new(ssl, stream).map_err(|error| Refusal::new("tls", error))?;
    let accepted = Pin::new(&mut stream).accept().await;
    accepted.map_err(|error| Refusal::of_handshake(&error, stream.ssl().verify_result()))?;
    // A client without ALPN at all passes the context's selection; HTTP/2 needs it (RFC 9113 clause 3.2).
    if stream.ssl().selected_alpn_protocol() != Some(b"h2") {
        return Err(Refusal::new("alpn", "the client did not offer h2"));
    }
    let peer = peer_identity(stream.ssl());
    let shown =
        peer_certificates(stream.ssl()).map(|certificates| Shown { certificates, tls: Arc::clone(tls), generation });
    if peer.is_some() != shown.is_some() {
        return Err(Refusal::new("tls", "the certificate chain cannot be kept"));
    }
    // HTTP/2 clients speak first and at once (RFC 9113 clause 3.4); pings watch over a connection only after that.
    match Pin::new(&mut stream).peek(&mut [0]).await {
        Ok(1) => {}
        Ok(_) => return Err(Refusal::new("closed", "the client left without a request")),
        Err(error) => return Err(Refusal::new("tls", error)),
    }
    Ok((stream, peer, shown))
}

async fn serve_http2<S>(stream: S, source: SocketAddr, peer: Peer, holder: Holder, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &shared.limits;
    let drain_timeout = Duration::from_secs(limits.drain_timeout_seconds);
    let answers = Arc::new(Answers::default());
    let service = PeerService { source, peer, holder, answers: Arc::clone(&answers), shared: Arc::clone(shared) };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection_max)
        .max_header_list_size(limits.header_list_bytes_max)
        .max_pending_accept_reset_streams(limits.reset_streams_max)
        .max_local_error_reset_streams(limits.faulty_streams_max)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_send_buf_size(limits.send_buffer_bytes_max)
        .keep_alive_interval(Duration::from_secs(limits.keepalive_interval_seconds))
        .keep_alive_timeout(Duration::from_secs(limits.keepalive_timeout_seconds))
        .serve_connection(TokioIo::new(FloodGuard::new(stream)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = answers.overdue(Duration::from_secs(limits.answer_timeout_seconds)) => {
            abused(shared, source, "answers_not_taken");
            return;
        }
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(drain_timeout, connection).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::warn!(%source, "requests still under way after the drain time, connection closed");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        match abuse(&error) {
            Some(reason) => abused(shared, source, reason),
            None => tracing::debug!(%source, %error, "connection ended"),
        }
    }
}

fn abused(shared: &Shared, source: SocketAddr, reason: &'static str) {
    shared.metrics.connection_abused(reason);
    if let Some(unlogged) = ABUSED.admit() {
        tracing::warn!(target: "security", %source, reason, unlogged, "HTTP/2 abused, connection closed");
    }
}

/// What a connection was ended for by us, where its peer overdid it.
fn abuse(error: &hyper::Error) -> Option<&'static str> {
    let chain = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    chain.into_iter().find_map(|cause| {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::QuotaExceeded) {
            return Some("frame_flood");
        }
        let protocol = cause.downcast_ref::<h2::Error>()?;
        let calmed = protocol.is_library() && protocol.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        calmed.then_some("enhance_your_calm")
    })
}

/// The router as one authenticated connection sees it.
struct PeerService {
    source: SocketAddr,
    peer: Peer,
    holder: Holder,
    answers: Arc<Answers>,
    shared: Arc<Shared>,
}

impl hyper::service::Service<Request<Incoming>> for PeerService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answer = match Arc::clone(&self.shared.requests).try_acquire_owned() {
            Ok(slot) => {
                let mut request = self.shared.bodies.unread(request, &self.holder);
                let Peer { certificate, session, psk, network, device } = self.peer.clone();
                certificate.map(|certificate| request.extensions_mut().insert(certificate));
                session.map(|session| request.extensions_mut().insert(session));
                psk.map(|psk| request.extensions_mut().insert(psk));
                network.map(|network| request.extensions_mut().insert(network));
                device.map(|device| request.extensions_mut().insert(device));
                request.extensions_mut().insert(ConnectInfo(self.source));
                Either::Left(answer_request(Arc::clone(&self.shared), request, slot))
            }
            Err(_) => {
                let problem = ProblemDetails::overloaded(self.shared.limits.retry_after_seconds);
                self.shared.metrics.request_answered(StatusCode::SERVICE_UNAVAILABLE);
                Either::Right(ready(problem.into_response()))
            }
        };
        let answers = Arc::clone(&self.answers);
        let watch = move |answer: Response| match answer.extensions().get::<LongAnswer>() {
            Some(LongAnswer) => answers.watch_progress(answer),
            None => answers.watch(answer),
        };
        Box::pin(answer.map(move |answer| Ok(watch(answer))))
    }
}

async fn answer_request(shared: Arc<Shared>, request: Request<Body>, _slot: OwnedSemaphorePermit) -> Response {
    let own = Duration::from_secs(shared.limits.request_timeout_seconds);
    let limit = deadline::remaining(request.headers(), OffsetDateTime::now_utc()).map_or(own, |left| left.min(own));
    if limit.is_zero() {
        // Its sender has given up: whatever this did would be done for nobody.
        shared.metrics.request_answered(StatusCode::GATEWAY_TIMEOUT);
        return timed_out();
    }
    let correlation = correlation::of_request(request.headers());
    let span = correlation.as_ref().map_or_else(tracing::Span::none, |value| {
        tracing::info_span!("request", correlation = correlation::pseudonym(value))
    });
    let mut router = shared.router.clone();
    // A panic is a fault of ours in one handler; it must not take other requests of the connection with it.
    let whole = async {
        let read = match shared.bodies.reading {
            Reading::AtOnce => whole(request).await,
            Reading::OnceAdmitted => Ok(request),
        };
        match read {
            Ok(request) => router.call(request).await,
            Err(refusal) => Ok(refusal.into_response()),
        }
    };
    let whole = correlation::carrying(correlation, whole).instrument(span);
    let handled = AssertUnwindSafe(timeout(limit, whole)).catch_unwind().await;
    let response = match handled {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(_)) => timed_out(),
        Err(_) => {
            tracing::error!("a request handler panicked");
            ProblemDetails::internal().into_response()
        }
    };
    shared.metrics.request_answered(response.status());
    response
}

fn timed_out() -> Response {
    ProblemDetails::new(StatusCode::GATEWAY_TIMEOUT).with_cause(cause::TIMED_OUT_REQUEST).into_response()
}

static NOT_ACCEPTED: LogThrottle = LogThrottle::new();
static REFUSED: LogThrottle = LogThrottle::new();
static ABUSED: LogThrottle = LogThrottle::new();
static TOO_MANY: LogThrottle = LogThrottle::new();

/// The action of a peer that comes, in the audit.
const CONNECT: &str = "connect";
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
