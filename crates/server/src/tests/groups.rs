//! Groups of a SEAL group management server: a real HTTP/2 server that speaks `ss-gm/v1`.

use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use message::ServiceAddress;
use sbi::ss_gm::{GroupQuery, SsGmClient, VALGroupDocument};
use sbi::{Json, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::application_server::{As, ServedApi, as_address, from_as, setup};
use super::*;
use crate::groups::{Group, GroupError};

/// What the group management server does.
#[derive(Clone, Default)]
struct Behaviour {
    documents: Arc<Mutex<Vec<VALGroupDocument>>>,
    status: Arc<Mutex<Option<StatusCode>>>,
    /// Requests wait while this is held.
    gate: Arc<tokio::sync::Mutex<()>>,
    asked: Arc<AtomicUsize>,
}

async fn documents(State(behaviour): State<Behaviour>, Query(query): Query<GroupQuery>) -> Response {
    behaviour.asked.fetch_add(1, Ordering::SeqCst);
    drop(behaviour.gate.lock().await);
    if let Some(status) = *behaviour.status.lock().unwrap() {
        return status.into_response();
    }
    let all = behaviour.documents.lock().unwrap().clone();
    let asked_for = |document: &VALGroupDocument| query.val_group_id.as_deref() == Some(document.val_group_id.as_str());
    Json(all.into_iter().filter(asked_for).collect::<Vec<_>>()).into_response()
}

/// A server, and the group management server that it asks.
struct World {
    net: Net,
    groups: Behaviour,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    async fn new(limits: impl FnOnce(&mut Limits)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        pki::create(directory.path());
        let (groups, stop) = (Behaviour::default(), CancellationToken::new());
        let router = Router::new().route("/ss-gm/v1/group-documents", get(documents)).with_state(groups.clone());
        let config = SbiServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: pki::files(directory.path(), "weather"),
            limits: ServerLimits::default(),
        };
        let server = SbiServer::start(config, router, stop.clone()).await.unwrap();
        let client =
            SbiClient::new(SbiClientConfig { tls: pki::server(directory.path()), limits: ClientLimits::default() });
        let source = SsGmClient::new(client.unwrap(), format!("https://{}", server.local_addr()));
        let mut setup = setup();
        setup.limits.report_aggregation_seconds = 3600;
        setup.limits.group_cache_seconds = 0;
        limits(&mut setup.limits);
        setup.destinations.groups = Some(Arc::new(source));
        let net = Net::open(setup, Arc::new(directory), Arc::default()).await;
        Self { net, groups, stop }
    }

    /// Provisions a group in place of an earlier one of the same name.
    fn provision(&self, group: &str, members: &[&str], configuration: Option<Value>) {
        let ids: Vec<UeServiceId> = members.iter().map(|member| member.parse().unwrap()).collect();
        let mut document = VALGroupDocument::new(group.parse().unwrap()).with_members(&ids);
        document.val_grp_conf = configuration.map(|configuration| configuration.to_string());
        let mut documents = self.groups.documents.lock().unwrap();
        documents.retain(|earlier| earlier.val_group_id != document.val_group_id);
        documents.push(document);
    }

    fn asked(&self) -> usize {
        self.groups.asked.load(Ordering::SeqCst)
    }
}

fn group_address(name: &str) -> Address {
    Address { addr_type: message::AddressType::Group, addr: name.parse().unwrap() }
}

fn to_group(from: &str, group: &str, id: &str) -> Message {
    Message { destination: group_address(group), ..storable(from, group, id) }
}

