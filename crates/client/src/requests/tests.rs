#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::time::Duration;

use super::*;
use crate::segmented::SEGMENT_HELD;

type Answer = oneshot::Receiver<Result<Outcome, ClientError>>;

const WINDOWS: Windows = Windows { messages_max: 8, reports_sent_max: 8, segments_sent_max: 2, kept_max: 1 };

fn waiting(id: &str, deadline: Instant) -> (Waiting, Answer) {
    let (answer, receiver) = oneshot::channel();
    (Waiting { message_id: id.parse().unwrap(), answer, deadline }, receiver)
}

fn push(requests: &mut Requests<u32>, id: &str, deadline: Instant) -> Answer {
    let (waiting, receiver) = waiting(id, deadline);
    let lane = (Address::ue(&"b@x".parse().unwrap()), Priority::Middle);
    requests.push(id.as_bytes().to_vec(), Some(lane), Purpose::Message(waiting));
    receiver
}

fn name(destination: &str, id: &str) -> SetName {
    let destination = Address::ue(&destination.parse().unwrap());
    SetName { destination, message_id: id.parse().unwrap(), set_id: id.parse().unwrap() }
}

fn push_segments(requests: &mut Requests<u32>, destination: &str, id: &str, count: u8) -> Answer {
    let (waiting, receiver) = waiting(id, later());
    let bodies = (1..=count).map(|number| format!("{id}.{number}").into_bytes()).collect();
    requests.push_segments(Segmented::new(name(destination, id), bodies, 3), Priority::Middle, waiting);
    receiver
}

