//! The operator's own interface, which no 3GPP document defines: AKMA disabled and enabled for a UE or an AF.
//!
//! ```text
//! PUT    /aanf-provisioning/v1/disabled-ues/{ueId}    its context goes, it gets no other, AFs are notified
//! PUT    /aanf-provisioning/v1/disabled-afs/{fqdn}    no K_AF for its AF_IDs; it is notified of every A-KID it had one for
//! DELETE both                                         from now on again
//! GET    both                                         204: disabled; 404
//! ```
//!
//! Each is for callers with `may_provision` and leaves an event in the audit log, which never names the UE.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akma::{Fqdn, UeId};
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use http::request::Parts;
use http::{Method, StatusCode};
use sbi::{Path, ProblemDetails, cause};

use crate::contexts::DisableOutcome;
use crate::disabled_afs::DisableAfOutcome;
use crate::service::{Caller, Labelled, Refused, Service, refusal, refuse, refuse_caller, to_the_end, told};

/// Path of the interface below its root.
pub const PROVISIONING_PATH: &str = "/aanf-provisioning/v1";

pub(crate) fn router() -> Router<Arc<Service>> {
    Router::new()
        .route(&format!("{PROVISIONING_PATH}/disabled-ues/{{ueId}}"), put(disable_ue).delete(enable_ue).get(see_ue))
        .route(&format!("{PROVISIONING_PATH}/disabled-afs/{{fqdn}}"), put(disable_af).delete(enable_af).get(see_af))
}

/// A [`Caller`] that may provision; what it is called in audit events.
struct Provisioner(String);

impl FromRequestParts<Arc<Service>> for Provisioner {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let Caller { entry, subject, .. } = Caller::from_request_parts(parts, service).await?;
        if entry.may_provision { Ok(Self(subject)) } else { Err(refuse_caller(parts, service, "may_not_provision")) }
    }
}

type Shared = State<Arc<Service>>;

async fn disable_ue(State(service): Shared, who: Provisioner, Path(ue_id): Path<String>) -> Response {
    change(service, who, DISABLE_UE, &ue_id, |service: Arc<Service>, ue_id: UeId| async move {
        let outcome = service.contexts.disable_ue(&ue_id, service.times()).await;
        service.count();
        match outcome.map_err(|error| service.fault(&error))? {
            DisableOutcome::Disabled => Ok("disabled"),
            DisableOutcome::Same => Ok("same"),
            DisableOutcome::Full => Err(full()),
        }
    })
    .await
}

async fn enable_ue(State(service): Shared, who: Provisioner, Path(ue_id): Path<String>) -> Response {
    change(service, who, ENABLE_UE, &ue_id, |service: Arc<Service>, ue_id: UeId| async move {
        let changed = service.contexts.enable_ue(&ue_id).await.map_err(|error| service.fault(&error))?;
        Ok(if changed { "enabled" } else { "same" })
    })
    .await
}

async fn see_ue(State(service): Shared, Provisioner(who): Provisioner, Path(ue_id): Path<String>) -> Response {
    let since = Instant::now();
    let disabled =
        named(&ue_id).and_then(|ue_id| service.contexts.is_disabled(&ue_id).map_err(|error| service.fault(&error)));
    service.answer(&who, PROVISION, since, disabled.and_then(seen))
}

async fn disable_af(State(service): Shared, who: Provisioner, Path(fqdn): Path<String>) -> Response {
    change(service, who, DISABLE_AF, &fqdn, |service: Arc<Service>, fqdn: Fqdn| async move {
        match service.afs.disable(&fqdn).await.map_err(|error| service.fault(&error))? {
            DisableAfOutcome::Disabled => {
                withdraw_in_background(&service, fqdn);
                Ok("disabled")
            }
            DisableAfOutcome::Same => Ok("same"),
            DisableAfOutcome::Full => Err(full()),
        }
    })
    .await
}

async fn enable_af(State(service): Shared, who: Provisioner, Path(fqdn): Path<String>) -> Response {
    change(service, who, ENABLE_AF, &fqdn, |service: Arc<Service>, fqdn: Fqdn| async move {
        let changed = service.afs.enable(&fqdn).await.map_err(|error| service.fault(&error))?;
        Ok(if changed { "enabled" } else { "same" })
    })
    .await
}

async fn see_af(State(service): Shared, Provisioner(who): Provisioner, Path(fqdn): Path<String>) -> Response {
    let since = Instant::now();
    let disabled = named(&fqdn).map(|fqdn| service.afs.is_disabled(&fqdn));
    service.answer(&who, PROVISION, since, disabled.and_then(seen))
}

