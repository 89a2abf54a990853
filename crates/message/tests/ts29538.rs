//! The types of TS 29.538 from outside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod strategies;

use std::collections::BTreeSet;

use message::member::subscription_status;
use message::ts29538::{
    AsMessageDelivery, AsProfile, AsRegistration, AsRegistrationAck, BgMessageDelivery, DeliveryStatusReport,
    MessageDeliveryAck, MessagingTopic, RegistrationResult, TopicListNotification, TopicListSubscription,
    TopicListSubscriptionAck, TopicListUnsubscription, TopicListUnsubscriptionAck, TopicSubscription,
    TopicSubscriptionAck, TopicUnsubscription, UeMessageDelivery, UpdateStatus,
};
use message::{
    DecodeLimits, DeliveryStatus, FailureCause, Message, MessageResponse, Priority, ReportDeliveryStatus, UeMessage,
    member,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn full() -> Value {
    json!({
        "oriAddr": {"addrType": "AS", "addr": "billing"},
        "destAddr": {"addrType": "UE", "addr": "meter-7"},
        "recAddr": {"addrType": "UE", "addr": "meter-8"},
        "appId": "metering",
        "msgId": "m-1",
        "delivStReqInd": true,
        "payload": "aGVsbG8=",
        "priority": "HIGH",
        "segInd": true,
        "segParams": {"segId": "s", "totalSegCount": 2, "segNumb": 1, "lastSegFlag": true},
        "stoAndFwInd": true,
        "stoAndFwParams": {"exprTime": "2026-12-01T00:00:00Z"},
        "latency": 500
    })
}

fn read(value: &Value) -> AsMessageDelivery {
    serde_json::from_value(value.clone()).unwrap()
}

/// The names of all members, at every depth.
fn names(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                into.insert(name.clone());
                names(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, into)),
        _ => {}
    }
}

#[test]
fn the_names_are_those_of_the_one_table() {
    let table: BTreeSet<&str> = [
        member::ORIGINATOR,
        member::DESTINATION,
        member::RECIPIENT,
        member::ADDRESS_TYPE,
        member::ADDRESS,
        member::APPLICATION_ID,
        member::MESSAGE_ID,
        member::DELIVERY_STATUS_REQUIRED,
        member::PAYLOAD,
        member::PRIORITY,
        member::SEGMENTED,
        member::SEGMENT_PARAMETERS,
        member::SEGMENTATION_SET_ID,
        member::TOTAL_SEGMENT_COUNT,
        member::SEGMENT_NUMBER,
        member::LAST_SEGMENT_FLAG,
        member::STORE_AND_FORWARD,
        member::STORE_AND_FORWARD_PARAMETERS,
        member::EXPIRATION_TIME,
        member::LATENCY,
        member::STATUS,
        member::FAILURE_CAUSE,
        member::DELIVERY_STATUS,
        member::AS_SERVICE_ID,
        member::TARGET_URI,
        member::AS_PROFILE,
        member::APPLICATION_NAME,
        member::APPLICATION_PROVIDERS,
        member::APPLICATION_SCENARIOS,
        member::APPLICATION_CATEGORY,
        member::AS_STATUS,
        member::RESULT,
        member::MESSAGING_TOPICS,
        member::MESSAGING_TOPIC,
        member::UPDATE_STATUS,
        member::SUBSCRIPTION_STATUS,
        member::NOTIFICATION_URI,
        member::SUPPORTED_FEATURES,
    ]
    .into();
    let ack = MessageDeliveryAck {
        ori_addr: read(&full()).ori_addr,
        msg_id: "1".parse().unwrap(),
        status: Some(DeliveryStatus::Failed),
        failure_cause: Some("x".into()),
    };
    let report = DeliveryStatusReport {
        ori_addr: ack.ori_addr.clone(),
        dest_addr: ack.ori_addr.clone(),
        msg_id: "1".parse().unwrap(),
        failure_cause: None,
        deliv_st: ReportDeliveryStatus::Success,
    };
    let registration = AsRegistration {
        as_svc_id: "billing".parse().unwrap(),
        app_id: Some("metering".parse().unwrap()),
        target_uri: Some("https://as.example".into()),
        as_prof: Some(AsProfile {
            app_name: Some("n".into()),
            app_providers: vec!["p".into()],
            app_senarios: vec!["s".into()],
            app_category: Some("c".into()),
            as_status: Some("up".into()),
        }),
    };
    let registered =
        AsRegistrationAck { as_svc_id: registration.as_svc_id.clone(), result: RegistrationResult::default() };
    let list_subscription = TopicListSubscription {
        ori_addr: ack.ori_addr.clone(),
        dest_addr: ack.ori_addr.clone(),
        notification_uri: "https://as.example".into(),
        expr_time: None,
        supp_feat: Some("0".into()),
    };
    let subscribed = TopicSubscriptionAck { sub_stat: "x".into(), expr_time: None };
    let update = MessagingTopic { msg_topic: topic("t"), update_stat: UpdateStatus::Deleted };
    let notification = TopicListNotification { msg_topics: vec![update], expr_time: None };
    let mut used = BTreeSet::new();
    for value in [
        serde_json::to_value(read(&full())).unwrap(),
        serde_json::to_value(ack).unwrap(),
        serde_json::to_value(report).unwrap(),
        serde_json::to_value(registration).unwrap(),
        serde_json::to_value(registered).unwrap(),
        serde_json::to_value(list_subscription).unwrap(),
        serde_json::to_value(subscribed).unwrap(),
        serde_json::to_value(notification).unwrap(),
    ] {
        names(&value, &mut used);
    }
    let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(used, table);
}

