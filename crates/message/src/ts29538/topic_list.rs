//! MSGS_TopiclistEvent: what servers and Application Servers tell each other about Messaging Topics (TS 23.554 8.8.4),
//! and subscriptions to topics, also on behalf of others. `secCred` is ignored if it comes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;

use crate::error::{DecodeError, IdentityError, MemberPath};
use crate::identity::Address;
use crate::json::decode;
use crate::limits::{TOPICS_PER_NOTIFICATION_MAX, TOPICS_PER_REQUEST_MAX};
use crate::member;
use crate::model::{self, DELIVERY_STATUS_OCTETS_MAX, extensible_status};

/// TopicListSubscription: asks to be told when topics come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicListSubscription {
    /// Who subscribes.
    #[serde(rename = "oriAddr")]
    pub ori_addr: Address,
    /// Whose topics.
    #[serde(rename = "destAddr")]
    pub dest_addr: Address,
    /// Where notifications go. Not checked here: whoever calls it checks it.
    #[serde(rename = "notificationURI")]
    pub notification_uri: String,
    /// When the subscription ends.
    #[serde(rename = "exprTime", default, with = "crate::date::serde_option", skip_serializing_if = "Option::is_none")]
    pub expr_time: Option<OffsetDateTime>,
    /// Supported features.
    #[serde(rename = "suppFeat", default, skip_serializing_if = "Option::is_none")]
    pub supp_feat: Option<String>,
}

/// TopicListSubscriptionAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicListSubscriptionAck {
    /// What came of it, in free text; ours is one of [`crate::member::subscription_status`].
    #[serde(rename = "subStat")]
    pub sub_stat: String,
    /// When the subscription ends.
    #[serde(rename = "exprTime", default, with = "crate::date::serde_option", skip_serializing_if = "Option::is_none")]
    pub expr_time: Option<OffsetDateTime>,
    /// Supported features.
    #[serde(rename = "suppFeat", default, skip_serializing_if = "Option::is_none")]
    pub supp_feat: Option<String>,
}

/// TopicListUnsubscription: the body of the POST that ends a topic list subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicListUnsubscription {
    /// Who unsubscribes.
    #[serde(rename = "oriAddr")]
    pub ori_addr: Address,
    /// Whose topics.
    #[serde(rename = "destAddr")]
    pub dest_addr: Address,
}

/// TopicListUnsubscriptionAck: only if the subscription was *not* deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicListUnsubscriptionAck {
    /// What came of it, in free text.
    #[serde(rename = "subStat")]
    pub sub_stat: String,
}

/// TopicListNotification: topics that came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicListNotification {
    /// Which, 1 to [`TOPICS_PER_NOTIFICATION_MAX`].
    #[serde(rename = "msgTopics", deserialize_with = "updates")]
    pub msg_topics: Vec<MessagingTopic>,
    /// When the subscription that this notification is for ends.
    #[serde(rename = "exprTime", default, with = "crate::date::serde_option", skip_serializing_if = "Option::is_none")]
    pub expr_time: Option<OffsetDateTime>,
}

/// MessagingTopic: a topic and what happened to it. The topic alone is [`crate::MessagingTopic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagingTopic {
    /// The topic.
    #[serde(rename = "msgTopic")]
    pub msg_topic: crate::MessagingTopic,
    /// What happened to it.
    #[serde(rename = "updateStat")]
    pub update_stat: UpdateStatus,
}

extensible_status! {
    /// UpdateStatus.
    UpdateStatus {
        /// `CREATED`: the topic is there now.
        Created = "CREATED",
        /// `DELETED`: it is not there any more.
        Deleted = "DELETED",
    }
}

/// TopicSubscription: subscribes its originator to topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSubscription {
    /// Who subscribes.
    #[serde(rename = "oriAddr")]
    pub ori_addr: Address,
    /// To what, 1 to [`TOPICS_PER_REQUEST_MAX`].
    #[serde(rename = "msgTopics", deserialize_with = "topics")]
    pub msg_topics: Vec<crate::MessagingTopic>,
    /// When the subscription to all of them ends.
    #[serde(rename = "exprTime", default, with = "crate::date::serde_option", skip_serializing_if = "Option::is_none")]
    pub expr_time: Option<OffsetDateTime>,
}

impl From<TopicSubscription> for model::TopicSubscription {
    fn from(subscription: TopicSubscription) -> Self {
        Self {
            originator: subscription.ori_addr,
            topics: subscription.msg_topics,
            expiration_time: subscription.expr_time,
        }
    }
}

impl From<model::TopicSubscription> for TopicSubscription {
    fn from(subscription: model::TopicSubscription) -> Self {
        Self {
            ori_addr: subscription.originator,
            msg_topics: subscription.topics,
            expr_time: subscription.expiration_time,
        }
    }
}

/// TopicSubscriptionAck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSubscriptionAck {
    /// What came of it, in free text; ours is one of [`crate::member::subscription_status`].
    #[serde(rename = "subStat")]
    pub sub_stat: String,
    /// When the subscription ends.
    #[serde(rename = "exprTime", default, with = "crate::date::serde_option", skip_serializing_if = "Option::is_none")]
    pub expr_time: Option<OffsetDateTime>,
}

impl TopicSubscriptionAck {
    /// Checks it and makes it the answer to a subscription of `originator`.
    pub fn into_response(self, originator: Address) -> Result<model::TopicSubscriptionResponse, DecodeError> {
        let member = MemberPath::top(member::SUBSCRIPTION_STATUS);
        let status =
            decode::subscription_status(&self.sub_stat).map_err(|reason| DecodeError::Invalid { member, reason })?;
        let expiration_time = self.expr_time;
        Ok(model::TopicSubscriptionResponse { originator, status, expiration_time, failure_cause: None })
    }
}

/// TopicUnsubscription: ends its originator's subscription to topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicUnsubscription {
    /// Who unsubscribes.
    #[serde(rename = "oriAddr")]
    pub ori_addr: Address,
    /// From what, 1 to [`TOPICS_PER_REQUEST_MAX`].
    #[serde(rename = "msgTopics", deserialize_with = "topics")]
    pub msg_topics: Vec<crate::MessagingTopic>,
}

impl From<TopicUnsubscription> for model::TopicUnsubscription {
    fn from(unsubscription: TopicUnsubscription) -> Self {
        Self { originator: unsubscription.ori_addr, topics: unsubscription.msg_topics }
    }
}

impl From<model::TopicUnsubscription> for TopicUnsubscription {
    fn from(unsubscription: model::TopicUnsubscription) -> Self {
        Self { ori_addr: unsubscription.originator, msg_topics: unsubscription.topics }
    }
}

fn topics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<crate::MessagingTopic>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(TOPICS_PER_REQUEST_MAX))
}

fn updates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MessagingTopic>, D::Error> {
    deserializer.deserialize_seq(Bounded::new(TOPICS_PER_NOTIFICATION_MAX))
}

/// A list of at least one element. Reading stops at the first that is too many.
struct Bounded<T> {
    max: usize,
    element: std::marker::PhantomData<T>,
}

impl<T> Bounded<T> {
    fn new(max: usize) -> Self {
        Self { max, element: std::marker::PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of 1 to {} elements", self.max)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            if elements.len() == self.max {
                return Err(serde::de::Error::invalid_length(self.max + 1, &self));
            }
            elements.push(element);
        }
        if elements.is_empty() { Err(serde::de::Error::invalid_length(0, &self)) } else { Ok(elements) }
    }
}
