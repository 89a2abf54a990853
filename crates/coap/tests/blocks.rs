//! Block-wise transfer (RFC 7959) with Request-Tag and Echo (RFC 9175) between two machines, and against octets put
//! together by hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod net;

use std::time::Duration;

use coap::{
    Code, ConnectionEvent, DatagramConfig, DatagramLimits, ExchangeId, Failure, Observe, Request, Response,
    Transmission,
};
use net::{Conditions, Net, PERFECT};
use proptest::prelude::*;

fn limited(change: impl FnOnce(&mut DatagramLimits)) -> DatagramConfig {
    let mut config = DatagramConfig::default();
    change(&mut config.limits);
    config
}

fn body(octets: usize, seed: u8) -> Vec<u8> {
    (0..octets).map(|place| (place * 7 + place / 251) as u8 ^ seed).collect()
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

/// Sends a request of `up` octets, answers it with `down`, and looks at both.
fn exchange(net: &mut Net, method: Code, up: usize, down: usize) {
    let (sent, answered) = (body(up, 1), body(down, 2));
    let now = net.now;
    let builder = Request::with_method(method, "msgin5g").content_format(42).payload(&sent);
    let exchange = net.sides[0].request(builder, now).unwrap();
    let request = request_of(net.event(1));
    assert_eq!((request.method, request.payload == sent), (method, true));
    assert_eq!((request.path.as_slice(), request.content_format), (&["msgin5g".to_owned()][..], Some(42)));
    let now = net.now;
    let response = Response::new(Code::CONTENT).with_content_format(50).with_max_age(9).with_payload(answered);
    net.sides[1].respond(request.exchange, &response, now).unwrap();
    assert_eq!(response_of(net.event(0)), (exchange, response));
    assert!(net.events.iter().all(std::collections::VecDeque::is_empty));
}

#[test]
fn what_fits_goes_in_one_datagram_and_what_does_not_in_blocks_both_ways() {
    for (up, down, datagrams) in [
        (0, 0, 1),
        (1_024, 1_024, 1),
        (1_152, 0, 2),
        (2_048, 0, 2),
        (2_049, 0, 3),
        (0, 2_049, 3),
        (5_000, 5_000, 9),
        (66_560, 66_560, 129),
    ] {
        let mut net = Net::new(DatagramConfig::default(), PERFECT, 1);
        exchange(&mut net, Code::POST, up, down);
        let sent = net.sent.iter().filter(|(side, _)| *side == 0).count();
        assert_eq!(sent, datagrams, "{up} up, {down} down");
        assert!(net.sent.iter().all(|(_, datagram)| datagram.len() <= 1_152));
        net.settle();
        assert!(net.sides.iter().all(coap::DatagramConnection::is_idle));
    }
}

#[test]
fn every_method_goes_in_blocks_and_the_smaller_block_size_wins() {
    for (own, peer) in [(16, 1_024), (1_024, 16), (64, 128), (1_000, 40)] {
        for method in [Code::GET, Code::POST, Code::PUT, Code::FETCH, Code::IPATCH] {
            let config = |octets| limited(|limits| limits.block_octets_max = octets);
            let mut net = Net::with([config(own), config(peer)], PERFECT, 2);
            let up = if matches!(method, Code::GET | Code::FETCH) { 20 } else { 3_000 };
            exchange(&mut net, method, up, 3_000);
        }
    }
}

#[test]
fn a_large_answer_may_be_separate() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 3);
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
    let request = request_of(net.event(1));
    net.run(Duration::from_secs(10));
    let now = net.now;
    net.sides[1].respond(request.exchange, Response::new(Code::CONTENT).with_payload(body(4_000, 3)), now).unwrap();
    let (answered, response) = response_of(net.event(0));
    assert_eq!((answered, response.payload), (exchange, body(4_000, 3)));
}

