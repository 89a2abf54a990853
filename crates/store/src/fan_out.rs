//! Fan-out jobs: one message to many recipients (TS 23.554 clauses 8.7.4 and 8.8), and how far it got with each.
//!
//! A job is written once, when its message is accepted; what becomes of each member is written beside it, a few octets
//! each time, so that progress costs the same for a group of ten and of ten thousand.

use std::fmt;

use message::{Address, MessageId, Priority};
use time::OffsetDateTime;

use crate::StoreError;
use crate::keys::{self, PRIORITIES};
use crate::record::{self, DeduplicationRecord};

/// Names a fan-out job. Ascends in the order of acceptance, which it shares with stored messages
/// ([`crate::Position::sequence`]); none is used twice, restarts included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

impl JobId {
    pub(crate) fn new(sequence: u64) -> Self {
        Self(sequence)
    }

    /// The acceptance number.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A message to be copied to many.
#[derive(Clone)]
pub struct NewFanOutJob {
    /// The group, topic or whatever else stands for the members.
    pub target: Address,
    /// Who sent the message, and on whose account the job is kept ([`crate::StoreLimits::jobs_per_originator_max`]).
    pub originator: Address,
    /// The originator's name for the message.
    pub message_id: MessageId,
    /// The message as the caller codes it, at most [`crate::StoreLimits::body_octets_max`].
    pub body: Vec<u8>,
    /// Who is to get a copy, at most [`crate::StoreLimits::members_per_job_max`]. A member's number is its place here.
    pub members: Vec<Address>,
    /// When copies not yet handed over are to be given up; kept to the microsecond, rounded down.
    pub expires_at: Option<OffsetDateTime>,
    /// The originator wants to know what became of each copy.
    pub report_wanted: bool,
    /// Copies may wait on disk for members that are away.
    pub storable: bool,
    /// The priority of each copy.
    pub priority: Priority,
    /// Made durable together with the job.
    pub deduplication: Option<DeduplicationRecord>,
}

impl fmt::Debug for NewFanOutJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NewFanOutJob")
            .field("target", &self.target)
            .field("originator", &self.originator)
            .field("message_id", &self.message_id)
            .field("body_octets", &self.body.len())
            .field("members", &self.members.len())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A job as it stands: [`NewFanOutJob`], and what became of each member.
#[derive(Clone, PartialEq, Eq)]
pub struct FanOutJob {
    /// Its name.
    pub id: JobId,
    /// As in [`NewFanOutJob`].
    pub target: Address,
    /// As in [`NewFanOutJob`].
    pub originator: Address,
    /// As in [`NewFanOutJob`].
    pub message_id: MessageId,
    /// As in [`NewFanOutJob`].
    pub body: Vec<u8>,
    /// As in [`NewFanOutJob`].
    pub members: Vec<Address>,
    /// Of each member, in the same order and number as `members`.
    pub states: Vec<MemberState>,
    /// As in [`NewFanOutJob`].
    pub expires_at: Option<OffsetDateTime>,
    /// As in [`NewFanOutJob`].
    pub report_wanted: bool,
    /// As in [`NewFanOutJob`].
    pub storable: bool,
    /// As in [`NewFanOutJob`].
    pub priority: Priority,
}

impl fmt::Debug for FanOutJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FanOutJob")
            .field("id", &self.id)
            .field("target", &self.target)
            .field("originator", &self.originator)
            .field("message_id", &self.message_id)
            .field("body_octets", &self.body.len())
            .field("members", &self.members.len())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What is known of one member's copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Nothing: the copy is to be handed over, again after a restart.
    #[default]
    Waiting,
    /// The copy was delivered, or waits in the member's own queue on disk; what follows is the member's report.
    HandedOver,
    /// What became of the copy is known and not yet told to the originator: the member's report (TS 23.554 clause
    /// 8.3.5), or that the copy could not be handed over.
    Reported {
        /// It was delivered.
        success: bool,
        /// Why not. The first [`MEMBER_CAUSE_OCTETS_MAX`] octets are kept.
        cause: Option<String>,
    },
    /// The originator was told, or did not want to be: nothing is left to do for this member.
    Settled,
}

/// The longest cause kept of a member, in octets; what is longer is cut between characters.
pub const MEMBER_CAUSE_OCTETS_MAX: usize = 255;

