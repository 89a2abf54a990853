//! A connection under a security context: what the driver sees of a network that loses, repeats, reorders and alters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::oscore::{EchoValue, InnerBlocks, OscoreConnection, Provenance, ReplayStart, SEQUENCE_NUMBER_MAX};
use coap::{
    Connection, ConnectionError, ConnectionEvent, DatagramConfig, DatagramConnection, Failure, Observe, Release,
    Request, Response, StreamConfig, StreamConnection, Unbound,
};
use proptest::prelude::*;

use super::*;

pub(super) type Side = OscoreConnection<DatagramConnection>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    loss_percent: u64,
    duplication_percent: u64,
    /// Of these one octet is another when it arrives.
    alteration_percent: u64,
    delay_max: Duration,
}

pub(super) const PERFECT: Conditions =
    Conditions { loss_percent: 0, duplication_percent: 0, alteration_percent: 0, delay_max: Duration::from_millis(10) };

/// Two sides, a network, and virtual time. A datagram that can be told as forged is not handed over, as a listener does
/// it.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) sides: [Side; 2],
    conditions: Conditions,
    pub(super) events: [VecDeque<ConnectionEvent>; 2],
    pub(super) sent: Vec<(usize, Vec<u8>)>,
    pub(super) wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sequence: u64,
    random: u64,
    forged: usize,
}

fn side(context: SecurityContext, seed: u64) -> Side {
    OscoreConnection::new(DatagramConnection::new(Arc::new(DatagramConfig::default()), seed).for_oscore(), context)
}

impl Net {
    pub(super) fn new(conditions: Conditions, seed: u64) -> Self {
        let (client, server) = pair();
        Self::of([client, server], conditions, seed)
    }

    pub(super) fn of(contexts: [SecurityContext; 2], conditions: Conditions, seed: u64) -> Self {
        let mut number = seed.wrapping_mul(7);
        let sides = contexts.map(|context| {
            number += 1;
            side(context, number)
        });
        Self {
            now: Instant::now(),
            sides,
            conditions,
            events: Default::default(),
            sent: Vec::new(),
            wire: BTreeMap::new(),
            sequence: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            forged: 0,
        }
    }

    /// Both sides cut inside.
    pub(super) fn with_inner_blocks(mut self) -> Self {
        let blocks = Arc::new(InnerBlocks::for_datagrams(&DatagramConfig::default()));
        self.sides = self.sides.map(|side| side.with_inner_blocks(&blocks));
        self
    }

    /// As a listener has it.
    pub(super) fn with_context_kept_by_server(mut self) -> Self {
        let [client, server] = self.sides;
        self.sides = [client, server.kept_for_peer()];
        self
    }

    /// The next request that has come to a side.
    pub(super) fn request_to(&mut self, side: usize) -> Option<coap::ExchangeId> {
        drain_requests(&mut self.events[side]).pop().map(|request| request.exchange)
    }

    /// The answer to the one request of the client's.
    pub(super) fn run_until_answered(&mut self, added: &[u8]) -> Vec<u8> {
        let until = self.now + Duration::from_secs(60);
        loop {
            assert!(self.step(until), "no answer");
            self.poll();
            for request in drain_requests(&mut self.events[1]) {
                let answer = Response::new(Code::CHANGED).with_payload([&request.payload[..], added].concat());
                self.sides[1].respond(request.exchange, &answer, self.now).unwrap();
            }
            if let Some(event) = self.events[0].pop_front() {
                let ConnectionEvent::Response { response, .. } = event else { panic!("{event:?}") };
                return response.payload;
            }
        }
    }

    /// Takes out what is on its way to the server.
    pub(super) fn intercept(&mut self) -> Vec<Vec<u8>> {
        self.poll();
        self.wire.extract_if(.., |_, (to, _)| *to == 1).map(|(_, (_, octets))| octets).collect()
    }

    /// The server answers what it cannot verify, as a listener does, until the client takes the context for lost.
    pub(super) fn run_until_given_up(&mut self) {
        let until = self.now + Duration::from_secs(60);
        while !self.sides[0].is_closed() {
            for datagram in self.intercept() {
                self.sides[1].receive(&datagram, self.now).unwrap();
            }
            assert!(self.step(until), "it is not given up");
        }
        self.poll();
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % below.max(1)
    }

