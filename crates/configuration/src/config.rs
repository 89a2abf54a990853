//! Configuration of the Configuration Function, and its checks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use akma::Fqdn;
use sbi::authorization::AuthorizationConfig;
use sbi::naanf::{AnchorRoute, NotificationSection};
use sbi::nrf::NrfConfig;
use sbi::policy::{self, InvalidPolicy};
use sbi::{CertificateFiles, ClientLimits, Limit, LimitFault, PeerName, ServerLimits, files, services};
use serde::{Deserialize, Serialize};
use store::DatabaseOptions;
use transport::{HandshakeLimits, LookupLimits};

use crate::coap_limits::CoapLimits;
use crate::error::ConfigurationError;
use crate::ue_configuration::Template;

/// Everything the function needs to know. `listen`, `data` and `tls` have no default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the APIs are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where health and metrics are served, plain HTTP; nowhere if absent.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Directory of the durable state; made with mode 0700. It holds SUPIs and GPSIs.
    pub data: PathBuf,
    /// The tables' sizes.
    #[serde(default)]
    pub tables: TableLimits,
    /// Own certificate and key, and the authority of everybody else's.
    pub tls: CertificateFiles,
    /// The server's limits. A body may have 262,144 octets here: groups are large.
    #[serde(default = "default_limits")]
    pub limits: ServerLimits,
    /// The database's limits.
    #[serde(default)]
    pub store: DatabaseOptions,
    /// Where UEs ask for their configuration; nowhere if absent.
    #[serde(default)]
    pub coap: Option<CoapConfig>,
    /// How requests are authorised before the entries below are looked for.
    #[serde(default)]
    pub authorization: AuthorizationConfig,
    /// The NRF that it registers at, that gives it access tokens, and may find the AAnF; none if absent.
    #[serde(default)]
    pub nrf: Option<NrfConfig>,
    /// File with the entries below, in their place; read again when it changes.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Who may read and change associations and groups.
    #[serde(default, rename = "provisioner")]
    pub provisioners: Vec<PeerName>,
    /// Who may ask for a UE's profile and read groups: MSGin5G Servers.
    #[serde(default, rename = "reader")]
    pub readers: Vec<PeerName>,
}

/// What a policy file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Who may read and change associations and groups.
    #[serde(default, rename = "provisioner")]
    pub provisioners: Vec<PeerName>,
    /// Who may ask for a UE's profile and read groups: MSGin5G Servers.
    #[serde(default, rename = "reader")]
    pub readers: Vec<PeerName>,
}

impl PolicyFile {
    /// Reads one, and finds what is wrong with it.
    ///
    /// # Errors
    /// [`InvalidPolicy`] naming the entry.
    pub fn read(path: &Path) -> Result<Self, InvalidPolicy> {
        let this: Self = policy::read(path)?;
        match fault_of(&this.provisioners, &this.readers) {
            Some(reason) => Err(InvalidPolicy::new(path, reason)),
            None => Ok(this),
        }
    }
}

/// What is wrong with entries, if anything.
fn fault_of(provisioners: &[PeerName], readers: &[PeerName]) -> Option<String> {
    [("provisioner", provisioners), ("reader", readers)].into_iter().find_map(|(key, peers)| {
        let index = peers.iter().position(PeerName::is_empty)?;
        Some(format!("{key}[{index}] needs nf_instance_id or dns_name"))
    })
}

/// Sizes of the function's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableLimits {
    /// Associations in all; one more gets 500, INSUFFICIENT_RESOURCES.
    pub associations_max: u64,
    /// Associations of one UE ID; one more gets 403, TOO_MANY_ASSOCIATIONS.
    pub associations_per_ue_max: usize,
    /// Associations or groups on one page of a list, whatever the request asks for.
    pub page_max: usize,
    /// Groups in all; one more gets 500, INSUFFICIENT_RESOURCES.
    pub groups_max: u64,
    /// Members of one group; one more gets 403, TOO_MANY_MEMBERS.
    pub group_members_max: usize,
    /// Octets of one group's document as JSON; a longer one gets 413.
    pub group_octets_max: usize,
    /// Octets of the groups in one answer; the next group begins a page of its own.
    pub page_octets_max: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            associations_max: 20_000_000,
            associations_per_ue_max: 256,
            page_max: 1_000,
            groups_max: 100_000,
            group_members_max: 4_096,
            group_octets_max: 196_608,
            page_octets_max: 196_608,
        }
    }
}

