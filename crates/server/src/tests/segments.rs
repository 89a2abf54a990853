//! Segmentation towards UEs, forwarding and reassembly (TS 23.554 clause 8.5).

use message::segmentation::{Insert, Reassembler, ReassemblyLimits, segment};
use message::{SEGMENTS_MAX, SegmentConfirmation, SegmentRecovery};

use super::application_server::{As, ServedApi, as_address, from_as, problem, setup, to_as};
use super::*;

fn octets(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index % 251) as u8).collect()
}

fn cut(message: &Message, octets: usize) -> Vec<Message> {
    segment(message, "set-1".parse().unwrap(), octets).unwrap()
}

/// Puts together what arrives until it is whole.
async fn receive_whole(ue: &mut Ue) -> (Message, usize) {
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    for count in 1.. {
        let segment = ue.receive().await;
        assert!(segment.segment.is_some());
        match reassembler.insert(segment, 0) {
            Insert::Complete(whole) => return (*whole, count),
            Insert::Held => {}
            other => panic!("{other:?}"),
        }
    }
    unreachable!()
}

fn held() -> Fate {
    Fate { status: Some(DeliveryStatus::segment_held()), ..Fate::delivered() }
}

async fn as_net(limits: Limits) -> (Net, ServedApi, As) {
    let setup = setup();
    let limits = Limits {
        backoff_first_milliseconds: setup.limits.backoff_first_milliseconds,
        backoff_max_seconds: setup.limits.backoff_max_seconds,
        ..limits
    };
    let net = Net::of(Setup { limits, ..setup }).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    (net, api, billing)
}

async fn small_ue(net: &Net, name: &str, segment_size: u32) -> Ue {
    net.associate(&supi_of(name), name);
    let mut ue = net.connect(&supi_of(name));
    assert_eq!(ue.register_with(name, Some(segment_size)).await.code, Code::CREATED);
    ue
}

#[tokio::test]
async fn a_long_message_of_an_as_goes_to_a_ue_in_segments_whatever_the_window() {
    let (net, _api, billing) = as_net(Limits { delivery_window: 2, ..Limits::default() }).await;
    let mut alice = small_ue(&net, "alice", 1000).await;
    let long = Message { payload: octets(20_000), ..from_as("billing", "alice", "1") };
    let short = from_as("billing", "alice", "2");
    let (on_its_way, first_on_its_way) = tokio::sync::oneshot::channel();
    let sent = tokio::spawn(async move {
        let (first, second) = tokio::join!(billing.send(&long), async {
            first_on_its_way.await.unwrap();
            billing.send(&short).await
        });
        (first.unwrap(), second.unwrap(), net.core.open_requests())
    });
    while alice.requests.is_empty() {
        alice.turn().await;
    }
    on_its_way.send(()).unwrap();
    let (whole, segments) = receive_whole(&mut alice).await;
    assert_eq!((whole.payload, segments), (octets(20_000), 20));
    assert_eq!(alice.receive().await.message_id.as_str(), "2");
    let (first, second, open) = sent.await.unwrap();
    assert_eq!((first.status, second.status, open), (None, None, 0));
}

