//! Application Servers over real HTTP/2 and mutual TLS, in both directions.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use message::AsServiceId;
use message::ts29538::{AsMessageDelivery, AsRegistration, AsRegistrationAck, MessageDeliveryAck};
use sbi::authorization::{AuthorizationConfig, Authorizer};
use sbi::{Json, PeerIdentity, SbiError, SbiResponse, SbiServer, SbiServerConfig, ServerLimits, services};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::{self, Api};

fn binding(id: &str, instance: &str) -> ApplicationServerSection {
    ApplicationServerSection {
        as_service_id: id.parse().unwrap(),
        nf_instance_id: Some(instance.to_owned()),
        dns_name: None,
        target_uris: Vec::new(),
    }
}

pub(super) fn setup() -> Setup {
    Setup {
        limits: Limits { backoff_first_milliseconds: 50, backoff_max_seconds: 1, ..Limits::default() },
        bindings: vec![binding("billing", pki::BILLING_INSTANCE), binding("weather", pki::WEATHER_INSTANCE)],
        ..Setup::default()
    }
}

/// The server's API, on a socket.
pub(super) struct ServedApi {
    address: SocketAddr,
    stop: CancellationToken,
}

impl ServedApi {
    pub(super) async fn start(net: &Net) -> Self {
        let stop = CancellationToken::new();
        let config = SbiServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: pki::server(net.directory.path()),
            limits: ServerLimits { request_body_bytes_max: 98_304, ..ServerLimits::default() },
        };
        let authorizer = Authorizer::of_function(
            AuthorizationConfig::tls_only(),
            services::AF,
            &config.tls,
            &mut prometheus_client::registry::Registry::default(),
        );
        let api =
            Api { core: Arc::clone(&net.core), servers: Arc::clone(&net.servers), audit: sbi::audit::Audit::default() };
        let router = api::router(&api, &authorizer.unwrap());
        let server = SbiServer::start(config, router, stop.clone()).await.unwrap();
        Self { address: server.local_addr(), stop }
    }
}

