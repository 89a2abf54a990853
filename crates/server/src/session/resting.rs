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

use tokio::time::{Instant, sleep_until};
use transport::{Carrier, ProvenPeer, Received, SealingKey};

use super::{Pace, Registered, Session, expiry_instant, jittered};
use crate::core::Core;
use crate::limits::Limits;
use crate::mailbox::Mailbox;
use crate::sealed::Owner;

/// See the module.
pub(crate) struct Resting {
    carrier: Box<dyn Carrier>,
    mailbox: Arc<Mailbox>,
    peer: Box<ProvenPeer>,
    source: IpAddr,
    path: Arc<str>,
    registered: Registered,
    asleep: bool,
    unchecked: bool,
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

/// Pause after a carrier could not rest, because it remembers too much for now or has an address to prove: at first, but no
/// longer than it had to be idle, then twice as long each time.
const REST_RETRY: Duration = Duration::from_secs(15);
/// The longest: nothing is remembered for longer (RFC 7252 clause 4.8.2).
const REST_RETRY_MAX: Duration = Duration::from_secs(247);

/// How long it is until a carrier is asked again whether it rests, after it was asked `refusals` times for nothing.
fn rest_pause(idle: Duration, refusals: u32) -> Duration {
    let first = REST_RETRY.min(idle);
    first.saturating_mul(2_u32.saturating_pow(refusals.saturating_sub(1))).min(REST_RETRY_MAX)
}

impl Session {
    /// When it may rest, if it is one that does and nothing is under way; the end of that calls it.
    pub(super) fn rest_at(&self) -> Option<Instant> {
        let may_rest = self.may_rest && self.registered.is_some() && self.carrier.can_rest();
        let idle = self.core.limits.datagram_freeze().filter(|_| may_rest && !self.is_under_way())?;
        Some((self.heard_at + idle).max(self.rest_retry_at))
    }

    fn is_under_way(&self) -> bool {
        self.procedure.is_some()
            || self.ending.is_some()
            || !self.unanswered.is_empty()
            || !self.sent.is_empty()
            || !self.trains.is_empty()
            || !self.waiting.is_empty()
            || (self.look && !self.asleep)
            || !self.carrier.is_sent()
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
        let rests = self.carrier.rest(now.into_std());
        if !rests {
            self.rest_refusals = self.rest_refusals.saturating_add(1);
            let idle = self.core.limits.datagram_freeze().unwrap_or(REST_RETRY);
            self.rest_retry_at = now + rest_pause(idle, self.rest_refusals);
        }
        rests
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
            unchecked: self.unchecked,
            heard_at: self.heard_at,
            revalidate_at: self.revalidate_at,
            revalidate_by: self.revalidate_by,
            pipeline_deadline: self.pipeline_deadline,
        })
    }

    /// A session goes on. Its pipeline gets a look in any case: the knock that woke it may have been taken. Whatever else is to
    /// be done is done when it runs, where a panic leaves its UE away. One that is not checked is now.
    pub(crate) fn resume(core: Arc<Core>, resting: Resting, arrived: Arrived) -> Self {
        let now = Instant::now();
        let grace = Duration::from_secs(core.limits.revalidation_grace_seconds);
        Self {
            expires: expiry_instant(resting.peer.expires_at, now),
            register_by: None,
            revalidate_at: if resting.unchecked { now } else { resting.revalidate_at },
            revalidate_by: if resting.unchecked {
                resting.revalidate_by.min(now + grace)
            } else {
                resting.revalidate_by
            },
            heard_at: if arrived == Arrived::Record { now } else { resting.heard_at },
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
            pace: Pace::new(now),
            doubted: false,
            unanswered: Vec::new(),
            sent: std::collections::VecDeque::new(),
            trains: Vec::new(),
            waiting: std::collections::VecDeque::new(),
            blocked_since: None,
            asleep: resting.asleep,
            unchecked: resting.unchecked,
            record_came: arrived == Arrived::Record,
            look: true,
            pipeline_deadline: resting.pipeline_deadline,
            pinged_at: None,
            ending: None,
            may_rest: true,
            rest_retry_at: now,
            rest_refusals: 0,
        }
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
        // Or as soon as anything is to be done for it.
        let revalidate_at = Instant::now() + jittered(Duration::from_secs(core.limits.revalidation_seconds));
        Self {
            carrier,
            mailbox,
            peer: Box::new(peer),
            source,
            path,
            registered,
            asleep: false,
            unchecked: true,
            heard_at,
            revalidate_at,
            revalidate_by: revalidate_at + Duration::from_secs(core.limits.revalidation_grace_seconds),
            pipeline_deadline: None,
        }
    }

    /// Nothing waits for its UE: its pipeline need not be looked at.
    pub(crate) fn needs_no_look(&self) {
        self.mailbox.take_knock();
        // Something may have come before the knock was taken.
        if self.registered.party.is_awaited() {
            self.mailbox.knock();
        }
    }

    /// Seals it, for another start of the server: from then on its UE hears nothing and is not heard. None leaves it as it was:
    /// something is to be done for it first, or it is in its UE's place no more.
    pub(crate) fn seal(&mut self, key: &SealingKey) -> Option<Vec<u8>> {
        let now = Instant::now();
        let party = &self.registered.party;
        if !self.mailbox.is_quiet() || !party.is_held_by(&self.mailbox, self.registered.generation) {
            return None;
        }
        let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let owner = Owner {
            a_kid: self.peer.a_kid.clone(),
            ue_id: self.peer.ue_id.clone(),
            gpsi: self.peer.gpsi.clone(),
            expires_at: self.peer.expires_at.map(seconds),
            ue_service_id: party.address.as_ue()?,
            source: self.source,
            heard_at: seconds(SystemTime::now()).saturating_sub((now - self.heard_at).as_secs()),
        };
        self.carrier.seal(now.into_std(), key, &serde_json::to_vec(&owner).ok()?)
    }

    /// Goes on here. Nobody will ever open its sealed form, or nonces repeat.
    pub(crate) fn unseal(&mut self) {
        self.carrier.unseal();
    }

    /// Gives its place back: of one that is sealed, or came to nothing.
    pub(crate) fn leave(&self, core: &Arc<Core>) {
        self.mailbox.close();
        self.registered.party.forget_sleeper(&self.mailbox);
        core.detach(&self.registered.party, self.registered.generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_that_does_not_rest_is_asked_more_and_more_rarely() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let pauses: Vec<u64> = (1..=7).map(|refusals| rest_pause(minute, refusals).as_secs()).collect();
        assert_eq!(pauses, [15, 30, 60, 120, 240, 247, 247]);
        assert_eq!(rest_pause(second, 1), second);
        assert_eq!(rest_pause(second, u32::MAX), REST_RETRY_MAX);
    }
}
