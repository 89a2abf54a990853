//! What applications and the client say to each other on MSGin5G-5: CoAP with JSON, as the guidance of TS 24.538 clause
//! A.3 has it, with the information elements of its clause 6.4.2 and TS 23.554 clause 8.11.
//!
//! What the client says to an application has the coding of MSGin5G-1. What an application says needs less: it neither
//! knows nor chooses the originator. Member names are those of [`message::member`]; a test holds them to it. INFERRED:
//! `credential`, the registration's credential, is a name of ours.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use coap::{Code, Response};
use message::{
    Address, ApplicationId, DeliveryStatus, FailureCause, MessageId, MessageResponse, Priority, ReportDeliveryStatus,
    UeServiceId, failure, member::message_type,
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

use super::limits::LocalLimits;
use crate::{error::ClientError, outbound::Outcome};

/// Whether an application's request can be read, and else the cause it is refused with; for tools that write or test
/// applications.
///
/// # Errors
/// The cause of the refusal.
pub fn check_application_request(octets: &[u8], limits: &LocalLimits) -> Result<(), FailureCause> {
    Asked::decode(octets, limits).map(|_| ())
}

/// Content-Format of JSON (RFC 7252 clause 12.3).
pub(super) const JSON: u16 = 50;

/// What an application asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// `REG` (TS 23.554 clause 8.11.1).
    Registration { application_id: ApplicationId, credential: Option<Zeroizing<String>> },
    /// `DEREG` (clause 8.11.3). The Application ID may be left out: a connection has one.
    Deregistration { application_id: Option<ApplicationId> },
    /// `MSG` (clause 8.11.4).
    Message(Box<Message>),
    /// `IMDN`: what became of a message that it was handed.
    Report(Report),
}

/// A message of an application.
#[derive(Debug)]
pub(super) struct Message {
    /// Tolerated where it is the client's own.
    pub(super) originator: Option<Address>,
    pub(super) destination: Address,
    pub(super) message_id: MessageId,
    /// The application at the recipient; its own where it names none.
    pub(super) application_id: Option<ApplicationId>,
    pub(super) delivery_status_required: bool,
    pub(super) store_and_forward: bool,
    pub(super) expiration_time: Option<OffsetDateTime>,
    pub(super) priority: Priority,
    pub(super) payload: Vec<u8>,
}

/// A delivery status report of an application.
#[derive(Debug)]
pub(super) struct Report {
    /// The originator of the message reported on.
    pub(super) destination: Address,
    pub(super) message_id: MessageId,
    pub(super) delivery_status: ReportDeliveryStatus,
}

/// Every member that an application may send.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(rename = "msgType", borrow)]
    message_type: Cow<'a, str>,
    #[serde(rename = "appId", default)]
    application_id: Option<ApplicationId>,
    #[serde(default)]
    credential: Option<String>,
    #[serde(rename = "oriAddr", default)]
    originator: Option<Address>,
    #[serde(rename = "destAddr", default)]
    destination: Option<Address>,
    #[serde(rename = "msgId", default)]
    message_id: Option<MessageId>,
    #[serde(rename = "delivStReqInd", default)]
    delivery_status_required: bool,
    #[serde(rename = "stoAndFwInd", default)]
    store_and_forward: bool,
    #[serde(rename = "stoAndFwParams", default)]
    store_and_forward_parameters: StoreAndForwardParameters,
    #[serde(default)]
    priority: Priority,
    #[serde(default, borrow)]
    payload: Cow<'a, str>,
    #[serde(rename = "delivSt", default)]
    delivery_status: Option<ReportDeliveryStatus>,
}

#[derive(Default, Deserialize)]
struct StoreAndForwardParameters {
    #[serde(rename = "exprTime", default)]
    expiration_time: Option<String>,
}

