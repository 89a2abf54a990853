//! An address that is to be proven: what goes there, what proves it, and whose time runs on meanwhile.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod net;

use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::{
    Code, ConnectionEvent, DatagramConfig, DatagramConnection, Failure, Observe, Request, Response, Transmission,
};
use net::{Net, PERFECT};

const ECHO: [u8; 8] = [1; 8];
const TOKEN: [u8; 8] = *b"a secret";

/// A machine at whose peer's side nobody is.
fn alone() -> (DatagramConnection, Instant) {
    let transmission = Transmission { nstart: 2, ..Transmission::default() };
    let config = DatagramConfig { transmission, ..DatagramConfig::default() };
    (DatagramConnection::new(Arc::new(config), 3), Instant::now())
}

fn sent(machine: &mut DatagramConnection) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| machine.poll_transmit()).collect()
}

/// An acknowledgement with a response to the datagram, under that token.
fn answer(datagram: &[u8], code: Code, token: &[u8]) -> Vec<u8> {
    [&[0x60 | token.len() as u8, code.octet()][..], &datagram[2..4], token].concat()
}

#[test]
fn nothing_of_ours_goes_to_an_address_that_is_not_proven_and_its_time_runs_on() {
    let (mut machine, start) = alone();
    let mut open: Vec<_> = (0..3).map(|_| machine.request(Request::post("x"), start).unwrap()).collect();
    assert_eq!(sent(&mut machine).len(), 2, "NSTART");
    machine.challenge_address(ECHO);
    machine.question_address(TOKEN, start).unwrap();
    open.push(machine.request(Request::post("x"), start).unwrap());
    open.push(machine.request(Request::post("x").non_confirmable(), start).unwrap());
    machine.ping(start).unwrap();
    let question = [&[0x48, Code::GET.octet()][..], &sent(&mut machine).concat()[2..4], &TOKEN].concat();
    let mut later = Vec::new();
    while let Some(at) = machine.poll_timeout().filter(|at| *at < start + Duration::from_secs(200)) {
        machine.handle_timeout(at);
        later.extend(sent(&mut machine));
        assert!(machine.poll_timeout().is_none_or(|next| next > at), "what was due is done");
    }
    assert_eq!(later, Vec::<Vec<u8>>::new());
    let mut failed = Vec::new();
    while let Some(event) = machine.poll_event() {
        let ConnectionEvent::Failed { exchange, failure: Failure::NotAcknowledged | Failure::NoAnswer } = event else {
            panic!("{event:?}")
        };
        failed.push(exchange);
    }
    failed.sort_unstable_by_key(|exchange| open.iter().position(|other| other == exchange));
    assert_eq!(failed, open, "as if the network had lost it all");
    machine.question_address_again();
    assert_eq!(sent(&mut machine), [question]);
    machine.give_up_address(start + Duration::from_secs(200));
    assert_eq!(machine.poll_event(), Some(ConnectionEvent::Unreachable));
    assert!(!machine.is_address_proven() && machine.is_settled());
    machine.question_address_again();
    assert!(sent(&mut machine).is_empty(), "it was given up");
}

#[test]
fn only_the_whole_of_the_newest_token_proves_an_address() {
    let (mut machine, now) = alone();
    let mut ask = |token: [u8; 8]| {
        machine.challenge_address(ECHO);
        machine.question_address(token, now).unwrap();
        machine.request(Request::post("x"), now).unwrap();
        let mut sent = sent(&mut machine);
        assert_eq!(sent.len(), 1, "the question alone");
        sent.pop().unwrap()
    };
    let older = ask(*b"was else");
    let question = ask(TOKEN);
    let mut wrong = vec![
        // What anybody may know: Message IDs.
        [&[0x70, 0][..], &question[2..4]].concat(),
        [&[0x60, 0][..], &question[2..4]].concat(),
        answer(&question, Code::CONTENT, &[]),
        answer(&question, Code::CONTENT, &TOKEN[..7]),
        answer(&older, Code::CONTENT, b"was else"),
    ];
    for place in 0..TOKEN.len() {
        let mut token = TOKEN;
        token[place] ^= 1;
        wrong.push(answer(&question, Code::CONTENT, &token));
    }
    for datagram in wrong {
        machine.receive(&datagram, now).unwrap();
        assert!(!machine.is_address_proven() && sent(&mut machine).is_empty(), "{datagram:?}");
    }
    machine.receive(&answer(&question, Code::NOT_FOUND, &TOKEN), now).unwrap();
    assert!(machine.is_address_proven());
    assert_eq!(sent(&mut machine).len(), 2, "what has waited");
    assert_eq!(machine.poll_event(), None, "it was no question of the application's");
}

