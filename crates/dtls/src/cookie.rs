//! Stateless cookies (RFC 6347 4.2.1): a code over the source address and the ClientHello's parameters, under a secret
//! that changes with each [`COOKIE_PERIOD`].

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use aws_lc_rs::hmac;

use crate::codec::put_vector16;
use crate::crypto;
use crate::error::Error;
use crate::limits::COOKIE_PERIOD;

/// One octet that tells the period, then the start of the code.
pub(crate) const COOKIE_OCTETS: usize = 17;

/// Makes and checks cookies, keeping nothing about anybody.
pub(crate) struct Cookies {
    secret: hmac::Key,
    start: Instant,
}

impl Cookies {
    pub(crate) fn new(now: Instant) -> Result<Self, Error> {
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        crypto::random(secret.as_mut())?;
        Ok(Self { secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()), start: now })
    }

    /// The cookie for a ClientHello with these bound parts, from `source`, now.
    pub(crate) fn make(&self, now: Instant, source: SocketAddr, bound: (&[u8], &[u8])) -> [u8; COOKIE_OCTETS] {
        self.of_period(self.period(now), source, bound)
    }

    /// Whether `cookie` was made for this in this period or the one before.
    pub(crate) fn verify(&self, now: Instant, source: SocketAddr, bound: (&[u8], &[u8]), cookie: &[u8]) -> bool {
        if cookie.len() != COOKIE_OCTETS {
            return false;
        }
        let period = self.period(now);
        [Some(period), period.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|period| crypto::equal(&self.of_period(period, source, bound), cookie))
    }

    fn period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / COOKIE_PERIOD.as_secs()
    }

    fn of_period(&self, period: u64, source: SocketAddr, bound: (&[u8], &[u8])) -> [u8; COOKIE_OCTETS] {
        // Each period has a key of its own, made from the secret.
        let key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.secret, &period.to_be_bytes()).as_ref());
        let mut input = Vec::with_capacity(256);
        match source.ip() {
            IpAddr::V4(address) => put_vector16(&mut input, &address.octets()),
            IpAddr::V6(address) => put_vector16(&mut input, &address.octets()),
        }
        input.extend_from_slice(&source.port().to_be_bytes());
        put_vector16(&mut input, bound.0);
        put_vector16(&mut input, bound.1);
        let code = hmac::sign(&key, &input);
        let [.., low] = period.to_be_bytes();
        let mut cookie = [low; COOKIE_OCTETS];
        for (to, from) in cookie.iter_mut().skip(1).zip(code.as_ref()) {
            *to = *from;
        }
        cookie
    }
}
