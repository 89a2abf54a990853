//! Observations (RFC 7641) over a stream (RFC 8323 7), on both sides.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod wire;

use coap::{
    Code, ExchangeId, Observe, Release, Request, Response, StreamConfig, StreamConnection, StreamError, StreamEvent,
    StreamLimits,
};
use proptest::prelude::*;
use wire::{csm, events, message, open, sent};

/// Observe 0, Uri-Path `x`; Observe 1.
const REGISTER: &[u8] = b"\x60\x51x";
const DEREGISTER: &[u8] = b"\x61\x01\x51x";

fn server(peer_observations_max: usize) -> StreamConnection {
    let limits = StreamLimits { peer_observations_max, ..StreamLimits::default() };
    open(StreamConfig { limits, ..StreamConfig::default() })
}

fn content(text: &str) -> Response {
    Response::new(Code::CONTENT).with_content_format(41).with_payload(text)
}

/// A GET of the peer, as the application sees it.
fn asked(connection: &mut StreamConnection, token: &[u8], body: &[u8]) -> Request {
    connection.receive(&message(Code::GET, token, body)).unwrap();
    match connection.poll_event() {
        Some(StreamEvent::Request { request }) => request,
        other => panic!("no request but {other:?}"),
    }
}

fn observed(connection: &mut StreamConnection, token: &[u8]) -> ExchangeId {
    let exchange = asked(connection, token, REGISTER).exchange;
    connection.respond(exchange, content("1").with_observe()).unwrap();
    exchange
}

#[test]
fn a_registration_is_answered_and_notified_with_one_token_until_it_is_cancelled() {
    let mut connection = server(4);
    let request = asked(&mut connection, &[7], REGISTER);
    assert_eq!(request.observe, Some(Observe::Register));
    assert!(!connection.is_observed(request.exchange), "not before it is answered");
    connection.respond(request.exchange, content("1").with_observe()).unwrap();
    connection.notify(request.exchange, content("2")).unwrap();
    let messages = sent(&mut connection);
    assert_eq!(messages.len(), 2);
    for (message, text) in messages.iter().zip(["1", "2"]) {
        assert_eq!((message.code, message.token.as_slice()), (Code::CONTENT, &[7][..]));
        assert_eq!(message.options, [(6, vec![]), (12, vec![41])], "Observe without value, Content-Format");
        assert_eq!(message.payload, text.as_bytes());
    }
    assert!(connection.is_observed(request.exchange) && connection.is_settled());

    connection.receive(&message(Code::GET, &[7], DEREGISTER)).unwrap();
    let events = events(&mut connection);
    assert_eq!(events[0], StreamEvent::ObservationEnded { exchange: request.exchange });
    let StreamEvent::Request { request: last } = &events[1] else { panic!("{events:?}") };
    assert_eq!(last.observe, Some(Observe::Deregister));
    connection.respond(last.exchange, content("2").with_observe()).unwrap();
    assert_eq!(sent(&mut connection)[0].options, [(12, vec![41])], "the last answer has no Observe");
    assert_eq!(connection.notify(request.exchange, content("3")), Err(StreamError::UnknownExchange));
    assert_eq!(connection.notify(last.exchange, content("3")), Err(StreamError::UnknownExchange));
}

#[test]
fn what_was_not_asked_for_not_granted_or_not_answered_with_success_is_not_observed() {
    let mut connection = server(4);
    let plain = asked(&mut connection, &[1], b"\xb1x");
    connection.respond(plain.exchange, content("").with_observe()).unwrap();
    let not_granted = asked(&mut connection, &[2], REGISTER);
    connection.respond(not_granted.exchange, content("")).unwrap();
    let refused = asked(&mut connection, &[3], REGISTER);
    connection.respond(refused.exchange, Response::new(Code::FORBIDDEN).with_observe()).unwrap();
    for request in [plain, not_granted, refused] {
        assert!(!connection.is_observed(request.exchange));
    }
    assert!(sent(&mut connection).iter().all(|message| message.options.iter().all(|(number, _)| *number != 6)));
    // A POST does not observe; a value that is none of the two is passed over.
    connection.receive(&message(Code::POST, &[4], REGISTER)).unwrap();
    connection.receive(&message(Code::GET, &[5], b"\x61\x02\x51x")).unwrap();
    connection.receive(&message(Code::GET, &[6], b"\x64\x00\x00\x00\x01\x51x")).unwrap();
    for event in events(&mut connection) {
        assert!(matches!(event, StreamEvent::Request { request } if request.observe.is_none()));
    }
}

