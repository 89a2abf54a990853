//! Block-wise transfer inside the protection (RFC 8613 4.1.3.4.1), by a peer that does it by hand: what is put together,
//! what is kept apart, and the answer at each limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::oscore::{BlockBudget, InnerBlocks, OscoreConnection};
use coap::{
    Connection, ConnectionError, ConnectionEvent, DatagramConfig, DatagramConnection, ExchangeId, Failure, Request,
    Response,
};
use proptest::prelude::*;

use super::connection::Side;
use super::*;

const ETAG: u16 = 4;
const BLOCK_2: u16 = 23;
const BLOCK_1: u16 = 27;
const SIZE_2: u16 = 28;
const SIZE_1: u16 = 60;
const REQUEST_TAG: u16 = 292;

const CONTINUE: Code = Code::new(2, 31);
const INCOMPLETE: Code = Code::new(4, 8);
const TOO_LARGE: Code = Code::new(4, 13);

fn small() -> InnerBlocks {
    InnerBlocks {
        payload_octets_max: 200,
        held_octets_max: 400,
        ..InnerBlocks::for_datagrams(&DatagramConfig::default())
    }
}

/// A peer that has the keys and writes each message itself, and the side that is tested.
struct Scene {
    keys: SecurityContext,
    side: Side,
    now: Instant,
    message_id: u16,
}

fn block(number: u32, more: bool, exponent: u32) -> Vec<u8> {
    let value = number << 4 | u32::from(more) << 3 | exponent;
    let octets = value.to_be_bytes();
    octets[octets.iter().take_while(|octet| **octet == 0).count()..].to_vec()
}

impl Scene {
    fn new(blocks: InnerBlocks) -> Self {
        let (keys, server) = pair();
        let outer = DatagramConnection::new(Arc::new(DatagramConfig::default()), 5).for_oscore();
        let side = OscoreConnection::new(outer, server).with_inner_blocks(&Arc::new(blocks));
        Self { keys, side, now: Instant::now(), message_id: 0 }
    }

    /// A request of the peer; what is answered at once.
    fn say(&mut self, request: &Message) -> (SentRequestOf, Option<Message>) {
        let (protected, sent) = self.keys.protect_request(request).unwrap();
        self.message_id += 1;
        let [high, low] = self.message_id.to_be_bytes();
        let datagram = [&[0x41, protected.code().octet(), high, low, 0x77], protected.body()].concat();
        self.side.receive(&datagram, self.now).unwrap();
        let mut sent = SentRequestOf(sent);
        let answer = self.side.poll_transmit().map(|answer| sent.open(&self.keys, &answer));
        (sent, answer)
    }

    fn answered(&mut self, request: &Message) -> Message {
        self.say(request).1.expect("an answer at once")
    }

    fn upload(&mut self, tag: &[u8], number: u32, more: bool, payload: &[u8]) -> Option<Message> {
        let block1 = block(number, more, 0);
        let mut options: Vec<(u16, &[u8])> = vec![(URI_PATH, b"msgin5g"), (BLOCK_1, &block1)];
        if !tag.is_empty() {
            options.push((REQUEST_TAG, tag));
        }
        self.say(&message(Code::POST, &options, payload)).1
    }

    fn taken(&mut self) -> Option<Request> {
        match self.side.poll_event() {
            Some(ConnectionEvent::Request { request }) => Some(request),
            None => None,
            Some(other) => panic!("{other:?}"),
        }
    }

    fn respond(&mut self, exchange: ExchangeId, response: &Response) {
        self.side.respond(exchange, response, self.now).unwrap();
    }
}

struct SentRequestOf(coap::oscore::SentRequest);

impl SentRequestOf {
    fn open(&mut self, keys: &SecurityContext, datagram: &[u8]) -> Message {
        let token = usize::from(datagram[0] & 0x0f);
        let outer = Message::from_body(Code::from_octet(datagram[1]), &datagram[4 + token..]).unwrap();
        keys.unprotect_response(&mut self.0, &outer).unwrap()
    }
}

