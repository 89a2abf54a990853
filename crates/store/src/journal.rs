//! Looks the engine's journals over before the engine opens them.
//!
//! A power loss can leave the last batch of the newest journal half written, its pages in any order. No batch before it
//! is unsynced by then (the writer sees to that), and nothing was promised of this one that the loss of power does not
//! excuse, so it is cut off. Left to itself, the engine would refuse to open when the damage shows only in the
//! checksum, and would silently drop everything behind damage anywhere else. Here, damage with an intact batch behind
//! it, or in a journal that was completed and synced, is what it is, a damaged disk, and opening is refused.
//!
//! A journal is batches, then zeros or the end of the file. A batch, numbers little-endian:
//!
//! | Entry | Octets |
//! |---|---|
//! | start | `1`, number of entries (4), sequence number (8) |
//! | item | `2`, kind, compression, table (8), key length (2), value length (4), stored length (4), key, value |
//! | table cleared | `4`, table (8) |
//! | end | `3`, XXH3 over the item and clear entries (8), `FJL` 3 |

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use xxhash_rust::xxh3::xxh3_64;

/// Cuts off what a crash left at the end of the newest journal in `directory`. The directory must be locked.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when a journal is damaged elsewhere.
pub(crate) fn check(directory: &Path) -> io::Result<()> {
    let mut journals = journals(directory)?;
    let newest = journals.pop();
    for path in journals {
        if let Tail::Torn { at, .. } = tail(&read(&path)?) {
            return Err(damaged(&path, at));
        }
    }
    let Some(path) = newest else { return Ok(()) };
    let octets = read(&path)?;
    match tail(&octets) {
        Tail::Clean => Ok(()),
        Tail::Torn { at, followed: true } => Err(damaged(&path, at)),
        Tail::Torn { at, followed: false } => {
            tracing::warn!(
                journal = %path.display(),
                at,
                octets = written(&octets).saturating_sub(at),
                "cutting off a batch that a crash left half written; it was never answered"
            );
            cut(&path, at)
        }
    }
}

/// The journals in the order they were written.
fn journals(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), Some("jnl")) = (number, path.extension().and_then(|extension| extension.to_str())) {
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// The journal without the hole at its end: it is made 64 MiB long before anything is written.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut octets = Vec::new();
    let end = end_of_data(&file).unwrap_or(u64::MAX);
    file.rewind()?;
    file.take(end).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Where the last stretch of data ends, as the file system tells.
fn end_of_data(file: &File) -> rustix::io::Result<u64> {
    let mut end = 0;
    loop {
        match rustix::fs::seek(file, SeekFrom::Data(end)) {
            Ok(data) => end = rustix::fs::seek(file, SeekFrom::Hole(data))?,
            Err(rustix::io::Errno::NXIO) => return Ok(end),
            Err(error) => return Err(error),
        }
    }
}

enum Tail {
    /// Whole batches, then nothing.
    Clean,
    /// Something that is not a whole batch, and whether a whole batch comes after it.
    Torn { at: usize, followed: bool },
}

fn tail(journal: &[u8]) -> Tail {
    let mut at = 0;
    let mut last_sequence = None;
    while let Some(batch) = batch_at(journal, at) {
        at = batch.end;
        last_sequence = Some(batch.sequence);
    }
    let end = written(journal);
    if at >= end {
        return Tail::Clean;
    }
    let is_later = |batch: Batch| last_sequence.is_none_or(|last| batch.sequence > last);
    let followed = (at + 1..end).any(|at| batch_at(journal, at).is_some_and(is_later));
    Tail::Torn { at, followed }
}

/// Octets up to the last that is not zero: journals are made longer than what is in them.
fn written(journal: &[u8]) -> usize {
    const ZEROS: [u8; 4_096] = [0; 4_096];
    // Most of a journal may be zeros: compare them a page at a time.
    let is_zero = |page: &&[u8]| ZEROS.get(..page.len()) == Some(*page);
    let zero: usize = journal.rchunks(ZEROS.len()).take_while(is_zero).map(<[u8]>::len).sum();
    let rest = journal.get(..journal.len() - zero).unwrap_or_default();
    rest.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1)
}

struct Batch {
    end: usize,
    sequence: u64,
}

