//! The authority that vouches for API invokers and provider functions (TS 33.122 clause 6.1): certificates of X.509 version 3
//! whose names are those of [`sbi::capif::identity`].

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder, X509NameRef};
use sbi::capif::identity::{CapifIdentity, Role};

use super::config::AuthorityFiles;
use super::public_key::SubjectKey;
use crate::error::ExposureError;

/// Certificate and key of the authority.
pub(crate) struct Authority {
    certificate: X509,
    key: PKey<Private>,
    validity_days: u32,
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) pem: String,
    /// Lower-case hex.
    pub(crate) serial: String,
}

impl Authority {
    /// Opens the authority in `files`; makes them where neither is there.
    pub(crate) fn open_or_create(files: &AuthorityFiles, validity_days: u32) -> Result<Self, ExposureError> {
        if !files.certificate.exists() && !files.key.exists() {
            let (certificate, key) = own().map_err(|error| at(&files.certificate, &error))?;
            write_private(&files.key, &key).map_err(|error| at(&files.key, &error))?;
            write_private(&files.certificate, &certificate).map_err(|error| at(&files.certificate, &error))?;
        }
        Self::open(files, validity_days)
    }

    /// Opens the authority in `files`.
    pub(crate) fn open(files: &AuthorityFiles, validity_days: u32) -> Result<Self, ExposureError> {
        let certificate = fs::read(&files.certificate).map_err(|error| at(&files.certificate, &error))?;
        let certificate = X509::from_pem(&certificate).map_err(|error| at(&files.certificate, &error))?;
        let key = zeroize::Zeroizing::new(fs::read(&files.key).map_err(|error| at(&files.key, &error))?);
        let key = PKey::private_key_from_pem(&key).map_err(|error| at(&files.key, &error))?;
        let belongs = certificate.public_key().is_ok_and(|public| public.public_eq(&key));
        if !belongs {
            return Err(at(&files.key, &"the key does not belong to the authority's certificate"));
        }
        Ok(Self { certificate, key, validity_days })
    }

    /// A certificate for `key`, whose holder is `role` `id`. The DNS names are the operator's word, never the holder's.
    pub(crate) fn issue(
        &self,
        key: &SubjectKey,
        role: Role,
        id: &str,
        dns_names: &[String],
    ) -> Result<Issued, ErrorStack> {
        let serial = serial()?;
        let serial_hex = serial.to_hex_str()?.to_ascii_lowercase();
        let mut name = X509NameBuilder::new()?;
        name.append_entry_by_nid(Nid::COMMONNAME, id)?;
        let name = name.build();
        let mut builder = builder(&serial, &name, self.certificate.subject_name(), self.validity_days)?;
        builder.set_pubkey(&key.0)?;
        let identity = CapifIdentity { role, id: id.to_owned(), serial: serial_hex.clone(), names: Vec::new() };
        let mut names = SubjectAlternativeName::new();
        for uri in identity.uris() {
            names.uri(&uri);
        }
        for dns_name in dns_names {
            names.dns(dns_name);
        }
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let names = names.build(&context)?;
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        let subject = SubjectKeyIdentifier::new().build(&context)?;
        builder.append_extension(names)?;
        builder.append_extension(authority)?;
        builder.append_extension(subject)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
        builder.sign(&self.key, digest_for(&self.key))?;
        let pem = String::from_utf8(builder.build().to_pem()?).unwrap_or_default();
        Ok(Issued { pem, serial: serial_hex })
    }

    /// A key, PEM, and a certificate for it that says that its holder is the core function.
    pub(crate) fn issue_own(&self, id: &str) -> Result<(Vec<u8>, Issued), ErrorStack> {
        let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)?;
        let public = PKey::public_key_from_pem(&key.public_key_to_pem()?)?;
        let issued = self.issue(&SubjectKey(public), Role::Core, id, &[])?;
        Ok((key.private_key_to_pem_pkcs8()?, issued))
    }
}

fn builder(
    serial: &BigNum,
    subject: &X509NameRef,
    issuer: &X509NameRef,
    validity_days: u32,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    let serial = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let not_before = Asn1Time::from_unix(now - CLOCK_SKEW_SECONDS)?;
    let not_after = Asn1Time::days_from_now(validity_days)?;
    builder.set_not_before(&not_before)?;
    builder.set_not_after(&not_after)?;
    Ok(builder)
}

/// A self-signed authority: certificate and key, PEM.
fn own() -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
    let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "CAPIF authority")?;
    let name = name.build();
    let mut builder = builder(&serial()?, &name, &name, AUTHORITY_VALIDITY_DAYS)?;
    builder.set_pubkey(&key)?;
    let subject = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(subject)?;
    builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    builder.sign(&key, digest_for(&key))?;
    Ok((builder.build().to_pem()?, key.private_key_to_pem_pkcs8()?))
}

/// 16 random octets, positive and without leading zeros.
fn serial() -> Result<BigNum, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::ONE, false)?;
    Ok(serial)
}

fn digest_for(key: &PKey<Private>) -> MessageDigest {
    if key.id() == Id::ED25519 { MessageDigest::null() } else { MessageDigest::sha256() }
}

/// Writes `path` whole or not at all, readable by the owner only.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// What is wrong with the file at `path`.
fn at(path: &Path, error: &dyn std::fmt::Display) -> ExposureError {
    ExposureError::Configuration(format!("{}: {error}", path.display()))
}

/// How far a peer's clock may be behind ours.
const CLOCK_SKEW_SECONDS: i64 = 3_600;
const AUTHORITY_VALIDITY_DAYS: u32 = 3_650;
