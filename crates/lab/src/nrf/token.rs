//! Nnrf_AccessToken (TS 29.510 clauses 5.4, 6.3; RFC 6749 clause 4.4; TS 33.501 clause 13.4.1.1.2).
//!
//! Who asks (assertion, else certificate) → is it who it says → is there such a producer → may its type use the service →
//! does the policy let it have the scope → a token for this producer, or for all of its type.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sbi::assertion::CLIENT_CREDENTIALS;
use sbi::nrf::{AccessTokenErr, AccessTokenReq, AccessTokenRsp, NFProfile, NFStatus, NFType, TokenErrorCode};
use sbi::token::{AccessTokenClaims, Audience};
use sbi::{Json, PeerIdentity, ProblemDetails};
use serde_json::Value;
use uuid::Uuid;

use super::policy::Verdict;
use super::{Nrf, identity};

/// How far the clocks of those who make assertions may differ from ours.
const LEEWAY_SECONDS: u64 = 10;
/// NF type that an assertion for us is meant for.
const NRF: &str = "NRF";
const FORM: &str = "application/x-www-form-urlencoded";

pub(super) async fn token(
    State(nrf): State<Arc<Nrf>>,
    Extension(peer): Extension<PeerIdentity>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM) {
        return ProblemDetails::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .with_invalid_param("header Content-Type", "must be application/x-www-form-urlencoded")
            .into_response();
    }
    let subject = sbi::audit::subject(&peer);
    let mut response = match nrf.decide(&peer, &headers, &body) {
        Ok(granted) => {
            nrf.audit.allowed(subject, ACTION, "token");
            Json(granted).into_response()
        }
        Err(TokenRefusal::Refused(refusal)) => {
            nrf.audit.refused(subject, ACTION, refusal.error.as_str());
            tracing::info!(
                target: "security", subject, error = refusal.error.as_str(), reason = refusal.error_description,
                "no access token"
            );
            (StatusCode::BAD_REQUEST, Json(refusal)).into_response()
        }
        Err(TokenRefusal::Fault) => ProblemDetails::internal().into_response(),
    };
    // RFC 6749 clause 5.1.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The public key, for producers that are not configured with the file.
pub(super) async fn keys(State(nrf): State<Arc<Nrf>>) -> Json<Value> {
    Json(nrf.signer.jwks())
}

enum TokenRefusal {
    Refused(AccessTokenErr),
    /// Ours.
    Fault,
}

impl From<AccessTokenErr> for TokenRefusal {
    fn from(refusal: AccessTokenErr) -> Self {
        Self::Refused(refusal)
    }
}

impl Nrf {
    fn decide(&self, peer: &PeerIdentity, headers: &HeaderMap, body: &[u8]) -> Result<AccessTokenRsp, TokenRefusal> {
        let request = AccessTokenReq::parse(body)?;
        if let Some(other) = request.others.first() {
            return Err(invalid(&format!("{other} is not supported")).into());
        }
        for plmn in [&request.requester_plmn, &request.target_plmn].into_iter().flatten() {
            if self.plmn.as_ref() != Some(plmn) {
                return Err(invalid("another PLMN").into());
            }
        }
        let requester = self.requester(peer, headers, &request)?;
        self.check_scopes(&request, &requester)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let audience = match (request.target_nf_instance_id, &request.target_nf_type) {
            (Some(id), _) => Audience::Instances(vec![id.to_string()]),
            (None, Some(nf_type)) => Audience::NfType(nf_type.to_string()),
            (None, None) => return Err(invalid("targetNfType or targetNfInstanceId is needed").into()),
        };
        let scope = request.scope.join(" ");
        let mut claims = AccessTokenClaims::new(
            self.nf_instance_id.to_string(),
            request.nf_instance_id.to_string(),
            audience,
            scope.clone(),
            now.saturating_add(self.token_lifetime_seconds),
        );
        claims.producer_nf_set_id = request.target_nf_set_id;
        claims.consumer_plmn_id = request.requester_plmn;
        claims.producer_plmn_id = request.target_plmn;
        let access_token = self.signer.sign(&claims).map_err(|error| {
            tracing::error!(%error, "a token could not be signed");
            TokenRefusal::Fault
        })?;
        Ok(AccessTokenRsp {
            access_token,
            token_type: "Bearer".to_owned(),
            expires_in: Some(self.token_lifetime_seconds),
            scope: Some(scope),
        })
    }

