//! What can go wrong, and what the caller is to do about it.

use std::sync::Arc;

/// Why the store did not do what it was asked.
///
/// The value is cheap to clone: one failed sync answers every batch of its group with the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another handle in this one, has the directory open.
    #[error("{path} is open elsewhere")]
    Locked {
        /// The directory.
        path: Arc<str>,
    },
    /// The directory could not be created, read or recovered; most likely a wrong path, missing rights or a
    /// damaged disk.
    #[error("cannot open {path}: {reason}")]
    Open {
        /// The directory.
        path: Arc<str>,
        /// The engine's or the system's words.
        reason: Arc<str>,
    },
    /// The directory was written by another version of this layout.
    #[error("{path} has layout {found}, this program reads {expected}")]
    Layout {
        /// The directory.
        path: Arc<str>,
        /// The layout found.
        found: u32,
        /// The layout this program writes.
        expected: u32,
    },
    /// The commit queue is full: the disk is slower than the writers. Nothing was written; try again later.
    #[error("the commit queue is full")]
    Overloaded,
    /// Too little space is left on the file system. Nothing was written. The store accepts again once space is free.
    #[error("the file system is full")]
    DiskFull,
    /// Writing or syncing failed. Nothing is promised about the batch: it may or may not be there after a restart.
    /// The database takes no further writes.
    #[error("writing failed: {reason}")]
    WriteFailed {
        /// The engine's or the system's words.
        reason: Arc<str>,
    },
    /// An earlier write or sync failed, so no further write is taken; reads go on. A restart is needed.
    #[error("no writes are taken since an earlier one failed: {reason}")]
    Poisoned {
        /// What failed then.
        reason: Arc<str>,
    },
    /// Reading failed; most likely a damaged disk.
    #[error("reading failed: {reason}")]
    ReadFailed {
        /// The engine's or the system's words.
        reason: Arc<str>,
    },
    /// A record is there but does not decode; most likely written by a newer version.
    #[error("a record of table {table} does not decode: {reason}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A table's name is empty, longer than 64 octets, or has other characters than `a-z`, `0-9`, `_`.
    #[error("not a table name")]
    TableName,
    /// A key is empty or longer than [`crate::KEY_OCTETS_MAX`], or a value longer than [`crate::VALUE_OCTETS_MAX`].
    #[error("a key or value is outside its bounds")]
    Size,
    /// The batch names a table of another database.
    #[error("the batch names a table of another database")]
    ForeignTable,
    /// The recipient has [`crate::StoreLimits::messages_per_recipient_max`] messages waiting.
    #[error("the recipient has too many messages waiting")]
    RecipientFull,
    /// The originator has as much as one may have of something: [`crate::StoreLimits::messages_per_originator_max`]
    /// messages waiting for others, [`crate::StoreLimits::deduplication_records_per_originator_max`] deduplication
    /// records, [`crate::StoreLimits::jobs_per_originator_max`] fan-out jobs,
    /// [`crate::StoreLimits::subscriptions_per_subscriber_max`] subscriptions, or
    /// [`crate::StoreLimits::topic_list_subscriptions_per_originator_max`] of those to the list of topics.
    #[error("the originator has too much stored: {limit}")]
    OriginatorFull {
        /// The limit's name, as in the configuration.
        limit: &'static str,
    },
    /// One of [`crate::StoreLimits`] is reached for the store as a whole.
    #[error("the store is full: {limit}")]
    Full {
        /// The limit's name, as in the configuration.
        limit: &'static str,
    },
    /// A subscription to the list of topics would change hands; most likely its ID is not unique.
    #[error("the record is another originator's")]
    OtherOriginator,
    /// The fan-out job is not there, or has no member of that number.
    #[error("no such fan-out job, or no such member of it")]
    UnknownJob,
    /// A body is longer than [`crate::StoreLimits::body_octets_max`], a record longer than
    /// [`crate::StoreLimits::record_octets_max`], a fan-out job larger than [`crate::StoreLimits::job_octets_max`] or
    /// with more members than [`crate::StoreLimits::members_per_job_max`], or an address longer than a key can hold.
    #[error("too large to store")]
    TooLarge,
}

impl StoreError {
    /// True when nothing was written and the same call may succeed later: a limit, a full queue, a full disk.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Overloaded | Self::DiskFull | Self::RecipientFull | Self::OriginatorFull { .. } | Self::Full { .. }
        )
    }

    pub(crate) fn read(error: &fjall::Error) -> Self {
        Self::ReadFailed { reason: error.to_string().into() }
    }
}

/// True when the engine failed because the file system, or the user's quota, is full.
pub(crate) fn is_disk_full(error: &fjall::Error) -> bool {
    let io = match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
        _ => return false,
    };
    matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
