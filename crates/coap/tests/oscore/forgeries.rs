//! Datagrams of somebody on the path, who has no keys: they are remembered nowhere, and end nothing.

use std::sync::Arc;
use std::time::Duration;

use coap::oscore::{OscoreConnection, OscoreError, Provenance};
use coap::{
    Connection, ConnectionError, ConnectionEvent, DatagramConfig, DatagramConnection, Failure, Request, Response,
    Unbound,
};

use super::connection::{Net, PERFECT, ask};
use super::*;

/// More than a connection remembers.
const MANY: u16 = 1_100;

/// ACK_TIMEOUT * ACK_RANDOM_FACTOR.
const WAIT: Duration = Duration::from_secs(3);

/// How long a question is asked, at most, to which there is no answer at all: MAX_TRANSMIT_WAIT.
const SILENCE: Duration = Duration::from_secs(93);

fn message_id(datagram: &[u8]) -> u16 {
    u16::from_be_bytes([datagram[2], datagram[3]])
}

fn under(datagram: &[u8], message_id: u16) -> Vec<u8> {
    let mut datagram = datagram.to_vec();
    datagram[2..4].copy_from_slice(&message_id.to_be_bytes());
    datagram
}

/// A network on which one request has been answered, and the datagram of it.
fn answered(net: &mut Net) -> Vec<u8> {
    ask(net, 0, b"first");
    assert_eq!(net.run_until_answered(b"!"), b"first!");
    net.sent.iter().find(|(from, _)| *from == 0).unwrap().1.clone()
}

/// The server still knows that request, and takes the next.
fn assert_nothing_is_forgotten(net: &mut Net, first: &[u8]) {
    let now = net.now;
    net.sides[1].receive(first, now).unwrap();
    let copy = net.sides[1].poll_transmit().unwrap();
    assert!(Unbound::parse(&copy).unwrap().is_protected(), "a copy gets its answer");
    ask(net, 0, b"second");
    assert_eq!(net.run_until_answered(b"!"), b"second!");
    assert_eq!(net.sides[1].counters().requests_verified, 2);
}

/// The server is given this under every Message ID that the client uses next, and answers `refusal` to each.
fn try_under_many(net: &mut Net, forged: &[u8], first: &[u8], refusal: Code) {
    for number in 1..=MANY {
        let forged = under(forged, message_id(first).wrapping_add(number));
        let now = net.now;
        net.sides[1].receive(&forged, now).unwrap();
        let answer = net.sides[1].poll_transmit().unwrap();
        assert!(answer.len() <= 3 * forged.len());
        assert_eq!(Unbound::parse(&answer).unwrap().message().code(), refusal);
    }
}

#[test]
fn a_used_partial_iv_with_another_ciphertext_is_no_replay_and_leaves_no_trace() {
    let mut net = Net::new(PERFECT, 20);
    let first = answered(&mut net);
    let mut forged = first.clone();
    *forged.last_mut().unwrap() ^= 1;
    let provenance = net.sides[1].provenance(&forged, net.now);
    assert_eq!(provenance, Provenance::Forged(OscoreError::DecryptionFailed), "under the same Message ID, too");
    try_under_many(&mut net, &forged, &first, Code::BAD_REQUEST);
    assert_eq!(net.sides[1].counters().requests_replayed, 0);
    assert_nothing_is_forgotten(&mut net, &first);
}

#[test]
fn a_recorded_request_under_other_message_ids_leaves_no_trace() {
    let mut net = Net::new(PERFECT, 21);
    let first = answered(&mut net);
    assert_eq!(net.sides[1].provenance(&first, net.now), Provenance::Copy);
    let other = under(&first, message_id(&first).wrapping_add(1));
    assert_eq!(net.sides[1].provenance(&other, net.now), Provenance::Forged(OscoreError::Replay));
    try_under_many(&mut net, &first, &first, Code::UNAUTHORIZED);
    assert_eq!(net.sides[1].counters().requests_replayed, u32::from(MANY));
    assert_nothing_is_forgotten(&mut net, &first);
}

#[test]
fn responses_that_answer_nothing_take_no_message_id() {
    let mut net = Net::new(PERFECT, 22);
    let first = answered(&mut net);
    for number in 1..=MANY {
        let [high, low] = message_id(&first).wrapping_add(number).to_be_bytes();
        // Confirmable 2.04 under a token that nobody used, then one that asks for no acknowledgement.
        for (header, is_rejected) in [(0x44, true), (0x54, false)] {
            let now = net.now;
            net.sides[1].receive(&[header, 0x44, high, low, 1, 2, 3, 4], now).unwrap();
            let reset = net.sides[1].poll_transmit();
            assert_eq!(reset, is_rejected.then(|| vec![0x70, 0, high, low]));
        }
    }
    assert_nothing_is_forgotten(&mut net, &first);
}

