//! What holds over every transport: who is refused, and how; what is promised, and when; and that a UE may move from any to
//! any in the middle of traffic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akma::{AKid, KAf, UaProtocolId};
use client::{AkmaMaterial, Client, ClientConfig, Incoming, IncomingStream, Outcome, OutgoingMessage, Transport};
use coap::{Code, ConnectionEvent, DatagramConfig, Request, Response};
use common::fleet::{Fleet, FleetUe};
use common::nat::Nat;
use common::{Lab, foreign_peer};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use transport::{Carrier, ClientHandshakeError, DatagramCarrier, DtlsConnector, OfferedVersions, TlsVersion};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_same_is_refused_with_the_same_cause_over_every_transport() {
    let lab = Lab::start();
    let printed = foreign_peer("transports.py", &[&lab.lab_json_path(), Path::new("refusals")]);
    assert_eq!(printed.matches("refused: ").count(), WAYS, "{printed}");
}

#[test]
fn success_means_acknowledged_and_stored_means_kept_through_kill_9_over_every_transport() {
    let mut lab = Lab::start();
    let state = lab.path("transports.json");
    let printed = foreign_peer("transports.py", &[&lab.lab_json_path(), Path::new("store"), &state]);
    for what in ["promised: ", "stored: "] {
        assert_eq!(printed.matches(what).count(), WAYS, "{what}: {printed}");
    }
    lab.kill();
    lab.start_again();
    let printed = foreign_peer("transports.py", &[&lab.lab_json_path(), Path::new("collect"), &state]);
    assert_eq!(printed.matches("kept: ").count(), WAYS, "{printed}");
}

#[test]
fn tshark_decodes_a_capture_of_every_transport_and_finds_nothing_malformed() {
    let folder = tempfile::tempdir().unwrap();
    let key_log = folder.path().join("keys.log");
    let lab = Lab::start_with(&["--key-log", key_log.to_str().unwrap()]);
    let program = Path::new(env!("CARGO_BIN_EXE_msgin5g"));
    let printed = foreign_peer("capture.py", &[&lab.lab_json_path(), &key_log, folder.path(), program]);
    for transport in ["TLS", "WebSocket", "DTLS 1.2", "DTLS 1.3", "OSCORE", "HTTPS"] {
        assert!(printed.contains(&format!("decoded: {transport}: ")), "{transport}: {printed}");
    }
}

/// Transports that programs without code of ours try: TLS 1.3 and 1.2, DTLS 1.2, WebSocket, OSCORE over UDP and TCP, HTTPS.
const WAYS: usize = 7;

// --- DTLS 1.3, for which no client of a command line exists --------------------------------------------------

/// A session over DTLS 1.3 that sends what it is told to, right or wrong.
struct Raw {
    carrier: Box<dyn Carrier>,
    path: String,
}

impl Raw {
    async fn open(lab: &Lab, a_kid: &AKid, key: impl Fn(UaProtocolId) -> KAf) -> Result<Self, ClientHandshakeError> {
        let server = &lab.lab_json()["server"];
        let fqdn = server["fqdn"].as_str().unwrap().parse().unwrap();
        let connector = DtlsConnector::default();
        let connecting = connector.connect(address(lab, "coaps"), &fqdn, a_kid, key);
        let session = timeout(PATIENCE, connecting).await.unwrap()?;
        assert_eq!(session.version(), TlsVersion::Dtls13);
        let carrier = DatagramCarrier::new(session, Arc::new(DatagramConfig::default()), false).unwrap();
        Ok(Self { carrier: Box::new(carrier), path: server["path"].as_str().unwrap().to_owned() })
    }

    /// The next thing that happens.
    async fn event(&mut self) -> ConnectionEvent {
        let next = async {
            loop {
                if let Some(event) = self.carrier.poll_event() {
                    return event;
                }
                std::future::poll_fn(|context| {
                    self.carrier.poll_send(context).unwrap();
                    std::task::Poll::Ready(())
                })
                .await;
                let due = self.carrier.poll_timeout().map(tokio::time::Instant::from_std);
                let now = std::time::Instant::now;
                tokio::select! {
                    _ = std::future::poll_fn(|context| self.carrier.poll_receive(context, now())) => {}
                    () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                        self.carrier.handle_timeout(now());
                    }
                }
            }
        };
        timeout(PATIENCE, next).await.expect("something happens")
    }

    fn begin(&mut self, body: &[u8]) -> coap::ExchangeId {
        let request = Request::post(&self.path).content_format(50).payload(body);
        self.carrier.coap_mut().request(&request, std::time::Instant::now()).unwrap()
    }

    async fn answer(&mut self, asked: coap::ExchangeId) -> (Code, Value) {
        loop {
            match self.event().await {
                ConnectionEvent::Response { exchange, response } if exchange == asked => {
                    let body = serde_json::from_slice(&response.payload).unwrap_or_default();
                    return (response.code, body);
                }
                ConnectionEvent::Failed { failure, .. } => panic!("{failure:?}"),
                _ => {}
            }
        }
    }

    async fn request(&mut self, body: impl ToString) -> (Code, Value) {
        let asked = self.begin(body.to_string().as_bytes());
        self.answer(asked).await
    }

    #[track_caller]
    fn expect((code, body): (Code, Value), wanted: Code, cause: &str) {
        assert_eq!((code, body["failureCause"].as_str()), (wanted, Some(cause)), "{body}");
    }
}

