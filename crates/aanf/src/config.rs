//! Configuration of the AKMA anchor function, and its checks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use akma::{AfId, Fqdn, RoutingIndicator};
use sbi::authorization::AuthorizationConfig;
use sbi::naanf::NotificationUri;
use sbi::nrf::{NrfConfig, peer_fault};
use sbi::policy::{self, InvalidPolicy};
use sbi::{CertificateFiles, ClientLimits, Limit, LimitFault, PeerName, ServerLimits, files, services};
use serde::{Deserialize, Serialize};
use store::DatabaseOptions;

use crate::error::AanfError;
use crate::seal::Sealer;

/// Everything the function needs to know. `listen`, `data` and `tls` have no default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where Naanf_AKMA is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where health and metrics are served, plain HTTP; nowhere if absent.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Directory of the durable state; made with mode 0700. It holds SUPIs and, unless `storage_key` is given, K_AKMA
    /// in clear.
    pub data: PathBuf,
    /// File with 64 hexadecimal digits: the AES-256-GCM key under which K_AKMA is stored.
    #[serde(default)]
    pub storage_key: Option<PathBuf>,
    /// How long K_AF is valid from its first derivation, unless the AF's entry says otherwise. In seconds, 1 or more.
    #[serde(default = "default_kaf_lifetime_seconds")]
    pub kaf_lifetime_seconds: u64,
    /// Whether an AF may go on with its K_AF after the UE has got a new K_AKMA, until K_AF itself expires (TS 33.535
    /// clause 5.2). Where not, AFs that left a `notifUri` are notified as if AKMA were disabled for the old A-KID.
    #[serde(default = "default_kaf_may_outlive_kakma")]
    pub kaf_may_outlive_kakma: bool,
    /// The routing indicators whose UEs have their keys here (TS 29.510 AanfInfo); all, if none is named. An A-KID that
    /// does not begin with one of them gets 404, ROUTING_INDICATOR_NOT_SERVED.
    #[serde(default)]
    pub routing_indicators: BTreeSet<RoutingIndicator>,
    /// How AFs are told that AKMA is disabled.
    #[serde(default)]
    pub notifications: NotificationConfig,
    /// The tables' sizes.
    #[serde(default)]
    pub tables: TableLimits,
    /// Own certificate and key, and the authority of everybody else's.
    pub tls: CertificateFiles,
    /// The server's limits.
    #[serde(default)]
    pub limits: ServerLimits,
    /// The database's limits.
    #[serde(default)]
    pub store: DatabaseOptions,
    /// The UDM that translates SUPI to GPSI; without it, functions that may not see the SUPI get no identity.
    #[serde(default)]
    pub udm: Option<UdmConfig>,
    /// How requests are authorised before any entry below is looked for.
    #[serde(default)]
    pub authorization: AuthorizationConfig,
    /// The NRF that it registers at and that gives it access tokens; none if absent.
    #[serde(default)]
    pub nrf: Option<NrfConfig>,
    /// File with the entries below, in their place; read again when it changes.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Who may do what. Whoever has no entry may do nothing.
    #[serde(default, rename = "af")]
    pub afs: Vec<AfConfig>,
}

/// What a policy file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Who may do what. Whoever has no entry may do nothing.
    #[serde(default, rename = "af")]
    pub afs: Vec<AfConfig>,
}

impl PolicyFile {
    /// Reads one, and finds what is wrong with it.
    ///
    /// # Errors
    /// [`InvalidPolicy`] naming the entry.
    pub fn read(path: &Path) -> Result<Self, InvalidPolicy> {
        let this: Self = policy::read(path)?;
        match fault_of(&this.afs) {
            Some(reason) => Err(InvalidPolicy::new(path, reason)),
            None => Ok(this),
        }
    }
}

/// Sizes of the function's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableLimits {
    /// AKMA contexts held, one per UE; registering one more gets 500, INSUFFICIENT_RESOURCES.
    pub contexts_max: u64,
    /// Different AF_IDs for which one context may yield a K_AF; one more gets 403, TOO_MANY_APPLICATION_KEYS.
    pub application_keys_per_context_max: usize,
    /// URIs for notifications kept for one K_AF; one more takes the place of the oldest.
    pub notification_uris_per_key_max: usize,
    /// URIs for notifications kept in all; one more is not kept, and the answer's `suppFeat` shows it.
    pub notification_uris_max: u64,
    /// UEs for which the operator has disabled AKMA; disabling one more gets 500, INSUFFICIENT_RESOURCES.
    pub disabled_ues_max: u64,
    /// FQDNs of AFs for which the operator has disabled AKMA; disabling one more gets 500, INSUFFICIENT_RESOURCES.
    pub disabled_afs_max: u64,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            contexts_max: 10_000_000,
            application_keys_per_context_max: 64,
            notification_uris_per_key_max: 4,
            notification_uris_max: 10_000_000,
            disabled_ues_max: 1_000_000,
            disabled_afs_max: 10_000,
        }
    }
}

