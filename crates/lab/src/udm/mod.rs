//! UDM/ARPF: the home network's keeper of subscribers and their keys (TS 29.503).
//!
//! | Resource | Who may ask |
//! |---|---|
//! | `POST /nudm-ueau/v1/{supiOrSuci}/security-information/generate-auth-data` | `ausf_callers` |
//! | `POST /nudm-ueau/v1/{supi}/auth-events`, `PUT .../auth-events/{authEventId}` | `ausf_callers` |
//! | `GET /nudm-sdm/v2/{ueId}/id-translation-result` | `translation_callers` |
//! | `/lab-subscribers/v1/subscribers` (ours, see [`SubscriberClient`]) | `provisioning_callers` |
//!
//! A caller is the NF instance ID in its certificate.

mod authentication;
mod events;
mod home_keys;
mod identifiers;
mod provisioning;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use akma::SuciHomeKeys;
use axum::Router;
use axum::routing::{get, post, put};
use prometheus_client::registry::Registry;
use sbi::admin::Health;
use sbi::audit::Audit;
use sbi::authorization::{AuthorizationConfig, Authorizer, ServiceScopes};
use sbi::nausf::NausfClient;
use sbi::nrf::{NrfClient, NrfConfig, OwnFunction, OwnService};
use sbi::{
    ClientLimits, ProblemDetails, SbiClient, SbiClientConfig, SbiServer, SbiServerConfig, ServerMetrics, openapi,
    services,
};
use serde::{Deserialize, Serialize};
use store::{Database, DatabaseOptions};
use tokio_util::sync::CancellationToken;

pub use home_keys::HomeKey;
pub use provisioning::SubscriberClient;
pub use table::SubscriberTable;

use crate::LabError;
use crate::authorisation::AllowedCallers;

/// Configuration of the UDM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen, with which certificate.
    pub sbi: SbiServerConfig,
    /// Directory of the durable state.
    pub state: PathBuf,
    /// How requests are authorised before the callers below are looked for.
    #[serde(default)]
    pub authorization: AuthorizationConfig,
    /// NF instance IDs that may ask for authentication vectors and report authentications: AUSFs.
    #[serde(default)]
    pub ausf_callers: AllowedCallers,
    /// NF instance IDs that may translate SUPI to GPSI: AAnF, NEF.
    #[serde(default)]
    pub translation_callers: AllowedCallers,
    /// NF instance IDs that may add, list and remove subscribers.
    #[serde(default)]
    pub provisioning_callers: AllowedCallers,
    /// The home network's keys for concealed SUPIs.
    #[serde(default)]
    pub home_network_keys: Vec<HomeKey>,
    /// Whether a SUCI of the null scheme, which conceals nothing, is taken (TS 33.501 clause 6.12.2).
    #[serde(default)]
    pub accept_null_scheme: bool,
    /// Root of the AUSF that is told of a subscriber removed, so that what it has of that UE ends, its AKMA context with it
    /// (TS 29.509 clause 5.2.2.5). Without one an AKMA context lives on.
    #[serde(default)]
    pub ausf: Option<String>,
    /// The NRF that it registers at, and that gives it access tokens; none if absent.
    #[serde(default)]
    pub nrf: Option<NrfConfig>,
}

/// A running UDM.
pub struct Running {
    server: SbiServer,
    nrf: Option<NrfClient>,
    table: SubscriberTable,
}

impl Running {
    /// The address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The subscriber table, for whoever runs the UDM.
    #[must_use]
    pub fn subscribers(&self) -> &SubscriberTable {
        &self.table
    }

    /// Waits until the UDM has stopped.
    pub async fn stopped(&self) {
        self.server.stopped().await;
        if let Some(nrf) = &self.nrf {
            nrf.stopped().await;
        }
    }
}

pub(crate) struct Udm {
    audit: Audit,
    table: SubscriberTable,
    home_keys: SuciHomeKeys,
    ausf_callers: AllowedCallers,
    translation_callers: AllowedCallers,
    provisioning_callers: AllowedCallers,
    ausf: Option<NausfClient>,
}

/// Starts the UDM; it runs until `shutdown` is cancelled.
///
/// # Errors
/// When the state, a key file or a certificate cannot be used, or the address is taken.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, LabError> {
    start_observed(config, shutdown, &mut Registry::default()).await
}

