//! Who is registered through us, and which topic list subscriptions they have: on disk, and in memory as on disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use message::ts29538::AsRegistration;
use message::{Address, AsServiceId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::{Batch, Database, StoreError, StoreMetrics, Table};

use crate::error::ExposureError;

/// An Application Server that registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    /// Our identifier.
    pub(super) id: String,
    /// Who registered it.
    pub(crate) af_id: String,
    /// What it said, with its own `targetUri`.
    pub(super) request: AsRegistration,
    /// The registration at the server; none if its answer named none.
    pub(super) server_resource: Option<String>,
}

/// A topic list subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicList {
    /// Our identifier.
    pub(super) id: String,
    /// Who subscribed.
    pub(super) af_id: String,
    /// The Application Server.
    pub(super) subscriber: Address,
    /// Where it is notified.
    pub(super) notification_uri: String,
    /// The subscription at the server.
    pub(super) server_resource: Option<String>,
    /// When it ends, in seconds since 1970.
    pub(super) expires_at: Option<i64>,
}

/// All of them.
pub(crate) struct Records {
    database: Database,
    registrations: Table,
    topic_lists: Table,
    held: Mutex<Held>,
    /// One change at a time to what belongs to one Application Server; those at whose turn somebody is or waits.
    turns: Mutex<HashMap<AsServiceId, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Default)]
struct Held {
    registrations: BTreeMap<AsServiceId, Registration>,
    topic_lists: BTreeMap<String, TopicList>,
}

/// Held while what belongs to one Application Server changes.
pub(super) type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Records {
    /// Opens the tables and reads them. Blocks.
    pub(crate) fn open(database: Database) -> Result<Self, ExposureError> {
        let registrations = database.table("as_registrations")?;
        let topic_lists = database.table("topic_list_subscriptions")?;
        let mut held = Held::default();
        for registration in read_all::<Registration>(&registrations)? {
            held.registrations.insert(registration.request.as_svc_id.clone(), registration);
        }
        for list in read_all::<TopicList>(&topic_lists)? {
            held.topic_lists.insert(list.id.clone(), list);
        }
        Ok(Self { database, registrations, topic_lists, held: Mutex::new(held), turns: Mutex::default() })
    }

    pub(crate) fn store_metrics(&self) -> &StoreMetrics {
        self.database.metrics()
    }

    /// Waits until nobody else changes what belongs to `id`.
    pub(super) async fn turn(&self, id: &AsServiceId) -> Turn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(id.clone()).or_default())
        };
        turn.lock_owned().await
    }

    pub(super) fn registration(&self, id: &AsServiceId) -> Option<Registration> {
        self.held().registrations.get(id).cloned()
    }

    pub(super) fn registration_by_id(&self, registration_id: &str) -> Option<Registration> {
        self.held().registrations.values().find(|registration| registration.id == registration_id).cloned()
    }

    pub(super) fn registrations(&self) -> Vec<Registration> {
        self.held().registrations.values().cloned().collect()
    }

    /// On disk when it returns.
    pub(super) async fn put_registration(&self, registration: Registration) -> Result<(), StoreError> {
        let id = registration.request.as_svc_id.clone();
        self.database.commit(Batch::new().put(&self.registrations, id.as_str(), encode(&registration))).await?;
        self.held().registrations.insert(id, registration);
        Ok(())
    }

    /// Removes a registration and its topic lists. On disk when it returns.
    pub(super) async fn remove_registration(&self, id: &AsServiceId) -> Result<(), StoreError> {
        let address = Address::application_server(id);
        let lists = self.topic_lists_of(&address);
        let batch = lists.iter().fold(Batch::new().delete(&self.registrations, id.as_str()), |batch, list| {
            batch.delete(&self.topic_lists, &list.id)
        });
        self.database.commit(batch).await?;
        let mut held = self.held();
        held.registrations.remove(id);
        held.topic_lists.retain(|_, list| list.subscriber != address);
        Ok(())
    }

    pub(super) fn topic_list(&self, id: &str) -> Option<TopicList> {
        self.held().topic_lists.get(id).cloned()
    }

    pub(super) fn topic_lists_of(&self, subscriber: &Address) -> Vec<TopicList> {
        self.held().topic_lists.values().filter(|list| list.subscriber == *subscriber).cloned().collect()
    }

    /// On disk when it returns.
    pub(super) async fn put_topic_list(&self, list: TopicList) -> Result<(), StoreError> {
        self.database.commit(Batch::new().put(&self.topic_lists, &list.id, encode(&list))).await?;
        self.held().topic_lists.insert(list.id.clone(), list);
        Ok(())
    }

    /// On disk when it returns.
    pub(super) async fn remove_topic_list(&self, id: &str) -> Result<(), StoreError> {
        self.database.commit(Batch::new().delete(&self.topic_lists, id)).await?;
        self.held().topic_lists.remove(id);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    // Strings and numbers only: nothing of it can fail.
    serde_json::to_vec(record).unwrap_or_default()
}

fn read_all<T: DeserializeOwned>(table: &Table) -> Result<Vec<T>, ExposureError> {
    let mut records = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = table.scan_prefix(b"", after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(records) };
        after = Some(last.clone());
        for (_, value) in &page {
            records.push(serde_json::from_slice(value).map_err(|_| ExposureError::Corrupt)?);
        }
    }
}

/// Records read at once.
const PAGE: usize = 1024;
