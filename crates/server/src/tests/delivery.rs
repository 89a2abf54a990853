//! Messages between UEs: answers, order, repetition, storing.

use super::*;

use time::OffsetDateTime;

#[tokio::test]
async fn a_message_is_delivered_once_the_recipient_acknowledges_it() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let sent = Message { application_id: Some("metering".parse().unwrap()), ..message("alice", "bob", "1") };
    let exchange = alice.post(&sent).await;
    let (delivery, received) = bob.delivery().await;
    assert_eq!(received, UeMessage::Message(Box::new(sent)));
    assert!(alice.responses.is_empty());
    bob.respond(delivery, Code::CHANGED).await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_ue_may_write_to_itself() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    let exchange = alice.post(&message("alice", "alice", "1")).await;
    alice.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn what_cannot_be_delivered_is_answered_with_its_cause() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let group = Address { addr_type: message::AddressType::Group, addr: address("bob").addr };
    let past = OffsetDateTime::now_utc() - time::Duration::seconds(1);
    let cases = [
        (message("alice", "nobody", "1"), Fate::failed("4.04", "UNKNOWN_TARGET")),
        (storable("alice", "nobody", "2"), Fate::failed("4.04", "UNKNOWN_TARGET")),
        (message("alice", "bob", "3"), Fate::failed("2.04", "TARGET_UNREACHABLE")),
        (message("bob", "bob", "4"), Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED")),
        (
            Message { destination: group, ..message("alice", "bob", "5") },
            Fate::failed("4.04", "TARGET_TYPE_NOT_SUPPORTED"),
        ),
        (Message { expiration_time: Some(past), ..storable("alice", "bob", "6") }, Fate::failed("2.04", "EXPIRED")),
    ];
    for (sent, expected) in cases {
        assert_eq!(alice.send(&sent).await, expected, "{sent:?}");
    }
    assert_eq!(net.stored_for("bob"), 0);
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn requests_that_are_not_understood_get_the_code_of_their_fault() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    let valid = message("alice", "alice", "1").encode();
    let cases = [
        (Request::post("other").content_format(50).payload(valid.clone()), Code::NOT_FOUND),
        (Request::get("msgin5g"), Code::METHOD_NOT_ALLOWED),
        (Request::post("msgin5g").payload(valid.clone()), Code::UNSUPPORTED_CONTENT_FORMAT),
        (Request::post("msgin5g").content_format(60).payload(valid.clone()), Code::UNSUPPORTED_CONTENT_FORMAT),
        (Request::post("msgin5g").content_format(50).accept(60).payload(valid), Code::NOT_ACCEPTABLE),
        (Request::post("msgin5g").content_format(50).payload(&b"{\"msgType\":\"MSG\"}"[..]), Code::BAD_REQUEST),
        (Request::post("msgin5g").content_format(50).payload(&b"{\"msgType\":"[..]), Code::BAD_REQUEST),
        (Request::post("msgin5g").content_format(50).payload(&b"{\"msgType\":\"SEGREC\"}"[..]), Code::BAD_REQUEST),
        (Request::post("msgin5g").content_format(50), Code::BAD_REQUEST),
    ];
    for (request, code) in cases {
        let exchange = alice.machine.request(request).unwrap();
        assert_eq!(alice.answer(exchange).await.code, code);
    }
    let large = Message { payload: vec![0; 2049], ..message("alice", "alice", "2") };
    let response = alice.exchange(&large.encode()).await;
    assert_eq!(response.code, Code::REQUEST_ENTITY_TOO_LARGE);
    let exact = Message { payload: vec![0; 2048], ..message("alice", "alice", "3") };
    let exchange = alice.post(&exact).await;
    alice.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn octets_that_are_no_coap_end_the_connection_with_an_abort() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    alice.stream.write_all(&[0x0f, 0xff, 0xff, 0xff]).await.unwrap();
    assert_eq!(alice.ended().await, Ended::Malformed);
}

