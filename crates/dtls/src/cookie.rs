//! Stateless cookies (RFC 6347 4.2.1, RFC 9147 5.1): a code over the source address and the ClientHello's parameters, under
//! a secret that changes with each [`COOKIE_PERIOD`]. That of DTLS 1.3 also carries what the server would have to remember
//! (RFC 8446 4.2.2).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use aws_lc_rs::hmac;

use crate::codec::{Reader, put_u16, put_vector16};
use crate::crypto;
use crate::crypto::hkdf::HASH_OCTETS;
use crate::error::Error;
use crate::limits::COOKIE_PERIOD;

/// One octet that tells the period, then the start of the code.
pub(crate) const COOKIE_OCTETS: usize = 1 + CODE_OCTETS;
const CODE_OCTETS: usize = 16;

/// What a HelloRetryRequest said, and what the ClientHello before it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// The code point of the suite.
    pub(crate) suite: u16,
    /// The code point of the group for which a key share was asked; 0: none was.
    pub(crate) group: u16,
    /// The hash of the first ClientHello.
    pub(crate) hello_hash: [u8; HASH_OCTETS],
}

impl Retry {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + HASH_OCTETS);
        put_u16(&mut out, self.suite);
        put_u16(&mut out, self.group);
        out.extend_from_slice(&self.hello_hash);
        out
    }
}

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
        let period = self.period(now);
        let mut cookie = [low(period); COOKIE_OCTETS];
        for (to, from) in cookie.iter_mut().skip(1).zip(self.code(period, source, b"", bound)) {
            *to = from;
        }
        cookie
    }

    /// The cookie of a HelloRetryRequest: the period, what is to be remembered, the code over both.
    pub(crate) fn make_retry(&self, now: Instant, source: SocketAddr, bound: (&[u8], &[u8]), retry: &Retry) -> Vec<u8> {
        let period = self.period(now);
        let retry = retry.encode();
        let code = self.code(period, source, &retry, bound);
        [&[low(period)][..], &retry, &code].concat()
    }

    /// What a cookie of [`Cookies::make_retry`] carries, if it was made for this in this period or the one before.
    pub(crate) fn verify_retry(
        &self,
        now: Instant,
        source: SocketAddr,
        bound: (&[u8], &[u8]),
        cookie: &[u8],
    ) -> Option<Retry> {
        let mut reader = Reader::new(cookie);
        reader.u8().ok()?;
        let retry = Retry { suite: reader.u16().ok()?, group: reader.u16().ok()?, hello_hash: reader.array().ok()? };
        let code: [u8; CODE_OCTETS] = reader.array().ok()?;
        reader.end().ok()?;
        let verifies = |period| {
            low(period) == cookie.first().copied().unwrap_or_default()
                && crypto::equal(&self.code(period, source, &retry.encode(), bound), &code)
        };
        self.periods(now).any(verifies).then_some(retry)
    }

    /// Whether `cookie` was made for this in this period or the one before.
    pub(crate) fn verify(&self, now: Instant, source: SocketAddr, bound: (&[u8], &[u8]), cookie: &[u8]) -> bool {
        let Some((first, code)) = cookie.split_first().filter(|_| cookie.len() == COOKIE_OCTETS) else { return false };
        self.periods(now)
            .any(|period| low(period) == *first && crypto::equal(&self.code(period, source, b"", bound), code))
    }

    fn periods(&self, now: Instant) -> impl Iterator<Item = u64> {
        let period = self.period(now);
        [Some(period), period.checked_sub(1)].into_iter().flatten()
    }

    fn period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / COOKIE_PERIOD.as_secs()
    }

    fn code(&self, period: u64, source: SocketAddr, carried: &[u8], bound: (&[u8], &[u8])) -> [u8; CODE_OCTETS] {
        // Each period has a key of its own, made from the secret.
        let key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.secret, &period.to_be_bytes()).as_ref());
        let mut input = Vec::with_capacity(256);
        match source.ip() {
            IpAddr::V4(address) => put_vector16(&mut input, &address.octets()),
            IpAddr::V6(address) => put_vector16(&mut input, &address.octets()),
        }
        input.extend_from_slice(&source.port().to_be_bytes());
        put_vector16(&mut input, carried);
        put_vector16(&mut input, bound.0);
        put_vector16(&mut input, bound.1);
        let code = hmac::sign(&key, &input);
        let mut start = [0; CODE_OCTETS];
        for (to, from) in start.iter_mut().zip(code.as_ref()) {
            *to = *from;
        }
        start
    }
}

fn low(period: u64) -> u8 {
    let [.., low] = period.to_be_bytes();
    low
}
