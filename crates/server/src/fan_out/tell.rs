//! Reports back to the originator of a message to many.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use message::{
    Address, AddressType, AggregatedReport, DeliveryStatusReport, FailureCause, INDIVIDUAL_REPORTS_MAX,
    IndividualReport, ReportDeliveryStatus,
};
use time::OffsetDateTime;
use tokio::time::sleep;

use super::job::{Job, Outcome, Tell};
use super::{OneAnswer, RETRY_PAUSE};
use crate::core::Core;
use crate::delivery::{Answer, Delivery};
use crate::registry::Party;

/// Reports of one job on their way to its originator at once.
const TELL_WINDOW: usize = 32;

/// Octets of JSON in one aggregated report, about: it is to fit a message whatever its recipient's limit
/// (`message_octets_max` of the client library) and leave room for others.
const REPORT_OCTETS: usize = 32 * 1024;

/// Octets of JSON that an individual report has beside its texts.
const INDIVIDUAL_OCTETS: usize = 128;

/// Tells what there is to tell, at once or a while from now.
pub(super) fn consider(core: &Arc<Core>, job: &Arc<Job>) {
    match job.when_to_tell() {
        Tell::Not => {}
        Tell::Now => {
            let (core, job) = (Arc::clone(core), Arc::clone(job));
            core.tasks.clone().spawn(async move { tell_until_stopped(&core, &job).await });
        }
        Tell::Later => later(core, job, core.limits.report_aggregation()),
    }
}

fn later(core: &Arc<Core>, job: &Arc<Job>, pause: Duration) {
    let (core, job) = (Arc::clone(core), Arc::clone(job));
    core.tasks.clone().spawn(async move {
        tokio::select! {
            () = sleep(pause) => {}
            () = core.stopped.cancelled() => return,
        }
        if job.time_to_tell() {
            tell_until_stopped(&core, &job).await;
        }
    });
}

async fn tell_until_stopped(core: &Arc<Core>, job: &Arc<Job>) {
    tokio::select! {
        () = tell(core, job) => {}
        () = core.stopped.cancelled() => {}
    }
}

/// One report: the members it is about, and its sender and coding.
struct Part {
    members: Vec<usize>,
    originator: Address,
    body: Bytes,
}

/// What came of it.
enum Told {
    /// The originator has it, or its inbox.
    Known,
    /// Nobody will ever.
    Lost(FailureCause),
    NotNow,
}

async fn tell(core: &Arc<Core>, job: &Arc<Job>) {
    let Some(party) = core.registry.find(&job.originator) else {
        let lost: Vec<_> = job.untold().into_iter().map(|(index, _)| index).collect();
        tracing::info!(job = %job.id, originator = %job.originator, count = lost.len(), "nobody left to report to");
        lost.iter().for_each(|_| core.metrics.report_lost());
        return ended(core, job, &lost, false);
    };
    let parts = match job.originator.addr_type {
        AddressType::As => single_reports(job),
        _ => aggregated_reports(job),
    };
    let mut too_large = HashSet::new();
    let mut all = tell_parts(core, job, &party, parts, &mut too_large).await;
    if !too_large.is_empty() {
        // A client may take less at once than most do.
        let singles =
            single_reports(job).into_iter().filter(|part| part.members.iter().all(|it| too_large.contains(it)));
        let singles = singles.collect();
        all &= tell_parts(core, job, &party, singles, &mut HashSet::new()).await;
    }
    ended(core, job, &[], !all);
}

