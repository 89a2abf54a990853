//! Stored messages: order, limits, expiry, deduplication, what a restart keeps.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use message::{Address, Priority};
use store::{
    Batch, Database, DatabaseOptions, DeduplicationRecord, EmbeddedStore, NewStoredMessage, Position, Store,
    StoreError, StoreLimits, StoreOptions, StoredKind, StoredMessage,
};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, StoreOptions::default()).unwrap()
}

fn open_with(path: &Path, limits: StoreLimits) -> EmbeddedStore {
    EmbeddedStore::open(path, StoreOptions { limits, ..StoreOptions::default() }).unwrap()
}

fn ue(name: &str) -> Address {
    Address::ue(&name.parse().unwrap())
}

fn new(recipient: &Address, priority: Priority, body: &str) -> NewStoredMessage {
    NewStoredMessage {
        recipient: recipient.clone(),
        originator: None,
        message_id: None,
        priority,
        expires_at: None,
        kind: StoredKind::Message,
        body: body.into(),
        deduplication: None,
    }
}

fn expiring(recipient: &Address, body: &str, expires_at: OffsetDateTime) -> NewStoredMessage {
    NewStoredMessage { expires_at: Some(expires_at), ..new(recipient, Priority::Middle, body) }
}

fn record(message_id: &str, expires_at: OffsetDateTime) -> DeduplicationRecord {
    DeduplicationRecord {
        originator: ue("sender"),
        message_id: message_id.parse().unwrap(),
        digest: [7; 32],
        answer: b"stored".to_vec(),
        expires_at,
    }
}

fn bodies(messages: &[StoredMessage]) -> Vec<&str> {
    messages.iter().map(|message| std::str::from_utf8(&message.body).unwrap()).collect()
}

#[tokio::test]
async fn messages_come_out_by_priority_then_in_the_order_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let to = ue("meter");
    {
        let store = open(directory.path());
        for (priority, body) in [
            (Priority::Low, "l1"),
            (Priority::Middle, "m1"),
            (Priority::High, "h1"),
            (Priority::Middle, "m2"),
            (Priority::High, "h2"),
            (Priority::Low, "l2"),
        ] {
            store.store_message(new(&to, priority, body)).await.unwrap();
        }
        assert_eq!(bodies(&store.pending(&to, None, 10).await.unwrap()), ["h1", "h2", "m1", "m2", "l1", "l2"]);
    }
    let store = open(directory.path());
    let waiting = store.pending(&to, None, 10).await.unwrap();
    assert_eq!(bodies(&waiting), ["h1", "h2", "m1", "m2", "l1", "l2"]);
    // Page by page, every cut.
    for cut in 0..waiting.len() {
        let rest = store.pending(&to, Some(waiting[cut].position), 10).await.unwrap();
        assert_eq!(bodies(&rest), bodies(&waiting[cut + 1..]));
        assert_eq!(bodies(&store.pending(&to, None, cut).await.unwrap()), bodies(&waiting[..cut]));
    }
}

#[tokio::test]
async fn recipients_do_not_see_each_others_messages() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    // Names that are each other's beginnings, and the same name as another type.
    let recipients = [ue("a"), ue("ab"), ue("abc"), Address::application_server(&"a".parse().unwrap())];
    for recipient in &recipients {
        store.store_message(new(recipient, Priority::Middle, &recipient.to_string())).await.unwrap();
    }
    for recipient in &recipients {
        let waiting = store.pending(recipient, None, 10).await.unwrap();
        assert_eq!(bodies(&waiting), [recipient.to_string().as_str()]);
        assert_eq!(waiting[0].recipient, *recipient);
        assert_eq!(store.pending_count(recipient), 1);
    }
    assert!(store.pending(&ue("abcd"), None, 10).await.unwrap().is_empty());
    let mut named = Vec::new();
    while let Some(next) = store.pending_recipients(named.last(), 1).pop() {
        named.push(next);
    }
    assert_eq!(named.len(), 4);
    assert!(recipients.iter().all(|recipient| named.contains(recipient)));
}