    pub(super) fn poll(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.sides[side].poll_event() {
                self.events[side].push_back(event);
            }
            while let Some(datagram) = self.sides[side].poll_transmit() {
                self.sent.push((side, datagram.clone()));
                self.carry(1 - side, &datagram);
            }
        }
    }

    pub(super) fn carry(&mut self, to: usize, datagram: &[u8]) {
        let copies = if self.random(100) < self.conditions.duplication_percent { 2 } else { 1 };
        for _ in 0..copies {
            if self.random(100) < self.conditions.loss_percent {
                continue;
            }
            let mut datagram = datagram.to_vec();
            if self.random(100) < self.conditions.alteration_percent {
                let place = self.random(datagram.len() as u64) as usize;
                datagram[place] ^= 1 << self.random(8);
            }
            let delay = self.random(self.conditions.delay_max.as_micros() as u64);
            self.sequence += 1;
            self.wire.insert((self.now + Duration::from_micros(1 + delay), self.sequence), (to, datagram));
        }
    }

    fn deliver(&mut self, to: usize, datagram: &[u8]) {
        if matches!(self.sides[to].provenance(datagram, self.now), Provenance::Forged(_)) {
            self.forged += 1;
        } else {
            // A context that is at its end takes nothing.
            let _ = self.sides[to].receive(datagram, self.now);
        }
    }

    /// The next thing that is due, within five minutes. False if there is none.
    pub(super) fn step(&mut self, until: Instant) -> bool {
        self.poll();
        let arrival = self.wire.first_key_value().map(|((arrival, _), _)| *arrival);
        let timeout = self.sides.iter().filter_map(Connection::poll_timeout).min();
        let Some(next) = [arrival, timeout].into_iter().flatten().min().filter(|next| *next <= until) else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival.is_some_and(|arrival| arrival <= self.now) {
            if let Some((_, (to, datagram))) = self.wire.pop_first() {
                self.deliver(to, &datagram);
            }
        } else {
            for side in &mut self.sides {
                side.handle_timeout(self.now);
            }
        }
        true
    }

    /// Runs until nothing happens any more; each request is answered with its payload and what is `added`.
    pub(super) fn run_echoing(&mut self, added: &[u8]) -> [Vec<Vec<u8>>; 2] {
        let mut taken: [Vec<Vec<u8>>; 2] = Default::default();
        let until = self.now + Duration::from_secs(600);
        while self.step(until) {
            for (side, taken) in taken.iter_mut().enumerate() {
                let requests: Vec<Request> = drain_requests(&mut self.events[side]);
                for request in requests {
                    taken.push(request.payload.clone());
                    let answer = Response::new(Code::CHANGED).with_payload([&request.payload[..], added].concat());
                    self.sides[side].respond(request.exchange, &answer, self.now).unwrap();
                }
            }
        }
        taken
    }
}

fn drain_requests(events: &mut VecDeque<ConnectionEvent>) -> Vec<Request> {
    let (requests, others): (Vec<_>, Vec<_>) =
        std::mem::take(events).into_iter().partition(|event| matches!(event, ConnectionEvent::Request { .. }));
    events.extend(others);
    requests
        .into_iter()
        .filter_map(|event| match event {
            ConnectionEvent::Request { request } => Some(request),
            _ => None,
        })
        .collect()
}

