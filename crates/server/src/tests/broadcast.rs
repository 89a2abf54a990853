//! Broadcast: a real HTTP/2 server with mutual TLS in the place of the Broadcast Message Gateway, which holds what comes to
//! TS 29.538 MSGG_BGDelivery.

use std::sync::atomic::AtomicU16;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use message::ts29538::BgMessageDelivery;
use sbi::{Json, PeerIdentity, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::application_server::{As, ServedApi, as_address, from_as, problem, setup};
use super::*;

#[derive(Clone)]
struct Behaviour {
    status: Arc<AtomicU16>,
    got: mpsc::UnboundedSender<Value>,
}

/// Checks that the body is a BgMessageDelivery and nothing else, and that the server shows its certificate.
async fn take(
    State(behaviour): State<Behaviour>,
    Extension(identity): Extension<PeerIdentity>,
    Json(body): Json<Value>,
) -> StatusCode {
    assert!(identity.dns_names.iter().any(|name| name == "server.example"), "{identity:?}");
    let delivery: BgMessageDelivery = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(serde_json::to_value(&delivery).unwrap(), body, "members that the API does not have");
    behaviour.got.send(body).unwrap();
    StatusCode::from_u16(behaviour.status.load(Ordering::SeqCst)).unwrap()
}

struct World {
    net: Net,
    status: Arc<AtomicU16>,
    got: mpsc::UnboundedReceiver<Value>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// `change` sees the setup and the directory that the server has.
    async fn with(change: impl FnOnce(&mut Setup, &std::path::Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        pki::create(directory.path());
        let (sender, got) = mpsc::unbounded_channel();
        let (status, stop) = (Arc::new(AtomicU16::new(204)), CancellationToken::new());
        let behaviour = Behaviour { status: Arc::clone(&status), got: sender };
        let router =
            Router::new().route("/gateway/msgg-bgdelivery/v1/deliver-message", post(take).with_state(behaviour));
        let config = SbiServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: pki::files(directory.path(), "weather"),
            limits: ServerLimits::default(),
        };
        let server = SbiServer::start(config, router, stop.clone()).await.unwrap();
        let mut setup = setup();
        setup.destinations.gateway = Some(format!("https://{}/gateway/", server.local_addr()));
        setup.destinations.areas = vec![BroadcastAreaSection {
            area: "north".parse().unwrap(),
            senders: vec!["UE:alice".parse().unwrap(), "AS:billing".parse().unwrap()],
        }];
        change(&mut setup, directory.path());
        let net = Net::open(setup, Arc::new(directory), Arc::default()).await;
        Self { net, status, got, stop }
    }

    async fn receive(&mut self) -> Value {
        timeout(PATIENCE, self.got.recv()).await.unwrap().unwrap()
    }

    async fn restart(&mut self) {
        let placeholder = Net::new().await;
        self.net = std::mem::replace(&mut self.net, placeholder).restart().await;
    }
}

fn area(name: &str) -> Address {
    Address { addr_type: message::AddressType::Bc, addr: name.parse().unwrap() }
}

fn to_area(from: &str, name: &str, id: &str) -> Message {
    Message { destination: area(name), ..message(from, name, id) }
}

#[tokio::test]
async fn a_message_to_an_area_goes_to_the_gateway() {
    let mut world = World::new().await;
    let mut alice = world.net.ue("alice").await;
    let sent = Message {
        application_id: Some("sirens".parse().unwrap()),
        priority: Priority::High,
        ..to_area("alice", "north", "1")
    };
    assert_eq!(alice.send(&sent).await, Fate::delivered());
    let expected = serde_json::json!({
        "oriAddr": {"addrType": "UE", "addr": "alice"}, "destAddr": {"addrType": "BC", "addr": "north"},
        "appId": "sirens", "msgId": "1", "payload": "MjEuNQ==", "priority": "HIGH"
    });
    assert_eq!(world.receive().await, expected);
    // From an AS, and repeated: the same answer, and not broadcast again.
    let api = ServedApi::start(&world.net).await;
    let billing = As::start(&world.net, &api, "billing").await;
    billing.register().await.unwrap();
    let sent = Message { destination: area("north"), ..from_as("billing", "north", "2") };
    for _ in 0..2 {
        assert_eq!(billing.send(&sent).await.unwrap().status, None);
    }
    assert_eq!(world.receive().await["oriAddr"], serde_json::to_value(as_address("billing")).unwrap());
    assert!(world.got.try_recv().is_err());
}

#[tokio::test]
async fn only_an_areas_senders_may_broadcast_to_it() {
    let mut world = World::new().await;
    let (mut alice, mut mallory) = (world.net.ue("alice").await, world.net.ue("mallory").await);
    let refused = Fate::failed("4.03", "BROADCAST_NOT_ALLOWED");
    assert_eq!(mallory.send(&to_area("mallory", "north", "1")).await, refused);
    assert_eq!(alice.send(&to_area("alice", "south", "2")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    let forged = Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED");
    assert_eq!(mallory.send(&to_area("alice", "north", "3")).await, forged);
    let api = ServedApi::start(&world.net).await;
    let weather = As::start(&world.net, &api, "weather").await;
    weather.register().await.unwrap();
    let sent = Message { destination: area("north"), ..from_as("weather", "north", "4") };
    assert_eq!(problem(weather.send(&sent).await.unwrap_err()), (403, "BROADCAST_NOT_ALLOWED".into()));
    assert!(world.got.try_recv().is_err());
    // An area is nobody who could report.
    let sent = Message { delivery_status_required: true, ..to_area("alice", "north", "5") };
    assert_eq!(alice.send(&sent).await, Fate::delivered());
    assert_eq!(world.receive().await["delivStReqInd"], true);
    let report = report("mallory", "alice", "5");
    assert_eq!(mallory.send_report(&report).await, forged);
}

#[tokio::test]
async fn what_may_be_stored_waits_for_a_gateway_that_is_away_also_across_a_restart() {
    let mut world = World::new().await;
    world.status.store(503, Ordering::SeqCst);
    let mut alice = world.net.ue("alice").await;
    let unreachable = Fate::failed("2.04", "TARGET_UNREACHABLE");
    assert_eq!(alice.send(&to_area("alice", "north", "1")).await, unreachable);
    for id in ["2", "3"] {
        let sent = Message { store_and_forward: true, ..to_area("alice", "north", id) };
        assert_eq!(alice.send(&sent).await, Fate::stored());
    }
    alice.leave().await;
    world.restart().await;
    world.status.store(204, Ordering::SeqCst);
    let mut ids: Vec<Value> = Vec::new();
    while ids.last() != Some(&Value::from("3")) {
        ids.push(world.receive().await["msgId"].clone());
    }
    ids.retain(|id| id != "1");
    ids.dedup();
    assert_eq!(ids, ["2", "3"]);
    until(|| world.net.core.store.pending_count(&area("north")) == 0).await;
}

#[tokio::test]
async fn a_gateway_that_refuses_for_good_fails_the_message() {
    let mut world = World::new().await;
    world.status.store(400, Ordering::SeqCst);
    let mut alice = world.net.ue("alice").await;
    let sent = Message { store_and_forward: true, ..to_area("alice", "north", "1") };
    assert_eq!(alice.send(&sent).await, Fate::failed("2.04", "TARGET_REFUSED"));
    world.receive().await;
    assert_eq!(world.net.core.store.pending_count(&area("north")), 0);
}

#[tokio::test]
async fn areas_come_and_go_with_the_policy_file() {
    let of_alice = |areas: &[&str]| {
        let section = |area: &&str| format!("[[broadcast_area]]\narea = \"{area}\"\nsenders = [\"UE:alice\"]\n");
        areas.iter().map(section).collect::<String>()
    };
    let mut world = World::with(|setup, directory| {
        let path = directory.join("policy.toml");
        super::policy::write(&path, &of_alice(&["north"]));
        setup.policy = Some(path);
    })
    .await;
    let mut alice = world.net.ue("alice").await;
    world.status.store(503, Ordering::SeqCst);
    let stored = |area: &str, id: &str| Message { store_and_forward: true, ..to_area("alice", area, id) };
    assert_eq!(alice.send(&stored("north", "1")).await, Fate::stored());
    assert_eq!(alice.send(&to_area("alice", "south", "2")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));

    super::policy::write(&world.net.setup.policy.clone().unwrap(), &of_alice(&["south"]));
    world.net.follow_policy().await;
    world.status.store(204, Ordering::SeqCst);
    assert_eq!(alice.send(&to_area("alice", "south", "3")).await, Fate::delivered());
    assert_eq!(alice.send(&to_area("alice", "north", "4")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert_eq!(world.net.core.store.pending_count(&area("north")), 0, "what waited has failed");
    // Tries of the first message, while the gateway did not take it, and then the third.
    while world.receive().await["msgId"] != "3" {}
    assert!(world.got.try_recv().is_err());
}
