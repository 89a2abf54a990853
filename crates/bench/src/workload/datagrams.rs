//! Devices over DTLS: idle, coming and going, asking; the latter two also while somebody floods the server.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{try_join, try_join_all};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{Meter, USERS_MIN, WARM_UP};
use crate::datagram::{DatagramPeer, Dtls, Flood, Link};
use crate::latency::Latencies;
use crate::msgin5g::Devices;
use crate::process::Process;
use crate::report::{Figure, Report};
use crate::{Arguments, BenchError};

/// Handshakes under way at once.
const CONCURRENT: usize = 16;
/// Devices that ask at once, one request each.
const ASKING: usize = 64;
/// Idle devices that ask at most, one after the other.
const ASKING_IDLE_MAX: usize = 10_000;
/// How long a device waits for one of its operations.
const PATIENCE: Duration = Duration::from_secs(10);
/// Until the handshakes' last flights are let go.
const SETTLE: Duration = Duration::from_secs(12);

/// What is measured of idle sessions that are never frozen, whoever's they are.
pub(crate) const IDLE_LIVE: &str = "idle DTLS session, live";
/// And of a request over them.
pub(crate) const REQUEST_LIVE: &str = "one request over it, live";

/// So many idle sessions, a request over some of them, and an attack beside all of them.
pub(crate) async fn idle_sessions<P: DatagramPeer>(
    peer: &P,
    wanted: usize,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), BenchError> {
    let (figure, mut links) = idle(peer, wanted, IDLE_LIVE.to_owned()).await?;
    report.add(figure);
    // Of the first, which have been idle for longest: they show that their sessions are there.
    let asking = links.iter_mut().take(ASKING_IDLE_MAX).enumerate();
    let meter = Meter::start(peer.process())?;
    let asked = futures_util::stream::iter(asking)
        .map(|(device, link)| async move {
            peer.ask(link, device).await?;
            link.rest();
            Ok::<_, BenchError>(())
        })
        .buffer_unordered(CONCURRENT)
        .try_fold(0, |count, ()| std::future::ready(Ok(count + 1)))
        .await?;
    let reading = meter.read(asked)?;
    report.add(Figure {
        work: REQUEST_LIVE.to_owned(),
        peer: peer.name(),
        operations: asked,
        per_second: reading.per_second,
        server_cpu_us: reading.server_cpu_us,
        ..Figure::default()
    });
    report.add(attacked(peer.name(), peer.process(), peer.address(), arguments, "live").await?);
    Ok(())
}

/// What a server's memory grows by while somebody floods it beside its idle sessions.
pub(crate) async fn attacked(
    peer: &'static str,
    process: Process,
    address: SocketAddr,
    arguments: &Arguments,
    state: &str,
) -> Result<Figure, BenchError> {
    let before = process.resident_bytes()?;
    let meter = Meter::start(process)?;
    let flood = Flood::start(address, Dtls::V1_2, arguments.flood)?;
    tokio::time::sleep(arguments.duration()).await;
    let (after, sent) = (process.resident_bytes()?, flood.sent());
    let reading = meter.read(sent)?;
    Ok(Figure {
        work: format!("ClientHello of an attack beside them, {state}"),
        peer,
        operations: sent,
        server_cpu_us: reading.server_cpu_us,
        bytes_each: Some(after.saturating_sub(before) as f64 / sent.max(1) as f64),
        resident_bytes: Some(after),
        attack_per_second: reading.per_second,
        ..Figure::default()
    })
}

/// Devices that take part.
pub(crate) fn devices_needed(arguments: &Arguments) -> usize {
    arguments.idle.max(USERS_MIN).max(ASKING)
}

pub(crate) async fn datagrams<P: DatagramPeer>(
    peer: &P,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), BenchError> {
    // First, because memory once taken is seldom given back.
    let (figure, links) = idle(peer, arguments.idle, format!("idle session, {}", Dtls::V1_2.name())).await?;
    report.add(figure);
    close(links).await?;
    for dtls in peer.versions().iter().copied() {
        for per_second in [None, Some(arguments.flood)] {
            // Those that are there before the flood.
            let links = admitted(peer, ASKING, dtls).await?;
            let flood = per_second.map(|rate| Flood::start(peer.address(), dtls, rate)).transpose()?;
            let beside = per_second.map_or(String::new(), |rate| format!(", beside {rate} ClientHellos/s"));
            let what = format!("{} PSK handshake{beside}", dtls.name());
            report.add(handshakes(peer, arguments, dtls, what, flood.as_ref()).await?);
            let what = format!("request over {}, {ASKING} at once{beside}", dtls.name());
            report.add(requests(peer, arguments, links, what, flood.as_ref()).await?);
        }
    }
    Ok(())
}

/// Messages from device to device, half of them sending.
pub(crate) async fn deliveries(
    devices: &Devices,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), BenchError> {
    for dtls in devices.versions().iter().copied() {
        let links = admitted(devices, ASKING, dtls).await?;
        let (senders, recipients): (Vec<_>, Vec<_>) =
            links.into_iter().enumerate().partition(|(device, _)| *device < ASKING / 2);
        let senders: Vec<_> = senders.into_iter().map(|(_, link)| Mutex::new(link)).collect();
        let taking = try_join_all(recipients.into_iter().map(|(_, link)| devices.take(link)));
        let what = format!("message device to device over {}, {} at once", dtls.name(), ASKING / 2);
        let sending = repeated(devices, arguments, senders.len(), what, None, async |device| {
            let Some(link) = senders.get(device) else { return Ok(()) };
            devices.deliver(&mut *link.lock().await, device, device + ASKING / 2).await
        });
        let figure = tokio::select! {
            figure = sending => figure?,
            taken = taking => return Err(taken.err().unwrap_or(BenchError::Protocol("no recipients".to_owned()))),
        };
        report.add(figure);
        for link in senders {
            link.into_inner().close().await?;
        }
    }
    Ok(())
}

