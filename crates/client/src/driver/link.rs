//! The way to the server: none yet, being made, or open.

use std::time::Duration;

use coap::ExchangeId;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep_until};

use crate::{
    establish::{Attempt, Establisher, Keys},
    session::{Session, SessionEvent},
};

/// The way to the server.
pub(super) enum Link {
    /// The next attempt is later.
    Waiting { until: Instant },
    /// An attempt is under way.
    Attempting(BoxFuture<'static, Attempt>),
    /// Connected.
    Up { session: Box<Session>, phase: Phase },
}

/// How far a connection has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// REG was sent.
    Registering { exchange: ExchangeId, deadline: Instant },
    /// It was taken.
    Registered,
    /// The server wants to end the connection, and not to see the client for a while.
    Released { hold_off: Duration, deadline: Instant },
}

/// What happens on the way.
pub(super) enum LinkEvent {
    /// The pause is over.
    Pause,
    /// The attempt is over.
    Attempted(Box<Attempt>),
    /// Something happened on the connection.
    Session(SessionEvent),
}

impl Link {
    pub(super) fn attempt(establisher: &Establisher, keys: Keys) -> Self {
        Self::Attempting(establisher.clone().attempt(keys).boxed())
    }

    /// The next event. May be dropped and called again.
    pub(super) async fn event(&mut self) -> LinkEvent {
        match self {
            Self::Waiting { until } => {
                sleep_until(*until).await;
                LinkEvent::Pause
            }
            Self::Attempting(attempt) => LinkEvent::Attempted(Box::new(attempt.await)),
            Self::Up { session, .. } => LinkEvent::Session(session.event().await),
        }
    }

    /// How long the server does not want to see the client.
    pub(super) fn hold_off(&self) -> Duration {
        match self {
            Self::Up { phase: Phase::Released { hold_off, .. }, .. } => *hold_off,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn is_registered(&self) -> bool {
        matches!(self, Self::Up { phase: Phase::Registered, .. })
    }

    /// How long the connection has lived, if it came to a registration.
    pub(super) fn lived(&self) -> Option<Duration> {
        match self {
            Self::Up { session, phase: Phase::Registered | Phase::Released { .. } } => Some(session.opened.elapsed()),
            _ => None,
        }
    }

    pub(super) fn into_session(self) -> Option<Session> {
        match self {
            Self::Up { session, .. } => Some(*session),
            _ => None,
        }
    }

    /// Takes the connection out, if there is one.
    pub(super) fn take_session(&mut self) -> Option<Session> {
        std::mem::replace(self, Self::Waiting { until: Instant::now() }).into_session()
    }
}