pub(super) fn ask(net: &mut Net, side: usize, payload: &[u8]) -> coap::ExchangeId {
    let now = net.now;
    net.sides[side].request(&Request::post("msgin5g").content_format(50).payload(payload), now).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the network does, each request of either side ends once: with the answer to it, or as failed; each comes
    /// to the other side once at most, and nothing comes that was not sent.
    #[test]
    fn every_request_ends_once_and_none_is_seen_twice(
        seed in any::<u64>(),
        loss_percent in 0_u64..40,
        duplication_percent in 0_u64..30,
        alteration_percent in prop_oneof![Just(0), 0_u64..20],
        large in prop::collection::vec(0_usize..3_000, 1..8),
        inner in any::<bool>(),
    ) {
        let delay_max = Duration::from_millis(900);
        let mut net = Net::new(Conditions { loss_percent, duplication_percent, alteration_percent, delay_max }, seed);
        if inner {
            net = net.with_inner_blocks();
        }
        let mut asked: [BTreeMap<_, Vec<u8>>; 2] = Default::default();
        for (number, octets) in large.iter().enumerate() {
            let from = number % 2;
            let mut payload = vec![b'a' + number as u8; *octets];
            payload.push(number as u8);
            let exchange = ask(&mut net, from, &payload);
            asked[from].insert(exchange, payload);
        }
        let taken = net.run_echoing(b" taken");
        for side in 0..2 {
            let sent: BTreeSet<_> = asked[1 - side].values().cloned().collect();
            let seen: BTreeSet<_> = taken[side].iter().cloned().collect();
            prop_assert_eq!(seen.len(), taken[side].len(), "one came twice");
            prop_assert!(seen.is_subset(&sent), "one came that was not sent");
            let mut ended = BTreeSet::new();
            for event in std::mem::take(&mut net.events[side]) {
                let exchange = match event {
                    ConnectionEvent::Response { exchange, response } => {
                        prop_assert_eq!(&response.payload, &[&asked[side][&exchange][..], b" taken"].concat());
                        exchange
                    }
                    ConnectionEvent::Failed { exchange, .. } => exchange,
                    // An altered header or OSCORE option may be refused as another context's.
                    ConnectionEvent::Aborted { .. } if alteration_percent > 0 => continue,
                    other => panic!("{other:?}"),
                };
                prop_assert!(ended.insert(exchange), "ended twice");
            }
            if alteration_percent == 0 {
                prop_assert_eq!(ended.len(), asked[side].len());
            }
            if loss_percent + alteration_percent == 0 {
                prop_assert_eq!(&seen, &sent);
            }
        }
    }

    /// What was sent once, sent again by anybody under whatever Message ID, reaches no application.
    #[test]
    fn what_is_recorded_and_sent_again_is_refused(seed in any::<u64>(), message_id in any::<u16>()) {
        let mut net = Net::new(PERFECT, seed);
        for number in 0..4 {
            ask(&mut net, 0, &[number]);
        }
        prop_assert_eq!(net.run_echoing(b"")[1].len(), 4);
        let recorded: Vec<_> = net.sent.iter().filter(|(from, _)| *from == 0).map(|(_, sent)| sent.clone()).collect();
        for (number, mut datagram) in recorded.into_iter().enumerate() {
            let fresh = message_id.wrapping_add(number as u16);
            datagram[2..4].copy_from_slice(&fresh.to_be_bytes());
            let now = net.now;
            net.sides[1].receive(&datagram, now).unwrap();
            net.poll();
        }
        prop_assert!(drain_requests(&mut net.events[1]).is_empty());
        prop_assert_eq!(net.sides[1].counters().requests_verified, 4);
    }

    /// One altered octet in the protected part of a request, and it is told before it is handed over.
    #[test]
    fn an_altered_request_is_told_before_it_leaves_a_trace(seed in any::<u64>(), place in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let mut net = Net::new(PERFECT, seed);
        ask(&mut net, 0, b"measured");
        let datagram = net.sides[0].poll_transmit().unwrap();
        prop_assert_eq!(net.sides[1].provenance(&datagram, net.now), Provenance::Proven);
        let mut altered = datagram.clone();
        // After header and token, the OSCORE option's header and its flags.
        let place = 10 + place.index(altered.len() - 10);
        altered[place] ^= 1 << bit;
        prop_assert_ne!(net.sides[1].provenance(&altered, net.now), Provenance::Proven);
        prop_assert_eq!(net.sides[1].provenance(&datagram, net.now), Provenance::Proven, "nothing was changed by looking");
    }
}

#[test]
fn a_large_message_goes_in_blocks_outside_and_comes_whole() {
    let mut net = Net::new(PERFECT, 3);
    let large = vec![7; 20_000];
    ask(&mut net, 0, &large);
    let [_, taken] = net.run_echoing(&large);
    assert_eq!(taken, std::slice::from_ref(&large));
    let Some(ConnectionEvent::Response { response, .. }) = net.events[0].pop_front() else { panic!() };
    assert_eq!(response.payload.len(), 40_000);
    assert!(net.sent.iter().all(|(_, datagram)| datagram.len() <= 1_152), "no datagram is larger than it should be");
    assert!(net.sent.iter().any(|(_, datagram)| Unbound::parse(datagram).unwrap().is_block()));
}

