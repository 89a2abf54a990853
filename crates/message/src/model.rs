//! The messages of TS 23.554, free of any coding.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::aggregation::AggregatedMessage;
use crate::error::IdentityError;
use crate::identity::{Address, ApplicationId, MessageId, MessagingTopic, SegmentationSetId, UeServiceId};
use crate::profile::ClientProfile;

/// Longest delivery status value this implementation carries without knowing it, in octets.
pub const DELIVERY_STATUS_OCTETS_MAX: usize = 64;

/// Longest failure cause, in octets.
pub const FAILURE_CAUSE_OCTETS_MAX: usize = 255;

/// Application priority of a message (TS 23.554 table 8.3.2-1). `High` sorts first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Priority {
    /// `HIGH`: delivered before everything else, never aggregated.
    High,
    /// `MIDDLE`: what a message without a priority has.
    #[default]
    Middle,
    /// `LOW`.
    Low,
}

impl Priority {
    /// The spelling of TS 29.538.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "HIGH",
            Self::Middle => "MIDDLE",
            Self::Low => "LOW",
        }
    }

    /// Reads a priority. The enumeration of TS 29.538 is extensible; a value of a later release is served as
    /// [`Priority::Middle`], because no harm lies in guessing it.
    #[must_use]
    pub fn from_wire(text: &str) -> Self {
        match text {
            "HIGH" => Self::High,
            "LOW" => Self::Low,
            _ => Self::Middle,
        }
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Ok(Self::from_wire(&text))
    }
}

/// How a message that is one segment of a longer one fits into it (TS 23.554 clause 8.5). Carried here; what is done
/// with segments is the business of whoever reassembles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentParameters {
    /// Segmentation set identifier: the same in every segment of one message.
    pub set_id: SegmentationSetId,
    /// Total number of message segments: in the first segment only.
    pub total_count: Option<u32>,
    /// Message segment number. The first is 1; a peer that counts from 0 is understood.
    pub number: u32,
    /// Last segment flag: true in the last segment only.
    pub last: bool,
}

/// MSGin5G message request (TS 23.554 table 8.3.2-1).
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Originating UE or AS Service ID.
    pub originator: Address,
    /// Recipient UE or AS Service ID, Group Service ID, Broadcast Area ID or Messaging Topic.
    pub destination: Address,
    /// Recipient UE or AS Service ID (TS 23.554 table 8.3.3-1): in the copy that the server makes of a message to a group
    /// or topic, the member or subscriber whom this copy is for. Nobody but a server sends one.
    pub recipient: Option<Address>,
    /// The originator's name for this message.
    pub message_id: MessageId,
    /// Which application at the recipient this is for.
    pub application_id: Option<ApplicationId>,
    /// Delivery status required: the originator wants a [`DeliveryStatusReport`].
    pub delivery_status_required: bool,
    /// Store and forward flag: keep the message while the recipient is unreachable.
    pub store_and_forward: bool,
    /// Message expiration time of the store and forward parameters, UTC.
    pub expiration_time: Option<OffsetDateTime>,
    /// Priority type.
    pub priority: Priority,
    /// The application's octets; empty if the message has no payload.
    pub payload: Vec<u8>,
    /// Set if this message is a segment of a longer one.
    pub segment: Option<SegmentParameters>,
    /// Latency asked for, in milliseconds. Only an AS sends one (TS 29.538 ASMessageDelivery).
    pub latency: Option<u32>,
}

impl fmt::Debug for Message {
    /// Prints the length of the payload, never its octets: messages end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("originator", &self.originator)
            .field("destination", &self.destination)
            .field("recipient", &self.recipient)
            .field("message_id", &self.message_id)
            .field("application_id", &self.application_id)
            .field("delivery_status_required", &self.delivery_status_required)
            .field("store_and_forward", &self.store_and_forward)
            .field("expiration_time", &self.expiration_time)
            .field("priority", &self.priority)
            .field("payload_octets", &self.payload.len())
            .field("segment", &self.segment)
            .field("latency", &self.latency)
            .finish()
    }
}

