//! Nonces that need no memory until one of them has proven somebody (RFC 7616 clause 5.4).
//!
//! A nonce is when it was made, and random octets, authenticated under a key that lives as long as the process. Whoever
//! asks for many costs nothing; one of an earlier process is not known, and its user is asked for a new one.
//!
//! How many keys were looked up for a nonce without anybody being proven is remembered of a bounded number of them. Whoever
//! has more is bounded by what one source may look up.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use transport::Expiring;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::config::DeviceLimits;
use crate::error::ServerError;
use crate::sync::lock;

const RANDOM_OCTETS: usize = 8;
const TAG_OCTETS: usize = 16;
const OCTETS: usize = 8 + RANDOM_OCTETS + TAG_OCTETS;

/// Makes nonces, and knows its own again.
pub(super) struct Nonces {
    key: Zeroizing<[u8; 32]>,
    /// What ages are counted from: no setting of the day's clock changes them.
    begun: Instant,
    lifetime: Duration,
    /// How many keys one may have looked up in vain.
    lookups_max: u32,
    /// How many were.
    lookups: Mutex<Expiring<Nonce, u32>>,
}

/// One that we made, and that is not too old. Older ones compare as less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Nonce {
    /// Milliseconds from [`Nonces::begun`].
    issued: u64,
    random: [u8; RANDOM_OCTETS],
}

/// One that is not good: the device is to use another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotGood {
    /// Not one of this process.
    Unknown,
    /// Past its lifetime.
    Expired,
}

impl Nonces {
    pub(super) fn new(limits: &DeviceLimits, now: Instant) -> Result<Self, ServerError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice()).map_err(|error| ServerError::Configuration {
            key: "https".to_owned(),
            reason: format!("cannot be served without random octets: {error}"),
        })?;
        Ok(Self {
            key,
            begun: now,
            lifetime: limits.nonce_lifetime(),
            lookups_max: limits.lookups_per_nonce_max,
            lookups: Mutex::new(Expiring::new(limits.lookup_nonces_max)),
        })
    }

    pub(super) fn issue(&self, now: Instant) -> String {
        let mut octets = self.milliseconds(now).to_be_bytes().to_vec();
        octets.extend(Uuid::new_v4().into_bytes().iter().rev().take(RANDOM_OCTETS));
        let tag = self.tag(&octets);
        octets.extend(tag);
        URL_SAFE_NO_PAD.encode(octets)
    }

    pub(super) fn check(&self, text: &str, now: Instant) -> Result<Nonce, NotGood> {
        let mut octets = [0; OCTETS];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut octets) != Ok(OCTETS) {
            return Err(NotGood::Unknown);
        }
        let (content, tag) = octets.split_at(OCTETS - TAG_OCTETS);
        if !bool::from(self.tag(content).as_slice().ct_eq(tag)) {
            return Err(NotGood::Unknown);
        }
        let (Some(issued), Some(random)) = (content.first_chunk(), content.last_chunk()) else {
            return Err(NotGood::Unknown);
        };
        let nonce = Nonce { issued: u64::from_be_bytes(*issued), random: *random };
        if self.is_over(nonce, now) { Err(NotGood::Expired) } else { Ok(nonce) }
    }

    /// Whether a key may be looked up for it; then that is counted.
    pub(super) fn looks_up(&self, nonce: Nonce, now: Instant) -> bool {
        let mut lookups = lock(&self.lookups);
        let before = lookups.live(&nonce, now).copied().unwrap_or_default();
        if before >= self.lookups_max {
            return false;
        }
        lookups.insert(nonce, before.saturating_add(1), now + self.lifetime, now);
        true
    }

    /// It has proven somebody: what was looked up for it was not in vain.
    pub(super) fn proved(&self, nonce: Nonce) {
        lock(&self.lookups).remove(&nonce);
    }

    /// Whether it is past its lifetime.
    pub(super) fn is_over(&self, nonce: Nonce, now: Instant) -> bool {
        let age = self.milliseconds(now).saturating_sub(nonce.issued);
        Duration::from_millis(age) >= self.lifetime
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }

    fn tag(&self, content: &[u8]) -> Vec<u8> {
        // HMAC takes keys of every length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.as_slice()) else { return Vec::new() };
        mac.update(content);
        mac.finalize().into_bytes().iter().copied().take(TAG_OCTETS).collect()
    }
}

impl Nonce {
    /// Whether it was made no later than the other.
    pub(super) fn is_as_old_as(self, other: Self) -> bool {
        self.issued <= other.issued
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(10);

    fn made(now: Instant) -> Nonces {
        let limits = DeviceLimits { nonce_lifetime_seconds: 10, lookups_per_nonce_max: 2, ..DeviceLimits::default() };
        Nonces::new(&limits, now).unwrap()
    }

    #[test]
    fn a_nonce_is_good_until_its_lifetime_is_over_and_no_two_are_alike() {
        let now = Instant::now();
        let nonces = made(now);
        let issued: BTreeSet<_> = (0..100).map(|_| nonces.issue(now)).collect();
        assert_eq!(issued.len(), 100);
        for text in issued {
            assert!(nonces.check(&text, now + LIFETIME - Duration::from_millis(1)).is_ok());
            assert_eq!(nonces.check(&text, now + LIFETIME), Err(NotGood::Expired));
        }
    }

    #[test]
    fn what_was_not_made_here_is_not_known() {
        let now = Instant::now();
        let nonces = made(now);
        let other = made(now);
        assert_eq!(nonces.check(&other.issue(now), now), Err(NotGood::Unknown));
        let own = nonces.issue(now);
        for at in 0..own.len() {
            let mut changed = own.clone().into_bytes();
            let octet = changed.get_mut(at).unwrap();
            *octet = if *octet == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(nonces.check(&changed, now), Err(NotGood::Unknown), "{at}");
        }
        for text in ["", "A", &own[1..], &format!("{own}A"), &format!("{own}="), "\u{e4}"] {
            assert_eq!(nonces.check(text, now), Err(NotGood::Unknown));
        }
    }

    #[test]
    fn a_nonce_causes_few_lookups_until_it_proves_somebody() {
        let now = Instant::now();
        let nonces = made(now);
        let [nonce, other] = [(); 2].map(|()| nonces.check(&nonces.issue(now), now).unwrap());
        assert!(nonces.looks_up(nonce, now) && nonces.looks_up(nonce, now));
        assert!(!nonces.looks_up(nonce, now) && nonces.looks_up(other, now));
        nonces.proved(nonce);
        assert!(nonces.looks_up(nonce, now));
    }
}
