//! Who is not let in, and what each is told.

use std::sync::Arc;

use akma::KAf;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use transport::handshake_sniffer::SniffError;
use transport::{
    ClientHandshakeError, HandshakeError, KeySourceError, LookupRefusal, OfferedVersions, PskClientConfig, PskConnector,
};

use crate::scene::{FQDN, HelloByHand, Home, Mood, Server, Ue, alert, assert_echo, fqdn, heard, message, record};

const DECRYPT_ERROR: u8 = 51;
const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;
const RECORD_OVERFLOW: u8 = 22;
const UNEXPECTED_MESSAGE: u8 = 10;
const PROTOCOL_VERSION: u8 = 70;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

fn only(versions: OfferedVersions) -> PskClientConfig {
    PskClientConfig { versions, ..PskClientConfig::default() }
}

async fn refused(server: &Server, ue: &Ue, versions: OfferedVersions) -> ClientHandshakeError {
    server.connect_as(ue, only(versions)).await.expect_err("the handshake succeeded")
}

#[tokio::test]
async fn a_wrong_key_is_decrypt_error_in_tls_1_3_and_bad_record_mac_in_tls_1_2() {
    let (ue, mut impostor) = (Ue::number(1), Ue::number(2));
    impostor.a_kid = ue.a_kid.clone();
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let told = refused(&server, &impostor, versions).await;
        assert!(matches!(told, ClientHandshakeError::WrongKey), "{told}");
        assert!(matches!(server.refusal().await, HandshakeError::WrongKey));
    }
    let hello = HelloByHand::tls13(&[ue.identity()]).record();
    assert_eq!(server.say(&hello).await, alert(DECRYPT_ERROR));
}

#[tokio::test]
async fn a_key_of_the_other_tls_version_is_a_wrong_key() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let connector = PskConnector::new(only(OfferedVersions::Tls12)).unwrap();
    let key_of_1_3 = |_| -> KAf { ue.key(akma::UaProtocolId::TLS_1_3) };
    let told = connector.connect(server.socket().await, &fqdn(), &ue.a_kid, key_of_1_3).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::WrongKey), "{told}");
}

#[tokio::test]
async fn an_unknown_a_kid_is_told_to_authenticate_anew() {
    let stranger = Ue::number(9);
    let mut server = Server::start(&Home::knowing(&[])).await;
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let told = refused(&server, &stranger, versions).await;
        assert!(matches!(told, ClientHandshakeError::UnknownIdentity), "{told}");
        assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Unknown)));
    }
    let hello = HelloByHand::tls13(&[stranger.identity()]).record();
    assert_eq!(server.say(&hello).await, alert(HANDSHAKE_FAILURE));
}

#[tokio::test]
async fn an_a_kid_of_an_older_authentication_is_refused_at_once() {
    let (older, newer) = (Ue::number(1), Ue::number(2));
    let home = Home::knowing(&[&older]);
    let server = Server::start(&home).await;
    assert_echo(&mut server.connect(&older).await.unwrap(), b"still good").await;
    home.forgets(&older);
    home.learns(&newer);
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let told = refused(&server, &older, versions).await;
        assert!(matches!(told, ClientHandshakeError::UnknownIdentity), "{told}");
    }
    assert_echo(&mut server.connect(&newer).await.unwrap(), b"good now").await;
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::AnswersExpired);
    let mut server = Server::start(&home).await;
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let told = refused(&server, &ue, versions).await;
        assert!(matches!(told, ClientHandshakeError::UnknownIdentity), "{told}");
        assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Expired)));
    }
}

