//! The `/akma` exchange (TS 33.535 Annex D, as the module documentation reads it).

use coap::oscore::{A_KID_OCTETS_MAX, AkmaRequest, NONCE_OCTETS, UA_PROTOCOL_OSCORE};
use proptest::prelude::*;

use super::*;

const K_AF: [u8; 32] = [0x33; 32];
const A_KID: &str = "0.a4763ff6@5gc.mnc001.mcc001.3gppnetwork.org";
const N1: [u8; NONCE_OCTETS] = [0x11; NONCE_OCTETS];
const N2: [u8; NONCE_OCTETS] = [0x22; NONCE_OCTETS];

fn id(octets: &[u8]) -> KeyId {
    KeyId::new(octets).unwrap()
}

fn request() -> AkmaRequest {
    AkmaRequest::new(A_KID, &N1, id(&[1])).unwrap()
}

/// The body of a request with its items in diagnostic order.
fn body(protocol: &[u8], a_kid: &str, n1: &[u8], af_sid: &[u8], input: &[u8]) -> Vec<u8> {
    let mut out = vec![if input.is_empty() { 0x84 } else { 0x85 }];
    let mut string = |major: u8, octets: &[u8]| {
        match octets.len() {
            length @ 0..=23 => out.push(major | length as u8),
            length @ 24..=255 => out.extend([major | 24, length as u8]),
            length => out.extend([major | 25, (length >> 8) as u8, length as u8]),
        }
        out.extend(octets);
    };
    string(0x40, protocol);
    string(0x60, a_kid.as_bytes());
    string(0x40, n1);
    string(0x40, af_sid);
    out.extend(input);
    out
}

#[test]
fn both_sides_make_the_same_context_and_talk() {
    let sent = request().to_message().unwrap();
    let received = AkmaRequest::from_message(&sent).unwrap();
    assert_eq!((received.a_kid(), received.af_sid()), (A_KID, &id(&[1])));
    let (answer, af) = received.accept(&K_AF, &N2, id(&[2, 2])).unwrap();
    let ue = request().complete(&K_AF, &answer).unwrap();
    assert_eq!((ue.sender_id, ue.recipient_id), (id(&[2, 2]), id(&[1])));
    assert_eq!(ue.master_salt, [sent.payload(), answer.payload()].concat());

    let mut client = SecurityContext::fresh(&ue, Durability::Volatile).unwrap();
    let mut server = SecurityContext::fresh(&af, Durability::Volatile).unwrap();
    let (protected, mut sent) = client.protect_request(&post()).unwrap();
    let (message, mut exchange) = verified(&mut server, &protected);
    assert_eq!(message, post());
    let answer = server.protect_response(&mut exchange, &super::message(Code::CHANGED, &[], b"")).unwrap();
    client.unprotect_response(&mut sent, &answer).unwrap();
}

/// Pins the coding that was decided: another one is another protocol.
#[test]
fn the_bodies_are_as_documented() {
    assert_eq!(request().payload(), body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[]));
    let sent = request().to_message().unwrap();
    assert_eq!(sent.code(), Code::POST);
    assert_eq!(sent.options().collect::<Vec<_>>(), [(URI_PATH, &b"akma"[..]), (12, &[60])]);
    let (answer, af) = request().accept(&K_AF, &N2, id(&[2])).unwrap();
    assert_eq!(answer.code(), Code::CREATED);
    assert_eq!(answer.options().collect::<Vec<_>>(), [(12, &[60][..])]);
    assert_eq!(answer.payload(), [&[0x82, 0x50][..], &N2, &[0x41, 0x02]].concat());
    // HKDF-SHA-256 of K_AF, no salt, "AKMA-OSCORE", 32 octets: Python's hmac over the steps of RFC 5869.
    assert_eq!(
        hex::encode(af.master_secret.expose()),
        "ccd77bcc68ee3df29c694950ce3bf386941d362b330f0b32da700bd737cfc3d1"
    );
}

