//! Registration, de-registration and re-validation: what a session asks of others. One at a time.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use coap::{Code, ExchangeId};
use message::{Address, ClientProfile, Deregistration, FailureCause, Registration, UeServiceId};
use store::RegistrationRecord;
use time::OffsetDateTime;
use tokio::time::Instant;
use transport::{BoxFuture, KeyRequest, LookupRefusal, ProvenPeer};

use super::{Ended, Registered, Session, expiry_instant, jittered};
use crate::association::{REGISTER, REVALIDATE};
use crate::core::Core;
use crate::inbox;
use crate::log_budget::Topic;
use crate::mailbox::Mailbox;
use crate::policy::word;
use crate::registry::Party;
use crate::sync::lock;
use crate::topics;

/// Something under way that is not the session's own business.
pub(super) type Procedure = BoxFuture<'static, Outcome>;

/// How it ended.
pub(super) enum Outcome {
    /// With K_AF's expiry, where the key server was asked.
    Registered(ExchangeId, UeServiceId, Result<Registered, FailureCause>, Option<SystemTime>),
    /// Whether the A-KID is still the UE's is not known, and nothing is registered before it is.
    StillDoubted(ExchangeId, UeServiceId),
    Deregistered(ExchangeId, UeServiceId, Result<(), FailureCause>),
    /// With K_AF's expiry as the key server has it now.
    Revalidated(Result<Option<SystemTime>, Invalid>),
}

/// What a re-validation found.
pub(super) enum Invalid {
    Key,
    Association,
    /// No answer, which is not an answer yet.
    Unknown,
}

/// Pause before a re-validation without an answer is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

impl Session {
    /// REG (TS 23.554 clause 8.2.1).
    pub(super) fn register(&mut self, exchange: ExchangeId, registration: Registration) {
        let id = registration.ue_service_id.clone();
        if let Err(cause) = self.may_start() {
            self.core.metrics.registration(Some(cause));
            return self.answer_registration(exchange, id, Err(cause));
        }
        let (core, peer, mailbox) = (Arc::clone(&self.core), self.peer.clone(), Arc::clone(&self.mailbox));
        let (doubted, source) = (std::mem::take(&mut self.doubted), self.source);
        self.start(Box::pin(async move {
            let mut expires_at = None;
            if doubted {
                match check_key(&core, &peer, source).await {
                    Ok(expiry) => expires_at = expiry,
                    Err(Invalid::Unknown) => return Outcome::StillDoubted(exchange, id),
                    Err(invalid) => return Outcome::Revalidated(Err(invalid)),
                }
            }
            let result = register(&core, &peer, &mailbox, &registration).await;
            core.metrics.registration(result.as_ref().err().copied());
            Outcome::Registered(exchange, id, result, expires_at)
        }));
    }

    /// DEREG (TS 23.554 clause 8.2.2).
    pub(super) fn deregister(&mut self, exchange: ExchangeId, deregistration: Deregistration) {
        let id = deregistration.ue_service_id;
        let registered = match &self.registered {
            None => return self.answer_registration(exchange, id, Err(FailureCause::NotRegistered)),
            Some(registered) if registered.party.address != Address::ue(&id) => {
                if self.core.log_budget.admits(Topic::Forged) {
                    tracing::warn!(
                        target: "security", sender = %registered.party.address, claimed = %id,
                        "de-registration of somebody else refused"
                    );
                }
                self.core.audit.refused_for(
                    &registered.party.address.to_string(),
                    "ue-deregister",
                    id.as_str(),
                    word::NOT_YOURS,
                );
                return self.answer_registration(exchange, id, Err(FailureCause::OriginatorNotAllowed));
            }
            Some(registered) => Registered { party: Arc::clone(&registered.party), generation: registered.generation },
        };
        if let Err(cause) = self.may_start() {
            return self.answer_registration(exchange, id, Err(cause));
        }
        let (core, mailbox) = (Arc::clone(&self.core), Arc::clone(&self.mailbox));
        self.start(Box::pin(async move {
            let result = remove_registration(&core, &registered, &id, &mailbox).await;
            Outcome::Deregistered(exchange, id, result)
        }));
    }

