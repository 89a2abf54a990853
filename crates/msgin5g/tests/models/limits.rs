//! Each limit that a sender can reach, with what it is told there (docs/reference/limits.md); others are served meanwhile.

use futures_util::future::join_all;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::common::foreign_ue::{Answer, ForeignUe};
use crate::neighbour::eventually;
use crate::peer::TestAs;
use crate::wire::{address, msg, segment, storable, with};
use crate::world::{LAMP, METER, TRACKER, VALVE, World, passes};

/// A UE that was here and is not any more.
fn away(world: &World, subscriber: usize) -> ForeignUe {
    let mut ue = world.ue(subscriber);
    ue.close();
    ue
}

/// The group of the lab: meter, valve and lamp.
fn fleet() -> Value {
    address("GROUP", "fleet@lab.example")
}

/// Told so, and when to come back.
#[track_caller]
fn told_to_come_back(answer: &Answer, code: &str, cause: &str) {
    answer.refused(code, cause);
    assert_eq!(answer.max_age, Some(2), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_above_its_rate_is_told_when_to_come_back_and_others_are_served() {
    let world = World::start(&[
        ("MSGIN5G_LIMITS__MESSAGES_PER_SECOND_PER_UE_MAX", "1"),
        ("MSGIN5G_LIMITS__MESSAGE_BURST_PER_UE_MAX", "2"),
    ]);
    let (mut meter, mut lamp) = (world.ue(METER), world.ue(LAMP));
    let valve = away(&world, VALVE);
    let ids: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    meter.post(&valve.service_id, &ids, false);
    let answers = meter.collect().answers;
    let (taken, refused): (Vec<&Answer>, Vec<&Answer>) = answers.values().partition(|answer| answer.code == "2.04");
    assert!(taken.len() >= 2 && refused.len() >= 2, "{} taken, {} refused", taken.len(), refused.len());
    for answer in taken {
        answer.refused("2.04", "TARGET_UNREACHABLE");
    }
    for answer in refused {
        told_to_come_back(answer, "4.29", "RATE_EXCEEDED");
    }
    lamp.send(&valve.service_id, "1").refused("2.04", "TARGET_UNREACHABLE");
    // What was refused was not taken, and goes when there is room.
    eventually("room", || meter.send_storable(&valve.service_id, "later").is_stored()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_as_above_its_rate_is_told_when_to_come_back_and_others_are_served() {
    let world = World::start(&[
        ("MSGIN5G_LIMITS__MESSAGES_PER_SECOND_PER_APPLICATION_SERVER_MAX", "1"),
        ("MSGIN5G_LIMITS__MESSAGE_BURST_PER_APPLICATION_SERVER_MAX", "2"),
    ]);
    let valve = away(&world, VALVE);
    let billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    let fleet = TestAs::registered(&world.lab, &world.server, "fleet").await;
    let sent: Vec<Value> = (0..40).map(|number| msg(&billing.address, &valve.address(), &number.to_string())).collect();
    let answers = join_all(sent.iter().map(|message| billing.send(&world.server, message))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(taken.len() >= 2 && refused.len() >= 2, "{} taken, {} refused", taken.len(), refused.len());
    for answer in refused {
        let refused = crate::peer::refused(answer, 429, "RATE_EXCEEDED");
        assert_eq!(refused.retry_after, Some(2));
    }
    let answer = fleet.send(&world.server, &storable(&fleet.address, &valve.address(), "1")).await.unwrap();
    assert_eq!(answer["status"], "DELY_STORED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_originator_has_so_many_messages_in_segments_and_so_many_octets_of_them() {
    let world = World::start(&[
        ("MSGIN5G_LIMITS__MESSAGE_PAYLOAD_OCTETS_MAX", "4096"),
        ("MSGIN5G_LIMITS__REASSEMBLY_SETS_PER_ORIGINATOR_MAX", "2"),
        // Room for one message of 4096 octets in its segments, and for no more.
        ("MSGIN5G_LIMITS__REASSEMBLY_OCTETS_PER_ORIGINATOR_MAX", "5248"),
        ("MSGIN5G_LIMITS__REASSEMBLY_SETS_MAX", "4"),
        ("MSGIN5G_LIMITS__REASSEMBLY_WAIT_SECONDS", "600"),
    ]);
    let (mut meter, mut valve, mut lamp) = (world.ue(METER), world.ue(VALVE), world.ue(LAMP));
    let mut billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    let to = billing.address.clone();
    let part = |from: &ForeignUe, id: &str, number: u32, octets: usize| {
        segment(msg(&from.address(), &to, id), id, number, 2, &vec![b'x'; octets])
    };
    let held = |answer: &Answer| assert_eq!(answer.status(), Some("SEGMENT_HELD"), "{answer:?}");
    // Octets: the second message has no room beside the first.
    held(&meter.request(part(&meter, "a", 1, 2048)));
    told_to_come_back(&meter.request(part(&meter, "b", 1, 2048)), "5.03", "REASSEMBLY_FULL");
    assert!(meter.request(part(&meter, "a", 2, 2048)).is_delivered(), "what is held is kept");
    assert_eq!(meter.receive_any()["msgType"], "SEGCONFIR");
    assert_eq!(billing.peer.asked().await.body["msgId"], "a");
    // Number: a third small one.
    for id in ["c", "d"] {
        held(&meter.request(part(&meter, id, 1, 1)));
    }
    told_to_come_back(&meter.request(part(&meter, "e", 1, 1)), "5.03", "REASSEMBLY_FULL");
    // Another originator has room of its own, until there is none for anybody.
    for id in ["c", "d"] {
        held(&valve.request(part(&valve, id, 1, 1)));
    }
    told_to_come_back(&lamp.request(part(&lamp, "c", 1, 1)), "5.03", "REASSEMBLY_FULL");
    assert!(valve.request(part(&valve, "c", 2, 1)).is_delivered());
    held(&lamp.request(part(&lamp, "c", 1, 1)));
    // Whole, it would be too large, also where each segment is not.
    let answer = meter.request(with(part(&meter, "c", 2, 2048), json!({"payload": "QUJD".repeat(683)})));
    answer.refused("4.13", "PAYLOAD_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_with_more_members_than_may_be_gets_nothing() {
    let world = World::start(&[("MSGIN5G_LIMITS__GROUP_MEMBERS_MAX", "2")]);
    let mut meter = world.ue(METER);
    let sent = storable(&meter.address(), &fleet(), "1");
    told_to_come_back(&meter.request(sent.clone()), "5.03", "MEMBERS_UNAVAILABLE");
    let fleet_as = TestAs::registered(&world.lab, &world.server, "fleet").await;
    let sent = storable(&fleet_as.address, &fleet(), "1");
    let refused = crate::peer::refused(fleet_as.send(&world.server, &sent).await, 503, "MEMBERS_UNAVAILABLE");
    assert_eq!(refused.retry_after, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_originator_has_so_many_messages_to_groups_under_way() {
    let world = World::start(&[
        ("MSGIN5G_STORE__OPTIONS__LIMITS__JOBS_PER_ORIGINATOR_MAX", "1"),
        ("MSGIN5G_LIMITS__REPORT_AGGREGATION_SECONDS", "1"),
    ]);
    let (mut meter, mut valve, mut lamp) = (world.ue(METER), world.ue(VALVE), world.ue(LAMP));
    let reported =
        |from: &ForeignUe, id: &str| with(storable(&from.address(), &fleet(), id), json!({"delivStReqInd": true}));
    // It lasts until all have reported.
    assert!(meter.request(reported(&meter, "1")).is_stored());
    told_to_come_back(&meter.request(reported(&meter, "2")), "4.29", "TOO_MANY");
    // Another originator is served: the meter gets its copy, too.
    assert!(lamp.request(reported(&lamp, "3")).is_stored());
    assert_eq!(meter.receive(1), ["3"]);
    assert_eq!(lamp.receive(1), ["1"]);
    let mut both = valve.receive(2);
    both.sort();
    assert_eq!(both, ["1", "3"]);
    let report = |by: &ForeignUe| {
        json!({
            "msgType": "IMDN", "oriAddr": by.address(), "destAddr": meter.address(), "msgId": "1",
            "delivSt": "REPT_DELY_SUCCESS"
        })
    };
    let (by_valve, by_lamp) = (report(&valve), report(&lamp));
    assert!(valve.request(by_valve).is_promise() && lamp.request(by_lamp).is_promise());
    let told = meter.receive_any();
    assert_eq!((&told["msgType"], &told["oriAddr"]), (&json!("IMDN"), &fleet()));
    eventually("room for another", || meter.request(reported(&meter, "2")).is_stored()).await;
    assert_eq!(valve.receive(1), ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_subscriber_has_so_many_topics() {
    let world = World::start(&[("MSGIN5G_STORE__OPTIONS__LIMITS__SUBSCRIPTIONS_PER_SUBSCRIBER_MAX", "2")]);
    let (mut meter, mut valve) = (world.ue(METER), world.ue(VALVE));
    let topics = |verb: &str, by: &ForeignUe, topics: &[&str]| json!({"msgType": verb, "oriAddr": by.address(), "msgTopics": topics});
    let status = |answer: &Answer| answer.body["subStat"].as_str().unwrap().to_owned();
    assert_eq!(status(&meter.request(topics("TOPSUB", &meter, &["lab/a", "lab/b"]))), "SUBSCRIBED");
    for (what, wanted) in [("a third", vec!["lab/c"]), ("one of two that it has, and another", vec!["lab/b", "lab/c"])]
    {
        let answer = meter.request(topics("TOPSUB", &meter, &wanted));
        told_to_come_back(&answer, "4.29", "TOO_MANY");
        assert_eq!(status(&answer), "REFUSED", "{what}");
    }
    // Nothing was changed by that.
    valve.request(msg(&valve.address(), &address("TOPIC", "lab/c"), "1")).refused("4.04", "UNKNOWN_TARGET");
    assert!(valve.request(storable(&valve.address(), &address("TOPIC", "lab/b"), "2")).is_stored());
    assert_eq!(meter.receive(1), ["2"]);
    assert_eq!(status(&valve.request(topics("TOPSUB", &valve, &["lab/c"]))), "SUBSCRIBED");
    assert_eq!(status(&meter.request(topics("TOPUNSUB", &meter, &["lab/a"]))), "UNSUBSCRIBED");
    assert_eq!(status(&meter.request(topics("TOPSUB", &meter, &["lab/c"]))), "SUBSCRIBED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_much_is_stored_of_one_originator_and_for_one_recipient() {
    let world = World::start(&[
        ("MSGIN5G_STORE__OPTIONS__LIMITS__MESSAGES_PER_ORIGINATOR_MAX", "2"),
        ("MSGIN5G_STORE__OPTIONS__LIMITS__MESSAGES_PER_RECIPIENT_MAX", "3"),
    ]);
    let (mut meter, mut valve) = (world.ue(METER), world.ue(VALVE));
    let mut lamp = away(&world, LAMP);
    let tracker = away(&world, TRACKER);
    for id in ["1", "2"] {
        assert!(meter.send_storable(&lamp.service_id, id).is_stored());
    }
    // Of the meter there are two, whoever they are for.
    told_to_come_back(&meter.send_storable(&tracker.service_id, "3"), "4.29", "TOO_MANY");
    assert!(valve.send_storable(&lamp.service_id, "4").is_stored());
    // For the lamp there are three, whoever they are of.
    told_to_come_back(&valve.send_storable(&lamp.service_id, "5"), "4.29", "TOO_MANY");
    assert!(valve.send_storable(&tracker.service_id, "6").is_stored());
    lamp.come_back(world.server.address());
    let mut ids = lamp.receive(3);
    ids.sort();
    assert_eq!(ids, ["1", "2", "4"]);
    eventually("room of the meter's", || meter.send_storable(&tracker.service_id, "3").is_stored()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_expires_while_it_waits_is_reported_and_not_delivered() {
    let world = World::start(&[]);
    let mut meter = world.ue(METER);
    let mut lamp = away(&world, LAMP);
    let mut billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    // Long enough to be stored in before it is over, on whatever machine.
    let soon = OffsetDateTime::now_utc() + Duration::seconds(15);
    let members = |report: bool, at: OffsetDateTime| json!({"delivStReqInd": report, "stoAndFwParams": {"exprTime": at.format(&Rfc3339).unwrap()}});
    let until = |from: &Value, id: &str, members: Value| with(storable(from, &lamp.address(), id), members);
    assert!(meter.request(until(&meter.address(), "1", members(true, soon))).is_stored());
    // Nobody asked to be told of this one: the operator is.
    assert!(meter.request(until(&meter.address(), "unasked", members(false, soon))).is_stored());
    let of_as = until(&billing.address, "3", members(true, soon));
    assert_eq!(billing.send(&world.server, &of_as).await.unwrap()["status"], "DELY_STORED");
    let told = meter.receive_any();
    let report = (&told["msgType"], &told["msgId"], &told["delivSt"], &told["failureCause"]);
    assert_eq!(report, (&json!("IMDN"), &json!("1"), &json!("REPT_DELY_FAILED"), &json!("EXPIRED")));
    assert_eq!((&told["oriAddr"], &told["destAddr"]), (&lamp.address(), &meter.address()));
    let report = billing.peer.asked().await;
    assert_eq!(report.path, "/inbox/deliver-report");
    let told = (&report.body["msgId"], &report.body["delivSt"], &report.body["failureCause"]);
    assert_eq!(told, (&json!("3"), &json!("REPT_DELY_FAILED"), &json!("EXPIRED")));
    world.server.metric_reaches("msgin5g_stored_failed_total{cause=\"EXPIRED\"}", 3);
    // What comes when its time is over is not taken.
    let past = OffsetDateTime::now_utc() - Duration::seconds(1);
    let answer = billing.send(&world.server, &until(&billing.address, "2", members(true, past))).await.unwrap();
    assert_eq!((&answer["status"], &answer["failureCause"]), (&json!("DELY_FAILED"), &json!("EXPIRED")));
    // The report that nobody asked for is not there: the first that comes is what another sent.
    passes(&mut world.ue(VALVE), &mut meter, "after");
    assert!(meter.send_storable(&lamp.service_id, "4").is_stored());
    lamp.come_back(world.server.address());
    assert_eq!(lamp.receive(1), ["4"], "the first that comes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_exceeds_its_latency_is_reported_so_or_stored() {
    let world = World::start(&[("MSGIN5G_LIMITS__DELIVERY_WINDOW", "1")]);
    let (mut meter, mut lamp) = (world.ue(METER), world.ue(LAMP));
    let billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    // One that another sent is on its way and is not acknowledged: those of the AS wait behind it.
    meter.post(&lamp.service_id, &["0".to_owned()], false);
    assert_eq!(lamp.take(1), ["0"]);
    let patient = with(storable(&billing.address, &lamp.address(), "1"), json!({"latency": 300}));
    assert_eq!(billing.send(&world.server, &patient).await.unwrap()["status"], "DELY_STORED");
    let urgent = |id: &str| with(msg(&billing.address, &lamp.address(), id), json!({"latency": 300}));
    let exceeded = |answer: Value| {
        assert_eq!((&answer["status"], &answer["failureCause"]), (&json!("DELY_FAILED"), &json!("LATENCY_EXCEEDED")));
    };
    exceeded(billing.send(&world.server, &urgent("2")).await.unwrap());
    let third = urgent("3");
    lamp.acknowledge();
    assert!(meter.collect().answers["0"].is_delivered());
    assert_eq!(lamp.receive(1), ["1"], "what is stored comes, what failed does not");
    // One that is on its way itself cannot be called back.
    exceeded(billing.send(&world.server, &third).await.unwrap());
    assert_eq!(lamp.receive(1), ["3"]);
    passes(&mut meter, &mut lamp, "4");
}