#[test]
fn an_as_message_becomes_the_message_that_a_ue_would_have_sent() {
    let message = Message::try_from(read(&full())).unwrap();
    let mut on_coap = full();
    on_coap["msgType"] = "MSG".into();
    let UeMessage::Message(same) = UeMessage::decode(on_coap.to_string().as_bytes(), &DecodeLimits::default()).unwrap()
    else {
        panic!("not a message")
    };
    assert_eq!(message, *same);
    assert_eq!(message.payload, b"hello");
    assert_eq!(serde_json::to_value(AsMessageDelivery::from(&message)).unwrap(), full(), "and back");
}

#[test]
fn a_ue_message_has_neither_priority_nor_latency() {
    let message = Message::try_from(read(&full())).unwrap();
    let value = serde_json::to_value(UeMessageDelivery::from(&message)).unwrap();
    assert_eq!((value.get("priority"), value.get("latency")), (None, None));
    let back: UeMessageDelivery = serde_json::from_value(value).unwrap();
    assert_eq!(Message::try_from(back).unwrap(), Message { priority: Priority::Middle, latency: None, ..message });
}

#[test]
fn mandatory_members_are_mandatory_and_unknown_ones_are_not() {
    for name in ["oriAddr", "destAddr", "msgId", "stoAndFwInd"] {
        let mut value = full();
        value.as_object_mut().unwrap().remove(name);
        let error = serde_json::from_value::<AsMessageDelivery>(value).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut value = full();
    value["secCred"] = "t".into();
    assert_eq!(read(&value), read(&full()));
    let least = json!({
        "oriAddr": {"addrType": "AS", "addr": "a"}, "destAddr": {"addrType": "UE", "addr": "b"},
        "msgId": "1", "stoAndFwInd": false
    });
    let message = Message::try_from(read(&least)).unwrap();
    assert_eq!(serde_json::to_value(AsMessageDelivery::from(&message)).unwrap(), least);
}

#[test]
fn duplicates_and_wrong_types_are_refused() {
    let text = full().to_string();
    let twice = text.replace("\"msgId\":\"m-1\"", "\"msgId\":\"m-1\",\"msgId\":\"m-2\"");
    assert!(serde_json::from_str::<AsMessageDelivery>(&twice).unwrap_err().to_string().contains("duplicate"));
    for (name, value) in [
        ("msgId", json!(1)),
        ("msgId", json!("a b")),
        ("oriAddr", json!("billing")),
        ("stoAndFwInd", json!("true")),
        ("payload", json!([1])),
        ("latency", json!(-1)),
        ("stoAndFwParams", json!({"exprTime": "soon"})),
        ("segParams", json!({"segNumb": "1"})),
    ] {
        let mut changed = full();
        changed[name] = value;
        assert!(serde_json::from_value::<AsMessageDelivery>(changed).is_err(), "{name}");
    }
}

#[test]
fn the_rules_of_messages_hold_here_too() {
    let refused = |name: &str, value: Value| {
        let mut changed = full();
        changed[name] = value;
        Message::try_from(read(&changed)).unwrap_err()
    };
    assert_eq!(refused("payload", json!("???")).to_string(), "member payload is not base64");
    assert_eq!(refused("payload", json!("A".repeat(3_000))).cause(), FailureCause::PayloadTooLarge);
    assert_eq!(
        refused("segInd", json!(false)).to_string(),
        "member segParams is there though the message is not segmented"
    );
    assert_eq!(
        refused("segParams", json!({"segId": "s", "segNumb": 70_000})).to_string(),
        "member segParams.segNumb is out of range"
    );
    assert_eq!(refused("segParams", json!({"segNumb": 1})).to_string(), "member segParams.segId is missing");
    let limits = DecodeLimits { payload_octets_max: 4, ..DecodeLimits::default() };
    assert_eq!(read(&full()).into_message(&limits).unwrap_err().cause(), FailureCause::PayloadTooLarge);
    let ack = json!({"oriAddr": {"addrType": "AS", "addr": "a"}, "msgId": "1", "failureCause": "x".repeat(256)});
    let ack: MessageDeliveryAck = serde_json::from_value(ack).unwrap();
    assert_eq!(MessageResponse::try_from(ack).unwrap_err().to_string(), "member failureCause is too long");
}

#[test]
fn answers_and_reports_convert_both_ways() {
    let ack = json!({"oriAddr": {"addrType": "AS", "addr": "a"}, "msgId": "1", "status": "DELY_STORED"});
    let ack: MessageDeliveryAck = serde_json::from_value(ack).unwrap();
    let response = MessageResponse::try_from(ack.clone()).unwrap();
    assert_eq!(response.status, Some(DeliveryStatus::Stored));
    assert_eq!(MessageDeliveryAck::from(response), ack);
    let report = json!({
        "oriAddr": {"addrType": "AS", "addr": "a"}, "destAddr": {"addrType": "UE", "addr": "b"},
        "msgId": "1", "delivSt": "REPT_DELY_FAILED", "failureCause": "EXPIRED"
    });
    let report: DeliveryStatusReport = serde_json::from_value(report).unwrap();
    let model = message::DeliveryStatusReport::try_from(report.clone()).unwrap();
    assert_eq!(model.delivery_status, ReportDeliveryStatus::Failed);
    assert_eq!(DeliveryStatusReport::from(model), report);
}

#[test]
fn debug_output_of_a_delivery_does_not_show_its_payload() {
    let shown = format!("{:?}", read(&full()));
    assert!(shown.contains("m-1") && !shown.contains("aGVsbG8"), "{shown}");
}

fn topic(text: &str) -> message::MessagingTopic {
    text.parse().unwrap()
}

#[test]
fn the_topic_list_api_reads_and_writes_the_names_of_the_contract() {
    let server = json!({"addrType": "AS", "addr": "msgin5g.lab.example"});
    let subscription = json!({
        "oriAddr": server, "destAddr": server, "notificationURI": "https://other.example/notify",
        "exprTime": "2026-12-01T00:00:00Z", "suppFeat": "0"
    });
    let read: TopicListSubscription = serde_json::from_value(with_credential(&subscription)).unwrap();
    assert_eq!(read.notification_uri, "https://other.example/notify");
    assert_eq!(serde_json::to_value(read).unwrap(), subscription);
    let ack =
        TopicListSubscriptionAck { sub_stat: subscription_status::SUBSCRIBED.into(), expr_time: None, supp_feat: None };
    assert_eq!(serde_json::to_value(&ack).unwrap(), json!({"subStat": "SUBSCRIBED"}));
    let unsubscription = json!({"oriAddr": server, "destAddr": server});
    let read: TopicListUnsubscription = serde_json::from_value(with_credential(&unsubscription)).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), unsubscription);
    let kept: TopicListUnsubscriptionAck = serde_json::from_value(json!({"subStat": "kept"})).unwrap();
    assert_eq!(kept.sub_stat, "kept");
    let notification = json!({
        "msgTopics": [{"msgTopic": "alerts/fire", "updateStat": "CREATED"}, {"msgTopic": "x", "updateStat": "MOVED"}],
        "exprTime": "2026-12-01T00:00:00Z"
    });
    let read: TopicListNotification = serde_json::from_value(notification.clone()).unwrap();
    assert_eq!(
        read.msg_topics[0],
        MessagingTopic { msg_topic: topic("alerts/fire"), update_stat: UpdateStatus::Created }
    );
    assert_eq!(read.msg_topics[1].update_stat, UpdateStatus::Other("MOVED".into()), "the enumeration is extensible");
    assert_eq!(serde_json::to_value(read).unwrap(), notification);
}

