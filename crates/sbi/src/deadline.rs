//! How long the asking side will wait: `3gpp-Sbi-Sender-Timestamp` and `3gpp-Sbi-Max-Rsp-Time` (TS 29.500 clauses
//! 5.2.3.2.3 and 6.11.2).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

/// When the request was sent: `Sun, 04 Aug 2019 08:49:37.845 GMT`.
pub(crate) const SENDER_TIMESTAMP: HeaderName = HeaderName::from_static("3gpp-sbi-sender-timestamp");
/// Milliseconds from then on that its sender waits for the answer.
pub(crate) const MAX_RSP_TIME: HeaderName = HeaderName::from_static("3gpp-sbi-max-rsp-time");

/// A request does not travel this long: an older timestamp is a clock that is wrong, and is not gone by.
const TRAVEL_MAX: Duration = Duration::from_secs(30);
/// Digits of a Max-Rsp-Time; a longer one is none.
const MAX_RSP_TIME_DIGITS: usize = 9;

const TIMESTAMP: &[FormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second].[subsecond digits:3] GMT"
);

/// How long the sender of a request with `headers` still waits at `now`; zero when it has given up, `None` when it does
/// not say. Without a timestamp, or with one from the future or further back than half a minute, the time counts from now.
pub(crate) fn remaining(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(MAX_RSP_TIME)?.to_str().ok()?.trim();
    if text.len() > MAX_RSP_TIME_DIGITS || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let patience = Duration::from_millis(text.parse().ok()?);
    let travelled = headers
        .get(SENDER_TIMESTAMP)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| PrimitiveDateTime::parse(text.trim(), TIMESTAMP).ok())
        .and_then(|sent| Duration::try_from(now - sent.assume_utc()).ok())
        .filter(|travelled| *travelled <= TRAVEL_MAX)
        .unwrap_or_default();
    Some(patience.saturating_sub(travelled))
}

/// Says in `headers` that the sender waits for `patience` from `now` on.
pub(crate) fn tell(headers: &mut HeaderMap, now: OffsetDateTime, patience: Duration) {
    headers.insert(MAX_RSP_TIME, HeaderValue::from(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)));
    let timestamp = now.format(TIMESTAMP).ok().and_then(|text| HeaderValue::try_from(text).ok());
    timestamp.map(|timestamp| headers.insert(SENDER_TIMESTAMP, timestamp));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2019-08-04 08:49:38.000 UTC);

    fn headers(max: &str, sent: &str) -> HeaderMap {
        let value = |text: &str| HeaderValue::try_from(text).unwrap();
        HeaderMap::from_iter([(MAX_RSP_TIME, value(max)), (SENDER_TIMESTAMP, value(sent))])
    }

    #[test]
    fn what_the_way_took_is_gone() {
        let left = |max, sent| remaining(&headers(max, sent), NOW).map(|left| left.as_millis());
        assert_eq!(left("1000", "Sun, 04 Aug 2019 08:49:37.845 GMT"), Some(845));
        assert_eq!(left("100", "Sun, 04 Aug 2019 08:49:37.845 GMT"), Some(0), "the sender has given up");
        assert_eq!(left("100", "Sun, 04 Aug 2019 09:49:37.845 GMT"), Some(100), "a clock that is ahead");
        assert_eq!(left("100", "Sun, 04 Aug 2019 07:49:37.845 GMT"), Some(100), "a clock that is behind");
        assert_eq!(left("100", "yesterday"), Some(100));
        assert_eq!(left("soon", "Sun, 04 Aug 2019 08:49:37.845 GMT"), None);
        assert_eq!(left("-1", ""), None);
        assert_eq!(left("99999999999999999999", ""), None);
        assert_eq!(remaining(&HeaderMap::new(), NOW), None);
    }

    #[test]
    fn what_is_told_is_read() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, NOW, Duration::from_secs(5));
        assert_eq!(headers.get(SENDER_TIMESTAMP).unwrap(), "Sun, 04 Aug 2019 08:49:38.000 GMT");
        let later = NOW + Duration::from_millis(1500);
        assert_eq!(remaining(&headers, later), Some(Duration::from_millis(3500)));
    }

    proptest! {
        #[test]
        fn no_header_makes_a_longer_time_than_it_says(max in "[ -~]{0,24}", sent in "[ -~]{0,40}") {
            if let Some(left) = remaining(&headers(&max, &sent), NOW) {
                prop_assert!(left <= Duration::from_millis(max.trim().parse().unwrap()));
            }
        }
    }
}
