//! A connection whose requests and responses are protected, around one that carries them.
//!
//! ```text
//!  driver ── request ──▶ protect ──▶ outer: POST, OSCORE, ciphertext ──▶ blocks, retransmission, tokens ──▶ wire
//!  driver ◀── event ──── verify ◀─── outer event ◀── copies gone, blocks put together ◀─────────────────── wire
//! ```
//!
//! What is retransmitted is the protected message as it was. Of datagrams nothing is given to the outer connection that has
//! not been verified (`screening`). What is too large for a datagram is cut inside, each block protected for itself (RFC 8613
//! 4.1.3.4.1), if [`InnerBlocks`] says so; what the peer has cut outside (4.1.3.4.2) the outer connection puts together.
//! Observe is not served: a request that asks for it is answered once (RFC 7641 4.1).
//!
//! A Ping is a protected GET of nothing (no path, no payload), which the other side's connection answers itself with 2.05:
//! a Reset or Pong of the outer layer would be anybody's word. Any verified response to it counts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::blocks::{INNER, INNER_OPTIONS_MAX, InnerBlocks, PeerBlocks, Reply, Taken};
use super::context::SecurityContext;
use super::error::OscoreError;
use super::exchange::{ReceivedRequest, SentRequest, Verified};
use super::keys::KeyId;
use super::message::{Message, number};
use super::screening::{Doubt, Outer};
use crate::block::Extras;
use crate::code::{Code, Kind};
use crate::datagram::{DatagramConnection, ECHO_OCTETS};
use crate::error::ConnectionError;
use crate::event::{ConnectionEvent, Failure};
use crate::exchanges::Connection;
use crate::frame::{Frame, Token};
use crate::limits::TOKEN_OCTETS_MAX;
use crate::message::{self, ExchangeId, Request, RequestBuilder, Response};
use crate::signal::Release;
use crate::transfer::{Step, StepContext, Transfer};

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
    /// A request that was made with the peer's keys and has been seen, under a Message ID that is remembered: what it was
    /// answered is said again. Anybody who recorded it can send it.
    Copy,
    /// A request that is neither: altered, made with other keys, repeated under another Message ID, or cut outside where
    /// that is not put together. Nothing of it is to be remembered.
    Forged(OscoreError),
    /// Nothing is known: an acknowledgement, a response, or a block where [`InnerBlocks`] cuts nothing. Only what comes from
    /// where the peer was seen last is worth anything.
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
    /// The whole of it.
    request: Message,
    transfer: Transfer,
    confirmable: bool,
    is_ping: bool,
    /// The peer asked for it once more, with Echo.
    repeated: bool,
}

impl Sent {
    /// The next message of it.
    fn compose(&self, echo: Option<&[u8]>) -> Result<Message, OscoreError> {
        let (code, payload) = (self.request.code(), self.request.payload());
        let (options, payload) = self.transfer.compose(code, self.request.options_octets(), payload, &[], echo);
        Message::merged(code, &options, &[], &[], payload)
    }
}

/// A request of the peer without its answer.
#[derive(Debug)]
struct Received {
    exchange: ExchangeId,
    secured: ReceivedRequest,
    reply: Reply,
}

/// CoAP with one peer under a security context, driven as any [`Connection`].
///
/// The context is volatile, or its sequence is kept durable by whoever has it:
/// [`OscoreConnection::context_mut`]. After [`OscoreError::SequenceExhausted`], or when the peer says that it has no such
/// context, it is [`ConnectionEvent::Aborted`] and closed: agree on a new one.
#[derive(Debug)]
pub struct OscoreConnection<C> {
    pub(super) outer: C,
    pub(super) context: SecurityContext,
    sent: Vec<Sent>,
    /// What was asked at a new address of the peer's.
    question: Option<(ExchangeId, SentRequest)>,
    /// The peer has answered it, which the outer connection has not been told.
    answered: bool,
    received: Vec<Received>,
    pub(super) blocks: PeerBlocks,
    pub(super) doubt: Doubt,
    /// No answer that nothing vouches for ends it.
    pub(super) is_kept: bool,
    /// The Request-Tag of the next request that needs one.
    next_tag: u32,
    events: VecDeque<ConnectionEvent>,
    closed: bool,
    counters: OscoreCounters,
}