    /// Asks again for key and association: now, or once what is under way is over; of a session that is not registered, when
    /// it is about to be.
    pub(super) fn revalidate(&mut self, now: Instant) {
        self.revalidate_at = now + RETRY_PAUSE;
        let free = self.procedure.is_none() && self.ending.is_none();
        let Some(registered) = self.registered.as_ref().filter(|_| free) else {
            self.doubted = true;
            return;
        };
        self.doubted = false;
        let (core, peer, source) = (Arc::clone(&self.core), self.peer.clone(), self.source);
        let party = Arc::clone(&registered.party);
        self.start(Box::pin(async move { Outcome::Revalidated(revalidate(&core, &peer, source, &party).await) }));
    }

    /// Each costs the Configuration Function a question, or the disk a write: a connection has so many in a minute.
    fn may_start(&mut self) -> Result<(), FailureCause> {
        if self.core.stopping.is_cancelled() {
            return Err(FailureCause::Stopping);
        }
        if self.procedure.is_some() {
            return Err(FailureCause::TooMany);
        }
        self.check_key()?;
        if self.pace.admits(self.core.limits.registrations_per_minute_max, Instant::now()) {
            return Ok(());
        }
        if self.core.log_budget.admits(Topic::RegistrationRefused) {
            tracing::warn!(target: "security", a_kid = %self.peer.a_kid, "registration refused at a limit");
        }
        Err(FailureCause::RateExceeded)
    }

    fn start(&mut self, procedure: Procedure) {
        self.procedure = Some(procedure);
        self.look = true;
    }

    pub(super) fn poll_procedure(&mut self, context: &mut Context<'_>) -> bool {
        let Some(procedure) = &mut self.procedure else { return false };
        let Poll::Ready(outcome) = procedure.as_mut().poll(context) else { return false };
        self.procedure = None;
        match outcome {
            Outcome::Registered(exchange, id, Ok(registered), expires_at) => {
                self.shorten(expires_at);
                let earlier = self.registered.replace(registered);
                self.asleep = false;
                if let Some(earlier) = earlier {
                    self.leave(earlier);
                }
                self.register_by = None;
                self.schedule_revalidation();
                // The answer goes out before the first delivery does.
                self.answer_registration(exchange, id, Ok(Code::CREATED));
                self.look = true;
            }
            Outcome::Registered(exchange, id, Err(cause), _) => self.answer_registration(exchange, id, Err(cause)),
            Outcome::StillDoubted(exchange, id) => {
                self.doubted = true;
                self.answer_registration(exchange, id, Err(FailureCause::AssociationUnknown));
            }
            Outcome::Deregistered(exchange, id, result) => {
                if result.is_ok() {
                    self.registered = None;
                    self.forget_sent();
                    self.register_by = Some(Instant::now() + self.core.limits.registration_timeout());
                }
                self.answer_registration(exchange, id, result.map(|()| Code::DELETED));
            }
            Outcome::Revalidated(result) => self.revalidated(result),
        }
        if self.doubted && self.registered.is_some() {
            self.revalidate(Instant::now());
        }
        true
    }

    /// This connection registered another UE Service ID: the earlier one is away from now on. If it is the same one, what
    /// was sent and not acknowledged is sent again, under the new registration.
    fn leave(&mut self, earlier: Registered) {
        self.forget_sent();
        self.core.detach(&earlier.party, earlier.generation);
    }

    /// K_AF is good for no longer than the key server says, whenever it says so. What it adds is for the UE's next connection,
    /// which knows nothing of it.
    fn shorten(&mut self, expires_at: Option<SystemTime>) {
        let earlier = expires_at.filter(|at| self.peer.expires_at.is_none_or(|before| *at < before));
        if earlier.is_some() {
            self.peer.expires_at = earlier;
            self.expires = expiry_instant(earlier, Instant::now());
        }
    }

