//! The configuration of one server, as it stands in a TOML file.

mod transports;

use std::net::SocketAddr;
use std::path::PathBuf;

use akma::Fqdn;
use message::segmentation::{SEGMENT_OVERHEAD_OCTETS, SET_OVERHEAD_OCTETS};
use message::{AsServiceId, SEGMENTS_MAX};
use sbi::authorization::AuthorizationConfig;
use sbi::naanf::{AnchorRoute, NotificationSection};
use sbi::nrf::{NrfConfig, peer_fault};
use sbi::{CertificateFiles, ClientLimits, LimitFault, PeerName, ServerLimits, files, services};
use serde::Deserialize;
use store::StoreOptions;
use transport::LookupLimits;

use crate::broadcast::BroadcastAreaSection;
use crate::destinations::{self, BroadcastSection, GroupManagementSection, TopicServerSection};
use crate::error::ServerError;
use crate::http_ue::HttpsSection;
use crate::invokers::CapifSection;
use crate::limits::Limits;
use crate::oscore::OscoreSection;
use crate::policy::TopicSection;

use transports::default_listen;
pub use transports::{CoapsSection, TlsSection, WebSocketSection};

/// Everything that can be set about a server. Sections that must be there: `[server]`, `[certificates]`, `[akma]`,
/// `[configuration_function]`, `[api]`, `[store]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who the server is and where UEs reach it.
    pub server: ServerSection,
    /// The TLS of MSGin5G-1.
    #[serde(default)]
    pub tls: TlsSection,
    /// MSGin5G-1 over WebSocket. Without it that is not served.
    #[serde(default)]
    pub websocket: Option<WebSocketSection>,
    /// MSGin5G-1 under OSCORE. Without it, it is not served.
    #[serde(default)]
    pub oscore: Option<OscoreSection>,
    /// MSGin5G-1 for devices that have only an HTTP stack. Without it, it is not served.
    #[serde(default)]
    pub https: Option<HttpsSection>,
    /// CoAP over DTLS over UDP at MSGin5G-1. Without it, UDP is not served.
    #[serde(default)]
    pub coaps: Option<CoapsSection>,
    /// The certificate that proves the server to network functions and Application Servers, as client and as server.
    pub certificates: CertificateFiles,
    /// The AKMA anchor function.
    pub akma: AkmaSection,
    /// The MSGin5G Configuration Function.
    pub configuration_function: ConfigurationFunctionSection,
    /// MSGin5G-3, for Application Servers.
    pub api: ApiSection,
    /// How requests at MSGin5G-3 are authorised before the entries below are looked for.
    #[serde(default)]
    pub authorization: AuthorizationConfig,
    /// MSGin5G-3, for API invokers of a CAPIF core function.
    #[serde(default)]
    pub capif: Option<CapifSection>,
    /// Health and metrics.
    #[serde(default)]
    pub admin: AdminSection,
    /// What is durable.
    pub store: StoreSection,
    /// File with the rules in place of `[[application_server]]`, `[[topic]]`, `[[topic_server]]` and `[[broadcast_area]]`; a
    /// changed one is taken within 5 s.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Application Servers that may register.
    #[serde(default)]
    pub application_server: Vec<ApplicationServerSection>,
    /// The network's exposure function, by which sleeping UEs are woken. Without it none is.
    #[serde(default)]
    pub exposure: Option<ExposureSection>,
    /// The SEAL group management server. Without it groups are not served.
    #[serde(default)]
    pub group_management: Option<GroupManagementSection>,
    /// Who may publish to and subscribe to which Messaging Topics: the first that names a topic decides. Without any, topics
    /// are not served.
    #[serde(default)]
    pub topic: Vec<TopicSection>,
    /// Other servers that may subscribe on behalf of others.
    #[serde(default)]
    pub topic_server: Vec<TopicServerSection>,
    /// The Broadcast Message Gateway.
    #[serde(default)]
    pub broadcast: Option<BroadcastSection>,
    /// Areas that messages can be broadcast to.
    #[serde(default)]
    pub broadcast_area: Vec<BroadcastAreaSection>,
    /// The NRF that the server registers at, that gives it access tokens, and may find the AAnF. Without it none is used.
    #[serde(default)]
    pub nrf: Option<NrfConfig>,
    /// Every limit of the server itself.
    #[serde(default)]
    pub limits: Limits,
}

