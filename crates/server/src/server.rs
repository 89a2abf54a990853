//! Starting and stopping the whole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use message::Address;
use prometheus_client::registry::Registry as MetricsRegistry;
use sbi::admin::AdminServer;
use sbi::authorization::Authorizer;
use sbi::client_credentials::ClientCredentials;
use sbi::naanf::{DisableSubscription, notification_door};
use sbi::nef_akma::NefAkmaClient;
use sbi::nrf::{AanfSelection, NrfClient, OwnFunction, OwnService};
use sbi::ss_gm::SsGmClient;
use sbi::ss_upr::SsUprClient;
use sbi::{
    CertificateFiles, ClientLimits, SbiClient, SbiClientConfig, SbiServer, SbiServerConfig, ServerMetrics, services,
};
use store::{EmbeddedStore, StoreError};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{KeyLookup, KeySource, PskAcceptor, PskServerConfig, TransportMetrics};

use crate::api::{self, Api};
use crate::application_server::ApplicationServers;
use crate::broadcast;
use crate::config::Config;
use crate::core::{Core, Parts};
use crate::datagram_listener;
use crate::descriptors::bound_connections;
use crate::destinations::Destinations;
use crate::error::ServerError;
use crate::fan_out;
use crate::groups::GroupSource;
use crate::hibernation;
use crate::http_ue::{self, Front, HttpsMetrics};
use crate::inbox;
use crate::invokers::{self, InvokerMetrics, Invokers};
use crate::listener::{self, Below};
use crate::metrics::Metrics;
use crate::oscore;
use crate::policy::{self, Policy, ServerRules};
use crate::reachability;
use crate::segments;
use crate::session;
use crate::sessions::DisabledSessions;
use crate::sync::lock;
use crate::topics;

/// How often a stopping server looks whether it is done.
const STOP_TICK: Duration = Duration::from_millis(10);

/// Recipients looked at together at start-up.
const RECIPIENTS_BATCH: usize = 4096;

/// Deduplication records forgotten in one go.
const SWEEP_BATCH: usize = 1024;

/// A running server. Dropping it does not stop it: cancel the token it was started with.
#[derive(Debug)]
pub struct Running {
    coap: SocketAddr,
    websocket: Option<SocketAddr>,
    oscore: oscore::Listening,
    coaps: Option<SocketAddr>,
    api: SocketAddr,
    admin: SocketAddr,
    notifications: Option<SocketAddr>,
    invokers: Option<SocketAddr>,
    invokers_by_psk: Option<SocketAddr>,
    https: Option<SocketAddr>,
    ended: TaskTracker,
}

impl Running {
    /// Where UEs connect: CoAP over TLS over TCP.
    #[must_use]
    pub fn coap_address(&self) -> SocketAddr {
        self.coap
    }

    /// Where UEs connect over WebSocket over TLS. None without `[websocket]`.
    #[must_use]
    pub fn websocket_address(&self) -> Option<SocketAddr> {
        self.websocket
    }

    /// Where UEs reach it by plain CoAP over UDP, under OSCORE. None without `oscore.listen_udp`.
    #[must_use]
    pub fn oscore_udp_address(&self) -> Option<SocketAddr> {
        self.oscore.udp
    }

    /// The same over TCP. None without `oscore.listen_tcp`.
    #[must_use]
    pub fn oscore_tcp_address(&self) -> Option<SocketAddr> {
        self.oscore.tcp
    }

    /// Where UEs come over UDP: CoAP over DTLS. None without `[coaps]`.
    #[must_use]
    pub fn coaps_address(&self) -> Option<SocketAddr> {
        self.coaps
    }

    /// Where Application Servers connect: HTTP/2 over mutual TLS.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where health and metrics are: plain HTTP.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where the NEF's notifications are taken: HTTP/2 over mutual TLS. None without `[exposure]`.
    #[must_use]
    pub fn notification_address(&self) -> Option<SocketAddr> {
        self.notifications
    }

    /// Where API invokers come with certificates: HTTP/2. None without `[capif]`.
    #[must_use]
    pub fn invoker_address(&self) -> Option<SocketAddr> {
        self.invokers
    }

