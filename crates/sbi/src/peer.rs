//! Peers by the names in their certificates.

use serde::{Deserialize, Serialize};
use transport::profile::PeerIdentity;

/// A peer as a policy names it. One name is needed; where both are given, both must be in the certificate.
///
/// ```
/// use sbi::{PeerIdentity, PeerName};
/// let policy = PeerName { dns_name: Some("as.example.com".to_owned()), ..PeerName::default() };
/// let peer = PeerIdentity { dns_names: vec!["as.example.com".to_owned()], ..PeerIdentity::default() };
/// assert!(policy.names(&peer));
/// assert!(!policy.names(&PeerIdentity::default()));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerName {
    /// NF instance ID, carried as subjectAltName URI `urn:uuid:...` (TS 33.310 clause 6.1.3c).
    pub nf_instance_id: Option<String>,
    /// DNS name of the subjectAltName.
    pub dns_name: Option<String>,
}

impl PeerName {
    /// Whether no name is given, so that it names nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nf_instance_id.is_none() && self.dns_name.is_none()
    }

    /// Whether it names `peer`. Names compare without case.
    #[must_use]
    pub fn names(&self, peer: &PeerIdentity) -> bool {
        let instance = self.nf_instance_id.as_ref().is_none_or(|wanted| {
            peer.nf_instance_id.as_ref().is_some_and(|instance| instance.eq_ignore_ascii_case(wanted))
        });
        let dns = self
            .dns_name
            .as_ref()
            .is_none_or(|wanted| peer.dns_names.iter().any(|name| name.eq_ignore_ascii_case(wanted)));
        !self.is_empty() && instance && dns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(instance: Option<&str>, dns: Option<&str>) -> PeerName {
        PeerName { nf_instance_id: instance.map(str::to_owned), dns_name: dns.map(str::to_owned) }
    }

    #[test]
    fn every_name_given_must_be_in_the_certificate() {
        let peer = PeerIdentity {
            nf_instance_id: Some("aaaa".to_owned()),
            dns_names: vec!["other.example.com".to_owned(), "af.example.com".to_owned()],
            ..PeerIdentity::default()
        };
        assert!(name(Some("AAAA"), None).names(&peer));
        assert!(name(None, Some("AF.example.com")).names(&peer));
        assert!(name(Some("aaaa"), Some("af.example.com")).names(&peer));
        assert!(!name(Some("aaaa"), Some("elsewhere.example.com")).names(&peer));
        assert!(!name(Some("bbbb"), Some("af.example.com")).names(&peer));
    }

    #[test]
    fn no_name_names_nobody_and_nobody_has_no_name() {
        assert!(!name(None, None).names(&PeerIdentity::default()));
        assert!(!name(Some(""), None).names(&PeerIdentity::default()));
    }
}
