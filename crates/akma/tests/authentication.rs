//! The home network and the USIM against each other: what each accepts, refuses, and how they find together again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use akma::eap_aka_prime::{
    Attribute, Challenge, EAP_OCTETS_MAX, EapPacket, KDF_CK_PRIME, Message, Peer, PeerOutcome, PeerRefusal,
    RejectionCause, Server, ServerOutcome, Subtype, verify_mac,
};
use akma::{
    Amf, AuthenticationVector, Error, HomeNetwork, KAut, Sqn, SqnLimits, SqnRefusal, SqnWindow, Supi, Tuak,
    TuakTagLength, Usim, UsimCredentials, UsimFailure,
};

const RAND: [u8; 16] = [0x23; 16];

fn credentials() -> Vec<UsimCredentials> {
    vec![
        UsimCredentials::milenage_opc(&[1; 16], &[2; 16]),
        UsimCredentials::milenage_op(&[1; 16], &[3; 16]),
        UsimCredentials::tuak_topc(&[1; 16], &[2; 32]).unwrap(),
        UsimCredentials::tuak_top(&[1; 32], &[2; 32]).unwrap(),
        UsimCredentials::tuak(Tuak::from_top(&[1; 32], &[2; 32], 2).unwrap(), TuakTagLength::Bits128).unwrap(),
        UsimCredentials::tuak(Tuak::from_top(&[1; 32], &[2; 32], 1).unwrap(), TuakTagLength::Bits32).unwrap(),
    ]
}

fn sqn(value: u64) -> Sqn {
    Sqn::new(value).unwrap()
}

fn seq_ind(seq: u64, ind: u64) -> Sqn {
    sqn((seq << 5) | ind)
}

#[test]
fn credentials_that_no_algorithm_has_are_refused() {
    for octets in [0, 15, 17, 31, 33] {
        assert!(UsimCredentials::tuak_topc(&vec![1; octets], &[2; 32]).is_err());
    }
    assert!(Tuak::from_topc(&[1; 16], &[2; 32], 0).is_err());
    let tuak = Tuak::from_topc(&[1; 16], &[2; 32], 1).unwrap();
    assert!(tuak.f1(&RAND, Sqn::ZERO, Amf::FIVE_G, TuakTagLength::Bits32).is_err());
    assert!(UsimCredentials::tuak(tuak, TuakTagLength::Bits256).is_err());
}

#[test]
fn both_sides_of_a_subscription_get_the_same_keys() {
    let network = HomeNetwork::new("001", "01").unwrap().serving_network_name();
    for credentials in credentials() {
        let vector = credentials.vector(&RAND, Sqn::ZERO.next().unwrap(), Amf::FIVE_G);
        let mut usim = Usim::new(credentials, Sqn::ZERO);
        let response = usim.authenticate(&vector.rand, &vector.autn).unwrap();
        assert_eq!(response.res, vector.xres);
        assert_eq!(response.res_star(&network), vector.xres_star(&network));
        assert_eq!(response.k_ausf(&network), vector.k_ausf(&network));
        assert_eq!(usim.sqn_ms(), Sqn::ZERO.next().unwrap());
    }
}

#[test]
fn a_challenge_made_without_k_is_refused_whichever_octet_is_wrong() {
    for credentials in credentials() {
        let vector = credentials.vector(&RAND, sqn(32), Amf::FIVE_G);
        for octet in 0..16 {
            let mut autn = vector.autn;
            autn[octet] ^= 1;
            let mut usim = Usim::new(credentials.clone(), Sqn::ZERO);
            assert_eq!(usim.authenticate(&vector.rand, &autn), Err(UsimFailure::Mac));
            assert_eq!(usim.sqn_ms(), Sqn::ZERO);
        }
    }
}

#[test]
fn a_vector_without_the_separation_bit_is_refused_and_uses_no_number() {
    for credentials in credentials() {
        let vector = credentials.vector(&RAND, sqn(32), Amf::from_bytes([0x7f, 0xff]));
        let mut usim = Usim::new(credentials, Sqn::ZERO);
        assert_eq!(usim.authenticate(&vector.rand, &vector.autn), Err(UsimFailure::SeparationBit));
        assert_eq!(usim.sqn_ms(), Sqn::ZERO);
    }
}

