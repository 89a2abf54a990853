//! Aggregates, segment recovery, topics, stored message update and client profiles in the JSON coding of MSGin5G-1.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod strategies;

use message::{
    Address, AddressType, AggregatedMessage, AggregatedReport, ClientProfile, CommunicationAvailability, DecodeError,
    DecodeLimits, DeliveryStatus, DeliveryStatusReport, FailureCause, IndividualReport, Message, MessageResponse,
    NotAggregable, Priority, ReportDeliveryStatus, SegmentParameters, StoredMessageUpdate, TopicSubscriptionResponse,
    TriggeringInformation, UeMessage,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

use strategies::{aggregated_message, client_profile};

fn decode(value: &Value) -> Result<UeMessage, DecodeError> {
    UeMessage::decode(value.to_string().as_bytes(), &DecodeLimits::default())
}

fn refused(value: &Value) -> String {
    decode(value).expect_err(&value.to_string()).to_string()
}

/// `value` with `member` in place of what it has by that name; null takes it away.
fn with(value: &Value, member: &str, new: Value) -> Value {
    let mut value = value.clone();
    match new {
        Value::Null => drop(value.as_object_mut().unwrap().remove(member)),
        new => value[member] = new,
    }
    value
}

fn alice() -> Value {
    json!({"addrType": "UE", "addr": "alice"})
}

fn aggregate() -> Value {
    json!({
        "msgType": "MSG", "oriAddr": alice(), "destAddr": {"addrType": "AS", "addr": "billing"}, "msgId": "m",
        "indMsgCount": 2,
        "indMsgs": [
            {"msgId": "1", "appId": "metering", "delivStReqInd": true, "stoAndFwInd": true,
             "stoAndFwParams": {"exprTime": "2026-12-01T00:00:00Z"}, "priority": "LOW", "payload": "aGVsbG8="},
            {"msgId": "2"},
        ],
    })
}

#[test]
fn an_aggregated_message_is_told_from_a_message_by_its_list() {
    let UeMessage::AggregatedMessage(read) = decode(&aggregate()).unwrap() else { panic!("no aggregate") };
    assert_eq!((read.message_id.as_str(), read.messages.len(), read.payload_octets()), ("m", 2, 5));
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), aggregate(), "and is written so");
    let messages = read.into_messages();
    let expected = Message {
        originator: Address::ue(&"alice".parse().unwrap()),
        destination: Address::application_server(&"billing".parse().unwrap()),
        recipient: None,
        message_id: "1".parse().unwrap(),
        application_id: Some("metering".parse().unwrap()),
        delivery_status_required: true,
        store_and_forward: true,
        expiration_time: Some(datetime!(2026-12-01 0:00 UTC)),
        priority: Priority::Low,
        payload: b"hello".to_vec(),
        segment: None,
        latency: None,
    };
    assert_eq!(messages[0], expected);
    assert_eq!((messages[1].priority, messages[1].payload.len()), (Priority::Middle, 0));
    assert!(matches!(decode(&with(&aggregate(), "indMsgs", Value::Null)), Ok(UeMessage::Message(_))));
    assert!(decode(&with(&aggregate(), "indMsgCount", Value::Null)).is_ok(), "the count may be left out");
}

