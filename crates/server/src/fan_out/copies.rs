//! From a job to the pipelines of its members.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use message::{FailureCause, Message};
use time::OffsetDateTime;
use tokio::task::yield_now;

use super::job::{Copies, Job};
use crate::core::Core;
use crate::delivery::{Answer, Asker, Collector, Delivery};

/// How long a worker waits for answers when as many copies are without one as the window has room for. It then goes on as
/// if those had answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// Hands over every copy that waits. Those that come back for want of room are queued by the job.
pub(super) async fn hand_over(core: &Arc<Core>, job: &Arc<Job>) {
    job.copies_begin();
    let collector: Arc<dyn Collector> = Arc::new(Copies(Arc::clone(job)));
    let mut cursor = 0;
    let window = core.limits.fan_out_window;
    // A server that stops leaves the rest on disk.
    while !core.stopping.is_cancelled()
        && let Some((message, indexes)) = job.next_copies(&mut cursor, window)
    {
        for index in indexes {
            hand_over_one(core, job, &message, index, &collector);
        }
        if !job.has_more(cursor) {
            return;
        }
        // All of them may have been answered at once.
        yield_now().await;
        job.room(window / 2, PATIENCE).await;
    }
}

fn hand_over_one(core: &Arc<Core>, job: &Job, message: &Message, index: usize, collector: &Arc<dyn Collector>) {
    let refuse = |cause| collector.ended(core, index, Answer::Failed(cause));
    let Some(member) = job.member(index) else { return };
    if job.is_expired(OffsetDateTime::now_utc()) {
        return refuse(FailureCause::Expired);
    }
    let Some(party) = core.registry.find(member) else { return refuse(FailureCause::UnknownTarget) };
    if core.too_large_for(&party, message.payload.len()) {
        return refuse(FailureCause::PayloadTooLarge);
    }
    let copy = Message { recipient: Some(member.clone()), ..message.clone() };
    let body = Bytes::from(copy.encode());
    core.deliver(&party, Delivery::message(&copy, body, Some(Asker::Part(Arc::clone(collector), index))));
}
