//! A connection whose requests and responses are protected, around one that carries them.
//!
//! ```text
//!  driver ── request ──▶ protect ──▶ outer: POST, OSCORE, ciphertext ──▶ blocks, retransmission, tokens ──▶ wire
//!  driver ◀── event ──── verify ◀─── outer event ◀── copies gone, blocks put together ◀─────────────────── wire
//! ```
//!
//! What is retransmitted is the protected message as it was, copies are gone before anything is verified, and what is too
//! large for a datagram is cut outside OSCORE (RFC 8613 4.1.3.4.2), since all of that is the outer connection's. Inner
//! blocks are not served: 4.02, protected. Nor is Observe: a request that asks for it is answered once (RFC 7641 4.1).
//!
//! A Ping is a protected GET of nothing (no path, no payload), which the other side's connection answers itself with 2.05:
//! a Reset or Pong of the outer layer would be anybody's word. Any verified response to it counts.

use std::collections::VecDeque;
use std::time::Instant;

use super::context::SecurityContext;
use super::error::OscoreError;
use super::exchange::{ReceivedRequest, SentRequest, Verified};
use super::keys::KeyId;
use super::message::{Message, number};
use crate::code::{Code, Kind};
use crate::datagram::Unbound;
use crate::error::ConnectionError;
use crate::event::{ConnectionEvent, Failure};
use crate::exchanges::Connection;
use crate::frame::{Frame, Token};
use crate::message::{self, ExchangeId, Request, RequestBuilder, Response, Served};
use crate::signal::Release;

/// Options of one inner message; more are 4.00. What the transports take, too.
const INNER_OPTIONS_MAX: usize = 32;

/// Pings that wait for their answer at once.
const PINGS_OUTSTANDING_MAX: usize = 4;

/// What a connection has seen, for metrics and the security log. The counts start at 0 and stop at their largest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OscoreCounters {
    /// Requests verified.
    pub requests_verified: u32,
    /// Responses verified.
    pub responses_verified: u32,
    /// Requests without protection, answered 4.01.
    pub requests_unprotected: u32,
    /// Requests refused as seen before or too old.
    pub requests_replayed: u32,
    /// Requests refused for any other reason: altered, made with other keys, or of another context.
    pub requests_refused: u32,
    /// Responses that could not be verified, or were not protected.
    pub responses_refused: u32,
}

/// What a datagram is worth before a connection is given it. See [`OscoreConnection::provenance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// A request that is new and was made with the peer's keys: the peer is where it came from.
    Proven,
    /// A request that no copy of the peer's can be: nothing of it is to be remembered.
    Forged(OscoreError),
    /// Nothing is known: an acknowledgement, a response, a copy, a block. Only what comes from where the peer was seen last
    /// is worth anything.
    Unknown,
}

/// A request of ours without its answer.
#[derive(Debug)]
struct Sent {
    /// As the driver knows it.
    name: ExchangeId,
    /// As the outer connection does.
    outer: ExchangeId,
    secured: SentRequest,
    message: Message,
    confirmable: bool,
    is_ping: bool,
    /// The peer asked for it once more, with Echo.
    repeated: bool,
}

/// CoAP with one peer under a security context, driven as any [`Connection`].
///
/// The context is volatile, or its sequence is kept durable by whoever has it:
/// [`OscoreConnection::context_mut`]. After [`OscoreError::SequenceExhausted`], or when the peer says that it has no such
/// context, it is [`ConnectionEvent::Aborted`] and closed: agree on a new one.
#[derive(Debug)]
pub struct OscoreConnection<C> {
    outer: C,
    context: SecurityContext,
    sent: Vec<Sent>,
    received: Vec<(ExchangeId, ReceivedRequest)>,
    events: VecDeque<ConnectionEvent>,
    closed: bool,
    counters: OscoreCounters,
}

impl<C: Connection> OscoreConnection<C> {
    /// A connection under `context`. `outer` was made with [`crate::DatagramConnection::for_oscore`] or
    /// [`crate::StreamConnection::for_oscore`]; what has happened on it is taken up with the next call.
    #[must_use]
    pub fn new(outer: C, context: SecurityContext) -> Self {
        Self {
            outer,
            context,
            sent: Vec::new(),
            received: Vec::new(),
            events: VecDeque::new(),
            closed: false,
            counters: OscoreCounters::default(),
        }
    }

    /// The connection that carries it.
    #[must_use]
    pub fn outer(&self) -> &C {
        &self.outer
    }

    /// The same, for what it alone can do.
    pub fn outer_mut(&mut self) -> &mut C {
        &mut self.outer
    }

