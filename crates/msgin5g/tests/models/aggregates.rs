//! Aggregation (TS 23.554 clause 8.4): several messages in one, from and to UEs that share no code with the server.

use serde_json::{Value, json};

use crate::common::foreign_ue::ForeignUe;
use crate::neighbour::eventually;
use crate::peer::TestAs;
use crate::wire::{address, msg, payload, storable, with};
use crate::world::{LAMP, METER, TRACKER, VALVE, World, passes};

const RECEIVED: &str = "msgin5g_aggregates_received_total";
const SENT: &str = "msgin5g_aggregates_sent_total";

/// Client profile of a UE that takes aggregates of so many octets.
fn takes_aggregates(octets: u32) -> Value {
    json!({"aggrSup": true, "segmentSize": octets})
}

/// One message of an aggregate.
fn individual(id: &str) -> Value {
    json!({"msgId": id, "payload": crate::wire::payload_of(id)})
}

/// One that may be stored.
fn storable_individual(id: &str) -> Value {
    with(individual(id), json!({"stoAndFwInd": true}))
}

/// MSG with these in it.
fn aggregate(from: &Value, to: &Value, id: &str, individual: Vec<Value>) -> Value {
    json!({
        "msgType": "MSG", "oriAddr": from, "destAddr": to, "msgId": id,
        "indMsgCount": individual.len(), "indMsgs": individual
    })
}

/// The Message IDs in an aggregate.
fn ids_in(message: &Value) -> Vec<String> {
    let individual = message["indMsgs"].as_array().unwrap_or_else(|| panic!("no aggregate: {message}"));
    assert_eq!(message["indMsgCount"], individual.len());
    individual.iter().map(|each| each["msgId"].as_str().unwrap().to_owned()).collect()
}

/// What each message of an answered aggregate was answered, by its place: status and cause.
fn each_answer(body: &Value) -> Vec<(String, Option<String>, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let responses = body["indResps"].as_array().unwrap_or_else(|| panic!("no indResps: {body}"));
    let each =
        responses.iter().map(|one| (text(&one["msgId"]).unwrap(), text(&one["status"]), text(&one["failureCause"])));
    each.collect()
}

