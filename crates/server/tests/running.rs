//! The server as a whole on real sockets, with neither AAnF nor Configuration Function there: what it says about itself,
//! whom it turns away, and that it stops. The whole chain is tried in the `msgin5g` program's tests.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig};
use server::{Config, Running, ServerError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn make_certificates(directory: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, "test authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(parameters, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, "server");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(directory.join("server.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.join("server.key"), key.serialize_pem()).unwrap();
}

fn config(directory: &Path, limits: &str) -> Config {
    config_with(directory, limits, "")
}

fn config_with(directory: &Path, limits: &str, more: &str) -> Config {
    let directory = directory.display();
    toml::from_str(&format!(
        r#"
        [server]
        fqdn = "msgin5g.lab.example"
        listen = "127.0.0.1:0"
        [certificates]
        certificate = "{directory}/server.pem"
        key = "{directory}/server.key"
        ca = "{directory}/ca.pem"
        [akma]
        aanf = "https://127.0.0.1:1"
        [configuration_function]
        url = "https://127.0.0.1:1"
        [api]
        listen = "127.0.0.1:0"
        [authorization]
        mode = "tls"
        [admin]
        listen = "127.0.0.1:0"
        [store]
        path = "{directory}/state"
        [limits]
        {limits}
        {more}
        "#
    ))
    .unwrap()
}

struct Served {
    running: Running,
    shutdown: CancellationToken,
    directory: TempDir,
}

impl Served {
    async fn start(limits: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        make_certificates(directory.path());
        Self::start_in(directory, limits).await
    }

    async fn start_in(directory: TempDir, limits: &str) -> Self {
        let shutdown = CancellationToken::new();
        let running = server::start(config(directory.path(), limits), shutdown.clone()).await.unwrap();
        Self { running, shutdown, directory }
    }

    async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        timeout(PATIENCE, self.running.stopped()).await.unwrap();
        self.directory
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Reads until the server closes; how much came.
async fn read_to_end(stream: &mut TcpStream) -> usize {
    let mut octets = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut octets)).await.unwrap();
    octets.len()
}

#[tokio::test]
async fn a_started_server_is_healthy_ready_and_shows_its_metrics() {
    let served = Served::start("").await;
    let admin = served.running.admin_address();
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200"));
    let ready = get(admin, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("store: ready"), "{ready}");
    let metrics = get(admin, "/metrics").await;
    for name in [
        "msgin5g_connections",
        "msgin5g_open_requests",
        "msgin5g_delivery_seconds_bucket",
        "store_",
        "msgin5g_store_queue",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_stopped_server_can_be_started_again_on_the_same_state() {
    let directory = Served::start("").await.stop().await;
    Served::start_in(directory, "").await.stop().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_state_is_refused() {
    let served = Served::start("").await;
    let refused = server::start(config(served.directory.path(), ""), CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, ServerError::Store(_)), "{refused}");
    served.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let served = Served::start("").await;
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let mut config = config(directory.path(), "");
    config.server.listen = served.running.coap_address();
    let refused = server::start(config, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, ServerError::Listen { address, .. } if address == served.running.coap_address()));
    served.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let served = Served::start("connections_max = 1").await;
    let address = served.running.coap_address();
    let first = TcpStream::connect(address).await.unwrap();
    // The first counts from when it is accepted, and connections are accepted in order.
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(read_to_end(&mut second).await, 0);
    drop(first);
    served.stop().await;
}

#[tokio::test]
async fn a_handshake_under_way_does_not_hold_up_a_stop() {
    let served = Served::start("").await;
    let mut stream = TcpStream::connect(served.running.coap_address()).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    served.stop().await;
    assert_eq!(read_to_end(&mut stream).await, 0);
}

#[tokio::test]
async fn the_api_speaks_to_nobody_without_a_certificate() {
    let served = Served::start("").await;
    let mut stream = TcpStream::connect(served.running.api_address()).await.unwrap();
    stream.write_all(b"GET /msgs-asregistration/v1/registrations HTTP/1.1\r\n\r\n").await.unwrap();
    let mut octets = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut octets)).await.unwrap();
    assert!(!octets.starts_with(b"HTTP"));
    served.stop().await;
}

#[tokio::test]
async fn notifications_of_a_nef_have_an_address_of_their_own_and_need_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let exposure = r#"
        [exposure]
        nef = "https://127.0.0.1:1"
        scs_as_id = "msgin5g"
        notification_listen = "127.0.0.1:0"
        notifier.dns_name = "nef.example"
    "#;
    let shutdown = CancellationToken::new();
    let running = server::start(config_with(directory.path(), "", exposure), shutdown.clone()).await.unwrap();
    let address = running.notification_address().unwrap();
    let mut stranger = TcpStream::connect(address).await.unwrap();
    stranger.write_all(b"POST /notifications/triggers/1 HTTP/1.1\r\n\r\n").await.unwrap();
    let mut octets = Vec::new();
    let _ = timeout(PATIENCE, stranger.read_to_end(&mut octets)).await.unwrap();
    assert!(!octets.starts_with(b"HTTP"));

    let path = |name: &str| directory.path().join(name);
    let tls =
        CertificateFiles { certificate: path("server.pem"), key: path("server.key"), ca: path("ca.pem"), crl: None };
    let client = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
    let uri = format!("https://{address}/notifications/triggers/0123456789abcdef0123456789abcdef");
    let refused = client.post_any(&uri, "x").await.unwrap_err();
    assert_eq!(refused.problem().and_then(|problem| problem.status), Some(403), "{refused}");
    assert!(get(running.admin_address(), "/metrics").await.contains("msgin5g_exposure_notifications_total"));
    shutdown.cancel();
    timeout(PATIENCE, running.stopped()).await.unwrap();
}

#[tokio::test]
async fn without_a_nef_there_is_no_address_for_its_notifications() {
    let served = Served::start("").await;
    assert_eq!(served.running.notification_address(), None);
    served.stop().await;
}

#[tokio::test]
async fn a_server_with_groups_topics_and_areas_serves_them_and_stops_though_nobody_of_theirs_is_there() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let more = r#"
        [group_management]
        url = "https://127.0.0.1:1"
        [broadcast]
        gateway = "https://127.0.0.1:1"
        [[broadcast_area]]
        area = "north"
        senders = ["*"]
        [[topic]]
        name = "*"
        publishers = ["*"]
        subscribers = ["*"]
    "#;
    let shutdown = CancellationToken::new();
    let running = server::start(config_with(directory.path(), "", more), shutdown.clone()).await.unwrap();
    let metrics = get(running.admin_address(), "/metrics").await;
    for name in ["msgin5g_fan_out_jobs 0", "msgin5g_topics 0", "msgin5g_topic_subscriptions 0"] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    // A certificate that is no AS's and no server's.
    let tls = CertificateFiles {
        certificate: directory.path().join("server.pem"),
        key: directory.path().join("server.key"),
        ca: directory.path().join("ca.pem"),
        crl: None,
    };
    let client = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
    let uri = format!("https://{}/msgs-topiclistevent/v1/request-topic-subscription", running.api_address());
    let body = serde_json::json!({"oriAddr": {"addrType": "UE", "addr": "alice"}, "msgTopics": ["news"]});
    let refusal = client.post::<_, serde_json::Value>(&uri, &body).await.unwrap_err();
    assert_eq!(refusal.problem().unwrap().status, Some(403));
    shutdown.cancel();
    timeout(PATIENCE, running.stopped()).await.unwrap();
}
