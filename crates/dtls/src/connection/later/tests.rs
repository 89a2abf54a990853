//! Messages and records of DTLS 1.3 on an established session, against a peer whose messages are written by hand.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::alert::Alert;
use crate::config::{ClientConfig, ServerConfig};
use crate::connection::Closed;
use crate::connection::core::{Config, Core};
use crate::frozen::{Frozen, SealingKey};
use crate::limits::{ACK_RECORDS_MAX, FINISHED_ANSWERS_MAX, HANDSHAKE_MESSAGE_OCTETS_MAX, TRANSMITS_MAX};
use crate::record::epochs::{ClientFinished, Epochs, ReadEpoch, WriteEpoch};
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
        let mut sent = Vec::new();
        for transmit in datagrams {
            let mut rest = &transmit.payload[..];
            while !rest.is_empty() {
                let (record, after) = unified::split(rest, self.connection.core.peer_id.len()).unwrap();
                let (number, opened) = self.peer.open(&record).ok().unwrap();
                sent.push((number, opened.content_type, opened.content));
                rest = after;
            }
        }
        sent
    }

    /// So many records of the present epoch were forged.
    fn forgeries(&mut self, count: u64) {
        self.connection.core.epochs.as_mut().unwrap().read_mut().unwrap().unauthentic = count;
    }

    fn forged(&mut self) -> Vec<u8> {
        let mut datagram = self.record(ContentType::APPLICATION_DATA, b"x");
        *datagram.last_mut().unwrap() ^= 1;
        datagram
    }

    fn types_sent(&mut self) -> Vec<ContentType> {
        self.sent().into_iter().map(|(_, content_type, _)| content_type).collect()
    }
}

/// A record of so many octets with these bits of its epoch, which no key opens.
fn made_up(epoch_bits: u8, octets: usize) -> Vec<u8> {
    let mut datagram = vec![0x5a; octets];
    datagram[..4].copy_from_slice(&[0b0011_1000 | epoch_bits, b'o', b'w', b'n']);
    datagram
}

/// A server that has the client's Finished and does not read its epoch any more.
fn server_with_finished(sequence: u64) -> Scene {
    let mut scene = Scene::new(Role::Server);
    scene.connection.core.epochs.as_mut().unwrap().client_finished = ClientFinished::of(sequence);
    scene
}

#[test]
fn what_may_be_a_finished_and_cannot_be_opened_is_answered_so_often_and_with_no_more_octets() {
    let elsewhere = SocketAddr::from(([198, 51, 100, 9], 9));
    let mut scene = server_with_finished(7);
    let now = scene.now;
    let answer_octets = {
        scene.connection.handle_datagram(now, peer_address(), &made_up(2, 100));
        let answer = scene.connection.poll_transmit().unwrap();
        answer.payload.len()
    };
    for answers in 1..=u64::from(FINISHED_ANSWERS_MAX) {
        // What is smaller than its answer has none.
        scene.connection.handle_datagram(now, elsewhere, &made_up(2, answer_octets - 1));
        assert_eq!(scene.sent(), []);
        // Nor are there two for one datagram, or one to where it came from.
        let mut record = made_up(2, 208);
        record[0] |= 0b0100;
        record[6..8].copy_from_slice(&[0, 200]);
        let datagram = [record.clone(), record].concat();
        let disposition = scene.connection.handle_datagram(now, elsewhere, &datagram);
        assert_eq!(disposition, Disposition::Ignored);
        assert!(scene.connection.has_output() == (answers < u64::from(FINISHED_ANSWERS_MAX)));
        assert!(scene.connection.core.transmits.iter().all(|transmit| transmit.destination == peer_address()));
        let sent = scene.sent();
        if answers < u64::from(FINISHED_ANSWERS_MAX) {
            let [(RecordNumber { epoch: APPLICATION, .. }, ContentType::ACK, content)] = &sent[..] else { panic!() };
            assert_eq!(ack::parse(content).unwrap(), [RecordNumber { epoch: HANDSHAKE, sequence: 7 }]);
        } else {
            assert_eq!(sent, []);
        }
    }
    // Nothing else came of it.
    assert_eq!(scene.connection.core.epochs.as_ref().unwrap().client_finished, None);
    assert!(!scene.connection.core.epochs.as_ref().unwrap().has_unauthentic());
    assert!(scene.connection.is_idle());
    assert_eq!(scene.connection.peer_address(), peer_address());
}