/// A UE that registers with this profile and goes away.
fn away(world: &World, subscriber: usize, profile: Value) -> ForeignUe {
    let mut ue = ForeignUe::new(&world.lab, subscriber);
    ue.authenticate();
    ue.come_back_with(world.server.address(), profile);
    ue.close();
    ue
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_as_sends_while_a_device_is_away_comes_in_one_but_what_is_urgent_alone() {
    let world = World::start(&[]);
    let mut valve = away(&world, VALVE, takes_aggregates(200));
    let billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    let to = valve.address();
    let large = with(storable(&billing.address, &to, "large"), json!({"payload": "QUJD".repeat(150)}));
    let urgent = with(storable(&billing.address, &to, "urgent"), json!({"priority": "HIGH"}));
    let sent = ["1", "2", "3"].map(|id| storable(&billing.address, &to, id));
    let then = ["4", "5"].map(|id| storable(&billing.address, &to, id));
    for message in sent.iter().chain([&large, &urgent]).chain(&then) {
        assert_eq!(billing.send(&world.server, message).await.unwrap()["status"], "DELY_STORED");
    }
    valve.come_back_with(world.server.address(), takes_aggregates(200));
    let first = valve.receive_any();
    assert_eq!((&first["msgId"], &first["priority"], first.get("indMsgs")), (&json!("urgent"), &json!("HIGH"), None));
    // What does not fit into one goes in segments by itself, in its place.
    assert_eq!(ids_in(&valve.receive_any()), ["1", "2", "3"]);
    let segments: Vec<Value> = (0..3).map(|_| valve.receive_any()).collect();
    for segment in &segments {
        assert_eq!(
            (&segment["msgId"], &segment["segInd"], segment.get("indMsgs")),
            (&json!("large"), &json!(true), None)
        );
    }
    assert_eq!(segments.iter().flat_map(payload).collect::<Vec<_>>(), b"ABC".repeat(150));
    let last = valve.receive_any();
    assert_eq!((ids_in(&last), last.get("segInd")), (vec!["4".to_owned(), "5".to_owned()], None));
    assert_eq!(last["oriAddr"], billing.address);
    assert_eq!(last["indMsgs"][0]["payload"], then[0]["payload"]);
    // All were acknowledged, so none of them comes again.
    eventually("the last acknowledgement", || world.server.metric("msgin5g_delivered_total") >= 7).await;
    valve.close();
    valve.come_back_with(world.server.address(), takes_aggregates(200));
    let sixth = msg(&billing.address, &to, "6");
    let (answer, ()) = tokio::join!(billing.send(&world.server, &sixth), async {
        assert_eq!(tokio::task::block_in_place(|| valve.receive_any())["msgId"], "6");
    });
    assert_eq!(answer.unwrap().get("status"), None);
    assert_eq!(world.server.metric(SENT), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_may_refuse_one_message_of_an_aggregate_and_its_originator_is_told() {
    let world = World::start(&[]);
    let mut valve = away(&world, VALVE, takes_aggregates(2048));
    let mut billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    for id in ["1", "2", "3"] {
        let sent = with(storable(&billing.address, &valve.address(), id), json!({"delivStReqInd": true}));
        assert_eq!(billing.send(&world.server, &sent).await.unwrap()["status"], "DELY_STORED");
    }
    valve.come_back_with(world.server.address(), takes_aggregates(2048));
    let one = valve.take_any();
    assert_eq!(ids_in(&one), ["1", "2", "3"]);
    let refusal = json!({"msgId": "2", "status": "DELY_FAILED", "failureCause": "TARGET_REFUSED"});
    let answer = json!({
        "msgType": "MSGRESP", "oriAddr": billing.address, "msgId": one["msgId"], "status": "DELY_FAILED",
        "indResps": [{"msgId": "1"}, refusal, {"msgId": "3"}]
    });
    valve.answer_oldest("2.04", answer);
    let report = billing.peer.asked().await;
    assert_eq!(report.path, "/inbox/deliver-report");
    assert_eq!((&report.body["msgId"], &report.body["delivSt"]), (&json!("2"), &json!("REPT_DELY_FAILED")));
    // Those that were taken are the device's to report on, in one; each reaches the AS by itself.
    let reports = ["1", "3"].map(|id| json!({"oriAddr": valve.address(), "msgId": id, "delivSt": "REPT_DELY_SUCCESS"}));
    let aggregated = json!({
        "msgType": "IMDN", "oriAddr": valve.address(), "destAddr": billing.address, "indReports": reports
    });
    assert!(valve.request(aggregated).is_delivered());
    for id in ["1", "3"] {
        let report = billing.peer.asked().await;
        assert_eq!((&report.body["msgId"], &report.body["delivSt"]), (&json!(id), &json!("REPT_DELY_SUCCESS")));
    }
    billing.peer.was_asked_nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_answered_as_stored_outlives_kill_9_and_comes_once() {
    let mut world = World::start(&[]);
    let mut meter = world.ue(METER);
    let mut valve = away(&world, VALVE, takes_aggregates(2048));
    let each = ["1", "2", "3"].map(storable_individual);
    let sent = aggregate(&meter.address(), &valve.address(), "a", each.into());
    assert!(meter.request(sent.clone()).is_stored());
    world.crash();
    meter.come_back(world.server.address());
    assert!(meter.request(sent).is_stored(), "its repetition is known from the disk");
    // It dies with the device having all of them and not having said so.
    valve.come_back_with(world.server.address(), takes_aggregates(2048));
    assert_eq!(ids_in(&valve.take_any()), ["1", "2", "3"]);
    world.crash();
    valve.come_back_with(world.server.address(), takes_aggregates(2048));
    assert_eq!(ids_in(&valve.receive_any()), ["1", "2", "3"]);
    meter.come_back(world.server.address());
    passes(&mut meter, &mut valve, "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_takes_no_aggregates_or_less_at_once_gets_the_messages_one_by_one() {
    let world = World::start(&[]);
    let mut meter = world.ue(METER);
    let mut valve = away(&world, VALVE, json!({"aggrSup": false}));
    let mut lamp = away(&world, LAMP, takes_aggregates(15));
    let mut tracker = away(&world, TRACKER, takes_aggregates(30));
    for (name, ue) in [("valve", &valve), ("lamp", &lamp), ("tracker", &tracker)] {
        let each = [1, 2].map(|number| storable_individual(&format!("{name}-{number}")));
        assert!(meter.request(aggregate(&meter.address(), &ue.address(), name, each.into())).is_stored());
    }
    valve.come_back_with(world.server.address(), json!({"aggrSup": false}));
    assert_eq!(valve.receive(2), ["valve-1", "valve-2"]);
    // Neither fits into fifteen octets, so each comes in segments, and none of those is in an aggregate.
    lamp.come_back_with(world.server.address(), takes_aggregates(15));
    let segments: Vec<Value> = (0..4).map(|_| lamp.receive_any()).collect();
    assert!(segments.iter().all(|segment| segment["segInd"] == true && segment.get("indMsgs").is_none()));
    let octets: Vec<u8> = segments.iter().flat_map(payload).collect();
    assert_eq!(String::from_utf8(octets).unwrap(), "payload of lamp-1payload of lamp-2");
    // Thirty octets hold either of them and not both, so each comes alone and whole.
    tracker.come_back_with(world.server.address(), takes_aggregates(30));
    for id in ["tracker-1", "tracker-2"] {
        let message = tracker.receive_any();
        assert_eq!((&message["msgId"], message.get("segInd"), message.get("indMsgs")), (&json!(id), None, None));
        assert_eq!(payload(&message), format!("payload of {id}").into_bytes());
    }
    assert_eq!((world.server.metric(RECEIVED), world.server.metric(SENT)), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_for_another_inside_an_aggregate() {
    let world = World::start(&[]);
    let (mut meter, mut valve, lamp) = (world.ue(METER), world.ue(VALVE), world.ue(LAMP));
    let (own, to, other) = (meter.address(), valve.address(), lamp.address());
    let forged = aggregate(&other, &to, "a", ["1", "2"].map(individual).into());
    meter.request(forged).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    // An individual message has no originator of its own: what it says is skipped, and the proven one holds.
    let each = ["3", "4"].map(|id| with(individual(id), json!({"oriAddr": other, "delivStReqInd": true})));
    meter.post_request("b", aggregate(&own, &to, "b", each.into()));
    for id in ["3", "4"] {
        let message = valve.receive_any();
        assert_eq!((&message["msgId"], &message["oriAddr"]), (&json!(id), &own));
    }
    assert!(meter.collect().answers["b"].is_delivered());

    // Reports: each in it must be the sender's own, and on a message that it got.
    let report = |by: &Value, id: &str| json!({"oriAddr": by, "msgId": id, "delivSt": "REPT_DELY_SUCCESS"});
    let reports =
        |by: &Value, each: Vec<Value>| json!({"msgType": "IMDN", "oriAddr": by, "destAddr": own, "indReports": each});
    valve.request(reports(&other, vec![report(&to, "3")])).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    valve.request(reports(&to, vec![report(&other, "3"), report(&to, "9")])).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    valve.post_request("c", reports(&to, vec![report(&to, "3"), report(&other, "4")]));
    let told = meter.receive_any();
    assert_eq!((&told["msgType"], &told["msgId"], &told["oriAddr"]), (&json!("IMDN"), &json!("3"), &to));
    let answer = valve.collect().answers.remove("c").unwrap();
    assert_eq!((answer.code.as_str(), answer.status()), ("2.04", Some("DELY_FAILED")));
    let forbidden = Some("ORIGINATOR_NOT_ALLOWED".to_owned());
    assert_eq!(each_answer(&answer.body)[1], ("4".to_owned(), Some("DELY_FAILED".to_owned()), forbidden));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_counts_as_as_many_requests_as_it_has_messages() {
    let world = World::start(&[("MSGIN5G_LIMITS__REQUESTS_PER_CONNECTION_MAX", "4")]);
    let mut meter = world.ue(METER);
    let mut valve = away(&world, VALVE, json!({}));
    let to = valve.address();
    let of = |count: usize| (0..count).map(|number| storable_individual(&number.to_string())).collect::<Vec<_>>();
    let answer = meter.request(aggregate(&meter.address(), &to, "five", of(5)));
    answer.refused("4.29", "TOO_MANY");
    assert_eq!(answer.max_age, Some(2));
    assert!(meter.request(aggregate(&meter.address(), &to, "four", of(4))).is_stored());
    valve.come_back(world.server.address());
    assert_eq!(valve.receive(4), ["0", "1", "2", "3"]);
    // One recipient is away and one message may not be stored: each is told for itself.
    valve.close();
    let mixed = vec![storable_individual("5"), individual("6")];
    let answer = meter.request(aggregate(&meter.address(), &to, "mixed", mixed));
    let (stored, failed) = (Some("DELY_STORED".to_owned()), Some("DELY_FAILED".to_owned()));
    let cause = Some("TARGET_UNREACHABLE".to_owned());
    let expected = [("5".to_owned(), stored, None), ("6".to_owned(), failed, cause)];
    assert_eq!(each_answer(&answer.body), expected);
    let nobody = address("UE", "nobody@lab.example");
    let answer = meter.request(aggregate(&meter.address(), &nobody, "nobody", of(2)));
    answer.refused("4.04", "UNKNOWN_TARGET");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregate_that_contradicts_itself_is_malformed_and_nothing_of_it_is_taken() {
    let world = World::start(&[]);
    let mut meter = world.ue(METER);
    let mut valve = world.ue(VALVE);
    let (own, to) = (meter.address(), valve.address());
    let of = |count: usize| (0..count).map(|number| individual(&number.to_string())).collect::<Vec<_>>();
    let right = || aggregate(&own, &to, "a", of(2));
    let changed = |id: &str, members: Value| vec![individual("0"), with(individual(id), members)];
    for (what, wrong) in [
        ("one", aggregate(&own, &to, "a", of(1))),
        ("none", aggregate(&own, &to, "a", of(0))),
        ("too many", aggregate(&own, &to, "a", of(65))),
        ("very many", aggregate(&own, &to, "a", of(2000).into_iter().map(|_| json!({})).collect())),
        ("another number", with(right(), json!({"indMsgCount": 3}))),
        ("no number", with(right(), json!({"indMsgCount": -1}))),
        ("twice the same", aggregate(&own, &to, "a", changed("0", json!({})))),
        ("a high priority", aggregate(&own, &to, "a", changed("1", json!({"priority": "HIGH"})))),
        ("no Message ID", aggregate(&own, &to, "a", vec![individual("0"), json!({"payload": "QQ=="})])),
        ("no base64", aggregate(&own, &to, "a", changed("1", json!({"payload": "Q"})))),
        ("no object", aggregate(&own, &to, "a", vec![individual("0"), json!([["msgId", "1"]])])),
        ("no list", with(right(), json!({"indMsgs": {"msgId": "0"}}))),
        ("a payload beside", with(right(), json!({"payload": "QQ=="}))),
        ("a segment", with(right(), json!({"segInd": true, "segParams": {"segId": "s", "segNumb": 1}}))),
        ("recAddr", with(right(), json!({"recAddr": to}))),
    ] {
        let answer = meter.request(wrong);
        assert_eq!((answer.code.as_str(), answer.cause()), ("4.00", Some("MALFORMED")), "{what}");
    }
    let large = json!({"payload": "QUJD".repeat(400)});
    let two = vec![with(individual("0"), large.clone()), with(individual("1"), large)];
    meter.request(aggregate(&own, &to, "a", two)).refused("4.13", "PAYLOAD_TOO_LARGE");
    meter.post_request("b", aggregate(&own, &to, "b", of(2)));
    assert_eq!(valve.receive(2), ["0", "1"], "the first that came");
    assert!(meter.collect().answers["b"].is_delivered());
}
