//! Cookies, and ClientHellos written by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::limits::COOKIE_PERIOD;
use dtls::{Alert, CipherSuite, Connection, ConnectionId, Disposition, Error, Incoming, Listener};
use proptest::prelude::*;

use crate::scene::{client_address, server_config};

/// A ClientHello in parts.
#[derive(Clone)]
pub struct Hello {
    pub version: u16,
    pub random: [u8; 32],
    pub cookie: Vec<u8>,
    pub suites: Vec<u16>,
    pub compressions: Vec<u8>,
    pub extensions: Vec<(u16, Vec<u8>)>,
    pub message_sequence: u16,
    pub record_sequence: u8,
}

impl Hello {
    pub fn new() -> Self {
        Self {
            version: 0xfefd,
            random: [7; 32],
            cookie: Vec::new(),
            suites: vec![CipherSuite::PskAes128Ccm8.code()],
            compressions: vec![0],
            extensions: vec![(23, Vec::new())],
            message_sequence: 0,
            record_sequence: 0,
        }
    }

    pub fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend_from_slice(&self.random);
        body.push(0);
        body.push(self.cookie.len() as u8);
        body.extend_from_slice(&self.cookie);
        body.extend_from_slice(&((2 * self.suites.len()) as u16).to_be_bytes());
        for suite in &self.suites {
            body.extend_from_slice(&suite.to_be_bytes());
        }
        body.push(self.compressions.len() as u8);
        body.extend_from_slice(&self.compressions);
        let mut extensions = Vec::new();
        for (number, data) in &self.extensions {
            extensions.extend_from_slice(&number.to_be_bytes());
            extensions.extend_from_slice(&(data.len() as u16).to_be_bytes());
            extensions.extend_from_slice(data);
        }
        body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        body.extend_from_slice(&extensions);
        body
    }

    pub fn datagram(&self) -> Vec<u8> {
        let body = self.body();
        handshake_record(1, self.message_sequence, self.record_sequence, body.len(), 0, &body)
    }

    /// With the cookie that a listener answers.
    pub fn proven(mut self, listener: &Listener, now: Instant, source: SocketAddr) -> Self {
        let Incoming::Reply(reply) = listener.handle_datagram(now, source, &self.datagram()) else {
            panic!("no HelloVerifyRequest")
        };
        // Record header, message header, version, length.
        self.cookie = reply.payload[13 + 12 + 3..].to_vec();
        self.message_sequence = 1;
        self.record_sequence = 1;
        self
    }
}

/// A record of epoch 0 with one fragment of a handshake message.
pub fn handshake_record(
    message_type: u8,
    message_sequence: u16,
    record_sequence: u8,
    message_octets: usize,
    offset: usize,
    data: &[u8],
) -> Vec<u8> {
    let u24 = |value: usize| (value as u32).to_be_bytes()[1..].to_vec();
    let mut content = vec![message_type];
    content.extend(u24(message_octets));
    content.extend_from_slice(&message_sequence.to_be_bytes());
    content.extend(u24(offset));
    content.extend(u24(data.len()));
    content.extend_from_slice(data);
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, record_sequence];
    record.extend_from_slice(&(content.len() as u16).to_be_bytes());
    record.extend_from_slice(&content);
    record
}

pub fn listener(now: Instant) -> Listener {
    Listener::new(Arc::new(server_config(&CipherSuite::DTLS12)), now).unwrap()
}

fn accept(incoming: Incoming, now: Instant) -> Connection {
    let Incoming::Hello(proven) = incoming else { panic!("not proven") };
    proven.accept(now, ConnectionId::new(b"serverid").unwrap()).unwrap()
}

fn refusal(hello: &Hello) -> (u8, Error) {
    let now = Instant::now();
    let listener = listener(now);
    let hello = hello.clone().proven(&listener, now, client_address());
    let Incoming::Refused(transmit, error) = listener.handle_datagram(now, client_address(), &hello.datagram()) else {
        panic!("not refused")
    };
    assert_eq!(transmit.payload[0], 21);
    (*transmit.payload.last().unwrap(), error)
}

