//! Who sends a request (TS 33.535 Annex B.1.2.2, RFC 7616 clause 3.4).
//!
//! ```text
//! no credentials ─▶ 401                     nonce not good ─▶ 401, stale (no key is asked for)
//! credentials ─▶ grammar ─▶ realm, target, protection ─▶ nonce ─▶ K_AF ─▶ digest ─▶ count ─▶ the device
//!                 400        401, 400, 401                403, 503   401      401, stale
//! ```
//!
//! An answer about a key that is not to be had carries no challenge, hence no realm, as B.1.2 has it. Nothing is kept of
//! whoever did not prove itself: look-ups are bounded per source and in all ([`transport::LookupLimits`]), nonces need no
//! memory, and counts are noted of what verified only.

use std::sync::Arc;
use std::time::SystemTime;

use akma::{AKid, Challenge, Covered, Credentials, DigestError, DigestPassword, Qop, UaProtocolId};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use sbi::{ProblemDetails, cause};
use tokio::time::Instant;
use transport::{KeyRequest, LogThrottle, LookupRefusal, ProvenKey};

use super::Front;
use super::devices::{Device, Origin};
use super::requests::Refused;

/// Causes of refusals: what a device can do about each stands in `docs/reference/https.md`.
const NOT_AUTHENTICATED: &str = "NOT_AUTHENTICATED";
const NONCE_NOT_GOOD: &str = "NONCE_NOT_GOOD";
const BODY_NOT_PROTECTED: &str = "BODY_NOT_PROTECTED";
const A_KID_NOT_KNOWN: &str = "A_KID_NOT_KNOWN";
const K_AF_EXPIRED: &str = "K_AF_EXPIRED";
const KEY_NOT_AVAILABLE: &str = "KEY_NOT_AVAILABLE";

/// Why a request is not its device's: a metric's label, and the words of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoCredentials,
    Malformed,
    OtherScheme,
    OtherRealm,
    OtherTarget,
    NotProtected,
    NonceNotGood,
    UnknownAKid,
    KeyExpired,
    KeyNotAvailable,
    WrongDigest,
    Replayed,
    TooMany,
}

impl Front {
    /// The device that sends this request, with this body.
    ///
    /// # Errors
    /// The answer, if it proves none.
    pub(super) async fn authenticate(
        &self,
        request: &Parts,
        body: &Bytes,
        origin: Origin,
    ) -> Result<Arc<Device>, Refused> {
        let outcome = self.prove(request, body, origin).await;
        self.metrics.authenticated(outcome.as_ref().err().map_or("proven", |refusal| refusal.label()));
        outcome.map_err(|refusal| {
            refusal.tell(origin);
            self.answer(refusal).into()
        })
    }

    async fn prove(&self, request: &Parts, body: &Bytes, origin: Origin) -> Result<Arc<Device>, Refusal> {
        let credentials = credentials_of(request)?;
        if credentials.realm != self.realm {
            return Err(Refusal::OtherRealm);
        }
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        if credentials.uri != target {
            return Err(Refusal::OtherTarget);
        }
        if self.body_integrity && !body.is_empty() && credentials.qop != Qop::AuthInt {
            return Err(Refusal::NotProtected);
        }
        let nonce = self.nonces.check(&credentials.nonce, Instant::now()).map_err(|_| Refusal::NonceNotGood)?;
        // What is no A-KID is known to nobody.
        let a_kid: AKid = credentials.username.parse().map_err(|_| Refusal::UnknownAKid)?;
        let known = self.key_of(&a_kid, origin).await?;
        let covered = Covered { method: request.method.as_str(), uri: target, body };
        if !credentials.verify(&DigestPassword::from(&known.k_af), &covered) {
            return Err(Refusal::WrongDigest);
        }
        let now = Instant::now();
        let device = self.devices.enter(&a_kid, now).map_err(|_| Refusal::TooMany)?;
        device.prove(known);
        if device.count(nonce, credentials.count, &self.nonces, now, self.limits.nonces_per_device_max) {
            Ok(device)
        } else {
            Err(Refusal::Replayed)
        }
    }

