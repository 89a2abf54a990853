//! CoAP over datagrams (RFC 7252) with one peer, which is one security association.
//!
//! The flow of a request, as the RFC has it:
//!
//! ```text
//! request ──> waits for its turn (NSTART) ──> CON ──────────────┬─> ACK with the response ───────────────> over
//!                                              ▲ │ time-out     ├─> empty ACK ──> CON/NON with the response, ACK ──> over
//!                                              └─┘ (twice as    ├─> RST ──────────────────────────────────> failed
//!                                              long each time)  └─> MAX_RETRANSMIT reached ───────────────> failed
//!
//! CON ──> copy of an earlier one? ─yes─> what was answered then, again
//!          │ no
//!          ▼
//!         handed over ──> answered in time ──> ACK with the response
//!          │
//!          └────────────> not in time ───────> empty ACK, later a CON with the response, itself acknowledged
//! ```
//!
//! What is larger than a datagram should be goes and comes in blocks (`block`, `transfer`); the application sees whole
//! messages.
//! Where what is done lies:
//!
//! | | |
//! |---|---|
//! | [`wire`] | the header |
//! | [`reliability`] | transmission, retransmission, turns, Message IDs |
//! | [`deduplication`] | copies of the peer's messages |
//! | [`requesting`] | our requests and the peer's responses |
//! | [`responding`] | the peer's requests and our responses |
//! | [`observe`] | observations in both directions |
//! | [`resting`] | an association that only remembers |
//! | [`address`] | an address that is to be proven |
//! | [`screened`] | what [`crate::oscore::OscoreConnection`] does before anything is verified, and after |

mod address;
mod deduplication;
mod observe;
mod reliability;
mod requesting;
mod responding;
mod resting;
mod screened;
mod unbound;
mod wire;

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::block::{Assemblies, KeptResponses};
use crate::code::Kind;
use crate::error::ConnectionError;
use crate::event::ConnectionEvent;
use crate::limits::{DatagramConfig, Transmission};
use crate::message::{ExchangeId, RequestBuilder, Response, Served};
use address::Unproven;
use deduplication::{Outcome, Seen};
use observe::Observations;
use reliability::Sending;
use requesting::OwnRequest;
use responding::{Held, PeerRequest};
use resting::Resting;
pub use unbound::Unbound;
pub(crate) use wire::merged;
use wire::{Datagram, Type, Unreadable};

/// Octets of the Echo values that we give.
pub const ECHO_OCTETS: usize = 8;

/// What a [`DatagramConnection`] has seen, for metrics. The counts start at 0 and stop at their largest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounters {
    /// Datagrams received.
    pub received: u32,
    /// Datagrams sent, retransmissions included.
    pub sent: u32,
    /// Transmissions of what had been sent before.
    pub retransmissions: u32,
    /// Copies of earlier messages (RFC 7252 4.5).
    pub duplicates: u32,
    /// Datagrams passed over: unreadable, of no use, or answers to nothing we asked.
    pub ignored: u32,
    /// Messages rejected with a Reset, Pings included.
    pub resets_sent: u32,
    /// Requests and blocks answered 4.29 because of [`crate::DatagramLimits::peer_requests_outstanding_max`] or
    /// [`crate::DatagramLimits::requests_octets_max`].
    pub requests_over_limit: u32,
    /// Requests answered by themselves because of an option, block or method that is not served.
    pub requests_refused: u32,
    /// Responses and notifications of ours that were never acknowledged.
    pub undelivered: u32,
    /// Datagrams dropped because of [`crate::DatagramLimits::transmit_octets_max`] or
    /// [`crate::DatagramLimits::responses_waiting_max`].
    pub dropped: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// No new requests.
    Released,
    Closed,
}

/// CoAP with one peer: datagrams, calls and the time in; datagrams and events out. See the crate's documentation for how
/// to drive it.
///
/// It takes no memory besides itself while nothing is under way and nothing need be remembered
/// ([`DatagramConnection::is_idle`]).
#[derive(Debug)]
pub struct DatagramConnection {
    config: Arc<DatagramConfig>,
    /// The OSCORE option is handed on.
    oscore: bool,
    random: u64,
    next_exchange: u64,
    next_token: u32,
    next_message_id: u16,
    state: State,
    /// The peer has to prove that it is where it says it is.
    unproven: Option<Box<Unproven>>,
    counters: DatagramCounters,
    active: Option<Box<Active>>,
    /// In the place of `active`, while it only remembers.
    resting: Option<Box<Resting>>,
}

