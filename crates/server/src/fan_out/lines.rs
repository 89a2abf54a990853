//! Copies that wait in line: where one found no room, what follows it for the same recipient stays behind it.
//!
//! A line is of one recipient, and of one originator, one group or topic and one priority. It begins when a copy comes back
//! that may wait, and ends when it is empty. While there is one, its first copy only is under way; those behind it are
//! handed over one after the other, each when the one before has its answer, so that nothing overtakes. A copy in line is a
//! job and a number, and takes no memory of its own otherwise; there are no more of them than the store takes jobs and
//! members (`jobs_max`, `members_per_job_max`).
//!
//! The first is tried again after a pause that doubles, and at once when its recipient returns or acknowledges something.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use message::{Address, FailureCause, Priority};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::job::{Job, Way};
use super::{OneAnswer, RETRY_PAUSE, RETRY_PAUSE_MAX, copies};
use crate::core::Core;
use crate::delivery::Answer;
use crate::sync::lock;

/// Copies of a line from which on those that do not wait any more are looked for.
const PRUNED_FROM: usize = 64;

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    by_member: Mutex<HashMap<Address, Vec<Line>>>,
    /// How many recipients have one: mostly none, and that is to cost nothing.
    members: AtomicUsize,
}

#[derive(Debug)]
struct Line {
    target: Address,
    originator: Address,
    priority: Priority,
    /// In the order of their acceptance.
    copies: VecDeque<Copy>,
    pruned_at: usize,
    /// The first may be tried again.
    wake: Arc<Notify>,
}

#[derive(Clone, Debug)]
struct Copy {
    job: Arc<Job>,
    index: usize,
}

impl Copy {
    fn is(&self, job: &Arc<Job>) -> bool {
        Arc::ptr_eq(&self.job, job)
    }
}

impl Line {
    fn is_of(&self, job: &Job) -> bool {
        self.priority == job.priority && self.originator == job.originator && self.target == job.target
    }

    fn enter(&mut self, copy: Copy) {
        if self.copies.len() >= self.pruned_at {
            self.copies.retain(|copy| copy.job.waits(copy.index));
            self.pruned_at = PRUNED_FROM.max(2 * self.copies.len());
        }
        if !self.copies.iter().any(|other| other.is(&copy.job)) {
            let place = self.copies.partition_point(|other| other.job.id < copy.job.id);
            self.copies.insert(place, copy);
        }
    }
}

impl Lines {
    /// Has the copy wait if others of its line do; false if there is no such line.
    pub(super) fn join(&self, job: &Arc<Job>, index: usize) -> bool {
        self.with(job, index, |line| line.enter(Copy { job: Arc::clone(job), index })).is_some()
    }

    /// Whether the copy has to wait because others of its line do.
    pub(super) fn holds_up(&self, job: &Arc<Job>, index: usize) -> bool {
        self.with(job, index, |line| line.copies.front().is_some_and(|first| !first.is(job))).unwrap_or(false)
    }

    fn with<T>(&self, job: &Arc<Job>, index: usize, what: impl FnOnce(&mut Line) -> T) -> Option<T> {
        if self.members.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut by_member = lock(&self.by_member);
        let lines = by_member.get_mut(job.member(index)?)?;
        lines.iter_mut().find(|line| line.is_of(job)).map(what)
    }

    /// This recipient is back, or has room again.
    pub(crate) fn kick(&self, member: &Address) {
        if self.members.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(lines) = lock(&self.by_member).get(member) {
            lines.iter().for_each(|line| line.wake.notify_one());
        }
    }

    /// Recipients for whom copies wait.
    #[cfg(test)]
    pub(crate) fn members(&self) -> usize {
        self.members.load(Ordering::Acquire)
    }

    /// The first copy that still waits; with none, the line is no more.
    fn first(&self, of: &Served) -> Option<Copy> {
        let mut by_member = lock(&self.by_member);
        let lines = by_member.get_mut(&of.member)?;
        let place = lines.iter().position(|line| line.is_of(&of.job))?;
        let copies = &mut lines.get_mut(place)?.copies;
        while copies.pop_front_if(|first| !first.job.waits(first.index)).is_some() {}
        if let Some(first) = copies.front() {
            return Some(first.clone());
        }
        lines.swap_remove(place);
        if lines.is_empty() {
            by_member.remove(&of.member);
            self.members.store(by_member.len(), Ordering::Release);
        }
        None
    }

