//! One message to many: groups (TS 23.554 clause 8.7.4) and Messaging Topics (clause 8.8).
//!
//! # The flow
//!
//! ```text
//!  routing             worker of the target              the store             pipelines of the members
//!  MSG, POST ──▶ queue ──▶ who may send? who gets it? ──▶ job (synced)
//!                │         [validating AS asked first]      │
//!  DELY_STORED ◀─┼──────────────────────────────────────────┘
//!                └───────▶ one copy for each member ─────────────────────────▶ delivered, stored, or failed
//!                                                        progress ◀──────────────────────────┘
//!  IMDN of a member ──────────────────────────────────▶  progress (synced) ──▶ answered
//!  aggregated IMDN ◀───────────────────────────────────── told
//! ```
//!
//! # Why an answer can be relied on
//!
//! `DELY_STORED` is said after the job, with the list of those who are to get a copy, is on disk together with the record
//! of the Message ID. From then on every member's copy is handed over, or reported as failed: after a restart jobs are
//! read back and copies not known to be handed over go out again, under the same originator and Message ID, by which the
//! recipients' libraries tell repetitions. A copy that was handed over rests on the promises of [`crate::delivery`]: it
//! was acknowledged, or lies in the member's own queue on disk.
//!
//! # Why in order
//!
//! One worker for each group or topic takes its messages one after the other, higher priorities first, and hands over all
//! copies of one before it begins the next; each member's pipeline keeps that order. A copy that may wait and for which the
//! disk, the member's or the originator's share of it, or the queue of a member that is there had no room waits in line, and
//! what follows it for the same member behind it ([`lines`]).
//!
//! # Why nobody is delayed by others
//!
//! A worker waits for no member: what a member that is there does not acknowledge waits in that member's own queue, then on
//! disk, or in its line. A worker waits for a moment when more copies than `fan_out_window` are on their way to the disk, or
//! more of one message than `fan_out_octets_max` in memory, and no worker waits for another. An originator has so many places
//! of a target's queue and no more, and none if it is known that it may not send there.
//!
//! # Reports
//!
//! If the originator wants reports, those of the members, and failures to hand over, are collected. They are told when all
//! are there or every `report_aggregation_seconds`: to a UE as aggregated reports from the group or topic, to an AS one by
//! one (TS 29.538 has no aggregate). After `report_collection_seconds` the job is closed; what comes later reaches the
//! originator as a single report, as if the message had been for that member alone.

mod copies;
mod job;
mod ledger;
mod lines;
mod metrics;
mod resolve;
mod tell;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use message::{Address, DeliveryStatusReport, FailureCause, Message, MessageId, ReportDeliveryStatus, UeMessage};
use store::{DeduplicationRecord, JobId, NewFanOutJob, StoreError};
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::core::Core;
use crate::deduplication::ContentDigest;
use crate::delivery::{Answer, Asker, Collector};
use crate::inbox;
use crate::log_budget::Topic;
use crate::sync::lock;

pub(crate) use job::{Job, Outcome, Waiter};
use ledger::Ledger;
use lines::Lines;
use metrics::FanOutMetrics;

/// Pause before a copy that found no room is tried again, and before the store is asked again after it failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause: it grows while a line's first copy finds none.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(64);

/// Jobs read back at once.
const JOBS_BATCH: usize = store::SCAN_JOBS_MAX;

/// Messages on their way to many, and the jobs that are not closed.
#[derive(Default)]
pub(crate) struct FanOut {
    /// What waits for its turn, by group or topic. A target is here while its worker runs.
    targets: Mutex<HashMap<Address, VecDeque<Work>>>,
    /// Jobs that collect, by originator and Message ID.
    open: Mutex<HashMap<(Address, MessageId), Arc<Job>>>,
    ledger: Ledger,
    pub(crate) lines: Lines,
    pub(crate) metrics: FanOutMetrics,
}

/// A message that was let in.
pub(crate) struct Fresh {
    pub(crate) message: Message,
    pub(crate) asker: Asker,
    pub(crate) digest: ContentDigest,
    pub(crate) accepted_at: Instant,
}

impl Fresh {
    /// When its sender wants an answer at the latest.
    fn answer_by(&self) -> Option<Instant> {
        self.message.latency.map(|milliseconds| self.accepted_at + Duration::from_millis(milliseconds.into()))
    }
}

