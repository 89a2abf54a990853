//! Devices that have only an HTTP stack: their requests as the HTTP server hands them on, all behind it real.

use akma::{Challenge, Covered, Credentials, DigestPassword, KAf, Qop};
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::ConnectInfo;
use futures_util::StreamExt;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request as HttpRequest, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tower::ServiceExt;

use super::*;
use crate::http_ue::{DeviceLimits, Front, HttpsMetrics, HttpsSection, router};

const REALM: &str = "3GPP-bootstrapping-akma@msgin5g.lab.example";

/// A server's HTTPS side, and the keys that its key server has.
pub(super) struct Https {
    net: Net,
    keys: Arc<Keys>,
    pub(super) router: Router,
    metrics: HttpsMetrics,
}

impl Https {
    pub(super) async fn new() -> Self {
        Self::with(Limits::default(), DeviceLimits::default(), true).await
    }

    async fn with(limits: Limits, devices: DeviceLimits, body_integrity: bool) -> Self {
        let keys = Arc::new(Keys::default());
        *keys.answer.lock().unwrap() = Some(None);
        let net = Net::of(Setup { limits, keys: Some(Arc::clone(&keys)), ..Setup::default() }).await;
        let metrics = HttpsMetrics::default();
        let router = front_with(&net, devices, body_integrity, &metrics);
        Self { net, keys, router, metrics }
    }

    pub(super) fn metrics(&self) -> String {
        let mut registry = MetricsRegistry::default();
        self.metrics.register(registry.sub_registry_with_prefix("msgin5g"));
        text_of(&registry)
    }

    /// Whether its metrics have this line.
    pub(super) fn counts(&self, line: &str) -> bool {
        self.metrics().lines().any(|other| other == line)
    }

    /// A device that is associated with this name, and whose key the key server has.
    pub(super) fn device(&self, name: &str) -> HttpDevice {
        let supi = supi_of(name);
        self.net.associate(&supi, name);
        let octet = name.bytes().fold(0_u8, u8::wrapping_add);
        let k_af = KAf::from_bytes([octet; 32]);
        let a_kid: AKid = format!("0.{octet:02x}@5gc.mnc001.mcc001.3gppnetwork.org").parse().unwrap();
        let key = ProvenKey { k_af: k_af.clone(), expires_at: None, ue_id: Some(supi.parse().unwrap()), gpsi: None };
        self.keys.known.lock().unwrap().insert(a_kid.clone(), key);
        HttpDevice { router: self.router.clone(), name: name.to_owned(), a_kid, k_af }
    }

    async fn registered(&self, name: &str) -> HttpDevice {
        let device = self.device(name);
        assert_eq!(device.register().await.0, StatusCode::CREATED);
        device
    }
}

fn front(net: &Net, devices: DeviceLimits, body_integrity: bool) -> Router {
    front_with(net, devices, body_integrity, &HttpsMetrics::default())
}

fn front_with(net: &Net, devices: DeviceLimits, body_integrity: bool, metrics: &HttpsMetrics) -> Router {
    let mut section: HttpsSection = toml::from_str("").unwrap();
    (section.devices, section.body_integrity) = (devices, body_integrity);
    let fqdn = "msgin5g.lab.example".parse().unwrap();
    router(&Front::new(&net.core, &fqdn, "msgin5g", &section, metrics.clone()).unwrap())
}

#[derive(Clone)]
pub(super) struct HttpDevice {
    router: Router,
    name: String,
    a_kid: AKid,
    pub(super) k_af: KAf,
}

/// One request, and what may be wrong with it.
#[derive(Clone)]
struct Asked {
    method: &'static str,
    target: String,
    body: Vec<u8>,
    accept: Option<&'static str>,
    qop: Qop,
    count: u32,
    /// What is sent in the place of what the digest covers.
    altered: Option<Vec<u8>>,
}

impl Asked {
    fn post(body: &[u8]) -> Self {
        Self { method: "POST", body: body.to_vec(), ..Self::get("/msgin5g") }
    }

    fn get(target: &str) -> Self {
        Self {
            method: "GET",
            target: target.to_owned(),
            body: Vec::new(),
            accept: None,
            qop: Qop::AuthInt,
            count: 1,
            altered: None,
        }
    }
}

type Said = (StatusCode, Value);

