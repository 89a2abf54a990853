//! What is looked at before the outer connection sees it, so that nothing unverified is remembered or ends anything.
//!
//! ```text
//! request ──┬─ verifies, new ──────────────▶ outer; whatever else had its Message ID is forgotten
//!           ├─ verifies, seen, ID known ───▶ outer, which answers the copy as before
//!           └─ else ───────────────────────▶ refused, unprotected; nothing is kept
//! response ─┬─ verifies ───────────────────▶ outer
//!           ├─ answers nothing ────────────▶ Reset; nothing is kept
//!           └─ does not verify: a hint ────▶ the request goes on; the peer is asked under protection, out of turn
//! Reset ────┬─ for a request: a hint ──────▶ the same
//!           └─ for anything else ──────────▶ outer
//!
//! question ─┬─ anything that verifies ─────▶ as before; no such question for a while
//!           ├─ nothing but hints ──────────▶ the context is lost, once three transmissions could have been answered
//!           ├─ silence ────────────────────▶ the context is lost after MAX_TRANSMIT_WAIT
//!           └─ could not be sent yet ──────▶ it is tried again
//! ```
//!
//! What lies outside the protection and need not be there, options and code, is taken off before.

use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::connection::{OscoreConnection, Provenance};
use super::error::OscoreError;
use super::exchange::SentRequest;
use super::limits::REPLAY_WINDOW_SIZE;
use super::message::{Message, number};
use crate::code::Code;
use crate::connection::StreamConnection;
use crate::datagram::{DatagramConnection, Unbound};
use crate::error::ConnectionError;
use crate::event::Failure;
use crate::exchanges::Connection;
use crate::limits::TOKEN_OCTETS_MAX;
use crate::message::{ExchangeId, Request, RequestBuilder};

/// For how many times ACK_TIMEOUT * ACK_RANDOM_FACTOR the peer is not asked again whether it has the context.
const QUIET_TIMES: u32 = 4;

/// For how many of them a question is open to which nothing but hints have come: its third transmission has gone after three
/// of them, and has the fourth for its answer. So two losses lose no context.
const REFUSED_TIMES: u32 = 4;

/// What carries protected messages: [`DatagramConnection`] or [`StreamConnection`]. What goes over a stream comes from who
/// has the other end; of datagrams that is known only once they verify.
pub trait Outer: Connection {
    /// The message, where each comes on its own.
    #[doc(hidden)]
    fn read(_octets: &[u8]) -> Option<Unbound> {
        None
    }

    /// Whether a message of the peer's with that Message ID is remembered.
    #[doc(hidden)]
    fn is_remembered(&self, _message_id: u16, _now: Instant) -> bool {
        false
    }

    /// The next message with that Message ID is no copy.
    #[doc(hidden)]
    fn forget_message(&mut self, _message_id: u16) {}

    /// The request of ours that was sent with that token.
    #[doc(hidden)]
    fn asked(&self, _token: &[u8]) -> Option<ExchangeId> {
        None
    }

    /// The request of ours that was sent with that Message ID, and is not acknowledged.
    #[doc(hidden)]
    fn asked_in(&self, _message_id: u16) -> Option<ExchangeId> {
        None
    }

    /// Sends a Reset.
    #[doc(hidden)]
    fn reject_message(&mut self, _message_id: u16) {}

    /// Answers without remembering it.
    #[doc(hidden)]
    fn answer_unremembered(&mut self, _request: &Unbound, _answer: &Message, _now: Instant) {}

    /// Sends a request at once, without waiting for its turn, or not at all.
    #[doc(hidden)]
    fn request_at_once(&mut self, request: &RequestBuilder<'_>, now: Instant) -> Result<ExchangeId, ConnectionError> {
        self.request(request, now)
    }

    /// How long the first acknowledgement of a message may take.
    #[doc(hidden)]
    fn acknowledgement_wait(&self) -> Duration {
        Duration::ZERO
    }

