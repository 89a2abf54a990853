//! The profile of a client: who it is, where its server is, where its keys come from.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use akma::{Fqdn, HomeNetwork, RoutingIndicator, Separator, ServingNetworkName, Supi};
use client::{
    AggregationPolicy, ClientConfig, ClientError, ClientLimits, CommandKeySource, ConfigurationFunction, FileKeySource,
    KeySource, SharedKeySource, SoftUsim, SoftUsimConfig, StoredKeySource, Transport, UeConfiguration,
};
use lab::{Algorithm, AuthenticationMethod, LabJson, LabSubscriber, SecretHex};
use message::{CommunicationAvailability, TriggeringInformation, UeServiceId};
use sbi::{CertificateFiles, SbiClient, SbiClientConfig};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use transport::{OfferedVersions, PskClientConfig};

use crate::{
    cli::{ProfileFromLabArgs, TransportArg},
    outcome::{Failure, chain},
    overlay,
};

/// How long a key command may take where the profile does not say.
const KEY_COMMAND_SECONDS: u64 = 30;
/// File of the state directory that holds the keys in use.
pub(crate) const KEYS_FILE: &str = "akma.json";
/// File of the state directory that keeps what the Configuration Function said.
const CONFIGURATION_FILE: &str = "ue-configuration.json";
/// File of the state directory that holds the USIM's sequence numbers.
const USIM_FILE: &str = "usim.json";

/// A profile file. Relative paths in it start from the file's directory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileFile {
    /// Who the client is, unless the Configuration Function says.
    #[serde(default)]
    ue_service_id: Option<UeServiceId>,
    /// Directory for keys, sequence numbers and what was received; by default NAME.state beside the profile.
    #[serde(default)]
    pub(crate) state_dir: PathBuf,
    /// Supported Maximum MSGin5G segment size, told at registration.
    #[serde(default)]
    segment_size: Option<u32>,
    /// `[aggregation]`
    #[serde(default)]
    aggregation: Option<AggregationSection>,
    /// `[availability]`
    #[serde(default)]
    availability: Option<AvailabilitySection>,
    /// `[triggering]`
    #[serde(default)]
    triggering: Option<TriggeringSection>,
    /// Authenticate anew when keys are this old.
    #[serde(default)]
    authenticate_after_seconds: Option<u64>,
    /// `[server]`, unless the Configuration Function says where it is.
    #[serde(default)]
    server: Option<ServerSection>,
    /// `[configuration]`
    #[serde(default)]
    configuration: Option<ConfigurationSection>,
    /// `[https]`: the server is reached over HTTPS.
    #[serde(default)]
    https: Option<HttpsSection>,
    /// `[tls]`
    #[serde(default)]
    tls: TlsSection,
    /// `[keys.usim]`, `[keys.file]` or `[keys.command]`
    keys: KeysSection,
    /// `[limits]`
    #[serde(default)]
    limits: ClientLimits,
}

/// When small messages are sent as one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AggregationSection {
    /// How long a message waits for others to the same recipient.
    wait_milliseconds: u64,
    /// Octets of payload of them together; by default one segment.
    #[serde(default)]
    octets_max: Option<usize>,
}

/// When the client can be reached.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AvailabilitySection {
    start: Start,
    duration_seconds: u32,
    #[serde(default)]
    interval_seconds: Option<u32>,
}

/// A time as RFC 3339 has it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Start(OffsetDateTime);

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        OffsetDateTime::parse(&text, &Rfc3339)
            .map(Self)
            .map_err(|_| format!("`{text}` is not a time; write 2026-12-01T06:00:00Z"))
    }
}

/// How the device is triggered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggeringSection {
    #[serde(default)]
    ue_identifier: Option<String>,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    protocol: Option<String>,
}

/// A client that knows who it is and where its server is: from its profile file, or from the Configuration Function.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Who the client is.
    pub(crate) ue_service_id: UeServiceId,
    /// Directory for keys, sequence numbers and what was received.
    pub(crate) state_dir: PathBuf,
    /// Where the server is.
    pub(crate) server: ServerSection,
    segment_size: Option<u32>,
    file: ProfileFile,
}