/// `secCred` came with Release 17 and goes unread.
fn with_credential(value: &Value) -> Value {
    let mut value = value.clone();
    value["secCred"] = "x".into();
    value
}

#[test]
fn a_topic_subscription_over_http_is_the_one_that_a_ue_would_have_sent() {
    let body = json!({
        "oriAddr": {"addrType": "UE", "addr": "meter-7"}, "msgTopics": ["alerts/fire"],
        "exprTime": "2026-12-01T00:00:00Z"
    });
    let over_http: TopicSubscription = serde_json::from_value(with_credential(&body)).unwrap();
    let mut on_coap = body.clone();
    on_coap["msgType"] = "TOPSUB".into();
    let same = UeMessage::decode(on_coap.to_string().as_bytes(), &DecodeLimits::default()).unwrap();
    let model = message::TopicSubscription::from(over_http);
    assert_eq!(same, UeMessage::TopicSubscription(model.clone()));
    assert_eq!(serde_json::to_value(TopicSubscription::from(model)).unwrap(), body, "and back");
    let body = json!({"oriAddr": {"addrType": "UE", "addr": "meter-7"}, "msgTopics": ["alerts/fire"]});
    let over_http: TopicUnsubscription = serde_json::from_value(body.clone()).unwrap();
    let model = message::TopicUnsubscription::from(over_http);
    assert_eq!(model.topics, [topic("alerts/fire")]);
    assert_eq!(serde_json::to_value(TopicUnsubscription::from(model)).unwrap(), body);
    let ack: TopicSubscriptionAck = serde_json::from_value(json!({"subStat": "SUBSCRIBED"})).unwrap();
    let response = ack.into_response(read(&full()).ori_addr).unwrap();
    assert_eq!((response.status.as_str(), response.failure_cause), ("SUBSCRIBED", None));
    let ack: TopicSubscriptionAck = serde_json::from_value(json!({"subStat": "not a word"})).unwrap();
    assert_eq!(
        ack.into_response(read(&full()).ori_addr).unwrap_err().to_string(),
        "member subStat holds a character that is not allowed"
    );
}

