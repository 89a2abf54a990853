//! Wiring: state, clients, the servers for both sides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::post;
use prometheus_client::registry::Registry;
use sbi::admin::{AdminServer, Health};
use sbi::audit::Audit;
use sbi::capif::aef::ExposingFunction;
use sbi::nrf::{NrfClient, OwnFunction};
use sbi::openapi::Api;
use sbi::policy::{self, Rules};
use sbi::{OperationMetrics, SbiError, SbiServer, SbiServerConfig, ServerMetrics, openapi, services};
use store::Database;
use tokio_util::sync::CancellationToken;
use transport::ApiPskAcceptor;

use super::af::Afs;
use super::akma::{self, Akma};
use super::caller::authenticate;
use super::capif;
use super::config::{Config, PolicyFile};
use super::disable_relay;
use super::msgin5g::{self, MsGin5g, Records, inside_router, resume};
use super::service::Service;
use super::token::{TOKEN_ENDPOINT, Tokens, token};
use crate::counts::DurableCounts;
use crate::error::ExposureError;

/// The function at work. It stops when the token it was started with is cancelled.
#[derive(Debug)]
pub struct Running {
    outside: SbiServer,
    inside: Option<SbiServer>,
    psk: Option<SbiServer>,
    admin: Option<AdminServer>,
    nrf: Option<NrfClient>,
}

impl Running {
    /// Where application functions outside are served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.outside.local_addr()
    }

    /// Where the MSGin5G Server's deliveries are taken, if they are.
    #[must_use]
    pub fn inside_addr(&self) -> Option<SocketAddr> {
        self.inside.as_ref().map(SbiServer::local_addr)
    }

    /// Where API invokers with AEF_PSK are served, if they are.
    #[must_use]
    pub fn psk_addr(&self) -> Option<SocketAddr> {
        self.psk.as_ref().map(SbiServer::local_addr)
    }

    /// Where health and metrics are served, if they are.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::local_addr)
    }

    /// Waits until the function has stopped: requests answered, connections closed.
    pub async fn stopped(&self) {
        self.outside.stopped().await;
        if let Some(inside) = &self.inside {
            inside.stopped().await;
        }
        if let Some(psk) = &self.psk {
            psk.stopped().await;
        }
        if let Some(nrf) = &self.nrf {
            nrf.stopped().await;
        }
        if let Some(admin) = &self.admin {
            admin.stopped().await;
        }
    }
}

/// Starts the function; it serves when this returns, and until `shutdown` is cancelled.
///
/// # Errors
/// [`ExposureError`]: the configuration makes no sense, or a file or address is unusable.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, ExposureError> {
    let (config, afs) = with_rules(config)?;
    let mut registry = Registry::default();
    let (outside_metrics, inside_metrics) = (ServerMetrics::default(), ServerMetrics::default());
    outside_metrics.register(registry.sub_registry_with_prefix("nef_outside"));
    inside_metrics.register(registry.sub_registry_with_prefix("nef_inside"));
    let health = Health::new();
    let nrf = NrfClient::optional(config.nrf.as_ref(), &config.inside, services::NEF)?;
    let service = Arc::new(build(&config, afs, nrf.as_ref(), &mut registry).await?);
    health.ready(STORE_CHECK);

    // The inside first: before an AS can register, the server can deliver to it.
    let inside = match &config.msgin5g {
        Some(msgin5g) => {
            let server =
                SbiServerConfig { listen: msgin5g.listen, tls: config.inside.clone(), limits: msgin5g.limits.clone() };
            let router = inside_router(Arc::clone(&service)).merge(disable_relay::router(Arc::clone(&service)));
            Some(SbiServer::start_admitting(server, router, shutdown.clone(), inside_metrics).await?)
        }
        None => None,
    };
    if let (Some(inside), Some(msgin5g)) = (&inside, &service.msgin5g) {
        msgin5g.listens_at(inside.local_addr());
    }
    if let (Some(inside), Some(relay)) = (&inside, service.akma.as_ref().and_then(|akma| akma.relay.as_ref())) {
        relay.listens_at(inside.local_addr());
    }
    tokio::spawn(resume(Arc::clone(&service), shutdown.clone()));
    tokio::spawn(Arc::clone(&service.afs).follow(shutdown.clone()));
    let server = SbiServerConfig { listen: config.listen, tls: config.tls, limits: config.limits };
    let mut router = router(&service);
    let exposing = match config.capif {
        Some(capif) => {
            let apis = capif::apis(config.akma.is_some(), config.msgin5g.is_some());
            let counts = open_counts(capif.data.join(COUNTS_DIRECTORY)).await?;
            Some(ExposingFunction::start(capif, apis, service.audit.clone(), counts, shutdown.clone())?)
        }
        None => None,
    };
    if let Some(exposing) = &exposing {
        router = exposing.protect(router).merge(exposing.routes());
    }
    router = router.merge(openapi::router(&described(&service, exposing.is_some())));
    let psk = match (exposing, config.capif_psk_listen) {
        (Some(exposing), Some(listen)) => {
            let acceptor = ApiPskAcceptor::new(Arc::new(exposing)).map_err(SbiError::from)?;
            let (router, shutdown, metrics) = (router.clone(), shutdown.clone(), outside_metrics.clone());
            Some(SbiServer::start_psk(listen, server.limits.clone(), acceptor, router, shutdown, metrics).await?)
        }
        _ => None,
    };
    let outside = SbiServer::start_admitting(server, router, shutdown.clone(), outside_metrics).await?;
    if let Some(nrf) = &nrf {
        nrf.register_metrics(&mut registry);
        // What it offers is for those outside, who do not ask an NRF, and for the server, whose deliveries have no tokens.
        nrf.keep_registered(&OwnFunction::default(), health.clone(), shutdown.clone());
    }
    let admin = match config.admin {
        Some(listen) => Some(AdminServer::start(listen, Arc::new(registry), health, shutdown).await?),
        None => None,
    };
    tracing::info!(address = %outside.local_addr(), "NEF ready");
    Ok(Running { outside, inside, psk, admin, nrf })
}