impl Asked {
    /// Reads a request. Members that are not known are skipped; known ones that are repeated, of the wrong type, out of
    /// range, or missing where they are needed are refused. Nothing of what was read is in the error.
    pub(super) fn decode(octets: &[u8], limits: &LocalLimits) -> Result<Self, FailureCause> {
        let members: Members<'_> = serde_json::from_slice(octets).map_err(|_| FailureCause::Malformed)?;
        // Taken out first, so that it is wiped whatever else is wrong.
        let (credential, members) = members.take_credential();
        match &*members.message_type {
            message_type::REGISTRATION => {
                let application_id = members.application_id.ok_or(FailureCause::Malformed)?;
                Ok(Self::Registration { application_id, credential })
            }
            message_type::DEREGISTRATION => Ok(Self::Deregistration { application_id: members.application_id }),
            message_type::MESSAGE => members.into_message(limits).map(|message| Self::Message(Box::new(message))),
            message_type::DELIVERY_STATUS_REPORT => members.into_report().map(Self::Report),
            _ => Err(FailureCause::MessageTypeNotSupported),
        }
    }
}

impl Members<'_> {
    fn take_credential(mut self) -> (Option<Zeroizing<String>>, Self) {
        (self.credential.take().map(Zeroizing::new), self)
    }

    fn into_message(self, limits: &LocalLimits) -> Result<Message, FailureCause> {
        // Four characters for three octets: what cannot fit is not decoded.
        if self.payload.len() / 4 > limits.payload_octets_max.div_ceil(3) {
            return Err(FailureCause::PayloadTooLarge);
        }
        let payload = STANDARD.decode(self.payload.as_bytes()).map_err(|_| FailureCause::Malformed)?;
        if payload.len() > limits.payload_octets_max {
            return Err(FailureCause::PayloadTooLarge);
        }
        let expiration_time = match self.store_and_forward_parameters.expiration_time {
            Some(text) => Some(OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| FailureCause::Malformed)?),
            None => None,
        };
        Ok(Message {
            originator: self.originator,
            destination: self.destination.ok_or(FailureCause::Malformed)?,
            message_id: self.message_id.ok_or(FailureCause::Malformed)?,
            application_id: self.application_id,
            delivery_status_required: self.delivery_status_required,
            store_and_forward: self.store_and_forward,
            expiration_time,
            priority: self.priority,
            payload,
        })
    }

    fn into_report(self) -> Result<Report, FailureCause> {
        Ok(Report {
            destination: self.destination.ok_or(FailureCause::Malformed)?,
            message_id: self.message_id.ok_or(FailureCause::Malformed)?,
            delivery_status: self.delivery_status.ok_or(FailureCause::Malformed)?,
        })
    }
}

/// Answer to a registration or de-registration.
#[derive(Serialize)]
struct RegistrationAnswer<'a> {
    #[serde(rename = "appId")]
    application_id: &'a str,
    #[serde(rename = "ueSvcId")]
    ue_service_id: &'a str,
}

/// 2.01 or 2.02 to an application: who it is here, and under which UE Service ID it sends.
pub(super) fn registered(code: Code, application: &ApplicationId, ue_service_id: &UeServiceId) -> Response {
    let answer = RegistrationAnswer { application_id: application.as_str(), ue_service_id: ue_service_id.as_str() };
    // Two texts; there is nothing in them that cannot be written.
    with_json(code, serde_json::to_vec(&answer).unwrap_or_default())
}

/// A refusal of anything.
pub(super) fn refusal(cause: FailureCause) -> Response {
    with_json(Code::from_octet(cause.coap_code()), failure(&cause))
}

/// What the client says about a message: a `MSGRESP`.
pub(super) fn message_response(
    originator: &Address,
    message_id: &MessageId,
    result: Result<Outcome, ClientError>,
) -> Response {
    let (code, status, failure_cause) = match result {
        Ok(Outcome::Delivered) => (Code::CHANGED, None, None),
        Ok(Outcome::Stored) => (Code::CHANGED, Some(DeliveryStatus::Stored), None),
        Ok(Outcome::Failed(cause)) => {
            let code = cause.parse().map_or(Code::CHANGED, |cause: FailureCause| Code::from_octet(cause.coap_code()));
            (code, Some(DeliveryStatus::Failed), Some(cause))
        }
        Ok(Outcome::Other(status)) => (Code::CHANGED, Some(DeliveryStatus::Other(status)), None),
        Err(error) => {
            let cause = match error {
                ClientError::NoAnswer { .. } => FailureCause::NoAnswer,
                ClientError::TooLarge { .. } => FailureCause::PayloadTooLarge,
                ClientError::Closed => FailureCause::Stopping,
                _ => FailureCause::Internal,
            };
            (Code::from_octet(cause.coap_code()), Some(DeliveryStatus::Failed), Some(cause.into()))
        }
    };
    let answer = MessageResponse {
        individual: Vec::new(),
        originator: originator.clone(),
        message_id: message_id.clone(),
        status,
        failure_cause,
    };
    with_json(code, answer.encode())
}

