//! Adding, listing and removing subscribers. 3GPP leaves provisioning to the operator, so this API is ours:
//!
//! | Request | Answer |
//! |---|---|
//! | `PUT /lab-subscribers/v1/subscribers/{supi}` with a [`Subscription`] | 201 new, 204 replaced |
//! | `GET /lab-subscribers/v1/subscribers?after=<supi>&limit=<n>` | 200 with [`SubscriptionSummary`]s, never a key |
//! | `DELETE /lab-subscribers/v1/subscribers/{supi}` | 204, 404 USER_NOT_FOUND, 504 UPSTREAM_SERVER_ERROR |
//!
//! A subscriber that is removed is one whose UE the AUSF forgets, and the AAnF with it. If the AUSF cannot be told, the
//! subscriber is removed all the same, and the answer is 504: the same request again tells it.

use std::sync::Arc;

use akma::Supi;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use sbi::{Json, Path, PeerIdentity, ProblemDetails, Query, SbiClient, SbiError, cause};
use serde::Deserialize;

use super::{Udm, fault, user_not_found};
use crate::LabError;
use crate::authorisation::authorise;
use crate::subscription::{Subscription, SubscriptionSummary};

/// Subscribers in one answer to a list request.
const PAGE_MAX: usize = 500;
/// Operations in audit events, and what they are done to: a subscriber is not named there.
const PUT: &str = "lab-subscribers:put";
const REMOVE: &str = "lab-subscribers:remove";
const UE: &str = "ue";
/// TS 29.500 has no better word for an AUSF that does not answer.
const UPSTREAM_SERVER_ERROR: &str = "UPSTREAM_SERVER_ERROR";

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    after: Option<Supi>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(udm): State<Arc<Udm>>,
    Extension(peer): Extension<PeerIdentity>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<SubscriptionSummary>>, ProblemDetails> {
    authorise(&udm.audit, &peer, &udm.provisioning_callers, "lab-subscribers:list")?;
    let limit = page.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    udm.table.list(page.after.as_ref(), limit).map(Json).map_err(fault)
}

pub(super) async fn put(
    State(udm): State<Arc<Udm>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(supi): Path<Supi>,
    Json(subscription): Json<Subscription>,
) -> Result<StatusCode, ProblemDetails> {
    let provisioner = authorise(&udm.audit, &peer, &udm.provisioning_callers, PUT)?;
    if subscription.supi != supi {
        return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
            .with_invalid_param("/supi", "differs from the resource's path"));
    }
    let new = udm.table.put(&subscription).await.map_err(fault)?;
    udm.audit.changed(&provisioner.to_string(), PUT, UE, if new { "added" } else { "replaced" }, None);
    Ok(if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
}

pub(super) async fn remove(
    State(udm): State<Arc<Udm>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(supi): Path<Supi>,
) -> Result<StatusCode, ProblemDetails> {
    let provisioner = authorise(&udm.audit, &peer, &udm.provisioning_callers, REMOVE)?;
    let was_there = udm.table.remove(&supi).await.map_err(fault)?;
    if let Some(ausf) = &udm.ausf {
        ausf.deregister(&supi).await.map_err(|error| {
            tracing::warn!(target: "security", %error, was_there, "AUSF was not told of a subscriber removed");
            ProblemDetails::new(StatusCode::GATEWAY_TIMEOUT).with_cause(UPSTREAM_SERVER_ERROR)
        })?;
    }
    if !was_there {
        return Err(user_not_found());
    }
    udm.audit.changed(&provisioner.to_string(), REMOVE, UE, "removed", None);
    Ok(StatusCode::NO_CONTENT)
}

/// Provisions subscribers at a UDM.
#[derive(Debug, Clone)]
pub struct SubscriberClient {
    http: SbiClient,
    root: String,
}

impl SubscriberClient {
    /// Provisions at the UDM whose root is `udm` (`https://host:port`); `http` carries a certificate that the UDM
    /// lets provision.
    #[must_use]
    pub fn new(http: SbiClient, udm: &str) -> Self {
        let http = http.for_service(sbi::services::UDM, super::LAB_SUBSCRIBERS.service);
        Self { http, root: format!("{}/lab-subscribers/v1/subscribers", udm.trim_end_matches('/')) }
    }

    /// Adds a subscriber or replaces it; `true` when it is new.
    ///
    /// # Errors
    /// [`LabError::Subscription`] for what would not be accepted, [`LabError::Interface`] otherwise.
    pub async fn put(&self, subscription: &Subscription) -> Result<bool, LabError> {
        subscription.check()?;
        let uri = format!("{}/{}", self.root, segment(subscription.supi.as_str()));
        let answer = self.http.put::<_, serde::de::IgnoredAny>(&uri, subscription).await?;
        Ok(answer.status == StatusCode::CREATED)
    }

    /// All subscribers, in the order of their SUPIs, without keys.
    ///
    /// # Errors
    /// [`LabError::Interface`].
    pub async fn list(&self) -> Result<Vec<SubscriptionSummary>, LabError> {
        let mut all: Vec<SubscriptionSummary> = Vec::new();
        loop {
            let uri = match all.last() {
                None => format!("{}?limit={PAGE_MAX}", self.root),
                Some(last) => format!("{}?limit={PAGE_MAX}&after={}", self.root, segment(last.supi.as_str())),
            };
            let page: Vec<SubscriptionSummary> = self.http.get(&uri).await?.into_body()?;
            let last_page = page.len() < PAGE_MAX;
            all.extend(page);
            if last_page {
                return Ok(all);
            }
        }
    }

    /// Removes a subscriber.
    ///
    /// # Errors
    /// [`LabError::UnknownSubscriber`] when there is none, [`LabError::Interface`] otherwise.
    pub async fn remove(&self, supi: &Supi) -> Result<(), LabError> {
        let uri = format!("{}/{}", self.root, segment(supi.as_str()));
        match self.http.delete::<serde::de::IgnoredAny>(&uri).await {
            Ok(_) => Ok(()),
            Err(SbiError::Problem(problem)) if problem.status_code() == StatusCode::NOT_FOUND => {
                Err(LabError::UnknownSubscriber)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A SUPI may be an NAI with characters that a path or query cannot hold as they are (RFC 3986 clause 2.1).
fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~@".contains(&octet) {
            segment.push(char::from(octet));
        } else {
            segment.push_str(&format!("%{octet:02X}"));
        }
    }
    segment
}
