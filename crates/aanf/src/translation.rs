//! SUPI to GPSI, by UDM's identifier translation (TS 29.503 clause 5.2.2.2.10, `id-translation-result`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use akma::Supi;
use http::StatusCode;
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

    /// What UDM says; [`GpsiState::NotAsked`] when it says nothing, [`RefusedForGood`] when it will not say it, or the NRF gives no
    /// token to ask with.
    pub(crate) async fn translate(&self, supi: &Supi) -> Result<GpsiState, RefusedForGood> {
        if self.is_paused() {
            return Ok(GpsiState::NotAsked);
        }
        self.ask(supi).await
    }

    async fn ask(&self, supi: &Supi) -> Result<GpsiState, RefusedForGood> {
        match self.client.id_translation(supi).await {
            // An answer about another subscription must not lend this one its number.
            Ok(Some(result)) if result.supi != *supi => {
                tracing::warn!("UDM translated another SUPI than the one asked about");
                Ok(GpsiState::NotAsked)
            }
            Ok(Some(result)) => Ok(result.gpsi.map_or(GpsiState::None, GpsiState::Known)),
            Ok(None) => Ok(GpsiState::None),
            Err(error) if is_for_good(&error) => {
                tracing::error!(%error, "UDM refuses to translate a SUPI, and will again");
                Err(RefusedForGood)
            }
            Err(error) => {
                tracing::warn!(%error, "UDM did not translate a SUPI");
                if !is_of_our_own(&error) {
                    *self.resume_at.lock().unwrap_or_else(PoisonError::into_inner) =
                        Instant::now().checked_add(self.pause);
                }
                Ok(GpsiState::NotAsked)
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

/// UDM refuses, or the NRF does for it: the same question gets the same answer until an operator changes something. Nothing is kept
/// of it, and others' questions go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefusedForGood;

/// A 4xx that is no haste of ours, or a token that is refused to us.
fn is_for_good(error: &SbiError) -> bool {
    match error {
        SbiError::Problem(problem) => {
            let status = problem.status_code();
            status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT && status != StatusCode::TOO_MANY_REQUESTS
        }
        SbiError::NrfRefused { transient, .. } => !transient,
        _ => false,
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
    fn a_refusal_is_for_good_where_asking_again_is_of_no_use() {
        let problem = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            SbiError::Problem(Box::new(sbi::ProblemDetails::new(status)))
        };
        for status in [400, 401, 403, 410] {
            assert!(is_for_good(&problem(status)), "{status}");
        }
        for status in [408, 429, 500, 503, 504] {
            assert!(!is_for_good(&problem(status)), "{status}");
        }
        let nrf = |transient| SbiError::NrfRefused { reason: "invalid_scope".to_owned(), transient };
        assert!(is_for_good(&nrf(false)) && !is_for_good(&nrf(true)));
        assert!(!is_for_good(&SbiError::TimedOut));
    }

    #[test]
    fn only_what_udm_did_pauses_the_translation() {
        assert!(is_of_our_own(&SbiError::Overloaded) && is_of_our_own(&SbiError::TimedOut));
        assert!(!is_of_our_own(&SbiError::Unreachable("refused".to_owned())));
        assert!(!is_of_our_own(&SbiError::Malformed("no JSON".to_owned())));
    }
}
