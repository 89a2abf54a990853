//! What the connection does to a peer that breaks the rules or asks for too much.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod wire;

use coap::{Code, Failure, Request, Response, StreamConfig, StreamConnection, StreamError, StreamEvent, StreamLimits};
use proptest::prelude::*;
use wire::{csm, events, message, open, post, sent};

fn limited(change: impl FnOnce(&mut StreamLimits)) -> StreamConfig {
    let mut config = StreamConfig::default();
    change(&mut config.limits);
    config
}

/// Gives `octets` to a fresh connection and expects that they end it, with an Abort that says why.
fn expect_abort(connection: &mut StreamConnection, octets: &[u8], error: StreamError) {
    assert!(error.is_fatal());
    connection.poll_transmit();
    assert_eq!(connection.receive(octets), Err(error));
    assert!(connection.is_closed());
    let abort = sent(connection).pop().unwrap();
    assert_eq!(abort.code, Code::ABORT);
    assert_eq!(abort.payload, error.to_string().as_bytes());
    assert_eq!(connection.receive(&csm()), Err(StreamError::Closed));
    assert_eq!(connection.poll_transmit(), None);
}

#[test]
fn a_first_message_that_is_not_a_csm_ends_the_connection() {
    for first in [post(&[1]), message(Code::PING, &[], &[]), message(Code::CHANGED, &[], &[])] {
        expect_abort(&mut StreamConnection::new(StreamConfig::default()), &first, StreamError::CsmExpected);
    }
}

#[test]
fn what_is_not_coap_at_all_ends_the_connection() {
    for noise in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", &[0xff; 16]]
    {
        let mut connection = StreamConnection::new(StreamConfig::default());
        assert!(connection.receive(noise).unwrap_err().is_fatal());
    }
}

#[test]
fn an_unknown_critical_option_in_a_csm_is_named_in_the_abort() {
    let mut connection = StreamConnection::new(StreamConfig::default());
    connection.poll_transmit();
    let error = connection.receive(&message(Code::CSM, &[], &[0x20, 0x50])).unwrap_err();
    assert_eq!(error, StreamError::BadCsmOption { number: 7 });
    assert_eq!(sent(&mut connection)[0].options, [(2, vec![7])]);
}

#[test]
fn an_unknown_critical_option_in_another_signal_ends_the_connection() {
    for code in [Code::PING, Code::PONG, Code::RELEASE] {
        let error = StreamError::BadSignalOption { code, number: 3 };
        expect_abort(&mut open(StreamConfig::default()), &message(code, &[], &[0x30]), error);
    }
}

#[test]
fn reserved_classes_and_unassigned_signals_end_the_connection() {
    for octet in [0x20, 0x3f, 0x60, 0xc0, 0xdf, 0xe0, 0xe6, 0xff] {
        let code = Code::from_octet(octet);
        expect_abort(&mut open(StreamConfig::default()), &message(code, &[], &[]), StreamError::ReservedCode { code });
    }
}

#[test]
fn a_message_over_our_size_is_refused_by_its_header_alone() {
    let config = StreamConfig { max_message_size_own: 2_000, ..StreamConfig::default() };
    // 1 + 2 + 1 + 0 + 269 + 1728 = 2001 octets.
    expect_abort(
        &mut open(config),
        &[0xe0, 0x06, 0xc0],
        StreamError::MessageTooLarge { octets: 2_001, octets_max: 2_000 },
    );
    let mut connection = open(config);
    connection.receive(&[0xe0, 0x06, 0xbf]).unwrap();
    connection.receive(&[0x00]).unwrap();
    assert!(!connection.is_closed(), "a message of exactly our size is taken");
    expect_abort(
        &mut open(config),
        &[0xf0, 0xff, 0xff, 0xff, 0xff],
        StreamError::MessageTooLarge { octets: 4_295_033_106, octets_max: 2_000 },
    );
}

