//! The lab's directory: everything that makes one home network, made on first use and kept.
//!
//! ```text
//! DIR/lab.json        what a program needs to take part (see the reference)
//! DIR/network.json    who takes part: functions, application servers, subscribers
//! DIR/pki/            certificates and keys; the home network's SUCI keys
//! DIR/config/         one configuration file for each function
//! DIR/state/          durable state of each function
//! ```

use std::fs::{self, File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use akma::{Gpsi, HomeNetwork, Supi};
use sbi::authorization::{AuthorizationConfig, IssuerConfig, Mode, PeerConfig};
use sbi::nrf::NrfConfig;
use sbi::{CertificateFiles, SbiServerConfig, ServerLimits};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::capif::CapifCredentials;
use crate::configuration_files::by_discovery;
use crate::lab_json::{
    LabApplicationServer, LabCapifOnboarding, LabCore, LabExternalApplicationServer, LabHomeNetwork, LabJson,
    LabNfClient, LabServer, LabSubscriber,
};
use crate::outside::{OUTSIDE_FUNCTIONS, OutsideAuthority};
use crate::pki::{CertificateAuthority, CertificateRequest, create_private_directory, write_private};
use crate::ports::Ports;
use crate::revocation::Revocations;
use crate::subscription::{Algorithm, AuthenticationMethod, SecretHex, Subscription};
use crate::{LabError, ausf, nrf, udm};

/// Test network of TS 36.508 and most test USIMs.
const MCC: &str = "001";
const MNC: &str = "01";
/// Name of the MSGin5G Server, for SNI and AF_ID.
const SERVER_FQDN: &str = "msgin5g.lab.example";
/// Name of the Configuration Function for UEs, for SNI and AF_ID.
const CONFIGURATION_FQDN: &str = "configuration.lab.example";
/// Uri-Path of MSGin5G-1.
const SERVER_PATH: &str = "msgin5g";
/// Domain of the names in the lab.
const DOMAIN: &str = "lab.example";

/// The group of the start: its name, how many of the first subscribers belong to it, and the Application Server that may
/// send to it.
const GROUP: &str = "fleet";
const GROUP_MEMBERS: usize = 3;
const GROUP_SENDER: &str = "as-fleet";

/// Who takes part in the lab; `network.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Functions by the name of their certificate: `udm`, `ausf`, ...
    pub functions: Vec<Function>,
    /// Application servers.
    pub application_servers: Vec<ApplicationServer>,
    /// Subscribers that exist from the start.
    pub subscribers: Vec<LabSubscriber>,
    /// Credentials for the CAPIF core function; a lab of an earlier version has none yet.
    #[serde(default)]
    pub capif: Option<CapifCredentials>,
    /// Ports of the last start.
    pub ports: Option<Ports>,
    /// Whether UDM and Configuration Function have been given the subscribers. After that they are the truth.
    pub provisioned: bool,
}

/// A network function's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Name of its files.
    pub name: String,
    /// NF instance ID in its certificate.
    pub nf_instance_id: Uuid,
    /// NF type in its certificate.
    pub nf_type: String,
}

/// An application server's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationServer {
    /// Name of its files.
    pub name: String,
    /// AS Service ID.
    pub as_service_id: String,
    /// NF instance ID in its certificate.
    pub nf_instance_id: Uuid,
}

/// A group that exists from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabGroup {
    /// Group Service ID.
    pub group_service_id: String,
    /// What it is, for people.
    pub description: String,
    /// Members' UE Service IDs.
    pub members: Vec<String>,
    /// Who may send to it besides its members: `AS:` and an AS Service ID.
    pub senders: Vec<String>,
}

/// An opened directory.
pub struct Directory {
    root: PathBuf,
    home_network: HomeNetwork,
    authority: CertificateAuthority,
    outside: OutsideAuthority,
    network: Network,
    key_log: Option<PathBuf>,
    /// Held while the directory is open: two labs in one would overwrite each other's ports.
    _lock: File,
}

