//! Authentications under way at the AUSF: a bounded table in which nothing outlives its time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// Authentications under way, by the identifier in their URIs. `T` is what the AUSF keeps of each.
pub(crate) struct Contexts<T> {
    entries: HashMap<Uuid, (Instant, u64, T)>,
    /// In the order they run out; the number tells apart those of one instant.
    deadlines: BTreeMap<(Instant, u64), Uuid>,
    next_number: u64,
    entries_max: usize,
    lifetime: Duration,
}

/// One that was taken out, with the time it would have run out.
pub(crate) struct Taken<T> {
    deadline: Instant,
    pub(crate) value: T,
}

/// The table is full of authentications whose time has not run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// When the first of them will.
    pub(crate) retry_after: Duration,
}

impl<T> Contexts<T> {
    pub(crate) fn new(entries_max: usize, lifetime: Duration) -> Self {
        Self { entries: HashMap::new(), deadlines: BTreeMap::new(), next_number: 0, entries_max, lifetime }
    }

    /// Adds one that starts at `now`.
    pub(crate) fn insert(&mut self, id: Uuid, value: T, now: Instant) -> Result<(), Full> {
        self.drop_expired(now);
        if self.entries.len() >= self.entries_max {
            let first = self.deadlines.first_key_value().map_or(now, |((deadline, _), _)| *deadline);
            return Err(Full { retry_after: first.saturating_duration_since(now) });
        }
        self.store(id, now + self.lifetime, value);
        Ok(())
    }

    fn store(&mut self, id: Uuid, deadline: Instant, value: T) {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        if let Some((deadline, number, _)) = self.entries.insert(id, (deadline, number, value)) {
            self.deadlines.remove(&(deadline, number));
        }
        self.deadlines.insert((deadline, number), id);
    }

    /// Takes one out; `None` when there is none, its time has run out, or `wanted` does not want it.
    pub(crate) fn take_if(&mut self, id: &Uuid, now: Instant, wanted: impl FnOnce(&T) -> bool) -> Option<Taken<T>> {
        self.drop_expired(now);
        if !wanted(&self.entries.get(id)?.2) {
            return None;
        }
        let (deadline, number, value) = self.entries.remove(id)?;
        self.deadlines.remove(&(deadline, number));
        Some(Taken { deadline, value })
    }

    /// Puts one back that was taken out, with the time it has left. Its place was free a moment ago, so that the
    /// table grows beyond its limit by no more than those being looked at.
    pub(crate) fn put_back(&mut self, id: Uuid, taken: Taken<T>) {
        self.store(id, taken.deadline, taken.value);
    }

    /// Drops those that `is_over` picks; how many.
    pub(crate) fn drop_where(&mut self, is_over: impl Fn(&T) -> bool) -> usize {
        let over: Vec<Uuid> =
            self.entries.iter().filter(|(_, (_, _, value))| is_over(value)).map(|(id, _)| *id).collect();
        for (deadline, number, _) in over.iter().filter_map(|id| self.entries.remove(id)) {
            self.deadlines.remove(&(deadline, number));
        }
        over.len()
    }

    fn drop_expired(&mut self, now: Instant) {
        while let Some(entry) = self.deadlines.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let id = entry.remove();
            self.entries.remove(&id);
        }
    }

    #[cfg(test)]
    fn take(&mut self, id: &Uuid, now: Instant) -> Option<T> {
        self.take_if(id, now, |_| true).map(|taken| taken.value)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        debug_assert_eq!(self.entries.len(), self.deadlines.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn one_is_taken_once() {
        let now = Instant::now();
        let mut contexts = Contexts::new(2, LIFETIME);
        contexts.insert(id(1), "a", now).unwrap();
        assert_eq!(contexts.take(&id(1), now), Some("a"));
        assert_eq!(contexts.take(&id(1), now), None);
        assert_eq!(contexts.len(), 0);
    }

    #[test]
    fn one_that_is_not_wanted_stays() {
        let now = Instant::now();
        let mut contexts = Contexts::new(2, LIFETIME);
        contexts.insert(id(1), "a", now).unwrap();
        assert!(contexts.take_if(&id(1), now, |value| *value == "b").is_none());
        assert_eq!(contexts.take(&id(1), now), Some("a"));
    }

    #[test]
    fn one_that_is_put_back_has_the_time_it_had_left() {
        let now = Instant::now();
        let mut contexts = Contexts::new(2, LIFETIME);
        contexts.insert(id(1), "a", now).unwrap();
        let taken = contexts.take_if(&id(1), now + Duration::from_secs(59), |_| true).unwrap();
        contexts.put_back(id(1), taken);
        assert_eq!(contexts.take(&id(1), now + LIFETIME), None);
    }

    #[test]
    fn one_whose_time_has_run_out_is_gone() {
        let now = Instant::now();
        let mut contexts = Contexts::new(2, LIFETIME);
        contexts.insert(id(1), "a", now).unwrap();
        assert_eq!(contexts.take(&id(1), now + LIFETIME), None);
        assert_eq!(contexts.len(), 0);
    }

    #[test]
    fn a_full_table_says_when_there_is_room_and_then_has_room() {
        let now = Instant::now();
        let mut contexts = Contexts::new(2, LIFETIME);
        contexts.insert(id(1), "a", now).unwrap();
        contexts.insert(id(2), "b", now + Duration::from_secs(10)).unwrap();
        let later = now + Duration::from_secs(20);
        assert_eq!(contexts.insert(id(3), "c", later), Err(Full { retry_after: Duration::from_secs(40) }));
        contexts.insert(id(3), "c", now + LIFETIME).unwrap();
        assert_eq!(contexts.take(&id(2), now + LIFETIME), Some("b"));
        assert_eq!(contexts.take(&id(3), now + LIFETIME), Some("c"));
    }
}
