//! MSGin5G-1 under OSCORE, from outside: UEs of aiocoap, our own client through a `kill -9`, and the command line.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use akma::{HomeNetwork, UsimCredentials};
use client::{
    Client, ClientConfig, Incoming, IncomingStream, Outcome, OutgoingMessage, SoftUsim, SoftUsimConfig, Transport,
};
use common::{Lab, foreign_peer, msgin5g};
use message::UeServiceId;
use sbi::{SbiClient, SbiClientConfig};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use transport::profile::CertificateFiles;

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn ues_of_aiocoap_are_served_over_udp_and_tcp_and_impostors_replays_and_forgeries_are_refused() {
    let mut lab = Lab::start();
    foreign_peer("oscore_ue.py", &[&lab.lab_json_path()]);
    // The server has forgotten every context, and each UE agrees anew.
    lab.kill();
    lab.start_again();
    let printed = foreign_peer("oscore_ue.py", &[&lab.lab_json_path()]);
    for line in ["served: coap\n", "served: coap+tcp\n", "refused: a replay\n", "all held\n"] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
}

/// One of our clients, which goes on through whatever happens to the server.
async fn connect(lab: &Lab, index: usize, transport: Transport) -> (Client, IncomingStream) {
    let server = &lab.lab_json()["server"];
    let address = match transport {
        Transport::OscoreUdp => &server["coap"],
        Transport::OscoreTcp => &server["coap_tcp"],
        _ => &server["coaps_tcp"],
    };
    connect_at(lab, index, transport, address.as_str().unwrap()).await
}

/// The same to what stands before the server at `address`.
async fn connect_at(lab: &Lab, index: usize, transport: Transport, address: &str) -> (Client, IncomingStream) {
    let description = lab.lab_json();
    let subscriber = &description["subscribers"][index];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let octets = |value: &Value| <[u8; 16]>::try_from(hex::decode(text(value)).unwrap()).unwrap();
    let network = &description["home_network"];
    let home_network = HomeNetwork::new(&text(&network["mcc"]), &text(&network["mnc"])).unwrap();
    let usim = SoftUsimConfig {
        supi: text(&subscriber["supi"]).parse().unwrap(),
        credentials: UsimCredentials::milenage_opc(&octets(&subscriber["k"]), &octets(&subscriber["opc"])),
        routing_indicator: text(&subscriber["routing_indicator"]).parse().unwrap(),
        serving_network: home_network.serving_network_name(),
        home_network,
        ausf: text(&description["core"]["ausf"]),
        state: None,
    };
    let server = &description["server"];
    let name = text(&subscriber["ue_service_id"]).parse().unwrap();
    let mut config = ClientConfig::new(address, text(&server["fqdn"]).parse().unwrap(), name);
    config.transport = transport;
    config.path = text(&server["path"]);
    config.limits.backoff_first_milliseconds = 50;
    config.limits.backoff_max_milliseconds = 500;
    config.limits.keep_alive_milliseconds = 1_000;
    let nf = &description["nf_client"];
    let tls = CertificateFiles {
        certificate: lab.path(nf["cert"].as_str().unwrap()),
        key: lab.path(nf["key"].as_str().unwrap()),
        ca: lab.path(description["ca"].as_str().unwrap()),
        crl: None,
    };
    let http = SbiClient::new(SbiClientConfig { tls, limits: sbi::ClientLimits::default() }).unwrap();
    let connecting = Client::connect(config, SoftUsim::new(usim, http).unwrap());
    timeout(PATIENCE, connecting).await.unwrap().unwrap()
}

fn service_id(lab: &Lab, index: usize) -> UeServiceId {
    lab.lab_json()["subscribers"][index]["ue_service_id"].as_str().unwrap().parse().unwrap()
}

/// The payload of the next message, accepted.
async fn receive(incoming: &mut IncomingStream) -> Vec<u8> {
    loop {
        match timeout(PATIENCE, incoming.next()).await.unwrap().unwrap() {
            Incoming::Message(message) => {
                let payload = message.content().payload.to_vec();
                message.accept().await.unwrap();
                return payload;
            }
            Incoming::Report(report) => report.accept().await.unwrap(),
            _ => {}
        }
    }
}