#[test]
fn an_observation_over_the_limit_is_answered_as_any_get() {
    let mut connection = server(2);
    let first = observed(&mut connection, &[1]);
    observed(&mut connection, &[2]);
    let third = observed(&mut connection, &[3]);
    assert!(!connection.is_observed(third));
    assert_eq!(sent(&mut connection)[2].options, [(12, vec![41])]);
    // The same token is the same place: registering anew takes no further one.
    connection.receive(&message(Code::GET, &[1], REGISTER)).unwrap();
    let events = events(&mut connection);
    assert_eq!(events[0], StreamEvent::ObservationEnded { exchange: first });
    let StreamEvent::Request { request } = &events[1] else { panic!("{events:?}") };
    connection.respond(request.exchange, content("").with_observe()).unwrap();
    assert!(connection.is_observed(request.exchange) && !connection.is_observed(first));
    let mut none = server(0);
    let exchange = observed(&mut none, &[1]);
    assert!(!none.is_observed(exchange), "not served unless configured");
}

#[test]
fn one_token_never_names_two_observations() {
    let mut connection = server(4);
    connection.receive(&message(Code::GET, &[1], REGISTER)).unwrap();
    connection.receive(&message(Code::GET, &[1], REGISTER)).unwrap();
    let exchanges: Vec<ExchangeId> = events(&mut connection)
        .into_iter()
        .map(|event| match event {
            StreamEvent::Request { request } => request.exchange,
            other => panic!("{other:?}"),
        })
        .collect();
    for exchange in &exchanges {
        connection.respond(*exchange, content("").with_observe()).unwrap();
    }
    assert_eq!(events(&mut connection), [StreamEvent::ObservationEnded { exchange: exchanges[0] }]);
    assert!(!connection.is_observed(exchanges[0]) && connection.is_observed(exchanges[1]));
}

#[test]
fn a_notification_that_is_no_success_is_the_last_and_one_that_finds_no_room_is_not() {
    let mut connection = server(4);
    let exchange = observed(&mut connection, &[1]);
    sent(&mut connection);
    let large = content(&"x".repeat(1_200));
    assert!(matches!(connection.notify(exchange, large), Err(StreamError::MessageTooLargeForPeer { .. })));
    assert!(connection.is_observed(exchange));
    assert_eq!(
        connection.notify(exchange, Response::new(Code::GET)),
        Err(StreamError::InvalidCode(Code::GET)),
        "a request's code"
    );
    connection.notify(exchange, Response::new(Code::NOT_FOUND)).unwrap();
    let last = sent(&mut connection).remove(0);
    assert_eq!((last.code, last.options.len()), (Code::NOT_FOUND, 0));
    assert_eq!(connection.notify(exchange, content("")), Err(StreamError::UnknownExchange));
}

#[test]
fn a_released_or_closed_connection_notifies_nobody() {
    let mut connection = server(4);
    let exchange = observed(&mut connection, &[1]);
    connection.release(&Release::default()).unwrap();
    assert_eq!(connection.notify(exchange, content("")), Err(StreamError::Released));
    connection.abort("over");
    assert_eq!(connection.notify(exchange, content("")), Err(StreamError::Closed));
    assert!(!connection.is_observed(exchange));
}

#[test]
fn our_observation_brings_every_response_to_one_exchange_until_one_lacks_observe() {
    let mut connection = open(StreamConfig::default());
    let exchange = connection.request(Request::get("x").accept(41).observe(Observe::Register)).unwrap();
    let request = sent(&mut connection).remove(0);
    assert_eq!(request.options, [(6, vec![]), (11, b"x".to_vec()), (17, vec![41])]);
    // The value of Observe does not count, not even one that goes back (RFC 8323 7.1).
    for (body, observe) in
        [(&b"\x61\x09\xffa"[..], true), (b"\x60\xffb", true), (b"\x61\x03\xffc", true), (b"\xffd", false)]
    {
        connection.receive(&message(Code::CONTENT, &request.token, body)).unwrap();
        let Some(StreamEvent::Response { exchange: answered, response }) = connection.poll_event() else { panic!() };
        assert_eq!((answered, response.observe), (exchange, observe));
        assert_eq!(connection.observations(), usize::from(observe));
        assert!(connection.is_settled());
    }
    connection.receive(&message(Code::CONTENT, &request.token, b"\x60\xffe")).unwrap();
    assert_eq!(connection.poll_event(), None, "nothing after the end");
    assert_eq!(connection.counters().responses_unmatched, 1);
}

#[test]
fn an_error_ends_our_observation_and_one_we_did_not_ask_for_is_none() {
    let mut connection = open(StreamConfig::default());
    connection.request(Request::get("x").observe(Observe::Register)).unwrap();
    let token = sent(&mut connection).remove(0).token;
    connection.receive(&message(Code::CONTENT, &token, b"\x60")).unwrap();
    connection.receive(&message(Code::NOT_FOUND, &token, b"\x60")).unwrap();
    let events = events(&mut connection);
    assert!(matches!(&events[1], StreamEvent::Response { response, .. } if !response.observe), "{events:?}");
    assert_eq!(connection.observations(), 0);

    connection.request(Request::get("x")).unwrap();
    let token = sent(&mut connection).remove(0).token;
    connection.receive(&message(Code::CONTENT, &token, b"\x60")).unwrap();
    let Some(StreamEvent::Response { response, .. }) = connection.poll_event() else { panic!() };
    assert!(!response.observe && connection.observations() == 0);
}