#[tokio::test]
async fn what_was_stored_comes_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let to = ue("meter");
    let expires_at = NOW + Duration::microseconds(1_234_567);
    let position = {
        let store = open(directory.path());
        let message = NewStoredMessage {
            recipient: to.clone(),
            originator: Some(ue("sender")),
            message_id: Some("1".parse().unwrap()),
            priority: Priority::High,
            expires_at: Some(expires_at),
            kind: StoredKind::DeliveryStatusReport,
            body: vec![0, 255, 1],
            deduplication: None,
        };
        store.store_message(message).await.unwrap()
    };
    let waiting = open(directory.path()).pending(&to, None, 10).await.unwrap();
    let expected = StoredMessage {
        recipient: to,
        position,
        expires_at: Some(expires_at),
        kind: StoredKind::DeliveryStatusReport,
        body: vec![0, 255, 1],
    };
    assert_eq!(waiting, [expected]);
    assert_eq!(position.priority(), Priority::High);
}

#[tokio::test]
async fn a_removed_message_is_gone_for_good_and_removed_once() {
    let directory = tempfile::tempdir().unwrap();
    let to = ue("meter");
    let store = open(directory.path());
    let first = store.store_message(new(&to, Priority::Middle, "1")).await.unwrap();
    let second = store.store_message(expiring(&to, "2", NOW)).await.unwrap();
    assert!(store.remove_messages(&ue("other"), vec![first]).await.unwrap().is_empty());

    let claims =
        tokio::join!(store.remove_messages(&to, vec![first, second]), store.remove_messages(&to, vec![second, first]),);
    let mut removed = [claims.0.unwrap(), claims.1.unwrap()].concat();
    removed.sort();
    assert_eq!(removed, [first, second]);
    assert_eq!(store.pending_count(&to), 0);
    assert!(store.pending(&to, None, 10).await.unwrap().is_empty());
    assert!(store.expired(NOW, 10).await.unwrap().is_empty());
    assert!(store.remove_messages(&to, vec![first, second]).await.unwrap().is_empty());

    drop(store);
    let store = open(directory.path());
    assert!(store.pending(&to, None, 10).await.unwrap().is_empty());
    assert!(store.pending_recipients(None, 10).is_empty());
}

#[tokio::test]
async fn a_removal_is_answered_before_it_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let to = ue("meter");
    let store = open(directory.path());
    let mut positions = Vec::new();
    for _ in 0..3 {
        positions.push(store.store_message(new(&to, Priority::Middle, "x")).await.unwrap());
    }
    let syncs = store.statistics().syncs;
    for (before, position) in positions.into_iter().enumerate() {
        store.remove_messages(&to, vec![position]).await.unwrap();
        assert_eq!(store.statistics().syncs, syncs + before as u64, "those before, not this one");
    }
    store.sync().await.unwrap();
    assert_eq!(store.statistics().syncs, syncs + 3);
}

