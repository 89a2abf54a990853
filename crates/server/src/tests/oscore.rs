//! Sessions under OSCORE: a context ends when its key does.

use std::future::poll_fn;
use std::net::SocketAddr;

use akma::KAf;
use coap::{ConnectionEvent, DatagramConfig, Failure};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::sleep_until;
use transport::Received;
use transport::oscore::OscoreConnector;

use super::*;
use crate::oscore::{self, Listening, OscoreSection};

const K_AF: [u8; 32] = [7; 32];

/// A server that listens, whose AAnF answers so.
async fn listening(limits: Limits, expires_at: Option<SystemTime>) -> (Net, Arc<Keys>, Listening) {
    let keys = Arc::new(Keys::default());
    let ue_id = Some("imsi-001010000000001".parse().unwrap());
    let key = ProvenKey { k_af: KAf::from_bytes(K_AF), expires_at, ue_id, gpsi: None };
    *keys.answer.lock().unwrap() = Some(Some(key));
    let net = Net::of(Setup { limits, keys: Some(Arc::clone(&keys)), ..Setup::default() }).await;
    net.associate("imsi-001010000000001", "meter@lab.example");
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let section = OscoreSection { listen_udp: Some(any), listen_tcp: Some(any), ..OscoreSection::default() };
    let lookup = net.core.keys.clone().unwrap();
    let path = "msgin5g".into();
    let mut metrics = MetricsRegistry::default();
    let listening = oscore::serve(&net.core, Some(&section), &lookup, &path, &mut metrics).await.unwrap();
    (net, keys, listening)
}

async fn connect(listening: &Listening, over_udp: bool) -> Box<dyn Carrier> {
    let server = if over_udp { listening.udp } else { listening.tcp };
    connect_at(server.unwrap(), over_udp).await
}

async fn connect_at(server: SocketAddr, over_udp: bool) -> Box<dyn Carrier> {
    let a_kid: AKid = "0.00ff@5gc.mnc001.mcc001.3gppnetwork.org".parse().unwrap();
    let (connector, key) =
        (OscoreConnector::new(Arc::new(DatagramConfig::default()), StreamConfig::default()), KAf::from_bytes(K_AF));
    if over_udp {
        let connecting = connector.connect_udp(server, &a_kid, &key);
        Box::new(timeout(PATIENCE, connecting).await.unwrap().unwrap())
    } else {
        let stream = TcpStream::connect(server).await.unwrap();
        Box::new(timeout(PATIENCE, connector.connect_tcp(stream, &a_kid, &key)).await.unwrap().unwrap())
    }
}

/// The next thing that happens; none when the connection is over.
async fn event(carrier: &mut Box<dyn Carrier>) -> Option<ConnectionEvent> {
    loop {
        if let Some(event) = carrier.poll_event() {
            return Some(event);
        }
        let due = carrier.poll_timeout().map(tokio::time::Instant::from_std);
        let io = poll_fn(|context| {
            carrier.poll_send(context).unwrap();
            carrier.poll_receive(context, std::time::Instant::now())
        });
        tokio::select! {
            received = io => if !matches!(received, Received::Something | Received::Unverified) {
                return None;
            },
            () = sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                carrier.handle_timeout(std::time::Instant::now());
            }
        }
    }
}

fn registration() -> Vec<u8> {
    let ue_service_id = "meter@lab.example".parse().unwrap();
    UeMessage::Registration(Registration { ue_service_id, client_profile: None }).encode()
}

/// The code that REG is answered; none if it is not, or nothing vouches for the answer.
async fn register(carrier: &mut Box<dyn Carrier>) -> Option<Code> {
    let body = registration();
    let request = Request::post("msgin5g").content_format(50).payload(&body);
    carrier.coap_mut().request(&request, std::time::Instant::now()).ok()?;
    loop {
        match timeout(PATIENCE, event(carrier)).await.unwrap()? {
            ConnectionEvent::Response { response, .. } => return Some(response.code),
            ConnectionEvent::Failed { failure, .. } => {
                assert_eq!(failure, Failure::NotProtected(Code::UNAUTHORIZED));
                return None;
            }
            _ => {}
        }
    }
}

