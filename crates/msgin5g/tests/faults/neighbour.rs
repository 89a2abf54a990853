//! Network functions that are not as they should be, on real sockets, with certificates of the lab.

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use openssl::ssl::Ssl;
use sbi::nrf::{NrfClient, NrfConfig};
use sbi::{
    CertificateFiles, ClientLimits, SbiClient, SbiClientConfig, SbiError, SbiServer, SbiServerConfig, ServerLimits,
    services,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use transport::profile::mutual_tls_server;

use crate::common::Lab;

/// Certificate, key and authority of one of the lab's functions.
pub(crate) fn certificate(lab: &Lab, name: &str) -> CertificateFiles {
    CertificateFiles {
        certificate: lab.path(&format!("pki/{name}.pem")),
        key: lab.path(&format!("pki/{name}.key")),
        ca: lab.path("pki/ca.pem"),
        crl: None,
    }
}

/// A certificate for the right address from an authority that nobody trusts.
pub(crate) fn impostor(lab: &Lab) -> CertificateFiles {
    let files = CertificateFiles {
        certificate: lab.path("impostor.pem"),
        key: lab.path("impostor.key"),
        ca: lab.path("pki/ca.pem"),
        crl: None,
    };
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=impostor", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&files.key)
        .arg("-out")
        .arg(&files.certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    files
}

/// A client that shows the certificate of one of the lab's functions, and tokens that the lab's NRF gives that function;
/// none where the certificate is enough.
pub(crate) fn client_of(lab: &Lab, name: &str) -> SbiClient {
    let tls = certificate(lab, name);
    let http = SbiClient::new(SbiClientConfig { tls: tls.clone(), limits: ClientLimits::default() }).unwrap();
    let nf_type = match name {
        "aanf" => "AANF",
        "ausf" => "AUSF",
        "udm" => "UDM",
        "nef" => "NEF",
        "server" | "configuration" => "AF",
        _ => return http,
    };
    let nrf = NrfConfig::new(lab.lab_json()["core"]["nrf"].as_str().unwrap());
    NrfClient::new(&nrf, &tls, nf_type).unwrap().authorize(http)
}

/// The service that a path belongs to: its producer's type, and what the server asks the NRF for.
fn service_of(path: &str) -> (&'static str, &'static str) {
    match path.split('/').nth(1) {
        Some("naanf-akma") => (services::AANF, services::NAANF_APPLICATIONKEY_SUPI),
        Some("ss-upr") => (services::AF, services::SS_UPR.service),
        Some("ss-gm") => (services::AF, services::SS_GM.service),
        _ => panic!("no service of the lab's: {path}"),
    }
}

/// How a [`Relay`] answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// As the real function does.
    Honest,
    /// Not at all.
    Silent,
    /// Not at all where the request contains this text, else as the real function does.
    SilentAbout(String),
    /// As the real function does, without the UE's identity.
    Anonymous,
    /// With this status, media type and body, whatever was asked.
    Saying(StatusCode, &'static str, String),
}

impl Manner {
    /// 200 with this JSON, or what passes for it.
    pub(crate) fn saying(body: impl ToString) -> Self {
        Self::Saying(StatusCode::OK, "application/json", body.to_string())
    }

    /// A refusal without words.
    pub(crate) fn status(status: StatusCode) -> Self {
        Self::Saying(status, "text/plain", String::new())
    }
}

/// Stands before a real function of the lab, with its certificate, and answers as it is told to.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: CancellationToken,
}

struct Shared {
    manner: Mutex<Manner>,
    asked: AtomicUsize,
    behind: SbiClient,
    root: String,
}

impl Relay {
    /// In front of function `name`, honest at first.
    pub(crate) async fn before(lab: &Lab, name: &str) -> Self {
        Self::before_at(lab, name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// The same at a given address.
    pub(crate) async fn before_at(lab: &Lab, name: &str, listen: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Honest),
            asked: AtomicUsize::new(0),
            behind: client_of(lab, "server"),
            root: lab.lab_json()["core"][name].as_str().unwrap().to_owned(),
        });
        let limits = ServerLimits { request_timeout_seconds: 3_600, ..ServerLimits::default() };
        let config = SbiServerConfig { listen, tls: certificate(lab, name), limits };
        let router = Router::new().route("/{*path}", any(answer)).with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let server = SbiServer::start(config, router, stop.clone()).await.unwrap();
        Self { shared, address: server.local_addr(), stop }
    }

    /// From now on.
    pub(crate) fn is(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Waits until it was asked more often than `before` times.
    pub(crate) async fn asked_more_than(&self, before: usize) {
        eventually("a request", || self.asked() > before).await;
    }

    /// Its API root.
    pub(crate) fn root(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let manner = shared.manner.lock().unwrap().clone();
    let anonymous = matches!(manner, Manner::Anonymous);
    match manner {
        Manner::Honest | Manner::Anonymous => {}
        Manner::SilentAbout(text) if !String::from_utf8_lossy(&body).contains(&text) => {}
        Manner::Silent | Manner::SilentAbout(_) => std::future::pending().await,
        Manner::Saying(status, media_type, body) => {
            return (status, [(CONTENT_TYPE, media_type)], body).into_response();
        }
    }
    let uri = format!("{}{}", shared.root, parts.uri.path_and_query().unwrap());
    let (nf_type, scope) = service_of(parts.uri.path());
    let behind = shared.behind.for_service(nf_type, scope);
    let answered = match parts.method {
        Method::GET => behind.get::<Value>(&uri).await,
        _ => behind.post::<Value, Value>(&uri, &serde_json::from_slice(&body).unwrap()).await,
    };
    match answered {
        Ok(answer) => match answer.body {
            Some(Value::Object(mut body)) if anonymous => {
                body.retain(|member, _| member != "supi" && member != "gpsi");
                (answer.status, axum::Json(body)).into_response()
            }
            Some(body) => (answer.status, axum::Json(body)).into_response(),
            None => answer.status.into_response(),
        },
        Err(SbiError::Problem(problem)) => problem.into_response(),
        Err(error) => panic!("the real function does not answer: {error}"),
    }
}

/// What a [`Stranger`] does with a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Habit {
    /// Accepts TCP and says nothing more.
    SilentTcp,
    /// Proves itself over TLS and says nothing more.
    SilentTls,
    /// Proves itself over TLS and sends this, which is not HTTP/2.
    Babbling(&'static [u8]),
    /// Proves itself over TLS and closes.
    Closing,
}

/// A program at a network function's address that does not speak HTTP/2.
pub(crate) struct Stranger {
    address: SocketAddr,
    stop: CancellationToken,
}

impl Stranger {
    /// Listens with this certificate.
    pub(crate) async fn start(tls: &CertificateFiles, habit: Habit) -> Self {
        let context = mutual_tls_server(tls).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(behave(stream, Ssl::new(&context).unwrap(), habit));
            }
        }));
        Self { address, stop }
    }

    pub(crate) fn root(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn behave(mut stream: TcpStream, session: Ssl, habit: Habit) {
    if let Habit::SilentTcp = habit {
        let _ = stream.read_to_end(&mut Vec::new()).await;
        return;
    }
    let mut stream = SslStream::new(session, stream).unwrap();
    if Pin::new(&mut stream).accept().await.is_err() {
        return;
    }
    match habit {
        Habit::SilentTcp | Habit::Closing => {}
        Habit::SilentTls => drop(stream.read_to_end(&mut Vec::new()).await),
        Habit::Babbling(words) => {
            let _ = stream.write_all(words).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

/// An address where connections are refused, kept from others for as long as this lives.
pub(crate) struct NobodyThere(TcpSocket);

impl NobodyThere {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn root(&self) -> String {
        format!("https://{}", self.address())
    }
}

/// An AUSF like the lab's whose AKMA anchor function is another. Returns its root; it lives as long as the runtime.
pub(crate) async fn ausf_of(lab: &Lab, aanf: &str) -> String {
    crate::common::function::ausf_of(lab, aanf, Vec::new()).await
}

/// Waits for something that comes about by itself. The deadline only tells "never" from "not-yet".
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