#[tokio::test]
async fn a_repeated_message_gets_the_first_ones_answer_and_is_delivered_once() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let sent = message("alice", "bob", "1");
    // The second comes while the first is under way, from the same connection.
    let first = alice.post(&sent).await;
    let (delivery, _) = bob.delivery().await;
    let second = alice.post(&sent).await;
    until(|| net.core.open_requests() == 1).await;
    bob.respond(delivery, Code::CHANGED).await;
    assert_eq!(alice.fate(first).await, Fate::delivered());
    assert_eq!(alice.fate(second).await, Fate::delivered());
    // The third after it, from another connection.
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&sent).await, Fate::delivered());
    assert!(bob.requests.is_empty());
    let other = Message { payload: b"99".to_vec(), ..sent };
    assert_eq!(alice.send(&other).await, Fate::failed("4.00", "MESSAGE_ID_REUSED"));
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn a_refused_message_is_not_remembered() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    let sent = message("alice", "bob", "1");
    assert_eq!(alice.send(&sent).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    let mut bob = net.ue("bob").await;
    let exchange = alice.post(&sent).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_message_for_an_away_recipient_is_stored_and_delivered_on_return() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    assert_eq!(net.stored_for("bob"), 1);
    assert_eq!(alice.send(&storable("alice", "bob", "1")).await, Fate::stored());
    assert_eq!(net.stored_for("bob"), 1);
    let mut bob = net.ue("bob").await;
    let received = bob.receive().await;
    assert_eq!((received.message_id.as_str(), received.payload), ("1", b"21.5".to_vec()));
    assert!(received.expiration_time.is_some());
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn stored_messages_come_by_priority_and_then_in_the_order_accepted() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let priorities = [Priority::Low, Priority::High, Priority::Middle, Priority::Low, Priority::High, Priority::Middle];
    for (id, priority) in priorities.into_iter().enumerate() {
        let sent = Message { priority, ..storable("alice", "bob", &id.to_string()) };
        assert_eq!(alice.send(&sent).await, Fate::stored());
    }
    let mut bob = net.ue("bob").await;
    let mut ids = Vec::new();
    for _ in 0..priorities.len() {
        ids.push(bob.receive().await.message_id.as_str().to_owned());
    }
    assert_eq!(ids, ["1", "4", "2", "5", "0", "3"]);
}