#[test]
fn an_aggregated_message_that_contradicts_itself_is_refused() {
    for (member, value, complaint) in [
        ("indMsgCount", json!(3), "member indMsgCount is not the number of messages"),
        ("indMsgs", json!([]), "member indMsgs has too few elements"),
        ("indMsgs", json!([{"msgId": "1"}]), "member indMsgs has too few elements"),
        ("indMsgs", json!([{"msgId": "1"}, {"msgId": "1"}]), "member indMsgs holds a Message ID twice"),
        ("indMsgs", json!([{"msgId": "1"}, {}]), "member indMsgs.msgId is missing"),
        ("indMsgs", json!([{"msgId": "1"}, 2]), "member indMsgs is not an array of objects"),
        ("indMsgs", json!({"msgId": "1"}), "member indMsgs is not an array of objects"),
        (
            "indMsgs",
            json!([{"msgId": "1", "priority": "HIGH"}, {"msgId": "2"}]),
            "member indMsgs.priority is HIGH, which is never aggregated",
        ),
        ("payload", json!("aGVsbG8="), "member payload is there though the message is aggregated"),
        ("segInd", json!(true), "member segInd is there though the message is aggregated"),
        ("segParams", json!({"segId": "s", "segNumb": 1}), "member segInd is there though the message is aggregated"),
        ("oriAddr", Value::Null, "member oriAddr is missing"),
        ("destAddr", Value::Null, "member destAddr is missing"),
        ("msgId", Value::Null, "member msgId is missing"),
    ] {
        assert_eq!(refused(&with(&aggregate(), member, value)), complaint);
    }
    let twice = aggregate().to_string().replace(r#""indMsgCount":2"#, r#""indMsgs":[]"#);
    let error = UeMessage::decode(twice.as_bytes(), &DecodeLimits::default()).unwrap_err();
    assert!(error.to_string().starts_with("member indMsgs"), "{error}");
}

#[test]
fn lists_are_read_no_further_than_their_limits() {
    let messages = |count: usize| (0..count).map(|at| json!({"msgId": at.to_string()})).collect::<Value>();
    let sized = |count| with(&with(&aggregate(), "indMsgCount", Value::Null), "indMsgs", messages(count));
    assert!(decode(&sized(64)).is_ok());
    assert_eq!(refused(&sized(65)), "member indMsgs has too many elements");
    let subscription = |count: usize| {
        let topics: Value = (0..count).map(|at| Value::from(format!("t{at}"))).collect();
        json!({"msgType": "TOPSUB", "oriAddr": alice(), "msgTopics": topics})
    };
    assert!(decode(&subscription(64)).is_ok());
    assert_eq!(refused(&subscription(65)), "member msgTopics has too many elements");
    assert_eq!(refused(&subscription(0)), "member msgTopics has too few elements");
    let recovery = |count: u32| with(&recovery(), "missSegs", (1..=count).collect());
    assert!(decode(&recovery(1_024)).is_ok());
    assert_eq!(refused(&recovery(1_025)), "member missSegs has too many elements");
    assert_eq!(refused(&recovery(0)), "member missSegs has too few elements");
    let reports = |count: usize| {
        let one = json!({"oriAddr": alice(), "msgId": "1", "delivSt": "REPT_DELY_SUCCESS"});
        json!({"msgType": "IMDN", "oriAddr": alice(), "destAddr": alice(), "indReports": vec![one; count]})
    };
    assert!(decode(&reports(512)).is_ok());
    assert_eq!(refused(&reports(513)), "member indReports has too many elements");
    assert_eq!(refused(&reports(0)), "member indReports has too few elements");
    // What comes after the last that is taken is not looked at: it may be anything that is JSON.
    let unread =
        with(&subscription(64), "msgTopics", [vec![json!("t"); 64], vec![json!([[[[[[[[[1]]]]]]]]])]].concat().into());
    assert_eq!(refused(&unread), "member msgTopics has too many elements");
}

#[test]
fn nesting_is_limited_inside_lists_too() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let with_unknown = |depth: usize| {
        let text = aggregate().to_string();
        UeMessage::decode(
            text.replacen(r#"{"msgId":"2"}"#, &format!(r#"{{"msgId":"2","x":{}}}"#, nested(depth)), 1).as_bytes(),
            &DecodeLimits::default(),
        )
    };
    assert!(with_unknown(5).is_ok(), "message, list and element are the first three of eight");
    assert_eq!(with_unknown(6), Err(DecodeError::NestedTooDeeply { depth_max: 8 }));
    assert_eq!(with_unknown(20_000), Err(DecodeError::NestedTooDeeply { depth_max: 8 }));
    // A list that is known counts like one that is not.
    let limits = DecodeLimits { depth_max: 2, ..DecodeLimits::default() };
    let error = UeMessage::decode(aggregate().to_string().as_bytes(), &limits);
    assert_eq!(error, Err(DecodeError::NestedTooDeeply { depth_max: 2 }));
    let limits = DecodeLimits { depth_max: 4, ..DecodeLimits::default() };
    assert!(UeMessage::decode(aggregate().to_string().as_bytes(), &limits).is_ok());
}

#[test]
fn the_payloads_of_an_aggregated_message_together_are_held_to_the_limit_of_one() {
    let limits = DecodeLimits { payload_octets_max: 9, ..DecodeLimits::default() };
    let pair = |second: &str| {
        let messages = json!([{"msgId": "1", "payload": "aGVsbG8="}, {"msgId": "2", "payload": second}]);
        with(&aggregate(), "indMsgs", messages).to_string()
    };
    assert!(UeMessage::decode(pair("aGVsbA==").as_bytes(), &limits).is_ok(), "five and four octets");
    let error = UeMessage::decode(pair("aGVsbG8=").as_bytes(), &limits).unwrap_err();
    assert_eq!(error, DecodeError::PayloadTooLarge { octets_max: 9 });
    assert_eq!(error.cause(), FailureCause::PayloadTooLarge);
}

#[test]
fn the_answer_to_an_aggregated_message_may_tell_its_messages_apart() {
    let answer = json!({
        "msgType": "MSGRESP", "oriAddr": alice(), "msgId": "m", "status": "DELY_FAILED",
        "failureCause": "TARGET_UNREACHABLE",
        "indResps": [
            {"msgId": "1"},
            {"msgId": "2", "status": "DELY_FAILED", "failureCause": "TARGET_UNREACHABLE"},
        ],
    });
    let read = MessageResponse::decode(answer.to_string().as_bytes(), &DecodeLimits::default()).unwrap();
    assert_eq!(read.individual.len(), 2);
    assert_eq!((&read.individual[0].status, &read.individual[1].status), (&None, &Some(DeliveryStatus::Failed)));
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), answer);
    let nameless = with(&answer, "indResps", json!([{"status": "DELY_FAILED"}]));
    assert_eq!(refused(&nameless), "member indResps.msgId is missing");
}

