//! Restarts (RFC 8613 Appendix B.1): no nonce twice, no request twice.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use coap::oscore::{EchoValue, OscoreOption, ReplayStart, ReplayWindow, SEQUENCE_NUMBER_MAX};
use proptest::prelude::*;

use super::*;

fn steps(step: u32) -> Durability {
    Durability::Steps(NonZeroU32::new(step).unwrap())
}

fn restarted(window: ReplayStart, sequence: u64) -> SecurityContext {
    SecurityContext::restored(&parameters().reversed(), Durability::Volatile, sequence, window).unwrap()
}

#[test]
fn nothing_is_sent_before_its_number_is_on_disk() {
    let mut client = SecurityContext::fresh(&parameters(), steps(4)).unwrap();
    let expected = OscoreError::SequenceNotDurable { persist_at_least: 1 };
    assert_eq!(client.protect_request(&post()).unwrap_err(), expected);
    assert_eq!(client.sequence_to_persist(), Some(4));
    client.sequence_persisted(4);
    assert_eq!(client.sequence_to_persist(), None);
    for _ in 0..4 {
        client.protect_request(&post()).unwrap();
    }
    let expected = OscoreError::SequenceNotDurable { persist_at_least: 5 };
    assert_eq!(client.protect_request(&post()).unwrap_err(), expected);
    assert_eq!(client.sequence_to_persist(), Some(8));
}

#[test]
fn a_response_with_the_nonce_of_its_request_needs_no_number() {
    let (mut client, _) = pair();
    let mut server = SecurityContext::fresh(&parameters().reversed(), steps(4)).unwrap();
    let (_, mut exchange) = verified(&mut server, &client.protect_request(&post()).unwrap().0);
    server.protect_response(&mut exchange, &message(Code::CHANGED, &[], b"")).unwrap();
    let (_, mut exchange) = verified(&mut server, &client.protect_request(&post()).unwrap().0);
    exchange.require_partial_iv();
    let response = message(Code::CHANGED, &[], b"");
    let refused = server.protect_response(&mut exchange, &response);
    assert_eq!(refused, Err(OscoreError::SequenceNotDurable { persist_at_least: 1 }));
    server.sequence_persisted(1);
    server.protect_response(&mut exchange, &response).expect("the exchange is as it was");
}

#[test]
fn sequence_numbers_end() {
    let mut client =
        SecurityContext::restored(&parameters(), Durability::Volatile, SEQUENCE_NUMBER_MAX, ReplayStart::Nothing)
            .unwrap();
    let (_, mut server) = pair();
    verified(&mut server, &client.protect_request(&post()).unwrap().0);
    assert_eq!(client.protect_request(&post()).unwrap_err(), OscoreError::SequenceExhausted);
}

#[test]
fn a_server_that_lost_its_window_asks_for_proof_once() {
    let (mut client, mut server) = pair();
    let (old, _) = client.protect_request(&post()).unwrap();
    verified(&mut server, &old);
    let mut server = restarted(ReplayStart::Unknown(EchoValue::new([7; 8])), 10);

    // What was taken before the restart is not taken again, nor answered with a nonce that was used.
    let Verified::Unproven { answer } = server.unprotect_request(&old).unwrap() else { panic!("taken again") };
    let option = OscoreOption::of(&answer).unwrap().unwrap();
    assert_eq!(option.partial_iv, Some(10));

    let (protected, mut sent) = client.protect_request(&post()).unwrap();
    let Verified::Unproven { answer } = server.unprotect_request(&protected).unwrap() else { panic!("not proven") };
    let challenge = client.unprotect_response(&mut sent, &answer).unwrap();
    assert_eq!((challenge.code(), challenge.option(ECHO)), (Code::UNAUTHORIZED, Some(&[7; 8][..])));
    let repeated = post().repeated_for(&challenge).unwrap();
    let (proven, mut sent) = client.protect_request(&repeated).unwrap();
    let (received, mut exchange) = verified(&mut server, &proven);
    assert_eq!(received, repeated);
    let answer = server.protect_response(&mut exchange, &message(Code::CHANGED, &[], b"")).unwrap();
    client.unprotect_response(&mut sent, &answer).unwrap();

    for replayed in [&old, &protected, &proven] {
        assert_eq!(refused(&mut server, replayed), OscoreError::Replay);
    }
    verified(&mut server, &client.protect_request(&post()).unwrap().0);
}

