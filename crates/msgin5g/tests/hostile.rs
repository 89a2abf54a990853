//! Peers that speak HTTP/2 to do harm: memory stays bounded, and others are served.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "what was tried is told to whoever runs it"
)]

mod common;

use std::path::Path;

use common::function::exposing_server;
use common::{Lab, foreign_peer};

/// All attacks on the listeners of this group in that process.
fn attack(lab: &Lab, process: u32, group: &str, capif: &str) {
    let process = process.to_string();
    let told = [&lab.lab_json_path(), Path::new(&process), Path::new(group), Path::new(capif)];
    print!("{}", foreign_peer("hostile.py", &told));
}

fn capif(lab: &Lab) -> String {
    lab.lab_json()["core"]["capif"].as_str().unwrap().to_owned()
}

#[test]
fn hostile_http_2_costs_bounded_memory_and_others_are_served_meanwhile() {
    let lab = Lab::start();
    attack(&lab, lab.process_id(), "producers", &capif(&lab));
}

#[test]
fn hostile_http_2_costs_bounded_memory_at_the_other_functions_of_the_core_and_inside_the_nef() {
    let lab = Lab::start();
    attack(&lab, lab.process_id(), "core", &capif(&lab));
}

#[test]
fn hostile_http_2_costs_bounded_memory_where_the_server_itself_takes_api_invokers() {
    let lab = Lab::start();
    let (core, server) = exposing_server(&lab);
    attack(&lab, server.process_id(), "invokers", &core.root());
}
