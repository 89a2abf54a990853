//! What nobody outside can use up at an API exposing function, and what a restart does not give back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod support;

use std::time::{Duration, Instant};

use akma::AefPsk;
use http::{Method, StatusCode};
use sbi::capif::aef::{AefLimits, InvocationCounts};
use sbi::capif::connection::{Connection, Content};
use sbi::capif::invoker::{Agreement, Invoker};
use sbi::capif::publish::SecurityMethod;
use support::{API, Aef, RETRIEVE, World, cause, decisions, onboarding};
use tokio::net::TcpStream;
use transport::{HandshakeError, connect_api_psk};

const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(connection: &mut Connection) -> (StatusCode, String) {
    let answer = connection.request(Method::POST, RETRIEVE, None, Content::Json(b"{}".to_vec())).await.unwrap();
    (answer.status, cause(&answer))
}

async fn call(invoker: &Invoker, agreement: &Agreement) -> (StatusCode, String) {
    ask(&mut invoker.connect_to(agreement).await.unwrap()).await
}

/// A handshake with a made-up identity; what ended it.
async fn stranger(aef: &Aef, identity: &str) -> HandshakeError {
    let socket = TcpStream::connect(aef.by_psk).await.unwrap();
    connect_api_psk(socket, "localhost", identity, &AefPsk::from_hex(&"00".repeat(32)).unwrap()).await.unwrap_err()
}

/// How often the core function was asked about somebody whom it does not know.
fn asked_in_vain(world: &World) -> u64 {
    decisions(&world.metrics(), "refused", "invoker_not_found")
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_with_made_up_identities_cause_few_questions_and_push_nobody_out() {
    let mut world = World::with(|config| config.admin = Some(([127, 0, 0, 1], 0).into())).await;
    // There is room for one who is trusted.
    world.aef_limits = AefLimits { invokers_max: 1, unknown_max: 8, unknown_per_source_max: 4, ..AefLimits::default() };
    let aef = world.aef("nef", &[API], 3_600).await;
    let alice = world.onboard_tls12("alice").await;
    let agreement = alice.negotiate(API, vec![SecurityMethod::Psk]).await.unwrap();
    let mut open = alice.connect_to(&agreement).await.unwrap();
    assert_eq!(ask(&mut open).await.0, StatusCode::OK);

    let (begun, before) = (Instant::now(), asked_in_vain(&world));
    for round in 0..10 {
        let flood = (0..30).map(|number| {
            let aef = &aef;
            async move { stranger(aef, &format!("stranger-{round}-{number}")).await }
        });
        for error in futures_util::future::join_all(flood).await {
            assert!(matches!(error, HandshakeError::PeerAlert(115)), "unknown_psk_identity, and not {error:?}");
        }
        // One who is known goes on, by a new handshake, too, though from the same address.
        assert_eq!(call(&alice, &agreement).await.0, StatusCode::OK);
    }
    // Four in ten seconds; a window may have begun before and one may end after.
    let windows = begun.elapsed().as_secs() / 10 + 2;
    let asked = asked_in_vain(&world) - before;
    assert!((1..=4 * windows).contains(&asked), "{asked} questions about 300 strangers in {windows} windows");

    // What is believed about her was pushed out by none of them: nobody is left to ask.
    world.stop_core().await;
    assert_eq!(ask(&mut open).await.0, StatusCode::OK);
}

async fn limited(allowed: u64) -> World {
    World::with(|config| {
        config.onboardings = vec![onboarding("alice")];
        config.onboardings[0].allowed_total_invocations = Some(allowed);
    })
    .await
}

async fn stop(aef: Aef) {
    aef.shutdown.cancel();
}

async fn agreed(invoker: &Invoker) -> Agreement {
    invoker.negotiate(API, vec![SecurityMethod::Pki]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_over_a_restart_of_the_exposing_function() {
    let world = limited(3).await;
    let aef = world.aef("nef", &[API], 30).await;
    let alice = world.onboard("alice").await;
    let agreement = agreed(&alice).await;
    for _ in 0..2 {
        assert_eq!(call(&alice, &agreement).await.0, StatusCode::OK);
    }
    stop(aef).await;
    let aef = world.aef("nef", &[API], 30).await;
    let agreement = agreed(&alice).await;
    assert_eq!(call(&alice, &agreement).await.0, StatusCode::OK);
    let used_up = (StatusCode::FORBIDDEN, "INVOCATIONS_USED_UP".to_owned());
    assert_eq!(call(&alice, &agreement).await, used_up);
    stop(aef).await;
    let _aef = world.aef("nef", &[API], 30).await;
    assert_eq!(call(&alice, &agreed(&alice).await).await, used_up);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_go_with_the_invoker_and_not_with_its_agreement() {
    let world = limited(3).await;
    let aef = world.aef("nef", &[API], 30).await;
    let alice = world.onboard("alice").await;
    assert_eq!(call(&alice, &agreed(&alice).await).await.0, StatusCode::OK);
    // Agreed anew, nothing is counted anew.
    for expected in [StatusCode::OK, StatusCode::OK, StatusCode::FORBIDDEN] {
        assert_eq!(call(&alice, &agreed(&alice).await).await.0, expected);
    }
    assert_eq!(world.counts("nef").all().unwrap(), [(format!("{} {API}", alice.id()), 3)]);
    alice.offboard().await.unwrap();
    let gone = async {
        while !world.counts("nef").all().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    drop(aef);
}
