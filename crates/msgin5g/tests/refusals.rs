//! Certificates and access tokens at the producers of a running lab, tried from outside: what opens a door, and everything
//! that does not, each with the status, cause and challenge that the reference states.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what was tried is told to whoever runs it")]

mod common;

use std::path::Path;

use common::{Lab, foreign_peer};

#[test]
fn what_is_wrong_with_a_certificate_or_a_token_is_refused_and_said_at_every_producer() {
    let lab = Lab::start();
    let program = Path::new(env!("CARGO_BIN_EXE_msgin5g"));
    print!("{}", foreign_peer("tokens.py", &[&lab.lab_json_path(), program]));
}
