//! `kill -9` under load, again and again: what the server answered as delivered or stored arrives, each message once.
//!
//! Rounds: `MSGIN5G_CRASH_ROUNDS`, 20 unless given (`cargo xtask crash ROUNDS`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, reason = "the figures of a run are for whoever runs it")]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use akma::{HomeNetwork, UsimCredentials};
use client::{Client, ClientConfig, Incoming, IncomingStream, Outcome, OutgoingMessage, SoftUsim, SoftUsimConfig};
use common::Lab;
use message::{Priority, UeServiceId};
use sbi::{SbiClient, SbiClientConfig};
use serde_json::Value;
use transport::profile::CertificateFiles;

/// What one sender was promised, and what one recipient was handed, by message ID and with its place in the order.
#[derive(Default)]
struct Ledger {
    /// Recipient and message ID for each message answered as safe.
    accepted: Mutex<Vec<(String, String)>>,
    /// By message ID: how many hand-overs there had been when it was answered as safe.
    before: Mutex<HashMap<String, usize>>,
    /// Recipient and message ID, for each message handed to the application, in that order.
    handed_over: Mutex<Vec<(String, String)>>,
    refused: AtomicUsize,
}

/// What the subscribers with the indices 1, 2 and 3 are called here.
/// How long the server may take to accept a message after a start.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);

const NAMES: [&str; 3] = ["present", "fickle", "away"];