    fn revalidated(&mut self, result: Result<Option<SystemTime>, Invalid>) {
        let now = Instant::now();
        let end = match result {
            Ok(expires_at) => {
                self.shorten(expires_at);
                self.schedule_revalidation();
                if std::mem::take(&mut self.unchecked) {
                    // What has come meanwhile.
                    self.take_events();
                    self.look = true;
                }
                return;
            }
            Err(Invalid::Key) => Ended::KeyWithdrawn,
            Err(Invalid::Association) => Ended::AssociationRemoved,
            Err(Invalid::Unknown) if now < self.revalidate_by => {
                self.revalidate_at = (now + RETRY_PAUSE).min(self.revalidate_by);
                return;
            }
            Err(Invalid::Unknown) => Ended::NotRevalidated,
        };
        tracing::warn!(target: "security", a_kid = %self.peer.a_kid, reason = end.as_str(), "connection ended");
        self.abort(end);
    }

    fn schedule_revalidation(&mut self) {
        let limits = &self.core.limits;
        let (now, interval) = (Instant::now(), Duration::from_secs(limits.revalidation_seconds));
        self.revalidate_at = now + jittered(interval);
        self.revalidate_by = self.revalidate_at + Duration::from_secs(limits.revalidation_grace_seconds);
    }
}

/// A registration is accepted if the UE ID that the handshake proved is associated with the UE Service ID, and is on disk
/// before it is answered. One that is as it was on disk costs no write.
async fn register(
    core: &Arc<Core>,
    peer: &ProvenPeer,
    mailbox: &Arc<Mailbox>,
    registration: &Registration,
) -> Result<Registered, FailureCause> {
    let id = &registration.ue_service_id;
    let associated = core.decide_association(&peer.a_kid, peer.ue_id.as_ref(), id, REGISTER).await;
    if let Err(cause) = associated {
        if core.log_budget.admits(Topic::RegistrationRefused) {
            tracing::warn!(
                target: "security", a_kid = %peer.a_kid, ue_service_id = %id, %cause, "registration refused"
            );
        }
        return Err(cause);
    }
    let address = Address::ue(id);
    let _turn = core.registering(&address).await;
    // A newer connection may have registered while this one ended: it is not to be replaced by what nobody waits for.
    still_open(mailbox)?;
    let profile = registration.client_profile.clone();
    let record = RegistrationRecord {
        ue_service_id: id.clone(),
        ue_id: peer.ue_id.as_ref().map(|ue_id| ue_id.as_str().to_owned()),
        a_kid: Some(peer.a_kid.as_str().to_owned()),
        segment_size: profile.as_ref().and_then(|profile| profile.segment_size),
        gpsi: peer.gpsi.as_ref().map(|gpsi| gpsi.as_str().to_owned()),
        client_profile: profile.as_ref().and_then(|profile| serde_json::to_value(profile).ok()),
        registered_at: OffsetDateTime::now_utc(),
    };
    let fingerprint = fingerprint(&record);
    let known = core.registry.find(&address);
    if known.is_none() && core.registry.ues() >= core.limits.registrations_max {
        return Err(FailureCause::Overloaded);
    }
    let anew = known.as_ref().is_none_or(|party| lock(&party.state).record_fingerprint != fingerprint);
    if anew {
        core.store.put_registration(record).await.map_err(|error| {
            if core.log_budget.admits(Topic::NotStored) {
                tracing::error!(ue_service_id = %id, %error, "registration not stored");
            }
            if error.is_refusal() { FailureCause::Overloaded } else { FailureCause::StorageFailed }
        })?;
    }
    // Known to others only once it is on disk: what is stored for it from now on has a recipient after a restart, too.
    let party =
        core.registry.find_or_insert(&address, core.limits.registrations_max).map_err(|_| FailureCause::Overloaded)?;
    lock(&party.state).record_fingerprint = fingerprint;
    if core.store.pending_count(&address) > 0 {
        inbox::found_on_disk(core, &party);
    }
    still_open(mailbox)?;
    let generation = party.attach(mailbox, profile).ok_or(FailureCause::Overloaded)?;
    core.woken(&address);
    core.fan_out.lines.kick(&address);
    if let Some(ue_id) = &peer.ue_id {
        core.sessions.superseded(ue_id, &peer.a_kid, anew);
    }
    tracing::info!(a_kid = %peer.a_kid, ue_service_id = %id, generation, "registered");
    Ok(Registered { party, generation })
}

