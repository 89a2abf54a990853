//! `msgin5g lab`: what it prints, writes and keeps.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Lab, msgin5g};
use serde_json::Value;

#[test]
fn a_restarted_lab_is_the_same_network_at_the_same_ports() {
    let mut lab = Lab::start();
    let before = lab.lab_json();
    assert!(lab.stop().success(), "SIGTERM ends the lab with exit code 0");
    lab.start_again();
    assert_eq!(lab.lab_json(), before);
    lab.kill();
    lab.start_again();
    assert_eq!(lab.lab_json(), before, "and after kill -9, too");
}

#[test]
fn ready_names_lab_json_in_the_directory_as_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = msgin5g()
        .current_dir(folder.path())
        .args(["lab", "--dir", "a/network"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let lab: Value = serde_json::from_slice(&std::fs::read(folder.path().join("a/network/lab.json")).unwrap()).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(line, "READY a/network/lab.json\n");
    assert!(folder.path().join("a/network").join(lab["ca"].as_str().unwrap()).is_file());
}

#[test]
fn ready_is_json_where_json_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = msgin5g()
        .current_dir(folder.path())
        .args(["--json", "lab", "--dir", "network"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(line, "{\"ready\":\"network/lab.json\"}\n");
}

#[test]
fn a_lab_that_is_stopped_before_it_is_ready_fails() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("network");
    let process =
        msgin5g().args(["lab", "--dir"]).arg(&directory).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It listens to signals before it makes anything.
    while !directory.exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
    let output = process.wait_with_output().unwrap();
    // A machine that is fast enough has the lab running by then.
    let code = if output.stdout.is_empty() { 1 } else { 0 };
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_base_port_fixes_the_ports() {
    // Below the ports that other tests take at random.
    let lab = Lab::start_with(&["--base-port", "19500"]);
    let description = lab.lab_json();
    assert_eq!(description["server"]["coaps_tcp"], "127.0.0.1:19500");
    assert_eq!(description["server"]["https"], "https://127.0.0.1:19516");
    assert_eq!(description["core"]["configuration"], "https://127.0.0.1:19506");
    assert_eq!(description["core"]["configuration_coaps_tcp"], "127.0.0.1:19507");
}

#[test]
fn a_second_lab_in_the_same_directory_is_refused_and_harms_nothing() {
    let lab = Lab::start();
    let before = lab.lab_json();
    let second = msgin5g().args(["lab", "--dir"]).arg(lab.directory()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stdout.is_empty());
    assert!(String::from_utf8(second.stderr).unwrap().contains("another lab runs in"));
    assert_eq!(lab.lab_json(), before);
}

/// What curl says of the lab's AUSF with a certificate: an HTTP status, or `None` where it is not let in.
fn asked_ausf(lab: &Lab, certificate: &Value) -> Option<String> {
    let uri = format!("{}/nausf-auth/v1/ue-authentications", lab.lab_json()["core"]["ausf"].as_str().unwrap());
    let output = Command::new("curl")
        .args(["--silent", "--http2", "--max-time", "60", "--output", "/dev/null", "--write-out", "%{http_code}"])
        .args(["--cacert", certificate["ca"].as_str().unwrap()])
        .args(["--cert", certificate["cert"].as_str().unwrap(), "--key", certificate["key"].as_str().unwrap()])
        .arg(uri)
        .output()
        .unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_certificate_issued_to_another_program_lets_it_in_until_it_is_revoked() {
    let lab = Lab::start();
    let run = |arguments: &[&str]| {
        msgin5g()
            .args(["--json", "lab", arguments[0], "--dir"])
            .arg(lab.directory())
            .args(&arguments[1..])
            .output()
            .unwrap()
    };
    let issue = ["issue", "--name", "probe", "--nf-type", "AMF", "--dns", "probe.lab.example"];
    let issued = run(&issue);
    assert!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    let certificate: Value = serde_json::from_slice(&issued.stdout).unwrap();
    assert_eq!(certificate["nf_type"], "AMF");
    assert_eq!(asked_ausf(&lab, &certificate).as_deref(), Some("405"), "it is let in");
    assert_eq!(run(&issue).status.code(), Some(1), "it is there already");
    assert_eq!(run(&["revoke", "nobody"]).status.code(), Some(1));

    assert!(run(&["revoke", "probe"]).status.success());
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while asked_ausf(&lab, &certificate).is_some() {
        assert!(std::time::Instant::now() < until, "it is still let in");
    }
    let replaced = run(&[&issue[..], &["--replace"]].concat());
    let certificate: Value = serde_json::from_slice(&replaced.stdout).unwrap();
    assert_eq!(asked_ausf(&lab, &certificate).as_deref(), Some("405"), "a new one is let in");
}

#[test]
fn a_lab_needs_a_directory() {
    assert_eq!(msgin5g().arg("lab").output().unwrap().status.code(), Some(2));
}

#[test]
fn the_demo_holds_and_tells_every_refusal_with_its_alert_or_code() {
    let folder = tempfile::tempdir().unwrap();
    let demo = msgin5g().args(["--json", "lab", "--demo", "--dir"]).arg(folder.path()).output().unwrap();
    let told = String::from_utf8(demo.stdout).unwrap();
    assert!(demo.status.success(), "{told}\n{}", String::from_utf8_lossy(&demo.stderr));
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("summary")[0]["all_held"], true);
    assert!(of("broken").is_empty());
    let answers: Vec<&str> = of("refused").iter().map(|event| event["answer"].as_str().unwrap()).collect();
    assert_eq!(
        answers,
        [
            "403 AF_ID_NOT_ALLOWED",
            "403 API_NOT_ALLOWED",
            "401 NOT_AUTHENTICATED",
            "TLS alert decrypt_error",
            "TLS alert handshake_failure",
            "TLS alert handshake_failure",
            "TLS alert handshake_failure",
            "4.03 NOT_ASSOCIATED",
            "4.01 NOT_REGISTERED",
            "4.03 ORIGINATOR_NOT_ALLOWED",
            // Over DTLS, WebSocket, OSCORE over UDP and TCP.
            "the key, then 4.03 NOT_ASSOCIATED",
            "the key, then 4.03 NOT_ASSOCIATED",
            "the key, then 4.03 NOT_ASSOCIATED",
            "the key, then 4.03 NOT_ASSOCIATED",
            "403 ORIGINATOR_NOT_ALLOWED",
        ]
    );
    let delivered: Vec<(&str, &str)> =
        of("delivered").iter().map(|event| (event["from"].as_str().unwrap(), event["to"].as_str().unwrap())).collect();
    for pair in [
        ("meter-1", "valve-2"),
        ("meter-1", "billing"),
        ("billing", "valve-2"),
        ("the server's disk", "valve-2"),
        ("lamp-3", "meter-1"),
        ("meter-1", "lamp-3"),
    ] {
        assert!(delivered.contains(&pair), "{pair:?}");
    }

    let lab: Value = serde_json::from_slice(&std::fs::read(folder.path().join("lab.json")).unwrap()).unwrap();
    for subscriber in lab["subscribers"].as_array().unwrap() {
        for secret in [&subscriber["k"], &subscriber["opc"], &subscriber["supi"]] {
            assert!(!told.contains(secret.as_str().unwrap().trim_start_matches("imsi-")), "the demo shows a secret");
        }
    }
    let again = msgin5g().args(["lab", "--demo", "--dir"]).arg(folder.path()).output().unwrap();
    assert!(again.status.success(), "a second day in the same network:\n{}", String::from_utf8_lossy(&again.stdout));
    let text = String::from_utf8(again.stdout).unwrap();
    assert!(text.contains("all of it held") && !text.contains('\u{1b}'), "no colours where nobody sees them:\n{text}");
}
