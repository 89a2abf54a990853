//! One job: what is known of each member's copy.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use message::{Address, FailureCause, Message, MessageId};
use store::{FanOutJob, JobId, MemberState};
use time::OffsetDateTime;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::{FanOut, RETRY_PAUSE, RETRY_PAUSE_MAX, Work};
use crate::core::Core;
use crate::delivery::{Answer, Asker, Collector};
use crate::sync::lock;

/// A message to many, from its acceptance until nothing is left to do for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) id: JobId,
    pub(super) target: Address,
    pub(super) originator: Address,
    pub(super) message_id: MessageId,
    pub(super) report_wanted: bool,
    storable: bool,
    expires_at: Option<OffsetDateTime>,
    closes_at: Instant,
    /// In the order of addresses.
    members: Vec<Address>,
    state: Mutex<State>,
    /// Copies were answered.
    answered: Notify,
}

#[derive(Debug)]
struct State {
    /// Kept while a copy may still have to be made.
    message: Option<Arc<Message>>,
    fates: Vec<Fate>,
    /// Goes up when those who have not answered are waited for no more.
    round: u32,
    /// Copies of this round without an answer.
    round_open: usize,
    /// Members without a copy, or whose copy has no answer.
    unanswered: usize,
    /// Members for whom something is left to do.
    unsettled: usize,
    /// Copies are to be tried again, and that is queued.
    again: bool,
    /// How often in a row that was so without any copy having found room.
    tries: u32,
    /// No more reports are collected.
    closed: bool,
    /// Its originator wants nobody to get it any more.
    discarded: bool,
    /// It is on its way off the disk.
    over: bool,
    /// Durable and not yet told.
    untold: Vec<usize>,
    telling: Telling,
    progress: Vec<(u32, MemberState)>,
    waiters: Vec<Waiter>,
    /// The ledger has it, or is to get it.
    noted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    /// Handed to the member's pipeline, in this round.
    UnderWay(u32),
    HandedOver,
    Reported(Outcome),
    /// Nothing is left to do.
    Settled,
}

/// What became of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) cause: Option<String>,
}

/// Who waits until a report is on disk.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A member's request.
    Asker(Asker),
    /// A task of the server.
    Task(oneshot::Sender<bool>),
}

impl Waiter {
    pub(super) fn tell(self, core: &Arc<Core>, durable: bool) {
        match self {
            Self::Asker(asker) => {
                let answer = if durable { Answer::Stored } else { Answer::Failed(FailureCause::StorageFailed) };
                core.answer(Some(asker), answer);
            }
            Self::Task(sender) => drop(sender.send(durable)),
        }
    }
}

/// Whether the originator is being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    No,
    /// When the time for it has come.
    Scheduled,
    /// There was no room for it: again after a pause, whatever comes meanwhile.
    Postponed,
    UnderWay,
}

/// What is to be written of a job.
pub(super) enum ToSave {
    /// Nothing now.
    Nothing,
    /// This, and then these are told.
    Progress(Vec<(u32, MemberState)>, Vec<Waiter>),
    /// The job is over.
    Removal(Vec<Waiter>),
}

/// When the originator is to be told what is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Now,
    Later,
    Not,
}

impl Job {
    /// A job of which nothing is done yet. `members` are in order, each once.
    pub(super) fn new(id: JobId, message: Message, members: Vec<Address>, collection: Duration) -> Arc<Self> {
        let fates = vec![Fate::Waiting; members.len()];
        Self::with(id, message, members, fates, collection)
    }

    /// A job as it was on disk.
    pub(super) fn resumed(record: FanOutJob, message: Message, collection: Duration) -> Arc<Self> {
        let fates = record.states.into_iter().map(|state| match state {
            MemberState::Waiting => Fate::Waiting,
            MemberState::HandedOver if message.delivery_status_required => Fate::HandedOver,
            MemberState::Reported { success, cause } if message.delivery_status_required => {
                Fate::Reported(Outcome { success, cause })
            }
            _ => Fate::Settled,
        });
        let fates = fates.collect();
        Self::with(record.id, message, record.members, fates, collection)
    }

