//! What `docs/reference/transport.md` says of limits and refusals over DTLS, in both versions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::{CipherSuite, ClientConfig, Closed, Connection, Event};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use transport::{
    ClientHandshakeError, DatagramLink, DtlsClientConfig, DtlsClientSession, HandshakeError, KeySourceError,
    LookupLimits, LookupRefusal, OfferedVersions, TlsVersion,
};

use crate::datagrams::{Server, assert_echo, connect_as, events};
use crate::scene::{Home, Mood, Ue};

const VERSIONS: [OfferedVersions; 2] = [OfferedVersions::Tls12, OfferedVersions::Tls13];

async fn connect_in(
    versions: OfferedVersions,
    to: SocketAddr,
    ue: &Ue,
) -> Result<DtlsClientSession, ClientHandshakeError> {
    connect_as(to, ue, DtlsClientConfig { versions, ..DtlsClientConfig::default() }).await
}

/// The same, soon given up.
async fn try_in(versions: OfferedVersions, to: SocketAddr, ue: &Ue) -> ClientHandshakeError {
    let handshake_timeout = Duration::from_millis(2_500);
    let config = DtlsClientConfig { versions, handshake_timeout, ..DtlsClientConfig::default() };
    connect_as(to, ue, config).await.err().unwrap()
}

/// A client that offers these suites alone.
fn offering(ue: &Ue, to: SocketAddr, suites: impl Fn(&CipherSuite) -> bool) -> Connection {
    let mut config = ClientConfig::new(ue.identity().as_bytes());
    let all = CipherSuite::DTLS13.into_iter().chain(CipherSuite::DTLS12);
    config.session.cipher_suites = all.filter(suites).collect();
    Connection::client(Arc::new(config), Instant::now(), to).unwrap()
}

/// Takes everything that has come, and says nothing; how it ended, if it did.
fn take_all(client: &mut Connection, socket: &UdpSocket, to: SocketAddr) -> Option<Closed> {
    let mut octets = [0; 4_096];
    while let Ok((count, _)) = socket.try_recv_from(&mut octets) {
        client.handle_datagram(Instant::now(), to, &octets[..count]);
    }
    let mut closed = None;
    while let Some(event) = client.poll_event() {
        if let Event::Closed(how) = event {
            closed = Some(how);
        }
    }
    closed
}

/// Says what it has to say, once.
async fn say(client: &mut Connection, ue: &Ue, socket: &UdpSocket, to: SocketAddr) {
    events(client, ue);
    while let Some(transmit) = client.poll_transmit() {
        socket.send_to(&transmit.payload, to).await.unwrap();
    }
}

/// Up to the ClientHello with a cookie, and not further; the octets of what the server has said to it.
async fn half_way(client: &mut Connection, ue: &Ue, socket: &UdpSocket, to: SocketAddr) {
    say(client, ue, socket, to).await;
    let mut octets = [0; 4_096];
    let cookie = timeout(Duration::from_secs(60), socket.recv_from(&mut octets)).await.unwrap().unwrap().0;
    client.handle_datagram(Instant::now(), to, &octets[..cookie]);
    say(client, ue, socket, to).await;
}

#[tokio::test]
async fn what_the_key_server_answers_is_told_alike_in_both_versions() {
    let unavailable = || KeySourceError::Unavailable("down".to_owned());
    let not_asked = || KeySourceError::NotAsked("too many".to_owned());
    let too_many = || KeySourceError::TooMany("429".to_owned());
    for versions in VERSIONS {
        let (known, unknown) = (Ue::number(1), Ue::number(2));
        let home = Home::knowing(&[&known]);
        let mut server = Server::start(&home);
        let to = server.address();
        assert!(matches!(try_in(versions, to, &unknown).await, ClientHandshakeError::UnknownIdentity));
        assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Unknown)));
        home.becomes(Mood::AnswersExpired);
        assert!(matches!(try_in(versions, to, &known).await, ClientHandshakeError::UnknownIdentity));
        assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Expired)));
        let refusals = [
            (unavailable(), LookupRefusal::Unavailable),
            (not_asked(), LookupRefusal::Busy),
            (too_many(), LookupRefusal::Busy),
        ];
        for (error, refusal) in refusals {
            home.becomes(Mood::Fails(error));
            let told = try_in(versions, to, &known).await;
            assert!(matches!(told, ClientHandshakeError::Busy), "{versions:?} {refusal:?}: {told}");
            let refused = server.refusal().await;
            assert!(matches!(refused, HandshakeError::Lookup(of) if of == refusal), "{versions:?} {refused}");
        }
        home.becomes(Mood::Answers);
        assert_echo(&mut connect_in(versions, to, &known).await.unwrap(), b"served").await;
    }
}

#[tokio::test]
async fn a_key_server_that_takes_too_long_is_a_reason_to_come_again_in_both_versions() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Silent);
    let limits = LookupLimits { timeout_ms: 100, ..LookupLimits::default() };
    let mut server = Server::start_over(&home, limits, |_| {});
    for versions in VERSIONS {
        let told = connect_in(versions, server.address(), &ue).await.err().unwrap();
        assert!(matches!(told, ClientHandshakeError::Busy), "{versions:?}: {told}");
        assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::TimedOut)));
    }
}

