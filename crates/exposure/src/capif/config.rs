//! Configuration of the CAPIF core function, and its checks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use sbi::capif::policy::{ApiInvokerPolicy, TimeRangeList};
use sbi::nrf::NrfConfig;
use sbi::{CertificateFiles, Limit, LimitFault, ServerLimits, files, services};
use serde::{Deserialize, Serialize};
use store::DatabaseOptions;

use super::authority::Authority;
use super::running::open_signer;
use crate::error::ExposureError;

/// Everything the function needs to know. `listen`, `data` and `tls` have no default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the APIs are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How others reach it, `https://...`, in `Location` headers; `listen` if absent.
    #[serde(default)]
    pub api_root: Option<String>,
    /// Its name: issuer of its tokens, `ccfId` of what is published here.
    #[serde(default = "default_id")]
    pub id: String,
    /// Directory of the durable state, of the token key and, without `authority`, of the authority; made with mode 0700.
    pub data: PathBuf,
    /// Own certificate and key, and the authorities of those whom it notifies: invokers' destinations and AEFs.
    pub tls: CertificateFiles,
    /// The authority that issues invokers' and providers' certificates; one of its own, made at first start, if absent.
    #[serde(default)]
    pub authority: Option<AuthorityFiles>,
    /// How long a certificate is good for.
    #[serde(default = "default_validity")]
    pub certificate_validity_days: u32,
    /// How long a token is good for.
    #[serde(default = "default_token_lifetime")]
    pub token_lifetime_seconds: u64,
    /// File with the entries below, in their place; a changed one is taken within 5 s.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// API invokers: a credential, good for one onboarding, and what whoever comes with it may do.
    #[serde(default, rename = "onboarding")]
    pub onboardings: Vec<OnboardingCredential>,
    /// API provider domains: a credential, good for one registration, and what whoever comes with it may do.
    #[serde(default, rename = "registration")]
    pub registrations: Vec<RegistrationCredential>,
    /// Below which URIs notifications may go: prefixes, each an `https` origin with or without a path. Empty: at the DNS names
    /// and IP addresses of the subscriber's certificate.
    #[serde(default)]
    pub notification_prefixes: Vec<String>,
    /// The NRF inside that it registers at, with the certificate of `tls`; none if absent.
    #[serde(default)]
    pub nrf: Option<NrfConfig>,
    /// The tables' sizes.
    #[serde(default)]
    pub tables: TableLimits,
    /// Where health and metrics are served, plain HTTP/1.1; nowhere if absent.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// The server's limits.
    #[serde(default)]
    pub limits: ServerLimits,
    /// The database's limits.
    #[serde(default)]
    pub store: DatabaseOptions,
}

/// What a policy file holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// API invokers. Whoever came with a credential that has no entry may do nothing.
    #[serde(default, rename = "onboarding")]
    pub onboardings: Vec<OnboardingCredential>,
    /// API provider domains. The same.
    #[serde(default, rename = "registration")]
    pub registrations: Vec<RegistrationCredential>,
}

/// Certificate and key of the authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityFiles {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// What one API invoker comes with, and what it may then do. The credential itself is not here: its digest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnboardingCredential {
    /// Its name, unique.
    pub name: String,
    /// SHA-256 of the credential, hexadecimal. The credential should be 32 random octets in hexadecimal.
    pub token_sha256: String,
    /// DNS names that its invoker's certificate gets: by them API exposing functions know who it is.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Names of the service APIs that its invoker may use; all if empty.
    #[serde(default)]
    pub apis: Vec<String>,
    /// Calls of each API in all, as the API exposing function counts them; any number if absent.
    #[serde(default)]
    pub allowed_total_invocations: Option<u64>,
    /// Calls of each API per second; any number if absent.
    #[serde(default)]
    pub allowed_invocations_per_second: Option<u64>,
    /// When calls are allowed; always if empty.
    #[serde(default, rename = "allowed_time")]
    pub allowed_times: Vec<TimeRange>,
}

/// From when to when, RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeRange {
    /// Not before.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub from: Option<time::OffsetDateTime>,
    /// Not after.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub until: Option<time::OffsetDateTime>,
}

impl OnboardingCredential {
    /// The access control policy of invoker `id`.
    pub(crate) fn policy(&self, id: &str) -> ApiInvokerPolicy {
        let ranges = self
            .allowed_times
            .iter()
            .map(|range| TimeRangeList { start_time: range.from, stop_time: range.until })
            .collect();
        ApiInvokerPolicy {
            api_invoker_id: id.to_owned(),
            allowed_total_invocations: self.allowed_total_invocations,
            allowed_invocations_per_second: self.allowed_invocations_per_second,
            allowed_invocation_time_range_list: ranges,
        }
    }

