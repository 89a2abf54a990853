//! Echo values that prove a source address without memory (RFC 9175 2.4): a function of a secret, the address and the time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coap::oscore::ECHO_OCTETS;
use hkdf::Hkdf;
use openssl::memcmp;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Gives and checks values. Its secret lives as long as it does.
pub(super) struct EchoCookies {
    secret: Zeroizing<[u8; 32]>,
    begun: Instant,
    period: Duration,
}

impl EchoCookies {
    /// `period` is how long a value is good at least.
    pub(super) fn new(secret: Zeroizing<[u8; 32]>, period: Duration) -> Self {
        Self { secret, begun: Instant::now(), period: period.max(Duration::from_secs(1)) }
    }

    /// What the holder of that address is to repeat.
    pub(super) fn value(&self, source: SocketAddr, now: Instant) -> [u8; ECHO_OCTETS] {
        self.of_period(source, self.period_at(now))
    }

    /// Whether `value` was given to that address of late.
    pub(super) fn is_good(&self, value: &[u8], source: SocketAddr, now: Instant) -> bool {
        let period = self.period_at(now);
        [Some(period), period.checked_sub(1)].into_iter().flatten().any(|period| {
            let expected = self.of_period(source, period);
            value.len() == expected.len() && memcmp::eq(value, &expected)
        })
    }

    fn period_at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs() / self.period.as_secs()
    }

    fn of_period(&self, source: SocketAddr, period: u64) -> [u8; ECHO_OCTETS] {
        let mut value = [0; ECHO_OCTETS];
        let port = source.port().to_be_bytes();
        let period = period.to_be_bytes();
        let address = match source.ip().to_canonical() {
            std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(address) => address.octets(),
        };
        // RFC 5869: HKDF-Expand is a pseudorandom function of its info.
        let expanded = Hkdf::<Sha256>::from_prk(self.secret.as_slice()).and_then(|prk| {
            prk.expand_multi_info(&[b"echo", &address, &port, &period], &mut value).map_err(|_| hkdf::InvalidPrkLength)
        });
        debug_assert!(expanded.is_ok(), "32 octets of secret, 8 of output");
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_good_for_its_address_and_its_time() {
        let period = Duration::from_secs(60);
        let cookies = EchoCookies::new(Zeroizing::new([7; 32]), period);
        let (one, other) = (SocketAddr::from(([192, 0, 2, 1], 5683)), SocketAddr::from(([192, 0, 2, 1], 5684)));
        let start = cookies.begun;
        let value = cookies.value(one, start);
        assert!(cookies.is_good(&value, one, start));
        assert!(cookies.is_good(&value, one, start + period), "for one period at least");
        assert!(!cookies.is_good(&value, one, start + 2 * period));
        assert!(!cookies.is_good(&value, other, start));
        assert!(!cookies.is_good(&value[..7], one, start));
        assert!(!cookies.is_good(&[], one, start));
        let elsewhere = EchoCookies::new(Zeroizing::new([8; 32]), period);
        assert!(!elsewhere.is_good(&value, one, elsewhere.begun));
    }
}