#[test]
fn topic_lists_are_neither_empty_nor_longer_than_their_limits() {
    let subscription = |count: usize| {
        let topics: Vec<String> = (0..count).map(|at| format!("t{at}")).collect();
        serde_json::from_value::<TopicSubscription>(
            json!({"oriAddr": {"addrType": "UE", "addr": "a"}, "msgTopics": topics}),
        )
    };
    assert!(subscription(1).is_ok() && subscription(64).is_ok());
    assert!(subscription(0).unwrap_err().to_string().contains("a list of 1 to 64 elements"));
    assert!(subscription(65).unwrap_err().to_string().contains("a list of 1 to 64 elements"));
    let notification = |count: usize| {
        let update = json!({"msgTopic": "t", "updateStat": "CREATED"});
        serde_json::from_value::<TopicListNotification>(json!({"msgTopics": vec![update; count]}))
    };
    assert!(notification(1).is_ok() && notification(256).is_ok());
    assert!(notification(0).is_err() && notification(257).is_err());
}

#[test]
fn a_broadcast_message_has_an_area_a_priority_and_nothing_to_store() {
    let body = json!({
        "oriAddr": {"addrType": "AS", "addr": "alerts"}, "destAddr": {"addrType": "BC", "addr": "harbour"},
        "appId": "siren", "msgId": "m-1", "delivStReqInd": true, "payload": "aGVsbG8=", "priority": "HIGH"
    });
    let delivery: BgMessageDelivery = serde_json::from_value(body.clone()).unwrap();
    assert!(!format!("{delivery:?}").contains("aGVsbG8"));
    let message = Message::try_from(delivery).unwrap();
    assert_eq!(
        (message.priority, message.store_and_forward, &message.payload[..]),
        (Priority::High, false, &b"hello"[..])
    );
    assert_eq!(serde_json::to_value(BgMessageDelivery::from(&message)).unwrap(), body, "and back");
    let mut nowhere = body;
    nowhere.as_object_mut().unwrap().remove("destAddr");
    let delivery: BgMessageDelivery = serde_json::from_value(nowhere).unwrap();
    assert_eq!(Message::try_from(delivery).unwrap_err().to_string(), "member destAddr is missing");
}

