//! Naanf_AKMA's operations (TS 29.535 clause 5.1, TS 33.535 clause 7.1).
//!
//! Each: who asks (certificate) → may it (policy) → what is asked (body) → contexts → answer. A refusal is counted
//! and, where it is a matter of rights, logged as a security event.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use akma::{AKid, RoutingIndicator, Supi, UeId};
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::StatusCode;
use http::request::Parts;
use sbi::admin::Health;
use sbi::audit::{Audit, subject};
use sbi::authorization::{Authorizer, Granted, ServiceScopes};
use sbi::naanf::{
    API_PATH, AkmaAfKeyData, AkmaAfKeyRequest, AkmaKeyInfo, CtxRemove, FEATURES, NotificationUri, feature,
};
use sbi::policy::Rules;
use sbi::services::{NAANF_AKMA, SUPI_ACCESS};
use sbi::{Json, PeerIdentity, ProblemDetails, SupportedFeatures, cause, openapi};
use store::StoreError;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::AfConfig;
use crate::contexts::{Context, Contexts, GpsiState, LookupOutcome, RegisterOutcome, Times, Use};
use crate::disabled_afs::DisabledAfs;
use crate::error::AanfError;
use crate::metrics::Metrics;
use crate::policy::{Admission, Policy, may_be_notified_at, owns};
use crate::provisioning::{self, PROVISION, PROVISIONING_PATH};
use crate::translation::{RefusedForGood, Translation};

/// Causes of refusals that are this function's own; TS 29.535 leaves them to be found out by the caller.
pub mod refusal {
    /// 403: the certificate has no policy entry, or the entry does not allow the operation.
    pub const REQUESTER_NOT_ALLOWED: &str = "REQUESTER_NOT_ALLOWED";
    /// 403: the AF_ID's FQDN is not among those of the caller's policy entry.
    pub const AF_ID_NOT_ALLOWED: &str = "AF_ID_NOT_ALLOWED";
    /// 403: K_AF for this AF_ID has expired; the UE gets a new one only through a new primary authentication.
    pub const K_AF_EXPIRED: &str = "K_AF_EXPIRED";
    /// 403: the A-KID belongs to another UE's context.
    pub const A_KID_IN_USE: &str = "A_KID_IN_USE";
    /// 403: the context has yielded K_AF for as many AF_IDs as it may.
    pub const TOO_MANY_APPLICATION_KEYS: &str = "TOO_MANY_APPLICATION_KEYS";
    /// 403: `notifUri` is not one at which the caller may be notified.
    pub const NOTIFICATION_URI_NOT_ALLOWED: &str = "NOTIFICATION_URI_NOT_ALLOWED";
    /// 403: the operator has disabled AKMA for the UE; it gets no context.
    pub const AKMA_DISABLED: &str = "AKMA_DISABLED";
    /// 403: the operator has disabled AKMA for the AF.
    pub const AF_DISABLED: &str = "AF_DISABLED";
    pub use sbi::naanf::{GPSI_NOT_AVAILABLE, GPSI_NOT_YET_KNOWN};
    /// 404: the A-KID does not begin with a routing indicator that is served here.
    pub const ROUTING_INDICATOR_NOT_SERVED: &str = "ROUTING_INDICATOR_NOT_SERVED";
    /// 404, provisioning: AKMA is not disabled for this UE or AF.
    pub const NOT_DISABLED: &str = "NOT_DISABLED";
}

/// What the handlers share.
pub(crate) struct Service {
    pub(crate) contexts: Contexts,
    pub(crate) afs: DisabledAfs,
    pub(crate) policy: Arc<Rules<Policy>>,
    pub(crate) audit: Audit,
    /// Those served; empty: all.
    pub(crate) routing_indicators: BTreeSet<RoutingIndicator>,
    pub(crate) notification_lifetime_seconds: u64,
    pub(crate) translation: Option<Translation>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) retry_after_seconds: u32,
    /// What goes on behind the requests, until `shutdown`.
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) fn router(service: Arc<Service>, authorizer: &Arc<Authorizer>) -> Router {
    let api = Router::new()
        .route(&format!("{API_PATH}/register-anchorkey"), post(register_anchorkey))
        .route(&format!("{API_PATH}/retrieve-applicationkey"), post(retrieve_applicationkey))
        .route(&format!("{API_PATH}/remove-context"), post(remove_context))
        .with_state(Arc::clone(&service));
    let operator = provisioning::router().with_state(service);
    authorizer
        .protect(api, &NAANF_AKMA)
        .merge(authorizer.protect(operator, &PROVISIONING))
        .merge(openapi::router(&[openapi::naanf_akma()]))
}