#[test]
fn a_replayed_vector_yields_an_auts_from_which_the_home_network_goes_on() {
    for credentials in credentials() {
        let mut usim = Usim::new(credentials.clone(), seq_ind(1000, 7));
        // The home network lost its counter.
        let mut home = seq_ind(3, 1);
        let vector = credentials.vector(&RAND, home.next().unwrap(), Amf::FIVE_G);
        let Err(UsimFailure::Synchronisation { auts }) = usim.authenticate(&vector.rand, &vector.autn) else {
            panic!("accepted a stale vector");
        };
        home = credentials.verify_auts(&vector.rand, &auts).unwrap();
        assert_eq!(home, seq_ind(1000, 7));
        let vector = credentials.vector(&[9; 16], home.next().unwrap(), Amf::FIVE_G);
        assert!(usim.authenticate(&vector.rand, &vector.autn).is_ok());
        assert!(matches!(usim.authenticate(&vector.rand, &vector.autn), Err(UsimFailure::Synchronisation { .. })));
    }
}

#[test]
fn an_auts_that_was_altered_or_made_for_another_challenge_moves_nothing() {
    for credentials in credentials() {
        let auts = credentials.auts(&RAND, sqn(77));
        for octet in 0..14 {
            let mut altered = auts;
            altered[octet] ^= 0x80;
            assert_eq!(credentials.verify_auts(&RAND, &altered), Err(Error::AutsMac));
        }
        assert_eq!(credentials.verify_auts(&[0; 16], &auts), Err(Error::AutsMac));
    }
}

#[test]
fn vectors_of_different_index_may_arrive_out_of_order_each_once() {
    let mut window = SqnWindow::default();
    window.accept(seq_ind(10, 3)).unwrap();
    window.accept(seq_ind(8, 1)).unwrap();
    assert_eq!(window.highest(), seq_ind(10, 3));
    assert_eq!(window.accept(seq_ind(8, 1)), Err(SqnRefusal::Used));
    assert_eq!(window.accept(seq_ind(9, 3)), Err(SqnRefusal::Used));
    window.accept(seq_ind(9, 1)).unwrap();
}

#[test]
fn a_jump_beyond_delta_and_a_number_as_old_as_l_are_refused() {
    let limits = SqnLimits { delta: 100, age: Some(10) };
    let mut window = SqnWindow::at(seq_ind(50, 0), limits);
    assert_eq!(window.accept(seq_ind(151, 1)), Err(SqnRefusal::TooFarAhead));
    window.accept(seq_ind(150, 1)).unwrap();
    assert_eq!(window.accept(seq_ind(140, 2)), Err(SqnRefusal::TooOld));
    window.accept(seq_ind(141, 2)).unwrap();
    let default = SqnWindow::default();
    assert_eq!(default.clone().accept(seq_ind((1 << 28) + 1, 0)), Err(SqnRefusal::TooFarAhead));
    default.clone().accept(seq_ind(1 << 28, 0)).unwrap();
}

#[test]
fn the_sequence_ends_instead_of_starting_over() {
    assert_eq!(Sqn::MAX.next(), Err(Error::SqnExhausted));
    assert_eq!(seq_ind((1 << 43) - 1, 0).next(), Err(Error::SqnExhausted));
    assert_eq!(seq_ind((1 << 43) - 2, 31).next().unwrap(), seq_ind((1 << 43) - 1, 0));
    assert_eq!(Sqn::new(1 << 48), Err(Error::InvalidSqn));
}

#[test]
fn a_kept_window_goes_on_where_it_was() {
    let mut window = SqnWindow::default();
    window.accept(seq_ind(10, 3)).unwrap();
    let kept = serde_json::to_string(&window).unwrap();
    let mut again: SqnWindow = serde_json::from_str(&kept).unwrap();
    assert_eq!(again, window);
    assert_eq!(again.accept(seq_ind(10, 3)), Err(SqnRefusal::Used));
    again.accept(seq_ind(2, 4)).unwrap();
}

// EAP-AKA'

struct Eap {
    usim: Usim,
    peer: Peer,
    server: Server,
    request: Vec<u8>,
    vector: AuthenticationVector,
    supi: Supi,
}

fn eap(sqn_home: u64, sqn_ms: u64, amf: Amf) -> Eap {
    let credentials = credentials().remove(0);
    let network = HomeNetwork::new("001", "01").unwrap().serving_network_name();
    let supi: Supi = "imsi-001010000000001".parse().unwrap();
    let vector = credentials.vector(&RAND, sqn(sqn_home), amf);
    let challenge = Challenge::new(&vector, &network);
    let (server, request) = Server::start(7, &challenge, &supi, &network).unwrap();
    let usim = Usim::new(credentials, sqn(sqn_ms));
    Eap { usim, peer: Peer::new(supi.clone(), network), server, request, vector, supi }
}

