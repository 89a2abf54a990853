//! The side of an API exposing function (TS 23.222, TS 33.122 clause 6.5.2): it registers a provider domain with the core
//! function, publishes its service APIs, and lets in whom the core function trusts, by the method that was agreed upon.
//!
//! 1. [`ExposingFunction::start`]: a task registers and publishes, and tries again until it is done. Until then every invoker is
//!    refused.
//! 2. [`ExposingFunction::protect`]: a request whose peer is an API invoker passes only if the core function has a security
//!    context for it that covers the API, the method is kept, and the access control policy allows it. Its handler finds
//!    [`CapifInvoker`]. A request of anybody else passes untouched, to whatever rules there are.
//! 3. [`ExposingFunction::routes`]: `aef-security/v1`, by which invokers have themselves checked and the core function ends
//!    authorizations at once.
//!
//! What the core function said is believed for `check_interval_seconds`; then it is asked again. So an off-boarding takes effect
//! at once where `revoke-authorization` arrives, and within that interval where it does not.

mod beliefs;
mod counts;
mod guard;
mod questions;
mod registration;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use akma::AefPsk;
use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use transport::profile::Authorities;
use transport::{ApiKeySource, BoxFuture, Limit};

use self::counts::Counts;
pub use self::counts::InvocationCounts;
use self::registration::Registration;
use self::trust::Trust;
use super::publish::{InterfaceDescription, Resource};
use super::security::{AefSecurityRsp, CheckAuthenticationReq, RevokeAuthorizationReq};
use crate::audit::Audit;
use crate::policy::LOOK_INTERVAL;
use crate::{Json, ProblemDetails, SbiError, services};

/// How a function exposes its APIs through a CAPIF core function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AefConfig {
    /// The core function's API root, `https://...`.
    pub core_function: String,
    /// `iss` of its tokens.
    #[serde(default = "default_issuer")]
    pub issuer: String,
    /// PEM: the authorities of its certificate.
    pub ca: PathBuf,
    /// PEM: the CAPIF authority. It alone vouches for API invokers, and for the core function when it ends authorizations:
    /// a certificate of another authority that claims to be of CAPIF is refused.
    pub invoker_ca: PathBuf,
    /// File with the registration credential; read once.
    pub registration_credential: PathBuf,
    /// Directory of keys, certificates and identities that the registration brings; made with mode 0700.
    pub data: PathBuf,
    /// Where the APIs are reached, with the methods of each interface.
    pub interfaces: Vec<InterfaceDescription>,
    /// How long an answer of the core function about an invoker is believed.
    #[serde(default = "default_check_interval")]
    pub check_interval_seconds: u64,
    /// The limits; all have defaults.
    #[serde(default)]
    pub limits: AefLimits,
}

/// Every limit, and what a caller sees when it is hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AefLimits {
    /// Invokers about whom answers are kept; the one asked about longest ago goes.
    pub invokers_max: usize,
    /// Identities that the core function does not know, remembered so that they are not asked about again at once; the oldest
    /// goes.
    pub unknown_max: usize,
    /// Questions to the core function under way; one more call gets 503, one more handshake by AEF_PSK is refused. Half of
    /// them are for identities that were vouched for before.
    pub questions_max: usize,
    /// The same of one source, an IPv4 address or an IPv6 /64, by handshakes; one more handshake is refused.
    pub questions_per_source_max: usize,
    /// Identities that nobody knows and that one source may name in 10 s; then its handshakes with such are refused unasked.
    pub unknown_per_source_max: u32,
    /// Log entries that wait to be sent; one more is dropped, which the log says.
    pub logs_waiting_max: usize,
}

impl Default for AefLimits {
    fn default() -> Self {
        Self {
            invokers_max: 10_000,
            unknown_max: 4_096,
            questions_max: 64,
            questions_per_source_max: 16,
            unknown_per_source_max: 32,
            logs_waiting_max: 1_024,
        }
    }
}

impl AefConfig {
    /// Whether it was registered at the core function before.
    pub(crate) fn is_registered(&self) -> bool {
        registration::path(self).exists()
    }

