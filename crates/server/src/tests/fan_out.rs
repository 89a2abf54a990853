//! One message to many: durable jobs, their copies, their reports. The many are subscribers of a topic.

use message::{
    AggregatedReport, IndividualReport, MessagingTopic, StoredMessageUpdate, TopicSubscription,
    TopicSubscriptionResponse, TopicUnsubscription,
};
use store::{MemberState, NewFanOutJob};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::*;
use crate::delivery::{Answer, Asker, Collector};
use crate::fan_out::{FanOut, Fresh};

/// Everybody may publish and subscribe to every topic.
pub(super) fn open_topics() -> Vec<TopicSection> {
    let everybody = || vec!["*".parse().unwrap()];
    vec![TopicSection { name: "*".to_owned(), publishers: everybody(), subscribers: everybody() }]
}

/// Reports are told when all are there.
pub(super) fn patient() -> Limits {
    Limits { report_aggregation_seconds: 3600, ..Limits::default() }
}

pub(super) fn topics(limits: Limits) -> Setup {
    Setup {
        limits,
        destinations: DestinationsSetup { topics: open_topics(), ..DestinationsSetup::default() },
        ..Setup::default()
    }
}

pub(super) fn topic_address(name: &str) -> Address {
    Address::topic(&name.parse().unwrap())
}

pub(super) fn to_topic(from: &str, topic: &str, id: &str) -> Message {
    Message { destination: topic_address(topic), ..storable(from, topic, id) }
}

pub(super) fn wanted(message: Message) -> Message {
    Message { delivery_status_required: true, ..message }
}

impl Ue {
    pub(super) async fn subscribe_until(
        &mut self,
        name: &str,
        topics: &[&str],
        until: Option<OffsetDateTime>,
    ) -> (String, TopicSubscriptionResponse) {
        let topics: Vec<MessagingTopic> = topics.iter().map(|topic| topic.parse().unwrap()).collect();
        let request = TopicSubscription { originator: address(name), topics, expiration_time: until };
        let response = self.exchange(&request.encode()).await;
        let answer = TopicSubscriptionResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
        (response.code.to_string(), answer)
    }

    pub(super) async fn subscribe(&mut self, name: &str, topic: &str) {
        let (code, answer) = self.subscribe_until(name, &[topic], None).await;
        assert_eq!((code.as_str(), answer.status.as_str()), ("2.04", "SUBSCRIBED"));
    }

    pub(super) async fn unsubscribe(&mut self, name: &str, topics: &[&str]) -> (String, TopicSubscriptionResponse) {
        let topics = topics.iter().map(|topic| topic.parse().unwrap()).collect();
        let request = TopicUnsubscription { originator: address(name), topics };
        let response = self.exchange(&request.encode()).await;
        let answer = TopicSubscriptionResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
        (response.code.to_string(), answer)
    }

    pub(super) async fn receive_aggregated_report(&mut self) -> AggregatedReport {
        let (exchange, message) = self.delivery().await;
        self.respond(exchange, Code::CHANGED).await;
        let UeMessage::AggregatedReport(report) = message else { panic!("not an aggregated report: {message:?}") };
        report
    }
}

impl Net {
    /// A subscriber that is there.
    pub(super) async fn subscriber(&self, name: &str, topic: &str) -> Ue {
        let mut ue = self.ue(name).await;
        ue.subscribe(name, topic).await;
        ue
    }

    /// A subscriber that is away.
    pub(super) async fn away_subscriber(&self, name: &str, topic: &str) {
        self.subscriber(name, topic).await.leave().await;
    }

    pub(super) async fn jobs_on_disk(&self) -> usize {
        self.core.store.jobs(None, 64).await.unwrap().len()
    }

