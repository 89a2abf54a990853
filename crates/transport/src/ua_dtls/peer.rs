//! One session as the socket's reader and whoever has the session share it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use dtls::{Closed, Connection, Disposition, Established, Event, KeyRefusal, KeyRequest, PresharedKey, ServerConfig};
use tokio::net::UdpSocket;
use tracing::{info, warn};

use super::freezing::Body;
use super::table::Id;
use crate::log_throttle::LogThrottle;
use crate::metrics::TransportMetrics;

/// What the sessions of a socket share.
pub(super) struct Surroundings {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) metrics: TransportMetrics,
    pub(super) inbound_max: usize,
    pub(super) config: Arc<ServerConfig>,
}

/// A session. Its lock is held for one datagram's work at most. A server has many, and most are silent: what only something
/// under way needs is in [`Live`], and goes when it is frozen ([`super::freezing`]).
pub(super) struct Peer {
    pub(super) around: Arc<Surroundings>,
    /// What its records are found by, if the client does Connection IDs: with DTLS 1.3 that is settled after the key only.
    pub(super) id: Id,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) body: Body,
    waker: Option<Waker>,
}

/// A session that is not frozen.
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Application data that nobody has taken.
    pub(super) inbound: VecDeque<Vec<u8>>,
    /// The peer's address is another one since this was last asked.
    pub(super) moved: bool,
    pub(super) key_needed: Option<KeyRequest>,
    established: Option<Established>,
    pub(super) ended: Option<Ending>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Dtls(Closed),
    /// Somebody else is at its address, and it has no Connection ID.
    Displaced,
}

/// What became of a datagram.
pub(super) struct Handled {
    pub(super) disposition: Disposition,
    /// From where the peer has moved.
    pub(super) moved_from: Option<SocketAddr>,
}

/// What a handshake waits for.
pub(super) enum Progress {
    KeyNeeded(KeyRequest),
    Established(Established),
    Ended(Ending),
}

/// What comes out of an established session.
pub(super) enum Inbound {
    Datagram(Vec<u8>),
    /// The peer's address is another one from here on.
    Moved,
    Ended(Ending),
}

impl Peer {
    pub(super) fn new(connection: Connection, id: Id, around: Arc<Surroundings>) -> Arc<Self> {
        let peer = Self::of(Body::Live(Box::new(Live::new(connection))), id, around);
        peer.settle(peer.state());
        peer
    }