/// What a worker does next.
enum Work {
    /// The guard, of one with a bound on its latency, is held while it waits for its turn.
    Fresh(Box<Fresh>, #[expect(dead_code, reason = "what counts is when it is dropped")] Option<DropGuard>),
    /// From before a restart.
    Resumed(Arc<Job>),
}

impl Work {
    /// What is older goes first, then what is more urgent.
    fn rank(&self) -> usize {
        match self {
            Self::Resumed(_) => 0,
            Self::Fresh(fresh, _) => 1 + fresh.message.priority as usize,
        }
    }

    fn is_of(&self, originator: &Address) -> bool {
        matches!(self, Self::Fresh(fresh, _) if fresh.message.originator == *originator)
    }

    fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(..))
    }
}

impl FanOut {
    /// Jobs that are not closed.
    pub(crate) fn open_jobs(&self) -> usize {
        lock(&self.open).len()
    }

    /// The job that a report of `member` on this message is for.
    pub(crate) fn find(
        &self,
        originator: &Address,
        message_id: &MessageId,
        member: &Address,
    ) -> Option<(Arc<Job>, usize)> {
        let key = (originator.clone(), message_id.clone());
        let job = lock(&self.open).get(&key).cloned()?;
        let index = job.index_of(member).filter(|_| job.collects())?;
        Some((job, index))
    }

    fn open(&self, job: &Arc<Job>) {
        lock(&self.open).insert((job.originator.clone(), job.message_id.clone()), Arc::clone(job));
    }

    fn close(&self, job: &Arc<Job>) {
        let mut open = lock(&self.open);
        let key = (job.originator.clone(), job.message_id.clone());
        if open.get(&key).is_some_and(|found| Arc::ptr_eq(found, job)) {
            open.remove(&key);
        }
    }

    /// Queues a message for its target, or refuses it: at once if it is known without waiting that its originator may not
    /// send there, so that those who may find the places free.
    pub(crate) fn submit(core: &Arc<Core>, fresh: Fresh) {
        if let Err(cause) = resolve::may_be_queued(core, &fresh.message) {
            return core.answer(Some(fresh.asker), Answer::Failed(cause));
        }
        let target = fresh.message.destination.clone();
        let mut targets = lock(&core.fan_out.targets);
        if let Some(queue) = targets.get(&target) {
            let of_originator = queue.iter().filter(|work| work.is_of(&fresh.message.originator)).count();
            let all = queue.iter().filter(|work| work.is_fresh()).count();
            if of_originator >= core.limits.fan_out_queue_per_originator_max || all >= core.limits.fan_out_queue_max {
                drop(targets);
                return core.answer(Some(fresh.asker), Answer::Failed(FailureCause::TooMany));
            }
        }
        let bound = fresh.answer_by().map(|by| watch_latency(core, &fresh.message, by));
        Self::queue(core, &mut targets, &target, Work::Fresh(Box::new(fresh), bound));
    }

    fn queue(core: &Arc<Core>, targets: &mut HashMap<Address, VecDeque<Work>>, target: &Address, work: Work) {
        match targets.get_mut(target) {
            Some(queue) => queue.push_back(work),
            None => {
                targets.insert(target.clone(), VecDeque::from([work]));
                core.tasks.spawn(run(Arc::clone(core), target.clone()));
            }
        }
    }

    /// Takes a message out of its target's queue, if it is there.
    fn withdraw(&self, target: &Address, originator: &Address, message_id: &MessageId) -> Option<Fresh> {
        let mut targets = lock(&self.targets);
        let queue = targets.get_mut(target)?;
        let place = queue.iter().position(|work| match work {
            Work::Fresh(fresh, _) => fresh.message.originator == *originator && fresh.message.message_id == *message_id,
            Work::Resumed(_) => false,
        })?;
        match queue.remove(place)? {
            Work::Fresh(fresh, _) => Some(*fresh),
            Work::Resumed(_) => None,
        }
    }

    fn next(&self, target: &Address) -> Option<Work> {
        let mut targets = lock(&self.targets);
        let queue = targets.get_mut(target)?;
        let next = queue.iter().enumerate().min_by_key(|(index, work)| (work.rank(), *index)).map(|(index, _)| index);
        let work = next.and_then(|index| queue.remove(index));
        if work.is_none() {
            targets.remove(target);
        }
        work
    }
}

