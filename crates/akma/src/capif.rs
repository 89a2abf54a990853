//! The key of CAPIF-2e with TLS-PSK, TS 33.122 Annex A.

use crate::kdf::string_parameter;
use crate::{AefPsk, Error, KdfInput};

const FC_AEF_PSK: u8 = 0x7A;

/// AEF_PSK, TS 33.122 A.1: KDF(master secret, FC 0x7A, interface information, session ID).
///
/// The master secret and the session ID are those of the TLS 1.2 session of CAPIF-1e over which the security context was
/// agreed upon. Which text the interface information is, the standard leaves open; both ends must take the same.
///
/// # Errors
/// [`Error::KdfParameterTooLong`] when the interface information is longer than 65,535 octets.
pub fn aef_psk(master_secret: &[u8; 48], interface_information: &str, session_id: &[u8]) -> Result<AefPsk, Error> {
    let interface = string_parameter(interface_information);
    let input = KdfInput::new(FC_AEF_PSK).parameter(interface.as_bytes())?.parameter(session_id)?;
    Ok(AefPsk::from_bytes(*input.derive(master_secret)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Own computation: HMAC-SHA-256 by the openssl command line over
    /// `7a || "nef.example:443" || 000f || 20212223 || 0004`, key 00 01 .. 2f. No vector is published.
    #[test]
    fn the_key_is_the_generic_derivation_over_interface_and_session() {
        let mut master_secret = [0; 48];
        for (octet, value) in master_secret.iter_mut().zip(0..) {
            *octet = value;
        }
        let key = aef_psk(&master_secret, "nef.example:443", &[0x20, 0x21, 0x22, 0x23]).unwrap();
        assert_eq!(*key.to_hex(), "dcd913f08c1b4572367d2ba25f983e7b7fe7048fb6a6f02f1e808b856e4c2fcd");
    }

    #[test]
    fn another_interface_session_or_secret_makes_another_key() {
        let key = |secret: u8, interface, id: &[u8]| aef_psk(&[secret; 48], interface, id).unwrap();
        let one = key(1, "a", &[1]);
        assert_ne!(one, key(2, "a", &[1]));
        assert_ne!(one, key(1, "b", &[1]));
        assert_ne!(one, key(1, "a", &[2]));
        assert!(aef_psk(&[0; 48], &"a".repeat(65_536), &[1]).is_err());
    }
}
