//! Sleeping UEs, and a network exposure function on real HTTP/2 with mutual TLS that holds what it is asked to
//! TS 29.122 and notifies as it is told.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use akma::Gpsi;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::{delete, post};
use http::StatusCode;
use http::header::LOCATION;
use message::{CommunicationAvailability, TriggeringInformation};
use sbi::{Json, PeerName, ProblemDetails, SbiError, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::ExposureSection;

const OWN: &str = "msisdn-491700000001";
const OTHER: &str = "extid-meter-8@example.com";
const SUPI: &str = "imsi-001010000000007";

/// What the NEF does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Conduct {
    /// 201.
    Takes,
    /// 200 with the report at once.
    ReportsAtOnce,
    Refuses(u16),
    /// 201 with what is no JSON.
    Garbage,
    Silent,
}

/// What the NEF was asked.
#[derive(Debug, PartialEq)]
enum Asked {
    Trigger(Value),
    Subscription(Value),
    Withdrawn(String),
    Unsubscribed(String),
}

#[derive(Clone)]
struct NefState {
    conduct: Arc<Mutex<Conduct>>,
    asked: mpsc::UnboundedSender<Asked>,
    next: Arc<AtomicUsize>,
    /// Where the contract was broken.
    violations: Arc<Mutex<Vec<String>>>,
}

/// The network exposure function.
struct Nef {
    address: SocketAddr,
    state: NefState,
    asked: mpsc::UnboundedReceiver<Asked>,
    client: SbiClient,
    stop: CancellationToken,
}

impl Drop for Nef {
    fn drop(&mut self) {
        self.stop.cancel();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(*self.state.violations.lock().unwrap(), Vec::<String>::new());
    }
}

impl NefState {
    fn check(&self, holds: bool, what: &str, body: &Value) {
        if !holds {
            self.violations.lock().unwrap().push(format!("{what}: {body}"));
        }
    }

    /// What both kinds of request owe to TS 29.122.
    fn check_device(&self, scs_as_id: &str, body: &Value, known: &[&str]) {
        let members = body.as_object().unwrap();
        let text = body.to_string();
        self.check(scs_as_id == "msgin5g", "scsAsId", body);
        self.check(!text.contains("imsi") && !text.contains("00101"), "a SUPI", body);
        self.check(members.contains_key("externalId") != members.contains_key("msisdn"), "one identifier", body);
        let known: HashSet<_> = known.iter().chain(&["externalId", "msisdn", "notificationDestination"]).collect();
        self.check(members.keys().all(|name| known.contains(&name.as_str())), "a member of the contract", body);
        if let Some(msisdn) = members.get("msisdn") {
            let digits = msisdn.as_str().is_some_and(|text| text.bytes().all(|octet| octet.is_ascii_digit()));
            self.check(digits, "msisdn", body);
        }
        if let Some(external_id) = members.get("externalId") {
            let parts = external_id.as_str().map(|text| text.split('@').count());
            self.check(parts == Some(2), "externalId", body);
        }
        let destination = members.get("notificationDestination").and_then(Value::as_str).unwrap_or_default();
        let token = destination.rsplit('/').next().unwrap_or_default();
        self.check(destination.starts_with("https://") && token.len() == 32, "notificationDestination", body);
    }

    async fn answer(&self, collection: &str, report: Option<Value>) -> HttpResponse {
        let conduct = *self.conduct.lock().unwrap();
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let location = format!("https://nef.example{collection}/{id}");
        match conduct {
            Conduct::ReportsAtOnce if report.is_some() => Json(report).into_response(),
            Conduct::Takes | Conduct::ReportsAtOnce => {
                (StatusCode::CREATED, [(LOCATION, location.clone())], Json(json!({"self": location}))).into_response()
            }
            Conduct::Refuses(status) => ProblemDetails::new(StatusCode::from_u16(status).unwrap()).into_response(),
            Conduct::Garbage => (StatusCode::CREATED, "\u{0}\u{1}{").into_response(),
            Conduct::Silent => std::future::pending().await,
        }
    }
}

