//! The profile of a client: who it is, where its server is, where its keys come from.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use akma::{Fqdn, HomeNetwork, RoutingIndicator, Separator, ServingNetworkName, Supi};
use client::{
    ClientConfig, ClientLimits, CommandKeySource, FileKeySource, KeySource, SoftUsim, SoftUsimConfig, StoredKeySource,
};
use lab::{Algorithm, AuthenticationMethod, LabJson, LabSubscriber, SecretHex};
use message::UeServiceId;
use sbi::{CertificateFiles, SbiClient, SbiClientConfig};
use serde::Deserialize;
use transport::{OfferedVersions, PskClientConfig};

use crate::{
    outcome::{Failure, chain},
    overlay,
};

/// How long a key command may take where the profile does not say.
const KEY_COMMAND_SECONDS: u64 = 30;
/// File of the state directory that holds the keys in use.
pub(crate) const KEYS_FILE: &str = "akma.json";
/// File of the state directory that holds the USIM's sequence numbers.
const USIM_FILE: &str = "usim.json";

/// A profile file. Relative paths in it start from the file's directory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// Who the client is.
    pub(crate) ue_service_id: UeServiceId,
    /// Directory for keys, sequence numbers and what was received; by default NAME.state beside the profile.
    #[serde(default)]
    pub(crate) state_dir: PathBuf,
    /// Supported Maximum MSGin5G segment size, told at registration.
    #[serde(default)]
    segment_size: Option<u32>,
    /// Authenticate anew when keys are this old.
    #[serde(default)]
    authenticate_after_seconds: Option<u64>,
    /// `[server]`
    pub(crate) server: ServerSection,
    /// `[tls]`
    #[serde(default)]
    tls: TlsSection,
    /// `[keys.usim]`, `[keys.file]` or `[keys.command]`
    keys: KeysSection,
    /// `[limits]`
    #[serde(default)]
    limits: ClientLimits,
}

/// Where the server is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerSection {
    /// `host:port` of CoAP over TLS.
    pub(crate) address: String,
    /// Its name, for SNI and AF_ID.
    pub(crate) fqdn: Fqdn,
    /// Uri-Path of its resource.
    #[serde(default = "default_path")]
    path: String,
}

/// How to connect.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsSection {
    versions: Versions,
    allow_plain_psk_tls12: bool,
    identity_separator: IdentitySeparator,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Versions {
    #[default]
    #[serde(rename = "both")]
    Both,
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum IdentitySeparator {
    #[default]
    #[serde(rename = ";")]
    Semicolon,
    #[serde(rename = ".")]
    Dot,
    #[serde(rename = "")]
    None,
}

/// Where keys come from: one of these.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeysSection {
    Usim(Box<UsimSection>),
    File(FileSection),
    Command(CommandSection),
}

/// A USIM in software.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsimSection {
    supi: Supi,
    k: SecretHex,
    #[serde(default)]
    opc: Option<SecretHex>,
    #[serde(default)]
    op: Option<SecretHex>,
    #[serde(default = "default_algorithm")]
    algorithm: Algorithm,
    #[serde(default)]
    routing_indicator: RoutingIndicator,
    home_network: HomeNetwork,
    #[serde(default)]
    serving_network: Option<ServingNetworkName>,
    ausf: String,
    tls: CertificateFiles,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSection {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandSection {
    program: String,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default = "default_key_command_seconds")]
    timeout_seconds: u64,
}

fn default_path() -> String {
    client::PATH_DEFAULT.to_owned()
}

fn default_algorithm() -> Algorithm {
    Algorithm::Milenage
}

fn default_key_command_seconds() -> u64 {
    KEY_COMMAND_SECONDS
}

