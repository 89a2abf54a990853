//! Feature negotiation (TS 29.500 clause 6.6): `suppFeat` of requests and answers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Optional features that one side supports (TS 29.571 clause 5.2.2, SupportedFeatures): hexadecimal digits, the last
/// of which holds features 1 to 4, feature 1 in its lowest bit.
///
/// Features above 128 are not remembered: no API here has so many, and what is not known is not supported.
///
/// ```
/// use sbi::SupportedFeatures;
/// let theirs: SupportedFeatures = "05".parse().unwrap();
/// assert!(theirs.has(1) && !theirs.has(2) && theirs.has(3));
/// assert_eq!(theirs.common(SupportedFeatures::of(&[2, 3])).to_string(), "4");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SupportedFeatures(u128);

impl SupportedFeatures {
    /// The set of these features, each 1 to 128; others are left out.
    #[must_use]
    pub const fn of(features: &[u32]) -> Self {
        let (mut bits, mut rest) = (0, features);
        while let [feature, after @ ..] = rest {
            bits |= bit(*feature);
            rest = after;
        }
        Self(bits)
    }

    /// Whether `feature`, counted from 1, is among them.
    #[must_use]
    pub const fn has(self, feature: u32) -> bool {
        self.0 & bit(feature) != 0
    }

    /// Those that both sides support, which is what an answer names.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

const fn bit(feature: u32) -> u128 {
    match feature {
        1..=128 => 1 << (feature - 1),
        _ => 0,
    }
}

impl FromStr for SupportedFeatures {
    type Err = InvalidFeatures;

    fn from_str(text: &str) -> Result<Self, InvalidFeatures> {
        if !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(InvalidFeatures);
        }
        let known = text.get(text.len().saturating_sub(32)..).unwrap_or_default();
        if known.is_empty() {
            return Ok(Self(0));
        }
        u128::from_str_radix(known, 16).map(Self).map_err(|_| InvalidFeatures)
    }
}

impl TryFrom<String> for SupportedFeatures {
    type Error = InvalidFeatures;

    fn try_from(text: String) -> Result<Self, InvalidFeatures> {
        text.parse()
    }
}

impl From<SupportedFeatures> for String {
    fn from(features: SupportedFeatures) -> Self {
        features.to_string()
    }
}

impl fmt::Display for SupportedFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The text is not hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a bitmask in hexadecimal digits")]
pub struct InvalidFeatures;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn features_are_counted_from_the_last_digit_and_unknown_ones_are_forgotten() {
        let features: SupportedFeatures = format!("F{}1", "0".repeat(40)).parse().unwrap();
        assert_eq!(features, SupportedFeatures::of(&[1]));
        assert_eq!("".parse(), Ok(SupportedFeatures::default()));
        assert!(SupportedFeatures::of(&[0, 129]).has(1) == SupportedFeatures::default().has(129));
        for wrong in ["0x1", "-1", "+1", " 1", "g"] {
            assert_eq!(wrong.parse::<SupportedFeatures>(), Err(InvalidFeatures), "{wrong:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_read_is_written_and_read_back_the_same(text in "[0-9a-fA-F]{0,40}|.{0,8}") {
            if let Ok(features) = text.parse::<SupportedFeatures>() {
                prop_assert_eq!(features.to_string().parse(), Ok(features));
                prop_assert_eq!(features.common(features), features);
            }
        }
    }
}