#[test]
fn a_cookie_is_taken_from_its_address_in_its_period_and_the_next() {
    let start = Instant::now();
    let listener = listener(start);
    let now = start + Duration::from_secs(1);
    let hello = Hello::new().proven(&listener, now, client_address());
    let proves = |now: Instant, source: SocketAddr, hello: &Hello| {
        matches!(listener.handle_datagram(now, source, &hello.datagram()), Incoming::Hello(_))
    };
    assert!(proves(now, client_address(), &hello));
    assert!(proves(now + COOKIE_PERIOD, client_address(), &hello));
    assert!(!proves(now + 2 * COOKIE_PERIOD, client_address(), &hello));
    assert!(!proves(now + 257 * COOKIE_PERIOD, client_address(), &hello));
    assert!(!proves(now, "192.0.2.1:40001".parse().unwrap(), &hello));
    assert!(!proves(now, "192.0.2.2:40000".parse().unwrap(), &hello));
    let mut other = hello.clone();
    other.random[0] ^= 1;
    assert!(!proves(now, client_address(), &other));
    let mut other = hello.clone();
    other.suites.push(0x00a8);
    assert!(!proves(now, client_address(), &other));
    for at in 0..hello.cookie.len() {
        let mut other = hello.clone();
        other.cookie[at] ^= 1;
        assert!(!proves(now, client_address(), &other));
    }
    let mut other = hello.clone();
    other.cookie.pop();
    assert!(!proves(now, client_address(), &other));
}

#[test]
fn another_listener_does_not_take_the_cookie() {
    let now = Instant::now();
    let hello = Hello::new().proven(&listener(now), now, client_address());
    let other = listener(now);
    assert!(matches!(other.handle_datagram(now, client_address(), &hello.datagram()), Incoming::Reply(_)));
}

#[test]
fn what_cannot_be_negotiated_is_refused_with_its_alert_and_nothing_is_kept() {
    assert_eq!(refusal(&Hello { version: 0xfeff, ..Hello::new() }), (70, Error::Version));
    assert_eq!(refusal(&Hello { suites: vec![0x1301, 0xc02b], ..Hello::new() }), (40, Error::CipherSuite));
    let no_ems = Hello { extensions: Vec::new(), ..Hello::new() };
    assert_eq!(refusal(&no_ems), (40, Error::ExtendedMasterSecret));
    assert_eq!(refusal(&Hello { compressions: vec![1], ..Hello::new() }).0, 47);
    let mut renegotiating = Hello::new();
    renegotiating.extensions.push((0xff01, [&[12_u8][..], &[0; 12]].concat()));
    assert_eq!(refusal(&renegotiating).0, 47);
    let mut long_id = Hello::new();
    long_id.extensions.push((54, [&[33_u8][..], &[0; 33]].concat()));
    assert_eq!(refusal(&long_id).0, 47);
    // An ephemeral suite without a group in common.
    let mut no_group = Hello { suites: vec![CipherSuite::EcdhePskAes128Gcm.code()], ..Hello::new() };
    assert_eq!(refusal(&no_group), (40, Error::CipherSuite));
    no_group.extensions.push((10, vec![0, 2, 0, 24]));
    assert_eq!(refusal(&no_group), (40, Error::CipherSuite));
}

#[test]
fn a_client_of_a_later_version_is_answered_with_1_2() {
    let now = Instant::now();
    let listener = listener(now);
    let hello = Hello { version: 0xfefc, ..Hello::new() }.proven(&listener, now, client_address());
    let mut server = accept(listener.handle_datagram(now, client_address(), &hello.datagram()), now);
    let flight = server.poll_transmit().unwrap().payload;
    assert_eq!(flight[13 + 12..13 + 12 + 2], [0xfe, 0xfd]);
}

#[test]
fn renegotiation_info_is_answered_to_the_extension_and_to_the_scsv_only() {
    let answer = |hello: Hello| {
        let now = Instant::now();
        let listener = listener(now);
        let hello = hello.proven(&listener, now, client_address());
        let mut server = accept(listener.handle_datagram(now, client_address(), &hello.datagram()), now);
        let flight = server.poll_transmit().unwrap().payload;
        flight.windows(5).any(|window| window == [0xff, 0x01, 0x00, 0x01, 0x00])
    };
    assert!(!answer(Hello::new()));
    let mut extension = Hello::new();
    extension.extensions.push((0xff01, vec![0]));
    assert!(answer(extension));
    let mut scsv = Hello::new();
    scsv.suites.push(0x00ff);
    assert!(answer(scsv));
}