/// The operator's API, which is ours.
static PROVISIONING: ServiceScopes = ServiceScopes { service: "aanf-provisioning", operations: &[] };

/// A refusal with its label for the metrics.
pub(crate) type Refused = (&'static str, Box<ProblemDetails>);
/// A label for the metrics, and the answer or refusal that goes with it.
pub(crate) type Labelled<T> = Result<(&'static str, T), Refused>;

/// Who asks, before the body is looked at: a stranger learns nothing from how its body is refused.
pub(crate) struct Caller {
    /// What the policy says of it.
    pub(crate) entry: Arc<AfConfig>,
    /// The DNS names of its certificate.
    pub(crate) names: Vec<String>,
    /// What it is called in audit events.
    pub(crate) subject: String,
}

/// A [`Caller`] that may register and remove contexts: what it is called in audit events.
struct Registrar(String);

impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let Some(peer) = parts.extensions.get::<PeerIdentity>() else {
            return Err(refuse_caller(parts, service, "no_certificate"));
        };
        match service.policy.current().admit(peer) {
            Admission::Entry(entry) => {
                Ok(Self { entry, names: peer.dns_names.clone(), subject: subject(peer).to_owned() })
            }
            Admission::Stranger => Err(refuse_caller(parts, service, "no_policy_entry")),
            Admission::TooOften(seconds) => {
                service.audit.refused(subject(peer), action(parts), "too_often");
                service.metrics.answered(operation(parts.uri.path()), "too_often", Instant::now());
                let mut problem = ProblemDetails::new(StatusCode::TOO_MANY_REQUESTS);
                problem.retry_after_seconds = Some(seconds);
                Err(problem.with_cause(cause::NF_CONGESTION_RISK))
            }
        }
    }
}

impl FromRequestParts<Arc<Service>> for Registrar {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let Caller { entry, subject, .. } = Caller::from_request_parts(parts, service).await?;
        if entry.may_register { Ok(Self(subject)) } else { Err(refuse_caller(parts, service, "may_not_register")) }
    }
}

pub(crate) fn refuse_caller(parts: &Parts, service: &Service, reason: &'static str) -> ProblemDetails {
    // Not the path: a UE may be named there.
    service.audit.refused(parts.extensions.get().map_or("nobody", subject), action(parts), reason);
    service.metrics.answered(operation(parts.uri.path()), "not_allowed", Instant::now());
    ProblemDetails::forbidden(refusal::REQUESTER_NOT_ALLOWED)
}

/// What the audit calls a request, whatever is decided on it.
fn action(parts: &Parts) -> &'static str {
    match operation(parts.uri.path()) {
        PROVISION => provisioning::action(&parts.method, parts.uri.path()),
        operation => operation,
    }
}

fn operation(path: &str) -> &'static str {
    match path.rsplit('/').next() {
        _ if path.starts_with(PROVISIONING_PATH) => PROVISION,
        Some("register-anchorkey") => REGISTER,
        Some("remove-context") => REMOVE,
        _ => RETRIEVE,
    }
}

async fn register_anchorkey(
    State(service): State<Arc<Service>>,
    Registrar(who): Registrar,
    Json(mut info): Json<AkmaKeyInfo>,
) -> Response {
    let since = Instant::now();
    let registrar = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let outcome = register(&registrar, &info).await;
        registrar.count();
        info.supp_feat = info.supp_feat.map(|features| features.common(FEATURES));
        outcome.map(|(label, ())| (label, Json(info)))
    })
    .await;
    service.answer(&who, REGISTER, since, outcome)
}

