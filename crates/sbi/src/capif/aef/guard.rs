//! Whether a call of an API invoker passes.

use std::borrow::Cow;
use std::fmt;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Extensions, HeaderValue, StatusCode};
use transport::LogThrottle;
use transport::profile::Authorities;

use super::trust::{Trust, TrustedInvoker};
use super::{CapifInvoker, ExposedApi};
use crate::capif::identity::{CapifIdentity, Role, Shown};
use crate::capif::publish::SecurityMethod;
use crate::{PeerIdentity, ProblemDetails, PskPeer, audit};

/// Who a request's connection says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// An API invoker, by certificate.
    Certificate(CapifIdentity),
    /// An API invoker, by AEF_PSK.
    Psk(String),
    /// A provider's function, which has no business with service APIs, or the core function.
    Other(CapifIdentity),
    /// A certificate of the CAPIF authority that names nobody; by what the audit calls it.
    Nobody(String),
    /// A certificate of another authority that says what only the CAPIF authority may say; by what the audit calls it.
    Impostor(String),
}

impl Claim {
    /// `None` for whoever is no party to CAPIF; `capif` is its authority.
    pub(super) fn of(extensions: &Extensions, capif: &Authorities) -> Option<Self> {
        if let Some(PskPeer(id)) = extensions.get::<PskPeer>() {
            return Some(Self::Psk(id.clone()));
        }
        let peer = extensions.get::<PeerIdentity>()?;
        let subject = || audit::subject(peer).to_owned();
        match Shown::of(peer, capif) {
            Shown::Nothing => None,
            Shown::Identity(identity) if identity.role == Role::Invoker => Some(Self::Certificate(identity)),
            Shown::Identity(identity) => Some(Self::Other(identity)),
            Shown::Nobody => Some(Self::Nobody(subject())),
            Shown::Impostor => {
                if let Some(unlogged) = IMPOSTOR.admit() {
                    tracing::warn!(target: "security", subject = audit::subject(peer), unlogged,
                        "a certificate with a CAPIF identity that the CAPIF authority has not issued");
                }
                Some(Self::Impostor(subject()))
            }
        }
    }

    /// The identity at the core function, of an invoker.
    pub(super) fn invoker_id(&self) -> Result<&str, Refusal> {
        match self {
            Self::Certificate(identity) => Ok(&identity.id),
            Self::Psk(id) => Ok(id),
            Self::Other(_) | Self::Nobody(_) => Err(Refusal::Forbidden("NOT_AN_INVOKER")),
            Self::Impostor(_) => Err(Refusal::Forbidden("NOT_OF_THE_CAPIF_AUTHORITY")),
        }
    }

    /// The name in the invocation log, of whoever has one at the core function.
    pub(super) fn logged_id(&self) -> Option<&str> {
        match self {
            Self::Certificate(identity) | Self::Other(identity) => Some(&identity.id),
            Self::Psk(id) => Some(id),
            Self::Nobody(_) | Self::Impostor(_) => None,
        }
    }

    /// That it is the core function.
    pub(super) fn must_be_the_core_function(&self) -> Result<(), Refusal> {
        match self {
            Self::Other(identity) if identity.role == Role::Core => Ok(()),
            Self::Impostor(_) => Err(Refusal::Forbidden("NOT_OF_THE_CAPIF_AUTHORITY")),
            _ => Err(Refusal::Forbidden("NOT_THE_CORE_FUNCTION")),
        }
    }
}

impl fmt::Display for Claim {
    /// The subject in the audit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(identity) | Self::Other(identity) => identity.fmt(f),
            Self::Psk(id) => write!(f, "{} {id}", Role::Invoker.as_str()),
            Self::Nobody(subject) | Self::Impostor(subject) => f.write_str(subject),
        }
    }
}

/// What the audit calls whoever comes with `claim`, or with none.
pub(super) fn subject_of(claim: Option<&Claim>, extensions: &Extensions) -> String {
    let certificate = || extensions.get::<PeerIdentity>().map_or("unnamed", audit::subject).to_owned();
    claim.map_or_else(certificate, ToString::to_string)
}

/// The API that `path` is below.
pub(super) fn api_of<'a>(apis: &'a [ExposedApi], path: &str) -> Option<&'a ExposedApi> {
    let name = path.strip_prefix('/')?.split('/').next()?;
    apis.iter().find(|api| api.name == name)
}

