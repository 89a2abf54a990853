//! What a key's end does on every way onto MSGin5G-1: it is replaced in time, expires, is withdrawn, and the server stops.
//! However a connection comes to its end, of what is sent meanwhile nothing is lost and nothing comes twice.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use client::{AkmaMaterial, Client, ClientConfig, ClientError, ClientState, Outcome, OutgoingMessage, Transport};
use message::UeServiceId;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinHandle;
use transport::OfferedVersions;

use crate::common::Lab;
use crate::common::fleet::{Fleet, FleetUe};
use crate::common::function::Function;
use crate::disabling::{counted, disable, enable};
use crate::neighbour::{ausf_of, client_of, eventually};
use crate::renewal::{assert_once, receive, send};
use crate::withdrawal::{EVERY_SECOND, provision};

/// A way onto MSGin5G-1.
struct Way {
    name: &'static str,
    transport: Transport,
    versions: OfferedVersions,
    over_https: bool,
    /// Where it is: the member of `lab.json`, and the key of the server's configuration.
    member: &'static str,
    key: &'static str,
}

impl Way {
    const fn new(name: &'static str, transport: Transport, member: &'static str, key: &'static str) -> Self {
        Self { name, transport, versions: OfferedVersions::Tls13, over_https: false, member, key }
    }

    const fn of_version_1_2(self) -> Self {
        Self { versions: OfferedVersions::Tls12, ..self }
    }

    fn is_over_udp(&self) -> bool {
        matches!(self.transport, Transport::Udp | Transport::OscoreUdp)
    }
}

const WAYS: [Way; 8] = [
    Way::new("TLS 1.3", Transport::Tcp, "coaps_tcp", "MSGIN5G_SERVER__LISTEN"),
    Way::new("TLS 1.2", Transport::Tcp, "coaps_tcp", "MSGIN5G_SERVER__LISTEN").of_version_1_2(),
    Way::new("WebSocket", Transport::WebSocket, "coaps_ws", "MSGIN5G_WEBSOCKET__LISTEN"),
    Way::new("DTLS 1.3", Transport::Udp, "coaps", "MSGIN5G_COAPS__LISTEN"),
    Way::new("DTLS 1.2", Transport::Udp, "coaps", "MSGIN5G_COAPS__LISTEN").of_version_1_2(),
    Way::new("OSCORE over UDP", Transport::OscoreUdp, "coap", "MSGIN5G_OSCORE__LISTEN_UDP"),
    Way::new("OSCORE over TCP", Transport::OscoreTcp, "coap_tcp", "MSGIN5G_OSCORE__LISTEN_TCP"),
    Way { over_https: true, ..Way::new("HTTPS", Transport::Tcp, "https", "MSGIN5G_HTTPS__LISTEN") },
];

/// Where each way of a server is.
type Addresses = [SocketAddr; WAYS.len()];

/// Those of the lab's server.
fn of_lab(lab: &Lab) -> Addresses {
    let server = lab.lab_json()["server"].clone();
    let address = |value: &Value| value.as_str().unwrap().trim_start_matches("https://").parse().unwrap();
    WAYS.map(|way| address(&server[way.member]))
}