    fn with(id: JobId, message: Message, members: Vec<Address>, fates: Vec<Fate>, collection: Duration) -> Arc<Self> {
        let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
        let unanswered = count(|fate| matches!(fate, Fate::Waiting));
        let unsettled = count(|fate| !matches!(fate, Fate::Settled));
        let untold = fates.iter().enumerate().filter(|(_, fate)| matches!(fate, Fate::Reported(_)));
        let untold = untold.map(|(index, _)| index).collect();
        Arc::new(Self {
            id,
            target: message.destination.clone(),
            originator: message.originator.clone(),
            message_id: message.message_id.clone(),
            report_wanted: message.delivery_status_required,
            storable: message.store_and_forward,
            expires_at: message.expiration_time,
            closes_at: Instant::now() + collection,
            members,
            state: Mutex::new(State {
                message: (unanswered > 0).then(|| Arc::new(message)),
                fates,
                round: 0,
                round_open: 0,
                unanswered,
                unsettled,
                again: false,
                tries: 0,
                closed: false,
                discarded: false,
                over: false,
                untold,
                telling: Telling::No,
                progress: Vec::new(),
                waiters: Vec::new(),
                noted: false,
            }),
            answered: Notify::new(),
        })
    }

    pub(super) fn member(&self, index: usize) -> Option<&Address> {
        self.members.get(index)
    }

    pub(super) fn index_of(&self, member: &Address) -> Option<usize> {
        self.members.binary_search(member).ok()
    }

    /// Whether reports of members are for this job.
    pub(super) fn collects(&self) -> bool {
        self.report_wanted && !lock(&self.state).closed
    }