#[test]
fn an_answer_in_a_message_of_its_own_is_a_proof_and_is_acknowledged() {
    let (mut machine, now) = alone();
    machine.challenge_address(ECHO);
    machine.question_address(TOKEN, now).unwrap();
    machine.receive(&[&[0x48, Code::CONTENT.octet(), 7, 7][..], &TOKEN].concat(), now).unwrap();
    assert!(machine.is_address_proven());
    assert_eq!(sent(&mut machine).last().unwrap(), &[0x60, 0, 7, 7]);
}

#[test]
fn blocks_and_notifications_wait_for_the_proof_and_go_on_after_it() {
    let mut config = DatagramConfig::default();
    config.limits.peer_observations_max = 1;
    let mut net = Net::new(config, PERFECT, 4);
    let now = net.now;
    net.sides[0].request(Request::get("state").observe(Observe::Register), now).unwrap();
    let ConnectionEvent::Request { request } = net.event(1) else { panic!() };
    let (now, observed) = (net.now, request.exchange);
    net.sides[1].respond(observed, Response::new(Code::CONTENT).with_observe(), now).unwrap();
    net.event(0);
    // A body of ours is under way in blocks when the peer is elsewhere.
    let now = net.now;
    net.sides[1].request(Request::post("x").payload(vec![5; 5_000]), now).unwrap();
    let block = net.sides[1].poll_transmit().unwrap();
    net.sides[0].receive(&block, now).unwrap();
    let more = net.sides[0].poll_transmit().unwrap();
    let server = &mut net.sides[1];
    server.challenge_address(ECHO);
    server.question_address(TOKEN, now).unwrap();
    let question = server.poll_transmit().unwrap();
    server.receive(&more, now).unwrap();
    server.notify(observed, Response::new(Code::CONTENT).with_payload(&b"new"[..]), now).unwrap();
    assert_eq!(server.poll_transmit(), None);
    server.receive(&answer(&question, Code::NOT_FOUND, &TOKEN), now).unwrap();
    let (mut asked, mut notified) = (false, false);
    while !(asked && notified) {
        let next = net.step(now + Duration::from_secs(60));
        assert!(next || !net.events[0].is_empty());
        while let Some(event) = net.events[0].pop_front() {
            match event {
                ConnectionEvent::Request { request } => {
                    asked = request.payload == [5; 5_000];
                    let now = net.now;
                    net.sides[0].respond(request.exchange, Response::new(Code::CHANGED), now).unwrap();
                }
                ConnectionEvent::Response { response, .. } => notified = response.payload == b"new",
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_copy_of_a_small_request_draws_no_large_answer_to_an_address_that_is_not_proven() {
    let (mut machine, now) = alone();
    let get = [0x40, Code::GET.octet(), 0, 1, 0xb1, b'x'];
    machine.receive(&get, now).unwrap();
    let Some(ConnectionEvent::Request { request }) = machine.poll_event() else { panic!() };
    machine.respond(request.exchange, Response::new(Code::CONTENT).with_payload(vec![7; 900]), now).unwrap();
    let first = sent(&mut machine);
    machine.challenge_address(ECHO);
    machine.receive(&get, now).unwrap();
    assert!(sent(&mut machine).is_empty());
    machine.address_proven(now);
    machine.receive(&get, now).unwrap();
    assert_eq!(sent(&mut machine), first);
}

#[test]
fn what_was_meant_for_the_earlier_address_does_not_go_to_the_new_one() {
    let (mut machine, now) = alone();
    machine.receive(&[0x40, Code::GET.octet(), 0, 1, 0xb1, b'x'], now).unwrap();
    let Some(ConnectionEvent::Request { request }) = machine.poll_event() else { panic!() };
    machine.respond(request.exchange, Response::new(Code::CONTENT).with_payload(vec![7; 900]), now).unwrap();
    machine.challenge_address(ECHO);
    machine.question_address(TOKEN, now).unwrap();
    assert_eq!(sent(&mut machine).iter().map(Vec::len).collect::<Vec<_>>(), [12], "the question alone");
}
