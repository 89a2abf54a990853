//! What a device sends: the JSON of MSGin5G-1, each message in a POST of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use message::{FailureCause, UeMessage};
use sbi::{DeviceTls, ProblemDetails, read_body};
use tokio::sync::oneshot;

use super::Front;
use super::devices::{Device, NotTaken, Origin};
use super::link::{Change, Command};
use super::status::response_of;

/// The link ended before there was an answer: the same request again, under the same Message ID, is safe.
const NO_ANSWER: FailureCause = FailureCause::NoAnswer;

/// An answer given before the end: boxed, because it is large for the error of a result.
#[derive(Debug)]
pub(super) struct Refused(Box<Response>);

impl From<Response> for Refused {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl From<ProblemDetails> for Refused {
    fn from(problem: ProblemDetails) -> Self {
        problem.into_response().into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// A request that proved whose it is.
pub(super) struct Proven {
    pub(super) device: Arc<Device>,
    pub(super) origin: Origin,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
}

/// `POST /{server.path}`
pub(super) async fn take(State(front): State<Arc<Front>>, request: Request) -> Response {
    taken(&front, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn taken(front: &Arc<Front>, request: Request) -> Result<Response, Refused> {
    let Proven { device, origin, parts, body } = front.proven(request).await?;
    require_json(&parts.headers)?;
    let change = match UeMessage::decode(&body, &front.core.decode_limits) {
        Ok(UeMessage::Registration(registration)) => {
            let again = registration.encode();
            Change::Register(registration.ue_service_id, again.into())
        }
        Ok(UeMessage::Deregistration(_)) => Change::Deregister,
        // What cannot be read is refused by the session, in its own words.
        _ => Change::Nothing,
    };
    let (answer, response) = oneshot::channel();
    front.hand_on(&device, origin, Command::Request { body, change, answer })?;
    match response.await {
        Ok(response) => Ok(response_of(&response)),
        Err(_) => Err(front.no_answer()),
    }
}

impl Front {
    /// Reads whose a request is, and in between its body, if its head is worth that.
    pub(super) async fn proven(&self, request: Request) -> Result<Proven, Refused> {
        let (parts, body) = request.into_parts();
        let Some(ConnectInfo(source)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
            return Err(ProblemDetails::internal().into());
        };
        let origin = Origin { source: source.ip(), tls: parts.extensions.get::<DeviceTls>().copied() };
        let claim = self.claim(&parts, origin)?;
        let body = read_body(&parts, body).await?;
        let device = self.authenticate(claim, &parts, &body, origin).await?;
        Ok(Proven { device, origin, parts, body })
    }

    pub(super) fn hand_on(
        self: &Arc<Self>,
        device: &Arc<Device>,
        origin: Origin,
        command: Command,
    ) -> Result<(), Refused> {
        device.send(self, origin, command).map_err(|not_taken| match not_taken {
            NotTaken::TooMany => {
                let mut problem =
                    ProblemDetails::new(StatusCode::TOO_MANY_REQUESTS).with_cause(FailureCause::TooMany.as_str());
                problem.retry_after_seconds = Some(self.core.limits.retry_after_seconds);
                problem.into()
            }
            NotTaken::NoKey => self.no_answer(),
        })
    }

    pub(super) fn no_answer(&self) -> Refused {
        ProblemDetails::unavailable(NO_ANSWER.as_str(), self.core.limits.retry_after_seconds).into()
    }
}

pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Refused> {
    let media_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    if media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let cause = FailureCause::ContentFormatNotSupported;
    Err(ProblemDetails::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).with_cause(cause.as_str()).into())
}
