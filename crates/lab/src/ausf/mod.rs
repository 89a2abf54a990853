//! AUSF: authenticates UEs for serving networks and hands AKMA its keys (TS 29.509, TS 33.501 clause 6.1.3).
//!
//! ```text
//! POST /ue-authentications ──► UDM: vector ──► 201, challenge, link
//!        5G AKA:   PUT  .../5g-aka-confirmation   RES* against XRES*
//!        EAP-AKA': POST .../eap-session           AT_MAC and AT_RES; a synchronisation failure begins anew
//! success ──► UDM: auth-events
//!         ──► AKMA allowed: K_AKMA, A-KID ──► AAnF: register-anchorkey ──► answer to the serving network
//!             not (any more) ──► AAnF: remove-context
//! ```
//!
//! AKMA keys are derived only after the UE has proved itself (TS 33.535 clause 6.1), and the AAnF is asked to take them
//! before the serving network is answered, so that a UE told of success finds its A-KID known. Where the AAnF does not
//! take them the authentication still succeeds: access to the network does not hang on AKMA. The A-KID then stays
//! unknown, every application function refuses it, and the UE gets a usable one by authenticating again.

mod akma_anchor;
mod contexts;
mod eap_session;
mod five_g_aka;
mod initiation;
mod results;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use akma::{HomeNetwork, KAusf, RoutingIndicator, ServingNetworkName, Supi};
use axum::Router;
use axum::routing::{post, put};
use prometheus_client::registry::Registry;
use sbi::admin::Health;
use sbi::audit::Audit;
use sbi::authorization::{AuthorizationConfig, Authorizer};
use sbi::naanf::{AnchorRoute, NaanfClient};
use sbi::nrf::{AanfSelection, NrfClient, NrfConfig, OwnFunction, OwnService, peer_fault};
use sbi::nudm::NudmClient;
use sbi::{
    ClientLimits, ProblemDetails, SbiClient, SbiClientConfig, SbiServer, SbiServerConfig, ServerMetrics, cause,
    openapi, services,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::LabError;
use crate::authorisation::AllowedCallers;
use contexts::{Contexts, Full, Taken};
use eap_session::EapContext;
use five_g_aka::FiveGAkaContext;
use results::AuthenticationResult;

/// Configuration of the AUSF.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Own NF instance ID, as in the certificate.
    pub nf_instance_id: Uuid,
    /// The home network whose subscribers it authenticates.
    pub home_network: HomeNetwork,
    /// Root of the UDM, or `nrf` to have the NRF find it ([`sbi::nrf::ProducerRoot`]).
    pub udm: String,
    /// Root of the AAnF, or `nrf` to have the NRF find the one that serves the subscriber's routing indicator; without one
    /// no UE gets AKMA keys.
    #[serde(default)]
    pub aanf: Option<String>,
    /// AAnFs for the UEs of some routing indicators; `aanf` has the others.
    #[serde(default)]
    pub aanf_routes: Vec<AnchorRoute>,
    /// The NRF that it registers at and that gives it access tokens; none if absent.
    #[serde(default)]
    pub nrf: Option<NrfConfig>,
    /// NF instance IDs that may authenticate UEs: AMFs.
    #[serde(default)]
    pub callers: AllowedCallers,
    /// NF instance IDs that may, besides, have it forget a UE: UDMs (TS 29.509 clause 5.2.2.5).
    #[serde(default)]
    pub deregistration_callers: AllowedCallers,
    /// Serving networks that may authenticate our subscribers. The home network itself needs no mention.
    #[serde(default)]
    pub serving_networks: Vec<ServingNetworkName>,
    /// How requests are authorised before `callers` are looked for.
    #[serde(default)]
    pub authorization: AuthorizationConfig,
    /// Root of the URIs handed out, where it is not `https://` and the address listened on.
    #[serde(default)]
    pub api_root: Option<String>,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// Where to listen, with which certificate; the same certificate is shown to UDM and AAnF.
    pub sbi: SbiServerConfig,
}

