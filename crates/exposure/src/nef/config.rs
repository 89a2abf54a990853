//! Configuration of the NEF, and its checks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use akma::Fqdn;
use message::{AsServiceId, IdentityPattern};
use sbi::callback::is_well_formed_below;
use sbi::capif::aef::AefConfig;
use sbi::naanf::{AnchorRoute, NotificationSection};
use sbi::nrf::{NrfConfig, peer_fault};
use sbi::{CertificateFiles, ClientLimits, Limit, LimitFault, PeerName, ServerLimits, files, services};
use serde::{Deserialize, Serialize};
use store::DatabaseOptions;

use super::token::Tokens;
use crate::error::ExposureError;

/// `[nef]`: everything the function needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where application functions outside the domain are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where health and metrics are served, plain HTTP; nowhere if absent.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Directory of the durable state; made with mode 0700.
    pub data: PathBuf,
    /// Towards the outside: the own certificate and key, and the authorities that application functions' certificates
    /// come from. Not the operator's own authority: its certificates are for network functions.
    pub tls: CertificateFiles,
    /// Limits of the server for the outside. Its request time-out must be longer than a delivery may take.
    #[serde(default = "default_outside_limits")]
    pub limits: ServerLimits,
    /// Limits on requests to application functions: deliveries and notifications.
    #[serde(default)]
    pub requests: ClientLimits,
    /// The database's limits.
    #[serde(default)]
    pub store: DatabaseOptions,
    /// Access tokens for application functions.
    #[serde(default)]
    pub tokens: TokenConfig,
    /// Towards the inside: the certificate of a network function, and the operator's authority.
    pub inside: CertificateFiles,
    /// The AKMA anchor function; without it `3gpp-akma` is not served.
    #[serde(default)]
    pub akma: Option<AkmaConfig>,
    /// The MSGin5G Server; without it the APIs of TS 29.538 are not served.
    #[serde(default)]
    pub msgin5g: Option<MsGin5gConfig>,
    /// How its APIs are exposed through a CAPIF core function; not if absent.
    #[serde(default)]
    pub capif: Option<AefConfig>,
    /// Where API invokers come whose method is TLS with AEF_PSK; nowhere if absent.
    #[serde(default)]
    pub capif_psk_listen: Option<SocketAddr>,
    /// The NRF inside that it registers at and that gives it access tokens; none if absent.
    #[serde(default)]
    pub nrf: Option<NrfConfig>,
    /// File with the entries below, in their place; a changed one is taken within 5 s.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Who may do what. Whoever has no entry may do nothing.
    #[serde(default, rename = "af")]
    pub afs: Vec<AfConfig>,
}

/// What a policy file holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Who may do what. Whoever has no entry may do nothing.
    #[serde(default, rename = "af")]
    pub afs: Vec<AfConfig>,
}

/// `[nef.tokens]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenConfig {
    /// PEM of the P-256 key that signs tokens. None: a new key at each start, so that no token outlives it.
    pub key: Option<PathBuf>,
    /// What tokens name as their issuer and audience.
    pub issuer: String,
    /// How long a token is good, in seconds, 10 to 86400.
    pub lifetime_seconds: u64,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self { key: None, issuer: "nef".to_owned(), lifetime_seconds: 600 }
    }
}

/// `[nef.akma]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AkmaConfig {
    /// The AAnF's API root, `https://...`, or `nrf` to have the NRF find the one that serves the A-KID's routing indicator
    /// ([`sbi::nrf::ProducerRoot`]).
    pub aanf: String,
    /// AAnFs for the A-KIDs of some routing indicators; `aanf` has the others.
    #[serde(default)]
    pub aanf_routes: Vec<AnchorRoute>,
    /// Being told when AKMA is disabled, and telling the application functions that left a URI. It is told where `[nef.msgin5g]`
    /// listens. None: application functions are not told.
    #[serde(default)]
    pub notifications: Option<NotificationSection>,
    /// Limits on requests to it.
    #[serde(default)]
    pub requests: ClientLimits,
    /// The UDM's API root, or `nrf` as above: it translates the SUPI where the AAnF tells no GPSI. None: then there is none, and tokens do not
    /// ask for the SUPI.
    #[serde(default)]
    pub udm: Option<String>,
    /// After a failure UDM is left alone for this long, in milliseconds; answers have no GPSI from it meanwhile.
    #[serde(default = "default_udm_pause_milliseconds")]
    pub udm_pause_milliseconds: u64,
}

