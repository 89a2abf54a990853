//! Certificates for tests that speak over real mutual TLS on loopback (feature `testing`; never in a product).

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests only, where a panic is a failed test")]

pub mod audit;
pub mod tokens;

use std::path::{Path, PathBuf};

use openssl::x509::X509;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
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
        // Each its own name: by their names a verifier finds who has signed.
        params.distinguished_name.push(DnType::OrganizationName, uuid::Uuid::new_v4().to_string());
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
        self.issue_with_uris(nf_instance_id, dns_names, &[])
    }

    /// The same with these URIs besides.
    #[must_use]
    pub fn issue_with_uris(&self, nf_instance_id: &str, dns_names: &[&str], uris: &[String]) -> CertificateFiles {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let dns = dns_names.iter().map(|name| SanType::DnsName(Ia5String::try_from(*name).unwrap()));
        params.subject_alt_names.extend(dns);
        let urn = format!("urn:uuid:{nf_instance_id}");
        for uri in [&urn].into_iter().chain(uris) {
            params.subject_alt_names.push(SanType::URI(Ia5String::try_from(uri.as_str()).unwrap()));
        }
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

    /// Writes a CRL that names the certificates issued last to `revoked`, and gives its file. It is good until the first
    /// day of the year `until`.
    #[must_use]
    pub fn crl(&self, revoked: &[&str], until: i32) -> PathBuf {
        let revoked = revoked.iter().map(|nf_instance_id| {
            let pem = std::fs::read(self.file(&format!("{nf_instance_id}.pem"))).unwrap();
            let serial = X509::from_pem(&pem).unwrap().serial_number().to_bn().unwrap().to_vec();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        // In one step: nobody reads half of it.
        std::fs::write(self.file("ca.crl.new"), params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        std::fs::rename(self.file("ca.crl.new"), self.file("ca.crl")).unwrap();
        self.file("ca.crl")
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
