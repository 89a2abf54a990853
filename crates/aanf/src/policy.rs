//! Who may do what, by the identity in the peer's certificate (TS 33.535 clause 6.2: AAnF checks whether the AF is
//! authorised).

use akma::AfId;
use sbi::PeerIdentity;

use crate::config::AfConfig;

/// The configured entries.
pub(crate) struct Policy {
    entries: Vec<AfConfig>,
    kaf_lifetime_seconds: u64,
}

impl Policy {
    pub(crate) fn new(entries: Vec<AfConfig>, kaf_lifetime_seconds: u64) -> Self {
        Self { entries, kaf_lifetime_seconds }
    }

    /// The first entry that names the peer.
    pub(crate) fn entry(&self, peer: &PeerIdentity) -> Option<&AfConfig> {
        self.entries.iter().find(|entry| names(entry, peer))
    }

    /// How long K_AF is valid for the peer of `entry`.
    pub(crate) fn kaf_lifetime_seconds(&self, entry: &AfConfig) -> u64 {
        entry.kaf_lifetime_seconds.unwrap_or(self.kaf_lifetime_seconds)
    }
}

/// Whether the peer of `entry` may have K_AF for `af_id`.
pub(crate) fn owns(entry: &AfConfig, af_id: &AfId) -> bool {
    entry.fqdns.contains(af_id.fqdn())
}

/// Every name the entry gives must be in the certificate, and it must give one.
fn names(entry: &AfConfig, peer: &PeerIdentity) -> bool {
    let instance = entry.nf_instance_id.as_ref().map(|wanted| {
        peer.nf_instance_id.as_ref().is_some_and(|instance| instance.eq_ignore_ascii_case(wanted))
    });
    let dns = entry
        .dns_name
        .as_ref()
        .map(|wanted| peer.dns_names.iter().any(|name| name.eq_ignore_ascii_case(wanted)));
    match (instance, dns) {
        (None, None) => false,
        (instance, dns) => instance.unwrap_or(true) && dns.unwrap_or(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(instance: &str, dns: &str) -> PeerIdentity {
        PeerIdentity {
            nf_instance_id: Some(instance.to_owned()),
            dns_names: vec![dns.to_owned()],
            ..PeerIdentity::default()
        }
    }

    fn entry(instance: Option<&str>, dns: Option<&str>) -> AfConfig {
        AfConfig {
            nf_instance_id: instance.map(str::to_owned),
            dns_name: dns.map(str::to_owned),
            ..AfConfig::default()
        }
    }

    #[test]
    fn every_name_of_an_entry_must_match() {
        let peer = peer("aaaa", "af.example.com");
        assert!(names(&entry(Some("AAAA"), None), &peer));
        assert!(names(&entry(None, Some("AF.example.com")), &peer));
        assert!(names(&entry(Some("aaaa"), Some("af.example.com")), &peer));
        assert!(!names(&entry(Some("aaaa"), Some("other.example.com")), &peer));
        assert!(!names(&entry(Some("bbbb"), Some("af.example.com")), &peer));
    }

    #[test]
    fn an_entry_without_names_matches_nobody() {
        assert!(!names(&entry(None, None), &peer("aaaa", "af.example.com")));
        assert!(!names(&entry(None, None), &PeerIdentity::default()));
    }

    #[test]
    fn a_certificate_without_names_matches_no_entry() {
        assert!(!names(&entry(Some(""), None), &PeerIdentity::default()));
    }
}