async fn is_told_of_the_end(over_udp: bool, limits: Limits, lifetime: Option<Duration>, withdraw: bool) {
    let (net, keys, listening) = listening(limits, lifetime.map(|life| SystemTime::now() + life)).await;
    let mut carrier = connect(&listening, over_udp).await;
    assert_eq!(register(&mut carrier).await, Some(Code::CREATED));
    if withdraw {
        // A newer authentication: the AAnF knows the A-KID no more.
        *keys.answer.lock().unwrap() = Some(None);
    }
    until(|| net.core.sessions.connections() == 0).await;
    assert_eq!(register(&mut carrier).await, None, "the context is gone");
}

#[tokio::test]
async fn a_context_ends_when_its_key_expires() {
    for over_udp in [true, false] {
        is_told_of_the_end(over_udp, Limits::default(), Some(Duration::from_secs(2)), false).await;
    }
}

#[tokio::test]
async fn a_context_ends_when_its_a_kid_is_known_no_more() {
    let limits = Limits { revalidation_seconds: 1, ..Limits::default() };
    for over_udp in [true, false] {
        is_told_of_the_end(over_udp, limits.clone(), None, true).await;
    }
}

#[tokio::test]
async fn the_newest_context_carries_the_registration() {
    let (net, _, listening) = listening(Limits::default(), None).await;
    let mut older = connect(&listening, true).await;
    assert_eq!(register(&mut older).await, Some(Code::CREATED));
    let mut newer = connect(&listening, true).await;
    assert_eq!(register(&mut newer).await, Some(Code::CREATED));
    until(|| net.core.sessions.connections() == 1).await;
    assert_eq!(register(&mut older).await, None, "it was replaced");
}

#[tokio::test]
async fn a_context_of_an_older_a_kid_that_is_used_after_a_newer_registered_comes_to_no_registration() {
    for over_udp in [true, false] {
        let (net, keys, listening) = listening(Limits::default(), None).await;
        net.associate("imsi-001010000000001", "meter-too@lab.example");
        // Agreed on, and not used yet.
        let mut older = connect(&listening, over_udp).await;
        let a_kid = "0.00fe@5gc.mnc001.mcc001.3gppnetwork.org".parse().unwrap();
        let newer = ProvenPeer { a_kid, ..peer(Some("imsi-001010000000001"), None) };
        let mut newer = net.connect_as(newer, STREAM_OCTETS);
        assert_eq!(newer.register("meter-too@lab.example").await.code, Code::CREATED);
        *keys.answer.lock().unwrap() = Some(None);
        assert_eq!(register(&mut older).await, None, "it ends");
        assert!(net.core.registry.find(&address("meter@lab.example")).is_none(), "it did not register");
    }
}

#[test]
fn limits_that_cannot_be_served_are_named() {
    let faulty = |change: fn(&mut OscoreSection)| {
        let mut section = OscoreSection::default();
        change(&mut section);
        section.fault().map(|(key, _)| key)
    };
    assert_eq!(faulty(|_| {}), None);
    assert_eq!(faulty(|section| section.limits.contexts_max = 0), Some("oscore.limits.contexts_max"));
    assert_eq!(faulty(|section| section.limits.echo_seconds = u64::MAX), Some("oscore.limits.echo_seconds"));
}