#[tokio::test]
async fn what_is_urgent_goes_between_the_segments_of_a_long_message() {
    let net = Net::with(Limits { delivery_window: 1, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    let mut bob = small_ue(&net, "bob", 10).await;
    let long = alice.post(&Message { payload: octets(50), ..message("alice", "bob", "1") }).await;
    let (first, _) = bob.delivery().await;
    let urgent = Message { priority: Priority::High, payload: octets(15), ..message("alice", "bob", "2") };
    let urgent = alice.post(&urgent).await;
    until(|| net.core.open_requests() == 2).await;
    bob.respond(first, Code::CHANGED).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(bob.receive().await.message_id.as_str().to_owned());
    }
    assert_eq!(ids, ["2", "2", "1", "1", "1", "1"]);
    assert_eq!(alice.fate(urgent).await, Fate::delivered());
    assert_eq!(alice.fate(long).await, Fate::delivered());
}

#[tokio::test]
async fn a_message_in_segments_is_delivered_when_all_of_them_are_acknowledged() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    let mut bob = small_ue(&net, "bob", 2).await;
    let exchange = alice.post(&message("alice", "bob", "1")).await;
    let (first, _) = bob.delivery().await;
    let (second, _) = bob.delivery().await;
    bob.respond(second, Code::CHANGED).await;
    // What is answered after it shows that it was read.
    let probe = bob.post(&message("bob", "alice", "2")).await;
    alice.receive().await;
    assert_eq!(bob.fate(probe).await, Fate::delivered());
    assert!(alice.responses.is_empty());
    bob.respond(first, Code::CHANGED).await;
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_message_of_which_a_segment_was_lost_with_the_connection_comes_again_as_a_whole() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    let mut bob = small_ue(&net, "bob", 1).await;
    let sent = storable("alice", "bob", "1");
    let exchange = alice.post(&sent).await;
    let first = bob.receive().await;
    bob.delivery().await;
    bob.leave().await;
    assert_eq!(alice.fate(exchange).await, Fate::stored());
    alice.leave().await;
    // The server ends, too.
    let net = net.restart().await;
    let mut bob = small_ue(&net, "bob", 1).await;
    let again = bob.receive().await;
    assert_eq!(again, Message { expiration_time: again.expiration_time, ..first }, "the same segment of the same set");
    for number in 2..=4 {
        assert_eq!(bob.receive().await.segment.unwrap().number, number);
    }
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn a_segment_that_is_refused_fails_the_message_and_a_busy_recipient_gets_all_of_it_again() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    let mut bob = small_ue(&net, "bob", 2).await;
    let exchange = alice.post(&message("alice", "bob", "1")).await;
    let (first, _) = bob.delivery().await;
    let (second, _) = bob.delivery().await;
    bob.respond(second, Code::BAD_REQUEST).await;
    assert_eq!(alice.fate(exchange).await, Fate::failed("2.04", "TARGET_REFUSED"));
    bob.respond(first, Code::CHANGED).await;

    let exchange = alice.post(&storable("alice", "bob", "2")).await;
    let (first, _) = bob.delivery().await;
    bob.respond(first, Code::CHANGED).await;
    let (second, _) = bob.delivery().await;
    bob.machine.respond(second, Response::new(Code::SERVICE_UNAVAILABLE).with_max_age(1)).unwrap();
    bob.flush().await;
    assert_eq!(alice.fate(exchange).await, Fate::stored());
    let (whole, segments) = receive_whole(&mut bob).await;
    assert_eq!((whole.message_id.as_str(), segments), ("2", 2));
    until(|| net.stored_for("bob") == 0).await;
}

#[tokio::test]
async fn an_answer_to_a_segment_of_a_message_that_is_decided_on_acknowledges_no_later_message() {
    let net = Net::with(Limits { delivery_timeout_seconds: 300, ..Limits::default() }).await;
    let mut alice = net.ue("alice").await;
    let mut bob = small_ue(&net, "bob", 2).await;
    let exchange = alice.post(&message("alice", "bob", "1")).await;
    let (late, _) = bob.delivery().await;
    let (refused, _) = bob.delivery().await;
    bob.respond(refused, Code::BAD_REQUEST).await;
    assert_eq!(alice.fate(exchange).await, Fate::failed("2.04", "TARGET_REFUSED"));
    // As after a minute or two in which nothing was for it.
    let party = net.core.registry.find(&address("bob")).unwrap();
    for _ in 0..2 {
        party.rest(tokio::time::Instant::now(), net.core.limits.remembered());
    }
    let exchange = alice.post(&Message { payload: octets(1), ..message("alice", "bob", "2") }).await;
    let (second, _) = bob.delivery().await;
    bob.respond(late, Code::CHANGED).await;
    bob.respond(second, Code::BAD_REQUEST).await;
    assert_eq!(alice.fate(exchange).await, Fate::failed("2.04", "TARGET_REFUSED"));
}

