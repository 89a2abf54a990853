//! A home network in a table, a server that answers everything with its echo, and raw TLS octets.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use akma::{AKid, AfId, Fqdn, KAf, KAkma, UaProtocolId, k_af};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};
use transport::{
    BoxFuture, ClientHandshakeError, ClientStream, HandshakeError, KeyLookup, KeySource, KeySourceError, LookupLimits,
    ProvenKey, ProvenPeer, PskAcceptor, PskClientConfig, PskConnector, PskServerConfig, TransportMetrics,
};

pub(crate) const FQDN: &str = "msgin5g.lab.example";
pub(crate) const UE_ID: &str = "msisdn-491700000001";

pub(crate) fn fqdn() -> Fqdn {
    FQDN.parse().unwrap()
}

/// A UE that has authenticated: its A-KID and K_AKMA.
#[derive(Clone)]
pub(crate) struct Ue {
    pub(crate) a_kid: AKid,
    pub(crate) k_akma: KAkma,
}

impl Ue {
    pub(crate) fn number(number: u8) -> Self {
        let a_kid = format!("0.{}@5gc.mnc001.mcc001.3gppnetwork.org", hex::encode([number; 32]));
        Self { a_kid: a_kid.parse().unwrap(), k_akma: KAkma::from_bytes([number; 32]) }
    }

    pub(crate) fn key(&self, protocol: UaProtocolId) -> KAf {
        k_af(&self.k_akma, &AfId::new(fqdn(), protocol))
    }

    pub(crate) fn identity(&self) -> String {
        format!("3GPP-AKMA;{}", self.a_kid)
    }
}

/// How the home network answers.
#[derive(Clone)]
pub(crate) enum Mood {
    Answers,
    AnswersExpired,
    /// Answers when told to go on.
    Waits(Arc<Notify>),
    Silent,
    Fails(KeySourceError),
    Panics,
}

/// The home network: derives K_AF as an AAnF does, for the UEs it knows.
pub(crate) struct Home {
    ues: Mutex<HashMap<AKid, KAkma>>,
    mood: Mutex<Mood>,
    pub(crate) asked: AtomicUsize,
}

impl Home {
    pub(crate) fn knowing(ues: &[&Ue]) -> Arc<Self> {
        let ues = ues.iter().map(|ue| (ue.a_kid.clone(), ue.k_akma.clone())).collect();
        Arc::new(Self { ues: Mutex::new(ues), mood: Mutex::new(Mood::Answers), asked: AtomicUsize::new(0) })
    }

    pub(crate) fn becomes(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn learns(&self, ue: &Ue) {
        self.ues.lock().unwrap().insert(ue.a_kid.clone(), ue.k_akma.clone());
    }

    pub(crate) fn forgets(&self, ue: &Ue) {
        self.ues.lock().unwrap().remove(&ue.a_kid);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn answer(&self, af_id: &AfId, a_kid: &AKid, lifetime: Option<Duration>) -> Option<ProvenKey> {
        let ues = self.ues.lock().unwrap();
        let k_akma = ues.get(a_kid)?;
        let expires_at = lifetime.map_or(SystemTime::now() - Duration::from_secs(1), |life| SystemTime::now() + life);
        Some(ProvenKey {
            k_af: k_af(k_akma, af_id),
            expires_at: Some(expires_at),
            ue_id: Some(UE_ID.parse().unwrap()),
            gpsi: None,
        })
    }
}

impl KeySource for Home {
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mood = self.mood.lock().unwrap().clone();
        Box::pin(async move {
            let hour = Some(Duration::from_secs(3600));
            match mood {
                Mood::Answers => Ok(self.answer(&af_id, &a_kid, hour)),
                Mood::AnswersExpired => Ok(self.answer(&af_id, &a_kid, None)),
                Mood::Waits(go_on) => {
                    go_on.notified().await;
                    Ok(self.answer(&af_id, &a_kid, hour))
                }
                Mood::Silent => std::future::pending().await,
                Mood::Fails(error) => Err(error),
                Mood::Panics => panic!("the key source breaks"),
            }
        })
    }
}

/// Connects, and holds the home network's answer back for a while: what comes of it, and from when to when the home network can
/// have been asked. It answers only after that.
pub(crate) async fn with_the_answer_held<T>(
    home: &Home,
    connecting: impl Future<Output = T>,
) -> (T, RangeInclusive<Instant>) {
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(Arc::clone(&go_on)));
    let (begun, asked) = (Instant::now(), home.asked());
    let meanwhile = async {
        while home.asked() == asked {
            sleep(Duration::from_millis(5)).await;
        }
        let held_until = Instant::now();
        go_on.notify_one();
        held_until
    };
    let (connected, held_until) = tokio::join!(connecting, meanwhile);
    (connected, begun..=held_until)
}

/// A server on a loopback port.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    results: mpsc::UnboundedReceiver<Result<ProvenPeer, HandshakeError>>,
    registry: Registry,
}

impl Server {
    pub(crate) async fn start(home: &Arc<Home>) -> Self {
        Self::start_with(home, |_| {}, |_| {}).await
    }

