//! Segmentation and reassembly (TS 23.554 clause 8.5) from outside: they undo each other whatever happens to the
//! segments on the way, and nobody makes the reassembler hold more than its limits say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use message::segmentation::{
    Insert, NotSegmentable, Overdue, Reassembler, ReassemblyLimits, SEGMENT_OVERHEAD_OCTETS, SET_OVERHEAD_OCTETS,
    SetKey, segment,
};
use message::{Address, FailureCause, Message, Priority, SEGMENTS_MAX, SegmentParameters};
use proptest::prelude::*;
use time::macros::datetime;

fn ue(name: &str) -> Address {
    Address::ue(&name.parse().unwrap())
}

fn message(from: &str, id: &str, payload: Vec<u8>) -> Message {
    Message {
        originator: ue(from),
        destination: ue("bob"),
        recipient: None,
        message_id: id.parse().unwrap(),
        application_id: Some("metering".parse().unwrap()),
        delivery_status_required: true,
        store_and_forward: true,
        expiration_time: Some(datetime!(2026-12-01 0:00 UTC)),
        priority: Priority::High,
        payload,
        segment: None,
        latency: Some(500),
    }
}

/// A segment of `octets` octets in the set `set` of `from`.
fn part(from: &str, set: &str, number: u32, total_count: Option<u32>, last: bool, octets: usize) -> Message {
    let set_id = set.parse().unwrap();
    let segment = Some(SegmentParameters { set_id, total_count, number, last });
    Message { segment, ..message(from, "m-1", vec![u8::try_from(number % 256).unwrap(); octets]) }
}

fn key(from: &str, set: &str) -> SetKey {
    SetKey { originator: ue(from), set_id: set.parse().unwrap() }
}

fn cut(message: &Message, octets: usize) -> Vec<Message> {
    segment(message, "s".parse().unwrap(), octets).unwrap()
}