/// What a policy file holds: the sections of the configuration that say who may do what.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyFile {
    /// Application Servers that may register.
    pub application_server: Vec<ApplicationServerSection>,
    /// Who may publish to and subscribe to which Messaging Topics: the first that names a topic decides.
    pub topic: Vec<TopicSection>,
    /// Other servers that may subscribe on behalf of others.
    pub topic_server: Vec<TopicServerSection>,
    /// Areas that messages can be broadcast to, and by whom.
    pub broadcast_area: Vec<BroadcastAreaSection>,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSection {
    /// The name that clients ask for by SNI and that is part of AF_ID.
    pub fqdn: Fqdn,
    /// Where CoAP over TLS is served. Port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The one CoAP resource, here and on the client. Segments are separated by `/`.
    #[serde(default = "default_path")]
    pub path: String,
}

/// `[akma]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AkmaSection {
    /// The AAnF's API root, `https://...`, for a server in the operator's domain; or `nrf`: the NRF finds the one that serves
    /// the A-KID's routing indicator. This or `nef`.
    #[serde(default)]
    pub aanf: Option<String>,
    /// AAnFs for the A-KIDs of some routing indicators; `aanf` has the others.
    #[serde(default)]
    pub aanf_routes: Vec<AnchorRoute>,
    /// The NEF's API root, `https://...`, for a server outside the operator's domain: UEs are then known by GPSI.
    #[serde(default)]
    pub nef: Option<String>,
    /// What the server is to that NEF.
    #[serde(default)]
    pub af: Option<AfSection>,
    /// Being told when AKMA is disabled. None: that is found by re-validation only.
    #[serde(default)]
    pub notifications: Option<NotificationSection>,
    /// Limits on key look-ups.
    #[serde(default)]
    pub lookups: LookupLimits,
    /// Limits on requests to the AAnF.
    #[serde(default)]
    pub requests: ClientLimits,
}

/// `[akma.af]`: an application function outside the operator's domain (TS 33.501 clause 12).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfSection {
    /// The client identifier at the token endpoint.
    pub client_id: String,
    /// The token endpoint, `https://...`. None: `/oauth2/token` below `akma.nef`.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// The scope to ask for, scopes separated by spaces. None: the choice is left to the NEF.
    #[serde(default)]
    pub scope: Option<String>,
    /// The certificate that proves the server to the NEF, and the authority of the NEF's. None: `[certificates]`.
    #[serde(default)]
    pub certificates: Option<CertificateFiles>,
}

/// `[configuration_function]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationFunctionSection {
    /// The API root, `https://...`, or `nrf` to have the NRF find it ([`sbi::nrf::ProducerRoot`]).
    pub url: String,
    /// Limits on requests to it.
    #[serde(default)]
    pub requests: ClientLimits,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSection {
    /// Where HTTP/2 is served. Port 0 takes a free one.
    #[serde(default = "default_api_listen")]
    pub listen: SocketAddr,
    /// Limits of that server. Its request time-out must be longer than a delivery may take; a message whose sender has
    /// left is delivered all the same.
    #[serde(default = "default_api_limits")]
    pub limits: ServerLimits,
    /// Limits on requests to Application Servers.
    #[serde(default)]
    pub requests: ClientLimits,
    /// Whose certificates Application Servers may show where messages are delivered to them.
    #[serde(default)]
    pub targets: TargetsSection,
}

/// `[api.targets]`: for Application Servers whose certificates are of other authorities than those that open `api.listen`, such
/// as API invokers outside the operator's domain.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetsSection {
    /// PEM: the authorities. Those of `[certificates]`, with its CRL, if absent.
    pub ca: Option<PathBuf>,
    /// PEM: their CRLs. With `ca` only.
    pub crl: Option<PathBuf>,
}

