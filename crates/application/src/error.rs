//! What can go wrong for an Application Server, and what most likely caused it.

use sbi::{ProblemDetails, SbiError};
use thiserror::Error;

/// Every failure of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApplicationError {
    /// The configuration cannot work, such as a limit of zero or a host that is none.
    #[error("configuration: {0}")]
    Configuration(String),
    /// There is no registration to end, or none was made since this was opened.
    #[error("not registered")]
    NotRegistered,
    /// The message or report is not in the name of this Application Server, so that the server would refuse it.
    #[error("the originator is not this Application Server")]
    NotOwn,
    /// The server answered that the subscription to topics is not made, or not ended; in its words.
    #[error("the subscription is {0}")]
    Subscription(String),
    /// No answer, or a refusal: of the server, of the NEF before it, or of whoever gives tokens.
    #[error(transparent)]
    Network(#[from] SbiError),
}

impl ApplicationError {
    /// The refusal, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<&ProblemDetails> {
        match self {
            Self::Network(error) => error.problem(),
            _ => None,
        }
    }

    /// The cause of a refusal, such as `NOT_REGISTERED`.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.problem()?.cause.as_deref()
    }

    /// Whether the same may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Network(error) if error.is_transient())
    }
}