/// Written as a body and read from it.
fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(body: &T) -> T {
    serde_json::from_slice(&serde_json::to_vec(body).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_message_comes_through_each_kind_of_delivery_but_for_what_that_has_no_place_for(
        message in strategies::message().boxed(),
    ) {
        let limits = DecodeLimits::default();
        let of_as = through_json(&AsMessageDelivery::from(&message)).into_message(&limits);
        prop_assert_eq!(of_as.as_ref(), Ok(&message));
        let of_ue = through_json(&UeMessageDelivery::from(&message)).into_message(&limits);
        prop_assert_eq!(of_ue, Ok(Message { priority: Priority::Middle, latency: None, ..message.clone() }));
        let broadcast = through_json(&BgMessageDelivery::from(&message)).into_message(&limits);
        let plain = Message {
            store_and_forward: false, expiration_time: None, recipient: None, latency: None, ..message
        };
        prop_assert_eq!(broadcast, Ok(plain));
    }

    #[test]
    fn any_report_and_any_answer_comes_through_its_type(message in strategies::any_message().boxed()) {
        match message {
            UeMessage::DeliveryStatusReport(report) => {
                let over_http = through_json(&DeliveryStatusReport::from(report.clone()));
                prop_assert_eq!(message::DeliveryStatusReport::try_from(over_http), Ok(report));
            }
            UeMessage::MessageResponse(response) => {
                let over_http = MessageDeliveryAck {
                    ori_addr: response.originator.clone(),
                    msg_id: response.message_id.clone(),
                    status: response.status.clone(),
                    failure_cause: response.failure_cause.clone(),
                };
                // What became of each message of an aggregate has no place there, and an AS sends none.
                let alone = message::MessageResponse { individual: Vec::new(), ..response };
                prop_assert_eq!(message::MessageResponse::try_from(through_json(&over_http)), Ok(alone));
            }
            _ => {}
        }
    }

    #[test]
    fn no_damage_to_a_report_or_an_answer_makes_the_reader_panic(
        message in strategies::any_message().boxed(), at in any::<prop::sample::Index>(),
        octet in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\-0e.tfn"[..])], remove: bool,
    ) {
        let mut octets = message.encode();
        let at = at.index(octets.len());
        if remove { octets.remove(at); } else { octets[at] = octet; }
        if let Ok(read) = serde_json::from_slice::<DeliveryStatusReport>(&octets) {
            prop_assert_eq!(&through_json(&read), &read);
            let _ = message::DeliveryStatusReport::try_from(read);
        }
        if let Ok(read) = serde_json::from_slice::<MessageDeliveryAck>(&octets) {
            prop_assert_eq!(&through_json(&read), &read);
            let _ = message::MessageResponse::try_from(read);
        }
    }

    #[test]
    fn any_subscription_comes_through_the_topic_list_api(message in strategies::subscriptions().boxed()) {
        match message {
            UeMessage::TopicSubscription(model) => {
                let over_http = through_json(&TopicSubscription::from(model.clone()));
                prop_assert_eq!(message::TopicSubscription::from(over_http), model);
            }
            UeMessage::TopicUnsubscription(model) => {
                let over_http = through_json(&TopicUnsubscription::from(model.clone()));
                prop_assert_eq!(message::TopicUnsubscription::from(over_http), model);
            }
            UeMessage::TopicSubscriptionResponse(model) => {
                let ack = TopicSubscriptionAck { sub_stat: model.status.clone(), expr_time: model.expiration_time };
                let read = through_json(&ack).into_response(model.originator.clone());
                prop_assert_eq!(read, Ok(message::TopicSubscriptionResponse { failure_cause: None, ..model }));
            }
            _ => {}
        }
    }

    #[test]
    fn no_damage_to_a_body_of_the_topic_list_api_makes_the_reader_panic(
        message in strategies::subscriptions().boxed(), at in any::<prop::sample::Index>(),
        octet in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\-0e.tfn"[..])], remove: bool,
    ) {
        let mut octets = message.encode();
        let at = at.index(octets.len());
        if remove { octets.remove(at); } else { octets[at] = octet; }
        if let Ok(read) = serde_json::from_slice::<TopicSubscription>(&octets) {
            prop_assert!((1..=64).contains(&read.msg_topics.len()));
            prop_assert_eq!(through_json(&read), read);
        }
        let _ = serde_json::from_slice::<TopicUnsubscription>(&octets);
        let _ = serde_json::from_slice::<TopicSubscriptionAck>(&octets);
        let _ = serde_json::from_slice::<TopicListSubscription>(&octets);
        let _ = serde_json::from_slice::<TopicListNotification>(&octets);
        let _ = serde_json::from_slice::<BgMessageDelivery>(&octets);
    }
}
