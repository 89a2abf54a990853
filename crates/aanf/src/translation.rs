//! SUPI to GPSI, by UDM's identifier translation (TS 29.503 clause 5.2.2.2.10, `id-translation-result`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use akma::Supi;
use sbi::SbiError;
use sbi::nudm::NudmClient;

use crate::contexts::GpsiState;

/// Asks UDM, and leaves it alone for a while after a failure: an AF's handshake waits for the answer.
pub(crate) struct Translation {
    client: NudmClient,
    pause: Duration,
    resume_at: Mutex<Option<Instant>>,
}

impl Translation {
    pub(crate) fn new(client: NudmClient, pause: Duration) -> Self {
        Self { client, pause, resume_at: Mutex::default() }
    }

    /// What UDM says; [`GpsiState::NotAsked`] when it says nothing.
    pub(crate) async fn translate(&self, supi: &Supi) -> GpsiState {
        if self.is_paused() {
            return GpsiState::NotAsked;
        }
        match self.client.id_translation(supi).await {
            // An answer about another subscription must not lend this one its number.
            Ok(Some(result)) if result.supi != *supi => {
                tracing::warn!("UDM translated another SUPI than the one asked about");
                GpsiState::NotAsked
            }
            Ok(Some(result)) => result.gpsi.map_or(GpsiState::None, GpsiState::Known),
            Ok(None) => GpsiState::None,
            Err(error) => {
                tracing::warn!(%error, "UDM did not translate a SUPI");
                if is_of_our_own(&error) {
                    return GpsiState::NotAsked;
                }
                *self.resume_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now().checked_add(self.pause);
                GpsiState::NotAsked
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.resume_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|resume_at| Instant::now() < resume_at)
    }
}

/// Whether the failure is of one request of ours, and tells nothing about UDM: a pause would take the next one's GPSI away
/// from AFs for our own haste.
fn is_of_our_own(error: &SbiError) -> bool {
    matches!(error, SbiError::Overloaded | SbiError::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_udm_did_pauses_the_translation() {
        assert!(is_of_our_own(&SbiError::Overloaded) && is_of_our_own(&SbiError::TimedOut));
        assert!(!is_of_our_own(&SbiError::Unreachable("refused".to_owned())));
        assert!(!is_of_our_own(&SbiError::Malformed("no JSON".to_owned())));
    }
}
