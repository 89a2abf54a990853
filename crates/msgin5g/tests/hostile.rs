//! Peers that speak HTTP/2 to do harm: memory stays bounded, and others are served.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what was tried is told to whoever runs it")]

mod common;

use std::path::Path;

use common::{Lab, foreign_peer};

#[test]
fn hostile_http_2_costs_bounded_memory_and_others_are_served_meanwhile() {
    let lab = Lab::start();
    let process = lab.process_id().to_string();
    print!("{}", foreign_peer("hostile.py", &[&lab.lab_json_path(), Path::new(&process)]));
}