/// What is there only while something is under way.
#[derive(Debug, Default)]
struct Active {
    events: VecDeque<ConnectionEvent>,
    transmit: VecDeque<Vec<u8>>,
    transmit_octets: usize,
    sending: Sending,
    seen: Seen,
    requests: Vec<OwnRequest>,
    peer_requests: Vec<PeerRequest>,
    observations: Observations,
    assemblies: Assemblies,
    kept: KeptResponses,
    held: Vec<Held>,
}

impl Active {
    fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.transmit.is_empty()
            && self.sending.is_empty()
            && self.seen.is_empty()
            && self.requests.is_empty()
            && self.peer_requests.is_empty()
            && self.observations.is_empty()
            && self.assemblies.is_empty()
            && self.kept.is_empty()
            && self.held.is_empty()
    }
}

impl DatagramConnection {
    /// A fresh association with a peer, of which either side may be the one that began it. `seed` is a random number:
    /// Message IDs, tokens and the spread of retransmissions follow from it.
    #[must_use]
    pub fn new(config: Arc<DatagramConfig>, seed: u64) -> Self {
        let mut connection = Self {
            config,
            oscore: false,
            // The generator stands still at 0.
            random: seed | 1,
            next_exchange: 0,
            next_token: 0,
            next_message_id: 0,
            state: State::Open,
            unproven: None,
            counters: DatagramCounters::default(),
            active: None,
            resting: None,
        };
        connection.next_token = connection.random() as u32;
        connection.next_message_id = connection.random() as u16;
        connection
    }

    /// The same for an [`crate::oscore::OscoreConnection`] around it: messages with an OSCORE option are handed on. To
    /// any other it is a critical option that is not understood.
    #[must_use]
    pub fn for_oscore(mut self) -> Self {
        self.oscore = true;
        self
    }

    /// Takes a datagram from the peer, as it came out of what protects it. What cannot be understood is ignored or
    /// rejected with a Reset (RFC 7252 4.2, 4.3); it ends nothing. The only error is [`ConnectionError::Closed`].
    pub fn receive(&mut self, datagram: &[u8], now: Instant) -> Result<(), ConnectionError> {
        self.check_open()?;
        count(&mut self.counters.received);
        if let Some(active) = &mut self.active {
            active.sending.heard();
            active.seen.expire(now);
        }
        match Datagram::parse(datagram) {
            Ok(datagram) => self.take(&datagram, now),
            Err(Unreadable::Rejected(message_id)) => self.send_reset(message_id),
            Err(Unreadable::Ignored) => count(&mut self.counters.ignored),
        }
        self.pump(now);
        self.settle();
        Ok(())
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<ConnectionEvent> {
        let event = self.active.as_mut()?.events.pop_front();
        self.settle();
        event
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let active = self.active.as_mut()?;
        let datagram = active.transmit.pop_front()?;
        active.transmit_octets = active.transmit_octets.saturating_sub(datagram.len());
        self.settle();
        Some(datagram)
    }

    /// When [`DatagramConnection::handle_timeout`] is to be called; changes with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Some(active) = &self.active else {
            let lifetime = self.config.transmission.exchange_lifetime();
            return self.resting.as_ref().and_then(|resting| resting.settled_at(lifetime));
        };
        // What is only remembered is forgotten all at once, so that an idle connection wakes up once.
        let mut remembered = active.seen.settled_at();
        remembered = remembered.max(active.assemblies.settled_at()).max(active.kept.settled_at());
        remembered = remembered.max(active.held.iter().map(Held::expires).max());
        [
            remembered,
            active.sending.next_due(&self.config.transmission, self.next_message_id, self.unproven.is_some()),
            active.requests.iter().map(OwnRequest::deadline).min(),
            active.peer_requests.iter().filter_map(PeerRequest::acknowledge_at).min(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due: sends again, gives up, acknowledges what the application is slow to answer, forgets.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.active.is_none() {
            return self.forget_resting(now);
        }
        self.retransmit(now);
        self.acknowledge_slow_requests(now);
        self.fail_unanswered(now);
        let lifetime = self.config.transmission.exchange_lifetime();
        let active = self.active();
        active.seen.expire(now);
        active.assemblies.expire(now);
        active.kept.expire(now);
        active.held.retain(|held| held.expires() > now);
        active.sending.expire(now, lifetime);
        self.pump(now);
        self.settle();
    }

    /// Sends a request, as soon as it is its turn. The response comes as [`ConnectionEvent::Response`] with the name
    /// returned here; further ones, too, if it asks to observe and the peer grants it. If none comes in time, it is
    /// [`ConnectionEvent::Failed`].
    pub fn request<'a>(
        &mut self,
        request: impl Borrow<RequestBuilder<'a>>,
        now: Instant,
    ) -> Result<ExchangeId, ConnectionError> {
        self.check_may_request()?;
        let exchange = self.begin_request(request.borrow(), now)?;
        self.pump(now);
        Ok(exchange)
    }

