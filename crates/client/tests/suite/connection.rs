//! Connecting, registering, losing the connection and coming back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use akma::AKid;
use client::{
    AkmaMaterial, Client, ClientError, ClientState, Incoming, IncomingStream, KeySource, KeySourceError,
    OutgoingMessage,
};
use coap::{Code, ExchangeId, Release, Response, StreamEvent};
use futures_util::{FutureExt, future::BoxFuture};
use message::{FailureCause, UeMessage, failure};
use transport::{OfferedVersions, PskClientConfig};

use crate::server::{HomeNetwork, ME, OTHER, Peer, Server, is_refused_with, message_to_me, patiently, until};

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
    let (client, _incoming, _earlier) = server.connected(config).await;
    let _peer = server.accept_registered().await;
    until(&client, |status| status.registrations == 2).await;
    assert!(server.home.authentications() >= 2);
}

/// The answer to a registration whose key the server takes for so many seconds more.
fn good_for(seconds: u32) -> Response {
    Response::new(Code::CREATED).with_max_age(seconds)
}

#[tokio::test]
async fn keys_are_replaced_in_the_lifetime_that_the_server_gives_them_beside_the_connection_that_serves_on() {
    let server = Server::start().await;
    let (client, mut incoming) = Client::start(server.config(), server.home.clone()).unwrap();
    let mut earlier = server.accept().await;
    let (exchange, _) = earlier.request().await;
    earlier.respond(exchange, good_for(2)).await;
    until(&client, |status| status.registrations == 1).await;

    // The next connection is on its way, and not accepted yet: the earlier one carries both ways as before.
    patiently(async {
        while server.home.authentications() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let delivered = carries(&client, &mut incoming, &mut earlier, "on-the-earlier").await;

    let mut next = server.accept().await;
    let (exchange, UeMessage::Registration(_)) = next.request().await else { panic!("no REG") };
    // What comes on the earlier one from here on is left for the server to send again, and known if it was handed over.
    next.respond(exchange, good_for(3600)).await;
    until(&client, |status| status.registrations == 2).await;
    let exchange = next.send(&message_to_me(&delivered, false)).await;
    assert_eq!(next.response(exchange).await.code, Code::CHANGED);
    carries(&client, &mut incoming, &mut next, "on-the-next").await;

    // The server ends the earlier one, and nothing comes of that.
    earlier.hang_up().await;
    while earlier.event().await.is_some() {}
    carries(&client, &mut incoming, &mut next, "still-on-the-next").await;
    assert_eq!(client.status().registrations, 2);
    assert_eq!(server.home.authentications(), 2, "not before the next ones are old");
}

#[tokio::test]
async fn a_connection_serves_on_while_there_are_no_newer_keys_for_the_next() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.backoff_max_milliseconds = 20;
    let source = NothingNewer::of(server.home.clone());
    let asked = std::sync::Arc::clone(&source.asked);
    let (client, mut incoming) = Client::start(config, source).unwrap();
    let mut peer = server.accept().await;
    let (exchange, _) = peer.request().await;
    peer.respond(exchange, good_for(0)).await;
    until(&client, |status| status.registrations == 1).await;
    for round in 0..3 {
        let before = asked.load(Ordering::SeqCst);
        patiently(async {
            while asked.load(Ordering::SeqCst) <= before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        carries(&client, &mut incoming, &mut peer, &format!("round-{round}")).await;
    }
    assert_eq!(client.status().registrations, 1);
}

#[tokio::test]
async fn a_connection_that_is_lost_while_the_next_is_made_is_followed_by_that_at_once() {
    let server = Server::start().await;
    let mut config = server.config();
    // A pause would be as good as for ever.
    config.limits.backoff_first_milliseconds = 3_600_000;
    config.limits.backoff_max_milliseconds = 3_600_000;
    let (client, _incoming) = Client::start(config, server.home.clone()).unwrap();
    let mut earlier = server.accept().await;
    let (exchange, _) = earlier.request().await;
    earlier.respond(exchange, good_for(1)).await;
    until(&client, |status| status.registrations == 1).await;
    patiently(async {
        while server.home.authentications() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // As the AAnF had it end when the newer keys came.
    drop(earlier);
    let _next = server.accept_registered().await;
    until(&client, |status| status.registrations == 2).await;
    assert_eq!(server.home.authentications(), 2);
}

/// How a registration beside the connection that serves comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mishap {
    Refused,
    NotNow,
    Unanswered,
    Lost,
}

#[tokio::test]
async fn the_earlier_connection_serves_on_until_the_next_is_registered_whatever_becomes_of_that() {
    for mishap in [Mishap::Refused, Mishap::NotNow, Mishap::Unanswered, Mishap::Lost] {
        let server = Server::start().await;
        let mut config = server.config();
        config.limits.registration_timeout_milliseconds = 3_000;
        let (client, mut incoming) = Client::start(config, server.home.clone()).unwrap();
        let mut earlier = server.accept().await;
        let (exchange, _) = earlier.request().await;
        earlier.respond(exchange, good_for(1)).await;
        until(&client, |status| status.registrations == 1).await;

        let mut next = server.accept().await;
        let (exchange, UeMessage::Registration(_)) = next.request().await else { panic!("no REG") };
        carries(&client, &mut incoming, &mut earlier, "while-it-is-unanswered").await;
        match mishap {
            Mishap::Refused => next.respond(exchange, refusal(Code::FORBIDDEN, FailureCause::NotAssociated)).await,
            Mishap::NotNow => {
                let again = refusal(Code::SERVICE_UNAVAILABLE, FailureCause::AssociationUnknown);
                next.respond(exchange, again.with_max_age(1)).await;
            }
            Mishap::Unanswered => {}
            Mishap::Lost => next.hang_up().await,
        }
        while next.event().await.is_some() {}
        carries(&client, &mut incoming, &mut earlier, "after-it-came-to-nothing").await;
        let status = client.status();
        assert_eq!((status.state, status.registrations), (ClientState::Registered, 1), "{mishap:?}");

        // It is tried again, by the same newer keys, which are as good as before.
        let mut again = server.accept().await;
        let (exchange, UeMessage::Registration(_)) = again.request().await else { panic!("no REG") };
        again.respond(exchange, good_for(3600)).await;
        until(&client, |status| status.registrations == 2).await;
        carries(&client, &mut incoming, &mut again, "on-the-next").await;
        assert_eq!(server.home.authentications(), 2, "{mishap:?}");
    }
}

#[tokio::test]
async fn what_comes_on_the_next_connection_before_it_is_registered_is_taken_then_and_what_was_unanswered_goes_there() {
    let server = Server::start().await;
    let (client, mut incoming) = Client::start(server.config(), server.home.clone()).unwrap();
    let mut earlier = server.accept().await;
    let (exchange, _) = earlier.request().await;
    earlier.respond(exchange, good_for(1)).await;
    until(&client, |status| status.registrations == 1).await;
    let mut next = server.accept().await;
    let (registration, UeMessage::Registration(_)) = next.request().await else { panic!("no REG") };

    let message = OutgoingMessage::to_ue(&OTHER.parse().unwrap(), "unanswered").message_id("u".parse().unwrap());
    let sent = tokio::spawn({
        let client = std::sync::Arc::new(client);
        async move { (client.send(message).await, client) }
    });
    let (_, unanswered) = earlier.message().await;
    assert_eq!(unanswered.message_id.as_str(), "u");
    let early = next.send(&message_to_me("early", false)).await;
    next.respond(registration, good_for(3600)).await;
    let (exchange, repeated) = next.message().await;
    assert_eq!(repeated.message_id.as_str(), "u", "under the name that the server knows");
    next.answer(exchange, &repeated, None).await;
    let (outcome, client) = patiently(sent).await.unwrap();
    outcome.unwrap();
    let handed_over = async {
        let Some(Incoming::Message(message)) = incoming.next().await else { panic!("no message") };
        assert_eq!(message.content().message_id.as_str(), "early");
        message.accept().await.unwrap();
    };
    let (response, ()) = Box::pin(patiently(async { tokio::join!(next.response(early), handed_over) })).await;
    assert_eq!(response.code, Code::CHANGED);
    assert_eq!(client.status().registrations, 2);
}

#[tokio::test]
async fn a_connection_that_is_lost_while_the_next_is_registering_is_followed_by_that() {
    let server = Server::start().await;
    let mut config = server.config();
    // A pause would be as good as for ever.
    config.limits.backoff_first_milliseconds = 3_600_000;
    config.limits.backoff_max_milliseconds = 3_600_000;
    let (client, mut incoming) = Client::start(config, server.home.clone()).unwrap();
    let mut earlier = server.accept().await;
    let (exchange, _) = earlier.request().await;
    earlier.respond(exchange, good_for(1)).await;
    until(&client, |status| status.registrations == 1).await;
    let mut next = server.accept().await;
    let (exchange, UeMessage::Registration(_)) = next.request().await else { panic!("no REG") };
    // As the server ends it when it has taken the registration.
    drop(earlier);
    until(&client, |status| status.state == ClientState::Waiting).await;
    next.respond(exchange, good_for(3600)).await;
    until(&client, |status| status.state == ClientState::Registered && status.registrations == 2).await;
    carries(&client, &mut incoming, &mut next, "on-the-next").await;
}

/// A client that is registered by a key that is good for a second, with that connection and the next, and the `REG` on the
/// latter.
async fn renewing(server: &Server) -> (Client, IncomingStream, [Peer; 2], ExchangeId) {
    let (client, incoming) = Client::start(server.config(), server.home.clone()).unwrap();
    let mut earlier = server.accept().await;
    let (exchange, _) = earlier.request().await;
    earlier.respond(exchange, good_for(1)).await;
    until(&client, |status| status.registrations == 1).await;
    let mut next = server.accept().await;
    let (exchange, UeMessage::Registration(_)) = next.request().await else { panic!("no REG") };
    (client, incoming, [earlier, next], exchange)
}

/// Ends the connection in good order, and asks to be left alone for an hour.
async fn send_away(peer: &mut Peer) {
    send_away_for(peer, 3600).await;
}

async fn send_away_for(peer: &mut Peer, seconds: u32) {
    peer.coap.release(&Release { hold_off_seconds: Some(seconds), ..Release::default() }).unwrap();
    // An empty message has the release written.
    peer.write(&[]).await;
}

#[tokio::test]
async fn who_is_sent_away_while_the_next_connection_registers_stays_away_on_that_too() {
    let server = Server::start().await;
    let (client, _incoming, [mut earlier, mut next], exchange) = Box::pin(renewing(&server)).await;
    send_away(&mut earlier).await;
    until(&client, |status| status.state == ClientState::Waiting).await;
    // Nobody takes the answer, and the next connection is left.
    next.respond(exchange, good_for(3600)).await;
    Box::pin(patiently(async { while next.event().await.is_some() {} })).await;
    let status = client.status();
    assert_eq!((status.state, status.registrations), (ClientState::Waiting, 1));
}

/// A client whose next connection is told to stay away for a while, whereupon the earlier is lost.
async fn comes_back_when_it_may(is_released: bool) {
    const AWAY: Duration = Duration::from_secs(3);
    let server = Server::start().await;
    let (client, _incoming, [earlier, mut next], exchange) = Box::pin(renewing(&server)).await;
    let told = std::time::Instant::now();
    if is_released {
        send_away_for(&mut next, 3).await;
    } else {
        next.respond(exchange, Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(3)).await;
    }
    // The client has heard it.
    Box::pin(patiently(async { while next.event().await.is_some() {} })).await;
    drop(earlier);
    let mut back = server.accept().await;
    assert!(told.elapsed() >= AWAY, "{:?}", told.elapsed());
    let (exchange, UeMessage::Registration(_)) = back.request().await else { panic!("no REG") };
    back.respond(exchange, good_for(3600)).await;
    until(&client, |status| status.state == ClientState::Registered && status.registrations == 2).await;
}

#[tokio::test]
async fn who_is_sent_away_on_the_next_connection_stays_away_although_the_earlier_is_then_lost() {
    Box::pin(comes_back_when_it_may(true)).await;
}

#[tokio::test]
async fn who_is_refused_for_a_while_on_the_next_connection_stays_away_although_the_earlier_is_then_lost() {
    Box::pin(comes_back_when_it_may(false)).await;
}

#[tokio::test]
async fn who_is_sent_away_stays_away_although_the_server_then_aborts_what_was_under_way() {
    let server = Server::start().await;
    let (client, _incoming, [mut earlier, mut next], exchange) = Box::pin(renewing(&server)).await;
    // A message waits for its answer, so that the earlier connection does not end with the Release.
    let sender = client.clone();
    tokio::spawn(async move { sender.send(OutgoingMessage::to_ue(&OTHER.parse().unwrap(), "under way")).await });
    earlier.message().await;
    send_away(&mut earlier).await;
    earlier.coap.abort("over");
    earlier.write(&[]).await;
    until(&client, |status| status.state == ClientState::Waiting).await;
    next.respond(exchange, good_for(3600)).await;
    Box::pin(patiently(async { while next.event().await.is_some() {} })).await;
    let status = client.status();
    assert_eq!((status.state, status.registrations), (ClientState::Waiting, 1));
}

/// A home network that authenticates once, and from then on when it is let.
#[derive(Clone)]
struct Slow {
    home: HomeNetwork,
    asked: std::sync::Arc<AtomicU32>,
    go_on: std::sync::Arc<tokio::sync::Semaphore>,
}

impl KeySource for Slow {
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        Box::pin(async move {
            if self.asked.fetch_add(1, Ordering::SeqCst) > 0 {
                self.go_on.acquire().await.unwrap().forget();
            }
            self.home.obtain(refused).await
        })
    }
}

#[tokio::test]
async fn who_is_sent_away_while_the_next_connection_is_made_does_not_make_it() {
    let server = Server::start().await;
    let source = Slow {
        home: server.home.clone(),
        asked: std::sync::Arc::default(),
        go_on: std::sync::Arc::new(tokio::sync::Semaphore::new(0)),
    };
    let (client, _incoming) = Client::start(server.config(), source.clone()).unwrap();
    let mut earlier = server.accept().await;
    let (exchange, _) = earlier.request().await;
    earlier.respond(exchange, good_for(1)).await;
    until(&client, |status| status.registrations == 1).await;
    patiently(async {
        while source.asked.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    send_away(&mut earlier).await;
    until(&client, |status| status.state == ClientState::Waiting).await;
    // The keys could be had now, for nobody who wants them.
    source.go_on.add_permits(8);
    while earlier.event().await.is_some() {}
    assert_eq!(server.home.authentications(), 1);
    let status = client.status();
    assert_eq!((status.state, status.registrations), (ClientState::Waiting, 1));
}

/// Has `peer` take a message of the client and deliver one to it; the Message ID of the latter.
async fn carries(client: &Client, incoming: &mut IncomingStream, peer: &mut Peer, id: &str) -> String {
    let message = OutgoingMessage::to_ue(&OTHER.parse().unwrap(), id);
    let served = async {
        let (exchange, message) = peer.message().await;
        assert_eq!(message.payload, id.as_bytes());
        peer.answer(exchange, &message, None).await;
    };
    let (sent, ()) = Box::pin(patiently(async { tokio::join!(client.send(message), served) })).await;
    sent.unwrap();
    let exchange = peer.send(&message_to_me(id, false)).await;
    let handed_over = async {
        let Some(Incoming::Message(message)) = incoming.next().await else { panic!("no message") };
        assert_eq!(message.content().payload, format!("payload of {id}").as_bytes());
        message.accept().await.unwrap();
    };
    let (response, ()) = Box::pin(patiently(async { tokio::join!(peer.response(exchange), handed_over) })).await;
    assert_eq!(response.code, Code::CHANGED);
    id.to_owned()
}

/// A home network that authenticates once: as a file that nobody writes any more.
struct NothingNewer {
    home: HomeNetwork,
    asked: std::sync::Arc<AtomicU32>,
}

impl NothingNewer {
    fn of(home: HomeNetwork) -> Self {
        Self { home, asked: std::sync::Arc::default() }
    }
}

impl KeySource for NothingNewer {
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        if refused.is_none() {
            return self.home.obtain(None);
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        async { Err(KeySourceError::NothingNewer { origin: "the file".to_owned() }) }.boxed()
    }
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
