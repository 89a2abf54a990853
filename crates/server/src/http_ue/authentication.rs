//! Who sends a request (TS 33.535 Annex B.1.2.2, RFC 7616 clause 3.4).
//!
//! ```text
//! no credentials ─▶ 401                     nonce not good ─▶ 401, stale (no key is asked for)
//! head: credentials ─▶ grammar ─▶ realm, target, protection ─▶ nonce ─▶ A-KID ─▶ body
//!                       400        401, 400, 401                403      408, 413, 429
//! body: ─▶ nonce's look-ups ─▶ K_AF ─▶ digest ─▶ count ─▶ the device
//!           401, stale          403, 429, 503   401   401, stale
//! ```
//!
//! What the head says is looked at before the body is read, which only `auth-int` needs: whoever has no nonce of ours, or names
//! nobody, sends its body in vain. An answer about a key that is not to be had carries no challenge, hence no realm, as B.1.2
//! has it. Nothing is kept of whoever did not prove itself, but how many keys were looked up in vain for one nonce: look-ups
//! are bounded by it, per source and in all ([`transport::LookupLimits`]), nonces need no other memory, and counts are noted of
//! what verified only.

use std::sync::Arc;
use std::time::SystemTime;

use akma::{AKid, Challenge, Covered, Credentials, DigestError, DigestPassword, Qop, UaProtocolId};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use sbi::{ProblemDetails, cause};
use tokio::time::Instant;
use transport::{FoundKey, KeyRequest, LogThrottle, LookupRefusal};

use super::Front;
use super::devices::{Device, Origin};
use super::nonce::Nonce;
use super::requests::Refused;

/// Causes of refusals: what a device can do about each stands in `docs/reference/https.md`.
const NOT_AUTHENTICATED: &str = "NOT_AUTHENTICATED";
const NONCE_NOT_GOOD: &str = "NONCE_NOT_GOOD";
const BODY_NOT_PROTECTED: &str = "BODY_NOT_PROTECTED";
const A_KID_NOT_KNOWN: &str = "A_KID_NOT_KNOWN";
const K_AF_EXPIRED: &str = "K_AF_EXPIRED";
const KEY_NOT_AVAILABLE: &str = "KEY_NOT_AVAILABLE";
const TOO_MANY_LOOKUPS: &str = "TOO_MANY_LOOKUPS";

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
    TooManyLookups,
    NonceUsedUp,
    WrongDigest,
    Replayed,
    TooMany,
}

/// What the head of a request says of its sender.
pub(super) struct Claim {
    credentials: Credentials,
    nonce: Nonce,
    a_kid: AKid,
}

impl Front {
    /// What this request's head claims, if it is worth the body.
    ///
    /// # Errors
    /// The answer, if it is not.
    pub(super) fn claim(&self, request: &Parts, origin: Origin) -> Result<Claim, Refused> {
        self.claimed(request).map_err(|refusal| self.refuse(refusal, origin))
    }

    /// The device that sends this request, with this body.
    ///
    /// # Errors
    /// The answer, if it proves none.
    pub(super) async fn authenticate(
        &self,
        claim: Claim,
        request: &Parts,
        body: &Bytes,
        origin: Origin,
    ) -> Result<Arc<Device>, Refused> {
        let proven = self.prove(claim, request, body, origin).await;
        let device = proven.map_err(|refusal| self.refuse(refusal, origin))?;
        self.metrics.authenticated("proven");
        Ok(device)
    }

    fn refuse(&self, refusal: Refusal, origin: Origin) -> Refused {
        self.metrics.authenticated(refusal.label());
        refusal.tell(origin);
        self.answer(refusal).into()
    }

