//! Several messages or reports in one (TS 23.554 clause 8.4), copies of group messages, topics, stored messages.

use std::time::Duration;

use client::{
    AggregationPolicy, Client, ClientConfig, ClientError, Incoming, IncomingStream, Outcome, OutgoingMessage, Received,
};
use coap::{Code, Response};
use message::{
    Address, AddressType, AggregatedMessage, AggregatedReport, DecodeLimits, DeliveryStatus, FailureCause,
    IndividualReport, IndividualResponse, Message, MessageResponse, MessagingTopic, Priority, ReportDeliveryStatus,
    TopicSubscriptionResponse, UeMessage, failure,
};
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use crate::server::{ME, OTHER, Peer, Server, cause, message_to_me, patiently, until};

type Sending = JoinHandle<Result<Outcome, ClientError>>;

fn aggregating(server: &Server) -> ClientConfig {
    let mut config = server.config();
    // As long as the test needs: an aggregate goes when it is full.
    config.aggregation = Some(AggregationPolicy { wait: Duration::from_secs(30), octets_max: 10 });
    config
}

async fn send(client: &Client, id: &str, payload: &str, priority: Priority) -> Sending {
    let unanswered = client.status().unanswered;
    let message = OutgoingMessage::to_ue(&OTHER.parse().unwrap(), payload);
    let message = message.message_id(id.parse().unwrap()).priority(priority);
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.send(message).await }
    });
    until(client, |status| status.unanswered > unanswered).await;
    sending
}

async fn outcome(sending: Sending) -> Outcome {
    patiently(sending).await.unwrap().unwrap()
}

async fn aggregate(peer: &mut Peer) -> (coap::ExchangeId, AggregatedMessage) {
    match peer.request().await {
        (exchange, UeMessage::AggregatedMessage(aggregate)) => (exchange, *aggregate),
        other => panic!("{other:?}"),
    }
}

fn ids(aggregate: &AggregatedMessage) -> Vec<&str> {
    aggregate.messages.iter().map(|message| message.message_id.as_str()).collect()
}

fn answer(aggregate: &AggregatedMessage, status: Option<DeliveryStatus>, each: &[(&str, &str)]) -> Response {
    let individual = each.iter().map(|(id, status)| IndividualResponse {
        message_id: id.parse().unwrap(),
        status: (!status.is_empty()).then(|| status.parse().unwrap()),
        failure_cause: (*status == "DELY_FAILED").then(|| "TARGET_UNREACHABLE".into()),
    });
    let answer = MessageResponse {
        originator: aggregate.originator.clone(),
        message_id: aggregate.message_id.clone(),
        failure_cause: None,
        individual: individual.collect(),
        status,
    };
    Response::new(Code::CHANGED).with_content_format(50).with_payload(answer.encode())
}

fn refusal(cause: FailureCause) -> Response {
    Response::new(Code::from_octet(cause.coap_code())).with_content_format(50).with_payload(failure(&cause))
}