async fn take_trigger(
    State(state): State<NefState>,
    Path(scs_as_id): Path<String>,
    Json(body): Json<Value>,
) -> HttpResponse {
    let known = ["validityPeriod", "priority", "applicationPortId", "triggerPayload"];
    state.check_device(&scs_as_id, &body, &known);
    state.check(known.iter().all(|name| body.get(name).is_some()), "mandatory members", &body);
    state.check(body["validityPeriod"].as_u64().is_some_and(|seconds| seconds > 0), "validityPeriod", &body);
    state.check(
        ["NO_PRIORITY", "PRIORITY"].contains(&body["priority"].as_str().unwrap_or_default()),
        "priority",
        &body,
    );
    state.check(body["applicationPortId"].as_u64().is_some_and(|port| port <= 65_535), "applicationPortId", &body);
    state.asked.send(Asked::Trigger(body)).unwrap();
    state.answer("/3gpp-device-triggering/v1/msgin5g/transactions", None).await
}

async fn take_subscription(
    State(state): State<NefState>,
    Path(scs_as_id): Path<String>,
    Json(body): Json<Value>,
) -> HttpResponse {
    let known = ["monitoringType", "maximumNumberOfReports", "monitorExpireTime", "reachabilityType"];
    state.check_device(&scs_as_id, &body, &known);
    state.check(body["monitoringType"] == "UE_REACHABILITY", "monitoringType", &body);
    let (reports, expires) = (body.get("maximumNumberOfReports"), body.get("monitorExpireTime"));
    state.check(reports.is_some() || expires.is_some(), "one of two bounds", &body);
    state.check(reports.is_none_or(|count| count.as_u64() >= Some(1)), "maximumNumberOfReports", &body);
    state.check(
        ["SMS", "DATA"].contains(&body["reachabilityType"].as_str().unwrap_or_default()),
        "reachability",
        &body,
    );
    state.asked.send(Asked::Subscription(body)).unwrap();
    let report = json!({"monitoringType": "UE_REACHABILITY", "reachabilityType": "SMS"});
    state.answer("/3gpp-monitoring-event/v1/msgin5g/subscriptions", Some(report)).await
}

impl Nef {
    async fn start(net: &Net) -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let state = NefState {
            conduct: Arc::new(Mutex::new(Conduct::Takes)),
            asked: sender,
            next: Arc::default(),
            violations: Arc::default(),
        };
        let stop = CancellationToken::new();
        let tls = pki::files(net.directory.path(), "nef");
        let router = Router::new()
            .route("/3gpp-device-triggering/v1/{scs_as_id}/transactions", post(take_trigger))
            .route(
                "/3gpp-device-triggering/v1/{scs_as_id}/transactions/{id}",
                delete(async |State(state): State<NefState>, Path((_, id)): Path<(String, String)>| {
                    state.asked.send(Asked::Withdrawn(id)).unwrap();
                    StatusCode::NO_CONTENT
                }),
            )
            .route("/3gpp-monitoring-event/v1/{scs_as_id}/subscriptions", post(take_subscription))
            .route(
                "/3gpp-monitoring-event/v1/{scs_as_id}/subscriptions/{id}",
                delete(async |State(state): State<NefState>, Path((_, id)): Path<(String, String)>| {
                    state.asked.send(Asked::Unsubscribed(id)).unwrap();
                    StatusCode::NO_CONTENT
                }),
            )
            .with_state(state.clone());
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let limits = ServerLimits { drain_timeout_seconds: 0, ..ServerLimits::default() };
        let config = SbiServerConfig { listen, tls: tls.clone(), limits };
        let server = SbiServer::start(config, router, stop.clone()).await.unwrap();
        let client = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
        Self { address: server.local_addr(), state, asked, client, stop }
    }

    fn conduct(&self, conduct: Conduct) {
        *self.state.conduct.lock().unwrap() = conduct;
    }

    async fn asked(&mut self) -> Asked {
        timeout(PATIENCE, self.asked.recv()).await.unwrap().unwrap()
    }

    async fn trigger(&mut self) -> Value {
        match self.asked().await {
            Asked::Trigger(body) => body,
            other => panic!("{other:?}"),
        }
    }

    async fn subscription(&mut self) -> Value {
        match self.asked().await {
            Asked::Subscription(body) => body,
            other => panic!("{other:?}"),
        }
    }

    fn was_asked_nothing_more(&mut self) {
        assert!(self.asked.try_recv().is_err());
    }

    /// Notifies, and says how that was answered.
    async fn notify(&self, destination: &str, body: &Value) -> u16 {
        notify_as(&self.client, destination, body).await.0
    }

    async fn report(&self, trigger: &Value, result: &str) -> u16 {
        let body = json!({"transaction": "https://nef.example/transactions/1", "result": result});
        self.notify(destination(trigger), &body).await
    }

    async fn say_reachable(&self, subscription: &Value) -> u16 {
        let report = json!({"monitoringType": "UE_REACHABILITY", "reachabilityType": "SMS"});
        let body = json!({"subscription": "https://nef.example/subscriptions/1", "monitoringEventReports": [report]});
        self.notify(destination(subscription), &body).await
    }
}