    /// Whether it has collected for long enough, and every copy has its answer.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.closes_at <= now && lock(&self.state).unanswered == 0
    }

    /// No more reports are collected: whoever was handed a copy is not waited for.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for index in 0..state.fates.len() {
            if state.fates.get(index) == Some(&Fate::HandedOver) {
                state.settle(index);
            }
        }
    }

    pub(super) fn is_expired(&self, now: OffsetDateTime) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// What fails for want of room from now on is to be queued again, and nothing from before is waited for.
    pub(super) fn copies_begin(&self) {
        let mut state = lock(&self.state);
        state.again = false;
        state.round = state.round.wrapping_add(1);
        state.round_open = 0;
    }

    /// The next members to get a copy, from the place `cursor` on, as many as `window` leaves room for; and the message.
    pub(super) fn next_copies(&self, cursor: &mut usize, window: usize) -> Option<(Arc<Message>, Vec<usize>)> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let message = state.message.clone()?;
        let mut indexes = Vec::new();
        while indexes.len() + state.round_open < window
            && let Some(fate) = state.fates.get_mut(*cursor)
        {
            if *fate == Fate::Waiting {
                *fate = Fate::UnderWay(state.round);
                indexes.push(*cursor);
            }
            *cursor += 1;
        }
        state.round_open += indexes.len();
        (!indexes.is_empty()).then_some((message, indexes))
    }

    /// Waits until no more than so many copies are without an answer. Who has not answered after `patience` is waited for
    /// no more.
    pub(super) async fn room(&self, open_max: usize, patience: Duration) {
        let answered = async {
            while lock(&self.state).round_open > open_max {
                self.answered.notified().await;
            }
        };
        if timeout(patience, answered).await.is_err() {
            let mut state = lock(&self.state);
            state.round = state.round.wrapping_add(1);
            state.round_open = 0;
        }
    }

    /// Whether somebody from the place `cursor` on waits for a copy.
    pub(super) fn has_more(&self, cursor: usize) -> bool {
        lock(&self.state).fates.iter().skip(cursor).any(|fate| *fate == Fate::Waiting)
    }

    /// A member reported, or its copy failed on disk. Of two about one member the first counts. The waiter comes back if the
    /// job does not collect any more.
    pub(crate) fn reported(
        self: &Arc<Self>,
        core: &Arc<Core>,
        index: usize,
        outcome: Outcome,
        waiter: Waiter,
    ) -> Result<(), Waiter> {
        self.take_report(index, outcome, waiter)?;
        core.fan_out.ledger.note(self);
        Ok(())
    }

    fn take_report(&self, index: usize, outcome: Outcome, waiter: Waiter) -> Result<(), Waiter> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.closed || state.over {
            return Err(waiter);
        }
        state.waiters.push(waiter);
        match state.fates.get(index) {
            Some(Fate::HandedOver) => state.report(index, outcome),
            // Its acknowledgement is on its way to us, or was lost with a connection.
            Some(Fate::Waiting | Fate::UnderWay(_)) => {
                self.answered(state, index);
                state.report(index, outcome);
            }
            Some(Fate::Reported(_) | Fate::Settled) | None => {}
        }
        Ok(())
    }

    /// Nobody gets a copy any more who has none: how many those are. With some, the waiter is told once that is on disk.
    pub(super) fn discard(&self, waiter: Waiter) -> usize {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.over {
            return 0;
        }
        let mut discarded = 0;
        for index in 0..state.fates.len() {
            if state.fates.get(index) == Some(&Fate::Waiting) {
                discarded += 1;
                self.answered(state, index);
                match self.report_wanted {
                    true => {
                        state.report(index, Outcome { success: false, cause: Some(FailureCause::Discarded.into()) })
                    }
                    false => state.settle(index),
                }
            }
        }
        if discarded > 0 {
            state.discarded = true;
            state.waiters.push(waiter);
        }
        discarded
    }

    /// A copy is not waited for any more.
    fn answered(&self, state: &mut State, index: usize) {
        state.unanswered = state.unanswered.saturating_sub(1);
        if let Some(Fate::UnderWay(round)) = state.fates.get(index) {
            let round = *round;
            self.round_shrank(state, round);
        }
        if state.unanswered == 0 {
            state.message = None;
        }
    }

    fn round_shrank(&self, state: &mut State, round: u32) {
        if round == state.round {
            state.round_open = state.round_open.saturating_sub(1);
            self.answered.notify_one();
        }
    }

    /// Enters the job among those to be saved; false if it is there.
    pub(super) fn note(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).noted, true)
    }

    /// What is to be written now. With nothing, it leaves the ledger.
    pub(super) fn to_save(&self) -> ToSave {
        let mut state = lock(&self.state);
        if state.unsettled == 0 && state.unanswered == 0 {
            state.progress.clear();
            state.over = true;
            return ToSave::Removal(std::mem::take(&mut state.waiters));
        }
        if state.progress.is_empty() && state.waiters.is_empty() {
            state.noted = false;
            return ToSave::Nothing;
        }
        let progress = std::mem::take(&mut state.progress);
        ToSave::Progress(progress, std::mem::take(&mut state.waiters))
    }

    /// What was to be written is on disk.
    pub(super) fn saved(&self, progress: &[(u32, MemberState)]) {
        let mut state = lock(&self.state);
        for (index, saved) in progress {
            if matches!(saved, MemberState::Reported { .. })
                && let Ok(index) = usize::try_from(*index)
            {
                state.untold.push(index);
            }
        }
    }

    /// It is not, and is to be written with what came meanwhile.
    pub(super) fn not_saved(&self, mut progress: Vec<(u32, MemberState)>) {
        let mut state = lock(&self.state);
        progress.append(&mut state.progress);
        state.progress = progress;
    }

    /// Whether the originator is to be told now, or a while from now.
    pub(super) fn when_to_tell(&self) -> Tell {
        let mut state = lock(&self.state);
        if state.untold.is_empty() || matches!(state.telling, Telling::UnderWay | Telling::Postponed) {
            return Tell::Not;
        }
        if state.closed || state.untold.len() == state.unsettled {
            state.telling = Telling::UnderWay;
            return Tell::Now;
        }
        if state.telling == Telling::Scheduled {
            return Tell::Not;
        }
        state.telling = Telling::Scheduled;
        Tell::Later
    }

    /// The time to tell has come; false if somebody else is at it.
    pub(super) fn time_to_tell(&self) -> bool {
        let mut state = lock(&self.state);
        let due = matches!(state.telling, Telling::Scheduled | Telling::Postponed) && !state.untold.is_empty();
        if due {
            state.telling = Telling::UnderWay;
        }
        due
    }

    /// What is to be told: it stays untold until [`Job::told`].
    pub(super) fn untold(&self) -> Vec<(usize, Outcome)> {
        let state = lock(&self.state);
        let outcome = |index: &usize| match state.fates.get(*index) {
            Some(Fate::Reported(outcome)) => Some((*index, outcome.clone())),
            _ => None,
        };
        state.untold.iter().filter_map(outcome).collect()
    }

    /// The originator knows of these, or never will.
    pub(super) fn told(&self, indexes: &[usize]) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let told: std::collections::HashSet<_> = indexes.iter().copied().collect();
        state.untold.retain(|index| !told.contains(index));
        for index in indexes {
            if matches!(state.fates.get(*index), Some(Fate::Reported(_))) {
                state.settle(*index);
            }
        }
    }

    /// Telling is over for now.
    pub(super) fn telling_ended(&self, again_later: bool) {
        lock(&self.state).telling = if again_later { Telling::Postponed } else { Telling::No };
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }
}

