//! CoAP over datagrams (RFC 7252) between two machines: loss, duplication, reordering, slow applications, silence.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod net;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::{
    Code, Connection, ConnectionError, ConnectionEvent, DatagramConfig, DatagramConnection, DatagramLimits, ExchangeId,
    Failure, Request, Response, StreamConfig, StreamConnection, Transmission,
};
use net::{Conditions, Net, PERFECT};
use proptest::prelude::*;

fn limited(change: impl FnOnce(&mut DatagramLimits)) -> DatagramConfig {
    let mut config = DatagramConfig::default();
    change(&mut config.limits);
    config
}

fn with_transmission(change: impl FnOnce(&mut Transmission)) -> DatagramConfig {
    let mut config = DatagramConfig::default();
    change(&mut config.transmission);
    config
}

fn request_of(event: ConnectionEvent) -> Request {
    match event {
        ConnectionEvent::Request { request } => request,
        other => panic!("{other:?}"),
    }
}

fn response_of(event: ConnectionEvent) -> (ExchangeId, Response) {
    match event {
        ConnectionEvent::Response { exchange, response } => (exchange, response),
        other => panic!("{other:?}"),
    }
}

/// Types of the datagrams that one side has sent: C, N, A or R.
fn types(net: &Net, side: usize) -> String {
    net.sent
        .iter()
        .filter(|(from, _)| *from == side)
        .map(|(_, datagram)| ['C', 'N', 'A', 'R'][usize::from(datagram[0] >> 4 & 3)])
        .collect()
}

#[test]
fn a_fast_answer_goes_along_with_the_acknowledgement() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 1);
    let now = net.now;
    let builder = Request::post("msgin5g").query(&["a=1"]).content_format(50).payload(b"{}".as_slice());
    let exchange = net.sides[0].request(builder, now).unwrap();
    let request = request_of(net.event(1));
    assert_eq!(
        (request.path.as_slice(), request.query.as_slice()),
        (&["msgin5g".to_owned()][..], &["a=1".to_owned()][..])
    );
    assert_eq!((request.content_format, request.payload.as_slice()), (Some(50), &b"{}"[..]));
    let now = net.now;
    let response = Response::new(Code::CHANGED).with_content_format(50).with_payload(b"[]".as_slice());
    net.sides[1].respond(request.exchange, &response, now).unwrap();
    assert_eq!(response_of(net.event(0)), (exchange, response));
    assert_eq!((types(&net, 0), types(&net, 1)), ("C".into(), "A".into()));
    assert!(net.sides.iter().all(coap::DatagramConnection::is_settled));
    assert!(!net.sides[1].is_idle(), "the Message ID is remembered");
    net.settle();
    assert_eq!(net.elapsed().as_secs(), 247, "EXCHANGE_LIFETIME");
}

/// RFC 7252 figures 16 and 17, as they go over the wire.
#[test]
fn the_examples_of_rfc_7252_are_read_and_answered_octet_by_octet() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 18);
    let (now, server) = (net.now, &mut net.sides[1]);
    for (asked, answered) in [
        (&b"\x40\x01\x7d\x34\xbbtemperature"[..], &b"\x60\x45\x7d\x34\xff22.3 C"[..]),
        (b"\x41\x01\x7d\x35\x20\xbbtemperature", b"\x61\x45\x7d\x35\x20\xff22.3 C"),
    ] {
        server.receive(asked, now).unwrap();
        let request = request_of(server.poll_event().unwrap());
        assert_eq!((request.method, request.path.as_slice()), (Code::GET, &["temperature".to_owned()][..]));
        server.respond(request.exchange, Response::new(Code::CONTENT).with_payload(*b"22.3 C"), now).unwrap();
        assert_eq!(server.poll_transmit().unwrap(), answered);
    }
    // And as we ask: all but Message ID and token.
    let client = &mut net.sides[0];
    client.request(Request::get("temperature"), now).unwrap();
    let sent = client.poll_transmit().unwrap();
    assert_eq!((&sent[..2], &sent[8..]), (&b"\x44\x01"[..], &b"\xbbtemperature"[..]));
}

