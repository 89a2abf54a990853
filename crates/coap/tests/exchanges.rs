//! What the connection does when both sides keep to the rules.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod wire;

use coap::{Code, Release, Request, Response, StreamConfig, StreamConnection, StreamError, StreamEvent};
use wire::{csm, events, message, open, post, sent};

#[test]
fn the_csm_is_the_first_thing_sent_and_tells_our_size() {
    let config = StreamConfig { max_message_size_own: 70_000, ..StreamConfig::default() };
    let mut connection = StreamConnection::new(config);
    connection.request(Request::get("x")).unwrap();
    let sent = sent(&mut connection);
    assert_eq!(sent[0].code, Code::CSM);
    assert_eq!(sent[0].options, [(2, vec![0x01, 0x11, 0x70])]);
    assert_eq!(sent[1].code, Code::GET);
}

#[test]
fn a_request_goes_out_with_its_options_in_order_and_its_response_comes_back_to_it() {
    let mut connection = open(StreamConfig::default());
    let exchange = connection
        .request(Request::post("/su-uc/v1").query(&["a=1", "b"]).content_format(50).accept(50).payload(b"{}".to_vec()))
        .unwrap();
    let request = sent(&mut connection).remove(0);
    assert_eq!(request.code, Code::POST);
    assert_eq!(
        request.options,
        [
            (11, b"su-uc".to_vec()),
            (11, b"v1".to_vec()),
            (12, vec![50]),
            (15, b"a=1".to_vec()),
            (15, b"b".to_vec()),
            (17, vec![50])
        ]
    );
    assert_eq!(request.payload, b"{}");
    // 4.29, Content-Format 50, Max-Age 10, payload.
    connection.receive(&message(Code::TOO_MANY_REQUESTS, &request.token, b"\xc1\x32\x21\x0a\xffno")).unwrap();
    let response = Response::new(Code::TOO_MANY_REQUESTS).with_content_format(50).with_max_age(10).with_payload(*b"no");
    assert_eq!(events(&mut connection), [StreamEvent::Response { exchange, response }]);
    assert!(connection.is_settled());
}

#[test]
fn responses_find_their_requests_in_any_order() {
    let mut connection = open(StreamConfig::default());
    let first = connection.request(Request::post("x")).unwrap();
    let second = connection.request(Request::post("x")).unwrap();
    let tokens: Vec<_> = sent(&mut connection).into_iter().map(|message| message.token).collect();
    assert_ne!(tokens[0], tokens[1]);
    for (token, exchange) in [(&tokens[1], second), (&tokens[0], first)] {
        connection.receive(&message(Code::CHANGED, token, &[])).unwrap();
        let response = Response::new(Code::CHANGED);
        assert_eq!(connection.poll_event(), Some(StreamEvent::Response { exchange, response }));
    }
}