    pub(super) async fn until_no_job_is_left(&self) {
        timeout(PATIENCE, async {
            while self.jobs_on_disk().await > 0 || self.core.fan_out.open_jobs() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .unwrap();
    }
}

pub(super) fn individual(member: &str, id: &str, cause: Option<&str>) -> IndividualReport {
    IndividualReport {
        originator: address(member),
        message_id: id.parse().unwrap(),
        delivery_status: if cause.is_none() { ReportDeliveryStatus::Success } else { ReportDeliveryStatus::Failed },
        failure_cause: cause.map(str::to_owned),
    }
}

#[tokio::test]
async fn every_subscriber_gets_a_copy_and_one_that_is_away_gets_it_on_return() {
    let net = Net::of(topics(Limits::default())).await;
    let mut alice = net.subscriber("alice", "alerts").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    let mut carol = net.subscriber("carol", "alerts").await;
    net.away_subscriber("dave", "alerts").await;
    let sent = to_topic("alice", "alerts", "1");
    assert_eq!(alice.send(&sent).await, Fate::stored());
    for (ue, name) in [(&mut bob, "bob"), (&mut carol, "carol")] {
        let copy = ue.receive().await;
        assert_eq!((copy.originator, copy.destination), (address("alice"), topic_address("alerts")));
        assert_eq!((copy.recipient, copy.message_id.as_str()), (Some(address(name)), "1"));
        assert_eq!(copy.payload, sent.payload);
    }
    until(|| net.stored_for("dave") == 1).await;
    let mut dave = net.ue("dave").await;
    assert_eq!(dave.receive().await.recipient, Some(address("dave")));
    net.until_no_job_is_left().await;
    // Not to the one who sent it; and repeated, it is answered and not sent again.
    assert_eq!(alice.send(&sent).await, Fate::stored());
    assert!(alice.requests.is_empty());
    assert_eq!(bob.unsubscribe("bob", &["alerts"]).await.0, "2.04");
    assert!(bob.requests.is_empty());
}

#[tokio::test]
async fn reports_come_back_in_one_from_the_topic_when_all_are_there() {
    let net = Net::of(topics(patient())).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    let mut carol = net.subscriber("carol", "alerts").await;
    let sent = wanted(Message { store_and_forward: false, ..to_topic("alice", "alerts", "1") });
    net.away_subscriber("dave", "alerts").await;
    assert_eq!(alice.send(&sent).await, Fate::stored());
    assert!(bob.receive().await.delivery_status_required);
    let (exchange, _) = carol.delivery().await;
    carol.respond(exchange, Code::BAD_REQUEST).await;
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    let told = alice.receive_aggregated_report().await;
    assert_eq!((told.originator, told.destination), (topic_address("alerts"), address("alice")));
    let expected = [
        individual("bob", "1", None),
        individual("carol", "1", Some("TARGET_REFUSED")),
        individual("dave", "1", Some("TARGET_UNREACHABLE")),
    ];
    let mut reports = told.reports;
    reports.sort_by(|one, other| one.originator.cmp(&other.originator));
    assert_eq!(reports, expected);
    net.until_no_job_is_left().await;
    // Repeated after the job is over, it has the same answer, and nobody is told again.
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    assert!(alice.requests.is_empty());
}

#[tokio::test]
async fn what_is_there_is_told_after_a_while_and_the_rest_later() {
    let net = Net::of(topics(Limits { report_aggregation_seconds: 0, ..Limits::default() })).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    let mut carol = net.subscriber("carol", "alerts").await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    for (ue, name) in [(&mut bob, "bob"), (&mut carol, "carol")] {
        ue.receive().await;
        assert_eq!(ue.send_report(&report(name, "alice", "1")).await, Fate::stored());
        assert_eq!(alice.receive_aggregated_report().await.reports, [individual(name, "1", None)]);
    }
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn a_copy_that_expires_on_disk_is_reported_with_the_others() {
    let net = Net::of(topics(patient())).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    net.away_subscriber("carol", "alerts").await;
    let soon = OffsetDateTime::now_utc() + time::Duration::seconds(4);
    let sent = Message { expiration_time: Some(soon), ..wanted(to_topic("alice", "alerts", "1")) };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    bob.receive().await;
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    until(|| OffsetDateTime::now_utc() > soon).await;
    let core = Arc::clone(&net.core);
    let sweeper = tokio::spawn(async move {
        loop {
            crate::inbox::sweep_expired(&core).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut reports = alice.receive_aggregated_report().await.reports;
    // It is reported before it is off the disk.
    until(|| net.stored_for("carol") == 0).await;
    sweeper.abort();
    reports.sort_by(|one, other| one.originator.cmp(&other.originator));
    assert_eq!(reports, [individual("bob", "1", None), individual("carol", "1", Some("EXPIRED"))]);
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn an_originator_that_is_away_finds_its_reports_on_return() {
    let net = Net::of(topics(patient())).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    alice.leave().await;
    bob.receive().await;
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    until(|| net.stored_for("alice") == 1).await;
    net.until_no_job_is_left().await;
    bob.leave().await;
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.receive_aggregated_report().await.reports, [individual("bob", "1", None)]);
    until(|| net.stored_for("alice") == 0).await;
}

#[tokio::test]
async fn a_server_killed_after_its_answer_hands_a_copy_to_everybody_all_the_same() {
    const SUBSCRIBERS: usize = 200;
    let net = Net::of(topics(Limits { fan_out_window: 4, ..Limits::default() })).await;
    let mut alice = net.ue("alice").await;
    let names: Vec<_> = (0..SUBSCRIBERS).map(|number| format!("member-{number}")).collect();
    for name in &names {
        net.away_subscriber(name, "alerts").await;
    }
    let exchange = alice.post(&to_topic("alice", "alerts", "1")).await;
    assert_eq!(alice.fate(exchange).await, Fate::stored());
    alice.leave().await;
    let net = net.restart().await;
    net.until_no_job_is_left().await;
    for name in &names {
        assert!(net.stored_for(name) >= 1, "{name}");
    }
    // Whoever has two copies has the same one twice.
    for name in &names {
        for stored in net.core.store.pending(&address(name), None, 16).await.unwrap() {
            let Ok(UeMessage::Message(copy)) = UeMessage::decode(&stored.body, &DecodeLimits::default()) else {
                panic!()
            };
            assert_eq!((copy.message_id.as_str(), copy.recipient), ("1", Some(address(name))));
        }
    }
}

#[tokio::test]
async fn after_a_restart_only_what_was_not_handed_over_goes_out_again() {
    let net = Net::of(topics(patient())).await;
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        net.away_ue(name).await;
    }
    let message = wanted(to_topic("alice", "alerts", "1"));
    let expires_at = OffsetDateTime::now_utc() + time::Duration::hours(1);
    let message = Message { expiration_time: Some(expires_at), ..message };
    let job = NewFanOutJob {
        target: message.destination.clone(),
        originator: message.originator.clone(),
        message_id: message.message_id.clone(),
        body: message.encode(),
        members: ["bob", "carol", "dave", "erin"].map(address).to_vec(),
        expires_at: Some(expires_at),
        report_wanted: true,
        storable: true,
        priority: Priority::Middle,
        deduplication: None,
    };
    let id = net.core.store.put_job(job).await.unwrap();
    let reported = MemberState::Reported { success: false, cause: Some("TARGET_REFUSED".to_owned()) };
    let progress = vec![(0, MemberState::HandedOver), (1, reported), (2, MemberState::Settled)];
    net.core.store.job_progress(id, progress).await.unwrap();
    let net = net.restart().await;
    until(|| net.stored_for("erin") == 1).await;
    for name in ["bob", "carol", "dave"] {
        assert_eq!(net.stored_for(name), 0, "{name}");
    }
    let (mut alice, mut bob, mut erin) = (net.ue("alice").await, net.ue("bob").await, net.ue("erin").await);
    assert_eq!(erin.receive().await.recipient, Some(address("erin")));
    assert_eq!(erin.send_report(&report("erin", "alice", "1")).await, Fate::stored());
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    let mut reports = alice.receive_aggregated_report().await.reports;
    reports.sort_by(|one, other| one.originator.cmp(&other.originator));
    let expected =
        [individual("bob", "1", None), individual("carol", "1", Some("TARGET_REFUSED")), individual("erin", "1", None)];
    assert_eq!(reports, expected);
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn reports_taken_before_a_restart_are_told_after_it() {
    let net = Net::of(topics(patient())).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    let mut carol = net.subscriber("carol", "alerts").await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    bob.receive().await;
    carol.receive().await;
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    for ue in [alice, bob, carol] {
        ue.leave().await;
    }
    let net = net.restart().await;
    let (mut alice, mut carol) = (net.ue("alice").await, net.ue("carol").await);
    assert_eq!(carol.send_report(&report("carol", "alice", "1")).await, Fate::stored());
    let mut reports = alice.receive_aggregated_report().await.reports;
    reports.sort_by(|one, other| one.originator.cmp(&other.originator));
    assert_eq!(reports, [individual("bob", "1", None), individual("carol", "1", None)]);
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn a_job_that_collected_for_long_enough_closes_and_later_reports_come_singly() {
    let limits = Limits { report_collection_seconds: 0, ..patient() };
    let net = Net::of(topics(limits)).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    let mut carol = net.subscriber("carol", "alerts").await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    bob.receive().await;
    carol.receive().await;
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    until(|| {
        crate::fan_out::sweep(&net.core);
        net.core.fan_out.open_jobs() == 0
    })
    .await;
    assert_eq!(alice.receive_aggregated_report().await.reports, [individual("bob", "1", None)]);
    net.until_no_job_is_left().await;
    let late = carol.ask(&report("carol", "alice", "1").encode()).await;
    assert_eq!(UeMessage::DeliveryStatusReport(alice.receive_report().await), report("carol", "alice", "1"));
    assert_eq!(carol.fate(late).await, Fate::delivered());
}

#[tokio::test]
async fn only_who_got_a_copy_may_report_and_the_first_report_counts() {
    let net = Net::of(topics(patient())).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    net.away_subscriber("dave", "alerts").await;
    let mut mallory = net.ue("mallory").await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    bob.receive().await;
    for forged in [report("mallory", "alice", "1"), report("bob", "alice", "1")] {
        assert_eq!(mallory.send_report(&forged).await, Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED"));
    }
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    let UeMessage::DeliveryStatusReport(other) = report("bob", "alice", "1") else { panic!() };
    let other = DeliveryStatusReport { delivery_status: ReportDeliveryStatus::Failed, ..other };
    let fate = bob.send_report(&UeMessage::DeliveryStatusReport(other)).await;
    assert_eq!(fate, Fate::failed("4.00", "MESSAGE_ID_REUSED"));
    // A copy that claims to be for somebody is a server's to make.
    let forged = Message { recipient: Some(address("bob")), ..to_topic("mallory", "alerts", "2") };
    assert_eq!(mallory.send(&forged).await, Fate::failed("4.00", "MALFORMED"));
    let mut dave = net.ue("dave").await;
    dave.receive().await;
    assert_eq!(dave.send_report(&report("dave", "alice", "1")).await, Fate::stored());
    let mut reports = alice.receive_aggregated_report().await.reports;
    reports.sort_by(|one, other| one.originator.cmp(&other.originator));
    assert_eq!(reports, [individual("bob", "1", None), individual("dave", "1", None)]);
}

#[tokio::test]
async fn copies_keep_the_order_of_their_originator_and_a_slow_subscriber_delays_nobody() {
    const MESSAGES: usize = 60;
    let net = Net::of(topics(Limits { fan_out_window: 4, ..Limits::default() })).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    net.away_subscriber("carol", "alerts").await;
    // Never acknowledges.
    let mut slow = net.subscriber("slow", "alerts").await;
    for id in 0..MESSAGES {
        let sent = to_topic("alice", "alerts", &id.to_string());
        assert_eq!(alice.send(&sent).await, Fate::stored());
        if id == 0 {
            slow.delivery().await;
        }
    }
    for id in 0..MESSAGES {
        assert_eq!(bob.receive().await.message_id.as_str(), id.to_string());
    }
    until(|| net.stored_for("carol") == MESSAGES).await;
    let mut carol = net.ue("carol").await;
    for id in 0..MESSAGES {
        assert_eq!(carol.receive().await.message_id.as_str(), id.to_string());
    }
    slow.leave().await;
    net.until_no_job_is_left().await;
    assert_eq!(net.stored_for("slow"), MESSAGES);
}

#[tokio::test]
async fn one_originator_has_so_many_messages_to_many_under_way_and_no_more() {
    let mut setup = topics(patient());
    setup.store.limits.jobs_per_originator_max = 1;
    let net = Net::of(setup).await;
    let (mut alice, mut erin) = (net.ue("alice").await, net.ue("erin").await);
    let mut bob = net.subscriber("bob", "alerts").await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    bob.receive().await;
    let second = to_topic("alice", "alerts", "2");
    assert_eq!(alice.send(&second).await, Fate::failed("4.29", "TOO_MANY"));
    // Nobody else is held up, and with the first one done there is room again.
    assert_eq!(erin.send(&to_topic("erin", "alerts", "1")).await, Fate::stored());
    assert_eq!(bob.receive().await.originator, address("erin"));
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    assert_eq!(alice.receive_aggregated_report().await.reports.len(), 1);
    net.until_no_job_is_left().await;
    assert_eq!(alice.send(&second).await, Fate::stored());
    assert_eq!(bob.receive().await.message_id.as_str(), "2");
}

#[tokio::test]
async fn what_is_sent_to_nobody_or_too_late_or_too_large_is_refused() {
    let net = Net::of(topics(Limits { message_payload_octets_max: 2048, ..Limits::default() })).await;
    let mut alice = net.subscriber("alice", "mine").await;
    assert_eq!(alice.send(&to_topic("alice", "alerts", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    assert_eq!(alice.send(&to_topic("alice", "mine", "2")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    net.away_subscriber("bob", "alerts").await;
    let late = Message {
        expiration_time: Some(OffsetDateTime::now_utc() - time::Duration::seconds(1)),
        ..to_topic("alice", "alerts", "3")
    };
    assert_eq!(alice.send(&late).await, Fate::failed("2.04", "EXPIRED"));
    let reused = to_topic("alice", "alerts", "4");
    assert_eq!(alice.send(&reused).await, Fate::stored());
    let reused = Message { payload: b"other".to_vec(), ..reused };
    assert_eq!(alice.send(&reused).await, Fate::failed("4.00", "MESSAGE_ID_REUSED"));
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn many_reports_come_in_several_and_singly_to_a_client_that_takes_little_at_once() {
    const SUBSCRIBERS: usize = 300;
    let net = Net::of(topics(patient())).await;
    for number in 0..SUBSCRIBERS {
        net.away_subscriber(&format!("member-{number}"), if number < 20 { "few" } else { "many" }).await;
        if number < 20 {
            net.subscriber(&format!("member-{number}"), "many").await.leave().await;
        }
    }
    let mut alice = net.ue("alice").await;
    let sent = |from, topic, id| wanted(Message { store_and_forward: false, ..to_topic(from, topic, id) });
    assert_eq!(alice.send(&sent("alice", "many", "1")).await, Fate::stored());
    let mut told = BTreeSet::new();
    let mut parts = 0;
    while told.len() < SUBSCRIBERS {
        let part = alice.receive_aggregated_report().await;
        assert!(part.encode().len() < 48 * 1024);
        told.extend(part.reports.into_iter().map(|report| report.originator));
        parts += 1;
    }
    assert!(parts > 1);
    net.until_no_job_is_left().await;

    net.associate(&supi_of("tiny"), "tiny");
    let mut tiny = net.connect(&supi_of("tiny"));
    tiny.machine = StreamConnection::new(StreamConfig { max_message_size_own: 1152, ..StreamConfig::default() });
    assert_eq!(tiny.register("tiny").await.code, Code::CREATED);
    assert_eq!(tiny.send(&sent("tiny", "few", "1")).await, Fate::stored());
    let mut told = BTreeSet::new();
    while told.len() < 20 {
        let report = tiny.receive_report().await;
        assert_eq!(report.failure_cause.as_deref(), Some("TARGET_UNREACHABLE"));
        told.insert(report.originator);
    }
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn a_message_in_segments_is_put_together_first_and_cut_again_for_each_subscriber() {
    let net = Net::of(topics(Limits::default())).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.subscriber("bob", "alerts").await);
    let whole =
        Message { payload: (0..5000_u32).map(|number| number as u8).collect(), ..to_topic("alice", "alerts", "1") };
    let segments = message::segmentation::segment(&whole, "set-1".parse().unwrap(), 2048).unwrap();
    assert_eq!(segments.len(), 3);
    let mut fates = Vec::new();
    for segment in &segments {
        fates.push(alice.send(segment).await.status.unwrap());
    }
    assert!(fates.iter().take(2).all(DeliveryStatus::is_segment_held));
    assert_eq!(fates.last(), Some(&DeliveryStatus::Stored));
    let mut payload = Vec::new();
    while payload.len() < whole.payload.len() {
        let segment = bob.receive().await;
        assert_eq!((segment.recipient, segment.message_id.as_str()), (Some(address("bob")), "1"));
        payload.extend(segment.payload);
    }
    assert_eq!(payload, whole.payload);
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn copies_that_their_originator_discards_are_reported_with_the_others() {
    let net = Net::of(topics(patient())).await;
    let mut alice = net.ue("alice").await;
    let mut bob = net.subscriber("bob", "alerts").await;
    net.away_subscriber("carol", "alerts").await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    bob.receive().await;
    let (originator, id) = (address("alice"), "1".parse().unwrap());
    // On disk, not only on its way there.
    timeout(PATIENCE, async {
        while net.core.store.find_stored(&originator, &id, None, 1).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
    let discard =
        StoredMessageUpdate { originator: address("alice"), message_id: "1".parse().unwrap(), expiration_time: None };
    assert_eq!(alice.exchange(&discard.encode()).await.code, Code::DELETED);
    assert_eq!(net.stored_for("carol"), 0);
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    let reports = alice.receive_aggregated_report().await.reports;
    assert_eq!(reports, [individual("carol", "1", Some("DISCARDED")), individual("bob", "1", None)]);
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn a_copy_that_the_disk_has_no_room_for_is_tried_until_there_is() {
    let mut setup = topics(Limits::default());
    setup.store.limits.messages_max = 1;
    let net = Net::of(setup).await;
    let mut alice = net.ue("alice").await;
    net.away_subscriber("bob", "alerts").await;
    net.away_subscriber("carol", "alerts").await;
    assert_eq!(alice.send(&to_topic("alice", "alerts", "1")).await, Fate::stored());
    until(|| net.stored_for("bob") + net.stored_for("carol") == 1).await;
    let (first, second) = if net.stored_for("bob") == 1 { ("bob", "carol") } else { ("carol", "bob") };
    let mut ue = net.ue(first).await;
    assert_eq!(ue.receive().await.message_id.as_str(), "1");
    until(|| net.stored_for(second) == 1).await;
    net.until_no_job_is_left().await;
    let mut ue = net.ue(second).await;
    assert_eq!(ue.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_copy_that_its_senders_or_recipients_share_of_the_disk_has_no_room_for_is_tried_until_it_has() {
    type Bound = fn(&mut store::StoreLimits);
    let bounds: [Bound; 2] =
        [|limits| limits.messages_per_originator_max = 2, |limits| limits.messages_per_recipient_max = 1];
    for bound in bounds {
        let mut setup = topics(Limits::default());
        bound(&mut setup.store.limits);
        let net = Net::of(setup).await;
        let mut alice = net.ue("alice").await;
        net.away_subscriber("bob", "alerts").await;
        net.away_subscriber("carol", "alerts").await;
        assert_eq!(alice.send(&to_topic("alice", "alerts", "1")).await, Fate::stored());
        until(|| net.stored_for("bob") + net.stored_for("carol") == 2).await;
        assert_eq!(alice.send(&to_topic("alice", "alerts", "2")).await, Fate::stored());
        for name in ["bob", "carol"] {
            let mut ue = net.ue(name).await;
            assert_eq!(ue.receive().await.message_id.as_str(), "1");
            assert_eq!(ue.receive().await.message_id.as_str(), "2");
        }
        net.until_no_job_is_left().await;
    }
}

#[tokio::test]
async fn a_copy_that_never_finds_room_expires_and_is_reported() {
    let mut setup = topics(Limits { report_aggregation_seconds: 0, ..Limits::default() });
    setup.store.limits.messages_max = 1;
    let net = Net::of(setup).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("dave").await;
    net.away_subscriber("bob", "alerts").await;
    assert_eq!(alice.send(&storable("alice", "dave", "0")).await, Fate::stored());
    let soon = OffsetDateTime::now_utc() + time::Duration::seconds(3);
    let sent = Message { expiration_time: Some(soon), ..wanted(to_topic("alice", "alerts", "1")) };
    assert_eq!(alice.send(&sent).await, Fate::stored());
    let told = alice.receive_aggregated_report().await.reports;
    assert_eq!(told, [individual("bob", "1", Some("EXPIRED"))]);
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn a_store_that_takes_no_more_jobs_is_an_overloaded_server() {
    let mut setup = topics(patient());
    setup.store.limits.jobs_max = 1;
    let net = Net::of(setup).await;
    let (mut alice, mut erin) = (net.ue("alice").await, net.ue("erin").await);
    let mut bob = net.subscriber("bob", "alerts").await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    bob.receive().await;
    let sent = to_topic("erin", "alerts", "1");
    assert_eq!(erin.send(&sent).await, Fate::failed("5.03", "OVERLOADED"));
    assert_eq!(bob.send_report(&report("bob", "alice", "1")).await, Fate::stored());
    alice.receive_aggregated_report().await;
    net.until_no_job_is_left().await;
    assert_eq!(erin.send(&sent).await, Fate::stored());
    assert_eq!(bob.receive().await.originator, address("erin"));
}

#[tokio::test]
async fn copies_that_wait_for_room_hold_up_no_other_message() {
    let mut setup = topics(Limits::default());
    setup.store.limits.messages_max = 1;
    let net = Net::of(setup).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("dave").await;
    net.away_subscriber("bob", "alerts").await;
    let mut carol = net.subscriber("carol", "alerts").await;
    assert_eq!(alice.send(&storable("alice", "dave", "0")).await, Fate::stored());
    for id in 1..8 {
        assert_eq!(alice.send(&to_topic("alice", "alerts", &id.to_string())).await, Fate::stored());
        assert_eq!(carol.receive().await.message_id.as_str(), id.to_string());
    }
    assert_eq!(net.jobs_on_disk().await, 7);
}

#[tokio::test]
async fn copies_that_wait_for_room_are_discarded_with_the_others() {
    let mut setup = topics(patient());
    setup.store.limits.messages_max = 1;
    let net = Net::of(setup).await;
    let mut alice = net.ue("alice").await;
    net.away_ue("dave").await;
    net.away_subscriber("bob", "alerts").await;
    net.away_subscriber("carol", "alerts").await;
    assert_eq!(alice.send(&storable("alice", "dave", "0")).await, Fate::stored());
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::stored());
    let discard =
        StoredMessageUpdate { originator: address("alice"), message_id: "1".parse().unwrap(), expiration_time: None };
    // Just now both may be on their way to the disk that has no room.
    timeout(PATIENCE, async { while alice.exchange(&discard.encode()).await.code != Code::DELETED {} }).await.unwrap();
    let mut reports = alice.receive_aggregated_report().await.reports;
    reports.sort_by(|one, other| one.originator.cmp(&other.originator));
    let expected = [individual("bob", "1", Some("DISCARDED")), individual("carol", "1", Some("DISCARDED"))];
    assert_eq!(reports, expected);
    net.until_no_job_is_left().await;
    assert_eq!(alice.send(&wanted(to_topic("alice", "alerts", "1"))).await, Fate::failed("2.04", "DISCARDED"));
}

/// Takes the answers to one message.
#[derive(Debug, Default)]
pub(super) struct Answers(pub(super) Mutex<Vec<Answer>>);

impl Collector for Answers {
    fn ended(&self, _: &Arc<Core>, _: usize, answer: Answer) {
        self.0.lock().unwrap().push(answer);
    }
}

#[tokio::test]
async fn a_message_whose_time_is_over_when_its_turn_comes_has_expired() {
    let net = Net::of(topics(Limits::default())).await;
    net.away_subscriber("bob", "alerts").await;
    let past = OffsetDateTime::now_utc() - time::Duration::seconds(1);
    let message = Message { expiration_time: Some(past), ..to_topic("alice", "alerts", "1") };
    let answers = Arc::new(Answers::default());
    let asker = Asker::Part(Arc::clone(&answers) as Arc<dyn Collector>, 0);
    FanOut::submit(&net.core, Fresh { message, asker, digest: [0; 32], accepted_at: Instant::now() });
    until(|| !answers.0.lock().unwrap().is_empty()).await;
    assert_eq!(*answers.0.lock().unwrap(), [Answer::Failed(message::FailureCause::Expired)]);
    assert_eq!(net.jobs_on_disk().await, 0);
}