#[test]
fn more_options_than_allowed_are_refused_or_fail() {
    let mut net = Net::new(limited(|limits| limits.options_max = 2), PERFECT, 19);
    let now = net.now;
    net.sides[1].receive(&[0x40, 1, 0, 1, 0xb0, 0x00, 0x00], now).unwrap();
    assert_eq!(net.sides[1].poll_transmit().unwrap()[..2], [0x60, 0x80]);
    let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
    let sent = net.sides[0].poll_transmit().unwrap();
    net.sides[0].receive(&[&[0x64, 0x45], &sent[2..8], &[0x80, 0x00, 0x00]].concat(), now).unwrap();
    assert_eq!(net.event(0), ConnectionEvent::Failed { exchange, failure: Failure::Unusable });
}

/// Whoever drives a connection need not know what carries it.
#[test]
fn streams_and_datagrams_are_driven_alike() {
    let datagram = || DatagramConnection::new(Arc::new(DatagramConfig::default()), 7);
    let stream = || StreamConnection::new(StreamConfig::default());
    let websocket = || StreamConnection::over_websocket(StreamConfig::default());
    let pairs: [[Box<dyn Connection>; 2]; 3] = [
        [Box::new(datagram()), Box::new(datagram())],
        [Box::new(stream()), Box::new(stream())],
        [Box::new(websocket()), Box::new(websocket())],
    ];
    for mut sides in pairs {
        let now = Instant::now();
        let mut asked = Vec::new();
        for side in &mut sides {
            asked.push(side.request(&Request::post("x"), now).unwrap());
            side.ping(now).unwrap();
        }
        let (mut answers, mut pongs) = (0, 0);
        for _ in 0..8 {
            for turn in [0, 1] {
                while let Some(octets) = sides[turn].poll_transmit() {
                    sides[1 - turn].receive(&octets, now).unwrap();
                }
                while let Some(event) = sides[1 - turn].poll_event() {
                    match event {
                        ConnectionEvent::Request { request } => {
                            sides[1 - turn].respond(request.exchange, &Response::new(Code::CHANGED), now).unwrap();
                        }
                        ConnectionEvent::Response { exchange, .. } => {
                            assert_eq!(exchange, asked[1 - turn]);
                            answers += 1;
                        }
                        ConnectionEvent::Pong { .. } => pongs += 1,
                        other => assert!(matches!(other, ConnectionEvent::PeerReady { .. }), "{other:?}"),
                    }
                }
            }
        }
        assert_eq!((answers, pongs), (2, 2));
        assert!(sides.iter().all(|side| side.is_settled() && side.requests_outstanding() == 0));
        sides[0].abort("over");
        assert!(sides[0].is_closed());
    }
}

#[test]
fn a_slow_answer_follows_an_empty_acknowledgement_and_is_acknowledged_itself() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 2);
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
    let request = request_of(net.event(1));
    net.run(Duration::from_secs(20));
    assert_eq!((types(&net, 0), types(&net, 1)), ("C".into(), "A".into()), "acknowledged before it was sent again");
    let now = net.now;
    net.sides[1].respond(request.exchange, Response::new(Code::CONTENT), now).unwrap();
    assert_eq!(response_of(net.event(0)).0, exchange);
    net.run(Duration::from_secs(60));
    assert_eq!((types(&net, 0), types(&net, 1)), ("CA".into(), "AC".into()));
}

#[test]
fn a_silent_peer_is_asked_five_times_and_given_up_after_max_transmit_wait_at_the_latest() {
    let silence = Conditions { loss_percent: 100, ..PERFECT };
    for seed in 0..20 {
        let mut net = Net::new(DatagramConfig::default(), silence, seed);
        let now = net.now;
        let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
        // It waits for its turn, which does not come in time.
        let second = net.sides[0].request(Request::get("y"), now).unwrap();
        let failed = |exchange| ConnectionEvent::Failed { exchange, failure: Failure::NotAcknowledged };
        assert_eq!(net.event(0), failed(exchange));
        let waited = net.elapsed();
        assert!((62.0..=93.0).contains(&waited.as_secs_f64()), "{waited:?}");
        assert_eq!(types(&net, 0).len(), 6, "the first was sent five times, and the second has its turn");
        assert_eq!(net.event(0), failed(second));
        assert_eq!(net.sides[0].counters().retransmissions % 4, 0);
        net.settle();
        assert!(net.sides[0].is_idle());
    }
}

