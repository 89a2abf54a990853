//! A peer that says anything, whenever it likes: plausible messages, answers to what was asked, and octets changed in them.
//! The machine never panics, keeps to its limits, tells each exchange's end once, and always comes to rest.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::{
    Code, ConnectionEvent, DatagramConfig, DatagramConnection, DatagramLimits, ExchangeId, Observe, Request, Response,
};
use proptest::prelude::*;

const OBSERVATIONS_MAX: usize = 2;
const BODY_MAX: usize = 300;
const DATAGRAM_MAX: usize = 200;

/// One message of the peer.
#[derive(Clone, Debug)]
struct Said {
    pause_milliseconds: u64,
    kind: u8,
    code: u8,
    message_id: u8,
    /// Whether Message ID and token are those of what we sent last.
    answers: bool,
    token: u8,
    options: Vec<(u16, Vec<u8>)>,
    payload: usize,
    changed: Option<(usize, u8)>,
    /// What the application does about a request.
    answered_octets: Option<usize>,
    challenged: bool,
}

fn option() -> impl Strategy<Value = (u16, Vec<u8>)> {
    // ETag, Observe, Uri-Path, Content-Format, Block2, Block1, Size2, Size1, Echo, No-Response, Request-Tag, unknown.
    let number = prop::sample::select(vec![4, 6, 11, 12, 23, 23, 27, 27, 28, 60, 252, 258, 292, 40, 41]);
    let block = (0_u8..4, any::<bool>(), 0_u8..8)
        .prop_map(|(number, more, size)| vec![number << 4 | u8::from(more) << 3 | if size < 6 { 0 } else { size }]);
    let value =
        prop_oneof![block, Just(vec![]), Just(vec![b'x']), Just(vec![7; 8]), prop::collection::vec(any::<u8>(), 0..5)];
    (number, value)
}

fn said() -> impl Strategy<Value = Said> {
    let codes = vec![0, 0, 1, 1, 2, 2, 3, 5, 0x44, 0x45, 0x45, 0x45, 0x5f, 0x5f, 0x81, 0x88, 0x8d, 0xe1, 0x20];
    let options = prop::collection::vec(option(), 0..5).prop_map(|mut options| {
        options.sort_by_key(|(number, _)| *number);
        options
    });
    (
        (prop_oneof![Just(0_u64), 0_u64..5_000, 0_u64..300_000], 0_u8..4, prop::sample::select(codes)),
        (0_u8..6, any::<bool>(), 0_u8..3, options, prop::sample::select(vec![0_usize, 1, 15, 16, 16, 16, 64, 150])),
        (
            prop::option::weighted(0.2, (0_usize..40, any::<u8>())),
            prop::option::weighted(0.8, 0_usize..400),
            prop::bool::weighted(0.1),
        ),
    )
        .prop_map(
            |(
                (pause_milliseconds, kind, code),
                (message_id, answers, token, options, payload),
                (changed, answered_octets, challenged),
            )| Said {
                pause_milliseconds,
                kind,
                code,
                message_id,
                answers,
                token,
                options,
                payload,
                changed,
                answered_octets,
                challenged,
            },
        )
}

impl Said {
    fn octets(&self, sent: &[u8]) -> Vec<u8> {
        let answers = self.answers && sent.len() >= 4;
        let token: &[u8] = if answers {
            &sent[4..4 + usize::from(sent[0] & 0x0f)]
        } else {
            &[self.token][..usize::from(self.token.min(1))]
        };
        let empty = self.code == 0;
        let token = if empty { &[] } else { token };
        let mut octets = vec![0x40 | self.kind << 4 | token.len() as u8, self.code];
        if answers {
            octets.extend_from_slice(&sent[2..4])
        } else {
            octets.extend_from_slice(&[0, self.message_id])
        }
        if !empty {
            octets.extend_from_slice(token);
            let mut before = 0;
            for (number, value) in &self.options {
                match number - before {
                    delta @ 0..=12 => octets.push((delta as u8) << 4 | value.len() as u8),
                    delta @ 13..=268 => octets.extend([0xd0 | value.len() as u8, (delta - 13) as u8]),
                    delta => octets.extend([0xe0 | value.len() as u8, ((delta - 269) >> 8) as u8, (delta - 269) as u8]),
                }
                octets.extend_from_slice(value);
                before = *number;
            }
            if self.payload > 0 {
                octets.push(0xff);
                octets.extend(vec![0x55; self.payload]);
            }
        }
        if let Some((place, mask)) = self.changed
            && place < octets.len()
        {
            octets[place] ^= mask;
        }
        octets
    }
}