#[tokio::test]
async fn acceptance_numbers_rise_and_are_not_used_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut last: Option<Position> = None;
    for _ in 0..3 {
        let store = open(directory.path());
        for recipient in [ue("a"), ue("b")] {
            let position = store.store_message(new(&recipient, Priority::Low, "x")).await.unwrap();
            assert!(last.is_none_or(|last| position.sequence() > last.sequence()));
            last = Some(position);
            store.remove_messages(&recipient, vec![position]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_high_message_accepted_during_a_drain_is_found_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let to = ue("meter");
    let store = open(directory.path());
    for body in ["m1", "m2", "m3"] {
        store.store_message(new(&to, Priority::Middle, body)).await.unwrap();
    }
    let page = store.pending(&to, None, 1).await.unwrap();
    store.remove_messages(&to, vec![page[0].position]).await.unwrap();
    store.store_message(new(&to, Priority::High, "h1")).await.unwrap();
    assert_eq!(bodies(&store.pending(&to, Some(page[0].position), 10).await.unwrap()), ["m2", "m3"]);
    assert_eq!(bodies(&store.pending(&to, None, 10).await.unwrap()), ["h1", "m2", "m3"]);
}

#[tokio::test]
async fn expired_messages_are_found_earliest_first_and_stay_until_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (ue("a"), ue("b"));
    let store = open(directory.path());
    store.store_message(expiring(&a, "late", NOW + Duration::hours(1))).await.unwrap();
    store.store_message(expiring(&b, "second", NOW)).await.unwrap();
    store.store_message(expiring(&a, "first", NOW - Duration::hours(1))).await.unwrap();
    store.store_message(new(&a, Priority::High, "never")).await.unwrap();

    assert!(store.expired(NOW - Duration::hours(2), 10).await.unwrap().is_empty());
    for _ in 0..2 {
        assert_eq!(bodies(&store.expired(NOW, 10).await.unwrap()), ["first", "second"]);
    }
    assert_eq!(bodies(&store.expired(NOW, 1).await.unwrap()), ["first"]);
    let first = store.expired(NOW, 1).await.unwrap().remove(0);
    assert_eq!(store.remove_messages(&first.recipient, vec![first.position]).await.unwrap().len(), 1);
    assert_eq!(bodies(&store.expired(NOW, 10).await.unwrap()), ["second"]);

    // One that is already late when it is stored, or stored after the clock was set back.
    store.store_message(expiring(&b, "past", NOW - Duration::days(400))).await.unwrap();
    assert_eq!(bodies(&store.expired(NOW, 10).await.unwrap()), ["past", "second"]);
    drop(store);
    let store = open(directory.path());
    assert_eq!(bodies(&store.expired(NOW + Duration::hours(1), 10).await.unwrap()), ["past", "second", "late"]);
}

#[tokio::test]
async fn only_what_has_not_expired_gets_another_expiry() {
    let directory = tempfile::tempdir().unwrap();
    let a = ue("a");
    let store = open(directory.path());
    let expired = store.store_message(expiring(&a, "expired", NOW)).await.unwrap();
    let waiting = store.store_message(expiring(&a, "waiting", NOW + Duration::hours(1))).await.unwrap();
    let later = Some(NOW + Duration::hours(2));
    assert!(!store.update_expiry(&a, expired, NOW, later).await.unwrap());
    assert!(store.update_expiry(&a, waiting, NOW, later).await.unwrap());
    assert_eq!(bodies(&store.expired(NOW + Duration::hours(1), 10).await.unwrap()), ["expired"]);
    assert_eq!(bodies(&store.expired(NOW + Duration::hours(2), 10).await.unwrap()), ["expired", "waiting"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_expiry_is_missed_by_scans_that_run_while_messages_are_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..400_i64 {
                // Times jump back and forth, so that later messages lie before where the last scan ended.
                let expires_at = NOW - Duration::seconds((number * 7_919) % 1_000);
                store.store_message(expiring(&ue("a"), &number.to_string(), expires_at)).await.unwrap();
            }
        })
    };
    let mut seen = 0;
    while seen < 400 {
        let done = writer.is_finished();
        let expired = store.expired(NOW, 100).await.unwrap();
        assert!(!(done && expired.is_empty()), "{} messages were never found", 400 - seen);
        let positions = expired.iter().map(|message| message.position).collect();
        seen += store.remove_messages(&ue("a"), positions).await.unwrap().len();
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert_eq!(store.pending_count(&ue("a")), 0);
}

#[tokio::test]
async fn each_limit_refuses_by_its_name_and_gives_way_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (ue("a"), ue("b"));
    let limits = StoreLimits {
        messages_per_recipient_max: 2,
        messages_max: 3,
        message_bytes_max: 100,
        body_octets_max: 60,
        ..StoreLimits::default()
    };
    let store = open_with(directory.path(), limits.clone());
    let put =
        async |to: &Address, octets: usize| store.store_message(new(to, Priority::Middle, &"x".repeat(octets))).await;
    assert!(matches!(put(&a, 61).await, Err(StoreError::TooLarge)));
    let first = put(&a, 60).await.unwrap();
    assert!(matches!(put(&a, 41).await, Err(StoreError::Full { limit: "message_bytes_max" })));
    put(&a, 20).await.unwrap();
    assert!(matches!(put(&a, 1).await, Err(StoreError::RecipientFull)));
    put(&b, 1).await.unwrap();
    assert!(matches!(put(&b, 1).await, Err(StoreError::Full { limit: "messages_max" })));
    assert_eq!((store.pending_count(&a), store.pending_count(&b)), (2, 1));

    drop(store);
    let store = open_with(directory.path(), limits);
    let put =
        async |to: &Address, octets: usize| store.store_message(new(to, Priority::Middle, &"x".repeat(octets))).await;
    assert!(matches!(put(&a, 1).await, Err(StoreError::RecipientFull)));
    store.remove_messages(&a, vec![first]).await.unwrap();
    put(&a, 60).await.unwrap();
    assert!(matches!(put(&b, 1).await, Err(StoreError::Full { limit: "messages_max" })));
}

