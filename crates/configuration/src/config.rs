//! Configuration of the Configuration Function, and its checks.

use std::net::SocketAddr;
use std::path::PathBuf;

use sbi::{CertificateFiles, PeerName, ServerLimits};
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

impl Config {
    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`ConfigurationError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        for (key, peers) in [("provisioner", &self.provisioners), ("reader", &self.readers)] {
            if let Some(index) = peers.iter().position(PeerName::is_empty) {
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