/// Answers a message that waits for its turn for longer than its sender wants to. The guard ends that.
fn watch_latency(core: &Arc<Core>, message: &Message, by: Instant) -> DropGuard {
    let over = CancellationToken::new();
    let guard = over.clone().drop_guard();
    let (target, originator) = (message.destination.clone(), message.originator.clone());
    let (core, message_id) = (Arc::clone(core), message.message_id.clone());
    core.tasks.clone().spawn(async move {
        tokio::select! {
            () = sleep_until(by) => {}
            () = over.cancelled() => return,
            () = core.stopped.cancelled() => return,
        }
        if let Some(fresh) = core.fan_out.withdraw(&target, &originator, &message_id) {
            core.answer(Some(fresh.asker), Answer::Failed(FailureCause::LatencyExceeded));
        }
    });
    guard
}

/// The worker of one group or topic.
async fn run(core: Arc<Core>, target: Address) {
    let worker = Worker { core, target };
    let core = &worker.core;
    while let Some(work) = core.fan_out.next(&worker.target) {
        let step = async {
            match work {
                Work::Fresh(fresh, _) => begin(core, *fresh).await,
                Work::Resumed(job) => copies::hand_over(core, &job).await,
            }
        };
        tokio::select! {
            () = step => {}
            () = core.stopped.cancelled() => return,
        }
    }
}

/// Has another worker take over what waits when this one panics.
struct Worker {
    core: Arc<Core>,
    target: Address,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() && lock(&self.core.fan_out.targets).contains_key(&self.target) {
            tracing::error!(target_address = %self.target, "worker of a group or topic panicked, another takes over");
            self.core.tasks.spawn(run(Arc::clone(&self.core), self.target.clone()));
        }
    }
}

/// From a message to its job, and to its copies.
async fn begin(core: &Arc<Core>, fresh: Fresh) {
    let answer_by = fresh.answer_by();
    let Fresh { message, asker, digest, accepted_at } = fresh;
    let asker = Unanswered(core, Some(asker));
    let recipients = resolve::recipients(core, &message);
    let recipients = match answer_by {
        Some(by) => timeout_at(by, recipients).await.unwrap_or(Err(FailureCause::LatencyExceeded)),
        None => recipients.await,
    };
    let members = match recipients {
        Ok(members) => members,
        Err(cause) => return asker.answer(Answer::Failed(cause)),
    };
    // It waited for its turn, and for whoever knows the members.
    if message.expiration_time.is_some_and(|at| at <= OffsetDateTime::now_utc()) {
        return asker.answer(Answer::Failed(FailureCause::Expired));
    }
    let remembered = core.remembered_stored();
    let record = NewFanOutJob {
        target: message.destination.clone(),
        originator: message.originator.clone(),
        message_id: message.message_id.clone(),
        body: message.encode(),
        members: members.clone(),
        expires_at: message.expiration_time,
        report_wanted: message.delivery_status_required,
        storable: message.store_and_forward,
        priority: message.priority,
        deduplication: Some(DeduplicationRecord {
            originator: message.originator.clone(),
            message_id: message.message_id.clone(),
            digest,
            answer: inbox::ANSWER_STORED.to_vec(),
            expires_at: OffsetDateTime::now_utc().saturating_add(remembered.try_into().unwrap_or(time::Duration::MAX)),
        }),
    };
    let started = Instant::now();
    let id = match core.store.put_job(record).await {
        Ok(id) => id,
        Err(error) => {
            if core.log_budget.admits(Topic::NotStored) {
                tracing::warn!(target_address = %message.destination, %error, "message to many not stored");
            }
            return asker.answer(Answer::Failed(inbox::cause_of(&error)));
        }
    };
    core.metrics.store_ended(started.elapsed());
    tracing::debug!(
        job = %id, target_address = %message.destination, originator = %message.originator, members = members.len(),
        "message to many accepted"
    );
    let job = Job::new(id, message, members, core.limits.report_collection(), accepted_at);
    core.fan_out.open(&job);
    asker.answer(Answer::Stored);
    copies::hand_over(core, &job).await;
}

/// Who is told to come again if the worker panics before there is an answer: its repetitions would wait for one for ever.
struct Unanswered<'a>(&'a Arc<Core>, Option<Asker>);

impl Unanswered<'_> {
    fn answer(mut self, answer: Answer) {
        self.0.answer(self.1.take(), answer);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.answer(self.1.take(), Answer::Failed(FailureCause::Overloaded));
        }
    }
}

