//! Why and how a connection ends, and the deadlines that may end it.

use std::future::poll_fn;
use std::time::Duration;

use akma::AKid;
use coap::Release;
use tokio::time::{Instant, timeout};
use transport::LogThrottle;

use super::procedure::Outcome;
use super::{Session, expiry_instant};
use crate::core::Core;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer closed it.
    ByPeer,
    /// The socket failed.
    Broken,
    /// The peer broke RFC 8323.
    Malformed,
    /// The peer left what was written for it unread.
    NotReading,
    /// The peer left a delivery unacknowledged.
    NotAcknowledging,
    /// A delivery on a stream was answered by what cannot be shown to be the peer's word.
    NotVerified,
    /// The peer did not answer a ping.
    Silent,
    /// No registration in time.
    NeverRegistered,
    /// K_AF is past its lifetime.
    KeyExpired,
    /// The A-KID is not known any more: authenticated anew, or AKMA was withdrawn.
    KeyWithdrawn,
    /// AKMA was disabled for the UE or for this server (TS 33.535 clause 7.1).
    ServiceDisabled,
    /// The UE ID is no longer associated with the UE Service ID.
    AssociationRemoved,
    /// Neither could be asked for too long.
    NotRevalidated,
    /// The same UE Service ID registered on a newer connection.
    Replaced,
    /// The registration was removed.
    Deregistered,
    /// Its A-KID has as many connections as it may.
    TooMany,
    /// The server stops.
    Stopped,
}

impl Ended {
    /// For the peer's log, and a label of ours.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ByPeer => "closed by the peer",
            Self::Broken => "connection broken",
            Self::Malformed => "malformed CoAP",
            Self::NotReading => "peer does not read",
            Self::NotAcknowledging => "peer does not acknowledge",
            Self::NotVerified => "answer is not the peer's",
            Self::Silent => "peer is silent",
            Self::NeverRegistered => "no registration in time",
            Self::KeyExpired => "K_AF expired",
            Self::KeyWithdrawn => "A-KID no longer valid",
            Self::ServiceDisabled => "AKMA disabled",
            Self::AssociationRemoved => "UE Service ID no longer associated",
            Self::NotRevalidated => "key and association cannot be checked",
            Self::Replaced => "registered on a newer connection",
            Self::Deregistered => "deregistered",
            Self::TooMany => "too many connections of this A-KID",
            Self::Stopped => "server stops",
        }
    }

    /// Counts that the connection has ended, and tells the log.
    pub(crate) fn tell(self, core: &Core, a_kid: &AKid) {
        let reason = self.as_str();
        core.metrics.connection_ended(reason);
        if self == Self::NotReading
            && let Some(unlogged) = NOT_READING.admit()
        {
            tracing::warn!(target: "security", %a_kid, reason, unlogged, "connection ended");
        } else {
            tracing::debug!(%a_kid, reason, "connection ended");
        }
    }

    /// Whether the peer gets to read what was written for it.
    fn flushes(self) -> bool {
        !matches!(self, Self::ByPeer | Self::Broken | Self::NotReading)
    }
}

/// Whoever is proven can connect, and read nothing, over and over.
static NOT_READING: LogThrottle = LogThrottle::new();

/// The connection is to end once everything is written, or at the deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    reason: Ended,
    by: Instant,
    /// Wait for what is under way, too.
    settle: bool,
}

impl Session {
    /// Ends at once, with an Abort for the peer to read.
    pub(super) fn abort(&mut self, reason: Ended) {
        self.coap().abort(reason.as_str());
        self.begin_ending(reason, self.core.limits.write_timeout());
    }

    /// Ends in good order: what is under way is answered first.
    pub(super) fn release(&mut self, reason: Ended, within: Duration) {
        if self.ending.is_none() && self.coap().release(&Release::default()).is_ok() {
            self.ending = Some(Ending { reason, by: Instant::now() + within, settle: true });
        }
    }

    pub(super) fn released_by_peer(&mut self) {
        if self.ending.is_none() {
            let by = Instant::now() + self.core.limits.delivery_timeout();
            self.ending = Some(Ending { reason: Ended::ByPeer, by, settle: true });
        }
    }

    pub(super) fn begin_ending(&mut self, reason: Ended, within: Duration) {
        if self.ending.is_none_or(|ending| ending.settle) {
            self.ending = Some(Ending { reason, by: Instant::now() + within, settle: false });
        }
    }

    /// The reason to end for, or the one decided on before.
    pub(super) fn ended(&self, reason: Ended) -> Ended {
        self.ending.map_or(reason, |ending| ending.reason)
    }