/// Every limit of the AUSF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Authentications under way. When reached: 503 with `Retry-After`.
    pub contexts_max: usize,
    /// How long a UE has for its answer; then 404 CONTEXT_NOT_FOUND.
    pub context_lifetime_seconds: u64,
    /// Results that can still be deleted. When reached, later ones cannot.
    pub results_max: usize,
    /// How long a result can be deleted; then 404 CONTEXT_NOT_FOUND.
    pub result_lifetime_seconds: u64,
    /// Synchronisation failures in one EAP session; one more ends it in failure.
    pub eap_resynchronisations_max: u8,
    /// For each request to UDM. Then 504, or, when a result was to be reported, nothing: the result stands.
    pub udm_timeout_milliseconds: u64,
    /// For the AAnF to take a key, all attempts together. Then the UE is authenticated without AKMA. With the time for
    /// UDM it must stay below the time that `sbi.limits` gives a request.
    pub akma_registration_timeout_milliseconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            contexts_max: 10_000,
            context_lifetime_seconds: 60,
            results_max: 10_000,
            result_lifetime_seconds: 3_600,
            eap_resynchronisations_max: 2,
            udm_timeout_milliseconds: 3_000,
            akma_registration_timeout_milliseconds: 3_000,
        }
    }
}

/// A running AUSF.
pub struct Running {
    server: SbiServer,
    nrf: Option<NrfClient>,
}

impl Running {
    /// The address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Waits until the AUSF has stopped.
    pub async fn stopped(&self) {
        self.server.stopped().await;
        if let Some(nrf) = &self.nrf {
            nrf.stopped().await;
        }
    }
}

/// What the AUSF works with.
struct Ausf {
    nf_instance_id: Uuid,
    home_network: HomeNetwork,
    udm: NudmClient,
    aanf: Option<Aanf>,
    callers: AllowedCallers,
    audit: Audit,
    /// Who may have it forget a UE.
    deregistration_callers: AllowedCallers,
    serving_networks: BTreeSet<String>,
    api_root: String,
    eap_resynchronisations_max: u8,
    akma_registration_timeout: Duration,
    contexts: Mutex<Contexts<Context>>,
    results: Mutex<Contexts<AuthenticationResult>>,
}

/// Where AKMA keys go.
enum Aanf {
    /// To the one AAnF there is.
    Fixed(Box<NaanfClient>),
    /// To the one that the NRF finds.
    Selected(Box<AanfSelection>),
}

/// One authentication under way.
struct Context {
    /// The AMF that began it; nobody else may go on with it.
    caller: Uuid,
    supi: Supi,
    serving_network_name: ServingNetworkName,
    /// Set where the subscription allows AKMA.
    akma: Option<RoutingIndicator>,
    method: Method,
}

enum Method {
    FiveGAka(FiveGAkaContext),
    Eap(Box<EapContext>),
}

/// What is known once a UE has proved itself.
struct Proven {
    supi: Supi,
    k_ausf: KAusf,
    akma: Option<RoutingIndicator>,
}

/// Starts the AUSF; it runs until `shutdown` is cancelled.
///
/// # Errors
/// When a certificate cannot be used or the address is taken.
pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Running, LabError> {
    start_observed(config, shutdown, &mut Registry::default()).await
}