/// Delivery Status in the answer to a segment that whoever puts segments together keeps for now: no promise is made yet.
/// The answer to the segment that completes the set speaks for the whole message (INFERRED: TS 23.554 8.5 says nothing of
/// the answers to segments).
pub const SEGMENT_HELD: &str = "SEGMENT_HELD";

macro_rules! extensible_status {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A value added after TS 29.538 18.4.0, handed on as it came. At most
            /// [`DELIVERY_STATUS_OCTETS_MAX`] octets of printable ASCII.
            Other(String),
        }

        impl $name {
            /// The spelling of TS 29.538.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    "" => Err(IdentityError::Empty),
                    _ if text.len() > DELIVERY_STATUS_OCTETS_MAX => {
                        Err(IdentityError::TooLong { octets_max: DELIVERY_STATUS_OCTETS_MAX })
                    }
                    _ if !text.bytes().all(|octet| octet.is_ascii_graphic()) => Err(IdentityError::NotPrintable),
                    _ => Ok(Self::Other(text.to_owned())),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

extensible_status! {
    /// Delivery Status in the answer to a message (TS 29.538 DeliveryStatus). An answer without one says: delivered.
    DeliveryStatus {
        /// `DELY_FAILED`: not delivered and not kept; the failure cause says why.
        Failed = "DELY_FAILED",
        /// `DELY_STORED`: kept on disk for deferred delivery.
        Stored = "DELY_STORED",
    }
}

impl DeliveryStatus {
    /// [`SEGMENT_HELD`].
    #[must_use]
    pub fn segment_held() -> Self {
        Self::Other(SEGMENT_HELD.to_owned())
    }

    /// Whether this is [`SEGMENT_HELD`].
    #[must_use]
    pub fn is_segment_held(&self) -> bool {
        self.as_str() == SEGMENT_HELD
    }
}

extensible_status! {
    /// Delivery Status in a delivery status report (TS 29.538 ReportDeliveryStatus).
    ReportDeliveryStatus {
        /// `REPT_DELY_SUCCESS`: the message reached the recipient.
        Success = "REPT_DELY_SUCCESS",
        /// `REPT_DELY_FAILED`: it did not; the failure cause says why.
        Failed = "REPT_DELY_FAILED",
    }
}

pub(crate) use extensible_status;

/// MSGin5G message response (TS 23.554 table 8.3.2-3): the answer to a [`Message`], an [`AggregatedMessage`], a
/// [`DeliveryStatusReport`] or a [`StoredMessageUpdate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageResponse {
    /// The originator of the message that is answered.
    pub originator: Address,
    /// The Message ID of the message that is answered.
    pub message_id: MessageId,
    /// None: delivered.
    pub status: Option<DeliveryStatus>,
    /// Why not, as in [`crate::FailureCause`] or in a peer's own words; at most [`FAILURE_CAUSE_OCTETS_MAX`] octets.
    pub failure_cause: Option<String>,
    /// In the answer to an [`AggregatedMessage`] whose individual messages fared differently, what became of each; at
    /// most [`crate::INDIVIDUAL_MESSAGES_MAX`]. Empty otherwise.
    pub individual: Vec<IndividualResponse>,
}

/// What became of one individual message of an [`AggregatedMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndividualResponse {
    /// The individual message's Message ID.
    pub message_id: MessageId,
    /// None: delivered.
    pub status: Option<DeliveryStatus>,
    /// Why not; at most [`FAILURE_CAUSE_OCTETS_MAX`] octets.
    pub failure_cause: Option<String>,
}

/// Delivery status report (TS 23.554 table 8.3.4-1): what became of a message, told to its originator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryStatusReport {
    /// Who reports: the recipient of the message.
    pub originator: Address,
    /// Who is told: the originator of the message.
    pub destination: Address,
    /// The Message ID of the message reported on.
    pub message_id: MessageId,
    /// What became of it.
    pub delivery_status: ReportDeliveryStatus,
    /// Why it failed; at most [`FAILURE_CAUSE_OCTETS_MAX`] octets.
    pub failure_cause: Option<String>,
}

