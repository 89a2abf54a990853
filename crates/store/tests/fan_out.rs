//! Fan-out jobs: what is kept of them, their limits, what a restart and a crash leave.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;

use message::{Address, Priority};
use proptest::prelude::*;
use store::{
    DeduplicationRecord, EmbeddedStore, FanOutJob, JobId, MemberState, NewFanOutJob, SCAN_JOBS_MAX, Store, StoreError,
    StoreLimits, StoreOptions,
};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, StoreOptions::default()).unwrap()
}

fn open_with(path: &Path, limits: StoreLimits) -> EmbeddedStore {
    EmbeddedStore::open(path, StoreOptions { limits, ..StoreOptions::default() }).unwrap()
}

fn ue(name: &str) -> Address {
    Address::ue(&name.parse().unwrap())
}

fn new(id: &str, members: usize) -> NewFanOutJob {
    NewFanOutJob {
        target: Address::topic(&"alerts".parse().unwrap()),
        originator: ue("sender"),
        message_id: id.parse().unwrap(),
        body: id.into(),
        members: (0..members).map(|member| ue(&format!("member-{member}"))).collect(),
        expires_at: Some(NOW),
        report_wanted: true,
        storable: false,
        priority: Priority::High,
        deduplication: None,
    }
}

fn record(id: &str) -> DeduplicationRecord {
    DeduplicationRecord {
        originator: ue("sender"),
        message_id: id.parse().unwrap(),
        digest: [7; 32],
        answer: b"stored".to_vec(),
        expires_at: NOW,
    }
}

fn failed(cause: &str) -> MemberState {
    MemberState::Reported { success: false, cause: Some(cause.to_owned()) }
}

fn as_found(id: JobId, job: &NewFanOutJob, states: Vec<MemberState>) -> FanOutJob {
    FanOutJob {
        id,
        target: job.target.clone(),
        originator: job.originator.clone(),
        message_id: job.message_id.clone(),
        body: job.body.clone(),
        members: job.members.clone(),
        states,
        expires_at: job.expires_at,
        report_wanted: job.report_wanted,
        storable: job.storable,
        priority: job.priority,
    }
}

/// What a killed process leaves: the files as they are, without the store being closed.
fn files_of(store: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut command = Command::new("cp");
    command.args(["-r", "--sparse=always"]).arg(store.join(".")).arg(copy.path());
    assert!(command.status().unwrap().success());
    copy
}

#[tokio::test]
async fn a_job_and_what_became_of_its_members_survive_a_restart_and_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let job = NewFanOutJob { deduplication: Some(record("1")), ..new("1", 5) };
    let id = store.put_job(job.clone()).await.unwrap();
    assert_eq!(store.job(id).await.unwrap(), Some(as_found(id, &job, vec![MemberState::Waiting; 5])));
    store.job_progress(id, vec![(0, MemberState::HandedOver), (3, failed("EXPIRED"))]).await.unwrap();
    let success = MemberState::Reported { success: true, cause: None };
    store.job_progress(id, vec![(0, success.clone()), (1, failed("a")), (1, MemberState::Settled)]).await.unwrap();
    let states = vec![success, MemberState::Settled, MemberState::Waiting, failed("EXPIRED"), MemberState::Waiting];
    let expected = as_found(id, &job, states);
    assert_eq!(store.job(id).await.unwrap().as_ref(), Some(&expected));

    let crashed = files_of(directory.path());
    drop(store);
    for path in [crashed.path(), directory.path()] {
        let store = open(path);
        assert_eq!(store.jobs(None, 10).await.unwrap(), std::slice::from_ref(&expected));
        let found = store.deduplication_lookup(&ue("sender"), &"1".parse().unwrap()).await.unwrap();
        assert_eq!(found, Some(record("1")));
        let next = store.put_job(new("2", 1)).await.unwrap();
        assert!(next > id, "no number is used twice");
    }
}

#[tokio::test]
async fn a_removed_job_is_gone_with_everything_noted_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = store.put_job(new("1", 3)).await.unwrap();
    store.job_progress(id, vec![(2, MemberState::Settled)]).await.unwrap();
    store.remove_job(id).await.unwrap();
    store.remove_job(id).await.unwrap();
    assert_eq!(store.job(id).await.unwrap(), None);
    let late = store.job_progress(id, vec![(0, MemberState::Settled)]).await;
    assert!(matches!(late, Err(StoreError::UnknownJob)));
    drop(store);
    {
        let database = store::Database::open(directory.path(), store::DatabaseOptions::default()).unwrap();
        for table in ["jobs", "job_members"] {
            assert!(database.table(table).unwrap().scan_prefix(b"", None, 1).unwrap().is_empty(), "{table}");
        }
    }
    let store = open(directory.path());
    assert!(store.jobs(None, 10).await.unwrap().is_empty());
    assert!(store.put_job(new("2", 1)).await.unwrap() > id);
}

#[tokio::test]
async fn progress_of_a_member_that_is_not_there_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = store.put_job(new("1", 2)).await.unwrap();
    for beyond in [2, u32::MAX] {
        let states = vec![(0, MemberState::Settled), (beyond, MemberState::Settled)];
        assert!(matches!(store.job_progress(id, states).await, Err(StoreError::UnknownJob)));
    }
    assert_eq!(store.job(id).await.unwrap().unwrap().states, [MemberState::Waiting, MemberState::Waiting]);
    store.job_progress(id, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_cause_of_any_length_is_kept_to_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = store.put_job(new("1", 1)).await.unwrap();
    store.job_progress(id, vec![(0, failed(&"x".repeat(1_000_000)))]).await.unwrap();
    let kept = failed(&"x".repeat(store::MEMBER_CAUSE_OCTETS_MAX));
    assert_eq!(store.job(id).await.unwrap().unwrap().states, [kept]);
}

