//! Messages for recipients that are away; then, if so asked, the server is killed; then the recipients return.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Meter;
use crate::latency::Latencies;
use crate::peer::{Event, Peer, Session, Tls};
use crate::report::{Figure, Report};
use crate::{Arguments, BenchError};

const SENDERS: usize = 8;
const RECIPIENTS: usize = 16;
/// Messages of one sender without an answer.
const WINDOW: usize = 8;
/// Storing ends after so long, however many messages there are.
const STORING_MAX: Duration = Duration::from_secs(20);
/// Without a message for so long, the rest counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(5);

pub(crate) async fn store<P: Peer>(
    peer: &P,
    arguments: &Arguments,
    kill: bool,
    report: &mut Report,
) -> Result<(), BenchError> {
    for recipient in 0..RECIPIENTS {
        peer.connect(SENDERS + recipient, Tls::V1_3).await?.close().await?;
    }
    let taken = fill(peer, arguments, report).await?;
    if kill {
        peer.kill_and_restart().await?;
    }
    drain(peer, &taken, kill, report).await
}

/// Stores, and returns what the server took responsibility for.
async fn fill<P: Peer>(peer: &P, arguments: &Arguments, report: &mut Report) -> Result<HashSet<u64>, BenchError> {
    let mut sessions = Vec::new();
    for sender in 0..SENDERS {
        sessions.push(peer.connect(sender, Tls::V1_3).await?);
    }
    let meter = Meter::start(peer.process())?;
    let end = Instant::now() + STORING_MAX;
    let mut sending = JoinSet::new();
    for (sender, session) in sessions.into_iter().enumerate() {
        let count = (arguments.stored / SENDERS) as u64;
        let payload = vec![b'x'; arguments.payload_octets()];
        sending.spawn(send_all(session, sender, count, payload, end));
    }
    let mut latencies = Latencies::default();
    let mut taken = HashSet::new();
    let mut refused = 0;
    let mut refusal = None;
    while let Some(joined) = sending.join_next().await {
        let sent = joined.map_err(BenchError::connection)??;
        latencies.extend(sent.latencies);
        taken.extend(sent.taken);
        refused += sent.refused;
        refusal = refusal.or(sent.refusal);
    }
    let operations = taken.len() as u64;
    let reading = meter.read(operations)?;
    report.add(Figure {
        work: format!("message stored, {} in flight", SENDERS * WINDOW),
        peer: peer.name(),
        operations,
        per_second: reading.per_second,
        server_cpu_us: reading.server_cpu_us,
        latency: latencies.summary(),
        refused,
        refusal,
        ..Figure::default()
    });
    Ok(taken)
}

#[derive(Default)]
struct Sent {
    latencies: Latencies,
    taken: Vec<u64>,
    refused: u64,
    refusal: Option<String>,
}

async fn send_all(
    mut session: impl Session,
    sender: usize,
    count: u64,
    mut payload: Vec<u8>,
    end: Instant,
) -> Result<Sent, BenchError> {
    let mut sent = Sent::default();
    let mut outstanding: HashMap<u64, (u64, Instant)> = HashMap::new();
    let mut next = 0;
    loop {
        while next < count && outstanding.len() < WINDOW && Instant::now() < end {
            let name = ((sender as u64) << 32) | next;
            if let Some(place) = payload.first_chunk_mut() {
                *place = name.to_be_bytes();
            }
            let to = SENDERS + (next as usize + sender) % RECIPIENTS;
            outstanding.insert(session.send(to, &payload)?, (name, Instant::now()));
            next += 1;
        }
        if outstanding.is_empty() {
            session.close().await?;
            return Ok(sent);
        }
        match session.event().await? {
            Event::Taken(number) => {
                if let Some((name, since)) = outstanding.remove(&number) {
                    sent.latencies.record(since.elapsed());
                    sent.taken.push(name);
                }
            }
            Event::Refused(number, why) => {
                outstanding.remove(&number);
                sent.refused += 1;
                sent.refusal.get_or_insert(why);
            }
            Event::Received(_) => {}
        }
    }
}

/// All recipients return at once; what they get is compared with what was taken.
async fn drain<P: Peer>(peer: &P, taken: &HashSet<u64>, killed: bool, report: &mut Report) -> Result<(), BenchError> {
    let meter = Meter::start(peer.process())?;
    let begin = Instant::now();
    let (messages, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let mut receiving = JoinSet::new();
    for recipient in 0..RECIPIENTS {
        let mut session = peer.connect(SENDERS + recipient, Tls::V1_3).await?;
        let messages = messages.clone();
        receiving.spawn(async move {
            while let Ok(event) = session.event().await {
                let Event::Received(payload) = event else { continue };
                let name = payload.first_chunk().map_or(u64::MAX, |name| u64::from_be_bytes(*name));
                if messages.send((name, Instant::now())).is_err() {
                    break;
                }
            }
        });
    }
    let mut seen = HashSet::new();
    let mut repeated = 0;
    let mut missing = taken.len();
    let mut last = begin;
    while missing > 0 {
        let Ok(Some((name, at))) = tokio::time::timeout(SILENCE_MAX, arrived.recv()).await else { break };
        last = at;
        if !seen.insert(name) {
            repeated += 1;
        } else if taken.contains(&name) {
            missing -= 1;
        }
    }
    let reading = meter.read(seen.len() as u64)?;
    receiving.shutdown().await;
    let what = if killed { "stored message fetched after kill -9" } else { "stored message fetched" };
    report.add(Figure {
        work: what.to_owned(),
        peer: peer.name(),
        operations: taken.len() as u64,
        per_second: Some(seen.len() as f64 / last.duration_since(begin).as_secs_f64().max(1e-3)),
        server_cpu_us: reading.server_cpu_us,
        lost: Some(missing as u64),
        repeated: Some(repeated),
        ..Figure::default()
    });
    Ok(())
}
