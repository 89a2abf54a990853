//! Durable state on one machine's disk: registrations, waiting messages, deduplication records, and plain tables.
//!
//! Start from [`EmbeddedStore`], which keeps what the message server promises (the trait [`Store`]), or from
//! [`Database`], tables of octets for a network function with little state of its own. Both answer success only when
//! what was written is on disk and synced; many writers share one sync (group commit).
//!
//! ```
//! use message::{Address, Priority};
//! use store::{EmbeddedStore, NewStoredMessage, Store, StoreOptions, StoredKind};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path();
//! let store = EmbeddedStore::open(path, StoreOptions::default())?;
//! let recipient = Address::ue(&"meter-7@lab.example".parse()?);
//! let position = store
//!     .store_message(NewStoredMessage {
//!         recipient: recipient.clone(),
//!         originator: Some(Address::ue(&"panel-1@lab.example".parse()?)),
//!         message_id: Some("0001".parse()?),
//!         priority: Priority::High,
//!         expires_at: None,
//!         kind: StoredKind::Message,
//!         body: b"{}".to_vec(),
//!         deduplication: None,
//!     })
//!     .await?; // on disk, synced
//!
//! let waiting = store.pending(&recipient, None, 10).await?;
//! assert_eq!(waiting.len(), 1);
//! store.remove_messages(&recipient, vec![position]).await?;
//! assert_eq!(store.pending_count(&recipient), 0);
//! # Ok(())
//! # }
//! ```
//!
//! The layout on disk, the guarantees and the limits with their answers: `docs/reference/store.md`.

#![forbid(unsafe_code)]

mod accounting;
mod counters;
mod database;
mod embedded;
mod error;
mod fan_out;
mod journal;
mod keys;
mod memory;
mod metrics;
mod reclaim;
mod record;
mod store;
mod topics;
mod writer;

pub use counters::Counters;
pub use database::{Batch, Database, DatabaseOptions, KEY_OCTETS_MAX, Pair, Statistics, Table, VALUE_OCTETS_MAX};
pub use embedded::{EmbeddedStore, StoreOptions};
pub use error::StoreError;
pub use fan_out::{FanOutJob, JobId, MEMBER_CAUSE_OCTETS_MAX, MemberState, NewFanOutJob};
pub use metrics::StoreMetrics;
pub use record::{
    ApplicationServerRecord, DeduplicationRecord, NewStoredMessage, Position, RegistrationRecord, StoredKind,
    StoredMessage,
};
pub use store::{SCAN_JOBS_MAX, SCAN_MESSAGES_MAX, Store, StoreFuture, StoreLimits};
pub use topics::{SubscriptionRecord, TOPIC_LIST_ID_OCTETS_MAX, TopicListSubscriptionRecord};
