//! Names and keys of a context, and what is made of them: derivation (RFC 8613 3.2.1), nonce (5.2), additional
//! authenticated data (5.4), and AES-CCM-16-64-128 (RFC 9053 4.2).

use std::fmt;

use aes::Aes128;
use ccm::aead::AeadInOut;
use ccm::consts::{U8, U13};
use ccm::{Ccm, KeyInit, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::cbor::Writer;
use super::error::OscoreError;
use super::limits::{ID_CONTEXT_OCTETS_MAX, KEY_ID_OCTETS_MAX, MASTER_SECRET_OCTETS_MAX, PLAINTEXT_OCTETS_MAX};
use super::option::PartialIv;

/// AES-CCM-16-64-128 in COSE (RFC 9053 4.2).
pub(crate) const ALGORITHM: i64 = 10;
pub(crate) const TAG_OCTETS: usize = 8;
const KEY_OCTETS: usize = 16;
const NONCE_OCTETS: usize = 13;
/// The version in `external_aad` (RFC 8613 5.4).
const OSCORE_VERSION: i64 = 1;

type AesCcm = Ccm<Aes128, U8, U13>;

/// What all keys of a context are derived from. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct MasterSecret(Zeroizing<Vec<u8>>);

impl MasterSecret {
    /// A secret of 1 to [`super::MASTER_SECRET_OCTETS_MAX`] octets.
    ///
    /// # Errors
    /// [`OscoreError::InvalidParameter`] for another length.
    pub fn new(octets: &[u8]) -> Result<Self, OscoreError> {
        if !(1..=MASTER_SECRET_OCTETS_MAX).contains(&octets.len()) {
            return Err(OscoreError::InvalidParameter("length of the master secret"));
        }
        Ok(Self(Zeroizing::new(octets.to_vec())))
    }

    /// The octets, for whoever keeps a context on disk.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for MasterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterSecret")
    }
}

/// A Sender ID or Recipient ID: 0 to [`super::KEY_ID_OCTETS_MAX`] octets. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    octets: [u8; KEY_ID_OCTETS_MAX],
    length: u8,
}

impl KeyId {
    /// The ID of those octets.
    ///
    /// # Errors
    /// [`OscoreError::InvalidParameter`] if there are too many.
    pub fn new(id: &[u8]) -> Result<Self, OscoreError> {
        let mut octets = [0; KEY_ID_OCTETS_MAX];
        octets.get_mut(..id.len()).ok_or(OscoreError::InvalidParameter("length of an ID"))?.copy_from_slice(id);
        Ok(Self { octets, length: id.len() as u8 })
    }

    /// Its octets.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({:02x?})", self.as_slice())
    }
}

/// An ID Context: up to [`super::ID_CONTEXT_OCTETS_MAX`] octets that tell contexts with the same IDs apart. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdContext(Box<[u8]>);

impl IdContext {
    /// The ID Context of those octets.
    ///
    /// # Errors
    /// [`OscoreError::InvalidParameter`] if there are too many.
    pub fn new(octets: &[u8]) -> Result<Self, OscoreError> {
        if octets.len() > ID_CONTEXT_OCTETS_MAX {
            return Err(OscoreError::InvalidParameter("length of the ID Context"));
        }
        Ok(Self(octets.into()))
    }

    /// Its octets.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

pub(crate) type Key = Zeroizing<[u8; KEY_OCTETS]>;
pub(crate) type Nonce = [u8; NONCE_OCTETS];

/// Derives keys and Common IV: HKDF with SHA-256, salt and secret once, then one `info` for each.
pub(crate) struct Derivation<'a> {
    hkdf: Hkdf<Sha256>,
    id_context: Option<&'a [u8]>,
}

impl<'a> Derivation<'a> {
    pub(crate) fn new(secret: &MasterSecret, salt: &[u8], id_context: Option<&'a [u8]>) -> Self {
        Self { hkdf: Hkdf::new(Some(salt), secret.expose()), id_context }
    }

