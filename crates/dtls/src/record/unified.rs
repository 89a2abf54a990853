//! The unified header (RFC 9147 4) and what it leaves out of a record number (RFC 9147 4.2.2).
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +-+-+-+-+-+-+-+-+
//! |0|0|1|C|S|L|E E|   C: a Connection ID follows. S: 16 bits of the sequence number, else 8.
//! +-+-+-+-+-+-+-+-+   L: a length follows, else the record ends with the datagram. EE: the epoch's low bits.
//! ```

use crate::codec::{Read, Reader, put_u16};
use crate::record::{EXPANSION_OCTETS_MAX, RECORD_CONTENT_OCTETS_MAX};

const FIXED_MASK: u8 = 0b1110_0000;
const FIXED: u8 = 0b0010_0000;
const CONNECTION_ID: u8 = 0b0001_0000;
const LONG_SEQUENCE: u8 = 0b0000_1000;
const LENGTH: u8 = 0b0000_0100;
const EPOCH: u8 = 0b0000_0011;

/// Of the sequence numbers that a key may have, the first that it may not (RFC 9147 4.2.1).
pub(crate) const SEQUENCE_END: u64 = (1 << 48) - 1;

/// Whether a record has the unified header.
pub(crate) fn is_unified(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & FIXED_MASK == FIXED)
}

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) long_sequence: bool,
    /// Without, no record follows in the datagram.
    pub(crate) length: bool,
}

impl Form {
    /// Of a record that others may follow.
    pub(crate) const WITH_LENGTH: Self = Self { long_sequence: true, length: true };
    /// Of a datagram's only record.
    pub(crate) const ALONE: Self = Self { long_sequence: true, length: false };

    /// Octets of the header with a Connection ID of `connection_id_octets` octets.
    pub(crate) fn octets(self, connection_id_octets: usize) -> usize {
        1 + connection_id_octets + self.sequence_octets() + if self.length { 2 } else { 0 }
    }

    fn sequence_octets(self) -> usize {
        if self.long_sequence { 2 } else { 1 }
    }
}

/// One record as it came: its number is still masked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unified<'a> {
    header: &'a [u8],
    pub(crate) connection_id: Option<&'a [u8]>,
    pub(crate) ciphertext: &'a [u8],
}

impl<'a> Unified<'a> {
    pub(crate) fn epoch_bits(&self) -> u8 {
        self.header.first().map_or(0, |first| first & EPOCH)
    }

    fn form(&self) -> Form {
        let first = self.header.first().copied().unwrap_or_default();
        Form { long_sequence: first & LONG_SEQUENCE != 0, length: first & LENGTH != 0 }
    }

    /// Takes the mask off: the header as it is authenticated, the number's low bits, and how many there are.
    pub(crate) fn unmasked(&self, mask: [u8; 2]) -> (Vec<u8>, u64, u32) {
        let mut header = self.header.to_vec();
        let at = 1 + self.connection_id.map_or(0, <[u8]>::len);
        let octets = self.form().sequence_octets();
        let mut low = 0;
        for (octet, mask) in header.iter_mut().skip(at).take(octets).zip(mask) {
            *octet ^= mask;
            low = low << 8 | u64::from(*octet);
        }
        (header, low, if octets == 2 { 16 } else { 8 })
    }
}

/// The first record of `datagram` and what follows it, if its Connection ID has `connection_id_octets` octets. `None` if
/// there is none: the rest of the datagram is dropped.
pub(crate) fn split(datagram: &[u8], connection_id_octets: usize) -> Option<(Unified<'_>, &[u8])> {
    read(datagram, connection_id_octets).ok()
}

fn read(datagram: &[u8], connection_id_octets: usize) -> Read<(Unified<'_>, &[u8])> {
    let mut reader = Reader::new(datagram);
    let first = reader.u8()?;
    if first & FIXED_MASK != FIXED {
        return Err(crate::codec::Malformed);
    }
    let connection_id = match first & CONNECTION_ID != 0 {
        true if connection_id_octets == 0 => return Err(crate::codec::Malformed),
        true => Some(reader.take(connection_id_octets)?),
        false => None,
    };
    reader.take(if first & LONG_SEQUENCE != 0 { 2 } else { 1 })?;
    let octets = if first & LENGTH != 0 { usize::from(reader.u16()?) } else { reader.rest().len() };
    let header = datagram.get(..datagram.len() - reader.rest().len()).unwrap_or_default();
    if octets > RECORD_CONTENT_OCTETS_MAX + EXPANSION_OCTETS_MAX {
        return Err(crate::codec::Malformed);
    }
    let ciphertext = reader.take(octets)?;
    Ok((Unified { header, connection_id, ciphertext }, reader.rest()))
}

