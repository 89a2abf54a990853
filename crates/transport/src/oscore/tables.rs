//! Who is who on the UDP socket: contexts by UE-SID, sessions by address, `/akma` exchanges by address and Message ID.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use akma::AKid;
use coap::oscore::{KeyId, OscoreError, SecurityContext};
use tokio::sync::mpsc;

use crate::admission::{Slot, Source};
use crate::carrier::Token;
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
    /// A context that is used for the first time, taken out.
    Proven(Box<Unproven>),
    /// A context that was not used yet, and is not by this.
    Refused(OscoreError),
    Live(mpsc::Sender<Arrived>),
}

/// What came of entering a context.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It is there.
    Alone,
    /// It is there, and another of its A-KID's is not any more.
    InPlaceOfAnother,
    /// Somebody else took the ID meanwhile.
    Not,
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
    /// The session that was the last to prove each address, for what names no context: responses, acknowledgements.
    addresses: HashMap<SocketAddr, KeyId>,
    /// Sessions that were asked at an address which is not proven, by the token of the answer.
    questions: HashMap<Token, KeyId>,
    /// Contexts that nobody has used yet, oldest first.
    unproven: HashMap<AKid, Vec<KeyId>>,
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

    /// Enters a context and the answer that tells of it. Of its A-KID there are no more than `per_a_kid_max` without use.
    pub(super) fn agreed(&self, id: KeyId, unproven: Unproven, answer: Vec<u8>, per_a_kid_max: usize) -> Entered {
        let mut state = self.state();
        if state.contexts.contains_key(&id) {
            return Entered::Not;
        }
        let a_kid = unproven.peer.a_kid.clone();
        let displaced = state.make_room(&a_kid, per_a_kid_max.max(1));
        state.exchanges.insert(unproven.exchange, Asked::Answered { answer, expires: unproven.expires });
        state.contexts.insert(id, Entry::Unproven(Box::new(unproven)));
        state.unproven.entry(a_kid).or_default().push(id);
        if displaced { Entered::InPlaceOfAnother } else { Entered::Alone }
    }

    /// Looks for a context; one that was not used yet is taken out if `check` finds that its holder uses it.
    pub(super) fn find(&self, id: &KeyId, check: impl FnOnce(&SecurityContext) -> Result<(), OscoreError>) -> Known {
        let mut state = self.state();
        match state.contexts.get(id) {
            None => return Known::Nothing,
            Some(Entry::Live(session)) => return Known::Live(session.clone()),
            Some(Entry::Unproven(unproven)) => {
                if let Err(error) = check(&unproven.context) {
                    return Known::Refused(error);
                }
            }
        }
        state.take_unproven(id).map_or(Known::Nothing, Known::Proven)
    }

    /// A context is used from now on, by that session. Its exchange is over.
    pub(super) fn live(&self, id: KeyId, exchange: Exchange, session: mpsc::Sender<Arrived>) {
        let mut state = self.state();
        state.exchanges.remove(&exchange);
        state.contexts.insert(id, Entry::Live(session));
    }

    /// The session that asked under that token.
    pub(super) fn asker(&self, token: &[u8]) -> Option<mpsc::Sender<Arrived>> {
        let state = self.state();
        state.session(state.questions.get(&Token::try_from(token).ok()?)?)
    }

    /// The session at an address.
    pub(super) fn at(&self, source: SocketAddr) -> Option<mpsc::Sender<Arrived>> {
        let state = self.state();
        state.session(state.addresses.get(&source)?)
    }

    /// Nothing is received any more: every session comes to its end.
    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }

    /// Drops what nobody came for; how many contexts that were.
    pub(super) fn expire(&self, now: Instant) -> usize {
        let mut state = self.state();
        let late = |entry: &Entry| matches!(entry, Entry::Unproven(unproven) if unproven.expires <= now);
        let late: Vec<KeyId> = state.contexts.iter().filter(|(_, entry)| late(entry)).map(|(id, _)| *id).collect();
        for id in &late {
            state.take_unproven(id);
        }
        state.exchanges.retain(|_, asked| match asked {
            Asked::UnderWay { expires } | Asked::Answered { expires, .. } => *expires > now,
        });
        late.len()
    }

    /// Addresses and questions that are entered.
    #[cfg(test)]
    fn entered(&self) -> (usize, usize) {
        let state = self.state();
        (state.addresses.len(), state.questions.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn session(&self, id: &KeyId) -> Option<mpsc::Sender<Arrived>> {
        match self.contexts.get(id)? {
            Entry::Live(session) => Some(session.clone()),
            Entry::Unproven(_) => None,
        }
    }

    fn take_unproven(&mut self, id: &KeyId) -> Option<Box<Unproven>> {
        let entry = self.contexts.remove(id)?;
        let Entry::Unproven(unproven) = entry else {
            self.contexts.insert(*id, entry);
            return None;
        };
        if let Some(of_a_kid) = self.unproven.get_mut(&unproven.peer.a_kid) {
            of_a_kid.retain(|other| other != id);
            if of_a_kid.is_empty() {
                self.unproven.remove(&unproven.peer.a_kid);
            }
        }
        Some(unproven)
    }

    /// Leaves room for one more context of that A-KID that nobody has used; whether one had to go. Who asks for many from
    /// one address loses its own.
    fn make_room(&mut self, a_kid: &AKid, max: usize) -> bool {
        let ids = self.unproven.get(a_kid).cloned().unwrap_or_default();
        if ids.len() < max {
            return false;
        }
        let source = |id: &KeyId| match self.contexts.get(id) {
            Some(Entry::Unproven(unproven)) => Some(Source::from(unproven.exchange.0.ip())),
            _ => None,
        };
        let sources: Vec<_> = ids.iter().map(source).collect();
        let most = |at: &usize| {
            let count = sources.iter().filter(|other| sources.get(*at) == Some(other)).count();
            (count, std::cmp::Reverse(*at))
        };
        let Some(id) = (0..ids.len()).max_by_key(most).and_then(|at| ids.get(at)) else { return false };
        let Some(gone) = self.take_unproven(id) else { return false };
        self.exchanges.remove(&gone.exchange);
        true
    }

    /// What comes from that address is that session's; whether it was another's.
    fn enter(&mut self, id: KeyId, address: SocketAddr) -> bool {
        self.addresses.insert(address, id).is_some_and(|other| other != id)
    }

    fn leave(&mut self, id: KeyId, address: Option<SocketAddr>) {
        if let Some(address) = address.filter(|address| self.addresses.get(address) == Some(&id)) {
            self.addresses.remove(&address);
        }
    }
}

/// A session's place in the tables, given back when it is dropped. It is entered at one address at most, the last that it
/// has proven.
pub(super) struct Place {
    tables: Arc<Tables>,
    id: KeyId,
    address: SocketAddr,
    entered: Option<SocketAddr>,
    asked: Option<Token>,
    asked_elsewhere: Vec<Token>,
}

impl Place {
    /// At an address that is not proven.
    pub(super) fn new(tables: Arc<Tables>, id: KeyId, address: SocketAddr) -> Self {
        Self { tables, id, address, entered: None, asked: None, asked_elsewhere: Vec::new() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// It stays entered where it has proven to be.
    pub(super) fn moved(&mut self, to: SocketAddr) {
        self.address = to;
    }

    pub(super) fn asked(&mut self, token: Token) {
        let mut state = self.tables.state();
        if let Some(earlier) = self.asked.replace(token) {
            state.questions.remove(&earlier);
        }
        state.questions.insert(token, self.id);
    }

    pub(super) fn asked_elsewhere(&mut self, token: Token) {
        self.tables.state().questions.insert(token, self.id);
        self.asked_elsewhere.push(token);
    }

    pub(super) fn not_asked(&mut self, token: &Token) {
        if let Some(place) = self.asked_elsewhere.iter().position(|asked| asked == token) {
            self.asked_elsewhere.swap_remove(place);
            self.tables.state().questions.remove(token);
        }
    }

    /// Its address is proven. True if another was entered there.
    pub(super) fn proven(&mut self) -> bool {
        let mut state = self.tables.state();
        if let Some(token) = self.asked.take() {
            state.questions.remove(&token);
        }
        state.leave(self.id, self.entered.replace(self.address));
        state.enter(self.id, self.address)
    }

    /// Whether it is entered at its address.
    pub(super) fn is_known(&self) -> bool {
        self.tables.state().addresses.get(&self.address) == Some(&self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.tables.state();
        state.contexts.remove(&self.id);
        state.leave(self.id, self.entered);
        for token in self.asked.iter().chain(&self.asked_elsewhere) {
            state.questions.remove(token);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(tables: &Arc<Tables>, id: u8, address: SocketAddr) -> Place {
        let id = KeyId::new(&[id]).unwrap();
        tables.live(id, (address, 1), mpsc::channel(1).0);
        Place::new(Arc::clone(tables), id, address)
    }

    #[test]
    fn a_session_is_entered_where_it_has_proven_to_be_last_and_nothing_stays_of_it() {
        let tables = Arc::<Tables>::default();
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let (mut one, mut other) = (place(&tables, 1, a), place(&tables, 2, b));
        assert!(!one.is_known() && tables.at(a).is_none(), "nobody is entered unproven");
        assert!(!one.proven() && !other.proven());
        one.asked([1; 8]);
        one.moved(b);
        one.asked([2; 8]);
        assert!(!one.is_known() && tables.asker(&[1; 8]).is_none() && tables.asker(&[2; 8]).is_some());
        assert_eq!(tables.entered(), (2, 1));
        assert!(one.proven() && one.is_known() && !other.is_known());
        assert!(tables.at(a).is_none() && tables.asker(&[2; 8]).is_none());
        other.asked([3; 8]);
        other.asked_elsewhere([4; 8]);
        other.asked_elsewhere([5; 8]);
        other.not_asked(&[4; 8]);
        assert!(tables.asker(&[4; 8]).is_none() && tables.asker(&[5; 8]).is_some());
        drop(other);
        assert!(one.is_known());
        assert_eq!(tables.entered(), (1, 0));
        drop(one);
        assert_eq!((tables.entered(), tables.contexts()), ((0, 0), 0));
    }
}
