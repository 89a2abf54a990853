//! Nnrf_NFManagement (TS 29.510 clauses 5.2, 6.1).

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use sbi::nrf::{MANAGEMENT_PATH, NFProfile, NFType, PatchItem, SubscriptionData, UriList, UriListLinks};
use sbi::{HalJson, Json, Link, Path, PeerIdentity, ProblemDetails, Query, cause};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::registry::{Kept, RESOURCE_NOT_FOUND};
use super::{Nrf, identity};

/// A JSON patch as body; another media type gets 415.
pub(super) struct Patch(Vec<PatchItem>);

impl<S: Send + Sync> FromRequest<S> for Patch {
    type Rejection = ProblemDetails;

    async fn from_request(request: Request, state: &S) -> Result<Self, ProblemDetails> {
        let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case(JSON_PATCH) {
            return Err(ProblemDetails::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                .with_invalid_param("header Content-Type", "must be application/json-patch+json"));
        }
        Json::from_request(request, state).await.map(|Json(items)| Self(items))
    }
}

/// NFRegister, and the replacement of a whole profile.
pub(super) async fn register(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<Uuid>,
    Json(profile): Json<NFProfile>,
) -> Result<Response, ProblemDetails> {
    identity::itself(&peer, id)?;
    if profile.nf_instance_id != id {
        return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
            .with_invalid_param("/nfInstanceId", "not that of the path"));
    }
    identity::is_type(&peer, &profile.nf_type)?;
    let (new, kept, event) = nrf.registry().put(profile, Instant::now())?;
    tracing::info!(target: "security", nf_instance_id = %id, nf_type = %kept.profile.nf_type, new, "NF registered");
    if let Some(event) = event {
        nrf.tell(&event);
    }
    let tag = AppendHeaders([etag(kept.revision)]);
    Ok(if new {
        (StatusCode::CREATED, AppendHeaders([(LOCATION, nrf.instance_uri(id))]), tag, Json(kept.profile))
            .into_response()
    } else {
        (tag, Json(kept.profile)).into_response()
    })
}

/// NFUpdate: parts of the profile, or just a sign of life.
pub(super) async fn update(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Patch(items): Patch,
) -> Result<Response, ProblemDetails> {
    identity::itself(&peer, id)?;
    let (kept, event) = nrf.registry().patch(id, if_match(&headers)?, &items, Instant::now())?;
    match event {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(event) => {
            nrf.tell(&event);
            Ok((AppendHeaders([etag(kept.revision)]), Json(kept.profile)).into_response())
        }
    }
}

/// NFProfileRetrieval.
pub(super) async fn read(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<Uuid>,
) -> Result<Response, ProblemDetails> {
    identity::instance(&peer)?;
    let Kept { profile, revision } =
        nrf.registry().get(id).ok_or_else(|| ProblemDetails::not_found(RESOURCE_NOT_FOUND))?;
    Ok((AppendHeaders([etag(revision)]), Json(profile)).into_response())
}

/// NFDeregister.
pub(super) async fn deregister(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ProblemDetails> {
    identity::itself(&peer, id)?;
    let event = nrf.registry().remove(id)?;
    tracing::info!(target: "security", nf_instance_id = %id, nf_type = %event.profile.nf_type, "NF deregistered");
    nrf.tell(&event);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ListQuery {
    nf_type: Option<NFType>,
    limit: Option<std::num::NonZeroUsize>,
    page_number: Option<std::num::NonZeroUsize>,
    page_size: Option<std::num::NonZeroUsize>,
}

/// NFListRetrieval.
pub(super) async fn list(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Query(query): Query<ListQuery>,
) -> Result<HalJson<UriList>, ProblemDetails> {
    identity::instance(&peer)?;
    let ids: Vec<Uuid> = nrf
        .registry()
        .profiles()
        .filter(|profile| query.nf_type.as_ref().is_none_or(|wanted| *wanted == profile.nf_type))
        .map(|profile| profile.nf_instance_id)
        .collect();
    let size = query.page_size.map_or(usize::MAX, std::num::NonZeroUsize::get);
    let skipped = query.page_number.map_or(0, |page| page.get().saturating_sub(1).saturating_mul(size));
    let shown = query.limit.map_or(usize::MAX, std::num::NonZeroUsize::get).min(size);
    Ok(HalJson(UriList {
        links: UriListLinks {
            this: Link { href: format!("{}{MANAGEMENT_PATH}/nf-instances", nrf.api_root) },
            item: ids.iter().skip(skipped).take(shown).map(|id| Link { href: nrf.instance_uri(*id) }).collect(),
        },
        total_item_count: u64::try_from(ids.len()).ok(),
    }))
}

/// What the collection can do: nothing that would have to be negotiated.
pub(super) async fn options() -> (StatusCode, AppendHeaders<[(HeaderName, &'static str); 1]>) {
    (StatusCode::NO_CONTENT, AppendHeaders([(ALLOW, "GET, OPTIONS")]))
}

/// NFStatusSubscribe.
pub(super) async fn subscribe(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Json(subscription): Json<SubscriptionData>,
) -> Result<Response, ProblemDetails> {
    let owner = identity::instance(&peer)?;
    if subscription.req_nf_instance_id.is_some_and(|id| id != owner) {
        identity::itself(&peer, subscription.req_nf_instance_id.unwrap_or_default())?;
    }
    if let Some(nf_type) = &subscription.req_nf_type {
        identity::is_type(&peer, nf_type)?;
    }
    let taken = nrf.subscriptions.add(owner, subscription, OffsetDateTime::now_utc())?;
    let id = taken.subscription_id.clone().unwrap_or_default();
    let location = format!("{}{MANAGEMENT_PATH}/subscriptions/{id}", nrf.api_root);
    Ok((StatusCode::CREATED, AppendHeaders([(LOCATION, location)]), Json(taken)).into_response())
}

/// A later end for a subscription (TS 29.510 clause 5.2.2.5.6).
pub(super) async fn prolong(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<String>,
    Patch(items): Patch,
) -> Result<Json<SubscriptionData>, ProblemDetails> {
    let owner = identity::instance(&peer)?;
    nrf.subscriptions.change(owner, &id, &items, OffsetDateTime::now_utc()).map(Json)
}

/// NFStatusUnSubscribe.
pub(super) async fn unsubscribe(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<String>,
) -> Result<StatusCode, ProblemDetails> {
    nrf.subscriptions.remove(identity::instance(&peer)?, &id).map(|()| StatusCode::NO_CONTENT)
}

fn etag(revision: u64) -> (HeaderName, HeaderValue) {
    let tag = HeaderValue::try_from(format!("\"{revision}\""));
    // Digits in quotes always are one.
    (ETAG, tag.unwrap_or_else(|_| HeaderValue::from_static("\"0\"")))
}

/// The revision that a request is made for (RFC 9110 clause 13.1.1). A tag that was never ours matches nothing.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ProblemDetails> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    revision.map(Some).ok_or_else(|| ProblemDetails::new(StatusCode::PRECONDITION_FAILED))
}

/// RFC 6902.
const JSON_PATCH: &str = "application/json-patch+json";
