//! The section `[authorization]` of a producer's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use transport::profile::PeerIdentity;

use super::networks::Network;
use crate::peer::PeerName;
use crate::token::{AccessTokenClaims, PlmnId, Snssai};

/// How requests are authorised. Without anything in it, everybody needs a token and no issuer is trusted: nobody could get
/// in, which is found by [`AuthorizationConfig::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthorizationConfig {
    /// What peers without an entry need.
    pub mode: Mode,
    /// How far clocks may differ, in seconds, 30 at most.
    pub leeway_seconds: u64,
    /// What this producer belongs to, for tokens that are good for a part of the network only.
    #[serde(skip_serializing_if = "ProducerConfig::is_empty")]
    pub producer: ProducerConfig,
    /// NRFs whose tokens are taken.
    #[serde(rename = "issuer", skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<IssuerConfig>,
    /// Peers that need something else than `mode` says.
    #[serde(rename = "peer", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerConfig>,
    /// Listeners without TLS, for networks protected by other means.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nds_ip: Vec<NdsIpConfig>,
}

/// What a peer needs besides its certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// An access token.
    #[default]
    Token,
    /// Nothing: the TLS identity is enough (TS 33.501 clause Y.5).
    Tls,
}

/// An authorization server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// What `iss` of its tokens says: the NRF's NF instance ID.
    pub nf_instance_id: String,
    /// File with its public keys: a JSON Web Key Set, or PEM public keys or certificates. Read again when it changes.
    pub keys: PathBuf,
}

/// What one peer, told by its certificate, needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerConfig {
    /// NF instance ID that the certificate must carry. This or `dns_name` is needed; if both are given, both must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nf_instance_id: Option<String>,
    /// DNS name that the certificate must carry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    /// What it needs.
    pub mode: Mode,
}

impl PeerConfig {
    /// An entry for an NF instance.
    #[must_use]
    pub fn instance(nf_instance_id: impl Into<String>, mode: Mode) -> Self {
        Self { nf_instance_id: Some(nf_instance_id.into()), dns_name: None, mode }
    }

    fn name(&self) -> PeerName {
        PeerName { nf_instance_id: self.nf_instance_id.clone(), dns_name: self.dns_name.clone() }
    }
}

/// A statement that what comes from some networks is protected below IP (NDS/IP, TS 33.210), and needs neither TLS nor a
/// token.
///
/// Whoever can send from an address of these networks is taken for the peer named here: no certificate says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NdsIpConfig {
    /// Where to listen for HTTP/2 without TLS (prior knowledge, RFC 9113 clause 3.3).
    pub listen: SocketAddr,
    /// Networks that connections may come from. Others are closed at once.
    pub networks: Vec<Network>,
    /// What protects these networks, in words; it is logged at every start.
    pub protected_by: String,
    /// NF instance ID that peers on these networks are taken for. This or `dns_name` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nf_instance_id: Option<String>,
    /// DNS name that peers on these networks are taken for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
}

impl NdsIpConfig {
    /// Who peers on these networks are taken for.
    #[must_use]
    pub fn peer(&self) -> PeerIdentity {
        PeerIdentity {
            nf_instance_id: self.nf_instance_id.as_ref().map(|id| id.to_ascii_lowercase()),
            dns_names: self.dns_name.iter().map(|name| name.to_ascii_lowercase()).collect(),
            ..PeerIdentity::default()
        }
    }
}

/// What a producer belongs to. A token that is restricted to something that is not listed here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerConfig {
    /// PLMNs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plmns: Vec<PlmnId>,
    /// Network slices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snssais: Vec<Snssai>,
    /// Network slice instances.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nsis: Vec<String>,
    /// NF sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nf_set_ids: Vec<String>,
    /// NF service sets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nf_service_set_ids: Vec<String>,
}

