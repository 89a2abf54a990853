//! One HTTP/2 connection that its user opens, sees the TLS session of, and closes by dropping it.
//!
//! [`crate::SbiClient`] pools connections and shows a certificate on each. An API invoker needs what that does not give: a
//! request without a certificate (onboarding), a form (tokens), the session that AEF_PSK is made of, and a connection by
//! AEF_PSK.

use std::time::Duration;

use akma::AefPsk;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use openssl::ssl::SslContext;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_openssl::SslStream;
use transport::capif::{Tls12Session, tls12_session};
use transport::connect_api_psk;
use transport::profile::client_session;

use crate::{ProblemDetails, SbiError, parse_json};

/// An open connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    requests: SendRequest<Full<Bytes>>,
    root: String,
    session: Option<Tls12Session>,
}

/// A request's body.
#[derive(Debug, Clone)]
pub enum Content {
    /// None.
    Empty,
    /// JSON.
    Json(Vec<u8>),
    /// A JSON merge patch.
    MergePatch(Vec<u8>),
    /// A form.
    Form(String),
}

impl Content {
    /// `value` as JSON.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when it cannot be written so.
    pub fn json<T: Serialize>(value: &T) -> Result<Self, SbiError> {
        serde_json::to_vec(value).map(Self::Json).map_err(|error| SbiError::InvalidRequest(error.to_string()))
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Where a created resource lives.
    pub location: Option<String>,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The answer, if it is a success.
    ///
    /// # Errors
    /// [`SbiError::Problem`] otherwise.
    pub fn success(self) -> Result<Self, SbiError> {
        if self.status.is_success() { Ok(self) } else { Err(SbiError::Problem(Box::new(self.problem()))) }
    }

    /// What a refusal says.
    #[must_use]
    pub fn problem(&self) -> ProblemDetails {
        let mut problem: ProblemDetails = serde_json::from_slice(&self.body).unwrap_or_default();
        problem.status = Some(self.status.as_u16());
        problem
    }

    /// The body of a success.
    ///
    /// # Errors
    /// [`SbiError::Problem`] for a refusal, [`SbiError::Malformed`] for another body.
    pub fn into_json<T: DeserializeOwned>(self) -> Result<T, SbiError> {
        let answer = self.success()?;
        parse_json(&answer.body).map_err(|problem| SbiError::Malformed(problem.to_string()))
    }
}

impl Connection {
    /// Opens a connection to the host of `root`, an `https` URI, whose certificate must carry that host.
    ///
    /// # Errors
    /// [`SbiError::InvalidUri`], [`SbiError::Unreachable`].
    pub async fn open(tls: &SslContext, root: &str) -> Result<Self, SbiError> {
        within(async {
            let (host, stream) = reach(root).await?;
            let session = client_session(tls, &host)?;
            let mut stream = SslStream::new(session, stream).map_err(unreachable)?;
            Pin::new(&mut stream).connect().await.map_err(unreachable)?;
            if stream.ssl().selected_alpn_protocol() != Some(b"h2") {
                return Err(SbiError::Unreachable("the peer does not speak HTTP/2".to_owned()));
            }
            let session = tls12_session(stream.ssl());
            Self::over(stream, root, session).await
        })
        .await
    }

    /// Opens a connection by AEF_PSK (TS 33.122 clause 6.5.2.1) as API invoker `identity`.
    ///
    /// # Errors
    /// [`SbiError::InvalidUri`], [`SbiError::Unreachable`].
    pub async fn open_psk(root: &str, identity: &str, key: &AefPsk) -> Result<Self, SbiError> {
        within(async {
            let (host, stream) = reach(root).await?;
            let stream = connect_api_psk(stream, &host, identity, key).await.map_err(unreachable)?;
            Self::over(stream, root, None).await
        })
        .await
    }

    async fn over<S>(stream: S, root: &str, session: Option<Tls12Session>) -> Result<Self, SbiError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(unreachable)?;
        // It ends when the sender is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(Self { requests, root: root.trim_end_matches('/').to_owned(), session })
    }

    /// The session, in TLS 1.2.
    #[must_use]
    pub fn tls12_session(&self) -> Option<&Tls12Session> {
        self.session.as_ref()
    }

    /// Sends a request for `path`, which begins with a slash and stands below the root; `bearer` goes into `Authorization`.
    ///
    /// # Errors
    /// [`SbiError::TimedOut`], [`SbiError::Unreachable`], [`SbiError::Malformed`] for an answer that is too long. A refusal
    /// is an [`Answer`].
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        content: Content,
    ) -> Result<Answer, SbiError> {
        let uri: Uri = format!("{}{path}", self.root).parse().map_err(|_| SbiError::InvalidUri)?;
        let mut request = Request::builder().method(method).uri(&uri).header(ACCEPT, "application/json");
        if let Some(token) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let (media_type, body) = match content {
            Content::Empty => (None, Vec::new()),
            Content::Json(body) => (Some("application/json"), body),
            Content::MergePatch(body) => (Some("application/merge-patch+json"), body),
            Content::Form(body) => (Some("application/x-www-form-urlencoded"), body.into_bytes()),
        };
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
        within(async {
            self.requests.ready().await.map_err(unreachable)?;
            let (parts, body) = self.requests.send_request(request).await.map_err(unreachable)?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|_| SbiError::Malformed("the body is too long, or broke off".to_owned()))?;
            let location = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok(Answer { status: parts.status, location, body: body.to_bytes() })
        })
        .await
    }
}

async fn reach(root: &str) -> Result<(String, TcpStream), SbiError> {
    let uri: Uri = root.parse().map_err(|_| SbiError::InvalidUri)?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or(SbiError::InvalidUri)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok((host, stream))
}

async fn within<T>(work: impl Future<Output = Result<T, SbiError>>) -> Result<T, SbiError> {
    timeout(PATIENCE, work).await.map_err(|_| SbiError::TimedOut)?
}

fn unreachable(error: impl std::fmt::Display) -> SbiError {
    SbiError::Unreachable(error.to_string())
}

/// Time to connect, and for each request.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1_048_576;
const HEADER_LIST_BYTES_MAX: u32 = 16_384;
