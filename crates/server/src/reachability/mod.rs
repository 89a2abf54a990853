//! Waking sleeping devices through the network (TS 23.554 clause 8.9): device triggers, and monitoring of reachability.
//!
//! ```text
//!  message stored, UE away ─▶ table ─ window open? ─▶ identity ─▶ [UE_REACHABILITY ─ report ─▶] trigger ─▶ NEF ─▶ device
//!                               ▲                                        │                        │         │
//!                               └──────── notifications (mutual TLS) ◀───┴────────────────────────┘         │
//!  registered again ───────▶ taken out, what the NEF still holds is withdrawn  ◀────────────────────────────┘
//! ```
//!
//! A UE that registered with Client Triggering Information (TS 23.554 table 8.2.1-2) and is away is triggered when
//! something is stored for it: once at a time, when its Communication Availability (table 8.2.1-3) says that it listens, for
//! no longer than the messages live. The promises of the service do not rest on it: what is stored is stored. Without
//! `[exposure]` in the configuration nothing happens and nobody is asked.
//!
//! Nothing here is durable. After a restart everybody who has messages waiting is looked at again, after
//! `trigger_restart_pause_seconds`, in which those that only lost their connection come back by themselves; a trigger from
//! before may thus be repeated once, and its reports are answered with 404.
//!
//! INFERRED, and all of it here and in [`table`]: TS 23.554 leaves the trigger's payload, its port where the UE names none,
//! and the order of monitoring and triggering open.

mod identity;
mod metrics;
mod notifications;
mod table;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use message::{Address, AddressType, ClientProfile, TriggeringInformation, UeServiceId};
use sbi::device_triggering::{DeviceTriggering, DeviceTriggeringClient, Priority};
use sbi::monitoring_event::{
    MonitoringEventClient, MonitoringEventReport, MonitoringEventSubscription, MonitoringType, ReachabilityType,
};
use sbi::{CertificateFiles, Device, ResourceId, SbiClient, SbiError, SbiServer, SbiServerConfig};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use transport::LogThrottle;

pub(crate) use metrics::ReachabilityMetrics;

use self::identity::{NotPermitted, permitted_device, tell_refused};
use self::notifications::{Notifier, router};
use self::table::{Ask, Asked, Job, Moment, Monitoring, Service, Table, Want};
use crate::config::ExposureSection;
use crate::core::Core;
use crate::registry::Party;
use crate::sync::lock;

/// Octets of a trigger's payload: what one short message has room for beside the ports (TS 23.040 clause 9.2.3.24.4: 140
/// octets of user data, 7 of header).
pub(crate) const TRIGGER_PAYLOAD_OCTETS_MAX: usize = 133;

/// The protocol that `3gpp-device-triggering` stands for (TS 23.682 clause 5.2.1: triggers travel as short messages).
const PROTOCOL: &str = "SMS";

/// UEs looked at together after a restart.
const RECIPIENTS_BATCH: usize = 4096;

/// A NEF that fails does so for many.
static FAILED: LogThrottle = LogThrottle::new();

/// How long the worker sleeps when nothing is due.
const IDLE_TICK: Duration = Duration::from_secs(3600);

/// Everything about waking UEs. Does nothing until [`Reachability::enable`].
#[derive(Debug, Default)]
pub(crate) struct Reachability {
    exposure: OnceLock<Exposure>,
    pub(crate) metrics: ReachabilityMetrics,
    table: Mutex<Table>,
    wake: Notify,
}

/// The NEF, and how it is used.
#[derive(Debug)]
struct Exposure {
    triggering: DeviceTriggeringClient,
    monitoring: MonitoringEventClient,
    /// Where notifications reach this server: a root without a trailing slash.
    notification_uri: String,
    application_port: u16,
    monitoring_reports: u32,
    monitoring_seconds: Option<u32>,
    is_monitoring: bool,
}

