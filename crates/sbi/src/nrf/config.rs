//! The section `[nrf]` of a function's configuration.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use transport::Limit;
use uuid::Uuid;

use crate::client::ClientLimits;
use crate::services;

/// Which NRF a function uses, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NrfConfig {
    /// API root of the NRF, `https://...`; a path before the APIs' own is kept.
    pub root: String,
    /// Own NF instance ID; that of the certificate if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nf_instance_id: Option<Uuid>,
    /// API root by which others reach this function, where that is not the address it listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_root: Option<String>,
    /// Whether the function registers its profile.
    #[serde(default = "yes")]
    pub register: bool,
    /// Whether its requests to other functions carry access tokens from the NRF.
    #[serde(default = "yes")]
    pub tokens: bool,
    /// Whether token requests carry a client credentials assertion (TS 33.501 clause 13.3.8), signed with the key of the
    /// certificate, which must be on P-256.
    #[serde(default)]
    pub cca: bool,
    /// Services whose requests go without a token where no producer that the NRF knows offers them: those of peers that
    /// register nowhere. A request of any other service is then not sent.
    #[serde(default = "unregistered_services")]
    pub without_token: BTreeSet<String>,
    /// Limits on requests to the NRF.
    #[serde(default)]
    pub requests: ClientLimits,
    /// Other limits.
    #[serde(default)]
    pub limits: NrfLimits,
}

/// Every limit of the NRF's client, and what happens when it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NrfLimits {
    /// Time between signs of life that is proposed; the NRF decides.
    pub heart_beat_seconds: u32,
    /// The longest time between signs of life, whatever the NRF says.
    pub heart_beat_max_seconds: u32,
    /// Wait after the first failure of a registration or sign of life; each further one doubles it.
    pub retry_min_milliseconds: u64,
    /// The longest such wait.
    pub retry_max_milliseconds: u64,
    /// Time for leaving the NRF when the function stops; then it stops all the same, and the NRF finds out by itself.
    pub deregistration_timeout_milliseconds: u64,
    /// Tokens kept, one for each producer type and scope; for one more, the one not used for longest goes.
    pub tokens_max: usize,
    /// How long a token is kept at most, whatever its own lifetime.
    pub token_lifetime_max_seconds: u64,
    /// How long a request waits for a token that is being fetched; then it fails.
    pub token_wait_milliseconds: u64,
    /// Discoveries kept; for one more, the one not used for longest goes.
    pub discoveries_max: usize,
    /// How long a discovery is kept at most, whatever validity the NRF gave it.
    pub discovery_lifetime_max_seconds: u64,
    /// How long a refusal or failure of the NRF is taken for the answer to the same question.
    pub refusal_milliseconds: u64,
}

impl Default for NrfLimits {
    fn default() -> Self {
        Self {
            heart_beat_seconds: 30,
            heart_beat_max_seconds: 3_600,
            retry_min_milliseconds: 500,
            retry_max_milliseconds: 30_000,
            deregistration_timeout_milliseconds: 2_000,
            tokens_max: 256,
            token_lifetime_max_seconds: 3_600,
            token_wait_milliseconds: 5_000,
            discoveries_max: 256,
            discovery_lifetime_max_seconds: 300,
            refusal_milliseconds: 1_000,
        }
    }
}

impl NrfConfig {
    /// The NRF at `root`, everything else at its default.
    #[must_use]
    pub fn new(root: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            nf_instance_id: None,
            api_root: None,
            register: true,
            tokens: true,
            cca: false,
            without_token: unregistered_services(),
            requests: ClientLimits::default(),
            limits: NrfLimits::default(),
        }
    }

    /// What is wrong with the section, if anything, naming the key.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let roots = [("root", Some(&self.root)), ("api_root", self.api_root.as_ref())];
        for (key, root) in roots {
            if root.is_some_and(|root| !is_https(root)) {
                return Some(format!("nrf.{key} must be an https URI without query"));
            }
        }
        if let Some((key, reason)) = self.requests.fault() {
            return Some(format!("nrf.requests.{key} {reason}"));
        }
        let limits = &self.limits;
        let others = Limit::fault([
            Limit::count("tokens_max", limits.tokens_max),
            Limit::count("discoveries_max", limits.discoveries_max),
            Limit::milliseconds("token_wait_milliseconds", limits.token_wait_milliseconds),
            Limit::milliseconds("deregistration_timeout_milliseconds", limits.deregistration_timeout_milliseconds)
                .or_none(),
            Limit::milliseconds("refusal_milliseconds", limits.refusal_milliseconds).or_none(),
        ]);
        if let Some((key, reason)) = others {
            return Some(format!("nrf.limits.{key} {reason}"));
        }
        let periods = [
            ("heart_beat_seconds", u64::from(limits.heart_beat_seconds)),
            ("heart_beat_max_seconds", u64::from(limits.heart_beat_max_seconds)),
            ("retry_min_milliseconds", limits.retry_min_milliseconds),
            ("retry_max_milliseconds", limits.retry_max_milliseconds),
            ("token_lifetime_max_seconds", limits.token_lifetime_max_seconds),
            ("discovery_lifetime_max_seconds", limits.discovery_lifetime_max_seconds),
        ];
        let wrong = periods.into_iter().find(|(_, period)| !(1..=PERIOD_MAX).contains(period));
        wrong.map(|(key, _)| format!("nrf.limits.{key} must be 1 to {PERIOD_MAX}"))
    }
}