    /// Answers a request of the peer. If it fails with [`ConnectionError::MessageTooLargeForPeer`], the request still
    /// waits for an answer.
    ///
    /// With [`Response::observe`], class 2 and a request that asks for it, the peer observes from then on, up to
    /// [`crate::DatagramLimits::peer_observations_max`]: [`DatagramConnection::is_observed`] tells, and
    /// [`DatagramConnection::notify`] sends what comes later.
    pub fn respond(
        &mut self,
        exchange: ExchangeId,
        response: impl Borrow<Response>,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        self.check_open()?;
        self.answer_request(exchange, response.borrow(), now)?;
        self.pump(now);
        self.settle();
        Ok(())
    }

    /// Gives up waiting for the answer to a request of ours; an answer that comes later is rejected with a Reset, and so
    /// is what else an observation brings. Does nothing if the exchange is over.
    pub fn cancel(&mut self, exchange: ExchangeId, now: Instant) {
        self.forget_request(exchange);
        self.pump(now);
        self.settle();
    }

    /// Asks the peer for a sign of life (RFC 7252 4.3: an empty confirmable message); it comes as
    /// [`ConnectionEvent::Pong`]. If none comes, nothing does: how long to wait is the driver's.
    pub fn ping(&mut self, now: Instant) -> Result<(), ConnectionError> {
        self.check_open()?;
        let pings_max = self.config.limits.pings_outstanding_max;
        if self.active().sending.pings() >= pings_max {
            self.settle();
            return Err(ConnectionError::TooManyPings);
        }
        self.active().sending.ping();
        self.pump(now);
        Ok(())
    }

    /// No request of ours goes out any more; those under way, and the peer's, are finished. CoAP over datagrams has no
    /// message that says so: close what protects it once [`DatagramConnection::is_settled`].
    pub fn release(&mut self) -> Result<(), ConnectionError> {
        self.check_open()?;
        self.state = State::Released;
        Ok(())
    }

    /// Ends everything at once. Events that happened before can still be polled.
    pub fn abort(&mut self) {
        self.state = State::Closed;
        self.resting = None;
        if let Some(active) = self.active.take() {
            self.active = Some(Box::new(Active { events: active.events, ..Active::default() }));
        }
        self.settle();
    }

