//! For [`crate::oscore::OscoreConnection`], which looks at a datagram before this connection remembers anything of it.

use std::time::Instant;

use super::address::AMPLIFICATION_MAX;
use super::deduplication::Outcome;
use super::reliability::Purpose;
use super::{DatagramConnection, Unbound, count};
use crate::frame::Token;
use crate::message::ExchangeId;
use crate::oscore::Message;

impl DatagramConnection {
    /// Whether a message of the peer's with that Message ID is remembered.
    pub(crate) fn is_remembered(&self, message_id: u16, now: Instant) -> bool {
        self.active.as_ref().is_some_and(|active| active.seen.outcome(message_id, now).is_some())
            || self.resting.as_ref().is_some_and(|resting| resting.remembers(message_id, now))
    }

    /// The next message with that Message ID is known to be no copy.
    pub(crate) fn forget_message(&mut self, message_id: u16) {
        if !self.is_idle() {
            self.active().seen.forget_message(message_id);
            self.settle();
        }
    }

    /// The request of ours that was sent with that token, or what was asked at a new address.
    pub(crate) fn asked(&self, token: &[u8]) -> Option<ExchangeId> {
        if let Some(exchange) = self.questioned(token) {
            return Some(exchange);
        }
        let number = Token::from_slice(token)?.number()?;
        let requests = self.active.as_ref().map_or(&[][..], |active| &active.requests);
        requests.iter().find(|own| own.is_under(number)).map(|own| own.exchange())
    }

    /// The request of ours that was sent with that Message ID, and is not acknowledged.
    pub(crate) fn asked_in(&self, message_id: u16) -> Option<ExchangeId> {
        let active = self.active.as_ref()?;
        let Purpose::Request(number) = active.sending.purpose(message_id)? else { return None };
        active.requests.iter().find(|own| own.is_under(number)).map(|own| own.exchange())
    }

    /// Rejects a message that is not remembered.
    pub(crate) fn reject_message(&mut self, message_id: u16) {
        self.send_reset(message_id);
    }

    /// Answers a request that is not remembered, if the answer is no more than three times as large.
    pub(crate) fn answer_unremembered(&mut self, request: &Unbound, answer: &Message, now: Instant) {
        let message_id = self.random() as u16;
        let datagram = request.answer(answer, message_id);
        if datagram.len() <= AMPLIFICATION_MAX * request.octets() {
            self.transmit(datagram);
        } else {
            count(&mut self.counters.dropped);
        }
        self.pump(now);
        self.settle();
    }

    /// Says once more what the message with that Message ID was answered, and sends once more what is not acknowledged: the
    /// peer has moved, and what went to where it was is lost.
    pub(crate) fn say_again(&mut self, message_id: u16, now: Instant) {
        if self.is_idle() || self.unproven.is_some() {
            return;
        }
        let active = self.active();
        let answered = match active.seen.outcome(message_id, now) {
            Some(Outcome::Answered(octets)) => Some(octets.to_vec()),
            _ => None,
        };
        let copies = active.sending.in_flight();
        for datagram in answered.into_iter().chain(copies) {
            count(&mut self.counters.retransmissions);
            self.transmit(datagram);
        }
        self.settle();
    }
}
