//! Sessions, routing, pipelines and the disk together: real [`store::EmbeddedStore`], real CoAP on both ends, an in-memory
//! stream in the place of TLS, and a table in the place of the Configuration Function.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod aggregates;
mod application_server;
mod audit;
mod broadcast;
mod datagrams;
mod delivery;
mod fan_out;
mod floods;
mod groups;
mod hibernation;
mod https;
mod lifetime;
mod limits;
mod lines;
mod new_addresses;
mod oscore;
mod pki;
mod policy;
mod reachability;
mod registration;
mod report;
mod restart;
mod sealed;
mod segments;
mod stored_update;
mod timing;
mod topics;
mod websocket;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use akma::{AKid, AfId, Fqdn, KAf, UaProtocolId, UeId};
use coap::{Code, ExchangeId, Request, Response, StreamConfig, StreamConnection, StreamEvent};
use message::{
    Address, ClientProfile, DecodeLimits, DeliveryStatus, DeliveryStatusReport, Deregistration, Message,
    MessageResponse, Priority, Registration, RegistrationResponse, ReportDeliveryStatus, UeMessage, UeServiceId,
};
use prometheus_client::registry::Registry as MetricsRegistry;
use sbi::policy::Rules;
use sbi::{ClientLimits, SbiClient, SbiClientConfig};
use store::{EmbeddedStore, StoreOptions};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use transport::{
    BoxFuture, Carrier, KeyLookup, KeySource, KeySourceError, LookupLimits, ProvenKey, ProvenPeer, StreamCarrier,
    TlsVersion, TransportMetrics,
};

use crate::application_server::ApplicationServers;
use crate::association::{AssociationError, AssociationSource};
use crate::broadcast::BroadcastAreaSection;
use crate::config::{ApplicationServerSection, PolicyFile};
use crate::core::{Core, Parts};
use crate::destinations::{Destinations, TopicServerSection};
use crate::groups::GroupSource;
use crate::limits::Limits;
use crate::listener;
use crate::metrics::Metrics;
use crate::policy::{Policy, ServerRules, TopicPolicy, TopicSection};
use crate::session::{self, Ended};

/// Longer than anything here takes: a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Octets that the in-memory stream holds in each direction.
const STREAM_OCTETS: usize = 65_536;

/// Associations as a test wants them.
#[derive(Default)]
struct Associations {
    known: Mutex<BTreeMap<String, BTreeSet<UeServiceId>>>,
    mood: Mutex<Mood>,
    released: AtomicBool,
    /// How often.
    asked: AtomicUsize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Mood {
    #[default]
    Answers,
    Fails,
    NeverAnswers,
    /// What is asked now is answered once the mood is another.
    Waits,
}

impl AssociationSource for Associations {
    fn ue_service_ids(&self, ue_id: UeId) -> BoxFuture<'_, Result<BTreeSet<UeServiceId>, AssociationError>> {
        let mood = *self.mood.lock().unwrap();
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match mood {
                Mood::Answers => Ok(self.known.lock().unwrap().get(ue_id.as_str()).cloned().unwrap_or_default()),
                Mood::Fails => Err(AssociationError("down".to_owned())),
                Mood::Waits => {
                    until(|| *self.mood.lock().unwrap() != Mood::Waits && self.released.load(Ordering::Relaxed)).await;
                    Ok(self.known.lock().unwrap().get(ue_id.as_str()).cloned().unwrap_or_default())
                }
                Mood::NeverAnswers => std::future::pending().await,
            }
        })
    }
}

/// A server without its listeners.
struct Net {
    core: Arc<Core>,
    associations: Arc<Associations>,
    servers: Arc<ApplicationServers>,
    directory: Arc<TempDir>,
    setup: Setup,
    rules: ServerRules,
    metrics: MetricsRegistry,
}

/// What a server is made of.
#[derive(Clone, Default)]
struct Setup {
    limits: Limits,
    store: StoreOptions,
    bindings: Vec<ApplicationServerSection>,
    keys: Option<Arc<Keys>>,
    destinations: DestinationsSetup,
    /// A policy file with the rules, in place of those above.
    policy: Option<PathBuf>,
}

/// Groups, topics and broadcast areas.
#[derive(Clone, Default)]
struct DestinationsSetup {
    groups: Option<Arc<dyn GroupSource>>,
    topics: Vec<TopicSection>,
    topic_servers: Vec<TopicServerSection>,
    areas: Vec<BroadcastAreaSection>,
    gateway: Option<String>,
}

