//! Sessions that rest, and what wakes them: one table and one task for all, because a server has a million of them.
//!
//! A session that rests has no task and no timer. Its mailbox and its carrier hold a waker that names it here; its
//! deadlines (K_AF's expiry, re-validation, silence, its pipeline's) are one entry in an ordered table. When one of these
//! calls, the session goes on in a task of its own, exactly where it was, and does itself what is to be done: whatever ends
//! or re-validates a session that does not rest does so to one that did. It rests again once nothing is under way.
//!
//! Nothing that calls is lost: a session is announced before its wakers are set, and one that is called before it is laid
//! down goes on at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Wake, Waker};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use transport::SealingKey;

use crate::core::Core;
use crate::session::{Arrived, Ended, Life, Resting, Session};
use crate::sessions::{Connection, Entry};
use crate::sync::lock;

/// Sessions that one turn of the task has go on; then others get theirs.
const ROUSED_AT_ONCE_MAX: usize = 256;

/// See the module.
#[derive(Default)]
pub(crate) struct Hibernation {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    places: HashMap<u64, Place>,
    /// When something is due, and for whom.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those that were called and lie here.
    called: Vec<u64>,
    resting: usize,
}

impl Table {
    /// None if it was taken up before, or lies down anew just now, and will look itself.
    fn remove(&mut self, number: u64) -> Option<Box<Dormant>> {
        if !matches!(self.places.get(&number), Some(Place::Taken(_))) {
            return None;
        }
        let Some(Place::Taken(dormant)) = self.places.remove(&number) else { return None };
        self.deadlines.remove(&(dormant.due, number));
        self.resting -= 1;
        Some(dormant)
    }
}

enum Place {
    /// Its wakers are being set.
    Announced {
        called: bool,
    },
    Taken(Box<Dormant>),
}

/// A session that rests, and its place among all.
struct Dormant {
    resting: Resting,
    seat: Seat,
    due: Instant,
}

/// What counts a session among all, until it is dropped.
pub(crate) struct Seat {
    entry: Entry,
    _connection: Connection,
}

impl Seat {
    pub(crate) fn new(entry: Entry, connection: Connection) -> Self {
        Self { entry, _connection: connection }
    }
}

/// Calls one that rests.
struct Call {
    hibernation: Weak<Hibernation>,
    number: u64,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(hibernation) = self.hibernation.upgrade() {
            hibernation.call(self.number);
        }
    }
}

impl Hibernation {
    /// Sessions that rest.
    pub(crate) fn count(&self) -> usize {
        lock(&self.table).resting
    }

    fn call(&self, number: u64) {
        let mut table = lock(&self.table);
        match table.places.get_mut(&number) {
            Some(Place::Announced { called }) => *called = true,
            Some(Place::Taken(_)) => {
                table.called.push(number);
                drop(table);
                self.changed.notify_one();
            }
            // It goes on already.
            None => {}
        }
    }

    fn announce(&self, number: u64) {
        lock(&self.table).places.insert(number, Place::Announced { called: false });
    }

    /// Lays a session down that was announced, unless it was called meanwhile.
    fn lay_down(&self, dormant: Box<Dormant>) -> Result<(), Box<Dormant>> {
        let (number, due) = (dormant.seat.entry.number(), dormant.due);
        let mut table = lock(&self.table);
        if !matches!(table.places.get(&number), Some(Place::Announced { called: false })) {
            table.places.remove(&number);
            return Err(dormant);
        }
        let first = table.deadlines.first().is_none_or(|(earliest, _)| due < *earliest);
        table.places.insert(number, Place::Taken(dormant));
        table.deadlines.insert((due, number));
        table.resting += 1;
        drop(table);
        if first {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Takes one up that rests.
    fn take(&self, number: u64) -> Option<Box<Dormant>> {
        lock(&self.table).remove(number)
    }

    /// Takes up those that were called or have something due, as many as go on at once, and when the next is due.
    fn take_up(&self, now: Instant) -> (Vec<Dormant>, Option<Instant>) {
        let mut table = lock(&self.table);
        let mut taken = Vec::new();
        while taken.len() < ROUSED_AT_ONCE_MAX {
            let number = match table.called.pop() {
                Some(number) => number,
                None => match table.deadlines.first() {
                    Some((due, number)) if *due <= now => *number,
                    _ => break,
                },
            };
            taken.extend(table.remove(number).map(|dormant| *dormant));
        }
        let next = if table.called.is_empty() { table.deadlines.first().map(|(due, _)| *due) } else { Some(now) };
        (taken, next)
    }
}

/// Seals those that rest, one after the other as their forms are asked for, and holds them. Dropped, it lets them rest on as
/// if nothing had been.
pub(crate) struct Sealing<'a> {
    core: &'a Arc<Core>,
    key: &'a SealingKey,
    until: Instant,
    /// Those whose turn is still to come.
    numbers: std::vec::IntoIter<u64>,
    #[expect(clippy::vec_box, reason = "there may be a million, which lie where they are")]
    held: Vec<Box<Dormant>>,
}

impl<'a> Sealing<'a> {
    /// None comes to its turn later than `until`.
    pub(crate) fn new(core: &'a Arc<Core>, key: &'a SealingKey, until: Instant) -> Self {
        let numbers: Vec<u64> = lock(&core.hibernation.table).places.keys().copied().collect();
        Self { core, key, until, numbers: numbers.into_iter(), held: Vec::new() }
    }

