//! Registrations and application servers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use store::{ApplicationServerRecord, EmbeddedStore, RegistrationRecord, Store, StoreError, StoreLimits, StoreOptions};
use time::macros::datetime;

fn registration(name: &str) -> RegistrationRecord {
    RegistrationRecord {
        ue_service_id: name.parse().unwrap(),
        ue_id: Some("imsi-001010000000001".to_owned()),
        a_kid: Some("0.abc@5gc.mnc001.mcc001.3gppnetwork.org".to_owned()),
        gpsi: Some("msisdn-491700000001".to_owned()),
        segment_size: Some(2_048),
        client_profile: Some(serde_json::json!({"aggrSup": true, "commAvail": {"commDur": 60}})),
        registered_at: datetime!(2026-11-23 12:00 UTC),
    }
}

fn application_server(name: &str) -> ApplicationServerRecord {
    ApplicationServerRecord {
        as_service_id: name.parse().unwrap(),
        target_uri: "https://as.example/msgin5g".to_owned(),
        certificate_identity: Some("urn:uuid:0b8b4a3e-0000-4000-8000-000000000001".to_owned()),
        profile: Some(serde_json::json!({"asName": "billing"})),
        registered_at: datetime!(2026-11-23 12:00 UTC),
    }
}

#[tokio::test]
async fn registrations_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    {
        let store = EmbeddedStore::open(directory.path(), StoreOptions::default()).unwrap();
        for name in ["b", "a", "c"] {
            store.put_registration(registration(name)).await.unwrap();
        }
        let changed = RegistrationRecord { segment_size: None, ..registration("a") };
        store.put_registration(changed).await.unwrap();
        store.remove_registration(&"b".parse().unwrap()).await.unwrap();
        store.remove_registration(&"never".parse().unwrap()).await.unwrap();
        store.put_application_server(application_server("billing")).await.unwrap();
        store.put_application_server(application_server("gone")).await.unwrap();
        store.remove_application_server(&"gone".parse().unwrap()).await.unwrap();
    }
    let store = EmbeddedStore::open(directory.path(), StoreOptions::default()).unwrap();
    let changed = RegistrationRecord { segment_size: None, ..registration("a") };
    assert_eq!(store.registrations().await.unwrap(), [changed.clone(), registration("c")]);
    assert_eq!(store.registration(&"a".parse().unwrap()).await.unwrap(), Some(changed));
    assert_eq!(store.registration(&"b".parse().unwrap()).await.unwrap(), None);
    assert_eq!(store.application_servers().await.unwrap(), [application_server("billing")]);
}

#[tokio::test]
async fn records_are_limited_but_known_ones_may_change() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits { registrations_max: 2, application_servers_max: 1, ..StoreLimits::default() };
    let options = StoreOptions { limits, ..StoreOptions::default() };
    let store = EmbeddedStore::open(directory.path(), options.clone()).unwrap();
    store.put_registration(registration("a")).await.unwrap();
    store.put_registration(registration("b")).await.unwrap();
    drop(store);

    let store = EmbeddedStore::open(directory.path(), options).unwrap();
    store.put_registration(registration("a")).await.unwrap();
    let refused = store.put_registration(registration("c")).await;
    assert!(matches!(refused, Err(StoreError::Full { limit: "registrations_max" })));
    store.remove_registration(&"a".parse().unwrap()).await.unwrap();
    store.put_registration(registration("c")).await.unwrap();

    store.put_application_server(application_server("one")).await.unwrap();
    let refused = store.put_application_server(application_server("two")).await;
    assert!(matches!(refused, Err(StoreError::Full { limit: "application_servers_max" })));
}

#[tokio::test]
async fn the_same_new_registration_put_twice_at_once_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits { registrations_max: 2, ..StoreLimits::default() };
    let store = EmbeddedStore::open(directory.path(), StoreOptions { limits, ..StoreOptions::default() }).unwrap();
    let both = tokio::join!(store.put_registration(registration("a")), store.put_registration(registration("a")));
    both.0.unwrap();
    both.1.unwrap();
    store.put_registration(registration("b")).await.unwrap();
}

#[test]
fn a_subscribers_identity_is_not_printed() {
    assert!(!format!("{:?}", registration("a")).contains("imsi"));
}