/// What each of `count` sessions takes, and those sessions.
async fn idle<P: DatagramPeer>(peer: &P, count: usize, work: String) -> Result<(Figure, Vec<Link>), BenchError> {
    // What the first sessions cost once is not the cost of a session.
    close(admitted(peer, USERS_MIN, Dtls::V1_2).await?).await?;
    tokio::time::sleep(SETTLE).await;
    let before = peer.process().resident_bytes()?;
    let meter = Meter::start(peer.process())?;
    let links = admitted(peer, count, Dtls::V1_2).await?;
    let reading = meter.read(count as u64)?;
    tokio::time::sleep(SETTLE).await;
    let after = peer.process().resident_bytes()?;
    let figure = Figure {
        work,
        peer: peer.name(),
        operations: count as u64,
        per_second: reading.per_second,
        server_cpu_us: reading.server_cpu_us,
        bytes_each: Some(after.saturating_sub(before) as f64 / count.max(1) as f64),
        resident_bytes: Some(after),
        ..Figure::default()
    };
    Ok((figure, links))
}

async fn handshakes<P: DatagramPeer>(
    peer: &P,
    arguments: &Arguments,
    dtls: Dtls,
    what: String,
    flood: Option<&Flood>,
) -> Result<Figure, BenchError> {
    repeated(peer, arguments, CONCURRENT, what, flood, async |worker| peer.handshake(worker, dtls).await?.close().await)
        .await
}

async fn requests<P: DatagramPeer>(
    peer: &P,
    arguments: &Arguments,
    links: Vec<Link>,
    what: String,
    flood: Option<&Flood>,
) -> Result<Figure, BenchError> {
    let links: Vec<_> = links.into_iter().map(Mutex::new).collect();
    let figure = repeated(peer, arguments, links.len(), what, flood, async |device| {
        let Some(link) = links.get(device) else { return Ok(()) };
        peer.ask(&mut *link.lock().await, device).await
    })
    .await?;
    close(links.into_iter().map(Mutex::into_inner).collect()).await?;
    Ok(figure)
}

/// `operation` over and over, by so many workers at once, for as long as is measured. One that fails ends it all, but
/// counts as refused while somebody floods the server.
async fn repeated<P: DatagramPeer>(
    peer: &P,
    arguments: &Arguments,
    workers: usize,
    work: String,
    flood: Option<&Flood>,
    operation: impl AsyncFn(usize) -> Result<(), BenchError>,
) -> Result<Figure, BenchError> {
    let (done, failed, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let first_failure = OnceLock::new();
    let working = (0..workers).map(|worker| {
        let (done, failed, is_over, first_failure, operation) = (&done, &failed, &is_over, &first_failure, &operation);
        async move {
            let mut latencies = Latencies::default();
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let outcome = timeout(PATIENCE, operation(worker)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(BenchError::Connection("no answer".to_owned())));
                match outcome {
                    Ok(()) => {
                        done.fetch_add(1, Ordering::Relaxed);
                        latencies.record(began.elapsed());
                    }
                    Err(error) if flood.is_some() => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        first_failure.get_or_init(|| error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok::<_, BenchError>(latencies)
        }
    });
    let measuring = async {
        tokio::time::sleep(WARM_UP).await;
        let (before, hellos) = (done.load(Ordering::Relaxed), flood.map_or(0, Flood::sent));
        let meter = Meter::start(peer.process())?;
        tokio::time::sleep(arguments.duration()).await;
        let (operations, flooded) = (done.load(Ordering::Relaxed) - before, flood.map_or(0, Flood::sent) - hellos);
        let reading = meter.read(operations)?;
        is_over.store(true, Ordering::Relaxed);
        Ok((operations, flooded, reading))
    };
    let (latencies, (operations, flooded, reading)) = try_join(try_join_all(working), measuring).await?;
    let all = latencies.into_iter().fold(Latencies::default(), |mut all, some| {
        all.extend(some);
        all
    });
    Ok(Figure {
        work,
        peer: peer.name(),
        operations,
        per_second: reading.per_second,
        server_cpu_us: reading.server_cpu_us,
        latency: all.summary(),
        refused: failed.into_inner(),
        refusal: first_failure.into_inner(),
        attack_per_second: flood.map(|_| flooded as f64 / arguments.duration().as_secs_f64()),
        ..Figure::default()
    })
}

async fn admitted<P: DatagramPeer>(peer: &P, count: usize, dtls: Dtls) -> Result<Vec<Link>, BenchError> {
    futures_util::stream::iter(0..count)
        .map(|device| async move {
            let mut link = peer.handshake(device, dtls).await?;
            peer.admit(&mut link, device).await?;
            if count > ASKING {
                link.rest();
            }
            Ok::<_, BenchError>(link)
        })
        .buffered(CONCURRENT)
        .try_collect()
        .await
}

async fn close(links: Vec<Link>) -> Result<(), BenchError> {
    futures_util::stream::iter(links).map(Link::close).buffer_unordered(CONCURRENT).try_collect().await
}
