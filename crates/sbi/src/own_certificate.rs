//! What the own certificate says: a function is in tokens, in assertions and at the NRF who it is to its peers (TS 33.310
//! clause 6.1.3c).

use openssl::x509::X509;
use transport::profile::{CertificateFiles, PeerIdentity, ProfileError};

use crate::error::SbiError;

/// The names in a certificate, and its chain.
#[derive(Debug, Clone)]
pub(crate) struct OwnCertificate {
    /// Whom it names.
    pub(crate) identity: PeerIdentity,
    /// The certificate and those of authorities in between, DER.
    pub(crate) chain: Vec<Vec<u8>>,
}

impl OwnCertificate {
    /// # Errors
    /// [`SbiError::Tls`] when the file cannot be read or holds no certificate.
    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, SbiError> {
        let path = &files.certificate;
        let pem = std::fs::read(path).map_err(|source| ProfileError::Unreadable { path: path.clone(), source })?;
        let not_pem = || ProfileError::NotPem { path: path.clone(), expected: "certificate" };
        let certificates = X509::stack_from_pem(&pem).map_err(|_| not_pem())?;
        let identity = PeerIdentity::of_certificate(certificates.first().ok_or_else(not_pem)?);
        let chain = certificates.iter().map(|certificate| certificate.to_der()).collect::<Result<_, _>>();
        Ok(Self { identity, chain: chain.map_err(ProfileError::from)? })
    }
}