/// Everything outside may ask: a token, and with a token the rest.
fn router(service: &Arc<Service>) -> Router {
    let mut apis = Router::new();
    if service.akma.is_some() {
        apis = apis.merge(akma::router());
    }
    if service.msgin5g.is_some() {
        apis = apis.merge(msgin5g::router());
    }
    apis.route_layer(from_fn_with_state(Arc::clone(service), authenticate))
        .route(TOKEN_ENDPOINT, post(token))
        .with_state(Arc::clone(service))
}

/// What is served outside, as its OpenAPI document has it.
fn described(service: &Service, exposing: bool) -> Vec<Api> {
    let mut apis = Vec::new();
    if service.akma.is_some() {
        apis.push(openapi::nef_akma());
    }
    if service.msgin5g.is_some() {
        // Messages of UEs behind a gateway come from inside the domain.
        let deliveries = openapi::msgs_msg_delivery().without("/deliver-ue-message");
        apis.extend([openapi::msgs_as_registration(), deliveries, openapi::msgs_topiclist_event()]);
    }
    if exposing {
        apis.push(openapi::aef_security());
    }
    apis
}

/// The configuration, checked, and the entries for application functions: those of the policy file as they stand there, if one
/// is named.
fn with_rules(config: Config) -> Result<(Config, Rules<Afs>), ExposureError> {
    let Some(path) = config.policy.clone() else {
        config.check()?;
        let afs = Afs::new(config.afs.clone());
        return Ok((config, Rules::fixed(afs)));
    };
    let base = config.clone();
    let config = config.with_policy()?;
    config.check()?;
    let rules = Rules::of_file(path, move |path| {
        let afs = policy::read::<PolicyFile>(path)?.afs;
        let config = Config { policy: None, afs, ..base.clone() };
        config.check().map_err(|error| error.in_policy(path, "nef."))?;
        Ok(Afs::new(config.afs))
    })?;
    Ok((config, rules))
}

async fn build(
    config: &Config,
    afs: Rules<Afs>,
    nrf: Option<&NrfClient>,
    registry: &mut Registry,
) -> Result<Service, ExposureError> {
    let audit = Audit::default();
    audit.register(registry);
    afs.register(registry);
    let operations = OperationMetrics::register(registry.sub_registry_with_prefix("nef"));
    let msgin5g = match &config.msgin5g {
        Some(msgin5g) => {
            let records = open_records(config).await?;
            records.store_metrics().register(registry);
            Some(MsGin5g::new(msgin5g, config, nrf, records)?)
        }
        None => None,
    };
    Ok(Service {
        tokens: Tokens::open(&config.tokens)?,
        akma: config.akma.as_ref().map(|akma| Akma::new(akma, config, nrf)).transpose()?,
        retry_after_seconds: config.limits.retry_after_seconds,
        afs: Arc::new(afs),
        audit,
        operations,
        msgin5g,
    })
}

/// Recovery blocks; it gets a thread of its own.
async fn open_records(config: &Config) -> Result<Records, ExposureError> {
    let (data, options) = (config.data.clone(), config.store.clone());
    tokio::task::spawn_blocking(move || Records::open(Database::open(&data, options)?))
        .await
        .unwrap_or_else(|_| Err(ExposureError::Configuration("the state could not be opened".to_owned())))
}

/// The same of the counts of API invokers' calls.
async fn open_counts(path: PathBuf) -> Result<Arc<DurableCounts>, ExposureError> {
    tokio::task::spawn_blocking(move || Ok(Arc::new(DurableCounts::open(&path)?)))
        .await
        .unwrap_or_else(|_| Err(ExposureError::Configuration("the counts could not be opened".to_owned())))
}

/// Directory of the counts, below that of the registration.
const COUNTS_DIRECTORY: &str = "counts";
/// Name of the health check of the database.
const STORE_CHECK: &str = "store";
