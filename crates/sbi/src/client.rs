//! The client side: HTTP/2 over mutual TLS, connections shared by all requests.
//!
//! A request's way: slot → is its peer in a pause? → connection → answer → a redirection, if it is one, and again → what
//! the answer says of pauses.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use transport::profile::{CertificateFiles, ReloadingContext};
use transport::{Limit, LimitFault};

use crate::connections::Connections;
use crate::error::SbiError;
use crate::extract::{is_json, parse_json};
use crate::pauses::Pauses;
use crate::problem::ProblemDetails;
use crate::server::HEADER_LIST_BYTES;
use crate::token_source::{TokenSource, TokenUse, bearer, refuses_token};
use crate::{correlation, deadline, redirect, retry_after};

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
    /// Connections to one peer; more are opened only when their streams are all in use. Then requests wait for one.
    pub connections_per_peer_max: usize,
    /// How long a connection may stay unused before it is closed.
    pub idle_timeout_seconds: u64,
    /// Silence after which a peer is pinged.
    pub keepalive_interval_seconds: u64,
    /// Time for the answer to that ping; then the connection is closed and its requests fail.
    pub keepalive_timeout_seconds: u64,
    /// 307 and 308 that one request follows; with one more, it is [`SbiError::Redirected`]. 0: they are refusals.
    pub redirects_max: u32,
    /// Where they may lead besides the authority that was asked: `host` or `host:port`.
    pub redirect_authorities: Vec<String>,
    /// How long a peer is left alone at most that asks for it with 429 or 503 and `Retry-After`; requests meanwhile get
    /// [`SbiError::Paused`]. 0: it is not.
    pub pause_seconds_max: u32,
    /// How often certificate, key, authorities and CRL are looked at for changes.
    pub reload_interval_seconds: u64,
    /// Root of the SCP that all requests go through, `https://...`; they name their peer in `3gpp-Sbi-Target-apiRoot`.
    pub scp: Option<String>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_timeout_milliseconds: 2_000,
            request_timeout_milliseconds: 5_000,
            requests_outstanding_max: 1_024,
            response_body_bytes_max: 262_144,
            header_list_bytes_max: 16_384,
            connections_per_peer_max: 4,
            idle_timeout_seconds: 90,
            keepalive_interval_seconds: 10,
            keepalive_timeout_seconds: 5,
            redirects_max: 3,
            redirect_authorities: Vec::new(),
            pause_seconds_max: 30,
            reload_interval_seconds: 5,
            scp: None,
        }
    }
}

