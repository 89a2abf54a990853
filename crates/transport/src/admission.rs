//! Slots that are limited in all and per source.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one subscriber or household can be told apart by: an IPv4 address, or an IPv6 /64.
///
/// Whoever has one IPv6 address has at least a /64 of them (RFC 6177), so single addresses would limit nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))),
            v4 => Self(v4),
        }
    }
}

/// Which limit refused a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// This source has all it may have; others are served.
    Source,
    /// No slot is left at all.
    All,
}

/// Hands out slots. Its table has at most `all_max` entries.
#[derive(Debug)]
pub(crate) struct Admission {
    all_max: usize,
    per_source_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_source: HashMap<Source, usize>,
}

impl Admission {
    pub(crate) fn new(all_max: usize, per_source_max: usize) -> Arc<Self> {
        Arc::new(Self { all_max, per_source_max, taken: Mutex::default() })
    }

    /// A slot, given back when it is dropped. The source's own limit is judged first, so that a flood from one
    /// source is refused for what it is.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Slot, Full> {
        let source = Source::from(address);
        let mut taken = self.taken();
        let of_source = taken.by_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.per_source_max {
            return Err(Full::Source);
        }
        if taken.all >= self.all_max {
            return Err(Full::All);
        }
        taken.all += 1;
        taken.by_source.insert(source, of_source + 1);
        Ok(Slot { admission: Arc::clone(self), source })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the slots.
#[derive(Debug)]
pub(crate) struct Slot {
    admission: Arc<Admission>,
    source: Source,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.admission.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.by_source.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_cannot_take_the_slots_of_others() {
        let admission = Admission::new(3, 2);
        let first = admission.admit(address("192.0.2.1")).unwrap();
        let _second = admission.admit(address("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.1")).unwrap_err(), Full::Source);
        let _other = admission.admit(address("192.0.2.2")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.3")).unwrap_err(), Full::All);
        drop(first);
        let _again = admission.admit(address("192.0.2.3")).unwrap();
    }

    #[test]
    fn an_ipv6_prefix_is_one_source_and_a_mapped_address_is_its_ipv4_address() {
        let admission = Admission::new(9, 1);
        let _slot = admission.admit(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(admission.admit(address("2001:db8:0:1:ffff::2")).unwrap_err(), Full::Source);
        let _other = admission.admit(address("2001:db8:0:2::1")).unwrap();
        let _v4 = admission.admit(address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(admission.admit(address("192.0.2.1")).unwrap_err(), Full::Source);
    }

    #[test]
    fn slots_given_back_leave_no_trace() {
        let admission = Admission::new(2, 2);
        drop([admission.admit(address("192.0.2.1")).unwrap(), admission.admit(address("192.0.2.2")).unwrap()]);
        assert!(admission.taken().by_source.is_empty());
        assert_eq!(admission.taken().all, 0);
    }
}
