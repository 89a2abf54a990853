//! Tables and group commit, on real files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use store::{Batch, Database, DatabaseOptions, KEY_OCTETS_MAX, StoreError, VALUE_OCTETS_MAX};

fn open(path: &Path) -> Database {
    Database::open(path, DatabaseOptions::default()).unwrap()
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    {
        let database = open(directory.path());
        let table = database.table("contexts").unwrap();
        database.commit(Batch::new().put(&table, "a", "1").put(&table, "b", "2")).await.unwrap();
        database.commit(Batch::new().put(&table, "c", "3").delete(&table, "a")).await.unwrap();
        assert_eq!(table.read(b"a").unwrap(), None);
        assert_eq!(table.read(b"b").unwrap().as_deref(), Some(b"2".as_slice()));
    }
    let table = open(directory.path()).table("contexts").unwrap();
    assert_eq!(table.read(b"a").unwrap(), None);
    assert_eq!(table.read(b"c").unwrap().as_deref(), Some(b"3".as_slice()));
}

#[tokio::test]
async fn a_scan_stays_within_its_prefix_and_goes_on_after_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let table = database.table("t").unwrap();
    let mut batch = Batch::new();
    for key in [&b"a"[..], b"b", b"b1", b"b2", b"b3", b"c", b"\xff", b"\xff\xff", b"\xff\xff1"] {
        batch = batch.put(&table, key, key);
    }
    database.commit(batch).await.unwrap();
    let scan = |prefix: &[u8], after: Option<&[u8]>, limit| -> Vec<Vec<u8>> {
        table.scan_prefix(prefix, after, limit).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(scan(b"b", None, 10), [&b"b"[..], b"b1", b"b2", b"b3"]);
    assert_eq!(scan(b"b", None, 2), [&b"b"[..], b"b1"]);
    assert_eq!(scan(b"b", Some(b"b1"), 10), [&b"b2"[..], b"b3"]);
    assert_eq!(scan(b"b", Some(b"a"), 1), [&b"b"[..]]);
    assert!(scan(b"b", Some(b"b3"), 10).is_empty());
    assert!(scan(b"b", Some(b"c"), 10).is_empty());
    assert!(scan(b"b", None, 0).is_empty());
    assert_eq!(scan(b"\xff", None, 10), [&b"\xff"[..], b"\xff\xff", b"\xff\xff1"]);
    assert_eq!(scan(b"", None, 100).len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_few_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let table = database.table("t").unwrap();
    let before = database.statistics();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64_u32 {
        let (database, table) = (database.clone(), table.clone());
        writers.spawn(async move {
            for number in 0..10_u32 {
                let key = [writer.to_be_bytes(), number.to_be_bytes()].concat();
                database.commit(Batch::new().put(&table, key, "value")).await.unwrap();
            }
        });
    }
    while let Some(joined) = writers.join_next().await {
        joined.unwrap();
    }
    let after = database.statistics();
    assert_eq!(after.batches - before.batches, 640);
    assert_eq!(after.syncs - before.syncs, after.groups - before.groups);
    // While one group syncs, the other 63 writers queue.
    assert!(after.syncs - before.syncs < 320, "{} syncs for 640 batches", after.syncs - before.syncs);
    assert_eq!(table.scan_prefix(b"", None, 1_000).unwrap().len(), 640);
}

#[tokio::test]
async fn a_batch_not_to_be_synced_is_readable_and_costs_no_sync() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let table = database.table("t").unwrap();
    database.commit_unsynced(Batch::new().put(&table, "k", "v")).await.unwrap();
    assert!(table.read(b"k").unwrap().is_some());
    assert_eq!(database.statistics().syncs, 0);
    database.sync().await.unwrap();
    assert_eq!(database.statistics().syncs, 1);
}

#[tokio::test]
async fn no_more_than_the_last_batch_is_ever_unsynced() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let table = database.table("t").unwrap();
    let batch = |key: &str| Batch::new().put(&table, key, "v");
    for (written, syncs) in [("a", 0), ("b", 1), ("c", 2)] {
        database.commit_unsynced(batch(written)).await.unwrap();
        assert_eq!(database.statistics().syncs, syncs, "{written}: the one before was synced first");
    }
    database.commit(batch("d")).await.unwrap();
    assert_eq!(database.statistics().syncs, 4, "the one before, then its own");
    database.commit_unsynced(batch("e")).await.unwrap();
    assert_eq!(database.statistics().syncs, 4);
}

#[tokio::test]
async fn a_full_queue_refuses_and_what_it_took_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let options = DatabaseOptions { queue_batches_max: 4, ..DatabaseOptions::default() };
    let database = Database::open(directory.path(), options).unwrap();
    let table = database.table("t").unwrap();
    // More at once than fit into the queue and the group under way.
    let value = vec![7; 1024];
    let commits = (0..2_000_u32).map(|n| database.commit(Batch::new().put(&table, n.to_be_bytes(), &value)));
    let answers = futures_util::future::join_all(commits).await;
    let refused = answers.iter().filter(|answer| matches!(answer, Err(StoreError::Overloaded))).count();
    assert!(refused > 0);
    assert!(answers.iter().flatten().count() >= 4);
    for (n, answer) in answers.iter().enumerate() {
        let found = table.read(&u32::try_from(n).unwrap().to_be_bytes()).unwrap();
        assert_eq!(found.is_some(), answer.is_ok());
    }
    database.commit(Batch::new().put(&table, "later", "x")).await.unwrap();
}