impl ProducerConfig {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a token that may be restricted is good here (TS 33.501 clause 13.4.1.1.2). Stand-alone non-public networks
    /// are not known here.
    pub(super) fn is_meant_by(&self, claims: &AccessTokenClaims) -> bool {
        claims.producer_plmn_id.as_ref().is_none_or(|plmn| self.plmns.contains(plmn))
            && claims.producer_snpn_id.is_none()
            && claims.producer_snssai_list.as_ref().is_none_or(|list| list.iter().any(|one| self.snssais.contains(one)))
            && claims.producer_nsi_list.as_ref().is_none_or(|list| list.iter().any(|one| self.nsis.contains(one)))
            && claims.producer_nf_set_id.as_ref().is_none_or(|set| self.nf_set_ids.contains(set))
            && claims.producer_nf_service_set_id.as_ref().is_none_or(|set| self.nf_service_set_ids.contains(set))
    }
}

/// What is wrong with the section.
#[derive(Debug, Error)]
#[error("authorization.{0}")]
pub struct InvalidAuthorization(pub(crate) String);

impl InvalidAuthorization {
    /// The key below `authorization`, and what is wrong with it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl Default for AuthorizationConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Token,
            leeway_seconds: LEEWAY_SECONDS_MAX,
            producer: ProducerConfig::default(),
            issuers: Vec::new(),
            peers: Vec::new(),
            nds_ip: Vec::new(),
        }
    }
}

impl AuthorizationConfig {
    /// The section of a function all of whose peers need nothing but their certificate.
    #[must_use]
    pub fn tls_only() -> Self {
        Self { mode: Mode::Tls, ..Self::default() }
    }

    /// Finds what is wrong with the section itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`InvalidAuthorization`] naming the key.
    pub fn check(&self) -> Result<(), InvalidAuthorization> {
        let fault = |reason: String| Err(InvalidAuthorization(reason));
        if self.leeway_seconds > LEEWAY_SECONDS_MAX {
            return fault(format!("leeway_seconds is {LEEWAY_SECONDS_MAX} at most"));
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            if issuer.nf_instance_id.is_empty() {
                return fault(format!("issuer[{index}].nf_instance_id is empty: give the NF instance ID of the NRF"));
            }
            if self.issuers.iter().skip(index + 1).any(|other| other.nf_instance_id == issuer.nf_instance_id) {
                return fault(format!("issuer[{index}] is there twice: one file may hold several keys"));
            }
        }
        for (index, peer) in self.peers.iter().enumerate() {
            if peer.name().is_empty() {
                return fault(format!("peer[{index}] needs nf_instance_id or dns_name"));
            }
            if self.peers.iter().skip(index + 1).any(|other| other.name() == peer.name()) {
                return fault(format!("peer[{index}] names the same peer as another entry"));
            }
        }
        let nobody = self.issuers.is_empty() && self.nds_ip.is_empty() && self.mode == Mode::Token;
        if nobody && !self.peers.iter().any(|peer| peer.mode == Mode::Tls) {
            return fault("issuer: there is none, and no peer with mode \"tls\": nobody could get in; name an NRF's keys, or set mode = \"tls\"".to_owned());
        }
        for (index, statement) in self.nds_ip.iter().enumerate() {
            if statement.networks.is_empty() {
                return fault(format!("nds_ip[{index}].networks is empty: name those that are protected"));
            }
            if statement.protected_by.trim().is_empty() {
                return fault(format!("nds_ip[{index}].protected_by must say what protects these networks"));
            }
            if statement.nf_instance_id.is_none() && statement.dns_name.is_none() {
                return fault(format!("nds_ip[{index}] needs nf_instance_id or dns_name"));
            }
        }
        Ok(())
    }

    /// What this peer needs: an entry that asks for a token counts before one that does not.
    pub(super) fn mode_of(&self, peer: &PeerIdentity) -> Mode {
        let mut modes = self.peers.iter().filter(|entry| entry.name().names(peer)).map(|entry| entry.mode);
        match modes.next() {
            None => self.mode,
            Some(Mode::Tls) if modes.all(|mode| mode == Mode::Tls) => Mode::Tls,
            Some(_) => Mode::Token,
        }
    }
}

