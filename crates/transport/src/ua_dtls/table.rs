//! Which session a datagram belongs to: by its Connection ID, or by its address.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dtls::ConnectionId;

use super::CONNECTION_ID_OCTETS;
use super::peer::Peer;

/// All sessions of all sockets of a listener: a peer that moves may arrive at another socket. No session's lock is taken
/// while one of these is held.
///
/// A session is known at one address at most, the one that was proven for its handshake, and for what has no Connection ID:
/// handshakes, and sessions whose client does none. Nobody is entered at an address by what it sends from there later.
pub(super) struct Table {
    by_id: Sharded<Id, Arc<Peer>>,
    by_address: Sharded<SocketAddr, AtAddress>,
    hasher: RandomState,
    sessions: AtomicUsize,
}

/// Where the sessions' locks are spread.
const SHARDS: usize = 64;

/// A Connection ID of ours.
pub(super) type Id = [u8; CONNECTION_ID_OCTETS];
type Sharded<Key, Value> = Box<[Mutex<HashMap<Key, Value>>]>;

/// Who is at an address. A client that starts anew keeps its session until the new one stands (RFC 6347 4.2.8).
#[derive(Default, Clone)]
pub(super) struct AtAddress {
    pub(super) established: Option<Arc<Peer>>,
    pub(super) handshaking: Option<Arc<Peer>>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            by_id: (0..SHARDS).map(|_| Mutex::default()).collect(),
            by_address: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            sessions: AtomicUsize::new(0),
        }
    }

    /// Sessions, those in their handshake included.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(super) fn of_id(&self, id: &ConnectionId) -> Option<Arc<Peer>> {
        let id = Id::try_from(id.as_bytes()).ok()?;
        lock(self.by_id.get(self.shard(&id))?).get(&id).cloned()
    }

    pub(super) fn at(&self, address: SocketAddr) -> AtAddress {
        self.addresses(address).and_then(|shard| shard.get(&address).cloned()).unwrap_or_default()
    }

    /// Addresses at which somebody is known.
    pub(super) fn known_addresses(&self) -> usize {
        self.by_address.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Enters a session that begins its handshake, in the place of an earlier handshake from there, which has come to
    /// nothing. `address` has been proven by a cookie.
    pub(super) fn enter(self: &Arc<Self>, peer: Arc<Peer>, address: SocketAddr) -> Entry {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        if let Some(shard) = self.by_id.get(self.shard(&peer.id)) {
            lock(shard).insert(peer.id, Arc::clone(&peer));
        }
        let earlier = self
            .addresses(address)
            .and_then(|mut shard| shard.entry(address).or_default().handshaking.replace(Arc::clone(&peer)));
        if let Some(earlier) = earlier {
            earlier.displace(address);
        }
        Entry { table: Arc::clone(self), peer, address }
    }

    /// Enters a frozen session of an earlier start, by its Connection ID alone: its address is nobody's until a handshake
    /// proves it. None if that is taken.
    pub(super) fn enter_restored(self: &Arc<Self>, peer: Arc<Peer>) -> Option<Entry> {
        let id = peer.id;
        // The one that it has left when it was frozen.
        let address = peer.address()?;
        let mut shard = lock(self.by_id.get(self.shard(&id))?);
        if shard.contains_key(&id) {
            return None;
        }
        shard.insert(id, Arc::clone(&peer));
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Some(Entry { table: Arc::clone(self), peer, address })
    }

    /// Its handshake is done: the address that it has proven is its own. Who was there before lives on if it can be reached
    /// by a Connection ID. One that has moved meanwhile is found by its Connection ID only, wherever it claims to be.
    fn establish(&self, peer: &Arc<Peer>, address: SocketAddr) {
        if peer.address() != Some(address) {
            return self.leave(peer, address);
        }
        let earlier = self.addresses(address).and_then(|mut shard| {
            let at = shard.entry(address).or_default();
            if is(at.handshaking.as_ref(), peer) {
                at.handshaking = None;
            }
            at.established.replace(Arc::clone(peer))
        });
        if let Some(earlier) = earlier.filter(|earlier| !Arc::ptr_eq(earlier, peer) && !earlier.has_connection_id()) {
            earlier.displace(address);
        }
        if peer.address() != Some(address) {
            self.leave(peer, address);
        }
    }

    /// It has moved away from that address. It was found by its Connection ID, as all that move are, and it goes on to be:
    /// where it claims to be now is nobody's to take, and who is known there stays known.
    pub(super) fn moved(&self, peer: &Arc<Peer>, from: SocketAddr) {
        self.leave(peer, from);
    }

    fn leave(&self, peer: &Arc<Peer>, address: SocketAddr) {
        let Some(mut shard) = self.addresses(address) else { return };
        if let Some(at) = shard.get_mut(&address) {
            at.established = at.established.take().filter(|other| !Arc::ptr_eq(other, peer));
            at.handshaking = at.handshaking.take().filter(|other| !Arc::ptr_eq(other, peer));
            if at.established.is_none() && at.handshaking.is_none() {
                shard.remove(&address);
            }
        }
    }

    fn remove(&self, peer: &Arc<Peer>, address: SocketAddr) {
        if let Some(shard) = self.by_id.get(self.shard(&peer.id)) {
            lock(shard).remove(&peer.id);
        }
        self.leave(peer, address);
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    fn addresses(&self, address: SocketAddr) -> Option<MutexGuard<'_, HashMap<SocketAddr, AtAddress>>> {
        self.by_address.get(self.shard(&address)).map(lock)
    }

    fn shard(&self, key: &impl std::hash::Hash) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default()
    }
}

/// A session in the table, until this is dropped; then its peer is told that it has ended.
pub(super) struct Entry {
    table: Arc<Table>,
    pub(super) peer: Arc<Peer>,
    /// The one at which it is known, until it moves away: that of its handshake, which a cookie has proven.
    address: SocketAddr,
}

impl Entry {
    pub(super) fn establish(&self) {
        self.table.establish(&self.peer, self.address);
    }

    /// Freezes the session, which is found by its Connection ID alone from then on; whether it is frozen.
    pub(super) fn freeze(&self) -> bool {
        let frozen = self.peer.freeze();
        if frozen {
            self.table.leave(&self.peer, self.address);
        }
        frozen
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The reader may still hold it, but finds it no more.
        self.table.remove(&self.peer, self.address);
        self.peer.close(std::time::Instant::now());
    }
}

fn is(place: Option<&Arc<Peer>>, peer: &Arc<Peer>) -> bool {
    place.is_some_and(|other| Arc::ptr_eq(other, peer))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