#[test]
fn a_large_message_goes_in_blocks_inside_and_comes_whole() {
    let mut net = Net::new(PERFECT, 3).with_inner_blocks();
    let large = vec![7; 20_000];
    ask(&mut net, 0, &large);
    let [_, taken] = net.run_echoing(&large);
    assert_eq!(taken, std::slice::from_ref(&large));
    let Some(ConnectionEvent::Response { response, .. }) = net.events[0].pop_front() else { panic!() };
    assert_eq!(response.payload.len(), 40_000);
    assert!(net.sent.iter().all(|(_, datagram)| datagram.len() <= 1_152), "no datagram is larger than it should be");
    assert!(
        net.sent.iter().all(|(_, datagram)| !Unbound::parse(datagram).unwrap().is_block()),
        "nothing is to be seen"
    );
    assert_eq!(net.sides[1].counters().requests_verified, 20 + 39, "each block is proven for itself");
}

#[test]
fn a_ping_is_answered_by_the_keys_and_not_told_to_the_application() {
    let mut net = Net::new(PERFECT, 4);
    let now = net.now;
    net.sides[0].ping(now).unwrap();
    net.run_echoing(b"");
    assert_eq!(net.events[0], [ConnectionEvent::Pong { custody: false }]);
    assert!(net.events[1].is_empty());
}

#[test]
fn a_reset_is_no_pong() {
    let mut net = Net::new(PERFECT, 5);
    let now = net.now;
    net.sides[0].ping(now).unwrap();
    let mut reset = net.sides[0].poll_transmit().unwrap();
    reset.truncate(4);
    (reset[0], reset[1]) = (0x70, 0);
    net.sides[0].receive(&reset, now).unwrap();
    net.poll();
    assert!(net.events[0].is_empty());
}

#[test]
fn pings_without_an_answer_are_limited() {
    let mut net = Net::new(PERFECT, 6);
    let now = net.now;
    for _ in 0..4 {
        net.sides[0].ping(now).unwrap();
    }
    assert_eq!(net.sides[0].ping(now), Err(ConnectionError::TooManyPings));
}

#[test]
fn a_peer_with_other_keys_is_refused_and_learns_nothing() {
    let (client, _) = pair();
    let other = ContextParameters { master_secret: MasterSecret::new(&[9; 32]).unwrap(), ..parameters() };
    let (_, server) = pair_of(&other);
    let mut net = Net::of([client, server], PERFECT, 7);
    let exchange = ask(&mut net, 0, b"x");
    let datagram = net.sides[0].poll_transmit().unwrap();
    assert_eq!(net.sides[1].provenance(&datagram, net.now), Provenance::Forged(OscoreError::DecryptionFailed));
    net.carry(1, &datagram);
    net.run_until_given_up();
    let failed = ConnectionEvent::Failed { exchange, failure: Failure::NotProtected(Code::BAD_REQUEST) };
    assert_eq!(net.events[0][0], failed);
    assert!(matches!(net.events[0][1], ConnectionEvent::Aborted { .. }));
    assert!(net.sides[1].counters().requests_refused > 1, "the request, and the question");
    assert_eq!(net.sides[1].counters().requests_verified, 0);
}

#[test]
fn a_peer_that_lost_the_context_ends_the_connection() {
    let (client, _) = pair();
    let other = ContextParameters { sender_id: KeyId::new(&[0x77]).unwrap(), ..parameters() };
    let (_, server) = pair_of(&other);
    let mut net = Net::of([client, server], PERFECT, 8);
    ask(&mut net, 0, b"x");
    net.run_until_given_up();
    let now = net.now;
    assert!(matches!(
        net.events[0][0],
        ConnectionEvent::Failed { failure: Failure::NotProtected(Code::UNAUTHORIZED), .. }
    ));
    assert!(matches!(net.events[0][1], ConnectionEvent::Aborted { .. }));
    assert!(net.sides[0].is_closed());
    assert_eq!(net.sides[0].request(&Request::get("x"), now), Err(ConnectionError::Closed));
}

