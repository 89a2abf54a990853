//! DTLS sessions that are frozen while they are idle: what wakes them, what does not, and who cannot be frozen.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use dtls::{CipherSuite, ClientConfig, Connection, Event, PresharedKey};
use prometheus_client::registry::Registry;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use transport::{
    DatagramLink, DtlsLink, DtlsListener, DtlsServerConfig, DtlsSession, KeyLookup, KeySource, LinkReceived,
    LookupLimits, SealingKey, TransportMetrics,
};

use crate::scene::{Home, Ue, fqdn};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The UE's end, over a socket of its own.
struct Device {
    ue: Ue,
    server: SocketAddr,
    socket: UdpSocket,
    connection: Connection,
    /// The last datagram it sent.
    sent: Vec<u8>,
}

impl Device {
    /// Sends what there is, and waits for a datagram or a while; what the server said.
    async fn turn(&mut self) -> Vec<Vec<u8>> {
        let mut heard = self.events();
        while let Some(transmit) = self.connection.poll_transmit() {
            self.socket.send_to(&transmit.payload, self.server).await.unwrap();
            self.sent = transmit.payload;
        }
        let mut buffer = [0; 2_048];
        if heard.is_empty()
            && let Ok(received) = timeout(Duration::from_millis(20), self.socket.recv_from(&mut buffer)).await
        {
            let (octets, source) = received.unwrap();
            // Wherever it is now.
            assert_eq!(source, self.server);
            let peer = self.connection.peer_address();
            self.connection.handle_datagram(Instant::now(), peer, &buffer[..octets]);
        }
        if self.connection.poll_timeout().is_some_and(|at| at <= Instant::now()) {
            self.connection.handle_timeout(Instant::now());
        }
        heard.extend(self.events());
        heard
    }

    fn events(&mut self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::KeyNeeded(request) => {
                    let suite = request.cipher_suite.code();
                    let protocol = match suite >> 8 {
                        0x13 => akma::UaProtocolId::TLS_1_3,
                        _ => akma::UaProtocolId::tls_1_2(suite),
                    };
                    let key = PresharedKey::new(self.ue.key(protocol).expose()).unwrap();
                    self.connection.provide_key(Instant::now(), &key).unwrap();
                }
                Event::ApplicationData { payload, .. } => heard.push(payload),
                _ => {}
            }
        }
        heard
    }
}

/// A server, and a device with a session of it.
struct Scene {
    registry: Registry,
    listener: DtlsListener,
    link: DtlsLink,
    device: Device,
}

impl Scene {
    async fn start(suites: &[CipherSuite], with_connection_id: bool) -> Self {
        let ue = Ue::number(1);
        let (listener, registry, mut sessions) = listen(&ue);
        let server = listener.local_addr();
        let mut config = ClientConfig::new(ue.identity().as_bytes());
        config.session.cipher_suites = suites.to_vec();
        if !with_connection_id {
            config.connection_id = None;
        }
        let connection = Connection::client(Arc::new(config), Instant::now(), server).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut device = Device { ue, server, socket, connection, sent: Vec::new() };
        let session = loop {
            device.turn().await;
            if let Ok(session) = sessions.try_recv() {
                break session;
            }
        };
        let mut scene = Self { registry, listener, link: session.into_link().0, device };
        scene.asks(b"first").await;
        scene
    }

    /// From the device to the server and back.
    async fn asks(&mut self, octets: &[u8]) {
        while !self.device.connection.is_established() {
            self.device.turn().await;
        }
        self.device.connection.send(Instant::now(), octets).unwrap();
        self.echo(octets).await;
    }

    /// The server echoes what the device has sent.
    async fn echo(&mut self, octets: &[u8]) {
        let (device, link) = (&mut self.device, &mut self.link);
        let echoes = async {
            match receive(link).await {
                LinkReceived::Datagram(datagram) => link.send(Instant::now(), &datagram).unwrap(),
                other => panic!("{other:?}"),
            }
            std::future::pending::<()>().await;
        };
        let hears = async {
            loop {
                let heard = device.turn().await;
                if !heard.is_empty() {
                    break heard;
                }
            }
        };
        let heard = timeout(PATIENCE, async {
            tokio::select! {
                heard = hears => heard,
                () = echoes => unreachable!(),
            }
        });
        assert_eq!(heard.await.unwrap(), [octets]);
    }