async fn next_message(incoming: &mut IncomingStream) -> Received<Message> {
    match patiently(incoming.next()).await {
        Some(Incoming::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn small_messages_go_as_one_and_each_has_its_own_outcome() {
    let server = Server::start().await;
    let (client, _incoming) = Client::start(aggregating(&server), server.home.clone()).unwrap();
    let mut peer = server.accept().await;
    let (exchange, UeMessage::Registration(registration)) = peer.request().await else { panic!("no REG") };
    assert_eq!(registration.client_profile.unwrap().aggregation, Some(true));
    peer.respond(exchange, Response::new(Code::CREATED)).await;
    patiently(client.registered()).await.unwrap();
    let mut sending = Vec::new();
    for id in ["1", "2", "3", "4"] {
        sending.push(send(&client, id, "xxx", Priority::Middle).await);
    }
    let (exchange, first) = aggregate(&mut peer).await;
    assert_eq!(ids(&first), ["1", "2", "3"]);
    let each = [("1", ""), ("2", "DELY_STORED"), ("3", "DELY_FAILED")];
    peer.respond(exchange, answer(&first, Some(DeliveryStatus::Failed), &each)).await;
    // What is urgent does not wait, nor does what was before it.
    sending.push(send(&client, "5", "x", Priority::High).await);
    for id in ["4", "5"] {
        let (exchange, message) = peer.message().await;
        assert_eq!(message.message_id.as_str(), id);
        peer.answer(exchange, &message, None).await;
    }
    let mut outcomes = Vec::new();
    for sending in sending {
        outcomes.push(outcome(sending).await);
    }
    let failed = Outcome::Failed("TARGET_UNREACHABLE".into());
    assert_eq!(outcomes, [Outcome::Delivered, Outcome::Stored, failed, Outcome::Delivered, Outcome::Delivered]);
}

#[tokio::test]
async fn what_the_server_does_not_take_as_one_is_sent_one_by_one() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = {
        let (client, incoming) = Client::start(aggregating(&server), server.home.clone()).unwrap();
        (client, incoming, server.accept_registered().await)
    };
    patiently(client.registered()).await.unwrap();
    let first = send(&client, "1", "xxxxx", Priority::Middle).await;
    let second = send(&client, "2", "xxxxx", Priority::Low).await;
    let third = send(&client, "3", "x", Priority::Middle).await;
    let (exchange, both) = aggregate(&mut peer).await;
    assert_eq!(ids(&both), ["1", "2"]);
    peer.respond(exchange, refusal(FailureCause::Malformed)).await;
    for id in ["1", "2"] {
        let (exchange, message) = peer.message().await;
        assert_eq!(message.message_id.as_str(), id);
        peer.answer(exchange, &message, None).await;
    }
    assert_eq!((outcome(first).await, outcome(second).await), (Outcome::Delivered, Outcome::Delivered));
    // Closing sends what still waits for others.
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    let (exchange, message) = peer.message().await;
    peer.answer(exchange, &message, Some("DELY_STORED")).await;
    assert_eq!(outcome(third).await, Outcome::Stored);
    patiently(closing).await.unwrap();
}

fn messages_to_me(ids: &[&str]) -> UeMessage {
    let messages: Vec<Message> = ids
        .iter()
        .map(|id| match message_to_me(id, true) {
            UeMessage::Message(message) => *message,
            other => panic!("{other:?}"),
        })
        .collect();
    UeMessage::AggregatedMessage(Box::new(AggregatedMessage::aggregate("all".parse().unwrap(), &messages).unwrap()))
}

#[tokio::test]
async fn messages_that_come_as_one_are_handed_over_one_by_one_and_acknowledged_together() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.unaccepted_max = 2;
    let (_client, mut incoming, mut peer) = server.connected(config).await;
    let exchange = peer.send(&messages_to_me(&["1", "2", "3"])).await;
    for id in ["1", "2", "3"] {
        let message = next_message(&mut incoming).await;
        assert_eq!((message.content().message_id.as_str(), message.content().segment.is_some()), (id, false));
        patiently(message.accept()).await.unwrap();
    }
    let mut reported = Vec::new();
    let mut response = None;
    while reported.len() < 3 || response.is_none() {
        match peer.event().await.unwrap() {
            coap::StreamEvent::Response { exchange: answered, response: answer } if answered == exchange => {
                response = Some(answer);
            }
            coap::StreamEvent::Request { request } => {
                let report = UeMessage::decode(&request.payload, &DecodeLimits::default()).unwrap();
                let UeMessage::DeliveryStatusReport(report) = report else { panic!("{report:?}") };
                reported.push(report.message_id.as_str().to_owned());
                peer.respond(request.exchange, Response::new(Code::CHANGED)).await;
            }
            _ => {}
        }
    }
    assert_eq!(reported, ["1", "2", "3"]);
    let answer = MessageResponse::decode(&response.unwrap().payload, &DecodeLimits::default()).unwrap();
    assert_eq!((answer.message_id.as_str(), answer.status, answer.individual.len()), ("all", None, 0));
    // Again, two of them in one: nothing is new.
    let exchange = peer.send(&messages_to_me(&["2", "3"])).await;
    assert_eq!(peer.response(exchange).await.code, Code::CHANGED);
}

#[tokio::test]
async fn one_of_several_that_is_given_back_or_refused_is_told_apart_from_the_others() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    let exchange = peer.send(&messages_to_me(&["1", "2"])).await;
    patiently(next_message(&mut incoming).await.accept()).await.unwrap();
    drop(next_message(&mut incoming).await);
    let response = loop {
        // The report on the first may come before.
        match peer.event().await.unwrap() {
            coap::StreamEvent::Response { exchange: answered, response } if answered == exchange => break response,
            coap::StreamEvent::Request { request } => {
                peer.respond(request.exchange, Response::new(Code::CHANGED)).await;
            }
            _ => {}
        }
    };
    assert_eq!((response.code, cause(&response)), (Code::SERVICE_UNAVAILABLE, "OVERLOADED".into()));
    let exchange = peer.send(&messages_to_me(&["2", "3"])).await;
    next_message(&mut incoming).await.refuse();
    let third = next_message(&mut incoming).await;
    assert_eq!(third.content().message_id.as_str(), "3");
    patiently(third.accept()).await.unwrap();
    let response = loop {
        match peer.event().await.unwrap() {
            coap::StreamEvent::Response { exchange: answered, response } if answered == exchange => break response,
            coap::StreamEvent::Request { request } => {
                peer.respond(request.exchange, Response::new(Code::CHANGED)).await;
            }
            _ => {}
        }
    };
    let answer = MessageResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
    assert_eq!(answer.status, Some(DeliveryStatus::Failed));
    let failed = |id: &str| {
        answer.individual.iter().find(|one| one.message_id.as_str() == id).map(|one| one.status.is_some()).unwrap()
    };
    assert!(failed("2") && !failed("3"));
}

