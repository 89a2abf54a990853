//! A CAPIF core function, an API exposing function and an invoker's surroundings, over real sockets on loopback.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, unreachable_pub, reason = "for tests only")]

#[path = "../common/ports.rs"]
mod ports;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::routing::post;
use axum::{Extension, Router};
use exposure::DurableCounts;
use exposure::capif::{self, Config, OnboardingCredential, PolicyFile, RegistrationCredential};
use http::{Method, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sbi::audit::Audit;
use sbi::capif::aef::{AefConfig, AefLimits, CapifInvoker, ExposedApi, ExposingFunction};
use sbi::capif::connection::{Answer, Connection, Content};
use sbi::capif::invoker::{Invoker, InvokerConfig};
use sbi::capif::publish::{InterfaceDescription, SecurityMethod};
use sbi::testing::TestAuthority;
use sbi::{CertificateFiles, Json, SbiServer, SbiServerConfig, ServerLimits, ServerMetrics};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use transport::ApiPskAcceptor;

pub use ports::free_address;

pub const CORE: &str = "00000000-0000-4000-8000-0000000000c0";
pub const AEF: &str = "00000000-0000-4000-8000-0000000000a0";
pub const ISSUER: &str = "capif-core";
pub const API: &str = "3gpp-akma";
pub const OTHER_API: &str = "msgs-msgdelivery";

/// The surroundings of a test.
pub struct World {
    pub authority: TestAuthority,
    pub directory: TempDir,
    pub core_address: SocketAddr,
    /// Where notifications are taken, if a test has them taken: below one of the prefixes where they may go.
    pub notification_address: SocketAddr,
    pub core: Option<(capif::Running, CancellationToken)>,
    pub notified: Notified,
    pub config: Config,
    /// Of the API exposing functions that are started.
    pub aef_limits: AefLimits,
    policy_directory: Option<TempDir>,
    counts: Mutex<HashMap<String, Arc<DurableCounts>>>,
}

/// What was posted to the notification destination.
#[derive(Clone, Default)]
pub struct Notified(Arc<Mutex<Vec<(String, Value)>>>);

impl Notified {
    /// Waits until something was posted to `path` that `is` it.
    pub async fn wait(&self, path: &str, is: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..2400 {
            let found = self.0.lock().unwrap().iter().find(|(at, body)| at == path && is(body)).cloned();
            if let Some((_, body)) = found {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("nothing came to {path}: {:?}", self.0.lock().unwrap());
    }

    pub fn all(&self, path: &str) -> Vec<Value> {
        self.0.lock().unwrap().iter().filter(|(at, _)| at == path).map(|(_, body)| body.clone()).collect()
    }
}

pub fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|octet| format!("{octet:02x}")).collect()
}

pub fn onboarding(name: &str) -> OnboardingCredential {
    OnboardingCredential {
        name: name.to_owned(),
        token_sha256: sha256(&format!("token of {name}")),
        dns_names: vec![format!("{name}.example")],
        apis: Vec::new(),
        allowed_total_invocations: None,
        allowed_invocations_per_second: None,
        allowed_times: Vec::new(),
    }
}

fn write_policy(path: &std::path::Path, policy: &PolicyFile) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, toml::to_string(policy).unwrap()).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

pub fn registered(name: &str) -> RegistrationCredential {
    RegistrationCredential {
        name: name.to_owned(),
        token_sha256: sha256(&format!("token of {name}")),
        dns_names: Vec::new(),
        apis: Vec::new(),
        may_audit: true,
    }
}

