//! Client credentials assertions (TS 33.501 clause 13.3.8): a consumer states who it is in a token of its own, signed with
//! the key of its certificate, in the header `3gpp-Sbi-Client-Credentials` (TS 29.500 clause 5.2.3.2.11).
//!
//! An assertion is a JSON Web Token signed with ES256 whose header carries the certificate in `x5c`. Checked are: form and
//! length; that the certificate could be a TLS client's: it leads to the authority that TLS peers must come from, is meant for
//! clients, valid, and on no CRL; the signature; that `sub` is the NF instance ID of the certificate; that `aud` names the
//! type of who is asked; and that it is short-lived and of now.
//!
//! [`AssertionSigner`] makes them, [`AssertionKeys`] checks them.

mod signer;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use openssl::x509::X509;
use serde::{Deserialize, Serialize};
use transport::profile::{CertificateFiles, PeerIdentity, ReloadingTrust, Untrusted};

pub use signer::AssertionSigner;

use crate::authorization::{InvalidAuthorization, Refusal};
use crate::token::{JoseHeader, PublicKey, TokenError};

/// The header.
pub static CLIENT_CREDENTIALS: HeaderName = HeaderName::from_static("3gpp-sbi-client-credentials");

/// Octets of an assertion, certificates included; a longer one is refused unread.
pub const ASSERTION_BYTES_MAX: usize = 16_384;
/// Certificates in `x5c`; with more it is refused.
pub const CERTIFICATES_MAX: usize = 8;
/// Longest time from `iat` to `exp`, in seconds: assertions are short-lived.
pub const LIFETIME_SECONDS_MAX: u64 = 600;

/// How often it is looked whether the files of authorities, CRLs, and the signer's certificate and key, have changed: when one
/// is needed, and this has passed since the last look.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What an assertion says (TS 29.500 clause 5.2.3.2.11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssertionClaims {
    /// NF instance ID of the consumer.
    pub sub: String,
    /// NF types it is meant for, one or several.
    pub aud: AssertionAudience,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// When it ceases to be good.
    pub exp: u64,
}

/// A type, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AssertionAudience {
    /// One type.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl AssertionAudience {
    fn includes(&self, nf_type: &str) -> bool {
        match self {
            Self::One(audience) => audience == nf_type,
            Self::Several(audience) => audience.iter().any(|one| one == nf_type),
        }
    }
}

/// The authorities whose certificates may sign assertions, and their CRLs. Changed files are taken within
/// [`LOOK_INTERVAL`].
#[derive(Debug)]
pub struct AssertionKeys {
    trust: ReloadingTrust,
}

impl AssertionKeys {
    /// The authorities and CRLs of `files`: those that TLS peers must come from, and be on none of.
    ///
    /// # Errors
    /// [`InvalidAuthorization`] naming the file.
    pub fn open(files: &CertificateFiles) -> Result<Self, InvalidAuthorization> {
        let trust = ReloadingTrust::open(files.clone(), LOOK_INTERVAL);
        Ok(Self { trust: trust.map_err(|error| InvalidAuthorization(format!("assertions: {error}")))? })
    }

    /// What an assertion says, if it is genuine, meant for a function of `nf_type`, and of `now`.
    ///
    /// # Errors
    /// [`Refusal::Assertion`] with the reason.
    pub fn verify(
        &self,
        assertion: &str,
        nf_type: &str,
        now: u64,
        leeway_seconds: u64,
    ) -> Result<AssertionClaims, Refusal> {
        if assertion.len() > ASSERTION_BYTES_MAX {
            return Err(Refusal::Assertion("assertion_too_long"));
        }
        let header = JoseHeader::read(assertion).map_err(|error| reason(&error))?;
        let certificates = certificates(&header)?;
        let (own, chain) = certificates.split_first().ok_or(Refusal::Assertion("assertion_certificate"))?;
        self.trust.vouches_for(own, chain).map_err(|refusal| match refusal {
            Untrusted::Revoked => Refusal::Assertion("assertion_certificate_revoked"),
            _ => Refusal::Assertion("assertion_certificate"),
        })?;
        let key = own.public_key().map_err(|_| Refusal::Assertion("assertion_certificate"))?;
        let key = PublicKey::from_openssl(&*key).map_err(|_| Refusal::Assertion("assertion_certificate"))?;
        let claims: AssertionClaims = key.claims(assertion).map_err(|error| reason(&error))?;
        let named = PeerIdentity::of_certificate(own).nf_instance_id;
        if !named.is_some_and(|id| id.eq_ignore_ascii_case(&claims.sub)) {
            return Err(Refusal::Assertion("assertion_subject"));
        }
        if !claims.aud.includes(nf_type) {
            return Err(Refusal::Assertion("assertion_audience"));
        }
        let lifetime = claims.exp.checked_sub(claims.iat);
        if claims.exp.saturating_add(leeway_seconds) <= now || claims.iat > now.saturating_add(leeway_seconds) {
            return Err(Refusal::Assertion("assertion_expired"));
        }
        if lifetime.is_none_or(|lifetime| lifetime > LIFETIME_SECONDS_MAX) {
            return Err(Refusal::Assertion("assertion_lifetime"));
        }
        Ok(claims)
    }
}

fn reason(error: &TokenError) -> Refusal {
    Refusal::Assertion(match error {
        TokenError::Algorithm => "assertion_algorithm",
        TokenError::Signature => "assertion_signature",
        TokenError::Claims => "assertion_claims",
        _ => "assertion_malformed",
    })
}

fn certificates(header: &JoseHeader) -> Result<Vec<X509>, Refusal> {
    let refused = || Refusal::Assertion("assertion_certificate");
    let encoded = header.x5c.as_deref().ok_or_else(refused)?;
    if encoded.is_empty() || encoded.len() > CERTIFICATES_MAX {
        return Err(refused());
    }
    let decode = |text: &String| {
        let der = STANDARD.decode(text).map_err(|_| refused())?;
        X509::from_der(&der).map_err(|_| refused())
    };
    encoded.iter().map(decode).collect()
}
