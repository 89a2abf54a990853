//! Who may do what at the CAPIF core function, as the operator changes it while it runs; and where notifications may go.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use sbi::capif::connection::Content;
use sbi::capif::invoker::{Agreement, Invoker};
use sbi::capif::publish::{DiscoveryQuery, SecurityMethod};
use sbi::testing::audit::AuditLog;
use serde_json::{Value, json};
use support::{
    API, OTHER_API, RETRIEVE, World, cause, function_id, onboarding, provider_files, registered, registration, request,
    subscribe,
};

const OAUTH: SecurityMethod = SecurityMethod::Oauth;

/// The status and cause of a call with `token`.
async fn called(invoker: &Invoker, agreement: &Agreement, token: &str) -> (StatusCode, String) {
    let mut connection = invoker.connect_to(agreement).await.unwrap();
    let answer = connection.request(Method::POST, RETRIEVE, Some(token), Content::Json(b"{}".to_vec())).await.unwrap();
    (answer.status, cause(&answer))
}

/// Until `is` holds.
async fn until(what: &str, is: impl AsyncFn() -> bool) {
    for _ in 0..1200 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

/// Has the management function of `nef` told of `events` at `at`.
async fn subscribed(world: &World, events: &[&str], destination: &str, at: &str) {
    let subscription = json!({"events": events, "notificationDestination": format!("{destination}/{at}")});
    let id = function_id(world, "nef", "amf");
    let answer = subscribe(world, &provider_files(world, "nef", "amf"), &id, subscription).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.problem());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_changed_file_are_the_policy_and_are_told() {
    let world = World::with_policy_file(|_| {}).await;
    let destination = world.notification_server().await;
    let _aef = world.aef("nef", &[API], 3_600).await;
    let invoker = world.onboard("alice").await;
    invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    subscribed(&world, &["ACCESS_CONTROL_POLICY_UPDATE"], &destination, "amf").await;
    world.change_policy(|policy| policy.onboardings[0].allowed_total_invocations = Some(7));
    let told = world.notified.wait("amf", |_| true).await;
    let policy = json!([{"apiInvokerId": invoker.id(), "allowedTotalInvocations": 7}]);
    assert_eq!(told["eventDetail"]["accCtrlPolList"]["apiInvokerPolicies"], policy);
    let nef = registration(&world, "nef");
    let (api, aef) = (nef["apis"][0][1].as_str().unwrap(), nef["aef_id"].as_str().unwrap());
    let path = format!("/access-control-policy/v1/accessControlPolicyList/{api}?aef-id={aef}");
    let answer = request(&world, &provider_files(&world, "nef", "aef"), Method::GET, &path, Value::Null).await;
    assert_eq!(support::body(&answer)["apiInvokerPolicies"], policy);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_whose_entry_is_taken_away_is_refused_at_once_and_told() {
    let world = World::with_policy_file(|_| {}).await;
    let destination = world.notification_server().await;
    let _aef = world.aef("nef", &[API], 3_600).await;
    let mut config = world.invoker_config("alice", false);
    config.notification_destination = format!("{destination}/alice");
    let invoker = Invoker::onboard(config, "token of alice").await.unwrap();
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    let token = invoker.token(None).await.unwrap().access_token;
    assert_eq!(called(&invoker, &agreement, &token).await.0, StatusCode::OK);
    subscribed(&world, &["API_INVOKER_AUTHORIZATION_REVOKED", "ACCESS_CONTROL_POLICY_UPDATE"], &destination, "amf")
        .await;
    world.change_policy(|policy| drop(policy.onboardings.remove(0)));
    // What the exposing function believes is good for an hour: it is told.
    let refused = (StatusCode::FORBIDDEN, "API_NOT_ALLOWED".to_owned());
    until("a refusal", async || called(&invoker, &agreement, &token).await == refused).await;
    let told = world.notified.wait("alice", |_| true).await;
    assert_eq!(told["apiInvokerId"], invoker.id());
    for event in ["API_INVOKER_AUTHORIZATION_REVOKED", "ACCESS_CONTROL_POLICY_UPDATE"] {
        let told = world.notified.wait("amf", |told| told["events"] == event).await;
        assert_eq!(told["eventDetail"]["apiInvokerIds"], json!([invoker.id()]));
    }
    assert_eq!(invoker.discover(DiscoveryQuery::default()).await.unwrap().service_api_descriptions, None);
    // The entry back, everything is as it was.
    world.change_policy(|policy| policy.onboardings.push(onboarding("alice")));
    until("served again", async || called(&invoker, &agreement, &token).await.0 == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_of_a_new_entry_is_onboarded_and_one_of_a_broken_file_is_not() {
    let world = World::with_policy_file(|config| config.admin = Some(([127, 0, 0, 1], 0).into())).await;
    let onboarded = async |name: &str| {
        let config = world.invoker_config(name, false);
        Invoker::onboard(config, &format!("token of {name}")).await.is_ok()
    };
    assert!(!onboarded("carol").await);
    world.change_policy(|policy| policy.onboardings.push(onboarding("carol")));
    until("carol is onboarded", async || onboarded("carol").await).await;
    // The earlier rules stay: nobody of it comes in, and nobody is locked out.
    world.change_policy(|policy| {
        policy.onboardings.push(onboarding("dave"));
        policy.onboardings.push(onboarding("dave"));
    });
    let failed = "sbi_policy_refreshes_total{outcome=\"failed\"}";
    until("the file was looked at", async || world.metrics().contains(failed)).await;
    assert!(!onboarded("dave").await && onboarded("bob").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_may_no_longer_publish_is_withheld_until_it_may_again() {
    let world =
        World::with_policy_file(|config| config.registrations[0].apis = vec![API.to_owned(), "x".to_owned()]).await;
    let destination = world.notification_server().await;
    let _aef = world.aef("nef", &[API], 3_600).await;
    let nef = registration(&world, "nef");
    let apis = format!("/published-apis/v1/{}/service-apis", nef["apf_id"].as_str().unwrap());
    let apf = provider_files(&world, "nef", "apf");
    let description = |name: &str| {
        json!({"apiName": name, "aefProfiles": [{"aefId": nef["aef_id"], "versions": [{"apiVersion": "v1"}],
            "domainName": "nef.example"}]})
    };
    let answer = request(&world, &apf, Method::POST, &apis, description(OTHER_API)).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "API_NAME_NOT_ALLOWED"));

    let invoker = world.onboard("alice").await;
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    let token = invoker.token(None).await.unwrap().access_token;
    assert_eq!(called(&invoker, &agreement, &token).await.0, StatusCode::OK);
    let events = ["SERVICE_API_AVAILABLE", "SERVICE_API_UNAVAILABLE", "ACCESS_CONTROL_POLICY_UNAVAILABLE"];
    subscribed(&world, &events, &destination, "amf").await;
    world.change_policy(|policy| policy.registrations[0].apis = vec!["x".to_owned()]);
    let refused = (StatusCode::FORBIDDEN, "API_NOT_ALLOWED".to_owned());
    until("a refusal", async || called(&invoker, &agreement, &token).await == refused).await;
    for event in ["SERVICE_API_UNAVAILABLE", "ACCESS_CONTROL_POLICY_UNAVAILABLE"] {
        let told = world.notified.wait("amf", |told| told["events"] == event).await;
        assert_eq!(told["eventDetail"]["apiIds"], json!([nef["apis"][0][1]]));
    }
    assert_eq!(invoker.discover(DiscoveryQuery::default()).await.unwrap().service_api_descriptions, None);
    world.change_policy(|policy| policy.registrations[0].apis = vec![API.to_owned()]);
    world.notified.wait("amf", |told| told["events"] == "SERVICE_API_AVAILABLE").await;
    until("served again", async || called(&invoker, &agreement, &token).await.0 == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_no_longer_be_published_is_withheld_although_the_disk_takes_nothing() {
    let mut world = World::with_policy_file(|config| config.registrations[0].apis = vec![API.to_owned()]).await;
    let _aef = world.aef("nef", &[API], 3_600).await;
    let invoker = world.onboard("alice").await;
    world.stop_core().await;
    // No file system has so much room.
    world.config.store.free_bytes_min = u64::MAX;
    world.start_core().await;
    let found = async || invoker.discover(DiscoveryQuery::default()).await.unwrap().service_api_descriptions;
    assert!(found().await.is_some(), "what was published before is");
    world.change_policy(|policy| policy.registrations[0].apis = vec!["x".to_owned()]);
    until("withheld", async || found().await.is_none()).await;
    world.stop_core().await;
    world.start_core().await;
    assert!(found().await.is_none(), "a start decides anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_entry_is_taken_away_may_do_nothing_and_one_may_read_logs_as_long_as_it_may() {
    let log = AuditLog::record();
    let mut world = World::with_policy_file(|_| {}).await;
    let _aef = world.aef("nef", &[API], 1).await;
    let (amf, apf) = (provider_files(&world, "nef", "amf"), provider_files(&world, "nef", "apf"));
    let apis = format!("/published-apis/v1/{}/service-apis", registration(&world, "nef")["apf_id"].as_str().unwrap());
    let asked = async |world: &World, files, path: &str| {
        let answer = request(world, files, Method::GET, path, Value::Null).await;
        (answer.status.as_u16(), cause(&answer))
    };
    let logs = "/logs/v1/apiInvocationLogs";
    assert_eq!(asked(&world, &amf, logs).await, (404, "NO_LOGS".to_owned()));
    world.change_policy(|policy| policy.registrations[0].may_audit = false);
    let refused = (403, "AUDIT_NOT_ALLOWED".to_owned());
    until("no audit", async || asked(&world, &amf, logs).await == refused).await;
    world.change_policy(|policy| drop(policy.registrations.remove(0)));
    let refused = (403, "REGISTRATION_WITHDRAWN".to_owned());
    until("no publisher", async || asked(&world, &apf, &apis).await == refused).await;
    let subject = format!("apf {}", registration(&world, "nef")["apf_id"].as_str().unwrap());
    log.next_with(&[("subject", &subject), ("outcome", "refused"), ("reason", "registration_withdrawn")]).await;
    // Also over a restart, and what it published is used by nobody.
    world.stop_core().await;
    world.start_core().await;
    assert_eq!(asked(&world, &apf, &apis).await, refused);
    let invoker = world.onboard("alice").await;
    assert_eq!(invoker.discover(DiscoveryQuery::default()).await.unwrap().service_api_descriptions, None);
    world.change_policy(|policy| policy.registrations.push(registered("nef")));
    until("a publisher again", async || asked(&world, &apf, &apis).await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_prefixes_notifications_go_to_hosts_of_the_subscribers_certificate_alone() {
    let world = World::with(|config| {
        config.notification_prefixes.clear();
        config.onboardings[0].dns_names = vec!["alice.example".to_owned(), "localhost".to_owned()];
        config.registrations[0].dns_names = vec!["localhost".to_owned()];
    })
    .await;
    let destination = world.notification_server().await.replace("127.0.0.1", "localhost");
    let mut config = world.invoker_config("alice", false);
    for elsewhere in ["https://bob.example/x", "https://127.0.0.1:1/x", "https://localhost.example/x"] {
        config.notification_destination = elsewhere.to_owned();
        let error = Invoker::onboard(config.clone(), "token of alice").await.unwrap_err();
        let problem = error.problem().unwrap();
        assert_eq!(problem.status, Some(403), "{elsewhere}");
        assert!(problem.has_cause("NOTIFICATION_DESTINATION_NOT_ALLOWED"), "{elsewhere}: {problem}");
    }
    config.notification_destination = format!("{destination}/alice");
    let alice = Invoker::onboard(config, "token of alice").await.unwrap();
    let events = |at: &str| json!({"events": ["API_INVOKER_UPDATED"], "notificationDestination": at});
    let refused = (StatusCode::FORBIDDEN, "NOTIFICATION_DESTINATION_NOT_ALLOWED".to_owned());
    let answer = subscribe(&world, alice.files(), alice.id(), events("https://bob.example/x")).await;
    assert_eq!((answer.status, cause(&answer)), refused);
    let answer = subscribe(&world, alice.files(), alice.id(), events(&format!("{destination}/alice"))).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.problem());
    // The same of everything else that has a destination.
    let own = format!("/api-invoker-management/v1/onboardedInvokers/{}", alice.id());
    let patch = json!({"notificationDestination": "https://bob.example/x"});
    let answer = request(&world, alice.files(), Method::PATCH, &own, patch).await;
    assert_eq!((answer.status, cause(&answer)), refused);
    let path = format!("/capif-security/v1/trustedInvokers/{}", alice.id());
    let wish = json!({"notificationDestination": "https://bob.example/x",
        "securityInfo": [{"aefId": "a", "prefSecurityMethods": ["OAUTH"]}]});
    let answer = request(&world, alice.files(), Method::PUT, &path, wish).await;
    assert_eq!((answer.status, cause(&answer)), refused);
    // A provider's functions have the names of its entry.
    let _aef = world.aef("nef", &[API], 30).await;
    let amf = function_id(&world, "nef", "amf");
    let files = provider_files(&world, "nef", "amf");
    let answer = subscribe(&world, &files, &amf, events("https://alice.example/x")).await;
    assert_eq!((answer.status, cause(&answer)), refused);
    let answer = subscribe(&world, &files, &amf, events(&format!("{destination}/amf"))).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.problem());
    let patch = json!({"apiInvokerInformation": "changed"});
    assert_eq!(request(&world, alice.files(), Method::PATCH, &own, patch).await.status, StatusCode::OK);
    for at in ["alice", "amf"] {
        world.notified.wait(at, |told| told["events"] == "API_INVOKER_UPDATED").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_from_before_goes_nowhere_that_is_no_longer_allowed() {
    let mut world = World::new().await;
    let destination = world.notification_server().await;
    let _aef = world.aef("nef", &[API], 30).await;
    subscribed(&world, &["API_INVOKER_ONBOARDED"], &destination, "before").await;
    world.onboard("alice").await;
    world.notified.wait("before", |_| true).await;
    world.stop_core().await;
    let narrower = format!("{destination}/inner");
    world.config.notification_prefixes = vec!["https://127.0.0.1:1".to_owned(), narrower.clone()];
    world.start_core().await;
    subscribed(&world, &["API_INVOKER_ONBOARDED"], &narrower, "now").await;
    let bob = world.onboard("bob").await;
    let told = world.notified.wait("inner/now", |_| true).await;
    assert_eq!(told["eventDetail"]["apiInvokerIds"], json!([bob.id()]));
    assert_eq!(world.notified.all("before").len(), 1);
}