#[test]
fn aggregated_reports_come_apart_into_those_they_were_made_of() {
    let reports = json!({
        "msgType": "IMDN", "oriAddr": {"addrType": "GROUP", "addr": "crew"}, "destAddr": alice(),
        "indReports": [
            {"oriAddr": {"addrType": "UE", "addr": "bob"}, "msgId": "1", "delivSt": "REPT_DELY_SUCCESS"},
            {"oriAddr": {"addrType": "UE", "addr": "carol"}, "msgId": "1", "delivSt": "REPT_DELY_FAILED",
             "failureCause": "EXPIRED"},
        ],
    });
    let UeMessage::AggregatedReport(read) = decode(&reports).unwrap() else { panic!("no aggregated report") };
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), reports);
    let apart = read.into_reports();
    let expected = DeliveryStatusReport {
        originator: Address::ue(&"carol".parse().unwrap()),
        destination: Address::ue(&"alice".parse().unwrap()),
        message_id: "1".parse().unwrap(),
        delivery_status: ReportDeliveryStatus::Failed,
        failure_cause: Some("EXPIRED".into()),
    };
    assert_eq!((apart.len(), &apart[1]), (2, &expected));
    for (report, complaint) in [
        (json!({"msgId": "1", "delivSt": "x"}), "member indReports.oriAddr is missing"),
        (json!({"oriAddr": {"addr": "a"}, "msgId": "1", "delivSt": "x"}), "member oriAddr.addrType is missing"),
        (json!({"oriAddr": alice(), "delivSt": "x"}), "member indReports.msgId is missing"),
        (json!({"oriAddr": alice(), "msgId": "1"}), "member indReports.delivSt is missing"),
    ] {
        assert_eq!(refused(&with(&reports, "indReports", json!([report]))), complaint);
    }
}

fn recovery() -> Value {
    json!({
        "msgType": "SEGREC", "oriAddr": {"addrType": "UE", "addr": "bob"}, "destAddr": alice(), "msgId": "m",
        "segId": "s", "missSegs": [2, 5],
    })
}

