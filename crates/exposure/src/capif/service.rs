//! The APIs: who may ask what, and the audit of it.
//!
//! Every request but an onboarding, a registration, and one for the token keys or the OpenAPI document needs a certificate of the
//! authority whose holder is known and whose serial number is the one that counts. A path that names an identity must name the
//! holder's own. Each request but for the document is one event of [`sbi::audit`].

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State as Shared};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use sbi::audit::{self, Audit};
use sbi::callback::{is_own, is_well_formed_below};
use sbi::capif::identity::{CapifIdentity, Role};
use sbi::policy::Rules;
use sbi::token::TokenSigner;
use sbi::{Json, PeerIdentity, ProblemDetails, openapi};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::authority::Authority;
use super::config::TableLimits;
use super::grants::Grants;
use super::notifier::Notifier;
use super::reconcile::Watch;
use super::state::{Change, Registry, State};
use super::{apis, events, invokers, logs, policies, providers, security, tokens};

/// Everything the handlers need.
pub(crate) struct Service {
    pub(crate) audit: Audit,
    pub(crate) registry: Registry,
    pub(crate) authority: Authority,
    pub(crate) signer: TokenSigner,
    pub(crate) notifier: Notifier,
    /// `https://...`, without a trailing slash; there before the first request.
    pub(crate) api_root: OnceLock<String>,
    pub(crate) id: String,
    pub(crate) token_lifetime_seconds: u64,
    pub(crate) rules: Arc<Rules<Grants>>,
    pub(crate) notification_prefixes: Vec<String>,
    pub(crate) tables: TableLimits,
}

pub(crate) type Context = Shared<Arc<Service>>;

/// The APIs, audited.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/api-provider-management/v1/registrations", post(providers::register))
        .route(
            "/api-provider-management/v1/registrations/{registrationId}",
            put(providers::replace).patch(providers::modify).delete(providers::deregister),
        )
        .route("/published-apis/v1/{apfId}/service-apis", post(apis::publish).get(apis::list))
        .route(
            "/published-apis/v1/{apfId}/service-apis/{serviceApiId}",
            get(apis::read).put(apis::replace).patch(apis::modify).delete(apis::unpublish),
        )
        .route("/service-apis/v1/allServiceAPIs", get(apis::discover))
        .route("/api-invoker-management/v1/onboardedInvokers", post(invokers::onboard))
        .route(
            "/api-invoker-management/v1/onboardedInvokers/{onboardingId}",
            put(invokers::replace).patch(invokers::modify).delete(invokers::offboard),
        )
        .route(
            "/capif-security/v1/trustedInvokers/{apiInvokerId}",
            get(security::read).put(security::create).delete(security::end),
        )
        .route("/capif-security/v1/trustedInvokers/{apiInvokerId}/update", post(security::update))
        .route("/capif-security/v1/trustedInvokers/{apiInvokerId}/delete", post(security::revoke))
        .route("/capif-security/v1/securities/{securityId}/token", post(tokens::issue))
        .route("/access-control-policy/v1/accessControlPolicyList/{serviceApiId}", get(policies::read))
        .route("/api-invocation-logs/v1/{aefId}/logs", post(logs::keep))
        .route("/logs/v1/apiInvocationLogs", get(logs::audit))
        .route("/capif-events/v1/{subscriberId}/subscriptions", post(events::subscribe))
        .route(
            "/capif-events/v1/{subscriberId}/subscriptions/{subscriptionId}",
            delete(events::unsubscribe).put(events::replace).patch(events::modify),
        )
        .route(TOKEN_KEYS, get(tokens::keys))
        .route_layer(from_fn_with_state(Arc::clone(&service), audited))
        .merge(openapi::router(&openapi::capif_core_function()))
        .with_state(service)
}