impl World {
    /// A core function with credentials for the invokers `alice` and `bob` and the providers `nef` and `other`.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let authority = TestAuthority::new();
        let directory = tempfile::tempdir().unwrap();
        let core_address = free_address();
        let notification_address = free_address();
        let text = json!({
            "listen": core_address, "data": directory.path().join("core"), "tls": authority.issue(CORE, &[]),
        });
        let mut config: Config = serde_json::from_value(text).unwrap();
        config.onboardings = vec![onboarding("alice"), onboarding("bob")];
        config.registrations = vec![registered("nef"), registered("other")];
        config.notification_prefixes =
            vec!["https://127.0.0.1:1".to_owned(), format!("https://{notification_address}")];
        change(&mut config);
        let mut world = Self {
            notified: Notified::default(),
            core: None,
            config,
            core_address,
            notification_address,
            directory,
            authority,
            aef_limits: AefLimits::default(),
            policy_directory: None,
            counts: Mutex::default(),
        };
        world.start_core().await;
        world
    }

    /// The same, with the entries in a policy file.
    pub async fn with_policy_file(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        let mut world = Self::with(|config| {
            change(config);
            let (onboardings, registrations) =
                (std::mem::take(&mut config.onboardings), std::mem::take(&mut config.registrations));
            write_policy(&path, &PolicyFile { onboardings, registrations });
            config.policy = Some(path.clone());
        })
        .await;
        world.policy_directory = Some(directory);
        world
    }

    /// Changes the policy file, in one step.
    pub fn change_policy(&self, change: impl FnOnce(&mut PolicyFile)) {
        let path = self.config.policy.as_ref().unwrap();
        let mut policy: PolicyFile = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        change(&mut policy);
        write_policy(path, &policy);
    }

    pub async fn start_core(&mut self) {
        let shutdown = CancellationToken::new();
        let running = capif::start(self.config.clone(), shutdown.clone()).await.unwrap();
        self.core = Some((running, shutdown));
    }

    pub async fn stop_core(&mut self) {
        let (running, shutdown) = self.core.take().unwrap();
        shutdown.cancel();
        running.stopped().await;
        drop(running);
        // Connections of others to it are gone; its database closes when the last of its tasks has.
        for _ in 0..200 {
            if capif_is_closed(&self.config.data) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The core function's metrics, where the test has it serve them.
    pub fn metrics(&self) -> String {
        let admin = self.core.as_ref().unwrap().0.admin_addr().unwrap();
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    pub fn root(&self) -> String {
        format!("https://{}", self.core_address)
    }

    /// The authorities of everybody's server certificates.
    pub fn ca(&self) -> PathBuf {
        self.authority.ca()
    }

    /// A server that takes notifications at `/<name>`; gives its root.
    pub async fn notification_server(&self) -> String {
        let notified = self.notified.clone();
        let take = async move |axum::extract::Path(path): axum::extract::Path<String>, Json(body): Json<Value>| {
            notified.0.lock().unwrap().push((path, body));
            StatusCode::NO_CONTENT
        };
        let config = SbiServerConfig {
            listen: self.notification_address,
            tls: self.authority.issue("00000000-0000-4000-8000-0000000000d0", &[]),
            limits: ServerLimits::default(),
        };
        let router = Router::new().route("/{*path}", post(take));
        let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
        format!("https://{}", server.local_addr())
    }

    pub fn invoker_config(&self, name: &str, tls12: bool) -> InvokerConfig {
        let directory = self.directory.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        InvokerConfig {
            core_function: self.root(),
            ca: self.ca(),
            directory,
            notification_destination: format!("https://127.0.0.1:1/{name}"),
            tls12,
        }
    }

    pub async fn onboard(&self, name: &str) -> Invoker {
        Invoker::onboard(self.invoker_config(name, false), &format!("token of {name}")).await.unwrap()
    }

    pub async fn onboard_tls12(&self, name: &str) -> Invoker {
        Invoker::onboard(self.invoker_config(name, true), &format!("token of {name}")).await.unwrap()
    }

    /// The API exposing function of provider `name`, with `apis`; published when this returns.
    pub async fn aef(&self, name: &str, apis: &[&'static str], check_interval_seconds: u64) -> Aef {
        let (by_certificate, by_psk) = (free_address(), free_address());
        let shutdown = CancellationToken::new();
        let aef = Aef {
            function: self.function(name, apis, check_interval_seconds, by_certificate, by_psk, &shutdown),
            by_certificate,
            by_psk,
            shutdown,
        };
        tokio::time::timeout(Duration::from_secs(20), aef.function.published()).await.unwrap();
        let router = aef.function.protect(Router::new().route("/{api}/v1/retrieve", post(echo)));
        let router = router.merge(aef.function.routes());
        // Invokers and the core function come with certificates of the core function's authority; others are trusted, too.
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let ca = self.directory.path().join(format!("{name}-clients.pem"));
        std::fs::write(&ca, [read(self.config.data.join("ca.pem")), read(self.ca())].concat()).unwrap();
        let tls = CertificateFiles { ca, ..self.authority.issue(AEF, &[]) };
        let config = SbiServerConfig { listen: by_certificate, tls, limits: ServerLimits::default() };
        SbiServer::start_admitting(config, router.clone(), aef.shutdown.clone(), ServerMetrics::default())
            .await
            .unwrap();
        let acceptor = ApiPskAcceptor::new(Arc::new(aef.function.clone())).unwrap();
        let limits = ServerLimits::default();
        SbiServer::start_psk(by_psk, limits, acceptor, router, aef.shutdown.clone(), ServerMetrics::default())
            .await
            .unwrap();
        aef
    }

    pub fn function(
        &self,
        name: &str,
        apis: &[&'static str],
        check_interval_seconds: u64,
        by_certificate: SocketAddr,
        by_psk: SocketAddr,
        shutdown: &CancellationToken,
    ) -> ExposingFunction {
        let credential = self.directory.path().join(format!("{name}.credential"));
        std::fs::write(&credential, format!("token of {name}\n")).unwrap();
        let methods = |address, methods: &[SecurityMethod]| InterfaceDescription {
            security_methods: Some(methods.to_vec()),
            ..InterfaceDescription::at(address)
        };
        let config = AefConfig {
            core_function: self.root(),
            issuer: ISSUER.to_owned(),
            ca: self.ca(),
            invoker_ca: self.config.data.join("ca.pem"),
            registration_credential: credential,
            data: self.directory.path().join(format!("{name}-capif")),
            interfaces: vec![
                methods(by_certificate, &[SecurityMethod::Pki, SecurityMethod::Oauth]),
                methods(by_psk, &[SecurityMethod::Psk]),
            ],
            check_interval_seconds,
            limits: self.aef_limits.clone(),
        };
        let apis = apis
            .iter()
            .map(|name| ExposedApi { name, version: "v1", description: "of a test", resources: Vec::new() })
            .collect();
        let counts = self.counts(name);
        ExposingFunction::start(config, apis, Audit::default(), counts, shutdown.clone()).unwrap()
    }

    /// Where the counts of provider `name` are kept. What a process that was ended leaves on disk is what is there: each
    /// start reads it anew.
    pub fn counts(&self, name: &str) -> Arc<DurableCounts> {
        let mut counts = self.counts.lock().unwrap();
        let open = || {
            let directory = self.directory.path().join(format!("{name}-counts"));
            Arc::new(DurableCounts::open(&directory).unwrap())
        };
        Arc::clone(counts.entry(name.to_owned()).or_insert_with(open))
    }
}

fn capif_is_closed(data: &std::path::Path) -> bool {
    std::fs::File::options().write(true).open(data.join("lock")).is_ok_and(|file| file.try_lock().is_ok())
}

async fn echo(Extension(invoker): Extension<CapifInvoker>) -> Json<Value> {
    Json(json!({"id": invoker.id, "names": invoker.names, "api": invoker.api_name}))
}

/// How many decisions with this outcome and reason `metrics` tell of.
pub fn decisions(metrics: &str, outcome: &str, reason: &str) -> u64 {
    let name = format!("sbi_authorizations_total{{outcome=\"{outcome}\",reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// A running API exposing function.
pub struct Aef {
    pub function: ExposingFunction,
    pub by_certificate: SocketAddr,
    pub by_psk: SocketAddr,
    pub shutdown: CancellationToken,
}

impl Aef {
    /// What its audit counted.
    pub fn audit_metrics(&self) -> String {
        let mut registry = Registry::default();
        self.function.audit().register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }
}

/// Calls `api` as agreed for [`API`].
pub async fn call(invoker: &Invoker, method: SecurityMethod) -> Answer {
    let agreement = invoker.negotiate(API, vec![method.clone()]).await.unwrap();
    assert_eq!(agreement.method, method);
    invoker.call(&agreement, Method::POST, RETRIEVE, Content::Json(b"{}".to_vec())).await.unwrap()
}

/// Sends one request to the core function as `files`.
pub async fn request(world: &World, files: &CertificateFiles, method: Method, path: &str, body: Value) -> Answer {
    let tls = transport::profile::mutual_tls_client(files).unwrap();
    let mut connection = Connection::open(&tls, &world.root()).await.unwrap();
    let content = match (&body, &method) {
        (Value::Null, _) => Content::Empty,
        (_, &Method::PATCH) => Content::MergePatch(body.to_string().into_bytes()),
        _ => Content::Json(body.to_string().into_bytes()),
    };
    connection.request(method, path, None, content).await.unwrap()
}

/// Subscribes the holder of `files`, whose identifier is `id`.
pub async fn subscribe(world: &World, files: &CertificateFiles, id: &str, subscription: Value) -> Answer {
    request(world, files, Method::POST, &format!("/capif-events/v1/{id}/subscriptions"), subscription).await
}

/// The body of an answer.
pub fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
}

/// The cause of a refusal.
pub fn cause(answer: &Answer) -> String {
    answer.problem().cause.map(String::from).unwrap_or_default()
}

/// Certificate and key of function `role` of provider `name`.
pub fn provider_files(world: &World, name: &str, role: &str) -> CertificateFiles {
    let data = world.directory.path().join(format!("{name}-capif"));
    CertificateFiles {
        certificate: data.join(format!("{role}.pem")),
        key: data.join(format!("{role}.key")),
        ca: world.ca(),
        crl: None,
    }
}

/// Identifier of function `role` of provider `name`, as its certificate has it.
pub fn function_id(world: &World, name: &str, role: &str) -> String {
    let certificate = std::fs::read(provider_files(world, name, role).certificate).unwrap();
    let certificate = openssl::x509::X509::from_pem(&certificate).unwrap();
    let names = certificate.subject_alt_names().unwrap();
    let prefix = format!("capif:{role}:");
    names.iter().filter_map(|name| name.uri()?.strip_prefix(&prefix)).next().unwrap().to_owned()
}

/// What provider `name` wrote down when it was registered.
pub fn registration(world: &World, name: &str) -> Value {
    let path = world.directory.path().join(format!("{name}-capif/registration.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub const RETRIEVE: &str = "/3gpp-akma/v1/retrieve";
