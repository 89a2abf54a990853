//! Accepting MSGin5G-1 connections.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coap::StreamConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use transport::{
    Carrier, LogThrottle, OpeningError, OpeningLimits, ProvenPeer, PskAcceptor, SecuredStream, StreamCarrier,
    WebSocketCarrier,
};

use crate::core::Core;
use crate::hibernation::{self, Seat};
use crate::mailbox::Mailbox;
use crate::session::{self, Ended, Session};
use crate::sessions::{Connection, Entry};

/// Pause after the system had no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is spoken at a port below CoAP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Below {
    /// TLS.
    Tls,
    /// WebSocket over TLS.
    WebSocket(OpeningLimits),
}

/// Accepts over TLS until the server stops.
pub(crate) async fn accept(
    core: Arc<Core>,
    listener: TcpListener,
    acceptor: PskAcceptor,
    below: Below,
    path: Arc<str>,
) {
    accept_streams(core, listener, path, move |core, stream, source| {
        let acceptor = acceptor.clone();
        async move {
            // On its own, so that a session does not hold a handshake's memory.
            let stream = Box::pin(handshake(Arc::clone(&core), stream, source, acceptor)).await?;
            let peer = stream.peer().clone();
            let config = session::stream_config(&core.limits);
            let carrier = match below {
                Below::Tls => Box::new(StreamCarrier::new(stream, config)) as Box<dyn Carrier>,
                Below::WebSocket(limits) => Box::pin(open_websocket(&core, stream, source, &limits, config)).await?,
            };
            Some((carrier, peer))
        }
    })
    .await;
}

/// Accepts until the server stops, and runs the sessions of those that `prove` finds proven.
pub(crate) async fn accept_streams<P>(
    core: Arc<Core>,
    listener: TcpListener,
    path: Arc<str>,
    prove: impl Fn(Arc<Core>, TcpStream, SocketAddr) -> P,
) where
    P: Future<Output = Option<(Box<dyn Carrier>, ProvenPeer)>> + Send + 'static,
{
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
        // Answers are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let (proving, session_core, path) =
            (prove(Arc::clone(&core), stream, source), Arc::clone(&core), Arc::clone(&path));
        core.tasks.spawn(async move {
            let _connection = connection;
            if let Some((carrier, peer)) = Box::pin(proving).await {
                serve(&session_core, carrier, peer, source.ip(), path).await;
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

/// Runs the session of a connection whose peer is proven, until it ends or, idle, rests; then there is none, and it goes
/// on by itself when something is to be done for it.
pub(crate) async fn serve_until_rest(
    core: &Arc<Core>,
    connection: Connection,
    carrier: Box<dyn Carrier>,
    peer: ProvenPeer,
    source: IpAddr,
    path: Arc<str>,
) -> Option<Ended> {
    tracing::debug!(a_kid = %peer.a_kid, cipher = peer.cipher, "connected");
    let mailbox = Arc::new(Mailbox::default());
    let seat = Seat::new(Entry::new(core, &mailbox, &peer), connection);
    let session = Session::new(Arc::clone(core), carrier, peer, source, path, mailbox);
    hibernation::live(Arc::clone(core), session, seat).await
}

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
    let entry = Entry::new(core, &mailbox, &peer);
    let ended = session::run(Arc::clone(core), carrier, peer, source, path, mailbox).await;
    drop(entry);
    ended.tell(core, &a_kid);
    ended
}