#[test]
fn requests_that_never_have_their_turn_fail_in_max_transmit_wait_too() {
    let mut net = Net::new(DatagramConfig::default(), Conditions { loss_percent: 100, ..PERFECT }, 3);
    let now = net.now;
    for _ in 0..10 {
        net.sides[0].request(Request::get("x"), now).unwrap();
    }
    net.run(Duration::from_secs(2 * 93));
    assert_eq!(net.events[0].len(), 10);
    assert!(net.sides[0].is_settled());
}

#[test]
fn a_request_that_is_acknowledged_and_never_answered_fails() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 4);
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
    let request = request_of(net.event(1));
    assert_eq!(net.event(0), ConnectionEvent::Failed { exchange, failure: Failure::NoAnswer });
    assert_eq!(net.elapsed().as_secs(), 93);
    // An answer that comes later has nobody to go to.
    let now = net.now;
    net.sides[1].respond(request.exchange, Response::new(Code::CONTENT), now).unwrap();
    net.run(Duration::from_secs(10));
    assert_eq!(types(&net, 0), "CR");
    assert_eq!(net.sides[1].counters().undelivered, 1);
    assert!(net.events[0].is_empty() && net.sides[1].is_settled());
}

#[test]
fn a_request_without_acknowledgement_is_sent_once_and_answered_likewise() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 5);
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x").non_confirmable(), now).unwrap();
    let request = request_of(net.event(1));
    net.run(Duration::from_secs(5));
    let now = net.now;
    net.sides[1].respond(request.exchange, Response::new(Code::CONTENT), now).unwrap();
    assert_eq!(response_of(net.event(0)).0, exchange);
    assert_eq!((types(&net, 0), types(&net, 1)), ("N".into(), "N".into()));
    net.conditions.loss_percent = 100;
    let now = net.now;
    let lost = net.sides[0].request(Request::get("x").non_confirmable(), now).unwrap();
    assert_eq!(net.event(0), ConnectionEvent::Failed { exchange: lost, failure: Failure::NoAnswer });
    assert_eq!(types(&net, 0), "NN");
}

#[test]
fn what_asks_for_no_acknowledgement_goes_at_probing_rate_to_who_is_silent() {
    let config = with_transmission(|transmission| transmission.probing_octets_per_second = 2);
    let mut net = Net::new(config, Conditions { loss_percent: 100, ..PERFECT }, 6);
    let now = net.now;
    // No two are alike: such would have a tag.
    for path in ["x", "y", "z"] {
        net.sides[0].request(Request::get(path).non_confirmable(), now).unwrap();
    }
    // Ten octets each: header, token and Uri-Path.
    net.run(Duration::from_millis(4_900));
    assert_eq!(types(&net, 0), "N");
    net.run(Duration::from_millis(200));
    assert_eq!(types(&net, 0), "NN");
    // What can wait for an acknowledgement need not wait for that.
    net.sides[0].request(Request::get("v").non_confirmable(), net.now).unwrap();
    net.sides[0].request(Request::get("w"), net.now).unwrap();
    net.run(Duration::from_secs(4));
    assert_eq!(types(&net, 0), "NNC");
    net.run(Duration::from_secs(100));
    assert_eq!(types(&net, 0).matches('N').count(), 4);
}

#[test]
fn nstart_requests_are_under_way_at_once() {
    for nstart in [1, 3] {
        let config = with_transmission(|transmission| transmission.nstart = nstart);
        let mut net = Net::new(config, PERFECT, 7);
        let now = net.now;
        for _ in 0..5 {
            net.sides[0].request(Request::get("x"), now).unwrap();
        }
        net.poll();
        assert_eq!(types(&net, 0).len(), nstart);
        // An empty acknowledgement is enough for the next.
        net.run(Duration::from_secs(5));
        assert_eq!(types(&net, 0), "CCCCC");
        assert_eq!(net.sides[0].requests_outstanding(), 5);
        assert_eq!(net.events[1].len(), 5);
    }
}

