//! Application Servers (TS 23.554 clauses 8.2.5, 8.2.6, 8.7.3): whose certificate is whose, who is registered, and the
//! courier that carries messages and reports to each.
//!
//! TS 29.538 has no operation from the server to an AS. Ours, in one place here: `POST {targetUri}/deliver-message` with a
//! UEMessageDelivery and `POST {targetUri}/deliver-report` with a DeliveryStatusReport, over the same mutual TLS; 2xx says
//! taken, unless a MessageDeliveryAck in it says `DELY_FAILED`.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use message::ts29538::{
    AsRegistration, BgMessageDelivery, DeliveryStatusReport, MessageDeliveryAck, UeMessageDelivery,
};
use message::{Address, AsServiceId, DeliveryStatus, FailureCause, UeMessage};
use sbi::callback::{is_own, is_well_formed_below};
use sbi::{PeerIdentity, SbiClient, SbiError};
use serde_json::{Value, json};
use store::ApplicationServerRecord;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::config::ApplicationServerSection;
use crate::core::Core;
use crate::delivery::{Dispatch, Kind, Schedule};
use crate::inbox;
use crate::mailbox::{CloseReason, Letter, Mailbox};
use crate::policy::{Policy, ServerRules, word};
use crate::registry::Party;
use crate::sync::lock;
use crate::topics;

/// How long a courier sleeps when nothing is due.
const IDLE_TICK: Duration = Duration::from_secs(3600);

/// Every AS that may register, and those that did.
#[derive(Debug)]
pub(crate) struct ApplicationServers {
    rules: ServerRules,
    client: SbiClient,
    registered: Mutex<HashMap<AsServiceId, Registration>>,
}

#[derive(Clone, Debug)]
struct Registration {
    id: String,
    mailbox: Option<Arc<Mailbox>>,
}

/// Why a registration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The certificate is not this AS's.
    NotYours,
    /// There is no such registration.
    Unknown,
    /// `targetUri` is not an https URI that this AS may name.
    TargetUri,
    /// No `target_uris` are configured, and the AS's certificate does not name the host of `targetUri`.
    TargetHost,
    /// It could not be made durable.
    Storage(FailureCause),
}

impl ApplicationServers {
    pub(crate) fn new(rules: ServerRules, client: SbiClient) -> Self {
        Self { rules, client: client.for_callbacks(), registered: Mutex::default() }
    }

    /// Whether the holder of this certificate is this AS.
    pub(crate) fn is_bound(&self, identity: &PeerIdentity, id: &AsServiceId) -> bool {
        self.rules.current().bindings_of(id).any(|binding| binding.admits(identity))
    }

    /// Whether this AS may still have the server send to `target`, by any binding of it. Where none says where, it was the
    /// certificate that did, when it asked.
    pub(crate) fn may_still_name(&self, id: &AsServiceId, target: &str) -> bool {
        self.rules.current().bindings_of(id).any(|binding| binding.may_name(target))
    }

    /// Where this AS may send the server, by the binding that its certificate fits; nowhere said if empty.
    pub(crate) fn target_uris(&self, identity: &PeerIdentity, id: &AsServiceId) -> Vec<String> {
        let rules = self.rules.current();
        let binding = rules.bindings_of(id).find(|binding| binding.admits(identity));
        binding.map(|binding| binding.target_uris.clone()).unwrap_or_default()
    }

    /// Registers an AS, in place of an earlier registration of it; returns the registration's identifier. Runs to its end
    /// even if whoever asked has left.
    pub(crate) async fn register(
        self: &Arc<Self>,
        core: &Arc<Core>,
        identity: &PeerIdentity,
        request: AsRegistration,
    ) -> Result<String, Refusal> {
        let id = &request.as_svc_id;
        let rules = self.rules.current();
        let binding = rules.bindings_of(id).find(|binding| binding.admits(identity)).ok_or(Refusal::NotYours)?;
        if request.target_uri.as_ref().is_some_and(|target| !binding.may_name(target)) {
            return Err(Refusal::TargetUri);
        }
        if binding.target_uris.is_empty() && request.target_uri.as_ref().is_some_and(|target| !is_own(target, identity))
        {
            return Err(Refusal::TargetHost);
        }
        let registration_id = Uuid::new_v4().to_string();
        let record = ApplicationServerRecord {
            as_service_id: id.clone(),
            target_uri: request.target_uri.clone().unwrap_or_default(),
            certificate_identity: identity.nf_instance_id.clone().or_else(|| identity.dns_names.first().cloned()),
            profile: Some(json!({
                REGISTRATION_ID: registration_id, "appId": request.app_id, "asProf": request.as_prof
            })),
            registered_at: OffsetDateTime::now_utc(),
        };
        let (servers, core, identity) = (Arc::clone(self), Arc::clone(core), identity.clone());
        core.tasks
            .clone()
            .spawn(async move {
                let id = servers.register_record(&core, record.clone(), registration_id).await?;
                // The rules may have changed meanwhile, and nobody knew of this one yet.
                if !servers.is_bound(&identity, &record.as_service_id) {
                    servers.remove(&core, record.as_service_id, &id).await?;
                    return Err(Refusal::NotYours);
                }
                Ok(id)
            })
            .await
            .unwrap_or(Err(ENDED))
    }

