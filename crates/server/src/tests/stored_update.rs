//! Stored messages that their originator updates or discards (TS 23.554 clause 8.3.6.1).

use message::StoredMessageUpdate;
use time::OffsetDateTime;

use super::*;

fn update(from: &str, id: &str, expiration_time: Option<OffsetDateTime>) -> UeMessage {
    UeMessage::StoredMessageUpdate(StoredMessageUpdate {
        originator: address(from),
        message_id: id.parse().unwrap(),
        expiration_time,
    })
}

async fn ask(ue: &mut Ue, update: &UeMessage) -> Fate {
    Fate::of(&ue.exchange(&update.encode()).await)
}

fn discarded() -> Fate {
    Fate { code: "2.02".into(), ..Fate::delivered() }
}

fn not_stored() -> Fate {
    Fate::failed("4.04", "MESSAGE_NOT_STORED")
}

fn in_seconds(seconds: i64) -> OffsetDateTime {
    (OffsetDateTime::now_utc() + time::Duration::seconds(seconds)).replace_nanosecond(0).unwrap()
}

#[tokio::test]
async fn a_stored_message_lives_as_long_as_its_originator_says_last() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let soon = OffsetDateTime::now_utc() + time::Duration::seconds(3);
    let sent = Message { expiration_time: Some(soon), ..storable("alice", "bob", "1") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    let later = in_seconds(3600);
    assert_eq!(ask(&mut alice, &update("alice", "1", Some(later))).await, Fate::stored());
    until(|| OffsetDateTime::now_utc() > soon).await;
    crate::inbox::sweep_expired(&net.core).await;
    alice.leave().await;
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.ue("bob").await;
    assert_eq!(bob.receive().await.expiration_time, Some(later));
    until(|| net.stored_for("bob") == 0).await;
    assert_eq!(ask(&mut alice, &update("alice", "1", Some(later))).await, not_stored());
    // And no longer.
    bob.leave().await;
    let sent = Message { delivery_status_required: true, ..storable("alice", "bob", "2") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    assert_eq!(ask(&mut alice, &update("alice", "2", Some(in_seconds(-1)))).await, Fate::stored());
    crate::inbox::sweep_expired(&net.core).await;
    assert_eq!(alice.receive_report().await.failure_cause.as_deref(), Some("EXPIRED"));
    assert_eq!(net.stored_for("bob"), 0);
}

#[tokio::test]
async fn an_expiry_beyond_the_longest_is_brought_down_to_it() {
    let net = Net::with(Limits { expiry_max_seconds: 60, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    assert_eq!(ask(&mut alice, &update("alice", "1", Some(in_seconds(3600)))).await, Fate::stored());
    let expires_at = net.ue("bob").await.receive().await.expiration_time.unwrap();
    assert!(expires_at <= in_seconds(61), "{expires_at}");
}

#[tokio::test]
async fn a_discarded_message_is_delivered_to_nobody_and_its_repetition_is_told_so() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    for id in ["1", "2", "3"] {
        assert_eq!(alice.send(&storable("alice", "bob", id)).await, Fate::stored());
    }
    assert_eq!(ask(&mut alice, &update("alice", "2", None)).await, discarded());
    assert_eq!(net.stored_for("bob"), 2);
    assert_eq!(ask(&mut alice, &update("alice", "2", None)).await, not_stored());
    assert_eq!(alice.send(&storable("alice", "bob", "2")).await, Fate::failed("2.04", "DISCARDED"));
    alice.leave().await;
    let net = net.restart().await;
    let mut bob = net.ue("bob").await;
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
    assert_eq!(bob.receive().await.message_id.as_str(), "3");
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn what_waits_behind_a_slow_recipient_is_updated_and_discarded_and_what_is_under_way_is_not_called_back() {
    let net = Net::with(Limits { delivery_window: 1, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    for id in ["1", "2", "3", "4"] {
        assert_eq!(alice.send(&storable("alice", "bob", id)).await, Fate::stored());
    }
    let mut bob = net.ue("bob").await;
    let (first, _) = bob.delivery().await;
    let later = in_seconds(7200);
    assert_eq!(ask(&mut alice, &update("alice", "1", None)).await, not_stored());
    assert_eq!(ask(&mut alice, &update("alice", "1", Some(later))).await, Fate::stored());
    assert_eq!(ask(&mut alice, &update("alice", "2", None)).await, discarded());
    assert_eq!(ask(&mut alice, &update("alice", "3", Some(later))).await, Fate::stored());
    bob.respond(first, Code::CHANGED).await;
    let third = bob.receive().await;
    assert_eq!((third.message_id.as_str(), third.expiration_time), ("3", Some(later)));
    assert_eq!(bob.receive().await.message_id.as_str(), "4");
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn nobody_updates_another_ones_message() {
    let net = Net::new().await;
    let (mut alice, mut carol) = (net.ue("alice").await, net.ue("carol").await);
    net.away_ue("bob").await;
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    assert_eq!(ask(&mut carol, &update("carol", "1", None)).await, not_stored());
    assert_eq!(ask(&mut carol, &update("alice", "1", None)).await, Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED"));
    assert_eq!(ask(&mut alice, &update("alice", "2", None)).await, not_stored());
    assert_eq!(net.stored_for("bob"), 1);
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn all_segments_of_a_stored_message_are_discarded_together() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let long = Message { payload: vec![7; 5000], ..storable("alice", "bob", "1") };
    for segment in message::segmentation::segment(&long, "set".parse().unwrap(), 2048).unwrap() {
        assert_eq!(alice.send(&segment).await, Fate::stored());
    }
    assert_eq!(net.stored_for("bob"), 3);
    assert_eq!(ask(&mut alice, &update("alice", "1", None)).await, discarded());
    assert_eq!(net.stored_for("bob"), 0);
}

#[tokio::test]
async fn a_message_whose_time_is_over_is_expired_whether_or_not_it_was_swept() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let soon = OffsetDateTime::now_utc() + time::Duration::seconds(3);
    let sent = Message { expiration_time: Some(soon), delivery_status_required: true, ..storable("alice", "bob", "1") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    until(|| OffsetDateTime::now_utc() > soon).await;
    assert_eq!(ask(&mut alice, &update("alice", "1", Some(in_seconds(3600)))).await, not_stored());
    crate::inbox::sweep_expired(&net.core).await;
    assert_eq!(alice.receive_report().await.failure_cause.as_deref(), Some("EXPIRED"));
    assert_eq!(net.stored_for("bob"), 0);
}

#[tokio::test]
async fn nothing_is_given_another_expiry_while_the_sweep_looks_for_what_has_expired() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    let sweep = net.core.renewals.write().await;
    let exchange = alice.ask(&update("alice", "1", Some(in_seconds(3600))).encode()).await;
    // What comes after it on the same connection is answered, so this would be, too.
    assert_eq!(alice.send(&storable("alice", "bob", "2")).await, Fate::stored());
    assert!(alice.responses.is_empty());
    drop(sweep);
    assert_eq!(alice.fate(exchange).await, Fate::stored());
}
