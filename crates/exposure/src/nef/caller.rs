//! Who calls from outside, before anything of the request is looked at: certificate → token → entry → rate → scope.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use sbi::audit::subject;
use sbi::capif::aef::CapifInvoker;
use sbi::{PeerIdentity, ProblemDetails};

use super::af::{Af, TooMany};
use super::service::Service;
use super::token::unix_now;
use super::{refusal, scope};

/// An application function that was authenticated and may use the API it asks for. Handlers find it as a request extension.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) af: Arc<Af>,
    /// Whether its token has the scope for the GPSI.
    pub(crate) gpsi_scope: bool,
}

/// Lets a request through with a [`Caller`], or answers it (RFC 6750 clause 3).
pub(crate) async fn authenticate(State(service): State<Arc<Service>>, mut request: Request, next: Next) -> Response {
    let since = Instant::now();
    let Some(api) = scope::of_path(request.uri().path()) else {
        return ProblemDetails::not_found(sbi::cause::RESOURCE_URI_STRUCTURE_NOT_FOUND).into_response();
    };
    let peer = request.extensions().get::<PeerIdentity>().cloned().unwrap_or_default();
    let invoker = request.extensions().get::<CapifInvoker>();
    let identified = match invoker {
        Some(invoker) => vouched_for(&service, invoker, api),
        None => identify(&service, request.headers(), &peer, api),
    };
    // Who comes by AEF_PSK has no certificate, but the names that the core function told.
    let named = invoker.map(|invoker| PeerIdentity { dns_names: invoker.names.clone(), ..PeerIdentity::default() });
    if let Some(named) = named.filter(|_| request.extensions().get::<PeerIdentity>().is_none()) {
        request.extensions_mut().insert(named);
    }
    let caller = match identified {
        Ok(caller) => caller,
        Err(refused) => {
            service.refused(subject(&peer), api, refused.reason, since);
            return refused.into_response();
        }
    };
    let _slot = match caller.af.admit(since) {
        Ok(slot) => slot,
        Err(too_many) => {
            service.refused(caller.af.id(), api, "rate_exceeded", since);
            return too_many::problem(too_many).into_response();
        }
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// The application function that an API invoker is, by the names that the CAPIF core function told of it. The core function has
/// checked method, token and policy already; what the entry allows remains.
fn vouched_for(service: &Service, invoker: &CapifInvoker, api: &'static str) -> Result<Caller, RefusedToken> {
    let af = service.afs.current().named(&invoker.names).ok_or(RefusedToken::NO_ENTRY)?;
    let scopes = af.scopes();
    if !scopes.contains(&api) {
        return Err(RefusedToken::NO_ENTRY);
    }
    Ok(Caller { gpsi_scope: scopes.contains(&scope::GPSI_ACCESS), af })
}

fn identify(
    service: &Service,
    headers: &HeaderMap,
    peer: &PeerIdentity,
    api: &'static str,
) -> Result<Caller, RefusedToken> {
    let token = bearer(headers)?;
    let claims = service.tokens.verify(token, peer, unix_now()).map_err(RefusedToken::invalid)?;
    // The entry may have changed since the token was issued.
    let af = service.afs.current().find(&claims.sub).filter(|af| af.is(peer)).ok_or(RefusedToken::NO_ENTRY)?;
    let granted = |wanted: &str| claims.scopes().any(|scope| scope == wanted) && af.scopes().contains(&wanted);
    if !granted(api) {
        return Err(RefusedToken::insufficient(api));
    }
    Ok(Caller { gpsi_scope: granted(scope::GPSI_ACCESS), af })
}

/// The one bearer token of the one `Authorization` header (RFC 6750 clause 2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, RefusedToken> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(if headers.contains_key(AUTHORIZATION) { RefusedToken::MALFORMED } else { RefusedToken::MISSING });
    };
    let (kind, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(RefusedToken::MALFORMED)?;
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err(RefusedToken::MISSING);
    }
    Ok(token.trim_start())
}