#[tokio::test]
async fn each_limit_on_jobs_refuses_by_its_name_and_counts_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        jobs_max: 3,
        jobs_per_originator_max: 2,
        members_per_job_max: 4,
        body_octets_max: 500,
        job_octets_max: 600,
        job_bytes_max: 1_000,
        deduplication_records_max: 1,
        ..StoreLimits::default()
    };
    let of = |originator: &str, octets: usize| NewFanOutJob {
        originator: ue(originator),
        body: vec![0; octets],
        ..new("1", 1)
    };
    let store = open_with(directory.path(), limits.clone());
    for too_large in [new("1", 5), of("a", 501)] {
        assert!(matches!(store.put_job(too_large).await, Err(StoreError::TooLarge)));
    }
    let long = NewFanOutJob { members: vec![ue(&"m".repeat(255)); 4], ..new("1", 0) };
    assert!(matches!(store.put_job(long).await, Err(StoreError::TooLarge)), "its members are too many octets");
    let first = store.put_job(of("a", 450)).await.unwrap();
    let refused = store.put_job(of("b", 500)).await;
    assert!(matches!(refused, Err(StoreError::Full { limit: "job_bytes_max" })), "{refused:?}");
    store.put_job(of("a", 1)).await.unwrap();
    drop(store);

    let store = open_with(directory.path(), limits);
    let refused = store.put_job(of("a", 1)).await;
    assert!(matches!(refused, Err(StoreError::OriginatorFull { limit: "jobs_per_originator_max" })), "{refused:?}");
    let remembered = NewFanOutJob { deduplication: Some(record("1")), ..of("b", 1) };
    store.put_job(remembered.clone()).await.unwrap();
    let refused = store.put_job(of("c", 1)).await;
    assert!(matches!(refused, Err(StoreError::Full { limit: "jobs_max" })), "{refused:?}");
    store.remove_job(first).await.unwrap();
    let refused = store.put_job(remembered).await;
    assert!(matches!(refused, Err(StoreError::Full { limit: "deduplication_records_max" })), "{refused:?}");
    store.put_job(of("a", 450)).await.unwrap();
}

#[tokio::test]
async fn jobs_are_read_in_pages_by_number_and_by_size() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits { body_octets_max: 4_000_000, ..StoreLimits::default() };
    let store = open_with(directory.path(), limits);
    let small = futures_util::future::join_all((0..70).map(|_| store.put_job(new("s", 1)))).await;
    let mut expected: Vec<_> = small.into_iter().map(Result::unwrap).collect();
    for _ in 0..4 {
        expected.push(store.put_job(NewFanOutJob { body: vec![0; 3_000_000], ..new("l", 1) }).await.unwrap());
    }
    let mut found: Vec<JobId> = Vec::new();
    loop {
        let page = store.jobs(found.last().copied(), 1_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= SCAN_JOBS_MAX);
        assert!(page.iter().map(|job| job.body.len()).sum::<usize>() < 9_000_000);
        found.extend(page.iter().map(|job| job.id));
    }
    assert_eq!(found, expected);
}

#[derive(Debug, Clone)]
enum Operation {
    Put { members: usize },
    Progress { job: prop::sample::Index, member: u32, state: u8 },
    Remove { job: prop::sample::Index },
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0_usize..6).prop_map(|members| Operation::Put { members }),
        6 => (any::<prop::sample::Index>(), 0_u32..7, 0_u8..5)
            .prop_map(|(job, member, state)| Operation::Progress { job, member, state }),
        2 => any::<prop::sample::Index>().prop_map(|job| Operation::Remove { job }),
        1 => Just(Operation::Reopen),
    ]
}

fn state(number: u8) -> MemberState {
    match number {
        0 => MemberState::Waiting,
        1 => MemberState::HandedOver,
        2 => MemberState::Reported { success: true, cause: None },
        3 => failed("EXPIRED"),
        _ => MemberState::Settled,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn jobs_do_what_a_list_does(operations in prop::collection::vec(operation(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let mut store = Some(open(directory.path()));
            let mut held: Vec<FanOutJob> = Vec::new();
            for (number, operation) in operations.into_iter().enumerate() {
                let open_store = store.as_ref().unwrap();
                match operation {
                    Operation::Put { members } => {
                        let job = new(&number.to_string(), members);
                        let id = open_store.put_job(job.clone()).await.unwrap();
                        held.push(as_found(id, &job, vec![MemberState::Waiting; members]));
                    }
                    Operation::Progress { job, member, state: number } if !held.is_empty() => {
                        let at = job.index(held.len());
                        let answer = open_store.job_progress(held[at].id, vec![(member, state(number))]).await;
                        match held[at].states.get_mut(member as usize) {
                            Some(known) => {
                                answer.unwrap();
                                *known = state(number);
                            }
                            None => assert!(matches!(answer, Err(StoreError::UnknownJob))),
                        }
                    }
                    Operation::Remove { job } if !held.is_empty() => {
                        let job = held.remove(job.index(held.len()));
                        open_store.remove_job(job.id).await.unwrap();
                    }
                    Operation::Reopen => {
                        drop(store.take());
                        store = Some(open(directory.path()));
                    }
                    Operation::Progress { .. } | Operation::Remove { .. } => {}
                }
            }
            assert_eq!(store.unwrap().jobs(None, SCAN_JOBS_MAX).await.unwrap(), held);
        });
    }
}