    /// The context, for whoever keeps its sequence numbers.
    pub fn context_mut(&mut self) -> &mut SecurityContext {
        &mut self.context
    }

    /// The peer's Sender ID.
    #[must_use]
    pub fn recipient_id(&self) -> &KeyId {
        self.context.recipient_id()
    }

    /// What the connection has seen.
    #[must_use]
    pub fn counters(&self) -> OscoreCounters {
        self.counters
    }

    /// What a datagram is worth, before [`Connection::receive`]: the outer connection remembers Message IDs of what it is
    /// given, so that a forgery would take the place of a message of the peer's. Changes nothing.
    #[must_use]
    pub fn provenance(&self, datagram: &[u8]) -> Provenance {
        let Some(datagram) = Unbound::parse(datagram).filter(Unbound::is_request) else {
            return Provenance::Unknown;
        };
        if datagram.is_block() {
            return Provenance::Unknown;
        }
        match self.context.check_request(datagram.message()) {
            Ok(()) => Provenance::Proven,
            Err(OscoreError::Replay) => Provenance::Unknown,
            Err(error) => Provenance::Forged(error),
        }
    }

    /// Takes what has happened on the outer connection.
    fn pull(&mut self, now: Instant) {
        while let Some(event) = self.outer.poll_event() {
            match event {
                ConnectionEvent::Request { request } => self.take_request(&request, now),
                ConnectionEvent::Response { exchange, response } => self.take_response(exchange, &response, now),
                ConnectionEvent::Failed { exchange, failure } => self.fail_outer(exchange, failure),
                // Neither is asked for.
                ConnectionEvent::ObservationEnded { .. } | ConnectionEvent::Pong { .. } => {}
                event => self.events.push_back(event),
            }
        }
    }

    fn take_request(&mut self, outer: &Request, now: Instant) {
        let Some(option) = &outer.oscore else {
            count(&mut self.counters.requests_unprotected);
            return self.refuse(outer.exchange, &Response::new(Code::UNAUTHORIZED).with_max_age(0), now);
        };
        let message = Message::new(outer.method, &[(number::OSCORE, option)], &outer.payload);
        match message.and_then(|message| self.context.unprotect_request(&message)) {
            Ok(Verified::Request { message, exchange }) => {
                count(&mut self.counters.requests_verified);
                self.take_verified(outer.exchange, &message, exchange, now);
            }
            Ok(Verified::Unproven { answer }) => self.refuse(outer.exchange, &outside(&answer), now),
            Err(error) => {
                count(match error {
                    OscoreError::Replay => &mut self.counters.requests_replayed,
                    _ => &mut self.counters.requests_refused,
                });
                let answer = error.answer().map(|answer| plain(&answer));
                self.refuse(outer.exchange, &answer.unwrap_or(Response::new(Code::SERVICE_UNAVAILABLE)), now);
                if error == OscoreError::SequenceExhausted {
                    self.end(EXHAUSTED);
                }
            }
        }
    }

    fn take_verified(&mut self, exchange: ExchangeId, message: &Message, secured: ReceivedRequest, now: Instant) {
        self.received.push((exchange, secured));
        let answer = match read_request(message, exchange) {
            Ok(request) if is_ping(&request) => Response::new(Code::CONTENT),
            Ok(request) => return self.events.push_back(ConnectionEvent::Request { request }),
            Err(refusal) => refusal,
        };
        // If there is no room for it, the peer asks again.
        let _ = self.answer(exchange, &answer, now);
    }

    /// Answers without protection, if there is room for that.
    fn refuse(&mut self, exchange: ExchangeId, response: &Response, now: Instant) {
        let _ = self.outer.respond(exchange, response, now);
    }

    fn answer(&mut self, exchange: ExchangeId, response: &Response, now: Instant) -> Result<(), ConnectionError> {
        let place = self.received.iter().position(|(found, _)| *found == exchange);
        let (_, mut secured) = self.received.swap_remove(place.ok_or(ConnectionError::UnknownExchange)?);
        let again = secured.answered_anew();
        let sent = Message::response(response)
            .and_then(|message| self.context.protect_response(&mut secured, &message))
            .map_err(|error| self.not_protected(error))
            .and_then(|message| self.outer.respond(exchange, &outside(&message), now));
        if let Err(error) = sent
            && error != ConnectionError::UnknownExchange
        {
            self.received.push((exchange, again));
        }
        sent
    }