impl Directory {
    /// Opens the directory at `root`, or makes it.
    ///
    /// # Errors
    /// [`LabError::InUse`] while another lab has it; otherwise when it cannot be read or written, or holds what the lab
    /// did not write.
    pub fn open_or_create(root: &Path) -> Result<Self, LabError> {
        create_private_directory(root)?;
        let root = root.canonicalize().map_err(|source| LabError::file(root, source))?;
        let lock = lock(&root)?;
        let home_network = HomeNetwork::new(MCC, MNC).map_err(|error| LabError::Configuration(error.to_string()))?;
        let authority = CertificateAuthority::open_or_create(&root.join("pki"), &home_network.realm())?;
        let outside = OutsideAuthority::open_or_create(&root.join("pki"))?;
        let path = root.join("network.json");
        let mut network = if path.exists() { read_json(&path)? } else { Network::generate()? };
        network.add_missing_functions();
        if network.capif.is_none() {
            network.capif = Some(CapifCredentials::generate(|| random(CREDENTIAL_OCTETS))?);
        }
        let directory = Self { root, home_network, authority, outside, network, key_log: None, _lock: lock };
        // Identities first: what is missing after an interruption is then made for the same ones.
        directory.save_network()?;
        for name in ["config", "state"] {
            create_private_directory(&directory.root.join(name))?;
        }
        directory.issue_certificates()?;
        directory.write_capif_files()?;
        Self::revocations(&directory.root)?.write()?;
        udm::HomeKey::create_in_directory(&directory.root.join("pki"))?;
        nrf::create_key(&directory.nrf_token_key(), &directory.nrf_jwks())?;
        Ok(directory)
    }

    /// The certification authority of the lab that lies at `root`, which may be running.
    ///
    /// # Errors
    /// When there is no lab.
    pub fn authority(root: &Path) -> Result<CertificateAuthority, LabError> {
        let home_network = HomeNetwork::new(MCC, MNC).map_err(|error| LabError::Configuration(error.to_string()))?;
        let pki = root.canonicalize().map_err(|source| LabError::file(root, source))?.join("pki");
        CertificateAuthority::open(&pki, &home_network.realm())
    }

    /// What is revoked in the lab that lies at `root`, which may be running.
    ///
    /// # Errors
    /// When there is no lab.
    pub fn revocations(root: &Path) -> Result<Revocations, LabError> {
        let home_network = HomeNetwork::new(MCC, MNC).map_err(|error| LabError::Configuration(error.to_string()))?;
        let pki = root.canonicalize().map_err(|source| LabError::file(root, source))?.join("pki");
        Revocations::open(&pki, &home_network.realm())
    }

    /// The directory, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The home network.
    #[must_use]
    pub fn home_network(&self) -> &HomeNetwork {
        &self.home_network
    }

    /// Who takes part.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Name of the MSGin5G Server.
    #[must_use]
    pub fn server_fqdn(&self) -> &str {
        SERVER_FQDN
    }

    /// Uri-Path of MSGin5G-1.
    #[must_use]
    pub fn server_path(&self) -> &str {
        SERVER_PATH
    }

    /// Name of the Configuration Function for UEs.
    #[must_use]
    pub fn configuration_fqdn(&self) -> &str {
        CONFIGURATION_FQDN
    }

    /// The group of the start: its Group Service ID, its members, and who else may send to it.
    #[must_use]
    pub fn group(&self) -> LabGroup {
        let members = self.network.subscribers.iter().take(GROUP_MEMBERS);
        LabGroup {
            group_service_id: format!("{GROUP}@{DOMAIN}"),
            description: "Meter, valve and lamp of the lab".to_owned(),
            members: members.map(|subscriber| subscriber.ue_service_id.clone()).collect(),
            senders: self
                .network
                .application_servers
                .iter()
                .filter(|server| server.name == GROUP_SENDER)
                .map(|server| format!("AS:{}", server.as_service_id))
                .collect(),
        }
    }

    /// Has the server append the secrets of every MSGin5G-1 connection to `file`, for tools that decode captures.
    pub fn log_keys_to(&mut self, file: Option<PathBuf>) {
        self.key_log = file;
    }

    pub(crate) fn key_log(&self) -> Option<&Path> {
        self.key_log.as_deref()
    }

    /// Certificate files of `name`: a function or an application server.
    #[must_use]
    pub fn certificate(&self, name: &str) -> CertificateFiles {
        self.authority.files(name)
    }

    /// Certificate files of application function `name` outside the domain; its peers' authority is the operator's.
    #[must_use]
    pub fn outside_certificate(&self, name: &str) -> CertificateFiles {
        self.outside.files(name)
    }

    /// The authority of application functions outside.
    #[must_use]
    pub fn outside_authority(&self) -> PathBuf {
        self.outside.certificate()
    }

