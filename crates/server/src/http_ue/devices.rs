//! Who has proven itself: one entry for each A-KID, with what outlives a request.
//!
//! The table is bounded. When it is full, whoever proves itself takes the place of the device that has been silent for longest,
//! of those that have no session and have been silent for longer than a nonce lives: they lose no message, only have to register
//! again, and no nonce that they used is good any more. Where there is none such, the newcomer is asked to come back. So nobody
//! is displaced who is there, and nobody displaces without K_AF.
//!
//! Who has a K_AF can come as ever more devices. So none has the whole table looked through: devices stand in the order of their
//! silence, and a newcomer looks at the first few. Of these, who was heard since, or is at work, goes to where it belongs; where
//! that was all, the newcomer is asked to come back, and looks at the next.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use akma::{AKid, UaProtocolId};
use bytes::Bytes;
use message::Address;
use sbi::DeviceTls;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use transport::{FoundKey, ProvenPeer, TlsVersion};

use super::Front;
use super::config::DeviceLimits;
use super::counters::Counters;
use super::link::{self, Command, LinkHandle};
use super::nonce::{Nonce, Nonces};
use crate::registry::{Party, Registry};
use crate::sync::lock;

/// Devices that one newcomer to a full table has looked at, at most.
const LOOKED_AT_MAX: usize = 32;

/// Who was found at work is not looked at again before this.
const AT_WORK_PAUSE: Duration = Duration::from_secs(10);

/// Every device that is remembered.
pub(super) struct Devices {
    table: Mutex<Table>,
    devices_max: usize,
    idle: Duration,
    /// Silence after which one may be displaced.
    displaceable: Duration,
}

#[derive(Default)]
struct Table {
    known: HashMap<AKid, Arc<Device>>,
    /// Each of them once, by since when it was silent when that was last looked at, then by when it came. It may have been heard
    /// since.
    by_silence: BTreeMap<(Instant, u64), AKid>,
    entered: u64,
}

/// There are as many as there may be.
#[derive(Debug)]
pub(super) struct Full;

impl Devices {
    pub(super) fn new(limits: &DeviceLimits) -> Self {
        Self {
            table: Mutex::default(),
            devices_max: limits.devices_max,
            idle: limits.device_idle(),
            displaceable: limits.nonce_lifetime(),
        }
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.table).known.len()
    }

    pub(super) fn find(&self, a_kid: &AKid) -> Option<Arc<Device>> {
        lock(&self.table).known.get(a_kid).cloned()
    }

    /// The entry of a device that has just proven itself.
    pub(super) fn enter(&self, a_kid: &AKid, now: Instant) -> Result<Arc<Device>, Full> {
        let mut table = lock(&self.table);
        if let Some(device) = table.known.get(a_kid) {
            return Ok(Arc::clone(device));
        }
        if table.known.len() >= self.devices_max && !table.displace(now, self.displaceable) {
            return Err(Full);
        }
        let device = Arc::new(Device { a_kid: a_kid.clone(), state: Mutex::new(State::new(now)) });
        table.entered += 1;
        let place = (now, table.entered);
        table.by_silence.insert(place, a_kid.clone());
        table.known.insert(a_kid.clone(), Arc::clone(&device));
        Ok(device)
    }

    /// Forgets those that were silent for too long and that nobody works for.
    pub(super) fn sweep(&self, now: Instant) {
        let table = &mut *lock(&self.table);
        while table.forget_first(now, self.idle) != Looked::TooYoung {}
    }
}

/// What became of the one that seemed silent for longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// It is forgotten.
    Forgotten,
    /// It was heard since, or is at work, and has another place now.
    Moved,
    /// It was heard too lately, or there is none: nobody has been silent for long enough.
    TooYoung,
}

impl Table {
    /// Makes room, with a look at a few; whether there is some.
    fn displace(&mut self, now: Instant, silence_min: Duration) -> bool {
        for _ in 0..LOOKED_AT_MAX {
            match self.forget_first(now, silence_min) {
                Looked::Forgotten => return true,
                Looked::Moved => {}
                Looked::TooYoung => return false,
            }
        }
        false
    }

    /// Forgets the one that has been silent for longest, if it has been for `silence_min` and nobody works for it.
    fn forget_first(&mut self, now: Instant, silence_min: Duration) -> Looked {
        let lately = |at: Instant| now.saturating_duration_since(at) < silence_min;
        let Some(first) = self.by_silence.first_entry().filter(|first| !lately(first.key().0)) else {
            return Looked::TooYoung;
        };
        let ((silent_since, number), a_kid) = first.remove_entry();
        let Some(device) = self.known.get(&a_kid) else { return Looked::Moved };
        let state = lock(&device.state);
        let place = if Arc::strong_count(device) > 1 || state.has_session() {
            // As if it had been heard so that it is looked at again after the pause.
            let until = now.checked_sub(silence_min).unwrap_or(now) + AT_WORK_PAUSE;
            Some(until.max(state.heard_at))
        } else {
            (state.heard_at > silent_since).then_some(state.heard_at)
        };
        drop(state);
        match place {
            Some(silent_since) => {
                self.by_silence.insert((silent_since, number), a_kid);
                Looked::Moved
            }
            None => {
                self.known.remove(&a_kid);
                Looked::Forgotten
            }
        }
    }
}

