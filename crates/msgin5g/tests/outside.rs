//! Application servers outside the operator's domain, written without any code of ours, against the running lab: through the
//! NEF, through CAPIF, and refused.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what was tried is told to whoever runs it")]

mod common;

use std::path::Path;

use common::function::Function;
use common::{Lab, foreign_peer};

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
fn whoever_oversteps_at_the_nef_or_as_an_api_invoker_is_refused_with_the_stated_status_and_cause() {
    let lab = Lab::start();
    let short_lived = Function::nef(&lab, &[("MSGIN5G_NEF__TOKENS__LIFETIME_SECONDS", "10")]);
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
