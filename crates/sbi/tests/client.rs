//! What the client makes of peers that are absent, slow, wrong or broken.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use openssl::ssl::{Ssl, SslContext};
use sbi::testing::TestAuthority;
use sbi::{ClientLimits, Json, SbiClient, SbiClientConfig, SbiError, SbiServer, SbiServerConfig, ServerLimits, cause};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use transport::profile::mutual_tls_server;

const SERVER: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";

async fn server(authority: &TestAuthority, listen: SocketAddr, shutdown: CancellationToken) -> SbiServer {
    let router = Router::new()
        .route("/ok", get(async || Json("ok")))
        .route("/long", get(async || Json("x".repeat(100_000))))
        .route("/text", get(async || "ok"))
        .route("/number", get(async || Json(7)))
        .route("/wait", get(async || std::future::pending::<()>().await));
    let config = SbiServerConfig { listen, tls: authority.issue(SERVER, &[]), limits: ServerLimits::default() };
    SbiServer::start(config, router, shutdown).await.unwrap()
}

async fn started(authority: &TestAuthority) -> (SbiServer, String) {
    let server = server(authority, ([127, 0, 0, 1], 0).into(), CancellationToken::new()).await;
    let root = format!("https://127.0.0.1:{}", server.local_addr().port());
    (server, root)
}

fn client(authority: &TestAuthority, limits: ClientLimits) -> SbiClient {
    SbiClient::new(SbiClientConfig { tls: authority.issue(CLIENT, &[]), limits }).unwrap()
}

/// Accepts one connection, does `handshake` with the server's certificate if told to, and hands it over.
async fn broken_peer(authority: &TestAuthority, answer: &'static [u8]) -> String {
    let tls = mutual_tls_server(&authority.issue(SERVER, &[])).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = accept_tls(&tls, stream).await;
            let _ = stream.write_all(answer).await;
            let mut sink = [0; 1024];
            while stream.read(&mut sink).await.is_ok_and(|octets| octets > 0) {}
        }
    });
    format!("https://127.0.0.1:{}", address.port())
}

async fn accept_tls(tls: &SslContext, stream: TcpStream) -> SslStream<TcpStream> {
    let mut stream = SslStream::new(Ssl::new(tls).unwrap(), stream).unwrap();
    Pin::new(&mut stream).accept().await.unwrap();
    stream
}

#[tokio::test]
async fn a_server_of_another_authority_or_another_name_is_not_talked_to() {
    let authority = TestAuthority::new();
    let (_server, root) = started(&authority).await;
    let stranger = client(&TestAuthority::new(), ClientLimits::default());
    assert!(matches!(stranger.get::<Value>(&format!("{root}/ok")).await, Err(SbiError::Unreachable(_))));

    // The certificate is good for 127.0.0.1, and 127.0.0.2 is the same machine.
    let elsewhere = server(&authority, ([127, 0, 0, 2], 0).into(), CancellationToken::new()).await;
    let uri = format!("https://127.0.0.2:{}/ok", elsewhere.local_addr().port());
    let client = client(&authority, ClientLimits::default());
    assert!(matches!(client.get::<Value>(&uri).await, Err(SbiError::Unreachable(_))));
}