/// A refusal by the token, or for want of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RefusedToken {
    status: StatusCode,
    /// RFC 6750 clause 3.1; none where no token was shown.
    error: Option<&'static str>,
    scope: Option<&'static str>,
    reason: &'static str,
}

impl RefusedToken {
    const MISSING: Self = Self { status: StatusCode::UNAUTHORIZED, error: None, scope: None, reason: "token_missing" };
    const MALFORMED: Self = Self {
        status: StatusCode::BAD_REQUEST,
        error: Some("invalid_request"),
        scope: None,
        reason: "token_header_malformed",
    };
    const NO_ENTRY: Self =
        Self { status: StatusCode::FORBIDDEN, error: None, scope: None, reason: "requester_not_allowed" };

    fn invalid(reason: &'static str) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, error: Some("invalid_token"), scope: None, reason }
    }

    fn insufficient(scope: &'static str) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            error: Some("insufficient_scope"),
            scope: Some(scope),
            reason: "scope_insufficient",
        }
    }
}

impl IntoResponse for RefusedToken {
    fn into_response(self) -> Response {
        let cause = match (self.status, self.error) {
            (StatusCode::FORBIDDEN, None) => refusal::REQUESTER_NOT_ALLOWED,
            (_, Some(error)) => error,
            (_, None) => "token_missing",
        };
        let mut response = ProblemDetails::new(self.status).with_cause(&cause.to_ascii_uppercase()).into_response();
        if self.status != StatusCode::FORBIDDEN || self.error.is_some() {
            let mut challenge = "Bearer realm=\"nef\"".to_owned();
            if let Some(error) = self.error {
                challenge.push_str(&format!(", error=\"{error}\""));
            }
            if let Some(scope) = self.scope {
                challenge.push_str(&format!(", scope=\"{scope}\""));
            }
            if let Ok(challenge) = HeaderValue::try_from(challenge) {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }
}

/// The answers to too many requests.
pub(crate) mod too_many {
    use super::{HeaderValue, ProblemDetails, StatusCode, TooMany, refusal};

    pub(crate) fn problem(too_many: TooMany) -> ProblemDetails {
        let mut problem = ProblemDetails::new(StatusCode::TOO_MANY_REQUESTS).with_cause(refusal::RATE_EXCEEDED);
        problem.retry_after_seconds = Some(too_many.retry_after_seconds);
        problem
    }

    pub(crate) fn header(seconds: u32) -> HeaderValue {
        HeaderValue::from(seconds)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn token_of(values: &[&str]) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::try_from(*value).unwrap());
        }
        bearer(&headers).map(str::to_owned).map_err(|refused| refused.reason)
    }

    #[test]
    fn there_is_one_bearer_token_or_none() {
        assert_eq!(token_of(&["Bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(token_of(&["bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(token_of(&[]), Err("token_missing"));
        assert_eq!(token_of(&["Basic abc"]), Err("token_missing"));
        assert_eq!(token_of(&["Bearer"]), Err("token_header_malformed"));
        assert_eq!(token_of(&["Bearer abc", "Bearer def"]), Err("token_header_malformed"));
    }

    #[test]
    fn a_refusal_says_what_rfc_6750_says() {
        let header = |refused: RefusedToken| {
            let response = refused.into_response();
            (
                response.status(),
                response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned()),
            )
        };
        assert_eq!(header(RefusedToken::MISSING), (StatusCode::UNAUTHORIZED, Some("Bearer realm=\"nef\"".to_owned())));
        let (status, challenge) = header(RefusedToken::insufficient("3gpp-akma"));
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(challenge.unwrap().contains("error=\"insufficient_scope\", scope=\"3gpp-akma\""));
        assert!(header(RefusedToken::invalid("token_expired")).1.unwrap().contains("error=\"invalid_token\""));
        assert_eq!(header(RefusedToken::NO_ENTRY), (StatusCode::FORBIDDEN, None));
    }
}
