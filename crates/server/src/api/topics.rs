//! `msgs-topiclistevent/v1` (TS 29.538, TS 23.554 clause 8.8): Application Servers subscribe themselves, other servers
//! subscribe on behalf of those they are configured for, and both are told which topics there are.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use message::member::subscription_status::SUBSCRIBED;
use message::ts29538::{
    TopicListSubscription, TopicListSubscriptionAck, TopicListUnsubscription, TopicSubscription, TopicSubscriptionAck,
    TopicUnsubscription,
};
use message::{Address, AsServiceId, FailureCause};
use sbi::callback::{is_own, is_well_formed_below};
use sbi::{Json, Path, PeerIdentity, ProblemDetails, cause};

use super::Api;
use crate::topics::{self, ListRefusal};

const LIST_SUBSCRIPTIONS: &str = "/msgs-topiclistevent/v1/topiclist-subscriptions";

/// Cause of the 404 for a subscription identifier that names none.
const NO_SUCH_SUBSCRIPTION: &str = "SUBSCRIPTION_NOT_FOUND";
/// 403: the host of `notificationURI` is neither configured nor named by the certificate.
const NOTIFICATION_URI_NOT_ALLOWED: &str = "NOTIFICATION_URI_NOT_ALLOWED";

pub(super) fn router() -> Router<Api> {
    Router::new()
        .route(LIST_SUBSCRIPTIONS, post(subscribe_to_list))
        .route("/msgs-topiclistevent/v1/topiclist-subscriptions/{subscription_id}", post(unsubscribe_from_list))
        .route("/msgs-topiclistevent/v1/request-topic-subscription", post(subscribe))
        .route("/msgs-topiclistevent/v1/request-topic-unsubscription", post(unsubscribe))
}

/// Subscribes to the list of topics: 201 with `Location`.
async fn subscribe_to_list(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Json(request): Json<TopicListSubscription>,
) -> Result<Response, ProblemDetails> {
    let subscriber = request.ori_addr.addr.to_string();
    let subscribed = async {
        let (originator, prefixes) = api.list_subscriber(&identity, &request.ori_addr)?;
        check_notification_uri(&request.notification_uri, &prefixes, &identity)?;
        let shown = identity.nf_instance_id.clone().or_else(|| identity.dns_names.first().cloned());
        let subscribed =
            topics::list::subscribe(&api.core, originator, request.notification_uri, shown, request.expr_time).await;
        subscribed.map_err(|cause| api.problem(cause))
    };
    let (id, expires_at) = api.told(&identity, "topiclist-subscribe", &subscriber, subscribed.await)?;
    let location =
        HeaderValue::from_str(&format!("{LIST_SUBSCRIPTIONS}/{id}")).map_err(|_| ProblemDetails::internal())?;
    // No optional feature is defined.
    let supp_feat = request.supp_feat.map(|_| "0".to_owned());
    let ack = TopicListSubscriptionAck { sub_stat: SUBSCRIBED.to_owned(), expr_time: Some(expires_at), supp_feat };
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(ack)).into_response())
}

/// Ends such a subscription: 204. It is a POST, not a DELETE, by TS 29.538.
async fn unsubscribe_from_list(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Path(subscription_id): Path<String>,
    Json(request): Json<TopicListUnsubscription>,
) -> Result<StatusCode, ProblemDetails> {
    let subscriber = request.ori_addr.addr.to_string();
    let ended = async {
        let (originator, _) = api.list_subscriber(&identity, &request.ori_addr)?;
        let ended = topics::list::unsubscribe(&api.core, &subscription_id, |owner| *owner == originator).await;
        ended.map_err(|refusal| match refusal {
            ListRefusal::Unknown => ProblemDetails::not_found(NO_SUCH_SUBSCRIPTION),
            ListRefusal::NotYours => {
                api.not_yours(&identity, &subscription_id);
                api.problem(FailureCause::OriginatorNotAllowed)
            }
            ListRefusal::Failed(cause) => api.problem(cause),
        })
    };
    api.told(&identity, "topiclist-unsubscribe", &subscriber, ended.await).map(|_| StatusCode::NO_CONTENT)
}

