//! curl, with nghttp2 and its own OpenSSL, as a client that is not ours.

#![allow(clippy::unwrap_used)]

use std::process::Output;

use axum::Router;
use axum::routing::post;
use sbi::testing::TestAuthority;
use sbi::{CertificateFiles, Json, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";

async fn start(authority: &TestAuthority) -> (SbiServer, String) {
    let config = SbiServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: authority.issue(SERVER, &[]),
        limits: ServerLimits::default(),
    };
    let router = Router::new().route("/echo", post(async |Json(value): Json<Value>| Json(value)));
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    let uri = format!("https://127.0.0.1:{}/echo", server.local_addr().port());
    (server, uri)
}

async fn curl(files: Option<&CertificateFiles>, authority: &TestAuthority, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30", "--write-out", " %{http_code} %{http_version}"]);
    command.arg("--cacert").arg(authority.ca());
    if let Some(files) = files {
        command.arg("--cert").arg(&files.certificate).arg("--key").arg(&files.key);
    }
    command.args(arguments).output().await.unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn curl_is_served_over_http2_with_tls_1_3_and_1_2() {
    let authority = TestAuthority::new();
    let (_server, uri) = start(&authority).await;
    let files = authority.issue(CLIENT, &[]);
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        let version = if version == "--tls-max=1.2" { vec!["--tls-max", "1.2"] } else { vec![version] };
        let json = ["--http2", "-H", "Content-Type: application/json", "-d", "{\"a\":1}", &uri];
        let output = curl(Some(&files), &authority, &[version.as_slice(), &json].concat()).await;
        assert_eq!(text(&output), "{\"a\":1} 200 2", "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn curl_is_refused_without_a_certificate_with_another_authority_s_or_without_http2() {
    let authority = TestAuthority::new();
    let (_server, uri) = start(&authority).await;
    let ours = authority.issue(CLIENT, &[]);
    let another_authority = TestAuthority::new();
    let theirs = another_authority.issue(CLIENT, &[]);
    assert!(!curl(None, &authority, &["--http2", "-d", "{}", &uri]).await.status.success());
    assert!(!curl(Some(&theirs), &authority, &["--http2", "-d", "{}", &uri]).await.status.success());
    assert!(!curl(Some(&ours), &authority, &["--http1.1", "-d", "{}", &uri]).await.status.success());
    assert!(!curl(Some(&ours), &authority, &["--http2", "--tls-max", "1.1", "-d", "{}", &uri]).await.status.success());
}

#[tokio::test]
async fn curl_reads_refusals_as_problem_details() {
    let authority = TestAuthority::new();
    let (_server, uri) = start(&authority).await;
    let files = authority.issue(CLIENT, &[]);
    let form = curl(Some(&files), &authority, &["--http2", "-d", "{}", &uri]).await;
    assert!(text(&form).ends_with(" 415 2"), "{form:?}");
    let broken = ["--http2", "-H", "Content-Type: application/json", "-d", "{\"a\"", &uri];
    let broken = curl(Some(&files), &authority, &broken).await;
    assert!(text(&broken).contains("INVALID_MSG_FORMAT") && text(&broken).ends_with(" 400 2"), "{}", text(&broken));
    // The 431 comes with a stream reset, which curl may see first.
    let long_header = format!("X-Long: {}", "x".repeat(20_000));
    let json = ["--http2", "-H", "Content-Type: application/json", "-d", "{}", &uri];
    let long = curl(Some(&files), &authority, &[["-H", &long_header].as_slice(), &json].concat()).await;
    assert!(text(&long).ends_with(" 431 2") || !long.status.success(), "{}", text(&long));
    let allow = curl(Some(&files), &authority, &["--http2", "--include", &uri]).await;
    assert!(
        text(&allow).contains("application/problem+json") && text(&allow).contains("allow: POST"),
        "{}",
        text(&allow)
    );
}