#[tokio::test]
async fn an_aggregated_report_is_one_report_from_each_member() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.unaccepted_max = 1;
    let (_client, mut incoming, mut peer) = server.connected(config).await;
    let member = |n: usize| Address::ue(&format!("member-{n}@lab.example").parse().unwrap());
    let group = Address { addr_type: AddressType::Group, addr: "group@lab.example".parse().unwrap() };
    let report = |n: usize| IndividualReport {
        originator: member(n),
        message_id: "7".parse().unwrap(),
        delivery_status: if n == 1 { ReportDeliveryStatus::Failed } else { ReportDeliveryStatus::Success },
        failure_cause: (n == 1).then(|| "EXPIRED".into()),
    };
    let aggregate = UeMessage::AggregatedReport(AggregatedReport {
        originator: group,
        destination: Address::ue(&ME.parse().unwrap()),
        reports: (0..3).map(report).collect(),
    });
    let exchange = peer.send(&aggregate).await;
    for n in 0..3 {
        let Some(Incoming::Report(received)) = patiently(incoming.next()).await else { panic!("no report") };
        assert_eq!((&received.content().originator, received.content().message_id.as_str()), (&member(n), "7"));
        assert_eq!(received.content().failure_cause.is_some(), n == 1);
        patiently(received.accept()).await.unwrap();
    }
    assert_eq!(peer.response(exchange).await.code, Code::CHANGED);
    let exchange = peer.send(&aggregate).await;
    assert_eq!(peer.response(exchange).await.code, Code::CHANGED, "the application has them");
}

#[tokio::test]
async fn a_copy_of_a_group_message_is_taken_if_it_is_ours() {
    let server = Server::start().await;
    let (_client, mut incoming, mut peer) = server.connected(server.config()).await;
    let copy = |id: &str, member: &str| {
        let UeMessage::Message(mut message) = message_to_me(id, false) else { panic!("another type") };
        message.destination = Address { addr_type: AddressType::Group, addr: "group@lab.example".parse().unwrap() };
        message.recipient = Some(Address::ue(&member.parse().unwrap()));
        UeMessage::Message(message)
    };
    let exchange = peer.send(&copy("1", OTHER)).await;
    let response = peer.response(exchange).await;
    assert_eq!((response.code, cause(&response)), (Code::NOT_FOUND, "UNKNOWN_TARGET".into()));
    let exchange = peer.send(&copy("2", ME)).await;
    let message = next_message(&mut incoming).await;
    assert_eq!(message.content().destination.addr_type, AddressType::Group);
    patiently(message.accept()).await.unwrap();
    assert_eq!(peer.response(exchange).await.code, Code::CHANGED);
}

fn topics(names: &[&str]) -> Vec<MessagingTopic> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn subscribed(status: &str, cause: Option<&str>) -> Response {
    let answer = TopicSubscriptionResponse {
        originator: Address::ue(&ME.parse().unwrap()),
        status: status.into(),
        expiration_time: None,
        failure_cause: cause.map(str::to_owned),
    };
    Response::new(Code::CHANGED).with_content_format(50).with_payload(answer.encode())
}

