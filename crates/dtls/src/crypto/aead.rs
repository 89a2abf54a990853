//! The AEADs of the suites, in one form: a key, a nonce of 12 octets, data in place.

use aes::Aes128;
use aws_lc_rs::aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U8, U12, U16};

/// Octets of every nonce here.
pub(crate) const NONCE_OCTETS: usize = 12;

/// Which AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aead {
    Aes128Gcm,
    Aes128Ccm,
    Aes128Ccm8,
    Chacha20Poly1305,
}

impl Aead {
    pub(crate) const fn key_octets(self) -> usize {
        match self {
            Self::Chacha20Poly1305 => 32,
            _ => 16,
        }
    }

    pub(crate) const fn tag_octets(self) -> usize {
        match self {
            Self::Aes128Ccm8 => 8,
            _ => 16,
        }
    }

    /// Octets of the nonce that the key schedule of (D)TLS 1.2 gives; the others are written in each record.
    pub(crate) const fn fixed_iv_octets(self) -> usize {
        match self {
            Self::Chacha20Poly1305 => 12,
            _ => 4,
        }
    }

    /// Octets of the nonce written in each record of (D)TLS 1.2.
    pub(crate) const fn explicit_nonce_octets(self) -> usize {
        NONCE_OCTETS - self.fixed_iv_octets()
    }

    /// Records that one key protects at most: RFC 9147 4.5.3, which has them for full-size records.
    pub(crate) const fn records_max(self) -> u64 {
        match self {
            Self::Aes128Gcm => 23_726_566, // 2^24.5
            Self::Aes128Ccm | Self::Aes128Ccm8 => 1 << 23,
            Self::Chacha20Poly1305 => (1 << 48) - 1,
        }
    }

    /// Records that may fail to authenticate with one key: RFC 9147 4.5.3. It has no value for CCM_8, whose tag is
    /// guessed with a probability of 2^-64 each: 2^20 leave 2^-44.
    pub(crate) const fn unauthentic_max(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Chacha20Poly1305 => 1 << 36,
            Self::Aes128Ccm => 11_863_283, // 2^23.5
            Self::Aes128Ccm8 => 1 << 20,
        }
    }
}

/// A key made ready. The schedules inside are wiped when dropped by the crates that made them.
pub(crate) enum AeadKey {
    AwsLc(LessSafeKey),
    Ccm(Box<ccm::Ccm<Aes128, U16, U12>>),
    Ccm8(Box<ccm::Ccm<Aes128, U8, U12>>),
}

impl AeadKey {
    /// `None` if the key has another length than the AEAD's.
    pub(crate) fn new(aead: Aead, key: &[u8]) -> Option<Self> {
        Some(match aead {
            Aead::Aes128Gcm => Self::AwsLc(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).ok()?)),
            Aead::Chacha20Poly1305 => Self::AwsLc(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?)),
            Aead::Aes128Ccm => Self::Ccm(Box::new(ccm::Ccm::new_from_slice(key).ok()?)),
            Aead::Aes128Ccm8 => Self::Ccm8(Box::new(ccm::Ccm::new_from_slice(key).ok()?)),
        })
    }

    /// Encrypts `out` from `from` on in place and appends the tag.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_OCTETS], aad: &[u8], out: &mut Vec<u8>, from: usize) -> Option<()> {
        let data = out.get_mut(from..)?;
        match self {
            Self::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), data).ok()?;
                out.extend_from_slice(tag.as_ref());
            }
            Self::Ccm(key) => {
                let tag = key.encrypt_inout_detached(&nonce.into(), aad, data.into()).ok()?;
                out.extend_from_slice(&tag);
            }
            Self::Ccm8(key) => {
                let tag = key.encrypt_inout_detached(&nonce.into(), aad, data.into()).ok()?;
                out.extend_from_slice(&tag);
            }
        }
        Some(())
    }

    /// Checks and decrypts ciphertext and tag in place; leaves the plaintext. `None` if they are not authentic.
    pub(crate) fn open(&self, nonce: [u8; NONCE_OCTETS], aad: &[u8], data: &mut Vec<u8>) -> Option<()> {
        let octets = match self {
            Self::AwsLc(key) => {
                key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data).ok()?.len()
            }
            Self::Ccm(key) => {
                let (ciphertext, tag) = data.split_last_chunk_mut::<16>()?;
                key.decrypt_inout_detached(&nonce.into(), aad, (&mut *ciphertext).into(), &(*tag).into()).ok()?;
                ciphertext.len()
            }
            Self::Ccm8(key) => {
                let (ciphertext, tag) = data.split_last_chunk_mut::<8>()?;
                key.decrypt_inout_detached(&nonce.into(), aad, (&mut *ciphertext).into(), &(*tag).into()).ok()?;
                ciphertext.len()
            }
        };
        data.truncate(octets);
        Some(())
    }
}
