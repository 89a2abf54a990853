//! What the message server asks of durable state, whichever engine keeps it.

use std::future::Future;
use std::pin::Pin;

use message::{Address, AsServiceId, MessageId, MessagingTopic, UeServiceId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::StoreError;
use crate::fan_out::{FanOutJob, JobId, MemberState, NewFanOutJob};
use crate::record::{
    ApplicationServerRecord, DeduplicationRecord, NewStoredMessage, Position, RegistrationRecord, StoredMessage,
};
use crate::topics::{SubscriptionRecord, TopicListSubscriptionRecord};

/// What every operation of a [`Store`] returns: boxed, so that the trait is object-safe.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Registrations, waiting messages, deduplication records, fan-out jobs and subscriptions, durable.
///
/// An operation takes effect from its future's first poll on and then runs to its end even if the future is dropped,
/// but for those that wait for room or for one another, and say so: dropped while it waits, such a one does nothing.
/// Success of anything that writes means: on disk, synced; [`Store::remove_messages`] and
/// [`Store::sweep_deduplication`] alone promise less, and say so. Operations on one registration, application server,
/// subscription or fan-out job are to be made one after the other; everything else may run concurrently.
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
    /// its Message ID). Waits when the commit queue is full, and for a [`Store::update_expiry`] of a message named.
    fn remove_messages<'a>(
        &'a self,
        recipient: &'a Address,
        positions: Vec<Position>,
    ) -> StoreFuture<'a, Vec<Position>>;

    /// Messages whose time is up at `now`, earliest first, at most `limit` and [`SCAN_MESSAGES_MAX`]. They stay until
    /// removed.
    fn expired(&self, now: OffsetDateTime, limit: usize) -> StoreFuture<'_, Vec<StoredMessage>>;

    /// Where the originator's message of that name waits, and for whom: once, or for each recipient of a message to
    /// many (TS 23.554 clause 8.3.6.1). In the order of positions, at most `limit` and [`SCAN_MESSAGES_MAX`] of those
    /// after `after`; fewer only at the end. Messages stored without an originator or a name are not found.
    fn find_stored<'a>(
        &'a self,
        originator: &'a Address,
        message_id: &'a MessageId,
        after: Option<Position>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<(Address, Position)>>;

    /// Gives a waiting message another expiry, `None` for never, and keeps its place. False when it is not there any
    /// more, or its time was up at `now`: of this and a removal under way, the removal wins. Waits for another update of the
    /// same message.
    fn update_expiry<'a>(
        &'a self,
        recipient: &'a Address,
        position: Position,
        now: OffsetDateTime,
        expires_at: Option<OffsetDateTime>,
    ) -> StoreFuture<'a, bool>;

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

    /// Accepts a message to many: the job and, in the same atomic write, its deduplication record. Every member is
    /// [`MemberState::Waiting`].
    ///
    /// Of two calls, the one polled first is accepted first. Refused with [`StoreError::OriginatorFull`],
    /// [`StoreError::Full`], [`StoreError::TooLarge`], [`StoreError::Overloaded`], [`StoreError::DiskFull`]: then
    /// nothing was stored.
    fn put_job(&self, job: NewFanOutJob) -> StoreFuture<'_, JobId>;

    /// Notes what became of members, each by its place in [`NewFanOutJob::members`]; of two about one member, the
    /// later holds. All of them or, on an error, none.
    ///
    /// One sync for all of them: to be called with what has gathered. Waits when the commit queue is full. Refused with
    /// [`StoreError::UnknownJob`] when there is no such job or member.
    fn job_progress(&self, id: JobId, states: Vec<(u32, MemberState)>) -> StoreFuture<'_, ()>;

    /// The job as it stands.
    fn job(&self, id: JobId) -> StoreFuture<'_, Option<FanOutJob>>;

    /// The jobs after `after`, in the order of acceptance, at most `limit` and [`SCAN_JOBS_MAX`], fewer when they are
    /// large: no more are left only when none is returned. Reads on a thread of its own: for start-up.
    fn jobs(&self, after: Option<JobId>, limit: usize) -> StoreFuture<'_, Vec<FanOutJob>>;

    /// Forgets the job; no error when there is none. Waits when the commit queue is full.
    fn remove_job(&self, id: JobId) -> StoreFuture<'_, ()>;

    /// Keeps `record`, in place of an earlier one of the same topic and subscriber.
    ///
    /// A new one is refused with [`StoreError::Full`] beyond [`StoreLimits::subscriptions_max`] or
    /// [`StoreLimits::subscriptions_per_topic_max`], with [`StoreError::OriginatorFull`] beyond
    /// [`StoreLimits::subscriptions_per_subscriber_max`].
    fn put_subscription(&self, record: SubscriptionRecord) -> StoreFuture<'_, ()>;

    /// Forgets the subscription, and tells whether there was one.
    fn remove_subscription<'a>(&'a self, topic: &'a MessagingTopic, subscriber: &'a Address) -> StoreFuture<'a, bool>;

    /// All subscriptions, each topic's together. Reads the whole table, on a thread of its own: for start-up.
    fn subscriptions(&self) -> StoreFuture<'_, Vec<SubscriptionRecord>>;

    /// Keeps `record`, in place of an earlier one of the same ID.
    ///
    /// A new one is refused with [`StoreError::Full`] beyond [`StoreLimits::topic_list_subscriptions_max`], with
    /// [`StoreError::OriginatorFull`] beyond [`StoreLimits::topic_list_subscriptions_per_originator_max`]; any with an
    /// empty ID, or one longer than [`crate::TOPIC_LIST_ID_OCTETS_MAX`], with [`StoreError::Size`].
    fn put_topic_list_subscription(&self, record: TopicListSubscriptionRecord) -> StoreFuture<'_, ()>;

    /// Forgets the subscription to the list of topics, and tells whether there was one.
    fn remove_topic_list_subscription<'a>(&'a self, id: &'a str) -> StoreFuture<'a, bool>;

    /// All subscriptions to the list of topics, by ID.
    fn topic_list_subscriptions(&self) -> StoreFuture<'_, Vec<TopicListSubscriptionRecord>>;
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
    /// Octets of one registration, application server or subscription: [`StoreError::TooLarge`].
    pub record_octets_max: usize,
    /// Fan-out jobs: [`StoreError::Full`].
    pub jobs_max: u64,
    /// Fan-out jobs of one originator: [`StoreError::OriginatorFull`].
    pub jobs_per_originator_max: u64,
    /// Members of one fan-out job: [`StoreError::TooLarge`].
    pub members_per_job_max: usize,
    /// Octets of one fan-out job, its members' addresses included: [`StoreError::TooLarge`]. More than
    /// [`crate::VALUE_OCTETS_MAX`] counts as that.
    pub job_octets_max: usize,
    /// Octets of all fan-out jobs, their members' addresses included: [`StoreError::Full`].
    pub job_bytes_max: u64,
    /// Subscriptions to topics: [`StoreError::Full`] for a new one.
    pub subscriptions_max: u64,
    /// Subscriptions to one topic: [`StoreError::Full`] for a new one.
    pub subscriptions_per_topic_max: u64,
    /// Subscriptions of one subscriber: [`StoreError::OriginatorFull`] for a new one.
    pub subscriptions_per_subscriber_max: u64,
    /// Subscriptions to the list of topics: [`StoreError::Full`] for a new one.
    pub topic_list_subscriptions_max: u64,
    /// Subscriptions to the list of topics of one originator: [`StoreError::OriginatorFull`] for a new one.
    pub topic_list_subscriptions_per_originator_max: u64,
}