/// A server whose keys come from `aanf`, at addresses that nobody else is given meanwhile, and what else it is told.
async fn server_of(lab: &Lab, aanf: &str, settings: &[(&'static str, &str)]) -> (Function, Addresses) {
    let mut held: Vec<(TcpSocket, Option<UdpSocket>)> = Vec::new();
    let mut addresses = Vec::new();
    for way in &WAYS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let datagrams = if way.is_over_udp() { Some(UdpSocket::bind("127.0.0.1:0").await.unwrap()) } else { None };
        let address = datagrams.as_ref().map_or(socket.local_addr(), UdpSocket::local_addr).unwrap();
        // Of two versions on one port the first has found it.
        let known = WAYS.iter().zip(&addresses).find(|(other, _)| other.key == way.key);
        addresses.push(known.map_or(address, |(_, known)| *known));
        held.push((socket, datagrams));
    }
    let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let mut variables: Vec<_> = WAYS.iter().zip(&texts).map(|(way, text)| (way.key, text.as_str())).collect();
    variables.push(("MSGIN5G_AKMA__AANF", aanf));
    variables.extend(settings);
    drop(held);
    (Function::server(lab, &variables), addresses.try_into().unwrap())
}

/// Puts a UE on each way.
fn spread(lab: &Lab, fleet: &mut Fleet, addresses: &Addresses) {
    for ((way, address), ue) in WAYS.iter().zip(addresses).zip(&mut fleet.ues) {
        ue.config.server = address.to_string();
        ue.config.transport = way.transport;
        ue.config.tls.versions = way.versions;
        ue.config.https_ca = way.over_https.then(|| lab.path(lab.lab_json()["ca"].as_str().unwrap()));
    }
}

/// A UE on each way, each of which sends to the next one and gets from the one before.
struct Ring {
    clients: Vec<Arc<Client>>,
    service_ids: Vec<UeServiceId>,
    got: Vec<Arc<Mutex<Vec<String>>>>,
    sent: Vec<JoinHandle<std::collections::BTreeSet<String>>>,
    done: Arc<Mutex<bool>>,
}

impl Ring {
    async fn of(lab: &Lab, fleet: &mut Fleet, addresses: &Addresses, change: impl Fn(&mut ClientConfig)) -> Self {
        spread(lab, fleet, addresses);
        let (mut clients, mut got) = (Vec::new(), Vec::new());
        for ue in &mut fleet.ues {
            ue.config.limits.authentication_interval_milliseconds = 0;
            // What a server that is gone does not acknowledge is soon asked of the next one.
            ue.config.limits.keep_alive_milliseconds = 2_000;
            ue.config.limits.pong_timeout_milliseconds = 5_000;
            change(&mut ue.config);
            let (client, incoming) = ue.connect().await;
            clients.push(Arc::new(client));
            got.push(receive(incoming));
        }
        let done = Arc::new(Mutex::new(false));
        let service_ids: Vec<_> = fleet.ues.iter().map(|ue| ue.service_id.clone()).collect();
        let next = |index: usize| &service_ids[(index + 1) % WAYS.len()];
        let sent = clients.iter().enumerate().map(|(index, client)| send(client, next(index), &done)).collect();
        Self { clients, service_ids, got, sent, done }
    }

    /// Whether each has registered so often, and is.
    fn registered(&self, times: u64) -> bool {
        let is = |client: &Arc<Client>| {
            let status = client.status();
            status.state == ClientState::Registered && status.registrations >= times
        };
        self.clients.iter().all(is)
    }

    fn states(&self) -> String {
        let state = |(way, client): (&Way, &Arc<Client>)| format!("{}: {:?}\n", way.name, client.status());
        WAYS.iter().zip(&self.clients).map(state).collect()
    }

    async fn come_to(&self, times: u64, what: &str) {
        for _ in 0..3_000 {
            if self.registered(times) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{what}:\n{}", self.states());
    }

    /// Whether each says of itself that it is not registered, for this.
    fn refused(&self, why: impl Fn(&ClientError) -> bool) -> bool {
        let is = |client: &Arc<Client>| {
            let status = client.status();
            status.state != ClientState::Registered && status.last_error.as_ref().is_some_and(&why)
        };
        self.clients.iter().all(is)
    }

    /// None of them has what this other UE sends to it.
    async fn nobody_is_reached_by(&self, other: &Client) {
        for (way, to) in WAYS.iter().zip(&self.service_ids) {
            let outcome = other.send(OutgoingMessage::to_ue(to, "not to be kept")).await.unwrap();
            assert!(matches!(outcome, Outcome::Failed(_)), "{}: {outcome:?}", way.name);
        }
    }

    /// Stops sending; everything that was promised arrives, once.
    async fn end(self) {
        *self.done.lock().unwrap() = true;
        for (index, sent) in self.sent.into_iter().enumerate() {
            let sent = sent.await.unwrap();
            let next = (index + 1) % WAYS.len();
            let (from, to) = (WAYS[index].name, WAYS[next].name);
            assert!(sent.len() > 3, "{from} sent {}", sent.len());
            let which = format!("from {from} to {to}");
            assert_once(&self.clients[index], &self.service_ids[next], sent, &self.got[next], &which).await;
        }
    }
}

/// A ring at a server whose K_AF lives for so many seconds.
async fn short_lived(seconds: &str, change: impl Fn(&mut ClientConfig)) -> (Lab, Function, Function, Ring) {
    let lab = Lab::start();
    let aanf = Function::aanf(&lab, &[("MSGIN5G_KAF_LIFETIME_SECONDS", seconds)]);
    let ausf = ausf_of(&lab, &aanf.root()).await;
    let (server, addresses) = server_of(&lab, &aanf.root(), &[]).await;
    let mut fleet = Fleet::provision_for(&lab, WAYS.len(), &ausf).await;
    let ring = Ring::of(&lab, &mut fleet, &addresses, change).await;
    (lab, aanf, server, ring)
}

/// A UE on each way, and one more, which is on the first of them.
async fn fleet_and_other(lab: &Lab, addresses: &Addresses) -> (Fleet, FleetUe) {
    let mut fleet = Fleet::provision(lab, WAYS.len() + 1).await;
    let mut other = fleet.ues.pop().unwrap();
    other.config.server = addresses[0].to_string();
    (fleet, other)
}

/// A ring at a server that asks every second whether key and association are good, and that nobody tells; and another UE there.
async fn revalidating() -> (Lab, Function, Fleet, Ring, FleetUe) {
    let lab = Lab::start();
    let aanf = lab.lab_json()["core"]["aanf"].as_str().unwrap().to_owned();
    let (server, addresses) = server_of(&lab, &aanf, &[EVERY_SECOND]).await;
    let (mut fleet, other) = fleet_and_other(&lab, &addresses).await;
    let ring = Ring::of(&lab, &mut fleet, &addresses, |_| {}).await;
    (lab, server, fleet, ring, other)
}

fn ended(reason: &str) -> String {
    format!("msgin5g_connections_ended_total{{reason=\"{reason}\"}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_keys_are_replaced_in_time_and_nothing_is_lost_or_repeated() {
    let (_lab, _aanf, server, ring) = short_lived("10", |_| {}).await;
    ring.come_to(3, "renewals").await;
    // The server has taken the next connections in place of the earlier ones.
    eventually("replaced", || server.metric(&ended("registered on a newer connection")) >= WAYS.len() as u64).await;
    ring.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_a_key_that_expires_ends_the_connection_and_nothing_is_lost_or_repeated() {
    // The second key cannot be replaced before it expires: that would be too soon after the first was.
    let change = |config: &mut ClientConfig| config.limits.authentication_interval_milliseconds = 12_000;
    let (_lab, _aanf, server, ring) = short_lived("8", change).await;
    eventually("expiry", || server.metric(&ended("K_AF expired")) >= WAYS.len() as u64).await;
    ring.come_to(3, "keys after the expiry").await;
    ring.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_akma_disabled_ends_the_connection_at_once_and_nothing_is_lost_or_repeated() {
    let lab = Lab::start();
    let mut fleet = Fleet::provision(&lab, WAYS.len()).await;
    let supis: Vec<String> = fleet.ues.iter().map(|ue| ue.supi.as_str().to_owned()).collect();
    let ring = Ring::of(&lab, &mut fleet, &of_lab(&lab), |_| {}).await;
    for supi in &supis {
        disable(&lab, "disabled-ues", supi).await;
    }
    eventually("the end of all", || counted(&lab, &ended("AKMA disabled")) >= WAYS.len() as u64).await;
    for supi in &supis {
        enable(&lab, "disabled-ues", supi).await;
    }
    ring.come_to(2, "AKMA enabled again").await;
    ring.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_a_ue_that_left_the_network_is_asked_about_and_nothing_is_lost_or_repeated() {
    let (lab, server, fleet, ring, _other) = revalidating().await;
    for ue in &fleet.ues {
        leave_network(&lab, ue).await;
    }
    eventually("the end of all", || server.metric(&ended("A-KID no longer valid")) >= WAYS.len() as u64).await;
    ring.come_to(2, "authenticated again").await;
    ring.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_an_older_a_kid_is_asked_about_and_nothing_is_lost_or_repeated() {
    let (_lab, server, fleet, ring, _other) = revalidating().await;
    for ue in &fleet.ues {
        // In the network only: it does not show the newer one to the server.
        ue.keys().await;
    }
    eventually("the end of all", || server.metric(&ended("A-KID no longer valid")) >= WAYS.len() as u64).await;
    ring.come_to(2, "newer keys").await;
    ring.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_an_association_that_is_removed_ends_the_connection_and_nothing_is_lost_or_repeated() {
    let (lab, server, fleet, ring, other) = revalidating().await;
    let (other, _to_other) = other.connect().await;
    let change = |what| {
        for ue in &fleet.ues {
            let association = ["--ue-id", ue.supi.as_str(), "--ue-service-id", ue.service_id.as_str()];
            provision(&lab, &["association", what], &association);
        }
    };
    change("remove");
    let reason = "UE Service ID no longer associated";
    eventually("the end of all", || server.metric(&ended(reason)) >= WAYS.len() as u64).await;
    let not_associated = |error: &ClientError| matches!(error, ClientError::RegistrationRefused { cause, .. } if cause == "NOT_ASSOCIATED");
    eventually("refusals", || ring.refused(not_associated)).await;
    ring.nobody_is_reached_by(&other).await;
    change("add");
    ring.come_to(2, "associated again").await;
    ring.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_a_subscriber_that_is_removed_loses_its_connection_at_once_and_nothing_is_lost_or_repeated() {
    let lab = Lab::start();
    let (mut fleet, other) = fleet_and_other(&lab, &of_lab(&lab)).await;
    let ring = Ring::of(&lab, &mut fleet, &of_lab(&lab), |_| {}).await;
    let (other, _to_other) = other.connect().await;
    for ue in &fleet.ues {
        provision(&lab, &["subscriber", "remove"], &["--supi", ue.supi.as_str()]);
    }
    eventually("the end of all", || counted(&lab, &ended("AKMA disabled")) >= WAYS.len() as u64).await;
    // Who is no subscriber has no keys.
    eventually("no keys", || ring.refused(|error| matches!(error, ClientError::Keys(_)))).await;
    ring.nobody_is_reached_by(&other).await;
    fleet.ues.iter().for_each(|ue| ue.subscribe(&lab, &[]));
    ring.come_to(2, "subscribers again").await;
    ring.end().await;
}

/// As the access network, which says that the UE has.
async fn leave_network(lab: &Lab, ue: &FleetUe) {
    let ausf = lab.lab_json()["core"]["ausf"].as_str().unwrap().to_owned();
    let uri = format!("{ausf}/nausf-auth/v1/ue-authentications/deregister");
    client_of(lab, "lab-nf").post::<_, IgnoredAny>(&uri, &json!({"supi": ue.supi})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_keys_that_the_aanf_does_not_have_any_more_open_no_connection() {
    let lab = Lab::start();
    let mut fleet = Fleet::provision(&lab, WAYS.len()).await;
    spread(&lab, &mut fleet, &of_lab(&lab));
    for (way, ue) in WAYS.iter().zip(&fleet.ues) {
        let refused = async |keys: &AkmaMaterial, why: &str| match ue.connect_by(keys).await {
            Err(ClientError::KeysRefused(a_kid)) => assert_eq!(a_kid, keys.a_kid),
            outcome => panic!("{}: {why}: {:?}", way.name, outcome.err()),
        };
        let (older, latest) = (ue.keys().await, ue.keys().await);
        refused(&older, "an older A-KID").await;
        let (client, _incoming) = ue.connect_by(&latest).await.unwrap();
        assert_eq!(client.status().a_kid.as_ref(), Some(&latest.a_kid), "{}", way.name);
        client.close().await;
        leave_network(&lab, ue).await;
        refused(&latest, "a UE that left the network").await;
        ue.subscribe(&lab, &["--no-akma"]);
        refused(&ue.keys().await, "a subscription without AKMA").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way_a_stop_of_the_server_drains_and_nothing_is_lost_or_repeated() {
    let mut lab = Lab::start();
    let mut fleet = Fleet::provision(&lab, WAYS.len()).await;
    let ring = Ring::of(&lab, &mut fleet, &of_lab(&lab), |_| {}).await;
    eventually("traffic", || ring.got.iter().all(|got| got.lock().unwrap().len() > 3)).await;
    let status = lab.stop();
    assert!(status.success(), "{status}");
    lab.start_again();
    ring.come_to(2, "the server is back").await;
    ring.end().await;
}
