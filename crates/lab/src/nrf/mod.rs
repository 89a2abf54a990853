//! NRF: who is in the network, and access tokens for its services (TS 29.510, TS 33.501 clause 13.4.1).
//!
//! | Resource | Who may ask |
//! |---|---|
//! | `PUT`, `PATCH`, `DELETE /nnrf-nfm/v1/nf-instances/{nfInstanceID}` | the instance itself |
//! | `GET /nnrf-nfm/v1/nf-instances`, `GET .../{nfInstanceID}` | every network function |
//! | `/nnrf-nfm/v1/subscriptions` | every network function; its own only |
//! | `GET /nnrf-disc/v1/nf-instances` | every network function, as the type that its certificate names |
//! | `POST /oauth2/token` | every network function, in its own name |
//! | `GET /oauth2/jwks` (ours), `GET /openapi.json` | everybody with a certificate |
//!
//! Who asks is the NF instance ID in the TLS certificate; at the token endpoint a valid client credentials assertion goes
//! before it (TS 33.501 clause 13.3.8). What a function is, is what the certificate's nfTypes extension says (RFC 9310).
//!
//! Registrations live in memory: after a restart signs of life are answered 404, and functions register anew.

mod discovery;
mod identity;
mod key;
mod management;
mod policy;
mod registry;
mod subscriptions;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post, put};
use prometheus_client::registry as metrics;
use sbi::assertion::AssertionKeys;
use sbi::audit::Audit;
use sbi::nrf::{DISCOVERY_PATH, MANAGEMENT_PATH, TOKEN_PATH};
use sbi::token::{PlmnId, TokenSigner};
use sbi::{ClientLimits, PeerIdentity, SbiClient, SbiClientConfig, SbiServer, SbiServerConfig, ServerMetrics, openapi};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use policy::{ProducerConfig, ScopeConfig};

use crate::LabError;
use identity::Asked;
use policy::Policy;
use registry::{Event, Registry};
use subscriptions::Subscriptions;

/// Configuration of the NRF.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Own NF instance ID, as in the certificate: the issuer of its tokens.
    pub nf_instance_id: Uuid,
    /// Where to listen, with which certificate; the same certificate is shown to those who are notified.
    pub sbi: SbiServerConfig,
    /// Root of the URIs handed out, where it is not `https://` and the address listened on.
    #[serde(default)]
    pub api_root: Option<String>,
    /// PEM file of the key that signs tokens; made with mode 0600 on first use.
    pub token_key: PathBuf,
    /// File that the public key is written to at every start, as a JSON Web Key Set, for producers.
    #[serde(default)]
    pub jwks: Option<PathBuf>,
    /// How long a token is good, in seconds.
    #[serde(default = "default_token_lifetime_seconds")]
    pub token_lifetime_seconds: u64,
    /// The PLMN; requests that name another are refused.
    #[serde(default)]
    pub plmn: Option<PlmnId>,
    /// Producers that do not register themselves.
    #[serde(default, rename = "producer")]
    pub producers: Vec<ProducerConfig>,
    /// Who may have which scope, beyond what profiles say.
    #[serde(default, rename = "scope")]
    pub scopes: Vec<ScopeConfig>,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
}

/// Every limit of the NRF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Profiles. One more is refused with 500, INSUFFICIENT_RESOURCES.
    pub profiles_max: usize,
    /// Octets of a profile as JSON. A longer one is refused with 413.
    pub profile_octets_max: usize,
    /// Time between signs of life that functions are told.
    pub heart_beat_seconds: u32,
    /// How much later than that a sign of life may come. Then the function is suspended.
    pub heart_beat_grace_seconds: u32,
    /// How long a suspended function is remembered. Then it is removed.
    pub suspended_kept_seconds: u32,
    /// Subscriptions. One more is refused with 500, INSUFFICIENT_RESOURCES.
    pub subscriptions_max: usize,
    /// Subscriptions of one function. One more is refused with 403, TOO_MANY_SUBSCRIPTIONS.
    pub subscriptions_per_instance_max: usize,
    /// How long a subscription lasts at most. Then it is removed.
    pub subscription_seconds_max: u32,
    /// Notifications that wait for one subscriber. One more is lost.
    pub notifications_waiting_max: usize,
    /// For each notification. Then it is lost.
    pub notification_timeout_milliseconds: u64,
    /// Instances in one answer of a discovery, whatever it asks for.
    pub discovery_instances_max: usize,
    /// How long that answer may be used again.
    pub discovery_validity_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            profiles_max: 1_024,
            profile_octets_max: 32_768,
            heart_beat_seconds: 10,
            heart_beat_grace_seconds: 5,
            suspended_kept_seconds: 3_600,
            subscriptions_max: 256,
            subscriptions_per_instance_max: 16,
            subscription_seconds_max: 86_400,
            notifications_waiting_max: 64,
            notification_timeout_milliseconds: 2_000,
            discovery_instances_max: 64,
            discovery_validity_seconds: 30,
        }
    }
}

/// A running NRF.
pub struct Running {
    server: SbiServer,
    nrf: Arc<Nrf>,
}

impl Running {
    /// The address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// NF instance IDs of the functions that are registered and not suspended.
    #[must_use]
    pub fn registered(&self) -> Vec<Uuid> {
        self.nrf.registry().usable()
    }

    /// Waits until the NRF has stopped.
    pub async fn stopped(&self) {
        self.server.stopped().await;
    }
}

