//! Who has proven itself: one entry for each A-KID, with what outlives a request.
//!
//! The table is bounded. When it is full, whoever proves itself takes the place of the device that has been silent for longest,
//! of those that have no session and have been silent for longer than a nonce lives: they lose no message, only have to register
//! again, and no nonce that they used is good any more. Where there is none such, the newcomer is asked to come back. So nobody
//! is displaced who is there, and nobody displaces without K_AF.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akma::{AKid, UaProtocolId};
use bytes::Bytes;
use message::Address;
use sbi::DeviceTls;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use transport::{ProvenKey, ProvenPeer, TlsVersion};

use super::Front;
use super::config::DeviceLimits;
use super::counters::Counters;
use super::link::{self, Command, LinkHandle};
use super::nonce::{Nonce, Nonces};
use crate::sync::lock;

/// Every device that is remembered.
pub(super) struct Devices {
    known: Mutex<HashMap<AKid, Arc<Device>>>,
    devices_max: usize,
    idle: Duration,
    /// Silence after which one may be displaced.
    displaceable: Duration,
}

/// There are as many as there may be.
#[derive(Debug)]
pub(super) struct Full;

impl Devices {
    pub(super) fn new(limits: &DeviceLimits) -> Self {
        Self {
            known: Mutex::default(),
            devices_max: limits.devices_max,
            idle: limits.device_idle(),
            displaceable: limits.nonce_lifetime(),
        }
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.known).len()
    }

    pub(super) fn find(&self, a_kid: &AKid) -> Option<Arc<Device>> {
        lock(&self.known).get(a_kid).cloned()
    }

    /// The entry of a device that has just proven itself.
    pub(super) fn enter(&self, a_kid: &AKid, now: Instant) -> Result<Arc<Device>, Full> {
        let mut known = lock(&self.known);
        if let Some(device) = known.get(a_kid) {
            return Ok(Arc::clone(device));
        }
        if known.len() >= self.devices_max {
            let displaced = self.displaceable(&known, now).ok_or(Full)?;
            known.remove(&displaced);
        }
        let device = Arc::new(Device { a_kid: a_kid.clone(), state: Mutex::new(State::new(now)) });
        known.insert(a_kid.clone(), Arc::clone(&device));
        Ok(device)
    }

    fn displaceable(&self, known: &HashMap<AKid, Arc<Device>>, now: Instant) -> Option<AKid> {
        let silent = known.iter().filter(|(_, device)| Arc::strong_count(device) == 1);
        let displaceable = silent.filter_map(|(a_kid, device)| {
            let state = lock(&device.state);
            let long = now.saturating_duration_since(state.heard_at) >= self.displaceable;
            (long && !state.has_session()).then_some((state.heard_at, a_kid))
        });
        displaceable.min_by_key(|(heard_at, _)| *heard_at).map(|(_, a_kid)| a_kid.clone())
    }

    /// Forgets those that were silent for too long and that nobody works for.
    pub(super) fn sweep(&self, now: Instant) {
        lock(&self.known).retain(|_, device| Arc::strong_count(device) > 1 || !device.is_idle(now, self.idle));
    }
}

/// One A-KID.
pub(super) struct Device {
    pub(super) a_kid: AKid,
    state: Mutex<State>,
}

struct State {
    key: Option<ProvenKey>,
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
    /// Of the registration: another since then is somebody else's, or another connection's.
    pub(super) generation: u64,
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
    pub(super) fn key_in_use(&self, protocol: UaProtocolId) -> Option<ProvenKey> {
        let state = lock(&self.state);
        state.key.clone().filter(|_| state.has_session() && state.protocol == protocol)
    }

    /// Notes what it has proven itself with, and ends its session if that is another UE's.
    pub(super) fn prove(&self, key: ProvenKey, protocol: UaProtocolId) {
        let mut state = lock(&self.state);
        let same = state.key.as_ref().is_none_or(|before| before.ue_id == key.ue_id);
        (state.key, state.protocol) = (Some(key), protocol);
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
    pub(super) fn update_registration(
        &self,
        new: Option<(Bytes, Address)>,
        generation_of: impl FnOnce(&Address) -> Option<u64>,
    ) {
        let mut state = lock(&self.state);
        let before = state.registration.take().map(|before| (before.body, before.address));
        let Some((body, address)) = new.or(before) else { return };
        let generation = generation_of(&address);
        state.registration = generation.map(|generation| Registered { body, address, generation });
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
        let registration = state.registration.clone().filter(|registration| registration.is_current(front));
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

    fn is_idle(&self, now: Instant, idle: Duration) -> bool {
        now.saturating_duration_since(lock(&self.state).heard_at) >= idle
    }
}

impl Registered {
    /// Whether it is still the registration of that UE Service ID.
    fn is_current(&self, front: &Front) -> bool {
        front.core.registry.find(&self.address).is_some_and(|party| {
            let state = lock(&party.state);
            !state.gone && state.generation == self.generation
        })
    }
}

/// What a session is told of its peer.
fn proven(a_kid: &AKid, key: &ProvenKey, protocol: UaProtocolId, tls: Option<DeviceTls>) -> ProvenPeer {
    let tls = tls.unwrap_or(DeviceTls { version: TlsVersion::Tls12, cipher: "unknown", suite: 0 });
    ProvenPeer {
        a_kid: a_kid.clone(),
        ue_id: key.ue_id.clone(),
        gpsi: key.gpsi.clone(),
        expires_at: key.expires_at,
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

    #[test]
    fn who_proves_itself_takes_the_place_of_the_longest_silent_and_of_nobody_who_is_there() {
        let limits = DeviceLimits { devices_max: 3, nonce_lifetime_seconds: 10, ..DeviceLimits::default() };
        let (devices, begun) = (Devices::new(&limits), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        for (number, seconds) in [(1, 0), (2, 2), (3, 1)] {
            devices.enter(&a_kid(number), after(seconds)).unwrap();
        }
        assert!(devices.enter(&a_kid(4), after(9)).is_err(), "their nonces may be good still");
        let in_use = devices.find(&a_kid(1)).unwrap();
        devices.enter(&a_kid(4), after(12)).unwrap();
        assert!(devices.find(&a_kid(3)).is_none(), "of those that nobody works for, the longest silent");
        assert!(devices.enter(&a_kid(2), after(12)).is_ok() && devices.count() == 3);
        drop(in_use);
        devices.enter(&a_kid(5), after(12)).unwrap();
        assert!(devices.find(&a_kid(1)).is_none() && devices.count() == 3);
    }
}