fn destination(request: &Value) -> &str {
    request["notificationDestination"].as_str().unwrap()
}

async fn notify_as(client: &SbiClient, destination: &str, body: &Value) -> (u16, String) {
    match client.post_any(destination, body).await {
        Ok(response) => (response.status.as_u16(), String::new()),
        Err(SbiError::Problem(problem)) => {
            (problem.status.unwrap(), problem.cause.map(String::from).unwrap_or_default())
        }
        Err(error) => panic!("{error}"),
    }
}

/// The server of notifications, until it is stopped or dropped.
struct Exposed {
    server: SbiServer,
    stop: CancellationToken,
}

impl Exposed {
    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.server.stopped()).await.unwrap();
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn limits() -> Limits {
    Limits {
        trigger_delay_seconds: 0,
        trigger_restart_pause_seconds: 0,
        trigger_backoff_first_seconds: 1,
        backoff_first_milliseconds: 50,
        backoff_max_seconds: 1,
        ..Limits::default()
    }
}

fn section(nef: SocketAddr) -> ExposureSection {
    ExposureSection {
        nef: format!("https://{nef}"),
        scs_as_id: "msgin5g".to_owned(),
        notification_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        notification_uri: None,
        // Every certificate here names 127.0.0.1.
        notifier: PeerName { dns_name: Some("nef.example".to_owned()), ..PeerName::default() },
        reachability_monitoring: false,
        monitoring_reports: 1,
        monitoring_seconds: None,
        application_port: 5684,
        limits: ServerLimits { drain_timeout_seconds: 0, ..ServerLimits::default() },
        requests: ClientLimits::default(),
    }
}

async fn expose(net: &Net, section: &ExposureSection) -> Exposed {
    let stop = CancellationToken::new();
    let tls = pki::server(net.directory.path());
    let limits = section.requests.clone();
    let client = sbi::SbiClient::new(sbi::SbiClientConfig { tls: tls.clone(), limits }).unwrap();
    let server = crate::reachability::serve(&net.core, section, client, tls, stop.clone()).await.unwrap();
    Exposed { server, stop }
}

async fn net_and_nef() -> (Net, Nef, Exposed) {
    let net = Net::with(limits()).await;
    let nef = Nef::start(&net).await;
    let exposed = expose(&net, &section(nef.address)).await;
    (net, nef, exposed)
}

async fn monitored() -> (Net, Nef, Exposed) {
    let net = Net::with(limits()).await;
    let nef = Nef::start(&net).await;
    let exposed = expose(&net, &ExposureSection { reachability_monitoring: true, ..section(nef.address) }).await;
    (net, nef, exposed)
}

fn triggering(ue_identifier: Option<&str>) -> ClientProfile {
    ClientProfile {
        triggering: Some(TriggeringInformation {
            ue_identifier: ue_identifier.map(str::to_owned),
            ports: vec![5000, 5001],
            protocol: None,
        }),
        ..ClientProfile::default()
    }
}

