//! Delivery reports that were asked for (TS 23.554 clauses 8.3.4, 8.7.4) and `kill -9` of the server at each stage of them: one
//! arrives, once.

use serde_json::{Value, json};

use crate::common::foreign_ue::ForeignUe;
use crate::wire::{address, storable, with};
use crate::world::{LAMP, METER, VALVE, World, passes};

/// A message that may be stored and is to be reported on.
fn reported(from: &ForeignUe, to: &Value, id: &str) -> Value {
    with(storable(&from.address(), to, id), json!({"delivStReqInd": true}))
}

/// Takes it, and reports that.
fn takes_and_reports(by: &mut ForeignUe, to: &ForeignUe, id: &str) {
    assert_eq!(by.receive(1), [id]);
    let report = json!({
        "msgType": "IMDN", "oriAddr": by.address(), "destAddr": to.address(), "msgId": id, "delivSt": "REPT_DELY_SUCCESS"
    });
    let answer = by.request(report);
    assert!(answer.is_promise(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_arrives_once_after_kill_9_between_acceptance_and_delivery_and_between_report_and_originator() {
    let mut world = World::start(&[]);
    let (mut meter, mut lamp) = (world.ue(METER), world.ue(LAMP));
    lamp.close();
    let sent = reported(&meter, &lamp.address(), "1");
    assert!(meter.request(sent.clone()).is_stored());
    world.crash();
    lamp.come_back(world.server.address());
    takes_and_reports(&mut lamp, &meter, "1");
    world.crash();
    meter.come_back(world.server.address());
    let told = meter.receive_any();
    let report = (&told["msgType"], &told["msgId"], &told["delivSt"], &told["oriAddr"]);
    assert_eq!(report, (&json!("IMDN"), &json!("1"), &json!("REPT_DELY_SUCCESS"), &lamp.address()));
    // Neither a repetition of the message nor another report comes of it.
    assert!(meter.request(sent).is_stored());
    lamp.come_back(world.server.address());
    let mut heard = Vec::new();
    meter.post(&lamp.service_id, &["2".to_owned()], false);
    while heard.last().is_none_or(|id| id != "2") {
        heard.extend(lamp.receive(1));
    }
    assert!(heard.len() <= 2, "what was taken shortly before the crash may come once more: {heard:?}");
    assert!(meter.collect().answers["2"].is_delivered());
    passes(&mut lamp, &mut meter, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reports_of_a_group_arrive_in_one_once_although_the_server_is_killed_before_and_between_them() {
    // Nothing but all of them being there ends the wait.
    let mut world = World::start(&[("MSGIN5G_LIMITS__REPORT_AGGREGATION_SECONDS", "3600")]);
    let (mut meter, mut valve, mut lamp) = (world.ue(METER), world.ue(VALVE), world.ue(LAMP));
    valve.close();
    lamp.close();
    let group = address("GROUP", "fleet@lab.example");
    let sent = reported(&meter, &group, "1");
    assert!(meter.request(sent).is_stored());
    world.crash();
    valve.come_back(world.server.address());
    takes_and_reports(&mut valve, &meter, "1");
    world.crash();
    lamp.come_back(world.server.address());
    takes_and_reports(&mut lamp, &meter, "1");
    meter.come_back(world.server.address());
    let told = meter.receive_any();
    assert_eq!((&told["msgType"], &told["oriAddr"], &told["destAddr"]), (&json!("IMDN"), &group, &meter.address()));
    let mut each: Vec<_> = told["indReports"].as_array().unwrap().iter().collect();
    each.sort_by_key(|report| report["oriAddr"]["addr"].as_str().unwrap().to_owned());
    let one = |of: &ForeignUe| json!({"oriAddr": of.address(), "msgId": "1", "delivSt": "REPT_DELY_SUCCESS"});
    assert_eq!(each, [&one(&lamp), &one(&valve)]);
    passes(&mut lamp, &mut meter, "2");
}
