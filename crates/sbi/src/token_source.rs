//! Where a client's access tokens come from.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::error::SbiError;

/// For whom a token is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenTarget {
    /// NF type of the producer, for example `AANF`.
    pub nf_type: String,
    /// The one producer that is meant; `None` for all of the type.
    pub nf_instance_id: Option<String>,
}

/// Gets access tokens, and keeps them while they are good. An NRF's client is one.
pub trait TokenSource: Send + Sync {
    /// A token for requests to `target` within `scope`, which may be several, separated by spaces.
    ///
    /// # Errors
    /// Any [`SbiError`]: without a token the request is not sent.
    fn token(&self, target: &TokenTarget, scope: &str) -> BoxFuture<'_, Result<Arc<str>, SbiError>>;

    /// The producer has refused this token as invalid: it must not be given out again.
    fn rejected(&self, target: &TokenTarget, scope: &str, token: &str);

    /// Whether requests within `scope`, for which there is no token because of `error`, are sent without one. Else they are
    /// not sent.
    fn go_without(&self, _scope: &str, _error: &SbiError) -> bool {
        false
    }
}

/// What a client does about tokens: nothing, until it has both a source and a service.
#[derive(Clone, Default)]
pub(crate) struct TokenUse {
    source: Option<Arc<dyn TokenSource>>,
    service: Option<(TokenTarget, &'static str)>,
}

impl TokenUse {
    pub(crate) fn with_source(mut self, source: Arc<dyn TokenSource>) -> Self {
        self.source = Some(source);
        self
    }

    pub(crate) fn for_service(mut self, nf_type: &'static str, scope: &'static str) -> Self {
        self.service = Some((TokenTarget { nf_type: nf_type.to_owned(), nf_instance_id: None }, scope));
        self
    }

    /// A token for the next request, if it is to have one: whether it may go without is for the source to say.
    pub(crate) async fn token(&self) -> Result<Option<Arc<str>>, SbiError> {
        let (Some(source), Some((target, scope))) = (&self.source, &self.service) else { return Ok(None) };
        match source.token(target, scope).await {
            Err(error) if source.go_without(scope, &error) => {
                tracing::debug!(nf_type = %target.nf_type, scope, %error, "the request goes without a token");
                Ok(None)
            }
            token => token.map(Some),
        }
    }

    pub(crate) fn rejected(&self, token: &str) {
        if let (Some(source), Some((target, scope))) = (&self.source, &self.service) {
            source.rejected(target, scope, token);
        }
    }
}

impl std::fmt::Debug for TokenUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let service = self.service.as_ref().map(|(target, scope)| (&target.nf_type, scope));
        f.debug_struct("TokenUse").field("source", &self.source.is_some()).field("service", &service).finish()
    }
}

/// The `Authorization` header with a bearer token (RFC 6750 clause 2.1), hidden from Debug output.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, SbiError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| SbiError::InvalidRequest("the access token is no header value".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether an answer says that the token itself is at fault (RFC 6750 clause 3.1), so that a fresh one may help.
pub(crate) fn refuses_token(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::UNAUTHORIZED
        && headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .any(|challenge| challenge.to_str().is_ok_and(|challenge| challenge.contains(r#"error="invalid_token""#)))
}
