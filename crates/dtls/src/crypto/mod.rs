//! What is taken from reviewed crates: `aws-lc-rs`, and `ccm` over `aes`, which the former lacks.

pub(crate) mod aead;
#[cfg(test)]
mod bad_inputs;
pub(crate) mod exchange;
pub(crate) mod hkdf;
pub(crate) mod mask;
pub(crate) mod prf;

use subtle::ConstantTimeEq;

use crate::error::Error;

/// Fills `octets` from the system's source.
pub(crate) fn random(octets: &mut [u8]) -> Result<(), Error> {
    aws_lc_rs::rand::fill(octets).map_err(|_| Error::Random)
}

/// Compares in time that depends on the lengths only.
pub(crate) fn equal(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}