fn config() -> DatagramConfig {
    DatagramConfig {
        max_message_size_own: BODY_MAX as u32,
        limits: DatagramLimits {
            observations_max: OBSERVATIONS_MAX,
            peer_observations_max: OBSERVATIONS_MAX,
            peer_requests_outstanding_max: 3,
            block_octets_max: 64,
            datagram_octets_max: DATAGRAM_MAX,
            message_ids_max: 5,
            answers_octets_max: 400,
            assemblies_max: 2,
            responses_kept_max: 2,
            responses_held_max: 2,
            ..DatagramLimits::default()
        },
        ..DatagramConfig::default()
    }
}

/// Our side with its application.
struct Side {
    connection: DatagramConnection,
    /// Ours that can still be answered.
    open: BTreeSet<ExchangeId>,
    observed: Vec<ExchangeId>,
    unanswered: Vec<ExchangeId>,
    last_sent: Vec<u8>,
}

impl Side {
    fn take_events(&mut self, answered_octets: Option<usize>, now: Instant) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                ConnectionEvent::Request { request } => {
                    assert!(request.payload.len() <= BODY_MAX);
                    let Some(octets) = answered_octets else {
                        self.unanswered.push(request.exchange);
                        continue;
                    };
                    let response = Response::new(Code::CONTENT).with_observe().with_payload(vec![7; octets]);
                    self.connection.respond(request.exchange, response, now).unwrap();
                    self.observed
                        .extend(Some(request.exchange).filter(|exchange| self.connection.is_observed(*exchange)));
                }
                ConnectionEvent::Response { exchange, response } => {
                    assert!(self.open.contains(&exchange), "it was over");
                    assert!(response.payload.len() <= BODY_MAX);
                    if !response.observe {
                        self.open.remove(&exchange);
                    }
                }
                ConnectionEvent::Failed { exchange, .. } => assert!(self.open.remove(&exchange), "it was over"),
                ConnectionEvent::ObservationEnded { exchange } => assert!(!self.connection.is_observed(exchange)),
                ConnectionEvent::Pong { .. } | ConnectionEvent::Unreachable => {}
                other => panic!("{other:?}"),
            }
            self.observed.retain(|exchange| self.connection.is_observed(*exchange));
            assert!(self.observed.len() <= OBSERVATIONS_MAX && self.connection.observations() <= OBSERVATIONS_MAX);
        }
        while let Some(sent) = self.connection.poll_transmit() {
            assert!(sent.len() <= DATAGRAM_MAX, "a datagram of {} octets", sent.len());
            self.last_sent = sent;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_a_peer_says_the_machine_keeps_its_promises(
        seed in any::<u64>(),
        everything in prop::collection::vec(said(), 0..60),
    ) {
        let mut now = Instant::now();
        let mut side = Side {
            connection: DatagramConnection::new(Arc::new(config()), seed),
            open: BTreeSet::new(),
            observed: Vec::new(),
            unanswered: Vec::new(),
            last_sent: Vec::new(),
        };
        for (turn, said) in everything.iter().enumerate() {
            now += Duration::from_millis(said.pause_milliseconds);
            if side.connection.poll_timeout().is_some_and(|at| at <= now) {
                side.connection.handle_timeout(now);
                side.take_events(said.answered_octets, now);
            }
            match turn % 8 {
                0 => side.open.extend(side.connection.request(Request::get("x").observe(Observe::Register), now)),
                1 => side.open.extend(side.connection.request(Request::post("x").payload(vec![1; 500]), now)),
                2 => side.open.extend(side.connection.request(Request::get("y").non_confirmable(), now)),
                3 => drop(side.connection.ping(now)),
                4 => for exchange in &side.observed {
                    side.connection.notify(*exchange, Response::new(Code::CONTENT).with_payload(vec![2; 150]), now).unwrap();
                },
                5 => if let Some(exchange) = side.unanswered.pop() {
                    side.connection.respond(exchange, Response::new(Code::CHANGED), now).unwrap();
                },
                _ => {}
            }
            side.take_events(said.answered_octets, now);
            if said.challenged {
                side.connection.challenge_address([7; 8]);
                side.connection.question_address([8; 8], now).unwrap();
            }
            let octets = said.octets(&side.last_sent);
            side.connection.receive(&octets, now).unwrap();
            side.take_events(said.answered_octets, now);
        }
        // From here on there is silence.
        for exchange in std::mem::take(&mut side.unanswered) {
            side.connection.respond(exchange, Response::new(Code::CHANGED), now).unwrap();
        }
        side.take_events(None, now);
        side.connection.give_up_address(now);
        side.take_events(None, now);
        while let Some(at) = side.connection.poll_timeout() {
            prop_assert!(at >= now, "never in the past");
            now = now.max(at);
            side.connection.handle_timeout(now);
            side.take_events(None, now);
            prop_assert!(side.connection.poll_timeout().is_none_or(|next| next > now), "what was due is done");
        }
        prop_assert_eq!(side.connection.requests_outstanding(), 0);
        prop_assert_eq!(side.open.len(), side.connection.observations(), "what is not over is observed");
        prop_assert_eq!(side.connection.is_idle(), side.observed.is_empty() && side.open.is_empty());
    }
}
