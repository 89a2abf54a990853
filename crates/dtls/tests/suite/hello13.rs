//! ClientHellos of DTLS 1.3 written by hand: cookies, and what is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::limits::{COOKIE_PERIOD, PSK_IDENTITY_OCTETS_MAX};
use dtls::{Alert, CipherSuite, Closed, Connection, ConnectionId, Disposition, Error, Event, Incoming, Listener};
use dtls::{KeyRefusal, ProtocolVersion};
use proptest::prelude::*;

use crate::listener::Hello;
use crate::scene::{client_address, server_config};

const KEY_SHARE: u16 = 51;
const PSK_MODES: u16 = 45;
const COOKIE: u16 = 44;
const VERSIONS: u16 = 43;
const EARLY_DATA: u16 = 42;
const PRE_SHARED_KEY: u16 = 41;
const GROUPS: u16 = 10;

fn listener(now: Instant) -> Listener {
    Listener::new(Arc::new(server_config(&CipherSuite::ALL)), now).unwrap()
}

fn pre_shared_key(identity: &[u8]) -> Vec<u8> {
    let mut identities = (identity.len() as u16).to_be_bytes().to_vec();
    identities.extend_from_slice(identity);
    identities.extend_from_slice(&[0; 4]);
    let mut data = (identities.len() as u16).to_be_bytes().to_vec();
    data.extend_from_slice(&identities);
    data.extend_from_slice(&[0, 33, 32]);
    data.extend_from_slice(&[0; 32]);
    data
}

/// With a key share of X25519 and a binder that is wrong.
fn hello() -> Hello {
    let share = [&[0, 36, 0, 29, 0, 32][..], &[9; 32]].concat();
    Hello {
        suites: vec![0x1301, 0x1303],
        extensions: vec![
            (VERSIONS, vec![2, 0xfe, 0xfc]),
            (GROUPS, vec![0, 4, 0, 29, 0, 23]),
            (KEY_SHARE, share),
            (PSK_MODES, vec![1, 1]),
            (PRE_SHARED_KEY, pre_shared_key(b"meter-7")),
        ],
        ..Hello::new()
    }
}

fn set(hello: &mut Hello, number: u16, data: &[u8]) {
    match hello.extensions.iter_mut().find(|(of, _)| *of == number) {
        Some(extension) => extension.1 = data.to_vec(),
        // pre_shared_key stays the last.
        None => hello.extensions.insert(0, (number, data.to_vec())),
    }
}

fn without(mut hello: Hello, number: u16) -> Hello {
    hello.extensions.retain(|(of, _)| *of != number);
    hello
}

/// The extension `number` of a hello's datagram that ends with its extensions.
fn extension(datagram: &[u8], number: u16) -> Option<Vec<u8>> {
    // Record header, message header, version, random, no session ID, suite, compression, length of the extensions.
    let mut rest = &datagram[13 + 12 + 2 + 32 + 1 + 2 + 1 + 2..];
    while let [a, b, c, d, after @ ..] = rest {
        let (data, next) = after.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        if u16::from_be_bytes([*a, *b]) == number {
            return Some(data.to_vec());
        }
        rest = next;
    }
    None
}

fn with_cookie(mut hello: Hello, listener: &Listener, now: Instant, source: SocketAddr) -> Hello {
    let Incoming::Reply(reply) = listener.handle_datagram(now, source, &hello.datagram()) else { panic!("no request") };
    assert!(reply.payload.len() <= hello.datagram().len());
    let cookie = extension(&reply.payload, COOKIE).unwrap();
    set(&mut hello, COOKIE, &cookie);
    hello.message_sequence = 1;
    hello.record_sequence = 1;
    hello
}

#[test]
fn a_cookie_is_taken_from_its_address_in_its_period_and_the_next() {
    let start = Instant::now();
    let listener = listener(start);
    let now = start + Duration::from_secs(1);
    let hello = with_cookie(hello(), &listener, now, client_address());
    let outcome = |now: Instant, source: SocketAddr, hello: &Hello| match listener.handle_datagram(
        now,
        source,
        &hello.datagram(),
    ) {
        Incoming::Hello(proven) => {
            assert_eq!(proven.version(), ProtocolVersion::Dtls13);
            Ok(())
        }
        Incoming::Refused(transmit, error) => {
            assert_eq!(transmit.payload.last(), Some(&Alert::ILLEGAL_PARAMETER.0));
            Err(error)
        }
        _ => panic!("neither taken nor refused"),
    };
    let refused = Err(Error::IllegalParameter("cookie"));
    assert_eq!(outcome(now, client_address(), &hello), Ok(()));
    assert_eq!(outcome(now + COOKIE_PERIOD, client_address(), &hello), Ok(()));
    assert_eq!(outcome(now + 2 * COOKIE_PERIOD, client_address(), &hello), refused);
    assert_eq!(outcome(now, "192.0.2.1:40001".parse().unwrap(), &hello), refused);
    assert_eq!(outcome(now, "192.0.2.2:40000".parse().unwrap(), &hello), refused);
    let mut other = hello.clone();
    other.random[0] ^= 1;
    assert_eq!(outcome(now, client_address(), &other), refused);
    let mut other = hello.clone();
    other.suites.push(0x1304);
    assert_eq!(outcome(now, client_address(), &other), refused);
    let cookie = hello.extensions.iter().find(|(number, _)| *number == COOKIE).unwrap().1.clone();
    for at in 2..cookie.len() {
        let mut changed = cookie.clone();
        changed[at] ^= 1;
        let mut other = hello.clone();
        set(&mut other, COOKIE, &changed);
        assert_eq!(outcome(now, client_address(), &other), refused, "octet {at}");
    }
    // Of DTLS 1.2 it is none, nor of another listener.
    let other = self::listener(now);
    let outcome = other.handle_datagram(now, client_address(), &hello.datagram());
    assert!(matches!(outcome, Incoming::Refused(_, Error::IllegalParameter("cookie"))));
}

