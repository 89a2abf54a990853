//! Broadcast (TS 23.554 clause 8.7.6, TS 29.538 MSGG_BGDelivery): the server process and a Broadcast Message Gateway.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::common::Lab;
use crate::neighbour::{Habit, Stranger, certificate, eventually};
use crate::peer::{Manner, Peer, TestAs, broadcast_gateway, refused};
use crate::wire::{address, msg, payload, segment, storable, with};
use crate::world::{METER, VALVE, World};

/// Who may broadcast to which area.
const AREAS: &str = r#"[
    { area = "north", senders = ["UE:meter-1@lab.example", "AS:billing@lab.example"] },
    { area = "south", senders = ["UE:meter-1@lab.example"] },
]"#;

struct Broadcasting {
    world: World,
    gateway: Peer,
}

impl Broadcasting {
    async fn start(variables: &[(&'static str, &str)]) -> Self {
        let lab = Lab::start();
        let gateway = Peer::start(&lab, "lab-nf", broadcast_gateway).await;
        let world = beside(lab, &format!("{}/gateway", gateway.root()), variables);
        Self { world, gateway }
    }

    /// The Message IDs of the next requests to the gateway.
    async fn next_ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.gateway.asked().await.body["msgId"].as_str().unwrap().to_owned());
        }
        ids
    }
}