fn address(lab: &Lab, name: &str) -> SocketAddr {
    lab.lab_json()["server"][name].as_str().unwrap().parse().unwrap()
}

fn message(from: &FleetUe, to: &FleetUe, id: &str, octets: usize) -> Value {
    let address = |ue: &FleetUe| json!({"addrType": "UE", "addr": ue.service_id.to_string()});
    // "AAAA" is three octets.
    let payload = "A".repeat(octets / 3 * 4);
    json!({"msgType": "MSG", "oriAddr": address(from), "destAddr": address(to), "msgId": id, "payload": payload})
}

fn registration(ue: &FleetUe) -> Value {
    json!({"msgType": "REG", "ueSvcId": ue.service_id.to_string()})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_dtls_1_3_strangers_and_broken_devices_are_refused_as_over_the_others() {
    let lab = Lab::start();
    let fleet = Fleet::provision(&lab, 3).await;
    let [alice, bob, lamp] = &fleet.ues[..] else { panic!("three") };
    let (before, keys) = (alice.keys().await, alice.keys().await);
    let server: akma::Fqdn = lab.lab_json()["server"]["fqdn"].as_str().unwrap().parse().unwrap();
    let k_af_of = |keys: &AkmaMaterial, protocol| akma::k_af(&keys.k_akma, &akma::AfId::new(server.clone(), protocol));
    let k_af = |protocol| k_af_of(&keys, protocol);
    // The AAnF has no key of either, though each has the right one of its own authentication.
    lamp.subscribe(&lab, &["--no-akma"]);
    for without in [before, lamp.keys().await] {
        let refused = Raw::open(&lab, &without.a_kid, |protocol| k_af_of(&without, protocol)).await.err();
        assert!(matches!(refused, Some(ClientHandshakeError::UnknownIdentity)), "{refused:?}");
    }
    let stranger: AKid = keys.a_kid.as_str().replace(&keys.a_kid.as_str()[2..10], "abababab").parse().unwrap();
    let refused = Raw::open(&lab, &stranger, k_af).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::UnknownIdentity)), "{refused:?}");
    let refused = Raw::open(&lab, &keys.a_kid, |_| KAf::from_bytes([0; 32])).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::WrongKey)), "{refused:?}");

    let mut device = Raw::open(&lab, &keys.a_kid, k_af).await.unwrap();
    Raw::expect(device.request(message(alice, bob, "early", 3)).await, Code::UNAUTHORIZED, "NOT_REGISTERED");
    Raw::expect(device.request(registration(bob)).await, Code::FORBIDDEN, "NOT_ASSOCIATED");
    assert_eq!(device.request(registration(alice)).await.0, Code::CREATED);
    Raw::expect(device.request(message(bob, alice, "forged", 3)).await, Code::FORBIDDEN, "ORIGINATOR_NOT_ALLOWED");
    let too_large = message(alice, bob, "large", 2_049 / 3 * 3 + 3);
    Raw::expect(device.request(too_large).await, Code::REQUEST_ENTITY_TOO_LARGE, "PAYLOAD_TOO_LARGE");
    for broken in ["{", "[]", r#"{"msgType":"MSG"}"#, r#"{"msgType":7}"#] {
        Raw::expect(device.request(broken).await, Code::BAD_REQUEST, "MALFORMED");
    }
    let unknown = device.request(message(alice, bob, "to-nobody-yet", 3)).await;
    Raw::expect(unknown, Code::NOT_FOUND, "UNKNOWN_TARGET");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_dtls_1_3_success_means_acknowledged_and_stored_means_kept_through_kill_9() {
    let mut lab = Lab::start();
    let fleet = Fleet::provision(&lab, 2).await;
    let (alice, bob) = (&fleet.ues[0], &fleet.ues[1]);
    let server: akma::Fqdn = lab.lab_json()["server"]["fqdn"].as_str().unwrap().parse().unwrap();
    let open = async |lab: &Lab, ue: &FleetUe| {
        let keys = ue.keys().await;
        let key = |protocol| akma::k_af(&keys.k_akma, &akma::AfId::new(server.clone(), protocol));
        let mut raw = Raw::open(lab, &keys.a_kid, key).await.unwrap();
        assert_eq!(raw.request(registration(ue)).await.0, Code::CREATED);
        raw
    };
    let (mut sender, mut recipient) = (open(&lab, alice).await, open(&lab, bob).await);
    let asked = sender.begin(message(alice, bob, "first", 3).to_string().as_bytes());
    let (request, answer) = tokio::join!(
        async {
            loop {
                if let ConnectionEvent::Request { request } = recipient.event().await {
                    return request;
                }
            }
        },
        // It goes out, and nothing comes while the recipient says nothing.
        timeout(Duration::from_secs(1), sender.answer(asked))
    );
    assert!(answer.is_err(), "promised before the recipient had it: {answer:?}");
    recipient
        .carrier
        .coap_mut()
        .respond(request.exchange, &Response::new(Code::CHANGED), std::time::Instant::now())
        .unwrap();
    let acknowledging = tokio::spawn(async move {
        loop {
            recipient.event().await;
        }
    });
    let (code, body) = sender.answer(asked).await;
    assert_eq!((code, body.get("status")), (Code::CHANGED, None), "{body}");
    // Away, as the server sees at once of one that comes over TCP and leaves.
    acknowledging.abort();
    let (known, _) = bob.connect().await;
    known.close().await;
    let mut kept = message(alice, bob, "kept", 3);
    kept["stoAndFwInd"] = true.into();
    kept["stoAndFwParams"] = json!({"exprTime": "2099-01-01T00:00:00Z"});
    let (code, body) = sender.request(&kept).await;
    assert_eq!((code, body["status"].as_str()), (Code::CHANGED, Some("DELY_STORED")), "{body}");
    lab.kill();
    lab.start_again();
    let mut recipient = open(&lab, bob).await;
    loop {
        if let ConnectionEvent::Request { request } = recipient.event().await {
            let body: Value = serde_json::from_slice(&request.payload).unwrap();
            assert_eq!(body["msgId"], "kept");
            return;
        }
    }
}

