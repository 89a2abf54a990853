//! The JSON coding of MSGin5G-1 (TS 24.538 clause 7.3), in one pass each way.

pub(crate) mod decode;
mod encode;
mod members;
mod reader;

use crate::aggregation::AggregatedMessage;
use crate::cause::FailureCause;
use crate::error::DecodeError;
use crate::limits::DecodeLimits;
use crate::model::{
    AggregatedReport, DeliveryStatusReport, Deregistration, Message, MessageResponse, Registration,
    RegistrationResponse, SegmentConfirmation, SegmentRecovery, StoredMessageUpdate, TopicSubscription,
    TopicSubscriptionResponse, TopicUnsubscription, UeMessage,
};
use crate::profile::ClientProfile;

impl UeMessage {
    /// Reads one message. Members that are not known are skipped; everything that is known is held to its rules, also
    /// where this message type has no use for it.
    pub fn decode(octets: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        decode::read_members(octets, limits)?.into_message(limits)
    }

    /// Writes the message: no white space, members in a fixed order, those that say nothing left out. Equal messages
    /// give equal octets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Registration(registration) => registration.encode(),
            Self::Deregistration(deregistration) => deregistration.encode(),
            Self::Message(message) => message.encode(),
            Self::MessageResponse(response) => response.encode(),
            Self::AggregatedMessage(message) => message.encode(),
            Self::DeliveryStatusReport(report) => report.encode(),
            Self::AggregatedReport(report) => report.encode(),
            Self::SegmentRecovery(recovery) => recovery.encode(),
            Self::SegmentConfirmation(confirmation) => confirmation.encode(),
            Self::TopicSubscription(subscription) => subscription.encode(),
            Self::TopicUnsubscription(unsubscription) => unsubscription.encode(),
            Self::TopicSubscriptionResponse(response) => response.encode(),
            Self::StoredMessageUpdate(update) => update.encode(),
        }
    }
}

macro_rules! encodes {
    ($($name:ident => $function:ident),+) => {
        $(
            impl $name {
                /// Writes it as [`UeMessage::encode`] does.
                #[must_use]
                pub fn encode(&self) -> Vec<u8> {
                    encode::$function(self)
                }
            }
        )+
    };
}

encodes!(
    Registration => registration,
    Deregistration => deregistration,
    Message => message,
    MessageResponse => message_response,
    AggregatedMessage => aggregated_message,
    DeliveryStatusReport => delivery_status_report,
    AggregatedReport => aggregated_report,
    SegmentRecovery => segment_recovery,
    SegmentConfirmation => segment_confirmation,
    TopicSubscription => topic_subscription,
    TopicUnsubscription => topic_unsubscription,
    TopicSubscriptionResponse => topic_subscription_response,
    StoredMessageUpdate => stored_message_update,
    RegistrationResponse => registration_response
);

impl MessageResponse {
    /// Reads the payload of the answer to a message or report: a `MSGRESP`.
    pub fn decode(octets: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        match UeMessage::decode(octets, limits)? {
            UeMessage::MessageResponse(response) => Ok(response),
            _ => Err(DecodeError::MessageTypeNotSupported),
        }
    }
}

impl TopicSubscriptionResponse {
    /// Reads the payload of the answer to a topic subscription or unsubscription: a `TOPRESP`.
    pub fn decode(octets: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        match UeMessage::decode(octets, limits)? {
            UeMessage::TopicSubscriptionResponse(response) => Ok(response),
            _ => Err(DecodeError::MessageTypeNotSupported),
        }
    }
}

impl ClientProfile {
    /// Reads a client profile that stands alone, as it stands in a registration.
    pub fn decode(octets: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        decode::read_client_profile(octets, limits)
    }

    /// Writes it alone.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode::client_profile(self)
    }
}

impl RegistrationResponse {
    /// Reads the payload of the answer to a registration or de-registration. It has no Message Type: the request that
    /// it answers tells what it is.
    pub fn decode(octets: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        decode::read_members(octets, limits)?.into_registration_response()
    }
}

/// The payload of an answer that refuses a request: `{"failureCause":"NOT_REGISTERED"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// Why, as in [`FailureCause`] or in a peer's own words.
    pub failure_cause: Option<String>,
}

impl ErrorBody {
    /// Reads it; other members are skipped, so that an answer with more to say is read too.
    pub fn decode(octets: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        Ok(decode::read_members(octets, limits)?.into_error_body())
    }

    /// The cause, if it is one of ours.
    #[must_use]
    pub fn cause(&self) -> Option<FailureCause> {
        self.failure_cause.as_deref()?.parse().ok()
    }

    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode::error_body(self.failure_cause.as_deref())
    }
}

/// The payload of an answer that refuses a request with `cause`.
#[must_use]
pub fn failure(cause: &FailureCause) -> Vec<u8> {
    encode::error_body(Some(cause.as_str()))
}
