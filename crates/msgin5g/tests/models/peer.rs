//! Whoever the server talks HTTP/2 to: a peer with a certificate of the lab that holds what it is asked to a contract, and
//! answers as it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header::HeaderName, header::LOCATION};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use message::ts29538::{BgMessageDelivery, DeliveryStatusReport, UeMessageDelivery};
use sbi::{CertificateFiles, PeerIdentity, SbiClient, SbiError, SbiServer, SbiServerConfig, ServerLimits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::common::{Lab, function::Function};
use crate::neighbour::{certificate, client_of};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// How a peer answers what keeps the contract.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// As the contract says.
    Taking,
    /// With this status, media type and body.
    Saying(StatusCode, &'static str, &'static str),
    /// Not at all.
    Silent,
}

impl Manner {
    /// A status without words.
    pub(crate) fn status(status: u16) -> Self {
        Self::Saying(StatusCode::from_u16(status).unwrap(), "text/plain", "")
    }
}

/// What a right request is answered with; what is wrong with another one. The number tells requests apart.
type Contract = fn(&Asked, usize) -> Result<Response, String>;

struct Shared {
    contract: Contract,
    manner: Mutex<Manner>,
    asked: mpsc::UnboundedSender<Asked>,
    count: AtomicUsize,
    violations: Mutex<Vec<String>>,
}

/// A peer, which lives until it is dropped.
pub(crate) struct Peer {
    shared: Arc<Shared>,
    tls: CertificateFiles,
    address: SocketAddr,
    asked: mpsc::UnboundedReceiver<Asked>,
    running: Option<(SbiServer, CancellationToken)>,
    /// With the same certificate.
    pub(crate) client: SbiClient,
}

impl Peer {
    /// With the certificate of one of the lab's functions or Application Servers.
    pub(crate) async fn start(lab: &Lab, name: &str, contract: Contract) -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            contract,
            manner: Mutex::new(Manner::Taking),
            asked: sender,
            count: AtomicUsize::new(0),
            violations: Mutex::default(),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let client = client_of(lab, name);
        let mut peer = Self { shared, tls: certificate(lab, name), address, asked, running: None, client };
        peer.comes_back().await;
        peer
    }

    /// Answers so from now on.
    pub(crate) fn is(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// Its API root.
    pub(crate) fn root(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The next request.
    pub(crate) async fn asked(&mut self) -> Asked {
        tokio::time::timeout(PATIENCE, self.asked.recv()).await.expect("a request").unwrap()
    }

    /// No request came besides those that were looked at.
    #[track_caller]
    pub(crate) fn was_asked_nothing_more(&mut self) {
        if let Ok(asked) = self.asked.try_recv() {
            panic!("asked for {asked:?}");
        }
    }

    /// Forgets what it was asked.
    pub(crate) fn forgets(&mut self) {
        while self.asked.try_recv().is_ok() {}
    }

    /// Nobody listens at its address any more.
    pub(crate) async fn goes_away(&mut self) {
        let (server, stop) = self.running.take().expect("it is there");
        stop.cancel();
        server.stopped().await;
    }

    /// Listens at its address again.
    pub(crate) async fn comes_back(&mut self) {
        let limits =
            ServerLimits { request_timeout_seconds: 3_600, drain_timeout_seconds: 0, ..ServerLimits::default() };
        let config = SbiServerConfig { listen: self.address, tls: self.tls.clone(), limits };
        let router = Router::new().route("/{*path}", any(take)).with_state(Arc::clone(&self.shared));
        let stop = CancellationToken::new();
        let server = SbiServer::start(config, router, stop.clone()).await.unwrap();
        self.address = server.local_addr();
        self.running = Some((server, stop));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some((_, stop)) = self.running.take() {
            stop.cancel();
        }
        if !std::thread::panicking() {
            assert_eq!(*self.shared.violations.lock().unwrap(), Vec::<String>::new(), "the contract was broken");
        }
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    Extension(identity): Extension<PeerIdentity>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let octets = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let body = serde_json::from_slice(&octets).unwrap_or_default();
    let asked = Asked { method: parts.method, path: parts.uri.path().to_owned(), body };
    let by_the_server = identity.dns_names.iter().any(|name| name == "msgin5g.lab.example");
    let number = shared.count.fetch_add(1, Ordering::SeqCst);
    let answer = holds(by_the_server, "the server's certificate").and_then(|()| (shared.contract)(&asked, number));
    let answer = answer.unwrap_or_else(|fault| {
        shared.violations.lock().unwrap().push(format!("{fault}: {asked:?}"));
        StatusCode::BAD_REQUEST.into_response()
    });
    let manner = shared.manner.lock().unwrap().clone();
    let _ = shared.asked.send(asked);
    match manner {
        Manner::Taking => answer,
        Manner::Saying(status, media_type, body) => {
            (status, [(HeaderName::from_static("content-type"), media_type)], body).into_response()
        }
        Manner::Silent => std::future::pending().await,
    }
}

fn holds(condition: bool, what: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what.to_owned()) }
}