#[test]
fn blocks_cut_outside_are_refused_where_blocks_are_cut_inside() {
    let mut net = Net::new(PERFECT, 23).with_inner_blocks();
    let first = answered(&mut net);
    let asked = Unbound::parse(&first).unwrap();
    let option = asked.message().option(OSCORE).unwrap();
    // Block1: number 0, more to come, 64 octets.
    let block = message(Code::POST, &[(OSCORE, option), (27, &[0x0a])], &[7; 64]);
    let forged = [&[0x40, 2, 0, 0][..], block.body()].concat();
    assert!(matches!(
        net.sides[1].provenance(&forged, net.now),
        Provenance::Forged(OscoreError::NotDecoded("Block option outside"))
    ));
    try_under_many(&mut net, &forged, &first, Code::BAD_OPTION);
    assert_nothing_is_forgotten(&mut net, &first);
}

#[test]
fn what_is_added_outside_is_taken_off_what_verifies() {
    let mut net = Net::new(PERFECT, 24);
    answered(&mut net);
    ask(&mut net, 0, b"second");
    let asked = net.sides[0].poll_transmit().unwrap();
    let now = net.now;
    // A critical option that nobody knows, before OSCORE and after the token; a method that nobody knows.
    let mut altered = [&asked[..8], &[0x10], &[asked[8] - 0x10], &asked[9..]].concat();
    altered[1] = 0x1f;
    net.sides[1].receive(&altered, now).unwrap();
    let Some(ConnectionEvent::Request { request }) = net.sides[1].poll_event() else { panic!() };
    assert_eq!(request.payload, b"second");
    net.sides[1].respond(request.exchange, &Response::new(Code::CHANGED), now).unwrap();
    let answer = net.sides[1].poll_transmit().unwrap();
    let altered = [&answer[..8], &[0x10], &[answer[8] - 0x10], &answer[9..]].concat();
    net.sides[0].receive(&altered, now).unwrap();
    assert!(matches!(net.sides[0].poll_event(), Some(ConnectionEvent::Response { .. })));
}

#[test]
fn what_verifies_and_is_new_is_no_copy_whatever_had_its_message_id() {
    let mut net = Net::new(PERFECT, 25);
    let first = answered(&mut net);
    ask(&mut net, 0, b"second");
    let second = under(&net.sides[0].poll_transmit().unwrap(), message_id(&first));
    let now = net.now;
    net.sides[1].receive(&second, now).unwrap();
    assert!(
        matches!(net.sides[1].poll_event(), Some(ConnectionEvent::Request { request }) if request.payload == b"second")
    );
}

/// Answers to that request of somebody without keys.
fn forged_answers(asked: &[u8]) -> [Vec<u8>; 4] {
    let (header, token) = (&asked[2..4], &asked[4..8]);
    [
        // 4.01 along with the acknowledgement, and in a message of its own.
        [&[0x64, 0x81][..], header, token].concat(),
        [&[0x44, 0x81, 0x77, 0x77][..], token].concat(),
        // 2.04 with a critical option that nobody knows.
        [&[0x64, 0x44][..], header, token, &[0xd0, 8]].concat(),
        // 2.04 with an OSCORE option, and what decrypts to nothing.
        [&[0x64, 0x44][..], header, token, &[0x90, 0xff], &[7; 20]].concat(),
    ]
}

#[test]
fn a_forged_answer_loses_nothing_and_nothing_is_agreed_anew_while_the_real_one_comes() {
    for which in 0..4 {
        let mut net = Net::new(PERFECT, 26);
        let exchange = ask(&mut net, 0, b"x");
        let asked = net.sides[0].poll_transmit().unwrap();
        let now = net.now;
        net.sides[0].receive(&forged_answers(&asked)[which], now).unwrap();
        assert_eq!(net.sides[0].poll_event(), None, "{which}");
        assert_eq!(net.sides[0].counters().responses_refused, 1);
        // The request itself only now.
        net.carry(1, &asked);
        let taken = net.run_echoing(b"!");
        assert_eq!(taken[1], [b"x"], "once");
        let Some(ConnectionEvent::Response { exchange: answered, response }) = net.events[0].pop_front() else {
            panic!("{which}");
        };
        assert_eq!((answered, &response.payload[..]), (exchange, &b"x!"[..]));
        assert!(net.events[0].is_empty() && !net.sides[0].is_closed());
        ask(&mut net, 0, b"next");
        assert_eq!(net.run_until_answered(b"!"), b"next!");
    }
}