impl<C: Outer> OscoreConnection<C> {
    /// A connection under `context`. `outer` was made with [`crate::DatagramConnection::for_oscore`] or
    /// [`crate::StreamConnection::for_oscore`]; what has happened on it is taken up with the next call.
    #[must_use]
    pub fn new(outer: C, context: SecurityContext) -> Self {
        Self {
            outer,
            context,
            sent: Vec::new(),
            question: None,
            answered: false,
            received: Vec::new(),
            blocks: PeerBlocks::new(Arc::default()),
            doubt: Doubt::default(),
            is_kept: false,
            next_tag: 0,
            events: VecDeque::new(),
            closed: false,
            counters: OscoreCounters::default(),
        }
    }

    /// Cuts and puts together so; without it, what comes in blocks is taken, and nothing is cut.
    #[must_use]
    pub fn with_inner_blocks(mut self, blocks: &Arc<InnerBlocks>) -> Self {
        self.blocks = PeerBlocks::new(Arc::clone(blocks));
        self
    }

    /// For the side that did not begin the agreement on the context: if the peer loses it, it agrees anew by itself. An answer
    /// that nothing vouches for is passed over, and leads to no question.
    #[must_use]
    pub fn kept_for_peer(mut self) -> Self {
        self.is_kept = true;
        self
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

    /// What a datagram is worth, before [`Connection::receive`] or [`OscoreConnection::receive_judged`]. Changes nothing.
    #[must_use]
    pub fn provenance(&self, datagram: &[u8], now: Instant) -> Provenance {
        C::read(datagram).map_or(Provenance::Unknown, |datagram| self.judge(&datagram, now))
    }

    /// [`Connection::receive`] of what [`OscoreConnection::provenance`] has just said that of, so that it is not verified
    /// once more for that.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn receive_judged(
        &mut self,
        octets: &[u8],
        provenance: &Provenance,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        self.check_open()?;
        let received = match C::read(octets) {
            Some(datagram) => self.take_judged(&datagram, octets, provenance, now),
            None => self.outer.receive(octets, now),
        };
        self.pull(now);
        received
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
                self.reassured(now);
                self.take_verified(outer.exchange, &message, exchange, now);
            }
            Ok(Verified::Unproven { answer }) => self.refuse(outer.exchange, &outside(&answer), now),
            Err(error) => {
                self.count_refused(&error);
                let answer = error.answer().map(|answer| plain(&answer));
                self.refuse(outer.exchange, &answer.unwrap_or(Response::new(Code::SERVICE_UNAVAILABLE)), now);
                if error == OscoreError::SequenceExhausted {
                    self.end(EXHAUSTED);
                }
            }
        }
    }

    pub(super) fn count_refused(&mut self, error: &OscoreError) {
        count(match error {
            OscoreError::NotProtected { .. } => &mut self.counters.requests_unprotected,
            OscoreError::Replay => &mut self.counters.requests_replayed,
            _ => &mut self.counters.requests_refused,
        });
    }

    pub(super) fn count_response(&mut self, verified: bool) {
        count(if verified { &mut self.counters.responses_verified } else { &mut self.counters.responses_refused });
    }

    /// What was asked at an address counts no more.
    pub(super) fn forget_question(&mut self) {
        (self.question, self.answered) = (None, false);
    }

    /// What ties a response to what was asked with that name.
    pub(super) fn asked_with(&self, outer: ExchangeId) -> Option<&SentRequest> {
        let question = self.question.as_ref().filter(|(asked, _)| *asked == outer).map(|(_, secured)| secured);
        let sent = || self.sent.iter().find(|sent| sent.outer == outer).map(|sent| &sent.secured);
        question.or_else(sent)
    }

    fn take_verified(&mut self, exchange: ExchangeId, message: &Message, secured: ReceivedRequest, now: Instant) {
        let besides = self.octets_held();
        // If there is no room for an answer, the peer asks again.
        match self.blocks.take(message, exchange, besides, now) {
            Taken::Answered(answer) => {
                self.received.push(Received { exchange, secured, reply: Reply::default() });
                let _ = self.protect_answer(exchange, &answer, now);
            }
            Taken::Request(request, reply) => {
                self.received.push(Received { exchange, secured, reply });
                if is_ping(&request) {
                    let _ = self.answer(exchange, &Response::new(Code::CONTENT), now);
                } else {
                    self.events.push_back(ConnectionEvent::Request { request });
                }
            }
        }
    }

    /// Octets of bodies in blocks that are with the application, or came in answer to what we asked.
    fn octets_held(&self) -> usize {
        let received: usize = self.received.iter().map(|received| received.reply.octets_held).sum();
        received + self.sent.iter().map(|sent| sent.transfer.octets_held()).sum::<usize>()
    }

    /// Answers without protection, if there is room for that.
    fn refuse(&mut self, exchange: ExchangeId, response: &Response, now: Instant) {
        let _ = self.outer.respond(exchange, response, now);
    }

    fn answer(&mut self, exchange: ExchangeId, response: &Response, now: Instant) -> Result<(), ConnectionError> {
        let besides = self.octets_held();
        let received = self.received.iter().find(|received| received.exchange == exchange);
        let reply = &received.ok_or(ConnectionError::UnknownExchange)?.reply;
        let message = self.blocks.compose(reply, response, besides, now)?;
        self.protect_answer(exchange, &message, now)?;
        self.blocks.settle(self.octets_held());
        Ok(())
    }

    fn protect_answer(&mut self, exchange: ExchangeId, answer: &Message, now: Instant) -> Result<(), ConnectionError> {
        let place = self.received.iter().position(|received| received.exchange == exchange);
        let mut received = self.received.swap_remove(place.ok_or(ConnectionError::UnknownExchange)?);
        let again = received.secured.answered_anew();
        let sent = self
            .context
            .protect_response(&mut received.secured, answer)
            .map_err(|error| self.not_protected(error))
            .and_then(|message| self.outer.respond(exchange, &outside(&message), now));
        if let Err(error) = sent
            && error != ConnectionError::UnknownExchange
        {
            self.received.push(Received { secured: again, ..received });
        }
        sent
    }

    /// An answer to what was asked at the peer's new address: true if the peer gave it.
    fn is_answered(&mut self, outer: ExchangeId, response: &Response) -> bool {
        let question = self.question.as_mut().filter(|(asked, _)| *asked == outer).map(|(_, secured)| secured);
        let Some(secured) = question.or_else(|| self.doubt.question(outer)) else { return false };
        let Some(option) = &response.oscore else {
            count(&mut self.counters.responses_refused);
            return false;
        };
        let message = Message::new(response.code, &[(number::OSCORE, option)], &response.payload);
        let answered = message.and_then(|message| self.context.unprotect_response(secured, &message)).is_ok();
        count(if answered { &mut self.counters.responses_verified } else { &mut self.counters.responses_refused });
        answered
    }

    fn take_response(&mut self, outer: ExchangeId, response: &Response, now: Instant) {
        if self.is_answered(outer, response) {
            if self.question.take_if(|(asked, _)| *asked == outer).is_some() {
                self.answered = true;
            }
            return self.reassured(now);
        }
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
        self.reassured(now);
        let frame = Frame::new(message.code(), Token::default(), message.body());
        let read = message::read_response(&frame, INNER_OPTIONS_MAX, INNER);
        let extras = Extras::read(&frame).unwrap_or_default();
        if message.code() == Code::UNAUTHORIZED && extras.echo.is_some() && !sent.repeated {
            // The peer had lost what it knew of our numbers (RFC 8613 Appendix B.1.2).
            sent.repeated = true;
            return self.go_on(sent, extras.echo, now);
        }
        if sent.is_ping {
            return self.events.push_back(ConnectionEvent::Pong { custody: false });
        }
        let (Ok(Ok(response)), Ok(extras)) = (read, Extras::read(&frame)) else {
            return self.fail(&sent, Failure::Unusable);
        };
        self.step(sent, &extras, Response { observe: false, ..response }, now);
    }

    /// What a verified response leads to.
    fn step(&mut self, mut sent: Sent, extras: &Extras<'_>, response: Response, now: Instant) {
        let context = StepContext {
            payload_octets: sent.request.payload().len(),
            response_octets_max: self.blocks.settings().payload_octets_max,
            tag: self.fresh_tag(),
        };
        match sent.transfer.step(extras, response, &context) {
            Step::Again if self.blocks.has_room(self.octets_held(), sent.transfer.octets_held()) => {
                return self.go_on(sent, None, now);
            }
            Step::Again => self.fail(&sent, Failure::TooLarge),
            Step::Done(response) => {
                self.events.push_back(ConnectionEvent::Response { exchange: sent.name, response });
            }
            // What has no effect is asked once more.
            Step::Changed
                if matches!(sent.request.code(), Code::GET | Code::FETCH) && sent.transfer.may_fetch_anew() =>
            {
                return self.go_on(sent, None, now);
            }
            Step::Changed => self.fail(&sent, Failure::Unusable),
            Step::Failed(failure) => self.fail(&sent, failure),
        }
        self.blocks.settle(self.octets_held());
    }

    /// Sends the next message of a request.
    fn go_on(&mut self, sent: Sent, echo: Option<&[u8]>, now: Instant) {
        let next = sent.compose(echo).map_err(|error| self.not_protected(error));
        match next.and_then(|message| self.transmit(&message, sent.confirmable, now)) {
            Ok((outer, secured)) => self.sent.push(Sent { outer, secured, ..sent }),
            Err(_) => self.fail(&sent, Failure::NoAnswer),
        }
    }

    fn fresh_tag(&mut self) -> u32 {
        self.next_tag = self.next_tag.wrapping_add(1);
        self.next_tag
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

    /// Sends a request, or the first block of it.
    fn send(
        &mut self,
        request: Message,
        confirmable: bool,
        is_ping: bool,
        now: Instant,
    ) -> Result<ExchangeId, ConnectionError> {
        let mut transfer = Transfer::default();
        if let Some(size) = self.blocks.settings().upload_size(&request)? {
            transfer.begin_upload(size, self.fresh_tag());
        } else if !is_ping && self.is_like_another(&request) {
            transfer.tagged(self.fresh_tag());
        }
        let code = request.code();
        let (options, payload) = transfer.compose(code, request.options_octets(), request.payload(), &[], None);
        let message = Message::merged(code, &options, &[], &[], payload).map_err(|error| self.not_protected(error))?;
        let (outer, secured) = self.transmit(&message, confirmable, now)?;
        self.sent.push(Sent { name: outer, outer, secured, request, transfer, confirmable, is_ping, repeated: false });
        Ok(outer)
    }

    /// Whether the peer could take the blocks of the response to one for those of the response to another.
    fn is_like_another(&self, request: &Message) -> bool {
        let mut others = self.sent.iter().map(|sent| &sent.request);
        others.any(|other| other.code() == request.code() && other.options_octets() == request.options_octets())
    }

    /// What the driver hears of a message that was not protected.
    pub(super) fn not_protected(&mut self, error: OscoreError) -> ConnectionError {
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

    /// Nobody has shown in time to have the context, after an answer that nothing vouches for.
    pub(super) fn lose_context(&mut self, hint: Option<(ExchangeId, Failure)>) {
        if let Some((outer, failure)) = hint
            && let Some(place) = self.sent.iter().position(|sent| sent.outer == outer)
        {
            let sent = self.sent.swap_remove(place);
            self.fail(&sent, failure);
        }
        self.end("security context not found");
    }

    /// Requests of ours that are protected and not answered, Pings included.
    pub(super) fn requests_protected(&self) -> usize {
        self.sent.len()
    }

    /// Whether anything was ever the peer's.
    pub(super) fn has_verified(&self) -> bool {
        self.counters.requests_verified > 0 || self.counters.responses_verified > 0
    }

    pub(super) fn check_open(&self) -> Result<(), ConnectionError> {
        if self.closed { Err(ConnectionError::Closed) } else { Ok(()) }
    }
}

impl OscoreConnection<DatagramConnection> {
    /// As [`DatagramConnection::challenge_address`].
    pub fn challenge_address(&mut self, echo: [u8; ECHO_OCTETS]) {
        (self.question, self.answered) = (None, false);
        self.outer.challenge_address(echo);
    }

    /// As [`DatagramConnection::question_address`]: a protected GET of nothing, to which a verified response under `token` is
    /// the proof.
    pub fn question_address(&mut self, token: [u8; TOKEN_OCTETS_MAX], now: Instant) -> Result<(), ConnectionError> {
        self.check_open()?;
        let message = Message::new(Code::GET, &[], &[]).map_err(|error| self.not_protected(error))?;
        let (protected, secured) = self.context.protect_request(&message).map_err(|error| self.not_protected(error))?;
        let option = protected.option(number::OSCORE).unwrap_or_default();
        let request = Request::with_method(protected.code(), "").oscore(option).payload(protected.payload());
        self.question = Some((self.outer.put_question(token, &request, now)?, secured));
        Ok(())
    }

    /// Whether the peer's address is proven; ask after each datagram, since what waits for the proof goes out from then on.
    pub fn is_address_proven(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.answered) {
            self.outer.address_proven(now);
        }
        self.outer.is_address_proven()
    }

    /// As [`DatagramConnection::give_up_address`].
    pub fn give_up_address(&mut self, now: Instant) {
        self.question = None;
        self.outer.give_up_address(now);
        self.pull(now);
    }
}

impl<C: Outer> Connection for OscoreConnection<C> {
    fn receive(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let provenance = self.provenance(octets, now);
        self.receive_judged(octets, &provenance, now)
    }

    fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outer.poll_transmit()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.outer.poll_timeout(), self.blocks.settled_at(), self.doubt.due()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.outer.handle_timeout(now);
        self.blocks.expire(now);
        self.pull(now);
        self.settle_doubt(now);
        self.blocks.settle(self.octets_held());
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
            self.blocks.settle(self.octets_held());
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

fn count(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}
