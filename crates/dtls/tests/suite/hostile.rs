//! Somebody on the path: every octet changed, everything repeated, limits reached.

use std::time::{Duration, Instant};

use dtls::limits::{
    DATAGRAM_FALLBACK_TIMEOUTS, DATAGRAM_OCTETS_FALLBACK, EARLY_RECORD_OCTETS_MAX, EARLY_RECORDS_MAX, EVENTS_MAX,
    HELLO_VERIFY_REQUESTS_MAX, PSK_IDENTITY_OCTETS_MAX, TRANSMITS_MAX,
};
use dtls::{Alert, CipherSuite, Closed, Connection, ConnectionId, Disposition, Error, Event, Incoming, PresharedKey};

use crate::listener::{Hello, handshake_record, listener};
use crate::scene::{Scene, Side, client_address, client_config, key, server_address, server_config};

fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

/// Established, the server's last flight let go.
fn established(suite: CipherSuite) -> Scene {
    let mut client = client_config(&[suite]);
    client.connection_id = Some(ConnectionId::new(b"abc").unwrap());
    let mut scene = Scene::new(client, server_config(&[suite]));
    scene.establish();
    let now = scene.now;
    scene.client.send(now, b"first").unwrap();
    scene.run(Duration::from_secs(1));
    scene.received(Side::Server);
    scene
}

#[test]
fn no_changed_octet_of_a_record_is_accepted() {
    for suite in CipherSuite::ALL {
        let mut scene = established(suite);
        let now = scene.now;
        scene.client.send(now, b"as it was sent").unwrap();
        let datagram = scene.client.poll_transmit().unwrap().payload;
        for at in 0..datagram.len() {
            for bit in 0..8 {
                let mut changed = datagram.clone();
                changed[at] ^= 1 << bit;
                scene.server().handle_datagram(now, client_address(), &changed);
                assert_eq!(events(scene.server()), [], "{suite:?}: octet {at}, bit {bit}");
            }
            let cut = datagram[..at].to_vec();
            scene.server().handle_datagram(now, client_address(), &cut);
            assert_eq!(events(scene.server()), []);
        }
        scene.server().handle_datagram(now, client_address(), &datagram);
        assert_eq!(events(scene.server()).len(), 1);
    }
}

/// Each octet of each datagram of a handshake changed, once: it fails, or the retransmission makes it good, and then data
/// flow. Never do the two sides disagree on what was negotiated.
#[test]
fn a_handshake_with_a_changed_octet_fails_or_recovers() {
    // The best goes first; the others must never be what a change leads to.
    changes(&[CipherSuite::EcdhePskAes128Gcm, CipherSuite::PskAes128Ccm8]);
    changes(&[CipherSuite::Aes128Gcm, CipherSuite::Aes128Ccm8]);
    changes(&[CipherSuite::Aes128Gcm, CipherSuite::EcdhePskAes128Gcm, CipherSuite::PskAes128Ccm8]);
}

fn changes(suites: &[CipherSuite]) {
    let mut changed_datagram = 0;
    let mut octets = 1;
    while octets > 0 {
        let mut at = 0;
        octets = 0;
        while let Some(length) = handshake_with_change(suites, changed_datagram, at) {
            octets = length;
            // Every octet of the small ones, and a part of the large ones.
            at += 1 + length / 64;
            if at >= length {
                break;
            }
        }
        changed_datagram += 1;
    }
    assert!(changed_datagram >= 6);
}

/// Changes octet `at` of the `which`-th datagram; its length, or `None` if there were fewer.
fn handshake_with_change(suites: &[CipherSuite], which: usize, at: usize) -> Option<usize> {
    let mut client = client_config(suites);
    client.session.handshake_timeout = Duration::from_secs(20);
    let mut server = server_config(&CipherSuite::ALL);
    server.session.handshake_timeout = Duration::from_secs(20);
    let mut scene = Scene::new(client, server);
    scene.change = Some((which, at));
    scene.run(Duration::from_secs(30));
    scene.change = None;
    assert!(scene.client.is_established() || scene.client.is_closed());
    if scene.is_established() {
        let agreed = |events: &[Event]| {
            events.iter().find_map(|event| match event {
                Event::Established(established) => Some((
                    established.cipher_suite,
                    established.group,
                    established.connection_id,
                    established.peer_connection_id,
                )),
                _ => None,
            })
        };
        let (client, server) = (agreed(&scene.client_events).unwrap(), agreed(&scene.server_events).unwrap());
        assert_eq!((client.0, client.1, client.2, client.3), (server.0, server.1, server.3, server.2));
        // The best that both have, whatever was changed.
        assert_eq!(Some(&client.0), suites.first());
        let now = scene.now;
        scene.client.send(now, b"data").unwrap();
        scene.run(Duration::from_secs(1));
        assert_eq!(scene.received(Side::Server), [b"data"]);
    }
    scene.changed
}

