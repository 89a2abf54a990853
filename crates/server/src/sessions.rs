//! Every session there is, of whatever kind, so that those of one UE can be told to end.
//!
//! A session is its [`Mailbox`]; what proved it is its A-KID and, where the AAnF told, its UE ID. Orders to end are letters
//! (`CloseReason`), so whoever takes letters obeys them, over whichever transport it speaks.
//!
//! An A-KID that was withdrawn while a handshake with it was under way is remembered for as long as a handshake may take, so
//! that the session which comes of it ends as it begins; so is the A-KID that a UE registered by, so that a session which comes of
//! a handshake with an older one is asked about before it registers ([`Superseding`]).

use std::collections::{HashMap, hash_map};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use akma::{AKid, UeId};
use sbi::naanf::{RecentlyDisabled, ServiceDisabled, Superseding};
use transport::ProvenPeer;

use crate::core::Core;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::sync::lock;

const SHARDS: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    shards: [Mutex<HashMap<u64, Arc<Mailbox>>>; SHARDS],
    next: AtomicU64,
    connections: AtomicUsize,
    datagram_sessions: AtomicUsize,
    proven: Mutex<Proven>,
}

/// Numbers of sessions, by what proved them.
#[derive(Debug, Default)]
struct Proven {
    of_a_kids: HashMap<AKid, Numbers>,
    of_ues: HashMap<UeId, Numbers>,
    withdrawn: RecentlyDisabled,
    superseding: Superseding,
}

/// Almost everybody has one session, which takes no memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Numbers {
    One([u64; 1]),
    Several(Vec<u64>),
}

impl Numbers {
    fn as_slice(&self) -> &[u64] {
        match self {
            Self::One(number) => number,
            Self::Several(numbers) => numbers,
        }
    }
}

/// A TCP connection, or a session over datagrams, that counts until this is dropped, however its task ends.
pub(crate) struct Connection {
    core: Arc<Core>,
    over_datagrams: bool,
}

impl Connection {
    /// None if there are as many as there may be.
    pub(crate) fn count(core: &Arc<Core>) -> Option<Self> {
        let connection = Self { core: Arc::clone(core), over_datagrams: false };
        let before = core.sessions.connections.fetch_add(1, Ordering::Relaxed);
        (before < core.limits.connections_max).then_some(connection)
    }

    /// It takes no descriptor, and its own limit is kept where it comes from.
    pub(crate) fn over_datagrams(core: &Arc<Core>) -> Self {
        core.sessions.datagram_sessions.fetch_add(1, Ordering::Relaxed);
        Self { core: Arc::clone(core), over_datagrams: true }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let sessions = &self.core.sessions;
        let count = if self.over_datagrams { &sessions.datagram_sessions } else { &sessions.connections };
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session among [`Sessions`] until this is dropped, however its task ends.
pub(crate) struct Entry {
    core: Arc<Core>,
    number: u64,
    a_kid: AKid,
    ue_id: Option<UeId>,
}

impl Entry {
    /// Enters the session that takes letters from `mailbox` and was proven by `peer`; tells it to end where it may not be.
    pub(crate) fn new(core: &Arc<Core>, mailbox: &Arc<Mailbox>, peer: &ProvenPeer) -> Self {
        let sessions = &core.sessions;
        let number = sessions.next.fetch_add(1, Ordering::Relaxed);
        if let Some(shard) = sessions.shard(number) {
            lock(shard).insert(number, Arc::clone(mailbox));
        }
        let (a_kid, ue_id) = (peer.a_kid.clone(), peer.ue_id.clone());
        let mut proven = lock(&sessions.proven);
        if let Some(ue_id) = &ue_id {
            enter(&mut proven.of_ues, ue_id, number);
        }
        if enter(&mut proven.of_a_kids, &a_kid, number) > core.limits.connections_per_a_kid_max {
            mailbox.post(Letter::Close(CloseReason::TooMany));
        }
        if proven.withdrawn.contains(&a_kid, Instant::now()) {
            mailbox.post(Letter::Close(CloseReason::ServiceDisabled));
        }
        let forgot = proven.withdrawn.forgot_since(peer.asked_at.into_std());
        if forgot || proven.superseding.doubts(peer, tokio::time::Instant::now()) {
            tracing::debug!(target: "security", %a_kid, "a newer A-KID, or that AKMA is disabled, may have been told meanwhile");
            mailbox.post(Letter::Revalidate);
        }
        drop(proven);
        if core.stopping.is_cancelled() {
            mailbox.post(Letter::Close(CloseReason::Stopping));
        }
        Self { core: Arc::clone(core), number, a_kid, ue_id }
    }
}

impl Entry {
    /// What no other session has.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn a_kid(&self) -> &AKid {
        &self.a_kid
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let sessions = &self.core.sessions;
        if let Some(shard) = sessions.shard(self.number) {
            lock(shard).remove(&self.number);
        }
        let mut proven = lock(&sessions.proven);
        leave(&mut proven.of_a_kids, &self.a_kid, self.number);
        if let Some(ue_id) = &self.ue_id {
            leave(&mut proven.of_ues, ue_id, self.number);
        }
    }
}

/// Adds a number; how many there are then.
fn enter<K: Clone + Eq + Hash>(numbers: &mut HashMap<K, Numbers>, key: &K, number: u64) -> usize {
    match numbers.entry(key.clone()) {
        hash_map::Entry::Vacant(entry) => {
            entry.insert(Numbers::One([number]));
            1
        }
        hash_map::Entry::Occupied(mut entry) => {
            let several = [entry.get().as_slice(), &[number]].concat();
            let count = several.len();
            entry.insert(Numbers::Several(several));
            count
        }
    }
}

fn leave<K: Eq + Hash>(numbers: &mut HashMap<K, Numbers>, key: &K, number: u64) {
    let Some(those) = numbers.get_mut(key) else { return };
    let left: Vec<u64> = those.as_slice().iter().copied().filter(|other| *other != number).collect();
    match left.as_slice() {
        [] => drop(numbers.remove(key)),
        [one] => *those = Numbers::One([*one]),
        _ => *those = Numbers::Several(left),
    }
}

impl Sessions {
    fn shard(&self, number: u64) -> Option<&Mutex<HashMap<u64, Arc<Mailbox>>>> {
        self.shards.get(usize::try_from(number % SHARDS as u64).ok()?)
    }

