//! What the workloads ask of a server, so that each is measured by the same code.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};

use crate::BenchError;
use crate::process::Process;

/// A server under measurement.
pub(crate) trait Peer: Send + Sync {
    /// A user's connection.
    type Session: Session;

    /// Its name in the figures.
    fn name(&self) -> &'static str;

    /// The process whose time and memory count.
    fn process(&self) -> Process;

    /// A TLS handshake, completed on both sides, and nothing else.
    fn handshake(&self, user: usize, tls: Tls) -> impl Future<Output = Result<(), BenchError>> + Send;

    /// A connection over which `user` can send and is reached. A later one of the same user takes its place.
    fn connect(&self, user: usize, tls: Tls) -> impl Future<Output = Result<Self::Session, BenchError>> + Send;

    /// Whether it may be killed: it is ours.
    fn may_be_killed(&self) -> bool;

    /// SIGKILL, then started again on the same files.
    fn kill_and_restart(&self) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// One user's connection. What it receives it acknowledges by itself.
pub(crate) trait Session: Send + 'static {
    /// Hands a message to user `to` to the connection, and returns the number that its answer will carry.
    fn send(&mut self, to: usize, payload: &[u8]) -> Result<u64, BenchError>;

    /// What happens next; also writes what waits. May be dropped and called again without losing anything.
    fn event(&mut self) -> impl Future<Output = Result<Event, BenchError>> + Send;

    /// Ends the connection in good order; the user stays known, and messages are kept for it.
    fn close(self) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// What happens on a connection.
#[derive(Debug)]
pub(crate) enum Event {
    /// The server took responsibility for the message sent under this number: delivered, or kept.
    Taken(u64),
    /// The server did not take it, for this reason.
    Refused(u64, String),
    /// A message's payload.
    Received(Vec<u8>),
}

/// TLS version; in both the key exchange is ephemeral with X25519, and both sides prove themselves by the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// `psk_dhe_ke`, TLS_AES_128_GCM_SHA256 where the client chooses.
    V1_3,
    /// TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256.
    V1_2,
}

impl Tls {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tls::V1_3 => "TLS 1.3",
            Tls::V1_2 => "TLS 1.2",
        }
    }
}

/// Connects from one of many loopback addresses: limits are per source, and ports are too few for one.
pub(crate) async fn connect_tcp(user: usize, server: SocketAddr) -> Result<TcpStream, BenchError> {
    let socket = TcpSocket::new_v4()?;
    // The kernel picks the port when connecting, so that one port serves several destinations.
    socket.set_reuseaddr(true)?;
    let [low, high, ..] = (user % SOURCES).to_le_bytes();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, high, low.max(1))), 0))?;
    let stream = socket.connect(server).await.map_err(BenchError::connection)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

const SOURCES: usize = 4_096;
