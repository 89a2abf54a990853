//! The listener on UDP.
//!
//! ```text
//! datagram ── request? ─┬─ OSCORE ── kid of a session ─────────▶ its queue
//!              │        │        ├── kid not used yet, verifies ▶ accepted: a session begins
//!              │        │        └── else: 4.00, 4.01, 4.02 ────▶ source
//!              │        ├─ POST /akma ── Echo not good ─────────▶ 4.01 with Echo
//!              │        │             └─ K_AF asked for ────────▶ 2.01, or 4.01, 4.29, 5.03
//!              │        └─ anything else ───────────────────────▶ 4.01
//!              └─ no: the session that asked under its token, or is at its source; a Ping of others gets its Reset
//! ```
//!
//! Before its address is proven nobody gets more than three times what it sent, and no memory; before it has used its
//! context, what [`OscoreLimits`] allows.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use coap::oscore::{AKMA_PATH, AkmaRequest, BlockBudget, InnerBlocks, KeyId, Message, OscoreConnection, OscoreError};
use coap::{Code, DatagramConfig, DatagramConnection, TOKEN_OCTETS_MAX, Unbound};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::DATAGRAM_OCTETS_MAX;
use super::agreement::{Agreed, Refused, agree, bare, random};
use super::datagram::{DatagramSocket, OscoreDatagramCarrier, bounded, random_message_id};
use super::echo::EchoCookies;
use super::limits::OscoreLimits;
use super::metrics::OscoreMetrics;
use super::tables::{Arrived, Before, Entered, Known, Place, Tables, Unproven};
use crate::admission::{Admission, Full, Slot};
use crate::key_lookup::KeyLookup;
use crate::log_throttle::LogThrottle;
use crate::psk_server::ProvenPeer;

/// Sessions that begin and are not taken by [`OscoreUdpListener::accept`] yet. One more gets 5.03.
const ACCEPTED_WAITING_MAX: usize = 1_024;

/// How often is looked for what expired.
const SWEEP: Duration = Duration::from_secs(1);

/// Echo (RFC 9175 2.2), Uri-Path (RFC 7252 5.10.1).
const ECHO: u16 = 252;
const URI_PATH: u16 = 11;

/// How to listen.
#[derive(Debug, Clone)]
pub struct OscoreUdpConfig {
    /// How CoAP is spoken with each peer.
    pub datagrams: Arc<DatagramConfig>,
    /// Limits on what is kept.
    pub limits: OscoreLimits,
}

/// A peer that has proven to hold K_AF.
pub struct Accepted {
    /// CoAP with it. Its first request waits there.
    pub carrier: OscoreDatagramCarrier<ServedPeer>,
    /// Who it is.
    pub peer: ProvenPeer,
    /// Where its first request came from.
    pub source: SocketAddr,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("a_kid", &self.peer.a_kid)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Serves OSCORE on one UDP socket. Dropping it ends that, and all sessions that came of it.
pub struct OscoreUdpListener {
    local: SocketAddr,
    accepted: mpsc::Receiver<Accepted>,
    tables: Arc<Tables>,
    task: JoinHandle<()>,
}

impl OscoreUdpListener {
    /// Begins to serve on `socket`, in a task of its own.
    ///
    /// # Errors
    /// The system has no address for the socket, or no randomness.
    pub fn start(
        socket: UdpSocket,
        config: OscoreUdpConfig,
        lookup: Arc<KeyLookup>,
        metrics: OscoreMetrics,
    ) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let secret = random::<32>().map_err(|_| io::Error::other("no randomness"))?;
        let period = Duration::from_secs(config.limits.echo_seconds);
        let (sessions, accepted) = mpsc::channel(ACCEPTED_WAITING_MAX);
        let tables = Arc::<Tables>::default();
        let budget = BlockBudget::new(config.limits.blocks_octets_max);
        let blocks = InnerBlocks::for_datagrams(&config.datagrams).within(&budget);
        let shared = Arc::new(Shared {
            socket: Arc::new(socket),
            tables: Arc::clone(&tables),
            admission: Admission::new(config.limits.unproven_max, config.limits.unproven_per_source_max),
            cookies: EchoCookies::new(Zeroizing::new(secret), period),
            blocks: Arc::new(blocks),
            config,
            lookup,
            metrics,
            sessions,
        });
        let task = tokio::spawn(run(shared));
        Ok(Self { local, accepted, tables, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next peer; none when the listener has ended.
    pub async fn accept(&mut self) -> Option<Accepted> {
        self.accepted.recv().await
    }
}

impl Drop for OscoreUdpListener {
    fn drop(&mut self) {
        self.task.abort();
        self.tables.clear();
    }
}

impl fmt::Debug for OscoreUdpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OscoreUdpListener").field("local", &self.local).finish_non_exhaustive()
    }
}

struct Shared {
    socket: Arc<UdpSocket>,
    tables: Arc<Tables>,
    admission: Arc<Admission>,
    cookies: EchoCookies,
    blocks: Arc<InnerBlocks>,
    config: OscoreUdpConfig,
    lookup: Arc<KeyLookup>,
    metrics: OscoreMetrics,
    sessions: mpsc::Sender<Accepted>,
}

async fn run(shared: Arc<Shared>) {
    let mut octets = vec![0; DATAGRAM_OCTETS_MAX + 1];
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = shared.socket.recv_from(&mut octets) => match received {
                Ok((count, source)) if count <= DATAGRAM_OCTETS_MAX => {
                    if let Some(datagram) = octets.get(..count) {
                        shared.take(datagram, source);
                    }
                }
                Ok((_, source)) => shared.drop_datagram(source, Useless::TooLarge),
                // What came back for something sent: of no interest here.
                Err(error) => {
                    if let Some(unlogged) = NOT_RECEIVED.admit() {
                        warn!(%error, unlogged, "no datagram received");
                    }
                    tokio::task::yield_now().await;
                }
            },
            _ = sweeps.tick() => {
                for _ in 0..shared.tables.expire(Instant::now()) {
                    shared.metrics.agreement("unused");
                }
            }
        }
    }
}