/// Most that `leeway_seconds` may be, and its default.
pub const LEEWAY_SECONDS_MAX: u64 = 30;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::token::Audience;

    fn named(nf_instance_id: &str, dns_name: &str) -> PeerIdentity {
        PeerIdentity {
            nf_instance_id: Some(nf_instance_id.to_owned()),
            dns_names: vec![dns_name.to_owned()],
            ..PeerIdentity::default()
        }
    }

    #[test]
    fn everybody_needs_a_token_unless_said_otherwise() {
        let mut config = AuthorizationConfig::default();
        assert_eq!(config.mode_of(&named("a", "a.example")), Mode::Token);
        config.peers.push(PeerConfig::instance("a", Mode::Tls));
        assert_eq!(config.mode_of(&named("a", "a.example")), Mode::Tls);
        assert_eq!(config.mode_of(&named("b", "a.example")), Mode::Token);
        assert_eq!(config.mode_of(&PeerIdentity::default()), Mode::Token);
    }

    #[test]
    fn of_two_entries_for_one_peer_the_stricter_counts() {
        let by_dns = PeerConfig { dns_name: Some("a.example".to_owned()), ..PeerConfig::default() };
        for peers in [
            vec![PeerConfig::instance("a", Mode::Tls), by_dns.clone()],
            vec![by_dns.clone(), PeerConfig::instance("a", Mode::Tls)],
        ] {
            let config = AuthorizationConfig { peers, ..AuthorizationConfig::tls_only() };
            assert_eq!(config.mode_of(&named("a", "a.example")), Mode::Token);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_found() {
        let found = |change: &dyn Fn(&mut AuthorizationConfig)| {
            let mut config = AuthorizationConfig::tls_only();
            change(&mut config);
            config.check().is_err()
        };
        assert!(!found(&|_| {}));
        assert!(found(&|config| config.mode = Mode::Token), "nobody could get in");
        assert!(found(&|config| config.leeway_seconds = 31));
        assert!(found(&|config| config.peers.push(PeerConfig::default())));
        assert!(found(&|config| config.peers = vec![PeerConfig::instance("a", Mode::Tls); 2]));
        let issuer = IssuerConfig { nf_instance_id: "nrf".to_owned(), keys: "keys".into() };
        assert!(found(&|config| config.issuers = vec![issuer.clone(), issuer.clone()]));
        let statement = NdsIpConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            networks: vec!["192.0.2.0/24".parse().unwrap()],
            protected_by: "IPsec between the sites".to_owned(),
            nf_instance_id: Some("a".to_owned()),
            dns_name: None,
        };
        assert!(!found(&|config| config.nds_ip.push(statement.clone())));
        assert!(found(&|config| config.nds_ip.push(NdsIpConfig { networks: vec![], ..statement.clone() })));
        assert!(found(&|config| config.nds_ip.push(NdsIpConfig { protected_by: " ".to_owned(), ..statement.clone() })));
        assert!(found(&|config| config.nds_ip.push(NdsIpConfig { nf_instance_id: None, ..statement.clone() })));
    }

    #[test]
    fn a_token_for_a_part_of_the_network_is_good_only_where_that_part_is_known() {
        let mut claims = AccessTokenClaims::new("i", "s", Audience::NfType("AANF".to_owned()), "s", 7);
        let here = ProducerConfig { nf_set_ids: vec!["set1".to_owned()], ..ProducerConfig::default() };
        assert!(here.is_meant_by(&claims));
        claims.producer_nf_set_id = Some("set1".to_owned());
        assert!(here.is_meant_by(&claims) && !ProducerConfig::default().is_meant_by(&claims));
        claims.producer_nf_set_id = Some("set2".to_owned());
        assert!(!here.is_meant_by(&claims));
        claims.producer_nf_set_id = None;
        claims.producer_snssai_list = Some(vec![Snssai { sst: 1, sd: None }]);
        assert!(!here.is_meant_by(&claims));
        claims.producer_snssai_list = None;
        claims.producer_plmn_id = Some(PlmnId { mcc: "001".to_owned(), mnc: "01".to_owned() });
        assert!(!here.is_meant_by(&claims));
    }
}
