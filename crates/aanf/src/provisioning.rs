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

use std::sync::Arc;
use std::time::{Duration, Instant};

use akma::{Fqdn, UeId};
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use axum::routing::put;
use http::StatusCode;
use http::request::Parts;
use sbi::{Path, ProblemDetails, cause};

use crate::contexts::DisableOutcome;
use crate::disabled_afs::DisableAfOutcome;
use crate::service::{Caller, Labelled, Refused, Service, refusal, refuse, refuse_caller, to_the_end};

/// Path of the interface below its root.
pub const PROVISIONING_PATH: &str = "/aanf-provisioning/v1";

pub(crate) fn router() -> Router<Arc<Service>> {
    Router::new()
        .route(&format!("{PROVISIONING_PATH}/disabled-ues/{{ueId}}"), put(disable_ue).delete(enable_ue).get(see_ue))
        .route(&format!("{PROVISIONING_PATH}/disabled-afs/{{fqdn}}"), put(disable_af).delete(enable_af).get(see_af))
}

/// A [`Caller`] that may provision; who it is, for the audit log.
struct Provisioner(String);

impl FromRequestParts<Arc<Service>> for Provisioner {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, ProblemDetails> {
        let Caller { entry, .. } = Caller::from_request_parts(parts, service).await?;
        if !entry.may_provision {
            return Err(refuse_caller(parts, service, "may not provision"));
        }
        let name = entry.nf_instance_id.as_ref().or(entry.dns_name.as_ref());
        Ok(Self(name.cloned().unwrap_or_default()))
    }
}

async fn disable_ue(
    State(service): State<Arc<Service>>,
    Provisioner(who): Provisioner,
    Path(ue_id): Path<String>,
) -> Response {
    let since = Instant::now();
    let own = Arc::clone(&service);
    let outcome = async {
        let ue_id: UeId = named(&ue_id)?;
        to_the_end(async move {
            let outcome = own.contexts.disable_ue(&ue_id, own.times()).await;
            own.count();
            outcome.map_err(|error| own.fault(&error))
        })
        .await
    };
    let outcome = match outcome.await {
        Ok(DisableOutcome::Disabled) => Ok("disabled"),
        Ok(DisableOutcome::Same) => Ok("same"),
        Ok(DisableOutcome::Full) => Err(full()),
        Err(refused) => Err(refused),
    };
    conclude(&service, since, &Audit { who: &who, action: "disable_ue", af: None }, outcome)
}

async fn enable_ue(
    State(service): State<Arc<Service>>,
    Provisioner(who): Provisioner,
    Path(ue_id): Path<String>,
) -> Response {
    let since = Instant::now();
    let own = Arc::clone(&service);
    let outcome = async {
        let ue_id: UeId = named(&ue_id)?;
        to_the_end(async move { own.contexts.enable_ue(&ue_id).await.map_err(|error| own.fault(&error)) }).await
    };
    let outcome = outcome.await.map(|changed| if changed { "enabled" } else { "same" });
    conclude(&service, since, &Audit { who: &who, action: "enable_ue", af: None }, outcome)
}

async fn see_ue(State(service): State<Arc<Service>>, _: Provisioner, Path(ue_id): Path<String>) -> Response {
    let since = Instant::now();
    let disabled =
        named(&ue_id).and_then(|ue_id| service.contexts.is_disabled(&ue_id).map_err(|error| service.fault(&error)));
    service.answer(PROVISION, since, disabled.and_then(seen))
}

async fn disable_af(
    State(service): State<Arc<Service>>,
    Provisioner(who): Provisioner,
    Path(fqdn): Path<String>,
) -> Response {
    let since = Instant::now();
    let own = Arc::clone(&service);
    let outcome = async {
        let fqdn: Fqdn = named(&fqdn)?;
        to_the_end(async move {
            let outcome = own.afs.disable(&fqdn).await.map_err(|error| own.fault(&error))?;
            if matches!(outcome, DisableAfOutcome::Disabled) {
                withdraw_in_background(&own, fqdn);
            }
            Ok(outcome)
        })
        .await
    };
    let outcome = match outcome.await {
        Ok(DisableAfOutcome::Disabled) => Ok("disabled"),
        Ok(DisableAfOutcome::Same) => Ok("same"),
        Ok(DisableAfOutcome::Full) => Err(full()),
        Err(refused) => Err(refused),
    };
    conclude(&service, since, &Audit { who: &who, action: "disable_af", af: Some(&fqdn) }, outcome)
}

async fn enable_af(
    State(service): State<Arc<Service>>,
    Provisioner(who): Provisioner,
    Path(fqdn): Path<String>,
) -> Response {
    let since = Instant::now();
    let own = Arc::clone(&service);
    let outcome = async {
        let fqdn: Fqdn = named(&fqdn)?;
        to_the_end(async move { own.afs.enable(&fqdn).await.map_err(|error| own.fault(&error)) }).await
    };
    let outcome = outcome.await.map(|changed| if changed { "enabled" } else { "same" });
    conclude(&service, since, &Audit { who: &who, action: "enable_af", af: Some(&fqdn) }, outcome)
}

async fn see_af(State(service): State<Arc<Service>>, _: Provisioner, Path(fqdn): Path<String>) -> Response {
    let since = Instant::now();
    let disabled = named(&fqdn).map(|fqdn| service.afs.is_disabled(&fqdn));
    service.answer(PROVISION, since, disabled.and_then(seen))
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

/// What the audit log says besides the outcome.
struct Audit<'a> {
    who: &'a str,
    action: &'static str,
    af: Option<&'a str>,
}

fn conclude(service: &Service, since: Instant, audit: &Audit<'_>, outcome: Result<&'static str, Refused>) -> Response {
    let label = match &outcome {
        Ok(label) => label,
        Err((label, _)) => label,
    };
    // A name that is none is the caller's text, and long perhaps.
    let af = audit.af.and_then(|af| af.parse::<Fqdn>().ok());
    tracing::info!(target: "security", subject = audit.who, action = audit.action, outcome = label,
        af = af.as_ref().map_or("", Fqdn::as_str), "AKMA provisioning");
    service.answer(PROVISION, since, outcome.map(|label| (label, StatusCode::NO_CONTENT)))
}

fn named<T: std::str::FromStr>(text: &str) -> Result<T, Refused> {
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

/// Name of the operation in metrics.
pub(crate) const PROVISION: &str = "provision";
/// Between attempts to go on where the state cannot be read or written.
const WITHDRAWAL_PAUSE: Duration = Duration::from_secs(1);