    /// Where API invokers come with AEF_PSK: HTTP/2. None without `capif.psk_listen`.
    #[must_use]
    pub fn invoker_psk_address(&self) -> Option<SocketAddr> {
        self.invokers_by_psk
    }

    /// Where UEs connect that have only an HTTP stack. None without `[https]`.
    #[must_use]
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https
    }

    /// Waits until the server has stopped: everything taken is answered or on disk.
    pub async fn stopped(&self) {
        self.ended.wait().await;
    }
}

/// Starts a server, which runs until `shutdown` is cancelled. It listens when this returns.
///
/// # Errors
/// [`ServerError`], naming what in the configuration or on this machine is at fault.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, ServerError> {
    let (mut config, rules) = policy::open(config)?;
    bound_connections(&mut config);
    let mut metrics_registry = MetricsRegistry::default();
    let metrics = Metrics::register(&mut metrics_registry);
    rules.register(&mut metrics_registry);
    let store = open_store(&config).await?;
    store.metrics().register(&mut metrics_registry);

    let clients = Clients::new(&config)?;
    let disabling = DisableSubscription::default();
    let keys = key_lookup(&config, &clients, &disabling, TransportMetrics::register(&mut metrics_registry))?;
    let section = &config.configuration_function;
    let associations = SsUprClient::found(&clients.client(&section.requests)?, &section.url, clients.nrf.as_ref())?;
    let acceptor = PskAcceptor::new(acceptor_config(&config), Arc::clone(&keys))?;

    let authorizer = Authorizer::of_function(
        config.authorization.clone(),
        services::AF,
        &config.certificates,
        &mut metrics_registry,
    )?;
    let (core, writers) = Core::new(Parts {
        limits: config.limits.clone(),
        audit: authorizer.audit().clone(),
        metrics,
        store: Arc::new(store.clone()),
        associations: Arc::new(associations),
        keys: Some(Arc::clone(&keys)),
        destinations: destinations(&config, &clients, Arc::clone(&rules))?,
    });
    core.fan_out.metrics.register(metrics_registry.sub_registry_with_prefix("msgin5g"));
    let towards_servers = SbiClient::new(SbiClientConfig {
        tls: config.api.targets.certificates(&config.certificates),
        limits: config.api.requests.clone(),
    })?;
    let servers = Arc::new(ApplicationServers::new(Arc::clone(&rules), towards_servers));
    if let Some(section) = &config.broadcast {
        let http = clients.client(&section.requests)?.for_service(services::AF, services::MSGG_BGDELIVERY);
        broadcast::start(&core, &section.gateway, &http);
    }
    load(&core, &servers).await?;
    writers.run(&core, &core.stopped.clone());
    core.tasks.spawn(segments::run(Arc::clone(&core)));
    core.tasks.spawn(hibernation::run(Arc::clone(&core)));

    let (listener, coap) = bind(config.server.listen).await?;
    let websocket = match &config.websocket {
        Some(section) => Some((bind(section.listen).await?, acceptor.for_http()?, section.opening_limits())),
        None => None,
    };
    let api_stop = CancellationToken::new();
    let api_metrics = ServerMetrics::default();
    api_metrics.register(&mut metrics_registry);
    let for_servers = Api { core: Arc::clone(&core), servers: Arc::clone(&servers), audit: authorizer.audit().clone() };
    let api = SbiServer::start_authorized(
        SbiServerConfig {
            listen: config.api.listen,
            tls: config.certificates.clone(),
            limits: config.api.limits.clone(),
        },
        api::router(&for_servers, &authorizer).merge(disable_door(&core, &config, &disabling, &authorizer)),
        &authorizer,
        api_stop.clone(),
        api_metrics,
    )
    .await?;
    let heard = hear_of_disabling(&core, &config, &disabling, &api, &mut metrics_registry);
    let invokers = match config.capif.take() {
        Some(section) => {
            let (services, of_invokers) = (api::unprotected(&for_servers), InvokerMetrics::default());
            of_invokers.register(metrics_registry.sub_registry_with_prefix("msgin5g"));
            let (tls, audit) = (&config.certificates, authorizer.audit());
            Some(invokers::serve(section, tls, services, audit, of_invokers, &api_stop).await?)
        }
        None => None,
    };
    core.reachability.metrics.register(metrics_registry.sub_registry_with_prefix("msgin5g"));
    let notifications = serve_notifications(&core, &config, &clients, &api_stop).await?;
    let https = Box::pin(serve_devices(&core, &config, &mut metrics_registry, &api_stop)).await?;
    if let Some(nrf) = &clients.nrf {
        nrf.register_metrics(&mut metrics_registry);
        let own = own_function(api.local_addr(), authorizer.demands_tokens());
        nrf.keep_registered(&own, core.health.clone(), shutdown.clone());
    }
    let path: Arc<str> = config.server.path.as_str().into();
    let oscore = oscore::serve(&core, config.oscore.as_ref(), &keys, &path, &mut metrics_registry).await?;
    let (health, admin_stop) = (core.health.clone(), CancellationToken::new());
    health.not_ready("server", "starting");
    let admin =
        AdminServer::start(config.admin.listen, Arc::new(metrics_registry), health.clone(), admin_stop.clone()).await?;
    // Last of all that can fail: it uses up the sealed sessions.
    let coaps = match &config.coaps {
        Some(section) => Some(datagram_listener::start(&core, section, &config, Arc::clone(&keys), &heard).await?),
        None => None,
    };
    let nrf = clients.nrf;
    health.ready("server");
    health.ready("store");
    core.tasks.spawn(listener::accept(Arc::clone(&core), listener, acceptor, Below::Tls, Arc::clone(&path)));
    let websocket = websocket.map(|((listener, address), acceptor, limits)| {
        core.tasks.spawn(listener::accept(Arc::clone(&core), listener, acceptor, Below::WebSocket(limits), path));
        tracing::info!(websocket = %address, "CoAP over WebSocket is served, too");
        address
    });
    core.tasks.spawn(keep_house(Arc::clone(&core), store.clone()));
    core.tasks.spawn(keep_topics(Arc::clone(&core)));
    core.tasks.spawn(follow(Arc::clone(&core), Arc::clone(&servers), rules));
    tracing::info!(%coap, api = %api.local_addr(), fqdn = %config.server.fqdn, "MSGin5G server started");

    let running = Running {
        coap,
        websocket,
        oscore,
        coaps,
        api: api.local_addr(),
        admin: admin.local_addr(),
        notifications: notifications.as_ref().map(SbiServer::local_addr),
        invokers: invokers.as_ref().map(Invokers::address),
        invokers_by_psk: invokers.as_ref().and_then(Invokers::psk_address),
        https: https.as_ref().map(SbiServer::local_addr),
        ended: TaskTracker::new(),
    };
    running.ended.spawn(async move {
        shutdown.cancelled().await;
        health.not_ready("server", "stopping");
        stop(&core, &servers, &api, &api_stop).await;
        if let Some(nrf) = nrf {
            nrf.stopped().await;
        }
        if let Err(error) = store.sync().await {
            tracing::error!(%error, "store not synced at the end");
        }
        if let Some(invokers) = invokers {
            let _ = timeout(LAST_TASKS, invokers.stopped()).await;
        }
        if let Some(https) = https {
            let _ = timeout(LAST_TASKS, https.stopped()).await;
        }
        if let Some(notifications) = notifications {
            let _ = timeout(LAST_TASKS, notifications.stopped()).await;
        }
        admin_stop.cancel();
        admin.stopped().await;
        tracing::info!("MSGin5G server stopped");
    });
    running.ended.close();
    Ok(running)
}

