//! Tables of one record per key: registrations, application servers, subscriptions.

use std::ops::Bound;

use message::{Address, MessagingTopic};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Inner, settled_by};
use crate::StoreError;
use crate::accounting::{RecordChange, Records, Shares};
use crate::database::{Batch, Table};
use crate::keys;
use crate::record;
use crate::topics::{SubscriptionRecord, TOPIC_LIST_ID_OCTETS_MAX, TopicListSubscriptionRecord};
use crate::writer::Durability;

impl Inner {
    pub(super) async fn put_record<T: Serialize>(
        &self,
        records: Records,
        key: &[u8],
        shares: Shares,
        record: &T,
    ) -> Result<(), StoreError> {
        let (table, name) = self.records(records);
        let value = record::encode_json(name, record)?;
        if value.len() > self.limits.record_octets_max {
            return Err(StoreError::TooLarge);
        }
        let change = if table.contains(key)? {
            RecordChange::none()
        } else {
            self.accounting.arrive_record(records, key, shares)?
        };
        let (completion, answer) = settled_by(move |is_written| {
            if is_written {
                change.stored()
            }
        });
        self.database.submit(Batch::new().put(table, key, value), Durability::Synced, completion)?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))
    }

    /// False when there is none.
    pub(super) async fn remove_record(&self, records: Records, key: &[u8], shares: Shares) -> Result<bool, StoreError> {
        let (table, _) = self.records(records);
        if !table.contains(key)? {
            return Ok(false);
        }
        let accounting = self.accounting.clone();
        let (completion, answer) = settled_by(move |is_written| {
            if is_written {
                accounting.forget_record(records, &shares);
            }
        });
        self.database.submit(Batch::new().delete(table, key), Durability::Synced, completion)?;
        answer.await.unwrap_or_else(|_| Err(self.database.stopped()))?;
        Ok(true)
    }

    pub(super) async fn put_subscription(&self, record: SubscriptionRecord) -> Result<(), StoreError> {
        let (key, shares) = subscription(&record.topic, &record.subscriber)?;
        self.put_record(Records::Subscriptions, &key, shares, &record).await
    }

    pub(super) async fn remove_subscription(
        &self,
        topic: &MessagingTopic,
        subscriber: &Address,
    ) -> Result<bool, StoreError> {
        let (key, shares) = subscription(topic, subscriber)?;
        self.remove_record(Records::Subscriptions, &key, shares).await
    }

    pub(super) async fn put_topic_list_subscription(
        &self,
        record: TopicListSubscriptionRecord,
    ) -> Result<(), StoreError> {
        if record.id.is_empty() || record.id.len() > TOPIC_LIST_ID_OCTETS_MAX {
            return Err(StoreError::Size);
        }
        let records = Records::TopicListSubscriptions;
        let known = self.tables.topic_list_subscriptions.value(record.id.as_bytes())?;
        let shares = shares_of_topic_list(&record)?;
        if let Some(known) = known {
            let known: TopicListSubscriptionRecord = record::decode_json(keys::TOPIC_LIST_SUBSCRIPTIONS, &known)?;
            // The account it is on is found by what is on disk, so it stays the same.
            if known.originator != record.originator {
                return Err(StoreError::OtherOriginator);
            }
        }
        self.put_record(records, record.id.as_bytes(), shares, &record).await
    }

    pub(super) async fn remove_topic_list_subscription(&self, id: &str) -> Result<bool, StoreError> {
        if id.is_empty() || id.len() > TOPIC_LIST_ID_OCTETS_MAX {
            return Ok(false);
        }
        let Some(known) = self.tables.topic_list_subscriptions.value(id.as_bytes())? else { return Ok(false) };
        let known = record::decode_json(keys::TOPIC_LIST_SUBSCRIPTIONS, &known)?;
        let shares = shares_of_topic_list(&known)?;
        self.remove_record(Records::TopicListSubscriptions, id.as_bytes(), shares).await
    }

    /// Takes up what is on disk.
    pub(super) fn recover_records(&self) -> Result<(), StoreError> {
        let all = |table: &Table| table.range(Bound::Unbounded, Bound::Unbounded);
        for (records, table) in [
            (Records::Registrations, &self.tables.registrations),
            (Records::ApplicationServers, &self.tables.application_servers),
        ] {
            for pair in all(table) {
                pair?;
                self.accounting.recover_record(records, &Shares::default());
            }
        }
        for pair in all(&self.tables.subscriptions) {
            let shares = shares_of_subscription(&pair?.0)?;
            self.accounting.recover_record(Records::Subscriptions, &shares);
        }
        for pair in all(&self.tables.topic_list_subscriptions) {
            // What does not decode is counted all the same; reading it is the error.
            let record = record::decode_json(keys::TOPIC_LIST_SUBSCRIPTIONS, &pair?.1).ok();
            let shares = record.map_or_else(|| Ok(Shares::default()), |record| shares_of_topic_list(&record))?;
            self.accounting.recover_record(Records::TopicListSubscriptions, &shares);
        }
        Ok(())
    }

    fn records(&self, records: Records) -> (&Table, &'static str) {
        match records {
            Records::Registrations => (&self.tables.registrations, keys::REGISTRATIONS),
            Records::ApplicationServers => (&self.tables.application_servers, keys::APPLICATION_SERVERS),
            Records::Subscriptions => (&self.tables.subscriptions, keys::SUBSCRIPTIONS),
            Records::TopicListSubscriptions => (&self.tables.topic_list_subscriptions, keys::TOPIC_LIST_SUBSCRIPTIONS),
        }
    }
}

fn subscription(topic: &MessagingTopic, subscriber: &Address) -> Result<(Vec<u8>, Shares), StoreError> {
    let key = keys::subscription_key(topic.as_str(), &keys::address_key(subscriber)?)?;
    let shares = shares_of_subscription(&key)?;
    Ok((key, shares))
}

/// Who shares in the limits that a subscription's key counts against.
fn shares_of_subscription(key: &[u8]) -> Result<Shares, StoreError> {
    let (topic, subscriber_key) = keys::split_subscription_key(key)?;
    Ok(Shares { subject: Some(topic.into()), owner: Some(subscriber_key.into()) })
}

fn shares_of_topic_list(record: &TopicListSubscriptionRecord) -> Result<Shares, StoreError> {
    let owner = keys::address_key(&record.originator)?.into_boxed_slice();
    Ok(Shares { subject: None, owner: Some(owner) })
}

/// Every record of a table, read on a thread of its own.
pub(super) async fn read_all<T>(table: Table, name: &'static str) -> Result<Vec<T>, StoreError>
where
    T: DeserializeOwned + Send + 'static,
{
    let reading = tokio::task::spawn_blocking(move || {
        table
            .range(Bound::Unbounded, Bound::Unbounded)
            .map(|pair| pair.and_then(|(_, value)| record::decode_json(name, &value)))
            .collect()
    });
    reading.await.unwrap_or_else(|error| Err(StoreError::ReadFailed { reason: error.to_string().into() }))
}
