//! When a client can be reached (TS 23.554 table 8.2.1-3), free of any clock.

use time::{Duration, OffsetDateTime};

/// Client Communication Availability (TS 23.554 table 8.2.1-3): once, or again and again, a window in which the client
/// can be reached. Its members are INFERRED, after the communication pattern parameters of TS 23.502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommunicationAvailability {
    /// Scheduled communication time, UTC: when the first window opens.
    pub start: OffsetDateTime,
    /// Communication duration: how long a window stays open, in seconds, at least 1.
    pub duration_seconds: u32,
    /// Periodic interval, from opening to opening, in seconds, at least the duration. None: there is one window only.
    pub interval_seconds: Option<u32>,
}

impl CommunicationAvailability {
    /// Whether a window is open at `now`. It is at its first instant and not at its last.
    #[must_use]
    pub fn is_open(&self, now: OffsetDateTime) -> bool {
        self.open_until(now).is_some()
    }

    /// When the window that is open at `now` closes, if one is. The next one may open at that very instant.
    #[must_use]
    pub fn open_until(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let opened = self.last_opening(now)?;
        let closes = opened.saturating_add(self.duration());
        (now < closes).then_some(closes)
    }

    /// The first instant, not before `now`, at which a window is open: `now` itself if one is. None if none opens any
    /// more, or not within the calendar.
    #[must_use]
    pub fn next_open(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        if now < self.start {
            return Some(self.start);
        }
        if self.is_open(now) {
            return Some(now);
        }
        self.last_opening(now)?.checked_add(self.interval()?)
    }

    /// The latest opening not after `now`.
    fn last_opening(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        if now < self.start {
            return None;
        }
        let Some(interval) = self.interval() else { return Some(self.start) };
        let since = now - self.start;
        let into = since.whole_nanoseconds().checked_rem(interval.whole_nanoseconds())?;
        // What is left of a division by at most 2^32 seconds is below 2^62 nanoseconds.
        Some(now - Duration::nanoseconds(i64::try_from(into).ok()?))
    }

    fn duration(&self) -> Duration {
        Duration::seconds(i64::from(self.duration_seconds))
    }

    fn interval(&self) -> Option<Duration> {
        self.interval_seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::seconds(i64::from(seconds)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-12-01 0:00 UTC);

    fn seconds(count: i64) -> OffsetDateTime {
        START + Duration::seconds(count)
    }

    #[test]
    fn a_single_window_opens_closes_and_never_opens_again() {
        let once = CommunicationAvailability { start: START, duration_seconds: 60, interval_seconds: None };
        assert!(!once.is_open(seconds(-1)) && once.is_open(START) && once.is_open(seconds(59)));
        assert!(!once.is_open(seconds(60)));
        assert_eq!(once.next_open(seconds(-5)), Some(START));
        assert_eq!(once.next_open(seconds(59)), Some(seconds(59)));
        assert_eq!(once.next_open(seconds(60)), None);
        assert_eq!(once.open_until(seconds(10)), Some(seconds(60)));
    }

    #[test]
    fn a_periodic_window_opens_every_interval() {
        let hourly = CommunicationAvailability { start: START, duration_seconds: 60, interval_seconds: Some(3_600) };
        for period in 0..3 {
            let opens = period * 3_600;
            assert!(hourly.is_open(seconds(opens)) && hourly.is_open(seconds(opens + 59)));
            assert!(!hourly.is_open(seconds(opens + 60)) && !hourly.is_open(seconds(opens + 3_599)));
            assert_eq!(hourly.next_open(seconds(opens + 60)), Some(seconds(opens + 3_600)));
            assert_eq!(hourly.open_until(seconds(opens + 1)), Some(seconds(opens + 60)));
        }
    }

    #[test]
    fn a_window_as_long_as_its_interval_is_always_open_once_begun() {
        let always = CommunicationAvailability { start: START, duration_seconds: 60, interval_seconds: Some(60) };
        assert!(!always.is_open(seconds(-1)));
        assert!([0, 59, 60, 61, 1_000_000].into_iter().all(|at| always.is_open(seconds(at))));
    }

    #[test]
    fn the_end_of_the_calendar_is_no_opening() {
        let last = datetime!(9999-12-31 23:59:59 UTC);
        let late = CommunicationAvailability { start: last, duration_seconds: 1, interval_seconds: Some(u32::MAX) };
        assert!(late.is_open(last));
        assert_eq!(late.next_open(last + Duration::milliseconds(999)), Some(last + Duration::milliseconds(999)));
        let over = CommunicationAvailability { start: last - Duration::DAY, duration_seconds: 1, ..late };
        assert_eq!(over.next_open(last), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_next_opening_is_open_and_nothing_before_it_is(
            duration_seconds in 0_u32..500, interval in prop::option::of(0_u32..1_000), at in -2_000_i64..5_000,
        ) {
            let window = CommunicationAvailability { start: START, duration_seconds, interval_seconds: interval };
            let now = seconds(at);
            match window.next_open(now) {
                Some(next) => {
                    prop_assert!(next >= now);
                    prop_assert!(duration_seconds == 0 || window.is_open(next));
                    let mut between = now;
                    while between < next {
                        prop_assert!(!window.is_open(between));
                        between += Duration::seconds(1);
                    }
                }
                None => prop_assert!((at..at + 3_000).all(|later| !window.is_open(seconds(later)))),
            }
            prop_assert_eq!(window.is_open(now), window.open_until(now).is_some_and(|closes| closes > now));
        }

        #[test]
        fn no_values_make_it_panic(start in any::<i64>(), now in any::<i64>(), duration_seconds: u32,
            interval_seconds: Option<u32>,
        ) {
            let date = |number: i64| OffsetDateTime::from_unix_timestamp(number % 250_000_000_000).unwrap();
            let window = CommunicationAvailability { start: date(start), duration_seconds, interval_seconds };
            let _ = (window.is_open(date(now)), window.next_open(date(now)), window.open_until(date(now)));
        }
    }
}
