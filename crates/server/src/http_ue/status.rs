//! CoAP's codes as HTTP's (RFC 8075 clause 7): one table.
//!
//! What the session answers to a request that it understood travels as it is (`MSGRESP` and its like, `application/json`);
//! where it names no more than a cause, that becomes the cause of problem details.

use axum::response::{IntoResponse, Response};
use coap::Code;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use sbi::ProblemDetails;
use serde_json::Value;

/// Each code that a session answers with. 4.01 is 403, because 401 announces a challenge (RFC 9110 clause 15.5.2), and the
/// device's proof was good.
const STATUSES: [(Code, StatusCode); 15] = [
    (Code::CREATED, StatusCode::CREATED),
    (Code::DELETED, StatusCode::OK),
    (Code::CHANGED, StatusCode::OK),
    (Code::CONTENT, StatusCode::OK),
    (Code::BAD_REQUEST, StatusCode::BAD_REQUEST),
    (Code::UNAUTHORIZED, StatusCode::FORBIDDEN),
    (Code::FORBIDDEN, StatusCode::FORBIDDEN),
    (Code::NOT_FOUND, StatusCode::NOT_FOUND),
    (Code::METHOD_NOT_ALLOWED, StatusCode::METHOD_NOT_ALLOWED),
    (Code::NOT_ACCEPTABLE, StatusCode::NOT_ACCEPTABLE),
    (Code::REQUEST_ENTITY_TOO_LARGE, StatusCode::PAYLOAD_TOO_LARGE),
    (Code::UNSUPPORTED_CONTENT_FORMAT, StatusCode::UNSUPPORTED_MEDIA_TYPE),
    (Code::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS),
    (Code::INTERNAL, StatusCode::INTERNAL_SERVER_ERROR),
    (Code::SERVICE_UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE),
];

pub(super) fn status_of(code: Code) -> StatusCode {
    let other = match code.class() {
        2 => StatusCode::OK,
        4 => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    STATUSES.iter().find(|(known, _)| *known == code).map_or(other, |(_, status)| *status)
}

/// The answer to a request that a session answered.
pub(super) fn response_of(answer: &coap::Response) -> Response {
    let status = status_of(answer.code);
    let asks_back = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let retry_after = answer.max_age.filter(|_| asks_back);
    if !status.is_success()
        && let Some(cause) = only_cause(&answer.payload)
    {
        let problem = ProblemDetails { retry_after_seconds: retry_after, ..ProblemDetails::new(status) };
        return cause.into_iter().fold(problem, |problem, cause| problem.with_cause(&cause)).into_response();
    }
    let mut response = (status, answer.payload.clone()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Whether this says nothing, or a cause and nothing else: then, the cause.
fn only_cause(payload: &[u8]) -> Option<Option<String>> {
    if payload.is_empty() {
        return Some(None);
    }
    let Ok(Value::Object(members)) = serde_json::from_slice(payload) else { return Some(None) };
    let cause = members.get(message::member::FAILURE_CAUSE).and_then(Value::as_str)?;
    (members.len() == 1).then(|| Some(cause.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use message::FailureCause;

    use super::*;

    #[test]
    fn every_cause_has_the_status_that_it_has_at_the_other_interface() {
        for cause in FailureCause::ALL {
            // These two never come from a session.
            if matches!(cause, FailureCause::AuthenticationExpired | FailureCause::NoAnswer) {
                continue;
            }
            let status = status_of(Code::from_octet(cause.coap_code()));
            assert_eq!(status.as_u16(), cause.http_status(), "{cause}");
        }
    }

    #[test]
    fn a_bare_cause_becomes_problem_details_and_an_answer_stays_what_it_is() {
        let payload = message::failure(&FailureCause::Overloaded);
        let answer = coap::Response::new(Code::SERVICE_UNAVAILABLE).with_payload(payload).with_max_age(7);
        let response = response_of(&answer);
        assert_eq!(response.headers()[CONTENT_TYPE], sbi::PROBLEM_JSON);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        let answer = coap::Response::new(Code::FORBIDDEN).with_payload(*b"{\"ueSvcId\":\"a\",\"failureCause\":\"X\"}");
        let response = response_of(&answer);
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