#[test]
fn another_echo_value_proves_nothing() {
    let (mut client, _) = pair();
    let mut server = restarted(ReplayStart::Unknown(EchoValue::new([7; 8])), 0);
    for echo in [&[7; 7][..], &[8; 8], &[7; 9]] {
        let request = message(Code::POST, &[(ECHO, echo)], b"");
        let (protected, _) = client.protect_request(&request).unwrap();
        assert!(matches!(server.unprotect_request(&protected), Ok(Verified::Unproven { .. })), "{echo:?}");
    }
    // Outside it is nobody's.
    let (protected, _) = client.protect_request(&post()).unwrap();
    let outer: [(u16, &[u8]); 2] = [(OSCORE, protected.option(OSCORE).unwrap()), (ECHO, &[7; 8])];
    let forged = message(Code::POST, &outer, protected.payload());
    assert!(matches!(server.unprotect_request(&forged), Ok(Verified::Unproven { .. })));
    assert_eq!(server.replay_window(), None);
}

#[test]
fn a_request_is_repeated_only_for_a_401_with_echo() {
    let echo: [(u16, &[u8]); 1] = [(ECHO, b"12345678")];
    assert!(post().repeated_for(&message(Code::UNAUTHORIZED, &echo, b"")).is_some());
    assert_eq!(post().repeated_for(&message(Code::UNAUTHORIZED, &[], b"")), None);
    assert_eq!(post().repeated_for(&message(Code::CHANGED, &echo, b"")), None);
    assert_eq!(post().repeated_for(&message(Code::UNAUTHORIZED, &[(ECHO, b"")], b"")), None);
    assert_eq!(post().repeated_for(&message(Code::UNAUTHORIZED, &[(ECHO, &[0; 41])], b"")), None);
}

#[test]
fn a_window_that_was_kept_goes_on() {
    let (mut client, mut server) = pair();
    let sent: Vec<_> = (0..5).map(|_| client.protect_request(&post()).unwrap().0).collect();
    for at in [0, 3] {
        verified(&mut server, &sent[at]);
    }
    let octets = server.replay_window().unwrap().to_octets();
    let window = ReplayWindow::from_octets(&octets).unwrap();
    let mut server = restarted(ReplayStart::Known(window), 0);
    for at in [0, 3] {
        assert_eq!(refused(&mut server, &sent[at]), OscoreError::Replay);
    }
    for at in [1, 2, 4] {
        verified(&mut server, &sent[at]);
    }
}

proptest! {
    /// Two sides, each restarted at any moment, with a network that repeats what it likes.
    #[test]
    fn no_request_is_taken_twice_and_no_partial_iv_is_sent_twice(events in prop::collection::vec((0_u8..6, any::<u16>()), 1..120)) {
        let (mut disk, mut boots) = (0_u64, 0_u8);
        let mut client = SecurityContext::fresh(&parameters(), steps(3)).unwrap();
        let mut server = restarted(ReplayStart::Nothing, 0);
        // The server's own numbers are kept by a disk that is always written.
        let mut server_next = 0;
        let (mut wire, mut used, mut taken) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut request = message(Code::POST, &[], b"x");
        for (event, choice) in events {
            match event {
                0 | 1 => if let Ok((protected, _)) = client.protect_request(&request) {
                    let option = protected.option(OSCORE).unwrap().to_vec();
                    prop_assert!(used.insert(option), "a Partial IV was used twice");
                    wire.push(protected);
                },
                2 => if let Some(limit) = client.sequence_to_persist() {
                    disk = limit;
                    client.sequence_persisted(limit);
                },
                3 => client = SecurityContext::restored(&parameters(), steps(3), disk, ReplayStart::Nothing).unwrap(),
                4 => {
                    boots += 1;
                    let echo = EchoValue::new([boots; 8]);
                    server = restarted(ReplayStart::Unknown(echo), server_next);
                    // A client that has heard the challenge.
                    request = message(Code::POST, &[(ECHO, &[boots; 8])], b"x");
                }
                _ => if !wire.is_empty() {
                    let at = usize::from(choice) % wire.len();
                    if let Ok(Verified::Request { .. }) = server.unprotect_request(&wire[at]) {
                        prop_assert!(taken.insert(at), "a request was taken twice");
                    }
                    server_next = server.next_sequence_number();
                }
            }
        }
    }
}
