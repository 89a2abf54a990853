//! Observations (RFC 7641) over datagrams, on both sides.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod net;

use std::time::Duration;

use coap::{
    Code, ConnectionError, ConnectionEvent, DatagramConfig, DatagramLimits, ExchangeId, Failure, Observe, Request,
    RequestBuilder, Response,
};
use net::{Conditions, Net, PERFECT};
use proptest::prelude::*;

fn config() -> DatagramConfig {
    DatagramConfig {
        limits: DatagramLimits { peer_observations_max: 2, observations_max: 2, ..DatagramLimits::default() },
        ..DatagramConfig::default()
    }
}

fn get() -> RequestBuilder<'static> {
    Request::get("x").observe(Observe::Register)
}

fn content(text: &str) -> Response {
    Response::new(Code::CONTENT).with_observe().with_payload(text)
}

fn request_of(event: ConnectionEvent) -> Request {
    match event {
        ConnectionEvent::Request { request } => request,
        other => panic!("{other:?}"),
    }
}

fn text_of(event: ConnectionEvent) -> (ExchangeId, String, bool) {
    match event {
        ConnectionEvent::Response { exchange, response } => {
            (exchange, String::from_utf8(response.payload).unwrap(), response.observe)
        }
        other => panic!("{other:?}"),
    }
}

/// Side 0 observes at side 1: its name of the exchange, and the other's.
fn observing(net: &mut Net) -> (ExchangeId, ExchangeId) {
    let now = net.now;
    let own = net.sides[0].request(get(), now).unwrap();
    let request = request_of(net.event(1));
    assert_eq!(request.observe, Some(Observe::Register));
    let now = net.now;
    net.sides[1].respond(request.exchange, content("0"), now).unwrap();
    assert_eq!(text_of(net.event(0)), (own, "0".into(), true));
    (own, request.exchange)
}

fn notify(net: &mut Net, exchange: ExchangeId, text: &str) {
    let now = net.now;
    net.sides[1].notify(exchange, content(text), now).unwrap();
}

#[test]
fn notifications_are_acknowledged_one_by_one_until_the_observer_deregisters() {
    let mut net = Net::new(config(), PERFECT, 1);
    let (own, peer) = observing(&mut net);
    for text in ["1", "2", "3"] {
        notify(&mut net, peer, text);
        assert_eq!(text_of(net.event(0)), (own, text.into(), true));
        net.run(Duration::from_secs(1));
    }
    assert!(net.sides.iter().all(coap::DatagramConnection::is_settled));
    assert_eq!(net.sides[1].counters().retransmissions, 0);
    let now = net.now;
    net.sides[0].stop_observing(own, get(), now).unwrap();
    assert_eq!(net.event(1), ConnectionEvent::ObservationEnded { exchange: peer });
    let last = request_of(net.event(1));
    assert_eq!(last.observe, Some(Observe::Deregister));
    let now = net.now;
    net.sides[1].respond(last.exchange, content("3"), now).unwrap();
    assert_eq!(text_of(net.event(0)), (own, "3".into(), false));
    assert_eq!(net.sides[0].observations(), 0);
    let now = net.now;
    assert_eq!(net.sides[1].notify(peer, content("4"), now), Err(ConnectionError::UnknownExchange));
    assert_eq!(net.sides[0].stop_observing(own, get(), now), Err(ConnectionError::UnknownExchange));
    net.settle();
    assert!(net.sides.iter().all(coap::DatagramConnection::is_idle));
}

#[test]
fn an_observation_outlives_silence_and_keeps_only_itself() {
    let mut net = Net::new(config(), PERFECT, 2);
    let (own, peer) = observing(&mut net);
    net.settle();
    assert!(net.sides.iter().all(|side| !side.is_idle() && side.is_settled() && side.poll_timeout().is_none()));
    net.now += Duration::from_secs(1_000_000);
    notify(&mut net, peer, "later");
    assert_eq!(text_of(net.event(0)), (own, "later".into(), true));
}

