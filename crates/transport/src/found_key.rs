//! What TLS and DTLS do alike with whom a peer claims to be: ask for the key, prove the peer by it, tell the log.

use std::net::IpAddr;

use akma::{AKid, UaProtocolId};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::handshake_error::HandshakeError;
use crate::key_lookup::KeyLookup;
use crate::key_source::{FoundKey, KeyRequest, LookupRefusal, ProvenKey};
use crate::log_throttle::LogThrottle;
use crate::psk_profile::TlsVersion;
use crate::psk_server::ProvenPeer;

/// A key that was found, and for whom.
pub(crate) struct Found {
    pub(crate) a_kid: AKid,
    pub(crate) protocol: UaProtocolId,
    pub(crate) key: ProvenKey,
    /// When the key server was asked.
    pub(crate) asked_at: Instant,
}

impl Found {
    pub(crate) async fn look_up(
        lookup: &KeyLookup,
        a_kid: AKid,
        protocol: UaProtocolId,
        source: IpAddr,
    ) -> Result<Self, LookupRefusal> {
        let request = KeyRequest { a_kid: a_kid.clone(), protocol, source };
        let FoundKey { key, asked_at } = lookup.resolve(request).await?;
        Ok(Self { a_kid, protocol, key, asked_at })
    }

    /// Fails closed: a handshake that is done proves its peer only if the key was looked up for what was negotiated.
    pub(crate) fn proven_peer(
        found: Option<Self>,
        tls_version: TlsVersion,
        suite: u16,
        cipher: &'static str,
    ) -> Result<ProvenPeer, HandshakeError> {
        let protocol = tls_version.protocol(suite);
        let Self { a_kid, key, asked_at, .. } = found
            .filter(|found| found.protocol == protocol)
            .ok_or(HandshakeError::Protocol("the key belongs to another protocol"))?;
        let ProvenKey { ue_id, gpsi, expires_at, .. } = key;
        Ok(ProvenPeer { a_kid, ue_id, gpsi, expires_at, asked_at, protocol, tls_version, cipher })
    }
}

/// Tells the log of a peer that was not accepted.
pub(crate) fn tell_refusal(source: IpAddr, a_kid: Option<&AKid>, error: &HandshakeError) {
    let reason = error.label();
    let a_kid = a_kid.map(tracing::field::display);
    match error {
        // An A-KID is seen on the wire: anybody can try a key with it.
        HandshakeError::WrongKey => {
            if let Some(unlogged) = WRONG_KEYS.admit() {
                warn!(target: "security", %source, a_kid, reason, unlogged, "peer refused");
            }
        }
        // Anybody can cause these over and over with no A-KID, or with one made up.
        _ => match FAILED.admit() {
            Some(unlogged) => info!(target: "security", %source, a_kid, reason, %error, unlogged, "handshake failed"),
            None => debug!(target: "security", %source, a_kid, reason, %error, "handshake failed"),
        },
    }
}

static WRONG_KEYS: LogThrottle = LogThrottle::new();
static FAILED: LogThrottle = LogThrottle::new();
