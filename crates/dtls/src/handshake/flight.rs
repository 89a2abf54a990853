//! What we sent last, to be sent again until the peer's answer shows that it arrived (RFC 6347 4.2.4).

use std::time::{Duration, Instant};

use crate::handshake::Message;
use crate::limits::{RETRANSMIT_MAX, RETRANSMIT_ON_DUPLICATE_DIVISOR};

/// One part of a flight.
#[derive(Clone, Debug)]
pub(crate) enum FlightItem {
    Handshake { epoch: u16, message: Message },
    ChangeCipherSpec,
}

/// A flight with its timer.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) items: Vec<FlightItem>,
    first: Duration,
    interval: Duration,
    /// When it is sent again, if a timer makes it so: a last flight is sent again only on demand.
    retransmit_at: Option<Instant>,
    not_before: Instant,
    /// How often the timer has run out.
    pub(crate) timeouts: u32,
}

impl Flight {
    /// A flight that is being sent now. `timed`: an answer is expected.
    pub(crate) fn new(items: Vec<FlightItem>, first: Duration, timed: bool, now: Instant) -> Self {
        Self {
            items,
            first,
            interval: first,
            retransmit_at: timed.then(|| now + first),
            not_before: now + first / RETRANSMIT_ON_DUPLICATE_DIVISOR,
            timeouts: 0,
        }
    }

    pub(crate) fn retransmit_at(&self) -> Option<Instant> {
        self.retransmit_at
    }

    /// Whether the timer says to send again; starts it anew, at twice the interval.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if self.retransmit_at.is_none_or(|at| at > now) {
            return false;
        }
        self.timeouts = self.timeouts.saturating_add(1);
        self.interval = (self.interval * 2).min(RETRANSMIT_MAX);
        self.retransmit_at = Some(now + self.interval);
        self.not_before = now + self.first / RETRANSMIT_ON_DUPLICATE_DIVISOR;
        true
    }

    /// Whether the peer's repeated flight makes us send again: not more often than the limit says.
    pub(crate) fn is_due_on_duplicate(&mut self, now: Instant) -> bool {
        if self.not_before > now {
            return false;
        }
        if self.retransmit_at.is_some() {
            self.retransmit_at = Some(now + self.interval);
        }
        self.not_before = now + self.first / RETRANSMIT_ON_DUPLICATE_DIVISOR;
        true
    }
}
