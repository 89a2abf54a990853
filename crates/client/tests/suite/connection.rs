//! Connecting, registering, losing the connection and coming back.

use std::time::Duration;

use client::{Client, ClientError, ClientState, OutgoingMessage};
use coap::{Code, Release, Response, StreamEvent};
use message::{FailureCause, UeMessage, failure};
use transport::{OfferedVersions, PskClientConfig};

use crate::server::{ME, OTHER, Server, is_refused_with, patiently, until};

fn refusal(code: Code, cause: FailureCause) -> Response {
    Response::new(code).with_content_format(50).with_payload(failure(&cause))
}

#[tokio::test]
async fn a_client_registers_with_its_segment_size_over_either_version_of_tls() {
    for (versions, expected) in [(OfferedVersions::Tls13, "TLS 1.3"), (OfferedVersions::Tls12, "TLS 1.2")] {
        let server = Server::start().await;
        let mut config = server.config();
        config.segment_size = Some(512);
        config.tls = PskClientConfig { versions, ..PskClientConfig::default() };
        let (client, _incoming) = Client::start(config, server.home.clone()).unwrap();
        let mut peer = server.accept().await;
        let (exchange, UeMessage::Registration(registration)) = peer.request().await else { panic!("no REG") };
        assert_eq!(registration.client_profile.unwrap().segment_size, Some(512));
        assert_eq!(client.status().state, ClientState::Connecting);
        peer.respond(exchange, Response::new(Code::CREATED)).await;
        patiently(client.registered()).await.unwrap();
        let status = client.status();
        assert_eq!(status.state, ClientState::Registered);
        assert_eq!(status.tls_version.as_deref(), Some(expected));
        assert_eq!(status.registrations, 1);
    }
}

#[tokio::test]
async fn keys_that_the_server_does_not_take_are_replaced_by_new_ones() {
    let server = Server::start().await;
    let (client, _incoming, peer) = server.connected(server.config()).await;
    let first = client.status().a_kid.unwrap();
    server.home.forget();
    drop(peer);
    assert!(server.try_accept().await.is_none(), "the old keys are refused");
    let _peer = server.accept_registered().await;
    until(&client, |status| status.state == ClientState::Registered && status.registrations == 2).await;
    assert_ne!(client.status().a_kid.unwrap(), first);
    assert_eq!(server.home.authentications(), 2);
}

#[tokio::test]
async fn a_server_that_takes_no_keys_does_not_turn_the_client_against_the_home_network() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.authentication_interval_milliseconds = 3_600_000;
    let home = server.home.clone();
    let (client, _incoming) = Client::start(config, server.home.clone()).unwrap();
    for _ in 0..6 {
        // Whatever the client has just obtained is unknown here.
        let forgetting = tokio::spawn({
            let home = home.clone();
            async move {
                loop {
                    home.forget();
                    tokio::task::yield_now().await;
                }
            }
        });
        assert!(server.try_accept().await.is_none());
        forgetting.abort();
    }
    assert_eq!(home.authentications(), 2, "the first, and one more");
    assert!(matches!(client.registered().await, Err(ClientError::KeysRefused(_))));
}

#[tokio::test]
async fn keys_are_replaced_before_they_are_too_old() {
    let server = Server::start().await;
    let mut config = server.config();
    config.authenticate_after = Some(Duration::from_millis(300));
    let (client, _incoming, mut peer) = server.connected(config).await;
    while peer.event().await.is_some() {}
    let _peer = server.accept_registered().await;
    until(&client, |status| status.registrations == 2).await;
    assert!(server.home.authentications() >= 2);
}

#[tokio::test]
async fn a_server_that_calls_the_keys_expired_makes_the_client_authenticate_anew() {
    let server = Server::start().await;
    let (client, _incoming) = Client::start(server.config(), server.home.clone()).unwrap();
    let mut peer = server.accept().await;
    let (exchange, _) = peer.request().await;
    peer.respond(exchange, refusal(Code::UNAUTHORIZED, FailureCause::AuthenticationExpired)).await;
    let _peer = server.accept_registered().await;
    patiently(client.registered()).await.unwrap();
    assert_eq!(server.home.authentications(), 2);
}

#[tokio::test]
async fn a_refused_registration_is_an_error_to_connect_and_not_the_end_of_a_started_client() {
    let server = Server::start().await;
    let (client, _incoming) = Client::start(server.config(), server.home.clone()).unwrap();
    let mut peer = server.accept().await;
    let (exchange, _) = peer.request().await;
    peer.respond(exchange, refusal(Code::FORBIDDEN, FailureCause::NotAssociated)).await;
    let error = patiently(client.registered()).await.unwrap_err();
    assert!(is_refused_with(&error, "NOT_ASSOCIATED") && error.is_final(), "{error}");
    let _peer = server.accept_registered().await;
    until(&client, |status| status.state == ClientState::Registered).await;
}