impl TargetsSection {
    /// What messages are delivered with: `own`, and these authorities.
    pub(crate) fn certificates(&self, own: &CertificateFiles) -> CertificateFiles {
        match &self.ca {
            Some(ca) => CertificateFiles { ca: ca.clone(), crl: self.crl.clone(), ..own.clone() },
            None => own.clone(),
        }
    }
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSection {
    /// Where health and metrics are served, as plain HTTP: loopback, or a management network.
    pub listen: SocketAddr,
}

/// `[store]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    /// The directory.
    pub path: PathBuf,
    /// Sizes and limits.
    #[serde(default)]
    pub options: StoreOptions,
}

/// `[[application_server]]`: an AS that may register, and the certificate that is its.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationServerSection {
    /// The AS Service ID.
    pub as_service_id: AsServiceId,
    /// The NF instance ID in its certificate (`urn:uuid:` URI).
    #[serde(default)]
    pub nf_instance_id: Option<String>,
    /// A DNS name in its certificate. If both are given, both must match.
    #[serde(default)]
    pub dns_name: Option<String>,
    /// Where its `targetUri` may point: prefixes, each an `https` origin with or without a path. Empty: at the DNS
    /// names and IP addresses of the certificate it registers with.
    #[serde(default)]
    pub target_uris: Vec<String>,
}

/// `[exposure]`: the NEF, or SCEF, by which UEs that are away are woken (TS 23.554 clause 8.9, TS 29.122).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposureSection {
    /// The NEF's API root, `https://...`.
    pub nef: String,
    /// What the NEF calls this server, 1 to 255 octets.
    pub scs_as_id: String,
    /// Where the NEF's notifications are served. Port 0 takes a free one.
    #[serde(default = "default_notification_listen")]
    pub notification_listen: SocketAddr,
    /// The root under which the NEF finds that, `https://...`. None: the address itself, which must then be one that others
    /// can connect to.
    #[serde(default)]
    pub notification_uri: Option<String>,
    /// Whose notifications are taken: names in the NEF's certificate. None: the host of `nef`.
    #[serde(default)]
    pub notifier: PeerName,
    /// Ask for a UE's reachability, and trigger it when it is reachable.
    #[serde(default)]
    pub reachability_monitoring: bool,
    /// Reports of one such subscription, at least 1. One, without `monitoring_seconds`, is a one-time check.
    #[serde(default = "default_monitoring_reports")]
    pub monitoring_reports: u32,
    /// How long a subscription lasts. None: until all reports have come.
    #[serde(default)]
    pub monitoring_seconds: Option<u32>,
    /// The port that a trigger goes to if the UE names none.
    #[serde(default = "default_application_port")]
    pub application_port: u16,
    /// Limits of the server of notifications.
    #[serde(default = "default_notification_limits")]
    pub limits: ServerLimits,
    /// Limits on requests to the NEF.
    #[serde(default)]
    pub requests: ClientLimits,
}

impl Default for AdminSection {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)) }
    }
}

fn default_api_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8443))
}

fn default_notification_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8444))
}

fn default_monitoring_reports() -> u32 {
    1
}

/// The port of CoAP over TLS (INFERRED: no document gives MSGin5G one for triggers).
fn default_application_port() -> u16 {
    5684
}

/// There is one NEF, and its connections are served from what the process keeps beside those of UEs and AS.
fn default_notification_limits() -> ServerLimits {
    ServerLimits { connections_max: 16, handshakes_max: 32, handshakes_per_source_max: 16, ..ServerLimits::default() }
}

/// Longest SCS/AS identifier, in octets.
const SCS_AS_ID_OCTETS_MAX: usize = 255;

/// Octets of JSON that a message on disk has beside its payload, at most: five names of 255 octets, each escaped to six
/// times as much, and what is of fixed length.
const STORED_OCTETS_BESIDE_PAYLOAD: usize = 16 * 1024;

fn default_path() -> String {
    "msgin5g".to_owned()
}

