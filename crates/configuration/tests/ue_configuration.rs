//! UE configurations over CoAP from outside: UEs with keys of a real AAnF, provisioners, impostors; over real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use akma::{AKid, AfId, Fqdn, KAkma, UaProtocolId};
use coap::{Code, ExchangeId, Observe, Request, RequestBuilder, Response, StreamConfig, StreamConnection, StreamEvent};
use common::{CONFIGURATION, Fixture, PROVISIONER, service, ue};
use configuration::{CoapConfig, CoapLimits};
use sbi::naanf::{AkmaKeyInfo, NaanfClient};
use sbi::testing::audit::AuditLog;
use sbi::{ClientLimits, ServerLimits};
use store::DatabaseOptions;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use transport::{ClientHandshakeError, ClientStream, HandshakeLimits, LookupLimits, PskClientConfig, PskConnector};

const AANF: &str = "90000000-0000-4000-8000-000000000000";
const AUSF: &str = "91000000-0000-4000-8000-000000000000";
const FQDN: &str = "configuration.example.com";
const SERVER_FQDN: &str = "msgin5g.example.com";
const PATH: &str = "su-uc/v1/val-services/msgin5g/ue-configurations";
const SUPI: &str = common::SUPI;
const OTHER_SUPI: &str = "imsi-001010000000002";
/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Configuration Function, the AAnF that it asks, and the AUSF that registers keys there.
struct Scene {
    fixture: Fixture,
    aanf: aanf::Running,
    aanf_shutdown: CancellationToken,
    _state: TempDir,
}

impl Scene {
    async fn start() -> Self {
        Self::start_with(|_| {}, |_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut CoapConfig), change_aanf: impl FnOnce(&mut aanf::Config)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let aanf_shutdown = CancellationToken::new();
        // The AAnF first, with certificates of the same authority; its address goes into the configuration.
        let authority = sbi::testing::TestAuthority::new();
        let mut config = aanf::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            admin: None,
            data: state.path().join("aanf"),
            storage_key: None,
            kaf_lifetime_seconds: 3600,
            kaf_may_outlive_kakma: true,
            routing_indicators: [].into(),
            notifications: aanf::NotificationConfig::default(),
            tables: aanf::TableLimits::default(),
            tls: authority.issue(AANF, &[]),
            limits: ServerLimits::default(),
            store: DatabaseOptions::default(),
            udm: None,
            authorization: sbi::authorization::AuthorizationConfig::tls_only(),
            nrf: None,
            policy: None,
            afs: vec![
                aanf::AfConfig {
                    nf_instance_id: Some(AUSF.to_owned()),
                    may_register: true,
                    ..aanf::AfConfig::default()
                },
                aanf::AfConfig {
                    nf_instance_id: Some(CONFIGURATION.to_owned()),
                    fqdns: [FQDN.parse().unwrap()].into(),
                    supi_access: true,
                    ..aanf::AfConfig::default()
                },
            ],
        };
        change_aanf(&mut config);
        let aanf = aanf::start(config, aanf_shutdown.clone()).await.unwrap();
        let root = format!("https://127.0.0.1:{}", aanf.local_addr().port());
        let mut coap = CoapConfig {
            fqdn: FQDN.parse().unwrap(),
            listen: ([127, 0, 0, 1], 0).into(),
            server_address: "coaps+tcp://msgin5g.example.com:5684/msgin5g".to_owned(),
            connect_address: None,
            segment_size: Some(2048),
            allow_plain_psk_tls12: false,
            aanf: root,
            aanf_routes: Vec::new(),
            notifications: None,
            handshakes: HandshakeLimits::default(),
            lookups: LookupLimits::default(),
            requests: ClientLimits::default(),
            limits: CoapLimits::default(),
        };
        change(&mut coap);
        let fixture = Fixture::start_of(authority, |config| config.coap = Some(coap)).await;
        Self { fixture, aanf, aanf_shutdown, _state: state }
    }

    /// What AUSF and UE both do after primary authentication.
    async fn authenticate(&self, supi: &str, a_kid: &str) -> Subscriber {
        let subscriber = Subscriber { a_kid: a_kid.parse().unwrap(), k_akma: KAkma::from_hex(&key_of(a_kid)).unwrap() };
        let root = format!("https://127.0.0.1:{}", self.aanf.local_addr().port());
        let info = AkmaKeyInfo {
            supp_feat: None,
            ue_id: ue(supi),
            a_kid: subscriber.a_kid.clone(),
            k_akma: KAkma::from_hex(&key_of(a_kid)).unwrap(),
        };
        NaanfClient::new(self.fixture.authority.client(AUSF), root).register_anchorkey(&info).await.unwrap();
        subscriber
    }

    async fn associate(&self, supi: &str, ue_service_id: &str) {
        self.fixture.associate(supi, ue_service_id).await;
    }

    async fn dissociate(&self, supi: &str, ue_service_id: &str) {
        let provisioner = self.fixture.provisioner(PROVISIONER);
        provisioner.dissociate(&ue(supi), &service(ue_service_id)).await.unwrap();
    }

    async fn connect(&self, subscriber: &Subscriber) -> Ue {
        Ue::new(self.try_connect(subscriber, FQDN, FQDN).await.unwrap())
    }

    async fn try_connect(
        &self,
        subscriber: &Subscriber,
        sni: &str,
        key_for: &str,
    ) -> Result<ClientStream, ClientHandshakeError> {
        let stream = TcpStream::connect(self.fixture.running.coap_addr().unwrap()).await.unwrap();
        Self::handshake(stream, subscriber, sni, key_for).await
    }

    async fn handshake(
        stream: TcpStream,
        subscriber: &Subscriber,
        sni: &str,
        key_for: &str,
    ) -> Result<ClientStream, ClientHandshakeError> {
        let key_for: Fqdn = key_for.parse().unwrap();
        let key = |protocol: UaProtocolId| akma::k_af(&subscriber.k_akma, &AfId::new(key_for.clone(), protocol));
        let connector = PskConnector::new(PskClientConfig::default()).unwrap();
        connector.connect(stream, &sni.parse().unwrap(), &subscriber.a_kid, key).await
    }
}