impl HttpDevice {
    /// A nonce, as a request without credentials gets.
    pub(super) async fn nonce(&self) -> String {
        let response = self.send(&Asked::get("/msgin5g/events"), None).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        challenge_of(&response).nonce
    }

    fn credentials(&self, asked: &Asked, nonce: &str) -> String {
        let covered = Covered { method: asked.method, uri: &asked.target, body: &asked.body };
        let password = DigestPassword::from(&self.k_af);
        let of = (REALM, nonce, asked.count);
        Credentials::prove(self.a_kid.as_str(), &password, of, asked.qop, "0a4f113b", &covered).to_string()
    }

    async fn send(&self, asked: &Asked, authorization: Option<&str>) -> axum::response::Response {
        let mut request = HttpRequest::builder().method(asked.method).uri(&asked.target);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(accept) = asked.accept {
            request = request.header(ACCEPT, accept);
        }
        let body = asked.altered.clone().unwrap_or_else(|| asked.body.clone());
        let mut request = request.header(CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4000))));
        timeout(PATIENCE, self.router.clone().oneshot(request)).await.unwrap().unwrap()
    }

    async fn proven(&self, asked: &Asked) -> axum::response::Response {
        let nonce = self.nonce().await;
        self.send(asked, Some(&self.credentials(asked, &nonce))).await
    }

    async fn ask(&self, asked: &Asked) -> Said {
        said(self.proven(asked).await).await
    }

    async fn post(&self, body: &Value) -> Said {
        self.ask(&Asked::post(body.to_string().as_bytes())).await
    }

    pub(super) async fn register(&self) -> Said {
        self.post(&json!({"msgType": "REG", "ueSvcId": self.name})).await
    }

    async fn message(&self, message: &Message) -> Said {
        self.ask(&Asked::post(&message.encode())).await
    }

    /// One long poll: what there was, each with its identifier.
    async fn poll(&self, wait: u64) -> Vec<(String, Value)> {
        let (status, body) = self.ask(&Asked::get(&format!("/msgin5g/events?wait={wait}"))).await;
        if status == StatusCode::NO_CONTENT {
            return Vec::new();
        }
        assert_eq!(status, StatusCode::OK, "{body}");
        let events = body["events"].as_array().unwrap();
        events.iter().map(|event| (event["id"].as_str().unwrap().to_owned(), event["message"].clone())).collect()
    }

    async fn acknowledge(&self, id: &str, message: &Value) -> Said {
        let body = json!({"msgType": "MSGRESP", "oriAddr": message["oriAddr"], "msgId": message["msgId"]});
        self.answer(id, &body).await
    }

    async fn answer(&self, id: &str, body: &Value) -> Said {
        let target = format!("/msgin5g/events/{id}");
        self.ask(&Asked { target, ..Asked::post(body.to_string().as_bytes()) }).await
    }

    async fn stream(&self) -> Events {
        let asked = Asked { accept: Some("text/event-stream"), ..Asked::get("/msgin5g/events") };
        let response = self.proven(&asked).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Events { body: response.into_body().into_data_stream(), text: String::new() }
    }
}

/// A stream of events as its device reads it.
struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    /// The next event; none at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                if let Some(id) = field("id: ") {
                    return Some((id, serde_json::from_str(&field("data: ").unwrap()).unwrap()));
                }
                continue;
            }
            let piece = timeout(PATIENCE, self.body.next()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
    }
}

fn challenge_of(response: &axum::response::Response) -> Challenge {
    Challenge::parse(response.headers()[WWW_AUTHENTICATE].to_str().unwrap()).unwrap()
}

async fn said(response: axum::response::Response) -> Said {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_device_registers_sends_and_receives_by_long_poll_and_deregisters() {
    let https = Https::new().await;
    let alice = https.registered("alice").await;
    let mut bob = https.net.ue("bob").await;
    let sent = message("alice", "bob", "m-1");
    let (answer, received) = tokio::join!(alice.message(&sent), bob.receive());
    assert_eq!((answer.0, answer.1["msgType"].as_str()), (StatusCode::OK, Some("MSGRESP")));
    assert_eq!((answer.1.get("status"), received.message_id.as_str()), (None, "m-1"));

    let waits = alice.clone();
    let poll = tokio::spawn(async move { waits.poll(20).await });
    let exchange = bob.post(&message("bob", "alice", "m-2")).await;
    let events = timeout(PATIENCE, poll).await.unwrap().unwrap();
    let [(id, body)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((body["msgId"].as_str(), body["payload"].as_str()), (Some("m-2"), Some("MjEuNQ==")));
    assert_eq!(alice.acknowledge(id, body).await.0, StatusCode::NO_CONTENT);
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
    let (status, problem) = alice.acknowledge(id, body).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::NOT_FOUND, Some("EVENT_NOT_WAITED_FOR")));

    let gone = json!({"msgType": "DEREG", "ueSvcId": "alice"});
    assert_eq!(alice.post(&gone).await.0, StatusCode::OK);
    assert!(https.net.core.registry.find(&address("alice")).is_none());
    let (status, body) = alice.message(&message("alice", "bob", "m-3")).await;
    assert_eq!((status, body["failureCause"].as_str()), (StatusCode::FORBIDDEN, Some("NOT_REGISTERED")));
}