impl Profile {
    /// Reads a profile and makes its paths independent of the current directory.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let mut profile: Self = overlay::load(path)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        if profile.state_dir.as_os_str().is_empty() {
            profile.state_dir = default_state_dir(path);
        } else {
            profile.state_dir = directory.join(&profile.state_dir);
        }
        match &mut profile.keys {
            KeysSection::Usim(usim) => {
                if usim.opc.is_some() == usim.op.is_some() {
                    return Err(Failure::new(format!("{}: keys.usim needs one of opc and op", path.display())));
                }
                for file in [&mut usim.tls.certificate, &mut usim.tls.key, &mut usim.tls.ca] {
                    *file = directory.join(&*file);
                }
            }
            KeysSection::File(file) => file.path = directory.join(&file.path),
            KeysSection::Command(_) => {}
        }
        Ok(profile)
    }

    /// What the client library needs; `timeout` bounds one message.
    pub(crate) fn client_config(&self, timeout: Duration) -> ClientConfig {
        let server = &self.server;
        let mut config = ClientConfig::new(&server.address, server.fqdn.clone(), self.ue_service_id.clone());
        config.path.clone_from(&server.path);
        config.segment_size = self.segment_size;
        config.state_dir = Some(self.state_dir.clone());
        config.authenticate_after = self.authenticate_after_seconds.map(Duration::from_secs);
        config.tls = PskClientConfig {
            versions: match self.tls.versions {
                Versions::Both => OfferedVersions::Both,
                Versions::Tls12 => OfferedVersions::Tls12,
                Versions::Tls13 => OfferedVersions::Tls13,
            },
            allow_plain_psk_tls12: self.tls.allow_plain_psk_tls12,
            separator: match self.tls.identity_separator {
                IdentitySeparator::Semicolon => Separator::Semicolon,
                IdentitySeparator::Dot => Separator::Dot,
                IdentitySeparator::None => Separator::None,
            },
            ..PskClientConfig::default()
        };
        config.limits = self.limits.clone();
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        config.limits.send_timeout_milliseconds = config.limits.send_timeout_milliseconds.min(timeout);
        config
    }

    /// The keys of the profile: those kept, or else those of its source.
    pub(crate) fn key_source(&self) -> Result<StoredKeySource, Failure> {
        let source: Box<dyn KeySource> = match &self.keys {
            KeysSection::Usim(usim) => Box::new(self.soft_usim(usim)?),
            KeysSection::File(file) => Box::new(FileKeySource::new(&file.path)),
            KeysSection::Command(command) => Box::new(CommandKeySource::new(
                &command.program,
                command.arguments.clone(),
                Duration::from_secs(command.timeout_seconds),
            )),
        };
        Ok(StoredKeySource::new(self.state_dir.join(KEYS_FILE), source))
    }

    fn soft_usim(&self, usim: &UsimSection) -> Result<SoftUsim, Failure> {
        let http = SbiClient::new(SbiClientConfig { tls: usim.tls.clone(), limits: sbi::ClientLimits::default() })
            .map_err(|error| {
                Failure::new(format!("keys.usim.tls: {}", chain(&error)))
                    .help("the certificate is that of a serving network's function; a lab's is in DIR/pki")
            })?;
        let config = SoftUsimConfig {
            supi: usim.supi.clone(),
            credentials: usim.credentials()?,
            routing_indicator: usim.routing_indicator.clone(),
            serving_network: usim.serving_network.clone().unwrap_or_else(|| usim.home_network.serving_network_name()),
            home_network: usim.home_network.clone(),
            ausf: usim.ausf.clone(),
            state: Some(self.state_dir.join(USIM_FILE)),
        };
        SoftUsim::new(config, http).map_err(|error| Failure::new(chain(&error)))
    }
}

impl UsimSection {
    fn credentials(&self) -> Result<akma::UsimCredentials, Failure> {
        // The lab's subscription has the same members and the same checks.
        let unused = || SecretHex::new(Vec::new());
        let mut subscription = lab::Subscription::new(self.supi.clone(), self.k.clone(), unused());
        subscription.opc.clone_from(&self.opc);
        subscription.op.clone_from(&self.op);
        subscription.algorithm = self.algorithm;
        subscription.credentials().map_err(|error| Failure::new(format!("keys.usim: {error}")))
    }
}

/// NAME.state beside NAME.toml.
fn default_state_dir(profile: &Path) -> PathBuf {
    profile.with_extension("state")
}

/// Writes the profile of one subscriber of a lab; yields the text.
pub(crate) fn from_lab(lab: &Lab, which: &str, state_dir: Option<&Path>) -> Result<String, Failure> {
    let subscriber = lab.subscriber(which)?;
    let server = &lab.json.server;
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    line(format_args!("# Profile of an MSGin5G client; it holds the keys of a SIM."));
    line(format_args!("ue_service_id = {}", quoted(&subscriber.ue_service_id)));
    if let Some(directory) = state_dir {
        line(format_args!("state_dir = {}", quoted(&absolute(directory).display().to_string())));
    }
    line(format_args!("\n[server]"));
    line(format_args!("address = {}", quoted(&server.coaps_tcp.to_string())));
    line(format_args!("fqdn = {}", quoted(&server.fqdn)));
    line(format_args!("path = {}", quoted(&server.path)));
    line(format_args!("\n[keys.usim]"));
    line(format_args!("supi = {}", quoted(subscriber.supi.as_str())));
    line(format_args!("k = {}", quoted(&subscriber.k.to_hex())));
    line(format_args!("opc = {}", quoted(&subscriber.opc.to_hex())));
    let algorithm = match subscriber.algorithm {
        Algorithm::Tuak => "tuak",
        _ => "milenage",
    };
    line(format_args!("algorithm = {}", quoted(algorithm)));
    line(format_args!("routing_indicator = {}", quoted(&subscriber.routing_indicator)));
    let network = &lab.json.home_network;
    line(format_args!("home_network = {{ mcc = {}, mnc = {} }}", quoted(&network.mcc), quoted(&network.mnc)));
    line(format_args!("ausf = {}", quoted(&lab.json.core.ausf)));
    line(format_args!("\n[keys.usim.tls]"));
    line(format_args!("certificate = {}", quoted(&lab.path(&lab.json.nf_client.cert))));
    line(format_args!("key = {}", quoted(&lab.path(&lab.json.nf_client.key))));
    line(format_args!("ca = {}", quoted(&lab.path(&lab.json.ca))));
    if let Some(AuthenticationMethod::EapAkaPrime) = subscriber.authentication_method {
        line(format_args!("\n# The home network authenticates this subscriber with EAP-AKA'."));
    }
    Ok(text)
}

