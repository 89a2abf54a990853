//! Remembers on disk what was handed over, so that a restarted client hands nothing over twice, and keeps the segments
//! that were acknowledged before their message was complete, so that none is lost.
//!
//! A text file of one JSON record a line, only appended to, synced before anything is acknowledged. A line that a crash
//! cut short was never acknowledged, and is cut off when the file is opened. The file is written anew when it is much
//! longer than what it remembers.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use message::{Priority, SegmentationSetId};
use serde::{Deserialize, Serialize};

use crate::{error::ClientError, hand_over::HandOverKey, remembered::Remembered};

/// Name of the journal in the state directory.
const FILE: &str = "handed-over.jsonl";
/// Name of the file whose lock says that the state directory is in use.
const LOCK: &str = "lock";
/// Longest line read or written; longer ones are not ours.
const LINE_OCTETS_MAX: u64 = 1_048_576;
/// The file is written anew when it has this many times the records that are remembered.
const COMPACTION_FACTOR: usize = 4;
/// The file is written anew when it has grown by this much: the segments of what was accepted need not be kept.
const GROWTH_OCTETS_MAX: u64 = 4_194_304;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Record {
    /// The application took it over.
    Accepted {
        #[serde(flatten)]
        key: HandOverKey,
        /// The priority within which its order is kept.
        #[serde(default)]
        priority: Priority,
        /// Its sender is owed a delivery status report.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        report_owed: bool,
        /// Its sender is owed the confirmation that this set of segments is complete.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirmation_owed: Option<SegmentationSetId>,
    },
    /// The report that was owed has reached the server.
    Reported {
        #[serde(flatten)]
        key: HandOverKey,
    },
    /// The confirmation that was owed has reached the server.
    Confirmed {
        #[serde(flatten)]
        key: HandOverKey,
    },
    /// A segment was taken, and its message is not complete.
    Held {
        #[serde(flatten)]
        key: HandOverKey,
        #[serde(rename = "segId")]
        set_id: SegmentationSetId,
        /// The segment, as it is coded on MSGin5G-1.
        body: serde_json::Value,
    },
    /// A set of segments of a message was given up.
    Dropped {
        #[serde(flatten)]
        key: HandOverKey,
        #[serde(rename = "segId")]
        set_id: SegmentationSetId,
    },
}

/// The open journal. Its methods block; the client runs them on a thread made for that.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Octets known to be whole lines.
    length: u64,
    lines: usize,
    /// Octets after the file was last written anew.
    compacted: u64,
    remembered_max: usize,
    /// Whether it is on disk that the file has its name: until then nothing in it is safe.
    is_named: bool,
    /// Held for as long as the journal is open.
    _lock: File,
}