    fn leave(&self, copy: &Copy) {
        self.with(&copy.job, copy.index, |line| line.copies.retain(|other| !other.is(&copy.job)));
    }

    /// Takes out what is past its time, wherever it stands.
    fn expired(&self, of: &Served, utc: OffsetDateTime) -> Vec<Copy> {
        let mut by_member = lock(&self.by_member);
        let line = by_member.get_mut(&of.member).and_then(|lines| lines.iter_mut().find(|line| line.is_of(&of.job)));
        let Some(line) = line else { return Vec::new() };
        let (expired, rest) = line.copies.drain(..).partition(|copy| copy.job.is_expired(utc));
        line.copies = rest;
        Vec::from(expired)
    }
}

/// A copy that came back waits: behind others of its line, or as the first of a new one.
pub(super) fn wait(core: &Arc<Core>, job: &Arc<Job>, index: usize) {
    let Some(member) = job.member(index) else { return };
    let lines = &core.fan_out.lines;
    let wake = {
        let mut by_member = lock(&lines.by_member);
        let of_member = by_member.entry(member.clone()).or_default();
        let copy = Copy { job: Arc::clone(job), index };
        if let Some(line) = of_member.iter_mut().find(|line| line.is_of(job)) {
            return line.enter(copy);
        }
        let wake = Arc::new(Notify::new());
        of_member.push(Line {
            target: job.target.clone(),
            originator: job.originator.clone(),
            priority: job.priority,
            copies: VecDeque::from([copy]),
            pruned_at: PRUNED_FROM,
            wake: Arc::clone(&wake),
        });
        lines.members.store(by_member.len(), Ordering::Release);
        wake
    };
    let served = Served { core: Arc::clone(core), member: member.clone(), job: Arc::clone(job), wake };
    core.tasks.spawn(serve(served));
}

/// One line, and who looks after it: another takes over if that panics.
struct Served {
    core: Arc<Core>,
    member: Address,
    /// Any of the line.
    job: Arc<Job>,
    wake: Arc<Notify>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(member = %self.member, "who looks after copies that wait panicked, another takes over");
            let (core, job, wake) = (Arc::clone(&self.core), Arc::clone(&self.job), Arc::clone(&self.wake));
            self.core.tasks.spawn(serve(Served { core, member: self.member.clone(), job, wake }));
        }
    }
}

async fn serve(served: Served) {
    let (core, mut tries) = (&served.core, 1);
    while let Some(first) = core.fan_out.lines.first(&served) {
        let pause = retry_pause(tries).min(first.job.patience(OffsetDateTime::now_utc()).unwrap_or(RETRY_PAUSE_MAX));
        tokio::select! {
            () = sleep(pause) => {}
            () = served.wake.notified() => {}
            () = core.stopped.cancelled() => return,
        }
        // What is left stays on disk.
        if core.stopping.is_cancelled() {
            return;
        }
        for copy in core.fan_out.lines.expired(&served, OffsetDateTime::now_utc()) {
            copy.job.fail(core, copy.index, FailureCause::Expired);
        }
        tries = if drain(&served).await { 1 } else { tries.saturating_add(1) };
    }
}

/// Hands over one after the other until one comes back. Whether any did not.
async fn drain(served: &Served) -> bool {
    let core = &served.core;
    let mut any = false;
    while let Some(copy) = core.fan_out.lines.first(served) {
        let Some(message) = copy.job.begin(copy.index, Way::Apart) else {
            core.fan_out.lines.leave(&copy);
            continue;
        };
        let (asker, answer) = OneAnswer::asker();
        copies::hand_over_one(core, &copy.job, &message, copy.index, asker);
        let answer = tokio::select! {
            answer = answer => answer.unwrap_or(Answer::Failed(FailureCause::Stopping)),
            () = core.stopped.cancelled() => return any,
        };
        if copy.job.copy_ended(core, copy.index, &answer) {
            return any;
        }
        any = true;
        core.fan_out.lines.leave(&copy);
    }
    any
}

/// The pause before the so-many-th try: twice as long each time, up to [`RETRY_PAUSE_MAX`].
fn retry_pause(tries: u32) -> Duration {
    let factor = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
    RETRY_PAUSE.saturating_mul(factor).min(RETRY_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_their_bound() {
        let pauses: Vec<u64> = (0..10).map(|tries| retry_pause(tries).as_secs()).collect();
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(retry_pause(u32::MAX), RETRY_PAUSE_MAX);
    }
}
