#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::time::Duration;

use message::{Address, Priority, segmentation::segment};
use proptest::prelude::*;

use super::*;

fn limits() -> ClientLimits {
    ClientLimits { reassembly_sets_max: 2, segment_wait_milliseconds: 1_000, ..ClientLimits::default() }
}

fn message(id: &str, octets: usize) -> Message {
    Message {
        originator: Address::ue(&"a@x".parse().unwrap()),
        destination: Address::ue(&"b@x".parse().unwrap()),
        recipient: None,
        message_id: id.parse().unwrap(),
        application_id: None,
        delivery_status_required: true,
        store_and_forward: false,
        expiration_time: None,
        priority: Priority::Middle,
        payload: (0..octets).map(|octet| octet as u8).collect(),
        segment: None,
        latency: None,
    }
}

fn cut(id: &str, octets: usize) -> Vec<Message> {
    segment(&message(id, octets), id.parse().unwrap(), 10).unwrap()
}

fn key(id: &str) -> HandOverKey {
    HandOverKey::of_message(&message(id, 0))
}

/// Writes down what is to be written down; yields the places to acknowledge.
fn write(reassembly: &mut Reassembly<u32>, taken: Taken) -> Vec<u32> {
    match taken {
        Taken::Write(Record::Held { key, set_id, .. }) => reassembly.written(&key, &set_id, true),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_is_acknowledged_when_it_is_written_down_and_the_completing_one_waits_for_the_application() {
    let (mut reassembly, now) = (Reassembly::new(&limits(), true), Instant::now());
    let segments = cut("1", 25);
    let taken = reassembly.take(segments[2].clone(), 2, now);
    assert_eq!(reassembly.take(segments[2].clone(), 22, now), Taken::Wait);
    assert_eq!(write(&mut reassembly, taken), [2, 22]);
    assert_eq!(reassembly.take(segments[2].clone(), 222, now), Taken::Acknowledge);
    let first = reassembly.take(segments[0].clone(), 0, now);
    assert_eq!(reassembly.take(segments[1].clone(), 1, now), Taken::Complete);
    assert_eq!(reassembly.whole(&key("1")).unwrap().0, &message("1", 25));
    assert_eq!(write(&mut reassembly, first), [0], "also after the message is complete");
    assert_eq!(reassembly.take(segments[0].clone(), 9, now), Taken::Complete, "it waits with the message");
    assert!(reassembly.settled(&key("1")).is_empty());
    assert!(reassembly.whole(&key("1")).is_none());
}

#[test]
fn what_cannot_be_written_down_is_not_acknowledged_and_is_tried_again() {
    let (mut reassembly, now) = (Reassembly::new(&limits(), true), Instant::now());
    let segments = cut("1", 15);
    let Taken::Write(Record::Held { key, set_id, .. }) = reassembly.take(segments[0].clone(), 1, now) else { panic!() };
    assert_eq!(reassembly.written(&key, &set_id, false), [1]);
    let again = reassembly.take(segments[0].clone(), 2, now);
    assert_eq!(write(&mut reassembly, again), [2]);
}

#[test]
fn without_a_state_directory_what_is_held_is_acknowledged() {
    let (mut reassembly, now) = (Reassembly::<u32>::new(&limits(), false), Instant::now());
    assert_eq!(reassembly.take(cut("1", 15)[0].clone(), 1, now), Taken::Acknowledge);
}

#[test]
fn segments_of_an_earlier_run_complete_their_message() {
    let (mut reassembly, now) = (Reassembly::new(&limits(), true), Instant::now());
    let mut segments = cut("1", 25);
    let last = segments.pop().unwrap();
    segments.into_iter().for_each(|segment| reassembly.restore(segment));
    assert_eq!(reassembly.take(last, 1, now), Taken::Complete);
    assert_eq!(reassembly.whole(&key("1")).unwrap().0.payload.len(), 25);
}

#[test]
fn what_is_given_back_is_there_when_a_segment_of_it_comes_again_and_not_for_ever() {
    let (mut reassembly, start) = (Reassembly::new(&limits(), true), Instant::now());
    reassembly.resume(start);
    let segments = cut("1", 15);
    reassembly.take(segments[0].clone(), 0, start);
    assert_eq!(reassembly.take(segments[1].clone(), 1, start), Taken::Complete);
    assert_eq!(reassembly.next_due(), None, "the application may take its time");
    reassembly.park(&key("1"), start);
    assert_eq!(reassembly.take(segments[1].clone(), 2, start), Taken::Complete);
    reassembly.handed_over(&key("1"));
    assert_eq!(reassembly.next_due(), None);
    reassembly.park(&key("1"), start);
    let due = reassembly.next_due().unwrap();
    assert_eq!(due, start + Duration::from_secs(4));
    let set_id = "1".parse().unwrap();
    assert_eq!(reassembly.due(due), [Due::Forget(Record::Dropped { key: key("1"), set_id })]);
    assert!(reassembly.whole(&key("1")).is_none());
}

#[test]
fn missing_segments_are_asked_for_while_the_client_is_registered_and_then_given_up() {
    let (mut reassembly, start) = (Reassembly::<u32>::new(&limits(), false), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    reassembly.resume(start);
    let segments = cut("1", 35);
    reassembly.take(segments[0].clone(), 0, start);
    reassembly.take(segments[3].clone(), 3, start);
    reassembly.disconnected(start);
    assert_eq!(reassembly.next_due(), None);
    reassembly.resume(after(3_600));
    assert!(reassembly.due(after(3_600)).is_empty(), "nothing could have come");
    for attempt in 1..=3 {
        let due = reassembly.next_due().unwrap();
        assert_eq!(due, after(3_600 + attempt));
        let asked = reassembly.due(due);
        assert!(matches!(&asked[..], [Due::Recover { missing, .. }] if *missing == [2, 3]), "{asked:?}");
    }
    let failed = reassembly.due(after(3_604));
    assert!(matches!(&failed[..], [Due::Failed { message }] if message.delivery_status_required), "{failed:?}");
    assert_eq!(reassembly.next_due(), None);
}

#[test]
fn what_is_given_up_is_forgotten_on_disk_too() {
    let (mut reassembly, start) = (Reassembly::new(&limits(), true), Instant::now());
    reassembly.resume(start);
    reassembly.take(cut("1", 15)[0].clone(), 0, start);
    let mut due = Vec::new();
    for seconds in 1..=4 {
        due = reassembly.due(start + Duration::from_secs(seconds));
    }
    let set_id = "1".parse().unwrap();
    assert_eq!(due[1..], [Due::Forget(Record::Dropped { key: key("1"), set_id })]);
}

#[test]
fn a_contradiction_ends_the_set_and_leaves_nothing() {
    let (mut reassembly, now) = (Reassembly::new(&limits(), true), Instant::now());
    let segments = cut("1", 25);
    reassembly.take(segments[0].clone(), 1, now);
    let other = Message { payload: b"else".to_vec(), ..segments[0].clone() };
    let set = SetKey::of(&other).unwrap();
    assert_eq!(reassembly.take(other, 2, now), Taken::Refuse(FailureCause::Malformed));
    let (places, record) = reassembly.refused(&set);
    assert_eq!((places, record.is_some()), (vec![1], true));
    assert_eq!((reassembly.sets.len(), reassembly.reassembler.sets()), (0, 0));
}

#[test]
fn complete_messages_have_a_limit_and_wait_for_room_where_they_are() {
    let (mut reassembly, now) = (Reassembly::<u32>::new(&limits(), false), Instant::now());
    let last = |id: &str| cut(id, 15)[1].clone();
    for id in ["1", "2"] {
        reassembly.take(cut(id, 15)[0].clone(), 0, now);
        assert_eq!(reassembly.take(last(id), 0, now), Taken::Complete);
    }
    reassembly.take(cut("3", 15)[0].clone(), 0, now);
    assert_eq!(reassembly.take(last("3"), 0, now), Taken::Refuse(FailureCause::ReassemblyFull));
    let set = SetKey::of(&last("3")).unwrap();
    assert_eq!(reassembly.refused(&set), (vec![], None), "it is kept");
    reassembly.settled(&key("1"));
    assert_eq!(reassembly.take(last("3"), 0, now), Taken::Complete);
    // More sets than there is room for.
    assert_eq!(reassembly.take(cut("4", 15)[0].clone(), 0, now), Taken::Acknowledge);
    assert_eq!(reassembly.take(cut("5", 15)[0].clone(), 0, now), Taken::Acknowledge);
    assert_eq!(reassembly.take(cut("6", 15)[0].clone(), 0, now), Taken::Refuse(FailureCause::ReassemblyFull));
}

#[test]
fn a_message_cut_anew_leaves_nothing_of_its_first_cut_behind() {
    let (mut reassembly, now) = (Reassembly::new(&limits(), true), Instant::now());
    reassembly.take(cut("1", 15)[0].clone(), 7, now);
    let anew = segment(&message("1", 15), "anew".parse().unwrap(), 8).unwrap();
    reassembly.take(anew[0].clone(), 8, now);
    assert_eq!(reassembly.take(anew[1].clone(), 9, now), Taken::Complete);
    let mut places = reassembly.settled(&key("1"));
    places.sort_unstable();
    assert_eq!(places, [7, 8]);
    assert_eq!((reassembly.sets.len(), reassembly.reassembler.sets()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A server delivers each segment until it is acknowledged; segments arrive in any order and more than once, writing
    /// fails now and then, and the client is killed now and then. The application gets the message once it is complete,
    /// and nothing that was acknowledged is missing then.
    #[test]
    fn nothing_acknowledged_is_lost_whatever_order_segments_come_in_and_whenever_the_client_dies(
        octets in 11_usize..200,
        events in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..10), 0..200),
    ) {
        let (segments, now) = (cut("1", octets), Instant::now());
        let mut reassembly = Reassembly::<usize>::new(&limits(), true);
        let mut acknowledged = vec![false; segments.len()];
        let (mut disk, mut whole) = (Vec::new(), None);
        // At the end the server gets through with what is left, in order.
        let rest = (0..segments.len()).chain(0..segments.len()).map(|index| (index, 0));
        let chosen = events.into_iter().map(|(index, event)| (index.index(segments.len()), event));
        for (index, event) in chosen.chain(rest) {
            if acknowledged[index] {
                continue;
            }
            match reassembly.take(segments[index].clone(), index, now) {
                Taken::Acknowledge => acknowledged[index] = true,
                Taken::Write(Record::Held { key, set_id, body }) => {
                    let is_written = event != 1;
                    if is_written {
                        disk.push(body);
                    }
                    for place in reassembly.written(&key, &set_id, is_written) {
                        acknowledged[place] |= is_written;
                    }
                }
                Taken::Complete => {
                    whole = reassembly.whole(&key("1")).map(|(message, _)| message.clone());
                    if event != 2 {
                        break;
                    }
                    reassembly.park(&key("1"), now);
                }
                other => prop_assert!(false, "{:?}", other),
            }
            if event == 3 {
                reassembly = Reassembly::new(&limits(), true);
                for body in &disk {
                    let decoded = UeMessage::decode(body.to_string().as_bytes(), &message::DecodeLimits::default());
                    let Ok(UeMessage::Message(segment)) = decoded else { panic!("{decoded:?}") };
                    reassembly.restore(*segment);
                }
            }
        }
        prop_assert!(acknowledged.contains(&false), "the last one waits for the application");
        prop_assert_eq!(whole, Some(message("1", octets)));
    }
}
