//! A NEF that breaks the rules, and one that has forgotten its tokens, as an AF outside sees them.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use akma::{AKid, AfId, UaProtocolId};
use axum::Router;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use sbi::client_credentials::ClientCredentials;
use sbi::nef_akma::NefAkmaClient;
use sbi::testing::TestAuthority;
use sbi::{Json, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use transport::{KeySource, KeySourceError};

const NEF: &str = "11111111-1111-4111-8111-111111111111";
const AF: &str = "22222222-2222-4222-8222-222222222222";

/// Tokens are numbers, the latest is good.
#[derive(Default)]
struct Nef {
    issued: AtomicUsize,
}

async fn token(State(nef): State<Arc<Nef>>, body: String) -> Response {
    if body != "grant_type=client_credentials&client_id=af" {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_request"}))).into_response();
    }
    let number = nef.issued.fetch_add(1, Ordering::SeqCst) + 1;
    Json(json!({"access_token": format!("token-{number}"), "token_type": "Bearer", "expires_in": 600})).into_response()
}

async fn retrieve(State(nef): State<Arc<Nef>>, headers: HeaderMap) -> Response {
    let good = format!("Bearer token-{}", nef.issued.load(Ordering::SeqCst));
    if headers.get(AUTHORIZATION).is_none_or(|shown| *shown != *good) {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")]).into_response();
    }
    Json(json!({
        "kaf": "57928ae6395cc0034792b1fbde071749542ec5c57da5e4d302ac654060923771",
        "expiry": "2036-01-01T00:00:00Z", "gpsi": "msisdn-99900000001", "supi": "imsi-001010000000001"
    }))
    .into_response()
}

async fn started(authority: &TestAuthority) -> (SbiServer, Arc<Nef>, NefAkmaClient) {
    let nef = Arc::new(Nef::default());
    let router = Router::new()
        .route("/oauth2/token", post(token))
        .route("/3gpp-akma/v1/retrieve", post(retrieve))
        .with_state(Arc::clone(&nef));
    let tls = authority.issue(NEF, &[]);
    let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls, limits: ServerLimits::default() };
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    let root = format!("https://{}", server.local_addr());
    let http = authority.client(AF);
    let tokens = ClientCredentials::new(http.clone(), format!("{root}/oauth2/token"), "af", None);
    (server, nef, NefAkmaClient::new(&http, root, Arc::new(tokens)))
}

fn asked() -> (AfId, AKid) {
    (AfId::new("af.example.com".parse().unwrap(), UaProtocolId::TLS_1_3), "0.a@example.com".parse().unwrap())
}

#[tokio::test]
async fn a_supi_that_a_nef_tells_is_passed_over_and_the_gpsi_is_the_ues_name() {
    let authority = TestAuthority::new();
    let (_server, _, client) = started(&authority).await;
    let (af_id, a_kid) = asked();
    let key = client.retrieve(af_id, a_kid).await.unwrap().unwrap();
    assert_eq!(key.ue_id.unwrap().as_str(), "msisdn-99900000001");
    assert!(!format!("{:?}", key.gpsi).contains("imsi"));
}

#[tokio::test]
async fn one_token_serves_until_it_is_refused_then_another_is_asked_for_once() {
    let authority = TestAuthority::new();
    let (_server, nef, client) = started(&authority).await;
    for _ in 0..3 {
        let (af_id, a_kid) = asked();
        client.retrieve(af_id, a_kid).await.unwrap().unwrap();
    }
    assert_eq!(nef.issued.load(Ordering::SeqCst), 1);
    // The NEF has a new key: what it issued before is void.
    nef.issued.store(5, Ordering::SeqCst);
    let (af_id, a_kid) = asked();
    client.retrieve(af_id, a_kid).await.unwrap().unwrap();
    assert_eq!(nef.issued.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn without_a_token_there_is_no_key_and_the_fault_is_not_the_a_kids() {
    let authority = TestAuthority::new();
    let (server, _, _) = started(&authority).await;
    let root = format!("https://{}", server.local_addr());
    let http = authority.client(AF);
    let tokens = ClientCredentials::new(http.clone(), format!("{root}/oauth2/token"), "another", None);
    let client = NefAkmaClient::new(&http, root, Arc::new(tokens));
    let (af_id, a_kid) = asked();
    let outcome = client.retrieve(af_id, a_kid).await;
    assert!(matches!(outcome, Err(KeySourceError::Unavailable(_))), "{outcome:?}");
}
