//! One CoAP connection over a byte stream or WebSocket messages (RFC 8323).
//!
//! The flow, as the RFC has it:
//!
//! ```text
//! new ──> CSM sent ──> peer's CSM ──> requests and responses both ways ──> Release ──> settled ──> driver closes
//!              │            │         Ping/Pong, further CSMs, empty messages
//!              └────────────┴── anything the peer must not do ──> Abort sent ──> closed
//!                               Abort from the peer ─────────────────────────> closed
//! ```
//!
//! The CSM goes out first. Our requests need not wait for the peer's (RFC 8323 5.3 allows it), but until then must fit
//! into the base message size; the peer's first message other than an empty one must be its CSM.

mod observe;
mod transmit;

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};

use crate::code::{Code, Kind};
use crate::error::StreamError;
use crate::event::{Failure, StreamEvent};
use crate::frame::{self, Extent, Frame, Framing, Token};
use crate::limits::{BASE_MESSAGE_SIZE, DIAGNOSTIC_OCTETS_MAX, StreamConfig, TOO_MANY_REQUESTS_MAX_AGE_SECONDS};
use crate::message::{self, ExchangeId, Observe, Refusal, RequestBuilder, Response, Served};
use crate::signal::{self, Capabilities, Release};
use observe::Observations;
use transmit::Transmit;

/// What a connection has seen, for metrics. The counts start at 0 and wrap never in practice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Whole messages received.
    pub messages_received: u64,
    /// Messages written.
    pub messages_sent: u64,
    /// Empty messages, which are ignored (RFC 8323 3.4).
    pub empty_messages: u64,
    /// Responses and Pongs to nothing we asked, or to what was cancelled; ignored.
    pub responses_unmatched: u64,
    /// Requests answered 4.29 because of [`crate::StreamLimits::peer_requests_outstanding_max`].
    pub requests_over_limit: u64,
    /// Requests answered by themselves because of an option or method that is not served.
    pub requests_refused: u64,
}

/// What waits to be handed to the driver, in order of arrival.
#[derive(Debug)]
enum Queued {
    Event(StreamEvent),
    /// A Ping with Custody: everything before it has been handed over when this comes to the front.
    Custody {
        token: Token,
        /// Exchanges below this came before the Ping.
        before: u64,
    },
}

/// A Ping with Custody whose Pong waits for answers to requests that came before it.
#[derive(Debug)]
struct DelayedPong {
    token: Token,
    before: u64,
    unanswered: usize,
}

/// A request of ours that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct OwnRequest {
    exchange: ExchangeId,
    /// It asks to observe.
    observe: bool,
}

/// What a response answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Plain,
    ToObserve,
    /// An observation that stands: this is a further response.
    Observing,
}

/// A request of the peer that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct PeerRequest {
    token: Token,
    /// It asks to observe.
    observe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer's CSM has not come.
    AwaitingCsm,
    Open,
    Closed,
}

/// One connection: bytes and calls in, bytes and events out. See the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct StreamConnection {
    config: StreamConfig,
    /// The OSCORE option is handed on.
    oscore: bool,
    state: State,
    released: bool,
    released_by_peer: bool,
    peer: Capabilities,
    /// The unfinished message at the end of what was received; empty between messages.
    partial: Vec<u8>,
    transmit: Transmit,
    events: VecDeque<Queued>,
    /// The next exchange's name. The low 32 bits of ours are their tokens.
    next_exchange: u64,
    /// Ours without an answer, by token.
    requests: HashMap<u32, OwnRequest>,
    /// The peer's without an answer, with the token to answer with.
    peer_requests: HashMap<ExchangeId, PeerRequest>,
    observations: Observations,
    /// Ours without a Pong, by token.
    pings: Vec<u32>,
    /// How many [`Queued::Custody`] are in `events`.
    custody_queued: usize,
    delayed_pongs: Vec<DelayedPong>,
    counters: StreamCounters,
}

