//! The generic key derivation function of TS 33.220 B.2.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use unicode_normalization::{UnicodeNormalization, is_nfkc};
use zeroize::Zeroizing;

use crate::Error;

/// The input S of the generic key derivation function: FC, then each parameter followed by its length.
///
/// The named derivations of this crate are built on it. It is public for those of other clauses that share the
/// function, such as K_gNB.
#[derive(Clone)]
pub struct KdfInput(Zeroizing<Vec<u8>>);

impl KdfInput {
    /// Starts S with the function code.
    pub fn new(fc: u8) -> Self {
        Self(Zeroizing::new(vec![fc]))
    }

    /// Adds P and L: the octets, then their count in two octets, most significant first.
    ///
    /// # Errors
    /// [`Error::KdfParameterTooLong`] beyond 65535 octets.
    pub fn parameter(mut self, octets: &[u8]) -> Result<Self, Error> {
        let length = u16::try_from(octets.len()).map_err(|_| Error::KdfParameterTooLong)?;
        self.0.extend_from_slice(octets);
        self.0.extend_from_slice(&length.to_be_bytes());
        Ok(self)
    }

    /// S as built so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// HMAC-SHA-256(key, S), all 32 octets.
    pub fn derive(&self, key: &[u8]) -> Zeroizing<[u8; 32]> {
        hmac_sha_256(key, &[&self.0])
    }
}

/// Derives with parameters whose types already bound their length.
pub(crate) fn derive(key: &[u8], fc: u8, parameters: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let input = parameters
        .iter()
        .try_fold(KdfInput::new(fc), |input, parameter| input.parameter(parameter))
        .expect("identities, names and RES are bounded far below 65535 octets by their types");
    input.derive(key)
}

/// HMAC-SHA-256 over the concatenation of the parts.
pub(crate) fn hmac_sha_256(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// A character string as key derivation parameter: UTF-8 after NFKC normalisation, TS 33.220 B.2.1.2.
pub(crate) fn string_parameter(text: &str) -> Cow<'_, str> {
    if is_nfkc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfkc().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_enter_the_derivation_normalised() {
        // U+FB01 is a ligature that NFKC takes apart.
        assert_eq!(string_parameter("\u{fb01}"), "fi");
        assert_eq!(string_parameter("001010000000001"), "001010000000001");
    }

    #[test]
    fn a_parameter_longer_than_its_length_field_is_refused() {
        let longest = usize::from(u16::MAX);
        let parameter = |octets| KdfInput::new(0x80).parameter(&vec![0; octets]);
        assert!(matches!(parameter(longest + 1), Err(Error::KdfParameterTooLong)));
        assert!(parameter(longest).is_ok());
    }
}
