//! Several applications share one client (TS 23.554 clause 8.11).

use client::{ApplicationInterface, ApplicationsConfig, ClientError, SocketAccess};
use coap::{Code, Response, StreamEvent};
use message::{Address, FailureCause, ReportDeliveryStatus, UeMessage, failure};
use serde_json::{Value, json};

use crate::{
    application::{Application, Scene, uid},
    server::{ME, OTHER, cause, message_to_me, until},
};

const TOKEN: &str = "a token of at least 16";

/// Two applications of this user: one that may send to the other UE, one that may do nothing.
fn two() -> String {
    format!(
        "[[application]]\napplication_id = \"metering\"\nuids = [{uid}]\ndestinations = [\"UE:{OTHER}\"]\n\
         [[application]]\napplication_id = \"alarm\"\nuids = [{uid}]\n",
        uid = uid()
    )
}

fn to_other(id: &str) -> Value {
    json!({"msgType": "MSG", "destAddr": {"addrType": "UE", "addr": OTHER}, "msgId": id, "payload": "aGVsbG8="})
}

/// A message from the server for one of the applications.
fn message_for(application: Option<&str>, id: &str) -> UeMessage {
    let UeMessage::Message(mut message) = message_to_me(id, false) else { panic!("no message") };
    message.application_id = application.map(|application| application.parse().unwrap());
    UeMessage::Message(message)
}

fn report_on(id: &message::MessageId) -> UeMessage {
    UeMessage::DeliveryStatusReport(message::DeliveryStatusReport {
        originator: Address::ue(&OTHER.parse().unwrap()),
        destination: Address::ue(&ME.parse().unwrap()),
        message_id: id.clone(),
        delivery_status: ReportDeliveryStatus::Success,
        failure_cause: None,
    })
}

/// Gives a later message the chance to be handled: it is answered only after what was sent before it.
async fn round_trip(application: &mut Application) {
    let (code, _) = application.ask(&json!({"msgType": "MSGRESP"})).await;
    assert_eq!(code, "4.00");
}

#[tokio::test]
async fn an_application_registers_sends_under_the_ues_name_and_learns_the_promise() {
    let mut scene = Scene::start(&two()).await;
    let mut application = scene.connect().await;
    let (code, answer) = application.register("metering", None).await;
    assert_eq!((code.as_str(), answer), ("2.01", json!({"appId": "metering", "ueSvcId": ME})));
    for (status, expected) in [(None, None), (Some("DELY_STORED"), Some("DELY_STORED"))] {
        let mut message = to_other("reading-1");
        message["delivStReqInd"] = true.into();
        message["stoAndFwInd"] = true.into();
        let exchange = application.post(&message).await;
        let (at_server, sent) = scene.peer.message().await;
        assert_eq!(sent.originator, Address::ue(&ME.parse().unwrap()));
        assert_eq!(sent.application_id.as_ref().unwrap().as_str(), "metering");
        assert!(sent.message_id.as_str().ends_with(".reading-1"), "{}", sent.message_id);
        assert!(sent.delivery_status_required && sent.store_and_forward && sent.payload == b"hello");
        scene.peer.answer(at_server, &sent, status).await;
        let (code, answer) = application.answer(exchange).await;
        assert_eq!(code, "2.04");
        assert_eq!((&answer["msgType"], &answer["msgId"]), (&json!("MSGRESP"), &json!("reading-1")));
        assert_eq!(answer["oriAddr"], json!({"addrType": "UE", "addr": ME}));
        assert_eq!(answer.get("status").and_then(Value::as_str), expected);
    }
    let (code, answer) = application.ask(&json!({"msgType": "DEREG", "appId": "metering"})).await;
    assert_eq!((code.as_str(), &answer["appId"]), ("2.02", &json!("metering")));
    let (code, answer) = application.ask(&to_other("2")).await;
    assert_eq!((code.as_str(), &answer["failureCause"]), ("4.01", &json!("NOT_REGISTERED")));
}