/// The body is one of these, and has no member that the API does not have.
fn is_a<T: Serialize + DeserializeOwned>(body: &Value) -> Result<(), String> {
    let read: T = serde_json::from_value(body.clone()).map_err(|error| error.to_string())?;
    holds(serde_json::to_value(&read).ok().as_ref() == Some(body), "members that the API does not have")
}

/// TS 29.538 MSGG_BGDelivery, below `/gateway`.
pub(crate) fn broadcast_gateway(asked: &Asked, _: usize) -> Result<Response, String> {
    let operation = asked.method == Method::POST && asked.path == "/gateway/msgg-bgdelivery/v1/deliver-message";
    holds(operation, "operation")?;
    is_a::<BgMessageDelivery>(&asked.body)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What the server posts to an Application Server, below `/inbox`.
pub(crate) fn application_server(asked: &Asked, _: usize) -> Result<Response, String> {
    match asked.path.as_str() {
        "/inbox/deliver-message" => is_a::<UeMessageDelivery>(&asked.body)?,
        "/inbox/deliver-report" => is_a::<DeliveryStatusReport>(&asked.body)?,
        _ => return Err("operation".to_owned()),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// TS 29.122 DeviceTriggering and MonitoringEvent, to an SCS/AS named `msgin5g`.
pub(crate) fn exposure_function(asked: &Asked, number: usize) -> Result<Response, String> {
    let triggering = "/3gpp-device-triggering/v1/msgin5g/transactions";
    let monitoring = "/3gpp-monitoring-event/v1/msgin5g/subscriptions";
    if asked.method == Method::DELETE {
        let known = [triggering, monitoring].iter().any(|collection| {
            let id = asked.path.strip_prefix(collection).and_then(|rest| rest.strip_prefix('/'));
            id.is_some_and(|id| id.parse::<usize>().is_ok())
        });
        holds(known, "a resource that was made")?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    holds(asked.method == Method::POST, "method")?;
    let body = &asked.body;
    match asked.path.as_str() {
        path if path == triggering => is_a_trigger(body)?,
        path if path == monitoring => is_a_subscription(body)?,
        _ => return Err("operation".to_owned()),
    }
    let location = format!("https://nef.example{}/{number}", asked.path);
    Ok((StatusCode::CREATED, [(LOCATION, location.clone())], axum::Json(json!({"self": location}))).into_response())
}

fn is_a_trigger(body: &Value) -> Result<(), String> {
    names_a_device(body, &["validityPeriod", "priority", "applicationPortId", "triggerPayload"])?;
    holds(body["validityPeriod"].as_u64().is_some_and(|seconds| seconds > 0), "validityPeriod")?;
    holds(["NO_PRIORITY", "PRIORITY"].map(Value::from).contains(&body["priority"]), "priority")?;
    holds(body["applicationPortId"].as_u64().is_some_and(|port| port <= 65_535), "applicationPortId")?;
    holds(body["triggerPayload"].is_string(), "triggerPayload")
}

fn is_a_subscription(body: &Value) -> Result<(), String> {
    names_a_device(body, &["monitoringType", "maximumNumberOfReports", "monitorExpireTime", "reachabilityType"])?;
    holds(body["monitoringType"] == "UE_REACHABILITY", "monitoringType")?;
    let bounded = body["maximumNumberOfReports"].as_u64() >= Some(1) || body["monitorExpireTime"].is_string();
    holds(bounded, "one of two bounds")?;
    holds(["SMS", "DATA"].map(Value::from).contains(&body["reachabilityType"]), "reachabilityType")
}

/// One external identity and no SUPI, a destination, and no member that is not known.
fn names_a_device(body: &Value, known: &[&str]) -> Result<(), String> {
    let members = body.as_object().ok_or("no object")?;
    holds(!body.to_string().contains("imsi"), "a SUPI")?;
    holds(members.contains_key("externalId") != members.contains_key("msisdn"), "one identifier")?;
    let beside = ["externalId", "msisdn", "notificationDestination"];
    let all_known = members.keys().all(|name| known.iter().chain(&beside).any(|one| one == name));
    holds(all_known, "members that the API does not have")?;
    let token = destination(body).rsplit('/').next().unwrap_or_default();
    holds(destination(body).starts_with("https://") && token.len() == 32, "notificationDestination")
}

/// Where the exposure function notifies of what it was asked for.
pub(crate) fn destination(body: &Value) -> &str {
    body["notificationDestination"].as_str().unwrap_or_default()
}

/// An Application Server of the lab.
pub(crate) struct TestAs {
    pub(crate) peer: Peer,
    pub(crate) address: Value,
    name: String,
}

/// A refusal on HTTP.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) cause: String,
    pub(crate) retry_after: Option<u32>,
}

impl TestAs {
    /// `billing` or `fleet`, registered at the server.
    pub(crate) async fn registered(lab: &Lab, server: &Function, name: &str) -> Self {
        let peer = Peer::start(lab, &format!("as-{name}"), application_server).await;
        let name = format!("{name}@lab.example");
        let this = Self { peer, address: json!({"addrType": "AS", "addr": name}), name };
        this.register(server).await.unwrap();
        this
    }

    pub(crate) async fn register(&self, server: &Function) -> Result<Value, Refused> {
        let body = json!({"asSvcId": self.name, "targetUri": format!("{}/inbox", self.peer.root())});
        self.post(server, "msgs-asregistration/v1/registrations", &body).await
    }

    /// `deliver-as-message`, and the acknowledgement.
    pub(crate) async fn send(&self, server: &Function, message: &Value) -> Result<Value, Refused> {
        self.post(server, "msgs-msgdelivery/v1/deliver-as-message", message).await
    }

    /// Any operation.
    pub(crate) async fn post(&self, server: &Function, path: &str, body: &Value) -> Result<Value, Refused> {
        post_as(&self.peer.client, &format!("{}/{path}", server.api_root()), body).await
    }
}

/// POST under a client's certificate.
pub(crate) async fn post_as(client: &SbiClient, uri: &str, body: &Value) -> Result<Value, Refused> {
    match client.post_any(uri, body).await {
        Ok(response) => Ok(response.body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()),
        Err(SbiError::Problem(problem)) => Err(Refused {
            status: problem.status.unwrap_or_default(),
            cause: problem.cause.map(String::from).unwrap_or_default(),
            retry_after: problem.retry_after_seconds,
        }),
        Err(error) => panic!("{uri}: {error}"),
    }
}

/// What is refused with this status and cause.
#[track_caller]
pub(crate) fn refused(answer: Result<Value, Refused>, status: u16, cause: &str) -> Refused {
    let refused = answer.expect_err("a refusal");
    assert_eq!((refused.status, refused.cause.as_str()), (status, cause));
    refused
}

/// How long something that must come may stay away: the deadline only tells "never" from "not yet".
const PATIENCE: Duration = Duration::from_secs(90);
