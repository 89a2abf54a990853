//! One session, from the first flight to the last alert.

mod acknowledge;
pub(crate) mod address;
pub(crate) mod core;
mod later;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::alert::Alert;
use crate::codec::Reader;
use crate::config::ClientConfig;
use crate::connection::core::{Config, Core};
use crate::connection_id::ConnectionId;
use crate::error::{Error, Failure};
use crate::handshake::reassembly::Taken;
use crate::handshake::{Fragment, MessageType, hello};
use crate::key::{KeyRefusal, KeyRequest, PresharedKey};
use crate::limits::{RECORD_CONTENT_OCTETS_MAX, TRANSMITS_MAX};
use crate::listener::{Negotiated, ProvenHello};
use crate::record::epochs::RecordNumber;
use crate::record::protection::{Dropped, EPOCH, Opened};
use crate::record::{self, ContentType, Record, unified};
use crate::suite::{CipherSuite, Group, ProtocolVersion};
use crate::v12;
use crate::v13;

/// Which side of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It spoke first.
    Client,
    /// It answered.
    Server,
}

/// A datagram to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (destination, octets) = (self.destination, self.payload.len());
        f.debug_struct("Transmit").field("destination", &destination).field("octets", &octets).finish()
    }
}

/// What a handshake arrived at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Established {
    /// The version.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub cipher_suite: CipherSuite,
    /// The group of the ephemeral exchange, if there was one.
    pub group: Option<Group>,
    /// What the peer writes into its records, by which they reach this session; empty: nothing.
    pub connection_id: ConnectionId,
    /// What we write into ours.
    pub peer_connection_id: ConnectionId,
}

/// What happens on a session.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake waits for a key. Nobody has proven anything but its address yet.
    KeyNeeded(KeyRequest),
    /// The peer has proven that it has the key. With DTLS 1.3 a client may send at once, though the server has not heard its
    /// Finished yet.
    Established(Established),
    /// Application data of the peer, in the order of arrival.
    ApplicationData {
        /// One record's content.
        payload: Vec<u8>,
        /// Where it came from.
        source: SocketAddr,
    },
    /// The peer's newest record came from another address.
    PeerAddressChanged {
        /// The new address.
        address: SocketAddr,
        /// Whether it is the peer's from now on; if not, [`Connection::follow`] makes it so.
        followed: bool,
    },
    /// Half of the records that may fail to authenticate under one key have. Anybody who knows the Connection ID can write
    /// them. A new handshake makes another key; without one the session ends with [`Error::ReadKeyExhausted`]. With DTLS 1.3
    /// the peer is asked for another key as soon as it is heard again, and most likely nothing is to be done.
    RenewalAdvised,
    /// The session has ended; nothing else happens. What is still in [`Connection::poll_transmit`] is to be sent.
    Closed(Closed),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyNeeded(request) => f.debug_tuple("KeyNeeded").field(request).finish(),
            Self::Established(established) => f.debug_tuple("Established").field(established).finish(),
            Self::ApplicationData { payload, source } => f
                .debug_struct("ApplicationData")
                .field("octets", &payload.len())
                .field("source", source)
                .finish_non_exhaustive(),
            Self::PeerAddressChanged { address, followed } => {
                f.debug_struct("PeerAddressChanged").field("address", address).field("followed", followed).finish()
            }
            Self::RenewalAdvised => f.write_str("RenewalAdvised"),
            Self::Closed(closed) => f.debug_tuple("Closed").field(closed).finish(),
        }
    }
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// By [`Connection::close`].
    Local,
    /// The peer sent close_notify.
    Peer,
    /// For this reason.
    Failed(Error),
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It belongs to this session.
    Taken,
    /// Nothing in it is of use to this session: another one's, damaged, repeated, or a forgery.
    Ignored,
    /// A ClientHello that is not this handshake's: the client starts anew, or somebody says so. Give it to
    /// [`crate::Listener::handle_datagram`], and keep this session until the new one is established (RFC 6347 4.2.8).
    NewClientHello,
}

/// One session. The crate's documentation says how to drive it.
pub struct Connection {
    pub(crate) core: Core,
    machine: Machine,
    restored: bool,
}

enum Machine {
    Client(Box<v12::Client>),
    Server(Box<v12::Server>),
    Client13(Box<v13::Client>),
    Server13(Box<v13::Server>),
    Established,
    Closed,
}

