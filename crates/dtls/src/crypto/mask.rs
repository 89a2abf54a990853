//! The masks that hide record numbers (RFC 9147 4.2.3), which are those of QUIC's header protection (RFC 9001 5.4).

use aws_lc_rs::aead::quic::{AES_128, CHACHA20, HeaderProtectionKey};

use crate::crypto::aead::Aead;

/// Octets of ciphertext that a mask is made of.
pub(crate) const SAMPLE_OCTETS: usize = 16;

/// A key made ready for masks.
pub(crate) struct MaskKey(HeaderProtectionKey);

impl MaskKey {
    /// `None` if the key has another length than the AEAD's.
    pub(crate) fn new(aead: Aead, key: &[u8]) -> Option<Self> {
        let algorithm = match aead {
            Aead::Chacha20Poly1305 => &CHACHA20,
            Aead::Aes128Gcm | Aead::Aes128Ccm | Aead::Aes128Ccm8 => &AES_128,
        };
        HeaderProtectionKey::new(algorithm, key).ok().map(Self)
    }

    /// The mask's first two octets, of which a record number has one or two. `None` if the ciphertext is shorter than a
    /// sample.
    pub(crate) fn mask(&self, ciphertext: &[u8]) -> Option<[u8; 2]> {
        let sample = ciphertext.get(..SAMPLE_OCTETS)?;
        let [first, second, ..] = self.0.new_mask(sample).ok()?;
        Some([first, second])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// RFC 9001 A.2 (AES) and A.5 (ChaCha20): the same masks, made of the same samples.
    #[test]
    fn the_masks_of_rfc_9001_hold() {
        let cases = [
            (Aead::Aes128Gcm, "9f50449e04a0e810283a1e9933adedd2", "d1b1c98dd7689fb8ec11d242b123dc9b", "437b"),
            (
                Aead::Chacha20Poly1305,
                "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
                "5e5cd55c41f69080575d7999c25a5bfb",
                "aefe",
            ),
        ];
        for (aead, key, sample, mask) in cases {
            let key = MaskKey::new(aead, &hex::decode(key).unwrap()).unwrap();
            let sample = hex::decode(sample).unwrap();
            assert_eq!(hex::encode(key.mask(&sample).unwrap()), mask);
            assert_eq!(key.mask(sample.get(..15).unwrap()), None);
        }
    }
}