#[test]
fn blocks_without_acknowledgement_arrive_too() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 4);
    let now = net.now;
    let sent = body(3_000, 4);
    let exchange = net.sides[0].request(Request::post("x").payload(&sent).non_confirmable(), now).unwrap();
    let request = request_of(net.event(1));
    assert_eq!(request.payload, sent);
    let now = net.now;
    net.sides[1].respond(request.exchange, Response::new(Code::CHANGED).with_payload(body(3_000, 5)), now).unwrap();
    assert_eq!(response_of(net.event(0)).0, exchange);
    assert!(net.sent.iter().all(|(_, datagram)| datagram[0] >> 4 == 5), "no acknowledgement");
}

#[test]
fn a_body_over_the_limit_is_refused_4_13_and_a_response_over_it_fails() {
    let small = DatagramConfig { max_message_size_own: 3_000, ..DatagramConfig::default() };
    let mut net = Net::with([small, small], PERFECT, 5);
    let now = net.now;
    let large = body(3_001, 6);
    let refused = net.sides[0].request(Request::post("x").payload(&large), now).unwrap();
    let (answered, response) = response_of(net.event(0));
    assert_eq!((answered, response.code), (refused, Code::REQUEST_ENTITY_TOO_LARGE));
    assert_eq!(net.sent.len(), 2, "Size1 says so in the first block");
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
    let request = request_of(net.event(1));
    let now = net.now;
    net.sides[1].respond(request.exchange, Response::new(Code::CONTENT).with_payload(large), now).unwrap();
    assert_eq!(net.event(0), ConnectionEvent::Failed { exchange, failure: Failure::TooLarge });
}

/// One datagram: type bits, code, Message ID, a token of one octet, and the rest.
fn datagram(kind: u8, code: Code, id: u8, rest: &[u8]) -> Vec<u8> {
    [&[0x41 | kind << 4, code.octet(), 0, id, 7][..], rest].concat()
}

/// POST x with that Block1 value and payload.
fn block(id: u8, value: &[u8], payload: &[u8]) -> Vec<u8> {
    let options = [&[0xb1, b'x', 0xd0 | value.len() as u8, 3][..], value, &[0xff]].concat();
    datagram(0, Code::POST, id, &[options, payload.to_vec()].concat())
}

/// RFC 7959 figure 7's shape: blocks 0 to 2 of sixteen octets, each answered 2.31 but the last.
#[test]
fn blocks_of_a_peer_are_put_together_and_answered_with_their_numbers() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 6);
    let (now, server) = (net.now, &mut net.sides[1]);
    for (id, value, echoed) in [(1, &[0x08][..], &[0xd1, 14, 0x08][..]), (2, &[0x18], &[0xd1, 14, 0x18])] {
        server.receive(&block(id, value, &[id; 16]), now).unwrap();
        assert_eq!(server.poll_transmit().unwrap(), datagram(2, Code::CONTINUE, id, echoed));
        assert_eq!(server.poll_event(), None);
    }
    server.receive(&block(3, &[0x20], &[3; 5]), now).unwrap();
    let request = request_of(server.poll_event().unwrap());
    assert_eq!(request.payload, [vec![1; 16], vec![2; 16], vec![3; 5]].concat());
    server.respond(request.exchange, Response::new(Code::CHANGED), now).unwrap();
    assert_eq!(server.poll_transmit().unwrap(), datagram(2, Code::CHANGED, 3, &[0xd1, 14, 0x20]));
}

#[test]
fn a_block_without_those_before_it_is_answered_4_08_and_a_malformed_one_4_00() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 7);
    let (now, server) = (net.now, &mut net.sides[1]);
    for (id, value, payload, code) in [
        (1, &[0x18][..], 16, Code::REQUEST_ENTITY_INCOMPLETE),
        (2, &[0x08], 15, Code::BAD_REQUEST),
        (3, &[0x00], 17, Code::BAD_REQUEST),
        (4, &[0x0f], 16, Code::BAD_REQUEST),
    ] {
        server.receive(&block(id, value, &vec![0; payload]), now).unwrap();
        let answer = server.poll_transmit().unwrap();
        assert_eq!((answer[0], answer[1], answer[3]), (0x61, code.octet(), id));
        assert_eq!(server.poll_event(), None);
    }
    assert_eq!(server.counters().requests_refused, 4);
}