impl Net {
    /// A UE that the AAnF told `ue_id` of, and `gpsi` beside it, registered with `profile`.
    async fn sleeper(&self, name: &str, ue_id: &str, gpsi: Option<&str>, profile: &ClientProfile) -> Ue {
        self.associate(ue_id, name);
        let gpsi = gpsi.map(|gpsi| gpsi.parse::<Gpsi>().unwrap());
        let mut ue = self.connect_as(ProvenPeer { gpsi, ..peer(Some(ue_id), None) }, STREAM_OCTETS);
        let registration = Registration { ue_service_id: name.parse().unwrap(), client_profile: Some(profile.clone()) };
        assert_eq!(ue.exchange(&registration.encode()).await.code, Code::CREATED);
        ue
    }

    /// One with its own GPSI proven, that went away.
    async fn asleep(&self, name: &str) {
        self.sleeper(name, OWN, None, &triggering(None)).await.leave().await;
    }

    fn outcomes(&self, family: &str, outcome: &'static str) -> u64 {
        self.core.reachability.metrics.count(family, outcome)
    }
}

#[tokio::test]
async fn a_sleeping_ue_is_triggered_and_gets_its_message_when_it_comes() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    let trigger = nef.trigger().await;
    assert_eq!(trigger["msisdn"], "491700000001");
    assert_eq!((&trigger["applicationPortId"], &trigger["priority"]), (&json!(5000), &json!("NO_PRIORITY")));
    assert_eq!(trigger["validityPeriod"], net.core.limits.trigger_validity_seconds);
    let payload = base64_of(br#"{"msgType":"TRIGGER","ueSvcId":"meter"}"#);
    assert_eq!(trigger["triggerPayload"], payload);
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    until(|| net.outcomes("triggers", "taken") == 1).await;

    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
    until(|| net.stored_for("meter") == 0).await;
    assert_eq!(net.core.reachability.watched(), 0);
    // The NEF's last word comes when nobody waits for it any more.
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    nef.was_asked_nothing_more();
}

/// Standard base64, as JSON has octets.
fn base64_of(octets: &[u8]) -> String {
    let message = Message { payload: octets.to_vec(), ..message("a", "b", "1") };
    let coded: Value = serde_json::from_slice(&message.encode()).unwrap();
    coded["payload"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_ue_that_comes_by_itself_has_its_trigger_withdrawn() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    nef.trigger().await;
    until(|| net.outcomes("triggers", "taken") == 1).await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    meter.receive().await;
    assert_eq!(nef.asked().await, Asked::Withdrawn("0".to_owned()));
}

#[tokio::test]
async fn many_messages_make_one_trigger_and_a_ue_without_triggering_information_none() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    net.away_ue("plain").await;
    for id in 0..10 {
        assert_eq!(alice.send(&storable("alice", "plain", &format!("p{id}"))).await, Fate::stored());
        assert_eq!(alice.send(&storable("alice", "meter", &format!("m{id}"))).await, Fate::stored());
    }
    assert_eq!(nef.trigger().await["msisdn"], "491700000001");
    // Whatever else were asked would be asked before this.
    net.sleeper("other", "msisdn-491700000002", None, &triggering(None)).await.leave().await;
    let urgent = Message { priority: Priority::High, ..storable("alice", "other", "o") };
    assert_eq!(alice.send(&urgent).await, Fate::stored());
    let trigger = nef.trigger().await;
    assert_eq!((&trigger["msisdn"], &trigger["priority"]), (&json!("491700000002"), &json!("PRIORITY")));
}

#[tokio::test]
async fn without_a_nef_nobody_is_watched() {
    let net = Net::with(limits()).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    assert_eq!(net.core.reachability.watched(), 0);
}

