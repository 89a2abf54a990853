//! Accepting UEs: CoAP over TCP and TLS with a pre-shared key from AKMA (RFC 8323, TS 33.535 Annex B.1.3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use akma::AKid;
use prometheus_client::registry::Registry;
use sbi::nrf::{AanfSelection, NrfClient};
use sbi::{CertificateFiles, SbiClient, SbiClientConfig, SbiError};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{KeyLookup, PskAcceptor, PskServerConfig, TransportMetrics};

use crate::coap_limits::CoapLimits;
use crate::config::CoapConfig;
use crate::error::ConfigurationError;
use crate::service::Service;
use crate::ue_configuration::Template;
use crate::ue_session::{self, Ended};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) service: Arc<Service>,
    pub(crate) template: Template,
    pub(crate) limits: CoapLimits,
    pub(crate) keys: Arc<KeyLookup>,
    pub(crate) stopping: CancellationToken,
    connections: AtomicUsize,
    of_a_kids: Mutex<HashMap<AKid, usize>>,
}

/// The listener at work.
#[derive(Debug)]
pub(crate) struct CoapServer {
    local_addr: SocketAddr,
    tasks: TaskTracker,
    drain_timeout: Duration,
}

impl CoapServer {
    /// Listens, and serves until `stopping` is cancelled.
    pub(crate) async fn start(
        config: CoapConfig,
        certificates: &CertificateFiles,
        nrf: Option<&NrfClient>,
        service: Arc<Service>,
        registry: &mut Registry,
        stopping: CancellationToken,
    ) -> Result<Self, ConfigurationError> {
        let client = SbiClientConfig { tls: certificates.clone(), limits: config.requests.clone() };
        let client = NrfClient::authorized(nrf, SbiClient::new(client)?);
        let anchor = AanfSelection::key_source(&config.aanf, &config.aanf_routes, client, nrf)?;
        let metrics = TransportMetrics::register(registry);
        let keys = Arc::new(KeyLookup::new(anchor, config.fqdn.clone(), config.lookups.clone(), metrics));
        let psk = PskServerConfig {
            allow_plain_psk_tls12: config.allow_plain_psk_tls12,
            limits: config.handshakes.clone(),
            ..PskServerConfig::new(config.fqdn.clone())
        };
        let acceptor = PskAcceptor::new(psk, Arc::clone(&keys)).map_err(SbiError::Tls)?;
        let fault = |source| SbiError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(fault)?;
        let local_addr = listener.local_addr().map_err(fault)?;
        let drain_timeout = config.limits.drain_timeout();
        let shared = Arc::new(Shared {
            service,
            template: config.template(),
            limits: config.limits,
            keys,
            stopping,
            connections: AtomicUsize::new(0),
            of_a_kids: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(shared, listener, acceptor, tasks.clone()));
        Ok(Self { local_addr, tasks, drain_timeout })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits until it has stopped, once it was told to.
    pub(crate) async fn stopped(&self, stopping: &CancellationToken) {
        stopping.cancelled().await;
        self.tasks.close();
        if timeout(self.drain_timeout, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections given up at the end");
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, acceptor: PskAcceptor, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopping.cancelled() => return,
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(connection) = Connection::count(&shared) else {
            shared.service.metrics.connection_ended("too many connections");
            continue;
        };
        tasks.spawn(Box::pin(serve(connection, acceptor.clone(), stream, source)));
    }
}

async fn serve(connection: Connection, acceptor: PskAcceptor, stream: TcpStream, source: SocketAddr) {
    let shared = &connection.0;
    // Answers are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let secured = tokio::select! {
        secured = acceptor.accept(stream, source) => secured,
        () = shared.stopping.cancelled() => return,
    };
    let stream = match secured {
        Ok(stream) => stream,
        Err(error) => {
            // Told by the transport as it deserves; anybody can cause most of these over and over.
            tracing::debug!(%source, %error, "handshake failed");
            shared.service.metrics.connection_ended("handshake failed");
            return;
        }
    };
    let peer = stream.peer().clone();
    let of_a_kid = OfAKid::count(shared, peer.a_kid.clone());
    let too_many = of_a_kid.is_over_limit;
    let ended = ue_session::run(shared, stream, peer, source.ip(), too_many.then_some(Ended::TooMany)).await;
    drop(of_a_kid);
    shared.service.metrics.connection_ended(ended.as_str());
}

/// A connection that counts until this is dropped, however its task ends.
struct Connection(Arc<Shared>);

impl Connection {
    /// None if there are as many as there may be.
    fn count(shared: &Arc<Shared>) -> Option<Self> {
        let connection = Self(Arc::clone(shared));
        let before = shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.service.metrics.connection_begins();
        (before < shared.limits.connections_max).then_some(connection)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.service.metrics.connection_is_over();
    }
}

/// The same for one A-KID.
struct OfAKid<'a> {
    shared: &'a Shared,
    a_kid: AKid,
    is_over_limit: bool,
}

impl<'a> OfAKid<'a> {
    fn count(shared: &'a Shared, a_kid: AKid) -> Self {
        let mut of_a_kids = shared.of_a_kids.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_a_kids.entry(a_kid.clone()).or_default();
        *count += 1;
        let is_over_limit = *count > shared.limits.connections_per_a_kid_max;
        drop(of_a_kids);
        Self { shared, a_kid, is_over_limit }
    }
}

impl Drop for OfAKid<'_> {
    fn drop(&mut self) {
        let mut of_a_kids = self.shared.of_a_kids.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_a_kids.get_mut(&self.a_kid) {
            *count -= 1;
            if *count == 0 {
                of_a_kids.remove(&self.a_kid);
            }
        }
    }
}

/// Pause after the system had no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
