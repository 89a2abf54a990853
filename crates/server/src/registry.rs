//! Who is where: every registered UE and AS, connected or away.
//!
//! Sharded by identity, so that registrations and look-ups of different parties rarely meet. A party's own state is
//! behind its own lock, which is held for no longer than a decision takes and never while waiting for anything.
//!
//! A connection belongs to a party by its *generation*: each new registration has a higher one, and whatever an older
//! connection still says, its own end included, is recognised and ignored.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use message::{Address, AddressType, ClientProfile};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::deduplication::{Key, KeyMap, Recent};
use crate::delivery::Pipeline;
use crate::limits::Limits;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::sync::lock;

const SHARDS: usize = 64;

/// How long the next opening of a UE's window is reckoned by a clock that is not the day's.
const WINDOW_RECHECK: Duration = Duration::from_secs(3600);

/// A registered UE or AS, as originator and as recipient.
#[derive(Debug)]
pub(crate) struct Party {
    pub(crate) address: Address,
    /// What it sent lately.
    pub(crate) recent: Mutex<Recent>,
    /// What is for it.
    pub(crate) state: Mutex<PartyState>,
    /// Requests of a UE that wait for their answer, whichever of its connections they came on.
    open_requests: AtomicUsize,
}

/// One of a UE's requests that wait for their answer, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenRequest(Arc<Party>);

impl OpenRequest {
    /// Counts one more; none if there are as many as there may be.
    pub(crate) fn of(party: &Arc<Party>, open_max: usize) -> Option<Self> {
        let open = Self(Arc::clone(party));
        (party.open_requests.fetch_add(1, Ordering::Relaxed) < open_max).then_some(open)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open_requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The part of a party that changes.
#[derive(Debug, Default)]
pub(crate) struct PartyState {
    /// Counts registrations.
    pub(crate) generation: u64,
    /// Who carries messages to it; none while it is away.
    pub(crate) carrier: Option<Arc<Mailbox>>,
    /// Whose session lasts though it counts as away: it acknowledged nothing, and may be asleep.
    pub(crate) sleeper: Option<Arc<Mailbox>>,
    /// It deregistered; this is only still held by somebody who looked it up before.
    pub(crate) gone: bool,
    /// What its client said about itself when it registered (TS 23.554 table 8.2.1-1).
    pub(crate) profile: Option<Box<ClientProfile>>,
    /// Tells whether the durable record would change, without keeping it.
    pub(crate) record_fingerprint: u64,
    /// Its last delivery is long ago enough that idle memory is given back.
    pub(crate) resting: bool,
    pipeline: Option<Box<Pipeline>>,
    /// The first tag of the next pipeline.
    next_tag: u64,
    awaited: Option<Box<AwaitedReports>>,
}

impl Party {
    pub(crate) fn new(address: Address) -> Arc<Self> {
        Arc::new(Self {
            address,
            recent: Mutex::default(),
            state: Mutex::default(),
            open_requests: AtomicUsize::new(0),
        })
    }

    pub(crate) fn is_application_server(&self) -> bool {
        self.address.addr_type == AddressType::As
    }

    pub(crate) fn is_ue(&self) -> bool {
        self.address.addr_type == AddressType::Ue
    }

    /// Makes `mailbox` the carrier, in place of an earlier one, which is told to end. None if the party is gone.
    pub(crate) fn attach(&self, mailbox: &Arc<Mailbox>, profile: Option<ClientProfile>) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.gone {
            return None;
        }
        state.profile = profile.map(Box::new);
        Some(Self::carry(state, mailbox))
    }

    /// Makes `mailbox` the carrier, unless there is one already, or one that dozes. None then, or if the party is gone.
    pub(crate) fn attach_first(&self, mailbox: &Arc<Mailbox>) -> Option<u64> {
        let state = lock(&self.state);
        if state.gone || state.carrier.is_some() || state.sleeper.is_some() {
            return None;
        }
        Some(Self::carry(state, mailbox))
    }

    fn carry(mut state: MutexGuard<'_, PartyState>, mailbox: &Arc<Mailbox>) -> u64 {
        state.generation += 1;
        let earlier = state.carrier.replace(Arc::clone(mailbox)).or_else(|| state.sleeper.take());
        state.sleeper = None;
        if let Some(pipeline) = &mut state.pipeline {
            pipeline.attach();
        }
        let generation = state.generation;
        drop(state);
        if let Some(earlier) = earlier
            && !Arc::ptr_eq(&earlier, mailbox)
        {
            earlier.post(Letter::Close(CloseReason::Replaced));
        }
        mailbox.knock();
        generation
    }

    /// Makes the mailbox that dozed as this generation the carrier again. None if another one came meanwhile, or the party is
    /// gone.
    pub(crate) fn rouse(&self, mailbox: &Arc<Mailbox>, generation: u64) -> Option<u64> {
        let state = lock(&self.state);
        if state.generation != generation || state.carrier.is_some() || state.gone {
            return None;
        }
        Some(Self::carry(state, mailbox))
    }

    /// Forgets one that dozed and has ended.
    pub(crate) fn forget_sleeper(&self, mailbox: &Arc<Mailbox>) {
        let mut state = lock(&self.state);
        state.sleeper = state.sleeper.take().filter(|sleeper| !Arc::ptr_eq(sleeper, mailbox));
    }

    /// Whether the carrier of this generation still carries.
    pub(crate) fn is_carried_by(&self, generation: u64) -> bool {
        let state = lock(&self.state);
        state.generation == generation && state.carrier.is_some()
    }

    /// Whether the registration of this generation still is this mailbox's, that of its carrier or of one that dozes.
    pub(crate) fn is_held_by(&self, mailbox: &Arc<Mailbox>, generation: u64) -> bool {
        let state = lock(&self.state);
        let holder = state.carrier.as_ref().or(state.sleeper.as_ref());
        state.generation == generation && !state.gone && holder.is_some_and(|holder| Arc::ptr_eq(holder, mailbox))
    }

    /// Whether something waits for it in memory.
    pub(crate) fn is_awaited(&self) -> bool {
        lock(&self.state).pipeline_if_any().is_some_and(|pipeline| !pipeline.is_idle())
    }

    /// Gives back memory that an idle party does not need.
    pub(crate) fn rest(&self, now: Instant, remembered: Duration) {
        lock(&self.recent).forget_old(now, remembered);
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.resting, true)
            && let Some(pipeline) = state.pipeline.take_if(|pipeline| pipeline.is_idle())
        {
            state.next_tag = pipeline.next_tag();
        }
    }
}