/// Why the rest of a datagram is not read.
enum Stop {
    /// A record did not authenticate.
    Forged,
    /// The session ends.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Connection {
    /// Starts a session as a client. With a suite of DTLS 1.3 it asks for that version's key first; if the server then wants
    /// DTLS 1.2, it asks again.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Random`].
    pub fn client(config: Arc<ClientConfig>, now: Instant, server: SocketAddr) -> Result<Self, Error> {
        config.check()?;
        let mut core = Core::new(Config::Client(Arc::clone(&config)), server, now, 0, 0);
        let machine = if config.session.speaks(ProtocolVersion::Dtls13) {
            Machine::Client13(Box::new(v13::Client::start(&mut core, config)?))
        } else {
            Machine::Client(Box::new(v12::Client::start(&mut core, now, config)?))
        };
        Ok(Self { core, machine, restored: false })
    }

    pub(crate) fn server(proven: ProvenHello, now: Instant, connection_id: ConnectionId) -> Result<Self, Error> {
        let sequence = proven.message.sequence;
        let config = Config::Server(Arc::clone(&proven.config));
        let mut core = Core::new(config, proven.source, now, sequence, sequence.saturating_add(1));
        // Our records go on where the HelloVerifyRequest's numbers, which are the client's, left off.
        core.plain_sequence = proven.record_sequence;
        let ProvenHello { config, message, hello, negotiated, .. } = proven;
        match negotiated {
            Negotiated::V12(negotiated) => {
                let server = v12::Server::start(&mut core, now, config, &message, hello, negotiated, connection_id)?;
                Ok(Self { core, machine: Machine::Server(Box::new(server)), restored: false })
            }
            Negotiated::V13(negotiated) => {
                let server = v13::Server::start(&mut core, config, hello, &message, *negotiated, connection_id);
                let mut connection = Self { core, machine: Machine::Server13(Box::new(server)), restored: false };
                connection.check_identity(now);
                Ok(connection)
            }
        }
    }

    /// A session that is established already.
    pub(crate) fn established(core: Core, restored: bool) -> Self {
        Self { core, machine: Machine::Established, restored }
    }

    /// Takes a datagram that came from `source`. Never fails: what cannot be used is dropped, what ends the session is
    /// an event.
    pub fn handle_datagram(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) -> Disposition {
        let mut disposition = Disposition::Ignored;
        let mut rest = datagram;
        while !matches!(self.machine, Machine::Closed) && !rest.is_empty() {
            let outcome = if unified::is_unified(rest) {
                let first = rest.len() == datagram.len();
                let Some((outcome, after)) = self.handle_unified(now, source, rest, first) else { break };
                rest = after;
                outcome
            } else {
                let Some((record, after)) = record::split(rest, self.core.own_id.len()) else { break };
                let octets = rest.get(..rest.len() - after.len()).unwrap_or_default();
                rest = after;
                self.handle_record(now, source, &record, octets)
            };
            match outcome {
                Ok(Disposition::Ignored) => {}
                Ok(Disposition::Taken) => disposition = Disposition::Taken,
                Ok(Disposition::NewClientHello) => return Disposition::NewClientHello,
                // Of a datagram no more than one record counts among the forgeries that the key stands.
                Err(Stop::Forged) => break,
                Err(Stop::Failed(failure)) => {
                    self.fail(failure, true);
                    disposition = Disposition::Taken;
                }
            }
        }
        disposition
    }

    fn handle_record(
        &mut self,
        now: Instant,
        source: SocketAddr,
        record: &Record<'_>,
        octets: &[u8],
    ) -> Result<Disposition, Stop> {
        match record.epoch {
            0 => Ok(self.handle_plain(now, source, record)?),
            EPOCH if self.core.epochs.is_none() => self.handle_protected(now, source, record, octets),
            _ => Ok(Disposition::Ignored),
        }
    }

