//! What the start of a function opens, opened without starting it: a configuration whose files are missing, damaged, not for
//! this user, or do not belong together is told before anything serves by it.
//!
//! Nothing is made or changed. Each refusal is [`SbiError::File`] with the key that names the file.

use std::path::Path;

use transport::capif::server_authenticated_client;
use transport::profile::{Authorities, CertificateFiles, ReloadingContext};

use crate::SbiError;
use crate::assertion::AssertionKeys;
use crate::authorization::{AuthorizationConfig, check_issuers};
use crate::capif::aef::AefConfig;
use crate::nrf::{NrfClient, NrfConfig};
use crate::own_certificate::OwnCertificate;

/// Certificate, key, authorities and CRL of both ends of mutual TLS; with them, an access token can name this function, and
/// assertions are checked.
///
/// # Errors
/// [`SbiError::File`].
pub fn mutual_tls(key: &str, files: &CertificateFiles) -> Result<(), SbiError> {
    let opened = || {
        OwnCertificate::read(files)?;
        ReloadingContext::server(files.clone(), false)?;
        ReloadingContext::client(files.clone())?;
        AssertionKeys::open(files).map_err(SbiError::from).map(drop)
    };
    of_key(key, opened())
}

/// Those of a server whose clients have no certificates: its authority is not used.
///
/// # Errors
/// [`SbiError::File`].
pub fn server_for_devices(key: &str, files: &CertificateFiles) -> Result<(), SbiError> {
    of_key(key, ReloadingContext::server_for_devices(files.clone(), false).map(drop).map_err(SbiError::from))
}

/// The keys of the issuers, each a JSON Web Key Set, or PEM public keys or certificates.
///
/// # Errors
/// [`SbiError::Authorization`], with the issuer and the file.
pub fn issuers(authorization: &AuthorizationConfig) -> Result<(), SbiError> {
    Ok(check_issuers(authorization)?)
}

/// What a client of the NRF needs of the certificate: an NF instance ID, and a key that can sign assertions where it is to.
///
/// # Errors
/// [`SbiError::File`].
pub fn nrf(nrf: Option<&NrfConfig>, files: &CertificateFiles, nf_type: &str) -> Result<(), SbiError> {
    of_key("nrf", NrfClient::optional(nrf, files, nf_type).map(drop))
}

/// The authorities of the core function and of API invokers, and the registration credential where it is still to be used: an
/// exposing function that is registered needs it no more. `key` names the section.
///
/// # Errors
/// [`SbiError::File`].
pub fn exposing_function(key: &str, config: &AefConfig) -> Result<(), SbiError> {
    let unusable = SbiError::from;
    of_key(&format!("{key}.ca"), server_authenticated_client(&config.ca).map(drop).map_err(unusable))?;
    of_key(&format!("{key}.invoker_ca"), Authorities::of_file(config.invoker_ca.clone()).map(drop).map_err(unusable))?;
    if config.is_registered() {
        return Ok(());
    }
    readable(&format!("{key}.registration_credential"), &config.registration_credential)
}

/// A file that is read as it is, and holds something.
///
/// # Errors
/// [`SbiError::File`].
pub fn readable(key: &str, path: &Path) -> Result<(), SbiError> {
    let told = match std::fs::read(path) {
        Ok(content) if content.is_empty() => "is empty".to_owned(),
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    of_key(key, Err(SbiError::Unusable(format!("{}: {told}", path.display()))))
}

/// The same refusal with the key that it is about.
///
/// # Errors
/// [`SbiError::File`].
pub fn of_key<T>(key: &str, opened: Result<T, SbiError>) -> Result<T, SbiError> {
    opened.map_err(|source| SbiError::File { key: key.to_owned(), source: Box::new(source) })
}