#[test]
fn an_unprotected_request_is_refused() {
    let mut net = Net::new(PERFECT, 9);
    let mut plain = DatagramConnection::new(Arc::new(DatagramConfig::default()), 1);
    let now = net.now;
    plain.request(Request::post("msgin5g").payload(&b"{}"[..]), now).unwrap();
    net.sides[1].receive(&plain.poll_transmit().unwrap(), now).unwrap();
    assert_eq!(net.sides[1].poll_event(), None);
    plain.receive(&net.sides[1].poll_transmit().unwrap(), now).unwrap();
    let Some(ConnectionEvent::Response { response, .. }) = plain.poll_event() else { panic!() };
    assert_eq!((response.code, response.max_age), (Code::UNAUTHORIZED, Some(0)));
    assert_eq!(net.sides[1].counters().requests_unprotected, 1);
}

#[test]
fn numbers_that_are_used_up_end_the_connection() {
    let last = SecurityContext::restored(
        &parameters(),
        Durability::Volatile,
        SEQUENCE_NUMBER_MAX,
        ReplayStart::Known(Default::default()),
    );
    let (_, server) = pair();
    let mut net = Net::of([last.unwrap(), server], PERFECT, 10);
    ask(&mut net, 0, b"the last");
    assert_eq!(net.run_echoing(b"")[1], [b"the last"]);
    net.events[0].clear();
    let now = net.now;
    assert_eq!(net.sides[0].request(&Request::get("x"), now), Err(ConnectionError::Closed));
    assert!(matches!(net.sides[0].poll_event(), Some(ConnectionEvent::Aborted { .. })));
}

#[test]
fn a_server_that_lost_its_window_is_convinced_by_a_repetition_of_which_the_driver_sees_nothing() {
    let (client, _) = pair();
    let start = ReplayStart::Unknown(EchoValue::new([7; 8]));
    let server = SecurityContext::restored(&parameters().reversed(), Durability::Volatile, 50, start).unwrap();
    let mut net = Net::of([client, server], PERFECT, 11);
    let exchange = ask(&mut net, 0, b"once");
    assert_eq!(net.run_echoing(b"!")[1], [b"once"]);
    let Some(ConnectionEvent::Response { exchange: answered, response }) = net.events[0].pop_front() else { panic!() };
    assert_eq!((answered, &response.payload[..]), (exchange, &b"once!"[..]));
}

#[test]
fn an_answer_that_is_too_large_can_be_replaced_and_uses_no_nonce_twice() {
    let mut net = Net::new(PERFECT, 12);
    ask(&mut net, 0, b"x");
    let until = net.now + Duration::from_secs(1);
    let request = loop {
        assert!(net.step(until));
        if let Some(request) = drain_requests(&mut net.events[1]).pop() {
            break request;
        }
    };
    let now = net.now;
    let large = Response::new(Code::CONTENT).with_payload(vec![1; 70_000]);
    let refused = net.sides[1].respond(request.exchange, &large, now);
    assert!(matches!(refused, Err(ConnectionError::MessageTooLargeForPeer { .. })), "{refused:?}");
    net.sides[1].respond(request.exchange, &Response::new(Code::CONTENT).with_payload("small"), now).unwrap();
    net.run_echoing(b"");
    assert!(matches!(&net.events[0][0], ConnectionEvent::Response { response, .. } if response.payload == b"small"));
    assert_eq!(
        net.sides[1].respond(request.exchange, &Response::new(Code::CONTENT), now),
        Err(ConnectionError::UnknownExchange)
    );
}

#[test]
fn who_asks_to_observe_is_answered_once() {
    let mut net = Net::new(PERFECT, 13);
    let now = net.now;
    let exchange = net.sides[0].request(&Request::get("x").observe(Observe::Register), now).unwrap();
    let until = now + Duration::from_secs(1);
    let request = loop {
        assert!(net.step(until));
        if let Some(request) = drain_requests(&mut net.events[1]).pop() {
            break request;
        }
    };
    assert_eq!(request.observe, None);
    let now = net.now;
    net.sides[1].respond(request.exchange, &Response::new(Code::CONTENT).with_observe(), now).unwrap();
    assert!(!net.sides[1].is_observed(request.exchange));
    net.run_echoing(b"");
    let answered = ConnectionEvent::Response { exchange, response: Response::new(Code::CONTENT) };
    assert_eq!(net.events[0], [answered]);
}