    /// Freezes the session once nothing of the handshake is held any more.
    async fn freeze(&mut self) {
        timeout(PATIENCE, async {
            while !self.link.freeze() {
                self.device.turn().await;
                self.link.handle_timeout(Instant::now());
            }
        })
        .await
        .unwrap();
        assert!(self.shows("dtls_sessions_frozen 1"));
        assert_eq!(self.link.poll_timeout(), None);
    }

    fn shows(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().any(|other| other == line)
    }

    async fn until_shown(&self, line: &str) {
        timeout(PATIENCE, async {
            while !self.shows(line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no {line}"));
    }
}

/// A start of the server, and the sessions that are made at it.
fn listen(ue: &Ue) -> (DtlsListener, Registry, mpsc::UnboundedReceiver<DtlsSession>) {
    let mut registry = Registry::default();
    let metrics = TransportMetrics::register(&mut registry);
    let source: Arc<dyn KeySource> = Home::knowing(&[ue]);
    let lookup = Arc::new(KeyLookup::new(source, fqdn(), LookupLimits::default(), metrics));
    let config = DtlsServerConfig::new(fqdn());
    let (listener, mut sockets) = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config, lookup).unwrap();
    let (tell, sessions) = mpsc::unbounded_channel::<DtlsSession>();
    let mut accepting = sockets.pop().unwrap();
    tokio::spawn(async move {
        loop {
            let arrival = accepting.accept().await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move { tell.send(arrival.handshake().await.unwrap()).unwrap() });
        }
    });
    (listener, registry, sessions)
}

async fn receive(link: &mut DtlsLink) -> LinkReceived {
    poll_fn(|context| link.poll_receive(context, Instant::now())).await
}

const DTLS12: &[CipherSuite] = &[CipherSuite::EcdhePskAes128Gcm];
const DTLS13: &[CipherSuite] = &[CipherSuite::Aes128Gcm];

#[tokio::test]
async fn a_frozen_session_goes_on_with_what_either_side_sends() {
    for suites in [DTLS12, DTLS13] {
        let mut scene = Scene::start(suites, true).await;
        for _ in 0..3 {
            scene.freeze().await;
            scene.asks(b"from the device").await;
            assert!(scene.shows("dtls_sessions_frozen 0"));
            scene.freeze().await;
            scene.link.send(Instant::now(), b"from the server").unwrap();
            let heard = timeout(PATIENCE, async {
                loop {
                    let heard = scene.device.turn().await;
                    if !heard.is_empty() {
                        break heard;
                    }
                }
            });
            assert_eq!(heard.await.unwrap(), [b"from the server"]);
        }
        assert!(scene.shows("dtls_thaws_total{outcome=\"thawed\"} 6"));
        assert!(scene.shows("dtls_freezes_total 6"));
        assert_eq!(scene.listener.sessions(), 1);
    }
}

#[tokio::test]
async fn a_frozen_session_is_found_at_another_address() {
    for suites in [DTLS12, DTLS13] {
        let mut scene = Scene::start(suites, true).await;
        scene.freeze().await;
        scene.device.socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        scene.device.connection.send(Instant::now(), b"moved").unwrap();
        scene.device.turn().await;
        assert!(matches!(timeout(PATIENCE, receive(&mut scene.link)).await.unwrap(), LinkReceived::Moved));
        scene.echo(b"moved").await;
    }
}

#[tokio::test]
async fn what_is_not_authentic_or_a_copy_leaves_a_session_frozen() {
    for suites in [DTLS12, DTLS13] {
        let mut scene = Scene::start(suites, true).await;
        let copy = scene.device.sent.clone();
        let mut forged = copy.clone();
        *forged.last_mut().unwrap() ^= 1;
        scene.freeze().await;
        let mut context = Context::from_waker(Waker::noop());
        for (number, octets) in [&copy, &forged].into_iter().enumerate() {
            scene.device.socket.send_to(octets, scene.device.server).await.unwrap();
            // It was looked at.
            scene.until_shown(&format!("dtls_thaws_total{{outcome=\"thawed\"}} {}", number + 1)).await;
            scene.until_shown("dtls_sessions_frozen 1").await;
            assert!(matches!(scene.link.poll_receive(&mut context, Instant::now()), Poll::Pending));
        }
        scene.asks(b"still there").await;
    }
}

#[tokio::test]
async fn a_record_that_may_be_a_finished_is_answered_and_leaves_a_session_frozen() {
    let mut scene = Scene::start(DTLS13, true).await;
    let mut unreadable = scene.device.sent.clone();
    unreadable.resize(200, 0x5a);
    // The handshake's epoch, which is not read any more.
    unreadable[0] = unreadable[0] & !3 | 2;
    scene.freeze().await;
    let device = &scene.device;
    let mut buffer = [0; 2_048];
    while device.socket.try_recv(&mut buffer).is_ok() {}
    // Wherever it comes from, the device hears of it.
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    elsewhere.send_to(&unreadable, device.server).await.unwrap();
    let octets = timeout(PATIENCE, device.socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert!(octets < unreadable.len());
    scene.until_shown("dtls_thaws_total{outcome=\"thawed\"} 1").await;
    scene.until_shown("dtls_sessions_frozen 1").await;
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(scene.link.poll_receive(&mut context, Instant::now()), Poll::Pending));
    scene.asks(b"still there").await;
}

#[tokio::test]
async fn a_session_without_a_connection_id_is_not_frozen() {
    let mut scene = Scene::start(DTLS12, false).await;
    scene.device.turn().await;
    assert!(!scene.link.freeze());
    scene.asks(b"as before").await;
    assert!(scene.shows("dtls_sessions_frozen 0"));
}

#[tokio::test]
async fn a_frozen_session_that_is_dropped_tells_its_peer_and_is_gone() {
    let mut scene = Scene::start(DTLS13, true).await;
    scene.freeze().await;
    drop(scene.link);
    timeout(PATIENCE, async {
        while !scene.device.connection.is_closed() {
            scene.device.turn().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(scene.listener.sessions(), 0);
}

#[tokio::test]
async fn a_sealed_session_goes_on_at_another_start_and_only_once() {
    for suites in [DTLS12, DTLS13] {
        let mut scene = Scene::start(suites, true).await;
        scene.freeze().await;
        let (seals, opens) = (SealingKey::new(&[7; 32], 1).unwrap(), SealingKey::new(&[7; 32], 2).unwrap());
        let sealed = scene.link.seal(&seals, b"whose").unwrap();
        assert_eq!(scene.link.seal(&seals, &[]), None, "it is not here any more");
        assert!(!scene.link.freeze());
        // Whoever has it is not told that it has ended: it may go on.
        assert!(matches!(
            scene.link.poll_receive(&mut Context::from_waker(Waker::noop()), Instant::now()),
            Poll::Pending
        ));
        let (listener, registry, _sessions) = listen(&scene.device.ue);
        let other_key = SealingKey::new(&[8; 32], 2).unwrap();
        assert_eq!(listener.restore(&sealed, &other_key).unwrap_err(), dtls::Error::FrozenForm);
        let restored = listener.restore(&sealed, &opens).unwrap();
        assert_eq!(listener.restore(&sealed, &opens).unwrap_err(), dtls::Error::OpenedBefore);
        assert_eq!((listener.sessions(), restored.attached.as_slice()), (1, b"whose".as_slice()));
        // The first start ends without a word to the device.
        scene.link = restored.link;
        (scene.device.server, scene.listener, scene.registry) = (listener.local_addr(), listener, registry);
        assert!(scene.shows("dtls_sessions_frozen 1"));
        scene.asks(b"as if nothing had happened").await;
        scene.freeze().await;
        scene.asks(b"and on").await;
    }
}

#[tokio::test]
async fn a_sealed_session_goes_on_over_any_number_of_starts_in_a_row() {
    for suites in [DTLS12, DTLS13] {
        let mut scene = Scene::start(suites, true).await;
        scene.freeze().await;
        for start in 0..20 {
            let [seals, opens] = [1, 2].map(|number| SealingKey::new(&[start; 32], number).unwrap());
            let sealed = scene.link.seal(&seals, &[]).unwrap();
            let (listener, registry, _sessions) = listen(&scene.device.ue);
            scene.link = listener.restore(&sealed, &opens).unwrap().link;
            (scene.listener, scene.registry) = (listener, registry);
        }
        // The server speaks first: the device has heard nothing of it all the while.
        scene.device.server = scene.listener.local_addr();
        let heard = timeout(PATIENCE, async {
            loop {
                // A socket that was bound just now may drop the first ones.
                scene.link.send(Instant::now(), b"from the server").unwrap();
                let heard = scene.device.turn().await;
                if !heard.is_empty() {
                    break heard;
                }
            }
        });
        assert_eq!(heard.await.unwrap(), [b"from the server"]);
    }
}
