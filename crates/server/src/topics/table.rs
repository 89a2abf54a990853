//! Topics and subscriptions in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use message::{Address, MessagingTopic};
use store::SubscriptionRecord;
use time::OffsetDateTime;

/// Bounded by the store, which holds every subscription that is here.
#[derive(Debug, Default)]
pub(super) struct Table {
    topics: HashMap<MessagingTopic, BTreeMap<Address, Held>>,
    subscribers: HashMap<Address, BTreeSet<MessagingTopic>>,
    /// By the time they end.
    expiry: BTreeSet<(OffsetDateTime, MessagingTopic, Address)>,
    subscriptions: usize,
}

#[derive(Debug)]
struct Held {
    expires_at: Option<OffsetDateTime>,
    on_behalf_of: Option<String>,
}

impl Table {
    /// Holds it in place of an earlier one; true if the topic is new.
    pub(super) fn insert(&mut self, record: &SubscriptionRecord) -> bool {
        self.drop_expiry(&record.topic, &record.subscriber);
        let is_new = !self.topics.contains_key(&record.topic);
        let held = Held { expires_at: record.expires_at, on_behalf_of: record.on_behalf_of.clone() };
        let subscribers = self.topics.entry(record.topic.clone()).or_default();
        if subscribers.insert(record.subscriber.clone(), held).is_none() {
            self.subscriptions += 1;
        }
        self.subscribers.entry(record.subscriber.clone()).or_default().insert(record.topic.clone());
        if let Some(at) = record.expires_at {
            self.expiry.insert((at, record.topic.clone(), record.subscriber.clone()));
        }
        is_new
    }

    /// True if the topic is gone with it.
    pub(super) fn remove(&mut self, topic: &MessagingTopic, subscriber: &Address) -> bool {
        self.drop_expiry(topic, subscriber);
        let Some(subscribers) = self.topics.get_mut(topic) else { return false };
        if subscribers.remove(subscriber).is_none() {
            return false;
        }
        self.subscriptions -= 1;
        let is_gone = subscribers.is_empty();
        if is_gone {
            self.topics.remove(topic);
        }
        if let Some(topics) = self.subscribers.get_mut(subscriber) {
            topics.remove(topic);
            if topics.is_empty() {
                self.subscribers.remove(subscriber);
            }
        }
        is_gone
    }

    fn drop_expiry(&mut self, topic: &MessagingTopic, subscriber: &Address) {
        let held = self.topics.get(topic).and_then(|subscribers| subscribers.get(subscriber));
        if let Some(at) = held.and_then(|held| held.expires_at) {
            self.expiry.remove(&(at, topic.clone(), subscriber.clone()));
        }
    }

    pub(super) fn find(&self, topic: &MessagingTopic, subscriber: &Address) -> Option<SubscriptionRecord> {
        let held = self.topics.get(topic)?.get(subscriber)?;
        Some(SubscriptionRecord {
            topic: topic.clone(),
            subscriber: subscriber.clone(),
            expires_at: held.expires_at,
            on_behalf_of: held.on_behalf_of.clone(),
        })
    }

    pub(super) fn subscribers(&self, topic: &MessagingTopic, now: OffsetDateTime) -> Vec<Address> {
        let lasting = |held: &Held| held.expires_at.is_none_or(|at| at > now);
        let subscribers = self.topics.get(topic).into_iter().flatten();
        subscribers.filter(|(_, held)| lasting(held)).map(|(subscriber, _)| subscriber.clone()).collect()
    }

    pub(super) fn topics_of(&self, subscriber: &Address) -> Vec<MessagingTopic> {
        self.subscribers.get(subscriber).into_iter().flatten().cloned().collect()
    }

    /// Every topic there is.
    pub(super) fn topics(&self) -> impl Iterator<Item = &MessagingTopic> {
        self.topics.keys()
    }

    pub(super) fn expired(&self, now: OffsetDateTime, limit: usize) -> Vec<(MessagingTopic, Address)> {
        let expired = self.expiry.iter().take_while(|(at, _, _)| *at <= now).take(limit);
        expired.map(|(_, topic, subscriber)| (topic.clone(), subscriber.clone())).collect()
    }

    /// Topics, and subscriptions to them.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.topics.len(), self.subscriptions)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn record(topic: u8, subscriber: u8, expires: Option<i64>) -> SubscriptionRecord {
        SubscriptionRecord {
            topic: format!("t{topic}").parse().unwrap(),
            subscriber: Address::ue(&format!("u{subscriber}").parse().unwrap()),
            expires_at: expires.map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap()),
            on_behalf_of: None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_table_is_what_a_plain_map_would_be(
            steps in proptest::collection::vec((any::<bool>(), 0_u8..4, 0_u8..4, proptest::option::of(0_i64..50)), 0..80),
            now in 0_i64..50,
        ) {
            let mut table = Table::default();
            let mut model: BTreeMap<(MessagingTopic, Address), Option<OffsetDateTime>> = BTreeMap::new();
            for (insert, topic, subscriber, expires) in steps {
                let record = record(topic, subscriber, expires);
                let key = (record.topic.clone(), record.subscriber.clone());
                let before = model.keys().any(|(topic, _)| *topic == record.topic);
                if insert {
                    prop_assert_eq!(table.insert(&record), !before);
                    model.insert(key, record.expires_at);
                } else {
                    let there = model.remove(&key).is_some();
                    let after = model.keys().any(|(topic, _)| *topic == record.topic);
                    prop_assert_eq!(table.remove(&record.topic, &record.subscriber), there && !after);
                }
            }
            let now = OffsetDateTime::from_unix_timestamp(now).unwrap();
            for number in 0..4 {
                let record = record(number, number, None);
                let of_topic = model.iter().filter(|((topic, _), at)| *topic == record.topic && at.is_none_or(|at| at > now));
                let subscribers: Vec<_> = of_topic.map(|((_, subscriber), _)| subscriber.clone()).collect();
                prop_assert_eq!(table.subscribers(&record.topic, now), subscribers);
                let topics = model.keys().filter(|(_, subscriber)| *subscriber == record.subscriber);
                let topics: Vec<_> = topics.map(|(topic, _)| topic.clone()).collect();
                prop_assert_eq!(table.topics_of(&record.subscriber), topics);
            }
            let expired = model.values().filter(|at| at.is_some_and(|at| at <= now)).count();
            prop_assert_eq!(table.expired(now, 1000).len(), expired);
            prop_assert_eq!(table.counts().1, model.len());
            prop_assert_eq!(table.topics().count(), table.counts().0);
        }
    }
}
