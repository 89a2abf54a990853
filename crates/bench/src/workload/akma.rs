//! The AKMA anchor function: registrations, memory, a restart, answers with K_AF.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use akma::KAf;
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::StatusCode;
use sbi::naanf::{API_PATH, AkmaAfKeyData};
use sbi::{SbiClient, SbiResponse};
use serde::Serialize;
use time::OffsetDateTime;

use super::{Meter, Reading, WARM_UP};
use crate::aanf::{Domain, Producer, STATE, Ues};
use crate::latency::Latencies;
use crate::process::Process;
use crate::report::{Figure, Report};
use crate::{Arguments, BenchError};

/// Requests without an answer.
const IN_FLIGHT: u64 = 64;
/// How long a process has to put its memory in order.
const SETTLE: Duration = Duration::from_secs(3);

/// What nghttpd is asked, and what it answers: as long as the AAnF's.
pub(crate) async fn floor(arguments: &Arguments, report: &mut Report) -> Result<(), BenchError> {
    let directory = arguments.directory()?;
    let (domain, ues) = (Domain::create(directory.path())?, Ues::new()?);
    let registered = serde_json::to_string(&ues.key_info(0)?).map_err(std::io::Error::from)?;
    let key = AkmaAfKeyData {
        supp_feat: None,
        gpsi: None,
        expiry: OffsetDateTime::now_utc(),
        kaf: KAf::from_bytes([0x5a; 32]),
        supi: "imsi-001010000000000".parse().ok(),
    };
    let key = serde_json::to_string(&key).map_err(std::io::Error::from)?;
    let answers = [(REGISTER, registered), (RETRIEVE, key)].map(|(operation, answer)| (path(operation), answer));
    let answers = answers.each_ref().map(|(path, answer)| (path.as_str(), answer.clone()));
    let producer = Producer::nghttpd(&arguments.nghttpd, &domain, directory.path(), &answers).await?;
    let asked = Asked { client: domain.client()?, ues, producer: &producer };
    let (registrations, _) = asked.registrations(Span::Time(arguments.duration())).await?;
    report.add(registrations);
    report.add(asked.keys(KEY_WORK, Span::Time(arguments.duration()), arguments.contexts).await?.0);
    Ok(())
}

/// The AAnF: filled with contexts, killed, started again, and asked for keys.
pub(crate) async fn aanf(arguments: &Arguments, report: &mut Report) -> Result<(), BenchError> {
    let directory = arguments.directory()?;
    let (domain, ues) = (Domain::create(directory.path())?, Ues::new()?);
    let mut producer = Producer::aanf(arguments, &domain, directory.path()).await?;
    let (client, contexts) = (domain.client()?, arguments.contexts);

    let empty = producer.process().resident_bytes()?;
    let asked = Asked { client: client.clone(), ues, producer: &producer };
    let (registrations, registered) = asked.registrations(Span::Count(contexts)).await?;
    report.add(registrations);
    let on_disk = || disk_octets(&directory.path().join(STATE)).map(|octets| octets as f64 / registered.max(1) as f64);
    let full = memory(&producer, "AKMA context", empty, registered).await?;
    report.add(Figure { disk_bytes_each: Some(on_disk()?), ..full });

    let Asked { ues, .. } = asked;
    let ready = producer.kill_and_restart().await?;
    report.add(Figure {
        ready_seconds: Some(ready.as_secs_f64()),
        disk_bytes_each: Some(on_disk()?),
        ..memory(&producer, "AKMA context, after kill -9 and restart", empty, registered).await?
    });

    let asked = Asked { client, ues, producer: &producer };
    let span = Span::Time(arguments.duration());
    let (first, asked_for) = asked.keys(FIRST_KEY_WORK, span, registered).await?;
    if asked_for > registered {
        return Err(BenchError::Provision("too few contexts for so long a run: raise --contexts".to_owned()));
    }
    report.add(first);
    report.add(asked.keys(KEY_WORK, span, asked_for).await?.0);
    Ok(())
}

async fn memory(producer: &Producer, what: &str, empty: u64, contexts: u64) -> Result<Figure, BenchError> {
    tokio::time::sleep(SETTLE).await;
    let resident = producer.process().resident_bytes()?;
    Ok(Figure {
        work: format!("{what}, one of {contexts}"),
        peer: producer.name(),
        operations: contexts,
        bytes_each: Some(resident.saturating_sub(empty) as f64 / contexts.max(1) as f64),
        resident_bytes: Some(resident),
        ..Figure::default()
    })
}

