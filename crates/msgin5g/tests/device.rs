//! What a device on the command line does with long messages, groups, topics and stored messages, in a whole network.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use client::{AggregationPolicy, Incoming, IncomingStream, Outcome, OutgoingMessage, Received};
use common::{Lab, fleet::Fleet, function::Function, msgin5g};
use message::Message;
use serde_json::Value;

const METER: &str = "meter-1@lab.example";
const VALVE: &str = "valve-2@lab.example";
const LAMP: &str = "lamp-3@lab.example";
const FLEET: &str = "fleet@lab.example";

/// Writes a device's profile; yields its path.
fn profile(lab: &Lab, name: &str) -> String {
    let path = lab.path(&format!("{name}.toml")).to_str().unwrap().to_owned();
    let file = lab.lab_json_path();
    let command = ["client", "profile", "--subscriber", name, "--out", &path, "--lab", file.to_str().unwrap()];
    assert!(msgin5g().args(command).output().unwrap().status.success());
    path
}

/// Runs a command of a device; yields its exit code, what it printed, and what it said about failure.
fn device(profile: &str, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let output = msgin5g().args(["--json", "client"]).args(arguments).args(["--profile", profile]).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let values = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), values, String::from_utf8(output.stderr).unwrap())
}

/// As [`device`], for what must succeed and print one value.
#[track_caller]
fn done(profile: &str, arguments: &[&str]) -> Value {
    let (code, mut values, told) = device(profile, arguments);
    assert_eq!((code, values.len()), (0, 1), "{arguments:?}: {values:?} {told}");
    values.remove(0)
}

/// A device that listens until it has `count` messages.
fn listening(profile: &str, count: &str) -> Child {
    msgin5g()
        .args(["--json", "client", "listen", "--count", count, "--for", "60s", "--profile", profile])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn heard(listener: Child) -> Vec<Value> {
    let output = listener.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_file_larger_than_a_segment_arrives_whole_at_once_and_after_a_crash() {
    let mut lab = Lab::start();
    let (meter, valve) = (profile(&lab, METER), profile(&lab, VALVE));
    let payload: Vec<u8> = (0..20_000_u32).map(|octet| (octet % 251) as u8).collect();
    let file = lab.path("reading.bin").to_str().unwrap().to_owned();
    std::fs::write(&file, &payload).unwrap();
    done(&valve, &["register"]);
    let send = ["send", "--to", &format!("ue:{VALVE}"), "--payload-file", &file, "--store-and-forward"];
    assert_eq!(done(&meter, &send)["outcome"], "stored");
    lab.kill();
    lab.start_again();
    let listener = listening(&valve, "2");
    // Whether or not the valve is there yet, it gets both.
    let outcome = done(&meter, &send)["outcome"].clone();
    assert!(outcome == "delivered" || outcome == "stored", "{outcome}");
    let heard = heard(listener);
    for message in &heard {
        assert_eq!(STANDARD.decode(message["payload"].as_str().unwrap()).unwrap(), payload);
        assert_eq!(message["from"], format!("UE:{METER}"));
    }
    assert_ne!(heard[0]["message_id"], heard[1]["message_id"]);
    // More than the server takes, and more than the client sends.
    std::fs::write(&file, vec![0; 65_537]).unwrap();
    let (code, _, told) = device(&meter, &send);
    assert_eq!(code, 1);
    assert!(told.contains("65537"), "{told}");
}

#[test]
fn a_group_gets_a_message_and_each_member_reports() {
    let lab = Lab::start();
    let [meter, valve, lamp] = [METER, VALVE, LAMP].map(|name| profile(&lab, name));
    done(&valve, &["register"]);
    done(&lamp, &["register"]);
    let listeners = [&valve, &lamp].map(|profile| listening(profile, "1"));
    let sent = done(
        &meter,
        &["send", "--group", FLEET, "--payload", "all off", "--store-and-forward", "--report", "--reports", "2"],
    );
    assert_eq!(sent["outcome"], "stored");
    let mut reporters: Vec<&str> =
        sent["reports"].as_array().unwrap().iter().map(|report| report["from"].as_str().unwrap()).collect();
    reporters.sort_unstable();
    assert_eq!(reporters, [format!("UE:{LAMP}"), format!("UE:{VALVE}")]);
    for listener in listeners {
        let heard = heard(listener);
        assert_eq!((&heard[0]["text"], &heard[0]["to"]), (&"all off".into(), &format!("GROUP:{FLEET}").into()));
    }
    let (code, values, _) = device(&meter, &["send", "--group", "nobody@lab.example", "--payload", "x"]);
    assert_eq!((code, &values[0]["failure_cause"]), (1, &"UNKNOWN_TARGET".into()));
}

#[test]
fn a_subscriber_gets_what_is_published_until_it_withdraws() {
    let lab = Lab::start();
    let (meter, valve) = (profile(&lab, METER), profile(&lab, VALVE));
    let topic = "lab/weather";
    assert_eq!(done(&valve, &["subscribe", topic])["result"], "subscribed");
    let publish = ["send", "--topic", topic, "--payload", "rain", "--store-and-forward"];
    assert_eq!(done(&meter, &publish)["outcome"], "stored");
    let heard = heard(listening(&valve, "1"));
    assert_eq!((&heard[0]["text"], &heard[0]["to"]), (&"rain".into(), &format!("TOPIC:{topic}").into()));
    assert_eq!(done(&valve, &["unsubscribe", topic])["result"], "unsubscribed");
    device(&meter, &publish);
    let (code, values, _) = device(&valve, &["listen", "--count", "1", "--for", "1s"]);
    assert_eq!((code, values.len()), (1, 0), "{values:?}");
    let (code, _, told) = device(&valve, &["subscribe", "elsewhere/secret"]);
    assert_eq!(code, 1);
    assert!(told.contains("TOPIC_NOT_ALLOWED") && told.contains("help: "), "{told}");
    let (code, _, told) = device(&valve, &["subscribe", topic, "--until", "tomorrow"]);
    assert_eq!(code, 2, "{told}");
}

#[test]
fn a_stored_message_can_be_kept_longer_and_discarded() {
    let lab = Lab::start();
    let (meter, valve) = (profile(&lab, METER), profile(&lab, VALVE));
    done(&valve, &["register"]);
    let send = ["send", "--to", &format!("ue:{VALVE}"), "--payload", "later", "--store-and-forward", "--message-id"];
    for id in ["kept", "discarded"] {
        assert_eq!(done(&meter, &[&send[..], &[id]].concat())["outcome"], "stored");
    }
    assert_eq!(done(&meter, &["update", "--message-id", "kept", "--expires", "1h"])["result"], "updated");
    assert_eq!(done(&meter, &["discard", "--message-id", "discarded"])["result"], "discarded");
    // Not there any more, and never this one's.
    for (who, id) in [(&meter, "discarded"), (&valve, "kept")] {
        let (code, _, told) = device(who, &["discard", "--message-id", id]);
        assert!(code == 1 && told.contains("MESSAGE_NOT_STORED"), "{told}");
    }
    let heard = heard(listening(&valve, "1"));
    assert_eq!(heard[0]["message_id"], "kept");
}

async fn next_message(incoming: &mut IncomingStream) -> Received<Message> {
    match tokio::time::timeout(Duration::from_secs(60), incoming.next()).await.unwrap() {
        Some(Incoming::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// Without a state directory a device that dies has lost the segments it acknowledged; it asks for them, and the sender's
/// client, which has its answer already, sends them again.
#[tokio::test]
async fn segments_that_died_with_their_device_come_again_from_the_sender() {
    let lab = Lab::start();
    let mut fleet = Fleet::provision(&lab, 2).await;
    for ue in &mut fleet.ues {
        ue.config.segment_size = Some(100);
        ue.config.limits.segment_wait_milliseconds = 200;
        ue.config.limits.segment_recoveries_max = 100;
        ue.config.limits.segment_resends_max = 100;
    }
    let (sender, _reports) = fleet.ues[0].connect().await;
    let payload: Vec<u8> = (0..1_000_u32).map(|octet| octet as u8).collect();
    let large = OutgoingMessage::to_ue(&fleet.ues[1].service_id, payload.clone()).store_and_forward(None);
    let (device, mut incoming) = fleet.ues[1].connect().await;
    let sending = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send(large).await }
    });
    let held = next_message(&mut incoming).await;
    assert_eq!(held.content().payload, payload);
    // It dies with the message complete and not accepted: the server has one segment, and the device none.
    device.close().await;
    drop((held, incoming, device));
    let (_device, mut incoming) = fleet.ues[1].connect().await;
    let again = next_message(&mut incoming).await;
    assert_eq!(again.content().payload, payload);
    again.accept().await.unwrap();
    let outcome = tokio::time::timeout(Duration::from_secs(60), sending).await.unwrap().unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Delivered | Outcome::Stored), "{outcome:?}");
}

