//! Requests about delivery that make no sense (TS 23.554 clauses 8.3.2, 8.3.6.1): each is answered with its cause, and costs
//! neither the session nor what is stored.

use serde_json::{Value, json};

use crate::wire::{msg, storable, with};
use crate::world::{LAMP, METER, VALVE, World, passes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_priorities_and_latencies_that_make_no_sense_are_answered_and_lose_nothing() {
    let world = World::start(&[]);
    let (mut meter, mut valve, mut lamp) = (world.ue(METER), world.ue(VALVE), world.ue(LAMP));
    lamp.close();
    for id in ["1", "2"] {
        assert!(meter.send_storable(&lamp.service_id, id).is_stored());
    }
    let (own, to) = (meter.address(), valve.address());
    let update = |members: Value| with(json!({"msgType": "STOUPD", "oriAddr": own, "msgId": "1"}), members);
    let mut wrong = Vec::new();
    for (what, members) in [
        ("no Message ID", json!({"msgId": Value::Null})),
        ("an empty Message ID", json!({"msgId": ""})),
        ("a number for a Message ID", json!({"msgId": 1})),
        ("a long Message ID", json!({"msgId": "x".repeat(1000)})),
        ("no originator", json!({"oriAddr": Value::Null})),
        ("an originator that is a text", json!({"oriAddr": "UE:meter-1@lab.example"})),
        // None of these may pass for the discard that a STOUPD without parameters is.
        ("no time", json!({"stoAndFwParams": {}})),
        ("a text for parameters", json!({"stoAndFwParams": "2035-01-01T00:00:00Z"})),
        ("a list of parameters", json!({"stoAndFwParams": ["2035-01-01T00:00:00Z"]})),
        ("null for parameters", json!({"stoAndFwParams": Value::Null})),
        ("null for a time", json!({"stoAndFwParams": {"exprTime": Value::Null}})),
        ("a word for a time", json!({"stoAndFwParams": {"exprTime": "soon"}})),
        ("a time that there is not", json!({"stoAndFwParams": {"exprTime": "2035-13-41T00:00:00Z"}})),
        ("a number for a time", json!({"stoAndFwParams": {"exprTime": 2_051_222_400}})),
    ] {
        wrong.push((what, update(members)));
    }
    for message in [storable(&own, &to, "x"), msg(&own, &to, "x")] {
        for (what, members) in [
            ("a number for a priority", json!({"priority": 1})),
            ("a list of priorities", json!({"priority": ["HIGH"]})),
            ("a latency below zero", json!({"latency": -1})),
            ("half a latency", json!({"latency": 1.5})),
            ("a text for a latency", json!({"latency": "300"})),
            ("a latency beyond its range", json!({"latency": 4_294_967_296_u64})),
            ("a latency beyond any range", json!({"latency": 1e300})),
            ("a flag for a latency", json!({"latency": true})),
        ] {
            wrong.push((what, with(message.clone(), members)));
        }
    }
    for (what, request) in wrong {
        let answer = meter.request(request);
        assert_eq!((answer.code.as_str(), answer.cause()), ("4.00", Some("MALFORMED")), "{what}");
    }
    for text in ["{\"msgType\":\"STOUPD\"", "{\"msgType\":\"STOUPD\"}", "\"STOUPD\"", "[]", "null"] {
        let answer = meter.request_text(text);
        assert!(answer.code.starts_with("4."), "{text}: {answer:?}");
    }
    meter.request(update(json!({"msgId": "9"}))).refused("4.04", "MESSAGE_NOT_STORED");
    meter.request(update(json!({"oriAddr": to}))).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    // A priority that is not known yet is no fault: the message is as urgent as one without.
    meter.post_request("p", with(msg(&own, &to, "p"), json!({"priority": "VERY_HIGH"})));
    let message = valve.receive_any();
    assert_eq!((&message["msgId"], message.get("priority")), (&json!("p"), None), "the first that comes");
    assert!(meter.collect().answers["p"].is_delivered());
    // Nothing of what was stored was discarded or changed.
    lamp.come_back(world.server.address());
    assert_eq!(lamp.receive(2), ["1", "2"]);
    passes(&mut meter, &mut lamp, "3");
}
