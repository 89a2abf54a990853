//! The JSON coding of MSGin5G-1 from outside: what is read, what is refused and why, what is written.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod strategies;

use message::{
    Address, AddressType, ClientProfile, DecodeError, DecodeLimits, DeliveryStatus, DeliveryStatusReport,
    Deregistration, ErrorBody, FailureCause, Message, MessageResponse, Priority, Registration, RegistrationResponse,
    ReportDeliveryStatus, SegmentParameters, UeMessage, failure,
};
use proptest::prelude::*;
use time::macros::datetime;

use strategies::any_message;

fn decode(text: &str) -> Result<UeMessage, DecodeError> {
    UeMessage::decode(text.as_bytes(), &DecodeLimits::default())
}

fn decode_message(text: &str) -> Message {
    match decode(text).unwrap() {
        UeMessage::Message(message) => *message,
        other => panic!("{other:?}"),
    }
}

/// A whole MSG, with `members` in place of what it has by that name.
fn msg(members: &[(&str, &str)]) -> String {
    let mut all = vec![
        ("msgType", r#""MSG""#),
        ("oriAddr", r#"{"addrType":"UE","addr":"meter-7@lab.example"}"#),
        ("destAddr", r#"{"addrType":"AS","addr":"billing@lab.example"}"#),
        ("msgId", r#""m-1""#),
    ];
    for (name, value) in members {
        all.retain(|(known, _)| known != name);
        if !value.is_empty() {
            all.push((name, value));
        }
    }
    let all: Vec<String> = all.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", all.join(","))
}

/// The error, as text: it names the member and the rule.
fn refused(text: &str) -> String {
    let error = decode(text).expect_err(text);
    if let Some(member) = error.member() {
        assert!(error.to_string().contains(&member.to_string()));
    }
    error.to_string()
}

#[test]
fn every_message_type_reads_as_the_interface_writes_it() {
    assert_eq!(
        decode(r#"{"msgType":"REG","ueSvcId":"meter-7@lab.example","clientProfile":{"segmentSize":2048}}"#),
        Ok(UeMessage::Registration(Registration {
            ue_service_id: "meter-7@lab.example".parse().unwrap(),
            client_profile: Some(ClientProfile { segment_size: Some(2048), ..ClientProfile::default() }),
        }))
    );
    assert_eq!(
        decode(r#"{"msgType":"DEREG","ueSvcId":"meter-7"}"#),
        Ok(UeMessage::Deregistration(Deregistration { ue_service_id: "meter-7".parse().unwrap() }))
    );
    let message = decode_message(
        r#"{"msgType":"MSG","oriAddr":{"addrType":"UE","addr":"meter-7@lab.example"},
            "destAddr":{"addrType":"AS","addr":"billing@lab.example"},
            "msgId":"6a8e5c9e-0b69-4b36-9a40-5a1dd0c77b5e","appId":"metering","delivStReqInd":true,
            "stoAndFwInd":true,"stoAndFwParams":{"exprTime":"2026-12-01T00:00:00Z"},
            "priority":"HIGH","payload":"aGVsbG8="}"#,
    );
    let expected = Message {
        originator: Address::ue(&"meter-7@lab.example".parse().unwrap()),
        destination: Address::application_server(&"billing@lab.example".parse().unwrap()),
        recipient: None,
        message_id: "6a8e5c9e-0b69-4b36-9a40-5a1dd0c77b5e".parse().unwrap(),
        application_id: Some("metering".parse().unwrap()),
        delivery_status_required: true,
        store_and_forward: true,
        expiration_time: Some(datetime!(2026-12-01 0:00 UTC)),
        priority: Priority::High,
        payload: b"hello".to_vec(),
        segment: None,
        latency: None,
    };
    assert_eq!(message, expected);
    assert_eq!(
        decode(
            r#"{"msgType":"MSGRESP","oriAddr":{"addrType":"UE","addr":"a"},"msgId":"1","status":"DELY_STORED","failureCause":"why"}"#
        ),
        Ok(UeMessage::MessageResponse(MessageResponse {
            originator: Address::ue(&"a".parse().unwrap()),
            message_id: "1".parse().unwrap(),
            status: Some(DeliveryStatus::Stored),
            failure_cause: Some("why".into()),
            individual: Vec::new(),
        }))
    );
    assert_eq!(
        decode(
            r#"{"msgType":"IMDN","oriAddr":{"addrType":"UE","addr":"a"},"destAddr":{"addrType":"AS","addr":"b"},"msgId":"1","delivSt":"REPT_DELY_SUCCESS"}"#
        ),
        Ok(UeMessage::DeliveryStatusReport(DeliveryStatusReport {
            originator: Address::ue(&"a".parse().unwrap()),
            destination: Address::application_server(&"b".parse().unwrap()),
            message_id: "1".parse().unwrap(),
            delivery_status: ReportDeliveryStatus::Success,
            failure_cause: None,
        }))
    );
}

#[test]
fn what_a_message_does_not_say_has_its_default() {
    let message = decode_message(&msg(&[]));
    assert!(!message.delivery_status_required && !message.store_and_forward);
    assert_eq!(message.priority, Priority::Middle);
    assert_eq!((message.payload.len(), message.expiration_time, message.segment), (0, None, None));
}

#[test]
fn members_come_in_any_order_and_unknown_ones_are_skipped() {
    let expected = decode_message(&msg(&[("payload", r#""aGk=""#)]));
    let text = r#" {"payload":"aGk=","x":{"a":[1,-2.5e3,{"b":null}]},"msgId":"m-1","secCred":"t\u00e9\ud83d\ude00",
        "destAddr":{"addr":"billing@lab.example","zone":1,"addrType":"AS"},"y":[],
        "oriAddr":{"addr":"meter-7@lab.example","addrType":"UE"},"x":false,"msgType":"MSG"} "#;
    assert_eq!(decode_message(text), expected, "an unknown member may even come twice");
}

#[test]
fn escaped_text_reads_as_what_it_stands_for() {
    let message = decode_message(&msg(&[("msgId", r#""a\u002fb\/c\"\\""#), ("payload", r#""aG\u006b=""#)]));
    assert_eq!(message.message_id.as_str(), "a/b/c\"\\");
    assert_eq!(message.payload, b"hi");
}

#[test]
fn a_member_that_must_be_there_and_is_not_is_named() {
    for member in ["msgType", "oriAddr", "destAddr", "msgId"] {
        assert_eq!(refused(&msg(&[(member, "")])), format!("member {member} is missing"));
    }
    assert_eq!(refused(r#"{"msgType":"REG"}"#), "member ueSvcId is missing");
    assert_eq!(refused(r#"{"msgType":"DEREG","msgId":"1"}"#), "member ueSvcId is missing");
    assert_eq!(refused(&msg(&[("oriAddr", r#"{"addr":"a"}"#)])), "member oriAddr.addrType is missing");
    assert_eq!(refused(&msg(&[("destAddr", r#"{"addrType":"UE"}"#)])), "member destAddr.addr is missing");
    for member in ["oriAddr", "msgId"] {
        let text = msg(&[("msgType", r#""MSGRESP""#), (member, "")]);
        assert_eq!(refused(&text), format!("member {member} is missing"));
    }
    let report = msg(&[("msgType", r#""IMDN""#)]);
    assert_eq!(refused(&report), "member delivSt is missing");
    assert_eq!(
        refused(&msg(&[("msgType", r#""IMDN""#), ("destAddr", ""), ("delivSt", r#""REPT_DELY_FAILED""#)])),
        "member destAddr is missing"
    );
    let segmented = |parameters| msg(&[("segInd", "true"), ("segParams", parameters)]);
    assert_eq!(refused(&msg(&[("segInd", "true")])), "member segParams is missing");
    assert_eq!(refused(&segmented(r#"{"segNumb":1}"#)), "member segParams.segId is missing");
    assert_eq!(refused(&segmented(r#"{"segId":"s"}"#)), "member segParams.segNumb is missing");
}

#[test]
fn a_known_member_that_comes_twice_is_refused_even_with_the_same_value() {
    for (member, value) in [
        ("msgType", r#""MSG""#),
        ("oriAddr", r#"{"addrType":"UE","addr":"a"}"#),
        ("destAddr", r#"{"addrType":"UE","addr":"a"}"#),
        ("msgId", r#""m-1""#),
        ("appId", r#""a""#),
        ("delivStReqInd", "true"),
        ("stoAndFwInd", "true"),
        ("stoAndFwParams", "{}"),
        ("priority", r#""HIGH""#),
        ("payload", r#""""#),
        ("segInd", "false"),
        ("segParams", "{}"),
        ("latency", "1"),
        ("status", r#""DELY_FAILED""#),
        ("failureCause", r#""x""#),
        ("delivSt", r#""x""#),
        ("ueSvcId", r#""x""#),
        ("clientProfile", "{}"),
    ] {
        let text = msg(&[(member, value)]);
        let twice = format!("{},\"{member}\":{value}}}", &text[..text.len() - 1]);
        assert_eq!(refused(&twice), format!("member {member} is there twice"));
    }
    for (text, member) in [
        (msg(&[("oriAddr", r#"{"addrType":"UE","addr":"a","addr":"b"}"#)]), "oriAddr.addr"),
        (msg(&[("destAddr", r#"{"addrType":"UE","addrType":"AS","addr":"b"}"#)]), "destAddr.addrType"),
        (
            msg(&[("stoAndFwParams", r#"{"exprTime":"2026-12-01T00:00:00Z","exprTime":"2027-12-01T00:00:00Z"}"#)]),
            "stoAndFwParams.exprTime",
        ),
        (msg(&[("segParams", r#"{"segNumb":1,"segNumb":2}"#)]), "segParams.segNumb"),
        (msg(&[("clientProfile", r#"{"segmentSize":1,"segmentSize":2}"#)]), "clientProfile.segmentSize"),
    ] {
        assert_eq!(refused(&text), format!("member {member} is there twice"));
    }
    // A name may hide behind escapes and is the same member nevertheless.
    let text = msg(&[]).replace("\"msgId\":\"m-1\"", "\"msgId\":\"m-1\",\"msg\\u0049d\":\"m-2\"");
    assert_eq!(refused(&text), "member msgId is there twice");
}

#[test]
fn a_known_member_of_the_wrong_type_is_refused_also_where_it_is_not_used() {
    for (member, expected, others) in [
        ("msgType", "a string", &["1", "null", "true", "{}", "[]"][..]),
        ("msgId", "a string", &["1", "null", "true", "{}", "[]"]),
        ("appId", "a string", &["1", "null", "[\"a\"]"]),
        ("payload", "a string", &["1", "null", "[1,2]", "{}"]),
        ("priority", "a string", &["1", "null"]),
        ("status", "a string", &["1", "null"]),
        ("delivSt", "a string", &["1", "null"]),
        ("failureCause", "a string", &["1", "null"]),
        ("ueSvcId", "a string", &["1", "null"]),
        ("delivStReqInd", "a boolean", &["1", "0", "null", "\"true\"", "{}"]),
        ("stoAndFwInd", "a boolean", &["1", "null", "\"true\""]),
        ("segInd", "a boolean", &["1", "null", "\"false\""]),
        ("latency", "an integer", &["1.5", "1.0", "1e2", "null", "\"1\"", "true", "[1]"]),
        ("oriAddr", "an object", &["\"a\"", "null", "[]", "1"]),
        ("destAddr", "an object", &["\"a\"", "null", "[\"UE\",\"a\"]"]),
        ("stoAndFwParams", "an object", &["\"2026-12-01T00:00:00Z\"", "null", "[]"]),
        ("segParams", "an object", &["1", "null", "[]"]),
        ("clientProfile", "an object", &["2048", "null", "[]"]),
    ] {
        for other in others {
            assert_eq!(refused(&msg(&[(member, other)])), format!("member {member} is not {expected}"), "{other}");
        }
    }
    for (member, value, complaint) in [
        ("oriAddr", r#"{"addrType":1,"addr":"a"}"#, "member oriAddr.addrType is not a string"),
        ("destAddr", r#"{"addrType":"UE","addr":null}"#, "member destAddr.addr is not a string"),
        ("stoAndFwParams", r#"{"exprTime":1764547200}"#, "member stoAndFwParams.exprTime is not a string"),
        ("segParams", r#"{"segNumb":"1"}"#, "member segParams.segNumb is not an integer"),
        ("segParams", r#"{"lastSegFlag":1}"#, "member segParams.lastSegFlag is not a boolean"),
        ("clientProfile", r#"{"segmentSize":true}"#, "member clientProfile.segmentSize is not an integer"),
    ] {
        assert_eq!(refused(&msg(&[(member, value)])), complaint);
    }
}

#[test]
fn values_out_of_their_range_are_refused() {
    let long = |octets: usize| format!("\"{}\"", "x".repeat(octets));
    for (member, value, reason) in [
        ("msgId", r#""""#.to_owned(), "is empty"),
        ("msgId", long(129), "is too long"),
        ("msgId", r#""a b""#.to_owned(), "holds a character that is not allowed"),
        ("msgId", "\"\u{e9}\"".to_owned(), "holds a character that is not allowed"),
        ("appId", long(256), "is too long"),
        ("appId", r#""a\u0000b""#.to_owned(), "holds a character that is not allowed"),
        ("ueSvcId", long(256), "is too long"),
        ("ueSvcId", r#""a\n""#.to_owned(), "holds a character that is not allowed"),
        ("failureCause", long(256), "is too long"),
        ("failureCause", r#""a\u001b[2J""#.to_owned(), "holds a character that is not allowed"),
        ("status", long(65), "is too long"),
        ("delivSt", r#""""#.to_owned(), "is empty"),
        ("latency", "-1".to_owned(), "is out of range"),
        ("latency", "4294967296".to_owned(), "is out of range"),
        ("payload", r#""aGk""#.to_owned(), "is not base64"),
        ("payload", r#""aGk=\n""#.to_owned(), "is not base64"),
        ("payload", r#""aG-_""#.to_owned(), "is not base64"),
        ("payload", r#""aGl=""#.to_owned(), "is not base64"),
    ] {
        assert_eq!(refused(&msg(&[(member, &value)])), format!("member {member} {reason}"), "{value}");
    }
    let inner = |value: &str| msg(&[("oriAddr", value)]);
    assert_eq!(refused(&inner(r#"{"addrType":"UE","addr":""}"#)), "member oriAddr.addr is empty");
    assert_eq!(
        refused(&inner(&format!("{{\"addrType\":\"UE\",\"addr\":{}}}", long(256)))),
        "member oriAddr.addr is too long"
    );
    assert_eq!(
        refused(&inner(&format!("{{\"addrType\":{},\"addr\":\"a\"}}", long(33)))),
        "member oriAddr.addrType is too long"
    );
    assert_eq!(
        refused(r#"{"msgType":"REG","ueSvcId":"a","clientProfile":{"segmentSize":0}}"#),
        "member clientProfile.segmentSize is out of range"
    );
}

#[test]
fn bad_dates_are_refused() {
    for (date, reason) in [
        ("2026-12-01", "is not an RFC 3339 date"),
        ("2026-12-01 25:00:00Z", "is not an RFC 3339 date"),
        ("1764547200", "is not an RFC 3339 date"),
        ("", "is not an RFC 3339 date"),
        ("9999-12-31T23:59:59-01:00", "is out of range"),
        ("0000-01-01T00:00:00+23:59", "is out of range"),
    ] {
        let text = msg(&[("stoAndFwParams", &format!("{{\"exprTime\":\"{date}\"}}"))]);
        assert_eq!(refused(&text), format!("member stoAndFwParams.exprTime {reason}"), "{date}");
    }
    let text = msg(&[("stoAndFwParams", r#"{"exprTime":"2026-12-01T02:00:00+02:00"}"#)]);
    assert_eq!(decode_message(&text).expiration_time, Some(datetime!(2026-12-01 0:00 UTC)));
}

#[test]
fn segment_parameters_are_carried_and_held_together() {
    let segmented = |parameters| msg(&[("segInd", "true"), ("segParams", parameters)]);
    let first = decode_message(&segmented(r#"{"segId":"s","segNumb":1,"totalSegCount":3}"#)).segment.unwrap();
    assert_eq!((first.number, first.total_count, first.last), (1, Some(3), false));
    let last = decode_message(&segmented(r#"{"segId":"s","segNumb":3,"lastSegFlag":true}"#)).segment.unwrap();
    assert_eq!((last.number, last.total_count, last.last), (3, None, true));
    let from_zero = decode_message(&segmented(r#"{"segId":"s","segNumb":0}"#)).segment.unwrap();
    assert_eq!(from_zero.number, 0);

    let unexpected = msg(&[("segParams", r#"{"segId":"s","segNumb":1}"#)]);
    assert_eq!(refused(&unexpected), "member segParams is there though the message is not segmented");
    for (parameters, complaint) in [
        (r#"{"segId":"s","segNumb":4,"totalSegCount":3}"#, "segParams.segNumb is greater than the total count"),
        (r#"{"segId":"s","segNumb":65536}"#, "segParams.segNumb is out of range"),
        (r#"{"segId":"s","segNumb":-1}"#, "segParams.segNumb is out of range"),
        (r#"{"segId":"s","segNumb":1,"totalSegCount":0}"#, "segParams.totalSegCount is out of range"),
        (r#"{"segId":"","segNumb":1}"#, "segParams.segId is empty"),
    ] {
        assert_eq!(refused(&segmented(parameters)), format!("member {complaint}"));
    }
}

#[test]
fn values_of_a_later_release_are_taken_where_they_do_no_harm() {
    let message =
        decode_message(&msg(&[("priority", r#""URGENT""#), ("destAddr", r#"{"addrType":"AREA","addr":"x"}"#)]));
    assert_eq!(message.priority, Priority::Middle);
    assert_eq!(message.destination.addr_type, AddressType::Other("AREA".into()));
    let answer = decode(&msg(&[("msgType", r#""MSGRESP""#), ("status", r#""DELY_LATER""#)])).unwrap();
    assert!(matches!(
        answer,
        UeMessage::MessageResponse(MessageResponse { status: Some(DeliveryStatus::Other(_)), .. })
    ));
}

#[test]
fn a_message_type_that_is_not_served_has_a_cause_of_its_own() {
    for kind in ["BULKREG", "TOPSUBS", "msg", "", "MSG "] {
        let error = decode(&msg(&[("msgType", &format!("\"{kind}\""))])).unwrap_err();
        assert_eq!(error, DecodeError::MessageTypeNotSupported);
        assert_eq!(error.cause(), FailureCause::MessageTypeNotSupported);
    }
}

#[test]
fn payload_and_message_over_their_limits_are_told_apart_from_malformed_ones() {
    let limits = DecodeLimits { message_octets_max: 1_000, payload_octets_max: 5, ..DecodeLimits::default() };
    let decode = |payload: &str| UeMessage::decode(msg(&[("payload", &format!("\"{payload}\""))]).as_bytes(), &limits);
    assert!(decode("aGVsbG8=").is_ok(), "five octets");
    for (payload, what) in [("aGVsbG8h", "six octets"), ("!!!!!!!!!!!!", "over by its length, never decoded")] {
        let error = decode(payload).unwrap_err();
        assert_eq!(error, DecodeError::PayloadTooLarge { octets_max: 5 }, "{what}");
        assert_eq!(error.cause(), FailureCause::PayloadTooLarge);
    }
    let mut text = msg(&[]).into_bytes();
    text.resize(1_000, b' ');
    assert!(UeMessage::decode(&text, &limits).is_ok());
    text.push(b' ');
    let error = UeMessage::decode(&text, &limits).unwrap_err();
    assert_eq!(error, DecodeError::MessageTooLarge { octets: 1_001, octets_max: 1_000 });
    assert_eq!(error.cause(), FailureCause::PayloadTooLarge);
}

#[test]
fn nesting_deeper_than_the_limit_is_refused_without_using_the_stack_up() {
    let nested = |depth: usize| msg(&[("x", &format!("{}{}", "[".repeat(depth), "]".repeat(depth)))]);
    assert!(decode(&nested(7)).is_ok(), "the message itself is the first of eight");
    assert_eq!(refused(&nested(8)), "nested deeper than 8");
    assert_eq!(refused(&nested(30_000)), "nested deeper than 8");
    let objects = msg(&[("x", &format!("{}1{}", "{\"a\":".repeat(8), "}".repeat(8)))]);
    assert_eq!(refused(&objects), "nested deeper than 8");
    let inside = msg(&[("oriAddr", r#"{"addrType":"UE","addr":"a","x":[[[[[[[1]]]]]]]}"#)]);
    assert_eq!(refused(&inside), "nested deeper than 8");
    let unlimited = DecodeLimits { depth_max: usize::MAX, ..DecodeLimits::default() };
    let error = UeMessage::decode(nested(30_000).as_bytes(), &unlimited).unwrap_err();
    assert_eq!(error, DecodeError::NestedTooDeeply { depth_max: DecodeLimits::DEPTH_MAX });
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    for text in ["", " ", "{", "{}x", "{} {}", r#"{"msgType"}"#, r#"{"msgType":}"#, "{'msgType':'MSG'}", r#"{"a":1,}"#]
    {
        assert!(matches!(decode(text), Err(DecodeError::NotJson { .. })), "{text}");
    }
    for text in ["[]", "1", "null", r#""MSG""#, "true"] {
        assert_eq!(decode(text), Err(DecodeError::NotAnObject), "{text}");
    }
    for text in
        [r#"{"msgType":"MSG","x":NaN}"#, r#"{"msgType":"MSG","x":01}"#, r#"{"msgId":"\ud800"}"#, "{\"msgId\":\"a\nb\"}"]
    {
        assert!(matches!(decode(text), Err(DecodeError::NotJson { .. })), "{text}");
    }
    let whole = msg(&[("payload", r#""aGk=""#)]);
    for end in 0..whole.len() {
        assert!(matches!(decode(&whole[..end]), Err(DecodeError::NotJson { .. })), "cut at {end}");
    }
    let mut octets = msg(&[("x", r#""?""#)]).into_bytes();
    let at = octets.iter().position(|octet| *octet == b'?').unwrap();
    octets[at] = 0xff;
    let error = UeMessage::decode(&octets, &DecodeLimits::default()).unwrap_err();
    assert_eq!(error, DecodeError::NotJson { line: 0, column: 0 }, "not UTF-8, even in a member that is skipped");
}

#[test]
fn answers_to_registrations_and_refusals_read_back() {
    let limits = DecodeLimits::default();
    let response = RegistrationResponse {
        ue_service_id: "meter-7".parse().unwrap(),
        failure_cause: Some(FailureCause::NotAssociated.into()),
    };
    assert_eq!(response.encode(), br#"{"ueSvcId":"meter-7","failureCause":"NOT_ASSOCIATED"}"#);
    assert_eq!(RegistrationResponse::decode(&response.encode(), &limits), Ok(response));
    assert_eq!(failure(&FailureCause::NotRegistered), br#"{"failureCause":"NOT_REGISTERED"}"#);
    let body = ErrorBody::decode(&failure(&FailureCause::NotRegistered), &limits).unwrap();
    assert_eq!(body.cause(), Some(FailureCause::NotRegistered));
    let foreign = ErrorBody::decode(br#"{"failureCause":"no idea","x":1}"#, &limits).unwrap();
    assert_eq!((foreign.failure_cause.as_deref(), foreign.cause()), (Some("no idea"), None));
    assert_eq!(foreign.encode(), br#"{"failureCause":"no idea"}"#);
    assert_eq!(ErrorBody::decode(b"{}", &limits), Ok(ErrorBody { failure_cause: None }));
    assert_eq!(
        MessageResponse::decode(&response_like_registration(), &limits),
        Err(DecodeError::MessageTypeNotSupported)
    );
}

fn response_like_registration() -> Vec<u8> {
    Registration { ue_service_id: "a".parse().unwrap(), client_profile: None }.encode()
}

#[test]
fn writing_is_compact_ordered_and_leaves_out_what_says_nothing() {
    let mut message = decode_message(&msg(&[]));
    assert_eq!(
        String::from_utf8(message.encode()).unwrap(),
        r#"{"msgType":"MSG","oriAddr":{"addrType":"UE","addr":"meter-7@lab.example"},"destAddr":{"addrType":"AS","addr":"billing@lab.example"},"msgId":"m-1","stoAndFwInd":false}"#
    );
    message.application_id = Some("a\"b\\c".parse().unwrap());
    message.delivery_status_required = true;
    message.store_and_forward = true;
    message.expiration_time = Some(datetime!(2026-12-01 0:00:00.5 +1));
    message.priority = Priority::Low;
    message.segment =
        Some(SegmentParameters { set_id: "s".parse().unwrap(), total_count: Some(1), number: 1, last: true });
    message.latency = Some(500);
    message.payload = b"hello".to_vec();
    let text = String::from_utf8(message.encode()).unwrap();
    assert!(
        text.ends_with(
            r#""msgId":"m-1","appId":"a\"b\\c","delivStReqInd":true,"stoAndFwInd":true,"stoAndFwParams":{"exprTime":"2026-11-30T23:00:00.5Z"},"priority":"LOW","segInd":true,"segParams":{"segId":"s","totalSegCount":1,"segNumb":1,"lastSegFlag":true},"latency":500,"payload":"aGVsbG8="}"#
        ),
        "{text}"
    );
    let odd = ErrorBody { failure_cause: Some("a\u{1}\n\u{e9}".into()) };
    assert_eq!(odd.encode(), "{\"failureCause\":\"a\\u0001\\u000a\u{e9}\"}".as_bytes());
}

#[test]
fn an_error_never_repeats_what_the_peer_sent() {
    for text in [msg(&[("msgId", r#""se cret""#)]), msg(&[("secret", "}")]), msg(&[("payload", r#""secret?""#)])] {
        let error = decode(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

/// The same JSON value with space between its members, and these in another order (by name).
fn shuffled(octets: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(octets).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_reads_back_and_is_written_the_same(message in any_message()) {
        let octets = message.encode();
        let read = UeMessage::decode(&octets, &DecodeLimits::default());
        prop_assert_eq!(read.as_ref(), Ok(&message));
        prop_assert_eq!(read.unwrap().encode(), octets);
    }

    #[test]
    fn order_and_white_space_do_not_matter_to_the_canonical_form(message in any_message()) {
        let octets = message.encode();
        let read = UeMessage::decode(shuffled(&octets).as_bytes(), &DecodeLimits::default()).unwrap();
        prop_assert_eq!(read.encode(), octets);
    }

    #[test]
    fn no_octets_make_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = UeMessage::decode(&octets, &DecodeLimits::default());
    }

    #[test]
    fn no_damage_to_a_message_makes_the_reader_panic(
        message in any_message(),
        at in any::<prop::sample::Index>(),
        octet in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\-0e.tfn"[..])],
        remove in any::<bool>(),
    ) {
        let mut octets = message.encode();
        let at = at.index(octets.len());
        if remove { octets.remove(at); } else { octets[at] = octet; }
        if let Ok(read) = UeMessage::decode(&octets, &DecodeLimits::default()) {
            prop_assert_eq!(UeMessage::decode(&read.encode(), &DecodeLimits::default()), Ok(read));
        }
    }
}
