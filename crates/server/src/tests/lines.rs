//! Copies in line, and a queue with many at it: order, fairness, and who takes whose place.

use store::NewFanOutJob;
use tokio::time::Instant;

use super::fan_out::*;
use super::*;
use crate::delivery::{Answer, Asker, Collector};
use crate::fan_out::{FanOut, Fresh};

#[tokio::test]
async fn copies_for_which_the_queue_of_a_slow_subscriber_has_no_room_wait_in_line() {
    const MESSAGES: usize = 6;
    let net = Net::of(topics(Limits { delivery_window: 1, recipient_queue_max: 2, ..Limits::default() })).await;
    let mut alice = net.ue("alice").await;
    let mut slow = net.subscriber("slow", "alerts").await;
    for id in 0..MESSAGES {
        assert_eq!(alice.send(&to_topic("alice", "alerts", &id.to_string())).await, Fate::stored());
    }
    // Each once, and none passed another.
    for id in 0..MESSAGES {
        assert_eq!(slow.receive().await.message_id.as_str(), id.to_string());
    }
    net.until_no_job_is_left().await;
    assert_eq!(net.core.fan_out.lines.members(), 0);
}

#[tokio::test]
async fn copies_for_which_a_share_of_the_disk_has_no_room_wait_in_line() {
    type Bound = fn(&mut store::StoreLimits);
    let bounds: [Bound; 2] =
        [|limits| limits.messages_per_originator_max = 2, |limits| limits.messages_per_recipient_max = 2];
    for bound in bounds {
        const MESSAGES: usize = 12;
        let mut setup = topics(Limits::default());
        bound(&mut setup.store.limits);
        let net = Net::of(setup).await;
        let mut alice = net.ue("alice").await;
        net.away_subscriber("carol", "alerts").await;
        for id in 0..MESSAGES {
            assert_eq!(alice.send(&to_topic("alice", "alerts", &id.to_string())).await, Fate::stored());
        }
        until(|| net.core.fan_out.lines.members() == 1).await;
        let mut carol = net.ue("carol").await;
        for id in 0..MESSAGES {
            assert_eq!(carol.receive().await.message_id.as_str(), id.to_string());
        }
        net.until_no_job_is_left().await;
        until(|| net.core.fan_out.lines.members() == 0).await;
    }
}

#[tokio::test]
async fn a_line_is_of_one_originator_and_one_priority() {
    let mut setup = topics(Limits::default());
    setup.store.limits.messages_per_originator_max = 1;
    let net = Net::of(setup).await;
    let (mut alice, mut erin) = (net.ue("alice").await, net.ue("erin").await);
    net.away_subscriber("carol", "alerts").await;
    for id in ["1", "2"] {
        assert_eq!(alice.send(&to_topic("alice", "alerts", id)).await, Fate::stored());
    }
    until(|| net.core.fan_out.lines.members() == 1).await;
    assert_eq!(erin.send(&to_topic("erin", "alerts", "3")).await, Fate::stored());
    until(|| net.stored_for("carol") == 2).await;
    // What may not be stored neither overtakes nor waits.
    let passing = wanted(Message { store_and_forward: false, ..to_topic("alice", "alerts", "4") });
    assert_eq!(alice.send(&passing).await, Fate::stored());
    let told = alice.receive_aggregated_report().await.reports;
    assert_eq!(told, [individual("carol", "4", Some("TARGET_UNREACHABLE"))]);
    let mut carol = net.ue("carol").await;
    let mut of_alice = Vec::new();
    for _ in 0..3 {
        let copy = carol.receive().await;
        if copy.originator == address("alice") {
            of_alice.push(copy.message_id.as_str().to_owned());
        }
    }
    assert_eq!(of_alice, ["1", "2"]);
    net.until_no_job_is_left().await;
}

/// Hundreds that are there and acknowledge nothing: more than any window has room for.
#[tokio::test]
async fn hundreds_of_slow_subscribers_and_a_hot_topic_delay_nobody() {
    const SLOW: usize = 300;
    const MESSAGES: usize = 20;
    let net = Net::of(topics(Limits { fan_out_window: 4, connections_per_a_kid_max: 1000, ..Limits::default() })).await;
    let (mut alice, mut erin) = (net.ue("alice").await, net.ue("erin").await);
    let mut slow = Vec::new();
    for number in 0..SLOW {
        slow.push(net.subscriber(&format!("a-{number:03}"), "hot").await);
    }
    // By their names they are the last to get their copies.
    let mut quick = net.subscriber("z-quick", "hot").await;
    net.away_subscriber("z-away", "hot").await;
    let mut quiet = net.subscriber("z-quiet", "quiet").await;
    for id in 0..MESSAGES {
        assert_eq!(alice.send(&to_topic("alice", "hot", &id.to_string())).await, Fate::stored());
    }
    assert_eq!(erin.send(&to_topic("erin", "quiet", "1")).await, Fate::stored());
    assert_eq!(quiet.receive().await.message_id.as_str(), "1");
    for id in 0..MESSAGES {
        assert_eq!(quick.receive().await.message_id.as_str(), id.to_string());
    }
    until(|| net.stored_for("z-away") == MESSAGES).await;
    // Before any of the slow ones has acknowledged anything, or was given up: they get all of them now.
    for ue in [0, SLOW / 2, SLOW - 1].map(|place| slow.swap_remove(place.min(slow.len() - 1))).iter_mut() {
        for id in 0..MESSAGES {
            assert_eq!(ue.receive().await.message_id.as_str(), id.to_string());
        }
    }
}