    /// The NF instance ID of function `name`.
    ///
    /// # Errors
    /// When the network has no such function.
    pub fn nf_instance_id(&self, name: &str) -> Result<Uuid, LabError> {
        self.network
            .functions
            .iter()
            .find(|function| function.name == name)
            .map(|function| function.nf_instance_id)
            .ok_or_else(|| LabError::Content {
                path: self.root.join("network.json"),
                reason: format!("no function {name:?} in it"),
            })
    }

    /// Where function `name` keeps its durable state.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.root.join("state").join(name)
    }

    /// The configuration file of function `name`.
    #[must_use]
    pub fn configuration_file(&self, name: &str) -> PathBuf {
        self.root.join("config").join(format!("{name}.toml"))
    }

    /// The subscribers of the start, as the UDM takes them.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.network.subscribers.iter().map(subscription).collect()
    }

    /// Whether UDM and Configuration Function have been given the subscribers of the start.
    #[must_use]
    pub fn is_provisioned(&self) -> bool {
        self.network.provisioned
    }

    /// Notes that they have.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_provisioned(&mut self) -> Result<(), LabError> {
        self.network.provisioned = true;
        self.save_network()
    }

    /// The ports for this start: fixed ones from `base_port` on, or free ones, those of the last start where they are
    /// free. Kept for the next start.
    ///
    /// # Errors
    /// When there are none, or the directory cannot be written.
    pub fn choose_ports(&mut self, base_port: Option<u16>) -> Result<Ports, LabError> {
        let ports = match base_port {
            Some(base) => Ports::from_base(base)?,
            None => Ports::free(self.network.ports.as_ref())?,
        };
        self.network.ports = Some(ports);
        self.save_network()?;
        Ok(ports)
    }

    /// Configuration of the UDM.
    ///
    /// # Errors
    /// When the network lacks a function.
    pub fn udm_configuration(&self, ports: &Ports) -> Result<udm::Config, LabError> {
        Ok(udm::Config {
            sbi: self.sbi("udm", ports.udm),
            state: self.state("udm"),
            authorization: self.authorization(&[self.nf_instance_id("provisioner")?])?,
            ausf_callers: [self.nf_instance_id("ausf")?].into(),
            translation_callers: [self.nf_instance_id("aanf")?].into(),
            provisioning_callers: [self.nf_instance_id("provisioner")?].into(),
            home_network_keys: udm::HomeKey::of_directory(&self.root.join("pki")),
            accept_null_scheme: true,
            ausf: Some(format!("https://{}", ports.ausf)),
            nrf: Some(self.nrf_section(ports)),
        })
    }

    /// Configuration of the AUSF.
    ///
    /// # Errors
    /// When the network lacks a function.
    pub fn ausf_configuration(&self, ports: &Ports) -> Result<ausf::Config, LabError> {
        Ok(ausf::Config {
            nf_instance_id: self.nf_instance_id("ausf")?,
            home_network: self.home_network.clone(),
            udm: by_discovery(ports.udm),
            aanf: Some(by_discovery(ports.aanf)),
            aanf_routes: Vec::new(),
            nrf: Some(self.nrf_section(ports)),
            callers: [self.nf_instance_id("lab-nf")?].into(),
            deregistration_callers: [self.nf_instance_id("udm")?].into(),
            serving_networks: Vec::new(),
            authorization: self.authorization(&[self.nf_instance_id("lab-nf")?])?,
            api_root: None,
            limits: ausf::Limits::default(),
            sbi: self.sbi("ausf", ports.ausf),
        })
    }

    /// Configuration of the NRF.
    ///
    /// # Errors
    /// When the network lacks a function.
    pub fn nrf_configuration(&self, ports: &Ports) -> Result<nrf::Config, LabError> {
        let scope = |name: &str, functions: &[&str]| {
            let ids = functions.iter().map(|function| self.nf_instance_id(function)).collect::<Result<_, _>>()?;
            Ok::<_, LabError>(nrf::ScopeConfig {
                name: name.to_owned(),
                nf_types: std::collections::BTreeSet::new(),
                nf_instance_ids: ids,
            })
        };
        Ok(nrf::Config {
            nf_instance_id: self.nf_instance_id("nrf")?,
            api_root: None,
            token_key: self.nrf_token_key(),
            jwks: Some(self.nrf_jwks()),
            token_lifetime_seconds: 600,
            plmn: Some(sbi::token::PlmnId { mcc: MCC.to_owned(), mnc: MNC.to_owned() }),
            producers: Vec::new(),
            // AF is what servers, application servers and strangers are alike: what is the server's alone says so.
            scopes: vec![
                scope("naanf-akma", &["ausf", "server", "configuration", "nef"])?,
                scope("naanf-akma:anchorkey", &["ausf"])?,
                scope("naanf-akma:applicationkeyget", &["server", "configuration", "nef"])?,
                scope("naanf-akma:applicationkeyget:supi-access", &["server", "configuration"])?,
                scope("ss-upr", &["server", "provisioner"])?,
                scope("ss-gm", &["server", "provisioner"])?,
                scope("msgin5g-configuration", &["provisioner"])?,
            ],
            limits: nrf::Limits::default(),
            sbi: self.sbi("nrf", ports.nrf),
        })
    }

    /// The section `[authorization]` of a function of the lab: tokens of the lab's NRF are demanded of everybody but
    /// `by_certificate`, who need their certificate only, and checked of them, too.
    ///
    /// # Errors
    /// When the network lacks a function.
    pub fn authorization(&self, by_certificate: &[Uuid]) -> Result<AuthorizationConfig, LabError> {
        let issuer = IssuerConfig { nf_instance_id: self.nf_instance_id("nrf")?.to_string(), keys: self.nrf_jwks() };
        let peers = by_certificate.iter().map(|id| PeerConfig::instance(id.to_string(), Mode::Tls)).collect();
        Ok(AuthorizationConfig { issuers: vec![issuer], peers, ..AuthorizationConfig::default() })
    }

    /// The section `[nrf]` of every function of the lab.
    #[must_use]
    pub fn nrf_section(&self, ports: &Ports) -> NrfConfig {
        NrfConfig::new(format!("https://{}", ports.nrf))
    }

    /// The file with the key that the NRF's tokens are verified with, for producers.
    #[must_use]
    pub fn nrf_jwks(&self) -> PathBuf {
        self.root.join("pki").join("nrf-jwks.json")
    }

    fn nrf_token_key(&self) -> PathBuf {
        self.root.join("pki").join("nrf-token.key")
    }

    fn sbi(&self, name: &str, listen: SocketAddr) -> SbiServerConfig {
        SbiServerConfig { listen, tls: self.certificate(name), limits: ServerLimits::default() }
    }

    /// Writes the configuration file of function `name`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_configuration(&self, name: &str, toml: &str) -> Result<(), LabError> {
        let text = format!("# Written by `msgin5g lab` at each start; changes are lost.\n{toml}");
        write_private(&self.configuration_file(name), text.as_bytes())
    }

    /// `lab.json` for these ports.
    #[must_use]
    pub fn lab_json(&self, ports: &Ports) -> LabJson {
        let https = |address: SocketAddr| format!("https://{address}");
        let file = |name: &str, extension: &str| format!("pki/{name}.{extension}");
        let nf_client = self.network.functions.iter().find(|function| function.name == "lab-nf");
        LabJson {
            home_network: LabHomeNetwork { mcc: MCC.to_owned(), mnc: MNC.to_owned() },
            server: LabServer {
                fqdn: SERVER_FQDN.to_owned(),
                coaps_tcp: ports.coaps_tcp,
                // The same number: UDP and TCP do not meet.
                coaps: Some(ports.coaps_tcp),
                coaps_ws: Some(ports.coaps_ws),
                coap: Some(ports.coap),
                coap_tcp: Some(ports.coap),
                https: Some(https(ports.https)),
                path: SERVER_PATH.to_owned(),
                api: https(ports.api),
                admin: format!("http://{}", ports.admin),
            },
            core: LabCore {
                udm: https(ports.udm),
                ausf: https(ports.ausf),
                aanf: https(ports.aanf),
                nrf: Some(https(ports.nrf)),
                nef: Some(https(ports.nef)),
                capif: Some(https(ports.capif)),
                configuration: https(ports.configuration),
                configuration_coaps_tcp: Some(ports.configuration_coaps_tcp),
                configuration_fqdn: Some(CONFIGURATION_FQDN.to_owned()),
                admin: Some(format!("http://{}", ports.core_admin)),
            },
            ca: "pki/ca.pem".to_owned(),
            capif_onboarding: self
                .network
                .capif
                .iter()
                .flat_map(|credentials| &credentials.onboarding)
                .map(|one| LabCapifOnboarding { as_service_id: one.as_service_id.clone(), token: one.token.clone() })
                .collect(),
            nf_client: LabNfClient {
                cert: file("lab-nf", "pem"),
                key: file("lab-nf", "key"),
                nf_instance_id: nf_client.map(|function| function.nf_instance_id.to_string()).unwrap_or_default(),
                nf_type: "AMF".to_owned(),
            },
            application_servers: self
                .network
                .application_servers
                .iter()
                .map(|server| LabApplicationServer {
                    as_service_id: server.as_service_id.clone(),
                    cert: file(&server.name, "pem"),
                    key: file(&server.name, "key"),
                    nf_instance_id: server.nf_instance_id.to_string(),
                })
                .collect(),
            external_application_servers: OUTSIDE_FUNCTIONS
                .iter()
                .map(|function| LabExternalApplicationServer {
                    as_service_id: function.as_service_id.to_owned(),
                    af_id: function.name.to_owned(),
                    client_id: function.name.to_owned(),
                    fqdn: function.fqdn.to_owned(),
                    cert: file(function.name, "pem"),
                    key: file(function.name, "key"),
                    ca: "pki/ca.pem".to_owned(),
                })
                .collect(),
            subscribers: self.network.subscribers.clone(),
        }
    }

    /// Takes `lab.json` of the last start away, so that nobody takes it for this one's.
    ///
    /// # Errors
    /// When it is there and stays.
    pub fn remove_lab_json(&self) -> Result<(), LabError> {
        let path = self.root.join("lab.json");
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(LabError::file(&path, source)),
            _ => Ok(()),
        }
    }

    /// Writes `lab.json`, whole or not at all; gives its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_lab_json(&self, ports: &Ports) -> Result<PathBuf, LabError> {
        let path = self.root.join("lab.json");
        write_json(&path, &self.lab_json(ports))?;
        Ok(path)
    }

    fn save_network(&self) -> Result<(), LabError> {
        write_json(&self.root.join("network.json"), &self.network)
    }

    fn issue_certificates(&self) -> Result<(), LabError> {
        let realm = self.home_network.realm();
        let request = |name: &str, nf_instance_id: Uuid, nf_type: &str, fqdn: String| CertificateRequest {
            common_name: format!("lab {name}"),
            nf_instance_id,
            nf_type: nf_type.to_owned(),
            dns_names: vec![fqdn, "localhost".to_owned()],
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        };
        for function in &self.network.functions {
            let fqdn = match function.name.as_str() {
                "server" => SERVER_FQDN.to_owned(),
                name => format!("{name}.{realm}"),
            };
            let request = request(&function.name, function.nf_instance_id, &function.nf_type, fqdn);
            self.authority.issue(&function.name, &request)?;
        }
        for server in &self.network.application_servers {
            let fqdn = format!("{}.{DOMAIN}", server.name);
            self.authority.issue(&server.name, &request(&server.name, server.nf_instance_id, "AF", fqdn))?;
        }
        for function in &OUTSIDE_FUNCTIONS {
            self.outside.issue(function)?;
        }
        Ok(())
    }
}

