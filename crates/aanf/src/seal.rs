//! K_AKMA at rest: in clear inside a directory of mode 0700, or sealed with AES-256-GCM under a key from a file.
//!
//! ```text
//! clear    00 | K_AKMA (32)
//! sealed   01 | nonce (12) | ciphertext (32) | tag (16)      additional data: UE ID 00 A-KID
//! ```
//! A random nonce is good for 2^32 registrations under one key (NIST SP 800-38D clause 8.3).

use std::path::Path;

use akma::{AKid, KAkma, UeId};
use openssl::rand::rand_bytes;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use zeroize::Zeroizing;

use crate::error::AanfError;

/// Seals and opens keys. Without a storage key it passes them through, marked as clear.
pub(crate) struct Sealer(Option<Zeroizing<[u8; KEY_OCTETS]>>);

impl Sealer {
    /// Reads the storage key, if one is configured.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, AanfError> {
        let Some(file) = file else { return Ok(Self(None)) };
        let text = std::fs::read_to_string(file)
            .map(Zeroizing::new)
            .map_err(|error| AanfError::StorageKey(format!("cannot read {}: {error}", file.display())))?;
        let mut key = Zeroizing::new([0; KEY_OCTETS]);
        hex::decode_to_slice(text.trim(), key.as_mut_slice())
            .map_err(|_| AanfError::StorageKey(format!("{} does not hold 64 hexadecimal digits", file.display())))?;
        Ok(Self(Some(key)))
    }

    /// The stored form of `k_akma`, bound to whose it is.
    pub(crate) fn seal(&self, k_akma: &KAkma, ue_id: &UeId, a_kid: &AKid) -> Result<Vec<u8>, AanfError> {
        let Some(key) = &self.0 else {
            return Ok([&[CLEAR], k_akma.expose().as_slice()].concat());
        };
        let failed = |_| AanfError::StorageKey("the cipher failed".to_owned());
        let (mut nonce, mut tag) = ([0; NONCE_OCTETS], [0; TAG_OCTETS]);
        rand_bytes(&mut nonce).map_err(failed)?;
        let owner = owner(ue_id, a_kid);
        let ciphertext =
            encrypt_aead(Cipher::aes_256_gcm(), key.as_slice(), Some(&nonce), &owner, k_akma.expose(), &mut tag)
                .map_err(failed)?;
        Ok([&[SEALED], nonce.as_slice(), &ciphertext, &tag].concat())
    }

    /// The key in a stored form. A clear one is read even when there is a storage key, so that one can be introduced.
    pub(crate) fn unseal(&self, stored: &[u8], ue_id: &UeId, a_kid: &AKid) -> Result<KAkma, AanfError> {
        match stored.split_first() {
            Some((&CLEAR, key)) => key.try_into().map(KAkma::from_bytes).map_err(|_| AanfError::Corrupt),
            Some((&SEALED, sealed)) => {
                let key = self.0.as_ref().ok_or_else(wrong_key)?;
                let (nonce, rest) = sealed.split_at_checked(NONCE_OCTETS).ok_or(AanfError::Corrupt)?;
                let (ciphertext, tag) = rest.split_last_chunk::<TAG_OCTETS>().ok_or(AanfError::Corrupt)?;
                let owner = owner(ue_id, a_kid);
                let plain = decrypt_aead(Cipher::aes_256_gcm(), key.as_slice(), Some(nonce), &owner, ciphertext, tag)
                    .map(Zeroizing::new)
                    .map_err(|_| wrong_key())?;
                plain.as_slice().try_into().map(KAkma::from_bytes).map_err(|_| AanfError::Corrupt)
            }
            _ => Err(AanfError::Corrupt),
        }
    }
}

/// No UE ID holds a zero octet.
fn owner(ue_id: &UeId, a_kid: &AKid) -> Vec<u8> {
    [ue_id.as_str().as_bytes(), &[0], a_kid.as_str().as_bytes()].concat()
}

fn wrong_key() -> AanfError {
    AanfError::StorageKey("not the key that the state was written under".to_owned())
}

const CLEAR: u8 = 0;
const SEALED: u8 = 1;
const KEY_OCTETS: usize = 32;
const NONCE_OCTETS: usize = 12;
const TAG_OCTETS: usize = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn sealer(octet: u8) -> Sealer {
        Sealer(Some(Zeroizing::new([octet; KEY_OCTETS])))
    }

    fn owner() -> (KAkma, UeId, AKid) {
        (KAkma::from_bytes([7; 32]), "imsi-001010000000001".parse().unwrap(), "0.a@example.com".parse().unwrap())
    }

    #[test]
    fn a_sealed_key_comes_back_only_under_its_storage_key_and_for_its_owner() {
        let (key, ue_id, a_kid) = owner();
        let stored = sealer(1).seal(&key, &ue_id, &a_kid).unwrap();
        assert!(!stored.windows(8).any(|window| window == [7; 8]), "the key shows");
        assert_eq!(sealer(1).unseal(&stored, &ue_id, &a_kid).unwrap(), key);
        assert!(sealer(2).unseal(&stored, &ue_id, &a_kid).is_err());
        assert!(Sealer(None).unseal(&stored, &ue_id, &a_kid).is_err());
        assert!(sealer(1).unseal(&stored, &"imsi-001010000000002".parse().unwrap(), &a_kid).is_err());
    }

    #[test]
    fn a_changed_octet_is_noticed() {
        let (key, ue_id, a_kid) = owner();
        let stored = sealer(1).seal(&key, &ue_id, &a_kid).unwrap();
        for index in 0..stored.len() {
            let mut changed = stored.clone();
            changed[index] ^= 2;
            assert!(sealer(1).unseal(&changed, &ue_id, &a_kid).is_err(), "octet {index}");
        }
    }

    #[test]
    fn keys_stored_in_clear_stay_readable_when_a_storage_key_is_introduced() {
        let (key, ue_id, a_kid) = owner();
        let stored = Sealer(None).seal(&key, &ue_id, &a_kid).unwrap();
        assert_eq!(sealer(1).unseal(&stored, &ue_id, &a_kid).unwrap(), key);
    }

    #[test]
    fn a_storage_key_file_must_hold_a_whole_key() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        assert!(Sealer::open(Some(&file)).is_err(), "missing");
        std::fs::write(&file, "00ff").unwrap();
        assert!(Sealer::open(Some(&file)).is_err(), "short");
        std::fs::write(&file, format!("{}\n", "0f".repeat(32))).unwrap();
        assert!(Sealer::open(Some(&file)).is_ok());
    }
}
