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
pub(super) fn merged(base: OptionReader<'_>, left_out: &[u16], added: &[(u16, &[u8])]) -> Vec<u8> {
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