/// Takes the NEF's notifications and begins to wake UEs, if there is a NEF.
async fn serve_notifications(
    core: &Arc<Core>,
    config: &Config,
    clients: &Clients,
    stop: &CancellationToken,
) -> Result<Option<SbiServer>, ServerError> {
    let Some(section) = &config.exposure else { return Ok(None) };
    let client = clients.client(&section.requests)?;
    let server = reachability::serve(core, section, client, config.certificates.clone(), stop.clone()).await?;
    tracing::info!(notifications = %server.local_addr(), nef = %section.nef, "UEs that are away are woken through the NEF");
    Ok(Some(server))
}

/// Binds a TCP port; it and where it is.
async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let fault = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    Ok((listener, bound))
}

/// Serves devices that have only an HTTP stack, if that is wanted.
async fn serve_devices(
    core: &Arc<Core>,
    config: &Config,
    metrics: &mut MetricsRegistry,
    stop: &CancellationToken,
) -> Result<Option<SbiServer>, ServerError> {
    let Some(section) = &config.https else { return Ok(None) };
    let of_devices = HttpsMetrics::default();
    of_devices.register(metrics.sub_registry_with_prefix("msgin5g"));
    let front = Front::new(core, &config.server.fqdn, &config.server.path, section, of_devices)?;
    let server = http_ue::serve(&front, section, &config.certificates, stop.clone()).await?;
    tracing::info!(https = %server.local_addr(), "UEs over HTTPS are served");
    Ok(Some(server))
}

