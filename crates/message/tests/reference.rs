//! The reference page of MSGin5G-1 says what the code does: its examples are read, and nothing of the coding is left out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashSet;

use message::member::{self, message_type, subscription_status};
use message::{DecodeLimits, FailureCause, TopicSubscriptionResponse, UeMessage};

const MSGIN5G_1: &str = include_str!("../../../docs/reference/msgin5g-1.md");
const MSGIN5G_5: &str = include_str!("../../../docs/reference/msgin5g-5.md");
const TOPICS: &str = include_str!("../../../docs/reference/topics.md");

/// The lines of JSON blocks that are a message.
fn examples(page: &str) -> Vec<&str> {
    page.lines().filter(|line| line.starts_with(r#"{"msgType":"#)).collect()
}

#[test]
fn every_example_is_a_message_and_written_as_we_write_it() {
    let all: Vec<&str> = [MSGIN5G_1, TOPICS].into_iter().flat_map(examples).collect();
    let mut kinds = HashSet::new();
    for example in all {
        let read = UeMessage::decode(example.as_bytes(), &DecodeLimits::default());
        let read = read.unwrap_or_else(|error| panic!("{error}: {example}"));
        kinds.insert(std::mem::discriminant(&read));
        let written = String::from_utf8(read.encode()).unwrap();
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (example, written) = (value(example), value(&written));
        // What may be left out may be left out of an example.
        for (name, member) in example.as_object().unwrap() {
            assert_eq!(Some(member), written.get(name), "{name} of {example}");
        }
    }
    assert!(kinds.len() >= 6, "of {} kinds only", kinds.len());
}

#[test]
fn every_message_type_member_and_cause_is_on_the_page() {
    let types = [
        message_type::REGISTRATION,
        message_type::DEREGISTRATION,
        message_type::MESSAGE,
        message_type::MESSAGE_RESPONSE,
        message_type::DELIVERY_STATUS_REPORT,
        message_type::SEGMENT_RECOVERY,
        message_type::SEGMENT_CONFIRMATION,
        message_type::TOPIC_SUBSCRIPTION,
        message_type::TOPIC_UNSUBSCRIPTION,
        message_type::TOPIC_SUBSCRIPTION_RESPONSE,
        message_type::STORED_MESSAGE_UPDATE,
        subscription_status::SUBSCRIBED,
        subscription_status::UNSUBSCRIBED,
        subscription_status::REFUSED,
        message::SEGMENT_HELD,
    ];
    let members = [
        member::ORIGINATOR,
        member::DESTINATION,
        member::RECIPIENT,
        member::MESSAGE_ID,
        member::APPLICATION_ID,
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
        member::INDIVIDUAL_MESSAGES,
        member::INDIVIDUAL_MESSAGE_COUNT,
        member::INDIVIDUAL_RESPONSES,
        member::INDIVIDUAL_REPORTS,
        member::MISSING_SEGMENTS,
        member::MESSAGING_TOPICS,
        member::SUBSCRIPTION_STATUS,
        member::UE_SERVICE_ID,
        member::CLIENT_PROFILE,
        member::SEGMENT_SIZE,
        member::AGGREGATION_SUPPORTED,
        member::TRIGGERING_INFORMATION,
        member::UE_IDENTIFIER,
        member::PORTS,
        member::PROTOCOL,
        member::COMMUNICATION_AVAILABILITY,
        member::SCHEDULED_TIME,
        member::COMMUNICATION_DURATION,
        member::PERIODIC_INTERVAL,
    ];
    let causes = FailureCause::ALL.iter().map(|cause| cause.as_str());
    let on = |page: &str, word: &str| page.contains(&format!("`{word}`")) || page.contains(&format!("`{word}:"));
    for word in types.into_iter().chain(members) {
        assert!(on(MSGIN5G_1, word), "{word}");
    }
    for cause in causes {
        assert!(on(MSGIN5G_1, cause) || on(MSGIN5G_5, cause), "{cause}");
    }
}

#[test]
fn the_answers_to_subscriptions_in_the_examples_read_as_answers() {
    let answers: Vec<_> = examples(TOPICS).into_iter().filter(|line| line.contains("TOPRESP")).collect();
    assert!(!answers.is_empty());
    for answer in answers {
        assert!(TopicSubscriptionResponse::decode(answer.as_bytes(), &DecodeLimits::default()).is_ok(), "{answer}");
    }
}
