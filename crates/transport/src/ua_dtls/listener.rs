//! The sockets and their readers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use akma::UaProtocolId;
use dtls::{AddressChange, Alert, ConnectionId, Disposition, Incoming, ProvenHello, SealingKey, ServerConfig};
use tokio::net::UdpSocket;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::arrival::DtlsArrival;
use super::freezing::Body;
use super::peer::{Peer, Surroundings};
use super::session::DtlsLink;
use super::table::{Id, Table};
use super::{CONNECTION_ID_OCTETS, DATAGRAM_READ_OCTETS, DtlsError, DtlsServerConfig, choose, name_of, version_of};
use crate::admission::{Admission, Full};
use crate::handshake_error::HandshakeError;
use crate::key_lookup::KeyLookup;
use crate::log_throttle::LogThrottle;
use crate::metrics::TransportMetrics;
use crate::psk_profile::{IDENTITY_HINT, TlsVersion};
use crate::psk_server::KeyLog;

/// Accepts DTLS sessions whose key is looked up while the handshake waits. Cheap to clone.
#[derive(Clone)]
pub struct DtlsListener {
    shared: Arc<Shared>,
    local: SocketAddr,
    /// Of the first socket, by which restored sessions send.
    around: Option<Arc<Surroundings>>,
}

/// A session of an earlier start of the server.
pub struct RestoredSession {
    /// Its application data.
    pub link: DtlsLink,
    /// What was attached when it was sealed.
    pub attached: Zeroizing<Vec<u8>>,
    /// The Ua* protocol that its key was derived for.
    pub protocol: UaProtocolId,
    /// The version of DTLS.
    pub tls_version: TlsVersion,
    /// The cipher suite's IANA name.
    pub cipher: &'static str,
}

/// What all sockets and handshakes share.
pub(super) struct Shared {
    config: DtlsServerConfig,
    listener: dtls::Listener,
    pub(super) lookup: Arc<KeyLookup>,
    admission: Arc<Admission>,
    table: Arc<Table>,
    stopping: AtomicBool,
}

impl Shared {
    pub(super) fn metrics(&self) -> &TransportMetrics {
        self.lookup.metrics()
    }
}

