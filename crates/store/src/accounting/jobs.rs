//! Counts of fan-out jobs.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Accounting, ArrivingRecord, Index, State};
use crate::StoreError;
use crate::metrics::{StoreMetrics, gauge_value};

#[derive(Default)]
pub(super) struct Jobs {
    entries: HashMap<u64, Entry>,
    bytes: u64,
}

struct Entry {
    originator_key: Box<[u8]>,
    members: u32,
    octets: u64,
    /// A removal under way has claimed it.
    removing: bool,
}

/// A job about to be stored.
pub(crate) struct ArrivingJob {
    pub(crate) sequence: u64,
    pub(crate) originator_key: Box<[u8]>,
    pub(crate) members: u32,
    pub(crate) octets: usize,
    pub(crate) deduplication: Option<ArrivingRecord>,
}

impl Accounting {
    /// Takes up a job found on disk at start-up.
    pub(crate) fn recover_job(&self, sequence: u64, originator_key: &[u8], members: u32, octets: usize) {
        self.state().enter_job(sequence, originator_key, members, octets as u64);
    }

    /// Counts a job in, or says which limit it meets.
    pub(crate) fn arrive_job(self: &Arc<Self>, job: ArrivingJob) -> Result<JobArrival, StoreError> {
        let mut state = self.state();
        let limits = &self.limits;
        let octets = job.octets as u64;
        let of_originator = state.originators.get(&job.originator_key).map_or(0, |found| found.jobs);
        if of_originator >= limits.jobs_per_originator_max {
            return Err(StoreError::OriginatorFull { limit: "jobs_per_originator_max" });
        }
        if state.jobs.entries.len() as u64 >= limits.jobs_max {
            return Err(StoreError::Full { limit: "jobs_max" });
        }
        if state.jobs.bytes.saturating_add(octets) > limits.job_bytes_max {
            return Err(StoreError::Full { limit: "job_bytes_max" });
        }
        state.check_deduplication(limits, job.deduplication.as_ref())?;
        state.enter_job(job.sequence, &job.originator_key, job.members, octets);
        state.enter_deduplication(job.deduplication.as_ref());
        state.publish(&self.metrics);
        state.publish_jobs(&self.metrics);
        let (sequence, deduplication) = (job.sequence, job.deduplication);
        Ok(JobArrival { accounting: self.clone(), sequence, deduplication, stored: false })
    }

    /// How many members the job has, if it is there and not being removed.
    pub(crate) fn members_of_job(&self, sequence: u64) -> Option<u32> {
        let state = self.state();
        state.jobs.entries.get(&sequence).filter(|entry| !entry.removing).map(|entry| entry.members)
    }

    /// Claims the job, if no other removal has. With it the number of its members.
    pub(crate) fn claim_job(self: &Arc<Self>, sequence: u64) -> Option<(JobRemoval, u32)> {
        let mut state = self.state();
        let entry = state.jobs.entries.get_mut(&sequence).filter(|entry| !entry.removing)?;
        entry.removing = true;
        Some((JobRemoval { accounting: self.clone(), sequence }, entry.members))
    }
}

impl State {
    fn enter_job(&mut self, sequence: u64, originator_key: &[u8], members: u32, octets: u64) {
        let entry = Entry { originator_key: originator_key.into(), members, octets, removing: false };
        self.jobs.entries.insert(sequence, entry);
        self.jobs.bytes += octets;
        self.originator_mut(originator_key).jobs += 1;
    }

    fn leave_job(&mut self, sequence: u64) {
        if let Some(entry) = self.jobs.entries.remove(&sequence) {
            self.jobs.bytes = self.jobs.bytes.saturating_sub(entry.octets);
            self.forget_originator(&entry.originator_key, |found| found.jobs = found.jobs.saturating_sub(1));
        }
    }

    pub(super) fn publish_jobs(&self, metrics: &StoreMetrics) {
        metrics.jobs.set(gauge_value(self.jobs.entries.len() as u64));
        metrics.job_bytes.set(gauge_value(self.jobs.bytes));
    }
}

/// A job counted in. Dropped before [`JobArrival::stored`], it is counted out again.
pub(crate) struct JobArrival {
    accounting: Arc<Accounting>,
    sequence: u64,
    deduplication: Option<ArrivingRecord>,
    stored: bool,
}

impl JobArrival {
    /// The job is on disk and readable.
    pub(crate) fn stored(mut self) {
        self.stored = true;
    }
}

impl Drop for JobArrival {
    fn drop(&mut self) {
        let mut state = self.accounting.state();
        state.settle_expiry(Index::Deduplication, self.deduplication.as_ref().map(|record| record.expires_us));
        if !self.stored {
            state.leave_job(self.sequence);
            if let Some(record) = &self.deduplication {
                state.forget_deduplication_record(&record.originator_key);
            }
            state.publish(&self.accounting.metrics);
            state.publish_jobs(&self.accounting.metrics);
        }
    }
}

/// A job claimed for removal. Dropped before [`JobRemoval::removed`], the claim is given up.
pub(crate) struct JobRemoval {
    accounting: Arc<Accounting>,
    sequence: u64,
}

impl JobRemoval {
    /// The batch is written.
    pub(crate) fn removed(self) {
        let mut state = self.accounting.state();
        state.leave_job(self.sequence);
        state.publish_jobs(&self.accounting.metrics);
    }
}

impl Drop for JobRemoval {
    fn drop(&mut self) {
        if let Some(entry) = self.accounting.state().jobs.entries.get_mut(&self.sequence) {
            entry.removing = false;
        }
    }
}
