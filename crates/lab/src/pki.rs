//! The lab's certification authority.
//!
//! Certificates follow the profile of service based interfaces in TS 33.310 clause 6.1.3c: ECDSA P-256, organisation =
//! home network realm, at most three years, signed directly by the domain's authority, critical key usage and
//! subject alternative name, both extended key usages, the NF instance as URI `urn:uuid:<id>`, the NF type as the
//! extension of RFC 9310.
//!
//! Its CRL lies beside its certificate, `ca.crl` ([`crate::Revocations`]).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use sbi::CertificateFiles;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::LabError;
use crate::revocation::RevocationList;

/// What a certificate says of its holder.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    /// Subject common name, for people.
    pub common_name: String,
    /// NF instance ID, in the subject alternative name as URI `urn:uuid:<id>`.
    pub nf_instance_id: Uuid,
    /// NF type of TS 29.510 (`AUSF`, `AF`, ...), at most 32 characters.
    pub nf_type: String,
    /// DNS names the holder answers for.
    pub dns_names: Vec<String>,
    /// Addresses the holder answers at.
    pub addresses: Vec<IpAddr>,
}

/// A certification authority whose key lies in one directory.
pub struct CertificateAuthority {
    directory: PathBuf,
    realm: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Three years are the most that TS 33.310 6.1.3c allows; a day is kept in hand for clocks that differ.
const VALIDITY: Duration = Duration::days(3 * 365 - 2);
const CA_VALIDITY: Duration = Duration::days(10 * 365);
/// How far a peer's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::hours(24);

impl CertificateAuthority {
    /// Opens the authority in `directory`, or makes one there: `ca.pem` and `ca.key`.
    ///
    /// `realm` is the home network's, `5gc.mnc<MNC>.mcc<MCC>.3gppnetwork.org`.
    ///
    /// # Errors
    /// When the directory cannot be written or what lies in it is not a key.
    pub fn open_or_create(directory: &Path, realm: &str) -> Result<Self, LabError> {
        create_private_directory(directory)?;
        let (certificate_path, key_path) = (directory.join("ca.pem"), directory.join("ca.key"));
        if certificate_path.exists() && key_path.exists() {
            let certificate_pem = read(&certificate_path)?;
            let key = KeyPair::from_pem(&read(&key_path)?).map_err(certificate_error)?;
            let issuer = Issuer::new(authority_params(realm)?, key);
            return Ok(Self { directory: directory.to_owned(), realm: realm.to_owned(), certificate_pem, issuer });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate_error)?;
        let params = authority_params(realm)?;
        let certificate_pem = params.self_signed(&key).map_err(certificate_error)?.pem();
        write_private(&key_path, key.serialize_pem().as_bytes())?;
        write_private(&certificate_path, certificate_pem.as_bytes())?;
        let issuer = Issuer::new(params, key);
        Ok(Self { directory: directory.to_owned(), realm: realm.to_owned(), certificate_pem, issuer })
    }

    /// Opens the authority that an earlier [`CertificateAuthority::open_or_create`] made in `directory`.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(directory: &Path, realm: &str) -> Result<Self, LabError> {
        // Asked for before anything is made: a mistyped directory must not become a lab.
        read(&directory.join("ca.key"))?;
        Self::open_or_create(directory, realm)
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The files of holder `name`, as [`CertificateAuthority::issue`] writes them; they need not exist yet.
    #[must_use]
    pub fn files(&self, name: &str) -> CertificateFiles {
        CertificateFiles {
            certificate: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
            ca: self.directory.join("ca.pem"),
            crl: Some(self.directory.join("ca.crl")),
        }
    }

    /// Issues a certificate with a fresh key to the files `<name>.pem` and `<name>.key`, readable by the owner only.
    ///
    /// Files that exist already are left as they are, so that a holder keeps its key over restarts.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate or a file cannot be written.
    pub fn issue(&self, name: &str, request: &CertificateRequest) -> Result<CertificateFiles, LabError> {
        let files = self.files(name);
        if files.certificate.exists() && files.key.exists() {
            return Ok(files);
        }
        self.issue_anew(name, request)
    }

    /// [`CertificateAuthority::issue`] with a fresh key in any case. The certificate that was there before stays valid until
    /// it is revoked or runs out; to revoke it, do so first.
    ///
    /// # Errors
    /// As [`CertificateAuthority::issue`].
    pub fn issue_anew(&self, name: &str, request: &CertificateRequest) -> Result<CertificateFiles, LabError> {
        check_name(name)?;
        let files = self.files(name);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate_error)?;
        let certificate = self.params(request)?.signed_by(&key, &self.issuer).map_err(certificate_error)?;
        write_private(&files.key, key.serialize_pem().as_bytes())?;
        write_private(&files.certificate, certificate.pem().as_bytes())?;
        Ok(files)
    }