/// What a listener says to a hello, as it is or with a cookie.
fn refusal(hello: Hello, proven: bool) -> (u8, Error) {
    let now = Instant::now();
    let listener = listener(now);
    let hello = if proven { with_cookie(hello, &listener, now, client_address()) } else { hello };
    let Incoming::Refused(transmit, error) = listener.handle_datagram(now, client_address(), &hello.datagram()) else {
        panic!("not refused")
    };
    assert_eq!((transmit.payload[0], transmit.payload.len()), (21, 15));
    (*transmit.payload.last().unwrap(), error)
}

#[test]
fn what_cannot_be_negotiated_is_refused_with_its_alert_and_nothing_is_kept() {
    let changed = |number: u16, data: &[u8]| {
        let mut hello = hello();
        set(&mut hello, number, data);
        hello
    };
    // psk_ke alone; no pre-shared key at all.
    assert_eq!(refusal(changed(PSK_MODES, &[1, 0]), false), (40, Error::NoPresharedKey));
    assert_eq!(refusal(without(hello(), PRE_SHARED_KEY), false), (40, Error::NoPresharedKey));
    assert_eq!(refusal(without(hello(), PSK_MODES), false), (109, Error::MissingExtension("psk_key_exchange_modes")));
    assert_eq!(refusal(without(hello(), KEY_SHARE), false), (109, Error::MissingExtension("key_share")));
    assert_eq!(refusal(changed(GROUPS, &[0, 2, 0, 24]), false), (40, Error::CipherSuite));
    assert_eq!(refusal(Hello { suites: vec![0x1302], ..hello() }, false), (40, Error::CipherSuite));
    assert_eq!(refusal(Hello { version: 0xfefc, ..hello() }, false), (47, Error::IllegalParameter("legacy_version")));
    assert_eq!(refusal(Hello { cookie: vec![1], ..hello() }, false), (47, Error::IllegalParameter("legacy_cookie")));
    assert_eq!(refusal(Hello { compressions: vec![1], ..hello() }, false).0, 47);
    let mut not_last = hello();
    not_last.extensions.rotate_right(1);
    assert_eq!(refusal(not_last, false), (47, Error::IllegalParameter("pre_shared_key")));
    let mut binders = hello();
    let one = pre_shared_key(b"meter-7");
    let two_binders = [&one[..15], &[0, 66, 32], &[0; 32], &[32], &[0; 32]].concat();
    set(&mut binders, PRE_SHARED_KEY, &two_binders);
    assert_eq!(refusal(binders, false), (47, Error::IllegalParameter("pre_shared_key")));
    let mut long_id = hello();
    set(&mut long_id, 54, &[&[33_u8][..], &[0; 33]].concat());
    assert_eq!(refusal(long_id, true), (47, Error::IllegalParameter("connection_id")));
}

#[test]
fn early_data_are_passed_over_at_first_and_refused_after_a_request() {
    let now = Instant::now();
    let listener = listener(now);
    let mut early = hello();
    set(&mut early, EARLY_DATA, &[]);
    // The HelloRetryRequest refuses them (RFC 8446 4.2.10).
    let again = with_cookie(early.clone(), &listener, now, client_address());
    let outcome = listener.handle_datagram(now, client_address(), &again.datagram());
    assert!(matches!(outcome, Incoming::Refused(_, Error::IllegalParameter("second ClientHello"))));
    let again = without(again, EARLY_DATA);
    let Incoming::Hello(proven) = listener.handle_datagram(now, client_address(), &again.datagram()) else { panic!() };
    // And a record of epoch 1 is nobody's.
    let mut server = proven.accept(now, ConnectionId::EMPTY).unwrap();
    let record = [&[0x2d, 0, 0, 0, 40][..], &[0; 40]].concat();
    server.provide_key(now, &crate::scene::key()).unwrap();
    assert_eq!(server.handle_datagram(now, client_address(), &record), Disposition::Ignored);
}

