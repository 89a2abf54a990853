//! UEs that registered by another A-KID lately, for whoever comes out of a handshake with an earlier one.
//!
//! The AAnF answers for the newest A-KID of a UE. So an older one can come into a session by a question only that the AAnF was
//! asked before the UE came here by a newer one, and just as long after that question as a handshake may take. For that long
//! it is remembered who registered (at a Configuration Function: connected) by which A-KID, and when; a session that another A-KID of
//! the UE proved, by an earlier question, is doubted: it is asked about before anything else is done for it. An A-KID that was asked for later than that is good by the AAnF's own word.
//!
//! What is remembered is a digest under a key of this process. UEs whose digests agree by accident cost one another a question.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use akma::{AKid, UeId};
use tokio::time::Instant;
use transport::ProvenPeer;

/// First registrations by an A-KID that are remembered. Where there are more within the time that a handshake may take, some three
/// thousand a second at the least of these times, the oldest is forgotten, and whoever was asked for before it is doubted.
const REGISTRATIONS_MAX: usize = 262_144;

/// The least time that they are remembered for.
const REMEMBERED_FOR_MIN: Duration = Duration::from_secs(60);

/// UEs that came by another A-KID lately, for whoever has handshakes under way: a session that comes of one, by a key that was asked
/// for before, is to be asked about before anything is done for it. It costs some 32 MiB at most, whoever comes.
#[derive(Debug)]
pub struct Superseding {
    digests: RandomState,
    /// By the digest of the UE.
    newest: HashMap<u64, Newest>,
    /// UEs, in the order in which they registered. One that registered by several is there for each.
    order: VecDeque<(u64, Instant)>,
    /// The newest registration that was forgotten before its time.
    forgotten_at: Option<Instant>,
    remembered_for: Duration,
    registrations_max: usize,
}

/// By what a UE registered last.
#[derive(Debug)]
struct Newest {
    /// Digest of the A-KID.
    a_kid: u64,
    at: Instant,
    /// When it last registered by another.
    other_at: Option<Instant>,
}

impl Default for Superseding {
    fn default() -> Self {
        Self {
            digests: RandomState::new(),
            newest: HashMap::new(),
            order: VecDeque::new(),
            forgotten_at: None,
            remembered_for: REMEMBERED_FOR_MIN,
            registrations_max: REGISTRATIONS_MAX,
        }
    }
}

impl Superseding {
    /// Remembers each for the longest that a key may be on its way into a session, or for a minute if that is longer.
    pub fn remember_for(&mut self, longest: Duration) {
        self.remembered_for = longest.max(REMEMBERED_FOR_MIN);
    }

    /// The UE has registered by this A-KID, for the first time or for the first time after another.
    pub fn registered(&mut self, ue_id: &UeId, a_kid: &AKid, now: Instant) {
        self.forget_old(now);
        while self.order.len() >= self.registrations_max {
            self.forgotten_at = self.order.front().map(|(_, at)| *at);
            self.forget_oldest();
        }
        let (ue, a_kid) = (self.digests.hash_one(ue_id), self.digests.hash_one(a_kid));
        let before = self.newest.remove(&ue);
        let other_at = before.and_then(|before| if before.a_kid == a_kid { before.other_at } else { Some(before.at) });
        self.newest.insert(ue, Newest { a_kid, at: now, other_at });
        self.order.push_back((ue, now));
    }

    /// Whether the UE may have registered by a newer A-KID after this peer's was asked for.
    pub fn doubts(&mut self, peer: &ProvenPeer, now: Instant) -> bool {
        self.forget_old(now);
        let Some(ue_id) = &peer.ue_id else { return false };
        let asked_before = |at: Option<Instant>| at.is_some_and(|at| peer.asked_at <= at);
        // Of times before those that are remembered nothing is known.
        if now.saturating_duration_since(peer.asked_at) > self.remembered_for || asked_before(self.forgotten_at) {
            return true;
        }
        self.newest.get(&self.digests.hash_one(ue_id)).is_some_and(|newest| {
            let same = newest.a_kid == self.digests.hash_one(&peer.a_kid);
            asked_before(if same { newest.other_at } else { Some(newest.at) })
        })
    }

