//! Whoever has not proven itself holds little of a server: its head is looked at before its body is waited for, its bodies are
//! counted and have a time, and answers that last end when they are not let out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod raw;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use openssl::ssl::Ssl;
use raw::{END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, frame};
use sbi::audit::Audit;
use sbi::authorization::{Authorizer, Producer};
use sbi::services::NAANF_AKMA;
use sbi::testing::TestAuthority;
use sbi::testing::tokens::TestIssuer;
use sbi::{LongAnswer, ProblemDetails, SbiServer, SbiServerConfig, ServerLimits, ServerMetrics, read_body};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use transport::profile::{CertificateFiles, mutual_tls_client};
use transport::testing::SecurityLog;

const SERVER: &str = "11111111-1111-4111-8111-111111111111";
const STRANGER: &str = "22222222-2222-4222-8222-222222222222";
const NRF: &str = "44444444-4444-4444-8444-444444444444";
const RETRIEVE: &str = "/naanf-akma/v1/retrieve-applicationkey";

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server for devices: `/message` takes a body from whoever says that it is good, `/events` has one event and then others every
/// second and a half, `/quiet` none at all.
struct Devices {
    authority: TestAuthority,
    server: SbiServer,
    metrics: ServerMetrics,
    /// A body is awaited.
    awaited: Arc<Notify>,
}

impl Devices {
    async fn start(limits: ServerLimits) -> Self {
        let authority = TestAuthority::new();
        let (awaited, metrics) = (Arc::new(Notify::new()), ServerMetrics::default());
        let router = Router::new()
            .route("/message", post(take))
            .route("/message", get(async || "here"))
            .route("/events", get(async || lasting(stream::once(async { EVENT }).chain(later()))))
            .route("/quiet", get(async || lasting(stream::pending())))
            .layer(Extension(Arc::clone(&awaited)));
        let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls: authority.issue(SERVER, &[]), limits };
        let stop = CancellationToken::new();
        let server = SbiServer::start_for_devices(config, router, stop, metrics.clone()).await.unwrap();
        Self { authority, server, metrics, awaited }
    }

    async fn connect(&self) -> http2::SendRequest<Body> {
        connect(self.server.local_addr(), &self.authority.issue(STRANGER, &[])).await
    }

    fn counted(&self, line: &str) -> bool {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.contains(line)
    }
}

const EVENT: Bytes = Bytes::from_static(b"data: {}\n\n");

async fn take(Extension(awaited): Extension<Arc<Notify>>, headers: HeaderMap, request: Request) -> Response {
    if !headers.contains_key("x-good") {
        return ProblemDetails::new(StatusCode::UNAUTHORIZED).into_response();
    }
    let (head, body) = request.into_parts();
    awaited.notify_one();
    match read_body(&head, body).await {
        Ok(body) => body.len().to_string().into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn lasting(events: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut response = Body::from_stream(events.map(Ok::<_, Infallible>)).into_response();
    response.extensions_mut().insert(LongAnswer);
    response
}

fn later() -> impl futures_util::Stream<Item = Bytes> {
    stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        Some((EVENT, ()))
    })
}

async fn tls(address: SocketAddr, files: &CertificateFiles) -> SslStream<TcpStream> {
    let socket = TcpStream::connect(address).await.unwrap();
    let mut stream = SslStream::new(Ssl::new(&mutual_tls_client(files).unwrap()).unwrap(), socket).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    stream
}

