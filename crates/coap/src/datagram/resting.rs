//! An association that only remembers, in a few octets: Message IDs of the peer's that may come again, with what they were
//! answered, and our own that may not be used yet (RFC 7252 4.4, 4.5). Nothing of it is forgotten, only kept closer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deduplication::{Memory, Outcome, Seen};
use super::reliability::ID_BLOCK_BITS;
use super::reliability::Sending;
use super::{Active, DatagramConnection};
use crate::limits::DatagramConfig;

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

/// Octets of [`DatagramConnection::memories`] at most: version, Message ID and two counts, what is remembered, answers, blocks.
pub(super) const MEMORIES_OCTETS_MAX: usize =
    7 + MEMORIES_MAX * MEMORY_OCTETS + ANSWER_OCTETS_MAX + ID_BLOCKS * ID_BLOCK_OCTETS;

/// One message without its answer: Message ID, milliseconds left, kind, octets of the answer.
const MEMORY_OCTETS: usize = 2 + 4 + 1 + 2;
/// Number, milliseconds left.
const ID_BLOCK_OCTETS: usize = 2 + 4;
/// Blocks that there are.
const ID_BLOCKS: usize = 1 << (16 - ID_BLOCK_BITS);
const FORM: u8 = 1;

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

    /// What an association remembers that rests ([`DatagramConnection::rest`]), as octets, for one that goes on with it where
    /// nothing of this one is left: [`DatagramConnection::recalling`]. None if it does not rest. At most
    /// 2,469 octets. They tell what was answered: they are to be kept as that is.
    #[must_use]
    pub fn memories(&self, now: Instant) -> Option<Vec<u8>> {
        if self.active.is_some() {
            return None;
        }
        let mut out = Vec::with_capacity(MEMORIES_OCTETS_MAX);
        let lifetime = self.config.transmission.exchange_lifetime();
        let (seen, id_blocks) = match &self.resting {
            Some(resting) => (&*resting.seen, &*resting.id_blocks),
            None => Default::default(),
        };
        out.push(FORM);
        out.extend_from_slice(&self.next_message_id.to_be_bytes());
        out.extend_from_slice(&u16::try_from(seen.len()).ok()?.to_be_bytes());
        for memory in seen {
            memory.encode(now, &mut out)?;
        }
        out.extend_from_slice(&u16::try_from(id_blocks.len()).ok()?.to_be_bytes());
        for (block, used) in id_blocks {
            out.extend_from_slice(&block.to_be_bytes());
            put_left(*used + lifetime, now, &mut out);
        }
        Some(out)
    }

    /// An association that goes on with what another one remembered, of which nothing is left. Time that has gone by between
    /// the two counts for nothing: what is remembered is remembered for longer. `seed` as for [`DatagramConnection::new`].
    /// None if these are no memories.
    #[must_use]
    pub fn recalling(config: Arc<DatagramConfig>, seed: u64, memories: &[u8], now: Instant) -> Option<Self> {
        let lifetime = config.transmission.exchange_lifetime();
        let mut octets = memories;
        let [FORM] = take(&mut octets)? else { return None };
        let mut connection = Self::new(config, seed);
        connection.next_message_id = u16::from_be_bytes(take(&mut octets)?);
        let count = u16::from_be_bytes(take(&mut octets)?).into();
        let seen: Option<Box<[Memory]>> =
            (0..count).map(|_: usize| Memory::decode(&mut octets, now, lifetime)).collect();
        let count = u16::from_be_bytes(take(&mut octets)?).into();
        let id_blocks: Option<Box<[(u16, Instant)]>> = (0..count)
            .map(|_: usize| {
                let block =
                    Some(u16::from_be_bytes(take(&mut octets)?)).filter(|block| usize::from(*block) < ID_BLOCKS);
                let left = take_left(&mut octets)?.min(lifetime);
                // When it was used, if that is one lifetime before it may be used again.
                Some((block?, (now + left).checked_sub(lifetime).unwrap_or(now)))
            })
            .collect();
        let (seen, id_blocks) = (seen?, id_blocks?);
        if !octets.is_empty() {
            return None;
        }
        if !seen.is_empty() || !id_blocks.is_empty() {
            connection.resting = Some(Box::new(Resting { seen, id_blocks }));
        }
        Some(connection)
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

    pub(super) fn remembers(&self, message_id: u16, now: Instant) -> bool {
        self.seen.iter().any(|memory| memory.is_of(message_id, now))
    }

    pub(super) fn wake(self) -> Active {
        let (seen, sending) = (Seen::of(self.seen), Sending::of(self.id_blocks));
        Active { seen, sending, ..Active::default() }
    }
}