struct Subscriber {
    a_kid: AKid,
    k_akma: KAkma,
}

/// A key that is another one for each A-KID.
fn key_of(a_kid: &str) -> String {
    let digits: String = a_kid.bytes().map(|octet| format!("{octet:02x}")).collect();
    format!("{digits:0<64}").chars().take(64).collect()
}

/// One UE's connection.
struct Ue {
    stream: ClientStream,
    machine: StreamConnection,
}

impl Ue {
    fn new(stream: ClientStream) -> Self {
        Self { stream, machine: StreamConnection::new(StreamConfig::default()) }
    }

    async fn flush(&mut self) {
        while let Some(octets) = self.machine.poll_transmit() {
            // A function that has ended the connection reads nothing any more.
            let _ = self.stream.write_all(&octets).await;
        }
    }

    /// The next thing that happens; none when the connection is closed.
    async fn next(&mut self) -> Option<StreamEvent> {
        timeout(PATIENCE, async {
            loop {
                self.flush().await;
                match self.machine.poll_event() {
                    Some(StreamEvent::PeerReady { .. }) => {}
                    Some(event) => return Some(event),
                    None => {
                        let mut octets = [0; 4096];
                        match self.stream.read(&mut octets).await {
                            Ok(0) | Err(_) => return None,
                            Ok(count) => drop(self.machine.receive(&octets[..count])),
                        }
                    }
                }
            }
        })
        .await
        .expect("nothing happens")
    }