/// Notifications that AKMA is disabled: how many wait, how they are sent, when they are given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotificationConfig {
    /// Notifications waiting at once. One more is lost, and logged; where the cause is an AF that is disabled, it waits.
    pub pending_max: u64,
    /// How long one is tried, in seconds; not longer than its K_AF is valid.
    pub lifetime_seconds: u64,
    /// Pause after the first failure at a host, in milliseconds; doubled by each further one.
    pub retry_initial_milliseconds: u64,
    /// The longest pause, in seconds, a peer's `Retry-After` included.
    pub retry_max_seconds: u64,
    /// Notifications on their way at once, to all hosts; others wait.
    pub in_flight_max: usize,
    /// The client's limits.
    pub limits: ClientLimits,
}

impl Default for NotificationConfig {
    fn default() -> Self {
        Self {
            pending_max: 100_000,
            lifetime_seconds: 86_400,
            retry_initial_milliseconds: 1_000,
            retry_max_seconds: 300,
            in_flight_max: 64,
            limits: ClientLimits::default(),
        }
    }
}

/// Where and how to ask for a GPSI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UdmConfig {
    /// API root, for example `https://udm.example:8443`, or `nrf` to have the NRF find it ([`sbi::nrf::ProducerRoot`]).
    pub root: String,
    /// The client's limits.
    #[serde(default)]
    pub limits: ClientLimits,
    /// After a failure UDM is left alone for this long, in milliseconds; contexts yield no GPSI meanwhile.
    #[serde(default = "default_udm_pause_milliseconds")]
    pub pause_milliseconds: u64,
}

/// What one peer, told by its certificate, may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AfConfig {
    /// NF instance ID that the certificate must carry as URI `urn:uuid:...`. This or `dns_name` is needed; if both
    /// are given, both must match.
    pub nf_instance_id: Option<String>,
    /// DNS name that the certificate must carry.
    pub dns_name: Option<String>,
    /// FQDNs of the AF_IDs for which it may get K_AF.
    pub fqdns: BTreeSet<Fqdn>,
    /// Whether it may see the SUPI. With a token, the token's scope must say so, too.
    pub supi_access: bool,
    /// Whether it may register and remove contexts, which only an AUSF may.
    pub may_register: bool,
    /// Whether it may disable and enable AKMA for UEs and AFs: an operator's own system.
    pub may_provision: bool,
    /// Overrides `kaf_lifetime_seconds` for its keys.
    pub kaf_lifetime_seconds: Option<u64>,
    /// Overrides both for some of its keys; the first that applies counts.
    pub kaf_lifetimes: Vec<KafLifetime>,
    /// URIs at or below which it may be notified. Where none is given: any `https` URI whose host is a DNS name of its
    /// certificate.
    pub notification_uris: Vec<NotificationUri>,
    /// Requests a second, with as many at once; one more gets 429, NF_CONGESTION_RISK.
    pub requests_per_second_max: Option<u32>,
}

/// Lifetime of K_AF for some AF_IDs of an AF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafLifetime {
    /// For this FQDN; for any, if absent.
    #[serde(default)]
    pub fqdn: Option<Fqdn>,
    /// For Ua* protocols whose identifier begins with these octets; for any, if absent.
    #[serde(default)]
    pub ua_protocol: Option<UaProtocolPrefix>,
    /// In seconds, 1 or more.
    pub seconds: u64,
}

impl KafLifetime {
    pub(crate) fn applies(&self, af_id: &AfId) -> bool {
        self.fqdn.as_ref().is_none_or(|fqdn| fqdn == af_id.fqdn())
            && self.ua_protocol.as_ref().is_none_or(|prefix| prefix.covers(af_id))
    }
}

/// The first one to five octets of a Ua* protocol identifier, in hexadecimal: `0100000007` is TLS 1.3, `010001` every
/// cipher suite of TLS 1.2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UaProtocolPrefix(Vec<u8>);

impl UaProtocolPrefix {
    fn covers(&self, af_id: &AfId) -> bool {
        af_id.protocol().to_bytes().starts_with(&self.0)
    }
}

impl TryFrom<String> for UaProtocolPrefix {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match hex::decode(text) {
            Ok(octets) if (1..=5).contains(&octets.len()) => Ok(Self(octets)),
            _ => Err("not one to five octets in hexadecimal"),
        }
    }
}

impl From<UaProtocolPrefix> for String {
    fn from(prefix: UaProtocolPrefix) -> Self {
        hex::encode(prefix.0)
    }
}

impl AfConfig {
    pub(crate) fn peer_name(&self) -> PeerName {
        PeerName { nf_instance_id: self.nf_instance_id.clone(), dns_name: self.dns_name.clone() }
    }