impl Shared {
    fn take(self: &Arc<Self>, datagram: &[u8], source: SocketAddr) {
        let Some(message) = Unbound::parse(datagram) else {
            return self.drop_datagram(source, Useless::Unreadable);
        };
        if !message.is_request() {
            let session = self.tables.asker(message.token()).or_else(|| self.tables.at(source));
            match (session, message.reset()) {
                (Some(session), _) => self.queue(&session, datagram, source),
                (None, Some(reset)) => self.send(&reset, source),
                (None, None) => self.drop_datagram(source, Useless::Nobodys),
            }
        } else if message.is_protected() {
            self.take_protected(&message, datagram, source);
        } else if is_akma(message.message()) {
            self.take_akma(message, datagram.len(), source);
        } else {
            self.metrics.refused("unprotected");
            if let Some(unlogged) = UNPROTECTED.admit() {
                warn!(target: "security", %source, reason = "unprotected", unlogged, "OSCORE request refused");
            }
            self.answer(&message, &bare(Code::UNAUTHORIZED, 0), datagram.len(), source);
        }
    }

    fn take_protected(&self, request: &Unbound, datagram: &[u8], source: SocketAddr) {
        let Some(id) = request.kid().and_then(|kid| KeyId::new(kid).ok()) else {
            let error =
                if request.kid().is_some() { OscoreError::ContextNotFound } else { OscoreError::NotDecoded("") };
            return self.refuse(request, error, datagram.len(), source);
        };
        match self.tables.find(&id, |context| context.check_request(request.message())) {
            Known::Nothing => self.refuse(request, OscoreError::ContextNotFound, datagram.len(), source),
            Known::Live(session) => self.queue(&session, datagram, source),
            Known::Proven(unproven) => self.begin_session(id, *unproven, datagram, source),
            Known::Refused(error) => self.refuse(request, error, datagram.len(), source),
        }
    }

    /// The peer holds K_AF. Where it repeated Echo, it also has proven to be; elsewhere the session begins by asking.
    fn begin_session(&self, id: KeyId, unproven: Unproven, datagram: &[u8], source: SocketAddr) {
        let Unproven { context, peer, exchange, .. } = unproven;
        let Ok(seed) = random::<8>() else { return self.tables.forget(exchange) };
        let outer = DatagramConnection::new(Arc::clone(&self.config.datagrams), u64::from_be_bytes(seed)).for_oscore();
        let (queue, arrivals) = mpsc::channel(self.config.limits.queue_datagrams_max.max(1));
        let mut place = Place::new(Arc::clone(&self.tables), id, source);
        self.tables.live(id, exchange, queue.clone());
        if source == exchange.0 && place.proven() {
            self.metrics.displaced();
            if let Some(unlogged) = TAKEN_OVER.admit() {
                info!(target: "security", %source, unlogged, "OSCORE session displaced at its address");
            }
        }
        let socket = ServedPeer { socket: Arc::clone(&self.socket), arrivals, place };
        let machine = OscoreConnection::new(outer, context).with_inner_blocks(&self.blocks).kept_for_peer();
        let carrier = OscoreDatagramCarrier::new(machine, socket, self.metrics.clone());
        // The queue is empty.
        let _ = queue.try_send((datagram.to_vec(), source));
        if self.sessions.try_send(Accepted { carrier, peer, source }).is_err() {
            // Its place is given back; it agrees anew.
            self.drop_datagram(source, Useless::NotAccepted);
        }
    }

