//! The driving contract of the crate's documentation, held to by two connections in memory, whose octets travel in
//! arbitrary pieces and whose applications act in arbitrary order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};

use coap::{Code, ExchangeId, Release, Request, Response, StreamConfig, StreamConnection, StreamError, StreamEvent};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// One side sends a request with a payload of so many octets.
    Request {
        side: usize,
        octets: usize,
    },
    /// One side answers its oldest or newest unanswered request.
    Respond {
        side: usize,
        newest: bool,
        octets: usize,
    },
    /// One side gives up on its oldest request.
    Cancel {
        side: usize,
    },
    Ping {
        side: usize,
        custody: bool,
    },
    /// So many octets travel from one side to the other.
    Carry {
        side: usize,
        octets: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0_usize..2;
    prop_oneof![
        4 => (side.clone(), 0_usize..3_000).prop_map(|(side, octets)| Step::Request { side, octets }),
        4 => (side.clone(), any::<bool>(), 0_usize..3_000)
            .prop_map(|(side, newest, octets)| Step::Respond { side, newest, octets }),
        1 => side.clone().prop_map(|side| Step::Cancel { side }),
        1 => (side.clone(), any::<bool>()).prop_map(|(side, custody)| Step::Ping { side, custody }),
        8 => (side, prop_oneof![1_usize..20, 1_usize..5_000]).prop_map(|(side, octets)| Step::Carry { side, octets }),
    ]
}

/// One side with its application: it remembers what it asked and what it was asked.
struct Side {
    connection: StreamConnection,
    /// Octets on their way to the other side.
    wire: VecDeque<u8>,
    asked: BTreeMap<ExchangeId, u32>,
    to_answer: VecDeque<(ExchangeId, Vec<u8>)>,
    next: u32,
    pongs_expected: usize,
    answers: usize,
}

impl Side {
    fn new() -> Self {
        Self {
            connection: StreamConnection::new(StreamConfig::default()),
            wire: VecDeque::new(),
            asked: BTreeMap::new(),
            to_answer: VecDeque::new(),
            next: 0,
            pongs_expected: 0,
            answers: 0,
        }
    }

    /// After each input: poll until `None`.
    fn poll(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                StreamEvent::Request { request } => self.to_answer.push_back((request.exchange, request.payload)),
                StreamEvent::Response { exchange, response } => {
                    let number = self.asked.remove(&exchange).expect("an answer to what was asked, once");
                    assert_eq!(response.payload[..4], number.to_be_bytes(), "the answer to this request");
                    self.answers += 1;
                }
                StreamEvent::Pong { .. } => self.pongs_expected -= 1,
                StreamEvent::PeerReady { .. } | StreamEvent::Released { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if let Some(octets) = self.connection.poll_transmit() {
            self.wire.extend(octets);
        }
    }

    fn request(&mut self, octets: usize) {
        let number = self.next;
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(4 + octets, 0x55);
        match self.connection.request(Request::post("msgin5g").content_format(50).payload(payload)) {
            Ok(exchange) => {
                self.next += 1;
                assert_eq!(self.asked.insert(exchange, number), None, "names are not reused");
            }
            Err(StreamError::MessageTooLargeForPeer { octets_max: 1_152, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn respond(&mut self, newest: bool, octets: usize) {
        let taken = if newest { self.to_answer.pop_back() } else { self.to_answer.pop_front() };
        if let Some((exchange, mut payload)) = taken {
            payload.truncate(4);
            payload.resize(4 + octets, 0xaa);
            self.connection.respond(exchange, Response::new(Code::CHANGED).with_payload(payload)).unwrap();
        }
    }
}

fn carry(sides: &mut [Side; 2], from: usize, octets: usize) -> bool {
    let octets = octets.min(sides[from].wire.len());
    let piece: Vec<u8> = sides[from].wire.drain(..octets).collect();
    sides[1 - from].connection.receive(&piece).unwrap();
    sides[1 - from].poll();
    octets > 0
}

fn settle(sides: &mut [Side; 2], piece: usize) {
    loop {
        let mut moved = false;
        for side in 0..2 {
            while !sides[side].to_answer.is_empty() {
                sides[side].respond(false, 0);
            }
            sides[side].poll();
            moved |= carry(sides, side, piece);
        }
        if !moved && sides.iter().all(|side| side.wire.is_empty() && side.to_answer.is_empty()) {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_request_gets_its_own_answer_once_however_the_octets_are_cut(
        steps in prop::collection::vec(step(), 0..120),
        piece in 1_usize..3_000,
    ) {
        let mut sides = [Side::new(), Side::new()];
        let mut cancelled = 0;
        for side in &mut sides {
            side.poll();
        }
        for step in steps {
            match step {
                Step::Request { side, octets } => sides[side].request(octets),
                Step::Respond { side, newest, octets } => {
                    // The peer's CSM came before its request, so any of these sizes is taken.
                    sides[side].respond(newest, octets);
                }
                Step::Cancel { side } => {
                    if let Some((exchange, _)) = sides[side].asked.pop_first() {
                        sides[side].connection.cancel(exchange);
                        cancelled += 1;
                    }
                }
                Step::Ping { side, custody } => {
                    let side = &mut sides[side];
                    let result =
                        if custody { side.connection.ping_with_custody() } else { side.connection.ping() };
                    match result {
                        Ok(()) => side.pongs_expected += 1,
                        Err(error) => prop_assert_eq!(error, StreamError::TooManyPings),
                    }
                }
                Step::Carry { side, octets } => {
                    carry(&mut sides, side, octets);
                }
            }
            for side in &mut sides {
                side.poll();
            }
        }
        sides[0].connection.release(&Release::default()).unwrap();
        settle(&mut sides, piece);
        let asked: u32 = sides.iter().map(|side| side.next).sum();
        let answers: usize = sides.iter().map(|side| side.answers).sum();
        prop_assert_eq!(answers + cancelled, asked as usize);
        for side in &sides {
            prop_assert_eq!(side.pongs_expected, 0);
            prop_assert!(side.asked.is_empty());
            prop_assert!(side.connection.is_settled());
            prop_assert!(!side.connection.is_closed());
        }
        prop_assert_eq!(sides[1].connection.request(Request::post("x")), Err(StreamError::Released));
    }
}
