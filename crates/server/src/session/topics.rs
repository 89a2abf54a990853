//! Subscription to Messaging Topics by a UE (TS 23.554 clauses 8.8.1 and 8.8.3).

use coap::{Code, ExchangeId};
use message::member::subscription_status::{REFUSED, SUBSCRIBED, UNSUBSCRIBED};
use message::{
    Address, FailureCause, MessagingTopic, TopicSubscription, TopicSubscriptionResponse, TopicUnsubscription,
};
use time::OffsetDateTime;

use super::Session;
use super::requests::code_of;
use crate::log_budget::Topic;
use crate::mailbox::{Letter, TopicAnswer};
use crate::policy::word;
use crate::topics;

/// What a UE asks for.
enum Wish {
    Subscribe(Vec<MessagingTopic>, Option<OffsetDateTime>),
    Unsubscribe(Vec<MessagingTopic>),
}

impl Wish {
    /// The operation, in audit events; as that of an Application Server.
    fn action(&self) -> &'static str {
        match self {
            Self::Subscribe(..) => "topic-subscribe",
            Self::Unsubscribe(..) => "topic-unsubscribe",
        }
    }

    /// The topics, in audit events.
    fn object(&self) -> String {
        let (Self::Subscribe(topics, _) | Self::Unsubscribe(topics)) = self;
        topics.iter().map(MessagingTopic::as_str).collect::<Vec<_>>().join(" ")
    }
}

impl Session {
    /// `TOPSUB`.
    pub(super) fn subscribe(&mut self, exchange: ExchangeId, request: TopicSubscription) {
        self.change_topics(exchange, request.originator, Wish::Subscribe(request.topics, request.expiration_time));
    }

    /// `TOPUNSUB`.
    pub(super) fn unsubscribe(&mut self, exchange: ExchangeId, request: TopicUnsubscription) {
        self.change_topics(exchange, request.originator, Wish::Unsubscribe(request.topics));
    }

    fn change_topics(&mut self, exchange: ExchangeId, originator: Address, wish: Wish) {
        let (party, open) = match self.enter_request() {
            Ok(entered) => entered,
            Err(cause) => return self.answer_topics(exchange, refusal(originator, cause)),
        };
        if party.address != originator {
            if self.core.log_budget.admits(Topic::Forged) {
                tracing::warn!(
                    target: "security", sender = %party.address, claimed = %originator,
                    "topic subscription of somebody else refused"
                );
            }
            self.core.metrics.forged();
            let (subject, object) = (party.address.to_string(), originator.to_string());
            self.core.audit.refused_for(&subject, wish.action(), &object, word::NOT_YOURS);
            return self.answer_topics(exchange, refusal(originator, FailureCause::OriginatorNotAllowed));
        }
        if let Err(cause) = self.core.within_rate(&party) {
            self.core.audit.refused_for(&originator.to_string(), wish.action(), &wish.object(), word::TOO_OFTEN);
            return self.answer_topics(exchange, refusal(originator, cause));
        }
        let (core, mailbox) = (self.core.clone(), self.mailbox.clone());
        self.core.tasks.spawn(async move {
            let subscriber = originator.clone();
            let (subject, action, object) = (originator.to_string(), wish.action(), wish.object());
            let result = match wish {
                Wish::Subscribe(topics, until) => {
                    let subscribed = topics::subscribe(&core, subscriber, topics, until, None).await;
                    subscribed.map(|expires_at| (SUBSCRIBED, Some(expires_at)))
                }
                Wish::Unsubscribe(topics) => {
                    topics::unsubscribe(&core, subscriber, topics).await.map(|()| (UNSUBSCRIBED, None))
                }
            };
            match &result {
                Ok(_) => core.audit.changed(&subject, action, &object, "done", None),
                Err(FailureCause::TopicNotAllowed) => {
                    core.audit.refused_for(&subject, action, &object, word::NOT_ALLOWED)
                }
                Err(_) => core.audit.allowed_for(&subject, action, &object, "failed"),
            }
            let answer = match result {
                Ok((status, expiration_time)) => answer(originator, status, expiration_time, None),
                Err(cause) => refusal(originator, cause),
            };
            // First: whoever reads the answer may ask again at once.
            drop(open);
            mailbox.post(Letter::Topics(exchange, answer));
        });
    }

    /// Sends the answer.
    pub(super) fn answer_topics(&mut self, exchange: ExchangeId, answer: TopicAnswer) {
        let code = answer.refused.map_or(Code::CHANGED, code_of);
        let response = self.response(code, answer.response.encode());
        self.respond(exchange, response);
    }
}

fn refusal(originator: Address, cause: FailureCause) -> TopicAnswer {
    answer(originator, REFUSED, None, Some(cause))
}

fn answer(
    originator: Address,
    status: &str,
    expiration_time: Option<OffsetDateTime>,
    refused: Option<FailureCause>,
) -> TopicAnswer {
    let failure_cause = refused.map(String::from);
    let status = status.to_owned();
    let response = TopicSubscriptionResponse { originator, status, expiration_time, failure_cause };
    TopicAnswer { response: Box::new(response), refused }
}