#[tokio::test]
async fn a_message_is_delivered_when_its_event_is_acknowledged_and_not_before() {
    let https = Https::new().await;
    let alice = https.registered("alice").await;
    let mut bob = https.net.ue("bob").await;
    let mut events = alice.stream().await;
    let exchange = bob.post(&message("bob", "alice", "m-1")).await;
    let (id, body) = events.next().await.unwrap();
    // The connection is lost, and the device comes back: the same event again.
    drop(events);
    let mut events = alice.stream().await;
    assert_eq!(events.next().await.unwrap(), (id.clone(), body.clone()));
    assert!(bob.responses.is_empty());
    assert_eq!(alice.acknowledge(&id, &body).await.0, StatusCode::NO_CONTENT);
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn what_a_device_refuses_is_refused_and_what_it_cannot_take_now_comes_again() {
    let https = Https::new().await;
    let alice = https.registered("alice").await;
    let mut bob = https.net.ue("bob").await;
    let mut events = alice.stream().await;
    let exchange = bob.post(&message("bob", "alice", "m-1")).await;
    let (id, body) = events.next().await.unwrap();
    let answer = |cause: &str| {
        json!({"msgType": "MSGRESP", "oriAddr": body["oriAddr"], "msgId": body["msgId"], "status": "DELY_FAILED",
            "failureCause": cause})
    };
    let (status, problem) = alice.answer(&id, &json!({"msgType": "MSGRESP"})).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::BAD_REQUEST, Some("MALFORMED")));
    assert_eq!(alice.answer(&id, &answer("MALFORMED")).await.0, StatusCode::NO_CONTENT);
    assert_eq!(bob.fate(exchange).await, Fate::failed("2.04", "TARGET_REFUSED"));

    let exchange = bob.post(&storable("bob", "alice", "m-2")).await;
    let (id, _) = events.next().await.unwrap();
    assert_eq!(alice.answer(&id, &answer("OVERLOADED")).await.0, StatusCode::NO_CONTENT);
    let (again, body) = events.next().await.unwrap();
    assert_ne!(again, id);
    assert_eq!(alice.acknowledge(&again, &body).await.0, StatusCode::NO_CONTENT);
    let fate = bob.fate(exchange).await;
    assert!(fate == Fate::delivered() || fate == Fate::stored(), "{fate:?}");
    until(|| https.net.stored_for("alice") == 0).await;
}

#[tokio::test]
async fn what_is_not_acknowledged_goes_to_the_disk_and_comes_again() {
    let devices = DeviceLimits { listen_gap_seconds: 1, ..DeviceLimits::default() };
    let https = Https::with(Limits::default(), devices, true).await;
    let alice = https.registered("alice").await;
    let mut bob = https.net.ue("bob").await;
    let waits = alice.clone();
    let poll = tokio::spawn(async move { waits.poll(20).await });
    let exchange = bob.post(&storable("bob", "alice", "m-1")).await;
    let (lost, _) = timeout(PATIENCE, poll).await.unwrap().unwrap().remove(0);
    assert_eq!(bob.fate(exchange).await, Fate::stored());
    // Nobody listened any more: the link ended, and the next request makes another.
    let (id, body) = until_some(|| alice.poll(20)).await;
    assert_ne!(id, lost);
    assert_eq!(body["msgId"], "m-1");
    assert_eq!(alice.acknowledge(&id, &body).await.0, StatusCode::NO_CONTENT);
    until(|| https.net.stored_for("alice") == 0).await;
}

