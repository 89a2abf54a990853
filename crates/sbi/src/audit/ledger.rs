//! How much of what is decided is told one by one.
//!
//! For each subject and action the first [`TOLD_EACH_MAX`] decisions within [`WINDOW`] of the first are told each. Those beyond
//! are counted by outcome, reason and object, and told as sums when the window ends. The table is bounded: subjects and actions
//! for which there is no place share one, as `others`; so do objects, and at last reasons.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use super::Outcome;

/// Time in which decisions on one subject and action are counted together.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Decisions on one subject and action that are told each within [`WINDOW`]. More are told as sums at its end.
pub const TOLD_EACH_MAX: u32 = 20;
/// Subjects and actions that are counted apart at one time; more are counted together, as [`OTHERS`].
pub const COUNTED_APART_MAX: usize = 1_024;
/// Outcomes, reasons and objects that are counted apart for one subject and action; more are counted by outcome and reason
/// alone, with the object [`OTHERS`].
pub const SUMS_EACH_MAX: usize = 256;
/// The same for all subjects and actions together.
pub const SUMS_MAX: usize = 16_384;
/// What stands in sums for the subject and action, the object, or the reason of those for which there was no place.
pub const OTHERS: &str = "others";

/// Outcomes and reasons that are counted apart for one subject and action without their objects; more are counted together, with
/// the reason [`OTHERS`].
const REASONS_MAX: usize = 32;

/// A sum of decisions that were not told each.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) subject: String,
    pub(super) action: String,
    pub(super) outcome: Outcome,
    pub(super) reason: Cow<'static, str>,
    pub(super) object: Option<Box<str>>,
    pub(super) count: u64,
}

/// What happens to a sum.
pub(super) type Tell = fn(&Sum);

/// Windows that are open. Sums that are owed when it is dropped are told then.
#[derive(Debug)]
pub(super) struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tell: Tell,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    windows: HashMap<(String, String), Window>,
    others: Option<Window>,
    /// Sums with an object of their own, or none, in all windows.
    sums: usize,
    /// No window ends before.
    earliest: Option<Instant>,
    /// Somebody waits for windows to end.
    watched: bool,
}

