//! Each limit on handshakes, reached from outside.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use transport::handshake_sniffer::SniffError;
use transport::{
    ClientHandshakeError, HandshakeError, HandshakeLimits, LookupLimits, PskClientConfig, PskConnector, PskServerConfig,
};

use crate::scene::{HelloByHand, Home, Mood, Server, Ue, alert, assert_echo, fqdn, heard, record};

#[tokio::test]
async fn one_source_cannot_take_all_handshakes() {
    let ue = Ue::number(1);
    let mut server = Server::start_with(
        &Home::knowing(&[&ue]),
        |config| {
            config.limits.in_progress_per_source_max = 3;
            config.limits.in_progress_max = 100;
        },
        |_| {},
    )
    .await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(server.socket_from("127.0.0.66").await);
    }
    let mut one_more = server.socket_from("127.0.0.66").await;
    assert_eq!(heard(&mut one_more).await, b"", "closed without alert");
    assert!(matches!(server.refusal().await, HandshakeError::TooManyFromSource));
    assert_echo(&mut server.connect(&ue).await.unwrap(), b"others are served").await;
    assert!(server.result().await.is_ok());
    drop(silent);
    for _ in 0..3 {
        assert!(matches!(server.refusal().await, HandshakeError::Closed));
    }
    connect_from(&server, "127.0.0.66", &ue).await.unwrap();
}

#[tokio::test]
async fn handshakes_are_limited_in_all() {
    let ue = Ue::number(1);
    let mut server =
        Server::start_with(&Home::knowing(&[&ue]), |config| config.limits.in_progress_max = 2, |_| {}).await;
    let silent = [server.socket_from("127.0.0.66").await, server.socket_from("127.0.0.67").await];
    let told = server.connect(&ue).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::Closed), "{told}");
    assert!(matches!(server.refusal().await, HandshakeError::TooMany));
    drop(silent);
    for _ in 0..2 {
        assert!(matches!(server.refusal().await, HandshakeError::Closed));
    }
    server.connect(&ue).await.unwrap();
}

#[tokio::test]
async fn established_connections_do_not_count_as_handshakes() {
    let ue = Ue::number(1);
    let mut server =
        Server::start_with(&Home::knowing(&[&ue]), |config| config.limits.in_progress_max = 1, |_| {}).await;
    let mut established = Vec::new();
    for _ in 0..5 {
        established.push(server.connect(&ue).await.unwrap());
        assert!(server.result().await.is_ok());
    }
    for stream in &mut established {
        assert_echo(stream, b"alive").await;
    }
}

#[tokio::test]
async fn a_client_hello_that_does_not_come_is_waited_for_so_long() {
    let mut server =
        Server::start_with(&Home::knowing(&[]), |config| config.limits.client_hello_timeout_ms = 50, |_| {}).await;
    let mut silent = server.socket().await;
    assert_eq!(heard(&mut silent).await, b"");
    assert!(matches!(server.refusal().await, HandshakeError::TimedOut));
    // Nor does it help to send a little now and then.
    let hello = HelloByHand::tls13(&["3GPP-AKMA;x".to_owned()]).record();
    let mut slow = server.socket().await;
    for octet in &hello[..hello.len() - 1] {
        if slow.write_all(&[*octet]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(heard(&mut slow).await, b"");
    assert!(matches!(server.refusal().await, HandshakeError::TimedOut));
}

#[tokio::test]
async fn a_handshake_that_stops_half_way_is_ended() {
    let mut server =
        Server::start_with(&Home::knowing(&[]), |config| config.handshake_timeout = Duration::from_secs(1), |_| {})
            .await;
    let tls12 = HelloByHand { versions: vec![], suites: vec![0xCCAC], ..HelloByHand::tls13(&[]) };
    let told = server.say(&tls12.record()).await;
    assert_eq!(told[..3], [22, 3, 3], "a ServerHello came, and then the end");
    assert!(matches!(server.refusal().await, HandshakeError::TimedOut));
}

#[tokio::test]
async fn a_handshake_of_too_many_octets_is_decode_error() {
    let mut server = Server::start_with(&Home::knowing(&[]), |config| config.limits.octets_max = 2_000, |_| {}).await;
    // A ClientHello in records of one octet, six octets each on the wire.
    let endless: Vec<u8> = [1, 0, 7, 0].into_iter().chain([0; 400]).flat_map(|octet| record(&[octet])).collect();
    assert_eq!(server.say(&endless).await, alert(50));
    assert!(matches!(server.refusal().await, HandshakeError::Sniff(SniffError::TooLong)));
}

#[tokio::test]
async fn lookups_of_one_source_are_limited_and_others_are_served() {
    let (ue, other) = (Ue::number(1), Ue::number(200));
    let home = Home::knowing(&[&ue, &other]);
    home.becomes(Mood::Silent);
    let few_and_patient = |limits: &mut LookupLimits| {
        limits.in_flight_per_source_max = 4;
        limits.timeout_ms = 600_000;
    };
    let mut server = Server::start_with(&home, |_| {}, few_and_patient).await;
    let mut waiting = Vec::new();
    for number in 10..14 {
        let mut socket = server.socket_from("127.0.0.66").await;
        let hello = HelloByHand::tls13(&[Ue::number(number).identity()]).record();
        socket.write_all(&hello).await.unwrap();
        waiting.push(socket);
    }
    while home.asked() < 4 {
        tokio::task::yield_now().await;
    }
    let told = connect_from(&server, "127.0.0.66", &ue).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::Busy), "{told}");
    assert!(server.result().await.is_err());
    home.becomes(Mood::Answers);
    assert_echo(&mut server.connect(&other).await.unwrap(), b"others are served").await;
    drop(waiting);
}

#[tokio::test]
async fn ten_thousand_connections_that_say_nothing_shut_nobody_out() {
    let ue = Ue::number(1);
    let patient = |config: &mut PskServerConfig| config.limits.client_hello_timeout_ms = 600_000;
    let mut server = Server::start_with(&Home::knowing(&[&ue]), patient, |_| {}).await;
    let held_max = HandshakeLimits::default().in_progress_per_source_max;
    let mut held = Vec::new();
    for _ in 0..held_max {
        held.push(server.socket_from("127.0.0.66").await);
    }
    for number in held_max..10_000 {
        assert_eq!(heard(&mut server.socket_from("127.0.0.66").await).await, b"");
        assert!(matches!(server.refusal().await, HandshakeError::TooManyFromSource));
        if number % 2_000 == 0 {
            assert_echo(&mut server.connect(&ue).await.unwrap(), b"served").await;
            assert!(server.result().await.is_ok());
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_only_itself() {
    let (deaf, other) = (Ue::number(1), Ue::number(2));
    let server = Server::start(&Home::knowing(&[&deaf, &other])).await;
    let mut stream = server.connect(&deaf).await.unwrap();
    // Until the echo backs up and writing stalls.
    let chunk = vec![0; 65_536];
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(300), stream.write(&chunk)).await {
        written.unwrap();
    }
    assert_echo(&mut server.connect(&other).await.unwrap(), b"served").await;
    let mut some = vec![0; 1024];
    stream.read_exact(&mut some).await.unwrap();
}

async fn connect_from(server: &Server, source: &str, ue: &Ue) -> Result<transport::ClientStream, ClientHandshakeError> {
    let socket: TcpStream = server.socket_from(source).await;
    let connector = PskConnector::new(PskClientConfig::default()).unwrap();
    connector.connect(socket, &fqdn(), &ue.a_kid, |protocol| ue.key(protocol)).await
}
