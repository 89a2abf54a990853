//! The Configuration Function is down, slow, somebody else, or answers nonsense: no registration is accepted, each is
//! told 5.03 and when to come back; and its answers are taken to the letter (TS 33.501 clause Y.2).

use axum::http::StatusCode;
use serde_json::json;

use crate::common::Lab;
use crate::common::foreign_ue::{ForeignUe, TLS_1_2_ECDHE, TLS_1_3};
use crate::common::function::Function;
use crate::neighbour::{Habit, Manner, NobodyThere, Relay, Stranger, certificate, eventually, impostor};

const CONFIGURATION_FUNCTION: &str = "MSGIN5G_CONFIGURATION_FUNCTION__URL";
const ASSOCIATION_TIMEOUT: (&str, &str) = ("MSGIN5G_LIMITS__ASSOCIATION_TIMEOUT_SECONDS", "1");
/// A connection may stay unregistered for as long as a test takes.
const REGISTRATION_TIMEOUT: (&str, &str) = ("MSGIN5G_LIMITS__REGISTRATION_TIMEOUT_SECONDS", "3600");
const RETRY_AFTER: (&str, &str) = ("MSGIN5G_LIMITS__RETRY_AFTER_SECONDS", "7");

/// REG is answered 5.03 with cause and Max-Age, and the UE is nobody after it.
#[track_caller]
fn is_put_off(ue: &mut ForeignUe) {
    let answer = ue.register();
    answer.refused("5.03", "ASSOCIATION_UNKNOWN");
    assert_eq!(answer.max_age, Some(7));
    ue.send("nobody@lab.example", "sent-without-registration").refused("4.01", "NOT_REGISTERED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_function_that_is_down_is_5_03_until_it_is_back() {
    let lab = Lab::start();
    let nobody = NobodyThere::new();
    let server = Function::server(&lab, &[(CONFIGURATION_FUNCTION, &nobody.root()), REGISTRATION_TIMEOUT, RETRY_AFTER]);
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    for client in [TLS_1_2_ECDHE, TLS_1_3] {
        alice.connects(server.address(), client);
        is_put_off(&mut alice);
    }
    let address = nobody.address();
    drop(nobody);
    let _configuration = Relay::before_at(&lab, "configuration", address).await;
    // On the same connection, and nothing is to be done at the server.
    eventually("the registration", || alice.register().code == "2.01").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_no_configuration_function_or_says_nothing_is_5_03() {
    let lab = Lab::start();
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    let genuine = certificate(&lab, "configuration");
    let cases = [
        (genuine.clone(), Habit::SilentTcp),
        (genuine.clone(), Habit::SilentTls),
        (genuine.clone(), Habit::Babbling(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")),
        (genuine, Habit::Closing),
        (impostor(&lab), Habit::SilentTls),
    ];
    for (tls, habit) in cases {
        let configuration = Stranger::start(&tls, habit).await;
        let server = Function::server(
            &lab,
            &[(CONFIGURATION_FUNCTION, &configuration.root()), ASSOCIATION_TIMEOUT, REGISTRATION_TIMEOUT, RETRY_AFTER],
        );
        alice.connects(server.address(), TLS_1_3);
        is_put_off(&mut alice);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_function_that_is_slow_or_answers_nonsense_is_5_03() {
    let lab = Lab::start();
    let configuration = Relay::before(&lab, "configuration").await;
    let server = Function::server(
        &lab,
        &[(CONFIGURATION_FUNCTION, &configuration.root()), ASSOCIATION_TIMEOUT, REGISTRATION_TIMEOUT, RETRY_AFTER],
    );
    let mut bob = ForeignUe::registered(&lab, 1, server.address());
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    alice.connects(server.address(), TLS_1_3);
    let profile = |information: &str| json!([{"profileInformation": information, "valTgtUe": {"valUeId": alice.supi}}]);
    let nonsense = [
        Manner::Silent,
        Manner::saying(""),
        Manner::saying("[{"),
        Manner::saying("{}"),
        Manner::saying("null"),
        Manner::saying("[[[]]]"),
        Manner::saying(format!("[\"{}\"]", "x".repeat(1 << 20))),
        Manner::saying(profile("")),
        Manner::saying(profile("{}")),
        Manner::saying(profile(&json!({"ueServiceIds": alice.service_id}).to_string())),
        Manner::saying(profile(&json!({"ueServiceIds": [alice.service_id, "not one"]}).to_string())),
        Manner::saying(
            json!([{"profileInformation": {"ueServiceIds": [alice.service_id]}, "valTgtUe": {"valUeId": alice.supi}}]),
        ),
        Manner::Saying(
            StatusCode::OK,
            "text/html",
            profile(&json!({"ueServiceIds": [alice.service_id]}).to_string()).to_string(),
        ),
        Manner::status(StatusCode::NO_CONTENT),
        Manner::status(StatusCode::TEMPORARY_REDIRECT),
        Manner::status(StatusCode::FORBIDDEN),
        Manner::status(StatusCode::INTERNAL_SERVER_ERROR),
        Manner::status(StatusCode::SERVICE_UNAVAILABLE),
    ];
    for manner in nonsense {
        configuration.is(manner);
        is_put_off(&mut alice);
    }
    // Who is registered stays so, whatever a repetition is answered.
    bob.register().refused("5.03", "ASSOCIATION_UNKNOWN");
    bob.send("nobody@lab.example", "still-served").refused("4.04", "UNKNOWN_TARGET");

    configuration.is(Manner::Honest);
    assert_eq!(alice.register().code, "2.01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_association_of_another_ue_or_with_another_ue_service_id_is_4_03() {
    let lab = Lab::start();
    let configuration = Relay::before(&lab, "configuration").await;
    let server = Function::server(&lab, &[(CONFIGURATION_FUNCTION, &configuration.root()), REGISTRATION_TIMEOUT]);
    let bob = ForeignUe::new(&lab, 1);
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    alice.connects(server.address(), TLS_1_3);
    let profile = |of: &ForeignUe, with: &str| {
        let information = json!({"ueServiceIds": [with]}).to_string();
        Manner::saying(json!([{"profileInformation": information, "valTgtUe": {"valUeId": of.supi}}]))
    };
    let longer = format!("{}x", alice.service_id);
    let refusals = [
        Manner::saying("[]"),
        Manner::status(StatusCode::NOT_FOUND),
        profile(&alice, &bob.service_id),
        profile(&alice, &longer),
        profile(&alice, &alice.service_id.to_uppercase()),
        profile(&bob, &alice.service_id),
    ];
    let own = profile(&alice, &alice.service_id);
    for manner in refusals {
        configuration.is(manner);
        alice.register().refused("4.03", "NOT_ASSOCIATED");
        alice.send("nobody@lab.example", "sent-without-registration").refused("4.01", "NOT_REGISTERED");
    }
    configuration.is(own);
    assert_eq!(alice.register().code, "2.01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_an_identity_opens_a_connection_and_registers_nobody() {
    let lab = Lab::start();
    let aanf = Relay::before(&lab, "aanf").await;
    let server = Function::server(&lab, &[("MSGIN5G_AKMA__AANF", &aanf.root())]);
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    aanf.is(Manner::Anonymous);
    alice.connects(server.address(), TLS_1_3);
    alice.register().refused("4.03", "NOT_ASSOCIATED");
    alice.send("nobody@lab.example", "sent-without-registration").refused("4.01", "NOT_REGISTERED");
}
