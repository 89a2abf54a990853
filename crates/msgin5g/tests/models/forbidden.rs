//! What nobody may do in groups, topics and segments (TS 23.554 clauses 8.5, 8.7.4, 8.8), and what makes no sense there.

use serde_json::{Value, json};

use crate::common::foreign_ue::{Answer, ForeignUe};
use crate::common::msgin5g;
use crate::peer::{Manner, TestAs, refused};
use crate::wire::{address, msg, payload, segment, storable, with};
use crate::world::{LAMP, METER, TRACKER, VALVE, World};

const TOPIC: &str = "lab/news";

/// The group of the lab: meter, valve and lamp.
fn fleet() -> Value {
    address("GROUP", "fleet@lab.example")
}

/// A group of the meter and the valve whose messages billing validates.
fn validated_group(world: &World) -> Value {
    let file = world.lab.lab_json_path();
    let made = msgin5g()
        .args(["group", "add", "--group-id", "pumps@lab.example", "--member", "meter-1@lab.example"])
        .args(["--member", "valve-2@lab.example", "--validating-as", "billing@lab.example", "--lab"])
        .arg(file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    address("GROUP", "pumps@lab.example")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_server_says_whom_a_copy_is_for() {
    let world = World::start(&[]);
    let (mut meter, mut valve) = (world.ue(METER), world.ue(VALVE));
    let own = meter.address();
    assert_eq!(
        valve.request(json!({"msgType": "TOPSUB", "oriAddr": valve.address(), "msgTopics": [TOPIC]})).code,
        "2.04"
    );
    for to in [fleet(), address("TOPIC", TOPIC), valve.address()] {
        for recipient in [valve.address(), own.clone(), address("UE", "lamp-3@lab.example")] {
            let forged = with(storable(&own, &to, "1"), json!({"recAddr": recipient}));
            meter.request(forged).refused("4.00", "MALFORMED");
        }
    }
    let fleet_as = TestAs::registered(&world.lab, &world.server, "fleet").await;
    let forged = with(storable(&fleet_as.address, &fleet(), "2"), json!({"recAddr": valve.address()}));
    refused(fleet_as.send(&world.server, &forged).await, 400, "MALFORMED");
    // Of all that nothing reached anybody.
    assert!(meter.request(storable(&own, &fleet(), "3")).is_stored());
    let copy = valve.receive_any();
    assert_eq!((&copy["msgId"], &copy["recAddr"], &copy["destAddr"]), (&json!("3"), &valve.address(), &fleet()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_hears_nobody_who_may_not_send_to_it() {
    let world = World::start(&[]);
    let (mut tracker, mut valve) = (world.ue(TRACKER), world.ue(VALVE));
    tracker.request(storable(&tracker.address(), &fleet(), "1")).refused("4.03", "GROUP_NOT_ALLOWED");
    tracker.request(storable(&valve.address(), &fleet(), "2")).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    let nobody = address("GROUP", "nobody@lab.example");
    tracker.request(storable(&tracker.address(), &nobody, "3")).refused("4.04", "UNKNOWN_TARGET");
    let billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    let sent = storable(&billing.address, &fleet(), "4");
    refused(billing.send(&world.server, &sent).await, 403, "GROUP_NOT_ALLOWED");
    // A member that is away gets its copy when it is back; the others do not wait for it.
    valve.close();
    let mut meter = world.ue(METER);
    let mut lamp = world.ue(LAMP);
    assert!(meter.request(storable(&meter.address(), &fleet(), "5")).is_stored());
    assert_eq!(lamp.receive(1), ["5"]);
    valve.come_back(world.server.address());
    assert_eq!(valve.receive(1), ["5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_validating_as_decides_also_by_being_away_and_a_crash_while_it_is_asked_sends_nothing() {
    let mut world = World::start(&[("MSGIN5G_LIMITS__APPLICATION_SERVER_TIMEOUT_SECONDS", "3")]);
    let pumps = validated_group(&world);
    let (mut meter, mut valve) = (world.ue(METER), world.ue(VALVE));
    let own = meter.address();
    // It is not registered: nobody can say yes.
    meter.request(storable(&own, &pumps, "1")).refused("5.03", "VALIDATION_UNAVAILABLE");
    let mut billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    billing.peer.is(Manner::status(403));
    meter.request(storable(&own, &pumps, "2")).refused("2.04", "REJECTED_BY_AS");
    assert_eq!(billing.peer.asked().await.body["destAddr"], pumps);
    // It accepts: it was asked first, and each member gets its copy.
    billing.peer.is(Manner::Taking);
    assert!(meter.request(storable(&own, &pumps, "3")).is_stored());
    let asked = billing.peer.asked().await.body;
    assert_eq!((&asked["msgId"], &asked["recAddr"], &asked["oriAddr"]), (&json!("3"), &billing.address, &own));
    assert_eq!(valve.receive(1), ["3"], "the first that comes");
    // Killed while it is asked: nothing was answered, and nothing is sent.
    billing.peer.is(Manner::Silent);
    meter.post_request("4", storable(&own, &pumps, "4"));
    assert_eq!(billing.peer.asked().await.body["msgId"], "4");
    world.server.kill();
    assert_eq!(meter.collect().unanswered, ["4"]);
    billing.peer.is(Manner::Taking);
    world.server.start_again();
    meter.come_back(world.server.address());
    valve.come_back(world.server.address());
    assert!(meter.request(storable(&own, &pumps, "5")).is_stored());
    // What was handed over shortly before the crash may come again.
    let mut heard = valve.receive(1);
    while heard.last().is_some_and(|id| id != "5") {
        heard.extend(valve.receive(1));
    }
    assert!(!heard.contains(&"4".to_owned()), "{heard:?}");
    assert!(meter.request(storable(&own, &pumps, "4")).is_stored(), "its repetition is the first that counts");
    assert_eq!(valve.receive(1), ["4"]);
    // Away for good: what it does not see nobody gets.
    billing.peer.goes_away().await;
    meter.request(storable(&own, &pumps, "6")).refused("5.03", "VALIDATION_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_make_no_sense_are_malformed_and_nobody_subscribes_another() {
    let world = World::start(&[]);
    let (mut meter, mut valve) = (world.ue(METER), world.ue(VALVE));
    let own = meter.address();
    for verb in ["TOPSUB", "TOPUNSUB"] {
        let request = |by: &Value, topics: Value| json!({"msgType": verb, "oriAddr": by, "msgTopics": topics});
        let many: Vec<String> = (0..65).map(|number| format!("lab/{number}")).collect();
        for (what, wrong) in [
            ("no list", Value::Null),
            ("an empty list", json!([])),
            ("too many", json!(many)),
            ("an empty name", json!([""])),
            ("white space", json!(["lab/a b"])),
            ("a control character", json!(["lab/\u{7}"])),
            ("beyond ASCII", json!(["lab/ä"])),
            ("too long", json!(["x".repeat(256)])),
            ("a number", json!([7])),
            ("a text", json!("lab/a")),
            ("one of them wrong", json!(["lab/a", ""])),
        ] {
            let answer = meter.request(request(&own, wrong));
            assert_eq!((answer.code.as_str(), answer.cause()), ("4.00", Some("MALFORMED")), "{verb}: {what}");
        }
        let answer = meter.request(request(&valve.address(), json!([TOPIC])));
        assert_eq!((answer.code.as_str(), answer.cause()), ("4.03", Some("ORIGINATOR_NOT_ALLOWED")));
    }
    let subscribe = |topics: Value, until: &str| json!({"msgType": "TOPSUB", "oriAddr": own, "msgTopics": topics, "exprTime": until});
    for until in ["2001-01-01T00:00:00Z", "soon", "9999-99-99T00:00:00Z"] {
        assert_eq!(meter.request(subscribe(json!([TOPIC]), until)).cause(), Some("MALFORMED"), "{until}");
    }
    // No rule names it, for it or for one beside it.
    for topics in [json!(["secret/plans"]), json!([TOPIC, "secret/plans"])] {
        let answer = meter.request(subscribe(topics, "2035-01-01T00:00:00Z"));
        assert_eq!((answer.code.as_str(), answer.cause()), ("4.03", Some("TOPIC_NOT_ALLOWED")));
    }
    valve.request(msg(&valve.address(), &address("TOPIC", "secret/plans"), "1")).refused("4.03", "TOPIC_NOT_ALLOWED");
    // Nobody is subscribed by all that.
    valve.request(msg(&valve.address(), &address("TOPIC", TOPIC), "2")).refused("4.04", "UNKNOWN_TARGET");
    // The most that may be named at once.
    let most: Vec<String> = (0..64).map(|number| format!("lab/{number}")).collect();
    assert_eq!(meter.request(subscribe(json!(most), "2035-01-01T00:00:00Z")).body["subStat"], "SUBSCRIBED");
    assert!(valve.request(storable(&valve.address(), &address("TOPIC", "lab/63"), "3")).is_stored());
    assert_eq!(meter.receive(1), ["3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_that_contradict_each_other_or_the_interface_are_malformed() {
    let world = World::start(&[]);
    let mut meter = world.ue(METER);
    let mut billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    let (own, to) = (meter.address(), billing.address.clone());
    let raw = |id: &str, parameters: Value| {
        with(msg(&own, &to, id), json!({"segInd": true, "segParams": parameters, "payload": "QQ=="}))
    };
    // By itself: out of the range, or none at all.
    for parameters in [
        json!({"segId": "s", "segNumb": -1}),
        json!({"segId": "s", "segNumb": 1.5}),
        json!({"segId": "s", "segNumb": "1"}),
        json!({"segId": "s", "segNumb": 1_000_000_000}),
        json!({"segId": "s", "segNumb": 4_294_967_297_u64}),
        json!({"segId": "s", "segNumb": 2, "totalSegCount": 1}),
        json!({"segId": "s", "segNumb": 1, "totalSegCount": 0}),
        json!({"segId": "s", "segNumb": 1, "totalSegCount": 1_000_000_000}),
        json!({"segId": "s", "segNumb": 1, "totalSegCount": 18_446_744_073_709_551_615_u64}),
        json!({"segId": "", "segNumb": 1}),
        json!({"segId": "s s", "segNumb": 1}),
        json!({"segId": "s".repeat(129), "segNumb": 1}),
        json!({"segNumb": 1}),
        json!({"segId": "s"}),
        json!([1]),
        Value::Null,
    ] {
        let answer = meter.request(raw("1", parameters.clone()));
        assert_eq!((answer.code.as_str(), answer.cause()), ("4.00", Some("MALFORMED")), "{parameters}");
    }
    assert_eq!(meter.request(with(msg(&own, &to, "1"), json!({"segInd": true}))).cause(), Some("MALFORMED"));
    // Among each other: what was held of the set is gone, and a new one begins.
    let held = |answer: &Answer| assert_eq!(answer.status(), Some("SEGMENT_HELD"), "{answer:?}");
    for (number, wrong) in [
        (1, with(raw("c1", json!({"segId": "c1", "segNumb": 1, "totalSegCount": 3})), json!({"payload": "Qg=="}))),
        (2, raw("c2", json!({"segId": "c2", "segNumb": 2, "totalSegCount": 4}))),
        (3, raw("c3", json!({"segId": "c3", "segNumb": 4}))),
        (4, raw("another", json!({"segId": "c4", "segNumb": 2}))),
    ] {
        let set = format!("c{number}");
        let first = raw(&set, json!({"segId": set, "segNumb": 1, "totalSegCount": 3}));
        held(&meter.request(first.clone()));
        meter.request(wrong).refused("4.00", "MALFORMED");
        let last = raw(&set, json!({"segId": set, "segNumb": 3, "lastSegFlag": true}));
        held(&meter.request(last));
        held(&meter.request(first));
    }
    // Counting from 0 is understood.
    let first = raw("zero", json!({"segId": "zero", "segNumb": 0, "totalSegCount": 2}));
    held(&meter.request(first));
    assert!(meter.request(raw("zero", json!({"segId": "zero", "segNumb": 1, "lastSegFlag": true}))).is_delivered());
    let mut heard = billing.peer.asked().await.body;
    assert_eq!((heard["msgId"].take(), payload(&heard)), (json!("zero"), b"AA".to_vec()));
    billing.peer.was_asked_nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_asks_for_or_confirms_segments_in_anothers_name() {
    let world = World::start(&[]);
    let (mut meter, mut valve, mut lamp) = (world.ue(METER), world.ue(VALVE), world.ue(LAMP));
    let notice = |kind: &str, from: &ForeignUe, to: &Value| {
        let members = json!({"msgType": kind, "oriAddr": from.address(), "destAddr": to, "msgId": "1", "segId": "s"});
        if kind == "SEGREC" { with(members, json!({"missSegs": [1]})) } else { members }
    };
    let to = meter.address();
    for kind in ["SEGREC", "SEGCONFIR"] {
        lamp.request(notice(kind, &valve, &to)).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
        let nobody = address("UE", "nobody@lab.example");
        valve.request(notice(kind, &valve, &nobody)).refused("4.04", "UNKNOWN_TARGET");
        valve.request(notice(kind, &valve, &fleet())).refused("4.04", "TARGET_TYPE_NOT_SUPPORTED");
    }
    let many: Vec<u32> = (1..=1025).collect();
    for missing in
        [json!([]), json!(many), json!([2, 1]), json!([1, 1]), json!([-1]), json!(["1"]), json!(1), Value::Null]
    {
        let wrong = with(notice("SEGREC", &valve, &to), json!({"missSegs": missing}));
        let answer = valve.request(wrong);
        assert_eq!((answer.code.as_str(), answer.cause()), ("4.00", Some("MALFORMED")), "{missing}");
    }
    // The valve's own words are the first that reach the meter.
    valve.post_request("1", notice("SEGREC", &valve, &to));
    let told = meter.receive_any();
    assert_eq!((&told["msgType"], &told["oriAddr"]), (&json!("SEGREC"), &valve.address()));
    assert!(valve.collect().answers["1"].is_delivered());
    // One that is away is told nothing, and neither is stored.
    meter.close();
    valve.request(notice("SEGCONFIR", &valve, &to)).refused("2.04", "TARGET_UNREACHABLE");
    // Segments in another's name are held for nobody.
    let forged = segment(msg(&valve.address(), &address("AS", "billing@lab.example"), "2"), "s", 1, 2, b"x");
    lamp.request(forged).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    assert_eq!(world.server.metric("msgin5g_reassembly_sets"), 0);
}