#[test]
fn a_size_of_ours_below_the_base_counts_as_the_base() {
    let config = StreamConfig { max_message_size_own: 10, ..StreamConfig::default() };
    let mut connection = StreamConnection::new(config);
    assert_eq!(sent(&mut connection)[0].options, [(2, vec![0x04, 0x80])]);
}

#[test]
fn reserved_token_lengths_and_malformed_options_end_the_connection() {
    for length in 9..=15 {
        expect_abort(&mut open(StreamConfig::default()), &[length], StreamError::TokenLengthReserved(length));
    }
    for body in [&[0xf0][..], &[0x0f], &[0x12, 0], &[0xff]] {
        for code in [Code::POST, Code::PING] {
            let mut connection = open(StreamConfig::default());
            let error = connection.receive(&message(code, &[], body)).unwrap_err();
            assert!(matches!(error, StreamError::Malformed(_)), "{error}");
        }
    }
}

#[test]
fn what_came_before_an_offence_is_still_handed_over() {
    let mut connection = open(StreamConfig::default());
    let mut octets = post(&[1]);
    octets.push(0x0f);
    assert_eq!(connection.receive(&octets), Err(StreamError::TokenLengthReserved(15)));
    let events = events(&mut connection);
    let [StreamEvent::Request { request }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(connection.respond(request.exchange, Response::new(Code::CHANGED)), Err(StreamError::Closed));
}

#[test]
fn requests_with_options_that_are_not_served_are_answered_and_not_handed_over() {
    let long = [&[0xbd, 243][..], &[b'x'; 256]].concat();
    let bad_path = Code::BAD_OPTION;
    for (body, code, what) in [
        (&[0x90][..], Code::BAD_OPTION, "OSCORE"),
        (&[0x10], Code::BAD_OPTION, "If-Match"),
        (&[0x50], Code::BAD_OPTION, "If-None-Match"),
        (&[0xd0, 14], Code::BAD_OPTION, "Block1"),
        (&[0xd0, 10], Code::BAD_OPTION, "Block2"),
        (&[0xd1, 22, b'c'], Code::PROXYING_NOT_SUPPORTED, "Proxy-Uri"),
        (&[0xd1, 26, b'c'], Code::PROXYING_NOT_SUPPORTED, "Proxy-Scheme"),
        (&[0xe0, 0xfe, 0x00], Code::BAD_OPTION, "an unknown critical option"),
        (&[0xd1, 4, 50, 0x01, 50], Code::BAD_OPTION, "Accept twice"),
        (&[0xd3, 4, 0, 0, 50], Code::BAD_OPTION, "Accept too long"),
        (&[0x31, b'a', 0x01, b'b'], Code::BAD_OPTION, "Uri-Host twice"),
        (&[0x30], Code::BAD_OPTION, "Uri-Host empty"),
        (&[0x73, 0, 0, 1], Code::BAD_OPTION, "Uri-Port too long"),
        (&[0xb1, b'.'], bad_path, "a path with ."),
        (&[0xb2, b'.', b'.'], bad_path, "a path with .."),
        (&[0xb1, 0xff], bad_path, "a path that is not UTF-8"),
        (&[0xd1, 2, 0xff], Code::BAD_OPTION, "a query that is not UTF-8"),
        (&long, bad_path, "a path segment of 256 octets"),
    ] {
        let mut connection = open(StreamConfig::default());
        let octets = if body.len() > 200 {
            let mut octets = vec![0xd1, (body.len() - 13) as u8, Code::POST.octet(), 5];
            octets.extend_from_slice(body);
            octets
        } else {
            message(Code::POST, &[5], body)
        };
        connection.receive(&octets).unwrap();
        assert_eq!(events(&mut connection), [], "{what}");
        let answer = sent(&mut connection).remove(0);
        assert_eq!((answer.code, answer.token.as_slice()), (code, [5].as_slice()), "{what}");
        assert_eq!(connection.counters().requests_refused, 1);
    }
}

#[test]
fn an_unknown_method_is_answered_method_not_allowed() {
    let mut connection = open(StreamConfig::default());
    connection.receive(&message(Code::from_octet(0x08), &[5], &[])).unwrap();
    assert_eq!(sent(&mut connection)[0].code, Code::METHOD_NOT_ALLOWED);
}

#[test]
fn a_content_format_out_of_range_is_passed_over_because_it_is_elective() {
    let mut connection = open(StreamConfig::default());
    connection.receive(&message(Code::POST, &[], &[0xc3, 0, 0, 50])).unwrap();
    let Some(StreamEvent::Request { request }) = connection.poll_event() else { panic!("no request") };
    assert_eq!(request.content_format, None);
}

#[test]
fn a_response_with_an_unknown_critical_option_fails_its_exchange() {
    let mut connection = open(StreamConfig::default());
    let exchange = connection.request(Request::post("x")).unwrap();
    let token = sent(&mut connection).remove(0).token;
    connection.receive(&message(Code::CONTENT, &token, &[0xd0, 10])).unwrap();
    assert_eq!(events(&mut connection), [StreamEvent::Failed { exchange, failure: Failure::Unusable }]);
    assert_eq!(connection.requests_outstanding(), 0);
}

#[test]
fn more_options_than_allowed_are_refused_in_each_kind_of_message() {
    let config = limited(|limits| limits.options_max = 3);
    let four = [0x20, 0x00, 0x00, 0x00];
    let mut connection = open(config);
    connection.receive(&message(Code::POST, &[5], &[0xb0, 0, 0, 0])).unwrap();
    assert_eq!(sent(&mut connection)[0].code, Code::BAD_REQUEST);
    let exchange = connection.request(Request::post("x")).unwrap();
    let token = sent(&mut connection).remove(0).token;
    connection.receive(&message(Code::CHANGED, &token, &four)).unwrap();
    assert_eq!(events(&mut connection), [StreamEvent::Failed { exchange, failure: Failure::Unusable }]);
    let error = StreamError::Malformed("too many options in a signalling message");
    expect_abort(&mut connection, &message(Code::PING, &[], &four), error);
}

#[test]
fn requests_over_the_peers_limit_are_answered_too_many_and_served_again_once_one_is_answered() {
    let mut connection = open(limited(|limits| limits.peer_requests_outstanding_max = 2));
    for token in 1..=3 {
        connection.receive(&post(&[token])).unwrap();
    }
    let answer = sent(&mut connection).remove(0);
    assert_eq!((answer.code, answer.token), (Code::TOO_MANY_REQUESTS, vec![3]));
    assert_eq!(answer.options, [(14, vec![1])], "Max-Age says when to come back");
    assert_eq!(connection.counters().requests_over_limit, 1);
    let requests = events(&mut connection);
    let StreamEvent::Request { request } = &requests[0] else { panic!("{requests:?}") };
    connection.respond(request.exchange, Response::new(Code::CHANGED)).unwrap();
    connection.receive(&post(&[4])).unwrap();
    assert_eq!(events(&mut connection).len(), 1);
}

#[test]
fn our_requests_over_the_limit_are_refused_until_one_is_answered() {
    let mut connection = open(limited(|limits| limits.requests_outstanding_max = 1));
    let exchange = connection.request(Request::post("x")).unwrap();
    assert_eq!(connection.request(Request::post("x")), Err(StreamError::TooManyRequests));
    connection.cancel(exchange);
    assert!(connection.request(Request::post("x")).is_ok());
}

#[test]
fn pings_over_the_limits_are_refused_or_answered_without_custody() {
    let mut connection = open(limited(|limits| {
        limits.pings_outstanding_max = 1;
        limits.peer_pings_delayed_max = 1;
    }));
    connection.ping().unwrap();
    assert_eq!(connection.ping(), Err(StreamError::TooManyPings));
    sent(&mut connection);
    connection.receive(&post(&[1])).unwrap();
    connection.receive(&message(Code::PING, &[1], &[0x20])).unwrap();
    assert_eq!(sent(&mut connection), [], "the first waits");
    connection.receive(&message(Code::PING, &[2], &[0x20])).unwrap();
    let pong = sent(&mut connection).remove(0);
    assert_eq!((pong.token, pong.options), (vec![2], vec![]), "the second does not");
}

#[test]
fn messages_over_the_peers_size_are_refused_and_the_request_can_still_be_answered() {
    let mut connection = StreamConnection::new(StreamConfig::default());
    let large = vec![0; 1_152];
    let error = connection.request(Request::post("x").payload(large.as_slice())).unwrap_err();
    assert!(matches!(error, StreamError::MessageTooLargeForPeer { octets_max: 1_152, .. }), "{error}");
    assert!(!error.is_fatal());
    connection.receive(&csm()).unwrap();
    connection.receive(&post(&[1])).unwrap();
    let Some(StreamEvent::Request { request }) = connection.poll_event().and(connection.poll_event()) else {
        panic!("no request")
    };
    let error = connection.respond(request.exchange, Response::new(Code::CONTENT).with_payload(large)).unwrap_err();
    assert!(matches!(error, StreamError::MessageTooLargeForPeer { .. }), "{error}");
    assert_eq!(connection.respond(request.exchange, Response::new(Code::INTERNAL)), Ok(()));
}

#[test]
fn when_nothing_is_sent_our_messages_are_refused_and_a_peer_that_floods_is_cut_off() {
    let mut connection = open(limited(|limits| limits.transmit_octets_max = 40));
    connection.receive(&post(&[1])).unwrap();
    let Some(StreamEvent::Request { request }) = connection.poll_event() else { panic!("no request") };
    while connection.transmit_octets() < 40 {
        connection.request(Request::post("x")).unwrap();
    }
    assert_eq!(connection.request(Request::post("x")), Err(StreamError::TransmitFull));
    let answer = Response::new(Code::CHANGED);
    assert_eq!(connection.respond(request.exchange, &answer), Err(StreamError::TransmitFull));
    sent(&mut connection);
    assert_eq!(connection.respond(request.exchange, &answer), Ok(()), "the request still waited for its answer");
    sent(&mut connection);

    let pings: Vec<u8> = (0..=40).flat_map(|_| message(Code::PING, &[], &[])).collect();
    expect_abort(&mut connection, &pings, StreamError::PeerNotReading);
}

#[test]
fn a_peer_that_takes_next_to_nothing_still_gets_the_code_of_a_refusal() {
    let mut connection = open(StreamConfig::default());
    connection.receive(&message(Code::CSM, &[], &[0x21, 4])).unwrap();
    connection.receive(&message(Code::POST, &[1], &[0x90])).unwrap();
    let answer = sent(&mut connection).remove(0);
    assert_eq!((answer.code, answer.payload), (Code::BAD_OPTION, vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, in whatever pieces: no panic, a result that does not depend on the pieces, and bounded memory.
    #[test]
    fn arbitrary_octets_never_panic_and_cuts_make_no_difference(
        octets in prop::collection::vec(prop_oneof![3 => 0_u8..16, 1 => any::<u8>()], 0..400),
        after_csm in any::<bool>(),
        cut in 1_usize..40,
    ) {
        let mut whole = StreamConnection::new(StreamConfig::default());
        let mut cuts = StreamConnection::new(StreamConfig::default());
        if after_csm {
            whole.receive(&csm()).unwrap();
            cuts.receive(&csm()).unwrap();
        }
        let expected = whole.receive(&octets);
        let found = octets.chunks(cut).try_for_each(|piece| match cuts.receive(piece) {
            // After the peer's Abort the rest of a piece is passed over, but a further piece is an error.
            Err(StreamError::Closed) => Ok(()),
            result => result,
        });
        prop_assert_eq!(found, expected);
        prop_assert_eq!(events(&mut cuts), events(&mut whole));
        prop_assert_eq!(cuts.poll_transmit(), whole.poll_transmit());
    }
}
