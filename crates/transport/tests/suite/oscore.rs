//! OSCORE with keys from AKMA over real sockets: what is served, what is refused, and what an unproven peer costs.

mod limits;
mod moving;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use akma::{KAf, UaProtocolId};
use coap::oscore::{
    AkmaRequest, Durability, KeyId, Message, OscoreConnection, Provenance, SecurityContext, UA_PROTOCOL_OSCORE,
};
use coap::{
    Code, Connection, ConnectionEvent, DatagramConfig, DatagramConnection, Request, Response, StreamConfig,
    StreamConnection, Unbound,
};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{sleep_until, timeout};
use transport::oscore::{
    OscoreConnector, OscoreLimits, OscoreMetrics, OscoreTcpAcceptor, OscoreUdpConfig, OscoreUdpListener,
};
use transport::{
    Carrier, ClientHandshakeError, KeyLookup, KeySource, LookupLimits, ProvenPeer, Received, TransportMetrics,
};

use crate::scene::{Home, Mood, UE_ID, Ue, fqdn, with_the_answer_held};
use transport::testing::SecurityLog;

const PATIENCE: Duration = Duration::from_secs(60);
const ECHO: u16 = 252;

fn key(ue: &Ue) -> KAf {
    ue.key(UaProtocolId::from_bytes(UA_PROTOCOL_OSCORE))
}

