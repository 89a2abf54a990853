//! A stop and a start of the server: what it took it answers, what it answered it keeps, whom it knew it knows.

use crate::common::Lab;
use crate::common::foreign_ue::{Answer, ForeignUe, TLS_1_3};
use crate::common::function::Function;
use crate::neighbour::{Manner, Relay, eventually};

fn ids(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_with_messages_in_flight_answers_all_that_was_taken_and_loses_nothing() {
    let lab = Lab::start();
    let mut server = Function::server(&lab, &[("MSGIN5G_LIMITS__DRAIN_TIMEOUT_SECONDS", "60")]);
    let [mut alice, mut bob, mut carol, mut dave] =
        [0, 1, 2, 3].map(|subscriber| ForeignUe::registered(&lab, subscriber, server.address()));
    carol.close();
    // More than one window of deliveries, the first of which bob has and does not acknowledge yet.
    let (storable, not_storable, to_carol) = (ids("storable", 30), ids("not-storable", 20), ids("to-carol", 30));
    alice.post(&bob.service_id, &storable, true);
    dave.post(&bob.service_id, &not_storable, false);
    let mut at_bob = bob.take(20);
    alice.post(&carol.service_id, &to_carol, true);
    eventually("storing", || server.metric("msgin5g_stored_total") == 30).await;
    eventually("the rest in flight", || server.metric("msgin5g_open_requests") == 50).await;

    server.terminate();
    eventually("the stop", || server.admin("/readyz").0 == 503).await;
    dave.post(&bob.service_id, &["too-late".to_owned()], true);
    eventually("the refusal", || server.metric("msgin5g_failed_total{cause=\"STOPPING\"}") == 1).await;
    bob.acknowledge();
    at_bob.extend(bob.receive_until_end());
    let (of_alice, of_dave) = (alice.collect(), dave.collect());
    let status = server.ended();
    assert!(status.success(), "{status}");

    assert!(of_alice.unanswered.is_empty() && of_dave.unanswered.is_empty(), "{of_alice:?} {of_dave:?}");
    for id in &storable {
        assert!(of_alice.answers[id].is_delivered(), "{id}: {:?}", of_alice.answers[id]);
    }
    for id in &not_storable {
        assert!(of_dave.answers[id].is_delivered(), "{id}: {:?}", of_dave.answers[id]);
    }
    for id in &to_carol {
        assert!(of_alice.answers[id].is_stored(), "{id}: {:?}", of_alice.answers[id]);
    }
    of_dave.answers["too-late"].refused("5.03", "STOPPING");
    assert!(of_dave.answers["too-late"].max_age.is_some());
    let of = |name: &str| -> Vec<String> { at_bob.iter().filter(|id| id.starts_with(name)).cloned().collect() };
    assert_eq!((of("storable"), of("not-storable")), (storable, not_storable), "all, once, in order");

    server.start_again();
    for ue in [&mut alice, &mut bob, &mut carol, &mut dave] {
        ue.come_back(server.address());
    }
    assert_eq!(carol.receive(30), to_carol);
    // Nothing of before comes before this.
    for ue in [&mut bob, &mut carol] {
        let id = format!("after-{}", ue.service_id);
        dave.post(&ue.service_id, std::slice::from_ref(&id), true);
        assert_eq!(ue.receive(1), [id]);
    }
    assert!(dave.collect().answers.values().all(Answer::is_delivered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_does_not_wait_for_a_ue_that_never_acknowledges_and_stores_what_is_for_it() {
    let lab = Lab::start();
    let mut server = Function::server(&lab, &[("MSGIN5G_LIMITS__DRAIN_TIMEOUT_SECONDS", "2")]);
    let [mut alice, mut mute] = [0, 1].map(|subscriber| ForeignUe::registered(&lab, subscriber, server.address()));
    let (storable, not_storable) = (ids("storable", 40), ids("not-storable", 10));
    alice.post(&mute.service_id, &storable, true);
    alice.post(&mute.service_id, &not_storable, false);
    mute.take(10);
    eventually("all in flight", || server.metric("msgin5g_open_requests") == 50).await;
    let status = server.stop();
    assert!(status.success(), "{status}");
    let collected = alice.collect();
    assert!(collected.unanswered.is_empty(), "{collected:?}");
    for id in &storable {
        assert!(collected.answers[id].is_stored(), "{id}: {:?}", collected.answers[id]);
    }
    for id in &not_storable {
        assert_eq!(collected.answers[id].cause(), Some("TARGET_UNREACHABLE"), "{id}: {:?}", collected.answers[id]);
    }
    server.start_again();
    mute.come_back(server.address());
    assert_eq!(mute.receive(40), storable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_does_not_wait_for_a_silent_neighbour() {
    let lab = Lab::start();
    let (aanf, configuration) = (Relay::before(&lab, "aanf").await, Relay::before(&lab, "configuration").await);
    let mut server = Function::server(
        &lab,
        &[
            ("MSGIN5G_AKMA__AANF", &aanf.root()),
            ("MSGIN5G_AKMA__LOOKUPS__TIMEOUT_MS", "3600000"),
            ("MSGIN5G_AKMA__REQUESTS__REQUEST_TIMEOUT_MILLISECONDS", "3600000"),
            ("MSGIN5G_CONFIGURATION_FUNCTION__URL", &configuration.root()),
            ("MSGIN5G_CONFIGURATION_FUNCTION__REQUESTS__REQUEST_TIMEOUT_MILLISECONDS", "3600000"),
            ("MSGIN5G_LIMITS__ASSOCIATION_TIMEOUT_SECONDS", "3600"),
            ("MSGIN5G_LIMITS__DRAIN_TIMEOUT_SECONDS", "1"),
        ],
    );
    let [mut alice, mut bob] = [0, 1].map(|subscriber| ForeignUe::new(&lab, subscriber));
    alice.authenticate();
    bob.authenticate();
    bob.connects(server.address(), TLS_1_3);
    aanf.is(Manner::Silent);
    configuration.is(Manner::Silent);
    let (asked, address) = ((aanf.asked(), configuration.asked()), server.address());
    let status = std::thread::scope(|scope| {
        let handshake = scope.spawn(|| alice.connect(address, TLS_1_3));
        bob.post_registration();
        while aanf.asked() == asked.0 || configuration.asked() == asked.1 {
            assert!(!handshake.is_finished(), "the handshake must wait for its key");
            std::thread::yield_now();
        }
        let status = server.stop();
        handshake.join().unwrap().expect_err("no key, no connection");
        status
    });
    assert!(status.success(), "{status}");
    let collected = bob.collect();
    assert!(collected.answers.values().all(|answer| answer.code != "2.01"), "{collected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_the_middle_of_storing_keeps_every_promise_once_and_in_order() {
    let lab = Lab::start();
    let mut server = Function::server(&lab, &[]);
    let mut bob = ForeignUe::registered(&lab, 1, server.address());
    bob.close();
    let mut alice = ForeignUe::new(&lab, 0);
    alice.authenticate();
    let (mut promised, mut sent) = (Vec::new(), Vec::new());
    for round in 0..5 {
        alice.come_back(server.address());
        let batch = ids(&format!("round-{round}"), 60);
        alice.post(&bob.service_id, &batch, true);
        let status = server.stop();
        assert!(status.success(), "{status}");
        let collected = alice.collect();
        let kept = |id: &&String| collected.answers.get(*id).is_some_and(Answer::is_promise);
        promised.extend(batch.iter().filter(kept).cloned());
        sent.extend(batch);
        server.start_again();
    }
    assert!(!promised.is_empty());
    alice.come_back(server.address());
    assert!(alice.send_storable(&bob.service_id, "last").is_promise());
    bob.come_back(server.address());
    let mut received = Vec::new();
    while received.last().is_none_or(|id| id != "last") {
        received.extend(bob.receive(1));
    }
    received.pop();
    // What was taken and whose answer was lost may be there, too; nothing is there twice, or out of order.
    let in_order: Vec<String> = sent.iter().filter(|id| received.contains(id)).cloned().collect();
    assert_eq!(received, in_order);
    let lost: Vec<_> = promised.iter().filter(|id| !received.contains(id)).collect();
    assert!(lost.is_empty(), "promised and lost: {lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_survive_a_restart_graceful_or_not() {
    let lab = Lab::start();
    let mut server = Function::server(&lab, &[]);
    let [mut alice, mut bob, mut carol] =
        [0, 1, 2].map(|subscriber| ForeignUe::registered(&lab, subscriber, server.address()));
    assert_eq!(carol.deregister().code, "2.02");
    for (round, graceful) in [(1, false), (2, true)] {
        if graceful {
            assert!(server.stop().success());
        } else {
            server.kill();
        }
        server.start_again();
        alice.come_back(server.address());
        let id = format!("round-{round}");
        // Bob was known before and is not back yet; carol is nobody, as before.
        assert!(alice.send_storable(&bob.service_id, &id).is_stored());
        alice.send_storable(&carol.service_id, &id).refused("4.04", "UNKNOWN_TARGET");
        let not_stored = alice.send(&bob.service_id, &format!("{id}-not-storable"));
        not_stored.refused("2.04", "TARGET_UNREACHABLE");
        bob.come_back(server.address());
        assert_eq!(bob.receive(1), [id]);
    }
}
