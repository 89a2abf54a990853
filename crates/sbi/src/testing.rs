//! Certificates for tests that speak over real mutual TLS on loopback (feature `testing`; never in a product).

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests only, where a panic is a failed test")]

pub mod tokens;

use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use tempfile::TempDir;

use crate::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig};

/// A certificate authority in a directory of its own, gone when dropped.
pub struct TestAuthority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl TestAuthority {
    /// A new authority.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it makes files")]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        std::fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), directory }
    }

    /// A certificate for the function `nf_instance_id`, good for `localhost`, `127.0.0.1` and `dns_names`.
    #[must_use]
    pub fn issue(&self, nf_instance_id: &str, dns_names: &[&str]) -> CertificateFiles {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let dns = dns_names.iter().map(|name| SanType::DnsName(Ia5String::try_from(*name).unwrap()));
        params.subject_alt_names.extend(dns);
        let urn = format!("urn:uuid:{nf_instance_id}");
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(urn).unwrap()));
        params.distinguished_name.push(DnType::CommonName, nf_instance_id);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let files = CertificateFiles {
            certificate: self.file(&format!("{nf_instance_id}.pem")),
            key: self.file(&format!("{nf_instance_id}.key")),
            ca: self.ca(),
            crl: None,
        };
        std::fs::write(&files.certificate, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// A client that shows such a certificate, with the default limits.
    #[must_use]
    pub fn client(&self, nf_instance_id: &str) -> SbiClient {
        let tls = self.issue(nf_instance_id, &[]);
        SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap()
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
