//! The client side: HTTP/2 over mutual TLS, one connection per peer, shared by all requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use openssl::ssl::SslContext;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_openssl::SslStream;
use tower_service::Service;
use transport::profile::{CertificateFiles, client_session, mutual_tls_client};

use crate::error::SbiError;
use crate::extract::{is_json, parse_json};
use crate::problem::ProblemDetails;
use crate::token_source::{TokenSource, TokenUse, bearer, refuses_token};

/// What a client connects with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SbiClientConfig {
    /// Own certificate and key, and the authority server certificates must come from.
    pub tls: CertificateFiles,
    /// The limits; all have defaults.
    #[serde(default)]
    pub limits: ClientLimits,
}

/// Every limit of a client, and what the caller sees when it is hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// Time for TCP and TLS to a peer; then [`SbiError::Unreachable`].
    pub connect_timeout_milliseconds: u64,
    /// Time for a request in all, connecting and the answer's body included; then [`SbiError::TimedOut`].
    pub request_timeout_milliseconds: u64,
    /// Requests waiting for answers at once; one more gets [`SbiError::Overloaded`].
    pub requests_outstanding_max: usize,
    /// Octets of an answer's body; a longer one is [`SbiError::Malformed`].
    pub response_body_bytes_max: usize,
    /// Octets of an answer's header list; a longer one is [`SbiError::Malformed`].
    pub header_list_bytes_max: u32,
    /// How long a connection may stay unused before it is closed.
    pub idle_timeout_seconds: u64,
    /// Silence after which a peer is pinged.
    pub keepalive_interval_seconds: u64,
    /// Time for the answer to that ping; then the connection is closed and its requests fail.
    pub keepalive_timeout_seconds: u64,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_timeout_milliseconds: 2_000,
            request_timeout_milliseconds: 5_000,
            requests_outstanding_max: 1_024,
            response_body_bytes_max: 262_144,
            header_list_bytes_max: 16_384,
            idle_timeout_seconds: 90,
            keepalive_interval_seconds: 10,
            keepalive_timeout_seconds: 5,
        }
    }
}

/// A success answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbiResponse<T> {
    /// Its status, 2xx.
    pub status: StatusCode,
    /// The `Location` header, which says where a created resource lives.
    pub location: Option<String>,
    /// The body; `None` for 204 and other answers without one.
    pub body: Option<T>,
}

impl<T> SbiResponse<T> {
    /// The body, where the API promises one.
    ///
    /// # Errors
    /// [`SbiError::Malformed`] when there is none.
    pub fn into_body(self) -> Result<T, SbiError> {
        self.body.ok_or_else(|| SbiError::Malformed(format!("{} without a body", self.status.as_u16())))
    }
}

/// Sends JSON requests over pooled HTTP/2 connections. Cheap to clone; clones share connections and limits.
///
/// Redirections are not followed, nothing is retried except a request that was provably never sent, and, once and with a
/// fresh token, one whose token was refused as invalid.
#[derive(Debug, Clone)]
pub struct SbiClient {
    http: legacy::Client<Connector, Full<Bytes>>,
    outstanding: Arc<Semaphore>,
    limits: Arc<ClientLimits>,
    tokens: TokenUse,
}

