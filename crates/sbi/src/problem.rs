//! Problem details: the one form every refusal takes (RFC 9457, TS 29.571 clause 5.2.4.1).

use std::fmt;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

/// Media type of [`ProblemDetails`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Protocol and application error causes shared by all service based interfaces (TS 29.500 table 5.2.7.2-1).
pub mod cause {
    /// 400: the payload is not what the media type says, or breaks the API's schema as a whole.
    pub const INVALID_MSG_FORMAT: &str = "INVALID_MSG_FORMAT";
    /// 400: a mandatory member of the payload, or a variable of the path, has a value the schema refuses.
    pub const MANDATORY_IE_INCORRECT: &str = "MANDATORY_IE_INCORRECT";
    /// 400: a mandatory member of the payload is not there.
    pub const MANDATORY_IE_MISSING: &str = "MANDATORY_IE_MISSING";
    /// 400: a mandatory query parameter has a value the schema refuses.
    pub const MANDATORY_QUERY_PARAM_INCORRECT: &str = "MANDATORY_QUERY_PARAM_INCORRECT";
    /// 400: a mandatory query parameter is not there.
    pub const MANDATORY_QUERY_PARAM_MISSING: &str = "MANDATORY_QUERY_PARAM_MISSING";
    /// 400: the query as a whole cannot be read.
    pub const INVALID_QUERY_PARAM: &str = "INVALID_QUERY_PARAM";
    /// 404: no resource of any API here has this path.
    pub const RESOURCE_URI_STRUCTURE_NOT_FOUND: &str = "RESOURCE_URI_STRUCTURE_NOT_FOUND";
    /// 429: more requests than this caller may send; `Retry-After` says when to come back.
    pub const NF_CONGESTION_RISK: &str = "NF_CONGESTION_RISK";
    /// 500: something went wrong inside that the caller can do nothing about.
    pub const SYSTEM_FAILURE: &str = "SYSTEM_FAILURE";
    /// 500: a table that would have to grow for this request is full.
    pub const INSUFFICIENT_RESOURCES: &str = "INSUFFICIENT_RESOURCES";
    /// 503: too much to do just now; `Retry-After` says when to come back.
    pub const NF_CONGESTION: &str = "NF_CONGESTION";
    /// 504: the request took longer than this server allows.
    pub const TIMED_OUT_REQUEST: &str = "TIMED_OUT_REQUEST";
}

/// One member, header or parameter that was wrong (TS 29.571 clause 5.2.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidParam {
    /// JSON pointer of a body member, `header <name>`, `query <name>`, or `{<variable>}` of the path.
    pub param: String,
    /// What is wrong with it. Never the value itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a request was not granted. Returned from a handler it becomes the response, with its status and
/// [`PROBLEM_JSON`]; received by [`crate::SbiClient`] it becomes [`crate::SbiError::Problem`].
///
/// ```
/// use sbi::ProblemDetails;
/// let problem = ProblemDetails::forbidden("AF_NOT_ALLOWED").with_detail("this AF_ID belongs to another AF");
/// assert_eq!(problem.status, Some(403));
/// assert_eq!(problem.cause.as_deref(), Some("AF_NOT_ALLOWED"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// URI of the kind of problem.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<Box<str>>,
    /// The kind of problem in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Box<str>>,
    /// The HTTP status code. Received ones carry the code of the response itself, whatever the body claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What happened this time, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<str>>,
    /// URI of this occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Box<str>>,
    /// What happened, for a program: one of [`cause`], or of the API at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Box<str>>,
    /// Which inputs were at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_params: Vec<InvalidParam>,
    /// Travels as the `Retry-After` header (RFC 9110 clause 10.2.3), in seconds.
    #[serde(skip)]
    pub retry_after_seconds: Option<u32>,
}

impl ProblemDetails {
    /// A problem that so far has only a status, and the status' reason phrase for a title.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status: Some(status.as_u16()), title: status.canonical_reason().map(Into::into), ..Self::default() }
    }

    /// 400 with a cause.
    #[must_use]
    pub fn bad_request(cause: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST).with_cause(cause)
    }

    /// 403 with a cause.
    #[must_use]
    pub fn forbidden(cause: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN).with_cause(cause)
    }

    /// 404 with a cause.
    #[must_use]
    pub fn not_found(cause: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND).with_cause(cause)
    }

    /// 500, cause SYSTEM_FAILURE. The reason belongs in the log, not in the answer.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR).with_cause(cause::SYSTEM_FAILURE)
    }

    /// 503, cause NF_CONGESTION, asking the caller back after `retry_after_seconds`.
    #[must_use]
    pub fn overloaded(retry_after_seconds: u32) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE).with_cause(cause::NF_CONGESTION);
        problem.retry_after_seconds = Some(retry_after_seconds);
        problem
    }

    /// 503 with a cause of its own, asking the caller back after `retry_after_seconds`: what this request needs is away, and
    /// other requests are served meanwhile.
    #[must_use]
    pub fn unavailable(cause: &str, retry_after_seconds: u32) -> Self {
        Self::overloaded(retry_after_seconds).with_cause(cause)
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_cause(mut self, cause: &str) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Sets the text for a person. It must hold no key, SUPI or payload.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds an input that was at fault; see [`InvalidParam::param`] for the form of `param`.
    #[must_use]
    pub fn with_invalid_param(mut self, param: impl Into<String>, reason: impl Into<String>) -> Self {
        self.invalid_params.push(InvalidParam { param: param.into(), reason: Some(reason.into()) });
        self
    }

    /// The status as a code; 500 where there is none or none that HTTP knows.
    #[must_use]
    pub fn status_code(&self) -> StatusCode {
        self.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the cause is `cause`.
    #[must_use]
    pub fn has_cause(&self, cause: &str) -> bool {
        self.cause.as_deref() == Some(cause)
    }
}

impl fmt::Display for ProblemDetails {
    /// Status and cause, which is what logs need; not the detail, which a stranger may have written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status_code().as_u16())?;
        match self.cause.as_deref() {
            Some(cause) => write!(f, " {}", cause.escape_default()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ProblemDetails {}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.status_code(), body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn members_are_spelled_as_in_29_571_and_absent_ones_are_left_out() {
        let problem = ProblemDetails::bad_request(cause::MANDATORY_IE_MISSING).with_invalid_param("/aKId", "missing");
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            serde_json::json!({
                "title": "Bad Request", "status": 400, "cause": "MANDATORY_IE_MISSING",
                "invalidParams": [{"param": "/aKId", "reason": "missing"}]
            })
        );
    }

    #[test]
    fn it_becomes_a_response_with_its_own_status_media_type_and_retry_after() {
        let response = ProblemDetails::overloaded(7).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
    }

    #[test]
    fn it_stays_small_enough_to_be_an_error_type() {
        assert!(size_of::<ProblemDetails>() < 128);
    }
}
