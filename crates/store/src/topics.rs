//! Who is subscribed to what (TS 23.554 clause 8.8, TS 29.538 clause 5.4).

use std::fmt;

use message::{Address, MessagingTopic};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// That a UE or AS gets what is published under a Messaging Topic (TS 23.554 clause 8.8.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// The topic.
    pub topic: MessagingTopic,
    /// Who gets a copy of each message.
    pub subscriber: Address,
    /// When the subscription ends by itself; the caller removes it then.
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<OffsetDateTime>,
    /// Who asked for it, where that is not the subscriber (TS 29.538 clause 5.4: another server, or an AS), as the
    /// caller names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
}

/// That a server or AS is told which topics there are (TS 29.538 TopicListSubscription).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicListSubscriptionRecord {
    /// The subscription's name in its URI; the caller makes it, 1 to [`TOPIC_LIST_ID_OCTETS_MAX`] octets.
    pub id: String,
    /// Who subscribed (`oriAddr`).
    pub originator: Address,
    /// Where notifications go (`notificationURI`).
    pub notification_uri: String,
    /// The identity in the certificate it was asked for with, which alone may end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_identity: Option<String>,
    /// When the subscription ends by itself; the caller removes it then.
    #[serde(with = "time::serde::rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<OffsetDateTime>,
}

impl fmt::Debug for TopicListSubscriptionRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A notification URI may hold what proves a notification genuine.
        formatter
            .debug_struct("TopicListSubscriptionRecord")
            .field("id", &self.id)
            .field("originator", &self.originator)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The longest [`TopicListSubscriptionRecord::id`], in octets. A UUID is 36.
pub const TOPIC_LIST_ID_OCTETS_MAX: usize = 64;
