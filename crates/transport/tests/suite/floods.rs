//! Each flood of `docs/operate.md` that reaches this crate, caused at a listener: the event that is told, the metric that
//! counts, and that others are served meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akma::UaProtocolId;
use dtls::{CipherSuite, ClientConfig, Connection};
use prometheus_client::registry::Registry;
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use transport::{
    KeyLookup, KeyRequest, KeySource, KeySourceError, LookupLimits, LookupRefusal, OfferedVersions, TransportMetrics,
};

use crate::datagrams::{self, connect, events};
use crate::scene::{HelloByHand, Home, Mood, Server, Ue, alert, assert_echo, fqdn, heard, record};
use transport::testing::SecurityLog;

const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one version.
fn client(ue: &Ue, to: SocketAddr, versions: OfferedVersions) -> Connection {
    let mut config = ClientConfig::new(ue.identity().as_bytes());
    let tls13 = matches!(versions, OfferedVersions::Tls13);
    config.session.cipher_suites.retain(|suite| CipherSuite::DTLS13.contains(suite) == tls13);
    Connection::client(Arc::new(config), Instant::now(), to).unwrap()
}

/// What it has to send now: one datagram.
fn hello(client: &mut Connection, ue: &Ue) -> Vec<u8> {
    events(client, ue);
    client.poll_transmit().unwrap().payload
}

async fn socket_at(source: &str) -> UdpSocket {
    UdpSocket::bind(format!("{source}:0")).await.unwrap()
}

async fn said(socket: &UdpSocket) -> Vec<u8> {
    let mut octets = [0; 4_096];
    let (count, _) = timeout(PATIENCE, socket.recv_from(&mut octets)).await.unwrap().unwrap();
    octets[..count].to_vec()
}

/// A client that has got its cookie, and its ClientHello with it, which is not sent.
async fn with_cookie(socket: &UdpSocket, to: SocketAddr, ue: &Ue, versions: OfferedVersions) -> (Connection, Vec<u8>) {
    let mut client = client(ue, to, versions);
    socket.send_to(&hello(&mut client, ue), to).await.unwrap();
    client.handle_datagram(Instant::now(), to, &said(socket).await);
    let second = hello(&mut client, ue);
    (client, second)
}

async fn forged_sources_get_cookies(versions: OfferedVersions) {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let server = datagrams::Server::start(&Home::knowing(&[&ue]));
    let to = server.address();
    let asked = hello(&mut client(&ue, to, versions), &ue);
    // Whoever is there has not asked.
    let mut sources = Vec::new();
    for number in 10..20 {
        sources.push(socket_at(&format!("127.0.0.{number}")).await);
    }
    for _ in 0..20 {
        for source in &sources {
            source.send_to(&asked, to).await.unwrap();
        }
    }
    server.metric_is("dtls_cookies_total 200").await;
    let first = sources[0].local_addr().unwrap().to_string();
    log.tells("ClientHello answered with a cookie", &[("source", &first), ("unlogged", "0")]).await;
    for source in &sources {
        for _ in 0..20 {
            assert!(said(source).await.len() <= asked.len());
        }
    }
    assert_eq!((server.listener.sessions(), server.listener.known_addresses()), (0, 0));
    for source in &sources {
        source.send_to(&asked[..asked.len() - 1], to).await.unwrap();
    }
    server.metric_is("dtls_datagrams_dropped_total{reason=\"unknown_peer\"} 10").await;
    log.tells("DTLS datagram dropped", &[("reason", "unknown_peer"), ("source", &first)]).await;
    server.metric_is("dtls_handshakes_in_progress 0").await;
    connect(to, &ue).await.unwrap();
}

#[tokio::test]
async fn client_hellos_of_dtls_1_2_from_forged_sources_get_a_cookie_each_and_are_told() {
    forged_sources_get_cookies(OfferedVersions::Tls12).await;
}

#[tokio::test]
async fn client_hellos_of_dtls_1_3_from_forged_sources_get_a_cookie_each_and_are_told() {
    forged_sources_get_cookies(OfferedVersions::Tls13).await;
}