async fn register(service: &Arc<Service>, info: &AkmaKeyInfo) -> Labelled<()> {
    service.serves(&info.a_kid)?;
    let outcome = service.contexts.register(&info.ue_id, &info.a_kid, &info.k_akma, service.times()).await;
    let label = match outcome.map_err(|error| service.fault(&error))? {
        RegisterOutcome::Added => "added",
        RegisterOutcome::Replaced => "replaced",
        RegisterOutcome::Same => return Ok(("same", ())),
        RegisterOutcome::AKidInUse => {
            tracing::warn!(target: "security", a_kid = %info.a_kid, "registration of another UE's A-KID refused");
            return Err(refuse("a_kid_in_use", ProblemDetails::forbidden(refusal::A_KID_IN_USE)));
        }
        RegisterOutcome::Disabled => {
            tracing::info!(target: "security", a_kid = %info.a_kid, "registration refused: AKMA is disabled for the UE");
            return Err(refuse("disabled", ProblemDetails::forbidden(refusal::AKMA_DISABLED)));
        }
        RegisterOutcome::Full => {
            tracing::error!("the context table is full");
            let problem = ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR);
            return Err(refuse("full", problem.with_cause(cause::INSUFFICIENT_RESOURCES)));
        }
    };
    // Asked for ahead of the first need, so that no handshake waits for UDM; AUSF does not wait for it, either.
    if let (UeId::Supi(supi), Some(_)) = (&info.ue_id, &service.translation) {
        let (service, supi, a_kid) = (Arc::clone(service), supi.clone(), info.a_kid.clone());
        tokio::spawn(async move { service.translate(&supi, &a_kid).await.ok() });
    }
    Ok((label, ()))
}

async fn retrieve_applicationkey(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Extension(granted): Extension<Granted>,
    Json(request): Json<AkmaAfKeyRequest>,
) -> Response {
    let since = Instant::now();
    let supi_access = caller.entry.supi_access && granted.permits(SUPI_ACCESS);
    let outcome = retrieve(&service, &caller, supi_access, &request).await;
    let outcome = outcome.map(|(label, data)| {
        let answer = data.map_or_else(|| StatusCode::NO_CONTENT.into_response(), |data| Json(data).into_response());
        (label, answer)
    });
    service.answer_for(&caller.subject, RETRIEVE, request.af_id.fqdn().as_str(), since, outcome)
}

async fn retrieve(
    service: &Arc<Service>,
    caller: &Caller,
    supi_access: bool,
    request: &AkmaAfKeyRequest,
) -> Labelled<Option<AkmaAfKeyData>> {
    let entry = &caller.entry;
    if !owns(entry, &request.af_id) {
        tracing::warn!(target: "security", af_id = %request.af_id, subject = caller.subject,
            "K_AF for another's AF_ID refused");
        return Err(refuse("af_id_not_allowed", ProblemDetails::forbidden(refusal::AF_ID_NOT_ALLOWED)));
    }
    let notify = service.wanted_notification(caller, request)?;
    service.serves(&request.a_kid)?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let lifetime =
        i64::try_from(service.policy.current().kaf_lifetime_seconds(entry, &request.af_id)).unwrap_or(i64::MAX);
    let context = match look_up(service, request, notify, now.saturating_add(lifetime)).await? {
        LookupOutcome::Found(context) => context,
        LookupOutcome::Unknown => return Ok(("unknown", None)),
        LookupOutcome::TooManyKeys => {
            return Err(refuse("too_many_keys", ProblemDetails::forbidden(refusal::TOO_MANY_APPLICATION_KEYS)));
        }
        LookupOutcome::NotAllowed => {
            tracing::info!(target: "security", af_id = %request.af_id, "K_AF refused: AKMA is disabled for the AF");
            return Err(refuse("af_disabled", ProblemDetails::forbidden(refusal::AF_DISABLED)));
        }
    };
    if context.kaf_expires_at <= now {
        tracing::info!(target: "security", a_kid = %request.a_kid, af_id = %request.af_id, "expired K_AF refused");
        return Err(refuse("expired", ProblemDetails::forbidden(refusal::K_AF_EXPIRED)));
    }
    let expiry =
        OffsetDateTime::from_unix_timestamp(context.kaf_expires_at).map_err(|_| service.fault(&AanfError::Corrupt))?;
    let mut data = AkmaAfKeyData {
        supp_feat: common_features(request, context.notified),
        gpsi: None,
        expiry,
        kaf: akma::k_af(&context.k_akma, &request.af_id),
        supi: None,
    };
    if !request.anon_ind {
        match service.visible_identity(supi_access, &context, &request.a_kid).await? {
            Some(UeId::Supi(supi)) => data.supi = Some(supi),
            Some(UeId::Gpsi(gpsi)) => data.gpsi = Some(gpsi),
            None => tracing::info!(a_kid = %request.a_kid, "K_AF given without an identity: no GPSI is known"),
        }
    }
    Ok(("found", Some(data)))
}