    /// The type of who asks, which has proven to be who the request says.
    fn requester(
        &self,
        peer: &PeerIdentity,
        headers: &HeaderMap,
        request: &AccessTokenReq,
    ) -> Result<NFType, AccessTokenErr> {
        let own = |id: Option<&str>| id.and_then(|id| id.parse::<Uuid>().ok()) == Some(request.nf_instance_id);
        let asserted = headers.get(&CLIENT_CREDENTIALS);
        match asserted {
            Some(assertion) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let text = assertion.to_str().map_err(|_| client("the assertion is no text"))?;
                let claims = self
                    .assertions
                    .verify(text, NRF, now, LEEWAY_SECONDS)
                    .map_err(|refusal| client(&format!("the assertion is refused: {}", refusal.reason())))?;
                if !own(Some(&claims.sub)) {
                    return Err(client("nfInstanceId is not that of the assertion"));
                }
            }
            None if own(peer.nf_instance_id.as_deref()) => {}
            None => return Err(client("nfInstanceId is not that of the certificate")),
        }
        let profile = self.registry().get(request.nf_instance_id).map(|kept| kept.profile);
        // The connection's certificate speaks for whoever it belongs to.
        let certificate = own(peer.nf_instance_id.as_deref()).then_some(peer);
        if let Some(fqdn) = &request.requester_fqdn {
            let certified = certificate.is_some_and(|peer| peer.dns_names.iter().any(|n| n.eq_ignore_ascii_case(fqdn)));
            let registered = profile.as_ref().is_some_and(|profile| profile.fqdn.as_ref() == Some(fqdn));
            if !certified && !registered {
                return Err(client("requesterFqdn is neither certified nor registered"));
            }
        }
        let is = |nf_type: &NFType| {
            certificate.is_some_and(|peer| identity::has_type(peer, nf_type))
                || profile.as_ref().is_some_and(|profile| profile.nf_type == *nf_type)
        };
        match &request.nf_type {
            Some(nf_type) if is(nf_type) => Ok(nf_type.clone()),
            Some(_) => Err(client("nfType is neither certified nor registered")),
            None => profile
                .as_ref()
                .map(|profile| profile.nf_type.clone())
                .or_else(|| only_type(certificate?))
                .ok_or_else(|| invalid("nfType is needed")),
        }
    }

    fn check_scopes(&self, request: &AccessTokenReq, requester: &NFType) -> Result<(), AccessTokenErr> {
        if request.target_nf_type.is_none() && request.target_nf_instance_id.is_none() {
            return Err(invalid("targetNfType or targetNfInstanceId is needed"));
        }
        for scope in &request.scope {
            let service = scope.split(':').next().unwrap_or_default();
            let operation = scope != service;
            let offered = self.offered(request, requester, service, operation.then_some(scope));
            if offered == Offer::None {
                return Err(TokenErrorCode::InvalidScope.because("no such producer offers the service to this NF type"));
            }
            match self.policy.of_scope(scope, requester, request.nf_instance_id) {
                Verdict::Allowed => {}
                Verdict::Silent if !operation || offered == Offer::Operation => {}
                _ => return Err(TokenErrorCode::InvalidScope.because("the policy does not allow the scope")),
            }
        }
        Ok(())
    }

    /// What the producers that the request means offer `requester`.
    fn offered(
        &self,
        request: &AccessTokenReq,
        requester: &NFType,
        service: &str,
        operation: Option<&String>,
    ) -> Offer {
        let meant = |profile: &&NFProfile| {
            profile.nf_status == NFStatus::Registered
                && request.target_nf_type.as_ref().is_none_or(|wanted| *wanted == profile.nf_type)
                && request.target_nf_instance_id.is_none_or(|wanted| wanted == profile.nf_instance_id)
                && request.target_nf_set_id.as_ref().is_none_or(|set| is_listed(profile.rest.get("nfSetIdList"), set))
        };
        let registry = self.registry();
        let mut offer = Offer::None;
        for profile in registry.profiles().filter(meant) {
            for found in profile.services().filter(|found| found.service_name == service) {
                if !profile.service_allows(found, requester) {
                    continue;
                }
                offer = offer.max(Offer::Service);
                let by_type = found.rest.get("allowedOperationsPerNfType").and_then(|map| map.get(requester.as_str()));
                let id = request.nf_instance_id.to_string();
                let by_instance = found.rest.get("allowedOperationsPerNfInstance").and_then(|map| map.get(&id));
                if operation.is_some_and(|scope| is_listed(by_type, scope) || is_listed(by_instance, scope)) {
                    offer = Offer::Operation;
                }
            }
        }
        drop(registry);
        let configured = request.target_nf_set_id.is_none()
            && self
                .policy
                .producers(request.target_nf_type.as_ref(), request.target_nf_instance_id)
                .any(|producer| producer.offers(service, requester));
        if configured { offer.max(Offer::Service) } else { offer }
    }
}

/// How much of a service is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Offer {
    None,
    /// The service.
    Service,
    /// The service, and by the producer's own profile the operation.
    Operation,
}

fn is_listed(list: Option<&Value>, text: &str) -> bool {
    list.and_then(Value::as_array).is_some_and(|list| list.iter().any(|element| element == text))
}

fn only_type(peer: &PeerIdentity) -> Option<NFType> {
    match peer.nf_types.as_slice() {
        [only] => only.parse().ok(),
        _ => None,
    }
}

fn invalid(reason: &str) -> AccessTokenErr {
    TokenErrorCode::InvalidRequest.because(reason)
}

fn client(reason: &str) -> AccessTokenErr {
    TokenErrorCode::InvalidClient.because(reason)
}

/// The operation in audit events.
const ACTION: &str = "POST /oauth2/token";