impl Function {
    fn generate((name, nf_type): (&str, &str)) -> Self {
        Self { name: name.to_owned(), nf_instance_id: Uuid::new_v4(), nf_type: nf_type.to_owned() }
    }
}

impl Network {
    /// A lab of an earlier version had fewer functions.
    fn add_missing_functions(&mut self) {
        for (name, nf_type) in FUNCTIONS {
            if !self.functions.iter().any(|function| function.name == name) {
                self.functions.push(Function::generate((name, nf_type)));
            }
        }
    }

    /// A network with fresh identities and keys.
    fn generate() -> Result<Self, LabError> {
        let application_server = |name: &str| ApplicationServer {
            name: format!("as-{name}"),
            as_service_id: format!("{name}@{DOMAIN}"),
            nf_instance_id: Uuid::new_v4(),
        };
        Ok(Self {
            functions: FUNCTIONS.into_iter().map(Function::generate).collect(),
            application_servers: ["billing", "fleet"].into_iter().map(application_server).collect(),
            subscribers: SUBSCRIBERS.iter().zip(1..).map(generate_subscriber).collect::<Result<_, _>>()?,
            capif: None,
            ports: None,
            provisioned: false,
        })
    }
}

/// Octets of a credential for the CAPIF core function.
const CREDENTIAL_OCTETS: usize = 32;