/// Serves both transports, each request with its payload, until it is dropped.
struct Server {
    udp: SocketAddr,
    tcp: SocketAddr,
    registry: Registry,
    peers: tokio::sync::mpsc::UnboundedReceiver<ProvenPeer>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Server {
    async fn start(home: &Arc<Home>) -> Self {
        Self::start_with(home, OscoreLimits::default()).await
    }

    async fn start_with(home: &Arc<Home>, limits: OscoreLimits) -> Self {
        Self::start_that(true, home, limits).await
    }

    /// One that takes nobody's session over UDP lets those wait that begin.
    async fn start_that(accepts: bool, home: &Arc<Home>, limits: OscoreLimits) -> Self {
        let mut registry = Registry::default();
        let source: Arc<dyn KeySource> = home.clone();
        let lookup = KeyLookup::new(source, fqdn(), LookupLimits::default(), TransportMetrics::default());
        let (lookup, metrics) = (Arc::new(lookup), OscoreMetrics::register(&mut registry));
        let config = OscoreUdpConfig { datagrams: Arc::new(DatagramConfig::default()), limits: limits.clone() };
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut listener = OscoreUdpListener::start(socket, config, Arc::clone(&lookup), metrics.clone()).unwrap();
        let udp = listener.local_addr();
        let (tell, peers) = tokio::sync::mpsc::unbounded_channel();
        let told = tell.clone();
        let over_udp = tokio::spawn(async move {
            if !accepts {
                std::future::pending::<()>().await;
            }
            while let Some(accepted) = listener.accept().await {
                let _ = told.send(accepted.peer);
                tokio::spawn(serve(Box::new(accepted.carrier)));
            }
        });
        let acceptor = OscoreTcpAcceptor::new(StreamConfig::default(), limits, lookup, metrics);
        let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = sockets.local_addr().unwrap();
        let over_tcp = tokio::spawn(async move {
            while let Ok((stream, source)) = sockets.accept().await {
                let (acceptor, tell) = (acceptor.clone(), tell.clone());
                tokio::spawn(async move {
                    if let Ok((carrier, peer)) = acceptor.accept(stream, source).await {
                        let _ = tell.send(peer);
                        serve(Box::new(carrier)).await;
                    }
                });
            }
        });
        Self { udp, tcp, registry, peers, tasks: vec![over_udp, over_tcp] }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    async fn until_metric(&self, line: &str) {
        self.until_any(line, |found| found == line).await;
    }

    /// Waits until this was refused at least once.
    async fn until_refused(&self, reason: &str) {
        let counter = format!("oscore_refused_total{{reason=\"{reason}\"}} ");
        self.until_any(&counter, |found| found.starts_with(&counter) && !found.ends_with(" 0")).await;
    }

    async fn until_any(&self, line: &str, is_it: impl Fn(&str) -> bool) {
        let seen = async {
            while !self.metrics().lines().any(&is_it) {
                tokio::task::yield_now().await;
            }
        };
        if timeout(PATIENCE, seen).await.is_err() {
            panic!("no {line} in {}", self.metrics());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The next thing that happens on a carrier; none when it is over.
async fn event(carrier: &mut Box<dyn Carrier>) -> Option<ConnectionEvent> {
    loop {
        if let Some(event) = carrier.poll_event() {
            return Some(event);
        }
        let due = carrier.poll_timeout().map(tokio::time::Instant::from_std);
        let io = poll_fn(|context| {
            if carrier.poll_send(context).is_err() {
                return Poll::Ready(true);
            }
            let received = carrier.poll_receive(context, Instant::now());
            received.map(|received| !matches!(received, Received::Something | Received::Unverified))
        });
        let over = tokio::select! {
            over = io => over,
            () = sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                carrier.handle_timeout(Instant::now());
                false
            }
        };
        if over {
            return None;
        }
    }
}

/// Answers each request with its payload; asks back once if that is `ask back`, and again if that is answered `go on`.
async fn serve(mut carrier: Box<dyn Carrier>) {
    while let Some(event) = event(&mut carrier).await {
        if matches!(&event, ConnectionEvent::Response { response, .. } if response.payload == b"go on") {
            carrier.coap_mut().request(&Request::post("again"), Instant::now()).unwrap();
        } else if let ConnectionEvent::Request { request } = event {
            let now = Instant::now();
            let answer = Response::new(Code::CHANGED).with_payload(request.payload.clone());
            carrier.coap_mut().respond(request.exchange, &answer, now).unwrap();
            if request.payload == b"ask back" {
                carrier.coap_mut().request(&Request::post("back").payload(&b"back"[..]), now).unwrap();
            }
        }
    }
}

fn connector() -> OscoreConnector {
    OscoreConnector::new(Arc::new(DatagramConfig::default()), StreamConfig::default())
}

async fn over_udp(server: &Server, ue: &Ue) -> Result<Box<dyn Carrier>, ClientHandshakeError> {
    let connecting = connector();
    let carrier = timeout(PATIENCE, connecting.connect_udp(server.udp, &ue.a_kid, &key(ue))).await.unwrap()?;
    Ok(Box::new(carrier))
}

async fn over_tcp(server: &Server, ue: &Ue) -> Result<Box<dyn Carrier>, ClientHandshakeError> {
    let stream = TcpStream::connect(server.tcp).await.unwrap();
    let connecting = connector();
    let carrier = timeout(PATIENCE, connecting.connect_tcp(stream, &ue.a_kid, &key(ue))).await.unwrap()?;
    Ok(Box::new(carrier))
}

async fn assert_echo(carrier: &mut Box<dyn Carrier>, payload: &[u8]) {
    let request = Request::post("msgin5g").payload(payload);
    let exchange = carrier.coap_mut().request(&request, Instant::now()).unwrap();
    match timeout(PATIENCE, event(carrier)).await.unwrap() {
        Some(ConnectionEvent::Response { exchange: answered, response }) => {
            assert_eq!((answered, response.code), (exchange, Code::CHANGED));
            assert!(response.payload == payload, "the answer differs");
        }
        other => panic!("{other:?}"),
    }
}

async fn assert_serves_both_ways(carrier: &mut Box<dyn Carrier>) {
    assert_echo(carrier, b"measured").await;
    assert_echo(carrier, &[7; 10_000]).await;
    let request = Request::post("msgin5g").payload(&b"ask back"[..]);
    carrier.coap_mut().request(&request, Instant::now()).unwrap();
    let (mut answered, mut asked) = (false, false);
    while !(answered && asked) {
        match timeout(PATIENCE, event(carrier)).await.unwrap().unwrap() {
            ConnectionEvent::Response { response, .. } => answered = response.payload == b"ask back",
            ConnectionEvent::Request { request } => {
                asked = request.payload == b"back";
                carrier.coap_mut().respond(request.exchange, &Response::new(Code::CHANGED), Instant::now()).unwrap();
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_ue_that_holds_k_af_is_served_both_ways_over_udp() {
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    let mut carrier = over_udp(&server, &ue).await.unwrap();
    assert_serves_both_ways(&mut carrier).await;
    let peer = server.peers.recv().await.unwrap();
    assert_eq!(peer.a_kid, ue.a_kid);
    assert_eq!(peer.ue_id.unwrap().as_str(), UE_ID);
    assert_eq!(peer.protocol.to_bytes(), UA_PROTOCOL_OSCORE);
    assert!(peer.expires_at.is_some());
    assert!(server.metrics().contains("oscore_contexts 1"), "{}", server.metrics());
}

#[tokio::test]
async fn a_ue_that_holds_k_af_is_served_both_ways_over_tcp() {
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    let mut carrier = over_tcp(&server, &ue).await.unwrap();
    assert_serves_both_ways(&mut carrier).await;
    assert_eq!(server.peers.recv().await.unwrap().a_kid, ue.a_kid);
    drop(carrier);
    server.until_metric("oscore_contexts 0").await;
}

#[tokio::test]
async fn over_oscore_a_peer_has_the_time_at_which_the_key_server_was_asked() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home).await;
    let (carrier, asked) = with_the_answer_held(&home, over_udp(&server, &ue)).await;
    let mut carrier = carrier.unwrap();
    // A context has a peer once something has come under it.
    assert_echo(&mut carrier, b"measured").await;
    assert!(asked.contains(&server.peers.recv().await.unwrap().asked_at));
    let (carrier, asked) = with_the_answer_held(&home, over_tcp(&server, &ue)).await;
    let mut carrier = carrier.unwrap();
    assert_echo(&mut carrier, b"measured").await;
    assert!(asked.contains(&server.peers.recv().await.unwrap().asked_at));
}

#[tokio::test]
async fn an_unknown_a_kid_is_told_so() {
    let server = Server::start(&Home::knowing(&[])).await;
    let refused = over_udp(&server, &Ue::number(2)).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::UnknownIdentity)), "{refused:?}");
    let refused = over_tcp(&server, &Ue::number(3)).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::UnknownIdentity)), "{refused:?}");
}

