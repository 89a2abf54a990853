//! Messages larger than a segment (TS 23.554 clause 8.5), both ways.

use client::{Client, ClientConfig, ClientError, Incoming, IncomingStream, Outcome, OutgoingMessage, Received};
use coap::{Code, ExchangeId, Response};
use message::{
    Address, DecodeLimits, FailureCause, Message, MessageResponse, ReportDeliveryStatus, SEGMENT_HELD,
    SegmentConfirmation, SegmentRecovery, UeMessage, segmentation::segment,
};
use tokio::task::JoinHandle;

use crate::server::{ME, OTHER, Peer, Server, cause, message_to_me, patiently, until};

const SIZE: usize = 100;

fn config(server: &Server) -> ClientConfig {
    let mut config = server.config();
    config.segment_size = Some(SIZE as u32);
    config
}

fn payload(octets: usize) -> Vec<u8> {
    (0..octets).map(|octet| octet as u8).collect()
}

fn send(client: &Client, message: OutgoingMessage) -> JoinHandle<Result<Outcome, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { client.send(message).await })
}

async fn outcome(sending: JoinHandle<Result<Outcome, ClientError>>) -> Result<Outcome, ClientError> {
    patiently(sending).await.unwrap()
}

fn large(octets: usize) -> OutgoingMessage {
    OutgoingMessage::to_ue(&OTHER.parse().unwrap(), payload(octets)).message_id("large".parse().unwrap())
}

/// Segments for the client, as another UE makes them.
fn segments_for_me(id: &str, octets: usize, report_wanted: bool) -> Vec<Message> {
    let UeMessage::Message(mut message) = message_to_me(id, report_wanted) else { panic!("another type") };
    message.payload = payload(octets);
    segment(&message, "set-7".parse().unwrap(), SIZE).unwrap()
}

async fn deliver(peer: &mut Peer, segment: &Message) -> ExchangeId {
    peer.send(&UeMessage::Message(Box::new(segment.clone()))).await
}

