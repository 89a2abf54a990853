//! Why a request is refused before its handler sees it, and what the consumer is told (RFC 6750 clause 3).

use axum::response::{IntoResponse, Response};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};

use crate::problem::ProblemDetails;
use crate::token::TokenError;

/// Why.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// No token, and this peer needs one.
    TokenMissing,
    /// Credentials of another scheme than Bearer.
    Scheme,
    /// `Authorization` or the assertion's header is there twice.
    Repeated,
    /// Not visible ASCII.
    NotAToken,
    /// The token cannot be verified.
    Token(TokenError),
    /// `iss` is no trusted issuer.
    Issuer,
    /// `sub` is not the NF instance ID in the peer's certificate: another's token.
    Subject,
    /// `aud` is neither the producer's type nor its instance.
    Audience,
    /// The token is for another PLMN, slice or NF set.
    Restriction,
    /// The scope of the service or of the operation is not among the token's; what would do.
    Scope(String),
    /// `exp` has passed.
    Expired,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// The client credentials assertion cannot be verified, is for somebody else, has expired or lasts too long.
    Assertion(&'static str),
    /// The assertion is another's than the TLS peer's or the token's.
    AssertionOfAnother,
}

impl Refusal {
    /// One word, for audit events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::Scheme => "scheme_unknown",
            Self::Repeated => "header_repeated",
            Self::NotAToken => "token_malformed",
            Self::Token(error) => error.reason(),
            Self::Issuer => "token_issuer",
            Self::Subject => "token_subject",
            Self::Audience => "token_audience",
            Self::Restriction => "token_restriction",
            Self::Scope(_) => "token_scope",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Assertion(reason) => reason,
            Self::AssertionOfAnother => "assertion_of_another",
        }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Repeated => StatusCode::BAD_REQUEST,
            Self::Scope(_) | Self::Assertion(_) | Self::AssertionOfAnother => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The cause in problem details: the two of TS 29.500 table 5.2.7.2-1 where they fit, else the reason in capitals.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Assertion(_) => "CCA_VERIFICATION_FAILURE".to_owned(),
            Self::AssertionOfAnother => "TOKEN_CCA_MISMATCH".to_owned(),
            _ => self.reason().to_ascii_uppercase(),
        }
    }

    /// What the consumer gets: problem details and `WWW-Authenticate`, whose realm is the service.
    #[must_use]
    pub fn into_response(self, realm: &str) -> Response {
        let mut response = ProblemDetails::new(self.status()).with_cause(&self.cause()).into_response();
        if let Ok(challenge) = HeaderValue::try_from(self.challenge(realm)) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// The value of `WWW-Authenticate`. The error code is left out where no token was presented (RFC 6750 clause 3.1).
    fn challenge(&self, realm: &str) -> String {
        let challenge = format!(r#"Bearer realm="{realm}""#);
        match self {
            Self::TokenMissing | Self::Scheme | Self::Assertion(_) | Self::AssertionOfAnother => challenge,
            Self::Repeated => format!(r#"{challenge}, error="invalid_request""#),
            Self::Scope(wanted) => format!(r#"{challenge}, error="insufficient_scope", scope="{wanted}""#),
            _ => format!(r#"{challenge}, error="invalid_token""#),
        }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}