#[test]
fn our_observation_is_stopped_with_its_own_token_or_forgotten() {
    let mut connection = open(StreamConfig::default());
    let get = || Request::get("x").observe(Observe::Register);
    let exchange = connection.request(get()).unwrap();
    assert_eq!(connection.stop_observing(exchange, get()), Err(StreamError::UnknownExchange), "it does not stand yet");
    let token = sent(&mut connection).remove(0).token;
    connection.receive(&message(Code::CONTENT, &token, b"\x60")).unwrap();
    events(&mut connection);
    connection.stop_observing(exchange, get()).unwrap();
    let stop = sent(&mut connection).remove(0);
    assert_eq!((stop.code, &stop.token), (Code::GET, &token));
    assert_eq!(stop.options[0], (6, vec![1]));
    connection.receive(&message(Code::CONTENT, &token, b"\x60\xffunder way")).unwrap();
    connection.receive(&message(Code::CONTENT, &token, b"\xfflast")).unwrap();
    let told: Vec<bool> = events(&mut connection)
        .into_iter()
        .map(|event| matches!(event, StreamEvent::Response { response, .. } if response.observe))
        .collect();
    assert_eq!(told, [true, false]);

    let exchange = connection.request(get()).unwrap();
    let token = sent(&mut connection).remove(0).token;
    connection.receive(&message(Code::CONTENT, &token, b"\x60")).unwrap();
    events(&mut connection);
    connection.cancel(exchange);
    connection.receive(&message(Code::CONTENT, &token, b"\x60")).unwrap();
    assert_eq!(connection.poll_event(), None);
}

#[test]
fn observations_of_ours_over_the_limit_are_plain_answers() {
    let limits = StreamLimits { observations_max: 1, ..StreamLimits::default() };
    let mut connection = open(StreamConfig { limits, ..StreamConfig::default() });
    for observe in [true, false] {
        connection.request(Request::get("x").observe(Observe::Register)).unwrap();
        let token = sent(&mut connection).remove(0).token;
        connection.receive(&message(Code::CONTENT, &token, b"\x60")).unwrap();
        let Some(StreamEvent::Response { response, .. }) = connection.poll_event() else { panic!() };
        assert_eq!(response.observe, observe);
    }
    assert_eq!(connection.observations(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a peer registers, deregisters and repeats: never more observations than allowed, none named twice, and
    /// each that ends is told.
    #[test]
    fn observations_of_a_peer_stay_within_their_limit(
        steps in proptest::collection::vec((0_u8..6, any::<bool>(), any::<bool>()), 1..60),
    ) {
        let mut connection = server(3);
        let mut alive: Vec<ExchangeId> = Vec::new();
        for (token, register, observe) in steps {
            let body = if register { REGISTER } else { DEREGISTER };
            connection.receive(&message(Code::GET, &[token], body)).unwrap();
            while let Some(event) = connection.poll_event() {
                match event {
                    StreamEvent::Request { request } => {
                        let response = content("");
                        let response = if observe { response.with_observe() } else { response };
                        connection.respond(request.exchange, response).unwrap();
                        if connection.is_observed(request.exchange) {
                            alive.push(request.exchange);
                        }
                    }
                    StreamEvent::ObservationEnded { exchange } => {
                        let before = alive.len();
                        alive.retain(|alive| *alive != exchange);
                        prop_assert_eq!(alive.len() + 1, before);
                    }
                    other => panic!("{other:?}"),
                }
            }
            prop_assert!(alive.len() <= 3);
            for exchange in &alive {
                prop_assert!(connection.is_observed(*exchange));
            }
        }
    }

    /// Our side takes any sequence of responses with and without Observe.
    #[test]
    fn our_observation_takes_any_responses(codes in proptest::collection::vec((0_u8..8, 0_u8..32, any::<bool>()), 0..40)) {
        let mut connection = StreamConnection::new(StreamConfig::default());
        connection.receive(&csm()).unwrap();
        connection.request(Request::get("x").observe(Observe::Register)).unwrap();
        let token = sent(&mut connection).remove(1).token;
        for (class, detail, observe) in codes {
            let body: &[u8] = if observe { b"\x60" } else { &[] };
            let code = Code::new(class, detail);
            if matches!(class, 2 | 4 | 5) {
                connection.receive(&message(code, &token, body)).unwrap();
            }
        }
        events(&mut connection);
        prop_assert!(connection.observations() <= 1);
    }
}