    pub(crate) fn key(&self, id: &KeyId) -> Key {
        let mut key = Key::default();
        self.expand(&info(id.as_slice(), self.id_context, "Key", KEY_OCTETS), key.as_mut_slice());
        key
    }

    pub(crate) fn common_iv(&self) -> Nonce {
        let mut iv = Nonce::default();
        self.expand(&info(&[], self.id_context, "IV", NONCE_OCTETS), &mut iv);
        iv
    }

    fn expand(&self, info: &[u8], out: &mut [u8]) {
        self.hkdf.expand(info, out).expect("keys and IVs are far shorter than 255 hashes");
    }
}

/// `[id, id_context, alg_aead, type, L]`.
pub(crate) fn info(id: &[u8], id_context: Option<&[u8]>, kind: &str, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer(&mut out);
    writer.array(5).bytes(id);
    match id_context {
        Some(id_context) => writer.bytes(id_context),
        None => writer.null(),
    };
    writer.integer(ALGORITHM).text(kind).integer(length as i64);
    out
}

/// Length of the ID, the ID, the Partial IV, each with zeros in front, XOR the Common IV. `id` is of whoever chose the
/// Partial IV.
pub(crate) fn nonce(common_iv: &Nonce, id: &KeyId, partial_iv: &PartialIv) -> Nonce {
    let mut nonce = *common_iv;
    let id_padding = std::iter::repeat_n(&0, KEY_ID_OCTETS_MAX - id.as_slice().len());
    let input = std::iter::once(&id.length).chain(id_padding).chain(id.as_slice()).chain(partial_iv.padded());
    for (octet, input) in nonce.iter_mut().zip(input) {
        *octet ^= input;
    }
    nonce
}

/// `["Encrypt0", h'', external_aad]` with `external_aad = [version, [alg_aead], request_kid, request_piv, options]`.
/// There are no options of class I.
pub(crate) fn additional_data(request_kid: &KeyId, request_partial_iv: &PartialIv) -> Vec<u8> {
    let mut external = Vec::new();
    let mut writer = Writer(&mut external);
    writer.array(5).integer(OSCORE_VERSION).array(1).integer(ALGORITHM);
    writer.bytes(request_kid.as_slice()).bytes(request_partial_iv.octets()).bytes(&[]);
    let mut out = Vec::new();
    Writer(&mut out).array(3).text("Encrypt0").bytes(&[]).bytes(&external);
    out
}

/// Encrypts in place and appends the tag.
pub(crate) fn seal(key: &Key, nonce: &Nonce, additional: &[u8], text: &mut Vec<u8>) -> Result<(), OscoreError> {
    let too_large = OscoreError::MessageTooLarge { octets: text.len(), octets_max: PLAINTEXT_OCTETS_MAX };
    if text.len() > PLAINTEXT_OCTETS_MAX {
        return Err(too_large);
    }
    let tag = AesCcm::new((&**key).into())
        .encrypt_inout_detached(nonce.into(), additional, text.as_mut_slice().into())
        .map_err(|_| too_large)?;
    text.extend_from_slice(&tag);
    Ok(())
}

/// Verifies and decrypts.
pub(crate) fn open(key: &Key, nonce: &Nonce, additional: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OscoreError> {
    let (ciphertext, tag) = sealed
        .len()
        .checked_sub(TAG_OCTETS)
        .filter(|length| *length <= PLAINTEXT_OCTETS_MAX)
        .and_then(|length| sealed.split_at_checked(length))
        .ok_or(OscoreError::DecryptionFailed)?;
    let tag = Tag::<U8>::try_from(tag).map_err(|_| OscoreError::DecryptionFailed)?;
    let mut text = ciphertext.to_vec();
    AesCcm::new((&**key).into())
        .decrypt_inout_detached(nonce.into(), additional, text.as_mut_slice().into(), &tag)
        .map_err(|_| OscoreError::DecryptionFailed)?;
    Ok(text)
}