    fn fault(&self) -> Option<String> {
        if self.requests_per_second_max == Some(0) {
            return Some(".requests_per_second_max must be 1 or more".to_owned());
        }
        let mut lifetimes = self.kaf_lifetimes.iter().map(|lifetime| lifetime.seconds).chain(self.kaf_lifetime_seconds);
        if lifetimes.any(|seconds| !KAF_LIFETIME_SECONDS.contains(&seconds)) {
            return Some(format!(": lifetimes must be within {KAF_LIFETIME_SECONDS:?}"));
        }
        for lifetime in &self.kaf_lifetimes {
            if lifetime.fqdn.is_none() && lifetime.ua_protocol.is_none() {
                return Some(".kaf_lifetimes needs fqdn or ua_protocol".to_owned());
            }
            if lifetime.fqdn.as_ref().is_some_and(|fqdn| !self.fqdns.contains(fqdn)) {
                return Some(".kaf_lifetimes names an FQDN that is not among fqdns".to_owned());
            }
        }
        None
    }
}

/// What is wrong with entries, if anything.
fn fault_of(afs: &[AfConfig]) -> Option<String> {
    for (index, af) in afs.iter().enumerate() {
        if af.peer_name().is_empty() {
            return Some(format!("af[{index}] needs nf_instance_id or dns_name"));
        }
        if af.fqdns.is_empty() && !af.may_register && !af.may_provision {
            return Some(format!("af[{index}] may do nothing: give it fqdns, may_register or may_provision"));
        }
        if let Some(reason) = af.fault() {
            return Some(format!("af[{index}]{reason}"));
        }
        if afs.iter().filter(|other| other.peer_name() == af.peer_name()).count() > 1 {
            return Some(format!("af[{index}] names the same peer as another entry"));
        }
    }
    None
}