/// One A-KID.
pub(super) struct Device {
    pub(super) a_kid: AKid,
    state: Mutex<State>,
}

struct State {
    key: Option<FoundKey>,
    /// What the key is for.
    protocol: UaProtocolId,
    counters: Counters,
    heard_at: Instant,
    registration: Option<Registered>,
    link: Option<LinkHandle>,
}

/// What the device registered, to be repeated on a new link.
#[derive(Clone)]
pub(super) struct Registered {
    /// The request.
    pub(super) body: Bytes,
    pub(super) address: Address,
    /// Who registered: a UE Service ID that was de-registered since, and registered again, is another party.
    party: Weak<Party>,
    /// Of the registration: another since then is somebody else's, or another connection's.
    generation: u64,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) source: IpAddr,
    pub(super) tls: Option<DeviceTls>,
}

/// A command was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// As many wait as may.
    TooMany,
    /// There is no key to prove the device's connection with any more.
    NoKey,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            key: None,
            protocol: UaProtocolId::HTTP_DIGEST,
            counters: Counters::default(),
            heard_at: now,
            registration: None,
            link: None,
        }
    }

    fn has_session(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.commands.is_closed())
    }
}

impl Device {
    /// The key of its session, if it has one, and it is for this protocol.
    pub(super) fn key_in_use(&self, protocol: UaProtocolId) -> Option<FoundKey> {
        let state = lock(&self.state);
        state.key.clone().filter(|_| state.has_session() && state.protocol == protocol)
    }

    /// Notes what it has proven itself with, and ends its session if that is another UE's.
    pub(super) fn prove(&self, found: FoundKey, protocol: UaProtocolId) {
        let mut state = lock(&self.state);
        let same = state.key.as_ref().is_none_or(|before| before.key.ue_id == found.key.ue_id);
        (state.key, state.protocol) = (Some(found), protocol);
        if !same {
            (state.registration, state.link) = (None, None);
        }
    }

    /// The key server does not vouch for it any more.
    pub(super) fn disprove(&self) {
        let mut state = lock(&self.state);
        (state.key, state.registration, state.link) = (None, None, None);
    }

    /// Whether this count of this nonce is new.
    pub(super) fn count(&self, nonce: Nonce, count: u32, nonces: &Nonces, nonces_max: usize) -> bool {
        let mut state = lock(&self.state);
        let now = Instant::now();
        state.heard_at = now;
        state.counters.take(nonce, count, nonces, now, nonces_max)
    }

    pub(super) fn registered(&self, registration: Option<Registered>) {
        lock(&self.state).registration = registration;
    }

    /// Notes a new registration, or the one at hand again, with the generation that it has now.
    pub(super) fn update_registration(&self, new: Option<(Bytes, Address)>, registry: &Registry) {
        let mut state = lock(&self.state);
        let before = state.registration.take().map(|before| (before.body, before.address));
        let Some((body, address)) = new.or(before) else { return };
        state.registration = registry.find(&address).map(|party| {
            let generation = lock(&party.state).generation;
            Registered { body, address, party: Arc::downgrade(&party), generation }
        });
    }

    /// Hands a command to the device's link, which is made if there is none.
    pub(super) fn send(self: &Arc<Self>, front: &Arc<Front>, origin: Origin, command: Command) -> Result<(), NotTaken> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let command = match &state.link {
            Some(link) => match link.commands.try_send(command) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(NotTaken::TooMany),
                Err(TrySendError::Closed(command)) => command,
            },
            None => command,
        };
        let key = state.key.as_ref().ok_or(NotTaken::NoKey)?;
        let registration = state.registration.clone().filter(Registered::is_current);
        if registration.is_none() {
            state.registration = None;
        }
        let peer = proven(&self.a_kid, key, state.protocol, origin.tls);
        let link = link::open(front, self, peer, origin.source, registration);
        let sent = link.commands.try_send(command).map_err(|_| NotTaken::TooMany);
        state.link = Some(link);
        sent
    }

    /// Takes the link out if nothing waits for it; otherwise it is to go on.
    pub(super) fn give_up(&self, is_idle: impl FnOnce() -> bool) -> bool {
        let mut state = lock(&self.state);
        let idle = is_idle();
        if idle {
            state.link = None;
        }
        idle
    }
}

