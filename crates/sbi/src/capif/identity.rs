//! Who a certificate of the CAPIF authority speaks for.
//!
//! TS 33.122 says that the certificate carries the identity and leaves the form open. Ours: the subject's common name is the
//! identity, for people, and the subject alternative name has two URIs, `capif:<role>:<identity>` and
//! `capif:certificate:<serial number in lower-case hex>`. The second says which certificate counts: a holder has one at a time.
//! It has a DNS name, too, where the operator tied one to the onboarding credential.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use transport::profile::PeerIdentity;

use crate::SbiError;

/// What the holder of a CAPIF identity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// An API invoker.
    Invoker,
    /// An API exposing function.
    Aef,
    /// An API publishing function.
    Apf,
    /// An API management function.
    Amf,
    /// The core function itself, when it calls API exposing functions.
    Core,
}

impl Role {
    /// As it stands in the URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invoker => "api-invoker",
            Self::Aef => "aef",
            Self::Apf => "apf",
            Self::Amf => "amf",
            Self::Core => "core-function",
        }
    }

    fn of(text: &str) -> Option<Self> {
        [Self::Invoker, Self::Aef, Self::Apf, Self::Amf, Self::Core].into_iter().find(|role| role.as_str() == text)
    }
}

/// An identity that the core function gave, with the certificate that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapifIdentity {
    /// What its holder is.
    pub role: Role,
    /// The identity.
    pub id: String,
    /// Serial number of the certificate, lower-case hex.
    pub serial: String,
    /// Names that the operator tied to the credential its holder came with.
    pub names: Vec<String>,
}

impl CapifIdentity {
    /// The identity in a certificate that was verified; `None` when it is none of the CAPIF authority's.
    ///
    /// Only an authority that is trusted for it may issue such: whoever trusts others besides must know that they do not.
    #[must_use]
    pub fn of(peer: &PeerIdentity) -> Option<Self> {
        let mut named = None;
        let mut serial = None;
        for uri in &peer.uris {
            let Some((kind, value)) = uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once(':')) else { continue };
            if kind == CERTIFICATE {
                serial = Some(value.to_owned());
            } else if let Some(role) = Role::of(kind) {
                named = Some((role, value.to_owned()));
            }
        }
        let ((role, id), serial) = named.zip(serial)?;
        Some(Self { role, id, serial, names: peer.dns_names.clone() })
    }

    /// The two URIs of its certificate.
    #[must_use]
    pub fn uris(&self) -> [String; 2] {
        [format!("{SCHEME}{}:{}", self.role.as_str(), self.id), format!("{SCHEME}{CERTIFICATE}:{}", self.serial)]
    }
}

impl fmt::Display for CapifIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role.as_str(), self.id)
    }
}

/// Writes `path` whole or not at all, readable by the owner only.
pub(crate) fn private_file(path: &Path, content: &[u8]) -> Result<(), SbiError> {
    let write = || -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = path.with_file_name(name);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|error| SbiError::InvalidRequest(format!("{}: {error}", path.display())))
}

const SCHEME: &str = "capif:";
const CERTIFICATE: &str = "certificate";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_identity_is_read_from_the_uris_that_it_writes_and_from_nothing_less() {
        let identity =
            CapifIdentity { role: Role::Aef, id: "a-1".to_owned(), serial: "0f".to_owned(), names: Vec::new() };
        let mut peer = PeerIdentity { uris: identity.uris().to_vec(), ..PeerIdentity::default() };
        assert_eq!(CapifIdentity::of(&peer).unwrap(), identity);
        peer.uris.pop();
        assert_eq!(CapifIdentity::of(&peer), None);
        for uri in ["capif:nobody:1", "urn:uuid:0", "capif:aef", "CAPIF:aef:1"] {
            peer.uris = vec![uri.to_owned(), "capif:certificate:01".to_owned()];
            assert_eq!(CapifIdentity::of(&peer), None, "{uri}");
        }
    }
}