/// Takes the notifications of the NEF that `section` names, and wakes UEs through it with `client` from now on, until `stop` and the
/// server's own stop.
pub(crate) async fn serve(
    core: &Arc<Core>,
    section: &ExposureSection,
    client: SbiClient,
    tls: CertificateFiles,
    stop: CancellationToken,
) -> Result<SbiServer, SbiError> {
    let config = SbiServerConfig { listen: section.notification_listen, tls, limits: section.limits.clone() };
    let notifier = Notifier::new(&section.notifier, &section.nef);
    let metrics = core.reachability.metrics.server.clone();
    let server = SbiServer::start_admitting(config, router(Arc::clone(core), notifier), stop, metrics).await?;
    let own = format!("https://{}", server.local_addr());
    core.reachability.enable(section, client, section.notification_uri.as_ref().unwrap_or(&own));
    take_up(core);
    core.tasks.spawn(run(Arc::clone(core)));
    Ok(server)
}

impl Reachability {
    /// From now on UEs are woken by `client` through the NEF of `section`, which finds this server at `notification_uri`.
    fn enable(&self, section: &ExposureSection, client: SbiClient, notification_uri: &str) {
        let exposure = Exposure {
            triggering: DeviceTriggeringClient::new(client.clone(), &section.nef, &section.scs_as_id),
            monitoring: MonitoringEventClient::new(client, &section.nef, &section.scs_as_id),
            notification_uri: notification_uri.trim_end_matches('/').to_owned(),
            application_port: section.application_port,
            monitoring_reports: section.monitoring_reports,
            monitoring_seconds: section.monitoring_seconds,
            is_monitoring: section.reachability_monitoring,
        };
        // Once for each server.
        let _ = self.exposure.set(exposure);
    }

    /// UEs that are to be woken.
    #[cfg(test)]
    pub(crate) fn watched(&self) -> usize {
        lock(&self.table).len()
    }
}

impl Core {
    /// Something was stored for a party that is away: it is woken if it can be. Cheap if it cannot.
    pub(crate) fn wake_up(&self, party: &Party, urgent: bool, expires_at: Option<OffsetDateTime>) {
        let delay = Duration::from_secs(self.limits.trigger_delay_seconds);
        self.wake_up_after(party, urgent, expires_at, delay);
    }

    fn wake_up_after(&self, party: &Party, urgent: bool, expires_at: Option<OffsetDateTime>, delay: Duration) {
        let reachability = &self.reachability;
        if reachability.exposure.get().is_none() {
            return;
        }
        let availability = {
            let state = lock(&party.state);
            if state.carrier.is_some() || state.gone {
                return;
            }
            let Some(profile) = state.profile.as_deref().filter(|profile| profile.triggering.is_some()) else { return };
            profile.availability
        };
        let at = Moment::now();
        let expires_at = expires_at.unwrap_or_else(|| at.utc.saturating_add(self.expiry_max()));
        let want = Want { urgent, expires_at, availability, delay };
        if lock(&reachability.table).wanted(&party.address, want, at, &self.limits).is_err() {
            reachability.metrics.asked(Service::Triggering, "table full");
            return;
        }
        reachability.wake.notify_one();
    }

    /// The party is connected: nothing has to wake it any more.
    pub(crate) fn woken(&self, address: &Address) {
        if self.reachability.exposure.get().is_some() && lock(&self.reachability.table).settled(address, &self.limits) {
            self.reachability.wake.notify_one();
        }
    }
}

/// After a start: everybody who is away and has messages waiting is to be woken, once those that only lost their connection
/// had the time to come back.
fn take_up(core: &Core) {
    let pause = Duration::from_secs(core.limits.trigger_restart_pause_seconds);
    let mut after: Option<Address> = None;
    loop {
        let batch = core.store.pending_recipients(after.as_ref(), RECIPIENTS_BATCH);
        let Some(last) = batch.last().cloned() else { return };
        for recipient in batch.iter().filter(|recipient| recipient.addr_type == AddressType::Ue) {
            if let Some(party) = core.registry.find(recipient) {
                core.wake_up_after(&party, false, None, pause);
            }
        }
        after = Some(last);
    }
}

