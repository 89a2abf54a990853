//! `3gpp-Sbi-Correlation-Info` (TS 29.500 clause 5.2.3.2.12): who a request is about, for whoever follows it through the
//! network.
//!
//! It may hold a SUPI. So it goes on only to peers that a client says are [inside the
//! domain](crate::SbiClient::inside_domain), and the log gets a pseudonym that is worth nothing outside this process.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const CORRELATION_INFO: HeaderName = HeaderName::from_static("3gpp-sbi-correlation-info");

/// Octets of a value that is passed on; a longer one is dropped.
const OCTETS_MAX: usize = 256;

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// The value that came with a request, if it may be passed on.
pub(crate) fn of_request(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(CORRELATION_INFO).iter();
    let value = values.next().filter(|value| value.len() <= OCTETS_MAX && value.to_str().is_ok())?;
    values.next().is_none().then(|| value.clone())
}

/// Runs `handler` so that what it asks of others carries `value`.
pub(crate) async fn carrying<F: Future>(value: Option<HeaderValue>, handler: F) -> F::Output {
    match value {
        Some(value) => CURRENT.scope(value, handler).await,
        None => handler.await,
    }
}

/// The value of the request that is being answered.
pub(crate) fn current() -> Option<HeaderValue> {
    CURRENT.try_with(Clone::clone).ok()
}

/// What the log calls it: the same for the same value as long as this process lives, and for nobody else.
pub(crate) fn pseudonym(value: &HeaderValue) -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    format!("{:016x}", KEY.hash_one(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_that_is_too_long_or_stands_twice_is_dropped() {
        let headers = |values: &[&str]| {
            HeaderMap::from_iter(values.iter().map(|value| (CORRELATION_INFO, HeaderValue::try_from(*value).unwrap())))
        };
        assert_eq!(of_request(&headers(&["imsi-001010000000001"])).unwrap(), "imsi-001010000000001");
        assert_eq!(of_request(&headers(&[&"x".repeat(257)])), None);
        assert_eq!(of_request(&headers(&["imsi-001010000000001", "imsi-001010000000002"])), None);
        assert_eq!(of_request(&headers(&[])), None);
    }

    #[test]
    fn the_log_s_name_for_it_tells_values_apart_and_hides_them() {
        let one = HeaderValue::from_static("imsi-001010000000001");
        let other = HeaderValue::from_static("imsi-001010000000002");
        assert_eq!(pseudonym(&one), pseudonym(&one.clone()));
        assert_ne!(pseudonym(&one), pseudonym(&other));
        assert!(!pseudonym(&one).contains("0010100000"));
    }
}