    /// Whether its invoker may use the API called `api_name`.
    pub(crate) fn allows(&self, api_name: &str) -> bool {
        self.apis.is_empty() || self.apis.iter().any(|allowed| allowed == api_name)
    }
}

/// What one API provider domain comes with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationCredential {
    /// Its name, unique.
    pub name: String,
    /// SHA-256 of the credential, hexadecimal.
    pub token_sha256: String,
    /// DNS names that its functions' certificates get.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Names of the service APIs that its functions may publish; all if empty.
    #[serde(default)]
    pub apis: Vec<String>,
    /// Whether its management functions may read the invocation logs of its domain.
    #[serde(default = "default_may_audit")]
    pub may_audit: bool,
}

impl RegistrationCredential {
    /// Whether its functions may publish the API called `api_name`.
    pub(crate) fn allows(&self, api_name: &str) -> bool {
        self.apis.is_empty() || self.apis.iter().any(|allowed| allowed == api_name)
    }
}

/// Sizes of the function's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableLimits {
    /// Provider domains; one more gets 500, INSUFFICIENT_RESOURCES.
    pub providers_max: usize,
    /// Functions of one provider domain; one more gets 403, TOO_MANY_FUNCTIONS.
    pub functions_per_provider_max: usize,
    /// Service APIs in all; one more gets 500, INSUFFICIENT_RESOURCES.
    pub apis_max: usize,
    /// Service APIs of one APF; one more gets 403, TOO_MANY_APIS.
    pub apis_per_apf_max: usize,
    /// API invokers; one more gets 500, INSUFFICIENT_RESOURCES.
    pub invokers_max: usize,
    /// Entries of one security context; one more gets 403, TOO_MANY_INTERFACES.
    pub interfaces_per_context_max: usize,
    /// Subscriptions of one subscriber; one more gets 403, TOO_MANY_SUBSCRIPTIONS.
    pub subscriptions_per_subscriber_max: usize,
    /// Invocation logs kept; one more takes the place of the oldest.
    pub logs_max: u64,
    /// Invocation logs in one answer of an audit; the newest.
    pub audit_logs_max: usize,
    /// Notifications under way; one more is dropped, which the log says.
    pub notifications_max: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self {
            providers_max: 256,
            functions_per_provider_max: 32,
            apis_max: 1_024,
            apis_per_apf_max: 256,
            invokers_max: 10_000,
            interfaces_per_context_max: 64,
            subscriptions_per_subscriber_max: 16,
            logs_max: 10_000,
            audit_logs_max: 256,
            notifications_max: 1_024,
        }
    }
}