    fn handle_plain(&mut self, now: Instant, source: SocketAddr, record: &Record<'_>) -> Result<Disposition, Failure> {
        if self.is_new_client_hello(source, record) {
            return Ok(Disposition::NewClientHello);
        }
        // Before its first ClientHello nobody has anything to say to a client.
        let silent = matches!(&self.machine, Machine::Client13(client) if client.awaits_key());
        if self.core.established || source != self.core.peer || silent {
            return Ok(Disposition::Ignored);
        }
        match record.content_type {
            ContentType::HANDSHAKE if self.is_13() => {
                self.handle_fragments13(now, RecordNumber { epoch: 0, sequence: record.sequence }, record.fragment)
            }
            ContentType::HANDSHAKE => self.handle_fragments(now, 0, record.fragment),
            ContentType::CHANGE_CIPHER_SPEC => Ok(Disposition::Taken),
            // Anybody can write it, but a refusal of the server comes in no other form (RFC 4279 2); until the peer has
            // keys.
            ContentType::ALERT if self.peer_has_keys13() => Ok(Disposition::Ignored),
            ContentType::ALERT => Ok(self.handle_alert(record.fragment)),
            _ => Ok(Disposition::Ignored),
        }
    }

    /// A ClientHello's start that is not that of this handshake.
    fn is_new_client_hello(&self, source: SocketAddr, record: &Record<'_>) -> bool {
        if self.core.config.role() != Role::Server || record.content_type != ContentType::HANDSHAKE {
            return false;
        }
        let Ok(fragment) = Fragment::read(&mut Reader::new(record.fragment)) else { return false };
        if fragment.message_type != MessageType::CLIENT_HELLO || fragment.offset != 0 {
            return false;
        }
        let Some(random) = hello::client_random(fragment.data) else { return false };
        match &self.machine {
            Machine::Server(server) => source != self.core.peer || random != *server.client_random(),
            Machine::Server13(server) => source != self.core.peer || random != *server.client_random(),
            _ => true,
        }
    }

    fn handle_protected(
        &mut self,
        now: Instant,
        source: SocketAddr,
        record: &Record<'_>,
        octets: &[u8],
    ) -> Result<Disposition, Stop> {
        // Once negotiated, a record without our Connection ID is nobody's (RFC 9146 3).
        if record.connection_id != self.core.own_id.as_bytes() {
            return Ok(Disposition::Ignored);
        }
        let may_move = self.core.established && !self.core.own_id.is_empty();
        if source != self.core.peer && !may_move {
            return Ok(Disposition::Ignored);
        }
        let Some(keys) = &mut self.core.keys else {
            let kept = self.core.keep_early(octets);
            return Ok(if kept { Disposition::Taken } else { Disposition::Ignored });
        };
        let opened = match keys.open(record) {
            Ok(opened) => opened,
            Err(Dropped::KeyExhausted) => return Err(Error::ReadKeyExhausted.into()),
            Err(Dropped::Unauthentic) => {
                self.core.note_forgery();
                return Err(Stop::Forged);
            }
            Err(Dropped::Replayed) => return Ok(Disposition::Ignored),
        };
        if self.core.established {
            self.core.note_source(source, opened.newest, octets.len());
        }
        Ok(self.handle_opened(now, source, opened)?)
    }

    fn handle_opened(&mut self, now: Instant, source: SocketAddr, opened: Opened) -> Result<Disposition, Failure> {
        let Opened { content_type, content, .. } = opened;
        match content_type {
            // Before that, they have overtaken the server's Finished: dropped, as nobody has proven anything yet.
            ContentType::APPLICATION_DATA if self.core.established => {
                // The client has our last flight.
                self.core.handshake = None;
                self.core.push_event(Event::ApplicationData { payload: content, source });
                Ok(Disposition::Taken)
            }
            ContentType::HANDSHAKE if self.core.established => Ok(self.handle_late_handshake(now, &content)),
            ContentType::HANDSHAKE => self.handle_fragments(now, EPOCH, &content),
            ContentType::ALERT => Ok(self.handle_alert(&content)),
            _ => Ok(Disposition::Ignored),
        }
    }

    /// A handshake message on an established session: the client's Finished once more, since ours was lost; or an attempt
    /// to renegotiate, which is refused with a warning (RFC 5246 7.2.2).
    fn handle_late_handshake(&mut self, now: Instant, content: &[u8]) -> Disposition {
        let Ok(fragment) = Fragment::read(&mut Reader::new(content)) else { return Disposition::Ignored };
        match fragment.message_type {
            MessageType::FINISHED => self.core.retransmit_on_duplicate(now),
            MessageType::CLIENT_HELLO | MessageType::HELLO_REQUEST if self.core.transmits.len() < TRANSMITS_MAX => {
                self.core.queue_alert(Alert::NO_RENEGOTIATION, true);
            }
            _ => return Disposition::Ignored,
        }
        Disposition::Taken
    }

