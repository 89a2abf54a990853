//! CAPIF from registration and onboarding to a delivered call, by each method of CAPIF-2e.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod support;

use http::{Method, StatusCode};
use sbi::CertificateFiles;
use sbi::capif::connection::{Connection, Content};
use sbi::capif::invoker::Invoker;
use sbi::capif::publish::{DiscoveryQuery, SecurityMethod};
use serde_json::{Value, json};
use support::{API, OTHER_API, RETRIEVE, World, body, call, provider_files, registration, request};

async fn delivered(invoker: &Invoker, method: SecurityMethod) {
    let answer = call(invoker, method).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.problem());
    assert_eq!(body(&answer), json!({"id": invoker.id(), "names": ["alice.example"], "api": API}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_function_on_a_port_that_the_system_gave_it_tells_that_one_and_a_configured_root_as_it_is() {
    for (root, expected) in [(None, None), (Some("https://capif.example/root/"), Some("https://capif.example/root"))] {
        let mut world = World::with(|config| {
            config.listen = ([127, 0, 0, 1], 0).into();
            config.api_root = root.map(str::to_owned);
        })
        .await;
        world.core_address = world.core.as_ref().unwrap().0.local_addr();
        assert_ne!(world.core_address.port(), 0);
        let invoker = world.onboard("alice").await;
        let subscription =
            json!({"events": ["SERVICE_API_UPDATE"], "notificationDestination": "https://127.0.0.1:1/x"});
        let path = format!("/capif-events/v1/{}/subscriptions", invoker.id());
        let answer = request(&world, invoker.files(), Method::POST, &path, subscription).await;
        let told = answer.location.clone().unwrap();
        let expected = expected.map_or_else(|| world.root(), str::to_owned);
        let own = told.strip_prefix(&format!("{expected}{path}/")).unwrap_or_else(|| panic!("{told}"));
        // And what it tells is there.
        let gone = request(&world, invoker.files(), Method::DELETE, &format!("{path}/{own}"), Value::Null).await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_onboarded_invoker_calls_by_certificate() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    delivered(&world.onboard("alice").await, SecurityMethod::Pki).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_onboarded_invoker_calls_with_a_token() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    delivered(&world.onboard("alice").await, SecurityMethod::Oauth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_that_spoke_tls_1_2_to_the_core_function_calls_with_aef_psk() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let invoker = world.onboard_tls12("alice").await;
    delivered(&invoker, SecurityMethod::Psk).await;
    // Another session makes another key, and the old one no longer opens anything.
    let old = invoker.negotiate(API, vec![SecurityMethod::Psk]).await.unwrap();
    let new = invoker.negotiate(API, vec![SecurityMethod::Psk]).await.unwrap();
    assert!(invoker.connect_to(&old).await.is_err());
    assert!(invoker.connect_to(&new).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_wish_that_the_interface_and_the_session_allow_is_chosen() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let (tls13, tls12) = (world.onboard("alice").await, world.onboard_tls12("bob").await);
    let wish = || vec![SecurityMethod::Other("NEW".to_owned()), SecurityMethod::Psk, SecurityMethod::Oauth];
    assert_eq!(tls13.negotiate(API, wish()).await.unwrap().method, SecurityMethod::Oauth);
    assert_eq!(tls12.negotiate(API, wish()).await.unwrap().method, SecurityMethod::Psk);
    let wish = vec![SecurityMethod::Pki, SecurityMethod::Oauth];
    assert_eq!(tls12.negotiate(API, wish).await.unwrap().method, SecurityMethod::Pki);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_of_tls_1_2_has_an_identifier_and_none_can_be_resumed() {
    let world = World::new().await;
    let invoker = world.onboard_tls12("alice").await;
    let (first, second) = (invoker.connect().await.unwrap(), invoker.connect().await.unwrap());
    let (first, second) = (first.tls12_session().unwrap(), second.tls12_session().unwrap());
    assert_eq!(first.session_id.len(), 32);
    assert_ne!(first.session_id, second.session_id);
    let tls13 = Invoker::open(world.invoker_config("alice", false)).unwrap();
    assert!(tls13.connect().await.unwrap().tls12_session().is_none());

    // The openssl command line keeps a session and offers it again.
    let openssl = |arguments: &[&str]| {
        let files = invoker.files();
        let output = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &world.core_address.to_string(), "-tls1_2", "-alpn", "h2"])
            .args(["-cert".as_ref(), files.certificate.as_os_str(), "-key".as_ref(), files.key.as_os_str()])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let kept = world.directory.path().join("session.pem");
    let kept = kept.to_str().unwrap();
    assert!(openssl(&["-sess_out", kept]).contains("New, TLSv1.2"));
    assert!(openssl(&["-sess_in", kept]).contains("New, TLSv1.2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_discovers_what_it_may_use() {
    let world = World::with(|config| config.onboardings[1].apis = vec![OTHER_API.to_owned()]).await;
    let _aef = world.aef("nef", &[API, OTHER_API], 30).await;
    let (alice, bob) = (world.onboard("alice").await, world.onboard("bob").await);
    let names = async |invoker: &Invoker, query: DiscoveryQuery| {
        let found = invoker.discover(query).await.unwrap().service_api_descriptions.unwrap_or_default();
        let mut names: Vec<_> = found.into_iter().map(|api| api.api_name).collect();
        names.sort();
        names
    };
    assert_eq!(names(&alice, DiscoveryQuery::default()).await, [API, OTHER_API]);
    assert_eq!(names(&bob, DiscoveryQuery::default()).await, [OTHER_API]);
    let query = |name: &str| DiscoveryQuery { api_name: Some(name.to_owned()), ..DiscoveryQuery::default() };
    assert_eq!(names(&alice, query(API)).await, [API]);
    assert!(names(&bob, query(API)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart_in_the_middle() {
    let mut world = World::new().await;
    let aef = world.aef("nef", &[API], 1).await;
    let invoker = world.onboard("alice").await;
    let agreement = invoker.negotiate(API, vec![SecurityMethod::Oauth]).await.unwrap();
    let token = invoker.token(None).await.unwrap().access_token;
    world.stop_core().await;
    world.start_core().await;
    // The token from before, the context from before, and a new token.
    let mut connection = invoker.connect_to(&agreement).await.unwrap();
    let content = || Content::Json(b"{}".to_vec());
    let answer = connection.request(Method::POST, RETRIEVE, Some(&token), content()).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.problem());
    let answer = invoker.call(&agreement, Method::POST, RETRIEVE, content()).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.problem());

    // An AEF that starts anew registers nothing twice, and is the same as before.
    let shutdown = tokio_util::sync::CancellationToken::new();
    let again = world.function("nef", &[API], 1, aef.by_certificate, aef.by_psk, &shutdown);
    again.published().await;
    assert_eq!(again.aef_id(), aef.function.aef_id());
    let found = invoker.discover(DiscoveryQuery::default()).await.unwrap();
    assert_eq!(found.service_api_descriptions.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_logged_and_audited_by_the_management_function_of_the_domain_alone() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let _other = world.aef("other", &[OTHER_API], 30).await;
    let invoker = world.onboard("alice").await;
    delivered(&invoker, SecurityMethod::Pki).await;
    let audit = "/logs/v1/apiInvocationLogs";
    let own = provider_files(&world, "nef", "amf");
    let path = format!("{audit}?api-invoker-id={}&result=200", invoker.id());
    let mut log = Value::Null;
    for _ in 0..200 {
        let answer = request(&world, &own, Method::GET, &path, Value::Null).await;
        if answer.status == StatusCode::OK {
            log = body(&answer);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert_eq!(log["logs"][0]["apiName"], API);
    assert_eq!(log["aefId"], registration(&world, "nef")["aef_id"]);
    let path = format!("{audit}?result=500");
    assert_eq!(request(&world, &own, Method::GET, &path, Value::Null).await.status, StatusCode::NOT_FOUND);
    let stranger = provider_files(&world, "other", "amf");
    assert_eq!(request(&world, &stranger, Method::GET, audit, Value::Null).await.status, StatusCode::NOT_FOUND);
    let aef = provider_files(&world, "nef", "aef");
    assert_eq!(request(&world, &aef, Method::GET, audit, Value::Null).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_hear_of_what_concerns_them() {
    let world = World::with(|config| config.onboardings[1].apis = vec![OTHER_API.to_owned()]).await;
    let destination = world.notification_server().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let (alice, bob) = (world.onboard("alice").await, world.onboard("bob").await);
    for (invoker, name) in [(&alice, "alice"), (&bob, "bob")] {
        let subscription = json!({
            "events": ["SERVICE_API_AVAILABLE", "API_INVOKER_OFFBOARDED"],
            "notificationDestination": format!("{destination}/{name}"),
        });
        let path = format!("/capif-events/v1/{}/subscriptions", invoker.id());
        let answer = request(&world, invoker.files(), Method::POST, &path, subscription).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.problem());
        assert!(answer.location.unwrap().starts_with(&format!("{}{path}/", world.root())));
    }
    // `other` publishes what both may use.
    let _other = world.aef("other", &[OTHER_API], 30).await;
    for name in ["alice", "bob"] {
        let event = world.notified.wait(name, |event| event["events"] == "SERVICE_API_AVAILABLE").await;
        assert_eq!(event["eventDetail"]["serviceAPIDescriptions"][0]["apiName"], OTHER_API);
    }
    // What bob may not use, and what becomes of bob, is not for alice's or bob's ears.
    bob.offboard().await.unwrap();
    let nef = registration(&world, "nef");
    let apf = nef["apf_id"].as_str().unwrap();
    let description = json!({"apiName": "for-alice", "aefProfiles": [{"aefId": nef["aef_id"],
        "versions": [{"apiVersion": "v1"}], "domainName": "nef.example"}]});
    let path = format!("/published-apis/v1/{apf}/service-apis");
    let files = provider_files(&world, "nef", "apf");
    assert_eq!(request(&world, &files, Method::POST, &path, description).await.status, StatusCode::CREATED);
    let is = |event: &Value| event["eventDetail"]["serviceAPIDescriptions"][0]["apiName"] == "for-alice";
    world.notified.wait("alice", is).await;
    assert_eq!(world.notified.all("bob").len(), 1);
    assert!(world.notified.all("alice").iter().all(|event| event["events"] == "SERVICE_API_AVAILABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_lives_through_every_verb_of_its_publisher() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let nef = registration(&world, "nef");
    let files = provider_files(&world, "nef", "apf");
    let collection = format!("/published-apis/v1/{}/service-apis", nef["apf_id"].as_str().unwrap());
    let description = json!({"apiName": "x", "aefProfiles": [{"aefId": nef["aef_id"],
        "versions": [{"apiVersion": "v1"}], "domainName": "nef.example"}]});
    let created = request(&world, &files, Method::POST, &collection, description.clone()).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let id = body(&created)["apiId"].as_str().unwrap().to_owned();
    assert_eq!(created.location.unwrap(), format!("{}{collection}/{id}", world.root()));
    let one = format!("{collection}/{id}");
    assert_eq!(body(&request(&world, &files, Method::GET, &one, Value::Null).await)["apiName"], "x");
    assert_eq!(
        body(&request(&world, &files, Method::GET, &collection, Value::Null).await).as_array().unwrap().len(),
        2
    );
    let patched = request(&world, &files, Method::PATCH, &one, json!({"description": "new"})).await;
    assert_eq!((patched.status, &body(&patched)["description"]), (StatusCode::OK, &json!("new")));
    let replaced = request(&world, &files, Method::PUT, &one, description).await;
    assert_eq!((replaced.status, &body(&replaced)["description"]), (StatusCode::OK, &Value::Null));
    assert_eq!(request(&world, &files, Method::DELETE, &one, Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(request(&world, &files, Method::GET, &one, Value::Null).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_with_a_new_key_gets_a_new_certificate_and_the_old_one_no_longer_counts() {
    let world = World::new().await;
    let invoker = world.onboard("alice").await;
    let path = format!("/api-invoker-management/v1/onboardedInvokers/{}", invoker.id());
    let key = openssl::pkey::PKey::generate_ed25519().unwrap();
    let public = String::from_utf8(key.public_key_to_pem().unwrap()).unwrap();
    let patch = json!({"onboardingInformation": {"apiInvokerPublicKey": public}});
    let answer = request(&world, invoker.files(), Method::PATCH, &path, patch).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.problem());
    let refused = request(&world, invoker.files(), Method::PATCH, &path, json!({})).await;
    assert_eq!(support::cause(&refused), "CERTIFICATE_REVOKED");
    let files = invoker.files().clone();
    let certificate = body(&answer)["onboardingInformation"]["apiInvokerCertificate"].as_str().unwrap().to_owned();
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let patch = json!({"apiInvokerInformation": "renewed"});
    assert_eq!(request(&world, &files, Method::PATCH, &path, patch).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_changes_its_functions_and_leaves() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let invoker = world.onboard("alice").await;
    let nef = registration(&world, "nef");
    let path = format!("/api-provider-management/v1/registrations/{}", nef["domain"].as_str().unwrap());
    let amf = provider_files(&world, "nef", "amf");
    let answer = request(&world, &amf, Method::PATCH, &path, json!({"apiProvDomInfo": "ours"})).await;
    assert_eq!((answer.status, &body(&answer)["apiProvDomInfo"]), (StatusCode::OK, &json!("ours")));
    assert_eq!(body(&answer)["regSec"], "spent");
    let mut functions = body(&answer)["apiProvFuncs"].clone();
    assert_eq!(functions.as_array().unwrap().len(), 3);
    // The APF goes, and what it published with it.
    functions.as_array_mut().unwrap().retain(|function| function["apiProvFuncRole"] != "APF");
    let answer = request(&world, &amf, Method::PUT, &path, json!({"regSec": "spent", "apiProvFuncs": functions})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.problem());
    assert_eq!(body(&answer)["apiProvFuncs"].as_array().unwrap().len(), 2);
    assert_eq!(invoker.discover(DiscoveryQuery::default()).await.unwrap().service_api_descriptions, None);
    assert_eq!(request(&world, &amf, Method::DELETE, &path, Value::Null).await.status, StatusCode::NO_CONTENT);
    let refused = request(&world, &amf, Method::DELETE, &path, Value::Null).await;
    assert_eq!(support::cause(&refused), "CERTIFICATE_REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_read_the_token_keys_and_nothing_else_without_a_certificate() {
    let world = World::new().await;
    let tls = transport::capif::server_authenticated_client(&world.ca()).unwrap();
    let mut connection = Connection::open(&tls, &world.root()).await.unwrap();
    let keys = connection.request(Method::GET, "/.well-known/jwks.json", None, Content::Empty).await.unwrap();
    assert_eq!(body(&keys)["keys"][0]["crv"], "P-256");
    for path in [
        "/service-apis/v1/allServiceAPIs?api-invoker-id=x",
        "/published-apis/v1/x/service-apis",
        "/capif-security/v1/trustedInvokers/x",
        "/access-control-policy/v1/accessControlPolicyList/x?aef-id=x",
        "/logs/v1/apiInvocationLogs",
    ] {
        let answer = connection.request(Method::GET, path, None, Content::Empty).await.unwrap();
        assert_eq!((answer.status, support::cause(&answer).as_str()), (StatusCode::UNAUTHORIZED, "NO_CERTIFICATE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn null_in_a_merge_patch_takes_a_member_away_and_one_that_is_needed_cannot_go() {
    let world = World::new().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let patch = async |files: &CertificateFiles, path: &str, patch: Value| {
        let answer = request(&world, files, Method::PATCH, path, patch).await;
        (answer.status.as_u16(), body(&answer))
    };
    // A published API.
    let nef = registration(&world, "nef");
    let apf = provider_files(&world, "nef", "apf");
    let api = format!(
        "/published-apis/v1/{}/service-apis/{}",
        nef["apf_id"].as_str().unwrap(),
        nef["apis"][0][1].as_str().unwrap()
    );
    let (status, before) = patch(&apf, &api, json!({"serviceAPICategory": "things", "description": "new"})).await;
    assert_eq!((status, &before["serviceAPICategory"]), (200, &json!("things")));
    let (status, after) = patch(&apf, &api, json!({"serviceAPICategory": null, "apiName": "other"})).await;
    assert_eq!((status, &after["serviceAPICategory"], &after["description"]), (200, &Value::Null, &json!("new")));
    assert_eq!((&after["apiName"], &after["aefProfiles"]), (&before["apiName"], &before["aefProfiles"]));
    assert_eq!(patch(&apf, &api, json!({"aefProfiles": []})).await.0, 400);
    // A provider domain: without functions it would be none.
    let domain = format!("/api-provider-management/v1/registrations/{}", nef["domain"].as_str().unwrap());
    let amf = provider_files(&world, "nef", "amf");
    assert_eq!(patch(&amf, &domain, json!({"apiProvDomInfo": "ours"})).await.1["apiProvDomInfo"], "ours");
    let (status, after) = patch(&amf, &domain, json!({"apiProvDomInfo": null})).await;
    assert_eq!((status, &after["apiProvDomInfo"]), (200, &Value::Null));
    assert_eq!(patch(&amf, &domain, json!({"apiProvFuncs": null})).await.0, 400);
    // An invoker.
    let invoker = world.onboard("alice").await;
    let own = format!("/api-invoker-management/v1/onboardedInvokers/{}", invoker.id());
    let narrow = json!({"apiList": {"serviceAPIDescriptions": [{"apiName": OTHER_API}]}, "apiInvokerInformation": "a"});
    let (status, narrowed) = patch(invoker.files(), &own, narrow).await;
    assert_eq!((status, &narrowed["apiInvokerInformation"]), (200, &json!("a")));
    assert_eq!(invoker.discover(DiscoveryQuery::default()).await.unwrap().service_api_descriptions, None);
    let (status, wide) = patch(invoker.files(), &own, json!({"apiList": null, "apiInvokerInformation": null})).await;
    assert_eq!((status, &wide["apiInvokerInformation"]), (200, &Value::Null));
    assert!(invoker.discover(DiscoveryQuery::default()).await.unwrap().service_api_descriptions.is_some());
    let (status, refusal) = patch(invoker.files(), &own, json!({"notificationDestination": null})).await;
    assert_eq!((status, &refusal["cause"]), (400, &json!("MANDATORY_IE_MISSING")));
    // A subscription to events, whose filters go.
    let subscription = json!({"events": ["SERVICE_API_AVAILABLE"], "notificationDestination": "https://127.0.0.1:1/x",
        "eventFilters": [{"apiIds": ["x"]}]});
    let collection = format!("/capif-events/v1/{}/subscriptions", invoker.id());
    let made = request(&world, invoker.files(), Method::POST, &collection, subscription).await;
    let location = made.location.unwrap();
    let one = location.strip_prefix(&world.root()).unwrap();
    let (status, after) = patch(invoker.files(), one, json!({"eventFilters": null})).await;
    assert_eq!(
        (status, &after["eventFilters"], &after["events"]),
        (200, &Value::Null, &json!(["SERVICE_API_AVAILABLE"]))
    );
    assert_eq!(patch(invoker.files(), one, json!({"events": null})).await.0, 400);
    assert_eq!(patch(invoker.files(), one, json!([])).await.0, 400);
}
