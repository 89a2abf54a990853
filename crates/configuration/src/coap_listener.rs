//! Accepting UEs: CoAP over TCP and TLS with a pre-shared key from AKMA (RFC 8323, TS 33.535 Annex B.1.3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use akma::{AKid, UeId};
use axum::Router;
use prometheus_client::registry::Registry;
use sbi::audit::Audit;
use sbi::naanf::{
    DisableSubscription, NotificationSection, RecentlyDisabled, ServiceDisabled, Superseding, notification_door,
};
use sbi::nrf::{AanfSelection, NrfClient};
use sbi::{CertificateFiles, SbiClient, SbiClientConfig, SbiError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{KeyLookup, ProvenPeer, PskAcceptor, PskServerConfig, TransportMetrics};

use crate::coap_limits::CoapLimits;
use crate::config::CoapConfig;
use crate::error::ConfigurationError;
use crate::service::Service;
use crate::ue_configuration::Template;
use crate::ue_session::{self, Ended, Orders};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) service: Arc<Service>,
    pub(crate) template: Template,
    pub(crate) limits: CoapLimits,
    pub(crate) keys: Arc<KeyLookup>,
    pub(crate) stopping: CancellationToken,
    connections: AtomicUsize,
    proven: Mutex<Proven>,
}

/// Connections by what proved them.
#[derive(Default)]
struct Proven {
    of_a_kids: HashMap<AKid, OfAKid>,
    /// The A-KIDs of a UE that have connections.
    of_ues: HashMap<UeId, Vec<AKid>>,
    disabled: RecentlyDisabled,
    superseding: Superseding,
}

/// Those of one A-KID.
#[derive(Default)]
struct OfAKid {
    count: usize,
    /// Cancelled when AKMA is disabled under it.
    disabled: CancellationToken,
    /// Changes when the UE has connections by another A-KID, too: one of them is older, and its A-KID is no good any more.
    doubted: watch::Sender<()>,
}

/// The listener at work.
pub(crate) struct CoapServer {
    local_addr: SocketAddr,
    disabling: Disabling,
    /// What accepts, until it is told where the AAnF's word is heard.
    waiting: Option<(Arc<Shared>, TcpListener, PskAcceptor)>,
    tasks: TaskTracker,
    drain_timeout: Duration,
}

impl CoapServer {
    /// Listens; it serves from [`CoapServer::serve`] on until `stopping` is cancelled.
    pub(crate) async fn bind(
        config: CoapConfig,
        certificates: &CertificateFiles,
        nrf: Option<&NrfClient>,
        service: Arc<Service>,
        registry: &mut Registry,
        stopping: CancellationToken,
    ) -> Result<Self, ConfigurationError> {
        let client = SbiClientConfig { tls: certificates.clone(), limits: config.requests.clone() };
        let client = NrfClient::authorized(nrf, SbiClient::new(client)?);
        let subscription = DisableSubscription::default();
        let anchor = AanfSelection::key_source(&config.aanf, &config.aanf_routes, client, nrf, &subscription)?;
        let metrics = TransportMetrics::register(registry);
        let keys = Arc::new(KeyLookup::new(anchor, config.fqdn.clone(), config.lookups.clone(), metrics));
        let psk = PskServerConfig {
            allow_plain_psk_tls12: config.allow_plain_psk_tls12,
            limits: config.handshakes.clone(),
            ..PskServerConfig::new(config.fqdn.clone())
        };
        let longest_handshake = psk.handshake_timeout + Duration::from_millis(config.lookups.timeout_ms);
        let acceptor = PskAcceptor::new(psk, Arc::clone(&keys)).map_err(SbiError::Tls)?;
        let fault = |source| SbiError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(fault)?;
        let local_addr = listener.local_addr().map_err(fault)?;
        let drain_timeout = config.limits.drain_timeout();
        if config.notifications.is_some() {
            subscription.metrics().register(registry);
        }
        let section = config.notifications.clone();
        let shared = Arc::new(Shared {
            service,
            template: config.template(),
            limits: config.limits,
            keys,
            stopping,
            connections: AtomicUsize::new(0),
            proven: Mutex::default(),
        });
        let reused = Duration::from_secs(config.lookups.positive_cache_seconds);
        shared.proven().disabled.remember_for(longest_handshake);
        shared.proven().superseding.remember_for(longest_handshake.saturating_add(reused));
        let disabling = Disabling { section, subscription, shared: Arc::downgrade(&shared) };
        let waiting = Some((shared, listener, acceptor));
        Ok(Self { local_addr, disabling, waiting, tasks: TaskTracker::new(), drain_timeout })
    }

