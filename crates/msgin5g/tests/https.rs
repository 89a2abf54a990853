//! MSGin5G-1 over HTTPS, with UEs that share no code with ours: curl, and RFC 7616 by hand where curl has no auth-int.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{Client, Incoming, IncomingStream, Outcome, OutgoingMessage};
use common::fleet::{Fleet, FleetUe};
use common::function::Function;
use common::{Lab, foreign, msgin5g};
use serde_json::Value;

#[test]
fn a_ue_of_curl_is_served_over_https_strangers_are_refused_and_no_secret_is_logged() {
    let lab = Lab::start_with(&["--log", "trace"]);
    let printed = foreign("https.py", &[&lab.lab_json_path()]);
    let log = lab.log();
    assert!(log.len() > 1000, "at level trace there must be a log to look through");
    let secrets: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("secret: ")).collect();
    assert_eq!(secrets.len(), 5);
    for (number, secret) in secrets.into_iter().enumerate() {
        assert!(!log.contains(secret), "the log holds secret {number}");
    }
    let metrics = lab.metrics();
    for outcome in ["proven", "wrong_digest", "replayed", "a_kid_not_known", "other_scheme", "no_credentials"] {
        assert!(metrics.contains(&format!("https_authentications_total{{outcome=\"{outcome}\"}}")), "{outcome}");
    }
    assert!(log.contains("device over HTTPS refused"), "a security event");
}

#[test]
fn a_message_that_a_device_has_not_acknowledged_comes_again_after_kill_9() {
    let lab = Lab::start();
    let mut server = Function::server(
        &lab,
        &[("MSGIN5G_HTTPS__BODY_INTEGRITY", "true"), ("MSGIN5G_HTTPS__DEVICES__LISTEN_GAP_SECONDS", "2")],
    );
    let state = lab.path("https-crash.json");
    let run = |server: &Function, what: &str| {
        let root = server.https_root();
        foreign("https_crash.py", &[Path::new(what), &lab.lab_json_path(), Path::new(&root), &state]);
    };
    run(&server, "push");
    server.kill();
    server.start_again();
    run(&server, "again");
}

/// Messages that each of the two sends in each half of the test.
const COUNT: usize = 6;

/// Octets of the long ones: several segments.
const LONG_OCTETS: usize = 5000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_over_https_loses_and_repeats_nothing_when_the_server_is_killed() {
    let mut lab = Lab::start();
    let mut ues = Fleet::provision(&lab, 2).await.ues;
    over_https(&lab, &mut ues[0], "https-client");
    let mut tasks = Vec::new();
    let heard = Arc::new(Mutex::new(BTreeMap::new()));
    let mut clients = Vec::new();
    for ue in &ues {
        let (client, incoming) = ue.connect().await;
        tasks.push(tokio::spawn(accept_all(incoming, Arc::clone(&heard))));
        clients.push(client);
    }
    send_both_ways(&clients, &ues, "before").await;
    lab.kill();
    let under_way = tokio::spawn({
        let (clients, ues) = (clients.clone(), ues.clone());
        async move { send_both_ways(&clients, &ues, "across").await }
    });
    lab.start_again();
    under_way.await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while heard.lock().unwrap().len() < 4 * COUNT {
        assert!(Instant::now() < deadline, "{:?}", heard.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (message_id, times) in heard.lock().unwrap().iter() {
        assert_eq!(*times, 1, "{message_id}");
    }
    for client in clients {
        client.deregister().await.unwrap();
    }
    for task in tasks {
        task.abort();
    }
}

/// A UE with a state directory that reaches the lab's server over HTTPS.
fn over_https(lab: &Lab, ue: &mut FleetUe, state: &str) {
    let description = lab.lab_json();
    let root = description["server"]["https"].as_str().unwrap();
    ue.config.server = root.trim_start_matches("https://").to_owned();
    ue.config.https_ca = Some(lab.path(description["ca"].as_str().unwrap()));
    ue.config.state_dir = Some(lab.path(state));
}

/// Each sends to the other; every message is promised.
async fn send_both_ways(clients: &[Client], ues: &[FleetUe], name: &str) {
    let each = [(0, 1), (1, 0)].map(|(from, to)| {
        let (client, recipient, name) = (clients[from].clone(), ues[to].service_id.clone(), name.to_owned());
        tokio::spawn(async move {
            for number in 0..COUNT {
                let payload = vec![b'x'; if number == 0 { LONG_OCTETS } else { 20 }];
                let message_id = format!("{name}-{from}-{number}").parse().unwrap();
                let message =
                    OutgoingMessage::to_ue(&recipient, payload).message_id(message_id).store_and_forward(None);
                let outcome = client.send(message).await.unwrap();
                assert!(matches!(outcome, Outcome::Delivered | Outcome::Stored), "{outcome:?}");
            }
        })
    });
    for one in each {
        one.await.unwrap();
    }
}

/// Counts what is handed over, by Message ID.
async fn accept_all(mut incoming: IncomingStream, heard: Arc<Mutex<BTreeMap<String, usize>>>) {
    while let Some(received) = incoming.next().await {
        if let Incoming::Message(received) = received {
            let message_id = received.content().message_id.to_string();
            if received.accept().await.is_ok() {
                *heard.lock().unwrap().entry(message_id).or_default() += 1;
            }
        }
    }
}

#[test]
fn a_device_on_the_command_line_is_one_over_https_where_its_profile_says_so() {
    let lab = Lab::start();
    let profile = |which: &str, https: bool| {
        let path = lab.path(&format!("{which}.toml")).to_str().unwrap().to_owned();
        let file = lab.lab_json_path();
        let mut command = msgin5g();
        command.args(["client", "profile", "--subscriber", which, "--out", &path, "--lab", file.to_str().unwrap()]);
        assert!(command.args(https.then_some("--transport=https")).output().unwrap().status.success());
        path
    };
    let (meter, valve) = (profile("1", true), profile("2", false));
    let run = |profile: &str, arguments: &[&str]| -> Value {
        let output =
            msgin5g().args(["--json", "client"]).args(arguments).args(["--profile", profile]).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    run(&valve, &["register"]);
    run(&meter, &["register"]);
    let names: Vec<Value> = [1, 2].map(|index| lab.lab_json()["subscribers"][index]["ue_service_id"].clone()).into();
    let to = |index: usize| format!("ue:{}", names[index].as_str().unwrap());
    let send = |to: String| ["send".to_owned(), "--to".to_owned(), to, "--payload".to_owned(), "21.5".to_owned()];
    let storable = |to: String| [send(to).as_slice(), &["--store-and-forward".to_owned()]].concat();
    let outcome = |profile: &str, arguments: &[String]| {
        run(profile, &arguments.iter().map(String::as_str).collect::<Vec<_>>())["outcome"].clone()
    };
    assert_eq!(outcome(&meter, &storable(to(1))), "stored");
    assert_eq!(outcome(&valve, &storable(to(0))), "stored");
    let listener = msgin5g()
        .args(["--json", "client", "listen", "--count", "1", "--for", "60s", "--profile", &meter])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let heard = listener.wait_with_output().unwrap();
    assert!(heard.status.success());
    let message: Value = serde_json::from_slice(&heard.stdout).unwrap();
    assert!(message.to_string().contains("MjEuNQ=="), "{message}");
    run(&meter, &["deregister"]);
}
