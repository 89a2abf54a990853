//! One job: what is known of each member's copy.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use message::{Address, FailureCause, Message, MessageId, Priority};
use store::{FanOutJob, JobId, MemberState};
use time::OffsetDateTime;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::lines;
use crate::core::Core;
use crate::delivery::{Answer, Asker, Collector};
use crate::limits::Limits;
use crate::sync::lock;

/// What a copy takes beside its payload, about.
const COPY_OCTETS: usize = 1024;

/// A message to many, from its acceptance until nothing is left to do for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) id: JobId,
    pub(super) target: Address,
    pub(super) originator: Address,
    pub(super) message_id: MessageId,
    pub(super) priority: Priority,
    pub(super) report_wanted: bool,
    /// After a restart: when it was read back.
    pub(super) accepted_at: Instant,
    storable: bool,
    expires_at: Option<OffsetDateTime>,
    closes_at: Instant,
    /// Until then a copy that may not be stored waits for a member that is away: after a restart all of them are.
    members_return_by: Option<Instant>,
    /// What a copy takes in memory, about.
    copy_octets: usize,
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
    /// Copies of this round without an answer, for members that were there.
    there_open: usize,
    /// The same for members that were away.
    away_open: usize,
    /// Members without a copy, or whose copy has no answer.
    unanswered: usize,
    /// Members for whom something is left to do.
    unsettled: usize,
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
    /// For its turn, or in line.
    Waiting,
    /// Handed to the member's pipeline, in this round.
    UnderWay(Way, u32),
    HandedOver,
    Reported(Outcome),
    /// Nothing is left to do.
    Settled,
}

/// Where a copy under way counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Among those that wait in memory for a member that is there.
    There,
    /// Among those on their way to the disk.
    Away,
    /// Nowhere: it was in line.
    Apart,
}

/// So many copies of one message without an answer make its worker wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    there: usize,
    away: usize,
}

impl Windows {
    pub(super) fn of(limits: &Limits, job: &Job) -> Self {
        Self { there: (limits.fan_out_octets_max / job.copy_octets).max(1), away: limits.fan_out_window }
    }
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
    pub(super) fn new(
        id: JobId,
        message: Message,
        members: Vec<Address>,
        collection: Duration,
        accepted_at: Instant,
    ) -> Arc<Self> {
        let fates = vec![Fate::Waiting; members.len()];
        Arc::new(Self::with(id, message, members, fates, collection, accepted_at))
    }

    /// A job as it was on disk. Its members are given so long to return.
    pub(super) fn resumed(
        record: FanOutJob,
        message: Message,
        collection: Duration,
        members_return: Duration,
    ) -> Arc<Self> {
        let fates = record.states.into_iter().map(|state| match state {
            MemberState::Waiting => Fate::Waiting,
            MemberState::HandedOver if message.delivery_status_required => Fate::HandedOver,
            MemberState::Reported { success, cause } if message.delivery_status_required => {
                Fate::Reported(Outcome { success, cause })
            }
            _ => Fate::Settled,
        });
        let fates = fates.collect();
        let now = Instant::now();
        let job = Self::with(record.id, message, record.members, fates, collection, now);
        Arc::new(Self { members_return_by: Some(now + members_return), ..job })
    }