pub(crate) fn default_api_limits() -> ServerLimits {
    // A body holds message_payload_octets_max as base64, and the rest of the message.
    ServerLimits { request_timeout_seconds: 60, request_body_bytes_max: 98_304, ..ServerLimits::default() }
}

impl AkmaSection {
    /// What is wrong with it: key and reason.
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        let endpoint = self.af.as_ref().and_then(|af| af.token_endpoint.as_ref());
        for (key, url) in [("akma.nef", self.nef.as_ref()), ("akma.af.token_endpoint", endpoint)] {
            if url.is_some_and(|url| !url.starts_with("https://")) {
                return Some((key, "must be an https URL"));
            }
        }
        if let Some((key, reason)) = self.notifications.as_ref().and_then(NotificationSection::fault) {
            let key = if key == "root" { "akma.notifications.root" } else { "akma.notifications.notifier" };
            return Some((key, reason));
        }
        match (&self.aanf, &self.nef, &self.af) {
            (None, None, _) => Some(("akma", "needs aanf, or nef and af")),
            (Some(_), Some(_), _) => Some(("akma", "has both aanf and nef")),
            (None, Some(_), None) => Some(("akma.af", "must be there with akma.nef")),
            (Some(_), None, Some(_)) => Some(("akma.af", "has no meaning without akma.nef")),
            _ => None,
        }
    }
}

impl Config {
    /// The same, with the sections of the policy file in place if one is named.
    ///
    /// # Errors
    /// [`ServerError::Policy`] for an unusable file; [`ServerError::Configuration`] where there are such sections here, too.
    pub fn with_policy(mut self) -> Result<Self, ServerError> {
        let Some(path) = self.policy.take() else { return Ok(self) };
        let empty = self.application_server.is_empty()
            && self.topic.is_empty()
            && self.topic_server.is_empty()
            && self.broadcast_area.is_empty();
        if !empty {
            return Err(ServerError::Configuration {
                key: "policy".to_owned(),
                reason: "holds every [[application_server]], [[topic]], [[topic_server]] and [[broadcast_area]], so none may \
                         stand here"
                    .to_owned(),
            });
        }
        let without = self.check();
        let PolicyFile { application_server, topic, topic_server, broadcast_area } = sbi::policy::read(&path)?;
        let whole = Self { application_server, topic, topic_server, broadcast_area, ..self };
        // What is wrong with these sections alone is wrong in the file.
        match (without, whole.check()) {
            (Ok(()), Err(ServerError::Configuration { key, reason })) => {
                Err(sbi::policy::InvalidPolicy::new(&path, format!("{key} {reason}")).into())
            }
            _ => Ok(whole),
        }
    }

