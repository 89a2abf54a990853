//! What can go wrong on a service based interface.

use std::net::SocketAddr;

use thiserror::Error;
use transport::profile::ProfileError;

use crate::authorization::InvalidAuthorization;
use crate::problem::ProblemDetails;

/// Why a request has no usable answer, or why a server could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SbiError {
    /// Certificate, key or authority file unusable: a fault of the configuration.
    #[error(transparent)]
    Tls(#[from] ProfileError),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address from the configuration.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The section `[authorization]` is wrong, or a file that it names cannot be used: a fault of the configuration.
    #[error(transparent)]
    Authorization(#[from] InvalidAuthorization),
    /// A file that this key of the configuration names cannot be used: a fault of the configuration.
    #[error("{key}")]
    File {
        /// The key.
        key: String,
        /// What is wrong, with the file's name.
        source: Box<SbiError>,
    },
    /// What a file holds, or that it is not there.
    #[error("{0}")]
    Unusable(String),
    /// The URI is not an absolute `https` URI: a fault of the configuration, or of a link the peer sent.
    #[error("not an absolute https URI")]
    InvalidUri,
    /// The request itself could not be coded: a fault of the caller.
    #[error("the request cannot be coded: {0}")]
    InvalidRequest(String),
    /// No connection, or it broke: the peer is down, refuses our certificate, or is not who it should be.
    #[error("peer unreachable: {0}")]
    Unreachable(String),
    /// No answer in time: the peer is slow or overloaded, or the network loses packets.
    #[error("no answer in time")]
    TimedOut,
    /// Too many requests of this client are waiting for answers already.
    #[error("too many requests outstanding")]
    Overloaded,
    /// The peer asked to be left alone for a while (`Retry-After`), and that is not over. Nothing was sent.
    #[error("the peer wants no requests for {seconds} s")]
    Paused {
        /// Seconds that are left.
        seconds: u32,
    },
    /// The peer sent the request elsewhere, where it may not go: another scheme, a host that the configuration does not
    /// allow, or in circles.
    #[error("redirected {0}")]
    Redirected(String),
    /// The peer answered with an error status.
    #[error("refused: {0}")]
    Problem(Box<ProblemDetails>),
    /// The NRF gives no token, or finds nobody, and says why: most likely it does not know this function, or its policy does
    /// not allow it the service. `transient` where asking again may help.
    #[error("the NRF: {reason}")]
    NrfRefused {
        /// Name of the error, or what went wrong.
        reason: String,
        /// Whether the same question may be answered later.
        transient: bool,
    },
    /// The peer answered something the API does not allow: it is broken, or is another kind of server.
    #[error("unusable answer: {0}")]
    Malformed(String),
}

impl SbiError {
    /// The peer's refusal, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<&ProblemDetails> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything: nobody answered, or the
    /// peer said so (429, 5xx).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Overloaded | Self::Paused { .. } => true,
            Self::NrfRefused { transient, .. } => *transient,
            Self::Problem(problem) => {
                let status = problem.status_code();
                status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}