impl DtlsListener {
    /// Binds `address`, whose port 0 takes a free one; the sockets are to be read from at once.
    ///
    /// # Errors
    /// [`DtlsError`].
    pub fn bind(
        address: SocketAddr,
        config: DtlsServerConfig,
        lookup: Arc<KeyLookup>,
    ) -> Result<(Self, Vec<DtlsSocket>), DtlsError> {
        let limits = config.limits.clone();
        let mut server = ServerConfig {
            identity_hint: Some(IDENTITY_HINT.to_bytes().to_vec()),
            // A peer that has moved is answered where it is; whoever has the session sees to it that the address is proven.
            ..ServerConfig::default()
        };
        server.session.address_change = AddressChange::Follow;
        let timeout = Duration::from_millis(limits.handshake_timeout_ms);
        choose(&mut server.session, config.allow_plain_psk, timeout, limits.datagram_octets_max);
        if let Some(path) = &config.key_log {
            let log = KeyLog::open(path)?;
            server.session.key_log = Some(dtls::KeyLog::new(move |line| log.append(line)));
        }
        let server = Arc::new(server);
        let shared = Arc::new(Shared {
            listener: dtls::Listener::new(Arc::clone(&server), Instant::now())?,
            lookup,
            admission: Admission::new(limits.in_progress_max, limits.in_progress_per_source_max),
            table: Arc::new(Table::new()),
            stopping: AtomicBool::new(false),
            config,
        });
        let sockets = bind_all(address, limits.sockets.max(1))?;
        let local = sockets.first().map_or(Ok(address), UdpSocket::local_addr)?;
        let sockets: Vec<DtlsSocket> = sockets
            .into_iter()
            .map(|socket| DtlsSocket {
                around: Arc::new(Surroundings {
                    socket: Arc::new(socket),
                    metrics: shared.metrics().clone(),
                    inbound_max: limits.inbound_datagrams_max,
                    config: Arc::clone(&server),
                }),
                shared: Arc::clone(&shared),
                // One octet more shows what is longer.
                buffer: vec![0; DATAGRAM_READ_OCTETS + 1].into_boxed_slice(),
            })
            .collect();
        let around = sockets.first().map(|socket| Arc::clone(&socket.around));
        Ok((Self { shared, local, around }, sockets))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Takes no further handshake: a ClientHello is dropped. Sessions go on as long as the sockets are read.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Goes on with a session that an earlier start of the server has sealed; it is frozen.
    ///
    /// # Errors
    /// Those of [`SealingKey::open`]; [`dtls::Error::FrozenForm`] if it has no Connection ID of ours, or one that is taken, or
    /// there are as many sessions as there may be.
    pub fn restore(&self, sealed: &[u8], key: &SealingKey) -> Result<RestoredSession, dtls::Error> {
        let unfit = dtls::Error::FrozenForm;
        let around = self.around.as_ref().filter(|_| self.sessions() < self.shared.config.limits.sessions_max);
        let around = around.ok_or(unfit)?;
        let (frozen, attached) = key.open_with(sealed)?;
        let id = Id::try_from(frozen.connection_id().as_bytes()).map_err(|_| unfit)?;
        let suite = frozen.cipher_suite().ok_or(unfit)?.code();
        let body = Body::Frozen(frozen, self.shared.metrics().dtls_frozen());
        let entry = self.shared.table.enter_restored(Peer::of(body, id, Arc::clone(around))).ok_or(unfit)?;
        let tls_version = version_of(suite);
        Ok(RestoredSession {
            link: DtlsLink::new(entry, self.shared.metrics().dtls_session_begins()),
            attached,
            protocol: tls_version.protocol(suite),
            tls_version,
            cipher: name_of(suite),
        })
    }

    /// Sessions, those in their handshake included.
    pub fn sessions(&self) -> usize {
        self.shared.table.sessions()
    }

    /// Addresses at which a session or a handshake is known: of each at most one, and none that it has moved away from.
    pub fn known_addresses(&self) -> usize {
        self.shared.table.known_addresses()
    }
}

/// One socket of a [`DtlsListener`]. It must be read all the time: what its sessions get comes through it.
pub struct DtlsSocket {
    around: Arc<Surroundings>,
    shared: Arc<Shared>,
    buffer: Box<[u8]>,
}

impl DtlsSocket {
    /// Reads until somebody new has proven its address: run [`DtlsArrival::handshake`] in a task of its own. Datagrams of
    /// sessions are handed to them meanwhile. May be dropped and called again without losing anything.
    ///
    /// # Errors
    /// The socket cannot be read just now; call it again.
    pub async fn accept(&mut self) -> io::Result<DtlsArrival> {
        loop {
            let (octets, source) = self.around.socket.recv_from(&mut self.buffer).await?;
            if octets > DATAGRAM_READ_OCTETS {
                self.shared.drop_datagram(source, Useless::TooLarge);
                continue;
            }
            let datagram = self.buffer.get(..octets).unwrap_or_default();
            if let Some(arrival) = self.shared.take(&self.around, source, datagram) {
                return Ok(arrival);
            }
        }
    }
}

impl Shared {
    /// Gives a datagram to whom it belongs.
    fn take(self: &Arc<Self>, around: &Arc<Surroundings>, source: SocketAddr, datagram: &[u8]) -> Option<DtlsArrival> {
        let now = Instant::now();
        if let Some(id) = ConnectionId::of_datagram(datagram, CONNECTION_ID_OCTETS) {
            match self.table.of_id(&id) {
                Some(peer) => drop(self.hand(&peer, now, source, datagram)),
                None => self.drop_datagram(source, Useless::UnknownConnectionId),
            }
            return None;
        }
        let at = self.table.at(source);
        let mut known = false;
        for peer in [at.handshaking, at.established].into_iter().flatten() {
            known = true;
            match self.hand(&peer, now, source, datagram) {
                Disposition::Taken => return None,
                Disposition::NewClientHello => break,
                Disposition::Ignored => {}
            }
        }
        self.greet(around, now, source, datagram, known)
    }

    fn hand(&self, peer: &Arc<Peer>, now: Instant, source: SocketAddr, datagram: &[u8]) -> Disposition {
        let handled = peer.handle(now, source, datagram);
        if let Some(from) = handled.moved_from {
            self.table.moved(peer, from);
        }
        handled.disposition
    }

    /// Answers somebody who has no session, or wants another.
    fn greet(
        self: &Arc<Self>,
        around: &Arc<Surroundings>,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        known: bool,
    ) -> Option<DtlsArrival> {
        let reply = match self.listener.handle_datagram(now, source, datagram) {
            Incoming::Hello(hello) => match self.admit(around, now, *hello) {
                Ok(arrival) => return Some(arrival),
                Err(reply) => reply?,
            },
            Incoming::Reply(reply) => {
                self.metrics().cookie_sent();
                if let Some(unlogged) = UNPROVEN.admit() {
                    info!(target: "security", %source, unlogged, "ClientHello answered with a cookie");
                }
                reply
            }
            Incoming::Refused(reply, error) => {
                self.refuse(source, &HandshakeError::of_dtls(error));
                reply
            }
            Incoming::Ignored => {
                self.drop_datagram(source, if known { Useless::Unusable } else { Useless::UnknownPeer });
                return None;
            }
        };
        if around.socket.try_send_to(&reply.payload, reply.destination).is_err() {
            self.metrics().datagram_dropped("socket_full");
        }
        None
    }