#[test]
fn what_is_not_completed_is_thrown_away_after_exchange_lifetime() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 8);
    let now = net.now;
    net.sides[1].receive(&block(1, &[0x08], &[0; 16]), now).unwrap();
    net.settle();
    assert!(net.sides[1].is_idle());
    let now = net.now;
    net.sides[1].receive(&block(2, &[0x18], &[0; 16]), now).unwrap();
    assert_eq!(net.sides[1].poll_transmit().unwrap()[1], Code::REQUEST_ENTITY_INCOMPLETE.octet());
}

#[test]
fn requests_with_different_tags_do_not_mix() {
    let config = DatagramConfig {
        transmission: Transmission { nstart: 4, ..Transmission::default() },
        ..DatagramConfig::default()
    };
    let mut net = Net::new(config, Conditions { delay_max: Duration::from_secs(1), ..PERFECT }, 9);
    let bodies: Vec<Vec<u8>> = (0..4).map(|seed| body(9_000, seed)).collect();
    let now = net.now;
    for body in &bodies {
        net.sides[0].request(Request::post("x").payload(body), now).unwrap();
    }
    let mut came: Vec<Vec<u8>> = (0..4).map(|_| request_of(net.event(1)).payload).collect();
    came.sort();
    let mut bodies = bodies;
    bodies.sort();
    assert!(came == bodies);
}

#[test]
fn a_long_transfer_does_not_hold_up_a_short_request() {
    let mut net = Net::new(limited(|limits| limits.block_octets_max = 16), PERFECT, 21);
    let now = net.now;
    let long = net.sides[0].request(Request::post("long").payload(body(9_000, 1)), now).unwrap();
    let short = net.sides[0].request(Request::post("short"), now).unwrap();
    let mut over = Vec::new();
    while over.len() < 2 {
        net.step(now + Duration::from_secs(3_600));
        if let Some(event) = net.events[1].pop_front() {
            let (request, now) = (request_of(event), net.now);
            net.sides[1].respond(request.exchange, Response::new(Code::CHANGED), now).unwrap();
        }
        over.extend(net.events[0].pop_front().map(|event| response_of(event).0));
    }
    assert_eq!(over, [short, long]);
}

#[test]
fn a_body_that_the_peer_has_thrown_away_is_sent_once_more() {
    let mut net = Net::new(limited(|limits| limits.assemblies_max = 1), PERFECT, 10);
    let now = net.now;
    let sent = body(4_000, 9);
    net.sides[0].request(Request::post("x").payload(&sent), now).unwrap();
    while net.sent.iter().filter(|(side, _)| *side == 1).count() < 2 {
        let until = net.now + Duration::from_secs(1);
        net.step(until);
    }
    // Another request takes its place.
    let now = net.now;
    net.sides[1].receive(&block(1, &[0x08], &[0; 16]), now).unwrap();
    assert_eq!(request_of(net.event(1)).payload, sent);
}

#[test]
fn a_response_that_is_gone_is_answered_4_08_or_made_anew() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 11);
    let (now, server) = (net.now, &mut net.sides[1]);
    // Block2 number 1 of sixteen octets.
    let second = [0xb1, b'x', 0xc1, 0x10];
    server.receive(&datagram(0, Code::POST, 1, &second), now).unwrap();
    assert_eq!(server.poll_transmit().unwrap()[1], Code::REQUEST_ENTITY_INCOMPLETE.octet());
    assert_eq!(server.poll_event(), None);
    server.receive(&datagram(0, Code::GET, 2, &second), now).unwrap();
    let request = request_of(server.poll_event().unwrap());
    server.respond(request.exchange, Response::new(Code::CONTENT).with_payload(body(20, 0)), now).unwrap();
    let answer = server.poll_transmit().unwrap();
    assert_eq!(answer[answer.len() - 5..], [&[0xff][..], &body(20, 0)[16..]].concat());
    server.receive(&datagram(0, Code::GET, 3, &[0xb1, b'x', 0xc1, 0x20]), now).unwrap();
    let request = request_of(server.poll_event().unwrap());
    server.respond(request.exchange, Response::new(Code::CONTENT).with_payload(body(20, 0)), now).unwrap();
    assert_eq!(server.poll_transmit().unwrap(), datagram(2, Code::BAD_REQUEST, 3, &[]), "there is no such block");
}

