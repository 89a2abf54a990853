//! Naanf_AKMA's three operations (TS 29.535 clause 5.1, TS 33.535 clause 7.1).
//!
//! Each: who asks (certificate) → may it (policy) → what is asked (body) → contexts → answer. A refusal is counted
//! and, where it is a matter of rights, logged as a security event.

use std::sync::Arc;
use std::time::Instant;

use akma::{AKid, Supi, UeId};
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::StatusCode;
use http::request::Parts;
use sbi::admin::Health;
use sbi::naanf::{API_PATH, AkmaAfKeyData, AkmaAfKeyRequest, AkmaKeyInfo, CtxRemove};
use sbi::{Json, PeerIdentity, ProblemDetails, cause, openapi};
use store::StoreError;
use time::OffsetDateTime;

use crate::config::AfConfig;
use crate::contexts::{Context, Contexts, FirstUse, GpsiState, LookupOutcome, RegisterOutcome};
use crate::error::AanfError;
use crate::metrics::Metrics;
use crate::policy::{Policy, owns};
use crate::translation::Translation;

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
}

/// What the handlers share.
pub(crate) struct Service {
    pub(crate) contexts: Contexts,
    pub(crate) policy: Policy,
    pub(crate) translation: Option<Translation>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) retry_after_seconds: u32,
}

pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route(&format!("{API_PATH}/register-anchorkey"), post(register_anchorkey))
        .route(&format!("{API_PATH}/retrieve-applicationkey"), post(retrieve_applicationkey))
        .route(&format!("{API_PATH}/remove-context"), post(remove_context))
        .with_state(service)
        .merge(openapi::router(&[openapi::naanf_akma()]))
}

/// A refusal with its label for the metrics.
type Refused = (&'static str, Box<ProblemDetails>);
/// A label for the metrics, and the answer or refusal that goes with it.
type Labelled<T> = Result<(&'static str, T), Refused>;

/// Who asks, before the body is looked at: a stranger learns nothing from how its body is refused.
struct Caller(Arc<AfConfig>);

/// A [`Caller`] that may register and remove contexts.
struct Registrar;

impl FromRequestParts<Arc<Service>> for Caller {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let entry = parts.extensions.get::<PeerIdentity>().and_then(|peer| service.policy.entry(peer));
        entry.map(Self).ok_or_else(|| refuse_caller(parts, service, "no policy entry"))
    }
}

impl FromRequestParts<Arc<Service>> for Registrar {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let Caller(entry) = Caller::from_request_parts(parts, service).await?;
        if entry.may_register { Ok(Self) } else { Err(refuse_caller(parts, service, "may not register")) }
    }
}

fn refuse_caller(parts: &Parts, service: &Service, reason: &str) -> ProblemDetails {
    let peer = parts.extensions.get::<PeerIdentity>();
    tracing::warn!(target: "security", path = parts.uri.path(), reason,
        nf_instance_id = peer.and_then(|peer| peer.nf_instance_id.as_deref()).unwrap_or("none"), "request refused");
    let operation = match parts.uri.path().rsplit('/').next() {
        Some("register-anchorkey") => REGISTER,
        Some("remove-context") => REMOVE,
        _ => RETRIEVE,
    };
    service.metrics.answered(operation, "not_allowed", Instant::now());
    ProblemDetails::forbidden(refusal::REQUESTER_NOT_ALLOWED)
}

async fn register_anchorkey(
    State(service): State<Arc<Service>>,
    _: Registrar,
    Json(info): Json<AkmaKeyInfo>,
) -> Response {
    let since = Instant::now();
    let registrar = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let outcome = register(&registrar, &info).await;
        registrar.metrics.contexts(registrar.contexts.count());
        outcome.map(|(label, ())| (label, Json(info)))
    })
    .await;
    service.answer(REGISTER, since, outcome)
}