/// Name of the files and NF type. TS 29.510 has no type for the functions of MSGin5G; AF is what they are to the core.
const FUNCTIONS: [(&str, &str); 10] = [
    ("udm", "UDM"),
    ("ausf", "AUSF"),
    ("aanf", "AANF"),
    ("configuration", "AF"),
    ("server", "AF"),
    ("lab-nf", "AMF"),
    ("provisioner", "AF"),
    ("nrf", "NRF"),
    ("nef", "NEF"),
    ("capif", "AF"),
];

struct SubscriberPlan {
    name: &'static str,
    algorithm: Algorithm,
    method: AuthenticationMethod,
    akma_allowed: bool,
}

const fn plan(name: &'static str) -> SubscriberPlan {
    SubscriberPlan { name, algorithm: Algorithm::Milenage, method: AuthenticationMethod::FiveGAka, akma_allowed: true }
}

/// The plain ones first, because a program that takes the first so many wants plain ones.
const SUBSCRIBERS: [SubscriberPlan; 8] = [
    plan("meter-1"),
    plan("valve-2"),
    plan("lamp-3"),
    plan("tracker-4"),
    plan("pump-5"),
    SubscriberPlan { algorithm: Algorithm::Tuak, ..plan("meter-6") },
    SubscriberPlan { method: AuthenticationMethod::EapAkaPrime, ..plan("valve-7") },
    SubscriberPlan { akma_allowed: false, ..plan("lamp-8") },
];

