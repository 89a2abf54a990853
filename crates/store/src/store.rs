//! What the message server asks of durable state, whichever engine keeps it.

use std::future::Future;
use std::pin::Pin;

use message::{Address, AsServiceId, MessageId, UeServiceId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::StoreError;
use crate::record::{
    ApplicationServerRecord, DeduplicationRecord, NewStoredMessage, Position, RegistrationRecord, StoredMessage,
};

/// What every operation of a [`Store`] returns: boxed, so that the trait is object-safe.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Registrations, waiting messages and deduplication records, durable.
///
/// An operation takes effect from its future's first poll on and then runs to its end even if the future is dropped.
/// Success of anything that writes means: on disk, synced; [`Store::remove_messages`] and
/// [`Store::sweep_deduplication`] alone promise less, and say so. Operations on one UE's registration, or on one
/// application server's, are to be made one after the other; everything else may run concurrently.
pub trait Store: Send + Sync + 'static {
    /// Keeps `record`, in place of an earlier one of the same UE.
    ///
    /// Refused with [`StoreError::Full`] beyond [`StoreLimits::registrations_max`].
    fn put_registration(&self, record: RegistrationRecord) -> StoreFuture<'_, ()>;

    /// Forgets the UE's registration; no error when there is none. Messages waiting for it stay.
    fn remove_registration<'a>(&'a self, ue_service_id: &'a UeServiceId) -> StoreFuture<'a, ()>;

    /// The UE's registration.
    fn registration<'a>(&'a self, ue_service_id: &'a UeServiceId) -> StoreFuture<'a, Option<RegistrationRecord>>;

    /// All registrations, by UE Service ID. Reads the whole table, on a thread of its own: for start-up.
    fn registrations(&self) -> StoreFuture<'_, Vec<RegistrationRecord>>;

    /// Keeps `record`, in place of an earlier one of the same application server.
    ///
    /// Refused with [`StoreError::Full`] beyond [`StoreLimits::application_servers_max`].
    fn put_application_server(&self, record: ApplicationServerRecord) -> StoreFuture<'_, ()>;

    /// Forgets the application server; no error when it is not known. Messages waiting for it stay.
    fn remove_application_server<'a>(&'a self, as_service_id: &'a AsServiceId) -> StoreFuture<'a, ()>;

    /// All application servers, by AS Service ID.
    fn application_servers(&self) -> StoreFuture<'_, Vec<ApplicationServerRecord>>;

    /// Stores a message and, in the same atomic write, its deduplication record.
    ///
    /// Of two calls, the one polled first is accepted first. Refused with [`StoreError::RecipientFull`],
    /// [`StoreError::OriginatorFull`], [`StoreError::Full`], [`StoreError::TooLarge`], [`StoreError::Overloaded`], [`StoreError::DiskFull`]: then
    /// nothing was stored.
    fn store_message(&self, message: NewStoredMessage) -> StoreFuture<'_, Position>;

    /// The recipient's messages in the order they are to be delivered: by priority, then by acceptance.
    ///
    /// At most `limit` and [`SCAN_MESSAGES_MAX`] of those after `after`; fewer only at the end. A message of a higher
    /// priority accepted meanwhile lies before `after`: a scan from the start finds it. Expired messages not yet
    /// removed are among them.
    fn pending<'a>(
        &'a self,
        recipient: &'a Address,
        after: Option<Position>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<StoredMessage>>;

    /// Removes messages, and returns the positions that this call removed: of two concurrent calls that name the same
    /// message, one gets it.
    ///
    /// What is removed is gone for every later read, and stays gone after the end of the process; it is not synced by
    /// itself, so after a power loss a message removed last may be back (and is delivered again; the recipient knows
    /// its Message ID). Waits when the commit queue is full.
    fn remove_messages<'a>(
        &'a self,
        recipient: &'a Address,
        positions: Vec<Position>,
    ) -> StoreFuture<'a, Vec<Position>>;

    /// Messages whose time is up at `now`, earliest first, at most `limit` and [`SCAN_MESSAGES_MAX`]. They stay until
    /// removed.
    fn expired(&self, now: OffsetDateTime, limit: usize) -> StoreFuture<'_, Vec<StoredMessage>>;

    /// How many messages wait for the recipient, those being stored included. From memory.
    fn pending_count(&self, recipient: &Address) -> usize;

    /// The recipients for whom messages wait, after `after`, in a fixed order, at most `limit`. From memory.
    fn pending_recipients(&self, after: Option<&Address>, limit: usize) -> Vec<Address>;

    /// How the originator's message of that name was answered. A record past its time may still be found.
    fn deduplication_lookup<'a>(
        &'a self,
        originator: &'a Address,
        message_id: &'a MessageId,
    ) -> StoreFuture<'a, Option<DeduplicationRecord>>;

    /// Forgets deduplication records whose time is up at `now`, at most `limit` and [`SCAN_MESSAGES_MAX`], and returns
    /// how many. Not synced: what comes back after a power loss is swept again.
    fn sweep_deduplication(&self, now: OffsetDateTime, limit: usize) -> StoreFuture<'_, usize>;
}

/// How much a store takes. Every limit is configuration; the answer when one is reached is at its field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreLimits {
    /// Messages waiting for one recipient: [`StoreError::RecipientFull`].
    pub messages_per_recipient_max: usize,
    /// Messages waiting that one originator sent, whoever they wait for: [`StoreError::OriginatorFull`]. One originator
    /// must not fill the store for all.
    pub messages_per_originator_max: u64,
    /// Messages waiting in all: [`StoreError::Full`].
    pub messages_max: u64,
    /// Octets of the bodies of the messages waiting in all: [`StoreError::Full`].
    pub message_bytes_max: u64,
    /// Octets of one message's body, and of one deduplication record's answer: [`StoreError::TooLarge`].
    pub body_octets_max: usize,
    /// Deduplication records: [`StoreError::Full`] for a message that comes with one.
    pub deduplication_records_max: u64,
    /// Deduplication records of one originator: [`StoreError::OriginatorFull`] for a message that comes with one.
    pub deduplication_records_per_originator_max: u64,
    /// Registrations: [`StoreError::Full`] for a UE not yet registered.
    pub registrations_max: u64,
    /// Application servers: [`StoreError::Full`] for one not yet known.
    pub application_servers_max: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            messages_per_recipient_max: 10_000,
            messages_per_originator_max: 100_000,
            messages_max: 2_000_000,
            message_bytes_max: 4 * 1024 * 1024 * 1024,
            body_octets_max: 128 * 1024,
            deduplication_records_max: 10_000_000,
            deduplication_records_per_originator_max: 1_000_000,
            registrations_max: 2_000_000,
            application_servers_max: 10_000,
        }
    }
}

/// The most messages or records that one call reads.
pub const SCAN_MESSAGES_MAX: usize = 1_024;