fn fresh() -> Eap {
    eap(64, 32, Amf::FIVE_G)
}

fn refused(outcome: PeerOutcome) -> (Vec<u8>, PeerRefusal) {
    match outcome {
        PeerOutcome::Refused { response, cause } => (response, cause),
        other => panic!("not refused: {other:?}"),
    }
}

fn rejected(outcome: ServerOutcome) -> RejectionCause {
    match outcome {
        ServerOutcome::Rejected { failure, cause } => {
            assert_eq!(EapPacket::decode(&failure).unwrap(), EapPacket::Failure { identifier: 7 });
            cause
        }
        other => panic!("not rejected: {other:?}"),
    }
}

/// The request with its message changed, and its AT_MAC made anew by whoever holds K_aut.
fn remade(eap: &Eap, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let EapPacket::Request { identifier, mut message } = EapPacket::decode(&eap.request).unwrap() else { panic!() };
    change(&mut message);
    let network = HomeNetwork::new("001", "01").unwrap().serving_network_name();
    let challenge = Challenge::new(&eap.vector, &network);
    let keys = akma::eap_aka_prime::Keys::for_supi(&challenge.ck_prime, &challenge.ik_prime, &eap.supi);
    let packet = EapPacket::Request { identifier, message };
    packet.encode_authenticated(&keys.k_aut).or_else(|_| packet.encode()).unwrap()
}

#[test]
fn eap_peer_and_server_agree_on_k_ausf() {
    let mut eap = fresh();
    let PeerOutcome::Answered { response, k_ausf, msk } = eap.peer.answer(&mut eap.usim, &eap.request).unwrap() else {
        panic!("the peer did not answer");
    };
    let ServerOutcome::Authenticated { success, k_ausf: at_server, msk: msk_at_server } =
        eap.server.receive(&response).unwrap()
    else {
        panic!("the server did not accept");
    };
    assert_eq!((k_ausf, msk), (at_server, msk_at_server));
    assert_eq!(EapPacket::decode(&success).unwrap(), EapPacket::Success { identifier: 7 });
    // Once only.
    assert!(matches!(eap.server.receive(&response), Err(Error::UnexpectedEap(_))));
}

#[test]
fn an_eap_request_sent_again_gets_the_same_answer_and_uses_no_number() {
    let mut eap = fresh();
    let PeerOutcome::Answered { response: first, .. } = eap.peer.answer(&mut eap.usim, &eap.request).unwrap() else {
        panic!("the peer did not answer");
    };
    let outcome = eap.peer.answer(&mut eap.usim, &eap.request).unwrap();
    assert_eq!(outcome, PeerOutcome::Repeated { response: first });
}

#[test]
fn an_eap_synchronisation_failure_carries_the_auts_to_the_home_network() {
    let mut eap = eap(64, 6400, Amf::FIVE_G);
    let (response, cause) = refused(eap.peer.answer(&mut eap.usim, &eap.request).unwrap());
    assert_eq!(cause, PeerRefusal::Synchronisation);
    let EapPacket::Response { message, .. } = EapPacket::decode(&response).unwrap() else { panic!() };
    assert_eq!(message.kdfs(), [KDF_CK_PRIME]);
    let ServerOutcome::SynchronizationFailure { auts } = eap.server.receive(&response).unwrap() else {
        panic!("no AUTS");
    };
    assert_eq!(credentials().remove(0).verify_auts(&RAND, &auts).unwrap(), sqn(6400));
}