#[test]
fn record_and_message_numbers_go_on_where_the_hello_left_off() {
    let now = Instant::now();
    let listener = listener(now);
    let mut hello = Hello { record_sequence: 4, message_sequence: 3, ..Hello::new() };
    let Incoming::Reply(reply) = listener.handle_datagram(now, client_address(), &hello.datagram()) else { panic!() };
    assert_eq!(reply.payload[10], 4);
    assert_eq!(reply.payload[13 + 5], 3);
    hello = hello.proven(&listener, now, client_address());
    hello.record_sequence = 9;
    let mut server = accept(listener.handle_datagram(now, client_address(), &hello.datagram()), now);
    let flight = server.poll_transmit().unwrap().payload;
    assert_eq!(flight[10], 9);
    assert_eq!(flight[13 + 5], 1);
}

#[test]
fn a_driver_refuses_a_name_that_it_does_not_serve() {
    let now = Instant::now();
    let listener = listener(now);
    let mut hello = Hello::new();
    let name = b"Other.example";
    let list = [&[0, 0, name.len() as u8][..], name].concat();
    hello.extensions.push((0, [&[0, list.len() as u8][..], &list].concat()));
    let hello = hello.proven(&listener, now, client_address());
    let Incoming::Hello(proven) = listener.handle_datagram(now, client_address(), &hello.datagram()) else { panic!() };
    assert_eq!(proven.server_name(), Some("other.example"));
    assert_eq!(proven.source(), client_address());
    assert_eq!(proven.refuse(Alert::UNRECOGNIZED_NAME).payload, [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 112]);
}

#[test]
fn a_hello_in_fragments_is_ignored() {
    let now = Instant::now();
    let listener = listener(now);
    let body = Hello::new().proven(&listener, now, client_address()).body();
    let (first, last) = body.split_at(20);
    for (offset, data) in [(0, first), (20, last)] {
        let datagram = handshake_record(1, 1, 1, body.len(), offset, data);
        assert!(matches!(listener.handle_datagram(now, client_address(), &datagram), Incoming::Ignored));
    }
}

#[test]
fn a_client_that_starts_anew_is_told_apart_from_one_that_repeats_itself() {
    let now = Instant::now();
    let listener = listener(now);
    let hello = Hello::new().proven(&listener, now, client_address());
    let mut server = accept(listener.handle_datagram(now, client_address(), &hello.datagram()), now);
    assert!(server.poll_transmit().is_some());
    let later = now + Duration::from_secs(1);
    assert_eq!(server.handle_datagram(later, client_address(), &hello.datagram()), Disposition::Taken);
    assert!(server.poll_transmit().is_some(), "the flight goes out again");
    let anew = Hello { random: [8; 32], ..Hello::new() };
    assert_eq!(server.handle_datagram(later, client_address(), &anew.datagram()), Disposition::NewClientHello);
    let elsewhere = "203.0.113.5:99".parse().unwrap();
    assert_eq!(server.handle_datagram(later, elsewhere, &hello.datagram()), Disposition::NewClientHello);
    assert!(server.poll_transmit().is_none());
}

proptest! {
    /// Nobody is answered with more than they sent, whatever they send.
    #[test]
    fn an_answer_to_the_unproven_is_never_larger_than_the_question(
        random: [u8; 32],
        cookie in prop::collection::vec(any::<u8>(), 0..255),
        suites in prop::collection::vec(any::<u16>(), 1..40),
        cut in 0usize..40,
        change in prop::option::of((0usize..300, any::<u8>())),
    ) {
        let now = Instant::now();
        let listener = listener(now);
        let mut datagram = Hello { random, cookie, suites, ..Hello::new() }.datagram();
        datagram.truncate(datagram.len() - cut.min(datagram.len()));
        if let Some((at, octet)) = change {
            let at = at % datagram.len();
            datagram[at] = octet;
        }
        match listener.handle_datagram(now, client_address(), &datagram) {
            Incoming::Reply(transmit) | Incoming::Refused(transmit, _) => {
                prop_assert!(transmit.payload.len() <= datagram.len());
                prop_assert_eq!(transmit.destination, client_address());
            }
            Incoming::Hello(_) => prop_assert!(false, "a cookie was guessed"),
            Incoming::Ignored => {}
        }
    }

    #[test]
    fn anything_else_is_ignored(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
        let now = Instant::now();
        prop_assert!(matches!(listener(now).handle_datagram(now, client_address(), &datagram), Incoming::Ignored));
    }
}
