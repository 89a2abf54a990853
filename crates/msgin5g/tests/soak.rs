//! Mixed load for as long as is asked for: memory stays flat.
//!
//! `MSGIN5G_SOAK_SECONDS`, 20 unless given; `cargo xtask soak` runs an hour. `MSGIN5G_SOAK_RATE` is how many messages a
//! second all UEs together send at most; as many as the machine can, unless given. What is remembered of answered messages
//! follows the load, and the load follows whatever else the machine does: at a given rate it is level.
//! `MSGIN5G_SOAK_BOUNDS` is `low`, unless given, or `default`: the bounds of what the store keeps in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, reason = "the figures of a run are for whoever runs it")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::{Client, Incoming, IncomingStream, OutgoingMessage};
use common::Lab;
use common::fleet::{Fleet, FleetUe};
use common::function::Function;
use message::Priority;

const UES: usize = 24;

const GROUP: &str = "everybody@lab.example";
const TOPIC: &str = "lab/soak";

/// Octets of a long message: three segments.
const LONG_OCTETS: usize = 5_000;

/// Memory of this much is noise: an allocator's.
const NOISE_KIBIBYTES: u64 = 4 * 1024;

/// Files and octets of a store that come and go: a journal, and what is deleted and not yet reclaimed.
const NOISE_FILES: u64 = 64;
const NOISE_DISK_BYTES: u64 = 128 * 1024 * 1024;

/// What the store keeps in memory, tables and cache, grows until it reaches its bound, and that takes hours at the default
/// bounds. They are low, so that whatever else grows is not hidden by it.
const LOW_BOUNDS: [(&str, &str); 3] = [
    ("MSGIN5G_STORE__OPTIONS__DATABASE__MEMTABLE_BYTES_MAX", "131072"),
    ("MSGIN5G_STORE__OPTIONS__DATABASE__MEMTABLES_BYTES_MAX", "1048576"),
    ("MSGIN5G_STORE__OPTIONS__DATABASE__CACHE_BYTES", "1048576"),
];

/// What is remembered of answered messages grows for as long as they are remembered, which is too long for a short run.
const SHORT_MEMORY: [(&str, &str); 2] =
    [("MSGIN5G_LIMITS__REMEMBERED_SECONDS", "3"), ("MSGIN5G_LIMITS__REMEMBERED_STORED_SECONDS", "3")];

/// In a run longer than this everything is remembered for as long as it is by default.
const LONG_SECONDS: u64 = 45 * 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_flat_under_mixed_load() {
    let seconds = std::env::var("MSGIN5G_SOAK_SECONDS").map_or(20, |value| value.parse().expect("a number of seconds"));
    let lab = Lab::start();
    let server = Function::server(&lab, &settings(seconds));
    let mut fleet = Fleet::provision(&lab, UES).await;
    for ue in &mut fleet.ues {
        ue.config.server = server.address().to_string();
    }
    fleet.group(&lab, GROUP).await;
    let rate: Option<u32> =
        std::env::var("MSGIN5G_SOAK_RATE").ok().map(|value| value.parse().expect("messages per second"));
    let load = Arc::new(Load { pause: rate.map(|rate| Duration::from_secs(UES as u64) / rate), ..Load::default() });
    load.going.store(true, Ordering::SeqCst);
    let tasks: Vec<_> = (0..UES).map(|index| tokio::spawn(live(fleet.ues.clone(), index, load.clone()))).collect();

    let started = Instant::now();
    let mut samples = Vec::new();
    while started.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis((seconds * 1000 / 80).clamp(100, 15_000))).await;
        let sample = Sample::take(&lab, &server, &load);
        if samples.len() % 8 == 0 {
            println!("{:>5} s: {sample}", started.elapsed().as_secs());
        }
        samples.push(sample);
    }
    load.going.store(false, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let (sent, received) = (load.sent.load(Ordering::Relaxed), load.received.load(Ordering::Relaxed));
    let quarter = |number: usize, of: fn(&Sample) -> u64| {
        let quarter = &samples[samples.len() * (number - 1) / 4..samples.len() * number / 4];
        median(&quarter.iter().map(of).collect::<Vec<_>>())
    };
    let files = [2, 4].map(|number| quarter(number, |sample| sample.files as u64));
    let disk = [2, 4].map(|number| quarter(number, |sample| sample.disk_bytes));
    println!("files of the store: {} in the second quarter, {} in the last; {disk:?} octets", files[0], files[1]);
    let samples: Vec<u64> = samples.iter().map(|sample| sample.resident_kibibytes).collect();
    let early = median(&samples[samples.len() / 4..samples.len() / 2]);
    let third = median(&samples[samples.len() / 2..samples.len() * 3 / 4]);
    let late = median(&samples[samples.len() * 3 / 4..]);
    println!(
        "{seconds} s: {sent} messages answered, {received} handed over, {} connections; the server's memory: {} KiB at \
         the start, {early} in the second quarter, {third} in the third, {late} in the last",
        load.connections.load(Ordering::Relaxed),
        samples[0],
    );
    println!("every sample, in KiB: {samples:?}");
    assert!(sent > 100 && received > 100, "that was no load");
    // A twentieth over the whole, and of that no more than two fifths at the end: it levels off.
    let is_level = late <= early + early / 20 + NOISE_KIBIBYTES && late <= third + third / 50 + NOISE_KIBIBYTES;
    assert!(files[1] <= files[0] * 5 / 4 + NOISE_FILES, "the store's files went from {} to {}", files[0], files[1]);
    assert!(disk[1] <= disk[0] * 5 / 4 + NOISE_DISK_BYTES, "the store's octets went from {} to {}", disk[0], disk[1]);
    assert!(is_level, "memory grew from {early} over {third} to {late} KiB: {samples:?}");
}

