//! What survives the end of the process, and how the process ends in good order.

use super::*;
use crate::mailbox::{CloseReason, Letter};

#[tokio::test]
async fn stored_messages_and_registrations_survive_a_restart() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    for id in ["1", "2", "3"] {
        assert_eq!(alice.send(&storable("alice", "bob", id)).await, Fate::stored());
    }
    alice.leave().await;
    let net = net.restart().await;
    assert_eq!(net.core.registry.ues(), 2);
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&message("alice", "bob", "4")).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    assert_eq!(alice.send(&storable("alice", "bob", "5")).await, Fate::stored());
    let mut bob = net.ue("bob").await;
    for id in ["1", "2", "3", "5"] {
        assert_eq!(bob.receive().await.message_id.as_str(), id);
    }
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn a_stored_message_repeated_after_a_restart_is_not_stored_again() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    alice.leave().await;
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    assert_eq!(net.stored_for("bob"), 1);
    let other = Message { payload: b"99".to_vec(), ..storable("alice", "bob", "1") };
    assert_eq!(net.stored_for("bob"), 1);
    alice.leave().await;
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&other).await, Fate::failed("4.00", "MESSAGE_ID_REUSED"));
}

#[tokio::test]
async fn a_registration_that_is_as_it_was_costs_no_write() {
    let net = Net::new().await;
    net.away_ue("alice").await;
    let before = net.core.store.registration(&"alice".parse().unwrap()).await.unwrap().unwrap();
    net.away_ue("alice").await;
    let after = net.core.store.registration(&"alice".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(before, after);
}

#[tokio::test]
async fn what_a_client_said_about_itself_survives_a_restart() {
    let net = Net::new().await;
    net.associate(&supi_of("bob"), "bob");
    let mut bob = net.connect(&supi_of("bob"));
    let profile = ClientProfile {
        segment_size: Some(100),
        aggregation: Some(true),
        availability: Some(message::CommunicationAvailability {
            start: time::OffsetDateTime::UNIX_EPOCH,
            duration_seconds: 60,
            interval_seconds: Some(3600),
        }),
        ..ClientProfile::default()
    };
    let registration = Registration { ue_service_id: "bob".parse().unwrap(), client_profile: Some(profile.clone()) };
    assert_eq!(bob.exchange(&registration.encode()).await.code, Code::CREATED);
    bob.leave().await;
    // What an earlier version kept.
    let mut record = net.core.store.registration(&"bob".parse().unwrap()).await.unwrap().unwrap();
    (record.ue_service_id, record.client_profile) = ("carol".parse().unwrap(), None);
    net.core.store.put_registration(record).await.unwrap();
    let net = net.restart().await;
    let known = |name: &str| {
        let party = net.core.registry.find(&address(name)).unwrap();
        let state = party.state.lock().unwrap();
        state.profile.as_deref().cloned().unwrap()
    };
    assert_eq!(known("bob"), profile);
    assert_eq!(known("carol"), ClientProfile { segment_size: Some(100), ..ClientProfile::default() });
}

#[tokio::test]
async fn messages_of_a_recipient_whose_registration_is_gone_are_reported_after_a_restart() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let sent = Message { delivery_status_required: true, ..storable("alice", "bob", "1") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    alice.leave().await;
    // As if the server had ended between removing the registration and its messages.
    net.core.store.remove_registration(&"bob".parse().unwrap()).await.unwrap();
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.receive_report().await.failure_cause.as_deref(), Some("UNKNOWN_TARGET"));
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn a_report_on_a_message_delivered_before_a_restart_is_taken() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let sent = Message { delivery_status_required: true, ..message("alice", "bob", "1") };
    let exchange = alice.post(&sent).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
    alice.leave().await;
    bob.leave().await;
    let net = net.restart().await;
    let mut bob = net.ue("bob").await;
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
}

#[tokio::test]
async fn a_stopping_server_answers_what_it_took_and_takes_nothing_new() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let open = alice.post(&message("alice", "bob", "1")).await;
    let (delivery, _) = bob.delivery().await;
    net.core.stopping.cancel();
    assert_eq!(alice.send(&message("alice", "bob", "2")).await, Fate::failed("5.03", "STOPPING"));
    bob.respond(delivery, Code::CHANGED).await;
    assert_eq!(alice.fate(open).await, Fate::delivered());
    for ue in [&alice, &bob] {
        assert!(!ue.ended);
    }
    for party in [address("alice"), address("bob")] {
        let party = net.core.registry.find(&party).unwrap();
        let mailbox = party.state.lock().unwrap().carrier.clone().unwrap();
        mailbox.post(Letter::Close(CloseReason::Stopping));
    }
    assert_eq!(alice.ended().await, Ended::Stopped);
    assert_eq!(bob.ended().await, Ended::Stopped);
}

#[tokio::test]
async fn a_stop_waits_for_an_acknowledgement_no_longer_than_the_drain_time_out() {
    let net = Net::with(Limits { drain_timeout_seconds: 1, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let open = alice.post(&storable("alice", "bob", "1")).await;
    bob.delivery().await;
    net.core.stopping.cancel();
    let party = net.core.registry.find(&address("bob")).unwrap();
    let mailbox = party.state.lock().unwrap().carrier.clone().unwrap();
    mailbox.post(Letter::Close(CloseReason::Stopping));
    assert_eq!(bob.ended().await, Ended::Stopped);
    assert_eq!(alice.fate(open).await, Fate::stored());
}
