//! The proof that a peer is where its datagrams come from (RFC 9146 clause 6, RFC 9175 clause 2.4).
//!
//! ```text
//! proven ── moved ──▶ asked ── an answer with the token, or Echo repeated ──▶ proven
//!                      │ ▲ moved again: only the newest question counts
//!                      │ ▲ something from there, or a time-out: asked again, ACK_TIMEOUT apart at least
//!                      ▼ MAX_TRANSMIT_WAIT is over
//!                   given up: the peer counts as away ── an authentic datagram from there ──▶ asked anew
//! ```
//!
//! The token is random, fresh for each address, and goes nowhere but there: whoever is not there cannot answer, whatever
//! keys it has. The times are those of any message (RFC 7252 clause 4.8). Until then nothing is sent there but what answers the peer, and of that and the questions together no more
//! than [`ADDRESS_AMPLIFICATION_MAX`] times the octets that have come from there.

use std::io;
use std::time::{Duration, Instant};

use coap::oscore::OscoreConnection;
use coap::{ConnectionError, DatagramConnection, ECHO_OCTETS, TOKEN_OCTETS_MAX, Transmission};

/// Octets that may go to a new address for each that has come from there (RFC 9175 clause 2.4).
pub const ADDRESS_AMPLIFICATION_MAX: usize = 3;

/// What a question in clear takes: header and token. The record that shows a new address allows for it, since each of its
/// kind is larger than this and so is what protects it.
pub(super) const QUESTION_OCTETS: usize = 4 + TOKEN_OCTETS_MAX;

/// What a peer is to answer with.
pub(crate) type Token = [u8; TOKEN_OCTETS_MAX];

/// A machine whose peer's address can be asked about.
pub(crate) trait Provable {
    /// Holds back what may not go to the new address, and asks there.
    fn challenge(&mut self, echo: [u8; ECHO_OCTETS], token: Token, now: Instant) -> Result<(), ConnectionError>;

    /// Asks the same again.
    fn ask_again(&mut self);

    /// Nobody has answered.
    fn give_up(&mut self, now: Instant);

    /// Whether the address is proven by what came.
    fn is_proven(&mut self, now: Instant) -> bool;

    /// ACK_TIMEOUT is the least pause between two questions, without anything from there twice as long each time;
    /// MAX_TRANSMIT_WAIT is how long the answer is waited for.
    fn transmission(&self) -> Transmission;
}

impl Provable for DatagramConnection {
    fn challenge(&mut self, echo: [u8; ECHO_OCTETS], token: Token, now: Instant) -> Result<(), ConnectionError> {
        self.challenge_address(echo);
        self.question_address(token, now)
    }

    fn ask_again(&mut self) {
        self.question_address_again();
    }

    fn give_up(&mut self, now: Instant) {
        self.give_up_address(now);
    }

    fn is_proven(&mut self, _now: Instant) -> bool {
        self.is_address_proven()
    }

    fn transmission(&self) -> Transmission {
        Self::transmission(self)
    }
}

impl Provable for OscoreConnection<DatagramConnection> {
    fn challenge(&mut self, echo: [u8; ECHO_OCTETS], token: Token, now: Instant) -> Result<(), ConnectionError> {
        self.challenge_address(echo);
        self.question_address(token, now)
    }

    fn ask_again(&mut self) {
        self.outer_mut().question_address_again();
    }

    fn give_up(&mut self, now: Instant) {
        self.give_up_address(now);
    }

    fn is_proven(&mut self, now: Instant) -> bool {
        self.is_address_proven(now)
    }

    fn transmission(&self) -> Transmission {
        self.outer().transmission()
    }
}

/// See the module. It takes no memory while the address is proven.
#[derive(Debug, Default)]
pub(crate) struct AddressProof(Option<Box<Wanted>>);

#[derive(Debug)]
struct Wanted {
    credit_octets: usize,
    asked_at: Instant,
    pause: Duration,
    /// None once it was given up.
    until: Option<Instant>,
}

impl AddressProof {
    /// Whether nothing is to be proven.
    pub(crate) fn is_proven(&self) -> bool {
        self.0.is_none()
    }

    /// The peer is at another address, which may get `credit_octets` for what showed it. What it is asked there comes with
    /// this token.
    ///
    /// # Errors
    /// The system has no random number.
    pub(crate) fn moved(
        &mut self,
        machine: &mut impl Provable,
        credit_octets: usize,
        now: Instant,
    ) -> io::Result<Token> {
        let (echo, token) = (random()?, random()?);
        // Where it cannot be asked just now it is given up in time, and asked when it is heard of again.
        let _ = machine.challenge(echo, token, now);
        let transmission = machine.transmission();
        let until = Some(now + transmission.max_transmit_wait());
        self.0 = Some(Box::new(Wanted { credit_octets, asked_at: now, pause: transmission.ack_timeout, until }));
        Ok(token)
    }

