//! A proof ends: K_AF expires, AKMA is not allowed or withdrawn, a newer authentication supersedes it, the association is
//! removed. Connections end at the expiry, or by the next re-validation (`limits.revalidation_seconds`).

use axum::http::StatusCode;
use sbi::naanf::{AkmaAfKeyRequest, NaanfClient};

use crate::common::foreign_ue::{
    ForeignUe, HANDSHAKE_FAILURE, TLS_1_2_ECDHE, TLS_1_2_PLAIN, TLS_1_3, UNKNOWN_PSK_IDENTITY,
};
use crate::common::function::Function;
use crate::common::{Lab, msgin5g};
use crate::neighbour::{Manner, Relay, ausf_of, client_of};

pub(crate) const EVERY_SECOND: (&str, &str) = ("MSGIN5G_LIMITS__REVALIDATION_SECONDS", "1");
const A_KID_INVALID: Option<&str> = Some("A-KID no longer valid");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k_af_ends_connections_at_its_expiry_and_opens_none_after_it() {
    let lab = Lab::start();
    let aanf = Function::aanf(&lab, &[("MSGIN5G_KAF_LIFETIME_SECONDS", "8")]);
    let ausf = ausf_of(&lab, &aanf.root()).await;
    let server = Function::server(&lab, &[("MSGIN5G_AKMA__AANF", &aanf.root())]);
    let mut alice = ForeignUe::new(&lab, 0);
    let mut bob = ForeignUe::new(&lab, 1);
    let old = alice.authenticate_at(&ausf);
    bob.authenticate_at(&ausf);
    alice.connects(server.address(), TLS_1_3);
    assert_eq!(alice.register().code, "2.01");
    bob.connects(server.address(), TLS_1_2_ECDHE);
    assert_eq!(bob.register().code, "2.01");

    assert_eq!(alice.end().as_deref(), Some("K_AF expired"));
    assert_eq!(bob.end().as_deref(), Some("K_AF expired"));
    alice.is_refused(server.address(), TLS_1_3, HANDSHAKE_FAILURE);
    bob.is_refused(server.address(), TLS_1_2_ECDHE, UNKNOWN_PSK_IDENTITY);

    // Both are known and away; what is for them waits until they have authenticated again.
    bob.authenticate_at(&ausf);
    bob.come_back(server.address());
    assert!(bob.send_storable(&alice.service_id, "for-when-she-is-back").is_stored());
    assert_ne!(alice.authenticate_at(&ausf), old);
    alice.come_back(server.address());
    assert_eq!(alice.receive(1), ["for-when-she-is-back"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_without_akma_authenticates_and_is_unknown_to_every_application_function() {
    let lab = Lab::start();
    let server = Function::server(&lab, &[]);
    let description = lab.lab_json();
    let subscribers = description["subscribers"].as_array().unwrap();
    let without = subscribers.iter().position(|subscriber| subscriber["akma_allowed"] == false).unwrap();
    let mut ue = ForeignUe::new(&lab, without);
    let a_kid = ue.authenticate();
    for (client, alert) in
        [(TLS_1_3, HANDSHAKE_FAILURE), (TLS_1_2_ECDHE, UNKNOWN_PSK_IDENTITY), (TLS_1_2_PLAIN, UNKNOWN_PSK_IDENTITY)]
    {
        ue.is_refused(server.address(), client, alert);
    }
    assert!(!aanf_knows(&lab, &a_kid).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn akma_taken_from_a_subscription_ends_with_the_next_authentication() {
    let lab = Lab::start();
    let server = Function::server(&lab, &[EVERY_SECOND]);
    let mut alice = ForeignUe::new(&lab, 0);
    let a_kid = alice.authenticate();
    alice.come_back(server.address());
    assert!(aanf_knows(&lab, &a_kid).await);

    let subscriber = &lab.lab_json()["subscribers"][0];
    let member = |name: &str| subscriber[name].as_str().unwrap();
    provision(
        &lab,
        &["subscriber", "add"],
        &["--supi", member("supi"), "--k", member("k"), "--opc", member("opc"), "--no-akma"],
    );
    let next = alice.authenticate();
    // K_AKMA is good until the next successful authentication (TS 33.535 clause 5.2), whatever comes of that.
    assert_eq!(alice.end().as_deref(), A_KID_INVALID);
    assert!(!aanf_knows(&lab, &a_kid).await && !aanf_knows(&lab, &next).await);
    alice.is_refused(server.address(), TLS_1_3, HANDSHAKE_FAILURE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_that_left_the_network_loses_its_connection_until_it_authenticates_again() {
    let lab = Lab::start();
    let server = Function::server(&lab, &[EVERY_SECOND]);
    let mut alice = ForeignUe::registered(&lab, 0, server.address());
    alice.leave_network();
    assert_eq!(alice.end().as_deref(), A_KID_INVALID);
    alice.is_refused(server.address(), TLS_1_3, HANDSHAKE_FAILURE);
    alice.is_refused(server.address(), TLS_1_2_ECDHE, UNKNOWN_PSK_IDENTITY);
    alice.authenticate();
    alice.come_back(server.address());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_authentication_ends_the_connection_of_the_older() {
    let lab = Lab::start();
    let server = Function::server(&lab, &[EVERY_SECOND]);
    let mut alice = ForeignUe::registered(&lab, 0, server.address());
    alice.authenticate();
    assert_eq!(alice.end().as_deref(), A_KID_INVALID);
    alice.come_back(server.address());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_association_that_is_removed_ends_the_connection_registered_by_it() {
    let lab = Lab::start();
    let server = Function::server(&lab, &[EVERY_SECOND]);
    let mut alice = ForeignUe::registered(&lab, 0, server.address());
    let mut bob = ForeignUe::registered(&lab, 1, server.address());
    let association = ["--ue-id", &alice.supi.clone(), "--ue-service-id", &alice.service_id.clone()];
    provision(&lab, &["association", "remove"], &association);
    assert_eq!(alice.end().as_deref(), Some("UE Service ID no longer associated"));
    // The key is as good as before.
    alice.connects(server.address(), TLS_1_3);
    alice.register().refused("4.03", "NOT_ASSOCIATED");
    bob.send("nobody@lab.example", "nothing-to-do-with-him").refused("4.04", "UNKNOWN_TARGET");
    provision(&lab, &["association", "add"], &association);
    assert_eq!(alice.register().code, "2.01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_outlives_a_silence_of_the_aanf_as_long_as_the_grace_lasts() {
    outlives_a_silence_of("aanf", "MSGIN5G_AKMA__AANF").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_outlives_a_silence_of_the_configuration_function_as_long_as_the_grace_lasts() {
    outlives_a_silence_of("configuration", "MSGIN5G_CONFIGURATION_FUNCTION__URL").await;
}

async fn outlives_a_silence_of(name: &str, variable: &'static str) {
    let lab = Lab::start();
    let relay = Relay::before(&lab, name).await;
    let grace = ("MSGIN5G_LIMITS__REVALIDATION_GRACE_SECONDS", "6");
    let server = Function::server(&lab, &[(variable, &relay.root()), EVERY_SECOND, grace]);
    let mut alice = ForeignUe::registered(&lab, 0, server.address());

    relay.is(Manner::status(StatusCode::INTERNAL_SERVER_ERROR));
    relay.asked_more_than(relay.asked()).await;
    alice.send("nobody@lab.example", "not-yet").refused("4.04", "UNKNOWN_TARGET");
    // It answers again before the grace is over: as if nothing had been.
    relay.is(Manner::Honest);
    relay.asked_more_than(relay.asked() + 2).await;
    alice.send("nobody@lab.example", "nor-now").refused("4.04", "UNKNOWN_TARGET");

    relay.is(Manner::status(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(alice.end().as_deref(), Some("key and association cannot be checked"));
}

/// Whether the lab's AAnF has K_AF for the server under this A-KID.
async fn aanf_knows(lab: &Lab, a_kid: &str) -> bool {
    let description = lab.lab_json();
    let aanf = NaanfClient::new(client_of(lab, "server"), description["core"]["aanf"].as_str().unwrap());
    let af_id = format!("{}:0100000007", description["server"]["fqdn"].as_str().unwrap());
    let request = AkmaAfKeyRequest::new(af_id.parse().unwrap(), a_kid.parse().unwrap());
    aanf.retrieve_applicationkey(&request).await.unwrap().is_some()
}

/// `msgin5g COMMAND --lab lab.json ARGUMENTS`.
pub(crate) fn provision(lab: &Lab, command: &[&str], arguments: &[&str]) {
    let done = msgin5g().args(command).arg("--lab").arg(lab.lab_json_path()).args(arguments).output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