/// The same, with its metrics in `registry`.
///
/// # Errors
/// As [`start`].
pub async fn start_observed(
    config: Config,
    shutdown: CancellationToken,
    registry: &mut Registry,
) -> Result<Running, LabError> {
    let nrf = NrfClient::optional(config.nrf.as_ref(), &config.sbi.tls, services::UDM)?;
    let ausf = match config.ausf {
        Some(root) => {
            let http =
                SbiClient::new(SbiClientConfig { tls: config.sbi.tls.clone(), limits: ClientLimits::default() })?;
            Some(NausfClient::new(NrfClient::authorized(nrf.as_ref(), http), root))
        }
        None => None,
    };
    let database = Database::open(&config.state, DatabaseOptions::default())?;
    let table = SubscriberTable::open(&database)?;
    config.authorization.check().map_err(|error| LabError::Configuration(format!("udm: {error}")))?;
    let authorizer = Authorizer::of_function(config.authorization, services::UDM, &config.sbi.tls, registry)?;
    let udm = Arc::new(Udm {
        audit: authorizer.audit().clone(),
        table: table.clone(),
        home_keys: home_keys::load(&config.home_network_keys, config.accept_null_scheme)?,
        ausf_callers: config.ausf_callers,
        translation_callers: config.translation_callers,
        provisioning_callers: config.provisioning_callers,
        ausf,
    });
    let metrics = ServerMetrics::default();
    metrics.register(registry);
    let router = router(&udm, &authorizer);
    let server = SbiServer::start_authorized(config.sbi, router, &authorizer, shutdown.clone(), metrics).await?;
    if let Some(nrf) = &nrf {
        nrf.register_metrics(registry);
        let own = own_function(server.local_addr(), authorizer.demands_tokens());
        nrf.keep_registered(&own, Health::new(), shutdown);
    }
    tracing::info!(address = %server.local_addr(), "UDM ready");
    Ok(Running { server, nrf, table })
}

/// What the NRF is told.
fn own_function(listen: SocketAddr, oauth2_required: bool) -> OwnFunction {
    let service = |name, version, consumers| OwnService { name, version, listen, consumers };
    OwnFunction {
        services: vec![
            service(services::NUDM_UEAU.service, "v1", &[services::AUSF]),
            service(services::NUDM_SDM.service, "v2", &[services::AANF, services::NEF]),
        ],
        oauth2_required,
        ..OwnFunction::default()
    }
}

fn router(udm: &Arc<Udm>, authorizer: &Arc<Authorizer>) -> Router {
    let authentication = Router::new()
        .route(
            "/nudm-ueau/v1/{supi_or_suci}/security-information/generate-auth-data",
            post(authentication::generate_auth_data),
        )
        .route("/nudm-ueau/v1/{supi}/auth-events", post(events::confirm))
        .route("/nudm-ueau/v1/{supi}/auth-events/{id}", put(events::remove))
        .with_state(Arc::clone(udm));
    let translation = Router::new()
        .route("/nudm-sdm/v2/{ue_id}/id-translation-result", get(identifiers::translate))
        .with_state(Arc::clone(udm));
    let subscribers = Router::new()
        .route("/lab-subscribers/v1/subscribers", get(provisioning::list))
        .route("/lab-subscribers/v1/subscribers/{supi}", put(provisioning::put).delete(provisioning::remove))
        .with_state(Arc::clone(udm));
    authorizer
        .protect(authentication, &services::NUDM_UEAU)
        .merge(authorizer.protect(translation, &services::NUDM_SDM))
        .merge(authorizer.protect(subscribers, &LAB_SUBSCRIBERS))
        .merge(openapi::router(&[openapi::nudm_ue_authentication()]))
}

/// The provisioning API, which is ours.
pub(crate) static LAB_SUBSCRIBERS: ServiceScopes = ServiceScopes { service: "lab-subscribers", operations: &[] };

/// TS 29.503 table 6.3.7.3-1.
const USER_NOT_FOUND: &str = "USER_NOT_FOUND";

fn user_not_found() -> ProblemDetails {
    ProblemDetails::not_found(USER_NOT_FOUND)
}

/// A fault of ours: the log gets the reason, the caller gets 500, or 503 where coming back helps.
fn fault(error: LabError) -> ProblemDetails {
    match error {
        LabError::Store(error) if error.is_refusal() => {
            tracing::warn!(%error, "the subscriber table takes no more for now");
            ProblemDetails::overloaded(1)
        }
        LabError::Subscription(reason) => {
            ProblemDetails::bad_request(sbi::cause::MANDATORY_IE_INCORRECT).with_detail(reason)
        }
        error => {
            tracing::error!(%error, "the subscriber table failed");
            ProblemDetails::internal()
        }
    }
}