/// Outcome, reason, object.
type Decided = (Outcome, Cow<'static, str>, Option<Box<str>>);

#[derive(Debug)]
struct Window {
    until: Instant,
    told: u32,
    beyond: BTreeMap<Decided, u64>,
    /// Those for whose objects there was no place.
    beyond_objects: BTreeMap<(Outcome, Cow<'static, str>), u64>,
}

impl Ledger {
    pub(super) fn new(tell: Tell) -> Self {
        Self { shared: Arc::new(Shared { tell, table: Mutex::default() }) }
    }

    /// Counts a decision; whether it is to be told by itself. `object` is as it is told.
    pub(super) fn admit(
        &self,
        subject: &str,
        action: &str,
        outcome: Outcome,
        reason: Cow<'static, str>,
        object: Option<&str>,
    ) -> bool {
        let now = Instant::now();
        let (admitted, ended) = {
            let mut table = self.shared.table();
            let ended = if table.ends_by(now) { table.close(now) } else { Vec::new() };
            (table.count(subject, action, (outcome, reason, object), now), ended)
        };
        self.shared.tell(&ended);
        if !admitted {
            self.watch();
        }
        admitted
    }

    /// Has the sums told when their windows end, though no decision comes after them. Outside of a runtime the next decision
    /// does it, or the end of the ledger.
    fn watch(&self) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut table = self.shared.table();
        if !std::mem::replace(&mut table.watched, true) {
            runtime.spawn(tell_in_time(Arc::downgrade(&self.shared)));
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let owed = self.shared.table().close_all();
        self.shared.tell(&owed);
    }
}

/// Until nothing is owed.
async fn tell_in_time(shared: Weak<Shared>) {
    let _unwatched = Unwatched(Weak::clone(&shared));
    loop {
        let Some(end) = shared.upgrade().and_then(|shared| shared.table().next_end()) else { return };
        sleep_until(end).await;
        let Some(shared) = shared.upgrade() else { return };
        let ended = shared.table().close(Instant::now());
        shared.tell(&ended);
    }
}

/// A task that is over, or whose runtime is, watches no more.
struct Unwatched(Weak<Shared>);

impl Drop for Unwatched {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.table().watched = false;
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, sums: &[Sum]) {
        for sum in sums {
            (self.tell)(sum);
        }
    }
}

impl Table {
    /// Whether a window is over, so that it is worth looking through them.
    fn ends_by(&self, now: Instant) -> bool {
        self.earliest.is_some_and(|end| end <= now)
    }

    fn count(
        &mut self,
        subject: &str,
        action: &str,
        decision: (Outcome, Cow<'static, str>, Option<&str>),
        now: Instant,
    ) -> bool {
        self.earliest.get_or_insert(now + WINDOW);
        let key = (subject.to_owned(), action.to_owned());
        let window = if self.windows.len() < COUNTED_APART_MAX || self.windows.contains_key(&key) {
            self.windows.entry(key).or_insert_with(|| Window::new(now))
        } else {
            self.others.get_or_insert_with(|| Window::new(now))
        };
        if window.told < TOLD_EACH_MAX {
            window.told += 1;
            return true;
        }
        self.sums += usize::from(window.count(decision, self.sums < SUMS_MAX));
        false
    }

    /// Takes out the windows that are over; what they owe.
    fn close(&mut self, now: Instant) -> Vec<Sum> {
        let mut sums = Vec::new();
        self.windows.retain(|(subject, action), window| {
            let open = now < window.until;
            if !open {
                window.owed(subject, action, &mut sums);
            }
            open
        });
        if let Some(window) = self.others.take_if(|window| window.until <= now) {
            window.owed(OTHERS, OTHERS, &mut sums);
        }
        self.sums = self.windows.values().chain(&self.others).map(|window| window.beyond.len()).sum();
        self.earliest = self.windows.values().chain(&self.others).map(|window| window.until).min();
        sums
    }

    fn close_all(&mut self) -> Vec<Sum> {
        for window in self.windows.values_mut().chain(&mut self.others) {
            window.until = Instant::now();
        }
        self.close(Instant::now())
    }

    /// When the first window ends that owes something.
    fn next_end(&mut self) -> Option<Instant> {
        let windows = self.windows.values().chain(&self.others);
        let end = windows.filter(|window| window.owes()).map(|window| window.until).min();
        // Whoever comes from now on has to watch anew.
        self.watched = end.is_some();
        end
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { until: now + WINDOW, told: 0, beyond: BTreeMap::new(), beyond_objects: BTreeMap::new() }
    }

    /// Counts one that is not told by itself; whether that took a place among those with objects, of which `is_room` says whether
    /// there are any left in all.
    fn count(&mut self, decision: (Outcome, Cow<'static, str>, Option<&str>), is_room: bool) -> bool {
        let (outcome, reason, object) = decision;
        let key = (outcome, reason, object.map(Box::from));
        let places = self.beyond.len();
        if self.beyond.contains_key(&key) || (is_room && places < SUMS_EACH_MAX) {
            let count = self.beyond.entry(key).or_default();
            *count = count.saturating_add(1);
            return self.beyond.len() > places;
        }
        let (outcome, reason, _) = key;
        let key = (outcome, reason);
        let known = self.beyond_objects.len() < REASONS_MAX || self.beyond_objects.contains_key(&key);
        let key = if known { key } else { (outcome, Cow::Borrowed(OTHERS)) };
        let count = self.beyond_objects.entry(key).or_default();
        *count = count.saturating_add(1);
        false
    }

    fn owes(&self) -> bool {
        !self.beyond.is_empty() || !self.beyond_objects.is_empty()
    }

    fn owed(&self, subject: &str, action: &str, sums: &mut Vec<Sum>) {
        let sum = |outcome: &Outcome, reason: &Cow<'static, str>, object: Option<Box<str>>, count: &u64| Sum {
            subject: subject.to_owned(),
            action: action.to_owned(),
            outcome: *outcome,
            reason: reason.clone(),
            object,
            count: *count,
        };
        let apart =
            self.beyond.iter().map(|((outcome, reason, object), count)| sum(outcome, reason, object.clone(), count));
        sums.extend(apart);
        let others = self.beyond_objects.iter();
        sums.extend(others.map(|((outcome, reason), count)| sum(outcome, reason, Some(OTHERS.into()), count)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    type Told = (String, String, &'static str, String, Option<String>, u64);

    thread_local! {
        static TOLD: std::cell::RefCell<Vec<Told>> = const { std::cell::RefCell::new(Vec::new()) };
    }

    fn note(sum: &Sum) {
        let Sum { subject, action, outcome, reason, object, count } = sum;
        let object = object.as_deref().map(str::to_owned);
        let told = (subject.clone(), action.clone(), outcome.as_str(), reason.to_string(), object, *count);
        TOLD.with_borrow_mut(|all| all.push(told));
    }

    fn told() -> Vec<Told> {
        TOLD.take()
    }

    fn refuse(ledger: &Ledger, subject: &str, action: &str, reason: &'static str, times: u32) -> u32 {
        let one = |_: &u32| ledger.admit(subject, action, Outcome::Refused, Cow::Borrowed(reason), None);
        u32::try_from((0..times).filter(one).count()).unwrap()
    }

    fn sum(subject: &str, action: &str, reason: &str, count: u64) -> Told {
        (subject.to_owned(), action.to_owned(), "refused", reason.to_owned(), None, count)
    }

    fn with(object: &str, sum: Told) -> Told {
        (sum.0, sum.1, sum.2, sum.3, Some(object.to_owned()), sum.5)
    }

    fn refuse_for(ledger: &Ledger, subject: &str, object: &str) {
        ledger.admit(subject, "read", Outcome::Refused, Cow::Borrowed("stranger"), Some(object));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_beyond_the_rate_is_told_as_a_sum_for_each_reason_though_nothing_comes_after_it() {
        let ledger = Ledger::new(note);
        assert_eq!(refuse(&ledger, "a", "read", "stranger", TOLD_EACH_MAX + 3), TOLD_EACH_MAX);
        assert_eq!(refuse(&ledger, "a", "read", "too_often", 2), 0);
        assert_eq!(refuse(&ledger, "a", "write", "stranger", 2), 2, "another action has its own rate");
        assert_eq!(refuse(&ledger, "b", "read", "stranger", 2), 2, "another subject, too");
        assert!(told().is_empty());
        tokio::time::sleep(WINDOW + Duration::from_millis(1)).await;
        assert_eq!(told(), [sum("a", "read", "stranger", 3), sum("a", "read", "too_often", 2)]);
        assert_eq!(refuse(&ledger, "a", "read", "stranger", TOLD_EACH_MAX + 1), TOLD_EACH_MAX);
        tokio::time::sleep(WINDOW + Duration::from_millis(1)).await;
        assert_eq!(told(), [sum("a", "read", "stranger", 1)], "and again in the next window");
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_is_full_counts_the_others_together() {
        let ledger = Ledger::new(note);
        for number in 0..COUNTED_APART_MAX {
            assert_eq!(refuse(&ledger, &number.to_string(), "read", "stranger", 1), 1);
        }
        for number in 0..10 {
            let late = format!("late-{number}");
            assert_eq!(refuse(&ledger, &late, "read", "stranger", 10), if number < 2 { 10 } else { 0 });
        }
        assert_eq!(ledger.shared.table().windows.len(), COUNTED_APART_MAX);
        tokio::time::sleep(WINDOW + Duration::from_millis(1)).await;
        assert_eq!(told(), [sum(OTHERS, OTHERS, "stranger", 80)]);
        assert_eq!(refuse(&ledger, "late-9", "read", "stranger", 1), 1, "there is room again");
        assert!(ledger.shared.table().windows.len() <= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn each_object_has_a_sum_of_its_own_and_nothing_but_repetition_is_lost() {
        let ledger = Ledger::new(note);
        refuse(&ledger, "a", "read", "stranger", TOLD_EACH_MAX);
        for object in ["meter", "pump", "meter", "meter"] {
            refuse_for(&ledger, "a", object);
        }
        ledger.admit("a", "read", Outcome::Failed, Cow::Borrowed("stranger"), Some("pump"));
        tokio::time::sleep(WINDOW + Duration::from_millis(1)).await;
        let mut failed = with("pump", sum("a", "read", "stranger", 1));
        failed.2 = "failed";
        let refused = |object, count| with(object, sum("a", "read", "stranger", count));
        assert_eq!(told(), [refused("meter", 3), refused("pump", 1), failed]);
    }

    #[tokio::test(start_paused = true)]
    async fn objects_beyond_their_number_are_counted_together() {
        let ledger = Ledger::new(note);
        refuse(&ledger, "a", "read", "stranger", TOLD_EACH_MAX);
        for number in 0..SUMS_EACH_MAX + 5 {
            refuse_for(&ledger, "a", &number.to_string());
        }
        refuse_for(&ledger, "a", "0");
        tokio::time::sleep(WINDOW + Duration::from_millis(1)).await;
        let told = told();
        assert_eq!(told.len(), SUMS_EACH_MAX + 1);
        assert!(told.contains(&with("0", sum("a", "read", "stranger", 2))), "one that has a place keeps it");
        assert!(told.contains(&with(OTHERS, sum("a", "read", "stranger", 5))));
    }

    #[tokio::test(start_paused = true)]
    async fn sums_of_everybody_beyond_their_number_are_counted_without_their_objects() {
        let ledger = Ledger::new(note);
        let subjects = SUMS_MAX / SUMS_EACH_MAX + 1;
        for subject in 0..subjects {
            let subject = subject.to_string();
            refuse(&ledger, &subject, "read", "stranger", TOLD_EACH_MAX);
            for number in 0..SUMS_EACH_MAX {
                refuse_for(&ledger, &subject, &number.to_string());
            }
        }
        assert_eq!(ledger.shared.table().sums, SUMS_MAX);
        tokio::time::sleep(WINDOW + Duration::from_millis(1)).await;
        let told = told();
        assert_eq!(told.len(), SUMS_MAX + 1);
        let last = (subjects - 1).to_string();
        assert!(told.contains(&with(OTHERS, sum(&last, "read", "stranger", SUMS_EACH_MAX as u64))));
        assert_eq!(ledger.shared.table().sums, 0, "there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_beyond_their_number_are_counted_together() {
        let ledger = Ledger::new(note);
        refuse(&ledger, "a", "read", "first", TOLD_EACH_MAX);
        let reasons = SUMS_EACH_MAX + REASONS_MAX + 5;
        for number in 0..reasons {
            ledger.admit("a", "read", Outcome::Refused, Cow::Owned(format!("reason-{number:03}")), None);
        }
        tokio::time::sleep(WINDOW + Duration::from_millis(1)).await;
        let told = told();
        let counted = told.iter().map(|sum| sum.5).sum::<u64>();
        assert_eq!((told.len(), counted), (SUMS_EACH_MAX + REASONS_MAX + 1, reasons as u64));
        assert!(told.contains(&with(OTHERS, sum("a", "read", OTHERS, 5))));
    }

    #[test]
    fn what_is_owed_at_the_end_is_told_then_with_or_without_a_runtime() {
        let ledger = Ledger::new(note);
        refuse(&ledger, "a", "read", "stranger", TOLD_EACH_MAX + 7);
        assert!(told().is_empty());
        drop(ledger);
        assert_eq!(told(), [sum("a", "read", "stranger", 7)]);
    }
}