    /// So many octets came from there, before the machine is given them. The token, if it is asked anew.
    ///
    /// # Errors
    /// The system has no random number.
    pub(crate) fn heard(
        &mut self,
        machine: &mut impl Provable,
        octets: usize,
        authentic: bool,
        now: Instant,
    ) -> io::Result<Option<Token>> {
        let Some(wanted) = &mut self.0 else { return Ok(None) };
        let credit = octets.saturating_mul(ADDRESS_AMPLIFICATION_MAX);
        wanted.credit_octets = wanted.credit_octets.saturating_add(credit);
        if wanted.until.is_none() {
            let credit_octets = wanted.credit_octets;
            return if authentic { self.moved(machine, credit_octets, now).map(Some) } else { Ok(None) };
        }
        if now.saturating_duration_since(wanted.asked_at) >= machine.transmission().ack_timeout {
            wanted.asked_at = now;
            machine.ask_again();
        }
        Ok(None)
    }

    /// After the machine was given something: whether it has proven the address just now.
    pub(crate) fn settle(&mut self, machine: &mut impl Provable, now: Instant) -> bool {
        let proven = self.0.is_some() && machine.is_proven(now);
        if proven {
            self.0 = None;
        }
        proven
    }

    /// Whether so many octets may be sent; they count.
    pub(crate) fn admits(&mut self, octets: usize) -> bool {
        let Some(wanted) = &mut self.0 else { return true };
        let left = wanted.credit_octets.checked_sub(octets);
        wanted.credit_octets = left.unwrap_or(wanted.credit_octets);
        left.is_some()
    }

    /// When [`AddressProof::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let wanted = self.0.as_ref()?;
        wanted.until.map(|until| until.min(wanted.asked_at + wanted.pause))
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, machine: &mut impl Provable, now: Instant) {
        let Some(wanted) = &mut self.0 else { return };
        let Some(until) = wanted.until else { return };
        if until <= now {
            wanted.until = None;
            machine.give_up(now);
        } else if wanted.asked_at + wanted.pause <= now {
            wanted.asked_at = now;
            wanted.pause *= 2;
            machine.ask_again();
        }
    }
}

pub(super) fn random<const OCTETS: usize>() -> io::Result<[u8; OCTETS]> {
    let mut octets = [0; OCTETS];
    openssl::rand::rand_bytes(&mut octets).map_err(io::Error::other)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Default)]
    struct Machine {
        asked: usize,
        token: Token,
        given_up: bool,
        proven: bool,
    }

    impl Provable for Machine {
        fn challenge(&mut self, _: [u8; ECHO_OCTETS], token: Token, _: Instant) -> Result<(), ConnectionError> {
            (self.asked, self.token) = (self.asked + 1, token);
            Ok(())
        }

        fn ask_again(&mut self) {
            self.asked += 1;
        }

        fn give_up(&mut self, _: Instant) {
            self.given_up = true;
        }

        fn is_proven(&mut self, _: Instant) -> bool {
            self.proven
        }

        fn transmission(&self) -> Transmission {
            Transmission::default()
        }
    }

    #[test]
    fn it_is_asked_again_at_a_pace_given_up_and_asked_anew_under_another_token() {
        let (mut proof, mut machine, start) = (AddressProof::default(), Machine::default(), Instant::now());
        let first = proof.moved(&mut machine, 0, start).unwrap();
        for _ in 0..100 {
            assert_eq!(proof.heard(&mut machine, 10, true, start).unwrap(), None);
        }
        assert_eq!(machine.asked, 1, "not for each datagram");
        proof.heard(&mut machine, 10, true, start + Transmission::default().ack_timeout).unwrap();
        assert_eq!((machine.asked, machine.token), (2, first));
        while let Some(at) = proof.poll_timeout() {
            proof.handle_timeout(&mut machine, at);
        }
        assert!(machine.given_up && !proof.is_proven());
        assert!(machine.asked < 10, "{}", machine.asked);
        let later = start + 2 * Transmission::default().max_transmit_wait();
        assert_eq!(proof.heard(&mut machine, 10, false, later).unwrap(), None, "anybody can send that");
        let anew = proof.heard(&mut machine, 10, true, later).unwrap().unwrap();
        assert_ne!(anew, first);
        assert!(!proof.settle(&mut machine, later));
        machine.proven = true;
        assert!(proof.settle(&mut machine, later) && proof.is_proven());
        assert!(!proof.settle(&mut machine, later), "told once");
    }

    #[test]
    fn no_more_goes_there_than_three_times_what_came() {
        let (mut proof, mut machine, now) = (AddressProof::default(), Machine::default(), Instant::now());
        proof.moved(&mut machine, 12, now).unwrap();
        assert!(proof.admits(12) && !proof.admits(1));
        proof.heard(&mut machine, 10, true, now).unwrap();
        assert!(proof.admits(20) && !proof.admits(11) && proof.admits(10) && !proof.admits(1));
        machine.proven = true;
        proof.settle(&mut machine, now);
        assert!(proof.admits(usize::MAX));
    }
}
