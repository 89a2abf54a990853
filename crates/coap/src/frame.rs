//! Framing of RFC 8323 3.2 and 4.2, and option coding of RFC 7252 3.1.
//!
//! `coap-lite` has both for datagrams only: its packets start with version, type and message ID, which a stream does not
//! have, its header is private to it, and it keeps options in a map of linked lists, one allocation each. So this crate
//! takes its registry of option numbers ([`coap_lite::CoapOption`]) and does the coding here, on the octets as they lie.
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +-------+-------+----------------+--------+---------+----------+------+-----------+
//! |  Len  |  TKL  | Len+ (0,1,2,4) |  Code  |  Token  | Options  | 0xff | Payload   |
//! +-------+-------+----------------+--------+---------+----------+------+-----------+
//!                                                     |<------- Len octets -------->|
//! ```
//!
//! In a WebSocket message, whose length is known, Len is 0 and Len+ is not there (RFC 8323 4.2).

use crate::code::Code;
use crate::error::StreamError;
use crate::limits::TOKEN_OCTETS_MAX;

pub(crate) const PAYLOAD_MARKER: u8 = 0xff;

/// A token, 0 to 8 octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    octets: [u8; TOKEN_OCTETS_MAX],
    length: u8,
}

impl Token {
    pub(crate) fn from_slice(slice: &[u8]) -> Option<Self> {
        let mut octets = [0; TOKEN_OCTETS_MAX];
        octets.get_mut(..slice.len())?.copy_from_slice(slice);
        Some(Self { octets, length: slice.len() as u8 })
    }

    /// One of our own tokens: four octets.
    pub(crate) fn from_number(number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        Self { octets: [a, b, c, d, 0, 0, 0, 0], length: 4 }
    }

    /// The number of one of our own tokens.
    pub(crate) fn number(self) -> Option<u32> {
        let [a, b, c, d, ..] = self.octets;
        (self.length == 4).then(|| u32::from_be_bytes([a, b, c, d]))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// Who tells where a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The message itself.
    Stream,
    /// The WebSocket message that it is alone in.
    WebSocket,
}

/// How far a message reaches, as much of it as its first octets tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Not known before so many octets are there.
    Needs(usize),
    /// The whole message has so many octets.
    Total(u64),
}

/// Reads how long the message is that starts with `start`.
pub(crate) fn extent(start: &[u8]) -> Result<Extent, StreamError> {
    let Some((&first, rest)) = start.split_first() else {
        return Ok(Extent::Needs(1));
    };
    let token_length = first & 0x0f;
    if usize::from(token_length) > TOKEN_OCTETS_MAX {
        return Err(StreamError::TokenLengthReserved(token_length));
    }
    let (extended, length) = match (first >> 4, rest) {
        (13, [a, ..]) => (1, 13 + u64::from(*a)),
        (14, [a, b, ..]) => (2, 269 + u64::from(u16::from_be_bytes([*a, *b]))),
        (15, [a, b, c, d, ..]) => (4, 65_805 + u64::from(u32::from_be_bytes([*a, *b, *c, *d]))),
        (13, _) => return Ok(Extent::Needs(2)),
        (14, _) => return Ok(Extent::Needs(3)),
        (15, _) => return Ok(Extent::Needs(5)),
        (length, _) => (0, u64::from(length)),
    };
    Ok(Extent::Total(1 + extended + 1 + u64::from(token_length) + length))
}

/// One message where it lies in the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) code: Code,
    pub(crate) token: Token,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes apart one whole message, whose end [`extent`] has found.
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, StreamError> {
        const SHORT: StreamError = StreamError::Malformed("shorter than its header");
        let (&first, rest) = message.split_first().ok_or(SHORT)?;
        let extended = match first >> 4 {
            13 => 1,
            14 => 2,
            15 => 4,
            _ => 0,
        };
        let (_, rest) = rest.split_at_checked(extended).ok_or(SHORT)?;
        let (&code, rest) = rest.split_first().ok_or(SHORT)?;
        let (token, body) = rest.split_at_checked(usize::from(first & 0x0f)).ok_or(SHORT)?;
        let token = Token::from_slice(token).ok_or(StreamError::TokenLengthReserved(first & 0x0f))?;
        Ok(Self { code: Code::from_octet(code), token, body })
    }

    /// Options and payload.
    pub(crate) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Takes apart a message that is alone in a WebSocket message (RFC 8323 4.2).
    pub(crate) fn parse_alone(message: &'a [u8]) -> Result<Self, StreamError> {
        match message.first().map(|first| (first >> 4, first & 0x0f)) {
            Some((0, token_length)) if usize::from(token_length) > TOKEN_OCTETS_MAX => {
                Err(StreamError::TokenLengthReserved(token_length))
            }
            Some((1.., _)) => Err(StreamError::Malformed("length in a WebSocket message")),
            _ => Self::parse(message),
        }
    }

    /// A message whose header another framing has taken apart; `body` is options, marker and payload.
    pub(crate) fn new(code: Code, token: Token, body: &'a [u8]) -> Self {
        Self { code, token, body }
    }

    pub(crate) fn options(&self) -> OptionReader<'a> {
        OptionReader::new(self.body)
    }
}

