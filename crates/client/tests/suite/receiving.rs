//! Messages from the server to the application: each once, acknowledged when the application has it.

use std::time::Duration;

use client::{ClientError, Incoming, IncomingStream, Outcome, OutgoingMessage, Received};
use coap::{Code, ExchangeId, Release, StreamEvent};
use message::{
    Address, DecodeLimits, DeliveryStatusReport, Message, MessageResponse, Registration, ReportDeliveryStatus,
    UeMessage,
};

use crate::server::{ME, OTHER, Peer, Server, cause, message_to_me, patiently, until};

async fn next_message(incoming: &mut IncomingStream) -> Received<Message> {
    match patiently(incoming.next()).await {
        Some(Incoming::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

async fn expect_report(peer: &mut Peer, id: &str) -> ExchangeId {
    let (exchange, UeMessage::DeliveryStatusReport(report)) = peer.request().await else { panic!("no IMDN") };
    assert_eq!(report.message_id.as_str(), id);
    assert_eq!(report.originator.as_ue().unwrap().as_str(), ME);
    assert_eq!(report.destination.as_ue().unwrap().as_str(), OTHER);
    assert_eq!(report.delivery_status, ReportDeliveryStatus::Success);
    exchange
}

async fn acknowledged(peer: &mut Peer, exchange: ExchangeId, id: &str) {
    let response = peer.response(exchange).await;
    assert_eq!(response.code, Code::CHANGED);
    let answer = MessageResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
    assert_eq!((answer.message_id.as_str(), answer.status), (id, None));
}

#[tokio::test]
async fn a_message_is_acknowledged_when_it_is_accepted_and_then_reported() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    let exchange = peer.send(&message_to_me("1", true)).await;
    let message = next_message(&mut incoming).await;
    assert_eq!(message.content().payload, b"payload of 1");
    // Nothing came back before this; the next thing the client says is the acknowledgement.
    patiently(message.accept()).await.unwrap();
    acknowledged(&mut peer, exchange, "1").await;
    let report = expect_report(&mut peer, "1").await;
    peer.respond(report, coap::Response::new(Code::CHANGED)).await;
    // No report was asked for here.
    let exchange = peer.send(&message_to_me("2", false)).await;
    patiently(next_message(&mut incoming).await.accept()).await.unwrap();
    acknowledged(&mut peer, exchange, "2").await;
}

#[tokio::test]
async fn a_repeated_message_is_acknowledged_and_not_handed_over_again() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    let exchange = peer.send(&message_to_me("1", false)).await;
    patiently(next_message(&mut incoming).await.accept()).await.unwrap();
    acknowledged(&mut peer, exchange, "1").await;
    let exchange = peer.send(&message_to_me("1", false)).await;
    acknowledged(&mut peer, exchange, "1").await;
    peer.send(&message_to_me("2", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "2");
}

#[tokio::test]
async fn a_message_that_comes_again_on_another_connection_before_its_acceptance_is_handed_over_once() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    peer.send(&message_to_me("1", true)).await;
    let message = next_message(&mut incoming).await;
    drop(peer);
    let mut peer = server.accept_registered().await;
    let exchange = peer.send(&message_to_me("1", true)).await;
    peer.send(&message_to_me("2", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "2");
    patiently(message.accept()).await.unwrap();
    // The second was dropped undecided, and given back.
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let Some(StreamEvent::Response { exchange: answered, response }) = peer.event().await {
            seen.push((answered == exchange, response.code));
        }
    }
    seen.sort();
    assert_eq!(seen, [(false, Code::SERVICE_UNAVAILABLE), (true, Code::CHANGED)]);
}

#[tokio::test]
async fn a_restarted_client_hands_nothing_over_twice_and_owes_its_reports_still() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (client, mut incoming, mut peer) = server.connected(server.config_with_state(directory.path())).await;
    let exchange = peer.send(&message_to_me("1", true)).await;
    patiently(next_message(&mut incoming).await.accept()).await.unwrap();
    acknowledged(&mut peer, exchange, "1").await;
    expect_report(&mut peer, "1").await;
    // The report is never answered: the server dies, and so does the client.
    drop(peer);
    client.close().await;
    drop(incoming);

    let (client, mut incoming, mut peer) = server.connected(server.config_with_state(directory.path())).await;
    let report = expect_report(&mut peer, "1").await;
    peer.respond(report, coap::Response::new(Code::CHANGED)).await;
    let exchange = peer.send(&message_to_me("1", true)).await;
    acknowledged(&mut peer, exchange, "1").await;
    peer.send(&message_to_me("2", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "2");
    client.close().await;
    drop(incoming);

    let (_client, mut incoming, mut peer) = server.connected(server.config_with_state(directory.path())).await;
    let exchange = peer.send(&message_to_me("2", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "2", "it was not accepted before");
    assert_eq!(peer.response(exchange).await.code, Code::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_the_application_drops_goes_back_and_what_it_refuses_fails() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    let exchange = peer.send(&message_to_me("1", false)).await;
    drop(next_message(&mut incoming).await);
    let response = peer.response(exchange).await;
    assert_eq!(response.code, Code::SERVICE_UNAVAILABLE);
    assert!(response.max_age.is_some());
    // It would overtake the first.
    let second = peer.send(&message_to_me("2", false)).await;
    let response = peer.response(second).await;
    assert_eq!((response.code, cause(&response)), (Code::SERVICE_UNAVAILABLE, "OVERLOADED".into()));
    let exchange = peer.send(&message_to_me("1", false)).await;
    next_message(&mut incoming).await.refuse();
    let response = peer.response(exchange).await;
    assert_eq!((response.code, cause(&response)), (Code::FORBIDDEN, "TARGET_REFUSED".into()));
    peer.send(&message_to_me("2", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "2");
}

#[tokio::test]
async fn what_never_comes_again_holds_up_the_rest_no_longer_than_the_server_was_told_to_wait() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.come_back_seconds = 1;
    let (_client, mut incoming, mut peer) = server.connected(config).await;
    let exchange = peer.send(&message_to_me("1", false)).await;
    drop(next_message(&mut incoming).await);
    let response = peer.response(exchange).await;
    assert_eq!((response.code, response.max_age), (Code::SERVICE_UNAVAILABLE, Some(1)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    peer.send(&message_to_me("2", false)).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "2");
}

#[tokio::test]
async fn an_application_that_does_not_listen_takes_nothing() {
    let server = Server::start().await;
    let (_client, incoming, mut peer) = server.connected(server.config()).await;
    drop(incoming);
    let exchange = peer.send(&message_to_me("1", false)).await;
    assert_eq!(peer.response(exchange).await.code, Code::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_slow_application_makes_the_server_wait_and_loses_nothing() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.unaccepted_max = 2;
    let (client, mut incoming, mut peer) = server.connected(config).await;
    let first = peer.send(&message_to_me("1", false)).await;
    peer.send(&message_to_me("2", false)).await;
    until(&client, |status| status.unaccepted == 2).await;
    let third = peer.send(&message_to_me("3", false)).await;
    let response = peer.response(third).await;
    assert_eq!((response.code, cause(&response)), (Code::SERVICE_UNAVAILABLE, "OVERLOADED".into()));
    patiently(next_message(&mut incoming).await.accept()).await.unwrap();
    acknowledged(&mut peer, first, "1").await;
    let fourth = peer.send(&message_to_me("4", false)).await;
    assert_eq!(
        peer.response(fourth).await.code,
        Code::SERVICE_UNAVAILABLE,
        "there is room, but the third is before it"
    );
    peer.send(&message_to_me("3", false)).await;
    // Both at once: what is dropped would go back.
    let (second, third) = (next_message(&mut incoming).await, next_message(&mut incoming).await);
    assert_eq!((second.content().message_id.as_str(), third.content().message_id.as_str()), ("2", "3"));
}

/// Whoever asks for reports and then takes none does not keep others from reaching this client, nor it from them.
#[tokio::test]
async fn reports_that_are_not_taken_hold_up_no_message() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.unaccepted_max = 2;
    config.limits.reports_unanswered_max = 1;
    let (client, mut incoming, mut peer) = server.connected(config).await;
    let mut first = None;
    for id in ["1", "2", "3", "4", "5"] {
        let exchange = peer.send(&message_to_me(id, true)).await;
        patiently(next_message(&mut incoming).await.accept()).await.unwrap();
        acknowledged(&mut peer, exchange, id).await;
        if first.is_none() {
            first = Some(expect_report(&mut peer, "1").await);
        }
    }
    let sending =
        tokio::spawn(async move { client.send(OutgoingMessage::to_ue(&OTHER.parse().unwrap(), "hello")).await });
    let (exchange, message) = peer.message().await;
    peer.answer(exchange, &message, None).await;
    assert_eq!(patiently(sending).await.unwrap().unwrap(), Outcome::Delivered);
    peer.respond(first.unwrap(), coap::Response::new(Code::CHANGED)).await;
    expect_report(&mut peer, "2").await;
}

#[tokio::test]
async fn reports_are_handed_over_once_like_messages() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    let report = UeMessage::DeliveryStatusReport(DeliveryStatusReport {
        originator: Address::ue(&OTHER.parse().unwrap()),
        destination: Address::ue(&ME.parse().unwrap()),
        message_id: "7".parse().unwrap(),
        delivery_status: ReportDeliveryStatus::Failed,
        failure_cause: Some("EXPIRED".into()),
    });
    let exchange = peer.send(&report).await;
    let Some(Incoming::Report(received)) = patiently(incoming.next()).await else { panic!("no report") };
    assert_eq!(received.content().failure_cause.as_deref(), Some("EXPIRED"));
    patiently(received.accept()).await.unwrap();
    acknowledged(&mut peer, exchange, "7").await;
    let exchange = peer.send(&report).await;
    acknowledged(&mut peer, exchange, "7").await;
}

#[tokio::test]
async fn what_is_not_a_message_for_this_client_is_refused_with_its_reason() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    let good = message_to_me("1", false).encode();
    let to_other = String::from_utf8(good.clone()).unwrap().replace(ME, "somebody-else@lab.example");
    let registration =
        UeMessage::Registration(Registration { ue_service_id: ME.parse().unwrap(), client_profile: None }).encode();
    let large = String::from_utf8(good.clone()).unwrap().replace("cGF5bG9hZCBvZiAx", &"A".repeat(4000));
    for (path, format, payload, code, expected) in [
        ("elsewhere", Some(50), good.clone(), Code::NOT_FOUND, "UNKNOWN_TARGET"),
        ("msgin5g", Some(0), good.clone(), Code::UNSUPPORTED_CONTENT_FORMAT, "CONTENT_FORMAT_NOT_SUPPORTED"),
        ("msgin5g", Some(50), b"{".to_vec(), Code::BAD_REQUEST, "MALFORMED"),
        ("msgin5g", Some(50), registration, Code::BAD_REQUEST, "MESSAGE_TYPE_NOT_SUPPORTED"),
        ("msgin5g", Some(50), to_other.into_bytes(), Code::NOT_FOUND, "UNKNOWN_TARGET"),
        ("msgin5g", Some(50), large.into_bytes(), Code::REQUEST_ENTITY_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
    ] {
        let exchange = peer.post(path, format, payload).await;
        let response = peer.response(exchange).await;
        assert_eq!((response.code, cause(&response)), (code, expected.into()));
    }
    let exchange = peer.coap.request(coap::Request::get("msgin5g")).unwrap();
    assert_eq!(peer.response(exchange).await.code, Code::METHOD_NOT_ALLOWED);
    peer.post("msgin5g", None, good).await;
    assert_eq!(next_message(&mut incoming).await.content().message_id.as_str(), "1");
}

#[tokio::test]
async fn accepting_after_the_client_was_closed_says_that_it_may_come_again() {
    let server = Server::start().await;
    let (client, mut incoming, mut peer) = server.connected(server.config()).await;
    peer.send(&message_to_me("1", false)).await;
    let message = next_message(&mut incoming).await;
    client.close().await;
    assert!(matches!(message.accept().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_server_that_says_goodbye_still_gets_the_acknowledgement_that_it_waits_for() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    let exchange = peer.send(&message_to_me("1", false)).await;
    let message = next_message(&mut incoming).await;
    peer.coap.release(&Release { hold_off_seconds: Some(0), ..Release::default() }).unwrap();
    // An empty message has the release written.
    peer.write(&[]).await;
    patiently(message.accept()).await.unwrap();
    acknowledged(&mut peer, exchange, "1").await;
    while peer.event().await.is_some() {}
    let _peer = server.accept_registered().await;
}