#[tokio::test]
async fn a_subscription_is_made_kept_up_and_withdrawn() {
    let server = Server::start().await;
    let (client, mut incoming, mut peer) = server.connected(server.config()).await;
    let until = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(&topics(&["alerts/fire", "alerts/flood"]), Some(until)).await }
    });
    let (exchange, UeMessage::TopicSubscription(request)) = peer.request().await else { panic!("no TOPSUB") };
    assert_eq!(request.topics, topics(&["alerts/fire", "alerts/flood"]));
    assert!(request.expiration_time.is_some() && request.originator.as_ue().unwrap().as_str() == ME);
    peer.respond(exchange, subscribed("SUBSCRIBED", None)).await;
    patiently(asking).await.unwrap().unwrap();
    let leaving = tokio::spawn({
        let client = client.clone();
        async move { client.unsubscribe(&topics(&["alerts/flood"])).await }
    });
    let (exchange, UeMessage::TopicUnsubscription(request)) = peer.request().await else { panic!("no TOPUNSUB") };
    assert_eq!(request.topics, topics(&["alerts/flood"]));
    peer.respond(exchange, subscribed("UNSUBSCRIBED", None)).await;
    patiently(leaving).await.unwrap().unwrap();
    drop(peer);
    let mut peer = server.accept_registered().await;
    let (exchange, UeMessage::TopicSubscription(request)) = peer.request().await else { panic!("no TOPSUB") };
    assert_eq!(request.topics, topics(&["alerts/fire"]));
    peer.respond(exchange, refusal(FailureCause::TopicNotAllowed)).await;
    // The answer has been read when the next thing has been.
    taken(&mut peer, &mut incoming, "1").await;
    drop(peer);
    // What is not allowed any more is not asked for again.
    let mut peer = server.accept_registered().await;
    taken(&mut peer, &mut incoming, "2").await;
}

/// Delivers a message; the next thing the client says is the acknowledgement.
async fn taken(peer: &mut Peer, incoming: &mut IncomingStream, id: &str) {
    let exchange = peer.send(&message_to_me(id, false)).await;
    patiently(next_message(incoming).await.accept()).await.unwrap();
    assert_eq!(peer.response(exchange).await.code, Code::CHANGED);
}

#[tokio::test]
async fn a_subscription_can_be_refused_and_has_limits() {
    let server = Server::start().await;
    let mut config = server.config();
    config.limits.subscribed_topics_max = 1;
    let (client, _incoming, mut peer) = server.connected(config).await;
    for wrong in [topics(&[]), topics(&["a", "b"]), vec!["a".parse().unwrap(); 65]] {
        assert!(matches!(patiently(client.subscribe(&wrong, None)).await, Err(ClientError::Invalid(_))));
    }
    for response in [refusal(FailureCause::TopicNotAllowed), subscribed("REFUSED", Some("TOPIC_NOT_ALLOWED"))] {
        let asking = tokio::spawn({
            let client = client.clone();
            async move { client.subscribe(&topics(&["a"]), None).await }
        });
        let (exchange, _) = peer.request().await;
        peer.respond(exchange, response).await;
        let refused = patiently(asking).await.unwrap();
        assert!(
            matches!(&refused, Err(ClientError::Refused { cause, .. }) if cause == "TOPIC_NOT_ALLOWED"),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_stored_message_is_changed_and_discarded() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    let until = OffsetDateTime::now_utc() + Duration::from_secs(60);
    let id: message::MessageId = "7".parse().unwrap();
    for (expiration, response, is_done) in [
        (Some(until), Response::new(Code::CHANGED), true),
        (None, Response::new(Code::DELETED), true),
        (None, refusal(FailureCause::MessageNotStored), false),
    ] {
        let asking = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move {
                match expiration {
                    Some(until) => client.update_stored(&id, until).await,
                    None => client.discard_stored(&id).await,
                }
            }
        });
        let (exchange, UeMessage::StoredMessageUpdate(update)) = peer.request().await else { panic!("no STOUPD") };
        assert_eq!((update.message_id.as_str(), update.expiration_time.is_some()), ("7", expiration.is_some()));
        peer.respond(exchange, response).await;
        let result = patiently(asking).await.unwrap();
        assert_eq!(result.is_ok(), is_done, "{result:?}");
        if let Err(error) = result {
            assert!(matches!(error, ClientError::Refused { cause, temporary: false } if cause == "MESSAGE_NOT_STORED"));
        }
    }
}

#[tokio::test]
async fn messages_to_groups_topics_and_areas_name_them() {
    let server = Server::start().await;
    let (client, _incoming, mut peer) = server.connected(server.config()).await;
    for (message, kind) in [
        (OutgoingMessage::to_group(&"staff@lab.example".parse().unwrap(), "x"), AddressType::Group),
        (OutgoingMessage::to_topic(&"alerts/fire".parse().unwrap(), "x"), AddressType::Topic),
        (OutgoingMessage::to_broadcast_area(&"district-9".parse().unwrap(), "x"), AddressType::Bc),
    ] {
        let sending = tokio::spawn({
            let client = client.clone();
            async move { client.send(message).await }
        });
        let (exchange, message) = peer.message().await;
        assert_eq!((message.destination.addr_type.clone(), &message.recipient), (kind, &None));
        peer.answer(exchange, &message, Some("DELY_STORED")).await;
        assert_eq!(outcome(sending).await, Outcome::Stored);
    }
}
