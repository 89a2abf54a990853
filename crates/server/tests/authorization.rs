//! The server's API for Application Servers where access tokens are needed.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use sbi::testing::TestAuthority;
use sbi::testing::tokens::{Connection, TestIssuer, challenge, problem};
use tokio_util::sync::CancellationToken;

const SERVER: &str = "a0000000-0000-4000-8000-000000000000";
const AS: &str = "b0000000-0000-4000-8000-000000000000";
const GATEWAY: &str = "c0000000-0000-4000-8000-000000000000";
const NRF: &str = "d0000000-0000-4000-8000-000000000000";

#[tokio::test]
async fn an_application_server_needs_a_token_and_a_peer_by_tls_does_not() {
    let authority = TestAuthority::new();
    let issuer = TestIssuer::new(&authority, NRF);
    let tls = authority.issue(SERVER, &[]);
    let directory = authority.directory().display();
    let config = format!(
        r#"
        server = {{ fqdn = "msgin5g.lab.example", listen = "127.0.0.1:0" }}
        certificates = {{ certificate = "{}", key = "{}", ca = "{}" }}
        akma = {{ aanf = "https://127.0.0.1:1" }}
        configuration_function = {{ url = "https://127.0.0.1:1" }}
        api = {{ listen = "127.0.0.1:0" }}
        admin = {{ listen = "127.0.0.1:0" }}
        store = {{ path = "{directory}/state" }}
        application_server = [{{ as_service_id = "billing@example.com", nf_instance_id = "{AS}" }}]
        [authorization]
        issuer = [{{ nf_instance_id = "{NRF}", keys = "{}" }}]
        peer = [{{ nf_instance_id = "{GATEWAY}", mode = "tls" }}]
        "#,
        tls.certificate.display(),
        tls.key.display(),
        tls.ca.display(),
        issuer.entry().keys.display(),
    );
    let shutdown = CancellationToken::new();
    let running = server::start(toml::from_str(&config).unwrap(), shutdown.clone()).await.unwrap();
    let port = running.api_address().port();
    let request = |path: &str, token: Option<String>| {
        let uri = format!("https://localhost:{port}{path}");
        let request = Request::builder().method(Method::POST).uri(uri).header(CONTENT_TYPE, "application/json");
        let request = match token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        request.body(Bytes::from_static(b"{}")).unwrap()
    };
    let application_server = Connection::open(&authority.issue(AS, &[]), port).await;
    for (path, service) in [
        ("/msgs-asregistration/v1/registrations", "msgs-asregistration"),
        ("/msgs-msgdelivery/v1/deliver-as-message", "msgs-msgdelivery"),
        ("/msgs-topiclistevent/v1/request-topic-subscription", "msgs-topiclistevent"),
    ] {
        let answer = application_server.send(request(path, None)).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(challenge(answer.headers()), format!(r#"Bearer realm="{service}""#));
        let other = issuer.token(AS, "AF", "ss-upr");
        let answer = application_server.send(request(path, Some(other))).await;
        assert!(problem(&answer).has_cause("TOKEN_SCOPE"), "{path}");
        // With a token, or from a peer that needs none, it is the body that is wrong.
        let good = issuer.token(AS, "AF", service);
        let answer = application_server.send(request(path, Some(good))).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}: {answer:?}");
    }
    let gateway = Connection::open(&authority.issue(GATEWAY, &[]), port).await;
    let path = "/msgs-msgdelivery/v1/deliver-ue-message";
    assert_eq!(gateway.send(request(path, None)).await.status(), StatusCode::BAD_REQUEST);
    let expired = issuer.token(GATEWAY, "AF", "ss-upr");
    assert_eq!(gateway.send(request(path, Some(expired))).await.status(), StatusCode::FORBIDDEN);
    shutdown.cancel();
    running.stopped().await;
}