    fn with(
        id: JobId,
        message: Message,
        members: Vec<Address>,
        fates: Vec<Fate>,
        collection: Duration,
        accepted_at: Instant,
    ) -> Self {
        let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
        let unanswered = count(|fate| matches!(fate, Fate::Waiting));
        let unsettled = count(|fate| !matches!(fate, Fate::Settled));
        let untold = fates.iter().enumerate().filter(|(_, fate)| matches!(fate, Fate::Reported(_)));
        let untold = untold.map(|(index, _)| index).collect();
        Self {
            id,
            target: message.destination.clone(),
            originator: message.originator.clone(),
            message_id: message.message_id.clone(),
            priority: message.priority,
            report_wanted: message.delivery_status_required,
            accepted_at,
            storable: message.store_and_forward,
            expires_at: message.expiration_time,
            closes_at: Instant::now() + collection,
            members_return_by: None,
            copy_octets: COPY_OCTETS + message.payload.len() / 3 * 4,
            members,
            state: Mutex::new(State {
                message: (unanswered > 0).then(|| Arc::new(message)),
                fates,
                round: 0,
                there_open: 0,
                away_open: 0,
                unanswered,
                unsettled,
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
        }
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

    /// Whether a copy that finds no room, or whose member is away, waits in line.
    pub(super) fn may_wait(&self) -> bool {
        self.storable || self.members_may_return()
    }

    fn members_may_return(&self) -> bool {
        self.members_return_by.is_some_and(|by| Instant::now() < by)
    }

    /// For how long a copy may wait in line at the longest; none if nothing ends that.
    pub(super) fn patience(&self, utc: OffsetDateTime) -> Option<Duration> {
        let expiry = self.expires_at.map(|at| (at - utc).try_into().unwrap_or_default());
        let by = self.members_return_by.filter(|_| !self.storable);
        let returning = by.map(|by| by.saturating_duration_since(Instant::now()));
        expiry.into_iter().chain(returning).min()
    }

    /// Nothing from before is waited for.
    pub(super) fn copies_begin(&self) {
        lock(&self.state).new_round();
    }

    /// The next member that waits for a copy, from the place `cursor` on.
    pub(super) fn next_waiting(&self, cursor: &mut usize) -> Option<usize> {
        let state = lock(&self.state);
        let index = state.fates.iter().skip(*cursor).position(|fate| *fate == Fate::Waiting)? + *cursor;
        *cursor = index + 1;
        Some(index)
    }

    /// Whether this member waits for its copy.
    pub(super) fn waits(&self, index: usize) -> bool {
        lock(&self.state).fates.get(index).is_some_and(|fate| matches!(fate, Fate::Waiting | Fate::UnderWay(..)))
    }

    /// A copy gets under way. None if its member does not wait for it any more.
    pub(super) fn begin(&self, index: usize, way: Way) -> Option<Arc<Message>> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let message = state.message.clone()?;
        let fate = state.fates.get_mut(index).filter(|fate| **fate == Fate::Waiting)?;
        *fate = Fate::UnderWay(way, state.round);
        match way {
            Way::There => state.there_open += 1,
            Way::Away => state.away_open += 1,
            Way::Apart => {}
        }
        Some(message)
    }

    /// With a full window, waits until it is half empty. What has no answer after `patience` is waited for no more.
    pub(super) async fn room(&self, windows: Windows, patience: Duration) {
        let is_above = |there: usize, away: usize| {
            let state = lock(&self.state);
            state.there_open > there || state.away_open > away
        };
        if !is_above(windows.there.saturating_sub(1), windows.away.saturating_sub(1)) {
            return;
        }
        let answered = async {
            while is_above(windows.there / 2, windows.away / 2) {
                self.answered.notified().await;
            }
        };
        if timeout(patience, answered).await.is_err() {
            lock(&self.state).new_round();
        }
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
            Some(Fate::Waiting | Fate::UnderWay(..)) => {
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
        self.landed(state, index);
        if state.unanswered == 0 {
            state.message = None;
        }
    }

    /// A copy is not under way any more.
    fn landed(&self, state: &mut State, index: usize) {
        let Some(Fate::UnderWay(way, round)) = state.fates.get(index) else { return };
        let open = match way {
            _ if *round != state.round => return,
            Way::There => &mut state.there_open,
            Way::Away => &mut state.away_open,
            Way::Apart => return,
        };
        *open = open.saturating_sub(1);
        self.answered.notify_one();
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
    fn new_round(&mut self) {
        self.round = self.round.wrapping_add(1);
        (self.there_open, self.away_open) = (0, 0);
    }

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
        if self.0.copy_ended(core, index, &answer) {
            lines::wait(core, &self.0, index);
        }
    }

    /// One that was handed over before an earlier one came back is not to overtake it on disk.
    fn may_store(&self, core: &Core, index: usize) -> bool {
        !core.fan_out.lines.holds_up(&self.0, index)
    }
}

/// What follows from the answer to a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Nothing.
    Nothing,
    /// It waits in line.
    Again,
    /// There is something to write.
    Save,
}

impl Job {
    /// A copy has its answer: true if it is to wait in line.
    pub(super) fn copy_ended(self: &Arc<Self>, core: &Arc<Core>, index: usize, answer: &Answer) -> bool {
        core.fan_out.metrics.copy(answer);
        if *answer == Answer::Stored && lock(&self.state).discarded {
            // It was on its way to disk when the others were discarded.
            core.discard_late(&self.originator, &self.message_id);
        }
        match self.copy_answered(index, answer, OffsetDateTime::now_utc()) {
            After::Nothing => return false,
            After::Again => return true,
            After::Save => core.fan_out.ledger.note(self),
        }
        false
    }

    /// A copy that waits fails.
    pub(super) fn fail(self: &Arc<Self>, core: &Arc<Core>, index: usize, cause: FailureCause) {
        if self.begin(index, Way::Apart).is_some() {
            let _ = self.copy_ended(core, index, &Answer::Failed(cause));
        }
    }

    /// The fate of a copy.
    fn copy_answered(&self, index: usize, answer: &Answer, utc: OffsetDateTime) -> After {
        let no_room = match answer {
            Answer::Failed(FailureCause::Overloaded | FailureCause::StorageFailed | FailureCause::Stopping) => true,
            // The recipient's share of the disk, or the originator's, is full. Its sender was told that it is safe.
            Answer::Failed(FailureCause::TooMany) => self.storable,
            // Its member has had no time to return.
            Answer::Failed(FailureCause::TargetUnreachable) => !self.storable && self.members_may_return(),
            _ => false,
        };
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if !matches!(state.fates.get(index), Some(Fate::UnderWay(..))) {
            return After::Nothing;
        }
        if no_room && !state.discarded && !self.is_expired(utc) {
            self.landed(state, index);
            if let Some(fate) = state.fates.get_mut(index) {
                *fate = Fate::Waiting;
            }
            return After::Again;
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

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
