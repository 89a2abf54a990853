//! Who is who on the UDP socket: contexts by UE-SID, sessions by address, `/akma` exchanges by address and Message ID.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use coap::oscore::{KeyId, SecurityContext};
use tokio::sync::mpsc;

use crate::admission::Slot;
use crate::psk_server::ProvenPeer;

/// A datagram and where it came from.
pub type Arrived = (Vec<u8>, SocketAddr);

/// A context that nobody has used yet.
pub(super) struct Unproven {
    pub(super) context: SecurityContext,
    pub(super) peer: ProvenPeer,
    pub(super) expires: Instant,
    pub(super) exchange: Exchange,
    /// Counts for its source until it is used or dropped.
    pub(super) _slot: Slot,
}

/// An `/akma` request: its sender's copies of it are told by this.
pub(super) type Exchange = (SocketAddr, u16);

enum Entry {
    Unproven(Box<Unproven>),
    Live(mpsc::Sender<Arrived>),
}

/// What is known of a `kid`.
pub(super) enum Known {
    Nothing,
    /// A context that was not used yet, taken out: put it back, or let it live.
    Unproven(Box<Unproven>),
    Live(mpsc::Sender<Arrived>),
}

enum Asked {
    UnderWay { expires: Instant },
    Answered { answer: Vec<u8>, expires: Instant },
}

/// What is known of an `/akma` request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// It is new.
    Nothing,
    /// Its answer is to come.
    UnderWay,
    /// Its answer.
    Answered(Vec<u8>),
}

/// All of it. Its size is bounded by `contexts_max` and `unproven_max`.
#[derive(Default)]
pub(super) struct Tables(Mutex<State>);

#[derive(Default)]
struct State {
    contexts: HashMap<KeyId, Entry>,
    /// The newest session at each address, for what names no context: responses, acknowledgements.
    addresses: HashMap<SocketAddr, KeyId>,
    exchanges: HashMap<Exchange, Asked>,
}

impl Tables {
    pub(super) fn contexts(&self) -> usize {
        self.state().contexts.len()
    }

    pub(super) fn is_free(&self, id: &KeyId) -> bool {
        !self.state().contexts.contains_key(id)
    }

    /// Whether that request came before. If not, it is under way from now on.
    pub(super) fn begin(&self, exchange: Exchange, expires: Instant) -> Before {
        let mut state = self.state();
        match state.exchanges.get(&exchange) {
            Some(Asked::UnderWay { .. }) => Before::UnderWay,
            Some(Asked::Answered { answer, .. }) => Before::Answered(answer.clone()),
            None => {
                state.exchanges.insert(exchange, Asked::UnderWay { expires });
                Before::Nothing
            }
        }
    }

    /// An exchange that came to nothing: a copy of its request begins anew.
    pub(super) fn forget(&self, exchange: Exchange) {
        self.state().exchanges.remove(&exchange);
    }

    /// Enters a context and the answer that tells of it. False if somebody else took the ID meanwhile.
    pub(super) fn agreed(&self, id: KeyId, unproven: Unproven, answer: Vec<u8>) -> bool {
        let mut state = self.state();
        if state.contexts.contains_key(&id) {
            return false;
        }
        state.exchanges.insert(unproven.exchange, Asked::Answered { answer, expires: unproven.expires });
        state.contexts.insert(id, Entry::Unproven(Box::new(unproven)));
        true
    }

    /// Takes a look at a context.
    pub(super) fn find(&self, id: &KeyId) -> Known {
        let mut state = self.state();
        match state.contexts.get(id) {
            None => Known::Nothing,
            Some(Entry::Live(session)) => Known::Live(session.clone()),
            Some(Entry::Unproven(_)) => match state.contexts.remove(id) {
                Some(Entry::Unproven(unproven)) => Known::Unproven(unproven),
                _ => Known::Nothing,
            },
        }
    }

    /// A context that [`Tables::find`] gave and nobody has proven to hold.
    pub(super) fn put_back(&self, id: KeyId, unproven: Box<Unproven>) {
        self.state().contexts.insert(id, Entry::Unproven(unproven));
    }

    /// A context is used from now on, by that session at that address. Its exchange is over.
    pub(super) fn live(&self, id: KeyId, exchange: Exchange, source: SocketAddr, session: mpsc::Sender<Arrived>) {
        let mut state = self.state();
        state.exchanges.remove(&exchange);
        state.contexts.insert(id, Entry::Live(session));
        state.addresses.insert(source, id);
    }

    /// The session at an address.
    pub(super) fn at(&self, source: SocketAddr) -> Option<mpsc::Sender<Arrived>> {
        let state = self.state();
        match state.contexts.get(state.addresses.get(&source)?)? {
            Entry::Live(session) => Some(session.clone()),
            Entry::Unproven(_) => None,
        }
    }

    /// A session is at another address.
    pub(super) fn moved(&self, id: KeyId, from: SocketAddr, to: SocketAddr) {
        let mut state = self.state();
        if state.addresses.get(&from) == Some(&id) {
            state.addresses.remove(&from);
        }
        state.addresses.insert(to, id);
    }

    /// A session is over, and its context with it.
    pub(super) fn ended(&self, id: KeyId, address: SocketAddr) {
        let mut state = self.state();
        state.contexts.remove(&id);
        if state.addresses.get(&address) == Some(&id) {
            state.addresses.remove(&address);
        }
    }

    /// Nothing is received any more: every session comes to its end.
    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }

    /// Drops what nobody came for; how many contexts that were.
    pub(super) fn expire(&self, now: Instant) -> usize {
        let mut state = self.state();
        let before = state.contexts.len();
        state.contexts.retain(|_, entry| match entry {
            Entry::Unproven(unproven) => unproven.expires > now,
            Entry::Live(_) => true,
        });
        state.exchanges.retain(|_, asked| match asked {
            Asked::UnderWay { expires } | Asked::Answered { expires, .. } => *expires > now,
        });
        before - state.contexts.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the tables, given back when it is dropped.
pub(super) struct Place {
    tables: Arc<Tables>,
    id: KeyId,
    address: SocketAddr,
}

impl Place {
    pub(super) fn new(tables: Arc<Tables>, id: KeyId, address: SocketAddr) -> Self {
        Self { tables, id, address }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn moved(&mut self, to: SocketAddr) {
        self.tables.moved(self.id, self.address, to);
        self.address = to;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tables.ended(self.id, self.address);
    }
}
