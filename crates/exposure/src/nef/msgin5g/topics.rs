//! `msgs-topiclistevent` (TS 29.538): Application Servers outside subscribe to topics, and to the list of them.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use message::ts29538::{
    TopicListSubscription, TopicListSubscriptionAck, TopicListUnsubscription, TopicSubscription, TopicSubscriptionAck,
    TopicUnsubscription,
};
use message::{AsServiceId, MessagingTopic};
use sbi::{Json, Path, PeerIdentity, ProblemDetails, SbiError};
use time::OffsetDateTime;
use uuid::Uuid;

use super::records::TopicList;
use super::to_the_end;
use crate::nef::caller::Caller;
use crate::nef::refusal;
use crate::nef::service::{Refused, Service, refuse};

const LIST_SUBSCRIPTIONS: &str = "/msgs-topiclistevent/v1/topiclist-subscriptions";
const SUBSCRIBE: &str = "/msgs-topiclistevent/v1/request-topic-subscription";
const UNSUBSCRIBE: &str = "/msgs-topiclistevent/v1/request-topic-unsubscription";

pub(super) fn router() -> Router<Arc<Service>> {
    Router::new()
        .route(LIST_SUBSCRIPTIONS, post(subscribe_to_list))
        .route("/msgs-topiclistevent/v1/topiclist-subscriptions/{subscription_id}", post(unsubscribe_from_list))
        .route(SUBSCRIBE, post(subscribe))
        .route(UNSUBSCRIBE, post(unsubscribe))
}

/// Subscribes an AS to the list of topics: 201 with `Location`. It is told of the topics that its entry names.
async fn subscribe_to_list(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<PeerIdentity>,
    Json(request): Json<TopicListSubscription>,
) -> Response {
    let since = Instant::now();
    let outcome = match check_list(&service, &caller, &peer, &request) {
        Ok(id) => {
            let (service, caller) = (Arc::clone(&service), caller.clone());
            to_the_end(async move { keep_list(&service, &caller, &id, request).await }).await
        }
        Err(refused) => Err(refused),
    };
    let action = "msgs-topiclistevent:subscribe-list";
    service.answer(caller.af.id(), action, since, outcome.map(|answer| ("subscribed", answer)))
}

fn check_list(
    service: &Service,
    caller: &Caller,
    peer: &PeerIdentity,
    request: &TopicListSubscription,
) -> Result<AsServiceId, Refused> {
    let id = service.registered(caller, &request.ori_addr)?;
    if !caller.af.may_name(&request.notification_uri, peer) {
        let problem = ProblemDetails::forbidden(refusal::TARGET_URI_NOT_ALLOWED);
        let why = "must be an https URI below what is configured, or at a name in the certificate";
        return Err(refuse("target_uri_not_allowed", problem.with_invalid_param("/notificationURI", why)));
    }
    Ok(id)
}

async fn keep_list(
    service: &Service,
    caller: &Caller,
    subscriber: &AsServiceId,
    request: TopicListSubscription,
) -> Result<Response, Refused> {
    let msgin5g = service.msgin5g()?;
    let _turn = msgin5g.records.turn(subscriber).await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let lists = msgin5g.records.topic_lists_of(&request.ori_addr);
    let (ended, open): (Vec<_>, Vec<_>) =
        lists.into_iter().partition(|list| list.expires_at.is_some_and(|expires_at| expires_at <= now));
    for list in ended {
        msgin5g.records.remove_topic_list(&list.id).await.map_err(|error| service.told_store(&error))?;
    }
    if open.len() >= msgin5g.topic_list_subscriptions_per_as_max {
        let mut problem =
            ProblemDetails::new(StatusCode::TOO_MANY_REQUESTS).with_cause(refusal::TOO_MANY_SUBSCRIPTIONS);
        problem.retry_after_seconds = Some(service.retry_after_seconds);
        return Err(refuse("too_many_subscriptions", problem));
    }
    let id = Uuid::new_v4().to_string();
    let mut inside = request.clone();
    inside.notification_uri = format!("{}/topic-lists/{id}", msgin5g.target_of(subscriber));
    let answer = msgin5g
        .topics
        .post::<_, TopicListSubscriptionAck>(&msgin5g.operation(LIST_SUBSCRIPTIONS), &inside)
        .await
        .map_err(|error| service.told_inside(&error))?;
    let server_resource = msgin5g.resource(answer.location.as_deref());
    let ack = answer.into_body().map_err(|error| service.told_inside(&error))?;
    let location = HeaderValue::try_from(format!("{LIST_SUBSCRIPTIONS}/{id}"))
        .map_err(|_| refuse("failed", ProblemDetails::internal()))?;
    let list = TopicList {
        id,
        af_id: caller.af.id().to_owned(),
        subscriber: request.ori_addr,
        notification_uri: request.notification_uri,
        server_resource,
        expires_at: ack.expr_time.map(OffsetDateTime::unix_timestamp),
    };
    msgin5g.records.put_topic_list(list).await.map_err(|error| service.told_store(&error))?;
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(ack)).into_response())
}