#[test]
fn over_the_limit_the_oldest_response_is_thrown_away() {
    for config in [limited(|limits| limits.responses_kept_max = 1), limited(|limits| limits.responses_octets_max = 60)]
    {
        let mut net = Net::new(config, PERFECT, 18);
        let (now, server) = (net.now, &mut net.sides[1]);
        for (id, path) in [(1, b'x'), (2, b'y')] {
            server.receive(&datagram(0, Code::POST, id, &[0xb1, path, 0xc1, 0x00]), now).unwrap();
            let request = request_of(server.poll_event().unwrap());
            server.respond(request.exchange, Response::new(Code::CHANGED).with_payload(body(40, path)), now).unwrap();
            server.poll_transmit().unwrap();
        }
        for (id, path, code) in [(3, b'x', Code::REQUEST_ENTITY_INCOMPLETE), (4, b'y', Code::CHANGED)] {
            server.receive(&datagram(0, Code::POST, id, &[0xb1, path, 0xc1, 0x10]), now).unwrap();
            assert_eq!(server.poll_transmit().unwrap()[1], code.octet());
        }
    }
}

#[test]
fn over_the_limit_the_oldest_response_that_waits_for_echo_is_made_anew() {
    for config in [limited(|limits| limits.responses_held_max = 1), limited(|limits| limits.responses_octets_max = 150)]
    {
        let mut net = Net::new(config, PERFECT, 19);
        let (now, server) = (net.now, &mut net.sides[1]);
        server.challenge_address([1; 8]);
        for (id, path, handed_over) in [(1, b'x', true), (2, b'y', true), (3, b'y', false), (4, b'x', true)] {
            server.receive(&datagram(0, Code::GET, id, &[0xb1, path]), now).unwrap();
            let event = server.poll_event();
            assert_eq!(event.is_some(), handed_over, "{id}");
            if let Some(event) = event {
                let exchange = request_of(event).exchange;
                server.respond(exchange, Response::new(Code::CONTENT).with_payload(body(99, 0)), now).unwrap();
            }
            assert_eq!(server.poll_transmit().unwrap()[1], Code::UNAUTHORIZED.octet());
        }
    }
}

#[test]
fn over_the_octet_limit_a_request_or_block_is_answered_4_29_until_others_are_answered() {
    let mut net = Net::new(limited(|limits| limits.requests_octets_max = 2_500), PERFECT, 24);
    let (now, server) = (net.now, &mut net.sides[1]);
    let whole = |id| datagram(0, Code::POST, id, &[&[0xb1, b'x', 0xff][..], &body(1_000, id)].concat());
    let mut exchanges = Vec::new();
    for id in [1, 2] {
        server.receive(&whole(id), now).unwrap();
        exchanges.push(request_of(server.poll_event().unwrap()).exchange);
    }
    for over in [whole(3), block(4, &[0x0d], &[0; 512])] {
        server.receive(&over, now).unwrap();
        assert_eq!(server.poll_transmit().unwrap()[1], Code::TOO_MANY_REQUESTS.octet());
        assert_eq!(server.poll_event(), None);
    }
    assert_eq!(server.counters().requests_over_limit, 2);
    server.respond(exchanges[0], Response::new(Code::CHANGED), now).unwrap();
    server.receive(&whole(5), now).unwrap();
    assert_eq!(request_of(server.poll_event().unwrap()).payload, body(1_000, 5));
    // With nothing besides, one that is larger than the limit is taken all the same.
    let mut net = Net::new(limited(|limits| limits.requests_octets_max = 100), PERFECT, 24);
    exchange(&mut net, Code::POST, 9_000, 10);
}