    /// How long a message is sent again and its answer waited for, at most.
    #[doc(hidden)]
    fn transmit_wait(&self) -> Duration {
        Duration::ZERO
    }
}

impl Outer for StreamConnection {}

impl Outer for DatagramConnection {
    fn read(octets: &[u8]) -> Option<Unbound> {
        Unbound::parse(octets)
    }

    fn is_remembered(&self, message_id: u16, now: Instant) -> bool {
        Self::is_remembered(self, message_id, now)
    }

    fn forget_message(&mut self, message_id: u16) {
        Self::forget_message(self, message_id);
    }

    fn asked(&self, token: &[u8]) -> Option<ExchangeId> {
        Self::asked(self, token)
    }

    fn asked_in(&self, message_id: u16) -> Option<ExchangeId> {
        Self::asked_in(self, message_id)
    }

    fn reject_message(&mut self, message_id: u16) {
        Self::reject_message(self, message_id);
    }

    fn answer_unremembered(&mut self, request: &Unbound, answer: &Message, now: Instant) {
        Self::answer_unremembered(self, request, answer, now);
    }

    fn request_at_once(&mut self, request: &RequestBuilder<'_>, now: Instant) -> Result<ExchangeId, ConnectionError> {
        Self::request_at_once(self, request, now)
    }

    fn acknowledgement_wait(&self) -> Duration {
        let transmission = self.transmission();
        transmission.ack_timeout.mul_f64(transmission.ack_random_factor())
    }

    fn transmit_wait(&self) -> Duration {
        self.transmission().max_transmit_wait()
    }
}

/// A protected question at an address where the peer may be. Each is protected for itself, so that the answer to one is none
/// to another.
#[derive(Debug)]
pub struct AddressQuestion {
    token: [u8; TOKEN_OCTETS_MAX],
    datagram: Vec<u8>,
    secured: SentRequest,
}

impl AddressQuestion {
    /// Under which it is answered.
    #[must_use]
    pub fn token(&self) -> &[u8; TOKEN_OCTETS_MAX] {
        &self.token
    }

    /// As it is sent, any number of times.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        &self.datagram
    }
}

impl OscoreConnection<DatagramConnection> {
    /// A protected GET of nothing under `token`, which is fresh and random, for an address where the peer may be; the
    /// connection goes on where it is.
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub fn question_elsewhere(
        &mut self,
        token: [u8; TOKEN_OCTETS_MAX],
        message_id: u16,
    ) -> Result<AddressQuestion, ConnectionError> {
        self.check_open()?;
        let message = Message::new(Code::GET, &[], &[]).map_err(|error| self.not_protected(error))?;
        let (protected, secured) = self.context.protect_request(&message).map_err(|error| self.not_protected(error))?;
        let datagram = Unbound::confirmable(message_id, &token, protected.clone()).stripped(protected.code());
        Ok(AddressQuestion { token, datagram, secured })
    }

    /// Whether a datagram is the peer's answer to that.
    pub fn is_answered_elsewhere(&mut self, question: &AddressQuestion, datagram: &[u8]) -> bool {
        let Some(answer) = Unbound::parse(datagram).filter(Unbound::is_response) else { return false };
        if !bool::from(answer.token().ct_eq(&question.token)) {
            return false;
        }
        let verified = self.context.check_response(&question.secured, answer.message()).is_ok();
        self.count_response(verified);
        verified
    }

    /// The peer is at another address, which it has proven: all goes on there, at once. `message_id` is of its request whose
    /// answer went to where it was.
    pub fn is_elsewhere(&mut self, message_id: u16, now: Instant) {
        self.forget_question();
        self.reassured(now);
        self.outer.address_proven(now);
        self.outer.say_again(message_id, now);
    }
}

/// Whether the peer still has the context, after an answer that nothing vouches for.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// The request that was answered so, and how.
    hint: Option<(ExchangeId, Failure)>,
    question: Option<Question>,
    /// Until then the peer is not asked.
    quiet_until: Option<Instant>,
}