#[tokio::test]
async fn another_key_proves_nothing_and_begins_no_session() {
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    let wrong = Ue { k_akma: Ue::number(9).k_akma, ..ue.clone() };
    let refused = over_udp(&server, &wrong).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::WrongKey)), "{refused:?}");
    let refused = over_tcp(&server, &wrong).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::WrongKey)), "{refused:?}");
    assert!(server.peers.try_recv().is_err());
    over_udp(&server, &ue).await.expect("nothing of it stands in the way of the UE itself");
}

#[tokio::test]
async fn a_home_network_that_does_not_answer_is_told_as_busy() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Fails(transport::KeySourceError::Unavailable("gone".into())));
    let server = Server::start(&home).await;
    let refused = over_udp(&server, &ue).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::Busy)), "{refused:?}");
    home.becomes(Mood::AnswersExpired);
    let refused = over_udp(&server, &ue).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::UnknownIdentity)), "{refused:?}");
}

/// A UE by hand: what is sent and what comes is seen as it is.
struct ByHand {
    socket: UdpSocket,
    machine: OscoreConnection<DatagramConnection>,
}

async fn said(socket: &UdpSocket) -> Vec<u8> {
    let mut octets = [0; 2_048];
    let count = timeout(PATIENCE, socket.recv(&mut octets)).await.unwrap().unwrap();
    octets[..count].to_vec()
}

async fn socket_to(server: &Server) -> UdpSocket {
    socket_at("127.0.0.1:0", server).await
}

async fn socket_at(address: &str, server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind(address).await.unwrap();
    socket.connect(server.udp).await.unwrap();
    socket
}