/// Ends such a subscription: 204.
async fn unsubscribe_from_list(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Path(subscription_id): Path<String>,
    Json(request): Json<TopicListUnsubscription>,
) -> Response {
    let since = Instant::now();
    let outcome = match service.registered(&caller, &request.ori_addr) {
        Ok(subscriber) => {
            let (service, caller) = (Arc::clone(&service), caller.clone());
            to_the_end(async move { end_list(&service, &caller, &subscriber, &subscription_id, &request).await }).await
        }
        Err(refused) => Err(refused),
    };
    let outcome = outcome.map(|()| ("unsubscribed", StatusCode::NO_CONTENT));
    service.answer(caller.af.id(), "msgs-topiclistevent:unsubscribe-list", since, outcome)
}

async fn end_list(
    service: &Service,
    caller: &Caller,
    subscriber: &AsServiceId,
    id: &str,
    request: &TopicListUnsubscription,
) -> Result<(), Refused> {
    let msgin5g = service.msgin5g()?;
    let _turn = msgin5g.records.turn(subscriber).await;
    let own = |list: &TopicList| list.af_id == caller.af.id() && list.subscriber == request.ori_addr;
    let list =
        msgin5g.records.topic_list(id).filter(own).ok_or_else(|| {
            refuse("subscription_unknown", ProblemDetails::not_found(refusal::SUBSCRIPTION_NOT_FOUND))
        })?;
    if let Some(resource) = &list.server_resource {
        match msgin5g.topics.post_any(resource, request).await {
            Ok(_) => {}
            // It has ended there already.
            Err(SbiError::Problem(problem)) if problem.status_code() == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(service.told_inside(&error)),
        }
    }
    msgin5g.records.remove_topic_list(id).await.map_err(|error| service.told_store(&error))
}

/// Subscribes an AS to topics.
async fn subscribe(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<TopicSubscription>,
) -> Response {
    let since = Instant::now();
    let outcome = async {
        service.registered(&caller, &request.ori_addr)?;
        check_topics(&caller, &request.msg_topics)?;
        let msgin5g = service.msgin5g()?;
        let answer = msgin5g.topics.post::<_, TopicSubscriptionAck>(&msgin5g.operation(SUBSCRIBE), &request).await;
        let ack = answer.and_then(|answer| answer.into_body()).map_err(|error| service.told_inside(&error))?;
        Ok(("subscribed", Json(ack)))
    };
    let outcome = outcome.await;
    service.answer(caller.af.id(), "msgs-topiclistevent:subscribe", since, outcome)
}

/// Ends an AS's subscription to topics; also to such as its entry does not name any more.
async fn unsubscribe(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<TopicUnsubscription>,
) -> Response {
    let since = Instant::now();
    let outcome = async {
        service.registered(&caller, &request.ori_addr)?;
        let msgin5g = service.msgin5g()?;
        let answer = msgin5g.topics.post_any(&msgin5g.operation(UNSUBSCRIBE), &request).await;
        answer.map_err(|error| service.told_inside(&error))?;
        Ok(("unsubscribed", StatusCode::NO_CONTENT))
    };
    let outcome = outcome.await;
    service.answer(caller.af.id(), "msgs-topiclistevent:unsubscribe", since, outcome)
}

fn check_topics(caller: &Caller, topics: &[MessagingTopic]) -> Result<(), Refused> {
    if topics.iter().all(|topic| caller.af.may_subscribe(topic)) {
        return Ok(());
    }
    Err(refuse("topic_not_allowed", ProblemDetails::forbidden(refusal::TOPIC_NOT_ALLOWED)))
}