/// What the answer says of features: those of both sides, notification among them only where it will come.
fn common_features(request: &AkmaAfKeyRequest, notified: bool) -> Option<SupportedFeatures> {
    let notification = SupportedFeatures::of(&[feature::SERVICE_DISABLE_NOTIFICATION]);
    match (request.supp_feat, &request.notif_uri) {
        (Some(features), None) => Some(features.common(FEATURES)),
        (_, Some(_)) if notified => Some(notification),
        (_, Some(_)) => Some(SupportedFeatures::default()),
        (None, None) => None,
    }
}

/// The context, if there is one. Most requests only read; the first of an AF_ID fixes an expiry, the first with a
/// `notifUri` leaves that, and both do so to the end.
async fn look_up(
    service: &Arc<Service>,
    request: &AkmaAfKeyRequest,
    notify: Option<&NotificationUri>,
    expires_at: i64,
) -> Result<LookupOutcome, Refused> {
    if service.afs.is_disabled(request.af_id.fqdn()) {
        return Ok(LookupOutcome::NotAllowed);
    }
    let known = service.contexts.known(&request.a_kid, &request.af_id, notify);
    if let Some(outcome) = known.map_err(|error| service.fault(&error))? {
        return Ok(outcome);
    }
    let (service, a_kid, af_id) = (Arc::clone(service), request.a_kid.clone(), request.af_id.clone());
    let noted = Use { expires_at, notify: notify.cloned() };
    to_the_end(async move {
        let allowed = || !service.afs.is_disabled(af_id.fqdn());
        let outcome = service.contexts.note_use(&a_kid, &af_id, noted, allowed).await;
        service.count();
        outcome.map_err(|error| service.fault(&error))
    })
    .await
}

async fn remove_context(
    State(service): State<Arc<Service>>,
    Registrar(who): Registrar,
    Json(request): Json<CtxRemove>,
) -> Response {
    let since = Instant::now();
    let remover = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let removed = remover.contexts.remove(&UeId::Supi(request.supi), remover.times()).await;
        remover.count();
        removed
            .map(|removed| (if removed { "removed" } else { "unknown" }, StatusCode::NO_CONTENT))
            .map_err(|error| remover.fault(&error))
    })
    .await;
    service.answer(&who, REMOVE, since, outcome)
}

impl Service {
    /// Refuses what another AAnF is there for.
    fn serves(&self, a_kid: &AKid) -> Result<(), Refused> {
        let served = self.routing_indicators.is_empty()
            || a_kid.routing_indicator().is_some_and(|indicator| self.routing_indicators.contains(&indicator));
        if served {
            return Ok(());
        }
        Err(refuse("routing_indicator", ProblemDetails::not_found(refusal::ROUTING_INDICATOR_NOT_SERVED)))
    }

