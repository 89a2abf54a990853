//! A certificate authority for one test, and certificates of it.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use sbi::CertificateFiles;

pub(super) const BILLING_INSTANCE: &str = "0a8f4a44-3ad1-4d93-8d4c-5b5d4a9d3f01";
pub(super) const WEATHER_INSTANCE: &str = "0a8f4a44-3ad1-4d93-8d4c-5b5d4a9d3f02";

/// Makes the authority, and certificates for a server and two Application Servers on loopback.
pub(super) fn create(directory: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, "test authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&authority_key).unwrap();
    std::fs::write(directory.join("ca.pem"), certificate.pem()).unwrap();
    let issuer = Issuer::new(parameters, authority_key);
    for (name, instance) in
        [("server", None), ("billing", Some(BILLING_INSTANCE)), ("weather", Some(WEATHER_INSTANCE)), ("nef", None)]
    {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), format!("{name}.example")];
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        if let Some(instance) = instance {
            let uri = format!("urn:uuid:{instance}");
            parameters.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = parameters.signed_by(&key, &issuer).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), leaf.pem()).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

pub(super) fn server(directory: &Path) -> CertificateFiles {
    files(directory, "server")
}

pub(super) fn files(directory: &Path, name: &str) -> CertificateFiles {
    CertificateFiles {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
        ca: directory.join("ca.pem"),
        crl: None,
    }
}
