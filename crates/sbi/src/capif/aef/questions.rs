//! Questions to the core function, of which nobody outside can cause more than stated here.
//!
//! 1. One question about one identity at a time: who comes meanwhile waits for an answer to a question that was put after it came.
//! 2. A handshake takes a slot of its source, an IPv4 address or an IPv6 /64.
//! 3. An identity that was never vouched for is a stranger's. Strangers have half of all slots, and a source that names too many
//!    whom the core function does not know is not asked for until a while has passed.
//! 4. Every question takes one of all slots.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use transport::{Expiring, LogThrottle, Source};

use super::AefLimits;
use super::guard::Refusal;
use crate::slots::{Slot, Slots};

/// Why the core function is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Somebody with a certificate of the CAPIF authority called, or we wonder ourselves.
    Proven,
    /// Somebody at this address named an identity that was vouched for before.
    Handshake(IpAddr),
    /// Somebody at this address named an identity that nobody here knows.
    Stranger(IpAddr),
}

/// The slots, and what strangers have used up.
pub(super) struct Questions<T> {
    lines: Mutex<HashMap<String, Arc<Line<T>>>>,
    all: Semaphore,
    strangers: Semaphore,
    sources: Arc<Slots<Source>>,
    /// How many identities of each source were unknown, and until when that counts.
    unknown: Mutex<Expiring<Source, (u32, Instant)>>,
    unknown_per_source_max: u32,
}

/// Those who ask about one identity; the last answer, and when it was asked for.
type Line<T> = tokio::sync::Mutex<Option<(Instant, T)>>;

/// A question may be put while this is held.
pub(super) struct Permit<'a, T> {
    questions: &'a Questions<T>,
    stranger: Option<Source>,
    _all: SemaphorePermit<'a>,
    _strangers: Option<SemaphorePermit<'a>>,
    _source: Option<Slot<Source>>,
}

impl<T: Clone> Questions<T> {
    pub(super) fn new(limits: &AefLimits) -> Self {
        Self {
            lines: Mutex::default(),
            all: Semaphore::new(limits.questions_max),
            strangers: Semaphore::new((limits.questions_max / 2).max(1)),
            sources: Slots::new(limits.questions_max, limits.questions_per_source_max),
            unknown: Mutex::new(Expiring::new(SOURCES_MAX)),
            unknown_per_source_max: limits.unknown_per_source_max,
        }
    }

    /// The answer to `question` about `id`, or to one of another's that was put after this was called.
    pub(super) async fn joined<F>(&self, id: &str, question: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T>,
    {
        let came = Instant::now();
        let place = Place { lines: &self.lines, id, line: self.line(id) };
        let mut last = place.line.lock().await;
        if let Some((begun, answer)) = &*last
            && *begun >= came
        {
            return answer.clone();
        }
        let begun = Instant::now();
        let answer = question().await;
        *last = Some((begun, answer.clone()));
        answer
    }

    /// Leave to ask.
    pub(super) fn admit(&self, cause: Cause) -> Result<Permit<'_, T>, Refusal> {
        let (source, stranger) = match cause {
            Cause::Proven => (None, None),
            Cause::Handshake(address) => (Some(Source::from(address)), None),
            Cause::Stranger(address) => (Some(Source::from(address)), Some(Source::from(address))),
        };
        let slot = source.map(|source| self.sources.take(source)).transpose();
        let slot = slot.map_err(|_| at_limit("questions_per_source_max", source))?;
        let half = stranger.map(|_| self.strangers.try_acquire()).transpose();
        let half = half.map_err(|_| at_limit("questions_max", source))?;
        let all = self.all.try_acquire().map_err(|_| at_limit("questions_max", source))?;
        if stranger.is_some_and(|stranger| !self.charge(stranger)) {
            return Err(at_limit("unknown_per_source_max", source));
        }
        Ok(Permit { questions: self, stranger, _all: all, _strangers: half, _source: slot })
    }

    fn line(&self, id: &str) -> Arc<Line<T>> {
        Arc::clone(lock(&self.lines).entry(id.to_owned()).or_default())
    }

    /// Counts an identity as unknown until the answer is there; `false` if there were too many.
    fn charge(&self, source: Source) -> bool {
        let now = Instant::now();
        let mut unknown = lock(&self.unknown);
        let (count, until) = unknown.live(&source, now).copied().unwrap_or((0, now + UNKNOWN_WINDOW));
        if count >= self.unknown_per_source_max {
            return false;
        }
        unknown.insert(source, (count + 1, until), until, now);
        true
    }
}

