//! The header of a datagram (RFC 7252 3), and options put together from more than one place.
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +---+---+-------+--------+-----------------+---------+----------+------+-----------+
//! |Ver| T |  TKL  |  Code  |   Message ID    |  Token  | Options  | 0xff | Payload   |
//! +---+---+-------+--------+-----------------+---------+----------+------+-----------+
//! ```

use crate::code::Code;
use crate::frame::{Frame, OptionReader, OptionWriter, PAYLOAD_MARKER, Token};

const VERSION: u8 = 1;

/// Header before the token, in octets.
pub(super) const HEADER_OCTETS: usize = 4;

/// Type (RFC 7252 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Confirmable,
    NonConfirmable,
    Acknowledgement,
    Reset,
}

impl Type {
    const fn bits(self) -> u8 {
        match self {
            Self::Confirmable => 0,
            Self::NonConfirmable => 1,
            Self::Acknowledgement => 2,
            Self::Reset => 3,
        }
    }

    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Confirmable,
            1 => Self::NonConfirmable,
            2 => Self::Acknowledgement,
            _ => Self::Reset,
        }
    }
}

/// One datagram where it lies in the input. Its options have not been looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram<'a> {
    pub(super) kind: Type,
    pub(super) message_id: u16,
    pub(super) frame: Frame<'a>,
    pub(super) octets: usize,
}

/// What is done with a datagram that cannot be taken apart (RFC 7252 4.2, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Passed over in silence.
    Ignored,
    /// Answered by a Reset with this Message ID.
    Rejected(u16),
}

impl<'a> Datagram<'a> {
    pub(super) fn parse(octets: &'a [u8]) -> Result<Self, Unreadable> {
        let &[first, code, high, low, ref rest @ ..] = octets else {
            return Err(Unreadable::Ignored);
        };
        // RFC 7252 3: unknown versions are ignored in silence.
        if first >> 6 != VERSION {
            return Err(Unreadable::Ignored);
        }
        let kind = Type::from_bits(first >> 4);
        let message_id = u16::from_be_bytes([high, low]);
        let unreadable = match kind {
            Type::Confirmable => Unreadable::Rejected(message_id),
            _ => Unreadable::Ignored,
        };
        let (token, body) = rest.split_at_checked(usize::from(first & 0x0f)).ok_or(unreadable)?;
        let token = Token::from_slice(token).ok_or(unreadable)?;
        let code = Code::from_octet(code);
        // RFC 7252 4.1: nothing follows the Message ID of an empty message.
        if code == Code::EMPTY && !rest.is_empty() {
            return Err(unreadable);
        }
        Ok(Self { kind, message_id, frame: Frame::new(code, token, body), octets: octets.len() })
    }
}

/// An empty message (RFC 7252 4.1): Ping, Acknowledgement or Reset.
pub(super) fn empty(kind: Type, message_id: u16) -> Vec<u8> {
    write(kind, message_id, Code::EMPTY, &Token::default(), &[], &[])
}

/// `options` as [`merged`] or an [`OptionWriter`] has written them.
pub(super) fn write(kind: Type, message_id: u16, code: Code, token: &Token, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let token = token.as_slice();
    let mut out = Vec::with_capacity(HEADER_OCTETS + token.len() + options.len() + 1 + payload.len());
    out.push(VERSION << 6 | kind.bits() << 4 | token.len() as u8);
    out.push(code.octet());
    out.extend_from_slice(&message_id.to_be_bytes());
    out.extend_from_slice(token);
    out.extend_from_slice(options);
    if !payload.is_empty() {
        out.push(PAYLOAD_MARKER);
        out.extend_from_slice(payload);
    }
    out
}

/// Gives a datagram that was written before its turn came the Message ID that it goes out with.
pub(super) fn set_message_id(datagram: &mut [u8], message_id: u16) {
    if let Some(place) = datagram.get_mut(2..HEADER_OCTETS) {
        place.copy_from_slice(&message_id.to_be_bytes());
    }
}

