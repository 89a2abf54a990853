//! One application function: what it may do, and how much of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use akma::AfId;
use message::{Address, AsServiceId, MessagingTopic};
use sbi::PeerIdentity;
use sbi::callback::{is_own, is_well_formed_below};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::{AfConfig, fingerprint};
use super::scope;

/// Every application function there is.
#[derive(Debug)]
pub(crate) struct Afs(Vec<Arc<Af>>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Af {
    rule: AfConfig,
    fingerprint: Option<[u8; 32]>,
    rate: Mutex<Bucket>,
    outstanding: Arc<Semaphore>,
}

/// A request may not be served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) retry_after_seconds: u32,
}

impl Afs {
    pub(crate) fn new(rules: Vec<AfConfig>) -> Self {
        Self(rules.into_iter().map(|rule| Arc::new(Af::new(rule))).collect())
    }

    pub(crate) fn find(&self, af_id: &str) -> Option<Arc<Af>> {
        self.0.iter().find(|af| af.rule.af_id == af_id).cloned()
    }

    /// The only one that this certificate is for; `None` if there is none, or more than one.
    pub(crate) fn only_one_of(&self, peer: &PeerIdentity) -> Option<Arc<Af>> {
        let mut those = self.0.iter().filter(|af| af.is(peer));
        those.next().filter(|_| those.next().is_none()).cloned()
    }

    /// The only one with one of these names and no certificate of its own; `None` if there is none, or more than one.
    pub(crate) fn named(&self, names: &[String]) -> Option<Arc<Af>> {
        let is = |af: &&Arc<Af>| {
            let named = |wanted: &String| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
            af.rule.certificate_sha256.is_none() && af.rule.dns_name.as_ref().is_some_and(named)
        };
        let mut those = self.0.iter().filter(is);
        those.next().filter(|_| those.next().is_none()).cloned()
    }

    /// The one that may be this Application Server.
    pub(crate) fn of_application_server(&self, id: &AsServiceId) -> Option<Arc<Af>> {
        self.0.iter().find(|af| af.may_be(id)).cloned()
    }
}

impl Af {
    fn new(rule: AfConfig) -> Self {
        let burst = f64::from(rule.requests_burst);
        Self {
            fingerprint: rule.certificate_sha256.as_deref().and_then(fingerprint),
            rate: Mutex::new(Bucket { tokens: burst, filled_at: Instant::now() }),
            outstanding: Arc::new(Semaphore::new(rule.requests_outstanding_max)),
            rule,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.rule.af_id
    }

    /// Whether the certificate is its: it shows every name that is configured, and one is.
    pub(crate) fn is(&self, peer: &PeerIdentity) -> bool {
        let named = self
            .rule
            .dns_name
            .as_ref()
            .is_none_or(|wanted| peer.dns_names.iter().any(|name| name.eq_ignore_ascii_case(wanted)));
        let pinned = self.rule.certificate_sha256.is_none()
            || (self.fingerprint.is_some() && self.fingerprint == peer.certificate_sha256);
        (self.rule.dns_name.is_some() || self.rule.certificate_sha256.is_some()) && named && pinned
    }

    /// The scopes that its tokens may have.
    pub(crate) fn scopes(&self) -> Vec<&'static str> {
        let mut scopes = Vec::new();
        if !self.rule.fqdns.is_empty() {
            scopes.push(scope::AKMA);
            if self.rule.gpsi_access {
                scopes.push(scope::GPSI_ACCESS);
            }
        }
        if !self.rule.as_service_ids.is_empty() {
            scopes.extend([scope::AS_REGISTRATION, scope::MESSAGE_DELIVERY, scope::TOPIC_LIST_EVENT]);
        }
        scopes
    }

    pub(crate) fn owns(&self, af_id: &AfId) -> bool {
        self.rule.fqdns.contains(af_id.fqdn())
    }

    pub(crate) fn may_see_gpsi(&self) -> bool {
        self.rule.gpsi_access
    }

    pub(crate) fn may_be(&self, id: &AsServiceId) -> bool {
        self.rule.as_service_ids.contains(id)
    }

    pub(crate) fn may_address(&self, recipient: &Address) -> bool {
        self.rule.may_address.iter().any(|pattern| pattern.matches(recipient))
    }