impl PartyState {
    /// Octets of payload that this UE takes at once (TS 23.554 8.5.1); none for whoever takes messages whole.
    pub(crate) fn segment_octets(&self, party: &Party, limits: &Limits) -> Option<usize> {
        let own = self.profile.as_ref().and_then(|profile| profile.segment_size);
        let own = own.and_then(|octets| usize::try_from(octets).ok()).unwrap_or(usize::MAX);
        (party.address.addr_type == AddressType::Ue).then(|| own.min(limits.payload_octets_max).max(1))
    }

    /// When the next window opens in which its client can be reached, if none is open. A schedule that is over says nothing
    /// any more: its UE is served as one that never gave one (INFERRED).
    pub(crate) fn closed_until(&self, utc: OffsetDateTime, now: Instant) -> Option<Instant> {
        let availability = self.profile.as_ref()?.availability.as_ref()?;
        let opens = availability.next_open(utc).filter(|opens| *opens > utc)?;
        // The clock of the day may be set meanwhile: then the window is asked for again.
        let wait = Duration::try_from(opens - utc).unwrap_or(WINDOW_RECHECK).min(WINDOW_RECHECK);
        Some(now + wait)
    }

    /// Whether its client said that it takes aggregated messages (TS 23.554 8.4.1).
    pub(crate) fn takes_aggregates(&self) -> bool {
        self.profile.as_ref().is_some_and(|profile| profile.aggregation == Some(true))
    }

    /// The pipeline, made if there is none.
    pub(crate) fn pipeline(&mut self) -> &mut Pipeline {
        self.resting = false;
        let (connected, first_tag) = (self.carrier.is_some(), self.next_tag);
        self.pipeline.get_or_insert_with(|| Box::new(Pipeline::new(connected, first_tag)))
    }

    /// The pipeline, if there is anything in it.
    pub(crate) fn pipeline_if_any(&mut self) -> Option<&mut Pipeline> {
        self.pipeline.as_deref_mut()
    }

    /// The pipeline, if there is anything in it and it belongs to the carrier of this generation.
    pub(crate) fn pipeline_of(&mut self, generation: u64) -> Option<&mut Pipeline> {
        if self.generation == generation { self.pipeline_if_any() } else { None }
    }

    /// Notes that a message was sent to this party whose originator wants a report.
    pub(crate) fn await_report(&mut self, key: Key, entries_max: usize) {
        self.awaited.get_or_insert_default().insert(key, entries_max);
    }

    /// Says that messages were delivered of which nothing is noted here: before a restart.
    pub(crate) fn awaits_unknown_reports(&mut self) {
        self.awaited.get_or_insert_default().forgot_at = Some(Instant::now());
    }

    /// False if this party never got the message it reports on. What was forgotten is believed for as long as `believed`.
    pub(crate) fn may_report(&self, key: Key, now: Instant, believed: Duration) -> bool {
        self.awaited.as_ref().is_some_and(|awaited| awaited.expects(key, now, believed))
    }
}