#[test]
fn over_the_octet_limit_the_body_that_has_waited_longest_is_thrown_away() {
    let mut net = Net::new(limited(|limits| limits.requests_octets_max = 1_300), PERFECT, 25);
    let (mut now, server) = (net.now, &mut net.sides[1]);
    // Blocks of 512 octets, more to come: number 0 of three requests, then number 1.
    for (id, path, value, code) in [
        (1, b'x', 0x0d, Code::CONTINUE),
        (2, b'y', 0x0d, Code::CONTINUE),
        (3, b'z', 0x0d, Code::CONTINUE),
        (4, b'x', 0x1d, Code::REQUEST_ENTITY_INCOMPLETE),
        (5, b'y', 0x1d, Code::CONTINUE),
        (6, b'z', 0x1d, Code::REQUEST_ENTITY_INCOMPLETE),
        (7, b'y', 0x2d, Code::CONTINUE),
    ] {
        now += Duration::from_secs(1);
        let rest = [&[0xb1, path, 0xd1, 3, value, 0xff][..], &[0; 512]].concat();
        server.receive(&datagram(0, Code::POST, id, &rest), now).unwrap();
        assert_eq!(server.poll_transmit().unwrap()[1], code.octet(), "{id}");
    }
}

#[test]
fn a_response_that_is_not_wanted_is_not_sent() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 20);
    let (now, server) = (net.now, &mut net.sides[1]);
    // No-Response (258 - 11 - 269 + 22 as delta 247): not interested in 2.xx, then in 4.xx.
    for (id, value, code, sent) in [
        (1, 2, Code::CHANGED, false),
        (2, 2, Code::NOT_FOUND, true),
        (3, 8, Code::NOT_FOUND, false),
        (4, 8, Code::CHANGED, true),
    ] {
        for (kind, id) in [(0, id), (1, id + 10)] {
            server.receive(&datagram(kind, Code::POST, id, &[0xb1, b'x', 0xd1, 234, value]), now).unwrap();
            let request = request_of(server.poll_event().unwrap());
            server.respond(request.exchange, Response::new(code), now).unwrap();
            let answer = server.poll_transmit();
            match (sent, kind) {
                (true, _) => assert_eq!(answer.unwrap()[1], code.octet()),
                (false, 0) => assert_eq!(answer.unwrap(), [0x60, 0, 0, id], "an empty acknowledgement"),
                _ => assert_eq!(answer, None),
            }
        }
    }
}

#[test]
fn blocks_of_different_responses_are_not_put_together() {
    for (change, failure) in [(0, None), (1, Some(Failure::Unusable)), (2, Some(Failure::Unusable))] {
        let mut net = Net::new(DatagramConfig::default(), PERFECT, 12);
        let (now, client) = (net.now, &mut net.sides[0]);
        // A POST is not asked once more.
        let exchange = client.request(Request::post("x"), now).unwrap();
        // ETag, Block2.
        for (number, more) in [(0, 8), (1, 0)] {
            let sent = client.poll_transmit().unwrap();
            let etag = if change == 1 { number } else { 0 };
            let number = if change == 2 { 2 * number } else { number };
            let head = [0x64, Code::CONTENT.octet(), sent[2], sent[3], sent[4], sent[5], sent[6], sent[7]];
            let rest = [&[0x41, etag, 0xd1, 6, number << 4 | more, 0xff][..], &[5; 16]].concat();
            client.receive(&[&head[..], &rest].concat(), now).unwrap();
        }
        match failure {
            None => assert_eq!(response_of(client.poll_event().unwrap()).1.payload, [5; 32]),
            Some(failure) => assert_eq!(client.poll_event(), Some(ConnectionEvent::Failed { exchange, failure })),
        }
        assert_eq!(client.requests_outstanding(), 0);
    }
}

