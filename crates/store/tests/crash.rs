//! The process is killed, or the disk fills up: what was answered is there.
//!
//! The victim is this test program itself, started again with the directory in an environment variable. It prints
//! what it was answered, one line each, and never ends by itself.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use message::{Address, Priority};
use store::{
    Batch, Database, DatabaseOptions, DeduplicationRecord, EmbeddedStore, NewStoredMessage, Store, StoreError,
    StoreOptions, StoredKind,
};
use time::OffsetDateTime;

const VICTIM_DIRECTORY: &str = "STORE_TEST_VICTIM_DIRECTORY";
const VICTIM_FREE_BYTES_MIN: &str = "STORE_TEST_VICTIM_FREE_BYTES_MIN";
const VICTIM_FIRST: &str = "STORE_TEST_VICTIM_FIRST";
const ROUNDS: usize = 10;
/// Every so manyth key is not deleted.
const KEPT: u64 = 40;
const WRITERS: usize = 16;

fn ue(number: usize) -> Address {
    Address::ue(&format!("ue-{number}").parse().unwrap())
}

fn message(recipient: &Address, id: &str, octets: usize) -> NewStoredMessage {
    let expires_at = OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap();
    NewStoredMessage {
        recipient: recipient.clone(),
        originator: Some(recipient.clone()),
        message_id: Some(id.parse().unwrap()),
        priority: Priority::Middle,
        expires_at: Some(expires_at),
        kind: StoredKind::Message,
        body: [id.as_bytes(), b" ", &vec![b'x'; octets]].concat(),
        deduplication: Some(DeduplicationRecord {
            originator: recipient.clone(),
            message_id: id.parse().unwrap(),
            digest: [1; 32],
            answer: Vec::new(),
            expires_at,
        }),
    }
}

/// Starts this test program again, to run the test named `victim` in `directory`.
fn start(victim: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", victim, "--nocapture"]).env(VICTIM_DIRECTORY, directory).stdout(Stdio::piped());
    command
}

fn say(line: &str) {
    // One write each, so that a line is printed whole or not at all.
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

/// Stores for ever from many tasks; each removes every third of its own messages again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim_that_stores() {
    let Some(directory) = std::env::var_os(VICTIM_DIRECTORY) else { return };
    let store = EmbeddedStore::open(Path::new(&directory), StoreOptions::default()).unwrap();
    let run = std::process::id();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let to = ue(writer);
            for number in 0.. {
                let id = format!("{run}-{writer}-{number}");
                let position = store.store_message(message(&to, &id, number % 3_000)).await.unwrap();
                say(&format!("stored {id} {} {}", position.sequence(), number % 3_000));
                if number % 3 == 0 {
                    say(&format!("removing {id}"));
                    store.remove_messages(&to, vec![position]).await.unwrap();
                    say(&format!("removed {id}"));
                }
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn nothing_answered_is_lost_when_the_process_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut expected = BTreeSet::new();
    let mut maybe_removed = BTreeSet::new();
    let mut removed = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut victim = start("victim_that_stores", directory.path()).spawn().unwrap();
        // A different moment each time, counted in answers: in an empty store, in mid-group, in mid-removal.
        let answers = 1 + (round * 613 + usize::try_from(victim.id()).unwrap()) % 1_500;
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut take = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
            ["stored", id, sequence, octets] => {
                expected.insert((id.to_owned(), sequence.parse::<u64>().unwrap(), octets.parse::<usize>().unwrap()))
            }
            ["removing", id] => maybe_removed.insert(id.to_owned()),
            ["removed", id] => removed.insert(id.to_owned()),
            _ => false,
        };
        let mut taken = 0;
        while taken < answers {
            let line = lines.next().expect("the victim runs until it is killed").unwrap();
            taken += usize::from(take(&line));
        }
        victim.kill().unwrap(); // SIGKILL
        victim.wait().unwrap();
        // What it had printed before it died counts too.
        for line in lines.map_while(Result::ok) {
            take(&line);
        }

        let store = EmbeddedStore::open(directory.path(), StoreOptions::default()).unwrap();
        let mut found = BTreeSet::new();
        for writer in 0..WRITERS {
            let to = ue(writer);
            let mut waiting = Vec::new();
            loop {
                let page = store.pending(&to, waiting.last().map(|(position, _)| *position), 500).await.unwrap();
                if page.is_empty() {
                    break;
                }
                waiting.extend(page.into_iter().map(|message| (message.position, message.body)));
            }
            assert_eq!(store.pending_count(&to), waiting.len());
            for (position, body) in waiting {
                let text = String::from_utf8(body).unwrap();
                let (id, filling) = text.split_once(' ').unwrap();
                assert!(found.insert((id.to_owned(), position.sequence(), filling.len())), "{id} is there twice");
                let record = store.deduplication_lookup(&to, &id.parse().unwrap()).await.unwrap();
                assert!(record.is_some(), "{id} lost its deduplication record");
            }
        }
        for stored in &expected {
            assert!(found.contains(stored) || maybe_removed.contains(&stored.0), "round {round}: {stored:?} is lost");
        }
        // A removal survives the end of the process, synced or not.
        assert!(found.iter().all(|(id, ..)| !removed.contains(id)), "round {round}: a removed message is back");
    }
    assert!(!removed.is_empty());
}

