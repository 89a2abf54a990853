//! What the NEF tells: reports on device triggers and on reachability (TS 29.122 clauses 5.2.5, 5.3.4, 5.7.3).
//!
//! A notification is taken from the configured NEF only, by its certificate, and only at a destination that this server made
//! for one request: the last segment of its path is 122 random bits. One for what is over already is answered as if it
//! mattered, so that the NEF need not wonder; one that names nothing this server knows, which includes everything from
//! before a restart, gets 404.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequest, Path, Request, State};
use axum::routing::post;
use axum::{Extension, Router};
use http::{StatusCode, Uri};
use sbi::device_triggering::DeviceTriggeringDeliveryReportNotification;
use sbi::monitoring_event::MonitoringNotification;
use sbi::{Json, PeerIdentity, PeerName, ProblemDetails, cause};
use serde::de::DeserializeOwned;

use super::table::{Moment, Notified, Service, Token};
use crate::core::Core;
use crate::log_budget::Topic;
use crate::sync::lock;

/// 404: the destination was made for nobody, or is forgotten.
const NOTIFICATION_NOT_FOUND: &str = "NOTIFICATION_NOT_FOUND";
/// 403: the peer is not the NEF.
const NOTIFIER_NOT_ALLOWED: &str = "NOTIFIER_NOT_ALLOWED";

/// Where a destination is, below the root.
pub(super) fn path(service: Service) -> &'static str {
    match service {
        Service::Triggering => "/notifications/triggers",
        Service::Monitoring => "/notifications/reachability",
    }
}

/// Who the NEF is, by its certificate.
#[derive(Debug, Clone)]
pub(super) enum Notifier {
    /// By the names that are configured.
    Named(PeerName),
    /// By the host of its API root.
    Host(String),
}

impl Notifier {
    /// By `name`, or, if it is empty, by the host of `nef`.
    pub(super) fn new(name: &PeerName, nef: &str) -> Self {
        if !name.is_empty() {
            return Self::Named(name.clone());
        }
        let uri = nef.parse::<Uri>().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        Self::Host(host.trim_start_matches('[').trim_end_matches(']').to_owned())
    }

    fn is(&self, identity: &PeerIdentity) -> bool {
        match self {
            Self::Named(name) => name.names(identity),
            Self::Host(host) => match host.parse::<IpAddr>() {
                Ok(address) => identity.ip_addresses.contains(&address),
                Err(_) => !host.is_empty() && identity.dns_names.iter().any(|name| name.eq_ignore_ascii_case(host)),
            },
        }
    }
}

#[derive(Clone)]
struct Notifications {
    core: Arc<Core>,
    notifier: Notifier,
}

/// Both destinations.
pub(super) fn router(core: Arc<Core>, notifier: Notifier) -> Router {
    Router::new()
        .route("/notifications/triggers/{token}", post(trigger_report))
        .route("/notifications/reachability/{token}", post(reachability_report))
        .fallback(async || ProblemDetails::not_found(cause::RESOURCE_URI_STRUCTURE_NOT_FOUND))
        .with_state(Notifications { core, notifier })
}

async fn trigger_report(
    State(notifications): State<Notifications>,
    Extension(identity): Extension<PeerIdentity>,
    Path(token): Path<String>,
    request: Request,
) -> Result<StatusCode, ProblemDetails> {
    let token = notifications.admit(&identity, &token, Service::Triggering)?;
    let report: DeviceTriggeringDeliveryReportNotification = notifications.body(request).await?;
    let core = &notifications.core;
    let (at, limits) = (Moment::now(), &core.limits);
    let notified = lock(&core.reachability.table).trigger_reported(&token, &report.result, at, limits);
    notifications.answer(&notified, Service::Triggering)
}

async fn reachability_report(
    State(notifications): State<Notifications>,
    Extension(identity): Extension<PeerIdentity>,
    Path(token): Path<String>,
    request: Request,
) -> Result<StatusCode, ProblemDetails> {
    let token = notifications.admit(&identity, &token, Service::Monitoring)?;
    let notification: MonitoringNotification = notifications.body(request).await?;
    let reachable = notification.monitoring_event_reports.iter().filter(|report| report.is_reachable()).count();
    let reachable = u32::try_from(reachable).unwrap_or(u32::MAX);
    let cancelled = notification.cancel_ind.unwrap_or(false);
    let core = &notifications.core;
    let (at, limits) = (Moment::now(), &core.limits);
    let notified = lock(&core.reachability.table).reachability_reported(&token, reachable, cancelled, at, limits);
    notifications.answer(&notified, Service::Monitoring)
}

