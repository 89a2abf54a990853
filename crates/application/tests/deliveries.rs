//! What the server sees of an Application Server: what is taken, refused, put off and repeated.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use application::{
    Access, ApplicationError, ApplicationServer, ApplicationServerConfig, Incoming, IncomingStream, Received, Senders,
};
use message::ts29538::UpdateStatus;
use message::{Address, DeliveryStatusReport, Message};
use sbi::testing::TestAuthority;
use sbi::{PeerName, SbiClient, SbiError};
use serde_json::{Value, json};
use tokio::time::timeout;

const BILLING: &str = "a0000000-0000-4000-8000-000000000001";
const SERVER: &str = "a0000000-0000-4000-8000-000000000002";
const STRANGER: &str = "a0000000-0000-4000-8000-000000000003";
const PATIENCE: Duration = Duration::from_secs(60);

/// An Application Server whose MSGin5G Server is nowhere, and that server's client.
struct World {
    authority: TestAuthority,
    billing: ApplicationServer,
    incoming: IncomingStream,
    server: SbiClient,
}

impl World {
    async fn new(change: impl FnOnce(&mut ApplicationServerConfig)) -> Self {
        let authority = TestAuthority::new();
        let access = Access::Certificate { server: "https://127.0.0.1:1".to_owned() };
        let server = PeerName { nf_instance_id: Some(SERVER.to_owned()), dns_name: None };
        let mut config = ApplicationServerConfig::new(
            "billing@lab".parse().unwrap(),
            authority.issue(BILLING, &[]),
            access,
            Senders::Named(vec![server]),
        );
        change(&mut config);
        let (billing, incoming) = ApplicationServer::open(config).await.unwrap();
        let server = authority.client(SERVER);
        Self { authority, billing, incoming, server }
    }

    fn uri(&self, operation: &str) -> String {
        format!("{}/{operation}", self.billing.target_uri())
    }

    /// Delivers message `id` as the server does, beside what the test does meanwhile.
    fn deliver(&self, id: &str) -> tokio::task::JoinHandle<Result<Value, SbiError>> {
        let (client, uri, body) = (self.server.clone(), self.uri("deliver-message"), message(id));
        tokio::spawn(async move { client.post::<_, Value>(&uri, &body).await?.into_body() })
    }

