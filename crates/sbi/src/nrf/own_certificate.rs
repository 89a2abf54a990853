//! What the own certificate says: a function is at the NRF who it is to its peers (TS 33.310 clause 6.1.3c).

use openssl::x509::X509;
use transport::profile::{CertificateFiles, ProfileError};
use uuid::Uuid;

use crate::error::SbiError;

/// The names in a certificate, and its chain.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnCertificate {
    /// From the URI `urn:uuid:...`.
    pub(super) nf_instance_id: Option<Uuid>,
    /// The first DNS name that is a name in the network.
    pub(super) fqdn: Option<String>,
    /// The certificate and those of authorities in between, DER.
    pub(super) chain: Vec<Vec<u8>>,
}

impl OwnCertificate {
    /// # Errors
    /// [`SbiError::Tls`] when the file cannot be read or holds no certificate.
    pub(super) fn read(files: &CertificateFiles) -> Result<Self, SbiError> {
        let path = &files.certificate;
        let pem = std::fs::read(path).map_err(|source| ProfileError::Unreadable { path: path.clone(), source })?;
        let not_pem = || ProfileError::NotPem { path: path.clone(), expected: "certificate" };
        let certificates = X509::stack_from_pem(&pem).map_err(|_| not_pem())?;
        let own = certificates.first().ok_or_else(not_pem)?;
        let mut read = Self::default();
        for name in own.subject_alt_names().iter().flatten() {
            if let Some(id) = name.uri().and_then(nf_instance_id) {
                read.nf_instance_id.get_or_insert(id);
            }
            if let Some(dns) = name.dnsname().filter(|dns| super::profile::is_fqdn(dns)) {
                read.fqdn.get_or_insert_with(|| dns.to_owned());
            }
        }
        for certificate in &certificates {
            read.chain.push(certificate.to_der().map_err(ProfileError::from)?);
        }
        Ok(read)
    }
}

fn nf_instance_id(uri: &str) -> Option<Uuid> {
    let (urn, id) = (uri.get(..URN_UUID.len())?, uri.get(URN_UUID.len()..)?);
    if urn.eq_ignore_ascii_case(URN_UUID) && id.len() == UUID_OCTETS { id.parse().ok() } else { None }
}

const URN_UUID: &str = "urn:uuid:";
/// With hyphens.
const UUID_OCTETS: usize = 36;
