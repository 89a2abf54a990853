//! The header `Retry-After` of an answer (RFC 9110 clause 10.2.3).

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{AsHeaderName, DATE, RETRY_AFTER};

/// After how many seconds the peer wants to be asked again, rounded up; 0 if that has passed. It says so in seconds, or by a
/// date, which is taken by the peer's own clock where the answer tells it (`Date`), and else by `now`.
pub(crate) fn seconds(headers: &HeaderMap, now: SystemTime) -> Option<u32> {
    let text = text_of(headers, RETRY_AFTER)?;
    // More seconds than fit are for ever.
    if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(u32::MAX));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let now = text_of(headers, DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    let wait = at.duration_since(now).unwrap_or_default();
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn text_of(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// 6 November 1994, 08:49:37, the example of RFC 9110 clause 5.6.7.
    const THEN: u64 = 784_111_777;

    fn asked(now: u64, headers: &[(HeaderName, &str)]) -> Option<u32> {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::try_from(*value).unwrap())).collect();
        seconds(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(now))
    }

    #[test]
    fn seconds_are_taken_as_they_are() {
        for (text, wanted) in [("0", Some(0)), (" 120 ", Some(120)), ("99999999999999", Some(u32::MAX))] {
            assert_eq!(asked(THEN, &[(RETRY_AFTER, text)]), wanted, "{text}");
        }
        for text in ["", "-1", "+5", "1.5", "soon", "5 s"] {
            assert_eq!(asked(THEN, &[(RETRY_AFTER, text)]), None, "{text}");
        }
        assert_eq!(asked(THEN, &[]), None);
    }

    #[test]
    fn a_date_in_each_form_of_http_is_so_far_away() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(asked(THEN - 7, &[(RETRY_AFTER, text)]), Some(7), "{text}");
            assert_eq!(asked(THEN + 1, &[(RETRY_AFTER, text)]), Some(0), "{text}: it has passed");
        }
        assert_eq!(asked(THEN - 7, &[(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37")]), None, "not without its zone");
    }

    #[test]
    fn a_date_counts_from_what_the_peers_clock_shows() {
        let headers = [(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37 GMT"), (DATE, "Sun, 06 Nov 1994 08:49:30 GMT")];
        assert_eq!(asked(0, &headers), Some(7));
        let headers = [(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37 GMT"), (DATE, "today")];
        assert_eq!(asked(THEN - 7, &headers), Some(7), "no date that can be read");
    }

    proptest! {
        #[test]
        fn whatever_a_peer_writes_is_read_or_not(text in "[ -~]{0,40}", date in "[ -~]{0,40}") {
            asked(THEN, &[(RETRY_AFTER, text.as_str()), (DATE, date.as_str())]);
        }

        #[test]
        fn every_date_to_come_is_so_far_away(wait in 0..u32::MAX) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(THEN + u64::from(wait));
            prop_assert_eq!(asked(THEN, &[(RETRY_AFTER, httpdate::fmt_http_date(at).as_str())]), Some(wait));
        }
    }
}
