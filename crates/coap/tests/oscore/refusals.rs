//! What a peer, or somebody between, cannot get through, and what it is told.

use aes::Aes128;
use ccm::aead::{Aead, Payload};
use ccm::consts::{U8, U13};
use ccm::{Ccm, KeyInit};
use coap::oscore::{OscoreOption, REPLAY_WINDOW_SIZE, ReplayStart};
use proptest::prelude::*;

use super::*;

/// Every bit of a protected message is turned around, one at a time.
fn altered(protected: &Message) -> impl Iterator<Item = Message> {
    let body = protected.body().to_vec();
    let code = protected.code();
    (0..body.len() * 8).filter_map(move |bit| {
        let mut body = body.clone();
        body[bit / 8] ^= 1 << (bit % 8);
        Message::from_body(code, body).ok()
    })
}

#[test]
fn a_changed_bit_anywhere_in_a_request_is_noticed() {
    let (mut client, mut server) = pair();
    let (protected, _) = client.protect_request(&post()).unwrap();
    let mut refusals = 0;
    for altered in altered(&protected) {
        let error = refused(&mut server, &altered);
        let expected = matches!(
            error,
            OscoreError::NotProtected { .. }
                | OscoreError::NotDecoded(_)
                | OscoreError::ContextNotFound
                | OscoreError::DecryptionFailed
        );
        assert!(expected, "{error:?}");
        refusals += 1;
    }
    assert!(refusals > 8 * protected.payload().len(), "every bit of the ciphertext was among them");
    assert_eq!(verified(&mut server, &protected).0, post(), "none of them moved the window");
}

#[test]
fn a_changed_bit_anywhere_in_a_response_is_noticed() {
    let (mut client, mut server) = pair();
    for own in [false, true] {
        let (protected, mut sent) = client.protect_request(&post()).unwrap();
        let (_, mut exchange) = verified(&mut server, &protected);
        if own {
            exchange.require_partial_iv();
        }
        let response = message(Code::CHANGED, &[(12, &[50])], b"{}");
        let protected = server.protect_response(&mut exchange, &response).unwrap();
        for altered in altered(&protected) {
            let result = client.unprotect_response(&mut sent, &altered);
            assert!(result.is_err(), "{result:?}");
        }
        assert_eq!(client.unprotect_response(&mut sent, &protected), Ok(response), "none of them ended the exchange");
    }
}

#[test]
fn a_message_that_is_cut_off_or_longer_is_noticed() {
    let (mut client, mut server) = pair();
    let (protected, _) = client.protect_request(&post()).unwrap();
    for length in 0..protected.body().len() {
        if let Ok(cut) = Message::from_body(Code::POST, &protected.body()[..length]) {
            refused(&mut server, &cut);
        }
    }
    let longer = Message::from_body(Code::POST, [protected.body(), &[0]].concat()).unwrap();
    assert_eq!(refused(&mut server, &longer), OscoreError::DecryptionFailed);
    for tiny in [&[0][..], &[0; 8]] {
        let option = protected.option(OSCORE).unwrap();
        let tiny = message(Code::POST, &[(OSCORE, option)], tiny);
        assert_eq!(refused(&mut server, &tiny), OscoreError::DecryptionFailed);
    }
    verified(&mut server, &protected);
}

#[test]
fn a_request_is_taken_once_and_in_the_window_only() {
    let (mut client, mut server) = pair();
    let sent: Vec<_> = (0..=REPLAY_WINDOW_SIZE + 1).map(|_| client.protect_request(&post()).unwrap().0).collect();
    verified(&mut server, &sent[1]);
    assert_eq!(refused(&mut server, &sent[1]), OscoreError::Replay);
    verified(&mut server, &sent[0]);
    verified(&mut server, sent.last().unwrap());
    for seen in [0, 1, sent.len() - 1] {
        assert_eq!(refused(&mut server, &sent[seen]), OscoreError::Replay, "{seen}");
    }
    for unseen in &sent[2..sent.len() - 1] {
        verified(&mut server, unseen);
    }
}