    pub(crate) async fn start_with(
        home: &Arc<Home>,
        config: impl FnOnce(&mut PskServerConfig),
        limits: impl FnOnce(&mut LookupLimits),
    ) -> Self {
        let mut registry = Registry::default();
        let metrics = TransportMetrics::register(&mut registry);
        let mut lookup_limits = LookupLimits::default();
        limits(&mut lookup_limits);
        let source: Arc<dyn KeySource> = home.clone();
        let lookup = Arc::new(KeyLookup::new(source, fqdn(), lookup_limits, metrics));
        let mut server_config = PskServerConfig::new(fqdn());
        config(&mut server_config);
        let acceptor = PskAcceptor::new(server_config, lookup).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, results) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, source)) = listener.accept().await {
                let (acceptor, tell) = (acceptor.clone(), tell.clone());
                tokio::spawn(async move {
                    match acceptor.accept(socket, source).await {
                        Ok(mut stream) => {
                            let _ = tell.send(Ok(stream.peer().clone()));
                            let mut octets = vec![0; 16_384];
                            while let Ok(read @ 1..) = stream.read(&mut octets).await {
                                if stream.write_all(&octets[..read]).await.is_err() || stream.flush().await.is_err() {
                                    break;
                                }
                            }
                            let _ = stream.shutdown().await;
                        }
                        Err(error) => drop(tell.send(Err(error))),
                    }
                });
            }
        });
        Self { address, results, registry }
    }

    /// How the next handshake to end ended.
    pub(crate) async fn result(&mut self) -> Result<ProvenPeer, HandshakeError> {
        self.results.recv().await.unwrap()
    }

    pub(crate) async fn refusal(&mut self) -> HandshakeError {
        self.result().await.expect_err("the handshake was accepted")
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    pub(crate) async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection from another loopback address.
    pub(crate) async fn socket_from(&self, source: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    pub(crate) async fn connect(&self, ue: &Ue) -> Result<ClientStream, ClientHandshakeError> {
        self.connect_as(ue, PskClientConfig::default()).await
    }

    pub(crate) async fn connect_as(
        &self,
        ue: &Ue,
        config: PskClientConfig,
    ) -> Result<ClientStream, ClientHandshakeError> {
        let connector = PskConnector::new(config).unwrap();
        connector.connect(self.socket().await, &fqdn(), &ue.a_kid, |protocol| ue.key(protocol)).await
    }

    /// Sends octets, and tells what comes back until the server closes.
    pub(crate) async fn say(&self, octets: &[u8]) -> Vec<u8> {
        let mut socket = self.socket().await;
        let _ = socket.write_all(octets).await;
        heard(&mut socket).await
    }
}

/// Everything until the other side closes, or resets.
pub(crate) async fn heard(socket: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard).await;
    heard
}

pub(crate) async fn assert_echo(stream: &mut ClientStream, octets: &[u8]) {
    stream.write_all(octets).await.unwrap();
    let mut back = vec![0; octets.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert!(back == octets, "the echo differs");
}

/// A fatal alert in plaintext.
pub(crate) fn alert(description: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description]
}

/// A ClientHello made by hand.
pub(crate) struct HelloByHand {
    pub(crate) server_name: Option<&'static str>,
    pub(crate) versions: Vec<u16>,
    pub(crate) suites: Vec<u16>,
    pub(crate) psk_modes: Vec<u8>,
    pub(crate) identities: Vec<String>,
    pub(crate) early_data: bool,
}

impl HelloByHand {
    /// TLS 1.3 with psk_dhe_ke, whose binders are wrong.
    pub(crate) fn tls13(identities: &[String]) -> Self {
        Self {
            server_name: Some(FQDN),
            versions: vec![0x0304],
            suites: vec![0x1301],
            psk_modes: vec![1],
            identities: identities.to_vec(),
            early_data: false,
        }
    }

    pub(crate) fn record(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        let mut add = |kind: u16, content: &[u8]| {
            extensions.extend(kind.to_be_bytes());
            extensions.extend(vector16(content));
        };
        if let Some(name) = self.server_name {
            add(0, &vector16(&[&[0], vector16(name.as_bytes()).as_slice()].concat()));
        }
        add(10, &vector16(&[0, 29]));
        add(13, &vector16(&[4, 3]));
        let key_share = [&[0, 29], vector16(&[9; 32]).as_slice()].concat();
        add(51, &vector16(&key_share));
        if !self.versions.is_empty() {
            add(43, &vector8(&words(&self.versions)));
        }
        if !self.psk_modes.is_empty() {
            add(45, &vector8(&self.psk_modes));
        }
        if self.early_data {
            add(42, &[]);
        }
        if !self.identities.is_empty() {
            let identities: Vec<u8> =
                self.identities.iter().flat_map(|id| [vector16(id.as_bytes()), vec![0; 4]].concat()).collect();
            let binders: Vec<u8> = self.identities.iter().flat_map(|_| vector8(&[7; 32])).collect();
            add(41, &[vector16(&identities), vector16(&binders)].concat());
        }
        let mut body = vec![3, 3];
        body.extend([5; 32]);
        body.extend(vector8(&[6; 32]));
        body.extend(vector16(&words(&self.suites)));
        body.extend([1, 0]);
        body.extend(vector16(&extensions));
        record(&message(1, &body))
    }
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind, length[1], length[2], length[3]], body].concat()
}

pub(crate) fn record(fragment: &[u8]) -> Vec<u8> {
    [&[22, 3, 1], vector16(fragment).as_slice()].concat()
}

pub(crate) fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn vector8(content: &[u8]) -> Vec<u8> {
    [&[content.len() as u8], content].concat()
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