fn key(id: &str) -> HandOverKey {
    HandOverKey {
        kind: crate::hand_over::Kind::Message,
        originator: message::Address::ue(&"a@x".parse().unwrap()),
        message_id: id.parse().unwrap(),
        segment: None,
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Sends what may be sent, on exchanges from `exchange` upwards; yields the bodies.
fn send_all(requests: &mut Requests<u32>, mut exchange: u32) -> Vec<String> {
    let mut order = Vec::new();
    while let Some((place, body)) = requests.next_ready(Instant::now()) {
        order.push(String::from_utf8(body.to_vec()).unwrap());
        requests.sent(place, exchange);
        exchange += 1;
    }
    order
}

fn answer_segment(requests: &mut Requests<u32>, exchange: u32, outcome: Outcome) -> Vec<u32> {
    let Place { number, segment } = requests.find(exchange).unwrap();
    requests.segment_answered(number, segment.unwrap(), outcome, later(), later())
}

#[test]
fn unanswered_requests_are_sent_again_in_their_first_order() {
    let mut requests = Requests::new(WINDOWS);
    let _answers: Vec<Answer> = ["1", "2", "3"].iter().map(|id| push(&mut requests, id, later())).collect();
    assert_eq!(send_all(&mut requests, 10), ["1", "2", "3"]);
    requests.remove(requests.find(11).unwrap().number).unwrap();
    requests.disconnected();
    assert_eq!(send_all(&mut requests, 20), ["1", "3"]);
    assert!(requests.find(10).is_none(), "exchanges of the lost connection mean nothing");
}

#[test]
fn a_request_put_off_waits_and_keeps_its_place() {
    let mut requests = Requests::new(WINDOWS);
    let (now, deadline) = (Instant::now(), later());
    let _first = push(&mut requests, "1", deadline);
    let _second = push(&mut requests, "2", deadline);
    let place = requests.next_ready(now).unwrap().0;
    requests.sent(place, 1);
    let when = now + Duration::from_secs(5);
    requests.retry(place, when, "OVERLOADED".into());
    assert_eq!(requests.next_ready(now).unwrap().1, b"2");
    assert_eq!(requests.next_due(now), Some(when));
    assert_eq!(requests.next_due(when), Some(deadline), "what cannot be sent when it may be waits for something else");
    assert_eq!(requests.next_ready(when).unwrap().1, b"1");
}

#[test]
fn a_message_without_an_answer_in_time_is_in_doubt_and_a_refused_one_is_not() {
    let mut requests = Requests::new(WINDOWS);
    let now = Instant::now();
    let mut silent = push(&mut requests, "1", now);
    let mut refused = push(&mut requests, "2", now);
    assert_eq!(send_all(&mut requests, 7).len(), 2);
    requests.retry(requests.find(8).unwrap(), later(), "OVERLOADED".into());
    assert_eq!(requests.expire(now), [7]);
    assert!(matches!(silent.try_recv().unwrap(), Err(ClientError::NoAnswer { .. })));
    assert_eq!(refused.try_recv().unwrap().unwrap(), Outcome::Failed("OVERLOADED".into()));
    assert!(requests.room() == 8 && requests.calls() == 0);
}

#[test]
fn room_is_for_messages_and_reports_do_not_take_it() {
    let mut requests = Requests::<u32>::new(Windows { messages_max: 1, ..WINDOWS });
    requests.push(Vec::new(), None, Purpose::Report(key("1")));
    assert_eq!((requests.room(), requests.reports()), (1, 1));
    let answer = push(&mut requests, "1", later());
    assert_eq!(requests.room(), 0);
    drop(answer);
    requests.expire(Instant::now());
    assert_eq!(requests.room(), 1, "a message that nobody waits for makes room");
}

#[test]
fn reports_without_an_answer_do_not_keep_messages_waiting() {
    let mut requests = Requests::new(Windows { reports_sent_max: 2, ..WINDOWS });
    for id in ["1", "2", "3"] {
        requests.push(id.into(), None, Purpose::Report(key(id)));
    }
    let _answer = push(&mut requests, "message", later());
    assert_eq!(send_all(&mut requests, 0), ["1", "2", "message"]);
    requests.remove(requests.find(0).unwrap().number).unwrap();
    assert_eq!(requests.next_ready(Instant::now()).unwrap().1, b"3");
    requests.retry(requests.find(1).unwrap(), later(), String::new());
    assert_eq!(send_all(&mut requests, 5), ["3"]);
    requests.disconnected();
    assert_eq!(send_all(&mut requests, 10), ["3", "message"]);
}

#[test]
fn the_oldest_report_is_given_up_when_there_are_too_many() {
    let mut requests = Requests::<u32>::new(WINDOWS);
    let _answer = push(&mut requests, "message", later());
    requests.push(Vec::new(), None, Purpose::Report(key("1")));
    requests.push(Vec::new(), None, Purpose::Confirmation(key("2")));
    requests.push(Vec::new(), None, Purpose::Recovery);
    requests.sent(Place { number: 1, segment: None }, 7);
    let given_up = requests.give_up_report(2).unwrap();
    assert!(matches!(&given_up.purpose, Purpose::Report(first) if *first == key("1")));
    assert_eq!(given_up.exchanges(), [7]);
    assert!(requests.give_up_report(2).is_none());
    assert!(matches!(requests.give_up_report(1).unwrap().purpose, Purpose::Confirmation(_)));
    assert_eq!((requests.calls(), requests.reports()), (1, 1));
}

#[test]
fn segments_go_out_within_their_window_and_nothing_for_the_same_recipient_overtakes_them() {
    let mut requests = Requests::new(WINDOWS);
    let mut large = push_segments(&mut requests, "b@x", "large", 3);
    let _small = push(&mut requests, "small", later());
    let _elsewhere = push_segments(&mut requests, "c@x", "elsewhere", 1);
    requests.push(b"report".to_vec(), None, Purpose::Report(key("1")));
    assert_eq!(send_all(&mut requests, 0), ["large.1", "large.2", "report"]);
    assert_eq!(answer_segment(&mut requests, 0, Outcome::Other(SEGMENT_HELD.into())), [] as [u32; 0]);
    assert_eq!(send_all(&mut requests, 3), ["large.3", "small"]);
    answer_segment(&mut requests, 1, Outcome::Other(SEGMENT_HELD.into()));
    assert_eq!(send_all(&mut requests, 5), ["elsewhere.1"]);
    assert_eq!(answer_segment(&mut requests, 3, Outcome::Delivered), [] as [u32; 0]);
    assert_eq!(large.try_recv().unwrap().unwrap(), Outcome::Delivered);
    assert_eq!((requests.calls(), requests.room()), (2, 6));
}

#[test]
fn a_refused_segment_fails_the_message_and_takes_back_the_others() {
    let mut requests = Requests::new(WINDOWS);
    let mut large = push_segments(&mut requests, "b@x", "large", 3);
    send_all(&mut requests, 0);
    assert_eq!(answer_segment(&mut requests, 1, Outcome::Failed("UNKNOWN_TARGET".into())), [0]);
    assert_eq!(large.try_recv().unwrap().unwrap(), Outcome::Failed("UNKNOWN_TARGET".into()));
    assert!(requests.next_ready(Instant::now()).is_none() && requests.room() == 8);
}

#[test]
fn a_stored_segmented_message_is_kept_for_its_recipient_until_it_is_confirmed() {
    let mut requests = Requests::new(WINDOWS);
    for id in ["first", "second"] {
        let mut large = push_segments(&mut requests, "b@x", id, 2);
        send_all(&mut requests, 0);
        answer_segment(&mut requests, 0, Outcome::Stored);
        answer_segment(&mut requests, 1, Outcome::Delivered);
        assert_eq!(large.try_recv().unwrap().unwrap(), Outcome::Stored);
        assert_eq!((requests.calls(), requests.room()), (0, 8));
    }
    assert!(!requests.recover(&name("b@x", "first"), &[1]), "there is room for one");
    assert!(!requests.recover(&name("c@x", "second"), &[1]), "who is not the recipient has no say");
    assert!(requests.recover(&name("b@x", "second"), &[2]));
    assert_eq!(send_all(&mut requests, 4), ["second.2"]);
    assert_eq!(answer_segment(&mut requests, 4, Outcome::Delivered), [] as [u32; 0]);
    assert!(requests.confirmed(&name("b@x", "second"), later()));
    assert!(!requests.confirmed(&name("b@x", "second"), later()));
    assert_eq!(requests.kept, 0);
}

#[test]
fn what_is_kept_is_kept_for_its_time() {
    let mut requests = Requests::new(WINDOWS);
    let _large = push_segments(&mut requests, "b@x", "1", 1);
    send_all(&mut requests, 0);
    let until = Instant::now() + Duration::from_secs(5);
    requests.segment_answered(0, 0, Outcome::Stored, later(), until);
    assert_eq!(requests.next_due(Instant::now()), Some(until));
    assert_eq!(requests.expire(until), [] as [u32; 0]);
    assert!(!requests.recover(&name("b@x", "1"), &[1]));
}

#[test]
fn an_aggregate_can_be_taken_apart_where_it_stands() {
    let mut requests = Requests::new(WINDOWS);
    let (parts, mut answers): (Vec<_>, Vec<_>) = ["1", "2"]
        .iter()
        .map(|id| {
            let (waiting, answer) = waiting(id, later());
            (Part { body: id.as_bytes().to_vec(), waiting }, answer)
        })
        .unzip();
    requests.push(b"both".to_vec(), None, Purpose::Aggregate(parts));
    let _after = push(&mut requests, "after", later());
    assert_eq!((requests.calls(), requests.room()), (3, 6));
    assert_eq!(requests.next_ready(Instant::now()).unwrap().1, b"both");
    assert!(requests.split(0) && !requests.split(0) && !requests.split(9));
    assert_eq!(send_all(&mut requests, 0), ["1", "2", "after"]);
    drop(answers.remove(0));
    assert_eq!(requests.expire(Instant::now()), [0]);
    assert_eq!(requests.calls(), 2);
}

#[test]
fn each_message_of_an_aggregate_has_its_own_time() {
    let mut requests = Requests::<u32>::new(WINDOWS);
    let now = Instant::now();
    let (first, mut first_answer) = waiting("1", now);
    let (second, mut second_answer) = waiting("2", later());
    let parts = [first, second].map(|waiting| Part { body: Vec::new(), waiting });
    requests.push(b"both".to_vec(), None, Purpose::Aggregate(parts.into()));
    assert_eq!(requests.expire(now), [] as [u32; 0]);
    assert!(matches!(first_answer.try_recv().unwrap(), Err(ClientError::NoAnswer { .. })));
    assert!(second_answer.try_recv().is_err());
    requests.close();
    assert!(matches!(second_answer.try_recv().unwrap(), Err(ClientError::Closed)));
}

#[test]
fn a_message_that_failed_in_time_does_not_travel_on_with_the_rest_of_its_aggregate() {
    let mut requests = Requests::<u32>::new(WINDOWS);
    let now = Instant::now();
    let (first, mut first_answer) = waiting("1", now);
    let (second, mut second_answer) = waiting("2", now + Duration::from_secs(60));
    let (third, _third_answer) = waiting("3", later());
    let part = |waiting: Waiting| Part { body: waiting.message_id.as_str().into(), waiting };
    requests.push(b"all".to_vec(), None, Purpose::Aggregate([first, second, third].map(part).into()));
    assert_eq!(send_all(&mut requests, 1), ["all"]);
    let when = now + Duration::from_secs(30);
    requests.retry(requests.find(1).unwrap(), when, "OVERLOADED".into());
    assert_eq!(requests.expire(now), [] as [u32; 0]);
    assert_eq!(first_answer.try_recv().unwrap().unwrap(), Outcome::Failed("OVERLOADED".into()));
    assert!(requests.next_ready(now).is_none(), "the server's pause holds for each");
    assert_eq!(requests.next_ready(when).unwrap().1, b"2");
    requests.expire(now + Duration::from_secs(60));
    assert_eq!(second_answer.try_recv().unwrap().unwrap(), Outcome::Failed("OVERLOADED".into()));
    assert_eq!(requests.next_ready(when).unwrap().1, b"3");
}

#[test]
fn subscriptions_under_way_go_with_their_connection_and_do_not_add_up() {
    let mut requests = Requests::new(WINDOWS);
    let _answer = push(&mut requests, "1", later());
    for connection in 0..3 {
        for topic in ["a", "b"] {
            requests.push(topic.into(), None, Purpose::Renewal(vec![topic.parse().unwrap()]));
        }
        assert_eq!(send_all(&mut requests, 10 * connection), ["1", "a", "b"]);
        requests.disconnected();
        assert_eq!((requests.reports(), requests.calls()), (0, 1));
    }
}
