//! The connecting side: `/akma`, then one request under the new context that shows both sides to hold K_AF.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use akma::{AKid, KAf};
use coap::oscore::{
    AKMA_PATH, AkmaRequest, CONTENT_FORMAT_CBOR, Durability, InnerBlocks, KeyId, Message, NONCE_OCTETS,
    OscoreConnection, Outer, SecurityContext,
};
use coap::{
    Code, Connection, ConnectionEvent, DatagramConfig, DatagramConnection, Failure, Request, Response, StreamConfig,
    StreamConnection, TOKEN_OCTETS_MAX,
};
use tokio::io::ReadBuf;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep_until};

use super::DATAGRAM_OCTETS_MAX;
use super::agreement::random;
use super::datagram::{DatagramSocket, OscoreDatagramCarrier};
use super::metrics::OscoreMetrics;
use super::stream::OscoreStreamCarrier;
use super::tables::Arrived;
use super::tcp::{OscoreAcceptError, Way};
use crate::psk_client::ClientHandshakeError;

/// Octets of an AF-SID. A UE has one context a socket; another length than that of a UE-SID keeps the two apart.
const AF_SID_OCTETS: usize = 2;

/// Connects under OSCORE. Cheap to clone.
///
/// There is no time-out of its own but CoAP's: whoever waits sets one.
#[derive(Debug, Clone)]
pub struct OscoreConnector {
    datagrams: Arc<DatagramConfig>,
    streams: StreamConfig,
    datagram_blocks: Arc<InnerBlocks>,
    stream_blocks: Arc<InnerBlocks>,
}

impl OscoreConnector {
    /// A connector that speaks CoAP so.
    #[must_use]
    pub fn new(datagrams: Arc<DatagramConfig>, streams: StreamConfig) -> Self {
        let datagram_blocks = Arc::new(InnerBlocks::for_datagrams(&datagrams));
        let stream_blocks = Arc::new(InnerBlocks::for_streams(&streams));
        Self { datagrams, streams, datagram_blocks, stream_blocks }
    }

    /// Agrees with a server over UDP, from a socket of its own.
    ///
    /// # Errors
    /// [`ClientHandshakeError`]: `UnknownIdentity` and `WrongKey` mean that other AKMA keys are needed, `Busy` and
    /// `TimedOut` that the same attempt may succeed later.
    pub async fn connect_udp(
        &self,
        server: SocketAddr,
        a_kid: &AKid,
        k_af: &KAf,
    ) -> Result<OscoreDatagramCarrier<OwnSocket>, ClientHandshakeError> {
        let local: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        socket.connect(server).await?;
        let seed = u64::from_be_bytes(random().map_err(|_| no_randomness())?);
        let mut outer = DatagramConnection::new(Arc::clone(&self.datagrams), seed).for_oscore();
        let request = akma_request(a_kid)?;
        ask(&mut outer, &request)?;
        let response = drive_datagrams(&socket, &mut outer, answer).await??;
        let mut machine =
            OscoreConnection::new(outer, context(&request, &response, k_af)?).with_inner_blocks(&self.datagram_blocks);
        machine.ping(Instant::now().into_std()).map_err(protocol)?;
        drive_datagrams(&socket, &mut machine, confirmation).await??;
        Ok(OscoreDatagramCarrier::new(machine, OwnSocket { socket, server }, OscoreMetrics::default()))
    }

    /// The same over a TCP connection.
    ///
    /// # Errors
    /// As [`OscoreConnector::connect_udp`].
    pub async fn connect_tcp(
        &self,
        stream: TcpStream,
        a_kid: &AKid,
        k_af: &KAf,
    ) -> Result<OscoreStreamCarrier<TcpStream>, ClientHandshakeError> {
        let mut way = Way { stream, octets_left: usize::MAX };
        let mut outer = StreamConnection::new(self.streams).for_oscore();
        let request = akma_request(a_kid)?;
        ask(&mut outer, &request)?;
        let response = drive_stream(&mut way, &mut outer, answer).await??;
        let mut machine =
            OscoreConnection::new(outer, context(&request, &response, k_af)?).with_inner_blocks(&self.stream_blocks);
        machine.ping(Instant::now().into_std()).map_err(protocol)?;
        drive_stream(&mut way, &mut machine, confirmation).await??;
        Ok(OscoreStreamCarrier::with_machine(way.stream, machine, OscoreMetrics::default().context_begins()))
    }
}

fn akma_request(a_kid: &AKid) -> Result<AkmaRequest, ClientHandshakeError> {
    let n1 = random::<NONCE_OCTETS>().map_err(|_| no_randomness())?;
    let af_sid = random::<AF_SID_OCTETS>().map_err(|_| no_randomness())?;
    KeyId::new(&af_sid).and_then(|af_sid| AkmaRequest::new(a_kid.as_str(), &n1, af_sid)).map_err(protocol)
}

fn ask(outer: &mut dyn Connection, request: &AkmaRequest) -> Result<(), ClientHandshakeError> {
    let question = Request::post(AKMA_PATH).content_format(CONTENT_FORMAT_CBOR).payload(request.payload());
    outer.request(&question, Instant::now().into_std()).map(drop).map_err(protocol)
}

