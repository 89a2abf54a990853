//! Sends what others are to know: each on its own, three times at most, and never more at once than configured.

use std::sync::Arc;
use std::time::Duration;

use sbi::{SbiClient, SbiError};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use transport::LogThrottle;

/// Sends notifications.
pub(crate) struct Notifier {
    /// Shows the certificate of a network function.
    client: SbiClient,
    /// Shows the core function's certificate of its own authority, which AEFs trust already.
    to_aefs: SbiClient,
    slots: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Notifier {
    pub(crate) fn new(client: SbiClient, to_aefs: SbiClient, max: usize, shutdown: CancellationToken) -> Self {
        Self { client, to_aefs, slots: Arc::new(Semaphore::new(max)), shutdown }
    }

    /// Sends `body` to `uri` in the background. At the limit it is dropped: whoever relies on a notification alone relies on
    /// too much, which is why AEFs ask again.
    pub(crate) fn send<T: Serialize>(&self, uri: String, body: &T) {
        self.send_by(&self.client, uri, body);
    }

    /// The same, to an API exposing function.
    pub(crate) fn send_to_aef<T: Serialize>(&self, uri: String, body: &T) {
        self.send_by(&self.to_aefs, uri, body);
    }

    fn send_by<T: Serialize>(&self, client: &SbiClient, uri: String, body: &T) {
        let Ok(body) = serde_json::to_value(body) else { return };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            if let Some(unlogged) = DROPPED.admit() {
                tracing::warn!(target: "security", unlogged, "too many notifications under way, one is dropped");
            }
            return;
        };
        let (client, shutdown) = (client.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = deliver(&client, &uri, &body) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
}

async fn deliver(client: &SbiClient, uri: &str, body: &serde_json::Value) {
    for pause in PAUSES {
        match client.post_any(uri, body).await {
            Ok(_) => return,
            Err(error @ (SbiError::Problem(_) | SbiError::InvalidUri)) if !error.is_transient() => {
                tracing::info!(target: "security", %error, "a notification was refused");
                return;
            }
            Err(error) => tracing::debug!(%error, "a notification was not delivered"),
        }
        tokio::time::sleep(pause).await;
    }
    if let Some(unlogged) = UNDELIVERED.admit() {
        tracing::warn!(target: "security", unlogged, "a notification could not be delivered");
    }
}

static DROPPED: LogThrottle = LogThrottle::new();
static UNDELIVERED: LogThrottle = LogThrottle::new();

/// After each try; so many tries there are.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::ZERO];