#[test]
fn a_ping_is_answered_by_a_reset_and_is_a_sign_of_life() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 8);
    let now = net.now;
    net.sides[0].ping(now).unwrap();
    assert_eq!(net.event(0), ConnectionEvent::Pong { custody: false });
    assert_eq!((types(&net, 0), types(&net, 1)), ("C".into(), "R".into()));
    net.conditions.loss_percent = 100;
    let now = net.now;
    for _ in 0..4 {
        net.sides[0].ping(now).unwrap();
    }
    assert_eq!(net.sides[0].ping(now), Err(ConnectionError::TooManyPings));
    net.settle();
    assert!(net.events[0].is_empty() && net.sides[0].is_idle(), "a Ping that is not answered is given up");
}

#[test]
fn a_reset_fails_the_request_that_it_rejects() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 9);
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
    let datagram = net.sides[0].poll_transmit().unwrap();
    net.sides[0].receive(&[0x70, 0, datagram[2], datagram[3]], now).unwrap();
    assert_eq!(net.event(0), ConnectionEvent::Failed { exchange, failure: Failure::Reset });
}

#[test]
fn what_cannot_be_understood_is_rejected_if_it_asks_for_it_and_ignored_otherwise() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 10);
    let now = net.now;
    let mut answer = |octets: &[u8]| {
        net.sides[0].receive(octets, now).unwrap();
        assert_eq!(net.sides[0].poll_event(), None, "{octets:02x?}");
        net.sides[0].poll_transmit()
    };
    for (octets, rejected) in [
        (&b""[..], false),
        (&[0x40, 1, 0], false),
        (&[0x80, 1, 0, 1], false),          // version 2
        (&[0x49, 1, 0, 2, 1, 2, 3], true),  // token length 9
        (&[0x59, 1, 0, 2, 1, 2, 3], false), // the same, non-confirmable
        (&[0x44, 1, 0, 3, 1], true),        // shorter than its token
        (&[0x40, 0, 0, 4, 1], true),        // empty, and yet not
        (&[0x41, 0, 0, 4, 1], true),        // empty with a token
        (&[0x60, 0, 0, 5], false),          // acknowledges nothing
        (&[0x70, 0, 0, 5], false),          // rejects nothing
        (&[0x60, 1, 0, 5], false),          // a request as acknowledgement
        (&[0x40, 0x20, 0, 6], true),        // class 1 is reserved
        (&[0x40, 0xe1, 0, 7], true),        // a signal of RFC 8323
        (&[0x50, 0xe1, 0, 7], false),
        (&[0x40, 1, 0, 8, 0xff], true), // marker without payload
        (&[0x50, 1, 0, 9, 0xff], false),
        (&[0x40, 1, 0, 10, 0xf0], true), // reserved option delta
        (&[0x40, 0x45, 0, 11], true),    // 2.05 to nothing that was asked
        (&[0x50, 0x45, 0, 12], false),
        (&[0x50, 0x45, 0, 13, 0x60], true), // a notification that nobody wants
    ] {
        let answer = answer(octets);
        match rejected {
            true => assert_eq!(answer.unwrap(), [0x70, 0, octets[2], octets[3]], "{octets:02x?}"),
            false => assert_eq!(answer, None, "{octets:02x?}"),
        }
    }
}