    /// The sections that say who may do what.
    pub(crate) fn rules(&self) -> PolicyFile {
        PolicyFile {
            application_server: self.application_server.clone(),
            topic: self.topic.clone(),
            topic_server: self.topic_server.clone(),
            broadcast_area: self.broadcast_area.clone(),
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`ServerError::Configuration`], naming the key.
    pub fn check(&self) -> Result<(), ServerError> {
        let wrong = |key: &str, reason: &str| {
            Err(ServerError::Configuration { key: key.to_owned(), reason: reason.to_owned() })
        };
        if let Some(name) = self.limits.zero_member() {
            return wrong(&format!("limits.{name}"), "must not be 0");
        }
        if let Some(name) = self.limits.endless_member() {
            return wrong(&format!("limits.{name}"), "must not be longer than a hundred years");
        }
        if let Some((key, reason)) = self.websocket.as_ref().and_then(WebSocketSection::fault) {
            return wrong(key, reason);
        }
        if self.api.targets.ca.is_none() && self.api.targets.crl.is_some() {
            return wrong("api.targets.crl", "is of the authorities in api.targets.ca, which is not there");
        }
        if let Some((key, reason)) = self.interface_fault() {
            return wrong(&key, &reason);
        }
        if self.limits.remembered_per_ue_max < self.limits.requests_per_connection_max {
            return wrong("limits.remembered_per_ue_max", "must not be less than limits.requests_per_connection_max");
        }
        let whole = self.limits.message_payload_octets_max;
        if whole < self.limits.payload_octets_max {
            return wrong("limits.message_payload_octets_max", "must not be less than limits.payload_octets_max");
        }
        let stored = whole.div_ceil(3).saturating_mul(4).saturating_add(STORED_OCTETS_BESIDE_PAYLOAD);
        if self.store.options.limits.body_octets_max < stored {
            return wrong(
                "store.options.limits.body_octets_max",
                "must have room for limits.message_payload_octets_max as base64, and 16 KiB for the rest of a message",
            );
        }
        // What a message of that size counts for in its segments, if they are as large as they may be.
        let segments = whole.div_ceil(self.limits.payload_octets_max.max(1)).min(SEGMENTS_MAX as usize);
        let counted = whole.saturating_add(segments.saturating_mul(SEGMENT_OVERHEAD_OCTETS) + SET_OVERHEAD_OCTETS);
        for (key, octets) in [
            ("limits.reassembly_octets_per_originator_max", self.limits.reassembly_octets_per_originator_max),
            ("limits.reassembly_octets_max", self.limits.reassembly_octets_max),
        ] {
            if octets < counted {
                return wrong(key, "must have room for a message of limits.message_payload_octets_max in its segments");
            }
        }
        if self.limits.aggregation_wait_milliseconds / 1000 >= self.limits.queue_timeout_seconds {
            return wrong("limits.aggregation_wait_milliseconds", "must be shorter than limits.queue_timeout_seconds");
        }
        let delivery_seconds = self.limits.queue_timeout_seconds.saturating_add(self.limits.delivery_timeout_seconds);
        if self.api.limits.request_timeout_seconds <= delivery_seconds {
            return wrong(
                "api.limits.request_timeout_seconds",
                "must be longer than a delivery may take: \
                limits.queue_timeout_seconds and limits.delivery_timeout_seconds together",
            );
        }
        if let Some((key, reason)) = self.oscore.as_ref().and_then(OscoreSection::fault) {
            return wrong(key, reason);
        }
        if let Some((key, reason)) = self.https.as_ref().and_then(|https| https.fault(delivery_seconds)) {
            return wrong(&key, reason);
        }
        if let Some((member, reason)) = self.coaps.as_ref().and_then(|coaps| coaps.dtls.fault()) {
            return wrong(&format!("coaps.dtls.{member}"), reason);
        }
        if let Err(error) = self.authorization.check() {
            return wrong("authorization", error.reason());
        }
        if self.server.path.is_empty() || self.server.path.split('/').any(str::is_empty) {
            return wrong("server.path", "must be segments separated by single slashes");
        }
        if let Some(reason) = self.nrf.as_ref().and_then(NrfConfig::fault) {
            return wrong("nrf", &reason);
        }
        if let Some((key, reason)) = self.akma.fault() {
            return wrong(key, reason);
        }
        let url = ("configuration_function.url", Some(&self.configuration_function.url));
        for (key, root) in [url, ("akma.aanf", self.akma.aanf.as_ref())] {
            if let Some((key, reason)) = root.and_then(|root| peer_fault(self.nrf.as_ref(), key, root)) {
                return wrong(key, &reason);
            }
        }
        if let Some(reason) = AnchorRoute::fault(&self.akma.aanf_routes) {
            return wrong("akma.aanf_routes", reason);
        }
        if let Some(fault) = self.capif.as_ref().and_then(|capif| capif.aef.fault()) {
            return wrong("capif.aef", &fault);
        }
        if let Some((key, reason)) = self.exposure.as_ref().and_then(ExposureSection::fault) {
            return wrong(key, reason);
        }
        if let Some((key, reason)) = destinations::fault(self) {
            return wrong(key, reason);
        }
        for section in &self.application_server {
            if section.nf_instance_id.is_none() && section.dns_name.is_none() {
                return wrong("application_server", "needs nf_instance_id or dns_name");
            }
            if section.target_uris.iter().any(|prefix| !prefix.starts_with("https://")) {
                return wrong("application_server.target_uris", "must be https URLs");
            }
        }
        Ok(())
    }

    /// The limit of an interface or of the database that makes no sense: its key, and what it must be.
    fn interface_fault(&self) -> Option<(String, String)> {
        let of = |section: &'static str| move |(member, reason): LimitFault| (format!("{section}.{member}"), reason);
        let of_akma = self.akma.lookups.fault().map(of("akma.lookups"));
        let of_handshakes = self.tls.handshakes.fault().map(of("tls.handshakes"));
        let exposure = self.exposure.as_ref();
        let mut of_servers = [
            ("api.limits", Some(&self.api.limits)),
            ("exposure.limits", exposure.map(|section| &section.limits)),
            ("https.limits", self.https.as_ref().map(|section| &section.limits)),
            ("capif.limits", self.capif.as_ref().map(|section| &section.limits)),
        ]
        .into_iter()
        .filter_map(|(section, limits)| limits?.fault().map(of(section)));
        let mut of_clients = [
            ("akma.requests", Some(&self.akma.requests)),
            ("configuration_function.requests", Some(&self.configuration_function.requests)),
            ("api.requests", Some(&self.api.requests)),
            ("exposure.requests", exposure.map(|section| &section.requests)),
            ("group_management.requests", self.group_management.as_ref().map(|section| &section.requests)),
            ("broadcast.requests", self.broadcast.as_ref().map(|section| &section.requests)),
        ]
        .into_iter()
        .filter_map(|(section, limits)| limits?.fault().map(of(section)));
        let store = &self.store.options;
        let of_store = |section: &str, (member, reason): (&str, &str)| {
            (format!("store.options.{section}.{member}"), reason.to_owned())
        };
        let of_database = store.database.fault().map(|fault| of_store("database", fault));
        let of_store = of_database.or_else(|| store.limits.fault().map(|fault| of_store("limits", fault)));
        of_akma.or(of_handshakes).or_else(|| of_servers.next()).or_else(|| of_clients.next()).or(of_store)
    }

    /// Opens every file that a start opens: certificates, keys, authorities and CRLs, issuers' keys, and those of an exposing
    /// function.
    ///
    /// # Errors
    /// [`ServerError`] naming key and file.
    pub fn check_files(&self) -> Result<(), ServerError> {
        files::mutual_tls("certificates", &self.certificates)?;
        files::issuers(&self.authorization)?;
        files::nrf(self.nrf.as_ref(), &self.certificates, services::AF)?;
        if self.api.targets.ca.is_some() {
            files::mutual_tls("api.targets", &self.api.targets.certificates(&self.certificates))?;
        }
        if let Some(af) = self.akma.af.as_ref().and_then(|af| af.certificates.as_ref()) {
            files::mutual_tls("akma.af.certificates", af)?;
        }
        if let Some(capif) = &self.capif {
            files::exposing_function("capif.aef", &capif.aef)?;
            files::mutual_tls("capif.crl", &capif.certificates(&self.certificates))?;
        }
        match &self.https {
            Some(https) => Ok(files::server_for_devices(
                "https.certificates",
                https.certificates.as_ref().unwrap_or(&self.certificates),
            )?),
            None => Ok(()),
        }
    }
}

impl ExposureSection {
    /// What is wrong with it, if anything: the key, and why.
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        let is_root = |uri: &str| uri.starts_with("https://") && !uri.contains(['?', '#', '@']);
        if !is_root(&self.nef) {
            return Some(("exposure.nef", "must be an https URL"));
        }
        let printable = self.scs_as_id.bytes().all(|octet| octet.is_ascii_graphic());
        if self.scs_as_id.is_empty() || self.scs_as_id.len() > SCS_AS_ID_OCTETS_MAX || !printable {
            return Some(("exposure.scs_as_id", "must be 1 to 255 printable octets"));
        }
        match &self.notification_uri {
            Some(uri) if !is_root(uri) => return Some(("exposure.notification_uri", "must be an https URL")),
            None if self.notification_listen.ip().is_unspecified() => {
                return Some(("exposure.notification_uri", "is needed when notification_listen is every address"));
            }
            _ => {}
        }
        (self.monitoring_reports == 0).then_some(("exposure.monitoring_reports", "must not be 0"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SMALLEST: &str = r#"
        certificates = { certificate = "s.pem", key = "s.key", ca = "ca.pem" }
        akma = { aanf = "https://aanf.example" }
        configuration_function = { url = "https://configuration.example" }
        api = {}
        store = { path = "state" }
        server = { fqdn = "msgin5g.example" }
        authorization = { mode = "tls" }
    "#;

    fn key_at_fault(addition: &str) -> String {
        let config: Config = toml::from_str(&format!("{SMALLEST}\n{addition}")).unwrap();
        match config.check().unwrap_err() {
            ServerError::Configuration { key, .. } => key,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_has_a_default_may_be_left_out() {
        let config: Config = toml::from_str(SMALLEST).unwrap();
        config.check().unwrap();
        assert_eq!((config.server.path.as_str(), config.server.listen.port()), ("msgin5g", 5684));
        assert!(config.admin.listen.ip().is_loopback());
        assert!(!config.tls.allow_plain_psk_tls12);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(toml::from_str::<Config>(&format!("{SMALLEST}\nlimit = 1")).is_err());
        assert!(toml::from_str::<Config>(&format!("{SMALLEST}\n[limits]\nconnection_max = 1")).is_err());
    }

    #[test]
    fn keys_come_from_one_side_and_what_is_missing_there_is_named() {
        let akma = |text: &str| {
            let config =
                SMALLEST.replace("akma = { aanf = \"https://aanf.example\" }", &format!("akma = {{ {text} }}"));
            let config: Config = toml::from_str(&config).unwrap();
            match config.check() {
                Ok(()) => None,
                Err(ServerError::Configuration { key, .. }) => Some(key),
                Err(other) => panic!("{other}"),
            }
        };
        let (nef, af) = ("nef = \"https://nef.example\"", "af = { client_id = \"us\" }");
        assert_eq!(akma(&format!("{nef}, {af}")), None);
        assert_eq!(akma("").as_deref(), Some("akma"));
        assert_eq!(akma(&format!("{nef}, {af}, aanf = \"https://aanf.example\"")).as_deref(), Some("akma"));
        assert_eq!(akma(nef).as_deref(), Some("akma.af"));
        assert_eq!(akma(&format!("{af}, aanf = \"https://aanf.example\"")).as_deref(), Some("akma.af"));
        assert_eq!(akma(&format!("nef = \"http://nef.example\", {af}")).as_deref(), Some("akma.nef"));
    }

    #[test]
    fn what_is_wrong_with_groups_topics_and_areas_is_named_by_its_key() {
        let config: Config = toml::from_str(&format!(
            "{SMALLEST}\n{}",
            r#"
            [group_management]
            url = "https://groups.example"
            [broadcast]
            gateway = "https://gateway.example"
            [[broadcast_area]]
            area = "north"
            senders = ["*@lab.example"]
            [[topic]]
            name = "alerts/*"
            publishers = ["AS:billing"]
            subscribers = ["UE:*@lab.example"]
            [[topic_server]]
            server_id = "msgin5g.other.example"
            dns_name = "msgin5g.other.example"
            subscribers = ["UE:*@other.example"]
            "#
        ))
        .unwrap();
        config.check().unwrap();
        assert_eq!(key_at_fault("[group_management]\nurl = \"http://groups.example\""), "group_management.url");
        assert_eq!(key_at_fault("[broadcast]\ngateway = \"gateway.example\""), "broadcast.gateway");
        assert_eq!(key_at_fault("[[broadcast_area]]\narea = \"north\""), "broadcast.gateway");
        let twice = "[[broadcast_area]]\narea = \"north\"\n";
        let gateway = "[broadcast]\ngateway = \"https://gateway.example\"";
        assert_eq!(key_at_fault(&format!("{twice}{twice}{gateway}")), "broadcast_area.area");
        assert_eq!(key_at_fault("[[topic]]\nname = \"a b\""), "topic.name");
        assert_eq!(key_at_fault("[[topic_server]]\nserver_id = \"other\""), "topic_server");
        let prefix = "[[topic_server]]\nserver_id = \"other\"\ndns_name = \"o\"\nnotification_uris = [\"http://o\"]";
        assert_eq!(key_at_fault(prefix), "topic_server.notification_uris");
        assert_eq!(key_at_fault("[limits]\ngroup_members_max = 20000"), "limits.group_members_max");
        let mut config = config;
        config.store.options.limits.subscriptions_per_topic_max = 20_000;
        assert!(config.check().unwrap_err().to_string().contains("subscriptions_per_topic_max"));
        assert!(
            toml::from_str::<Config>(&format!("{SMALLEST}\n[[topic]]\nname = \"a\"\npublishers = [\"a**\"]")).is_err()
        );
    }

    #[test]
    fn what_is_wrong_with_the_exposure_function_is_named_by_its_key() {
        let right = "nef = \"https://nef.example\"\nscs_as_id = \"msgin5g\"";
        let exposure = |rest: &str| format!("[exposure]\n{rest}");
        let here = "notification_uri = \"https://server.example:8444\"";
        let config: Config = toml::from_str(&format!("{SMALLEST}\n{}", exposure(&format!("{right}\n{here}")))).unwrap();
        config.check().unwrap();
        assert_eq!(key_at_fault(&exposure(right)), "exposure.notification_uri");
        let fault = |rest: &str| key_at_fault(&exposure(&format!("{here}\n{rest}")));
        assert_eq!(fault("nef = \"http://nef.example\"\nscs_as_id = \"a\""), "exposure.nef");
        assert_eq!(fault("nef = \"https://nef.example\"\nscs_as_id = \"\""), "exposure.scs_as_id");
        assert_eq!(fault(&format!("{right}\nmonitoring_reports = 0")), "exposure.monitoring_reports");
        let endless = i64::MAX;
        assert_eq!(
            fault(&format!("{right}\nlimits.drain_timeout_seconds = {endless}")),
            "exposure.limits.drain_timeout_seconds"
        );
        assert_eq!(
            fault(&format!("{right}\nrequests.request_timeout_milliseconds = {endless}")),
            "exposure.requests.request_timeout_milliseconds"
        );
    }

    #[test]
    fn contradictions_are_named_by_their_key() {
        assert_eq!(key_at_fault("[limits]\nconnections_max = 0"), "limits.connections_max");
        // As much as TOML has; the environment has more.
        let endless = i64::MAX;
        assert_eq!(key_at_fault(&format!("[limits]\nidle_ping_seconds = {endless}")), "limits.idle_ping_seconds");
        assert_eq!(
            key_at_fault(&format!("[tls.handshakes]\nclient_hello_timeout_ms = {endless}")),
            "tls.handshakes.client_hello_timeout_ms"
        );
        assert_eq!(key_at_fault("[limits]\nremembered_per_ue_max = 63"), "limits.remembered_per_ue_max");
        assert_eq!(key_at_fault("[limits]\nmessage_payload_octets_max = 100"), "limits.message_payload_octets_max");
        let key = "store.options.limits.body_octets_max";
        assert_eq!(key_at_fault("[limits]\nmessage_payload_octets_max = 100000"), key);
        let key = "limits.reassembly_octets_per_originator_max";
        assert_eq!(key_at_fault("[limits]\nreassembly_octets_per_originator_max = 66000"), key);
        let key = "limits.aggregation_wait_milliseconds";
        assert_eq!(key_at_fault("[limits]\naggregation_wait_milliseconds = 20000"), key);
        assert_eq!(key_at_fault("[limits]\nqueue_timeout_seconds = 40"), "api.limits.request_timeout_seconds");
        assert_eq!(key_at_fault("[[application_server]]\nas_service_id = \"billing\""), "application_server");
        let prefix =
            "[[application_server]]\nas_service_id = \"billing\"\ndns_name = \"b\"\ntarget_uris = [\"http://b\"]";
        assert_eq!(key_at_fault(prefix), "application_server.target_uris");
    }
}