/// Whether the request passes, and as whom.
pub(super) async fn judge(
    trust: &Trust,
    apis: &[ExposedApi],
    claim: &Claim,
    path: &str,
    bearer: Option<&str>,
) -> Result<CapifInvoker, Refusal> {
    let id = claim.invoker_id()?;
    let api = api_of(apis, path).ok_or(Refusal::Forbidden("API_NOT_PUBLISHED"))?;
    let invoker = trust.of(id).await?;
    let kept = match keeps_method(trust, api, claim, bearer, &invoker) {
        // The invoker may have agreed on something else a moment ago: other APIs, or a method that wants no token.
        Err(_) if trust.doubt(id) => {
            let invoker = trust.of(id).await?;
            keeps_method(trust, api, claim, bearer, &invoker).map(|()| invoker)
        }
        kept => kept.map(|()| invoker),
    };
    let invoker = kept?;
    let policy = invoker.policy(api.name).ok_or(Refusal::Forbidden("ACCESS_DENIED_BY_POLICY"))?;
    trust.counts.count(id, api.name, policy).await?;
    let (id, names) = (id.to_owned(), invoker.names().to_vec());
    Ok(CapifInvoker { id, names, api_name: api.name.to_owned() })
}

/// Whether the call comes by a method that was agreed upon for the API.
fn keeps_method(
    trust: &Trust,
    api: &ExposedApi,
    claim: &Claim,
    bearer: Option<&str>,
    invoker: &TrustedInvoker,
) -> Result<(), Refusal> {
    let mut refusal = Refusal::Forbidden("API_NOT_ALLOWED");
    for method in invoker.methods(api.name) {
        let kept = match (method, claim) {
            (SecurityMethod::Psk, Claim::Psk(_)) => Ok(()),
            (SecurityMethod::Pki, Claim::Certificate(identity)) => certificate(invoker, identity),
            (SecurityMethod::Oauth, Claim::Certificate(identity)) => certificate(invoker, identity).and_then(|()| {
                let token = bearer.ok_or(Refusal::NoToken)?;
                trust.check_token(token, &identity.id, api.name)
            }),
            _ => Err(Refusal::Forbidden("OTHER_SECURITY_METHOD")),
        };
        match kept {
            Ok(()) => return Ok(()),
            Err(reason) => refusal = reason,
        }
    }
    Err(refusal)
}

fn certificate(invoker: &TrustedInvoker, identity: &CapifIdentity) -> Result<(), Refusal> {
    if invoker.has_certificate(&identity.serial) { Ok(()) } else { Err(Refusal::Forbidden("CERTIFICATE_REVOKED")) }
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer(request: &Request) -> Option<String> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim().to_owned())
}

/// Why a call does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 403, for this reason.
    Forbidden(&'static str),
    /// 401: the method is OAUTH, and there is no token.
    NoToken,
    /// 401: the token is none of the core function's, not this invoker's, or too old.
    InvalidToken(&'static str),
    /// 403: the token is for others.
    InsufficientScope,
    /// 429: more calls than the policy allows just now.
    TooMany,
    /// 503: the core function cannot be asked. Who cannot be checked is not let in.
    Unavailable,
}

impl Refusal {
    /// The reason in the audit: the cause in lower case, and of tokens what other producers say of them.
    pub(super) fn reason(self) -> Cow<'static, str> {
        match self {
            Self::Forbidden(cause) => cause.to_ascii_lowercase().into(),
            Self::InvalidToken(reason) => reason.into(),
            Self::NoToken => "token_missing".into(),
            Self::InsufficientScope => "token_scope".into(),
            Self::TooMany => "too_many_invocations".into(),
            Self::Unavailable => "core_function_unavailable".into(),
        }
    }

    pub(super) fn into_problem(self) -> ProblemDetails {
        match self {
            Self::Forbidden(cause) => ProblemDetails::forbidden(cause),
            Self::NoToken => ProblemDetails::new(StatusCode::UNAUTHORIZED).with_cause("NO_TOKEN"),
            Self::InvalidToken(_) => ProblemDetails::new(StatusCode::UNAUTHORIZED).with_cause("INVALID_TOKEN"),
            Self::InsufficientScope => ProblemDetails::forbidden("INSUFFICIENT_SCOPE"),
            Self::TooMany => {
                let mut problem = ProblemDetails::new(StatusCode::TOO_MANY_REQUESTS).with_cause("TOO_MANY_INVOCATIONS");
                problem.retry_after_seconds = Some(1);
                problem
            }
            Self::Unavailable => ProblemDetails::unavailable("CORE_FUNCTION_UNAVAILABLE", 1),
        }
    }
}

impl IntoResponse for Refusal {
    /// With the challenge of RFC 6750 clause 3 where a token is at fault.
    fn into_response(self) -> Response {
        let challenge = match self {
            Self::NoToken => Some("Bearer realm=\"capif\""),
            Self::InvalidToken(_) => Some("Bearer realm=\"capif\", error=\"invalid_token\""),
            Self::InsufficientScope => Some("Bearer realm=\"capif\", error=\"insufficient_scope\""),
            _ => None,
        };
        let mut response = self.into_problem().into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

static IMPOSTOR: LogThrottle = LogThrottle::new();