impl ClientLimits {
    /// The limit that makes no sense, and what it must be: with it no request would be answered.
    #[must_use]
    pub fn fault(&self) -> Option<LimitFault> {
        let scp = self.scp.as_deref().is_some_and(|root| absolute(root.trim_end_matches('/')).is_err());
        let unusable = scp.then(|| ("scp", "must be an https URI".to_owned()));
        unusable.or_else(|| {
            Limit::fault([
                Limit::milliseconds("connect_timeout_milliseconds", self.connect_timeout_milliseconds),
                Limit::milliseconds("request_timeout_milliseconds", self.request_timeout_milliseconds),
                Limit::count("requests_outstanding_max", self.requests_outstanding_max),
                Limit::count("response_body_bytes_max", self.response_body_bytes_max),
                Limit::within("header_list_bytes_max", self.header_list_bytes_max.into(), HEADER_LIST_BYTES),
                Limit::count("connections_per_peer_max", self.connections_per_peer_max),
                Limit::seconds("idle_timeout_seconds", self.idle_timeout_seconds),
                Limit::seconds("keepalive_interval_seconds", self.keepalive_interval_seconds),
                Limit::seconds("keepalive_timeout_seconds", self.keepalive_timeout_seconds),
                Limit::seconds("reload_interval_seconds", self.reload_interval_seconds),
            ])
        })
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

/// Sends JSON requests over pooled HTTP/2 connections. Cheap to clone; clones share connections, pauses and limits.
///
/// Nothing is sent twice, except what its peer provably did not look at, what a redirection sends elsewhere, and, once and
/// with a fresh token, what was refused for an invalid one.
#[derive(Debug, Clone)]
pub struct SbiClient {
    connections: Arc<Connections>,
    outstanding: Arc<Semaphore>,
    pauses: Arc<Pauses>,
    limits: Arc<ClientLimits>,
    scp: Option<Uri>,
    passes_correlation: bool,
    /// Requests go where others asked us to send to.
    callbacks: bool,
    tokens: TokenUse,
}

impl SbiClient {
    /// A client that has not connected anywhere yet.
    ///
    /// # Errors
    /// [`SbiError::Tls`] for an unusable certificate, key, authority or CRL; [`SbiError::InvalidUri`] for the SCP's root.
    pub fn new(config: SbiClientConfig) -> Result<Self, SbiError> {
        let limits = Arc::new(config.limits);
        let scp = limits.scp.as_deref().map(|root| absolute(root.trim_end_matches('/'))).transpose()?;
        let connections = Connections::new(ReloadingContext::client(config.tls)?, Arc::clone(&limits));
        Ok(Self {
            connections: Arc::new(connections),
            outstanding: Arc::new(Semaphore::new(limits.requests_outstanding_max)),
            pauses: Arc::default(),
            limits,
            scp,
            passes_correlation: false,
            callbacks: false,
            tokens: TokenUse::default(),
        })
    }

    /// The same client for peers inside the operator's domain: a request that is sent while another one is answered
    /// carries on its `3gpp-Sbi-Correlation-Info`, which may hold a SUPI.
    #[must_use]
    pub fn inside_domain(self) -> Self {
        Self { passes_correlation: true, ..self }
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

    /// The same client for notifications and other callbacks: its URIs come from others and were checked when they came. A
    /// redirection leads no further than below the URI that is asked, at the same authority, whatever
    /// [`ClientLimits::redirect_authorities`] says; and no token and no correlation information goes there.
    #[must_use]
    pub fn for_callbacks(&self) -> Self {
        Self { callbacks: true, passes_correlation: false, tokens: TokenUse::default(), ..self.clone() }
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
        self.exchange(Method::POST, uri, Some(json(body)?)).await
    }

    /// POST of a JSON body to a peer whose success says all: its answer's body, if any, may be of whatever media type.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn post_any<B>(&self, uri: &str, body: &B) -> Result<SbiResponse<Bytes>, SbiError>
    where
        B: Serialize + ?Sized + Sync,
    {
        let (parts, body) = self.send(Method::POST, uri, Some(json(body)?), HeaderMap::new()).await?;
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
        self.exchange(Method::PUT, uri, Some(json(body)?)).await
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
        self.exchange(Method::PATCH, uri, Some(Content::coded(MERGE_PATCH, patch)?)).await
    }

    /// PATCH of a JSON patch (RFC 6902).
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn patch_items<B, T>(&self, uri: &str, items: &B) -> Result<SbiResponse<T>, SbiError>
    where
        B: Serialize + ?Sized + Sync,
        T: DeserializeOwned,
    {
        self.exchange(Method::PATCH, uri, Some(Content::coded(JSON_PATCH, items)?)).await
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
        self.send(Method::POST, uri, Some(Content { media_type: FORM, octets: form.into() }), headers).await
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
        content: Option<Content>,
    ) -> Result<SbiResponse<T>, SbiError> {
        let (parts, body) = self.send(method, uri, content, HeaderMap::new()).await?;
        interpret(parts.status, &parts.headers, &body, |octets| json_of(&parts.headers, octets))
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        content: Option<Content>,
        headers: HeaderMap,
    ) -> Result<(http::response::Parts, Bytes), SbiError> {
        let outgoing = Outgoing { method, uri: absolute(uri)?, content, headers };
        let _slot = self.outstanding.try_acquire().map_err(|_| SbiError::Overloaded)?;
        let limit = Duration::from_millis(self.limits.request_timeout_milliseconds);
        timeout(limit, self.follow(outgoing, Instant::now() + limit)).await.map_err(|_| SbiError::TimedOut)?
    }

    /// Asks, and asks on where the answer sends us, with the same method and body.
    async fn follow(&self, mut outgoing: Outgoing, until: Instant) -> Result<(http::response::Parts, Bytes), SbiError> {
        let first = redirect::authority(&outgoing.uri).ok_or(SbiError::InvalidUri)?;
        let mut left = self.limits.redirects_max;
        loop {
            let (parts, body) = self.ask(&outgoing, until).await?;
            if self.limits.redirects_max == 0 {
                return Ok((parts, body));
            }
            let allowed = if self.callbacks { &[] } else { self.limits.redirect_authorities.as_slice() };
            let Some(next) = redirect::target(parts.status, &parts.headers, &outgoing.uri, &first, allowed)? else {
                return Ok((parts, body));
            };
            if self.callbacks && !redirect::is_below(&next, &outgoing.uri) {
                return Err(SbiError::Redirected("away from the URI that was checked".to_owned()));
            }
            left = left.checked_sub(1).ok_or_else(|| SbiError::Redirected("too often".to_owned()))?;
            tracing::debug!(status = parts.status.as_u16(), to = next.host(), "redirected");
            outgoing.uri = next;
        }
    }

    /// One request to one peer, unless that wants to be left alone.
    async fn ask(&self, outgoing: &Outgoing, until: Instant) -> Result<(http::response::Parts, Bytes), SbiError> {
        let authority = redirect::authority(&outgoing.uri).ok_or(SbiError::InvalidUri)?;
        if let Some(seconds) = self.pauses.of(&authority, Instant::now()) {
            return Err(SbiError::Paused { seconds });
        }
        let via = match &self.scp {
            Some(scp) => through(scp, &outgoing.uri)?,
            None => outgoing.uri.clone(),
        };
        let (parts, body) = self.authorized(outgoing, &via, until).await?;
        if matches!(parts.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let problem = problem_of(parts.status, &parts.headers, &body);
            self.pauses.heed(&authority, &problem, self.limits.pause_seconds_max, Instant::now());
        }
        Ok((parts, body))
    }

    /// Sends the request with a token, if it is to have one; once more with a fresh one when that is refused as invalid.
    async fn authorized(
        &self,
        outgoing: &Outgoing,
        via: &Uri,
        until: Instant,
    ) -> Result<(http::response::Parts, Bytes), SbiError> {
        let Some(token) = self.tokens.token().await? else {
            return self.once(outgoing, via, until, None).await;
        };
        let (parts, body) = self.once(outgoing, via, until, Some(&token)).await?;
        if !refuses_token(parts.status, &parts.headers) {
            return Ok((parts, body));
        }
        self.tokens.rejected(&token);
        match self.tokens.token().await? {
            Some(fresh) if fresh != token => self.once(outgoing, via, until, Some(&fresh)).await,
            _ => Ok((parts, body)),
        }
    }

    async fn once(
        &self,
        outgoing: &Outgoing,
        via: &Uri,
        until: Instant,
        token: Option<&str>,
    ) -> Result<(http::response::Parts, Bytes), SbiError> {
        let request = || {
            let mut request = self.request(outgoing, via, until)?;
            if let Some(token) = token {
                request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
            }
            Ok(request)
        };
        let (response, _in_flight) = self.connections.send(via, request).await?;
        self.read_body(response).await
    }

    fn request(&self, outgoing: &Outgoing, via: &Uri, until: Instant) -> Result<Request<Full<Bytes>>, SbiError> {
        let fault = |error: &dyn std::error::Error| SbiError::InvalidRequest(error.to_string());
        let octets = outgoing.content.as_ref().map(|content| content.octets.clone());
        let mut request = Request::builder()
            .method(outgoing.method.clone())
            .uri(via.clone())
            .header(ACCEPT, ACCEPTED_MEDIA_TYPES)
            .body(Full::new(octets.unwrap_or_default()))
            .map_err(|error| fault(&error))?;
        let headers = request.headers_mut();
        headers.extend(outgoing.headers.clone());
        if let Some(content) = &outgoing.content {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content.media_type));
        }
        if self.scp.is_some() {
            let root = format!("https://{}", outgoing.uri.authority().map_or("", http::uri::Authority::as_str));
            headers.insert(TARGET_API_ROOT, HeaderValue::try_from(root).map_err(|error| fault(&error))?);
        }
        if let Some(value) = correlation::current().filter(|_| self.passes_correlation) {
            headers.insert(correlation::CORRELATION_INFO, value);
        }
        deadline::tell(headers, OffsetDateTime::now_utc(), until.saturating_duration_since(Instant::now()));
        Ok(request)
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
pub(crate) fn interpret<T>(
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

pub(crate) fn json_of<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, SbiError> {
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
    problem.retry_after_seconds = retry_after::seconds(headers, SystemTime::now());
    problem
}

/// What is asked of whom, however it gets there.
struct Outgoing {
    method: Method,
    uri: Uri,
    content: Option<Content>,
    headers: HeaderMap,
}

/// A request's body and what it is.
struct Content {
    media_type: &'static str,
    octets: Bytes,
}

impl Content {
    fn coded<B: Serialize + ?Sized>(media_type: &'static str, body: &B) -> Result<Self, SbiError> {
        let octets = serde_json::to_vec(body).map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
        Ok(Self { media_type, octets: octets.into() })
    }
}

fn json<B: Serialize + ?Sized>(body: &B) -> Result<Content, SbiError> {
    Content::coded("application/json", body)
}

fn absolute(uri: &str) -> Result<Uri, SbiError> {
    let uri: Uri = uri.parse().map_err(|_| SbiError::InvalidUri)?;
    if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
        return Err(SbiError::InvalidUri);
    }
    Ok(uri)
}

/// The place at the SCP with root `scp` that stands for `uri` (TS 29.500 clause 6.10.2.5).
fn through(scp: &Uri, uri: &Uri) -> Result<Uri, SbiError> {
    let (root, path) = (scp.to_string(), uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str));
    format!("{}{path}", root.trim_end_matches('/')).parse().map_err(|_| SbiError::InvalidUri)
}

const ACCEPTED_MEDIA_TYPES: HeaderValue =
    HeaderValue::from_static("application/json, application/3gppHal+json, application/problem+json");
/// Media type of a merge patch (RFC 7396).
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Media type of a JSON patch (RFC 6902).
const JSON_PATCH: &str = "application/json-patch+json";
/// Media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";
/// The root of the API asked for, where somebody else is asked in its place (TS 29.500 clause 5.2.3.2.4).
const TARGET_API_ROOT: HeaderName = HeaderName::from_static("3gpp-sbi-target-apiroot");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::header::RETRY_AFTER;

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