async fn next_message(incoming: &mut IncomingStream) -> Received<Message> {
    match patiently(incoming.next()).await {
        Some(Incoming::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

async fn acknowledged(peer: &mut Peer, exchange: ExchangeId, id: &str) {
    let response = peer.response(exchange).await;
    assert_eq!(response.code, Code::CHANGED);
    let answer = MessageResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
    assert_eq!((answer.message_id.as_str(), answer.status), (id, None));
}

async fn confirmed(peer: &mut Peer, id: &str) -> ExchangeId {
    let (exchange, UeMessage::SegmentConfirmation(confirmation)) = peer.request().await else { panic!("no SEGCONFIR") };
    assert_eq!((confirmation.message_id.as_str(), confirmation.set_id.as_str()), (id, "set-7"));
    assert_eq!(confirmation.originator.as_ue().unwrap().as_str(), ME);
    assert_eq!(confirmation.destination.as_ue().unwrap().as_str(), OTHER);
    exchange
}

fn confirmation(message: &Message) -> UeMessage {
    UeMessage::SegmentConfirmation(SegmentConfirmation {
        originator: message.destination.clone(),
        destination: message.originator.clone(),
        message_id: message.message_id.clone(),
        set_id: message.segment.as_ref().unwrap().set_id.clone(),
    })
}

fn recovery(message: &Message, missing: &[u32]) -> UeMessage {
    UeMessage::SegmentRecovery(SegmentRecovery {
        originator: message.destination.clone(),
        destination: message.originator.clone(),
        message_id: message.message_id.clone(),
        set_id: message.segment.as_ref().unwrap().set_id.clone(),
        missing: missing.to_vec(),
    })
}

#[tokio::test]
async fn a_large_message_to_a_server_that_puts_it_together_has_the_answer_to_the_segment_that_completes_it() {
    let server = Server::start().await;
    let mut config = config(&server);
    config.limits.segments_unanswered_max = 2;
    let (client, _incoming, mut peer) = server.connected(config).await;
    let small = OutgoingMessage::to_ue(&OTHER.parse().unwrap(), "small").message_id("small".parse().unwrap());
    let sending = send(&client, large(250).with_report().store_and_forward(None));
    until(&client, |status| status.unanswered == 1).await;
    let following = send(&client, small);
    let (first, head) = peer.message().await;
    assert!(head.delivery_status_required && head.store_and_forward);
    assert_eq!((head.payload.len(), head.segment.as_ref().unwrap().total_count), (100, Some(3)));
    let (second, body) = peer.message().await;
    assert!(!body.delivery_status_required && !body.segment.as_ref().unwrap().last);
    peer.answer(first, &head, Some(SEGMENT_HELD)).await;
    peer.answer(second, &body, Some(SEGMENT_HELD)).await;
    let (third, tail) = peer.message().await;
    assert_eq!((tail.payload.len(), tail.segment.as_ref().unwrap().last), (50, true));
    let (fourth, small) = peer.message().await;
    assert_eq!(small.message_id.as_str(), "small", "what follows does not overtake");
    peer.answer(third, &tail, Some("DELY_STORED")).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Stored);
    peer.answer(fourth, &small, None).await;
    assert_eq!(outcome(following).await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn forwarded_segments_are_delivered_when_the_recipient_has_confirmed_them_and_missed_ones_are_sent_again() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(config(&server)).await;
    let sending = send(&client, large(250));
    let mut segments = Vec::new();
    for _ in 0..3 {
        let (exchange, message) = peer.message().await;
        peer.answer(exchange, &message, None).await;
        segments.push(message);
    }
    let asked = peer.send(&recovery(&segments[0], &[1, 3])).await;
    acknowledged(&mut peer, asked, "large").await;
    for number in [1, 3] {
        let (exchange, again) = peer.message().await;
        assert_eq!(again, segments[number - 1]);
        peer.answer(exchange, &again, None).await;
    }
    assert!(!sending.is_finished());
    // Somebody who is not the recipient has no say.
    let stranger =
        Message { destination: Address::ue(&"stranger@lab.example".parse().unwrap()), ..segments[0].clone() };
    let asked = peer.send(&recovery(&stranger, &[1])).await;
    let response = peer.response(asked).await;
    assert_eq!((response.code, cause(&response)), (Code::NOT_FOUND, "MESSAGE_NOT_STORED".into()));
    let exchange = peer.send(&confirmation(&stranger)).await;
    acknowledged(&mut peer, exchange, "large").await;
    assert!(!sending.is_finished());
    let exchange = peer.send(&confirmation(&segments[0])).await;
    acknowledged(&mut peer, exchange, "large").await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
    let asked = peer.send(&recovery(&segments[0], &[1])).await;
    assert_eq!(peer.response(asked).await.code, Code::NOT_FOUND, "it is confirmed and forgotten");
}

#[tokio::test]
async fn a_stored_segmented_message_is_kept_for_a_recipient_who_misses_segments() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(config(&server)).await;
    let sending = send(&client, large(150).store_and_forward(None));
    let mut segments = Vec::new();
    for _ in 0..2 {
        let (exchange, message) = peer.message().await;
        peer.answer(exchange, &message, Some("DELY_STORED")).await;
        segments.push(message);
    }
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Stored);
    drop(peer);
    let mut peer = server.accept_registered().await;
    let asked = peer.send(&recovery(&segments[0], &[2])).await;
    acknowledged(&mut peer, asked, "large").await;
    let (exchange, again) = peer.message().await;
    assert_eq!(again, segments[1]);
    peer.answer(exchange, &again, None).await;
}

#[tokio::test]
async fn a_lost_connection_has_all_segments_without_a_promise_sent_again() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(config(&server)).await;
    let sending = send(&client, large(250));
    let (exchange, message) = peer.message().await;
    peer.answer(exchange, &message, Some(SEGMENT_HELD)).await;
    peer.message().await;
    drop(peer);
    let mut peer = server.accept_registered().await;
    for number in 1..=3 {
        let (exchange, message) = peer.message().await;
        assert_eq!(message.segment.as_ref().unwrap().number, number);
        peer.answer(exchange, &message, (number < 3).then_some(SEGMENT_HELD)).await;
    }
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn a_refused_segment_fails_the_message_and_one_put_off_comes_again() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(config(&server)).await;
    let sending = send(&client, large(150));
    let (first, _) = peer.message().await;
    let (second, _) = peer.message().await;
    let full = Response::new(Code::SERVICE_UNAVAILABLE).with_content_format(50).with_max_age(0);
    peer.respond(first, full.with_payload(message::failure(&FailureCause::ReassemblyFull))).await;
    let (first, _) = peer.message().await;
    let unknown = Response::new(Code::NOT_FOUND).with_content_format(50);
    peer.respond(first, unknown.with_payload(message::failure(&FailureCause::UnknownTarget))).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Failed("UNKNOWN_TARGET".into()));
    // The answer to the other one changes nothing any more.
    peer.respond(second, Response::new(Code::CHANGED)).await;
    let sending = send(&client, large(50));
    let (exchange, message) = peer.message().await;
    assert!(message.segment.is_none());
    peer.answer(exchange, &message, None).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn segments_in_any_order_are_one_message_acknowledged_when_the_application_has_it() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(config(&server)).await;
    let segments = segments_for_me("1", 250, true);
    for segment in [&segments[2], &segments[0], &segments[2]] {
        let exchange = deliver(&mut peer, segment).await;
        acknowledged(&mut peer, exchange, "1").await;
    }
    let completing = deliver(&mut peer, &segments[1]).await;
    let message = next_message(&mut incoming).await;
    assert_eq!((message.content().payload.clone(), &message.content().segment), (payload(250), &None));
    // The next thing the client says is the acknowledgement.
    patiently(message.accept()).await.unwrap();
    acknowledged(&mut peer, completing, "1").await;
    let exchange = confirmed(&mut peer, "1").await;
    peer.respond(exchange, Response::new(Code::CHANGED)).await;
    let (exchange, UeMessage::DeliveryStatusReport(report)) = peer.request().await else { panic!("no IMDN") };
    assert_eq!(report.delivery_status, ReportDeliveryStatus::Success);
    peer.respond(exchange, Response::new(Code::CHANGED)).await;
    // All of it again: it was handed over before.
    for segment in &segments {
        let exchange = deliver(&mut peer, segment).await;
        acknowledged(&mut peer, exchange, "1").await;
    }
    peer.send(&message_to_me("2", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "2");
}

