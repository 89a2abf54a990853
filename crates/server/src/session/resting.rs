//! A session that is idle, as a small value: whose it is, and when something is due for it.
//!
//! ```text
//! session ── nothing came for a time, nothing is under way, its carrier rests ──> Resting, kept by `hibernation`
//!    ^                                                                              │
//!    └── a letter, a knock, a record of the peer, or K_AF expired, re-validation due, silent for too long
//! ```
//!
//! Only a registered session over datagrams rests. It has no request without its answer in either direction, no delivery
//! that is not acknowledged, nothing that waits to be sent and no procedure under way; so nothing can come back to it that
//! it would not know. What it must remember of earlier messages (RFC 7252 4.5) stays with the carrier. It keeps its mailbox,
//! and so its place as carrier (or sleeper) of its party, and its generation.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::time::{Instant, sleep_until};
use transport::{Carrier, ProvenPeer, Received, SealingKey};

use super::{Registered, Session, expiry_instant, jittered};
use crate::core::Core;
use crate::limits::Limits;
use crate::mailbox::Mailbox;
use crate::sealed::{REVALIDATE_WITHIN, SealedSession};

/// See the module.
pub(crate) struct Resting {
    carrier: Box<dyn Carrier>,
    mailbox: Arc<Mailbox>,
    peer: Box<ProvenPeer>,
    source: IpAddr,
    path: Arc<str>,
    registered: Registered,
    asleep: bool,
    heard_at: Instant,
    revalidate_at: Instant,
    revalidate_by: Instant,
    pipeline_deadline: Option<Instant>,
}

/// What is there for a session that was about to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Nothing,
    /// A letter or a knock.
    Letter,
    /// Something of the peer.
    Record,
}

/// Pause after a session could not rest: what its carrier remembers is too much for now.
const REST_RETRY: Duration = Duration::from_secs(15);

impl Session {
    /// When it may rest, if it is one that does.
    pub(super) fn rest_at(&self) -> Option<Instant> {
        let idle = self.core.limits.datagram_freeze().filter(|_| self.may_rest && self.registered.is_some())?;
        Some((self.heard_at + idle).max(self.rest_retry_at))
    }

    /// When its task has to look at it.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        [self.next_deadline(), self.rest_at()].into_iter().flatten().min()
    }

    /// Whether it rests from now on; then nothing but [`Session::into_resting`] is to be done with it.
    pub(super) fn rests(&mut self, now: Instant) -> bool {
        // What is due comes first: it is what it was called for.
        if self.rest_at().is_none_or(|at| at > now) || self.next_deadline().is_some_and(|at| at <= now) {
            return false;
        }
        let idle = self.procedure.is_none()
            && self.ending.is_none()
            && self.unanswered.is_empty()
            && self.sent.is_empty()
            && self.trains.is_empty()
            && self.waiting.is_empty()
            && (self.asleep || !self.look)
            && self.carrier.is_sent()
            && self.carrier.rest(now.into_std());
        if !idle {
            self.rest_retry_at = now + REST_RETRY.min(self.core.limits.datagram_freeze().unwrap_or(REST_RETRY));
        }
        idle
    }

    /// None if it has no registration, without which it does not rest.
    pub(super) fn into_resting(self) -> Option<Resting> {
        Some(Resting {
            registered: self.registered?,
            carrier: self.carrier,
            mailbox: self.mailbox,
            peer: self.peer,
            source: self.source,
            path: self.path,
            asleep: self.asleep,
            heard_at: self.heard_at,
            revalidate_at: self.revalidate_at,
            revalidate_by: self.revalidate_by,
            pipeline_deadline: self.pipeline_deadline,
        })
    }

    /// A session goes on. Its pipeline gets a look in any case: the knock that woke it may have been taken.
    pub(crate) fn resume(core: Arc<Core>, resting: Resting, arrived: Arrived) -> Self {
        let now = Instant::now();
        let mut session = Self {
            expires: expiry_instant(resting.peer.expires_at, now),
            register_by: None,
            revalidate_at: resting.revalidate_at,
            revalidate_by: resting.revalidate_by,
            heard_at: resting.heard_at,
            timer: Box::pin(sleep_until(now)),
            timer_at: now,
            core,
            carrier: resting.carrier,
            mailbox: resting.mailbox,
            peer: resting.peer,
            source: resting.source,
            path: resting.path,
            registered: Some(resting.registered),
            procedure: None,
            doubted: false,
            unanswered: Vec::new(),
            sent: std::collections::VecDeque::new(),
            trains: Vec::new(),
            waiting: std::collections::VecDeque::new(),
            blocked_since: None,
            asleep: resting.asleep,
            look: true,
            pipeline_deadline: resting.pipeline_deadline,
            pinged_at: None,
            ending: None,
            may_rest: true,
            rest_retry_at: now,
        };
        if arrived == Arrived::Record {
            session.heard_at = now;
            session.wake_up();
            session.take_events();
        }
        session
    }
}

