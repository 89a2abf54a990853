//! Newer keys: the next connection is made, and registered, beside the one that serves.
//!
//! ```text
//! due ──► Attempting ──► open ──► Registering ── 2.01 ──► it serves, the earlier is left to the server to end
//!            │                         ├── refused, unanswered, lost: given up, due again after a pause
//!            └── no keys, no way: due again       └── the earlier is lost meanwhile: this one goes on in its place
//! ```
//!
//! A server that ends a connection and asks to be left alone for a while (Hold-Off, RFC 8323 clause 5.5) is not met on the next
//! one before: of the earlier, the next one is given up with it; of the next one, it is tried again after that time, and so is the
//! way to the server if the earlier is lost meanwhile. What the refusal of a registration asks for holds likewise.
//!
//! Until 2.01 nothing but the registration is asked on the next connection, and what comes on it is kept for then: the server
//! may deliver on it before its answer to the registration has come.

use std::{collections::VecDeque, time::Duration};

use coap::{ConnectionEvent, ExchangeId, Request, Response};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use transport::TlsVersion;

use super::{AWAY_MAX, Driver, Ending, Farewell, JSON, Link, Phase, answers::Refusal};
use crate::{
    establish::{Attempt, Keys, Secured},
    session::{Session, SessionEvent},
};

/// The next connection.
pub(super) enum Renewal {
    /// It is being made.
    Attempting(BoxFuture<'static, Attempt>),
    /// It is open, and its registration is not answered.
    Registering(Box<Successor>),
}

/// A connection that is to take the place of the one that serves.
pub(super) struct Successor {
    session: Session,
    keys: Keys,
    version: TlsVersion,
    cipher: &'static str,
    exchange: ExchangeId,
    deadline: Instant,
    /// What came on it besides; the machine below bounds how much the server may ask.
    early: VecDeque<ConnectionEvent>,
}

/// What happens to it.
pub(super) enum RenewalEvent {
    Attempted(Box<Attempt>),
    Session(SessionEvent),
}

impl Renewal {
    /// The next event. May be dropped and called again.
    pub(super) async fn event(renewal: &mut Option<Self>) -> RenewalEvent {
        match renewal {
            Some(Self::Attempting(attempt)) => RenewalEvent::Attempted(Box::new(attempt.await)),
            Some(Self::Registering(successor)) => RenewalEvent::Session(successor.session.event().await),
            None => std::future::pending().await,
        }
    }

    /// When its registration has gone unanswered for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Attempting(_) => None,
            Self::Registering(successor) => Some(successor.deadline),
        }
    }

    /// The connection, if it is open.
    pub(super) fn into_session(self) -> Option<Session> {
        match self {
            Self::Attempting(_) => None,
            Self::Registering(successor) => Some(successor.session),
        }
    }
}

impl Driver {
    pub(super) fn may_replace_keys(&self) -> bool {
        self.renewal.is_none() && matches!(self.ending, Ending::None)
    }

    /// Makes the next connection with newer keys; this one serves on meanwhile.
    pub(super) fn replace_keys(&mut self) {
        match self.establisher.may_renew_at(&self.keys) {
            Some(earliest) => self.keys.renew_at = Some(earliest),
            None => {
                tracing::info!(target: "security", "the keys are due for renewal");
                let attempt = self.establisher.clone().renewal(self.keys.clone()).boxed();
                self.renewal = Some(Renewal::Attempting(attempt));
            }
        }
    }

    pub(super) fn on_renewal(&mut self, event: RenewalEvent) {
        match event {
            RenewalEvent::Attempted(attempt) => self.on_renewed(*attempt),
            RenewalEvent::Session(SessionEvent::Written) => {}
            RenewalEvent::Session(SessionEvent::Closed(reason)) => self.give_up_renewal(&reason, Duration::ZERO, true),
            RenewalEvent::Session(SessionEvent::Coap(event)) => self.on_successor(event),
        }
    }

    fn on_renewed(&mut self, attempt: Attempt) {
        self.renewal = None;
        match attempt.result {
            // What is under way ends on the connection that it is under way on.
            Ok(_) if !matches!(self.ending, Ending::None) => {}
            Ok(secured) => self.register_successor(secured, attempt.keys),
            Err(error) => {
                tracing::warn!(%error, "cannot replace the keys ahead of time");
                self.keys = attempt.keys;
            }
        }
    }