#[test]
fn copies_get_what_the_first_got_and_are_not_handed_over() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 11);
    let now = net.now;
    let server = &mut net.sides[1];
    let get: &[u8] = &[0x41, 1, 0x12, 0x34, 7, 0xb1, b'x'];
    server.receive(get, now).unwrap();
    let request = request_of(server.poll_event().unwrap());
    server.receive(get, now).unwrap();
    assert_eq!((server.poll_event(), server.poll_transmit()), (None, None), "the application is at it");
    server.respond(request.exchange, Response::new(Code::CONTENT), now).unwrap();
    let first = server.poll_transmit().unwrap();
    assert_eq!(first, [0x61, 0x45, 0x12, 0x34, 7]);
    server.receive(get, now + Duration::from_secs(246)).unwrap();
    assert_eq!((server.poll_event(), server.poll_transmit()), (None, Some(first)));
    // Refusals, too: option 2049 is critical.
    let bad: &[u8] = &[0x40, 1, 0x12, 0x35, 0xe0, 6, 0xf4];
    server.receive(bad, now).unwrap();
    let refusal = server.poll_transmit().unwrap();
    assert_eq!(refusal[..4], [0x60, 0x82, 0x12, 0x35]);
    server.receive(bad, now).unwrap();
    assert_eq!((server.poll_event(), server.poll_transmit()), (None, Some(refusal)));
    // After EXCHANGE_LIFETIME it is another message.
    server.receive(get, now + Duration::from_secs(247)).unwrap();
    assert!(matches!(server.poll_event(), Some(ConnectionEvent::Request { .. })));
}

#[test]
fn a_critical_option_in_a_message_without_acknowledgement_is_passed_over() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 12);
    let now = net.now;
    net.sides[1].receive(&[0x50, 1, 0, 1, 0xe0, 6, 0xf4], now).unwrap();
    assert_eq!((net.sides[1].poll_event(), net.sides[1].poll_transmit()), (None, None));
    assert_eq!(net.sides[1].counters().requests_refused, 1);
}

#[test]
fn a_request_over_the_limit_is_answered_4_29() {
    let mut net = Net::new(limited(|limits| limits.peer_requests_outstanding_max = 1), PERFECT, 13);
    let now = net.now;
    let server = &mut net.sides[1];
    for (id, answered) in [(1, false), (2, true)] {
        server.receive(&[0x40, 1, 0, id, 0xb1, b'x'], now).unwrap();
        let answer = server.poll_transmit();
        assert_eq!(answer, answered.then(|| vec![0x60, 0x9d, 0, id, 0xd1, 1, 1]), "4.29, Max-Age 1");
    }
    assert_eq!(server.counters().requests_over_limit, 1);
}

/// A device that has requests answered too late for the acknowledgement, and acknowledges no answer.
#[test]
fn requests_whose_answers_are_not_acknowledged_count_until_they_are() {
    let mut net = Net::new(limited(|limits| limits.peer_requests_outstanding_max = 3), PERFECT, 22);
    let (mut now, server) = (net.now, &mut net.sides[1]);
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for id in 1..=20 {
        server.receive(&[0x40, 1, 0, id, 0xb1, b'x'], now).unwrap();
        let event = server.poll_event();
        assert_eq!(event.is_some(), id <= 3, "{id}");
        now += Duration::from_secs(1);
        server.handle_timeout(now);
        if let Some(event) = event {
            server.respond(request_of(event).exchange, Response::new(Code::CONTENT), now).unwrap();
        }
        sent.extend(std::iter::from_fn(|| server.poll_transmit()));
        assert!(id <= 3 || sent.contains(&vec![0x60, 0x9d, 0, id, 0xd1, 1, 1]), "4.29, Max-Age 1");
    }
    assert_eq!(server.counters().requests_over_limit, 17);
    let answer = sent.iter().find(|datagram| datagram[..2] == [0x40, 0x45]).unwrap();
    server.receive(&[0x60, 0, answer[2], answer[3]], now).unwrap();
    server.receive(&[0x40, 1, 0, 21, 0xb1, b'x'], now).unwrap();
    assert!(server.poll_event().is_some(), "one has been acknowledged");
}