    fn handle_fragments(&mut self, now: Instant, epoch: u16, content: &[u8]) -> Result<Disposition, Failure> {
        let mut disposition = Disposition::Ignored;
        let mut reader = Reader::new(content);
        while !reader.is_empty() {
            // Somebody else may have written it: what makes no sense is dropped.
            let Ok(fragment) = Fragment::read(&mut reader) else { break };
            let protected = fragment.message_type == MessageType::FINISHED;
            if protected != (epoch == EPOCH) || fragment.message_type == MessageType::HELLO_REQUEST {
                continue;
            }
            let Some(handshake) = &mut self.core.handshake else { break };
            match handshake.reassembler.insert(&fragment) {
                Taken::Dropped | Taken::Old => {}
                Taken::Repeated => {
                    self.core.retransmit_on_duplicate(now);
                    disposition = Disposition::Taken;
                }
                Taken::New => {
                    disposition = Disposition::Taken;
                    self.handle_messages(now)?;
                }
            }
        }
        Ok(disposition)
    }

    /// Hands on what is whole and in order.
    fn handle_messages(&mut self, now: Instant) -> Result<(), Failure> {
        while let Some(message) = self.core.handshake.as_mut().and_then(|handshake| handshake.reassembler.pop()) {
            let done = match &mut self.machine {
                Machine::Client(client) => client.handle(&mut self.core, now, message)?,
                Machine::Server(server) => server.handle(&mut self.core, now, message)?,
                Machine::Server13(server) => server.handle(&mut self.core, now, &message)?,
                Machine::Client13(client) => match client.handle(&mut self.core, now, &message)? {
                    v13::Step::On => false,
                    v13::Step::Established => true,
                    v13::Step::Older(mut older) => {
                        let done = older.handle(&mut self.core, now, message)?;
                        self.machine = Machine::Client(older);
                        done
                    }
                },
                Machine::Established if self.core.epochs.is_some() => self.handle_post_handshake(now, &message)?,
                Machine::Established | Machine::Closed => return Ok(()),
            };
            if done {
                self.machine = Machine::Established;
            }
        }
        Ok(())
    }

    fn handle_alert(&mut self, content: &[u8]) -> Disposition {
        let Some((alert, fatal)) = Alert::parse(content) else { return Disposition::Ignored };
        // DTLS 1.3 has no warnings but these two (RFC 8446 6).
        let fatal = fatal || (self.core.epochs.is_some() && !alert.is_closure());
        if alert == Alert::CLOSE_NOTIFY && self.core.established {
            self.core.queue_alert(Alert::CLOSE_NOTIFY, true);
            self.end(Closed::Peer);
        } else if fatal || (!self.core.established && matches!(alert, Alert::CLOSE_NOTIFY | Alert::USER_CANCELED)) {
            self.end(Closed::Failed(Error::PeerAlert(alert)));
        }
        Disposition::Taken
    }

    /// The next datagram to be sent. Send it, or drop it: the protocol stands losses.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.core.transmits.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// Whether [`Connection::poll_transmit`] or [`Connection::poll_event`] has something: after a datagram that is
    /// [`Disposition::Ignored`], too, since many forgeries are an event.
    pub fn has_output(&self) -> bool {
        !self.core.transmits.is_empty() || !self.core.events.is_empty()
    }

