//! Each limit, and what is said when it is reached.

use coap::oscore::{
    AKMA_BODY_OCTETS_MAX, AkmaRequest, ID_CONTEXT_OCTETS_MAX, IdContext, KEY_ID_OCTETS_MAX, MASTER_SALT_OCTETS_MAX,
    MASTER_SECRET_OCTETS_MAX, MESSAGE_OCTETS_MAX, OPTION_VALUE_OCTETS_MAX, OPTIONS_MAX, OSCORE_OPTION_OCTETS_MAX,
    OscoreOption, PLAINTEXT_OCTETS_MAX, SEQUENCE_NUMBER_MAX,
};

use super::*;

fn is_invalid<T>(result: &Result<T, OscoreError>) -> bool {
    matches!(result, Err(OscoreError::InvalidParameter(_)))
}

#[test]
fn parameters_of_a_context_are_bounded() {
    assert!(KeyId::new(&[0; KEY_ID_OCTETS_MAX]).is_ok());
    assert!(is_invalid(&KeyId::new(&[0; KEY_ID_OCTETS_MAX + 1])));
    assert!(IdContext::new(&[0; ID_CONTEXT_OCTETS_MAX]).is_ok());
    assert!(is_invalid(&IdContext::new(&[0; ID_CONTEXT_OCTETS_MAX + 1])));
    assert!(MasterSecret::new(&[0; MASTER_SECRET_OCTETS_MAX]).is_ok());
    assert!(is_invalid(&MasterSecret::new(&[0; MASTER_SECRET_OCTETS_MAX + 1])));
    assert!(is_invalid(&MasterSecret::new(&[])));
    let mut parameters = parameters();
    parameters.master_salt = vec![0; MASTER_SALT_OCTETS_MAX];
    assert!(SecurityContext::fresh(&parameters, Durability::Volatile).is_ok());
    parameters.master_salt.push(0);
    assert!(is_invalid(&SecurityContext::fresh(&parameters, Durability::Volatile)));
}

#[test]
fn a_message_is_bounded() {
    let too_large = OscoreError::MessageTooLarge { octets: MESSAGE_OCTETS_MAX + 1, octets_max: MESSAGE_OCTETS_MAX };
    assert!(Message::new(Code::POST, &[], &vec![0; MESSAGE_OCTETS_MAX - 1]).is_ok());
    assert_eq!(Message::new(Code::POST, &[], &vec![0; MESSAGE_OCTETS_MAX]), Err(too_large));
    let options = vec![(1, &b"x"[..]); OPTIONS_MAX + 1];
    assert!(Message::new(Code::POST, &options[1..], b"").is_ok());
    assert_eq!(Message::new(Code::POST, &options, b""), Err(OscoreError::TooManyOptions));
    let value = [0; OPTION_VALUE_OCTETS_MAX + 1];
    assert!(Message::new(Code::POST, &[(1, &value[1..])], b"").is_ok());
    assert!(matches!(Message::new(Code::POST, &[(1, &value)], b""), Err(OscoreError::Malformed(_))));
    for body in [&[0xff][..], &[0xf0], &[0x0f], &[0x11], &[0xd0]] {
        assert!(matches!(Message::from_body(Code::POST, body), Err(OscoreError::Malformed(_))), "{body:?}");
    }
}

#[test]
fn the_largest_plaintext_goes_through_and_no_larger() {
    let (mut client, mut server) = pair();
    // The code and the payload marker count too.
    let largest = message(Code::POST, &[], &vec![9; PLAINTEXT_OCTETS_MAX - 2]);
    let (protected, _) = client.protect_request(&largest).unwrap();
    assert_eq!(verified(&mut server, &protected).0, largest);
    let larger = message(Code::POST, &[], &vec![9; PLAINTEXT_OCTETS_MAX - 1]);
    let octets = PLAINTEXT_OCTETS_MAX + 1;
    let expected = OscoreError::MessageTooLarge { octets, octets_max: PLAINTEXT_OCTETS_MAX };
    assert_eq!(client.protect_request(&larger).unwrap_err(), expected);
    let value = protected.option(OSCORE).unwrap();
    let longer = message(Code::POST, &[(OSCORE, value)], &vec![0; PLAINTEXT_OCTETS_MAX + 9]);
    assert_eq!(refused(&mut server, &longer), OscoreError::DecryptionFailed, "nothing is repeated by it");
    let (protected, _) = client.protect_request(&post()).unwrap();
    let longer =
        message(Code::POST, &[(OSCORE, protected.option(OSCORE).unwrap())], &vec![0; PLAINTEXT_OCTETS_MAX + 9]);
    assert_eq!(refused(&mut server, &longer), OscoreError::DecryptionFailed);
}

#[test]
fn options_inside_and_outside_are_bounded_together() {
    let (mut client, mut server) = pair();
    let full = message(Code::POST, &[(URI_PATH, &b"x"[..]); OPTIONS_MAX], b"");
    let (protected, _) = client.protect_request(&full).unwrap();
    assert_eq!(verified(&mut server, &protected).0, full);
    let (protected, _) = client.protect_request(&full).unwrap();
    let outer: [(u16, &[u8]); 2] = [(URI_HOST, b"x"), (OSCORE, protected.option(OSCORE).unwrap())];
    let error = refused(&mut server, &message(Code::POST, &outer, protected.payload()));
    assert_eq!(error, OscoreError::TooManyOptions);
    assert_eq!(error.answer().unwrap().code(), Code::BAD_REQUEST);
}

#[test]
fn the_oscore_option_is_bounded() {
    let context = [0; OSCORE_OPTION_OCTETS_MAX - 2];
    let option = OscoreOption { partial_iv: None, kid_context: Some(&context), kid: None };
    assert_eq!(OscoreOption::parse(&option.encode().unwrap()), Ok(option));
    let option = OscoreOption { kid: Some(b"x"), ..option };
    assert!(is_invalid(&option.encode()));
    let value = [&[0x18, 253][..], &[0; 254]].concat();
    assert!(matches!(OscoreOption::parse(&value), Err(OscoreError::NotDecoded(_))));
    let option = OscoreOption { partial_iv: Some(SEQUENCE_NUMBER_MAX), ..OscoreOption::default() };
    assert_eq!(option.encode().unwrap(), [5, 255, 255, 255, 255, 255]);
    let option = OscoreOption { partial_iv: Some(SEQUENCE_NUMBER_MAX + 1), ..OscoreOption::default() };
    assert!(is_invalid(&option.encode()));
}

#[test]
fn bodies_of_akma_are_bounded() {
    let error = AkmaRequest::parse(&[0; AKMA_BODY_OCTETS_MAX + 1]).unwrap_err();
    assert_eq!(error, OscoreError::AkmaNotDecoded("body too long"));
    assert_eq!(error.answer().unwrap().code(), Code::BAD_REQUEST);
}

#[test]
fn a_context_is_small() {
    assert!(size_of::<SecurityContext>() <= 192, "{}", size_of::<SecurityContext>());
    assert!(size_of::<ReceivedRequest>() <= 24, "{}", size_of::<ReceivedRequest>());
}