/// Where the server is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerSection {
    /// `host:port` of CoAP over TLS, over what `transport` says; with `[https]`, of HTTPS.
    pub(crate) address: String,
    /// What carries CoAP.
    #[serde(default)]
    transport: Transport,
    /// Its name, for SNI and AF_ID.
    pub(crate) fqdn: Fqdn,
    /// Uri-Path of its resource.
    #[serde(default = "default_path")]
    path: String,
}

/// Where a client learns who it is and where its server is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigurationSection {
    /// `host:port` of the Configuration Function's CoAP over TLS.
    address: String,
    /// Its name, for SNI and AF_ID.
    fqdn: Fqdn,
    /// Which UE Service ID is wanted, where the UE has several.
    #[serde(default)]
    ue_service_id: Option<UeServiceId>,
}

/// The server over HTTPS and HTTP Digest, at `server.address`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpsSection {
    /// PEM: the authority of the server's certificate.
    ca: PathBuf,
    /// Which Ua* protocol identifier K_AF has: as the server's `https.ua_protocol`.
    #[serde(default)]
    ua_protocol: akma::DigestUaProtocol,
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

/// What a profile says about its identity.
enum Identity<'a> {
    Own(&'a UeServiceId, &'a ServerSection),
    Configured(&'a ConfigurationSection),
}

