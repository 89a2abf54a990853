//! Finds the PSK identity in a TLS handshake while it passes: octets in, records out, no I/O.
//!
//! The flow, server side, plaintext part only:
//!
//! 1. ClientHello, over one or more records, is held back until whole (RFC 8446 clause 5.1 lets it be split).
//!    In TLS 1.3 it names the PSK identities; nothing after it matters, so [`pass_through`] follows.
//! 2. In TLS 1.2 [`await_client_key_exchange`] follows: the next handshake message must be ClientKeyExchange,
//!    which names the PSK identity (RFC 4279 clause 2). The record that completes it comes out with the identity.
//! 3. Everything else passes as it came; OpenSSL judges it.
//!
//! After each [`push`], call [`next`] until it gives nothing.
//!
//! [`push`]: HandshakeSniffer::push
//! [`next`]: HandshakeSniffer::next
//! [`pass_through`]: HandshakeSniffer::pass_through
//! [`await_client_key_exchange`]: HandshakeSniffer::await_client_key_exchange

use thiserror::Error;

use crate::client_hello::Reader;
pub use crate::client_hello::{ClientHello, IDENTITIES_KEPT_MAX};

/// What comes out of a [`HandshakeSniffer`]. The octets of all items together are the octets pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// The ClientHello and the whole records that carried it.
    ClientHello {
        /// The parsed message.
        hello: ClientHello,
        /// The octets to pass on once the client is found acceptable.
        records: Vec<u8>,
    },
    /// The record that completes the ClientKeyExchange of TLS 1.2.
    ClientKeyExchange {
        /// The PSK identity; `None` when the message is too short to hold one.
        identity: Option<Vec<u8>>,
        /// The octets to pass on once the key is there.
        record: Vec<u8>,
    },
    /// Octets of no interest, to pass on at once.
    Other(Vec<u8>),
}

/// Why the peer's first octets are no acceptable handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SniffError {
    /// The peer speaks something else.
    #[error("this is not TLS")]
    NotTls,
    /// A record claims more than 2^14 octets (RFC 8446 clause 5.1).
    #[error("the record is longer than TLS allows")]
    RecordTooLong,
    /// The first message is no ClientHello.
    #[error("the first message is not a ClientHello")]
    Unexpected,
    /// The ClientHello does not parse.
    #[error("the ClientHello is malformed")]
    Malformed,
    /// The handshake is longer than allowed.
    #[error("the handshake is longer than allowed")]
    TooLong,
}

/// Watches one connection's handshake. Holds at most `octets_max` octets, twice.
#[derive(Debug)]
pub struct HandshakeSniffer {
    octets_max: usize,
    octets_seen: usize,
    phase: Phase,
    /// Octets not yet given out.
    held: Vec<u8>,
    /// The first octets of `held` that are whole records, already looked at.
    looked_at: usize,
    /// The handshake message under way, out of its records.
    message: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    AwaitClientHello,
    AwaitClientKeyExchange,
    PassThrough,
}

impl HandshakeSniffer {
    /// A sniffer for a connection that may send `octets_max` octets before the handshake is done.
    pub fn new(octets_max: usize) -> Self {
        Self {
            octets_max,
            octets_seen: 0,
            phase: Phase::AwaitClientHello,
            held: Vec::new(),
            looked_at: 0,
            message: Vec::new(),
        }
    }

    /// Takes octets from the peer.
    ///
    /// # Errors
    /// [`SniffError::TooLong`] when they are too many.
    pub fn push(&mut self, octets: &[u8]) -> Result<(), SniffError> {
        self.octets_seen = self.octets_seen.saturating_add(octets.len());
        if self.octets_seen > self.octets_max {
            return Err(SniffError::TooLong);
        }
        self.held.extend_from_slice(octets);
        Ok(())
    }

    /// The next item, or `None` when more octets are needed.
    ///
    /// # Errors
    /// [`SniffError`], in the first phase only; the connection is of no use then.
    #[expect(clippy::should_implement_trait, reason = "this is polled and may yield more after a push")]
    pub fn next(&mut self) -> Result<Option<Sniffed>, SniffError> {
        match self.phase {
            Phase::AwaitClientHello => self.next_client_hello(),
            Phase::AwaitClientKeyExchange => Ok(self.next_record_of_tls12()),
            Phase::PassThrough => Ok(self.give(self.held.len()).map(Sniffed::Other)),
        }
    }

