//! The network exposure function (TS 29.522, TS 33.501 clauses 5.9.2.3 and 12).

use std::net::SocketAddr;

use axum::Router;
use sbi::{CertificateFiles, SbiServer, SbiServerConfig, ServerLimits};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::ExposureError;

/// Everything the function needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Own certificate and key, and the authority of everybody else's.
    pub tls: CertificateFiles,
    /// The server's limits.
    #[serde(default)]
    pub limits: ServerLimits,
}

impl Config {
    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`ExposureError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), ExposureError> {
        Ok(())
    }
}

/// The function at work. It stops when the token it was started with is cancelled.
#[derive(Debug)]
pub struct Running {
    server: SbiServer,
}

impl Running {
    /// Where it is served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Waits until the function has stopped.
    pub async fn stopped(&self) {
        self.server.stopped().await;
    }
}

/// Starts the function.
///
/// # Errors
/// [`ExposureError`]: the configuration makes no sense, or a file or address is unusable.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, ExposureError> {
    config.check()?;
    let server = SbiServerConfig { listen: config.listen, tls: config.tls, limits: config.limits };
    let server = SbiServer::start(server, Router::new(), shutdown).await?;
    tracing::info!(address = %server.local_addr(), "NEF ready");
    Ok(Running { server })
}