    /// The key that is wrong, and why.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if !self.core_function.starts_with("https://") {
            return Some("core_function must be an https URL".to_owned());
        }
        if !(1..=3_600).contains(&self.check_interval_seconds) {
            return Some("check_interval_seconds must be 1 to 3600".to_owned());
        }
        let limits = &self.limits;
        let wrong = Limit::fault([
            Limit::count("invokers_max", limits.invokers_max),
            Limit::count("unknown_max", limits.unknown_max).or_none(),
            Limit::count("questions_max", limits.questions_max),
            Limit::count("questions_per_source_max", limits.questions_per_source_max),
            Limit::number("unknown_per_source_max", limits.unknown_per_source_max.into()),
            Limit::count("logs_waiting_max", limits.logs_waiting_max),
        ]);
        if let Some((key, reason)) = wrong {
            return Some(format!("limits.{key} {reason}"));
        }
        let well_formed = |one: &InterfaceDescription| one.is_well_formed() && one.security_methods.is_some();
        if self.interfaces.is_empty() || !self.interfaces.iter().all(well_formed) {
            return Some("interfaces: each needs exactly one address, and securityMethods".to_owned());
        }
        None
    }
}

/// A service API to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct ExposedApi {
    /// `{apiName}` of its URIs.
    pub name: &'static str,
    /// `v1` and its like.
    pub version: &'static str,
    /// For people.
    pub description: &'static str,
    /// Its resources.
    pub resources: Vec<Resource>,
}

impl ExposedApi {
    /// Version 1 of an API with these resources: the name of each, and its path below the API's.
    #[must_use]
    pub fn new(name: &'static str, description: &'static str, resources: &[(&str, &str)]) -> Self {
        let resource = |(name, uri): &(&str, &str)| Resource {
            resource_name: (*name).to_owned(),
            comm_type: "REQUEST_RESPONSE".to_owned(),
            uri: (*uri).to_owned(),
            ..Resource::default()
        };
        Self { name, version: "v1", description, resources: resources.iter().map(resource).collect() }
    }
}

/// The APIs of TS 29.538 for Application Servers, which the MSGin5G Server and a NEF expose alike.
#[must_use]
pub fn application_server_apis() -> Vec<ExposedApi> {
    vec![
        ExposedApi::new(
            services::MSGS_ASREGISTRATION.service,
            "MSGin5G: registration of Application Servers (TS 29.538)",
            &[("AS Registrations", "/registrations")],
        ),
        ExposedApi::new(
            services::MSGS_MSGDELIVERY.service,
            "MSGin5G: messages of Application Servers (TS 29.538)",
            &[("AS Message", "/deliver-as-message"), ("Report", "/deliver-report")],
        ),
        ExposedApi::new(
            services::MSGS_TOPICLISTEVENT.service,
            "MSGin5G: Messaging Topics and lists of them (TS 29.538)",
            &[
                ("Topic List Subscriptions", "/topiclist-subscriptions"),
                ("Topic Subscription", "/request-topic-subscription"),
                ("Topic Unsubscription", "/request-topic-unsubscription"),
            ],
        ),
    ]
}

/// Whom the core function vouches for: an extension of a request that [`ExposingFunction::protect`] let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapifInvoker {
    /// API invoker ID.
    pub id: String,
    /// Names that the operator tied to the invoker's onboarding credential.
    pub names: Vec<String>,
    /// Name of the service API that is called.
    pub api_name: String,
}

/// An API exposing function. Cheap to clone.
#[derive(Clone)]
pub struct ExposingFunction {
    inner: Arc<Inner>,
}

struct Inner {
    audit: Audit,
    config: AefConfig,
    apis: Vec<ExposedApi>,
    authority: Authorities,
    trust: Trust,
}

impl std::fmt::Debug for ExposingFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExposingFunction")
            .field("core_function", &self.inner.config.core_function)
            .finish_non_exhaustive()
    }
}

