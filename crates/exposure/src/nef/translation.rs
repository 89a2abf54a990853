//! SUPI to GPSI, by UDM's identifier translation (TS 29.503 clause 5.2.2.2.10), where the AAnF tells a SUPI alone.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use akma::{Gpsi, Supi};
use sbi::SbiError;
use sbi::nudm::NudmClient;

/// Asks UDM, and leaves it alone for a while after a failure: a handshake outside waits for the answer.
pub(crate) struct Translation {
    client: NudmClient,
    pause: Duration,
    resume_at: Mutex<Option<Instant>>,
}

impl Translation {
    pub(crate) fn new(client: NudmClient, pause: Duration) -> Self {
        Self { client, pause, resume_at: Mutex::default() }
    }

    /// The GPSI, if UDM says that there is one.
    pub(crate) async fn gpsi(&self, supi: &Supi) -> Option<Gpsi> {
        let resume_at = *self.resume_at.lock().unwrap_or_else(PoisonError::into_inner);
        if resume_at.is_some_and(|resume_at| Instant::now() < resume_at) {
            return None;
        }
        match self.client.id_translation(supi).await {
            // An answer about another subscription must not lend this one its number.
            Ok(Some(result)) if result.supi != *supi => {
                tracing::warn!("UDM translated another SUPI than the one asked about");
                None
            }
            Ok(result) => result.and_then(|result| result.gpsi),
            Err(error) => {
                tracing::warn!(%error, "UDM did not translate a SUPI");
                if !matches!(error, SbiError::Overloaded | SbiError::TimedOut) {
                    let resume_at = Instant::now().checked_add(self.pause);
                    *self.resume_at.lock().unwrap_or_else(PoisonError::into_inner) = resume_at;
                }
                None
            }
        }
    }
}
