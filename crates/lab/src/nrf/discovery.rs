//! Nnrf_NFDiscovery (TS 29.510 clauses 5.3, 6.2).

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode};
use axum::response::AppendHeaders;
use sbi::nrf::{DiscoveryQuery, NFProfile, SearchResult};
use sbi::{Json, PeerIdentity, ProblemDetails};
use serde_json::Map;

use super::Nrf;

pub(super) async fn discover(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, AppendHeaders<[(HeaderName, String); 1]>, Json<SearchResult>), ProblemDetails> {
    let asked = nrf.asked(&peer, "nnrf-disc:discover");
    asked.instance()?;
    let query = DiscoveryQuery::parse(query.as_deref().unwrap_or_default())?;
    asked.is_type(&query.requester_nf_type)?;
    if let Some(id) = query.requester_nf_instance_id {
        asked.itself(id)?;
    }
    let mut found: Vec<NFProfile> = nrf.registry().profiles().filter_map(|profile| query.select(profile)).collect();
    asked.allowed(query.target_nf_type.as_str(), if found.is_empty() { "unknown" } else { "found" });
    let complete = found.len();
    found.truncate(query.limit.unwrap_or(usize::MAX).min(nrf.limits.discovery_instances_max));
    let validity_period = nrf.limits.discovery_validity_seconds;
    let result = SearchResult {
        validity_period,
        num_nf_inst_complete: (complete > found.len()).then(|| u32::try_from(complete).unwrap_or(u32::MAX)),
        nf_instances: found,
        ignored_query_params: query.ignored,
        rest: Map::new(),
    };
    let headers = AppendHeaders([(CACHE_CONTROL, format!("private, max-age={validity_period}"))]);
    Ok((StatusCode::OK, headers, Json(result)))
}
