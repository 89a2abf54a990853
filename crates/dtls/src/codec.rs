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
