//! Records and messages of DTLS 1.3 as they come (RFC 9147 4, 5, 7, 8, 9).

use std::net::SocketAddr;
use std::time::Instant;

use crate::codec::{Malformed, Read, Reader, put_vector16};
use crate::connection::{Connection, Disposition, Event, Machine, Role};
use crate::connection_id::ConnectionId;
use crate::error::{Error, Failure};
use crate::handshake::reassembly::Taken;
use crate::handshake::{Fragment, Message, MessageType};
use crate::record::ContentType;
use crate::record::epochs::{APPLICATION, HANDSHAKE, RecordNumber};
use crate::record::protection::{Dropped, Opened};
use crate::record::unified::{self, Unified};
use crate::v13::ack;

/// Whether a KeyUpdate asks for one (RFC 8446 4.6.3).
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

/// How the IDs of a NewConnectionId are meant (RFC 9147 9).
const CID_IMMEDIATE: u8 = 0;
const CID_SPARE: u8 = 1;

/// A record's disposition and what follows it.
type Handled<'a> = (Result<Disposition, Failure>, &'a [u8]);

impl Connection {
    /// Makes a new write key (RFC 9147 8), and with `request` asks the peer for one of its own. The old one is used until
    /// the peer has acknowledged that. Before a key has written half of what it may, and when half of the records that may
    /// fail to authenticate have, it happens without being asked for.
    ///
    /// A peer that does not acknowledge it in [`crate::SessionConfig::handshake_timeout`] ends the session with
    /// [`Error::HandshakeTimeout`]: do it while the peer is awake.
    ///
    /// # Errors
    /// [`Error::NoKeyUpdate`] with DTLS 1.2, [`Error::NotEstablished`], [`Error::Closed`], [`Error::UpdatePending`];
    /// [`Error::WriteKeyExhausted`] if it was restored from sealed forms over more than
    /// [`crate::limits::SEALED_STARTS_MAX_DTLS13`] starts of the server. They change nothing.
    pub fn update_keys(&mut self, now: Instant, request: bool) -> Result<(), Error> {
        match self.machine {
            Machine::Established if self.core.epochs.is_none() => return Err(Error::NoKeyUpdate),
            Machine::Established => {}
            Machine::Closed => return Err(Error::Closed),
            _ => return Err(Error::NotEstablished),
        }
        if self.core.awaits_acknowledgement() {
            return Err(Error::UpdatePending);
        }
        if !self.may_update_keys() {
            return Err(Error::WriteKeyExhausted);
        }
        self.send_key_update(now, if request { UPDATE_REQUESTED } else { UPDATE_NOT_REQUESTED });
        Ok(())
    }

    fn may_update_keys(&self) -> bool {
        self.core.epochs.as_ref().is_some_and(|epochs| epochs.may_advance_write())
    }

    fn send_key_update(&mut self, now: Instant, request: u8) {
        self.core.send_post_handshake(now, MessageType::KEY_UPDATE, vec![request]);
    }

    /// After a record was sent: a key that has written half of what it may is to be followed by another.
    pub(super) fn update_keys_when_due(&mut self, now: Instant) {
        let due = self.core.epochs.as_ref().is_some_and(|epochs| epochs.write_is_half_exhausted());
        if due && !self.core.awaits_acknowledgement() && self.may_update_keys() {
            self.send_key_update(now, UPDATE_NOT_REQUESTED);
        }
    }

    /// A record did not authenticate: after half of those that may, the peer is asked for another key.
    fn note_forgery13(&mut self, now: Instant) {
        let due = self.core.epochs.as_ref().is_some_and(|epochs| epochs.read_is_half_exhausted());
        if due && self.core.established && !self.core.renewal_advised && !self.core.awaits_acknowledgement() {
            self.core.renewal_advised = true;
            self.core.push_event(Event::RenewalAdvised);
            if self.may_update_keys() {
                self.send_key_update(now, UPDATE_REQUESTED);
            }
        }
    }