#[derive(Debug)]
struct Question {
    outer: ExchangeId,
    secured: SentRequest,
    /// Something came for it that nothing vouches for.
    refused: bool,
    /// How long it is open then.
    refused_until: Instant,
    /// How long it is open if nothing comes.
    silent_until: Instant,
}

impl Question {
    fn until(&self) -> Instant {
        if self.refused { self.refused_until } else { self.silent_until }
    }
}

impl Doubt {
    /// When [`OscoreConnection::settle_doubt`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.question {
            Some(question) => Some(question.until()),
            None => self.quiet_until.filter(|_| self.hint.is_some()),
        }
    }

    /// What the peer was asked with that name.
    pub(super) fn question(&mut self, outer: ExchangeId) -> Option<&mut SentRequest> {
        let question = self.question.as_mut()?;
        (question.outer == outer).then_some(&mut question.secured)
    }

    fn asked(&self, outer: ExchangeId) -> Option<&SentRequest> {
        let question = self.question.as_ref()?;
        (question.outer == outer).then_some(&question.secured)
    }
}

impl<C: Outer> OscoreConnection<C> {
    pub(super) fn judge(&self, datagram: &Unbound, now: Instant) -> Provenance {
        if !datagram.is_request() {
            return Provenance::Unknown;
        }
        if datagram.is_block() {
            // Nothing of it can be verified before all of it is there.
            return if self.blocks.settings().cuts() {
                Provenance::Forged(OscoreError::NotDecoded("Block option outside"))
            } else {
                Provenance::Unknown
            };
        }
        match self.context.check_request(datagram.message()) {
            Ok(()) => Provenance::Proven,
            Err(OscoreError::Replay) if self.outer.is_remembered(datagram.message_id(), now) => Provenance::Copy,
            Err(error) => Provenance::Forged(error),
        }
    }

    /// Takes a datagram that was judged just now.
    pub(super) fn take_judged(
        &mut self,
        datagram: &Unbound,
        octets: &[u8],
        provenance: &Provenance,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        match provenance {
            Provenance::Proven => {
                self.outer.forget_message(datagram.message_id());
                self.outer.receive(&datagram.stripped(Code::POST), now)
            }
            Provenance::Forged(error) => {
                self.refuse_unremembered(datagram, error, now);
                Ok(())
            }
            Provenance::Unknown if datagram.is_response() => self.take_unknown_response(datagram, octets, now),
            Provenance::Unknown if datagram.is_empty() => self.take_empty(datagram, octets, now),
            Provenance::Copy | Provenance::Unknown => self.outer.receive(octets, now),
        }
    }

    fn refuse_unremembered(&mut self, request: &Unbound, error: &OscoreError, now: Instant) {
        self.count_refused(error);
        let answer = match error {
            OscoreError::NotProtected { .. } => Message::new(Code::UNAUTHORIZED, &[(number::MAX_AGE, &[])], &[]).ok(),
            error => error.answer(),
        };
        if let Some(answer) = answer {
            self.outer.answer_unremembered(request, &answer, now);
        }
    }

    fn take_unknown_response(
        &mut self,
        datagram: &Unbound,
        octets: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let message = datagram.message();
        if !datagram.is_acknowledgement() && self.outer.is_remembered(datagram.message_id(), now) {
            return self.outer.receive(octets, now);
        }
        let Some(asked) = self.outer.asked(datagram.token()) else {
            if datagram.is_confirmable() {
                self.outer.reject_message(datagram.message_id());
            }
            return Ok(());
        };
        let of_blocks = datagram.is_block() || message.code() == Code::CONTINUE;
        if of_blocks && !self.blocks.settings().cuts() {
            return self.outer.receive(octets, now);
        }
        match self.check_response(asked, message) {
            Ok(()) => self.outer.receive(&datagram.stripped(Code::CHANGED), now),
            Err(error) => {
                self.count_response(false);
                let failure = match error {
                    OscoreError::NotProtected { code } => Failure::NotProtected(code),
                    _ => Failure::NotVerified,
                };
                self.take_hint(asked, failure, now);
                Ok(())
            }
        }
    }

