//! A network exposure function on real HTTP/2 with mutual TLS that holds what it is asked to TS 29.122 and notifies as it is told.

use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::{delete, post};
use http::StatusCode;
use http::header::LOCATION;
use sbi::{Json, ProblemDetails, SbiError};
use tokio::sync::mpsc;

use super::*;

/// What the NEF does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Conduct {
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
pub(super) enum Asked {
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
pub(super) struct Nef {
    pub(super) address: SocketAddr,
    state: NefState,
    asked: mpsc::UnboundedReceiver<Asked>,
    pub(super) client: SbiClient,
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
    pub(super) async fn start(net: &Net) -> Self {
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

    pub(super) fn conduct(&self, conduct: Conduct) {
        *self.state.conduct.lock().unwrap() = conduct;
    }

    pub(super) async fn asked(&mut self) -> Asked {
        timeout(PATIENCE, self.asked.recv()).await.unwrap().unwrap()
    }

    pub(super) async fn trigger(&mut self) -> Value {
        match self.asked().await {
            Asked::Trigger(body) => body,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn subscription(&mut self) -> Value {
        match self.asked().await {
            Asked::Subscription(body) => body,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn was_asked_nothing_more(&mut self) {
        assert!(self.asked.try_recv().is_err());
    }

    /// Notifies, and says how that was answered.
    pub(super) async fn notify(&self, destination: &str, body: &Value) -> u16 {
        notify_as(&self.client, destination, body).await.0
    }

    pub(super) async fn report(&self, trigger: &Value, result: &str) -> u16 {
        let body = json!({"transaction": "https://nef.example/transactions/1", "result": result});
        self.notify(destination(trigger), &body).await
    }

    pub(super) async fn say_reachable(&self, subscription: &Value) -> u16 {
        let report = json!({"monitoringType": "UE_REACHABILITY", "reachabilityType": "SMS"});
        let body = json!({"subscription": "https://nef.example/subscriptions/1", "monitoringEventReports": [report]});
        self.notify(destination(subscription), &body).await
    }
}

pub(super) fn destination(request: &Value) -> &str {
    request["notificationDestination"].as_str().unwrap()
}

pub(super) async fn notify_as(client: &SbiClient, destination: &str, body: &Value) -> (u16, String) {
    match client.post_any(destination, body).await {
        Ok(response) => (response.status.as_u16(), String::new()),
        Err(SbiError::Problem(problem)) => {
            (problem.status.unwrap(), problem.cause.map(String::from).unwrap_or_default())
        }
        Err(error) => panic!("{error}"),
    }
}
