//! DTLS over loopback UDP: who is proven, who is refused, who moves, and every limit.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls::{Alert, ClientConfig, Closed, Connection, Disposition, Event, PresharedKey};
use prometheus_client::registry::Registry;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use transport::{
    ClientHandshakeError, DatagramLink, DtlsClientConfig, DtlsClientSession, DtlsConnector, DtlsLink, DtlsListener,
    DtlsServerConfig, HandshakeError, KeyLookup, KeySource, LinkReceived, LookupLimits, LookupRefusal, OfferedVersions,
    ProvenPeer, TlsVersion, TransportMetrics,
};

use crate::scene::{Home, Mood, Ue, fqdn, with_the_answer_held};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that answers everything with its echo, and says when a peer has moved.
pub(crate) struct Server {
    pub(crate) listener: DtlsListener,
    results: mpsc::UnboundedReceiver<Result<ProvenPeer, HandshakeError>>,
    moves: watch::Receiver<usize>,
    /// While this is false, sessions take nothing.
    awake: watch::Sender<bool>,
    registry: Registry,
}

impl Server {
    pub(crate) fn start(home: &Arc<Home>) -> Self {
        Self::start_with(home, |_| {})
    }

    pub(crate) fn start_with(home: &Arc<Home>, config: impl FnOnce(&mut DtlsServerConfig)) -> Self {
        Self::start_over(home, LookupLimits::default(), config)
    }

    pub(crate) fn start_over(
        home: &Arc<Home>,
        lookups: LookupLimits,
        config: impl FnOnce(&mut DtlsServerConfig),
    ) -> Self {
        let mut registry = Registry::default();
        let metrics = TransportMetrics::register(&mut registry);
        let source: Arc<dyn KeySource> = home.clone();
        let lookup = Arc::new(KeyLookup::new(source, fqdn(), lookups, metrics));
        let mut server_config = DtlsServerConfig::new(fqdn());
        config(&mut server_config);
        let (listener, sockets) = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), server_config, lookup).unwrap();
        let (tell, results) = mpsc::unbounded_channel();
        let (moved, moves) = watch::channel(0);
        let (awake, wakes) = watch::channel(true);
        for mut socket in sockets {
            let (tell, moved, wakes) = (tell.clone(), moved.clone(), wakes.clone());
            tokio::spawn(async move {
                loop {
                    let arrival = socket.accept().await.unwrap();
                    let (tell, moved, wakes) = (tell.clone(), moved.clone(), wakes.clone());
                    tokio::spawn(async move {
                        match arrival.handshake().await {
                            Ok(session) => {
                                let _ = tell.send(Ok(session.peer().clone()));
                                echo(session.into_link().0, &moved, wakes).await;
                            }
                            Err(error) => drop(tell.send(Err(error))),
                        }
                    });
                }
            });
        }
        Self { listener, results, moves, awake, registry }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    pub(crate) async fn result(&mut self) -> Result<ProvenPeer, HandshakeError> {
        timeout(PATIENCE, self.results.recv()).await.unwrap().unwrap()
    }

    pub(crate) async fn refusal(&mut self) -> HandshakeError {
        self.result().await.expect_err("the handshake was accepted")
    }

    pub(crate) async fn sessions_are(&self, count: usize) {
        timeout(PATIENCE, async {
            while self.listener.sessions() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits until a metric has this value.
    pub(crate) async fn metric_is(&self, line: &str) {
        let shown = || self.metrics().lines().any(|other| other == line);
        timeout(PATIENCE, async {
            while !shown() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no {line} in {}", self.metrics()));
    }
}

async fn echo(mut session: DtlsLink, moved: &watch::Sender<usize>, mut awake: watch::Receiver<bool>) {
    loop {
        awake.wait_for(|awake| *awake).await.unwrap();
        match receive(&mut session).await {
            LinkReceived::Datagram(datagram) => session.send(Instant::now(), &datagram).unwrap(),
            LinkReceived::Moved => moved.send_modify(|count| *count += 1),
            LinkReceived::End | LinkReceived::Broken(_) => return,
        }
    }
}

pub(crate) async fn receive(link: &mut impl DatagramLink) -> LinkReceived {
    poll_fn(|context| link.poll_receive(context, Instant::now())).await
}

pub(crate) async fn connect(to: SocketAddr, ue: &Ue) -> Result<DtlsClientSession, ClientHandshakeError> {
    connect_as(to, ue, DtlsClientConfig::default()).await
}

pub(crate) async fn connect_as(
    to: SocketAddr,
    ue: &Ue,
    config: DtlsClientConfig,
) -> Result<DtlsClientSession, ClientHandshakeError> {
    DtlsConnector::new(config).connect(to, &fqdn(), &ue.a_kid, |protocol| ue.key(protocol)).await
}

pub(crate) async fn assert_echo(session: &mut DtlsClientSession, octets: &[u8]) {
    session.send(Instant::now(), octets).unwrap();
    match timeout(PATIENCE, receive(session)).await.unwrap() {
        LinkReceived::Datagram(back) => assert_eq!(back, octets),
        other => panic!("no echo: {other:?}"),
    }
}

fn plain_too() -> DtlsClientConfig {
    DtlsClientConfig { allow_plain_psk: true, ..DtlsClientConfig::default() }
}

fn short() -> DtlsClientConfig {
    DtlsClientConfig { handshake_timeout: Duration::from_millis(2_500), ..DtlsClientConfig::default() }
}

#[tokio::test]
async fn a_ue_is_proven_by_k_af_of_what_was_negotiated() {
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue]));
    let mut session = connect(server.address(), &ue).await.unwrap();
    let peer = server.result().await.unwrap();
    assert_eq!(peer.a_kid, ue.a_kid);
    assert!(matches!(peer.tls_version, TlsVersion::Dtls12 | TlsVersion::Dtls13));
    assert_eq!((peer.tls_version, peer.cipher), (session.version(), session.cipher()));
    assert_echo(&mut session, b"21.5").await;
    drop(session);
    server.sessions_are(0).await;
}

#[tokio::test]
async fn an_unknown_a_kid_is_told_so_and_another_key_is_no_proof() {
    let (known, unknown) = (Ue::number(1), Ue::number(2));
    let mut server = Server::start_with(&Home::knowing(&[&known]), |config| {
        config.limits.handshake_timeout_ms = 1_500;
    });
    assert!(matches!(connect(server.address(), &unknown).await, Err(ClientHandshakeError::UnknownIdentity)));
    assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Unknown)));
    let impostor = Ue { a_kid: known.a_kid.clone(), k_akma: unknown.k_akma.clone() };
    let told = connect(server.address(), &impostor).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::WrongKey), "{told}");
    assert!(matches!(server.refusal().await, HandshakeError::WrongKey));
    server.sessions_are(0).await;
}