    fn claimed(&self, request: &Parts) -> Result<Claim, Refusal> {
        let credentials = credentials_of(request)?;
        if credentials.realm != self.realm {
            return Err(Refusal::OtherRealm);
        }
        if credentials.uri != target_of(request) {
            return Err(Refusal::OtherTarget);
        }
        let announced = request.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        self.require_protection(announced, &credentials)?;
        let nonce = self.nonces.check(&credentials.nonce, Instant::now()).map_err(|_| Refusal::NonceNotGood)?;
        // What is no A-KID is known to nobody.
        let a_kid: AKid = credentials.username.parse().map_err(|_| Refusal::UnknownAKid)?;
        Ok(Claim { credentials, nonce, a_kid })
    }

    fn require_protection(&self, has_body: bool, credentials: &Credentials) -> Result<(), Refusal> {
        let unprotected = self.body_integrity && has_body && credentials.qop != Qop::AuthInt;
        if unprotected { Err(Refusal::NotProtected) } else { Ok(()) }
    }

    async fn prove(&self, claim: Claim, request: &Parts, body: &Bytes, origin: Origin) -> Result<Arc<Device>, Refusal> {
        let Claim { credentials, nonce, a_kid } = claim;
        // One without Content-Length may have come with a body all the same.
        self.require_protection(!body.is_empty(), &credentials)?;
        let protocol = self.ua_protocol.identifier(origin.tls.map_or(0, |tls| tls.suite));
        let found = self.key_of(&a_kid, protocol, nonce, origin).await?;
        let covered = Covered { method: request.method.as_str(), uri: target_of(request), body };
        if !credentials.verify(&DigestPassword::from(&found.key.k_af), &covered) {
            return Err(Refusal::WrongDigest);
        }
        let device = self.devices.enter(&a_kid, Instant::now()).map_err(|_| Refusal::TooMany)?;
        device.prove(found, protocol);
        if device.count(nonce, credentials.count, &self.nonces, self.limits.nonces_per_device_max) {
            self.nonces.proved(nonce);
            Ok(device)
        } else {
            Err(Refusal::Replayed)
        }
    }

    /// K_AF of an A-KID: while the device has a session, which asks for the key again and ends with it, the one that the
    /// session has; without one the key server is asked, as for a new connection.
    async fn key_of(
        &self,
        a_kid: &AKid,
        protocol: UaProtocolId,
        nonce: Nonce,
        origin: Origin,
    ) -> Result<FoundKey, Refusal> {
        let device = self.devices.find(a_kid);
        let known = device.as_ref().and_then(|device| device.key_in_use(protocol));
        if let Some(known) = known.filter(|known| known.key.is_valid_at(SystemTime::now())) {
            return Ok(known);
        }
        let Some(keys) = &self.core.keys else { return Err(Refusal::KeyNotAvailable) };
        if !self.nonces.looks_up(nonce, Instant::now()) {
            return Err(Refusal::NonceUsedUp);
        }
        let request = KeyRequest { a_kid: a_kid.clone(), protocol, source: origin.source };
        keys.resolve(request).await.map_err(|refusal| {
            let gone = matches!(refusal, LookupRefusal::Unknown | LookupRefusal::Expired);
            if let Some(device) = device.filter(|_| gone) {
                device.disprove();
            }
            match refusal {
                LookupRefusal::Unknown => Refusal::UnknownAKid,
                LookupRefusal::Expired => Refusal::KeyExpired,
                LookupRefusal::Busy => Refusal::TooManyLookups,
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
            Refusal::TooManyLookups => {
                let problem = ProblemDetails::new(StatusCode::TOO_MANY_REQUESTS).with_cause(TOO_MANY_LOOKUPS);
                ProblemDetails { retry_after_seconds: Some(retry_after), ..problem }.into_response()
            }
            Refusal::TooMany => ProblemDetails::overloaded(retry_after).into_response(),
            Refusal::NonceNotGood | Refusal::NonceUsedUp | Refusal::Replayed => self.challenge(NONCE_NOT_GOOD, true),
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

fn target_of(request: &Parts) -> &str {
    request.uri.path_and_query().map_or("/", |target| target.as_str())
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
            Self::TooManyLookups => "too_many_lookups",
            Self::NonceUsedUp => "lookups_per_nonce_max",
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
