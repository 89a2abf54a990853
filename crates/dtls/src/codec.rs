//! The presentation language of RFC 5246 4: reading that cannot run over, and writing.

/// The input ends early or a length is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) type Read<T> = Result<T, Malformed>;

/// What is still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    pub(crate) fn take(&mut self, octets: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(octets).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u24(&mut self) -> Read<u32> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_be_bytes([0, a, b, c]))
    }

    pub(crate) fn u48(&mut self) -> Read<u64> {
        let [a, b, c, d, e, f] = self.array()?;
        Ok(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// What [`put_number`] wrote.
    pub(crate) fn number(&mut self) -> Read<u64> {
        let first = self.u8()?;
        let octets = match first >> 6 {
            0 => 0,
            1 => 1,
            2 => 3,
            _ => 6,
        };
        let more = self.take(octets)?;
        Ok(more.iter().fold(u64::from(first & 0x3f), |number, octet| number << 8 | u64::from(*octet)))
    }

    /// A vector with a length of one octet.
    pub(crate) fn vector8(&mut self) -> Read<&'a [u8]> {
        let octets = self.u8()?;
        self.take(usize::from(octets))
    }

    /// A vector with a length of two octets.
    pub(crate) fn vector16(&mut self) -> Read<&'a [u8]> {
        let octets = self.u16()?;
        self.take(usize::from(octets))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Read<()> {
        if self.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// The low 24 bits.
pub(crate) fn put_u24(out: &mut Vec<u8>, value: u32) {
    let [_, a, b, c] = value.to_be_bytes();
    out.extend_from_slice(&[a, b, c]);
}

/// The low 48 bits.
pub(crate) fn put_u48(out: &mut Vec<u8>, value: u64) {
    let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
    out.extend_from_slice(&[a, b, c, d, e, f]);
}

/// A number below 2^54, in 1, 2, 4 or 7 octets, of which the first two bits tell. No form of a standard's.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u64) {
    debug_assert!(number < 1 << 54);
    let (bits, octets): (u8, usize) = match number {
        0..0x40 => (0, 1),
        0x40..0x4000 => (1, 2),
        0x4000..0x4000_0000 => (2, 4),
        _ => (3, 7),
    };
    let start = out.len();
    out.extend(number.to_be_bytes().into_iter().skip(8 - octets));
    if let Some(first) = out.get_mut(start) {
        *first |= bits << 6;
    }
}

/// A vector with a length of one octet; `octets` has at most 255, which every caller's limit sees to.
pub(crate) fn put_vector8(out: &mut Vec<u8>, octets: &[u8]) {
    debug_assert!(octets.len() <= usize::from(u8::MAX));
    out.push(u8::try_from(octets.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(octets);
}

/// A vector with a length of two octets; `octets` has at most 65,535, which every caller's limit sees to.
pub(crate) fn put_vector16(out: &mut Vec<u8>, octets: &[u8]) {
    debug_assert!(octets.len() <= usize::from(u16::MAX));
    put_u16(out, u16::try_from(octets.len()).unwrap_or(u16::MAX));
    out.extend_from_slice(octets);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written_and_is_as_short_as_it_can_be(bits in 0_u32..54, number: u64) {
            let number = number & ((1 << bits) - 1);
            let mut out = Vec::new();
            put_number(&mut out, number);
            prop_assert_eq!(out.len(), match bits_of(number) { 0..=6 => 1, 7..=14 => 2, 15..=30 => 4, _ => 7 });
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number(), Ok(number));
            prop_assert!(reader.is_empty());
            out.pop();
            prop_assert_eq!(Reader::new(&out).number(), Err(Malformed));
        }
    }

    fn bits_of(number: u64) -> u32 {
        64 - number.leading_zeros()
    }
}
