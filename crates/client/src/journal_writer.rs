//! Writes the journal on a thread for blocking work, one batch at a time: what is accepted while one batch is being synced
//! goes into the next.

use std::io;

use tokio::task::JoinHandle;

use crate::journal::{Journal, Record};

/// One batch, and whether it is on disk.
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    pub(crate) result: io::Result<()>,
}

/// What a writing thread gives back: the journal, if it had one, and how the writing went.
type Written = (Option<Journal>, io::Result<()>);

/// The journal of a running client.
pub(crate) struct JournalWriter {
    /// None while a batch is being written, or after the writing thread panicked.
    idle: Option<Journal>,
    waiting: Vec<Record>,
    writing: Option<(Vec<Record>, JoinHandle<Written>)>,
}

impl JournalWriter {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { idle: Some(journal), waiting: Vec::new(), writing: None }
    }

    /// Has a record written with the next batch.
    pub(crate) fn write(&mut self, record: Record) {
        self.waiting.push(record);
        self.start();
    }

    /// Whether everything is on disk.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.writing.is_none()
    }

    /// Waits for the batch that is being written; for ever if there is none.
    pub(crate) async fn written(&mut self) -> Batch {
        let Some((_, handle)) = &mut self.writing else { return std::future::pending().await };
        let joined = handle.await;
        let records = self.writing.take().map(|(records, _)| records).unwrap_or_default();
        let result = match joined {
            Ok((journal, result)) => {
                self.idle = journal;
                result
            }
            Err(error) => Err(io::Error::other(error)),
        };
        self.start();
        Batch { records, result }
    }

    fn start(&mut self) {
        if self.waiting.is_empty() || self.writing.is_some() {
            return;
        }
        let records = std::mem::take(&mut self.waiting);
        let batch = records.clone();
        let journal = self.idle.take();
        let handle = tokio::task::spawn_blocking(move || match journal {
            Some(mut journal) => {
                let result = journal.append(&batch);
                (Some(journal), result)
            }
            None => (None, Err(io::Error::other("the journal was lost when writing it failed"))),
        });
        self.writing = Some((records, handle));
    }
}
