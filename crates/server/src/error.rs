//! Why a server did not start.

use std::net::SocketAddr;

use sbi::SbiError;
use store::StoreError;

/// What went wrong before the first connection. A running server has no errors of its own: it answers them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The configuration contradicts itself or leaves something out.
    #[error("configuration: {key} {reason}")]
    Configuration {
        /// Which key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The policy file is missing, is no TOML, or holds something else than rules.
    #[error(transparent)]
    Policy(#[from] sbi::policy::InvalidPolicy),
    /// The address of MSGin5G-1 is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A certificate, key or authority file is not usable, or OpenSSL refused the profile.
    #[error(transparent)]
    Tls(#[from] transport::profile::ProfileError),
    /// A client or server of a service based interface did not start.
    #[error(transparent)]
    Interface(#[from] SbiError),
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