impl ProfileFile {
    /// Reads a profile file and makes its paths independent of the current directory.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let mut profile: Self = overlay::load(path)?;
        profile.identity().map_err(|reason| Failure::new(format!("{}: {reason}", path.display())))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        if profile.state_dir.as_os_str().is_empty() {
            profile.state_dir = default_state_dir(path);
        } else {
            profile.state_dir = directory.join(&profile.state_dir);
        }
        if let Some(https) = &mut profile.https {
            https.ca = directory.join(&https.ca);
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

    /// Who the client is, if the profile says so itself.
    pub(crate) fn ue_service_id(&self) -> Option<&UeServiceId> {
        self.ue_service_id.as_ref()
    }

    fn identity(&self) -> Result<Identity<'_>, &'static str> {
        if self.https.is_some() && self.configuration.is_some() {
            return Err("[https] needs [server]: the Configuration Function says where CoAP is served");
        }
        let carries_coap = |server: &ServerSection| !matches!(server.transport, Transport::Tcp);
        if self.https.is_some() && self.server.as_ref().is_some_and(carries_coap) {
            return Err("server.transport says what carries CoAP, and with [https] nothing does");
        }
        match (&self.ue_service_id, &self.server, &self.configuration) {
            (Some(ue_service_id), Some(server), None) => Ok(Identity::Own(ue_service_id, server)),
            (None, None, Some(configuration)) => Ok(Identity::Configured(configuration)),
            (_, _, Some(_)) => Err("[configuration] says who the client is and where its server is: \
                                    ue_service_id and [server] must not stand beside it"),
            (None, _, None) => Err("ue_service_id is missing; without it there has to be [configuration]"),
            (_, None, None) => Err("[server] is missing; without it there has to be [configuration]"),
        }
    }

    /// The file that keeps what the Configuration Function said.
    fn kept_path(&self) -> PathBuf {
        self.state_dir.join(CONFIGURATION_FILE)
    }

    /// The Configuration Function that says who the client is; none if the profile itself does.
    pub(crate) fn configuration_function(&self) -> Option<(ConfigurationFunction, PathBuf)> {
        let Ok(Identity::Configured(section)) = self.identity() else { return None };
        let mut function = ConfigurationFunction::new(&section.address, section.fqdn.clone());
        function.ue_service_id.clone_from(&section.ue_service_id);
        function.tls = self.tls.config();
        function.limits = self.limits.clone();
        Some((function, self.kept_path()))
    }

    /// The profile with what it says itself, or with what the Configuration Function said last.
    fn known(self) -> Result<Profile, Failure> {
        let function = self.configuration_function();
        let (ue_service_id, server, segment_size) = match self.identity() {
            Ok(Identity::Own(ue_service_id, server)) => (ue_service_id.clone(), server.clone(), self.segment_size),
            Err(reason) => return Err(Failure::new(reason)),
            Ok(Identity::Configured(_)) => {
                let kept = function.and_then(|(function, path)| function.kept(&path)).ok_or_else(|| {
                    Failure::new("the Configuration Function has not said yet who this client is")
                        .help("`msgin5g client configure --profile FILE` asks it")
                })?;
                return Ok(self.configured_as(&kept));
            }
        };
        Ok(Profile { ue_service_id, state_dir: self.state_dir.clone(), server, segment_size, file: self })
    }

    /// The profile with what the Configuration Function says.
    fn configured_as(self, configuration: &UeConfiguration) -> Profile {
        let server = ServerSection {
            address: configuration.server.socket(),
            // What its address says: `coaps+tcp`.
            transport: Transport::Tcp,
            fqdn: configuration.server.fqdn.clone(),
            path: configuration.server.path.clone(),
        };
        // What the device can take is known best to whoever wrote its profile.
        let segment_size = self.segment_size.or(configuration.segment_size);
        let ue_service_id = configuration.ue_service_id.clone();
        Profile { ue_service_id, state_dir: self.state_dir.clone(), server, segment_size, file: self }
    }

    /// The profile with what the Configuration Function says now, if it has to be asked and can be; with its keys.
    pub(crate) async fn configured(self, source: &SharedKeySource, timeout: Duration) -> Result<Profile, Failure> {
        let Some((function, kept)) = self.configuration_function() else { return self.known() };
        let obtaining = function.obtain(Arc::new(source.clone()), &kept);
        match tokio::time::timeout(timeout, obtaining).await {
            Ok(Ok(configuration)) => Ok(self.configured_as(&configuration)),
            Ok(Err(error)) => Err(configuration_failure(&error)),
            Err(_) => match function.kept(&kept) {
                Some(configuration) => Ok(self.configured_as(&configuration)),
                None => Err(Failure::new(format!("no configuration within {timeout:?}"))
                    .help("is the Configuration Function up, and is configuration.address its address?")),
            },
        }
    }
}

/// Why there is no configuration, and what the user can do about it.
pub(crate) fn configuration_failure(error: &ClientError) -> Failure {
    let failure = Failure::new(chain(error));
    match error {
        ClientError::Unreachable { .. } => {
            failure.help("is the Configuration Function up, and is configuration.address its address?")
        }
        ClientError::KeysRefused(_) => failure.help(
            "is AKMA allowed for the subscriber, is configuration.fqdn the function's own name, and does its AAnF answer?",
        ),
        ClientError::ConfigurationRefused { .. } => {
            failure.help("associate the UE with a UE Service ID: msgin5g association add --ue-id SUPI --ue-service-id ID")
        }
        _ => failure,
    }
}

impl TlsSection {
    fn config(&self) -> PskClientConfig {
        PskClientConfig {
            versions: match self.versions {
                Versions::Both => OfferedVersions::Both,
                Versions::Tls12 => OfferedVersions::Tls12,
                Versions::Tls13 => OfferedVersions::Tls13,
            },
            allow_plain_psk_tls12: self.allow_plain_psk_tls12,
            separator: match self.identity_separator {
                IdentitySeparator::Semicolon => Separator::Semicolon,
                IdentitySeparator::Dot => Separator::Dot,
                IdentitySeparator::None => Separator::None,
            },
            ..PskClientConfig::default()
        }
    }
}

impl Profile {
    /// Reads a profile, with what the Configuration Function said last where it says who the client is.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        ProfileFile::load(path)?.known()
    }