impl Resting {
    /// When something is due for it.
    pub(crate) fn due(&self, limits: &Limits) -> Instant {
        let expires = expiry_instant(self.peer.expires_at, Instant::now());
        let silent = Some(self.heard_at + limits.datagram_idle());
        // What is remembered of earlier messages is over then, and its memory is given back.
        let forgets = self.carrier.poll_timeout().map(Instant::from_std);
        let others = [expires, silent, self.pipeline_deadline, forgets];
        others.into_iter().flatten().fold(self.revalidate_at, Instant::min)
    }

    /// What has come for it; where nothing has, `context` is woken when something does.
    pub(crate) fn arrived(&mut self, context: &mut Context<'_>) -> Arrived {
        let letter = self.mailbox.poll_ready(context).is_ready();
        let received = self.carrier.poll_receive(context, Instant::now().into_std());
        match received {
            std::task::Poll::Ready(Received::Something | Received::Offence(_)) => Arrived::Record,
            // No sign of life; the session looks what it is.
            std::task::Poll::Ready(Received::Unverified) => Arrived::Letter,
            // It is found once more by the session.
            std::task::Poll::Ready(Received::End | Received::Broken(_)) => Arrived::Letter,
            std::task::Poll::Pending if letter => Arrived::Letter,
            std::task::Poll::Pending => Arrived::Nothing,
        }
    }

    /// One that an earlier start of the server has sealed.
    #[expect(clippy::too_many_arguments, reason = "what a session is made of")]
    pub(crate) fn restored(
        core: &Core,
        carrier: Box<dyn Carrier>,
        mailbox: Arc<Mailbox>,
        peer: ProvenPeer,
        source: IpAddr,
        path: Arc<str>,
        registered: Registered,
        heard_at: Instant,
    ) -> Self {
        let within = REVALIDATE_WITHIN.min(Duration::from_secs(core.limits.revalidation_seconds));
        let revalidate_at = Instant::now() + jittered(within.mul_f64(0.9));
        Self {
            carrier,
            mailbox,
            peer: Box::new(peer),
            source,
            path,
            registered,
            asleep: false,
            heard_at,
            revalidate_at,
            revalidate_by: revalidate_at + Duration::from_secs(core.limits.revalidation_grace_seconds),
            pipeline_deadline: None,
        }
    }

    /// Seals it, for another start of the server. None leaves it as it was.
    pub(crate) fn seal(&mut self, key: &SealingKey) -> Option<SealedSession> {
        let now = Instant::now();
        let ue_service_id = self.registered.party.address.as_ue()?;
        let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let form = self.carrier.seal(now.into_std(), key)?;
        Some(SealedSession {
            form: STANDARD_NO_PAD.encode(form),
            a_kid: self.peer.a_kid.clone(),
            ue_id: self.peer.ue_id.clone(),
            gpsi: self.peer.gpsi.clone(),
            expires_at: self.peer.expires_at.map(seconds),
            ue_service_id,
            source: self.source,
            heard_at: seconds(SystemTime::now()).saturating_sub((now - self.heard_at).as_secs()),
        })
    }

    /// Gives its place back: of one that is sealed.
    pub(crate) fn leave(&self, core: &Arc<Core>) {
        self.mailbox.close();
        self.registered.party.forget_sleeper(&self.mailbox);
        core.detach(&self.registered.party, self.registered.generation);
    }
}
