//! The server's refusals and limits, over real sockets and certificates.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use axum::{Extension, Router};
use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode};
use sbi::testing::TestAuthority;
use sbi::{
    CertificateFiles, ClientLimits, Json, PeerIdentity, ProblemDetails, SbiClient, SbiClientConfig, SbiError,
    SbiServer, SbiServerConfig, ServerLimits, ServerMetrics, cause,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";
const OTHER_PEER: &str = "33333333-3333-4333-8333-333333333333";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    item_name: String,
    count: u8,
}

/// A server with one route for each behaviour under test.
struct Fixture {
    authority: TestAuthority,
    server: SbiServer,
    shutdown: CancellationToken,
    /// `/wait` says `entered` and waits for `release`.
    entered: Arc<Notify>,
    release: Arc<Notify>,
    metrics: ServerMetrics,
}

impl Fixture {
    async fn start(limits: ServerLimits) -> Self {
        let authority = TestAuthority::new();
        let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (in_handler, waits) = (Arc::clone(&entered), Arc::clone(&release));
        let router = Router::new()
            .route("/order", post(async |Json(order): Json<Order>| Json(order)))
            .route("/who", get(async |Extension(peer): Extension<PeerIdentity>| Json(peer.nf_instance_id)))
            .route("/port", get(async |ConnectInfo(from): ConnectInfo<SocketAddr>| Json(from.port())))
            .route("/panic", get(panicking))
            .route(
                "/wait",
                get(async move || {
                    in_handler.notify_one();
                    waits.notified().await;
                    Json("done")
                }),
            );
        let config = SbiServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: authority.issue(SERVER, &["sbi.example.com"]),
            limits,
        };
        let shutdown = CancellationToken::new();
        let metrics = ServerMetrics::default();
        let server = SbiServer::start_observed(config, router, shutdown.clone(), metrics.clone()).await.unwrap();
        Self { authority, server, shutdown, entered, release, metrics }
    }

    fn uri(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.local_addr().port())
    }

    fn client(&self) -> SbiClient {
        self.authority.client(CLIENT)
    }

    async fn refusal(&self, path: &str, body: &Value) -> ProblemDetails {
        problem(self.client().post::<_, Value>(&self.uri(path), body).await)
    }

    fn counted(&self) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}

async fn panicking() -> &'static str {
    panic!("a fault in a handler");
}

fn problem<T: std::fmt::Debug>(answer: Result<T, SbiError>) -> ProblemDetails {
    match answer.unwrap_err() {
        SbiError::Problem(problem) => *problem,
        other => panic!("no refusal but {other:?}"),
    }
}

/// A TLS client context made by hand, to offer what a proper client would not.
fn context(files: Option<&CertificateFiles>, ca: &std::path::Path, alpn: Option<&[u8]>) -> SslContext {
    let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
    context.set_ca_file(ca).unwrap();
    context.set_verify(SslVerifyMode::PEER);
    if let Some(files) = files {
        context.set_certificate_chain_file(&files.certificate).unwrap();
        context.set_private_key_file(&files.key, openssl::ssl::SslFiletype::PEM).unwrap();
    }
    if let Some(alpn) = alpn {
        context.set_alpn_protos(alpn).unwrap();
    }
    context.build()
}

/// Whether the server keeps a connection made with `context` open until it answers HTTP/2's preface.
async fn is_served(address: SocketAddr, context: &SslContext) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = SslStream::new(Ssl::new(context).unwrap(), stream).unwrap();
    if Pin::new(&mut stream).connect().await.is_err() {
        return false;
    }
    // In TLS 1.3 the client finishes first: a refusal of its certificate shows at the first read.
    if stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.is_err() {
        return false;
    }
    let mut frame_header = [0; 9];
    stream.read_exact(&mut frame_header).await.is_ok()
}

#[tokio::test]
async fn a_handler_learns_who_asks_from_the_certificate() {
    let fixture = Fixture::start(ServerLimits::default()).await;
    let who: String = fixture.client().get(&fixture.uri("/who")).await.unwrap().into_body().unwrap();
    assert_eq!(who, CLIENT);
}