impl State {
    fn note_progress(&mut self, index: usize, state: MemberState) {
        // The store bounds the members of a job to far less.
        if let Ok(index) = u32::try_from(index) {
            self.progress.push((index, state));
        }
    }

    fn settle(&mut self, index: usize) {
        if let Some(fate) = self.fates.get_mut(index) {
            *fate = Fate::Settled;
            self.unsettled = self.unsettled.saturating_sub(1);
            self.note_progress(index, MemberState::Settled);
        }
    }

    fn report(&mut self, index: usize, outcome: Outcome) {
        let state = MemberState::Reported { success: outcome.success, cause: outcome.cause.clone() };
        if let Some(fate) = self.fates.get_mut(index) {
            *fate = Fate::Reported(outcome);
            self.note_progress(index, state);
        }
    }
}

/// Takes the answers to a job's copies.
#[derive(Debug)]
pub(super) struct Copies(pub(super) Arc<Job>);

impl Collector for Copies {
    fn ended(&self, core: &Arc<Core>, index: usize, answer: Answer) {
        core.fan_out.metrics.copy(&answer);
        self.0.copy_ended(core, index, answer);
    }
}

/// What follows from the answer to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Nothing.
    Nothing,
    /// The copies that wait are to be handed over again, later.
    Again,
    /// There is something to write.
    Save,
}

impl Job {
    fn copy_ended(self: &Arc<Self>, core: &Arc<Core>, index: usize, answer: Answer) {
        if answer == Answer::Stored && lock(&self.state).discarded {
            // It was on its way to disk when the others were discarded.
            core.discard_late(&self.originator, &self.message_id);
        }
        match self.copy_answered(index, &answer, OffsetDateTime::now_utc()) {
            After::Nothing => {}
            After::Again => self.try_again(core),
            After::Save => core.fan_out.ledger.note(self),
        }
    }

    /// Queues the copies that wait, after a pause in which the target's worker goes on with others.
    fn try_again(self: &Arc<Self>, core: &Arc<Core>) {
        let (core, job) = (Arc::clone(core), Arc::clone(self));
        let pause = retry_pause(lock(&self.state).tries);
        core.tasks.clone().spawn(async move {
            tokio::select! {
                () = sleep(pause) => {
                    FanOut::queue(&core, &job.target, Work::Again(Arc::clone(&job)), usize::MAX);
                }
                () = core.stopped.cancelled() => {}
            }
        });
    }

    /// The fate of a copy.
    fn copy_answered(&self, index: usize, answer: &Answer, utc: OffsetDateTime) -> After {
        let no_room = match answer {
            Answer::Failed(FailureCause::Overloaded | FailureCause::StorageFailed | FailureCause::Stopping) => true,
            // The recipient's share of the disk, or the originator's, is full. Its sender was told that it is safe.
            Answer::Failed(FailureCause::TooMany) => self.storable,
            _ => false,
        };
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(Fate::UnderWay(round)) = state.fates.get(index) else { return After::Nothing };
        let round = *round;
        if no_room && !state.discarded && !self.is_expired(utc) {
            self.round_shrank(state, round);
            if let Some(fate) = state.fates.get_mut(index) {
                *fate = Fate::Waiting;
            }
            if std::mem::replace(&mut state.again, true) {
                return After::Nothing;
            }
            state.tries = state.tries.saturating_add(1);
            return After::Again;
        }
        if !matches!(answer, Answer::Failed(_)) {
            state.tries = 0;
        }
        self.answered(state, index);
        match answer {
            _ if !self.report_wanted => state.settle(index),
            Answer::Failed(cause) => {
                let cause = if no_room && state.discarded { FailureCause::Discarded } else { *cause };
                state.report(index, Outcome { success: false, cause: Some(cause.into()) });
            }
            _ if state.closed => state.settle(index),
            _ => {
                if let Some(fate) = state.fates.get_mut(index) {
                    *fate = Fate::HandedOver;
                }
                state.note_progress(index, MemberState::HandedOver);
            }
        }
        After::Save
    }
}

/// The pause before a job's copies are tried the so-many-th time: twice as long each time, up to [`RETRY_PAUSE_MAX`].
fn retry_pause(tries: u32) -> Duration {
    let factor = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    RETRY_PAUSE.saturating_mul(factor).min(RETRY_PAUSE_MAX)
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