impl ServedApi {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ServedApi {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What an AS does with what it gets.
#[derive(Clone)]
pub(super) struct Behaviour {
    status: Arc<AtomicU16>,
    /// The body of a 200.
    body: Arc<Mutex<Option<Value>>>,
    got: mpsc::UnboundedSender<(String, Value)>,
}

/// An AS with a socket of its own.
pub(super) struct As {
    name: &'static str,
    pub(super) api: String,
    pub(super) client: SbiClient,
    pub(super) target: SocketAddr,
    behaviour: Behaviour,
    got: mpsc::UnboundedReceiver<(String, Value)>,
    stop: CancellationToken,
}

impl Drop for As {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn take(
    State((operation, behaviour)): State<(&'static str, Behaviour)>,
    Extension(_): Extension<PeerIdentity>,
    Json(body): Json<Value>,
) -> axum::response::Response {
    use axum::response::IntoResponse;
    let status = StatusCode::from_u16(behaviour.status.load(Ordering::SeqCst)).unwrap();
    behaviour.got.send((operation.to_owned(), body)).unwrap();
    match behaviour.body.lock().unwrap().clone().filter(|_| status == StatusCode::OK) {
        Some(body) => Json(body).into_response(),
        None => status.into_response(),
    }
}

impl As {
    pub(super) async fn start(net: &Net, api: &ServedApi, name: &'static str) -> Self {
        Self::start_at(net, api, name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(super) async fn start_at(net: &Net, api: &ServedApi, name: &'static str, listen: SocketAddr) -> Self {
        let (sender, got) = mpsc::unbounded_channel();
        let behaviour = Behaviour { status: Arc::new(AtomicU16::new(204)), body: Arc::default(), got: sender };
        let stop = CancellationToken::new();
        let tls = pki::files(net.directory.path(), name);
        let router = Router::new()
            .route("/in/deliver-message", post(take).with_state(("message", behaviour.clone())))
            .route("/in/deliver-report", post(take).with_state(("report", behaviour.clone())))
            .route("/in/topics", post(take).with_state(("topics", behaviour.clone())));
        let config = SbiServerConfig { listen, tls: tls.clone(), limits: ServerLimits::default() };
        let server = SbiServer::start(config, router, stop.clone()).await.unwrap();
        let client = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
        Self {
            name,
            api: format!("https://{}", api.address),
            client,
            target: server.local_addr(),
            behaviour,
            got,
            stop,
        }
    }

    pub(super) async fn register(&self) -> Result<SbiResponse<AsRegistrationAck>, SbiError> {
        self.register_at(&format!("https://{}/in", self.target)).await
    }

    async fn register_at(&self, target_uri: &str) -> Result<SbiResponse<AsRegistrationAck>, SbiError> {
        let request = AsRegistration {
            as_svc_id: self.name.parse().unwrap(),
            app_id: None,
            target_uri: Some(target_uri.to_owned()),
            as_prof: None,
        };
        self.client.post(&format!("{}/msgs-asregistration/v1/registrations", self.api), &request).await
    }

    pub(super) async fn send(&self, message: &Message) -> Result<MessageDeliveryAck, SbiError> {
        let uri = format!("{}/msgs-msgdelivery/v1/deliver-as-message", self.api);
        self.client.post(&uri, &AsMessageDelivery::from(message)).await?.into_body()
    }

    pub(super) async fn send_report(&self, to: &str, id: &str) -> Result<MessageDeliveryAck, SbiError> {
        let uri = format!("{}/msgs-msgdelivery/v1/deliver-report", self.api);
        let report = json!({
            "oriAddr": {"addrType": "AS", "addr": self.name}, "destAddr": {"addrType": "UE", "addr": to},
            "msgId": id, "delivSt": "REPT_DELY_SUCCESS"
        });
        self.client.post(&uri, &report).await?.into_body()
    }

    pub(super) async fn receive(&mut self) -> (String, Value) {
        timeout(PATIENCE, self.got.recv()).await.unwrap().unwrap()
    }

    /// Nothing came that was not taken.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.got.try_recv().is_err()
    }

    pub(super) fn answer_with(&self, status: u16) {
        self.behaviour.status.store(status, Ordering::SeqCst);
    }
}

pub(super) fn as_address(name: &str) -> Address {
    Address::application_server(&name.parse::<AsServiceId>().unwrap())
}

pub(super) fn to_as(from: &str, to: &str, id: &str) -> Message {
    Message { destination: as_address(to), ..message(from, to, id) }
}

pub(super) fn from_as(from: &str, to: &str, id: &str) -> Message {
    Message { originator: as_address(from), ..message(from, to, id) }
}

pub(super) fn problem(error: SbiError) -> (u16, String) {
    let problem = error.problem().unwrap_or_else(|| panic!("{error}")).clone();
    (problem.status.unwrap(), problem.cause.map(String::from).unwrap_or_default())
}

#[tokio::test]
async fn a_ue_writes_to_an_as_and_the_as_to_the_ue() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let mut billing = As::start(&net, &api, "billing").await;
    let response = billing.register().await.unwrap();
    assert_eq!(response.status, StatusCode::CREATED);
    assert!(response.location.unwrap().starts_with("/msgs-asregistration/v1/registrations/"));
    assert_eq!(response.body.unwrap().result.status, Some(201));

    let mut alice = net.ue("alice").await;
    let fate = alice.send(&to_as("alice", "billing", "1")).await;
    assert_eq!(fate, Fate::delivered());
    let (operation, body) = billing.receive().await;
    assert_eq!(operation, "message");
    assert_eq!(body["oriAddr"], json!({"addrType": "UE", "addr": "alice"}));
    assert_eq!(body["destAddr"], json!({"addrType": "AS", "addr": "billing"}));
    assert_eq!(
        (&body["msgId"], &body["payload"], &body["stoAndFwInd"]),
        (&json!("1"), &json!("MjEuNQ=="), &json!(false))
    );

    let sent = tokio::spawn(async move { billing.send(&from_as("billing", "alice", "2")).await });
    let received = alice.receive().await;
    assert_eq!((received.originator, received.message_id.as_str()), (as_address("billing"), "2"));
    let ack = sent.await.unwrap().unwrap();
    assert_eq!((ack.ori_addr, ack.msg_id.as_str(), ack.status), (as_address("billing"), "2", None));
}

#[tokio::test]
async fn an_as_is_its_certificate_and_nobody_else() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let mut billing = As::start(&net, &api, "billing").await;
    let location = billing.register().await.unwrap().location.unwrap();
    net.away_ue("alice").await;

    // The right certificate for another AS.
    billing.name = "weather";
    assert_eq!(problem(billing.register().await.unwrap_err()), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    let forged = billing.send(&from_as("weather", "alice", "1")).await.unwrap_err();
    assert_eq!(problem(forged), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    let as_ue = billing.send(&message("alice", "alice", "1")).await.unwrap_err();
    assert_eq!(problem(as_ue), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    // Another's registration.
    let weather = As::start(&net, &api, "weather").await;
    let remove = weather.client.delete::<Value>(&format!("{}{location}", weather.api)).await.unwrap_err();
    assert_eq!(problem(remove), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    // Not registered.
    let early = weather.send(&from_as("weather", "alice", "1")).await.unwrap_err();
    assert_eq!(problem(early), (403, "NOT_REGISTERED".into()));
    // The operation that is for gateways.
    let body = json!({
        "oriAddr": {"addrType": "UE", "addr": "alice"}, "destAddr": {"addrType": "AS", "addr": "billing"},
        "msgId": "1", "stoAndFwInd": false
    });
    let uri = format!("{}/msgs-msgdelivery/v1/deliver-ue-message", weather.api);
    let gateway = weather.client.post::<_, Value>(&uri, &body).await.unwrap_err();
    assert_eq!(problem(gateway), (403, "ORIGINATOR_NOT_ALLOWED".into()));
}

#[tokio::test]
async fn a_target_uri_that_is_not_the_ass_to_name_is_refused() {
    let mut setup = setup();
    setup.bindings[0].target_uris = vec!["https://127.0.0.1/in".to_owned(), "https://127.0.0.1:8443/".to_owned()];
    let net = Net::of(setup).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    for uri in ["https://127.0.0.1/in", "https://127.0.0.1/in/a", "https://127.0.0.1:8443/b"] {
        assert_eq!(billing.register_at(uri).await.unwrap().status, StatusCode::CREATED, "{uri}");
    }
    for uri in [
        "http://127.0.0.1/in",
        "https://127.0.0.10/in",
        "https://127.0.0.1/inn",
        "https://127.0.0.1:9/in",
        "https://elsewhere.example/in",
        "https://127.0.0.1@elsewhere.example/in",
        "https://127.0.0.1/../admin",
        "https://127.0.0.1/in?a=b",
        "/in",
        "",
    ] {
        let refusal = billing.register_at(uri).await.unwrap_err();
        assert_eq!(problem(refusal), (400, "MANDATORY_IE_INCORRECT".into()), "{uri}");
    }
}

#[tokio::test]
async fn without_configured_prefixes_a_target_uri_must_be_at_a_name_of_the_ass_certificate() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    assert_eq!(billing.register_at("https://127.0.0.1:8443/in").await.unwrap().status, StatusCode::CREATED);
    for uri in ["https://127.0.0.2/in", "https://[::1]/in", "https://elsewhere.example/in", "https://169.254.169.254"] {
        let refusal = billing.register_at(uri).await.unwrap_err();
        assert_eq!(problem(refusal), (403, "TARGET_URI_NOT_ALLOWED".into()), "{uri}");
    }
    let refusal = billing.register_at("http://127.0.0.1/in").await.unwrap_err();
    assert_eq!(problem(refusal), (400, "MANDATORY_IE_INCORRECT".into()));
}

#[tokio::test]
async fn a_deregistered_as_is_unknown_and_its_registration_is_gone() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    let location = billing.register().await.unwrap().location.unwrap();
    let uri = format!("{}{location}", billing.api);
    assert_eq!(billing.client.delete::<Value>(&uri).await.unwrap().status, StatusCode::NO_CONTENT);
    assert_eq!(problem(billing.client.delete::<Value>(&uri).await.unwrap_err()).0, 404);
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&to_as("alice", "billing", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
    let gone = billing.send(&from_as("billing", "alice", "1")).await.unwrap_err();
    assert_eq!(problem(gone), (403, "NOT_REGISTERED".into()));
}

#[tokio::test]
async fn answers_of_the_api_say_what_became_of_the_message() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    net.away_ue("alice").await;
    let stored = Message { store_and_forward: true, ..from_as("billing", "alice", "1") };
    assert_eq!(billing.send(&stored).await.unwrap().status, Some(DeliveryStatus::Stored));
    assert_eq!(billing.send(&stored).await.unwrap().status, Some(DeliveryStatus::Stored));
    let away = billing.send(&from_as("billing", "alice", "2")).await.unwrap();
    assert_eq!(
        (away.status, away.failure_cause.as_deref()),
        (Some(DeliveryStatus::Failed), Some("TARGET_UNREACHABLE"))
    );
    let unknown = billing.send(&from_as("billing", "nobody", "3")).await.unwrap_err();
    assert_eq!(problem(unknown), (404, "UNKNOWN_TARGET".into()));
    let reused = Message { payload: b"other".to_vec(), ..stored };
    assert_eq!(problem(billing.send(&reused).await.unwrap_err()), (400, "MESSAGE_ID_REUSED".into()));
    let large = Message { payload: vec![0; 65_537], ..from_as("billing", "alice", "4") };
    assert_eq!(problem(billing.send(&large).await.unwrap_err()), (413, "PAYLOAD_TOO_LARGE".into()));
    let uri = format!("{}/msgs-msgdelivery/v1/deliver-as-message", billing.api);
    let nonsense = billing.client.post::<_, Value>(&uri, &json!({"oriAddr": 7})).await.unwrap_err();
    assert_eq!(problem(nonsense).0, 400);
}

#[tokio::test]
async fn an_as_that_is_away_gets_what_may_be_stored_in_order_when_it_is_back() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let mut billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    billing.answer_with(503);
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&to_as("alice", "billing", "1")).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    for id in ["2", "3", "4"] {
        let sent = Message { store_and_forward: true, ..to_as("alice", "billing", id) };
        assert_eq!(alice.send(&sent).await, Fate::stored());
    }
    while billing.receive().await.1["msgId"] != "2" {}
    billing.answer_with(204);
    let mut ids = Vec::new();
    while ids.last() != Some(&json!("4")) {
        let id = billing.receive().await.1["msgId"].clone();
        if id != "2" || ids.is_empty() {
            ids.push(id);
        }
    }
    ids.retain(|id| id != "2");
    assert_eq!(ids, [json!("3"), json!("4")]);
    until(|| net.core.store.pending_count(&as_address("billing")) == 0).await;
    assert_eq!(alice.send(&to_as("alice", "billing", "5")).await, Fate::delivered());
}

#[tokio::test]
async fn an_as_that_does_not_listen_gets_its_messages_once_it_does_and_across_a_restart() {
    let mut net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    let target = billing.target;
    drop(billing);
    let mut alice = net.ue("alice").await;
    // Whatever of it is still open, sooner or later it is gone.
    let mut id = 0;
    let stored = loop {
        id += 1;
        let sent = Message { store_and_forward: true, ..to_as("alice", "billing", &id.to_string()) };
        if alice.send(&sent).await == Fate::stored() {
            break id.to_string();
        }
    };
    alice.leave().await;
    drop(api);
    net = net.restart().await;
    assert_eq!(net.core.store.pending_count(&as_address("billing")), 1);
    let api = ServedApi::start(&net).await;
    let mut billing = As::start_at(&net, &api, "billing", target).await;
    assert_eq!(billing.receive().await.1["msgId"], json!(stored));
    until(|| net.core.store.pending_count(&as_address("billing")) == 0).await;
}

#[tokio::test]
async fn an_as_refuses_with_a_4xx_or_in_words() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    let mut alice = net.ue("alice").await;
    billing.answer_with(400);
    let sent = Message { store_and_forward: true, ..to_as("alice", "billing", "1") };
    assert_eq!(alice.send(&sent).await, Fate::failed("2.04", "TARGET_REFUSED"));
    billing.answer_with(200);
    *billing.behaviour.body.lock().unwrap() = Some(json!({
        "oriAddr": {"addrType": "UE", "addr": "alice"}, "msgId": "2", "status": "DELY_FAILED"
    }));
    assert_eq!(alice.send(&to_as("alice", "billing", "2")).await, Fate::failed("2.04", "TARGET_REFUSED"));
    *billing.behaviour.body.lock().unwrap() = Some(json!({
        "oriAddr": {"addrType": "UE", "addr": "alice"}, "msgId": "3"
    }));
    assert_eq!(alice.send(&to_as("alice", "billing", "3")).await, Fate::delivered());
}

#[tokio::test]
async fn reports_go_both_ways_between_ue_and_as() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let mut billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    let mut alice = net.ue("alice").await;
    // The AS reports on what the UE sent.
    let wanted = Message { delivery_status_required: true, ..to_as("alice", "billing", "1") };
    assert_eq!(alice.send(&wanted).await, Fate::delivered());
    assert_eq!(billing.receive().await.1["delivStReqInd"], json!(true));
    let never = billing.send_report("alice", "7").await.unwrap_err();
    assert_eq!(problem(never), (403, "ORIGINATOR_NOT_ALLOWED".into()));
    let (ack, got) = tokio::join!(billing.send_report("alice", "1"), alice.receive_report());
    assert_eq!(ack.unwrap().status, None);
    assert_eq!((got.originator, got.message_id.as_str()), (as_address("billing"), "1"));
    // The UE reports on what the AS sent.
    let wanted = Message { delivery_status_required: true, ..from_as("billing", "alice", "2") };
    let (ack, received) = tokio::join!(billing.send(&wanted), alice.receive());
    assert_eq!((ack.unwrap().status, received.delivery_status_required), (None, true));
    let success = UeMessage::DeliveryStatusReport(DeliveryStatusReport {
        originator: address("alice"),
        destination: as_address("billing"),
        message_id: "2".parse().unwrap(),
        delivery_status: ReportDeliveryStatus::Success,
        failure_cause: None,
    });
    assert_eq!(alice.send_report(&success).await, Fate::delivered());
    let (operation, body) = billing.receive().await;
    assert_eq!(
        (operation.as_str(), &body["msgId"], &body["delivSt"]),
        ("report", &json!("2"), &json!("REPT_DELY_SUCCESS"))
    );
}

#[tokio::test]
async fn an_originators_messages_reach_an_as_one_after_the_other() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let mut billing = As::start(&net, &api, "billing").await;
    billing.register().await.unwrap();
    let (mut alice, mut bob) = (net.ue("alice").await, net.ue("bob").await);
    let mut open = Vec::new();
    for id in 0..20 {
        open.push((
            alice.post(&to_as("alice", "billing", &id.to_string())).await,
            bob.post(&to_as("bob", "billing", &id.to_string())).await,
        ));
    }
    for (of_alice, of_bob) in open {
        assert_eq!(alice.fate(of_alice).await, Fate::delivered());
        assert_eq!(bob.fate(of_bob).await, Fate::delivered());
    }
    let mut next = BTreeMap::from([("alice".to_owned(), 0), ("bob".to_owned(), 0)]);
    for _ in 0..40 {
        let (_, body) = billing.receive().await;
        let expected = next.get_mut(body["oriAddr"]["addr"].as_str().unwrap()).unwrap();
        assert_eq!(body["msgId"], json!(expected.to_string()));
        *expected += 1;
    }
}

