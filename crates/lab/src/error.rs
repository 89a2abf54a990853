use std::io;
use std::path::{Path, PathBuf};

/// Why the lab could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A file of the lab's directory could not be read or written: most likely permissions or a full disk.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another lab runs in the directory.
    #[error("another lab runs in {0}")]
    InUse(PathBuf),
    /// What lies in the file is not what the lab wrote: most likely edited by hand.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(String),
    /// The system's random number generator gave nothing.
    #[error("the system has no random numbers")]
    Random,
    /// A configuration value cannot be used.
    #[error("configuration: {0}")]
    Configuration(String),
    /// The durable state could not be opened or written: most likely another process has it, or the disk is full.
    #[error("state: {0}")]
    Store(#[from] store::StoreError),
    /// An interface could not be opened or asked.
    #[error(transparent)]
    Interface(#[from] sbi::SbiError),
    /// A key of the home network for concealed SUPIs cannot be used.
    #[error("home network key: {0}")]
    HomeKey(#[from] akma::Error),
    /// What lies in the subscriber table is not what was put there: most likely another version wrote it.
    #[error("the subscriber table holds something else")]
    Corrupt,
    /// A subscription cannot be used as it is.
    #[error("subscription: {0}")]
    Subscription(String),
    /// No subscriber has this SUPI.
    #[error("no such subscriber")]
    UnknownSubscriber,
    /// The subscriber's next SQN would not fit in 48 bits.
    #[error("the subscriber's sequence numbers are used up")]
    SequenceExhausted,
    /// No free port was found on the loopback interface.
    #[error("no free port on {0}")]
    NoFreePort(std::net::IpAddr),
}

impl LabError {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