#[tokio::test]
async fn another_key_is_told_at_once_in_dtls_1_3_and_in_1_2_when_the_handshake_has_taken_its_time() {
    for versions in VERSIONS {
        let ue = Ue::number(1);
        let mut server =
            Server::start_with(&Home::knowing(&[&ue]), |config| config.limits.handshake_timeout_ms = 1_500);
        let thief = Ue { k_akma: Ue::number(2).k_akma, ..ue.clone() };
        let told = connect_in(versions, server.address(), &thief).await.err().unwrap();
        assert!(matches!(told, ClientHandshakeError::WrongKey), "{versions:?}: {told}");
        assert!(matches!(server.refusal().await, HandshakeError::WrongKey));
        server.metric_is("dtls_handshakes_total{outcome=\"wrong_key\"} 1").await;
        server.sessions_are(0).await;
    }
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_ends_without_a_word_in_both_versions() {
    for versions in VERSIONS {
        let ue = Ue::number(1);
        let mut server =
            Server::start_with(&Home::knowing(&[&ue]), |config| config.limits.handshake_timeout_ms = 1_500);
        let to = server.address();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tls13 = matches!(versions, OfferedVersions::Tls13);
        let mut client = offering(&ue, to, |suite| {
            CipherSuite::FORWARD_SECRET.contains(suite) && CipherSuite::DTLS13.contains(suite) == tls13
        });
        half_way(&mut client, &ue, &socket, to).await;
        assert!(matches!(server.refusal().await, HandshakeError::TimedOut));
        server.sessions_are(0).await;
        // Had it been told, it would be at an end.
        assert_eq!(take_all(&mut client, &socket, to), None, "{versions:?}");
    }
}

#[tokio::test]
async fn handshakes_are_limited_in_all_in_both_versions() {
    for versions in VERSIONS {
        let ue = Ue::number(1);
        let server = Server::start_with(&Home::knowing(&[&ue]), |config| {
            config.limits.in_progress_max = 1;
            config.limits.handshake_timeout_ms = 4_000;
        });
        let to = server.address();
        let socket = UdpSocket::bind("127.0.0.66:0").await.unwrap();
        let tls13 = matches!(versions, OfferedVersions::Tls13);
        let mut first = offering(&ue, to, |suite| {
            CipherSuite::FORWARD_SECRET.contains(suite) && CipherSuite::DTLS13.contains(suite) == tls13
        });
        half_way(&mut first, &ue, &socket, to).await;
        server.metric_is("dtls_handshakes_in_progress 1").await;
        // Another source hears nothing now, and sends its ClientHello again until there is room.
        let mut session = connect_in(versions, to, &ue).await.unwrap();
        assert_echo(&mut session, b"served").await;
        assert!(server.metrics().contains("dtls_handshakes_total{outcome=\"too_many\"} "), "{}", server.metrics());
    }
}

#[tokio::test]
async fn nothing_in_common_is_told_in_both_versions() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue]));
    let to = server.address();
    // Of each version what the server does not choose: no forward secrecy, and a tag of eight octets.
    for of_version in [&CipherSuite::DTLS12[..], &CipherSuite::DTLS13[..]] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut client =
            offering(&ue, to, |suite| of_version.contains(suite) && !CipherSuite::FORWARD_SECRET.contains(suite));
        let told = timeout(Duration::from_secs(60), async {
            loop {
                say(&mut client, &ue, &socket, to).await;
                socket.readable().await.unwrap();
                if let Some(closed) = take_all(&mut client, &socket, to) {
                    return closed;
                }
            }
        });
        let alert = dtls::Error::PeerAlert(dtls::Alert::HANDSHAKE_FAILURE);
        assert_eq!(told.await.unwrap(), Closed::Failed(alert), "{of_version:?}");
    }
    server.metric_is("dtls_handshakes_total{outcome=\"nothing_in_common\"} 2").await;
    assert_eq!(server.listener.sessions(), 0);
}

#[tokio::test]
async fn each_alert_of_a_server_has_its_meaning_for_our_client_in_both_versions() {
    let ue = Ue::number(1);
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = server.local_addr().unwrap();
    for versions in VERSIONS {
        for description in [40, 80, 112, 115] {
            let answering = async {
                let mut octets = [0; 4_096];
                let (_, client) = server.recv_from(&mut octets).await.unwrap();
                // RFC 6347 clause 4.1: an alert in clear.
                let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, description];
                server.send_to(&alert, client).await.unwrap();
            };
            let (told, ()) = tokio::join!(connect_in(versions, to, &ue), answering);
            let told = told.err().unwrap();
            let fits = match description {
                40 => matches!(told, ClientHandshakeError::NothingInCommon),
                80 => matches!(told, ClientHandshakeError::Busy),
                112 => matches!(told, ClientHandshakeError::ServerName),
                _ => matches!(told, ClientHandshakeError::UnknownIdentity),
            };
            assert!(fits, "{versions:?} {description}: {told}");
        }
    }
}

#[tokio::test]
async fn a_server_sends_no_larger_datagrams_than_it_may_in_both_versions() {
    for versions in VERSIONS {
        let ue = Ue::number(1);
        let server = Server::start_with(&Home::knowing(&[&ue]), |config| config.limits.datagram_octets_max = 512);
        let to = server.address();
        let mut session = connect_in(versions, to, &ue).await.unwrap();
        assert_eq!(matches!(session.version(), TlsVersion::Dtls13), matches!(versions, OfferedVersions::Tls13));
        assert_echo(&mut session, &[7; 400]).await;
        // What is larger does not go; above this crate CoAP makes blocks of it.
        assert!(session.datagram_octets_max() > 600);
        session.send(Instant::now(), &[7; 600]).unwrap();
        server.metric_is("dtls_datagrams_dropped_total{reason=\"not_sent\"} 1").await;
        assert_echo(&mut session, &[8; 400]).await;
    }
}