#[tokio::test]
async fn every_member_gets_a_copy_that_names_group_and_member() {
    let world = World::new(|_| {}).await;
    let net = &world.net;
    world.provision("crew", &["alice", "bob", "carol", "nobody"], None);
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    net.away_ue("carol").await;
    let sent = Message { delivery_status_required: true, ..to_group("alice", "crew", "1") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    let copy = bob.receive().await;
    assert_eq!((copy.destination, copy.recipient), (group_address("crew"), Some(address("bob"))));
    let mut carol = net.ue("carol").await;
    assert_eq!(carol.receive().await.recipient, Some(address("carol")));
    assert_eq!(carol.send_report(&report("carol", "alice", "1")).await, Fate::stored());
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    let (exchange, told) = alice.delivery().await;
    alice.respond(exchange, Code::CHANGED).await;
    let UeMessage::AggregatedReport(told) = told else { panic!("{told:?}") };
    assert_eq!(told.originator, group_address("crew"));
    let mut causes: Vec<_> = told
        .reports
        .iter()
        .map(|report| (report.originator.addr.as_str().to_owned(), report.failure_cause.clone()))
        .collect();
    causes.sort();
    let expected = [("bob", None), ("carol", None), ("nobody", Some("UNKNOWN_TARGET".to_owned()))];
    assert_eq!(causes, expected.map(|(name, cause)| (name.to_owned(), cause)));
}

#[tokio::test]
async fn members_and_further_senders_may_send_and_nobody_else() {
    let world = World::new(|_| {}).await;
    let net = &world.net;
    let api = ServedApi::start(net).await;
    let billing = As::start(net, &api, "billing").await;
    billing.register().await.unwrap();
    world.provision("crew", &["bob"], Some(json!({"senders": ["UE:chief", "AS:billing"]})));
    let (mut chief, mut mallory, mut bob) = (net.ue("chief").await, net.ue("mallory").await, net.ue("bob").await);
    assert_eq!(mallory.send(&to_group("mallory", "crew", "1")).await, Fate::failed("4.03", "GROUP_NOT_ALLOWED"));
    assert_eq!(mallory.send(&to_group("mallory", "other", "2")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert_eq!(chief.send(&to_group("chief", "crew", "1")).await, Fate::stored());
    assert_eq!(bob.receive().await.originator, address("chief"));
    let sent = Message { destination: group_address("crew"), ..from_as("billing", "crew", "1") };
    assert_eq!(billing.send(&sent).await.unwrap().status, Some(DeliveryStatus::Stored));
    assert_eq!(bob.receive().await.originator, as_address("billing"));
    assert_eq!(bob.send(&to_group("bob", "crew", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
}

#[tokio::test]
async fn the_validating_as_is_asked_first_and_its_word_holds() {
    let world = World::new(|_| {}).await;
    let net = &world.net;
    world.provision("crew", &["alice", "bob"], Some(json!({"validatingAs": "billing"})));
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    // Without it nothing goes.
    let refused = Fate::failed("5.03", "VALIDATION_UNAVAILABLE");
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, refused);
    let api = ServedApi::start(net).await;
    let mut billing = As::start(net, &api, "billing").await;
    billing.register().await.unwrap();
    let sent = Message { delivery_status_required: true, ..to_group("alice", "crew", "1") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    let (_, body) = billing.receive().await;
    assert_eq!(body["destAddr"], json!({"addrType": "GROUP", "addr": "crew"}));
    assert_eq!(body["recAddr"], json!({"addrType": "AS", "addr": "billing"}));
    assert_ne!(body["delivStReqInd"], json!(true), "it owes no report");
    bob.receive().await;

    billing.answer_with(400);
    let rejected = Fate::failed("2.04", "REJECTED_BY_AS");
    assert_eq!(alice.send(&to_group("alice", "crew", "2")).await, rejected);
    assert_eq!(alice.send(&to_group("alice", "crew", "2")).await, rejected, "the same answer again");
    billing.answer_with(503);
    assert_eq!(alice.send(&to_group("alice", "crew", "3")).await, refused);
    billing.answer_with(204);
    let sent = to_group("alice", "crew", "4");
    // It is left alone for a moment after it failed.
    timeout(PATIENCE, async { while alice.send(&sent).await == refused {} }).await.unwrap();
    assert_eq!(bob.receive().await.message_id.as_str(), "4", "nothing of what was refused");
}

#[tokio::test]
async fn without_an_answer_of_group_management_nothing_is_sent() {
    let world = World::new(|limits| {
        limits.group_timeout_seconds = 4;
        limits.group_members_max = 2;
    })
    .await;
    let net = &world.net;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let unavailable = Fate::failed("5.03", "MEMBERS_UNAVAILABLE");
    world.provision("crew", &["alice", "bob"], None);
    *world.groups.status.lock().unwrap() = Some(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, unavailable);
    *world.groups.status.lock().unwrap() = None;
    let silence = world.groups.gate.lock().await;
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, unavailable);
    drop(silence);
    // What cannot be understood whole, and what is larger than a group may be.
    world.provision("crew", &["alice", "bob"], Some(json!({"onlyOnSundays": true})));
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, unavailable);
    world.provision("crew", &["alice", "bob", "carol"], None);
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, unavailable);
    assert_eq!(net.stored_for("bob"), 0);
    world.provision("crew", &["alice", "bob"], None);
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, Fate::stored());
    until(|| net.stored_for("bob") == 1).await;
}

#[tokio::test]
async fn what_group_management_said_is_remembered_for_a_while() {
    let world = World::new(|limits| limits.group_cache_seconds = 3600).await;
    let net = &world.net;
    world.provision("crew", &["alice", "bob"], None);
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    for id in ["1", "2", "3"] {
        assert_eq!(alice.send(&to_group("alice", "crew", id)).await, Fate::stored());
        assert_eq!(bob.receive().await.message_id.as_str(), id);
        let other = to_group("alice", "none", &format!("other-{id}"));
        assert_eq!(alice.send(&other).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    }
    assert_eq!(world.asked(), 2, "once for each group, the one that is not there included");
}

#[tokio::test]
async fn a_member_removed_there_gets_nothing_more_here() {
    let world = World::new(|_| {}).await;
    let net = &world.net;
    world.provision("crew", &["alice", "bob", "carol"], None);
    let mut alice = net.ue("alice").await;
    let (mut bob, mut carol) = (net.ue("bob").await, net.ue("carol").await);
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, Fate::stored());
    bob.receive().await;
    carol.receive().await;
    world.provision("crew", &["alice", "bob"], None);
    assert_eq!(alice.send(&to_group("alice", "crew", "2")).await, Fate::stored());
    bob.receive().await;
    let exchange = alice.post(&message("alice", "carol", "3")).await;
    assert_eq!(carol.receive().await.message_id.as_str(), "3");
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn what_waits_for_group_management_is_bounded() {
    let world = World::new(|limits| {
        limits.fan_out_queue_max = 1;
        limits.group_lookups_max = 1;
        limits.group_timeout_seconds = 60;
    })
    .await;
    let net = &world.net;
    world.provision("crew", &["alice", "bob"], None);
    world.provision("team", &["alice", "bob"], None);
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let silence = world.groups.gate.lock().await;
    let first = alice.post(&to_group("alice", "crew", "1")).await;
    timeout(PATIENCE, async {
        while world.asked() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
    let second = alice.post(&to_group("alice", "crew", "2")).await;
    assert_eq!(alice.send(&to_group("alice", "crew", "3")).await, Fate::failed("4.29", "TOO_MANY"));
    // Another group has a queue of its own, and there is one look-up at once.
    assert_eq!(alice.send(&to_group("alice", "team", "4")).await, Fate::failed("5.03", "OVERLOADED"));
    // A message for one UE is none of it.
    let direct = alice.post(&message("alice", "bob", "5")).await;
    assert_eq!(bob.receive().await.message_id.as_str(), "5");
    assert_eq!(alice.fate(direct).await, Fate::delivered());
    drop(silence);
    for (exchange, id) in [(first, "1"), (second, "2")] {
        assert_eq!(alice.fate(exchange).await, Fate::stored());
        assert_eq!(bob.receive().await.message_id.as_str(), id);
    }
}

#[tokio::test]
async fn a_message_to_a_group_whose_turn_does_not_come_within_its_latency_is_told_so_in_time() {
    let world = World::new(|limits| limits.group_timeout_seconds = 3000).await;
    let net = &world.net;
    let api = ServedApi::start(net).await;
    let billing = As::start(net, &api, "billing").await;
    billing.register().await.unwrap();
    let senders = Some(json!({"senders": ["AS:billing"]}));
    world.provision("crew", &["alice"], senders);
    let silence = world.groups.gate.lock().await;
    let within = |id: &str, latency| {
        let message = from_as("billing", "crew", id);
        Message { destination: to_group("alice", "crew", id).destination, latency, ..message }
    };
    // One is looked at, the others wait for it.
    let (looked_at, waiting) = (within("1", Some(300)), within("2", Some(400)));
    let (first, second) = tokio::join!(billing.send(&looked_at), billing.send(&waiting));
    for ack in [first.unwrap(), second.unwrap()] {
        assert_eq!(ack.status, Some(DeliveryStatus::Failed));
        assert_eq!(ack.failure_cause.as_deref(), Some("LATENCY_EXCEEDED"));
    }
    drop(silence);
    let mut alice = net.ue("alice").await;
    assert_eq!(billing.send(&within("3", None)).await.unwrap().status, Some(DeliveryStatus::Stored));
    assert_eq!(alice.receive().await.message_id.as_str(), "3");
}

#[tokio::test]
async fn a_stranger_to_a_known_group_is_refused_before_those_who_wait_for_their_turn() {
    let world = World::new(|limits| {
        limits.group_cache_seconds = 3600;
        limits.fan_out_queue_max = 2;
    })
    .await;
    let net = &world.net;
    world.provision("crew", &["alice", "bob"], None);
    let (mut alice, mut mallory) = (net.ue("alice").await, net.ue("mallory").await);
    net.away_ue("bob").await;
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, Fate::stored());
    for id in 0..5 {
        let refused = mallory.send(&to_group("mallory", "crew", &id.to_string())).await;
        assert_eq!(refused, Fate::failed("4.03", "GROUP_NOT_ALLOWED"));
    }
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn a_message_accepted_before_a_crash_reaches_its_members_though_group_management_is_gone() {
    let mut world = World::new(|_| {}).await;
    let names: Vec<_> = (0..40).map(|number| format!("member-{number}")).collect();
    let members: Vec<_> = names.iter().map(String::as_str).chain(["alice"]).collect();
    world.provision("crew", &members, None);
    for name in &names {
        world.net.away_ue(name).await;
    }
    let mut alice = world.net.ue("alice").await;
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, Fate::stored());
    alice.leave().await;
    *world.groups.status.lock().unwrap() = Some(StatusCode::SERVICE_UNAVAILABLE);
    let placeholder = Net::new().await;
    world.net = std::mem::replace(&mut world.net, placeholder).restart().await;
    until(|| names.iter().all(|name| world.net.stored_for(name) >= 1)).await;
    let mut alice = world.net.ue("alice").await;
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, Fate::stored(), "the same answer again");
}

/// Panics when it is asked first.
#[derive(Default)]
struct Broken(AtomicBool);

impl GroupSource for Broken {
    fn group(&self, _: ServiceAddress) -> BoxFuture<'_, Result<Option<Group>, GroupError>> {
        assert!(self.0.swap(true, Ordering::SeqCst), "the first panics");
        let members = [address("alice"), address("bob")].into();
        Box::pin(async { Ok(Some(Group { members, senders: HashSet::new(), validating_as: None })) })
    }
}

#[tokio::test]
async fn a_worker_that_panics_leaves_its_group_to_another() {
    let mut setup = Setup::default();
    setup.destinations.groups = Some(Arc::new(Broken::default()));
    let net = Net::of(setup).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let first = alice.post(&to_group("alice", "crew", "1")).await;
    assert_eq!(alice.send(&to_group("alice", "crew", "2")).await, Fate::stored());
    assert_eq!(alice.fate(first).await, Fate::failed("5.03", "OVERLOADED"));
    assert_eq!(alice.send(&to_group("alice", "crew", "1")).await, Fate::stored());
    assert_eq!(net.core.open_requests(), 0);
}
