//! Messages found by their originator's name for them, and given another expiry.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use message::{Address, Priority};
use store::{
    Batch, Database, DatabaseOptions, EmbeddedStore, NewStoredMessage, Position, Store, StoreOptions, StoredKind,
};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
/// Nothing here has expired by then.
const BEFORE: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, StoreOptions::default()).unwrap()
}

fn ue(name: &str) -> Address {
    Address::ue(&name.parse().unwrap())
}

fn new(to: &str, from: Option<&str>, id: Option<&str>, priority: Priority) -> NewStoredMessage {
    NewStoredMessage {
        recipient: ue(to),
        originator: from.map(ue),
        message_id: id.map(|id| id.parse().unwrap()),
        priority,
        expires_at: Some(NOW),
        kind: StoredKind::Message,
        body: b"body".to_vec(),
        deduplication: None,
    }
}

async fn find(store: &EmbeddedStore, from: &str, id: &str) -> Vec<(Address, Position)> {
    store.find_stored(&ue(from), &id.parse().unwrap(), None, 100).await.unwrap()
}

#[tokio::test]
async fn a_message_is_found_by_its_originators_name_for_it_until_it_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let put = async |message| store.store_message(message).await.unwrap();
    let low = put(new("a", Some("s"), Some("1"), Priority::Low)).await;
    let high = put(new("b", Some("s"), Some("1"), Priority::High)).await;
    // Names and originators that are each other's beginnings, others' messages of the same name, and none.
    for (from, id) in [(Some("s"), Some("11")), (Some("s1"), Some("1")), (None, Some("1")), (Some("s"), None)] {
        put(new("a", from, id, Priority::Middle)).await;
    }
    let expected = [(ue("b"), high), (ue("a"), low)];
    assert_eq!(find(&store, "s", "1").await, expected);
    let message_id = "1".parse().unwrap();
    assert_eq!(store.find_stored(&ue("s"), &message_id, Some(high), 100).await.unwrap(), expected[1..]);
    assert_eq!(store.find_stored(&ue("s"), &message_id, None, 1).await.unwrap(), expected[..1]);
    assert!(find(&store, "nobody", "1").await.is_empty());
    drop(store);
    let store = open(directory.path());
    assert_eq!(find(&store, "s", "1").await, expected);
    store.remove_messages(&ue("b"), vec![high]).await.unwrap();
    assert_eq!(find(&store, "s", "1").await, expected[1..]);
}

#[tokio::test]
async fn another_expiry_keeps_the_place_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let position = store.store_message(new("a", Some("s"), Some("1"), Priority::Low)).await.unwrap();
    let unnamed = store.store_message(new("a", None, None, Priority::Low)).await.unwrap();
    let later = NOW + Duration::hours(1);
    for position in [position, unnamed] {
        assert!(store.update_expiry(&ue("a"), position, BEFORE, Some(later)).await.unwrap());
    }
    assert!(store.expired(NOW, 10).await.unwrap().is_empty());
    drop(store);
    let store = open(directory.path());
    let due = store.expired(later, 10).await.unwrap();
    assert_eq!(due.iter().map(|message| message.position).collect::<Vec<_>>(), [position, unnamed]);
    assert!(due.iter().all(|message| message.expires_at == Some(later) && message.body == b"body"));
    assert_eq!(find(&store, "s", "1").await, [(ue("a"), position)]);

    // Earlier than where the last scan ended, then never.
    let early = NOW - Duration::hours(1);
    assert!(store.update_expiry(&ue("a"), position, BEFORE, Some(early)).await.unwrap());
    assert_eq!(store.expired(early, 10).await.unwrap().len(), 1);
    assert!(store.update_expiry(&ue("a"), position, BEFORE, None).await.unwrap());
    assert_eq!(store.expired(later, 10).await.unwrap().len(), 1);
    store.remove_messages(&ue("a"), vec![position, unnamed]).await.unwrap();
    assert!(!store.update_expiry(&ue("a"), position, BEFORE, Some(later)).await.unwrap());
    assert!(store.expired(later, 10).await.unwrap().is_empty());
    drop(store);
    let database = Database::open(directory.path(), DatabaseOptions::default()).unwrap();
    for table in ["messages", "message_expiry", "message_names"] {
        assert!(database.table(table).unwrap().scan_prefix(b"", None, 1).unwrap().is_empty(), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_updated_while_it_is_removed_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for round in 0..30 {
        let position = store.store_message(new("a", Some("s"), Some("1"), Priority::Low)).await.unwrap();
        let update = |hours| {
            let store = store.clone();
            tokio::spawn(async move {
                store.update_expiry(&ue("a"), position, BEFORE, Some(NOW + Duration::hours(hours))).await.unwrap()
            })
        };
        let updates = [update(1), update(2), update(3)];
        let removed = store.remove_messages(&ue("a"), vec![position]).await.unwrap();
        for update in updates {
            update.await.unwrap();
        }
        assert_eq!(removed, [position], "round {round}");
        assert_eq!(store.pending_count(&ue("a")), 0);
        assert!(store.pending(&ue("a"), None, 10).await.unwrap().is_empty());
        assert!(find(&store, "s", "1").await.is_empty());
        assert!(store.expired(NOW + Duration::days(1), 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn messages_of_every_earlier_layout_are_delivered_updated_and_removed() {
    let address = |name: &[u8]| [&b"\x02UE\x01"[..], name].concat();
    let expiry = u64::try_from(NOW.unix_timestamp_nanos() / 1_000).unwrap().to_be_bytes();
    let head = |coding: u8| [&[coding, 1][..], &expiry].concat();
    for (layout, value) in [(1_u32, head(1)), (2, [head(2), address(b"s")].concat())] {
        let directory = tempfile::tempdir().unwrap();
        {
            let database = Database::open(directory.path(), DatabaseOptions::default()).unwrap();
            let table = |name| database.table(name).unwrap();
            let key = [address(b"a"), vec![1], 7_u64.to_be_bytes().to_vec()].concat();
            let batch = Batch::new()
                .put(&table("meta"), "layout", layout.to_be_bytes())
                .put(&table("messages"), &key, [value, b"body".to_vec()].concat())
                .put(&table("message_expiry"), [expiry.to_vec(), key.clone()].concat(), []);
            database.commit(batch).await.unwrap();
        }
        for _ in 0..2 {
            let store = open(directory.path());
            let waiting = store.pending(&ue("a"), None, 10).await.unwrap();
            assert_eq!((waiting.len(), waiting[0].body.as_slice()), (1, &b"body"[..]), "layout {layout}");
            assert!(store.update_expiry(&ue("a"), waiting[0].position, BEFORE, Some(NOW)).await.unwrap());
            assert_eq!(store.expired(NOW, 10).await.unwrap().len(), 1);
            assert!(store.jobs(None, 1).await.unwrap().is_empty());
        }
        let store = open(directory.path());
        let position = store.pending(&ue("a"), None, 1).await.unwrap()[0].position;
        assert!(store.update_expiry(&ue("a"), position, BEFORE, None).await.unwrap());
        assert_eq!(store.remove_messages(&ue("a"), vec![position]).await.unwrap(), [position]);
        assert_eq!(store.pending_count(&ue("a")), 0);
    }
}
