//! Sends what waits in the [`Outbox`].
//!
//! ```text
//! wake ──► a task for each host with something waiting
//!          take some ──► POST ──► success, refusal, too late: settled
//!                             └─► nobody there, 429, 5xx: back in line; the host is left alone for a while,
//!                                 each time twice as long, or as long as its Retry-After says
//!          nothing left ──► the task ends
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sbi::naanf::{ServiceDisableNotif, notify_service_disabled};
use sbi::{SbiClient, SbiError};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::NotificationConfig;
use crate::error::AanfError;
use crate::metrics::Metrics;
use crate::outbox::{Notification, Outbox};

/// What sending takes.
pub(crate) struct Notifier {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) client: SbiClient,
    pub(crate) config: NotificationConfig,
    pub(crate) metrics: Metrics,
}

/// What became of one.
enum Fate {
    Settled,
    /// To be tried again, not before so many seconds if the peer said so.
    Again(Option<u32>),
}

impl Notifier {
    /// Sends until `shutdown`. What is on its way then is sent again after the next start.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.config.in_flight_max));
        let (this, hosts) = (Arc::new(self), TaskTracker::new());
        loop {
            for host in this.outbox.unattended() {
                let (this, slots, shutdown) = (Arc::clone(&this), Arc::clone(&slots), shutdown.clone());
                hosts.spawn(async move {
                    tokio::select! {
                        () = this.attend(&host, &slots) => {}
                        () = shutdown.cancelled() => {}
                    }
                });
            }
            tokio::select! {
                () = this.outbox.wake.notified() => {}
                () = shutdown.cancelled() => break,
            }
        }
        hosts.close();
        hosts.wait().await;
    }

    /// Sends what waits for one host until nothing does.
    async fn attend(&self, host: &str, slots: &Semaphore) {
        let shortest = Duration::from_millis(self.config.retry_initial_milliseconds);
        let longest = Duration::from_secs(self.config.retry_max_seconds);
        let mut pause = shortest;
        loop {
            let taken = self.outbox.take(host, AT_ONCE);
            if taken.is_empty() {
                return;
            }
            let fates = join_all(taken.iter().map(|number| self.send(*number, slots))).await;
            let mut asked = None;
            let mut again = false;
            for (number, fate) in taken.iter().zip(fates) {
                if let Fate::Again(retry_after) = fate {
                    self.outbox.put_back(host, *number);
                    asked = asked.max(retry_after);
                    again = true;
                }
            }
            self.metrics.notifications_pending(self.outbox.pending());
            if !again {
                pause = shortest;
                continue;
            }
            let asked = asked.map(|seconds| Duration::from_secs(seconds.into()));
            tokio::time::sleep(spread(pause.max(asked.unwrap_or_default()).min(longest))).await;
            pause = pause.saturating_mul(2).min(longest);
        }
    }

    async fn send(&self, number: u64, slots: &Semaphore) -> Fate {
        let Ok(_slot) = slots.acquire().await else { return Fate::Again(None) };
        let notification = match self.outbox.read(number) {
            Ok(Some(notification)) => notification,
            Ok(None) => return Fate::Settled,
            Err(error) => return self.stuck(&error),
        };
        let result = if notification.give_up_at <= OffsetDateTime::now_utc().unix_timestamp() {
            "expired"
        } else {
            match self.post(&notification).await {
                Ok(()) => "delivered",
                Err(error) if error.is_transient() => {
                    self.metrics.notified("postponed");
                    return Fate::Again(error.problem().and_then(|problem| problem.retry_after_seconds));
                }
                Err(_) => "refused",
            }
        };
        self.metrics.notified(result);
        tracing::info!(target: "security", a_kid = %notification.a_kid, host = notification.uri.host(), result,
            "AKMA service disable notification");
        match self.outbox.settle(number).await {
            Ok(()) => Fate::Settled,
            Err(error) => self.stuck(&error),
        }
    }

    async fn post(&self, notification: &Notification) -> Result<(), SbiError> {
        let body = ServiceDisableNotif { a_kid: notification.a_kid.clone() };
        let outcome = notify_service_disabled(&self.client, &notification.uri, &body).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, host = notification.uri.host(), "an AF was not notified");
        }
        outcome
    }

    /// The state cannot be read or written just now.
    fn stuck(&self, error: &AanfError) -> Fate {
        tracing::error!(%error, "a notification cannot be settled");
        Fate::Again(None)
    }
}

/// Half of the pause to all of it: those who fail together do not come back together.
fn spread(pause: Duration) -> Duration {
    let mut octet = [0];
    // Without randomness the pause is the whole one.
    let _ = openssl::rand::rand_bytes(&mut octet);
    let [octet] = octet;
    pause.saturating_sub(pause.mul_f64(f64::from(octet) / 512.0))
}

/// Notifications sent to one host at once.
const AT_ONCE: usize = 8;