/// The cause reaches nobody but the metrics.
fn still_open(mailbox: &Mailbox) -> Result<(), FailureCause> {
    if mailbox.is_closed() { Err(FailureCause::NotRegistered) } else { Ok(()) }
}

/// Tells whether a registration differs from the one on disk. Never 0, which stands for none.
pub(crate) fn fingerprint(record: &RegistrationRecord) -> u64 {
    let mut hasher = DefaultHasher::new();
    let profile = record.client_profile.as_ref().map(ToString::to_string);
    (&record.ue_id, &record.gpsi, &record.a_kid, record.segment_size, profile).hash(&mut hasher);
    hasher.finish() | 1
}

/// What the client of a registration on disk said about itself. One of an earlier version said no more than its segment
/// size.
pub(crate) fn profile_of(record: &RegistrationRecord) -> Option<ClientProfile> {
    let whole = record.client_profile.clone().and_then(|profile| serde_json::from_value(profile).ok());
    whole.or_else(|| {
        let segment_size = Some(record.segment_size?);
        Some(ClientProfile { segment_size, ..ClientProfile::default() })
    })
}

async fn remove_registration(
    core: &Arc<Core>,
    registered: &Registered,
    id: &UeServiceId,
    mailbox: &Arc<Mailbox>,
) -> Result<(), FailureCause> {
    let party = &registered.party;
    let _turn = core.registering(&party.address).await;
    // A newer connection registered meanwhile: its registration is not this one's to withdraw.
    if lock(&party.state).generation != registered.generation {
        return Err(FailureCause::NotRegistered);
    }
    if let Err(error) = core.store.remove_registration(id).await {
        if core.log_budget.admits(Topic::NotStored) {
            tracing::error!(ue_service_id = %id, %error, "registration not removed");
        }
        return Err(FailureCause::StorageFailed);
    }
    topics::forget(core, &party.address).await;
    tracing::info!(ue_service_id = %id, "deregistered");
    core.dissolve(party, Some(mailbox));
    inbox::clear(core, &party.address).await;
    Ok(())
}

async fn revalidate(
    core: &Arc<Core>,
    peer: &ProvenPeer,
    source: IpAddr,
    party: &Party,
) -> Result<Option<SystemTime>, Invalid> {
    let expires_at = check_key(core, peer, source).await?;
    let Some(id) = party.address.as_ue() else { return Err(Invalid::Association) };
    match core.decide_association(&peer.a_kid, peer.ue_id.as_ref(), &id, REVALIDATE).await {
        Ok(()) => Ok(expires_at),
        Err(FailureCause::NotAssociated) => Err(Invalid::Association),
        Err(_) => Err(Invalid::Unknown),
    }
}

/// Whether the A-KID still stands (TS 33.535 clause 5.2), and until when K_AF does.
async fn check_key(core: &Arc<Core>, peer: &ProvenPeer, source: IpAddr) -> Result<Option<SystemTime>, Invalid> {
    let Some(keys) = &core.keys else { return Ok(None) };
    let request = KeyRequest { a_kid: peer.a_kid.clone(), protocol: peer.protocol, source };
    match keys.revalidate(request).await {
        Ok(key) if key.ue_id == peer.ue_id => Ok(key.expires_at),
        Ok(_) | Err(LookupRefusal::Unknown | LookupRefusal::Expired) => Err(Invalid::Key),
        Err(_) => Err(Invalid::Unknown),
    }
}
