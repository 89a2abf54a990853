//! Application functions outside the operator's domain: who they are, and the authority that their certificates come from,
//! which is not the operator's, so that none of them is taken for a network function.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use openssl::x509::X509;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use sbi::CertificateFiles;
use time::{Duration, OffsetDateTime};

use crate::LabError;
use crate::pki::{certificate_error, check_name, read, write_private};
use crate::revocation::RevocationList;

/// An application function outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsideFunction {
    /// Name of its files, and its `af_id` at the NEF.
    pub name: &'static str,
    /// Its FQDN: the name in its certificate, and that of its AF_IDs.
    pub fqdn: &'static str,
    /// The Application Server that it may be.
    pub as_service_id: &'static str,
    /// Whether the NEF may tell it the GPSI.
    pub gpsi_access: bool,
}

/// Those of the lab. The second is what an MSGin5G Server outside the domain is.
pub const OUTSIDE_FUNCTIONS: [OutsideFunction; 2] = [
    OutsideFunction {
        name: "af-weather",
        fqdn: "weather.outside.example",
        as_service_id: "weather@outside.example",
        gpsi_access: false,
    },
    OutsideFunction {
        name: "af-msgin5g",
        fqdn: "msgin5g.outside.example",
        as_service_id: "relay@outside.example",
        gpsi_access: true,
    },
];

/// The name under which application functions outside are reached in a lab, where no DNS knows theirs.
pub(crate) const LOOPBACK_NAME: &str = "localhost";

/// The authority outside: `af-ca.pem`, `af-ca.key` and its CRL, `af-ca.crl`.
pub(crate) struct OutsideAuthority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

const CA_VALIDITY: Duration = Duration::days(10 * 365);
const VALIDITY: Duration = Duration::days(2 * 365);
/// How far a peer's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::hours(24);

impl OutsideAuthority {
    /// Opens the authority in `directory`, or makes one there.
    pub(crate) fn open_or_create(directory: &Path) -> Result<Self, LabError> {
        let (certificate_path, key_path) = (directory.join("af-ca.pem"), directory.join("af-ca.key"));
        let params = authority_params();
        if certificate_path.exists() && key_path.exists() {
            let pem = fs::read_to_string(&key_path).map_err(|source| LabError::file(&key_path, source))?;
            let key = KeyPair::from_pem(&pem).map_err(certificate_error)?;
            return Ok(Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate_error)?;
        let certificate = params.self_signed(&key).map_err(certificate_error)?;
        write_private(&key_path, key.serialize_pem().as_bytes())?;
        write_private(&certificate_path, certificate.pem().as_bytes())?;
        Ok(Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.join("af-ca.pem")
    }

    /// The files of `name`; its peers' authority is the operator's.
    pub(crate) fn files(&self, name: &str) -> CertificateFiles {
        CertificateFiles {
            certificate: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
            ca: self.directory.join("ca.pem"),
            crl: None,
        }
    }

    /// Its CRL.
    pub(crate) fn crl(&self) -> PathBuf {
        self.list().crl()
    }

    /// Whether the certificate in `<name>.pem` is from here.
    pub(crate) fn has_issued(&self, name: &str) -> Result<bool, LabError> {
        check_name(name)?;
        let of = |path: PathBuf| {
            let no_certificate =
                |_| LabError::Content { path: path.clone(), reason: "it is no certificate".to_owned() };
            X509::from_pem(read(&path)?.as_bytes()).map_err(no_certificate)
        };
        let (certificate, own) = (of(self.files(name).certificate)?, of(self.certificate())?);
        Ok(own.public_key().and_then(|key| certificate.verify(&key)).unwrap_or(false))
    }

    /// Revokes the certificate in `<name>.pem` and writes the CRL.
    pub(crate) fn revoke(&self, name: &str) -> Result<(), LabError> {
        self.list().add(&self.issuer, name, self.files(name).certificate)
    }

    /// Writes the CRL anew, good for 30 days.
    pub(crate) fn write_crl(&self) -> Result<(), LabError> {
        self.list().write(&self.issuer)
    }

    fn list(&self) -> RevocationList {
        RevocationList::new(&self.directory, "af-ca.crl", "af-revoked.json")
    }

    /// Issues a certificate that carries the function's FQDN and this machine's loopback, and no NF instance. Files that
    /// exist already are left as they are.
    pub(crate) fn issue(&self, function: &OutsideFunction) -> Result<(), LabError> {
        let files = self.files(function.name);
        if files.certificate.exists() && files.key.exists() {
            return Ok(());
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate_error)?;
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::now_utc() - CLOCK_SKEW;
        params.not_after = params.not_before + VALIDITY;
        params.distinguished_name.push(DnType::CommonName, function.fqdn);
        params.subject_alt_names = vec![
            SanType::DnsName(Ia5String::try_from(function.fqdn).map_err(certificate_error)?),
            SanType::DnsName(Ia5String::try_from(LOOPBACK_NAME).map_err(certificate_error)?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(certificate_error)?;
        write_private(&files.key, key.serialize_pem().as_bytes())?;
        write_private(&files.certificate, certificate.pem().as_bytes())
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::now_utc() - CLOCK_SKEW;
    params.not_after = params.not_before + CA_VALIDITY;
    params.distinguished_name.push(DnType::OrganizationName, "outside.example");
    params.distinguished_name.push(DnType::CommonName, "lab certification authority outside");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