impl Memory {
    fn encode(&self, now: Instant, out: &mut Vec<u8>) -> Option<()> {
        let (kind, answer): (u8, &[u8]) = match &self.outcome {
            Outcome::Silence => (0, &[]),
            Outcome::Acknowledged => (1, &[]),
            Outcome::Reset => (2, &[]),
            Outcome::Answered(datagram) => (3, datagram),
        };
        out.extend_from_slice(&self.message_id.to_be_bytes());
        put_left(self.expires, now, out);
        out.push(kind);
        out.extend_from_slice(&u16::try_from(answer.len()).ok()?.to_be_bytes());
        out.extend_from_slice(answer);
        Some(())
    }

    fn decode(octets: &mut &[u8], now: Instant, lifetime: Duration) -> Option<Self> {
        let message_id = u16::from_be_bytes(take(octets)?);
        let expires = now + take_left(octets)?.min(lifetime);
        let [kind] = take(octets)?;
        let length = u16::from_be_bytes(take(octets)?).into();
        let answer = octets.split_off(..length)?;
        let outcome = match kind {
            0 => Outcome::Silence,
            1 => Outcome::Acknowledged,
            2 => Outcome::Reset,
            3 => Outcome::Answered(answer.into()),
            _ => return None,
        };
        Some(Self { message_id, expires, outcome })
    }
}

/// How long it is until then, in milliseconds, rounded up.
fn put_left(until: Instant, now: Instant, out: &mut Vec<u8>) {
    let left = until.saturating_duration_since(now).as_millis().saturating_add(1);
    out.extend_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
}

fn take_left(octets: &mut &[u8]) -> Option<Duration> {
    Some(Duration::from_millis(u32::from_be_bytes(take(octets)?).into()))
}

fn take<const N: usize>(octets: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = octets.split_first_chunk()?;
    *octets = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::code::Code;
    use crate::event::ConnectionEvent;
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

    /// The same association, of which nothing was left but its memories.
    fn recalled(connection: &DatagramConnection, now: Instant) -> DatagramConnection {
        let memories = connection.memories(now).unwrap();
        assert!(memories.len() <= MEMORIES_OCTETS_MAX);
        DatagramConnection::recalling(Arc::clone(&connection.config), 77, &memories, now).unwrap()
    }

    #[test]
    fn who_recalls_answers_copies_alike_and_uses_no_message_id_again() {
        let ((mut client, mut server), now) = (pair(), Instant::now());
        assert_eq!(recalled(&server, now).resting.as_ref().map(|_| ()), None);
        let exchanged: Vec<_> = (0..5).map(|_| exchange(&mut client, &mut server, now)).collect();
        assert_eq!(DatagramConnection::new(Arc::default(), 1).memories(now).unwrap().len(), 7);
        server.request(Request::post("y"), now).unwrap();
        assert_eq!(server.memories(now), None, "something is under way");
        let asked = server.poll_transmit().unwrap();
        client.receive(&asked, now).unwrap();
        let Some(ConnectionEvent::Request { request }) = client.poll_event() else { panic!() };
        client.respond(request.exchange, Response::new(Code::CHANGED), now).unwrap();
        server.receive(&client.poll_transmit().unwrap(), now).unwrap();
        server.poll_event().unwrap();
        assert!(server.rest(now));
        let mut server = recalled(&server, now);
        for (question, answer) in &exchanged {
            server.receive(question, now).unwrap();
            assert_eq!((server.poll_event(), server.poll_transmit().as_ref()), (None, Some(answer)));
        }
        server.request(Request::post("y"), now).unwrap();
        let id = |datagram: &[u8]| u16::from_be_bytes(*datagram.get(2..).unwrap().first_chunk().unwrap());
        assert_eq!(id(&server.poll_transmit().unwrap()), id(&asked).wrapping_add(1));
    }

    #[test]
    fn what_is_recalled_is_forgotten_in_its_time_and_not_before() {
        let ((mut client, mut server), now) = (pair(), Instant::now());
        exchange(&mut client, &mut server, now);
        assert!(server.rest(now));
        let lifetime = server.config.transmission.exchange_lifetime();
        let mut server = recalled(&server, now + lifetime / 2);
        let forgotten = server.poll_timeout().unwrap();
        let expected = now + lifetime;
        assert!(forgotten >= expected && forgotten <= expected + Duration::from_millis(1));
        server.handle_timeout(forgotten);
        assert!(server.is_idle());
    }

    proptest! {
        #[test]
        fn octets_that_are_no_memories_are_refused_and_memories_come_back_as_they_were(
            mut octets in prop::collection::vec(any::<u8>(), 0..64), first in any::<bool>(),
        ) {
            if first && let Some(form) = octets.first_mut() {
                *form = FORM;
            }
            let now = Instant::now() + Duration::from_secs(600);
            if let Some(recalled) = DatagramConnection::recalling(Arc::default(), 1, &octets, now) {
                let again = recalled.memories(now).unwrap();
                prop_assert_eq!(again.len(), octets.len());
            }
        }
    }
}