    /// What the client library needs; `timeout` bounds one message.
    pub(crate) fn client_config(&self, timeout: Duration) -> ClientConfig {
        let (server, file) = (&self.server, &self.file);
        let mut config = ClientConfig::new(&server.address, server.fqdn.clone(), self.ue_service_id.clone());
        config.transport = server.transport;
        config.path.clone_from(&server.path);
        config.segment_size = self.segment_size;
        config.state_dir = Some(self.state_dir.clone());
        config.authenticate_after = file.authenticate_after_seconds.map(Duration::from_secs);
        config.tls = file.tls.config();
        if let Some(https) = &file.https {
            (config.https_ca, config.https_ua_protocol) = (Some(https.ca.clone()), https.ua_protocol);
        }
        config.limits = file.limits.clone();
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        config.limits.send_timeout_milliseconds = config.limits.send_timeout_milliseconds.min(timeout);
        let segment_octets = self.segment_size.and_then(|octets| usize::try_from(octets).ok()).unwrap_or(usize::MAX);
        config.aggregation = file.aggregation.as_ref().map(|section| AggregationPolicy {
            wait: Duration::from_millis(section.wait_milliseconds),
            octets_max: section.octets_max.unwrap_or(segment_octets.min(config.limits.payload_octets_max)),
        });
        config.availability = file.availability.as_ref().map(|section| CommunicationAvailability {
            start: section.start.0,
            duration_seconds: section.duration_seconds,
            interval_seconds: section.interval_seconds,
        });
        config.triggering = file.triggering.as_ref().map(|section| TriggeringInformation {
            ue_identifier: section.ue_identifier.clone(),
            ports: section.ports.clone(),
            protocol: section.protocol.clone(),
        });
        config
    }

    /// The keys of the profile: those kept, or else those of its source.
    pub(crate) fn key_source(&self) -> Result<StoredKeySource, Failure> {
        self.file.key_source()
    }
}