/// `[coap]`: the interface for UEs, `su-uc` over CoAP (TS 24.546 clause C.3), secured by AKMA (TS 33.535 Annex B).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoapConfig {
    /// The name that UEs ask for by SNI and that is part of AF_ID. Not the MSGin5G Server's: it has a K_AF of its own.
    pub fqdn: Fqdn,
    /// Where CoAP over TLS is served; port 0 takes a free one.
    #[serde(default = "default_coap_listen")]
    pub listen: SocketAddr,
    /// Where UEs are sent to: `coaps+tcp://FQDN[:PORT]/PATH` of the MSGin5G Server.
    pub server_address: String,
    /// Where they connect instead of looking FQDN up, for networks whose names are in no DNS.
    #[serde(default)]
    pub connect_address: Option<SocketAddr>,
    /// Supported Maximum MSGin5G segment size that UEs are told, octets; none if absent.
    #[serde(default)]
    pub segment_size: Option<u32>,
    /// Accept TLS 1.2 without forward secrecy (TLS_PSK_WITH_AES_128_GCM_SHA256), for devices that have no more.
    #[serde(default)]
    pub allow_plain_psk_tls12: bool,
    /// The AAnF's API root, `https://...`; or `nrf`: the NRF finds the one that serves the A-KID's routing indicator. It is
    /// asked with the function's own certificate.
    pub aanf: String,
    /// AAnFs for the A-KIDs of some routing indicators; `aanf` has the others.
    #[serde(default)]
    pub aanf_routes: Vec<AnchorRoute>,
    /// Being told when AKMA is disabled. None: that is found by re-validation only.
    #[serde(default)]
    pub notifications: Option<NotificationSection>,
    /// Limits on handshakes.
    #[serde(default)]
    pub handshakes: HandshakeLimits,
    /// Limits on key look-ups.
    #[serde(default)]
    pub lookups: LookupLimits,
    /// Limits on requests to the AAnF.
    #[serde(default)]
    pub requests: ClientLimits,
    /// Limits on connections.
    #[serde(default)]
    pub limits: CoapLimits,
}

impl CoapConfig {
    pub(crate) fn template(&self) -> Template {
        Template {
            server_address: self.server_address.clone(),
            connect_address: self.connect_address,
            segment_size: self.segment_size,
        }
    }

    /// The key that is wrong, and why.
    fn fault(&self, nrf: Option<&NrfConfig>) -> Option<String> {
        if !is_server_address(&self.server_address) {
            return Some("coap.server_address must be coaps+tcp://FQDN[:PORT]/PATH".to_owned());
        }
        if let Some((key, reason)) = self.notifications.as_ref().and_then(NotificationSection::fault) {
            return Some(format!("coap.notifications.{key} {reason}"));
        }
        if self.segment_size == Some(0) {
            return Some("coap.segment_size must be 1 or more".to_owned());
        }
        if let Some((key, reason)) = sbi::nrf::peer_fault(nrf, "coap.aanf", &self.aanf) {
            return Some(format!("{key} {reason}"));
        }
        if let Some(reason) = AnchorRoute::fault(&self.aanf_routes) {
            return Some(format!("coap.aanf_routes: {reason}"));
        }
        let connections = [
            ("connections_max", self.limits.connections_max),
            ("connections_per_a_kid_max", self.limits.connections_per_a_kid_max),
        ];
        if let Some((key, _)) = connections.iter().find(|(_, limit)| *limit == 0) {
            return Some(format!("coap.limits.{key} must be 1 or more"));
        }
        self.limits.wrong_duration().map(|key| format!("coap.limits.{key} must be 1 second to 100 years"))
    }
}

/// Whether a UE can go by it: a name, a port if it is not 5684, and the segments of a path.
fn is_server_address(text: &str) -> bool {
    let Some((authority, path)) = text.strip_prefix("coaps+tcp://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        None => (authority, true),
    };
    let segments =
        path.split('/').all(|segment| !segment.is_empty() && segment.bytes().all(|octet| octet.is_ascii_graphic()));
    port && segments && host.parse::<Fqdn>().is_ok()
}

