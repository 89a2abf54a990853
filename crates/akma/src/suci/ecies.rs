//! ECIES as profiled by TS 33.501 C.3: key agreement, ANSI X9.63 derivation, AES-128-CTR, HMAC-SHA-256 in 8 octets.

use aes::Aes128;
use aes::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr32BE;
use p256::elliptic_curve::sec1::ToSec1Point;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::PLAINTEXT_OCTETS_MAX;
use crate::Error;
use crate::kdf::hmac_sha_256;

const MAC_OCTETS: usize = 8;

/// The scheme output of C.3.2 with a public key of `N` octets: ephemeral key, ciphertext, MAC.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct SchemeOutput<const N: usize> {
    ephemeral: [u8; N],
    ciphertext: Vec<u8>,
    mac: [u8; MAC_OCTETS],
}

impl<const N: usize> SchemeOutput<N> {
    pub(super) fn from_hex(text: &str) -> Result<Self, Error> {
        if text.len() > 2 * (N + PLAINTEXT_OCTETS_MAX + MAC_OCTETS) {
            return Err(Error::InvalidSuci("the scheme output is too long"));
        }
        let octets = hex::decode(text).map_err(|_| Error::InvalidSuci("the scheme output is not hexadecimal"))?;
        let too_short = Error::InvalidSuci("the scheme output is too short");
        let (ephemeral, rest) = octets.split_first_chunk().ok_or(too_short.clone())?;
        let (ciphertext, mac) = rest.split_last_chunk().ok_or(too_short.clone())?;
        if ciphertext.is_empty() {
            return Err(too_short);
        }
        Ok(Self { ephemeral: *ephemeral, ciphertext: ciphertext.to_vec(), mac: *mac })
    }

    pub(super) fn encrypt(shared: &[u8; 32], ephemeral: [u8; N], plaintext: &[u8]) -> Result<Self, Error> {
        if plaintext.is_empty() || plaintext.len() > PLAINTEXT_OCTETS_MAX {
            return Err(Error::SupiNotConcealable("its length is out of bounds"));
        }
        let keys = EciesKeys::derive(shared, &ephemeral);
        let mut ciphertext = plaintext.to_vec();
        keys.apply_keystream(&mut ciphertext);
        let mac = keys.mac(&ciphertext);
        Ok(Self { ephemeral, ciphertext, mac })
    }

    /// Verifies, then decrypts.
    pub(super) fn decrypt(&self, shared: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let keys = EciesKeys::derive(shared, &self.ephemeral);
        if !bool::from(keys.mac(&self.ciphertext).ct_eq(&self.mac)) {
            return Err(Error::SuciMac);
        }
        let mut plaintext = Zeroizing::new(self.ciphertext.clone());
        keys.apply_keystream(&mut plaintext);
        Ok(plaintext)
    }

    pub(super) fn ephemeral_key(&self) -> [u8; N] {
        self.ephemeral
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [self.ephemeral.as_slice(), &self.ciphertext, &self.mac].concat()
    }
}

/// The 64 octets of the X9.63 derivation: encryption key, initial counter block, MAC key.
struct EciesKeys {
    encryption: Zeroizing<[u8; 16]>,
    counter: Zeroizing<[u8; 16]>,
    mac: Zeroizing<[u8; 32]>,
}

impl EciesKeys {
    /// SharedInfo1 is the ephemeral public key as transmitted.
    fn derive(shared: &[u8; 32], ephemeral_key: &[u8]) -> Self {
        let block = |counter: u32| -> [u8; 32] {
            let hash = Sha256::new().chain_update(shared).chain_update(counter.to_be_bytes());
            hash.chain_update(ephemeral_key).finalize().into()
        };
        let first = Zeroizing::new(block(1));
        let (encryption, counter) = first.split_first_chunk().expect("a digest of 32 octets has a first 16");
        let counter = counter.first_chunk().expect("and another 16");
        Self {
            encryption: Zeroizing::new(*encryption),
            counter: Zeroizing::new(*counter),
            mac: Zeroizing::new(block(2)),
        }
    }

    fn apply_keystream(&self, octets: &mut [u8]) {
        let mut cipher = Ctr32BE::<Aes128>::new((&*self.encryption).into(), (&*self.counter).into());
        cipher.apply_keystream(octets);
    }

    /// SharedInfo2 is empty.
    fn mac(&self, ciphertext: &[u8]) -> [u8; MAC_OCTETS] {
        let tag = hmac_sha_256(self.mac.as_slice(), &[ciphertext]);
        *tag.first_chunk().expect("a tag of 32 octets has a first 8")
    }
}

