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
pub(super) struct Table {
    by_id: Sharded<Id, Arc<Peer>>,
    by_address: Sharded<SocketAddr, AtAddress>,
    hasher: RandomState,
    sessions: AtomicUsize,
}

/// Where the sessions' locks are spread.
const SHARDS: usize = 64;

type Id = [u8; CONNECTION_ID_OCTETS];
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

    /// Enters a session that begins its handshake, in the place of an earlier handshake from there, which has come to
    /// nothing.
    pub(super) fn enter(self: &Arc<Self>, peer: Arc<Peer>, address: SocketAddr) -> Entry {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        if let Ok(id) = Id::try_from(peer.connection_id.as_bytes())
            && let Some(shard) = self.by_id.get(self.shard(&id))
        {
            lock(shard).insert(id, Arc::clone(&peer));
        }
        let earlier = self
            .addresses(address)
            .and_then(|mut shard| shard.entry(address).or_default().handshaking.replace(Arc::clone(&peer)));
        if let Some(earlier) = earlier {
            earlier.displace();
        }
        Entry { table: Arc::clone(self), peer }
    }

    /// Its handshake is done: the address is its own. Who was there before lives on if it can be reached by a Connection
    /// ID.
    fn establish(&self, peer: &Arc<Peer>) {
        let Some(address) = peer.address() else { return };
        let earlier = self.addresses(address).and_then(|mut shard| {
            let at = shard.entry(address).or_default();
            if is(at.handshaking.as_ref(), peer) {
                at.handshaking = None;
            }
            at.established.replace(Arc::clone(peer))
        });
        displaced(earlier, peer);
    }

    /// It has another address.
    pub(super) fn moved(&self, peer: &Arc<Peer>, from: SocketAddr, to: SocketAddr) {
        self.leave(peer, from);
        let earlier =
            self.addresses(to).and_then(|mut shard| shard.entry(to).or_default().established.replace(Arc::clone(peer)));
        displaced(earlier, peer);
        if peer.is_gone() {
            // It was removed meanwhile, from where it was before.
            self.leave(peer, to);
        }
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

    fn remove(&self, peer: &Arc<Peer>) {
        peer.go();
        if let Ok(id) = Id::try_from(peer.connection_id.as_bytes())
            && let Some(shard) = self.by_id.get(self.shard(&id))
        {
            lock(shard).remove(&id);
        }
        if let Some(address) = peer.address() {
            self.leave(peer, address);
        }
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
}

impl Entry {
    pub(super) fn establish(&self) {
        self.table.establish(&self.peer);
    }

    /// Freezes the session, which is found by its Connection ID alone from then on; whether it is frozen.
    pub(super) fn freeze(&self) -> bool {
        let address = self.peer.address();
        let frozen = self.peer.freeze();
        if frozen && let Some(address) = address {
            self.table.leave(&self.peer, address);
        }
        frozen
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The reader may still hold it, but finds it no more.
        self.table.remove(&self.peer);
        self.peer.close(std::time::Instant::now());
    }
}

fn is(place: Option<&Arc<Peer>>, peer: &Arc<Peer>) -> bool {
    place.is_some_and(|other| Arc::ptr_eq(other, peer))
}

fn displaced(earlier: Option<Arc<Peer>>, by: &Arc<Peer>) {
    if let Some(earlier) = earlier.filter(|earlier| !Arc::ptr_eq(earlier, by) && !earlier.has_connection_id()) {
        earlier.displace();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