#[test]
fn only_a_server_that_took_a_finished_answers_for_it_and_only_where_the_epoch_cannot_be_another() {
    let answers = |scene: &mut Scene, epoch_bits: u8| {
        scene.connection.handle_datagram(scene.now, peer_address(), &made_up(epoch_bits, 200));
        !scene.sent().is_empty()
    };
    assert!(!answers(&mut Scene::new(Role::Server), 2));
    assert!(!answers(&mut Scene::new(Role::Client), 2));
    // A number that no honest client comes to.
    assert!(!answers(&mut server_with_finished(1 << 16), 2));
    let mut scene = server_with_finished(0);
    for (present, expected) in [(3, true), (4, true), (5, true), (6, false), (7, false), (8, false)] {
        assert_eq!(scene.connection.core.epochs.as_ref().unwrap().read().unwrap().epoch, present);
        assert_eq!(answers(&mut scene, 2), expected, "epoch {present}");
        for epoch_bits in [0, 1, 3] {
            assert!(!answers(&mut scene, epoch_bits));
        }
        scene.connection.core.epochs.as_mut().unwrap().advance_read().unwrap();
    }
}

#[test]
fn answers_for_a_finished_are_counted_while_the_session_is_frozen() {
    let mut scene = server_with_finished(3);
    let config = Arc::new(ServerConfig::default());
    for _ in 0..FINISHED_ANSWERS_MAX {
        scene.connection.handle_datagram(scene.now, peer_address(), &made_up(2, 200));
        let [(_, ContentType::ACK, _)] = &scene.sent()[..] else { panic!() };
        let other = Connection::established(
            Core::new(Config::Server(Arc::clone(&config)), peer_address(), scene.now, 0, 0),
            false,
        );
        let frozen = std::mem::replace(&mut scene.connection, other).freeze().unwrap();
        scene.connection = frozen.thaw_server(Arc::clone(&config), scene.now).unwrap();
    }
    scene.connection.handle_datagram(scene.now, peer_address(), &made_up(2, 200));
    assert_eq!(scene.sent(), []);
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
        (Role::Server, MessageType::NEW_CONNECTION_ID, vec![0, 1, 0, 0], Error::IllegalParameter("NewConnectionId")),
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
fn half_of_the_forgeries_that_a_key_stands_ask_for_another_once_the_peer_is_heard() {
    let mut scene = Scene::new(Role::Client);
    let half = SUITE.aead().unauthentic_max() / 2;
    scene.forgeries(half - 2);
    let forged = scene.forged();
    let now = scene.now;
    scene.connection.handle_datagram(now, peer_address(), &forged);
    assert!(!scene.connection.has_output());
    assert_eq!(scene.connection.handle_datagram(now, peer_address(), &forged), Disposition::Ignored);
    assert!(scene.connection.has_output());
    assert_eq!(scene.connection.poll_event(), Some(Event::RenewalAdvised));
    scene.connection.handle_datagram(now, peer_address(), &forged);
    // It may be asleep: nothing is sent that it would have to acknowledge.
    assert!(!scene.connection.has_output());
    assert_eq!(scene.connection.poll_timeout(), None);
    scene.arrive(ContentType::APPLICATION_DATA, b"awake");
    let sent = scene.sent();
    let [(number, ContentType::HANDSHAKE, content)] = &sent[..] else { panic!() };
    assert!(content.ends_with(&[UPDATE_REQUESTED]));
    // Once, however long the peer takes.
    scene.arrive(ContentType::ACK, &ack::encode(&[*number]));
    scene.arrive(ContentType::APPLICATION_DATA, b"awake");
    assert_eq!(scene.sent(), []);
    // The peer's new key counts anew.
    scene.say(MessageType::KEY_UPDATE, &[UPDATE_NOT_REQUESTED]);
    assert!(!scene.connection.core.epochs.as_ref().unwrap().read_is_half_exhausted());
}

#[test]
fn of_a_datagram_one_record_counts_as_a_forgery_and_what_follows_it_is_not_read() {
    let mut scene = Scene::new(Role::Server);
    let mut forged = Vec::new();
    for _ in 0..3 {
        let id = ConnectionId::new(b"own").unwrap();
        scene.peer.seal(None, &id, Form::WITH_LENGTH, ContentType::APPLICATION_DATA, b"x", &mut forged).unwrap();
        *forged.last_mut().unwrap() ^= 1;
    }
    scene.connection.handle_datagram(scene.now, peer_address(), &forged);
    assert_eq!(scene.connection.core.epochs.as_ref().unwrap().read().unwrap().unauthentic, 1);
}

#[test]
fn forgeries_of_an_epoch_that_the_peer_has_left_do_not_end_the_session() {
    let mut scene = Scene::new(Role::Server);
    scene.forgeries(SUITE.aead().unauthentic_max());
    scene.say(MessageType::KEY_UPDATE, &[UPDATE_NOT_REQUESTED]);
    assert!(scene.connection.is_closed(), "the present epoch's key is used up");

    let mut scene = Scene::new(Role::Server);
    let old = scene.record(ContentType::APPLICATION_DATA, b"old");
    scene.say(MessageType::KEY_UPDATE, &[UPDATE_NOT_REQUESTED]);
    scene.connection.core.epochs.as_mut().unwrap().exhaust_oldest_read();
    assert_eq!(scene.connection.handle_datagram(scene.now, peer_address(), &old), Disposition::Ignored);
    assert!(scene.connection.is_established());
    scene.peer.advance_write().unwrap();
    assert_eq!(scene.arrive(ContentType::APPLICATION_DATA, b"new").len(), 1);
}

#[test]
fn a_peer_that_asks_without_end_gets_one_answer_and_no_more_time() {
    let mut scene = Scene::new(Role::Server);
    let timeout = scene.connection.core.config.session().handshake_timeout;
    let until = scene.now + timeout;
    let mut events = Vec::new();
    for _ in 0..600 {
        events.extend(scene.say(MessageType::REQUEST_CONNECTION_ID, &[3]));
        assert!(scene.connection.core.transmits.len() <= TRANSMITS_MAX);
        assert_eq!(scene.connection.core.handshake.as_ref().unwrap().flight.as_ref().unwrap().items.len(), 1);
        if scene.now < until - Duration::from_secs(1) {
            scene.now += Duration::from_millis(200);
            scene.connection.handle_timeout(scene.now);
        }
    }
    assert_eq!(events, []);
    scene.connection.handle_timeout(until);
    let timed_out = Error::HandshakeTimeout { unauthentic: false };
    assert_eq!(scene.connection.poll_event(), Some(Event::Closed(Closed::Failed(timed_out))));
}

#[test]
fn a_further_message_gives_the_first_no_more_time_and_its_ack_gives_the_next_all_of_it() {
    let mut scene = Scene::new(Role::Server);
    let timeout = scene.connection.core.config.session().handshake_timeout;
    let until = |scene: &Scene| scene.connection.core.handshake.as_ref().unwrap().until;
    let first = scene.now;
    scene.say(MessageType::REQUEST_CONNECTION_ID, &[1]);
    let sent = scene.sent();
    let Some((number, ContentType::HANDSHAKE, _)) = sent.first() else { panic!() };
    scene.now += timeout / 2;
    scene.say(MessageType::KEY_UPDATE, &[UPDATE_REQUESTED]);
    assert_eq!(until(&scene), first + timeout);
    scene.peer.advance_write().unwrap();
    scene.arrive(ContentType::ACK, &ack::encode(&[*number]));
    assert_eq!(until(&scene), scene.now + timeout);
}

#[test]
fn a_long_flight_stays_within_the_queue() {
    let mut scene = Scene::new(Role::Server);
    let (now, core) = (scene.now, &mut scene.connection.core);
    core.send_post_handshake(now, MessageType::NEW_SESSION_TICKET, vec![7; 200_000]).unwrap();
    assert_eq!(core.transmits.len(), TRANSMITS_MAX);
    // What is sealed is what is sent.
    let sealed = core.epochs.as_ref().unwrap().write().unwrap().sequence;
    assert_eq!(sealed, TRANSMITS_MAX as u64);
}

#[test]
fn a_key_update_counts_once_everything_before_it_has_arrived() {
    let mut scene = Scene::new(Role::Server);
    scene.say(MessageType::REQUEST_CONNECTION_ID, &[1]);
    scene.say(MessageType::KEY_UPDATE, &[UPDATE_REQUESTED]);
    let sent = scene.sent();
    let numbers = |message_type: MessageType| -> Vec<RecordNumber> {
        let of = |(_, content_type, content): &&(RecordNumber, ContentType, Vec<u8>)| {
            *content_type == ContentType::HANDSHAKE && content[0] == message_type.0
        };
        sent.iter().filter(of).map(|(number, ..)| *number).collect()
    };
    assert_eq!(numbers(MessageType::KEY_UPDATE).len(), 1);
    let epoch = |scene: &Scene| scene.connection.core.epochs.as_ref().unwrap().write().unwrap().epoch;
    scene.peer.advance_write().unwrap();
    scene.arrive(ContentType::ACK, &ack::encode(&numbers(MessageType::KEY_UPDATE)));
    assert_eq!(epoch(&scene), APPLICATION);
    scene.arrive(ContentType::ACK, &ack::encode(&numbers(MessageType::NEW_CONNECTION_ID)));
    assert_eq!(epoch(&scene), APPLICATION + 1);
}

#[test]
fn a_key_update_is_acknowledged_once_everything_before_it_is_here() {
    let mut scene = Scene::new(Role::Client);
    let message =
        |sequence, message_type, body: &[u8]| Message { message_type, sequence, body: body.to_vec() }.encode();
    let update = message(1, MessageType::KEY_UPDATE, &[UPDATE_NOT_REQUESTED]);
    scene.arrive(ContentType::HANDSHAKE, &update);
    assert_eq!(scene.types_sent(), []);
    scene.arrive(ContentType::HANDSHAKE, &message(0, MessageType::NEW_SESSION_TICKET, &[0; 40]));
    assert_eq!(scene.types_sent(), [ContentType::ACK]);
    assert_eq!(scene.connection.core.epochs.as_ref().unwrap().read().unwrap().epoch, APPLICATION + 1);
    scene.arrive(ContentType::HANDSHAKE, &update);
    assert_eq!(scene.types_sent(), [ContentType::ACK]);
}

#[test]
fn without_numbers_for_messages_there_are_none_and_the_session_ends_when_one_is_needed() {
    let mut scene = Scene::new(Role::Server);
    scene.connection.core.message_numbers = (u16::MAX, 0);
    assert_eq!(scene.connection.update_keys(scene.now, false), Err(Error::MessageNumbers));
    assert_eq!(scene.connection.poll_event(), None);
    let events = scene.say(MessageType::REQUEST_CONNECTION_ID, &[1]);
    assert_eq!(events, [Event::Closed(Closed::Failed(Error::MessageNumbers))]);

    let mut scene = Scene::new(Role::Client);
    scene.connection.core.message_numbers = (0, u16::MAX - 1);
    scene.next_message = u16::MAX - 1;
    assert_eq!(scene.say(MessageType::NEW_SESSION_TICKET, &[0; 40]), []);
    scene.next_message = u16::MAX;
    let last = Message { message_type: MessageType::NEW_SESSION_TICKET, sequence: u16::MAX, body: vec![0; 40] };
    let events = scene.arrive(ContentType::HANDSHAKE, &last.encode());
    assert_eq!(events, [Event::Closed(Closed::Failed(Error::MessageNumbers))]);
}

#[test]
fn a_message_that_is_longer_than_the_limit_ends_the_session() {
    let mut scene = Scene::new(Role::Client);
    let events = scene.say(MessageType::NEW_SESSION_TICKET, &[0; HANDSHAKE_MESSAGE_OCTETS_MAX + 1]);
    assert_eq!(events, [Event::Closed(Closed::Failed(Error::IllegalParameter("length of a message")))]);
}

#[test]
fn a_key_update_of_either_side_makes_the_sealed_form_stale_until_the_next_sealing() {
    for ours in [false, true] {
        let mut scene = Scene::new(Role::Server);
        scene.connection.core.epochs.as_mut().unwrap().sealed = true;
        assert!(!scene.connection.is_sealed_form_stale());
        if ours {
            scene.connection.update_keys(scene.now, false).unwrap();
            let sent = scene.sent();
            let [(number, ContentType::HANDSHAKE, _)] = &sent[..] else { panic!() };
            scene.arrive(ContentType::ACK, &ack::encode(&[*number]));
        } else {
            scene.say(MessageType::KEY_UPDATE, &[UPDATE_NOT_REQUESTED]);
            scene.sent();
        }
        assert!(scene.connection.is_sealed_form_stale());
        let thaw = |frozen: Frozen| frozen.thaw_server(Arc::new(ServerConfig::default()), scene.now).unwrap();
        let connection = thaw(scene.connection.freeze().unwrap());
        assert!(connection.is_sealed_form_stale());
        let mut frozen = connection.freeze().unwrap();
        let _ = SealingKey::new(&[1; 32], 1).unwrap().seal(&mut frozen).unwrap();
        assert!(!thaw(frozen).is_sealed_form_stale());
    }
}

#[test]
fn a_probe_counts_for_the_key_as_data_do() {
    let mut scene = Scene::new(Role::Server);
    let elsewhere = SocketAddr::from(([192, 0, 2, 2], 2));
    let datagram = scene.record(ContentType::APPLICATION_DATA, &[0; 40]);
    scene.connection.handle_datagram(scene.now, elsewhere, &datagram);
    let half = SUITE.aead().records_max() / 2;
    scene.connection.core.epochs.as_mut().unwrap().write_mut().unwrap().sequence = half - 1;
    scene.peer.read_mut().unwrap().window.next = half - 1;
    scene.connection.probe(scene.now, b"echo").unwrap();
    assert_eq!(scene.types_sent(), [ContentType::APPLICATION_DATA, ContentType::HANDSHAKE]);
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
