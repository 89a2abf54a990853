//! An Application Server of the library `application` in the running lab, by each way in: what it and a UE say to each other.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "what held is told to whoever runs it"
)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use application::{Acceptance, Access, ApplicationServer, ApplicationServerConfig, Incoming, IncomingStream, Senders};
use client::{Client, Outcome, OutgoingMessage};
use common::Lab;
use common::fleet::Fleet;
use message::ts29538::UpdateStatus;
use message::{
    Address, AddressType, DeliveryStatusReport, FailureCause, Message, MessagingTopic, ReportDeliveryStatus,
    UeServiceId,
};
use openssl::x509::X509;
use sbi::capif::invoker::{Invoker, InvokerConfig};
use sbi::capif::publish::SecurityMethod;
use sbi::nrf::NrfConfig;
use sbi::{CertificateFiles, PeerName};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(90);

/// A UE that accepts whatever comes.
struct Device {
    client: Client,
    name: UeServiceId,
    messages: mpsc::UnboundedReceiver<Message>,
    reports: mpsc::UnboundedReceiver<DeliveryStatusReport>,
}

impl Device {
    async fn register(lab: &Lab) -> Self {
        let fleet = Fleet::provision(lab, 1).await;
        let (client, mut incoming) = fleet.ues[0].connect().await;
        let (message, messages) = mpsc::unbounded_channel();
        let (report, reports) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(arrived) = incoming.next().await {
                match arrived {
                    client::Incoming::Message(received) => {
                        let _ = message.send(received.content().clone());
                        received.accept().await.unwrap();
                    }
                    client::Incoming::Report(received) => {
                        let _ = report.send(received.content().clone());
                        received.accept().await.unwrap();
                    }
                    _ => {}
                }
            }
        });
        Self { client, name: fleet.ues[0].service_id.clone(), messages, reports }
    }
}

/// The lab's files and identities, as `lab.json` has them.
struct World {
    lab: Lab,
    description: Value,
}

impl World {
    fn start() -> Self {
        let lab = Lab::start();
        let description = lab.lab_json();
        Self { lab, description }
    }

    fn text(&self, pointer: &str) -> String {
        self.description.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")).as_str().unwrap().to_owned()
    }

    fn files(&self, at: &str, ca: &str) -> CertificateFiles {
        let file = |name: &str| self.lab.path(&self.text(&format!("{at}/{name}")));
        CertificateFiles { certificate: file("cert"), key: file("key"), ca: self.lab.path(ca), crl: None }
    }

    /// Function `name` of the lab as the one who delivers.
    fn senders(&self, name: &str) -> Senders {
        let pem = std::fs::read(self.lab.path(&format!("pki/{name}.pem"))).unwrap();
        let names = X509::from_pem(&pem).unwrap().subject_alt_names().unwrap();
        let id = names.iter().find_map(|name| Some(name.uri()?.strip_prefix("urn:uuid:")?.to_owned()));
        Senders::Named(vec![PeerName { nf_instance_id: Some(id.unwrap()), dns_name: None }])
    }

    fn inside(&self, access: Access) -> ApplicationServerConfig {
        let (id, tls) =
            (self.text("/application_servers/0/as_service_id"), self.files("/application_servers/0", "pki/ca.pem"));
        ApplicationServerConfig::new(id.parse().unwrap(), tls, access, self.senders("server"))
    }

    fn outside(&self, access: Access) -> ApplicationServerConfig {
        let id = self.text("/external_application_servers/0/as_service_id");
        let tls = self.files("/external_application_servers/0", "pki/ca.pem");
        ApplicationServerConfig::new(id.parse().unwrap(), tls, access, self.senders("nef"))
    }

    /// A fresh invoker for the application server outside, with the onboarding credential of this number.
    async fn invoker(&self, folder: &Path, number: usize) -> Invoker {
        let id = self.text("/external_application_servers/0/as_service_id");
        let all = self.description["capif_onboarding"].as_array().unwrap();
        let mut own = all.iter().filter(|one| one["as_service_id"] == id.as_str());
        let credential = own.nth(number).unwrap()["token"].as_str().unwrap();
        let directory = folder.join(number.to_string());
        std::fs::create_dir(&directory).unwrap();
        let config = InvokerConfig {
            core_function: self.text("/core/capif"),
            ca: self.lab.path("pki/ca.pem"),
            directory,
            notification_destination: "https://localhost:9/capif".to_owned(),
            tls12: true,
        };
        Invoker::onboard(config, credential).await.unwrap()
    }
}

async fn next(incoming: &mut IncomingStream) -> Incoming {
    timeout(PATIENCE, incoming.next()).await.expect("something arrives").expect("it is open")
}