/// Keys that only grow, most of them deleted at once, for ever: files of nothing but deletions, which the next start reclaims.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim_that_comes_and_goes() {
    let Some(directory) = std::env::var_os(VICTIM_DIRECTORY) else { return };
    let database = small_files(Path::new(&directory));
    let table = database.table("jobs").unwrap();
    let first: u64 = std::env::var(VICTIM_FIRST).unwrap().parse().unwrap();
    for number in first.. {
        let key = number.to_be_bytes();
        database.commit_unsynced(Batch::new().put(&table, key, [7; 200])).await.unwrap();
        say(&format!("put {number}"));
        if number % KEPT != 0 {
            say(&format!("deleting {number}"));
            database.commit_unsynced(Batch::new().delete(&table, key)).await.unwrap();
            say(&format!("deleted {number}"));
        }
    }
}

fn small_files(directory: &Path) -> Database {
    let options = DatabaseOptions { memtable_bytes_max: 16 * 1024, ..DatabaseOptions::default() };
    Database::open(directory, options).unwrap()
}

#[tokio::test]
async fn nothing_comes_back_or_is_lost_when_the_process_is_killed_while_it_reclaims() {
    let directory = tempfile::tempdir().unwrap();
    let (mut kept, mut unsure, mut deleted) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let first = (round as u64 + 1) * 1_000_000;
        let mut victim = start("victim_that_comes_and_goes", directory.path());
        let mut victim = victim.env(VICTIM_FIRST, first.to_string()).spawn().unwrap();
        // Reclaiming goes on while the first of these are answered; where it is killed differs from round to round.
        let answers = 1 + (round * 613 + usize::try_from(victim.id()).unwrap()) % 700;
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut take = |line: &str| match line.split_once(' ').map(|(what, key)| (what, key.parse::<u64>())) {
            Some(("put", Ok(key))) => kept.insert(key),
            Some(("deleting", Ok(key))) => kept.remove(&key) && unsure.insert(key),
            Some(("deleted", Ok(key))) => unsure.remove(&key) && deleted.insert(key),
            _ => false,
        };
        let mut taken = 0;
        while taken < answers {
            taken += usize::from(take(&lines.next().expect("the victim runs until it is killed").unwrap()));
        }
        victim.kill().unwrap(); // SIGKILL
        victim.wait().unwrap();
        lines.map_while(Result::ok).for_each(|line| {
            take(&line);
        });
        let database = small_files(directory.path());
        let found = keys(&database);
        let lost: Vec<_> = kept.difference(&found).collect();
        let back: Vec<_> = deleted.intersection(&found).collect();
        assert!(lost.is_empty() && back.is_empty(), "round {round}: {lost:?} are lost, {back:?} are back");
    }
    assert!(kept.len() > ROUNDS && deleted.len() > 300, "{} kept and {} deleted", kept.len(), deleted.len());
    let database = small_files(directory.path());
    let started = Instant::now();
    while !is_reclaimed(&database) && files(directory.path()) > 8 {
        assert!(started.elapsed() < Duration::from_secs(120), "{} files", files(directory.path()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(kept.is_subset(&keys(&database)));
}

fn keys(database: &Database) -> BTreeSet<u64> {
    let pairs = database.table("jobs").unwrap().scan_prefix(b"", None, usize::MAX).unwrap();
    pairs.into_iter().map(|(key, _)| u64::from_be_bytes(key.try_into().unwrap())).collect()
}

fn is_reclaimed(database: &Database) -> bool {
    let (mut registry, mut text) = (prometheus_client::registry::Registry::default(), String::new());
    database.metrics().register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text.lines().any(|line| line.starts_with("store_reclaimed_total") && !line.ends_with(" 0"))
}

/// Files of tables, under a directory.
fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).fold(0, |files, path| {
        files + if path.is_dir() { self::files(&path) } else { usize::from(path.parent().unwrap().ends_with("tables")) }
    })
}