impl StreamConnection {
    /// A fresh connection, of which either side may be the one that connected. Our CSM waits to be sent.
    #[must_use]
    pub fn new(config: StreamConfig) -> Self {
        Self::with_transmit(config, Transmit::Stream(Vec::new()))
    }

    /// The same over WebSocket messages (RFC 8323 4): give each binary message of the peer whole to
    /// [`StreamConnection::receive`], and send each that [`StreamConnection::poll_transmit`] returns as one. The
    /// handshake (subprotocol `coap`, resource `/.well-known/coap`) and WebSocket's own Ping, Pong and Close are below
    /// this.
    #[must_use]
    pub fn over_websocket(config: StreamConfig) -> Self {
        Self::with_transmit(config, Transmit::Messages { queue: VecDeque::new(), octets: 0 })
    }

    /// The same for an [`crate::oscore::OscoreConnection`] around it: messages with an OSCORE option are handed on. To
    /// any other it is a critical option that is not understood.
    #[must_use]
    pub fn for_oscore(mut self) -> Self {
        self.oscore = true;
        self
    }

    fn with_transmit(config: StreamConfig, transmit: Transmit) -> Self {
        let config =
            StreamConfig { max_message_size_own: config.max_message_size_own.max(BASE_MESSAGE_SIZE), ..config };
        let mut connection = Self {
            config,
            oscore: false,
            state: State::AwaitingCsm,
            released: false,
            released_by_peer: false,
            peer: Capabilities::default(),
            partial: Vec::new(),
            transmit,
            events: VecDeque::new(),
            next_exchange: 0,
            requests: HashMap::new(),
            peer_requests: HashMap::new(),
            observations: Observations::default(),
            pings: Vec::new(),
            custody_queued: 0,
            delayed_pongs: Vec::new(),
            counters: StreamCounters::default(),
        };
        connection.write_signal(Code::CSM, Token::default(), &[], |options| {
            signal::write_csm(options, config.max_message_size_own);
        });
        connection
    }

    /// Takes octets from the peer, as many or as few as have come, or one WebSocket message. An error is fatal; what came before the offence can
    /// still be polled, and so can the Abort that answers it.
    pub fn receive(&mut self, octets: &[u8]) -> Result<(), StreamError> {
        if self.state == State::Closed {
            return Err(StreamError::Closed);
        }
        let taken = match self.framing() {
            Framing::Stream => self.consume(octets),
            Framing::WebSocket => self.take_alone(octets),
        };
        taken.map_err(|error| self.fail(error))
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        loop {
            match self.events.pop_front()? {
                Queued::Event(event) => {
                    if self.events.is_empty() && self.events.capacity() > RETAINED_ENTRIES {
                        self.events = VecDeque::new();
                    }
                    return Some(event);
                }
                Queued::Custody { token, before } => {
                    self.custody_queued = self.custody_queued.saturating_sub(1);
                    if self.state == State::Closed {
                        continue;
                    }
                    let unanswered = self.peer_requests.keys().filter(|exchange| exchange.0 < before).count();
                    if unanswered == 0 {
                        self.write_pong(token, true);
                    } else {
                        self.delayed_pongs.push(DelayedPong { token, before, unanswered });
                    }
                }
            }
        }
    }

