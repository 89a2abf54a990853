//! From a job to the pipelines of its members.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use message::{FailureCause, Message};
use time::OffsetDateTime;
use tokio::task::yield_now;

use super::job::{Copies, Job, Way, Windows};
use crate::core::Core;
use crate::delivery::{Answer, Asker, Collector, Delivery};
use crate::registry::Party;
use crate::sync::lock;

/// How long a worker waits for the disk, or for memory, when as many copies are without an answer as a window has room for.
/// It then goes on as if those had answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// Copies handed over before other tasks have a turn.
const AT_ONCE: usize = 64;

/// Hands over every copy that waits, but those that have to stay in line. Nobody waits for a member's acknowledgement: what
/// a member does not acknowledge waits in its own queue, and then on disk or in line.
pub(super) async fn hand_over(core: &Arc<Core>, job: &Arc<Job>) {
    job.copies_begin();
    let collector: Arc<dyn Collector> = Arc::new(Copies(Arc::clone(job)));
    let windows = Windows::of(&core.limits, job);
    let (mut cursor, mut handed_over) = (0, 0_usize);
    // A server that stops leaves the rest on disk.
    while !core.stopping.is_cancelled()
        && let Some(index) = job.next_waiting(&mut cursor)
    {
        let there = job.member(index).and_then(|member| core.registry.find(member)).is_some_and(|it| is_there(&it));
        if job.may_wait() {
            if core.fan_out.lines.join(job, index) {
                continue;
            }
        } else if core.fan_out.lines.holds_up(job, index) {
            // It may neither overtake nor wait.
            job.fail(core, index, if there { FailureCause::TooMany } else { FailureCause::TargetUnreachable });
            continue;
        }
        let Some(message) = job.begin(index, if there { Way::There } else { Way::Away }) else { continue };
        hand_over_one(core, job, &message, index, Asker::Part(Arc::clone(&collector), index));
        handed_over += 1;
        if handed_over.is_multiple_of(AT_ONCE) {
            yield_now().await;
        }
        job.room(windows, PATIENCE).await;
    }
}

fn is_there(party: &Party) -> bool {
    lock(&party.state).carrier.is_some()
}

/// Hands over the copy for one member, or answers it.
pub(super) fn hand_over_one(core: &Arc<Core>, job: &Job, message: &Message, index: usize, asker: Asker) {
    let refuse = |asker, cause| core.answer(Some(asker), Answer::Failed(cause));
    let Some(member) = job.member(index) else { return };
    if job.is_expired(OffsetDateTime::now_utc()) {
        return refuse(asker, FailureCause::Expired);
    }
    let Some(party) = core.registry.find(member) else { return refuse(asker, FailureCause::UnknownTarget) };
    if core.too_large_for(&party, message.payload.len()) {
        return refuse(asker, FailureCause::PayloadTooLarge);
    }
    let copy = Message { recipient: Some(member.clone()), ..message.clone() };
    let body = Bytes::from(copy.encode());
    let mut delivery = Delivery::message(&copy, body, Some(asker));
    delivery.count_from(&copy, job.accepted_at);
    core.deliver(&party, delivery);
}