#[test]
fn however_many_answers_are_forged_the_peer_is_asked_seldom_and_the_request_goes_on() {
    let mut net = Net::new(PERFECT, 27);
    let exchange = ask(&mut net, 0, b"slow");
    let asked = net.sides[0].poll_transmit().unwrap();
    net.carry(1, &asked);
    let start = net.now;
    // The server has it, and its application takes a minute.
    let mut request = None;
    while net.now < start + Duration::from_secs(60) {
        for forged in forged_answers(&asked) {
            let now = net.now;
            net.sides[0].receive(&forged, now).unwrap();
        }
        let until = net.now + Duration::from_millis(100);
        while net.step(until) {}
        net.now = until;
        request = request.or(net.request_to(1));
        assert!(net.events[0].is_empty() && !net.sides[0].is_closed());
    }
    let asked = net.sides[1].counters().requests_verified - 1;
    assert!((1..=5).contains(&asked), "one question every twelve seconds at most: {asked}");
    let now = net.now;
    net.sides[1].respond(request.unwrap(), &Response::new(Code::CHANGED), now).unwrap();
    net.run_echoing(b"");
    assert!(matches!(&net.events[0][0], ConnectionEvent::Response { exchange: answered, .. } if *answered == exchange));
}

/// Two sides that have another context each.
fn strangers(seed: u64) -> Net {
    let (client, _) = pair();
    let other = ContextParameters { sender_id: KeyId::new(&[0x77]).unwrap(), ..parameters() };
    let (_, server) = pair_of(&other);
    Net::of([client, server], PERFECT, seed)
}

/// The client asks one that has no such context, as a listener does not, and gives the context up after so long.
fn assert_given_up_after(net: &mut Net, wait: Duration) {
    let start = net.now;
    let exchange = ask(net, 0, b"x");
    net.run_until_given_up();
    assert!(net.now >= start + wait && net.now <= start + wait + Duration::from_secs(1));
    let failure = Failure::NotProtected(Code::UNAUTHORIZED);
    assert_eq!(net.events[0][0], ConnectionEvent::Failed { exchange, failure });
    assert!(matches!(net.events[0][1], ConnectionEvent::Aborted { .. }));
}

#[test]
fn a_context_that_the_peer_never_had_is_given_up_at_once() {
    assert_given_up_after(&mut strangers(28), WAIT);
}

#[test]
fn a_context_that_the_peer_has_lost_is_given_up_in_time() {
    let mut net = Net::new(PERFECT, 28);
    answered(&mut net);
    // As one that was restarted.
    std::mem::swap(&mut net.sides[1], &mut strangers(29).sides[1]);
    assert_given_up_after(&mut net, 4 * WAIT);
}

/// A request that the server has, whose application takes its time, and a hint that it has no context.
fn doubted(net: &mut Net, hint: impl Fn(&[u8]) -> Vec<u8>) -> (coap::ExchangeId, coap::ExchangeId) {
    answered(net);
    let asked = ask(net, 0, b"slow");
    let datagram = net.sides[0].poll_transmit().unwrap();
    net.carry(1, &datagram);
    let until = net.now + Duration::from_secs(1);
    while net.step(until) {}
    let request = net.request_to(1).unwrap();
    let now = net.now;
    net.sides[0].receive(&hint(&datagram), now).unwrap();
    (asked, request)
}

/// The server answers what it was asked, and that is the answer.
fn assert_still_answered(net: &mut Net, asked: coap::ExchangeId, request: coap::ExchangeId) {
    assert!(net.events[0].is_empty() && !net.sides[0].is_closed(), "{:?}", net.events[0]);
    let now = net.now;
    net.sides[1].respond(request, &Response::new(Code::CHANGED), now).unwrap();
    net.run_echoing(b"");
    let answer = net.events[0].pop_front();
    assert!(matches!(answer, Some(ConnectionEvent::Response { exchange, .. }) if exchange == asked), "{answer:?}");
    assert!(net.events[0].is_empty() && !net.sides[0].is_closed());
}

