//! Messages from the application to the server, and what is promised about them.

use client::{Client, ClientError, Outcome, OutgoingMessage};
use coap::{Code, Response};
use message::{FailureCause, failure};
use tokio::task::JoinHandle;

use crate::server::{ME, OTHER, Server, patiently, until};

fn message(id: &str) -> OutgoingMessage {
    OutgoingMessage::to_ue(&OTHER.parse().unwrap(), "hello").message_id(id.parse().unwrap())
}

fn send(client: &Client, message: OutgoingMessage) -> JoinHandle<Result<Outcome, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { client.send(message).await })
}

async fn outcome(sending: JoinHandle<Result<Outcome, ClientError>>) -> Result<Outcome, ClientError> {
    patiently(sending).await.unwrap()
}

fn refusal(code: Code, cause: FailureCause) -> Response {
    Response::new(code).with_content_format(50).with_payload(failure(&cause))
}

#[tokio::test]
async fn each_answer_of_the_server_is_told_as_it_is_meant() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    for (status, expected) in [
        (None, Outcome::Delivered),
        (Some("DELY_STORED"), Outcome::Stored),
        (Some("DELY_FAILED"), Outcome::Failed("TARGET_UNREACHABLE".into())),
        (Some("DELY_LATER"), Outcome::Other("DELY_LATER".into())),
    ] {
        let sending = send(&client, message("1").store_and_forward(None).with_report());
        let (exchange, message) = peer.message().await;
        assert_eq!(message.originator.as_ue().unwrap().as_str(), ME);
        assert!(message.store_and_forward && message.delivery_status_required);
        peer.answer(exchange, &message, status).await;
        assert_eq!(outcome(sending).await.unwrap(), expected);
    }
    for (response, expected) in [
        (refusal(Code::NOT_FOUND, FailureCause::UnknownTarget), "UNKNOWN_TARGET"),
        (Response::new(Code::FORBIDDEN), "4.03"),
    ] {
        let sending = send(&client, message("1"));
        let (exchange, _) = peer.message().await;
        peer.respond(exchange, response).await;
        assert_eq!(outcome(sending).await.unwrap(), Outcome::Failed(expected.into()));
    }
    let sending = send(&client, message("1"));
    let (exchange, _) = peer.message().await;
    peer.respond(exchange, Response::new(Code::CHANGED).with_payload("<html>")).await;
    assert!(matches!(outcome(sending).await, Err(ClientError::Protocol(_))));
}

#[tokio::test]
async fn messages_without_an_answer_are_sent_again_on_the_next_connection_under_the_same_ids() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    let mut sending = Vec::new();
    for id in ["1", "2", "3"] {
        sending.push(send(&client, message(id)));
        let (exchange, message) = peer.message().await;
        if id == "2" {
            peer.answer(exchange, &message, None).await;
            until(&client, |status| status.unanswered == 1).await;
        }
    }
    drop(peer);
    let mut peer = server.accept_registered().await;
    for expected in ["1", "3"] {
        let (exchange, message) = peer.message().await;
        assert_eq!(message.message_id.as_str(), expected);
        peer.answer(exchange, &message, None).await;
    }
    for sending in sending {
        assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
    }
}

#[tokio::test]
async fn messages_given_while_the_server_is_away_are_sent_when_it_is_back() {
    let server = Server::start().await;
    let (client, _incoming) = Client::start(server.config(), server.home.clone()).unwrap();
    let sending = send(&client, message("1"));
    let mut peer = server.accept_registered().await;
    let (exchange, message) = peer.message().await;
    peer.answer(exchange, &message, None).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again_and_its_last_word_counts_at_the_end() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    let sending = send(&client, message("1"));
    let (exchange, _) = peer.message().await;
    peer.respond(exchange, refusal(Code::SERVICE_UNAVAILABLE, FailureCause::Overloaded).with_max_age(0)).await;
    let (exchange, message_again) = peer.message().await;
    assert_eq!(message_again.message_id.as_str(), "1");
    peer.answer(exchange, &message_again, None).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);

    let server = Server::start().await;
    let mut config = server.config();
    config.limits.send_timeout_milliseconds = 500;
    let (client, _incoming, mut peer) = server.connected(config).await;
    let sending = send(&client, message("1"));
    let (exchange, _) = peer.message().await;
    peer.respond(exchange, refusal(Code::TOO_MANY_REQUESTS, FailureCause::TooMany).with_max_age(3600)).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Failed("TOO_MANY".into()));
}

#[tokio::test]
async fn a_message_without_any_answer_is_in_doubt_after_its_time() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.send_timeout_milliseconds = 200;
    let (client, _incoming, mut peer) = server.connected(config).await;
    let sending = send(&client, message("1"));
    let (exchange, late) = peer.message().await;
    assert!(matches!(outcome(sending).await, Err(ClientError::NoAnswer { message_id }) if message_id.as_str() == "1"));
    // An answer that comes after all disturbs nothing.
    peer.answer(exchange, &late, None).await;
    let sending = send(&client, message("2"));
    let (exchange, message) = peer.message().await;
    peer.answer(exchange, &message, None).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn a_server_that_forgot_the_registration_gets_a_new_one_and_the_message_again() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    let sending = send(&client, message("1"));
    let (exchange, _) = peer.message().await;
    peer.respond(exchange, refusal(Code::UNAUTHORIZED, FailureCause::NotRegistered)).await;
    let mut peer = server.accept_registered().await;
    let (exchange, message) = peer.message().await;
    peer.answer(exchange, &message, None).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
    assert_eq!(server.home.authentications(), 1, "the keys were not at fault");
}

#[tokio::test]
async fn no_more_than_the_limit_is_unanswered_at_once_and_the_rest_waits() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.unanswered_max = 2;
    config.limits.send_queue_max = 1;
    let (client, _incoming, mut peer) = server.connected(config).await;
    let sending: Vec<_> = (0..6).map(|n| send(&client, message(&n.to_string()))).collect();
    for _ in 0..3 {
        let first = peer.message().await;
        let second = peer.message().await;
        for (exchange, message) in [first, second] {
            assert!(client.status().unanswered <= 2);
            peer.answer(exchange, &message, None).await;
        }
    }
    for sending in sending {
        assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
    }
}

#[tokio::test]
async fn too_large_a_message_is_not_sent() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    let large = OutgoingMessage::to_ue(&OTHER.parse().unwrap(), vec![0; 65_537]);
    assert!(matches!(client.send(large).await, Err(ClientError::TooLarge { octets: 65_537, octets_max: 65_536 })));
    let sending = send(&client, message("1"));
    let (exchange, message) = peer.message().await;
    peer.answer(exchange, &message, None).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn closing_waits_for_answers_on_their_way() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    let sending = send(&client, message("1"));
    let (exchange, message) = peer.message().await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    peer.answer(exchange, &message, None).await;
    assert_eq!(outcome(sending).await.unwrap(), Outcome::Delivered);
    patiently(closing).await.unwrap();
}

#[tokio::test]
async fn closing_is_not_held_up_by_messages_that_find_no_room() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.unanswered_max = 1;
    config.limits.send_queue_max = 1;
    config.limits.close_timeout_milliseconds = 100;
    let (client, _incoming, mut peer) = server.connected(config).await;
    let sending: Vec<_> = (0..4).map(|n| send(&client, message(&n.to_string()))).collect();
    let _unanswered = peer.message().await;
    patiently(client.close()).await;
    // Closing again changes nothing.
    patiently(client.close()).await;
    for sending in sending {
        assert!(matches!(outcome(sending).await, Err(ClientError::Closed)));
    }
}