/// What the audit calls a request to this interface.
pub(crate) fn action(method: &Method, path: &str) -> &'static str {
    let of_ue = path.strip_prefix(PROVISIONING_PATH).is_some_and(|rest| rest.starts_with("/disabled-ues/"));
    match *method {
        Method::PUT if of_ue => DISABLE_UE,
        Method::DELETE if of_ue => ENABLE_UE,
        Method::PUT => DISABLE_AF,
        Method::DELETE => ENABLE_AF,
        _ => PROVISION,
    }
}

/// What the path names.
trait Named: FromStr + Send + 'static {
    /// How the audit log calls it.
    fn object(&self) -> &str;
}

impl Named for UeId {
    fn object(&self) -> &str {
        "ue"
    }
}

impl Named for Fqdn {
    fn object(&self) -> &str {
        self.as_str()
    }
}

/// One change of what the path names, done to the end, then told and counted.
async fn change<N, F, C>(
    service: Arc<Service>,
    Provisioner(who): Provisioner,
    action: &'static str,
    name: &str,
    change: C,
) -> Response
where
    N: Named,
    C: FnOnce(Arc<Service>, N) -> F,
    F: Future<Output = Result<&'static str, Refused>> + Send + 'static,
{
    let since = Instant::now();
    let (object, outcome) = match named::<N>(name) {
        Ok(name) => (name.object().to_owned(), to_the_end(change(Arc::clone(&service), name)).await),
        // A name that is none is the caller's text, and long perhaps.
        Err(refused) => (String::new(), Err(refused)),
    };
    let outcome = outcome.map(|label| (label, StatusCode::NO_CONTENT));
    let (label, problem) = told(&outcome);
    service.audit.changed(&who, action, &object, label, problem);
    service.metrics.answered(PROVISION, label, since);
    outcome.map_or_else(|(_, problem)| problem.into_response(), |(_, answer)| answer.into_response())
}

/// Queues the notifications of an AF that is disabled; goes on after a restart.
pub(crate) fn withdraw_in_background(service: &Arc<Service>, fqdn: Fqdn) {
    let (service, shutdown) = (Arc::clone(service), service.shutdown.clone());
    let tasks = service.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = withdraw(&service, &fqdn) => {}
            () = shutdown.cancelled() => {}
        }
    });
}

async fn withdraw(service: &Service, fqdn: &Fqdn) {
    // Whoever began before the AF was disabled has left its URI by then.
    service.contexts.settle().await;
    let mut after: Option<Vec<u8>> = None;
    while service.afs.is_disabled(fqdn) {
        match service.contexts.withdraw_af(fqdn, after.as_deref(), service.times()).await {
            Ok(Some(last)) => after = Some(last),
            Ok(None) => match service.afs.told(fqdn).await {
                Ok(()) => return,
                Err(error) => pause(&error).await,
            },
            Err(error) => pause(&error).await,
        }
        service.count();
        tokio::task::yield_now().await;
    }
}

async fn pause(error: &crate::AanfError) {
    tracing::error!(%error, "the notifications of a disabled AF cannot be queued just now");
    tokio::time::sleep(WITHDRAWAL_PAUSE).await;
}

fn named<T: FromStr>(text: &str) -> Result<T, Refused> {
    text.parse().map_err(|_| {
        let problem = ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT);
        refuse("incorrect", problem.with_detail("in the resource's path"))
    })
}

fn seen(disabled: bool) -> Labelled<StatusCode> {
    if disabled {
        return Ok(("found", StatusCode::NO_CONTENT));
    }
    Err(refuse("unknown", ProblemDetails::not_found(refusal::NOT_DISABLED)))
}

fn full() -> Refused {
    let problem = ProblemDetails::new(StatusCode::INTERNAL_SERVER_ERROR);
    refuse("full", problem.with_cause(cause::INSUFFICIENT_RESOURCES))
}

const DISABLE_UE: &str = "disable-ue";
const ENABLE_UE: &str = "enable-ue";
const DISABLE_AF: &str = "disable-af";
const ENABLE_AF: &str = "enable-af";
/// Name of the operation in metrics, and of what changes nothing in the audit.
pub(crate) const PROVISION: &str = "provision";
/// Between attempts to go on where the state cannot be read or written.
const WITHDRAWAL_PAUSE: Duration = Duration::from_secs(1);
