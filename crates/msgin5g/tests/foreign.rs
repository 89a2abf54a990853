//! Programs that share no code with ours become UEs of the lab from `lab.json` alone.
//!
//! They authenticate with curl, open MSGin5G-1 with OpenSSL's and GnuTLS's command-line clients, and speak CoAP by hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use common::{Lab, foreign, foreign_peer};

#[test]
fn a_foreign_ue_registers_sends_receives_and_reports_over_openssl_and_gnutls() {
    let lab = Lab::start();
    let printed = foreign("service.py", &[&lab.lab_json_path()]);
    for client in
        ["openssl tls1.3", "openssl tls1.2 ecdhe-psk", "openssl tls1.2 psk", "gnutls tls1.3", "gnutls tls1.2 psk"]
    {
        assert!(printed.contains(&format!("served: {client}\n")), "{client} was not served:\n{printed}");
    }
}

#[test]
fn impostors_strangers_and_broken_devices_are_refused_with_the_stated_alert_or_code() {
    let lab = Lab::start();
    foreign("refusals.py", &[&lab.lab_json_path()]);
}

#[test]
fn no_key_supi_or_payload_is_logged() {
    let lab = Lab::start_with(&["--log", "trace"]);
    foreign("service.py", &[&lab.lab_json_path()]);
    foreign("configuration.py", &[&lab.lab_json_path()]);
    let over_websocket = Path::new("ues_register_send_receive_and_report_over_it_and_between_it_and_tcp");
    foreign_peer("websocket.py", &[&lab.lab_json_path(), over_websocket]);
    let log = lab.log();
    assert!(log.len() > 1000, "at level trace there must be a log to look through");
    let description = lab.lab_json();
    for subscriber in description["subscribers"].as_array().unwrap() {
        for member in ["supi", "k", "opc"] {
            let secret = subscriber[member].as_str().unwrap();
            let bare = secret.trim_start_matches("imsi-");
            assert!(!log.contains(bare), "the log holds the {member} of a subscriber");
        }
    }
    // base64 of "hello over", which begins each payload that the foreign UE sends
    assert!(!log.contains("aGVsbG8gb3Zlc") && !log.contains("hello over"), "the log holds a payload");
}

#[test]
fn an_application_server_of_curl_and_nghttpd_exchanges_messages_and_reports_with_a_ue() {
    let lab = Lab::start();
    foreign("application_server.py", &[&lab.lab_json_path()]);
}

#[test]
fn every_message_model_serves_devices_and_servers_that_share_no_code_with_it() {
    let lab = Lab::start();
    foreign("models.py", &[&lab.lab_json_path()]);
}

#[test]
fn a_foreign_ue_that_knows_the_configuration_function_alone_learns_the_rest_and_is_told_of_changes() {
    let lab = Lab::start();
    foreign("configuration.py", &[&lab.lab_json_path()]);
}

#[test]
fn a_network_function_of_curl_and_openssl_gets_a_token_verifies_it_and_uses_it() {
    let lab = Lab::start();
    foreign("access_token.py", &[&lab.lab_json_path()]);
}