#[tokio::test]
async fn octets_queued_are_limited_too_but_one_batch_always_fits() {
    let directory = tempfile::tempdir().unwrap();
    let options = DatabaseOptions { queue_bytes_max: 10, ..DatabaseOptions::default() };
    let database = Database::open(directory.path(), options).unwrap();
    let table = database.table("t").unwrap();
    database.commit(Batch::new().put(&table, "large", vec![0; 100_000])).await.unwrap();
    let commits = (0..500_u32).map(|n| database.commit(Batch::new().put(&table, n.to_be_bytes(), vec![0; 1_000])));
    let answers = futures_util::future::join_all(commits).await;
    assert!(answers.iter().any(|answer| matches!(answer, Err(StoreError::Overloaded))));
}

#[tokio::test]
async fn too_little_free_space_refuses_and_reads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    {
        let database = open(directory.path());
        let table = database.table("t").unwrap();
        database.commit(Batch::new().put(&table, "k", "v")).await.unwrap();
    }
    let options = DatabaseOptions { free_bytes_min: u64::MAX, ..DatabaseOptions::default() };
    let database = Database::open(directory.path(), options).unwrap();
    let table = database.table("t").unwrap();
    let answer = database.commit(Batch::new().put(&table, "k2", "v")).await;
    assert!(matches!(answer, Err(StoreError::DiskFull)), "{answer:?}");
    assert!(table.read(b"k").unwrap().is_some());
    assert!(table.read(b"k2").unwrap().is_none());
    // Space is back: the same database takes writes again, without being reopened.
    drop((table, database));
    let database = open(directory.path());
    let table = database.table("t").unwrap();
    database.commit(Batch::new().put(&table, "k2", "v")).await.unwrap();
}

#[tokio::test]
async fn a_second_opening_is_refused_until_the_first_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let table = first.table("t").unwrap();
    let second = Database::open(directory.path(), DatabaseOptions::default());
    assert!(matches!(second, Err(StoreError::Locked { .. })));
    drop(first);
    // A table keeps its database open.
    assert!(matches!(Database::open(directory.path(), DatabaseOptions::default()), Err(StoreError::Locked { .. })));
    drop(table);
    open(directory.path());
}

#[test]
fn the_directory_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _database = open(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_path_that_cannot_be_a_directory_is_named_in_the_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Database::open(&file.path().join("x"), DatabaseOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }));
    assert!(error.to_string().contains(file.path().to_str().unwrap()));
}

#[tokio::test]
async fn names_keys_and_values_outside_their_bounds_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    for name in ["", "Upper", "with-dash", "sp ace", &"x".repeat(65)] {
        assert!(matches!(database.table(name), Err(StoreError::TableName)), "{name}");
    }
    let table = database.table(&"x".repeat(64)).unwrap();
    let commit = |batch| database.commit(batch);
    assert!(matches!(commit(Batch::new().put(&table, "", "v")).await, Err(StoreError::Size)));
    let long = vec![b'k'; KEY_OCTETS_MAX + 1];
    assert!(matches!(commit(Batch::new().delete(&table, &long)).await, Err(StoreError::Size)));
    commit(Batch::new().put(&table, &long[1..], "v")).await.unwrap();
    let large = vec![0; VALUE_OCTETS_MAX + 1];
    assert!(matches!(commit(Batch::new().put(&table, "k", large)).await, Err(StoreError::Size)));
}

#[tokio::test]
async fn a_table_of_another_database_is_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, other) = (open(one.path()), open(other.path()));
    let table = other.table("t").unwrap();
    assert!(matches!(one.commit(Batch::new().put(&table, "k", "v")).await, Err(StoreError::ForeignTable)));
}

#[tokio::test]
async fn a_caller_that_stops_waiting_does_not_stop_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let table = database.table("t").unwrap();
    {
        let commit = database.commit(Batch::new().put(&table, "k", "v"));
        // Polled once, then dropped.
        assert!(futures_util::FutureExt::now_or_never(commit).is_none_or(|answer| answer.is_ok()));
    }
    database.sync().await.unwrap();
    assert!(table.read(b"k").unwrap().is_some());
}

#[tokio::test]
async fn the_metrics_are_registered_under_the_stores_name() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let table = database.table("t").unwrap();
    database.commit(Batch::new().put(&table, "k", "v")).await.unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    database.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("store_batches_total 1"), "{text}");
    assert!(text.contains("store_syncs_total 1"), "{text}");
    assert!(text.contains("store_commit_seconds_count 1"), "{text}");
    assert!(text.contains("store_queued_batches 0"), "{text}");
}
