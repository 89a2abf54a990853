//! Where K_AF comes from, and what is said when it does not come.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::SystemTime;

use akma::{AKid, AfId, Gpsi, KAf, UaProtocolId, UeId};
use thiserror::Error;
use tokio::time::Instant;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whoever can answer an A-KID with K_AF: the AAnF, or the NEF in front of it (TS 33.535 clause 6.2).
///
/// An implementation needs no time-out, cache, retry or limit of its own: [`KeyLookup`](crate::KeyLookup) has them.
pub trait KeySource: Send + Sync {
    /// K_AF of this A-KID for this AF_ID; `None` when the A-KID is not known (204 of TS 29.535 clause 5.1).
    ///
    /// The future is dropped when the time-out of the lookup passes.
    fn retrieve(&self, af_id: AfId, a_kid: AKid) -> BoxFuture<'_, Result<Option<ProvenKey>, KeySourceError>>;
}

/// Why a [`KeySource`] has no answer. The texts are for the operator's log; they never hold a key or a SUPI.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// The function answered, and will not serve this request (such as 400 or 404): this A-KID only. It does not
    /// count against the function's health, since a peer chooses the A-KID.
    #[error("the key server refuses this request: {0}")]
    Refused(String),
    /// The function answered that K_AF has expired: the UE must authenticate anew. It does not count against the
    /// function's health.
    #[error("K_AF has expired")]
    Expired,
    /// The function answered that it cannot serve this A-KID yet, and serves others: the same attempt may succeed later. It
    /// does not count against the function's health.
    #[error("the key server cannot serve this request yet: {0}")]
    NotYet(String),
    /// Nothing was asked: too much of our own is under way. It says nothing of the function's health.
    #[error("the key server was not asked: {0}")]
    NotAsked(String),
    /// The function answered that we ask too often (429): it works, and whoever asked is to come back later. It does not count
    /// against the function's health, and the implementation leaves it alone for as long as it asked to be.
    #[error("the key server wants fewer requests: {0}")]
    TooMany(String),
    /// No connection, no answer, or 5xx: counts against the function's health.
    #[error("the key server is not reachable: {0}")]
    Unavailable(String),
    /// An answer that breaks TS 29.535: counts against the function's health.
    #[error("the key server answered nonsense: {0}")]
    Malformed(String),
}

/// A question for [`KeyLookup::resolve`](crate::KeyLookup::resolve).
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// Who claims to connect.
    pub a_kid: AKid,
    /// How; part of AF_ID, hence of K_AF.
    pub protocol: UaProtocolId,
    /// Who makes us ask: lookups are limited per source address (an IPv6 /64 counts as one).
    pub source: IpAddr,
}

/// What the key server proves about an A-KID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenKey {
    /// The pre-shared key.
    pub k_af: KAf,
    /// When K_AF must no longer be used; `None` when the key server set no limit.
    pub expires_at: Option<SystemTime>,
    /// SUPI, or GPSI where the SUPI may not be told (TS 33.501 clause Y.2 needs one of them for authorisation).
    pub ue_id: Option<UeId>,
    /// The GPSI, where the key server tells it, alone or beside the SUPI: by it the UE can be named outside the operator's
    /// domain.
    pub gpsi: Option<Gpsi>,
}

impl ProvenKey {
    /// Whether K_AF may still be used at `now`.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.expires_at.is_none_or(|expiry| now < expiry)
    }
}

/// What [`KeyLookup::resolve`](crate::KeyLookup::resolve) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// What the key server proves.
    pub key: ProvenKey,
    /// When it was asked, also where the question was somebody else's or the answer is remembered: what it has learnt since, such as
    /// a newer A-KID of the UE, is not in its answer.
    pub asked_at: Instant,
}

/// Why there is no key for a peer. Each has its own alert, see [`HandshakeError`](crate::HandshakeError).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum LookupRefusal {
    /// The key server does not know the A-KID, or refuses it: the UE must authenticate anew.
    #[error("the A-KID is not known")]
    Unknown,
    /// K_AF has expired: the UE must authenticate anew.
    #[error("K_AF has expired")]
    Expired,
    /// A limit of [`LookupLimits`](crate::LookupLimits), of the client that asks, or of the key server is reached: the same
    /// attempt may succeed later.
    #[error("too many key lookups are under way")]
    Busy,
    /// The key server took too long: the same attempt may succeed later.
    #[error("the key lookup took too long")]
    TimedOut,
    /// The key server is not reachable, answers nonsense, or cannot serve this A-KID yet: the same attempt may succeed later.
    #[error("the key server cannot be asked")]
    Unavailable,
}

impl LookupRefusal {
    /// As in metrics and logs.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Busy => "busy",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
        }
    }
}