#[test]
fn segment_recovery_and_confirmation_name_message_and_set() {
    let UeMessage::SegmentRecovery(read) = decode(&recovery()).unwrap() else { panic!("no recovery") };
    assert_eq!((read.set_id.as_str(), &read.missing[..]), ("s", &[2, 5][..]));
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), recovery());
    for member in ["oriAddr", "destAddr", "msgId", "segId", "missSegs"] {
        assert_eq!(refused(&with(&recovery(), member, Value::Null)), format!("member {member} is missing"));
    }
    for (missing, complaint) in [
        (json!([5, 2]), "is not in ascending order"),
        (json!([2, 2]), "is not in ascending order"),
        (json!([65_536]), "is out of range"),
        (json!([-1]), "is out of range"),
        (json!(["1"]), "is not an array of integers"),
        (json!(1), "is not an array of integers"),
    ] {
        assert_eq!(refused(&with(&recovery(), "missSegs", missing)), format!("member missSegs {complaint}"));
    }
    let confirmation = with(&with(&recovery(), "msgType", json!("SEGCONFIR")), "missSegs", Value::Null);
    let UeMessage::SegmentConfirmation(read) = decode(&confirmation).unwrap() else { panic!("no confirmation") };
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), confirmation);
    assert_eq!(refused(&with(&confirmation, "segId", Value::Null)), "member segId is missing");
}

#[test]
fn topics_are_subscribed_to_and_unsubscribed_from() {
    let subscription = json!({
        "msgType": "TOPSUB", "oriAddr": alice(), "msgTopics": ["alerts/fire", "alerts/water"],
        "exprTime": "2026-12-01T00:00:00Z",
    });
    let UeMessage::TopicSubscription(read) = decode(&subscription).unwrap() else { panic!("no subscription") };
    assert_eq!((read.topics[1].as_str(), read.expiration_time), ("alerts/water", Some(datetime!(2026-12-01 0:00 UTC))));
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), subscription);
    let unsubscription = with(&with(&subscription, "msgType", json!("TOPUNSUB")), "exprTime", Value::Null);
    let UeMessage::TopicUnsubscription(read) = decode(&unsubscription).unwrap() else { panic!("no unsubscription") };
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), unsubscription);
    for (member, value, complaint) in [
        ("oriAddr", Value::Null, "member oriAddr is missing"),
        ("msgTopics", Value::Null, "member msgTopics is missing"),
        ("msgTopics", json!("alerts/fire"), "member msgTopics is not an array of strings"),
        ("msgTopics", json!([1]), "member msgTopics is not an array of strings"),
        ("msgTopics", json!([""]), "member msgTopics is empty"),
        ("msgTopics", json!(["a b"]), "member msgTopics holds a character that is not allowed"),
        ("msgTopics", json!(["x".repeat(256)]), "member msgTopics is too long"),
    ] {
        assert_eq!(refused(&with(&subscription, member, value)), complaint);
    }
    assert_eq!(refused(&with(&subscription, "exprTime", json!("soon"))), "member exprTime is not an RFC 3339 date");
    let answer =
        json!({"msgType": "TOPRESP", "oriAddr": alice(), "subStat": "REFUSED", "failureCause": "TOPIC_NOT_ALLOWED"});
    let octets = answer.to_string().into_bytes();
    let read = TopicSubscriptionResponse::decode(&octets, &DecodeLimits::default()).unwrap();
    assert_eq!((read.status.as_str(), read.failure_cause.as_deref()), ("REFUSED", Some("TOPIC_NOT_ALLOWED")));
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), answer);
    assert_eq!(refused(&with(&answer, "subStat", Value::Null)), "member subStat is missing");
    assert_eq!(refused(&with(&answer, "subStat", json!("x".repeat(65)))), "member subStat is too long");
    let other = subscription.to_string().into_bytes();
    let error = TopicSubscriptionResponse::decode(&other, &DecodeLimits::default());
    assert_eq!(error, Err(DecodeError::MessageTypeNotSupported));
}

