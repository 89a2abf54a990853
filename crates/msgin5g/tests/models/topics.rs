//! Messaging Topics (TS 23.554 clause 8.8): subscriptions that end by themselves, and another server that subscribes on behalf
//! of UEs.

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::common::Lab;
use crate::common::foreign_ue::{Answer, ForeignUe};
use crate::common::function::{Function, second_server};
use crate::neighbour::eventually;
use crate::peer::{Asked, Peer, Refused, post_as, refused};
use crate::wire::{address, storable};
use crate::world::{LAMP, METER, VALVE, World, passes};

const TOPIC: &str = "lab/news";
const SUBSCRIPTIONS: &str = "msgin5g_topic_subscriptions";

fn subscribe(ue: &mut ForeignUe, until: &str) -> Answer {
    ue.request(json!({"msgType": "TOPSUB", "oriAddr": ue.address(), "msgTopics": [TOPIC], "exprTime": until}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_ends_at_its_time_and_its_subscriber_hears_nothing_more() {
    let world = World::start(&[]);
    let (mut meter, mut valve, mut lamp) = (world.ue(METER), world.ue(VALVE), world.ue(LAMP));
    let topic = address("TOPIC", TOPIC);
    for ue in [&mut valve, &mut lamp] {
        assert_eq!(subscribe(ue, "2035-01-01T00:00:00Z").body["subStat"], "SUBSCRIBED");
    }
    assert!(meter.request(storable(&meter.address(), &topic, "1")).is_stored());
    assert_eq!((valve.receive(1), lamp.receive(1)), (vec!["1".to_owned()], vec!["1".to_owned()]));
    eventually("both subscriptions", || world.server.metric(SUBSCRIPTIONS) == 2).await;
    // A later subscription takes the place of the earlier. One whose time was over when it came is malformed.
    eventually("a subscription for a short time", || {
        let until = (OffsetDateTime::now_utc() + Duration::seconds(3)).format(&Rfc3339).unwrap();
        subscribe(&mut valve, &until).body["subStat"] == "SUBSCRIBED"
    })
    .await;
    eventually("its end", || world.server.metric(SUBSCRIPTIONS) == 1).await;
    assert!(meter.request(storable(&meter.address(), &topic, "2")).is_stored());
    assert_eq!(lamp.receive(1), ["2"]);
    let last = json!({"msgType": "TOPUNSUB", "oriAddr": lamp.address(), "msgTopics": [TOPIC]});
    assert_eq!(lamp.request(last).body["subStat"], "UNSUBSCRIBED");
    meter.request(storable(&meter.address(), &topic, "3")).refused("4.04", "UNKNOWN_TARGET");
    // Neither what was published since then, nor that it ended: this is the next that comes there.
    passes(&mut meter, &mut valve, "4");
}

/// What a subscriber to the list of topics is notified of, below `/told`.
fn list_subscriber(asked: &Asked, _: usize) -> Result<Response, String> {
    if asked.method != Method::POST || !asked.path.starts_with("/told") {
        return Err("operation".to_owned());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Another server, whose certificate is the one that the lab made for an Application Server.
struct OtherServer {
    peer: Peer,
}

impl OtherServer {
    async fn acts(
        &self,
        server: &Function,
        operation: &str,
        subscriber: &Value,
        topic: &str,
    ) -> Result<Value, Refused> {
        let body = json!({"oriAddr": subscriber, "msgTopics": [topic]});
        let uri = format!("{}/msgs-topiclistevent/v1/{operation}", server.api_root());
        post_as(&self.peer.client, &uri, &body).await
    }

    async fn subscribes(&self, server: &Function, subscriber: &Value, topic: &str) -> Result<Value, Refused> {
        self.acts(server, "request-topic-subscription", subscriber, topic).await
    }

    async fn unsubscribes(&self, server: &Function, subscriber: &Value, topic: &str) -> Result<Value, Refused> {
        self.acts(server, "request-topic-unsubscription", subscriber, topic).await
    }

    /// Waits until it was told that these topics became so, and of no others.
    async fn is_told(&mut self, topics: &[&str], status: &str) {
        let mut missing = topics.to_vec();
        while !missing.is_empty() {
            let body = self.peer.asked().await.body;
            for update in body["msgTopics"].as_array().unwrap() {
                assert_eq!(update["updateStat"], status, "{body}");
                let at = missing.iter().position(|topic| update["msgTopic"] == *topic);
                missing.remove(at.unwrap_or_else(|| panic!("{missing:?}: {body}")));
            }
        }
    }
}

/// A server that lets a neighbour act for the lamp and for nobody else, and so many topics for each.
fn with_a_neighbour(lab: Lab) -> World {
    let mut config = second_server(&lab, "second-server");
    let fleet = lab.lab_json()["application_servers"][1].clone();
    assert_eq!(fleet["as_service_id"], "fleet@lab.example");
    let rule = json!([{
        "server_id": "msgin5g.other.example", "nf_instance_id": fleet["nf_instance_id"],
        "subscribers": ["UE:lamp-3@lab.example", "UE:*@other.example"],
    }]);
    config.insert("topic_server".to_owned(), toml::Value::try_from(rule).unwrap());
    let limits = json!({"limits": {"subscriptions_per_subscriber_max": 2}});
    config["store"].as_table_mut().unwrap().insert("options".to_owned(), toml::Value::try_from(limits).unwrap());
    World { server: Function::configured(&lab, "server", "neighboured-server.toml", &config), lab }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_subscribes_its_own_ues_and_no_others_and_they_stay_subscribed_after_kill_9() {
    let mut world = with_a_neighbour(Lab::start());
    let mut other = OtherServer { peer: Peer::start(&world.lab, "as-fleet", list_subscriber).await };
    let (mut meter, mut lamp) = (world.ue(METER), world.ue(LAMP));
    let (own, lamps, topic) = (meter.address(), lamp.address(), address("TOPIC", TOPIC));
    let list = json!({
        "oriAddr": {"addrType": "AS", "addr": "msgin5g.other.example"}, "destAddr": own,
        "notificationURI": format!("{}/told", other.peer.root())
    });
    let uri = format!("{}/msgs-topiclistevent/v1/topiclist-subscriptions", world.server.api_root());
    assert_eq!(post_as(&other.peer.client, &uri, &list).await.unwrap()["subStat"], "SUBSCRIBED");

    assert_eq!(other.subscribes(&world.server, &lamps, TOPIC).await.unwrap()["subStat"], "SUBSCRIBED");
    assert!(meter.request(storable(&own, &topic, "1")).is_stored());
    let copy = lamp.receive_any();
    assert_eq!((&copy["msgId"], &copy["recAddr"], &copy["destAddr"]), (&json!("1"), &lamps, &topic));
    // Not its own, and its own that is not here.
    refused(other.subscribes(&world.server, &own, TOPIC).await, 403, "ORIGINATOR_NOT_ALLOWED");
    refused(other.unsubscribes(&world.server, &own, TOPIC).await, 403, "ORIGINATOR_NOT_ALLOWED");
    let stranger = address("UE", "lamp-3@other.example");
    refused(other.subscribes(&world.server, &stranger, TOPIC).await, 403, "NOT_REGISTERED");
    refused(other.subscribes(&world.server, &lamps, "secret/plans").await, 403, "TOPIC_NOT_ALLOWED");
    let billing = Peer::start(&world.lab, "as-billing", list_subscriber).await;
    let nobody = OtherServer { peer: billing };
    refused(nobody.subscribes(&world.server, &lamps, "lab/forged").await, 403, "ORIGINATOR_NOT_ALLOWED");
    // At the limit: what it has stays.
    assert_eq!(other.subscribes(&world.server, &lamps, "lab/weather").await.unwrap()["subStat"], "SUBSCRIBED");
    let answer = refused(other.subscribes(&world.server, &lamps, "lab/third").await, 429, "TOO_MANY");
    assert_eq!(answer.retry_after, Some(2));
    eventually("both subscriptions", || world.server.metric(SUBSCRIPTIONS) == 2).await;
    other.is_told(&[TOPIC, "lab/weather"], "CREATED").await;

    world.crash();
    eventually("both subscriptions", || world.server.metric(SUBSCRIPTIONS) == 2).await;
    other.is_told(&[TOPIC, "lab/weather"], "CREATED").await;
    meter.come_back(world.server.address());
    assert!(meter.request(storable(&own, &topic, "2")).is_stored(), "it is away, and subscribed");
    lamp.come_back(world.server.address());
    let mut heard = lamp.receive(1);
    // What was handed over shortly before the crash may come again.
    while heard.last().is_some_and(|id| id != "2") {
        heard.extend(lamp.receive(1));
    }
    other.unsubscribes(&world.server, &lamps, TOPIC).await.unwrap();
    meter.request(storable(&own, &topic, "3")).refused("4.04", "UNKNOWN_TARGET");
    passes(&mut meter, &mut lamp, "4");
    other.is_told(&[TOPIC], "DELETED").await;
}