#[tokio::test]
async fn a_key_server_that_is_down_or_talks_nonsense_is_internal_error() {
    let ue = Ue::number(1);
    for error in [KeySourceError::Unavailable("refused".into()), KeySourceError::Malformed("no kaf".into())] {
        let home = Home::knowing(&[&ue]);
        home.becomes(Mood::Fails(error));
        let mut server = Server::start(&home).await;
        for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
            let told = refused(&server, &ue, versions).await;
            assert!(matches!(told, ClientHandshakeError::Busy), "{told}");
            assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Unavailable)));
        }
        let hello = HelloByHand::tls13(&[ue.identity()]).record();
        assert_eq!(server.say(&hello).await, alert(INTERNAL_ERROR));
        home.becomes(Mood::Answers);
        assert_echo(&mut server.connect(&ue).await.unwrap(), b"well again").await;
    }
}

#[tokio::test]
async fn a_key_server_that_refuses_the_request_makes_the_a_kid_unknown() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Fails(KeySourceError::Refused("403".into())));
    let mut server = Server::start(&home).await;
    let told = refused(&server, &ue, OfferedVersions::Tls13).await;
    assert!(matches!(told, ClientHandshakeError::UnknownIdentity), "{told}");
    assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Unknown)));
}

#[tokio::test]
async fn a_slow_key_server_delays_its_own_peer_only_and_is_given_up() {
    let (slow, other) = (Ue::number(1), Ue::number(2));
    let home = Home::knowing(&[&slow, &other]);
    home.becomes(Mood::Silent);
    let mut server = Server::start_with(&home, |_| {}, |limits| limits.timeout_ms = 300).await;
    let waiting = tokio::spawn({
        let (address, slow) = (server.address, slow.clone());
        async move {
            let connector = PskConnector::new(PskClientConfig::default()).unwrap();
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            connector.connect(socket, &fqdn(), &slow.a_kid, |protocol| slow.key(protocol)).await.err()
        }
    });
    while home.asked() == 0 {
        tokio::task::yield_now().await;
    }
    home.becomes(Mood::Answers);
    assert_echo(&mut server.connect(&other).await.unwrap(), b"not held up").await;
    let results = [server.result().await, server.result().await];
    assert!(results.iter().any(Result::is_ok));
    let timed_out = |result: &Result<_, _>| matches!(result, Err(HandshakeError::Lookup(LookupRefusal::TimedOut)));
    assert!(results.iter().any(timed_out));
    assert!(matches!(waiting.await.unwrap(), Some(ClientHandshakeError::Busy)));
}

#[tokio::test]
async fn a_key_source_that_panics_is_internal_error_and_leaves_no_lookup_behind() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Panics);
    let server = Server::start(&home).await;
    let told = refused(&server, &ue, OfferedVersions::Tls13).await;
    assert!(matches!(told, ClientHandshakeError::Busy), "{told}");
    home.becomes(Mood::Answers);
    assert_echo(&mut server.connect(&ue).await.unwrap(), b"well again").await;
}

#[tokio::test]
async fn another_server_name_or_none_is_unrecognized_name() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home).await;
    let connector = PskConnector::new(PskClientConfig::default()).unwrap();
    let elsewhere = "elsewhere.lab.example".parse().unwrap();
    let told = connector.connect(server.socket().await, &elsewhere, &ue.a_kid, |p| ue.key(p)).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::ServerName), "{told}");
    assert!(matches!(server.refusal().await, HandshakeError::ServerName));
    for server_name in [None, Some("msgin5g.lab.example.org"), Some("")] {
        let hello = HelloByHand { server_name, ..HelloByHand::tls13(&[ue.identity()]) };
        assert_eq!(server.say(&hello.record()).await, alert(UNRECOGNIZED_NAME));
        assert!(matches!(server.refusal().await, HandshakeError::ServerName));
    }
    assert_eq!(home.asked(), 0, "the key server is not bothered");
}

