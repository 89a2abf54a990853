//! A bounded table whose entries expire. Reads no clock.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Holds at most `entries_max` entries; to make room, the one nearest its expiry goes.
#[derive(Debug)]
pub struct Expiring<K, V> {
    entries_max: usize,
    entries: HashMap<K, (Place, V)>,
    by_expiry: BTreeMap<Place, K>,
    sequence: u64,
}

/// Expiry, then order of insertion.
type Place = (Instant, u64);

impl<K: Eq + Hash + Clone, V> Expiring<K, V> {
    /// An empty table of at most so many entries.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { entries_max, entries: HashMap::new(), by_expiry: BTreeMap::new(), sequence: 0 }
    }

    /// Puts an entry in, in the place of one of the same key. One that has expired already is not kept.
    pub fn insert(&mut self, key: K, value: V, expiry: Instant, now: Instant) {
        self.insert_for(key, value, expiry, now, |_| {});
    }

    /// [`Expiring::insert`], telling `gone` what had to go for it, besides the earlier entry of the same key.
    pub(crate) fn insert_for(&mut self, key: K, value: V, expiry: Instant, now: Instant, mut gone: impl FnMut(&K)) {
        self.remove(&key);
        if expiry <= now || self.entries_max == 0 {
            return;
        }
        while let Some(first) = self.by_expiry.first_entry()
            && (first.key().0 <= now || self.entries.len() >= self.entries_max)
        {
            let key = first.remove();
            self.entries.remove(&key);
            gone(&key);
        }
        self.sequence += 1;
        let place = (expiry, self.sequence);
        self.by_expiry.insert(place, key.clone());
        self.entries.insert(key, (place, value));
    }

    /// The value of `key`, if it has one that has not expired.
    pub fn live<Q>(&self, key: &Q, now: Instant) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get(key).filter(|((expiry, _), _)| now < *expiry).map(|(_, value)| value)
    }

    /// Takes the entry of `key` out.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some((place, _)) = self.entries.remove(key) {
            self.by_expiry.remove(&place);
        }
    }
}

/// `after` later than `now`; decades later where that is beyond the clock's range, as a configuration may have it.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or_else(|| now + FAR)
}

/// Thirty years.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn entries_end_at_their_expiry() {
        let now = Instant::now();
        let mut table = Expiring::new(4);
        table.insert("a", 1, now + Duration::from_secs(1), now);
        table.insert("b", 2, now, now);
        assert_eq!(table.live(&"a", now), Some(&1));
        assert_eq!(table.live(&"a", now + Duration::from_secs(1)), None);
        assert_eq!(table.live(&"b", now), None);
    }

    #[test]
    fn a_full_table_forgets_what_expires_first() {
        let now = Instant::now();
        let mut table = Expiring::new(2);
        for (key, seconds) in [("late", 9), ("early", 1), ("middle", 5)] {
            table.insert(key, (), now + Duration::from_secs(seconds), now);
        }
        assert!(table.live(&"early", now).is_none());
        assert!(table.live(&"late", now).is_some() && table.live(&"middle", now).is_some());
        assert_eq!((table.entries.len(), table.by_expiry.len()), (2, 2));
    }

    #[test]
    fn a_key_inserted_again_has_one_entry() {
        let now = Instant::now();
        let mut table = Expiring::new(8);
        for value in 0..20 {
            table.insert("a", value, now + Duration::from_secs(value), now);
        }
        assert_eq!(table.live(&"a", now), Some(&19));
        table.remove(&"a");
        assert_eq!((table.entries.len(), table.by_expiry.len()), (0, 0));
    }

    #[test]
    fn a_time_beyond_the_clock_is_decades_away_and_no_panic() {
        let now = Instant::now();
        assert_eq!(later(now, Duration::from_secs(1)), now + Duration::from_secs(1));
        for after in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_millis(u64::MAX)] {
            assert!(later(now, after) >= now + FAR);
        }
    }
}