    pub(crate) fn may_subscribe(&self, topic: &MessagingTopic) -> bool {
        self.rule.may_subscribe.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => topic.as_str().starts_with(beginning),
            None => topic.as_str() == pattern,
        })
    }

    /// Whether it may have us send to `target`.
    pub(crate) fn may_name(&self, target: &str, peer: &PeerIdentity) -> bool {
        self.may_still_name(target) && (!self.rule.target_uris.is_empty() || is_own(target, peer))
    }

    /// The same where no certificate is at hand: if nothing is configured, it was the certificate that decided.
    pub(crate) fn may_still_name(&self, target: &str) -> bool {
        is_well_formed_below(target, &self.rule.target_uris)
    }

    /// Counts one request; the permit is held until it is answered.
    pub(crate) fn admit(&self, now: Instant) -> Result<OwnedSemaphorePermit, TooMany> {
        let permit =
            Arc::clone(&self.outstanding).try_acquire_owned().map_err(|_| TooMany { retry_after_seconds: 1 })?;
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(now, self.rule.requests_per_second, self.rule.requests_burst)?;
        Ok(permit)
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant, per_second: u32, burst: u32) -> Result<(), TooMany> {
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + since * f64::from(per_second)).min(f64::from(burst));
        self.filled_at = self.filled_at.max(now);
        if self.tokens < 1.0 {
            let seconds = ((1.0 - self.tokens) / f64::from(per_second)).ceil().clamp(1.0, 3600.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 1 to 3600")]
            return Err(TooMany { retry_after_seconds: seconds as u32 });
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::time::Duration;

    use super::*;

    fn af(rule: &str) -> Af {
        let text = format!("af_id = \"weather\"\n{rule}");
        Af::new(toml::from_str(&text).unwrap())
    }

    fn peer(dns_name: &str, certificate: [u8; 32]) -> PeerIdentity {
        PeerIdentity {
            dns_names: vec![dns_name.to_owned()],
            ip_addresses: vec![[127, 0, 0, 1].into()],
            certificate_sha256: Some(certificate),
            ..PeerIdentity::default()
        }
    }

    #[test]
    fn a_certificate_must_show_every_name_that_is_configured() {
        let both = af(&format!("dns_name = \"a.example\"\ncertificate_sha256 = \"{}\"", "07".repeat(32)));
        assert!(both.is(&peer("A.example", [7; 32])));
        assert!(!both.is(&peer("a.example", [8; 32])));
        assert!(!both.is(&peer("b.example", [7; 32])));
        assert!(!both.is(&PeerIdentity::default()));
        assert!(!af("").is(&peer("a.example", [7; 32])), "no name is nobody");
    }

    #[test]
    fn a_certificate_for_two_is_for_neither() {
        let rule = |id: &str| toml::from_str(&format!("af_id = \"{id}\"\ndns_name = \"a.example\"")).unwrap();
        let afs = Afs::new(vec![rule("one"), rule("two")]);
        assert!(afs.only_one_of(&peer("a.example", [7; 32])).is_none());
        assert!(Afs::new(vec![rule("one")]).only_one_of(&peer("a.example", [7; 32])).is_some());
    }

    #[test]
    fn scopes_follow_from_what_the_rule_allows() {
        assert_eq!(af("gpsi_access = true").scopes(), Vec::<&str>::new());
        assert_eq!(af("fqdns = [\"a.example\"]").scopes(), [scope::AKMA]);
        assert_eq!(af("fqdns = [\"a.example\"]\ngpsi_access = true").scopes(), [scope::AKMA, scope::GPSI_ACCESS]);
        assert_eq!(af("as_service_ids = [\"a@example\"]").scopes().len(), 3);
    }

    #[test]
    fn only_addresses_and_topics_of_the_rule_are_allowed() {
        let af = af("may_address = [\"UE:*@lab\", \"TOPIC:lab/*\"]\nmay_subscribe = [\"lab/*\", \"one\"]");
        let address = |text: &str| -> Address {
            let (kind, addr) = text.split_once(':').unwrap();
            serde_json::from_value(serde_json::json!({"addrType": kind, "addr": addr})).unwrap()
        };
        assert!(af.may_address(&address("UE:meter@lab")) && af.may_address(&address("TOPIC:lab/x")));
        assert!(!af.may_address(&address("UE:meter@other")) && !af.may_address(&address("GROUP:all@lab")));
        let topic = |text: &str| text.parse().unwrap();
        assert!(af.may_subscribe(&topic("lab/a")) && af.may_subscribe(&topic("one")));
        assert!(!af.may_subscribe(&topic("one/two")) && !af.may_subscribe(&topic("other")));
    }

    #[test]
    fn a_target_is_below_a_prefix_or_at_a_name_of_the_certificate() {
        let free = af("");
        assert!(free.may_name("https://a.example/x", &peer("a.example", [0; 32])));
        assert!(free.may_name("https://127.0.0.1:9/x", &peer("a.example", [0; 32])));
        assert!(!free.may_name("https://b.example/x", &peer("a.example", [0; 32])));
        let bound = af("target_uris = [\"https://b.example\"]");
        assert!(bound.may_name("https://b.example/x", &peer("a.example", [0; 32])));
        assert!(!bound.may_name("https://a.example/x", &peer("a.example", [0; 32])));
        assert!(!bound.may_name("http://b.example/x", &peer("a.example", [0; 32])));
    }

    #[test]
    fn a_burst_is_followed_by_the_rate_and_says_when_to_come_back() {
        let af = af("requests_per_second = 2\nrequests_burst = 3\nrequests_outstanding_max = 10");
        let start = Instant::now();
        for _ in 0..3 {
            drop(af.admit(start).unwrap());
        }
        assert_eq!(af.admit(start).unwrap_err(), TooMany { retry_after_seconds: 1 });
        drop(af.admit(start + Duration::from_millis(600)).unwrap());
        assert!(af.admit(start + Duration::from_millis(600)).is_err());
    }

    #[test]
    fn requests_under_way_are_bounded_and_one_that_is_answered_makes_room() {
        let af = af("requests_outstanding_max = 1");
        let held = af.admit(Instant::now()).unwrap();
        assert!(af.admit(Instant::now()).is_err());
        drop(held);
        drop(af.admit(Instant::now()).unwrap());
    }
}