#[tokio::test]
async fn server_names_compare_without_case_and_may_be_absent_where_configuration_says_so() {
    let ue = Ue::number(1);
    let server = Server::start_with(&Home::knowing(&[&ue]), |config| config.require_sni = false, |_| {}).await;
    // The binder is wrong, so being told that means to have got past the name.
    for server_name in [None, Some("MSGin5G.Lab.Example")] {
        let hello = HelloByHand { server_name, ..HelloByHand::tls13(&[ue.identity()]) };
        assert_eq!(server.say(&hello.record()).await, alert(DECRYPT_ERROR));
    }
    let hello = HelloByHand { server_name: Some("other.example"), ..HelloByHand::tls13(&[ue.identity()]) };
    assert_eq!(server.say(&hello.record()).await, alert(UNRECOGNIZED_NAME));
}

#[tokio::test]
async fn psk_without_ephemeral_key_exchange_is_refused_before_any_lookup() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home).await;
    for psk_modes in [vec![0], vec![]] {
        let hello = HelloByHand { psk_modes, ..HelloByHand::tls13(&[ue.identity()]) };
        assert_eq!(server.say(&hello.record()).await, alert(HANDSHAKE_FAILURE));
        assert!(matches!(server.refusal().await, HandshakeError::NoForwardSecrecy));
    }
    assert_eq!(home.asked(), 0);
}

#[tokio::test]
async fn identities_without_an_a_kid_are_refused_before_any_lookup() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home).await;
    for identities in
        [vec![], vec!["3GPP-AKMA; ".to_owned()], vec!["Client_identity".to_owned()], vec![ue.a_kid.to_string()]]
    {
        let hello = HelloByHand::tls13(&identities);
        assert_eq!(server.say(&hello.record()).await, alert(HANDSHAKE_FAILURE));
        assert!(matches!(server.refusal().await, HandshakeError::NoAKid));
    }
    assert_eq!(home.asked(), 0);
}

#[tokio::test]
async fn the_second_identity_is_tried_when_the_first_is_unknown_and_the_third_never() {
    let (known, unknown) = (Ue::number(1), Ue::number(2));
    let home = Home::knowing(&[&known]);
    let mut server = Server::start(&home).await;
    // The binders are wrong: decrypt_error says that a key was found.
    let second = HelloByHand::tls13(&[unknown.identity(), known.identity()]);
    assert_eq!(server.say(&second.record()).await, alert(DECRYPT_ERROR));
    assert!(matches!(server.refusal().await, HandshakeError::WrongKey));
    let third = HelloByHand::tls13(&[unknown.identity(), Ue::number(3).identity(), known.identity()]);
    assert_eq!(server.say(&third.record()).await, alert(HANDSHAKE_FAILURE));
    assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Unknown)));
    let foreign_first = HelloByHand::tls13(&["ticket".to_owned(), known.identity()]);
    assert_eq!(server.say(&foreign_first.record()).await, alert(DECRYPT_ERROR));
}

#[tokio::test]
async fn early_data_is_never_taken() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let hello = HelloByHand { early_data: true, ..HelloByHand::tls13(&[ue.identity()]) };
    let with_early_data = [hello.record(), vec![23, 3, 3, 0, 3, 1, 2, 3]].concat();
    assert_eq!(server.say(&with_early_data).await, alert(DECRYPT_ERROR));
}

#[tokio::test]
async fn versions_and_suites_outside_the_profile_are_refused_before_any_lookup() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home).await;
    let sha384_only = HelloByHand { suites: vec![0x1302], ..HelloByHand::tls13(&[ue.identity()]) };
    assert_eq!(server.say(&sha384_only.record()).await, alert(HANDSHAKE_FAILURE));
    assert!(matches!(server.refusal().await, HandshakeError::NothingInCommon));
    // Certificates, plain PSK (not configured here), and ECDHE_PSK with CBC.
    for suite in [0xC02F, 0xC02B, 0x009C, 0x00A8, 0xC037] {
        let tls12 = HelloByHand { versions: vec![], suites: vec![suite], ..HelloByHand::tls13(&[]) };
        assert_eq!(server.say(&tls12.record()).await, alert(HANDSHAKE_FAILURE), "{suite:04x}");
        assert!(matches!(server.refusal().await, HandshakeError::NothingInCommon));
    }
    let tls11 = HelloByHand { versions: vec![0x0302], suites: vec![0xCCAC], ..HelloByHand::tls13(&[]) };
    let told = server.say(&tls11.record()).await;
    assert_eq!((told.first(), told.last()), (Some(&21), Some(&PROTOCOL_VERSION)), "{told:?}");
    assert!(matches!(server.refusal().await, HandshakeError::NothingInCommon));
    assert_eq!(home.asked(), 0);
}