pub(crate) struct Nrf {
    nf_instance_id: Uuid,
    api_root: String,
    registry: Mutex<Registry>,
    subscriptions: Subscriptions,
    policy: Policy,
    signer: TokenSigner,
    assertions: AssertionKeys,
    audit: Audit,
    plmn: Option<PlmnId>,
    token_lifetime_seconds: u64,
    limits: Limits,
}

impl Nrf {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked<'a>(&'a self, peer: &'a PeerIdentity, action: &'static str) -> Asked<'a> {
        Asked { audit: &self.audit, peer, action }
    }

    fn instance_uri(&self, id: Uuid) -> String {
        format!("{}{MANAGEMENT_PATH}/nf-instances/{id}", self.api_root)
    }

    /// Tells the subscribers.
    fn tell(&self, event: &Event) {
        self.subscriptions.tell(event, &self.instance_uri(event.profile.nf_instance_id));
    }
}

/// Makes the key that signs tokens, if it is not there, and writes the public one, so that producers can start before the
/// NRF does.
pub(crate) fn create_key(token_key: &std::path::Path, jwks: &std::path::Path) -> Result<(), LabError> {
    key::write_jwks(jwks, &key::open_or_create(token_key)?)
}

/// Starts the NRF; it runs until `shutdown` is cancelled.
///
/// # Errors
/// When a key file or a certificate cannot be used, a policy names no scope, or the address is taken.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, LabError> {
    start_observed(config, shutdown, &mut metrics::Registry::default()).await
}

/// The same, with its metrics in `registry`: who was given tokens and who was not, among them.
///
/// # Errors
/// As [`start`].
pub async fn start_observed(
    config: Config,
    shutdown: CancellationToken,
    registry: &mut metrics::Registry,
) -> Result<Running, LabError> {
    if config.api_root.is_none() && config.sbi.listen.port() == 0 {
        return Err(LabError::Configuration("nrf: listening on port 0 needs api_root".to_owned()));
    }
    let limits = config.limits;
    let signer = key::open_or_create(&config.token_key)?;
    if let Some(path) = &config.jwks {
        key::write_jwks(path, &signer)?;
    }
    let client = SbiClient::new(SbiClientConfig {
        tls: config.sbi.tls.clone(),
        limits: ClientLimits {
            request_timeout_milliseconds: limits.notification_timeout_milliseconds,
            ..ClientLimits::default()
        },
    })?
    .for_callbacks();
    let wrong = |error: &dyn std::error::Error| LabError::Configuration(error.to_string());
    let api_root = config.api_root.unwrap_or_else(|| format!("https://{}", config.sbi.listen));
    let nrf = Arc::new(Nrf {
        nf_instance_id: config.nf_instance_id,
        api_root: api_root.trim_end_matches('/').to_owned(),
        registry: Mutex::new(Registry::new(limits)),
        subscriptions: Subscriptions::new(client, limits, shutdown.clone()),
        policy: Policy::new(config.producers, config.scopes)?,
        signer,
        assertions: AssertionKeys::open(&config.sbi.tls).map_err(|error| wrong(&error))?,
        audit: Audit::default(),
        plmn: config.plmn,
        token_lifetime_seconds: config.token_lifetime_seconds,
        limits,
    });
    nrf.audit.register(registry);
    let metrics = ServerMetrics::default();
    metrics.register(registry);
    let server = SbiServer::start_observed(config.sbi, router(Arc::clone(&nrf)), shutdown.clone(), metrics).await?;
    tokio::spawn(watch(Arc::clone(&nrf), shutdown));
    tracing::info!(address = %server.local_addr(), key = nrf.signer.key_id(), "NRF ready");
    Ok(Running { server, nrf })
}

fn router(nrf: Arc<Nrf>) -> Router {
    let management = Router::new()
        .route("/nf-instances", get(management::list).options(management::options))
        .route(
            "/nf-instances/{nf_instance_id}",
            put(management::register).patch(management::update).get(management::read).delete(management::deregister),
        )
        .route("/subscriptions", post(management::subscribe))
        .route("/subscriptions/{id}", axum::routing::patch(management::prolong).delete(management::unsubscribe));
    let discovery = Router::new().route("/nf-instances", get(discovery::discover));
    Router::new()
        .nest(MANAGEMENT_PATH, management)
        .nest(DISCOVERY_PATH, discovery)
        .route(TOKEN_PATH, post(token::token))
        .route(JWKS_PATH, get(token::keys))
        .merge(openapi::router(&[
            openapi::nnrf_nf_management(),
            openapi::nnrf_nf_discovery(),
            openapi::nnrf_access_token(),
        ]))
        .with_state(nrf)
}

/// Suspends whoever gives no sign of life.
async fn watch(nrf: Arc<Nrf>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let events = nrf.registry().overdue(Instant::now());
        for event in events {
            let profile = &event.profile;
            tracing::warn!(
                nf_instance_id = %profile.nf_instance_id, nf_type = %profile.nf_type, status = ?profile.nf_status,
                "no sign of life in time"
            );
            nrf.tell(&event);
        }
        nrf.subscriptions.remove_ended();
    }
}

fn default_token_lifetime_seconds() -> u64 {
    600
}

/// Path of the public key, a JSON Web Key Set (RFC 7517). TS 29.510 has no such resource.
pub const JWKS_PATH: &str = "/oauth2/jwks";
/// How often it is looked who is overdue.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