#[tokio::test]
async fn a_key_server_that_fails_is_told_as_a_reason_to_come_again() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home);
    home.becomes(Mood::Fails(transport::KeySourceError::Unavailable("not there".to_owned())));
    assert!(matches!(connect(server.address(), &ue).await, Err(ClientHandshakeError::Busy)));
    assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Unavailable)));
    home.becomes(Mood::AnswersExpired);
    assert!(matches!(connect(server.address(), &ue).await, Err(ClientHandshakeError::UnknownIdentity)));
    assert!(matches!(server.refusal().await, HandshakeError::Lookup(LookupRefusal::Expired)));
}

#[tokio::test]
async fn a_key_that_takes_its_time_holds_up_nobody_else() {
    let (slow, quick) = (Ue::number(1), Ue::number(2));
    let home = Home::knowing(&[&slow, &quick]);
    let mut server = Server::start(&home);
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(Arc::clone(&go_on)));
    let to = server.address();
    let waiting = tokio::spawn(async move { connect(to, &slow).await });
    timeout(PATIENCE, async {
        while home.asked() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    home.becomes(Mood::Answers);
    let mut session = connect(server.address(), &quick).await.unwrap();
    assert_eq!(server.result().await.unwrap().a_kid, quick.a_kid);
    assert_echo(&mut session, b"quick").await;
    go_on.notify_one();
    // Kept until the server has heard that the client is done.
    let _slow = waiting.await.unwrap().unwrap();
    assert!(server.result().await.is_ok());
}

#[tokio::test]
async fn over_dtls_a_peer_has_the_time_at_which_the_key_server_was_asked() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home);
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let config = DtlsClientConfig { versions, ..DtlsClientConfig::default() };
        let (session, asked) = with_the_answer_held(&home, connect_as(server.address(), &ue, config)).await;
        let _session = session.unwrap();
        assert!(asked.contains(&server.result().await.unwrap().asked_at));
    }
}