/// X25519, refusing a shared secret of zeros: a peer that sends a point of small order would know every key.
pub(super) fn x25519(secret: &StaticSecret, public: &x25519_dalek::PublicKey) -> Result<Zeroizing<[u8; 32]>, Error> {
    let shared = secret.diffie_hellman(public);
    if shared.was_contributory() { Ok(Zeroizing::new(shared.to_bytes())) } else { Err(Error::InvalidCurveKey) }
}

/// ECDH on secp256r1: the shared point's x-coordinate.
pub(super) fn p256(secret: &p256::SecretKey, public: &p256::PublicKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new((*secret.diffie_hellman(public).raw_secret_bytes()).into())
}

pub(super) fn p256_secret(octets: &[u8; 32]) -> Result<p256::SecretKey, Error> {
    p256::SecretKey::from_slice(octets).map_err(|_| Error::InvalidCurveKey)
}

/// A compressed point; only that form is transmitted (C.3.4.2).
pub(super) fn compressed_point(octets: &[u8; 33]) -> Result<p256::PublicKey, Error> {
    let [2 | 3, ..] = octets else { return Err(Error::InvalidCurveKey) };
    p256::PublicKey::from_sec1_bytes(octets).map_err(|_| Error::InvalidCurveKey)
}

pub(super) fn compressed_octets(public: &p256::PublicKey) -> Result<[u8; 33], Error> {
    public.to_sec1_point(true).as_bytes().try_into().map_err(|_| Error::InvalidCurveKey)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    /// The published values on the way, which the scheme output alone would not show.
    #[test]
    fn every_intermediate_value_agrees_with_the_published_sets() {
        let fixture: serde_json::Value = serde_json::from_str(include_str!("../../tests/fixtures/suci.json")).unwrap();
        let mut exercised = 0;
        for set in fixture["vectors"].as_array().unwrap() {
            let octets = |name: &str| hex::decode(set[name].as_str().unwrap()).unwrap();
            let key = |name: &str| <[u8; 32]>::try_from(octets(name)).unwrap();
            let (shared, ephemeral) = match set["scheme"].as_str().unwrap() {
                "profile-a" => {
                    let ephemeral = StaticSecret::from(key("ephemeral_private_key"));
                    let shared = x25519(&ephemeral, &key("home_public_key").into()).unwrap();
                    let home = StaticSecret::from(key("home_private_key"));
                    assert_eq!(x25519(&home, &(&ephemeral).into()).unwrap(), shared);
                    (shared, x25519_dalek::PublicKey::from(&ephemeral).to_bytes().to_vec())
                }
                "profile-b" => {
                    let ephemeral = p256_secret(&key("ephemeral_private_key")).unwrap();
                    let home_public = octets("home_public_key").try_into().unwrap();
                    let shared = p256(&ephemeral, &compressed_point(&home_public).unwrap());
                    let home = p256_secret(&key("home_private_key")).unwrap();
                    assert_eq!(p256(&home, &ephemeral.public_key()), shared);
                    (shared, compressed_octets(&ephemeral.public_key()).unwrap().to_vec())
                }
                _ => continue,
            };
            assert_eq!(shared.to_vec(), octets("shared_secret"));
            assert_eq!(ephemeral, octets("ephemeral_public_key"));
            let keys = EciesKeys::derive(&shared, &ephemeral);
            assert_eq!(keys.encryption.to_vec(), octets("encryption_key"));
            assert_eq!(keys.counter.to_vec(), octets("initial_counter_block"));
            assert_eq!(keys.mac.to_vec(), octets("mac_key"));
            let mut text = octets("plaintext");
            keys.apply_keystream(&mut text);
            assert_eq!(text, octets("ciphertext"));
            assert_eq!(keys.mac(&text).to_vec(), octets("mac"));
            exercised += 1;
        }
        assert_eq!(exercised, 4);
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        let secret = StaticSecret::from([0x42; 32]);
        assert_eq!(x25519(&secret, &[0; 32].into()).err(), Some(Error::InvalidCurveKey));
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(x25519(&secret, &one.into()).err(), Some(Error::InvalidCurveKey));
    }

    #[test]
    fn what_is_no_point_of_p_256_is_refused() {
        let mut octets = [0xff; 33];
        for tag in [0, 2, 3, 4, 5, 0xff] {
            octets[0] = tag;
            assert_eq!(compressed_point(&octets).err(), Some(Error::InvalidCurveKey), "tag {tag}");
        }
        assert_eq!(p256_secret(&[0; 32]).err(), Some(Error::InvalidCurveKey));
        assert_eq!(p256_secret(&[0xff; 32]).err(), Some(Error::InvalidCurveKey));
    }
}
