//! What the application sends, and what becomes of it.

use message::{
    Address, AddressType, ApplicationId, AsServiceId, FailureCause, Message, MessageId, MessagingTopic, Priority,
    ServiceAddress, UeServiceId,
};
use time::OffsetDateTime;

/// A message to send. It gets a random Message ID, middle priority, no report and no store and forward.
#[derive(Clone, Debug)]
#[must_use]
pub struct OutgoingMessage {
    message: Message,
}

impl OutgoingMessage {
    /// A message to a UE.
    pub fn to_ue(recipient: &UeServiceId, payload: impl Into<Vec<u8>>) -> Self {
        Self::to(Address::ue(recipient), payload)
    }

    /// A message to an Application Server.
    pub fn to_application_server(recipient: &AsServiceId, payload: impl Into<Vec<u8>>) -> Self {
        Self::to(Address::application_server(recipient), payload)
    }

    /// A message to the members of a group (TS 23.554 clause 8.7.4), named by its Group Service ID. [`Outcome::Stored`]
    /// says that the server will deliver a copy to each member; with a report asked for, one comes from each of them.
    pub fn to_group(group: &ServiceAddress, payload: impl Into<Vec<u8>>) -> Self {
        Self::to(Address { addr_type: AddressType::Group, addr: group.clone() }, payload)
    }

    /// A message to the subscribers of a Messaging Topic (TS 23.554 clause 8.8); answered as one to a group.
    pub fn to_topic(topic: &MessagingTopic, payload: impl Into<Vec<u8>>) -> Self {
        Self::to(Address::topic(topic), payload)
    }

    /// A message to whoever is in a broadcast area, named by its Broadcast Area ID. [`Outcome::Delivered`] says that the
    /// Broadcast Message Gateway has it.
    pub fn to_broadcast_area(area: &ServiceAddress, payload: impl Into<Vec<u8>>) -> Self {
        Self::to(Address { addr_type: AddressType::Bc, addr: area.clone() }, payload)
    }

    /// A message to any kind of recipient.
    pub fn to(recipient: Address, payload: impl Into<Vec<u8>>) -> Self {
        let message = Message {
            // The client puts its own UE Service ID here when it sends.
            originator: recipient.clone(),
            destination: recipient,
            recipient: None,
            message_id: random_message_id(),
            application_id: None,
            delivery_status_required: false,
            store_and_forward: false,
            expiration_time: None,
            priority: Priority::default(),
            payload: payload.into(),
            segment: None,
            latency: None,
        };
        Self { message }
    }

    /// Gives the message a Message ID of the application's choice. One that outlives the process (kept with the data it
    /// names) lets a restarted application send the same message again without the recipient getting it twice.
    pub fn message_id(mut self, message_id: MessageId) -> Self {
        self.message.message_id = message_id;
        self
    }

    /// Names the application at the recipient that the message is for.
    pub fn application_id(mut self, application_id: ApplicationId) -> Self {
        self.message.application_id = Some(application_id);
        self
    }

    /// Sets the priority.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.message.priority = priority;
        self
    }

    /// Asks for a delivery status report; it arrives as [`Incoming::Report`](crate::Incoming::Report).
    pub fn with_report(mut self) -> Self {
        self.message.delivery_status_required = true;
        self
    }

    /// Lets the server keep the message while the recipient is away, until `expiration_time` or for as long as the
    /// operator allows.
    pub fn store_and_forward(mut self, expiration_time: Option<OffsetDateTime>) -> Self {
        self.message.store_and_forward = true;
        self.message.expiration_time = expiration_time;
        self
    }

    /// The Message ID, for matching the report.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.message.message_id
    }

    pub(crate) fn into_message(self, originator: &UeServiceId) -> Message {
        Message { originator: Address::ue(originator), ..self.message }
    }
}

/// A Message ID of our making.
pub(crate) fn random_message_id() -> MessageId {
    let text = uuid::Uuid::new_v4().to_string();
    // A UUID is 36 visible characters, and a Message ID may have 128.
    #[allow(clippy::expect_used)]
    text.parse().expect("a UUID is a Message ID")
}

/// What the server promised about a message (TS 23.554 table 8.3.2-3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The recipient's client, or the AS, has it.
    Delivered,
    /// The server has it on disk and delivers it when the recipient returns.
    Stored,
    /// It was not delivered and is not kept. The cause is one of [`FailureCause`], or a later release's.
    Failed(String),
    /// A status of a later release.
    Other(String),
}

impl Outcome {
    /// The failure cause, where it is a known one.
    #[must_use]
    pub fn failure_cause(&self) -> Option<FailureCause> {
        match self {
            Self::Failed(cause) => cause.parse().ok(),
            _ => None,
        }
    }
}

/// A subscription that the server has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscription {
    /// When it ends unless it is made again, which the client does; none if the server did not say.
    pub expiration_time: Option<OffsetDateTime>,
}