/// `coding | flags | priority | expiry (8) | target | originator | length (1), Message ID | number of members (4) |
/// members | body`.
pub(crate) fn encode_job(job: &NewFanOutJob) -> Result<Vec<u8>, StoreError> {
    let mut value = Vec::with_capacity(JOB_HEAD_OCTETS + 2 * ADDRESS_OCTETS + job.body.len());
    let flags = u8::from(job.report_wanted) | u8::from(job.storable) << 1;
    value.extend_from_slice(&[CODING_1, flags, keys::priority_octet(job.priority)]);
    value.extend_from_slice(&job.expires_at.map_or(record::NEVER_US, record::microseconds).to_be_bytes());
    value.extend_from_slice(&keys::address_key(&job.target)?);
    value.extend_from_slice(&keys::address_key(&job.originator)?);
    let message_id = job.message_id.as_str().as_bytes();
    value.push(u8::try_from(message_id.len()).map_err(|_| StoreError::TooLarge)?);
    value.extend_from_slice(message_id);
    let members = u32::try_from(job.members.len()).map_err(|_| StoreError::TooLarge)?;
    value.extend_from_slice(&members.to_be_bytes());
    for member in &job.members {
        value.extend_from_slice(&keys::address_key(member)?);
    }
    value.extend_from_slice(&job.body);
    Ok(value)
}

/// Reads back the job, every member waiting.
pub(crate) fn decode_job(id: JobId, value: &[u8]) -> Result<FanOutJob, StoreError> {
    let corrupt = |reason| StoreError::Corrupt { table: keys::JOBS, reason };
    let (head, rest) = value.split_first_chunk::<3>().ok_or(corrupt("too short"))?;
    let [CODING_1, flags, priority] = *head else { return Err(corrupt("unknown coding")) };
    let priority = PRIORITIES.into_iter().find(|known| keys::priority_octet(*known) == priority);
    let priority = priority.ok_or(corrupt("unknown priority"))?;
    let (expires, rest) = rest.split_first_chunk().ok_or(corrupt("too short"))?;
    let expires_us = u64::from_be_bytes(*expires);
    let (target, rest) = keys::split_address(keys::JOBS, rest)?;
    let (originator, rest) = keys::split_address(keys::JOBS, rest)?;
    let (length, rest) = rest.split_first().ok_or(corrupt("no Message ID"))?;
    let (message_id, rest) = rest.split_at_checked(usize::from(*length)).ok_or(corrupt("no Message ID"))?;
    let message_id = std::str::from_utf8(message_id).ok().and_then(|id| id.parse().ok());
    let (count, mut rest) = rest.split_first_chunk().ok_or(corrupt("no members"))?;
    // Grows with what is there, not with what the number says.
    let mut members = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (member, after) = keys::split_address(keys::JOBS, rest)?;
        members.push(member);
        rest = after;
    }
    Ok(FanOutJob {
        id,
        target,
        originator,
        message_id: message_id.ok_or(corrupt("no Message ID"))?,
        body: rest.to_vec(),
        states: vec![MemberState::Waiting; members.len()],
        members,
        expires_at: (expires_us != record::NEVER_US).then(|| record::from_microseconds(expires_us)),
        report_wanted: flags & 1 != 0,
        storable: flags & 2 != 0,
        priority,
    })
}

/// One octet, and the cause.
pub(crate) fn encode_state(state: &MemberState) -> Vec<u8> {
    let octet = match state {
        MemberState::Waiting => STATE_WAITING,
        MemberState::HandedOver => STATE_HANDED_OVER,
        MemberState::Reported { success: true, .. } => STATE_SUCCESS,
        MemberState::Reported { success: false, .. } => STATE_FAILED,
        MemberState::Settled => STATE_SETTLED,
    };
    let cause = match state {
        MemberState::Reported { cause: Some(cause), .. } => cause.as_str(),
        _ => "",
    };
    let kept = cause.floor_char_boundary(MEMBER_CAUSE_OCTETS_MAX);
    [&[octet], cause.as_bytes().get(..kept).unwrap_or_default()].concat()
}

pub(crate) fn decode_state(value: &[u8]) -> Result<MemberState, StoreError> {
    let corrupt = |reason| StoreError::Corrupt { table: keys::JOB_MEMBERS, reason };
    let (octet, cause) = value.split_first().ok_or(corrupt("empty"))?;
    let reported = |success| {
        let cause = std::str::from_utf8(cause).map_err(|_| corrupt("the cause is not text"))?;
        Ok(MemberState::Reported { success, cause: (!cause.is_empty()).then(|| cause.to_owned()) })
    };
    match *octet {
        STATE_WAITING => Ok(MemberState::Waiting),
        STATE_HANDED_OVER => Ok(MemberState::HandedOver),
        STATE_SUCCESS => reported(true),
        STATE_FAILED => reported(false),
        STATE_SETTLED => Ok(MemberState::Settled),
        _ => Err(corrupt("unknown state")),
    }
}