#[test]
fn the_eap_peer_rejects_what_is_not_its_home_network() {
    let mut wrong_autn = fresh();
    let request = remade(&wrong_autn, |message| message.attributes[1] = Attribute::Autn([0; 16]));
    let (response, cause) = refused(wrong_autn.peer.answer(&mut wrong_autn.usim, &request).unwrap());
    assert_eq!(cause, PeerRefusal::Autn);
    assert_eq!(rejected(wrong_autn.server.receive(&response).unwrap()), RejectionCause::AuthenticationReject);

    let mut separation = eap(64, 32, Amf::from_bytes([0, 1]));
    let (_, cause) = refused(separation.peer.answer(&mut separation.usim, &separation.request).unwrap());
    assert_eq!(cause, PeerRefusal::SeparationBit);

    for name in ["5G:mnc002.mcc001.3gppnetwork.org", "WLAN", ""] {
        let mut elsewhere = fresh();
        let request = remade(&elsewhere, |message| message.attributes[3] = Attribute::KdfInput(name.to_owned()));
        let (_, cause) = refused(elsewhere.peer.answer(&mut elsewhere.usim, &request).unwrap());
        assert_eq!(cause, PeerRefusal::NetworkName);
        assert_eq!(elsewhere.usim.sqn_ms(), sqn(32));
    }
}

#[test]
fn an_eap_request_with_a_wrong_or_missing_mac_is_answered_with_a_client_error() {
    let mut flipped = fresh();
    let last = flipped.request.len() - 1;
    flipped.request[last] ^= 1;
    let (response, cause) = refused(flipped.peer.answer(&mut flipped.usim, &flipped.request).unwrap());
    assert_eq!(cause, PeerRefusal::Mac);
    assert_eq!(rejected(flipped.server.receive(&response).unwrap()), RejectionCause::ClientError(0));

    let mut missing = fresh();
    let request = remade(&missing, |message| message.attributes.retain(|attribute| *attribute != Attribute::Mac));
    let (_, cause) = refused(missing.peer.answer(&mut missing.usim, &request).unwrap());
    assert_eq!(cause, PeerRefusal::Mac);
}

#[test]
fn an_eap_request_that_cannot_be_read_is_answered_with_a_client_error() {
    let mut eap = fresh();
    let truncated = &eap.request[..eap.request.len() - 1];
    let (_, cause) = refused(eap.peer.answer(&mut eap.usim, truncated).unwrap());
    assert_eq!(cause, PeerRefusal::NotProcessed);
    let identity =
        EapPacket::Request { identifier: 1, message: Message { subtype: Subtype::Identity, attributes: Vec::new() } };
    let (_, cause) = refused(eap.peer.answer(&mut eap.usim, &identity.encode().unwrap()).unwrap());
    assert_eq!(cause, PeerRefusal::NotProcessed);
    let no_rand = remade(&eap, |message| drop(message.attributes.remove(0)));
    let (_, cause) = refused(eap.peer.answer(&mut eap.usim, &no_rand).unwrap());
    assert_eq!(cause, PeerRefusal::NotProcessed);
    let success = EapPacket::Success { identifier: 1 }.encode().unwrap();
    assert!(matches!(eap.peer.answer(&mut eap.usim, &success), Err(Error::UnexpectedEap(_))));
    assert!(matches!(eap.peer.answer(&mut eap.usim, &[]), Err(Error::InvalidEap(_))));
    assert!(matches!(eap.peer.answer(&mut eap.usim, &[1; EAP_OCTETS_MAX + 1]), Err(Error::InvalidEap(_))));
}

#[test]
fn the_eap_peer_chooses_the_key_derivation_it_knows_and_notices_a_list_altered_meanwhile() {
    let offer = |kdfs: &'static [u16]| {
        move |message: &mut Message| {
            message.attributes.retain(|attribute| !matches!(attribute, Attribute::Kdf(_)));
            message.attributes.extend(kdfs.iter().map(|kdf| Attribute::Kdf(*kdf)));
        }
    };
    for (second, accepted) in [(&[1, 2, 1][..], true), (&[1][..], false), (&[1, 2][..], false), (&[2, 1][..], false)] {
        let mut eap = fresh();
        let request = remade(&eap, offer(&[2, 1]));
        let PeerOutcome::KdfChosen { response } = eap.peer.answer(&mut eap.usim, &request).unwrap() else { panic!() };
        let EapPacket::Response { message, .. } = EapPacket::decode(&response).unwrap() else { panic!() };
        assert_eq!(message.attributes, [Attribute::Kdf(1)]);
        // A server that offers one function only does not go along.
        assert_eq!(rejected(eap.server.receive(&response).unwrap()), RejectionCause::Kdf);
        let mut request = remade(&eap, offer(second));
        if second == [2, 1] {
            // The same list again, in another request.
            request = remade(&eap, |message| {
                offer(&[2, 1])(message);
                message.attributes.push(Attribute::Checkcode(Vec::new()));
            });
        }
        let outcome = eap.peer.answer(&mut eap.usim, &request).unwrap();
        assert_eq!(matches!(outcome, PeerOutcome::Answered { .. }), accepted, "{second:?}: {outcome:?}");
    }
    for kdfs in [&[][..], &[2], &[1, 1]] {
        let mut eap = fresh();
        let request = remade(&eap, |message| {
            message.attributes.retain(|attribute| !matches!(attribute, Attribute::Kdf(_)));
            message.attributes.extend(kdfs.iter().map(|kdf| Attribute::Kdf(*kdf)));
        });
        let (_, cause) = refused(eap.peer.answer(&mut eap.usim, &request).unwrap());
        assert_eq!(cause, PeerRefusal::Kdf);
    }
}