/// Takes up the jobs on disk, and starts what writes their progress. Registrations are loaded before.
pub(crate) async fn load(core: &Arc<Core>) -> Result<(), StoreError> {
    core.tasks.spawn(ledger::run(Arc::clone(core)));
    let mut after: Option<JobId> = None;
    loop {
        let batch = core.store.jobs(after, JOBS_BATCH).await?;
        let Some(last) = batch.last() else { return Ok(()) };
        after = Some(last.id);
        for record in batch {
            let Ok(UeMessage::Message(message)) = UeMessage::decode(&record.body, &core.stored_limits) else {
                tracing::error!(job = %record.id, "message to many does not decode, removed");
                core.metrics.unreadable(1);
                core.store.remove_job(record.id).await?;
                continue;
            };
            let target = record.target.clone();
            let members_return = Duration::from_secs(core.limits.fan_out_return_seconds);
            let job = Job::resumed(record, *message, core.limits.report_collection(), members_return);
            core.fan_out.metrics.resumed();
            core.fan_out.open(&job);
            // What the store held may be more than may queue.
            FanOut::queue(core, &mut lock(&core.fan_out.targets), &target, Work::Resumed(Arc::clone(&job)));
            core.fan_out.ledger.note(&job);
        }
    }
}

/// Closes jobs that have collected for long enough.
pub(crate) fn sweep(core: &Arc<Core>) {
    let now = Instant::now();
    let due: Vec<_> = lock(&core.fan_out.open).values().filter(|job| job.is_due(now)).cloned().collect();
    for job in due {
        core.fan_out.close(&job);
        job.close();
        core.fan_out.ledger.note(&job);
    }
}

/// Takes the report of a member, unless no job collects it; the answer is given once the report is on disk.
pub(crate) fn take_report(core: &Arc<Core>, report: &DeliveryStatusReport, asker: Asker) -> Result<(), Asker> {
    let found = core.fan_out.find(&report.destination, &report.message_id, &report.originator);
    let Some((job, index)) = found else { return Err(asker) };
    let outcome = match &report.delivery_status {
        ReportDeliveryStatus::Success => Outcome { success: true, cause: report.failure_cause.clone() },
        ReportDeliveryStatus::Failed => Outcome { success: false, cause: report.failure_cause.clone() },
        // A value of a later release says of itself what it means.
        ReportDeliveryStatus::Other(status) => {
            Outcome { success: false, cause: report.failure_cause.clone().or_else(|| Some(status.clone())) }
        }
    };
    match job.reported(core, index, outcome, Waiter::Asker(asker)) {
        Err(Waiter::Asker(asker)) => Err(asker),
        _ => Ok(()),
    }
}

/// Takes the failure of a copy that lay on disk for `member`; false if no job collects it. It is durable when this returns
/// true.
pub(crate) async fn take_failure(
    core: &Arc<Core>,
    originator: &Address,
    message_id: &MessageId,
    member: &Address,
    cause: FailureCause,
) -> bool {
    let Some((job, index)) = core.fan_out.find(originator, message_id, member) else { return false };
    let (sender, durable) = oneshot::channel();
    let outcome = Outcome { success: false, cause: Some(cause.into()) };
    if job.reported(core, index, outcome, Waiter::Task(sender)).is_err() {
        return false;
    }
    tokio::select! {
        durable = durable => durable.unwrap_or(false),
        () = core.stopped.cancelled() => false,
    }
}

/// Has nobody get a copy of a message who has none yet, as its originator wishes: how many those are, once that is on disk.
/// None if it does not get there. What is on its way to a member goes on.
pub(crate) async fn discard(core: &Arc<Core>, originator: &Address, message_id: &MessageId) -> Option<usize> {
    let key = (originator.clone(), message_id.clone());
    let Some(job) = lock(&core.fan_out.open).get(&key).cloned() else { return Some(0) };
    let (sender, durable) = oneshot::channel();
    let discarded = job.discard(Waiter::Task(sender));
    if discarded == 0 {
        return Some(0);
    }
    core.fan_out.ledger.note(&job);
    tokio::select! {
        durable = durable => durable.unwrap_or(false).then_some(discarded),
        () = core.stopped.cancelled() => None,
    }
}

/// Waits for one answer.
#[derive(Debug)]
struct OneAnswer(Mutex<Option<oneshot::Sender<Answer>>>);

impl OneAnswer {
    /// Who is to be asked, and where its answer comes.
    fn asker() -> (Asker, oneshot::Receiver<Answer>) {
        let (sender, answer) = oneshot::channel();
        (Asker::Part(Arc::new(Self(Mutex::new(Some(sender)))), 0), answer)
    }
}

impl Collector for OneAnswer {
    fn ended(&self, _: &Arc<Core>, _: usize, answer: Answer) {
        if let Some(sender) = lock(&self.0).take() {
            drop(sender.send(answer));
        }
    }
}
