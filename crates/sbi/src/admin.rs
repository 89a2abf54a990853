//! Health and metrics for the operator: plain HTTP/1.1, meant for loopback or a management network.
//!
//! `GET /healthz` (200 while the process runs), `GET /readyz` (200 or 503 with one line per check),
//! `GET /metrics` (OpenMetrics text): what the function registered, and what the process's clients count.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::SbiError;
use crate::metrics::register_clients;

/// Whether a function can do its work, as named checks. A clone is the same set of checks.
#[derive(Debug, Clone, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<String, Check>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Check {
    Ready,
    Degraded(String),
    NotReady(String),
}

impl Health {
    /// No checks, which is ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `check` holds.
    pub fn ready(&self, check: &str) {
        self.set(check, Check::Ready);
    }

    /// Says that `check` does not hold, which does not keep the function from its work, and why. It is reported, and the
    /// function counts as ready.
    pub fn degraded(&self, check: &str, reason: impl Into<String>) {
        self.set(check, Check::Degraded(reason.into()));
    }

    /// Says that `check` does not hold, and why, in words for the operator.
    pub fn not_ready(&self, check: &str, reason: impl Into<String>) {
        self.set(check, Check::NotReady(reason.into()));
    }

    /// Whether every check holds.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        !checks.values().any(|state| matches!(state, Check::NotReady(_)))
    }

    fn set(&self, check: &str, state: Check) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(check.to_owned(), state);
    }

    fn report(&self) -> String {
        let mut report = String::new();
        for (check, state) in &*self.checks.lock().unwrap_or_else(PoisonError::into_inner) {
            // Writing to a String does not fail.
            let _ = match state {
                Check::Ready => writeln!(report, "{check}: ready"),
                Check::Degraded(reason) => writeln!(report, "{check}: degraded, {reason}"),
                Check::NotReady(reason) => writeln!(report, "{check}: {reason}"),
            };
        }
        report
    }
}

/// A running health and metrics server.
#[derive(Debug)]
pub struct AdminServer {
    local_addr: SocketAddr,
    tasks: TaskTracker,
}

impl AdminServer {
    /// Binds and serves until `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`SbiError::Listen`].
    pub async fn start(
        listen: SocketAddr,
        registry: Arc<Registry>,
        health: Health,
        shutdown: CancellationToken,
    ) -> Result<Self, SbiError> {
        let fault = |source| SbiError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(fault)?;
        let local_addr = listener.local_addr().map_err(fault)?;
        let router = Router::new()
            .route("/healthz", get(async || "alive\n"))
            .route("/readyz", get(readiness))
            .route("/metrics", get(metrics))
            .with_state(Administered { registry, health });
        let tasks = TaskTracker::new();
        tasks.spawn(serve(listener, router, shutdown));
        tasks.close();
        Ok(Self { local_addr, tasks })
    }

    /// The address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits until the server has stopped.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

#[derive(Clone)]
struct Administered {
    registry: Arc<Registry>,
    health: Health,
}

async fn readiness(State(state): State<Administered>) -> (StatusCode, String) {
    let status = if state.health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, state.health.report())
}

async fn metrics(State(state): State<Administered>) -> Response {
    let mut text = String::new();
    let mut clients = Registry::default();
    register_clients(&mut clients);
    let coded = encode_registry(&mut text, &state.registry).and_then(|()| encode_registry(&mut text, &clients));
    match coded.and_then(|()| encode_eof(&mut text)) {
        Ok(()) => {
            let mut response = text.into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            response
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let service = TowerToHyperService::new(router.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = shutdown.cancelled() => {}
            }
            drop(slot);
        });
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at once; one more is closed unanswered.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request's header, and so for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