#[tokio::test]
async fn acknowledged_segments_and_an_owed_confirmation_outlive_the_client() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = || {
        let mut config = config(&server);
        config.state_dir = Some(directory.path().to_owned());
        config
    };
    let segments = segments_for_me("1", 250, false);
    let (client, incoming, mut peer) = server.connected(config()).await;
    for segment in &segments[..2] {
        let exchange = deliver(&mut peer, segment).await;
        acknowledged(&mut peer, exchange, "1").await;
    }
    drop(incoming);
    drop(peer);
    patiently(client.close()).await;

    let (client, mut incoming, mut peer) = server.connected(config()).await;
    // Complete, but given back: the segments stay.
    let exchange = deliver(&mut peer, &segments[2]).await;
    drop(next_message(&mut incoming).await);
    assert_eq!(peer.response(exchange).await.code, Code::SERVICE_UNAVAILABLE);
    let exchange = deliver(&mut peer, &segments[2]).await;
    let message = next_message(&mut incoming).await;
    assert_eq!(message.content().payload, payload(250));
    patiently(message.accept()).await.unwrap();
    acknowledged(&mut peer, exchange, "1").await;
    confirmed(&mut peer, "1").await;
    // It is never answered.
    drop(peer);
    patiently(client.close()).await;
    drop(incoming);

    let (_client, mut incoming, mut peer) = server.connected(config()).await;
    let exchange = confirmed(&mut peer, "1").await;
    peer.respond(exchange, Response::new(Code::CHANGED)).await;
    let exchange = deliver(&mut peer, &segments[1]).await;
    acknowledged(&mut peer, exchange, "1").await;
    peer.send(&message_to_me("2", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "2");
}

#[tokio::test]
async fn missing_segments_are_asked_for_and_a_message_that_stays_incomplete_is_reported_as_failed() {
    let server = Server::start().await;
    let mut config = config(&server);
    config.limits.segment_wait_milliseconds = 500;
    config.limits.segment_recoveries_max = 2;
    let (_client, _incoming, mut peer) = server.connected(config).await;
    let segments = segments_for_me("1", 350, true);
    // One after the other without a pause, which could be long enough to be asked for the rest.
    let delivered = [deliver(&mut peer, &segments[0]).await, deliver(&mut peer, &segments[3]).await];
    for exchange in delivered {
        acknowledged(&mut peer, exchange, "1").await;
    }
    for _ in 0..2 {
        let (exchange, UeMessage::SegmentRecovery(recovery)) = peer.request().await else { panic!("no SEGREC") };
        assert_eq!((recovery.set_id.as_str(), &recovery.missing[..]), ("set-7", &[2, 3][..]));
        assert_eq!(recovery.destination.as_ue().unwrap().as_str(), OTHER);
        peer.respond(exchange, Response::new(Code::CHANGED)).await;
    }
    let (_, UeMessage::DeliveryStatusReport(report)) = peer.request().await else { panic!("no IMDN") };
    assert_eq!(report.delivery_status, ReportDeliveryStatus::Failed);
    assert_eq!(report.failure_cause.as_deref(), Some("SEGMENTS_MISSING"));
}

#[tokio::test]
async fn contradicting_and_overflowing_segments_are_refused_and_harm_nobody_else() {
    let server = Server::start().await;
    let mut config = config(&server);
    config.limits.reassembly_sets_per_peer_max = 1;
    config.limits.message_payload_octets_max = 250;
    let (_client, mut incoming, mut peer) = server.connected(config).await;
    let segments = segments_for_me("1", 250, false);
    let exchange = deliver(&mut peer, &segments[0]).await;
    acknowledged(&mut peer, exchange, "1").await;
    let mut another = segments_for_me("2", 250, false)[0].clone();
    another.segment.as_mut().unwrap().set_id = "another".parse().unwrap();
    let exchange = deliver(&mut peer, &another).await;
    let response = peer.response(exchange).await;
    assert_eq!((response.code, cause(&response)), (Code::SERVICE_UNAVAILABLE, "REASSEMBLY_FULL".into()));
    assert!(response.max_age.is_some());
    let contradiction = Message { payload: payload(99), ..segments[0].clone() };
    let exchange = deliver(&mut peer, &contradiction).await;
    let response = peer.response(exchange).await;
    assert_eq!((response.code, cause(&response)), (Code::BAD_REQUEST, "MALFORMED".into()));
    let long = segments_for_me("3", 300, false);
    let mut refused = Vec::new();
    for segment in &long {
        let exchange = deliver(&mut peer, segment).await;
        refused.push(peer.response(exchange).await.code);
    }
    assert_eq!(refused[2], Code::REQUEST_ENTITY_TOO_LARGE);
    peer.send(&message_to_me("4", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "4");
}