#[tokio::test]
async fn a_peer_that_is_down_is_unreachable_at_once_and_reached_again_when_it_is_back() {
    let authority = TestAuthority::new();
    let client = client(&authority, ClientLimits::default());
    let shutdown = CancellationToken::new();
    let first = server(&authority, ([127, 0, 0, 1], 0).into(), shutdown.clone()).await;
    let address = first.local_addr();
    let uri = format!("https://127.0.0.1:{}/ok", address.port());
    client.get::<String>(&uri).await.unwrap();
    shutdown.cancel();
    first.stopped().await;
    let error = client.get::<String>(&uri).await.unwrap_err();
    assert!(matches!(error, SbiError::Unreachable(_)), "{error:?}");
    assert!(error.is_transient());
    let _second = server(&authority, address, CancellationToken::new()).await;
    client.get::<String>(&uri).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_unreachable() {
    let authority = TestAuthority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://127.0.0.1:{}/ok", listener.local_addr().unwrap().port());
    let client = client(&authority, ClientLimits { connect_timeout_milliseconds: 50, ..ClientLimits::default() });
    assert!(matches!(client.get::<Value>(&uri).await, Err(SbiError::Unreachable(_))));
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_timed_out() {
    let authority = TestAuthority::new();
    // Our own server would answer 504 at the same moment: it is told how long the client waits.
    let root = broken_peer(&authority, b"").await;
    let client = client(&authority, ClientLimits { request_timeout_milliseconds: 200, ..ClientLimits::default() });
    assert!(matches!(client.get::<Value>(&format!("{root}/ok")).await, Err(SbiError::TimedOut)));
}

#[tokio::test]
async fn garbage_in_place_of_http2_is_malformed() {
    let authority = TestAuthority::new();
    let root = broken_peer(&authority, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    let client = client(&authority, ClientLimits::default());
    let error = client.get::<Value>(&format!("{root}/ok")).await.unwrap_err();
    assert!(matches!(error, SbiError::Malformed(_)), "{error:?}");
}

#[tokio::test]
async fn answers_that_break_the_api_are_malformed() {
    let authority = TestAuthority::new();
    let (_server, root) = started(&authority).await;
    let client = client(&authority, ClientLimits { response_body_bytes_max: 10_000, ..ClientLimits::default() });
    for (path, what) in [("/long", "too long"), ("/text", "not JSON"), ("/number", "another type")] {
        let error = client.get::<String>(&format!("{root}{path}")).await.unwrap_err();
        assert!(matches!(error, SbiError::Malformed(_)), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn where_success_says_all_its_body_may_be_anything() {
    let authority = TestAuthority::new();
    let router = Router::new().route("/text", axum::routing::post(async || "taken"));
    let config = SbiServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: authority.issue(SERVER, &[]),
        limits: ServerLimits::default(),
    };
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    let root = format!("https://127.0.0.1:{}", server.local_addr().port());
    let client = client(&authority, ClientLimits::default());
    let answer = client.post_any(&format!("{root}/text"), "message").await.unwrap();
    assert_eq!(answer.body.as_deref(), Some(&b"taken"[..]));
    let refused = client.post_any(&format!("{root}/nowhere"), "message").await.unwrap_err();
    assert_eq!(refused.problem().unwrap().status, Some(404));
}

#[tokio::test]
async fn one_request_too_many_is_refused_here() {
    let authority = TestAuthority::new();
    let entered = Arc::new(Notify::new());
    let in_handler = Arc::clone(&entered);
    let router = Router::new().route(
        "/wait",
        get(async move || {
            in_handler.notify_one();
            std::future::pending::<()>().await;
        }),
    );
    let config = SbiServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: authority.issue(SERVER, &[]),
        limits: ServerLimits::default(),
    };
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    let uri = format!("https://127.0.0.1:{}/wait", server.local_addr().port());
    let client = client(&authority, ClientLimits { requests_outstanding_max: 1, ..ClientLimits::default() });
    let first = tokio::spawn({
        let (client, uri) = (client.clone(), uri.clone());
        async move { client.get::<Value>(&uri).await }
    });
    entered.notified().await;
    assert!(matches!(client.get::<Value>(&uri).await, Err(SbiError::Overloaded)));
    first.abort();
}

#[tokio::test]
async fn only_absolute_https_uris_are_asked() {
    let client = client(&TestAuthority::new(), ClientLimits::default());
    for uri in ["http://127.0.0.1/ok", "/ok", "127.0.0.1:443", "https:///ok", "", "https://127.0.0.1/ a"] {
        assert!(matches!(client.get::<Value>(uri).await, Err(SbiError::InvalidUri)), "{uri:?}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_after_a_time_out() {
    let authority = TestAuthority::new();
    let (_server, root) = started(&authority).await;
    let client = client(&authority, ClientLimits { request_timeout_milliseconds: 2_000, ..ClientLimits::default() });
    client.get::<String>(&format!("{root}/ok")).await.unwrap();
    // The server knows how long it is waited for, and may be the first to say that it was too long.
    match client.get::<Value>(&format!("{root}/wait")).await {
        Err(SbiError::TimedOut) => {}
        Err(SbiError::Problem(problem)) => assert!(problem.has_cause(cause::TIMED_OUT_REQUEST), "{problem:?}"),
        other => panic!("{other:?}"),
    }
    tokio::time::timeout(Duration::from_secs(30), client.get::<String>(&format!("{root}/ok"))).await.unwrap().unwrap();
}