fn pattern(octets: usize) -> Vec<u8> {
    (0..octets).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

#[test]
fn each_segment_carries_what_the_clause_says_and_no_more() {
    let whole = message("alice", "m-1", pattern(2_500));
    let segments = cut(&whole, 1_000);
    assert_eq!(segments.iter().map(|segment| segment.payload.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
    for (at, one) in segments.iter().enumerate() {
        let parameters = one.segment.as_ref().unwrap();
        assert_eq!(usize::try_from(parameters.number), Ok(at + 1));
        assert_eq!(parameters.total_count, (at == 0).then_some(3), "the total is in the first only");
        assert_eq!(one.delivery_status_required, at == 0, "so is what is asked for");
        assert_eq!(parameters.last, at == 2, "the flag is in the last only");
        assert_eq!((&one.message_id, &one.originator, &one.destination), {
            (&whole.message_id, &whole.originator, &whole.destination)
        });
        assert_eq!((one.priority, one.store_and_forward), (whole.priority, whole.store_and_forward));
    }
}

#[test]
fn a_message_that_fits_is_not_cut_and_one_that_cannot_be_is_refused() {
    let whole = message("alice", "m-1", pattern(100));
    assert_eq!(cut(&whole, 100), std::slice::from_ref(&whole));
    assert_eq!(cut(&message("alice", "m-1", Vec::new()), 0).len(), 1);
    let cut = |message: &Message, octets| segment(message, "s".parse().unwrap(), octets);
    assert_eq!(cut(&whole, 0), Err(NotSegmentable::NoOctets));
    assert_eq!(cut(&part("alice", "s", 1, Some(2), false, 10), 5), Err(NotSegmentable::Segment));
    let most = message("alice", "m-1", pattern(2 * usize::try_from(SEGMENTS_MAX).unwrap()));
    assert_eq!(cut(&most, 2).unwrap().len(), 1_024);
    let over = message("alice", "m-1", pattern(most.payload.len() + 1));
    assert_eq!(cut(&over, 2), Err(NotSegmentable::TooMany { segments: 1_025 }));
}

#[test]
fn what_is_no_segment_is_whole_by_itself() {
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    let whole = message("alice", "m-1", pattern(10));
    assert_eq!(reassembler.insert(whole.clone(), 0), Insert::Complete(Box::new(whole)));
    assert_eq!((reassembler.sets(), reassembler.octets()), (0, 0));
}

#[test]
fn a_whole_message_completes_again_until_it_is_removed_and_is_a_duplicate_then() {
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    let whole = message("alice", "m-1", pattern(2_000));
    let segments = cut(&whole, 1_000);
    assert_eq!(reassembler.insert(segments[1].clone(), 0), Insert::Held);
    assert_eq!(reassembler.insert(segments[1].clone(), 0), Insert::Duplicate);
    for _ in 0..2 {
        assert_eq!(reassembler.insert(segments[0].clone(), 0), Insert::Complete(Box::new(whole.clone())));
    }
    assert!(reassembler.holds(&key("alice", "s")) && !reassembler.holds(&key("alice", "t")));
    assert!(reassembler.remove(&key("alice", "s")));
    assert!(!reassembler.holds(&key("alice", "s")));
    assert!(!reassembler.remove(&key("alice", "s")));
    assert_eq!((reassembler.sets(), reassembler.octets()), (0, 0));
    for one in &segments {
        assert_eq!(reassembler.insert(one.clone(), 1), Insert::Duplicate);
    }
    let later = ReassemblyLimits::default().completed_milliseconds;
    assert_eq!(reassembler.insert(segments[0].clone(), later), Insert::Held, "it is not remembered for ever");
}

#[test]
fn a_set_identifier_used_again_for_another_message_begins_a_new_set() {
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    let first = message("alice", "m-1", pattern(20));
    let second = message("alice", "m-2", pattern(30));
    for whole in [first, second] {
        let arrivals: Vec<_> = cut(&whole, 10).into_iter().map(|one| reassembler.insert(one, 0)).collect();
        assert_eq!(arrivals.last(), Some(&Insert::Complete(Box::new(whole))));
        reassembler.remove(&key("alice", "s"));
    }
}

#[test]
fn of_the_completed_sets_the_oldest_are_forgotten_first() {
    let limits = ReassemblyLimits { completed_max: 2, ..ReassemblyLimits::default() };
    let mut reassembler = Reassembler::new(limits);
    for set in ["1", "2", "3"] {
        assert!(matches!(reassembler.insert(part("alice", set, 1, Some(1), true, 1), 0), Insert::Complete(_)));
        reassembler.remove(&key("alice", set));
    }
    assert_eq!(reassembler.insert(part("alice", "3", 1, Some(1), true, 1), 0), Insert::Duplicate);
    assert_eq!(reassembler.insert(part("alice", "2", 1, Some(1), true, 1), 0), Insert::Duplicate);
    assert!(matches!(reassembler.insert(part("alice", "1", 1, Some(1), true, 1), 0), Insert::Complete(_)));
}

#[test]
fn what_is_missing_is_asked_for_as_often_as_the_limits_say_and_then_the_set_has_failed() {
    let limits = ReassemblyLimits {
        wait_milliseconds: 100,
        recoveries_max: 2,
        lifetime_milliseconds_max: 10_000,
        ..ReassemblyLimits::default()
    };
    let mut reassembler = Reassembler::new(limits);
    let segments = cut(&message("alice", "m-1", pattern(50)), 10);
    assert_eq!(reassembler.next_due(), None);
    for at in [0, 2] {
        reassembler.insert(segments[at].clone(), 0);
    }
    assert_eq!(reassembler.next_due(), Some(100));
    assert_eq!(reassembler.due(99), []);
    for now in [100, 200] {
        let overdue = reassembler.due(now);
        let [Overdue::Missing { key: set, message, missing }] = &overdue[..] else { panic!("{overdue:?}") };
        assert_eq!((set, &missing[..]), (&key("alice", "s"), &[2, 4, 5][..]));
        assert!(message.delivery_status_required && message.payload.is_empty() && message.segment.is_none());
        assert_eq!(reassembler.due(now), [], "once each time");
    }
    let overdue = reassembler.due(300);
    assert!(matches!(&overdue[..], [Overdue::Failed { message, .. }] if message.message_id.as_str() == "m-1"));
    assert_eq!((reassembler.sets(), reassembler.octets(), reassembler.next_due()), (0, 0, None));
}

#[test]
fn a_segment_that_comes_puts_the_next_recovery_off_but_not_beyond_the_lifetime() {
    let limits = ReassemblyLimits {
        wait_milliseconds: 100,
        recoveries_max: 1_000,
        lifetime_milliseconds_max: 250,
        ..ReassemblyLimits::default()
    };
    let mut reassembler = Reassembler::new(limits);
    let segments = cut(&message("alice", "m-1", pattern(50)), 10);
    reassembler.insert(segments[0].clone(), 0);
    reassembler.insert(segments[1].clone(), 90);
    assert_eq!(reassembler.next_due(), Some(190));
    reassembler.insert(segments[2].clone(), 180);
    assert_eq!(reassembler.next_due(), Some(250));
    assert!(matches!(&reassembler.due(250)[..], [Overdue::Failed { .. }]));
}

#[test]
fn a_whole_message_that_nobody_removes_is_dropped_after_its_lifetime_without_a_failure() {
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    let lifetime = ReassemblyLimits::default().lifetime_milliseconds_max;
    reassembler.insert(part("alice", "s", 1, Some(1), true, 1), 0);
    assert_eq!(reassembler.next_due(), Some(lifetime));
    assert_eq!(reassembler.due(lifetime), []);
    assert_eq!(reassembler.sets(), 0);
}

#[test]
fn what_is_missing_is_named_as_the_originator_counts() {
    let limits = ReassemblyLimits { wait_milliseconds: 1, recoveries_max: 9, ..ReassemblyLimits::default() };
    for (held, missing, why) in [
        (vec![(1, Some(3), false)], vec![2, 3], "the first of three"),
        (vec![(3, None, true)], vec![1, 2], "the last, counted from 1 as far as known"),
        (vec![(4, None, false)], vec![1, 2, 3], "neither first nor last: what is known to be missing"),
        (vec![(0, Some(3), false)], vec![1, 2], "a first that is 0"),
        (vec![(1, None, false), (2, None, true)], vec![0], "a 1 without a total is not the first"),
        (vec![(2, Some(3), true)], vec![0, 1], "a last that is one less than the total"),
        (vec![(3, Some(3), true)], vec![1, 2], "a last that is the total"),
    ] {
        let mut reassembler = Reassembler::new(limits);
        for (number, total, last) in held {
            assert_eq!(reassembler.insert(part("alice", "s", number, total, last, 1), 0), Insert::Held, "{why}");
        }
        let overdue = reassembler.due(1);
        assert!(matches!(&overdue[..], [Overdue::Missing { missing: named, .. }] if *named == missing), "{why}");
    }
}

#[test]
fn contradictions_end_the_whole_set() {
    let other_id = |segment: Message| Message { message_id: "m-2".parse().unwrap(), ..segment };
    let other_target = |segment: Message| Message { destination: ue("carol"), ..segment };
    let other_copy = |segment: Message| Message { recipient: Some(ue("carol")), ..segment };
    let second = || part("alice", "s", 2, None, false, 1);
    for (held, next, why) in [
        (vec![second()], part("alice", "s", 2, None, false, 2), "another content under one number"),
        (vec![second()], part("alice", "s", 2, None, true, 1), "a repeat that says it is the last"),
        (vec![second()], part("alice", "s", 2, Some(4), false, 1), "a repeat that says another total"),
        (vec![part("alice", "s", 1, Some(4), false, 1)], part("alice", "s", 2, Some(5), false, 1), "two totals"),
        (vec![part("alice", "s", 4, None, true, 1)], part("alice", "s", 3, None, true, 1), "two lasts"),
        (vec![part("alice", "s", 1, Some(2), false, 1)], part("alice", "s", 3, None, false, 1), "beyond the total"),
        (vec![part("alice", "s", 3, None, false, 1)], part("alice", "s", 1, Some(2), false, 1), "a total too small"),
        (vec![part("alice", "s", 3, None, true, 1)], part("alice", "s", 4, None, false, 1), "beyond the last"),
        (vec![part("alice", "s", 4, None, false, 1)], part("alice", "s", 3, None, true, 1), "a last too soon"),
        (vec![part("alice", "s", 1, Some(5), false, 1)], part("alice", "s", 3, None, true, 1), "ends elsewhere"),
        (vec![part("alice", "s", 0, Some(2), false, 1)], part("alice", "s", 2, None, true, 1), "counts from 0 and 1"),
        (vec![], part("alice", "s", 0, None, false, 1), "a first without a total"),
        (vec![], part("alice", "s", 3, Some(2), false, 1), "beyond its own total"),
        (vec![second()], other_id(part("alice", "s", 1, Some(3), false, 1)), "another Message ID"),
        (vec![second()], other_target(part("alice", "s", 1, Some(3), false, 1)), "another recipient"),
        (vec![second()], other_copy(part("alice", "s", 1, Some(3), false, 1)), "another copy"),
        (vec![second()], other_id(second()), "a repeat under another Message ID"),
    ] {
        let mut reassembler = Reassembler::new(ReassemblyLimits::default());
        for one in held {
            assert_eq!(reassembler.insert(one, 0), Insert::Held, "{why}");
        }
        assert_eq!(reassembler.insert(next, 0), Insert::Refused(FailureCause::Malformed), "{why}");
        assert_eq!((reassembler.sets(), reassembler.octets(), reassembler.next_due()), (0, 0, None), "{why}");
    }
}

#[test]
fn more_segments_than_are_ever_put_together_are_refused() {
    for (number, total) in [(1, Some(SEGMENTS_MAX + 1)), (SEGMENTS_MAX + 1, None), (u32::MAX, Some(u32::MAX))] {
        let mut reassembler = Reassembler::new(ReassemblyLimits::default());
        let answer = reassembler.insert(part("alice", "s", number, total, false, 1), 0);
        assert_eq!(answer, Insert::Refused(FailureCause::PayloadTooLarge));
        assert_eq!(reassembler.sets(), 0);
    }
}

#[test]
fn each_limit_has_its_answer_and_leaves_what_is_held() {
    let full = Insert::Refused(FailureCause::ReassemblyFull);
    let first = |from: &str, set: &str, octets| part(from, set, 1, Some(3), false, octets);
    let limits = ReassemblyLimits { sets_per_peer_max: 1, ..ReassemblyLimits::default() };
    let mut reassembler = Reassembler::new(limits);
    assert_eq!(reassembler.insert(first("alice", "1", 10), 0), Insert::Held);
    assert_eq!(reassembler.insert(first("alice", "2", 10), 0), full);
    assert_eq!(reassembler.insert(first("carol", "2", 10), 0), Insert::Held, "another peer has its own");
    assert_eq!(reassembler.insert(part("alice", "1", 2, None, false, 10), 0), Insert::Held);

    let limits = ReassemblyLimits { sets_max: 1, ..ReassemblyLimits::default() };
    let mut reassembler = Reassembler::new(limits);
    assert_eq!(reassembler.insert(first("alice", "1", 10), 0), Insert::Held);
    assert_eq!(reassembler.insert(first("carol", "2", 10), 0), full);
    assert!(reassembler.remove(&key("alice", "1")));
    assert_eq!(reassembler.insert(first("carol", "2", 10), 0), Insert::Held, "room again");

    let cost = SET_OVERHEAD_OCTETS + SEGMENT_OVERHEAD_OCTETS + 10;
    let limits = ReassemblyLimits { octets_per_peer_max: cost, ..ReassemblyLimits::default() };
    let mut reassembler = Reassembler::new(limits);
    assert_eq!(reassembler.insert(first("alice", "1", 10), 0), Insert::Held);
    assert_eq!(reassembler.insert(part("alice", "1", 2, None, false, 0), 0), full, "nothing is free");
    assert_eq!(reassembler.octets(), cost, "what is held is kept");

    let limits = ReassemblyLimits { octets_max: cost, ..ReassemblyLimits::default() };
    let mut reassembler = Reassembler::new(limits);
    assert_eq!(reassembler.insert(first("alice", "1", 11), 0), full);
    assert_eq!(reassembler.insert(first("alice", "1", 10), 0), Insert::Held);
    assert_eq!(reassembler.insert(first("carol", "1", 0), 0), full);

    let limits = ReassemblyLimits { payload_octets_max: 25, ..ReassemblyLimits::default() };
    let mut reassembler = Reassembler::new(limits);
    assert_eq!(reassembler.insert(first("alice", "1", 20), 0), Insert::Held);
    let answer = reassembler.insert(part("alice", "1", 2, None, false, 6), 0);
    assert_eq!(answer, Insert::Refused(FailureCause::PayloadTooLarge));
    assert_eq!(reassembler.sets(), 0, "it can never be whole");
    assert_eq!(reassembler.insert(first("alice", "1", 26), 0), Insert::Refused(FailureCause::PayloadTooLarge));
}

#[test]
fn removing_a_peer_removes_its_sets_and_no_others() {
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    for (from, set) in [("alice", "1"), ("alice", "2"), ("carol", "1")] {
        reassembler.insert(part(from, set, 1, Some(2), false, 10), 0);
    }
    assert_eq!(reassembler.remove_peer(&ue("alice")), 2);
    assert_eq!(reassembler.sets(), 1);
    assert_eq!(reassembler.octets(), SET_OVERHEAD_OCTETS + SEGMENT_OVERHEAD_OCTETS + 10);
    assert_eq!(reassembler.remove_peer(&ue("alice")), 0);
}

#[test]
fn a_delivery_status_that_any_segment_asks_for_is_asked_for() {
    let mut reassembler = Reassembler::new(ReassemblyLimits::default());
    let asking = part("alice", "s", 2, None, true, 1);
    let silent = Message { delivery_status_required: false, ..part("alice", "s", 1, Some(2), false, 1) };
    assert_eq!(reassembler.insert(asking, 0), Insert::Held);
    let Insert::Complete(whole) = reassembler.insert(silent, 0) else { panic!("not whole") };
    assert!(whole.delivery_status_required);
}

fn small_limits() -> ReassemblyLimits {
    ReassemblyLimits {
        sets_per_peer_max: 2,
        octets_per_peer_max: 4_000,
        sets_max: 3,
        octets_max: 6_000,
        payload_octets_max: 300,
        wait_milliseconds: 50,
        recoveries_max: 2,
        lifetime_milliseconds_max: 400,
        completed_max: 2,
        completed_milliseconds: 100,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Segments arrive in any order and number of times, some not at all until they are asked for; and the originator
    /// may count from 0.
    #[test]
    fn reassembly_undoes_segmentation_under_loss_repetition_and_reordering(
        octets in 0_usize..6_000, segment_octets in 6_usize..3_000, from_zero: bool,
        order in any::<prop::sample::Index>(), seed: u64, lost in 0_u8..100, repeated in 0_u8..100,
    ) {
        let whole = message("alice", "m-1", pattern(octets));
        let mut segments = cut(&whole, segment_octets);
        if from_zero {
            segments.iter_mut().filter_map(|one| one.segment.as_mut()).for_each(|segment| segment.number -= 1);
        }
        let mut random = seed | 1;
        let mut next = || { random ^= random << 13; random ^= random >> 7; random ^= random << 17; random };
        let mut arrivals = Vec::new();
        for one in &segments {
            if next() % 100 >= u64::from(lost) { arrivals.push(one.clone()); }
            if next() % 100 < u64::from(repeated) { arrivals.push(one.clone()); }
        }
        for at in (1..arrivals.len()).rev() {
            arrivals.swap(at, usize::try_from(next() % (at as u64 + 1)).unwrap());
        }
        if !arrivals.is_empty() { let at = order.index(arrivals.len()); arrivals.rotate_left(at); }
        // Of nothing that arrived nobody can know.
        if arrivals.is_empty() { arrivals.push(segments[order.index(segments.len())].clone()); }

        let limits = ReassemblyLimits { wait_milliseconds: 10, recoveries_max: 5, ..ReassemblyLimits::default() };
        let mut reassembler = Reassembler::new(limits);
        let mut completions = Vec::new();
        let mut now = 0;
        let mut take = |reassembler: &mut Reassembler, one: Message, now| match reassembler.insert(one.clone(), now) {
            Insert::Complete(message) => {
                if let Some(key) = SetKey::of(&one) { assert!(reassembler.remove(&key)); }
                completions.push(*message);
            }
            Insert::Refused(cause) => panic!("refused: {cause}"),
            Insert::Held | Insert::Duplicate => {}
        };
        let uncut = segments.len() == 1;
        for one in arrivals.into_iter().take(if uncut { 1 } else { usize::MAX }) {
            now += 1;
            take(&mut reassembler, one, now);
        }
        while let Some(due) = reassembler.next_due() {
            now = due;
            for overdue in reassembler.due(now) {
                let Overdue::Missing { missing, .. } = overdue else { panic!("given up: {overdue:?}") };
                prop_assert!(!missing.is_empty() && missing.is_sorted_by(|one, next| one < next));
                for number in missing {
                    // What was asked for by a guess that the numbers begin at 1 may not exist.
                    let asked = segments.iter().find(|one| one.segment.as_ref().unwrap().number == number);
                    if let Some(one) = asked { take(&mut reassembler, one.clone(), now); }
                }
            }
        }
        prop_assert_eq!(completions, [whole]);
        prop_assert_eq!((reassembler.sets(), reassembler.octets()), (0, 0));
    }

    /// Whole messages cut for one size are cut again for another.
    #[test]
    fn cutting_anew_for_a_smaller_limit_loses_nothing(octets in 1_usize..5_000, first in 40_usize..2_000, then in 10_usize..1_000) {
        let whole = message("alice", "m-1", pattern(octets));
        let mut reassembler = Reassembler::new(ReassemblyLimits::default());
        let mut put_together = |segments: Vec<Message>, set: &str| {
            let arrivals: Vec<_> = segments.into_iter().map(|one| reassembler.insert(one, 0)).collect();
            reassembler.remove(&key("alice", set));
            match arrivals.into_iter().next_back() { Some(Insert::Complete(message)) => *message, other => panic!("{other:?}") }
        };
        let once = put_together(segment(&whole, "1".parse().unwrap(), first).unwrap(), "1");
        let twice = put_together(segment(&once, "2".parse().unwrap(), then).unwrap(), "2");
        prop_assert_eq!(twice, whole);
    }

    /// Whatever peers send, and whenever: the limits hold, what is counted is what is there, and in the end all is gone.
    #[test]
    fn hostile_segments_never_take_more_than_the_limits(
        arrivals in prop::collection::vec(
            (0_u8..4, 0_u8..3, 0_u32..7, prop::option::of(0_u32..7), any::<bool>(), 0_usize..200, 0_u64..40, 0_u8..8), 1..120,
        ),
    ) {
        let limits = small_limits();
        let mut reassembler = Reassembler::new(limits);
        let mut now = 0;
        for (peer, set, number, total, last, octets, pause, other) in arrivals {
            now += pause;
            let (peer, set) = (format!("peer-{peer}"), set.to_string());
            let mut one = part(&peer, &set, number, total, last, octets);
            one.message_id = if other == 0 { "m-2" } else { "m-1" }.parse().unwrap();
            match reassembler.insert(one, now) {
                Insert::Complete(message) => {
                    prop_assert!(message.payload.len() <= limits.payload_octets_max && message.segment.is_none());
                    if other < 4 { prop_assert!(reassembler.remove(&key(&peer, &set))); }
                }
                Insert::Refused(FailureCause::Malformed | FailureCause::PayloadTooLarge) => {
                    prop_assert!(!reassembler.remove(&key(&peer, &set)), "its set is gone");
                }
                Insert::Refused(cause) => prop_assert_eq!(cause, FailureCause::ReassemblyFull),
                Insert::Held | Insert::Duplicate => {}
            }
            if other == 7 {
                for overdue in reassembler.due(now) {
                    if let Overdue::Missing { missing, .. } = overdue {
                        prop_assert!(!missing.is_empty() && missing.len() <= 1_024);
                    }
                }
            }
            prop_assert!(reassembler.sets() <= limits.sets_max && reassembler.octets() <= limits.octets_max);
            prop_assert_eq!(reassembler.sets() == 0, reassembler.octets() == 0);
            prop_assert_eq!(reassembler.sets() == 0, reassembler.next_due().is_none());
        }
        let mut ended = BTreeSet::new();
        while let Some(due) = reassembler.next_due() {
            prop_assert!(due <= now + limits.lifetime_milliseconds_max);
            for overdue in reassembler.due(due) {
                if let Overdue::Failed { key, .. } = overdue { prop_assert!(ended.insert(key), "failed once"); }
            }
        }
        prop_assert_eq!((reassembler.sets(), reassembler.octets()), (0, 0));
    }
}