/// `[nef.msgin5g]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsGin5gConfig {
    /// The server's API root, `https://...`.
    pub url: String,
    /// The server's certificate, when it delivers.
    pub server: PeerName,
    /// Where its deliveries and notifications are taken; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The root under which the server finds that, `https://...`. None: the address itself, which must then be one that
    /// the server can connect to.
    #[serde(default)]
    pub target_root: Option<String>,
    /// Limits of the server for the inside.
    #[serde(default = "default_inside_limits")]
    pub limits: ServerLimits,
    /// Limits on requests to the server. Their time-out must be longer than a delivery may take.
    #[serde(default = "default_server_requests")]
    pub requests: ClientLimits,
    /// Topic list subscriptions that one Application Server may have; one more gets 429.
    #[serde(default = "default_topic_list_subscriptions_per_as_max")]
    pub topic_list_subscriptions_per_as_max: usize,
}

/// `[[nef.af]]`: what one application function may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfConfig {
    /// Its name here, and its client identifier at the token endpoint: 1 to 128 visible ASCII characters.
    pub af_id: String,
    /// DNS name that its certificate must carry. This or `certificate_sha256` is needed; if both are given, both must
    /// match.
    #[serde(default)]
    pub dns_name: Option<String>,
    /// SHA-256 of its certificate (DER), 64 hexadecimal digits.
    #[serde(default)]
    pub certificate_sha256: Option<String>,
    /// FQDNs of the AF_IDs for which it may get K_AF. None: it may not use `3gpp-akma`.
    #[serde(default)]
    pub fqdns: BTreeSet<Fqdn>,
    /// Whether it may see the GPSI, given a token with the scope for it.
    #[serde(default)]
    pub gpsi_access: bool,
    /// The AS Service IDs that it may be. None: it may not use the APIs of TS 29.538.
    #[serde(default)]
    pub as_service_ids: BTreeSet<AsServiceId>,
    /// Whom it may send to: `UE:*@lab.example`, `GROUP:fleet@lab.example`, `TOPIC:lab/*`; nobody if empty.
    #[serde(default)]
    pub may_address: Vec<IdentityPattern>,
    /// Messaging Topics that it may subscribe to and be told of, or the beginning of some followed by `*`.
    #[serde(default)]
    pub may_subscribe: Vec<String>,
    /// Where it may have deliveries and notifications sent: prefixes, each an `https` origin with or without a path.
    /// Empty: the DNS names and IP addresses of the certificate it asks with.
    #[serde(default)]
    pub target_uris: Vec<String>,
    /// Requests per second in the long run; more get 429 with `Retry-After`.
    #[serde(default = "default_requests_per_second")]
    pub requests_per_second: u32,
    /// Requests at once after a silence.
    #[serde(default = "default_requests_burst")]
    pub requests_burst: u32,
    /// Requests under way at once; one more gets 429.
    #[serde(default = "default_requests_outstanding_max")]
    pub requests_outstanding_max: usize,
}

