//! The OSCORE option: the compressed COSE object (RFC 8613 6.1).
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +-+-+-+-+-+-+-+-+------------------+-----+------------------+--------------+
//! |0 0 0|h|k|  n  |  Partial IV (n)  |  s  |  kid context (s) |  kid (rest)  |
//! +-+-+-+-+-+-+-+-+------------------+-----+------------------+--------------+
//!                                    |<-- only with h = 1 --->| only with k = 1
//! ```

use super::error::OscoreError;
use super::limits::{OSCORE_OPTION_OCTETS_MAX, PARTIAL_IV_OCTETS_MAX, SEQUENCE_NUMBER_MAX};
use super::message::{Message, number};

const FLAG_KID_CONTEXT: u8 = 0x10;
const FLAG_KID: u8 = 0x08;
const FLAGS_RESERVED: u8 = 0xe0;
const PARTIAL_IV_LENGTH: u8 = 0x07;

/// What an OSCORE option says. A server finds the context of a request by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OscoreOption<'a> {
    /// The number of the message, at most [`super::SEQUENCE_NUMBER_MAX`].
    pub partial_iv: Option<u64>,
    /// The ID Context of whoever sends.
    pub kid_context: Option<&'a [u8]>,
    /// The Sender ID of whoever sends: the Recipient ID of the context that is wanted.
    pub kid: Option<&'a [u8]>,
}

impl<'a> OscoreOption<'a> {
    /// Reads the value of the option.
    ///
    /// # Errors
    /// [`OscoreError::NotDecoded`] for reserved flags, what is cut off or left over, a Partial IV of six octets or more
    /// or with a zero too many in front, and flags of zero that are written out.
    pub fn parse(value: &'a [u8]) -> Result<Self, OscoreError> {
        if value.len() > OSCORE_OPTION_OCTETS_MAX {
            return Err(OscoreError::NotDecoded("option too long"));
        }
        let Some((&flags, rest)) = value.split_first() else {
            return Ok(Self::default());
        };
        if flags & FLAGS_RESERVED != 0 {
            return Err(OscoreError::NotDecoded("reserved flag"));
        }
        if flags == 0 {
            return Err(OscoreError::NotDecoded("flags of zero are an empty option"));
        }
        let (partial_iv, rest) =
            rest.split_at_checked(usize::from(flags & PARTIAL_IV_LENGTH)).ok_or(OscoreError::NotDecoded("cut off"))?;
        let partial_iv = if partial_iv.is_empty() { None } else { Some(read_partial_iv(partial_iv)?) };
        let (kid_context, rest) = if flags & FLAG_KID_CONTEXT == 0 {
            (None, rest)
        } else {
            let (&length, rest) = rest.split_first().ok_or(OscoreError::NotDecoded("cut off"))?;
            let (context, rest) =
                rest.split_at_checked(usize::from(length)).ok_or(OscoreError::NotDecoded("cut off"))?;
            (Some(context), rest)
        };
        let kid = (flags & FLAG_KID != 0).then_some(rest);
        if kid.is_none() && !rest.is_empty() {
            return Err(OscoreError::NotDecoded("more than the flags say"));
        }
        Ok(Self { partial_iv, kid_context, kid })
    }

    /// Reads the OSCORE option of a message; none if there is none.
    ///
    /// # Errors
    /// As [`OscoreOption::parse`], and [`OscoreError::NotDecoded`] for more than one of them, or no payload with it.
    pub fn of(message: &'a Message) -> Result<Option<Self>, OscoreError> {
        let mut values = message.options().filter(|(found, _)| *found == number::OSCORE).map(|(_, value)| value);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(OscoreError::NotDecoded("more than one option"));
        }
        if message.payload().is_empty() {
            return Err(OscoreError::NotDecoded("no payload"));
        }
        Self::parse(value).map(Some)
    }

    /// The value of the option.
    ///
    /// # Errors
    /// [`OscoreError::InvalidParameter`] for a Partial IV above [`super::SEQUENCE_NUMBER_MAX`] or more than
    /// [`super::OSCORE_OPTION_OCTETS_MAX`] octets.
    pub fn encode(&self) -> Result<Vec<u8>, OscoreError> {
        let mut flags = 0;
        let mut rest = Vec::new();
        if let Some(partial_iv) = self.partial_iv {
            let partial_iv = PartialIv::new(partial_iv)?;
            flags |= partial_iv.octets().len() as u8;
            rest.extend_from_slice(partial_iv.octets());
        }
        if let Some(kid_context) = self.kid_context {
            flags |= FLAG_KID_CONTEXT;
            rest.push(u8::try_from(kid_context.len()).map_err(|_| OscoreError::InvalidParameter("kid context"))?);
            rest.extend_from_slice(kid_context);
        }
        if let Some(kid) = self.kid {
            flags |= FLAG_KID;
            rest.extend_from_slice(kid);
        }
        if flags == 0 {
            return Ok(rest);
        }
        rest.insert(0, flags);
        if rest.len() > OSCORE_OPTION_OCTETS_MAX {
            return Err(OscoreError::InvalidParameter("OSCORE option too long"));
        }
        Ok(rest)
    }
}

/// A Partial IV: a sequence number in as few octets as it needs, one for 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartialIv {
    padded: [u8; PARTIAL_IV_OCTETS_MAX],
    zeros: u8,
}

impl PartialIv {
    pub(crate) fn new(number: u64) -> Result<Self, OscoreError> {
        if number > SEQUENCE_NUMBER_MAX {
            return Err(OscoreError::InvalidParameter("Partial IV above 2^40 - 1"));
        }
        let [_, _, _, padded @ ..] = number.to_be_bytes();
        let zeros = padded.iter().take(PARTIAL_IV_OCTETS_MAX - 1).take_while(|octet| **octet == 0).count();
        Ok(Self { padded, zeros: zeros as u8 })
    }

    pub(crate) fn octets(&self) -> &[u8] {
        self.padded.get(usize::from(self.zeros)..).unwrap_or_default()
    }

    /// With zeros in front, as it enters the nonce.
    pub(crate) const fn padded(&self) -> &[u8; PARTIAL_IV_OCTETS_MAX] {
        &self.padded
    }

    pub(crate) fn number(&self) -> u64 {
        self.padded.iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
    }
}

fn read_partial_iv(octets: &[u8]) -> Result<u64, OscoreError> {
    if octets.len() > PARTIAL_IV_OCTETS_MAX {
        return Err(OscoreError::NotDecoded("reserved length of the Partial IV"));
    }
    if let [0, _, ..] = octets {
        return Err(OscoreError::NotDecoded("Partial IV with zeros in front"));
    }
    Ok(octets.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
}