/// Messages whose report is awaited. Past its bound, and after a restart, a report on a message not noted here is
/// believed for as long as a message may live at most: its sender is proven all the same, and the originator knows what it
/// sent to whom.
#[derive(Debug, Default)]
struct AwaitedReports {
    keys: KeyMap<()>,
    order: VecDeque<Key>,
    /// When one was last forgotten.
    forgot_at: Option<Instant>,
}

impl AwaitedReports {
    fn insert(&mut self, key: Key, entries_max: usize) {
        if self.keys.insert(key, ()).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > entries_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
            self.forgot_at = Some(Instant::now());
        }
    }

    fn expects(&self, key: Key, now: Instant, believed: Duration) -> bool {
        let forgot_lately = self.forgot_at.is_some_and(|at| now.saturating_duration_since(at) < believed);
        forgot_lately || self.keys.contains_key(&key)
    }
}

type Shard = Mutex<HashSet<ByAddress>>;

/// A party by its address, which stands in the party alone.
#[derive(Debug)]
struct ByAddress(Arc<Party>);

impl Borrow<Address> for ByAddress {
    fn borrow(&self) -> &Address {
        &self.0.address
    }
}

impl Hash for ByAddress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.address.hash(state);
    }
}

impl PartialEq for ByAddress {
    fn eq(&self, other: &Self) -> bool {
        self.0.address == other.0.address
    }
}

impl Eq for ByAddress {}

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: Box<[Shard]>,
    hasher: RandomState,
    ues: AtomicUsize,
}

/// The registry holds as many UEs as it may.
#[derive(Debug)]
pub(crate) struct RegistryFull;

impl Registry {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), ues: AtomicUsize::new(0) }
    }

    pub(crate) fn find(&self, address: &Address) -> Option<Arc<Party>> {
        lock(self.shard(address)?).get(address).map(|found| Arc::clone(&found.0))
    }

    /// The party of this address, made if there is none and there is room.
    pub(crate) fn find_or_insert(&self, address: &Address, ues_max: usize) -> Result<Arc<Party>, RegistryFull> {
        let mut shard = lock(self.shard(address).ok_or(RegistryFull)?);
        if let Some(found) = shard.get(address) {
            return Ok(Arc::clone(&found.0));
        }
        let is_ue = address.addr_type == AddressType::Ue;
        if is_ue && self.ues.fetch_add(1, Ordering::Relaxed) >= ues_max {
            self.ues.fetch_sub(1, Ordering::Relaxed);
            return Err(RegistryFull);
        }
        let party = Party::new(address.clone());
        shard.insert(ByAddress(Arc::clone(&party)));
        Ok(party)
    }

    /// Takes this very party out.
    pub(crate) fn remove(&self, party: &Arc<Party>) {
        let Some(shard) = self.shard(&party.address) else { return };
        let mut shard = lock(shard);
        if shard.get(&party.address).is_some_and(|found| Arc::ptr_eq(&found.0, party)) {
            shard.remove(&party.address);
            if party.address.addr_type == AddressType::Ue {
                self.ues.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Registered UEs, away or not.
    pub(crate) fn ues(&self) -> usize {
        self.ues.load(Ordering::Relaxed)
    }

    /// The parties of one shard, for work that goes round all of them.
    pub(crate) fn shard_parties(&self, index: usize) -> Vec<Arc<Party>> {
        self.shards
            .get(index)
            .map(|shard| lock(shard).iter().map(|found| Arc::clone(&found.0)).collect())
            .unwrap_or_default()
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    fn shard(&self, address: &Address) -> Option<&Shard> {
        let hash = self.hasher.hash_one(address.addr.as_str());
        self.shards.get(usize::try_from(hash % SHARDS as u64).ok()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_report_on_what_was_forgotten_is_believed_for_a_time() {
        const BELIEVED: Duration = Duration::from_secs(100);
        let key = |id: &str| Key::report("alice", &id.parse().unwrap());
        let mut state = PartyState::default();
        let now = Instant::now();
        state.await_report(key("1"), 1);
        assert!(!state.may_report(key("2"), now, BELIEVED), "nothing was forgotten");
        state.await_report(key("2"), 1);
        let forgotten = Instant::now();
        assert!(state.may_report(key("1"), forgotten, BELIEVED));
        let later = forgotten + BELIEVED;
        assert!(!state.may_report(key("1"), later, BELIEVED));
        assert!(state.may_report(key("2"), later, BELIEVED), "it is remembered");
        let mut state = PartyState::default();
        state.awaits_unknown_reports();
        let restarted = Instant::now();
        assert!(state.may_report(key("1"), restarted, BELIEVED));
        assert!(!state.may_report(key("1"), restarted + BELIEVED, BELIEVED));
    }
}
