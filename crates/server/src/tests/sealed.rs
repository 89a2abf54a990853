//! Sessions over a restart: real DTLS, real files.

use std::net::SocketAddr;
use std::time::Instant as StdInstant;

use coap::{DatagramConfig, DatagramConnection, Transmission};
use transport::{
    DatagramCarrier, DatagramLink, DtlsClientConfig, DtlsClientSession, DtlsConnector, DtlsListener, DtlsServerConfig,
    LinkReceived, RestoredSession,
};

use super::*;
use crate::sealed::{Left, Vault};
use crate::sessions::Connection;

const K_AF: [u8; 32] = [1; 32];

fn fqdn() -> Fqdn {
    "msgin5g.lab.example".parse().unwrap()
}

/// Message IDs are forgotten in less than a second, and nothing need be remembered then.
fn forgetful() -> Arc<DatagramConfig> {
    let transmission = Transmission {
        ack_timeout: Duration::from_millis(20),
        max_retransmit: 3,
        max_latency: Duration::ZERO,
        piggyback_wait: Duration::from_millis(10),
        ..Transmission::default()
    };
    Arc::new(DatagramConfig { transmission, ..DatagramConfig::default() })
}

/// A UE over DTLS.
struct Device {
    link: DtlsClientSession,
    machine: DatagramConnection,
    requests: VecDeque<Request>,
}

impl Device {
    async fn connect(to: SocketAddr) -> Self {
        let a_kid = peer(None, None).a_kid;
        let connector = DtlsConnector::new(DtlsClientConfig::default());
        let link = connector.connect(to, &fqdn(), &a_kid, |_| KAf::from_bytes(K_AF)).await.unwrap();
        Self { link, machine: DatagramConnection::new(forgetful(), 9), requests: VecDeque::new() }
    }

    /// Sends, and takes what comes until something of `kind` has.
    async fn turn(&mut self) -> Option<Response> {
        while let Some(datagram) = self.machine.poll_transmit() {
            self.link.send(StdInstant::now(), &datagram).unwrap();
        }
        let due = self.machine.poll_timeout().unwrap_or_else(|| StdInstant::now() + PATIENCE);
        let receive = std::future::poll_fn(|context| self.link.poll_receive(context, StdInstant::now()));
        match tokio::time::timeout_at(due.into(), receive).await {
            Ok(LinkReceived::Datagram(datagram)) => self.machine.receive(&datagram, StdInstant::now()).unwrap(),
            Ok(other) => panic!("the session ended: {other:?}"),
            Err(_) => self.machine.handle_timeout(StdInstant::now()),
        }
        let mut answer = None;
        while let Some(event) = self.machine.poll_event() {
            match event {
                StreamEvent::Request { request } => {
                    self.machine.respond(request.exchange, Response::new(Code::CHANGED), StdInstant::now()).unwrap();
                    self.requests.push_back(request);
                }
                StreamEvent::Response { response, .. } => answer = Some(response),
                _ => {}
            }
        }
        while let Some(datagram) = self.machine.poll_transmit() {
            self.link.send(StdInstant::now(), &datagram).unwrap();
        }
        answer
    }

    async fn exchange(&mut self, payload: &[u8]) -> Response {
        let request = Request::post("msgin5g").content_format(50).payload(payload.to_vec());
        self.machine.request(request, StdInstant::now()).unwrap();
        timeout(PATIENCE, async {
            loop {
                if let Some(response) = self.turn().await {
                    break response;
                }
            }
        })
        .await
        .unwrap()
    }

    async fn received(&mut self) -> Message {
        timeout(PATIENCE, async {
            while self.requests.is_empty() {
                self.turn().await;
            }
        })
        .await
        .unwrap();
        match UeMessage::decode(&self.requests.pop_front().unwrap().payload, &DecodeLimits::default()).unwrap() {
            UeMessage::Message(message) => *message,
            other => panic!("not a message: {other:?}"),
        }
    }
}

/// The datagram listener of a start.
struct Listening {
    listener: DtlsListener,
    reader: JoinHandle<()>,
}

