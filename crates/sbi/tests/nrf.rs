//! What the NRF's client makes of NRFs that are of another make, or wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use http::{HeaderMap, StatusCode};
use sbi::admin::Health;
use sbi::nrf::{NrfClient, NrfConfig, NrfLimits, OwnFunction, OwnService};
use sbi::testing::TestAuthority;
use sbi::{Json, SbiError, SbiServer, SbiServerConfig, ServerLimits, TokenSource, TokenTarget};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NRF: &str = "11111111-1111-4111-8111-111111111111";
const OWN: &str = "22222222-2222-4222-8222-222222222222";
const PRODUCER: &str = "33333333-3333-4333-8333-333333333333";

/// An NRF below the path `/core` that answers what it is told to.
#[derive(Clone, Default)]
struct Scripted {
    /// Status and body of answers to token requests.
    token: Arc<Mutex<(u16, Value)>>,
    forms: Arc<Mutex<Vec<String>>>,
    assertions: Arc<Mutex<Vec<Option<String>>>>,
    profiles: Arc<Mutex<Vec<Value>>>,
    heart_beats: Arc<AtomicUsize>,
}

async fn token(State(nrf): State<Scripted>, headers: HeaderMap, form: String) -> Response {
    nrf.forms.lock().unwrap().push(form);
    let assertion = headers.get("3gpp-Sbi-Client-Credentials").map(|value| value.to_str().unwrap().to_owned());
    nrf.assertions.lock().unwrap().push(assertion);
    let (status, body) = nrf.token.lock().unwrap().clone();
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn register(State(nrf): State<Scripted>, Json(mut profile): Json<Value>) -> (StatusCode, Json<Value>) {
    nrf.profiles.lock().unwrap().push(profile.clone());
    profile["heartBeatTimer"] = json!(1);
    profile["nrfOwnMember"] = json!({"of": "another make"});
    (StatusCode::CREATED, Json(profile))
}

/// Every other one with 200 and a body of few members, the third time as if forgotten.
async fn heart_beat(State(nrf): State<Scripted>, headers: HeaderMap, Json(items): Json<Value>) -> Response {
    assert_eq!(headers["content-type"], "application/json-patch+json");
    assert_eq!(items, json!([{"op": "replace", "path": "/nfStatus", "value": "REGISTERED"}]));
    match nrf.heart_beats.fetch_add(1, Ordering::SeqCst) {
        0 => StatusCode::NO_CONTENT.into_response(),
        1 => Json(json!({"nfInstanceId": OWN, "nfType": "AUSF", "nfStatus": "REGISTERED"})).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn started(authority: &TestAuthority) -> (Scripted, NrfConfig) {
    let nrf = Scripted::default();
    let instance = put(register).patch(heart_beat).delete(async || StatusCode::NO_CONTENT);
    let router = Router::new()
        .route("/core/oauth2/token", post(token))
        .route("/core/nnrf-nfm/v1/nf-instances/{id}", instance)
        .with_state(nrf.clone());
    let listen = ([127, 0, 0, 1], 0).into();
    let config = SbiServerConfig { listen, tls: authority.issue(NRF, &[]), limits: ServerLimits::default() };
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    let root = format!("https://127.0.0.1:{}/core/", server.local_addr().port());
    (nrf, NrfConfig { limits: NrfLimits { refusal_milliseconds: 1, ..NrfLimits::default() }, ..NrfConfig::new(root) })
}

fn aanf() -> TokenTarget {
    TokenTarget { nf_type: "AANF".to_owned(), nf_instance_id: None }
}

#[tokio::test]
async fn a_root_with_a_path_is_kept_and_the_form_is_that_of_29_510() {
    let authority = TestAuthority::new();
    let (nrf, config) = started(&authority).await;
    *nrf.token.lock().unwrap() = (200, json!({"access_token": "a.b.c", "token_type": "bearer"}));
    let client = NrfClient::new(&config, &authority.issue(OWN, &[]), "AUSF").unwrap();
    let token = client.token(&aanf(), "naanf-akma naanf-akma:anchorkey").await.unwrap();
    assert_eq!(&*token, "a.b.c");
    assert_eq!(
        nrf.forms.lock().unwrap()[0],
        format!(
            "grant_type=client_credentials&nfInstanceId={OWN}&nfType=AUSF&targetNfType=AANF\
            &scope=naanf-akma+naanf-akma%3Aanchorkey"
        )
    );
    assert_eq!(nrf.assertions.lock().unwrap()[0], None);
}

#[tokio::test]
async fn an_assertion_carries_certificate_subject_audience_and_a_short_life() {
    use base64::Engine;
    let authority = TestAuthority::new();
    let (nrf, config) = started(&authority).await;
    *nrf.token.lock().unwrap() = (200, json!({"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 60}));
    let tls = authority.issue(OWN, &[]);
    let client = NrfClient::new(&NrfConfig { cca: true, ..config }, &tls, "AUSF").unwrap();
    client.token(&aanf(), "naanf-akma").await.unwrap();
    let assertion = nrf.assertions.lock().unwrap()[0].clone().unwrap();
    let part = |number: usize| -> Value {
        let text = assertion.split('.').nth(number).unwrap();
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    assert_eq!(part(0)["alg"], "ES256");
    assert_eq!(part(0)["x5c"].as_array().unwrap().len(), 1);
    assert_eq!((&part(1)["sub"], &part(1)["aud"]), (&json!(OWN), &json!(["NRF"])));
    assert_eq!(part(1)["exp"].as_u64().unwrap() - part(1)["iat"].as_u64().unwrap(), 60);
}

#[tokio::test]
async fn answers_that_are_no_usable_token_are_errors_of_the_right_kind() {
    let authority = TestAuthority::new();
    let (nrf, config) = started(&authority).await;
    let client = NrfClient::new(&config, &authority.issue(OWN, &[]), "AUSF").unwrap();
    for (number, (status, body, transient)) in [
        (200, json!({"access_token": "a b", "token_type": "Bearer"}), false),
        (200, json!({"access_token": "", "token_type": "Bearer"}), false),
        (200, json!({"access_token": "x".repeat(10_000), "token_type": "Bearer"}), false),
        (200, json!({"access_token": "a.b.c", "token_type": "mac"}), false),
        (200, json!({"token_type": "Bearer"}), false),
        (200, json!([]), false),
        (400, json!({"error": "invalid_scope"}), false),
        (401, json!({"error": "invalid_client"}), false),
        (403, json!({"cause": "SOMETHING"}), false),
        (503, json!({"cause": "NF_CONGESTION"}), true),
    ]
    .into_iter()
    .enumerate()
    {
        *nrf.token.lock().unwrap() = (status, body.clone());
        // A scope each, so that none meets the refusal of another.
        let error = client.token(&aanf(), &format!("scope-{number}")).await.unwrap_err();
        assert!(matches!(error, SbiError::NrfRefused { .. }), "{body} {error:?}");
        assert_eq!(error.is_transient(), transient, "{body} {error:?}");
        assert!(!error.to_string().contains("a.b.c"), "{error}");
    }
}

#[tokio::test]
async fn signs_of_life_are_given_as_often_as_told_and_who_is_forgotten_registers_anew() {
    let authority = TestAuthority::new();
    let (nrf, config) = started(&authority).await;
    let config = NrfConfig { api_root: Some("https://ausf.example/front".to_owned()), ..config };
    let client = NrfClient::new(&config, &authority.issue(OWN, &[]), "AUSF").unwrap();
    let listen = ([0, 0, 0, 0], 8443).into();
    let service = OwnService { name: "nausf-auth", version: "v1", listen, consumers: &["AMF"] };
    let own = OwnFunction { services: vec![service], oauth2_required: true, ..OwnFunction::default() };
    let shutdown = CancellationToken::new();
    client.keep_registered(&own, Health::new(), shutdown.clone());
    let twice = async {
        while nrf.profiles.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), twice).await.unwrap();
    assert!(nrf.heart_beats.load(Ordering::SeqCst) >= 3);
    shutdown.cancel();
    client.stopped().await;

    let profile = nrf.profiles.lock().unwrap()[0].clone();
    assert_eq!((&profile["nfType"], &profile["fqdn"]), (&json!("AUSF"), &json!("ausf.example")));
    let service = &profile["nfServices"][0];
    assert_eq!((&service["apiPrefix"], &service["ipEndPoints"]), (&json!("front"), &json!([{"port": 443}])));
    assert_eq!((&service["allowedNfTypes"], &service["oauth2Required"]), (&json!(["AMF"]), &json!(true)));
    assert_eq!(service["versions"], json!([{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0"}]));
}

/// A producer that notes what tokens it was shown.
async fn producer(authority: &TestAuthority) -> (String, Arc<Mutex<Vec<Option<String>>>>) {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let take = post(async move |headers: HeaderMap| {
        let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        seen.lock().unwrap().push(token);
        StatusCode::NO_CONTENT
    });
    let (listen, tls) = (([127, 0, 0, 1], 0).into(), authority.issue(PRODUCER, &[]));
    let config = SbiServerConfig { listen, tls, limits: ServerLimits::default() };
    let router = Router::new().route("/ask", take);
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    (format!("https://127.0.0.1:{}/ask", server.local_addr().port()), shown)
}

#[tokio::test]
async fn a_request_that_the_nrf_gives_no_token_for_is_not_sent_unless_its_producers_register_nowhere() {
    let authority = TestAuthority::new();
    let (nrf, config) = started(&authority).await;
    let (uri, shown) = producer(&authority).await;
    let ask = async |config: &NrfConfig, nf_type: &'static str, scope: &'static str| {
        let client = NrfClient::new(config, &authority.issue(OWN, &[]), "AF").unwrap();
        let http = client.authorize(authority.client(OWN)).for_service(nf_type, scope);
        http.post_any(&uri, &json!({})).await.map(drop)
    };
    let count = || shown.lock().unwrap().len();

    // Nobody that the NRF knows offers it to us.
    *nrf.token.lock().unwrap() = (400, json!({"error": "invalid_scope"}));
    for (nf_type, scope) in [("AANF", "naanf-akma naanf-akma:anchorkey"), ("UDM", "nudm-ueau"), ("AF", "ss-upr")] {
        let answer = ask(&config, nf_type, scope).await;
        assert!(matches!(&answer, Err(SbiError::NrfRefused { .. })), "{scope}: {answer:?}");
    }
    assert_eq!(count(), 0, "nothing was sent");
    // Gateways and the northbound APIs of a NEF are not the NRF's to know.
    for (nf_type, scope) in [("AF", "msgg-bgdelivery"), ("NEF", "3gpp-device-triggering")] {
        ask(&config, nf_type, scope).await.unwrap();
        assert_eq!(shown.lock().unwrap().pop().unwrap(), None, "{scope}");
    }
    // One that does register is shown a token all the same.
    *nrf.token.lock().unwrap() = (200, json!({"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 60}));
    ask(&config, "AF", "msgg-bgdelivery").await.unwrap();
    assert_eq!(shown.lock().unwrap().pop().unwrap().as_deref(), Some("Bearer a.b.c"));

    // Other refusals, and silence, say nothing about the producer.
    for (status, body) in [(400, json!({"error": "invalid_client"})), (503, json!({}))] {
        *nrf.token.lock().unwrap() = (status, body.clone());
        let answer = ask(&config, "AF", "msgg-bgdelivery").await;
        assert!(matches!(&answer, Err(SbiError::NrfRefused { .. })), "{body}: {answer:?}");
    }
    assert_eq!(count(), 0, "nothing was sent");

    // The list is the operator's.
    *nrf.token.lock().unwrap() = (400, json!({"error": "invalid_scope"}));
    let own = NrfConfig { without_token: ["naanf-akma".to_owned()].into(), ..config };
    ask(&own, "AANF", "naanf-akma naanf-akma:anchorkey").await.unwrap();
    assert_eq!(shown.lock().unwrap().pop().unwrap(), None);
    assert!(ask(&own, "AANF", "naanf-akma nudm-sdm").await.is_err(), "every service of the scope must be on it");
    assert!(ask(&own, "AF", "msgg-bgdelivery").await.is_err());
}