/// The answer to `/akma`, once it is there.
fn answer(outer: &mut impl Connection) -> Option<Result<Response, ClientHandshakeError>> {
    loop {
        match outer.poll_event()? {
            ConnectionEvent::Response { response, .. } => return Some(Ok(response)),
            ConnectionEvent::Failed { failure, .. } => return Some(Err(failed(failure))),
            ConnectionEvent::Aborted { .. } | ConnectionEvent::Released { .. } => {
                return Some(Err(ClientHandshakeError::Closed));
            }
            _ => {}
        }
    }
}

fn failed(failure: Failure) -> ClientHandshakeError {
    match failure {
        Failure::NotAcknowledged | Failure::NoAnswer => ClientHandshakeError::TimedOut,
        other => ClientHandshakeError::Protocol(format!("no usable answer to /akma: {other:?}")),
    }
}

fn context(request: &AkmaRequest, response: &Response, k_af: &KAf) -> Result<SecurityContext, ClientHandshakeError> {
    match response.code {
        Code::CREATED => {}
        Code::UNAUTHORIZED => return Err(ClientHandshakeError::UnknownIdentity),
        Code::TOO_MANY_REQUESTS | Code::SERVICE_UNAVAILABLE => return Err(ClientHandshakeError::Busy),
        code => return Err(ClientHandshakeError::Protocol(format!("/akma was answered {code}"))),
    }
    let parameters = Message::response(response).and_then(|answer| request.complete(k_af.expose(), &answer));
    parameters.and_then(|parameters| SecurityContext::fresh(&parameters, Durability::Volatile)).map_err(protocol)
}

/// Whether the server holds the same key, once it is known.
fn confirmation<C: Outer>(machine: &mut OscoreConnection<C>) -> Option<Result<(), ClientHandshakeError>> {
    while let Some(event) = machine.poll_event() {
        if let ConnectionEvent::Pong { .. } = event {
            return Some(Ok(()));
        }
    }
    // Over datagrams an answer that is not protected, or by another key, is anybody's: the machine closes once no other has
    // come in time.
    let refused = machine.counters().responses_refused > 0;
    if machine.is_closed() {
        return Some(Err(ClientHandshakeError::WrongKey));
    }
    let error = if refused { ClientHandshakeError::WrongKey } else { ClientHandshakeError::TimedOut };
    (machine.outer().requests_outstanding() == 0).then_some(Err(error))
}

async fn drive_datagrams<M: Connection, T>(
    socket: &UdpSocket,
    machine: &mut M,
    mut done: impl FnMut(&mut M) -> Option<T>,
) -> Result<T, ClientHandshakeError> {
    let mut octets = vec![0; DATAGRAM_OCTETS_MAX];
    loop {
        while let Some(datagram) = machine.poll_transmit() {
            socket.send(&datagram).await?;
        }
        if let Some(result) = done(machine) {
            return Ok(result);
        }
        let due = machine.poll_timeout().map(Instant::from_std);
        tokio::select! {
            received = socket.recv(&mut octets) => {
                let datagram = octets.get(..received?).unwrap_or_default();
                machine.receive(datagram, Instant::now().into_std()).map_err(protocol)?;
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                machine.handle_timeout(Instant::now().into_std());
            }
        }
    }
}

async fn drive_stream<M: Connection, T>(
    way: &mut Way,
    machine: &mut M,
    mut done: impl FnMut(&mut M) -> Option<T>,
) -> Result<T, ClientHandshakeError> {
    loop {
        way.write(machine).await?;
        if let Some(result) = done(machine) {
            return Ok(result);
        }
        way.read(machine).await.map_err(|error| match error {
            OscoreAcceptError::Io(error) => ClientHandshakeError::Io(error),
            OscoreAcceptError::Closed => ClientHandshakeError::Closed,
            other => protocol(other),
        })?;
    }
}

fn protocol(error: impl fmt::Display) -> ClientHandshakeError {
    ClientHandshakeError::Protocol(error.to_string())
}

fn no_randomness() -> ClientHandshakeError {
    ClientHandshakeError::Io(io::Error::other("no randomness"))
}

/// A client's socket, which is for one server.
#[derive(Debug)]
pub struct OwnSocket {
    socket: UdpSocket,
    server: SocketAddr,
}

impl DatagramSocket for OwnSocket {
    fn poll_datagram(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Arrived>>> {
        let mut octets = vec![0; DATAGRAM_OCTETS_MAX];
        let mut buffer = ReadBuf::new(&mut octets);
        ready!(self.socket.poll_recv(context, &mut buffer))?;
        Poll::Ready(Ok(Some((buffer.filled().to_vec(), self.server))))
    }

    /// What the system has no room for is lost, and sent again when that is due.
    fn send(&mut self, datagram: &[u8], _to: SocketAddr) -> io::Result<()> {
        match self.socket.try_send(datagram) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
            _ => Ok(()),
        }
    }

    fn peer(&self) -> SocketAddr {
        self.server
    }

    /// The server stays where it is.
    fn moved(&mut self, _to: SocketAddr) {}

    fn asked(&mut self, _token: [u8; TOKEN_OCTETS_MAX]) {}

    fn asked_elsewhere(&mut self, _token: [u8; TOKEN_OCTETS_MAX]) {}

    fn not_asked(&mut self, _token: &[u8; TOKEN_OCTETS_MAX]) {}

    fn proven(&mut self) -> bool {
        false
    }

    fn is_known(&self) -> bool {
        true
    }
}