impl Listening {
    /// `left`: what the start before has left, and how much of it goes on.
    async fn start(net: &Net, at: SocketAddr, left: Option<Left>) -> (Self, usize) {
        let keys = net.core.keys.clone().unwrap();
        // The start before may still hold the port.
        let mut bound = None;
        until(|| {
            bound = DtlsListener::bind(at, DtlsServerConfig::new(fqdn()), Arc::clone(&keys)).ok();
            bound.is_some()
        })
        .await;
        let (listener, mut sockets) = bound.unwrap();
        let carried = |restored: RestoredSession| {
            let carrier = DatagramCarrier::new(restored.link, forgetful(), true).unwrap();
            Some(Box::new(carrier) as Box<dyn Carrier>)
        };
        let path = "msgin5g".into();
        let restored = left.map_or(0, |left| left.restore(&net.core, &listener, carried, &path));
        let (core, mut socket) = (Arc::clone(&net.core), sockets.pop().unwrap());
        let reader = tokio::spawn(async move {
            loop {
                let arrival = socket.accept().await.unwrap();
                let core = Arc::clone(&core);
                core.clone().tasks.spawn(async move {
                    let Ok(session) = arrival.handshake().await else { return };
                    let source = session.source().ip();
                    let (link, peer) = session.into_link();
                    let carrier = Box::new(DatagramCarrier::new(link, forgetful(), true).unwrap());
                    let connection = Connection::over_datagrams(&core);
                    listener::serve_until_rest(&core, connection, carrier, peer, source, "msgin5g".into()).await;
                });
            }
        });
        (Self { listener, reader }, restored)
    }

    async fn end(self) -> SocketAddr {
        self.reader.abort();
        let _ = self.reader.await;
        self.listener.local_addr()
    }
}

#[tokio::test]
async fn a_session_that_rests_goes_on_after_a_restart_and_what_was_used_opens_nothing_again() {
    let proven = ProvenKey {
        k_af: KAf::from_bytes(K_AF),
        expires_at: Some(SystemTime::now() + Duration::from_secs(3_600)),
        ue_id: Some(supi_of("meter").parse().unwrap()),
        gpsi: None,
    };
    let keys = Arc::new(Keys { answer: Mutex::new(Some(Some(proven))), ..Keys::default() });
    let limits = Limits { datagram_freeze_milliseconds: 1, ..Limits::default() };
    let net = Net::of(Setup { limits, keys: Some(keys), ..Setup::default() }).await;
    net.associate(&supi_of("meter"), "meter");
    let directory = tempfile::tempdir().unwrap();
    let files = ["sessions.sealed", "sessions.key"].map(|name| directory.path().join(name));

    let (vault, left) = Vault::open(directory.path()).unwrap();
    assert!(left.is_none());
    let (listening, _) = Listening::start(&net, "127.0.0.1:0".parse().unwrap(), left).await;
    let mut meter = Device::connect(listening.listener.local_addr()).await;
    let registration = Registration { ue_service_id: "meter".parse().unwrap(), client_profile: None };
    assert_eq!(meter.exchange(&registration.encode()).await.code, Code::CREATED);
    // What cannot be sealed yet goes on.
    until(|| vault.seal_all(&net.core).unwrap() == 1).await;
    let sealed = std::fs::read(&files[0]).unwrap();
    assert_eq!((net.core.hibernation.count(), listening.listener.sessions()), (0, 0));
    let at = listening.end().await;
    let net = net.restart().await;

    let (vault, left) = Vault::open(directory.path()).unwrap();
    assert!(!files[0].exists(), "it is used once");
    let (listening, restored) = Listening::start(&net, at, left).await;
    assert_eq!((restored, listening.listener.sessions()), (1, 1));
    // Who moves to it is told nothing, and needs no handshake.
    let mut other = net.ue("other").await;
    let out = other.post(&message("other", "meter", "1")).await;
    let (received, fate) = tokio::join!(meter.received(), other.fate(out));
    assert_eq!((received.message_id.as_str(), fate), ("1", Fate::delivered()));
    let (answer, received) =
        tokio::join!(async { meter.exchange(&message("meter", "other", "2").encode()).await }, other.receive());
    assert_eq!((Fate::of(&answer), received.message_id.as_str()), (Fate::delivered(), "2"));
    assert_eq!(listening.listener.sessions(), 1);

    // It goes on over a further one.
    until(|| vault.seal_all(&net.core).unwrap() == 1).await;
    let at = listening.end().await;
    drop(other);
    let net = net.restart().await;
    // Somebody puts back the file of the first stop: its key is no more.
    std::fs::write(&files[0], sealed).unwrap();
    let (_, left) = Vault::open(directory.path()).unwrap();
    let (listening, restored) = Listening::start(&net, at, left).await;
    assert_eq!((restored, listening.listener.sessions()), (0, 0));
}