#[test]
fn alerts_in_clear_do_not_end_an_established_session() {
    let mut scene = established(CipherSuite::PskAes128Gcm);
    let now = scene.now;
    for description in [0, 40, 51, 115] {
        for level in [1, 2] {
            let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, level, description];
            scene.server().handle_datagram(now, client_address(), &alert);
            scene.client.handle_datagram(now, server_address(), &alert);
        }
    }
    assert!(scene.is_established());
}

#[test]
fn what_comes_from_elsewhere_does_not_touch_a_handshake() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    let now = scene.now;
    let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    let elsewhere = "203.0.113.7:5684".parse().unwrap();
    assert_eq!(scene.client.handle_datagram(now, elsewhere, &alert), Disposition::Ignored);
    scene.establish();
}

#[test]
fn a_message_out_of_order_ends_the_handshake_with_unexpected_message() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    let now = scene.now;
    // ServerHelloDone as the first message.
    scene.client.handle_datagram(now, server_address(), &handshake_record(14, 0, 0, 0, 0, &[]));
    scene.run(Duration::from_secs(1));
    assert!(scene.client_events.contains(&Event::Closed(Closed::Failed(Error::UnexpectedMessage))));
}

#[test]
fn a_server_that_always_wants_another_cookie_is_left() {
    let mut scene = Scene::simple(&CipherSuite::DTLS12);
    let now = scene.now;
    for sequence in 0..=u16::from(HELLO_VERIFY_REQUESTS_MAX) {
        let request = handshake_record(3, sequence, 0, 4, 0, &[0xfe, 0xff, 1, sequence as u8]);
        scene.client.handle_datagram(now, server_address(), &request);
    }
    assert_eq!(events(&mut scene.client), [Event::Closed(Closed::Failed(Error::HelloVerifyRequests))]);
}

#[test]
fn an_identity_that_is_too_long_is_an_unknown_one() {
    let now = Instant::now();
    let listener = listener(now);
    let hello = Hello::new().proven(&listener, now, client_address());
    let Incoming::Hello(proven) = listener.handle_datagram(now, client_address(), &hello.datagram()) else { panic!() };
    let mut server = proven.accept(now, ConnectionId::EMPTY).unwrap();
    while server.poll_transmit().is_some() {}
    let identity = vec![b'x'; PSK_IDENTITY_OCTETS_MAX + 1];
    let body = [&(identity.len() as u16).to_be_bytes()[..], &identity].concat();
    server.handle_datagram(now, client_address(), &handshake_record(16, 2, 2, body.len(), 0, &body));
    assert!(matches!(events(&mut server).as_slice(), [Event::Closed(Closed::Failed(Error::KeyRefused(_)))]));
    assert_eq!(server.poll_transmit().unwrap().payload.last(), Some(&Alert::UNKNOWN_PSK_IDENTITY.0));
}

/// A server that has the client's identity and waits for its key.
fn waiting_for_key(now: Instant) -> Connection {
    let listener = listener(now);
    let hello = Hello::new().proven(&listener, now, client_address());
    let Incoming::Hello(proven) = listener.handle_datagram(now, client_address(), &hello.datagram()) else { panic!() };
    let mut server = proven.accept(now, ConnectionId::EMPTY).unwrap();
    server.handle_datagram(now, client_address(), &handshake_record(16, 2, 2, 4, 0, &[0, 2, b'i', b'd']));
    assert!(matches!(events(&mut server).as_slice(), [Event::KeyNeeded(_)]));
    server
}

#[test]
fn records_before_their_key_are_kept_up_to_the_limit() {
    let now = Instant::now();
    let mut server = waiting_for_key(now);
    let record = |octets: usize| {
        let mut record = vec![22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0];
        record.extend_from_slice(&(octets as u16).to_be_bytes());
        record.extend(vec![0; octets]);
        record
    };
    let long = record(EARLY_RECORD_OCTETS_MAX);
    assert_eq!(server.handle_datagram(now, client_address(), &long), Disposition::Ignored);
    for _ in 0..EARLY_RECORDS_MAX {
        assert_eq!(server.handle_datagram(now, client_address(), &record(40)), Disposition::Taken);
    }
    assert_eq!(server.handle_datagram(now, client_address(), &record(40)), Disposition::Ignored);
    // They were forgeries: the handshake waits on for the real one.
    server.provide_key(now, &key()).unwrap();
    assert!(!server.is_closed() && !server.is_established());
}