/// Subscribes `oriAddr` to topics.
async fn subscribe(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Json(request): Json<TopicSubscription>,
) -> Result<Json<TopicSubscriptionAck>, ProblemDetails> {
    let subscriber = request.ori_addr.addr.to_string();
    let subscribed = async {
        let on_behalf_of = api.acts_for(&identity, &request.ori_addr)?;
        let subscribed =
            topics::subscribe(&api.core, request.ori_addr, request.msg_topics, request.expr_time, on_behalf_of).await;
        subscribed.map_err(|cause| api.problem(cause))
    };
    let expires_at = api.told(&identity, "topic-subscribe", &subscriber, subscribed.await)?;
    Ok(Json(TopicSubscriptionAck { sub_stat: SUBSCRIBED.to_owned(), expr_time: Some(expires_at) }))
}

/// Ends `oriAddr`'s subscription to topics.
async fn unsubscribe(
    State(api): State<Api>,
    Extension(identity): Extension<PeerIdentity>,
    Json(request): Json<TopicUnsubscription>,
) -> Result<StatusCode, ProblemDetails> {
    let subscriber = request.ori_addr.addr.to_string();
    let ended = async {
        api.acts_for(&identity, &request.ori_addr)?;
        let ended = topics::unsubscribe(&api.core, request.ori_addr, request.msg_topics).await;
        ended.map_err(|cause| api.problem(cause))
    };
    api.told(&identity, "topic-unsubscribe", &subscriber, ended.await).map(|_| StatusCode::NO_CONTENT)
}

impl Api {
    /// Checks that the certificate is this AS's, or that of a server that may act for this subscriber, which is then named.
    fn acts_for(&self, identity: &PeerIdentity, subscriber: &Address) -> Result<Option<String>, ProblemDetails> {
        self.refuse_when_stopping()?;
        if subscriber.as_application_server().is_some_and(|id: AsServiceId| self.servers.is_bound(identity, &id)) {
            return Ok(None);
        }
        let rules = self.core.topics.rules();
        let mut servers = rules.topic_servers.iter();
        match servers.find(|server| server.admits(identity) && server.acts_for(subscriber)) {
            Some(server) => Ok(Some(server.server_id.as_str().to_owned())),
            None => {
                self.not_yours(identity, subscriber.addr.as_str());
                Err(self.problem(FailureCause::OriginatorNotAllowed))
            }
        }
    }

    /// Who subscribes to the list: an AS, or a server, each by its certificate; and where it may be told.
    fn list_subscriber(
        &self,
        identity: &PeerIdentity,
        originator: &Address,
    ) -> Result<(Address, Vec<String>), ProblemDetails> {
        self.refuse_when_stopping()?;
        if let Some(id) = originator.as_application_server().filter(|id| self.servers.is_bound(identity, id)) {
            return Ok((originator.clone(), self.servers.target_uris(identity, &id)));
        }
        let rules = self.core.topics.rules();
        let mut servers = rules.topic_servers.iter();
        match servers.find(|server| server.server_id == originator.addr && server.admits(identity)) {
            Some(server) => Ok((server.address(), server.notification_uris.clone())),
            None => {
                self.not_yours(identity, originator.addr.as_str());
                Err(self.problem(FailureCause::OriginatorNotAllowed))
            }
        }
    }
}

/// Nobody is to send the server to others' doors.
fn check_notification_uri(uri: &str, prefixes: &[String], identity: &PeerIdentity) -> Result<(), ProblemDetails> {
    if !is_well_formed_below(uri, prefixes) {
        return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
            .with_invalid_param("/notificationURI", "must be an https URI that this subscriber may name"));
    }
    if prefixes.is_empty() && !is_own(uri, identity) {
        return Err(ProblemDetails::forbidden(NOTIFICATION_URI_NOT_ALLOWED)
            .with_invalid_param("/notificationURI", "its host must be a name in the certificate, or be configured"));
    }
    Ok(())
}
