//! Any value that the model allows, for property tests.
#![allow(clippy::unwrap_used, dead_code)]

use message::{
    Address, AddressType, AggregatedMessage, AggregatedReport, ClientProfile, CommunicationAvailability,
    DeliveryStatus, DeliveryStatusReport, Deregistration, IndividualMessage, IndividualReport, IndividualResponse,
    Message, MessageId, MessageResponse, MessagingTopic, Priority, Registration, ReportDeliveryStatus,
    SegmentConfirmation, SegmentParameters, SegmentRecovery, StoredMessageUpdate, TopicSubscription,
    TopicSubscriptionResponse, TopicUnsubscription, TriggeringInformation, UeMessage,
};
use proptest::prelude::*;
use time::OffsetDateTime;

prop_compose! {
    pub(crate) fn address()(
        kind in prop_oneof![
            Just(AddressType::Ue), Just(AddressType::As), Just(AddressType::Group), Just(AddressType::Bc),
            Just(AddressType::Topic), "[!-~]{6,32}".prop_map(AddressType::Other),
        ],
        addr in "[!-~]{1,255}",
    ) -> Address {
        Address { addr_type: kind, addr: addr.parse().unwrap() }
    }
}

pub(crate) fn date() -> impl Strategy<Value = OffsetDateTime> {
    (0_i64..253_402_300_800, 0_u32..1_000_000_000)
        .prop_map(|(s, n)| OffsetDateTime::from_unix_timestamp(s).unwrap().replace_nanosecond(n).unwrap())
}

pub(crate) fn segment() -> impl Strategy<Value = SegmentParameters> {
    ("[!-~]{1,128}", prop::option::of(1_u32..=65_535), any::<u32>(), any::<bool>()).prop_map(
        |(set_id, total_count, number, last)| SegmentParameters {
            set_id: set_id.parse().unwrap(),
            number: number % (total_count.unwrap_or(65_535) + 1),
            total_count,
            last,
        },
    )
}

prop_compose! {
    pub(crate) fn message()(
        (originator, destination) in (address(), address()),
        recipient in prop::option::of(address()),
        message_id in "[!-~]{1,128}",
        application_id in prop::option::of("[^\\p{Cc}]{1,60}"),
        (delivery_status_required, store_and_forward) in any::<(bool, bool)>(),
        expiration_time in prop::option::of(date()),
        priority in prop_oneof![Just(Priority::High), Just(Priority::Middle), Just(Priority::Low)],
        payload in prop::collection::vec(any::<u8>(), 0..=2_048),
        segment in prop::option::of(segment()),
        latency in any::<Option<u32>>(),
    ) -> Message {
        Message {
            originator, destination, recipient,
            message_id: message_id.parse().unwrap(),
            application_id: application_id.map(|id| id.parse().unwrap()),
            delivery_status_required, store_and_forward, expiration_time, priority, payload, segment, latency,
        }
    }
}

fn cause() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[^\\p{Cc}]{0,60}")
}

fn status() -> impl Strategy<Value = Option<DeliveryStatus>> {
    prop::option::of(prop_oneof![
        Just(DeliveryStatus::Failed),
        Just(DeliveryStatus::Stored),
        Just(DeliveryStatus::segment_held()),
        "[!-~]{13,64}".prop_map(DeliveryStatus::Other)
    ])
}

fn report_status() -> impl Strategy<Value = ReportDeliveryStatus> {
    prop_oneof![Just(ReportDeliveryStatus::Success), Just(ReportDeliveryStatus::Failed)]
}

fn message_id() -> impl Strategy<Value = MessageId> {
    "[!-~]{1,128}".prop_map(|id| id.parse().unwrap())
}

fn topics() -> impl Strategy<Value = Vec<MessagingTopic>> {
    prop::collection::vec("[!-~]{1,255}".prop_map(|topic| topic.parse().unwrap()), 1..=64)
}

prop_compose! {
    fn individual_message()(
        message_id in message_id(),
        application_id in prop::option::of("[^\\p{Cc}]{1,60}"),
        (delivery_status_required, store_and_forward) in any::<(bool, bool)>(),
        expiration_time in prop::option::of(date()),
        low: bool,
        payload in prop::collection::vec(any::<u8>(), 0..=32),
    ) -> IndividualMessage {
        IndividualMessage {
            message_id,
            application_id: application_id.map(|id| id.parse().unwrap()),
            delivery_status_required, store_and_forward, expiration_time,
            priority: if low { Priority::Low } else { Priority::Middle },
            payload,
        }
    }
}

prop_compose! {
    pub(crate) fn aggregated_message()(
        (originator, destination) in (address(), address()),
        recipient in prop::option::of(address()),
        message_id in message_id(),
        mut messages in prop::collection::vec(individual_message().boxed(), 2..=64),
    ) -> AggregatedMessage {
        // No two of one name: what proptest shrinks to would be.
        for (at, message) in messages.iter_mut().enumerate() {
            message.message_id = format!("{at}-{:.100}", message.message_id.as_str()).parse().unwrap();
        }
        AggregatedMessage { originator, destination, recipient, message_id, messages }
    }
}