#[test]
fn after_a_request_for_a_group_its_share_comes_alone() {
    let now = Instant::now();
    let listener = listener(now);
    let mut first = hello();
    // A share of a group that nobody speaks here.
    let share = |code: u8| [&[0, 36, 0, code, 0, 32][..], &[9; 32]].concat();
    set(&mut first, KEY_SHARE, &share(30));
    let Incoming::Reply(reply) = listener.handle_datagram(now, client_address(), &first.datagram()) else { panic!() };
    assert_eq!(extension(&reply.payload, KEY_SHARE), Some(vec![0, 29]));
    assert_eq!(extension(&reply.payload, VERSIONS), Some(vec![0xfe, 0xfc]));
    let mut again = with_cookie(first, &listener, now, client_address());
    let outcome = |hello: &Hello| listener.handle_datagram(now, client_address(), &hello.datagram());
    assert!(matches!(outcome(&again), Incoming::Refused(_, Error::IllegalParameter("key_share"))));
    set(&mut again, KEY_SHARE, &[&[0, 72, 0, 29, 0, 32][..], &[9; 32], &[0, 30, 0, 32], &[9; 32]].concat());
    assert!(matches!(outcome(&again), Incoming::Refused(_, Error::IllegalParameter("key_share"))));
    set(&mut again, KEY_SHARE, &share(29));
    assert!(matches!(outcome(&again), Incoming::Hello(_)));
}

fn accept(listener: &Listener, now: Instant, hello: Hello) -> Connection {
    let hello = with_cookie(hello, listener, now, client_address());
    let Incoming::Hello(proven) = listener.handle_datagram(now, client_address(), &hello.datagram()) else { panic!() };
    proven.accept(now, ConnectionId::EMPTY).unwrap()
}

#[test]
fn a_wrong_binder_is_a_decrypt_error_and_says_nothing_else() {
    let now = Instant::now();
    let mut server = accept(&listener(now), now, hello());
    let Some(Event::KeyNeeded(request)) = server.poll_event() else { panic!() };
    assert_eq!(request.identity, b"meter-7");
    assert!(server.poll_transmit().is_none());
    server.provide_key(now, &crate::scene::key()).unwrap();
    assert_eq!(server.poll_event(), Some(Event::Closed(Closed::Failed(Error::Binder))));
    let alert = server.poll_transmit().unwrap().payload;
    assert_eq!((alert[0], alert.last()), (21, Some(&Alert::DECRYPT_ERROR.0)));
    assert!(server.poll_transmit().is_none());
}

#[test]
fn an_identity_that_is_too_long_is_an_unknown_one() {
    let now = Instant::now();
    let mut long = hello();
    set(&mut long, PRE_SHARED_KEY, &pre_shared_key(&[b'x'; PSK_IDENTITY_OCTETS_MAX + 1]));
    let mut server = accept(&listener(now), now, long);
    let closed = Event::Closed(Closed::Failed(Error::KeyRefused(KeyRefusal::Unknown)));
    assert_eq!(server.poll_event(), Some(closed));
    assert_eq!(server.poll_transmit().unwrap().payload.last(), Some(&Alert::UNKNOWN_PSK_IDENTITY.0));
}

#[test]
fn a_client_that_starts_anew_is_told_apart_from_one_that_repeats_itself() {
    let now = Instant::now();
    let listener = listener(now);
    let hello = with_cookie(hello(), &listener, now, client_address());
    let Incoming::Hello(proven) = listener.handle_datagram(now, client_address(), &hello.datagram()) else { panic!() };
    let mut server = proven.accept(now, ConnectionId::EMPTY).unwrap();
    assert_eq!(server.handle_datagram(now, client_address(), &hello.datagram()), Disposition::Taken);
    let mut anew = hello.clone();
    anew.random = [8; 32];
    assert_eq!(server.handle_datagram(now, client_address(), &anew.datagram()), Disposition::NewClientHello);
    let elsewhere = "203.0.113.5:99".parse().unwrap();
    assert_eq!(server.handle_datagram(now, elsewhere, &hello.datagram()), Disposition::NewClientHello);
}

proptest! {
    /// Nobody is answered with more than they sent, whatever they send; and no cookie is guessed.
    #[test]
    fn an_answer_to_the_unproven_is_never_larger_than_the_question(
        random: [u8; 32],
        identity in prop::collection::vec(any::<u8>(), 1..200),
        cookie in prop::option::of(prop::collection::vec(any::<u8>(), 1..80)),
        drop in prop::option::of(0_usize..5),
        cut in 0_usize..40,
        change in prop::option::of((0_usize..400, any::<u8>())),
    ) {
        let now = Instant::now();
        let listener = listener(now);
        let mut hello = Hello { random, ..hello() };
        set(&mut hello, PRE_SHARED_KEY, &pre_shared_key(&identity));
        if let Some(cookie) = cookie {
            let data = [&(cookie.len() as u16).to_be_bytes()[..], &cookie].concat();
            set(&mut hello, COOKIE, &data);
        }
        if let Some(which) = drop {
            hello.extensions.remove(which);
        }
        let mut datagram = hello.datagram();
        datagram.truncate(datagram.len() - cut);
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
}