impl<T> Permit<'_, T> {
    /// The core function knows the identity: it was no stranger's.
    pub(super) fn known(&self) {
        let Some(source) = self.stranger else { return };
        let now = Instant::now();
        let mut unknown = lock(&self.questions.unknown);
        if let Some((count, until)) = unknown.live(&source, now).copied() {
            unknown.insert(source, (count.saturating_sub(1), until), until, now);
        }
    }
}

/// A place in a line, which is gone when nobody stands in it.
struct Place<'a, T> {
    lines: &'a Mutex<HashMap<String, Arc<Line<T>>>>,
    id: &'a str,
    line: Arc<Line<T>>,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let mut lines = lock(self.lines);
        // The table's own, and this one.
        if Arc::strong_count(&self.line) <= 2 {
            lines.remove(self.id);
        }
    }
}

fn at_limit(limit: &'static str, source: Option<Source>) -> Refusal {
    if let Some(unlogged) = AT_LIMIT.admit() {
        tracing::warn!(target: "security", limit, ?source, unlogged, "a question to the CAPIF core function is not put");
    }
    Refusal::Unavailable
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static AT_LIMIT: LogThrottle = LogThrottle::new();

/// How long unknown identities of a source count.
pub(super) const UNKNOWN_WINDOW: Duration = Duration::from_secs(10);
/// Sources whose unknown identities are counted; one more, and the one that is through first is forgotten.
const SOURCES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    fn questions(questions_max: usize, per_source: usize, unknown_per_source: u32) -> Questions<usize> {
        Questions::new(&AefLimits {
            questions_max,
            questions_per_source_max: per_source,
            unknown_per_source_max: unknown_per_source,
            ..AefLimits::default()
        })
    }

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_about_one_identity_at_once_cause_two_questions_and_one_after_them_another() {
        let (questions, put) = (questions(8, 8, 8), AtomicUsize::new(0));
        let ask = || async {
            let number = put.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            number
        };
        let first = questions.joined("a", ask);
        let others = async {
            // While the first question is under way: its answer may be older than what they know.
            tokio::time::sleep(Duration::from_millis(500)).await;
            join_all((0..100).map(|_| questions.joined("a", ask))).await
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!((first, others), (0, vec![1; 100]));
        assert_eq!(questions.joined("a", ask).await, 2);
        assert!(lock(&questions.lines).is_empty(), "nobody stands in line");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_line_leaves_it_to_the_next() {
        let questions = questions(8, 8, 8);
        let gives_up = questions.joined("a", std::future::pending);
        assert!(tokio::time::timeout(Duration::from_secs(1), gives_up).await.is_err());
        assert_eq!(questions.joined("a", || async { 7 }).await, 7);
        assert!(lock(&questions.lines).is_empty());
    }

    #[tokio::test]
    async fn strangers_and_single_sources_leave_slots_to_others() {
        let questions = questions(4, 3, 8);
        let one = questions.admit(Cause::Stranger(address(1))).unwrap();
        let _two = questions.admit(Cause::Stranger(address(2))).unwrap();
        assert!(questions.admit(Cause::Stranger(address(3))).is_err(), "strangers have half of all slots");
        let _known = questions.admit(Cause::Handshake(address(3))).unwrap();
        let _proven = questions.admit(Cause::Proven).unwrap();
        assert!(questions.admit(Cause::Proven).is_err(), "all are taken");
        drop(one);
        let _another = questions.admit(Cause::Proven).unwrap();
    }

    #[tokio::test]
    async fn a_source_has_so_many_slots() {
        let questions = questions(8, 2, 8);
        let _one = questions.admit(Cause::Handshake(address(1))).unwrap();
        let _two = questions.admit(Cause::Handshake(address(1))).unwrap();
        assert!(questions.admit(Cause::Handshake(address(1))).is_err());
        questions.admit(Cause::Handshake(address(2))).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_names_too_many_unknown_identities_waits_and_one_that_names_known_ones_does_not() {
        let questions = questions(8, 8, 2);
        for _ in 0..100 {
            questions.admit(Cause::Stranger(address(2))).unwrap().known();
        }
        for _ in 0..2 {
            questions.admit(Cause::Stranger(address(1))).unwrap();
        }
        assert!(questions.admit(Cause::Stranger(address(1))).is_err());
        questions.admit(Cause::Handshake(address(1))).unwrap();
        questions.admit(Cause::Stranger(address(2))).unwrap();
        tokio::time::advance(UNKNOWN_WINDOW).await;
        questions.admit(Cause::Stranger(address(1))).unwrap();
    }
}