#[tokio::test]
async fn an_as_that_registers_anew_is_reached_at_its_new_address() {
    let net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let first = As::start(&net, &api, "billing").await;
    first.register().await.unwrap();
    let mut second = As::start(&net, &api, "billing").await;
    second.register().await.unwrap();
    let mut alice = net.ue("alice").await;
    assert_eq!(alice.send(&to_as("alice", "billing", "1")).await, Fate::delivered());
    assert_eq!(second.receive().await.1["msgId"], json!("1"));
}

#[tokio::test]
async fn an_as_whose_target_uri_may_not_be_named_any_more_is_away_with_the_next_start() {
    let mut net = Net::of(setup()).await;
    let api = ServedApi::start(&net).await;
    let (mut billing, mut weather) = (As::start(&net, &api, "billing").await, As::start(&net, &api, "weather").await);
    billing.register().await.unwrap();
    weather.register().await.unwrap();
    drop(api);
    net.setup.bindings[0].target_uris = vec!["https://billing.example".to_owned()];
    net.setup.bindings[1].target_uris = vec![format!("https://{}", weather.target)];
    let net = net.restart().await;
    let mut alice = net.ue("alice").await;
    let to = |name: &str| Address::application_server(&name.parse().unwrap());
    let to_billing = Message { destination: to("billing"), ..storable("alice", "billing", "1") };
    assert_eq!(alice.send(&to_billing).await, Fate::stored());
    let to_weather = Message { destination: to("weather"), ..storable("alice", "weather", "2") };
    assert_eq!(alice.send(&to_weather).await, Fate::delivered());
    assert_eq!(weather.receive().await.1["msgId"], "2");
    assert!(billing.got.try_recv().is_err());
    assert_eq!(net.core.store.pending_count(&to("billing")), 1);
}