impl Journal {
    /// Opens the journal of a state directory, making both if missing, and yields what it remembers, oldest first.
    pub(crate) fn open(directory: &Path, remembered_max: usize) -> Result<(Self, Vec<Record>), ClientError> {
        let state = |source| ClientError::State { path: directory.to_owned(), source: Arc::new(source) };
        create_private_directory(directory).map_err(state)?;
        let lock = open_private(&directory.join(LOCK)).map_err(state)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(ClientError::StateInUse { path: directory.to_owned() });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(state(source)),
        }
        let path = directory.join(FILE);
        Self::open_locked(path.clone(), lock, remembered_max)
            .map_err(|source| ClientError::State { path, source: Arc::new(source) })
    }

    fn open_locked(path: PathBuf, lock: File, remembered_max: usize) -> io::Result<(Self, Vec<Record>)> {
        let file = open_private(&path)?;
        // A new file outlives a power failure only once its directory is on disk.
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let (records, length) = read_records(&file)?;
        file.set_len(length)?;
        let lines = records.len();
        let records = remember_latest(records, remembered_max);
        let mut journal = Self { path, file, length, lines, compacted: 0, remembered_max, is_named: true, _lock: lock };
        if journal.is_long() {
            journal.rewrite(&records)?;
        }
        Ok((journal, records))
    }

    /// Appends and syncs. On an error nothing of `records` counts as written.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let text = to_lines(records)?;
        self.sync_name()?;
        // Whatever a failed attempt left behind is written over.
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.length += text.len() as u64;
        self.lines += records.len();
        if self.is_long() {
            // The records are safe; a failed compaction is tried again with the next append.
            if let Err(error) = self.compact() {
                tracing::warn!(path = %self.path.display(), %error, "cannot compact the hand-over journal");
            }
        }
        Ok(())
    }

    fn is_long(&self) -> bool {
        let grown = self.length > self.compacted.saturating_add(GROWTH_OCTETS_MAX);
        grown || self.lines > self.remembered_max.saturating_mul(COMPACTION_FACTOR)
    }

    fn compact(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let (records, _) = read_records(&self.file)?;
        self.rewrite(&remember_latest(records, self.remembered_max))
    }

    fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let text = to_lines(records)?;
        let temporary = self.path.with_extension("new");
        let written = write_anew(&temporary, &text);
        let renamed = written.and_then(|file| std::fs::rename(&temporary, &self.path).map(|()| file));
        if renamed.is_err() {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(&temporary);
        }
        // Open since before it had its name: what fails from here on cannot leave us with a file that has none.
        self.file = renamed?;
        self.is_named = false;
        self.length = text.len() as u64;
        self.compacted = self.length;
        self.lines = records.len();
        self.sync_name()
    }

    fn sync_name(&mut self) -> io::Result<()> {
        if !self.is_named
            && let Some(directory) = self.path.parent()
        {
            File::open(directory)?.sync_all()?;
        }
        self.is_named = true;
        Ok(())
    }
}

fn to_lines(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for record in records {
        let start = text.len();
        serde_json::to_writer(&mut text, record)?;
        text.push(b'\n');
        if (text.len() - start) as u64 >= LINE_OCTETS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the segment is too long for the journal"));
        }
    }
    Ok(text)
}

/// Reads whole lines from the start, and says where the last of them ends.
fn read_records(mut file: &File) -> io::Result<(Vec<Record>, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let mut records = Vec::new();
    let mut length = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let octets = io::Read::take(&mut reader, LINE_OCTETS_MAX).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            if octets as u64 == LINE_OCTETS_MAX {
                return Err(damaged(records.len()));
            }
            return Ok((records, length));
        }
        match serde_json::from_slice(&line) {
            Ok(record) => records.push(record),
            // A power failure can leave a last line of other octets; anything after it was never acknowledged either.
            Err(_) if reader.fill_buf()?.is_empty() => return Ok((records, length)),
            Err(_) => return Err(damaged(records.len())),
        }
        length += octets as u64;
    }
}