#[test]
fn a_flight_without_answer_goes_in_smaller_datagrams() {
    let mut config = client_config(&CipherSuite::DTLS12);
    config.identity = vec![b'i'; 500];
    let mut scene = Scene::new(config, server_config(&CipherSuite::DTLS12));
    // The server waits for the key, so the client for its answer.
    scene.server_answer = crate::scene::Answer::Silence;
    while !scene.server_events.iter().any(|event| matches!(event, Event::KeyNeeded(_))) {
        scene.run(Duration::from_millis(1));
    }
    let mut client = scene.client;
    let mut sizes = Vec::new();
    while sizes.len() <= DATAGRAM_FALLBACK_TIMEOUTS as usize {
        client.handle_timeout(client.poll_timeout().unwrap());
        sizes.push(std::iter::from_fn(|| client.poll_transmit()).map(|transmit| transmit.payload.len()).max());
    }
    assert!(sizes[0] > Some(DATAGRAM_OCTETS_FALLBACK));
    assert!(*sizes.last().unwrap() <= Some(DATAGRAM_OCTETS_FALLBACK));
}

#[test]
fn a_malformed_key_exchange_is_a_decode_error() {
    let now = Instant::now();
    let listener = listener(now);
    let hello = Hello::new().proven(&listener, now, client_address());
    let Incoming::Hello(proven) = listener.handle_datagram(now, client_address(), &hello.datagram()) else { panic!() };
    let mut server = proven.accept(now, ConnectionId::EMPTY).unwrap();
    server.handle_datagram(now, client_address(), &handshake_record(16, 2, 2, 1, 0, &[0]));
    assert_eq!(events(&mut server), [Event::Closed(Closed::Failed(Error::Malformed("ClientKeyExchange")))]);
    assert!(server.is_closed());
}

#[test]
fn a_driver_that_does_not_send_is_told_and_holds_no_more_than_the_limit() {
    let mut scene = established(CipherSuite::PskAes128Ccm8);
    let now = scene.now;
    for _ in 0..TRANSMITS_MAX {
        scene.client.send(now, b"x").unwrap();
    }
    assert_eq!(scene.client.send(now, b"x"), Err(Error::TransmitQueueFull));
    let octets_max = scene.client.payload_octets_max();
    assert_eq!(scene.client.send(now, &vec![0; octets_max + 1]), Err(Error::PayloadTooLarge { octets_max }));
}

#[test]
fn a_handshake_whose_driver_does_not_send_holds_no_more_than_the_limit() {
    let mut config = client_config(&CipherSuite::DTLS12);
    config.session.retransmit_first = Duration::from_millis(1);
    let now = Instant::now();
    let mut client = Connection::client(std::sync::Arc::new(config), now, server_address()).unwrap();
    for step in 0..600_000 {
        client.handle_timeout(now + Duration::from_millis(step));
    }
    assert!(std::iter::from_fn(|| client.poll_transmit()).count() <= TRANSMITS_MAX);
}

#[test]
fn a_driver_that_does_not_poll_events_loses_data_beyond_the_limit() {
    let mut scene = established(CipherSuite::PskAes128Ccm8);
    let now = scene.now;
    for number in 0..EVENTS_MAX as u32 + 10 {
        scene.client.send(now, &number.to_be_bytes()).unwrap();
        let datagram = scene.client.poll_transmit().unwrap();
        scene.server().handle_datagram(now, client_address(), &datagram.payload);
    }
    let events = events(scene.server());
    assert_eq!(events.len(), EVENTS_MAX);
    assert!(matches!(&events[0], Event::ApplicationData { payload, .. } if payload == &0_u32.to_be_bytes()));
}

#[test]
fn keys_of_an_unlikely_length_are_refused_and_none_is_printed() {
    for octets in [0, 15, 65] {
        assert_eq!(PresharedKey::new(&vec![1; octets]).unwrap_err(), Error::KeyLength(octets));
    }
    assert_eq!(format!("{:?}", key()), "PresharedKey(..)");
}