    /// Where the caller is to be notified, if it wants that and may. One that says what features it has, and not that
    /// one, does not.
    fn wanted_notification<'a>(
        &self,
        caller: &Caller,
        request: &'a AkmaAfKeyRequest,
    ) -> Result<Option<&'a NotificationUri>, Refused> {
        let Some(uri) = &request.notif_uri else { return Ok(None) };
        if request.supp_feat.is_some_and(|features| !features.has(feature::SERVICE_DISABLE_NOTIFICATION)) {
            return Ok(None);
        }
        if may_be_notified_at(&caller.entry, &caller.names, uri) {
            return Ok(Some(uri));
        }
        tracing::warn!(target: "security", host = uri.host(), subject = caller.subject, "notifUri refused");
        let problem = ProblemDetails::forbidden(refusal::NOTIFICATION_URI_NOT_ALLOWED);
        Err(refuse("notification_uri", problem.with_invalid_param("/notifUri", "not among the caller's own")))
    }

    /// The time, for a change that queues notifications.
    pub(crate) fn times(&self) -> Times {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let lifetime = i64::try_from(self.notification_lifetime_seconds).unwrap_or(i64::MAX);
        Times { now, give_up_at: now.saturating_add(lifetime) }
    }

    /// Brings the gauges up to date.
    pub(crate) fn count(&self) {
        self.metrics.contexts(self.contexts.count());
        self.metrics.notification_uris(self.contexts.notification_uris());
        self.metrics.notifications_pending(self.contexts.outbox.pending());
    }

    /// The identity an AF may see (TS 33.535 clause 7.1.2, TS 33.501 clause 5.9.2.3): the SUPI with `supi_access`, the
    /// GPSI otherwise. Refused while UDM does not say which it is: without an identity the AF would turn the UE away for
    /// good, and the next request may find it. Refused otherwise where UDM will not say it: an AF that needs no identity asks
    /// with `anonInd`.
    async fn visible_identity(
        self: &Arc<Self>,
        supi_access: bool,
        context: &Context,
        a_kid: &AKid,
    ) -> Result<Option<UeId>, Refused> {
        let supi = match &context.ue_id {
            UeId::Supi(supi) if supi_access => return Ok(Some(UeId::Supi(supi.clone()))),
            UeId::Supi(supi) => supi,
            UeId::Gpsi(gpsi) => return Ok(Some(UeId::Gpsi(gpsi.clone()))),
        };
        let gpsi = match &context.gpsi {
            GpsiState::NotAsked => {
                // It writes what it learns, so it goes on though the caller leaves.
                let (service, supi, a_kid) = (Arc::clone(self), supi.clone(), a_kid.clone());
                let asked = tokio::spawn(async move { service.translate(&supi, &a_kid).await }).await;
                asked.unwrap_or(Ok(GpsiState::NotAsked)).map_err(|RefusedForGood| {
                    refuse("gpsi_refused", ProblemDetails::forbidden(refusal::GPSI_NOT_AVAILABLE))
                })?
            }
            state => state.clone(),
        };
        match gpsi {
            GpsiState::Known(gpsi) => Ok(Some(UeId::Gpsi(gpsi))),
            GpsiState::NotAsked if self.translation.is_some() => {
                let problem = ProblemDetails::unavailable(refusal::GPSI_NOT_YET_KNOWN, self.retry_after_seconds);
                Err(refuse("no_gpsi_yet", problem))
            }
            GpsiState::None | GpsiState::NotAsked => Ok(None),
        }
    }

    /// Asks UDM for the GPSI of `supi`, and keeps the answer with the context of `a_kid`.
    async fn translate(&self, supi: &Supi, a_kid: &AKid) -> Result<GpsiState, RefusedForGood> {
        let Some(translation) = &self.translation else { return Ok(GpsiState::NotAsked) };
        let gpsi = translation.translate(supi).await?;
        if gpsi != GpsiState::NotAsked
            && let Err(error) = self.contexts.learn_gpsi(&UeId::Supi(supi.clone()), a_kid, gpsi.clone()).await
        {
            tracing::warn!(%error, "a GPSI could not be kept");
        }
        Ok(gpsi)
    }

    /// The answer to a request of `subject`, told and counted.
    pub(crate) fn answer<T: IntoResponse>(
        &self,
        subject: &str,
        operation: &'static str,
        since: Instant,
        outcome: Labelled<T>,
    ) -> Response {
        self.answer_for(subject, operation, "", since, outcome)
    }

    /// The same where it is about `object`, a name that is no UE ID.
    pub(crate) fn answer_for<T: IntoResponse>(
        &self,
        subject: &str,
        operation: &'static str,
        object: &str,
        since: Instant,
        outcome: Labelled<T>,
    ) -> Response {
        let (label, problem) = told(&outcome);
        self.audit.answered_for(subject, operation, object, label, problem);
        self.metrics.answered(operation, label, since);
        outcome.map_or_else(|(_, problem)| problem.into_response(), |(_, answer)| answer.into_response())
    }

    /// The answer to a fault of our own; the operator reads the reason in the log and at `/readyz`.
    pub(crate) fn fault(&self, error: &AanfError) -> Refused {
        match error {
            AanfError::Store(StoreError::Overloaded) => {
                refuse("overloaded", ProblemDetails::overloaded(self.retry_after_seconds))
            }
            AanfError::Store(StoreError::DiskFull) => {
                tracing::error!(%error, "no context can be written");
                let problem = ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR);
                refuse("disk_full", problem.with_cause(cause::INSUFFICIENT_RESOURCES))
            }
            error => {
                tracing::error!(%error, "request failed");
                // Anything else may pass; a database that takes no more writes needs a restart.
                if let Some(failure) = self.contexts.failure() {
                    self.health.not_ready(STORE_CHECK, failure.to_string());
                }
                refuse("failed", ProblemDetails::internal())
            }
        }
    }
}

