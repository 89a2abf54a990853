//! Certificates of the lab that no longer stand: the CRLs of its authorities.
//!
//! | Authority | CRL | Who checks it |
//! |---|---|---|
//! | the operator's, `pki/ca.pem` | `pki/ca.crl` | every function, of its peers inside |
//! | of application functions outside, `pki/af-ca.pem` | `pki/af-ca.crl` | the NEF, of those that call it |
//! | of the CAPIF core function, `pki/capif/ca.pem` | `pki/capif/ca.crl`, which names nobody: it withdraws an invoker by its API | the NEF |
//!
//! The NEF finds the last two in one file, `pki/nef-clients.crl`. What is revoked is kept beside each CRL; commands and a
//! running lab change both at the same time, so whoever does holds a lock.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use openssl::x509::X509;
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::LabError;
use crate::outside::OutsideAuthority;
use crate::pki::{CertificateAuthority, certificate_error, read, write_private};

/// How long a CRL is good. A running lab writes a new one every [`CRL_RENEWAL`].
const CRL_VALIDITY: Duration = Duration::days(30);
/// How often whoever runs a lab has to call [`Revocations::write`].
pub const CRL_RENEWAL: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
/// How far a peer's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::hours(24);

/// The CRLs of a lab's authorities.
pub struct Revocations {
    pki: PathBuf,
    inside: CertificateAuthority,
    outside: OutsideAuthority,
    capif: CertificateAuthority,
}

impl Revocations {
    /// Those of the lab whose certificates lie in `pki`, which may be running.
    pub(crate) fn open(pki: &Path, realm: &str) -> Result<Self, LabError> {
        Ok(Self {
            pki: pki.to_owned(),
            inside: CertificateAuthority::open(pki, realm)?,
            outside: OutsideAuthority::open_or_create(pki)?,
            capif: capif_authority(pki)?,
        })
    }

    /// Revokes the certificate in `pki/<name>.pem`, whichever authority it is from, and writes the CRLs. Whoever checks them
    /// knows the next time it looks: the lab's functions within 5 seconds. To revoke it again changes nothing.
    ///
    /// # Errors
    /// When there is no such certificate, or a file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), LabError> {
        let _lock = lock(&self.pki.join(ALL_LOCK))?;
        if self.outside.has_issued(name)? {
            self.outside.revoke(name)?
        } else {
            self.inside.revoke(name)?
        }
        self.write_all()
    }

    /// Writes all of them anew, good for 30 days.
    ///
    /// # Errors
    /// When one cannot be written, or what is revoked cannot be read.
    pub fn write(&self) -> Result<(), LabError> {
        let _lock = lock(&self.pki.join(ALL_LOCK))?;
        self.write_all()
    }

    fn write_all(&self) -> Result<(), LabError> {
        self.inside.write_crl()?;
        self.outside.write_crl()?;
        self.capif.write_crl()?;
        let of_outside = read(&self.outside.crl())?;
        let of_capif = read(&capif_directory(&self.pki).join("ca.crl"))?;
        write_private(&nef_clients_crl(&self.pki), format!("{of_outside}{of_capif}").as_bytes())
    }
}

/// The directory of the CAPIF core function's authority.
pub(crate) fn capif_directory(pki: &Path) -> PathBuf {
    pki.join("capif")
}

/// The CAPIF core function's authority; made if it is not there.
pub(crate) fn capif_authority(pki: &Path) -> Result<CertificateAuthority, LabError> {
    CertificateAuthority::open_or_create(&capif_directory(pki), "capif.lab.example")
}

/// The CRLs of those that call the NEF from outside.
pub(crate) fn nef_clients_crl(pki: &Path) -> PathBuf {
    pki.join("nef-clients.crl")
}

/// The CRL of one authority, and what is on it.
pub(crate) struct RevocationList {
    directory: PathBuf,
    crl: &'static str,
    revoked: &'static str,
}

/// A certificate that no longer stands; an entry of the file beside a CRL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Revoked {
    /// Name of the holder's files.
    name: String,
    /// Serial number, hexadecimal.
    serial: String,
    /// When, seconds since 1970.
    time: i64,
}

impl RevocationList {
    /// The files `crl` and `revoked` in `directory`.
    pub(crate) fn new(directory: &Path, crl: &'static str, revoked: &'static str) -> Self {
        Self { directory: directory.to_owned(), crl, revoked }
    }

    /// The CRL's file.
    pub(crate) fn crl(&self) -> PathBuf {
        self.directory.join(self.crl)
    }

    /// Adds the certificate in `path`, of holder `name`, and writes the CRL.
    pub(crate) fn add(&self, issuer: &Issuer<'_, KeyPair>, name: &str, path: PathBuf) -> Result<(), LabError> {
        let certificate = X509::from_pem(read(&path)?.as_bytes());
        let serial = certificate
            .and_then(|certificate| certificate.serial_number().to_bn())
            .map_err(|_| LabError::Content { path, reason: "it is no certificate".to_owned() })?;
        let serial = hex::encode(serial.to_vec());
        let _lock = self.lock()?;
        let mut revoked = self.revoked()?;
        if !revoked.iter().any(|known| known.serial == serial) {
            let time = OffsetDateTime::now_utc().unix_timestamp();
            revoked.push(Revoked { name: name.to_owned(), serial, time });
            let text = serde_json::to_vec_pretty(&revoked).map_err(|error| self.bad_revoked(&error))?;
            write_private(&self.directory.join(self.revoked), &text)?;
        }
        self.sign(issuer, &revoked)
    }

    /// Writes the CRL anew, good for 30 days.
    pub(crate) fn write(&self, issuer: &Issuer<'_, KeyPair>) -> Result<(), LabError> {
        let _lock = self.lock()?;
        self.sign(issuer, &self.revoked()?)
    }

    fn sign(&self, issuer: &Issuer<'_, KeyPair>, revoked: &[Revoked]) -> Result<(), LabError> {
        let now = OffsetDateTime::now_utc();
        let revoked_certs = revoked.iter().map(|revoked| {
            let serial = hex::decode(&revoked.serial).map_err(|error| self.bad_revoked(&error))?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: OffsetDateTime::from_unix_timestamp(revoked.time)
                    .map_err(|error| self.bad_revoked(&error))?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: now - CLOCK_SKEW,
            next_update: now + CRL_VALIDITY,
            // RFC 5280 clause 5.2.3: every CRL a higher one.
            crl_number: SerialNumber::from(u64::try_from(now.unix_timestamp_nanos()).unwrap_or_default()),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect::<Result<_, LabError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(issuer).and_then(|crl| crl.pem()).map_err(certificate_error)?;
        write_private(&self.crl(), crl.as_bytes())
    }

    fn revoked(&self) -> Result<Vec<Revoked>, LabError> {
        let path = self.directory.join(self.revoked);
        if !path.exists() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&read(&path)?).map_err(|error| self.bad_revoked(&error))
    }

    fn bad_revoked(&self, error: &dyn std::fmt::Display) -> LabError {
        LabError::Content { path: self.directory.join(self.revoked), reason: error.to_string() }
    }

    /// Waits until nobody else changes what is revoked.
    fn lock(&self) -> Result<fs::File, LabError> {
        lock(&self.directory.join(LOCK))
    }
}

fn lock(path: &Path) -> Result<fs::File, LabError> {
    let at = |source| LabError::file(path, source);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(at)?;
    file.lock().map_err(at)?;
    Ok(file)
}

/// Held by whoever changes one CRL, and by whoever brings several together.
const LOCK: &str = "pki.lock";
const ALL_LOCK: &str = "crls.lock";