impl Config {
    /// The same, with the entries of the policy file in place if one is named.
    ///
    /// # Errors
    /// [`AanfError::Policy`] for an unusable file; [`AanfError::Configuration`] where there are entries here, too.
    pub fn with_policy(mut self) -> Result<Self, AanfError> {
        let Some(path) = &self.policy else { return Ok(self) };
        if !self.afs.is_empty() {
            return Err(AanfError::Configuration(
                "policy: the file holds every [[af]], so none may stand here".to_owned(),
            ));
        }
        self.afs = PolicyFile::read(path)?.afs;
        Ok(self)
    }

    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`AanfError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), AanfError> {
        let fault = |reason: String| Err(AanfError::Configuration(reason));
        if let Err(error) = self.authorization.check() {
            return fault(error.to_string());
        }
        if !KAF_LIFETIME_SECONDS.contains(&self.kaf_lifetime_seconds) {
            return fault(format!("kaf_lifetime_seconds must be within {KAF_LIFETIME_SECONDS:?}"));
        }
        if let Some(reason) = fault_of(&self.afs) {
            return fault(reason);
        }
        let notifications = &self.notifications;
        if notifications.pending_max == 0
            || notifications.in_flight_max == 0
            || notifications.lifetime_seconds == 0
            || notifications.retry_initial_milliseconds == 0
            || !RETRY_MAX_SECONDS.contains(&notifications.retry_max_seconds)
        {
            return fault(format!(
                "notifications: nothing may be 0, and retry_max_seconds must be within {RETRY_MAX_SECONDS:?}"
            ));
        }
        if let Some(reason) = self.nrf.as_ref().and_then(NrfConfig::fault) {
            return fault(reason);
        }
        if let Some((key, reason)) = self.limit_fault() {
            return fault(format!("{key} {reason}"));
        }
        let udm = self.udm.as_ref().and_then(|udm| peer_fault(self.nrf.as_ref(), "udm.root", &udm.root));
        udm.map_or(Ok(()), |(key, reason)| fault(format!("{key} {reason}")))
    }
}

impl Config {
    /// The limit that makes no sense, and what it must be.
    fn limit_fault(&self) -> Option<(String, String)> {
        let of = |section: &'static str| move |(member, reason): LimitFault| (format!("{section}.{member}"), reason);
        let tables = &self.tables;
        let of_tables = Limit::fault([
            Limit::within("contexts_max", tables.contexts_max, 1..=u64::MAX),
            Limit::count("application_keys_per_context_max", tables.application_keys_per_context_max),
            Limit::count("notification_uris_per_key_max", tables.notification_uris_per_key_max).or_none(),
            Limit::within("disabled_ues_max", tables.disabled_ues_max, 1..=u64::MAX),
            Limit::within("disabled_afs_max", tables.disabled_afs_max, 1..=u64::MAX),
        ]);
        let of_store = self.store.fault().map(|(member, reason)| (format!("store.{member}"), reason.to_owned()));
        let udm = self.udm.as_ref().and_then(|udm| udm.limits.fault());
        let of_udm = udm.map(of("udm.limits"));
        let notifications = self.notifications.limits.fault().map(of("notifications.limits"));
        self.limits.fault().map(of("limits")).or(of_tables.map(of("tables"))).or(of_store).or(of_udm).or(notifications)
    }

    /// Opens every file that a start opens: certificate, key, authorities, CRL, issuers' keys, storage key.
    ///
    /// # Errors
    /// [`AanfError`] naming key and file.
    pub fn check_files(&self) -> Result<(), AanfError> {
        files::mutual_tls("tls", &self.tls)?;
        files::issuers(&self.authorization)?;
        files::nrf(self.nrf.as_ref(), &self.tls, services::AANF)?;
        Sealer::open(self.storage_key.as_deref()).map(drop)
    }
}

fn default_kaf_lifetime_seconds() -> u64 {
    7 * 24 * 3600
}

fn default_kaf_may_outlive_kakma() -> bool {
    true
}

fn default_udm_pause_milliseconds() -> u64 {
    1_000
}

/// A second to ten years.
const KAF_LIFETIME_SECONDS: std::ops::RangeInclusive<u64> = 1..=315_360_000;
/// A second to a day.
const RETRY_MAX_SECONDS: std::ops::RangeInclusive<u64> = 1..=86_400;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(change: impl FnOnce(&mut Config)) -> Result<(), AanfError> {
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            admin: None,
            data: "data".into(),
            storage_key: None,
            kaf_lifetime_seconds: default_kaf_lifetime_seconds(),
            kaf_may_outlive_kakma: true,
            routing_indicators: BTreeSet::new(),
            notifications: NotificationConfig::default(),
            tables: TableLimits::default(),
            tls: CertificateFiles { certificate: "c".into(), key: "k".into(), ca: "ca".into(), crl: None },
            limits: ServerLimits::default(),
            store: DatabaseOptions::default(),
            udm: None,
            authorization: AuthorizationConfig::tls_only(),
            nrf: None,
            policy: None,
            afs: vec![AfConfig {
                nf_instance_id: Some("4947a69a-f61b-4bc1-b9da-47c9c5d14b64".to_owned()),
                may_register: true,
                ..AfConfig::default()
            }],
        };
        change(&mut config);
        config.check()
    }

    #[test]
    fn a_sound_configuration_passes() {
        config(|_| {}).unwrap();
    }

    #[test]
    fn entries_that_name_nobody_or_allow_nothing_are_found() {
        assert!(config(|config| config.afs.push(AfConfig { may_register: true, ..AfConfig::default() })).is_err());
        let nothing = AfConfig { dns_name: Some("af.example.com".to_owned()), ..AfConfig::default() };
        assert!(config(|config| config.afs.push(nothing)).is_err());
    }

    #[test]
    fn two_entries_for_one_peer_are_found() {
        assert!(config(|config| config.afs.extend(config.afs.clone())).is_err());
    }

    #[test]
    fn a_lifetime_of_nothing_is_found() {
        assert!(config(|config| config.kaf_lifetime_seconds = 0).is_err());
        assert!(config(|config| config.afs.iter_mut().for_each(|af| af.kaf_lifetime_seconds = Some(0))).is_err());
    }

    #[test]
    fn lifetimes_for_nobody_and_rates_and_retries_of_nothing_are_found() {
        let lifetime = |fqdn: Option<&str>, ua_protocol: Option<&str>, seconds| KafLifetime {
            fqdn: fqdn.map(|fqdn| fqdn.parse().unwrap()),
            ua_protocol: ua_protocol.map(|octets| octets.to_owned().try_into().unwrap()),
            seconds,
        };
        let with = |lifetime: KafLifetime| {
            config(|config| config.afs.iter_mut().for_each(|af| af.kaf_lifetimes = vec![lifetime.clone()]))
        };
        assert!(with(lifetime(None, Some("010001"), 60)).is_ok());
        assert!(with(lifetime(None, Some("010001"), 0)).is_err());
        assert!(with(lifetime(None, None, 60)).is_err());
        assert!(with(lifetime(Some("another.example.com"), None, 60)).is_err());
        assert!(config(|config| config.afs.iter_mut().for_each(|af| af.requests_per_second_max = Some(0))).is_err());
        assert!(config(|config| config.notifications.retry_max_seconds = 0).is_err());
        for wrong in ["", "0", "01000000070", "010000000700", "0x01"] {
            assert!(UaProtocolPrefix::try_from(wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_udm_without_tls_is_found() {
        let udm = UdmConfig { root: "http://udm".to_owned(), limits: ClientLimits::default(), pause_milliseconds: 1 };
        assert!(config(|config| config.udm = Some(udm)).is_err());
    }
}
