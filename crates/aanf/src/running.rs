//! Wiring: database, client, servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use sbi::admin::{AdminServer, Health};
use sbi::nudm::NudmClient;
use sbi::{SbiClient, SbiClientConfig, SbiServer, SbiServerConfig, ServerMetrics};
use store::Database;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::contexts::Contexts;
use crate::error::AanfError;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::seal::Sealer;
use crate::service::{STORE_CHECK, Service, router};
use crate::translation::Translation;

/// The function at work. It stops when the token it was started with is cancelled.
#[derive(Debug)]
pub struct Running {
    server: SbiServer,
    admin: Option<AdminServer>,
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
        if let Some(admin) = &self.admin {
            admin.stopped().await;
        }
    }
}

/// Starts the function; it serves when this returns, and until `shutdown` is cancelled.
///
/// # Errors
/// [`AanfError`]: the configuration makes no sense, a file or address is unusable, or the storage key is wrong.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, AanfError> {
    config.check()?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let server_metrics = ServerMetrics::default();
    server_metrics.register(&mut registry);
    let health = Health::new();

    let contexts = open_contexts(&config).await?;
    contexts.store_metrics().register(&mut registry);
    metrics.contexts(contexts.count());
    health.ready(STORE_CHECK);
    let translation = match &config.udm {
        Some(udm) => {
            let client = SbiClient::new(SbiClientConfig { tls: config.tls.clone(), limits: udm.limits.clone() })?;
            let pause = Duration::from_millis(udm.pause_milliseconds);
            Some(Translation::new(NudmClient::new(client, udm.root.clone()), pause))
        }
        None => None,
    };
    let service = Arc::new(Service {
        contexts,
        policy: Policy::new(config.afs, config.kaf_lifetime_seconds),
        translation,
        metrics,
        health: health.clone(),
        retry_after_seconds: config.limits.retry_after_seconds,
    });
    let server = SbiServerConfig { listen: config.listen, tls: config.tls, limits: config.limits };
    let server = SbiServer::start_observed(server, router(service), shutdown.clone(), server_metrics).await?;
    let admin = match config.admin {
        Some(listen) => Some(AdminServer::start(listen, Arc::new(registry), health, shutdown).await?),
        None => None,
    };
    tracing::info!(address = %server.local_addr(), "AKMA anchor function ready");
    Ok(Running { server, admin })
}

/// Recovery and counting block; they get a thread of their own.
async fn open_contexts(config: &Config) -> Result<Contexts, AanfError> {
    let sealer = Sealer::open(config.storage_key.as_deref())?;
    let (data, options, tables) = (config.data.clone(), config.store.clone(), config.tables.clone());
    tokio::task::spawn_blocking(move || Contexts::open(Database::open(&data, options)?, sealer, tables))
        .await
        .unwrap_or_else(|_| Err(AanfError::Configuration("the state could not be opened".to_owned())))
}
