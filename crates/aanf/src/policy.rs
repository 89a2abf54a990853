//! Who may do what, by the identity in the peer's certificate (TS 33.535 clause 6.2: AAnF checks whether the AF is
//! authorised).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use akma::AfId;
use sbi::naanf::NotificationUri;
use sbi::{PeerIdentity, PeerName};

use crate::config::AfConfig;

/// The configured entries.
pub(crate) struct Policy {
    entries: Vec<Entry>,
    kaf_lifetime_seconds: u64,
}

struct Entry {
    name: PeerName,
    config: Arc<AfConfig>,
    rate: Option<Rate>,
}

/// What the policy says to a request before its body is looked at.
pub(crate) enum Admission {
    /// No entry names the peer.
    Stranger,
    /// It asks more often than it may; how many seconds until it may again.
    TooOften(u32),
    /// Its entry.
    Entry(Arc<AfConfig>),
}

impl Policy {
    pub(crate) fn new(entries: Vec<AfConfig>, kaf_lifetime_seconds: u64) -> Self {
        let entries = entries
            .into_iter()
            .map(|entry| Entry {
                name: entry.peer_name(),
                rate: entry.requests_per_second_max.map(Rate::new),
                config: Arc::new(entry),
            })
            .collect();
        Self { entries, kaf_lifetime_seconds }
    }

    /// The first entry that names the peer, if that may ask now.
    pub(crate) fn admit(&self, peer: &PeerIdentity) -> Admission {
        let Some(entry) = self.entries.iter().find(|entry| entry.name.names(peer)) else { return Admission::Stranger };
        match entry.rate.as_ref().map(|rate| rate.take(Instant::now())) {
            Some(false) => Admission::TooOften(RATE_RETRY_AFTER_SECONDS),
            _ => Admission::Entry(Arc::clone(&entry.config)),
        }
    }

    /// How long K_AF for `af_id` is valid for the peer of `entry`.
    pub(crate) fn kaf_lifetime_seconds(&self, entry: &AfConfig, af_id: &AfId) -> u64 {
        let own = entry.kaf_lifetimes.iter().find(|lifetime| lifetime.applies(af_id)).map(|lifetime| lifetime.seconds);
        own.or(entry.kaf_lifetime_seconds).unwrap_or(self.kaf_lifetime_seconds)
    }
}

/// Whether the peer of `entry` may have K_AF for `af_id`.
pub(crate) fn owns(entry: &AfConfig, af_id: &AfId) -> bool {
    entry.fqdns.contains(af_id.fqdn())
}

/// Whether the peer of `entry` may be notified at `uri`: below a configured URI or, where there is none, at a host that
/// is a name of its certificate. Else an AF could have this function send requests to others.
pub(crate) fn may_be_notified_at(entry: &AfConfig, certificate_names: &[String], uri: &NotificationUri) -> bool {
    if !entry.notification_uris.is_empty() {
        return entry.notification_uris.iter().any(|prefix| uri.is_below(prefix));
    }
    let host = uri.host();
    // A wildcard names no host.
    certificate_names.iter().any(|name| !name.contains('*') && name.trim_end_matches('.').eq_ignore_ascii_case(&host))
}

/// A token bucket that holds one second's worth.
struct Rate {
    per_second: f64,
    state: Mutex<(f64, Option<Instant>)>,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, state: Mutex::new((per_second, None)) }
    }

    fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *state;
        let elapsed = since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let left = (left + elapsed * self.per_second).min(self.per_second);
        let granted = left >= 1.0;
        *state = (if granted { left - 1.0 } else { left }, Some(now));
        granted
    }
}

/// A bucket of one second's worth has room again by then.
const RATE_RETRY_AFTER_SECONDS: u32 = 1;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use akma::UaProtocolId;

    use super::*;
    use crate::config::KafLifetime;

    #[test]
    fn a_rate_holds_over_time_and_saves_up_one_second() {
        let (rate, start) = (Rate::new(2), Instant::now());
        let at = |milliseconds| rate.take(start + Duration::from_millis(milliseconds));
        assert_eq!([at(0), at(0), at(0)], [true, true, false]);
        assert_eq!([at(499), at(500), at(501)], [false, true, false]);
        assert_eq!([at(60_000), at(60_000), at(60_000)], [true, true, false]);
    }

    #[test]
    fn the_first_lifetime_that_applies_counts() {
        let lifetime = |fqdn: Option<&str>, ua_protocol: Option<&str>, seconds| KafLifetime {
            fqdn: fqdn.map(|fqdn| fqdn.parse().unwrap()),
            ua_protocol: ua_protocol.map(|octets| octets.to_owned().try_into().unwrap()),
            seconds,
        };
        let entry = AfConfig {
            kaf_lifetime_seconds: Some(4),
            kaf_lifetimes: vec![
                lifetime(Some("a.example.com"), Some("0100000007"), 1),
                lifetime(None, Some("010001"), 2),
                lifetime(Some("a.example.com"), None, 3),
            ],
            ..AfConfig::default()
        };
        let policy = Policy::new(Vec::new(), 5);
        let seconds = |entry: &AfConfig, fqdn: &str, protocol| {
            policy.kaf_lifetime_seconds(entry, &AfId::new(fqdn.parse().unwrap(), protocol))
        };
        assert_eq!(seconds(&entry, "a.example.com", UaProtocolId::TLS_1_3), 1);
        assert_eq!(seconds(&entry, "a.example.com", UaProtocolId::tls_1_2(0xD001)), 2);
        assert_eq!(seconds(&entry, "b.example.com", UaProtocolId::tls_1_2(0x00A8)), 2);
        assert_eq!(seconds(&entry, "a.example.com", UaProtocolId::HTTP_DIGEST), 3);
        assert_eq!(seconds(&entry, "b.example.com", UaProtocolId::TLS_1_3), 4);
        assert_eq!(seconds(&AfConfig::default(), "b.example.com", UaProtocolId::TLS_1_3), 5);
    }

    #[test]
    fn notifications_go_to_the_peers_own_names_or_where_configuration_says() {
        let names = ["af.example.com".to_owned(), "*.wild.example.com".to_owned()];
        let may = |entry: &AfConfig, uri: &str| may_be_notified_at(entry, &names, &uri.parse().unwrap());
        let by_name = AfConfig::default();
        assert!(may(&by_name, "https://AF.example.com:9443/x"));
        for other in ["https://127.0.0.1/", "https://aaf.example.com/", "https://x.wild.example.com/", "https://[::1]/"]
        {
            assert!(!may(&by_name, other), "{other}");
        }
        let configured =
            AfConfig { notification_uris: vec!["https://10.0.0.1:8443/akma".parse().unwrap()], ..AfConfig::default() };
        assert!(may(&configured, "https://10.0.0.1:8443/akma/1"));
        assert!(!may(&configured, "https://10.0.0.1:8444/akma/1") && !may(&configured, "https://af.example.com/"));
    }
}
