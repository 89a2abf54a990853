//! What CAPIF refuses, each tried from outside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use sbi::capif::connection::{Answer, Connection, Content};
use sbi::capif::invoker::{Agreement, Invoker};
use sbi::capif::publish::SecurityMethod;
use sbi::testing::audit::AuditLog;
use sbi::testing::tokens::status_before_the_body;
use sbi::token::TokenSigner;
use sbi::{CertificateFiles, SbiError};
use serde_json::{Value, json};
use support::{
    API, Aef, ISSUER, OTHER_API, RETRIEVE, World, body, call, cause, decisions, provider_files, registration, request,
};

const OAUTH: SecurityMethod = SecurityMethod::Oauth;

fn refused(error: &SbiError) -> (u16, String) {
    let problem = error.problem().unwrap();
    (problem.status.unwrap(), problem.cause.as_deref().unwrap_or_default().to_owned())
}

async fn call_with(invoker: &Invoker, agreement: &Agreement, token: Option<&str>, path: &str) -> Answer {
    let mut connection = invoker.connect_to(agreement).await.unwrap();
    connection.request(Method::POST, path, token, Content::Json(b"{}".to_vec())).await.unwrap()
}

async fn agreed(world: &World) -> (Aef, Invoker, Agreement) {
    let aef = world.aef("nef", &[API], 30).await;
    let invoker = world.onboard("alice").await;
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    (aef, invoker, agreement)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_unknown_or_was_used_onboards_nobody() {
    let world = World::new().await;
    let config = world.invoker_config("mallory", false);
    let error = Invoker::onboard(config.clone(), "guessed").await.unwrap_err();
    assert_eq!(refused(&error), (401, "ONBOARDING_CREDENTIAL_UNKNOWN".to_owned()));
    world.onboard("alice").await;
    let error = Invoker::onboard(config.clone(), "token of alice").await.unwrap_err();
    assert_eq!(refused(&error), (401, "ONBOARDING_CREDENTIAL_SPENT".to_owned()));
    // A provider's credential onboards no invoker.
    let error = Invoker::onboard(config, "token of nef").await.unwrap_err();
    assert_eq!(refused(&error), (401, "ONBOARDING_CREDENTIAL_UNKNOWN".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_stays_spent_over_a_restart() {
    let mut world = World::new().await;
    world.onboard("alice").await;
    world.stop_core().await;
    world.start_core().await;
    let error = Invoker::onboard(world.invoker_config("again", false), "token of alice").await.unwrap_err();
    assert_eq!(refused(&error), (401, "ONBOARDING_CREDENTIAL_SPENT".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_onboarding_does_not_spend_the_credential() {
    let world = World::new().await;
    let mut config = world.invoker_config("alice", false);
    config.notification_destination = "http://plain.example".to_owned();
    let error = Invoker::onboard(config, "token of alice").await.unwrap_err();
    assert_eq!(refused(&error), (400, "MANDATORY_IE_INCORRECT".to_owned()));
    world.onboard("alice").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_credential_registers_once() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let tls = transport::capif::server_authenticated_client(&world.ca()).unwrap();
    let mut connection = Connection::open(&tls, &world.root()).await.unwrap();
    let key = openssl::pkey::PKey::generate_ed25519().unwrap().public_key_to_pem().unwrap();
    let key = String::from_utf8(key).unwrap();
    for (credential, reason) in
        [("token of nef", "REGISTRATION_CREDENTIAL_SPENT"), ("guessed", "REGISTRATION_CREDENTIAL_UNKNOWN")]
    {
        let details = json!({"regSec": credential,
            "apiProvFuncs": [{"regInfo": {"apiProvPubKey": key}, "apiProvFuncRole": "AMF"}]});
        let path = "/api-provider-management/v1/registrations";
        let content = Content::Json(details.to_string().into_bytes());
        let answer = connection.request(Method::POST, path, None, content).await.unwrap();
        assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::UNAUTHORIZED, reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublished_api_is_neither_agreed_upon_nor_called() {
    let world = World::new().await;
    let (aef, invoker, agreement) = agreed(&world).await;
    let aef_id = aef.function.aef_id().unwrap();
    let path = format!("/capif-security/v1/trustedInvokers/{}", invoker.id());
    let wish = json!({"notificationDestination": "https://127.0.0.1:1/x", "securityInfo":
        [{"aefId": aef_id, "apiId": "11111111-1111-4111-8111-111111111111", "prefSecurityMethods": ["OAUTH"]}]});
    let answer = request(&world, invoker.files(), Method::PUT, &path, wish).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "API_NOT_PUBLISHED"));
    let token = invoker.token(None).await.unwrap().access_token;
    let answer = call_with(&invoker, &agreement, Some(&token), "/msgs-msgdelivery/v1/retrieve").await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "API_NOT_PUBLISHED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unpublishing_ends_calls_at_once_where_the_aef_is_told() {
    let world = World::new().await;
    let (_aef, invoker, agreement) = agreed(&world).await;
    let token = invoker.token(None).await.unwrap().access_token;
    assert_eq!(call_with(&invoker, &agreement, Some(&token), RETRIEVE).await.status, StatusCode::OK);
    let nef = registration(&world, "nef");
    let path = format!(
        "/published-apis/v1/{}/service-apis/{}",
        nef["apf_id"].as_str().unwrap(),
        nef["apis"][0][1].as_str().unwrap()
    );
    let files = provider_files(&world, "nef", "apf");
    assert_eq!(request(&world, &files, Method::DELETE, &path, Value::Null).await.status, StatusCode::NO_CONTENT);
    until_refused(&invoker, &agreement, &token, "API_NOT_ALLOWED").await;
    let error = invoker.token(None).await.unwrap_err();
    assert_eq!(refused(&error).0, 400);
}

/// A check interval of 30 s would let calls pass far longer than this waits: what ends them is `revoke-authorization`.
async fn until_refused(invoker: &Invoker, agreement: &Agreement, token: &str, reason: &str) {
    let mut last = String::new();
    for _ in 0..200 {
        let answer = call_with(invoker, agreement, Some(token), RETRIEVE).await;
        last = cause(&answer);
        if last == reason {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("still {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_off_boarding_nothing_is_left() {
    let world = World::new().await;
    let (_aef, invoker, agreement) = agreed(&world).await;
    let token = invoker.token(None).await.unwrap().access_token;
    assert_eq!(call_with(&invoker, &agreement, Some(&token), RETRIEVE).await.status, StatusCode::OK);
    invoker.offboard().await.unwrap();
    until_refused(&invoker, &agreement, &token, "INVOKER_NOT_TRUSTED").await;
    assert_eq!(refused(&invoker.token(None).await.unwrap_err()), (403, "CERTIFICATE_REVOKED".to_owned()));
    let error = invoker.discover(Default::default()).await.unwrap_err();
    assert_eq!(refused(&error), (403, "CERTIFICATE_REVOKED".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_method_of_a_new_agreement_is_the_one_that_counts_at_once() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 3_600).await;
    let invoker = world.onboard("alice").await;
    for method in [OAUTH, SecurityMethod::Pki, OAUTH, SecurityMethod::Pki] {
        let answer = call(&invoker, method.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{method:?}: {}", answer.problem());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_agreement_no_longer_covers_ends_at_once_where_the_aef_is_told() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API, OTHER_API], 3_600).await;
    let invoker = world.onboard("alice").await;
    let nef = registration(&world, "nef");
    let path = format!("/capif-security/v1/trustedInvokers/{}", invoker.id());
    let agree = async |api_id: Option<&Value>| {
        let mut entry = json!({"aefId": nef["aef_id"], "prefSecurityMethods": ["OAUTH"]});
        api_id.map(|api_id| entry.as_object_mut().unwrap().insert("apiId".to_owned(), api_id.clone()));
        let wish = json!({"notificationDestination": "https://127.0.0.1:1/x", "securityInfo": [entry]});
        assert_eq!(request(&world, invoker.files(), Method::PUT, &path, wish).await.status, StatusCode::CREATED);
    };
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    agree(None).await;
    let token = invoker.token(None).await.unwrap().access_token;
    assert_eq!(call_with(&invoker, &agreement, Some(&token), RETRIEVE).await.status, StatusCode::OK);
    let apis = nef["apis"].as_array().unwrap();
    let other = apis.iter().find(|api| api[0] == OTHER_API).map(|api| &api[1]).unwrap();
    agree(Some(other)).await;
    until_refused(&invoker, &agreement, &token, "API_NOT_ALLOWED").await;
    // And covered again, it is served again.
    agree(None).await;
    assert_eq!(call_with(&invoker, &agreement, Some(&token), RETRIEVE).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_that_is_refused_again_and_again_is_asked_about_so_often_and_no_more() {
    let world = World::with(|config| config.admin = Some(([127, 0, 0, 1], 0).into())).await;
    let (_aef, invoker, agreement) = agreed(&world).await;
    // Questions are answered 200; the log of each refusal, which is sent, too, 201.
    let answered = |metrics: &str| -> u64 {
        let lines = metrics.lines();
        let count = lines.filter_map(|line| line.strip_prefix("capif_sbi_requests_total{status=\"200\"} ")).next();
        count.unwrap().parse().unwrap()
    };
    let answered_before = answered(&world.metrics());
    let begun = std::time::Instant::now();
    let mut connection = invoker.connect_to(&agreement).await.unwrap();
    for _ in 0..200 {
        let answer = connection.request(Method::POST, RETRIEVE, None, Content::Json(b"{}".to_vec())).await.unwrap();
        assert_eq!(cause(&answer), "NO_TOKEN");
    }
    // Of a context and of a policy each time.
    let seconds = begun.elapsed().as_secs() + 2;
    let asked = answered(&world.metrics()) - answered_before;
    assert!((20..=seconds * 10 * 2).contains(&asked), "asked {asked} times in {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_decision_is_told_to_the_audit_with_outcome_and_reason() {
    let world = World::with(|config| config.admin = Some(([127, 0, 0, 1], 0).into())).await;
    let (aef, invoker, agreement) = agreed(&world).await;
    let credentials = decisions(&world.metrics(), "allowed", "credential");
    assert_eq!(credentials, 2, "one provider registered, one invoker onboarded");
    let certificates = decisions(&world.metrics(), "allowed", "certificate");
    Invoker::onboard(world.invoker_config("mallory", false), "guessed").await.unwrap_err();
    let path = "/capif-security/v1/trustedInvokers/another";
    request(&world, invoker.files(), Method::GET, path, Value::Null).await;
    let own = format!("/capif-security/v1/trustedInvokers/{}", invoker.id());
    request(&world, invoker.files(), Method::PUT, &own, json!({"nothing": "of it"})).await;
    invoker.discover(Default::default()).await.unwrap();
    let metrics = world.metrics();
    for reason in ["onboarding_credential_unknown", "not_yours", "malformed"] {
        assert_eq!(decisions(&metrics, "refused", reason), 1, "{reason}: {metrics}");
    }
    assert_eq!(decisions(&metrics, "allowed", "certificate"), certificates + 1);

    call_with(&invoker, &agreement, None, RETRIEVE).await;
    call_with(&invoker, &agreement, Some("a.b.c"), RETRIEVE).await;
    call_with(&invoker, &agreement, None, "/nothing/v1/retrieve").await;
    let metrics = aef.audit_metrics();
    for reason in ["token_missing", "token_malformed", "api_not_published"] {
        assert_eq!(decisions(&metrics, "refused", reason), 1, "{reason}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_off_boarding_that_the_aef_is_not_told_of_takes_effect_within_the_check_interval() {
    // Notifications may go nowhere, so that `revoke-authorization` does not arrive.
    let world = World::with(|config| config.tables.notifications_max = 0).await;
    let aef = world.aef("nef", &[API], 1).await;
    let invoker = world.onboard("alice").await;
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    let token = invoker.token(None).await.unwrap().access_token;
    assert_eq!(call_with(&invoker, &agreement, Some(&token), RETRIEVE).await.status, StatusCode::OK);
    invoker.offboard().await.unwrap();
    until_refused(&invoker, &agreement, &token, "INVOKER_NOT_TRUSTED").await;
    drop(aef);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_invoker_acts_for_another() {
    let world = World::new().await;
    let (_aef, alice, _agreement) = agreed(&world).await;
    let bob = world.onboard("bob").await;
    let id = alice.id();
    let wish = json!({"notificationDestination": "https://127.0.0.1:1/x", "securityInfo":
        [{"aefId": "a", "prefSecurityMethods": ["OAUTH"]}]});
    let subscription = json!({"events": ["SERVICE_API_UPDATE"], "notificationDestination": "https://127.0.0.1:1/x"});
    for (method, path, content) in [
        (Method::GET, format!("/capif-security/v1/trustedInvokers/{id}"), Value::Null),
        (Method::PUT, format!("/capif-security/v1/trustedInvokers/{id}"), wish.clone()),
        (Method::DELETE, format!("/capif-security/v1/trustedInvokers/{id}"), Value::Null),
        (Method::POST, format!("/capif-security/v1/trustedInvokers/{id}/update"), wish),
        (Method::POST, format!("/capif-security/v1/securities/{id}/token"), json!({})),
        (Method::GET, format!("/service-apis/v1/allServiceAPIs?api-invoker-id={id}"), Value::Null),
        (Method::DELETE, format!("/api-invoker-management/v1/onboardedInvokers/{id}"), Value::Null),
        (Method::PATCH, format!("/api-invoker-management/v1/onboardedInvokers/{id}"), json!({})),
        (Method::POST, format!("/capif-events/v1/{id}/subscriptions"), subscription),
    ] {
        let answer = request(&world, bob.files(), method.clone(), &path, content).await;
        assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "NOT_YOURS"), "{method} {path}");
    }
    assert_eq!(call(&alice, OAUTH).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_invoker_is_refused() {
    let world = World::new().await;
    let (_aef, alice, _) = agreed(&world).await;
    let bob = world.onboard("bob").await;
    let agreement = bob.negotiate(API, vec![OAUTH]).await.unwrap();
    let token = alice.token(None).await.unwrap().access_token;
    let answer = call_with(&bob, &agreement, Some(&token), RETRIEVE).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::UNAUTHORIZED, "INVALID_TOKEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_aef_is_refused() {
    let world = World::new().await;
    let _nef = world.aef("nef", &[API], 30).await;
    let _other = world.aef("other", &[OTHER_API], 30).await;
    let invoker = world.onboard("alice").await;
    let nef = registration(&world, "nef")["aef_id"].as_str().unwrap().to_owned();
    let other = registration(&world, "other")["aef_id"].as_str().unwrap().to_owned();
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    let path = format!("/capif-security/v1/trustedInvokers/{}", invoker.id());
    let wish = json!({"notificationDestination": "https://127.0.0.1:1/x", "securityInfo": [
        {"aefId": nef, "prefSecurityMethods": ["OAUTH"]}, {"aefId": other, "prefSecurityMethods": ["OAUTH"]}]});
    assert_eq!(request(&world, invoker.files(), Method::PUT, &path, wish).await.status, StatusCode::CREATED);
    let token = invoker.token(Some(&format!("3gpp#{other}:{OTHER_API}"))).await.unwrap();
    assert_eq!(token.scope.as_deref(), Some(format!("3gpp#{other}:{OTHER_API}").as_str()));
    let answer = call_with(&invoker, &agreement, Some(&token.access_token), RETRIEVE).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "INSUFFICIENT_SCOPE"));
    // Without a scope, the token is for both.
    let token = invoker.token(None).await.unwrap().access_token;
    assert_eq!(call_with(&invoker, &agreement, Some(&token), RETRIEVE).await.status, StatusCode::OK);
}

/// The status of a POST by the holder of `files` whose body does not come.
async fn without_body(files: &CertificateFiles, root: &str, path: &str, token: &str) -> StatusCode {
    let request = http::Request::post(format!("{root}{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    status_before_the_body(files, request.body(()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_token_or_certificate_is_bad_is_refused_before_its_body_comes() {
    let world = World::new().await;
    let (_aef, invoker, agreement) = agreed(&world).await;
    assert_eq!(without_body(invoker.files(), &agreement.root, RETRIEVE, "a.b.c").await, StatusCode::UNAUTHORIZED);
    let onboarding = "/api-invoker-management/v1/onboardedInvokers";
    let refused = without_body(invoker.files(), &world.root(), onboarding, "invented").await;
    assert_eq!(refused, StatusCode::UNAUTHORIZED);
    // What only the core function may say, and what its certificate does not let it say.
    let revoke = "/aef-security/v1/revoke-authorization";
    assert_eq!(without_body(invoker.files(), &agreement.root, revoke, "").await, StatusCode::FORBIDDEN);
    let (files, id) = (invoker.files().clone(), invoker.id().to_owned());
    invoker.offboard().await.unwrap();
    let token = format!("/capif-security/v1/securities/{id}/token");
    assert_eq!(without_body(&files, &world.root(), &token, "").await, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_what_belongs_to_another_is_refused_before_its_body_comes() {
    let world = World::new().await;
    let (_aef, alice, _agreement) = agreed(&world).await;
    let _other = world.aef("other", &[OTHER_API], 30).await;
    let bob = world.onboard("bob").await;
    let nef = registration(&world, "nef");
    let own = |what: &str| nef[what].as_str().unwrap().to_owned();
    let api = nef["apis"][0][1].as_str().unwrap();
    let (id, apf, aef, domain) = (alice.id(), own("apf_id"), own("aef_id"), own("domain"));
    let of_other = |role: &str| provider_files(&world, "other", role);
    let (amf, of_apf, of_aef) = (of_other("amf"), of_other("apf"), of_other("aef"));
    for (files, method, path) in [
        (bob.files(), Method::PUT, format!("/capif-security/v1/trustedInvokers/{id}")),
        (bob.files(), Method::POST, format!("/capif-security/v1/trustedInvokers/{id}/update")),
        (bob.files(), Method::POST, format!("/capif-security/v1/trustedInvokers/{id}/delete")),
        (bob.files(), Method::POST, format!("/capif-security/v1/securities/{id}/token")),
        (bob.files(), Method::PUT, format!("/api-invoker-management/v1/onboardedInvokers/{id}")),
        (bob.files(), Method::PATCH, format!("/api-invoker-management/v1/onboardedInvokers/{id}")),
        (bob.files(), Method::POST, format!("/capif-events/v1/{id}/subscriptions")),
        (&amf, Method::PUT, format!("/api-provider-management/v1/registrations/{domain}")),
        (&amf, Method::PATCH, format!("/api-provider-management/v1/registrations/{domain}")),
        (&of_apf, Method::POST, format!("/published-apis/v1/{apf}/service-apis")),
        (&of_apf, Method::PUT, format!("/published-apis/v1/{apf}/service-apis/{api}")),
        (&of_aef, Method::POST, format!("/api-invocation-logs/v1/{aef}/logs")),
    ] {
        let request = http::Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", world.root()))
            .header("content-type", "application/json");
        // It announces 50,000 octets, and sends none.
        assert_eq!(
            status_before_the_body(files, request.body(()).unwrap()).await,
            StatusCode::FORBIDDEN,
            "{method} {path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_one_of_another_issuer_and_none_are_refused() {
    let world = World::new().await;
    let (aef, invoker, agreement) = agreed(&world).await;
    let key = std::fs::read(world.config.data.join("token.key")).unwrap();
    let own = TokenSigner::from_pem(&key).unwrap();
    let stranger = TokenSigner::from_pem(TokenSigner::generate_pem().unwrap().as_bytes()).unwrap();
    let now = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap();
    let claims = |issuer: &str, expires: u64| {
        json!({"iss": issuer, "client_id": invoker.id(), "exp": expires, "iat": now - 600,
            "scope": format!("3gpp#{}:{API}", aef.function.aef_id().unwrap())})
    };
    let good = own.sign(&claims(ISSUER, now + 60)).unwrap();
    assert_eq!(call_with(&invoker, &agreement, Some(&good), RETRIEVE).await.status, StatusCode::OK);
    for token in [
        own.sign(&claims(ISSUER, now - 1)).unwrap(),
        own.sign(&claims("elsewhere", now + 60)).unwrap(),
        stranger.sign(&claims(ISSUER, now + 60)).unwrap(),
        "a.b.c".to_owned(),
    ] {
        let answer = call_with(&invoker, &agreement, Some(&token), RETRIEVE).await;
        assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::UNAUTHORIZED, "INVALID_TOKEN"));
    }
    let answer = call_with(&invoker, &agreement, None, RETRIEVE).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::UNAUTHORIZED, "NO_TOKEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_request_is_refused_in_the_words_of_rfc_6749() {
    let world = World::new().await;
    let (_aef, invoker, _) = agreed(&world).await;
    let path = format!("/capif-security/v1/securities/{}/token", invoker.id());
    let id = invoker.id();
    for (form, status, error) in [
        (String::new(), 400, "invalid_request"),
        (format!("grant_type=authorization_code&client_id={id}"), 400, "unsupported_grant_type"),
        ("grant_type=client_credentials&client_id=x".to_owned(), 401, "invalid_client"),
        (format!("grant_type=client_credentials&client_id={id}&scope=3gpp%23a%3Ab"), 400, "invalid_scope"),
        (format!("grant_type=client_credentials&client_id={id}&scope=openid"), 400, "invalid_scope"),
        (format!("grant_type=client_credentials&client_id={id}&client_id={id}"), 400, "invalid_request"),
    ] {
        let mut connection = invoker.connect().await.unwrap();
        let answer = connection.request(Method::POST, &path, None, Content::Form(form.clone())).await.unwrap();
        assert_eq!((answer.status.as_u16(), &body(&answer)["error"]), (status, &json!(error)), "{form}");
    }
    let answer = request(&world, invoker.files(), Method::POST, &path, json!({})).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test(flavor = "multi_thread")]
async fn psk_is_refused_where_the_core_function_was_spoken_to_over_tls_1_3() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let invoker = world.onboard("alice").await;
    let error = invoker.negotiate(API, vec![SecurityMethod::Psk]).await.unwrap_err();
    assert_eq!(refused(&error), (403, "NO_SECURITY_METHOD_IN_COMMON".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_psk_port_takes_nobody_without_the_key() {
    let world = World::new().await;
    let aef = world.aef("nef", &[API], 30).await;
    let invoker = world.onboard_tls12("alice").await;
    invoker.negotiate(API, vec![SecurityMethod::Psk]).await.unwrap();
    let root = format!("https://{}", aef.by_psk);
    let wrong = akma::AefPsk::from_bytes([7; 32]);
    for identity in [invoker.id(), "nobody", ""] {
        assert!(Connection::open_psk(&root, identity, &wrong).await.is_err(), "{identity}");
    }
    // Nor anybody by certificate: the suites are others.
    let tls = transport::profile::mutual_tls_client(invoker.files()).unwrap();
    assert!(Connection::open(&tls, &root).await.is_err());
    // And who agreed on a key does not get in by certificate alone.
    let tls = transport::profile::mutual_tls_client(invoker.files()).unwrap();
    let mut connection = Connection::open(&tls, &format!("https://{}", aef.by_certificate)).await.unwrap();
    let answer = connection.request(Method::POST, RETRIEVE, None, Content::Json(b"{}".to_vec())).await.unwrap();
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "OTHER_SECURITY_METHOD"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_provider_acts_for_another() {
    let world = World::new().await;
    let _nef = world.aef("nef", &[API], 30).await;
    let _other = world.aef("other", &[OTHER_API], 30).await;
    let invoker = world.onboard("alice").await;
    call(&invoker, OAUTH).await;
    let (nef, other) = (registration(&world, "nef"), registration(&world, "other"));
    let id = |provider: &Value, what: &str| provider[what].as_str().unwrap().to_owned();
    let api = nef["apis"][0][1].as_str().unwrap();
    let description = json!({"apiName": "x", "aefProfiles": [{"aefId": nef["aef_id"],
        "versions": [{"apiVersion": "v1"}], "domainName": "nef.example"}]});
    let log = json!({"aefId": nef["aef_id"], "apiInvokerId": "i", "logs": [{"apiId": "a", "apiName": "a",
        "apiVersion": "v1", "resourceName": "r", "protocol": "HTTP_2", "result": "200"}]});
    let revoke = json!({"apiInvokerId": invoker.id(), "aefId": nef["aef_id"], "apiIds": [api],
        "cause": "OVERLIMIT_USAGE"});
    let apf = id(&nef, "apf_id");
    let aef_id = id(&nef, "aef_id");
    let domain = id(&nef, "domain");
    let policies = format!("/access-control-policy/v1/accessControlPolicyList/{api}?aef-id={aef_id}");
    for (role, method, path, content) in [
        ("apf", Method::POST, format!("/published-apis/v1/{apf}/service-apis"), description.clone()),
        ("apf", Method::GET, format!("/published-apis/v1/{apf}/service-apis"), Value::Null),
        ("apf", Method::PUT, format!("/published-apis/v1/{apf}/service-apis/{api}"), description.clone()),
        ("apf", Method::DELETE, format!("/published-apis/v1/{apf}/service-apis/{api}"), Value::Null),
        ("aef", Method::POST, format!("/published-apis/v1/{apf}/service-apis"), description.clone()),
        ("amf", Method::DELETE, format!("/api-provider-management/v1/registrations/{domain}"), Value::Null),
        ("aef", Method::POST, format!("/api-invocation-logs/v1/{aef_id}/logs"), log),
        ("aef", Method::GET, policies, Value::Null),
        ("aef", Method::POST, format!("/capif-security/v1/trustedInvokers/{}/delete", invoker.id()), revoke),
        ("apf", Method::GET, format!("/capif-security/v1/trustedInvokers/{}", invoker.id()), Value::Null),
    ] {
        let files = provider_files(&world, "other", role);
        let answer = request(&world, &files, method.clone(), &path, content).await;
        assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "NOT_YOURS"), "{method} {path}");
    }
    // An API of its own, at an AEF of the other.
    let path = format!("/published-apis/v1/{}/service-apis", id(&other, "apf_id"));
    let answer = request(&world, &provider_files(&world, "other", "apf"), Method::POST, &path, description).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "AEF_OF_ANOTHER_PROVIDER"));
    // An AEF sees nothing of a context that does not concern it, and ends nothing of it.
    let path = format!("/capif-security/v1/trustedInvokers/{}", invoker.id());
    for method in [Method::GET, Method::DELETE] {
        let answer = request(&world, &provider_files(&world, "other", "aef"), method, &path, Value::Null).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(call(&invoker, OAUTH).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aef_ends_an_authorization_and_the_invoker_is_told() {
    let world = World::new().await;
    let destination = world.notification_server().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let mut config = world.invoker_config("alice", false);
    config.notification_destination = format!("{destination}/alice");
    let invoker = Invoker::onboard(config, "token of alice").await.unwrap();
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    let token = invoker.token(None).await.unwrap().access_token;
    let nef = registration(&world, "nef");
    let api = nef["apis"][0][1].as_str().unwrap();
    let revoke = json!({"apiInvokerId": invoker.id(), "apiIds": [api], "cause": "OVERLIMIT_USAGE"});
    let path = format!("/capif-security/v1/trustedInvokers/{}/delete", invoker.id());
    let files = provider_files(&world, "nef", "aef");
    let answer = request(&world, &files, Method::POST, &path, revoke.clone()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.problem());
    let told = world.notified.wait("alice", |_| true).await;
    assert_eq!((&told["cause"], &told["apiIds"][0]), (&json!("OVERLIMIT_USAGE"), &json!(api)));
    until_refused(&invoker, &agreement, &token, "API_NOT_ALLOWED").await;
    assert_eq!(refused(&invoker.token(None).await.unwrap_err()).0, 400);
    assert_eq!(request(&world, &files, Method::POST, &path, revoke).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_control_policy_is_kept() {
    let far = time::OffsetDateTime::now_utc() + time::Duration::days(300);
    let world = World::with(|config| {
        config.onboardings[0].allowed_total_invocations = Some(2);
        config.onboardings[1].allowed_times = vec![exposure::capif::TimeRange { from: Some(far), until: None }];
    })
    .await;
    let _aef = world.aef("nef", &[API], 30).await;
    let (alice, bob) = (world.onboard("alice").await, world.onboard("bob").await);
    for _ in 0..2 {
        assert_eq!(call(&alice, SecurityMethod::Pki).await.status, StatusCode::OK);
    }
    let answer = call(&alice, SecurityMethod::Pki).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "INVOCATIONS_USED_UP"));
    let answer = call(&bob, SecurityMethod::Pki).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "OUTSIDE_ALLOWED_TIME"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_whose_credential_the_operator_took_away_is_denied() {
    let mut world = World::new().await;
    let _aef = world.aef("nef", &[API], 1).await;
    let invoker = world.onboard("alice").await;
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    let token = invoker.token(None).await.unwrap().access_token;
    world.stop_core().await;
    world.config.onboardings.remove(0);
    world.start_core().await;
    until_refused(&invoker, &agreement, &token, "API_NOT_ALLOWED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_and_harm_nobody() {
    let world = World::new().await;
    let (_aef, invoker, _) = agreed(&world).await;
    let path = format!("/capif-security/v1/trustedInvokers/{}", invoker.id());
    let long = "x".repeat(70_000);
    for (text, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("{\"securityInfo\":[],\"notificationDestination\":\"https://a\"}", 400),
        (
            "{\"securityInfo\":[{\"prefSecurityMethods\":[\"OAUTH\"]}],\"notificationDestination\":\"https://127.0.0.1:1\"}",
            400,
        ),
        (
            "{\"securityInfo\":[{\"aefId\":\"a\",\"prefSecurityMethods\":[\"OAUTH\"]}],\"notificationDestination\":\"http://a\"}",
            400,
        ),
        (&long, 413),
        (&"[".repeat(60_000), 400),
    ] {
        let mut connection = invoker.connect().await.unwrap();
        let content = Content::Json(text.as_bytes().to_vec());
        let answer = connection.request(Method::PUT, &path, None, content).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{}", text.chars().take(40).collect::<String>());
    }
    let update = format!("/api-invoker-management/v1/onboardedInvokers/{}", invoker.id());
    for key in ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        let patch = json!({"onboardingInformation": {"apiInvokerPublicKey": key}});
        let answer = request(&world, invoker.files(), Method::PATCH, &update, patch).await;
        assert_eq!((answer.status.as_u16(), cause(&answer).as_str()), (400, "MANDATORY_IE_INCORRECT"), "{key}");
    }
    assert_eq!(call(&invoker, OAUTH).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_have_their_limits() {
    let log = AuditLog::record();
    let world = World::with(|config| {
        config.tables.invokers_max = 1;
        config.tables.apis_per_apf_max = 1;
        config.tables.subscriptions_per_subscriber_max = 1;
        config.tables.interfaces_per_context_max = 1;
    })
    .await;
    let (aef, invoker, _) = agreed(&world).await;
    let error = Invoker::onboard(world.invoker_config("bob", false), "token of bob").await.unwrap_err();
    assert_eq!(refused(&error), (500, "INSUFFICIENT_RESOURCES".to_owned()));
    // Nobody refused that, and nobody was let in.
    let onboarding = ("action", "POST /api-invoker-management/v1/onboardedInvokers");
    log.next_with(&[onboarding, ("outcome", "failed"), ("reason", "insufficient_resources")]).await;
    assert!(log.with(&[onboarding, ("outcome", "allowed"), ("reason", "insufficient_resources")]).is_empty());
    let nef = registration(&world, "nef");
    let path = format!("/published-apis/v1/{}/service-apis", nef["apf_id"].as_str().unwrap());
    let files = provider_files(&world, "nef", "apf");
    let answer = request(&world, &files, Method::POST, &path, json!({"apiName": "x"})).await;
    assert_eq!((answer.status.as_u16(), cause(&answer).as_str()), (403, "TOO_MANY_APIS"));
    let path = format!("/capif-events/v1/{}/subscriptions", invoker.id());
    let subscription = json!({"events": ["SERVICE_API_UPDATE"], "notificationDestination": "https://127.0.0.1:1/x"});
    let first = request(&world, invoker.files(), Method::POST, &path, subscription.clone()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    let answer = request(&world, invoker.files(), Method::POST, &path, subscription).await;
    assert_eq!((answer.status.as_u16(), cause(&answer).as_str()), (403, "TOO_MANY_SUBSCRIPTIONS"));
    let path = format!("/capif-security/v1/trustedInvokers/{}", invoker.id());
    let one = json!({"aefId": aef.function.aef_id(), "prefSecurityMethods": ["OAUTH"]});
    let wish = json!({"notificationDestination": "https://127.0.0.1:1/x", "securityInfo": [one, one]});
    let answer = request(&world, invoker.files(), Method::PUT, &path, wish).await;
    assert_eq!((answer.status.as_u16(), cause(&answer).as_str()), (403, "TOO_MANY_INTERFACES"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aef_is_told_to_forget_by_the_core_function_alone_and_answers_an_invoker_about_itself_alone() {
    let world = World::new().await;
    let (aef, alice, _) = agreed(&world).await;
    let bob = world.onboard("bob").await;
    let root = format!("https://{}", aef.by_certificate);
    let send = async |files: &CertificateFiles, path: &str, content: Value| {
        let tls = transport::profile::mutual_tls_client(files).unwrap();
        let mut connection = Connection::open(&tls, &root).await.unwrap();
        let content = Content::Json(content.to_string().into_bytes());
        connection.request(Method::POST, path, None, content).await.unwrap()
    };
    let check = |invoker: &Invoker| json!({"apiInvokerId": invoker.id(), "supportedFeatures": "0"});
    let path = "/aef-security/v1/check-authentication";
    assert_eq!(body(&send(alice.files(), path, check(&alice)).await), json!({"supportedFeatures": "0"}));
    assert_eq!(cause(&send(bob.files(), path, check(&alice)).await), "NOT_YOURS");
    assert_eq!(cause(&send(bob.files(), path, check(&bob)).await), "INVOKER_NOT_TRUSTED");
    let revoke = json!({"supportedFeatures": "0",
        "revokeInfo": {"apiInvokerId": alice.id(), "apiIds": ["a"], "cause": "UNEXPECTED_REASON"}});
    let path = "/aef-security/v1/revoke-authorization";
    assert_eq!(cause(&send(bob.files(), path, revoke.clone()).await), "NOT_THE_CORE_FUNCTION");
    let data = &world.config.data;
    let core =
        CertificateFiles { certificate: data.join("core.pem"), key: data.join("core.key"), ca: world.ca(), crl: None };
    assert_eq!(send(&core, path, revoke).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_core_function_cannot_be_asked_nobody_is_let_in() {
    let mut world = World::new().await;
    let aef = world.aef("nef", &[API], 1).await;
    let invoker = world.onboard("alice").await;
    let agreement = invoker.negotiate(API, vec![SecurityMethod::Pki]).await.unwrap();
    world.stop_core().await;
    let answer = call_with(&invoker, &agreement, None, RETRIEVE).await;
    let refusal = (answer.status, cause(&answer));
    assert_eq!(refusal, (StatusCode::SERVICE_UNAVAILABLE, "CORE_FUNCTION_UNAVAILABLE".to_owned()));
    drop(aef);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invokers_names_in_a_certificate_of_another_trusted_authority_open_nothing() {
    let world = World::new().await;
    let aef = world.aef("nef", &[API], 30).await;
    let invoker = world.onboard("alice").await;
    let agreement = invoker.negotiate(API, vec![SecurityMethod::Pki]).await.unwrap();
    assert_eq!(call_with(&invoker, &agreement, None, RETRIEVE).await.status, StatusCode::OK);
    let certificate = openssl::x509::X509::from_pem(&std::fs::read(&invoker.files().certificate).unwrap()).unwrap();
    let uris: Vec<String> =
        certificate.subject_alt_names().unwrap().iter().filter_map(|name| name.uri().map(str::to_owned)).collect();
    assert_eq!(uris.len(), 2, "role with identity, and serial number");
    let core = vec!["capif:core-function:capif-core".to_owned(), "capif:certificate:01".to_owned()];
    let ask = async |uris: &[String], path: &str, body: Value| {
        let files = world.authority.issue_with_uris("00000000-0000-4000-8000-0000000000e0", &["alice.example"], uris);
        let tls = transport::profile::mutual_tls_client(&files).unwrap();
        let mut connection = Connection::open(&tls, &format!("https://{}", aef.by_certificate)).await.unwrap();
        let content = Content::Json(body.to_string().into_bytes());
        let answer = connection.request(Method::POST, path, None, content).await.unwrap();
        (answer.status.as_u16(), cause(&answer))
    };
    let impostor = (403, "NOT_OF_THE_CAPIF_AUTHORITY".to_owned());
    assert_eq!(ask(&uris, RETRIEVE, json!({})).await, impostor);
    let check = json!({"apiInvokerId": invoker.id(), "supportedFeatures": "0"});
    assert_eq!(ask(&uris, "/aef-security/v1/check-authentication", check).await, impostor);
    let revocation = json!({"supportedFeatures": "0", "revokeInfo":
        {"apiInvokerId": invoker.id(), "apiIds": ["x"], "cause": "UNEXPECTED_REASON"}});
    assert_eq!(ask(&core, "/aef-security/v1/revoke-authorization", revocation.clone()).await, impostor);
    // Whoever claims nothing of the kind is no impostor, and no core function.
    let stranger = (403, "NOT_THE_CORE_FUNCTION".to_owned());
    assert_eq!(ask(&[], "/aef-security/v1/revoke-authorization", revocation).await, stranger);
    assert_eq!(decisions(&aef.audit_metrics(), "refused", "not_of_the_capif_authority"), 3);
    assert_eq!(call_with(&invoker, &agreement, None, RETRIEVE).await.status, StatusCode::OK);
}
