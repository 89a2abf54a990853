//! Observe (RFC 8613 4.1.3.5, 7.4.1, 8.4.2).

use super::*;

fn registration() -> Message {
    message(Code::GET, &[(OBSERVE, &[]), (URI_PATH, b"time")], b"")
}

fn notification(order: &[u8]) -> Message {
    message(Code::CONTENT, &[(OBSERVE, order)], b"now")
}

struct Observation {
    client: SecurityContext,
    server: SecurityContext,
    sent: coap::oscore::SentRequest,
    exchange: ReceivedRequest,
}

fn observe() -> Observation {
    let (mut client, mut server) = pair();
    let (protected, sent) = client.protect_request(&registration()).unwrap();
    assert_eq!((protected.code(), numbers(&protected)), (Code::FETCH, vec![OBSERVE, OSCORE]));
    assert_eq!(protected.option(OBSERVE), Some(&[][..]));
    let (received, exchange) = verified(&mut server, &protected);
    assert_eq!(received, registration());
    Observation { client, server, sent, exchange }
}

#[test]
fn notifications_are_content_outside_and_ordered_by_their_partial_iv() {
    let mut o = observe();
    for (order, expected) in [(7_u8, &[][..]), (8, &[1]), (9, &[2])] {
        let protected = o.server.protect_response(&mut o.exchange, &notification(&[order])).unwrap();
        assert_eq!((protected.code(), protected.option(OBSERVE)), (Code::CONTENT, Some(&[order][..])));
        let received = o.client.unprotect_response(&mut o.sent, &protected).unwrap();
        assert_eq!(received, notification(expected));
        assert!(o.sent.is_open());
    }
}

#[test]
fn a_notification_that_is_older_or_comes_again_is_refused() {
    let mut o = observe();
    let all: Vec<_> =
        (0..4).map(|order| o.server.protect_response(&mut o.exchange, &notification(&[order])).unwrap()).collect();
    o.client.unprotect_response(&mut o.sent, &all[1]).unwrap();
    for old in [0, 1] {
        assert_eq!(o.client.unprotect_response(&mut o.sent, &all[old]), Err(OscoreError::Replay));
    }
    o.client.unprotect_response(&mut o.sent, &all[3]).unwrap();
    assert_eq!(o.client.unprotect_response(&mut o.sent, &all[2]), Err(OscoreError::Replay));
}

#[test]
fn somebody_between_can_neither_make_a_notification_nor_reorder_them() {
    let (mut client, mut server) = pair();
    let (protected, mut sent) = client.protect_request(&post()).unwrap();
    let (_, mut exchange) = verified(&mut server, &protected);
    // Observe is not granted to whoever did not ask, whatever the application says.
    let answer = server.protect_response(&mut exchange, &notification(&[1])).unwrap();
    assert_eq!((answer.code(), numbers(&answer)), (Code::CHANGED, vec![OSCORE]));
    let mut options: Vec<_> = answer.options().collect();
    options.push((OBSERVE, &[9]));
    let forged = message(Code::CONTENT, &options, answer.payload());
    let received = client.unprotect_response(&mut sent, &forged).unwrap();
    assert_eq!(numbers(&received), [0_u16; 0]);

    let mut o = observe();
    let first = o.server.protect_response(&mut o.exchange, &notification(&[1])).unwrap();
    let second = o.server.protect_response(&mut o.exchange, &notification(&[2])).unwrap();
    let outer: [(u16, &[u8]); 2] = [(OBSERVE, &[0xff]), (OSCORE, first.option(OSCORE).unwrap())];
    let late = message(Code::CONTENT, &outer, first.payload());
    o.client.unprotect_response(&mut o.sent, &second).unwrap();
    assert_eq!(o.client.unprotect_response(&mut o.sent, &late), Err(OscoreError::Replay));
}

#[test]
fn a_registration_whose_outer_observe_was_removed_is_one_still() {
    let (mut client, mut server) = pair();
    let (protected, _) = client.protect_request(&registration()).unwrap();
    let stripped = message(Code::FETCH, &[(OSCORE, protected.option(OSCORE).unwrap())], protected.payload());
    assert_eq!(verified(&mut server, &stripped).0, registration());
}

#[test]
fn a_response_without_observe_ends_the_observation_on_both_sides() {
    let mut o = observe();
    let first = o.server.protect_response(&mut o.exchange, &notification(&[1])).unwrap();
    o.client.unprotect_response(&mut o.sent, &first).unwrap();
    let gone = message(Code::NOT_FOUND, &[], b"");
    let last = o.server.protect_response(&mut o.exchange, &gone).unwrap();
    assert_eq!(o.server.protect_response(&mut o.exchange, &notification(&[2])), Err(OscoreError::AlreadyAnswered));
    assert_eq!((last.code(), last.option(OSCORE)), (Code::CHANGED, Some(&[0x01, 0x01][..])), "a Partial IV as well");
    assert_eq!(o.client.unprotect_response(&mut o.sent, &last), Ok(gone));
    assert!(!o.sent.is_open());
}

#[test]
fn a_registration_that_is_not_granted_has_one_answer() {
    let mut o = observe();
    let answer = o.server.protect_response(&mut o.exchange, &message(Code::CONTENT, &[], b"now")).unwrap();
    assert_eq!(answer.option(OSCORE), Some(&[][..]), "with the nonce of the request");
    o.client.unprotect_response(&mut o.sent, &answer).unwrap();
    assert!(!o.sent.is_open());
}

#[test]
fn a_cancellation_is_fetch_outside_and_is_answered_once() {
    let (mut client, mut server) = pair();
    let cancellation = message(Code::GET, &[(OBSERVE, &[1]), (URI_PATH, b"time")], b"");
    let (protected, mut sent) = client.protect_request(&cancellation).unwrap();
    assert_eq!((protected.code(), protected.option(OBSERVE)), (Code::FETCH, Some(&[1][..])));
    let (received, mut exchange) = verified(&mut server, &protected);
    assert_eq!(received, cancellation);
    let answer = server.protect_response(&mut exchange, &notification(&[3])).unwrap();
    assert_eq!(answer.code(), Code::CHANGED);
    client.unprotect_response(&mut sent, &answer).unwrap();
    assert!(!sent.is_open());
}

#[test]
fn observe_with_a_post_stays_inside() {
    let (mut client, mut server) = pair();
    let request = message(Code::POST, &[(OBSERVE, &[])], b"x");
    let (protected, _) = client.protect_request(&request).unwrap();
    assert_eq!((protected.code(), numbers(&protected)), (Code::POST, vec![OSCORE]));
    assert_eq!(verified(&mut server, &protected).0, request);
}
