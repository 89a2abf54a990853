//! An address that the peer's datagrams come from and that may be another's (RFC 9146 6, RFC 9175 2.4).
//!
//! ```text
//! challenge_address ──> held: no request, notification or copy of either goes out, no answer of more than three times its question
//!   │                        │ time-outs run on, as if the network lost everything
//!   ├── question_address ───>│ GET of nothing, under a token that nobody can guess ──> response with that token ──> proven
//!   ├── a request ──────────>│ 4.01 with Echo, if its answer is large ─────────────> repeated with it ──────────────> proven
//!   └── give_up_address ────>│ Unreachable; the address stays held until it is proven
//! ```

use std::fmt;
use std::time::Instant;

use subtle::ConstantTimeEq;

use super::wire::{self, Datagram, Type};
use super::{DatagramConnection, ECHO_OCTETS, count};
use crate::error::ConnectionError;
use crate::event::ConnectionEvent;
use crate::frame::{OptionWriter, Token};
use crate::limits::TOKEN_OCTETS_MAX;
use crate::message::{self, ExchangeId, Request, RequestBuilder};

/// RFC 9175 2.4: how much larger than its request a response to an address that is not proven may be.
pub(super) const AMPLIFICATION_MAX: usize = 3;

/// What the peer may show to prove its address. Neither is in any `Debug`.
pub(super) struct Unproven {
    pub(super) echo: [u8; ECHO_OCTETS],
    question: Option<Question>,
}

/// What was asked at the address.
struct Question {
    token: Token,
    exchange: ExchangeId,
    datagram: Vec<u8>,
}

impl DatagramConnection {
    /// The peer's datagrams come from an address that may be another's. Until it is proven, by `echo` repeated in a request
    /// or an answer to [`DatagramConnection::question_address`], no request of ours and no copy of anything goes there, and
    /// a response that is more than three times as large as its request waits: the peer gets 4.01 with the Echo option, and
    /// the response once it repeats its request with it (RFC 9175 2.4). What has not been polled yet is lost. Time-outs run
    /// on. `echo` is fresh and random; one that was given before counts no more.
    pub fn challenge_address(&mut self, echo: [u8; ECHO_OCTETS]) {
        self.unproven = Some(Box::new(Unproven { echo, question: None }));
        if let Some(active) = &mut self.active {
            active.transmit.clear();
            active.transmit_octets = 0;
        }
        self.settle();
    }

    /// Asks at the challenged address: a GET of nothing under `token`, which is fresh and random. Whatever answers with it
    /// proves the address; only the newest token counts. Once: [`DatagramConnection::question_address_again`] sends the
    /// same again. Does nothing where no address is challenged.
    pub fn question_address(&mut self, token: [u8; TOKEN_OCTETS_MAX], now: Instant) -> Result<(), ConnectionError> {
        self.put_question(token, &Request::get(""), now).map(drop)
    }

    /// The same with another request. For [`crate::oscore::OscoreConnection`], which judges the answer: it comes as
    /// [`ConnectionEvent::Response`], and not only once.
    pub(crate) fn put_question(
        &mut self,
        token: [u8; TOKEN_OCTETS_MAX],
        request: &RequestBuilder<'_>,
        now: Instant,
    ) -> Result<ExchangeId, ConnectionError> {
        self.check_open()?;
        let exchange = self.next_exchange();
        if self.unproven.is_none() {
            return Ok(exchange);
        }
        let lifetime = self.config.transmission.exchange_lifetime();
        let mut next = self.next_message_id;
        let message_id = self.active().sending.take_message_id(now, lifetime, &mut next);
        self.next_message_id = next;
        let message_id = message_id.ok_or(ConnectionError::TooManyPings)?;
        let token = Token::from_slice(&token).unwrap_or_default();
        let mut options = Vec::new();
        request.write_options(&mut OptionWriter::new(&mut options));
        let (method, payload) = (request.method(), request.payload_octets());
        let datagram = wire::write(Type::Confirmable, message_id, method, &token, &options, payload);
        if let Some(unproven) = &mut self.unproven {
            unproven.question = Some(Question { token, exchange, datagram: datagram.clone() });
        }
        self.transmit(datagram);
        Ok(exchange)
    }

    /// Sends what was last asked at the address once more, as it was.
    pub fn question_address_again(&mut self) {
        let question = self.unproven.as_ref().and_then(|unproven| unproven.question.as_ref());
        if let Some(datagram) = question.map(|question| question.datagram.clone()) {
            count(&mut self.counters.retransmissions);
            self.transmit(datagram);
        }
    }

    /// Nobody has answered at the address: [`ConnectionEvent::Unreachable`]. What waits for it and has no time-out of its own
    /// is undelivered.
    pub fn give_up_address(&mut self, now: Instant) {
        let Some(unproven) = &mut self.unproven else { return };
        unproven.question = None;
        self.give_up_waiting();
        let lifetime = self.config.transmission.exchange_lifetime();
        self.active().sending.expire(now, lifetime);
        self.push_event(ConnectionEvent::Unreachable);
    }

    /// The peer's address has been proven by other means.
    pub fn address_proven(&mut self, now: Instant) {
        self.unproven = None;
        self.pump(now);
        self.settle();
    }

    /// Whether the peer's address is proven: it was never challenged, or has answered.
    #[must_use]
    pub fn is_address_proven(&self) -> bool {
        self.unproven.is_none()
    }

    /// Whether that value of an Echo option is what was given to the address.
    pub(super) fn take_echo(&mut self, value: Option<&[u8]>) {
        let good = |unproven: &&mut Box<Unproven>| value.is_some_and(|value| value.ct_eq(&unproven.echo).into());
        if self.unproven.as_mut().filter(good).is_some() {
            self.unproven = None;
        }
    }

    /// What was asked at the address under that token.
    pub(super) fn questioned(&self, token: &[u8]) -> Option<ExchangeId> {
        let question = self.unproven.as_ref()?.question.as_ref()?;
        bool::from(question.token.as_slice().ct_eq(token)).then_some(question.exchange)
    }

    /// Whether a datagram is a response to what was asked at the address; what it shows counts.
    pub(super) fn take_proof(&mut self, datagram: &Datagram<'_>) -> bool {
        let Some(question) = self.unproven.as_ref().and_then(|unproven| unproven.question.as_ref()) else {
            return false;
        };
        if !bool::from(question.token.as_slice().ct_eq(datagram.frame.token.as_slice())) {
            return false;
        }
        if !self.oscore {
            self.unproven = None;
            return true;
        }
        let exchange = question.exchange;
        match message::read_response(&datagram.frame, self.config.limits.options_max, self.served()) {
            Ok(Ok(response)) => self.push_event(ConnectionEvent::Response { exchange, response }),
            _ => count(&mut self.counters.ignored),
        }
        true
    }

    /// Whether the address may get so many octets for a copy of so many.
    pub(super) fn is_too_much(&self, asked_octets: usize, octets: usize) -> bool {
        self.unproven.is_some() && octets > AMPLIFICATION_MAX * asked_octets
    }
}

impl fmt::Debug for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unproven").field("asked", &self.question.is_some()).finish_non_exhaustive()
    }
}