impl Service {
    /// The absolute URI of `path`, which begins with a slash.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.api_root.get().map_or("", String::as_str))
    }

    /// The operator's entries in force.
    pub(crate) fn grants(&self) -> Arc<Grants> {
        self.rules.current()
    }

    /// [`Registry::change`]; subscribers are told of what became another of access control policies by it.
    pub(crate) async fn change<T>(
        &self,
        decide: impl FnOnce(&State) -> Result<(T, Vec<Change>), Refusal>,
    ) -> Result<T, Refusal> {
        let grants = self.grants();
        let mut watch = None;
        let outcome = self.registry.change(|state| {
            let (outcome, changes) = decide(state)?;
            watch = Watch::begin(&grants, state, &changes);
            Ok((outcome, changes))
        });
        let outcome = outcome.await?;
        if let Some(watch) = watch {
            watch.end(self, &grants);
        }
        Ok(outcome)
    }

    /// Whether whoever shows `certificate` may have notifications sent to `destination`: below the configured prefixes, or where
    /// there are none, at a host that the certificate names.
    pub(crate) fn check_destination(&self, destination: &str, certificate: &PeerIdentity) -> Result<(), Refusal> {
        if !is_well_formed_below(destination, &[]) {
            return Err(incorrect(
                "/notificationDestination",
                "not an https URI without credentials, query and fragment",
            ));
        }
        let allowed = self.may_still_notify(destination)
            && (!self.notification_prefixes.is_empty() || is_own(destination, certificate));
        if allowed { Ok(()) } else { Err(forbidden(DESTINATION_NOT_ALLOWED)) }
    }

    /// The same where no certificate is at hand: if nothing is configured, it was the certificate that decided.
    pub(crate) fn may_still_notify(&self, destination: &str) -> bool {
        is_well_formed_below(destination, &self.notification_prefixes)
    }
}

/// The digest by which a credential is known.
pub(crate) fn digest(credential: &str) -> String {
    Sha256::digest(credential.as_bytes()).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A refusal whose cause the audit sees.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Box<ProblemDetails>);

impl From<ProblemDetails> for Refusal {
    fn from(problem: ProblemDetails) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let cause = self.0.cause.clone();
        let mut response = self.0.into_response();
        if let Some(cause) = cause {
            response.extensions_mut().insert(Reason(cause.into()));
        }
        response
    }
}

/// Why a request was refused, for the audit: a cause, or an error of RFC 6749.
#[derive(Debug, Clone)]
pub(crate) struct Reason(pub(crate) Arc<str>);

/// Who somebody without a certificate has become by this answer, for the audit.
#[derive(Debug, Clone)]
pub(crate) struct Became(pub(crate) String);

/// `response`, which makes somebody of whoever asked.
pub(crate) fn became(mut response: Response, kind: &str, id: &str) -> Response {
    response.extensions_mut().insert(Became(format!("{kind} {id}")));
    response
}

/// 403 with a cause.
pub(crate) fn forbidden(cause: &str) -> Refusal {
    ProblemDetails::forbidden(cause).into()
}

/// 404 with a cause.
pub(crate) fn not_found(cause: &str) -> Refusal {
    ProblemDetails::not_found(cause).into()
}

/// 400 for one member of the body.
pub(crate) fn incorrect(pointer: &str, reason: &str) -> Refusal {
    ProblemDetails::bad_request(sbi::cause::MANDATORY_IE_INCORRECT).with_invalid_param(pointer, reason).into()
}

/// 500: a table is full.
pub(crate) fn full() -> Refusal {
    ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR).with_cause(sbi::cause::INSUFFICIENT_RESOURCES).into()
}

/// 201 with `Location`.
pub(crate) fn created<T: Serialize>(location: &str, body: T) -> Result<Response, Refusal> {
    let location = HeaderValue::from_str(location).map_err(|_| ProblemDetails::internal())?;
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(body)).into_response())
}

/// Who asks: a holder of a certificate that counts.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) CapifIdentity, PeerIdentity);

impl Caller {
    /// What its certificate says.
    pub(crate) fn certificate(&self) -> &PeerIdentity {
        &self.1
    }

    /// That it is `role` `id` and nobody else.
    pub(crate) fn must_be(&self, role: Role, id: &str) -> Result<(), Refusal> {
        if self.0.role == role && self.0.id == id { Ok(()) } else { Err(forbidden(NOT_YOURS)) }
    }

