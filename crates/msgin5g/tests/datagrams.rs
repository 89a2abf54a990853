//! MSGin5G-1 over UDP and DTLS from outside: programs that share no code with ours, a network that gives a device other
//! addresses, and a server that is killed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, ClientConfig, Incoming, IncomingStream, Outcome, OutgoingMessage, Transport};
use common::faulty_disk::FaultyDisk;
use common::fleet::{Fleet, FleetUe};
use common::function::{Function, free_address};
use common::nat::Nat;
use common::{Lab, foreign};
use message::CommunicationAvailability;
use time::OffsetDateTime;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use transport::OfferedVersions;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn foreign_ues_are_served_and_refused_over_dtls_as_stated() {
    let lab = Lab::start();
    let printed = foreign("datagrams.py", &[&lab.lab_json_path()]);
    for client in ["ECDHE-PSK-CHACHA20-POLY1305", "PSK-AES128-CCM8", "coap-client-openssl", "coap-client-gnutls"] {
        assert!(printed.contains(&format!("served: {client}\n")), "{client} was not served:\n{printed}");
    }
}

/// Hands over, and says what.
fn accepting(mut incoming: IncomingStream) -> (JoinHandle<()>, mpsc::UnboundedReceiver<String>) {
    let (tell, handed_over) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Some(event) = incoming.next().await {
            match event {
                Incoming::Message(message) => {
                    let id = message.content().message_id.to_string();
                    if message.accept().await.is_ok() {
                        let _ = tell.send(id);
                    }
                }
                Incoming::Report(report) => drop(report.accept().await),
                _ => {}
            }
        }
    });
    (task, handed_over)
}