    /// Their forms are stored, or it is not known whether they are: lets them go without a word. How many there were.
    pub(crate) fn stored(mut self) -> usize {
        let held = std::mem::take(&mut self.held);
        for dormant in &held {
            dormant.resting.leave(self.core);
        }
        held.len()
    }
}

impl Iterator for Sealing<'_> {
    type Item = Vec<u8>;

    /// The next form. What cannot be sealed goes on.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let number = self.numbers.next().filter(|_| Instant::now() < self.until)?;
            let Some(mut dormant) = self.core.hibernation.take(number) else { continue };
            match dormant.resting.seal(self.key) {
                Some(form) => {
                    self.held.push(dormant);
                    return Some(form);
                }
                None => go_on(self.core, *dormant),
            }
        }
    }
}

impl Drop for Sealing<'_> {
    fn drop(&mut self) {
        for dormant in std::mem::take(&mut self.held) {
            let Dormant { mut resting, seat, .. } = *dormant;
            resting.unseal();
            rest(self.core, resting, seat);
        }
    }
}

/// Has sessions go on as they are called, until the server has stopped.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let (roused, next) = core.hibernation.take_up(Instant::now());
        for dormant in roused {
            go_on(&core, dormant);
        }
        let due = next.unwrap_or_else(Instant::now);
        tokio::select! {
            () = core.hibernation.changed.notified() => {}
            () = sleep_until(due), if next.is_some() => {}
            () = core.stopped.cancelled() => return,
        }
    }
}

fn go_on(core: &Arc<Core>, dormant: Dormant) {
    let Dormant { resting, seat, .. } = dormant;
    let session = Session::resume(Arc::clone(core), resting, Arrived::Letter);
    core.tasks.spawn(live(Arc::clone(core), session, seat));
}

/// Runs a session to its end, or until it rests; then there is none.
pub(crate) async fn live(core: Arc<Core>, mut session: Session, mut seat: Seat) -> Option<Ended> {
    loop {
        let resting = match crate::session::run_until_rest(session).await {
            Life::Ended(ended) => {
                let a_kid = seat.entry.a_kid().clone();
                drop(seat);
                ended.tell(&core, &a_kid);
                return Some(ended);
            }
            Life::Rests(resting) => resting,
        };
        let (resting, arrived, returned) = lay_down(&core, *resting, seat)?;
        seat = returned;
        session = Session::resume(Arc::clone(&core), resting, arrived);
    }
}

/// Has a session rest that was none before.
pub(crate) fn rest(core: &Arc<Core>, resting: Resting, seat: Seat) {
    if let Some((resting, arrived, seat)) = lay_down(core, resting, seat) {
        let session = Session::resume(Arc::clone(core), resting, arrived);
        core.tasks.spawn(live(Arc::clone(core), session, seat));
    }
}

/// Lays a session down; none if it lies. What has come for it meanwhile has it go on at once.
fn lay_down(core: &Arc<Core>, resting: Resting, seat: Seat) -> Option<(Resting, Arrived, Seat)> {
    let number = seat.entry.number();
    core.hibernation.announce(number);
    let mut present = Present { core, number, resting: Some(resting) };
    let waker = Waker::from(Arc::new(Call { hibernation: Arc::downgrade(&core.hibernation), number }));
    let arrived = present.resting.as_mut()?.arrived(&mut Context::from_waker(&waker));
    let resting = present.resting.take()?;
    let due = if arrived == Arrived::Nothing { resting.due(&core.limits) } else { Instant::now() };
    if arrived != Arrived::Nothing {
        core.hibernation.call(number);
    }
    let Dormant { resting, seat, .. } = *core.hibernation.lay_down(Box::new(Dormant { resting, seat, due })).err()?;
    Some((resting, arrived, seat))
}

/// A session that is about to rest. If that did not come to it, because something in it panicked, its UE is left away and not
/// connected to nobody.
struct Present<'a> {
    core: &'a Arc<Core>,
    number: u64,
    resting: Option<Resting>,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        if let Some(resting) = &self.resting {
            lock(&self.core.hibernation.table).places.remove(&self.number);
            resting.leave(self.core);
        }
    }
}