#[tokio::test]
async fn what_the_server_refuses_reaches_the_application_with_its_cause() {
    let mut scene = Scene::start(&two()).await;
    let mut application = scene.application("metering").await;
    let exchange = application.post(&to_other("1")).await;
    let (at_server, _) = scene.peer.message().await;
    let refusal = Response::new(Code::NOT_FOUND).with_payload(failure(&FailureCause::UnknownTarget));
    scene.peer.respond(at_server, refusal).await;
    let (code, answer) = application.answer(exchange).await;
    assert_eq!((code.as_str(), &answer["failureCause"]), ("4.04", &json!("UNKNOWN_TARGET")));
}

#[tokio::test]
async fn messages_and_reports_go_to_the_application_they_are_for_and_to_no_other() {
    let mut scene = Scene::start(&two()).await;
    let mut metering = scene.application("metering").await;
    let mut alarm = scene.application("alarm").await;
    let for_alarm = scene.peer.send(&message_for(Some("alarm"), "1")).await;
    let for_metering = scene.peer.send(&message_for(Some("metering"), "2")).await;
    let (exchange, message) = metering.delivered().await;
    assert_eq!((&message["msgId"], &message["appId"]), (&json!("2"), &json!("metering")));
    assert_eq!(message["oriAddr"], json!({"addrType": "UE", "addr": OTHER}));
    metering.respond(exchange, Code::CHANGED).await;
    assert_eq!(scene.peer.response(for_metering).await.code, Code::CHANGED, "accepted, although alarm is not done");
    let (exchange, message) = alarm.delivered().await;
    assert_eq!(message["msgId"], "1");
    alarm.respond(exchange, Code::CHANGED).await;
    assert_eq!(scene.peer.response(for_alarm).await.code, Code::CHANGED);

    // The report on a message goes to whoever sent it, under the name it gave.
    let sending = metering.post(&to_other("reading-7")).await;
    let (at_server, sent) = scene.peer.message().await;
    scene.peer.answer(at_server, &sent, None).await;
    metering.answer(sending).await;
    let report = scene.peer.send(&report_on(&sent.message_id)).await;
    let (exchange, arrived) = metering.delivered().await;
    assert_eq!((&arrived["msgType"], &arrived["msgId"]), (&json!("IMDN"), &json!("reading-7")));
    assert_eq!(arrived["delivSt"], "REPT_DELY_SUCCESS");
    metering.respond(exchange, Code::CHANGED).await;
    assert_eq!(scene.peer.response(report).await.code, Code::CHANGED);
    round_trip(&mut alarm).await;
}

