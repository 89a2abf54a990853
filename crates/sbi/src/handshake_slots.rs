//! How many connections may be in their handshake.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use transport::Source;

/// Slots for connections that have not shown a certificate yet, counted in all and by source address.
pub(crate) struct HandshakeSlots {
    total_max: usize,
    per_source_max: usize,
    taken: Mutex<TakenSlots>,
}

#[derive(Default)]
struct TakenSlots {
    total: usize,
    by_source: HashMap<Source, usize>,
}

/// One handshake under way; dropped, it frees its slot.
pub(crate) struct HandshakeSlot {
    source: Source,
    slots: Arc<HandshakeSlots>,
}

impl HandshakeSlots {
    pub(crate) fn new(total_max: usize, per_source_max: usize) -> Arc<Self> {
        Arc::new(Self { total_max, per_source_max, taken: Mutex::default() })
    }

    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<HandshakeSlot> {
        let source = Source::from(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.total_max {
            return None;
        }
        let from_source = taken.by_source.entry(source).or_default();
        if *from_source >= self.per_source_max {
            return None;
        }
        *from_source += 1;
        taken.total += 1;
        Some(HandshakeSlot { source, slots: Arc::clone(self) })
    }
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total = taken.total.saturating_sub(1);
        if let Some(from_source) = taken.by_source.get_mut(&self.source) {
            *from_source = from_source.saturating_sub(1);
            if *from_source == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn handshake_slots_are_bounded_by_source_and_in_all_and_come_back() {
        let slots = HandshakeSlots::new(3, 2);
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = slots.take(here).unwrap();
        let _second = slots.take(here).unwrap();
        assert!(slots.take(here).is_none(), "a source has its own limit");
        let _third = slots.take(there).unwrap();
        assert!(slots.take(there).is_none(), "all together have a limit");
        drop(first);
        assert!(slots.take(here).is_some());
    }

    #[test]
    fn an_ipv6_prefix_is_one_source_and_a_mapped_address_is_its_ipv4_address() {
        let slots = HandshakeSlots::new(9, 1);
        let take = |address: &str| slots.take(address.parse().unwrap());
        let _first = take("2001:db8:0:1::1").unwrap();
        assert!(take("2001:db8:0:1:ffff::2").is_none());
        let _other = take("2001:db8:0:2::1").unwrap();
        let _v4 = take("::ffff:192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
    }

    #[test]
    fn a_source_without_handshakes_is_forgotten() {
        let slots = HandshakeSlots::new(3, 2);
        drop(slots.take("192.0.2.1".parse().unwrap()));
        assert!(slots.taken.lock().unwrap().by_source.is_empty());
    }
}