/// Loses the next transmissions of the question; each is answered so by somebody.
fn lose(net: &mut Net, transmissions: usize, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let until = net.now + SILENCE;
    for _ in 0..transmissions {
        let lost = loop {
            if let Some(lost) = net.intercept().pop() {
                break lost;
            }
            assert!(net.step(until), "it is sent again");
        };
        if let Some(answer) = answer(&lost) {
            let now = net.now;
            net.sides[0].receive(&answer, now).unwrap();
        }
    }
}

fn unauthorized(asked: &[u8]) -> Vec<u8> {
    forged_answers(asked)[0].clone()
}

fn reset(asked: &[u8]) -> Vec<u8> {
    vec![0x70, 0, asked[2], asked[3]]
}

fn acknowledgement(asked: &[u8]) -> Vec<u8> {
    vec![0x60, 0, asked[2], asked[3]]
}

#[test]
fn a_question_that_is_lost_twice_and_answered_by_others_each_time_loses_no_context() {
    for seed in 30..40 {
        for forged in [unauthorized, reset] {
            let mut net = Net::new(PERFECT, seed);
            let (asked, request) = doubted(&mut net, unauthorized);
            lose(&mut net, 2, |lost| Some(forged(lost)));
            let until = net.now + 4 * WAIT;
            while net.step(until) {}
            assert_eq!(net.sides[1].counters().requests_verified, 3, "the third transmission came");
            assert_still_answered(&mut net, asked, request);
        }
    }
}

#[test]
fn a_question_that_is_lost_as_often_as_it_may_be_sent_again_loses_no_context() {
    for seed in 40..50 {
        let mut net = Net::new(PERFECT, seed);
        let (asked, request) = doubted(&mut net, unauthorized);
        lose(&mut net, 4, |_| None);
        let until = net.now + 16 * WAIT;
        while net.step(until) {}
        assert_eq!(net.sides[1].counters().requests_verified, 3, "the last transmission came");
        assert_still_answered(&mut net, asked, request);
    }
}

#[test]
fn a_question_that_somebody_acknowledges_is_sent_again_all_the_same() {
    let mut net = Net::new(PERFECT, 50);
    let (asked, request) = doubted(&mut net, unauthorized);
    lose(&mut net, 2, |lost| Some(acknowledgement(lost)));
    let until = net.now + 4 * WAIT;
    while net.step(until) {}
    assert_eq!(net.sides[1].counters().requests_verified, 3, "the third transmission came");
    assert_still_answered(&mut net, asked, request);
}

#[test]
fn a_question_that_nobody_answers_ends_the_context_when_it_is_sent_no_more() {
    let mut net = Net::new(PERFECT, 51);
    let (asked, _) = doubted(&mut net, unauthorized);
    let start = net.now;
    while !net.sides[0].is_closed() {
        net.intercept();
        assert!(net.step(start + 2 * SILENCE));
        net.poll();
    }
    assert!(net.now >= start + SILENCE && net.now < start + SILENCE + Duration::from_secs(1));
    // The request itself has waited no longer than any.
    assert_eq!(net.events[0][0], ConnectionEvent::Failed { exchange: asked, failure: Failure::NoAnswer });
    assert!(matches!(net.events[0][1], ConnectionEvent::Aborted { .. }));
    assert_eq!(net.events[0].len(), 2);
}

#[test]
fn a_question_that_cannot_be_sent_loses_no_context() {
    let mut net = Net::new(PERFECT, 52);
    answered(&mut net);
    let asked = ask(&mut net, 0, b"slow");
    let datagram = net.sides[0].poll_transmit().unwrap();
    net.carry(1, &datagram);
    net.sides[0].release(&coap::Release::default()).unwrap();
    let now = net.now;
    net.sides[0].receive(&unauthorized(&datagram), now).unwrap();
    assert_eq!(net.sides[0].poll_transmit(), None, "no request goes out any more");
    let until = net.now + 20 * WAIT;
    while net.step(until) {}
    let request = net.request_to(1).unwrap();
    assert_still_answered(&mut net, asked, request);
}

