//! Messages from UE to UE, both connected: each acknowledged by the recipient and answered to the sender.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Meter, WARM_UP};
use crate::latency::Latencies;
use crate::peer::{Event, Peer, Session, Tls};
use crate::report::{Figure, Report};
use crate::{Arguments, BenchError};

/// Senders, each with a recipient of its own.
const PAIRS: usize = 8;
/// Messages of one sender without an answer, when as many as go are sent.
const WINDOW: usize = 8;
/// How long answers are waited for at the end.
const LINGER: Duration = Duration::from_secs(2);

pub(crate) async fn messages<P: Peer>(peer: &P, arguments: &Arguments, report: &mut Report) -> Result<(), BenchError> {
    for rate in &arguments.rates {
        measure(peer, arguments, Load::Rate(f64::from((*rate).max(1))), report).await?;
    }
    measure(peer, arguments, Load::Window, report).await
}

#[derive(Debug, Clone, Copy)]
enum Load {
    /// So many a second in all, whatever becomes of them.
    Rate(f64),
    /// A new one with every answer.
    Window,
}

/// The part of a run that counts.
#[derive(Debug, Clone, Copy)]
struct Span {
    epoch: Instant,
    begin: Instant,
    end: Instant,
}

impl Span {
    fn covers(&self, instant: Instant) -> bool {
        (self.begin..self.end).contains(&instant)
    }
}

async fn measure<P: Peer>(peer: &P, arguments: &Arguments, load: Load, report: &mut Report) -> Result<(), BenchError> {
    let mut senders = Vec::new();
    let mut recipients = Vec::new();
    for pair in 0..PAIRS {
        senders.push(peer.connect(pair, Tls::V1_3).await?);
        recipients.push(peer.connect(PAIRS + pair, Tls::V1_3).await?);
    }
    let epoch = Instant::now();
    let begin = epoch + WARM_UP;
    let span = Span { epoch, begin, end: begin + arguments.duration() };
    let mut receiving = JoinSet::new();
    for session in recipients {
        receiving.spawn(receive(session, span));
    }
    let mut sending = JoinSet::new();
    for (pair, session) in senders.into_iter().enumerate() {
        let sender = Sender {
            session,
            pair,
            load,
            span,
            payload: vec![b'x'; arguments.payload_octets()],
            outstanding: HashMap::new(),
            sent: Sent::default(),
        };
        sending.spawn(sender.run());
    }
    tokio::time::sleep_until(span.begin.into()).await;
    let meter = Meter::start(peer.process())?;
    tokio::time::sleep_until(span.end.into()).await;
    // Read before the senders are asked, so that nothing else counts.
    let cpu = meter.read(1)?.server_cpu_us.unwrap_or_default();

    let mut answered = Latencies::default();
    let mut refused = 0;
    let mut refusal = None;
    while let Some(joined) = sending.join_next().await {
        let sent = joined.map_err(BenchError::connection)??;
        answered.extend(sent.answered);
        refused += sent.refused;
        refusal = refusal.or(sent.refusal);
    }
    let mut delivered = Latencies::default();
    while let Some(joined) = receiving.join_next().await {
        delivered.extend(joined.map_err(BenchError::connection)??);
    }
    let work = match load {
        Load::Rate(rate) => format!("message UE to UE at {rate}/s"),
        Load::Window => format!("message UE to UE, {} in flight", PAIRS * WINDOW),
    };
    let operations = answered.count() as u64;
    report.add(Figure {
        work: format!("{work}, until delivered"),
        peer: peer.name(),
        operations: delivered.count() as u64,
        latency: delivered.summary(),
        ..Figure::default()
    });
    report.add(Figure {
        work: format!("{work}, until answered"),
        peer: peer.name(),
        operations,
        per_second: Some(operations as f64 / arguments.duration().as_secs_f64()),
        server_cpu_us: (operations > 0).then(|| cpu / operations as f64),
        latency: answered.summary(),
        refused,
        refusal,
        ..Figure::default()
    });
    Ok(())
}

struct Sender<S> {
    session: S,
    pair: usize,
    load: Load,
    span: Span,
    payload: Vec<u8>,
    /// When each unanswered message was sent, or, at a fixed rate, was due to be.
    outstanding: HashMap<u64, Instant>,
    sent: Sent,
}

/// What became of a sender's messages.
#[derive(Default)]
struct Sent {
    answered: Latencies,
    refused: u64,
    refusal: Option<String>,
}

impl<S: Session> Sender<S> {
    async fn run(mut self) -> Result<Sent, BenchError> {
        match self.load {
            Load::Rate(rate) => self.send_at(Duration::from_secs_f64(PAIRS as f64 / rate)).await?,
            Load::Window => self.send_with_every_answer().await?,
        }
        let lingering = async {
            while !self.outstanding.is_empty() {
                self.take_event().await?;
            }
            Ok(())
        };
        tokio::time::timeout(LINGER, lingering).await.unwrap_or(Ok::<_, BenchError>(()))?;
        self.session.close().await?;
        Ok(self.sent)
    }

    async fn send_at(&mut self, interval: Duration) -> Result<(), BenchError> {
        // The senders take turns.
        let mut due = self.span.epoch + interval.mul_f64(self.pair as f64 / PAIRS as f64);
        while due < self.span.end {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due.into()) => {
                    // A message sent late is measured from when it was due: a server that stalls must not look good.
                    self.send(due)?;
                    due += interval;
                }
                taken = self.take_event() => taken?,
            }
        }
        Ok(())
    }

    async fn send_with_every_answer(&mut self) -> Result<(), BenchError> {
        while Instant::now() < self.span.end {
            while self.outstanding.len() < WINDOW {
                self.send(Instant::now())?;
            }
            self.take_event().await?;
        }
        Ok(())
    }

    fn send(&mut self, since: Instant) -> Result<(), BenchError> {
        let nanoseconds = since.duration_since(self.span.epoch).as_nanos() as u64;
        if let Some(place) = self.payload.first_chunk_mut() {
            *place = nanoseconds.to_be_bytes();
        }
        let number = self.session.send(PAIRS + self.pair, &self.payload)?;
        self.outstanding.insert(number, since);
        Ok(())
    }

    async fn take_event(&mut self) -> Result<(), BenchError> {
        match self.session.event().await? {
            Event::Taken(number) => {
                if let Some(since) = self.outstanding.remove(&number)
                    && self.span.covers(since)
                {
                    self.sent.answered.record(since.elapsed());
                }
            }
            Event::Refused(number, why) => {
                self.outstanding.remove(&number);
                self.sent.refused += 1;
                self.sent.refusal.get_or_insert(why);
            }
            Event::Received(_) => {}
        }
        Ok(())
    }
}

/// Receives until the senders must be done, and tells how long each message took.
async fn receive(mut session: impl Session, span: Span) -> Result<Latencies, BenchError> {
    let mut latencies = Latencies::default();
    let until = span.end + LINGER + LINGER / 2;
    while let Ok(event) = tokio::time::timeout_at(until.into(), session.event()).await {
        if let Event::Received(payload) = event?
            && let Some(nanoseconds) = payload.first_chunk()
        {
            let since = span.epoch + Duration::from_nanos(u64::from_be_bytes(*nanoseconds));
            if span.covers(since) {
                latencies.record(since.elapsed());
            }
        }
    }
    session.close().await?;
    Ok(latencies)
}
