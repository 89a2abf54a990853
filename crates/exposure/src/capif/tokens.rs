//! `securities/{securityId}/token` (TS 29.222 clause 8.5.2.3, TS 33.122 clauses 6.5.2.3 and C.2).

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use sbi::capif::publish::SecurityMethod;
use sbi::capif::scope::CapifScope;
use sbi::capif::security::{AccessTokenClaims, AccessTokenErr, AccessTokenReq, AccessTokenRsp};
use sbi::{Json, Path, ProblemDetails, WholeBody};

use super::grants::Grants;
use super::security::usable;
use super::service::{Caller, Context, NOT_YOURS, Reason, Refusal, Service, forbidden};
use super::state::State;

/// POST: a token for what the security context has with method OAUTH.
pub(crate) async fn issue(
    service: Context,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Result<Response, Refusal> {
    if caller.must_be(sbi::capif::identity::Role::Invoker, &id).is_err() {
        return Err(forbidden(NOT_YOURS));
    }
    if !is_form(&headers) {
        return Err(ProblemDetails::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .with_invalid_param("header Content-Type", "must be application/x-www-form-urlencoded")
            .into());
    }
    match grant(&service.grants(), &service.registry.read(), &id, &request(&body)) {
        Ok(scope) => token(&service, id, &scope),
        Err(error) => Ok(refusal(error)),
    }
}

/// GET: the public keys that tokens are checked by (RFC 7517). For everybody.
pub(crate) async fn keys(service: Context) -> Response {
    Json(service.signer.jwks()).into_response()
}

/// Which scope is granted, or the error of RFC 6749 clause 5.2.
fn grant(grants: &Grants, state: &State, id: &str, form: &AccessTokenReq) -> Result<CapifScope, &'static str> {
    if form.grant_type.is_empty() || form.client_id.is_empty() {
        return Err("invalid_request");
    }
    if form.grant_type != "client_credentials" {
        return Err("unsupported_grant_type");
    }
    if form.client_id != id {
        return Err("invalid_client");
    }
    let (invoker, context) = state.invokers.get(id).zip(state.contexts.get(id)).ok_or("unauthorized_client")?;
    let entries = context.entries.iter().filter(|entry| entry.method == SecurityMethod::Oauth);
    let pairs = entries.flat_map(|entry| {
        usable(grants, state, invoker, entry)
            .map(move |(_, api)| (entry.aef_id.as_str(), api.description.api_name.as_str()))
    });
    let allowed = CapifScope::of_pairs(pairs).ok_or("unauthorized_client")?;
    let Some(wanted) = &form.scope else { return Ok(allowed) };
    let wanted: CapifScope = wanted.parse().map_err(|_| "invalid_scope")?;
    let granted = wanted.pairs().all(|(aef_id, api_name)| allowed.includes(aef_id, api_name));
    if granted { Ok(wanted) } else { Err("invalid_scope") }
}

fn token(service: &Service, id: String, scope: &CapifScope) -> Result<Response, Refusal> {
    let now = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default();
    let claims = AccessTokenClaims {
        iss: service.id.clone(),
        client_id: id,
        scope: scope.to_string(),
        exp: now.saturating_add(service.token_lifetime_seconds),
        iat: now,
    };
    let access_token = service.signer.sign(&claims).map_err(|error| {
        tracing::error!(%error, "no token could be signed");
        ProblemDetails::internal()
    })?;
    let answer = AccessTokenRsp {
        access_token,
        token_type: "Bearer".to_owned(),
        expires_in: service.token_lifetime_seconds,
        scope: Some(claims.scope),
    };
    Ok(([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(answer)).into_response())
}

fn refusal(error: &'static str) -> Response {
    let status = if error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
    let body = Json(AccessTokenErr { error: error.to_owned(), error_description: None });
    let mut response = (status, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))], body).into_response();
    response.extensions_mut().insert(Reason(error.into()));
    response
}

/// The form; a member that comes twice counts as empty, which is refused.
fn request(body: &[u8]) -> AccessTokenReq {
    let mut request = AccessTokenReq::default();
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        let value = if seen.insert(name.clone()) { value.into_owned() } else { String::new() };
        match &*name {
            "grant_type" => request.grant_type = value,
            "client_id" => request.client_id = value,
            "scope" => request.scope = Some(value),
            _ => {}
        }
    }
    request
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}
