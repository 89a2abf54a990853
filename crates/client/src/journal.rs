//! Remembers on disk what was handed over, so that a restarted client hands nothing over twice.
//!
//! A text file of one JSON record a line, only appended to, synced before anything is acknowledged. A line that a crash
//! cut short was never acknowledged, and is cut off when the file is opened. The file is written anew when it is much
//! longer than what it remembers.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{error::ClientError, hand_over::HandOverKey, key_source::replace_private};

/// Name of the journal in the state directory.
const FILE: &str = "handed-over.jsonl";
/// Name of the file whose lock says that the state directory is in use.
const LOCK: &str = "lock";
/// Longest line read; longer ones are not ours.
const LINE_OCTETS_MAX: u64 = 4_096;
/// The file is written anew when it has this many times the records that are remembered.
const COMPACTION_FACTOR: usize = 4;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Record {
    /// The application took it over.
    Accepted {
        #[serde(flatten)]
        key: HandOverKey,
        /// Its sender is owed a delivery status report.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        report_owed: bool,
    },
    /// The report that was owed has reached the server.
    Reported {
        #[serde(flatten)]
        key: HandOverKey,
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
    remembered_max: usize,
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
        let mut journal = Self { path, file, length, lines: records.len(), remembered_max, _lock: lock };
        let records = remember_latest(records, remembered_max);
        if journal.is_long() {
            journal.rewrite(&records)?;
        }
        Ok((journal, records))
    }

    /// Appends and syncs. On an error nothing of `records` counts as written.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let text = to_lines(records)?;
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
        self.lines > self.remembered_max.saturating_mul(COMPACTION_FACTOR)
    }

    fn compact(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let (records, _) = read_records(&self.file)?;
        self.rewrite(&remember_latest(records, self.remembered_max))
    }

    fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let text = to_lines(records)?;
        replace_private(&self.path, &text)?;
        self.file = open_private(&self.path)?;
        self.length = text.len() as u64;
        self.lines = records.len();
        Ok(())
    }
}

fn to_lines(records: &[Record]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record)?;
        text.push(b'\n');
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

/// Folds records to those that still matter: the latest `max` acceptances, without the reports that were sent.
fn remember_latest(records: Vec<Record>, max: usize) -> Vec<Record> {
    let reported: std::collections::HashSet<HandOverKey> = records
        .iter()
        .filter_map(|record| match record {
            Record::Reported { key } => Some(key.clone()),
            Record::Accepted { .. } => None,
        })
        .collect();
    let accepted: Vec<Record> = records
        .into_iter()
        .filter_map(|record| match record {
            Record::Accepted { key, report_owed } => {
                let report_owed = report_owed && !reported.contains(&key);
                Some(Record::Accepted { key, report_owed })
            }
            Record::Reported { .. } => None,
        })
        .collect();
    let skipped = accepted.len().saturating_sub(max);
    accepted.into_iter().skip(skipped).collect()
}

fn create_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
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
        Record::Accepted { key: key(n), report_owed }
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
