//! Access tokens for application functions (TS 33.501 clause 12.4, RFC 6749 clause 4.4), bound to the certificate that they
//! were asked for with (RFC 8705).
//!
//! The client is authenticated by its certificate (RFC 8705 clause 2.1), so there is no secret to keep or to leak.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use sbi::audit::subject;
use sbi::token::{TokenError, TokenKeys, TokenSigner};
use sbi::{PeerIdentity, WholeBody};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::af::Af;
use super::caller::too_many;
use super::config::TokenConfig;
use super::service::Service;
use crate::error::ExposureError;

/// Path of the token endpoint.
pub(crate) const TOKEN_ENDPOINT: &str = "/oauth2/token";

/// Issues tokens and reads them again.
pub(crate) struct Tokens {
    signer: TokenSigner,
    keys: TokenKeys,
    issuer: String,
    lifetime_seconds: u64,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    /// The application function's `af_id`.
    pub(crate) sub: String,
    aud: String,
    scope: String,
    iat: u64,
    exp: u64,
    jti: String,
    cnf: Confirmation,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Confirmation {
    /// SHA-256 of the certificate, base64url without padding.
    #[serde(rename = "x5t#S256")]
    thumbprint: String,
}

impl Claims {
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split(' ').filter(|scope| !scope.is_empty())
    }
}

impl Tokens {
    pub(crate) fn open(config: &TokenConfig) -> Result<Self, ExposureError> {
        let wrong = |error: &dyn std::fmt::Display| match &config.key {
            Some(path) => ExposureError::TokenKey(format!("nef.tokens.key: {}: {error}", path.display())),
            None => ExposureError::TokenKey(error.to_string()),
        };
        let pem = match &config.key {
            Some(path) => std::fs::read_to_string(path).map_err(|error| wrong(&error))?,
            None => TokenSigner::generate_pem().map_err(|error| wrong(&error))?,
        };
        let signer = TokenSigner::from_pem(pem.as_bytes()).map_err(|error| wrong(&error))?;
        let keys = TokenKeys::from_jwks(signer.jwks().to_string().as_bytes()).map_err(|error| wrong(&error))?;
        Ok(Self { signer, keys, issuer: config.issuer.clone(), lifetime_seconds: config.lifetime_seconds })
    }

    /// A token for `af_id`, good with the certificate of this digest only.
    fn issue(&self, af_id: &str, scope: &str, certificate: &[u8; 32], now: u64) -> Result<String, TokenError> {
        self.signer.sign(&Claims {
            iss: self.issuer.clone(),
            sub: af_id.to_owned(),
            aud: self.issuer.clone(),
            scope: scope.to_owned(),
            iat: now,
            exp: now.saturating_add(self.lifetime_seconds),
            jti: Uuid::new_v4().to_string(),
            cnf: Confirmation { thumbprint: base64url(certificate) },
        })
    }

    /// The claims of a token that is ours, good now, and shown with the certificate that it is bound to; or the reason why
    /// not.
    pub(crate) fn verify(&self, token: &str, peer: &PeerIdentity, now: u64) -> Result<Claims, &'static str> {
        let claims: Claims = self.keys.verify(token).map_err(|error| error.reason())?;
        if claims.iss != self.issuer || claims.aud != self.issuer {
            return Err("token_audience");
        }
        // No leeway: who issues and who verifies have one clock.
        if claims.exp <= now {
            return Err("token_expired");
        }
        match peer.certificate_sha256 {
            Some(certificate) if base64url(&certificate) == claims.cnf.thumbprint => Ok(claims),
            _ => Err("token_of_another"),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn base64url(octets: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(octets)
}

/// Access token request and answer.
pub(crate) async fn token(
    State(service): State<Arc<Service>>,
    Extension(peer): Extension<PeerIdentity>,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Response {
    let since = Instant::now();
    let outcome = TokenRequest::parse(&headers, &body).and_then(|request| {
        let af = client(&service, &peer, &request)?;
        grant(&service, &af, &peer, &request)
    });
    match outcome {
        Ok((af_id, answer)) => {
            service.allowed(&af_id, ACTION, "certificate", since);
            uncached(StatusCode::OK, &answer)
        }
        Err(refusal) => {
            service.refused(subject(&peer), ACTION, refusal.reason, since);
            refusal.into_response()
        }
    }
}

/// Which application function asks: the one named, if the certificate is its; else the only one that the certificate is for.
fn client(service: &Service, peer: &PeerIdentity, request: &TokenRequest) -> Result<Arc<Af>, TokenRefusal> {
    let af = match &request.client_id {
        Some(client_id) => service.afs.current().find(client_id).filter(|af| af.is(peer)),
        None => service.afs.current().only_one_of(peer),
    };
    af.ok_or(TokenRefusal::new(StatusCode::UNAUTHORIZED, "invalid_client", "client_unknown"))
}

fn grant(
    service: &Service,
    af: &Af,
    peer: &PeerIdentity,
    request: &TokenRequest,
) -> Result<(String, serde_json::Value), TokenRefusal> {
    let _slot = af.admit(Instant::now()).map_err(|too_many| TokenRefusal {
        retry_after_seconds: Some(too_many.retry_after_seconds),
        ..TokenRefusal::new(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", "rate_exceeded")
    })?;
    let allowed = af.scopes();
    let scope = match &request.scope {
        None => allowed.join(" "),
        Some(wanted) => {
            let mut wanted: Vec<&str> = wanted.split(' ').filter(|scope| !scope.is_empty()).collect();
            wanted.sort_unstable();
            wanted.dedup();
            if wanted.is_empty() || wanted.iter().any(|scope| !allowed.contains(scope)) {
                return Err(TokenRefusal::new(StatusCode::BAD_REQUEST, "invalid_scope", "scope_not_allowed"));
            }
            wanted.join(" ")
        }
    };
    let certificate = peer.certificate_sha256.ok_or(TokenRefusal::new(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "certificate_missing",
    ))?;
    let token = service.tokens.issue(af.id(), &scope, &certificate, unix_now()).map_err(|error| {
        tracing::error!(%error, "no token can be issued");
        TokenRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "not_signed")
    })?;
    let answer = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": service.tokens.lifetime_seconds,
        "scope": scope,
    });
    Ok((af.id().to_owned(), answer))
}

/// The parameters that matter, each at most once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenRequest {
    client_id: Option<String>,
    scope: Option<String>,
}