/// Stores until the answer is anything but success, then shows that reading still works.
#[tokio::test]
async fn victim_that_fills_the_disk() {
    let Some(directory) = std::env::var_os(VICTIM_DIRECTORY) else { return };
    let free_bytes_min = std::env::var(VICTIM_FREE_BYTES_MIN).unwrap().parse().unwrap();
    let database = DatabaseOptions { free_bytes_min, ..DatabaseOptions::default() };
    let options = StoreOptions { database, ..StoreOptions::default() };
    let store = EmbeddedStore::open(Path::new(&directory), options).unwrap();
    let to = ue(0);
    let mut stored = Vec::new();
    let error = loop {
        match store.store_message(message(&to, &stored.len().to_string(), 100_000)).await {
            Ok(position) => stored.push(position),
            Err(error) => break error,
        }
    };
    let waiting = store.pending_count(&to);
    let first = store.pending(&to, None, 1).await.unwrap().len();
    let again = store.store_message(message(&to, "again", 100_000)).await.unwrap_err();
    // With space kept in reserve, what is delivered can still be removed, and makes no difference to the promise.
    let removed = match store.remove_messages(&to, stored.first().copied().into_iter().collect()).await {
        Ok(removed) => removed.len(),
        Err(StoreError::Poisoned { .. }) => 0,
        Err(other) => panic!("{other}"),
    };
    let name = |error: &StoreError| format!("{error:?}").split([' ', '{']).next().unwrap().to_owned();
    let failed = store.failure().is_some();
    say(&format!("full {} {waiting} {first} {} {} {removed} {failed}", stored.len(), name(&error), name(&again)));
}

/// Stores until somebody else's file has filled the disk and for a while longer, until it is gone, and opens again.
#[tokio::test]
async fn victim_that_lives_through_a_full_disk() {
    let Some(directory) = std::env::var_os(VICTIM_DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let free_bytes_min = std::env::var(VICTIM_FREE_BYTES_MIN).unwrap().parse().unwrap();
    let database = DatabaseOptions { free_bytes_min, ..DatabaseOptions::default() };
    let options = StoreOptions { database, ..StoreOptions::default() };
    let store = EmbeddedStore::open(directory, options.clone()).unwrap();
    let to = ue(0);
    let filler = directory.join("filler");
    std::fs::write(&filler, vec![1; 40 * 1024 * 1024]).unwrap();
    let (mut answered, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let mut number = 0;
    let mut put = async |store: &EmbeddedStore| {
        number += 1;
        let id = number.to_string();
        let error = store.store_message(message(&to, &id, 100_000)).await.err();
        if error.is_none() {
            answered.insert(id)
        } else {
            refused.insert(id)
        };
        error
    };
    while put(&store).await.is_none() {}
    for _ in 0..20 {
        assert!(put(&store).await.is_some(), "the disk is still full");
    }
    std::fs::remove_file(&filler).unwrap();
    // Refused before the engine saw it: it goes on as it is. Failed in mid-write: only opening again helps.
    let goes_on = put(&store).await.is_none();
    drop(store);
    let store = EmbeddedStore::open(directory, options).unwrap();
    assert!(put(&store).await.is_none(), "opened again with room, it stores");

    let mut found = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.pending(&to, after, 100).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.position);
        for message in page {
            let id = message.body.split(|octet| *octet == b' ').next().unwrap().to_vec();
            assert!(found.insert(String::from_utf8(id).unwrap()), "there twice");
        }
    }
    let lost = answered.difference(&found).count();
    let unanswered = found.difference(&answered).count();
    assert!(found.difference(&answered).all(|id| refused.contains(id)));
    assert_eq!(store.pending_count(&to), found.len());
    say(&format!("full {} {goes_on} {lost} {unanswered}", answered.len()));
}