#[tokio::test]
async fn a_window_that_is_closed_is_waited_for() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    let now = OffsetDateTime::now_utc();
    let window = |start| CommunicationAvailability { start, duration_seconds: 1000, interval_seconds: None };
    let (closed, open) = (window(now + time::Duration::hours(1)), window(now - time::Duration::seconds(100)));
    let profile = |availability| ClientProfile { availability: Some(availability), ..triggering(None) };
    net.sleeper("later", "msisdn-491700000002", None, &profile(closed)).await.leave().await;
    net.sleeper("meter", OWN, None, &profile(open)).await.leave().await;
    assert_eq!(alice.send(&storable("alice", "later", "1")).await, Fate::stored());
    assert_eq!(alice.send(&storable("alice", "meter", "2")).await, Fate::stored());
    let trigger = nef.trigger().await;
    assert_eq!(trigger["msisdn"], "491700000001");
    let validity = trigger["validityPeriod"].as_u64().unwrap();
    assert!((1..=900).contains(&validity), "{validity}");
    assert_eq!(net.core.reachability.watched(), 2);
    nef.was_asked_nothing_more();
}

#[tokio::test]
async fn a_ue_cannot_have_somebody_else_triggered() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    // Its own identifier is proven; the one that it names is another's.
    net.sleeper("forger", OWN, None, &triggering(Some(OTHER))).await.leave().await;
    // Only its SUPI is known, and it names nothing, or what nobody says is its.
    net.sleeper("hidden", SUPI, None, &triggering(None)).await.leave().await;
    net.sleeper("liar", SUPI, None, &triggering(Some(OTHER))).await.leave().await;
    for (count, name) in (1..).zip(["forger", "hidden", "liar"]) {
        assert_eq!(alice.send(&storable("alice", name, name)).await, Fate::stored());
        until(|| net.outcomes("triggers", "not allowed") == count).await;
    }
    nef.was_asked_nothing_more();
    // What is stored is delivered all the same.
    let mut liar = net.sleeper("liar", SUPI, None, &triggering(None)).await;
    assert_eq!(liar.receive().await.message_id.as_str(), "liar");
}

#[tokio::test]
async fn a_ue_whose_association_is_gone_is_not_triggered() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    net.associations.known.lock().unwrap().remove(OWN);
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    until(|| net.outcomes("triggers", "not allowed") == 1).await;
    nef.was_asked_nothing_more();
}

#[tokio::test]
async fn an_identifier_that_is_associated_with_the_same_ue_service_id_may_be_named() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.associate(OTHER, "meter");
    net.sleeper("meter", SUPI, None, &triggering(Some(OTHER))).await.leave().await;
    alice.send(&storable("alice", "meter", "1")).await;
    assert_eq!(nef.trigger().await["externalId"], "meter-8@example.com");
}

#[tokio::test]
async fn a_gpsi_that_the_aanf_tells_beside_the_supi_is_used_and_the_supi_never_leaves() {
    let (net, mut nef, exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.sleeper("meter", SUPI, Some(OWN), &triggering(None)).await.leave().await;
    alice.send(&storable("alice", "meter", "1")).await;
    assert_eq!(nef.trigger().await["msisdn"], "491700000001");
    alice.leave().await;
    // It is known after a restart, too.
    exposed.stop().await;
    let net = net.restart().await;
    let _exposed = expose(&net, &section(nef.address)).await;
    assert_eq!(nef.trigger().await["msisdn"], "491700000001");
}

#[tokio::test]
async fn nobody_is_triggered_while_the_configuration_function_is_silent() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    *net.associations.mood.lock().unwrap() = Mood::Fails;
    alice.send(&storable("alice", "meter", "1")).await;
    until(|| net.outcomes("triggers", "undecided") >= 1).await;
    nef.was_asked_nothing_more();
    *net.associations.mood.lock().unwrap() = Mood::Answers;
    nef.trigger().await;
}

#[tokio::test]
async fn another_protocol_than_short_messages_is_not_offered() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    let mut profile = triggering(None);
    profile.triggering.as_mut().unwrap().protocol = Some("NIDD".to_owned());
    net.sleeper("meter", OWN, None, &profile).await.leave().await;
    alice.send(&storable("alice", "meter", "1")).await;
    until(|| net.outcomes("triggers", "protocol not supported") == 1).await;
    nef.was_asked_nothing_more();
}