#[tokio::test]
async fn a_message_that_is_too_long_or_would_take_too_many_segments_is_refused() {
    let (net, _api, billing) = as_net(Limits { message_payload_octets_max: 30_000, ..Limits::default() }).await;
    let mut alice = small_ue(&net, "alice", 1).await;
    let too_long = Message { payload: octets(30_001), ..from_as("billing", "alice", "1") };
    assert_eq!(problem(billing.send(&too_long).await.unwrap_err()), (413, "PAYLOAD_TOO_LARGE".into()));
    let most = SEGMENTS_MAX as usize;
    let too_many = Message { payload: octets(most + 1), ..from_as("billing", "alice", "2") };
    assert_eq!(problem(billing.send(&too_many).await.unwrap_err()), (413, "PAYLOAD_TOO_LARGE".into()));
    let fits = Message { payload: octets(most), ..from_as("billing", "alice", "3") };
    let sent = tokio::spawn(async move { billing.send(&fits).await });
    let (whole, segments) = receive_whole(&mut alice).await;
    assert_eq!((whole.payload, segments), (octets(most), most));
    assert_eq!(sent.await.unwrap().unwrap().status, None);
}

#[tokio::test]
async fn segments_between_ues_that_fit_are_forwarded_as_they_are() {
    let net = Net::new().await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let long = Message { payload: octets(5000), delivery_status_required: true, ..message("alice", "bob", "1") };
    for segment in cut(&long, 2048) {
        let exchange = alice.post(&segment).await;
        assert_eq!(bob.receive().await, segment);
        assert_eq!(alice.fate(exchange).await, Fate::delivered());
        // Repeated, each is known by its number.
        assert_eq!(alice.send(&segment).await, Fate::delivered());
    }
    assert!(bob.requests.is_empty());
    let exchange = bob.ask(&report("bob", "alice", "1").encode()).await;
    assert_eq!(alice.receive_report().await.message_id.as_str(), "1");
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
    let other = Message { payload: octets(7), ..cut(&long, 2048).remove(1) };
    assert_eq!(alice.send(&other).await, Fate::failed("4.00", "MESSAGE_ID_REUSED"));
}

#[tokio::test]
async fn forwarded_segments_that_are_repeated_are_confirmed_again() {
    let net = Net::new().await;
    let (mut alice, mut bob, mut carol) = (net.ue("alice").await, net.ue("bob").await, net.ue("carol").await);
    let segments = cut(&Message { payload: octets(5000), ..message("alice", "bob", "1") }, 2048);
    let confirmation = |from: &str| {
        UeMessage::SegmentConfirmation(SegmentConfirmation {
            originator: address(from),
            destination: address("alice"),
            message_id: "1".parse().unwrap(),
            set_id: "set-1".parse().unwrap(),
        })
    };
    for segment in &segments {
        let exchange = alice.post(segment).await;
        assert_eq!(bob.receive().await, *segment);
        assert_eq!(alice.fate(exchange).await, Fate::delivered());
    }
    // Who did not get the message confirms nothing.
    let exchange = carol.ask(&confirmation("carol").encode()).await;
    assert_eq!(alice.receive_any().await, confirmation("carol"));
    assert_eq!(carol.fate(exchange).await, Fate::delivered());
    for segment in &segments {
        assert_eq!(alice.send(segment).await, Fate::delivered());
    }
    assert!(alice.requests.is_empty());
    // What the sender does not get because it is away is remembered for it all the same.
    alice.leave().await;
    let away = bob.exchange(&confirmation("bob").encode()).await;
    assert_eq!(Fate::of(&away), Fate::failed("2.04", "TARGET_UNREACHABLE"));
    let mut alice = net.ue("alice").await;
    for _ in 0..2 {
        let first = alice.post(&segments[0]).await;
        assert_eq!(alice.receive_any().await, confirmation("bob"));
        assert_eq!(alice.fate(first).await, Fate::delivered());
        for segment in &segments[1..] {
            assert_eq!(alice.send(segment).await, Fate::delivered());
        }
    }
    assert!(bob.requests.is_empty());
    assert_eq!(net.core.open_requests(), 0);
}