/// More requests than there are Message IDs for the answers.
#[test]
fn answers_for_which_no_message_id_is_free_are_dropped_but_for_one() {
    const FLOOD: u32 = 70_000;
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 23);
    let (now, server) = (net.now, &mut net.sides[1]);
    let mut sent = 0;
    for id in 0..FLOOD {
        // Every other one is answered by the machine: Block2 of the reserved size.
        let options: &[u8] = if id % 2 == 0 { &[0xb1, b'x'] } else { &[0xd1, 10, 7] };
        server.receive(&[&[0x50, 1, (id >> 8) as u8, id as u8], options].concat(), now).unwrap();
        if let Some(event) = server.poll_event() {
            server.respond(request_of(event).exchange, Response::new(Code::CONTENT), now).unwrap();
        }
        sent += u32::from(server.poll_transmit().is_some());
    }
    assert!((61_000..=65_536).contains(&sent), "{sent}");
    assert_eq!(server.counters().dropped, FLOOD - sent - 1);
    // Those that acknowledge need none.
    server.receive(&[0x40, 1, 0xff, 0xff, 0xd1, 10, 7], now).unwrap();
    assert_eq!(server.poll_transmit().unwrap()[..4], [0x60, 0x80, 0xff, 0xff]);
    net.run(Duration::from_secs(500));
    assert_eq!(types(&net, 1), "N", "the one that waited");
    assert!(net.sides[1].is_idle());
}

#[test]
fn our_limits_are_errors_that_change_nothing() {
    let config = limited(|limits| limits.requests_outstanding_max = 1);
    let mut net = Net::new(DatagramConfig { max_message_size_peer: 100, ..config }, PERFECT, 14);
    let now = net.now;
    let client = &mut net.sides[0];
    let large = vec![0; 101];
    let too_large = Err(ConnectionError::MessageTooLargeForPeer { octets: 101, octets_max: 100 });
    assert_eq!(client.request(Request::post("x").payload(&large), now), too_large);
    assert_eq!(
        client.request(Request::with_method(Code::CONTENT, "x"), now),
        Err(ConnectionError::InvalidCode(Code::CONTENT))
    );
    assert!(client.is_idle());
    let exchange = client.request(Request::get("x"), now).unwrap();
    assert_eq!(client.request(Request::get("x"), now), Err(ConnectionError::TooManyRequests));
    client.cancel(exchange, now);
    assert_eq!(client.requests_outstanding(), 0);
    client.release().unwrap();
    assert_eq!(client.request(Request::get("x"), now), Err(ConnectionError::Released));
    client.abort();
    assert_eq!(client.request(Request::get("x"), now), Err(ConnectionError::Closed));
    assert_eq!(client.receive(&[0x40, 0, 0, 1], now), Err(ConnectionError::Closed));
    assert!(client.is_closed() && client.is_idle());

    let server = &mut net.sides[1];
    assert_eq!(server.respond(exchange, Response::new(Code::CONTENT), now), Err(ConnectionError::UnknownExchange));
    server.receive(&[0x40, 1, 0, 1, 0xb1, b'x'], now).unwrap();
    let request = request_of(server.poll_event().unwrap());
    let answer = server.respond(request.exchange, Response::new(Code::CONTENT).with_payload(large), now);
    assert_eq!(answer, Err(ConnectionError::MessageTooLargeForPeer { octets: 101, octets_max: 100 }));
    server.respond(request.exchange, Response::new(Code::INTERNAL), now).unwrap();
}

#[test]
fn what_does_not_fit_the_transmit_limit_is_dropped_and_sent_again_in_its_time() {
    let mut net = Net::new(limited(|limits| limits.transmit_octets_max = 9), PERFECT, 15);
    let now = net.now;
    // One empty acknowledgement or Reset has four octets.
    for id in 1..=3 {
        net.sides[0].receive(&[0x40, 0, 0, id], now).unwrap();
    }
    assert_eq!(net.sides[0].transmit_octets(), 8);
    assert_eq!(net.sides[0].counters().dropped, 1);
    net.sides[0].request(Request::get("x"), now).unwrap();
    assert_eq!(net.sides[0].transmit_octets(), 8, "no place for it");
    net.sides[0].poll_transmit().unwrap();
    net.sides[0].poll_transmit().unwrap();
    net.run(Duration::from_secs(4));
    assert_eq!(net.sides[0].counters().retransmissions, 1);
}

