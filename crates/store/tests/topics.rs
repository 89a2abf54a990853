//! Subscriptions to topics and to the list of topics.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use message::Address;
use store::{
    EmbeddedStore, Store, StoreError, StoreLimits, StoreOptions, SubscriptionRecord, TOPIC_LIST_ID_OCTETS_MAX,
    TopicListSubscriptionRecord,
};
use time::macros::datetime;

fn ue(name: &str) -> Address {
    Address::ue(&name.parse().unwrap())
}

fn subscription(topic: &str, subscriber: &str) -> SubscriptionRecord {
    SubscriptionRecord {
        topic: topic.parse().unwrap(),
        subscriber: ue(subscriber),
        expires_at: Some(datetime!(2026-11-23 12:00 UTC)),
        on_behalf_of: Some("gateway".to_owned()),
    }
}

fn topic_list(id: &str, originator: &str) -> TopicListSubscriptionRecord {
    TopicListSubscriptionRecord {
        id: id.to_owned(),
        originator: ue(originator),
        notification_uri: "https://as.example/notify?token=secret".to_owned(),
        certificate_identity: Some("as.example".to_owned()),
        expires_at: None,
    }
}

fn open(path: &std::path::Path, limits: StoreLimits) -> EmbeddedStore {
    EmbeddedStore::open(path, StoreOptions { limits, ..StoreOptions::default() }).unwrap()
}

#[tokio::test]
async fn subscriptions_survive_a_restart_and_a_topics_subscribers_stay_together() {
    let directory = tempfile::tempdir().unwrap();
    {
        let store = open(directory.path(), StoreLimits::default());
        // Topics and names that are each other's beginnings.
        for (topic, subscriber) in [("ab", "c"), ("a", "bc"), ("a", "b"), ("abc", "d"), ("a", "gone")] {
            store.put_subscription(subscription(topic, subscriber)).await.unwrap();
        }
        let renewed = SubscriptionRecord { expires_at: None, on_behalf_of: None, ..subscription("a", "b") };
        store.put_subscription(renewed).await.unwrap();
        assert!(store.remove_subscription(&"a".parse().unwrap(), &ue("gone")).await.unwrap());
        assert!(!store.remove_subscription(&"a".parse().unwrap(), &ue("gone")).await.unwrap());
        assert!(!store.remove_subscription(&"ab".parse().unwrap(), &ue("bc")).await.unwrap());
    }
    let store = open(directory.path(), StoreLimits::default());
    let renewed = SubscriptionRecord { expires_at: None, on_behalf_of: None, ..subscription("a", "b") };
    let expected = [renewed, subscription("a", "bc"), subscription("ab", "c"), subscription("abc", "d")];
    assert_eq!(store.subscriptions().await.unwrap(), expected);
}

#[tokio::test]
async fn each_limit_on_subscriptions_refuses_by_its_name_and_counts_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        subscriptions_max: 4,
        subscriptions_per_topic_max: 2,
        subscriptions_per_subscriber_max: 2,
        ..StoreLimits::default()
    };
    {
        let store = open(directory.path(), limits.clone());
        for (topic, subscriber) in [("a", "x"), ("a", "y"), ("b", "x")] {
            store.put_subscription(subscription(topic, subscriber)).await.unwrap();
        }
    }
    let store = open(directory.path(), limits);
    let refused = store.put_subscription(subscription("a", "z")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full { limit: "subscriptions_per_topic_max" }), "{refused:?}");
    let refused = store.put_subscription(subscription("c", "x")).await.unwrap_err();
    assert!(matches!(refused, StoreError::OriginatorFull { limit: "subscriptions_per_subscriber_max" }), "{refused:?}");
    store.put_subscription(subscription("a", "x")).await.unwrap();
    store.put_subscription(subscription("c", "z")).await.unwrap();
    let refused = store.put_subscription(subscription("d", "z")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full { limit: "subscriptions_max" }), "{refused:?}");
    assert!(store.remove_subscription(&"a".parse().unwrap(), &ue("x")).await.unwrap());
    store.put_subscription(subscription("a", "w")).await.unwrap();
}

#[tokio::test]
async fn a_record_of_hostile_size_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), StoreLimits { record_octets_max: 1_000, ..StoreLimits::default() });
    let large = SubscriptionRecord { on_behalf_of: Some("x".repeat(1_000)), ..subscription("a", "b") };
    assert!(matches!(store.put_subscription(large).await, Err(StoreError::TooLarge)));
    let longest = subscription(&"t".repeat(255), &"s".repeat(255));
    store.put_subscription(longest.clone()).await.unwrap();
    assert_eq!(store.subscriptions().await.unwrap(), [longest]);
    for id in [String::new(), "x".repeat(TOPIC_LIST_ID_OCTETS_MAX + 1)] {
        let refused = store.put_topic_list_subscription(topic_list(&id, "a")).await;
        assert!(matches!(refused, Err(StoreError::Size)));
        assert!(!store.remove_topic_list_subscription(&id).await.unwrap());
    }
    let uri = TopicListSubscriptionRecord { notification_uri: "x".repeat(1_000), ..topic_list("1", "a") };
    assert!(matches!(store.put_topic_list_subscription(uri).await, Err(StoreError::TooLarge)));
}

#[tokio::test]
async fn subscriptions_to_the_list_of_topics_survive_a_restart_and_are_limited() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits {
        topic_list_subscriptions_max: 3,
        topic_list_subscriptions_per_originator_max: 2,
        ..StoreLimits::default()
    };
    {
        let store = open(directory.path(), limits.clone());
        store.put_topic_list_subscription(topic_list("2", "a")).await.unwrap();
        store.put_topic_list_subscription(topic_list("1", "a")).await.unwrap();
    }
    let store = open(directory.path(), limits);
    assert_eq!(store.topic_list_subscriptions().await.unwrap(), [topic_list("1", "a"), topic_list("2", "a")]);
    let refused = store.put_topic_list_subscription(topic_list("3", "a")).await.unwrap_err();
    let limit = "topic_list_subscriptions_per_originator_max";
    assert!(matches!(refused, StoreError::OriginatorFull { limit: found } if found == limit), "{refused:?}");
    let refused = store.put_topic_list_subscription(topic_list("1", "b")).await;
    assert!(matches!(refused, Err(StoreError::OtherOriginator)), "{refused:?}");
    store.put_topic_list_subscription(topic_list("3", "b")).await.unwrap();
    let refused = store.put_topic_list_subscription(topic_list("4", "b")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full { limit: "topic_list_subscriptions_max" }), "{refused:?}");
    assert!(store.remove_topic_list_subscription("1").await.unwrap());
    assert!(!store.remove_topic_list_subscription("1").await.unwrap());
    store.put_topic_list_subscription(topic_list("4", "a")).await.unwrap();
    assert!(!format!("{:?}", topic_list("1", "a")).contains("secret"));
}
