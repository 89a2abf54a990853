//! The connecting side.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use akma::{AKid, Fqdn, KAf, PskIdentity, Separator, UaProtocolId};
use dtls::{AddressChange, Alert, ClientConfig, Closed, Connection, Established, Event, KeyRequest, PresharedKey};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::{DATAGRAM_READ_OCTETS, choose, name_of, version_of};
use crate::carrier::{DatagramLink, LinkReceived};
use crate::psk_client::{ClientHandshakeError, OfferedVersions};
use crate::psk_profile::TlsVersion;

/// How to connect.
#[derive(Debug, Clone)]
pub struct DtlsClientConfig {
    /// Whether suites without forward secrecy are offered besides ECDHE_PSK.
    pub allow_plain_psk: bool,
    /// What to send between `3GPP-AKMA` and the A-KID.
    pub separator: Separator,
    /// From the call of `connect` to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Octets of a UDP payload that the path carries.
    pub datagram_octets_max: usize,
    /// Which versions are offered.
    pub versions: OfferedVersions,
}

impl Default for DtlsClientConfig {
    /// Forward secrecy only, `;`, 15 s, what any path of IPv6 carries, both versions.
    fn default() -> Self {
        Self {
            allow_plain_psk: false,
            separator: Separator::default(),
            handshake_timeout: Duration::from_secs(15),
            datagram_octets_max: dtls::limits::DATAGRAM_OCTETS_DEFAULT,
            versions: OfferedVersions::default(),
        }
    }
}

/// Connects by DTLS with K_AF as the key. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DtlsConnector {
    config: DtlsClientConfig,
}

impl DtlsConnector {
    /// A connector.
    pub fn new(config: DtlsClientConfig) -> Self {
        Self { config }
    }

    /// Runs one handshake to its end, from a port of its own. `key` is asked for the K_AF of the Ua* protocol negotiated.
    ///
    /// # Errors
    /// [`ClientHandshakeError`], which tells what to do next.
    pub async fn connect(
        &self,
        address: SocketAddr,
        server: &Fqdn,
        a_kid: &AKid,
        key: impl Fn(UaProtocolId) -> KAf,
    ) -> Result<DtlsClientSession, ClientHandshakeError> {
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        // So that the system tells when nobody listens there.
        socket.connect(address).await?;
        // Until it is known to be writable, what is sent would be taken for lost.
        socket.writable().await?;
        let mut config = ClientConfig::new(&PskIdentity::encode(a_kid, self.config.separator));
        config.server_name = Some(server.as_str().to_owned());
        let DtlsClientConfig { allow_plain_psk, handshake_timeout, datagram_octets_max, versions, .. } = self.config;
        choose(&mut config.session, allow_plain_psk, handshake_timeout, datagram_octets_max);
        config.session.cipher_suites.retain(|suite| match versions {
            OfferedVersions::Both => true,
            OfferedVersions::Tls13 => dtls::CipherSuite::DTLS13.contains(suite),
            OfferedVersions::Tls12 => dtls::CipherSuite::DTLS12.contains(suite),
        });
        config.session.address_change = AddressChange::Ignore;
        let connection = Connection::client(Arc::new(config), Instant::now(), address).map_err(meaning)?;
        let mut session = DtlsClientSession {
            socket,
            address,
            connection,
            inbound: VecDeque::new(),
            established: None,
            ended: None,
            buffer: vec![0; DATAGRAM_READ_OCTETS].into_boxed_slice(),
        };
        session.handshake(&key).await?;
        Ok(session)
    }
}

/// An established session: application data in and out, one datagram each. Dropping it ends it; the server is told.
pub struct DtlsClientSession {
    socket: UdpSocket,
    address: SocketAddr,
    connection: Connection,
    inbound: VecDeque<Vec<u8>>,
    established: Option<Established>,
    ended: Option<Closed>,
    buffer: Box<[u8]>,
}

impl DtlsClientSession {
    /// The version of DTLS.
    pub fn version(&self) -> TlsVersion {
        version_of(self.suite())
    }