#[test]
fn an_idle_association_holds_no_memory_and_is_small() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 16);
    assert!(
        std::mem::size_of::<coap::DatagramConnection>() <= 120,
        "{}",
        std::mem::size_of::<coap::DatagramConnection>()
    );
    for _ in 0..50 {
        let now = net.now;
        net.sides[0].request(Request::post("x"), now).unwrap();
        let request = request_of(net.event(1));
        let now = net.now;
        net.sides[1].respond(request.exchange, Response::new(Code::CHANGED), now).unwrap();
        net.event(0);
    }
    net.settle();
    assert!(net.sides.iter().all(|side| side.is_idle() && side.poll_timeout().is_none()));
}

/// One side's application: it answers after a while, or never, and counts.
struct Application {
    asked: BTreeMap<ExchangeId, u32>,
    answered: usize,
    failed: usize,
    handed_over: BTreeSet<u32>,
    /// When which is answered.
    to_answer: Vec<(Instant, ExchangeId, u32)>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_request_is_handed_over_once_at_most_and_answered_or_failed_once(
        seed in any::<u64>(),
        loss_percent in 0_u64..=50,
        duplication_percent in 0_u64..=30,
        delay in prop_oneof![1_u64..50, 1_u64..6_000],
        nstart in 1_usize..4,
        requests in 1_u32..24,
        confirmable in any::<bool>(),
    ) {
        let conditions = Conditions { loss_percent, duplication_percent, delay_max: Duration::from_millis(delay) };
        let config = with_transmission(|transmission| transmission.nstart = nstart);
        let mut net = Net::new(config, conditions, seed);
        let mut sides: [Application; 2] = std::array::from_fn(|_| Application {
            asked: BTreeMap::new(),
            answered: 0,
            failed: 0,
            handed_over: BTreeSet::new(),
            to_answer: Vec::new(),
        });
        for number in 0..requests {
            for side in [0, 1] {
                let payload = number.to_be_bytes();
                let mut builder = Request::post("msgin5g").payload(&payload[..]);
                if !confirmable && number % 3 == 0 {
                    builder = builder.non_confirmable();
                }
                let now = net.now;
                let exchange = net.sides[side].request(builder, now).unwrap();
                sides[side].asked.insert(exchange, number);
            }
        }
        let end = net.now + Duration::from_secs(100_000);
        let mut goes_on = true;
        while goes_on {
            let due = sides.iter().flat_map(|side| &side.to_answer).map(|(at, ..)| *at).min();
            goes_on = net.step(due.unwrap_or(end));
            if let Some(due) = due.filter(|_| !goes_on) {
                net.now = due;
                goes_on = true;
            }
            for side in [0, 1] {
                while let Some(event) = net.events[side].pop_front() {
                    match event {
                        ConnectionEvent::Request { request } => {
                            let number = u32::from_be_bytes(request.payload.as_slice().try_into().unwrap());
                            prop_assert!(sides[side].handed_over.insert(number), "{} twice", number);
                            // At once, or only after the acknowledgement.
                            let pause = Duration::from_millis(net.random(2) * net.random(9_000));
                            sides[side].to_answer.push((net.now + pause, request.exchange, number));
                        }
                        ConnectionEvent::Response { exchange, response } => {
                            let number = sides[side].asked.remove(&exchange).expect("answered or failed before");
                            prop_assert_eq!(&response.payload, &number.to_be_bytes());
                            prop_assert!(sides[1 - side].handed_over.contains(&number));
                            sides[side].answered += 1;
                        }
                        ConnectionEvent::Failed { exchange, failure } => {
                            prop_assert!(matches!(failure, Failure::NotAcknowledged | Failure::NoAnswer), "{:?}", failure);
                            prop_assert!(sides[side].asked.remove(&exchange).is_some());
                            sides[side].failed += 1;
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                let now = net.now;
                for (_, exchange, number) in sides[side].to_answer.extract_if(.., |(at, ..)| *at <= now) {
                    let response = Response::new(Code::CHANGED).with_payload(number.to_be_bytes());
                    net.sides[side].respond(exchange, response, now).unwrap();
                }
            }
        }
        for (side, application) in sides.iter().enumerate() {
            prop_assert_eq!(application.answered + application.failed, requests as usize);
            prop_assert!(net.sides[side].is_idle(), "everything is given back");
            if loss_percent == 0 && delay < 50 {
                prop_assert_eq!(application.failed, 0);
            }
        }
    }
}