impl SbiClient {
    /// A client that has not connected anywhere yet.
    ///
    /// # Errors
    /// [`SbiError::Tls`] for an unusable certificate, key or authority.
    pub fn new(config: SbiClientConfig) -> Result<Self, SbiError> {
        let limits = config.limits;
        let connector = Connector {
            tls: mutual_tls_client(&config.tls)?,
            connect_timeout: Duration::from_millis(limits.connect_timeout_milliseconds),
        };
        let http = legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(limits.idle_timeout_seconds))
            .http2_max_header_list_size(limits.header_list_bytes_max)
            .http2_keep_alive_interval(Duration::from_secs(limits.keepalive_interval_seconds))
            .http2_keep_alive_timeout(Duration::from_secs(limits.keepalive_timeout_seconds))
            .http2_keep_alive_while_idle(true)
            .build(connector);
        let outstanding = Arc::new(Semaphore::new(limits.requests_outstanding_max));
        Ok(Self { http, outstanding, limits: Arc::new(limits), tokens: TokenUse::default() })
    }

    /// The same client with tokens from `source` in the requests of services named by [`SbiClient::for_service`].
    #[must_use]
    pub fn with_tokens(self, source: Arc<dyn TokenSource>) -> Self {
        Self { tokens: self.tokens.with_source(source), ..self }
    }

    /// The same client for requests to producers of `nf_type` within `scope`; connections and limits are shared.
    /// Requests carry a token if there is a source of tokens. API clients call this; a client for notifications, which
    /// have no tokens (TS 33.501 clause 13.4.1), does not.
    #[must_use]
    pub fn for_service(&self, nf_type: &'static str, scope: &'static str) -> Self {
        Self { tokens: self.tokens.clone().for_service(nf_type, scope), ..self.clone() }
    }

    /// GET.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn get<T: DeserializeOwned>(&self, uri: &str) -> Result<SbiResponse<T>, SbiError> {
        self.exchange(Method::GET, uri, None).await
    }

    /// POST of a JSON body.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn post<B, T>(&self, uri: &str, body: &B) -> Result<SbiResponse<T>, SbiError>
    where
        B: Serialize + ?Sized + Sync,
        T: DeserializeOwned,
    {
        self.exchange(Method::POST, uri, Some(coded(body)?)).await
    }

    /// POST of a JSON body to a peer whose success says all: its answer's body, if any, may be of whatever media type.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn post_any<B>(&self, uri: &str, body: &B) -> Result<SbiResponse<Bytes>, SbiError>
    where
        B: Serialize + ?Sized + Sync,
    {
        let (parts, body) = self.send(Method::POST, uri, Some(coded(body)?)).await?;
        interpret(parts.status, &parts.headers, &body, |octets| Ok(Bytes::copy_from_slice(octets)))
    }

    /// PUT of a JSON body.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn put<B, T>(&self, uri: &str, body: &B) -> Result<SbiResponse<T>, SbiError>
    where
        B: Serialize + ?Sized + Sync,
        T: DeserializeOwned,
    {
        self.exchange(Method::PUT, uri, Some(coded(body)?)).await
    }

    /// PATCH of a JSON merge patch (RFC 7396).
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn patch<B, T>(&self, uri: &str, patch: &B) -> Result<SbiResponse<T>, SbiError>
    where
        B: Serialize + ?Sized + Sync,
        T: DeserializeOwned,
    {
        self.exchange(Method::PATCH, uri, Some(coded(patch)?)).await
    }

    /// POST of a form with further headers; the answer whatever its status, for APIs that refuse in their own way.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting and [`SbiError::Problem`].
    pub async fn post_form(
        &self,
        uri: &str,
        form: String,
        headers: HeaderMap,
    ) -> Result<(http::response::Parts, Bytes), SbiError> {
        let uri: Uri = uri.parse().map_err(|_| SbiError::InvalidUri)?;
        if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
            return Err(SbiError::InvalidUri);
        }
        let mut request = Request::builder().method(Method::POST).uri(uri).header(ACCEPT, ACCEPTED_MEDIA_TYPES);
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let mut request =
            request.body(Full::new(form.into())).map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
        request.headers_mut().extend(headers);
        let _slot = self.outstanding.try_acquire().map_err(|_| SbiError::Overloaded)?;
        let limit = Duration::from_millis(self.limits.request_timeout_milliseconds);
        timeout(limit, async {
            let response = self.http.request(request).await.map_err(request_error)?;
            self.read_body(response).await
        })
        .await
        .map_err(|_| SbiError::TimedOut)?
    }

    /// DELETE.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn delete<T: DeserializeOwned>(&self, uri: &str) -> Result<SbiResponse<T>, SbiError> {
        self.exchange(Method::DELETE, uri, None).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        body: Option<Bytes>,
    ) -> Result<SbiResponse<T>, SbiError> {
        let (parts, body) = self.send(method, uri, body).await?;
        interpret(parts.status, &parts.headers, &body, |octets| json_of(&parts.headers, octets))
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        body: Option<Bytes>,
    ) -> Result<(http::response::Parts, Bytes), SbiError> {
        let uri: Uri = uri.parse().map_err(|_| SbiError::InvalidUri)?;
        if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
            return Err(SbiError::InvalidUri);
        }
        let media_type = if method == Method::PATCH { MERGE_PATCH } else { "application/json" };
        let mut request = Request::builder().method(method).uri(uri).header(ACCEPT, ACCEPTED_MEDIA_TYPES);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| SbiError::InvalidRequest(error.to_string()))?;

        let _slot = self.outstanding.try_acquire().map_err(|_| SbiError::Overloaded)?;
        let limit = Duration::from_millis(self.limits.request_timeout_milliseconds);
        timeout(limit, async {
            let response = self.authorized(request).await?;
            self.read_body(response).await
        })
        .await
        .map_err(|_| SbiError::TimedOut)?
    }

    /// Sends the request with a token, if it is to have one; once more with a fresh one when that is refused as invalid.
    async fn authorized(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, SbiError> {
        let Some(token) = self.tokens.token().await? else {
            return self.http.request(request).await.map_err(request_error);
        };
        let with_token = |token: &str| {
            let mut request = request.clone();
            request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
            Ok::<_, SbiError>(request)
        };
        let response = self.http.request(with_token(&token)?).await.map_err(request_error)?;
        if !refuses_token(response.status(), response.headers()) {
            return Ok(response);
        }
        self.tokens.rejected(&token);
        match self.tokens.token().await? {
            Some(fresh) if fresh != token => self.http.request(with_token(&fresh)?).await.map_err(request_error),
            _ => Ok(response),
        }
    }

    async fn read_body(&self, response: Response<Incoming>) -> Result<(http::response::Parts, Bytes), SbiError> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.limits.response_body_bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                SbiError::Malformed("the body is longer than allowed".to_owned())
            } else {
                SbiError::Unreachable(format!("the answer broke off: {error}"))
            }
        })?;
        Ok((parts, body.to_bytes()))
    }
}