async fn open_store(config: &Config) -> Result<EmbeddedStore, ServerError> {
    let (path, options) = (config.store.path.clone(), config.store.options.clone());
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, options)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(error) => Err(ServerError::Configuration { key: "store.path".to_owned(), reason: error.to_string() }),
    }
}

/// Where the AAnF tells that AKMA is disabled; nowhere without `[akma.notifications]`.
fn disable_door(
    core: &Arc<Core>,
    config: &Config,
    disabling: &DisableSubscription,
    authorizer: &Authorizer,
) -> axum::Router {
    let Some(section) = &config.akma.notifications else { return axum::Router::new() };
    notification_door(section, disabling, Arc::new(DisabledSessions(Arc::clone(core))), authorizer.audit())
}

/// From now on the AAnF's word that AKMA is disabled is heard, if it is to be. Whoever lets devices in needs this first, since
/// what is asked about them before leaves no URI.
pub(crate) struct DisablingHeard(());

#[cfg(test)]
impl DisablingHeard {
    /// There is no AAnF that could tell.
    pub(crate) const NOBODY_TELLS: Self = Self(());
}

fn hear_of_disabling(
    core: &Core,
    config: &Config,
    disabling: &DisableSubscription,
    api: &SbiServer,
    metrics: &mut MetricsRegistry,
) -> DisablingHeard {
    let reused = Duration::from_secs(config.akma.lookups.positive_cache_seconds);
    core.sessions.handshakes_last(longest_handshake(config), reused);
    if let Some(section) = &config.akma.notifications {
        disabling.metrics().register(metrics);
        disabling.open(section, api.local_addr());
    }
    DisablingHeard(())
}

/// How long a key may be on its way from the AAnF into a session, whatever carries that.
fn longest_handshake(config: &Config) -> Duration {
    let lookup = Duration::from_millis(config.akma.lookups.timeout_ms);
    let tls = acceptor_config(config).handshake_timeout
        + config.websocket.as_ref().map(|section| section.opening_limits().request_timeout).unwrap_or_default();
    let dtls = config.coaps.as_ref().map(|section| Duration::from_millis(section.dtls.handshake_timeout_ms));
    let oscore = config.oscore.as_ref().map(|section| Duration::from_secs(section.limits.unproven_seconds));
    lookup + [Some(tls), dtls, oscore].into_iter().flatten().max().unwrap_or_default()
}

fn key_lookup(
    config: &Config,
    clients: &Clients,
    disabling: &DisableSubscription,
    metrics: TransportMetrics,
) -> Result<Arc<KeyLookup>, ServerError> {
    Ok(Arc::new(KeyLookup::new(
        key_source(config, clients, disabling)?,
        config.server.fqdn.clone(),
        config.akma.lookups.clone(),
        metrics,
    )))
}

