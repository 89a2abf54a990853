//! Peers that asked to be left alone for a while (`Retry-After`, RFC 9110 clause 10.2.3, TS 29.500 clause 6.4).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::problem::{ProblemDetails, cause};

/// Which peers are left alone, and until when.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    until: Mutex<HashMap<String, Instant>>,
}

impl Pauses {
    /// How many seconds `authority` still wants to be left alone, rounded up; `None`: it may be asked.
    pub(crate) fn of(&self, authority: &str, now: Instant) -> Option<u32> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner).get(authority)?;
        let left = until.saturating_duration_since(now);
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        (seconds > 0).then(|| u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// Leaves `authority` alone for what `problem` asks for, `seconds_max` at most, if it speaks for the whole peer.
    pub(crate) fn heed(&self, authority: &str, problem: &ProblemDetails, seconds_max: u32, now: Instant) {
        let Some(seconds) = asked(problem).map(|seconds| seconds.min(seconds_max)).filter(|seconds| *seconds > 0)
        else {
            return;
        };
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= PEERS_MAX {
            until.retain(|_, until| *until > now);
        }
        if until.len() < PEERS_MAX || until.contains_key(authority) {
            until.insert(authority.to_owned(), now + Duration::from_secs(seconds.into()));
        }
    }
}

/// The seconds for which a peer as a whole asks to be left alone. A refusal with a cause of its own is about one request.
fn asked(problem: &ProblemDetails) -> Option<u32> {
    let whole_peer = matches!(problem.status_code(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
        && problem.cause.as_deref().is_none_or(|cause| matches!(cause, cause::NF_CONGESTION | NF_CONGESTION_RISK));
    problem.retry_after_seconds.filter(|_| whole_peer)
}

/// TS 29.500 table 5.2.7.2-1.
const NF_CONGESTION_RISK: &str = "NF_CONGESTION_RISK";
/// Peers with a pause; one more is not left alone.
const PEERS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_left_alone_for_what_it_asked_and_no_longer_than_allowed() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        pauses.heed("a:1", &ProblemDetails::overloaded(7), 5, now);
        assert_eq!(pauses.of("a:1", now), Some(5));
        assert_eq!(pauses.of("a:1", now + Duration::from_millis(4_001)), Some(1));
        assert_eq!(pauses.of("a:1", now + Duration::from_secs(5)), None);
        assert_eq!(pauses.of("b:1", now), None);
        pauses.heed("c:1", &ProblemDetails::overloaded(7), 0, now);
        assert_eq!(pauses.of("c:1", now), None, "switched off");
    }

    #[test]
    fn a_refusal_of_one_request_is_no_pause() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        let mut own_cause = ProblemDetails::overloaded(7).with_cause("STORAGE_FULL");
        pauses.heed("a:1", &own_cause, 30, now);
        own_cause.cause = Some(NF_CONGESTION_RISK.into());
        own_cause.status = Some(404);
        pauses.heed("a:1", &own_cause, 30, now);
        assert_eq!(pauses.of("a:1", now), None);
        own_cause.status = Some(429);
        pauses.heed("a:1", &own_cause, 30, now);
        assert_eq!(pauses.of("a:1", now), Some(7));
    }

    #[test]
    fn the_peers_remembered_are_bounded_and_the_expired_make_room() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        for peer in 0..PEERS_MAX + 10 {
            pauses.heed(&format!("{peer}:1"), &ProblemDetails::overloaded(1), 30, now);
        }
        assert_eq!(pauses.of(&format!("{PEERS_MAX}:1"), now), None);
        let later = now + Duration::from_secs(2);
        pauses.heed("late:1", &ProblemDetails::overloaded(1), 30, later);
        assert_eq!(pauses.of("late:1", later), Some(1));
    }
}
