//! Sequence numbers: SQN, its generation, and the USIM's window (TS 33.102 6.3 and Annex C), and the AMF.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::identity::serde_as_text;

/// A sequence number SQN: 48 bits, of which the upper 43 are SEQ and the lower 5 the index IND
/// (TS 33.102 C.1.1.1, C.3.2).
///
/// As text: twelve hexadecimal digits (`sqn` of TS 29.505).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sqn(u64);

impl Sqn {
    /// How many bits the index has. Both sides of one subscription must agree.
    pub const IND_BITS: u32 = 5;
    /// How many values the index has, and so how many entries the USIM's array.
    pub const IND_COUNT: usize = 1 << Self::IND_BITS;
    /// The highest SQN.
    pub const MAX: Self = Self((1 << 48) - 1);
    /// SQN 0, where a subscription begins.
    pub const ZERO: Self = Self(0);

    /// The SQN of this number.
    ///
    /// # Errors
    /// [`Error::InvalidSqn`] beyond 48 bits.
    pub fn new(value: u64) -> Result<Self, Error> {
        if value <= Self::MAX.0 { Ok(Self(value)) } else { Err(Error::InvalidSqn) }
    }

    /// The SQN in six octets, most significant first.
    pub fn from_bytes(octets: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = octets;
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Six octets, most significant first.
    pub fn to_bytes(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// The number.
    pub fn value(self) -> u64 {
        self.0
    }

    /// SEQ, the upper 43 bits.
    pub fn seq(self) -> u64 {
        self.0 >> Self::IND_BITS
    }

    /// IND, the lower 5 bits.
    pub fn ind(self) -> usize {
        // At most 31.
        (self.0 & (Self::IND_COUNT as u64 - 1)) as usize
    }

    /// The SQN for the next vector, not based on time (TS 33.102 C.1.1.2, C.3.2): SEQ and IND each go on by one.
    ///
    /// Persist the result before the vector leaves: a vector whose SQN advance was lost is followed by one with the
    /// same SQN, which the USIM refuses.
    ///
    /// # Errors
    /// [`Error::SqnExhausted`] when SEQ would wrap, which TS 33.102 C.1.1.3 forbids.
    pub fn next(self) -> Result<Self, Error> {
        let seq = self.seq() + 1;
        let ind = (self.0 + 1) % Self::IND_COUNT as u64;
        Self::new((seq << Self::IND_BITS) | ind).map_err(|_| Error::SqnExhausted)
    }
}

impl FromStr for Sqn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut octets = [0; 6];
        hex::decode_to_slice(text, &mut octets).map_err(|_| Error::InvalidHex { octets: 6 })?;
        Ok(Self::from_bytes(octets))
    }
}

impl fmt::Display for Sqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

/// The authentication management field AMF, 16 bits (TS 33.102 6.3.2, Annex H).
///
/// As text: four hexadecimal digits (`authenticationManagementField` of TS 29.505).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amf([u8; 2]);

impl Amf {
    /// Only the separation bit set: what a 5G home network uses unless it has other plans for the field.
    pub const FIVE_G: Self = Self([0x80, 0]);
    /// All zeros: what enters MAC-S (TS 33.102 6.3.3).
    pub const ZERO: Self = Self([0, 0]);

    /// The AMF of these octets.
    pub const fn from_bytes(octets: [u8; 2]) -> Self {
        Self(octets)
    }

    /// The octets.
    pub const fn to_bytes(self) -> [u8; 2] {
        self.0
    }

    /// The separation bit, the most significant: set in vectors for E-UTRAN and 5G (TS 33.501 6.1.3, TS 33.102 H).
    pub const fn separation_bit(self) -> bool {
        let [high, _] = self.0;
        high & 0x80 != 0
    }
}

impl Default for Amf {
    fn default() -> Self {
        Self::FIVE_G
    }
}

impl FromStr for Amf {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut octets = [0; 2];
        hex::decode_to_slice(text, &mut octets).map_err(|_| Error::InvalidHex { octets: 2 })?;
        Ok(Self(octets))
    }
}

impl fmt::Display for Amf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

serde_as_text!(Sqn, Sqn::to_string);
serde_as_text!(Amf, Amf::to_string);

/// How far a received SQN may lie from the highest accepted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SqnLimits {
    /// Δ of TS 33.102 C.2.1: the furthest jump ahead, in SEQ. 2^28 as in C.3.2.
    pub delta: u64,
    /// L of TS 33.102 C.2.2: SEQ must be less than this far behind the highest one. None: only the array decides.
    pub age: Option<u64>,
}

impl Default for SqnLimits {
    fn default() -> Self {
        Self { delta: 1 << 28, age: None }
    }
}

/// The USIM's record of accepted sequence numbers: the highest SEQ for each value of IND (TS 33.102 C.2).
///
/// The array lets vectors that were handed out to different serving networks be used out of order, each once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqnWindow {
    seq: [u64; Sqn::IND_COUNT],
    highest: Sqn,
    #[serde(default)]
    limits: SqnLimits,
}

/// Why a sequence number is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SqnRefusal {
    /// Not higher than the one accepted for its index: a replay, or the home network fell behind.
    #[error("the sequence number was used before")]
    Used,
    /// Further ahead than Δ allows: the home network jumped.
    #[error("the sequence number is too far ahead")]
    TooFarAhead,
    /// Further behind than L allows: a vector kept for too long.
    #[error("the sequence number is too old")]
    TooOld,
}

impl SqnWindow {
    /// A window that accepts only numbers with a SEQ above that of `sqn_ms`, whatever their index.
    pub fn at(sqn_ms: Sqn, limits: SqnLimits) -> Self {
        Self { seq: [sqn_ms.seq(); Sqn::IND_COUNT], highest: sqn_ms, limits }
    }

    /// SQN_MS: the highest accepted number.
    pub fn highest(&self) -> Sqn {
        self.highest
    }

    /// Checks a number and, if it is fresh, records it.
    ///
    /// # Errors
    /// [`SqnRefusal`]; the window is then unchanged.
    pub fn accept(&mut self, sqn: Sqn) -> Result<(), SqnRefusal> {
        let seq_ms = self.highest.seq();
        if sqn.seq().saturating_sub(seq_ms) > self.limits.delta {
            return Err(SqnRefusal::TooFarAhead);
        }
        if self.limits.age.is_some_and(|age| seq_ms.saturating_sub(sqn.seq()) >= age) {
            return Err(SqnRefusal::TooOld);
        }
        let entry = self.seq.get_mut(sqn.ind()).ok_or(SqnRefusal::Used)?;
        if sqn.seq() <= *entry {
            return Err(SqnRefusal::Used);
        }
        *entry = sqn.seq();
        if sqn.seq() > seq_ms {
            self.highest = sqn;
        }
        Ok(())
    }
}

impl Default for SqnWindow {
    /// A new USIM: every entry zero (TS 33.102 C.2.2).
    fn default() -> Self {
        Self::at(Sqn::ZERO, SqnLimits::default())
    }
}