    /// TLS 1.2 was chosen: look out for the ClientKeyExchange.
    pub fn await_client_key_exchange(&mut self) {
        self.enter(Phase::AwaitClientKeyExchange);
    }

    /// Nothing more is of interest.
    pub fn pass_through(&mut self) {
        self.enter(Phase::PassThrough);
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.looked_at = 0;
        self.message = Vec::new();
    }

    fn next_client_hello(&mut self) -> Result<Option<Sniffed>, SniffError> {
        loop {
            let unread = self.held.get(self.looked_at..).unwrap_or_default();
            let Some(record) = Record::at_front_of(unread)? else { return Ok(None) };
            self.message.extend_from_slice(record.fragment);
            self.looked_at += record.octets;
            let Some(whole) = self.message_octets(CLIENT_HELLO)? else { continue };
            let body = self.message.get(HANDSHAKE_HEADER_OCTETS..whole).unwrap_or_default();
            let hello = ClientHello::parse(body).ok_or(SniffError::Malformed)?;
            let Some(records) = self.give(self.looked_at) else { return Ok(None) };
            self.pass_through();
            return Ok(Some(Sniffed::ClientHello { hello, records }));
        }
    }

    /// How long the message under way is, header included, once all of it is there.
    fn message_octets(&self, expected: u8) -> Result<Option<usize>, SniffError> {
        let Some(&kind) = self.message.first() else { return Ok(None) };
        if kind != expected {
            return Err(SniffError::Unexpected);
        }
        let Some(&[_, high, middle, low]) = self.message.first_chunk::<HANDSHAKE_HEADER_OCTETS>() else {
            return Ok(None);
        };
        let octets = HANDSHAKE_HEADER_OCTETS + u32::from_be_bytes([0, high, middle, low]) as usize;
        if octets > self.octets_max {
            return Err(SniffError::TooLong);
        }
        Ok((self.message.len() >= octets).then_some(octets))
    }

    /// One record, with the identity when it completes the ClientKeyExchange.
    fn next_record_of_tls12(&mut self) -> Option<Sniffed> {
        match Record::at_front_of(&self.held) {
            Ok(None) => None,
            Ok(Some(record)) => {
                let octets = record.octets;
                self.message.extend_from_slice(record.fragment);
                match self.message_octets(CLIENT_KEY_EXCHANGE) {
                    Ok(None) => self.give(octets).map(Sniffed::Other),
                    Ok(Some(whole)) => {
                        let mut body = Reader(self.message.get(HANDSHAKE_HEADER_OCTETS..whole).unwrap_or_default());
                        let identity = body.vector16().map(|identity| identity.0.to_vec());
                        self.pass_through();
                        self.give(octets).map(|record| Sniffed::ClientKeyExchange { identity, record })
                    }
                    Err(_) => self.leave_to_openssl(),
                }
            }
            // An alert, most likely, or a breach of protocol.
            Err(_) => self.leave_to_openssl(),
        }
    }

    fn leave_to_openssl(&mut self) -> Option<Sniffed> {
        self.pass_through();
        self.give(self.held.len()).map(Sniffed::Other)
    }

    /// Takes the first octets of `held`; `None` when there is none to take.
    fn give(&mut self, octets: usize) -> Option<Vec<u8>> {
        if octets == 0 || octets > self.held.len() {
            return None;
        }
        self.looked_at = 0;
        let rest = self.held.split_off(octets);
        Some(std::mem::replace(&mut self.held, rest))
    }
}

/// A whole plaintext handshake record.
struct Record<'a> {
    fragment: &'a [u8],
    /// Header and fragment.
    octets: usize,
}

impl<'a> Record<'a> {
    /// `None` when it is not whole yet.
    fn at_front_of(octets: &'a [u8]) -> Result<Option<Self>, SniffError> {
        // Judged octet by octet, so that a stranger is told at the first wrong one.
        let mismatch = |at: usize, wanted: u8| octets.get(at).is_some_and(|octet| *octet != wanted);
        if mismatch(0, HANDSHAKE) || mismatch(1, VERSION_MAJOR) {
            return Err(SniffError::NotTls);
        }
        let Some(&[_, _, _, high, low]) = octets.first_chunk::<RECORD_HEADER_OCTETS>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match length {
            // Zero-length fragments of handshake messages are forbidden (RFC 8446 clause 5.1).
            0 => return Err(SniffError::Malformed),
            1..=FRAGMENT_OCTETS_MAX => {}
            _ => return Err(SniffError::RecordTooLong),
        }
        let octets_whole = RECORD_HEADER_OCTETS + length;
        let fragment = octets.get(RECORD_HEADER_OCTETS..octets_whole);
        Ok(fragment.map(|fragment| Self { fragment, octets: octets_whole }))
    }
}

