//! Delivery status reports, from recipients and from the server.

use time::OffsetDateTime;

use super::*;

fn wanted(from: &str, to: &str, id: &str) -> Message {
    Message { delivery_status_required: true, ..storable(from, to, id) }
}

#[tokio::test]
async fn a_recipients_report_goes_back_to_the_originator() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let exchange = alice.post(&wanted("alice", "bob", "1")).await;
    assert!(bob.receive().await.delivery_status_required);
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
    let sent = bob.ask(&report("bob", "alice", "1").encode()).await;
    let received = alice.receive_report().await;
    assert_eq!(UeMessage::DeliveryStatusReport(received), report("bob", "alice", "1"));
    assert_eq!(bob.fate(sent).await, Fate::delivered());
    // Repeated, it is answered and not delivered again.
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::delivered());
    assert!(alice.requests.is_empty());
}

#[tokio::test]
async fn a_report_for_an_originator_that_is_away_is_stored() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let exchange = alice.post(&wanted("alice", "bob", "1")).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
    alice.leave().await;
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.receive_report().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn only_the_recipient_of_a_message_may_report_on_it() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = (net.ue("alice").await, net.ue("bob").await, net.ue("carol").await);
    let exchange = alice.post(&wanted("alice", "bob", "1")).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
    for forged in [report("carol", "alice", "1"), report("bob", "alice", "1")] {
        assert_eq!(carol.send_report(&forged).await, Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED"));
    }
    assert_eq!(bob.send_report(&report("bob", "alice", "2")).await, Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED"));
    assert_eq!(bob.send_report(&report("bob", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
}

#[tokio::test]
async fn a_stored_message_that_expires_is_reported_as_failed_if_that_was_asked_for() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let soon = OffsetDateTime::now_utc() + time::Duration::milliseconds(300);
    let sent = Message { expiration_time: Some(soon), ..wanted("alice", "bob", "1") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    let unasked = Message { delivery_status_required: false, message_id: "2".parse().unwrap(), ..sent };
    assert_eq!(alice.send(&unasked).await, Fate::stored());
    until(|| OffsetDateTime::now_utc() > soon).await;
    crate::inbox::sweep_expired(&net.core).await;
    assert_eq!(net.stored_for("bob"), 0);
    let report = alice.receive_report().await;
    assert_eq!((report.originator, report.message_id.as_str()), (address("bob"), "1"));
    assert_eq!(report.delivery_status, ReportDeliveryStatus::Failed);
    assert_eq!(report.failure_cause.as_deref(), Some("EXPIRED"));
    let mut bob = net.ue("bob").await;
    let exchange = alice.post(&message("alice", "bob", "3")).await;
    assert_eq!(bob.receive().await.message_id.as_str(), "3");
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
    until(|| net.stored_for("alice") == 0).await;
    assert!(alice.requests.is_empty());
}

#[tokio::test]
async fn an_expired_message_is_not_delivered_even_before_the_sweep() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let soon = OffsetDateTime::now_utc() + time::Duration::milliseconds(200);
    let sent = Message { expiration_time: Some(soon), ..wanted("alice", "bob", "1") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    assert_eq!(alice.send(&storable("alice", "bob", "2")).await, Fate::stored());
    until(|| OffsetDateTime::now_utc() > soon).await;
    let mut bob = net.ue("bob").await;
    assert_eq!(bob.receive().await.message_id.as_str(), "2");
    crate::inbox::sweep_expired(&net.core).await;
    assert_eq!(alice.receive_report().await.failure_cause.as_deref(), Some("EXPIRED"));
}

#[tokio::test]
async fn a_stored_message_that_its_recipient_refuses_is_reported_as_failed() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    assert_eq!(alice.send(&wanted("alice", "bob", "1")).await, Fate::stored());
    let mut bob = net.ue("bob").await;
    let (delivery, _) = bob.delivery().await;
    bob.respond(delivery, Code::BAD_REQUEST).await;
    let report = alice.receive_report().await;
    assert_eq!((report.message_id.as_str(), report.failure_cause.as_deref()), ("1", Some("TARGET_REFUSED")));
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn messages_stored_for_a_ue_that_deregisters_are_reported_as_failed() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    assert_eq!(alice.send(&wanted("alice", "bob", "1")).await, Fate::stored());
    let mut bob = net.ue("bob").await;
    bob.delivery().await;
    assert_eq!(bob.deregister("bob").await.code, Code::DELETED);
    let report = alice.receive_report().await;
    assert_eq!((report.message_id.as_str(), report.failure_cause.as_deref()), ("1", Some("UNKNOWN_TARGET")));
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn a_failure_report_for_a_full_inbox_is_given_up_and_holds_up_no_other() {
    let mut setup = Setup::default();
    setup.store.limits.messages_per_recipient_max = 1;
    let net = Net::of(setup).await;
    let (mut alice, mut carol) = (net.ue("alice").await, net.ue("carol").await);
    for away in ["bob", "dave"] {
        net.away_ue(away).await;
    }
    let soon = OffsetDateTime::now_utc() + time::Duration::milliseconds(300);
    let expiring = |from, to| Message { expiration_time: Some(soon), ..wanted(from, to, "1") };
    assert_eq!(alice.send(&expiring("alice", "bob")).await, Fate::stored());
    assert_eq!(carol.send(&expiring("carol", "dave")).await, Fate::stored());
    alice.leave().await;
    assert_eq!(carol.send(&storable("carol", "alice", "2")).await, Fate::stored());
    until(|| OffsetDateTime::now_utc() > soon).await;
    crate::inbox::sweep_expired(&net.core).await;
    assert_eq!((net.stored_for("bob"), net.stored_for("dave"), net.stored_for("alice")), (0, 0, 1));
    assert_eq!(carol.receive_report().await.message_id.as_str(), "1");
}