#[tokio::test]
async fn one_originator_cannot_fill_the_store_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits { messages_per_originator_max: 2, ..StoreLimits::default() };
    let put = async |store: &EmbeddedStore, from: Option<&str>, to: &str| {
        let message = NewStoredMessage { originator: from.map(ue), ..new(&ue(to), Priority::Middle, "x") };
        store.store_message(message).await
    };
    let store = open_with(directory.path(), limits.clone());
    let first = put(&store, Some("sender"), "a").await.unwrap();
    put(&store, Some("sender"), "b").await.unwrap();
    let error = put(&store, Some("sender"), "c").await.unwrap_err();
    assert!(matches!(error, StoreError::OriginatorFull { limit: "messages_per_originator_max" }), "{error}");
    assert!(error.is_refusal());
    put(&store, Some("other"), "c").await.unwrap();
    for _ in 0..3 {
        put(&store, None, "c").await.unwrap();
    }

    drop(store);
    let store = open_with(directory.path(), limits);
    assert!(put(&store, Some("sender"), "c").await.is_err());
    store.remove_messages(&ue("a"), vec![first]).await.unwrap();
    put(&store, Some("sender"), "c").await.unwrap();
    assert!(put(&store, Some("sender"), "c").await.is_err());
}

#[tokio::test]
async fn deduplication_records_are_limited_for_each_originator() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits { deduplication_records_per_originator_max: 1, ..StoreLimits::default() };
    let put = async |store: &EmbeddedStore, from: &str, id: &str| {
        let deduplication = Some(DeduplicationRecord { originator: ue(from), ..record(id, NOW) });
        store.store_message(NewStoredMessage { deduplication, ..new(&ue("a"), Priority::Middle, id) }).await
    };
    let store = open_with(directory.path(), limits.clone());
    put(&store, "sender", "1").await.unwrap();
    let error = put(&store, "sender", "2").await.unwrap_err();
    assert!(matches!(error, StoreError::OriginatorFull { limit: "deduplication_records_per_originator_max" }));
    put(&store, "other", "1").await.unwrap();

    drop(store);
    let store = open_with(directory.path(), limits);
    assert!(put(&store, "sender", "2").await.is_err());
    assert_eq!(store.sweep_deduplication(NOW, 10).await.unwrap(), 2);
    put(&store, "sender", "2").await.unwrap();
}

#[tokio::test]
async fn a_store_of_the_layout_before_is_taken_up() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).store_message(new(&ue("a"), Priority::Middle, "x")).await.unwrap();
    {
        let database = Database::open(directory.path(), DatabaseOptions::default()).unwrap();
        let meta = database.table("meta").unwrap();
        database.commit(Batch::new().put(&meta, "layout", 1_u32.to_be_bytes())).await.unwrap();
    }
    let waiting = open(directory.path()).pending(&ue("a"), None, 10).await.unwrap();
    assert_eq!(bodies(&waiting), ["x"]);
    open(directory.path());
}