    async fn register_record(
        &self,
        core: &Arc<Core>,
        record: ApplicationServerRecord,
        registration_id: String,
    ) -> Result<String, Refusal> {
        let id = record.as_service_id.clone();
        let _turn = core.registering(&Address::application_server(&id)).await;
        core.store.put_application_server(record.clone()).await.map_err(|error| {
            tracing::error!(as_service_id = %id, %error, "AS registration not stored");
            Refusal::Storage(if error.is_refusal() { FailureCause::Overloaded } else { FailureCause::StorageFailed })
        })?;
        self.start(core, &record, registration_id.clone());
        tracing::info!(as_service_id = %id, "AS registered");
        Ok(registration_id)
    }

    /// Removes a registration; only its AS may. Runs to its end even if whoever asked has left.
    pub(crate) async fn deregister(
        self: &Arc<Self>,
        core: &Arc<Core>,
        identity: &PeerIdentity,
        registration_id: String,
    ) -> Result<AsServiceId, Refusal> {
        let id = lock(&self.registered)
            .iter()
            .find(|(_, registration)| registration.id == registration_id)
            .map(|(id, _)| id.clone())
            .ok_or(Refusal::Unknown)?;
        if !self.is_bound(identity, &id) {
            return Err(Refusal::NotYours);
        }
        let (servers, core) = (Arc::clone(self), Arc::clone(core));
        core.tasks
            .clone()
            .spawn(async move { servers.remove(&core, id, &registration_id).await })
            .await
            .unwrap_or(Err(ENDED))
    }

    async fn remove(&self, core: &Arc<Core>, id: AsServiceId, registration_id: &str) -> Result<AsServiceId, Refusal> {
        let address = Address::application_server(&id);
        let _turn = core.registering(&address).await;
        if lock(&self.registered).get(&id).is_none_or(|registration| registration.id != registration_id) {
            return Err(Refusal::Unknown);
        }
        core.store.remove_application_server(&id).await.map_err(|error| {
            tracing::error!(as_service_id = %id, %error, "AS registration not removed");
            Refusal::Storage(FailureCause::StorageFailed)
        })?;
        self.take_out(core, &id).await;
        tracing::info!(as_service_id = %id, "AS deregistered");
        Ok(id)
    }

    /// Off the tables in memory, with what it has there and what waits for it. Its turn is held.
    async fn take_out(&self, core: &Arc<Core>, id: &AsServiceId) {
        let address = Address::application_server(id);
        lock(&self.registered).remove(id);
        topics::forget(core, &address).await;
        if let Some(party) = core.registry.find(&address) {
            core.dissolve(&party, None);
            inbox::clear(core, &address).await;
        }
    }

    /// Takes up the registrations on disk. One whose binding is gone from the rules is none any more; one whose `targetUri` may
    /// not be named any more is away, and what is stored for it is kept.
    pub(crate) async fn load(&self, core: &Arc<Core>) -> Result<(), store::StoreError> {
        let rules = self.rules.current();
        for mut record in core.store.application_servers().await? {
            if !rules.bindings_of(&record.as_service_id).any(|binding| binding.is_of(&record)) {
                tracing::warn!(as_service_id = %record.as_service_id, "AS no longer configured, its registration is removed");
                core.store.remove_application_server(&record.as_service_id).await?;
                continue;
            }
            if !record.target_uri.is_empty() && !self.may_still_name(&record.as_service_id, &record.target_uri) {
                tracing::warn!(as_service_id = %record.as_service_id, "targetUri of an AS no longer allowed, it is away");
                record.target_uri.clear();
            }
            self.start(core, &record, registration_id(&record));
            if let Some(party) = core.registry.find(&Address::application_server(&record.as_service_id)) {
                lock(&party.state).awaits_unknown_reports();
            }
        }
        Ok(())
    }

