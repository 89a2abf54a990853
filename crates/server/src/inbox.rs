//! Store and forward (TS 23.554 clause 8.3.6): what is on disk for a recipient, how it gets there, back, and away.
//!
//! * **In.** A few writers take what pipelines set aside. All of one recipient's goes through one writer, which starts the
//!   store's operation on each in the order handed over; the store numbers them in that order and syncs many at once.
//!   *Stored* is said here, after the store says so, and nowhere else.
//! * **Back.** While a recipient's carrier is there, batches are read ahead of it and acknowledged messages removed behind
//!   it, by one short task per recipient at a time ([`start_disk_work`]).
//! * **Away.** What expires, is refused for good, or loses its recipient is *buried*: if its originator wants reports,
//!   the report is on disk before the message is off it, so that a crash in between repeats the report and loses nothing.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use message::{Address, DeliveryStatusReport, FailureCause, MessageId, Priority, ReportDeliveryStatus, UeMessage};
use store::{DeduplicationRecord, NewStoredMessage, Position, StoreError, StoredKind, StoredMessage};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::delivery::{Answer, Asker, Batch, Delivery, DiskWork, Failed, Fetch, Kind};
use crate::fan_out;
use crate::log_budget::Topic;
use crate::registry::{Party, PartyState};
use crate::sync::lock;

/// What [`DeduplicationRecord::answer`] says; nothing else is ever remembered on disk.
pub(crate) const ANSWER_STORED: &[u8] = b"DELY_STORED";

const WRITERS: usize = 2;

/// Messages of one writer that wait for the disk at once.
const WRITES_MAX: usize = 2048;

/// Pause after the store failed to read or remove, before it is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Messages buried at once, and read from disk at once to be buried.
const BURIALS_MAX: usize = 64;
const BURIAL_BATCH: usize = 1024;

/// Attempts to put a report on disk before it counts as lost.
const REPORT_ATTEMPTS: u32 = 5;

#[derive(Debug)]
struct StoreJob {
    party: Arc<Party>,
    delivery: Delivery,
}

/// The way in.
#[derive(Debug)]
pub(crate) struct Inbox {
    writers: Box<[mpsc::Sender<StoreJob>]>,
    hasher: RandomState,
}

/// The other end of [`Inbox`], to be run by [`Writers::run`].
#[derive(Debug)]
pub(crate) struct Writers(Vec<mpsc::Receiver<StoreJob>>);

impl Inbox {
    pub(crate) fn new(queue_max: usize) -> (Self, Writers) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..WRITERS).map(|_| mpsc::channel(queue_max)).unzip();
        (Self { writers: senders.into(), hasher: RandomState::new() }, Writers(receivers))
    }

    /// Hands a delivery for `party` to its writer. It comes back if the writer has too much to do.
    pub(crate) fn submit(&self, party: &Arc<Party>, delivery: Delivery) -> Option<Delivery> {
        let index = usize::try_from(self.hasher.hash_one(&party.address) % WRITERS as u64).unwrap_or(0);
        let job = StoreJob { party: Arc::clone(party), delivery };
        match self.writers.get(index) {
            Some(writer) => writer.try_send(job).err().map(|refused| refused.into_inner().delivery),
            None => Some(job.delivery),
        }
    }

    /// Messages that wait for their writer.
    pub(crate) fn queued(&self) -> usize {
        self.writers.iter().map(|writer| writer.max_capacity() - writer.capacity()).sum()
    }
}

impl Writers {
    /// Starts the writers; they end when `stop` is cancelled.
    pub(crate) fn run(self, core: &Arc<Core>, stop: &CancellationToken) {
        for jobs in self.0 {
            core.tasks.spawn(write(Arc::clone(core), jobs, stop.clone()));
        }
    }
}