/// Text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// An opened `lab.json`.
pub(crate) struct Lab {
    pub(crate) json: LabJson,
    directory: PathBuf,
}

impl Lab {
    /// Reads `lab.json`, or that of a directory.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let path = if path.is_dir() { path.join("lab.json") } else { path.to_owned() };
        let text = std::fs::read(&path).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}", path.display()))
                .help("`msgin5g lab --dir DIR` writes DIR/lab.json; give that file")
        })?;
        let json = serde_json::from_slice(&text).map_err(|error| {
            // The error's own text quotes values, which may be keys.
            let place = format!("line {}, column {}", error.line(), error.column());
            Failure::new(format!("{} is not a lab's file: {place}", path.display()))
        })?;
        let directory = absolute(path.parent().unwrap_or(Path::new("")));
        Ok(Self { json, directory })
    }

    /// A path of the file, which is relative to the lab's directory.
    pub(crate) fn path(&self, path: &str) -> String {
        self.directory.join(path).display().to_string()
    }

    /// The certificate that the lab's functions let provision.
    pub(crate) fn provisioner(&self) -> CertificateFiles {
        let file = |name: &str| self.directory.join("pki").join(name);
        CertificateFiles {
            certificate: file("provisioner.pem"),
            key: file("provisioner.key"),
            ca: self.directory.join(&self.json.ca),
        }
    }

    fn subscriber(&self, which: &str) -> Result<&LabSubscriber, Failure> {
        let subscribers = &self.json.subscribers;
        let by_name = subscribers.iter().find(|subscriber| {
            [subscriber.supi.as_str(), subscriber.gpsi.as_str(), subscriber.ue_service_id.as_str()].contains(&which)
        });
        by_name.or_else(|| subscribers.get(which.parse::<usize>().ok()?)).ok_or_else(|| {
            let names: Vec<&str> = subscribers.iter().map(|subscriber| subscriber.ue_service_id.as_str()).collect();
            Failure::new(format!("the lab has no subscriber {which}"))
                .help(format!("give a number from 0, a SUPI, a GPSI, or one of {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const USIM: &str = r#"
        ue_service_id = "meter-1@lab.example"
        [server]
        address = "127.0.0.1:5684"
        fqdn = "msgin5g.lab.example"
        [keys.usim]
        supi = "imsi-001010000000001"
        k = "465b5ce8b199b49faa5f0a2ee238a6bc"
        opc = "cd63cb71954a9f4e48a5994e37a02baf"
        home_network = { mcc = "001", mnc = "01" }
        ausf = "https://127.0.0.1:7002"
        tls = { certificate = "nf.pem", key = "nf.key", ca = "ca.pem" }
    "#;

    fn load(text: &str) -> Result<Profile, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meter.toml");
        std::fs::write(&path, text).unwrap();
        Profile::load(&path)
    }

    #[test]
    fn paths_start_from_the_profile_and_the_state_has_a_place_of_its_own() {
        let profile = load(USIM).unwrap();
        assert!(profile.state_dir.ends_with("meter.state") && profile.state_dir.is_absolute());
        let KeysSection::Usim(usim) = &profile.keys else { panic!("another source") };
        assert_eq!(usim.tls.certificate.parent(), profile.state_dir.parent());
        assert!(usim.credentials().is_ok());
        let profile = load(&USIM.replacen("[server]", "state_dir = \"elsewhere\"\n[server]", 1)).unwrap();
        assert!(profile.state_dir.ends_with("elsewhere") && profile.state_dir.is_absolute());
    }

    #[test]
    fn every_kind_of_key_source_is_read() {
        let server = USIM.split("[keys.usim]").next().unwrap().to_owned();
        assert!(matches!(load(&format!("{server}[keys.file]\npath = \"k\"")).unwrap().keys, KeysSection::File(_)));
        let command = format!("{server}[keys.command]\nprogram = \"modem\"\narguments = [\"--akma\"]");
        assert!(matches!(load(&command).unwrap().keys, KeysSection::Command(_)));
        assert!(load(&server).is_err());
        assert!(load(&format!("{server}[keys.file]\npath = \"k\"\n[keys.command]\nprogram = \"m\"")).is_err());
    }

    #[test]
    fn a_misspelt_key_is_named_and_a_secret_is_not_shown() {
        let failure = load(&USIM.replace("fqdn =", "fqnd =")).unwrap_err();
        assert!(format!("{failure:?}").contains("fqnd"), "{failure:?}");
        let failure = load(&USIM.replace("465b", "465x")).unwrap_err();
        assert!(format!("{failure:?}").contains("keys") && !format!("{failure:?}").contains("465x"), "{failure:?}");
        let failure = load(&USIM.replace("opc =", "op = \"00\"\nopc =")).unwrap_err();
        assert!(format!("{failure:?}").contains("one of opc and op"), "{failure:?}");
    }
}