#[tokio::test]
async fn small_messages_travel_as_one_and_are_each_delivered() {
    let lab = Lab::start();
    // Whose figures are of this test alone.
    let server = Function::server(&lab, &[]);
    let mut fleet = Fleet::provision(&lab, 2).await;
    for ue in &mut fleet.ues {
        ue.config.server = server.address().to_string();
        ue.config.aggregation = Some(AggregationPolicy { wait: Duration::from_secs(20), octets_max: 40 });
        ue.config.limits.close_timeout_milliseconds = 60_000;
    }
    let (sender, _reports) = fleet.ues[0].connect().await;
    let (_device, mut incoming) = fleet.ues[1].connect().await;
    let recipient = fleet.ues[1].service_id.clone();
    let sending: Vec<_> = (0..12)
        .map(|number| {
            let (sender, message) =
                (sender.clone(), OutgoingMessage::to_ue(&recipient, format!("reading {number:02}")));
            tokio::spawn(async move { sender.send(message).await })
        })
        .collect();
    let mut heard = Vec::new();
    // Four of ten octets fit into one; the fifth sends them. The last four wait for more, until the client is closed.
    while heard.len() < 8 {
        let message = next_message(&mut incoming).await;
        heard.push(String::from_utf8(message.content().payload.clone()).unwrap());
        message.accept().await.unwrap();
    }
    let closing = tokio::spawn(async move { sender.close().await });
    while heard.len() < 12 {
        let message = next_message(&mut incoming).await;
        heard.push(String::from_utf8(message.content().payload.clone()).unwrap());
        message.accept().await.unwrap();
    }
    for sending in sending {
        assert_eq!(sending.await.unwrap().unwrap(), Outcome::Delivered);
    }
    closing.await.unwrap();
    heard.sort();
    heard.dedup();
    assert_eq!(heard.len(), 12);
    assert_eq!(server.metric("msgin5g_aggregates_received_total"), 3, "four in each");
    assert_eq!(server.metric("msgin5g_delivered_total"), 12, "and each was delivered for itself");
}