/// What a whole answer means; `read` makes sense of a body that comes with success.
fn interpret<T>(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    read: impl FnOnce(&[u8]) -> Result<T, SbiError>,
) -> Result<SbiResponse<T>, SbiError> {
    if !status.is_success() {
        return Err(SbiError::Problem(Box::new(problem_of(status, headers, body))));
    }
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = if status == StatusCode::NO_CONTENT || body.is_empty() { None } else { Some(read(body)?) };
    Ok(SbiResponse { status, location, body })
}

fn json_of<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, SbiError> {
    if !is_json(headers) {
        return Err(SbiError::Malformed("the body is not JSON by its media type".to_owned()));
    }
    parse_json(body).map_err(|problem| {
        SbiError::Malformed(format!(
            "{} {}",
            problem.cause.unwrap_or_default(),
            problem.invalid_params.first().map(|at| at.param.as_str()).unwrap_or_default()
        ))
    })
}

/// A refusal in problem details, or, from a peer that explains nothing, one made of the status alone.
fn problem_of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProblemDetails {
    let mut problem = if is_json(headers) { serde_json::from_slice(body).ok() } else { None }
        .unwrap_or_else(|| ProblemDetails::new(status));
    problem.status = Some(status.as_u16());
    problem.retry_after_seconds =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|value| value.trim().parse().ok());
    problem
}

fn coded<B: Serialize + ?Sized>(body: &B) -> Result<Bytes, SbiError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| SbiError::InvalidRequest(error.to_string()))
}

/// Tells a peer that is gone from one that talks nonsense.
fn request_error(error: legacy::Error) -> SbiError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut words = Vec::new();
    while let Some(cause) = source {
        words.push(cause.to_string());
        if let Some(protocol) = cause.downcast_ref::<h2::Error>()
            && protocol.is_library()
            && !protocol.is_io()
        {
            return SbiError::Malformed(format!("HTTP/2: {protocol}"));
        }
        source = cause.source();
    }
    SbiError::Unreachable(words.join(": "))
}

/// Opens one authenticated connection.
#[derive(Clone)]
struct Connector {
    tls: SslContext,
    connect_timeout: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("connect_timeout", &self.connect_timeout).finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsConnection>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        let limit = self.connect_timeout;
        Box::pin(async move {
            timeout(limit, connect(&tls, &uri)).await.map_err(|_| "no connection in time")?.map(TokioIo::new)
        })
    }
}

async fn connect(tls: &SslContext, uri: &Uri) -> Result<TlsConnection, Box<dyn std::error::Error + Send + Sync>> {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(HTTPS_PORT))).await?;
    stream.set_nodelay(true)?;
    let mut stream = SslStream::new(client_session(tls, host)?, stream)?;
    Pin::new(&mut stream).connect().await?;
    if stream.ssl().selected_alpn_protocol() != Some(b"h2") {
        return Err("the peer does not speak HTTP/2".into());
    }
    Ok(TlsConnection(stream))
}

/// A TLS stream that tells the pool that it carries HTTP/2.
struct TlsConnection(SslStream<TcpStream>);

impl Connection for TlsConnection {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

const ACCEPTED_MEDIA_TYPES: HeaderValue =
    HeaderValue::from_static("application/json, application/3gppHal+json, application/problem+json");
/// Media type of a merge patch (RFC 7396), the only one that the APIs here have for PATCH.
const MERGE_PATCH: &str = "application/merge-patch+json";
const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn json_headers() -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
    }

    /// What an API that answers with a number makes of an answer.
    fn number(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<SbiResponse<u32>, SbiError> {
        interpret(status, headers, body, |octets| json_of(headers, octets))
    }

    #[test]
    fn a_success_with_garbage_is_malformed() {
        let answer = number(StatusCode::OK, &json_headers(), b"{\"kaf\"");
        assert!(matches!(answer, Err(SbiError::Malformed(_))));
        let answer = number(StatusCode::OK, &HeaderMap::new(), b"7");
        assert!(matches!(answer, Err(SbiError::Malformed(_))));
    }

    #[test]
    fn a_promised_body_that_is_not_there_is_malformed() {
        let answer = number(StatusCode::OK, &json_headers(), b"").unwrap();
        assert!(matches!(answer.into_body(), Err(SbiError::Malformed(_))));
    }

    #[test]
    fn a_refusal_has_the_status_of_the_response_whatever_its_body_says() {
        let mut headers = json_headers();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
        for body in [&b"{\"status\":200,\"cause\":\"X\"}"[..], b"garbage", b"[]"] {
            let error = number(StatusCode::SERVICE_UNAVAILABLE, &headers, body).unwrap_err();
            let problem = error.problem().unwrap();
            assert_eq!(problem.status, Some(503));
            assert_eq!(problem.retry_after_seconds, Some(3));
            assert!(error.is_transient());
        }
    }

    #[test]
    fn a_redirection_is_a_refusal() {
        let error = number(StatusCode::TEMPORARY_REDIRECT, &HeaderMap::new(), b"").unwrap_err();
        assert_eq!(error.problem().unwrap().status, Some(307));
    }
}
