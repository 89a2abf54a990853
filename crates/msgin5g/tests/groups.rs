//! `msgin5g group` against a lab's Configuration Function, run as an operator runs it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{Lab, msgin5g};
use serde_json::{Value, json};

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

/// What a command prints, one value a line.
#[track_caller]
fn printed(arguments: &[&str]) -> Vec<Value> {
    let output = msgin5g().arg("--json").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a command that must end with this code tells.
#[track_caller]
fn fails(code: i32, arguments: &[&str]) -> String {
    let output = msgin5g().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn an_operator_makes_shows_changes_and_removes_groups() {
    let mut lab = Lab::start();
    let file = lab.path("lab.json").to_str().unwrap().to_owned();
    let fleet = json!({"groupId": "fleet@lab.example", "description": "Meter, valve and lamp of the lab",
        "members": ["meter-1@lab.example", "valve-2@lab.example", "lamp-3@lab.example"],
        "senders": ["AS:fleet@lab.example"]});
    assert_eq!(printed(&["group", "list", "--lab", &file]), [fleet], "the group of the start");

    let on = ["--lab", &file, "--group-id", "pumps@lab.example"];
    let group = |verb: &[&'static str], rest: &[&'static str]| -> Vec<String> {
        let arguments = ["group"].iter().chain(verb).copied().chain(on).chain(rest.iter().copied());
        arguments.map(str::to_owned).collect()
    };
    let done = |verb: &[&'static str], rest: &[&'static str]| {
        let arguments = group(verb, rest);
        printed(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).remove(0)
    };
    let refused = |code: i32, verb: &[&'static str], rest: &[&'static str]| {
        let arguments = group(verb, rest);
        fails(code, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let options = [
        "--member",
        "pump-5@lab.example",
        "--sender",
        "ue:meter-6@lab.example",
        "--validating-as",
        "billing@lab.example",
    ];
    let made = json!({"groupId": "pumps@lab.example", "members": ["pump-5@lab.example"],
        "senders": ["UE:meter-6@lab.example"], "validatingAs": "billing@lab.example"});
    assert_eq!(done(&["add"], &options), made);
    assert!(refused(1, &["add"], &options).contains("there is a group of that name"));
    assert_eq!(done(&["show"], &[]), made);

    let two = ["--member", "a", "--member", "pump-5@lab.example"];
    assert_eq!(done(&["member", "add"], &two)["members"], json!(["pump-5@lab.example", "a"]));
    assert_eq!(done(&["member", "remove"], &two)["members"], json!([]));
    assert_eq!(done(&["member", "remove"], &two)["members"], json!([]), "again is no error");
    assert_eq!(done(&["member", "add"], &["--member", "b"])["members"], json!(["b"]));
    let shown = done(&["show"], &[]);
    assert_eq!((&shown["members"], &shown["senders"]), (&json!(["b"]), &made["senders"]), "the rest stays");

    lab.kill();
    lab.start_again();
    let file_again = lab.path("lab.json").to_str().unwrap().to_owned();
    assert_eq!(file_again, file);
    assert_eq!(done(&["show"], &[]), shown, "after kill -9, too");
    let output = msgin5g().args(["group", "list", "--lab", &file]).output().unwrap();
    assert_eq!(
        text(&output.stdout),
        "fleet@lab.example  3 members  Meter, valve and lamp of the lab\npumps@lab.example  1 member\n"
    );

    assert_eq!(done(&["remove"], &[]), json!({"removed": "pumps@lab.example"}));
    for verb in [&["remove"][..], &["show"], &["member", "add"]] {
        let rest: &[&'static str] = if verb.len() > 1 { &["--member", "a"] } else { &[] };
        let told = refused(1, verb, rest);
        assert!(told.contains("no group pumps@lab.example") && told.contains("help: "), "{told}");
    }

    // What cannot be meant, and who may not.
    assert!(refused(2, &["member", "add"], &[]).contains("--member"));
    assert!(refused(2, &["add"], &["--sender", "meter-6"]).contains("--sender"));
    assert!(refused(2, &["add"], &["--member", "a b"]).contains("--member"));
    let pki = |name: &str| lab.path(&format!("pki/{name}")).to_str().unwrap().to_owned();
    let url = lab.lab_json()["core"]["configuration"].as_str().unwrap().to_owned();
    let told = fails(
        1,
        &[
            "group",
            "list",
            "--url",
            &url,
            "--cert",
            &pki("lab-nf.pem"),
            "--key",
            &pki("lab-nf.key"),
            "--ca",
            &pki("ca.pem"),
        ],
    );
    assert!(told.contains("TOKEN_MISSING") && told.contains("help: "), "{told}");
}