/// Sends until it is answered that the message is safe.
async fn send(client: &Client, to: &FleetUe, id: &str) {
    timeout(PATIENCE, async {
        loop {
            let message = OutgoingMessage::to_ue(&to.service_id, "x").message_id(id.parse().unwrap());
            match client.send(message.store_and_forward(None)).await {
                Ok(Outcome::Delivered | Outcome::Stored) => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{id} was not taken"));
}

/// Sends one last message, which comes behind whatever is still on its way, a repetition too: what came until then is `wanted`,
/// each once.
async fn assert_once(
    sender: &Client,
    to: &FleetUe,
    handed_over: &mut mpsc::UnboundedReceiver<String>,
    wanted: &[String],
) {
    send(sender, to, LAST).await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    timeout(PATIENCE, async {
        while !seen.contains_key(LAST) {
            *seen.entry(handed_over.recv().await.unwrap()).or_default() += 1;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("the last did not come; lost: {:?}", lost(wanted, &seen)));
    assert!(lost(wanted, &seen).is_empty(), "lost: {:?}", lost(wanted, &seen));
    assert!(seen.values().all(|times| *times == 1), "repeated: {seen:?}");
    assert_eq!(seen.len(), wanted.len() + 1, "nobody sent some of these: {seen:?}");
}

const LAST: &str = "the-last-of-all";

fn lost<'a>(wanted: &'a [String], seen: &BTreeMap<String, usize>) -> Vec<&'a String> {
    wanted.iter().filter(|id| !seen.contains_key(*id)).collect()
}

async fn over_dtls(ue: &FleetUe, server: SocketAddr) -> (Client, IncomingStream) {
    over_dtls_with(ue, server, |_| {}).await
}

async fn over_dtls_with(
    ue: &FleetUe,
    server: SocketAddr,
    change: impl Fn(&mut ClientConfig),
) -> (Client, IncomingStream) {
    let mut config = ue.config.clone();
    config.server = server.to_string();
    config.transport = Transport::Udp;
    config.limits.backoff_first_milliseconds = 50;
    config.limits.backoff_max_milliseconds = 500;
    change(&mut config);
    ue.connect_with(config).await
}

fn coaps(lab: &Lab) -> SocketAddr {
    lab.lab_json()["server"]["coaps"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_address_changes_in_the_middle_of_traffic_loses_and_repeats_nothing() {
    let lab = Lab::start();
    let fleet = Fleet::provision(&lab, 2).await;
    let (meter, valve) = (&fleet.ues[0], &fleet.ues[1]);
    let nat = Nat::in_front_of(coaps(&lab)).await;
    let (behind_nat, incoming) = over_dtls(meter, nat.address).await;
    let (_accepting_meter, mut to_meter) = accepting(incoming);
    let (other, incoming) = over_dtls(valve, coaps(&lab)).await;
    let (_accepting_valve, mut to_valve) = accepting(incoming);
    let (mut sent_there, mut sent_here) = (Vec::new(), Vec::new());
    for round in 0..30 {
        let (there, here) = (format!("there-{round}"), format!("here-{round}"));
        if round % 3 == 0 {
            nat.rebind();
        }
        // The device speaks first: nobody can reach it behind its new address before.
        tokio::join!(send(&behind_nat, valve, &there), send(&other, meter, &here));
        sent_there.push(there);
        sent_here.push(here);
    }
    assert_once(&behind_nat, valve, &mut to_valve, &sent_there).await;
    assert_once(&other, meter, &mut to_meter, &sent_here).await;
    assert_eq!(behind_nat.status().registrations, 1, "the session lasted");
    assert_eq!(other.status().registrations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back_loses_and_repeats_nothing_over_dtls() {
    let mut lab = Lab::start();
    let fleet = Fleet::provision(&lab, 2).await;
    let (meter, valve) = (&fleet.ues[0], &fleet.ues[1]);
    let (one, incoming) = over_dtls(meter, coaps(&lab)).await;
    let (_accepting_meter, mut to_meter) = accepting(incoming);
    let (other, incoming) = over_dtls(valve, coaps(&lab)).await;
    let (_accepting_valve, mut to_valve) = accepting(incoming);
    let (mut sent_there, mut sent_here) = (Vec::new(), Vec::new());
    for round in 0..12 {
        let (there, here) = (format!("there-{round}"), format!("here-{round}"));
        if round % 4 == 3 {
            lab.kill();
            lab.start_again();
        }
        tokio::join!(send(&one, valve, &there), send(&other, meter, &here));
        sent_there.push(there);
        sent_here.push(here);
    }
    assert_once(&one, valve, &mut to_valve, &sent_there).await;
    assert_once(&other, meter, &mut to_meter, &sent_here).await;
    assert!(one.status().registrations > 1, "the server was killed");
}

/// A server whose sessions over DTLS rest as soon as they may, and are sealed at its stop; where it serves them.
fn sealing(lab: &Lab, others: &[(&'static str, &str)]) -> (Function, SocketAddr) {
    let (coaps, directory) = (free_address(), lab.path(SEALED).display().to_string());
    let environment = [
        ("MSGIN5G_COAPS__LISTEN", coaps.to_string()),
        ("MSGIN5G_COAPS__SEALED_SESSIONS", directory),
        ("MSGIN5G_LIMITS__DATAGRAM_FREEZE_MILLISECONDS", "1".to_owned()),
    ];
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    (Function::server(lab, &environment.chain(others.iter().copied()).collect::<Vec<_>>()), coaps)
}

const SEALED: &str = "state/sealed";

/// Devices that say nothing by themselves.
fn quiet(config: &mut ClientConfig) {
    config.limits.keep_alive_milliseconds = 3_600_000;
}

/// What both ends of a pair of devices have sent, and what they got.
struct Pair {
    clients: [Client; 2],
    got: [mpsc::UnboundedReceiver<String>; 2],
    sent: [Vec<String>; 2],
    _accepting: [JoinHandle<()>; 2],
}

impl Pair {
    async fn of(ues: &[FleetUe], server: SocketAddr, change: impl Fn(&mut ClientConfig)) -> Self {
        let (mut clients, mut got, mut tasks) = (Vec::new(), Vec::new(), Vec::new());
        for ue in &ues[..2] {
            let (client, incoming) = over_dtls_with(ue, server, &change).await;
            let (task, handed_over) = accepting(incoming);
            clients.push(client);
            got.push(handed_over);
            tasks.push(task);
        }
        let (Ok(clients), Ok(got), Ok(_accepting)) = (clients.try_into(), got.try_into(), tasks.try_into()) else {
            panic!("two of each")
        };
        Self { clients, got, sent: Default::default(), _accepting }
    }

    /// Sends a message each way until each is safe.
    async fn exchange(&mut self, ues: &[FleetUe], round: &str) {
        let (there, here) = (format!("there-{round}"), format!("here-{round}"));
        let [one, other] = &self.clients;
        tokio::join!(send(one, &ues[1], &there), send(other, &ues[0], &here));
        self.sent[1].push(there);
        self.sent[0].push(here);
    }

    fn registrations(&self) -> [u64; 2] {
        [0, 1].map(|index: usize| self.clients[index].status().registrations)
    }

    async fn assert_once(&mut self, ues: &[FleetUe]) {
        let [to_one, to_other] = &mut self.got;
        let [one, other] = &self.clients;
        assert_once(other, &ues[0], to_one, &self.sent[0]).await;
        assert_once(one, &ues[1], to_other, &self.sent[1]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_rest_go_on_over_restarts_of_the_server_without_a_handshake() {
    let lab = Lab::start();
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let ues = Fleet::provision(&lab, 2).await.ues;
        let (mut server, coaps) = sealing(&lab, &[]);
        let quiet = |config: &mut ClientConfig| {
            config.tls.versions = versions;
            quiet(config);
        };
        let mut pair = Pair::of(&ues, coaps, quiet).await;
        for round in 0..3 {
            pair.exchange(&ues, &format!("{round}")).await;
            server.metric_reaches(FROZEN, 2);
            assert!(server.stop().success());
            server.start_again();
            server.metric_reaches(FROZEN, 2);
            assert_eq!(server.metric(HANDSHAKES), 0);
        }
        pair.exchange(&ues, "last").await;
        pair.assert_once(&ues).await;
        assert_eq!(pair.registrations(), [1, 1], "no device has noticed");
        assert_eq!(server.metric(HANDSHAKES), 0);
        assert!(server.stop().success());
    }
}

const FROZEN: &str = "dtls_sessions_frozen";
const HANDSHAKES: &str = "dtls_handshakes_total{outcome=\"accepted\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_leaves_sealed_sessions_to_the_next() {
    let lab = Lab::start();
    let ues = Fleet::provision(&lab, 2).await.ues;
    let (admin, websocket) = (free_address(), free_address());
    let (admin_listen, websocket_listen) = (admin.to_string(), websocket.to_string());
    let others = [("MSGIN5G_ADMIN__LISTEN", &*admin_listen), ("MSGIN5G_WEBSOCKET__LISTEN", &*websocket_listen)];
    let (mut server, coaps) = sealing(&lab, &others);
    let mut pair = Pair::of(&ues, coaps, quiet).await;
    pair.exchange(&ues, "before").await;
    server.metric_reaches(FROZEN, 2);
    assert!(server.stop().success());
    for taken in [admin, websocket] {
        let somebody = TcpListener::bind(taken).unwrap();
        assert!(!server.fails_to_start().success());
        drop(somebody);
    }
    // The port of the devices, too.
    let somebody = std::net::UdpSocket::bind(coaps).unwrap();
    assert!(!server.fails_to_start().success());
    drop(somebody);
    server.start_again();
    server.metric_reaches(FROZEN, 2);
    pair.exchange(&ues, "after").await;
    pair.assert_once(&ues).await;
    assert_eq!((pair.registrations(), server.metric(HANDSHAKES)), ([1, 1], 0), "no device has noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_at_the_stop_has_every_device_told_that_its_session_ends() {
    let lab = Lab::start();
    let ues = Fleet::provision(&lab, 2).await.ues;
    let disk = FaultyDisk::under(&lab, SEALED);
    let (mut server, coaps) = sealing(&lab, &disk.environment(&[]));
    let mut pair = Pair::of(&ues, coaps, quiet).await;
    for (round, fault) in (1..).zip(["write-fails", "sync-fails"]) {
        pair.exchange(&ues, fault).await;
        server.metric_reaches(FROZEN, 2);
        disk.does(fault);
        assert!(server.stop().success());
        assert_eq!(disk.failures(), round);
        server.start_again();
        // They would have nothing to say for an hour.
        timeout(PATIENCE, async {
            while pair.registrations() != [round + 1; 2] {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
    }
    pair.exchange(&ues, "last").await;
    pair.assert_once(&ues).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_it_seals_loses_and_repeats_nothing() {
    let lab = Lab::start();
    let ues = Fleet::provision(&lab, 2).await.ues;
    let disk = FaultyDisk::under(&lab, SEALED);
    let (mut server, coaps) = sealing(&lab, &disk.environment(&[]));
    // What is gone is soon noticed.
    let watchful = |config: &mut ClientConfig| {
        config.limits.authentication_interval_milliseconds = 0;
        config.limits.keep_alive_milliseconds = 2_000;
        config.limits.pong_timeout_milliseconds = 3_000;
    };
    let mut pair = Pair::of(&ues, coaps, watchful).await;
    let (sealed, unfinished) = (lab.path(SEALED).join("sessions.sealed"), lab.path(SEALED).join("sessions.sealed.new"));
    let has_octets = || std::fs::metadata(&unfinished).is_ok_and(|about| about.len() > 0);
    // Before a form is written, or after the last one.
    for (round, waits) in (2..).zip(["write-waits", "sync-waits", "write-waits", "sync-waits"]) {
        pair.exchange(&ues, &format!("{round}")).await;
        server.metric_reaches(FROZEN, 2);
        disk.does(waits);
        server.terminate();
        timeout(PATIENCE, async {
            while !(unfinished.exists() && (waits == "write-waits" || has_octets())) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        // It gets no further.
        assert_eq!((has_octets(), sealed.exists()), (waits == "sync-waits", false));
        server.kill();
        disk.does("pass");
        server.start_again();
        assert!(!unfinished.exists());
        assert_eq!(server.metric(FROZEN), 0, "a kill leaves nothing to go on with");
        pair.exchange(&ues, &format!("again-{round}")).await;
        assert!(pair.registrations().iter().all(|registrations| *registrations >= round), "{:?}", pair.registrations());
    }
    pair.assert_once(&ues).await;
}

/// What passes between a device and the server, in its order: true for what the device says, and the first octet.
#[derive(Clone, Default)]
struct Overheard(Arc<Mutex<Vec<(bool, u8)>>>);

impl Overheard {
    /// Listens in front of the server; where.
    async fn in_front_of(server: SocketAddr) -> (Self, SocketAddr) {
        let overheard = Self::default();
        let (front, back) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        back.connect(server).await.unwrap();
        let (address, all) = (front.local_addr().unwrap(), overheard.clone());
        tokio::spawn(async move {
            let (mut device, mut there, mut here) = (None, [0; 4_096], [0; 4_096]);
            loop {
                tokio::select! {
                    Ok((octets, source)) = front.recv_from(&mut there) => {
                        device = Some(source);
                        all.0.lock().unwrap().push((true, there[0]));
                        let _ = back.send(&there[..octets]).await;
                    }
                    Ok(octets) = back.recv(&mut here) => {
                        all.0.lock().unwrap().push((false, here[0]));
                        let _ = front.send_to(&here[..octets], device.unwrap()).await;
                    }
                }
            }
        });
        (overheard, address)
    }

    fn all(&self) -> Vec<(bool, u8)> {
        self.0.lock().unwrap().clone()
    }
}

/// Whether a record begins so that carries a Connection ID: tls12_cid (RFC 9146 clause 4), or the bit C of the unified header
/// (RFC 9147 clause 4).
fn has_connection_id(first: u8) -> bool {
    first == 25 || first & 0b1111_0000 == 0b0011_0000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_on_dtls_is_left_alone_outside_its_window_and_served_in_it_without_a_word_of_its_own() {
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let lab = Lab::start();
        let fleet = Fleet::provision(&lab, 2).await;
        let server = lab.lab_json()["server"]["coaps"].as_str().unwrap().parse().unwrap();
        let (overheard, address) = Overheard::in_front_of(server).await;
        let (alice, _from_others) = fleet.ues[0].connect().await;
        let mut lead = 15;
        let (_meter, mut incoming, opens) = loop {
            let opens = OffsetDateTime::now_utc() + Duration::from_secs(lead);
            let mut config = fleet.ues[1].config.clone();
            config.server = address.to_string();
            config.transport = Transport::Udp;
            config.tls.versions = versions;
            // It says nothing by itself.
            config.limits.keep_alive_milliseconds = 3_600_000;
            config.availability =
                Some(CommunicationAvailability { start: opens, duration_seconds: 3_600, interval_seconds: None });
            let (meter, incoming) = fleet.ues[1].connect_with(config).await;
            for number in 1..=3 {
                let id = format!("{lead}-{number}").parse().unwrap();
                let message = OutgoingMessage::to_ue(&fleet.ues[1].service_id, "x").message_id(id);
                let outcome = alice.send(message.store_and_forward(None)).await.unwrap();
                if OffsetDateTime::now_utc() < opens {
                    assert_eq!(outcome, Outcome::Stored);
                }
            }
            let lost = alice.send(OutgoingMessage::to_ue(&fleet.ues[1].service_id, "x")).await.unwrap();
            if OffsetDateTime::now_utc() < opens {
                assert!(matches!(lost, Outcome::Failed(_)), "{lost:?}");
                break (meter, incoming, opens);
            }
            // A machine that took so long needs a later window.
            meter.close().await;
            lead *= 2;
        };
        let before = overheard.all().len();
        let mut taken = Vec::new();
        while taken.len() < 3 {
            let Some(Incoming::Message(message)) = timeout(PATIENCE, incoming.next()).await.unwrap() else {
                panic!("no message")
            };
            assert!(OffsetDateTime::now_utc() >= opens, "before its window");
            // Those of an attempt that took too long may come, too.
            let id = message.content().message_id.to_string();
            taken.extend(Some(id).filter(|id| id.starts_with(&format!("{lead}-"))));
            message.accept().await.unwrap();
        }
        assert_eq!(taken, [1, 2, 3].map(|number| format!("{lead}-{number}")));
        let all = overheard.all();
        let said: Vec<_> = all[before..].iter().filter(|(by_device, _)| *by_device).collect();
        assert!(!all[before].0, "the server speaks first, in the window");
        assert!(!said.is_empty() && said.iter().all(|(_, first)| has_connection_id(*first)), "{said:?}");
    }
}