#[test]
fn while_one_is_not_acknowledged_only_the_newest_waits_and_takes_its_place() {
    let mut net = Net::new(config(), PERFECT, 3);
    let (_, peer) = observing(&mut net);
    net.conditions.loss_percent = 100;
    for text in ["1", "2", "3"] {
        notify(&mut net, peer, text);
    }
    net.run(Duration::from_secs(1));
    let before = net.sent.len();
    net.conditions.loss_percent = 0;
    assert_eq!(text_of(net.event(0)).1, "3", "what is sent again is the newest");
    net.run(Duration::from_secs(60));
    let sent: Vec<_> = net.sent[before - 1..].iter().filter(|(side, _)| *side == 1).collect();
    assert_eq!(sent.len(), 2, "the first of them, and the last in its place");
    assert_ne!(sent[0].1[2..4], sent[1].1[2..4], "under a Message ID of its own");
    assert!(net.events[0].is_empty());
}

#[test]
fn an_observer_that_is_away_is_forgotten_after_max_transmit_wait() {
    let mut net = Net::new(config(), PERFECT, 4);
    let (_, peer) = observing(&mut net);
    net.conditions.loss_percent = 100;
    let start = net.now;
    notify(&mut net, peer, "1");
    assert_eq!(net.event(1), ConnectionEvent::ObservationEnded { exchange: peer });
    assert!(net.now - start <= Duration::from_secs(93));
    assert!(!net.sides[1].is_observed(peer));
    assert_eq!(net.sides[1].counters().undelivered, 1);
}

#[test]
fn an_observer_that_has_forgotten_says_so_with_a_reset() {
    let mut net = Net::new(config(), PERFECT, 5);
    let (own, peer) = observing(&mut net);
    let now = net.now;
    net.sides[0].cancel(own, now);
    notify(&mut net, peer, "1");
    assert_eq!(net.event(1), ConnectionEvent::ObservationEnded { exchange: peer });
    assert!(net.events[0].is_empty());
}

#[test]
fn an_error_is_the_last_response_even_while_a_notification_is_under_way() {
    let mut net = Net::new(config(), PERFECT, 6);
    let (own, peer) = observing(&mut net);
    net.conditions.loss_percent = 100;
    notify(&mut net, peer, "1");
    net.run(Duration::from_secs(1));
    net.conditions.loss_percent = 0;
    let now = net.now;
    net.sides[1].notify(peer, Response::new(Code::NOT_FOUND), now).unwrap();
    assert!(!net.sides[1].is_observed(peer));
    let (exchange, _, observe) = text_of(net.event(0));
    assert_eq!((exchange, observe, net.sides[0].observations()), (own, false, 0));
    net.run(Duration::from_secs(60));
    assert!(net.events.iter().all(std::collections::VecDeque::is_empty));
}

#[test]
fn observations_over_the_limits_are_plain_answers_or_rejected_later() {
    let mut net = Net::with(
        [
            config(),
            DatagramConfig { limits: DatagramLimits { peer_observations_max: 3, ..config().limits }, ..config() },
        ],
        PERFECT,
        7,
    );
    let exchanges: Vec<_> = (0..2).map(|_| observing(&mut net)).collect();
    // The third is over the limit of who asks.
    let now = net.now;
    net.sides[0].request(get(), now).unwrap();
    let third = request_of(net.event(1));
    let now = net.now;
    net.sides[1].respond(third.exchange, content("0"), now).unwrap();
    assert!(!text_of(net.event(0)).2, "as if it had not been granted");
    assert!(net.sides[1].is_observed(third.exchange));
    notify(&mut net, third.exchange, "1");
    assert_eq!(net.event(1), ConnectionEvent::ObservationEnded { exchange: third.exchange });
    // The fourth is over the limit of who is asked.
    let now = net.now;
    net.sides[0].cancel(exchanges[0].0, now);
    for expected in [true, false] {
        let now = net.now;
        net.sides[0].request(get(), now).unwrap();
        let request = request_of(net.event(1));
        let now = net.now;
        net.sides[1].respond(request.exchange, content("0"), now).unwrap();
        text_of(net.event(0));
        assert_eq!(net.sides[1].is_observed(request.exchange), expected);
    }
}

