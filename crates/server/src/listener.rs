//! Accepting MSGin5G-1 connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use transport::{PskAcceptor, SecuredStream};

use crate::core::Core;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::session;
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
}

impl Sessions {
    fn enter(&self, mailbox: &Arc<Mailbox>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(shard) = self.shard(number) {
            lock(shard).insert(number, Arc::clone(mailbox));
        }
        number
    }

    fn leave(&self, number: u64) {
        if let Some(shard) = self.shard(number) {
            lock(shard).remove(&number);
        }
    }

    fn shard(&self, number: u64) -> Option<&Mutex<HashMap<u64, Arc<Mailbox>>>> {
        self.shards.get(usize::try_from(number % SHARDS as u64).ok()?)
    }

    /// Connections, those in their handshake included.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
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

/// Accepts until the server stops.
pub(crate) async fn accept(core: Arc<Core>, listener: TcpListener, acceptor: PskAcceptor, path: Arc<str>) {
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
        if core.sessions.connections.fetch_add(1, Ordering::Relaxed) >= core.limits.connections_max {
            core.sessions.connections.fetch_sub(1, Ordering::Relaxed);
            core.metrics.connection_ended("too many connections");
            continue;
        }
        let (connection_core, acceptor, path) = (Arc::clone(&core), acceptor.clone(), Arc::clone(&path));
        core.tasks.spawn(async move {
            let core = connection_core;
            // On its own, so that a session does not hold a handshake's memory.
            let secured = Box::pin(handshake(Arc::clone(&core), stream, source, acceptor)).await;
            if let Some(stream) = secured {
                serve(&core, stream, source, path).await;
            }
            core.sessions.connections.fetch_sub(1, Ordering::Relaxed);
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

async fn serve(core: &Arc<Core>, stream: SecuredStream, source: SocketAddr, path: Arc<str>) {
    let peer = stream.peer().clone();
    let a_kid = peer.a_kid.clone();
    tracing::debug!(%a_kid, cipher = peer.cipher, "connected");
    let mailbox = Arc::new(Mailbox::default());
    let number = core.sessions.enter(&mailbox);
    if core.stopping.is_cancelled() {
        mailbox.post(Letter::Close(CloseReason::Stopping));
    }
    let ended = session::run(Arc::clone(core), stream, peer, source.ip(), path, mailbox).await;
    core.sessions.leave(number);
    core.metrics.connection_ended(ended.as_str());
    tracing::debug!(%a_kid, reason = ended.as_str(), "connection ended");
}
