//! Wiring: database and servers.

use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use sbi::admin::{AdminServer, Health};
use sbi::authorization::Authorizer;
use sbi::nrf::{NrfClient, OwnFunction, OwnService};
use sbi::policy::Rules;
use sbi::{SbiServer, SbiServerConfig, ServerMetrics, services};
use store::Database;
use tokio_util::sync::CancellationToken;

use crate::associations::Associations;
use crate::changes::Changes;
use crate::coap_listener::CoapServer;
use crate::config::{Config, PolicyFile};
use crate::error::ConfigurationError;
use crate::groups::Groups;
use crate::metrics::Metrics;
use crate::service::{STORE_CHECK, Service, router};

/// The function at work. It stops when the token it was started with is cancelled.
#[derive(Debug)]
pub struct Running {
    server: SbiServer,
    coap: Option<CoapServer>,
    admin: Option<AdminServer>,
    nrf: Option<NrfClient>,
    shutdown: CancellationToken,
}

impl Running {
    /// Where the APIs are served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where UEs ask for their configuration, if they can: CoAP over TLS over TCP.
    #[must_use]
    pub fn coap_addr(&self) -> Option<SocketAddr> {
        self.coap.as_ref().map(CoapServer::local_addr)
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
        if let Some(coap) = &self.coap {
            coap.stopped(&self.shutdown).await;
        }
        if let Some(admin) = &self.admin {
            admin.stopped().await;
        }
    }
}

/// Starts the function; it serves when this returns, and until `shutdown` is cancelled.
///
/// # Errors
/// [`ConfigurationError`]: the configuration makes no sense, or a file or address is unusable.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, ConfigurationError> {
    let config = config.with_policy()?;
    config.check()?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let server_metrics = ServerMetrics::default();
    server_metrics.register(&mut registry);
    let health = Health::new();

    let (data, options, tables) = (config.data, config.store, config.tables.clone());
    // Recovery and counting block; they get a thread of their own.
    let (associations, groups) = tokio::task::spawn_blocking(move || {
        let database = Database::open(&data, options)?;
        Ok((Associations::open(database.clone(), tables.clone())?, Groups::open(database, tables)?))
    })
    .await
    .unwrap_or_else(|_| Err(ConfigurationError::Configuration("the state could not be opened".to_owned())))?;
    metrics.associations(associations.count());
    metrics.groups(groups.count());
    associations.store_metrics().register(&mut registry);
    health.ready(STORE_CHECK);
    let rules = PolicyFile { provisioners: config.provisioners, readers: config.readers };
    let policy = match config.policy {
        Some(path) => Rules::of_file(path, PolicyFile::read)?,
        None => Rules::fixed(rules),
    };
    let policy = Arc::new(policy);
    policy.register(&mut registry);
    let authorizer = Authorizer::of_function(config.authorization, services::AF, &config.tls, &mut registry)?;
    let service = Arc::new(Service {
        associations,
        groups,
        changes: Changes::default(),
        tables: config.tables,
        policy: Arc::clone(&policy),
        audit: authorizer.audit().clone(),
        metrics,
        health: health.clone(),
        retry_after_seconds: config.limits.retry_after_seconds,
    });
    let nrf = NrfClient::optional(config.nrf.as_ref(), &config.tls, services::AF)?;
    let mut coap = match config.coap {
        Some(coap) => {
            let service = Arc::clone(&service);
            Some(CoapServer::bind(coap, &config.tls, nrf.as_ref(), service, &mut registry, shutdown.clone()).await?)
        }
        None => None,
    };
    let server = SbiServerConfig { listen: config.listen, tls: config.tls, limits: config.limits };
    let mut routes = router(service, &authorizer);
    if let Some(coap) = &coap {
        routes = routes.merge(coap.disable_door(authorizer.audit()));
    }
    let server = SbiServer::start_authorized(server, routes, &authorizer, shutdown.clone(), server_metrics).await?;
    if let Some(coap) = &mut coap {
        coap.serve(server.local_addr());
    }
    tokio::spawn(policy.follow(shutdown.clone()));
    if let Some(nrf) = &nrf {
        nrf.register_metrics(&mut registry);
        let own = own_function(server.local_addr(), authorizer.demands_tokens());
        nrf.keep_registered(&own, health.clone(), shutdown.clone());
    }
    let admin = match config.admin {
        Some(listen) => Some(AdminServer::start(listen, Arc::new(registry), health, shutdown.clone()).await?),
        None => None,
    };
    let coap_address = coap.as_ref().map(|coap| coap.local_addr().to_string());
    tracing::info!(address = %server.local_addr(), coap = coap_address, "configuration function ready");
    Ok(Running { server, coap, admin, nrf, shutdown })
}

/// What the NRF is told.
fn own_function(listen: SocketAddr, oauth2_required: bool) -> OwnFunction {
    let served = [&services::SS_UPR, &services::SS_GM, &services::CONFIGURATION];
    let service = |scopes: &sbi::authorization::ServiceScopes| OwnService {
        name: scopes.service,
        version: "v1",
        listen,
        consumers: &[services::AF],
    };
    OwnFunction { services: served.into_iter().map(service).collect(), oauth2_required, ..OwnFunction::default() }
}
