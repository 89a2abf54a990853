//! Certificates that are withdrawn or replaced while servers and clients run.

#![allow(clippy::unwrap_used)]

mod raw;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use sbi::admin::{AdminServer, Health};
use sbi::testing::TestAuthority;
use sbi::{
    CertificateFiles, ClientLimits, Json, SbiClient, SbiClientConfig, SbiError, SbiServer, SbiServerConfig,
    ServerLimits, ServerMetrics,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";
const OTHER: &str = "33333333-3333-4333-8333-333333333333";

async fn start(tls: CertificateFiles, metrics: ServerMetrics) -> (SbiServer, String) {
    let limits = ServerLimits { reload_interval_seconds: 1, reverify_interval_seconds: 1, ..ServerLimits::default() };
    let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls, limits };
    let router = Router::new().route("/", get(async || Json("ok")));
    let server = SbiServer::start_observed(config, router, CancellationToken::new(), metrics).await.unwrap();
    let uri = format!("https://localhost:{}/", server.local_addr().port());
    (server, uri)
}

fn client(tls: CertificateFiles) -> SbiClient {
    let limits = ClientLimits { reload_interval_seconds: 0, ..ClientLimits::default() };
    SbiClient::new(SbiClientConfig { tls, limits }).unwrap()
}

fn checking(authority: &TestAuthority, name: &str, revoked: &[&str]) -> CertificateFiles {
    let files = authority.issue(name, &[]);
    CertificateFiles { crl: Some(authority.crl(revoked, 2099)), ..files }
}

/// What `metrics` counted as `name`, labels included.
fn counted(metrics: &ServerMetrics, name: &str) -> u32 {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.trim().parse().unwrap())
}

const RELOADED: &str = "sbi_certificate_reloads_total{outcome=\"reloaded\"}";

#[tokio::test]
async fn a_revoked_client_loses_its_connection_and_gets_no_other() {
    let authority = TestAuthority::new();
    let (revoked, other) = (authority.issue(CLIENT, &[]), authority.issue(OTHER, &[]));
    let metrics = ServerMetrics::default();
    let (server, uri) = start(checking(&authority, SERVER, &[]), metrics.clone()).await;
    client(revoked.clone()).get::<String>(&uri).await.unwrap();
    let mut open = raw::connect(server.local_addr(), &revoked).await;
    let _ = authority.crl(&[CLIENT], 2099);
    // The server ends this, not the test.
    while raw::next(&mut open).await.is_some() {}
    assert!(counted(&metrics, RELOADED) > 0);
    assert!(counted(&metrics, "sbi_connections_withdrawn_total") > 0);
    let late = client(revoked).get::<String>(&uri).await;
    assert!(matches!(late, Err(SbiError::Unreachable(_))), "{late:?}");
    client(other).get::<String>(&uri).await.unwrap();
}

#[tokio::test]
async fn an_expired_crl_closes_the_door_to_everybody() {
    let authority = TestAuthority::new();
    let files = authority.issue(CLIENT, &[]);
    let (server, uri) = start(checking(&authority, SERVER, &[]), ServerMetrics::default()).await;
    let mut open = raw::connect(server.local_addr(), &files).await;
    let _ = authority.crl(&[], 2021);
    while raw::next(&mut open).await.is_some() {}
    let late = client(files).get::<String>(&uri).await;
    assert!(matches!(late, Err(SbiError::Unreachable(_))), "{late:?}");
}

#[tokio::test]
async fn a_revoked_server_is_asked_no_more_though_its_connection_stands() {
    let authority = TestAuthority::new();
    let (_server, uri) = start(authority.issue(SERVER, &[]), ServerMetrics::default()).await;
    let client = client(checking(&authority, CLIENT, &[]));
    client.get::<String>(&uri).await.unwrap();
    let _ = authority.crl(&[SERVER], 2099);
    let late = client.get::<String>(&uri).await;
    assert!(matches!(late, Err(SbiError::Unreachable(_))), "{late:?}");
}

#[tokio::test]
async fn files_that_a_client_cannot_use_are_counted_and_the_old_ones_serve_on() {
    let authority = TestAuthority::new();
    let (_server, uri) = start(authority.issue(SERVER, &[]), ServerMetrics::default()).await;
    let files = checking(&authority, CLIENT, &[]);
    let counted = |outcome: &str| {
        let labels = format!("{{certificate=\"{}\",outcome=\"{outcome}\"}} ", files.certificate.display());
        format!("sbi_client_certificate_reloads_total{labels}")
    };
    let listen = ([127, 0, 0, 1], 0).into();
    let admin = AdminServer::start(listen, Arc::default(), Health::new(), CancellationToken::new()).await.unwrap();
    let client = client(files.clone());
    client.get::<String>(&uri).await.unwrap();
    std::fs::write(files.crl.as_ref().unwrap(), "no CRL").unwrap();
    client.get::<String>(&uri).await.unwrap();
    let shown = scraped(admin.local_addr()).await;
    assert!(shown.contains(&counted("failed")) && !shown.contains(&counted("reloaded")), "{shown}");
    let _ = authority.crl(&[], 2099);
    client.get::<String>(&uri).await.unwrap();
    let shown = scraped(admin.local_addr()).await;
    assert!(shown.contains(&counted("reloaded")) && shown.trim_end().ends_with("# EOF"), "{shown}");
}

async fn scraped(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn new_certificates_take_over_without_a_failed_request() {
    let authority = TestAuthority::new();
    let metrics = ServerMetrics::default();
    let files = checking(&authority, SERVER, &[]);
    let (_server, uri) = start(files, metrics.clone()).await;
    let steady = client(authority.issue(CLIENT, &[]));
    let fresh = authority.issue(OTHER, &[]);
    let over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let over = Arc::clone(&over);
        async move {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                steady.get::<String>(&uri).await.unwrap();
                client(fresh.clone()).get::<String>(&uri).await.unwrap();
                asked += 2;
            }
            asked
        }
    });
    for rotation in 1..=2 {
        let before = counted(&metrics, RELOADED);
        let _ = authority.issue(SERVER, &[]);
        let _ = authority.crl(&[], 2099 + rotation);
        while counted(&metrics, RELOADED) == before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    over.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);
}