    /// Revokes the certificate in `<name>.pem` and writes the CRL. Whoever checks it knows the next time it looks: the
    /// lab's functions within 5 seconds. To revoke it again changes nothing.
    ///
    /// # Errors
    /// When there is no such certificate, or a file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), LabError> {
        check_name(name)?;
        self.list().add(&self.issuer, name, self.files(name).certificate)
    }

    /// Writes `ca.crl` anew, good for 30 days.
    ///
    /// # Errors
    /// When it cannot be written, or `revoked.json` cannot be read.
    pub fn write_crl(&self) -> Result<(), LabError> {
        self.list().write(&self.issuer)
    }

    fn list(&self) -> RevocationList {
        RevocationList::new(&self.directory, "ca.crl", "revoked.json")
    }

    fn params(&self, request: &CertificateRequest) -> Result<CertificateParams, LabError> {
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::now_utc() - CLOCK_SKEW;
        params.not_after = params.not_before + VALIDITY;
        params.serial_number = Some(serial_number()?);
        params.distinguished_name = subject(&self.realm, &request.common_name)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.crl_distribution_points =
            vec![CrlDistributionPoint { uris: vec![format!("http://crl.{}/ca.crl", self.realm)] }];
        params.custom_extensions = vec![subject_alternative_name(request)?, nf_types(&request.nf_type)?];
        Ok(params)
    }
}

/// A name of files: letters, digits, `-` and `_`, and not the authority's own.
pub(crate) fn check_name(name: &str) -> Result<(), LabError> {
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
        && name != "ca";
    if fits { Ok(()) } else { Err(LabError::Certificate(format!("{name:?} is no name for files"))) }
}

fn authority_params(realm: &str) -> Result<CertificateParams, LabError> {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::now_utc() - CLOCK_SKEW;
    params.not_after = params.not_before + CA_VALIDITY;
    params.serial_number = Some(serial_number()?);
    params.distinguished_name = subject(realm, "lab certification authority")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn subject(realm: &str, common_name: &str) -> Result<DistinguishedName, LabError> {
    let mut name = DistinguishedName::new();
    // ZZ is user-assigned in ISO 3166: the lab lies in no country. X.520 has it as a PrintableString.
    let country = "ZZ".try_into().map_err(|_| LabError::Certificate("ZZ is no country".to_owned()))?;
    name.push(DnType::CountryName, DnValue::PrintableString(country));
    name.push(DnType::OrganizationName, realm);
    name.push(DnType::CommonName, common_name);
    Ok(name)
}

/// 16 random octets, positive: within the 20 octets of TS 33.310 6.1.3c.
pub(crate) fn serial_number() -> Result<SerialNumber, LabError> {
    let mut octets = [0_u8; 16];
    getrandom::fill(&mut octets).map_err(|_| LabError::Random)?;
    octets[0] = (octets[0] & 0x7F) | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

/// Written by hand because rcgen marks the extension critical only where the subject is empty; TS 33.310 6.1.3c asks
/// for critical always.
fn subject_alternative_name(request: &CertificateRequest) -> Result<CustomExtension, LabError> {
    let mut names = der(0x86, format!("urn:uuid:{}", request.nf_instance_id).as_bytes())?;
    for dns in &request.dns_names {
        if dns.is_empty() || !dns.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(LabError::Certificate(format!("{dns:?} is no DNS name")));
        }
        names.extend(der(0x82, dns.as_bytes())?);
    }
    for address in &request.addresses {
        match address {
            IpAddr::V4(address) => names.extend(der(0x87, &address.octets())?),
            IpAddr::V6(address) => names.extend(der(0x87, &address.octets())?),
        }
    }
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], der(0x30, &names)?);
    extension.set_criticality(true);
    Ok(extension)
}

/// `id-pe-nftype` of RFC 9310: a sequence of IA5String.
fn nf_types(nf_type: &str) -> Result<CustomExtension, LabError> {
    if nf_type.is_empty() || nf_type.len() > 32 || !nf_type.is_ascii() {
        return Err(LabError::Certificate(format!("{nf_type:?} is no NF type")));
    }
    let content = der(0x30, &der(0x16, nf_type.as_bytes())?)?;
    Ok(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 34], content))
}

/// One DER element with a definite length.
fn der(tag: u8, content: &[u8]) -> Result<Vec<u8>, LabError> {
    let length = u16::try_from(content.len())
        .map_err(|_| LabError::Certificate("a certificate extension is over 65535 octets".to_owned()))?;
    let [high, low] = length.to_be_bytes();
    let mut element = vec![tag];
    match (high, low) {
        (0, low) if low < 0x80 => element.push(low),
        (0, low) => element.extend([0x81, low]),
        (high, low) => element.extend([0x82, high, low]),
    }
    element.extend_from_slice(content);
    Ok(element)
}

pub(crate) fn certificate_error(error: rcgen::Error) -> LabError {
    LabError::Certificate(error.to_string())
}

pub(crate) fn read(path: &Path) -> Result<String, LabError> {
    fs::read_to_string(path).map_err(|source| LabError::file(path, source))
}

/// Makes `path` and what is missing above it, enterable by the owner only.
pub(crate) fn create_private_directory(path: &Path) -> Result<(), LabError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| LabError::file(path, source))
}

/// Writes `path` whole or not at all, readable by the owner only.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), LabError> {
    let at = |source| LabError::file(path, source);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(at)?;
    file.write_all(content).map_err(at)?;
    file.sync_all().map_err(at)?;
    fs::rename(&fresh, path).map_err(at)?;
    // The rename itself is durable only once the directory is.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(at)?;
    }
    Ok(())
}