    /// Whether the association was ended by [`DatagramConnection::abort`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether nothing is under way: no request of either side without its answer, no message without its acknowledgement,
    /// no event and no datagram that waits to be polled. What is remembered does not count, nor do observations.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.active.as_ref().is_none_or(|active| {
            active.requests.is_empty()
                && active.peer_requests.is_empty()
                && active.events.is_empty()
                && active.transmit.is_empty()
                && !active.sending.is_under_way()
        })
    }

    /// Whether there is nothing to remember, either: no observation, and all Message IDs are past their lifetime.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.active.is_none() && self.resting.is_none()
    }

    /// Requests of ours that wait for an answer.
    #[must_use]
    pub fn requests_outstanding(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.requests.len())
    }

    /// Octets that wait for [`DatagramConnection::poll_transmit`].
    #[must_use]
    pub fn transmit_octets(&self) -> usize {
        self.active.as_ref().map_or(0, |active| active.transmit_octets)
    }

    /// How it is transmitted.
    #[must_use]
    pub fn transmission(&self) -> Transmission {
        self.config.transmission
    }

    /// What the association has seen.
    #[must_use]
    pub fn counters(&self) -> DatagramCounters {
        self.counters
    }

    fn take(&mut self, datagram: &Datagram<'_>, now: Instant) {
        let message_id = datagram.message_id;
        match (datagram.kind, datagram.frame.code.kind()) {
            (Type::Reset, Kind::Empty) => self.take_reset(message_id),
            (Type::Acknowledgement, Kind::Empty) => self.take_acknowledgement(message_id, now),
            (Type::Acknowledgement, Kind::Response) => self.take_piggybacked(datagram, now),
            (Type::Confirmable | Type::NonConfirmable, Kind::Request) => {
                if !self.is_copy(datagram, now) {
                    self.take_request(datagram, now);
                }
            }
            (Type::Confirmable | Type::NonConfirmable, Kind::Response) => {
                if !self.is_copy(datagram, now) {
                    self.take_separate(datagram, now);
                }
            }
            // A Ping, or a code that is none: both are rejected (RFC 7252 4.3, 4.2).
            (Type::Confirmable, _) => self.send_reset(message_id),
            _ => count(&mut self.counters.ignored),
        }
    }

    /// Whether this is a copy of a message that came before; if it is, what was answered goes out again. If it is not, it
    /// is remembered.
    fn is_copy(&mut self, datagram: &Datagram<'_>, now: Instant) -> bool {
        let message_id = datagram.message_id;
        let transmission = &self.config.transmission;
        let lifetime = match datagram.kind {
            Type::Confirmable => transmission.exchange_lifetime(),
            _ => transmission.non_lifetime(),
        };
        let entries_max = self.config.limits.message_ids_max;
        let active = self.active();
        let Some(outcome) = active.seen.outcome(message_id, now) else {
            active.seen.enter(message_id, now + lifetime, entries_max);
            return false;
        };
        let answer = match outcome {
            Outcome::Silence => None,
            Outcome::Acknowledged => Some(wire::empty(Type::Acknowledgement, message_id)),
            Outcome::Reset => Some(wire::empty(Type::Reset, message_id)),
            Outcome::Answered(octets) => Some(octets.to_vec()),
        };
        count(&mut self.counters.duplicates);
        match answer {
            Some(answer) if self.is_too_much(datagram.octets, answer.len()) => count(&mut self.counters.dropped),
            Some(answer) => self.transmit(answer),
            None => {}
        }
        true
    }

    /// Rejects a message that was remembered.
    fn reject(&mut self, datagram: &Datagram<'_>) {
        if datagram.kind == Type::Confirmable {
            self.remember(datagram.message_id, Outcome::Reset);
            self.send_reset(datagram.message_id);
        } else {
            count(&mut self.counters.ignored);
        }
    }

    /// Acknowledges a message that was remembered.
    fn acknowledge(&mut self, datagram: &Datagram<'_>) {
        if datagram.kind == Type::Confirmable {
            self.remember(datagram.message_id, Outcome::Acknowledged);
            self.transmit(wire::empty(Type::Acknowledgement, datagram.message_id));
        }
    }

    fn remember(&mut self, message_id: u16, outcome: Outcome) {
        let octets_max = self.config.limits.answers_octets_max;
        self.active().seen.answer(message_id, outcome, octets_max);
    }

    fn send_reset(&mut self, message_id: u16) {
        count(&mut self.counters.resets_sent);
        self.transmit(wire::empty(Type::Reset, message_id));
    }

    /// Puts a datagram where [`DatagramConnection::poll_transmit`] finds it.
    fn transmit(&mut self, datagram: Vec<u8>) {
        let octets_max = self.config.limits.transmit_octets_max;
        let active = self.active();
        if active.transmit_octets + datagram.len() > octets_max {
            count(&mut self.counters.dropped);
            return;
        }
        active.transmit_octets += datagram.len();
        active.transmit.push_back(datagram);
        count(&mut self.counters.sent);
    }

    fn push_event(&mut self, event: ConnectionEvent) {
        self.active().events.push_back(event);
    }

    fn active(&mut self) -> &mut Active {
        let resting = &mut self.resting;
        self.active.get_or_insert_with(|| Box::new(resting.take().map(|resting| resting.wake()).unwrap_or_default()))
    }

    /// Gives back what is not needed.
    fn settle(&mut self) {
        if self.active.as_ref().is_some_and(|active| active.is_empty()) {
            self.active = None;
        }
    }

    /// What is understood of what comes.
    fn served(&self) -> Served {
        Served { block_wise: true, oscore: self.oscore }
    }

    fn check_open(&self) -> Result<(), ConnectionError> {
        if self.state == State::Closed { Err(ConnectionError::Closed) } else { Ok(()) }
    }

    fn check_may_request(&self) -> Result<(), ConnectionError> {
        match self.state {
            State::Open => Ok(()),
            State::Released => Err(ConnectionError::Released),
            State::Closed => Err(ConnectionError::Closed),
        }
    }

    fn check_transmit(&self) -> Result<(), ConnectionError> {
        if self.transmit_octets() >= self.config.limits.transmit_octets_max {
            Err(ConnectionError::TransmitFull)
        } else {
            Ok(())
        }
    }

    fn next_exchange(&mut self) -> ExchangeId {
        let exchange = ExchangeId(self.next_exchange);
        self.next_exchange += 1;
        exchange
    }

    /// xorshift64*: spreads retransmissions, and makes tokens and Message IDs start elsewhere each time. What must not be
    /// guessed (Echo) does not come from here.
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

fn count(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}
