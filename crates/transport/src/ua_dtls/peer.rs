//! One session as the socket's reader and whoever has the session share it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use dtls::{Closed, Connection, ConnectionId, Disposition, Established, Event, KeyRefusal, KeyRequest, PresharedKey};
use tokio::net::UdpSocket;
use tracing::warn;

use crate::log_throttle::LogThrottle;
use crate::metrics::TransportMetrics;

/// A session. Its lock is held for one datagram's work at most.
pub(super) struct Peer {
    socket: Arc<UdpSocket>,
    metrics: TransportMetrics,
    inbound_max: usize,
    /// What its records are found by, if the client does Connection IDs: with DTLS 1.3 that is settled after the key only.
    pub(super) connection_id: ConnectionId,
    /// Nobody has it any more.
    gone: AtomicBool,
    state: Mutex<State>,
}

struct State {
    connection: Connection,
    /// Application data that nobody has taken.
    inbound: VecDeque<Vec<u8>>,
    /// The peer's address is another one since this was last asked.
    moved: bool,
    key_needed: Option<KeyRequest>,
    established: Option<Established>,
    ended: Option<Ending>,
    waker: Option<Waker>,
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
    /// From where to where the peer has moved.
    pub(super) moved: Option<(SocketAddr, SocketAddr)>,
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
    pub(super) fn new(
        connection: Connection,
        connection_id: ConnectionId,
        socket: Arc<UdpSocket>,
        metrics: TransportMetrics,
        inbound_max: usize,
    ) -> Arc<Self> {
        let peer = Arc::new(Self {
            socket,
            metrics,
            inbound_max,
            connection_id,
            gone: AtomicBool::new(false),
            state: Mutex::new(State {
                connection,
                inbound: VecDeque::new(),
                moved: false,
                key_needed: None,
                established: None,
                ended: None,
                waker: None,
            }),
        });
        peer.settle(peer.state());
        peer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it a datagram.
    pub(super) fn handle(&self, now: Instant, source: SocketAddr, datagram: &[u8]) -> Handled {
        let mut state = self.state();
        let before = state.connection.peer_address();
        let disposition = state.connection.handle_datagram(now, source, datagram);
        let after = state.connection.peer_address();
        if disposition == Disposition::Taken || state.connection.has_output() {
            self.settle(state);
        }
        Handled { disposition, moved: (before != after).then_some((before, after)) }
    }

    pub(super) fn handle_timeout(&self, now: Instant) {
        let mut state = self.state();
        state.connection.handle_timeout(now);
        self.settle(state);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.state().connection.poll_timeout()
    }

    pub(super) fn provide_key(&self, now: Instant, key: &PresharedKey) {
        let mut state = self.state();
        // Fails only if the handshake has ended meanwhile, which its events say.
        let _ = state.connection.provide_key(now, key);
        self.settle(state);
    }

    pub(super) fn refuse_key(&self, now: Instant, refusal: KeyRefusal) {
        let mut state = self.state();
        let _ = state.connection.refuse_key(now, refusal);
        self.settle(state);
    }

    /// Sends application data. False if that was not possible just now; then it is as if the network had lost it.
    pub(super) fn send(&self, now: Instant, payload: &[u8]) -> bool {
        let mut state = self.state();
        let sent = state.connection.send(now, payload).is_ok();
        if !sent {
            self.metrics.datagram_dropped("not_sent");
        }
        self.settle(state);
        sent
    }

    /// Ends it, and tells the peer.
    pub(super) fn close(&self, now: Instant) {
        let mut state = self.state();
        state.connection.close(now);
        self.settle(state);
    }

    /// Ends it without a word: the address is somebody else's by now.
    pub(super) fn displace(&self) {
        let mut state = self.state();
        state.ended.get_or_insert(Ending::Displaced);
        self.settle(state);
    }

    pub(super) fn go(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.state().connection.peer_address()
    }

    /// Whether its records say whose they are.
    pub(super) fn has_connection_id(&self) -> bool {
        !self.state().connection.connection_id().is_empty()
    }

    pub(super) fn payload_octets_max(&self) -> usize {
        self.state().connection.payload_octets_max()
    }

    /// What the handshake has come to next.
    pub(super) fn poll_progress(&self, context: &mut Context<'_>) -> Poll<Progress> {
        let mut state = self.state();
        if let Some(request) = state.key_needed.take() {
            return Poll::Ready(Progress::KeyNeeded(request));
        }
        // Whoever leaves right after the handshake was proven all the same.
        if let Some(established) = state.established {
            return Poll::Ready(Progress::Established(established));
        }
        if let Some(ending) = state.ended {
            return Poll::Ready(Progress::Ended(ending));
        }
        state.wait(context)
    }

    /// What has come on an established session. What came before its end is handed out before that.
    pub(super) fn poll_inbound(&self, context: &mut Context<'_>) -> Poll<Inbound> {
        let mut state = self.state();
        if std::mem::take(&mut state.moved) {
            return Poll::Ready(Inbound::Moved);
        }
        if let Some(datagram) = state.inbound.pop_front() {
            if state.inbound.is_empty() {
                state.inbound = VecDeque::new();
            }
            return Poll::Ready(Inbound::Datagram(datagram));
        }
        if let Some(ending) = state.ended {
            return Poll::Ready(Inbound::Ended(ending));
        }
        state.wait(context)
    }

    /// Sends what there is to send, sorts what has happened, and wakes whoever waits.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        while let Some(transmit) = state.connection.poll_transmit() {
            // A full socket drops it, as a network does.
            if self.socket.try_send_to(&transmit.payload, transmit.destination).is_err() {
                self.metrics.datagram_dropped("socket_full");
            }
        }
        while let Some(event) = state.connection.poll_event() {
            match event {
                Event::KeyNeeded(request) => state.key_needed = Some(request),
                Event::Established(established) => state.established = Some(established),
                Event::ApplicationData { payload, .. } if state.inbound.len() < self.inbound_max => {
                    state.inbound.push_back(payload);
                }
                Event::ApplicationData { .. } => self.metrics.datagram_dropped("session_full"),
                Event::PeerAddressChanged { .. } => {
                    state.moved = true;
                    self.metrics.address_changed();
                }
                Event::RenewalAdvised => {
                    if let Some(unlogged) = FORGERIES.admit() {
                        let address = state.connection.peer_address();
                        warn!(target: "security", %address, unlogged, "many records of a session are forged");
                    }
                }
                Event::Closed(closed) => drop(state.ended.get_or_insert(Ending::Dtls(closed))),
                _ => {}
            }
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
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