/// The same, with its metrics in `registry`.
///
/// # Errors
/// As [`start`].
pub async fn start_observed(
    mut config: Config,
    shutdown: CancellationToken,
    registry: &mut Registry,
) -> Result<Running, LabError> {
    if config.api_root.is_none() && config.sbi.listen.port() == 0 {
        return Err(LabError::Configuration("ausf: listening on port 0 needs api_root".to_owned()));
    }
    if let Some(fault) = AnchorRoute::fault(&config.aanf_routes) {
        return Err(LabError::Configuration(format!("ausf: aanf_routes: {fault}")));
    }
    for (key, root) in [("udm", Some(&config.udm)), ("aanf", config.aanf.as_ref())] {
        if let Some((key, reason)) = root.and_then(|root| peer_fault(config.nrf.as_ref(), key, root)) {
            return Err(LabError::Configuration(format!("ausf: {key} {reason}")));
        }
    }
    if config.aanf.is_none() && !config.aanf_routes.is_empty() {
        return Err(LabError::Configuration("ausf: aanf_routes needs aanf".to_owned()));
    }
    let limits = config.limits;
    let nrf = NrfClient::optional(config.nrf.as_ref(), &config.sbi.tls, services::AUSF)?;
    let client = |request_timeout_milliseconds| {
        let limits = ClientLimits { request_timeout_milliseconds, ..ClientLimits::default() };
        let http = SbiClient::new(SbiClientConfig { tls: config.sbi.tls.clone(), limits })?;
        Ok::<_, LabError>(NrfClient::authorized(nrf.as_ref(), http))
    };
    let udm = client(limits.udm_timeout_milliseconds)?;
    let aanf = client(limits.akma_registration_timeout_milliseconds)?;
    let api_root = config.api_root.take().unwrap_or_else(|| format!("https://{}", config.sbi.listen));
    let mut serving_networks: BTreeSet<String> =
        config.serving_networks.iter().map(|name| name.as_str().to_owned()).collect();
    serving_networks.insert(config.home_network.serving_network_name().as_str().to_owned());
    config.authorization.check().map_err(|error| LabError::Configuration(format!("ausf: {error}")))?;
    let authorizer = Authorizer::of_function(config.authorization, services::AUSF, &config.sbi.tls, registry)?;
    let ausf = Arc::new(Ausf {
        nf_instance_id: config.nf_instance_id,
        home_network: config.home_network,
        udm: NudmClient::found(udm, &config.udm, nrf.as_ref())?,
        aanf: aanf_of(config.aanf, config.aanf_routes, aanf, nrf.as_ref())?,
        deregistration_callers: config.callers.union(&config.deregistration_callers).copied().collect(),
        callers: config.callers,
        audit: authorizer.audit().clone(),
        serving_networks,
        api_root: api_root.trim_end_matches('/').to_owned(),
        eap_resynchronisations_max: limits.eap_resynchronisations_max,
        akma_registration_timeout: Duration::from_millis(limits.akma_registration_timeout_milliseconds),
        contexts: Mutex::new(Contexts::new(limits.contexts_max, Duration::from_secs(limits.context_lifetime_seconds))),
        results: Mutex::new(Contexts::new(limits.results_max, Duration::from_secs(limits.result_lifetime_seconds))),
    });
    let metrics = ServerMetrics::default();
    metrics.register(registry);
    let router = router(ausf, &authorizer);
    let server = SbiServer::start_authorized(config.sbi, router, &authorizer, shutdown.clone(), metrics).await?;
    if let Some(nrf) = &nrf {
        nrf.register_metrics(registry);
        let (name, listen) = (services::NAUSF_AUTH.service, server.local_addr());
        let service = OwnService { name, version: "v1", listen, consumers: &["AMF", services::UDM] };
        let oauth2_required = authorizer.demands_tokens();
        let own = OwnFunction { services: vec![service], oauth2_required, ..OwnFunction::default() };
        nrf.keep_registered(&own, Health::new(), shutdown);
    }
    tracing::info!(address = %server.local_addr(), "AUSF ready");
    Ok(Running { server, nrf })
}

fn aanf_of(
    root: Option<String>,
    routes: Vec<AnchorRoute>,
    http: SbiClient,
    nrf: Option<&NrfClient>,
) -> Result<Option<Aanf>, LabError> {
    let Some(root) = root else { return Ok(None) };
    Ok(Some(match AanfSelection::of_root(&root, &http, nrf)? {
        Some(selection) => Aanf::Selected(Box::new(selection)),
        None => Aanf::Fixed(Box::new(NaanfClient::selecting(http, root, routes))),
    }))
}