/// Somebody on the path of a UE over UDP: passes on what both say, and answers the next request of the server's when told to,
/// which it keeps from the UE.
async fn on_the_path(server: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let (near, far) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    far.connect(server).await.unwrap();
    let (address, armed) = (near.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let forges = Arc::clone(&armed);
    tokio::spawn(async move {
        let (mut ue, mut up, mut down) = (None, [0; 2048], [0; 2048]);
        loop {
            tokio::select! {
                Ok((count, from)) = near.recv_from(&mut up) => {
                    ue = Some(from);
                    far.send(&up[..count]).await.unwrap();
                }
                Ok(count) = far.recv(&mut down) => {
                    let is_request = down[0] >> 4 == 0b0100 && matches!(down[1], 1..=31);
                    if is_request && forges.swap(false, Ordering::SeqCst) {
                        // 2.04 in an acknowledgement, with the token and nothing else.
                        let tokens = usize::from(down[0] & 0x0f);
                        let forged = [&[0x60 | down[0] & 0x0f, 0x44][..], &down[2..4 + tokens]].concat();
                        far.send(&forged).await.unwrap();
                    } else {
                        near.send_to(&down[..count], ue.unwrap()).await.unwrap();
                    }
                }
            }
        }
    });
    (address, armed)
}

/// Takes the next delivery and acknowledges it.
async fn receive(carrier: &mut Box<dyn Carrier>) -> Message {
    loop {
        if let ConnectionEvent::Request { request } = timeout(PATIENCE, event(carrier)).await.unwrap().unwrap() {
            let now = std::time::Instant::now();
            carrier.coap_mut().respond(request.exchange, &Response::new(Code::CHANGED), now).unwrap();
            let message = UeMessage::decode(&request.payload, &DecodeLimits::default()).unwrap();
            let UeMessage::Message(message) = message else { panic!("not a message: {message:?}") };
            return *message;
        }
    }
}

#[tokio::test]
async fn an_answer_that_somebody_on_the_path_gives_is_none_and_the_message_arrives() {
    let (net, _, listening) = listening(Limits::default(), None).await;
    let (path, forges) = on_the_path(listening.udp.unwrap()).await;
    let mut meter = connect_at(path, true).await;
    assert_eq!(register(&mut meter).await, Some(Code::CREATED));
    let mut other = net.ue("other").await;
    forges.store(true, Ordering::SeqCst);
    // It is sent again, as if nothing had come.
    let taking = async {
        assert_eq!(receive(&mut meter).await.message_id.as_str(), "1");
        while event(&mut meter).await.is_some() {}
    };
    let message = storable("other", "meter@lab.example", "1");
    let fate = tokio::select! {
        fate = other.send(&message) => fate,
        () = taking => panic!("the connection ended"),
    };
    assert_eq!(fate, Fate::delivered(), "neither refused nor taken for delivered before the UE has seen it");
}

#[tokio::test]
async fn a_connection_on_which_somebody_else_answers_ends_and_the_message_is_kept() {
    let (net, _, listening) = listening(Limits::default(), None).await;
    let (relay, server) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), listening.tcp.unwrap());
    let address = relay.local_addr().unwrap();
    let forges = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&forges);
    tokio::spawn(async move {
        let (near, far) = (relay.accept().await.unwrap().0, TcpStream::connect(server).await.unwrap());
        let ((mut from_ue, mut to_ue), (mut from_server, mut to_server)) = (near.into_split(), far.into_split());
        let (mut up, mut down) = ([0; 4096], [0; 4096]);
        loop {
            tokio::select! {
                Ok(count) = from_ue.read(&mut up) => match count {
                    0 => return,
                    _ => drop(to_server.write_all(&up[..count]).await),
                },
                Ok(count) = from_server.read(&mut down) => match count {
                    0 => return,
                    _ if armed.load(Ordering::SeqCst) => {
                        // Length nibble, token length; extended length; code; token (RFC 8323 clause 3.2).
                        let extended = match down[0] >> 4 { 13 => 1, 14 => 2, 15 => 4, _ => 0 };
                        let (tokens, code) = (usize::from(down[0] & 0x0f), 1 + extended);
                        let forged = [&[down[0] & 0x0f, 0x44][..], &down[code + 1..code + 1 + tokens]].concat();
                        let _ = to_server.write_all(&forged).await;
                    }
                    _ => drop(to_ue.write_all(&down[..count]).await),
                },
            }
        }
    });
    let mut meter = connect_at(address, false).await;
    assert_eq!(register(&mut meter).await, Some(Code::CREATED));
    let mut other = net.ue("other").await;
    forges.store(true, Ordering::SeqCst);
    assert_eq!(other.send(&storable("other", "meter@lab.example", "1")).await, Fate::stored());
    until(|| net.core.sessions.connections() == 0).await;
    let mut again = connect(&listening, false).await;
    assert_eq!(register(&mut again).await, Some(Code::CREATED));
    assert_eq!(receive(&mut again).await.message_id.as_str(), "1");
}
