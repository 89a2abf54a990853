//! An association that only remembers, in a few octets: Message IDs of the peer's that may come again, with what they were
//! answered, and our own that may not be used yet (RFC 7252 4.4, 4.5). Nothing of it is forgotten, only kept closer.

use std::time::{Duration, Instant};

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
    /// remembered than what a few messages leave. It remembers all of that; whatever comes next goes on from it. The only
    /// time-out until then is when all of it is forgotten.
    pub fn rest(&mut self, now: Instant) -> bool {
        let settled = self.is_settled();
        let lifetime = self.config.transmission.exchange_lifetime();
        self.forget_resting(now);
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

    /// Forgets what a resting association remembers, once all of it is over.
    pub(super) fn forget_resting(&mut self, now: Instant) {
        let lifetime = self.config.transmission.exchange_lifetime();
        if self.resting.as_ref().and_then(|resting| resting.settled_at(lifetime)).is_some_and(|at| at <= now) {
            self.resting = None;
        }
    }
}

impl Resting {
    /// When all of it is over.
    pub(super) fn settled_at(&self, lifetime: Duration) -> Option<Instant> {
        let own = self.id_blocks.iter().map(|(_, used)| *used + lifetime);
        own.chain(self.seen.iter().map(Memory::expires)).max()
    }

    pub(super) fn wake(self) -> Active {
        let (seen, sending) = (Seen::of(self.seen), Sending::of(self.id_blocks));
        Active { seen, sending, ..Active::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::code::Code;
    use crate::event::ConnectionEvent;
    use crate::limits::DatagramConfig;
    use crate::message::{Request, Response};

    fn pair() -> (DatagramConnection, DatagramConnection) {
        let config = Arc::new(DatagramConfig::default());
        (DatagramConnection::new(Arc::clone(&config), 1), DatagramConnection::new(config, 2))
    }

    /// A request of `client` that `server` answers; the request's datagram, and the answer's.
    fn exchange(client: &mut DatagramConnection, server: &mut DatagramConnection, now: Instant) -> (Vec<u8>, Vec<u8>) {
        client.request(Request::post("x").payload(b"question".to_vec()), now).unwrap();
        let question = client.poll_transmit().unwrap();
        server.receive(&question, now).unwrap();
        let Some(ConnectionEvent::Request { request }) = server.poll_event() else { panic!() };
        server.respond(request.exchange, Response::new(Code::CHANGED), now).unwrap();
        let answer = server.poll_transmit().unwrap();
        client.receive(&answer, now).unwrap();
        assert!(matches!(client.poll_event(), Some(ConnectionEvent::Response { .. })));
        (question, answer)
    }

    #[test]
    fn what_was_answered_before_a_rest_is_answered_alike_after_it_and_forgotten_in_its_time() {
        let ((mut client, mut server), now) = (pair(), Instant::now());
        let exchanged: Vec<_> = (0..5).map(|_| exchange(&mut client, &mut server, now)).collect();
        assert!(server.rest(now) && server.active.is_none() && !server.is_idle());
        for (question, answer) in &exchanged {
            server.receive(question, now).unwrap();
            assert_eq!((server.poll_event(), server.poll_transmit().as_ref()), (None, Some(answer)));
            assert!(server.rest(now) && server.active.is_none());
        }
        let forgotten = server.poll_timeout().unwrap();
        assert_eq!(forgotten, now + server.config.transmission.exchange_lifetime());
        server.handle_timeout(forgotten);
        assert!(server.is_idle());
        assert_eq!(server.poll_timeout(), None);
    }

    #[test]
    fn message_ids_of_ours_go_on_after_a_rest() {
        let ((mut client, mut server), now) = (pair(), Instant::now());
        let (first, _) = exchange(&mut client, &mut server, now);
        assert!(client.rest(now) && client.active.is_none() && !client.is_idle());
        let (second, _) = exchange(&mut client, &mut server, now);
        let id = |datagram: &[u8]| u16::from_be_bytes(*datagram.get(2..).unwrap().first_chunk().unwrap());
        assert_eq!(id(&second), id(&first).wrapping_add(1));
    }

    #[test]
    fn nothing_rests_while_something_is_under_way_or_too_much_is_remembered() {
        let ((mut client, mut server), now) = (pair(), Instant::now());
        client.request(Request::post("x"), now).unwrap();
        assert!(!client.rest(now), "its datagram is to be sent");
        let question = client.poll_transmit().unwrap();
        assert!(!client.rest(now), "it is not answered");
        server.receive(&question, now).unwrap();
        assert!(!server.rest(now), "an event waits");
        let Some(ConnectionEvent::Request { request }) = server.poll_event() else { panic!() };
        assert!(!server.rest(now), "a request waits");
        server.respond(request.exchange, Response::new(Code::CHANGED), now).unwrap();
        assert!(!server.rest(now), "the answer is to be sent");
        client.receive(&server.poll_transmit().unwrap(), now).unwrap();
        assert!(server.rest(now));
        assert!(!client.rest(now), "an event waits");
        client.poll_event().unwrap();
        for _ in 0..MEMORIES_MAX {
            exchange(&mut client, &mut server, now);
        }
        assert!(!server.rest(now), "one more than it rests with");
        assert!(server.rest(now + server.config.transmission.exchange_lifetime()));
        assert!(server.is_idle());
    }
}