#[tokio::test]
async fn a_server_that_cannot_decide_now_is_asked_again() {
    let server = Server::start().await;
    let (client, _incoming) = Client::start(server.config(), server.home.clone()).unwrap();
    let mut peer = server.accept().await;
    let (exchange, _) = peer.request().await;
    peer.respond(exchange, refusal(Code::SERVICE_UNAVAILABLE, FailureCause::AssociationUnknown).with_max_age(0)).await;
    let _peer = server.accept_registered().await;
    patiently(client.registered()).await.unwrap();
}

#[tokio::test]
async fn a_client_comes_back_after_every_way_of_losing_the_connection() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    // The server dies.
    drop(peer);
    peer = server.accept_registered().await;
    // The server says goodbye.
    peer.coap.release(&Release::default()).unwrap();
    while peer.event().await.is_some() {}
    peer = server.accept_registered().await;
    // The server aborts.
    peer.coap.abort("no reason");
    while peer.event().await.is_some() {}
    peer = server.accept_registered().await;
    // The server talks nonsense: a reserved token length.
    peer.write(&[0x0f, 0xff, 0xff, 0xff]).await;
    assert!(matches!(peer.event().await, Some(StreamEvent::PeerReady { .. } | StreamEvent::Aborted { .. }) | None));
    drop(peer);
    let _peer = server.accept_registered().await;
    until(&client, |status| status.state == ClientState::Registered && status.registrations == 5).await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.keep_alive_milliseconds = 50;
    config.limits.pong_timeout_milliseconds = 50;
    let (client, _incoming, peer) = server.connected(config).await;
    peer.hang().await;
    let _peer = server.accept_registered().await;
    until(&client, |status| status.registrations >= 2).await;
}

#[tokio::test]
async fn a_server_that_never_answers_the_registration_is_left() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.registration_timeout_milliseconds = 50;
    let (client, _incoming) = Client::start(config, server.home.clone()).unwrap();
    server.accept().await.hang().await;
    until(&client, |status| matches!(status.last_error, Some(ClientError::Disconnected(_)))).await;
}

#[tokio::test]
async fn deregistration_ends_the_client() {
    let server = Server::start().await;
    let (client, mut incoming, mut peer) = server.connected(server.config()).await;
    let deregistering = tokio::spawn({
        let client = client.clone();
        async move { client.deregister().await }
    });
    let (exchange, UeMessage::Deregistration(deregistration)) = peer.request().await else { panic!("no DEREG") };
    assert_eq!(deregistration.ue_service_id.as_str(), ME);
    peer.respond(exchange, Response::new(Code::DELETED)).await;
    patiently(deregistering).await.unwrap().unwrap();
    assert!(matches!(peer.event().await, Some(StreamEvent::Released { .. })));
    assert!(patiently(incoming.next()).await.is_none());
    until(&client, |status| status.state == ClientState::Closed).await;
    let message = OutgoingMessage::to_ue(&OTHER.parse().unwrap(), "late");
    assert!(matches!(client.send(message).await, Err(ClientError::Closed)));
    assert!(matches!(client.deregister().await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_deregistration_without_an_answer_ends_the_client_with_an_error() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.registration_timeout_milliseconds = 200;
    let (client, _incoming, mut peer) = server.connected(config).await;
    let deregistering = tokio::spawn(async move { client.deregister().await });
    let _unanswered = peer.request().await;
    assert!(matches!(patiently(deregistering).await.unwrap(), Err(ClientError::Disconnected(_))));
}

#[tokio::test]
async fn dropping_every_handle_closes_the_connection_in_good_order() {
    let server = Server::start().await;
    let (client, incoming, mut peer) = server.connected(server.config()).await;
    drop(client);
    drop(incoming);
    assert!(matches!(peer.event().await, Some(StreamEvent::Released { .. })));
    assert!(peer.event().await.is_none());
}

#[tokio::test]
async fn two_clients_cannot_share_a_state_directory() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (client, incoming, _peer) = server.connected(server.config_with_state(directory.path())).await;
    let second = Client::start(server.config_with_state(directory.path()), server.home.clone());
    assert!(matches!(second, Err(ClientError::StateInUse { .. })));
    client.close().await;
    drop(incoming);
    assert!(Client::start(server.config_with_state(directory.path()), server.home.clone()).is_ok());
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_at_once() {
    let server = Server::start().await;
    let mut config = server.config();
    config.path = String::new();
    assert!(matches!(Client::start(config, server.home.clone()), Err(ClientError::Configuration(_))));
}