/// Messages of one sender to one recipient with one priority: their order is kept.
struct Stream {
    to: UeServiceId,
    recipient: &'static str,
    priority: Priority,
    name: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_nothing_and_repeats_nothing() {
    let rounds: u32 =
        std::env::var("MSGIN5G_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().expect("a number of rounds"));
    let mut lab = Lab::start();
    let ledger = Arc::new(Ledger::default());
    let going = Arc::new(AtomicBool::new(true));

    // The second is there all the time, the third comes and goes, the fourth registers once and returns at the very end.
    let present = connect(&lab, 1, "present").await;
    tokio::spawn(keep_accepting(present.1, "present", ledger.clone()));
    let away = connect(&lab, 3, "away").await;
    away.0.close().await;
    drop(away);
    let comes_and_goes = tokio::spawn(come_and_go(going.clone(), CrashUe::of(&lab, 2, "fickle"), ledger.clone()));

    let mut senders = Vec::new();
    for (index, name) in [(0, "first"), (4, "second")] {
        let (client, incoming) = connect(&lab, index, name).await;
        tokio::spawn(keep_accepting(incoming, name, ledger.clone()));
        for recipient in [1, 2, 3] {
            let to = service_id(&lab, recipient);
            // One at a time of each priority: several are on their way at once, and the order of each stream is known.
            for priority in [Priority::High, Priority::Middle, Priority::Low] {
                let stream = Stream {
                    to: to.clone(),
                    recipient: NAMES[recipient - 1],
                    priority,
                    name: format!("{name}-{recipient}-{priority:?}"),
                };
                senders.push(tokio::spawn(keep_sending(going.clone(), client.clone(), stream, ledger.clone())));
            }
        }
    }

    for round in 1..=rounds {
        // It is killed at work, and where in its work differs from round to round.
        let before = ledger.accepted.lock().unwrap().len();
        let waited = Instant::now();
        while ledger.accepted.lock().unwrap().len() == before {
            assert!(waited.elapsed() < STANDSTILL_MAX, "the server accepts nothing");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(u64::from(round * 97 % 400))).await;
        lab.kill();
        lab.start_again();
        println!("round {round}: {} accepted", ledger.accepted.lock().unwrap().len());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    going.store(false, Ordering::SeqCst);
    for sender in senders {
        sender.await.unwrap();
    }
    let fickle = comes_and_goes.await.unwrap();
    tokio::spawn(keep_accepting(fickle.1, "fickle", ledger.clone()));
    let returned = connect(&lab, 3, "away").await;
    tokio::spawn(keep_accepting(returned.1, "away", ledger.clone()));

    wait_until_all_arrived(&ledger).await;
    let accepted = ledger.accepted.lock().unwrap().clone();
    // Where in the order of that recipient each came.
    let mut seen: HashMap<(String, String), Vec<usize>> = HashMap::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for each in ledger.handed_over.lock().unwrap().iter() {
        let place = places.entry(each.0.clone()).or_default();
        *place += 1;
        seen.entry(each.clone()).or_default().push(*place);
    }
    println!("the longest wait, in hand-overs of others, by recipient and priority: {:?}", longest_waits(&ledger));
    let repeated: Vec<_> = seen.iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(repeated.is_empty(), "handed over more than once, and where in the order: {repeated:?}; {places:?} in all");
    assert!(accepted.len() > 20 * rounds as usize, "only {} messages were accepted: that was no load", accepted.len());
    in_order(&ledger.handed_over.lock().unwrap());
    println!(
        "{rounds} kills: {} accepted, {} handed over, {} refused; nothing lost, nothing repeated",
        accepted.len(),
        seen.len(),
        ledger.refused.load(Ordering::Relaxed)
    );
    drop((present.0, fickle.0, returned.0));
}

/// Every accepted message is handed over; a deadline far beyond any honest delay turns a loss into a failure.
async fn wait_until_all_arrived(ledger: &Ledger) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let missing: Vec<_> = {
            let accepted = ledger.accepted.lock().unwrap();
            let handed_over: std::collections::HashSet<_> =
                ledger.handed_over.lock().unwrap().iter().cloned().collect();
            accepted.iter().filter(|each| !handed_over.contains(*each)).cloned().collect()
        };
        if missing.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} accepted messages never arrived, such as {:?}",
            missing.len(),
            &missing[..missing.len().min(5)]
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How many other messages were handed over between the promise and the hand-over of one, at most.
fn longest_waits(ledger: &Ledger) -> std::collections::BTreeMap<String, usize> {
    let before = ledger.before.lock().unwrap();
    let mut longest = std::collections::BTreeMap::new();
    for (place, (recipient, id)) in ledger.handed_over.lock().unwrap().iter().enumerate() {
        let (_, priority) = id.split_once('#').unwrap().0.rsplit_once('-').unwrap();
        let wait = before.get(id).map_or(0, |before| place.saturating_sub(*before));
        let known: &mut usize = longest.entry(format!("{recipient} {priority}")).or_default();
        *known = wait.max(*known);
    }
    longest
}

/// One sender's messages to one recipient and of one priority are handed over in the order in which they were sent: it sends one at a time.
fn in_order(handed_over: &[(String, String)]) {
    let mut last: HashMap<(String, String), u64> = HashMap::new();
    for (recipient, id) in handed_over {
        let (stream, number) = id.rsplit_once('#').unwrap();
        let number: u64 = number.parse().unwrap();
        let previous = last.insert((recipient.clone(), stream.to_owned()), number);
        assert!(previous.is_none_or(|previous| previous < number), "{recipient} got {id} after number {previous:?}");
    }
}

async fn keep_sending(going: Arc<AtomicBool>, client: Client, stream: Stream, ledger: Arc<Ledger>) {
    let mut number = 0_u64;
    while going.load(Ordering::SeqCst) {
        number += 1;
        let id = format!("{}#{number}", stream.name);
        let mut message = OutgoingMessage::to_ue(&stream.to, vec![b'x'; 200])
            .message_id(id.parse().unwrap())
            .priority(stream.priority)
            .store_and_forward(None);
        if number.is_multiple_of(3) {
            message = message.with_report();
        }
        match client.send(message).await {
            Ok(Outcome::Delivered | Outcome::Stored) => {
                let before = ledger.handed_over.lock().unwrap().len();
                ledger.before.lock().unwrap().insert(id.clone(), before);
                ledger.accepted.lock().unwrap().push((stream.recipient.to_owned(), id));
            }
            _ => {
                ledger.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn keep_accepting(mut incoming: IncomingStream, name: &'static str, ledger: Arc<Ledger>) {
    while let Some(event) = incoming.next().await {
        take(event, name, &ledger).await;
    }
}

async fn take(event: Incoming, name: &'static str, ledger: &Ledger) {
    match event {
        Incoming::Message(message) => {
            let id = message.content().message_id.to_string();
            if message.accept().await.is_ok() {
                ledger.handed_over.lock().unwrap().push((name.to_owned(), id));
            }
        }
        Incoming::Report(report) => {
            let _ = report.accept().await;
        }
        _ => {}
    }
}

async fn come_and_go(going: Arc<AtomicBool>, ue: CrashUe, ledger: Arc<Ledger>) -> (Client, IncomingStream) {
    let mut visits = 0_u32;
    loop {
        let (client, mut incoming) = ue.connect().await;
        if !going.load(Ordering::SeqCst) {
            return (client, incoming);
        }
        let until = tokio::time::Instant::now() + Duration::from_millis(700);
        while let Ok(Some(event)) = tokio::time::timeout_at(until, incoming.next()).await {
            take(event, "fickle", &ledger).await;
        }
        visits += 1;
        if visits.is_multiple_of(2) {
            // Without a goodbye: what the application had before it goes back, and the next one on the same state
            // directory knows from the journal what was accepted.
            drop((client, incoming));
            continue;
        }
        client.close().await;
        // What was on its way to the application when the client was closed still belongs to it.
        while let Some(event) = incoming.next().await {
            take(event, "fickle", &ledger).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn connect(lab: &Lab, index: usize, name: &'static str) -> (Client, IncomingStream) {
    CrashUe::of(lab, index, name).connect().await
}

fn service_id(lab: &Lab, index: usize) -> UeServiceId {
    lab.lab_json()["subscribers"][index]["ue_service_id"].as_str().unwrap().parse().unwrap()
}

/// What it takes to be one of the lab's subscribers, read from `lab.json` once.
struct CrashUe {
    config: ClientConfig,
    usim: SoftUsimConfig,
    tls: CertificateFiles,
}

impl CrashUe {
    fn of(lab: &Lab, index: usize, name: &str) -> Self {
        let description = lab.lab_json();
        let subscriber = &description["subscribers"][index];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let octets = |value: &Value| <[u8; 16]>::try_from(hex::decode(text(value)).unwrap()).unwrap();
        let state = lab.path(&format!("ue-{name}"));
        std::fs::create_dir_all(&state).unwrap();
        let home_network =
            HomeNetwork::new(&text(&description["home_network"]["mcc"]), &text(&description["home_network"]["mnc"]))
                .unwrap();
        let usim = SoftUsimConfig {
            supi: text(&subscriber["supi"]).parse().unwrap(),
            credentials: UsimCredentials::milenage_opc(&octets(&subscriber["k"]), &octets(&subscriber["opc"])),
            routing_indicator: text(&subscriber["routing_indicator"]).parse().unwrap(),
            serving_network: home_network.serving_network_name(),
            home_network,
            ausf: text(&description["core"]["ausf"]),
            state: Some(state.join("usim")),
        };
        let server = &description["server"];
        let mut config = ClientConfig::new(
            text(&server["coaps_tcp"]),
            text(&server["fqdn"]).parse().unwrap(),
            text(&subscriber["ue_service_id"]).parse().unwrap(),
        );
        config.path = text(&server["path"]);
        config.state_dir = Some(state);
        config.limits.backoff_first_milliseconds = 50;
        config.limits.backoff_max_milliseconds = 500;
        let nf = &description["nf_client"];
        let tls = CertificateFiles {
            certificate: lab.path(nf["cert"].as_str().unwrap()),
            key: lab.path(nf["key"].as_str().unwrap()),
            ca: lab.path(description["ca"].as_str().unwrap()),
            crl: None,
        };
        Self { config, usim, tls }
    }

    /// Connects, and tries again while the server is being killed.
    async fn connect(&self) -> (Client, IncomingStream) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let http = SbiClient::new(SbiClientConfig { tls: self.tls.clone(), limits: sbi::ClientLimits::default() })
                .unwrap();
            let usim = SoftUsim::new(self.usim.clone(), http).unwrap();
            match Client::connect(self.config.clone(), usim).await {
                Ok(connected) => return connected,
                Err(error) => assert!(Instant::now() < deadline, "never connected: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