/// A confirmable request as a datagram.
fn datagram(message: &Message, message_id: u16) -> Vec<u8> {
    let [high, low] = message_id.to_be_bytes();
    let mut datagram = vec![0x41, message.code().octet(), high, low, 0x7f];
    datagram.extend_from_slice(message.body());
    datagram
}

fn akma_request(ue: &Ue) -> AkmaRequest {
    AkmaRequest::new(ue.a_kid.as_str(), &[0x11; 16], KeyId::new(&[1]).unwrap()).unwrap()
}

fn with_echo(request: &Message, echo: &[u8]) -> Message {
    let mut options: Vec<(u16, &[u8])> = request.options().collect();
    options.push((ECHO, echo));
    Message::new(request.code(), &options, request.payload()).unwrap()
}

/// What `/akma` answers to a source that has proven where it is.
async fn agree(socket: &UdpSocket, request: &AkmaRequest, message_id: u16) -> Message {
    let message = request.to_message().unwrap();
    socket.send(&datagram(&message, message_id)).await.unwrap();
    let challenge = Unbound::parse(&said(socket).await).unwrap();
    let echo = challenge.message().option(ECHO).expect("a challenge").to_vec();
    socket.send(&datagram(&with_echo(&message, &echo), message_id.wrapping_add(1))).await.unwrap();
    Unbound::parse(&said(socket).await).unwrap().message().clone()
}

impl ByHand {
    async fn agree(server: &Server, ue: &Ue) -> Self {
        let socket = socket_to(server).await;
        let request = akma_request(ue);
        let answer = agree(&socket, &request, 100).await;
        let parameters = request.complete(key(ue).expose(), &answer).unwrap();
        let context = SecurityContext::fresh(&parameters, Durability::Volatile).unwrap();
        let outer = DatagramConnection::new(Arc::new(DatagramConfig::default()), 5).for_oscore();
        Self { socket, machine: OscoreConnection::new(outer, context) }
    }

    /// A protected request as a datagram.
    fn request(&mut self, payload: &[u8]) -> Vec<u8> {
        self.machine.request(&Request::post("x").payload(payload), Instant::now()).unwrap();
        self.machine.poll_transmit().unwrap()
    }