async fn write(core: Arc<Core>, mut jobs: mpsc::Receiver<StoreJob>, stop: CancellationToken) {
    // First polled in the order pushed, and the store takes a message in at the first poll.
    let mut writes = FuturesUnordered::new();
    loop {
        tokio::select! {
            job = jobs.recv(), if writes.len() < WRITES_MAX => match job {
                Some(job) => writes.push(store_one(&core, job)),
                None => return,
            },
            Some(()) = writes.next(), if !writes.is_empty() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn store_one(core: &Arc<Core>, job: StoreJob) {
    let StoreJob { party, delivery } = job;
    let started = Instant::now();
    // Asked at the first poll, at which the one before has been taken by the store, or refused for want of room.
    let may_store = match &delivery.asker {
        Some(Asker::Part(collector, index)) => collector.may_store(core, *index),
        _ => true,
    };
    let result = match may_store {
        true => core.store.store_message(stored_form(core, &party.address, &delivery)).await,
        false => Err(StoreError::Overloaded),
    };
    let answer = match &result {
        Ok(_) => Answer::Stored,
        Err(error) => {
            if may_store && core.log_budget.admits(Topic::NotStored) {
                tracing::warn!(recipient = %party.address, %error, "message not stored");
            }
            Answer::Failed(cause_of(error))
        }
    };
    core.metrics.store_ended(started.elapsed());
    let (urgent, expires_at) = (delivery.priority == Priority::High, delivery.expires_at);
    {
        let mut guard = lock(&party.state);
        let state = &mut *guard;
        state.pipeline().store_ended(delivery.priority, result.is_ok());
        start_disk_work(core, &party, state);
        if state.gone && result.is_ok() {
            spawn_clearing(core, party.address.clone());
        }
        if let Some(carrier) = &state.carrier {
            carrier.knock();
        }
    }
    if result.is_ok() {
        core.wake_up(&party, urgent, expires_at);
    }
    core.answer(delivery.asker, answer);
}

fn stored_form(core: &Core, recipient: &Address, delivery: &Delivery) -> NewStoredMessage {
    let remembered = time::Duration::seconds(i64::try_from(core.limits.remembered_stored_seconds).unwrap_or(i64::MAX));
    let digest = delivery.asker.as_ref().filter(|_| delivery.kind == Kind::Message).and_then(|asker| match asker {
        Asker::Sender { party, key } => lock(&party.recent).digest(*key),
        Asker::Part(..) => None,
    });
    NewStoredMessage {
        recipient: recipient.clone(),
        originator: Some(delivery.originator.clone()),
        message_id: (delivery.kind == Kind::Message).then(|| delivery.message_id.clone()),
        priority: delivery.priority,
        expires_at: delivery.expires_at,
        kind: match delivery.kind {
            Kind::Message => StoredKind::Message,
            Kind::Report | Kind::Notice => StoredKind::DeliveryStatusReport,
        },
        body: delivery.body.to_vec(),
        deduplication: digest.map(|digest| DeduplicationRecord {
            originator: delivery.originator.clone(),
            message_id: delivery.record_name().clone(),
            digest,
            answer: ANSWER_STORED.to_vec(),
            expires_at: OffsetDateTime::now_utc().saturating_add(remembered),
        }),
    }
}

/// What a sender is told when the store does not take its message.
pub(crate) fn cause_of(error: &StoreError) -> FailureCause {
    match error {
        StoreError::RecipientFull | StoreError::OriginatorFull { .. } => FailureCause::TooMany,
        StoreError::Overloaded | StoreError::Full { .. } => FailureCause::Overloaded,
        StoreError::TooLarge => FailureCause::PayloadTooLarge,
        _ => FailureCause::StorageFailed,
    }
}

/// Starts reading ahead or removing behind, if the pipeline wants either and nobody is at it. The party's lock is held.
pub(crate) fn start_disk_work(core: &Arc<Core>, party: &Arc<Party>, state: &mut PartyState) {
    if let Some(work) = state.pipeline_if_any().and_then(|pipeline| pipeline.disk_work()) {
        core.tasks.spawn(do_disk_work(Arc::clone(core), Arc::clone(party), work));
    }
}

async fn do_disk_work(core: Arc<Core>, party: Arc<Party>, mut work: DiskWork) {
    loop {
        let (removed, batch) = tokio::join!(remove(&core, &party, work.remove), read(&core, &party, work.fetch));
        let failed = !removed || (work.fetch.is_some() && batch.is_none());
        if failed {
            sleep(RETRY_PAUSE).await;
        }
        let mut state = lock(&party.state);
        let Some(pipeline) = state.pipeline_if_any() else { return };
        pipeline.disk_done(removed, work.fetch, batch);
        let next = pipeline.disk_work().filter(|_| !core.stopped.is_cancelled());
        if let Some(carrier) = &state.carrier {
            carrier.knock();
        }
        match next {
            Some(next) => work = next,
            None => return,
        }
    }
}

async fn remove(core: &Core, party: &Party, positions: Vec<Position>) -> bool {
    if positions.is_empty() {
        return true;
    }
    let result = core.store.remove_messages(&party.address, positions).await;
    if let Err(error) = &result {
        tracing::error!(recipient = %party.address, %error, "delivered messages not removed from disk");
    }
    result.is_ok()
}

async fn read(core: &Core, party: &Party, fetch: Option<Fetch>) -> Option<Batch> {
    let fetch = fetch?;
    let stored = match core.store.pending(&party.address, fetch.after, fetch.limit).await {
        Ok(stored) => stored,
        Err(error) => {
            tracing::error!(recipient = %party.address, %error, "inbox not read");
            return None;
        }
    };
    let is_last = stored.len() < fetch.limit;
    let mut deliveries = Vec::with_capacity(stored.len());
    let mut unreadable = Vec::new();
    for message in stored {
        let position = message.position;
        match delivery_of(core, message) {
            Some(delivery) => deliveries.push(delivery),
            None => unreadable.push(position),
        }
    }
    if !unreadable.is_empty() {
        tracing::error!(recipient = %party.address, count = unreadable.len(), "stored messages do not decode, removed");
        core.metrics.unreadable(unreadable.len());
        remove(core, party, unreadable).await;
    }
    Some(Batch { deliveries, is_last })
}

/// What was put on disk by this server is read back; None is a damaged disk, or an older version's coding.
fn delivery_of(core: &Core, stored: StoredMessage) -> Option<Delivery> {
    let mut delivery = match UeMessage::decode(&stored.body, &core.stored_limits).ok()? {
        UeMessage::Message(message) => {
            let mut delivery = Delivery::message(&message, Bytes::from(stored.body), None);
            if let Some(expires_at) = stored.expires_at.filter(|at| differ(message.expiration_time, *at)) {
                delivery.renew(expires_at);
            }
            delivery
        }
        UeMessage::DeliveryStatusReport(report) => {
            let expires_at = stored.expires_at?;
            Delivery::report(report.originator, report.message_id, Bytes::from(stored.body), expires_at, None)
        }
        UeMessage::AggregatedReport(aggregated) => {
            let (expires_at, first) = (stored.expires_at?, aggregated.reports.first()?);
            let message_id = first.message_id.clone();
            Delivery::report(aggregated.originator, message_id, Bytes::from(stored.body), expires_at, None)
        }
        _ => return None,
    };
    delivery.priority = stored.position.priority();
    delivery.storable = true;
    // Its sender was answered.
    delivery.answer_by = None;
    delivery.expires_at = stored.expires_at;
    delivery.position = Some(stored.position);
    Some(delivery)
}

/// Whether a message got another expiry while it was stored. What the store keeps is rounded.
fn differ(said: Option<OffsetDateTime>, kept: OffsetDateTime) -> bool {
    said.is_none_or(|said| (said - kept).abs() >= time::Duration::MILLISECOND)
}

fn failed_of(core: &Core, stored: &StoredMessage, cause: FailureCause) -> Option<Failed> {
    let (kind, originator, message_id, report_wanted) = match UeMessage::decode(&stored.body, &core.stored_limits) {
        Ok(UeMessage::Message(message)) => {
            (Kind::Message, message.originator, message.message_id, message.delivery_status_required)
        }
        Ok(UeMessage::DeliveryStatusReport(report)) => (Kind::Report, report.originator, report.message_id, false),
        Ok(UeMessage::AggregatedReport(aggregated)) => {
            (Kind::Report, aggregated.originator, aggregated.reports.first()?.message_id.clone(), false)
        }
        _ => return None,
    };
    Some(Failed { kind, originator, message_id, report_wanted, position: stored.position, cause })
}

/// Buries one message whose pipeline has set it apart.
pub(crate) fn spawn_burial(core: &Arc<Core>, party: &Arc<Party>, failed: Failed) {
    let (core, party) = (Arc::clone(core), Arc::clone(party));
    core.tasks.clone().spawn(async move {
        bury(&core, &party.address, &failed).await;
        if let Some(pipeline) = lock(&party.state).pipeline_if_any() {
            pipeline.buried(failed.position);
        }
    });
}

/// Reports a failed message to its originator if that wants it, then takes it off the disk.
async fn bury(core: &Arc<Core>, recipient: &Address, failed: &Failed) {
    core.metrics.buried(failed.cause);
    tracing::info!(
        recipient = %recipient, originator = %failed.originator, message_id = %failed.message_id,
        cause = %failed.cause, "stored message failed"
    );
    if failed.kind == Kind::Message && failed.report_wanted {
        // A copy of a message to many is reported with the others.
        let taken = fan_out::take_failure(core, &failed.originator, &failed.message_id, recipient, failed.cause).await;
        if !taken {
            report_failure(core, recipient, &failed.originator, &failed.message_id, failed.cause).await;
        }
    }
    while let Err(error) = core.store.remove_messages(recipient, vec![failed.position]).await {
        tracing::error!(%recipient, %error, "failed message not removed from disk");
        if core.stopped.is_cancelled() {
            return;
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Puts a report on disk for the originator, whether it is there or not: on disk it survives whatever comes next.
pub(crate) async fn report_failure(
    core: &Arc<Core>,
    recipient: &Address,
    originator: &Address,
    message_id: &MessageId,
    cause: FailureCause,
) {
    let Some(party) = core.registry.find(originator) else {
        tracing::info!(%originator, "nobody left to report a failure to");
        return core.metrics.report_lost();
    };
    let report = DeliveryStatusReport {
        originator: recipient.clone(),
        destination: originator.clone(),
        message_id: message_id.clone(),
        delivery_status: ReportDeliveryStatus::Failed,
        failure_cause: Some(cause.into()),
    };
    let stored = NewStoredMessage {
        recipient: originator.clone(),
        originator: None,
        message_id: None,
        priority: Priority::default(),
        expires_at: Some(OffsetDateTime::now_utc().saturating_add(core.expiry_default())),
        kind: StoredKind::DeliveryStatusReport,
        body: report.encode(),
        deduplication: None,
    };
    for _ in 0..REPORT_ATTEMPTS {
        match core.store.store_message(stored.clone()).await {
            Ok(_) => return found_on_disk(core, &party),
            // It does not get room by being waited for, and others wait to be buried.
            Err(StoreError::RecipientFull) => break,
            Err(error) => tracing::warn!(%originator, %error, "failure report not stored"),
        }
        sleep(RETRY_PAUSE).await;
    }
    tracing::warn!(%originator, %message_id, "failure report lost");
    core.metrics.report_lost();
}

/// Buries everything on disk for a recipient that is no more. Its turn among registrations is held meanwhile, so that what
/// was for the one is not delivered to the next of the same name.
pub(crate) async fn clear(core: &Arc<Core>, recipient: &Address) {
    while !core.stopped.is_cancelled() {
        match core.store.pending(recipient, None, BURIAL_BATCH).await {
            Ok(batch) if batch.is_empty() => return,
            Ok(batch) => bury_batch(core, batch, FailureCause::UnknownTarget).await,
            Err(error) => {
                tracing::error!(%recipient, %error, "inbox of a deregistered recipient not read");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Clears what is on disk for nobody, unless somebody registers under the name first, who then gets it.
pub(crate) fn spawn_clearing(core: &Arc<Core>, recipient: Address) {
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        let _turn = core.registering(&recipient).await;
        match core.registry.find(&recipient) {
            Some(party) => found_on_disk(&core, &party),
            None => clear(&core, &recipient).await,
        }
    });
}

/// Says that there may be messages on disk that the party's pipeline does not know of.
pub(crate) fn found_on_disk(core: &Arc<Core>, party: &Arc<Party>) {
    let mut guard = lock(&party.state);
    let state = &mut *guard;
    state.pipeline().stored_beside();
    start_disk_work(core, party, state);
}

/// Buries what is past its time.
pub(crate) async fn sweep_expired(core: &Arc<Core>) {
    let now = OffsetDateTime::now_utc();
    loop {
        // Between the read and the claim nobody gives them another expiry.
        let no_renewal = core.renewals.write().await;
        let batch = match core.store.expired(now, BURIAL_BATCH).await {
            Ok(batch) => batch,
            Err(error) => return tracing::error!(%error, "expired messages not read"),
        };
        let full = batch.len() >= BURIAL_BATCH;
        let claimed: Vec<_> = batch.into_iter().filter(|stored| claim(core, stored)).collect();
        drop(no_renewal);
        if claimed.is_empty() {
            return;
        }
        let positions: Vec<_> = claimed.iter().map(|stored| (stored.recipient.clone(), stored.position)).collect();
        bury_batch(core, claimed, FailureCause::Expired).await;
        for (recipient, position) in positions {
            if let Some(party) = core.registry.find(&recipient)
                && let Some(pipeline) = lock(&party.state).pipeline_if_any()
            {
                pipeline.buried(position);
            }
        }
        if !full {
            return;
        }
    }
}

fn claim(core: &Core, stored: &StoredMessage) -> bool {
    let Some(party) = core.registry.find(&stored.recipient) else { return true };
    lock(&party.state).pipeline().claim(stored.position)
}

async fn bury_batch(core: &Arc<Core>, batch: Vec<StoredMessage>, cause: FailureCause) {
    stream::iter(batch)
        .for_each_concurrent(BURIALS_MAX, |stored| async move {
            match failed_of(core, &stored, cause) {
                Some(failed) => bury(core, &stored.recipient, &failed).await,
                None => {
                    core.metrics.unreadable(1);
                    let _ = core.store.remove_messages(&stored.recipient, vec![stored.position]).await;
                }
            }
        })
        .await;
}