    /// When [`Connection::handle_timeout`] is to be called. An idle session has none.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let handshake = self.core.handshake.as_ref().map(|handshake| {
            let retransmit_at = handshake.flight.as_ref().and_then(|flight| flight.retransmit_at());
            let others = [retransmit_at, handshake.acknowledge_at];
            others.into_iter().flatten().fold(handshake.until, std::cmp::min)
        });
        [handshake, self.core.previous_until].into_iter().flatten().min()
    }

    /// Does what is due at `now`; nothing if nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.drop_previous_when_due(now);
        let Some(handshake) = &self.core.handshake else { return };
        if handshake.until > now {
            self.core.acknowledge_when_due(now);
            self.core.retransmit_when_due(now);
        } else if self.core.established && self.core.epochs.is_some() && handshake.flight.is_some() {
            self.end(Closed::Failed(Error::HandshakeTimeout { unauthentic: false }));
        } else if self.core.established {
            self.core.let_handshake_go();
        } else {
            let unauthentic13 = self.core.epochs.as_ref().is_some_and(|epochs| epochs.has_unauthentic());
            let unauthentic = self.core.keys.as_ref().is_some_and(|keys| keys.unauthentic > 0);
            if unauthentic {
                // The peer, whose key differs, reads only what is in clear.
                self.core.queue_alert(Alert::DECRYPT_ERROR, false);
            }
            let refused = match &self.machine {
                Machine::Server(server) => server.refused(),
                _ => None,
            };
            let unauthentic = unauthentic || unauthentic13;
            let error = refused.map_or(Error::HandshakeTimeout { unauthentic }, Error::KeyRefused);
            self.end(Closed::Failed(error));
        }
    }

    /// Answers [`Event::KeyNeeded`].
    ///
    /// # Errors
    /// [`Error::NoKeyAwaited`], which changes nothing. What the key brings about is in the events.
    pub fn provide_key(&mut self, now: Instant, key: &PresharedKey) -> Result<(), Error> {
        let outcome = match &mut self.machine {
            Machine::Client(client) if client.awaits_key() => client.provide_key(&mut self.core, now, key),
            Machine::Server(server) if server.awaits_key() => server.provide_key(&mut self.core, key),
            Machine::Client13(client) if client.awaits_key() => client.provide_key(&mut self.core, now, key),
            Machine::Server13(server) if server.awaits_key() => server.provide_key(&mut self.core, now, key),
            _ => return Err(Error::NoKeyAwaited),
        };
        match outcome {
            Ok(()) => self.replay_early(now),
            Err(failure) => self.fail(failure, false),
        }
        Ok(())
    }

    /// Takes the records that came before their key.
    pub(crate) fn replay_early(&mut self, now: Instant) {
        let early = self.core.handshake.as_mut().map(|handshake| std::mem::take(&mut handshake.early));
        for record in early.unwrap_or_default() {
            self.handle_datagram(now, self.core.peer, &record);
        }
    }

    /// Answers [`Event::KeyNeeded`] with no: the handshake ends and the peer is told; or, with
    /// [`crate::UnknownIdentity::Hide`], it comes to nothing in its time.
    ///
    /// # Errors
    /// [`Error::NoKeyAwaited`], which changes nothing.
    pub fn refuse_key(&mut self, now: Instant, refusal: KeyRefusal) -> Result<(), Error> {
        let outcome = match &mut self.machine {
            Machine::Client(client) if client.awaits_key() => Err(client.refusal(refusal)),
            Machine::Server(server) if server.awaits_key() => server.refuse_key(&mut self.core, refusal),
            Machine::Client13(client) if client.awaits_key() => {
                // Nobody has heard of it yet: there is nobody to tell.
                self.end(Closed::Failed(Error::KeyRefused(refusal)));
                return Ok(());
            }
            Machine::Server13(server) if server.awaits_key() => server.refuse_key(&mut self.core, now, refusal),
            _ => return Err(Error::NoKeyAwaited),
        };
        match outcome {
            Ok(()) => self.replay_early(now),
            Err(failure) => self.fail(failure, false),
        }
        Ok(())
    }

    /// Sends application data, in one record of one datagram.
    ///
    /// # Errors
    /// [`Error::NotEstablished`], [`Error::Closed`], [`Error::PayloadTooLarge`], [`Error::TransmitQueueFull`] change
    /// nothing; [`Error::WriteKeyExhausted`] ends the session.
    pub fn send(&mut self, now: Instant, payload: &[u8]) -> Result<(), Error> {
        self.check_sendable(payload)?;
        if self.core.transmits.len() >= TRANSMITS_MAX {
            return Err(Error::TransmitQueueFull);
        }
        match self.core.application_datagram(payload) {
            Ok(datagram) => {
                self.core.queue(datagram);
                self.update_keys_when_due(now);
                Ok(())
            }
            Err(error) => {
                self.end(Closed::Failed(error));
                Err(error)
            }
        }
    }

    fn check_sendable(&self, payload: &[u8]) -> Result<(), Error> {
        match self.machine {
            Machine::Established => {}
            Machine::Closed => return Err(Error::Closed),
            Machine::Client(_) | Machine::Server(_) | Machine::Client13(_) | Machine::Server13(_) => {
                return Err(Error::NotEstablished);
            }
        }
        let octets_max = self.payload_octets_max();
        if payload.len() > octets_max { Err(Error::PayloadTooLarge { octets_max }) } else { Ok(()) }
    }

    /// Octets that [`Connection::send`] takes at once.
    pub fn payload_octets_max(&self) -> usize {
        let room = self.core.config.session().datagram_octets_max.saturating_sub(self.core.application_overhead());
        room.min(RECORD_CONTENT_OCTETS_MAX)
    }

    /// Makes a new address of [`Event::PeerAddressChanged`] the peer's.
    ///
    /// # Errors
    /// [`Error::NoSuchAddress`]: another address has come since, or the peer is back at the old one.
    pub fn follow(&mut self, address: SocketAddr) -> Result<(), Error> {
        self.core.follow(address)
    }

    /// Forgets a new address of [`Event::PeerAddressChanged`]: the peer's stays, and the session can be frozen. A newer
    /// record from there asks again.
    ///
    /// # Errors
    /// [`Error::NoSuchAddress`], as [`Connection::follow`].
    pub fn decline(&mut self, address: SocketAddr) -> Result<(), Error> {
        self.core.decline(address)
    }

    /// Sends application data to the new address that waits for a decision, to see whether the peer answers from there:
    /// with CoAP, an Echo option that it must repeat (RFC 9175 2.3). No more than
    /// [`crate::limits::PROBE_OCTETS_FACTOR`] octets go there for each that came.
    ///
    /// # Errors
    /// [`Error::NoSuchAddress`], [`Error::ProbeTooLarge`], and those of [`Connection::send`].
    pub fn probe(&mut self, now: Instant, payload: &[u8]) -> Result<(), Error> {
        self.check_sendable(payload)?;
        let outcome = self.core.probe(payload);
        match outcome {
            Err(error @ Error::WriteKeyExhausted) => self.end(Closed::Failed(error)),
            Err(_) => {}
            Ok(()) => self.update_keys_when_due(now),
        }
        outcome
    }

    /// Ends the session; the peer is told by close_notify.
    pub fn close(&mut self, _now: Instant) {
        if matches!(self.machine, Machine::Closed) {
            return;
        }
        self.core.queue_alert(Alert::CLOSE_NOTIFY, self.core.established);
        self.end(Closed::Local);
    }

    /// Which side this is.
    pub fn role(&self) -> Role {
        self.core.config.role()
    }

    /// The peer's address: where [`Connection::send`] sends.
    pub fn peer_address(&self) -> SocketAddr {
        self.core.peer
    }

    /// What the peer writes into its records; empty: nothing, or not negotiated yet.
    pub fn connection_id(&self) -> ConnectionId {
        self.core.own_id
    }

    /// The cipher suite, once there are keys.
    pub fn cipher_suite(&self) -> Option<CipherSuite> {
        let older = self.core.keys.as_ref().map(|keys| keys.suite);
        older.or(self.core.epochs.as_ref().map(|epochs| epochs.suite))
    }

    /// The version, once it is settled.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.cipher_suite().map(CipherSuite::version)
    }

    /// Whether data can be sent.
    pub fn is_established(&self) -> bool {
        matches!(self.machine, Machine::Established)
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        matches!(self.machine, Machine::Closed)
    }

    /// Whether it comes from a form that was sealed while the session went on, so that records which came after that could be
    /// taken once more: ask for freshness (RFC 9175) where that matters. Not if it was handed over.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// Ends the session and tells the peer why.
    fn fail(&mut self, failure: Failure, protected: bool) {
        self.core.queue_alert(failure.alert, protected);
        self.end(Closed::Failed(failure.error));
    }

    /// Forgets everything but what waits for the driver.
    fn end(&mut self, closed: Closed) {
        self.machine = Machine::Closed;
        self.core.keys = None;
        self.core.epochs = None;
        self.core.previous_until = None;
        self.core.handshake = None;
        self.core.candidate = None;
        self.core.push_event(Event::Closed(closed));
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let core = &self.core;
        self.is_established()
            && core.handshake.is_none()
            && core.candidate.is_none()
            && core.transmits.is_empty()
            && core.events.is_empty()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("role", &self.role())
            .field("peer", &self.core.peer)
            .field("established", &self.is_established())
            .finish_non_exhaustive()
    }
}