#[test]
fn a_request_of_the_peer_is_handed_over_and_answered_with_its_own_token() {
    let mut connection = open(StreamConfig::default());
    // Uri-Host, Uri-Port, Uri-Path, Content-Format, Uri-Query, Accept, No-Response (elective), payload.
    let body = b"\x31h\x42\x16\x34\x47msgin5g\x11\x32\x31q\x21\x32\xd0\xe4\xffhello";
    connection.receive(&message(Code::POST, &[1, 2, 3, 4, 5, 6, 7, 8], body)).unwrap();
    let Some(StreamEvent::Request { request }) = connection.poll_event() else { panic!("no request") };
    assert_eq!(request.method, Code::POST);
    assert_eq!(request.path, ["msgin5g"]);
    assert_eq!(request.query, ["q"]);
    assert_eq!((request.content_format, request.accept), (Some(50), Some(50)));
    assert_eq!(request.payload, b"hello");
    connection.respond(request.exchange, Response::new(Code::CREATED)).unwrap();
    let answer = sent(&mut connection).remove(0);
    assert_eq!((answer.code, answer.token), (Code::CREATED, vec![1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!(
        connection.respond(request.exchange, Response::new(Code::CREATED)),
        Err(StreamError::UnknownExchange),
        "one request, one answer"
    );
}

#[test]
fn a_cancelled_request_ignores_its_late_response() {
    let mut connection = open(StreamConfig::default());
    let exchange = connection.request(Request::post("x")).unwrap();
    let token = sent(&mut connection).remove(0).token;
    connection.cancel(exchange);
    connection.cancel(exchange);
    assert_eq!(connection.requests_outstanding(), 0);
    connection.receive(&message(Code::CHANGED, &token, &[])).unwrap();
    assert_eq!(events(&mut connection), []);
    assert_eq!(connection.counters().responses_unmatched, 1);
}

#[test]
fn responses_and_pongs_to_nothing_asked_are_ignored_and_counted() {
    let mut connection = open(StreamConfig::default());
    connection.receive(&message(Code::CHANGED, &[9, 9, 9, 9], &[])).unwrap();
    connection.receive(&message(Code::CHANGED, &[9], &[])).unwrap();
    connection.receive(&message(Code::PONG, &[9, 9, 9, 9], &[])).unwrap();
    assert_eq!(events(&mut connection), []);
    assert_eq!(connection.counters().responses_unmatched, 3);
    assert!(!connection.is_closed());
}

#[test]
fn empty_messages_are_ignored_even_before_the_csm() {
    let mut connection = StreamConnection::new(StreamConfig::default());
    connection.receive(&[0, 0, 0, 0]).unwrap();
    connection.receive(&csm()).unwrap();
    connection.receive(&[0, 0]).unwrap();
    assert_eq!(events(&mut connection).len(), 1);
    assert_eq!(connection.counters().empty_messages, 3);
}

#[test]
fn a_ping_is_answered_at_once_with_its_token() {
    let mut connection = open(StreamConfig::default());
    connection.receive(&message(Code::PING, &[7, 7], &[])).unwrap();
    let pong = sent(&mut connection).remove(0);
    assert_eq!((pong.code, pong.token, pong.options), (Code::PONG, vec![7, 7], vec![]));
}

#[test]
fn our_ping_is_matched_with_its_pong() {
    let mut connection = open(StreamConfig::default());
    connection.ping().unwrap();
    connection.ping_with_custody().unwrap();
    let pings = sent(&mut connection);
    assert_eq!(pings[0].options, []);
    assert_eq!(pings[1].options, [(2, vec![])]);
    connection.receive(&message(Code::PONG, &pings[1].token, &[0x20])).unwrap();
    connection.receive(&message(Code::PONG, &pings[0].token, &[])).unwrap();
    assert_eq!(events(&mut connection), [StreamEvent::Pong { custody: true }, StreamEvent::Pong { custody: false }]);
}

#[test]
fn a_pong_without_a_token_answers_the_oldest_ping() {
    let mut connection = open(StreamConfig::default());
    connection.ping().unwrap();
    connection.receive(&message(Code::PONG, &[], &[])).unwrap();
    connection.receive(&message(Code::PONG, &[], &[])).unwrap();
    assert_eq!(events(&mut connection), [StreamEvent::Pong { custody: false }]);
    assert_eq!(connection.counters().responses_unmatched, 1);
}

#[test]
fn a_ping_with_custody_waits_until_what_came_before_it_is_handed_over_and_answered() {
    let mut connection = open(StreamConfig::default());
    let mut octets = post(&[1]);
    octets.extend(post(&[2]));
    octets.extend(message(Code::PING, &[7], &[0x20]));
    octets.extend(post(&[3]));
    connection.receive(&octets).unwrap();
    assert_eq!(sent(&mut connection), []);
    let requests: Vec<_> = events(&mut connection)
        .into_iter()
        .map(|event| match event {
            StreamEvent::Request { request } => request.exchange,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent(&mut connection), []);
    let mut codes_after_answer = |index: usize| -> Vec<Code> {
        connection.respond(requests[index], Response::new(Code::CHANGED)).unwrap();
        sent(&mut connection).iter().map(|message| message.code).collect()
    };
    assert_eq!(codes_after_answer(0), [Code::CHANGED]);
    assert_eq!(codes_after_answer(2), [Code::CHANGED], "what came after the ping does not count");
    assert_eq!(codes_after_answer(1), [Code::CHANGED, Code::PONG]);
}

#[test]
fn a_custody_pong_says_so_and_waits_for_nothing_when_nothing_is_under_way() {
    let mut connection = open(StreamConfig::default());
    connection.receive(&message(Code::PING, &[7], &[0x20])).unwrap();
    assert_eq!(sent(&mut connection)[0].options, [(2, vec![])]);
}

#[test]
fn a_later_csm_changes_what_the_peer_takes_without_another_event() {
    let mut connection = open(StreamConfig::default());
    assert_eq!(connection.peer_max_message_size(), 1_152);
    connection.receive(&message(Code::CSM, &[], &[0x22, 0x10, 0x00, 0x20])).unwrap();
    assert_eq!(connection.peer_max_message_size(), 4_096);
    assert_eq!(events(&mut connection), []);
}

#[test]
fn unknown_elective_options_are_ignored_everywhere() {
    // Delta 40 with one octet: option 40, even, in each kind of message; in a signal after nothing else.
    let elective = [0xd1, 27, 0];
    let mut connection = StreamConnection::new(StreamConfig::default());
    connection.receive(&message(Code::CSM, &[], &elective)).unwrap();
    connection.receive(&message(Code::PING, &[], &elective)).unwrap();
    connection.receive(&message(Code::POST, &[], &elective)).unwrap();
    let exchange = connection.request(Request::post("x")).unwrap();
    let token = sent(&mut connection).pop().unwrap().token;
    connection.receive(&message(Code::CHANGED, &token, &elective)).unwrap();
    let events = events(&mut connection);
    assert!(matches!(events[1], StreamEvent::Request { .. }), "{events:?}");
    assert_eq!(events[2], StreamEvent::Response { exchange, response: Response::new(Code::CHANGED) });
}

#[test]
fn a_release_of_the_peer_lets_what_is_under_way_finish_and_nothing_new_begin() {
    let mut connection = open(StreamConfig::default());
    let exchange = connection.request(Request::post("x")).unwrap();
    let token = sent(&mut connection).remove(0).token;
    connection.receive(&post(&[5])).unwrap();
    // Alternative-Address, Hold-Off 10.
    connection.receive(&message(Code::RELEASE, &[], b"\x29other:123\x21\x0a")).unwrap();
    connection.receive(&message(Code::RELEASE, &[], &[])).unwrap();
    let events = events(&mut connection);
    let StreamEvent::Request { request } = &events[0] else { panic!("{events:?}") };
    let release = Release { alternative_addresses: vec!["other:123".into()], hold_off_seconds: Some(10) };
    assert_eq!(events[1..], [StreamEvent::Released { release }], "told once");
    assert_eq!(connection.request(Request::post("x")), Err(StreamError::Released));
    assert!(!connection.is_settled());
    connection.respond(request.exchange, Response::new(Code::CHANGED)).unwrap();
    connection.receive(&message(Code::CHANGED, &token, &[])).unwrap();
    assert!(
        matches!(connection.poll_event(), Some(StreamEvent::Response { exchange: answered, .. }) if answered == exchange)
    );
    assert_eq!(sent(&mut connection).len(), 1);
    assert!(connection.is_settled());
}

#[test]
fn our_release_says_where_to_go_and_ends_our_requests_but_not_the_peers() {
    let mut connection = open(StreamConfig::default());
    let release = Release { alternative_addresses: vec!["a:1".into(), "b:2".into()], hold_off_seconds: Some(300) };
    connection.release(&release).unwrap();
    let message = sent(&mut connection).remove(0);
    assert_eq!(message.code, Code::RELEASE);
    assert_eq!(message.options, [(2, b"a:1".to_vec()), (2, b"b:2".to_vec()), (4, vec![1, 44])]);
    assert_eq!(connection.request(Request::post("x")), Err(StreamError::Released));
    connection.receive(&post(&[1])).unwrap();
    let Some(StreamEvent::Request { request }) = connection.poll_event() else { panic!("no request") };
    assert_eq!(connection.respond(request.exchange, Response::new(Code::CHANGED)), Ok(()));
    for bad in [
        Release { alternative_addresses: vec![String::new()], hold_off_seconds: None },
        Release { alternative_addresses: vec![], hold_off_seconds: Some(1 << 24) },
    ] {
        assert_eq!(connection.release(&bad), Err(StreamError::InvalidOption));
    }
}

#[test]
fn our_abort_carries_its_words_and_closes() {
    let mut connection = open(StreamConfig::default());
    connection.request(Request::post("x")).unwrap();
    sent(&mut connection);
    connection.abort("key expired");
    connection.abort("twice");
    let messages = sent(&mut connection);
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].code, messages[0].payload.as_slice()), (Code::ABORT, b"key expired".as_slice()));
    assert!(connection.is_closed() && connection.is_settled());
    assert_eq!(connection.request(Request::post("x")), Err(StreamError::Closed));
    assert_eq!(connection.ping(), Err(StreamError::Closed));
    assert_eq!(connection.release(&Release::default()), Err(StreamError::Closed));
    assert_eq!(connection.receive(&csm()), Err(StreamError::Closed));
}

#[test]
fn an_abort_of_the_peer_is_told_with_its_reason_and_closes() {
    let mut connection = open(StreamConfig::default());
    connection.receive(&post(&[1])).unwrap();
    let mut octets = message(Code::ABORT, &[], b"\x21\x07\xffbad\n\x00csm");
    octets.extend(post(&[2]));
    connection.receive(&octets).unwrap();
    let events = events(&mut connection);
    assert_eq!(events.len(), 2, "what follows an Abort is not read: {events:?}");
    assert_eq!(events[1], StreamEvent::Aborted { bad_csm_option: Some(7), diagnostic: "badcsm".into() });
    assert!(connection.is_closed());
    assert_eq!(connection.poll_transmit(), None);
}

#[test]
fn calls_with_what_does_not_fit_into_an_option_or_code_are_refused() {
    let mut connection = open(StreamConfig::default());
    let long = "x".repeat(256);
    for bad in [Request::post(&long), Request::post("a/../b"), Request::post("."), Request::get("x").query(&[&long])] {
        assert_eq!(connection.request(bad), Err(StreamError::InvalidOption));
    }
    let signal = Request::with_method(Code::PING, "x");
    assert_eq!(connection.request(signal), Err(StreamError::InvalidCode(Code::PING)));
    connection.receive(&post(&[1])).unwrap();
    let Some(StreamEvent::Request { request }) = connection.poll_event() else { panic!("no request") };
    let wrong = connection.respond(request.exchange, Response::new(Code::POST));
    assert_eq!(wrong, Err(StreamError::InvalidCode(Code::POST)));
    assert_eq!(connection.poll_transmit(), None);
}

#[test]
fn debug_output_does_not_show_payloads() {
    let mut connection = open(StreamConfig::default());
    connection.receive(&message(Code::POST, &[], b"\xffsecret")).unwrap();
    let shown = format!("{:?}", connection.poll_event());
    let response = format!("{:?}", Response::new(Code::CONTENT).with_payload(*b"secret"));
    let request = format!("{:?}", Request::post("x").payload(b"secret".to_vec()));
    for shown in [shown, response, request] {
        assert!(shown.contains("payload_octets: 6") && !shown.contains("115"), "{shown}");
    }
}