fn beside(lab: Lab, gateway: &str, variables: &[(&'static str, &str)]) -> World {
    let areas = AREAS.replace('\n', " ");
    let section = format!("{{ gateway = \"{gateway}\" }}");
    let mut all = vec![("MSGIN5G_BROADCAST", section.as_str()), ("MSGIN5G_BROADCAST_AREA", areas.as_str())];
    all.extend(variables);
    World::beside(lab, &all)
}

fn north() -> Value {
    address("BC", "north")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_of_a_ue_and_of_an_as_reaches_the_gateway_whole_and_once() {
    let mut net = Broadcasting::start(&[]).await;
    let mut meter = net.world.ue(METER);
    let sent = with(msg(&meter.address(), &north(), "1"), json!({"priority": "HIGH", "appId": "sirens"}));
    for _ in 0..2 {
        assert!(meter.request(sent.clone()).is_delivered(), "its repetition has the same answer");
    }
    let heard = net.gateway.asked().await.body;
    for member in ["oriAddr", "destAddr", "msgId", "appId", "priority", "payload"] {
        assert_eq!(heard[member], sent[member], "{member}");
    }
    // In segments, the last one first: the gateway gets it whole.
    let parts = [[1_u8; 2000], [2; 2000]];
    for (number, status) in [(2, Some("SEGMENT_HELD")), (1, None)] {
        let one = segment(msg(&meter.address(), &north(), "2"), "set", number, 2, &parts[number as usize - 1]);
        let answer = meter.request(one);
        assert_eq!((answer.code.as_str(), answer.status()), ("2.04", status), "{answer:?}");
    }
    let heard = net.gateway.asked().await.body;
    assert_eq!((heard["msgId"].as_str(), payload(&heard)), (Some("2"), parts.concat()));
    assert_eq!(meter.receive_any()["msgType"], "SEGCONFIR");
    // An AS.
    let billing = TestAs::registered(&net.world.lab, &net.world.server, "billing").await;
    let answer = billing.send(&net.world.server, &msg(&billing.address, &north(), "3")).await.unwrap();
    assert_eq!(answer.get("status"), None, "{answer}");
    assert_eq!(net.gateway.asked().await.body["oriAddr"], billing.address);
    net.gateway.was_asked_nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_stored_waits_for_a_gateway_that_nobody_answers_for() {
    let mut net = Broadcasting::start(&[]).await;
    let mut meter = net.world.ue(METER);
    net.gateway.goes_away().await;
    meter.request(msg(&meter.address(), &north(), "1")).refused("2.04", "TARGET_UNREACHABLE");
    for (id, priority) in [("2", "MIDDLE"), ("3", "MIDDLE"), ("4", "HIGH")] {
        let sent = with(storable(&meter.address(), &north(), id), json!({"priority": priority}));
        assert!(meter.request(sent).is_stored(), "{id}");
    }
    net.gateway.comes_back().await;
    let mut ids = net.next_ids(3).await;
    // The oldest may have been on its way already when the urgent one came.
    if ids[0] != "4" {
        ids.swap(0, 1);
    }
    assert_eq!(ids, ["4", "2", "3"]);
    assert!(meter.request(msg(&meter.address(), &north(), "5")).is_delivered());
    assert_eq!(net.next_ids(1).await, ["5"]);
    net.gateway.was_asked_nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broadcasts_answered_as_stored_outlive_kill_9_of_the_server() {
    let mut net = Broadcasting::start(&[]).await;
    let mut meter = net.world.ue(METER);
    net.gateway.is(Manner::status(503));
    let sent: Vec<Value> = ["1", "2", "3"].map(|id| storable(&meter.address(), &north(), id)).into();
    for message in &sent {
        assert!(meter.request(message.clone()).is_stored());
    }
    // It dies while the gateway has one and has not said whether it takes it.
    net.gateway.is(Manner::Silent);
    net.gateway.forgets();
    net.gateway.asked().await;
    net.world.server.kill();
    net.gateway.forgets();
    net.gateway.is(Manner::Taking);
    net.world.server.start_again();
    assert_eq!(net.next_ids(3).await, ["1", "2", "3"]);
    // What its sender repeats is known from the disk.
    meter.come_back(net.world.server.address());
    for message in &sent {
        assert!(meter.request(message.clone()).is_stored());
    }
    assert!(meter.request(msg(&meter.address(), &north(), "4")).is_delivered());
    assert_eq!(net.next_ids(1).await, ["4"]);
    net.gateway.was_asked_nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_broadcasts_where_it_may_not() {
    let mut net = Broadcasting::start(&[]).await;
    let (mut meter, mut valve) = (net.world.ue(METER), net.world.ue(VALVE));
    let (own, other) = (valve.address(), meter.address());
    valve.request(storable(&own, &north(), "1")).refused("4.03", "BROADCAST_NOT_ALLOWED");
    valve.request(storable(&other, &north(), "2")).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    meter.request(msg(&other, &address("BC", "east"), "3")).refused("4.04", "UNKNOWN_TARGET");
    // Segments are held for nobody who may not send, and messages in one are refused alike.
    let one = segment(msg(&own, &north(), "4"), "set", 1, 1, b"x");
    valve.request(one).refused("4.03", "BROADCAST_NOT_ALLOWED");
    let individual: Vec<Value> = ["5", "6"].map(|id| json!({"msgId": id})).into();
    let aggregated =
        json!({"msgType": "MSG", "oriAddr": own, "destAddr": north(), "msgId": "a", "indMsgs": individual});
    valve.request(aggregated).refused("4.03", "BROADCAST_NOT_ALLOWED");
    let (lab, server) = (&net.world.lab, &net.world.server);
    let fleet = TestAs::registered(lab, server, "fleet").await;
    let sent = msg(&fleet.address, &north(), "7");
    refused(fleet.send(server, &sent).await, 403, "BROADCAST_NOT_ALLOWED");
    let sent = msg(&address("AS", "billing@lab.example"), &north(), "8");
    refused(fleet.send(server, &sent).await, 403, "ORIGINATOR_NOT_ALLOWED");
    // An area is nobody who could report.
    assert!(meter.request(with(msg(&other, &north(), "9"), json!({"delivStReqInd": true}))).is_delivered());
    let report = json!({
        "msgType": "IMDN", "oriAddr": north(), "destAddr": other, "msgId": "9", "delivSt": "REPT_DELY_SUCCESS"
    });
    valve.request(report).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    assert_eq!(net.next_ids(1).await, ["9"]);
    net.gateway.was_asked_nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_one_area_is_bounded_and_the_others_are_served() {
    let mut net = Broadcasting::start(&[("MSGIN5G_STORE__OPTIONS__LIMITS__MESSAGES_PER_RECIPIENT_MAX", "2")]).await;
    let mut meter = net.world.ue(METER);
    net.gateway.goes_away().await;
    let own = meter.address();
    for id in ["1", "2"] {
        assert!(meter.request(storable(&own, &north(), id)).is_stored());
    }
    let answer = meter.request(storable(&own, &north(), "3"));
    answer.refused("4.29", "TOO_MANY");
    assert_eq!(answer.max_age, Some(2));
    assert!(meter.request(storable(&own, &address("BC", "south"), "4")).is_stored());
    net.gateway.comes_back().await;
    let mut ids = net.next_ids(3).await;
    ids.sort();
    assert_eq!(ids, ["1", "2", "4"]);
    eventually("room for another", || meter.request(storable(&own, &north(), "3")).is_promise()).await;
    assert_eq!(net.next_ids(1).await, ["3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_gateway_says_no_broadcast_is_promised_that_it_did_not_take() {
    let mut net = Broadcasting::start(&[("MSGIN5G_LIMITS__APPLICATION_SERVER_TIMEOUT_SECONDS", "1")]).await;
    let mut meter = net.world.ue(METER);
    let own = meter.address();
    let nonsense = Manner::Saying(StatusCode::INTERNAL_SERVER_ERROR, "application/json", "\u{0}{\"status\":204");
    for (id, manner) in [("500", nonsense), ("503", Manner::status(503)), ("silent", Manner::Silent)] {
        net.gateway.is(manner);
        meter.request(msg(&own, &north(), id)).refused("2.04", "TARGET_UNREACHABLE");
        assert!(meter.request(storable(&own, &north(), &format!("stored-{id}"))).is_stored(), "{id}");
    }
    net.gateway.is(Manner::Taking);
    // Those that may wait come when it takes them again.
    let mut heard = Vec::new();
    while !heard.contains(&"stored-silent".to_owned()) {
        heard.extend(net.next_ids(1).await);
    }
    // Away and refusing are two things: this is for good.
    let forged = Manner::Saying(StatusCode::BAD_REQUEST, "application/problem+json", "{\"status\":200,\"cause\":7}");
    for (id, manner) in [("307", Manner::status(307)), ("400", forged), ("404", Manner::status(404))] {
        net.gateway.is(manner);
        meter.request(storable(&own, &north(), id)).refused("2.04", "TARGET_REFUSED");
    }
    net.gateway.is(Manner::Taking);
    assert!(meter.request(msg(&own, &north(), "last")).is_delivered());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_no_http_server_is_away_and_one_with_a_false_certificate_is_told_nothing() {
    let lab = Lab::start();
    let babbling = Stranger::start(&certificate(&lab, "lab-nf"), Habit::Babbling(b"SSH-2.0-OpenSSH_9.2\r\n")).await;
    let mut world = beside(lab, &babbling.root(), &[]);
    let mut meter = world.ue(METER);
    meter.request(msg(&meter.address(), &north(), "1")).refused("2.04", "TARGET_UNREACHABLE");
    assert!(meter.request(storable(&meter.address(), &north(), "2")).is_stored());
    drop(babbling);
    assert!(world.server.stop().success());

    let impostor = crate::neighbour::impostor(&world.lab);
    let stranger = Stranger::start(&impostor, Habit::Closing).await;
    let section = format!("{{ gateway = \"{}\" }}", stranger.root());
    let path = world.lab.path("state/third-server").display().to_string();
    let areas = AREAS.replace('\n', " ");
    let third = World::beside(
        world.lab,
        &[("MSGIN5G_BROADCAST", &section), ("MSGIN5G_BROADCAST_AREA", &areas), ("MSGIN5G_STORE__PATH", &path)],
    );
    meter.come_back(third.server.address());
    meter.request(msg(&meter.address(), &north(), "3")).refused("2.04", "TARGET_UNREACHABLE");
    assert!(meter.request(storable(&meter.address(), &north(), "4")).is_stored());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_area_that_is_no_name_is_malformed_and_the_connection_goes_on() {
    let mut net = Broadcasting::start(&[]).await;
    let mut meter = net.world.ue(METER);
    let own = meter.address();
    for wrong in [
        json!({"addrType": "BC"}),
        json!({"addrType": "BC", "addr": ""}),
        json!({"addrType": "BC", "addr": "no rth"}),
        json!({"addrType": "BC", "addr": "n\u{0}rth"}),
        json!({"addrType": "BC", "addr": "n".repeat(256)}),
        json!({"addrType": "BC", "addr": ["north"]}),
        json!({"addr": "north"}),
        json!("north"),
        Value::Null,
    ] {
        meter.request(msg(&own, &wrong, "1")).refused("4.00", "MALFORMED");
    }
    meter.request(msg(&own, &address("AREA", "north"), "1")).refused("4.04", "TARGET_TYPE_NOT_SUPPORTED");
    // Nobody but a server says whom a copy is for, and a payload has its limit.
    let forged = with(msg(&own, &north(), "1"), json!({"recAddr": own}));
    meter.request(forged).refused("4.00", "MALFORMED");
    let large = "A".repeat(2052 * 4 / 3 + 4);
    meter.request(with(msg(&own, &north(), "1"), json!({"payload": large}))).refused("4.13", "PAYLOAD_TOO_LARGE");
    assert!(meter.request(msg(&own, &north(), "1")).is_delivered());
    assert_eq!(net.next_ids(1).await, ["1"]);
    net.gateway.was_asked_nothing_more();
}