/// Cookies of one source, used over and over from there and from where they are not good.
async fn cookies_are_replayed(versions: OfferedVersions) {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let server = datagrams::Server::start_with(&Home::knowing(&[&ue]), |config| {
        config.limits.in_progress_per_source_max = 2;
    });
    let to = server.address();
    let mut hellos = Vec::new();
    for _ in 0..3 {
        let socket = socket_at("127.0.0.66").await;
        let (_, hello) = with_cookie(&socket, to, &ue, versions).await;
        socket.send_to(&hello, to).await.unwrap();
        hellos.push((socket, hello));
    }
    server.metric_is("dtls_handshakes_in_progress 2").await;
    for _ in 0..50 {
        for (socket, hello) in &hellos {
            socket.send_to(hello, to).await.unwrap();
        }
    }
    server.metric_is("dtls_handshakes_total{outcome=\"too_many_from_source\"} 51").await;
    let source = hellos[2].0.local_addr().unwrap().to_string();
    log.tells("ClientHello refused", &[("reason", "too_many_from_source"), ("source", &source)]).await;
    // It is good from its own address only.
    let elsewhere = socket_at("127.0.0.67").await;
    for (_, hello) in &hellos {
        elsewhere.send_to(hello, to).await.unwrap();
        said(&elsewhere).await;
    }
    server.metric_is("dtls_handshakes_in_progress 2").await;
    assert_eq!(server.listener.sessions(), 2);
    connect(to, &ue).await.unwrap();
}

#[tokio::test]
async fn cookies_of_dtls_1_2_that_are_replayed_are_refused_at_the_limit_of_their_source_and_told() {
    cookies_are_replayed(OfferedVersions::Tls12).await;
}

#[tokio::test]
async fn cookies_of_dtls_1_3_that_are_replayed_are_refused_at_the_limit_of_their_source_and_told() {
    cookies_are_replayed(OfferedVersions::Tls13).await;
}

#[tokio::test]
async fn client_hellos_with_a_cookie_beyond_all_sessions_are_refused_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let server = datagrams::Server::start_with(&Home::knowing(&[&ue]), |config| config.limits.sessions_max = 1);
    let to = server.address();
    let mut session = connect(to, &ue).await.unwrap();
    let socket = socket_at("127.0.0.66").await;
    for versions in [OfferedVersions::Tls12, OfferedVersions::Tls13] {
        let (_, hello) = with_cookie(&socket, to, &ue, versions).await;
        socket.send_to(&hello, to).await.unwrap();
    }
    server.metric_is("dtls_handshakes_total{outcome=\"too_many_sessions\"} 2").await;
    log.tells("ClientHello refused", &[("reason", "too_many_sessions")]).await;
    datagrams::assert_echo(&mut session, b"served").await;
}

async fn handshakes_stop_half_way(versions: OfferedVersions) {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let mut server = datagrams::Server::start_with(&Home::knowing(&[&ue]), |config| {
        config.limits.handshake_timeout_ms = 1_000;
    });
    let to = server.address();
    for _ in 0..3 {
        let socket = socket_at("127.0.0.66").await;
        let (_, hello) = with_cookie(&socket, to, &ue, versions).await;
        socket.send_to(&hello, to).await.unwrap();
        server.metric_is("dtls_handshakes_in_progress 1").await;
        assert!(matches!(server.refusal().await, transport::HandshakeError::TimedOut));
    }
    server.metric_is("dtls_handshakes_total{outcome=\"timed_out\"} 3").await;
    log.tells("handshake failed", &[("reason", "timed_out"), ("source", "127.0.0.66")]).await;
    server.metric_is("dtls_handshakes_in_progress 0").await;
    server.sessions_are(0).await;
    connect(to, &ue).await.unwrap();
}

#[tokio::test]
async fn handshakes_of_dtls_1_2_that_stop_half_way_end_and_are_told() {
    handshakes_stop_half_way(OfferedVersions::Tls12).await;
}

#[tokio::test]
async fn handshakes_of_dtls_1_3_that_stop_half_way_end_and_are_told() {
    handshakes_stop_half_way(OfferedVersions::Tls13).await;
}

