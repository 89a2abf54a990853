//! What became of members, on its way to disk: what gathers for one job while the disk is busy goes in one write.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use store::StoreError;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::job::{Job, ToSave};
use super::{RETRY_PAUSE, tell};
use crate::core::Core;
use crate::sync::lock;

/// Jobs written at once.
const SAVES_MAX: usize = 64;

/// Jobs with something to write. Bounded: each is in it once, and there are no more than the store takes.
#[derive(Default)]
pub(super) struct Ledger {
    jobs: Mutex<VecDeque<Arc<Job>>>,
    wake: Notify,
}

impl Ledger {
    /// Says that there may be something to write for this job, or that it may be over.
    pub(super) fn note(&self, job: &Arc<Job>) {
        if job.note() {
            lock(&self.jobs).push_back(Arc::clone(job));
            self.wake.notify_one();
        }
    }

    fn next(&self) -> Option<Arc<Job>> {
        lock(&self.jobs).pop_front()
    }
}

/// Writes until the server has stopped.
pub(super) async fn run(core: Arc<Core>) {
    let ledger = &core.fan_out.ledger;
    let mut saves = FuturesUnordered::new();
    loop {
        while saves.len() < SAVES_MAX
            && let Some(job) = ledger.next()
        {
            saves.push(save(&core, job));
        }
        tokio::select! {
            Some(()) = saves.next(), if !saves.is_empty() => {}
            () = ledger.wake.notified() => {}
            () = core.stopped.cancelled() => return,
        }
    }
}

/// One at a time for each job: it is noted anew only when this has found nothing more.
async fn save(core: &Arc<Core>, job: Arc<Job>) {
    loop {
        match job.to_save() {
            ToSave::Nothing => return tell::consider(core, &job),
            ToSave::Progress(progress, waiters) => {
                let saved = match progress.is_empty() {
                    true => Ok(()),
                    false => core.store.job_progress(job.id, progress.clone()).await,
                };
                let durable = match saved {
                    Ok(()) => true,
                    Err(StoreError::UnknownJob) => {
                        tracing::error!(job = %job.id, "job is not on disk any more");
                        true
                    }
                    Err(error) => {
                        tracing::error!(job = %job.id, %error, "progress of a message to many not stored");
                        false
                    }
                };
                if durable {
                    job.saved(&progress);
                } else {
                    job.not_saved(progress);
                }
                for waiter in waiters {
                    waiter.tell(core, durable);
                }
                if !durable {
                    sleep(RETRY_PAUSE).await;
                }
            }
            ToSave::Removal(waiters) => {
                core.fan_out.close(&job);
                while let Err(error) = core.store.remove_job(job.id).await {
                    tracing::error!(job = %job.id, %error, "finished message to many not removed from disk");
                    sleep(RETRY_PAUSE).await;
                }
                tracing::debug!(job = %job.id, "message to many is done");
                // Whoever reported again was taken at its word before.
                for waiter in waiters {
                    waiter.tell(core, true);
                }
                return;
            }
        }
    }
}