fn generate_subscriber((plan, number): (&SubscriberPlan, u32)) -> Result<LabSubscriber, LabError> {
    let (k_octets, opc_octets) = match plan.algorithm {
        Algorithm::Milenage => (16, 16),
        Algorithm::Tuak => (32, 32),
    };
    let identity = |text: String| LabError::Configuration(format!("{text} is no identity"));
    let supi = format!("imsi-{MCC}{MNC}{number:010}");
    let gpsi = format!("msisdn-99900{number:06}");
    Ok(LabSubscriber {
        supi: supi.parse::<Supi>().map_err(|_| identity(supi))?,
        gpsi: gpsi.parse::<Gpsi>().map_err(|_| identity(gpsi))?,
        k: random(k_octets)?,
        opc: random(opc_octets)?,
        algorithm: plan.algorithm,
        routing_indicator: "0".to_owned(),
        ue_service_id: format!("{}@{DOMAIN}", plan.name),
        authentication_method: (plan.method != AuthenticationMethod::FiveGAka).then_some(plan.method),
        akma_allowed: (!plan.akma_allowed).then_some(false),
    })
}

fn subscription(subscriber: &LabSubscriber) -> Subscription {
    let mut subscription = Subscription::new(subscriber.supi.clone(), subscriber.k.clone(), subscriber.opc.clone());
    subscription.gpsi = Some(subscriber.gpsi.clone());
    subscription.algorithm = subscriber.algorithm;
    if let Ok(routing_indicator) = subscriber.routing_indicator.parse() {
        subscription.routing_indicator = routing_indicator;
    }
    subscription.authentication_method = subscriber.authentication_method.unwrap_or(AuthenticationMethod::FiveGAka);
    subscription.akma_allowed = subscriber.akma_allowed.unwrap_or(true);
    subscription
}

fn lock(root: &Path) -> Result<File, LabError> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| LabError::file(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LabError::InUse(root.to_owned())),
        Err(TryLockError::Error(source)) => Err(LabError::file(&path, source)),
    }
}

fn random(octets: usize) -> Result<SecretHex, LabError> {
    let mut value = vec![0_u8; octets];
    getrandom::fill(&mut value).map_err(|_| LabError::Random)?;
    Ok(SecretHex::new(value))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, LabError> {
    let text = fs::read(path).map_err(|source| LabError::file(path, source))?;
    serde_json::from_slice(&text).map_err(|error| LabError::Content {
        path: path.to_owned(),
        // The category only: serde's own text could quote a key.
        reason: format!("{:?} error in line {}", error.classify(), error.line()),
    })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), LabError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| LabError::Content { path: path.to_owned(), reason: error.to_string() })?;
    text.push(b'\n');
    write_private(path, &text)
}