/// A handshake by hand, with an identity and a server name that are not ours to choose otherwise.
async fn told(to: SocketAddr, identity: &[u8], server_name: Option<&str>) -> Closed {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut config = ClientConfig::new(identity);
    config.server_name = server_name.map(str::to_owned);
    let mut connection = Connection::client(Arc::new(config), Instant::now(), to).unwrap();
    let mut buffer = [0; 2_048];
    loop {
        while let Some(transmit) = connection.poll_transmit() {
            socket.send_to(&transmit.payload, to).await.unwrap();
        }
        while let Some(event) = connection.poll_event() {
            match event {
                Event::KeyNeeded(_) => {
                    connection.provide_key(Instant::now(), &PresharedKey::new(&[7; 32]).unwrap()).unwrap();
                }
                Event::Closed(closed) => return closed,
                _ => {}
            }
        }
        match timeout(Duration::from_millis(50), socket.recv_from(&mut buffer)).await {
            Ok(received) => {
                let (octets, source) = received.unwrap();
                connection.handle_datagram(Instant::now(), source, &buffer[..octets]);
            }
            Err(_) => connection.handle_timeout(Instant::now()),
        }
    }
}

#[tokio::test]
async fn an_identity_without_a_kid_and_a_wrong_name_are_refused() {
    let home = Home::knowing(&[]);
    let mut server = Server::start_with(&home, |config| config.require_sni = true);
    let alert = |alert| Closed::Failed(dtls::Error::PeerAlert(alert));
    let name = fqdn().as_str().to_owned();
    let to = server.address();
    assert_eq!(told(to, b"meter-7", Some(&name)).await, alert(Alert::UNKNOWN_PSK_IDENTITY));
    assert!(matches!(server.refusal().await, HandshakeError::NoAKid));
    assert_eq!(told(to, b"meter-7", Some("other.example")).await, alert(Alert::UNRECOGNIZED_NAME));
    assert_eq!(told(to, b"meter-7", None).await, alert(Alert::UNRECOGNIZED_NAME));
    assert_eq!(home.asked(), 0);
}

/// Forwards datagrams, from another port each time it is told to move.
struct Relay {
    address: SocketAddr,
    ports: watch::Sender<usize>,
}

impl Relay {
    async fn start(server: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let (ports, mut moves) = watch::channel(0_usize);
        tokio::spawn(async move {
            let mut back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            let mut client = None;
            let (mut there, mut here) = ([0; 4_096], [0; 4_096]);
            loop {
                tokio::select! {
                    Ok((octets, source)) = front.recv_from(&mut there) => {
                        client = Some(source);
                        back.send_to(&there[..octets], server).await.unwrap();
                    }
                    Ok(octets) = back.recv(&mut here) => {
                        if let Some(client) = client {
                            front.send_to(&here[..octets], client).await.unwrap();
                        }
                    }
                    Ok(()) = moves.changed() => back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()),
                }
            }
        });
        Self { address, ports }
    }
}

#[tokio::test]
async fn a_peer_that_moves_is_found_by_its_connection_id_and_answered_where_it_is() {
    for sockets in [1, 4] {
        let ue = Ue::number(1);
        let mut server = Server::start_with(&Home::knowing(&[&ue]), |config| config.limits.sockets = sockets);
        let relay = Relay::start(server.address()).await;
        let mut session = connect(relay.address, &ue).await.unwrap();
        server.result().await.unwrap();
        for moves in 1..=3 {
            assert_echo(&mut session, b"before").await;
            relay.ports.send_modify(|port| *port += 1);
            // The relay may take the next one before it moves.
            timeout(PATIENCE, async {
                while *server.moves.borrow() < moves {
                    assert_echo(&mut session, b"after").await;
                }
            })
            .await
            .unwrap();
        }
        drop(session);
        server.sessions_are(0).await;
    }
}

