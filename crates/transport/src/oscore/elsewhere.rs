//! Copies of a peer's request from another address than its own (RFC 9175 clause 2.4).
//!
//! ```text
//! copy from elsewhere ──▶ a protected question goes there, no larger than three times the copy
//!                           ├─ its answer verifies and comes from there ──▶ the peer is there
//!                           └─ none: nothing has changed
//! ```
//!
//! A peer whose address changes while its request waits has nothing but a copy to show, which anybody can record and send
//! with any source. So the copy moves nothing and is answered nothing; each question has a token and a Partial IV of its
//! own, and what answers it was made with the peer's keys for it, by somebody who got it there.
//!
//! Somebody on the path who sends copies from many ports is to keep no peer that moves from being asked: where there is no room
//! the oldest goes of the source that has most. Only who forges the addresses of other networks, too, gets so far, and has to
//! do so within one round trip each time; the peer's next request moves it all the same.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use coap::oscore::{AddressQuestion, OscoreConnection};
use coap::{DatagramConnection, Unbound};

use super::datagram::{bounded, random_message_id};
use crate::admission::Source;
use crate::carrier::Token;

/// Addresses that are asked at once. One more takes the place of the one that was asked first of the source, an IPv4 address or
/// an IPv6 /64, that has most of them.
const ELSEWHERE_MAX: usize = 4;

/// One address.
struct Asked {
    address: SocketAddr,
    question: AddressQuestion,
    /// Of the copy, which was not answered there.
    message_id: u16,
    first: Instant,
    last: Instant,
}

/// Where copies came from.
#[derive(Default)]
pub(super) struct Elsewhere(Vec<Asked>);

/// What became of a copy.
pub(super) struct Question {
    /// To be sent where the copy came from; none if that was asked just now, or the copy was too small.
    pub(super) datagram: Option<Vec<u8>>,
    /// A new one.
    pub(super) token: Option<Token>,
    /// What is asked no longer.
    pub(super) dropped: Vec<Token>,
}

impl Elsewhere {
    /// Asks where a copy came from.
    ///
    /// # Errors
    /// The system has no random number.
    pub(super) fn ask(
        &mut self,
        machine: &mut OscoreConnection<DatagramConnection>,
        copy: &Unbound,
        source: SocketAddr,
        now: Instant,
    ) -> io::Result<Question> {
        let transmission = machine.outer().transmission();
        let over = |asked: &mut Asked| now.saturating_duration_since(asked.first) > transmission.max_transmit_wait();
        let mut dropped: Vec<Token> = self.0.extract_if(.., over).map(|asked| *asked.question.token()).collect();
        if let Some(asked) = self.0.iter_mut().find(|asked| asked.address == source) {
            asked.message_id = copy.message_id();
            let again = now.saturating_duration_since(asked.last) >= transmission.ack_timeout;
            let datagram = asked.question.datagram().to_vec();
            let datagram = if again { bounded(datagram, copy.octets()) } else { None };
            if datagram.is_some() {
                asked.last = now;
            }
            return Ok(Question { datagram, token: None, dropped });
        }
        let mut token = Token::default();
        openssl::rand::rand_bytes(&mut token)?;
        // Where there is no number left the context is at its end.
        let Ok(question) = machine.question_elsewhere(token, random_message_id()) else {
            return Ok(Question { datagram: None, token: None, dropped });
        };
        let Some(datagram) = bounded(question.datagram().to_vec(), copy.octets()) else {
            return Ok(Question { datagram: None, token: None, dropped });
        };
        if self.0.len() >= ELSEWHERE_MAX {
            dropped.extend(self.make_room(source).map(|asked| *asked.question.token()));
        }
        self.0.push(Asked { address: source, question, message_id: copy.message_id(), first: now, last: now });
        Ok(Question { datagram: Some(datagram), token: Some(token), dropped })
    }

    /// Takes out the oldest of the source that has most, the newcomer counted with its own.
    fn make_room(&mut self, newcomer: SocketAddr) -> Option<Asked> {
        let sources =
            || self.0.iter().map(|asked| asked.address).chain([newcomer]).map(|address| Source::from(address.ip()));
        let count = |source: Source| sources().filter(|other| *other == source).count();
        let most = sources().map(count).max()?;
        let place = self.0.iter().position(|asked| count(Source::from(asked.address.ip())) == most);
        // A newcomer never has most of them alone: then none would have more than one.
        Some(self.0.remove(place?))
    }

    /// Whether that is the answer from an address that was asked: the Message ID of the copy that came from there.
    pub(super) fn answered(
        &self,
        machine: &mut OscoreConnection<DatagramConnection>,
        datagram: &[u8],
        source: SocketAddr,
    ) -> Option<u16> {
        let asked = self.0.iter().find(|asked| asked.address == source)?;
        machine.is_answered_elsewhere(&asked.question, datagram).then_some(asked.message_id)
    }

    /// The peer has shown where it is: what was asked elsewhere counts no more.
    pub(super) fn clear(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.0).iter().map(|asked| *asked.question.token()).collect()
    }
}