    /// The payload of the answer that comes next.
    async fn answer(&mut self) -> Vec<u8> {
        loop {
            self.machine.receive(&said(&self.socket).await, Instant::now()).unwrap();
            // A Ping to a new address.
            while let Some(datagram) = self.machine.poll_transmit() {
                self.socket.send(&datagram).await.unwrap();
            }
            match self.machine.poll_event() {
                Some(ConnectionEvent::Response { response, .. }) => return response.payload,
                None => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn request_to_ask_back(&mut self) {
        self.machine.request(&Request::post("x").payload(&b"ask back"[..]), Instant::now()).unwrap();
    }

    /// Sends what it has, and takes what comes until the server asks for `path`; it goes on wherever it is asked.
    async fn until_asked(&mut self, path: &str) {
        loop {
            while let Some(datagram) = self.machine.poll_transmit() {
                self.socket.send(&datagram).await.unwrap();
            }
            self.machine.receive(&said(&self.socket).await, Instant::now()).unwrap();
            while let Some(event) = self.machine.poll_event() {
                let ConnectionEvent::Request { request } = event else { continue };
                let answer = Response::new(Code::CHANGED).with_payload(&b"go on"[..]);
                self.machine.respond(request.exchange, &answer, Instant::now()).unwrap();
                if request.path == [path] {
                    return;
                }
            }
        }
    }

    /// The code of an answer that nothing protects.
    async fn refusal(&self) -> Code {
        let answer = Unbound::parse(&said(&self.socket).await).unwrap();
        assert!(!answer.is_protected());
        answer.message().code()
    }
}

#[tokio::test]
async fn a_source_that_has_not_shown_where_it_is_costs_no_lookup_and_gets_less_than_it_sends() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let server = Server::start(&home).await;
    let socket = socket_to(&server).await;
    let request = akma_request(&ue).to_message().unwrap();
    for message_id in 0..50 {
        let asked = datagram(&request, message_id);
        socket.send(&asked).await.unwrap();
        let answer = said(&socket).await;
        assert!(answer.len() < asked.len());
        assert_eq!(Unbound::parse(&answer).unwrap().message().code(), Code::UNAUTHORIZED);
    }
    // An Echo that is somebody else's.
    let elsewhere = socket_to(&server).await;
    elsewhere.send(&datagram(&request, 1)).await.unwrap();
    let echo = Unbound::parse(&said(&elsewhere).await).unwrap().message().option(ECHO).unwrap().to_vec();
    socket.send(&datagram(&with_echo(&request, &echo), 77)).await.unwrap();
    assert_eq!(Unbound::parse(&said(&socket).await).unwrap().message().code(), Code::UNAUTHORIZED);
    assert_eq!(home.asked(), 0);
}

#[tokio::test]
async fn a_copy_of_akma_gets_the_same_answer() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let server = Server::start(&home).await;
    let socket = socket_to(&server).await;
    let message = akma_request(&ue).to_message().unwrap();
    socket.send(&datagram(&message, 1)).await.unwrap();
    let echo = Unbound::parse(&said(&socket).await).unwrap().message().option(ECHO).unwrap().to_vec();
    let proven = datagram(&with_echo(&message, &echo), 2);
    socket.send(&proven).await.unwrap();
    let first = said(&socket).await;
    socket.send(&proven).await.unwrap();
    assert_eq!(said(&socket).await, first);
    assert_eq!(home.asked(), 1);
}

#[tokio::test]
async fn what_is_not_protected_is_refused_with_no_more_than_three_times_its_octets() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let socket = socket_to(&server).await;
    let other = |code, options: &[(u16, &[u8])], payload: &[u8]| Message::new(code, options, payload).unwrap();
    for (request, expected) in [
        (other(Code::POST, &[(11, b"msgin5g"), (12, &[50])], b"{\"msgType\":\"REG\"}"), Code::UNAUTHORIZED),
        (other(Code::GET, &[], b""), Code::UNAUTHORIZED),
        (other(Code::GET, &[(11, b"akma")], b""), Code::BAD_REQUEST),
        (other(Code::POST, &[(11, b"akma"), (12, &[60])], b"\x84"), Code::BAD_REQUEST),
        // An OSCORE option that cannot be read, and one of no context.
        (other(Code::POST, &[(9, &[0xff])], b"123456789"), Code::BAD_OPTION),
        (other(Code::POST, &[(9, &[0x09, 0, 1, 2, 3, 4])], b"123456789"), Code::UNAUTHORIZED),
        (other(Code::POST, &[(9, &[0x09, 0, 1])], b""), Code::UNAUTHORIZED),
    ] {
        let asked = datagram(&request, 9);
        socket.send(&asked).await.unwrap();
        let answer = said(&socket).await;
        assert_eq!(Unbound::parse(&answer).unwrap().message().code(), expected, "{request:?}");
        assert!(answer.len() <= 3 * asked.len());
    }
    // A Ping of a stranger gets its Reset; a Reset of one gets nothing.
    socket.send(&[0x70, 0, 0, 1]).await.unwrap();
    socket.send(&[0x40, 0, 0, 2]).await.unwrap();
    assert_eq!(said(&socket).await, [0x70, 0, 0, 2]);
}