impl TokenRequest {
    fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, TokenRefusal> {
        let form = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        if !form {
            return Err(INVALID_REQUEST);
        }
        Self::parse_form(body)
    }

    /// Reads the form; parameters that are not known are passed over, as RFC 6749 clause 3.2 wants.
    pub(crate) fn parse_form(body: &[u8]) -> Result<Self, TokenRefusal> {
        let mut request = Self::default();
        let mut grant_type = None;
        for (name, value) in url::form_urlencoded::parse(body) {
            let place = match &*name {
                "grant_type" => &mut grant_type,
                "client_id" => &mut request.client_id,
                "scope" => &mut request.scope,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(INVALID_REQUEST);
            }
        }
        match grant_type.as_deref() {
            Some("client_credentials") => Ok(request),
            Some(_) => Err(TokenRefusal::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", "grant_type")),
            None => Err(INVALID_REQUEST),
        }
    }
}

/// Whether a body is an access token request that is understood (RFC 6749 clause 4.4.2); a client may yet be refused.
#[must_use]
pub fn is_token_request(body: &[u8]) -> bool {
    TokenRequest::parse_form(body).is_ok()
}

/// RFC 6749 clause 5.2.
#[derive(Debug)]
pub(crate) struct TokenRefusal {
    status: StatusCode,
    error: &'static str,
    /// For the audit.
    reason: &'static str,
    retry_after_seconds: Option<u32>,
}

impl TokenRefusal {
    const fn new(status: StatusCode, error: &'static str, reason: &'static str) -> Self {
        Self { status, error, reason, retry_after_seconds: None }
    }
}

impl IntoResponse for TokenRefusal {
    fn into_response(self) -> Response {
        let mut response = uncached(self.status, &json!({"error": self.error}));
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(http::header::RETRY_AFTER, too_many::header(seconds));
        }
        response
    }
}

fn uncached(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const INVALID_REQUEST: TokenRefusal = TokenRefusal::new(StatusCode::BAD_REQUEST, "invalid_request", "malformed");
const ACTION: &str = "oauth2-token";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn peer(certificate: [u8; 32]) -> PeerIdentity {
        PeerIdentity { certificate_sha256: Some(certificate), ..PeerIdentity::default() }
    }

    fn tokens(issuer: &str) -> Tokens {
        Tokens::open(&TokenConfig { issuer: issuer.to_owned(), ..TokenConfig::default() }).unwrap()
    }

    #[test]
    fn a_token_is_good_with_its_certificate_until_it_expires() {
        let tokens = tokens("nef");
        let token = tokens.issue("weather", "a b", &[7; 32], 1000).unwrap();
        let claims = tokens.verify(&token, &peer([7; 32]), 1599).unwrap();
        assert_eq!(claims.sub, "weather");
        assert_eq!(claims.scopes().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(tokens.verify(&token, &peer([7; 32]), 1600), Err("token_expired"));
        assert_eq!(tokens.verify(&token, &peer([8; 32]), 1000), Err("token_of_another"));
        assert_eq!(tokens.verify(&token, &PeerIdentity::default(), 1000), Err("token_of_another"));
    }

    #[test]
    fn a_token_of_another_key_or_issuer_is_refused() {
        let tokens = tokens("nef");
        let foreign = self::tokens("nef").issue("weather", "a", &[7; 32], 1000).unwrap();
        assert!(tokens.verify(&foreign, &peer([7; 32]), 1000).is_err());
        let pem = TokenSigner::generate_pem().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        let named = |issuer: &str| {
            let config =
                TokenConfig { key: Some(file.path().to_owned()), issuer: issuer.to_owned(), lifetime_seconds: 60 };
            Tokens::open(&config).unwrap()
        };
        let token = named("one").issue("weather", "a", &[7; 32], 1000).unwrap();
        named("one").verify(&token, &peer([7; 32]), 1000).unwrap();
        assert_eq!(named("two").verify(&token, &peer([7; 32]), 1000), Err("token_audience"));
    }

    #[test]
    fn a_request_names_its_grant_and_nothing_twice() {
        let parsed = |text: &str| TokenRequest::parse_form(text.as_bytes()).map_err(|refusal| refusal.error);
        let request = parsed("grant_type=client_credentials&client_id=a%20b&scope=x+y&other=1&other=2").unwrap();
        assert_eq!(request.client_id.as_deref(), Some("a b"));
        assert_eq!(request.scope.as_deref(), Some("x y"));
        assert_eq!(parsed(""), Err("invalid_request"));
        assert_eq!(parsed("grant_type=password"), Err("unsupported_grant_type"));
        for name in ["grant_type=client_credentials", "client_id=a", "scope=a"] {
            assert_eq!(parsed(&format!("grant_type=client_credentials&{name}&{name}")), Err("invalid_request"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_octets_make_the_form_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TokenRequest::parse_form(&body);
        }
    }
}