impl ExposingFunction {
    /// Starts to register and publish `apis` in the background, until `shutdown`. What is refused is told to `audit`; what
    /// passes is the exposing function's to decide and to tell. Calls are counted in `counts`, which are read before this
    /// returns.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] for a configuration that makes no sense, a directory that cannot be made, or counts that
    /// cannot be read; [`SbiError::Tls`] for a file of the CAPIF authority that cannot be used.
    pub fn start(
        config: AefConfig,
        apis: Vec<ExposedApi>,
        audit: Audit,
        counts: Arc<dyn InvocationCounts>,
        shutdown: CancellationToken,
    ) -> Result<Self, SbiError> {
        if let Some(fault) = config.fault() {
            return Err(SbiError::InvalidRequest(format!("capif.{fault}")));
        }
        registration::make_directory(&config.data)?;
        let authority = Authorities::of_file(config.invoker_ca.clone())?;
        let counts = Counts::open(counts, config.limits.invokers_max.saturating_mul(apis.len().max(1)))?;
        let trust = Trust::new(&config, counts);
        let function = Self { inner: Arc::new(Inner { audit, config, apis, authority, trust }) };
        let working = function.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = working.register_and_log() => {}
                () = working.follow_authority() => {}
                () = working.sweep_counts() => {}
                () = shutdown.cancelled() => {}
            }
            working.inner.trust.counts.settle().await;
        });
        Ok(function)
    }

    /// Waits until everything is published.
    pub async fn published(&self) {
        self.inner.trust.registered().await;
    }

    /// Its AEF ID, once it is registered.
    #[must_use]
    pub fn aef_id(&self) -> Option<String> {
        self.inner.trust.registration().map(|registration| registration.aef_id.clone())
    }

    /// Where its refusals are told.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    /// `router`, where API invokers get no further than the core function allows.
    pub fn protect(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), guard))
    }

    /// `aef-security/v1` (TS 29.222 clause 9.1).
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/aef-security/v1/check-authentication", post(check_authentication))
            .route("/aef-security/v1/revoke-authorization", post(revoke_authorization))
            .with_state(self.clone())
    }

    /// Registers until it has worked, then sends logs for ever.
    async fn register_and_log(&self) {
        let Inner { config, apis, trust, .. } = &*self.inner;
        let mut pause = registration::PAUSE_FIRST;
        let registration = loop {
            match Registration::complete(config, apis).await {
                Ok(registration) => break registration,
                Err(error) => {
                    tracing::warn!(target: "security", %error, "not registered with the CAPIF core function yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(registration::PAUSE_MAX);
                }
            }
        };
        tracing::info!(target: "security", aef_id = registration.aef_id, apis = apis.len(), "service APIs are published");
        trust.begin(registration);
        trust.send_logs().await;
    }
}

impl ExposingFunction {
    /// Drops the counts of invokers who are gone, for ever: those of whose end nobody told us.
    async fn sweep_counts(&self) {
        self.inner.trust.registered().await;
        loop {
            self.inner.trust.sweep().await;
            tokio::time::sleep(SWEEP_INTERVAL).await;
        }
    }

    /// Looks at the CAPIF authority's file now and then, for ever.
    async fn follow_authority(&self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let inner = Arc::clone(&self.inner);
            // A panic in there would be ours; the earlier authorities then stay.
            let _ = tokio::task::spawn_blocking(move || inner.authority.refresh()).await;
        }
    }
}

impl ApiKeySource for ExposingFunction {
    fn key_of<'a>(&'a self, identity: &'a str, source: std::net::IpAddr) -> BoxFuture<'a, Option<AefPsk>> {
        Box::pin(async move {
            let invoker = self.inner.trust.of_now(identity, source).await.ok()?;
            invoker.aef_psk().cloned()
        })
    }
}

async fn guard(State(function): State<ExposingFunction>, mut request: Request, next: Next) -> Response {
    let Inner { audit, apis, authority, trust, .. } = &*function.inner;
    let Some(claim) = guard::Claim::of(request.extensions(), authority) else { return next.run(request).await };
    let begun = std::time::Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let bearer = guard::bearer(&request);
    let verdict = guard::judge(trust, apis, &claim, &path, bearer.as_deref()).await;
    let (response, api) = match verdict {
        Ok(invoker) => {
            let api = invoker.api_name.clone();
            request.extensions_mut().insert(invoker);
            (next.run(request).await, Some(api))
        }
        Err(refusal) => {
            let api = guard::api_of(apis, &path).map(|api| api.name.to_owned());
            let action = api.as_deref().unwrap_or(NO_API);
            audit.refused(&claim.to_string(), action, refusal.reason());
            (refusal.into_response(), api)
        }
    };
    if let Some((api_name, id)) = api.zip(claim.logged_id()) {
        trust.log(id, &api_name, &method, response.status(), begun.elapsed());
    }
    response
}

