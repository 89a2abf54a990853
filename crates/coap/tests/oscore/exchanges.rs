//! What is protected comes out as it went in, and nothing of it can be seen meanwhile.

use coap::oscore::{IdContext, KeyId, ReplayStart};
use coap::{Request, Response};
use proptest::prelude::*;

use super::*;

/// The options that OSCORE treats in a way of its own have tests of their own.
fn options() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let number = any::<u16>().prop_filter("treated apart", |number| !matches!(number, 6 | 9 | 35 | 39));
    // Numbers that exist are met more often.
    let number = prop_oneof![number, Just(URI_HOST), Just(7), Just(URI_PATH), Just(12), Just(23), Just(27), Just(60)];
    prop::collection::vec((number, prop::collection::vec(any::<u8>(), 0..60)), 0..30)
}

fn any_message(codes: impl Strategy<Value = u8>) -> impl Strategy<Value = Message> {
    let payload = prop_oneof![3 => 0_usize..80, 1 => 0_usize..5_000];
    (codes, options(), payload, any::<u8>()).prop_map(|(code, options, payload, octet)| {
        let options: Vec<_> = options.iter().map(|(number, value)| (*number, &value[..])).collect();
        message(Code::from_octet(code), &options, &vec![octet; payload])
    })
}

fn any_parameters() -> impl Strategy<Value = ContextParameters> {
    let id = || prop::collection::vec(any::<u8>(), 0..8);
    let secret = prop::collection::vec(any::<u8>(), 1..=64);
    let salt = prop::collection::vec(any::<u8>(), 0..40);
    let id_context = prop::option::of(prop::collection::vec(any::<u8>(), 0..=64));
    (secret, salt, id(), id(), id_context)
        .prop_filter("the IDs differ", |(_, _, sender, recipient, _)| sender != recipient)
        .prop_map(|(secret, salt, sender, recipient, id_context)| ContextParameters {
            master_secret: MasterSecret::new(&secret).unwrap(),
            master_salt: salt,
            sender_id: KeyId::new(&sender).unwrap(),
            recipient_id: KeyId::new(&recipient).unwrap(),
            id_context: id_context.map(|octets| IdContext::new(&octets).unwrap()),
        })
}

proptest! {
    #[test]
    fn any_request_and_any_response_come_out_as_they_went_in(
        parameters in any_parameters(),
        sequence in 0..coap::oscore::SEQUENCE_NUMBER_MAX,
        request in any_message(0x01_u8..0x20),
        response in any_message(prop_oneof![0x40_u8..0x60, 0x80_u8..0xc0]),
        own in any::<bool>(),
    ) {
        let at = |parameters: &ContextParameters| {
            SecurityContext::restored(parameters, Durability::Volatile, sequence, ReplayStart::Nothing).unwrap()
        };
        let (mut client, mut server) = (at(&parameters), at(&parameters.reversed()));
        let (protected, mut sent) = client.protect_request(&request).unwrap();
        prop_assert_eq!(protected.code(), Code::POST);
        let (received, mut exchange) = verified(&mut server, &protected);
        prop_assert_eq!(&received, &request);
        if own {
            exchange.require_partial_iv();
        }
        let protected = server.protect_response(&mut exchange, &response).unwrap();
        prop_assert_eq!(protected.code(), Code::CHANGED);
        prop_assert_eq!(&client.unprotect_response(&mut sent, &protected).unwrap(), &response);
        prop_assert!(!sent.is_open());
    }

    #[test]
    fn contexts_that_differ_in_anything_do_not_understand_each_other(one in any_parameters(), other in any_parameters()) {
        let same = one.master_secret.expose() == other.master_secret.expose()
            && one.master_salt == other.master_salt
            && one.sender_id == other.sender_id
            && one.recipient_id == other.recipient_id
            && one.id_context == other.id_context;
        prop_assume!(!same);
        let (mut client, _) = pair_of(&one);
        let (_, mut server) = pair_of(&other);
        let (protected, _) = client.protect_request(&post()).unwrap();
        let error = refused(&mut server, &protected);
        prop_assert!(matches!(error, OscoreError::ContextNotFound | OscoreError::DecryptionFailed), "{:?}", error);
    }
}

