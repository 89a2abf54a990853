//! Application Servers over real HTTP/2 and mutual TLS.

use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig};

/// A client that is never used.
pub(super) fn idle_client() -> SbiClient {
    let directory = tempfile::tempdir().unwrap();
    let tls = super::application_server::authority(directory.path());
    SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap()
}

/// A self-made authority and one certificate of it.
fn authority(directory: &std::path::Path) -> CertificateFiles {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let files = CertificateFiles {
        certificate: directory.join("leaf.pem"),
        key: directory.join("leaf.key"),
        ca: directory.join("ca.pem"),
    };
    std::fs::write(&files.certificate, leaf.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    std::fs::write(&files.ca, certificate.pem()).unwrap();
    files
}