/// Reads options one after the other, then the payload.
#[derive(Clone, Debug)]
pub(crate) struct OptionReader<'a> {
    rest: &'a [u8],
    number: u16,
}

impl<'a> OptionReader<'a> {
    /// Reads from the first option on.
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body, number: 0 }
    }

    /// The next option's number and value; none at the payload marker or the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u16, &'a [u8])>, StreamError> {
        let Some((&first, rest)) = self.rest.split_first().filter(|(first, _)| **first != PAYLOAD_MARKER) else {
            return Ok(None);
        };
        let (delta, rest) = nibble(first >> 4, rest)?;
        let (length, rest) = nibble(first & 0x0f, rest)?;
        let number = u32::from(self.number) + delta;
        self.number = u16::try_from(number).map_err(|_| StreamError::Malformed("option number above 65535"))?;
        let (value, rest) = rest
            .split_at_checked(length as usize)
            .ok_or(StreamError::Malformed("option reaches beyond the message"))?;
        self.rest = rest;
        Ok(Some((self.number, value)))
    }

    /// The payload, once all options are read.
    pub(crate) fn payload(&self) -> Result<&'a [u8], StreamError> {
        match self.rest {
            [] => Ok(&[]),
            [PAYLOAD_MARKER] => Err(StreamError::Malformed("payload marker without payload")),
            [_, payload @ ..] => Ok(payload),
        }
    }
}

/// A delta or length of RFC 7252 3.1: up to 12 as it is, then with one or two octets more.
fn nibble(nibble: u8, rest: &[u8]) -> Result<(u32, &[u8]), StreamError> {
    match (nibble, rest) {
        (0..=12, _) => Ok((u32::from(nibble), rest)),
        (13, [a, rest @ ..]) => Ok((13 + u32::from(*a), rest)),
        (14, [a, b, rest @ ..]) => Ok((269 + u32::from(u16::from_be_bytes([*a, *b])), rest)),
        (15, _) => Err(StreamError::Malformed("reserved option delta or length")),
        _ => Err(StreamError::Malformed("option reaches beyond the message")),
    }
}

/// Reads an unsigned integer (RFC 7252 3.2) of at most `octets_max` octets, of which there are at most 4.
pub(crate) fn read_uint(value: &[u8], octets_max: usize) -> Option<u32> {
    (value.len() <= octets_max.min(4)).then(|| value.iter().fold(0, |number, octet| number << 8 | u32::from(*octet)))
}

/// Writes options in ascending order of their numbers.
pub(crate) struct OptionWriter<'o> {
    out: &'o mut Vec<u8>,
    number: u16,
}

impl<'o> OptionWriter<'o> {
    /// Appends to `out`, from the lowest number on.
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, number: 0 }
    }

    pub(crate) fn octets(&mut self, number: u16, value: &[u8]) {
        debug_assert!(number >= self.number, "options out of order");
        let delta = number.saturating_sub(self.number);
        self.number = number;
        // No option that is written is longer than 255 octets; callers check what is given to them.
        let length = value.len().min(usize::from(u16::MAX)) as u16;
        let (delta_nibble, delta_more) = split_nibble(delta);
        let (length_nibble, length_more) = split_nibble(length);
        self.out.push(delta_nibble << 4 | length_nibble);
        delta_more.write(self.out);
        length_more.write(self.out);
        self.out.extend_from_slice(value);
    }

    /// An unsigned integer in as few octets as it needs (RFC 7252 3.2).
    pub(crate) fn uint(&mut self, number: u16, value: u32) {
        let octets = value.to_be_bytes();
        let zeros = (value.leading_zeros() / 8) as usize;
        self.octets(number, octets.get(zeros..).unwrap_or_default());
    }
}

enum More {
    None,
    One(u8),
    Two(u16),
}

impl More {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::One(octet) => out.push(*octet),
            Self::Two(octets) => out.extend_from_slice(&octets.to_be_bytes()),
        }
    }
}

fn split_nibble(value: u16) -> (u8, More) {
    match value {
        0..=12 => (value as u8, More::None),
        13..=268 => (13, More::One((value - 13) as u8)),
        _ => (14, More::Two(value - 269)),
    }
}

