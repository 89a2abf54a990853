//! The network side as others meet it: application servers of generic HTTP/2 clients, and those who are refused.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what was tried is told to whoever runs it")]

mod common;

use common::{Lab, foreign_peer};

#[test]
fn an_application_server_of_httpx_and_hypercorn_is_served_inside_the_domain() {
    let lab = Lab::start();
    foreign_peer("inside.py", &[&lab.lab_json_path()]);
}

#[test]
fn strangers_and_impostors_are_refused_with_the_stated_alert_status_and_cause() {
    let lab = Lab::start();
    print!("{}", foreign_peer("outside.py", &[&lab.lab_json_path()]));
}