fn damaged(lines_before: usize) -> io::Error {
    let detail =
        format!("line {} is damaged; remove the file to forget which messages were handed over", lines_before + 1);
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

/// Folds records to those that still matter, in their order: the acceptances that [`Remembered`] keeps, without what reached the
/// server since, and the segments of messages that were neither accepted nor given up.
fn remember_latest(records: Vec<Record>, max: usize) -> Vec<Record> {
    // The last record of each; what is owed for an acceptance after it is still owed: a message that was reported as
    // failed, or forgotten, may have come again.
    let mut reported: HashMap<HandOverKey, usize> = HashMap::new();
    let mut confirmed: HashMap<HandOverKey, usize> = HashMap::new();
    // The last record up to which the segments of a message, or of one set of it, no longer matter.
    let mut accepted: HashMap<HandOverKey, usize> = HashMap::new();
    let mut dropped: HashMap<(HandOverKey, SegmentationSetId), usize> = HashMap::new();
    for (place, record) in records.iter().enumerate() {
        match record {
            Record::Reported { key } => drop(reported.insert(key.clone(), place)),
            Record::Confirmed { key } => drop(confirmed.insert(key.clone(), place)),
            Record::Accepted { key, .. } => drop(accepted.insert(key.clone(), place)),
            Record::Dropped { key, set_id } => drop(dropped.insert((key.clone(), set_id.clone()), place)),
            Record::Held { .. } => {}
        }
    }
    let mut remembered = Remembered::new(max);
    for record in &records {
        if let Record::Accepted { key, priority, .. } = record {
            remembered.insert(key.clone(), *priority);
        }
    }
    let mut held = HashSet::new();
    let kept = records.into_iter().enumerate().filter_map(|(place, record)| match record {
        // One that was forgotten and came again counts from when it did.
        Record::Accepted { key, .. } if !remembered.contains(&key) || accepted.get(&key) != Some(&place) => None,
        Record::Accepted { key, priority, report_owed, confirmation_owed } => {
            let is_done = |done: Option<&usize>| done.is_some_and(|done| place < *done);
            let report_owed = report_owed && !is_done(reported.get(&key));
            let confirmation_owed = confirmation_owed.filter(|_| !is_done(confirmed.get(&key)));
            Some(Record::Accepted { key, priority, report_owed, confirmation_owed })
        }
        Record::Held { key, set_id, body } => {
            let is_before = |settled: Option<&usize>| settled.is_some_and(|settled| place < *settled);
            let is_settled = is_before(accepted.get(&key.whole()))
                || is_before(dropped.get(&(key.whole(), set_id.clone())))
                // One that was written twice counts once.
                || !held.insert((key.clone(), set_id.clone()));
            (!is_settled).then_some(Record::Held { key, set_id, body })
        }
        _ => None,
    });
    kept.collect()
}

fn create_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn write_anew(path: &Path, text: &[u8]) -> io::Result<File> {
    let mut file = open_private(path)?;
    file.set_len(0)?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(file)
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use message::Address;

    use super::*;
    use crate::hand_over::Kind;

    fn key(n: usize) -> HandOverKey {
        HandOverKey {
            kind: Kind::Message,
            originator: Address::ue(&"a@example".parse().unwrap()),
            message_id: n.to_string().parse().unwrap(),
            segment: None,
        }
    }

    fn accepted(n: usize, report_owed: bool) -> Record {
        Record::Accepted { key: key(n), priority: Priority::Middle, report_owed, confirmation_owed: None }
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, records) = Journal::open(directory.path(), 10).unwrap();
        assert!(records.is_empty());
        journal.append(&[accepted(1, true), accepted(2, true)]).unwrap();
        journal.append(&[Record::Reported { key: key(1) }]).unwrap();
        drop(journal);
        let (_journal, records) = Journal::open(directory.path(), 10).unwrap();
        assert_eq!(records, [accepted(1, false), accepted(2, true)]);
    }

    #[test]
    fn a_report_of_failure_is_not_the_report_on_the_message_that_came_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 10).unwrap();
        journal.append(&[Record::Reported { key: key(1) }, accepted(1, true)]).unwrap();
        drop(journal);
        let (mut journal, records) = Journal::open(directory.path(), 10).unwrap();
        assert_eq!(records, [accepted(1, true)]);
        journal.append(&[Record::Reported { key: key(1) }]).unwrap();
        drop(journal);
        let (_journal, records) = Journal::open(directory.path(), 10).unwrap();
        assert_eq!(records, [accepted(1, false)]);
    }

    fn set_id() -> SegmentationSetId {
        "set".parse().unwrap()
    }

    fn held(n: usize, segment: u32, octets: usize) -> Record {
        let key = HandOverKey { segment: Some(segment), ..key(n) };
        Record::Held {
            key,
            set_id: set_id(),
            body: serde_json::json!({ "msgType": "MSG", "payload": "x".repeat(octets) }),
        }
    }

    #[test]
    fn segments_are_there_after_reopening_until_their_message_is_accepted_or_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 10).unwrap();
        let other = Record::Dropped { key: key(3), set_id: "other".parse().unwrap() };
        let all = [held(1, 1, 9), held(2, 1, 9), held(1, 2, 9), held(3, 1, 9), held(3, 1, 9)];
        journal.append(&all).unwrap();
        journal.append(&[other]).unwrap();
        let confirmation_owed = Some("1".parse().unwrap());
        let owed = |n| Record::Accepted {
            key: key(n),
            priority: Priority::Middle,
            report_owed: true,
            confirmation_owed: confirmation_owed.clone(),
        };
        journal.append(&[owed(1), Record::Dropped { key: key(2), set_id: set_id() }]).unwrap();
        drop(journal);
        let (mut journal, records) = Journal::open(directory.path(), 10).unwrap();
        assert_eq!(records, [held(3, 1, 9), owed(1)]);
        // A message that was given up may come again.
        journal.append(&[Record::Confirmed { key: key(1) }, held(2, 2, 9)]).unwrap();
        drop(journal);
        let (_journal, records) = Journal::open(directory.path(), 10).unwrap();
        assert_eq!(records, [held(3, 1, 9), accepted(1, true), held(2, 2, 9)]);
    }

    #[test]
    fn the_segments_of_accepted_messages_do_not_make_the_file_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 1_000).unwrap();
        for n in 0..20 {
            journal.append(&[held(n, 1, 700_000), accepted(n, false)]).unwrap();
            assert!(journal.length < 2 * GROWTH_OCTETS_MAX);
        }
        let too_long = held(99, 1, 1_100_000);
        assert_eq!(journal.append(&[too_long]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(journal);
        let (_journal, records) = Journal::open(directory.path(), 1_000).unwrap();
        assert_eq!(records, (0..20).map(|n| accepted(n, false)).collect::<Vec<_>>());
    }

    #[test]
    fn a_line_cut_short_by_a_crash_is_dropped_and_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 10).unwrap();
        journal.append(&[accepted(1, false), accepted(2, false)]).unwrap();
        drop(journal);
        let path = directory.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in whole.len() / 2 + 1..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, records) = Journal::open(directory.path(), 10).unwrap();
            assert_eq!(records, [accepted(1, false)], "cut at {cut}");
            journal.append(&[accepted(3, false)]).unwrap();
            drop(journal);
            let (_journal, records) = Journal::open(directory.path(), 10).unwrap();
            assert_eq!(records, [accepted(1, false), accepted(3, false)], "cut at {cut}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_an_error_and_not_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 10).unwrap();
        journal.append(&[accepted(1, false), accepted(2, false)]).unwrap();
        drop(journal);
        let path = directory.path().join(FILE);
        let mut whole = std::fs::read(&path).unwrap();
        whole[0] = b'x';
        std::fs::write(&path, &whole).unwrap();
        let error = Journal::open(directory.path(), 10).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn the_file_stays_within_a_multiple_of_what_it_remembers() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), 5).unwrap();
        for n in 0..100 {
            journal.append(&[accepted(n, false)]).unwrap();
            assert!(journal.lines <= 5 * COMPACTION_FACTOR);
        }
        drop(journal);
        let (_journal, records) = Journal::open(directory.path(), 5).unwrap();
        assert_eq!(records, (95..100).map(|n| accepted(n, false)).collect::<Vec<_>>());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// Whatever is in the file: it is an error or it can be written on, and nothing is made up.
        #[test]
        fn any_file_is_opened_or_refused(content in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(FILE), &content).unwrap();
            if let Ok((mut journal, records)) = Journal::open(directory.path(), 10) {
                proptest::prop_assert!(records.is_empty());
                journal.append(&[accepted(1, false)]).unwrap();
                drop(journal);
                proptest::prop_assert_eq!(Journal::open(directory.path(), 10).unwrap().1, [accepted(1, false)]);
            }
        }
    }

    #[test]
    fn a_second_client_cannot_use_the_same_state() {
        let directory = tempfile::tempdir().unwrap();
        let first = Journal::open(directory.path(), 5).unwrap();
        assert!(matches!(Journal::open(directory.path(), 5), Err(ClientError::StateInUse { .. })));
        drop(first);
        assert!(Journal::open(directory.path(), 5).is_ok());
    }
}
