//! The lab's CAPIF core function: its authority, its configuration, and the credentials of those who are to come.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::outside::{LOOPBACK_NAME, OUTSIDE_FUNCTIONS};
use crate::pki::write_private;
use crate::revocation::{capif_authority, capif_directory};
use crate::subscription::SecretHex;
use crate::{Directory, LabError, Ports};

/// Credentials for the CAPIF core function; the text of each is its hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapifCredentials {
    /// The NEF's, as an API provider domain.
    pub registration: SecretHex,
    /// API invokers', each good for one onboarding.
    pub onboarding: Vec<CapifCredential>,
}

/// The credential of one API invoker to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapifCredential {
    /// Its name at the core function.
    pub name: String,
    /// AS Service ID of the application server that it is for.
    pub as_service_id: String,
    /// DNS name that the invoker's certificate gets, by which the NEF knows the application server. It gets the loopback's, too,
    /// where in a lab everybody is reached.
    pub dns_name: String,
    /// The credential.
    pub token: SecretHex,
}

impl CapifCredentials {
    /// Credentials for each application server outside.
    pub(crate) fn generate(random: impl Fn() -> Result<SecretHex, LabError>) -> Result<Self, LabError> {
        let mut onboarding = Vec::new();
        for function in &OUTSIDE_FUNCTIONS {
            for number in 1..=CREDENTIALS_PER_SERVER {
                onboarding.push(CapifCredential {
                    name: format!("{}-{number}", function.name),
                    as_service_id: function.as_service_id.to_owned(),
                    dns_name: function.fqdn.to_owned(),
                    token: random()?,
                });
            }
        }
        Ok(Self { registration: random()?, onboarding })
    }
}

/// Enough for every way to call, and to try again.
const CREDENTIALS_PER_SERVER: usize = 16;

impl Directory {
    /// Makes what the core function and the NEF find in files: the CAPIF authority, the authorities of those that call the NEF
    /// from outside (application functions, API invokers), and the NEF's credential.
    pub(crate) fn write_capif_files(&self) -> Result<(), LabError> {
        capif_authority(&self.root().join("pki"))?;
        let read = |path: PathBuf| std::fs::read(&path).map_err(|source| LabError::file(&path, source));
        let both = [read(self.outside_authority())?, read(self.capif_directory().join("ca.pem"))?].concat();
        write_private(&self.nef_client_authorities(), &both)?;
        write_private(&self.capif_registration_file(), self.capif_credentials()?.registration.to_hex().as_bytes())
    }

    /// Who vouches for those that call the NEF from outside.
    pub(crate) fn nef_client_authorities(&self) -> PathBuf {
        self.root().join("pki").join("nef-clients.pem")
    }

    fn capif_registration_file(&self) -> PathBuf {
        self.root().join("pki").join("capif-registration.token")
    }

    fn capif_directory(&self) -> PathBuf {
        capif_directory(&self.root().join("pki"))
    }

    fn capif_credentials(&self) -> Result<&CapifCredentials, LabError> {
        self.network().capif.as_ref().ok_or_else(|| LabError::Configuration("no CAPIF credentials".to_owned()))
    }

    /// `[capif]`.
    pub(crate) fn capif(&self, ports: &Ports) -> Result<Value, LabError> {
        let credentials = self.capif_credentials()?;
        let onboarding: Vec<Value> = credentials
            .onboarding
            .iter()
            .map(|one| json!({"name": one.name, "token_sha256": digest(&one.token), "dns_names": [one.dns_name, LOOPBACK_NAME]}))
            .collect();
        let authority = self.capif_directory();
        Ok(json!({
            "listen": ports.capif,
            "data": self.state("capif"),
            "tls": self.certificate("capif"),
            "nrf": {"root": format!("https://{}", ports.nrf)},
            "authority": {"certificate": authority.join("ca.pem"), "key": authority.join("ca.key")},
            "onboarding": onboarding,
            "registration": [{"name": "nef", "token_sha256": digest(&credentials.registration)}],
        }))
    }

    /// `[nef.capif]`.
    pub(crate) fn nef_capif(&self, ports: &Ports) -> Value {
        json!({
            "core_function": format!("https://{}", ports.capif),
            "ca": self.certificate("nef").ca,
            "invoker_ca": self.capif_directory().join("ca.pem"),
            "registration_credential": self.capif_registration_file(),
            "data": self.state("nef-capif"),
            "interfaces": [
                {"ipv4Addr": ports.nef.ip(), "port": ports.nef.port(), "securityMethods": ["PKI", "OAUTH"]},
                {"ipv4Addr": ports.nef_psk.ip(), "port": ports.nef_psk.port(), "securityMethods": ["PSK"]},
            ],
            // Short, so that a lab shows soon what was changed.
            "check_interval_seconds": 5,
        })
    }
}

fn digest(token: &SecretHex) -> String {
    hex::encode(Sha256::digest(token.to_hex().as_bytes()))
}