#[test]
fn a_stored_message_update_without_parameters_discards_and_one_that_says_nothing_is_refused() {
    let update = json!({
        "msgType": "STOUPD", "oriAddr": alice(), "destAddr": {"addrType": "AS", "addr": "the-server"}, "msgId": "m",
        "stoAndFwParams": {"exprTime": "2026-12-01T00:00:00Z"},
    });
    let expected = StoredMessageUpdate {
        originator: Address::ue(&"alice".parse().unwrap()),
        message_id: "m".parse().unwrap(),
        expiration_time: Some(datetime!(2026-12-01 0:00 UTC)),
    };
    assert_eq!(decode(&update), Ok(UeMessage::StoredMessageUpdate(expected.clone())), "the destination is the server");
    let discard = with(&update, "stoAndFwParams", Value::Null);
    assert_eq!(
        decode(&discard),
        Ok(UeMessage::StoredMessageUpdate(StoredMessageUpdate { expiration_time: None, ..expected }))
    );
    let nothing = with(&update, "stoAndFwParams", json!({}));
    assert_eq!(refused(&nothing), "member stoAndFwParams.exprTime is missing", "not taken for a discard");
    assert_eq!(refused(&with(&update, "msgId", Value::Null)), "member msgId is missing");
}

fn registration(profile: &Value) -> Value {
    json!({"msgType": "REG", "ueSvcId": "alice", "clientProfile": profile})
}

#[test]
fn a_client_profile_says_what_the_client_can_do_and_when() {
    let profile = json!({
        "segmentSize": 1024, "aggrSup": true,
        "trigInfo": {"ueId": "extid-meter-7@lab.example", "ports": [5000], "protocol": "SMS"},
        "commAvail": {"schedTime": "2026-12-01T00:00:00Z", "commDur": 60, "periodInt": 3600},
    });
    let UeMessage::Registration(read) = decode(&registration(&profile)).unwrap() else { panic!("no registration") };
    let expected = ClientProfile {
        segment_size: Some(1024),
        aggregation: Some(true),
        triggering: Some(TriggeringInformation {
            ue_identifier: Some("extid-meter-7@lab.example".into()),
            ports: vec![5000],
            protocol: Some("SMS".into()),
        }),
        availability: Some(CommunicationAvailability {
            start: datetime!(2026-12-01 0:00 UTC),
            duration_seconds: 60,
            interval_seconds: Some(3600),
        }),
    };
    assert_eq!(read.client_profile.as_ref(), Some(&expected));
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), registration(&profile));
    for (profile, complaint) in [
        (json!({"aggrSup": 1}), "clientProfile.aggrSup is not a boolean"),
        (json!({"trigInfo": []}), "clientProfile.trigInfo is not an object"),
        (
            json!({"trigInfo": {"ueId": "imsi-001010000000001"}}),
            "trigInfo.ueId is neither an MSISDN nor an External Identifier",
        ),
        (json!({"trigInfo": {"ports": [65_536]}}), "trigInfo.ports is out of range"),
        (json!({"trigInfo": {"ports": vec![1; 17]}}), "trigInfo.ports has too many elements"),
        (json!({"trigInfo": {"protocol": ""}}), "trigInfo.protocol is empty"),
        (json!({"trigInfo": {"protocol": "x".repeat(33)}}), "trigInfo.protocol is too long"),
        (json!({"commAvail": {"commDur": 60}}), "commAvail.schedTime is missing"),
        (json!({"commAvail": {"schedTime": "2026-12-01T00:00:00Z"}}), "commAvail.commDur is missing"),
        (
            json!({"commAvail": {"schedTime": "2026-12-01T00:00:00Z", "commDur": 0}}),
            "commAvail.commDur is out of range",
        ),
        (
            json!({"commAvail": {"schedTime": "2026-12-01T00:00:00Z", "commDur": 60, "periodInt": 59}}),
            "commAvail.periodInt is shorter than the communication duration",
        ),
    ] {
        assert_eq!(refused(&registration(&profile)), format!("member {complaint}"));
    }
}

#[test]
fn a_copy_for_one_member_names_group_and_member() {
    let copy = json!({
        "msgType": "MSG", "oriAddr": alice(), "destAddr": {"addrType": "GROUP", "addr": "crew"},
        "recAddr": {"addrType": "UE", "addr": "bob"}, "msgId": "m", "stoAndFwInd": false,
    });
    let UeMessage::Message(read) = decode(&copy).unwrap() else { panic!("no message") };
    assert_eq!(read.recipient, Some(Address::ue(&"bob".parse().unwrap())));
    assert_eq!(serde_json::from_slice::<Value>(&read.encode()).unwrap(), copy);
    assert_eq!(refused(&with(&copy, "recAddr", json!({"addrType": "UE"}))), "member recAddr.addr is missing");
}

