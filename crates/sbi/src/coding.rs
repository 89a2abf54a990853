//! How keys, octets and times are written in JSON: hexadecimal (TS 29.503, 29.509, 29.535), base64, RFC 3339.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A key of `akma` that travels as hexadecimal digits.
pub(crate) trait HexKey: Sized {
    fn from_digits(text: &str) -> Result<Self, akma::Error>;
    fn to_digits(&self) -> Zeroizing<String>;
}

macro_rules! hex_keys {
    ($($key:ident),*) => {$(
        impl HexKey for akma::$key {
            fn from_digits(text: &str) -> Result<Self, akma::Error> {
                Self::from_hex(text)
            }

            fn to_digits(&self) -> Zeroizing<String> {
                self.to_hex()
            }
        }
    )*};
}

hex_keys!(KAkma, KAf, KAusf, KSeaf, ResStar, HresStar, CkPrime, IkPrime, Msk, Res);

/// `#[serde(with = "hex_key")]` for a key.
pub(crate) mod hex_key {
    use super::*;

    pub(crate) fn serialize<K: HexKey, S: Serializer>(key: &K, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&key.to_digits())
    }

    pub(crate) fn deserialize<'de, K: HexKey, D: Deserializer<'de>>(deserializer: D) -> Result<K, D::Error> {
        // Borrowed from the body in almost every case, so no copy of the key is left behind.
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let key = K::from_digits(&text).map_err(serde::de::Error::custom);
        if let Cow::Owned(mut text) = text {
            text.zeroize();
        }
        key
    }
}

/// `#[serde(default, with = "hex_key_option")]` for a key that may be absent or null.
pub(crate) mod hex_key_option {
    use super::*;

    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Wrapped<K: HexKey>(#[serde(with = "hex_key", bound(deserialize = "K: HexKey"))] K);

    pub(crate) fn serialize<K: HexKey, S: Serializer>(key: &Option<K>, serializer: S) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => serializer.serialize_str(&key.to_digits()),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, K: HexKey, D: Deserializer<'de>>(deserializer: D) -> Result<Option<K>, D::Error> {
        Ok(Option::<Wrapped<K>>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

/// `#[serde(with = "base64_nullable")]` for octets that may be null but must be there (TS 29.509 EapPayload).
pub(crate) mod base64_nullable {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(octets: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        octets.as_ref().map(|octets| STANDARD.encode(octets)).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<Cow<'de, str>>::deserialize(deserializer)?
            .map(|text| STANDARD.decode(text.as_bytes()).map_err(|_| serde::de::Error::custom("not base64")))
            .transpose()
    }
}

/// `#[serde(with = "base64_octets")]` for octets (TS 29.122 Bytes).
pub(crate) mod base64_octets {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(octets))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// Exactly `N` octets, written as `2 N` hexadecimal digits: RAND, AUTN, AUTS. Wiped when dropped, not printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct HexOctets<const N: usize>([u8; N]);

impl<const N: usize> HexOctets<N> {
    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> From<[u8; N]> for HexOctets<N> {
    fn from(octets: [u8; N]) -> Self {
        Self(octets)
    }
}

impl<const N: usize> fmt::Debug for HexOctets<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HexOctets<{N}>")
    }
}

impl<const N: usize> Serialize for HexOctets<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(self.0)))
    }
}

impl<'de, const N: usize> Deserialize<'de> for HexOctets<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let mut octets = [0; N];
        hex::decode_to_slice(text.as_bytes(), &mut octets)
            .map_err(|_| serde::de::Error::custom("not hexadecimal of the right length"))?;
        Ok(Self(octets))
    }
}

/// The resource `path`, which begins with `/`, of the API root `root`, with or without a trailing `/`.
#[must_use]
pub fn resource(root: &str, path: &str) -> String {
    format!("{}{path}", root.trim_end_matches('/'))
}

/// `text` as one segment of a path: everything but unreserved characters is percent-encoded (RFC 3986).
#[must_use]
pub fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'~' | b'.') {
            segment.push(char::from(octet));
        } else {
            segment.push_str(&format!("%{octet:02X}"));
        }
    }
    // "." and ".." would be taken away as dot segments, by us or by anything in between.
    match segment.as_str() {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => segment,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn octets_travel_as_hexadecimal_of_exactly_their_length() {
        let octets: HexOctets<2> = serde_json::from_str("\"a0FF\"").unwrap();
        assert_eq!(octets.as_bytes(), &[0xA0, 0xFF]);
        assert_eq!(serde_json::to_string(&octets).unwrap(), "\"a0ff\"");
        for wrong in ["\"a0f\"", "\"a0ff00\"", "\"a0fg\"", "\"\"", "7", "null"] {
            assert!(serde_json::from_str::<HexOctets<2>>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_segment_cannot_leave_its_place() {
        assert_eq!(path_segment("imsi-001010000000001"), "imsi-001010000000001");
        assert_eq!(path_segment("../a?b#c%"), "..%2Fa%3Fb%23c%25");
        assert_eq!(path_segment(".."), "%2E%2E");
    }
}
