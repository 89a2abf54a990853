//! `kill -9` with many messages on disk for many UEs: while they are stored, and while they are fetched. What was answered
//! as safe arrives, each message once at the application, in order per pair and priority.
//!
//! `MSGIN5G_CRASH_ROUNDS` kills (20), `MSGIN5G_CRASH_UES` recipients (100), `MSGIN5G_CRASH_MESSAGES` messages (4,000) unless
//! given; `cargo xtask crash` says how to run it larger.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, reason = "the figures of a run are for whoever runs it")]

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{Client, Incoming, IncomingStream, Outcome, OutgoingMessage};
use common::Lab;
use common::fleet::{Fleet, FleetUe};
use futures_util::{StreamExt, stream};
use message::Priority;

/// Originator and Message ID.
type Name = (String, String);

/// What was promised, and what came, by recipient.
#[derive(Default)]
struct Ledger {
    promised: Mutex<HashMap<String, HashSet<Name>>>,
    arrived: Mutex<HashMap<String, Vec<Name>>>,
    promises: AtomicUsize,
    arrivals: AtomicUsize,
}

impl Ledger {
    fn promise(&self, recipient: &str, name: Name) {
        self.promised.lock().unwrap().entry(recipient.to_owned()).or_default().insert(name);
        self.promises.fetch_add(1, Ordering::Relaxed);
    }

    fn arrive(&self, recipient: &str, name: Name) {
        self.arrived.lock().unwrap().entry(recipient.to_owned()).or_default().push(name);
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// What was promised and has not come yet.
    fn missing(&self) -> Vec<(String, Name)> {
        let arrived = self.arrived.lock().unwrap();
        let promised = self.promised.lock().unwrap();
        let mut missing = Vec::new();
        for (recipient, names) in promised.iter() {
            let came: HashSet<_> = arrived.get(recipient).into_iter().flatten().collect();
            missing
                .extend(names.iter().filter(|name| !came.contains(name)).map(|name| (recipient.clone(), name.clone())));
        }
        missing
    }
}

/// Settings of a run.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Ids of a stream are `<priority>-<number>`, and a stream is sent one at a time.
const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Middle, Priority::Low];

/// Senders, and messages each has on its way at once.
const SENDERS: usize = 4;
const LANES: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_with_a_full_store_loses_nothing_and_repeats_nothing() {
    let rounds = setting("MSGIN5G_CRASH_ROUNDS", 20);
    let ues = setting("MSGIN5G_CRASH_UES", 100);
    let messages = setting("MSGIN5G_CRASH_MESSAGES", 4_000);
    let mut lab = Lab::start();
    let fleet = Fleet::provision(&lab, ues + SENDERS).await;
    let (senders, recipients) = fleet.ues.split_at(SENDERS);
    let ledger = Arc::new(Ledger::default());

    // Every recipient registers once and goes away.
    stream::iter(recipients).for_each_concurrent(32, |ue| async move { ue.connect().await.0.close().await }).await;

    let storing = tokio::spawn(store_all(senders.to_vec(), recipients.to_vec(), messages, ledger.clone()));
    let kills = kill_while(&mut lab, rounds.div_ceil(2), 0, || storing.is_finished()).await;
    storing.await.unwrap();
    println!("{kills} kills while storing: {} promised", ledger.promises.load(Ordering::Relaxed));

    let fetching: Vec<_> =
        recipients.iter().map(|ue| tokio::spawn(keep_fetching(ue.clone(), ledger.clone()))).collect();
    let done = || ledger.arrivals.load(Ordering::Relaxed) >= ledger.promises.load(Ordering::Relaxed);
    let kills = kill_while(&mut lab, rounds / 2, 1, done).await;
    wait_until_all_arrived(&ledger).await;
    fetching.iter().for_each(tokio::task::JoinHandle::abort);
    println!("{kills} kills while fetching: {} arrived", ledger.arrivals.load(Ordering::Relaxed));

    let arrived = ledger.arrived.lock().unwrap();
    for (recipient, names) in arrived.iter() {
        let distinct: HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{recipient} was handed a message twice");
        in_order(recipient, names);
    }
    assert!(ledger.promises.load(Ordering::Relaxed) >= messages * 9 / 10, "most of the messages were to be promised");
}