#[test]
fn an_old_notification_that_comes_late_is_acknowledged_and_not_told() {
    let mut net = Net::new(config(), PERFECT, 8);
    let (now, client) = (net.now, &mut net.sides[0]);
    let exchange = client.request(get(), now).unwrap();
    let sent = client.poll_transmit().unwrap();
    let notification = |kind: u8, id: [u8; 2], number: u8, text: u8| {
        [&[0x44 | kind << 4, 0x45], &id[..], &sent[4..8], &[0x61, number, 0xff, text]].concat()
    };
    client.receive(&notification(2, [sent[2], sent[3]], 5, b'a'), now).unwrap();
    assert_eq!(text_of(client.poll_event().unwrap()), (exchange, "a".into(), true));
    for (id, number, told) in [(1, 7, true), (2, 6, false), (3, 7, false), (4, 8, true)] {
        client.receive(&notification(0, [9, id], number, b'b'), now).unwrap();
        assert_eq!(client.poll_event().is_some(), told, "{number}");
        assert_eq!(client.poll_transmit().unwrap(), [0x60, 0, 9, id]);
    }
    let later = now + Duration::from_secs(129);
    client.receive(&notification(0, [9, 5], 1, b'c'), later).unwrap();
    assert_eq!(text_of(client.poll_event().unwrap()).1, "c", "after 128 s any number is newer");
    // A response that cannot be used ends it: critical option 9.
    client.receive(&[&[0x44, 0x45, 9, 6], &sent[4..8], &[0x61, 2, 0x30]].concat(), later).unwrap();
    assert_eq!(client.poll_event(), Some(ConnectionEvent::Failed { exchange, failure: Failure::Unusable }));
    assert_eq!(client.observations(), 0);
}

#[test]
fn who_does_not_serve_observation_answers_as_ever() {
    let mut net = Net::new(DatagramConfig::default(), PERFECT, 9);
    let now = net.now;
    let own = net.sides[0].request(get(), now).unwrap();
    let request = request_of(net.event(1));
    let now = net.now;
    net.sides[1].respond(request.exchange, content("0"), now).unwrap();
    assert_eq!(text_of(net.event(0)), (own, "0".into(), false));
    assert!(!net.sides[1].is_observed(request.exchange));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// RFC 7641 1.3: eventual consistency.
    #[test]
    fn the_last_state_always_arrives_or_the_observation_ends(
        seed in any::<u64>(),
        loss_percent in 0_u64..=40,
        duplication_percent in 0_u64..=30,
        delay in 1_u64..5_000,
        large in any::<bool>(),
        states in prop::collection::vec(0_u64..20_000, 1..20),
    ) {
        let mut net = Net::new(config(), PERFECT, seed);
        let (own, peer) = observing(&mut net);
        net.conditions = Conditions { loss_percent, duplication_percent, delay_max: Duration::from_millis(delay) };
        let length = if large { 3_000 } else { 1 };
        for (number, pause) in states.iter().enumerate() {
            if net.sides[1].is_observed(peer) {
                notify(&mut net, peer, &number.to_string().repeat(length));
            }
            net.run(Duration::from_millis(*pause));
        }
        let end = net.now + Duration::from_secs(100_000);
        let (mut last, mut ended) = (None, false);
        loop {
            let goes_on = net.step(end);
            while let Some(event) = net.events[0].pop_front() {
                match event {
                    ConnectionEvent::Response { exchange, response } => {
                        prop_assert_eq!(exchange, own);
                        let text = String::from_utf8(response.payload).unwrap();
                        let number = (0..states.len()).find(|number| text == number.to_string().repeat(length));
                        prop_assert!(number.is_some(), "one state, whole");
                        // A large state that is fetched anew may be told once more by its own notification.
                        let newer = number > last || (large && number == last);
                        prop_assert!(newer, "{:?} after {:?}", number, last);
                        last = number;
                    }
                    ConnectionEvent::Failed { exchange, .. } => {
                        prop_assert_eq!(exchange, own);
                        ended = true;
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            while let Some(event) = net.events[1].pop_front() {
                match event {
                    ConnectionEvent::ObservationEnded { exchange } => {
                        prop_assert_eq!(exchange, peer);
                        ended = true;
                    }
                    // A large state that changed while it was fetched is asked for anew.
                    ConnectionEvent::Request { request } => {
                        prop_assert!(large && request.observe.is_none());
                        let now = net.now;
                        let state = (states.len() - 1).to_string().repeat(length);
                        net.sides[1].respond(request.exchange, content(&state), now).unwrap();
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            if !goes_on && net.events.iter().all(std::collections::VecDeque::is_empty) {
                break;
            }
        }
        prop_assert!(ended || last == Some(states.len() - 1), "{:?} of {}", last, states.len());
    }
}
