//! Access tokens for a function's requests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::kept::Found;
use super::registration::{NrfClient, Shared, once};
use super::token_request::{AccessTokenReq, AccessTokenRsp, TokenErrorCode};
use crate::error::SbiError;
use crate::token_source::{TokenSource, TokenTarget};

impl TokenSource for NrfClient {
    fn token(&self, target: &TokenTarget, scope: &str) -> BoxFuture<'_, Result<Arc<str>, SbiError>> {
        let (key, request) = (key(target, scope), self.shared.request(target, scope));
        Box::pin(async move {
            let request = request?;
            let (found, turn) = self.shared.tokens.find(&key, tokio::time::Instant::now());
            // Good for a while yet: nobody waits while another is fetched.
            if let Found::Ageing(token) = found {
                if let Ok(turn) = turn.try_lock_owned() {
                    let shared = Arc::clone(&self.shared);
                    tokio::spawn(async move {
                        let _turn = turn;
                        shared.refresh(&key, &request).await;
                    });
                }
                return Ok(token);
            }
            once(&self.shared.tokens, &key, self.shared.wait(), async || self.shared.fetch(&request).await).await
        })
    }

    fn rejected(&self, target: &TokenTarget, scope: &str, token: &str) {
        self.shared.tokens.forget(&key(target, scope), tokio::time::Instant::now(), |kept| **kept == *token);
    }

    /// Fails closed: a producer that the NRF does not know, or does not let us use, gets nothing from us, unless the
    /// configuration says that its service's producers register nowhere. Whether they then want a token is theirs to say.
    fn go_without(&self, scope: &str, error: &SbiError) -> bool {
        let service = |scope: &str| scope.split(':').next().unwrap_or_default().to_owned();
        matches!(error, SbiError::NrfRefused { reason, .. } if reason == TokenErrorCode::InvalidScope.as_str())
            && scope.split(' ').all(|scope| self.shared.without_token.contains(&service(scope)))
    }
}

impl Shared {
    fn request(&self, target: &TokenTarget, scope: &str) -> Result<AccessTokenReq, SbiError> {
        let wrong = |_| SbiError::InvalidRequest("the target of a token is no NF type or instance".to_owned());
        let instance: Option<Uuid> = match &target.nf_instance_id {
            Some(id) => Some(id.parse().map_err(|_| wrong(()))?),
            None => None,
        };
        Ok(AccessTokenReq {
            nf_type: Some(self.nf_type.clone()),
            target_nf_type: Some(target.nf_type.parse().map_err(|_| wrong(()))?),
            target_nf_instance_id: instance,
            ..AccessTokenReq::new(self.nf_instance_id, scope)
        })
    }

    /// A token, when to fetch the next, and when it is no longer given out.
    async fn fetch(&self, request: &AccessTokenReq) -> Result<(Arc<str>, Duration, Duration), SbiError> {
        let answer = self.counted("token", self.api.token(request)).await?;
        let (refresh_after, lifetime) = self.periods(&answer)?;
        Ok((Arc::from(answer.access_token), refresh_after, lifetime))
    }

    async fn refresh(&self, key: &str, request: &AccessTokenReq) {
        match self.fetch(request).await {
            Ok((token, refresh_after, lifetime)) => {
                self.tokens.keep(key, token, refresh_after, lifetime, tokio::time::Instant::now());
            }
            // The one at hand is good yet; the next request tries again.
            Err(error) => tracing::warn!(%error, "a token was not renewed"),
        }
    }

    fn periods(&self, answer: &AccessTokenRsp) -> Result<(Duration, Duration), SbiError> {
        let token = &answer.access_token;
        let sound = !token.is_empty()
            && token.len() <= crate::token::TOKEN_BYTES_MAX
            && token.bytes().all(|octet| octet.is_ascii_graphic());
        if !sound || !answer.token_type.eq_ignore_ascii_case("Bearer") {
            return Err(SbiError::Malformed("no bearer token".to_owned()));
        }
        let given = answer.expires_in.unwrap_or(LIFETIME_UNSTATED_SECONDS);
        let seconds = given.min(self.limits.token_lifetime_max_seconds);
        // Out of use a little before it expires: it must still be good when the producer sees it.
        let lifetime = Duration::from_secs(seconds).saturating_sub(IN_HAND.min(Duration::from_secs(seconds) / 4));
        Ok((lifetime.mul_f64(REFRESH_AT), lifetime))
    }
}

fn key(target: &TokenTarget, scope: &str) -> String {
    // None of the three has a line break in it that the NRF would take.
    format!("{}\n{}\n{scope}", target.nf_type, target.nf_instance_id.as_deref().unwrap_or_default())
}

/// Of a token whose lifetime the NRF does not say.
const LIFETIME_UNSTATED_SECONDS: u64 = 60;
/// A token is not given out when this, or a quarter of its lifetime, is left.
const IN_HAND: Duration = Duration::from_secs(5);
/// The part of its use after which the next token is fetched.
const REFRESH_AT: f64 = 0.75;
