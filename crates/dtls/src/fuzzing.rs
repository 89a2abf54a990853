//! Ways in for `fuzz/` to the parsers that are not public. Not part of the interface.
//!
//! Each panics when a property that the parsers promise does not hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::Reader;
use crate::config::{ClientConfig, ServerConfig};
use crate::connection::Connection;
use crate::connection::core::{Config, Core};
use crate::connection_id::ConnectionId;
use crate::handshake::exchange::{ClientKeyExchange, ServerKeyExchange};
use crate::handshake::hello::{ClientHello, HelloVerifyRequest, ServerHello, cookie_bound_parts};
use crate::handshake::offer::encrypted_extensions;
use crate::handshake::reassembly::Reassembler;
use crate::handshake::{Fragment, Message, MessageType};
use crate::limits::HANDSHAKE_MESSAGE_OCTETS_MAX;
use crate::record::epochs::{APPLICATION, Epochs, ReadEpoch, WriteEpoch};
use crate::record::unified::{self, Form};
use crate::record::{self, ContentType};
use crate::suite::CipherSuite;
use crate::v13::ack;
use crate::v13::schedule::TrafficSecret;

/// An established session of DTLS 1.3 whose peer has the keys and sends any records.
pub fn session13(server: bool, records: &[(u8, u16, &[u8])]) {
    let mut now = Instant::now();
    let source = SocketAddr::from(([192, 0, 2, 1], 1));
    let config = if server {
        Config::Server(Arc::new(ServerConfig::default()))
    } else {
        Config::Client(Arc::new(ClientConfig::new(b"meter-7")))
    };
    let mut core = Core::new(config, source, now, 0, 0);
    core.handshake = None;
    core.established = true;
    core.epochs = Some(epochs());
    core.own_id = ConnectionId::new(b"own").unwrap_or(ConnectionId::EMPTY);
    core.peer_id = ConnectionId::new(b"peer").unwrap_or(ConnectionId::EMPTY);
    let own_id = core.own_id;
    let (mut session, mut peer) = (Connection::established(core, false), epochs());
    for (content_type, action, content) in records {
        let mut datagram = Vec::new();
        let sealed = peer.seal(None, &own_id, Form::ALONE, ContentType(*content_type), content, &mut datagram);
        assert!(sealed.is_ok());
        session.handle_datagram(now, source, &datagram);
        // And once more, which is never taken for a second one.
        let events = std::iter::from_fn(|| session.poll_event()).count();
        session.handle_datagram(now, source, &datagram);
        assert!(events <= 2 && session.poll_event().is_none());
        now += Duration::from_millis(u64::from(*action));
        session.handle_timeout(now);
        match action % 4 {
            0 => drop(session.send(now, content)),
            1 => drop(session.update_keys(now, *action > 99)),
            2 if peer.advance_write().is_err() => return,
            _ => {}
        }
        while session.poll_transmit().is_some() || session.poll_event().is_some() {}
    }
    now += Duration::from_secs(1000);
    session.handle_timeout(now);
    assert_eq!(session.poll_timeout(), None);
}

/// With a key that no input has.
fn epochs() -> Box<Epochs> {
    let suite = CipherSuite::Aes128Gcm;
    let secret = || TrafficSecret::of_octets(&[7; 32]);
    let write = WriteEpoch::new(suite, APPLICATION, secret());
    let read = ReadEpoch::new(suite, APPLICATION, secret());
    match (write, read) {
        (Ok(write), Ok(read)) => Box::new(Epochs::new(suite, write, read)),
        _ => panic!("the cryptographic library failed"),
    }
}

/// Takes a datagram apart and puts it together again.
pub fn records(datagram: &[u8], connection_id_octets: usize) {
    let mut again = Vec::new();
    let mut rest = datagram;
    let mut epochs = epochs();
    while !rest.is_empty() {
        if unified::is_unified(rest) {
            let Some((record, after)) = unified::split(rest, connection_id_octets) else { break };
            // A header has two octets at least; nobody has the key.
            assert!(record.ciphertext.len() + after.len() + 2 <= rest.len());
            assert!(epochs.open(&record).is_err());
            again.extend_from_slice(rest.get(..rest.len() - after.len()).unwrap_or_default());
            rest = after;
            continue;
        }
        let Some((record, after)) = record::split(rest, connection_id_octets) else { break };
        assert!(after.len() < rest.len());
        rest = after;
        record::put_header(
            &mut again,
            record.content_type,
            record.version,
            record.epoch,
            record.sequence,
            record.connection_id,
            record.fragment.len(),
        );
        again.extend_from_slice(record.fragment);
    }
    assert!(datagram.starts_with(&again));
    assert_eq!(again.len() + rest.len(), datagram.len());
}

/// Puts the fragments of a record together and reads what comes out as every message that it could be.
pub fn handshake(contents: &[&[u8]]) {
    let mut reassembler = Reassembler::default();
    let mut expected = 0;
    for content in contents {
        let mut reader = Reader::new(content);
        while let Ok(fragment) = Fragment::read(&mut reader) {
            reassembler.insert(&fragment);
            while let Some(message) = reassembler.pop() {
                assert_eq!(message.sequence, expected);
                expected += 1;
                body(&message);
            }
        }
    }
}

fn body(message: &Message) {
    let octets = &message.body;
    if let Ok(numbers) = ack::parse(octets) {
        assert_eq!(&ack::encode(&numbers), octets);
    }
    assert!(octets.len() <= HANDSHAKE_MESSAGE_OCTETS_MAX);
    match message.message_type {
        MessageType::CLIENT_HELLO => {
            if let Ok(hello) = ClientHello::parse(octets) {
                let (before, after) = cookie_bound_parts(octets).unwrap_or_default();
                assert!(before.len() + after.len() + hello.cookie.len() < octets.len());
                // What we would write of it reads as what we would write. We offer at least one suite; a hello of none that
                // is spoken here has no such form.
                if !hello.cipher_suites.is_empty() {
                    let written = hello.encode();
                    assert_eq!(ClientHello::parse(&written).map(|hello| hello.encode()), Ok(written));
                }
            }
        }
        MessageType::SERVER_HELLO => {
            if let Ok(hello) = ServerHello::parse(octets) {
                let written = hello.encode();
                assert_eq!(ServerHello::parse(&written).map(|hello| hello.encode()), Ok(written));
            }
        }
        MessageType::HELLO_VERIFY_REQUEST => {
            if let Ok(request) = HelloVerifyRequest::parse(octets) {
                assert!(octets.ends_with(request.cookie));
            }
        }
        MessageType::SERVER_KEY_EXCHANGE => {
            for ephemeral in [false, true] {
                if let Ok(exchange) = ServerKeyExchange::parse(octets, ephemeral) {
                    assert_eq!(&exchange.encode(), octets);
                }
            }
        }
        MessageType::CLIENT_KEY_EXCHANGE => {
            for ephemeral in [false, true] {
                if let Ok(exchange) = ClientKeyExchange::parse(octets, ephemeral) {
                    assert_eq!(&exchange.encode(), octets);
                }
            }
        }
        MessageType::ENCRYPTED_EXTENSIONS => drop(encrypted_extensions(octets)),
        _ => {}
    }
}