/// Alice never stops sending while Bob comes, goes and comes back: whatever went through the disk and whatever did not, he
/// gets all of it, and first copies in order.
#[tokio::test]
async fn order_holds_across_the_boundary_between_stored_and_direct_delivery() {
    const MESSAGES: usize = 900;
    let net = Net::with(Limits { recipient_queue_max: 2 * MESSAGES, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let sender = tokio::spawn(async move {
        let mut open = VecDeque::new();
        for id in 0..MESSAGES {
            if open.len() >= 48 {
                let fate = alice.fate(open.pop_front().unwrap()).await;
                assert_eq!((fate.code.as_str(), fate.cause), ("2.04", None));
            }
            open.push_back(alice.post(&storable("alice", "bob", &id.to_string())).await);
        }
        for exchange in open {
            let fate = alice.fate(exchange).await;
            assert_eq!((fate.code.as_str(), fate.cause), ("2.04", None));
        }
    });
    let mut received: Vec<usize> = Vec::new();
    let mut take = |message: &Message| {
        let id: usize = message.message_id.as_str().parse().unwrap();
        if !received.contains(&id) {
            received.push(id);
        }
        received.len()
    };
    // Three connections; the first two end with deliveries unacknowledged.
    for stop_at in [200, 500, MESSAGES] {
        until(|| net.stored_for("bob") > 0 || sender.is_finished()).await;
        let mut bob = net.ue("bob").await;
        loop {
            let message = bob.receive().await;
            if take(&message) >= stop_at {
                break;
            }
        }
        bob.leave().await;
    }
    sender.await.unwrap();
    assert_eq!(received, (0..MESSAGES).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_lost_connection_left_unacknowledged_is_stored_or_fails_and_goes_first_on_return() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let stored = alice.post(&storable("alice", "bob", "1")).await;
    let failed = alice.post(&message("alice", "bob", "2")).await;
    bob.delivery().await;
    bob.delivery().await;
    bob.leave().await;
    assert_eq!(alice.fate(stored).await, Fate::stored());
    assert_eq!(alice.fate(failed).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    assert_eq!(alice.send(&storable("alice", "bob", "3")).await, Fate::stored());
    let mut bob = net.ue("bob").await;
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
    assert_eq!(bob.receive().await.message_id.as_str(), "3");
}

#[tokio::test]
async fn a_newer_connection_takes_over_what_the_older_left_unacknowledged() {
    let net = Net::new().await;
    let (mut alice, mut older) = (net.ue("alice").await, net.ue("bob").await);
    let first = alice.post(&message("alice", "bob", "1")).await;
    let second = alice.post(&message("alice", "bob", "2")).await;
    older.delivery().await;
    let mut newer = net.ue("bob").await;
    assert_eq!(newer.receive().await.message_id.as_str(), "1");
    assert_eq!(newer.receive().await.message_id.as_str(), "2");
    assert_eq!(alice.fate(first).await, Fate::delivered());
    assert_eq!(alice.fate(second).await, Fate::delivered());
    assert_eq!(older.ended().await, Ended::Replaced);
}

#[tokio::test]
async fn a_newer_connection_goes_on_with_a_long_backlog() {
    const MESSAGES: usize = 400;
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    for id in 0..MESSAGES {
        assert_eq!(alice.send(&storable("alice", "bob", &id.to_string())).await, Fate::stored());
    }
    let mut older = net.ue("bob").await;
    older.delivery().await;
    let mut newer = net.ue("bob").await;
    for id in 0..MESSAGES {
        assert_eq!(newer.receive().await.message_id.as_str(), id.to_string());
    }
    assert_eq!(older.ended().await, Ended::Replaced);
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn a_recipient_that_refuses_for_good_fails_the_message() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let exchange = alice.post(&storable("alice", "bob", "1")).await;
    let (delivery, _) = bob.delivery().await;
    bob.respond(delivery, Code::BAD_REQUEST).await;
    assert_eq!(alice.fate(exchange).await, Fate::failed("2.04", "TARGET_REFUSED"));
    // The same in words.
    let exchange = alice.post(&storable("alice", "bob", "2")).await;
    let (delivery, _) = bob.delivery().await;
    let refusal = MessageResponse {
        originator: address("alice"),
        message_id: "2".parse().unwrap(),
        status: Some(DeliveryStatus::Failed),
        failure_cause: None,
        individual: Vec::new(),
    };
    bob.machine.respond(delivery, Response::new(Code::CHANGED).with_payload(refusal.encode())).unwrap();
    bob.flush().await;
    assert_eq!(alice.fate(exchange).await, Fate::failed("2.04", "TARGET_REFUSED"));
}

#[tokio::test]
async fn a_recipient_that_is_busy_gets_the_message_again_after_the_pause() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let kept = alice.post(&storable("alice", "bob", "1")).await;
    let (delivery, _) = bob.delivery().await;
    bob.machine.respond(delivery, Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(1)).unwrap();
    bob.flush().await;
    assert_eq!(alice.fate(kept).await, Fate::stored());
    assert_eq!(alice.send(&storable("alice", "bob", "2")).await, Fate::stored());
    assert_eq!(alice.send(&message("alice", "bob", "3")).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
    assert_eq!(bob.receive().await.message_id.as_str(), "2");
    until(|| net.stored_for("bob") == 0).await;
    let exchange = alice.post(&message("alice", "bob", "4")).await;
    bob.receive().await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}