    /// Connections, and sessions over datagrams, those in their handshake included.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed) + self.datagram_sessions.load(Ordering::Relaxed)
    }

    /// The longest that a key may be on its way into a session, and for how long it may be used again; before the first one.
    pub(crate) fn handshakes_last(&self, longest: Duration, reused: Duration) {
        let mut proven = lock(&self.proven);
        proven.withdrawn.remember_for(longest);
        proven.superseding.remember_for(longest.saturating_add(reused));
    }

    /// Tells every session to end in good order.
    pub(crate) fn stop_all(&self) {
        for shard in &self.shards {
            for mailbox in lock(shard).values() {
                mailbox.post(Letter::Close(CloseReason::Stopping));
            }
        }
    }

    /// Tells every session of this A-KID to end, those that are about to begin included; how many there were.
    pub(crate) fn withdraw(&self, a_kid: &AKid) -> usize {
        let mut proven = lock(&self.proven);
        proven.withdrawn.insert(a_kid, Instant::now());
        let numbers = proven.of_a_kids.get(a_kid).map(|numbers| numbers.as_slice().to_vec()).unwrap_or_default();
        drop(proven);
        numbers.iter().filter(|number| self.post(**number, Letter::Close(CloseReason::ServiceDisabled))).count()
    }

    /// Has every session of this UE that another A-KID proved ask at once whether that is still good: there is a newer one. Where
    /// the registration by that is not the one of before again, those whose handshakes are under way are asked about, too.
    pub(crate) fn superseded(&self, ue_id: &UeId, by: &AKid, anew: bool) {
        let mut proven = lock(&self.proven);
        if anew {
            proven.superseding.registered(ue_id, by, tokio::time::Instant::now());
        }
        let newer = proven.of_a_kids.get(by).map(Numbers::as_slice).unwrap_or_default();
        let of_ue = proven.of_ues.get(ue_id).map(Numbers::as_slice).unwrap_or_default();
        let older: Vec<u64> = of_ue.iter().filter(|number| !newer.contains(number)).copied().collect();
        drop(proven);
        for number in older {
            self.post(number, Letter::Revalidate);
        }
    }

    /// Whether there is such a session.
    fn post(&self, number: u64, letter: Letter) -> bool {
        let mailbox = self.shard(number).and_then(|shard| lock(shard).get(&number).cloned());
        mailbox.is_some_and(|mailbox| {
            mailbox.post(letter);
            true
        })
    }
}

/// The server as a consumer of Naanf_AKMA_ServiceDisableNotification.
pub(crate) struct DisabledSessions(pub(crate) Arc<Core>);

impl ServiceDisabled for DisabledSessions {
    fn service_disabled(&self, a_kid: &AKid) -> usize {
        if let Some(keys) = &self.0.keys {
            // A look-up under way may have been answered before.
            keys.forget(a_kid);
        }
        self.0.sessions.withdraw(a_kid)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn a_kid(number: usize) -> AKid {
        format!("0.{number}@example.com").parse().unwrap()
    }

    #[test]
    fn nothing_is_left_of_who_has_left() {
        let mut numbers = HashMap::new();
        assert_eq!(enter(&mut numbers, &a_kid(1), 7), 1);
        assert_eq!(enter(&mut numbers, &a_kid(1), 8), 2);
        leave(&mut numbers, &a_kid(1), 7);
        assert_eq!(numbers.get(&a_kid(1)), Some(&Numbers::One([8])));
        leave(&mut numbers, &a_kid(1), 8);
        leave(&mut numbers, &a_kid(1), 8);
        assert!(numbers.is_empty());
    }
}
