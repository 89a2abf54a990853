//! What happens at each limit.

use super::*;

#[tokio::test]
async fn a_connection_with_too_many_open_requests_gets_4_29() {
    let net = Net::with(Limits { requests_per_connection_max: 2, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let open = [alice.post(&message("alice", "bob", "1")).await, alice.post(&message("alice", "bob", "2")).await];
    assert_eq!(alice.send(&message("alice", "bob", "3")).await, Fate::failed("4.29", "TOO_MANY"));
    for exchange in open {
        bob.receive().await;
        assert_eq!(alice.fate(exchange).await, Fate::delivered());
    }
    let exchange = alice.post(&message("alice", "bob", "3")).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_server_with_too_many_open_requests_gets_5_03() {
    let net = Net::with(Limits { requests_total_max: 1, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let open = alice.post(&message("alice", "bob", "1")).await;
    bob.delivery().await;
    assert_eq!(bob.send(&message("bob", "alice", "1")).await, Fate::failed("5.03", "OVERLOADED"));
    bob.leave().await;
    assert_eq!(alice.fate(open).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn a_recipient_with_a_full_queue_gets_no_more_and_others_are_served() {
    let net = Net::with(Limits { recipient_queue_max: 2, delivery_window: 1, ..Limits::default() }).await;
    let (mut alice, mut bob, mut carol) = (net.ue("alice").await, net.ue("bob").await, net.ue("carol").await);
    let mut open = vec![alice.post(&message("alice", "bob", "1")).await];
    bob.delivery().await;
    open.push(alice.post(&message("alice", "bob", "2")).await);
    open.push(alice.post(&storable("alice", "bob", "3")).await);
    assert_eq!(alice.send(&message("alice", "bob", "4")).await, Fate::failed("4.29", "TOO_MANY"));
    assert_eq!(alice.send(&storable("alice", "bob", "5")).await, Fate::failed("4.29", "TOO_MANY"));
    let exchange = alice.post(&message("alice", "carol", "6")).await;
    carol.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_recipient_with_a_full_inbox_gets_no_more() {
    let mut setup = Setup::default();
    setup.store.limits.messages_per_recipient_max = 2;
    let net = Net::of(setup).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    assert_eq!(alice.send(&storable("alice", "bob", "2")).await, Fate::stored());
    assert_eq!(alice.send(&storable("alice", "bob", "3")).await, Fate::failed("4.29", "TOO_MANY"));
    let mut bob = net.ue("bob").await;
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
    assert_eq!(bob.receive().await.message_id.as_str(), "2");
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn a_full_store_answers_5_03() {
    let mut setup = Setup::default();
    setup.store.limits.messages_max = 1;
    let net = Net::of(setup).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    net.away_ue("carol").await;
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    assert_eq!(alice.send(&storable("alice", "carol", "2")).await, Fate::failed("5.03", "OVERLOADED"));
}

#[tokio::test]
async fn a_server_with_all_its_registrations_taken_answers_5_03() {
    let net = Net::with(Limits { registrations_max: 1, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    net.associate(&supi_of("bob"), "bob");
    let mut bob = net.connect(&supi_of("bob"));
    let response = bob.register("bob").await;
    assert_eq!(
        (response.code, response.max_age, registration_cause(&response).as_str()),
        (Code::SERVICE_UNAVAILABLE, Some(2), "OVERLOADED")
    );
    assert_eq!(alice.register("alice").await.code, Code::CREATED);
    assert_eq!(alice.deregister("alice").await.code, Code::DELETED);
    assert_eq!(bob.register("bob").await.code, Code::CREATED);
}

#[tokio::test]
async fn one_registration_at_a_time_on_a_connection() {
    let net = Net::with(Limits { association_timeout_seconds: 1, ..Limits::default() }).await;
    *net.associations.mood.lock().unwrap() = Mood::NeverAnswers;
    let mut alice = net.connect("imsi-001010000000001");
    let registration = Registration { ue_service_id: "alice".parse().unwrap(), client_profile: None }.encode();
    let first = alice.ask(&registration).await;
    let second = alice.exchange(&registration).await;
    assert_eq!((second.code, registration_cause(&second).as_str()), (Code::TOO_MANY_REQUESTS, "TOO_MANY"));
    let first = alice.answer(first).await;
    assert_eq!(registration_cause(&first), "ASSOCIATION_UNKNOWN");
}

#[tokio::test]
async fn association_lookups_are_bounded() {
    let limits = Limits { association_lookups_max: 1, association_timeout_seconds: 1, ..Limits::default() };
    let net = Net::with(limits).await;
    *net.associations.mood.lock().unwrap() = Mood::NeverAnswers;
    let (mut alice, mut bob) = (net.connect("imsi-001010000000001"), net.connect("imsi-001010000000002"));
    let registration = |id: &str| Registration { ue_service_id: id.parse().unwrap(), client_profile: None }.encode();
    let waiting = alice.ask(&registration("alice")).await;
    until(|| net.core.association_slots.available_permits() == 0).await;
    let response = bob.register("bob").await;
    assert_eq!((response.code, registration_cause(&response).as_str()), (Code::SERVICE_UNAVAILABLE, "OVERLOADED"));
    assert_eq!(registration_cause(&alice.answer(waiting).await), "ASSOCIATION_UNKNOWN");
}

#[tokio::test]
async fn a_peer_that_acknowledges_nothing_is_closed_and_its_messages_are_kept() {
    let net = Net::with(Limits { delivery_timeout_seconds: 1, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let exchange = alice.post(&storable("alice", "bob", "1")).await;
    bob.delivery().await;
    assert_eq!(bob.ended().await, Ended::NotAcknowledging);
    assert_eq!(alice.fate(exchange).await, Fate::stored());
}

#[tokio::test]
async fn a_message_that_waits_too_long_in_a_queue_is_stored_or_fails() {
    let limits =
        Limits { queue_timeout_seconds: 1, delivery_window: 1, delivery_timeout_seconds: 60, ..Limits::default() };
    let net = Net::with(limits).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let mut carol = net.ue("carol").await;
    let first = carol.post(&message("carol", "bob", "1")).await;
    let (delivery, _) = bob.delivery().await;
    let stored = alice.post(&storable("alice", "bob", "1")).await;
    let failed = alice.post(&message("alice", "bob", "2")).await;
    assert_eq!(alice.fate(stored).await, Fate::stored());
    assert_eq!(alice.fate(failed).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    bob.respond(delivery, Code::CHANGED).await;
    assert_eq!(carol.fate(first).await, Fate::delivered());
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn remembered_answers_are_bounded_and_the_oldest_is_forgotten_first() {
    let net = Net::with(Limits { remembered_per_ue_max: 2, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    for id in ["1", "2", "3"] {
        let exchange = alice.post(&message("alice", "bob", id)).await;
        bob.receive().await;
        assert_eq!(alice.fate(exchange).await, Fate::delivered());
    }
    let other = |id| Message { payload: b"99".to_vec(), ..message("alice", "bob", id) };
    assert_eq!(alice.send(&other("3")).await, Fate::failed("4.00", "MESSAGE_ID_REUSED"));
    let exchange = alice.post(&other("1")).await;
    assert_eq!(bob.receive().await.payload, b"99");
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn expiry_is_brought_within_its_bound() {
    let net = Net::with(Limits { expiry_max_seconds: 60, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let now = time::OffsetDateTime::now_utc();
    let far = now + time::Duration::days(1000);
    let sent = Message { expiration_time: Some(far), ..storable("alice", "bob", "1") };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    assert_eq!(alice.send(&storable("alice", "bob", "2")).await, Fate::stored());
    let mut bob = net.ue("bob").await;
    for _ in 0..2 {
        let expires = bob.receive().await.expiration_time.unwrap();
        assert!(expires > now && expires <= time::OffsetDateTime::now_utc() + time::Duration::seconds(60));
    }
}

#[tokio::test]
async fn repetitions_that_wait_for_one_answer_are_bounded() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let sent = message("alice", "bob", "1");
    let mut open = Vec::new();
    for _ in 0..9 {
        open.push(alice.post(&sent).await);
    }
    assert_eq!(alice.send(&sent).await, Fate::failed("4.29", "TOO_MANY"));
    bob.receive().await;
    for exchange in open {
        assert_eq!(alice.fate(exchange).await, Fate::delivered());
    }
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn a_writer_with_a_full_queue_takes_no_more() {
    let net = Net::with(Limits { store_queue_max: 1, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let mut octets = Vec::new();
    let mut open = Vec::new();
    for id in 0..20 {
        let payload = storable("alice", "bob", &id.to_string()).encode();
        let request = Request::post("msgin5g").content_format(50).payload(payload);
        open.push(alice.machine.request(request).unwrap());
        octets.extend(alice.machine.poll_transmit().unwrap());
    }
    // All of them in one piece, so that no writer runs in between.
    alice.stream.write_all(&octets).await.unwrap();
    let (mut stored, mut refused) = (0, 0);
    for exchange in open {
        match alice.fate(exchange).await {
            fate if fate == Fate::stored() => stored += 1,
            fate => {
                assert_eq!(fate, Fate::failed("5.03", "OVERLOADED"));
                refused += 1;
            }
        }
    }
    assert!(stored > 0 && refused > 0, "{stored} stored, {refused} refused");
    assert_eq!(net.stored_for("bob"), stored);
}

#[tokio::test]
async fn one_a_kid_has_so_many_connections_and_gets_an_abort_for_one_more() {
    let net = Net::with(Limits { connections_per_a_kid_max: 2, ..Limits::default() }).await;
    let (first, mut second) = (net.ue("alice").await, net.ue("bob").await);
    assert_eq!(net.connect(&supi_of("carol")).ended().await, Ended::TooMany);
    assert_eq!(second.register("bob").await.code, Code::CREATED);
    first.leave().await;
    net.ue("carol").await;
}

#[tokio::test]
async fn open_requests_of_a_replaced_connection_still_count() {
    let net = Net::with(Limits { requests_per_connection_max: 2, ..Limits::default() }).await;
    let (mut older, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    older.post(&message("alice", "bob", "1")).await;
    older.post(&message("alice", "bob", "2")).await;
    let deliveries = [bob.delivery().await.0, bob.delivery().await.0];
    let mut alice = net.ue("alice").await;
    assert_eq!(older.ended().await, Ended::Replaced);
    assert_eq!(alice.send(&message("alice", "bob", "3")).await, Fate::failed("4.29", "TOO_MANY"));
    for delivery in deliveries {
        bob.respond(delivery, Code::CHANGED).await;
    }
    until(|| net.core.open_requests() == 0).await;
    let exchange = alice.post(&message("alice", "bob", "3")).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}
