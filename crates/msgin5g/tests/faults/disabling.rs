//! A proof ends before its time, and the AAnF tells so (TS 33.535 clause 7.1): connections end at once, not at the next
//! re-validation, which the lab's server and Configuration Function do every ten minutes.

use std::net::SocketAddr;
use std::process::Command;

use axum::http::StatusCode;
use sbi::naanf::{NotificationUri, SERVICE_DISABLE_PATH, ServiceDisableNotif, notify_service_disabled};
use sbi::{SbiClient, SbiClientConfig, SbiError};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::common::foreign_ue::{ForeignUe, HANDSHAKE_FAILURE, TLS_1_2_ECDHE, TLS_1_3, UNKNOWN_PSK_IDENTITY};
use crate::common::{Lab, msgin5g};
use crate::neighbour::{certificate, client_of, eventually};

const DISABLED: Option<&str> = Some("AKMA disabled");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn akma_disabled_for_a_ue_ends_its_connections_at_once_and_those_of_nobody_else() {
    let lab = Lab::start();
    let mut alice = ForeignUe::registered(&lab, 0, server_of(&lab));
    let mut bob = ForeignUe::new(&lab, 1);
    bob.authenticate();
    bob.connects(server_of(&lab), TLS_1_2_ECDHE);
    assert_eq!(bob.register().code, "2.01");
    alice.observe_configuration(configuration_of(&lab));

    disable(&lab, "disabled-ues", &alice.supi).await;
    assert_eq!(alice.end().as_deref(), DISABLED);
    alice.configuration_end();
    alice.is_refused(server_of(&lab), TLS_1_3, HANDSHAKE_FAILURE);
    alice.is_refused(server_of(&lab), TLS_1_2_ECDHE, UNKNOWN_PSK_IDENTITY);
    bob.send("nobody@lab.example", "as-before").refused("4.04", "UNKNOWN_TARGET");
    eventually("the server counts it", || {
        counted(&lab, "msgin5g_connections_ended_total{reason=\"AKMA disabled\"}") == 1
    })
    .await;
    assert_eq!(counted(&lab, "akma_disable_notifications_total{result=\"ended\"}"), 1);
    assert_eq!(counted(&lab, "akma_disable_ended_total"), 1);
    assert!(counted(&lab, "akma_disable_subscriptions_total{result=\"kept\"}") >= 2);

    // She authenticates as before, and has no AKMA until the operator says so.
    alice.authenticate();
    alice.is_refused(server_of(&lab), TLS_1_3, HANDSHAKE_FAILURE);
    enable(&lab, "disabled-ues", &alice.supi).await;
    alice.authenticate();
    alice.come_back(server_of(&lab));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn akma_disabled_for_the_server_ends_every_connection_and_lets_none_begin() {
    let lab = Lab::start();
    let mut ues: Vec<_> = (0..3).map(|subscriber| ForeignUe::registered(&lab, subscriber, server_of(&lab))).collect();
    let fqdn = lab.lab_json()["server"]["fqdn"].as_str().unwrap().to_owned();
    disable(&lab, "disabled-afs", &fqdn).await;
    for ue in &mut ues {
        assert_eq!(ue.end().as_deref(), DISABLED);
        assert!(ue.connect(server_of(&lab), TLS_1_3).is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_that_leaves_the_network_loses_its_connections_at_once() {
    let lab = Lab::start();
    let mut alice = ForeignUe::registered(&lab, 0, server_of(&lab));
    alice.observe_configuration(configuration_of(&lab));
    alice.leave_network();
    assert_eq!(alice.end().as_deref(), DISABLED);
    alice.configuration_end();
    alice.authenticate();
    alice.come_back(server_of(&lab));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_is_removed_loses_its_connections_at_once_and_gets_no_others() {
    let lab = Lab::start();
    let mut alice = ForeignUe::registered(&lab, 0, server_of(&lab));
    alice.observe_configuration(configuration_of(&lab));
    let supi = alice.supi.clone();
    let remove = || -> Command {
        let mut command = msgin5g();
        command.args(["subscriber", "remove", "--lab"]).arg(lab.lab_json_path()).args(["--supi", &supi]);
        command
    };
    assert!(remove().status().unwrap().success());
    assert_eq!(alice.end().as_deref(), DISABLED);
    alice.configuration_end();
    alice.is_refused(server_of(&lab), TLS_1_3, HANDSHAKE_FAILURE);
    let again = remove().output().unwrap();
    assert!(!again.status.success(), "there is none any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_aanf_ends_a_connection() {
    let lab = Lab::start();
    let mut alice = ForeignUe::new(&lab, 0);
    let a_kid = alice.authenticate();
    alice.come_back(server_of(&lab));
    alice.observe_configuration(configuration_of(&lab));
    let description = lab.lab_json();
    let doors = [&description["server"]["api"], &description["core"]["configuration"]]
        .map(|root| format!("{}{SERVICE_DISABLE_PATH}", root.as_str().unwrap()).parse::<NotificationUri>().unwrap());
    let notification = ServiceDisableNotif { a_kid: a_kid.parse().unwrap() };
    for door in &doors {
        for name in ["lab-nf", "ausf", "udm", "nef", "server", "configuration", "provisioner"] {
            // Its certificate decides; a token that the NRF gives it for other things changes nothing.
            let refused = notify_service_disabled(&client_of(&lab, name), door, &notification).await.unwrap_err();
            let problem = refused.problem().unwrap_or_else(|| panic!("{name}: {refused}"));
            assert_eq!(problem.status_code(), StatusCode::FORBIDDEN, "{name}");
            assert!(problem.has_cause("NOTIFIER_NOT_ALLOWED"), "{name}");
        }
        let outside = SbiClientConfig { tls: impostor_files(&lab), limits: sbi::ClientLimits::default() };
        let refused = notify_service_disabled(&SbiClient::new(outside).unwrap(), door, &notification).await;
        assert!(matches!(refused, Err(SbiError::Unreachable(_))), "{refused:?}");
        // The AAnF itself may, but has to say it right, and there may be nothing to end.
        let aanf = client_of(&lab, "aanf");
        let malformed = aanf.post_any(door.as_str(), &json!({"aKId": "not one"})).await.unwrap_err();
        assert_eq!(malformed.problem().unwrap().status_code(), StatusCode::BAD_REQUEST);
        let nobody = ServiceDisableNotif { a_kid: "0.nobody@example.com".parse().unwrap() };
        notify_service_disabled(&aanf, door, &nobody).await.unwrap();
    }
    alice.send("nobody@lab.example", "still-there").refused("4.04", "UNKNOWN_TARGET");

    let [server, configuration] = &doors;
    notify_service_disabled(&client_of(&lab, "aanf"), server, &notification).await.unwrap();
    assert_eq!(alice.end().as_deref(), DISABLED);
    notify_service_disabled(&client_of(&lab, "aanf"), configuration, &notification).await.unwrap();
    alice.configuration_end();
    // The AAnF has not disabled anything: but the server was told, and goes by that for a while.
    alice.connects(server_of(&lab), TLS_1_3);
    assert_eq!(alice.end().as_deref(), DISABLED);
}

fn impostor_files(lab: &Lab) -> sbi::CertificateFiles {
    sbi::CertificateFiles { ca: certificate(lab, "server").ca, ..crate::neighbour::impostor(lab) }
}

fn server_of(lab: &Lab) -> SocketAddr {
    lab.lab_json()["server"]["coaps_tcp"].as_str().unwrap().parse().unwrap()
}

fn configuration_of(lab: &Lab) -> SocketAddr {
    lab.lab_json()["core"]["configuration_coaps_tcp"].as_str().unwrap().parse().unwrap()
}

/// As the operator, at the AAnF.
pub(crate) async fn disable(lab: &Lab, kind: &str, name: &str) {
    let (http, uri) = provisioning(lab, kind, name);
    http.put::<_, IgnoredAny>(&uri, &json!({})).await.unwrap();
}

pub(crate) async fn enable(lab: &Lab, kind: &str, name: &str) {
    let (http, uri) = provisioning(lab, kind, name);
    http.delete::<IgnoredAny>(&uri).await.unwrap();
}

fn provisioning(lab: &Lab, kind: &str, name: &str) -> (SbiClient, String) {
    let aanf = lab.lab_json()["core"]["aanf"].as_str().unwrap().to_owned();
    (client_of(lab, "provisioner"), format!("{aanf}/aanf-provisioning/v1/{kind}/{name}"))
}

/// The sample of this name at the lab's server; 0 if there is none yet.
pub(crate) fn counted(lab: &Lab, sample: &str) -> u64 {
    lab.metrics()
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
        .map_or(0, |value| value.trim().parse().unwrap())
}