    /// Somebody whose address is proven: a session, unless a limit is reached. What is refused may get a reply.
    fn admit(
        self: &Arc<Self>,
        around: &Arc<Surroundings>,
        now: Instant,
        hello: ProvenHello,
    ) -> Result<DtlsArrival, Option<dtls::Transmit>> {
        let source = hello.source();
        let name_fits = match hello.server_name() {
            // An address is no name (RFC 6066 clause 3), though libcoap sends one.
            Some(name) if name.parse::<IpAddr>().is_err() => name.eq_ignore_ascii_case(self.config.fqdn.as_str()),
            _ => !self.config.require_sni,
        };
        if !name_fits {
            self.refuse(source, &HandshakeError::ServerName);
            return Err(Some(hello.refuse(Alert::UNRECOGNIZED_NAME)));
        }
        if self.stopping.load(Ordering::Relaxed) {
            self.metrics().datagram_dropped("stopping");
            return Err(None);
        }
        if self.table.sessions() >= self.config.limits.sessions_max {
            self.refuse(source, &HandshakeError::TooManySessions);
            return Err(None);
        }
        let slot = self.admission.admit(source.ip()).map_err(|full| {
            let error = match full {
                Full::Source => HandshakeError::TooManyFromSource,
                Full::All => HandshakeError::TooMany,
            };
            self.refuse(source, &error);
            None
        })?;
        let accepted = self.fresh_id().and_then(|(id, connection_id)| Ok((id, hello.accept(now, connection_id)?)));
        let (id, connection) = accepted.map_err(|error| {
            self.refuse(source, &HandshakeError::of_dtls(error));
            None
        })?;
        let peer = Peer::new(connection, id, Arc::clone(around));
        let entry = self.table.enter(peer, source);
        Ok(DtlsArrival::new(Arc::clone(self), entry, slot, source))
    }

    fn fresh_id(&self) -> Result<(Id, ConnectionId), dtls::Error> {
        loop {
            let connection_id = ConnectionId::random(CONNECTION_ID_OCTETS)?;
            if let Ok(id) = Id::try_from(connection_id.as_bytes())
                && self.table.of_id(&connection_id).is_none()
            {
                return Ok((id, connection_id));
            }
        }
    }

    /// Of somebody who is told so in plain, or not at all.
    fn refuse(&self, source: SocketAddr, error: &HandshakeError) {
        if let Some(unlogged) = REFUSED.admit() {
            warn!(target: "security", %source, reason = error.label(), unlogged, "ClientHello refused");
        }
        self.metrics().dtls_handshake_ended(error.label());
    }

    /// Of anybody, who is told nothing.
    fn drop_datagram(&self, source: SocketAddr, useless: Useless) {
        let (reason, throttle) = useless.told();
        self.metrics().datagram_dropped(reason);
        if let Some(unlogged) = throttle.admit() {
            info!(target: "security", %source, reason, unlogged, "DTLS datagram dropped");
        }
    }
}

/// Why nobody takes a datagram.
#[derive(Clone, Copy)]
enum Useless {
    /// More octets than are read.
    TooLarge,
    /// Of a session that has ended, or a guess.
    UnknownConnectionId,
    /// From an address at which nobody is known, and no whole ClientHello.
    UnknownPeer,
    /// From an address at which somebody is known, who cannot use it.
    Unusable,
}

impl Useless {
    /// As in metrics and logs, and what bounds the lines of each.
    fn told(self) -> (&'static str, &'static LogThrottle) {
        static TOO_LARGE: LogThrottle = LogThrottle::new();
        static UNKNOWN_CONNECTION_ID: LogThrottle = LogThrottle::new();
        static UNKNOWN_PEER: LogThrottle = LogThrottle::new();
        static UNUSABLE: LogThrottle = LogThrottle::new();
        match self {
            Self::TooLarge => ("too_large", &TOO_LARGE),
            Self::UnknownConnectionId => ("unknown_connection_id", &UNKNOWN_CONNECTION_ID),
            Self::UnknownPeer => ("unknown_peer", &UNKNOWN_PEER),
            Self::Unusable => ("unusable", &UNUSABLE),
        }
    }
}

/// Anybody can cause it over and over.
static REFUSED: LogThrottle = LogThrottle::new();
/// Each handshake begins so; many more of them than handshakes are a flood.
static UNPROVEN: LogThrottle = LogThrottle::new();

/// Sockets that share one address.
fn bind_all(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    let mut address = address;
    let mut sockets = Vec::new();
    for _ in 0..count {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        if count > 1 {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        // As much as the system allows: a burst waits there, and what does not fit is lost.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_OCTETS);
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// What is asked of the system for datagrams that have not been read.
const RECEIVE_BUFFER_OCTETS: usize = 4 * 1024 * 1024;

impl std::fmt::Debug for RestoredSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoredSession").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}