/// K_AF as a test wants it.
#[derive(Default)]
struct Keys {
    answer: Mutex<Option<Option<ProvenKey>>>,
    /// Of these A-KIDs; `answer` is for the others.
    known: Mutex<BTreeMap<AKid, ProvenKey>>,
    /// The next answer goes out when this says so.
    held: Mutex<Option<Arc<Notify>>>,
    /// What it was asked for.
    asked: Mutex<Vec<AfId>>,
}

impl KeySource for Keys {
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>> {
        self.asked.lock().unwrap().push(af_id);
        let known = self.known.lock().unwrap().get(&a_kid).cloned();
        let answer = known.map(Some).or(self.answer.lock().unwrap().clone());
        let held = self.held.lock().unwrap().take();
        Box::pin(async move {
            if let Some(held) = held {
                held.notified().await;
            }
            answer.ok_or_else(|| KeySourceError::Unavailable("down".to_owned()))
        })
    }
}

impl Net {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        Self::of(Setup { limits, ..Setup::default() }).await
    }

    async fn of(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        pki::create(directory.path());
        Self::open(setup, Arc::new(directory), Arc::default()).await
    }

    async fn open(setup: Setup, directory: Arc<TempDir>, associations: Arc<Associations>) -> Self {
        let Setup { limits, store: options, bindings, keys, destinations, policy } = setup.clone();
        let fqdn: Fqdn = "msgin5g.lab.example".parse().unwrap();
        let keys =
            keys.map(|keys| Arc::new(KeyLookup::new(keys, fqdn, LookupLimits::default(), TransportMetrics::default())));
        let store = EmbeddedStore::open(&directory.path().join("store"), options).unwrap();
        let client = SbiClient::new(SbiClientConfig {
            tls: pki::server(directory.path()),
            limits: ClientLimits { connect_timeout_milliseconds: 500, ..ClientLimits::default() },
        })
        .unwrap();
        let DestinationsSetup { groups, topics, topic_servers, areas, gateway } = destinations;
        let rules = Arc::new(match policy {
            Some(path) => Rules::of_file(path, |path| Ok(sbi::policy::read::<PolicyFile>(path)?.into())).unwrap(),
            None => Rules::fixed(Policy {
                application_servers: bindings,
                topics: TopicPolicy::new(topics),
                topic_servers,
                areas,
            }),
        });
        let mut metrics = MetricsRegistry::default();
        let (core, writers) = Core::new(Parts {
            limits,
            audit: sbi::audit::Audit::default(),
            metrics: Metrics::register(&mut metrics),
            store: Arc::new(store),
            associations: Arc::clone(&associations) as Arc<dyn AssociationSource>,
            keys,
            destinations: Destinations { groups, rules: Arc::clone(&rules), client: Some(client.clone()) },
        });
        if let Some(gateway) = &gateway {
            crate::broadcast::start(&core, gateway, &client);
        }
        let servers = Arc::new(ApplicationServers::new(Arc::clone(&rules), client));
        crate::server::load(&core, &servers).await.unwrap();
        writers.run(&core, &core.stopped.clone());
        core.tasks.spawn(crate::segments::run(Arc::clone(&core)));
        core.tasks.spawn(crate::hibernation::run(Arc::clone(&core)));
        Self { core, associations, servers, directory, setup, rules, metrics }
    }

    /// What the server does within a few seconds when its policy file changes.
    async fn follow_policy(&self) {
        let earlier = self.rules.current();
        assert!(self.rules.refresh(), "the file has new rules");
        crate::server::reconcile(&self.core, &self.servers, &earlier).await;
    }

    /// As after a crash: everything in memory is gone, and nothing was said goodbye to.
    async fn restart(self) -> Self {
        let Self { core, associations, servers, directory, setup, .. } = self;
        servers.stop_all();
        core.broadcast.stop_all();
        core.stopped.cancel();
        core.tasks.close();
        timeout(PATIENCE, core.tasks.wait()).await.unwrap();
        let store = Arc::downgrade(&core.store);
        drop(core);
        until(|| store.strong_count() == 0).await;
        Self::open(setup, directory, associations).await
    }

    fn associate(&self, supi: &str, ue_service_id: &str) {
        let mut known = self.associations.known.lock().unwrap();
        known.entry(supi.to_owned()).or_default().insert(ue_service_id.parse().unwrap());
    }

    /// A connection of a UE with this SUPI.
    fn connect(&self, supi: &str) -> Ue {
        self.connect_as(peer(Some(supi), None), STREAM_OCTETS)
    }

    fn connect_as(&self, peer: ProvenPeer, stream_octets: usize) -> Ue {
        let (near, far) = duplex(stream_octets);
        let core = Arc::clone(&self.core);
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let far = carried(far, &core);
        let session = tokio::spawn(async move { listener::serve(&core, far, peer, source, "msgin5g".into()).await });
        Ue {
            stream: near,
            machine: StreamConnection::new(StreamConfig::default()),
            requests: VecDeque::new(),
            responses: Vec::new(),
            ended: false,
            session,
        }
    }

    /// A UE that is associated, connected and registered.
    async fn ue(&self, name: &str) -> Ue {
        let supi = supi_of(name);
        self.associate(&supi, name);
        let mut ue = self.connect(&supi);
        assert_eq!(ue.register(name).await.code, Code::CREATED);
        ue
    }

    /// Registers a UE and takes its connection away.
    async fn away_ue(&self, name: &str) {
        self.ue(name).await.leave().await;
    }

    /// Whether its metrics have this line.
    fn counts(&self, line: &str) -> bool {
        text_of(&self.metrics).lines().any(|other| other == line)
    }

    fn stored_for(&self, name: &str) -> usize {
        self.core.store.pending_count(&address(name))
    }
}

