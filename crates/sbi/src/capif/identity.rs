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

use transport::profile::{Authorities, PeerIdentity};

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
    /// The identity that a verified certificate claims, whoever issued it: for a listener that trusts no other authority than
    /// that of CAPIF. Where others are trusted, too, [`Shown::of`] is the one to ask.
    #[must_use]
    pub fn claimed_in(peer: &PeerIdentity) -> Option<Self> {
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

/// What a verified certificate says of CAPIF where several authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing: it is another authority's, and claims nothing that only the CAPIF authority may say.
    Nothing,
    /// This identity, on the word of the CAPIF authority.
    Identity(CapifIdentity),
    /// The CAPIF authority issued it, and it names no identity.
    Nobody,
    /// It claims to be of CAPIF, and another authority issued it: an attempt to pass for somebody else.
    Impostor,
}

impl Shown {
    /// Of `peer`, with `capif` as the CAPIF authority. Only what that authority issued is believed, and rules for the
    /// certificates of others apply to [`Shown::Nothing`] alone.
    #[must_use]
    pub fn of(peer: &PeerIdentity, capif: &Authorities) -> Self {
        if capif.vouch_for(peer) {
            return CapifIdentity::claimed_in(peer).map_or(Self::Nobody, Self::Identity);
        }
        let claims = |uri: &String| uri.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        if peer.uris.iter().any(claims) { Self::Impostor } else { Self::Nothing }
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
    use openssl::asn1::Asn1Time;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::x509::X509Builder;

    use super::*;

    /// An authority's certificate, and SHA-256 of its key.
    fn authority() -> (Vec<u8>, [u8; 32]) {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut builder = X509Builder::new().unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        (builder.build().to_pem().unwrap(), openssl::sha::sha256(&key.public_key_to_der().unwrap()))
    }

    #[test]
    fn an_identity_counts_on_the_word_of_the_capif_authority_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("capif.pem");
        let ((pem, capif), (_, other)) = (authority(), authority());
        std::fs::write(&file, pem).unwrap();
        let authorities = Authorities::of_file(file).unwrap();
        let identity =
            CapifIdentity { role: Role::Invoker, id: "i".to_owned(), serial: "0f".to_owned(), names: Vec::new() };
        let shown = |uris: &[&str], chain: &[[u8; 32]]| {
            let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
            Shown::of(
                &PeerIdentity { uris, authority_keys_sha256: chain.into(), ..PeerIdentity::default() },
                &authorities,
            )
        };
        let names = identity.uris();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert_eq!(shown(&names, &[capif]), Shown::Identity(identity.clone()));
        assert_eq!(shown(&names, &[capif, other]), Shown::Identity(identity), "an authority below another");
        assert_eq!(shown(&["urn:uuid:0"], &[capif]), Shown::Nobody);
        for chain in [&[other][..], &[]] {
            assert_eq!(shown(&names, chain), Shown::Impostor);
            assert_eq!(shown(&["https://af.example", "CAPIF:anything"], chain), Shown::Impostor);
            assert_eq!(shown(&["https://af.example"], chain), Shown::Nothing);
        }
    }

    #[test]
    fn an_identity_is_read_from_the_uris_that_it_writes_and_from_nothing_less() {
        let identity =
            CapifIdentity { role: Role::Aef, id: "a-1".to_owned(), serial: "0f".to_owned(), names: Vec::new() };
        let mut peer = PeerIdentity { uris: identity.uris().to_vec(), ..PeerIdentity::default() };
        assert_eq!(CapifIdentity::claimed_in(&peer).unwrap(), identity);
        peer.uris.pop();
        assert_eq!(CapifIdentity::claimed_in(&peer), None);
        for uri in ["capif:nobody:1", "urn:uuid:0", "capif:aef", "CAPIF:aef:1"] {
            peer.uris = vec![uri.to_owned(), "capif:certificate:01".to_owned()];
            assert_eq!(CapifIdentity::claimed_in(&peer), None, "{uri}");
        }
    }
}
