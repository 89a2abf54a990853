//! Sessions under OSCORE: a context ends when its key does.

use std::future::poll_fn;
use std::net::SocketAddr;

use akma::KAf;
use coap::{ConnectionEvent, DatagramConfig, Failure};
use tokio::net::TcpStream;
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
    let a_kid: AKid = "0.00ff@5gc.mnc001.mcc001.3gppnetwork.org".parse().unwrap();
    let (connector, key) =
        (OscoreConnector::new(Arc::new(DatagramConfig::default()), StreamConfig::default()), KAf::from_bytes(K_AF));
    if over_udp {
        let connecting = connector.connect_udp(listening.udp.unwrap(), &a_kid, &key);
        Box::new(timeout(PATIENCE, connecting).await.unwrap().unwrap())
    } else {
        let stream = TcpStream::connect(listening.tcp.unwrap()).await.unwrap();
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