fn text_of(metrics: &MetricsRegistry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, metrics).unwrap();
    text
}

fn supi_of(name: &str) -> String {
    let number = name.bytes().fold(7_u64, |number, octet| number.wrapping_mul(31).wrapping_add(octet.into()));
    format!("imsi-00101{:010}", number % 10_000_000_000)
}

fn peer(supi: Option<&str>, expires_at: Option<SystemTime>) -> ProvenPeer {
    let a_kid: AKid = "0.00ff@5gc.mnc001.mcc001.3gppnetwork.org".parse().unwrap();
    ProvenPeer {
        a_kid,
        ue_id: supi.map(|supi| supi.parse().unwrap()),
        gpsi: None,
        expires_at,
        asked_at: tokio::time::Instant::now(),
        protocol: UaProtocolId::TLS_1_3,
        tls_version: TlsVersion::Tls13,
        cipher: "TLS_AES_128_GCM_SHA256",
    }
}

fn address(name: &str) -> Address {
    Address::ue(&name.parse().unwrap())
}

fn message(from: &str, to: &str, id: &str) -> Message {
    Message {
        originator: address(from),
        destination: address(to),
        recipient: None,
        message_id: id.parse().unwrap(),
        application_id: None,
        delivery_status_required: false,
        store_and_forward: false,
        expiration_time: None,
        priority: Priority::Middle,
        payload: b"21.5".to_vec(),
        segment: None,
        latency: None,
    }
}

fn storable(from: &str, to: &str, id: &str) -> Message {
    Message { store_and_forward: true, ..message(from, to, id) }
}

fn report(from: &str, to: &str, id: &str) -> UeMessage {
    UeMessage::DeliveryStatusReport(DeliveryStatusReport {
        originator: address(from),
        destination: address(to),
        message_id: id.parse().unwrap(),
        delivery_status: ReportDeliveryStatus::Success,
        failure_cause: None,
    })
}

/// Waits for something that happens in another task.
async fn until(mut condition: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
}

/// The client's end of a connection.
struct Ue {
    stream: DuplexStream,
    machine: StreamConnection,
    requests: VecDeque<Request>,
    responses: Vec<(ExchangeId, Response)>,
    ended: bool,
    session: JoinHandle<Ended>,
}

impl Ue {
    async fn flush(&mut self) {
        while let Some(octets) = self.machine.poll_transmit() {
            if timeout(PATIENCE, self.stream.write_all(&octets)).await.unwrap().is_err() {
                self.ended = true;
            }
        }
    }

    /// Reads once and sorts what came.
    async fn turn(&mut self) {
        self.flush().await;
        let mut octets = [0; 4096];
        let count = timeout(PATIENCE, self.stream.read(&mut octets)).await.unwrap().unwrap_or(0);
        self.ended |= count == 0 || self.machine.receive(&octets[..count]).is_err();
        while let Some(event) = self.machine.poll_event() {
            match event {
                StreamEvent::Request { request } => self.requests.push_back(request),
                StreamEvent::Response { exchange, response } => self.responses.push((exchange, response)),
                _ => {}
            }
        }
        self.flush().await;
    }

    async fn ask(&mut self, payload: &[u8]) -> ExchangeId {
        let request = Request::post("msgin5g").content_format(50).payload(payload.to_vec());
        let exchange = self.machine.request(request).unwrap();
        self.flush().await;
        exchange
    }

    async fn answer(&mut self, exchange: ExchangeId) -> Response {
        loop {
            if let Some(index) = self.responses.iter().position(|(answered, _)| *answered == exchange) {
                return self.responses.remove(index).1;
            }
            assert!(!self.ended, "connection ended before the answer");
            self.turn().await;
        }
    }