impl StoreLimits {
    /// The limit that is zero and must not be: with it no UE and no Application Server could register, or none could send.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        let wrong = [
            ("registrations_max", self.registrations_max),
            ("application_servers_max", self.application_servers_max),
            ("record_octets_max", u64::try_from(self.record_octets_max).unwrap_or(u64::MAX)),
            ("deduplication_records_max", self.deduplication_records_max),
            ("deduplication_records_per_originator_max", self.deduplication_records_per_originator_max),
        ];
        wrong.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| (name, "must be 1 or more"))
    }
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
            record_octets_max: 64 * 1024,
            jobs_max: 10_000,
            jobs_per_originator_max: 1_000,
            members_per_job_max: 10_000,
            job_octets_max: 4 * 1024 * 1024,
            job_bytes_max: 512 * 1024 * 1024,
            subscriptions_max: 1_000_000,
            subscriptions_per_topic_max: 10_000,
            subscriptions_per_subscriber_max: 1_000,
            topic_list_subscriptions_max: 1_000,
            topic_list_subscriptions_per_originator_max: 100,
        }
    }
}

/// The most messages or records that one call reads.
pub const SCAN_MESSAGES_MAX: usize = 1_024;
/// The most fan-out jobs that one call reads.
pub const SCAN_JOBS_MAX: usize = 64;