    fn forget_old(&mut self, now: Instant) {
        let remembered_for = self.remembered_for;
        while self.order.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) > remembered_for) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((ue, at)) = self.order.pop_front() else { return };
        // One that registered again since stays.
        if self.newest.get(&ue).is_some_and(|newest| newest.at == at) {
            self.newest.remove(&ue);
        }
        if self.order.is_empty() {
            (self.newest, self.order) = (HashMap::new(), VecDeque::new());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use akma::UaProtocolId;
    use transport::TlsVersion;

    use super::*;

    fn a_kid(number: usize) -> AKid {
        format!("0.{number}@example.com").parse().unwrap()
    }

    fn ue_id(number: usize) -> UeId {
        format!("imsi-00101{number:010}").parse().unwrap()
    }

    fn peer(ue: usize, by: usize, asked_at: Instant) -> ProvenPeer {
        ProvenPeer {
            a_kid: a_kid(by),
            ue_id: Some(ue_id(ue)),
            gpsi: None,
            expires_at: None,
            asked_at,
            protocol: UaProtocolId::TLS_1_3,
            tls_version: TlsVersion::Tls13,
            cipher: "TLS_AES_128_GCM_SHA256",
        }
    }

    /// Times in seconds.
    fn times() -> impl Fn(u64) -> Instant {
        let begun = Instant::now();
        move |seconds| begun + Duration::from_secs(seconds)
    }

    #[test]
    fn who_was_asked_for_before_its_ue_registered_by_another_a_kid_is_doubted() {
        let (mut superseding, after) = (Superseding::default(), times());
        superseding.remember_for(Duration::from_secs(90));
        superseding.registered(&ue_id(1), &a_kid(2), after(10));
        let mut doubts = |ue, by, asked, now| superseding.doubts(&peer(ue, by, after(asked)), after(now));
        assert!(doubts(1, 1, 9, 11));
        assert!(doubts(1, 1, 10, 99), "for as long as a handshake may take");
        assert!(!doubts(1, 1, 11, 12), "the AAnF knew of the other then");
        assert!(!doubts(1, 2, 9, 11), "the one it registered by");
        assert!(!doubts(2, 1, 9, 11), "another UE");
        assert!(doubts(1, 1, 10, 101), "what was asked longer ago than is remembered");
        assert!(superseding.newest.is_empty() && superseding.order.is_empty());
    }

    #[test]
    fn of_several_a_kids_each_is_doubted_for_the_last_registration_by_another() {
        let (mut superseding, after) = (Superseding::default(), times());
        for (by, at) in [(1, 10), (2, 20), (2, 30)] {
            superseding.registered(&ue_id(1), &a_kid(by), after(at));
        }
        let mut doubts = |by, asked| superseding.doubts(&peer(1, by, after(asked)), after(40));
        assert!(doubts(1, 25) && doubts(3, 25) && !doubts(3, 31));
        assert!(doubts(2, 9) && !doubts(2, 11), "the newest, for the one before it");
        // The first of the three is forgotten, the others are not.
        assert!(superseding.doubts(&peer(1, 1, after(25)), after(79)));
        assert_eq!((superseding.newest.len(), superseding.order.len()), (1, 2));
    }

    #[test]
    fn where_more_register_than_are_remembered_whoever_was_asked_for_before_those_is_doubted() {
        let after = times();
        let mut superseding = Superseding { registrations_max: 2, ..Superseding::default() };
        for (number, at) in [(1, 10), (2, 11), (3, 12)] {
            superseding.registered(&ue_id(number), &a_kid(number), after(at));
        }
        assert_eq!((superseding.newest.len(), superseding.order.len()), (2, 2));
        let mut doubts = |ue, by, asked| superseding.doubts(&peer(ue, by, after(asked)), after(20));
        assert!(doubts(1, 0, 9), "it is forgotten, and not trusted");
        assert!(doubts(9, 9, 10), "nor is anybody else of that time");
        assert!(!doubts(9, 9, 11));
        assert!(doubts(3, 0, 11) && !doubts(3, 3, 11));
    }
}