    async fn message(&mut self) -> Received<Message> {
        match timeout(PATIENCE, self.incoming.next()).await.unwrap().unwrap() {
            Incoming::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    async fn report(&mut self) -> Received<DeliveryStatusReport> {
        match timeout(PATIENCE, self.incoming.next()).await.unwrap().unwrap() {
            Incoming::Report(report) => report,
            other => panic!("{other:?}"),
        }
    }
}

fn message(id: &str) -> Value {
    json!({
        "oriAddr": {"addrType": "UE", "addr": "meter@lab"}, "destAddr": {"addrType": "AS", "addr": "billing@lab"},
        "msgId": id, "payload": "MjEuNQ==", "stoAndFwInd": false, "delivStReqInd": true,
    })
}

fn refused(outcome: Result<Value, SbiError>) -> (u16, Option<u32>, String) {
    let error = outcome.unwrap_err();
    let problem = error.problem().unwrap_or_else(|| panic!("{error}"));
    (problem.status.unwrap(), problem.retry_after_seconds, problem.cause.clone().unwrap_or_default().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_answered_when_it_is_accepted_and_handed_over_once() {
    let mut world = World::new(|_| {}).await;
    let pending = world.deliver("m-1");
    let received = world.message().await;
    assert_eq!((received.content().payload.as_slice(), received.content().message_id.as_str()), (&b"21.5"[..], "m-1"));
    let report = received.success_report().unwrap();
    assert_eq!(report.destination, Address::ue(&"meter@lab".parse().unwrap()));
    assert_eq!(report.originator, Address::application_server(world.billing.id()));
    assert!(!pending.is_finished(), "the server is answered by the application alone");
    received.accept();
    let ack = pending.await.unwrap().unwrap();
    assert_eq!((&ack["msgId"], ack.get("status")), (&json!("m-1"), None));
    // It comes again, and is answered without the application.
    assert_eq!(world.deliver("m-1").await.unwrap().unwrap(), ack);
    let pending = world.deliver("m-2");
    let received = world.message().await;
    assert_eq!(received.content().message_id.as_str(), "m-2", "and not m-1 again");
    received.refuse();
    let refusal = pending.await.unwrap().unwrap();
    assert_eq!((&refusal["status"], &refusal["failureCause"]), (&json!("DELY_FAILED"), &json!("TARGET_REFUSED")));
    assert_eq!(world.deliver("m-2").await.unwrap().unwrap(), refusal);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_topics_is_answered_when_it_is_accepted_and_put_off_when_it_is_not() {
    let mut world = World::new(|config| config.limits.undecided_max = 1).await;
    let told =
        json!({"msgTopics": [{"msgTopic": "lab/rain", "updateStat": "CREATED"}], "exprTime": "2099-12-01T00:00:00Z"});
    let uri = world.uri("topic-list");
    let tell = |client: &SbiClient| {
        let (client, uri, body) = (client.clone(), uri.clone(), told.clone());
        tokio::spawn(async move { client.post::<_, Value>(&uri, &body).await.map(|answer| answer.status.as_u16()) })
    };
    let status =
        |outcome: Result<u16, SbiError>| outcome.unwrap_or_else(|error| error.problem().unwrap().status.unwrap());
    let stranger = tell(&world.authority.client(STRANGER)).await.unwrap();
    assert_eq!(status(stranger), 403);
    let none = json!({"msgTopics": []});
    assert_eq!(refused(world.server.post::<_, Value>(&uri, &none).await.map(|_| Value::Null)).0, 400);

    let pending = tell(&world.server);
    let Incoming::Topics(changes) = timeout(PATIENCE, world.incoming.next()).await.unwrap().unwrap() else {
        panic!("no topics")
    };
    let [topic] = changes.content().msg_topics.as_slice() else { panic!("{changes:?}") };
    assert_eq!((topic.msg_topic.as_str(), &topic.update_stat), ("lab/rain", &UpdateStatus::Created));
    assert!(!pending.is_finished(), "the server is answered by the application alone");
    changes.accept();
    assert_eq!(status(pending.await.unwrap()), 204);

    let pending = tell(&world.server);
    drop(timeout(PATIENCE, world.incoming.next()).await.unwrap());
    assert_eq!(status(pending.await.unwrap()), 503, "given back: it is told again");
    // Nobody takes anything any more.
    let another = world.authority.client(SERVER);
    drop(world.incoming);
    assert_eq!(refused(another.post::<_, Value>(&uri, &told).await.map(|_| Value::Null)).0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_comes_again() {
    let mut world = World::new(|_| {}).await;
    let pending = world.deliver("m-1");
    drop(world.message().await);
    assert_eq!(refused(pending.await.unwrap()), (503, Some(1), "NF_CONGESTION".to_owned()));
    // The pause that was asked for is the client's affair: another asks at once.
    world.server = world.authority.client(SERVER);
    let pending = world.deliver("m-1");
    world.message().await.accept();
    pending.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_decided_in_time_is_put_off_and_the_decision_counts_when_it_comes_again() {
    let mut world = World::new(|config| config.limits.decision_milliseconds = 1).await;
    let pending = world.deliver("m-1");
    let received = world.message().await;
    assert_eq!(refused(pending.await.unwrap()).0, 503);
    world.server = world.authority.client(SERVER);
    assert_eq!(refused(world.deliver("m-1").await.unwrap()).0, 503, "the application has it");
    received.accept();
    world.server = world.authority.client(SERVER);
    assert_eq!(world.deliver("m-1").await.unwrap().unwrap().get("status"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_be_undecided_is_put_off() {
    let mut world = World::new(|config| config.limits.undecided_max = 1).await;
    let first = world.deliver("m-1");
    let received = world.message().await;
    assert_eq!(refused(world.deliver("m-2").await.unwrap()), (503, Some(1), "NF_CONGESTION".to_owned()));
    received.accept();
    first.await.unwrap().unwrap();
    world.server = world.authority.client(SERVER);
    let second = world.deliver("m-2");
    world.message().await.accept();
    second.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_takes_messages_they_are_put_off() {
    let world = World::new(|_| {}).await;
    let World { authority, billing, incoming, server } = world;
    drop(incoming);
    let uri = format!("{}/deliver-message", billing.target_uri());
    assert_eq!(refused(server.post::<_, Value>(&uri, &message("m-1")).await.map(|_| Value::Null)).0, 503);
    drop(authority);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_server_delivers_and_only_what_is_well_formed_and_meant() {
    let mut world = World::new(|_| {}).await;
    let stranger = world.authority.client(STRANGER);
    for operation in ["deliver-message", "deliver-report"] {
        let outcome = stranger.post::<_, Value>(&world.uri(operation), &message("m-1")).await.map(|_| Value::Null);
        assert_eq!(refused(outcome), (403, None, "SENDER_NOT_ALLOWED".to_owned()), "{operation}");
    }

    let mut long = message("m-1");
    long["payload"] = json!("AAAA".repeat(65_536 / 3 + 1));
    let outcome = world.server.post::<_, Value>(&world.uri("deliver-message"), &long).await.map(|_| Value::Null);
    assert_eq!(refused(outcome).0, 400);
    let report = |to: &str| {
        json!({
            "oriAddr": {"addrType": "UE", "addr": "meter@lab"}, "destAddr": {"addrType": "AS", "addr": to},
            "msgId": "m-1", "delivSt": "REPT_DELY_SUCCESS",
        })
    };
    let uri = world.uri("deliver-report");
    let outcome = world.server.post::<_, Value>(&uri, &report("other@lab")).await.map(|_| Value::Null);
    assert_eq!(refused(outcome), (404, None, "UNKNOWN_TARGET".to_owned()));
    let client = world.server.clone();
    let pending = tokio::spawn(async move { client.post::<_, Value>(&uri, &report("billing@lab")).await });
    let received = world.report().await;
    assert_eq!(received.content().message_id.as_str(), "m-1");
    received.accept();
    pending.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_in_anothers_name_and_no_registration_ended_that_is_none() {
    let world = World::new(|_| {}).await;
    let mut message = world.billing.message(Address::ue(&"meter@lab".parse().unwrap()), "x");
    message.originator = Address::application_server(&"other@lab".parse().unwrap());
    assert!(matches!(world.billing.send(&message).await, Err(ApplicationError::NotOwn)));
    assert!(matches!(world.billing.deregister().await, Err(ApplicationError::NotRegistered)));
    // And one that is nobody's answer is transient.
    let error = world.billing.register().await.unwrap_err();
    assert!(error.is_transient() && error.cause().is_none(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_closes_with_its_last_clone_and_the_stream_ends() {
    let World { billing, mut incoming, .. } = World::new(|_| {}).await;
    let clone = billing.clone();
    drop(billing);
    assert!(clone.target_uri().starts_with("https://127.0.0.1:"));
    clone.close().await;
    assert!(timeout(PATIENCE, incoming.next()).await.unwrap().is_none());
}