#[test]
fn large_answers_to_requests_that_are_alike_do_not_mix() {
    let config = DatagramConfig {
        transmission: Transmission { nstart: 3, ..Transmission::default() },
        ..DatagramConfig::default()
    };
    for up in [10, 3_000] {
        let mut net = Net::new(config, Conditions { delay_max: Duration::from_millis(200), ..PERFECT }, 27);
        let now = net.now;
        let sent: Vec<Vec<u8>> = (0..3).map(|seed| body(up, seed)).collect();
        let asked: Vec<ExchangeId> =
            sent.iter().map(|body| net.sides[0].request(Request::post("x").payload(body), now).unwrap()).collect();
        let requests: Vec<Request> = (0..3).map(|_| request_of(net.event(1))).collect();
        let now = net.now;
        for request in requests {
            let seed = sent.iter().position(|body| *body == request.payload).unwrap();
            let response = Response::new(Code::CHANGED).with_payload(body(5_000, 100 + seed as u8));
            net.sides[1].respond(request.exchange, response, now).unwrap();
        }
        for _ in 0..3 {
            let (exchange, response) = response_of(net.event(0));
            let seed = asked.iter().position(|asked| *asked == exchange).unwrap();
            assert!(response.payload == body(5_000, 100 + seed as u8));
        }
    }
}

#[test]
fn a_resource_that_changes_while_it_is_fetched_is_fetched_anew() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 17);
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
    let first = request_of(net.event(1));
    let now = net.now;
    net.sides[1].respond(first.exchange, Response::new(Code::CONTENT).with_payload(body(3_000, 1)), now).unwrap();
    while net.sent.len() < 3 {
        net.step(now + Duration::from_secs(1));
    }
    // Somebody else's GET of the same resource finds it changed.
    let now = net.now;
    net.sides[1].receive(&datagram(0, Code::GET, 1, b"\xb1x"), now).unwrap();
    let second = request_of(net.event(1));
    let now = net.now;
    net.sides[1].respond(second.exchange, Response::new(Code::CONTENT).with_payload(body(3_000, 2)), now).unwrap();
    let third = request_of(net.event(1));
    let now = net.now;
    net.sides[1].respond(third.exchange, Response::new(Code::CONTENT).with_payload(body(3_000, 2)), now).unwrap();
    let (answered, response) = response_of(net.event(0));
    assert!(answered == exchange && response.payload == body(3_000, 2));
}

#[test]
fn a_large_response_to_an_address_that_is_not_proven_waits_for_echo_and_is_made_once() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 13);
    net.sides[1].challenge_address(*b"8 octets");
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x"), now).unwrap();
    let request = request_of(net.event(1));
    let now = net.now;
    net.sides[1].respond(request.exchange, Response::new(Code::CONTENT).with_payload(body(3_000, 7)), now).unwrap();
    assert!(!net.sides[1].is_address_proven());
    let (answered, response) = response_of(net.event(0));
    assert_eq!((answered, response.payload), (exchange, body(3_000, 7)));
    assert!(net.sides[1].is_address_proven() && net.events[1].is_empty());
    // Each datagram before the proof is at most three times as large as what it answers.
    let (asked, challenged) = (net.sent[0].1.len(), net.sent[1].1.len());
    assert_eq!((net.sent[1].0, net.sent[1].1[1]), (1, Code::UNAUTHORIZED.octet()));
    assert!(challenged <= 3 * asked);
}