    /// Whether it may ask for what belongs to `named`, the first that the path of `template` names.
    fn may_name(&self, state: &State, template: &str, method: &Method, named: &str) -> Result<(), Refusal> {
        let Some(collection) = template.split('/').nth(1) else { return Ok(()) };
        match collection {
            "api-provider-management" => providers::own(state, self, named).map(drop),
            "published-apis" => self.must_be(Role::Apf, named),
            "api-invoker-management" => self.must_be(Role::Invoker, named),
            "capif-security" if template.ends_with("/delete") => self.must_be_a(Role::Aef).map(drop),
            // An AEF reads and ends what concerns it of a context.
            "capif-security" if self.0.role == Role::Aef && [Method::GET, Method::DELETE].contains(method) => Ok(()),
            "capif-security" => self.must_be(Role::Invoker, named),
            "api-invocation-logs" => self.must_be(Role::Aef, named),
            "capif-events" => self.must_be(self.0.role, named),
            // What the query names decides.
            _ => Ok(()),
        }
    }

    /// That it is a `role`.
    pub(crate) fn must_be_a(&self, role: Role) -> Result<&str, Refusal> {
        if self.0.role == role { Ok(&self.0.id) } else { Err(forbidden(NOT_YOURS)) }
    }
}

impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Refusal> {
        let template = parts.extensions.get::<MatchedPath>().cloned();
        let named = RawPathParams::from_request_parts(parts, service).await.ok();
        let Some(peer) = parts.extensions.get::<PeerIdentity>() else {
            return Err(unauthorized("NO_CERTIFICATE"));
        };
        let state = service.registry.read();
        let identity = CapifIdentity::claimed_in(peer).filter(|identity| state.knows(identity));
        let identity = identity.ok_or_else(|| forbidden("CERTIFICATE_REVOKED"))?;
        // An invoker whose entry is gone is still somebody, who may use nothing; a provider whose entry is gone is nobody.
        let provider = state.provider_of(&identity.id);
        if provider.is_some_and(|(_, provider)| service.grants().of_provider(provider).is_none()) {
            return Err(forbidden("REGISTRATION_WITHDRAWN"));
        }
        let caller = Self(identity, peer.clone());
        // Decided here for every path that names whose it is, so that nobody's body is waited for who may not send it.
        let named = named.as_ref().and_then(|params| params.iter().next()).map(|(_, value)| value);
        if let (Some(template), Some(named)) = (template, named) {
            caller.may_name(&state, template.as_str(), &parts.method, named)?;
        }
        Ok(caller)
    }
}

/// 401 with a cause.
pub(crate) fn unauthorized(cause: &str) -> Refusal {
    ProblemDetails::new(StatusCode::UNAUTHORIZED).with_cause(cause).into()
}

/// Tells of each request what was decided.
async fn audited(Shared(service): Context, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<PeerIdentity>();
    let identity = peer.and_then(CapifIdentity::claimed_in).map(|identity| identity.to_string());
    let shown = identity.or_else(|| peer.map(|peer| audit::subject(peer).to_owned()));
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map_or_else(String::new, |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let action = format!("{method} {path}");
    let became = response.extensions().get::<Became>().map(|became| became.0.as_str());
    let subject = became.or(shown.as_deref()).unwrap_or(UNNAMED);
    let reason = response.extensions().get::<Reason>().map(|reason| reason.0.to_ascii_lowercase());
    if response.status().is_server_error() {
        service.audit.failed(subject, &action, reason.unwrap_or_else(|| FAULT.to_owned()));
    } else if response.status().is_success() {
        let reason = if path == TOKEN_KEYS {
            "for_everybody"
        } else if became.is_some() || shown.is_none() {
            // Whatever certificate was shown, it was not what decided.
            "credential"
        } else {
            "certificate"
        };
        service.audit.allowed(subject, &action, reason);
    } else {
        service.audit.refused(subject, &action, reason.unwrap_or_else(|| MALFORMED.to_owned()));
    }
    response
}

/// The one resource that needs neither certificate nor credential.
const TOKEN_KEYS: &str = "/.well-known/jwks.json";
/// Subject of whoever shows no certificate.
const UNNAMED: &str = "unnamed";
/// Reason of a refusal before any handler: a body, query or path that is none of the API's.
const MALFORMED: &str = "malformed";

/// Reason of what failed by a fault of ours.
const FAULT: &str = "fault";

/// Cause of a destination that notifications may not go to.
const DESTINATION_NOT_ALLOWED: &str = "NOTIFICATION_DESTINATION_NOT_ALLOWED";
/// Cause of a request for what belongs to another.
pub(crate) const NOT_YOURS: &str = "NOT_YOURS";