    pub(super) fn of(body: Body, id: Id, around: Arc<Surroundings>) -> Arc<Self> {
        let state = Mutex::new(State { body, waker: None });
        Arc::new(Self { around, id, state })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it a datagram. What is not authentic leaves a frozen session frozen, whatever is answered.
    pub(super) fn handle(&self, now: Instant, source: SocketAddr, datagram: &[u8]) -> Handled {
        let mut state = self.state();
        let frozen = state.body.is_frozen();
        let Some(live) = state.body.live(&self.around, now) else {
            // It is held, or lost: whoever has it is told.
            self.settle(state);
            return Handled { disposition: Disposition::Ignored, moved_from: None };
        };
        let before = live.connection.peer_address();
        let disposition = live.connection.handle_datagram(now, source, datagram);
        let after = live.connection.peer_address();
        let output = live.connection.has_output();
        if output {
            live.settle(&self.around);
        }
        let left_frozen = frozen && disposition != Disposition::Taken && state.body.freeze(&self.around);
        if !left_frozen && (output || disposition == Disposition::Taken) {
            self.settle(state);
        }
        Handled { disposition, moved_from: (before != after).then_some(before) }
    }

    /// Has the connection do something, and what comes of it done.
    fn with<T>(&self, now: Instant, act: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let mut state = self.state();
        let done = state.body.live(&self.around, now).map(|live| act(&mut live.connection));
        self.settle(state);
        done
    }

    pub(super) fn handle_timeout(&self, now: Instant) {
        // Nothing is due on a frozen one.
        if !self.state().body.is_frozen() {
            self.with(now, |connection| connection.handle_timeout(now));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.state().body.as_live().and_then(|live| live.connection.poll_timeout())
    }

    pub(super) fn provide_key(&self, now: Instant, key: &PresharedKey) {
        // Fails only if the handshake has ended meanwhile, which its events say.
        let _ = self.with(now, |connection| connection.provide_key(now, key));
    }

    pub(super) fn refuse_key(&self, now: Instant, refusal: KeyRefusal) {
        let _ = self.with(now, |connection| connection.refuse_key(now, refusal));
    }

    /// Sends application data. False if that was not possible just now; then it is as if the network had lost it. Nothing
    /// goes to a new address before whoever has the session was told of it.
    pub(super) fn send(&self, now: Instant, payload: &[u8]) -> bool {
        let untold = self.state().body.as_live().is_some_and(|live| live.moved);
        let sent = !untold && self.with(now, |connection| connection.send(now, payload).is_ok()) == Some(true);
        if !sent {
            self.around.metrics.datagram_dropped("not_sent");
        }
        sent
    }

    /// Ends it, and tells the peer.
    pub(super) fn close(&self, now: Instant) {
        self.with(now, |connection| connection.close(now));
    }

    /// Ends it without a word: that address is somebody else's by now, whose session a word in clear might end.
    pub(super) fn displace(&self, address: SocketAddr) {
        let mut state = self.state();
        // Only one without a Connection ID is displaced, which is never frozen.
        if let Body::Live(live) = &mut state.body
            && live.ended.is_none()
        {
            let established = live.established.is_some();
            live.ended = Some(Ending::Displaced);
            self.around.metrics.dtls_displaced(established);
            if let Some(unlogged) = DISPLACED.admit() {
                info!(target: "security", %address, established, unlogged, "DTLS session displaced at its address");
            }
        }
        self.settle(state);
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.state().body.address()
    }

    /// Whether its records say whose they are.
    pub(super) fn has_connection_id(&self) -> bool {
        match &self.state().body {
            Body::Live(live) => !live.connection.connection_id().is_empty(),
            // It would not be frozen otherwise.
            Body::Frozen(..) | Body::Held(..) | Body::Lost => true,
        }
    }

    pub(super) fn payload_octets_max(&self) -> usize {
        let mut state = self.state();
        let octets_max = state.body.live(&self.around, Instant::now()).map(|live| live.connection.payload_octets_max());
        if octets_max.is_none() {
            self.settle(state);
        }
        octets_max.unwrap_or_default()
    }

    /// What the handshake has come to next.
    pub(super) fn poll_progress(&self, context: &mut Context<'_>) -> Poll<Progress> {
        let mut state = self.state();
        let Body::Live(live) = &mut state.body else {
            return Poll::Ready(Progress::Ended(Ending::Dtls(Closed::Local)));
        };
        if let Some(request) = live.key_needed.take() {
            return Poll::Ready(Progress::KeyNeeded(request));
        }
        // Whoever leaves right after the handshake was proven all the same.
        if let Some(established) = live.established {
            return Poll::Ready(Progress::Established(established));
        }
        if let Some(ending) = live.ended {
            return Poll::Ready(Progress::Ended(ending));
        }
        state.wait(context)
    }

    /// What has come on an established session. What came before its end is handed out before that.
    pub(super) fn poll_inbound(&self, context: &mut Context<'_>) -> Poll<Inbound> {
        let mut state = self.state();
        let live = match &mut state.body {
            Body::Live(live) => live,
            Body::Frozen(..) | Body::Held(..) => return state.wait(context),
            Body::Lost => return Poll::Ready(Inbound::Ended(Ending::Dtls(Closed::Local))),
        };
        if std::mem::take(&mut live.moved) {
            return Poll::Ready(Inbound::Moved);
        }
        if let Some(datagram) = live.inbound.pop_front() {
            if live.inbound.is_empty() {
                live.inbound = VecDeque::new();
            }
            return Poll::Ready(Inbound::Datagram(datagram));
        }
        if let Some(ending) = live.ended {
            return Poll::Ready(Inbound::Ended(ending));
        }
        state.wait(context)
    }

    /// Sends what there is to send, sorts what has happened, and wakes whoever waits.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        if let Body::Live(live) = &mut state.body {
            live.settle(&self.around);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Live {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, inbound: VecDeque::new(), moved: false, key_needed: None, established: None, ended: None }
    }

    fn settle(&mut self, around: &Surroundings) {
        while let Some(transmit) = self.connection.poll_transmit() {
            if self.ended == Some(Ending::Displaced) {
                continue;
            }
            // A full socket drops it, as a network does.
            if around.socket.try_send_to(&transmit.payload, transmit.destination).is_err() {
                around.metrics.datagram_dropped("socket_full");
            }
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::KeyNeeded(request) => self.key_needed = Some(request),
                Event::Established(established) => self.established = Some(established),
                Event::ApplicationData { payload, .. } if self.inbound.len() < around.inbound_max => {
                    self.inbound.push_back(payload);
                }
                Event::ApplicationData { .. } => around.metrics.datagram_dropped("session_full"),
                Event::PeerAddressChanged { .. } => {
                    self.moved = true;
                    around.metrics.address_changed();
                }
                Event::RenewalAdvised => {
                    if let Some(unlogged) = FORGERIES.admit() {
                        let address = self.connection.peer_address();
                        warn!(target: "security", %address, unlogged, "many records of a session are forged");
                    }
                }
                Event::Closed(closed) => drop(self.ended.get_or_insert(Ending::Dtls(closed))),
                _ => {}
            }
        }
    }
}

impl State {
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

static FORGERIES: LogThrottle = LogThrottle::new();
/// Who has an address can begin one handshake after the other there.
static DISPLACED: LogThrottle = LogThrottle::new();
