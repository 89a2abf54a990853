//! Extractors and responses that refuse in problem details, so that every function answers alike.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::objects::ObjectsOnly;
use crate::problem::{ProblemDetails, cause};
use crate::server::read_body;

/// A JSON body: extracted from a request, or returned as a response with `application/json`.
///
/// Extraction refuses with 415 (another media type), as [`WholeBody`], or 400 with cause
/// INVALID_MSG_FORMAT (not JSON), MANDATORY_IE_MISSING or MANDATORY_IE_INCORRECT, the last two naming the member.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// A response body of `application/3gppHal+json` (TS 29.501 clause 4.7.4), which resources with links use.
#[derive(Debug, Clone, Copy)]
pub struct HalJson<T>(pub T);

/// Query parameters; refuses with 400 and cause MANDATORY_QUERY_PARAM_MISSING or INVALID_QUERY_PARAM.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

/// Variables of the path; refuses with 400 and cause MANDATORY_IE_INCORRECT.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

/// A body of whatever kind. It is read when this is extracted, after all extractors before it: what these refuse is refused
/// without the body.
///
/// Extraction refuses as [`read_body`].
#[derive(Debug, Clone)]
pub struct WholeBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for WholeBody {
    type Rejection = ProblemDetails;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Self::Rejection> {
        let (head, body) = request.into_parts();
        read_body(&head, body).await.map(Self)
    }
}

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ProblemDetails;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        if !is_json(request.headers()) {
            return Err(ProblemDetails::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                .with_invalid_param("header Content-Type", "must be application/json"));
        }
        let WholeBody(body) = WholeBody::from_request(request, state).await?;
        parse_json(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        json_response(&self.0, "application/json")
    }
}

impl<T: Serialize> IntoResponse for HalJson<T> {
    fn into_response(self) -> Response {
        json_response(&self.0, HAL_JSON)
    }
}

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|rejection| {
            match missing_member(&rejection.body_text()) {
                Some(name) => ProblemDetails::bad_request(cause::MANDATORY_QUERY_PARAM_MISSING)
                    .with_invalid_param(format!("query {name}"), "missing"),
                None => ProblemDetails::bad_request(cause::INVALID_QUERY_PARAM),
            }
        })
    }
}

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        axum::extract::Path::<T>::from_request_parts(parts, state).await.map(|path| Self(path.0)).map_err(|_| {
            ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT).with_detail("in the resource's path")
        })
    }
}

/// Reads one JSON text into `T`, or says in problem details what is wrong with it. An array in the place of an object is
/// wrong, although serde would read it.
///
/// # Errors
/// 400 with cause INVALID_MSG_FORMAT, MANDATORY_IE_MISSING or MANDATORY_IE_INCORRECT. The answer names the member
/// by JSON pointer and never repeats a value.
pub fn parse_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, ProblemDetails> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(ObjectsOnly(&mut deserializer)).map_err(|error| {
        let pointer = json_pointer(error.path());
        json_problem(error.inner(), &pointer)
    })?;
    deserializer.end().map_err(|error| json_problem(&error, ""))?;
    Ok(value)
}

fn json_problem(error: &serde_json::Error, pointer: &str) -> ProblemDetails {
    if !error.is_data() {
        return ProblemDetails::bad_request(cause::INVALID_MSG_FORMAT).with_detail(format!(
            "not JSON from line {} column {} on",
            error.line(),
            error.column()
        ));
    }
    match missing_member(&error.to_string()) {
        Some(name) => ProblemDetails::bad_request(cause::MANDATORY_IE_MISSING)
            .with_invalid_param(format!("{pointer}/{name}"), "missing"),
        None => ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
            .with_invalid_param(pointer, "not as the API's schema has it"),
    }
}

/// serde tells a missing member only in words; a test holds it to them.
fn missing_member(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("missing field `")?;
    rest.split_once('`').map(|(name, _)| name)
}

fn json_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            // The name comes from the schema, except in a map, where the sender chose it: keep it short.
            Segment::Map { key } => {
                pointer.push('/');
                pointer.extend(key.chars().take(POINTER_SEGMENT_CHARS_MAX));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Whether the content is JSON by its media type, parameters aside (RFC 8259, RFC 6839 clause 3.1).
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}

fn json_response<T: Serialize>(value: &T, media_type: &'static str) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut response = body.into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            response
        }
        Err(error) => {
            tracing::error!(%error, "a response could not be coded");
            ProblemDetails::internal().into_response()
        }
    }
}

/// Media type of [`HalJson`].
const HAL_JSON: &str = "application/3gppHal+json";
/// Characters of a member name repeated in an answer.
const POINTER_SEGMENT_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outer {
        #[allow(dead_code)]
        inner_list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[allow(dead_code)]
        number: u8,
    }

    fn refusal(text: &str) -> ProblemDetails {
        parse_json::<Outer>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_missing_member_is_named_by_json_pointer() {
        let problem = refusal(r#"{"innerList":[{"number":1},{}]}"#);
        assert!(problem.has_cause(cause::MANDATORY_IE_MISSING));
        assert_eq!(problem.invalid_params[0].param, "/innerList/1/number");
    }

    #[test]
    fn a_wrong_value_is_named_and_not_repeated() {
        let problem = refusal(r#"{"innerList":[{"number":"secret"}]}"#);
        assert!(problem.has_cause(cause::MANDATORY_IE_INCORRECT));
        assert_eq!(problem.invalid_params[0].param, "/innerList/0/number");
        assert!(!serde_json::to_string(&problem).unwrap().contains("secret"));
    }

    #[test]
    fn what_is_not_json_is_an_invalid_format() {
        for text in ["", "{", "{\"innerList\":[]", "{\"innerList\":[]} x", "\u{feff}{}", "nul"] {
            assert!(refusal(text).has_cause(cause::INVALID_MSG_FORMAT), "{text:?}");
        }
    }

    #[test]
    fn a_member_given_twice_is_refused() {
        assert!(refusal(r#"{"innerList":[],"innerList":[]}"#).has_cause(cause::MANDATORY_IE_INCORRECT));
    }

    #[test]
    fn deep_nesting_is_refused_and_harms_nobody() {
        let deep = "[".repeat(100_000);
        assert!(parse_json::<serde_json::Value>(deep.as_bytes()).is_err());
    }

    #[test]
    fn json_is_told_by_its_media_type() {
        for (value, json) in [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("Application/JSON", true),
            ("application/3gppHal+json", true),
            ("text/json", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(is_json(&headers), json, "{value:?}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_json::<Outer>(&bytes);
        }
    }
}
