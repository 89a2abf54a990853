//! How many connections there may be: in all, and of one holder, which is an address while nobody has proven anything and a
//! peer afterwards.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Slots, counted in all and by holder.
pub(crate) struct Slots<K: Hash + Eq> {
    total_max: usize,
    per_holder_max: usize,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    total: usize,
    by_holder: HashMap<K, usize>,
}

/// A slot that was taken; dropped, it is free again.
pub(crate) struct Slot<K: Hash + Eq> {
    holder: K,
    slots: Arc<Slots<K>>,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    Total,
    /// The holder has as many as one may have.
    Holder,
}

impl<K: Hash + Eq + Clone> Slots<K> {
    pub(crate) fn new(total_max: usize, per_holder_max: usize) -> Arc<Self> {
        let taken = Mutex::new(Taken { total: 0, by_holder: HashMap::new() });
        Arc::new(Self { total_max, per_holder_max, taken })
    }

    pub(crate) fn take(self: &Arc<Self>, holder: K) -> Result<Slot<K>, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.total_max {
            return Err(Full::Total);
        }
        let held = taken.by_holder.get(&holder).copied().unwrap_or_default();
        if held >= self.per_holder_max {
            return Err(Full::Holder);
        }
        taken.by_holder.insert(holder.clone(), held + 1);
        taken.total += 1;
        Ok(Slot { holder, slots: Arc::clone(self) })
    }
}

impl<K: Hash + Eq> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total = taken.total.saturating_sub(1);
        if let Some(held) = taken.by_holder.get_mut(&self.holder) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::IpAddr;

    use transport::Source;

    use super::*;

    #[test]
    fn slots_are_bounded_by_holder_and_in_all_and_come_back() {
        let slots = Slots::new(3, 2);
        let first = slots.take("here").unwrap();
        let _second = slots.take("here").unwrap();
        assert_eq!(slots.take("here").err(), Some(Full::Holder));
        let _third = slots.take("there").unwrap();
        assert_eq!(slots.take("there").err(), Some(Full::Total));
        drop(first);
        assert!(slots.take("here").is_ok());
    }

    #[test]
    fn an_ipv6_prefix_is_one_source_and_a_mapped_address_is_its_ipv4_address() {
        let slots = Slots::new(9, 1);
        let take = |address: &str| slots.take(Source::from(address.parse::<IpAddr>().unwrap()));
        let _first = take("2001:db8:0:1::1").unwrap();
        assert!(take("2001:db8:0:1:ffff::2").is_err());
        let _other = take("2001:db8:0:2::1").unwrap();
        let _v4 = take("::ffff:192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_err());
    }

    #[test]
    fn a_holder_without_slots_is_forgotten() {
        let slots = Slots::new(3, 2);
        drop(slots.take("here"));
        assert!(slots.taken.lock().unwrap().by_holder.is_empty());
    }
}