/// Aggregated delivery status report: what became of several messages, or of one message at several recipients, told to
/// the originator in one (TS 23.554 8.4, 8.7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregatedReport {
    /// Who reports: a recipient, or the group or topic that the message was for.
    pub originator: Address,
    /// Who is told: the originator of the messages.
    pub destination: Address,
    /// The reports, 1 to [`crate::INDIVIDUAL_REPORTS_MAX`].
    pub reports: Vec<IndividualReport>,
}

/// One report of an [`AggregatedReport`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndividualReport {
    /// Whose report it is: the recipient, for a group the member.
    pub originator: Address,
    /// The Message ID of the message reported on.
    pub message_id: MessageId,
    /// What became of it.
    pub delivery_status: ReportDeliveryStatus,
    /// Why it failed; at most [`FAILURE_CAUSE_OCTETS_MAX`] octets.
    pub failure_cause: Option<String>,
}

impl AggregatedReport {
    /// The reports one by one, as they would have come had they not been aggregated.
    #[must_use]
    pub fn into_reports(self) -> Vec<DeliveryStatusReport> {
        let destination = self.destination;
        let single = |report: IndividualReport| DeliveryStatusReport {
            originator: report.originator,
            destination: destination.clone(),
            message_id: report.message_id,
            delivery_status: report.delivery_status,
            failure_cause: report.failure_cause,
        };
        self.reports.into_iter().map(single).collect()
    }
}

/// Segments recovery (TS 24.538 7.1, TS 23.554 8.5): asks the originator of a message for the segments that stayed away.
/// What it holds besides set and numbers is INFERRED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecovery {
    /// Who puts the message together.
    pub originator: Address,
    /// The originator of the message.
    pub destination: Address,
    /// The Message ID of the message.
    pub message_id: MessageId,
    /// The set of which segments are missing.
    pub set_id: SegmentationSetId,
    /// Their numbers as the message's originator counts, 1 to [`crate::MISSING_SEGMENTS_MAX`] of them, ascending.
    pub missing: Vec<u32>,
}

/// Message segments received confirmation (TS 24.538 7.1, TS 23.554 8.5): tells the originator of a message that all of
/// its segments are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentConfirmation {
    /// Who has put the message together.
    pub originator: Address,
    /// The originator of the message.
    pub destination: Address,
    /// The Message ID of the message.
    pub message_id: MessageId,
    /// The set that is complete.
    pub set_id: SegmentationSetId,
}

/// Subscription to Messaging Topics (TS 23.554 table 8.8.1-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSubscription {
    /// Who subscribes.
    pub originator: Address,
    /// To what: 1 to [`crate::TOPICS_PER_REQUEST_MAX`].
    pub topics: Vec<MessagingTopic>,
    /// When the subscription to all of them ends, UTC; if it does not say, the server decides.
    pub expiration_time: Option<OffsetDateTime>,
}

/// Unsubscription from Messaging Topics (TS 23.554 8.8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicUnsubscription {
    /// Who unsubscribes.
    pub originator: Address,
    /// From what: 1 to [`crate::TOPICS_PER_REQUEST_MAX`].
    pub topics: Vec<MessagingTopic>,
}

/// Answer to a [`TopicSubscription`] or [`TopicUnsubscription`], after TS 29.538 TopicSubscriptionAck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSubscriptionResponse {
    /// Who asked.
    pub originator: Address,
    /// What came of it, one of [`crate::member::subscription_status`] or in a peer's own words: 1 to
    /// [`DELIVERY_STATUS_OCTETS_MAX`] octets of printable ASCII.
    pub status: String,
    /// When the subscription ends, UTC.
    pub expiration_time: Option<OffsetDateTime>,
    /// Why it was refused; at most [`FAILURE_CAUSE_OCTETS_MAX`] octets.
    pub failure_cause: Option<String>,
}