/// A `MSGRESP` that refuses a message before it was sent.
pub(super) fn message_refusal(originator: &Address, message_id: &MessageId, cause: FailureCause) -> Response {
    message_response(originator, message_id, Ok(Outcome::Failed(cause.into())))
}

fn with_json(code: Code, payload: Vec<u8>) -> Response {
    Response::new(code).with_content_format(JSON).with_payload(payload)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use message::member;
    use proptest::prelude::*;

    use super::*;

    fn decode(text: &str) -> Result<Asked, FailureCause> {
        Asked::decode(text.as_bytes(), &LocalLimits::default())
    }

    #[test]
    fn each_message_type_is_read() {
        let Ok(Asked::Registration { application_id, credential }) =
            decode(r#"{"msgType":"REG","appId":"metering","credential":"secret","later":[1]}"#)
        else {
            panic!("no registration")
        };
        assert_eq!((application_id.as_str(), credential.unwrap().as_str()), ("metering", "secret"));
        assert!(matches!(decode(r#"{"msgType":"DEREG"}"#), Ok(Asked::Deregistration { application_id: None })));
        let text = r#"{"msgType":"MSG","destAddr":{"addrType":"AS","addr":"b@x"},"msgId":"1","delivStReqInd":true,
            "stoAndFwInd":true,"stoAndFwParams":{"exprTime":"2030-01-01T00:00:00Z"},"priority":"LOW","payload":"MjEuNQ=="}"#;
        let Ok(Asked::Message(message)) = decode(text) else { panic!("no message") };
        assert_eq!((message.payload.as_slice(), message.priority), (&b"21.5"[..], Priority::Low));
        assert!(message.delivery_status_required && message.store_and_forward);
        assert_eq!(message.expiration_time.unwrap().unix_timestamp(), 1_893_456_000);
        let report =
            r#"{"msgType":"IMDN","destAddr":{"addrType":"UE","addr":"a"},"msgId":"1","delivSt":"REPT_DELY_FAILED"}"#;
        assert!(matches!(
            decode(report),
            Ok(Asked::Report(Report { delivery_status: ReportDeliveryStatus::Failed, .. }))
        ));
    }

    #[test]
    fn the_names_are_those_of_the_one_table() {
        let text = serde_json::json!({
            member::MESSAGE_TYPE: "MSG",
            member::ORIGINATOR: {member::ADDRESS_TYPE: "UE", member::ADDRESS: "me"},
            member::DESTINATION: {member::ADDRESS_TYPE: "UE", member::ADDRESS: "you"},
            member::MESSAGE_ID: "1",
            member::APPLICATION_ID: "app",
            member::DELIVERY_STATUS_REQUIRED: true,
            member::STORE_AND_FORWARD: true,
            member::STORE_AND_FORWARD_PARAMETERS: {member::EXPIRATION_TIME: "2030-01-01T00:00:00Z"},
            member::PRIORITY: "HIGH",
            member::PAYLOAD: "AA==",
        });
        let Ok(Asked::Message(message)) = decode(&text.to_string()) else { panic!("no message") };
        assert_eq!(message.originator.unwrap().addr.as_str(), "me");
        assert_eq!(message.application_id.unwrap().as_str(), "app");
        assert!(message.delivery_status_required && message.store_and_forward && message.expiration_time.is_some());
        assert_eq!((message.priority, message.payload.len()), (Priority::High, 1));
        let text = serde_json::json!({
            member::MESSAGE_TYPE: "IMDN", member::DESTINATION: {"addrType": "UE", "addr": "a"}, member::MESSAGE_ID: "1",
            member::DELIVERY_STATUS: "REPT_DELY_SUCCESS",
        });
        assert!(matches!(decode(&text.to_string()), Ok(Asked::Report(_))));
        let answer = registered(Code::CREATED, &"app".parse().unwrap(), &"me".parse().unwrap());
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!((&answer[member::APPLICATION_ID], &answer[member::UE_SERVICE_ID]), (&"app".into(), &"me".into()));
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_cause() {
        let message = |more: &str| {
            decode(&format!(r#"{{"msgType":"MSG","destAddr":{{"addrType":"UE","addr":"a"}},"msgId":"1"{more}}}"#))
        };
        assert!(message("").is_ok());
        for (more, cause) in [
            (r#","payload":"%%""#, FailureCause::Malformed),
            (r#","payload":"AA==","payload":"AA==""#, FailureCause::Malformed),
            (r#","msgId":"2""#, FailureCause::Malformed),
            (r#","delivStReqInd":"yes""#, FailureCause::Malformed),
            (r#","stoAndFwParams":{"exprTime":"soon"}"#, FailureCause::Malformed),
            (r#","appId":"\u0000""#, FailureCause::Malformed),
        ] {
            assert_eq!(message(more).unwrap_err(), cause, "{more}");
        }
        for (text, cause) in [
            ("", FailureCause::Malformed),
            ("[]", FailureCause::Malformed),
            (r#"{"appId":"a"}"#, FailureCause::Malformed),
            (r#"{"msgType":"REG"}"#, FailureCause::Malformed),
            (r#"{"msgType":"MSG","msgId":"1"}"#, FailureCause::Malformed),
            (r#"{"msgType":"MSGRESP"}"#, FailureCause::MessageTypeNotSupported),
        ] {
            assert_eq!(decode(text).unwrap_err(), cause, "{text}");
        }
        let deep = format!(r#"{{"msgType":"MSG","x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(decode(&deep).unwrap_err(), FailureCause::Malformed);
    }

    #[test]
    fn payload_up_to_the_limit_is_taken_and_more_is_not() {
        let limits = LocalLimits { payload_octets_max: 100, ..LocalLimits::default() };
        for (octets, taken) in [(100, true), (101, false), (5_000, false)] {
            let payload = STANDARD.encode(vec![7; octets]);
            let text = format!(
                r#"{{"msgType":"MSG","destAddr":{{"addrType":"UE","addr":"a"}},"msgId":"1","payload":"{payload}"}}"#
            );
            match Asked::decode(text.as_bytes(), &limits) {
                Ok(Asked::Message(message)) => assert!(taken && message.payload.len() == octets),
                other => assert!(!taken && other.unwrap_err() == FailureCause::PayloadTooLarge),
            }
        }
    }

    #[test]
    fn answers_carry_the_promise_and_its_code() {
        let me = Address::ue(&"me".parse().unwrap());
        let id: MessageId = "1".parse().unwrap();
        let in_doubt = ClientError::NoAnswer { message_id: id.clone() };
        for (result, code, words) in [
            (Ok(Outcome::Delivered), Code::CHANGED, "\"msgId\":\"1\"}"),
            (Ok(Outcome::Stored), Code::CHANGED, "DELY_STORED"),
            (Ok(Outcome::Failed("TARGET_UNREACHABLE".into())), Code::CHANGED, "TARGET_UNREACHABLE"),
            (Ok(Outcome::Failed("UNKNOWN_TARGET".into())), Code::NOT_FOUND, "UNKNOWN_TARGET"),
            (Ok(Outcome::Failed("4.03".into())), Code::CHANGED, "4.03"),
            (Err(in_doubt), Code::new(5, 4), "NO_ANSWER"),
            (
                Err(ClientError::TooLarge { octets: 2, octets_max: 1 }),
                Code::REQUEST_ENTITY_TOO_LARGE,
                "PAYLOAD_TOO_LARGE",
            ),
            (Err(ClientError::Closed), Code::SERVICE_UNAVAILABLE, "STOPPING"),
        ] {
            let response = message_response(&me, &id, result);
            let text = String::from_utf8(response.payload).unwrap();
            assert!(response.code == code && text.contains(words), "{} {text}", response.code);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_that_an_application_says_breaks_the_reader(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Asked::decode(&octets, &LocalLimits::default());
        }

        #[test]
        fn a_message_cut_short_is_refused(cut in 1_usize..90) {
            let text = r#"{"msgType":"MSG","destAddr":{"addrType":"UE","addr":"a"},"msgId":"1","payload":"MjEuNQ=="}"#;
            prop_assert!(decode(&text[..text.len() - cut.min(text.len())]).is_err());
        }
    }
}