    /// Whether it is, or may become, a session of DTLS 1.3.
    pub(super) fn is_13(&self) -> bool {
        self.core.epochs.is_some() || matches!(self.machine, Machine::Client13(_) | Machine::Server13(_))
    }

    /// Whether the peer has no reason to say anything in clear.
    pub(super) fn peer_has_keys13(&self) -> bool {
        let heard = |window: u64| window > 0;
        self.core.epochs.as_ref().is_some_and(|epochs| {
            self.role() == Role::Client || epochs.read().is_some_and(|read| heard(read.window.next))
        })
    }

    /// Refuses an identity that is too long.
    pub(super) fn check_identity(&mut self, now: Instant) {
        let outcome = match &mut self.machine {
            Machine::Server13(server) => server.check_identity(&mut self.core, now),
            _ => Ok(()),
        };
        if let Err(failure) = outcome {
            self.fail(failure, false);
        }
    }

    /// Takes the first record of `datagram`, which has the unified header, and returns what follows it. `None`: the rest is
    /// of no use. `first`: nothing goes before it in its datagram.
    pub(super) fn handle_unified<'a>(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &'a [u8],
        first: bool,
    ) -> Option<Handled<'a>> {
        if self.core.keys.is_some() {
            return None;
        }
        if self.core.epochs.is_none() {
            // Where it ends depends on what is not negotiated yet.
            let kept = source == self.core.peer && self.is_13() && self.core.keep_early(datagram);
            let disposition = if kept { Disposition::Taken } else { Disposition::Ignored };
            return Some((Ok(disposition), &[]));
        }
        let (record, rest) = unified::split(datagram, self.core.own_id.len())?;
        let octets = datagram.get(..datagram.len() - rest.len()).unwrap_or_default();
        // Once negotiated, a datagram without our Connection ID is nobody's; those after the first may leave it out.
        let ours = record.connection_id == Some(self.core.own_id.as_bytes());
        let left_out = record.connection_id.is_none() && (self.core.own_id.is_empty() || !first);
        if !ours && !left_out {
            return None;
        }
        Some((self.handle_ciphertext(now, source, &record, octets), rest))
    }

    fn handle_ciphertext(
        &mut self,
        now: Instant,
        source: SocketAddr,
        record: &Unified<'_>,
        octets: &[u8],
    ) -> Result<Disposition, Failure> {
        let may_move = self.core.established && !self.core.own_id.is_empty();
        if source != self.core.peer && !may_move {
            return Ok(Disposition::Ignored);
        }
        let Some(epochs) = &mut self.core.epochs else { return Ok(Disposition::Ignored) };
        if !epochs.reads(record.epoch_bits()) {
            let kept = !self.core.established && self.core.keep_early(octets);
            return Ok(if kept { Disposition::Taken } else { Disposition::Ignored });
        }
        let (number, opened) = match epochs.open(record) {
            Ok(opened) => opened,
            Err(Dropped::KeyExhausted) => return Err(Error::ReadKeyExhausted.into()),
            Err(Dropped::Unauthentic) => {
                self.note_forgery13(now);
                return Ok(Disposition::Ignored);
            }
            Err(Dropped::Replayed) => return Ok(Disposition::Ignored),
        };
        if self.core.established {
            self.core.note_source(source, opened.newest, octets.len());
            self.core.note_epoch(now, number.epoch);
        }
        let Opened { content_type, content, .. } = opened;
        match content_type {
            ContentType::APPLICATION_DATA if self.core.established && number.epoch >= APPLICATION => {
                self.core.note_application_data(now);
                self.core.push_event(Event::ApplicationData { payload: content, source });
                Ok(Disposition::Taken)
            }
            ContentType::HANDSHAKE => {
                // What comes after the handshake says, as data do, that it is done.
                if self.core.established && number.epoch >= APPLICATION {
                    self.core.note_application_data(now);
                }
                self.handle_fragments13(now, number, &content)
            }
            ContentType::ALERT => Ok(self.handle_alert(&content)),
            ContentType::ACK => self.handle_ack(now, &content),
            _ => Err(Error::UnexpectedMessage.into()),
        }
    }

    fn handle_ack(&mut self, now: Instant, content: &[u8]) -> Result<Disposition, Failure> {
        let numbers = ack::parse(content).map_err(|_| Error::Malformed("ACK"))?;
        let arrived = self.core.take_acknowledgement(now, &numbers);
        if arrived.contains(&MessageType::KEY_UPDATE)
            && let Some(epochs) = &mut self.core.epochs
        {
            epochs.advance_write()?;
        }
        Ok(Disposition::Taken)
    }

    pub(super) fn handle_fragments13(
        &mut self,
        now: Instant,
        number: RecordNumber,
        content: &[u8],
    ) -> Result<Disposition, Failure> {
        let (mut new, mut again) = (false, false);
        let mut reader = Reader::new(content);
        while !reader.is_empty() {
            let fragment = match Fragment::read(&mut reader) {
                Ok(fragment) => fragment,
                // In clear somebody else may have written it.
                Err(_) if number.epoch == 0 => break,
                Err(_) => return Err(Error::Malformed("handshake message").into()),
            };
            if !self.expects(&fragment, number.epoch) {
                if number.epoch == 0 {
                    continue;
                }
                return Err(Error::UnexpectedMessage.into());
            }
            match self.core.open_handshake(now).reassembler.insert(&fragment) {
                Taken::Dropped => {}
                Taken::Old => again = true,
                Taken::Repeated => {
                    again = true;
                    if number.epoch < APPLICATION {
                        self.core.retransmit_on_duplicate(now);
                    }
                }
                Taken::New => {
                    new = true;
                    self.handle_messages(now)?;
                    if !self.is_13() {
                        // The server wanted DTLS 1.2.
                        self.handle_fragments(now, 0, reader.rest())?;
                        return Ok(Disposition::Taken);
                    }
                }
            }
        }
        self.acknowledge_fragments(now, number, new, again);
        if new {
            self.replay_early(now);
        }
        self.core.settle();
        Ok(if new || again { Disposition::Taken } else { Disposition::Ignored })
    }

    /// Whether a message may come in this epoch.
    fn expects(&self, fragment: &Fragment<'_>, epoch: u64) -> bool {
        let reassembler = self.core.handshake.as_ref().map(|handshake| &handshake.reassembler);
        match (epoch, fragment.message_type) {
            // Before the keys the client knows one message that comes next; everything else in clear can only be old.
            (0, MessageType::SERVER_HELLO | MessageType::HELLO_VERIFY_REQUEST | MessageType::CLIENT_HELLO) => {
                let client = self.role() == Role::Client;
                let next = reassembler.map_or(0, |reassembler| reassembler.next());
                let open = client && self.core.epochs.is_none();
                client != (fragment.message_type == MessageType::CLIENT_HELLO)
                    && !self.core.established
                    && (fragment.sequence < next || (open && fragment.sequence == next))
            }
            (HANDSHAKE, message_type) => {
                matches!(message_type, MessageType::ENCRYPTED_EXTENSIONS | MessageType::FINISHED)
            }
            (APPLICATION.., message_type) => matches!(
                message_type,
                MessageType::NEW_SESSION_TICKET
                    | MessageType::KEY_UPDATE
                    | MessageType::REQUEST_CONNECTION_ID
                    | MessageType::NEW_CONNECTION_ID
            ),
            // In clear anything may be written by anybody, and DTLS 1.2 has more messages.
            _ => false,
        }
    }

    /// RFC 9147 7.1: at once what no flight of ours answers or what shows a loss, soon what is a part of a flight.
    fn acknowledge_fragments(&mut self, now: Instant, number: RecordNumber, new: bool, again: bool) {
        // A server's flight answers a ClientHello; in clear nothing is acknowledged.
        let answered = number.epoch == 0 && self.role() == Role::Server;
        if !(new || again) || answered {
            return;
        }
        if self.core.established {
            // The client's Finished answers the server's flight; that of the server before has been answered too.
            let finished = self.role() == Role::Client && number.epoch <= HANDSHAKE;
            if finished {
                self.core.forget_to_acknowledge();
            } else {
                self.core.note_to_acknowledge(number);
                self.core.acknowledge();
            }
            return;
        }
        if self.core.epochs.is_none() && self.core.awaits_acknowledgement() {
            // A HelloRetryRequest, which the second ClientHello answers, or a part of a ServerHello.
            return;
        }
        self.core.note_to_acknowledge(number);
        let gap = self.core.handshake.as_ref().is_some_and(|handshake| handshake.reassembler.has_gap());
        if gap {
            self.core.acknowledge();
        } else {
            self.core.acknowledge_soon(now);
        }
    }

    /// A message after the handshake.
    pub(super) fn handle_post_handshake(&mut self, now: Instant, message: &Message) -> Result<bool, Failure> {
        match message.message_type {
            // Nothing is resumed here (RFC 8446 4.6.1).
            MessageType::NEW_SESSION_TICKET if self.role() == Role::Client => {}
            MessageType::KEY_UPDATE => self.handle_key_update(now, &message.body)?,
            MessageType::REQUEST_CONNECTION_ID if !self.core.own_id.is_empty() => {
                if message.body.len() != 1 {
                    return Err(Error::Malformed("RequestConnectionId").into());
                }
                // RFC 9147 9 allows any number of IDs; all of one server's have their sessions' only one.
                let mut body = Vec::new();
                put_vector16(&mut body, &[]);
                body.push(CID_SPARE);
                self.core.send_post_handshake(now, MessageType::NEW_CONNECTION_ID, body);
            }
            MessageType::NEW_CONNECTION_ID if !self.core.peer_id.is_empty() => {
                let (first, usage) =
                    new_connection_id(&message.body).map_err(|_| Error::Malformed("NewConnectionId"))?;
                match (usage, first) {
                    (CID_SPARE, _) => {}
                    (CID_IMMEDIATE, Some(id)) => {
                        let id = ConnectionId::new(id).map_err(|_| Error::IllegalParameter("Connection ID"))?;
                        self.core.peer_id = id;
                    }
                    _ => return Err(Error::IllegalParameter("NewConnectionId").into()),
                }
            }
            _ => return Err(Error::UnexpectedMessage.into()),
        }
        Ok(true)
    }

    fn handle_key_update(&mut self, now: Instant, body: &[u8]) -> Result<(), Failure> {
        let requested = match body {
            [UPDATE_NOT_REQUESTED] => false,
            [UPDATE_REQUESTED] => true,
            [_] => return Err(Error::IllegalParameter("KeyUpdate").into()),
            _ => return Err(Error::Malformed("KeyUpdate").into()),
        };
        self.core.previous_until = None;
        self.core.renewal_advised = false;
        if let Some(epochs) = &mut self.core.epochs {
            epochs.advance_read()?;
        }
        // One that is under way does what is asked for (RFC 9147 8).
        let updating = self.core.handshake.as_ref().and_then(|handshake| handshake.flight.as_ref());
        if requested && !updating.is_some_and(|flight| flight.contains(MessageType::KEY_UPDATE)) {
            if !self.may_update_keys() {
                return Err(Error::WriteKeyExhausted.into());
            }
            self.send_key_update(now, UPDATE_NOT_REQUESTED);
        }
        Ok(())
    }
}