#[test]
fn the_eap_server_rejects_a_wrong_res_and_a_wrong_mac_and_gives_no_second_try() {
    let answer = |eap: &mut Eap| match eap.peer.answer(&mut eap.usim, &eap.request).unwrap() {
        PeerOutcome::Answered { response, .. } => response,
        other => panic!("{other:?}"),
    };
    let mut wrong_mac = fresh();
    let good = answer(&mut wrong_mac);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(rejected(wrong_mac.server.receive(&bad).unwrap()), RejectionCause::Mac);
    assert!(matches!(wrong_mac.server.receive(&good), Err(Error::UnexpectedEap(_))));

    let mut no_res = fresh();
    let message = Message { subtype: Subtype::Challenge, attributes: vec![Attribute::Mac] };
    let response = EapPacket::Response { identifier: 7, message }.encode().unwrap();
    assert_eq!(rejected(no_res.server.receive(&response).unwrap()), RejectionCause::Res);
    let mut wrong_res = fresh();
    let attributes = vec![Attribute::Res(akma::Res::from_slice(&[0; 8]).unwrap()), Attribute::Mac];
    let message = Message { subtype: Subtype::Challenge, attributes };
    let network = HomeNetwork::new("001", "01").unwrap().serving_network_name();
    let challenge = Challenge::new(&wrong_res.vector, &network);
    let keys = akma::eap_aka_prime::Keys::for_supi(&challenge.ck_prime, &challenge.ik_prime, &wrong_res.supi);
    let response = EapPacket::Response { identifier: 7, message }.encode_authenticated(&keys.k_aut).unwrap();
    assert_eq!(rejected(wrong_res.server.receive(&response).unwrap()), RejectionCause::Res);
}

#[test]
fn the_eap_server_still_waits_after_a_packet_that_answers_nothing() {
    let mut eap = fresh();
    let PeerOutcome::Answered { response, .. } = eap.peer.answer(&mut eap.usim, &eap.request).unwrap() else {
        panic!("the peer did not answer");
    };
    let mut other_identifier = response.clone();
    other_identifier[1] ^= 1;
    assert!(matches!(eap.server.receive(&other_identifier), Err(Error::UnexpectedEap(_))));
    assert!(matches!(eap.server.receive(&eap.request), Err(Error::UnexpectedEap(_))));
    assert!(matches!(eap.server.receive(&response[..20]), Err(Error::InvalidEap(_))));
    for subtype in [Subtype::Identity, Subtype::SynchronizationFailure, Subtype::ClientError] {
        let message = Message { subtype, attributes: Vec::new() };
        let packet = EapPacket::Response { identifier: 7, message }.encode().unwrap();
        assert!(eap.server.receive(&packet).is_err());
    }
    assert!(matches!(eap.server.receive(&response), Ok(ServerOutcome::Authenticated { .. })));
}

#[test]
fn a_mac_covers_every_octet_of_an_eap_packet() {
    let eap = fresh();
    let network = HomeNetwork::new("001", "01").unwrap().serving_network_name();
    let challenge = Challenge::new(&eap.vector, &network);
    let keys = akma::eap_aka_prime::Keys::for_supi(&challenge.ck_prime, &challenge.ik_prime, &eap.supi);
    assert_eq!(verify_mac(&eap.request, &keys.k_aut), Ok(()));
    assert_eq!(verify_mac(&eap.request, &KAut::from_bytes([0; 32])), Err(Error::EapMac));
    for octet in 0..eap.request.len() {
        let mut altered = eap.request.clone();
        altered[octet] ^= 1;
        assert!(verify_mac(&altered, &keys.k_aut).is_err(), "octet {octet}");
    }
}