    async fn response(&mut self, exchange: ExchangeId) -> Response {
        match self.next().await {
            Some(StreamEvent::Response { exchange: answered, response }) if answered == exchange => response,
            other => panic!("no response but {other:?}"),
        }
    }

    async fn ask(&mut self, request: RequestBuilder<'_>) -> Response {
        let exchange = self.machine.request(request).unwrap();
        self.response(exchange).await
    }

    async fn observe(&mut self) -> (ExchangeId, Response) {
        let exchange = self.machine.request(Request::get(PATH).accept(41).observe(Observe::Register)).unwrap();
        let response = self.response(exchange).await;
        (exchange, response)
    }

    /// Reads to the end; what the function said last.
    async fn last_words(&mut self) -> Option<StreamEvent> {
        let mut last = None;
        while let Some(event) = self.next().await {
            last = Some(event);
        }
        last
    }
}

fn element<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    assert_eq!((response.code, response.content_format), (Code::CONTENT, Some(41)), "{response:?}");
    let text = std::str::from_utf8(&response.payload).unwrap();
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(value, _)| value)
}

fn told(response: &Response) -> &str {
    element(response, "MSGin5G-UE-Service-id").unwrap()
}

fn cause_of(response: &Response) -> String {
    assert_eq!(response.content_format, Some(50));
    let problem: serde_json::Value = serde_json::from_slice(&response.payload).unwrap();
    problem["cause"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_ue_learns_its_own_configuration_and_nobody_elses() {
    let scene = Scene::start().await;
    scene.associate(SUPI, "meter-7@lab.example").await;
    scene.associate(OTHER_SUPI, "valve-2@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    let answer = ue.ask(Request::get(PATH)).await;
    assert_eq!(told(&answer), "meter-7@lab.example");
    assert_eq!(element(&answer, "MSGin5G-Server-address"), Some("coaps+tcp://msgin5g.example.com:5684/msgin5g"));
    assert_eq!(element(&answer, "Segment-size"), Some("2048"));
    assert!(!answer.observe, "not asked for");
    assert_eq!(answer.max_age, Some(3600));

    let refused = ue.ask(Request::get(PATH).query(&["ue-service-id=valve-2@lab.example"])).await;
    assert_eq!((refused.code, cause_of(&refused).as_str()), (Code::NOT_FOUND, "NOT_ASSOCIATED"));
    let nobody = ue.ask(Request::get(PATH).query(&["ue-service-id=nobody@lab.example"])).await;
    assert_eq!(nobody, refused, "whether it is somebody else's cannot be told");

    let subscriber = scene.authenticate(OTHER_SUPI, "0.bb@example.org").await;
    assert_eq!(told(&scene.connect(&subscriber).await.ask(Request::get(PATH)).await), "valve-2@lab.example");
}

#[tokio::test]
async fn each_decision_on_who_a_ue_is_told_to_be_is_one_event_with_its_a_kid_and_never_its_supi() {
    const SUPI: &str = "imsi-001010000000779";
    let log = AuditLog::record();
    let mut seen = 0;
    // Of this A-KID, since this was asked the last time.
    let mut once = async |decision: &str| {
        let lines: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("0.audited@")).collect();
        assert_eq!(lines[seen..], [format!("0.audited@example.org ue-configuration {decision}")]);
        seen = lines.len();
    };
    let scene = Scene::start().await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.audited@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    ue.ask(Request::get(PATH)).await;
    once("m@lab.example allowed associated").await;
    ue.ask(Request::get(PATH).query(&["ue-service-id=z@lab.example"])).await;
    once("z@lab.example refused not_associated").await;
    ue.ask(Request::get("elsewhere")).await;
    let (exchange, _) = ue.observe().await;
    once("m@lab.example allowed associated").await;
    // What it is told by itself is decided anew; what stays as it is, is not told.
    scene.associate(SUPI, "n@lab.example").await;
    scene.dissociate(SUPI, "m@lab.example").await;
    assert_eq!(told(&ue.response(exchange).await), "n@lab.example");
    once("n@lab.example allowed associated").await;
    scene.dissociate(SUPI, "n@lab.example").await;
    assert_eq!(ue.response(exchange).await.code, Code::NOT_FOUND);
    once("n@lab.example refused not_associated").await;
    assert!(!log.mentions(SUPI));
}

#[tokio::test]
async fn one_of_several_associations_is_picked_and_markup_stays_text() {
    let scene = Scene::start().await;
    for name in ["b&<1>@lab.example", "a@lab.example"] {
        scene.associate(SUPI, name).await;
    }
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    assert_eq!(told(&ue.ask(Request::get(PATH)).await), "a@lab.example");
    let picked = ue.ask(Request::get(PATH).query(&["x=1", "ue-service-id=b&<1>@lab.example"])).await;
    assert_eq!(told(&picked), "b&amp;&lt;1&gt;@lab.example");
}

#[tokio::test]
async fn an_observer_is_told_of_changes_and_keeps_its_identity_while_it_may() {
    let scene = Scene::start().await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    let (exchange, first) = ue.observe().await;
    assert!(first.observe && told(&first) == "m@lab.example");

    // Another association, before the first in order, and one of another UE: no change for this one.
    scene.associate(SUPI, "a@lab.example").await;
    scene.associate(OTHER_SUPI, "z@lab.example").await;
    scene.dissociate(SUPI, "m@lab.example").await;
    let second = ue.response(exchange).await;
    assert_eq!(told(&second), "a@lab.example", "the next thing told is that the old one is gone");
    assert!(second.observe);

    // The last one goes: so does the observation, and the connection stays for another question.
    scene.dissociate(SUPI, "a@lab.example").await;
    let last = ue.response(exchange).await;
    assert_eq!((last.code, last.observe, cause_of(&last).as_str()), (Code::NOT_FOUND, false, "NOT_ASSOCIATED"));
    let (_, none) = ue.observe().await;
    assert_eq!((none.code, none.observe), (Code::NOT_FOUND, false));
    scene.associate(SUPI, "n@lab.example").await;
    let (_, again) = ue.observe().await;
    assert!(again.observe && told(&again) == "n@lab.example");
}

#[tokio::test]
async fn an_observation_can_be_ended_and_then_brings_nothing() {
    let scene = Scene::start().await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    let (exchange, _) = ue.observe().await;
    ue.machine.stop_observing(exchange, Request::get(PATH).accept(41)).unwrap();
    let last = ue.response(exchange).await;
    assert!(!last.observe && told(&last) == "m@lab.example");
    scene.associate(SUPI, "a@lab.example").await;
    scene.dissociate(SUPI, "m@lab.example").await;
    // Whatever was to be told would come before this answer.
    assert_eq!(told(&ue.ask(Request::get(PATH)).await), "a@lab.example");
}

#[tokio::test]
async fn what_a_ue_is_told_after_a_restart_is_what_was_associated() {
    let mut scene = Scene::start().await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    ue.observe().await;
    scene.fixture.restart().await;
    let last = ue.last_words().await;
    assert!(matches!(last, Some(StreamEvent::Released { .. })), "stopped in good order: {last:?}");
    let mut ue = scene.connect(&subscriber).await;
    let (_, answer) = ue.observe().await;
    assert!(answer.observe && told(&answer) == "m@lab.example");
}

#[tokio::test]
async fn who_holds_no_key_for_this_function_gets_no_connection() {
    let scene = Scene::start().await;
    scene.associate(SUPI, "m@lab.example").await;
    let genuine = scene.authenticate(SUPI, "0.aa@example.org").await;
    let stranger =
        Subscriber { a_kid: "0.ff@example.org".parse().unwrap(), k_akma: KAkma::from_hex(&key_of("x")).unwrap() };
    let impostor = Subscriber { a_kid: genuine.a_kid.clone(), k_akma: KAkma::from_hex(&key_of("x")).unwrap() };
    assert!(matches!(
        scene.try_connect(&stranger, FQDN, FQDN).await.unwrap_err(),
        ClientHandshakeError::UnknownIdentity
    ));
    assert!(matches!(scene.try_connect(&impostor, FQDN, FQDN).await.unwrap_err(), ClientHandshakeError::WrongKey));
    // The key of the MSGin5G Server's name is not the key of this one's.
    let foreign_key = scene.try_connect(&genuine, FQDN, SERVER_FQDN).await.unwrap_err();
    assert!(matches!(foreign_key, ClientHandshakeError::WrongKey), "{foreign_key:?}");
    let foreign_name = scene.try_connect(&genuine, SERVER_FQDN, SERVER_FQDN).await.unwrap_err();
    assert!(matches!(foreign_name, ClientHandshakeError::ServerName), "{foreign_name:?}");
    assert_eq!(told(&scene.connect(&genuine).await.ask(Request::get(PATH)).await), "m@lab.example");
}

#[tokio::test]
async fn a_ue_whom_the_aanf_does_not_name_is_told_nothing() {
    let log = AuditLog::record();
    let scene = Scene::start_with(|_| {}, |aanf| aanf.afs[1].supi_access = false).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.nameless@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    let (_, refused) = ue.observe().await;
    assert_eq!((refused.code, refused.observe), (Code::FORBIDDEN, false));
    assert_eq!(cause_of(&refused), "REQUESTER_NOT_ALLOWED");
    let told = log.with(&[("subject", "0.nameless@example.org")]);
    assert_eq!(told.len(), 1);
    assert_eq!(
        [&told[0]["action"], &told[0]["outcome"], &told[0]["reason"]],
        ["ue-configuration", "refused", "nobody"]
    );
}

#[tokio::test]
async fn what_is_not_served_is_refused_and_the_connection_goes_on() {
    let scene = Scene::start().await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    let two = ["ue-service-id=a", "ue-service-id=b"];
    for (request, code) in [
        (Request::get("su-uc/v1/val-services/other/ue-configurations"), Code::NOT_FOUND),
        (Request::get("su-uc/v1/val-services/msgin5g/ue-configurations/1"), Code::NOT_FOUND),
        (Request::get("msgin5g"), Code::NOT_FOUND),
        (Request::get(""), Code::NOT_FOUND),
        (Request::post(PATH).payload(&b"<x/>"[..]), Code::METHOD_NOT_ALLOWED),
        (Request::with_method(Code::PUT, PATH).payload(&b"<x/>"[..]), Code::METHOD_NOT_ALLOWED),
        (Request::with_method(Code::DELETE, PATH), Code::METHOD_NOT_ALLOWED),
        (Request::get(PATH).accept(50), Code::NOT_ACCEPTABLE),
        (Request::get(PATH).query(&["ue-service-id="]), Code::BAD_REQUEST),
        (Request::get(PATH).query(&["ue-service-id=a b"]), Code::BAD_REQUEST),
        (Request::get(PATH).query(&two), Code::BAD_REQUEST),
    ] {
        let answer = ue.ask(request.clone().observe(Observe::Register)).await;
        assert_eq!((answer.code, answer.observe, answer.content_format), (code, false, Some(50)), "{request:?}");
    }
    assert_eq!(told(&ue.ask(Request::get(PATH)).await), "m@lab.example");
}

#[tokio::test]
async fn observations_and_connections_of_one_ue_have_limits() {
    let limits =
        CoapLimits { observations_per_connection_max: 2, connections_per_a_kid_max: 2, ..CoapLimits::default() };
    let scene = Scene::start_with(|coap| coap.limits = limits, |_| {}).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut first = scene.connect(&subscriber).await;
    let mut observed = Vec::new();
    for _ in 0..3 {
        observed.push(first.observe().await.1.observe);
    }
    assert_eq!(observed, [true, true, false]);
    // Both that stand are told.
    scene.associate(SUPI, "a@lab.example").await;
    scene.dissociate(SUPI, "m@lab.example").await;
    for _ in 0..2 {
        let Some(StreamEvent::Response { response, .. }) = first.next().await else { panic!("not told") };
        assert_eq!(told(&response), "a@lab.example");
    }
    let mut second = scene.connect(&subscriber).await;
    assert_eq!(told(&second.ask(Request::get(PATH)).await), "a@lab.example");
    let last = scene.connect(&subscriber).await.last_words().await;
    let Some(StreamEvent::Aborted { diagnostic, .. }) = last else { panic!("not aborted but {last:?}") };
    assert_eq!(diagnostic, "too many connections of this A-KID");
    assert_eq!(told(&first.ask(Request::get(PATH)).await), "a@lab.example", "those there stay");
    // Another UE is not held up by this one.
    scene.associate(OTHER_SUPI, "z@lab.example").await;
    let other = scene.authenticate(OTHER_SUPI, "0.bb@example.org").await;
    assert_eq!(told(&scene.connect(&other).await.ask(Request::get(PATH)).await), "z@lab.example");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_room_comes_back() {
    let limits = CoapLimits { connections_max: 1, ..CoapLimits::default() };
    let scene = Scene::start_with(|coap| coap.limits = limits, |_| {}).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut first = scene.connect(&subscriber).await;
    assert_eq!(told(&first.ask(Request::get(PATH)).await), "m@lab.example");
    let refused = scene.try_connect(&subscriber, FQDN, FQDN).await.unwrap_err();
    assert!(matches!(refused, ClientHandshakeError::Closed | ClientHandshakeError::Io(_)), "{refused:?}");
    drop(first);
    let mut next = timeout(PATIENCE, async {
        loop {
            match scene.try_connect(&subscriber, FQDN, FQDN).await {
                Ok(stream) => return Ue::new(stream),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(told(&next.ask(Request::get(PATH)).await), "m@lab.example");
}

#[tokio::test]
async fn a_connection_without_requests_is_released_and_one_that_observes_stays() {
    let limits = CoapLimits { idle_timeout_seconds: 1, ..CoapLimits::default() };
    let scene = Scene::start_with(|coap| coap.limits = limits, |_| {}).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut observing = scene.connect(&subscriber).await;
    let (exchange, _) = observing.observe().await;
    let mut silent = scene.connect(&subscriber).await;
    assert!(matches!(silent.next().await, Some(StreamEvent::Released { .. })));
    assert!(silent.next().await.is_none());
    scene.associate(SUPI, "a@lab.example").await;
    scene.dissociate(SUPI, "m@lab.example").await;
    assert_eq!(told(&observing.response(exchange).await), "a@lab.example");
}

#[tokio::test]
async fn an_observer_that_does_not_answer_a_ping_is_closed() {
    let limits = CoapLimits { idle_ping_seconds: 1, pong_timeout_seconds: 1, ..CoapLimits::default() };
    let scene = Scene::start_with(|coap| coap.limits = limits, |_| {}).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    ue.observe().await;
    // It reads what comes, but answers nothing.
    let mut machine = StreamConnection::new(StreamConfig::default());
    let mut octets = [0; 4096];
    timeout(PATIENCE, async {
        while let Ok(count @ 1..) = ue.stream.read(&mut octets).await {
            let _ = machine.receive(&octets[..count]);
        }
    })
    .await
    .expect("still open");
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_key() {
    let scene = Scene::start_with(|_| {}, |aanf| aanf.kaf_lifetime_seconds = 3).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    ue.observe().await;
    let last = ue.last_words().await;
    assert!(
        matches!(last, Some(StreamEvent::Aborted { ref diagnostic, .. }) if diagnostic == "K_AF expired"),
        "{last:?}"
    );
}

#[tokio::test]
async fn a_connection_whose_a_kid_was_superseded_ends() {
    let limits = CoapLimits { revalidation_seconds: 1, ..CoapLimits::default() };
    let scene = Scene::start_with(|coap| coap.limits = limits, |_| {}).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    ue.observe().await;
    scene.authenticate(SUPI, "0.cc@example.org").await;
    let last = ue.last_words().await;
    let Some(StreamEvent::Aborted { diagnostic, .. }) = last else { panic!("not aborted but {last:?}") };
    assert_eq!(diagnostic, "A-KID no longer valid");
}

#[tokio::test]
async fn while_the_aanf_is_silent_connections_live_on_for_the_time_of_grace_and_no_longer() {
    let limits = CoapLimits { revalidation_seconds: 1, revalidation_grace_seconds: 1, ..CoapLimits::default() };
    let scene = Scene::start_with(|coap| coap.limits = limits, |_| {}).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    ue.observe().await;
    scene.aanf_shutdown.cancel();
    scene.aanf.stopped().await;
    let last = ue.last_words().await;
    let Some(StreamEvent::Aborted { diagnostic, .. }) = last else { panic!("not aborted but {last:?}") };
    assert_eq!(diagnostic, "key cannot be checked");
    let refused = scene.try_connect(&subscriber, FQDN, FQDN).await.unwrap_err();
    assert!(matches!(refused, ClientHandshakeError::Busy), "{refused:?}");
}

#[tokio::test]
async fn whoever_breaks_the_protocol_or_reads_nothing_harms_itself_alone() {
    let limits = CoapLimits { write_timeout_seconds: 1, ..CoapLimits::default() };
    let scene = Scene::start_with(|coap| coap.limits = limits, |_| {}).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 512], &[0x00, 0xe1, 0x09, 0x09]] {
        let mut stream = scene.try_connect(&subscriber, FQDN, FQDN).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("still open");
    }
    // A message larger than any question needs.
    let mut large = scene.connect(&subscriber).await;
    large.flush().await;
    large.stream.write_all(&[0xe1, 0x07, 0x01, 0x20, 0x01, 0xe0, 0xff, 0xff, 0x01, 0x01]).await.unwrap();
    assert!(matches!(large.last_words().await, Some(StreamEvent::Aborted { .. }) | None));
    // Questions without end from a peer that takes no answer: the sockets fill, and the connection is given up.
    let mut deaf = scene.connect(&subscriber).await;
    let written = timeout(PATIENCE, async {
        loop {
            match deaf.machine.request(Request::get(PATH)) {
                Ok(exchange) => deaf.machine.cancel(exchange),
                Err(error) => panic!("{error}"),
            }
            let octets = deaf.machine.poll_transmit().unwrap();
            if deaf.stream.write_all(&octets).await.is_err() {
                return;
            }
        }
    });
    written.await.expect("still open");
    assert_eq!(told(&scene.connect(&subscriber).await.ask(Request::get(PATH)).await), "m@lab.example");
}

#[tokio::test]
async fn many_questions_at_once_each_get_their_answer() {
    let scene = Scene::start().await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut ue = scene.connect(&subscriber).await;
    let mut asked: Vec<ExchangeId> = (0..200).map(|_| ue.machine.request(Request::get(PATH)).unwrap()).collect();
    while !asked.is_empty() {
        let Some(StreamEvent::Response { exchange, response }) = ue.next().await else { panic!("no answer") };
        assert_eq!(told(&response), "m@lab.example");
        asked.retain(|asked| *asked != exchange);
    }
}

#[tokio::test]
async fn a_configuration_that_no_ue_could_use_is_refused_at_the_start() {
    let scene = Scene::start().await;
    let coap = scene.fixture.config.coap.clone().unwrap();
    let wrong = |change: fn(&mut CoapConfig), key: &str| {
        let mut coap = coap.clone();
        change(&mut coap);
        let config = configuration::Config { coap: Some(coap), ..scene.fixture.config.clone() };
        let told = config.check().unwrap_err().to_string();
        assert!(told.contains(key), "{told}");
    };
    wrong(|coap| coap.server_address = "msgin5g.example.com:5684".into(), "coap.server_address");
    wrong(|coap| coap.segment_size = Some(0), "coap.segment_size");
    wrong(|coap| coap.aanf = "http://aanf.example".into(), "coap.aanf");
    wrong(|coap| coap.limits.connections_max = 0, "coap.limits");
    wrong(|coap| coap.limits.idle_timeout_seconds = 0, "coap.limits.idle_timeout_seconds");
    wrong(|coap| coap.limits.revalidation_seconds = u64::MAX, "coap.limits.revalidation_seconds");
}

#[tokio::test]
async fn a_newer_a_kid_of_the_ue_has_the_connections_of_the_older_asked_for_at_once() {
    // Nobody is asked about at the next re-validation, which is in ten minutes.
    let scene = Scene::start().await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let mut older = scene.connect(&subscriber).await;
    older.observe().await;
    let subscriber = scene.authenticate(SUPI, "0.cc@example.org").await;
    let mut newer = scene.connect(&subscriber).await;
    let last = older.last_words().await;
    let Some(StreamEvent::Aborted { diagnostic, .. }) = last else { panic!("not aborted but {last:?}") };
    assert_eq!(diagnostic, "A-KID no longer valid");
    newer.observe().await;
}

/// Somebody on a UE's path, who holds back what it says after its ClientHello until told to go on.
async fn held_up(server: SocketAddr) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, go_on) = (listener.local_addr().unwrap(), Arc::new(Notify::new()));
    let told = Arc::clone(&go_on);
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(server).await.unwrap();
        let ((mut from_ue, mut to_ue), (mut from_server, mut to_server)) = (near.into_split(), far.into_split());
        let upwards = async {
            let mut hello = [0; 4096];
            let count = from_ue.read(&mut hello).await.unwrap();
            to_server.write_all(&hello[..count]).await.unwrap();
            told.notified().await;
            let _ = tokio::io::copy(&mut from_ue, &mut to_server).await;
        };
        let downwards = async {
            let _ = tokio::io::copy(&mut from_server, &mut to_ue).await;
        };
        tokio::join!(upwards, downwards);
    });
    (address, go_on)
}

#[tokio::test]
async fn a_handshake_of_an_older_a_kid_that_ends_after_a_newer_was_there_is_asked_about_at_once() {
    let limits = CoapLimits { connections_max: 2, ..CoapLimits::default() };
    let scene = Scene::start_with(|coap| coap.limits = limits, |_| {}).await;
    scene.associate(SUPI, "m@lab.example").await;
    let subscriber = scene.authenticate(SUPI, "0.aa@example.org").await;
    let (address, go_on) = held_up(scene.fixture.running.coap_addr().unwrap()).await;
    // Its key was asked for: the function has proven that it holds it.
    let stream = TcpStream::connect(address).await.unwrap();
    let mut older = Ue::new(Scene::handshake(stream, &subscriber, FQDN, FQDN).await.unwrap());
    let subscriber = scene.authenticate(SUPI, "0.cc@example.org").await;
    let mut newer = scene.connect(&subscriber).await;
    newer.observe().await;
    drop(newer);
    // It is gone once there is room for somebody else.
    let other = scene.authenticate(OTHER_SUPI, "0.bb@example.org").await;
    timeout(PATIENCE, async { while scene.try_connect(&other, FQDN, FQDN).await.is_err() {} }).await.unwrap();
    go_on.notify_one();
    let last = older.last_words().await;
    let Some(StreamEvent::Aborted { diagnostic, .. }) = last else { panic!("not aborted but {last:?}") };
    assert_eq!(diagnostic, "A-KID no longer valid");
}
