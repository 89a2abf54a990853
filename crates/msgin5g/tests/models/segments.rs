//! Segments that stay away from the server (TS 23.554 clause 8.5): it asks for them, and gives up in the end.

use serde_json::{Value, json};

use crate::common::foreign_ue::ForeignUe;
use crate::neighbour::eventually;
use crate::peer::TestAs;
use crate::wire::{msg, payload, segment, with};
use crate::world::{METER, World};

/// The next that comes and asks for no segments; how often segments were asked for before it.
fn asked_for(ue: &mut ForeignUe, to: &Value, id: &str, missing: &Value) -> (usize, Value) {
    for times in 0.. {
        let told = ue.receive_any();
        if told["msgType"] != "SEGREC" {
            return (times, told);
        }
        let expected = json!({
            "msgType": "SEGREC", "oriAddr": to, "destAddr": ue.address(), "msgId": id, "segId": id, "missSegs": missing
        });
        assert_eq!(told, expected);
    }
    unreachable!("it is asked so often and no more")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_stays_away_is_asked_for_and_a_message_that_stays_incomplete_is_reported_as_failed() {
    let world = World::start(&[
        ("MSGIN5G_LIMITS__REASSEMBLY_WAIT_SECONDS", "2"),
        ("MSGIN5G_LIMITS__REASSEMBLY_RECOVERIES_MAX", "8"),
    ]);
    let mut meter = world.ue(METER);
    let mut billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    let (own, to) = (meter.address(), billing.address.clone());
    let part = |id: &str, number: u32| {
        let whole = with(msg(&own, &to, id), json!({"delivStReqInd": true}));
        segment(whole, id, number, 3, &[b'0' + u8::try_from(number).unwrap(); 1000])
    };
    for id in ["late", "never"] {
        for number in [1, 3] {
            assert_eq!(meter.request(part(id, number)).status(), Some("SEGMENT_HELD"), "{id}: {number}");
        }
        if id == "never" {
            break;
        }
        // It comes when it has been asked for.
        let asked = meter.receive_any();
        assert_eq!((&asked["msgType"], &asked["oriAddr"], &asked["missSegs"]), (&json!("SEGREC"), &to, &json!([2])));
        assert!(meter.request(part(id, 2)).is_delivered());
        let (_, told) = asked_for(&mut meter, &to, id, &json!([2]));
        assert_eq!((&told["msgType"], &told["msgId"], &told["segId"]), (&json!("SEGCONFIR"), &json!(id), &json!(id)));
        let message = billing.peer.asked().await;
        assert_eq!((message.path.as_str(), &message.body["msgId"]), ("/inbox/deliver-message", &json!(id)));
        assert_eq!(payload(&message.body), [[b'1'; 1000], [b'2'; 1000], [b'3'; 1000]].concat());
        eventually("nothing to be held", || world.server.metric("msgin5g_reassembly_sets") == 0).await;
    }
    let (times, told) = asked_for(&mut meter, &to, "never", &json!([2]));
    assert_eq!(times, 8);
    let report = (&told["msgType"], &told["msgId"], &told["delivSt"], &told["failureCause"]);
    assert_eq!(report, (&json!("IMDN"), &json!("never"), &json!("REPT_DELY_FAILED"), &json!("SEGMENTS_MISSING")));
    assert_eq!((&told["oriAddr"], &told["destAddr"]), (&to, &own));
    eventually("nothing to be held", || world.server.metric("msgin5g_reassembly_sets") == 0).await;
    billing.peer.was_asked_nothing_more();
    // What comes now completes nothing that was given up, and the session goes on.
    assert_eq!(meter.request(part("never", 2)).status(), Some("SEGMENT_HELD"));
    assert!(meter.request(msg(&own, &to, "short")).is_delivered());
    assert_eq!(billing.peer.asked().await.body["msgId"], "short", "the first after the late one");
}