async fn register(service: &Arc<Service>, info: &AkmaKeyInfo) -> Labelled<()> {
    let outcome = service.contexts.register(&info.ue_id, &info.a_kid, &info.k_akma).await;
    let label = match outcome.map_err(|error| service.fault(&error))? {
        RegisterOutcome::Added => "added",
        RegisterOutcome::Replaced => "replaced",
        RegisterOutcome::Same => return Ok(("same", ())),
        RegisterOutcome::AKidInUse => {
            tracing::warn!(target: "security", a_kid = %info.a_kid, "registration of another UE's A-KID refused");
            return Err(refuse("a_kid_in_use", ProblemDetails::forbidden(refusal::A_KID_IN_USE)));
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
        tokio::spawn(async move { service.translate(&supi, &a_kid).await });
    }
    Ok((label, ()))
}

async fn retrieve_applicationkey(
    State(service): State<Arc<Service>>,
    Caller(entry): Caller,
    Json(request): Json<AkmaAfKeyRequest>,
) -> Response {
    let since = Instant::now();
    let outcome = retrieve(&service, &entry, &request).await;
    let outcome = outcome.map(|(label, data)| {
        let answer = data.map_or_else(|| StatusCode::NO_CONTENT.into_response(), |data| Json(data).into_response());
        (label, answer)
    });
    service.answer(RETRIEVE, since, outcome)
}

async fn retrieve(
    service: &Arc<Service>,
    entry: &AfConfig,
    request: &AkmaAfKeyRequest,
) -> Labelled<Option<AkmaAfKeyData>> {
    if !owns(entry, &request.af_id) {
        tracing::warn!(target: "security", af_id = %request.af_id,
            nf_instance_id = entry.nf_instance_id.as_deref().unwrap_or("none"), "K_AF for another's AF_ID refused");
        return Err(refuse("af_id_not_allowed", ProblemDetails::forbidden(refusal::AF_ID_NOT_ALLOWED)));
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let lifetime = i64::try_from(service.policy.kaf_lifetime_seconds(entry)).unwrap_or(i64::MAX);
    let first_use = FirstUse { expires_at: now.saturating_add(lifetime) };
    let context = match look_up(service, request, first_use).await? {
        LookupOutcome::Found(context) => context,
        LookupOutcome::Unknown => return Ok(("unknown", None)),
        LookupOutcome::TooManyKeys => {
            return Err(refuse("too_many_keys", ProblemDetails::forbidden(refusal::TOO_MANY_APPLICATION_KEYS)));
        }
    };
    if context.kaf_expires_at <= now {
        tracing::info!(target: "security", a_kid = %request.a_kid, af_id = %request.af_id, "expired K_AF refused");
        return Err(refuse("expired", ProblemDetails::forbidden(refusal::K_AF_EXPIRED)));
    }
    let expiry =
        OffsetDateTime::from_unix_timestamp(context.kaf_expires_at).map_err(|_| service.fault(&AanfError::Corrupt))?;
    let mut data = AkmaAfKeyData {
        supp_feat: None,
        gpsi: None,
        expiry,
        kaf: akma::k_af(&context.k_akma, &request.af_id),
        supi: None,
    };
    if !request.anon_ind {
        match service.visible_identity(entry, &context, &request.a_kid).await? {
            Some(UeId::Supi(supi)) => data.supi = Some(supi),
            Some(UeId::Gpsi(gpsi)) => data.gpsi = Some(gpsi),
            None => tracing::info!(a_kid = %request.a_kid, "K_AF given without an identity: no GPSI is known"),
        }
    }
    Ok(("found", Some(data)))
}

/// The context, if there is one. Most requests only read; the first of an AF_ID fixes an expiry, and does so to its end.
async fn look_up(
    service: &Arc<Service>,
    request: &AkmaAfKeyRequest,
    first_use: FirstUse,
) -> Result<LookupOutcome, Refused> {
    let known = service.contexts.known(&request.a_kid, &request.af_id);
    if let Some(outcome) = known.map_err(|error| service.fault(&error))? {
        return Ok(outcome);
    }
    let (service, a_kid, af_id) = (Arc::clone(service), request.a_kid.clone(), request.af_id.clone());
    to_the_end(async move {
        service.contexts.fix_expiry(&a_kid, &af_id, first_use).await.map_err(|error| service.fault(&error))
    })
    .await
}

async fn remove_context(State(service): State<Arc<Service>>, _: Registrar, Json(request): Json<CtxRemove>) -> Response {
    let since = Instant::now();
    let remover = Arc::clone(&service);
    let outcome = to_the_end(async move {
        let removed = remover.contexts.remove(&UeId::Supi(request.supi)).await;
        remover.metrics.contexts(remover.contexts.count());
        removed
            .map(|removed| (if removed { "removed" } else { "unknown" }, StatusCode::NO_CONTENT))
            .map_err(|error| remover.fault(&error))
    })
    .await;
    service.answer(REMOVE, since, outcome)
}

impl Service {
    /// The identity an AF may see (TS 33.535 clause 7.1.2, TS 33.501 clause 5.9.2.3): the SUPI with `supi_access`, the
    /// GPSI otherwise. Refused while UDM does not say which it is: without an identity the AF would turn the UE away for
    /// good, and the next request may find it.
    async fn visible_identity(
        self: &Arc<Self>,
        entry: &AfConfig,
        context: &Context,
        a_kid: &AKid,
    ) -> Result<Option<UeId>, Refused> {
        let supi = match &context.ue_id {
            UeId::Supi(supi) if entry.supi_access => return Ok(Some(UeId::Supi(supi.clone()))),
            UeId::Supi(supi) => supi,
            UeId::Gpsi(gpsi) => return Ok(Some(UeId::Gpsi(gpsi.clone()))),
        };
        let gpsi = match &context.gpsi {
            GpsiState::NotAsked => {
                // It writes what it learns, so it goes on though the caller leaves.
                let (service, supi, a_kid) = (Arc::clone(self), supi.clone(), a_kid.clone());
                tokio::spawn(async move { service.translate(&supi, &a_kid).await }).await.unwrap_or(GpsiState::NotAsked)
            }
            state => state.clone(),
        };
        match gpsi {
            GpsiState::Known(gpsi) => Ok(Some(UeId::Gpsi(gpsi))),
            GpsiState::NotAsked if self.translation.is_some() => {
                Err(refuse("no_gpsi_yet", ProblemDetails::overloaded(self.retry_after_seconds)))
            }
            GpsiState::None | GpsiState::NotAsked => Ok(None),
        }
    }

    /// Asks UDM for the GPSI of `supi`, and keeps the answer with the context of `a_kid`.
    async fn translate(&self, supi: &Supi, a_kid: &AKid) -> GpsiState {
        let Some(translation) = &self.translation else { return GpsiState::NotAsked };
        let gpsi = translation.translate(supi).await;
        if gpsi != GpsiState::NotAsked
            && let Err(error) = self.contexts.learn_gpsi(&UeId::Supi(supi.clone()), a_kid, gpsi.clone()).await
        {
            tracing::warn!(%error, "a GPSI could not be kept");
        }
        gpsi
    }

    fn answer<T: IntoResponse>(&self, operation: &'static str, since: Instant, outcome: Labelled<T>) -> Response {
        let (label, response) = match outcome {
            Ok((label, answer)) => (label, answer.into_response()),
            Err((label, problem)) => (label, problem.into_response()),
        };
        self.metrics.answered(operation, label, since);
        response
    }

    /// The answer to a fault of our own; the operator reads the reason in the log and at `/readyz`.
    fn fault(&self, error: &AanfError) -> Refused {
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
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tokio::spawn(change).await.unwrap_or_else(|_| Err(refuse("failed", ProblemDetails::internal())))
}

/// A refusal under its label.
fn refuse(label: &'static str, problem: ProblemDetails) -> Refused {
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
        let contexts = Contexts::open(database, Sealer::open(None).unwrap(), TableLimits::default()).unwrap();
        Arc::new(Service {
            contexts,
            policy: Policy::new(Vec::new(), 3600),
            translation: None,
            metrics: Metrics::register(&mut Registry::default()),
            health: Health::new(),
            retry_after_seconds: 1,
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
        service.contexts.register(&ue_id, &request(0).a_kid, &KAkma::from_bytes([7; 32])).await.unwrap();
        for suite in (0..40).step_by(2) {
            let (left, stayed) = (request(suite), request(suite + 1));
            // Polled once, then dropped: the caller has left while its write is on the way.
            let _ = tokio::time::timeout(Duration::ZERO, look_up(&service, &left, FirstUse { expires_at: 1 })).await;
            look_up(&service, &stayed, FirstUse { expires_at: 2 }).await.unwrap();
            for (asked, expires_at) in [(left, 1), (stayed, 2)] {
                let outcome = look_up(&service, &asked, FirstUse { expires_at: 3 }).await.unwrap();
                assert!(matches!(outcome, LookupOutcome::Found(context) if context.kaf_expires_at == expires_at));
            }
        }
    }
}