/// Whether all of them reached somebody, or never will. `too_large` gets the members whose aggregate did not fit.
async fn tell_parts(
    core: &Arc<Core>,
    job: &Job,
    party: &Arc<Party>,
    parts: Vec<Part>,
    too_large: &mut HashSet<usize>,
) -> bool {
    let attempts = stream::iter(parts).map(|part| tell_part(core, job, party, part));
    let mut attempts = attempts.buffer_unordered(TELL_WINDOW);
    let mut all = true;
    while let Some((members, told)) = attempts.next().await {
        match told {
            Told::Known => job.told(&members),
            Told::Lost(FailureCause::PayloadTooLarge) if members.len() > 1 => too_large.extend(members),
            Told::Lost(cause) => {
                tracing::warn!(job = %job.id, originator = %job.originator, %cause, "reports lost");
                members.iter().for_each(|_| core.metrics.report_lost());
                job.told(&members);
            }
            Told::NotNow => all = false,
        }
    }
    all
}

fn ended(core: &Arc<Core>, job: &Arc<Job>, lost: &[usize], again_later: bool) {
    job.told(lost);
    job.telling_ended(again_later);
    if again_later {
        later(core, job, core.limits.report_aggregation().max(RETRY_PAUSE));
    }
    core.fan_out.ledger.note(job);
}

async fn tell_part(core: &Arc<Core>, job: &Job, party: &Arc<Party>, part: Part) -> (Vec<usize>, Told) {
    let (asker, answer) = OneAnswer::asker();
    let expires_at = OffsetDateTime::now_utc().saturating_add(core.expiry_default());
    core.deliver(party, Delivery::report(part.originator, job.message_id.clone(), part.body, expires_at, Some(asker)));
    let told = match answer.await {
        Ok(Answer::Delivered | Answer::Stored) => Told::Known,
        Ok(Answer::Failed(FailureCause::Overloaded | FailureCause::StorageFailed | FailureCause::Stopping)) => {
            Told::NotNow
        }
        // It has no room of its own, which may never change.
        Ok(Answer::Failed(FailureCause::TooMany)) if !job.is_closed() => Told::NotNow,
        Ok(Answer::Failed(cause)) => Told::Lost(cause),
        _ => Told::NotNow,
    };
    (part.members, told)
}

/// TS 29.538 has no aggregated report: an AS gets one from each member.
fn single_reports(job: &Job) -> Vec<Part> {
    let single = |(index, outcome): (usize, Outcome)| {
        let member = job.member(index)?.clone();
        let report = DeliveryStatusReport {
            originator: member.clone(),
            destination: job.originator.clone(),
            message_id: job.message_id.clone(),
            delivery_status: status(&outcome),
            failure_cause: outcome.cause,
        };
        Some(Part { members: vec![index], originator: member, body: Bytes::from(report.encode()) })
    };
    job.untold().into_iter().filter_map(single).collect()
}

fn aggregated_reports(job: &Job) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut members, mut reports, mut octets) = (Vec::new(), Vec::new(), 0);
    for (index, outcome) in job.untold() {
        let Some(member) = job.member(index) else { continue };
        let report = IndividualReport {
            originator: member.clone(),
            message_id: job.message_id.clone(),
            delivery_status: status(&outcome),
            failure_cause: outcome.cause,
        };
        let size = INDIVIDUAL_OCTETS
            + member.addr.as_str().len()
            + job.message_id.as_str().len()
            + report.failure_cause.as_ref().map_or(0, String::len);
        if octets + size > REPORT_OCTETS || reports.len() >= INDIVIDUAL_REPORTS_MAX {
            parts.push(aggregated(job, std::mem::take(&mut members), std::mem::take(&mut reports)));
            octets = 0;
        }
        octets += size;
        members.push(index);
        reports.push(report);
    }
    if !reports.is_empty() {
        parts.push(aggregated(job, members, reports));
    }
    parts
}

fn aggregated(job: &Job, members: Vec<usize>, reports: Vec<IndividualReport>) -> Part {
    let report = AggregatedReport { originator: job.target.clone(), destination: job.originator.clone(), reports };
    Part { members, originator: job.target.clone(), body: Bytes::from(report.encode()) }
}

fn status(outcome: &Outcome) -> ReportDeliveryStatus {
    if outcome.success { ReportDeliveryStatus::Success } else { ReportDeliveryStatus::Failed }
}