/// Sends until the server has promised something.
async fn send(client: &Client, to: &UeServiceId, payload: &[u8]) -> Outcome {
    let sending = async {
        loop {
            let message = OutgoingMessage::to_ue(to, payload.to_vec()).store_and_forward(None);
            match client.send(message).await {
                Ok(outcome @ (Outcome::Delivered | Outcome::Stored)) => return outcome,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, sending).await.unwrap()
}

async fn serve_through_a_kill(transport: Transport) {
    let mut lab = Lab::start();
    let (alice, _from_others) = connect(&lab, 0, transport).await;
    let (bob, mut incoming) = connect(&lab, 1, transport).await;
    let to = service_id(&lab, 1);
    assert_eq!(alice.status().tls_version.as_deref(), Some("OSCORE"));
    for payload in [vec![b'a'; 10], vec![b'b'; 2_000]] {
        let (outcome, received) = tokio::join!(send(&alice, &to, &payload), receive(&mut incoming));
        assert_eq!((outcome, received == payload), (Outcome::Delivered, true));
    }
    lab.kill();
    lab.start_again();
    // Both find out that their contexts are gone, and agree anew.
    let (_, received) = tokio::join!(send(&alice, &to, b"after the kill"), receive(&mut incoming));
    assert_eq!(received, b"after the kill");
    bob.close().await;
    drop(incoming);
    // Nobody is there: stored, and delivered when the UE comes back.
    assert_eq!(send(&alice, &to, b"stored").await, Outcome::Stored);
    let (_bob, mut incoming) = connect(&lab, 1, transport).await;
    assert_eq!(receive(&mut incoming).await, b"stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_over_udp_lives_through_a_kill_of_the_server() {
    serve_through_a_kill(Transport::OscoreUdp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_over_tcp_lives_through_a_kill_of_the_server() {
    serve_through_a_kill(Transport::OscoreTcp).await;
}

/// One subscriber under OSCORE, another over TLS: each message is protected as its end of the way is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ue_moves_between_transports_and_loses_nothing() {
    let lab = Lab::start();
    let (alice, _from_others) = connect(&lab, 0, Transport::Tcp).await;
    let to = service_id(&lab, 1);
    for (number, transport) in
        [Transport::OscoreUdp, Transport::Tcp, Transport::OscoreTcp, Transport::OscoreUdp].into_iter().enumerate()
    {
        let payload = format!("number {number}");
        let (bob, mut incoming) = connect(&lab, 1, transport).await;
        let (_, received) = tokio::join!(send(&alice, &to, payload.as_bytes()), receive(&mut incoming));
        assert_eq!(received, payload.as_bytes(), "over {transport:?}");
        drop((bob, incoming));
    }
}

/// Somebody on the path over UDP: passes on what everybody says, and answers the next request of a UE itself when told to, before
/// the server can.
async fn on_the_path(server: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (address, armed) = (front.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let forges = Arc::clone(&armed);
    tokio::spawn(async move {
        let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut there = [0; 4_096];
        while let Ok((count, ue)) = front.recv_from(&mut there).await {
            if let Entry::Vacant(place) = ways.entry(ue) {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                back.connect(server).await.unwrap();
                place.insert(Arc::clone(&back));
                let front = Arc::clone(&front);
                tokio::spawn(async move {
                    let mut here = [0; 4_096];
                    while let Ok(count) = back.recv(&mut here).await {
                        let _ = front.send_to(&here[..count], ue).await;
                    }
                });
            }
            // A sign of life is shorter.
            let is_message = there[0] >> 4 == 0b0100 && matches!(there[1], 1..=31) && count > 120;
            if is_message && forges.swap(false, Ordering::SeqCst) {
                // 2.04 in an acknowledgement, with the token and nothing else.
                let tokens = usize::from(there[0] & 0x0f);
                let forged = [&[0x60 | there[0] & 0x0f, 0x44][..], &there[2..4 + tokens]].concat();
                let _ = front.send_to(&forged, ue).await;
            }
            let _ = ways[&ue].send(&there[..count]).await;
        }
    });
    (address, armed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_somebody_on_the_path_gives_to_our_client_is_none_and_its_message_arrives_once() {
    let lab = Lab::start();
    let server = lab.lab_json()["server"]["coap"].as_str().unwrap().parse().unwrap();
    let (path, forges) = on_the_path(server).await;
    let (alice, _from_others) = connect_at(&lab, 0, Transport::OscoreUdp, &path.to_string()).await;
    let (_bob, mut incoming) = connect(&lab, 1, Transport::Tcp).await;
    let to = service_id(&lab, 1);
    forges.store(true, Ordering::SeqCst);
    let sending = alice.send(OutgoingMessage::to_ue(&to, "unharmed").store_and_forward(None));
    let (outcome, received) = tokio::join!(timeout(PATIENCE, sending), receive(&mut incoming));
    let outcome = outcome.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Delivered | Outcome::Stored), "{outcome:?}");
    assert_eq!(received, b"unharmed");
    let (outcome, received) = tokio::join!(send(&alice, &to, b"next"), receive(&mut incoming));
    assert_eq!((outcome, received.as_slice()), (Outcome::Delivered, &b"next"[..]), "and not the first once more");
}

#[test]
fn the_command_line_registers_and_sends_under_oscore() {
    let lab = Lab::start();
    for transport in ["oscore-udp", "oscore-tcp"] {
        let profile = lab.path(&format!("{transport}.toml"));
        let run = |arguments: &[&str]| {
            let output = msgin5g().args(arguments).output().unwrap();
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
            text(&output.stdout)
        };
        let (lab_json, profile) = (lab.lab_json_path().display().to_string(), profile.display().to_string());
        run(&[
            "client",
            "profile",
            "--lab",
            &lab_json,
            "--subscriber",
            "0",
            "--transport",
            transport,
            "--out",
            &profile,
        ]);
        let registered: Value =
            serde_json::from_str(&run(&["--json", "client", "register", "--profile", &profile])).unwrap();
        assert_eq!(registered["tls_version"], "OSCORE");
    }
}