/// The options of `base` but those in `left_out`, and those `added`, which are in ascending order.
pub(crate) fn merged(base: OptionReader<'_>, left_out: &[u16], added: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = OptionWriter::new(&mut out);
    let mut base = base;
    let mut added = added.iter().peekable();
    // `base` was written here, or has been read to its end without an error before.
    while let Ok(Some((number, value))) = base.next() {
        if left_out.contains(&number) {
            continue;
        }
        while let Some((number, value)) = added.next_if(|(added, _)| *added < number) {
            writer.octets(*number, value);
        }
        writer.octets(number, value);
    }
    for (number, value) in added {
        writer.octets(*number, value);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coap_lite::Packet;
    use proptest::prelude::*;

    use super::*;

    type Options = Vec<(u16, Vec<u8>)>;

    fn read(octets: &[u8]) -> (Type, u16, Code, Vec<u8>, Options, Vec<u8>) {
        let Datagram { kind, message_id, frame, octets: length } = Datagram::parse(octets).unwrap();
        assert_eq!(length, octets.len());
        let mut reader = frame.options();
        let mut options = Vec::new();
        while let Some((number, value)) = reader.next().unwrap() {
            options.push((number, value.to_vec()));
        }
        (kind, message_id, frame.code, frame.token.as_slice().to_vec(), options, reader.payload().unwrap().to_vec())
    }

    fn encoded(options: &Options) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = OptionWriter::new(&mut out);
        for (number, value) in options {
            writer.octets(*number, value);
        }
        out
    }

    fn options() -> impl Strategy<Value = Options> {
        let option = (0_u16..400, prop::collection::vec(any::<u8>(), 0..300));
        prop::collection::vec(option, 0..6).prop_map(|mut options| {
            options.sort_by_key(|(number, _)| *number);
            options
        })
    }

    #[test]
    fn empty_messages_have_four_octets() {
        assert_eq!(empty(Type::Confirmable, 0x0102), [0x40, 0, 1, 2]);
        assert_eq!(empty(Type::Acknowledgement, 0x0102), [0x60, 0, 1, 2]);
        assert_eq!(empty(Type::Reset, 0x0102), [0x70, 0, 1, 2]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_by_us_and_by_coap_lite(
            bits in 0_u8..4,
            message_id in any::<u16>(),
            code in 1_u8..=0xbf,
            token in prop::collection::vec(any::<u8>(), 0..=8),
            options in options(),
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let (kind, code) = (Type::from_bits(bits), Code::from_octet(code));
            let octets =
                write(kind, message_id, code, &Token::from_slice(&token).unwrap(), &encoded(&options), &payload);
            prop_assert_eq!(read(&octets), (kind, message_id, code, token.clone(), options.clone(), payload.clone()));
            let theirs = Packet::from_bytes(&octets).unwrap();
            prop_assert_eq!(theirs.header.message_id, message_id);
            prop_assert_eq!(theirs.get_token(), &token[..]);
            prop_assert_eq!(&theirs.payload, &payload);
            for (number, _) in &options {
                let ours = options.iter().filter(|(other, _)| other == number).map(|(_, value)| value);
                prop_assert!(theirs.get_option((*number).into()).unwrap().iter().eq(ours));
            }
        }

        #[test]
        fn options_are_merged_in_order(base in options(), added in options(), left_out in prop::collection::vec(0_u16..400, 0..3)) {
            let more: Vec<(u16, &[u8])> = added.iter().map(|(number, value)| (*number, value.as_slice())).collect();
            let octets = merged(OptionReader::new(&encoded(&base)), &left_out, &more);
            let mut reader = OptionReader::new(&octets);
            let mut came = Vec::new();
            while let Some((number, value)) = reader.next().unwrap() {
                came.push((number, value.to_vec()));
            }
            let mut expected: Options = base.into_iter().filter(|(number, _)| !left_out.contains(number)).collect();
            expected.extend(added);
            expected.sort_by_key(|(number, _)| *number);
            prop_assert_eq!(came, expected, "of one number those of the base come first");
        }

        #[test]
        fn arbitrary_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(datagram) = Datagram::parse(&octets) {
                let mut reader = datagram.frame.options();
                while let Ok(Some(_)) = reader.next() {}
            }
        }
    }
}
