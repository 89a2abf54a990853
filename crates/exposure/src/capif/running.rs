//! Wiring: database, authority, token key, server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use prometheus_client::registry::Registry as MetricsRegistry;
use sbi::admin::{AdminServer, Health};
use sbi::audit::Audit;
use sbi::nrf::{NrfClient, OwnFunction};
use sbi::token::TokenSigner;
use sbi::{
    CertificateFiles, ClientLimits, SbiClient, SbiClientConfig, SbiServer, SbiServerConfig, ServerMetrics, services,
};
use store::Database;
use tokio_util::sync::CancellationToken;

use super::authority::{Authority, write_private};
use super::config::Config;
use super::grants::{self, Grants};
use super::notifier::Notifier;
use super::reconcile::reconcile;
use super::service::{Service, router};
use super::state::Registry;
use crate::error::ExposureError;

/// The function at work. It stops when the token it was started with is cancelled.
#[derive(Debug)]
pub struct Running {
    server: SbiServer,
    admin: Option<AdminServer>,
    nrf: Option<NrfClient>,
}

impl Running {
    /// Where it is served.
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
    }
}

/// Starts the function; it serves when this returns, and until `shutdown` is cancelled.
///
/// # Errors
/// [`ExposureError`]: the configuration makes no sense, or a file or address is unusable.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, ExposureError> {
    let (config, rules) = grants::open(config)?;
    let (data, options) = (config.data.clone(), config.store.clone());
    // Recovery and reading block; they get a thread of their own.
    let registry = tokio::task::spawn_blocking(move || Registry::open(Database::open(&data, options)?))
        .await
        .unwrap_or_else(|_| Err(ExposureError::Configuration("capif: the state could not be opened".to_owned())))?;
    let files = config.authority_files();
    let authority = Authority::open_or_create(&files, config.certificate_validity_days)?;
    let signer = signer(&config.token_key())?;
    let nrf = NrfClient::optional(config.nrf.as_ref(), &config.tls, services::AF)?;
    // Notifications only, which have no tokens (TS 33.501 clause 13.4.1).
    let client = |tls| {
        let client = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() });
        client.map(|client| client.for_callbacks())
    };
    let (to_all, to_aefs) = (client(config.tls.clone())?, client(own_certificate(&config, &authority)?)?);
    let (audit, server_metrics, health) = (Audit::default(), ServerMetrics::default(), Health::new());
    let mut metrics = MetricsRegistry::default();
    audit.register(&mut metrics);
    rules.register(&mut metrics);
    server_metrics.register(metrics.sub_registry_with_prefix("capif"));
    registry.store_metrics().register(&mut metrics);
    health.ready(STORE_CHECK);
    let service = Service {
        audit,
        registry,
        authority,
        signer,
        notifier: Notifier::new(to_all, to_aefs, config.tables.notifications_max, shutdown.clone()),
        api_root: config.api_root.as_ref().map_or_else(OnceLock::new, |root| OnceLock::from(own_root(root))),
        id: config.id.clone(),
        token_lifetime_seconds: config.token_lifetime_seconds,
        rules: Arc::new(rules),
        notification_prefixes: config.notification_prefixes,
        tables: config.tables,
    };
    // Clients come with certificates of this authority; the configured ones vouch for those that are called.
    let tls = CertificateFiles { ca: files.certificate, crl: None, ..config.tls };
    let server = SbiServerConfig { listen: config.listen, tls, limits: config.limits };
    let service = Arc::new(service);
    // What the entries say may have changed while it was down.
    reconcile(&service, &service.grants()).await;
    tokio::spawn(follow(Arc::clone(&service), shutdown.clone()));
    let router = |address: SocketAddr| {
        // Before the first request; the port that was asked for may be 0.
        service.api_root.get_or_init(|| format!("https://{address}"));
        router(service)
    };
    let server = SbiServer::start_optional_certificate(server, router, shutdown.clone(), server_metrics).await?;
    if let Some(nrf) = &nrf {
        nrf.register_metrics(&mut metrics);
        // Its APIs are no services of an NRF: who may use them, and with what, is CAPIF's own.
        nrf.keep_registered(&OwnFunction::default(), health.clone(), shutdown.clone());
    }
    let admin = match config.admin {
        Some(listen) => Some(AdminServer::start(listen, Arc::new(metrics), health, shutdown).await?),
        None => None,
    };
    tracing::info!(address = %server.local_addr(), id = config.id, "CAPIF core function ready");
    Ok(Running { server, admin, nrf })
}

/// A configured root as the paths are put behind it.
fn own_root(root: &str) -> String {
    root.trim_end_matches('/').to_owned()
}

/// Takes a changed policy file, and does what follows from it.
async fn follow(service: Arc<Service>, shutdown: CancellationToken) {
    let rules = Arc::clone(&service.rules);
    let reconciled = async |earlier: Arc<Grants>| reconcile(&service, &earlier).await;
    rules.follow_with(shutdown, reconciled).await;
}

/// A certificate of the core function's own authority for itself, made anew at each start.
fn own_certificate(config: &Config, authority: &Authority) -> Result<CertificateFiles, ExposureError> {
    let (certificate, key) = (config.data.join("core.pem"), config.data.join("core.key"));
    let made = authority.issue_own(&config.id);
    let (private, issued) = made.map_err(|error| ExposureError::Configuration(format!("capif: {error}")))?;
    let written = write_private(&key, &zeroize::Zeroizing::new(private))
        .and_then(|()| write_private(&certificate, issued.pem.as_bytes()));
    written.map_err(|error| ExposureError::Configuration(format!("{}: {error}", certificate.display())))?;
    Ok(CertificateFiles { certificate, key, ca: config.tls.ca.clone(), crl: config.tls.crl.clone() })
}

/// The key in `path`; made when it is not there.
fn signer(path: &Path) -> Result<TokenSigner, ExposureError> {
    let at = |error: &dyn std::fmt::Display| ExposureError::Configuration(format!("{}: {error}", path.display()));
    if !path.exists() {
        let key = zeroize::Zeroizing::new(TokenSigner::generate_pem().map_err(|error| at(&error))?);
        write_private(path, key.as_bytes()).map_err(|error| at(&error))?;
    }
    open_signer(path)
}

/// The key that is in `path`.
pub(crate) fn open_signer(path: &Path) -> Result<TokenSigner, ExposureError> {
    let at = |error: &dyn std::fmt::Display| ExposureError::Configuration(format!("{}: {error}", path.display()));
    let key = zeroize::Zeroizing::new(std::fs::read(path).map_err(|error| at(&error))?);
    TokenSigner::from_pem(&key).map_err(|error| at(&error))
}

/// Name of the health check of the database.
const STORE_CHECK: &str = "store";