    /// All octets that are to be sent, if there are any, or the next WebSocket message. Poll it only when they can be handed to the transport: what is
    /// not polled is what [`crate::StreamLimits::transmit_octets_max`] counts.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmit.take()
    }

    /// Sends a request. The response comes as [`StreamEvent::Response`] with the name returned here; further ones, too,
    /// if it asks to observe and the peer grants it.
    pub fn request<'a>(&mut self, request: impl Borrow<RequestBuilder<'a>>) -> Result<ExchangeId, StreamError> {
        let request = request.borrow();
        self.check_open()?;
        if self.released || self.released_by_peer {
            return Err(StreamError::Released);
        }
        if self.requests.len() >= self.config.limits.requests_outstanding_max {
            return Err(StreamError::TooManyRequests);
        }
        request.check()?;
        let (exchange, token) = self.fresh_token();
        self.write(request.method(), &Token::from_number(token), request.payload_octets(), |options| {
            request.write_options(options);
        })?;
        self.next_exchange = exchange.0 + 1;
        self.requests.insert(token, OwnRequest { exchange, observe: request.asks_to_observe() });
        Ok(exchange)
    }

    /// Answers a request of the peer. If it fails with [`StreamError::TransmitFull`] or
    /// [`StreamError::MessageTooLargeForPeer`], the request still waits for an answer.
    ///
    /// With [`Response::observe`], class 2 and a request that asks for it, the peer observes from then on, up to
    /// [`crate::StreamLimits::peer_observations_max`]: [`StreamConnection::is_observed`] tells, and
    /// [`StreamConnection::notify`] sends what comes later.
    pub fn respond(&mut self, exchange: ExchangeId, response: impl Borrow<Response>) -> Result<(), StreamError> {
        let response = response.borrow();
        self.check_open()?;
        if response.code.kind() != Kind::Response {
            return Err(StreamError::InvalidCode(response.code));
        }
        let PeerRequest { token, observe } = *self.peer_requests.get(&exchange).ok_or(StreamError::UnknownExchange)?;
        let observed = observe && response.observe && response.code.is_success() && self.observe_peer(token);
        self.write(response.code, &token, &response.payload, |options| response.write_options(options, observed))?;
        self.peer_requests.remove(&exchange);
        shrink(&mut self.peer_requests);
        if observed {
            self.observed_by_peer(exchange, token);
        }
        self.settle_custody(exchange);
        Ok(())
    }

    /// Gives up waiting for the answer to a request of ours, for example after a time-out; an answer that comes later is
    /// ignored, and so is what else an observation brings ([`StreamConnection::stop_observing`] tells the peer, too).
    /// Does nothing if the exchange is over.
    pub fn cancel(&mut self, exchange: ExchangeId) {
        let token = token_of(exchange);
        if self.observations.own_exchange(token) == Some(exchange) {
            self.observations.forget_own(token);
        }
        if self.requests.get(&token).is_some_and(|request| request.exchange == exchange) {
            self.requests.remove(&token);
            shrink(&mut self.requests);
        }
    }

    /// Asks the peer for a sign of life; it comes as [`StreamEvent::Pong`].
    pub fn ping(&mut self) -> Result<(), StreamError> {
        self.send_ping(false)
    }

    /// As [`StreamConnection::ping`], and asks the peer to answer only once it has processed what was sent before.
    pub fn ping_with_custody(&mut self) -> Result<(), StreamError> {
        self.send_ping(true)
    }

    /// Tells the peer that the connection is to end (RFC 8323 5.5). After it no request can be sent; those of the peer
    /// that are still under way come and are to be answered. Close the transport once
    /// [`StreamConnection::is_settled`].
    pub fn release(&mut self, release: &Release) -> Result<(), StreamError> {
        self.check_open()?;
        release.check()?;
        self.released = true;
        self.write_signal(Code::RELEASE, Token::default(), &[], |options| release.write_options(options));
        Ok(())
    }

    /// Ends the connection at once (RFC 8323 5.6); `diagnostic` is for the peer's log, cut to 256 octets. Send what
    /// [`StreamConnection::poll_transmit`] has, and close the transport. Does nothing if the connection is closed.
    pub fn abort(&mut self, diagnostic: &str) {
        self.close_with_abort(None, diagnostic);
    }

    /// Whether the connection is closed: after an Abort of either side.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether nothing is under way: no request of either side without its answer, no event and no octet that waits to
    /// be polled. Observations do not count: they end with the connection.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.requests.is_empty() && self.peer_requests.is_empty() && self.events.is_empty() && self.transmit.is_empty()
    }

    /// Requests of ours that wait for an answer.
    #[must_use]
    pub fn requests_outstanding(&self) -> usize {
        self.requests.len()
    }

    /// Octets that wait for [`StreamConnection::poll_transmit`].
    #[must_use]
    pub fn transmit_octets(&self) -> usize {
        self.transmit.len()
    }

    /// The largest message that the peer takes, in octets: [`BASE_MESSAGE_SIZE`] before its CSM.
    #[must_use]
    pub fn peer_max_message_size(&self) -> u32 {
        self.peer.max_message_size
    }

    /// What the connection has seen.
    #[must_use]
    pub fn counters(&self) -> StreamCounters {
        self.counters
    }

    /// Cuts the input into messages: out of `octets` as long as nothing of an earlier call is left, otherwise by
    /// completing that first. No octet is copied twice.
    fn consume(&mut self, mut octets: &[u8]) -> Result<(), StreamError> {
        while !octets.is_empty() && self.state != State::Closed {
            if self.partial.is_empty() {
                match self.checked_extent(octets)? {
                    Extent::Total(total) if let Some((message, rest)) = octets.split_at_checked(total as usize) => {
                        octets = rest;
                        self.take_message(message)?;
                    }
                    // Only what is there is kept, whatever length the header announces.
                    _ => {
                        self.partial.extend_from_slice(octets);
                        return Ok(());
                    }
                }
            } else {
                octets = self.complete_partial(octets)?;
            }
        }
        Ok(())
    }

    /// Adds to the unfinished message what it lacks, takes it if it is whole, and returns the rest.
    fn complete_partial<'a>(&mut self, octets: &'a [u8]) -> Result<&'a [u8], StreamError> {
        let (wanted, whole) = match self.checked_extent(&self.partial)? {
            Extent::Needs(octets) => (octets, false),
            Extent::Total(octets) => (octets as usize, true),
        };
        let lacking = wanted.saturating_sub(self.partial.len()).min(octets.len());
        let (head, rest) = octets.split_at_checked(lacking).unwrap_or((octets, &[]));
        self.partial.extend_from_slice(head);
        if whole && self.partial.len() >= wanted {
            let message = std::mem::take(&mut self.partial);
            self.take_message(&message)?;
        }
        Ok(rest)
    }

    /// The extent of the message that begins with `start`, checked against our limit before anything is kept of it.
    fn checked_extent(&self, start: &[u8]) -> Result<Extent, StreamError> {
        let extent = frame::extent(start)?;
        let octets_max = self.config.max_message_size_own;
        match extent {
            Extent::Total(octets) if octets > u64::from(octets_max) => {
                Err(StreamError::MessageTooLarge { octets, octets_max })
            }
            _ => Ok(extent),
        }
    }

    /// Takes a message that is alone in its WebSocket message.
    fn take_alone(&mut self, message: &[u8]) -> Result<(), StreamError> {
        let (octets, octets_max) = (message.len() as u64, self.config.max_message_size_own);
        if octets > u64::from(octets_max) {
            return Err(StreamError::MessageTooLarge { octets, octets_max });
        }
        self.take_frame(&Frame::parse_alone(message)?)
    }

    fn take_message(&mut self, message: &[u8]) -> Result<(), StreamError> {
        self.take_frame(&Frame::parse(message)?)
    }

    fn take_frame(&mut self, frame: &Frame<'_>) -> Result<(), StreamError> {
        self.counters.messages_received += 1;
        let kind = frame.code.kind();
        if kind == Kind::Empty {
            // RFC 8323 3.4: always allowed, and without effect.
            self.counters.empty_messages += 1;
            return Ok(());
        }
        if self.state == State::AwaitingCsm && frame.code != Code::CSM {
            return Err(StreamError::CsmExpected);
        }
        match kind {
            Kind::Request => self.take_request(frame),
            Kind::Response => self.take_response(frame),
            Kind::Signal => self.take_signal(frame),
            Kind::Empty | Kind::Reserved => Err(StreamError::ReservedCode { code: frame.code }),
        }
    }

    fn take_request(&mut self, frame: &Frame<'_>) -> Result<(), StreamError> {
        let exchange = ExchangeId(self.next_exchange);
        let limits = &self.config.limits;
        if self.peer_requests.len() >= limits.peer_requests_outstanding_max {
            self.counters.requests_over_limit += 1;
            let mut answer = Response::new(Code::TOO_MANY_REQUESTS);
            answer.max_age = Some(TOO_MANY_REQUESTS_MAX_AGE_SECONDS);
            return self.answer(&frame.token, &answer);
        }
        let served = Served { block_wise: false, oscore: self.oscore };
        match message::read_request(frame, exchange, limits.options_max, served)? {
            Ok(request) => {
                self.next_exchange += 1;
                self.end_peer_observation(frame.token);
                let observe = request.observe == Some(Observe::Register);
                self.peer_requests.insert(exchange, PeerRequest { token: frame.token, observe });
                self.events.push_back(Queued::Event(StreamEvent::Request { request }));
                Ok(())
            }
            Err(Refusal { code, diagnostic }) => {
                self.counters.requests_refused += 1;
                self.answer(&frame.token, &Response::new(code).with_payload(diagnostic))
            }
        }
    }

    fn take_response(&mut self, frame: &Frame<'_>) -> Result<(), StreamError> {
        let Some((token, exchange, asked)) = self.answered(frame) else {
            self.counters.responses_unmatched += 1;
            return Ok(());
        };
        let served = Served { block_wise: false, oscore: self.oscore };
        let event = match message::read_response(frame, self.config.limits.options_max, served)? {
            Ok(mut response) => {
                // Only what we asked to observe is observed, and only success keeps it so (RFC 7641 3.2).
                response.observe &= asked != Asked::Plain && response.code.is_success();
                if response.observe && asked == Asked::ToObserve {
                    response.observe = self.observe_own(token, exchange);
                }
                if !response.observe {
                    self.observations.forget_own(token);
                }
                StreamEvent::Response { exchange, response }
            }
            Err(_) => {
                self.observations.forget_own(token);
                StreamEvent::Failed { exchange, failure: Failure::Unusable }
            }
        };
        self.events.push_back(Queued::Event(event));
        Ok(())
    }

    /// The exchange that a response belongs to, taken from those that wait for their first.
    fn answered(&mut self, frame: &Frame<'_>) -> Option<(u32, ExchangeId, Asked)> {
        let token = frame.token.number()?;
        let Some(OwnRequest { exchange, observe }) = self.requests.remove(&token) else {
            return self.observations.own_exchange(token).map(|exchange| (token, exchange, Asked::Observing));
        };
        shrink(&mut self.requests);
        Some((token, exchange, if observe { Asked::ToObserve } else { Asked::Plain }))
    }

    fn take_signal(&mut self, frame: &Frame<'_>) -> Result<(), StreamError> {
        let options_max = self.config.limits.options_max;
        match frame.code {
            Code::CSM => {
                self.peer = signal::read_csm(frame, options_max, self.peer)?;
                if self.state == State::AwaitingCsm {
                    self.state = State::Open;
                    let Capabilities { max_message_size, block_wise_transfer } = self.peer;
                    let event = StreamEvent::PeerReady { max_message_size, block_wise_transfer };
                    self.events.push_back(Queued::Event(event));
                }
                Ok(())
            }
            Code::PING => {
                let custody = signal::read_custody(frame, options_max)?;
                self.take_ping(frame.token, custody)
            }
            Code::PONG => {
                let custody = signal::read_custody(frame, options_max)?;
                let position = self.pings.iter().position(|ping| Some(*ping) == frame.token.number());
                // libcoap 4.3.1 answers without the token that RFC 8323 5.4 wants back; a stream keeps order, so that is
                // the answer to the oldest.
                let oldest = (frame.token == Token::default() && !self.pings.is_empty()).then_some(0);
                match position.or(oldest) {
                    Some(position) => {
                        self.pings.remove(position);
                        self.events.push_back(Queued::Event(StreamEvent::Pong { custody }));
                    }
                    None => self.counters.responses_unmatched += 1,
                }
                Ok(())
            }
            Code::RELEASE => {
                let release = signal::read_release(frame, options_max)?;
                if !self.released_by_peer {
                    self.released_by_peer = true;
                    self.events.push_back(Queued::Event(StreamEvent::Released { release }));
                }
                Ok(())
            }
            Code::ABORT => {
                let (bad_csm_option, diagnostic) = signal::read_abort(frame, options_max);
                self.close();
                self.events.push_back(Queued::Event(StreamEvent::Aborted { bad_csm_option, diagnostic }));
                Ok(())
            }
            code => Err(StreamError::ReservedCode { code }),
        }
    }

    /// Answers a Ping: at once, or with Custody once all that came before it is processed, which is: handed over, and
    /// requests answered.
    fn take_ping(&mut self, token: Token, custody: bool) -> Result<(), StreamError> {
        self.check_peer_reads()?;
        let waiting = self.delayed_pongs.len() + self.custody_queued;
        if custody && self.events.is_empty() && self.peer_requests.is_empty() {
            self.write_pong(token, true);
        } else if custody && waiting < self.config.limits.peer_pings_delayed_max {
            self.custody_queued += 1;
            self.events.push_back(Queued::Custody { token, before: self.next_exchange });
        } else {
            self.write_pong(token, false);
        }
        Ok(())
    }

    /// Sends the Pongs that waited for this exchange alone.
    fn settle_custody(&mut self, exchange: ExchangeId) {
        let mut due = Vec::new();
        self.delayed_pongs.retain_mut(|delayed| {
            if exchange.0 < delayed.before {
                delayed.unanswered = delayed.unanswered.saturating_sub(1);
            }
            if delayed.unanswered == 0 {
                due.push(delayed.token);
            }
            delayed.unanswered > 0
        });
        for token in due {
            self.write_pong(token, true);
        }
    }

    fn send_ping(&mut self, custody: bool) -> Result<(), StreamError> {
        self.check_open()?;
        if self.pings.len() >= self.config.limits.pings_outstanding_max {
            return Err(StreamError::TooManyPings);
        }
        let (exchange, token) = self.fresh_token();
        self.next_exchange = exchange.0 + 1;
        self.pings.push(token);
        self.write_signal(Code::PING, Token::from_number(token), &[], |options| {
            signal::write_custody(options, custody);
        });
        Ok(())
    }

    fn write_pong(&mut self, token: Token, custody: bool) {
        self.write_signal(Code::PONG, token, &[], |options| signal::write_custody(options, custody));
    }

    /// The name and token of the next exchange. Tokens come round after 2^32; one that is still in use is passed over.
    fn fresh_token(&self) -> (ExchangeId, u32) {
        let mut exchange = ExchangeId(self.next_exchange);
        let in_use = |token: u32| {
            self.requests.contains_key(&token) || self.pings.contains(&token) || self.observations.own_token(token)
        };
        while in_use(token_of(exchange)) {
            exchange.0 += 1;
        }
        (exchange, token_of(exchange))
    }

    fn check_open(&self) -> Result<(), StreamError> {
        if self.state == State::Closed { Err(StreamError::Closed) } else { Ok(()) }
    }

    fn check_peer_reads(&self) -> Result<(), StreamError> {
        if self.transmit.len() >= self.config.limits.transmit_octets_max {
            Err(StreamError::PeerNotReading)
        } else {
            Ok(())
        }
    }

    /// Writes what the application sends: it may be refused.
    fn write(
        &mut self,
        code: Code,
        token: &Token,
        payload: &[u8],
        options: impl FnOnce(&mut frame::OptionWriter<'_>),
    ) -> Result<(), StreamError> {
        if self.transmit.len() >= self.config.limits.transmit_octets_max {
            return Err(StreamError::TransmitFull);
        }
        self.append(self.peer.max_message_size, code, token, payload, options)?;
        self.counters.messages_sent += 1;
        Ok(())
    }

    /// Writes an answer of the connection itself.
    fn answer(&mut self, token: &Token, response: &Response) -> Result<(), StreamError> {
        self.check_peer_reads()?;
        let size = self.peer.max_message_size;
        let options = |options: &mut frame::OptionWriter<'_>| response.write_options(options, false);
        // The text is for people; a peer that takes next to nothing gets the code alone.
        if self.append(size, response.code, token, &response.payload, options).is_err() {
            let _ = self.append(u32::MAX, response.code, token, &[], |_| {});
        }
        self.counters.messages_sent += 1;
        Ok(())
    }

    /// Writes a signalling message. They are small, and not held to the peer's size.
    fn write_signal(
        &mut self,
        code: Code,
        token: Token,
        payload: &[u8],
        options: impl FnOnce(&mut frame::OptionWriter<'_>),
    ) {
        // Cannot fail: no size is over the limit given.
        let _ = self.append(u32::MAX, code, &token, payload, options);
        self.counters.messages_sent += 1;
    }

    fn append(
        &mut self,
        octets_max: u32,
        code: Code,
        token: &Token,
        payload: &[u8],
        options: impl FnOnce(&mut frame::OptionWriter<'_>),
    ) -> Result<(), StreamError> {
        let framing = self.framing();
        self.transmit.append(|out| frame::write(out, framing, octets_max, code, token, payload, options))
    }

    fn framing(&self) -> Framing {
        match self.transmit {
            Transmit::Stream(_) => Framing::Stream,
            Transmit::Messages { .. } => Framing::WebSocket,
        }
    }

    fn fail(&mut self, error: StreamError) -> StreamError {
        let bad_csm_option = match error {
            StreamError::BadCsmOption { number } => Some(number),
            _ => None,
        };
        self.close_with_abort(bad_csm_option, &error.to_string());
        error
    }

    fn close_with_abort(&mut self, bad_csm_option: Option<u16>, diagnostic: &str) {
        if self.state == State::Closed {
            return;
        }
        let diagnostic = diagnostic.as_bytes();
        let diagnostic = diagnostic.get(..DIAGNOSTIC_OCTETS_MAX).unwrap_or(diagnostic);
        self.write_signal(Code::ABORT, Token::default(), diagnostic, |options| {
            signal::write_abort(options, bad_csm_option);
        });
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.partial = Vec::new();
        self.requests = HashMap::new();
        self.peer_requests = HashMap::new();
        self.observations.clear();
        self.pings = Vec::new();
        self.delayed_pongs = Vec::new();
    }
}

/// A table or queue that grew beyond this in a burst is given back once it is empty: most connections are idle most of
/// the time, and there are many of them.
const RETAINED_ENTRIES: usize = 32;

fn shrink<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>) {
    if map.is_empty() && map.capacity() > RETAINED_ENTRIES {
        *map = HashMap::new();
    }
}

fn token_of(exchange: ExchangeId) -> u32 {
    exchange.0 as u32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::message::Request;

    #[test]
    fn a_token_that_is_still_in_use_is_passed_over_when_tokens_come_round() {
        let mut connection = StreamConnection::new(StreamConfig::default());
        let first = connection.request(Request::get("x")).unwrap();
        connection.ping().unwrap();
        connection.next_exchange = 1 << 32;
        let later = connection.request(Request::get("x")).unwrap();
        assert_eq!((first.0, later.0), (0, (1 << 32) + 2), "0 waits for its answer, 1 for its Pong");
        assert_eq!(connection.requests_outstanding(), 2);
        connection.cancel(ExchangeId(1 << 32));
        assert_eq!(connection.requests_outstanding(), 2, "another exchange with the same token is not cancelled");
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut connection = StreamConnection::new(StreamConfig::default());
        let exchanges: Vec<_> = (0..200).map(|_| connection.request(Request::get("x")).unwrap()).collect();
        exchanges.into_iter().for_each(|exchange| connection.cancel(exchange));
        connection.poll_transmit().unwrap();
        assert_eq!(connection.requests.capacity(), 0);
        assert!(matches!(connection.transmit, Transmit::Stream(octets) if octets.capacity() == 0));
    }
}
