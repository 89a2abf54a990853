//! Why an exposure function cannot run.

use thiserror::Error;

/// Faults of configuration and of the machine. What a peer does wrong is answered, not returned.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExposureError {
    /// A key of the configuration has a value that makes no sense.
    #[error("configuration: {0}")]
    Configuration(String),
    /// The policy file is missing, is no TOML, or holds rules that make no sense.
    #[error(transparent)]
    Policy(#[from] sbi::policy::InvalidPolicy),
    /// The address is taken, or a certificate, key or authority file is unusable.
    #[error(transparent)]
    Sbi(#[from] sbi::SbiError),
    /// The data directory is unusable, or the disk is full or failing.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The key that signs tokens is missing, or is no P-256 private key.
    #[error("token key: {0}")]
    TokenKey(String),
    /// A record of the state does not decode: written by a newer version, or damaged.
    #[error("the state holds a record that does not decode")]
    Corrupt,
}

impl ExposureError {
    /// The same with the key of the configuration that names the file at fault.
    pub(crate) fn with_key(self, key: &str) -> Self {
        match self {
            Self::Configuration(reason) => Self::Configuration(format!("{key}: {reason}")),
            other => other,
        }
    }

    /// What is wrong with the entries of the policy file at `path`, whose sections have no `prefix` there.
    pub(crate) fn in_policy(&self, path: &std::path::Path, prefix: &str) -> sbi::policy::InvalidPolicy {
        let reason = match self {
            Self::Configuration(reason) => reason.strip_prefix(prefix).unwrap_or(reason).to_owned(),
            other => other.to_string(),
        };
        sbi::policy::InvalidPolicy::new(path, reason)
    }
}