fn small(id: &str) -> Message {
    Message {
        originator: Address::ue(&"alice".parse().unwrap()),
        destination: Address::ue(&"bob".parse().unwrap()),
        recipient: None,
        message_id: id.parse().unwrap(),
        application_id: None,
        delivery_status_required: false,
        store_and_forward: false,
        expiration_time: None,
        priority: Priority::Middle,
        payload: b"21.5".to_vec(),
        segment: None,
        latency: None,
    }
}

#[test]
fn what_would_lose_something_is_not_aggregated() {
    let aggregate = |messages: &[Message]| AggregatedMessage::aggregate("m".parse().unwrap(), messages).map(drop);
    let segment = SegmentParameters { set_id: "s".parse().unwrap(), total_count: None, number: 2, last: false };
    let carol = Address::ue(&"carol".parse().unwrap());
    assert_eq!(aggregate(&[small("1"), small("2")]), Ok(()));
    assert_eq!(aggregate(&[]), Err(NotAggregable::TooFew));
    assert_eq!(aggregate(&[small("1")]), Err(NotAggregable::TooFew));
    for (second, why) in [
        (small("1"), NotAggregable::SameMessageId),
        (Message { priority: Priority::High, ..small("2") }, NotAggregable::HighPriority),
        (Message { segment: Some(segment), ..small("2") }, NotAggregable::Segmented),
        (Message { latency: Some(1), ..small("2") }, NotAggregable::Latency),
        (Message { originator: carol.clone(), ..small("2") }, NotAggregable::Mixed),
        (Message { destination: carol.clone(), ..small("2") }, NotAggregable::Mixed),
        (Message { recipient: Some(carol), ..small("2") }, NotAggregable::Mixed),
    ] {
        assert_eq!(aggregate(&[small("1"), second]), Err(why));
    }
    let many: Vec<Message> = (0..65).map(|id| small(&id.to_string())).collect();
    assert_eq!(aggregate(&many[..64]), Ok(()));
    assert_eq!(aggregate(&many), Err(NotAggregable::TooMany));
}

#[test]
fn debug_output_of_an_aggregated_message_does_not_show_its_payloads() {
    let UeMessage::AggregatedMessage(read) = decode(&aggregate()).unwrap() else { panic!("no aggregate") };
    let shown = format!("{read:?}");
    assert!(shown.contains("payload_octets: 5") && !shown.contains("104, 101"), "{shown}");
}

fn address(addr_type: AddressType, name: &str) -> Address {
    Address { addr_type, addr: name.parse().unwrap() }
}