/// An invoker asks whether it is known here: 200 when the core function trusts it for something at this AEF.
async fn check_authentication(
    State(function): State<ExposingFunction>,
    request: Request,
) -> Result<Json<AefSecurityRsp>, ProblemDetails> {
    let claim = guard::Claim::of(request.extensions(), &function.inner.authority);
    let subject = guard::subject_of(claim.as_ref(), request.extensions());
    let stranger = guard::Refusal::Forbidden("NOT_AN_INVOKER");
    let checked = match claim.ok_or(stranger).and_then(|claim| claim.invoker_id().map(drop).map(|()| claim)) {
        Ok(claim) => check(&function, &claim, &Json::from_request(request, &()).await?.0).await,
        Err(refusal) => Err(refusal),
    };
    match &checked {
        Ok(_) => function.inner.audit.allowed(&subject, CHECK_AUTHENTICATION, "trusted"),
        Err(refusal) => function.inner.audit.refused(&subject, CHECK_AUTHENTICATION, refusal.reason()),
    }
    checked.map(Json).map_err(guard::Refusal::into_problem)
}

async fn check(
    function: &ExposingFunction,
    claim: &guard::Claim,
    request: &CheckAuthenticationReq,
) -> Result<AefSecurityRsp, guard::Refusal> {
    let id = claim.invoker_id()?;
    if id != request.api_invoker_id {
        return Err(guard::Refusal::Forbidden("NOT_YOURS"));
    }
    let invoker = function.inner.trust.of(id).await?;
    match claim {
        guard::Claim::Certificate(identity) if !invoker.has_certificate(&identity.serial) => {
            Err(guard::Refusal::Forbidden("CERTIFICATE_REVOKED"))
        }
        _ => Ok(AefSecurityRsp { supported_features: NO_FEATURES.to_owned() }),
    }
}

/// The core function ends authorizations: what is believed about the invoker is forgotten at once.
async fn revoke_authorization(
    State(function): State<ExposingFunction>,
    request: Request,
) -> Result<Json<AefSecurityRsp>, ProblemDetails> {
    let Inner { audit, authority, trust, .. } = &*function.inner;
    let claim = guard::Claim::of(request.extensions(), authority);
    let subject = guard::subject_of(claim.as_ref(), request.extensions());
    let stranger = guard::Refusal::Forbidden("NOT_THE_CORE_FUNCTION");
    if let Err(refusal) = claim.ok_or(stranger).and_then(|claim| claim.must_be_the_core_function()) {
        audit.refused(&subject, REVOKE_AUTHORIZATION, refusal.reason());
        return Err(refusal.into_problem());
    }
    let Json(request) = Json::<RevokeAuthorizationReq>::from_request(request, &()).await?;
    audit.allowed(&subject, REVOKE_AUTHORIZATION, "certificate");
    let id = request.revoke_info.api_invoker_id;
    trust.forget(&id);
    // Whether that was the end of it altogether is found out behind the answer, which the core function waits for.
    let function = function.clone();
    tokio::spawn(async move { drop(function.inner.trust.of(&id).await) });
    Ok(Json(AefSecurityRsp { supported_features: NO_FEATURES.to_owned() }))
}

fn default_issuer() -> String {
    "capif-core".to_owned()
}

fn default_check_interval() -> u64 {
    30
}

/// The action in the audit of a call of what is no API here.
const NO_API: &str = "no-service-api";
/// How often it is asked whether invokers whose calls are counted are still there.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);
const CHECK_AUTHENTICATION: &str = "aef-security:check-authentication";
const REVOKE_AUTHORIZATION: &str = "aef-security:revoke-authorization";
const NO_FEATURES: &str = "0";