#[test]
fn each_part_of_a_context_enters_its_keys() {
    let mut others = vec![parameters(); 4];
    others[0].master_secret = MasterSecret::new(&[0x5b; 32]).unwrap();
    others[1].master_salt = b"Salt".to_vec();
    // Not the ID that the request names, so that nothing but the key can tell.
    others[2].recipient_id = KeyId::new(&[0x04]).unwrap();
    others[3].id_context = Some(IdContext::new(&[]).unwrap());
    for (at, other) in others.iter().enumerate() {
        let (mut client, _) = pair();
        let (_, mut server) = pair_of(other);
        let (protected, mut sent) = client.protect_request(&post()).unwrap();
        if at == 2 {
            // The client's key is the same; the server's is not.
            let (_, mut exchange) = verified(&mut server, &protected);
            let response = server.protect_response(&mut exchange, &message(Code::CHANGED, &[], b"x")).unwrap();
            assert_eq!(client.unprotect_response(&mut sent, &response), Err(OscoreError::DecryptionFailed));
        } else {
            assert_eq!(refused(&mut server, &protected), OscoreError::DecryptionFailed, "{at}");
        }
    }
}

#[test]
fn only_host_and_port_stay_outside() {
    let (mut client, mut server) = pair();
    let request = message(
        Code::GET,
        &[
            (1, b"e"),
            (3, b"host"),
            (4, b"e"),
            (7, &[22]),
            (11, b"secret"),
            (15, b"q"),
            (17, &[50]),
            (23, &[6]),
            (60, &[9]),
        ],
        b"",
    );
    let (protected, mut sent) = client.protect_request(&request).unwrap();
    assert_eq!(numbers(&protected), [3, 7, OSCORE]);
    assert!(!protected.body().windows(6).any(|window| window == b"secret"));
    let (received, mut exchange) = verified(&mut server, &protected);
    assert_eq!(received, request);
    let response = message(Code::CREATED, &[(4, b"e"), (8, b"there"), (12, &[50]), (MAX_AGE, &[9]), (20, b"q")], b"x");
    let protected = server.protect_response(&mut exchange, &response).unwrap();
    assert_eq!(numbers(&protected), [OSCORE]);
    assert_eq!(client.unprotect_response(&mut sent, &protected), Ok(response));
}

#[test]
fn what_lies_outside_and_should_not_is_dropped() {
    let (mut client, mut server) = pair();
    let (protected, mut sent) = client.protect_request(&post()).unwrap();
    let mut options: Vec<_> = protected.options().collect();
    // If-Match, Uri-Path, Max-Age, outer Block1 of what was put together, Size1, an unknown critical option.
    let more: [(u16, &[u8]); 6] = [(1, b"x"), (11, b"other"), (14, &[1]), (27, &[8]), (60, &[99]), (2_049, b"x")];
    options.extend(more);
    let (received, mut exchange) = verified(&mut server, &message(Code::PUT, &options, protected.payload()));
    assert_eq!(received, post());
    let response = message(Code::CHANGED, &[], b"taken");
    let protected = server.protect_response(&mut exchange, &response).unwrap();
    let options: [(u16, &[u8]); 3] = [(OSCORE, b""), (MAX_AGE, &[0]), (23, &[8])];
    let changed = message(Code::new(5, 0), &options, protected.payload());
    assert_eq!(client.unprotect_response(&mut sent, &changed), Ok(response));
}

#[test]
fn inner_blocks_are_options_like_any_other() {
    let (mut client, mut server) = pair();
    let request = message(Code::POST, &[(URI_PATH, b"x"), (27, &[0x1e]), (292, b"tag")], &[7; 1_024]);
    let (protected, mut sent) = client.protect_request(&request).unwrap();
    assert_eq!(numbers(&protected), [OSCORE]);
    let (received, mut exchange) = verified(&mut server, &protected);
    assert_eq!(received, request);
    let response = message(Code::new(2, 31), &[(27, &[0x1e])], b"");
    let protected = server.protect_response(&mut exchange, &response).unwrap();
    assert_eq!(numbers(&protected), [OSCORE]);
    assert_eq!(client.unprotect_response(&mut sent, &protected), Ok(response));
}