/// The worked example of docs/reference/oscore.md, from the K_AF of the key derivation's first chain; computed with the
/// Python packages cbor2 and cryptography, by the steps of the page.
#[test]
fn the_worked_example_comes_out() {
    let k_af = hex::decode("57928ae6395cc0034792b1fbde071749542ec5c57da5e4d302ac654060923771").unwrap();
    let k_af = k_af.try_into().unwrap();
    let request = request();
    assert_eq!(
        hex::encode(request.payload()),
        "8445ff00000008782c302e6134373633666636403567632e6d6e633030312e6d63633030312e336770706e6574776f726b2e6f7267\
         50111111111111111111111111111111114101"
    );
    let (answer, af) = request.accept(&k_af, &N2, id(&[2])).unwrap();
    assert_eq!(hex::encode(answer.payload()), "8250222222222222222222222222222222224102");
    let ue = request.complete(&k_af, &answer).unwrap();
    let secret = "106c9996b8d07a9c8396c14e35cc31886cb4cb2d4fac2abb3d1773675b70ed11";
    assert_eq!(hex::encode(ue.master_secret.expose()), secret);
    assert_eq!(hex::encode(af.master_secret.expose()), secret);

    let first: [(u16, &[u8]); 2] = [(URI_PATH, b"msgin5g"), (12, &[50])];
    let first = message(Code::POST, &first, b"{}");
    let mut client = SecurityContext::fresh(&ue, Durability::Volatile).unwrap();
    let (protected, _) = client.protect_request(&first).unwrap();
    assert_eq!(hex::encode(protected.body()), "93090002fff2259d765825694634d921f557238a9d2d2f91313834");
    let mut server = SecurityContext::fresh(&af, Durability::Volatile).unwrap();
    assert_eq!(verified(&mut server, &protected).0, first);
}

#[test]
fn another_key_or_nonce_makes_another_context() {
    let sent = request();
    let (answer, af) = sent.accept(&K_AF, &N2, id(&[2])).unwrap();
    let mut other_key = K_AF;
    other_key[31] ^= 1;
    let other_n1 = AkmaRequest::new(A_KID, &[0x12; NONCE_OCTETS], id(&[1])).unwrap();
    let (other_answer, _) = sent.accept(&K_AF, &[0x23; NONCE_OCTETS], id(&[2])).unwrap();
    for ue in [
        sent.complete(&other_key, &answer).unwrap(),
        other_n1.complete(&K_AF, &answer).unwrap(),
        sent.complete(&K_AF, &other_answer).unwrap(),
    ] {
        let mut client = SecurityContext::fresh(&ue, Durability::Volatile).unwrap();
        let mut server = SecurityContext::fresh(&af, Durability::Volatile).unwrap();
        let (protected, _) = client.protect_request(&post()).unwrap();
        assert_eq!(refused(&mut server, &protected), OscoreError::DecryptionFailed);
    }
}

#[test]
fn ids_that_are_the_same_are_refused_on_both_sides() {
    let same = id(&[1]);
    assert!(matches!(request().accept(&K_AF, &N2, same), Err(OscoreError::InvalidParameter(_))));
    let answer = message(Code::CREATED, &[], &[&[0x82, 0x50][..], &N2, &[0x41, 0x01]].concat());
    assert_eq!(request().complete(&K_AF, &answer).unwrap_err(), OscoreError::AkmaNotDecoded("UE-SID is AF-SID"));
}