/// What the files below `directory` take on disk: whole blocks, and of a journal that is laid out ahead only what is written.
fn disk_octets(directory: &Path) -> std::io::Result<u64> {
    let mut octets = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        octets += if metadata.is_dir() { disk_octets(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(octets)
}

/// A producer and how to ask it.
struct Asked<'a> {
    client: SbiClient,
    ues: Ues,
    producer: &'a Producer,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
enum Span {
    /// So many operations, all of them measured.
    Count(u64),
    /// As many as go in so long, after a warm-up.
    Time(Duration),
}

impl Asked<'_> {
    /// Registers one UE after the other; how many.
    async fn registrations(&self, span: Span) -> Result<(Figure, u64), BenchError> {
        let uri = self.producer.uri(&path(REGISTER));
        let work = format!("AKMA registration, {IN_FLIGHT} in flight");
        self.measure(&work, span, async |number| {
            let answer = self.post(&uri, &self.ues.key_info(number)?).await?;
            Ok(answer.status == StatusCode::OK)
        })
        .await
    }

    /// Asks for K_AF of the first `ues` UEs in turn; how many answers there were. A UE that is not known is counted as
    /// lost.
    async fn keys(&self, work: &str, span: Span, ues: u64) -> Result<(Figure, u64), BenchError> {
        let uri = self.producer.uri(&path(RETRIEVE));
        self.measure(&format!("{work}, {IN_FLIGHT} in flight"), span, async |number| {
            let answer = self.post(&uri, &self.ues.key_request(number % ues.max(1))?).await?;
            Ok(answer.status == StatusCode::OK)
        })
        .await
    }

    /// Of whatever media type, because nghttpd tells none.
    async fn post<B: Serialize + Sync>(&self, uri: &str, body: &B) -> Result<SbiResponse<Bytes>, BenchError> {
        self.client.post_any(uri, body).await.map_err(BenchError::connection)
    }

    /// Does `operation`, told its number, with [`IN_FLIGHT`] at once. It says whether it found what it asked for.
    async fn measure<F>(&self, work: &str, span: Span, operation: F) -> Result<(Figure, u64), BenchError>
    where
        F: AsyncFn(u64) -> Result<bool, BenchError>,
    {
        let run = Run::new(span);
        let workers = try_join_all((0..IN_FLIGHT).map(|_| run.work(&operation)));
        // A worker that fails ends the measurement.
        let (all, (meter, reading)) = futures_util::try_join!(workers, run.meter(self.producer.process()))?;
        let mut latencies = Latencies::default();
        all.into_iter().for_each(|some| latencies.extend(some));
        let operations = latencies.count() as u64;
        let seconds = run.end.map_or_else(|| meter.since.elapsed(), |end| end - run.begin).as_secs_f64();
        let reading = reading.map_or_else(|| meter.read(1), Ok)?;
        let figure = Figure {
            work: work.to_owned(),
            peer: self.producer.name(),
            operations,
            per_second: Some(operations as f64 / seconds),
            server_cpu_us: reading.server_cpu_us.filter(|_| operations > 0).map(|total| total / operations as f64),
            latency: latencies.summary(),
            lost: Some(run.lost.load(Ordering::Relaxed)),
            ..Figure::default()
        };
        Ok((figure, run.next.load(Ordering::Relaxed).min(run.most)))
    }
}

/// One measurement under way.
struct Run {
    /// Operations in all, at most.
    most: u64,
    /// What begins before this is not measured.
    begin: Instant,
    /// What ends after this is not measured; `None` where the last operation is the end.
    end: Option<Instant>,
    next: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
}

impl Run {
    fn new(span: Span) -> Self {
        let now = Instant::now();
        let (most, begin, end) = match span {
            Span::Count(count) => (count, now, None),
            Span::Time(duration) => (u64::MAX, now + WARM_UP, Some(now + WARM_UP + duration)),
        };
        Self { most, begin, end, next: AtomicU64::new(0), lost: AtomicU64::new(0), over: AtomicBool::new(false) }
    }

    /// One operation after the other, while there are any.
    async fn work(&self, operation: &impl AsyncFn(u64) -> Result<bool, BenchError>) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::default();
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.most {
                break;
            }
            let since = Instant::now();
            let found = operation(number).await?;
            let now = Instant::now();
            if since >= self.begin && self.end.is_none_or(|end| now < end) {
                latencies.record(now - since);
                self.lost.fetch_add(u64::from(!found), Ordering::Relaxed);
            }
        }
        Ok(latencies)
    }

    /// Reads the process's time at the beginning and, if there is one, at the end, which it tells the workers.
    async fn meter(&self, process: Process) -> Result<(Meter, Option<Reading>), BenchError> {
        tokio::time::sleep_until(self.begin.into()).await;
        let meter = Meter::start(process)?;
        let Some(end) = self.end else { return Ok((meter, None)) };
        tokio::time::sleep_until(end.into()).await;
        let reading = meter.read(1)?;
        self.over.store(true, Ordering::Relaxed);
        Ok((meter, Some(reading)))
    }
}

fn path(operation: &str) -> String {
    format!("{API_PATH}/{operation}")
}

const REGISTER: &str = "register-anchorkey";
const RETRIEVE: &str = "retrieve-applicationkey";
const FIRST_KEY_WORK: &str = "K_AF answer, the first for an AF and UE";
const KEY_WORK: &str = "K_AF answer";