/// Lets a change finish even when the caller leaves: the tables, and what is counted of them, change together.
pub(crate) async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tokio::spawn(change).await.unwrap_or_else(|_| Err(refuse("failed", ProblemDetails::internal())))
}

/// The label of an outcome, and the problem that it is, if any.
pub(crate) fn told<T>(outcome: &Labelled<T>) -> (&'static str, Option<&ProblemDetails>) {
    match outcome {
        Ok((label, _)) => (label, None),
        Err((label, problem)) => (label, Some(problem)),
    }
}

/// A refusal under its label.
pub(crate) fn refuse(label: &'static str, problem: ProblemDetails) -> Refused {
    (label, Box::new(problem))
}

/// Name of the health check of the database.
pub(crate) const STORE_CHECK: &str = "store";
const REGISTER: &str = "register-anchorkey";
const RETRIEVE: &str = "retrieve-applicationkey";
const REMOVE: &str = "remove-context";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use akma::{AfId, KAkma, UaProtocolId};
    use prometheus_client::registry::Registry;
    use store::{Database, DatabaseOptions};

    use super::*;
    use crate::config::TableLimits;
    use crate::seal::Sealer;

    fn request(suite: u16) -> AkmaAfKeyRequest {
        let af_id = AfId::new("af.example.com".parse().unwrap(), UaProtocolId::tls_1_2(suite));
        AkmaAfKeyRequest::new(af_id, "0.a@example.com".parse().unwrap())
    }

    fn service(directory: &std::path::Path) -> Arc<Service> {
        let database = Database::open(directory, DatabaseOptions::default()).unwrap();
        let tables = TableLimits::default();
        let afs = DisabledAfs::open(&database, tables.disabled_afs_max).unwrap();
        let contexts = Contexts::open(database, Sealer::open(None).unwrap(), tables, true, 10).unwrap();
        Arc::new(Service {
            contexts,
            afs,
            policy: Arc::new(Rules::fixed(Policy::new(Vec::new(), 3600))),
            audit: Audit::default(),
            routing_indicators: BTreeSet::new(),
            notification_lifetime_seconds: 1,
            translation: None,
            metrics: Metrics::register(&mut Registry::default()),
            health: Health::new(),
            retry_after_seconds: 1,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        })
    }

    #[tokio::test]
    async fn an_error_that_passes_leaves_the_function_ready() {
        let directory = tempfile::tempdir().unwrap();
        let service = service(directory.path());
        let (label, _) = service.fault(&AanfError::Store(StoreError::ReadFailed { reason: "a flaw".into() }));
        assert_eq!(label, "failed");
        assert!(service.health.is_ready());
    }

    #[tokio::test]
    async fn an_expiry_that_one_request_fixed_is_not_undone_by_another_that_was_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let service = service(directory.path());
        let ue_id = "imsi-001010000000001".parse().unwrap();
        let k_akma = KAkma::from_bytes([7; 32]);
        service.contexts.register(&ue_id, &request(0).a_kid, &k_akma, service.times()).await.unwrap();
        for suite in (0..40).step_by(2) {
            let (left, stayed) = (request(suite), request(suite + 1));
            // Polled once, then dropped: the caller has left while its write is on the way.
            let _ = tokio::time::timeout(Duration::ZERO, look_up(&service, &left, None, 1)).await;
            look_up(&service, &stayed, None, 2).await.unwrap();
            for (asked, expires_at) in [(left, 1), (stayed, 2)] {
                let outcome = look_up(&service, &asked, None, 3).await.unwrap();
                assert!(matches!(outcome, LookupOutcome::Found(context) if context.kaf_expires_at == expires_at));
            }
        }
    }
}