    fn take_response(&mut self, outer: ExchangeId, response: &Response, now: Instant) {
        let Some(place) = self.sent.iter().position(|sent| sent.outer == outer) else { return };
        let mut sent = self.sent.swap_remove(place);
        let Some(option) = &response.oscore else {
            count(&mut self.counters.responses_refused);
            self.fail(&sent, Failure::NotProtected(response.code));
            if response.code == Code::UNAUTHORIZED {
                self.end("security context not found");
            }
            return;
        };
        let message = Message::new(response.code, &[(number::OSCORE, option)], &response.payload);
        let Ok(message) = message.and_then(|message| self.context.unprotect_response(&mut sent.secured, &message))
        else {
            count(&mut self.counters.responses_refused);
            return self.fail(&sent, Failure::NotVerified);
        };
        count(&mut self.counters.responses_verified);
        match sent.message.repeated_for(&message) {
            Some(repeated) if !sent.repeated => {
                // The peer had lost what it knew of our numbers (RFC 8613 Appendix B.1.2).
                sent.repeated = true;
                sent.message = repeated;
                match self.transmit(&sent.message, sent.confirmable, now) {
                    Ok((outer, secured)) => self.sent.push(Sent { outer, secured, ..sent }),
                    Err(_) => self.fail(&sent, Failure::NoAnswer),
                }
            }
            _ if sent.is_ping => self.events.push_back(ConnectionEvent::Pong { custody: false }),
            _ => match read_response(&message) {
                Some(response) => {
                    self.events.push_back(ConnectionEvent::Response { exchange: sent.name, response });
                }
                None => self.fail(&sent, Failure::Unusable),
            },
        }
    }

    fn fail_outer(&mut self, outer: ExchangeId, failure: Failure) {
        if let Some(place) = self.sent.iter().position(|sent| sent.outer == outer) {
            let sent = self.sent.swap_remove(place);
            self.fail(&sent, of_outer(failure));
        }
    }

    fn fail(&mut self, sent: &Sent, failure: Failure) {
        // That a Ping was not answered is told by its Pong that does not come.
        if !sent.is_ping {
            self.events.push_back(ConnectionEvent::Failed { exchange: sent.name, failure });
        }
    }

    /// Protects a request and gives it to the outer connection.
    fn transmit(
        &mut self,
        message: &Message,
        confirmable: bool,
        now: Instant,
    ) -> Result<(ExchangeId, SentRequest), ConnectionError> {
        let (protected, secured) = self.context.protect_request(message).map_err(|error| self.not_protected(error))?;
        let option = protected.option(number::OSCORE).unwrap_or_default();
        let mut request = Request::with_method(protected.code(), "").oscore(option).payload(protected.payload());
        if !confirmable {
            request = request.non_confirmable();
        }
        Ok((self.outer.request(&request, now)?, secured))
    }

    fn send(
        &mut self,
        message: Message,
        confirmable: bool,
        is_ping: bool,
        now: Instant,
    ) -> Result<ExchangeId, ConnectionError> {
        let (outer, secured) = self.transmit(&message, confirmable, now)?;
        self.sent.push(Sent { name: outer, outer, secured, message, confirmable, is_ping, repeated: false });
        Ok(outer)
    }

    /// What the driver hears of a message that was not protected.
    fn not_protected(&mut self, error: OscoreError) -> ConnectionError {
        match error {
            OscoreError::MessageTooLarge { octets, octets_max } => ConnectionError::MessageTooLargeForPeer {
                octets: octets as u64,
                octets_max: u32::try_from(octets_max).unwrap_or(u32::MAX),
            },
            OscoreError::SequenceExhausted => {
                self.end(EXHAUSTED);
                ConnectionError::Closed
            }
            OscoreError::SequenceNotDurable { .. } => ConnectionError::TransmitFull,
            OscoreError::InvalidCode(code) => ConnectionError::InvalidCode(code),
            OscoreError::AlreadyAnswered => ConnectionError::UnknownExchange,
            _ => ConnectionError::InvalidOption,
        }
    }

    /// The context is of no more use.
    fn end(&mut self, why: &str) {
        if !self.closed {
            self.closed = true;
            self.events.push_back(ConnectionEvent::Aborted { bad_csm_option: None, diagnostic: why.to_owned() });
            self.outer.abort(why);
        }
    }

    fn check_open(&self) -> Result<(), ConnectionError> {
        if self.closed { Err(ConnectionError::Closed) } else { Ok(()) }
    }
}