    /// Where the AAnF tells that AKMA is disabled; a route of the function's API.
    pub(crate) fn disable_door(&self, audit: &Audit) -> Router {
        let Disabling { section, subscription, shared } = &self.disabling;
        let (Some(section), Some(shared)) = (section, shared.upgrade()) else { return Router::new() };
        notification_door(section, subscription, shared as Arc<dyn ServiceDisabled>, audit)
    }

    /// Serves, now that the API is there at which the AAnF tells: nobody gets in by a key that was asked for before.
    pub(crate) fn serve(&mut self, api: SocketAddr) {
        if let Some(section) = &self.disabling.section {
            self.disabling.subscription.open(section, api);
        }
        if let Some((shared, listener, acceptor)) = self.waiting.take() {
            self.tasks.spawn(accept(shared, listener, acceptor, self.tasks.clone()));
        }
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

impl std::fmt::Debug for CoapServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoapServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// What being told takes.
struct Disabling {
    section: Option<NotificationSection>,
    subscription: DisableSubscription,
    /// Gone once nobody accepts any more; what it holds is not to be held by whoever waits for that.
    shared: Weak<Shared>,
}

impl ServiceDisabled for Shared {
    fn service_disabled(&self, a_kid: &AKid) -> usize {
        // A look-up under way may have been answered before.
        self.keys.forget(a_kid);
        let mut proven = self.proven();
        proven.disabled.insert(a_kid, Instant::now());
        let Some(of_a_kid) = proven.of_a_kids.get(a_kid) else { return 0 };
        of_a_kid.disabled.cancel();
        of_a_kid.count
    }
}

impl Shared {
    fn proven(&self) -> MutexGuard<'_, Proven> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
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
    let (entry, orders, refused) = Entry::new(shared, &peer);
    let ended = ue_session::run(shared, stream, peer, source.ip(), refused, orders).await;
    drop(entry);
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

/// The same for one A-KID and its UE.
struct Entry<'a> {
    shared: &'a Shared,
    a_kid: AKid,
    ue_id: Option<UeId>,
}

impl<'a> Entry<'a> {
    /// The entry, what its connection has to obey, and why it may not be, if so.
    fn new(shared: &'a Shared, peer: &ProvenPeer) -> (Self, Orders, Option<Ended>) {
        let (a_kid, ue_id) = (peer.a_kid.clone(), peer.ue_id.clone());
        let mut guard = shared.proven();
        let proven = &mut *guard;
        let now = tokio::time::Instant::now();
        let is_disabled = proven.disabled.contains(&a_kid, Instant::now());
        let forgot = proven.disabled.forgot_since(peer.asked_at.into_std());
        let is_doubted = forgot || proven.superseding.doubts(peer, now);
        let of_a_kid = proven.of_a_kids.entry(a_kid.clone()).or_default();
        of_a_kid.count += 1;
        let is_over_limit = of_a_kid.count > shared.limits.connections_per_a_kid_max;
        let orders = Orders { disabled: of_a_kid.disabled.clone(), doubted: of_a_kid.doubted.subscribe() };
        if is_doubted {
            of_a_kid.doubted.send_replace(());
        }
        let is_first = of_a_kid.count == 1;
        if let Some(ue_id) = &ue_id {
            if is_first {
                proven.superseding.registered(ue_id, &a_kid, now);
            }
            proven.enter(ue_id, &a_kid);
        }
        drop(guard);
        let refused = is_over_limit.then_some(Ended::TooMany).or(is_disabled.then_some(Ended::ServiceDisabled));
        (Self { shared, a_kid, ue_id }, orders, refused)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut proven = self.shared.proven();
        let Some(of_a_kid) = proven.of_a_kids.get_mut(&self.a_kid) else { return };
        of_a_kid.count -= 1;
        if of_a_kid.count == 0 {
            proven.of_a_kids.remove(&self.a_kid);
            if let Some(ue_id) = &self.ue_id {
                proven.leave(ue_id, &self.a_kid);
            }
        }
    }
}

impl Proven {
    /// Which of several A-KIDs is the newest only the AAnF knows: all are asked about, once.
    fn enter(&mut self, ue_id: &UeId, a_kid: &AKid) {
        let of_ue = self.of_ues.entry(ue_id.clone()).or_default();
        if !of_ue.contains(a_kid) {
            of_ue.push(a_kid.clone());
        }
        if of_ue.len() > 1 {
            for of_a_kid in of_ue.iter().filter_map(|a_kid| self.of_a_kids.get(a_kid)) {
                of_a_kid.doubted.send_replace(());
            }
        }
    }

    fn leave(&mut self, ue_id: &UeId, a_kid: &AKid) {
        let Some(of_ue) = self.of_ues.get_mut(ue_id) else { return };
        of_ue.retain(|other| other != a_kid);
        if of_ue.is_empty() {
            self.of_ues.remove(ue_id);
        }
    }
}

/// Pause after the system had no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