    fn queue(&self, session: &mpsc::Sender<Arrived>, datagram: &[u8], source: SocketAddr) {
        if session.try_send((datagram.to_vec(), source)).is_err() {
            self.drop_datagram(source, Useless::QueueFull);
        }
    }

    fn take_akma(self: &Arc<Self>, message: Unbound, octets: usize, source: SocketAddr) {
        let request = match AkmaRequest::from_message(message.message()) {
            Ok(request) => request,
            Err(error) => return self.refuse_akma(&message, Refused::Malformed(error), octets, source),
        };
        let now = Instant::now();
        let echo = message.message().option(ECHO);
        if !echo.is_some_and(|echo| self.cookies.is_good(echo, source, now)) {
            self.metrics.agreement("challenged");
            if let Some(unlogged) = CHALLENGED.admit() {
                info!(target: "security", %source, unlogged, "/akma answered with Echo");
            }
            let value = self.cookies.value(source, now);
            if let Ok(challenge) = Message::new(Code::UNAUTHORIZED, &[(ECHO, &value)], &[]) {
                self.answer(&message, &challenge, octets, source);
            }
            return;
        }
        let exchange = (source, message.message_id());
        let expires = now + Duration::from_secs(self.config.limits.unproven_seconds);
        match self.tables.begin(exchange, expires) {
            Before::Nothing => {}
            Before::UnderWay => return,
            Before::Answered(answer) => return self.send(&answer, source),
        }
        let slot = match self.admit(source) {
            Ok(slot) => slot,
            Err(refused) => {
                self.tables.forget(exchange);
                return self.refuse_akma(&message, refused, octets, source);
            }
        };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let metrics = &shared.metrics;
            let is_free = |id: &KeyId| shared.tables.is_free(id);
            match agree(&shared.lookup, metrics, &request, source.ip(), is_free).await {
                Ok(Agreed { answer, ue_sid, context, peer }) => {
                    let answer = message.answer(&answer, random_message_id());
                    let unproven = Unproven { context, peer, expires, exchange, _slot: slot };
                    let per_a_kid_max = shared.config.limits.unproven_per_a_kid_max;
                    match shared.tables.agreed(ue_sid, unproven, answer.clone(), per_a_kid_max) {
                        // Its UE asks again.
                        Entered::Not => return shared.tables.forget(exchange),
                        Entered::Alone => {}
                        Entered::InPlaceOfAnother => shared.tell_displaced(source),
                    }
                    shared.send(&answer, source);
                }
                Err(refused) => {
                    shared.tables.forget(exchange);
                    shared.answer(&message, &refused.answer(), octets, source);
                }
            }
        });
    }

    /// Somebody asks again and again for the contexts of one A-KID, and uses none.
    fn tell_displaced(&self, source: SocketAddr) {
        self.metrics.agreement("displaced");
        if let Some(unlogged) = DISPLACED.admit() {
            info!(target: "security", %source, unlogged, "an unused OSCORE context of the same A-KID is dropped");
        }
    }

    /// Room for one more exchange of that source.
    fn admit(&self, source: SocketAddr) -> Result<Slot, Refused> {
        if self.tables.contexts() >= self.config.limits.contexts_max {
            return Err(Refused::Unavailable);
        }
        self.admission.admit(source.ip()).map_err(|full| match full {
            Full::Source => Refused::TooMany,
            Full::All => Refused::Unavailable,
        })
    }

    fn refuse_akma(&self, request: &Unbound, refused: Refused, octets: usize, source: SocketAddr) {
        self.metrics.agreement(refused.label());
        if let Some(unlogged) = AT_LIMIT.admit() {
            warn!(target: "security", %source, reason = refused.label(), unlogged, "/akma refused");
        }
        self.answer(request, &refused.answer(), octets, source);
    }

    fn refuse(&self, request: &Unbound, error: OscoreError, octets: usize, source: SocketAddr) {
        let reason = match error {
            OscoreError::ContextNotFound => "no_context",
            OscoreError::Replay => "replay",
            _ => "forged",
        };
        self.metrics.refused(reason);
        if let Some(unlogged) = NOT_VERIFIED.admit() {
            warn!(target: "security", %source, reason, %error, unlogged, "OSCORE request refused");
        }
        if let Some(answer) = error.answer() {
            self.answer(request, &answer, octets, source);
        }
    }

    /// Of anybody, who is told nothing.
    fn drop_datagram(&self, source: SocketAddr, useless: Useless) {
        let (reason, throttle) = useless.told();
        self.metrics.refused(reason);
        if let Some(unlogged) = throttle.admit() {
            info!(target: "security", %source, reason, unlogged, "OSCORE datagram dropped");
        }
    }

    /// Answers somebody who has proven nothing. Where the text is too much for what was asked, the code has to do.
    fn answer(&self, request: &Unbound, answer: &Message, octets: usize, source: SocketAddr) {
        let id = random_message_id();
        let answer = bounded(request.answer(answer, id), octets)
            .or_else(|| bounded(request.answer(&bare(answer.code(), 0), id), octets));
        // A code alone is never three times a request.
        if let Some(answer) = answer {
            self.send(&answer, source);
        }
    }

    /// Sends, if the network takes it now. It is not waited for: what is lost is asked for again.
    fn send(&self, datagram: &[u8], to: SocketAddr) {
        if self.socket.try_send_to(datagram, to).is_err() {
            self.metrics.refused("not_sent");
        }
    }
}

