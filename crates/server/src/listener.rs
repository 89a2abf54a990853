//! Accepting MSGin5G-1 connections.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akma::AKid;
use coap::StreamConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use transport::{
    Carrier, LogThrottle, OpeningError, OpeningLimits, ProvenPeer, PskAcceptor, SecuredStream, StreamCarrier,
    WebSocketCarrier,
};

use crate::core::Core;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::session::{self, Ended};
use crate::sync::lock;

/// Pause after the system had no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const SHARDS: usize = 16;

/// Every session, so that all can be told to end.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    shards: [Mutex<HashMap<u64, Arc<Mailbox>>>; SHARDS],
    next: AtomicU64,
    connections: AtomicUsize,
    datagram_sessions: AtomicUsize,
    of_a_kids: Mutex<HashMap<AKid, usize>>,
}

/// A TCP connection, or a session over datagrams, that counts until this is dropped, however its task ends.
pub(crate) struct Connection {
    core: Arc<Core>,
    over_datagrams: bool,
}

impl Connection {
    /// None if there are as many as there may be.
    pub(crate) fn count(core: &Arc<Core>) -> Option<Self> {
        let connection = Self { core: Arc::clone(core), over_datagrams: false };
        let before = core.sessions.connections.fetch_add(1, Ordering::Relaxed);
        (before < core.limits.connections_max).then_some(connection)
    }

    /// It takes no descriptor, and its own limit is kept where it comes from.
    pub(crate) fn over_datagrams(core: &Arc<Core>) -> Self {
        core.sessions.datagram_sessions.fetch_add(1, Ordering::Relaxed);
        Self { core: Arc::clone(core), over_datagrams: true }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let sessions = &self.core.sessions;
        let count = if self.over_datagrams { &sessions.datagram_sessions } else { &sessions.connections };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session among [`Sessions`] until this is dropped, however its task ends.
struct Entry {
    core: Arc<Core>,
    number: u64,
    a_kid: AKid,
}

impl Entry {
    fn new(core: &Arc<Core>, mailbox: &Arc<Mailbox>, a_kid: AKid) -> Self {
        let sessions = &core.sessions;
        let number = sessions.next.fetch_add(1, Ordering::Relaxed);
        if let Some(shard) = sessions.shard(number) {
            lock(shard).insert(number, Arc::clone(mailbox));
        }
        let mut of_a_kids = lock(&sessions.of_a_kids);
        let count = of_a_kids.entry(a_kid.clone()).or_default();
        *count += 1;
        if *count > core.limits.connections_per_a_kid_max {
            mailbox.post(Letter::Close(CloseReason::TooMany));
        }
        drop(of_a_kids);
        if core.stopping.is_cancelled() {
            mailbox.post(Letter::Close(CloseReason::Stopping));
        }
        Self { core: Arc::clone(core), number, a_kid }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let sessions = &self.core.sessions;
        if let Some(shard) = sessions.shard(self.number) {
            lock(shard).remove(&self.number);
        }
        let mut of_a_kids = lock(&sessions.of_a_kids);
        if let Some(count) = of_a_kids.get_mut(&self.a_kid) {
            *count -= 1;
            if *count == 0 {
                of_a_kids.remove(&self.a_kid);
            }
        }
    }
}

impl Sessions {
    fn shard(&self, number: u64) -> Option<&Mutex<HashMap<u64, Arc<Mailbox>>>> {
        self.shards.get(usize::try_from(number % SHARDS as u64).ok()?)
    }

    /// Connections, and sessions over datagrams, those in their handshake included.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed) + self.datagram_sessions.load(Ordering::Relaxed)
    }

    /// Tells every session to end in good order.
    pub(crate) fn stop_all(&self) {
        for shard in &self.shards {
            for mailbox in lock(shard).values() {
                mailbox.post(Letter::Close(CloseReason::Stopping));
            }
        }
    }
}

/// What is spoken at a port below CoAP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Below {
    /// TLS.
    Tls,
    /// WebSocket over TLS.
    WebSocket(OpeningLimits),
}