/// Writes the header of a record of `octets` octets, its number in clear. Returns where the number stands.
pub(crate) fn put_header(
    out: &mut Vec<u8>,
    form: Form,
    connection_id: &[u8],
    epoch: u64,
    sequence: u64,
    octets: usize,
) -> std::ops::Range<usize> {
    let [.., epoch_low] = epoch.to_be_bytes();
    let mut first = FIXED | epoch_low & EPOCH;
    for (flag, set) in
        [(CONNECTION_ID, !connection_id.is_empty()), (LONG_SEQUENCE, form.long_sequence), (LENGTH, form.length)]
    {
        if set {
            first |= flag;
        }
    }
    out.push(first);
    out.extend_from_slice(connection_id);
    let start = out.len();
    let [.., high, low] = sequence.to_be_bytes();
    if form.long_sequence {
        out.push(high);
    }
    out.push(low);
    let end = out.len();
    if form.length {
        debug_assert!(octets <= usize::from(u16::MAX));
        put_u16(out, u16::try_from(octets).unwrap_or(u16::MAX));
    }
    start..end
}

/// The number with these low bits that is nearest to the `expected` one.
pub(crate) fn reconstruct(expected: u64, low: u64, bits: u32) -> u64 {
    let window = 1_u64 << bits;
    let half = window / 2;
    let candidate = expected & !(window - 1) | low;
    if candidate + half <= expected && candidate + window < SEQUENCE_END {
        candidate + window
    } else if candidate > expected + half && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever overtook it or was lost before it, within half of what the bits tell apart.
        #[test]
        fn a_number_is_found_again_from_its_low_bits(
            expected in prop_oneof![0..1_000_u64, 0..SEQUENCE_END, SEQUENCE_END - 1_000..SEQUENCE_END],
            ahead in -127_i64..=128,
            far in -32_767_i64..=32_768,
        ) {
            for (distance, bits) in [(ahead, 8), (far, 16)] {
                let Some(sequence) = expected.checked_add_signed(distance).filter(|number| *number < SEQUENCE_END) else {
                    continue;
                };
                prop_assert_eq!(reconstruct(expected, sequence & ((1 << bits) - 1), bits), sequence);
            }
        }

        /// A header is read as it was written, in each form.
        #[test]
        fn a_header_is_read_as_it_was_written(
            long_sequence: bool,
            length: bool,
            id in prop::collection::vec(any::<u8>(), 0..33),
            epoch: u64,
            sequence in 0..SEQUENCE_END,
            body in prop::collection::vec(any::<u8>(), 0..40),
            mask: [u8; 2],
        ) {
            let form = Form { long_sequence, length };
            let mut out = Vec::new();
            let place = put_header(&mut out, form, &id, epoch, sequence, body.len());
            prop_assert_eq!(out.len(), form.octets(id.len()));
            let clear = out.clone();
            for (octet, mask) in out.iter_mut().skip(place.start).take(place.len()).zip(mask) {
                *octet ^= mask;
            }
            out.extend_from_slice(&body);
            if length {
                out.extend_from_slice(b"next");
            }
            let (record, rest) = split(&out, id.len()).unwrap();
            prop_assert_eq!(u64::from(record.epoch_bits()), epoch & 3);
            prop_assert_eq!(record.connection_id.unwrap_or_default(), id.as_slice());
            prop_assert_eq!(record.ciphertext, body.as_slice());
            prop_assert_eq!(rest, if length { &b"next"[..] } else { &[] });
            let (header, low, bits) = record.unmasked(mask);
            prop_assert_eq!(header, clear);
            prop_assert_eq!(bits, if long_sequence { 16 } else { 8 });
            prop_assert_eq!(low, sequence & ((1 << bits) - 1));
        }

        #[test]
        fn anything_comes_apart_or_not(datagram in prop::collection::vec(any::<u8>(), 0..60), octets in 0_usize..33) {
            if let Some((record, rest)) = split(&datagram, octets) {
                prop_assert!(is_unified(&datagram));
                prop_assert!(record.ciphertext.len() + rest.len() < datagram.len());
            }
        }
    }
}