/// A message that may not be stored, as a server that was killed left it.
async fn left_behind(net: &Net, members: [&str; 2]) {
    let message = wanted(Message { store_and_forward: false, ..to_topic("alice", "alerts", "1") });
    let job = NewFanOutJob {
        target: message.destination.clone(),
        originator: message.originator.clone(),
        message_id: message.message_id.clone(),
        body: message.encode(),
        members: members.map(address).to_vec(),
        expires_at: None,
        report_wanted: true,
        storable: false,
        priority: Priority::Middle,
        deduplication: None,
    };
    net.core.store.put_job(job).await.unwrap();
}

#[tokio::test]
async fn after_a_restart_what_may_not_be_stored_waits_for_members_to_return() {
    let net = Net::of(topics(Limits { fan_out_return_seconds: 3600, ..patient() })).await;
    for name in ["alice", "bob", "carol"] {
        net.away_ue(name).await;
    }
    left_behind(&net, ["bob", "carol"]).await;
    let net = net.restart().await;
    until(|| net.core.fan_out.lines.members() == 2).await;
    for name in ["bob", "carol"] {
        let mut ue = net.ue(name).await;
        assert_eq!(ue.receive().await.recipient, Some(address(name)));
        assert_eq!(ue.send_report(&report(name, "alice", "1")).await, Fate::stored());
    }
    let mut alice = net.ue("alice").await;
    let told = alice.receive_aggregated_report().await.reports;
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|report| report.delivery_status == ReportDeliveryStatus::Success));
    net.until_no_job_is_left().await;
}

#[tokio::test]
async fn who_has_not_returned_in_time_after_a_restart_is_reported_as_unreachable() {
    let net = Net::of(topics(Limits { fan_out_return_seconds: 2, ..patient() })).await;
    for name in ["alice", "bob", "carol"] {
        net.away_ue(name).await;
    }
    left_behind(&net, ["bob", "carol"]).await;
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    let told = alice.receive_aggregated_report().await.reports;
    let unreachable = |name| individual(name, "1", Some("TARGET_UNREACHABLE"));
    assert_eq!(told, [unreachable("bob"), unreachable("carol")]);
    net.until_no_job_is_left().await;
}

/// What became of a message when [`FanOut::submit`] has returned, before anything else ran.
fn answer_at_once(net: &Net, message: Message) -> Option<Answer> {
    let answers = Arc::new(Answers::default());
    let asker = Asker::Part(Arc::clone(&answers) as Arc<dyn Collector>, 0);
    FanOut::submit(&net.core, Fresh { message, asker, digest: [0; 32], accepted_at: Instant::now() });
    answers.0.lock().unwrap().pop()
}

#[tokio::test]
async fn who_may_not_publish_takes_no_place_of_those_who_may() {
    let rule = TopicSection {
        name: "*".to_owned(),
        publishers: vec!["UE:alice".parse().unwrap()],
        subscribers: vec!["*".parse().unwrap()],
    };
    let setup = topics(Limits { fan_out_queue_max: 2, fan_out_queue_per_originator_max: 2, ..Limits::default() });
    let net =
        Net::of(Setup { destinations: DestinationsSetup { topics: vec![rule], ..setup.destinations }, ..setup }).await;
    net.away_subscriber("bob", "alerts").await;
    for id in 0..10 {
        let answer = answer_at_once(&net, to_topic("mallory", "alerts", &id.to_string()));
        assert_eq!(answer, Some(Answer::Failed(message::FailureCause::TopicNotAllowed)));
    }
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&to_topic("alice", "alerts", "1")).await, Fate::stored());
}

#[tokio::test]
async fn one_originator_has_so_many_places_of_a_topics_queue() {
    let limits = Limits { fan_out_queue_max: 4, fan_out_queue_per_originator_max: 2, ..Limits::default() };
    let net = Net::of(topics(limits)).await;
    net.away_subscriber("bob", "alerts").await;
    let too_many = Some(Answer::Failed(message::FailureCause::TooMany));
    // No worker has had a turn in between.
    for originator in ["alice", "carol"] {
        let send = |id: usize| answer_at_once(&net, to_topic(originator, "alerts", &id.to_string()));
        assert_eq!([send(1), send(2), send(3)], [None, None, too_many.clone()], "{originator}");
    }
    assert_eq!(answer_at_once(&net, to_topic("dave", "alerts", "1")), too_many, "all places are taken");
    until(|| net.stored_for("bob") == 4).await;
    assert_eq!(answer_at_once(&net, to_topic("alice", "alerts", "4")), None);
}