#[tokio::test]
async fn segments_are_stored_and_remembered_each_for_itself() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    net.away_ue("bob").await;
    let segments = cut(&Message { payload: octets(5000), ..storable("alice", "bob", "1") }, 2048);
    for segment in &segments {
        assert_eq!(alice.send(segment).await, Fate::stored());
    }
    alice.leave().await;
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    for segment in &segments {
        assert_eq!(alice.send(segment).await, Fate::stored());
    }
    assert_eq!(net.stored_for("bob"), 3);
    let (whole, count) = receive_whole(&mut net.ue("bob").await).await;
    assert_eq!((whole.payload, count), (octets(5000), 3));
}

#[tokio::test]
async fn segments_too_large_for_their_target_are_put_together_and_cut_anew() {
    let net = Net::new().await;
    let mut alice = net.ue("alice").await;
    let mut bob = small_ue(&net, "bob", 1000).await;
    let long = Message { payload: octets(3000), ..message("alice", "bob", "1") };
    let mut segments = cut(&long, 2048);
    let last = alice.post(&segments.pop().unwrap()).await;
    // The last one fits by itself: alone it would have been forwarded.
    let first = segments.pop().unwrap();
    let stray = bob.receive().await;
    assert_eq!(stray.segment.as_ref().map(|segment| segment.last), Some(true));
    assert_eq!(alice.fate(last).await, Fate::delivered());
    assert_eq!(alice.send(&first).await, held());
    let mut again = cut(&long, 2048);
    let last = alice.post(&Message { message_id: "1".parse().unwrap(), ..again.pop().unwrap() }).await;
    let UeMessage::SegmentConfirmation(confirmation) = alice.receive_any().await else { panic!() };
    assert_eq!((confirmation.originator, confirmation.set_id.as_str()), (address("bob"), "set-1"));
    let (whole, count) = receive_whole(&mut bob).await;
    assert_eq!((whole, count), (long, 3));
    assert_eq!(alice.fate(last).await, Fate::delivered());
}

#[tokio::test]
async fn segments_for_an_as_are_put_together_in_any_order() {
    let (net, _api, mut billing) = as_net(Limits::default()).await;
    let mut alice = net.ue("alice").await;
    let long = Message { payload: octets(9000), ..to_as("alice", "billing", "1") };
    let mut segments = cut(&long, 2048);
    segments.swap(0, 3);
    let last = segments.remove(2);
    for segment in &segments {
        assert_eq!(alice.send(segment).await, held());
    }
    assert_eq!(alice.send(&segments[0]).await, held(), "a repetition");
    let exchange = alice.post(&last).await;
    let (operation, body) = billing.receive().await;
    let expected = serde_json::to_value(message::ts29538::UeMessageDelivery::from(&long)).unwrap();
    assert_eq!((operation.as_str(), body), ("message", expected));
    let confirmation = UeMessage::SegmentConfirmation(SegmentConfirmation {
        originator: as_address("billing"),
        destination: address("alice"),
        message_id: "1".parse().unwrap(),
        set_id: "set-1".parse().unwrap(),
    });
    assert_eq!(alice.receive_any().await, confirmation);
    assert_eq!(alice.fate(exchange).await, Fate::delivered());
    // Late repetitions get the whole message's answer, and nothing goes out again.
    assert_eq!(alice.send(&last).await, Fate::delivered());
    assert_eq!(alice.send(&segments[1]).await, Fate::delivered());
    assert_eq!(net.core.segments.held(), (0, 0));
    assert!(billing.is_quiet());
}