#[test]
fn two_bodies_under_tags_of_their_own_come_whole_side_by_side() {
    let mut scene = Scene::new(small());
    for number in 0..2 {
        for tag in [b"a", b"b"] {
            assert_eq!(scene.upload(tag, number, true, &[tag[0]; 16]).unwrap().code(), CONTINUE);
        }
    }
    for tag in [b"b", b"a"] {
        assert_eq!(scene.upload(tag, 2, false, &tag[..]), None, "the application answers");
        assert_eq!(scene.taken().unwrap().payload, [tag[0]; 33]);
    }
}

#[test]
fn without_tags_the_later_body_takes_the_place_of_the_earlier() {
    let mut scene = Scene::new(small());
    scene.upload(b"", 0, true, &[1; 16]);
    scene.upload(b"", 0, true, &[2; 16]);
    scene.upload(b"", 1, false, &[3; 4]);
    assert_eq!(scene.taken().unwrap().payload, [&[2; 16][..], &[3; 4]].concat());
}

#[test]
fn the_answer_to_the_last_block_says_which_it_answers() {
    let mut scene = Scene::new(small());
    let first = scene.upload(b"", 0, true, &[1; 16]).unwrap();
    assert_eq!((first.code(), first.option(BLOCK_1)), (CONTINUE, Some(&block(0, true, 0)[..])));
    let block1 = block(1, false, 0);
    let (mut sent, none) = scene.say(&message(Code::POST, &[(URI_PATH, b"msgin5g"), (BLOCK_1, &block1)], b"end"));
    assert_eq!(none, None);
    let request = scene.taken().unwrap();
    scene.respond(request.exchange, &Response::new(Code::CHANGED));
    let answer = sent.open(&scene.keys, &scene.side.poll_transmit().unwrap());
    assert_eq!((answer.code(), answer.option(BLOCK_1)), (Code::CHANGED, Some(&block1[..])));
}

#[test]
fn what_cannot_be_put_together_is_refused_under_protection() {
    let mut scene = Scene::new(small());
    assert_eq!(scene.upload(b"", 3, true, &[0; 16]).unwrap().code(), INCOMPLETE, "what comes before is missing");
    assert_eq!(scene.upload(b"", 0, true, &[0; 15]).unwrap().code(), Code::BAD_REQUEST, "a block of another size");
    let (twice, reserved) = (block(0, true, 0), block(0, true, 7));
    for options in [&[(BLOCK_1, &twice[..]), (BLOCK_1, &twice[..])][..], &[(BLOCK_1, &reserved)], &[(BLOCK_2, &[0; 4])]]
    {
        assert_eq!(scene.answered(&message(Code::POST, options, &[0; 16])).code(), Code::BAD_REQUEST);
    }
    // A block that went missing: the peer begins again.
    scene.upload(b"", 0, true, &[0; 16]);
    assert_eq!(scene.upload(b"", 2, false, b"x").unwrap().code(), INCOMPLETE);
    assert_eq!(scene.taken(), None);
}

#[test]
fn a_body_that_is_too_large_is_refused_at_the_first_block_that_says_so() {
    let mut scene = Scene::new(small());
    let block1 = block(0, true, 0);
    let announced = message(Code::POST, &[(BLOCK_1, &block1), (SIZE_1, &[201])], &[0; 16]);
    let answer = scene.answered(&announced);
    assert_eq!((answer.code(), answer.option(SIZE_1)), (TOO_LARGE, Some(&[200][..])));
    for number in 0..12 {
        assert_eq!(scene.upload(b"", number, true, &[0; 16]).unwrap().code(), CONTINUE);
    }
    assert_eq!(scene.upload(b"", 12, true, &[0; 16]).unwrap().code(), TOO_LARGE);
}