/// As many requests as may wait do so behind the first, to which somebody says that there is no such context. All of them
/// are answered, whether the client asks at once or not.
fn assert_all_are_answered(requests_outstanding_max: usize, asks_at_once: bool) {
    let mut net = Net::new(PERFECT, 53);
    let mut config = DatagramConfig::default();
    config.limits.requests_outstanding_max = requests_outstanding_max;
    let outer = DatagramConnection::new(Arc::new(config), 53).for_oscore();
    net.sides[0] = OscoreConnection::new(outer, pair().0);
    ask(&mut net, 0, b"first");
    let datagram = net.sides[0].poll_transmit().unwrap();
    let now = net.now;
    for number in 1..requests_outstanding_max {
        net.sides[0].request(&Request::post("x").payload(vec![number as u8]), now).unwrap();
    }
    assert_eq!(net.sides[0].request(&Request::post("x"), now), Err(ConnectionError::TooManyRequests));
    net.sides[0].receive(&unauthorized(&datagram), now).unwrap();
    let question = net.sides[0].poll_transmit();
    assert_eq!(question.is_some(), asks_at_once);
    // The question overtakes them all.
    for datagram in question.iter().chain([&datagram]) {
        net.sides[1].receive(datagram, now).unwrap();
    }
    assert_eq!(net.run_echoing(b"!")[1].len(), requests_outstanding_max);
    assert_eq!(net.events[0].len(), requests_outstanding_max);
    assert!(net.events[0].iter().all(|event| matches!(event, ConnectionEvent::Response { .. })));
}

#[test]
fn a_question_is_sent_although_as_many_requests_wait_as_may() {
    assert_all_are_answered(2, true);
    assert_all_are_answered(62, true);
}

#[test]
fn a_question_waits_until_those_that_it_would_overtake_are_still_in_the_window() {
    assert_all_are_answered(64, false);
    assert_all_are_answered(250, false);
}

#[test]
fn a_forged_reset_ends_no_request_while_its_answer_comes() {
    // Of the client's, and of the server's, which keeps the context whatever comes.
    for side in [0, 1] {
        for is_taken in [false, true] {
            let mut net = Net::new(PERFECT, 54).with_context_kept_by_server();
            let exchange = ask(&mut net, side, b"x");
            let asked = net.sides[side].poll_transmit().unwrap();
            if is_taken {
                net.carry(1 - side, &asked);
            }
            let now = net.now;
            net.sides[side].receive(&reset(&asked), now).unwrap();
            assert_eq!(net.sides[side].poll_event(), None);
            // Where the request is lost, it is sent again.
            let taken = net.run_echoing(b"!");
            assert_eq!(taken[1 - side], [b"x"], "once");
            let Some(ConnectionEvent::Response { exchange: answered, response }) = net.events[side].pop_front() else {
                panic!("{side}");
            };
            assert_eq!((answered, &response.payload[..]), (exchange, &b"x!"[..]));
            assert!(net.events[side].is_empty() && !net.sides[side].is_closed());
        }
    }
}

#[test]
fn resets_of_an_application_that_takes_its_time_end_nothing() {
    let mut net = Net::new(PERFECT, 55);
    let (asked, request) = doubted(&mut net, reset);
    let until = net.now + 10 * WAIT;
    while net.step(until) {}
    assert_still_answered(&mut net, asked, request);
}

#[test]
fn a_request_that_is_reset_and_never_answered_ends_as_unanswered() {
    for side in [0, 1] {
        let mut net = Net::new(PERFECT, 56).with_context_kept_by_server();
        let exchange = ask(&mut net, side, b"x");
        let asked = net.sides[side].poll_transmit().unwrap();
        let now = net.now;
        net.sides[side].receive(&reset(&asked), now).unwrap();
        while net.events[side].is_empty() {
            net.poll();
            net.wire.clear();
            assert!(net.step(now + 2 * SILENCE));
            net.poll();
        }
        assert!(net.now > now + 10 * WAIT);
        let ended = matches!(
            net.events[side][0],
            ConnectionEvent::Failed { exchange: failed, failure: Failure::NoAnswer | Failure::NotAcknowledged }
                if failed == exchange
        );
        assert!(ended, "{:?}", net.events[side]);
        assert!(!net.sides[1].is_closed(), "the server keeps the context");
    }
}

#[test]
fn who_serves_keeps_the_context_whatever_is_answered_without_protection() {
    let mut net = Net::new(PERFECT, 29).with_context_kept_by_server();
    let now = net.now;
    let exchange = net.sides[1].request(&Request::post("x").payload(&b"down"[..]), now).unwrap();
    let asked = net.sides[1].poll_transmit().unwrap();
    for forged in forged_answers(&asked) {
        net.sides[1].receive(&forged, now).unwrap();
    }
    assert_eq!((net.sides[1].poll_event(), net.sides[1].poll_transmit()), (None, None), "it asks nothing");
    let taken = net.run_echoing(b"");
    assert_eq!(taken[0], [b"down"]);
    assert!(matches!(&net.events[1][0], ConnectionEvent::Response { exchange: answered, .. } if *answered == exchange));
    assert_eq!(net.events[1].len(), 1);
}