#[tokio::test]
async fn what_stays_away_is_asked_for_and_then_given_up_with_a_report() {
    let limits = Limits { reassembly_wait_seconds: 3, reassembly_recoveries_max: 1, ..Limits::default() };
    let (net, _api, mut billing) = as_net(limits).await;
    let mut alice = net.ue("alice").await;
    let long = Message { payload: octets(9000), delivery_status_required: true, ..to_as("alice", "billing", "1") };
    let segments = cut(&long, 2048);
    for index in [0, 2, 4] {
        assert_eq!(alice.send(&segments[index]).await, held());
    }
    let recovery = SegmentRecovery {
        originator: as_address("billing"),
        destination: address("alice"),
        message_id: "1".parse().unwrap(),
        set_id: "set-1".parse().unwrap(),
        missing: vec![2, 4],
    };
    assert_eq!(alice.receive_any().await, UeMessage::SegmentRecovery(recovery));
    let report = alice.receive_report().await;
    assert_eq!((report.originator, report.message_id.as_str()), (as_address("billing"), "1"));
    assert_eq!(report.failure_cause.as_deref(), Some("SEGMENTS_MISSING"));
    assert_eq!(net.core.segments.held(), (0, 0));
    assert!(billing.is_quiet());
}

#[tokio::test]
async fn a_report_that_the_disk_does_not_take_holds_up_nobody_elses_segments() {
    let mut setup = setup();
    setup.limits = Limits { reassembly_wait_seconds: 1, reassembly_recoveries_max: 1, ..Limits::default() };
    setup.store.limits.messages_max = 1;
    let net = Net::of(setup).await;
    let api = ServedApi::start(&net).await;
    let _billing = As::start(&net, &api, "billing").await.register().await.unwrap();
    net.away_ue("dave").await;
    let (mut alice, mut carol) = (net.ue("alice").await, net.ue("carol").await);
    assert_eq!(alice.send(&storable("alice", "dave", "0")).await, Fate::stored());
    for id in 1..7 {
        let name = id.to_string();
        let long =
            Message { payload: octets(5000), delivery_status_required: true, ..to_as("alice", "billing", &name) };
        let segments = segment(&long, name.parse().unwrap(), 2048).unwrap();
        assert_eq!(alice.send(&segments[0]).await, held());
    }
    // One after the other, their reports would take the disk half a minute to refuse.
    until(|| net.core.segments.held() == (0, 0)).await;
    let segments = cut(&Message { payload: octets(5000), ..to_as("carol", "billing", "1") }, 2048);
    assert_eq!(carol.send(&segments[0]).await, held());
    let UeMessage::SegmentRecovery(recovery) = carol.receive_any().await else { panic!() };
    assert_eq!(recovery.missing, [2, 3]);
}

#[tokio::test]
async fn after_a_crash_the_last_segment_alone_brings_all_of_them() {
    let limits = Limits { reassembly_wait_seconds: 1, ..Limits::default() };
    let (net, api, billing) = as_net(limits).await;
    let mut alice = net.ue("alice").await;
    let long = Message { payload: octets(6000), ..storable("alice", "billing", "1") };
    let long = Message { destination: as_address("billing"), ..long };
    let segments = cut(&long, 2048);
    assert_eq!(alice.send(&segments[0]).await, held());
    assert_eq!(alice.send(&segments[1]).await, held());
    drop((api, billing));
    alice.leave().await;
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&segments[2]).await, held());
    let UeMessage::SegmentRecovery(recovery) = alice.receive_any().await else { panic!() };
    assert_eq!(recovery.missing, [1, 2]);
    assert_eq!(alice.send(&segments[1]).await, held());
    // The AS is away for good; the message is stored for it.
    assert_eq!(alice.send(&segments[0]).await, Fate::stored());
    assert_eq!(net.core.store.pending_count(&as_address("billing")), 1);
    assert_eq!(alice.send(&segments[2]).await, Fate::stored());
    assert_eq!(net.core.store.pending_count(&as_address("billing")), 1);
}