#[test]
fn over_the_limit_of_a_peer_what_is_incomplete_goes_and_what_is_handed_over_stays() {
    let mut scene = Scene::new(InnerBlocks { assemblies_max: 8, ..small() });
    // Three would be more than 400 octets.
    for tag in [b"a", b"b", b"c"] {
        for number in 0..9 {
            assert_eq!(scene.upload(tag, number, true, &[0; 16]).unwrap().code(), CONTINUE);
        }
    }
    assert_eq!(scene.upload(b"a", 9, false, b"x").unwrap().code(), INCOMPLETE, "it waited longest");
    for tag in [b"b", b"c"] {
        assert_eq!(scene.upload(tag, 9, false, b"x"), None);
    }
    // With the application, and not answered.
    let held: Vec<_> = std::iter::from_fn(|| scene.taken()).collect();
    assert_eq!(held.len(), 2);
    let mut number = 0;
    let refused = loop {
        let answer = scene.upload(b"d", number, true, &[0; 16]).unwrap();
        if answer.code() != CONTINUE {
            break answer;
        }
        number += 1;
    };
    assert_eq!((refused.code(), refused.option(MAX_AGE)), (Code::TOO_MANY_REQUESTS, Some(&[1][..])));
    for request in held {
        scene.respond(request.exchange, &Response::new(Code::CHANGED));
        scene.side.poll_transmit().unwrap();
    }
    assert_eq!(scene.upload(b"d", number, true, &[0; 16]).unwrap().code(), CONTINUE);
}

#[test]
fn more_bodies_than_a_peer_may_begin_take_the_place_of_the_oldest() {
    let mut scene = Scene::new(InnerBlocks { assemblies_max: 2, ..small() });
    for tag in [b"a", b"b", b"c"] {
        assert_eq!(scene.upload(tag, 0, true, &[0; 16]).unwrap().code(), CONTINUE);
        scene.now += Duration::from_secs(1);
    }
    assert_eq!(scene.upload(b"a", 1, false, b"x").unwrap().code(), INCOMPLETE);
    assert_eq!(scene.upload(b"c", 1, false, b"x"), None);
}