#[tokio::test]
async fn a_client_that_starts_anew_at_the_same_address_keeps_its_session_until_the_new_one_stands() {
    let ue = Ue::number(1);
    let mut server = Server::start_with(&Home::knowing(&[&ue]), |config| config.allow_plain_psk = true);
    let to = server.address();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut config = ClientConfig::new(ue.identity().as_bytes());
    // Without Connection IDs, sessions are known by their address alone.
    config.connection_id = None;
    let config = Arc::new(config);
    let mut first = Connection::client(Arc::clone(&config), Instant::now(), to).unwrap();
    run(&socket, to, &ue, &mut [&mut first], |first| first[0].is_established()).await;
    server.result().await.unwrap();
    let mut second = Connection::client(config, Instant::now(), to).unwrap();
    assert_eq!(events(&mut second, &ue), Vec::<Vec<u8>>::new());
    let hello = second.poll_transmit().unwrap();
    socket.send_to(&hello.payload, to).await.unwrap();
    first.send(Instant::now(), b"still there").unwrap();
    let mut heard = Vec::new();
    while heard.is_empty() {
        heard = run(&socket, to, &ue, &mut [&mut first], |_| true).await;
    }
    assert_eq!(heard, [(0, b"still there".to_vec())]);
    run(&socket, to, &ue, &mut [&mut first, &mut second], |both| both[1].is_established()).await;
    server.result().await.unwrap();
    server.sessions_are(1).await;
    second.send(Instant::now(), b"the new one").unwrap();
    let mut echoed = Vec::new();
    while echoed.is_empty() {
        echoed = run(&socket, to, &ue, &mut [&mut second], |_| true).await;
    }
    assert_eq!(echoed, [(0, b"the new one".to_vec())]);
}

/// Sends what a connection has from a socket, whoever's it is.
async fn flush(connection: &mut Connection, from: &UdpSocket, to: SocketAddr) {
    while let Some(transmit) = connection.poll_transmit() {
        from.send_to(&transmit.payload, to).await.unwrap();
    }
}

/// A client that does Connection IDs, or none.
fn client(ue: &Ue, to: SocketAddr, connection_id: bool) -> Connection {
    let mut config = ClientConfig::new(ue.identity().as_bytes());
    if !connection_id {
        config.connection_id = None;
    }
    Connection::client(Arc::new(config), Instant::now(), to).unwrap()
}

async fn echoed(socket: &UdpSocket, to: SocketAddr, ue: &Ue, connection: &mut Connection, said: &[u8]) {
    connection.send(Instant::now(), said).unwrap();
    let mut heard = Vec::new();
    while heard.is_empty() {
        heard = run(socket, to, ue, &mut [&mut *connection], |_| true).await;
        heard.retain(|(_, payload)| payload == said);
    }
}

#[tokio::test]
async fn a_forged_source_takes_nobodys_place() {
    let (ue, forger) = (Ue::number(1), Ue::number(2));
    let mut server = Server::start_with(&Home::knowing(&[&ue, &forger]), |config| config.allow_plain_psk = true);
    let to = server.address();
    let [own, elsewhere] =
        [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
    // Known by its address alone.
    let mut session = client(&ue, to, false);
    run(&own, to, &ue, &mut [&mut session], |all| all[0].is_established()).await;
    server.result().await.unwrap();
    // Another UE proves its own address, and goes on from the first one's.
    let mut forged = client(&forger, to, true);
    run(&elsewhere, to, &forger, &mut [&mut forged], |all| all[0].is_established()).await;
    server.result().await.unwrap();
    echoed(&elsewhere, to, &forger, &mut forged, b"from where it is").await;
    assert_eq!(server.listener.known_addresses(), 2);
    forged.send(Instant::now(), b"from where it is not").unwrap();
    flush(&mut forged, &own, to).await;
    let mut moves = server.moves.clone();
    timeout(PATIENCE, moves.wait_for(|moves| *moves == 1)).await.unwrap().unwrap();
    echoed(&own, to, &ue, &mut session, b"still there").await;
    assert_eq!((server.listener.sessions(), server.listener.known_addresses()), (2, 1));
    // The same in the middle of its handshake: the last flight comes from another's address.
    let mut forged = client(&forger, to, true);
    let mut buffer = [0; 2_048];
    loop {
        events(&mut forged, &forger);
        let from = if forged.is_established() { &own } else { &elsewhere };
        flush(&mut forged, from, to).await;
        if forged.is_established() {
            break;
        }
        match timeout(Duration::from_millis(200), elsewhere.recv_from(&mut buffer)).await {
            Ok(received) => {
                let (octets, source) = received.unwrap();
                forged.handle_datagram(Instant::now(), source, &buffer[..octets]);
                if forged.is_established() {
                    events(&mut forged, &forger);
                }
            }
            Err(_) => forged.handle_timeout(Instant::now()),
        }
    }
    forged.send(Instant::now(), b"again").unwrap();
    flush(&mut forged, &own, to).await;
    echoed(&own, to, &ue, &mut session, b"to the end").await;
}

#[tokio::test]
async fn nothing_stays_at_an_address_of_a_session_that_moved_or_ended() {
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue]));
    let to = server.address();
    let sockets = [
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    ];
    let mut session = client(&ue, to, true);
    run(&sockets[0], to, &ue, &mut [&mut session], |all| all[0].is_established()).await;
    server.result().await.unwrap();
    echoed(&sockets[0], to, &ue, &mut session, b"here").await;
    assert_eq!(server.listener.known_addresses(), 1);
    for socket in [&sockets[1], &sockets[2], &sockets[0]] {
        echoed(socket, to, &ue, &mut session, b"there").await;
        assert_eq!(server.listener.known_addresses(), 0, "found by its Connection ID, wherever it is");
    }
    session.close(Instant::now());
    flush(&mut session, &sockets[1], to).await;
    server.sessions_are(0).await;
    assert_eq!(server.listener.known_addresses(), 0);
    // One that never moved, and one that came to nothing.
    let mut session = client(&ue, to, true);
    run(&sockets[0], to, &ue, &mut [&mut session], |all| all[0].is_established()).await;
    server.result().await.unwrap();
    session.close(Instant::now());
    flush(&mut session, &sockets[0], to).await;
    server.sessions_are(0).await;
    assert!(matches!(connect(to, &Ue::number(9)).await, Err(ClientHandshakeError::UnknownIdentity)));
    server.sessions_are(0).await;
    assert_eq!(server.listener.known_addresses(), 0);
}