/// Runs a disk-filling victim on a file system of 96 MiB of its own; `None` where the kernel does not let us mount.
///
/// Root mounts in a mount namespace, others in a user namespace besides. Root, and a machine with `CI=true`, are to be able
/// to: there the disk is filled or the test fails.
fn fill_a_small_disk(victim: &str, free_bytes_min: u64) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let small = directory.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = |namespaces: &str| {
        Command::new("unshare").args([namespaces, "mount", "-t", "tmpfs", "none"]).arg(&small).output()
    };
    let tried = ["-m", "-Urm"].map(|namespaces| (namespaces, mount(namespaces)));
    let able = tried.iter().find(|(_, output)| output.as_ref().is_ok_and(|output| output.status.success()));
    let Some((namespaces, _)) = able else {
        let id = Command::new("id").arg("-u").output().unwrap().stdout;
        let must = std::env::var("CI").is_ok_and(|ci| ci == "true") || id.trim_ascii() == b"0";
        assert!(!must, "no namespace to mount a small file system in: {tried:?}");
        eprintln!("SKIPPED: no namespace to mount a small file system in, the disk is not filled: {tried:?}");
        return None;
    };
    let victim = start(victim, &small);
    let mut command = Command::new("unshare");
    command.args([
        namespaces,
        "sh",
        "-c",
        "mount -t tmpfs -o size=96m none \"$STORE_TEST_VICTIM_DIRECTORY\" && exec \"$@\"",
    ]);
    command.arg("sh").arg(victim.get_program()).args(victim.get_args());
    command.env(VICTIM_DIRECTORY, &small).env(VICTIM_FREE_BYTES_MIN, free_bytes_min.to_string());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("full ")).unwrap_or_else(|| panic!("{output:?}"));
    Some(line.split(' ').map(str::to_owned).collect())
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_answered_as_stored() {
    // The reserve is there for this: the engine never sees the disk full.
    if let Some(said) = fill_a_small_disk("victim_that_fills_the_disk", 16 * 1024 * 1024) {
        assert!(said[0].parse::<u32>().unwrap() > 100, "{said:?}");
        assert_eq!(said[1..], [said[0].as_str(), "1", "DiskFull", "DiskFull", "1", "false"]);
    }
    // Without a reserve the engine fails in mid-write: the same answer, and no more writes.
    if let Some(said) = fill_a_small_disk("victim_that_fills_the_disk", 0) {
        assert!(said[0].parse::<u32>().unwrap() > 100, "{said:?}");
        assert_eq!(said[1..3], [said[0].as_str(), "1"], "{said:?}");
        assert!(["DiskFull", "WriteFailed"].contains(&said[3].as_str()), "{said:?}");
        assert_eq!(said[4..], ["Poisoned", "0", "true"], "{said:?}");
    }
}

#[test]
fn what_was_answered_before_during_and_after_a_full_disk_is_there_and_nothing_else() {
    let victim = "victim_that_lives_through_a_full_disk";
    if let Some(said) = fill_a_small_disk(victim, 16 * 1024 * 1024) {
        assert!(said[0].parse::<u32>().unwrap() > 50, "{said:?}");
        assert_eq!(said[1..], ["true", "0", "0"], "{said:?}");
    }
    // In mid-write, the batch that failed may be there: no success was answered, and no refusal either.
    if let Some(said) = fill_a_small_disk(victim, 0) {
        assert!(said[0].parse::<u32>().unwrap() > 50, "{said:?}");
        assert_eq!(said[1..3], ["false", "0"], "{said:?}");
        assert!(said[3].parse::<u32>().unwrap() <= 1, "{said:?}");
    }
}