// --- one UE that moves ----------------------------------------------------------------------------------------

/// What a UE handed to its application, in that order.
type HandedOver = Arc<Mutex<Vec<String>>>;

fn accepting(mut incoming: IncomingStream, handed_over: &HandedOver) -> JoinHandle<()> {
    let handed_over = Arc::clone(handed_over);
    tokio::spawn(async move {
        while let Some(event) = incoming.next().await {
            match event {
                Incoming::Message(message) => {
                    let id = message.content().message_id.to_string();
                    if message.accept().await.is_ok() {
                        handed_over.lock().unwrap().push(id);
                    }
                }
                Incoming::Report(report) => drop(report.accept().await),
                _ => {}
            }
        }
    })
}

/// Sends one message after the other, each until it is promised, over whatever connection there is, until it is told to
/// stop; what was sent, in that order.
fn sending(
    mut current: watch::Receiver<Option<Client>>,
    to: &FleetUe,
    name: &'static str,
    stop: &Arc<AtomicBool>,
) -> (JoinHandle<Vec<String>>, watch::Receiver<usize>) {
    let (to, stop) = (to.service_id.clone(), Arc::clone(stop));
    let (count, promised) = watch::channel(0);
    let task = tokio::spawn(async move {
        let mut sent = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let id = format!("{name}-{}", sent.len());
            // Some are larger than a datagram.
            let octets = if sent.len() % 5 == 0 { 2_000 } else { 20 };
            loop {
                let client = current.wait_for(Option::is_some).await.unwrap().clone().unwrap();
                let message = OutgoingMessage::to_ue(&to, vec![b'x'; octets]).message_id(id.parse().unwrap());
                match client.send(message.store_and_forward(None)).await {
                    Ok(Outcome::Delivered | Outcome::Stored) => break,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            sent.push(id);
            count.send_replace(sent.len());
        }
        sent
    });
    (task, promised)
}

/// How the UE reaches the server there; HTTPS if no transport is named.
async fn way(
    lab: &Lab,
    ue: &FleetUe,
    (transport, versions): (Option<Transport>, OfferedVersions),
) -> (ClientConfig, Option<Nat>) {
    let mut config = ue.config.clone();
    config.state_dir = Some(lab.path("mover"));
    config.transport = transport.unwrap_or_default();
    config.tls.versions = versions;
    let text = |name: &str| lab.lab_json()["server"][name].as_str().unwrap().to_owned();
    let nat = match transport {
        Some(Transport::Udp) => Some(Nat::in_front_of(address(lab, "coaps")).await),
        Some(Transport::OscoreUdp) => Some(Nat::in_front_of(address(lab, "coap")).await),
        _ => None,
    };
    config.server = match (transport, &nat) {
        (_, Some(nat)) => nat.address.to_string(),
        (Some(Transport::WebSocket), _) => text("coaps_ws"),
        (Some(Transport::OscoreTcp), _) => text("coap_tcp"),
        (Some(_), _) => text("coaps_tcp"),
        (None, _) => {
            config.https_ca = Some(lab.path(lab.lab_json()["ca"].as_str().unwrap()));
            text("https").trim_start_matches("https://").to_owned()
        }
    };
    (config, nat)
}

/// Waits until so many more have been promised.
async fn more(promised: &mut watch::Receiver<usize>, count: usize) {
    let wanted = *promised.borrow() + count;
    timeout(PATIENCE, promised.wait_for(|sent| *sent >= wanted)).await.expect("traffic goes on").unwrap();
}

/// Each came once, and in the order in which it was sent. The last of them comes behind whatever is still on its way, a
/// repetition too.
async fn assert_once_and_in_order(handed_over: &HandedOver, sent: &[String]) {
    let last_came = async {
        while !handed_over.lock().unwrap().contains(sent.last().unwrap()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = timeout(PATIENCE, last_came).await.is_ok();
    let came = handed_over.lock().unwrap().clone();
    let mut times: BTreeMap<&String, usize> = BTreeMap::new();
    came.iter().for_each(|id| *times.entry(id).or_default() += 1);
    assert!(in_time, "lost: {:?}", sent.iter().filter(|id| !times.contains_key(id)).collect::<Vec<_>>());
    assert!(times.values().all(|times| *times == 1), "repeated: {times:?}");
    assert_eq!(came, sent, "in another order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_that_moves_between_transports_and_addresses_in_the_middle_of_traffic_loses_and_repeats_nothing() {
    let lab = Lab::start();
    let fleet = Fleet::provision(&lab, 2).await;
    let (mover, peer) = (&fleet.ues[0], &fleet.ues[1]);
    let (to_mover, to_peer) = (HandedOver::default(), HandedOver::default());
    let (staying, incoming) = peer.connect().await;
    let _accepting = accepting(incoming, &to_peer);
    let stop = Arc::new(AtomicBool::new(false));
    let (moved, current) = watch::channel(None);
    let (_stays, standing) = watch::channel(Some(staying));
    let (there, mut sent_there) = sending(current, peer, "there", &stop);
    let (mut here, mut sent_here) = (None, None);
    use OfferedVersions::{Tls12, Tls13};
    let ways = [
        (Some(Transport::Tcp), Tls13),
        (Some(Transport::Udp), Tls13),
        (Some(Transport::OscoreUdp), Tls13),
        (Some(Transport::WebSocket), Tls13),
        (Some(Transport::Udp), Tls12),
        (None, Tls13),
        (Some(Transport::OscoreTcp), Tls13),
        (Some(Transport::Tcp), Tls12),
    ];
    for (transport, versions) in ways {
        let (config, nat) = way(&lab, mover, (transport, versions)).await;
        let (client, incoming) = mover.connect_with(config).await;
        let accepted = accepting(incoming, &to_mover);
        moved.send_replace(Some(client.clone()));
        // Nobody knows the mover before it has registered once.
        let (here, sent_here) = match (&mut here, &mut sent_here) {
            (Some(here), Some(sent)) => (here, sent),
            _ => {
                let (task, sent) = sending(standing.clone(), mover, "here", &stop);
                (here.insert(task), sent_here.insert(sent))
            }
        };
        for _ in 0..3 {
            tokio::join!(more(&mut sent_there, 3), more(sent_here, 3));
            if let Some(nat) = &nat {
                nat.rebind();
                // The device speaks first: nobody can reach it behind its new address before.
                more(&mut sent_there, 1).await;
            }
        }
        assert!(!here.is_finished());
        assert_eq!(client.status().registrations, 1, "{transport:?} {versions:?}: the session lasted");
        // In the middle of traffic.
        moved.send_replace(None);
        client.close().await;
        timeout(PATIENCE, accepted).await.unwrap().unwrap();
    }
    // Some may still wait for the mover to return; the last of all is sent when it is there.
    let (config, _) = way(&lab, mover, ways[0]).await;
    let (client, incoming) = mover.connect_with(config).await;
    let _accepted = accepting(incoming, &to_mover);
    moved.send_replace(Some(client));
    tokio::join!(more(&mut sent_there, 2), more(sent_here.as_mut().unwrap(), 2));
    stop.store(true, Ordering::Relaxed);
    let sent = timeout(PATIENCE, async { (there.await.unwrap(), here.unwrap().await.unwrap()) }).await.unwrap();
    assert_once_and_in_order(&to_peer, &sent.0).await;
    assert_once_and_in_order(&to_mover, &sent.1).await;
}