/// The batch that begins at `at`, if a whole one does.
fn batch_at(journal: &[u8], at: usize) -> Option<Batch> {
    let mut reader = Reader(journal.get(at..)?);
    if reader.octet()? != TAG_START {
        return None;
    }
    let entries = u32::from_le_bytes(reader.array()?);
    let sequence = u64::from_le_bytes(reader.array()?);
    let body = reader.0;
    let mut found: u32 = 0;
    loop {
        let before = reader.0.len();
        match reader.octet()? {
            TAG_ITEM => {
                reader.take(1 + 1 + 8)?; // kind, compression, table
                let key = u16::from_le_bytes(reader.array()?);
                reader.take(4)?; // length before compression
                let value = u32::from_le_bytes(reader.array()?);
                reader.take(usize::from(key).checked_add(usize::try_from(value).ok()?)?)?;
            }
            TAG_CLEAR => drop(reader.take(8)?),
            TAG_END => {
                let hashed = body.get(..body.len() - before)?;
                let checksum = u64::from_le_bytes(reader.array()?);
                let whole = found == entries && reader.take(TRAILER.len())? == TRAILER && checksum == xxh3_64(hashed);
                return whole.then_some(Batch { end: journal.len() - reader.0.len(), sequence });
            }
            _ => return None,
        }
        found = found.checked_add(1).filter(|found| *found <= entries)?;
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(octets)?;
        self.0 = rest;
        Some(taken)
    }

    fn octet(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

fn cut(path: &Path, at: usize) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(path)?;
    file.set_len(at as u64)?;
    file.sync_all()
}

fn damaged(path: &Path, at: usize) -> io::Error {
    let message = format!("journal {} is damaged at octet {at}, before data that was synced", path.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const TRAILER: &[u8] = &[b'F', b'J', b'L', 3];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    /// A directory with one journal of three batches, made by the engine; and where each batch begins and ends.
    fn three_batches() -> (tempfile::TempDir, PathBuf, Vec<usize>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let engine = fjall::Database::builder(&path).manual_journal_persist(true).open().unwrap();
        let table = engine.keyspace("t", fjall::KeyspaceCreateOptions::default).unwrap();
        for number in 0..3_u8 {
            let mut batch = engine.batch().durability(Some(fjall::PersistMode::SyncAll));
            batch.insert(&table, [number, 0], vec![0xab; 20_000]);
            batch.insert(&table, [number, 1], b"small");
            batch.remove(&table, [number, 2]);
            batch.commit().unwrap();
        }
        drop((table, engine));
        let journal = journals(&path).unwrap().pop().unwrap();
        let octets = std::fs::read(&journal).unwrap();
        let mut edges = vec![0];
        while let Some(batch) = batch_at(&octets, *edges.last().unwrap()) {
            edges.push(batch.end);
        }
        (directory, journal, edges)
    }

    fn change(journal: &Path, at: usize, octets: &[u8]) {
        use std::os::unix::fs::FileExt;
        OpenOptions::new().write(true).open(journal).unwrap().write_all_at(octets, at as u64).unwrap();
    }

    fn keys_after_check(journal: &Path) -> usize {
        let directory = journal.parent().unwrap();
        check(directory).unwrap();
        let engine = fjall::Database::builder(directory).open().unwrap();
        engine.keyspace("t", fjall::KeyspaceCreateOptions::default).unwrap().len().unwrap()
    }

    #[test]
    fn the_engines_own_journals_are_understood() {
        let (_directory, journal, edges) = three_batches();
        assert_eq!(edges.len(), 4);
        assert_eq!(written(&std::fs::read(&journal).unwrap()), edges[3]);
        assert_eq!(keys_after_check(&journal), 6);
    }

    #[test]
    fn a_last_batch_with_a_page_missing_is_cut_off() {
        let (_directory, journal, edges) = three_batches();
        change(&journal, edges[2] + 4_096, &[0; 4_096]);
        // This is what the check is for: the engine by itself does not open.
        let other = tempfile::tempdir().unwrap();
        let mut copy = std::process::Command::new("cp");
        copy.arg("-r").arg(journal.parent().unwrap()).arg(other.path());
        assert!(copy.status().unwrap().success());
        let error = fjall::Database::builder(other.path().join("db")).open().err().unwrap();
        assert!(matches!(error, fjall::Error::JournalRecovery(_)), "{error}");

        assert_eq!(keys_after_check(&journal), 4);
    }

    #[test]
    fn damage_before_an_intact_batch_is_refused() {
        let (_directory, journal, edges) = three_batches();
        change(&journal, edges[1] + 5_000, &[0xff]);
        let error = check(journal.parent().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn damage_in_a_completed_journal_is_refused() {
        let (_directory, journal, edges) = three_batches();
        std::fs::copy(&journal, journal.with_file_name("99.jnl")).unwrap();
        change(&journal, edges[2] + 5_000, &[0xff]);
        assert_eq!(check(journal.parent().unwrap()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_directory_without_journals_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        check(directory.path()).unwrap();
        check(&directory.path().join("missing")).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn a_journal_cut_anywhere_keeps_the_batches_before(cut_at in 0_usize..61_000) {
            let (_directory, journal, edges) = three_batches();
            let cut_at = cut_at.min(edges[3]);
            let file = OpenOptions::new().write(true).open(&journal).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(cut_at as u64).unwrap();
            file.set_len(length).unwrap();
            let whole = edges.iter().skip(1).filter(|end| **end <= cut_at).count();
            prop_assert_eq!(keys_after_check(&journal), whole * 2);
        }

        #[test]
        fn any_octets_are_taken_as_a_journal_without_panic(octets in proptest::collection::vec(0_u8..6, 0..300)) {
            tail(&octets);
        }
    }
}
