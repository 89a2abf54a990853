//! Why there are no figures.

use std::path::PathBuf;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Which.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A server did not come up, or went away.
    #[error("{server}: {reason}")]
    Server {
        /// Which.
        server: &'static str,
        /// What happened.
        reason: String,
    },
    /// The lab could not be provisioned with users.
    #[error("cannot provision users: {0}")]
    Provision(String),
    /// A connection could not be made, or broke while measuring.
    #[error("a connection failed: {0}")]
    Connection(String),
    /// The peer said something that its protocol does not allow here.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// A file could not be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// OpenSSL could not be set up.
    #[error("OpenSSL: {0}")]
    OpenSsl(#[from] openssl::error::ErrorStack),
}

impl BenchError {
    pub(crate) fn connection(error: impl std::fmt::Display) -> Self {
        Self::Connection(error.to_string())
    }
}