#[test]
fn a_late_response_counts_with_all_its_transmissions_before_an_address_is_proven() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 26);
    let (start, server) = (net.now, &mut net.sides[1]);
    server.challenge_address([1; 8]);
    let get = datagram(0, Code::GET, 1, &[0xb1, b'x']);
    server.receive(&get, start).unwrap();
    let request = request_of(server.poll_event().unwrap());
    let mut now = start + Duration::from_secs(1);
    server.handle_timeout(now);
    // Twice as large as its request, but it would go out five times.
    let response = Response::new(Code::CONTENT).with_payload(body(8, 0));
    server.respond(request.exchange, &response, now).unwrap();
    let mut sent = Vec::new();
    loop {
        sent.extend(std::iter::from_fn(|| server.poll_transmit()));
        let Some(at) = server.poll_timeout().filter(|at| *at < start + Duration::from_secs(100)) else { break };
        now = at;
        server.handle_timeout(now);
    }
    assert_eq!(sent.len(), 2, "an acknowledgement, and the challenge once");
    assert_eq!((sent[1][0], sent[1][1]), (0x51, Code::UNAUTHORIZED.octet()));
    assert!(sent.concat().len() <= 3 * get.len());
    // The proof brings it, with the acknowledgement.
    let proof = [&[0xb1, b'x', 0xd8, 228][..], &[1; 8]].concat();
    server.receive(&datagram(0, Code::GET, 2, &proof), now).unwrap();
    let answer = server.poll_transmit().unwrap();
    assert_eq!((answer[0], answer[1], &answer[6..]), (0x61, Code::CONTENT.octet(), &body(8, 0)[..]));
    assert_eq!(server.poll_event(), None, "asked once");
}

#[test]
fn a_small_response_goes_to_any_address_and_an_address_may_change_in_the_middle() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 14);
    net.sides[1].challenge_address([1; 8]);
    exchange(&mut net, Code::POST, 20, 20);
    assert!(!net.sides[1].is_address_proven(), "nobody asked");
    let now = net.now;
    net.sides[0].request(Request::post("x").payload(body(4_000, 1)), now).unwrap();
    let request = request_of(net.event(1));
    let now = net.now;
    net.sides[1].respond(request.exchange, Response::new(Code::CHANGED).with_payload(body(6_000, 2)), now).unwrap();
    net.step(now + Duration::from_secs(1));
    net.sides[1].challenge_address([2; 8]);
    assert_eq!(response_of(net.event(0)).1.payload, body(6_000, 2));
    assert!(net.sides[1].is_address_proven() && net.events[1].is_empty());
}

#[test]
fn a_wrong_echo_proves_nothing() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 15);
    let (now, server) = (net.now, &mut net.sides[1]);
    server.challenge_address([1; 8]);
    let mut get = vec![0xb1, b'x'];
    server.receive(&datagram(0, Code::GET, 1, &get), now).unwrap();
    let request = request_of(server.poll_event().unwrap());
    server.respond(request.exchange, Response::new(Code::CONTENT).with_payload(body(999, 7)), now).unwrap();
    // Echo: 252 - 11 - 13.
    let echo = [0xd8, 228, 1, 1, 1, 1, 1, 1, 1, 1];
    assert_eq!(server.poll_transmit().unwrap()[5..], [0xd8, 239, 1, 1, 1, 1, 1, 1, 1, 1]);
    get.extend([0xd8, 228, 1, 1, 1, 1, 1, 1, 1, 2]);
    server.receive(&datagram(0, Code::GET, 2, &get), now).unwrap();
    assert_eq!(server.poll_transmit().unwrap()[1], Code::UNAUTHORIZED.octet());
    assert!(!server.is_address_proven());
    let get = [&get[..2], &echo].concat();
    server.receive(&datagram(0, Code::GET, 3, &get), now).unwrap();
    assert!(server.is_address_proven());
    assert_eq!(server.poll_transmit().unwrap()[1], Code::CONTENT.octet());
    assert_eq!(server.poll_event(), None, "asked once");
}

