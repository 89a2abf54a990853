//! As much CBOR (RFC 8949) as OSCORE and the `/akma` exchange need: integers, strings, short arrays and maps.
//!
//! The arrays that OSCORE builds are fixed, and what is read has five members at most, so a crate for all of CBOR would
//! bring more than it saves. Written and read is the deterministic form only (RFC 8949 4.2.1): definite lengths, each
//! head as short as it can be. Nothing here allocates by a length that it has read.

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const NULL: u8 = 0xf6;

/// Appends items to `out`.
pub(crate) struct Writer<'o>(pub(crate) &'o mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn array(&mut self, items: u64) -> &mut Self {
        self.head(ARRAY, items)
    }

    pub(crate) fn integer(&mut self, value: i64) -> &mut Self {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            // RFC 8949 3.1: -1 - n.
            Err(_) => self.head(NEGATIVE, value.unsigned_abs() - 1),
        }
    }

    pub(crate) fn bytes(&mut self, octets: &[u8]) -> &mut Self {
        self.head(BYTES, octets.len() as u64);
        self.0.extend_from_slice(octets);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.head(TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.0.push(NULL);
        self
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        match value {
            0..=23 => self.0.push(major | value as u8),
            24..=0xff => self.0.extend_from_slice(&[major | 24, value as u8]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&(value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&(value as u32).to_be_bytes());
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
        self
    }
}

/// Reads items from the front of what is left. `None` is any other item, any other form of it, or the end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array(&mut self) -> Option<u64> {
        self.expect(ARRAY)
    }

    pub(crate) fn map(&mut self) -> Option<u64> {
        self.expect(MAP)
    }

    pub(crate) fn integer(&mut self) -> Option<i64> {
        match self.head()? {
            (UNSIGNED, value) => i64::try_from(value).ok(),
            (NEGATIVE, value) => i64::try_from(value).ok().map(|value| -1 - value),
            _ => None,
        }
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.expect(BYTES)?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = self.expect(TEXT)?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    fn expect(&mut self, major: u8) -> Option<u64> {
        self.head().filter(|(found, _)| *found == major).map(|(_, value)| value)
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn head(&mut self) -> Option<(u8, u64)> {
        let (&first, rest) = self.0.split_first()?;
        let (octets, shortest) = match first & 0x1f {
            value @ 0..=23 => {
                self.0 = rest;
                return Some((first >> 5, u64::from(value)));
            }
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(octets)?;
        let value = value.iter().fold(0, |value, octet| value << 8 | u64::from(*octet));
        self.0 = rest;
        (value >= shortest).then_some((first >> 5, value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 8949 Appendix A.
    #[test]
    fn integers_are_written_and_read_as_in_the_examples_of_rfc_8949() {
        for (value, hex) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (100, "1864"),
            (1_000, "1903e8"),
            (1_000_000, "1a000f4240"),
            (1_000_000_000_000, "1b000000e8d4a51000"),
            (-1, "20"),
            (-10, "29"),
            (-100, "3863"),
            (-1_000, "3903e7"),
        ] {
            let mut out = Vec::new();
            Writer(&mut out).integer(value);
            assert_eq!(hex::encode(&out), hex);
            assert_eq!(Reader(&out).integer(), Some(value));
        }
    }

    #[test]
    fn longer_forms_than_needed_and_indefinite_lengths_are_refused() {
        for hex in ["1800", "1817", "190017", "1900ff", "1a0000ffff", "1b00000000ffffffff", "1c", "1f", "5f4100ff"] {
            let octets = hex::decode(hex).unwrap();
            assert_eq!(Reader(&octets).head(), None, "{hex}");
        }
        assert_eq!(Reader(&hex::decode("5affffffff00").unwrap()).bytes(), None, "a length beyond the end");
        assert_eq!(Reader(&hex::decode("62c328").unwrap()).text(), None, "text that is not UTF-8");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: i64, octets in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
            let mut out = Vec::new();
            Writer(&mut out).array(3).integer(number).bytes(&octets).text(&text);
            let mut reader = Reader(&out);
            prop_assert_eq!(reader.array(), Some(3));
            prop_assert_eq!(reader.integer(), Some(number));
            prop_assert_eq!(reader.bytes(), Some(&octets[..]));
            prop_assert_eq!(reader.text(), Some(&text[..]));
            prop_assert!(reader.is_at_end());
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader(&octets);
            while reader.head().is_some() {}
        }
    }
}
