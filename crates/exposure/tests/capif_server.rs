//! The MSGin5G Server as API exposing function: API invokers are its Application Servers, by each method of CAPIF-2e.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod support;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use http::{Method, StatusCode};
use sbi::capif::connection::{Answer, Connection, Content};
use sbi::capif::invoker::{Agreement, Invoker};
use sbi::capif::publish::{DiscoveryQuery, SecurityMethod};
use sbi::testing::audit::AuditLog;
use sbi::{CertificateFiles, Json, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::{Value, json};
use support::{World, cause, free_address};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "a0000000-0000-4000-8000-000000000002";
const BILLING: &str = "a0000000-0000-4000-8000-000000000006";
const REGISTRATION: &str = "msgs-asregistration";
const DELIVERY: &str = "msgs-msgdelivery";
const REGISTRATIONS: &str = "/msgs-asregistration/v1/registrations";
const SEND: &str = "/msgs-msgdelivery/v1/deliver-as-message";
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that exposes its APIs, published.
struct Exposed {
    running: server::Running,
    api: SocketAddr,
    _directory: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl Exposed {
    /// With an invoker's `alice@lab` of the DNS name alice.example and `bob@lab` of bob.example, and with `billing@lab`, a
    /// network function that is told messages at `billing`.
    async fn start(world: &World) -> Self {
        Self::with(world, |_| {}).await
    }

    async fn with(world: &World, change: impl FnOnce(&mut Value)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (by_certificate, by_psk) = (free_address(), free_address());
        let credential = directory.path().join("credential");
        std::fs::write(&credential, "token of other").unwrap();
        let own = world.authority.issue(SERVER, &[]);
        let mut config = json!({
            "server": {"fqdn": "msgin5g.lab", "listen": "127.0.0.1:0"},
            "certificates": own,
            "akma": {"aanf": "https://127.0.0.1:1"},
            "configuration_function": {"url": "https://127.0.0.1:1"},
            "api": {"listen": "127.0.0.1:0"},
            "authorization": {"mode": "tls"},
            "admin": {"listen": "127.0.0.1:0"},
            "store": {"path": directory.path().join("store")},
            "application_server": [
                {"as_service_id": "alice@lab", "dns_name": "alice.example"},
                {"as_service_id": "bob@lab", "dns_name": "bob.example"},
                {"as_service_id": "billing@lab", "nf_instance_id": BILLING},
            ],
            "capif": {
                "listen": by_certificate,
                "psk_listen": by_psk,
                "aef": {
                    "core_function": world.root(),
                    "issuer": support::ISSUER,
                    "ca": world.ca(),
                    "invoker_ca": world.config.data.join("ca.pem"),
                    "registration_credential": credential,
                    "data": directory.path().join("capif"),
                    "interfaces": [
                        {"ipv4Addr": "127.0.0.1", "port": by_certificate.port(), "securityMethods": ["PKI", "OAUTH"]},
                        {"ipv4Addr": "127.0.0.1", "port": by_psk.port(), "securityMethods": ["PSK"]},
                    ],
                },
            },
        });
        change(&mut config);
        let stop = CancellationToken::new();
        let running = Box::pin(server::start(serde_json::from_value(config).unwrap(), stop.clone())).await.unwrap();
        assert_eq!(running.invoker_address(), Some(by_certificate));
        assert_eq!(running.invoker_psk_address(), Some(by_psk));
        let api = running.api_address();
        Self { running, api, _directory: directory, _stop: stop.drop_guard() }
    }
}

/// The CRL of the CAPIF authority of `world`, made with the openssl command: the certificates of these invokers are on it. In one
/// step: nobody reads half of it.
fn write_crl(world: &World, revoked: &[&Invoker]) -> PathBuf {
    let (folder, data) = (tempfile::tempdir().unwrap(), &world.config.data);
    let path = |name: &str| folder.path().join(name);
    let [index, number, made] = [path("index"), path("number"), path("made")];
    let config = format!(
        "[ca]\ndefault_ca=own\n[own]\ndatabase={}\ncrlnumber={}\ndefault_md=sha256\ndefault_crl_days=1\ncertificate={}\nprivate_key={}\n",
        index.display(),
        number.display(),
        data.join("ca.pem").display(),
        data.join("ca.key").display(),
    );
    for (file, text) in [(&path("config"), config.as_str()), (&index, ""), (&number, "01\n")] {
        std::fs::write(file, text).unwrap();
    }
    let openssl = |arguments: &[&OsStr]| {
        let output =
            Command::new("openssl").arg("ca").arg("-config").arg(path("config")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for invoker in revoked {
        openssl(&["-revoke".as_ref(), invoker.files().certificate.as_os_str()]);
    }
    openssl(&["-gencrl".as_ref(), "-out".as_ref(), made.as_os_str()]);
    let crl = world.directory.path().join("capif.crl");
    std::fs::copy(made, crl.with_extension("new")).unwrap();
    std::fs::rename(crl.with_extension("new"), &crl).unwrap();
    crl
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_on_the_crl_of_its_authority_gets_no_connection_at_the_server_and_a_changed_crl_is_followed() {
    let log = AuditLog::record();
    let world = World::new().await;
    let exposed = Exposed::with(&world, |config| {
        config["capif"]["crl"] = json!(write_crl(&world, &[]));
        config["capif"]["limits"] = json!({"reload_interval_seconds": 1, "reverify_interval_seconds": 1});
    })
    .await;
    let (alice, bob) = (world.onboard("alice").await, world.onboard("bob").await);
    published(&alice).await;
    let mut ways = Vec::new();
    for invoker in [&alice, &bob] {
        let agreement = invoker.negotiate(REGISTRATION, vec![SecurityMethod::Pki]).await.unwrap();
        let name = if invoker.id() == alice.id() { "alice@lab" } else { "bob@lab" };
        let answer = post_as(invoker, &agreement, REGISTRATIONS, &json!({"asSvcId": name})).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.problem());
        ways.push((agreement, name));
    }
    let call = async |invoker: &Invoker, way: &(Agreement, &str)| {
        let body = Content::Json(json!({"asSvcId": way.1}).to_string().into_bytes());
        invoker.call(&way.0, Method::POST, REGISTRATIONS, body).await.map(|answer| answer.status)
    };

    let _ = write_crl(&world, &[&alice]);
    let address = exposed.running.invoker_address().unwrap().to_string();
    let refused = [
        ("action", "connect"),
        ("object", address.as_str()),
        ("outcome", "refused"),
        ("reason", "certificate_revoked"),
    ];
    // A connection that is open in the moment is withdrawn; the next is refused in its handshake.
    let gone = async {
        while call(&alice, &ways[0]).await.is_ok() || log.with(&refused).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert!(call(&bob, &ways[1]).await.is_ok(), "who is not on it stays");
}

/// Waits until `invoker` finds the APIs.
async fn published(invoker: &Invoker) {
    let all = async {
        loop {
            let found = invoker.discover(DiscoveryQuery::default()).await.unwrap();
            let names: Vec<_> = found.service_api_descriptions.into_iter().flatten().map(|api| api.api_name).collect();
            if names.len() == 3 {
                assert!(names.iter().any(|name| name == REGISTRATION) && names.iter().any(|name| name == DELIVERY));
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
}

async fn post_as(invoker: &Invoker, agreement: &Agreement, path: &str, body: &Value) -> Answer {
    invoker.call(agreement, Method::POST, path, Content::Json(body.to_string().into_bytes())).await.unwrap()
}

async fn register(invoker: &Invoker, method: SecurityMethod, name: &str) -> Answer {
    let agreement = invoker.negotiate(REGISTRATION, vec![method]).await.unwrap();
    post_as(invoker, &agreement, REGISTRATIONS, &json!({"asSvcId": name})).await
}

fn message(from: &str, id: &str) -> Value {
    json!({
        "oriAddr": {"addrType": "AS", "addr": from}, "destAddr": {"addrType": "AS", "addr": "billing@lab"},
        "msgId": id, "payload": "aGVsbG8=", "stoAndFwInd": false,
    })
}

/// Registers `billing@lab` as the network function that it is, and gives what is delivered to it.
async fn billing(world: &World, exposed: &Exposed) -> mpsc::UnboundedReceiver<Value> {
    let (told, delivered) = mpsc::unbounded_channel();
    let take = async move |Json(body): Json<Value>| {
        told.send(body).unwrap();
        StatusCode::NO_CONTENT
    };
    let router = Router::new().route("/in/{operation}", post(take));
    let listen = ([127, 0, 0, 1], 0).into();
    let tls = world.authority.issue(BILLING, &[]);
    let config = SbiServerConfig { listen, tls, limits: ServerLimits::default() };
    let target = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    let registration = json!({"asSvcId": "billing@lab", "targetUri": format!("https://{}/in", target.local_addr())});
    let uri = format!("https://{}{REGISTRATIONS}", exposed.api);
    world.authority.client(BILLING).post::<_, Value>(&uri, &registration).await.unwrap();
    delivered
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_is_an_application_server_by_pki_oauth_and_psk() {
    let world = World::new().await;
    let exposed = Exposed::start(&world).await;
    let invoker = world.onboard_tls12("alice").await;
    published(&invoker).await;
    let mut delivered = billing(&world, &exposed).await;
    for method in [SecurityMethod::Pki, SecurityMethod::Oauth, SecurityMethod::Psk] {
        let answer = register(&invoker, method.clone(), "alice@lab").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{method:?}: {}", answer.problem());
        let agreement = invoker.negotiate(DELIVERY, vec![method.clone()]).await.unwrap();
        assert_eq!(agreement.method, method);
        let id = format!("by-{method:?}");
        let answer = post_as(&invoker, &agreement, SEND, &message("alice@lab", &id)).await;
        assert_eq!(answer.status, StatusCode::OK, "{method:?}: {}", answer.problem());
        let arrived = tokio::time::timeout(PATIENCE, delivered.recv()).await.unwrap().unwrap();
        assert_eq!((&arrived["msgId"], &arrived["oriAddr"]["addr"]), (&json!(id), &json!("alice@lab")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_is_no_other_application_server_and_uses_no_other_api() {
    let world = World::new().await;
    let exposed = Exposed::start(&world).await;
    let invoker = world.onboard("alice").await;
    published(&invoker).await;
    let pki = SecurityMethod::Pki;
    for name in ["bob@lab", "billing@lab"] {
        let answer = register(&invoker, pki.clone(), name).await;
        assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "ORIGINATOR_NOT_ALLOWED"));
    }
    assert_eq!(register(&invoker, pki.clone(), "alice@lab").await.status, StatusCode::CREATED);
    let agreement = invoker.negotiate(DELIVERY, vec![pki]).await.unwrap();
    let answer = post_as(&invoker, &agreement, SEND, &message("bob@lab", "1")).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "ORIGINATOR_NOT_ALLOWED"));
    // Agreed upon is the delivery of messages now, and no registration.
    let answer = post_as(&invoker, &agreement, REGISTRATIONS, &json!({"asSvcId": "alice@lab"})).await;
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "API_NOT_ALLOWED"));
    invoker.offboard().await.unwrap();
    let refused = async {
        while cause(&post_as(&invoker, &agreement, SEND, &message("alice@lab", "2")).await) != "INVOKER_NOT_TRUSTED" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(exposed.running.invoker_address().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_capif_and_of_network_functions_open_their_own_doors_only() {
    let world = World::new().await;
    let exposed = Exposed::start(&world).await;
    let invoker = world.onboard("alice").await;
    published(&invoker).await;
    let by_certificate = format!("https://{}", exposed.running.invoker_address().unwrap());
    let body = json!({"asSvcId": "alice@lab"});
    let ask = async |files: &CertificateFiles, root: &str| {
        let tls = transport::profile::mutual_tls_client(files).unwrap();
        let mut connection = Connection::open(&tls, root).await?;
        let content = Content::Json(body.to_string().into_bytes());
        connection.request(Method::POST, REGISTRATIONS, None, content).await
    };
    assert!(ask(&world.authority.issue(BILLING, &[]), &by_certificate).await.is_err());
    assert!(ask(invoker.files(), &format!("https://{}", exposed.api)).await.is_err());
    // A provider's function is no invoker.
    let _aef = world.aef("nef", &[support::API], 30).await;
    let answer = ask(&support::provider_files(&world, "nef", "aef"), &by_certificate).await.unwrap();
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "NOT_AN_INVOKER"));
    // And an invoker that has agreed on nothing is none yet.
    let answer = ask(invoker.files(), &by_certificate).await.unwrap();
    assert_eq!((answer.status, cause(&answer).as_str()), (StatusCode::FORBIDDEN, "INVOKER_NOT_TRUSTED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_follows_its_policy_file_while_it_runs() {
    let world = World::new().await;
    let path = world.directory.path().join("server-policy.toml");
    let write = |rules: &[(&str, &str)]| {
        let of = |(id, name): &(&str, &str)| {
            format!("[[application_server]]\nas_service_id = \"{id}\"\ndns_name = \"{name}\"\n")
        };
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, rules.iter().map(of).collect::<String>()).unwrap();
        std::fs::rename(fresh, &path).unwrap();
    };
    write(&[("alice@lab", "alice.example")]);
    let _exposed = Exposed::with(&world, |config| {
        config.as_object_mut().unwrap().remove("application_server");
        config["policy"] = json!(path);
    })
    .await;
    let (alice, bob) = (world.onboard("alice").await, world.onboard("bob").await);
    published(&alice).await;
    let registered = async |invoker: &Invoker, name: &str| register(invoker, SecurityMethod::Pki, name).await;
    assert_eq!(registered(&alice, "alice@lab").await.status, StatusCode::CREATED);
    let refused = registered(&bob, "bob@lab").await;
    assert_eq!((refused.status, cause(&refused).as_str()), (StatusCode::FORBIDDEN, "ORIGINATOR_NOT_ALLOWED"));
    write(&[("bob@lab", "bob.example")]);
    let admitted = async {
        while registered(&bob, "bob@lab").await.status != StatusCode::CREATED {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.unwrap();
    let refused = registered(&alice, "alice@lab").await;
    assert_eq!((refused.status, cause(&refused).as_str()), (StatusCode::FORBIDDEN, "ORIGINATOR_NOT_ALLOWED"));
}