#[test]
fn a_connection_without_contexts_does_not_understand_the_option() {
    let (mut client, _) = pair();
    let now = Instant::now();
    let mut sender = side(SecurityContext::fresh(&parameters(), Durability::Volatile).unwrap(), 1);
    let mut plain = DatagramConnection::new(Arc::new(DatagramConfig::default()), 2);
    sender.request(&Request::post("x"), now).unwrap();
    plain.receive(&sender.poll_transmit().unwrap(), now).unwrap();
    assert_eq!(plain.poll_event(), None);
    let answer = Unbound::parse(&plain.poll_transmit().unwrap()).unwrap();
    assert_eq!(answer.message().code(), Code::BAD_OPTION);
    // The context is another's, and as it was.
    assert_eq!(client.protect_request(&post()).unwrap().0.code(), Code::POST);
}

/// Over a stream nothing is lost; the same goes through, and so does the end.
#[test]
fn a_stream_carries_protected_requests_both_ways() {
    let (client, server) = pair();
    let stream = || StreamConnection::new(StreamConfig::default()).for_oscore();
    let mut sides = [OscoreConnection::new(stream(), client), OscoreConnection::new(stream(), server)];
    let now = Instant::now();
    let exchanges = [0, 1].map(|side| sides[side].request(&Request::post("x").payload(vec![side as u8]), now).unwrap());
    sides[0].ping(now).unwrap();
    let mut seen: [Vec<ConnectionEvent>; 2] = Default::default();
    for _ in 0..8 {
        for side in 0..2 {
            while let Some(octets) = sides[side].poll_transmit() {
                sides[1 - side].receive(&octets, now).unwrap();
            }
            while let Some(event) = sides[side].poll_event() {
                if let ConnectionEvent::Request { request } = &event {
                    let answer = Response::new(Code::CHANGED).with_payload(request.payload.clone());
                    sides[side].respond(request.exchange, &answer, now).unwrap();
                }
                seen[side].push(event);
            }
        }
    }
    for side in 0..2 {
        let response = Response::new(Code::CHANGED).with_payload(vec![side as u8]);
        assert!(seen[side].contains(&ConnectionEvent::Response { exchange: exchanges[side], response }));
    }
    assert!(seen[0].contains(&ConnectionEvent::Pong { custody: false }));
    sides[0].release(&Release::default()).unwrap();
    let octets = sides[0].poll_transmit().unwrap();
    sides[1].receive(&octets, now).unwrap();
    assert!(matches!(sides[1].poll_event(), Some(ConnectionEvent::Released { .. })));
}

/// Server and client, and the protected question at the client's new address.
fn questioned(net: &mut Net) -> Vec<u8> {
    let now = net.now;
    net.sides[1].challenge_address([1; 8]);
    net.sides[1].question_address(*b"a secret", now).unwrap();
    let question = net.sides[1].poll_transmit().unwrap();
    assert_eq!(&question[4..12], b"a secret");
    question
}

#[test]
fn a_new_address_is_proven_by_a_verified_answer_under_its_token_and_by_nothing_else() {
    let mut net = Net::new(PERFECT, 10);
    let now = net.now;
    let older = questioned(&mut net);
    net.sides[0].receive(&older, now).unwrap();
    let late = net.sides[0].poll_transmit().unwrap();
    let question = questioned(&mut net);
    net.sides[0].receive(&question, now).unwrap();
    let answer = net.sides[0].poll_transmit().unwrap();
    let mut altered = answer.clone();
    *altered.last_mut().unwrap() ^= 1;
    let mut guessed = answer.clone();
    guessed[11] ^= 1;
    let unprotected = [&[0x68, 0x84][..], &question[2..12]].concat();
    let reset = [&[0x70, 0][..], &question[2..4]].concat();
    for wrong in [late, altered, guessed, unprotected, reset] {
        net.sides[1].receive(&wrong, now).unwrap();
        assert!(!net.sides[1].is_address_proven(now), "{wrong:?}");
    }
    ask(&mut net, 1, b"waits");
    assert_eq!(net.sides[1].poll_transmit(), None);
    net.sides[1].receive(&answer, now).unwrap();
    assert!(net.sides[1].is_address_proven(now));
    assert!(net.sides[1].poll_transmit().is_some());
    // The answer to the question at an earlier address is none at a later one.
    net.sides[1].receive(&answer, now).unwrap();
    questioned(&mut net);
    net.sides[1].receive(&answer, now).unwrap();
    assert!(!net.sides[1].is_address_proven(now));
    net.sides[1].give_up_address(now);
    net.poll();
    assert!(net.events[1].contains(&ConnectionEvent::Unreachable));
}