/// The first event of the first poll that has any.
async fn until_some<F: Future<Output = Vec<(String, Value)>>>(mut poll: impl FnMut() -> F) -> (String, Value) {
    timeout(PATIENCE, async {
        loop {
            if let Some(event) = poll().await.into_iter().next() {
                return event;
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_device_that_is_silent_is_away_and_needs_no_new_registration_to_send() {
    let devices = DeviceLimits { listen_gap_seconds: 1, ..DeviceLimits::default() };
    let https = Https::with(Limits::default(), devices, true).await;
    let alice = https.registered("alice").await;
    let mut bob = https.net.ue("bob").await;
    let party = https.net.core.registry.find(&address("alice")).unwrap();
    until(|| crate::sync::lock(&party.state).carrier.is_none()).await;
    assert_eq!(bob.send(&message("bob", "alice", "m-1")).await, Fate::failed("2.04", "TARGET_UNREACHABLE"));
    let sent = message("alice", "bob", "m-2");
    let (answer, _) = tokio::join!(alice.message(&sent), bob.receive());
    assert_eq!((answer.0, answer.1.get("status")), (StatusCode::OK, None));
    // It sends, and listens to nothing: what is for it is not kept waiting.
    assert_eq!(bob.send(&storable("bob", "alice", "m-3")).await, Fate::stored());
}

#[tokio::test]
async fn a_registration_elsewhere_takes_the_devices_place_for_good() {
    let https = Https::new().await;
    let alice = https.registered("alice").await;
    let mut events = alice.stream().await;
    let elsewhere = https.net.ue("alice").await;
    assert_eq!(events.next().await, None, "the stream ends");
    let poll = Asked::get("/msgin5g/events?wait=0");
    let (status, problem) = until_settled(|| alice.ask(&poll), |said| said.0 != 503).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::FORBIDDEN, Some("NOT_REGISTERED")));
    let party = https.net.core.registry.find(&address("alice")).unwrap();
    assert!(crate::sync::lock(&party.state).carrier.is_some(), "the other connection carries");
    assert_eq!(alice.register().await.0, StatusCode::CREATED);
    assert_eq!(elsewhere.ended().await, Ended::Replaced);
}

#[tokio::test]
async fn a_registration_that_was_ended_and_made_anew_elsewhere_is_not_the_devices() {
    let devices = DeviceLimits { listen_gap_seconds: 1, ..DeviceLimits::default() };
    let https = Https::with(Limits::default(), devices, true).await;
    let alice = https.registered("alice").await;
    let party = https.net.core.registry.find(&address("alice")).unwrap();
    until(|| crate::sync::lock(&party.state).carrier.is_none()).await;
    let mut elsewhere = https.net.ue("alice").await;
    assert_eq!(elsewhere.deregister("alice").await.code, Code::DELETED);
    assert_eq!(elsewhere.register("alice").await.code, Code::CREATED);
    let (status, problem) = alice.ask(&Asked::get("/msgin5g/events?wait=0")).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::FORBIDDEN, Some("NOT_REGISTERED")));
    assert_eq!(elsewhere.send(&message("alice", "nobody", "1")).await, Fate::failed("4.04", "UNKNOWN_TARGET"));
}

async fn until_settled<F: Future<Output = Said>>(mut ask: impl FnMut() -> F, settled: impl Fn(&Said) -> bool) -> Said {
    timeout(PATIENCE, async {
        loop {
            let said = ask().await;
            if settled(&said) {
                return said;
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn who_does_not_prove_itself_is_challenged_and_nobody_elses_key_helps() {
    let https = Https::new().await;
    let alice = https.device("alice");
    let reg = Asked::post(br#"{"msgType":"REG","ueSvcId":"alice"}"#);
    let challenged = |response: axum::response::Response, stale: bool| async move {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenge = challenge_of(&response);
        assert_eq!((challenge.realm.as_str(), challenge.stale), (REALM, stale));
        said(response).await.1["cause"].as_str().unwrap().to_owned()
    };
    assert_eq!(challenged(alice.send(&reg, None).await, false).await, "NOT_AUTHENTICATED");
    assert_eq!(challenged(alice.send(&reg, Some("Basic YTpi")).await, false).await, "NOT_AUTHENTICATED");

    let nonce = alice.nonce().await;
    let right = alice.credentials(&reg, &nonce);
    let md5 = right.replace("SHA-256", "MD5");
    assert_eq!(challenged(alice.send(&reg, Some(&md5)).await, false).await, "NOT_AUTHENTICATED");
    let realm = right.replace("akma@msgin5g", "akma@other");
    assert_eq!(challenged(alice.send(&reg, Some(&realm)).await, false).await, "NOT_AUTHENTICATED");

    let wrong = HttpDevice { k_af: KAf::from_bytes([0; 32]), ..alice.clone() };
    assert_eq!(challenged(wrong.proven(&reg).await, false).await, "NOT_AUTHENTICATED");
    let altered = Asked { altered: Some(br#"{"msgType":"REG","ueSvcId":"bob12"}"#.to_vec()), ..reg.clone() };
    assert_eq!(challenged(alice.proven(&altered).await, false).await, "NOT_AUTHENTICATED");
    let unprotected = Asked { qop: Qop::Auth, ..reg.clone() };
    assert_eq!(challenged(alice.proven(&unprotected).await, false).await, "BODY_NOT_PROTECTED");
    assert_eq!(challenged(alice.send(&reg, Some(&right.replace(&nonce, "other"))).await, true).await, "NONCE_NOT_GOOD");

    // Of all that nothing is left: these are the device's first.
    assert_eq!(said(alice.send(&reg, Some(&right)).await).await.0, StatusCode::CREATED);
    assert_eq!(challenged(alice.send(&reg, Some(&right)).await, true).await, "NONCE_NOT_GOOD");
    let third = Asked { count: 3, ..reg.clone() };
    assert_eq!(said(alice.send(&third, Some(&alice.credentials(&third, &nonce))).await).await.0, StatusCode::CREATED);
    let second = Asked { count: 2, ..reg.clone() };
    let late = alice.credentials(&second, &nonce);
    assert_eq!(challenged(alice.send(&second, Some(&late)).await, true).await, "NONCE_NOT_GOOD");
}

#[tokio::test]
async fn credentials_of_another_request_and_broken_ones_are_bad_requests() {
    let https = Https::new().await;
    let alice = https.device("alice");
    let nonce = alice.nonce().await;
    let poll = Asked::get("/msgin5g/events?wait=0");
    let other = alice.credentials(&Asked::get("/msgin5g/events"), &nonce);
    let (status, problem) = said(alice.send(&poll, Some(&other)).await).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::BAD_REQUEST, Some("INVALID_MSG_FORMAT")));
    let broken = alice.credentials(&poll, &nonce).replace("nc=00000001", "nc=1");
    assert_eq!(said(alice.send(&poll, Some(&broken)).await).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(alice.ask(&Asked::get("/msgin5g/events?wait=x")).await.0, StatusCode::BAD_REQUEST);
    let image = Asked { accept: Some("image/png"), ..Asked::get("/msgin5g/events") };
    assert_eq!(alice.ask(&image).await.0, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn a_nonce_is_good_for_its_lifetime() {
    let devices = DeviceLimits { nonce_lifetime_seconds: 1, ..DeviceLimits::default() };
    let https = Https::with(Limits::default(), devices, true).await;
    let alice = https.registered("alice").await;
    let nonce = alice.nonce().await;
    let poll = Asked::get("/msgin5g/events?wait=0");
    let mut count = 0;
    let last = timeout(PATIENCE, async {
        loop {
            count += 1;
            let asked = Asked { count, ..poll.clone() };
            let response = alice.send(&asked, Some(&alice.credentials(&asked, &nonce))).await;
            if response.status() == StatusCode::UNAUTHORIZED {
                return response;
            }
        }
    })
    .await
    .unwrap();
    assert!(challenge_of(&last).stale);
    assert_eq!(alice.ask(&poll).await.0, StatusCode::NO_CONTENT, "with a new one it goes on");
}

#[tokio::test]
async fn a_key_that_is_not_to_be_had_is_no_challenge() {
    let https = Https::new().await;
    let alice = https.device("alice");
    let stranger = HttpDevice { a_kid: "0.00@5gc.mnc001.mcc001.3gppnetwork.org".parse().unwrap(), ..alice.clone() };
    let response = stranger.proven(&Asked::get("/msgin5g/events")).await;
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
    let (status, problem) = said(response).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::FORBIDDEN, Some("A_KID_NOT_KNOWN")));

    let expired = SystemTime::now() - Duration::from_secs(1);
    https.keys.known.lock().unwrap().get_mut(&alice.a_kid).unwrap().expires_at = Some(expired);
    let (status, problem) = alice.register().await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::FORBIDDEN, Some("K_AF_EXPIRED")));

    https.keys.known.lock().unwrap().clear();
    *https.keys.answer.lock().unwrap() = None;
    let response = alice.proven(&Asked::get("/msgin5g/events")).await;
    assert!(response.headers().contains_key(RETRY_AFTER));
    let (status, problem) = said(response).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("KEY_NOT_AVAILABLE")));
}

#[tokio::test]
async fn a_session_ends_with_its_key() {
    let https = Https::new().await;
    let alice = https.device("alice");
    let expires = SystemTime::now() + Duration::from_secs(2);
    https.keys.known.lock().unwrap().get_mut(&alice.a_kid).unwrap().expires_at = Some(expires);
    assert_eq!(alice.register().await.0, StatusCode::CREATED);
    let mut events = alice.stream().await;
    assert_eq!(events.next().await, None);
    let (status, problem) = alice.register().await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::FORBIDDEN, Some("K_AF_EXPIRED")));
}

#[tokio::test]
async fn an_a_kid_that_is_superseded_stops_within_the_time_of_revalidation() {
    let limits = Limits { revalidation_seconds: 1, ..Limits::default() };
    let https = Https::with(limits, DeviceLimits::default(), true).await;
    let alice = https.registered("alice").await;
    let mut events = alice.stream().await;
    https.keys.known.lock().unwrap().clear();
    assert_eq!(events.next().await, None);
    let (status, problem) = until_settled(|| alice.register(), |said| said.0 != 503).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::FORBIDDEN, Some("A_KID_NOT_KNOWN")));
}