#[tokio::test]
async fn only_certificates_of_the_authority_get_in_and_only_with_h2() {
    let fixture = Fixture::start(ServerLimits::default()).await;
    let address = fixture.server.local_addr();
    let ours = fixture.authority.issue(CLIENT, &[]);
    // Of the same name and with the same subject, but with another key.
    let another_authority = TestAuthority::new();
    let stranger = another_authority.issue(CLIENT, &[]);
    let h2: Option<&[u8]> = Some(b"\x02h2");
    let ca = fixture.authority.ca();

    assert!(is_served(address, &context(Some(&ours), &ca, h2)).await);
    assert!(!is_served(address, &context(None, &ca, h2)).await, "no client certificate");
    assert!(!is_served(address, &context(Some(&ours), &ca, None)).await, "no ALPN");
    assert!(!is_served(address, &context(Some(&ours), &ca, Some(b"\x08http/1.1"))).await, "HTTP/1.1");
    assert!(!is_served(address, &context(Some(&stranger), &ca, h2)).await, "certificate of another authority");
    assert!(fixture.counted().contains("sbi_connections_refused_total{reason=\"tls\"}"), "{}", fixture.counted());
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_problem_details() {
    let fixture = Fixture::start(ServerLimits::default()).await;
    let problem_404 = fixture.refusal("/nowhere", &json!({})).await;
    assert_eq!(problem_404.status, Some(404));
    assert!(problem_404.has_cause(cause::RESOURCE_URI_STRUCTURE_NOT_FOUND));
    assert_eq!(fixture.refusal("/who", &json!({})).await.status, Some(405));
}

#[tokio::test]
async fn bodies_that_are_not_the_api_s_are_told_apart() {
    let fixture = Fixture::start(ServerLimits::default()).await;
    let missing = fixture.refusal("/order", &json!({"itemName": "x"})).await;
    assert!(missing.has_cause(cause::MANDATORY_IE_MISSING));
    assert_eq!(missing.invalid_params[0].param, "/count");
    let incorrect = fixture.refusal("/order", &json!({"itemName": "x", "count": 256})).await;
    assert!(incorrect.has_cause(cause::MANDATORY_IE_INCORRECT));
    assert_eq!(incorrect.invalid_params[0].param, "/count");

    let unknown = json!({"itemName": "x", "count": 1, "somethingNewer": {"a": [1]}});
    let order: Order = fixture.client().post(&fixture.uri("/order"), &unknown).await.unwrap().into_body().unwrap();
    assert_eq!(order.count, 1, "unknown members are tolerated");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_the_connection_lives_on() {
    let limits = ServerLimits { request_body_bytes_max: 1024, ..ServerLimits::default() };
    let fixture = Fixture::start(limits).await;
    let client = fixture.client();
    let large = json!({"itemName": "x".repeat(1024), "count": 1});
    assert_eq!(problem(client.post::<_, Value>(&fixture.uri("/order"), &large).await).status, Some(413));
    assert!(client.get::<String>(&fixture.uri("/who")).await.is_ok());
}

#[tokio::test]
async fn a_panic_in_a_handler_is_500_and_harms_nobody_else() {
    let fixture = Fixture::start(ServerLimits::default()).await;
    let client = fixture.client();
    let before: u16 = client.get(&fixture.uri("/port")).await.unwrap().into_body().unwrap();
    let panicked = problem(client.get::<Value>(&fixture.uri("/panic")).await);
    assert_eq!(panicked.status, Some(500));
    assert!(panicked.has_cause(cause::SYSTEM_FAILURE));
    let after: u16 = client.get(&fixture.uri("/port")).await.unwrap().into_body().unwrap();
    assert_eq!(before, after, "the connection is the same");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_504() {
    let fixture = Fixture::start(ServerLimits { request_timeout_seconds: 1, ..ServerLimits::default() }).await;
    let late = problem(fixture.client().get::<Value>(&fixture.uri("/wait")).await);
    assert_eq!(late.status, Some(504));
    assert!(late.has_cause(cause::TIMED_OUT_REQUEST));
}

#[tokio::test]
async fn one_request_too_many_is_503_with_retry_after_and_the_others_are_served() {
    let limits = ServerLimits { requests_max: 1, retry_after_seconds: 7, ..ServerLimits::default() };
    let fixture = Fixture::start(limits).await;
    let (client, uri) = (fixture.client(), fixture.uri("/wait"));
    let taken = tokio::spawn(async move { client.get::<String>(&uri).await });
    fixture.entered.notified().await;
    let refused = problem(fixture.client().get::<Value>(&fixture.uri("/who")).await);
    assert_eq!(refused.status, Some(503));
    assert!(refused.has_cause(cause::NF_CONGESTION));
    assert_eq!(refused.retry_after_seconds, Some(7));
    fixture.release.notify_one();
    assert_eq!(taken.await.unwrap().unwrap().into_body().unwrap(), "done");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_first_is_served() {
    let fixture = Fixture::start(ServerLimits { connections_max: 1, ..ServerLimits::default() }).await;
    let first = fixture.client();
    first.get::<String>(&fixture.uri("/who")).await.unwrap();
    let second = fixture.client().get::<String>(&fixture.uri("/who")).await;
    assert!(matches!(second, Err(SbiError::Unreachable(_))), "{second:?}");
    first.get::<String>(&fixture.uri("/who")).await.unwrap();
    assert!(fixture.counted().contains("reason=\"connections_max\""));
}

#[tokio::test]
async fn a_peer_with_all_its_connections_gets_no_other_and_others_do() {
    let fixture = Fixture::start(ServerLimits { connections_per_peer_max: 2, ..ServerLimits::default() }).await;
    let held = [fixture.client(), fixture.client()];
    for client in &held {
        client.get::<String>(&fixture.uri("/who")).await.unwrap();
    }
    let third = fixture.client().get::<String>(&fixture.uri("/who")).await;
    assert!(matches!(third, Err(SbiError::Unreachable(_))), "{third:?}");
    assert!(fixture.counted().contains("reason=\"connections_per_peer_max\""));
    let other = fixture.authority.client(OTHER_PEER);
    other.get::<String>(&fixture.uri("/who")).await.unwrap();
    for client in &held {
        client.get::<String>(&fixture.uri("/who")).await.unwrap();
    }
}

#[tokio::test]
async fn handshakes_that_never_finish_are_closed_and_cannot_take_all_slots() {
    let limits = ServerLimits { handshakes_per_source_max: 4, handshake_timeout_seconds: 3, ..ServerLimits::default() };
    let fixture = Fixture::start(limits).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(fixture.server.local_addr()).await.unwrap());
    }
    // Whichever way each ends, by the slots or by the time-out, the server ends it.
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
    assert!(fixture.counted().contains("reason=\"handshakes_max\""));
    assert!(fixture.counted().contains("reason=\"handshake_timeout\""));
    fixture.client().get::<String>(&fixture.uri("/who")).await.unwrap();
}

#[tokio::test]
async fn a_client_that_proves_itself_and_then_says_nothing_is_closed() {
    let fixture = Fixture::start(ServerLimits { handshake_timeout_seconds: 3, ..ServerLimits::default() }).await;
    let files = fixture.authority.issue(CLIENT, &[]);
    let context = context(Some(&files), &fixture.authority.ca(), Some(b"\x02h2"));
    let stream = TcpStream::connect(fixture.server.local_addr()).await.unwrap();
    let mut stream = SslStream::new(Ssl::new(&context).unwrap(), stream).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(fixture.counted().contains("reason=\"handshake_timeout\""));
}

#[tokio::test]
async fn the_stream_limit_is_told_and_a_peer_that_answers_no_ping_is_closed() {
    let fixture = Fixture::start(ServerLimits {
        streams_per_connection_max: 17,
        keepalive_interval_seconds: 1,
        keepalive_timeout_seconds: 1,
        ..ServerLimits::default()
    })
    .await;
    let files = fixture.authority.issue(CLIENT, &[]);
    let context = context(Some(&files), &fixture.authority.ca(), Some(b"\x02h2"));
    let stream = TcpStream::connect(fixture.server.local_addr()).await.unwrap();
    let mut stream = SslStream::new(Ssl::new(&context).unwrap(), stream).unwrap();
    Pin::new(&mut stream).connect().await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut received = Vec::new();
    // The server ends this, not the test.
    let _ = stream.read_to_end(&mut received).await;
    assert_eq!(received[3], 4, "SETTINGS come first");
    let settings = &received[9..9 + usize::from(received[2])];
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 17]), "{settings:?}");
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_takes_no_new_ones() {
    let fixture = Fixture::start(ServerLimits::default()).await;
    let (client, uri) = (fixture.client(), fixture.uri("/wait"));
    let taken = tokio::spawn(async move { client.get::<String>(&uri).await });
    fixture.entered.notified().await;
    fixture.shutdown.cancel();
    fixture.release.notify_one();
    assert_eq!(taken.await.unwrap().unwrap().into_body().unwrap(), "done");
    fixture.server.stopped().await;
    let late = fixture.client().get::<String>(&fixture.uri("/who")).await;
    assert!(matches!(late, Err(SbiError::Unreachable(_))), "{late:?}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_stuck_handler_beyond_the_drain_time() {
    let fixture = Fixture::start(ServerLimits { drain_timeout_seconds: 1, ..ServerLimits::default() }).await;
    let (client, uri) = (fixture.client(), fixture.uri("/wait"));
    let taken = tokio::spawn(async move { client.get::<String>(&uri).await });
    fixture.entered.notified().await;
    fixture.shutdown.cancel();
    fixture.server.stopped().await;
    assert!(taken.await.unwrap().is_err());
}

#[tokio::test]
async fn many_requests_at_once_share_a_few_connections() {
    let fixture = Fixture::start(ServerLimits::default()).await;
    let limits = ClientLimits { request_timeout_milliseconds: 120_000, ..ClientLimits::default() };
    let client = SbiClient::new(SbiClientConfig { tls: fixture.authority.issue(CLIENT, &[]), limits }).unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (client, uri) = (client.clone(), fixture.uri("/port"));
        asked.spawn(async move { client.get::<u16>(&uri).await.unwrap().into_body().unwrap() });
    }
    let mut ports = asked.join_all().await;
    assert_eq!(ports.len(), 500);
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() <= ClientLimits::default().connections_per_peer_max, "{ports:?}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let fixture = Fixture::start(ServerLimits::default()).await;
    let config = SbiServerConfig {
        listen: fixture.server.local_addr(),
        tls: fixture.authority.issue(SERVER, &[]),
        limits: ServerLimits::default(),
    };
    let started = SbiServer::start(config, Router::new(), CancellationToken::new()).await;
    assert!(matches!(started, Err(SbiError::Listen { .. })));
}