/// A plaintext record with a part of a handshake message that is announced to be so long (RFC 6347 clauses 4.1, 4.2.2).
fn part(kind: u8, announced: u32, message_sequence: u16, record_sequence: u8, data: &[u8]) -> Vec<u8> {
    let length = &announced.to_be_bytes()[1..];
    let part_length = (data.len() as u32).to_be_bytes();
    let message = [&[kind], length, &message_sequence.to_be_bytes(), &[0, 0, 0], &part_length[1..], data].concat();
    let octets = (message.len() as u16).to_be_bytes();
    [&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, record_sequence], &octets[..], &message].concat()
}

async fn flights_are_oversized(versions: OfferedVersions) {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let mut server = datagrams::Server::start_with(&Home::knowing(&[&ue]), |config| {
        config.limits.handshake_timeout_ms = 2_000;
    });
    let to = server.address();
    let socket = socket_at("127.0.0.66").await;
    let source = socket.local_addr().unwrap().to_string();
    // From an address at which nobody is known: a ClientHello in parts, and a datagram that is longer than any.
    socket.send_to(&part(1, 0x00ff_ffff, 0, 0, &[3; 1_000]), to).await.unwrap();
    server.metric_is("dtls_datagrams_dropped_total{reason=\"unknown_peer\"} 1").await;
    log.tells("DTLS datagram dropped", &[("reason", "unknown_peer"), ("source", &source)]).await;
    let (_, hello) = with_cookie(&socket, to, &ue, versions).await;
    let too_large = [&hello[..], &[0; 5_000]].concat();
    socket.send_to(&too_large, to).await.unwrap();
    server.metric_is("dtls_datagrams_dropped_total{reason=\"too_large\"} 1").await;
    log.tells("DTLS datagram dropped", &[("reason", "too_large"), ("source", &source)]).await;
    assert_eq!(server.listener.sessions(), 0);
    // In a handshake: a ClientKeyExchange without end.
    socket.send_to(&hello, to).await.unwrap();
    server.metric_is("dtls_handshakes_in_progress 1").await;
    for number in 0..20 {
        socket.send_to(&part(16, 0x00ff_ffff, 2, 10 + number, &[7; 1_000]), to).await.unwrap();
    }
    server.metric_is("dtls_datagrams_dropped_total{reason=\"unusable\"} 20").await;
    log.tells("DTLS datagram dropped", &[("reason", "unusable"), ("source", &source)]).await;
    assert!(matches!(server.refusal().await, transport::HandshakeError::TimedOut));
    log.tells("handshake failed", &[("reason", "timed_out"), ("source", "127.0.0.66")]).await;
    server.sessions_are(0).await;
    connect(to, &ue).await.unwrap();
}

#[tokio::test]
async fn flights_of_dtls_1_2_that_are_too_large_are_dropped_and_told() {
    flights_are_oversized(OfferedVersions::Tls12).await;
}

#[tokio::test]
async fn flights_of_dtls_1_3_that_are_too_large_are_dropped_and_told() {
    flights_are_oversized(OfferedVersions::Tls13).await;
}

fn has(metrics: &str, line: &str) -> bool {
    metrics.lines().any(|other| other == line)
}

#[tokio::test]
async fn connections_over_tls_beyond_the_limit_of_their_source_are_dropped_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let limits = |config: &mut transport::PskServerConfig| config.limits.in_progress_per_source_max = 2;
    let mut server = Server::start_with(&Home::knowing(&[&ue]), limits, |_| {}).await;
    let _silent = [server.socket_from("127.0.0.66").await, server.socket_from("127.0.0.66").await];
    for _ in 0..5 {
        assert_eq!(heard(&mut server.socket_from("127.0.0.66").await).await, b"");
        assert!(matches!(server.refusal().await, transport::HandshakeError::TooManyFromSource));
    }
    let metrics = server.metrics();
    assert!(has(&metrics, "psk_handshakes_total{outcome=\"too_many_from_source\"} 5"), "{metrics}");
    assert!(has(&metrics, "psk_handshakes_in_progress 2"), "{metrics}");
    log.tells("connection dropped at a limit", &[("limit", "in_progress_per_source_max")]).await;
    assert_echo(&mut server.connect(&ue).await.unwrap(), b"served").await;
}