#[test]
fn a_large_notification_is_fetched_and_only_the_newest_counts() {
    let mut net = Net::new(limited(|limits| limits.peer_observations_max = 1), PERFECT, 16);
    let now = net.now;
    let exchange = net.sides[0].request(Request::get("x").observe(Observe::Register), now).unwrap();
    let request = request_of(net.event(1));
    let content = |seed| Response::new(Code::CONTENT).with_observe().with_payload(body(3_000, seed));
    let now = net.now;
    net.sides[1].respond(request.exchange, content(0), now).unwrap();
    let (answered, response) = response_of(net.event(0));
    assert!(answered == exchange && response == content(0));
    for seed in 1..4 {
        let now = net.now;
        net.sides[1].notify(request.exchange, content(seed), now).unwrap();
    }
    let mut came = Vec::new();
    while came.last() != Some(&3) {
        let (answered, response) = response_of(net.event(0));
        assert!(answered == exchange && response.observe);
        came.push((1..4).find(|seed| response.payload == body(3_000, *seed)).expect("one of those, whole"));
    }
    assert!(came.is_sorted());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bodies_of_any_size_arrive_whole_and_once_or_fail(
        seed in any::<u64>(),
        loss_percent in 0_u64..=25,
        duplication_percent in 0_u64..=30,
        delay in prop_oneof![1_u64..50, 1_u64..3_000],
        sizes in prop::collection::vec((0_usize..9_000, 0_usize..9_000), 1..5),
        blocks in (4_u32..=10, 4_u32..=10),
        nstart in 1_usize..3,
    ) {
        let conditions = Conditions { loss_percent, duplication_percent, delay_max: Duration::from_millis(delay) };
        let config = |exponent: u32| {
            let mut config = limited(|limits| limits.block_octets_max = 1 << exponent);
            config.transmission.nstart = nstart;
            config
        };
        let mut net = Net::with([config(blocks.0), config(blocks.1)], conditions, seed);
        let mut asked = Vec::new();
        for (number, (up, down)) in sizes.iter().enumerate() {
            let now = net.now;
            let path = format!("p{number}");
            let payload = body(*up, number as u8);
            let exchange = net.sides[0].request(Request::post(&path).payload(&payload), now).unwrap();
            asked.push((exchange, *down, false));
        }
        let mut handed_over = Vec::new();
        let end = net.now + Duration::from_secs(1_000_000);
        loop {
            let goes_on = net.step(end);
            while let Some(event) = net.events[1].pop_front() {
                let request = request_of(event);
                let number: usize = request.path[0][1..].parse().unwrap();
                prop_assert!(!handed_over.contains(&number), "{} twice", number);
                handed_over.push(number);
                prop_assert!(request.payload == body(sizes[number].0, number as u8));
                let now = net.now;
                let response = Response::new(Code::CHANGED).with_payload(body(sizes[number].1, !(number as u8)));
                net.sides[1].respond(request.exchange, response, now).unwrap();
            }
            while let Some(event) = net.events[0].pop_front() {
                let (exchange, response) = match event {
                    ConnectionEvent::Response { exchange, response } => (exchange, Some(response)),
                    ConnectionEvent::Failed { exchange, .. } => (exchange, None),
                    other => panic!("{other:?}"),
                };
                let number = asked.iter().position(|(asked, ..)| *asked == exchange).unwrap();
                prop_assert!(!asked[number].2, "once");
                asked[number].2 = true;
                match response {
                    Some(response) if response.code == Code::CHANGED => {
                        prop_assert!(response.payload == body(asked[number].1, !(number as u8)));
                    }
                    Some(response) => prop_assert_eq!(response.code, Code::REQUEST_ENTITY_INCOMPLETE),
                    None => prop_assert!(loss_percent > 0 || delay > 1_000, "nothing was lost"),
                }
            }
            if !goes_on && net.events.iter().all(std::collections::VecDeque::is_empty) {
                break;
            }
        }
        prop_assert!(asked.iter().all(|(.., over)| *over), "none is forgotten");
        prop_assert!(net.sides.iter().all(coap::DatagramConnection::is_idle));
    }
}