/// Stored message update (TS 23.554 8.3.6.1): the originator of a stored message changes its expiration time, or has it
/// discarded. That the absence of store and forward parameters asks for the discard is INFERRED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessageUpdate {
    /// The originator of the stored message.
    pub originator: Address,
    /// The Message ID of the stored message.
    pub message_id: MessageId,
    /// The new expiration time, UTC. None: discard the message.
    pub expiration_time: Option<OffsetDateTime>,
}

/// Registration request (TS 23.554 table 8.2.1-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Who registers.
    pub ue_service_id: UeServiceId,
    /// What it can do.
    pub client_profile: Option<ClientProfile>,
}

/// De-registration request (TS 23.554 table 8.2.2-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deregistration {
    /// Who leaves.
    pub ue_service_id: UeServiceId,
}

/// Answer to a registration or de-registration (TS 23.554 tables 8.2.1-4 and 8.2.2-2). The CoAP response code is the
/// registration result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationResponse {
    /// Who asked.
    pub ue_service_id: UeServiceId,
    /// Why it was refused; at most [`FAILURE_CAUSE_OCTETS_MAX`] octets.
    pub failure_cause: Option<String>,
}

/// Whatever travels on MSGin5G-1, told apart by its Message Type (TS 24.538 clause 7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UeMessage {
    /// `REG`.
    Registration(Registration),
    /// `DEREG`.
    Deregistration(Deregistration),
    /// `MSG`.
    Message(Box<Message>),
    /// `MSGRESP`.
    MessageResponse(MessageResponse),
    /// `MSG` with a list of individual messages.
    AggregatedMessage(Box<AggregatedMessage>),
    /// `IMDN`.
    DeliveryStatusReport(DeliveryStatusReport),
    /// `IMDN` with a list of individual reports.
    AggregatedReport(AggregatedReport),
    /// `SEGREC`.
    SegmentRecovery(SegmentRecovery),
    /// `SEGCONFIR`.
    SegmentConfirmation(SegmentConfirmation),
    /// `TOPSUB`.
    TopicSubscription(TopicSubscription),
    /// `TOPUNSUB`.
    TopicUnsubscription(TopicUnsubscription),
    /// `TOPRESP`.
    TopicSubscriptionResponse(TopicSubscriptionResponse),
    /// `STOUPD`.
    StoredMessageUpdate(StoredMessageUpdate),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn high_priority_sorts_before_middle_before_low() {
        let mut all = [Priority::Low, Priority::High, Priority::Middle];
        all.sort();
        assert_eq!(all, [Priority::High, Priority::Middle, Priority::Low]);
        assert_eq!(Priority::default(), Priority::Middle);
    }

    #[test]
    fn debug_output_of_a_message_does_not_show_its_payload() {
        let message = Message {
            originator: Address::ue(&"a".parse().unwrap()),
            destination: Address::ue(&"b".parse().unwrap()),
            recipient: None,
            message_id: "1".parse().unwrap(),
            application_id: None,
            delivery_status_required: false,
            store_and_forward: false,
            expiration_time: None,
            priority: Priority::Middle,
            payload: b"secret".to_vec(),
            segment: None,
            latency: None,
        };
        let shown = format!("{message:?}");
        assert!(shown.contains("payload_octets: 6"), "{shown}");
        assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
    }

    #[test]
    fn statuses_of_a_later_release_are_kept_as_they_came() {
        assert_eq!("DELY_STORED".parse(), Ok(DeliveryStatus::Stored));
        assert_eq!("DELY_LATER".parse(), Ok(DeliveryStatus::Other("DELY_LATER".into())));
        assert!("".parse::<ReportDeliveryStatus>().is_err());
        assert!("x".repeat(65).parse::<ReportDeliveryStatus>().is_err());
        assert!("a b".parse::<DeliveryStatus>().is_err());
    }
}