#[test]
fn requests_go_both_ways_in_one_context() {
    let (mut ue, mut af) = pair();
    for round in 0..3_u8 {
        let (protected, mut sent) = ue.protect_request(&post()).unwrap();
        let (_, mut exchange) = verified(&mut af, &protected);
        let (down, mut down_sent) = af.protect_request(&message(Code::POST, &[], &[round; 3])).unwrap();
        let (received, mut down_exchange) = verified(&mut ue, &down);
        assert_eq!(received.payload(), [round; 3]);
        let answer = ue.protect_response(&mut down_exchange, &message(Code::CHANGED, &[], b"")).unwrap();
        af.unprotect_response(&mut down_sent, &answer).unwrap();
        let answer = af.protect_response(&mut exchange, &message(Code::CHANGED, &[], b"up")).unwrap();
        assert_eq!(ue.unprotect_response(&mut sent, &answer).unwrap().payload(), b"up");
    }
}

#[test]
fn requests_and_responses_of_the_crate_become_messages() {
    let query = ["a=1"];
    let request = Request::post("su-uc/v1").query(&query).content_format(50).payload(&b"{}"[..]);
    let expected: [(u16, &[u8]); 4] = [(11, b"su-uc"), (11, b"v1"), (12, &[50]), (15, b"a=1")];
    assert_eq!(Message::request(&request).unwrap(), message(Code::POST, &expected, b"{}"));
    let response = Response::new(Code::CONTENT).with_content_format(50).with_max_age(300).with_payload(*b"[]");
    let expected: [(u16, &[u8]); 2] = [(12, &[50]), (14, &[1, 44])];
    assert_eq!(Message::response(&response).unwrap(), message(Code::CONTENT, &expected, b"[]"));
}

#[test]
fn a_response_belongs_to_its_request_only() {
    let (mut client, mut server) = pair();
    let (first, mut first_sent) = client.protect_request(&post()).unwrap();
    let (second, mut second_sent) = client.protect_request(&post()).unwrap();
    let (_, mut exchange) = verified(&mut server, &second);
    let answer = server.protect_response(&mut exchange, &message(Code::CHANGED, &[], b"two")).unwrap();
    assert_eq!(client.unprotect_response(&mut first_sent, &answer), Err(OscoreError::DecryptionFailed));
    assert!(first_sent.is_open(), "it still waits for its own");
    assert_eq!(client.unprotect_response(&mut second_sent, &answer).unwrap().payload(), b"two");
    assert_eq!(client.unprotect_response(&mut second_sent, &answer), Err(OscoreError::AlreadyAnswered));
    let (_, mut exchange) = verified(&mut server, &first);
    let response = message(Code::CHANGED, &[], b"one");
    let answer = server.protect_response(&mut exchange, &response).unwrap();
    assert_eq!(server.protect_response(&mut exchange, &response), Err(OscoreError::AlreadyAnswered));
    assert_eq!(client.unprotect_response(&mut first_sent, &answer).unwrap().payload(), b"one");
}

#[test]
fn a_request_of_one_context_is_not_answered_in_another() {
    let (mut client, mut server) = pair();
    let mut other = parameters();
    other.master_salt = b"other".to_vec();
    let (other_client, mut other_server) = pair_of(&other);
    let (protected, mut sent) = client.protect_request(&post()).unwrap();
    let (_, mut exchange) = verified(&mut server, &protected);
    let response = message(Code::CHANGED, &[], b"");
    let refused = other_server.protect_response(&mut exchange, &response);
    assert!(matches!(refused, Err(OscoreError::InvalidParameter(_))));
    let answer = server.protect_response(&mut exchange, &response).unwrap();
    let refused = other_client.unprotect_response(&mut sent, &answer);
    assert!(matches!(refused, Err(OscoreError::InvalidParameter(_))));
    assert_eq!(client.unprotect_response(&mut sent, &answer), Ok(response));
}

#[test]
fn nothing_that_is_printed_holds_a_key_or_a_payload() {
    let (mut client, mut server) = pair();
    let (protected, sent) = client.protect_request(&message(Code::POST, &[], b"Z5a5a")).unwrap();
    let received = server.unprotect_request(&protected).unwrap();
    let printed = format!("{client:?} {server:?} {sent:?} {received:?} {protected:?} {:?}", parameters().master_secret);
    assert!(!printed.contains("90, 90") && !printed.contains("5a"), "{printed}");
}