/// The AAnF, or the NEF in front of it where the server is outside the operator's domain.
fn key_source(
    config: &Config,
    clients: &Clients,
    disabling: &DisableSubscription,
) -> Result<Arc<dyn KeySource>, ServerError> {
    let akma = &config.akma;
    match (&akma.aanf, &akma.nef, &akma.af) {
        (Some(aanf), ..) => {
            let http = clients.client(&akma.requests)?;
            Ok(AanfSelection::key_source(aanf, &akma.aanf_routes, http, clients.nrf.as_ref(), disabling)?)
        }
        (None, Some(nef), Some(af)) => {
            let tls = af.certificates.clone().unwrap_or_else(|| config.certificates.clone());
            let http = SbiClient::new(SbiClientConfig { tls, limits: akma.requests.clone() })?;
            let endpoint =
                af.token_endpoint.clone().unwrap_or_else(|| format!("{}/oauth2/token", nef.trim_end_matches('/')));
            let tokens = ClientCredentials::new(http.clone(), endpoint, af.client_id.clone(), af.scope.clone());
            Ok(Arc::new(NefAkmaClient::new(&http, nef.clone(), Arc::new(tokens)).subscribing(disabling.clone())))
        }
        // `Config::check` was asked before.
        _ => Err(ServerError::Configuration { key: "akma".to_owned(), reason: "needs aanf, or nef and af".to_owned() }),
    }
}

/// Makes clients of other functions, with the server's certificate, and access tokens where there is an NRF.
struct Clients {
    certificates: CertificateFiles,
    nrf: Option<NrfClient>,
}

impl Clients {
    fn new(config: &Config) -> Result<Self, ServerError> {
        let nrf = NrfClient::optional(config.nrf.as_ref(), &config.certificates, services::AF)?;
        Ok(Self { certificates: config.certificates.clone(), nrf })
    }

    fn client(&self, limits: &ClientLimits) -> Result<SbiClient, ServerError> {
        let http = SbiClient::new(SbiClientConfig { tls: self.certificates.clone(), limits: limits.clone() })?;
        Ok(NrfClient::authorized(self.nrf.as_ref(), http))
    }
}

/// What the NRF is told: the APIs for Application Servers.
fn own_function(listen: SocketAddr, oauth2_required: bool) -> OwnFunction {
    let served = [&services::MSGS_ASREGISTRATION, &services::MSGS_MSGDELIVERY, &services::MSGS_TOPICLISTEVENT];
    let service = |scopes: &sbi::authorization::ServiceScopes| OwnService {
        name: scopes.service,
        version: "v1",
        listen,
        consumers: &[services::AF, services::NEF],
    };
    OwnFunction { services: served.into_iter().map(service).collect(), oauth2_required, ..OwnFunction::default() }
}

fn acceptor_config(config: &Config) -> PskServerConfig {
    PskServerConfig {
        allow_plain_psk_tls12: config.tls.allow_plain_psk_tls12,
        limits: config.tls.handshakes.clone(),
        key_log: config.tls.key_log.clone(),
        ..PskServerConfig::new(config.server.fqdn.clone())
    }
}

/// Groups, topics and broadcast areas, as the configuration has them.
fn destinations(config: &Config, clients: &Clients, rules: ServerRules) -> Result<Destinations, ServerError> {
    let groups = match &config.group_management {
        Some(section) => {
            let source = SsGmClient::new(clients.client(&section.requests)?, section.url.clone());
            Some(Arc::new(source) as Arc<dyn GroupSource>)
        }
        None => None,
    };
    Ok(Destinations { groups, rules, client: Some(clients.client(&config.api.requests)?) })
}

/// Takes up what is on disk: everybody registered is away, and whoever has messages waiting gets them on return.
pub(crate) async fn load(core: &Arc<Core>, servers: &ApplicationServers) -> Result<(), StoreError> {
    for record in core.store.registrations().await? {
        let address = Address::ue(&record.ue_service_id);
        let Ok(party) = core.registry.find_or_insert(&address, usize::MAX) else { continue };
        let mut state = lock(&party.state);
        state.profile = session::profile_of(&record).map(Box::new);
        state.record_fingerprint = session::fingerprint(&record);
        state.awaits_unknown_reports();
    }
    servers.load(core).await?;
    topics::load(core, |id, uri| servers.may_still_name(id, uri)).await?;
    fan_out::load(core).await?;
    let mut after: Option<Address> = None;
    loop {
        let batch = core.store.pending_recipients(after.as_ref(), RECIPIENTS_BATCH);
        let Some(last) = batch.last().cloned() else { return Ok(()) };
        for recipient in batch {
            match core.registry.find(&recipient) {
                Some(party) => inbox::found_on_disk(core, &party),
                // Its registration was removed, and the server ended before its messages were.
                None => inbox::spawn_clearing(core, recipient),
            }
        }
        after = Some(last);
    }
}