    fn register_successor(&mut self, secured: Secured, keys: Keys) {
        let Secured { carrier, version, cipher } = secured;
        let mut session = Session::new(carrier, &self.config.limits);
        let body = self.config.registration();
        match session.request(&Request::post(&self.path).content_format(JSON).payload(body)) {
            Ok(exchange) => {
                let deadline = Instant::now() + self.config.limits.registration_timeout();
                let early = VecDeque::new();
                let successor = Successor { session, keys, version, cipher, exchange, deadline, early };
                self.renewal = Some(Renewal::Registering(Box::new(successor)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot register with newer keys");
                self.renew_again(keys, Duration::ZERO, true);
            }
        }
    }

    fn on_successor(&mut self, event: ConnectionEvent) {
        let Some(Renewal::Registering(successor)) = &mut self.renewal else { return };
        match event {
            ConnectionEvent::Response { exchange, response } if exchange == successor.exchange => {
                self.on_successor_response(response);
            }
            ConnectionEvent::Failed { exchange, failure } if exchange == successor.exchange => {
                self.give_up_renewal(&format!("{failure:?}"), Duration::ZERO, true);
            }
            ConnectionEvent::Released { release } => {
                let pause = Duration::from_secs(release.hold_off_seconds.unwrap_or(0).into()).min(AWAY_MAX);
                self.give_up_renewal("the server ended it", pause, true);
            }
            ConnectionEvent::Aborted { diagnostic, .. } => self.give_up_renewal(&diagnostic, Duration::ZERO, true),
            event => successor.early.push_back(event),
        }
    }

    fn on_successor_response(&mut self, response: Response) {
        if response.code.is_success() {
            return self.succeed(&response);
        }
        let refusal = Refusal::of(&response);
        let (pause, usable) = (refusal.retry_after.unwrap_or_default(), !refusal.is_about_keys());
        self.give_up_renewal(&refusal.into_error().to_string(), pause, usable);
    }

    /// The server has taken the next connection in place of this one.
    fn succeed(&mut self, response: &Response) {
        let Some(Renewal::Registering(successor)) = self.renewal.take() else { return };
        let Successor { session, keys, version, cipher, early, .. } = *successor;
        self.keys = keys;
        self.live_for(response);
        self.note_connection(version, cipher);
        self.leave(Link::Up { session: Box::new(session), phase: Phase::Registered }, Farewell::WhenReplaced);
        self.registered();
        self.catch_up(early);
    }

    /// The earlier connection is gone: the next one, if there is one, takes its place as far as it has come.
    pub(super) fn take_renewal_over(&mut self) {
        match self.renewal.take() {
            None => {}
            Some(Renewal::Attempting(attempt)) => self.link = Link::Attempting(attempt),
            Some(Renewal::Registering(successor)) => {
                let Successor { session, keys, version, cipher, exchange, deadline, early } = *successor;
                self.keys = keys;
                self.note_connection(version, cipher);
                let phase = Phase::Registering { exchange, deadline };
                self.link = Link::Up { session: Box::new(session), phase };
                self.catch_up(early);
            }
        }
    }

    /// The server does not want to be met: what is not open yet is not opened. Where the authentication for it was done
    /// already, the next attempt finds the keys at hand refused, and authenticates.
    pub(super) fn abandon_attempt(&mut self) {
        if let Some(Renewal::Attempting(_)) = &self.renewal {
            self.renewal = None;
        }
    }

    /// The earlier connection is gone, and the server does not want to be met: neither on the next one. Its keys are those of
    /// the attempt after the pause.
    pub(super) fn abandon_renewal(&mut self) {
        self.abandon_attempt();
        if let Some(Renewal::Registering(successor)) = self.renewal.take() {
            let deadline = Instant::now() + self.config.limits.close_timeout();
            drop(tokio::spawn(successor.session.finish(deadline)));
            self.keys = successor.keys;
        }
    }

    /// Takes what came on the next connection before it was this one, unless it is over again.
    fn catch_up(&mut self, early: VecDeque<ConnectionEvent>) {
        for event in early {
            if matches!(self.link, Link::Up { .. }) {
                self.on_coap(event);
            }
        }
    }

    /// The next connection comes to nothing, and the earlier serves on.
    pub(super) fn give_up_renewal(&mut self, reason: &str, pause_min: Duration, keys_usable: bool) {
        let Some(Renewal::Registering(successor)) = self.renewal.take() else { return };
        let deadline = Instant::now() + self.config.limits.close_timeout();
        drop(tokio::spawn(successor.session.finish(deadline)));
        tracing::warn!(reason, "not registered with newer keys; the earlier connection serves on");
        if !pause_min.is_zero() {
            self.away_until = Some(Instant::now() + pause_min);
        }
        self.renew_again(successor.keys, pause_min, keys_usable);
    }

    fn renew_again(&mut self, keys: Keys, pause_min: Duration, keys_usable: bool) {
        let pause = self.renewal_backoff.pause(rand::random()).max(pause_min);
        self.keys = keys.not_registered(Instant::now() + pause, keys_usable);
    }
}