#[tokio::test]
async fn connections_over_tls_beyond_the_limit_in_all_are_dropped_and_told() {
    let log = SecurityLog::record();
    let limits = |config: &mut transport::PskServerConfig| config.limits.in_progress_max = 2;
    let mut server = Server::start_with(&Home::knowing(&[]), limits, |_| {}).await;
    let _silent = [server.socket_from("127.0.0.66").await, server.socket_from("127.0.0.67").await];
    assert_eq!(heard(&mut server.socket_from("127.0.0.68").await).await, b"");
    assert!(matches!(server.refusal().await, transport::HandshakeError::TooMany));
    let metrics = server.metrics();
    assert!(has(&metrics, "psk_handshakes_total{outcome=\"too_many\"} 1"), "{metrics}");
    log.tells("connection dropped at a limit", &[("limit", "in_progress_max")]).await;
}

#[tokio::test]
async fn handshakes_over_tls_that_stop_half_way_end_and_are_told() {
    let log = SecurityLog::record();
    let limits = |config: &mut transport::PskServerConfig| config.limits.client_hello_timeout_ms = 50;
    let mut server = Server::start_with(&Home::knowing(&[]), limits, |_| {}).await;
    let mut half = server.socket_from("127.0.0.66").await;
    let hello = HelloByHand::tls13(&["3GPP-AKMA;x".to_owned()]).record();
    half.write_all(&hello[..hello.len() / 2]).await.unwrap();
    assert_eq!(heard(&mut half).await, b"");
    assert!(matches!(server.refusal().await, transport::HandshakeError::TimedOut));
    let metrics = server.metrics();
    assert!(has(&metrics, "psk_handshakes_total{outcome=\"timed_out\"} 1"), "{metrics}");
    log.tells("handshake failed", &[("reason", "timed_out"), ("source", "127.0.0.66")]).await;
}

#[tokio::test]
async fn flights_over_tls_that_are_too_large_end_and_are_told() {
    let log = SecurityLog::record();
    let limits = |config: &mut transport::PskServerConfig| config.limits.octets_max = 2_000;
    let mut server = Server::start_with(&Home::knowing(&[]), limits, |_| {}).await;
    let endless: Vec<u8> = [1, 0, 7, 0].into_iter().chain([0; 400]).flat_map(|octet| record(&[octet])).collect();
    assert_eq!(server.say(&endless).await, alert(50));
    server.refusal().await;
    let metrics = server.metrics();
    assert!(has(&metrics, "psk_handshakes_total{outcome=\"too_long\"} 1"), "{metrics}");
    log.tells("handshake failed", &[("reason", "too_long")]).await;
}

#[tokio::test]
async fn unknown_a_kids_are_counted_and_told_and_refused_at_the_limit_of_their_source() {
    let log = SecurityLog::record();
    let ue = Ue::number(0);
    let limits = |limits: &mut LookupLimits| {
        limits.unknown_per_second_per_source_max = 1;
        limits.negative_cache_ms = 0;
    };
    let mut server = Server::start_with(&Home::knowing(&[&ue]), |_| {}, limits).await;
    let limit = "akma_key_lookups_at_limit_total{limit=\"unknown_per_second_per_source_max\"}";
    let mut number = 0;
    // A second brings one more, and a machine may be slow.
    while !server.metrics().contains(limit) {
        number = number % 250 + 1;
        let mut socket = server.socket_from("127.0.0.66").await;
        socket.write_all(&HelloByHand::tls13(&[Ue::number(number).identity()]).record()).await.unwrap();
        heard(&mut socket).await;
        server.refusal().await;
    }
    assert!(server.metrics().contains("akma_key_lookups_total{outcome=\"unknown\"}"));
    log.tells("handshake failed", &[("reason", "unknown_a_kid"), ("source", "127.0.0.66")]).await;
    let fields = [("limit", "unknown_per_second_per_source_max"), ("source", "127.0.0.66")];
    log.tells("key lookup refused at a limit", &fields).await;
    assert_echo(&mut server.connect(&ue).await.unwrap(), b"another source is served").await;
}