fn is_akma(message: &Message) -> bool {
    let mut path = message.options().filter(|(number, _)| *number == URI_PATH).map(|(_, value)| value);
    path.next() == Some(AKMA_PATH.as_bytes()) && path.next().is_none()
}

/// One peer of the listener's: its share of the socket.
pub struct ServedPeer {
    socket: Arc<UdpSocket>,
    arrivals: mpsc::Receiver<Arrived>,
    place: Place,
}

impl DatagramSocket for ServedPeer {
    fn poll_datagram(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Arrived>>> {
        self.arrivals.poll_recv(context).map(Ok)
    }

    /// Many sessions share the socket, of which the system wakes one when there is room again: none waits for it.
    fn send(&mut self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let _ = self.socket.try_send_to(datagram, to);
        Ok(())
    }

    fn peer(&self) -> SocketAddr {
        self.place.address()
    }

    fn moved(&mut self, to: SocketAddr) {
        self.place.moved(to);
    }

    fn asked(&mut self, token: [u8; TOKEN_OCTETS_MAX]) {
        self.place.asked(token);
    }

    fn asked_elsewhere(&mut self, token: [u8; TOKEN_OCTETS_MAX]) {
        self.place.asked_elsewhere(token);
    }

    fn not_asked(&mut self, token: &[u8; TOKEN_OCTETS_MAX]) {
        self.place.not_asked(token);
    }

    fn proven(&mut self) -> bool {
        self.place.proven()
    }

    fn is_known(&self) -> bool {
        self.place.is_known()
    }
}

impl fmt::Debug for ServedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedPeer").field("peer", &self.place.address()).finish_non_exhaustive()
    }
}

/// Why nobody takes a datagram, and nothing is answered.
#[derive(Clone, Copy)]
enum Useless {
    TooLarge,
    Unreadable,
    /// No request, and no session has asked or is there.
    Nobodys,
    /// Of a session that has as many waiting as it may.
    QueueFull,
    /// A session that begins, and as many wait as may: it agrees anew.
    NotAccepted,
}

impl Useless {
    /// As in metrics and logs, and what bounds the lines of each.
    fn told(self) -> (&'static str, &'static LogThrottle) {
        static TOO_LARGE: LogThrottle = LogThrottle::new();
        static UNREADABLE: LogThrottle = LogThrottle::new();
        static NOBODYS: LogThrottle = LogThrottle::new();
        static QUEUE_FULL: LogThrottle = LogThrottle::new();
        static NOT_ACCEPTED: LogThrottle = LogThrottle::new();
        match self {
            Self::TooLarge => ("too_large", &TOO_LARGE),
            Self::Unreadable => ("unreadable", &UNREADABLE),
            Self::Nobodys => ("nobodys", &NOBODYS),
            Self::QueueFull => ("queue_full", &QUEUE_FULL),
            Self::NotAccepted => ("not_accepted", &NOT_ACCEPTED),
        }
    }
}

static UNPROTECTED: LogThrottle = LogThrottle::new();
/// Each agreement begins so; many more of them than agreements are a flood.
static CHALLENGED: LogThrottle = LogThrottle::new();
static AT_LIMIT: LogThrottle = LogThrottle::new();
static DISPLACED: LogThrottle = LogThrottle::new();
static TAKEN_OVER: LogThrottle = LogThrottle::new();
static NOT_VERIFIED: LogThrottle = LogThrottle::new();
static NOT_RECEIVED: LogThrottle = LogThrottle::new();