/// Takes a changed policy file, and does what follows from it.
async fn follow(core: Arc<Core>, servers: Arc<ApplicationServers>, rules: ServerRules) {
    let (core, servers) = (&core, &servers);
    rules.follow_with(core.stopping.clone(), |earlier| async move { reconcile(core, servers, &earlier).await }).await;
}

/// Brings what `earlier` rules allowed in line with those in force: as a restart would, but for what is under way, which was
/// accepted by the rules of its time.
pub(crate) async fn reconcile(core: &Arc<Core>, servers: &ApplicationServers, earlier: &Policy) {
    let ended = [
        servers.reconcile(core, earlier).await,
        topics::reconcile(core, earlier, |id, uri| servers.may_still_name(id, uri)).await,
    ];
    for error in ended.into_iter().filter_map(Result::err) {
        // It has ended here all the same; the next start takes it off the disk.
        tracing::error!(target: "security", %error, "not everything that is no longer allowed is off the disk");
    }
    broadcast::reconcile(core).await;
}

/// Expiry, what would otherwise only grow, and whether the disk still takes anything.
async fn keep_house(core: Arc<Core>, store: EmbeddedStore) {
    let mut ticks = interval(Duration::from_secs(core.limits.expiry_sweep_seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shard = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = core.stopped.cancelled() => return,
        }
        inbox::sweep_expired(&core).await;
        fan_out::sweep(&core);
        if let Err(error) = core.store.sweep_deduplication(OffsetDateTime::now_utc(), SWEEP_BATCH).await {
            tracing::error!(%error, "deduplication records not swept");
        }
        for party in core.registry.shard_parties(shard) {
            party.rest(Instant::now(), core.limits.remembered());
        }
        shard = (shard + 1) % core.registry.shards();
        core.update_gauges();
        core.log_budget.settle();
        if let Some(failure) = store.failure() {
            core.health.not_ready("store", failure.to_string());
        }
    }
}

/// Expiry of subscriptions: by itself, because it takes turns with registrations, which may take their time.
async fn keep_topics(core: Arc<Core>) {
    let mut ticks = interval(Duration::from_secs(core.limits.expiry_sweep_seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sweeps = async {
        loop {
            ticks.tick().await;
            topics::sweep(&core).await;
        }
    };
    tokio::select! {
        () = sweeps => {}
        () = core.stopped.cancelled() => {}
    }
}

/// A graceful stop: nothing new is taken, what was taken is answered, sessions are released, the disk has the rest.
async fn stop(core: &Arc<Core>, servers: &ApplicationServers, api: &SbiServer, api_stop: &CancellationToken) {
    let drained = Instant::now() + core.limits.drain_timeout();
    core.stopping.cancel();
    api_stop.cancel();
    let is_drained = comes_true(drained, || core.open_requests() == 0).await;
    let (sealing, until) = (Arc::clone(core), Instant::now() + LAST_WRITES);
    // It writes to the disk. Before others are detached: who rests is not to pay for who does not answer.
    if tokio::task::spawn_blocking(move || sealing.seal_sessions(until)).await.is_err() {
        tracing::error!("sealing DTLS sessions ended in a panic");
    }
    if !is_drained {
        // Recipients that have not acknowledged by now count as away, while their senders are still there to be told.
        core.detach_all();
        comes_true(Instant::now() + LAST_WRITES, || core.open_requests() == 0).await;
    }
    core.sessions.stop_all();
    servers.stop_all();
    core.broadcast.stop_all();
    comes_true(drained.max(Instant::now() + LAST_TASKS), || core.sessions.connections() == 0).await;
    core.stopped.cancel();
    core.tasks.close();
    let _ = timeout(LAST_TASKS, core.tasks.wait()).await;
    let _ = timeout(LAST_TASKS, api.stopped()).await;
}

/// Waits for something until a deadline; whether it came.
async fn comes_true(deadline: Instant, condition: impl Fn() -> bool) -> bool {
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(STOP_TICK).await;
    }
    true
}

/// How long the disk may take for what was not acknowledged when the drain time-out came.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// How long tasks that were told to end may take.
const LAST_TASKS: Duration = Duration::from_secs(2);