#[tokio::test]
async fn a_replay_and_an_altered_octet_are_refused_and_a_copy_gets_its_answer_again() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let mut hand = ByHand::agree(&server, &ue).await;
    let first = hand.request(b"first");
    let mut altered = first.clone();
    *altered.last_mut().unwrap() ^= 1;
    hand.socket.send(&altered).await.unwrap();
    assert_eq!(hand.refusal().await, Code::BAD_REQUEST, "before the context was used");
    hand.socket.send(&first).await.unwrap();
    assert_eq!(hand.answer().await, b"first");
    hand.socket.send(&first).await.unwrap();
    let copy = said(&hand.socket).await;
    assert!(Unbound::parse(&copy).unwrap().is_protected(), "the answer as it was");
    let mut replay = first.clone();
    replay[2] ^= 0x80;
    hand.socket.send(&replay).await.unwrap();
    assert_eq!(hand.refusal().await, Code::UNAUTHORIZED);
    let mut altered = hand.request(b"second");
    let whole = altered.clone();
    *altered.last_mut().unwrap() ^= 1;
    hand.socket.send(&altered).await.unwrap();
    assert_eq!(hand.refusal().await, Code::BAD_REQUEST);
    hand.socket.send(&whole).await.unwrap();
    assert_eq!(hand.answer().await, b"second", "the forgery took nothing of it");
    assert!(server.metrics().contains("oscore_refused_total{reason=\"replay\"} 1"), "{}", server.metrics());
}

#[tokio::test]
async fn a_ue_is_followed_to_another_address_by_what_verifies_and_by_nothing_else() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let mut hand = ByHand::agree(&server, &ue).await;
    let first = hand.request(b"first");
    hand.socket.send(&first).await.unwrap();
    assert_eq!(hand.answer().await, b"first");
    // Somebody elsewhere repeats it: nothing of the answer comes there.
    let thief = socket_to(&server).await;
    thief.send(&first).await.unwrap();
    server.until_metric("oscore_refused_total{reason=\"from_elsewhere\"} 1").await;
    assert_eq!(said(&thief).await[0], 0x48, "a question");
    let second = hand.request(b"second");
    let mut forged = second.clone();
    *forged.last_mut().unwrap() ^= 1;
    thief.send(&forged).await.unwrap();
    assert_eq!(Unbound::parse(&said(&thief).await).unwrap().message().code(), Code::BAD_REQUEST);
    assert!(server.metrics().contains("oscore_address_changes_total 0"));
    // The UE itself has another address.
    hand.socket = socket_to(&server).await;
    hand.socket.send(&second).await.unwrap();
    assert_eq!(hand.answer().await, b"second");
    server.until_metric("oscore_address_changes_total 1").await;
}

#[tokio::test]
async fn a_session_that_begins_elsewhere_than_echo_was_repeated_is_not_asked_before_it_proves_its_address() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let mut hand = ByHand::agree(&server, &ue).await;
    hand.socket = socket_to(&server).await;
    let first = hand.request(b"ask back");
    let (mut went, mut came, mut answered) = (first.len(), 0, Vec::new());
    hand.socket.send(&first).await.unwrap();
    let mut questions = Vec::new();
    while answered.len() < 2 {
        let datagram = said(&hand.socket).await;
        came += datagram.len();
        // A question has a token of eight octets.
        if datagram[0] == 0x48 {
            questions.push(datagram);
            continue;
        }
        assert_eq!(datagram[0] & 0x30, 0x20, "an answer to it, and nothing that asks");
        hand.machine.receive(&datagram, Instant::now()).unwrap();
        while let Some(event) = hand.machine.poll_event() {
            let ConnectionEvent::Response { response, .. } = event else { panic!("{event:?}") };
            answered.push(response.payload);
            if answered.len() == 1 {
                let second = hand.request(b"second");
                went += second.len();
                hand.socket.send(&second).await.unwrap();
            }
        }
    }
    assert_eq!(answered, [&b"ask back"[..], b"second"]);
    assert!(came <= 3 * went);
    let question = questions.pop().expect("it was asked where it is");
    hand.machine.receive(&question, Instant::now()).unwrap();
    hand.until_asked("back").await;
}