#[tokio::test]
async fn octets_that_are_no_client_hello_end_the_connection() {
    let mut server = Server::start(&Home::knowing(&[])).await;
    let whole = HelloByHand::tls13(&["3GPP-AKMA;x".to_owned()]).record();
    let mut short_inside = whole.clone();
    short_inside[43] = 0xFF;
    let cases: [(Vec<u8>, Vec<u8>, SniffError); 7] = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![], SniffError::NotTls),
        (vec![0; 1000], vec![], SniffError::NotTls),
        (vec![21, 3, 3, 0, 2, 2, 40], vec![], SniffError::NotTls),
        (vec![22, 3, 1, 0xFF, 0xFF], alert(RECORD_OVERFLOW), SniffError::RecordTooLong),
        (record(&message(2, &[0; 50])), alert(UNEXPECTED_MESSAGE), SniffError::Unexpected),
        (record(&[1, 0, 0xFF, 0xFF]), alert(DECODE_ERROR), SniffError::TooLong),
        (short_inside, alert(DECODE_ERROR), SniffError::Malformed),
    ];
    for (octets, told, expected) in cases {
        assert_eq!(server.say(&octets).await, told);
        match server.refusal().await {
            HandshakeError::Sniff(error) => assert_eq!(error, expected),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_peer_that_leaves_in_mid_handshake_is_forgotten() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home).await;
    let whole = HelloByHand::tls13(&[ue.identity()]).record();
    for part in [0, 1, 5, 100, whole.len() - 1] {
        let mut socket = server.socket().await;
        socket.write_all(&whole[..part]).await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(heard(&mut socket).await, b"");
        assert!(matches!(server.refusal().await, HandshakeError::Closed));
    }
    // While its key is looked up, too.
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(go_on.clone()));
    let mut socket = server.socket().await;
    socket.write_all(&whole).await.unwrap();
    while home.asked() == 0 {
        tokio::task::yield_now().await;
    }
    drop(socket);
    go_on.notify_one();
    assert!(server.result().await.is_err());
}

#[tokio::test]
async fn a_server_without_the_key_cannot_pass_by_certificate() {
    use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
    let made = rcgen::generate_simple_self_signed([FQDN.to_owned()]).unwrap();
    let mut context = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    let certificate = openssl::x509::X509::from_pem(made.cert.pem().as_bytes()).unwrap();
    let key = openssl::pkey::PKey::private_key_from_pem(made.signing_key.serialize_pem().as_bytes()).unwrap();
    context.set_certificate(&certificate).unwrap();
    context.set_private_key(&key).unwrap();
    let context = context.build().into_context();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = tokio_openssl::SslStream::new(Ssl::new(&context).unwrap(), socket).unwrap();
        let _ = std::pin::Pin::new(&mut stream).accept().await;
    });
    let ue = Ue::number(1);
    let connector = PskConnector::new(PskClientConfig::default()).unwrap();
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let told = connector.connect(socket, &fqdn(), &ue.a_kid, |protocol| ue.key(protocol)).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::Protocol(_)), "{told}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ue = Ue::number(1);
    let config =
        PskClientConfig { handshake_timeout: std::time::Duration::from_millis(100), ..PskClientConfig::default() };
    let connector = PskConnector::new(config).unwrap();
    let socket = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let told = connector.connect(socket, &fqdn(), &ue.a_kid, |protocol| ue.key(protocol)).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::TimedOut), "{told}");
}