/// What is wrong with the section and with a peer's `root` that may be [`super::BY_DISCOVERY`], if anything: the key of
/// either, and why. `key` names the root's.
#[must_use]
pub fn peer_fault(nrf: Option<&NrfConfig>, key: &'static str, root: &str) -> Option<(&'static str, String)> {
    if let Some(fault) = nrf.and_then(NrfConfig::fault) {
        return Some(("nrf", fault));
    }
    match (super::producer_root::split(root), nrf) {
        ((true, _), None) => Some((key, "is \"nrf\", and there is no section [nrf]".to_owned())),
        ((true, None), Some(_)) => None,
        ((_, Some(root)), _) if root.starts_with("https://") => None,
        _ => Some((key, "must be an https URL, \"nrf\", or \"nrf, \" and an https URL".to_owned())),
    }
}

fn is_https(root: &str) -> bool {
    url::Url::parse(root).is_ok_and(|url| {
        url.scheme() == "https" && url.host_str().is_some() && url.query().is_none() && url.fragment().is_none()
    })
}

/// Message Gateways, for which TS 29.510 has no type, and the NEF's northbound APIs, which are none of an NRF's services.
fn unregistered_services() -> BTreeSet<String> {
    let services = [
        services::MSGG_L3GDELIVERY,
        services::MSGG_N3GDELIVERY,
        services::MSGG_BGDELIVERY,
        services::DEVICE_TRIGGERING,
        services::MONITORING_EVENT,
    ];
    services.into_iter().map(str::to_owned).collect()
}

fn yes() -> bool {
    true
}

/// A day in seconds, a minute and a half in milliseconds: more than any of these periods should be.
const PERIOD_MAX: u64 = 86_400;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_peer_is_at_a_root_or_found_by_an_nrf_that_there_is() {
        let nrf = NrfConfig::new("https://nrf.example");
        assert_eq!(peer_fault(None, "aanf", "https://aanf.example"), None);
        assert_eq!(peer_fault(Some(&nrf), "aanf", "nrf"), None);
        assert_eq!(peer_fault(Some(&nrf), "aanf", "nrf, https://aanf.example"), None);
        for wrong in ["nrf, http://aanf.example", "nrf,", "https://a.example, nrf x", "nrfs, https://aanf.example"] {
            assert!(peer_fault(Some(&nrf), "aanf", wrong).is_some() || wrong.starts_with("https"), "{wrong}");
        }
        assert!(peer_fault(None, "aanf", "nrf, https://aanf.example").is_some());
        assert!(peer_fault(None, "aanf", "nrf").is_some());
        assert!(peer_fault(Some(&nrf), "aanf", "http://aanf.example").is_some());
        assert_eq!(peer_fault(Some(&NrfConfig::new("nrf")), "aanf", "nrf").unwrap().0, "nrf");
    }

    #[test]
    fn roots_and_periods_that_cannot_be_are_found() {
        assert_eq!(NrfConfig::new("https://nrf.example:8443/core").fault(), None);
        assert!(NrfConfig::new("http://nrf.example").fault().is_some());
        assert!(NrfConfig::new("https://nrf.example?x").fault().is_some());
        let api_root = Some("aanf.example".to_owned());
        assert!(NrfConfig { api_root, ..NrfConfig::new("https://nrf.example") }.fault().is_some());
        let limits = NrfLimits { retry_min_milliseconds: 0, ..NrfLimits::default() };
        assert!(NrfConfig { limits, ..NrfConfig::new("https://nrf.example") }.fault().is_some());
    }
}