/// Asks the NEF for what is due, until the server stops. What is under way then is given up: the NEF has it or not, and the
/// next start looks again.
async fn run(core: Arc<Core>) {
    let reachability = &core.reachability;
    let Some(exposure) = reachability.exposure.get() else { return };
    let reports = if exposure.is_monitoring { exposure.monitoring_reports } else { 0 };
    let mut under_way = FuturesUnordered::new();
    loop {
        let due = {
            let mut table = lock(&reachability.table);
            while let Some(job) = table.next(Monitoring { reports }, Moment::now(), &core.limits) {
                under_way.push(Box::pin(perform(&core, exposure, job)));
            }
            reachability.metrics.watched.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
            table.next_due(&core.limits)
        };
        tokio::select! {
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            () = reachability.wake.notified() => {}
            () = sleep_until(due.unwrap_or_else(|| Instant::now() + IDLE_TICK)) => {}
            () = core.stopping.cancelled() => return,
            () = core.stopped.cancelled() => return,
        }
    }
}

async fn perform(core: &Core, exposure: &Exposure, job: Job) {
    match job {
        Job::Withdraw(service, resource) => {
            let asked_at = Instant::now();
            let result = match service {
                Service::Triggering => exposure.triggering.withdraw(&resource).await,
                Service::Monitoring => exposure.monitoring.unsubscribe(&resource).await,
            };
            core.reachability.metrics.nef_took(asked_at.elapsed());
            if let Err(error) = result {
                // It ends by itself.
                tracing::debug!(?service, %error, "not withdrawn from the NEF");
            }
            lock(&core.reachability.table).withdrawal_ended();
        }
        Job::Ask(ask) => {
            let (asked, outcome) = ask_nef(core, exposure, &ask).await;
            lock(&core.reachability.table).ask_ended(&ask, asked, Moment::now(), &core.limits);
            core.reachability.metrics.asked(ask.service, outcome);
        }
    }
}

async fn ask_nef(core: &Core, exposure: &Exposure, ask: &Ask) -> (Asked, &'static str) {
    let Some(id) = ask.address.as_ue() else { return (Asked::Needless, "needless") };
    let away = core.registry.find(&ask.address).is_some_and(|party| lock(&party.state).carrier.is_none());
    if !away || core.store.pending_count(&ask.address) == 0 {
        return (Asked::Needless, "needless");
    }
    // Read anew each time: the disk has what memory need not hold for every UE.
    let record = match core.store.registration(&id).await {
        Ok(Some(record)) => record,
        Ok(None) => return (Asked::Needless, "needless"),
        Err(error) => {
            tracing::error!(ue_service_id = %id, %error, "registration not read");
            return (Asked::Undecided, "undecided");
        }
    };
    let profile = record.client_profile.clone().and_then(|value| serde_json::from_value::<ClientProfile>(value).ok());
    let Some(triggering) = profile.and_then(|profile| profile.triggering) else {
        return (Asked::Needless, "needless");
    };
    if triggering.protocol.as_ref().is_some_and(|protocol| !protocol.eq_ignore_ascii_case(PROTOCOL)) {
        tracing::debug!(ue_service_id = %id, "UE is triggered by a protocol that the NEF does not offer");
        return (Asked::NotAllowed, "protocol not supported");
    }
    let device = match permitted_device(core, &record, &triggering).await {
        Ok(device) => device,
        Err(NotPermitted::NotProven) => {
            tell_refused(core, &id);
            return (Asked::NotAllowed, "not allowed");
        }
        Err(NotPermitted::Undecided) => return (Asked::Undecided, "undecided"),
    };
    let destination = format!("{}{}/{}", exposure.notification_uri, notifications::path(ask.service), ask.token);
    let asked_at = Instant::now();
    let result = match ask.service {
        Service::Triggering => trigger(exposure, ask, &id, &triggering, device, destination).await,
        Service::Monitoring => monitor(exposure, device, destination).await,
    };
    core.reachability.metrics.nef_took(asked_at.elapsed());
    conclusion(ask, &id, result)
}