#[tokio::test]
async fn a_refused_message_counts_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let database = DatabaseOptions { free_bytes_min: u64::MAX, ..DatabaseOptions::default() };
    let store = EmbeddedStore::open(directory.path(), StoreOptions { database, ..StoreOptions::default() }).unwrap();
    let message = NewStoredMessage { deduplication: Some(record("1", NOW)), ..new(&ue("a"), Priority::Middle, "x") };
    let error = store.store_message(message).await.unwrap_err();
    assert!(matches!(error, StoreError::DiskFull), "{error}");
    assert!(error.is_refusal());
    assert_eq!(store.pending_count(&ue("a")), 0);
    assert!(store.pending_recipients(None, 10).is_empty());
    assert!(store.deduplication_lookup(&ue("sender"), &"1".parse().unwrap()).await.unwrap().is_none());
    assert!(store.pending(&ue("a"), None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_deduplication_record_is_as_durable_as_its_message_and_swept_after_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let to = ue("meter");
    let with_record = |id: &str, expires_at| NewStoredMessage {
        deduplication: Some(record(id, expires_at)),
        ..new(&to, Priority::Middle, id)
    };
    {
        let store = open(directory.path());
        store.store_message(with_record("1", NOW)).await.unwrap();
        store.store_message(with_record("2", NOW + Duration::hours(1))).await.unwrap();
    }
    let store = open(directory.path());
    let find = async |originator: &Address, id: &str| {
        store.deduplication_lookup(originator, &id.parse().unwrap()).await.unwrap()
    };
    assert_eq!(find(&ue("sender"), "1").await, Some(record("1", NOW)));
    assert_eq!(find(&ue("someone-else"), "1").await, None);
    assert_eq!(find(&ue("sender"), "3").await, None);

    assert_eq!(store.sweep_deduplication(NOW - Duration::seconds(1), 10).await.unwrap(), 0);
    assert_eq!(store.sweep_deduplication(NOW, 10).await.unwrap(), 1);
    assert_eq!(find(&ue("sender"), "1").await, None);
    assert!(find(&ue("sender"), "2").await.is_some());
    // The message itself stays.
    assert_eq!(store.pending_count(&to), 2);
}

#[tokio::test]
async fn a_renewed_deduplication_record_outlives_its_first_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for expires_at in [NOW, NOW + Duration::hours(1)] {
        let deduplication = Some(record("1", expires_at));
        let message = NewStoredMessage { deduplication, ..new(&ue("a"), Priority::Middle, "x") };
        store.store_message(message).await.unwrap();
    }
    assert_eq!(store.sweep_deduplication(NOW, 10).await.unwrap(), 1);
    assert!(store.deduplication_lookup(&ue("sender"), &"1".parse().unwrap()).await.unwrap().is_some());
    assert_eq!(store.sweep_deduplication(NOW + Duration::hours(1), 10).await.unwrap(), 1);
    assert!(store.deduplication_lookup(&ue("sender"), &"1".parse().unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn deduplication_records_are_limited_and_a_sweep_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StoreLimits { deduplication_records_max: 2, ..StoreLimits::default() };
    let store = open_with(directory.path(), limits);
    let put = async |id: &str| {
        let deduplication = Some(record(id, NOW));
        store.store_message(NewStoredMessage { deduplication, ..new(&ue("a"), Priority::Middle, id) }).await
    };
    put("1").await.unwrap();
    put("2").await.unwrap();
    assert!(matches!(put("3").await, Err(StoreError::Full { limit: "deduplication_records_max" })));
    assert_eq!(store.sweep_deduplication(NOW, 1).await.unwrap(), 1);
    put("3").await.unwrap();
    assert!(put("4").await.is_err());
    assert_eq!(store.sweep_deduplication(NOW, 10).await.unwrap(), 2);
}

#[tokio::test]
async fn a_body_of_any_octets_is_not_printed() {
    let message =
        NewStoredMessage { deduplication: Some(record("1", NOW)), ..new(&ue("a"), Priority::Middle, "confidential") };
    assert!(!format!("{message:?}").contains("confidential"));
    assert!(!format!("{message:?}").contains("115"), "neither as numbers");
}

#[tokio::test]
async fn a_store_of_another_layout_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    {
        let database = Database::open(directory.path(), DatabaseOptions::default()).unwrap();
        let meta = database.table("meta").unwrap();
        database.commit(Batch::new().put(&meta, "layout", 4_u32.to_be_bytes())).await.unwrap();
    }
    let error = EmbeddedStore::open(directory.path(), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Layout { found: 4, expected: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_value_that_does_not_decode_is_an_error_not_a_message() {
    let directory = tempfile::tempdir().unwrap();
    let to = ue("meter");
    open(directory.path()).store_message(new(&to, Priority::Middle, "x")).await.unwrap();
    {
        let database = Database::open(directory.path(), DatabaseOptions::default()).unwrap();
        let messages = database.table("messages").unwrap();
        let (key, _) = messages.scan_prefix(b"", None, 1).unwrap().remove(0);
        database.commit(Batch::new().put(&messages, key, [200])).await.unwrap();
    }
    let store = open(directory.path());
    assert!(matches!(store.pending(&to, None, 10).await, Err(StoreError::Corrupt { table: "messages", .. })));
}
