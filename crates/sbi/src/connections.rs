//! A client's connections: opened when they are needed, shared, kept while they are used.
//!
//! A peer has one connection as long as its streams suffice, more up to a limit when they do not. A request whose peer
//! provably did not look at it (GOAWAY with a lower last stream, REFUSED_STREAM, or never sent at all; RFC 9113 clause
//! 8.7) is sent once more; no other is.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_openssl::SslStream;
use transport::profile::{PeerCertificates, ReloadOutcome, ReloadingContext, client_session, peer_certificates};

use crate::client::ClientLimits;
use crate::error::SbiError;
use crate::metrics::client_files_reloaded;
use crate::redirect::{HTTPS_PORT, authority};

/// What an attempt to send came to.
type Sent = Result<Response<Incoming>, Failure>;

/// The connections of one client.
pub(crate) struct Connections {
    tls: Arc<ReloadingContext>,
    limits: Arc<ClientLimits>,
    peers: Mutex<HashMap<String, Arc<Peer>>>,
}

/// The connections to one authority.
#[derive(Default)]
struct Peer {
    open: Mutex<Vec<Arc<Open>>>,
    /// Held while a connection is made, so that requests that come together do not make one each.
    connecting: tokio::sync::Mutex<()>,
}

/// One connection.
struct Open {
    sender: http2::SendRequest<Full<Bytes>>,
    certificates: PeerCertificates,
    /// Of the TLS context in which the peer was last verified.
    generation: AtomicU64,
    /// Requests at once that the peer allows.
    streams_max: AtomicUsize,
    in_flight: AtomicUsize,
    used: Mutex<Instant>,
}

/// One request on a connection, until its answer has been read whole.
pub(crate) struct InFlight(Arc<Open>);

/// Why a request has no answer.
struct Failure {
    error: hyper::Error,
    /// The peer did not look at it.
    unprocessed: bool,
    /// Nothing further can be sent on this connection.
    connection_over: bool,
}

impl Connections {
    pub(crate) fn new(tls: ReloadingContext, limits: Arc<ClientLimits>) -> Self {
        Self { tls: Arc::new(tls), limits, peers: Mutex::default() }
    }

    /// Sends what `request` makes to the authority of `uri`. The answer's body is read while [`InFlight`] is kept.
    pub(crate) async fn send(
        &self,
        uri: &Uri,
        request: impl Fn() -> Result<Request<Full<Bytes>>, SbiError>,
    ) -> Result<(Response<Incoming>, InFlight), SbiError> {
        let peer = self.peer(&authority(uri).ok_or(SbiError::InvalidUri)?);
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            let in_flight = self.acquire(&peer, uri).await?;
            match attempt(&in_flight.0, request()?).await {
                Ok(response) => return Ok((response, in_flight)),
                Err(failure) => {
                    if failure.connection_over {
                        peer.forget(&in_flight.0);
                    }
                    if !failure.unprocessed || attempts == 0 {
                        return Err(request_error(&failure.error));
                    }
                }
            }
        }
    }

    fn peer(&self, authority: &str) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(authority) {
            return Arc::clone(peer);
        }
        if peers.len() >= PEERS_MAX {
            peers.retain(|_, peer| Arc::strong_count(peer) > 1 || !peer.list().is_empty());
        }
        Arc::clone(peers.entry(authority.to_owned()).or_default())
    }

    /// A connection with a free stream, a new one, or, where there may be no more, the one with the fewest requests.
    async fn acquire(&self, peer: &Arc<Peer>, uri: &Uri) -> Result<InFlight, SbiError> {
        // What came of it is logged; a peer that lost its right is noticed below.
        match self.tls.refresh_if_due(Duration::from_secs(self.limits.reload_interval_seconds)) {
            ReloadOutcome::Reloaded => client_files_reloaded(self.tls.certificate(), "reloaded"),
            ReloadOutcome::Failed(_) => client_files_reloaded(self.tls.certificate(), "failed"),
            _ => {}
        }
        if let Some(free) = peer.free(&self.tls) {
            return Ok(free);
        }
        let _one_at_a_time = peer.connecting.lock().await;
        if let Some(free) = peer.free(&self.tls) {
            return Ok(free);
        }
        let may_connect = peer.list().len() < self.limits.connections_per_peer_max.max(1);
        let connected = if may_connect { Some(self.connect(peer, uri).await) } else { None };
        match (connected, peer.least_busy()) {
            (Some(Ok(fresh)), _) => Ok(fresh),
            (_, Some(busy)) => Ok(busy),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(SbiError::Unreachable("every connection was lost".to_owned())),
        }
    }

    async fn connect(&self, peer: &Arc<Peer>, uri: &Uri) -> Result<InFlight, SbiError> {
        let limits = &self.limits;
        let limit = Duration::from_millis(limits.connect_timeout_milliseconds);
        // Before the context: a change in between makes us verify twice, not never.
        let generation = self.tls.generation();
        let (stream, certificates) = timeout(limit, open_tls(&self.tls, uri))
            .await
            .map_err(|_| SbiError::Unreachable("no connection in time".to_owned()))?
            .map_err(|error| SbiError::Unreachable(words(&*error)))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(limits.header_list_bytes_max)
            .keep_alive_interval(Duration::from_secs(limits.keepalive_interval_seconds))
            .keep_alive_timeout(Duration::from_secs(limits.keepalive_timeout_seconds))
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| request_error(&error))?;
        let open = Arc::new(Open {
            sender,
            certificates,
            generation: AtomicU64::new(generation),
            streams_max: AtomicUsize::new(connection.current_max_send_streams()),
            in_flight: AtomicUsize::new(0),
            used: Mutex::new(Instant::now()),
        });
        let idle = Duration::from_secs(limits.idle_timeout_seconds);
        tokio::spawn(drive(connection, Arc::downgrade(&open), Arc::downgrade(peer), idle));
        let in_flight = InFlight::new(&open);
        peer.list().push(open);
        Ok(in_flight)
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Peer {
    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection with the fewest requests, if it takes one more. Those that may no longer be used are let go.
    fn free(&self, tls: &ReloadingContext) -> Option<InFlight> {
        let mut list = self.list();
        list.retain(|open| !open.sender.is_closed() && open.is_vouched_for(tls));
        list.iter()
            .filter(|open| open.in_flight.load(Ordering::Relaxed) < open.streams_max.load(Ordering::Relaxed))
            .min_by_key(|open| open.in_flight.load(Ordering::Relaxed))
            .map(InFlight::new)
    }

    fn least_busy(&self) -> Option<InFlight> {
        self.list().iter().min_by_key(|open| open.in_flight.load(Ordering::Relaxed)).map(InFlight::new)
    }

    fn forget(&self, gone: &Arc<Open>) {
        self.list().retain(|open| !Arc::ptr_eq(open, gone));
    }
}

