//! Wiring: database, client, servers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use sbi::admin::{AdminServer, Health};
use sbi::authorization::Authorizer;
use sbi::nrf::{NrfClient, OwnFunction, OwnService};
use sbi::nudm::NudmClient;
use sbi::policy::Rules;
use sbi::{SbiClient, SbiClientConfig, SbiServer, SbiServerConfig, ServerMetrics, services};
use store::Database;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{AfConfig, Config, PolicyFile};
use crate::contexts::Contexts;
use crate::disabled_afs::DisabledAfs;
use crate::error::AanfError;
use crate::metrics::Metrics;
use crate::notifier::Notifier;
use crate::policy::Policy;
use crate::provisioning::withdraw_in_background;
use crate::seal::Sealer;
use crate::service::{STORE_CHECK, Service, router};
use crate::translation::Translation;

/// The function at work. It stops when the token it was started with is cancelled.
#[derive(Debug)]
pub struct Running {
    server: SbiServer,
    admin: Option<AdminServer>,
    tasks: TaskTracker,
    nrf: Option<NrfClient>,
}

impl Running {
    /// Where Naanf_AKMA is served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where health and metrics are served, if they are.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::local_addr)
    }

    /// Waits until the function has stopped: requests answered, connections closed.
    pub async fn stopped(&self) {
        self.server.stopped().await;
        if let Some(nrf) = &self.nrf {
            nrf.stopped().await;
        }
        if let Some(admin) = &self.admin {
            admin.stopped().await;
        }
        self.tasks.wait().await;
    }
}

/// Starts the function; it serves when this returns, and until `shutdown` is cancelled.
///
/// # Errors
/// [`AanfError`]: the configuration makes no sense, a file or address is unusable, or the storage key is wrong.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, AanfError> {
    let config = config.with_policy()?;
    config.check()?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let server_metrics = ServerMetrics::default();
    server_metrics.register(&mut registry);
    let health = Health::new();

    let (contexts, afs) = open_state(&config).await?;
    contexts.store_metrics().register(&mut registry);
    health.ready(STORE_CHECK);
    let nrf = NrfClient::optional(config.nrf.as_ref(), &config.tls, services::AANF)?;
    let translation = match &config.udm {
        Some(udm) => {
            let client = SbiClient::new(SbiClientConfig { tls: config.tls.clone(), limits: udm.limits.clone() })?;
            let client = NrfClient::authorized(nrf.as_ref(), client);
            let pause = Duration::from_millis(udm.pause_milliseconds);
            Some(Translation::new(NudmClient::found(client, &udm.root, nrf.as_ref())?, pause))
        }
        None => None,
    };
    let tasks = TaskTracker::new();
    let notifier = Notifier {
        outbox: Arc::clone(&contexts.outbox),
        client: SbiClient::new(SbiClientConfig {
            tls: config.tls.clone(),
            limits: config.notifications.limits.clone(),
        })?
        .for_callbacks(),
        config: config.notifications.clone(),
        metrics: metrics.clone(),
    };
    let routing_indicators: Vec<String> =
        config.routing_indicators.iter().map(|indicator| indicator.as_str().to_owned()).collect();
    let policy = Arc::new(policy(config.policy, config.afs, config.kaf_lifetime_seconds)?);
    policy.register(&mut registry);
    let authorizer = Authorizer::of_function(config.authorization, services::AANF, &config.tls, &mut registry)?;
    let service = Arc::new(Service {
        contexts,
        afs,
        policy: Arc::clone(&policy),
        audit: authorizer.audit().clone(),
        routing_indicators: config.routing_indicators,
        notification_lifetime_seconds: config.notifications.lifetime_seconds,
        translation,
        metrics,
        health: health.clone(),
        retry_after_seconds: config.limits.retry_after_seconds,
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    });
    service.count();
    let server = SbiServerConfig { listen: config.listen, tls: config.tls, limits: config.limits };
    let api = router(Arc::clone(&service), &authorizer);
    let server = SbiServer::start_authorized(server, api, &authorizer, shutdown.clone(), server_metrics).await?;
    // Only now: a start that fails must leave nothing behind that goes on.
    tasks.spawn(notifier.run(shutdown.clone()));
    tasks.spawn(policy.follow(shutdown.clone()));
    for fqdn in service.afs.untold() {
        withdraw_in_background(&service, fqdn);
    }
    if let Some(nrf) = &nrf {
        nrf.register_metrics(&mut registry);
        let own = own_function(server.local_addr(), routing_indicators, authorizer.demands_tokens());
        nrf.keep_registered(&own, health.clone(), shutdown.clone());
    }
    let admin = match config.admin {
        Some(listen) => Some(AdminServer::start(listen, Arc::new(registry), health, shutdown).await?),
        None => None,
    };
    tracing::info!(address = %server.local_addr(), "AKMA anchor function ready");
    tasks.close();
    Ok(Running { server, admin, nrf, tasks })
}

/// The entries of the policy file, made anew when it changes; those of the configuration where none is named.
fn policy(path: Option<PathBuf>, afs: Vec<AfConfig>, kaf_lifetime_seconds: u64) -> Result<Rules<Policy>, AanfError> {
    let Some(path) = path else { return Ok(Rules::fixed(Policy::new(afs, kaf_lifetime_seconds))) };
    Ok(Rules::of_file(path, move |path| Ok(Policy::new(PolicyFile::read(path)?.afs, kaf_lifetime_seconds)))?)
}

/// What the NRF is told.
fn own_function(listen: SocketAddr, routing_indicators: Vec<String>, oauth2_required: bool) -> OwnFunction {
    let (name, consumers) = (services::NAANF_AKMA.service, &[services::AUSF, services::AF, services::NEF]);
    let service = OwnService { name, version: "v1", listen, consumers };
    OwnFunction { services: vec![service], oauth2_required, routing_indicators }
}

/// Recovery and counting block; they get a thread of their own.
async fn open_state(config: &Config) -> Result<(Contexts, DisabledAfs), AanfError> {
    let sealer = Sealer::open(config.storage_key.as_deref())?;
    let (data, options, tables) = (config.data.clone(), config.store.clone(), config.tables.clone());
    let (outlives, pending_max) = (config.kaf_may_outlive_kakma, config.notifications.pending_max);
    tokio::task::spawn_blocking(move || {
        let database = Database::open(&data, options)?;
        let afs = DisabledAfs::open(&database, tables.disabled_afs_max)?;
        Ok((Contexts::open(database, sealer, tables, outlives, pending_max)?, afs))
    })
    .await
    .unwrap_or_else(|_| Err(AanfError::Configuration("the state could not be opened".to_owned())))
}