impl Config {
    /// The same, with the entries of the policy file in place if one is named.
    ///
    /// # Errors
    /// [`ExposureError::Policy`] for an unusable file; [`ExposureError::Configuration`] where there are entries here, too.
    pub fn with_policy(mut self) -> Result<Self, ExposureError> {
        let Some(path) = self.policy.take() else { return Ok(self) };
        if !self.onboardings.is_empty() || !self.registrations.is_empty() {
            let reason = "capif.policy: the file holds every [[onboarding]] and [[registration]], so no [[capif.onboarding]] and \
                          no [[capif.registration]] may stand here";
            return Err(ExposureError::Configuration(reason.to_owned()));
        }
        let without = self.check();
        let PolicyFile { onboardings, registrations } = sbi::policy::read(&path)?;
        let whole = Self { onboardings, registrations, ..self };
        // What is wrong with these entries alone is wrong in the file.
        match (without, whole.check()) {
            (Ok(()), Err(error)) => Err(error.in_policy(&path, "capif.").into()),
            _ => Ok(whole),
        }
    }

    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`ExposureError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), ExposureError> {
        match self.fault() {
            Some(fault) => Err(ExposureError::Configuration(format!("capif.{fault}"))),
            None => Ok(()),
        }
    }

    fn fault(&self) -> Option<String> {
        if self.id.is_empty() {
            return Some("id must not be empty".to_owned());
        }
        if let Some(fault) = self.nrf.as_ref().and_then(NrfConfig::fault) {
            return Some(fault);
        }
        if self.api_root.as_ref().is_some_and(|root| !root.starts_with("https://")) {
            return Some("api_root must be an https URL".to_owned());
        }
        if !(1..=1_095).contains(&self.certificate_validity_days) {
            return Some("certificate_validity_days must be 1 to 1095".to_owned());
        }
        if !(1..=3_600).contains(&self.token_lifetime_seconds) {
            return Some("token_lifetime_seconds must be 1 to 3600".to_owned());
        }
        if let Some((key, reason)) = self.limit_fault() {
            return Some(format!("{key} {reason}"));
        }
        let below = |prefix: &String| sbi::callback::is_well_formed_below(prefix, &[]);
        if let Some(prefix) = self.notification_prefixes.iter().find(|prefix| !below(prefix)) {
            return Some(format!("notification_prefixes: {prefix:?} is no https URI without query"));
        }
        self.fault_of_entries()
    }

    /// The limit that makes no sense, and what it must be.
    fn limit_fault(&self) -> Option<(String, String)> {
        let of = |section: &'static str| move |(member, reason): LimitFault| (format!("{section}.{member}"), reason);
        let tables = &self.tables;
        let of_tables = Limit::fault([
            Limit::count("providers_max", tables.providers_max),
            Limit::count("functions_per_provider_max", tables.functions_per_provider_max),
            Limit::count("apis_max", tables.apis_max),
            Limit::count("apis_per_apf_max", tables.apis_per_apf_max),
            Limit::count("invokers_max", tables.invokers_max),
            Limit::count("interfaces_per_context_max", tables.interfaces_per_context_max),
            Limit::count("subscriptions_per_subscriber_max", tables.subscriptions_per_subscriber_max).or_none(),
            Limit::count("audit_logs_max", tables.audit_logs_max).or_none(),
            Limit::count("notifications_max", tables.notifications_max).or_none(),
        ]);
        let of_store = self.store.fault().map(|(member, reason)| (format!("store.{member}"), reason.to_owned()));
        self.limits.fault().map(of("limits")).or(of_tables.map(of("tables"))).or(of_store)
    }

    /// Opens every file that a start opens: certificate, key, authorities, CRL; the authority for invokers, and the key for
    /// tokens, where they are there, since a start makes them where they are not.
    ///
    /// # Errors
    /// [`ExposureError`] naming key and file.
    pub fn check_files(&self) -> Result<(), ExposureError> {
        files::mutual_tls("capif.tls", &self.tls)?;
        files::nrf(self.nrf.as_ref(), &self.tls, services::AF)?;
        let authority = self.authority_files();
        // One of the two alone is a fault that the start tells, too.
        if self.authority.is_some() || authority.certificate.exists() || authority.key.exists() {
            let opened = Authority::open(&authority, self.certificate_validity_days);
            opened.map_err(|error| error.with_key("capif.authority"))?;
        }
        let key = self.token_key();
        if key.exists() { open_signer(&key).map(drop) } else { Ok(()) }
    }

    /// Where the authority is, or is to be made.
    pub(crate) fn authority_files(&self) -> AuthorityFiles {
        let own = || AuthorityFiles { certificate: self.data.join("ca.pem"), key: self.data.join("ca.key") };
        self.authority.clone().unwrap_or_else(own)
    }

    /// Where the key that signs tokens is, or is to be made.
    pub(crate) fn token_key(&self) -> PathBuf {
        self.data.join("token.key")
    }

    fn fault_of_entries(&self) -> Option<String> {
        let onboardings = self.onboardings.iter().map(|one| ("onboarding", &one.name, &one.token_sha256));
        let registrations = self.registrations.iter().map(|one| ("registration", &one.name, &one.token_sha256));
        let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
        for (key, name, digest) in onboardings.chain(registrations) {
            if name.is_empty() || !names.insert((key, name)) {
                return Some(format!("{key}: name {name:?} is empty or comes twice"));
            }
            let well_formed =
                digest.len() == 64 && digest.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
            if !well_formed || !digests.insert(digest) {
                return Some(format!("{key} {name:?}: token_sha256 must be 64 lower-case hexadecimal digits, once"));
            }
        }
        let onboardings = self.onboardings.iter().map(|one| ("onboarding", &one.name, &one.dns_names, &one.apis));
        let registrations = self.registrations.iter().map(|one| ("registration", &one.name, &one.dns_names, &one.apis));
        for (key, entry, dns_names, apis) in onboardings.chain(registrations) {
            if let Some(bad) = dns_names.iter().find(|name| name.parse::<akma::Fqdn>().is_err()) {
                return Some(format!("{key} {entry:?}: dns_names has {bad:?}, which is no DNS name"));
            }
            if let Some(bad) = apis.iter().find(|name| !is_api_name(name)) {
                return Some(format!("{key} {entry:?}: apis has {bad:?}, which can be no API's name"));
            }
        }
        let timed =
            self.onboardings.iter().flat_map(|one| one.allowed_times.iter().map(move |range| (&one.name, range)));
        let bad =
            timed.into_iter().find(|(_, range)| range.from.zip(range.until).is_some_and(|(from, until)| until < from));
        bad.map(|(name, _)| format!("onboarding {name:?}: an allowed_time ends before it begins"))
    }
}

/// What can stand in a URI and in a scope.
pub(crate) fn is_api_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= API_NAME_OCTETS_MAX
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.' | b'~'))
}

const API_NAME_OCTETS_MAX: usize = 128;

fn default_may_audit() -> bool {
    true
}

fn default_id() -> String {
    "capif-core".to_owned()
}

fn default_validity() -> u32 {
    365
}

fn default_token_lifetime() -> u64 {
    300
}