/// What comes out of a network that takes up any of what was sent, loses it, hands it over, or hands it over twice; what is
/// not acknowledged in the end is sent again.
fn through_a_bad_network<'a>(sent: &'a [Vec<u8>], arrivals: &[(prop::sample::Index, u8)]) -> Vec<&'a [u8]> {
    let mut acknowledged = vec![false; sent.len()];
    let mut arrived: Vec<&[u8]> = Vec::new();
    for (which, fate) in arrivals {
        let at = which.index(sent.len());
        let times = usize::from(*fate).saturating_sub(1);
        arrived.extend(std::iter::repeat_n(sent[at].as_slice(), times));
        acknowledged[at] |= times > 0;
    }
    let again = sent.iter().zip(acknowledged).filter(|(_, acknowledged)| !acknowledged);
    arrived.extend(again.map(|(octets, _)| octets.as_slice()));
    arrived
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn de_aggregation_undoes_aggregation_and_aggregation_de_aggregation(aggregated in aggregated_message()) {
        let messages = aggregated.clone().into_messages();
        let again = AggregatedMessage::aggregate(aggregated.message_id.clone(), &messages);
        prop_assert_eq!(again.as_ref(), Ok(&aggregated));
        prop_assert_eq!(again.unwrap().into_messages(), messages);
    }

    /// Aggregates may be lost and sent again, repeated and overtake one another like any message: each individual message
    /// then does, and none becomes another.
    #[test]
    fn messages_survive_aggregation_in_any_portions(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 128..200),
        sizes in prop::collection::vec(2_usize..=64, 80),
        arrivals in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 1..200),
    ) {
        let all: Vec<Message> = payloads.into_iter().enumerate()
            .map(|(id, payload)| Message { payload, ..small(&id.to_string()) })
            .collect();
        let mut rest = &all[..];
        let mut aggregates = Vec::new();
        for size in sizes {
            // One alone is no aggregate: the last ones go together.
            let size = if rest.len() < size + 2 { rest.len() } else { size };
            if size < 2 { break; }
            let (portion, tail) = rest.split_at(size.min(64));
            rest = tail;
            aggregates.push(AggregatedMessage::aggregate("m".parse().unwrap(), portion).unwrap().encode());
        }
        let sent = all.len() - rest.len();
        let mut arrived: Vec<Message> = Vec::new();
        for octets in through_a_bad_network(&aggregates, &arrivals) {
            let UeMessage::AggregatedMessage(read) = UeMessage::decode(octets, &DecodeLimits::default()).unwrap() else {
                panic!("no aggregate")
            };
            for message in read.into_messages() {
                if !arrived.contains(&message) { arrived.push(message); }
            }
        }
        arrived.sort_by_key(|message| message.message_id.as_str().parse::<usize>().unwrap());
        prop_assert_eq!(&arrived[..], &all[..sent]);
    }

    /// The same of reports in one.
    #[test]
    fn reports_survive_aggregation_in_any_portions(
        outcomes in prop::collection::vec((any::<bool>(), prop::option::of("[A-Z_]{1,20}")), 1..200),
        sizes in prop::collection::vec(1_usize..=64, 200),
        arrivals in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4), 1..200),
    ) {
        let all: Vec<IndividualReport> = outcomes.into_iter().enumerate()
            .map(|(id, (success, failure_cause))| IndividualReport {
                originator: address(AddressType::Ue, &format!("member-{id}")),
                message_id: id.to_string().parse().unwrap(),
                delivery_status: if success { ReportDeliveryStatus::Success } else { ReportDeliveryStatus::Failed },
                failure_cause,
            })
            .collect();
        let (originator, destination) = (address(AddressType::Group, "crew"), address(AddressType::Ue, "alice"));
        let mut rest = &all[..];
        let mut aggregates = Vec::new();
        for size in sizes {
            let (portion, tail) = rest.split_at(size.min(rest.len()));
            if portion.is_empty() { break; }
            rest = tail;
            let (originator, destination) = (originator.clone(), destination.clone());
            aggregates.push(AggregatedReport { originator, destination, reports: portion.to_vec() }.encode());
        }
        let mut arrived: Vec<DeliveryStatusReport> = Vec::new();
        for octets in through_a_bad_network(&aggregates, &arrivals) {
            let UeMessage::AggregatedReport(read) = UeMessage::decode(octets, &DecodeLimits::default()).unwrap() else {
                panic!("no aggregate")
            };
            for report in read.into_reports() {
                prop_assert_eq!(&report.destination, &destination);
                if !arrived.contains(&report) { arrived.push(report); }
            }
        }
        arrived.sort_by_key(|report| report.message_id.as_str().parse::<usize>().unwrap());
        let told: Vec<IndividualReport> = arrived.into_iter()
            .map(|report| IndividualReport {
                originator: report.originator,
                message_id: report.message_id,
                delivery_status: report.delivery_status,
                failure_cause: report.failure_cause,
            })
            .collect();
        prop_assert_eq!(told, all);
    }

    #[test]
    fn a_client_profile_reads_back_alone_and_with_serde(profile in client_profile()) {
        let limits = DecodeLimits::default();
        let alone = ClientProfile::decode(&profile.encode(), &limits).unwrap();
        prop_assert_eq!(&alone, &profile);
        let value = serde_json::to_value(&profile).unwrap();
        prop_assert_eq!(serde_json::from_value::<ClientProfile>(value).unwrap(), profile);
    }
}
