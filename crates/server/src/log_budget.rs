//! What peers can have logged as often as they like is logged so often and no more; the metrics count all of it.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// How long a budget lasts.
const WINDOW: Duration = Duration::from_secs(60);

/// What a line is about. Each has a budget of its own, so that one does not hide the others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Topic {
    Forged,
    ReportForged,
    Malformed,
    RegistrationRefused,
    DeliveryRefused,
    Api,
    Triggering,
    Notification,
    NotAllowed,
    Groups,
    NotStored,
    Association,
}

impl Topic {
    const ALL: [Self; 12] = [
        Self::Forged,
        Self::ReportForged,
        Self::Malformed,
        Self::RegistrationRefused,
        Self::DeliveryRefused,
        Self::Api,
        Self::Triggering,
        Self::Notification,
        Self::NotAllowed,
        Self::Groups,
        Self::NotStored,
        Self::Association,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Forged => "forged originator refused",
            Self::ReportForged => "report on a message that its sender did not get",
            Self::Malformed => "request refused",
            Self::RegistrationRefused => "registration refused",
            Self::DeliveryRefused => "delivery refused by the recipient",
            Self::Api => "request for somebody else refused",
            Self::Triggering => "UE not triggered by an identifier that is not proven",
            Self::Notification => "notification refused",
            Self::Groups => "group not known, or its validating AS not there",
            Self::NotStored => "message to many, registration or subscription not stored",
            Self::Association => "no answer on an association",
            Self::NotAllowed => "message refused: its originator may not send there",
        }
    }
}

#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    lines: u64,
    left_out: u64,
}

impl Window {
    /// Begins anew if the time is over. Returns how many lines were left out in what is over.
    fn turn(&mut self, now: Instant) -> u64 {
        if self.begun.is_some_and(|begun| now.saturating_duration_since(begun) < WINDOW) {
            return 0;
        }
        let left_out = self.left_out;
        *self = Self { begun: Some(now), ..Self::default() };
        left_out
    }

    fn admits(&mut self, lines_max: u64) -> bool {
        let admitted = self.lines < lines_max;
        if admitted {
            self.lines += 1;
        } else {
            self.left_out += 1;
        }
        admitted
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LogBudget {
    lines_max: u64,
    windows: [Mutex<Window>; Topic::ALL.len()],
}

impl LogBudget {
    /// So many lines of each topic in a minute.
    pub(crate) fn new(lines_max: u64) -> Self {
        Self { lines_max, windows: Default::default() }
    }

    /// Whether one more line on this may be logged.
    pub(crate) fn admits(&self, topic: Topic) -> bool {
        self.admits_at(topic, Instant::now())
    }

    fn admits_at(&self, topic: Topic, now: Instant) -> bool {
        let Some(window) = self.windows.get(topic as usize) else { return true };
        let mut window = lock(window);
        let left_out = window.turn(now);
        let admitted = window.admits(self.lines_max);
        drop(window);
        tell(topic, left_out);
        admitted
    }

    /// Says what was left out where nothing came after it.
    pub(crate) fn settle(&self) {
        let now = Instant::now();
        for (topic, window) in Topic::ALL.into_iter().zip(&self.windows) {
            let left_out = lock(window).turn(now);
            tell(topic, left_out);
        }
    }
}

fn tell(topic: Topic, left_out: u64) {
    if left_out > 0 {
        tracing::warn!(target: "security", topic = topic.as_str(), left_out, "log lines left out in a minute");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_first_lines_of_each_topic_are_logged_and_the_rest_counted() {
        let (budget, now) = (LogBudget::new(2), Instant::now());
        let admitted: Vec<bool> = (0..4).map(|_| budget.admits_at(Topic::Forged, now)).collect();
        assert_eq!(admitted, [true, true, false, false]);
        assert!(budget.admits_at(Topic::Malformed, now));
        assert_eq!(lock(&budget.windows[Topic::Forged as usize]).turn(now + WINDOW), 2);
        assert!(budget.admits_at(Topic::Forged, now + WINDOW));
    }

    #[test]
    fn each_topic_has_a_window() {
        for (index, topic) in Topic::ALL.into_iter().enumerate() {
            assert_eq!(topic as usize, index);
        }
    }
}