impl Open {
    /// Whether the peer could still prove itself with the certificate that it showed.
    fn is_vouched_for(&self, tls: &ReloadingContext) -> bool {
        let generation = tls.generation();
        if self.generation.swap(generation, Ordering::Relaxed) == generation {
            return true;
        }
        let Err(refusal) = tls.vouches_for(&self.certificates) else { return true };
        tracing::warn!(target: "security", reason = refusal.error_string(),
            "a server's certificate was withdrawn, connection no longer used");
        false
    }

    fn is_idle(&self, time: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.in_flight.load(Ordering::Relaxed) == 0 && used.elapsed() >= time
    }
}

impl InFlight {
    fn new(open: &Arc<Open>) -> Self {
        open.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps a connection going until it ends or is let go for being idle.
async fn drive<T>(
    connection: http2::Connection<T, Full<Bytes>, TokioExecutor>,
    open: Weak<Open>,
    peer: Weak<Peer>,
    idle: Duration,
) where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut connection = pin!(connection);
    loop {
        let step = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            if let Some(open) = open.upgrade() {
                open.streams_max.store(connection.current_max_send_streams(), Ordering::Relaxed);
            }
            polled
        });
        tokio::select! {
            ended = step => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                break;
            }
            () = tokio::time::sleep(idle) => {}
        }
        // Dropped by the list, it ends by itself.
        if let (Some(open), Some(peer)) = (open.upgrade(), peer.upgrade())
            && open.is_idle(idle)
        {
            peer.forget(&open);
        }
    }
    if let (Some(open), Some(peer)) = (open.upgrade(), peer.upgrade()) {
        peer.forget(&open);
    }
}

async fn attempt(open: &Open, request: Request<Full<Bytes>>) -> Sent {
    let mut sender = open.sender.clone();
    if let Err(error) = sender.ready().await {
        return Err(Failure { error, unprocessed: true, connection_over: true });
    }
    sender.try_send_request(request).await.map_err(|failed| {
        let never_sent = failed.message().is_some();
        let error = failed.into_error();
        let (mut refused, mut going) = (false, false);
        if let Some(protocol) = protocol_error(&error) {
            refused =
                protocol.is_remote() && protocol.is_reset() && protocol.reason() == Some(h2::Reason::REFUSED_STREAM);
            // Only streams above the last one that the peer looked at end with its GOAWAY.
            going = protocol.is_remote() && protocol.is_go_away();
        }
        Failure { unprocessed: never_sent || refused || going, connection_over: never_sent || going, error }
    })
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn open_tls(tls: &ReloadingContext, uri: &Uri) -> Result<(SslStream<TcpStream>, PeerCertificates), BoxError> {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(HTTPS_PORT))).await?;
    stream.set_nodelay(true)?;
    let mut stream = SslStream::new(client_session(&tls.current(), host)?, stream)?;
    Pin::new(&mut stream).connect().await?;
    if stream.ssl().selected_alpn_protocol() != Some(b"h2") {
        return Err("the peer does not speak HTTP/2".into());
    }
    let certificates = peer_certificates(stream.ssl()).ok_or("the peer showed no certificate")?;
    Ok((stream, certificates))
}

/// Tells a peer that is gone from one that talks nonsense.
pub(crate) fn request_error(error: &(dyn std::error::Error + 'static)) -> SbiError {
    match protocol_error(error) {
        Some(protocol) if protocol.is_library() && !protocol.is_io() => {
            SbiError::Malformed(format!("HTTP/2: {protocol}"))
        }
        _ => SbiError::Unreachable(words(error)),
    }
}

fn protocol_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a h2::Error> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let words: Vec<_> = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect();
    words.join(": ")
}

/// How often a request is sent: once more than once, where the first time was provably for nothing.
const ATTEMPTS: u32 = 2;
/// Peers remembered; those without a connection make room for others.
const PEERS_MAX: usize = 1_024;