#[tokio::test]
async fn a_ue_that_forges_its_source_takes_no_others_place() {
    let (ue, forger) = (Ue::number(1), Ue::number(2));
    let server = Server::start(&Home::knowing(&[&ue, &forger])).await;
    let (mut hand, mut forger) = (ByHand::agree(&server, &ue).await, ByHand::agree(&server, &forger).await);
    let first = hand.request(b"first");
    hand.socket.send(&first).await.unwrap();
    assert_eq!(hand.answer().await, b"first");
    let forged = forger.request(b"from here");
    forger.socket.send(&forged).await.unwrap();
    assert_eq!(forger.answer().await, b"from here");
    // As if it came from where the other one is.
    let forged = forger.request(b"from there");
    hand.socket.send(&forged).await.unwrap();
    server.until_metric("oscore_address_changes_total 1").await;
    hand.request_to_ask_back();
    hand.until_asked("again").await;
    assert!(server.metrics().contains("oscore_displaced_total 0"), "{}", server.metrics());
}

#[tokio::test]
async fn who_proves_an_address_has_it_and_who_had_it_proves_it_anew() {
    let (ue, newer) = (Ue::number(1), Ue::number(2));
    let server = Server::start(&Home::knowing(&[&ue, &newer])).await;
    let (mut hand, mut newer) = (ByHand::agree(&server, &ue).await, ByHand::agree(&server, &newer).await);
    let first = hand.request(b"first");
    hand.socket.send(&first).await.unwrap();
    assert_eq!(hand.answer().await, b"first");
    let first = newer.request(b"from here");
    newer.socket.send(&first).await.unwrap();
    assert_eq!(newer.answer().await, b"from here");
    // Both are at one address in turn, and each is asked.
    for displaced in 1..=4 {
        let (now, other) = if displaced % 2 == 1 { (&mut newer, &mut hand) } else { (&mut hand, &mut newer) };
        std::mem::swap(&mut now.socket, &mut other.socket);
        now.request_to_ask_back();
        now.until_asked("again").await;
        server.until_metric(&format!("oscore_displaced_total {displaced}")).await;
    }
}

#[tokio::test]
async fn what_nothing_vouches_for_is_no_sign_of_life() {
    let ue = Ue::number(1);
    let source: Arc<dyn KeySource> = Home::knowing(&[&ue]);
    let lookup = Arc::new(KeyLookup::new(source, fqdn(), LookupLimits::default(), TransportMetrics::default()));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = OscoreUdpConfig { datagrams: Arc::new(DatagramConfig::default()), limits: OscoreLimits::default() };
    let mut listener = OscoreUdpListener::start(socket, config, lookup, OscoreMetrics::default()).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(listener.local_addr()).await.unwrap();
    let request = akma_request(&ue);
    let answer = agree(&socket, &request, 1).await;
    let parameters = request.complete(key(&ue).expose(), &answer).unwrap();
    let context = SecurityContext::fresh(&parameters, Durability::Volatile).unwrap();
    let outer = DatagramConnection::new(Arc::new(DatagramConfig::default()), 5).for_oscore();
    let mut hand = ByHand { socket, machine: OscoreConnection::new(outer, context) };
    let asked = hand.machine.request(&Request::post("x"), Instant::now()).unwrap();
    let first = hand.machine.poll_transmit().unwrap();
    hand.machine.cancel(asked, Instant::now());
    hand.socket.send(&first).await.unwrap();
    let mut carrier = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().carrier;
    let mut received = async || {
        let receiving = poll_fn(|context| carrier.poll_receive(context, Instant::now()));
        timeout(PATIENCE, receiving).await.unwrap()
    };
    assert!(matches!(received().await, Received::Something));
    // A Reset, an acknowledgement, a response without protection, a copy of what it has said.
    for datagram in [&[0x70, 0, 0, 1][..], &[0x60, 0, 0, 1], &[0x64, 0x84, 0, 1, 0, 0, 0, 1], &first] {
        hand.socket.send(datagram).await.unwrap();
        let received = received().await;
        assert!(matches!(received, Received::Unverified), "{datagram:?}: {received:?}");
    }
    let second = hand.request(b"second");
    hand.socket.send(&second).await.unwrap();
    assert!(matches!(received().await, Received::Something));
}

