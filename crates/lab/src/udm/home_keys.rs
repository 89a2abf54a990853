//! The home network's private keys for concealed SUPIs (TS 33.501 clause 6.12.4, Annex C).

use std::fs;
use std::path::{Path, PathBuf};

use akma::{NullScheme, SuciHomeKey, SuciHomeKeys};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::LabError;
use crate::pki::write_private;

/// A private key in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeKey {
    /// Home network public key identifier, 1 to 255, as on the USIMs.
    pub id: u8,
    /// Protection scheme.
    pub profile: Profile,
    /// File with the private key: 64 hex digits.
    pub private_key: PathBuf,
}

/// Protection scheme of TS 33.501 clause C.3.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// X25519.
    A,
    /// secp256r1.
    B,
}

/// The two keys of the lab: identifier, profile, name of the files.
const LAB_KEYS: [(u8, Profile, &str); 2] = [(1, Profile::A, "suci-a"), (2, Profile::B, "suci-b")];

impl HomeKey {
    /// The lab's keys, as [`HomeKey::create_in_directory`] makes them.
    pub(crate) fn of_directory(directory: &Path) -> Vec<Self> {
        let key = |(id, profile, name): (u8, Profile, &str)| Self {
            id,
            profile,
            private_key: directory.join(format!("{name}.key")),
        };
        LAB_KEYS.into_iter().map(key).collect()
    }

    /// Makes the lab's keys where they are missing: private keys in `.key`, public keys in `.pub`, in hex.
    pub(crate) fn create_in_directory(directory: &Path) -> Result<(), LabError> {
        for (key, (_, _, name)) in Self::of_directory(directory).iter().zip(LAB_KEYS) {
            if !key.private_key.exists() {
                let mut octets = Zeroizing::new([0_u8; 32]);
                getrandom::fill(octets.as_mut_slice()).map_err(|_| LabError::Random)?;
                let text = Zeroizing::new(hex::encode(octets.as_slice()));
                write_private(&key.private_key, text.as_bytes())?;
            }
            let public = hex::encode(key.load()?.public_key().to_bytes());
            write_private(&directory.join(format!("{name}.pub")), public.as_bytes())?;
        }
        Ok(())
    }

    fn load(&self) -> Result<SuciHomeKey, LabError> {
        let text = fs::read_to_string(&self.private_key).map_err(|source| LabError::file(&self.private_key, source))?;
        let text = Zeroizing::new(text);
        let mut octets = Zeroizing::new([0_u8; 32]);
        hex::decode_to_slice(text.trim(), octets.as_mut_slice()).map_err(|_| LabError::Content {
            path: self.private_key.clone(),
            reason: "a private key has 64 hex digits".to_owned(),
        })?;
        Ok(match self.profile {
            Profile::A => SuciHomeKey::profile_a(self.id, *octets)?,
            Profile::B => SuciHomeKey::profile_b(self.id, *octets)?,
        })
    }
}

/// All keys of the home network.
pub(super) fn load(keys: &[HomeKey], accept_null_scheme: bool) -> Result<SuciHomeKeys, LabError> {
    let keys = keys.iter().map(HomeKey::load).collect::<Result<_, _>>()?;
    Ok(SuciHomeKeys::new(keys, if accept_null_scheme { NullScheme::Accepted } else { NullScheme::Refused }))
}
