//! What the server promised about a message.

use message::ts29538::MessageDeliveryAck;
use message::{DeliveryStatus, FailureCause};

/// The server's answer to a message or report (TS 29.538 MessageDeliveryAck).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acceptance {
    /// The recipient has it.
    Delivered,
    /// The server has it on disk and delivers it when the recipient returns, or to each member of a group.
    Stored,
    /// It was not delivered and is not kept. The cause is one of [`FailureCause`], or a later release's; empty if none was given.
    Failed(String),
    /// A status of a later release.
    Other(String),
}

impl Acceptance {
    /// The failure cause, where it is a known one.
    #[must_use]
    pub fn failure_cause(&self) -> Option<FailureCause> {
        match self {
            Self::Failed(cause) => cause.parse().ok(),
            _ => None,
        }
    }
}

impl From<MessageDeliveryAck> for Acceptance {
    fn from(ack: MessageDeliveryAck) -> Self {
        match ack.status {
            None => Self::Delivered,
            Some(DeliveryStatus::Stored) => Self::Stored,
            Some(DeliveryStatus::Failed) => Self::Failed(ack.failure_cause.unwrap_or_default()),
            Some(DeliveryStatus::Other(status)) => Self::Other(status),
        }
    }
}