#[tokio::test]
async fn a_nef_that_is_away_is_asked_again_and_nothing_is_lost_meanwhile() {
    let net = Net::with(limits()).await;
    let mut nef = Nef::start(&net).await;
    nef.conduct(Conduct::Refuses(503));
    let _exposed = expose(&net, &section(nef.address)).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    nef.trigger().await;
    nef.trigger().await;
    until(|| net.outcomes("triggers", "NEF unavailable") >= 2).await;
    nef.conduct(Conduct::Takes);
    until(|| net.outcomes("triggers", "taken") == 1).await;
}

#[tokio::test]
async fn a_nef_that_is_not_there_harms_nobody() {
    let net = Net::with(limits()).await;
    let _exposed = expose(&net, &section(SocketAddr::from(([127, 0, 0, 1], 1)))).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    until(|| net.outcomes("triggers", "NEF unavailable") >= 2).await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_nef_that_is_silent_talks_nonsense_or_refuses_costs_attempts() {
    for (conduct, outcome) in [
        (Conduct::Silent, "no answer in time"),
        (Conduct::Garbage, "unusable answer"),
        (Conduct::Refuses(403), "refused"),
        (Conduct::Refuses(302), "refused"),
    ] {
        let net = Net::with(Limits { trigger_attempts_max: 2, ..limits() }).await;
        let mut nef = Nef::start(&net).await;
        nef.conduct(conduct);
        // Only silence is to be cut short: the others are waited for.
        let requests = match conduct {
            Conduct::Silent => ClientLimits { request_timeout_milliseconds: 200, ..ClientLimits::default() },
            _ => ClientLimits::default(),
        };
        let _exposed = expose(&net, &ExposureSection { requests, ..section(nef.address) }).await;
        let mut alice = net.ue("alice").await;
        net.asleep("meter").await;
        assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
        nef.trigger().await;
        until(|| net.outcomes("triggers", outcome) == 2).await;
        assert_eq!(net.stored_for("meter"), 1, "{conduct:?}");
    }
}

#[tokio::test]
async fn a_trigger_that_failed_is_repeated_after_a_pause() {
    let (net, mut nef, _exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let first = nef.trigger().await;
    assert_eq!(nef.report(&first, "UNCONFIRMED").await, 204);
    assert_eq!(nef.report(&first, "EXPIRED").await, 204);
    let second = nef.trigger().await;
    assert_ne!(destination(&first), destination(&second));
}

#[tokio::test]
async fn one_ue_too_many_waits_to_come_by_itself() {
    let net = Net::with(Limits { triggers_watched_max: 1, ..limits() }).await;
    let mut nef = Nef::start(&net).await;
    let _exposed = expose(&net, &section(nef.address)).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    net.sleeper("other", "msisdn-491700000002", None, &triggering(None)).await.leave().await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    assert_eq!(nef.trigger().await["msisdn"], "491700000001");
    assert_eq!(alice.send(&storable("alice", "other", "2")).await, Fate::stored());
    assert_eq!(net.outcomes("triggers", "table full"), 1);
    nef.was_asked_nothing_more();
}

#[tokio::test]
async fn notifications_are_taken_from_the_nef_alone_and_only_where_one_is_awaited() {
    let (net, mut nef, exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let trigger = nef.trigger().await;
    until(|| net.outcomes("triggers", "taken") == 1).await;
    let destination = destination(&trigger);
    let expired = json!({"transaction": "/1", "result": "EXPIRED"});

    let stranger =
        SbiClientConfig { tls: pki::files(net.directory.path(), "weather"), limits: ClientLimits::default() };
    let stranger = SbiClient::new(stranger).unwrap();
    let refused = notify_as(&stranger, destination, &expired).await;
    assert_eq!(refused, (403, "NOTIFIER_NOT_ALLOWED".to_owned()));

    let (root, token) = destination.rsplit_once('/').unwrap();
    let guess = "0123456789abcdef0123456789abcdef";
    let elsewhere = format!("{}/reachability/{token}", root.rsplit_once('/').unwrap().0);
    for (uri, status, cause) in [
        (format!("{root}/{guess}"), 404, "NOTIFICATION_NOT_FOUND"),
        (format!("{root}/x"), 404, "NOTIFICATION_NOT_FOUND"),
        (elsewhere, 404, "NOTIFICATION_NOT_FOUND"),
        (root.to_owned(), 404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"),
    ] {
        assert_eq!(notify_as(&nef.client, &uri, &expired).await, (status, cause.to_owned()), "{uri}");
    }
    for (body, cause) in [
        (json!({"transaction": "/1"}), "MANDATORY_IE_MISSING"),
        (json!({"transaction": "/1", "result": 7}), "MANDATORY_IE_INCORRECT"),
        (json!([]), "MANDATORY_IE_INCORRECT"),
        (json!("x"), "MANDATORY_IE_INCORRECT"),
    ] {
        let (status, told) = notify_as(&nef.client, destination, &body).await;
        assert_eq!((status, told.as_str()), (400, cause), "{body}");
    }
    let long = json!({"transaction": "x".repeat(100_000), "result": "EXPIRED"});
    assert_eq!(nef.notify(destination, &long).await, 413);
    let gotten = nef.client.get::<Value>(destination).await.unwrap_err();
    assert_eq!(gotten.problem().unwrap().status, Some(405));
    assert_eq!((net.outcomes("notifications", "refused"), net.outcomes("notifications", "awaited")), (1, 0));

    // None of it did anything.
    nef.was_asked_nothing_more();
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    exposed.stop().await;
}

#[tokio::test]
async fn what_comes_where_notifications_are_taken_is_counted_by_connection_and_status() {
    let (net, mut nef, exposed) = net_and_nef().await;
    let mut registry = prometheus_client::registry::Registry::default();
    net.core.reachability.metrics.register(&mut registry);
    let samples = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let counted = |sample: &str| samples().lines().any(|line| line == sample);
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let trigger = nef.trigger().await;
    assert!(!counted("notifications_connections 1"));
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    until(|| counted("notifications_connections 1")).await;
    let guess = destination(&trigger).rsplit_once('/').unwrap().0.to_owned() + "/0123456789abcdef0123456789abcdef";
    for _ in 0..2 {
        assert_eq!(nef.notify(&guess, &json!({"transaction": "/1", "result": "EXPIRED"})).await, 404);
    }
    until(|| counted("notifications_requests_total{status=\"204\"} 1")).await;
    until(|| counted("notifications_requests_total{status=\"404\"} 2")).await;

    // One that goes before it has shown anything.
    drop(tokio::net::TcpStream::connect(exposed.server.local_addr()).await.unwrap());
    until(|| counted("notifications_connections_refused_total{reason=\"tls\"} 1")).await;
    exposed.stop().await;
    until(|| counted("notifications_connections 0")).await;
}

#[tokio::test]
async fn a_one_time_check_of_reachability_comes_before_the_trigger() {
    let (net, mut nef, _exposed) = monitored().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let subscription = nef.subscription().await;
    assert_eq!(
        (&subscription["maximumNumberOfReports"], &subscription["monitorExpireTime"]),
        (&json!(1), &Value::Null)
    );
    let test = json!({"subscription": "https://nef.example/subscriptions/0"});
    assert_eq!(nef.notify(destination(&subscription), &test).await, 204);
    until(|| net.outcomes("subscriptions", "taken") == 1).await;
    nef.was_asked_nothing_more();
    assert_eq!(nef.say_reachable(&subscription).await, 204);
    let trigger = nef.trigger().await;
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    until(|| net.outcomes("triggers", "taken") == 1).await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    meter.receive().await;
    nef.was_asked_nothing_more();
}

#[tokio::test]
async fn monitoring_that_lasts_ends_with_the_ue() {
    let net = Net::with(limits()).await;
    let mut nef = Nef::start(&net).await;
    let lasting = ExposureSection {
        reachability_monitoring: true,
        monitoring_reports: 5,
        monitoring_seconds: Some(7200),
        ..section(nef.address)
    };
    let _exposed = expose(&net, &lasting).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let subscription = nef.subscription().await;
    assert_eq!(subscription["maximumNumberOfReports"], 5);
    let ends = OffsetDateTime::parse(subscription["monitorExpireTime"].as_str().unwrap(), &Rfc3339).unwrap();
    let lasts = ends - OffsetDateTime::now_utc();
    assert!(lasts > time::Duration::hours(1) && lasts <= time::Duration::hours(2), "{lasts}");
    assert_eq!(nef.say_reachable(&subscription).await, 204);
    let trigger = nef.trigger().await;
    assert_eq!(nef.say_reachable(&subscription).await, 204);
    assert_eq!(nef.report(&trigger, "SUCCESS").await, 204);
    until(|| net.outcomes("triggers", "taken") == 1).await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    meter.receive().await;
    assert_eq!(nef.asked().await, Asked::Unsubscribed("0".to_owned()));
}

#[tokio::test]
async fn a_report_at_once_and_a_refusal_both_lead_to_the_trigger() {
    for conduct in [Conduct::ReportsAtOnce, Conduct::Refuses(403)] {
        let (net, mut nef, _exposed) = monitored().await;
        nef.conduct(conduct);
        let mut alice = net.ue("alice").await;
        net.asleep("meter").await;
        alice.send(&storable("alice", "meter", "1")).await;
        nef.subscription().await;
        nef.trigger().await;
    }
}

#[tokio::test]
async fn a_restart_forgets_triggers_and_wakes_whoever_still_has_messages_waiting() {
    let (net, mut nef, exposed) = net_and_nef().await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    let before = nef.trigger().await;
    until(|| net.outcomes("triggers", "taken") == 1).await;
    alice.leave().await;
    exposed.stop().await;
    let net = net.restart().await;
    let exposed = expose(&net, &section(nef.address)).await;
    let after = nef.trigger().await;
    assert_ne!(destination(&before), destination(&after));
    let token = destination(&before).rsplit('/').next().unwrap();
    let forgotten = format!("https://{}/notifications/triggers/{token}", exposed.server.local_addr());
    let report = json!({"transaction": "/0", "result": "SUCCESS"});
    assert_eq!(notify_as(&nef.client, &forgotten, &report).await, (404, "NOTIFICATION_NOT_FOUND".to_owned()));
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_crash_while_the_nef_is_asked_loses_nothing() {
    let (net, mut nef, exposed) = net_and_nef().await;
    nef.conduct(Conduct::Silent);
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    assert_eq!(alice.send(&storable("alice", "meter", "1")).await, Fate::stored());
    nef.trigger().await;
    alice.leave().await;
    exposed.stop().await;
    let net = net.restart().await;
    nef.conduct(Conduct::Takes);
    let _exposed = expose(&net, &section(nef.address)).await;
    nef.trigger().await;
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    assert_eq!(meter.receive().await.message_id.as_str(), "1");
}

#[tokio::test]
async fn a_ue_that_comes_back_after_a_restart_is_not_triggered() {
    let net = Net::with(Limits { trigger_restart_pause_seconds: 3600, ..limits() }).await;
    let mut alice = net.ue("alice").await;
    net.asleep("meter").await;
    alice.send(&storable("alice", "meter", "1")).await;
    alice.leave().await;
    let net = net.restart().await;
    let mut nef = Nef::start(&net).await;
    let _exposed = expose(&net, &section(nef.address)).await;
    assert_eq!(net.core.reachability.watched(), 1);
    let mut meter = net.sleeper("meter", OWN, None, &triggering(None)).await;
    meter.receive().await;
    assert_eq!(net.core.reachability.watched(), 0);
    nef.was_asked_nothing_more();
}
