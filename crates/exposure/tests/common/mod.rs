//! A NEF between two sides that do not trust each other's authorities: AAnF and MSGin5G Server inside, both the real ones,
//! and application functions outside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, unreachable_pub)]

mod ports;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use exposure::{Config, Running};
use http::StatusCode;
use sbi::client_credentials::ClientCredentials;
use sbi::naanf::{AkmaKeyInfo, NaanfClient};
use sbi::testing::TestAuthority;
use sbi::{
    CertificateFiles, ClientLimits, Json, ProblemDetails, SbiClient, SbiClientConfig, SbiServer, SbiServerConfig,
    ServerLimits,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use ports::free_address;

pub const NEF: &str = "a0000000-0000-4000-8000-000000000001";
pub const SERVER: &str = "a0000000-0000-4000-8000-000000000002";
pub const AANF: &str = "a0000000-0000-4000-8000-000000000003";
pub const AUSF: &str = "a0000000-0000-4000-8000-000000000004";
pub const UDM: &str = "a0000000-0000-4000-8000-000000000005";
pub const INSIDE_AS: &str = "a0000000-0000-4000-8000-000000000006";
pub const STRANGER: &str = "a0000000-0000-4000-8000-000000000007";

pub const SUPI: &str = "imsi-001010000000001";
pub const GPSI: &str = "msisdn-99900000001";
pub const A_KID: &str = "0.a4763ff6@5gc.mnc001.mcc001.3gppnetwork.org";
/// Chain 1 of our vectors.
pub const K_AKMA: &str = "176cdc89b8bc8634d912bf84cb7ed7b85afe1b8802afa110d1100a881df659a3";

/// How long what must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything, running.
pub struct World {
    pub inside: TestAuthority,
    pub outside: TestAuthority,
    pub directory: TempDir,
    pub nef_config: String,
    pub nef: Option<(Running, CancellationToken)>,
    pub server: Option<(server::Running, CancellationToken)>,
    server_config: String,
    aanf: aanf::Running,
    _udm: SbiServer,
    pub shutdown: CancellationToken,
}

/// What the NEF's configuration says of application functions, unless a test says otherwise.
pub const AFS: &str = r#"
[[nef.af]]
af_id = "weather"
dns_name = "weather.example"
fqdns = ["weather.example"]
gpsi_access = true
as_service_ids = ["weather@example"]
may_address = ["AS:billing@lab", "UE:*@lab", "TOPIC:lab/*"]
may_subscribe = ["lab/*"]
[[nef.af]]
af_id = "parking"
dns_name = "parking.example"
fqdns = ["parking.example"]
as_service_ids = ["parking@example"]
may_address = ["AS:billing@lab"]
[[nef.af]]
af_id = "hasty"
dns_name = "hasty.example"
fqdns = ["hasty.example"]
requests_per_second = 1
requests_burst = 2
"#;

impl World {
    pub async fn start() -> Self {
        Box::pin(Self::start_with(AFS, false)).await
    }

    /// With these application functions; `supi_only`: the AAnF tells the NEF a SUPI and no GPSI.
    pub async fn start_with(afs: &str, supi_only: bool) -> Self {
        let (inside, outside) = (TestAuthority::new(), TestAuthority::new());
        let directory = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let udm = start_udm(&inside, shutdown.clone()).await;
        let udm_root = format!("https://{}", udm.local_addr());
        let nef_inside = free_address();
        let aanf = start_aanf(&inside, directory.path(), &udm_root, (supi_only, nef_inside), shutdown.clone()).await;
        let aanf_root = format!("https://{}", aanf.local_addr());
        register_key(&inside, &aanf_root).await;
        let server_listen = free_address();
        let server_config = server_config(&inside, directory.path(), server_listen, nef_inside, &aanf_root);
        let nef_config = nef_config(
            &inside,
            &outside,
            directory.path(),
            &NefPeers { aanf: &aanf_root, udm: &udm_root, server: server_listen, inside: nef_inside },
            afs,
        );
        let mut world = Self {
            inside,
            outside,
            directory,
            nef_config,
            nef: None,
            server: None,
            server_config,
            aanf,
            _udm: udm,
            shutdown,
        };
        world.start_server().await;
        world.start_nef().await;
        world
    }

    pub async fn start_nef(&mut self) {
        let config: Config = toml::from_str(&self.nef_config).unwrap();
        let stop = self.shutdown.child_token();
        self.nef = Some((Box::pin(exposure::start(config, stop.clone())).await.unwrap(), stop));
    }

    pub async fn stop_nef(&mut self) {
        let (running, stop) = self.nef.take().unwrap();
        stop.cancel();
        running.stopped().await;
    }

    pub async fn start_server(&mut self) {
        let config = toml::from_str(&self.server_config).unwrap();
        let stop = self.shutdown.child_token();
        self.server = Some((Box::pin(server::start(config, stop.clone())).await.unwrap(), stop));
    }

    pub async fn stop_server(&mut self) {
        let (running, stop) = self.server.take().unwrap();
        stop.cancel();
        running.stopped().await;
    }

    /// As the AUSF does when the UE leaves.
    pub async fn remove_context(&self) {
        let aanf = format!("https://{}", self.aanf.local_addr());
        let supi = SUPI.parse().unwrap();
        NaanfClient::new(self.inside.client(AUSF), aanf).remove_context(&supi).await.unwrap();
    }

    pub fn nef(&self) -> String {
        format!("https://{}", self.nef.as_ref().unwrap().0.nef().unwrap().local_addr())
    }

    /// The value of one metric of the NEF; 0 where it is not there yet.
    pub fn nef_metric(&self, name: &str) -> u64 {
        let admin = self.nef.as_ref().unwrap().0.nef().unwrap().admin_addr().unwrap();
        let mut stream = std::net::TcpStream::connect(admin).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    pub fn nef_inside(&self) -> String {
        format!("https://{}", self.nef.as_ref().unwrap().0.nef().unwrap().inside_addr().unwrap())
    }

    pub fn server_api(&self) -> String {
        format!("https://{}", self.server.as_ref().unwrap().0.api_address())
    }

    /// A certificate outside; its peers' authority is the operator's.
    pub fn certificate(&self, name: &str) -> CertificateFiles {
        // The file's name is the certificate's; an AF has no NF instance.
        let own = self.outside.issue(name, &[&format!("{name}.example")]);
        CertificateFiles { ca: self.inside.ca(), ..own }
    }

    /// An application function outside, known by its certificate.
    pub fn af(&self, name: &str) -> Af {
        Af::new(self.nef(), self.certificate(name), name)
    }

    /// The AS inside, registered at the server; what it is sent arrives here.
    pub async fn inside_as(&self) -> (SbiClient, mpsc::UnboundedReceiver<(String, Value)>) {
        let target = Target::start(&self.inside.issue(INSIDE_AS, &[]), self.shutdown.clone()).await;
        let client = self.inside.client(INSIDE_AS);
        let registration = json!({"asSvcId": "billing@lab", "targetUri": target.root});
        let registered: sbi::SbiResponse<Value> = client
            .post(&format!("{}/msgs-asregistration/v1/registrations", self.server_api()), &registration)
            .await
            .unwrap();
        assert_eq!(registered.status, StatusCode::CREATED);
        (client, target.deliveries)
    }

    /// A message of the AS inside to the AS outside; what the server answers.
    pub async fn send_inside_out(&self, client: &SbiClient, message_id: &str) -> Value {
        let uri = format!("{}/msgs-msgdelivery/v1/deliver-as-message", self.server_api());
        let message = message("billing@lab", ("AS", "weather@example"), message_id);
        client.post::<_, Value>(&uri, &message).await.unwrap().into_body().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An application function outside.
pub struct Af {
    pub nef: String,
    pub http: SbiClient,
    pub files: CertificateFiles,
    client_id: String,
}

impl Af {
    fn new(nef: String, files: CertificateFiles, client_id: &str) -> Self {
        let http = SbiClient::new(SbiClientConfig { tls: files.clone(), limits: ClientLimits::default() }).unwrap();
        Self { nef, http, files, client_id: client_id.to_owned() }
    }

    /// The client with its tokens, of `scope` if given.
    pub fn with_tokens(&self, scope: Option<&str>) -> SbiClient {
        let endpoint = format!("{}/oauth2/token", self.nef);
        let credentials =
            ClientCredentials::new(self.http.clone(), endpoint, self.client_id.clone(), scope.map(str::to_owned));
        self.http.clone().with_tokens(Arc::new(credentials)).for_service("NEF", "")
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<sbi::SbiResponse<Value>, sbi::SbiError> {
        self.with_tokens(None).post(&format!("{}{path}", self.nef), body).await
    }

    pub async fn register(&self, as_service_id: &str, target: &str) -> Result<sbi::SbiResponse<Value>, sbi::SbiError> {
        self.post("/msgs-asregistration/v1/registrations", &json!({"asSvcId": as_service_id, "targetUri": target}))
            .await
    }

    pub async fn send(
        &self,
        as_service_id: &str,
        to: (&str, &str),
        message_id: &str,
    ) -> Result<sbi::SbiResponse<Value>, sbi::SbiError> {
        self.post("/msgs-msgdelivery/v1/deliver-as-message", &message(as_service_id, to, message_id)).await
    }
}

/// Where an AS takes what is delivered to it. Its answer can be changed.
pub struct Target {
    pub root: String,
    pub deliveries: mpsc::UnboundedReceiver<(String, Value)>,
    pub answer: Arc<Mutex<(u16, Option<Value>)>>,
    _server: SbiServer,
}

type TargetState = (mpsc::UnboundedSender<(String, Value)>, Arc<Mutex<(u16, Option<Value>)>>);

impl Target {
    pub async fn start(tls: &CertificateFiles, shutdown: CancellationToken) -> Self {
        Self::start_at(tls, free_address(), shutdown).await
    }

    pub async fn start_at(tls: &CertificateFiles, listen: SocketAddr, shutdown: CancellationToken) -> Self {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let answer = Arc::new(Mutex::new((204, None)));
        let router = Router::new().route("/in/{operation}", post(take)).with_state((sender, Arc::clone(&answer)));
        let config = SbiServerConfig { listen, tls: tls.clone(), limits: ServerLimits::default() };
        let server = SbiServer::start(config, router, shutdown).await.unwrap();
        Self { root: format!("https://{}/in", server.local_addr()), deliveries, answer, _server: server }
    }
}

async fn take(
    State((sender, answer)): State<TargetState>,
    axum::extract::Path(operation): axum::extract::Path<String>,
    Json(body): Json<Value>,
) -> Response {
    let (status, ack) = answer.lock().unwrap().clone();
    if status < 300 {
        let _ = sender.send((operation, body));
    }
    let status = StatusCode::from_u16(status).unwrap();
    match ack {
        Some(ack) => (status, Json(ack)).into_response(),
        None => status.into_response(),
    }
}

pub fn message(from: &str, to: (&str, &str), message_id: &str) -> Value {
    json!({
        "oriAddr": {"addrType": "AS", "addr": from},
        "destAddr": {"addrType": to.0, "addr": to.1},
        "msgId": message_id,
        "payload": "aGVsbG8=",
        "stoAndFwInd": true,
    })
}

pub fn problem(error: sbi::SbiError) -> ProblemDetails {
    match error {
        sbi::SbiError::Problem(problem) => *problem,
        other => panic!("no answer: {other}"),
    }
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(outcome: Result<T, sbi::SbiError>, status: u16, cause: &str) -> ProblemDetails {
    let problem = problem(outcome.unwrap_err());
    assert_eq!((problem.status, problem.cause.as_deref()), (Some(status), Some(cause)), "{problem:?}");
    problem
}

fn toml_of(files: &CertificateFiles) -> String {
    let path = |path: &Path| path.display().to_string();
    format!(
        "{{ certificate = {:?}, key = {:?}, ca = {:?} }}",
        path(&files.certificate),
        path(&files.key),
        path(&files.ca)
    )
}

async fn start_udm(authority: &TestAuthority, shutdown: CancellationToken) -> SbiServer {
    let answer = async || Json(json!({"supi": SUPI, "gpsi": GPSI}));
    let router = Router::new().route("/nudm-sdm/v2/{supi}/id-translation-result", get(answer));
    let tls = authority.issue(UDM, &[]);
    let config = SbiServerConfig { listen: free_address(), tls, limits: ServerLimits::default() };
    SbiServer::start(config, router, shutdown).await.unwrap()
}

async fn start_aanf(
    authority: &TestAuthority,
    directory: &Path,
    udm: &str,
    (supi_only, nef_inside): (bool, SocketAddr),
    shutdown: CancellationToken,
) -> aanf::Running {
    let config = toml::from_str(&format!(
        r#"
        listen = "127.0.0.1:0"
        data = "{}/aanf"
        tls = {}
        authorization = {{ mode = "tls" }}
        udm = {{ root = "{udm}" }}
        [[af]]
        nf_instance_id = "{AUSF}"
        may_register = true
        [[af]]
        nf_instance_id = "{NEF}"
        fqdns = ["weather.example", "parking.example", "hasty.example"]
        supi_access = {supi_only}
        notification_uris = ["https://{nef_inside}"]
        [notifications]
        retry_initial_milliseconds = 20
        "#,
        directory.display(),
        toml_of(&authority.issue(AANF, &[])),
    ))
    .unwrap();
    aanf::start(config, shutdown).await.unwrap()
}

async fn register_key(authority: &TestAuthority, aanf: &str) {
    let info: AkmaKeyInfo = serde_json::from_value(json!({"supi": SUPI, "aKId": A_KID, "kAkma": K_AKMA})).unwrap();
    NaanfClient::new(authority.client(AUSF), aanf).register_anchorkey(&info).await.unwrap();
}

fn server_config(
    authority: &TestAuthority,
    directory: &Path,
    listen: SocketAddr,
    nef_inside: SocketAddr,
    aanf: &str,
) -> String {
    format!(
        r#"
        [server]
        fqdn = "msgin5g.lab"
        listen = "127.0.0.1:0"
        [certificates]
        {}
        [akma]
        aanf = "{aanf}"
        [configuration_function]
        url = "https://127.0.0.1:1"
        [api]
        listen = "{listen}"
        [authorization]
        mode = "tls"
        [admin]
        listen = "127.0.0.1:0"
        [store]
        path = "{}/server"
        [limits]
        backoff_first_milliseconds = 50
        backoff_max_seconds = 1
        [[application_server]]
        as_service_id = "billing@lab"
        nf_instance_id = "{INSIDE_AS}"
        [[application_server]]
        as_service_id = "weather@example"
        nf_instance_id = "{NEF}"
        target_uris = ["https://{nef_inside}"]
        [[application_server]]
        as_service_id = "parking@example"
        nf_instance_id = "{NEF}"
        target_uris = ["https://{nef_inside}"]
        [[topic]]
        name = "lab/*"
        publishers = ["*"]
        subscribers = ["*"]
        [[topic]]
        name = "secret/*"
        publishers = ["*"]
        subscribers = ["*"]
        "#,
        toml_of(&authority.issue(SERVER, &[])).trim_matches(['{', '}', ' ']).replace(", ", "\n"),
        directory.display(),
    )
}

struct NefPeers<'a> {
    aanf: &'a str,
    udm: &'a str,
    server: SocketAddr,
    inside: SocketAddr,
}

fn nef_config(
    inside: &TestAuthority,
    outside: &TestAuthority,
    directory: &Path,
    peers: &NefPeers<'_>,
    afs: &str,
) -> String {
    let own = inside.issue(NEF, &["nef.lab"]);
    let to_the_outside = CertificateFiles { ca: outside.ca(), ..own.clone() };
    format!(
        r#"
        [nef]
        listen = "{}"
        admin = "127.0.0.1:0"
        data = "{}/nef"
        tls = {}
        inside = {}
        [nef.akma]
        aanf = "{}"
        udm = "{}"
        notifications = {{ notifier = [{{ nf_instance_id = "{AANF}" }}] }}
        [nef.msgin5g]
        url = "https://{}"
        server = {{ nf_instance_id = "{SERVER}" }}
        listen = "{}"
        topic_list_subscriptions_per_as_max = 2
        {afs}
        "#,
        free_address(),
        directory.display(),
        toml_of(&to_the_outside),
        toml_of(&own),
        peers.aanf,
        peers.udm,
        peers.server,
        peers.inside,
    )
}
