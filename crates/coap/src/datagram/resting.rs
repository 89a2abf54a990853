//! An association that only remembers, in a few octets: Message IDs of the peer's that may come again, with what they were
//! answered, and our own that may not be used yet (RFC 7252 4.4, 4.5). Nothing of it is forgotten, only kept closer.

use std::time::Instant;

use super::deduplication::{Memory, Seen};
use super::reliability::Sending;
use super::{Active, DatagramConnection};

/// What is kept.
#[derive(Debug)]
pub(super) struct Resting {
    seen: Box<[Memory]>,
    id_blocks: Box<[(u16, Instant)]>,
}

/// Messages of the peer with which an association rests; one that remembers more does not, until it has forgotten enough.
const MEMORIES_MAX: usize = 32;

/// Octets of answers to them, likewise.
const ANSWER_OCTETS_MAX: usize = 2_048;

impl DatagramConnection {
    /// Gives back what only something under way needs, and says whether it did: nothing is under way
    /// ([`DatagramConnection::is_settled`]), nobody observes anything, no block is kept or waited for, and no more is to be
    /// remembered than what a few messages leave. It remembers all of that; whatever comes next goes on from it. Until then
    /// no time-out is due.
    pub fn rest(&mut self, now: Instant) -> bool {
        let settled = self.is_settled();
        let lifetime = self.config.transmission.exchange_lifetime();
        let Some(active) = &mut self.active else { return true };
        active.seen.expire(now);
        active.assemblies.expire(now);
        active.kept.expire(now);
        active.held.retain(|held| held.expires() > now);
        active.sending.expire(now, lifetime);
        let only_remembers = settled
            && active.observations.is_empty()
            && active.assemblies.is_empty()
            && active.kept.is_empty()
            && active.held.is_empty();
        if !only_remembers || !active.seen.is_within(MEMORIES_MAX, ANSWER_OCTETS_MAX) {
            self.settle();
            return false;
        }
        let resting = Resting { seen: active.seen.take(), id_blocks: active.sending.take_id_blocks() };
        self.active = None;
        if !resting.seen.is_empty() || !resting.id_blocks.is_empty() {
            self.resting = Some(Box::new(resting));
        }
        true
    }
}

impl Resting {
    pub(super) fn wake(self) -> Active {
        let (seen, sending) = (Seen::of(self.seen), Sending::of(self.id_blocks));
        Active { seen, sending, ..Active::default() }
    }
}
