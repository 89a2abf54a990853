//! The NEF between the real AAnF and MSGin5G Server and application functions outside, over real mutual TLS.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{A_KID, GPSI, INSIDE_AS, NEF, SERVER, STRANGER, SUPI, Target, World, message, problem, refused};
use exposure::nef::{refusal, scope};
use http::StatusCode;
use sbi::testing::TestAuthority;
use sbi::testing::audit::AuditLog;
use sbi::testing::tokens::status_before_the_body;
use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig, SbiError};
use serde_json::{Value, json};
use tokio::time::timeout;

const RETRIEVE: &str = "/3gpp-akma/v1/retrieve";
const PATIENCE: Duration = common::PATIENCE;

fn question(fqdn: &str) -> Value {
    json!({"afId": format!("{fqdn}:0100000007"), "aKId": A_KID})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_af_outside_gets_its_key_with_the_gpsi_and_never_the_supi() {
    let world = World::start().await;
    let weather = world.af("weather");
    let answer = weather.post(RETRIEVE, &question("weather.example")).await.unwrap().into_body().unwrap();
    assert_eq!(answer["gpsi"], GPSI);
    assert_eq!(answer["kaf"].as_str().unwrap().len(), 64);
    assert!(answer.get("supi").is_none() && !answer.to_string().contains(SUPI), "no SUPI outside");

    let anonymous = json!({"afId": "weather.example:0100000007", "aKId": A_KID, "anonInd": true});
    let answer = weather.post(RETRIEVE, &anonymous).await.unwrap().into_body().unwrap();
    assert!(answer.get("gpsi").is_none() && answer.get("supi").is_none());

    let unknown = json!({"afId": "weather.example:0100000007", "aKId": "0.nobody@5gc.mnc001.mcc001.3gppnetwork.org"});
    assert_eq!(weather.post(RETRIEVE, &unknown).await.unwrap().status, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpsi_needs_both_the_scope_and_the_entry() {
    let world = World::start().await;
    let weather = world.af("weather");
    let narrow = weather.with_tokens(Some(scope::AKMA));
    let uri = format!("{}{RETRIEVE}", weather.nef);
    let answer: Value = narrow.post(&uri, &question("weather.example")).await.unwrap().into_body().unwrap();
    assert!(answer.get("kaf").is_some() && answer.get("gpsi").is_none());

    let parking = world.af("parking");
    let answer = parking.post(RETRIEVE, &question("parking.example")).await.unwrap().into_body().unwrap();
    assert!(answer.get("kaf").is_some() && answer.get("gpsi").is_none(), "its entry does not allow it");
    let wide = parking.with_tokens(Some("3gpp-akma nnef-akma:gpsi-access"));
    let outcome = wide.post::<_, Value>(&format!("{}{RETRIEVE}", parking.nef), &question("parking.example")).await;
    assert!(problem(outcome.unwrap_err()).has_cause("TOKEN_REFUSED"), "the scope is not granted");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_aanf_tells_a_supi_alone_the_gpsi_comes_from_udm() {
    let world = World::start_with(common::AFS, true).await;
    let answer = world.af("weather").post(RETRIEVE, &question("weather.example")).await.unwrap().into_body().unwrap();
    assert_eq!(answer["gpsi"], GPSI);
    assert!(!answer.to_string().contains("imsi"));
    let answer = world.af("parking").post(RETRIEVE, &question("parking.example")).await.unwrap().into_body().unwrap();
    assert!(answer.get("gpsi").is_none() && !answer.to_string().contains("imsi"));
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_af_id_is_refused_and_what_the_aanf_refuses_is_told_with_its_cause() {
    let afs =
        common::AFS.replace(r#"fqdns = ["parking.example"]"#, r#"fqdns = ["parking.example", "unheard.example"]"#);
    let world = World::start_with(&afs, false).await;
    let parking = world.af("parking");
    refused(parking.post(RETRIEVE, &question("weather.example")).await, 403, refusal::AF_ID_NOT_ALLOWED);
    // The entry allows it, the AAnF does not.
    refused(parking.post(RETRIEVE, &question("unheard.example")).await, 403, "AF_ID_NOT_ALLOWED");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_or_with_anothers_or_a_changed_one_nothing_is_served() {
    let world = World::start().await;
    let (weather, parking) = (world.af("weather"), world.af("parking"));
    let uri = format!("{}{RETRIEVE}", world.nef());
    refused(weather.http.post::<_, Value>(&uri, &question("weather.example")).await, 401, "TOKEN_MISSING");

    let token = token_of(&weather, None).await["access_token"].as_str().unwrap().to_owned();
    let with = |client: &SbiClient, token: &str| {
        client.clone().with_tokens(std::sync::Arc::new(Fixed(token.into()))).for_service("NEF", "")
    };
    with(&weather.http, &token).post::<_, Value>(&uri, &question("weather.example")).await.unwrap();
    let stolen = with(&parking.http, &token).post::<_, Value>(&uri, &question("weather.example")).await;
    refused(stolen, 401, "INVALID_TOKEN");
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = head.split_once('.').unwrap();
    let last = if claims.ends_with('A') { 'B' } else { 'A' };
    for changed in [
        format!("{header}.{}{last}.{signature}", &claims[..claims.len() - 1]),
        format!("{head}."),
        format!("eyJhbGciOiJub25lIn0.{claims}."),
        "x".repeat(10_000),
        "a.b.c".to_owned(),
    ] {
        let outcome = with(&weather.http, &changed).post::<_, Value>(&uri, &question("weather.example")).await;
        refused(outcome, 401, "INVALID_TOKEN");
    }

    let other = weather.with_tokens(Some(scope::MESSAGE_DELIVERY));
    refused(other.post::<_, Value>(&uri, &question("weather.example")).await, 403, "INSUFFICIENT_SCOPE");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_nobody_another_authority_or_a_network_function_do_not_get_in() {
    let world = World::start().await;
    // Of the right authority, but in no entry.
    let stranger = world.af("stranger");
    assert_eq!(form(&stranger, "grant_type=client_credentials").await, (401, json!({"error": "invalid_client"})));
    assert_eq!(
        form(&stranger, "grant_type=client_credentials&client_id=weather").await,
        (401, json!({"error": "invalid_client"}))
    );
    let weather = world.af("weather");
    assert_eq!(
        form(&weather, "grant_type=client_credentials&client_id=parking").await,
        (401, json!({"error": "invalid_client"}))
    );
    let unreachable = async |files: CertificateFiles| {
        let tls = CertificateFiles { ca: world.inside.ca(), ..files };
        let client = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
        let outcome =
            client.post::<_, Value>(&format!("{}{RETRIEVE}", world.nef()), &question("weather.example")).await;
        assert!(matches!(outcome, Err(SbiError::Unreachable(_))), "{outcome:?}");
    };
    unreachable(TestAuthority::new().issue("weather", &["weather.example"])).await;
    unreachable(world.inside.issue(STRANGER, &["weather.example"])).await;
    unreachable(world.inside.issue(SERVER, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_endpoint_grants_what_the_entry_allows_and_refuses_as_rfc_6749_says() {
    let world = World::start().await;
    let weather = world.af("weather");
    let granted = token_of(&weather, None).await;
    assert_eq!(granted["token_type"], "Bearer");
    assert_eq!(granted["expires_in"], 600);
    assert!(granted["scope"].as_str().unwrap().contains(scope::GPSI_ACCESS));
    assert_eq!(token_of(&weather, Some(scope::AKMA)).await["scope"], scope::AKMA);
    for (body, error) in [
        ("", "invalid_request"),
        ("grant_type=password&username=a&password=b", "unsupported_grant_type"),
        ("grant_type=client_credentials&scope=naanf-akma", "invalid_scope"),
        ("grant_type=client_credentials&scope=3gpp-akma&scope=3gpp-akma", "invalid_request"),
        ("\u{0}%ff%zz&&&=", "invalid_request"),
    ] {
        assert_eq!(form(&weather, body).await, (400, json!({"error": error})), "{body:?}");
    }
    // JSON is not the form that the endpoint takes.
    let outcome = weather.http.post::<_, Value>(&format!("{}/oauth2/token", world.nef()), &json!({})).await;
    assert_eq!(problem(outcome.unwrap_err()).status, Some(400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_token_is_bad_is_refused_before_its_body_comes() {
    let world = World::start().await;
    let weather = world.af("weather");
    for path in [RETRIEVE, "/msgs-msgdelivery/v1/deliver-as-message"] {
        let asked = |token: Option<&str>| {
            let request =
                http::Request::post(format!("{}{path}", world.nef())).header("content-type", "application/json");
            token.into_iter().fold(request, |request, token| request.header("authorization", format!("Bearer {token}")))
        };
        for token in [None, Some("a.b.c")] {
            let status = status_before_the_body(&weather.files, asked(token).body(()).unwrap()).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} with {token:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_in_both_directions_and_the_answer_is_the_servers() {
    let world = World::start().await;
    let (billing, mut at_billing) = world.inside_as().await;
    let mut target = Target::start(&world.certificate("weather"), world.shutdown.clone()).await;
    let weather = world.af("weather");
    let registered = weather.register("weather@example", &target.root).await.unwrap();
    assert_eq!(registered.status, StatusCode::CREATED);
    let location = registered.location.unwrap();
    assert_eq!(registered.body.unwrap()["asSvcId"], "weather@example");

    let ack = weather.send("weather@example", ("AS", "billing@lab"), "m-1").await.unwrap().into_body().unwrap();
    assert_eq!(ack, json!({"oriAddr": {"addrType": "AS", "addr": "weather@example"}, "msgId": "m-1"}));
    let (operation, delivered) = timeout(PATIENCE, at_billing.recv()).await.unwrap().unwrap();
    assert_eq!((operation.as_str(), &delivered["msgId"]), ("deliver-message", &json!("m-1")));

    let ack = world.send_inside_out(&billing, "m-2").await;
    assert!(ack.get("status").is_none(), "delivered: {ack}");
    let (operation, delivered) = timeout(PATIENCE, target.deliveries.recv()).await.unwrap().unwrap();
    assert_eq!((operation.as_str(), &delivered["msgId"]), ("deliver-message", &json!("m-2")));
    assert_eq!(delivered["payload"], "aGVsbG8=");

    // The same message again is answered again, and another content is refused with the server's cause.
    weather.send("weather@example", ("AS", "billing@lab"), "m-1").await.unwrap();
    let mut other = message("weather@example", ("AS", "billing@lab"), "m-1");
    other["payload"] = json!("b3RoZXI=");
    refused(weather.post("/msgs-msgdelivery/v1/deliver-as-message", &other).await, 400, "MESSAGE_ID_REUSED");

    let gone: sbi::SbiResponse<Value> =
        weather.with_tokens(None).delete(&format!("{}{location}", world.nef())).await.unwrap();
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let outcome = weather.send("weather@example", ("AS", "billing@lab"), "m-3").await;
    refused(outcome, 403, refusal::NOT_REGISTERED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_that_refuses_outside_is_a_refusal_inside() {
    let world = World::start().await;
    let (billing, _at_billing) = world.inside_as().await;
    let target = Target::start(&world.certificate("weather"), world.shutdown.clone()).await;
    world.af("weather").register("weather@example", &target.root).await.unwrap();
    let failed = json!({
        "oriAddr": {"addrType": "AS", "addr": "billing@lab"}, "msgId": "m-1", "status": "DELY_FAILED"
    });
    *target.answer.lock().unwrap() = (200, Some(failed));
    let ack = world.send_inside_out(&billing, "m-1").await;
    assert_eq!((&ack["status"], &ack["failureCause"]), (&json!("DELY_FAILED"), &json!("TARGET_REFUSED")));
    *target.answer.lock().unwrap() = (404, None);
    let ack = world.send_inside_out(&billing, "m-2").await;
    assert_eq!((&ack["status"], &ack["failureCause"]), (&json!("DELY_FAILED"), &json!("TARGET_REFUSED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_as_is_away_its_messages_are_stored_and_a_restart_of_the_nef_loses_nothing() {
    let mut world = World::start().await;
    let (billing, _at_billing) = world.inside_as().await;
    let listen = common::free_address();
    let stop = world.shutdown.child_token();
    let tls = world.certificate("weather");
    let target = Target::start_at(&tls, listen, stop.clone()).await;
    world.af("weather").register("weather@example", &target.root).await.unwrap();

    // The AS says that it cannot take it now: the server stores.
    *target.answer.lock().unwrap() = (503, None);
    assert_eq!(world.send_inside_out(&billing, "m-1").await["status"], "DELY_STORED");
    // The AS is gone altogether.
    stop.cancel();
    drop(target);
    assert_eq!(world.send_inside_out(&billing, "m-2").await["status"], "DELY_STORED");
    // The NEF is gone, too.
    world.stop_nef().await;
    assert_eq!(world.send_inside_out(&billing, "m-3").await["status"], "DELY_STORED");
    // The server is gone when the NEF comes back.
    world.stop_server().await;
    world.start_nef().await;
    let mut target = Target::start_at(&tls, listen, world.shutdown.clone()).await;
    world.start_server().await;

    for wanted in ["m-1", "m-2", "m-3"] {
        let (_, delivered) = timeout(PATIENCE, target.deliveries.recv()).await.unwrap().unwrap();
        assert_eq!(delivered["msgId"], wanted);
    }
    // Nobody had to register again to send, either.
    let (_billing, mut at_billing) = world.inside_as().await;
    world.af("weather").send("weather@example", ("AS", "billing@lab"), "m-4").await.unwrap();
    assert_eq!(timeout(PATIENCE, at_billing.recv()).await.unwrap().unwrap().1["msgId"], "m-4");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_nothing_is_answered_with_success() {
    let mut world = World::start().await;
    let weather = world.af("weather");
    let target = Target::start(&world.certificate("weather"), world.shutdown.clone()).await;
    weather.register("weather@example", &target.root).await.unwrap();
    world.stop_server().await;
    let problem =
        refused(weather.send("weather@example", ("AS", "billing@lab"), "m-1").await, 503, refusal::INSIDE_UNAVAILABLE);
    assert!(problem.retry_after_seconds.is_some());
    refused(weather.register("weather@example", &target.root).await, 503, refusal::INSIDE_UNAVAILABLE);
    // What others inside do is served meanwhile, to the same client.
    weather.post(RETRIEVE, &question("weather.example")).await.unwrap();
    // The earlier registration holds.
    world.start_server().await;
    let (billing, _at_billing) = world.inside_as().await;
    assert!(world.send_inside_out(&billing, "m-2").await.get("status").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_another_application_server_or_reaches_beyond_its_entry() {
    let world = World::start().await;
    let (_billing, _at_billing) = world.inside_as().await;
    let (weather, parking) = (world.af("weather"), world.af("parking"));
    let weather_target = Target::start(&world.certificate("weather"), world.shutdown.clone()).await;
    let parking_target = Target::start(&world.certificate("parking"), world.shutdown.clone()).await;
    let registered = weather.register("weather@example", &weather_target.root).await.unwrap();
    let outcome = parking.register("weather@example", &parking_target.root).await;
    refused(outcome, 403, refusal::ORIGINATOR_NOT_ALLOWED);
    refused(parking.register("billing@lab", &parking_target.root).await, 403, refusal::ORIGINATOR_NOT_ALLOWED);
    let outcome = parking.send("weather@example", ("AS", "billing@lab"), "m-1").await;
    refused(outcome, 403, refusal::ORIGINATOR_NOT_ALLOWED);
    let mut as_ue = message("weather@example", ("AS", "billing@lab"), "m-1");
    as_ue["oriAddr"]["addrType"] = json!("UE");
    refused(
        weather.post("/msgs-msgdelivery/v1/deliver-as-message", &as_ue).await,
        403,
        refusal::ORIGINATOR_NOT_ALLOWED,
    );

    // Not registered yet, then registered but with a narrow entry.
    let outcome = parking.send("parking@example", ("AS", "billing@lab"), "m-1").await;
    refused(outcome, 403, refusal::NOT_REGISTERED);
    parking.register("parking@example", &parking_target.root).await.unwrap();
    for to in [("UE", "meter-1@lab"), ("GROUP", "fleet@lab"), ("TOPIC", "lab/rain"), ("AS", "weather@example")] {
        refused(parking.send("parking@example", to, "m-1").await, 403, refusal::RECIPIENT_NOT_ALLOWED);
    }
    refused(
        weather.send("weather@example", ("UE", "meter-1@elsewhere"), "m-1").await,
        403,
        refusal::RECIPIENT_NOT_ALLOWED,
    );
    // Allowed here, unknown there: the server's own words.
    refused(weather.send("weather@example", ("UE", "meter-1@lab"), "m-2").await, 404, "UNKNOWN_TARGET");

    // Another's registration is not there for us.
    let location = registered.location.unwrap();
    let uri = format!("{}{location}", world.nef());
    refused(parking.with_tokens(None).delete::<Value>(&uri).await, 404, refusal::REGISTRATION_NOT_FOUND);

    for target in
        ["https://127.0.0.2:1/in", "https://weather.example/in", "http://127.0.0.1/in", "https://u@127.0.0.1/"]
    {
        let outcome = parking.register("parking@example", target).await;
        refused(outcome, 403, refusal::TARGET_URI_NOT_ALLOWED);
    }
    let report = json!({
        "oriAddr": {"addrType": "AS", "addr": "parking@example"},
        "destAddr": {"addrType": "UE", "addr": "meter-1@lab"}, "msgId": "m", "delivSt": "REPT_DELY_SUCCESS"
    });
    refused(parking.post("/msgs-msgdelivery/v1/deliver-report", &report).await, 403, refusal::RECIPIENT_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_subscribed_to_and_told_of_within_the_entry_only() {
    let world = World::start().await;
    let (billing, _at_billing) = world.inside_as().await;
    let weather = world.af("weather");
    let mut target = Target::start(&world.certificate("weather"), world.shutdown.clone()).await;
    weather.register("weather@example", &target.root).await.unwrap();
    let own = json!({"addrType": "AS", "addr": "weather@example"});
    let list = |uri: &str| json!({"oriAddr": own, "destAddr": {"addrType": "AS", "addr": "msgin5g.lab"}, "notificationURI": uri});
    let lists = "/msgs-topiclistevent/v1/topiclist-subscriptions";
    let notified = format!("{}/topics", target.root);
    let subscribed = weather.post(lists, &list(&notified)).await.unwrap();
    assert_eq!(subscribed.status, StatusCode::CREATED);
    refused(weather.post(lists, &list("https://127.0.0.2/x")).await, 403, refusal::TARGET_URI_NOT_ALLOWED);

    let topics = |topics: &[&str]| json!({"oriAddr": own, "msgTopics": topics});
    let subscribe = "/msgs-topiclistevent/v1/request-topic-subscription";
    refused(weather.post(subscribe, &topics(&["lab/rain", "secret/x"])).await, 403, refusal::TOPIC_NOT_ALLOWED);
    // Somebody inside makes a topic that the entry does not name; then one that it does.
    let inside = |topic: &str| json!({"oriAddr": {"addrType": "AS", "addr": "billing@lab"}, "msgTopics": [topic]});
    let server = format!("{}{subscribe}", world.server_api());
    billing.post::<_, Value>(&server, &inside("secret/x")).await.unwrap();
    weather.post(subscribe, &topics(&["lab/rain"])).await.unwrap();
    loop {
        let (_, told) = timeout(PATIENCE, target.deliveries.recv()).await.unwrap().unwrap();
        assert!(!told.to_string().contains("secret"), "{told}");
        if told["msgTopics"].to_string().contains("lab/rain") {
            break;
        }
    }
    // A message to the topic arrives outside.
    let uri = format!("{}/msgs-msgdelivery/v1/deliver-as-message", world.server_api());
    billing.post::<_, Value>(&uri, &message("billing@lab", ("TOPIC", "lab/rain"), "t-1")).await.unwrap();
    let (_, delivered) = timeout(PATIENCE, target.deliveries.recv()).await.unwrap().unwrap();
    assert_eq!(delivered["msgId"], "t-1");

    // One more list, then the limit; one ended makes room.
    weather.post(lists, &list(&notified)).await.unwrap();
    refused(weather.post(lists, &list(&notified)).await, 429, refusal::TOO_MANY_SUBSCRIPTIONS);
    let ended = json!({"oriAddr": own, "destAddr": {"addrType": "AS", "addr": "msgin5g.lab"}});
    let location = subscribed.location.unwrap();
    assert_eq!(weather.post(&location, &ended).await.unwrap().status, StatusCode::NO_CONTENT);
    refused(weather.post(&location, &ended).await, 404, refusal::SUBSCRIPTION_NOT_FOUND);
    weather.post(lists, &list(&notified)).await.unwrap();
    weather.post("/msgs-topiclistevent/v1/request-topic-unsubscription", &topics(&["lab/rain"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_only_the_server_delivers() {
    let world = World::start().await;
    let target = Target::start(&world.certificate("weather"), world.shutdown.clone()).await;
    world.af("weather").register("weather@example", &target.root).await.unwrap();
    let uri = format!("{}/nef-msgin5g/v1/weather%40example/deliver-message", world.nef_inside());
    let body = message("billing@lab", ("AS", "weather@example"), "m-1");
    for somebody in [INSIDE_AS, STRANGER, NEF] {
        let outcome = world.inside.client(somebody).post::<_, Value>(&uri, &body).await;
        refused(outcome, 403, refusal::REQUESTER_NOT_ALLOWED);
    }
    let server = world.inside.client(SERVER);
    server.post::<_, Value>(&uri, &body).await.unwrap();
    // Not known here (yet): the server is to keep it.
    let unknown = uri.replace("weather", "parking");
    refused(server.post::<_, Value>(&unknown, &body).await, 503, refusal::TARGET_UNAVAILABLE);
    // AFs' certificates are of another authority.
    let af = world.af("weather");
    assert!(matches!(af.http.post::<_, Value>(&uri, &body).await, Err(SbiError::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_application_server_that_is_away_holds_up_no_other() {
    let world = World::start().await;
    let weather = Target::start(&world.certificate("weather"), world.shutdown.clone()).await;
    let parking = Target::start(&world.certificate("parking"), world.shutdown.clone()).await;
    world.af("weather").register("weather@example", &weather.root).await.unwrap();
    world.af("parking").register("parking@example", &parking.root).await.unwrap();
    *weather.answer.lock().unwrap() = (503, None);
    let server = world.inside.client(SERVER);
    let deliver = async |to: &str| {
        let uri = format!("{}/nef-msgin5g/v1/{to}%40example/deliver-message", world.nef_inside());
        let body = message("billing@lab", ("AS", &format!("{to}@example")), "m-1");
        server.post::<_, Value>(&uri, &body).await
    };
    let problem = refused(deliver("weather").await, 503, refusal::TARGET_UNAVAILABLE);
    assert!(problem.retry_after_seconds.is_some());
    deliver("parking").await.unwrap();
    // Nor itself, once it is back.
    *weather.answer.lock().unwrap() = (204, None);
    deliver("weather").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_af_that_asks_too_often_is_told_when_to_come_back_and_others_are_served() {
    let world = World::start().await;
    let hasty = world.af("hasty");
    // One request for the token, one for the key; then the burst is used up.
    let client = hasty.with_tokens(None);
    let uri = format!("{}{RETRIEVE}", world.nef());
    client.post::<_, Value>(&uri, &question("hasty.example")).await.unwrap();
    let mut refusals = 0;
    for _ in 0..20 {
        if let Err(error) = client.post::<_, Value>(&uri, &question("hasty.example")).await {
            let problem = problem(error);
            assert_eq!((problem.status, problem.cause.as_deref()), (Some(429), Some(refusal::RATE_EXCEEDED)));
            assert!(problem.retry_after_seconds.is_some_and(|seconds| seconds >= 1));
            refusals += 1;
        }
    }
    assert!(refusals >= 1, "twenty requests at one a second");
    world.af("weather").post(RETRIEVE, &question("weather.example")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_and_failure_is_told_to_the_audit_with_subject_action_outcome_and_reason() {
    let log = AuditLog::record();
    let mut world = World::start().await;
    let told = async |subject: &str, action: &str, outcome: &str, reason: &str| {
        log.next_with(&[("subject", subject), ("action", action), ("outcome", outcome), ("reason", reason)]).await;
    };
    let parking = world.af("parking");
    refused(parking.post(RETRIEVE, &question("weather.example")).await, 403, refusal::AF_ID_NOT_ALLOWED);
    told("parking", "3gpp-akma:retrieve", "refused", "af_id_not_allowed").await;
    let bare = SbiClientConfig { tls: world.certificate("parking"), limits: ClientLimits::default() };
    let bare = SbiClient::new(bare).unwrap();
    let outcome = bare.post::<_, Value>(&format!("{}{RETRIEVE}", world.nef()), &question("parking.example")).await;
    assert_eq!(problem(outcome.unwrap_err()).status, Some(401));
    // The first DNS name of its certificate: who nobody has proven to be an AF is not called by an AF's name.
    told("localhost", scope::AKMA, "refused", "token_missing").await;
    // One token for all of them: what is refused is the request.
    let hasty = world.af("hasty").with_tokens(None);
    let uri = format!("{}{RETRIEVE}", world.nef());
    until(async || hasty.post::<_, Value>(&uri, &question("hasty.example")).await.is_err()).await;
    told("hasty", scope::AKMA, "refused", "rate_exceeded").await;
    // What fails behind it was not refused, and came to nothing.
    parking.register("parking@example", "https://parking.example/in").await.unwrap();
    world.stop_server().await;
    let outcome = parking.send("parking@example", ("AS", "billing@lab"), "m").await;
    assert_eq!(problem(outcome.unwrap_err()).status, Some(503));
    let fields = [("subject", "parking"), ("outcome", "failed")];
    assert!(log.next_with(&fields).await["action"].contains("deliver-as-message"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_and_the_service_goes_on() {
    let world = World::start().await;
    let weather = world.af("weather");
    let target = Target::start(&world.certificate("weather"), world.shutdown.clone()).await;
    weather.register("weather@example", &target.root).await.unwrap();
    let send = "/msgs-msgdelivery/v1/deliver-as-message";
    for path in
        [RETRIEVE, send, "/msgs-asregistration/v1/registrations", "/msgs-topiclistevent/v1/topiclist-subscriptions"]
    {
        for body in [json!(null), json!([]), json!({}), json!({"afId": 1}), json!({"afId": "x", "aKId": SUPI})] {
            let outcome = weather.post(path, &body).await;
            let problem = problem(outcome.unwrap_err());
            assert_eq!(problem.status, Some(400), "{path} {body}");
            assert!(!serde_json::to_string(&problem).unwrap().contains("imsi"), "no value is repeated");
        }
    }
    let mut big = message("weather@example", ("AS", "billing@lab"), "m-1");
    big["payload"] = json!("A".repeat(200_000));
    assert_eq!(problem(weather.post(send, &big).await.unwrap_err()).status, Some(413));
    big["payload"] = json!("not base64!");
    assert_eq!(problem(weather.post(send, &big).await.unwrap_err()).status, Some(400));
    weather.post(RETRIEVE, &question("weather.example")).await.unwrap();
}

struct Fixed(std::sync::Arc<str>);

impl sbi::TokenSource for Fixed {
    fn token(
        &self,
        _: &sbi::TokenTarget,
        _: &str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<std::sync::Arc<str>, SbiError>> + Send + '_>> {
        let token = std::sync::Arc::clone(&self.0);
        Box::pin(async move { Ok(token) })
    }

    fn rejected(&self, _: &sbi::TokenTarget, _: &str, _: &str) {}
}

/// The token endpoint's answer to a form.
async fn form(af: &common::Af, body: &str) -> (u16, Value) {
    let uri = format!("{}/oauth2/token", af.nef);
    let (parts, body) = af.http.post_form(&uri, body.to_owned(), http::HeaderMap::new()).await.unwrap();
    (parts.status.as_u16(), serde_json::from_slice(&body).unwrap())
}

async fn token_of(af: &common::Af, scope: Option<&str>) -> Value {
    let scope = scope.map(|scope| format!("&scope={scope}")).unwrap_or_default();
    let (status, answer) = form(af, &format!("grant_type=client_credentials{scope}")).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_policy_file_is_taken_without_a_restart_and_a_broken_one_leaves_the_earlier_rules() {
    let mut world = World::start_with("", false).await;
    world.stop_nef().await;
    let policy = world.directory.path().join("nef-policy.toml");
    let put = |text: &str| {
        let fresh = policy.with_extension("new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, &policy).unwrap();
    };
    let entries = common::AFS.replace("[[nef.af]]", "[[af]]");
    put(&entries);
    world.nef_config = world.nef_config.replacen("[nef]", &format!("[nef]\npolicy = {policy:?}"), 1);
    world.start_nef().await;
    let weather = world.af("weather");
    // One client, and so one token all the time.
    let (client, uri) = (weather.with_tokens(None), format!("{}{RETRIEVE}", world.nef()));
    let ask = async || client.post::<_, Value>(&uri, &question("weather.example")).await;
    assert_eq!(ask().await.unwrap().status, StatusCode::OK);

    // Neither text that is no policy nor one that makes no sense changes anything; each is tried before the next takes its place.
    let failed = || world.nef_metric("sbi_policy_refreshes_total{outcome=\"failed\"}");
    for broken in ["[[af]", "[[af]]\naf_id = \"nobody\"\n"] {
        let before = failed();
        put(broken);
        until(async || failed() > before + 1).await;
        assert_eq!(ask().await.unwrap().status, StatusCode::OK);
    }
    // The entry goes: its tokens, which have not expired, are of no use from then on.
    put(&entries.replace("weather", "storm"));
    until(async || ask().await.is_err()).await;
    refused(ask().await, 403, "REQUESTER_NOT_ALLOWED");
    put(&entries);
    until(async || ask().await.is_ok()).await;
}

/// Waits until this holds.
async fn until(holds: impl AsyncFn() -> bool) {
    let holds = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, holds).await.expect("it comes to hold");
}