#[tokio::test]
async fn a_device_of_an_older_a_kid_whose_key_was_on_its_way_while_a_newer_registered_comes_to_no_registration() {
    let https = Https::new().await;
    let alice = https.device("alice");
    https.net.associate(&supi_of("alice"), "alice-too");
    let held = Arc::new(Notify::new());
    *https.keys.held.lock().unwrap() = Some(Arc::clone(&held));
    let registering = tokio::spawn({
        let alice = alice.clone();
        async move { alice.register().await }
    });
    until(|| https.keys.asked.lock().unwrap().len() == 1).await;
    let a_kid = "0.newer@5gc.mnc001.mcc001.3gppnetwork.org".parse().unwrap();
    let mut newer = https.net.connect_as(ProvenPeer { a_kid, ..peer(Some(&supi_of("alice")), None) }, STREAM_OCTETS);
    assert_eq!(newer.register("alice-too").await.code, Code::CREATED);
    https.keys.known.lock().unwrap().clear();
    held.notify_one();
    assert_ne!(registering.await.unwrap().0, StatusCode::CREATED);
    assert!(https.net.core.registry.find(&address("alice")).is_none(), "it did not register");
    let (status, problem) = until_settled(|| alice.register(), |said| said.0 != 503).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::FORBIDDEN, Some("A_KID_NOT_KNOWN")));
}