#[test]
fn a_request_that_was_not_seen_and_is_too_old_is_a_replay() {
    let (mut client, mut server) = pair();
    let (old, _) = client.protect_request(&post()).unwrap();
    for _ in 0..REPLAY_WINDOW_SIZE {
        verified(&mut server, &client.protect_request(&post()).unwrap().0);
    }
    assert_eq!(refused(&mut server, &old), OscoreError::Replay);
}

#[test]
fn a_forged_request_far_ahead_does_not_move_the_window() {
    let (mut client, mut server) = pair();
    let (protected, _) = client.protect_request(&post()).unwrap();
    let forged = with_oscore(&protected, &[0x0d, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    assert_eq!(refused(&mut server, &forged), OscoreError::DecryptionFailed);
    verified(&mut server, &protected);
}

#[test]
fn an_option_that_is_not_as_it_should_be_is_not_decoded() {
    for (hex, what) in [
        ("00", "flags of zero written out"),
        ("29", "reserved bit 5"),
        ("4914", "reserved bit 6"),
        ("8914", "reserved bit 7"),
        ("0e000000000001", "Partial IV of six octets"),
        ("0f00000000000001", "Partial IV of seven octets"),
        ("0a14", "Partial IV cut off"),
        ("09", "Partial IV missing"),
        ("0a0014", "Partial IV with a zero in front"),
        ("0a0000", "zero in two octets"),
        ("1914", "length of the kid context missing"),
        ("191402aa", "kid context cut off"),
        ("011405", "more than the flags say"),
        ("111401aabb", "more than the flags say, with a kid context"),
    ] {
        let value = hex::decode(hex).unwrap();
        assert!(matches!(OscoreOption::parse(&value), Err(OscoreError::NotDecoded(_))), "{hex}: {what}");
    }
}

/// RFC 8613 6.3, all five.
#[test]
fn options_as_in_the_examples_of_6_3_are_read_and_written() {
    let expected = [
        ("090525", Some(5), None, Some(&[0x25][..])),
        ("0900", Some(0), None, Some(&[][..])),
        ("19050544616c656b", Some(5), Some(&b"Dalek"[..]), Some(&[][..])),
        ("", None, None, None),
        ("0107", Some(7), None, None),
    ];
    for (hex, partial_iv, kid_context, kid) in expected {
        let value = hex::decode(hex).unwrap();
        let option = OscoreOption::parse(&value).unwrap();
        assert_eq!(option, OscoreOption { partial_iv, kid_context, kid }, "{hex}");
        assert_eq!(option.encode().unwrap(), value, "{hex}");
    }
}

#[test]
fn a_request_without_kid_or_partial_iv_is_not_decoded() {
    let (mut client, mut server) = pair();
    let (protected, _) = client.protect_request(&post()).unwrap();
    for value in [&[0x08, 0x01][..], &[0x01, 0x00], &[]] {
        assert!(matches!(refused(&mut server, &with_oscore(&protected, value)), OscoreError::NotDecoded(_)));
    }
    let value = protected.option(OSCORE).unwrap();
    let twice = message(Code::POST, &[(OSCORE, value), (OSCORE, value)], protected.payload());
    assert!(matches!(refused(&mut server, &twice), OscoreError::NotDecoded(_)));
    let empty = message(Code::POST, &[(OSCORE, value)], b"");
    assert!(matches!(refused(&mut server, &empty), OscoreError::NotDecoded(_)));
}

#[test]
fn a_request_for_another_context_finds_none() {
    let (mut client, mut server) = pair();
    let (protected, _) = client.protect_request(&post()).unwrap();
    for value in [&[0x09, 0x00, 0x02][..], &[0x09, 0x00], &[0x09, 0x00, 0x01, 0x00], &[0x19, 0x00, 0x01, 0xaa, 0x01]] {
        assert_eq!(refused(&mut server, &with_oscore(&protected, value)), OscoreError::ContextNotFound, "{value:?}");
    }
}

#[test]
fn a_message_without_oscore_is_told_apart() {
    let (mut client, mut server) = pair();
    assert_eq!(refused(&mut server, &post()), OscoreError::NotProtected { code: Code::POST });
    let (_, mut sent) = client.protect_request(&post()).unwrap();
    let refusal = OscoreError::ContextNotFound.answer().unwrap();
    let expected = OscoreError::NotProtected { code: Code::UNAUTHORIZED };
    assert_eq!(client.unprotect_response(&mut sent, &refusal), Err(expected));
    assert!(sent.is_open(), "nothing vouches for it");
}

/// RFC 8613 8.2, 7.4.
#[test]
fn each_refusal_has_its_answer_with_max_age_0() {
    for (error, code, diagnostic) in [
        (OscoreError::NotDecoded("x"), Code::BAD_OPTION, "Failed to decode COSE"),
        (OscoreError::ContextNotFound, Code::UNAUTHORIZED, "Security context not found"),
        (OscoreError::Replay, Code::UNAUTHORIZED, "Replay detected"),
        (OscoreError::DecryptionFailed, Code::BAD_REQUEST, "Decryption failed"),
        (OscoreError::PlaintextMalformed("x"), Code::BAD_REQUEST, "Decryption failed"),
    ] {
        let answer = error.answer().unwrap();
        assert_eq!((answer.code(), answer.payload()), (code, diagnostic.as_bytes()));
        assert_eq!(answer.options().collect::<Vec<_>>(), [(MAX_AGE, &[][..])]);
    }
    for error in [OscoreError::SequenceExhausted, OscoreError::NotProtected { code: Code::POST }, OscoreError::Nested] {
        assert_eq!(error.answer(), None);
    }
}

#[test]
fn what_must_not_be_protected_is_not_and_uses_up_no_number() {
    let (mut client, mut server) = pair();
    let (protected, _) = client.protect_request(&post()).unwrap();
    let next = client.next_sequence_number();
    for (request, expected) in [
        (protected.clone(), OscoreError::Nested),
        (message(Code::GET, &[(35, b"coap://x/")], b""), OscoreError::ProxyNotSupported),
        (message(Code::GET, &[(39, b"coap")], b""), OscoreError::ProxyNotSupported),
        (message(Code::CHANGED, &[], b""), OscoreError::InvalidCode(Code::CHANGED)),
        (message(Code::CSM, &[], b""), OscoreError::InvalidCode(Code::CSM)),
        (message(Code::EMPTY, &[], b""), OscoreError::InvalidCode(Code::EMPTY)),
    ] {
        assert_eq!(client.protect_request(&request).unwrap_err(), expected);
    }
    assert_eq!(client.next_sequence_number(), next);
    let (_, mut exchange) = verified(&mut server, &protected);
    assert_eq!(server.protect_response(&mut exchange, &post()), Err(OscoreError::InvalidCode(Code::POST)));
}

#[test]
fn ids_that_are_the_same_make_no_context() {
    let mut same = parameters();
    same.recipient_id = same.sender_id;
    let error = SecurityContext::fresh(&same, Durability::Volatile).unwrap_err();
    assert!(matches!(error, OscoreError::InvalidParameter(_)));
}

/// The keys of RFC 8613 C.1, client to server and back. A peer of ours encrypts nothing that is wrong, so what a hostile one
/// may encrypt is made here, as request number 20 or its response: with nonce and additional data of C.4.
const CLIENT_KEY: &str = "f0910ed7295e6ad4b54fc793154302ff";
const SERVER_KEY: &str = "ffb14e093c94c9cac9471648b4f98710";

fn server_of_c_1() -> ContextParameters {
    ContextParameters {
        master_secret: MasterSecret::new(&hex::decode("0102030405060708090a0b0c0d0e0f10").unwrap()).unwrap(),
        master_salt: hex::decode("9e7ca92223786340").unwrap(),
        sender_id: KeyId::new(&[1]).unwrap(),
        recipient_id: KeyId::new(&[]).unwrap(),
        id_context: None,
    }
}

fn encrypted(key: &str, plaintext: &[u8]) -> Vec<u8> {
    let key: [u8; 16] = hex::decode(key).unwrap().try_into().unwrap();
    let nonce: [u8; 13] = hex::decode("4622d4dd6d944168eefb549868").unwrap().try_into().unwrap();
    let aad = hex::decode("8368456e63727970743040488501810a40411440").unwrap();
    let cipher = Ccm::<Aes128, U8, U13>::new(&key.into());
    cipher.encrypt(&nonce.into(), Payload { msg: plaintext, aad: &aad }).unwrap()
}

/// A request with that plaintext, and the server it is for.
fn sealed(plaintext: &[u8]) -> (SecurityContext, Message) {
    let server = SecurityContext::fresh(&server_of_c_1(), Durability::Volatile).unwrap();
    (server, message(Code::POST, &[(OSCORE, &[0x09, 0x14])], &encrypted(CLIENT_KEY, plaintext)))
}

#[test]
fn a_server_cannot_notify_of_what_is_not_observed() {
    let parameters = server_of_c_1().reversed();
    let mut client = SecurityContext::restored(&parameters, Durability::Volatile, 20, ReplayStart::Nothing).unwrap();
    let (_, mut sent) = client.protect_request(&message(Code::GET, &[(URI_PATH, b"tv1")], b"")).unwrap();
    let notification = message(Code::CONTENT, &[(OSCORE, b"")], &encrypted(SERVER_KEY, b"\x45\x60\xffx"));
    assert_eq!(client.unprotect_response(&mut sent, &notification), Err(OscoreError::UnexpectedObserve));
    for nonsense in [&b""[..], b"\x01", b"\x45\xff"] {
        let nonsense = message(Code::CHANGED, &[(OSCORE, b"")], &encrypted(SERVER_KEY, nonsense));
        let error = client.unprotect_response(&mut sent, &nonsense).unwrap_err();
        assert!(matches!(error, OscoreError::PlaintextMalformed(_)));
    }
    let response = message(Code::CONTENT, &[(OSCORE, b"")], &encrypted(SERVER_KEY, b"\x45\xffx"));
    assert_eq!(client.unprotect_response(&mut sent, &response), Ok(message(Code::CONTENT, &[], b"x")));
}

#[test]
fn what_came_inside_counts_more_than_what_lies_outside() {
    let (mut server, protected) = sealed(b"\x01\x35inner");
    let outer: [(u16, &[u8]); 3] = [(URI_HOST, b"outer"), (7, &[1]), (OSCORE, protected.option(OSCORE).unwrap())];
    let protected = message(Code::POST, &outer, protected.payload());
    let expected = message(Code::GET, &[(URI_HOST, b"inner"), (7, &[1])], b"");
    assert_eq!(verified(&mut server, &protected).0, expected);
}

#[test]
fn nonsense_of_a_peer_that_has_the_keys_is_refused() {
    let (mut server, protected) = sealed(b"\x01\xb3tv1");
    assert_eq!(verified(&mut server, &protected).0, message(Code::GET, &[(URI_PATH, b"tv1")], b""));
    for (plaintext, what) in [
        (&b""[..], "empty"),
        (b"\x45", "a response"),
        (b"\x00", "an empty message"),
        (b"\xe1", "a signal"),
        (b"\x02\x11", "an option beyond the end"),
        (b"\x02\xff", "a marker without payload"),
        (b"\x02\x90", "protected twice"),
    ] {
        let (mut server, protected) = sealed(plaintext);
        let error = refused(&mut server, &protected);
        assert!(matches!(error, OscoreError::PlaintextMalformed(_)), "{what}: {error:?}");
        assert_eq!(refused(&mut server, &protected), OscoreError::Replay, "{what}: and it counts as taken");
    }
}

proptest! {
    #[test]
    fn any_plaintext_of_a_peer_that_has_the_keys_is_read_or_refused(plaintext in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut server, protected) = sealed(&plaintext);
        match server.unprotect_request(&protected) {
            Ok(Verified::Request { message, .. }) => prop_assert_eq!(message.code().octet(), plaintext[0]),
            Ok(Verified::Unproven { .. }) => prop_assert!(false, "the window is known"),
            Err(error) => prop_assert!(matches!(error, OscoreError::PlaintextMalformed(_)), "{:?}", error),
        }
    }
}
