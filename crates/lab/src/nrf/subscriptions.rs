//! Who is told what becomes of registrations (TS 29.510 clauses 5.2.2.5 to 5.2.2.7).
//!
//! Each subscription has a bounded queue and a task that sends what is in it, one after the other, so that a subscriber that
//! is slow or gone keeps nobody else waiting and hears of everything in order. What does not fit is lost: a notification says
//! how things are, so the next one makes up for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sbi::nrf::{
    NFProfile, NotificationData, NotificationEventType, PatchItem, SubscrCond, SubscriptionData, apply_patch,
};
use sbi::{ProblemDetails, SbiClient, cause, parse_json};
use time::{Duration, OffsetDateTime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Limits;
use super::registry::{Event, RESOURCE_NOT_FOUND, full};

pub(super) struct Subscriptions {
    client: SbiClient,
    limits: Limits,
    shutdown: CancellationToken,
    entries: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    owner: Uuid,
    data: SubscriptionData,
    /// Dropped with the entry, it ends the sending task.
    queue: mpsc::Sender<Arc<NotificationData>>,
}

impl Subscriptions {
    pub(super) fn new(client: SbiClient, limits: Limits, shutdown: CancellationToken) -> Self {
        Self { client, limits, shutdown, entries: Mutex::default() }
    }

    pub(super) fn add(
        &self,
        owner: Uuid,
        mut data: SubscriptionData,
        now: OffsetDateTime,
    ) -> Result<SubscriptionData, ProblemDetails> {
        self.check(&mut data, now)?;
        let mut entries = self.entries();
        if entries.len() >= self.limits.subscriptions_max {
            return Err(full());
        }
        if entries.values().filter(|entry| entry.owner == owner).count() >= self.limits.subscriptions_per_instance_max {
            return Err(ProblemDetails::forbidden(TOO_MANY_SUBSCRIPTIONS));
        }
        // The pattern of TS 29.510 has no hyphens.
        let id = Uuid::new_v4().simple().to_string();
        data.subscription_id = Some(id.clone());
        let (queue, waiting) = mpsc::channel(self.limits.notifications_waiting_max.max(1));
        tokio::spawn(send(
            self.client.clone(),
            data.nf_status_notification_uri.clone(),
            waiting,
            self.shutdown.clone(),
        ));
        entries.insert(id, Entry { owner, data: data.clone(), queue });
        Ok(data)
    }

    pub(super) fn change(
        &self,
        owner: Uuid,
        id: &str,
        items: &[PatchItem],
        now: OffsetDateTime,
    ) -> Result<SubscriptionData, ProblemDetails> {
        let mut entries = self.entries();
        let entry = entries.get_mut(id).filter(|entry| entry.owner == owner).ok_or_else(unknown)?;
        if items.iter().any(|item| item.path != VALIDITY_TIME) {
            return Err(ProblemDetails::bad_request(cause::MANDATORY_IE_INCORRECT)
                .with_detail("only validityTime can be changed"));
        }
        let document = serde_json::to_value(&entry.data).map_err(|_| ProblemDetails::internal())?;
        let patched = apply_patch(&document, items, self.limits.profile_octets_max)
            .map_err(|error| ProblemDetails::bad_request(cause::INVALID_MSG_FORMAT).with_detail(error.to_string()))?;
        let text = serde_json::to_vec(&patched).map_err(|_| ProblemDetails::internal())?;
        let mut data: SubscriptionData = parse_json(&text)?;
        self.check(&mut data, now)?;
        entry.data = data.clone();
        Ok(data)
    }

    pub(super) fn remove(&self, owner: Uuid, id: &str) -> Result<(), ProblemDetails> {
        let mut entries = self.entries();
        if entries.get(id).is_none_or(|entry| entry.owner != owner) {
            return Err(unknown());
        }
        entries.remove(id);
        Ok(())
    }

    /// Removes those whose time is over.
    pub(super) fn remove_ended(&self) {
        let now = OffsetDateTime::now_utc();
        self.entries().retain(|_, entry| entry.data.validity_time.is_none_or(|end| now < end));
    }

    /// Queues `event` for everybody who wants to know.
    pub(super) fn tell(&self, event: &Event, nf_instance_uri: &str) {
        let profile = (event.kind != NotificationEventType::NfDeregistered).then(|| public(&event.profile));
        let notification = Arc::new(NotificationData {
            event: event.kind.clone(),
            nf_instance_uri: nf_instance_uri.to_owned(),
            nf_profile: profile,
        });
        for (id, entry) in &*self.entries() {
            if wants(&entry.data, event) && entry.queue.try_send(Arc::clone(&notification)).is_err() {
                tracing::warn!(subscription = id, "a notification is lost: the subscriber takes none");
            }
        }
    }

    /// Checks what the types do not, and bounds the end.
    fn check(&self, data: &mut SubscriptionData, now: OffsetDateTime) -> Result<(), ProblemDetails> {
        let incorrect =
            |cause, member, reason| Err(ProblemDetails::bad_request(cause).with_invalid_param(member, reason));
        let uri = &data.nf_status_notification_uri;
        let authority = uri.strip_prefix("https://").filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if uri.len() > URI_OCTETS_MAX || authority.is_none() {
            return incorrect(cause::MANDATORY_IE_INCORRECT, "/nfStatusNotificationUri", "not an https URI");
        }
        if matches!(data.subscr_cond, Some(SubscrCond::Other(_))) {
            return incorrect(OPTIONAL_IE_INCORRECT, "/subscrCond", "this condition is not supported");
        }
        let latest = now + Duration::seconds(i64::from(self.limits.subscription_seconds_max));
        let end = data.validity_time.unwrap_or(latest).min(latest);
        if end <= now {
            return incorrect(OPTIONAL_IE_INCORRECT, "/validityTime", "it is over");
        }
        data.validity_time = Some(end);
        // Said with the request, or by the NRF; there are no optional features, and profiles are told whole.
        for name in OF_ONE_EXCHANGE {
            data.rest.remove(name);
        }
        Ok(())
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(
    client: SbiClient,
    uri: String,
    mut waiting: mpsc::Receiver<Arc<NotificationData>>,
    shutdown: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            next = waiting.recv() => next,
            () = shutdown.cancelled() => return,
        };
        let Some(notification) = next else { return };
        if let Err(error) = client.post_any(&uri, &*notification).await {
            tracing::warn!(%error, "a subscriber did not take a notification");
        }
    }
}

fn wants(data: &SubscriptionData, event: &Event) -> bool {
    let kind = data.req_notif_events.is_empty() || data.req_notif_events.contains(&event.kind);
    let matches = |profile: &NFProfile| {
        let offers = |name: &String| profile.services().any(|service| service.service_name == *name);
        match &data.subscr_cond {
            None => true,
            Some(SubscrCond::Instance { nf_instance_id }) => *nf_instance_id == profile.nf_instance_id,
            Some(SubscrCond::Instances { nf_instance_id_list }) => {
                nf_instance_id_list.contains(&profile.nf_instance_id)
            }
            Some(SubscrCond::Type(condition)) => condition.nf_type == profile.nf_type,
            Some(SubscrCond::Service { service_name }) => offers(service_name),
            Some(SubscrCond::Services { service_name_list, .. }) => service_name_list.iter().any(offers),
            Some(SubscrCond::Other(_)) => false,
        }
    };
    kind && (matches(&event.profile) || event.before.as_ref().is_some_and(matches))
}

/// A profile without what says who may use it, as notifications carry it (TS 29.510 NotificationData).
fn public(profile: &NFProfile) -> NFProfile {
    let mut profile = profile.clone();
    profile.allowed_nf_types.clear();
    profile.rest.retain(|member, _| !RIGHTS.contains(&member.as_str()));
    for service in profile.services_mut() {
        service.allowed_nf_types.clear();
        service.rest.retain(|member, _| !RIGHTS.contains(&member.as_str()));
    }
    profile
}

fn unknown() -> ProblemDetails {
    ProblemDetails::not_found(RESOURCE_NOT_FOUND)
}

/// Members that say who may use a function or service, `allowedNfTypes` aside.
const RIGHTS: [&str; 4] = ["allowedPlmns", "allowedSnpns", "allowedNfDomains", "allowedNssais"];
const OF_ONE_EXCHANGE: [&str; 3] = ["requesterFeatures", "nrfSupportedFeatures", "completeProfileSubscription"];
const VALIDITY_TIME: &str = "/validityTime";
/// No cause of TS 29.510 says it; ours.
const TOO_MANY_SUBSCRIPTIONS: &str = "TOO_MANY_SUBSCRIPTIONS";
/// TS 29.500 table 5.2.7.2-1.
const OPTIONAL_IE_INCORRECT: &str = "OPTIONAL_IE_INCORRECT";
/// Octets of the URI that notifications go to.
const URI_OCTETS_MAX: usize = 2_048;