fn default_coap_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 5684))
}

fn default_limits() -> ServerLimits {
    ServerLimits { request_body_bytes_max: 262_144, ..ServerLimits::default() }
}

impl Config {
    /// The limit that makes no sense, and what it must be.
    fn limit_fault(&self) -> Option<(String, String)> {
        let of = |section: &'static str| move |(member, reason): LimitFault| (format!("{section}.{member}"), reason);
        let tables = &self.tables;
        let of_tables = Limit::fault([
            Limit::within("associations_max", tables.associations_max, 1..=u64::MAX),
            Limit::count("associations_per_ue_max", tables.associations_per_ue_max),
            Limit::count("page_max", tables.page_max),
            Limit::within("groups_max", tables.groups_max, 1..=u64::MAX),
            Limit::count("group_members_max", tables.group_members_max),
            Limit::count("group_octets_max", tables.group_octets_max),
            Limit::count("page_octets_max", tables.page_octets_max),
        ]);
        let of_store = self.store.fault().map(|(member, reason)| (format!("store.{member}"), reason.to_owned()));
        let coap = self.coap.as_ref();
        let of_coap = coap.and_then(|coap| {
            let lookups = coap.lookups.fault().map(of("coap.lookups"));
            let handshakes = coap.handshakes.fault().map(of("coap.handshakes"));
            lookups.or(handshakes).or(coap.requests.fault().map(of("coap.requests")))
        });
        self.limits.fault().map(of("limits")).or(of_tables.map(of("tables"))).or(of_store).or(of_coap)
    }

    /// Opens every file that a start opens: certificate, key, authorities, CRL, issuers' keys.
    ///
    /// # Errors
    /// [`ConfigurationError`] naming key and file.
    pub fn check_files(&self) -> Result<(), ConfigurationError> {
        files::mutual_tls("tls", &self.tls)?;
        files::issuers(&self.authorization)?;
        Ok(files::nrf(self.nrf.as_ref(), &self.tls, services::AF)?)
    }

    /// The same, with the entries of the policy file in place if one is named.
    ///
    /// # Errors
    /// [`ConfigurationError::Policy`] for an unusable file; [`ConfigurationError::Configuration`] where there are entries
    /// here, too.
    pub fn with_policy(mut self) -> Result<Self, ConfigurationError> {
        let Some(path) = &self.policy else { return Ok(self) };
        if !self.provisioners.is_empty() || !self.readers.is_empty() {
            let reason = "policy: the file holds every [[provisioner]] and [[reader]], so none may stand here";
            return Err(ConfigurationError::Configuration(reason.to_owned()));
        }
        PolicyFile { provisioners: self.provisioners, readers: self.readers } = PolicyFile::read(path)?;
        Ok(self)
    }

    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`ConfigurationError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        if let Err(error) = self.authorization.check() {
            return Err(ConfigurationError::Configuration(error.to_string()));
        }
        if let Some(reason) = fault_of(&self.provisioners, &self.readers) {
            return Err(ConfigurationError::Configuration(reason));
        }
        if let Some((key, reason)) = self.limit_fault() {
            return Err(ConfigurationError::Configuration(format!("{key} {reason}")));
        }
        let nrf = self.nrf.as_ref();
        let fault = nrf.and_then(NrfConfig::fault);
        match fault.or_else(|| self.coap.as_ref().and_then(|coap| coap.fault(nrf))) {
            Some(fault) => Err(ConfigurationError::Configuration(fault)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_address_is_one_that_a_ue_can_go_by() {
        for right in ["coaps+tcp://msgin5g.example.com/msgin5g", "coaps+tcp://a.example:5684/x/y"] {
            assert!(is_server_address(right), "{right}");
        }
        for wrong in [
            "",
            "msgin5g.example.com:5684",
            "coaps://a.example/x",
            "coaps+tcp://a.example",
            "coaps+tcp://a.example/",
            "coaps+tcp://a.example/x//y",
            "coaps+tcp://a.example:0/x",
            "coaps+tcp://a.example:65536/x",
            "coaps+tcp:///x",
            "coaps+tcp://a.example/x\ny",
        ] {
            assert!(!is_server_address(wrong), "{wrong}");
        }
    }
}