async fn connect(address: SocketAddr, files: &CertificateFiles) -> http2::SendRequest<Body> {
    let stream = TokioIo::new(tls(address, files).await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A body that begins and never ends.
fn endless() -> Body {
    Body::from_stream(stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"{")) }).chain(stream::pending()))
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> http::Request<Body> {
    let mut request = http::Request::builder().method(method).uri(format!("https://localhost{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

const GOOD: &[(&str, &str)] = &[("x-good", "yes"), ("content-type", "application/json")];

#[tokio::test]
async fn a_request_without_its_token_is_refused_before_its_body_comes() {
    let authority = TestAuthority::new();
    let issuer = TestIssuer::new(&authority, NRF);
    let tls = authority.issue(SERVER, &[]);
    let producer = Producer::of_certificate("AANF", &tls).unwrap();
    let authorizer = Authorizer::new(issuer.section(), producer, &tls, Audit::default()).unwrap();
    let told = post(async |request: Request| request.into_body().collect().await.unwrap().to_bytes().len().to_string());
    let router = authorizer.protect(Router::new().route(RETRIEVE, told), &NAANF_AKMA);
    let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls, limits: ServerLimits::default() };
    let (stop, metrics) = (CancellationToken::new(), ServerMetrics::default());
    let server = SbiServer::start_authorized(config, router, &authorizer, stop, metrics).await.unwrap();
    let mut peer = connect(server.local_addr(), &authority.issue(STRANGER, &[])).await;

    let sent = peer.send_request(request(Method::POST, RETRIEVE, &[], endless()));
    assert_eq!(timeout(PATIENCE, sent).await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    let token = format!("Bearer {}", issuer.token(STRANGER, "AANF", "naanf-akma"));
    let with_token = [("authorization", token.as_str()), ("content-type", "application/json")];
    let sent = peer.send_request(request(Method::POST, RETRIEVE, &with_token, Body::from("{}"))).await.unwrap();
    assert_eq!(sent.status(), StatusCode::OK);
    assert_eq!(sent.into_body().collect().await.unwrap().to_bytes(), "2", "the body is read once it may be sent");
    let long = Body::from(vec![b' '; 70_000]);
    let sent = peer.send_request(request(Method::POST, RETRIEVE, &with_token, long)).await.unwrap();
    assert_eq!(sent.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_device_that_proves_nothing_is_refused_before_its_body_comes() {
    let devices = Devices::start(ServerLimits::default()).await;
    let mut stranger = devices.connect().await;
    let sent = stranger.send_request(request(Method::POST, "/message", &[], endless()));
    assert_eq!(timeout(PATIENCE, sent).await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    let sent = stranger.send_request(request(Method::POST, "/message", GOOD, Body::from("{}"))).await.unwrap();
    assert_eq!(sent.status(), StatusCode::OK, "and the connection serves on");
}

#[tokio::test]
async fn over_http_1_a_body_that_comes_after_its_refusal_passes_and_the_connection_serves_on() {
    let devices = Devices::start(ServerLimits::default()).await;
    let files = devices.authority.issue(STRANGER, &[]);
    let mut stream = alpn_http1(devices.server.local_addr(), &files).await;
    // The refusal is there before the body; then the body comes, and another request after it.
    stream.write_all(b"POST /message HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let head = until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    stream.write_all(b"12345GET /message HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let next = until(&mut stream, "here").await;
    assert!(next.contains("HTTP/1.1 200"), "{next}");
}

async fn until(stream: &mut SslStream<TcpStream>, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut octets = [0; 1024];
        let read = timeout(PATIENCE, tokio::io::AsyncReadExt::read(stream, &mut octets)).await.unwrap().unwrap();
        assert_ne!(read, 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&octets[..read]).unwrap());
    }
    text
}

#[tokio::test]
async fn bodies_on_their_way_are_limited_for_each_source_and_what_has_none_is_served() {
    let log = SecurityLog::record();
    let limits = ServerLimits { bodies_per_peer_max: 2, retry_after_seconds: 7, ..ServerLimits::default() };
    let devices = Devices::start(limits).await;
    let mut stranger = devices.connect().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(tokio::spawn(stranger.send_request(request(Method::POST, "/message", GOOD, endless()))));
        timeout(PATIENCE, devices.awaited.notified()).await.unwrap();
    }
    // Another connection of the same source.
    let mut other = devices.connect().await;
    let refused = other.send_request(request(Method::POST, "/message", GOOD, endless()));
    let refused = timeout(PATIENCE, refused).await.unwrap().unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()[RETRY_AFTER]),
        (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
    );
    assert!(devices.counted("sbi_bodies_refused_total{limit=\"bodies_per_peer_max\"} 1"));
    log.tells("request body refused at a limit", &[("limit", "bodies_per_peer_max")]).await;
    let plain = other.send_request(request(Method::GET, "/message", &[], Body::empty())).await.unwrap();
    assert_eq!(plain.status(), StatusCode::OK);
    for one in held {
        one.abort();
    }
    timeout(PATIENCE, async {
        loop {
            let again = other.send_request(request(Method::POST, "/message", GOOD, Body::from("{}"))).await.unwrap();
            if again.status() == StatusCode::OK {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_408() {
    let log = SecurityLog::record();
    let devices = Devices::start(ServerLimits { body_timeout_seconds: 1, ..ServerLimits::default() }).await;
    let mut stranger = devices.connect().await;
    let late = stranger.send_request(request(Method::POST, "/message", GOOD, endless()));
    assert_eq!(timeout(PATIENCE, late).await.unwrap().unwrap().status(), StatusCode::REQUEST_TIMEOUT);
    assert!(devices.counted("sbi_bodies_refused_total{limit=\"body_timeout_seconds\"} 1"));
    log.tells("request body refused at a limit", &[("limit", "body_timeout_seconds")]).await;
}

fn impatient() -> ServerLimits {
    ServerLimits {
        answer_timeout_seconds: 1,
        keepalive_interval_seconds: 1,
        keepalive_timeout_seconds: 60,
        ..ServerLimits::default()
    }
}

#[tokio::test]
async fn a_stream_of_events_that_is_not_let_out_ends_although_its_device_answers_pings() {
    // Nothing; part of the first event; and the first one, but no other.
    for octets in [0, 4, 10] {
        let devices = Devices::start(impatient()).await;
        let files = devices.authority.issue(STRANGER, &[]);
        let (mut read, mut write) = tokio::io::split(raw::connect(devices.server.local_addr(), &files).await);
        let window = [&[0, 4][..], &u32::to_be_bytes(octets)].concat();
        write.write_all(&frame(SETTINGS, 0, 0, &window)).await.unwrap();
        let asked = b"\x82\x87\x44\x07/events\x41\x09localhost";
        write.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, asked)).await.unwrap();
        let hung_up = async {
            while let Some((kind, flags, _, payload)) = raw::next(&mut read).await {
                if kind == PING && flags == 0 && write.write_all(&frame(PING, 1, 0, &payload)).await.is_err() {
                    break;
                }
            }
        };
        timeout(PATIENCE, hung_up).await.unwrap();
        assert!(devices.counted("sbi_connections_abused_total{reason=\"answers_not_taken\"} 1"), "{octets}");
    }
}

#[tokio::test]
async fn a_stream_of_events_that_is_read_lasts_for_longer_than_any_answer_may() {
    let devices = Devices::start(impatient()).await;
    let mut device = devices.connect().await;
    let mut events =
        device.send_request(request(Method::GET, "/events", &[], Body::empty())).await.unwrap().into_body();
    let mut quiet = device.send_request(request(Method::GET, "/quiet", &[], Body::empty())).await.unwrap().into_body();
    for _ in 0..4 {
        let event = timeout(PATIENCE, events.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.into_data().unwrap(), EVENT);
    }
    assert!(quiet.frame().now_or_never().is_none(), "nothing to tell is no fault of the device");
    // Over HTTP/1.1 the same.
    let files = devices.authority.issue(STRANGER, &[]);
    let stream = TokioIo::new(alpn_http1(devices.server.local_addr(), &files).await);
    let (mut device, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut events =
        device.send_request(request(Method::GET, "/events", &[], Body::empty())).await.unwrap().into_body();
    for _ in 0..3 {
        let event = timeout(PATIENCE, events.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.into_data().unwrap(), EVENT);
    }
}

/// A connection whose client offers HTTP/1.1 alone.
async fn alpn_http1(address: SocketAddr, files: &CertificateFiles) -> SslStream<TcpStream> {
    let socket = TcpStream::connect(address).await.unwrap();
    let mut ssl = Ssl::new(&mutual_tls_client(files).unwrap()).unwrap();
    ssl.set_alpn_protos(b"\x08http/1.1").unwrap();
    let mut stream = SslStream::new(ssl, socket).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    stream
}
