//! Bodies of requests: when they are read, and how many may be on their way.
//!
//! ```text
//! at once: body ─▶ router                          peers that have proven themselves by their connection
//! once admitted: router ─▶ credentials ─▶ body     where a request's head says whether its sender may ask; whoever admits reads
//!                             │                     it, or the extractor of the handler (`Json`, `WholeBody`)
//!                             └ refused: answered without the body
//! ```
//!
//! A body that is awaited holds a place of its sender's, and has a time of its own. One that nobody looked at is not waited for:
//! the answer leaves, and what still comes is let pass for a moment, since HTTP/2 resets a stream that is answered before its
//! end (RFC 9113 clause 8.1), and some clients then drop the answer that says what is wrong.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;
use transport::LogThrottle;

use super::{Holder, ServerLimits};
use crate::metrics::ServerMetrics;
use crate::problem::{ProblemDetails, cause};
use crate::slots::{Slot, Slots};

/// When a server reads the bodies of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Before the router has the request.
    AtOnce,
    /// When something in the router has found that its sender may ask.
    OnceAdmitted,
}

/// What holds for all bodies of one server.
pub(super) struct Bodies {
    pub(super) reading: Reading,
    bytes_max: usize,
    time: Duration,
    retry_after_seconds: u32,
    awaited: Arc<Slots<Holder>>,
    passing: Arc<Slots<Holder>>,
    metrics: ServerMetrics,
}

/// A request's extension: where its body belongs.
#[derive(Clone)]
struct Whose {
    bodies: Arc<Bodies>,
    holder: Holder,
}

/// A request's extension: its body was read already.
#[derive(Clone, Copy)]
struct Read;

impl Bodies {
    pub(super) fn new(reading: Reading, limits: &ServerLimits, metrics: &ServerMetrics) -> Arc<Self> {
        Arc::new(Self {
            reading,
            bytes_max: limits.request_body_bytes_max,
            time: Duration::from_secs(limits.body_timeout_seconds),
            retry_after_seconds: limits.retry_after_seconds,
            awaited: Slots::new(limits.requests_max, limits.bodies_per_peer_max),
            passing: Slots::new(PASSING_MAX, PASSING_PER_PEER_MAX),
            metrics: metrics.clone(),
        })
    }

    /// The request with a body that nobody has read yet, which `holder` sends.
    pub(super) fn unread(self: &Arc<Self>, request: Request<Incoming>, holder: &Holder) -> Request<Body> {
        let whose = Whose { bodies: Arc::clone(self), holder: holder.clone() };
        // Whoever waits to be told to go on sends nothing that could pass.
        let awaits_word = request.headers().contains_key(EXPECT);
        let mut request = request.map(|incoming| {
            let unread = Unread { incoming: Some(incoming), whose: (!awaits_word).then(|| whose.clone()) };
            Body::new(Limited::new(unread, self.bytes_max))
        });
        request.extensions_mut().insert(whose);
        request
    }
}

/// Reads the body of a request whose head was found to be good.
///
/// # Errors
/// 413 if it is longer than the server takes, 429 with `Retry-After` if the sender has too many on their way, 408 if it does
/// not come in time, 400 if it breaks off.
pub async fn read_body(head: &Parts, body: Body) -> Result<Bytes, ProblemDetails> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if head.extensions.get::<Read>().is_some() {
        return collect(body).await;
    }
    let Some(Whose { bodies, holder }) = head.extensions.get::<Whose>().cloned() else {
        // It did not come through a server of this crate.
        return collect(Limited::new(body, ServerLimits::default().request_body_bytes_max)).await;
    };
    let Ok(_place) = bodies.awaited.take(holder) else {
        bodies.metrics.body_refused("bodies_per_peer_max");
        if let Some(unlogged) = TOO_MANY.admit() {
            tracing::warn!(target: "security", limit = "bodies_per_peer_max", unlogged, "request body refused at a limit");
        }
        let mut problem = ProblemDetails::new(StatusCode::TOO_MANY_REQUESTS).with_cause(cause::NF_CONGESTION_RISK);
        problem.retry_after_seconds = Some(bodies.retry_after_seconds);
        return Err(problem);
    };
    match timeout(bodies.time, collect(body)).await {
        Ok(read) => read,
        Err(_) => {
            bodies.metrics.body_refused("body_timeout_seconds");
            if let Some(unlogged) = TOO_SLOW.admit() {
                tracing::warn!(target: "security", limit = "body_timeout_seconds", unlogged, "request body refused at a limit");
            }
            Err(ProblemDetails::new(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

/// The request with its body read.
///
/// # Errors
/// As [`read_body`].
pub(crate) async fn whole(request: Request<Body>) -> Result<Request<Body>, ProblemDetails> {
    let (mut head, body) = request.into_parts();
    let octets = read_body(&head, body).await?;
    head.extensions.insert(Read);
    Ok(Request::from_parts(head, Body::from(octets)))
}

async fn collect<B>(body: B) -> Result<Bytes, ProblemDetails>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<axum::BoxError>,
{
    body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if is_too_long(error.into()) {
            ProblemDetails::new(StatusCode::PAYLOAD_TOO_LARGE)
        } else {
            ProblemDetails::bad_request(cause::INVALID_MSG_FORMAT)
        }
    })
}

fn is_too_long(error: axum::BoxError) -> bool {
    match error.downcast::<axum::Error>() {
        Ok(error) => error.into_inner().is::<LengthLimitError>(),
        Err(error) => error.is::<LengthLimitError>(),
    }
}

/// A body that is not read yet. Dropped so, what is left of it passes unread.
struct Unread {
    incoming: Option<Incoming>,
    /// Until somebody looks at it; none: nothing is to pass.
    whose: Option<Whose>,
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.whose = None;
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let (Some(incoming), Some(Whose { bodies, holder })) = (self.incoming.take(), self.whose.take()) else {
            return;
        };
        if incoming.is_end_stream() {
            return;
        }
        let (Ok(runtime), Ok(place)) = (Handle::try_current(), bodies.passing.take(holder)) else { return };
        runtime.spawn(pass(incoming, bodies.bytes_max, place));
    }
}

async fn pass(incoming: Incoming, bytes_max: usize, _place: Slot<Holder>) {
    let mut body = Limited::new(incoming, bytes_max);
    let passed = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever is slower gets its stream reset.
    let _ = timeout(PASSING_TIME, passed).await;
}

/// Bodies that pass unread at once; one more is cut off.
const PASSING_MAX: usize = 256;
/// The same, of one peer.
const PASSING_PER_PEER_MAX: usize = 16;
/// How long one may take to pass.
const PASSING_TIME: Duration = Duration::from_secs(2);

static TOO_MANY: LogThrottle = LogThrottle::new();
static TOO_SLOW: LogThrottle = LogThrottle::new();