const JOB_HEAD_OCTETS: usize = 3 + 8 + 1 + 4;
/// Of a usual address; longer ones only make the vector grow.
const ADDRESS_OCTETS: usize = 40;
const CODING_1: u8 = 1;
const STATE_WAITING: u8 = 0;
const STATE_HANDED_OVER: u8 = 1;
const STATE_SUCCESS: u8 = 2;
const STATE_FAILED: u8 = 3;
const STATE_SETTLED: u8 = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use message::AddressType;
    use proptest::prelude::*;

    fn address(addr_type: &str, addr: &str) -> Address {
        Address { addr_type: addr_type.parse().unwrap(), addr: addr.parse().unwrap() }
    }

    fn any_job() -> impl Strategy<Value = NewFanOutJob> {
        let members = proptest::collection::vec(("UE|AS", "[!-~]{1,255}"), 0..20);
        let rest =
            (any::<Option<u32>>(), any::<[bool; 2]>(), 0_usize..3, proptest::collection::vec(any::<u8>(), 0..90));
        ("[!-~]{1,255}", "[!-~]{1,128}", members, rest).prop_map(|(target, id, members, rest)| {
            let (expires, [report_wanted, storable], priority, body) = rest;
            NewFanOutJob {
                target: address("GROUP", &target),
                originator: Address { addr_type: AddressType::Other("X".repeat(32)), addr: target.parse().unwrap() },
                message_id: id.parse().unwrap(),
                body,
                members: members.iter().map(|(addr_type, addr)| address(addr_type, addr)).collect(),
                expires_at: expires.map(|us| record::from_microseconds(us.into())),
                report_wanted,
                storable,
                priority: PRIORITIES[priority],
                deduplication: None,
            }
        })
    }

    #[test]
    fn a_state_of_a_later_version_is_not_guessed_at() {
        assert!(matches!(decode_state(&[9]), Err(StoreError::Corrupt { reason: "unknown state", .. })));
        assert!(matches!(decode_state(&[]), Err(StoreError::Corrupt { .. })));
        assert!(matches!(decode_state(&[STATE_FAILED, 0xff]), Err(StoreError::Corrupt { .. })));
        assert!(matches!(decode_job(JobId(1), &[9, 0, 0]), Err(StoreError::Corrupt { reason: "unknown coding", .. })));
    }

    #[test]
    fn a_cause_is_cut_between_characters() {
        let state = MemberState::Reported { success: false, cause: Some("é".repeat(200)) };
        let value = encode_state(&state);
        let kept = MemberState::Reported { success: false, cause: Some("é".repeat(127)) };
        assert_eq!(decode_state(&value).unwrap(), kept);
    }

    #[test]
    fn a_number_of_members_that_are_not_there_takes_no_memory() {
        let job = NewFanOutJob {
            target: address("TOPIC", "t"),
            originator: address("UE", "a"),
            message_id: "1".parse().unwrap(),
            body: Vec::new(),
            members: Vec::new(),
            expires_at: None,
            report_wanted: false,
            storable: false,
            priority: Priority::Low,
            deduplication: None,
        };
        let mut value = encode_job(&job).unwrap();
        let end = value.len();
        value[end - 4..].copy_from_slice(&[0xff; 4]);
        assert!(matches!(decode_job(JobId(1), &value), Err(StoreError::Corrupt { .. })));
    }

    proptest! {
        #[test]
        fn a_job_comes_back_whole(job in any_job(), id: u64) {
            let found = decode_job(JobId(id), &encode_job(&job).unwrap()).unwrap();
            prop_assert_eq!(found.states, vec![MemberState::Waiting; job.members.len()]);
            prop_assert_eq!((found.id, found.target, found.originator), (JobId(id), job.target, job.originator));
            prop_assert_eq!((found.message_id, found.body, found.members), (job.message_id, job.body, job.members));
            prop_assert_eq!((found.expires_at, found.priority), (job.expires_at, job.priority));
            prop_assert_eq!((found.report_wanted, found.storable), (job.report_wanted, job.storable));
        }

        #[test]
        fn any_octets_are_a_job_and_a_state_or_refused(value in proptest::collection::vec(0_u8..9, 0..80)) {
            let _ = decode_job(JobId(1), &value);
            if let Ok(state) = decode_state(&value) {
                prop_assert_eq!(decode_state(&encode_state(&state)).unwrap(), state);
            }
        }
    }
}
