//! Home network keys: the public one on the USIM, the private one at the UDM's SIDF.

use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::ecies::{self, SchemeOutput};
use super::{Output, Suci, SuciScheme};
use crate::{Error, Supi};

/// A home network public key with its identifier, as provisioned on the USIM (TS 31.102 4.4.11.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuciPublicKey {
    key_id: u8,
    point: Point,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Point {
    ProfileA(x25519_dalek::PublicKey),
    ProfileB(p256::PublicKey),
}

impl SuciPublicKey {
    /// The length of a profile A key, without a prefix.
    pub const PROFILE_A_OCTETS: usize = 32;
    /// The length of a profile B key, compressed.
    pub const PROFILE_B_OCTETS: usize = 33;

    /// A profile A key: an X25519 public key.
    ///
    /// # Errors
    /// [`Error::UnknownSuciKey`] for key identifier 0, which means the null scheme.
    pub fn profile_a(key_id: u8, octets: [u8; Self::PROFILE_A_OCTETS]) -> Result<Self, Error> {
        Ok(Self { key_id: check_key_id(key_id)?, point: Point::ProfileA(octets.into()) })
    }

    /// A profile B key: a compressed point of secp256r1.
    ///
    /// # Errors
    /// [`Error::InvalidCurveKey`] when the octets are no such point, [`Error::UnknownSuciKey`] for key identifier 0.
    pub fn profile_b(key_id: u8, octets: [u8; Self::PROFILE_B_OCTETS]) -> Result<Self, Error> {
        Ok(Self { key_id: check_key_id(key_id)?, point: Point::ProfileB(ecies::compressed_point(&octets)?) })
    }

    /// The key identifier, 1 to 255.
    pub fn key_id(&self) -> u8 {
        self.key_id
    }

    /// The scheme this key is for.
    pub fn scheme(&self) -> SuciScheme {
        match self.point {
            Point::ProfileA(_) => SuciScheme::ProfileA,
            Point::ProfileB(_) => SuciScheme::ProfileB,
        }
    }

    /// The octets: 32 for profile A, 33 for profile B.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.point {
            Point::ProfileA(point) => point.to_bytes().to_vec(),
            Point::ProfileB(point) => point.to_sec1_point(true).as_bytes().to_vec(),
        }
    }

    pub(super) fn encrypt(&self, ephemeral: &[u8; 32], plaintext: &[u8]) -> Result<Output, Error> {
        match &self.point {
            Point::ProfileA(home) => {
                let ephemeral = StaticSecret::from(*ephemeral);
                let public = x25519_dalek::PublicKey::from(&ephemeral).to_bytes();
                let shared = ecies::x25519(&ephemeral, home)?;
                SchemeOutput::encrypt(&shared, public, plaintext).map(Output::ProfileA)
            }
            Point::ProfileB(home) => {
                let ephemeral = ecies::p256_secret(ephemeral)?;
                let public = ecies::compressed_octets(&ephemeral.public_key())?;
                let shared = ecies::p256(&ephemeral, home);
                SchemeOutput::encrypt(&shared, public, plaintext).map(Output::ProfileB)
            }
        }
    }
}

/// A home network private key with its identifier.
#[derive(Clone)]
pub struct SuciHomeKey {
    key_id: u8,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    ProfileA(StaticSecret),
    ProfileB(p256::SecretKey),
}

impl SuciHomeKey {
    /// A profile A key: an X25519 private key.
    ///
    /// # Errors
    /// [`Error::UnknownSuciKey`] for key identifier 0, which means the null scheme.
    pub fn profile_a(key_id: u8, octets: [u8; 32]) -> Result<Self, Error> {
        Ok(Self { key_id: check_key_id(key_id)?, secret: Secret::ProfileA(StaticSecret::from(octets)) })
    }

    /// A profile B key: a secp256r1 private key, big-endian.
    ///
    /// # Errors
    /// [`Error::InvalidCurveKey`] for zero or a number beyond the group's order, [`Error::UnknownSuciKey`] for key
    /// identifier 0.
    pub fn profile_b(key_id: u8, octets: [u8; 32]) -> Result<Self, Error> {
        Ok(Self { key_id: check_key_id(key_id)?, secret: Secret::ProfileB(ecies::p256_secret(&octets)?) })
    }

