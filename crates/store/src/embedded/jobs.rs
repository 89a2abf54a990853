//! Fan-out jobs.

use std::ops::Bound;
use std::sync::PoisonError;

use super::{Answer, Inner, Tables, settled_by};
use crate::StoreError;
use crate::accounting::ArrivingJob;
use crate::database::{Batch, VALUE_OCTETS_MAX};
use crate::fan_out::{self, FanOutJob, JobId, MemberState, NewFanOutJob};
use crate::keys;

use crate::writer::Durability;

impl Inner {
    /// Gives the job its number and hands it to the writer.
    pub(super) fn accept_job(&self, job: &NewFanOutJob) -> Result<(JobId, Answer), StoreError> {
        let limits = &self.limits;
        if job.body.len() > limits.body_octets_max || job.members.len() > limits.members_per_job_max {
            return Err(StoreError::TooLarge);
        }
        let value = fan_out::encode_job(job)?;
        if value.len() > limits.job_octets_max.min(VALUE_OCTETS_MAX) {
            return Err(StoreError::TooLarge);
        }
        let members = u32::try_from(job.members.len()).map_err(|_| StoreError::TooLarge)?;
        let originator_key = keys::address_key(&job.originator)?.into();
        let (batch, deduplication) = self.with_deduplication(Batch::new(), job.deduplication.as_ref())?;

        let mut next_sequence = self.acceptance.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = *next_sequence;
        let octets = value.len();
        let arriving = ArrivingJob { sequence, originator_key, members, octets, deduplication };
        let arrival = self.accounting.arrive_job(arriving)?;
        let following = sequence + 1;
        let batch = batch.put(&self.tables.jobs, sequence.to_be_bytes(), value).put_last_of_group(
            &self.tables.meta,
            keys::META_NEXT_SEQUENCE,
            &following.to_be_bytes(),
        );
        let (completion, answer) = settled_by(move |is_written| {
            if is_written {
                arrival.stored()
            }
        });
        self.database.submit(batch, Durability::Synced, completion)?;
        *next_sequence = following;
        Ok((JobId::new(sequence), answer))
    }

    pub(super) async fn job_progress(&self, id: JobId, states: Vec<(u32, MemberState)>) -> Result<(), StoreError> {
        let members = self.accounting.members_of_job(id.sequence()).ok_or(StoreError::UnknownJob)?;
        let mut batch = Batch::new();
        for (member, state) in &states {
            if *member >= members {
                return Err(StoreError::UnknownJob);
            }
            let key = keys::job_member_key(id.sequence(), *member);
            batch = batch.put(&self.tables.job_members, key, fan_out::encode_state(state));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let (completion, answer) = settled_by(|_| ());
        self.database.submit_waiting(batch, Durability::Synced, completion).await?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))
    }

    pub(super) async fn jobs(&self, after: Option<JobId>, limit: usize) -> Result<Vec<FanOutJob>, StoreError> {
        let tables = self.tables.clone();
        let reading = tokio::task::spawn_blocking(move || tables.jobs_after(after, limit));
        reading.await.unwrap_or_else(|error| Err(StoreError::ReadFailed { reason: error.to_string().into() }))
    }

    pub(super) async fn remove_job(&self, id: JobId) -> Result<(), StoreError> {
        let Some((removal, members)) = self.accounting.claim_job(id.sequence()) else { return Ok(()) };
        // Without looking which states there are: progress still in the queue is written before this.
        let states = (0..members).map(|member| keys::job_member_key(id.sequence(), member));
        let batch = states.fold(Batch::new(), |batch, key| batch.delete(&self.tables.job_members, key));
        let batch = batch.delete(&self.tables.jobs, id.sequence().to_be_bytes());
        let (completion, answer) = settled_by(move |is_written| {
            if is_written {
                removal.removed()
            }
        });
        self.database.submit_waiting(batch, Durability::Synced, completion).await?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))
    }

    /// Takes up what is on disk.
    pub(super) fn recover_jobs(&self) -> Result<(), StoreError> {
        let mut next_sequence = self.acceptance.lock().unwrap_or_else(PoisonError::into_inner);
        for pair in self.tables.jobs.range(Bound::Unbounded, Bound::Unbounded) {
            let (key, value) = pair?;
            let id = id_of(&key)?;
            // What does not decode is counted all the same; reading it is the error.
            let (originator_key, members) = match fan_out::decode_job(id, &value) {
                Ok(job) => (keys::address_key(&job.originator)?, job.members.len()),
                Err(_) => (Vec::new(), 0),
            };
            let members = u32::try_from(members).map_err(|_| StoreError::TooLarge)?;
            self.accounting.recover_job(id.sequence(), &originator_key, members, value.len());
            *next_sequence = (*next_sequence).max(id.sequence() + 1);
        }
        Ok(())
    }
}

impl Tables {
    pub(super) fn job(&self, id: JobId) -> Result<Option<FanOutJob>, StoreError> {
        let value = self.jobs.value(&id.sequence().to_be_bytes())?;
        value.map(|value| self.with_states(fan_out::decode_job(id, &value)?)).transpose()
    }

    fn jobs_after(&self, after: Option<JobId>, limit: usize) -> Result<Vec<FanOutJob>, StoreError> {
        let after = after.map(|after| after.sequence().to_be_bytes());
        let start = after.as_ref().map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_slice()));
        let mut octets = 0;
        let mut found = Vec::new();
        for pair in self.jobs.range(start, Bound::Unbounded).take(limit) {
            let (key, value) = pair?;
            octets += value.len();
            if octets > PAGE_OCTETS && !found.is_empty() {
                break;
            }
            found.push(self.with_states(fan_out::decode_job(id_of(&key)?, &value)?)?);
        }
        Ok(found)
    }

    fn with_states(&self, mut job: FanOutJob) -> Result<FanOutJob, StoreError> {
        let first = keys::job_member_key(job.id.sequence(), 0);
        let last = keys::job_member_key(job.id.sequence(), u32::MAX);
        for pair in self.job_members.range(Bound::Included(&first), Bound::Included(&last)) {
            let (key, value) = pair?;
            let member = usize::try_from(keys::member_of(&key)?).unwrap_or(usize::MAX);
            let state = job.states.get_mut(member);
            let state = state.ok_or(StoreError::Corrupt { table: keys::JOB_MEMBERS, reason: "no such member" })?;
            *state = fan_out::decode_state(&value)?;
        }
        Ok(job)
    }
}

fn id_of(key: &[u8]) -> Result<JobId, StoreError> {
    let sequence = key.try_into().map(u64::from_be_bytes);
    sequence.map(JobId::new).map_err(|_| StoreError::Corrupt { table: keys::JOBS, reason: "the key is not a job's" })
}

/// A page of jobs ends before it has more octets than this, unless it is one job.
const PAGE_OCTETS: usize = 8 * 1024 * 1024;
