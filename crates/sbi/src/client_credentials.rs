//! Access tokens by client credentials (RFC 6749 clause 4.4) from an authorization server outside the core: the token endpoint
//! of a NEF or of a CAPIF core function. The client is authenticated by its certificate (RFC 8705 clause 2.1).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::client::SbiClient;
use crate::error::SbiError;
use crate::problem::ProblemDetails;
use crate::token::TOKEN_BYTES_MAX;
use crate::token_source::{TokenSource, TokenTarget};

/// One client's token, kept while it is good. Whoever wants one while it is being asked for waits for the same.
pub struct ClientCredentials {
    http: SbiClient,
    endpoint: String,
    client_id: String,
    scope: Option<String>,
    kept: Mutex<Option<Kept>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Kept {
    token: Arc<str>,
    until: Instant,
}

/// RFC 6749 clause 5.1.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl ClientCredentials {
    /// A client `client_id` of the token endpoint at `endpoint`; `http` shows its certificate. Without a `scope` none is asked
    /// for, which leaves the choice to the authorization server.
    #[must_use]
    pub fn new(
        http: SbiClient,
        endpoint: impl Into<String>,
        client_id: impl Into<String>,
        scope: Option<String>,
    ) -> Self {
        Self {
            http,
            endpoint: endpoint.into(),
            client_id: client_id.into(),
            scope,
            kept: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn good(&self) -> Option<Arc<str>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|kept| Instant::now() < kept.until).map(|kept| Arc::clone(&kept.token))
    }

    fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials").append_pair("client_id", &self.client_id);
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.finish()
    }

    async fn fetch(&self) -> Result<Kept, SbiError> {
        let asked_at = Instant::now();
        let (parts, body) = self.http.post_form(&self.endpoint, self.form(), HeaderMap::new()).await?;
        if parts.status != StatusCode::OK {
            // 400 of a token endpoint (RFC 6749 clause 5.2) is about this client, and not about what it wanted to ask for.
            let status = if parts.status == StatusCode::BAD_REQUEST { StatusCode::UNAUTHORIZED } else { parts.status };
            return Err(SbiError::Problem(Box::new(ProblemDetails::new(status).with_cause("TOKEN_REFUSED"))));
        }
        let unusable = || SbiError::Malformed("no bearer token".to_owned());
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| unusable())?;
        let token = answer.access_token;
        let sound =
            !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(|octet| octet.is_ascii_graphic());
        if !sound || !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(unusable());
        }
        let lifetime =
            Duration::from_secs(answer.expires_in.unwrap_or(LIFETIME_UNSTATED_SECONDS).min(LIFETIME_SECONDS_MAX));
        // Out of use a little before it expires: it must still be good when it is seen.
        Ok(Kept { token: token.into(), until: asked_at + lifetime.saturating_sub(IN_HAND.min(lifetime / 4)) })
    }
}

impl TokenSource for ClientCredentials {
    fn token(&self, _: &TokenTarget, _: &str) -> BoxFuture<'_, Result<Arc<str>, SbiError>> {
        Box::pin(async move {
            if let Some(token) = self.good() {
                return Ok(token);
            }
            let _turn = self.turn.lock().await;
            if let Some(token) = self.good() {
                return Ok(token);
            }
            let fresh = self.fetch().await?;
            let token = Arc::clone(&fresh.token);
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
            Ok(token)
        })
    }

    fn rejected(&self, _: &TokenTarget, _: &str, token: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_some_and(|kept| *kept.token == *token) {
            *kept = None;
        }
    }
}

impl std::fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("endpoint", &self.endpoint)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// Of a token whose lifetime is not said.
const LIFETIME_UNSTATED_SECONDS: u64 = 60;
/// A token is asked for anew at least as often.
const LIFETIME_SECONDS_MAX: u64 = 86_400;
/// A token is not used when this, or a quarter of its lifetime, is left.
const IN_HAND: Duration = Duration::from_secs(5);