/// The first of the IDs, and how they are meant.
fn new_connection_id(body: &[u8]) -> Read<(Option<&[u8]>, u8)> {
    let mut reader = Reader::new(body);
    let mut list = Reader::new(reader.vector16()?);
    let usage = reader.u8()?;
    reader.end()?;
    let mut first = None;
    while !list.is_empty() {
        let id = list.vector8()?;
        first = first.or(Some(id));
    }
    if usage > CID_SPARE {
        return Err(Malformed);
    }
    Ok((first, usage))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::alert::Alert;
    use crate::config::{ClientConfig, ServerConfig};
    use crate::connection::Closed;
    use crate::connection::core::{Config, Core};
    use crate::limits::ACK_RECORDS_MAX;
    use crate::record::epochs::{Epochs, ReadEpoch, WriteEpoch};
    use crate::record::unified::Form;
    use crate::suite::CipherSuite;
    use crate::v13::schedule::TrafficSecret;

    const SUITE: CipherSuite = CipherSuite::Aes128Gcm;

    fn peer_address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 1))
    }

    /// Both directions have the same secret, so that the peer's records are made of it too.
    fn epochs() -> Epochs {
        let secret = || TrafficSecret::of_octets(&[7; 32]);
        let write = WriteEpoch::new(SUITE, APPLICATION, secret()).unwrap();
        Epochs::new(SUITE, write, ReadEpoch::new(SUITE, APPLICATION, secret()).unwrap())
    }

    /// An established session and its peer, whose messages are written by hand.
    struct Scene {
        now: Instant,
        connection: Connection,
        peer: Epochs,
        next_message: u16,
    }

    impl Scene {
        fn new(role: Role) -> Self {
            let now = Instant::now();
            let config = match role {
                Role::Client => Config::Client(Arc::new(ClientConfig::new(b"meter-7"))),
                Role::Server => Config::Server(Arc::new(ServerConfig::default())),
            };
            let mut core = Core::new(config, peer_address(), now, 0, 0);
            core.handshake = None;
            core.established = true;
            core.epochs = Some(Box::new(epochs()));
            core.own_id = ConnectionId::new(b"own").unwrap();
            core.peer_id = ConnectionId::new(b"peer").unwrap();
            Self { now, connection: Connection::established(core, false), peer: epochs(), next_message: 0 }
        }

        fn record(&mut self, content_type: ContentType, content: &[u8]) -> Vec<u8> {
            let mut datagram = Vec::new();
            let id = ConnectionId::new(b"own").unwrap();
            self.peer.seal(None, &id, Form::ALONE, content_type, content, &mut datagram).unwrap();
            datagram
        }

        /// The peer sends something.
        fn arrive(&mut self, content_type: ContentType, content: &[u8]) -> Vec<Event> {
            let datagram = self.record(content_type, content);
            self.connection.handle_datagram(self.now, peer_address(), &datagram);
            std::iter::from_fn(|| self.connection.poll_event()).collect()
        }

        /// The peer sends a message.
        fn say(&mut self, message_type: MessageType, body: &[u8]) -> Vec<Event> {
            let message = Message { message_type, sequence: self.next_message, body: body.to_vec() };
            self.next_message += 1;
            self.arrive(ContentType::HANDSHAKE, &message.encode())
        }

        /// What the session sends, as the peer opens it.
        fn sent(&mut self) -> Vec<(RecordNumber, ContentType, Vec<u8>)> {
            let datagrams: Vec<_> = std::iter::from_fn(|| self.connection.poll_transmit()).collect();
            let mut open = |datagram: &[u8]| {
                let (record, _) = unified::split(datagram, self.connection.core.peer_id.len()).unwrap();
                let (number, opened) = self.peer.open(&record).ok().unwrap();
                (number, opened.content_type, opened.content)
            };
            datagrams.iter().map(|transmit| &transmit.payload).map(|datagram| open(datagram)).collect()
        }

        fn types_sent(&mut self) -> Vec<ContentType> {
            self.sent().into_iter().map(|(_, content_type, _)| content_type).collect()
        }
    }

    #[test]
    fn a_ticket_is_acknowledged_and_ignored() {
        let mut scene = Scene::new(Role::Client);
        assert_eq!(scene.say(MessageType::NEW_SESSION_TICKET, &[0; 40]), []);
        let [(_, ContentType::ACK, content)] = &scene.sent()[..] else { panic!() };
        assert_eq!(ack::parse(content).unwrap(), [RecordNumber { epoch: 3, sequence: 0 }]);
        assert!(scene.connection.is_idle());
    }

    #[test]
    fn a_message_that_comes_again_is_acknowledged_again_and_does_nothing() {
        let mut scene = Scene::new(Role::Client);
        scene.say(MessageType::KEY_UPDATE, &[UPDATE_NOT_REQUESTED]);
        assert_eq!(scene.types_sent(), [ContentType::ACK]);
        let epoch = scene.connection.core.epochs.as_ref().unwrap().read().unwrap().epoch;
        assert_eq!(epoch, 4);
        // The peer, which did not hear the ACK, is still in its epoch 3.
        for _ in 0..3 {
            scene.next_message = 0;
            scene.say(MessageType::KEY_UPDATE, &[UPDATE_NOT_REQUESTED]);
            assert_eq!(scene.types_sent(), [ContentType::ACK]);
            assert_eq!(scene.connection.core.epochs.as_ref().unwrap().read().unwrap().epoch, epoch);
        }
        scene.peer.advance_write().unwrap();
        assert_eq!(scene.arrive(ContentType::APPLICATION_DATA, b"new").len(), 1);
    }

    #[test]
    fn messages_that_may_not_come_end_the_session() {
        let cases = [
            (Role::Server, MessageType::NEW_SESSION_TICKET, vec![0; 40], Error::UnexpectedMessage),
            (Role::Client, MessageType::CLIENT_HELLO, vec![0; 40], Error::UnexpectedMessage),
            (Role::Client, MessageType::FINISHED, vec![0; 32], Error::UnexpectedMessage),
            (Role::Client, MessageType::KEY_UPDATE, vec![2], Error::IllegalParameter("KeyUpdate")),
            (Role::Client, MessageType::KEY_UPDATE, vec![], Error::Malformed("KeyUpdate")),
            (Role::Client, MessageType::KEY_UPDATE, vec![0, 0], Error::Malformed("KeyUpdate")),
            (Role::Server, MessageType::NEW_CONNECTION_ID, vec![0, 0, 2], Error::Malformed("NewConnectionId")),
            (Role::Server, MessageType::NEW_CONNECTION_ID, vec![0, 0, 0], Error::IllegalParameter("NewConnectionId")),
            (Role::Server, MessageType::REQUEST_CONNECTION_ID, vec![], Error::Malformed("RequestConnectionId")),
        ];
        for (role, message_type, body, error) in cases {
            let mut scene = Scene::new(role);
            assert_eq!(scene.say(message_type, &body), [Event::Closed(Closed::Failed(error))]);
            assert_eq!(scene.types_sent().last(), Some(&ContentType::ALERT));
        }
        // Without Connection IDs nobody asks for more.
        for message_type in [MessageType::NEW_CONNECTION_ID, MessageType::REQUEST_CONNECTION_ID] {
            let mut scene = Scene::new(Role::Client);
            scene.connection.core.peer_id = ConnectionId::EMPTY;
            if message_type == MessageType::NEW_CONNECTION_ID {
                let events = scene.say(message_type, &[0, 0, 1]);
                assert_eq!(events, [Event::Closed(Closed::Failed(Error::UnexpectedMessage))]);
            } else {
                assert_eq!(scene.say(message_type, &[1]), []);
            }
        }
    }

    #[test]
    fn a_peer_that_asks_for_connection_ids_gets_none_more() {
        let mut scene = Scene::new(Role::Server);
        assert_eq!(scene.say(MessageType::REQUEST_CONNECTION_ID, &[3]), []);
        let sent = scene.sent();
        let [(number, ContentType::HANDSHAKE, content), (_, ContentType::ACK, _)] = &sent[..] else { panic!() };
        assert_eq!(content[0], MessageType::NEW_CONNECTION_ID.0);
        assert!(content.ends_with(&[0, 0, CID_SPARE]));
        // Again, until it is acknowledged.
        scene.now += Duration::from_secs(1);
        scene.connection.handle_timeout(scene.now);
        assert_eq!(scene.types_sent(), [ContentType::HANDSHAKE]);
        scene.arrive(ContentType::ACK, &ack::encode(&[*number]));
        assert!(scene.connection.is_idle());
    }

    #[test]
    fn a_new_connection_id_of_the_peer_is_used_when_it_says_so() {
        let mut scene = Scene::new(Role::Client);
        scene.say(MessageType::NEW_CONNECTION_ID, &[0, 4, 3, b'n', b'e', b'w', CID_SPARE]);
        assert_eq!(scene.connection.core.peer_id.as_bytes(), b"peer");
        scene.say(MessageType::NEW_CONNECTION_ID, &[0, 4, 3, b'n', b'e', b'w', CID_IMMEDIATE]);
        assert_eq!(scene.connection.core.peer_id.as_bytes(), b"new");
        scene.connection.send(scene.now, b"data").unwrap();
        let last = std::iter::from_fn(|| scene.connection.poll_transmit()).last().unwrap().payload;
        assert_eq!(&last[1..4], b"new");
        let too_long = [&[0, 34, 33][..], &[0; 33], &[CID_IMMEDIATE]].concat();
        let events = scene.say(MessageType::NEW_CONNECTION_ID, &too_long);
        assert_eq!(events, [Event::Closed(Closed::Failed(Error::IllegalParameter("Connection ID")))]);
    }

    #[test]
    fn a_write_key_is_updated_at_half_of_what_it_may_write() {
        let mut scene = Scene::new(Role::Client);
        let half = SUITE.aead().records_max() / 2;
        scene.connection.core.epochs.as_mut().unwrap().write_mut().unwrap().sequence = half - 2;
        scene.peer.read_mut().unwrap().window.next = half - 2;
        scene.connection.send(scene.now, b"x").unwrap();
        assert_eq!(scene.types_sent(), [ContentType::APPLICATION_DATA]);
        scene.connection.send(scene.now, b"x").unwrap();
        let sent = scene.sent();
        let [_, (number, ContentType::HANDSHAKE, _)] = &sent[..] else { panic!() };
        scene.arrive(ContentType::ACK, &ack::encode(&[*number]));
        let write = scene.connection.core.epochs.as_ref().unwrap().write().unwrap();
        assert_eq!((write.epoch, write.sequence), (4, 0));
    }

    #[test]
    fn half_of_the_forgeries_that_a_key_stands_ask_for_another() {
        let mut scene = Scene::new(Role::Client);
        let half = SUITE.aead().unauthentic_max() / 2;
        scene.connection.core.epochs.as_mut().unwrap().read_mut().unwrap().unauthentic = half - 2;
        let mut forged = scene.record(ContentType::APPLICATION_DATA, b"x");
        *forged.last_mut().unwrap() ^= 1;
        let now = scene.now;
        scene.connection.handle_datagram(now, peer_address(), &forged);
        assert_eq!(scene.connection.poll_event(), None);
        scene.connection.handle_datagram(now, peer_address(), &forged);
        assert_eq!(scene.connection.poll_event(), Some(Event::RenewalAdvised));
        scene.connection.handle_datagram(now, peer_address(), &forged);
        assert_eq!(scene.connection.poll_event(), None);
        let sent = scene.sent();
        let [(_, ContentType::HANDSHAKE, content)] = &sent[..] else { panic!() };
        assert!(content.ends_with(&[UPDATE_REQUESTED]));
        // The peer's new key counts anew.
        scene.say(MessageType::KEY_UPDATE, &[UPDATE_NOT_REQUESTED]);
        assert!(!scene.connection.core.epochs.as_ref().unwrap().read_is_half_exhausted());
    }

    #[test]
    fn what_is_neither_data_nor_handshake_nor_ack_nor_alert_ends_the_session() {
        for content_type in [ContentType::CHANGE_CIPHER_SPEC, ContentType::TLS12_CID, ContentType(99)] {
            let mut scene = Scene::new(Role::Server);
            let events = scene.arrive(content_type, &[1]);
            assert_eq!(events, [Event::Closed(Closed::Failed(Error::UnexpectedMessage))]);
        }
        let mut scene = Scene::new(Role::Server);
        let events = scene.arrive(ContentType::ACK, &[0, 1, 0]);
        assert_eq!(events, [Event::Closed(Closed::Failed(Error::Malformed("ACK")))]);
    }

    #[test]
    fn an_alert_ends_the_session_whatever_its_level_but_for_a_closure() {
        for (level, description, closed) in [
            (1, Alert::HANDSHAKE_FAILURE, Some(Closed::Failed(Error::PeerAlert(Alert::HANDSHAKE_FAILURE)))),
            (2, Alert::INTERNAL_ERROR, Some(Closed::Failed(Error::PeerAlert(Alert::INTERNAL_ERROR)))),
            (1, Alert::USER_CANCELED, None),
            (1, Alert::CLOSE_NOTIFY, Some(Closed::Peer)),
        ] {
            let mut scene = Scene::new(Role::Server);
            let events = scene.arrive(ContentType::ALERT, &[level, description.0]);
            assert_eq!(events, Vec::from_iter(closed.map(Event::Closed)));
        }
    }

    #[test]
    fn an_ack_names_no_more_records_than_the_limit_and_the_newest() {
        let mut scene = Scene::new(Role::Client);
        let last = ACK_RECORDS_MAX as u64;
        scene.connection.core.open_handshake(scene.now);
        for sequence in 0..=last {
            scene.connection.core.note_to_acknowledge(RecordNumber { epoch: 3, sequence });
        }
        scene.connection.core.acknowledge();
        let [(_, ContentType::ACK, content)] = &scene.sent()[..] else { panic!() };
        let numbers = ack::parse(content).unwrap();
        let sequences: Vec<u64> = numbers.iter().map(|number| number.sequence).collect();
        assert_eq!(sequences, (1..=last).collect::<Vec<_>>());
    }

    #[test]
    fn an_ack_in_clear_counts_for_nothing() {
        let mut scene = Scene::new(Role::Client);
        scene.connection.update_keys(scene.now, false).unwrap();
        let sent = scene.sent();
        let [(number, ContentType::HANDSHAKE, _)] = &sent[..] else { panic!() };
        let content = ack::encode(&[*number]);
        let mut datagram = vec![ContentType::ACK.0, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, content.len() as u8];
        datagram.extend_from_slice(&content);
        // Nor does it keep what follows it in its datagram from being read.
        datagram.extend(scene.record(ContentType::APPLICATION_DATA, b"data"));
        scene.connection.handle_datagram(scene.now, peer_address(), &datagram);
        let event = scene.connection.poll_event();
        assert!(matches!(event, Some(Event::ApplicationData { payload, .. }) if payload == b"data"));
        assert_eq!(scene.connection.update_keys(scene.now, false), Err(Error::UpdatePending));
    }

    proptest! {
        /// An authentic peer may send what it likes: nothing panics, and each session ends or stays.
        #[test]
        fn a_hostile_peer_with_keys_makes_nothing_panic(
            server: bool,
            records in prop::collection::vec((20_u8..28, prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..30),
        ) {
            let mut scene = Scene::new(if server { Role::Server } else { Role::Client });
            for (content_type, mut content, tidy) in records {
                if tidy && content_type == 22 && content.len() > 12 {
                    // A message with a header that fits.
                    let octets = (content.len() - 12) as u8;
                    let message_type = content[0] % 26;
                    let sequence = scene.next_message as u8;
                    let header = [message_type, 0, 0, octets, 0, sequence, 0, 0, 0, 0, 0, octets];
                    content[..12].copy_from_slice(&header);
                    scene.next_message += 1;
                }
                scene.arrive(ContentType(content_type), &content);
                scene.now += Duration::from_millis(500);
                scene.connection.handle_timeout(scene.now);
                while scene.connection.poll_transmit().is_some() {}
            }
            scene.now += Duration::from_secs(1000);
            scene.connection.handle_timeout(scene.now);
            prop_assert_eq!(scene.connection.poll_timeout(), None);
        }
    }
}
