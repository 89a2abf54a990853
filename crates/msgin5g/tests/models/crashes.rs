//! `kill -9` of the server between an answer and what it promised: topics, changes of stored messages, long messages of an AS.

use serde_json::{Value, json};

use crate::common::foreign_ue::ForeignUe;
use crate::peer::{TestAs, refused};
use crate::wire::{address, payload, segment, storable, with};
use crate::world::{LAMP, METER, TRACKER, VALVE, World, passes};

const TOPIC: &str = "lab/news";

fn subscribe(ue: &mut ForeignUe) {
    let request = json!({"msgType": "TOPSUB", "oriAddr": ue.address(), "msgTopics": [TOPIC, "lab/weather"]});
    assert_eq!(ue.request(request).body["subStat"], "SUBSCRIBED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_answered_as_stored_reaches_every_subscriber_after_kill_9_and_subscriptions_last() {
    // One copy at a time, so that it dies in the middle of them.
    let mut world = World::start(&[("MSGIN5G_LIMITS__FAN_OUT_WINDOW", "1")]);
    let mut meter = world.ue(METER);
    let mut subscribers = [VALVE, LAMP, TRACKER].map(|subscriber| world.ue(subscriber));
    subscribers.iter_mut().for_each(subscribe);
    let unsubscribe = json!({"msgType": "TOPUNSUB", "oriAddr": meter.address(), "msgTopics": [TOPIC]});
    subscribe(&mut meter);
    assert_eq!(meter.request(unsubscribe).body["subStat"], "UNSUBSCRIBED");
    // One is away, one takes its copies and does not say so, one does.
    subscribers[2].close();
    let topic = address("TOPIC", TOPIC);
    for id in ["1", "2", "3"] {
        assert!(meter.request(storable(&meter.address(), &topic, id)).is_stored());
    }
    subscribers[0].take(1);
    let mut heard: Vec<Vec<String>> = vec![Vec::new(), subscribers[1].receive(1), Vec::new()];
    world.crash();
    for (subscriber, heard) in subscribers.iter_mut().zip(&mut heard) {
        subscriber.come_back(world.server.address());
        while heard.last().map(String::as_str) != Some("3") {
            heard.extend(subscriber.receive(1));
        }
        // What was handed over in the moment of the crash may come twice; the Message ID tells.
        heard.dedup();
        assert_eq!(*heard, ["1", "2", "3"]);
    }
    // Subscriptions are as they were: the meter's is not there.
    let mut valve = subscribers.into_iter().next().unwrap();
    let sent = storable(&valve.address(), &topic, "4");
    assert!(valve.request(sent).is_stored());
    meter.come_back(world.server.address());
    passes(&mut valve, &mut meter, "5");
    let weather = storable(&valve.address(), &address("TOPIC", "lab/weather"), "6");
    assert!(valve.request(weather).is_stored());
    assert_eq!(meter.receive(1), ["6"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discarded_message_never_comes_and_an_updated_one_does_after_kill_9() {
    let mut world = World::start(&[]);
    let mut meter = world.ue(METER);
    let mut lamp = world.ue(LAMP);
    lamp.close();
    let expires = |at: &str| json!({"stoAndFwParams": {"exprTime": at}});
    for id in ["kept", "discarded", "shortened", "other"] {
        let sent = with(storable(&meter.address(), &lamp.address(), id), expires("2035-01-01T00:00:00Z"));
        assert!(meter.request(sent).is_stored());
    }
    let update = |id: &str| json!({"msgType": "STOUPD", "oriAddr": meter.address(), "msgId": id});
    let (kept, discarded, shortened) = (update("kept"), update("discarded"), update("shortened"));
    assert!(meter.request(with(kept.clone(), expires("2034-01-01T00:00:00Z"))).is_stored());
    assert_eq!(meter.request(discarded.clone()).code, "2.02");
    assert!(meter.request(with(shortened.clone(), expires("2001-01-01T00:00:00Z"))).is_stored());
    world.crash();
    meter.come_back(world.server.address());
    meter.request(discarded).refused("4.04", "MESSAGE_NOT_STORED");
    meter.request(with(shortened, expires("2034-01-01T00:00:00Z"))).refused("4.04", "MESSAGE_NOT_STORED");
    assert!(meter.request(with(kept, expires("2033-01-01T00:00:00Z"))).is_stored());
    // Nobody else reaches it, also now.
    let mut valve = world.ue(VALVE);
    let forged = json!({"msgType": "STOUPD", "oriAddr": valve.address(), "msgId": "kept"});
    valve.request(forged).refused("4.04", "MESSAGE_NOT_STORED");
    let forged = json!({"msgType": "STOUPD", "oriAddr": meter.address(), "msgId": "kept"});
    valve.request(forged).refused("4.03", "ORIGINATOR_NOT_ALLOWED");
    world.crash();
    lamp.come_back(world.server.address());
    assert_eq!(lamp.receive(2), ["kept", "other"]);
    meter.come_back(world.server.address());
    passes(&mut meter, &mut lamp, "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_message_of_an_as_outlives_kill_9_and_one_in_segments_is_promised_only_when_it_is_whole() {
    let mut world = World::start(&[]);
    // It takes less at once than the AS sends.
    let profile = || json!({"segmentSize": 1000});
    let mut lamp = world.ue(LAMP);
    assert_eq!(lamp.register_with(profile()).code, "2.01");
    lamp.close();
    let billing = TestAs::registered(&world.lab, &world.server, "billing").await;
    let long = with(storable(&billing.address, &lamp.address(), "long"), json!({"payload": "QUJD".repeat(1600)}));
    assert_eq!(billing.send(&world.server, &long).await.unwrap()["status"], "DELY_STORED");
    let to = lamp.address();
    let part = |number: u32| {
        let whole = storable(&billing.address, &to, "parts");
        segment(whole, "set", number, 2, &[b'0' + u8::try_from(number).unwrap(); 2048])
    };
    assert_eq!(billing.send(&world.server, &part(1)).await.unwrap()["status"], "SEGMENT_HELD");
    world.crash();
    // What was held was promised nothing and is gone, so the last one does not make it whole.
    assert_eq!(billing.send(&world.server, &part(2)).await.unwrap()["status"], "SEGMENT_HELD");
    assert_eq!(billing.send(&world.server, &part(1)).await.unwrap()["status"], "DELY_STORED");
    world.crash();
    for number in [1, 2] {
        let again = billing.send(&world.server, &part(number)).await.unwrap();
        assert!(["SEGMENT_HELD", "DELY_STORED"].map(Value::from).contains(&again["status"]), "{again}");
    }
    // It dies again with one of five segments acknowledged.
    lamp.come_back_with(world.server.address(), profile());
    assert_eq!(lamp.receive_any()["msgId"], "long");
    world.crash();
    lamp.come_back_with(world.server.address(), profile());
    for (id, whole) in [("long", b"ABC".repeat(1600)), ("parts", [[b'1'; 2048], [b'2'; 2048]].concat())] {
        let segments: Vec<Value> = (0..5).map(|_| lamp.receive_any()).collect();
        assert!(segments.iter().all(|segment| segment["msgId"] == id), "{id}");
        assert_eq!(segments.iter().flat_map(payload).collect::<Vec<_>>(), whole, "{id}");
    }
    // One of another AS is never mixed with it.
    let forged = with(part(1), json!({"oriAddr": address("AS", "fleet@lab.example")}));
    refused(billing.send(&world.server, &forged).await, 403, "ORIGINATOR_NOT_ALLOWED");
}