const RECORD_HEADER_OCTETS: usize = 5;
const HANDSHAKE_HEADER_OCTETS: usize = 4;
const FRAGMENT_OCTETS_MAX: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
const VERSION_MAJOR: u8 = 3;
const CLIENT_HELLO: u8 = 1;
const CLIENT_KEY_EXCHANGE: u8 = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    const OCTETS_MAX: usize = 16_384;

    fn vector16(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u16).to_be_bytes(), content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), vector16(content)].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        [&[kind, length[1], length[2], length[3]], body].concat()
    }

    fn record(fragment: &[u8]) -> Vec<u8> {
        [&[22, 3, 1], vector16(fragment).as_slice()].concat()
    }

    fn hello_with(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(vector16(&[0x13, 0x01, 0xCC, 0xAC]));
        body.extend([1, 0]);
        body.extend(vector16(&extensions.concat()));
        message(1, &body)
    }

    fn typical_hello() -> Vec<u8> {
        let identities: Vec<u8> = ["3GPP-AKMA;one", "3GPP-AKMA;two", "three"]
            .iter()
            .flat_map(|identity| [vector16(identity.as_bytes()), vec![0; 4]].concat())
            .collect();
        let binders = vector16(&[32; 33]);
        hello_with(&[
            extension(0, &vector16(&[&[0u8], vector16(b"Server.example").as_slice()].concat())),
            extension(43, &[4, 3, 4, 3, 3]),
            extension(45, &[1, 1]),
            extension(41, &[vector16(&identities), binders].concat()),
        ])
    }

    fn first(octets: &[u8]) -> Result<Option<Sniffed>, SniffError> {
        let mut sniffer = HandshakeSniffer::new(OCTETS_MAX);
        sniffer.push(octets)?;
        sniffer.next()
    }

    #[test]
    fn a_client_hello_is_read() {
        let octets = record(&typical_hello());
        let Some(Sniffed::ClientHello { hello, records }) = first(&octets).unwrap() else { panic!() };
        assert_eq!(records, octets);
        assert_eq!(hello.server_name.unwrap(), b"Server.example");
        assert!(hello.offers_tls13 && hello.psk_dhe_ke && !hello.early_data);
        assert_eq!(hello.cipher_suites, [0x1301, 0xCCAC]);
        assert_eq!(hello.psk_identities.unwrap(), [b"3GPP-AKMA;one".to_vec(), b"3GPP-AKMA;two".to_vec()]);
    }

    #[test]
    fn a_client_hello_split_over_records_comes_out_whole_with_all_of_them() {
        let hello = typical_hello();
        let octets: Vec<u8> = hello.chunks(10).flat_map(record).collect();
        let mut sniffer = HandshakeSniffer::new(OCTETS_MAX);
        for octet in octets.split_last().unwrap().1 {
            sniffer.push(&[*octet]).unwrap();
            assert_eq!(sniffer.next(), Ok(None));
        }
        sniffer.push(&octets[octets.len() - 1..]).unwrap();
        let Some(Sniffed::ClientHello { records, .. }) = sniffer.next().unwrap() else { panic!() };
        assert_eq!(records, octets);
    }

    #[test]
    fn what_follows_a_client_hello_of_tls_1_3_passes() {
        let mut sniffer = HandshakeSniffer::new(OCTETS_MAX);
        sniffer.push(&[record(&typical_hello()), vec![20, 3, 3, 0, 1, 1]].concat()).unwrap();
        assert!(matches!(sniffer.next(), Ok(Some(Sniffed::ClientHello { .. }))));
        sniffer.pass_through();
        assert_eq!(sniffer.next(), Ok(Some(Sniffed::Other(vec![20, 3, 3, 0, 1, 1]))));
        assert_eq!(sniffer.next(), Ok(None));
    }

    #[test]
    fn the_identity_of_a_split_client_key_exchange_holds_back_its_last_record() {
        let mut sniffer = HandshakeSniffer::new(OCTETS_MAX);
        let exchange = message(16, &[vector16(b"3GPP-AKMA;x"), vec![32; 33]].concat());
        let (head, tail) = exchange.split_at(9);
        sniffer.push(&[record(&typical_hello()), record(head), record(tail), vec![20, 3, 3]].concat()).unwrap();
        assert!(matches!(sniffer.next(), Ok(Some(Sniffed::ClientHello { .. }))));
        sniffer.await_client_key_exchange();
        assert_eq!(sniffer.next(), Ok(Some(Sniffed::Other(record(head)))));
        let expected = Sniffed::ClientKeyExchange { identity: Some(b"3GPP-AKMA;x".to_vec()), record: record(tail) };
        assert_eq!(sniffer.next(), Ok(Some(expected)));
        assert_eq!(sniffer.next(), Ok(Some(Sniffed::Other(vec![20, 3, 3]))));
    }

    #[test]
    fn another_message_than_client_key_exchange_is_left_to_openssl() {
        for other in [record(&message(11, &[0, 0, 0])), vec![21, 3, 3, 0, 2, 2, 40], vec![22, 3, 3, 0xFF, 0xFF]] {
            let mut sniffer = HandshakeSniffer::new(OCTETS_MAX);
            sniffer.push(&[record(&typical_hello()), other.clone()].concat()).unwrap();
            sniffer.next().unwrap().unwrap();
            sniffer.await_client_key_exchange();
            assert_eq!(sniffer.next(), Ok(Some(Sniffed::Other(other))));
        }
    }

    #[test]
    fn strangers_are_told_from_their_first_octets() {
        assert_eq!(first(b"G"), Err(SniffError::NotTls));
        assert_eq!(first(&[22, 2]), Err(SniffError::NotTls));
        assert_eq!(first(&[0x80, 0x2E, 1, 3, 1]), Err(SniffError::NotTls));
        assert_eq!(first(&[22, 3, 1, 0x40, 1]), Err(SniffError::RecordTooLong));
        assert_eq!(first(&[22, 3, 1, 0, 0]), Err(SniffError::Malformed));
        assert_eq!(first(&record(&message(2, &[0; 40]))), Err(SniffError::Unexpected));
        assert_eq!(first(&record(&[1, 0xFF, 0xFF, 0xFF])), Err(SniffError::TooLong));
        assert_eq!(first(&record(&message(1, &[3, 3]))), Err(SniffError::Malformed));
        let twice = hello_with(&[extension(45, &[1, 0]), extension(45, &[1, 1])]);
        assert_eq!(first(&record(&twice)), Err(SniffError::Malformed));
    }

    #[test]
    fn more_octets_than_allowed_are_refused() {
        let mut sniffer = HandshakeSniffer::new(OCTETS_MAX);
        assert_eq!(sniffer.push(&[22; OCTETS_MAX]), Ok(()));
        assert_eq!(sniffer.push(&[22]), Err(SniffError::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_octets_are_lost_made_up_or_fatal(
            octets in proptest::collection::vec(any::<u8>(), 0..600),
            cut in 1usize..200,
            hello_first in any::<bool>(),
            damage in proptest::option::of((0usize..200, any::<u8>())),
            tls12 in any::<bool>(),
        ) {
            let mut sent = if hello_first { record(&typical_hello()) } else { Vec::new() };
            if let Some((at, octet)) = damage && let Some(place) = sent.get_mut(at) {
                *place = octet;
            }
            sent.extend(&octets);
            let mut sniffer = HandshakeSniffer::new(OCTETS_MAX);
            let mut given = Vec::new();
            'all: for chunk in sent.chunks(cut) {
                sniffer.push(chunk).unwrap();
                loop {
                    match sniffer.next() {
                        Ok(None) => break,
                        Ok(Some(Sniffed::ClientHello { records, .. })) => {
                            given.extend(records);
                            if tls12 { sniffer.await_client_key_exchange() }
                        }
                        Ok(Some(Sniffed::ClientKeyExchange { record, .. })) => given.extend(record),
                        Ok(Some(Sniffed::Other(other))) => given.extend(other),
                        Err(_) => break 'all,
                    }
                }
            }
            prop_assert!(sent.starts_with(&given));
        }
    }
}