#[tokio::test]
async fn another_key_for_an_a_kid_is_counted_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    let thief = Ue { k_akma: Ue::number(2).k_akma, ..ue.clone() };
    assert!(server.connect(&thief).await.is_err());
    assert!(matches!(server.refusal().await, transport::HandshakeError::WrongKey));
    let metrics = server.metrics();
    assert!(has(&metrics, "psk_handshakes_total{outcome=\"wrong_key\"} 1"), "{metrics}");
    log.tells("peer refused", &[("reason", "wrong_key"), ("a_kid", ue.a_kid.as_str())]).await;
    assert_echo(&mut server.connect(&ue).await.unwrap(), b"the UE itself gets in").await;
}

/// Key look-ups whose metrics can be read.
struct Lookups {
    lookup: Arc<KeyLookup>,
    registry: Registry,
}

impl Lookups {
    fn of(home: &Arc<Home>, limits: LookupLimits) -> Self {
        let mut registry = Registry::default();
        let metrics = TransportMetrics::register(&mut registry);
        let source: Arc<dyn KeySource> = home.clone();
        Self { lookup: Arc::new(KeyLookup::new(source, fqdn(), limits, metrics)), registry }
    }

    fn counts(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        has(&text, line)
    }
}

fn request(ue: &Ue) -> KeyRequest {
    let source = "192.0.2.66".parse().unwrap();
    KeyRequest { a_kid: ue.a_kid.clone(), protocol: UaProtocolId::TLS_1_3, source }
}

#[tokio::test]
async fn who_waits_for_the_key_of_somebody_else_too_often_is_refused_counted_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Waits(Arc::new(Notify::new())));
    let lookups = Lookups::of(&home, LookupLimits { joiners_per_source_max: 1, ..LookupLimits::default() });
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let lookup = Arc::clone(&lookups.lookup);
        let request = request(&ue);
        waiting.spawn(async move { lookup.resolve(request).await });
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(lookups.lookup.resolve(request(&ue)).await, Err(LookupRefusal::Busy));
    assert!(lookups.counts("akma_key_lookups_at_limit_total{limit=\"joiners_per_source_max\"} 1"));
    let fields = [("limit", "joiners_per_source_max"), ("source", "192.0.2.66")];
    log.tells("key lookup refused at a limit", &fields).await;
}

#[tokio::test]
async fn revalidations_beyond_their_limit_are_counted_and_told() {
    let log = SecurityLog::record();
    let home = Home::knowing(&[]);
    home.becomes(Mood::Silent);
    let lookups = Lookups::of(&home, LookupLimits { in_flight_max: 1, ..LookupLimits::default() });
    let lookup = Arc::clone(&lookups.lookup);
    let first = tokio::spawn(async move { lookup.revalidate(request(&Ue::number(1))).await });
    while home.asked() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(lookups.lookup.revalidate(request(&Ue::number(2))).await, Err(LookupRefusal::Busy));
    assert!(lookups.counts("akma_key_lookups_at_limit_total{limit=\"revalidations_in_flight\"} 1"));
    log.tells("key lookup refused at a limit", &[("limit", "revalidations_in_flight")]).await;
    first.abort();
}

#[tokio::test]
async fn a_key_server_that_wants_fewer_questions_is_counted_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Fails(KeySourceError::TooMany("429".to_owned())));
    let lookups = Lookups::of(&home, LookupLimits { breaker_failures: 1, ..LookupLimits::default() });
    for _ in 0..3 {
        assert_eq!(lookups.lookup.resolve(request(&ue)).await, Err(LookupRefusal::Busy));
    }
    assert!(lookups.counts("akma_key_lookups_total{outcome=\"busy\"} 3"));
    assert!(lookups.counts("akma_key_lookup_breaker_open 0"));
    log.tells("the key server wants fewer questions", &[("unlogged", "0")]).await;
}
