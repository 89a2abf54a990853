//! What a device is sent: as server-sent events (WHATWG HTML clause 9.2), or by long poll; and its acknowledgements.
//!
//! Each delivery is an event with an identifier. It stays, and comes again on the next connection, until the device answers
//! it by a request of its own: nothing that is only written to a connection counts as delivered.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use coap::Code;
use futures_util::stream::unfold;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use message::{DeliveryStatus, FailureCause, MessageResponse};
use sbi::{LongAnswer, ProblemDetails, cause};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, interval, timeout_at};

use super::Front;
use super::link::Command;
use super::outbox::{Event, Listener};
use super::requests::{Proven, Refused, require_json};
use super::status::response_of;

/// Content-Format of JSON.
const JSON: u16 = 50;

/// Octets of a stream of events that HTTP is given at once.
const PIECE_OCTETS_MAX: usize = 4096;

/// Octets of events that one long poll takes with it; the first one in any case.
const POLL_OCTETS_MAX: usize = 65_536;

const EVENT_STREAM: &str = "text/event-stream";

/// An event that is not there, or not any more: acknowledged, or taken back and on its way under another name.
const EVENT_NOT_WAITED_FOR: &str = "EVENT_NOT_WAITED_FOR";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Seconds.
    wait: Option<u64>,
}

/// `GET /{server.path}/events`
pub(super) async fn listen(State(front): State<Arc<Front>>, request: Request) -> Response {
    listened(&front, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn listened(front: &Arc<Front>, request: Request) -> Result<Response, Refused> {
    let Proven { device, origin, mut parts, .. } = front.proven(request).await?;
    let wish: Result<Query<Wish>, QueryRejection> = Query::from_request_parts(&mut parts, &()).await;
    let Ok(Query(Wish { wait })) = wish else {
        return Err(ProblemDetails::bad_request(cause::INVALID_QUERY_PARAM).into());
    };
    let streams = wants_stream(&parts.headers)?;
    let (outbox, granted) = oneshot::channel();
    front.hand_on(&device, origin, Command::Listen { outbox })?;
    // Whoever listens keeps its device known.
    let listener = match granted.await {
        Ok(Ok(outbox)) => outbox.listen(),
        Ok(Err(refusal)) => return Err(response_of(&refusal).into()),
        Err(_) => return Err(front.no_answer()),
    };
    if streams {
        return Ok(stream(front, listener));
    }
    let longest = front.limits.poll_wait();
    let wait = wait.map_or(longest, |seconds| longest.min(std::time::Duration::from_secs(seconds)));
    Ok(poll(listener, Instant::now() + wait).await)
}

/// Whether `Accept` wants server-sent events.
fn wants_stream(headers: &HeaderMap) -> Result<bool, Refused> {
    let mut ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| {
        value.split(',').filter_map(|range| range.split(';').next()).map(|range| range.trim().to_ascii_lowercase())
    });
    let first = ranges
        .find(|range| matches!(range.as_str(), EVENT_STREAM | "text/*" | "application/json" | "application/*" | "*/*"));
    match first.as_deref() {
        Some(EVENT_STREAM | "text/*") => Ok(true),
        None if headers.contains_key(ACCEPT) => Err(ProblemDetails::new(StatusCode::NOT_ACCEPTABLE).into()),
        _ => Ok(false),
    }
}

/// What a stream of events is made of.
struct Stream {
    listener: Listener,
    comments: Interval,
    rest: Bytes,
}

fn stream(front: &Front, listener: Listener) -> Response {
    let comments = interval(front.limits.comment_interval());
    let state = Stream { listener, comments, rest: Bytes::new() };
    let pieces = unfold(state, |mut state| async move {
        if state.rest.is_empty() {
            state.rest = tokio::select! {
                biased;
                event = state.listener.next() => written(&event?),
                // The first one at once, so that the device sees that it is heard.
                _ = state.comments.tick() => Bytes::from_static(b":\n\n"),
            };
        }
        let piece = state.rest.split_to(state.rest.len().min(PIECE_OCTETS_MAX));
        Some((Ok::<_, Infallible>(piece), state))
    });
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(LongAnswer);
    response
}

fn written(event: &Event) -> Bytes {
    let mut text = format!("id: {}\nevent: message\n", event.id).into_bytes();
    for line in event.body.split(|octet| matches!(octet, b'\n' | b'\r')) {
        text.extend_from_slice(b"data: ");
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.into()
}

/// Waits for an event, and takes those along that are there with it.
async fn poll(mut listener: Listener, until: Instant) -> Response {
    let Ok(Some(first)) = timeout_at(until, listener.next()).await else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let mut octets = first.body.len();
    let mut events = vec![first];
    while octets < POLL_OCTETS_MAX
        && let Some(event) = listener.next_now()
    {
        octets += event.body.len();
        events.push(event);
    }
    let mut text = b"{\"events\":[".to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        // The identifier is ours and needs no escaping; the body is JSON.
        text.extend_from_slice(format!("{{\"id\":\"{}\",\"message\":", event.id).as_bytes());
        text.extend_from_slice(&event.body);
        text.push(b'}');
    }
    text.extend_from_slice(b"]}");
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `POST /{server.path}/events/{id}`
pub(super) async fn acknowledge(State(front): State<Arc<Front>>, Path(id): Path<String>, request: Request) -> Response {
    acknowledged(&front, id, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn acknowledged(front: &Arc<Front>, id: String, request: Request) -> Result<Response, Refused> {
    let Proven { device, origin, parts, body } = front.proven(request).await?;
    let response = if body.is_empty() {
        coap::Response::new(Code::CHANGED)
    } else {
        require_json(&parts.headers)?;
        let said = MessageResponse::decode(&body, &front.core.decode_limits)
            .map_err(|error| ProblemDetails::bad_request(error.cause().as_str()))?;
        answer_of(&said, body)
    };
    let (taken, known) = oneshot::channel();
    front.hand_on(&device, origin, Command::Acknowledge { id, response, taken })?;
    if known.await.unwrap_or(false) {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(ProblemDetails::not_found(EVENT_NOT_WAITED_FOR).into())
    }
}

/// A MSGRESP as the answer to the session's request. A failure whose cause travels with 4.29 or 5.xx on CoAP says "not now"
/// here, too; any other says "never".
fn answer_of(said: &MessageResponse, body: Bytes) -> coap::Response {
    let cause = said.failure_cause.as_deref().and_then(|cause| cause.parse::<FailureCause>().ok());
    let code = cause.map(|cause| Code::from_octet(cause.coap_code()));
    let later = code.filter(|code| *code == Code::TOO_MANY_REQUESTS || code.class() == 5);
    match later.filter(|_| said.status == Some(DeliveryStatus::Failed)) {
        Some(code) => coap::Response::new(code),
        None => coap::Response::new(Code::CHANGED).with_content_format(JSON).with_payload(body),
    }
}
