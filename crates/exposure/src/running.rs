//! Both functions, started and stopped together.

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::ExposureError;
use crate::{capif, nef};

/// The functions at work. They stop when the token they were started with is cancelled.
#[derive(Debug)]
pub struct Running {
    nef: Option<nef::Running>,
    capif: Option<capif::Running>,
}

impl Running {
    /// The NEF, if it is configured.
    #[must_use]
    pub fn nef(&self) -> Option<&nef::Running> {
        self.nef.as_ref()
    }

    /// The CAPIF core function, if it is configured.
    #[must_use]
    pub fn capif(&self) -> Option<&capif::Running> {
        self.capif.as_ref()
    }

    /// Waits until all have stopped: requests answered, connections closed.
    pub async fn stopped(&self) {
        if let Some(nef) = &self.nef {
            nef.stopped().await;
        }
        if let Some(capif) = &self.capif {
            capif.stopped().await;
        }
    }
}

/// Starts what is configured; it serves when this returns, and until `shutdown` is cancelled.
///
/// # Errors
/// [`ExposureError`]: the configuration makes no sense, or a file or address is unusable. What had started by then stops.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, ExposureError> {
    // Each reads its policy file itself, and again when it changes.
    config.clone().with_policy()?.check()?;
    let started = shutdown.child_token();
    let running = start_each(config, &started).await;
    if running.is_err() {
        started.cancel();
    }
    running
}

async fn start_each(config: Config, shutdown: &CancellationToken) -> Result<Running, ExposureError> {
    // The core function first: what the NEF exposes is published there.
    let capif = match config.capif {
        Some(capif) => Some(Box::pin(capif::start(capif, shutdown.clone())).await?),
        None => None,
    };
    let nef = match config.nef {
        Some(nef) => Some(Box::pin(nef::start(nef, shutdown.clone())).await?),
        None => None,
    };
    Ok(Running { nef, capif })
}