impl ProfileFile {
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
pub(crate) fn from_lab(lab: &Lab, arguments: &ProfileFromLabArgs) -> Result<String, Failure> {
    let (which, state_dir, bootstrap) = (&arguments.subscriber, arguments.state_dir.as_deref(), arguments.bootstrap);
    let subscriber = lab.subscriber(which)?;
    let server = &lab.json.server;
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    line(format_args!("# Profile of an MSGin5G client; it holds the keys of a SIM."));
    if !bootstrap {
        line(format_args!("ue_service_id = {}", quoted(&subscriber.ue_service_id)));
    }
    if let Some(directory) = state_dir {
        line(format_args!("state_dir = {}", quoted(&absolute(directory).display().to_string())));
    }
    if bootstrap {
        let core = &lab.json.core;
        let (Some(address), Some(fqdn)) = (&core.configuration_coaps_tcp, &core.configuration_fqdn) else {
            return Err(Failure::new("the lab's Configuration Function does not serve UEs"));
        };
        line(format_args!("\n[configuration]"));
        line(format_args!("address = {}", quoted(&address.to_string())));
        line(format_args!("fqdn = {}", quoted(fqdn)));
    } else {
        line(format_args!("\n[server]"));
        match arguments.transport {
            TransportArg::Tcp => line(format_args!("address = {}", quoted(&server.coaps_tcp.to_string()))),
            TransportArg::Websocket => {
                let address =
                    server.coaps_ws.ok_or_else(|| Failure::new("the lab's server does not serve WebSocket"))?;
                line(format_args!("address = {}", quoted(&address.to_string())));
                line(format_args!("transport = \"websocket\""));
            }
            TransportArg::Udp => {
                let address = server.coaps.ok_or_else(|| Failure::new("the lab's server does not serve UDP"))?;
                line(format_args!("address = {}", quoted(&address.to_string())));
                line(format_args!("transport = \"udp\""));
            }
            TransportArg::OscoreUdp | TransportArg::OscoreTcp => {
                let (address, name) = match arguments.transport {
                    TransportArg::OscoreUdp => (server.coap, "oscore-udp"),
                    _ => (server.coap_tcp, "oscore-tcp"),
                };
                let address = address.ok_or_else(|| Failure::new("the lab's server does not serve OSCORE"))?;
                line(format_args!("address = {}", quoted(&address.to_string())));
                line(format_args!("transport = {}", quoted(name)));
            }
            TransportArg::Https => {
                let root = server.https.as_deref();
                let root = root.ok_or_else(|| Failure::new("the lab's server is not reached over HTTPS"))?;
                line(format_args!("address = {}", quoted(root.trim_start_matches("https://"))));
            }
        }
        line(format_args!("fqdn = {}", quoted(&server.fqdn)));
        line(format_args!("path = {}", quoted(&server.path)));
        if let TransportArg::Https = arguments.transport {
            line(format_args!("\n[https]"));
            line(format_args!("ca = {}", quoted(&lab.path(&lab.json.ca))));
        }
    }
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
            crl: None,
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

    fn load(text: &str) -> Result<ProfileFile, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meter.toml");
        std::fs::write(&path, text).unwrap();
        ProfileFile::load(&path)
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
    fn what_the_device_can_do_reaches_the_client() {
        let own = "segment_size = 256\n[aggregation]\nwait_milliseconds = 50\n[availability]\n\
            start = \"2026-12-01T06:00:00Z\"\nduration_seconds = 60\ninterval_seconds = 3600\n[triggering]\n\
            ports = [4000]\nprotocol = \"SMS\"\n[server]";
        let text = USIM.replacen("[server]", own, 1);
        let config = load(&text).unwrap().known().unwrap().client_config(Duration::from_secs(30));
        assert_eq!(config.aggregation.unwrap().octets_max, 256);
        assert_eq!(config.availability.unwrap().interval_seconds, Some(3600));
        assert_eq!(config.triggering.unwrap().ports, [4000]);
        assert!(load(&text.replace("2026-12-01T06", "tomorrow")).is_err());
    }

    #[test]
    fn a_server_is_reached_over_https_where_the_profile_has_its_authority() {
        let text = USIM.replacen("[keys.usim]", "[https]\nca = \"pki/ca.pem\"\n[keys.usim]", 1);
        let config = load(&text).unwrap().known().unwrap().client_config(Duration::from_secs(30));
        assert!(config.https_ca.unwrap().ends_with("pki/ca.pem"));
        let suite = text.replacen("[keys.usim]", "ua_protocol = \"cipher_suite\"\n[keys.usim]", 1);
        let config = load(&suite).unwrap().known().unwrap().client_config(Duration::from_secs(30));
        assert_eq!(config.https_ua_protocol, akma::DigestUaProtocol::CipherSuite);
        assert_eq!(load(USIM).unwrap().known().unwrap().client_config(Duration::from_secs(30)).https_ca, None);
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

    #[test]
    fn a_profile_says_who_the_client_is_or_who_knows() {
        let keys = USIM.split("[keys.usim]").nth(1).unwrap();
        let section = "[configuration]\naddress = \"127.0.0.1:5685\"\nfqdn = \"configuration.lab.example\"\n";
        let profile = load(&format!("{section}[keys.usim]{keys}")).unwrap();
        let (function, kept) = profile.configuration_function().unwrap();
        assert_eq!(
            (function.address.as_str(), function.fqdn.as_str()),
            ("127.0.0.1:5685", "configuration.lab.example")
        );
        assert!(kept.starts_with(&profile.state_dir));
        let failure = profile.known().unwrap_err();
        assert!(format!("{failure:?}").contains("client configure"), "{failure:?}");
        assert!(load(USIM).unwrap().configuration_function().is_none());
        for (text, missing) in [
            (format!("{section}[https]\nca = \"ca.pem\"\n[keys.usim]{keys}"), "[https] needs [server]"),
            (format!("{USIM}\n{section}"), "must not stand beside"),
            (format!("[keys.usim]{keys}"), "ue_service_id is missing"),
            (format!("ue_service_id = \"a@b\"\n[keys.usim]{keys}"), "[server] is missing"),
        ] {
            let failure = load(&text).unwrap_err();
            assert!(format!("{failure:?}").contains(missing), "{failure:?}");
        }
    }
}