/// Registers. Others register and publish in the background, so that it may take more than one attempt.
async fn register(server: &ApplicationServer) {
    let give_up_at = Instant::now() + PATIENCE;
    while let Err(error) = server.register().await {
        assert!(Instant::now() < give_up_at, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Registers, receives and sends with the reports that belong to it, and leaves. `disturb` comes in the middle.
async fn converse(config: ApplicationServerConfig, device: &mut Device, disturb: impl AsyncFnOnce()) {
    let (server, mut incoming) = ApplicationServer::open(config).await.unwrap();
    register(&server).await;
    let (own, ue) = (Address::application_server(server.id()), Address::ue(&device.name));

    // From the device, and a report to it.
    let outgoing = OutgoingMessage::to_application_server(server.id(), "19 C, rain").with_report();
    let id = outgoing.id().clone();
    let client = device.client.clone();
    let pending = tokio::spawn(async move { client.send(outgoing).await });
    let Incoming::Message(message) = next(&mut incoming).await else { panic!("no message") };
    assert_eq!((&message.content().originator, message.content().payload.as_slice()), (&ue, &b"19 C, rain"[..]));
    let report = message.success_report().unwrap();
    message.accept();
    assert_eq!(pending.await.unwrap().unwrap(), Outcome::Delivered);
    assert_eq!(server.report(report).await.unwrap(), Acceptance::Delivered);
    let told = timeout(PATIENCE, device.reports.recv()).await.unwrap().unwrap();
    assert_eq!(
        (told.originator, told.message_id, told.delivery_status),
        (own.clone(), id, ReportDeliveryStatus::Success)
    );

    disturb().await;

    // To the device, and a report from it.
    let mut sent = server.message(ue.clone(), "storm: close the valve");
    sent.delivery_status_required = true;
    assert_eq!(server.send(&sent).await.unwrap(), Acceptance::Delivered);
    let got = timeout(PATIENCE, device.messages.recv()).await.unwrap().unwrap();
    assert_eq!((got.originator, got.message_id, got.payload), (own, sent.message_id.clone(), sent.payload.clone()));
    let Incoming::Report(report) = next(&mut incoming).await else { panic!("no report") };
    assert_eq!((&report.content().originator, &report.content().message_id), (&ue, &sent.message_id));
    report.accept();
    // The same again is answered alike, and the device has it once.
    assert_eq!(server.send(&sent).await.unwrap(), Acceptance::Delivered);
    assert!(device.messages.try_recv().is_err());

    // A message that the application cannot use is told to have failed.
    let client = device.client.clone();
    let outgoing = OutgoingMessage::to_application_server(server.id(), "?");
    let pending = tokio::spawn(async move { client.send(outgoing).await });
    let Incoming::Message(message) = next(&mut incoming).await else { panic!("no message") };
    message.refuse();
    assert_eq!(pending.await.unwrap().unwrap().failure_cause(), Some(FailureCause::TargetRefused));

    let nobody = server.message(Address::ue(&"nobody@lab.example".parse().unwrap()), "x");
    assert_eq!(server.send(&nobody).await.unwrap_err().cause(), Some("UNKNOWN_TARGET"));
    server.deregister().await.unwrap();
    let gone = device.client.send(OutgoingMessage::to_application_server(server.id(), "anybody?")).await;
    assert_eq!(gone.unwrap().failure_cause(), Some(FailureCause::UnknownTarget));
    assert_eq!(server.send(&sent).await.unwrap_err().cause(), Some("NOT_REGISTERED"));
    server.close().await;
    assert!(incoming.next().await.is_none());
}

/// Waits until it is told of `topic`, which has become `status`; accepts everything on the way.
async fn told_of(incoming: &mut IncomingStream, topic: &MessagingTopic, status: &UpdateStatus) {
    loop {
        let Incoming::Topics(changes) = next(incoming).await else { panic!("no topics") };
        let updates = changes.content().msg_topics.clone();
        changes.accept();
        if updates.iter().any(|update| update.msg_topic == *topic && update.update_stat == *status) {
            return;
        }
    }
}

/// Is told of a topic that a device makes, subscribes to it, gets what is published there, publishes, and leaves it.
async fn follow_topics(config: ApplicationServerConfig, device: &mut Device, name: &str) {
    let (server, mut incoming) = ApplicationServer::open(config).await.unwrap();
    register(&server).await;
    let topic: MessagingTopic = format!("lab/{name}").parse().unwrap();
    let topics = std::slice::from_ref(&topic);
    let of = Address { addr_type: AddressType::As, addr: "msgin5g.lab.example".parse().unwrap() };
    let until = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    let list = server.subscribe_to_topic_list(of, Some(until)).await.unwrap();
    assert!(list.expires_at().is_some_and(|expires_at| expires_at <= until));
    device.client.subscribe(topics, None).await.unwrap();
    told_of(&mut incoming, &topic, &UpdateStatus::Created).await;

    let holds = server.subscribe(topics, Some(until)).await.unwrap();
    assert!(holds.is_some_and(|expires_at| expires_at <= until));
    let forbidden = server.subscribe(&["elsewhere/x".parse().unwrap()], None).await.unwrap_err();
    assert_eq!(forbidden.cause(), Some("TOPIC_NOT_ALLOWED"));
    let published = device.client.send(OutgoingMessage::to_topic(&topic, "12 mm")).await.unwrap();
    assert_eq!(published, Outcome::Stored);
    let Incoming::Message(message) = next(&mut incoming).await else { panic!("no message") };
    assert_eq!(
        (&message.content().destination, message.content().payload.as_slice()),
        (&Address::topic(&topic), &b"12 mm"[..])
    );
    message.accept();
    let mut warning = server.message(Address::topic(&topic), "flood");
    warning.store_and_forward = true;
    assert_eq!(server.send(&warning).await.unwrap(), Acceptance::Stored);
    let got = timeout(PATIENCE, device.messages.recv()).await.unwrap().unwrap();
    assert_eq!((got.message_id, got.payload), (warning.message_id, warning.payload));

    // The last who leaves a topic takes it away.
    server.unsubscribe(topics).await.unwrap();
    server.unsubscribe(topics).await.unwrap();
    device.client.unsubscribe(topics).await.unwrap();
    told_of(&mut incoming, &topic, &UpdateStatus::Deleted).await;
    server.unsubscribe_from_topic_list(&list).await.unwrap();
    server.unsubscribe_from_topic_list(&list).await.unwrap();
    server.deregister().await.unwrap();
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_topics_inside_the_domain_through_the_nef_and_as_an_invoker_by_pki_oauth_and_psk() {
    let world = World::start();
    let mut device = Device::register(&world.lab).await;
    let api = world.text("/server/api");
    follow_topics(world.inside(Access::Certificate { server: api }), &mut device, "certificate").await;
    println!("held: by certificate");
    let access = Access::Nrf { server: "nrf".to_owned(), nrf: Box::new(NrfConfig::new(world.text("/core/nrf"))) };
    follow_topics(world.inside(access), &mut device, "nrf").await;
    println!("held: with tokens of the NRF");
    let access = Access::Nef {
        nef: world.text("/core/nef"),
        client_id: world.text("/external_application_servers/0/client_id"),
    };
    follow_topics(world.outside(access), &mut device, "nef").await;
    println!("held: through the NEF");
    let folder = tempfile::tempdir().unwrap();
    for (number, method) in [SecurityMethod::Pki, SecurityMethod::Oauth, SecurityMethod::Psk].into_iter().enumerate() {
        // From onboarding on: each is an invoker of its own.
        let invoker = world.invoker(folder.path(), number).await;
        let access = Access::Capif { invoker: Box::new(invoker.clone()), methods: vec![method.clone()], aef_id: None };
        let mut config = world.outside(access);
        config.host = Some("localhost".to_owned());
        follow_topics(config, &mut device, &format!("capif-{number}")).await;
        println!("held: as an API invoker by {method:?}");
        invoker.offboard().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_the_domain_it_comes_by_certificate_and_with_tokens_of_the_nrf_that_finds_the_server() {
    let world = World::start();
    let mut device = Device::register(&world.lab).await;
    let api = world.text("/server/api");
    converse(world.inside(Access::Certificate { server: api }), &mut device, async || {}).await;
    println!("held: by certificate");
    let access = Access::Nrf { server: "nrf".to_owned(), nrf: Box::new(NrfConfig::new(world.text("/core/nrf"))) };
    converse(world.inside(access), &mut device, async || {}).await;
    println!("held: with tokens of the NRF");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_the_domain_it_comes_through_the_nef_and_as_an_invoker_by_pki_oauth_and_psk() {
    let world = World::start();
    let mut device = Device::register(&world.lab).await;
    let access = Access::Nef {
        nef: world.text("/core/nef"),
        client_id: world.text("/external_application_servers/0/client_id"),
    };
    converse(world.outside(access), &mut device, async || {}).await;
    println!("held: through the NEF");
    let folder = tempfile::tempdir().unwrap();
    for (number, method) in [SecurityMethod::Pki, SecurityMethod::Oauth, SecurityMethod::Psk].into_iter().enumerate() {
        let invoker = world.invoker(folder.path(), number).await;
        let access = Access::Capif { invoker: Box::new(invoker.clone()), methods: vec![method.clone()], aef_id: None };
        let mut config = world.outside(access);
        // The names that the operator tied to the credential are those that the NEF delivers to.
        config.host = Some("localhost".to_owned());
        // Another agreement takes the place of what was agreed, and it agrees anew by itself.
        let disturb = async || {
            invoker.negotiate("msgs-topiclistevent", vec![SecurityMethod::Pki]).await.unwrap();
        };
        converse(config, &mut device, disturb).await;
        println!("held: {method:?}");
        invoker.offboard().await.unwrap();
    }
}
