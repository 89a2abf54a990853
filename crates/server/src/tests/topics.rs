//! Messaging Topics: subscriptions of UEs, of Application Servers, and of other servers on behalf of both; and who is told
//! which topics there are.

use http::StatusCode;
use message::ts29538::{TopicListSubscriptionAck, TopicSubscriptionAck};
use sbi::{SbiError, SbiResponse};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::application_server::{As, ServedApi, as_address, from_as, problem, setup};
use super::fan_out::{open_topics, topic_address};
use super::*;

/// `alerts/*`: published by all, subscribed to by all of the lab; `secret`: of billing alone.
fn rules() -> Vec<TopicSection> {
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let section = |name: &str, publishers: &[&str], subscribers: &[&str]| TopicSection {
        name: name.to_owned(),
        publishers: patterns(publishers),
        subscribers: patterns(subscribers),
    };
    vec![
        section("secret", &["AS:billing"], &["AS:billing"]),
        section("alerts/*", &["*"], &["UE:*@lab", "AS:billing", "SERVER:other"]),
    ]
}

/// `weather` is another server, which may act for UEs of `east.lab`.
fn with_rules() -> Setup {
    let mut setup = setup();
    setup.bindings.truncate(1);
    setup.destinations.topics = rules();
    setup.destinations.topic_servers = vec![TopicServerSection {
        server_id: "other".parse().unwrap(),
        nf_instance_id: Some(pki::WEATHER_INSTANCE.to_owned()),
        dns_name: None,
        subscribers: vec!["UE:*@east.lab".parse().unwrap(), "UE:east*@lab".parse().unwrap()],
        notification_uris: Vec::new(),
    }];
    setup
}

fn to_topic(from: Address, topic: &str, id: &str) -> Message {
    Message { originator: from, destination: topic_address(topic), ..storable("a", "b", id) }
}

impl As {
    async fn ask(&self, path: &str, body: &Value) -> Result<SbiResponse<Value>, SbiError> {
        self.client.post(&format!("{}/msgs-topiclistevent/v1/{path}", self.api), body).await
    }

    async fn subscribe(&self, subscriber: &Address, topics: &[&str]) -> Result<TopicSubscriptionAck, SbiError> {
        let body = json!({"oriAddr": subscriber, "msgTopics": topics});
        let response = self.ask("request-topic-subscription", &body).await?;
        assert_eq!(response.status, StatusCode::OK);
        Ok(serde_json::from_value(response.into_body()?).unwrap())
    }

    async fn unsubscribe(&self, subscriber: &Address, topics: &[&str]) -> Result<StatusCode, SbiError> {
        let body = json!({"oriAddr": subscriber, "msgTopics": topics});
        Ok(self.ask("request-topic-unsubscription", &body).await?.status)
    }

    fn notification_uri(&self) -> String {
        format!("https://{}/in/topics", self.target)
    }

    async fn subscribe_to_list(&self, name: &Address, uri: &str) -> Result<SbiResponse<Value>, SbiError> {
        let body = json!({
            "oriAddr": name, "destAddr": {"addrType": "AS", "addr": "msgin5g.lab.example"}, "notificationURI": uri
        });
        self.ask("topiclist-subscriptions", &body).await
    }

    /// Topics and what happened to them, of the next notification.
    async fn told(&mut self) -> Vec<(String, String)> {
        let (operation, body) = self.receive().await;
        assert_eq!(operation, "topics");
        assert!(body["exprTime"].is_string());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let topics = body["msgTopics"].as_array().unwrap();
        topics.iter().map(|topic| (text(&topic["msgTopic"]), text(&topic["updateStat"]))).collect()
    }
}

fn created(topic: &str) -> (String, String) {
    (topic.to_owned(), "CREATED".to_owned())
}

fn deleted(topic: &str) -> (String, String) {
    (topic.to_owned(), "DELETED".to_owned())
}

