//! Whether a call of an API invoker passes.

use std::borrow::Cow;
use std::fmt;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use super::trust::{Trust, TrustedInvoker};
use super::{CapifInvoker, ExposedApi};
use crate::capif::identity::{CapifIdentity, Role};
use crate::capif::publish::SecurityMethod;
use crate::{PeerIdentity, ProblemDetails, PskPeer, audit};

/// Who a request's connection says it is.
pub(super) enum Claim {
    /// An API invoker, by certificate.
    Certificate(CapifIdentity),
    /// An API invoker, by AEF_PSK.
    Psk(String),
    /// A provider's function, which has no business with service APIs.
    Other(CapifIdentity),
}

impl Claim {
    /// `None` for whoever is no party to CAPIF.
    pub(super) fn of(request: &Request) -> Option<Self> {
        if let Some(PskPeer(id)) = request.extensions().get::<PskPeer>() {
            return Some(Self::Psk(id.clone()));
        }
        let identity = CapifIdentity::of(request.extensions().get::<PeerIdentity>()?)?;
        Some(if identity.role == Role::Invoker { Self::Certificate(identity) } else { Self::Other(identity) })
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Certificate(identity) | Self::Other(identity) => &identity.id,
            Self::Psk(id) => id,
        }
    }
}

impl fmt::Display for Claim {
    /// The subject in the audit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(identity) | Self::Other(identity) => identity.fmt(f),
            Self::Psk(id) => write!(f, "{} {id}", Role::Invoker.as_str()),
        }
    }
}

/// What the audit calls whoever shows this.
pub(super) fn subject_of(certificate: Option<&PeerIdentity>, psk: Option<&PskPeer>) -> String {
    let claim = match (certificate, psk) {
        (_, Some(PskPeer(id))) => Some(Claim::Psk(id.clone())),
        (certificate, None) => certificate.and_then(CapifIdentity::of).map(Claim::Other),
    };
    claim.map_or_else(|| certificate.map_or("unnamed", audit::subject).to_owned(), |claim| claim.to_string())
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
    if let Claim::Other(_) = claim {
        return Err(Refusal::Forbidden("NOT_AN_INVOKER"));
    }
    let api = api_of(apis, path).ok_or(Refusal::Forbidden("API_NOT_PUBLISHED"))?;
    let invoker = trust.of(claim.id()).await?;
    let kept = match keeps_method(trust, api, claim, bearer, &invoker) {
        // The invoker may have agreed on something else a moment ago: other APIs, or a method that wants no token.
        Err(_) if trust.doubt(claim.id()) => {
            let invoker = trust.of(claim.id()).await?;
            keeps_method(trust, api, claim, bearer, &invoker).map(|()| invoker)
        }
        kept => kept.map(|()| invoker),
    };
    let invoker = kept?;
    let policy = invoker.policy(api.name).ok_or(Refusal::Forbidden("ACCESS_DENIED_BY_POLICY"))?;
    trust.count(claim.id(), api.name, policy)?;
    let (id, names) = (claim.id().to_owned(), invoker.names().to_vec());
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
