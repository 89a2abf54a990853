//! What was handed over, remembered so that it is not handed over again.
//!
//! A server that was killed delivers again what it had no acknowledgement of, and order is kept between one originator
//! and one recipient within one priority: what comes again comes before, or together with, what follows it there. How
//! much of *other* originators and priorities comes in between has no bound, though: a message of low priority waits
//! behind everything of a higher one. So the latest [`LATEST_KEPT`] of each such stream are forgotten last of all.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use message::{Address, Priority};

use crate::hand_over::{HandOverKey, Kind};

/// How many of one stream may come again: several times what a server has on its way to one UE at once.
const LATEST_KEPT: usize = 256;

/// Those among which order is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stream {
    kind: Kind,
    originator: Address,
    priority: Priority,
}

/// A bounded memory of hand-overs.
#[derive(Debug)]
pub(crate) struct Remembered {
    max: usize,
    known: HashSet<Arc<HandOverKey>>,
    /// By when they were remembered.
    entries: BTreeMap<u64, (Arc<HandOverKey>, Arc<Stream>)>,
    next: u64,
    /// The latest of each stream, at most [`LATEST_KEPT`], oldest first.
    latest: HashMap<Arc<Stream>, VecDeque<u64>>,
    /// The others, oldest first: forgotten before any of `latest` is.
    surplus: VecDeque<u64>,
}

impl Remembered {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            known: HashSet::new(),
            entries: BTreeMap::new(),
            next: 0,
            latest: HashMap::new(),
            surplus: VecDeque::new(),
        }
    }

    pub(crate) fn contains(&self, key: &HandOverKey) -> bool {
        self.known.contains(key)
    }

    /// Remembers something that was handed over, and forgets what can best be missed when there is no more room.
    pub(crate) fn insert(&mut self, key: HandOverKey, priority: Priority) {
        if self.known.contains(&key) {
            return;
        }
        let stream = Stream { kind: key.kind, originator: key.originator.clone(), priority };
        let key = Arc::new(key);
        // One allocation for a stream, however much of it is remembered.
        let stream =
            self.latest.get_key_value(&stream).map_or_else(|| Arc::new(stream), |(known, _)| Arc::clone(known));
        let number = self.next;
        self.next += 1;
        self.known.insert(Arc::clone(&key));
        let latest = self.latest.entry(Arc::clone(&stream)).or_default();
        latest.push_back(number);
        if latest.len() > LATEST_KEPT {
            self.surplus.extend(latest.pop_front());
        }
        self.entries.insert(number, (key, stream));
        if self.entries.len() > self.max {
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        if let Some(number) = self.surplus.pop_front() {
            if let Some((key, _)) = self.entries.remove(&number) {
                self.known.remove(&key);
            }
            return;
        }
        // More streams than there is room for the latest of: the oldest of all is also the oldest of its stream.
        let Some((_, (key, stream))) = self.entries.pop_first() else { return };
        self.known.remove(&key);
        if let Some(latest) = self.latest.get_mut(&stream) {
            latest.pop_front();
            if latest.is_empty() {
                self.latest.remove(&stream);
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn key(originator: &str, id: u64) -> HandOverKey {
        HandOverKey {
            kind: Kind::Message,
            originator: Address::ue(&originator.parse().unwrap()),
            message_id: id.to_string().parse().unwrap(),
            segment: None,
        }
    }

    #[test]
    fn a_message_of_low_priority_is_still_known_after_any_number_of_higher_ones() {
        let mut remembered = Remembered::new(1_000);
        remembered.insert(key("a@x", 0), Priority::Low);
        for id in 1..10_000 {
            remembered.insert(key("a@x", id), Priority::High);
        }
        assert!(remembered.contains(&key("a@x", 0)));
        assert!(!remembered.contains(&key("a@x", 1)), "there is a bound");
        assert_eq!(remembered.len(), 1_000);
    }

    #[test]
    fn with_more_streams_than_room_the_oldest_of_all_is_forgotten_and_nothing_of_it_stays() {
        let mut remembered = Remembered::new(100);
        for id in 0..10_000 {
            remembered.insert(key(&format!("{id}@x"), id), Priority::Middle);
        }
        assert_eq!((remembered.len(), remembered.known.len(), remembered.latest.len()), (100, 100, 100));
        assert!(remembered.contains(&key("9900@x", 9_900)));
        assert!(!remembered.contains(&key("9899@x", 9_899)));
    }

    proptest! {
        /// Whatever comes in whatever order: the latest of each stream are known while there is room for them, no more
        /// is kept than may be, and the tables agree.
        #[test]
        fn the_latest_of_each_stream_are_known(of in proptest::collection::vec(0_u64..4, 0..2_500)) {
            let mut remembered = Remembered::new(4 * LATEST_KEPT);
            let mut streams: HashMap<u64, Vec<HandOverKey>> = HashMap::new();
            for (id, stream) in of.into_iter().enumerate() {
                let key = key(&format!("{stream}@x"), id as u64);
                streams.entry(stream).or_default().push(key.clone());
                remembered.insert(key, Priority::Middle);
            }
            for keys in streams.values() {
                for key in keys.iter().rev().take(LATEST_KEPT) {
                    prop_assert!(remembered.contains(key));
                }
            }
            prop_assert!(remembered.len() <= 4 * LATEST_KEPT);
            prop_assert_eq!(remembered.known.len(), remembered.len());
            let latest: usize = remembered.latest.values().map(VecDeque::len).sum();
            prop_assert_eq!(latest + remembered.surplus.len(), remembered.len());
        }
    }
}