    async fn exchange(&mut self, payload: &[u8]) -> Response {
        let exchange = self.ask(payload).await;
        self.answer(exchange).await
    }

    async fn register(&mut self, name: &str) -> Response {
        self.register_with(name, None).await
    }

    async fn register_with(&mut self, name: &str, segment_size: Option<u32>) -> Response {
        let registration = Registration {
            ue_service_id: name.parse().unwrap(),
            client_profile: segment_size
                .map(|octets| ClientProfile { segment_size: Some(octets), ..ClientProfile::default() }),
        };
        self.exchange(&registration.encode()).await
    }

    async fn deregister(&mut self, name: &str) -> Response {
        self.exchange(&Deregistration { ue_service_id: name.parse().unwrap() }.encode()).await
    }

    /// Sends without waiting for the answer.
    async fn post(&mut self, message: &Message) -> ExchangeId {
        self.ask(&message.encode()).await
    }

    /// Sends, and says what came of it.
    async fn send(&mut self, message: &Message) -> Fate {
        let exchange = self.post(message).await;
        self.fate(exchange).await
    }

    async fn send_report(&mut self, report: &UeMessage) -> Fate {
        let response = self.exchange(&report.encode()).await;
        Fate::of(&response)
    }

    async fn fate(&mut self, exchange: ExchangeId) -> Fate {
        let response = self.answer(exchange).await;
        Fate::of(&response)
    }

    /// The next delivery, not yet acknowledged.
    async fn delivery(&mut self) -> (ExchangeId, UeMessage) {
        loop {
            if let Some(request) = self.requests.pop_front() {
                assert_eq!(request.path, ["msgin5g"]);
                assert_eq!(request.content_format, Some(50));
                return (request.exchange, UeMessage::decode(&request.payload, &DecodeLimits::default()).unwrap());
            }
            assert!(!self.ended, "connection ended before a delivery");
            self.turn().await;
        }
    }

    async fn respond(&mut self, exchange: ExchangeId, code: Code) {
        self.machine.respond(exchange, Response::new(code)).unwrap();
        self.flush().await;
    }

    /// Takes the next message and acknowledges it.
    async fn receive(&mut self) -> Message {
        let (exchange, message) = self.delivery().await;
        self.respond(exchange, Code::CHANGED).await;
        let UeMessage::Message(message) = message else { panic!("not a message: {message:?}") };
        *message
    }

    async fn receive_report(&mut self) -> DeliveryStatusReport {
        let (exchange, message) = self.delivery().await;
        self.respond(exchange, Code::CHANGED).await;
        let UeMessage::DeliveryStatusReport(report) = message else { panic!("not a report: {message:?}") };
        report
    }

    /// Takes the next delivery of whatever kind and acknowledges it.
    async fn receive_any(&mut self) -> UeMessage {
        let (exchange, message) = self.delivery().await;
        self.respond(exchange, Code::CHANGED).await;
        message
    }

    /// Closes, and waits until the server has noticed.
    async fn leave(self) -> Ended {
        drop(self.stream);
        timeout(PATIENCE, self.session).await.unwrap().unwrap()
    }

    /// Waits for the server to end the connection.
    async fn ended(mut self) -> Ended {
        while !self.ended {
            self.turn().await;
        }
        timeout(PATIENCE, self.session).await.unwrap().unwrap()
    }
}

/// What a sender was told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fate {
    code: String,
    status: Option<DeliveryStatus>,
    cause: Option<String>,
    max_age: Option<u32>,
}

impl Fate {
    fn of(response: &Response) -> Self {
        let body = MessageResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
        Self {
            code: response.code.to_string(),
            status: body.status,
            cause: body.failure_cause,
            max_age: response.max_age,
        }
    }

    fn delivered() -> Self {
        Self { code: "2.04".into(), status: None, cause: None, max_age: None }
    }

    fn stored() -> Self {
        Self { status: Some(DeliveryStatus::Stored), ..Self::delivered() }
    }

    fn failed(code: &str, cause: &str) -> Self {
        let max_age = matches!(code, "4.29" | "5.03").then_some(2);
        Self { code: code.into(), status: Some(DeliveryStatus::Failed), cause: Some(cause.into()), max_age }
    }
}

fn registration_cause(response: &Response) -> String {
    let body = RegistrationResponse::decode(&response.payload, &DecodeLimits::default()).unwrap();
    body.failure_cause.unwrap()
}

/// What the server has of a connection.
fn carried<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, core: &Core) -> Box<dyn Carrier> {
    Box::new(StreamCarrier::new(stream, session::stream_config(&core.limits)))
}