    /// The same with registrations that are taken up already, when the rules have changed. One whose `targetUri` may be named again
    /// is there again.
    pub(crate) async fn reconcile(&self, core: &Arc<Core>, earlier: &Policy) -> Result<(), store::StoreError> {
        let rules = self.rules.current();
        for record in core.store.application_servers().await? {
            let id = &record.as_service_id;
            let Some(registration) = lock(&self.registered).get(id).cloned() else { continue };
            let was = |binding: &ApplicationServerSection| earlier.bindings_of(id).any(|was| was.same_holder(binding));
            if !rules
                .bindings_of(id)
                .any(|binding| binding.is_of(&record) && (was(binding) || binding.is_shown_by(&record)))
            {
                tracing::warn!(as_service_id = %id, "AS no longer configured, its registration is removed");
                core.audit.refused_for(id.as_str(), "register", id.as_str(), word::WITHDRAWN);
                // Whoever registers meanwhile does it by the new rules.
                if let Err(Refusal::Storage(_)) = self.remove(core, id.clone(), &registration.id).await {
                    let _turn = core.registering(&Address::application_server(id)).await;
                    if lock(&self.registered).get(id).is_some_and(|now| now.id == registration.id) {
                        // The next start takes it off the disk.
                        self.take_out(core, id).await;
                    }
                }
                continue;
            }
            let _turn = core.registering(&Address::application_server(id)).await;
            if lock(&self.registered).get(id).is_none_or(|now| now.id != registration.id)
                || record.target_uri.is_empty()
            {
                continue;
            }
            match (self.may_still_name(id, &record.target_uri), registration.mailbox) {
                (true, None) => self.start(core, &record, registration.id),
                (false, Some(mailbox)) => {
                    tracing::warn!(as_service_id = %id, "targetUri of an AS no longer allowed, it is away");
                    core.audit.refused_for(id.as_str(), "register", &record.target_uri, word::WITHDRAWN);
                    mailbox.post(Letter::Close(CloseReason::Replaced));
                    lock(&self.registered).insert(id.clone(), Registration { id: registration.id, mailbox: None });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the AS a party with a courier of its own. Without a `targetUri` it has none and is away for good.
    fn start(&self, core: &Arc<Core>, record: &ApplicationServerRecord, registration_id: String) {
        let address = Address::application_server(&record.as_service_id);
        // UEs are bounded there; Application Servers are bounded by the configuration.
        let Ok(party) = core.registry.find_or_insert(&address, 0) else { return };
        let earlier = lock(&self.registered).remove(&record.as_service_id);
        if let Some(mailbox) = earlier.and_then(|earlier| earlier.mailbox) {
            mailbox.post(Letter::Close(CloseReason::Replaced));
        }
        let mailbox = (!record.target_uri.is_empty()).then(|| Arc::new(Mailbox::default()));
        let registration = Registration { id: registration_id, mailbox: mailbox.clone() };
        lock(&self.registered).insert(record.as_service_id.clone(), registration);
        if core.store.pending_count(&address) > 0 {
            inbox::found_on_disk(core, &party);
        }
        if let Some(mailbox) = mailbox
            && let Some(generation) = party.attach(&mailbox, None)
        {
            core.fan_out.lines.kick(&address);
            let target = record.target_uri.trim_end_matches('/').into();
            let client = self.client.clone();
            let core = Arc::clone(core);
            let wire = Wire::ApplicationServer;
            let courier = Courier { core, party, mailbox, generation, target, client, wire };
            courier.core.tasks.clone().spawn(courier.run());
        }
    }

    /// Tells every courier to end in good order.
    pub(crate) fn stop_all(&self) {
        for registration in lock(&self.registered).values() {
            if let Some(mailbox) = &registration.mailbox {
                mailbox.post(Letter::Close(CloseReason::Stopping));
            }
        }
    }
}

const REGISTRATION_ID: &str = "registrationId";

/// The answer of a task that was ended with the server.
const ENDED: Refusal = Refusal::Storage(FailureCause::Stopping);

impl ApplicationServerSection {
    fn admits(&self, identity: &PeerIdentity) -> bool {
        is_shown(self.nf_instance_id.as_deref(), self.dns_name.as_deref(), identity)
    }

    fn may_name(&self, target: &str) -> bool {
        is_well_formed_below(target, &self.target_uris)
    }

    /// Whether whoever registered can have shown a certificate that this binding wants. Of one by DNS name alone the record does
    /// not tell.
    fn is_of(&self, record: &ApplicationServerRecord) -> bool {
        match (&self.nf_instance_id, &record.certificate_identity) {
            (Some(wanted), Some(shown)) => shown.eq_ignore_ascii_case(wanted),
            _ => true,
        }
    }

    /// Whether the record tells that whoever registered showed what this binding wants.
    fn is_shown_by(&self, record: &ApplicationServerRecord) -> bool {
        let wanted = self.nf_instance_id.as_ref().or(self.dns_name.as_ref());
        wanted
            .zip(record.certificate_identity.as_ref())
            .is_some_and(|(wanted, shown)| shown.eq_ignore_ascii_case(wanted))
    }

    /// Whether both want the same certificate.
    fn same_holder(&self, other: &Self) -> bool {
        (&self.nf_instance_id, &self.dns_name) == (&other.nf_instance_id, &other.dns_name)
    }
}

/// The identifier that the registration was given.
fn registration_id(record: &ApplicationServerRecord) -> String {
    let id = record.profile.as_ref().and_then(|profile| profile.get(REGISTRATION_ID)).and_then(Value::as_str);
    id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// Whether the certificate shows what a binding wants: at least one of the two, and each that is given.
pub(crate) fn is_shown(nf_instance_id: Option<&str>, dns_name: Option<&str>, identity: &PeerIdentity) -> bool {
    let instance = nf_instance_id
        .is_none_or(|wanted| identity.nf_instance_id.as_ref().is_some_and(|shown| shown.eq_ignore_ascii_case(wanted)));
    let name = dns_name.is_none_or(|wanted| identity.dns_names.iter().any(|shown| shown.eq_ignore_ascii_case(wanted)));
    (nf_instance_id.is_some() || dns_name.is_some()) && instance && name
}

/// Carries what is for one AS, or for one broadcast area.
pub(crate) struct Courier {
    pub(crate) core: Arc<Core>,
    pub(crate) party: Arc<Party>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) generation: u64,
    /// What operations are below.
    pub(crate) target: Arc<str>,
    pub(crate) client: SbiClient,
    pub(crate) wire: Wire,
}

/// What a courier's deliveries look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// UEMessageDelivery and DeliveryStatusReport, to an AS.
    ApplicationServer,
    /// BgMessageDelivery, to a Broadcast Message Gateway.
    BroadcastGateway,
}

/// What came of one delivery.
#[derive(Debug)]
enum Verdict {
    Taken,
    Refused(FailureCause),
    /// Not now; the AS may have said when.
    Later(Option<Duration>),
}

impl Courier {
    pub(crate) async fn run(self) {
        let mut under_way = FuturesUnordered::new();
        let mut backoff = Backoff::default();
        let mut stop_by: Option<Instant> = None;
        loop {
            let mut due = None;
            while stop_by.is_none() {
                let window = if backoff.failures > 0 { 1 } else { self.core.limits.application_server_window };
                match self.core.dispatch(&self.party, self.generation, window, Schedule::PerOriginator) {
                    Ok(dispatch) => under_way.push(Box::pin(self.deliver(dispatch))),
                    Err(deadline) => {
                        due = deadline;
                        break;
                    }
                }
            }
            if stop_by.is_some_and(|by| under_way.is_empty() || by <= Instant::now()) {
                break;
            }
            let wake_at = due.or(stop_by).unwrap_or_else(|| Instant::now() + IDLE_TICK);
            tokio::select! {
                Some((tag, verdict)) = under_way.next(), if !under_way.is_empty() => {
                    self.conclude(tag, verdict, &mut backoff);
                }
                () = poll_fn(|context| self.mailbox.poll_ready(context)) => {
                    while let Some(letter) = self.mailbox.take() {
                        match letter {
                            Letter::Close(CloseReason::Stopping) => {
                                stop_by.get_or_insert(Instant::now() + self.core.limits.drain_timeout());
                            }
                            // What is under way is given up; it was handed over already, or nobody is left to wait for it.
                            Letter::Close(_) => return self.core.detach(&self.party, self.generation),
                            Letter::Answer(..) | Letter::Topics(..) | Letter::Revalidate => {}
                        }
                    }
                }
                () = sleep_until(wake_at) => {
                    self.core.lapse(&self.party, self.generation);
                }
            }
        }
        self.core.detach(&self.party, self.generation);
    }

    async fn deliver(&self, dispatch: Dispatch) -> (u64, Verdict) {
        let verdict = match (UeMessage::decode(&dispatch.body, &self.core.stored_limits), self.wire) {
            (Ok(UeMessage::Message(message)), Wire::ApplicationServer) => {
                self.post("deliver-message", &UeMessageDelivery::from(&*message)).await
            }
            (Ok(UeMessage::Message(message)), Wire::BroadcastGateway) => {
                self.post("deliver-message", &BgMessageDelivery::from(&*message)).await
            }
            (Ok(UeMessage::DeliveryStatusReport(report)), Wire::ApplicationServer) => {
                self.post("deliver-report", &DeliveryStatusReport::from(report)).await
            }
            _ => Verdict::Refused(FailureCause::Internal),
        };
        if dispatch.kind == Kind::Message {
            tracing::debug!(recipient = %self.party.address, ?verdict, "message handed to the AS");
        }
        (dispatch.tag, verdict)
    }

    async fn post<B: serde::Serialize + Sync>(&self, operation: &str, body: &B) -> Verdict {
        let uri = format!("{}/{operation}", self.target);
        let limit = self.core.limits.application_server_timeout();
        match tokio::time::timeout(limit, self.client.post_any(&uri, body)).await {
            Ok(Ok(response)) => verdict_of_body(response.body.as_deref()),
            Ok(Err(error)) => self.verdict_of_error(&error),
            Err(_) => {
                tracing::warn!(recipient = %self.party.address, "AS gave no answer in time");
                Verdict::Later(None)
            }
        }
    }

    fn verdict_of_error(&self, error: &SbiError) -> Verdict {
        tracing::warn!(recipient = %self.party.address, %error, "delivery to the AS failed");
        match error {
            SbiError::Problem(problem) => {
                let status = problem.status_code();
                let later = status.is_server_error()
                    || matches!(
                        status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
                    );
                if later {
                    Verdict::Later(problem.retry_after_seconds.map(|seconds| Duration::from_secs(seconds.into())))
                } else {
                    Verdict::Refused(FailureCause::TargetRefused)
                }
            }
            SbiError::InvalidUri | SbiError::InvalidRequest(_) => Verdict::Refused(FailureCause::Internal),
            _ => Verdict::Later(None),
        }
    }

    fn conclude(&self, tag: u64, verdict: Verdict, backoff: &mut Backoff) {
        match verdict {
            Verdict::Taken => {
                backoff.failures = 0;
                self.core.acknowledged(&self.party, self.generation, tag);
            }
            Verdict::Refused(cause) => {
                backoff.failures = 0;
                self.core.refused(&self.party, self.generation, tag, cause);
            }
            Verdict::Later(wanted) => {
                self.core.metrics.application_server_failed();
                let until = backoff.next(Instant::now(), wanted, &self.core.limits);
                self.core.postponed(&self.party, self.generation, tag, until);
            }
        }
    }
}

/// A 2xx without a body, or with one that is no ack, says taken.
fn verdict_of_body(body: Option<&[u8]>) -> Verdict {
    match body.map(serde_json::from_slice::<MessageDeliveryAck>) {
        Some(Ok(MessageDeliveryAck { status: Some(DeliveryStatus::Failed), .. })) => {
            Verdict::Refused(FailureCause::TargetRefused)
        }
        _ => Verdict::Taken,
    }
}

/// How long an AS that failed is left alone: doubled each time, with jitter, so that servers do not come back together.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Deliveries that failed together count once.
    fn next(&mut self, now: Instant, wanted: Option<Duration>, limits: &crate::limits::Limits) -> Instant {
        if let Some(until) = self.until.filter(|until| *until > now) {
            return until;
        }
        let longest = Duration::from_secs(limits.backoff_max_seconds);
        let doubled = Duration::from_millis(limits.backoff_first_milliseconds)
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1).min(31);
        let share = 0.5 + f64::from(Uuid::new_v4().as_bytes().first().copied().unwrap_or(0)) / 510.0;
        let pause = doubled.min(longest).mul_f64(share).max(wanted.unwrap_or_default().min(longest));
        let until = now + pause;
        self.until = Some(until);
        until
    }
}