    /// An empty message: anybody's.
    fn take_empty(&mut self, datagram: &Unbound, octets: &[u8], now: Instant) -> Result<(), ConnectionError> {
        match self.outer.asked_in(datagram.message_id()) {
            Some(asked) if datagram.is_reset() => {
                self.count_response(false);
                self.take_hint(asked, Failure::NoAnswer, now);
                Ok(())
            }
            // The question is sent again until it is answered, whoever says that it has come.
            Some(asked) if datagram.is_acknowledgement() && self.doubt.asked(asked).is_some() => Ok(()),
            _ => self.outer.receive(octets, now),
        }
    }

    fn check_response(&self, outer: ExchangeId, message: &Message) -> Result<(), OscoreError> {
        let secured = self.asked_with(outer).or_else(|| self.doubt.asked(outer));
        self.context.check_response(secured.ok_or(OscoreError::AlreadyAnswered)?, message)
    }

    /// Somebody says that the peer has no such context, or other keys. It may be anybody (RFC 8613 8.4).
    fn take_hint(&mut self, outer: ExchangeId, failure: Failure, now: Instant) {
        if self.is_kept {
            return;
        }
        self.doubt.hint.get_or_insert((outer, failure));
        if let Some(question) = &mut self.doubt.question {
            question.refused |= question.outer == outer;
        } else if self.doubt.quiet_until.is_none_or(|until| until <= now) {
            self.ask_for_context(now);
        }
    }

    /// A protected GET of nothing, which the peer answers by itself if it has the context.
    fn ask_for_context(&mut self, now: Instant) {
        let wait = self.outer.acknowledgement_wait();
        let Ok((outer, secured)) = self.send_question(now) else {
            self.doubt.quiet_until = Some(now + wait);
            return;
        };
        // Where nothing has shown yet that it is the peer's context, too, there is nothing to lose.
        let times = if self.has_verified() { REFUSED_TIMES } else { 1 };
        let (refused_until, silent_until) = (now + wait * times, now + self.outer.transmit_wait());
        self.doubt.question = Some(Question { outer, secured, refused: false, refused_until, silent_until });
    }

    fn send_question(&mut self, now: Instant) -> Result<(ExchangeId, SentRequest), ConnectionError> {
        // It overtakes what waits for its turn, which is not to fall out of the peer's window for that.
        if self.requests_protected() as u64 + 1 >= REPLAY_WINDOW_SIZE {
            return Err(ConnectionError::TransmitFull);
        }
        let message = Message::new(Code::GET, &[], &[]).map_err(|error| self.not_protected(error))?;
        let (protected, secured) = self.context.protect_request(&message).map_err(|error| self.not_protected(error))?;
        let option = protected.option(number::OSCORE).unwrap_or_default();
        let request = Request::with_method(protected.code(), "").oscore(option).payload(protected.payload());
        Ok((self.outer.request_at_once(&request, now)?, secured))
    }

    /// Something of the peer's has been verified: it has the context.
    pub(super) fn reassured(&mut self, now: Instant) {
        self.doubt.hint = None;
        if let Some(question) = self.doubt.question.take() {
            self.outer.cancel(question.outer, now);
            self.doubt.quiet_until = Some(now + self.outer.acknowledgement_wait() * QUIET_TIMES);
        }
    }

    /// Does what is due.
    pub(super) fn settle_doubt(&mut self, now: Instant) {
        if self.doubt.due().is_none_or(|due| due > now) {
            return;
        }
        if self.doubt.question.is_none() {
            return self.ask_for_context(now);
        }
        let hint = std::mem::take(&mut self.doubt).hint;
        self.lose_context(hint);
    }
}
