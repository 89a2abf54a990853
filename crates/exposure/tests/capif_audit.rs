//! The audit of the CAPIF core function: each request is one event, with who, what, how it came out and why. Alone in its
//! process and without an API exposing function, so that every event is of this test.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod support;

use http::Method;
use sbi::capif::connection::{Connection, Content};
use sbi::capif::invoker::Invoker;
use sbi::capif::publish::DiscoveryQuery;
use sbi::testing::audit::{AuditLog, Told};
use serde_json::{Value, json};
use support::{World, request};

const ONBOARD: &str = "POST /api-invoker-management/v1/onboardedInvokers";
const TOKEN: &str = "POST /capif-security/v1/securities/{securityId}/token";

#[tokio::test(flavor = "multi_thread")]
async fn each_request_to_the_core_function_is_one_event_with_subject_action_outcome_and_reason() {
    let log = AuditLog::record();
    let mut told = Told::of(log);
    let world = World::with(|config| config.tables.invokers_max = 2).await;
    let onboard =
        async |name: &str, credential: &str| Invoker::onboard(world.invoker_config(name, false), credential).await;

    assert!(onboard("mallory", "guessed").await.is_err());
    told.alone("unnamed", &format!("{ONBOARD} refused onboarding_credential_unknown"));
    let alice = onboard("alice", "token of alice").await.unwrap();
    let subject = format!("api-invoker {}", alice.id());
    told.alone(&subject, &format!("{ONBOARD} allowed credential"));
    assert!(onboard("mallory", "token of alice").await.is_err());
    told.alone("unnamed", &format!("{ONBOARD} refused onboarding_credential_spent"));

    alice.discover(DiscoveryQuery::default()).await.unwrap();
    told.alone(&subject, "GET /service-apis/v1/allServiceAPIs allowed certificate");
    assert!(alice.token(None).await.is_err());
    told.alone(&subject, &format!("{TOKEN} refused unauthorized_client"));
    let asked = async |method: Method, path: &str, body: Value| {
        request(&world, alice.files(), method, path, body).await.status.as_u16()
    };
    assert_eq!(asked(Method::GET, "/.well-known/jwks.json", Value::Null).await, 200);
    told.alone(&subject, "GET /.well-known/jwks.json allowed for_everybody");
    // What belongs to another, and what is there for another role.
    let context = "/capif-security/v1/trustedInvokers/another";
    assert_eq!(asked(Method::DELETE, context, Value::Null).await, 403);
    told.alone(&subject, "DELETE /capif-security/v1/trustedInvokers/{apiInvokerId} refused not_yours");
    assert_eq!(asked(Method::GET, "/logs/v1/apiInvocationLogs", Value::Null).await, 403);
    told.alone(&subject, "GET /logs/v1/apiInvocationLogs refused not_yours");
    let own = format!("/capif-events/v1/{}/subscriptions", alice.id());
    assert_eq!(asked(Method::POST, &own, json!([])).await, 400);
    told.alone(&subject, "POST /capif-events/v1/{subscriberId}/subscriptions refused malformed");
    assert_eq!(asked(Method::GET, "/no/such/thing", Value::Null).await, 404, "which is no request to an API");

    // Another's credential with the own certificate: it was the credential that decided.
    let key = openssl::pkey::PKey::generate_ed25519().unwrap().public_key_to_pem().unwrap();
    let bob = json!({"notificationDestination": "https://127.0.0.1:1/bob",
        "onboardingInformation": {"apiInvokerPublicKey": String::from_utf8(key).unwrap()}});
    let tls = transport::profile::mutual_tls_client(alice.files()).unwrap();
    let mut connection = Connection::open(&tls, &world.root()).await.unwrap();
    let path = "/api-invoker-management/v1/onboardedInvokers";
    let content = || Content::Json(bob.to_string().into_bytes());
    let answer = connection.request(Method::POST, path, Some("token of bob"), content()).await.unwrap();
    let id = support::body(&answer)["apiInvokerId"].as_str().unwrap().to_owned();
    told.alone(&format!("api-invoker {id}"), &format!("{ONBOARD} allowed credential"));

    alice.offboard().await.unwrap();
    told.alone(&subject, "DELETE /api-invoker-management/v1/onboardedInvokers/{onboardingId} allowed certificate");
    assert!(alice.discover(DiscoveryQuery::default()).await.is_err());
    told.alone(&subject, "GET /service-apis/v1/allServiceAPIs refused certificate_revoked");
    assert!(!log.mentions("token of"));
}
