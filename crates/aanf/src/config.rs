//! Configuration of the AKMA anchor function, and its checks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use akma::Fqdn;
use sbi::{CertificateFiles, ClientLimits, PeerName, ServerLimits};
use serde::{Deserialize, Serialize};
use store::DatabaseOptions;

use crate::error::AanfError;

/// Everything the function needs to know. `listen`, `data` and `tls` have no default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where Naanf_AKMA is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where health and metrics are served, plain HTTP; nowhere if absent.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Directory of the durable state; made with mode 0700. It holds SUPIs and, unless `storage_key` is given, K_AKMA
    /// in clear.
    pub data: PathBuf,
    /// File with 64 hexadecimal digits: the AES-256-GCM key under which K_AKMA is stored.
    #[serde(default)]
    pub storage_key: Option<PathBuf>,
    /// How long K_AF is valid from its first derivation, unless the AF's entry says otherwise. In seconds, 1 or more.
    #[serde(default = "default_kaf_lifetime_seconds")]
    pub kaf_lifetime_seconds: u64,
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
    /// The UDM that translates SUPI to GPSI; without it, functions that may not see the SUPI get no identity.
    #[serde(default)]
    pub udm: Option<UdmConfig>,
    /// Who may do what. Whoever has no entry may do nothing.
    #[serde(default, rename = "af")]
    pub afs: Vec<AfConfig>,
}

/// Sizes of the function's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableLimits {
    /// AKMA contexts held, one per UE; registering one more gets 500, INSUFFICIENT_RESOURCES.
    pub contexts_max: u64,
    /// Different AF_IDs for which one context may yield a K_AF; one more gets 403, TOO_MANY_APPLICATION_KEYS.
    pub application_keys_per_context_max: usize,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { contexts_max: 10_000_000, application_keys_per_context_max: 64 }
    }
}

/// Where and how to ask for a GPSI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UdmConfig {
    /// API root, for example `https://udm.example:8443`.
    pub root: String,
    /// The client's limits.
    #[serde(default)]
    pub limits: ClientLimits,
    /// After a failure UDM is left alone for this long, in milliseconds; contexts yield no GPSI meanwhile.
    #[serde(default = "default_udm_pause_milliseconds")]
    pub pause_milliseconds: u64,
}

/// What one peer, told by its certificate, may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AfConfig {
    /// NF instance ID that the certificate must carry as URI `urn:uuid:...`. This or `dns_name` is needed; if both
    /// are given, both must match.
    pub nf_instance_id: Option<String>,
    /// DNS name that the certificate must carry.
    pub dns_name: Option<String>,
    /// FQDNs of the AF_IDs for which it may get K_AF.
    pub fqdns: BTreeSet<Fqdn>,
    /// Whether it may see the SUPI.
    pub supi_access: bool,
    /// Whether it may register and remove contexts, which only an AUSF may.
    pub may_register: bool,
    /// Overrides `kaf_lifetime_seconds` for its keys.
    pub kaf_lifetime_seconds: Option<u64>,
}

impl AfConfig {
    pub(crate) fn peer_name(&self) -> PeerName {
        PeerName { nf_instance_id: self.nf_instance_id.clone(), dns_name: self.dns_name.clone() }
    }
}

impl Config {
    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`AanfError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), AanfError> {
        let fault = |reason: String| Err(AanfError::Configuration(reason));
        let lifetimes = self.afs.iter().filter_map(|af| af.kaf_lifetime_seconds).chain([self.kaf_lifetime_seconds]);
        if lifetimes.into_iter().any(|seconds| !KAF_LIFETIME_SECONDS.contains(&seconds)) {
            return fault(format!("kaf_lifetime_seconds must be within {KAF_LIFETIME_SECONDS:?}"));
        }
        for (index, af) in self.afs.iter().enumerate() {
            if af.peer_name().is_empty() {
                return fault(format!("af[{index}] needs nf_instance_id or dns_name"));
            }
            if af.fqdns.is_empty() && !af.may_register {
                return fault(format!("af[{index}] may do nothing: give it fqdns or may_register"));
            }
            if self.afs.iter().filter(|other| other.peer_name() == af.peer_name()).count() > 1 {
                return fault(format!("af[{index}] names the same peer as another entry"));
            }
        }
        match &self.udm {
            Some(udm) if !udm.root.starts_with("https://") => fault("udm.root must be an https URI".to_owned()),
            _ => Ok(()),
        }
    }
}

fn default_kaf_lifetime_seconds() -> u64 {
    7 * 24 * 3600
}

fn default_udm_pause_milliseconds() -> u64 {
    1_000
}

/// A second to ten years.
const KAF_LIFETIME_SECONDS: std::ops::RangeInclusive<u64> = 1..=315_360_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(change: impl FnOnce(&mut Config)) -> Result<(), AanfError> {
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            admin: None,
            data: "data".into(),
            storage_key: None,
            kaf_lifetime_seconds: default_kaf_lifetime_seconds(),
            tables: TableLimits::default(),
            tls: CertificateFiles { certificate: "c".into(), key: "k".into(), ca: "ca".into(), crl: None },
            limits: ServerLimits::default(),
            store: DatabaseOptions::default(),
            udm: None,
            afs: vec![AfConfig {
                nf_instance_id: Some("4947a69a-f61b-4bc1-b9da-47c9c5d14b64".to_owned()),
                may_register: true,
                ..AfConfig::default()
            }],
        };
        change(&mut config);
        config.check()
    }

    #[test]
    fn a_sound_configuration_passes() {
        config(|_| {}).unwrap();
    }

    #[test]
    fn entries_that_name_nobody_or_allow_nothing_are_found() {
        assert!(config(|config| config.afs.push(AfConfig { may_register: true, ..AfConfig::default() })).is_err());
        let nothing = AfConfig { dns_name: Some("af.example.com".to_owned()), ..AfConfig::default() };
        assert!(config(|config| config.afs.push(nothing)).is_err());
    }

    #[test]
    fn two_entries_for_one_peer_are_found() {
        assert!(config(|config| config.afs.extend(config.afs.clone())).is_err());
    }

    #[test]
    fn a_lifetime_of_nothing_is_found() {
        assert!(config(|config| config.kaf_lifetime_seconds = 0).is_err());
        assert!(config(|config| config.afs.iter_mut().for_each(|af| af.kaf_lifetime_seconds = Some(0))).is_err());
    }

    #[test]
    fn a_udm_without_tls_is_found() {
        let udm = UdmConfig { root: "http://udm".to_owned(), limits: ClientLimits::default(), pause_milliseconds: 1 };
        assert!(config(|config| config.udm = Some(udm)).is_err());
    }
}