#[test]
fn the_limit_in_all_is_that_of_all_connections_and_what_ends_gives_back() {
    let budget = BlockBudget::new(100);
    let mut scenes = [0, 1].map(|_| Scene::new(small().within(&budget)));
    assert_eq!(scenes[0].upload(b"", 0, true, &[0; 16]).unwrap().code(), CONTINUE);
    assert_eq!(scenes[0].upload(b"", 1, true, &[0; 16]).unwrap().code(), CONTINUE);
    let one = budget.used();
    assert!((32..100).contains(&one), "{one}");
    let mut number = 0;
    let refused = loop {
        let answer = scenes[1].upload(b"", number, true, &[0; 16]).unwrap();
        if answer.code() != CONTINUE {
            break answer;
        }
        number += 1;
    };
    assert_eq!((refused.code(), refused.option(MAX_AGE)), (Code::SERVICE_UNAVAILABLE, Some(&[1][..])));
    assert!(budget.used() <= 100);
    let [first, mut second] = scenes;
    drop(first);
    assert_eq!(second.upload(b"", number, true, &[0; 16]).unwrap().code(), CONTINUE, "there is room again");
    // What is incomplete is forgotten in time.
    let later = second.side.poll_timeout().unwrap() + Duration::from_secs(300);
    second.side.handle_timeout(later);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_large_response_is_fetched_block_by_block_in_the_size_that_the_peer_wants() {
    let mut scene = Scene::new(small());
    let body: Vec<u8> = (0..150).collect();
    let ask = |number| message(Code::POST, &[(URI_PATH, b"x"), (BLOCK_2, &block(number, false, 1))], b"");
    let (mut sent, none) = scene.say(&ask(0));
    assert_eq!(none, None);
    let request = scene.taken().unwrap();
    scene.respond(request.exchange, &Response::new(Code::CHANGED).with_payload(body.clone()));
    let first = sent.open(&scene.keys, &scene.side.poll_transmit().unwrap());
    assert_eq!(first.option(SIZE_2), Some(&[150][..]));
    let mut fetched = first.payload().to_vec();
    for number in 1..5 {
        let next = scene.answered(&ask(number));
        assert_eq!(next.option(BLOCK_2), Some(&block(number, number < 4, 1)[..]));
        assert_eq!(next.option(ETAG), first.option(ETAG), "all of one body");
        fetched.extend_from_slice(next.payload());
    }
    assert_eq!(fetched, body);
    assert_eq!(scene.answered(&ask(1)).code(), INCOMPLETE, "it has been fetched to the end");
    assert_eq!(scene.taken(), None, "the application was asked once");
}

#[test]
fn a_response_for_which_there_is_no_room_in_all_is_refused_and_its_request_is_over() {
    let budget = BlockBudget::new(100);
    let mut scene = Scene::new(small().within(&budget));
    let (mut sent, _) = scene.say(&message(Code::POST, &[(BLOCK_2, &block(0, false, 0))], b""));
    let request = scene.taken().unwrap();
    scene.respond(request.exchange, &Response::new(Code::CHANGED).with_payload(vec![0; 150]));
    let answer = sent.open(&scene.keys, &scene.side.poll_transmit().unwrap());
    assert_eq!(answer.code(), Code::SERVICE_UNAVAILABLE);
    assert_eq!(budget.used(), 0);
}

/// A side that asks, and a peer that answers each of its messages by hand.
struct Asked {
    scene: Scene,
    exchange: ExchangeId,
}

impl Asked {
    fn new(blocks: InnerBlocks, request: &coap::RequestBuilder<'_>) -> Self {
        let mut scene = Scene::new(blocks);
        let exchange = scene.side.request(request, scene.now).unwrap();
        Self { scene, exchange }
    }

    /// The next message of the side, and how to answer it.
    fn heard(&mut self) -> (Message, ReceivedRequest, Vec<u8>) {
        let datagram = self.scene.side.poll_transmit().expect("a message");
        let token = usize::from(datagram[0] & 0x0f);
        let outer = Message::from_body(Code::from_octet(datagram[1]), &datagram[4 + token..]).unwrap();
        let (request, exchange) = verified(&mut self.scene.keys, &outer);
        (request, exchange, datagram[..4 + token].to_vec())
    }

    fn answer(&mut self, (mut exchange, head): (ReceivedRequest, Vec<u8>), answer: &Message) {
        let protected = self.scene.keys.protect_response(&mut exchange, answer).unwrap();
        let token = head[0] & 0x0f;
        let head = [&[0x60 | token, protected.code().octet()], &head[2..]].concat();
        self.scene.side.receive(&[&head, protected.body()].concat(), self.scene.now).unwrap();
    }

    fn failure(&mut self) -> Failure {
        match self.scene.side.poll_event() {
            Some(ConnectionEvent::Failed { exchange, failure }) if exchange == self.exchange => failure,
            other => panic!("{other:?}"),
        }
    }
}

fn large() -> InnerBlocks {
    InnerBlocks { message_octets_max: Some(100), ..small() }
}

#[test]
fn a_large_request_goes_under_one_tag_and_begins_again_under_another_when_the_peer_lost_it() {
    let body: Vec<u8> = (0..180).collect();
    let mut asked = Asked::new(large(), &Request::post("msgin5g").payload(&body[..]));
    let (first, exchange, head) = asked.heard();
    let tag = first.option(REQUEST_TAG).unwrap().to_vec();
    assert_eq!((first.option(SIZE_1), first.payload()), (Some(&[180][..]), &body[..32]));
    asked.answer((exchange, head), &message(CONTINUE, &[(BLOCK_1, first.option(BLOCK_1).unwrap())], b""));
    let (second, exchange, head) = asked.heard();
    assert_eq!((second.option(REQUEST_TAG), second.payload()), (Some(&tag[..]), &body[32..64]));
    asked.answer((exchange, head), &message(INCOMPLETE, &[], b""));
    let (again, exchange, head) = asked.heard();
    assert_eq!(again.payload(), &body[..32]);
    assert_ne!(again.option(REQUEST_TAG), Some(&tag[..]));
    // The peer wants smaller ones from here on.
    asked.answer((exchange, head), &message(CONTINUE, &[(BLOCK_1, &block(0, true, 0))], b""));
    let (smaller, exchange, head) = asked.heard();
    assert_eq!((smaller.option(BLOCK_1), smaller.payload()), (Some(&block(2, true, 0)[..]), &body[32..48]));
    asked.answer((exchange, head), &message(INCOMPLETE, &[], b""));
    match asked.scene.side.poll_event() {
        Some(ConnectionEvent::Response { response, .. }) => assert_eq!(response.code, INCOMPLETE, "tried twice"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_that_is_larger_than_the_limit_is_not_sent() {
    let mut scene = Scene::new(large());
    let sent = scene.side.request(&Request::post("x").payload(vec![0; 201]), scene.now);
    assert!(matches!(sent, Err(ConnectionError::MessageTooLargeForPeer { octets: 201, octets_max: 200 })), "{sent:?}");
}

#[test]
fn blocks_of_a_response_that_do_not_fit_together_fail_the_request() {
    type Case<'a> = (&'a [(u16, &'a [u8])], &'a [u8], Failure);
    let cases: [Case<'_>; 5] = [
        (&[(BLOCK_2, &[0x18]), (ETAG, b"1")], &[0; 16], Failure::Unusable),
        (&[(BLOCK_2, &[0x18]), (ETAG, b"2")], &[0; 16], Failure::Unusable),
        (&[(BLOCK_2, &[0x10])], &[0; 3], Failure::Unusable),
        (&[(ETAG, b"1")], b"", Failure::Unusable),
        (&[(BLOCK_2, &[0x08]), (SIZE_2, &[201]), (ETAG, b"1")], &[0; 16], Failure::TooLarge),
    ];
    for (number, (options, payload, failure)) in cases.into_iter().enumerate() {
        let mut asked = Asked::new(large(), &Request::post("x"));
        let (_, exchange, head) = asked.heard();
        let announced = failure == Failure::TooLarge;
        let first: &[(u16, &[u8])] = if announced { options } else { &[(BLOCK_2, &[0x08]), (ETAG, b"1")] };
        asked.answer((exchange, head), &message(Code::CHANGED, first, &[0; 16]));
        if !announced {
            let (_, exchange, head) = asked.heard();
            // The block after the next, another body, one without the name of its body, or none at all.
            let options: Vec<_> = options
                .iter()
                .map(
                    |(option, value)| {
                        if number == 0 && *option == BLOCK_2 { (*option, &[0x28][..]) } else { (*option, *value) }
                    },
                )
                .collect();
            asked.answer((exchange, head), &message(Code::CHANGED, &options, payload));
        }
        assert_eq!(asked.failure(), failure, "case {number}");
    }
}

#[test]
fn a_response_without_an_end_is_given_up_at_the_limit() {
    let budget = BlockBudget::new(1_000);
    let mut asked = Asked::new(large().within(&budget), &Request::post("x"));
    let mut number = 0;
    loop {
        let (_, exchange, head) = asked.heard();
        asked.answer((exchange, head), &message(Code::CHANGED, &[(BLOCK_2, &block(number, true, 0))], &[0; 16]));
        number += 1;
        if number * 16 > 200 {
            break;
        }
        assert!(budget.used() >= number as usize * 16);
    }
    assert_eq!(asked.failure(), Failure::TooLarge);
    assert_eq!(budget.used(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a peer with the keys sends in blocks, in whatever order and under whatever tags: each body that is handed
    /// over is one that was sent, whole; nothing more is held than the limits say; and every message is answered or handed
    /// over.
    #[test]
    fn bodies_come_whole_or_not_at_all(
        steps in prop::collection::vec((0_u8..3, 0_u32..6, any::<bool>(), 0_usize..18), 1..60),
    ) {
        let budget = BlockBudget::new(300);
        let mut scene = Scene::new(InnerBlocks { assemblies_max: 2, ..small().within(&budget) });
        for (tag, number, more, octets) in steps {
            let payload = vec![tag << 4 | number as u8; octets];
            let answer = scene.upload(&[tag], number, more, &payload);
            let request = scene.taken();
            prop_assert!(answer.is_some() != request.is_some());
            prop_assert!(budget.used() <= 300);
            if let Some(request) = request {
                // Each block of its own tag, in its place.
                for (place, octet) in request.payload.iter().enumerate() {
                    prop_assert_eq!(*octet, tag << 4 | (place / 16) as u8);
                }
                scene.respond(request.exchange, &Response::new(Code::CHANGED));
                prop_assert!(scene.side.poll_transmit().is_some());
            }
        }
        drop(scene);
        prop_assert_eq!(budget.used(), 0);
    }
}
