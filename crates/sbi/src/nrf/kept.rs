//! Answers that are used again for a while, by what was asked: tokens and discoveries.
//!
//! One question is asked by one caller at a time; others that want the same wait for its answer. A refusal is kept, too, but
//! only briefly. The table is bounded: where it is full, what has run out goes, else what was not used for longest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::SbiError;

/// A table of at most `entries_max` answers.
pub(super) struct Kept<V> {
    entries_max: usize,
    refusals_last: Duration,
    entries: Mutex<HashMap<String, Entry<V>>>,
}

struct Entry<V> {
    answer: Answer<V>,
    used: Instant,
    /// Whoever asks the NRF holds it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

enum Answer<V> {
    None,
    Good { value: V, since: Instant, refresh_at: Instant, until: Instant },
    Refused { reason: String, transient: bool, until: Instant },
}

/// What the table says now.
pub(super) enum Found<V> {
    /// Use it.
    Good(V),
    /// Use it, and have another fetched.
    Ageing(V),
    /// It was refused a moment ago.
    Refused(SbiError),
    /// Ask.
    Nothing,
}

impl<V: Clone> Kept<V> {
    pub(super) fn new(entries_max: usize, refusals_last: Duration) -> Self {
        Self { entries_max: entries_max.max(1), refusals_last, entries: Mutex::default() }
    }

    /// What is known about `key`, and whose turn it is to ask.
    pub(super) fn find(&self, key: &str, now: Instant) -> (Found<V>, Arc<tokio::sync::Mutex<()>>) {
        let mut entries = self.entries();
        if !entries.contains_key(key) {
            make_room(&mut entries, self.entries_max, now);
        }
        let entry = entries.entry(key.to_owned()).or_insert_with(|| Entry {
            answer: Answer::None,
            used: now,
            turn: Arc::default(),
        });
        entry.used = now;
        let found = match &entry.answer {
            Answer::Good { value, refresh_at, until, .. } if now < *until => {
                if now < *refresh_at {
                    Found::Good(value.clone())
                } else {
                    Found::Ageing(value.clone())
                }
            }
            Answer::Refused { reason, transient, until } if now < *until => {
                Found::Refused(SbiError::NrfRefused { reason: reason.clone(), transient: *transient })
            }
            _ => Found::Nothing,
        };
        (found, Arc::clone(&entry.turn))
    }

    /// Keeps `value` for `lifetime`; it is ageing from `refresh_after` on.
    pub(super) fn keep(&self, key: &str, value: V, refresh_after: Duration, lifetime: Duration, now: Instant) {
        let good = Answer::Good { value, since: now, refresh_at: now + refresh_after, until: now + lifetime };
        self.set(key, good);
    }

    /// Keeps a refusal; not over a value that is still good, which a failed refresh leaves as it is.
    pub(super) fn refuse(&self, key: &str, reason: String, transient: bool, now: Instant) {
        let still_good = self
            .entries()
            .get(key)
            .is_some_and(|entry| matches!(&entry.answer, Answer::Good { until, .. } if now < *until));
        if !still_good {
            self.set(key, Answer::Refused { reason, transient, until: now + self.refusals_last });
        }
    }

    /// Forgets the value of `key` if `wrong` says so of it, unless it is younger than a refusal lasts: a fresh one would
    /// fare no better, and fetching one after the other helps nobody.
    pub(super) fn forget(&self, key: &str, now: Instant, wrong: impl FnOnce(&V) -> bool) {
        if let Some(entry) = self.entries().get_mut(key)
            && let Answer::Good { value, since, .. } = &entry.answer
            && now.duration_since(*since) >= self.refusals_last
            && wrong(value)
        {
            entry.answer = Answer::None;
        }
    }

    fn set(&self, key: &str, answer: Answer<V>) {
        if let Some(entry) = self.entries().get_mut(key) {
            entry.answer = answer;
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry<V>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room<V>(entries: &mut HashMap<String, Entry<V>>, entries_max: usize, now: Instant) {
    if entries.len() < entries_max {
        return;
    }
    entries.retain(|_, entry| match &entry.answer {
        Answer::None => Arc::strong_count(&entry.turn) > 1,
        Answer::Good { until, .. } | Answer::Refused { until, .. } => now < *until,
    });
    while entries.len() >= entries_max {
        let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else {
            return;
        };
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn good(kept: &Kept<u32>, key: &str, now: Instant) -> Option<u32> {
        match kept.find(key, now).0 {
            Found::Good(value) => Some(value),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_value_is_good_then_ageing_then_gone() {
        let (kept, now) = (Kept::new(9, SECOND), Instant::now());
        assert!(matches!(kept.find("a", now).0, Found::Nothing));
        kept.keep("a", 7, 8 * SECOND, 10 * SECOND, now);
        assert_eq!(good(&kept, "a", now + 7 * SECOND), Some(7));
        assert!(matches!(kept.find("a", now + 8 * SECOND).0, Found::Ageing(7)));
        assert!(matches!(kept.find("a", now + 10 * SECOND).0, Found::Nothing));
    }

    #[tokio::test]
    async fn a_refusal_lasts_briefly_and_does_not_replace_what_is_good() {
        let (kept, now) = (Kept::new(9, SECOND), Instant::now());
        let _ = kept.find("a", now);
        kept.refuse("a", "no".to_owned(), false, now);
        assert!(matches!(kept.find("a", now).0, Found::Refused(_)));
        assert!(matches!(kept.find("a", now + SECOND).0, Found::Nothing));
        kept.keep("a", 7, SECOND, 10 * SECOND, now);
        kept.refuse("a", "no".to_owned(), false, now + 2 * SECOND);
        assert!(matches!(kept.find("a", now + 2 * SECOND).0, Found::Ageing(7)));
    }

    #[tokio::test]
    async fn what_was_rejected_is_forgotten_unless_it_is_new() {
        let (kept, now) = (Kept::new(9, SECOND), Instant::now());
        let _ = kept.find("a", now);
        kept.keep("a", 7, 9 * SECOND, 10 * SECOND, now);
        kept.forget("a", now, |value| *value == 7);
        assert_eq!(good(&kept, "a", now), Some(7), "a fresh one would be rejected, too");
        kept.forget("a", now + SECOND, |value| *value == 8);
        assert_eq!(good(&kept, "a", now + SECOND), Some(7), "another than the one kept");
        kept.forget("a", now + SECOND, |value| *value == 7);
        assert_eq!(good(&kept, "a", now + SECOND), None);
    }

    #[tokio::test]
    async fn a_full_table_loses_what_has_run_out_then_what_was_not_used_for_longest() {
        let (kept, now) = (Kept::new(2, SECOND), Instant::now());
        for (key, lifetime) in [("short", SECOND), ("long", 9 * SECOND)] {
            let _ = kept.find(key, now);
            kept.keep(key, 1, lifetime, lifetime, now);
        }
        let later = now + 2 * SECOND;
        let _ = kept.find("third", later);
        kept.keep("third", 3, 9 * SECOND, 9 * SECOND, later);
        assert_eq!((good(&kept, "long", later), good(&kept, "third", later + SECOND)), (Some(1), Some(3)));
        let _ = kept.find("fourth", later + 2 * SECOND);
        assert_eq!(good(&kept, "third", later + 2 * SECOND), Some(3));
        assert_eq!(good(&kept, "long", later + 2 * SECOND), None);
    }
}