/// Kills and starts the lab again, at moments that differ from round to round and are the same in each run, until there
/// were enough rounds or nothing is left to be disturbed. Returns how many it were.
async fn kill_while(lab: &mut Lab, rounds: usize, salt: usize, done: impl Fn() -> bool) -> usize {
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(100 + ((round * 97 + salt * 41) % 400) as u64)).await;
        if done() {
            return round;
        }
        lab.kill();
        lab.start_again();
    }
    rounds
}

/// Sends all messages, spread over senders, recipients and priorities.
async fn store_all(senders: Vec<FleetUe>, recipients: Vec<FleetUe>, messages: usize, ledger: Arc<Ledger>) {
    let mut lanes = Vec::new();
    for (number, sender) in senders.iter().enumerate() {
        let (client, mut incoming) = sender.connect().await;
        tokio::spawn(async move { while incoming.next().await.is_some() {} });
        for lane in 0..LANES {
            let mine = recipients.iter().skip(lane).step_by(LANES).cloned().collect();
            let share = messages / SENDERS / LANES;
            let name = format!("{number}.{lane}");
            lanes.push(tokio::spawn(fill(client.clone(), name, mine, share, ledger.clone())));
        }
    }
    for lane in lanes {
        lane.await.unwrap();
    }
}

/// One at a time: what one lane sends to one recipient with one priority has a known order.
async fn fill(client: Client, name: String, recipients: Vec<FleetUe>, count: usize, ledger: Arc<Ledger>) {
    let originator = client.config().ue_service_id.to_string();
    for number in 0..count {
        let Some(recipient) = recipients.get(number % recipients.len().max(1)) else { return };
        let priority = PRIORITIES[number / recipients.len() % 3];
        let id = format!("{name}-{priority:?}#{number}");
        loop {
            let message = OutgoingMessage::to_ue(&recipient.service_id, vec![b'x'; 200])
                .message_id(id.parse().unwrap())
                .priority(priority)
                .store_and_forward(None);
            match client.send(message).await {
                Ok(Outcome::Stored | Outcome::Delivered) => break,
                // Too many at once, or the server is going down: the same message again.
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        ledger.promise(recipient.service_id.as_str(), (originator.clone(), id));
    }
}

async fn keep_fetching(ue: FleetUe, ledger: Arc<Ledger>) {
    let (_client, mut incoming): (Client, IncomingStream) = ue.connect().await;
    while let Some(event) = incoming.next().await {
        let Incoming::Message(message) = event else { continue };
        let name = (message.content().originator.addr.to_string(), message.content().message_id.to_string());
        if message.accept().await.is_ok() {
            ledger.arrive(ue.service_id.as_str(), name);
        }
    }
}

/// A deadline far beyond any honest delay turns a loss into a failure.
async fn wait_until_all_arrived(ledger: &Ledger) {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let missing = ledger.missing();
        if missing.is_empty() {
            return;
        }
        let some = &missing[..missing.len().min(5)];
        assert!(Instant::now() < deadline, "{} promised messages never arrived, such as {some:?}", missing.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What one lane sent with one priority came in the order sent.
fn in_order(recipient: &str, names: &[Name]) {
    let mut last: HashMap<(&str, &str), u64> = HashMap::new();
    for (originator, id) in names {
        let (stream, number) = id.rsplit_once('#').unwrap();
        let number = number.parse().unwrap();
        let previous = last.insert((originator, stream), number);
        assert!(previous.is_none_or(|previous| previous < number), "{recipient} got {id} after number {previous:?}");
    }
}
