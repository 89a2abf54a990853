//! Messaging Topics (TS 23.554 clause 8.8, TS 29.538 MSGS_TopiclistEvent): subscribing to some, and to the list of them.

use http::StatusCode;
use message::member::subscription_status::SUBSCRIBED;
use message::ts29538::{
    TopicListNotification, TopicListSubscription as SubscribeToList, TopicListSubscriptionAck, TopicListUnsubscription,
    TopicListUnsubscriptionAck, TopicSubscription, TopicSubscriptionAck, TopicUnsubscription,
};
use message::{Address, MessagingTopic};
use sbi::SbiError;
use serde::de::IgnoredAny;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::access::Service;
use crate::application_server::{ApplicationServer, malformed};
use crate::error::ApplicationError;

/// A subscription to the list of topics, as the server keeps it; [`ApplicationServer::unsubscribe_from_topic_list`] ends it. It
/// outlives this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicListSubscription {
    path: String,
    of: Address,
    expires_at: Option<OffsetDateTime>,
}

impl TopicListSubscription {
    /// When it ends by itself; none if the server did not say.
    #[must_use]
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }
}

impl ApplicationServer {
    /// Subscribes to 1 to 64 topics: messages to them come as others do. Until when it holds, if the server says; that is not after
    /// `until`. Subscribing again prolongs it.
    ///
    /// # Errors
    /// [`ApplicationError::Network`], with 403 `TOPIC_NOT_ALLOWED` where the rules of server or NEF name it not;
    /// [`ApplicationError::Subscription`].
    pub async fn subscribe(
        &self,
        topics: &[MessagingTopic],
        until: Option<OffsetDateTime>,
    ) -> Result<Option<OffsetDateTime>, ApplicationError> {
        let subscription =
            TopicSubscription { ori_addr: self.address(), msg_topics: topics.to_vec(), expr_time: until };
        let post = self.way().post::<_, TopicSubscriptionAck>(Service::Topics, SUBSCRIBE, &subscription);
        let ack = Box::pin(post).await?.into_body()?;
        if ack.sub_stat == SUBSCRIBED { Ok(ack.expr_time) } else { Err(ApplicationError::Subscription(ack.sub_stat)) }
    }

    /// Ends the subscription to 1 to 64 topics. One that there is not is no error.
    ///
    /// # Errors
    /// [`ApplicationError::Network`].
    pub async fn unsubscribe(&self, topics: &[MessagingTopic]) -> Result<(), ApplicationError> {
        let unsubscription = TopicUnsubscription { ori_addr: self.address(), msg_topics: topics.to_vec() };
        let post = self.way().post::<_, IgnoredAny>(Service::Topics, UNSUBSCRIBE, &unsubscription);
        Box::pin(post).await?;
        Ok(())
    }

    /// Subscribes to the list of topics of the server at `of`: [`crate::Incoming::Topics`] tells which there are, and then which
    /// come and go, as far as this Application Server may subscribe to them.
    ///
    /// # Errors
    /// [`ApplicationError::Network`]; [`ApplicationError::Subscription`].
    pub async fn subscribe_to_topic_list(
        &self,
        of: Address,
        until: Option<OffsetDateTime>,
    ) -> Result<TopicListSubscription, ApplicationError> {
        let subscription = SubscribeToList {
            ori_addr: self.address(),
            dest_addr: of.clone(),
            notification_uri: format!("{}{TOPIC_LIST}", self.target_uri()),
            expr_time: until,
            supp_feat: None,
        };
        let post = self.way().post::<_, TopicListSubscriptionAck>(Service::Topics, LIST_SUBSCRIPTIONS, &subscription);
        let answer = Box::pin(post).await?;
        let location = answer.location.clone().ok_or_else(|| malformed("no Location"))?;
        let ack = answer.into_body()?;
        if ack.sub_stat != SUBSCRIBED {
            return Err(ApplicationError::Subscription(ack.sub_stat));
        }
        let path = location.find(LIST_SUBSCRIPTIONS).and_then(|from| location.get(from..));
        let path = path.ok_or_else(|| malformed("a Location elsewhere"))?.to_owned();
        Ok(TopicListSubscription { path, of, expires_at: ack.expr_time })
    }

    /// Ends it. One that has ended is no error.
    ///
    /// # Errors
    /// [`ApplicationError::Network`]; [`ApplicationError::Subscription`] where the server keeps it.
    pub async fn unsubscribe_from_topic_list(
        &self,
        subscription: &TopicListSubscription,
    ) -> Result<(), ApplicationError> {
        let unsubscription = TopicListUnsubscription { ori_addr: self.address(), dest_addr: subscription.of.clone() };
        let post =
            self.way().post::<_, TopicListUnsubscriptionAck>(Service::Topics, &subscription.path, &unsubscription);
        match Box::pin(post).await {
            Err(SbiError::Problem(problem)) if problem.status_code() == StatusCode::NOT_FOUND => Ok(()),
            // 204; a body says that it was not ended.
            answer => match answer?.body {
                None => Ok(()),
                Some(ack) => Err(ApplicationError::Subscription(ack.sub_stat)),
            },
        }
    }

    fn address(&self) -> Address {
        Address::application_server(self.id())
    }
}

/// Topics that came or went, which the server tells again until [`TopicChanges::accept`]. A topic that is told of twice is as it
/// was told last.
#[derive(Debug)]
#[must_use = "what is not accepted is told again"]
pub struct TopicChanges {
    content: TopicListNotification,
    answer: oneshot::Sender<()>,
}

impl TopicChanges {
    pub(crate) fn new(content: TopicListNotification, answer: oneshot::Sender<()>) -> Self {
        Self { content, answer }
    }

    /// Which, 1 to 256, and when the subscription ends.
    pub fn content(&self) -> &TopicListNotification {
        &self.content
    }

    /// Takes it over: the server does not tell it again.
    pub fn accept(self) {
        // Whoever told it may have left, and tells it again.
        let _ = self.answer.send(());
    }
}

const SUBSCRIBE: &str = "/msgs-topiclistevent/v1/request-topic-subscription";
const UNSUBSCRIBE: &str = "/msgs-topiclistevent/v1/request-topic-unsubscription";
const LIST_SUBSCRIPTIONS: &str = "/msgs-topiclistevent/v1/topiclist-subscriptions";
/// Where it is told, below the URI where it is delivered to.
pub(crate) const TOPIC_LIST: &str = "/topic-list";
