//! Aggregated messages and reports (TS 23.554 clause 8.4).

use message::{AggregatedMessage, AggregatedReport, IndividualReport, IndividualResponse};

use super::*;

fn aggregate(id: &str, messages: &[Message]) -> Vec<u8> {
    UeMessage::AggregatedMessage(Box::new(AggregatedMessage::aggregate(id.parse().unwrap(), messages).unwrap()))
        .encode()
}

async fn aggregating_ue(net: &Net, name: &str) -> Ue {
    net.associate(&supi_of(name), name);
    let mut ue = net.connect(&supi_of(name));
    assert_eq!(register_aggregating(&mut ue, name).await.code, Code::CREATED);
    ue
}

async fn register_aggregating(ue: &mut Ue, name: &str) -> Response {
    let profile = ClientProfile { aggregation: Some(true), ..ClientProfile::default() };
    let registration = Registration { ue_service_id: name.parse().unwrap(), client_profile: Some(profile) };
    ue.exchange(&registration.encode()).await
}

fn individual(response: &Response) -> Vec<(String, Option<DeliveryStatus>, Option<String>)> {
    let body = MessageResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
    body.individual
        .into_iter()
        .map(|each| (each.message_id.as_str().to_owned(), each.status, each.failure_cause))
        .collect()
}

#[tokio::test]
async fn the_messages_of_an_aggregate_are_delivered_one_by_one_and_answered_together() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let messages = ["1", "2", "3"].map(|id| message("alice", "bob", id));
    let exchange = alice.ask(&aggregate("all", &messages)).await;
    for expected in &messages {
        assert!(alice.responses.is_empty());
        assert_eq!(bob.receive().await, *expected);
    }
    let response = alice.answer(exchange).await;
    assert_eq!((Fate::of(&response), individual(&response)), (Fate::delivered(), Vec::new()));
    // Repeated as a whole, in part, or alone, each is known.
    assert_eq!(Fate::of(&alice.exchange(&aggregate("again", &messages[1..])).await), Fate::delivered());
    assert_eq!(alice.send(&messages[0]).await, Fate::delivered());
    assert!(bob.requests.is_empty());
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn the_answer_to_an_aggregate_promises_no_more_than_holds_for_each() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let stored = [storable("alice", "bob", "1"), storable("alice", "bob", "2")];
    assert_eq!(Fate::of(&alice.exchange(&aggregate("a", &stored)).await), Fate::stored());
    let mixed = [storable("alice", "bob", "2"), message("alice", "bob", "3")];
    let response = alice.exchange(&aggregate("b", &mixed)).await;
    assert_eq!(Fate::of(&response).status, Some(DeliveryStatus::Failed));
    assert_eq!(
        individual(&response),
        [
            ("2".to_owned(), Some(DeliveryStatus::Stored), None),
            ("3".to_owned(), Some(DeliveryStatus::Failed), Some("TARGET_UNREACHABLE".to_owned())),
        ]
    );
    let unknown = ["4", "5"].map(|id| message("alice", "nobody", id));
    assert_eq!(Fate::of(&alice.exchange(&aggregate("c", &unknown)).await), Fate::failed("4.04", "UNKNOWN_TARGET"));
    let forged = ["6", "7"].map(|id| storable("carol", "bob", id));
    assert_eq!(
        Fate::of(&alice.exchange(&aggregate("d", &forged)).await),
        Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED")
    );
    assert_eq!(net.stored_for("bob"), 2);
    alice.leave().await;
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    assert_eq!(Fate::of(&alice.exchange(&aggregate("e", &stored)).await), Fate::stored());
    assert_eq!(net.stored_for("bob"), 2);
}

