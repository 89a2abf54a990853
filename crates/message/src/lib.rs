//! The message model of TS 23.554 and its codings, no I/O.
//!
//! Start from [`UeMessage`], whatever a UE and the server say to each other on MSGin5G-1 (TS 24.538), and [`Message`],
//! the message that it carries. The module [`ts29538`] has the types of MSGin5G-3, which convert to and from the same
//! model. [`segmentation`] cuts messages and puts them together, [`AggregatedMessage`] makes several one and one several,
//! [`CommunicationAvailability`] says when a client can be reached. [`FailureCause`] lists every cause of a refusal, and [`DecodeLimits`] every limit on what is read.
//!
//! Reading is strict where harm can come in and tolerant where releases differ. Members that are not known are skipped;
//! a known member that is missing where it must be, repeated, of the wrong type, out of its range or over its limit is
//! refused with a [`DecodeError`] that names it. No tree is built: a message is read in one pass over the input, and no
//! memory is taken for what is over a limit. Writing is canonical: equal messages give equal octets, so that a digest of
//! [`Message::encode`] tells a repeated message from another one under the same Message ID.
//!
//! ```
//! use message::{Address, DecodeLimits, FailureCause, MessageResponse, UeMessage};
//!
//! let octets = br#"{"msgType":"MSG","oriAddr":{"addrType":"UE","addr":"meter-7@lab.example"},
//!     "destAddr":{"addrType":"AS","addr":"billing@lab.example"},"msgId":"1","payload":"MjEuNQ=="}"#;
//! let UeMessage::Message(message) = UeMessage::decode(octets, &DecodeLimits::default())? else {
//!     panic!("another message type");
//! };
//! assert_eq!(message.originator.as_ue(), Some("meter-7@lab.example".parse()?));
//! assert_eq!(message.payload, b"21.5");
//!
//! let answer = MessageResponse {
//!     originator: message.originator.clone(),
//!     message_id: message.message_id.clone(),
//!     status: Some(message::DeliveryStatus::Failed),
//!     failure_cause: Some(FailureCause::TargetUnreachable.into()),
//!     individual: Vec::new(),
//! };
//! assert_eq!(MessageResponse::decode(&answer.encode(), &DecodeLimits::default())?, answer);
//!
//! let error = UeMessage::decode(br#"{"msgType":"REG"}"#, &DecodeLimits::default()).unwrap_err();
//! assert_eq!(error.to_string(), "member ueSvcId is missing");
//! assert_eq!(error.cause(), FailureCause::Malformed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod aggregation;
mod availability;
mod cause;
mod date;
mod error;
mod identity;
mod json;
mod limits;
pub mod member;
mod model;
mod pattern;
mod profile;
pub mod segmentation;
pub mod ts29538;

pub use aggregation::{AggregatedMessage, IndividualMessage, NotAggregable};
pub use availability::CommunicationAvailability;
pub use cause::FailureCause;
pub use error::{DecodeError, IdentityError, MemberPath, UnknownFailureCause};
pub use identity::{
    ADDRESS_TYPE_OCTETS_MAX, APPLICATION_ID_OCTETS_MAX, Address, AddressType, ApplicationId, AsServiceId,
    MESSAGE_ID_OCTETS_MAX, MessageId, MessagingTopic, SEGMENTATION_SET_ID_OCTETS_MAX, SERVICE_ID_OCTETS_MAX,
    SegmentationSetId, ServiceAddress, UeServiceId,
};
pub use json::{ErrorBody, failure};
pub use limits::{
    DecodeLimits, INDIVIDUAL_MESSAGES_MAX, INDIVIDUAL_REPORTS_MAX, MISSING_SEGMENTS_MAX, SEGMENTS_MAX,
    TOPICS_PER_NOTIFICATION_MAX, TOPICS_PER_REQUEST_MAX, TRIGGERING_PORTS_MAX, TRIGGERING_PROTOCOL_OCTETS_MAX,
    UE_IDENTIFIER_OCTETS_MAX,
};
pub use model::{
    AggregatedReport, DELIVERY_STATUS_OCTETS_MAX, DeliveryStatus, DeliveryStatusReport, Deregistration,
    FAILURE_CAUSE_OCTETS_MAX, IndividualReport, IndividualResponse, Message, MessageResponse, Priority, Registration,
    RegistrationResponse, ReportDeliveryStatus, SEGMENT_HELD, SegmentConfirmation, SegmentParameters, SegmentRecovery,
    StoredMessageUpdate, TopicSubscription, TopicSubscriptionResponse, TopicUnsubscription, UeMessage,
};
pub use pattern::{IdentityPattern, InvalidPattern, PATTERN_OCTETS_MAX};
pub use profile::{ClientProfile, TriggeringInformation};