    /// The key identifier, 1 to 255.
    pub fn key_id(&self) -> u8 {
        self.key_id
    }

    /// The scheme this key is for.
    pub fn scheme(&self) -> SuciScheme {
        match self.secret {
            Secret::ProfileA(_) => SuciScheme::ProfileA,
            Secret::ProfileB(_) => SuciScheme::ProfileB,
        }
    }

    /// The public key, to be provisioned on USIMs.
    pub fn public_key(&self) -> SuciPublicKey {
        let point = match &self.secret {
            Secret::ProfileA(secret) => Point::ProfileA(secret.into()),
            Secret::ProfileB(secret) => Point::ProfileB(secret.public_key()),
        };
        SuciPublicKey { key_id: self.key_id, point }
    }

    /// The private key's octets, to be kept.
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(match &self.secret {
            Secret::ProfileA(secret) => secret.to_bytes(),
            Secret::ProfileB(secret) => secret.to_bytes().into(),
        })
    }

    /// Deconceals a SUCI made for this key.
    ///
    /// # Errors
    /// [`Error::UnknownSuciKey`] when it names another key or scheme, [`Error::InvalidCurveKey`] when its ephemeral
    /// key is no point of the curve or yields a shared secret of zeros, [`Error::SuciMac`] when it was altered or made
    /// for another key, [`Error::InvalidSuci`] or [`Error::InvalidSupi`] when what it conceals is no identity.
    pub fn deconceal(&self, suci: &Suci) -> Result<Supi, Error> {
        if suci.key_id != self.key_id {
            return Err(Error::UnknownSuciKey);
        }
        let plaintext = match (&self.secret, &suci.output) {
            (Secret::ProfileA(secret), Output::ProfileA(output)) => {
                output.decrypt(&*ecies::x25519(secret, &output.ephemeral_key().into())?)?
            }
            (Secret::ProfileB(secret), Output::ProfileB(output)) => {
                let ephemeral = ecies::compressed_point(&output.ephemeral_key())?;
                output.decrypt(&ecies::p256(secret, &ephemeral))?
            }
            _ => return Err(Error::UnknownSuciKey),
        };
        suci.supi_of_plaintext(&plaintext)
    }
}

impl fmt::Debug for SuciHomeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SuciHomeKey({:?}, {}, redacted)", self.scheme(), self.key_id)
    }
}

/// Whether SUCIs of the null scheme are taken. TS 33.501 6.12.2 leaves it to the home network's policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NullScheme {
    /// They are refused: every USIM of the network has a public key.
    #[default]
    Refused,
    /// They are taken.
    Accepted,
}

/// All private keys of a home network: what the UDM's SIDF holds.
#[derive(Debug, Clone, Default)]
pub struct SuciHomeKeys {
    keys: Vec<SuciHomeKey>,
    null_scheme: NullScheme,
}

impl SuciHomeKeys {
    /// The set of these keys.
    pub fn new(keys: Vec<SuciHomeKey>, null_scheme: NullScheme) -> Self {
        Self { keys, null_scheme }
    }

    /// Deconceals a SUCI with the key it names.
    ///
    /// # Errors
    /// [`Error::UnsupportedSuciScheme`] for the null scheme where it is refused, [`Error::UnknownSuciKey`] when no key
    /// fits, else as [`SuciHomeKey::deconceal`].
    pub fn deconceal(&self, suci: &Suci) -> Result<Supi, Error> {
        if suci.scheme() == SuciScheme::Null {
            return match self.null_scheme {
                NullScheme::Accepted => suci.null_scheme_supi(),
                NullScheme::Refused => Err(Error::UnsupportedSuciScheme),
            };
        }
        self.keys
            .iter()
            .find(|key| key.key_id == suci.key_id && key.scheme() == suci.scheme())
            .ok_or(Error::UnknownSuciKey)?
            .deconceal(suci)
    }

    /// The public keys, to be provisioned on USIMs.
    pub fn public_keys(&self) -> impl Iterator<Item = SuciPublicKey> + '_ {
        self.keys.iter().map(SuciHomeKey::public_key)
    }
}

fn check_key_id(key_id: u8) -> Result<u8, Error> {
    if key_id == 0 { Err(Error::UnknownSuciKey) } else { Ok(key_id) }
}