fn aggregated_report() -> impl Strategy<Value = AggregatedReport> {
    let report = (address(), message_id(), report_status(), cause()).prop_map(
        |(originator, message_id, delivery_status, failure_cause)| IndividualReport {
            originator,
            message_id,
            delivery_status,
            failure_cause,
        },
    );
    (address(), address(), prop::collection::vec(report, 1..20))
        .prop_map(|(originator, destination, reports)| AggregatedReport { originator, destination, reports })
}

prop_compose! {
    pub(crate) fn client_profile()(
        segment_size in prop::option::of(1_u32..),
        aggregation: Option<bool>,
        triggering in prop::option::of((
            prop::option::of(prop_oneof!["msisdn-[0-9]{5,15}", "extid-[a-z0-9-]{1,60}@[a-z.]{1,60}"]),
            prop::collection::vec(any::<u16>(), 0..=16),
            prop::option::of("[!-~]{1,32}"),
        )),
        availability in prop::option::of((date(), 1_u32.., prop::option::of(any::<u32>()))),
    ) -> ClientProfile {
        ClientProfile {
            segment_size,
            aggregation,
            triggering: triggering
                .map(|(ue_identifier, ports, protocol)| TriggeringInformation { ue_identifier, ports, protocol }),
            availability: availability.map(|(start, duration_seconds, more)| CommunicationAvailability {
                start,
                duration_seconds,
                interval_seconds: more.map(|more| duration_seconds.saturating_add(more)),
            }),
        }
    }
}

fn segments() -> impl Strategy<Value = UeMessage> {
    let missing = prop::collection::btree_set(0_u32..=65_535, 1..=1_024).prop_map(|set| set.into_iter().collect());
    let missing = prop::option::of(missing);
    (address(), address(), message_id(), "[!-~]{1,128}", missing).prop_map(
        |(originator, destination, message_id, set_id, missing)| {
            let set_id = set_id.parse().unwrap();
            match missing {
                Some(missing) => {
                    UeMessage::SegmentRecovery(SegmentRecovery { originator, destination, message_id, set_id, missing })
                }
                None => {
                    UeMessage::SegmentConfirmation(SegmentConfirmation { originator, destination, message_id, set_id })
                }
            }
        },
    )
}

pub(crate) fn subscriptions() -> impl Strategy<Value = UeMessage> {
    let expiry = || prop::option::of(date());
    prop_oneof![
        (address(), topics(), expiry()).prop_map(|(originator, topics, expiration_time)| {
            UeMessage::TopicSubscription(TopicSubscription { originator, topics, expiration_time })
        }),
        (address(), topics()).prop_map(|(originator, topics)| {
            UeMessage::TopicUnsubscription(TopicUnsubscription { originator, topics })
        }),
        (address(), "[!-~]{1,64}", expiry(), cause()).prop_map(
            |(originator, status, expiration_time, failure_cause)| {
                UeMessage::TopicSubscriptionResponse(TopicSubscriptionResponse {
                    originator,
                    status,
                    expiration_time,
                    failure_cause,
                })
            }
        ),
        (address(), message_id(), expiry()).prop_map(|(originator, message_id, expiration_time)| {
            UeMessage::StoredMessageUpdate(StoredMessageUpdate { originator, message_id, expiration_time })
        }),
    ]
}

fn responses() -> impl Strategy<Value = MessageResponse> {
    let individual = (message_id(), status(), cause())
        .prop_map(|(message_id, status, failure_cause)| IndividualResponse { message_id, status, failure_cause });
    let individual = prop_oneof![Just(Vec::new()), prop::collection::vec(individual, 1..=64)];
    (address(), message_id(), status(), cause(), individual).prop_map(
        |(originator, message_id, status, failure_cause, individual)| MessageResponse {
            originator,
            message_id,
            status,
            failure_cause,
            individual,
        },
    )
}

/// Boxed, each of them: the strategies are large, and so would the stack have to be.
pub(crate) fn any_message() -> impl Strategy<Value = UeMessage> {
    let registration = ("[!-~]{1,255}", prop::option::of(client_profile().boxed())).prop_map(|(id, client_profile)| {
        UeMessage::Registration(Registration { ue_service_id: id.parse().unwrap(), client_profile })
    });
    let deregistration =
        "[!-~]{1,255}".prop_map(|id| UeMessage::Deregistration(Deregistration { ue_service_id: id.parse().unwrap() }));
    let report = (address(), address(), message_id(), report_status(), cause()).prop_map(
        |(originator, destination, message_id, delivery_status, failure_cause)| {
            UeMessage::DeliveryStatusReport(DeliveryStatusReport {
                originator,
                destination,
                message_id,
                delivery_status,
                failure_cause,
            })
        },
    );
    prop_oneof![
        4 => message().prop_map(|message| UeMessage::Message(Box::new(message))).boxed(),
        2 => aggregated_message().prop_map(|message| UeMessage::AggregatedMessage(Box::new(message))).boxed(),
        1 => registration.boxed(),
        1 => deregistration.boxed(),
        1 => responses().prop_map(UeMessage::MessageResponse).boxed(),
        1 => report.boxed(),
        1 => aggregated_report().prop_map(UeMessage::AggregatedReport).boxed(),
        2 => segments().boxed(),
        3 => subscriptions().boxed(),
    ]
}