#[tokio::test]
async fn a_handshake_that_another_displaces_says_nothing_in_clear() {
    let (slow, ue) = (Ue::number(1), Ue::number(2));
    let home = Home::knowing(&[&slow, &ue]);
    let mut server = Server::start(&home);
    let to = server.address();
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(Arc::clone(&go_on)));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut first = client(&slow, to, true);
    run(&socket, to, &slow, &mut [&mut first], |_| home.asked() == 1).await;
    home.becomes(Mood::Answers);
    let mut second = client(&ue, to, true);
    let mut buffer = [0; 2_048];
    let mut content_types = Vec::new();
    while !second.is_established() {
        events(&mut second, &ue);
        flush(&mut second, &socket, to).await;
        match timeout(Duration::from_millis(200), socket.recv_from(&mut buffer)).await {
            Ok(received) => {
                let (octets, source) = received.unwrap();
                content_types.push(buffer[0]);
                second.handle_datagram(Instant::now(), source, &buffer[..octets]);
            }
            Err(_) => second.handle_timeout(Instant::now()),
        }
        events(&mut second, &ue);
    }
    assert!(matches!(server.refusal().await, HandshakeError::Displaced));
    flush(&mut second, &socket, to).await;
    server.result().await.unwrap();
    echoed(&socket, to, &ue, &mut second, b"stands").await;
    // RFC 6347 clause 4.1: 21 is an alert.
    assert!(!content_types.contains(&21), "{content_types:?}");
    server.metric_is("dtls_displaced_total{stage=\"handshake\"} 1").await;
    server.sessions_are(1).await;
}

/// Gives a connection its key; what it was sent.
pub(crate) fn events(connection: &mut Connection, ue: &Ue) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    while let Some(event) = connection.poll_event() {
        match event {
            Event::KeyNeeded(request) => {
                let suite = request.cipher_suite.code();
                let protocol = match suite >> 8 {
                    0x13 => akma::UaProtocolId::TLS_1_3,
                    _ => akma::UaProtocolId::tls_1_2(suite),
                };
                let key = PresharedKey::new(ue.key(protocol).expose()).unwrap();
                connection.provide_key(Instant::now(), &key).unwrap();
            }
            Event::ApplicationData { payload, .. } => heard.push(payload),
            _ => {}
        }
    }
    heard
}

