//! Configuration of the Configuration Function, and its checks.

use std::net::SocketAddr;
use std::path::PathBuf;

use sbi::{CertificateFiles, PeerIdentity, ServerLimits};
use serde::{Deserialize, Serialize};
use store::DatabaseOptions;

use crate::error::ConfigurationError;

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
    /// The server's limits.
    #[serde(default)]
    pub limits: ServerLimits,
    /// The database's limits.
    #[serde(default)]
    pub store: DatabaseOptions,
    /// Who may read and change associations.
    #[serde(default, rename = "provisioner")]
    pub provisioners: Vec<PeerName>,
    /// Who may ask for a UE's profile: MSGin5G Servers.
    #[serde(default, rename = "reader")]
    pub readers: Vec<PeerName>,
}

/// Sizes of the function's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableLimits {
    /// Associations in all; one more gets 500, INSUFFICIENT_RESOURCES.
    pub associations_max: u64,
    /// Associations of one UE ID; one more gets 403, TOO_MANY_ASSOCIATIONS.
    pub associations_per_ue_max: usize,
    /// Associations on one page of a list, whatever the request asks for.
    pub page_max: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { associations_max: 20_000_000, associations_per_ue_max: 256, page_max: 1_000 }
    }
}

/// A peer by the names in its certificate. One is needed; if both are given, both must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerName {
    /// NF instance ID, carried as URI `urn:uuid:...`.
    pub nf_instance_id: Option<String>,
    /// DNS name.
    pub dns_name: Option<String>,
}

impl PeerName {
    pub(crate) fn names(&self, peer: &PeerIdentity) -> bool {
        let instance = self.nf_instance_id.as_ref().map(|wanted| {
            peer.nf_instance_id.as_ref().is_some_and(|instance| instance.eq_ignore_ascii_case(wanted))
        });
        let dns =
            self.dns_name.as_ref().map(|wanted| peer.dns_names.iter().any(|name| name.eq_ignore_ascii_case(wanted)));
        match (instance, dns) {
            (None, None) => false,
            (instance, dns) => instance.unwrap_or(true) && dns.unwrap_or(true),
        }
    }
}

impl Config {
    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`ConfigurationError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        for (key, peers) in [("provisioner", &self.provisioners), ("reader", &self.readers)] {
            if let Some(index) = peers.iter().position(|peer| *peer == PeerName::default()) {
                return Err(ConfigurationError::Configuration(format!(
                    "{key}[{index}] needs nf_instance_id or dns_name"
                )));
            }
        }
        if self.tables.page_max == 0 {
            return Err(ConfigurationError::Configuration("tables.page_max must be 1 or more".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer_name(instance: Option<&str>, dns: Option<&str>) -> PeerName {
        PeerName { nf_instance_id: instance.map(str::to_owned), dns_name: dns.map(str::to_owned) }
    }

    #[test]
    fn every_name_given_must_be_in_the_certificate_and_one_must_be_given() {
        let peer = PeerIdentity {
            nf_instance_id: Some("aaaa".to_owned()),
            dns_names: vec!["server.example.com".to_owned()],
            ..PeerIdentity::default()
        };
        assert!(peer_name(Some("AAAA"), None).names(&peer));
        assert!(peer_name(None, Some("Server.example.com")).names(&peer));
        assert!(!peer_name(Some("aaaa"), Some("other.example.com")).names(&peer));
        assert!(!peer_name(None, None).names(&peer));
        assert!(!peer_name(Some("aaaa"), None).names(&PeerIdentity::default()));
    }
}