    /// The cipher suite's IANA name.
    pub fn cipher(&self) -> &'static str {
        name_of(self.suite())
    }

    fn suite(&self) -> u16 {
        self.established.map_or(0, |established| established.cipher_suite.code())
    }

    async fn handshake(&mut self, key: &impl Fn(UaProtocolId) -> KAf) -> Result<(), ClientHandshakeError> {
        loop {
            if let Some(request) = self.settle() {
                let key = key_of(&request, key)?;
                // Fails only if the handshake has ended meanwhile, which its events say.
                let _ = self.connection.provide_key(Instant::now(), &key);
                continue;
            }
            match self.ended {
                Some(Closed::Failed(error)) => return Err(meaning(error)),
                Some(_) => return Err(ClientHandshakeError::Closed),
                None if self.established.is_some() => return Ok(()),
                None => {}
            }
            let deadline = self.connection.poll_timeout().map(tokio::time::Instant::from_std);
            let due = deadline.unwrap_or_else(tokio::time::Instant::now);
            tokio::select! {
                received = self.socket.recv(&mut self.buffer) => {
                    let octets = received.map_err(refused)?;
                    let datagram = self.buffer.get(..octets).unwrap_or_default();
                    self.connection.handle_datagram(Instant::now(), self.address, datagram);
                }
                () = sleep_until(due), if deadline.is_some() => self.connection.handle_timeout(Instant::now()),
            }
        }
    }

    /// Sends what there is to send and sorts what has happened; the key that is asked for.
    fn settle(&mut self) -> Option<KeyRequest> {
        while let Some(transmit) = self.connection.poll_transmit() {
            // A full socket drops it, as a network does; what else is wrong is told at the next receive.
            let _ = self.socket.try_send(&transmit.payload);
        }
        let mut needed = None;
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::KeyNeeded(request) => needed = Some(request),
                Event::Established(established) => self.established = Some(established),
                Event::ApplicationData { payload, .. } if self.inbound.len() < INBOUND_MAX => {
                    self.inbound.push_back(payload);
                }
                Event::Closed(closed) => self.ended = Some(closed),
                _ => {}
            }
        }
        needed
    }
}

/// Datagrams of the server that nobody has taken; one more is dropped.
const INBOUND_MAX: usize = 64;

impl DatagramLink for DtlsClientSession {
    fn datagram_octets_max(&self) -> usize {
        self.connection.payload_octets_max()
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, now: Instant) -> Poll<LinkReceived> {
        loop {
            if let Some(datagram) = self.inbound.pop_front() {
                return Poll::Ready(LinkReceived::Datagram(datagram));
            }
            match self.ended {
                Some(Closed::Failed(error)) => return Poll::Ready(LinkReceived::Broken(io::Error::other(error))),
                Some(_) => return Poll::Ready(LinkReceived::End),
                None => {}
            }
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match self.socket.poll_recv(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(LinkReceived::Broken(error)),
                Poll::Ready(Ok(())) => {
                    self.connection.handle_datagram(now, self.address, buffer.filled());
                    self.settle();
                }
            }
        }
    }

    fn send(&mut self, now: Instant, payload: &[u8]) -> io::Result<()> {
        // A queue that is full, and a session that has ended, are told otherwise.
        let _ = self.connection.send(now, payload);
        self.settle();
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
        self.settle();
    }

    fn close(&mut self, now: Instant) {
        self.connection.close(now);
        self.settle();
    }
}

impl Drop for DtlsClientSession {
    fn drop(&mut self) {
        self.close(Instant::now());
    }
}

impl fmt::Debug for DtlsClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DtlsClientSession({}, {})", self.version(), self.cipher())
    }
}

fn key_of(request: &KeyRequest, key: &impl Fn(UaProtocolId) -> KAf) -> Result<PresharedKey, ClientHandshakeError> {
    let suite = request.cipher_suite.code();
    let k_af = key(version_of(suite).protocol(suite));
    PresharedKey::new(k_af.expose()).map_err(meaning)
}

/// Nobody listens there: most likely the server is being started.
fn refused(error: io::Error) -> ClientHandshakeError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ClientHandshakeError::Closed,
        _ => ClientHandshakeError::Io(error),
    }
}

fn meaning(error: dtls::Error) -> ClientHandshakeError {
    match error {
        dtls::Error::HandshakeTimeout { unauthentic: true } => ClientHandshakeError::WrongKey,
        dtls::Error::HandshakeTimeout { unauthentic: false } => ClientHandshakeError::TimedOut,
        dtls::Error::PeerAlert(Alert::UNKNOWN_PSK_IDENTITY) => ClientHandshakeError::UnknownIdentity,
        dtls::Error::PeerAlert(Alert::DECRYPT_ERROR) | dtls::Error::Finished => ClientHandshakeError::WrongKey,
        dtls::Error::PeerAlert(Alert::UNRECOGNIZED_NAME) => ClientHandshakeError::ServerName,
        dtls::Error::PeerAlert(Alert::INTERNAL_ERROR) => ClientHandshakeError::Busy,
        dtls::Error::PeerAlert(Alert::HANDSHAKE_FAILURE | Alert::PROTOCOL_VERSION) => {
            ClientHandshakeError::NothingInCommon
        }
        dtls::Error::PeerAlert(Alert(other)) => ClientHandshakeError::Alert(other),
        other => ClientHandshakeError::Protocol(other.to_string()),
    }
}