impl<C: Connection> Connection for OscoreConnection<C> {
    fn receive(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionError> {
        self.check_open()?;
        let received = self.outer.receive(octets, now);
        self.pull(now);
        received
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outer.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.outer.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.outer.handle_timeout(now);
        self.pull(now);
    }

    fn request(&mut self, request: &RequestBuilder<'_>, now: Instant) -> Result<ExchangeId, ConnectionError> {
        self.check_open()?;
        request.check()?;
        let message = Message::request(&request.unobserved()).map_err(|error| self.not_protected(error))?;
        let exchange = self.send(message, request.is_confirmable(), false, now)?;
        self.pull(now);
        Ok(exchange)
    }

    fn respond(&mut self, exchange: ExchangeId, response: &Response, now: Instant) -> Result<(), ConnectionError> {
        self.check_open()?;
        if response.code.kind() != Kind::Response {
            return Err(ConnectionError::InvalidCode(response.code));
        }
        self.answer(exchange, response, now)?;
        self.pull(now);
        Ok(())
    }

    /// Nothing is ever observed.
    fn notify(&mut self, _exchange: ExchangeId, _response: &Response, _now: Instant) -> Result<(), ConnectionError> {
        Err(ConnectionError::UnknownExchange)
    }

    fn is_observed(&self, _exchange: ExchangeId) -> bool {
        false
    }

    fn stop_observing(
        &mut self,
        _exchange: ExchangeId,
        _request: &RequestBuilder<'_>,
        _now: Instant,
    ) -> Result<(), ConnectionError> {
        Err(ConnectionError::UnknownExchange)
    }

    fn cancel(&mut self, exchange: ExchangeId, now: Instant) {
        if let Some(place) = self.sent.iter().position(|sent| sent.name == exchange) {
            let sent = self.sent.swap_remove(place);
            self.outer.cancel(sent.outer, now);
            self.pull(now);
        }
    }

    fn ping(&mut self, now: Instant) -> Result<(), ConnectionError> {
        self.check_open()?;
        if self.sent.iter().filter(|sent| sent.is_ping).count() >= PINGS_OUTSTANDING_MAX {
            return Err(ConnectionError::TooManyPings);
        }
        let message = Message::new(Code::GET, &[], &[]).map_err(|error| self.not_protected(error))?;
        self.send(message, true, true, now)?;
        self.pull(now);
        Ok(())
    }

    fn release(&mut self, release: &Release) -> Result<(), ConnectionError> {
        self.check_open()?;
        self.outer.release(release)
    }

    fn abort(&mut self, diagnostic: &str) {
        self.closed = true;
        self.outer.abort(diagnostic);
    }

    fn is_closed(&self) -> bool {
        self.closed || self.outer.is_closed()
    }

    fn is_settled(&self) -> bool {
        self.events.is_empty() && self.outer.is_settled()
    }

    fn requests_outstanding(&self) -> usize {
        self.sent.iter().filter(|sent| !sent.is_ping).count()
    }

    fn transmit_octets(&self) -> usize {
        self.outer.transmit_octets()
    }
}

const EXHAUSTED: &str = "sequence numbers are used up";

/// What is wrong with a response before it is verified is nobody's word.
fn of_outer(failure: Failure) -> Failure {
    match failure {
        Failure::Unusable | Failure::TooLarge => Failure::NotVerified,
        other => other,
    }
}

/// A protected message as the outer connection sends it.
fn outside(message: &Message) -> Response {
    let mut response = Response::new(message.code()).with_payload(message.payload());
    response.oscore = message.option(number::OSCORE).map(Box::from);
    response
}

/// An unprotected refusal: never kept (RFC 8613 8.2).
fn plain(message: &Message) -> Response {
    Response::new(message.code()).with_max_age(0).with_payload(message.payload())
}

fn is_ping(request: &Request) -> bool {
    request.method == Code::GET && request.path.is_empty() && request.query.is_empty() && request.payload.is_empty()
}

/// The request of a verified message, or the answer to what is not served.
fn read_request(message: &Message, exchange: ExchangeId) -> Result<Request, Response> {
    let frame = Frame::new(message.code(), Token::default(), message.body());
    match message::read_request(&frame, exchange, INNER_OPTIONS_MAX, INNER) {
        Ok(Ok(request)) => Ok(Request { observe: None, ..request }),
        Ok(Err(refusal)) => Err(Response::new(refusal.code).with_payload(refusal.diagnostic)),
        Err(_) => Err(Response::new(Code::BAD_REQUEST)),
    }
}

fn read_response(message: &Message) -> Option<Response> {
    let frame = Frame::new(message.code(), Token::default(), message.body());
    let response = message::read_response(&frame, INNER_OPTIONS_MAX, INNER).ok()?.ok()?;
    Some(Response { observe: false, ..response })
}

/// What is understood of inner messages.
const INNER: Served = Served { block_wise: false, oscore: false };

fn count(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}
