//! Application servers outside the operator's domain, written without any code of ours, against the running lab: through the
//! NEF, through CAPIF, and refused.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "what was tried is told to whoever runs it"
)]

mod common;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use common::function::{Function, exposing_server};
use common::{Lab, foreign_peer};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_application_server_of_httpx_and_hypercorn_talks_to_a_ue_through_the_nef_with_mutual_tls_and_oauth() {
    let lab = Lab::start();
    foreign_peer("outside_nef.py", &[&lab.lab_json_path()]);
}

#[test]
fn an_application_server_of_httpx_comes_from_onboarding_to_delivered_messages_by_pki_oauth_and_psk() {
    let lab = Lab::start_with(&["--log", "info,audit=debug"]);
    print!("{}", foreign_peer("outside_capif.py", &[&lab.lab_json_path()]));

    // Each decision on the way is one event.
    let log = lab.log();
    let events = |words: &[&str]| log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    let agreed = ["audit", "PUT /capif-security/v1/trustedInvokers", "api-invoker", "allowed", "certificate"];
    assert_eq!(events(&agreed), 5, "one agreement for each of five conversations:\n{log}");
    let onboarded =
        ["audit", "POST /api-invoker-management/v1/onboardedInvokers", "api-invoker", "allowed", "credential"];
    assert_eq!(events(&onboarded), 1, "{log}");
    let sent = ["audit", "af-weather", "msgs-msgdelivery:deliver-as-message", "allowed", "relayed"];
    assert_eq!(events(&sent), 5, "{log}");
    assert_eq!(events(&["Bearer"]) + events(&["imsi-"]), 0, "no token, no SUPI");
}

#[test]
fn an_application_server_of_httpx_uses_the_msgin5g_server_as_api_exposing_function_by_pki_oauth_and_psk() {
    let lab = Lab::start();
    let (core, server) = exposing_server(&lab);
    let (root, address) = (core.root(), server.address().to_string());
    print!("{}", foreign_peer("outside_server.py", &[&lab.lab_json_path(), Path::new(&root), Path::new(&address)]));

    // Each call on the way is one event of the exposing function, in the name of the invoker.
    let log = server.log();
    let events = |words: &[&str]| log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    assert!(events(&["audit", "api-invoker", "msgs-msgdelivery", "allowed"]) >= 6, "{log}");
    assert_eq!(events(&["Bearer"]), 0, "no token");

    // Each listener counts for itself, and neither into what `[api]` counts. Three calls by PSK are refused with 403; by certificate
    // three with each of two methods, those whose tokens are for others, and those after the off-boarding.
    assert_eq!(server.metric("msgin5g_capif_psk_requests_total{status=\"403\"}"), 3);
    server.metric_reaches("msgin5g_capif_requests_total{status=\"403\"}", 7);
    for listener in ["capif", "capif_psk"] {
        assert!(server.metric(&format!("msgin5g_{listener}_requests_total{{status=\"201\"}}")) > 0, "{listener}");
    }
    assert_eq!(server.metric("sbi_requests_total{status=\"403\"}"), 0, "nobody was refused at [api]");
    // Whoever goes before he has shown anything is counted there, too.
    for (listener, key, reason) in [("capif", "listen", "tls"), ("capif_psk", "psk_listen", "psk")] {
        let address: SocketAddr = server.configured_at("capif", key).parse().unwrap();
        let refused = format!("msgin5g_{listener}_connections_refused_total{{reason=\"{reason}\"}}");
        let before = server.metric(&refused);
        drop(TcpStream::connect(address).unwrap());
        server.metric_reaches(&refused, before + 1);
    }

    // Why a token was refused is told in the audit, though its bearer is told only that it is none.
    for reason in [
        "token_expired",
        "token_issuer",
        "token_subject",
        "token_scope",
        "token_signature",
        "token_key_unknown",
        "token_claims",
    ] {
        let refused = ["audit", "api-invoker", "msgs-msgdelivery", "refused", reason];
        // Beyond the first of them they are told as sums, later.
        let give_up_at = Instant::now() + PATIENCE;
        while !server.log().lines().any(|line| refused.iter().all(|word| line.contains(word))) {
            assert!(Instant::now() < give_up_at, "{reason}:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn whoever_oversteps_at_the_nef_or_as_an_api_invoker_is_refused_with_the_stated_status_and_cause() {
    let lab = Lab::start();
    // Whose key the peers have, to make tokens that are wrong in one thing.
    let key = lab.path("second-nef-token.key");
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let pem = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap().private_key_to_pem_pkcs8().unwrap();
    std::fs::write(&key, pem).unwrap();
    let short_lived = Function::nef(
        &lab,
        &[("MSGIN5G_NEF__TOKENS__LIFETIME_SECONDS", "10"), ("MSGIN5G_NEF__TOKENS__KEY", key.to_str().unwrap())],
    );
    let root = short_lived.root();
    print!("{}", foreign_peer("outside_refused.py", &[&lab.lab_json_path(), Path::new(&root)]));
}

#[test]
fn an_application_function_outside_whose_certificate_is_revoked_is_refused_and_a_renewed_crl_is_taken_without_a_restart()
 {
    let lab = Lab::start();
    let program = Path::new(env!("CARGO_BIN_EXE_msgin5g"));
    print!("{}", foreign_peer("outside_revoked.py", &[&lab.lab_json_path(), program]));
}