fn settings(seconds: u64) -> Vec<(&'static str, &'static str)> {
    let mut settings = Vec::new();
    match std::env::var("MSGIN5G_SOAK_BOUNDS").as_deref() {
        Err(_) | Ok("low") => settings.extend(LOW_BOUNDS),
        Ok("default") => {}
        Ok(other) => panic!("MSGIN5G_SOAK_BOUNDS is low or default, not {other:?}"),
    }
    if seconds < LONG_SECONDS {
        settings.extend(SHORT_MEMORY);
    }
    settings
}

/// What the server holds at a moment, and what it has done until then.
struct Sample {
    resident_kibibytes: u64,
    /// Messages that it keeps for somebody.
    stored: u64,
    /// Answers that it remembers on disk.
    remembered: u64,
    /// Octets of what its store holds in memory.
    unwritten_bytes: u64,
    /// Octets of its store's files.
    disk_bytes: u64,
    files: usize,
    sent: usize,
    received: usize,
}

impl Sample {
    fn take(lab: &Lab, server: &Function, load: &Load) -> Self {
        let (disk_bytes, files) = extent(&lab.path("state/second-server"));
        Self {
            resident_kibibytes: resident_kibibytes(server.process_id()),
            stored: server.metric("store_messages"),
            remembered: server.metric("store_deduplication_records"),
            unwritten_bytes: server.metric("store_memory_bytes"),
            disk_bytes,
            files,
            sent: load.sent.load(Ordering::Relaxed),
            received: load.received.load(Ordering::Relaxed),
        }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} KiB resident; {} messages kept, {} answers remembered on disk, {} KiB of tables in memory, {} MiB in {} files; {} sent, {} handed over",
            self.resident_kibibytes,
            self.stored,
            self.remembered,
            self.unwritten_bytes / 1024,
            self.disk_bytes / (1024 * 1024),
            self.files,
            self.sent,
            self.received,
        )
    }
}

/// Octets and number of the files under `folder`. A file may go while they are counted.
fn extent(folder: &Path) -> (u64, usize) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(about) = entry.metadata() else { continue };
        let (bytes, files) = if about.is_dir() { extent(&entry.path()) } else { (about.len(), 1) };
        sum = (sum.0 + bytes, sum.1 + files);
    }
    sum
}

#[derive(Default)]
struct Load {
    going: AtomicBool,
    /// Between two messages of one UE.
    pause: Option<Duration>,
    sent: AtomicUsize,
    received: AtomicUsize,
    connections: AtomicUsize,
}

/// One UE: comes, sends to others that are there or not, takes what is for it, goes, and comes again. A third stay.
async fn live(ues: Vec<FleetUe>, index: usize, load: Arc<Load>) {
    let mut round = 0;
    while load.going.load(Ordering::SeqCst) {
        round += 1;
        let (client, incoming) = ues[index].connect().await;
        load.connections.fetch_add(1, Ordering::Relaxed);
        let taking = tokio::spawn(take(incoming, load.clone()));
        // A server at its limits may refuse; that is load, too.
        let _ = client.subscribe(&[TOPIC.parse().unwrap()], None).await;
        let mut pace = load.pause.map(tokio::time::interval);
        let messages = if index.is_multiple_of(3) { 400 } else { 40 };
        for number in 0..messages {
            if !load.going.load(Ordering::SeqCst) {
                break;
            }
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            send(&client, &ues, index + number + round, number, &load).await;
        }
        client.close().await;
        drop(client);
        taking.await.unwrap();
    }
}

async fn send(client: &Client, ues: &[FleetUe], to: usize, number: usize, load: &Load) {
    let payload = vec![b'x'; if number.is_multiple_of(10) { LONG_OCTETS } else { 20 + number % 1000 }];
    let mut message = match number % 40 {
        17 => OutgoingMessage::to_group(&GROUP.parse().unwrap(), payload),
        29 => OutgoingMessage::to_topic(&TOPIC.parse().unwrap(), payload),
        _ => OutgoingMessage::to_ue(&ues[to % ues.len()].service_id, payload),
    };
    message = message.priority([Priority::High, Priority::Middle, Priority::Low][number % 3]);
    if !number.is_multiple_of(5) {
        message = message.store_and_forward(None);
    }
    if number.is_multiple_of(4) {
        message = message.with_report();
    }
    if client.send(message).await.is_ok() {
        load.sent.fetch_add(1, Ordering::Relaxed);
    }
}

async fn take(mut incoming: IncomingStream, load: Arc<Load>) {
    while let Some(event) = incoming.next().await {
        let accepted = match event {
            Incoming::Message(message) => message.accept().await,
            Incoming::Report(report) => report.accept().await,
            _ => continue,
        };
        if accepted.is_ok() {
            load.received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn resident_kibibytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