async fn trigger(
    exposure: &Exposure,
    ask: &Ask,
    id: &UeServiceId,
    triggering: &TriggeringInformation,
    device: Device,
    notification_destination: String,
) -> Result<Asked, SbiError> {
    let request = DeviceTriggering {
        self_link: None,
        device,
        supported_features: None,
        validity_period: ask.validity_seconds,
        priority: if ask.urgent { Priority::Priority } else { Priority::NoPriority },
        application_port_id: triggering.ports.first().copied().unwrap_or(exposure.application_port),
        app_src_port_id: None,
        trigger_payload: trigger_payload(id),
        notification_destination,
        delivery_result: None,
    };
    let taken = exposure.triggering.trigger(&request).await?;
    if taken.result.is_some_and(|result| result.is_failure()) {
        return Ok(Asked::Failed);
    }
    Ok(Asked::Taken { resource: taken.transaction, reports_follow: true, reachable: false })
}

/// A one-time check is one report and no end; what goes on longer has more reports, an end, or both (TS 23.554 clause
/// 8.9.2.2).
async fn monitor(exposure: &Exposure, device: Device, notification_destination: String) -> Result<Asked, SbiError> {
    let lasting = exposure.monitoring_seconds.map(|seconds| time::Duration::seconds(i64::from(seconds)));
    let request = MonitoringEventSubscription {
        self_link: None,
        supported_features: None,
        device,
        notification_destination,
        monitoring_type: MonitoringType::UeReachability,
        maximum_number_of_reports: Some(exposure.monitoring_reports),
        monitor_expire_time: lasting.map(|lasting| whole_seconds(OffsetDateTime::now_utc()).saturating_add(lasting)),
        // What the trigger will need.
        reachability_type: Some(ReachabilityType::Sms),
    };
    let subscribed = exposure.monitoring.subscribe(&request).await?;
    let reachable = subscribed.reports.iter().any(MonitoringEventReport::is_reachable);
    let resource: Option<ResourceId> = subscribed.subscription;
    Ok(Asked::Taken { resource, reports_follow: subscribed.reports_follow, reachable })
}

fn conclusion(ask: &Ask, id: &UeServiceId, result: Result<Asked, SbiError>) -> (Asked, &'static str) {
    let service = ask.service;
    let error = match result {
        Ok(asked) => {
            tracing::debug!(ue_service_id = %id, ?service, "asked of the NEF");
            let outcome = if matches!(asked, Asked::Failed) { "failed at once" } else { "taken" };
            return (asked, outcome);
        }
        Err(error) => error,
    };
    if let Some(unlogged) = FAILED.admit() {
        tracing::warn!(ue_service_id = %id, ?service, %error, unlogged, "request to the NEF failed");
    }
    match &error {
        SbiError::Problem(problem) => {
            let status = problem.status_code();
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                let wanted = problem.retry_after_seconds.map(|seconds| Duration::from_secs(seconds.into()));
                (Asked::Unavailable(wanted), "NEF unavailable")
            } else {
                (Asked::Refused, "refused")
            }
        }
        SbiError::TimedOut => (Asked::InDoubt, "no answer in time"),
        SbiError::Unreachable(_) | SbiError::Overloaded => (Asked::Unavailable(None), "NEF unavailable"),
        _ => (Asked::Refused, "unusable answer"),
    }
}

fn whole_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

/// What the device gets (INFERRED: TS 23.554 says no more than that the client reads it): JSON in the spelling of
/// MSGin5G-1, so that one parser serves both. `ueSvcId` tells a device with several clients which of them is meant, and is
/// left out if it does not fit into one short message. Nothing of the messages themselves is in it: it travels in clear.
pub(crate) fn trigger_payload(id: &UeServiceId) -> Vec<u8> {
    let named = serde_json::json!({"msgType": "TRIGGER", "ueSvcId": id.as_str()}).to_string();
    if named.len() <= TRIGGER_PAYLOAD_OCTETS_MAX {
        named.into_bytes()
    } else {
        serde_json::json!({"msgType": "TRIGGER"}).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_trigger_names_the_client_if_that_fits_into_one_short_message() {
        let payload = trigger_payload(&"meter-7@lab.example".parse().unwrap());
        assert_eq!(payload, br#"{"msgType":"TRIGGER","ueSvcId":"meter-7@lab.example"}"#);
        let long = trigger_payload(&"m".repeat(200).parse().unwrap());
        assert_eq!(long, br#"{"msgType":"TRIGGER"}"#);
    }
}
