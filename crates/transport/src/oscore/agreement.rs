//! The `/akma` exchange at the AF (TS 33.535 Annex D): from a request to a context and its peer.

use std::net::IpAddr;
use std::sync::Arc;

use akma::{AKid, UaProtocolId};
use coap::Code;
use coap::oscore::{
    AkmaRequest, Durability, KeyId, Message, NONCE_OCTETS, OscoreError, SecurityContext, UA_PROTOCOL_OSCORE,
};
use openssl::rand::rand_bytes;
use tracing::{debug, warn};

use super::OSCORE_ALGORITHMS;
use super::metrics::OscoreMetrics;
use crate::key_lookup::KeyLookup;
use crate::key_source::{FoundKey, KeyRequest, LookupRefusal};
use crate::log_throttle::LogThrottle;
use crate::psk_profile::TlsVersion;
use crate::psk_server::ProvenPeer;

/// Octets of a UE-SID: random, so that what was somebody's context is not soon another's.
pub(super) const UE_SID_OCTETS: usize = 4;

/// When to come back, in seconds, with 4.29 and 5.03.
pub(super) const MAX_AGE_SECONDS: u8 = 5;

/// Max-Age (RFC 7252 5.10.5).
const MAX_AGE: u16 = 14;

/// What was agreed on. Nothing is proven until a request verifies under the context.
pub(super) struct Agreed {
    pub(super) answer: Message,
    pub(super) ue_sid: KeyId,
    pub(super) context: SecurityContext,
    pub(super) peer: ProvenPeer,
}

/// Why nothing was agreed on. Each has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The request cannot be read, or asks for what is not served.
    Malformed(OscoreError),
    /// No such A-KID, or K_AF has expired.
    Unknown,
    /// A limit of this source's.
    TooMany,
    /// A limit in all, or the key server does not answer.
    Unavailable,
}

impl Refused {
    /// As in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unknown => "unknown",
            Self::TooMany => "too_many",
            Self::Unavailable => "unavailable",
        }
    }

    pub(super) fn answer(self) -> Message {
        match self {
            Self::Malformed(error) => error.answer().unwrap_or_else(|| bare(Code::BAD_REQUEST, 0)),
            Self::Unknown => bare(Code::UNAUTHORIZED, 0),
            Self::TooMany => bare(Code::TOO_MANY_REQUESTS, MAX_AGE_SECONDS),
            Self::Unavailable => bare(Code::SERVICE_UNAVAILABLE, MAX_AGE_SECONDS),
        }
    }
}

/// An answer of a code, and how long it stands.
pub(super) fn bare(code: Code, max_age_seconds: u8) -> Message {
    let value: &[u8] = if max_age_seconds == 0 { &[] } else { &[max_age_seconds] };
    Message::new(code, &[(MAX_AGE, value)], &[]).expect("one option")
}

/// Random octets.
///
/// # Errors
/// OpenSSL has none: nothing can be agreed on.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Refused> {
    let mut octets = [0; N];
    rand_bytes(&mut octets).map_err(|_| Refused::Unavailable)?;
    Ok(octets)
}

/// Asks for K_AF and makes the context. `is_free` tells whether a UE-SID can be given.
pub(super) async fn agree(
    lookup: &Arc<KeyLookup>,
    metrics: &OscoreMetrics,
    request: &AkmaRequest,
    source: IpAddr,
    is_free: impl Fn(&KeyId) -> bool + Send,
) -> Result<Agreed, Refused> {
    let agreed = derive(lookup, request, source, is_free).await;
    metrics.agreement(agreed.as_ref().map_or_else(|refused| refused.label(), |_| "agreed"));
    if let Err(refused) = &agreed
        && let Some(unlogged) = REFUSED.admit()
    {
        warn!(target: "security", %source, reason = refused.label(), unlogged, "no OSCORE context agreed on");
    }
    agreed
}

async fn derive(
    lookup: &Arc<KeyLookup>,
    request: &AkmaRequest,
    source: IpAddr,
    is_free: impl Fn(&KeyId) -> bool + Send,
) -> Result<Agreed, Refused> {
    let a_kid: AKid = request.a_kid().parse().map_err(|_| Refused::Malformed(OscoreError::AkmaNotDecoded("A-KID")))?;
    let protocol = UaProtocolId::from_bytes(UA_PROTOCOL_OSCORE);
    let FoundKey { key, asked_at } = lookup
        .resolve(KeyRequest { a_kid: a_kid.clone(), protocol, source })
        .await
        .map_err(|refusal| match refusal {
            LookupRefusal::Unknown | LookupRefusal::Expired => Refused::Unknown,
            LookupRefusal::Busy => Refused::TooMany,
            LookupRefusal::TimedOut | LookupRefusal::Unavailable => Refused::Unavailable,
        })?;
    let n2 = random::<NONCE_OCTETS>()?;
    let ue_sid = loop {
        let id = KeyId::new(&random::<UE_SID_OCTETS>()?).map_err(Refused::Malformed)?;
        if id != *request.af_sid() && is_free(&id) {
            break id;
        }
    };
    let (answer, parameters) = request.accept(key.k_af.expose(), &n2, ue_sid).map_err(Refused::Malformed)?;
    let context = SecurityContext::fresh(&parameters, Durability::Volatile).map_err(Refused::Malformed)?;
    debug!(target: "security", %a_kid, %source, "OSCORE context agreed on, not proven yet");
    let peer = ProvenPeer {
        a_kid,
        ue_id: key.ue_id,
        gpsi: key.gpsi,
        expires_at: key.expires_at,
        asked_at,
        protocol,
        tls_version: TlsVersion::Oscore,
        cipher: OSCORE_ALGORITHMS,
    };
    Ok(Agreed { answer, ue_sid, context, peer })
}

static REFUSED: LogThrottle = LogThrottle::new();