#[tokio::test]
async fn two_applications_may_use_the_same_message_id() {
    let applications = two().replacen("alarm\"", "alarm\"\ndestinations = [\"*\"]", 1);
    let mut scene = Scene::start(&applications).await;
    let mut ids = Vec::new();
    for id in ["metering", "alarm"] {
        let mut application = scene.application(id).await;
        let sending = application.post(&to_other("1")).await;
        let (at_server, sent) = scene.peer.message().await;
        scene.peer.answer(at_server, &sent, None).await;
        application.answer(sending).await;
        ids.push(sent.message_id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn messages_leave_in_the_order_of_an_applications_requests() {
    let applications = two().replacen("alarm\"", "alarm\"\ndestinations = [\"*\"]", 1);
    let mut scene = Scene::start(&applications).await;
    let mut application = scene.application("alarm").await;
    let ids: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    for id in &ids {
        application.post(&to_other(id)).await;
    }
    for id in &ids {
        let (at_server, sent) = scene.peer.message().await;
        assert!(sent.message_id.as_str().ends_with(&format!(".{id}")), "{} is not {id}", sent.message_id);
        scene.peer.answer(at_server, &sent, None).await;
    }
}

#[tokio::test]
async fn who_cannot_prove_to_be_an_application_is_not_and_ends_after_the_third_try() {
    let applications = format!(
        "[[application]]\napplication_id = \"metering\"\ntoken = \"{}\"\n\
         [[application]]\napplication_id = \"other-user\"\nuids = [{}]\n",
        TOKEN.replace(' ', "-"),
        uid() + 1
    );
    let scene = Scene::start(&applications).await;
    let mut right = scene.connect().await;
    assert_eq!(right.register("metering", Some(&TOKEN.replace(' ', "-"))).await.0, "2.01");
    let mut wrong = scene.connect().await;
    for (id, credential) in [("metering", None), ("other-user", None), ("unknown", Some("x"))] {
        let (code, answer) = wrong.register(id, credential).await;
        assert_eq!((code.as_str(), &answer["failureCause"]), ("4.03", &json!("APPLICATION_NOT_ALLOWED")), "{id}");
    }
    assert_eq!(wrong.last_words().await.as_deref(), Some("too many refused registrations"));
    round_trip(&mut right).await;
}

#[tokio::test]
async fn an_application_does_only_what_it_may_and_never_under_another_name() {
    let applications = format!(
        "{}messages_per_second_max = 1\nburst_max = 2\n",
        two().replacen("alarm\"", "alarm\"\ndestinations = [\"GROUP:*\"]", 1)
    );
    let mut scene = Scene::start(&applications).await;
    let mut application = scene.application("metering").await;
    let changed = |member: &str, value: Value| {
        let mut message = to_other("1");
        message[member] = value;
        message
    };
    for (message, code, cause) in [
        (changed("oriAddr", json!({"addrType": "UE", "addr": OTHER})), "4.03", "ORIGINATOR_NOT_ALLOWED"),
        (changed("oriAddr", json!({"addrType": "AS", "addr": ME})), "4.03", "ORIGINATOR_NOT_ALLOWED"),
        (changed("appId", json!("alarm")), "4.03", "APPLICATION_NOT_ALLOWED"),
        (changed("destAddr", json!({"addrType": "UE", "addr": "somebody@else"})), "4.03", "DESTINATION_NOT_ALLOWED"),
        (changed("destAddr", json!({"addrType": "TOPIC", "addr": OTHER})), "4.03", "DESTINATION_NOT_ALLOWED"),
        (changed("priority", json!("HIGH")), "4.03", "PRIORITY_NOT_ALLOWED"),
        (changed("msgId", json!("x".repeat(112))), "4.00", "MALFORMED"),
        (changed("payload", json!("A".repeat(100_000))), "4.13", "PAYLOAD_TOO_LARGE"),
    ] {
        let (answered, answer) = application.ask(&message).await;
        assert_eq!((answered.as_str(), &answer["failureCause"]), (code, &json!(cause)));
    }
    // What is its own is tolerated, and nothing of the above has reached the server.
    let mut own = changed("oriAddr", json!({"addrType": "UE", "addr": ME}));
    own["appId"] = "metering".into();
    let sending = application.post(&own).await;
    let (at_server, sent) = scene.peer.message().await;
    scene.peer.answer(at_server, &sent, None).await;
    assert_eq!(application.answer(sending).await.0, "2.04");

    // Faster than its rate: alarm may send two at once.
    let mut alarm = scene.application("alarm").await;
    let to_group = |id: &str| json!({"msgType": "MSG", "destAddr": {"addrType": "GROUP", "addr": "all"}, "msgId": id, "payload": "AA=="});
    for id in ["1", "2"] {
        let sending = alarm.post(&to_group(id)).await;
        let (at_server, sent) = scene.peer.message().await;
        scene.peer.answer(at_server, &sent, None).await;
        assert_eq!(alarm.answer(sending).await.0, "2.04");
    }
    let mut too_fast = Vec::new();
    while too_fast.is_empty() {
        // A slow machine may have earned it another message in the meantime.
        let exchange = alarm.post(&to_group("3")).await;
        tokio::select! {
            (code, answer) = alarm.answer(exchange) => {
                assert_eq!((code.as_str(), &answer["failureCause"]), ("4.29", &json!("RATE_EXCEEDED")));
                too_fast.push(code);
            }
            (at_server, sent) = scene.peer.message() => {
                scene.peer.answer(at_server, &sent, None).await;
                alarm.event().await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_is_for_an_application_that_is_away_stays_with_the_server_and_holds_up_no_other() {
    let mut scene =
        Scene::start_with(toml::from_str(&two()).unwrap(), |config| config.limits.come_back_seconds = 1).await;
    let mut alarm = scene.application("alarm").await;
    let away = scene.peer.send(&message_for(Some("metering"), "1")).await;
    let response = scene.peer.response(away).await;
    assert_eq!((response.code, response.max_age), (Code::SERVICE_UNAVAILABLE, Some(1)));
    let there = scene.peer.send(&message_for(Some("alarm"), "2")).await;
    let (exchange, _) = alarm.delivered().await;
    alarm.respond(exchange, Code::CHANGED).await;
    assert_eq!(scene.peer.response(there).await.code, Code::CHANGED);
    // It comes again when the application is there.
    let mut metering = scene.application("metering").await;
    let again = scene.peer.send(&message_for(Some("metering"), "1")).await;
    let (exchange, message) = metering.delivered().await;
    assert_eq!(message["msgId"], "1");
    metering.respond(exchange, Code::CHANGED).await;
    assert_eq!(scene.peer.response(again).await.code, Code::CHANGED);
}

#[tokio::test]
async fn nothing_overtakes_what_was_put_off_for_the_same_application() {
    let mut scene =
        Scene::start_with(toml::from_str(&two()).unwrap(), |config| config.limits.come_back_seconds = 3600).await;
    let first = scene.peer.send(&message_for(Some("metering"), "1")).await;
    assert_eq!(scene.peer.response(first).await.code, Code::SERVICE_UNAVAILABLE);
    let mut metering = scene.application("metering").await;
    let second = scene.peer.send(&message_for(Some("metering"), "2")).await;
    assert_eq!(scene.peer.response(second).await.code, Code::SERVICE_UNAVAILABLE);
    for id in ["1", "2"] {
        scene.peer.send(&message_for(Some("metering"), id)).await;
        let (exchange, message) = metering.delivered().await;
        assert_eq!(message["msgId"], id);
        metering.respond(exchange, Code::CHANGED).await;
    }
}

#[tokio::test]
async fn what_is_for_nobody_or_for_one_that_is_to_be_refused_is_refused() {
    let applications = two().replacen("alarm\"", "alarm\"\nwhen_away = \"refuse\"", 1);
    let mut scene = Scene::start(&applications).await;
    for message in [message_for(Some("alarm"), "1"), message_for(Some("unknown"), "2"), message_for(None, "3")] {
        let exchange = scene.peer.send(&message).await;
        let response = scene.peer.response(exchange).await;
        assert_eq!((response.code, cause(&response).as_str()), (Code::FORBIDDEN, "TARGET_REFUSED"));
    }
    for id in ["1", "0123456789abcdef.1"] {
        let exchange = scene.peer.send(&report_on(&id.parse().unwrap())).await;
        assert_eq!(scene.peer.response(exchange).await.code, Code::FORBIDDEN, "{id} is nobody's message");
    }
}

#[tokio::test]
async fn one_application_may_take_what_names_none() {
    let applications = two().replacen("alarm\"", "alarm\"\ntakes_unnamed = true", 1);
    let mut scene = Scene::start(&applications).await;
    let mut alarm = scene.application("alarm").await;
    scene.peer.send(&message_for(None, "1")).await;
    assert_eq!(alarm.delivered().await.1["msgId"], "1");
}

#[tokio::test]
async fn an_application_decides_by_its_answer_or_by_a_report() {
    let mut scene = Scene::start(&two()).await;
    let mut alarm = scene.application("alarm").await;
    for (id, code, at_server) in [
        ("1", Code::CHANGED, Code::CHANGED),
        ("2", Code::BAD_REQUEST, Code::FORBIDDEN),
        ("3", Code::SERVICE_UNAVAILABLE, Code::SERVICE_UNAVAILABLE),
    ] {
        let sent = scene.peer.send(&message_for(Some("alarm"), id)).await;
        let (exchange, _) = alarm.delivered().await;
        alarm.respond(exchange, code).await;
        assert_eq!(scene.peer.response(sent).await.code, at_server, "{id}");
    }
    let report = |id: &str, status: &str| json!({"msgType": "IMDN", "destAddr": {"addrType": "UE", "addr": OTHER}, "msgId": id, "delivSt": status});
    // 3 was put off and comes first.
    for (id, status, at_server) in
        [("3", "REPT_DELY_SUCCESS", Code::CHANGED), ("4", "REPT_DELY_FAILED", Code::FORBIDDEN)]
    {
        let sent = scene.peer.send(&message_for(Some("alarm"), id)).await;
        alarm.delivered().await;
        assert_eq!(alarm.ask(&report(id, status)).await.0, "2.04");
        assert_eq!(scene.peer.response(sent).await.code, at_server, "{id}");
    }
    // What it took cannot fail any more, and what it never got is not its to report on.
    assert_eq!(alarm.ask(&report("1", "REPT_DELY_SUCCESS")).await.0, "2.04");
    assert_eq!(alarm.ask(&report("1", "REPT_DELY_FAILED")).await.0, "4.00");
    assert_eq!(alarm.ask(&report("9", "REPT_DELY_SUCCESS")).await.0, "4.04");
}

#[tokio::test]
async fn what_an_application_leaves_unanswered_goes_back_and_comes_again_first() {
    let mut scene =
        Scene::start_with(toml::from_str(&two()).unwrap(), |config| config.limits.come_back_seconds = 3600).await;
    let mut alarm = scene.application("alarm").await;
    let mut sent = Vec::new();
    for id in ["1", "2"] {
        sent.push(scene.peer.send(&message_for(Some("alarm"), id)).await);
        assert_eq!(alarm.delivered().await.1["msgId"], id);
    }
    // As a program does that is killed.
    drop(alarm);
    for sent in sent {
        assert_eq!(scene.peer.response(sent).await.code, Code::SERVICE_UNAVAILABLE);
    }
    let mut alarm = scene.application("alarm").await;
    let third = scene.peer.send(&message_for(Some("alarm"), "3")).await;
    assert_eq!(scene.peer.response(third).await.code, Code::SERVICE_UNAVAILABLE);
    for id in ["1", "2", "3"] {
        scene.peer.send(&message_for(Some("alarm"), id)).await;
        let (exchange, message) = alarm.delivered().await;
        assert_eq!(message["msgId"], id);
        alarm.respond(exchange, Code::CHANGED).await;
    }
}

#[tokio::test]
async fn a_newer_registration_ends_the_older_connection() {
    let mut scene = Scene::start(&two()).await;
    let mut older = scene.application("alarm").await;
    let mut newer = scene.application("alarm").await;
    assert_eq!(older.last_words().await.as_deref(), Some("the application registered on another connection"));
    let sent = scene.peer.send(&message_for(Some("alarm"), "1")).await;
    let (exchange, _) = newer.delivered().await;
    newer.respond(exchange, Code::CHANGED).await;
    assert_eq!(scene.peer.response(sent).await.code, Code::CHANGED);
}

#[tokio::test]
async fn what_the_older_connection_left_unanswered_comes_to_the_newer_one_first() {
    let change = |config: &mut client::ClientConfig| config.limits.come_back_seconds = 3600;
    let mut scene = Scene::start_with(toml::from_str(&two()).unwrap(), change).await;
    let mut older = scene.application("alarm").await;
    let first = scene.peer.send(&message_for(Some("alarm"), "1")).await;
    older.delivered().await;
    let mut newer = scene.application("alarm").await;
    assert_eq!(scene.peer.response(first).await.code, Code::SERVICE_UNAVAILABLE);
    let second = scene.peer.send(&message_for(Some("alarm"), "2")).await;
    assert_eq!(scene.peer.response(second).await.code, Code::SERVICE_UNAVAILABLE);
    for id in ["1", "2"] {
        scene.peer.send(&message_for(Some("alarm"), id)).await;
        let (exchange, message) = newer.delivered().await;
        assert_eq!(message["msgId"], id);
        newer.respond(exchange, Code::CHANGED).await;
    }
}

#[tokio::test]
async fn past_each_limit_there_is_its_answer() {
    let limits = "[limits]\nconnections_max = 2\nrequests_unanswered_max = 2\ndeliveries_unanswered_max = 1\n\
                  deliveries_waiting_max = 1\nmessage_octets_max = 2000\n";
    let mut scene = Scene::start(&format!("{}{limits}", two())).await;
    let mut metering = scene.application("metering").await;
    // Requests without an answer: the server is slow.
    let mut sending = Vec::new();
    for id in ["1", "2"] {
        sending.push(metering.post(&to_other(id)).await);
    }
    let third = metering.post(&to_other("3")).await;
    assert_eq!(metering.answer(third).await.0, "4.29");
    for exchange in sending {
        let (at_server, sent) = scene.peer.message().await;
        scene.peer.answer(at_server, &sent, None).await;
        assert_eq!(metering.answer(exchange).await.0, "2.04");
    }
    // Deliveries: one is with the application, one waits, one is put off.
    scene.peer.send(&message_for(Some("metering"), "1")).await;
    let (exchange, _) = metering.delivered().await;
    scene.peer.send(&message_for(Some("metering"), "2")).await;
    let third = scene.peer.send(&message_for(Some("metering"), "3")).await;
    assert_eq!(scene.peer.response(third).await.code, Code::SERVICE_UNAVAILABLE);
    metering.respond(exchange, Code::CHANGED).await;
    assert_eq!(metering.delivered().await.1["msgId"], "2");
    // One connection too many.
    let _second = scene.application("alarm").await;
    let mut another = scene.connect().await;
    assert_eq!(another.last_words().await, None, "closed without a word");
    // A message over the size that the client's CSM told.
    let mut octets = vec![0xe0, 0x10, 0x00, 0x02];
    octets.resize(4_000, 0);
    metering.write(&octets).await;
    assert!(metering.last_words().await.is_some());
}

#[tokio::test]
async fn a_connection_without_a_registration_is_ended() {
    let scene = Scene::start(&format!("{}[limits]\nregistration_timeout_milliseconds = 200\n", two())).await;
    let mut silent = scene.connect().await;
    assert_eq!(silent.last_words().await.as_deref(), Some("no registration"));
}

#[tokio::test]
async fn an_application_that_gives_no_answer_or_reads_nothing_is_ended() {
    let limits = "[limits]\ndelivery_timeout_milliseconds = 200\n";
    let mut scene = Scene::start(&format!("{}{limits}", two())).await;
    let mut alarm = scene.application("alarm").await;
    let sent = scene.peer.send(&message_for(Some("alarm"), "1")).await;
    alarm.delivered().await;
    assert_eq!(scene.peer.response(sent).await.code, Code::SERVICE_UNAVAILABLE);
    assert_eq!(alarm.last_words().await.as_deref(), Some("no answer to what was delivered"));

    let limits = "[limits]\nwrite_timeout_milliseconds = 1000\npayload_octets_max = 65536\n";
    let change = |config: &mut client::ClientConfig| config.limits.payload_octets_max = 65_536;
    let mut scene = Scene::start_with(toml::from_str(&format!("{}{limits}", two())).unwrap(), change).await;
    let alarm = scene.application("alarm").await;
    // More than the socket's buffers hold.
    let mut sent = Vec::new();
    for id in 0..8 {
        let UeMessage::Message(mut message) = message_for(Some("alarm"), &id.to_string()) else { panic!() };
        message.payload = vec![7; 46_000];
        sent.push(scene.peer.send(&UeMessage::Message(message)).await);
    }
    for sent in sent {
        assert_eq!(scene.peer.response(sent).await.code, Code::SERVICE_UNAVAILABLE);
    }
    drop(alarm);
}

#[tokio::test]
async fn a_report_names_only_so_many_answered_messages_back() {
    let mut scene = Scene::start(&format!("{}[limits]\nanswered_max = 1\n", two())).await;
    let mut alarm = scene.application("alarm").await;
    for id in ["1", "2"] {
        scene.peer.send(&message_for(Some("alarm"), id)).await;
        let (exchange, _) = alarm.delivered().await;
        alarm.respond(exchange, Code::CHANGED).await;
    }
    for (id, code) in [("1", "4.04"), ("2", "2.04")] {
        let report = json!({"msgType": "IMDN", "destAddr": {"addrType": "UE", "addr": OTHER}, "msgId": id,
            "delivSt": "REPT_DELY_SUCCESS"});
        assert_eq!(alarm.ask(&report).await.0, code, "{id}");
    }
}

#[tokio::test]
async fn an_application_that_asks_and_takes_no_answers_is_ended() {
    let scene = Scene::start(&format!("{}[limits]\noutbound_octets_max = 500\n", two())).await;
    let mut calm = scene.application("alarm").await;
    let mut greedy = scene.connect().await;
    // POSTs of two octets to nowhere, more answers than the socket's buffers hold; it ends before all are written.
    greedy.write(&[0x00, 0x02].repeat(1_000_000)).await;
    round_trip(&mut calm).await;
    greedy.last_words().await;
}

#[tokio::test]
async fn closing_waits_no_longer_than_its_limit() {
    let mut scene = Scene::start(&format!("{}[limits]\nclose_timeout_milliseconds = 200\n", two())).await;
    let mut application = scene.application("metering").await;
    application.post(&to_other("1")).await;
    // The server has it and says nothing.
    scene.peer.message().await;
    scene.close().await;
    assert_eq!(application.last_words().await.as_deref(), Some("released"));
}

#[tokio::test]
async fn names_that_senders_invent_are_bounded_and_nothing_overtakes_past_the_bound() {
    let change = |config: &mut client::ClientConfig| config.limits.come_back_seconds = 3600;
    let mut scene = Scene::start_with(ApplicationsConfig::of_user(uid()), change).await;
    let mut alarm = scene.application("alarm").await;
    for number in 0..256 {
        let name = format!("invented-{number}");
        let sent = scene.peer.send(&message_for(Some(&name), &name)).await;
        assert_eq!(scene.peer.response(sent).await.code, Code::SERVICE_UNAVAILABLE);
    }
    let sent = scene.peer.send(&message_for(Some("alarm"), "1")).await;
    let (exchange, _) = alarm.delivered().await;
    alarm.respond(exchange, Code::CHANGED).await;
    assert_eq!(scene.peer.response(sent).await.code, Code::CHANGED);
    // Past the bound everything waits for what was sent back.
    for name in ["one-more", "alarm"] {
        let sent = scene.peer.send(&message_for(Some(name), &format!("for-{name}"))).await;
        assert_eq!(scene.peer.response(sent).await.code, Code::SERVICE_UNAVAILABLE, "{name}");
    }
}

#[tokio::test]
async fn nonsense_is_answered_or_ends_its_connection_alone() {
    let scene = Scene::start(&two()).await;
    let mut calm = scene.application("alarm").await;
    let mut wild = scene.application("metering").await;
    for (path, format, body, code) in [
        ("msgin5g", Some(50), "{", "4.00"),
        ("msgin5g", Some(50), "{\"msgType\":\"REG\"}", "4.00"),
        ("msgin5g", Some(50), "{\"msgType\":\"SEGREC\"}", "4.00"),
        ("msgin5g", Some(60), "{}", "4.15"),
        ("elsewhere", Some(50), "{}", "4.04"),
    ] {
        let exchange = wild.post_to(path, format, body.into()).await;
        assert_eq!(wild.answer(exchange).await.0, code, "{path} {body}");
    }
    wild.write(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").await;
    assert!(wild.last_words().await.is_some());
    let mut stranger = scene.connect().await;
    stranger.write(&[0xff; 64]).await;
    stranger.last_words().await;
    round_trip(&mut calm).await;
}

#[tokio::test]
async fn closing_finishes_what_is_under_way_and_takes_the_socket_away() {
    let mut scene = Scene::start(&two()).await;
    let mut application = scene.application("metering").await;
    let sending = application.post(&to_other("1")).await;
    let (at_server, sent) = scene.peer.message().await;
    scene.peer.answer(at_server, &sent, None).await;
    scene.close().await;
    assert!(!scene.socket.exists());
    // The answer may come before or after the word that the connection is to end, but it comes.
    let (mut answered, mut released) = (false, false);
    while let Some(event) = application.event().await {
        match event {
            StreamEvent::Response { exchange, response } => {
                answered = exchange == sending && response.code == Code::CHANGED;
            }
            StreamEvent::Released { .. } => released = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(answered && released);
    assert!(matches!(scene.client.status().state, client::ClientState::Registered), "the client stays as it is");
}

#[tokio::test]
async fn the_interface_ends_with_its_client() {
    let mut scene = Scene::start(&two()).await;
    let mut application = scene.application("metering").await;
    scene.client.close().await;
    scene.ended().await;
    assert_eq!(application.last_words().await.as_deref(), Some("released"));
    assert!(!scene.socket.exists());
}

#[tokio::test]
async fn applications_survive_a_lost_connection_to_the_server() {
    let mut scene = Scene::start(&two()).await;
    let mut application = scene.application("metering").await;
    let sending = application.post(&to_other("1")).await;
    let (_, sent) = scene.peer.message().await;
    let Scene { server, peer, .. } = &mut scene;
    // The old connection breaks once the new one is awaited.
    peer.hang_up().await;
    *peer = server.accept_registered().await;
    until(&scene.client, |status| status.registrations == 2).await;
    let (at_server, again) = scene.peer.message().await;
    assert_eq!(again.message_id, sent.message_id);
    scene.peer.answer(at_server, &again, None).await;
    assert_eq!(application.answer(sending).await.0, "2.04");
}

#[tokio::test]
async fn what_an_application_sent_before_it_left_is_sent() {
    let mut scene = Scene::start(&two()).await;
    let mut application = scene.application("metering").await;
    let Scene { server, peer, client, .. } = &mut scene;
    peer.hang_up().await;
    until(client, |status| status.state != client::ClientState::Registered).await;
    application.post(&to_other("1")).await;
    until(client, |status| status.unanswered == 1).await;
    drop(application);
    *peer = server.accept_registered().await;
    let (at_server, sent) = peer.message().await;
    assert!(sent.message_id.as_str().ends_with(".1"));
    peer.answer(at_server, &sent, None).await;
    scene.application("metering").await;
}

#[tokio::test]
async fn without_configuration_programs_of_the_same_user_may_be_anybody() {
    let mut scene = Scene::start_with(ApplicationsConfig::of_user(uid()), |_| {}).await;
    let mut application = scene.application("anything").await;
    let mut message = to_other("1");
    message["priority"] = "HIGH".into();
    message["appId"] = "another".into();
    let sending = application.post(&message).await;
    let (at_server, sent) = scene.peer.message().await;
    assert_eq!(sent.application_id.as_ref().unwrap().as_str(), "another");
    scene.peer.answer(at_server, &sent, None).await;
    assert_eq!(application.answer(sending).await.0, "2.04");
    let report = scene.peer.send(&report_on(&sent.message_id)).await;
    let (exchange, arrived) = application.delivered().await;
    assert_eq!(arrived["msgId"], "1");
    application.respond(exchange, Code::CHANGED).await;
    assert_eq!(scene.peer.response(report).await.code, Code::CHANGED);
    let mut impostor = scene.connect().await;
    assert_eq!(impostor.register("*", None).await.0, "4.03");

    let scene = Scene::start_with(ApplicationsConfig::of_user(uid() + 1), |_| {}).await;
    let mut other = scene.connect().await;
    assert_eq!(other.register("anything", None).await.0, "4.03");
}

#[tokio::test]
async fn a_socket_in_use_is_not_taken() {
    let scene = Scene::start(&two()).await;
    let second = ApplicationInterface::bind(ApplicationsConfig::default(), &scene.socket, SocketAccess::Owner);
    assert!(matches!(second, Err(ClientError::SocketInUse { .. })));
}