fn router(ausf: Arc<Ausf>, authorizer: &Arc<Authorizer>) -> Router {
    let api = Router::new()
        .route("/ue-authentications", post(initiation::authenticate))
        .route("/ue-authentications/deregister", post(akma_anchor::deregister))
        .route("/ue-authentications/{id}/5g-aka-confirmation", put(five_g_aka::confirm).delete(results::delete))
        .route("/ue-authentications/{id}/eap-session", post(eap_session::go_on).delete(results::delete))
        .with_state(ausf);
    let api = Router::new().nest(sbi::nausf::API_PATH, api);
    authorizer.protect(api, &services::NAUSF_AUTH).merge(openapi::router(&[openapi::nausf_ue_authentication()]))
}

impl Ausf {
    fn contexts(&self) -> MutexGuard<'_, Contexts<Context>> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn results(&self) -> MutexGuard<'_, Contexts<AuthenticationResult>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, id: Uuid, context: Context) -> Result<(), ProblemDetails> {
        self.contexts().insert(id, context, tokio::time::Instant::now()).map_err(|Full { retry_after }| {
            tracing::warn!(target: "security", "too many authentications under way");
            let seconds = retry_after.as_secs().saturating_add(1);
            ProblemDetails::overloaded(u32::try_from(seconds).unwrap_or(u32::MAX))
        })
    }

    /// Takes the context `id` out, so that an authentication is decided once; only `caller`'s own, only of the method
    /// that `method` accepts.
    fn take(
        &self,
        id: &str,
        caller: Uuid,
        method: impl FnOnce(&Method) -> bool,
    ) -> Result<(Uuid, Taken<Context>), ProblemDetails> {
        let not_found = || ProblemDetails::not_found(CONTEXT_NOT_FOUND);
        let id: Uuid = id.parse().map_err(|_| not_found())?;
        let now = tokio::time::Instant::now();
        self.contexts()
            .take_if(&id, now, |context| context.caller == caller && method(&context.method))
            .map(|taken| (id, taken))
            .ok_or_else(not_found)
    }

    fn resource(&self, id: Uuid, last: &str) -> String {
        format!("{}{}/ue-authentications/{id}{last}", self.api_root, sbi::nausf::API_PATH)
    }
}

/// TS 29.509 table 6.1.7.3-1.
const CONTEXT_NOT_FOUND: &str = "CONTEXT_NOT_FOUND";
const SERVING_NETWORK_NOT_AUTHORIZED: &str = "SERVING_NETWORK_NOT_AUTHORIZED";
const AV_GENERATION_PROBLEM: &str = "AV_GENERATION_PROBLEM";
const UPSTREAM_SERVER_ERROR: &str = "UPSTREAM_SERVER_ERROR";

/// What a refusal of UDM is to the serving network.
fn udm_refusal(error: &sbi::SbiError) -> ProblemDetails {
    use axum::http::StatusCode;
    let Some(problem) = error.problem() else {
        tracing::warn!(%error, "UDM gives no vector");
        return ProblemDetails::new(StatusCode::GATEWAY_TIMEOUT).with_cause(UPSTREAM_SERVER_ERROR);
    };
    match problem.status_code() {
        // The causes of TS 29.503 table 6.3.7.3-1 are those of TS 29.509.
        status @ (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED) => {
            let refusal = ProblemDetails::new(status);
            match problem.cause.as_deref().filter(|cause| PASSED_ON.contains(cause)) {
                Some(cause) => refusal.with_cause(cause),
                None => ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR).with_cause(AV_GENERATION_PROBLEM),
            }
        }
        StatusCode::BAD_REQUEST => ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            ProblemDetails::overloaded(problem.retry_after_seconds.unwrap_or(1))
        }
        _ => {
            tracing::warn!(%error, "UDM gives no vector");
            ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR).with_cause(AV_GENERATION_PROBLEM)
        }
    }
}

/// Causes of UDM that say something about the UE, not about us.
const PASSED_ON: [&str; 5] = [
    "USER_NOT_FOUND",
    "AUTHENTICATION_REJECTED",
    "INVALID_HN_PUBLIC_KEY_IDENTIFIER",
    "INVALID_SCHEME_OUTPUT",
    "UNSUPPORTED_PROTECTION_SCHEME",
];