#[tokio::test]
async fn an_aggregate_counts_as_as_many_requests_as_it_has_messages() {
    let net = Net::with(Limits { requests_per_connection_max: 3, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let open = alice.post(&message("alice", "bob", "0")).await;
    let three = ["1", "2", "3"].map(|id| message("alice", "bob", id));
    assert_eq!(Fate::of(&alice.exchange(&aggregate("a", &three)).await), Fate::failed("4.29", "TOO_MANY"));
    bob.receive().await;
    assert_eq!(alice.fate(open).await, Fate::delivered());
    let exchange = alice.ask(&aggregate("a", &three)).await;
    for _ in 0..3 {
        bob.receive().await;
    }
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn what_waits_for_a_ue_that_takes_aggregates_goes_out_in_one() {
    let net = Net::new().await;
    let (mut alice, mut carol) = (net.ue("alice").await, net.ue("carol").await);
    aggregating_ue(&net, "bob").await.leave().await;
    for id in ["1", "2", "3"] {
        assert_eq!(alice.send(&storable("alice", "bob", id)).await, Fate::stored());
    }
    let large = Message { payload: vec![7; 2048], ..storable("alice", "bob", "4") };
    assert_eq!(alice.send(&large).await, Fate::stored());
    assert_eq!(carol.send(&storable("carol", "bob", "5")).await, Fate::stored());
    for id in ["6", "7"] {
        let urgent = Message { priority: Priority::High, ..storable("alice", "bob", id) };
        assert_eq!(alice.send(&urgent).await, Fate::stored());
    }
    alice.leave().await;
    carol.leave().await;
    let net = net.restart().await;
    let mut bob = aggregating_ue(&net, "bob").await;
    let mut seen = Vec::new();
    while seen.len() < 7 {
        match bob.receive_any().await {
            UeMessage::Message(message) => seen.push((1, message.message_id.as_str().to_owned())),
            UeMessage::AggregatedMessage(aggregated) => {
                assert_eq!((&aggregated.originator, &aggregated.destination), (&address("alice"), &address("bob")));
                let count = aggregated.messages.len();
                seen.extend(aggregated.messages.iter().map(|each| (count, each.message_id.as_str().to_owned())));
            }
            other => panic!("{other:?}"),
        }
    }
    let expected = [(1, "6"), (1, "7"), (3, "1"), (3, "2"), (3, "3"), (1, "4"), (1, "5")];
    assert_eq!(seen, expected.map(|(count, id)| (count, id.to_owned())));
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn an_aggregate_is_acknowledged_refused_or_postponed_as_its_recipient_says() {
    let net = Net::with(Limits { delivery_window: 1, ..Limits::default() }).await;
    let (mut alice, mut bob) = (net.ue("alice").await, aggregating_ue(&net, "bob").await);
    let first = alice.post(&message("alice", "bob", "0")).await;
    let (delivery, _) = bob.delivery().await;
    let mut open = Vec::new();
    for id in ["1", "2", "3"] {
        open.push(alice.post(&message("alice", "bob", id)).await);
    }
    until(|| net.core.open_requests() == 4).await;
    bob.respond(delivery, Code::CHANGED).await;
    assert_eq!(alice.fate(first).await, Fate::delivered());
    let (delivery, aggregated) = bob.delivery().await;
    let UeMessage::AggregatedMessage(aggregated) = aggregated else { panic!("{aggregated:?}") };
    assert_eq!(aggregated.messages.len(), 3);
    let refusal = MessageResponse {
        originator: address("alice"),
        message_id: aggregated.message_id.clone(),
        status: Some(DeliveryStatus::Failed),
        failure_cause: None,
        individual: vec![IndividualResponse {
            message_id: "2".parse().unwrap(),
            status: Some(DeliveryStatus::Failed),
            failure_cause: None,
        }],
    };
    bob.machine.respond(delivery, Response::new(Code::CHANGED).with_payload(refusal.encode())).unwrap();
    bob.flush().await;
    let fates = [alice.fate(open[0]).await, alice.fate(open[1]).await, alice.fate(open[2]).await];
    assert_eq!(fates, [Fate::delivered(), Fate::failed("2.04", "TARGET_REFUSED"), Fate::delivered()]);
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn an_aggregate_that_its_recipient_cannot_take_goes_out_one_by_one() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    aggregating_ue(&net, "bob").await.leave().await;
    for id in ["1", "2", "3", "4", "5"] {
        let application_id = Some("a".repeat(250).parse().unwrap());
        let sent = Message { application_id, ..storable("alice", "bob", id) };
        assert_eq!(alice.send(&sent).await, Fate::stored());
    }
    let mut bob = net.connect(&supi_of("bob"));
    // As small as CoAP allows (RFC 8323 section 5.3.1).
    bob.machine = StreamConnection::new(StreamConfig { max_message_size_own: 1152, ..StreamConfig::default() });
    assert_eq!(register_aggregating(&mut bob, "bob").await.code, Code::CREATED);
    for id in ["1", "2", "3", "4", "5"] {
        assert_eq!(bob.receive().await.message_id.as_str(), id);
    }
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn an_aggregate_lost_with_its_connection_comes_again() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    aggregating_ue(&net, "bob").await.leave().await;
    for id in ["1", "2", "3"] {
        assert_eq!(alice.send(&storable("alice", "bob", id)).await, Fate::stored());
    }
    let mut bob = aggregating_ue(&net, "bob").await;
    assert!(matches!(bob.delivery().await.1, UeMessage::AggregatedMessage(_)));
    bob.leave().await;
    assert_eq!(net.stored_for("bob"), 3);
    // Registered anew without the ability, it gets them one by one.
    let mut bob = net.ue("bob").await;
    for id in ["1", "2", "3"] {
        assert_eq!(bob.receive().await.message_id.as_str(), id);
    }
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn an_aggregated_report_is_taken_apart_and_each_report_must_be_the_reporters_to_make() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    for id in ["1", "2"] {
        let wanted = Message { delivery_status_required: true, ..message("alice", "bob", id) };
        let exchange = alice.post(&wanted).await;
        bob.receive().await;
        assert_eq!(alice.fate(exchange).await, Fate::delivered());
    }
    let reports = |from: &[(&str, &str)]| {
        let report = |(from, id): &(&str, &str)| IndividualReport {
            originator: address(from),
            message_id: id.parse().unwrap(),
            delivery_status: ReportDeliveryStatus::Success,
            failure_cause: None,
        };
        let reports = from.iter().map(report).collect();
        UeMessage::AggregatedReport(AggregatedReport {
            originator: address("bob"),
            destination: address("alice"),
            reports,
        })
        .encode()
    };
    let exchange = bob.ask(&reports(&[("bob", "1"), ("bob", "2")])).await;
    assert_eq!(alice.receive_report().await.message_id.as_str(), "1");
    assert_eq!(alice.receive_report().await.message_id.as_str(), "2");
    assert_eq!(Fate::of(&bob.answer(exchange).await), Fate::delivered());
    let response = bob.exchange(&reports(&[("bob", "2"), ("carol", "2"), ("bob", "3")])).await;
    let causes: Vec<_> = individual(&response).into_iter().map(|(_, _, cause)| cause.unwrap_or_default()).collect();
    assert_eq!(causes, ["", "ORIGINATOR_NOT_ALLOWED", "ORIGINATOR_NOT_ALLOWED"]);
    assert!(alice.requests.is_empty());
}

#[tokio::test]
async fn small_messages_wait_for_each_other_as_long_as_they_are_told_to() {
    // Longer than this test: what goes out does so because there is enough, or because something else follows.
    let net = Net::with(Limits { aggregation_wait_milliseconds: 60_000, ..Limits::default() }).await;
    let (mut alice, mut carol) = (net.ue("alice").await, net.ue("carol").await);
    let mut bob = aggregating_ue(&net, "bob").await;
    let sized = |id: &str, octets: usize| Message { payload: vec![7; octets], ..message("alice", "bob", id) };
    let mut open = vec![alice.post(&sized("1", 1000)).await, alice.post(&sized("2", 1000)).await];
    until(|| net.core.open_requests() == 2).await;
    // What is urgent does not wait, and nothing waits for it.
    let urgent = Message { priority: Priority::High, ..message("alice", "bob", "0") };
    let exchange = alice.post(&urgent).await;
    assert_eq!(bob.receive().await.message_id.as_str(), "0");
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
    open.push(alice.post(&sized("3", 48)).await);
    let UeMessage::AggregatedMessage(aggregated) = bob.receive_any().await else { panic!() };
    assert_eq!(aggregated.messages.len(), 3);
    for exchange in open {
        assert_eq!(alice.fate(exchange).await, Fate::delivered());
    }
    let small = alice.post(&message("alice", "bob", "4")).await;
    until(|| net.core.open_requests() == 1).await;
    let other = carol.post(&message("carol", "bob", "5")).await;
    assert_eq!(bob.receive().await.message_id.as_str(), "4");
    assert_eq!(alice.fate(small).await, Fate::delivered());
    // The connection's end leaves nobody waiting.
    bob.leave().await;
    assert_eq!(carol.fate(other).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
}

#[tokio::test]
async fn a_wait_that_is_over_sends_what_there_is() {
    let net = Net::with(Limits { aggregation_wait_milliseconds: 300, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    let mut bob = aggregating_ue(&net, "bob").await;
    let exchange = alice.post(&message("alice", "bob", "1")).await;
    assert_eq!(bob.receive().await.message_id.as_str(), "1");
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn reports_that_wait_go_out_in_one() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    for id in ["1", "2", "3"] {
        let wanted = Message { delivery_status_required: true, ..storable("alice", "bob", id) };
        assert_eq!(alice.send(&wanted).await, Fate::stored());
    }
    alice.leave().await;
    let mut bob = net.ue("bob").await;
    for id in ["1", "2", "3"] {
        assert_eq!(bob.receive().await.message_id.as_str(), id);
        assert_eq!(bob.send_report(&report("bob", "alice", id)).await, Fate::stored());
    }
    let mut alice = aggregating_ue(&net, "alice").await;
    let UeMessage::AggregatedReport(aggregated) = alice.receive_any().await else { panic!() };
    let ids: Vec<_> = aggregated.reports.iter().map(|report| report.message_id.as_str()).collect();
    assert_eq!((aggregated.originator.clone(), ids), (address("bob"), vec!["1", "2", "3"]));
    until(|| net.stored_for("alice") == 0).await;
}
