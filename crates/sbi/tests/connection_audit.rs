//! Peers that are refused before their first request: each refusal is an event of the audit.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;

use axum::Router;
use axum::routing::get;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use sbi::audit::Audit;
use sbi::authorization::{AuthorizationConfig, Authorizer, NdsIpConfig, Producer};
use sbi::testing::TestAuthority;
use sbi::testing::audit::AuditLog;
use sbi::{CertificateFiles, Json, SbiServer, SbiServerConfig, ServerLimits, ServerMetrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";
const OTHER: &str = "33333333-3333-4333-8333-333333333333";

async fn start(tls: CertificateFiles) -> SbiServer {
    let limits = ServerLimits { reload_interval_seconds: 1, reverify_interval_seconds: 1, ..ServerLimits::default() };
    let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls, limits };
    let router = Router::new().route("/", get(async || Json("ok")));
    SbiServer::start(config, router, CancellationToken::new()).await.unwrap()
}

fn checking(authority: &TestAuthority, revoked: &[&str]) -> CertificateFiles {
    CertificateFiles { crl: Some(authority.crl(revoked, 2099)), ..authority.issue(SERVER, &[]) }
}

/// Comes with these certificates, or with none, and begins to speak HTTP/2.
async fn come(address: SocketAddr, files: Option<&CertificateFiles>) -> Option<SslStream<TcpStream>> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    // Whom the server takes is looked at here, not whom the client does.
    connector.set_verify(SslVerifyMode::NONE);
    connector.set_alpn_protos(b"\x02h2").unwrap();
    if let Some(files) = files {
        connector.set_certificate_chain_file(&files.certificate).unwrap();
        connector.set_private_key_file(&files.key, openssl::ssl::SslFiletype::PEM).unwrap();
    }
    let ssl = connector.build().configure().unwrap().into_ssl("localhost").unwrap();
    let mut stream = SslStream::new(ssl, TcpStream::connect(address).await.unwrap()).unwrap();
    Pin::new(&mut stream).connect().await.ok()?;
    // With TLS 1.3 the client is done before the server has looked at its certificate.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.ok()?;
    Some(stream)
}

/// Waits for the refusal of a connection to `address`.
async fn refused(log: &AuditLog, subject: &str, address: SocketAddr, reason: &str) {
    let address = address.to_string();
    let fields = [
        ("subject", subject),
        ("action", "connect"),
        ("object", address.as_str()),
        ("outcome", "refused"),
        ("reason", reason),
    ];
    log.next_with(&fields).await;
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_told_by_its_address() {
    let log = AuditLog::record();
    let authority = TestAuthority::new();
    let server = start(authority.issue(SERVER, &[])).await;
    let _stream = come(server.local_addr(), None).await;
    refused(log, "127.0.0.1", server.local_addr(), "certificate_missing").await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_told_and_its_names_are_not_believed() {
    let log = AuditLog::record();
    let (authority, elsewhere) = (TestAuthority::new(), TestAuthority::new());
    let server = start(authority.issue(SERVER, &[])).await;
    let stranger = elsewhere.issue("44444444-4444-4444-8444-444444444444", &[]);
    let _stream = come(server.local_addr(), Some(&stranger)).await;
    refused(log, "127.0.0.1", server.local_addr(), "certificate_untrusted").await;
    assert!(!log.mentions("44444444-4444-4444-8444-444444444444"));
}

#[tokio::test]
async fn a_revoked_certificate_is_told_and_so_is_one_revoked_while_connected() {
    let log = AuditLog::record();
    let authority = TestAuthority::new();
    let (revoked, other) = (authority.issue(CLIENT, &[]), authority.issue(OTHER, &[]));
    let server = start(checking(&authority, &[CLIENT])).await;
    let _stream = come(server.local_addr(), Some(&revoked)).await;
    refused(log, "127.0.0.1", server.local_addr(), "certificate_revoked").await;

    let mut open = come(server.local_addr(), Some(&other)).await.unwrap();
    // Its SETTINGS: the server has taken the connection.
    open.read_u8().await.unwrap();
    let _ = authority.crl(&[CLIENT, OTHER], 2099);
    refused(log, OTHER, server.local_addr(), "certificate_withdrawn").await;
}

#[tokio::test]
async fn a_source_outside_the_networks_of_the_nds_ip_statement_is_told_and_counted_with_the_functions_decisions() {
    let log = AuditLog::record();
    let authority = TestAuthority::new();
    let files = authority.issue(SERVER, &[]);
    let statement = NdsIpConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        protected_by: "a test".to_owned(),
        nf_instance_id: Some(OTHER.to_owned()),
        dns_name: None,
    };
    let config = AuthorizationConfig { nds_ip: vec![statement], ..AuthorizationConfig::default() };
    let producer = Producer { nf_type: "AANF", nf_instance_id: SERVER.to_owned() };
    let audit = Audit::default();
    let authorizer = Authorizer::new(config, producer, &files, audit.clone()).unwrap();
    let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls: files, limits: ServerLimits::default() };
    let router = Router::new().route("/", get(async || Json("ok")));
    let (stop, metrics) = (CancellationToken::new(), ServerMetrics::default());
    let server = SbiServer::start_authorized(config, router, &authorizer, stop, metrics).await.unwrap();
    let address = server.protected_network_addrs().next().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "closed unanswered");
    refused(log, "127.0.0.1", address, "network_not_stated").await;
    let _stream = come(server.local_addr(), None).await;
    refused(log, "127.0.0.1", server.local_addr(), "certificate_missing").await;

    let mut registry = prometheus_client::registry::Registry::default();
    audit.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for reason in ["network_not_stated", "certificate_missing"] {
        let line = format!("sbi_authorizations_total{{outcome=\"refused\",reason=\"{reason}\"}} 1");
        assert!(text.contains(&line), "{text}");
    }
}
