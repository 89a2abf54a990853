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

use super::Nrf;
use super::registry::{Kept, RESOURCE_NOT_FOUND};

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
    let asked = nrf.asked(&peer, "nnrf-nfm:register");
    asked.itself(id)?;
    if profile.nf_instance_id != id {
        return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
            .with_invalid_param("/nfInstanceId", "not that of the path"));
    }
    asked.is_type(&profile.nf_type)?;
    let nf_type = profile.nf_type.to_string();
    let put = nrf.registry().put(profile, Instant::now());
    let (new, kept, event) = put.inspect_err(|problem| asked.changed(&nf_type, NOT_TAKEN, Some(problem)))?;
    asked.changed(&nf_type, if new { "registered" } else { "replaced" }, None);
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
    let asked = nrf.asked(&peer, "nnrf-nfm:update");
    asked.itself(id)?;
    let patched = nrf.registry().patch(id, if_match(&headers)?, &items, Instant::now());
    let (kept, event) = patched.inspect_err(|_| asked.allowed("", NOT_TAKEN))?;
    match event {
        None => {
            asked.allowed("", "alive");
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Some(event) => {
            asked.changed(kept.profile.nf_type.as_str(), "changed", None);
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
    let asked = nrf.asked(&peer, "nnrf-nfm:read");
    asked.instance()?;
    let Kept { profile, revision } =
        nrf.registry().get(id).ok_or_else(|| ProblemDetails::not_found(RESOURCE_NOT_FOUND))?;
    asked.allowed(&id.to_string(), "read");
    Ok((AppendHeaders([etag(revision)]), Json(profile)).into_response())
}

/// NFDeregister.
pub(super) async fn deregister(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ProblemDetails> {
    let asked = nrf.asked(&peer, "nnrf-nfm:deregister");
    asked.itself(id)?;
    let event = nrf.registry().remove(id).inspect_err(|_| asked.allowed("", "unknown"))?;
    asked.changed(event.profile.nf_type.as_str(), "deregistered", None);
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
    let asked = nrf.asked(&peer, "nnrf-nfm:list");
    asked.instance()?;
    asked.allowed("", "listed");
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
    let asked = nrf.asked(&peer, "nnrf-nfm:subscribe");
    let owner = asked.instance()?;
    if let Some(id) = subscription.req_nf_instance_id {
        asked.itself(id)?;
    }
    if let Some(nf_type) = &subscription.req_nf_type {
        asked.is_type(nf_type)?;
    }
    let taken = nrf.subscriptions.add(owner, subscription, OffsetDateTime::now_utc());
    let taken = taken.inspect_err(|problem| asked.changed("", NOT_TAKEN, Some(problem)))?;
    let id = taken.subscription_id.clone().unwrap_or_default();
    asked.changed(&id, "subscribed", None);
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
    let asked = nrf.asked(&peer, "nnrf-nfm:prolong");
    let changed = nrf.subscriptions.change(asked.instance()?, &id, &items, OffsetDateTime::now_utc());
    let changed = changed.inspect_err(|_| asked.allowed("", NOT_TAKEN))?;
    asked.changed(&id, "prolonged", None);
    Ok(Json(changed))
}

/// NFStatusUnSubscribe.
pub(super) async fn unsubscribe(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    Path(id): Path<String>,
) -> Result<StatusCode, ProblemDetails> {
    let asked = nrf.asked(&peer, "nnrf-nfm:unsubscribe");
    nrf.subscriptions.remove(asked.instance()?, &id).inspect_err(|_| asked.allowed("", "unknown"))?;
    asked.changed(&id, "unsubscribed", None);
    Ok(StatusCode::NO_CONTENT)
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

/// The audit's word for what was not taken as it is: wrong, or one too many.
const NOT_TAKEN: &str = "not_taken";
/// RFC 6902.
const JSON_PATCH: &str = "application/json-patch+json";
