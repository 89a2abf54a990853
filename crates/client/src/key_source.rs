//! Where the client's AKMA keys come from (TS 33.535 clause 6.1).

mod command;
mod file;
mod shared;
mod soft_usim;
mod stored;

use std::path::PathBuf;

use akma::{AKid, KAkma, UeId};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

pub use command::{COMMAND_OUTPUT_OCTETS_MAX, CommandKeySource, REFUSED_VARIABLE};
pub use file::{FileKeySource, KEY_FILE_OCTETS_MAX};
pub use shared::SharedKeySource;
pub use soft_usim::{SoftUsim, SoftUsimConfig};
pub use stored::StoredKeySource;
pub(crate) use stored::replace_private;

/// What a primary authentication leaves at the UE for AKMA.
#[derive(Clone, Debug)]
pub struct AkmaMaterial {
    /// The name of the key, for the server to ask AAnF with.
    pub a_kid: AKid,
    /// The anchor key; K_AF of each server and transport is derived from it.
    pub k_akma: KAkma,
    /// The UE's identity in the home network, where the source knows it. Never sent to the server.
    pub ue_id: Option<UeId>,
}

/// Yields AKMA keys: a USIM, a modem, a file.
///
/// The client asks once when it starts, and again when the server no longer takes the A-KID.
pub trait KeySource: Send + Sync + 'static {
    /// Keys to use now. `refused` is the A-KID that the server did not take: the source runs a new primary
    /// authentication then (a new A-KID replaces the old one, TS 33.535 clause 6.1), or yields what has since replaced it.
    ///
    /// The future may be dropped at a time-out.
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>>;
}

/// Why a source has no keys.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// The file is missing or may not be read or written by this user.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// "read" or "write".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// What the file or command gave is not `{"a_kid":"…","k_akma":"64 hex digits"}`.
    #[error("{origin} does not hold {{\"a_kid\":\"...\",\"k_akma\":\"64 hex digits\"}}: {detail}")]
    Malformed {
        /// The file or the command.
        origin: String,
        /// What is wrong, without any value.
        detail: String,
    },
    /// The source has only keys that the server refused; whoever fills it must authenticate anew.
    #[error("{origin} still holds the keys that the server refused; run a new primary authentication")]
    NothingNewer {
        /// The file or the command.
        origin: String,
    },
    /// The command could not be started, failed, took too long or printed too much.
    #[error("the key command {program} {detail}")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What happened.
        detail: String,
    },
    /// The home network did not accept the USIM, or the USIM not the home network.
    #[error("primary authentication failed: {0}")]
    Authentication(String),
    /// The home network cannot be reached or cannot serve now.
    #[error("the home network does not answer: {0}")]
    Unavailable(String),
}

impl KeySourceError {
    /// Whether the same question may succeed a little later without anybody doing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// The JSON form of [`AkmaMaterial`], as files and commands hold it.
#[derive(Serialize, Deserialize)]
struct KeyDocument {
    a_kid: AKid,
    #[serde(with = "wiped")]
    k_akma: Zeroizing<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ue_id: Option<UeId>,
}

/// A text that is wiped when dropped.
mod wiped {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

impl AkmaMaterial {
    /// Reads `{"a_kid":"…","k_akma":"64 hex digits"}`; further members are passed over. `origin` names the source in
    /// the error, which holds no value from the text.
    fn from_json(text: &[u8], origin: &str) -> Result<Self, KeySourceError> {
        let malformed = |detail: String| KeySourceError::Malformed { origin: origin.to_owned(), detail };
        let document: KeyDocument = serde_json::from_slice(text)
            // serde_json quotes values in its messages; a key must not reach a log.
            .map_err(|error| malformed(format!("line {}, column {}", error.line(), error.column())))?;
        let k_akma = KAkma::from_hex(&document.k_akma).map_err(|error| malformed(format!("k_akma: {error}")))?;
        Ok(Self { a_kid: document.a_kid, k_akma, ue_id: document.ue_id })
    }

    fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let document =
            KeyDocument { a_kid: self.a_kid.clone(), k_akma: self.k_akma.to_hex(), ue_id: self.ue_id.clone() };
        serde_json::to_vec(&document).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const KEY: &str = "176cdc89b8bc8634d912bf84cb7ed7b85afe1b8802afa110d1100a881df659a3";

    #[test]
    fn key_documents_are_read_and_written() {
        let text = format!(r#"{{"a_kid":"0.ab@realm.example","k_akma":"{KEY}","more":1}}"#);
        let material = AkmaMaterial::from_json(text.as_bytes(), "a file").unwrap();
        assert_eq!(material.a_kid.as_str(), "0.ab@realm.example");
        assert_eq!(*material.k_akma.to_hex(), KEY);
        let again = AkmaMaterial::from_json(&material.to_json().unwrap(), "a file").unwrap();
        assert_eq!(again.k_akma, material.k_akma);
    }

    #[test]
    fn errors_and_debug_output_show_no_key() {
        let wrong = format!(r#"{{"a_kid":"0.ab@realm.example","k_akma":"{KEY}00"}}"#);
        let error = AkmaMaterial::from_json(wrong.as_bytes(), "a file").unwrap_err();
        assert!(!error.to_string().contains(KEY), "{error}");
        let wrong = format!(r#"{{"a_kid":"0.ab@realm.example","k_akma":["{KEY}"]}}"#);
        let error = AkmaMaterial::from_json(wrong.as_bytes(), "a file").unwrap_err();
        assert!(!error.to_string().contains(KEY), "{error}");
        let right = format!(r#"{{"a_kid":"0.ab@realm.example","k_akma":"{KEY}"}}"#);
        let material = AkmaMaterial::from_json(right.as_bytes(), "a file").unwrap();
        assert!(!format!("{material:?}").contains(KEY));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// Whatever a key helper prints, its values are not in the error.
        #[test]
        fn an_error_never_repeats_a_value(a_kid in "[a-z .@]{8,40}", k_akma in "[0-9a-g]{60,70}") {
            let text = serde_json::json!({"a_kid": a_kid, "k_akma": k_akma}).to_string();
            for cut in [text.len(), text.len() / 2] {
                if let Err(error) = AkmaMaterial::from_json(&text.as_bytes()[..cut], "a helper") {
                    proptest::prop_assert!(!error.to_string().contains(&k_akma));
                }
            }
        }
    }
}
