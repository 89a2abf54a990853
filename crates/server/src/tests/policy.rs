//! What a server does when its policy file changes.

use std::path::Path;

use http::StatusCode;
use sbi::testing::audit::AuditLog;

use super::application_server::{As, ServedApi, as_address, from_as, problem, setup, to_as};
use super::fan_out::topic_address;
use super::*;

/// In one step: nobody reads half of it.
pub(super) fn write(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

/// A server with a policy file.
struct World {
    net: Net,
    path: PathBuf,
}

impl World {
    async fn new(rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        pki::create(directory.path());
        let path = directory.path().join("policy.toml");
        write(&path, rules);
        let setup = Setup { bindings: Vec::new(), policy: Some(path.clone()), ..setup() };
        Self { net: Net::open(setup, Arc::new(directory), Arc::default()).await, path }
    }

    async fn change(&self, rules: &str) {
        write(&self.path, rules);
        self.net.follow_policy().await;
    }
}

fn application_server(id: &str, instance: &str, target_uris: &[&str]) -> String {
    format!(
        "[[application_server]]\nas_service_id = \"{id}\"\nnf_instance_id = \"{instance}\"\ntarget_uris = {target_uris:?}\n"
    )
}

fn billing() -> String {
    application_server("billing", pki::BILLING_INSTANCE, &[])
}

fn topic(name: &str, subscribers: &[&str]) -> String {
    format!("[[topic]]\nname = \"{name}\"\npublishers = [\"*\"]\nsubscribers = {subscribers:?}\n")
}

#[tokio::test]
async fn an_as_whose_right_went_is_refused_from_then_on_and_its_registration_is_gone() {
    let log = AuditLog::record();
    let world = World::new(&billing()).await;
    let (net, api) = (&world.net, ServedApi::start(&world.net).await);
    let billing_server = As::start(net, &api, "billing").await;
    let weather = As::start(net, &api, "weather").await;
    let location = billing_server.register().await.unwrap().location.unwrap();
    assert_eq!(problem(weather.register().await.unwrap_err()), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    let mut alice = net.ue("alice").await;
    billing_server.answer_with(503);
    let waiting = Message { store_and_forward: true, ..to_as("alice", "billing", "1") };
    assert_eq!(alice.send(&waiting).await, Fate::stored());

    world.change(&application_server("weather", pki::WEATHER_INSTANCE, &[])).await;
    let refused = (403, "ORIGINATOR_NOT_ALLOWED".to_owned());
    assert_eq!(problem(billing_server.send(&from_as("billing", "alice", "2")).await.unwrap_err()), refused);
    assert_eq!(problem(billing_server.register().await.unwrap_err()), refused);
    let uri = format!("{}{location}", billing_server.api);
    let removed = billing_server.client.delete::<serde_json::Value>(&uri).await.unwrap_err();
    assert_eq!(problem(removed), (404, "REGISTRATION_NOT_FOUND".into()));
    log.next_with(&[("subject", "billing"), ("action", "register"), ("reason", "rule_withdrawn")]).await;
    // As if it had never been: also after a restart.
    assert_eq!(alice.send(&to_as("alice", "billing", "3")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert_eq!(net.core.store.pending_count(&as_address("billing")), 0, "what waited has failed");
    assert!(net.core.store.application_servers().await.unwrap().is_empty());
    // And the other may.
    assert_eq!(weather.register().await.unwrap().status, StatusCode::CREATED);
    world.change(&billing()).await;
    assert_eq!(billing_server.register().await.unwrap().status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_service_id_that_is_given_to_another_certificate_is_not_its_former_holders_any_more() {
    let world = World::new(&billing()).await;
    let (net, api) = (&world.net, ServedApi::start(&world.net).await);
    let mut server = As::start(net, &api, "billing").await;
    server.register().await.unwrap();
    world.change(&application_server("billing", pki::WEATHER_INSTANCE, &[])).await;
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&to_as("alice", "billing", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert!(server.is_quiet());
    assert_eq!(problem(server.register().await.unwrap_err()), (403, "ORIGINATOR_NOT_ALLOWED".into()));
}

#[tokio::test]
async fn an_as_whose_target_may_not_be_named_any_more_is_away_until_it_may_again() {
    let world = World::new(&billing()).await;
    let (net, api) = (&world.net, ServedApi::start(&world.net).await);
    let mut server = As::start(net, &api, "billing").await;
    server.register().await.unwrap();
    let mut alice = net.ue("alice").await;
    let stored = |id: &str| Message { store_and_forward: true, ..to_as("alice", "billing", id) };
    assert_eq!(alice.send(&stored("1")).await, Fate::delivered());
    server.receive().await;
    world.change(&application_server("billing", pki::BILLING_INSTANCE, &["https://elsewhere.example"])).await;
    assert_eq!(alice.send(&stored("2")).await, Fate::stored());
    assert!(server.is_quiet());
    world.change(&billing()).await;
    assert_eq!(server.receive().await.1["msgId"], "2");
}

#[tokio::test]
async fn subscriptions_that_are_no_longer_allowed_end_and_others_stay() {
    let log = AuditLog::record();
    let open = topic("alerts/*", &["UE:bob", "UE:carol"]);
    let world = World::new(&open).await;
    let net = &world.net;
    let (mut alice, mut bob, mut carol) = (net.ue("alice").await, net.ue("bob").await, net.ue("carol").await);
    bob.subscribe("bob", "alerts/fire").await;
    carol.subscribe("carol", "alerts/fire").await;
    let sent = |id: &str| Message { destination: topic_address("alerts/fire"), ..storable("alice", "x", id) };
    assert_eq!(alice.send(&sent("1")).await, Fate::stored());
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
    assert_eq!(carol.receive().await.message_id.as_str(), "1");

    world.change(&topic("alerts/*", &["UE:carol"])).await;
    let told = [("subject", "UE:bob"), ("object", "alerts/fire"), ("reason", "rule_withdrawn")];
    log.next_with(&told).await;
    assert_eq!(net.core.topics.counts(), (1, 1));
    assert_eq!(net.core.store.subscriptions().await.unwrap().len(), 1);
    let (code, answer) = bob.subscribe_until("bob", &["alerts/fire"], None).await;
    assert_eq!((code.as_str(), answer.failure_cause.as_deref()), ("4.03", Some("TOPIC_NOT_ALLOWED")));
    assert_eq!(alice.send(&sent("2")).await, Fate::stored());
    assert_eq!(carol.receive().await.message_id.as_str(), "2");
    // Without any rule topics are not served at all.
    world.change("").await;
    assert_eq!(net.core.topics.counts(), (0, 0));
    let refused = alice.send(&sent("3")).await;
    assert_eq!(refused, Fate::failed("4.04", "TARGET_TYPE_NOT_SUPPORTED"));
}

#[tokio::test]
async fn what_is_no_longer_allowed_ends_although_the_disk_takes_nothing_and_is_off_it_after_the_next_start() {
    let World { net, path } = World::new(&[billing(), topic("fire", &["UE:bob"])].concat()).await;
    let api = ServedApi::start(&net).await;
    As::start(&net, &api, "billing").await.register().await.unwrap();
    drop(api);
    let (alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    bob.subscribe("bob", "fire").await;
    drop((alice, bob));
    let with_free_space = |mut net: Net, free_bytes_min: u64| {
        net.setup.store.database.free_bytes_min = free_bytes_min;
        net.restart()
    };
    // No file system has so much room.
    let net = with_free_space(net, u64::MAX).await;
    assert!(net.core.registry.find(&as_address("billing")).is_some(), "what was allowed before is");
    assert_eq!(net.core.topics.counts(), (1, 1));
    // It registered as it does now: that costs no write.
    let mut alice = net.ue("alice").await;

    write(&path, "");
    net.follow_policy().await;
    assert!(net.core.registry.find(&as_address("billing")).is_none());
    assert_eq!(net.core.topics.counts(), (0, 0));
    assert_eq!(alice.send(&to_as("alice", "billing", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    let on_disk = async |net: &Net| {
        let store = &net.core.store;
        (store.application_servers().await.unwrap().len(), store.subscriptions().await.unwrap().len())
    };
    assert_eq!(on_disk(&net).await, (1, 1), "the disk took nothing");
    drop(alice);
    let net = with_free_space(net, 0).await;
    assert_eq!(on_disk(&net).await, (0, 0));
    assert_eq!(net.core.topics.counts(), (0, 0));
}

#[tokio::test]
async fn who_hears_of_topics_hears_which_it_may_hear_of_from_now_on() {
    let of_billing = |name: &str| topic(name, &["UE:*", "AS:billing"]);
    let world = World::new(&[billing(), topic("fire", &["UE:*"]), of_billing("flood")].concat()).await;
    let (net, api) = (&world.net, ServedApi::start(&world.net).await);
    let mut server = As::start(net, &api, "billing").await;
    let mut bob = net.ue("bob").await;
    for name in ["fire", "flood"] {
        bob.subscribe("bob", name).await;
    }
    let body = serde_json::json!({"oriAddr": as_address("billing"),
        "destAddr": {"addrType": "AS", "addr": "msgin5g.lab.example"},
        "notificationURI": format!("https://{}/in/topics", server.target)});
    let uri = format!("{}/msgs-topiclistevent/v1/topiclist-subscriptions", server.api);
    server.client.post::<_, serde_json::Value>(&uri, &body).await.unwrap();
    let told = async |server: &mut As| server.receive().await.1["msgTopics"].clone();
    let update = |topic: &str, status: &str| serde_json::json!({"msgTopic": topic, "updateStat": status});
    assert_eq!(told(&mut server).await, serde_json::json!([update("flood", "CREATED")]));
    world.change(&[billing(), topic("flood", &["UE:*"]), of_billing("fire")].concat()).await;
    let mut updates = Vec::new();
    while updates.len() < 2 {
        updates.extend(told(&mut server).await.as_array().unwrap().clone());
    }
    assert_eq!(updates, [update("fire", "CREATED"), update("flood", "DELETED")]);
    // Its right gone, it hears of nothing any more.
    world.change(&topic("*", &["*"])).await;
    assert_eq!(net.core.topics.lists.count(), 0);
    assert!(net.core.store.topic_list_subscriptions().await.unwrap().is_empty());
}
