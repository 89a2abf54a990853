//! Several small messages in one (TS 23.554 clause 8.4), and back.
//!
//! An aggregated message is what its individual messages have in common, originator and destination, and the list of
//! them. [`AggregatedMessage::aggregate`] and [`AggregatedMessage::into_messages`] are inverses: nothing of a message is
//! lost on the way, and what would be is not aggregated. When to aggregate, and for whom, is up to the caller.

use std::collections::HashSet;
use std::fmt;

use time::OffsetDateTime;

use crate::identity::{Address, ApplicationId, MessageId};
use crate::limits::INDIVIDUAL_MESSAGES_MAX;
use crate::model::{Message, Priority};

/// Aggregated message (TS 23.554 table 8.4.2-1). Never segmented (8.5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregatedMessage {
    /// Originating UE or AS Service ID of every individual message.
    pub originator: Address,
    /// Recipient of every individual message.
    pub destination: Address,
    /// As [`Message::recipient`], of every individual message.
    pub recipient: Option<Address>,
    /// The aggregated message's own name. Reports name the individual messages.
    pub message_id: MessageId,
    /// 2 to [`INDIVIDUAL_MESSAGES_MAX`], in the order they are to be handled, no two of one Message ID.
    pub messages: Vec<IndividualMessage>,
}

/// One message of an [`AggregatedMessage`] (TS 23.554 table 8.4.2-2). That it carries store and forward parameters of its
/// own is INFERRED.
#[derive(Clone, PartialEq, Eq)]
pub struct IndividualMessage {
    /// The originator's name for it.
    pub message_id: MessageId,
    /// As [`Message::application_id`].
    pub application_id: Option<ApplicationId>,
    /// As [`Message::delivery_status_required`].
    pub delivery_status_required: bool,
    /// As [`Message::store_and_forward`].
    pub store_and_forward: bool,
    /// As [`Message::expiration_time`].
    pub expiration_time: Option<OffsetDateTime>,
    /// As [`Message::priority`], but never [`Priority::High`] (TS 23.554 8.4.2).
    pub priority: Priority,
    /// As [`Message::payload`].
    pub payload: Vec<u8>,
}

impl fmt::Debug for IndividualMessage {
    /// Prints the length of the payload, never its octets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndividualMessage")
            .field("message_id", &self.message_id)
            .field("application_id", &self.application_id)
            .field("delivery_status_required", &self.delivery_status_required)
            .field("store_and_forward", &self.store_and_forward)
            .field("expiration_time", &self.expiration_time)
            .field("priority", &self.priority)
            .field("payload_octets", &self.payload.len())
            .finish()
    }
}

/// Why messages do not go into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAggregable {
    /// Fewer than two.
    #[error("fewer than two messages")]
    TooFew,
    /// More than [`INDIVIDUAL_MESSAGES_MAX`].
    #[error("more than {} messages", INDIVIDUAL_MESSAGES_MAX)]
    TooMany,
    /// They differ in originator, destination or recipient.
    #[error("messages of different originators or recipients")]
    Mixed,
    /// One of them has [`Priority::High`] (TS 23.554 8.4.2).
    #[error("a message of high priority")]
    HighPriority,
    /// One of them is a segment (TS 23.554 8.5.1).
    #[error("a segment")]
    Segmented,
    /// One of them has a latency bound, which leaves no time to wait for others and no place in the list.
    #[error("a message with a latency bound")]
    Latency,
    /// Two of them have the same Message ID.
    #[error("two messages of one Message ID")]
    SameMessageId,
}

impl AggregatedMessage {
    /// Whether `message` may go into an aggregated message at all.
    pub fn accepts(message: &Message) -> Result<(), NotAggregable> {
        if message.priority == Priority::High {
            Err(NotAggregable::HighPriority)
        } else if message.segment.is_some() {
            Err(NotAggregable::Segmented)
        } else if message.latency.is_some() {
            Err(NotAggregable::Latency)
        } else {
            Ok(())
        }
    }

    /// Makes `messages` one, in their order, under the name `message_id`.
    pub fn aggregate(message_id: MessageId, messages: &[Message]) -> Result<Self, NotAggregable> {
        let [first, _, ..] = messages else { return Err(NotAggregable::TooFew) };
        if messages.len() > INDIVIDUAL_MESSAGES_MAX {
            return Err(NotAggregable::TooMany);
        }
        for message in messages {
            Self::accepts(message)?;
            if (&message.originator, &message.destination, &message.recipient)
                != (&first.originator, &first.destination, &first.recipient)
            {
                return Err(NotAggregable::Mixed);
            }
        }
        let individual: Vec<_> = messages.iter().map(IndividualMessage::of).collect();
        if !message_ids_differ(&individual) {
            return Err(NotAggregable::SameMessageId);
        }
        Ok(Self {
            originator: first.originator.clone(),
            destination: first.destination.clone(),
            recipient: first.recipient.clone(),
            message_id,
            messages: individual,
        })
    }

    /// The individual messages, each as it was before it was aggregated.
    #[must_use]
    pub fn into_messages(self) -> Vec<Message> {
        let Self { originator, destination, recipient, messages, .. } = self;
        let whole = |message: IndividualMessage| Message {
            originator: originator.clone(),
            destination: destination.clone(),
            recipient: recipient.clone(),
            message_id: message.message_id,
            application_id: message.application_id,
            delivery_status_required: message.delivery_status_required,
            store_and_forward: message.store_and_forward,
            expiration_time: message.expiration_time,
            priority: message.priority,
            payload: message.payload,
            segment: None,
            latency: None,
        };
        messages.into_iter().map(whole).collect()
    }

    /// Payload of all individual messages together, in octets: what is held against a segment size (TS 23.554 8.4.2).
    #[must_use]
    pub fn payload_octets(&self) -> usize {
        self.messages.iter().map(|message| message.payload.len()).sum()
    }
}

impl IndividualMessage {
    fn of(message: &Message) -> Self {
        Self {
            message_id: message.message_id.clone(),
            application_id: message.application_id.clone(),
            delivery_status_required: message.delivery_status_required,
            store_and_forward: message.store_and_forward,
            expiration_time: message.expiration_time,
            priority: message.priority,
            payload: message.payload.clone(),
        }
    }
}

/// Whether no two messages have the same Message ID: answers and reports could not tell them apart.
pub(crate) fn message_ids_differ(messages: &[IndividualMessage]) -> bool {
    let mut seen = HashSet::with_capacity(messages.len());
    messages.iter().all(|message| seen.insert(message.message_id.as_str()))
}