    /// Whether a decided end has come.
    pub(super) fn check_ending(&self) -> Option<Ended> {
        let ending = self.ending?;
        let written = self.carrier.is_sent();
        let settled =
            !ending.settle || (self.carrier.coap().is_settled() && self.unanswered.is_empty() && self.sent.is_empty());
        (written && settled).then_some(ending.reason)
    }

    /// The earliest of everything that may be due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let limits = &self.core.limits;
        let blocked = self.blocked_since.map(|since| since + limits.write_timeout());
        let machine = self.carrier.poll_timeout().map(Instant::from_std);
        if let Some(ending) = self.ending {
            // Nothing else is done any more, however long it has been due; the end itself comes with what is written or read.
            return [Some(ending.by), blocked, machine].into_iter().flatten().min();
        }
        let alive = match self.pinged_at {
            Some(pinged_at) => pinged_at + limits.pong_timeout(),
            None => self.heard_at + self.silence_max(),
        };
        [
            blocked,
            self.sent.front().map(|sent| sent.at + limits.delivery_timeout()),
            self.pipeline_deadline,
            self.register_by,
            self.registered.as_ref().map(|_| self.revalidate_at),
            self.expires,
            machine,
            Some(alive),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(super) fn when_due(&mut self, now: Instant) -> Result<(), Ended> {
        if self.carrier.poll_timeout().is_some_and(|at| at <= now.into_std()) {
            self.carrier.handle_timeout(now.into_std());
            self.take_events();
        }
        let limits = &self.core.limits;
        if let Some(ending) = self.ending {
            return if ending.by <= now { Err(ending.reason) } else { self.check_blocked(now) };
        }
        self.check_blocked(now)?;
        // Anew each time: the clock of the day may have been set.
        self.expires = expiry_instant(self.peer.expires_at, now);
        if self.expires.is_some_and(|at| at <= now) {
            tracing::info!(target: "security", a_kid = %self.peer.a_kid, "K_AF expired, connection ended");
            self.abort(Ended::KeyExpired);
        } else if self.sent.front().is_some_and(|sent| sent.at + limits.delivery_timeout() <= now) {
            if self.carrier.is_datagram() {
                self.fall_asleep();
            } else {
                self.abort(Ended::NotAcknowledging);
            }
        } else if self.register_by.is_some_and(|by| by <= now) {
            self.abort(Ended::NeverRegistered);
        } else if self.pinged_at.is_some_and(|at| at + limits.pong_timeout() <= now) {
            self.abort(Ended::Silent);
        } else {
            self.keep_up(now);
        }
        Ok(())
    }

    /// How long nothing may come from the peer before something is done about it.
    fn silence_max(&self) -> Duration {
        let limits = &self.core.limits;
        if self.carrier.is_datagram() { limits.datagram_idle() } else { limits.idle_ping() }
    }

    fn check_blocked(&self, now: Instant) -> Result<(), Ended> {
        match self.blocked_since {
            Some(since) if since + self.core.limits.write_timeout() <= now => Err(Ended::NotReading),
            _ => Ok(()),
        }
    }

    /// What is due and does not end the connection.
    fn keep_up(&mut self, now: Instant) {
        if self.pinged_at.is_none() && self.heard_at + self.silence_max() <= now {
            if self.carrier.is_datagram() {
                return self.abort(Ended::Silent);
            }
            self.pinged_at = Some(now);
            // At most one is under way, which is always allowed.
            let _ = self.coap().ping(now.into_std());
        }
        if self.pipeline_deadline.is_some_and(|at| at <= now)
            && let Some(registered) = &self.registered
        {
            self.pipeline_deadline = self.core.lapse(&registered.party, registered.generation);
            self.look = true;
        }
        if self.registered.is_some() && self.revalidate_at <= now {
            self.revalidate(now);
        }
    }

    /// Takes no letters any more, and carries to nobody.
    pub(super) fn leave_all(&mut self) {
        self.mailbox.close();
        if let Some(registered) = self.registered.take() {
            registered.party.forget_sleeper(&self.mailbox);
            self.core.detach(&registered.party, registered.generation);
        }
    }

    /// Gives everything back, and the peer the chance to read the last words.
    pub(super) async fn close(&mut self, ended: Ended) {
        self.leave_all();
        if let Some(procedure) = self.procedure.take() {
            let core = std::sync::Arc::clone(&self.core);
            // What it began on disk it ends, and a registration without a connection is one that is away.
            self.core.tasks.spawn(async move {
                if let Outcome::Registered(_, _, Ok(registered), _) = procedure.await {
                    core.detach(&registered.party, registered.generation);
                }
            });
        }
        if ended.flushes() {
            let _ = timeout(Duration::from_secs(1), poll_fn(|context| self.carrier.poll_close(context))).await;
        }
    }
}