#[tokio::test]
async fn a_device_without_a_session_is_asked_about_again_whenever_its_key_was_last_good() {
    let devices = DeviceLimits { listen_gap_seconds: 1, ..DeviceLimits::default() };
    let https = Https::with(Limits::default(), devices, true).await;
    let alice = https.registered("alice").await;
    let party = https.net.core.registry.find(&address("alice")).unwrap();
    until(|| crate::sync::lock(&party.state).carrier.is_none()).await;
    https.keys.known.lock().unwrap().clear();
    let (status, problem) = alice.ask(&Asked::get("/msgin5g/events?wait=0")).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::FORBIDDEN, Some("A_KID_NOT_KNOWN")));
}

#[tokio::test]
async fn a_device_is_nobody_but_itself() {
    let https = Https::new().await;
    let alice = https.registered("alice").await;
    let bob = https.registered("bob").await;
    let (status, body) = alice.post(&json!({"msgType": "REG", "ueSvcId": "bob"})).await;
    assert_eq!((status, body["failureCause"].as_str()), (StatusCode::FORBIDDEN, Some("NOT_ASSOCIATED")));
    let (status, body) = alice.message(&message("bob", "bob", "m-1")).await;
    assert_eq!((status, body["failureCause"].as_str()), (StatusCode::FORBIDDEN, Some("ORIGINATOR_NOT_ALLOWED")));
    // An event is its own device's to acknowledge.
    let mut carol = https.net.ue("carol").await;
    let mut events = bob.stream().await;
    let exchange = carol.post(&message("carol", "bob", "m-2")).await;
    let (id, body) = events.next().await.unwrap();
    assert_eq!(alice.acknowledge(&id, &body).await.0, StatusCode::NOT_FOUND);
    assert_eq!(bob.acknowledge(&id, &body).await.0, StatusCode::NO_CONTENT);
    assert_eq!(carol.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn where_bodies_need_no_protection_auth_is_enough() {
    let https = Https::with(Limits::default(), DeviceLimits::default(), false).await;
    let alice = https.device("alice");
    let reg = Asked { qop: Qop::Auth, ..Asked::post(br#"{"msgType":"REG","ueSvcId":"alice"}"#) };
    assert_eq!(alice.ask(&reg).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn what_is_no_message_is_told_so_in_problem_details() {
    let https = Https::new().await;
    let alice = https.registered("alice").await;
    let (status, problem) = alice.ask(&Asked::post(b"{\"msgType\":")).await;
    assert_eq!((status, problem["cause"].as_str()), (StatusCode::BAD_REQUEST, Some("MALFORMED")));
    assert_eq!(problem["status"], 400);
}

#[tokio::test]
async fn one_device_more_than_there_may_be_is_asked_to_come_back() {
    let devices = DeviceLimits { devices_max: 1, ..DeviceLimits::default() };
    let https = Https::with(Limits::default(), devices, true).await;
    let alice = https.registered("alice").await;
    let bob = https.device("bob");
    let response = bob.proven(&Asked::get("/msgin5g/events")).await;
    assert!(response.headers().contains_key(RETRY_AFTER));
    assert_eq!(said(response).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(alice.register().await.0, StatusCode::CREATED);
}

impl HttpDevice {
    /// Somebody who knows no key, under an A-KID that nobody has.
    pub(super) fn stranger(router: &Router, number: usize) -> Self {
        let a_kid = format!("0.{number:08x}@5gc.mnc001.mcc001.3gppnetwork.org").parse().unwrap();
        Self { router: router.clone(), name: "nobody".to_owned(), a_kid, k_af: KAf::from_bytes([1; 32]) }
    }

    /// What it is told under this nonce.
    pub(super) async fn under(&self, nonce: &str) -> axum::response::Response {
        let asked = Asked::post(b"{}");
        self.send(&asked, Some(&self.credentials(&asked, nonce))).await
    }
}

fn asked(keys: &Keys) -> usize {
    keys.asked.lock().unwrap().len()
}

#[tokio::test]
async fn with_one_nonce_a_stranger_has_few_keys_looked_up() {
    let https = Https::new().await;
    let nonce = HttpDevice::stranger(&https.router, 0).nonce().await;
    let few = usize::try_from(DeviceLimits::default().lookups_per_nonce_max).unwrap();
    for number in 0..few {
        let refused = HttpDevice::stranger(&https.router, number).under(&nonce).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    }
    for number in few..100 {
        let refused = HttpDevice::stranger(&https.router, number).under(&nonce).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert!(challenge_of(&refused).stale, "another nonce is to be had");
    }
    assert_eq!(asked(&https.keys), few);
}

#[tokio::test]
async fn who_guesses_at_the_digest_of_an_a_kid_has_few_keys_looked_up_for_a_nonce_and_the_device_is_served() {
    let https = Https::new().await;
    let alice = https.device("alice");
    let guess = HttpDevice { k_af: KAf::from_bytes([1; 32]), ..alice.clone() };
    let nonce = guess.nonce().await;
    for _ in 0..100 {
        assert_eq!(guess.under(&nonce).await.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(asked(&https.keys), usize::try_from(DeviceLimits::default().lookups_per_nonce_max).unwrap());
    assert_eq!(alice.register().await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn who_has_keys_looked_up_without_end_is_told_to_come_back_and_sessions_go_on() {
    let https = Https::new().await;
    let alice = https.registered("alice").await;
    let mut bob = https.net.ue("bob").await;
    let mut refused = None;
    for number in 0..10_000 {
        let stranger = HttpDevice::stranger(&https.router, number);
        let answer = stranger.under(&stranger.nonce().await).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    let refused = refused.unwrap();
    assert!(refused.headers().contains_key(RETRY_AFTER));
    assert_eq!(said(refused).await.1["cause"], "TOO_MANY_LOOKUPS");
    let sent = message("alice", "bob", "m-1");
    let (answer, received) = tokio::join!(alice.message(&sent), bob.receive());
    assert_eq!((answer.0, received.message_id.as_str()), (StatusCode::OK, "m-1"));
}

#[tokio::test]
async fn what_the_head_of_a_request_refuses_is_refused_before_its_body_comes() {
    let https = Https::new().await;
    let alice = https.device("alice");
    let nonce = alice.nonce().await;
    let credentials = alice.credentials(&Asked::post(b"{}"), &nonce);
    let elsewhere = front(&https.net, DeviceLimits::default(), true);
    let of_another = HttpDevice { router: elsewhere, ..alice.clone() }.nonce().await;
    let nobody = credentials.replace(alice.a_kid.as_str(), "no body");
    let cases = [
        (None, StatusCode::UNAUTHORIZED),
        (Some("Digest x".to_owned()), StatusCode::BAD_REQUEST),
        (Some(credentials.replace("uri=\"/msgin5g\"", "uri=\"/other\"")), StatusCode::BAD_REQUEST),
        (Some(credentials.replace(&nonce, &of_another)), StatusCode::UNAUTHORIZED),
        (Some(nobody), StatusCode::FORBIDDEN),
    ];
    for (authorization, status) in cases {
        let body = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>());
        let mut request =
            HttpRequest::builder().method("POST").uri("/msgin5g").header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4000))));
        let answer = timeout(PATIENCE, https.router.clone().oneshot(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{authorization:?}");
    }
    assert_eq!(asked(&https.keys), 0);
}

#[tokio::test]
async fn k_af_is_asked_for_by_the_protocol_that_the_configuration_says() {
    let https = Https::new().await;
    let alice = https.device("alice");
    for (ua_protocol, identifier) in [("http_digest", "0100000002"), ("cipher_suite", "0100011302")] {
        let section: HttpsSection = toml::from_str(&format!("ua_protocol = \"{ua_protocol}\"")).unwrap();
        let fqdn = "msgin5g.lab.example".parse().unwrap();
        let front = Front::new(&https.net.core, &fqdn, "msgin5g", &section, HttpsMetrics::default()).unwrap();
        let tls =
            sbi::DeviceTls { version: transport::TlsVersion::Tls13, cipher: "TLS_AES_256_GCM_SHA384", suite: 0x1302 };
        let alice = HttpDevice { router: router(&front).layer(axum::Extension(tls)), ..alice.clone() };
        assert_eq!(alice.register().await.0, StatusCode::CREATED);
        let asked = https.keys.asked.lock().unwrap().last().cloned();
        assert_eq!(asked.unwrap().to_string(), format!("msgin5g.lab.example:{identifier}"));
    }
}

#[tokio::test]
async fn a_listener_takes_the_place_of_the_one_before() {
    let https = Https::new().await;
    let alice = https.registered("alice").await;
    let mut first = alice.stream().await;
    let mut second = alice.stream().await;
    assert_eq!(first.next().await, None);
    let mut bob = https.net.ue("bob").await;
    let exchange = bob.post(&message("bob", "alice", "m-1")).await;
    let (id, body) = second.next().await.unwrap();
    assert_eq!(alice.acknowledge(&id, &body).await.0, StatusCode::NO_CONTENT);
    assert_eq!(bob.fate(exchange).await, Fate::delivered());
}

#[tokio::test]
async fn a_device_that_acknowledges_nothing_loses_its_stream_and_no_message() {
    let limits = Limits { delivery_timeout_seconds: 1, ..Limits::default() };
    let https = Https::with(limits, DeviceLimits::default(), true).await;
    let alice = https.registered("alice").await;
    let mut bob = https.net.ue("bob").await;
    let mut events = alice.stream().await;
    let exchange = bob.post(&storable("bob", "alice", "m-1")).await;
    let (lost, _) = events.next().await.unwrap();
    assert_eq!(events.next().await, None);
    assert_eq!(bob.fate(exchange).await, Fate::stored());
    let mut events = alice.stream().await;
    let (id, body) = events.next().await.unwrap();
    assert_ne!(id, lost);
    assert_eq!(alice.acknowledge(&id, &body).await.0, StatusCode::NO_CONTENT);
    until(|| https.net.stored_for("alice") == 0).await;
}