impl Registered {
    /// Whether it is still the registration of that UE Service ID.
    fn is_current(&self) -> bool {
        self.party.upgrade().is_some_and(|party| {
            let state = lock(&party.state);
            !state.gone && state.generation == self.generation
        })
    }
}

/// What a session is told of its peer.
fn proven(a_kid: &AKid, found: &FoundKey, protocol: UaProtocolId, tls: Option<DeviceTls>) -> ProvenPeer {
    let FoundKey { key, asked_at } = found;
    let tls = tls.unwrap_or(DeviceTls { version: TlsVersion::Tls12, cipher: "unknown", suite: 0 });
    ProvenPeer {
        a_kid: a_kid.clone(),
        ue_id: key.ue_id.clone(),
        gpsi: key.gpsi.clone(),
        expires_at: key.expires_at,
        asked_at: *asked_at,
        protocol,
        tls_version: tls.version,
        cipher: tls.cipher,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn a_kid(number: usize) -> AKid {
        format!("0.{number}@5gc.mnc001.mcc001.3gppnetwork.org").parse().unwrap()
    }

    fn devices(devices_max: usize) -> (Devices, impl Fn(u64) -> Instant) {
        let limits = DeviceLimits {
            devices_max,
            nonce_lifetime_seconds: 10,
            device_idle_seconds: 100,
            ..DeviceLimits::default()
        };
        let begun = Instant::now();
        (Devices::new(&limits), move |seconds| begun + Duration::from_secs(seconds))
    }

    fn is_heard(devices: &Devices, number: usize, at: Instant) {
        lock(&devices.find(&a_kid(number)).unwrap().state).heard_at = at;
    }

    #[test]
    fn who_proves_itself_takes_the_place_of_the_longest_silent_and_of_nobody_who_is_there() {
        let (devices, after) = devices(3);
        for (number, seconds) in [(1, 0), (2, 1), (3, 2)] {
            devices.enter(&a_kid(number), after(seconds)).unwrap();
        }
        is_heard(&devices, 2, after(3));
        assert!(devices.enter(&a_kid(4), after(9)).is_err(), "their nonces may be good still");
        let in_use = devices.find(&a_kid(1)).unwrap();
        devices.enter(&a_kid(4), after(13)).unwrap();
        assert!(devices.find(&a_kid(3)).is_none(), "of those that nobody works for, the longest silent");
        assert!(devices.enter(&a_kid(2), after(13)).is_ok() && devices.count() == 3);
        drop(in_use);
        devices.enter(&a_kid(5), after(13)).unwrap();
        assert!(devices.find(&a_kid(2)).is_none(), "the other was at work a moment ago");
        devices.enter(&a_kid(6), after(23)).unwrap();
        assert!(devices.find(&a_kid(1)).is_none() && devices.count() == 3);
    }

    #[test]
    fn a_newcomer_has_few_looked_at_and_who_comes_again_has_the_next() {
        let (devices, after) = devices(100);
        let mut in_use: Vec<_> = (0..100).map(|number| devices.enter(&a_kid(number), after(0)).unwrap()).collect();
        let moved = |devices: &Devices| {
            let table = lock(&devices.table);
            assert_eq!((table.by_silence.len(), table.known.len()), (100, 100));
            table.by_silence.keys().filter(|(silent_since, _)| *silent_since != after(0)).count()
        };
        assert!(devices.enter(&a_kid(100), after(10)).is_err());
        assert_eq!(moved(&devices), LOOKED_AT_MAX);
        in_use.pop();
        assert!(devices.enter(&a_kid(100), after(10)).is_err());
        assert_eq!(moved(&devices), 2 * LOOKED_AT_MAX);
        assert!(devices.enter(&a_kid(100), after(10)).is_err());
        devices.enter(&a_kid(100), after(10)).unwrap();
        assert!(devices.find(&a_kid(99)).is_none(), "the only one that nobody works for");
    }

    #[test]
    fn who_is_silent_for_too_long_is_forgotten_unless_it_is_at_work() {
        let (devices, after) = devices(10);
        for number in 0..4 {
            devices.enter(&a_kid(number), after(0)).unwrap();
        }
        is_heard(&devices, 1, after(50));
        let in_use = devices.find(&a_kid(2)).unwrap();
        devices.sweep(after(99));
        assert_eq!(devices.count(), 4);
        devices.sweep(after(100));
        let is_there = |number| devices.find(&a_kid(number)).is_some();
        assert_eq!([0, 1, 2, 3].map(is_there), [false, true, true, false]);
        drop(in_use);
        devices.sweep(after(110));
        assert_eq!([1, 2].map(is_there), [true, false]);
        devices.sweep(after(150));
        assert_eq!(devices.count(), 0);
        assert!(lock(&devices.table).by_silence.is_empty());
    }
}