impl Notifications {
    /// Decided before the body is read.
    fn admit(&self, identity: &PeerIdentity, token: &str, service: Service) -> Result<Token, ProblemDetails> {
        if !self.notifier.is(identity) {
            self.tell_refused(identity, "notification of somebody else than the NEF refused");
            return Err(ProblemDetails::forbidden(NOTIFIER_NOT_ALLOWED));
        }
        let token = Token::parse(token).filter(|token| lock(&self.core.reachability.table).knows(token, service));
        token.ok_or_else(|| self.not_found(identity))
    }

    async fn body<T: DeserializeOwned>(&self, request: Request) -> Result<T, ProblemDetails> {
        let read = Json::<T>::from_request(request, &()).await;
        read.map(|Json(body)| body).inspect_err(|_| self.core.reachability.metrics.notified("malformed"))
    }

    fn answer(&self, notified: &Notified, service: Service) -> Result<StatusCode, ProblemDetails> {
        let core = &self.core;
        match notified {
            Notified::Awaited(address) => {
                tracing::debug!(recipient = %address, ?service, "notification of the NEF");
                core.reachability.metrics.notified("awaited");
                core.reachability.wake.notify_one();
            }
            Notified::Over => core.reachability.metrics.notified("over"),
            // Forgotten since it was admitted.
            Notified::Unknown => {
                core.reachability.metrics.notified("unknown");
                return Err(ProblemDetails::not_found(NOTIFICATION_NOT_FOUND));
            }
        }
        Ok(StatusCode::NO_CONTENT)
    }

    fn not_found(&self, identity: &PeerIdentity) -> ProblemDetails {
        self.tell_unknown(identity);
        ProblemDetails::not_found(NOTIFICATION_NOT_FOUND)
    }

    fn tell_refused(&self, identity: &PeerIdentity, what: &'static str) {
        self.core.reachability.metrics.notified("refused");
        if self.core.log_budget.admits(Topic::Notification) {
            tracing::warn!(
                target: "security", nf_instance_id = ?identity.nf_instance_id, dns_names = ?identity.dns_names, "{what}"
            );
        }
    }

    /// A restart makes these of honest notifications; many of them are somebody who guesses.
    fn tell_unknown(&self, identity: &PeerIdentity) {
        self.core.reachability.metrics.notified("unknown");
        if self.core.log_budget.admits(Topic::Notification) {
            tracing::warn!(
                target: "security", nf_instance_id = ?identity.nf_instance_id, dns_names = ?identity.dns_names,
                "notification at a destination that is not known"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(dns_name: &str, address: Option<IpAddr>) -> PeerIdentity {
        PeerIdentity {
            dns_names: vec![dns_name.to_owned()],
            ip_addresses: address.into_iter().collect(),
            ..PeerIdentity::default()
        }
    }

    #[test]
    fn without_a_name_the_nef_is_the_host_of_its_root() {
        let notifier = Notifier::new(&PeerName::default(), "https://nef.example:8443/root");
        assert!(notifier.is(&peer("NEF.example", None)));
        assert!(!notifier.is(&peer("nef.example.org", None)));
        let notifier = Notifier::new(&PeerName::default(), "https://[::1]:8443");
        assert!(notifier.is(&peer("", Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])))));
        assert!(!notifier.is(&peer("::1", None)));
    }

    #[test]
    fn a_name_that_is_configured_is_the_only_one() {
        let name = PeerName { dns_name: Some("callbacks.example".to_owned()), ..PeerName::default() };
        let notifier = Notifier::new(&name, "https://nef.example");
        assert!(notifier.is(&peer("callbacks.example", None)));
        assert!(!notifier.is(&peer("nef.example", None)));
    }

    #[test]
    fn a_root_without_a_host_is_nobody() {
        assert!(!Notifier::new(&PeerName::default(), "").is(&peer("", None)));
    }
}