/// Appends one message to `out`, unless it is larger than `octets_max`.
pub(crate) fn write(
    out: &mut Vec<u8>,
    framing: Framing,
    octets_max: u32,
    code: Code,
    token: &Token,
    payload: &[u8],
    options: impl FnOnce(&mut OptionWriter<'_>),
) -> Result<(), StreamError> {
    let start = out.len();
    // The header tells the length of what follows, so the options come first and change places with it: they are some
    // ten octets, where measuring them beforehand would mean to build them twice.
    options(&mut OptionWriter::new(out));
    let options_end = out.len();
    let marked_payload = if payload.is_empty() { 0 } else { 1 + payload.len() };
    let length = (options_end - start + marked_payload) as u64;
    let token = token.as_slice();
    let nibbles = |length: u8| length << 4 | token.len() as u8;
    match length {
        _ if framing == Framing::WebSocket => out.push(nibbles(0)),
        0..=12 => out.push(nibbles(length as u8)),
        13..=268 => out.extend_from_slice(&[nibbles(13), (length - 13) as u8]),
        269..=65_804 => {
            out.push(nibbles(14));
            out.extend_from_slice(&((length - 269) as u16).to_be_bytes());
        }
        _ => {
            out.push(nibbles(15));
            // What does not fit is over any octets_max, and refused below.
            out.extend_from_slice(&(length.saturating_sub(65_805).min(u64::from(u32::MAX)) as u32).to_be_bytes());
        }
    }
    out.push(code.octet());
    out.extend_from_slice(token);
    let header = out.len() - options_end;
    let octets = header as u64 + length;
    if octets > u64::from(octets_max) {
        out.truncate(start);
        return Err(StreamError::MessageTooLargeForPeer { octets, octets_max });
    }
    if let Some(written) = out.get_mut(start..) {
        written.rotate_right(header);
    }
    if !payload.is_empty() {
        out.reserve(marked_payload);
        out.push(PAYLOAD_MARKER);
        out.extend_from_slice(payload);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use coap_lite::{CoapOption, MessageClass, Packet, RequestType};
    use proptest::prelude::*;

    use super::*;

    /// Appends one message of a stream.
    fn write(
        out: &mut Vec<u8>,
        octets_max: u32,
        code: Code,
        token: &Token,
        payload: &[u8],
        options: impl FnOnce(&mut OptionWriter<'_>),
    ) -> Result<(), StreamError> {
        super::write(out, Framing::Stream, octets_max, code, token, payload, options)
    }

    fn written(code: Code, token: &[u8], payload: &[u8], options: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![0xaa, 0xbb];
        write(&mut out, u32::MAX, code, &Token::from_slice(token).unwrap(), payload, |writer| {
            for (number, value) in options {
                writer.octets(*number, value);
            }
        })
        .unwrap();
        assert_eq!(out[..2], [0xaa, 0xbb], "what was there before stays");
        out.split_off(2)
    }

    type Options = Vec<(u16, Vec<u8>)>;

    fn read(message: &[u8]) -> (Code, Vec<u8>, Options, Vec<u8>) {
        assert_eq!(extent(message), Ok(Extent::Total(message.len() as u64)));
        let frame = Frame::parse(message).unwrap();
        let mut reader = frame.options();
        let mut options = Vec::new();
        while let Some((number, value)) = reader.next().unwrap() {
            options.push((number, value.to_vec()));
        }
        (frame.code, frame.token.as_slice().to_vec(), options, reader.payload().unwrap().to_vec())
    }

    /// RFC 8323 figures 5 and 6: an empty message, and 2.03 with the token 7f and nothing else.
    #[test]
    fn the_examples_of_rfc_8323_are_written_and_read() {
        assert_eq!(written(Code::EMPTY, &[], &[], &[]), [0x00, 0x00]);
        assert_eq!(written(Code::VALID, &[0x7f], &[], &[]), [0x01, 0x43, 0x7f]);
        assert_eq!(read(&[0x01, 0x43, 0x7f]), (Code::VALID, vec![0x7f], vec![], vec![]));
    }

    #[test]
    fn lengths_change_their_form_at_13_269_and_65805() {
        for (payload, header) in [
            (11_usize, vec![0xc0]),
            (12, vec![0xd0, 0]),
            (267, vec![0xd0, 255]),
            (268, vec![0xe0, 0, 0]),
            (65_803, vec![0xe0, 0xff, 0xff]),
            (65_804, vec![0xf0, 0, 0, 0, 0]),
            (65_805, vec![0xf0, 0, 0, 0, 1]),
        ] {
            let message = written(Code::POST, &[], &vec![7; payload], &[]);
            assert_eq!(message[..header.len()], header, "payload of {payload}");
            assert_eq!(read(&message).3.len(), payload);
        }
    }

    #[test]
    fn an_extent_is_told_from_the_first_octets_and_no_sooner() {
        assert_eq!(extent(&[]), Ok(Extent::Needs(1)));
        assert_eq!(extent(&[0xd0]), Ok(Extent::Needs(2)));
        assert_eq!(extent(&[0xe0, 1]), Ok(Extent::Needs(3)));
        assert_eq!(extent(&[0xf0, 1, 2, 3]), Ok(Extent::Needs(5)));
        assert_eq!(extent(&[0xf8, 0xff, 0xff, 0xff, 0xff]), Ok(Extent::Total(65_805 + u64::from(u32::MAX) + 14)));
        assert_eq!(extent(&[0x09]), Err(StreamError::TokenLengthReserved(9)));
    }

    #[test]
    fn a_message_over_the_peers_size_leaves_nothing_behind() {
        let mut out = vec![1, 2, 3];
        let result = write(&mut out, 20, Code::POST, &Token::default(), &[0; 18], |_| {});
        assert_eq!(result, Err(StreamError::MessageTooLargeForPeer { octets: 22, octets_max: 20 }));
        assert_eq!(out, [1, 2, 3]);
        assert_eq!(write(&mut out, 20, Code::POST, &Token::default(), &[0; 16], |_| {}), Ok(()));
        assert_eq!(out.len(), 3 + 20);
    }

    #[test]
    fn integers_are_as_short_as_they_can_be_and_read_with_leading_zeros() {
        let mut out = Vec::new();
        for value in [0, 1, 255, 256, 65_536, u32::MAX] {
            OptionWriter { out: &mut out, number: 0 }.uint(1, value);
        }
        assert_eq!(out, [0x10, 0x11, 1, 0x11, 255, 0x12, 1, 0, 0x13, 1, 0, 0, 0x14, 255, 255, 255, 255]);
        assert_eq!(read_uint(&[0, 50], 2), Some(50));
        assert_eq!(read_uint(&[0, 0, 50], 2), None);
        assert_eq!(read_uint(&[], 2), Some(0));
        assert_eq!(read_uint(&[0; 5], 9), None);
    }

    #[test]
    fn malformed_options_are_refused() {
        for (body, what) in [
            (&[0xf0][..], "reserved delta"),
            (&[0x0f], "reserved length"),
            (&[0xd0], "delta without its octet"),
            (&[0xe0, 1], "delta without its octets"),
            (&[0x11], "value beyond the end"),
            (&[0x0e, 0xff, 0xff, 1], "long value beyond the end"),
            (&[0xff], "marker without payload"),
            (&[0xe0, 0xff, 0xff], "number above 65535"),
            (&[0xe0, 0xfe, 0xf2, 0x10], "number above 65535 by addition"),
        ] {
            let mut message = vec![(body.len() as u8) << 4, 0x02];
            message.extend_from_slice(body);
            let mut reader = Frame::parse(&message).unwrap().options();
            let result = loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break reader.payload().map(<[u8]>::to_vec),
                    Err(error) => break Err(error),
                }
            };
            assert!(matches!(result, Err(StreamError::Malformed(_))), "{what}: {result:?}");
        }
    }

    fn options() -> impl Strategy<Value = Options> {
        let option = (prop_oneof![0_u16..40, any::<u16>()], prop::collection::vec(any::<u8>(), 0..300));
        prop::collection::vec(option, 0..6).prop_map(|mut options| {
            options.sort_by_key(|(number, _)| *number);
            options
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_reads_back(
            token in prop::collection::vec(any::<u8>(), 0..=8),
            options in options(),
            payload in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let message = written(Code::POST, &token, &payload, &options);
            prop_assert_eq!(read(&message), (Code::POST, token, options, payload));
        }

        /// Options and payload are coded alike over datagrams and streams: `coap-lite` is the independent witness.
        #[test]
        fn the_body_is_octet_for_octet_that_of_coap_lite(
            options in options(),
            payload in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut packet = Packet::new();
            packet.header.code = MessageClass::Request(RequestType::Post);
            for (number, value) in &options {
                packet.add_option(CoapOption::from(*number), value.clone());
            }
            packet.payload = payload.clone();
            let theirs = packet.to_bytes_with_limit(65_536).unwrap();
            let ours = written(Code::POST, &[], &payload, &options);
            prop_assert_eq!(Frame::parse(&ours).unwrap().body, &theirs[4..]);
        }

        #[test]
        fn no_octets_make_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Extent::Total(total)) = extent(&octets)
                && let Some(message) = octets.get(..total as usize)
            {
                let mut reader = Frame::parse(message).unwrap().options();
                while let Ok(Some(_)) = reader.next() {}
                let _ = reader.payload();
            }
        }
    }
}