    /// K_AF of an A-KID: while the device has a session, which asks for the key again and ends with it, the one that the
    /// session has; without one the key server is asked, as for a new connection.
    async fn key_of(&self, a_kid: &AKid, origin: Origin) -> Result<ProvenKey, Refusal> {
        let device = self.devices.find(a_kid);
        let known = device.as_ref().and_then(|device| device.key_in_use());
        if let Some(known) = known.filter(|known| known.is_valid_at(SystemTime::now())) {
            return Ok(known);
        }
        let Some(keys) = &self.core.keys else { return Err(Refusal::KeyNotAvailable) };
        let request = KeyRequest { a_kid: a_kid.clone(), protocol: UaProtocolId::HTTP_DIGEST, source: origin.source };
        keys.resolve(request).await.map_err(|refusal| {
            let gone = matches!(refusal, LookupRefusal::Unknown | LookupRefusal::Expired);
            if let Some(device) = device.filter(|_| gone) {
                device.disprove();
            }
            match refusal {
                LookupRefusal::Unknown => Refusal::UnknownAKid,
                LookupRefusal::Expired => Refusal::KeyExpired,
                _ => Refusal::KeyNotAvailable,
            }
        })
    }

    fn answer(&self, refusal: Refusal) -> Response {
        let retry_after = self.core.limits.retry_after_seconds;
        match refusal {
            Refusal::Malformed | Refusal::OtherTarget => ProblemDetails::bad_request(cause::INVALID_MSG_FORMAT)
                .with_invalid_param("header Authorization", "malformed, or of another request target")
                .into_response(),
            Refusal::UnknownAKid => ProblemDetails::forbidden(A_KID_NOT_KNOWN).into_response(),
            Refusal::KeyExpired => ProblemDetails::forbidden(K_AF_EXPIRED).into_response(),
            Refusal::KeyNotAvailable => ProblemDetails::unavailable(KEY_NOT_AVAILABLE, retry_after).into_response(),
            Refusal::TooMany => ProblemDetails::overloaded(retry_after).into_response(),
            Refusal::NonceNotGood | Refusal::Replayed => self.challenge(NONCE_NOT_GOOD, true),
            Refusal::NotProtected => self.challenge(BODY_NOT_PROTECTED, false),
            Refusal::NoCredentials | Refusal::OtherScheme | Refusal::OtherRealm | Refusal::WrongDigest => {
                self.challenge(NOT_AUTHENTICATED, false)
            }
        }
    }

    /// 401 with a new nonce.
    fn challenge(&self, cause: &str, stale: bool) -> Response {
        let challenge = Challenge {
            realm: self.realm.clone(),
            nonce: self.nonces.issue(Instant::now()),
            qop: vec![Qop::AuthInt, Qop::Auth],
            stale,
        };
        let mut response = ProblemDetails::new(StatusCode::UNAUTHORIZED).with_cause(cause).into_response();
        // Realm, nonce and the rest are ours, and printable.
        if let Ok(value) = HeaderValue::try_from(challenge.to_string()) {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response
    }
}

fn credentials_of(request: &Parts) -> Result<Credentials, Refusal> {
    let mut values = request.headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::NoCredentials)?;
    if values.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let text = value.to_str().map_err(|_| Refusal::Malformed)?;
    Credentials::parse(text).map_err(|error| match error {
        DigestError::Malformed(_) | DigestError::Missing(_) => Refusal::Malformed,
        _ => Refusal::OtherScheme,
    })
}

impl Refusal {
    fn label(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::Malformed => "malformed",
            Self::OtherScheme => "other_scheme",
            Self::OtherRealm => "other_realm",
            Self::OtherTarget => "other_target",
            Self::NotProtected => "body_not_protected",
            Self::NonceNotGood => "nonce_not_good",
            Self::UnknownAKid => "a_kid_not_known",
            Self::KeyExpired => "k_af_expired",
            Self::KeyNotAvailable => "key_not_available",
            Self::WrongDigest => "wrong_digest",
            Self::Replayed => "replayed",
            Self::TooMany => "devices_max",
        }
    }

    /// A first request has no credentials, and every nonce grows old: these two are nobody's doing.
    fn tell(self, origin: Origin) {
        if matches!(self, Self::NoCredentials | Self::NonceNotGood) {
            return;
        }
        if let Some(unlogged) = REFUSED.admit() {
            tracing::warn!(
                target: "security", source = %origin.source, reason = self.label(), unlogged, "device over HTTPS refused"
            );
        }
    }
}

static REFUSED: LogThrottle = LogThrottle::new();