#[tokio::test]
async fn a_subscription_lasts_until_it_is_ended_or_expires() {
    let net = Net::of(with_rules()).await;
    let mut alice = net.ue("alice@lab").await;
    let mut bob = net.subscriber("bob@lab", "alerts/fire").await;
    let sent = |id| to_topic(address("alice@lab"), "alerts/fire", id);
    assert_eq!(alice.send(&sent("1")).await, Fate::stored());
    assert_eq!(bob.receive().await.message_id.as_str(), "1");

    let (code, answer) = bob.unsubscribe("bob@lab", &["alerts/fire", "alerts/never"]).await;
    assert_eq!((code.as_str(), answer.status.as_str()), ("2.04", "UNSUBSCRIBED"));
    assert_eq!(alice.send(&sent("2")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));

    let soon = OffsetDateTime::now_utc() + time::Duration::seconds(3);
    let (_, answer) = bob.subscribe_until("bob@lab", &["alerts/fire"], Some(soon)).await;
    assert!(answer.expiration_time.unwrap() <= soon);
    until(|| OffsetDateTime::now_utc() > soon).await;
    // Also before anybody has swept.
    assert_eq!(alice.send(&sent("3")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    crate::topics::sweep(&net.core).await;
    assert_eq!(net.core.topics.counts(), (0, 0));
    assert!(net.core.store.subscriptions().await.unwrap().is_empty());

    let far = OffsetDateTime::now_utc() + time::Duration::days(10_000);
    let (_, answer) = bob.subscribe_until("bob@lab", &["alerts/fire"], Some(far)).await;
    let latest = OffsetDateTime::now_utc() + time::Duration::days(365);
    assert!(answer.expiration_time.unwrap() <= latest);
    let past = OffsetDateTime::now_utc() - time::Duration::seconds(1);
    let (code, answer) = bob.subscribe_until("bob@lab", &["alerts/fire"], Some(past)).await;
    assert_eq!((code.as_str(), answer.status.as_str()), ("4.00", "REFUSED"));
    assert_eq!(answer.failure_cause.as_deref(), Some("MALFORMED"));
}

#[tokio::test]
async fn subscriptions_survive_a_restart_and_end_with_the_registration() {
    let net = Net::of(with_rules()).await;
    net.subscriber("bob@lab", "alerts/fire").await.leave().await;
    let mut net = net.restart().await;
    let mut alice = net.ue("alice@lab").await;
    assert_eq!(alice.send(&to_topic(address("alice@lab"), "alerts/fire", "1")).await, Fate::stored());
    until(|| net.stored_for("bob@lab") == 1).await;
    let mut bob = net.ue("bob@lab").await;
    bob.receive().await;
    assert_eq!(bob.deregister("bob@lab").await.code, Code::DELETED);
    let sent = to_topic(address("alice@lab"), "alerts/fire", "2");
    assert_eq!(alice.send(&sent).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert!(net.core.store.subscriptions().await.unwrap().is_empty());

    // One that the rules do not allow any more is none after a restart.
    net.subscriber("carol@lab", "alerts/fire").await.leave().await;
    alice.leave().await;
    bob.leave().await;
    net.setup.destinations.topics.remove(1);
    let net = net.restart().await;
    assert_eq!(net.core.topics.counts(), (0, 0));
    assert!(net.core.store.subscriptions().await.unwrap().is_empty());
}

#[tokio::test]
async fn whoever_the_rules_do_not_name_neither_subscribes_nor_publishes() {
    let net = Net::of(with_rules()).await;
    let mut alice = net.ue("alice@lab").await;
    for topics in [&["secret"][..], &["alerts/fire", "secret"], &["news"]] {
        let (code, answer) = alice.subscribe_until("alice@lab", topics, None).await;
        assert_eq!((code.as_str(), answer.status.as_str()), ("4.03", "REFUSED"));
        assert_eq!(answer.failure_cause.as_deref(), Some("TOPIC_NOT_ALLOWED"));
    }
    assert_eq!(net.core.topics.counts(), (0, 0), "all or none");
    for topic in ["secret", "news"] {
        let sent = to_topic(address("alice@lab"), topic, topic);
        assert_eq!(alice.send(&sent).await, Fate::failed("4.03", "TOPIC_NOT_ALLOWED"));
    }
    // Somebody else, and nobody.
    let (code, answer) = alice.subscribe_until("bob@lab", &["alerts/fire"], None).await;
    assert_eq!((code.as_str(), answer.failure_cause.as_deref()), ("4.03", Some("ORIGINATOR_NOT_ALLOWED")));
    let (code, _) = alice.unsubscribe("bob@lab", &["alerts/fire"]).await;
    assert_eq!(code, "4.03");
    let mut stranger = net.connect(&supi_of("stranger@lab"));
    let (code, answer) = stranger.subscribe_until("stranger@lab", &["alerts/fire"], None).await;
    assert_eq!((code.as_str(), answer.failure_cause.as_deref()), ("4.01", Some("NOT_REGISTERED")));
    let response = alice.exchange(br#"{"msgType":"TOPSUB","oriAddr":{"addrType":"UE","addr":"alice@lab"}}"#).await;
    assert_eq!(response.code.to_string(), "4.00");
    // Without rules there are no topics.
    let bare = Net::new().await;
    let (code, answer) = bare.ue("alice").await.subscribe_until("alice", &["alerts"], None).await;
    assert_eq!((code.as_str(), answer.failure_cause.as_deref()), ("4.04", Some("TARGET_TYPE_NOT_SUPPORTED")));
}

#[tokio::test]
async fn a_subscriber_has_so_many_subscriptions_and_no_more() {
    let mut setup = with_rules();
    setup.store.limits.subscriptions_per_subscriber_max = 2;
    let net = Net::of(setup).await;
    let mut alice = net.ue("alice@lab").await;
    let (code, answer) = alice.subscribe_until("alice@lab", &["alerts/1", "alerts/2", "alerts/3"], None).await;
    assert_eq!((code.as_str(), answer.failure_cause.as_deref()), ("4.29", Some("TOO_MANY")));
    assert_eq!(net.core.topics.counts(), (0, 0));
    assert!(net.core.store.subscriptions().await.unwrap().is_empty(), "all or none");
    let (code, _) = alice.subscribe_until("alice@lab", &["alerts/1", "alerts/2", "alerts/1"], None).await;
    assert_eq!((code.as_str(), net.core.topics.counts()), ("2.04", (2, 2)));
    // Renewing one takes no more room, and others have their own.
    let (code, _) = alice.subscribe_until("alice@lab", &["alerts/2"], None).await;
    assert_eq!((code.as_str(), net.core.topics.counts()), ("2.04", (2, 2)));
    net.subscriber("bob@lab", "alerts/1").await;
    assert_eq!(net.core.topics.counts(), (2, 3));
}

#[tokio::test]
async fn an_as_subscribes_itself_and_publishes() {
    let net = Net::of(with_rules()).await;
    let api = ServedApi::start(&net).await;
    let mut billing = As::start(&net, &api, "billing").await;
    let early = billing.subscribe(&as_address("billing"), &["alerts/fire"]).await.unwrap_err();
    assert_eq!(problem(early), (403, "NOT_REGISTERED".into()));
    billing.register().await.unwrap();
    let ack = billing.subscribe(&as_address("billing"), &["alerts/fire", "secret"]).await.unwrap();
    assert_eq!(ack.sub_stat, "SUBSCRIBED");
    assert!(ack.expr_time.unwrap() > OffsetDateTime::now_utc());
    let mut alice = net.subscriber("alice@lab", "alerts/fire").await;
    assert_eq!(alice.send(&to_topic(address("alice@lab"), "alerts/fire", "1")).await, Fate::stored());
    let (operation, body) = billing.receive().await;
    assert_eq!(operation, "message");
    assert_eq!(body["destAddr"], json!({"addrType": "TOPIC", "addr": "alerts/fire"}));
    assert_eq!(body["recAddr"], json!({"addrType": "AS", "addr": "billing"}));
    // What it publishes reaches the UE, and the reports on it come one by one.
    let sent = Message {
        delivery_status_required: true,
        destination: topic_address("alerts/fire"),
        ..from_as("billing", "x", "2")
    };
    assert_eq!(billing.send(&sent).await.unwrap().status, Some(DeliveryStatus::Stored));
    assert_eq!(alice.receive().await.originator, as_address("billing"));
    let reported = UeMessage::DeliveryStatusReport(DeliveryStatusReport {
        originator: address("alice@lab"),
        destination: as_address("billing"),
        message_id: "2".parse().unwrap(),
        delivery_status: ReportDeliveryStatus::Success,
        failure_cause: None,
    });
    assert_eq!(alice.send_report(&reported).await, Fate::stored());
    let (operation, body) = billing.receive().await;
    assert_eq!(operation, "report");
    assert_eq!((&body["oriAddr"]["addr"], &body["delivSt"]), (&json!("alice@lab"), &json!("REPT_DELY_SUCCESS")));
    let ended = billing.unsubscribe(&as_address("billing"), &["alerts/fire"]).await.unwrap();
    assert_eq!(ended, StatusCode::NO_CONTENT);
    let ack = billing.subscribe(&as_address("billing"), &["news"]).await.unwrap_err();
    assert_eq!(problem(ack), (403, "TOPIC_NOT_ALLOWED".into()));
}

#[tokio::test]
async fn another_server_acts_for_those_it_is_configured_for_and_nobody_else() {
    let net = Net::of(with_rules()).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    let other = As::start(&net, &api, "weather").await;
    let mut east = net.ue("east-1@lab").await;
    other.subscribe(&address("east-1@lab"), &["alerts/fire"]).await.unwrap();
    let mut alice = net.ue("alice@lab").await;
    assert_eq!(alice.send(&to_topic(address("alice@lab"), "alerts/fire", "1")).await, Fate::stored());
    assert_eq!(east.receive().await.recipient, Some(address("east-1@lab")));
    for (peer, subscriber) in [
        (&other, address("alice@lab")),
        (&other, as_address("billing")),
        (&other, as_address("other")),
        (&billing, address("east-1@lab")),
        (&billing, as_address("weather")),
    ] {
        let refusal = peer.subscribe(&subscriber, &["alerts/fire"]).await.unwrap_err();
        assert_eq!(problem(refusal), (403, "ORIGINATOR_NOT_ALLOWED".into()), "{subscriber}");
        let refusal = peer.unsubscribe(&subscriber, &["alerts/fire"]).await.unwrap_err();
        assert_eq!(problem(refusal), (403, "ORIGINATOR_NOT_ALLOWED".into()), "{subscriber}");
    }
    let unknown = other.subscribe(&address("east-2@lab"), &["alerts/fire"]).await.unwrap_err();
    assert_eq!(problem(unknown), (403, "NOT_REGISTERED".into()));
    let too_many: Vec<_> = (0..65).map(|number| format!("alerts/{number}")).collect();
    for body in [
        json!({"oriAddr": address("east-1@lab"), "msgTopics": []}),
        json!({"oriAddr": address("east-1@lab"), "msgTopics": too_many}),
        json!({"oriAddr": address("east-1@lab"), "msgTopics": ["a b"]}),
        json!({"oriAddr": address("east-1@lab")}),
        json!([]),
    ] {
        assert_eq!(problem(other.ask("request-topic-subscription", &body).await.unwrap_err()).0, 400, "{body}");
    }
    assert_eq!(other.unsubscribe(&address("east-1@lab"), &["alerts/fire"]).await.unwrap(), StatusCode::NO_CONTENT);
    assert_eq!(net.core.topics.counts(), (0, 0));
    // A server that is configured no more has nobody subscribed with the next start.
    other.subscribe(&address("east-1@lab"), &["alerts/fire"]).await.unwrap();
    east.leave().await;
    alice.leave().await;
    drop(api);
    let mut net = net;
    net.setup.destinations.topic_servers.clear();
    assert_eq!(net.restart().await.core.topics.counts(), (0, 0));
}

#[tokio::test]
async fn a_subscriber_to_the_list_is_told_of_the_topics_it_may_subscribe_to() {
    let net = Net::of(with_rules()).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    billing.subscribe(&as_address("billing"), &["secret", "alerts/old"]).await.unwrap();
    let mut other = As::start(&net, &api, "weather").await;
    let me = json!({"addrType": "AS", "addr": "other"});
    let me: Address = serde_json::from_value(me).unwrap();
    let response = other.subscribe_to_list(&me, &other.notification_uri()).await.unwrap();
    assert_eq!(response.status, StatusCode::CREATED);
    let location = response.location.clone().unwrap();
    let ack: TopicListSubscriptionAck = serde_json::from_value(response.into_body().unwrap()).unwrap();
    assert_eq!(ack.sub_stat, "SUBSCRIBED");
    assert_eq!(other.told().await, [created("alerts/old")], "what there is; nothing of what is secret");
    let mut alice = net.subscriber("alice@lab", "alerts/new").await;
    assert_eq!(other.told().await, [created("alerts/new")]);
    // A second subscriber is nothing new; the last that leaves is.
    let mut bob = net.subscriber("bob@lab", "alerts/new").await;
    alice.unsubscribe("alice@lab", &["alerts/new"]).await;
    bob.unsubscribe("bob@lab", &["alerts/new"]).await;
    assert_eq!(other.told().await, [deleted("alerts/new")]);

    // It is its own to end, by a POST.
    let id = location.rsplit('/').next().unwrap().to_owned();
    let body = |name: &Address| json!({"oriAddr": name, "destAddr": {"addrType": "AS", "addr": "x"}});
    let path = format!("topiclist-subscriptions/{id}");
    let foreign = billing.ask(&path, &body(&as_address("billing"))).await.unwrap_err();
    assert_eq!(problem(foreign), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    let foreign = billing.ask(&path, &body(&me)).await.unwrap_err();
    assert_eq!(problem(foreign), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    assert_eq!(other.ask(&path, &body(&me)).await.unwrap().status, StatusCode::NO_CONTENT);
    assert_eq!(problem(other.ask(&path, &body(&me)).await.unwrap_err()), (404, "SUBSCRIPTION_NOT_FOUND".into()));
    assert_eq!(net.core.topics.lists.count(), 0);
    assert!(net.core.store.topic_list_subscriptions().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_notification_that_is_not_taken_is_tried_again_also_after_a_restart_and_given_up_in_the_end() {
    let mut setup = with_rules();
    setup.limits.topic_notification_attempts_max = 3;
    let net = Net::of(setup).await;
    let api = ServedApi::start(&net).await;
    let mut other = As::start(&net, &api, "weather").await;
    let me: Address = serde_json::from_value(json!({"addrType": "AS", "addr": "other"})).unwrap();
    other.answer_with(503);
    other.subscribe_to_list(&me, &other.notification_uri()).await.unwrap();
    net.subscriber("alice@lab", "alerts/1").await.leave().await;
    assert_eq!(other.told().await, [created("alerts/1")]);
    other.answer_with(204);
    assert_eq!(other.told().await, [created("alerts/1")]);

    drop(api);
    let net = net.restart().await;
    let api = ServedApi::start(&net).await;
    other.api = format!("https://{}", api.address());
    assert_eq!(other.told().await, [created("alerts/1")], "after a restart it hears again of what there is");
    other.answer_with(500);
    let mut bob = net.subscriber("bob@lab", "alerts/2").await;
    for _ in 0..3 {
        assert_eq!(other.told().await, [created("alerts/2")]);
    }
    other.answer_with(204);
    bob.subscribe("bob@lab", "alerts/3").await;
    assert_eq!(other.told().await, [created("alerts/3")], "what was given up does not come back");
}

#[tokio::test]
async fn a_notification_uri_that_is_not_the_subscribers_to_name_is_refused() {
    let net = Net::of(with_rules()).await;
    let api = ServedApi::start(&net).await;
    let other = As::start(&net, &api, "weather").await;
    let me: Address = serde_json::from_value(json!({"addrType": "AS", "addr": "other"})).unwrap();
    for uri in ["http://127.0.0.1/in", "https://127.0.0.1/in?a=b", "https://a@127.0.0.1/in", "/in", ""] {
        let refusal = other.subscribe_to_list(&me, uri).await.unwrap_err();
        assert_eq!(problem(refusal), (400, "MANDATORY_IE_INCORRECT".into()), "{uri}");
    }
    for uri in ["https://127.0.0.2/in", "https://169.254.169.254/latest", "https://elsewhere.example/in"] {
        let refusal = other.subscribe_to_list(&me, uri).await.unwrap_err();
        assert_eq!(problem(refusal), (403, "NOTIFICATION_URI_NOT_ALLOWED".into()), "{uri}");
    }
    let refusal = other.subscribe_to_list(&as_address("billing"), &other.notification_uri()).await.unwrap_err();
    assert_eq!(problem(refusal), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    let past = (OffsetDateTime::now_utc() - time::Duration::hours(1)).format(&Rfc3339).unwrap();
    let body = json!({
        "oriAddr": me, "destAddr": me, "notificationURI": other.notification_uri(), "exprTime": past
    });
    let over = other.ask("topiclist-subscriptions", &body).await.unwrap_err();
    assert_eq!(problem(over), (400, "MALFORMED".into()));
}

#[tokio::test]
async fn a_subscription_to_the_list_ends_with_a_start_that_does_not_allow_its_notification_uri() {
    let net = Net::of(with_rules()).await;
    let api = ServedApi::start(&net).await;
    let (billing, other) = (As::start(&net, &api, "billing").await, As::start(&net, &api, "weather").await);
    let me: Address = serde_json::from_value(json!({"addrType": "AS", "addr": "other"})).unwrap();
    other.subscribe_to_list(&me, &other.notification_uri()).await.unwrap();
    billing.subscribe_to_list(&as_address("billing"), &billing.notification_uri()).await.unwrap();
    drop(api);
    let mut net = net.restart().await;
    assert_eq!(net.core.topics.lists.count(), 2);
    net.setup.destinations.topic_servers[0].notification_uris = vec!["https://elsewhere.example/in".to_owned()];
    let mut net = net.restart().await;
    assert_eq!(net.core.topics.lists.count(), 1);
    net.setup.bindings[0].target_uris = vec!["https://elsewhere.example/in".to_owned()];
    let net = net.restart().await;
    assert_eq!(net.core.topics.lists.count(), 0);
    assert!(net.core.store.topic_list_subscriptions().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_topic_that_everybody_may_use_needs_one_rule() {
    let mut setup = setup();
    setup.destinations.topics = open_topics();
    let net = Net::of(setup).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.subscriber("bob", "any/thing").await);
    assert_eq!(alice.send(&to_topic(address("alice"), "any/thing", "1")).await, Fate::stored());
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
}