/// Accepts until the server stops.
pub(crate) async fn accept(
    core: Arc<Core>,
    listener: TcpListener,
    acceptor: PskAcceptor,
    below: Below,
    path: Arc<str>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = core.stopping.cancelled() => return,
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                core.metrics.connection_ended("not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(connection) = Connection::count(&core) else {
            core.metrics.connection_ended("too many connections");
            continue;
        };
        let (connection_core, acceptor, path) = (Arc::clone(&core), acceptor.clone(), Arc::clone(&path));
        core.tasks.spawn(async move {
            let (core, _connection) = (connection_core, connection);
            // On its own, so that a session does not hold a handshake's memory.
            let secured = Box::pin(handshake(Arc::clone(&core), stream, source, acceptor)).await;
            let Some(stream) = secured else { return };
            let peer = stream.peer().clone();
            let config = session::stream_config(&core.limits);
            let carrier = match below {
                Below::Tls => Some(Box::new(StreamCarrier::new(stream, config)) as Box<dyn Carrier>),
                Below::WebSocket(limits) => Box::pin(open_websocket(&core, stream, source, &limits, config)).await,
            };
            if let Some(carrier) = carrier {
                serve(&core, carrier, peer, source.ip(), path).await;
            }
        });
    }
}

async fn handshake(
    core: Arc<Core>,
    stream: TcpStream,
    source: SocketAddr,
    acceptor: PskAcceptor,
) -> Option<SecuredStream> {
    // Answers are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let result = tokio::select! {
        result = acceptor.accept(stream, source) => result,
        () = core.stopping.cancelled() => return None,
    };
    match result {
        Ok(stream) => Some(stream),
        Err(error) => {
            // Told by the transport as it deserves; anybody can cause most of these over and over.
            tracing::debug!(%source, %error, "handshake failed");
            core.metrics.connection_ended("handshake failed");
            None
        }
    }
}

/// The opening handshake of WebSocket with a peer that is proven.
async fn open_websocket(
    core: &Core,
    stream: SecuredStream,
    source: SocketAddr,
    limits: &OpeningLimits,
    config: StreamConfig,
) -> Option<Box<dyn Carrier>> {
    let a_kid = stream.peer().a_kid.clone();
    let opened = tokio::select! {
        opened = WebSocketCarrier::accept(stream, limits, config) => opened,
        () = core.stopping.cancelled() => return None,
    };
    match opened {
        Ok(carrier) => Some(Box::new(carrier)),
        Err(error) => {
            if let OpeningError::Refused(refusal) = &error
                && let Some(unlogged) = REFUSED.admit()
            {
                let status = refusal.status();
                tracing::info!(target: "security", %source, %a_kid, status, %refusal, unlogged, "WebSocket not opened");
            } else {
                tracing::debug!(%source, %a_kid, %error, "WebSocket not opened");
            }
            core.metrics.connection_ended("WebSocket not opened");
            None
        }
    }
}

/// A UE can have itself refused over and over.
static REFUSED: LogThrottle = LogThrottle::new();

/// Runs the session of a connection whose peer is proven.
pub(crate) async fn serve(
    core: &Arc<Core>,
    carrier: Box<dyn Carrier>,
    peer: ProvenPeer,
    source: IpAddr,
    path: Arc<str>,
) -> Ended {
    let a_kid = peer.a_kid.clone();
    tracing::debug!(%a_kid, cipher = peer.cipher, "connected");
    let mailbox = Arc::new(Mailbox::default());
    let entry = Entry::new(core, &mailbox, a_kid.clone());
    let ended = session::run(Arc::clone(core), carrier, peer, source, path, mailbox).await;
    drop(entry);
    core.metrics.connection_ended(ended.as_str());
    tracing::debug!(%a_kid, reason = ended.as_str(), "connection ended");
    ended
}