impl Config {
    /// The same, with the entries of the policy file in place if one is named.
    ///
    /// # Errors
    /// [`ExposureError::Policy`] for an unusable file; [`ExposureError::Configuration`] where there are entries here, too.
    pub fn with_policy(mut self) -> Result<Self, ExposureError> {
        let Some(path) = self.policy.take() else { return Ok(self) };
        if !self.afs.is_empty() {
            let reason = "nef.policy: the file holds every [[af]], so no [[nef.af]] may stand here";
            return Err(ExposureError::Configuration(reason.to_owned()));
        }
        let without = self.check();
        self.afs = sbi::policy::read::<PolicyFile>(&path)?.afs;
        // What is wrong with these entries alone is wrong in the file.
        match (without, self.check()) {
            (Ok(()), Err(error)) => Err(error.in_policy(&path, "nef.").into()),
            _ => Ok(self),
        }
    }

    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`ExposureError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), ExposureError> {
        if !TOKEN_LIFETIME_SECONDS.contains(&self.tokens.lifetime_seconds) {
            return fault(format!("nef.tokens.lifetime_seconds must be within {TOKEN_LIFETIME_SECONDS:?}"));
        }
        if self.tokens.issuer.is_empty() {
            return fault("nef.tokens.issuer must not be empty".to_owned());
        }
        if let Some(wrong) = self.nrf.as_ref().and_then(NrfConfig::fault) {
            return fault(format!("nef.{wrong}"));
        }
        if self.akma.is_none() && self.msgin5g.is_none() {
            return fault("neither [nef.akma] nor [nef.msgin5g] is there".to_owned());
        }
        let akma = self.akma.as_ref();
        let msgin5g = self.msgin5g.as_ref();
        if let Some(wrong) = akma.and_then(|akma| AnchorRoute::fault(&akma.aanf_routes)) {
            return fault(format!("nef.akma.aanf_routes: {wrong}"));
        }
        let found = [("akma.aanf", akma.map(|akma| &akma.aanf)), ("akma.udm", akma.and_then(|akma| akma.udm.as_ref()))];
        for (key, root) in found {
            if let Some((key, reason)) = root.and_then(|root| peer_fault(self.nrf.as_ref(), key, root)) {
                return fault(format!("nef.{key} {reason}"));
            }
        }
        if let Some(notifications) = akma.and_then(|akma| akma.notifications.as_ref()) {
            if let Some((key, reason)) = notifications.fault() {
                return fault(format!("nef.akma.notifications.{key} {reason}"));
            }
            if msgin5g.is_none() {
                return fault("nef.akma.notifications needs [nef.msgin5g], whose listener it shares".to_owned());
            }
        }
        let roots = [
            ("msgin5g.url", msgin5g.map(|msgin5g| &msgin5g.url)),
            ("msgin5g.target_root", msgin5g.and_then(|msgin5g| msgin5g.target_root.as_ref())),
        ];
        for (key, root) in roots {
            if root.is_some_and(|root| !is_well_formed_below(root, &[])) {
                return fault(format!("nef.{key} must be an https URI"));
            }
        }
        if msgin5g.is_some_and(|msgin5g| msgin5g.server.is_empty()) {
            return fault("nef.msgin5g.server needs nf_instance_id or dns_name".to_owned());
        }
        if let Some(wrong) = self.capif.as_ref().and_then(AefConfig::fault) {
            return fault(format!("nef.capif.{wrong}"));
        }
        if self.capif_psk_listen.is_some() && self.capif.is_none() {
            return fault("nef.capif_psk_listen needs [nef.capif]".to_owned());
        }
        if let Some((key, reason)) = self.limit_fault() {
            return fault(format!("nef.{key} {reason}"));
        }
        for (index, af) in self.afs.iter().enumerate() {
            self.check_af(index, af)?;
        }
        Ok(())
    }

    /// The limit that makes no sense, and what it must be.
    fn limit_fault(&self) -> Option<(String, String)> {
        let of = |section: &'static str| move |(member, reason): LimitFault| (format!("{section}.{member}"), reason);
        let of_store = self.store.fault().map(|(member, reason)| (format!("store.{member}"), reason.to_owned()));
        let of_akma = self.akma.as_ref().and_then(|akma| akma.requests.fault()).map(of("akma.requests"));
        let of_msgin5g = self.msgin5g.as_ref().and_then(|msgin5g| {
            let subscriptions = msgin5g.topic_list_subscriptions_per_as_max;
            let subscriptions =
                Limit::fault([Limit::count("topic_list_subscriptions_per_as_max", subscriptions).or_none()]);
            let limits = msgin5g.limits.fault().map(of("msgin5g.limits"));
            limits.or(msgin5g.requests.fault().map(of("msgin5g.requests"))).or(subscriptions.map(of("msgin5g")))
        });
        let requests = self.requests.fault().map(of("requests"));
        self.limits.fault().map(of("limits")).or(requests).or(of_store).or(of_akma).or(of_msgin5g)
    }

    /// Opens every file that a start opens: certificates, keys, authorities and CRLs of both sides, the key for tokens, and those
    /// of an exposing function.
    ///
    /// # Errors
    /// [`ExposureError`] naming key and file.
    pub fn check_files(&self) -> Result<(), ExposureError> {
        files::mutual_tls("nef.tls", &self.tls)?;
        files::mutual_tls("nef.inside", &self.inside)?;
        files::nrf(self.nrf.as_ref(), &self.inside, services::NEF)?;
        if let Some(capif) = &self.capif {
            files::exposing_function("nef.capif", capif)?;
        }
        Tokens::open(&self.tokens).map(drop)
    }

    fn check_af(&self, index: usize, af: &AfConfig) -> Result<(), ExposureError> {
        let wrong = |what: &str| fault(format!("nef.af[{index}] {what}"));
        let others = || self.afs.iter().take(index);
        if af.af_id.is_empty() || af.af_id.len() > AF_ID_OCTETS_MAX || !af.af_id.bytes().all(|o| o.is_ascii_graphic()) {
            return wrong("needs an af_id of 1 to 128 visible ASCII characters");
        }
        if others().any(|other| other.af_id == af.af_id) {
            return wrong("has the af_id of another entry");
        }
        if af.dns_name.is_none() && af.certificate_sha256.is_none() {
            return wrong("needs dns_name or certificate_sha256");
        }
        if af.certificate_sha256.as_ref().is_some_and(|digest| fingerprint(digest).is_none()) {
            return wrong("has a certificate_sha256 that is not 64 hexadecimal digits");
        }
        if af.fqdns.is_empty() && af.as_service_ids.is_empty() {
            return wrong("may do nothing: give it fqdns or as_service_ids");
        }
        if !af.fqdns.is_empty() && self.akma.is_none() {
            return wrong("has fqdns, but there is no [nef.akma]");
        }
        if !af.as_service_ids.is_empty() && self.msgin5g.is_none() {
            return wrong("has as_service_ids, but there is no [nef.msgin5g]");
        }
        if others().any(|other| !other.as_service_ids.is_disjoint(&af.as_service_ids)) {
            return wrong("may be an AS Service ID that another entry may be");
        }
        if af.requests_per_second == 0 || af.requests_burst == 0 || af.requests_outstanding_max == 0 {
            return wrong("may ask for nothing: its limits must not be 0");
        }
        if af.target_uris.iter().any(|target| !is_well_formed_below(target, &[])) {
            return wrong("has target_uris that are not https URIs");
        }
        Ok(())
    }
}

fn fault(reason: String) -> Result<(), ExposureError> {
    Err(ExposureError::Configuration(reason))
}

/// The octets of 64 hexadecimal digits.
pub(crate) fn fingerprint(digits: &str) -> Option<[u8; 32]> {
    let mut octets = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (octet, at) in octets.iter_mut().zip((0..).step_by(2)) {
        *octet = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(octets)
}

/// A body holds a message's payload as base64 and the rest of it; a delivery takes as long as the server's own.
fn default_outside_limits() -> ServerLimits {
    ServerLimits { request_timeout_seconds: 60, request_body_bytes_max: 98_304, ..ServerLimits::default() }
}

/// The MSGin5G Server is the one peer there.
fn default_inside_limits() -> ServerLimits {
    ServerLimits { request_body_bytes_max: 98_304, connections_max: 64, ..ServerLimits::default() }
}

/// The server answers once a message is delivered or stored.
fn default_server_requests() -> ClientLimits {
    ClientLimits { request_timeout_milliseconds: 55_000, ..ClientLimits::default() }
}

fn default_udm_pause_milliseconds() -> u64 {
    1_000
}

fn default_topic_list_subscriptions_per_as_max() -> usize {
    16
}

fn default_requests_per_second() -> u32 {
    100
}

fn default_requests_burst() -> u32 {
    200
}

fn default_requests_outstanding_max() -> usize {
    256
}

const TOKEN_LIFETIME_SECONDS: std::ops::RangeInclusive<u64> = 10..=86_400;
/// Longest `af_id`, in octets.
const AF_ID_OCTETS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const SOUND: &str = r#"
        listen = "127.0.0.1:0"
        data = "data"
        tls = { certificate = "c", key = "k", ca = "a" }
        inside = { certificate = "c", key = "k", ca = "a" }
        akma = { aanf = "https://aanf" }
        msgin5g = { url = "https://server", server = { dns_name = "server" }, listen = "127.0.0.1:0" }
        [[af]]
        af_id = "weather"
        dns_name = "weather.example.com"
        fqdns = ["weather.example.com"]
        as_service_ids = ["weather@example.com"]
    "#;

    fn checked(change: impl FnOnce(&mut Config)) -> Result<(), ExposureError> {
        let mut config: Config = toml::from_str(SOUND).unwrap();
        change(&mut config);
        config.check()
    }

    #[test]
    fn a_sound_configuration_passes() {
        checked(|_| {}).unwrap();
    }

    #[test]
    fn an_entry_that_names_nobody_or_allows_nothing_is_found() {
        assert!(checked(|config| config.afs[0].dns_name = None).is_err());
        assert!(checked(|config| config.afs[0].certificate_sha256 = Some("ab".to_owned())).is_err());
        assert!(checked(|config| config.afs[0].af_id = "two words".to_owned()).is_err());
        assert!(
            checked(|config| {
                config.afs[0].fqdns.clear();
                config.afs[0].as_service_ids.clear();
            })
            .is_err()
        );
        assert!(checked(|config| config.afs[0].requests_burst = 0).is_err());
    }

    #[test]
    fn two_entries_for_one_af_or_one_application_server_are_found() {
        let again = |config: &mut Config, af_id: &str| {
            let af = AfConfig { af_id: af_id.to_owned(), ..config.afs[0].clone() };
            config.afs.push(af);
        };
        assert!(checked(|config| again(config, "weather")).is_err());
        assert!(checked(|config| again(config, "other")).is_err());
        assert!(
            checked(|config| {
                again(config, "other");
                config.afs[1].as_service_ids.clear();
            })
            .is_ok()
        );
    }

    #[test]
    fn rights_for_what_is_not_served_are_found() {
        assert!(checked(|config| config.akma = None).is_err());
        assert!(checked(|config| config.msgin5g = None).is_err());
        let empty = |config: &mut Config| (config.akma, config.msgin5g, config.afs) = (None, None, Vec::new());
        assert!(checked(empty).is_err(), "there must be something to expose");
    }

    #[test]
    fn roots_without_tls_are_found() {
        assert!(checked(|config| config.akma.as_mut().unwrap().aanf = "http://aanf".to_owned()).is_err());
        assert!(checked(|config| config.msgin5g.as_mut().unwrap().url = "server".to_owned()).is_err());
        assert!(checked(|config| config.afs[0].target_uris = vec!["http://weather".to_owned()]).is_err());
    }

    #[test]
    fn entries_stand_in_the_configuration_or_in_the_policy_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        std::fs::write(
            &path,
            "[[af]]\naf_id = \"weather\"\ndns_name = \"weather.example.com\"\nfqdns = [\"w.example\"]\n",
        )
        .unwrap();
        let with = |change: &dyn Fn(&mut Config)| {
            let mut config: Config = toml::from_str(SOUND).unwrap();
            (config.policy, config.afs) = (Some(path.clone()), Vec::new());
            change(&mut config);
            config.with_policy()
        };
        let config = with(&|_| {}).unwrap();
        config.check().unwrap();
        assert_eq!(config.afs[0].af_id, "weather");
        let both = with(&|config| config.afs = toml::from_str::<Config>(SOUND).unwrap().afs).unwrap_err();
        assert!(both.to_string().contains("nef.policy"), "{both}");
        let none = with(&|config| config.policy = Some(directory.path().join("none.toml"))).unwrap_err();
        assert!(none.to_string().contains("none.toml"), "{none}");
    }

    #[test]
    fn routes_to_anchor_functions_that_make_no_sense_are_found() {
        let route = |root: &str, indicator: &str| AnchorRoute {
            root: root.to_owned(),
            routing_indicators: [indicator.parse().unwrap()].into(),
        };
        let routed = |routes: Vec<AnchorRoute>| checked(|config| config.akma.as_mut().unwrap().aanf_routes = routes);
        assert!(routed(vec![route("https://one", "1"), route("https://two", "2")]).is_ok());
        assert!(routed(vec![route("https://one", "1"), route("https://two", "1")]).is_err());
        assert!(routed(vec![route("http://one", "1")]).is_err());
    }

    #[test]
    fn a_fingerprint_is_64_hexadecimal_digits() {
        assert_eq!(fingerprint(&"0f".repeat(32)), Some([15; 32]));
        for wrong in ["", "0f", &"0g".repeat(32), &"é".repeat(32)] {
            assert_eq!(fingerprint(wrong), None, "{wrong}");
        }
    }
}
