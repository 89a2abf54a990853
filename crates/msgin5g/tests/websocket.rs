//! CoAP over WebSocket from outside: a library that shares no code with ours, through TLS clients of the command line.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, reason = "what was tried is told to whoever runs it")]

mod common;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use common::{Lab, foreign_peer, msgin5g};
use serde_json::Value;

const METER: &str = "meter-1@lab.example";
const VALVE: &str = "valve-2@lab.example";

/// A command of a device whose profile says WebSocket.
fn device(lab: &Lab, name: &str, arguments: &[&str]) -> Command {
    let profile = lab.path(&format!("{name}.toml"));
    if !profile.exists() {
        let mut command = msgin5g();
        command.args(["client", "profile", "--transport", "websocket", "--subscriber", name, "--lab"]);
        assert!(command.arg(lab.lab_json_path()).arg("--out").arg(&profile).status().unwrap().success());
    }
    let mut command = msgin5g();
    command.args(["--json", "client"]).args(arguments).arg("--profile").arg(profile);
    command
}

/// What it printed, which must have succeeded.
#[track_caller]
fn printed(output: Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_foreign_ue_is_served_over_websocket_and_whatever_may_not_be_is_refused_with_its_code() {
    let lab = Lab::start();
    print!("{}", foreign_peer("websocket.py", &[&lab.lab_json_path()]));
}

#[test]
fn what_a_ue_did_not_acknowledge_over_websocket_comes_again_after_kill_9() {
    let mut lab = Lab::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages.json");
    foreign_peer("websocket.py", &[&lab.lab_json_path(), Path::new("before"), &file]);
    lab.kill();
    lab.start_again();
    foreign_peer("websocket.py", &[&lab.lab_json_path(), Path::new("after"), &file]);
}

#[test]
fn our_client_sends_and_receives_over_websocket_and_finds_back_after_kill_9() {
    let mut lab = Lab::start();
    printed(device(&lab, VALVE, &["register"]).output().unwrap());
    let to = format!("ue:{VALVE}");
    let send = |lab: &Lab, payload: &str| {
        let send = ["send", "--to", &to, "--payload", payload, "--store-and-forward"];
        printed(device(lab, METER, &send).output().unwrap()).remove(0)["outcome"].clone()
    };
    assert_eq!(send(&lab, "first"), "stored");
    let listener = device(&lab, VALVE, &["listen", "--count", "2", "--for", "120s"]).stdout(Stdio::piped()).spawn();
    lab.kill();
    lab.start_again();
    let outcome = send(&lab, "second");
    assert!(outcome == "delivered" || outcome == "stored", "{outcome}");
    let heard = printed(listener.unwrap().wait_with_output().unwrap());
    let texts: Vec<&Value> = heard.iter().map(|message| &message["text"]).collect();
    assert_eq!(texts, ["first", "second"]);
}

#[test]
fn a_client_that_asks_the_port_of_tcp_for_websocket_is_told_what_to_look_at() {
    let lab = Lab::start();
    let tcp = lab.lab_json()["server"]["coaps_tcp"].as_str().unwrap().to_owned();
    let mut command = device(&lab, METER, &["register", "--timeout", "5s"]);
    let output = command.env("MSGIN5G_SERVER__ADDRESS", tcp).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("WebSocket") && told.contains("server.address"), "{told}");
}
