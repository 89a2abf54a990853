//! Subscription to Messaging Topics by a UE (TS 23.554 clauses 8.8.1 and 8.8.3).

use coap::{Code, ExchangeId};
use message::member::subscription_status::{REFUSED, SUBSCRIBED, UNSUBSCRIBED};
use message::{
    Address, FailureCause, MessagingTopic, TopicSubscription, TopicSubscriptionResponse, TopicUnsubscription,
};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Session;
use super::requests::code_of;
use crate::log_budget::Topic;
use crate::mailbox::{Letter, TopicAnswer};
use crate::topics;

/// What a UE asks for.
enum Wish {
    Subscribe(Vec<MessagingTopic>, Option<OffsetDateTime>),
    Unsubscribe(Vec<MessagingTopic>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
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
            return self.answer_topics(exchange, refusal(originator, FailureCause::OriginatorNotAllowed));
        }
        let (core, mailbox) = (self.core.clone(), self.mailbox.clone());
        self.core.tasks.spawn(async move {
            let (subscriber, result) = (originator.clone(), |status: &str, expiration_time| {
                let status = status.to_owned();
                TopicAnswer::done(TopicSubscriptionResponse {
                    originator: originator.clone(),
                    status,
                    expiration_time,
                    failure_cause: None,
                })
            });
            let answer = match wish {
                Wish::Subscribe(topics, until) => topics::subscribe(&core, subscriber, topics, until, None)
                    .await
                    .map(|expires_at| result(SUBSCRIBED, Some(expires_at))),
                Wish::Unsubscribe(topics) => {
                    topics::unsubscribe(&core, subscriber, topics).await.map(|()| result(UNSUBSCRIBED, None))
                }
            };
            // First: whoever reads the answer may ask again at once.
            drop(open);
            mailbox.post(Letter::Topics(exchange, answer.unwrap_or_else(|cause| refusal(originator, cause))));
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
    let response = TopicSubscriptionResponse {
        originator,
        status: REFUSED.to_owned(),
        expiration_time: None,
        failure_cause: Some(cause.into()),
    };
    TopicAnswer { response: Box::new(response), refused: Some(cause) }
}
