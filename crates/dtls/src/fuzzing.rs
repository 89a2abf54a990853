//! Ways in for `fuzz/` to the parsers that are not public. Not part of the interface.
//!
//! Each panics when a property that the parsers promise does not hold.

use crate::codec::Reader;
use crate::handshake::exchange::{ClientKeyExchange, ServerKeyExchange};
use crate::handshake::hello::{ClientHello, HelloVerifyRequest, ServerHello, cookie_bound_parts};
use crate::handshake::reassembly::Reassembler;
use crate::handshake::{Fragment, Message, MessageType};
use crate::limits::HANDSHAKE_MESSAGE_OCTETS_MAX;
use crate::record;

/// Takes a datagram apart and puts it together again.
pub fn records(datagram: &[u8], connection_id_octets: usize) {
    let mut again = Vec::new();
    let mut rest = datagram;
    while let Some((record, after)) = record::split(rest, connection_id_octets) {
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
        _ => {}
    }
}