#[test]
fn a_request_that_is_not_as_it_should_be_is_not_decoded() {
    let good = body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[]);
    assert!(AkmaRequest::parse(&good).is_ok());
    let long = "a".repeat(A_KID_OCTETS_MAX + 1);
    for (what, bad) in [
        ("empty", vec![]),
        ("another array", [&[0x83][..], &good[1..]].concat()),
        ("an item missing", [&[0x85][..], &good[1..]].concat()),
        ("more than the array", [&good[..], &[0]].concat()),
        ("indefinite length", [&[0x9f][..], &good[1..], &[0xff]].concat()),
        ("A-KID empty", body(&UA_PROTOCOL_OSCORE, "", &N1, &[1], &[])),
        ("A-KID too long", body(&UA_PROTOCOL_OSCORE, &long, &N1, &[1], &[])),
        ("A-KID with a space", body(&UA_PROTOCOL_OSCORE, "a b", &N1, &[1], &[])),
        ("A-KID with a line end", body(&UA_PROTOCOL_OSCORE, "a\n", &N1, &[1], &[])),
        ("A-KID not ASCII", body(&UA_PROTOCOL_OSCORE, "ä", &N1, &[1], &[])),
        ("N1 too short", body(&UA_PROTOCOL_OSCORE, A_KID, &[0; 7], &[1], &[])),
        ("N1 too long", body(&UA_PROTOCOL_OSCORE, A_KID, &[0; 33], &[1], &[])),
        ("AF-SID too long", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1; 8], &[])),
        ("OSC-INP no map", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[0x80])),
        ("OSC-INP cut off", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[0xa1, 0x03])),
        ("OSC-INP twice the same", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[0xa2, 4, 10, 4, 10])),
        ("OSC-INP out of order", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[0xa2, 4, 10, 3, 0x29])),
        ("OSC-INP of billions", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[0xba, 0xff, 0xff, 0xff, 0xff])),
    ] {
        assert!(matches!(AkmaRequest::parse(&bad), Err(OscoreError::AkmaNotDecoded(_))), "{what}");
    }
    for length in 0..good.len() {
        assert!(AkmaRequest::parse(&good[..length]).is_err());
    }
}

#[test]
fn other_protocols_and_algorithms_are_not_supported() {
    for (what, bad) in [
        ("TLS 1.3", body(&[1, 0, 0, 0, 7], A_KID, &N1, &[1], &[])),
        ("AES-CCM-16-128-128", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[0xa1, 4, 0x18, 30])),
        ("HKDF SHA-512", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[0xa1, 3, 0x2a])),
        ("salt", body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[0xa1, 5, 0])),
    ] {
        let error = AkmaRequest::parse(&bad).unwrap_err();
        assert!(matches!(error, OscoreError::AkmaNotSupported(_)), "{what}: {error:?}");
        assert_eq!(error.answer().unwrap().code(), Code::BAD_REQUEST);
    }
    for input in [&[0xa0][..], &[0xa1, 3, 0x29], &[0xa1, 4, 10], &[0xa2, 3, 0x29, 4, 10]] {
        assert!(AkmaRequest::parse(&body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], input)).is_ok(), "{input:?}");
    }
}

#[test]
fn only_a_post_of_cbor_to_akma_is_a_request() {
    let payload = body(&UA_PROTOCOL_OSCORE, A_KID, &N1, &[1], &[]);
    let with = |code, options: &[(u16, &[u8])]| AkmaRequest::from_message(&message(code, options, &payload));
    assert!(with(Code::POST, &[(URI_PATH, b"akma")]).is_ok());
    assert!(with(Code::PUT, &[(URI_PATH, b"akma")]).is_err());
    assert!(with(Code::POST, &[(URI_PATH, b"Akma")]).is_err());
    assert!(with(Code::POST, &[(URI_PATH, b"akma"), (URI_PATH, b"x")]).is_err());
    assert!(with(Code::POST, &[]).is_err());
    assert!(with(Code::POST, &[(URI_PATH, b"akma"), (12, &[50])]).is_err());
}

#[test]
fn an_answer_that_is_not_as_it_should_be_is_not_decoded() {
    let good = [&[0x82, 0x50][..], &N2, &[0x41, 0x02]].concat();
    let complete = |code, payload: &[u8]| request().complete(&K_AF, &message(code, &[], payload));
    assert!(complete(Code::CREATED, &good).is_ok());
    assert!(complete(Code::CHANGED, &good).is_err());
    assert!(complete(Code::CREATED, &[&good[..], &[0]].concat()).is_err());
    assert!(complete(Code::CREATED, &[&[0x82, 0x47][..], &[0; 7], &[0x41, 0x02]].concat()).is_err(), "N2 too short");
    assert!(complete(Code::CREATED, &[&[0x82, 0x50][..], &N2, &[0x48], &[2; 8]].concat()).is_err(), "UE-SID too long");
    for length in 0..good.len() {
        assert!(complete(Code::CREATED, &good[..length]).is_err());
    }
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = AkmaRequest::parse(&octets) {
            prop_assert_eq!(request.payload(), &octets[..]);
        }
        let _ = request().complete(&K_AF, &message(Code::CREATED, &[], &octets));
    }
}