#[tokio::test]
async fn a_context_is_gone_with_its_session_and_with_the_listener() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let server = Server::start(&home).await;
    let mut carrier = over_udp(&server, &ue).await.unwrap();
    assert_echo(&mut carrier, b"x").await;
    let address = server.udp;
    drop(server);
    // The same port, after a restart: it has no contexts.
    let metrics = OscoreMetrics::default();
    let source: Arc<dyn KeySource> = home.clone();
    let lookup = Arc::new(KeyLookup::new(source, fqdn(), LookupLimits::default(), TransportMetrics::default()));
    let socket = loop {
        match UdpSocket::bind(address).await {
            Ok(socket) => break socket,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let config = OscoreUdpConfig { datagrams: Arc::new(DatagramConfig::default()), limits: OscoreLimits::default() };
    let mut listener = OscoreUdpListener::start(socket, config, lookup, metrics).unwrap();
    let now = Instant::now();
    carrier.coap_mut().request(&Request::post("x"), now).unwrap();
    let told = timeout(PATIENCE, async {
        while let Some(event) = event(&mut carrier).await {
            if let ConnectionEvent::Aborted { .. } = event {
                return true;
            }
        }
        false
    });
    assert!(told.await.unwrap(), "the UE is told that it has to agree anew");
    let (anew, key) = (connector(), key(&ue));
    let (agreed, accepted) = tokio::join!(anew.connect_udp(address, &ue.a_kid, &key), async {
        let accepted = listener.accept().await.unwrap();
        tokio::spawn(serve(Box::new(accepted.carrier)));
        accepted.peer
    });
    agreed.unwrap();
    assert_eq!(accepted.a_kid, ue.a_kid);
}

#[tokio::test]
async fn a_tcp_connection_that_proves_nothing_is_closed() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let limits = OscoreLimits {
        unproven_seconds: 1,
        unproven_per_source_max: 1,
        octets_before_proof_max: 4_096,
        ..OscoreLimits::default()
    };
    let server = Server::start_with(&Home::knowing(&[&ue]), limits).await;
    // It says nothing.
    let mut silent = TcpStream::connect(server.tcp).await.unwrap();
    let mut heard = Vec::new();
    timeout(PATIENCE, silent.read_to_end(&mut heard)).await.unwrap().unwrap();
    // It says too much: empty messages, which are allowed.
    let mut chatty = TcpStream::connect(server.tcp).await.unwrap();
    let chatter = async { while chatty.write_all(&[0; 1_024]).await.is_ok() {} };
    timeout(PATIENCE, chatter).await.unwrap();
    // It asks for something without protection.
    let mut stream = TcpStream::connect(server.tcp).await.unwrap();
    let mut machine = StreamConnection::new(StreamConfig::default());
    machine.request(Request::post("msgin5g").payload(&b"{}"[..])).unwrap();
    stream.write_all(&machine.poll_transmit().unwrap()).await.unwrap();
    let mut octets = [0; 1_024];
    let response = loop {
        let count = timeout(PATIENCE, stream.read(&mut octets)).await.unwrap().unwrap();
        assert_ne!(count, 0);
        machine.receive(&octets[..count]).unwrap();
        if let Some(response) = std::iter::from_fn(|| machine.poll_event()).find_map(|event| match event {
            ConnectionEvent::Response { response, .. } => Some(response),
            _ => None,
        }) {
            break response;
        }
    };
    assert_eq!(response.code, Code::UNAUTHORIZED);
    // One more than its source may have.
    let mut second = TcpStream::connect(server.tcp).await.unwrap();
    assert_eq!(timeout(PATIENCE, second.read_to_end(&mut heard)).await.unwrap().unwrap(), 0);
    for reason in ["not_proven", "unprotected", "connection_limit"] {
        log.tells("OSCORE over TCP refused", &[("reason", reason)]).await;
    }
}

#[tokio::test]
async fn looking_at_a_datagram_changes_nothing() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let hand = ByHand::agree(&server, &ue).await;
    assert_eq!(hand.machine.provenance(&[0x60, 0, 0, 1], Instant::now()), Provenance::Unknown);
    assert_eq!(hand.machine.counters(), Default::default());
}