#[tokio::test]
async fn reassembly_is_bounded_for_each_originator_and_for_all() {
    let limits = Limits {
        reassembly_sets_per_originator_max: 2,
        reassembly_sets_max: 3,
        message_payload_octets_max: 4000,
        ..Limits::default()
    };
    let (net, _api, _billing) = as_net(limits).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let first_of = |from: &str, id: &str| {
        let long = Message { payload: octets(3000), ..to_as(from, "billing", id) };
        segment(&long, id.parse().unwrap(), 2048).unwrap().remove(0)
    };
    assert_eq!(alice.send(&first_of("alice", "1")).await, held());
    assert_eq!(alice.send(&first_of("alice", "2")).await, held());
    assert_eq!(alice.send(&first_of("alice", "3")).await, Fate::failed("5.03", "REASSEMBLY_FULL"));
    assert_eq!(bob.send(&first_of("bob", "1")).await, held());
    assert_eq!(bob.send(&first_of("bob", "2")).await, Fate::failed("5.03", "REASSEMBLY_FULL"));
    // One that leaves takes its own with it.
    assert_eq!(alice.deregister("alice").await.code, Code::DELETED);
    assert_eq!(bob.send(&first_of("bob", "2")).await, held());
    // A message that would be too long is given up as soon as that shows.
    let long = Message { payload: octets(6000), ..to_as("bob", "billing", "3") };
    assert_eq!(bob.deregister("bob").await.code, Code::DELETED);
    assert_eq!(bob.register("bob").await.code, Code::CREATED);
    let segments = cut(&long, 2048);
    assert_eq!(bob.send(&segments[0]).await, held());
    assert_eq!(bob.send(&segments[1]).await, Fate::failed("4.13", "PAYLOAD_TOO_LARGE"));
    assert_eq!(net.core.segments.held(), (0, 0));
}

#[tokio::test]
async fn a_segment_that_contradicts_another_ends_its_message() {
    let (net, _api, mut billing) = as_net(Limits::default()).await;
    let mut alice = net.ue("alice").await;
    let long = Message { payload: octets(3000), ..to_as("alice", "billing", "1") };
    let segments = cut(&long, 2048);
    assert_eq!(alice.send(&segments[0]).await, held());
    let other = Message { payload: octets(9), ..segments[0].clone() };
    assert_eq!(alice.send(&other).await, Fate::failed("4.00", "MALFORMED"));
    assert_eq!(net.core.segments.held(), (0, 0));
    let unknown = Message { destination: as_address("nobody"), ..segments[0].clone() };
    assert_eq!(alice.send(&unknown).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    let forged = Message { originator: address("bob"), ..segments[0].clone() };
    assert_eq!(alice.send(&forged).await, Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED"));
    assert!(billing.is_quiet());
}

#[tokio::test]
async fn ues_ask_each_other_for_segments_in_their_own_name() {
    let (net, _api, _billing) = as_net(Limits::default()).await;
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let recovery = |from: &str, to: Address| {
        UeMessage::SegmentRecovery(SegmentRecovery {
            originator: address(from),
            destination: to,
            message_id: "1".parse().unwrap(),
            set_id: "set-1".parse().unwrap(),
            missing: vec![2],
        })
    };
    let asked = recovery("bob", address("alice"));
    // Asked twice, it is told twice.
    for _ in 0..2 {
        let exchange = bob.ask(&asked.encode()).await;
        assert_eq!(alice.receive_any().await, asked);
        assert_eq!(bob.fate(exchange).await, Fate::delivered());
    }
    for (forged, fate) in [
        (recovery("alice", address("alice")), Fate::failed("4.03", "ORIGINATOR_NOT_ALLOWED")),
        (recovery("bob", as_address("billing")), Fate::failed("4.04", "TARGET_TYPE_NOT_SUPPORTED")),
        (recovery("bob", address("nobody")), Fate::failed("4.04", "UNKNOWN_TARGET")),
    ] {
        assert_eq!(Fate::of(&bob.exchange(&forged.encode()).await), fate);
    }
    alice.leave().await;
    let away = bob.exchange(&asked.encode()).await;
    assert_eq!(Fate::of(&away), Fate::failed("2.04", "TARGET_UNREACHABLE"));
    assert_eq!(net.core.open_requests(), 0);
}