/// Runs connections over one socket until `done` and silence; what they were sent, by their number.
async fn run(
    socket: &UdpSocket,
    to: SocketAddr,
    ue: &Ue,
    connections: &mut [&mut Connection],
    done: impl Fn(&[&mut Connection]) -> bool,
) -> Vec<(usize, Vec<u8>)> {
    let mut heard = Vec::new();
    let mut buffer = [0; 2_048];
    loop {
        for (number, connection) in connections.iter_mut().enumerate() {
            heard.extend(events(connection, ue).into_iter().map(|payload| (number, payload)));
            while let Some(transmit) = connection.poll_transmit() {
                socket.send_to(&transmit.payload, to).await.unwrap();
            }
        }
        match timeout(Duration::from_millis(200), socket.recv_from(&mut buffer)).await {
            Ok(received) => {
                let (octets, source) = received.unwrap();
                for connection in connections.iter_mut().rev() {
                    if connection.handle_datagram(Instant::now(), source, &buffer[..octets]) == Disposition::Taken {
                        break;
                    }
                }
            }
            Err(_) if done(connections) => return heard,
            Err(_) => connections.iter_mut().for_each(|connection| connection.handle_timeout(Instant::now())),
        }
    }
}

#[tokio::test]
async fn handshakes_are_limited_by_source_and_sessions_in_all() {
    let (first, second, third) = (Ue::number(1), Ue::number(2), Ue::number(3));
    let home = Home::knowing(&[&first, &second, &third]);
    let mut server = Server::start_with(&home, |config| {
        config.limits.in_progress_per_source_max = 1;
        config.limits.sessions_max = 2;
    });
    let to = server.address();
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(Arc::clone(&go_on)));
    let waiting = tokio::spawn(async move { connect(to, &first).await });
    server.metric_is("dtls_handshakes_in_progress 1").await;
    // One is under way from here: another one hears nothing.
    let told = connect_as(to, &second, short()).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::TimedOut), "{told}");
    home.becomes(Mood::Answers);
    go_on.notify_one();
    let _one = waiting.await.unwrap().unwrap();
    server.result().await.unwrap();
    let two = connect(to, &second).await.unwrap();
    server.result().await.unwrap();
    // There are as many sessions as there may be.
    let told = connect_as(to, &third, short()).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::TimedOut), "{told}");
    drop(two);
    server.sessions_are(1).await;
    connect(to, &third).await.unwrap();
}

#[tokio::test]
async fn what_a_session_does_not_take_is_dropped_and_the_others_are_served() {
    let (busy, other) = (Ue::number(1), Ue::number(2));
    let mut server = Server::start_with(&Home::knowing(&[&busy, &other]), |config| {
        config.limits.inbound_datagrams_max = 4;
    });
    let mut session = connect(server.address(), &busy).await.unwrap();
    server.result().await.unwrap();
    assert_echo(&mut session, b"first").await;
    server.awake.send_replace(false);
    // It waits for this one already, and falls asleep after it.
    assert_echo(&mut session, b"last").await;
    for number in 0..20_u8 {
        session.send(Instant::now(), &[number]).unwrap();
    }
    server.metric_is("dtls_datagrams_dropped_total{reason=\"session_full\"} 16").await;
    server.awake.send_replace(true);
    let mut back = HashMap::new();
    for _ in 0..4 {
        match timeout(PATIENCE, receive(&mut session)).await.unwrap() {
            LinkReceived::Datagram(datagram) => *back.entry(datagram).or_insert(0) += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(back, (0..4).map(|number| (vec![number], 1)).collect::<HashMap<_, _>>());
    let mut session = connect_as(server.address(), &other, plain_too()).await.unwrap();
    assert_echo(&mut session, b"served").await;
}

#[tokio::test]
async fn after_a_stop_nobody_new_comes_and_sessions_go_on() {
    let (first, second) = (Ue::number(1), Ue::number(2));
    let mut server = Server::start(&Home::knowing(&[&first, &second]));
    let mut session = connect(server.address(), &first).await.unwrap();
    server.result().await.unwrap();
    server.listener.stop();
    let told = connect_as(server.address(), &second, short()).await.err().unwrap();
    assert!(matches!(told, ClientHandshakeError::TimedOut), "{told}");
    assert_echo(&mut session, b"still there").await;
}

#[tokio::test]
async fn nobody_at_the_port_is_noticed_at_once() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = socket.local_addr().unwrap();
    drop(socket);
    assert!(matches!(connect(to, &Ue::number(1)).await, Err(ClientHandshakeError::Closed)));
}
