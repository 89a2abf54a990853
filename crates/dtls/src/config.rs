//! What a deployment chooses.

use std::fmt;
use std::time::Duration;

use crate::connection_id::ConnectionId;
use crate::error::Error;
use crate::key::KeyLog;
use crate::limits::{
    DATAGRAM_OCTETS_DEFAULT, DATAGRAM_OCTETS_MAX, DATAGRAM_OCTETS_MIN, PSK_IDENTITY_OCTETS_MAX, RETRANSMIT_FIRST,
    RETRANSMIT_MAX, SERVER_NAME_OCTETS_MAX,
};
use crate::suite::{CipherSuite, Group, ProtocolVersion};

/// What both sides choose.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The cipher suites, in the order of preference, which also say the versions: without one of a version, that version
    /// is not spoken. DTLS 1.3 goes before 1.2; within a version the server's order decides. Default:
    /// [`CipherSuite::FORWARD_SECRET`].
    pub cipher_suites: Vec<CipherSuite>,
    /// The groups, in the order of preference. Default: [`Group::ALL`].
    pub groups: Vec<Group>,
    /// Octets of a UDP payload that the path carries; no datagram of ours is larger. Default:
    /// [`DATAGRAM_OCTETS_DEFAULT`].
    pub datagram_octets_max: usize,
    /// The first interval between retransmissions. Default: [`RETRANSMIT_FIRST`].
    pub retransmit_first: Duration,
    /// From the first datagram on; then [`Error::HandshakeTimeout`]. Includes the wait for the key. Default: 60 s on a
    /// server, 120 s on a client.
    pub handshake_timeout: Duration,
    /// What is done when the peer's newest record comes from another address. Default: [`AddressChange::Ask`].
    pub address_change: AddressChange,
    /// Where secrets are written for analysis. Default: nowhere.
    pub key_log: Option<KeyLog>,
}

impl SessionConfig {
    fn new(handshake_timeout: Duration) -> Self {
        Self {
            cipher_suites: CipherSuite::FORWARD_SECRET.to_vec(),
            groups: Group::ALL.to_vec(),
            datagram_octets_max: DATAGRAM_OCTETS_DEFAULT,
            retransmit_first: RETRANSMIT_FIRST,
            handshake_timeout,
            address_change: AddressChange::Ask,
            key_log: None,
        }
    }

    pub(crate) fn speaks(&self, version: ProtocolVersion) -> bool {
        self.cipher_suites.iter().any(|suite| suite.is_of(version))
    }

    fn check(&self) -> Result<(), Error> {
        if self.cipher_suites.is_empty() {
            return Err(Error::Config("no cipher suite"));
        }
        if self.groups.is_empty() && self.cipher_suites.iter().any(|suite| suite.is_forward_secret()) {
            return Err(Error::Config("no group"));
        }
        if !(DATAGRAM_OCTETS_MIN..=DATAGRAM_OCTETS_MAX).contains(&self.datagram_octets_max) {
            return Err(Error::Config("datagram_octets_max out of range"));
        }
        if self.retransmit_first.is_zero() || self.retransmit_first > RETRANSMIT_MAX {
            return Err(Error::Config("retransmit_first out of range"));
        }
        if self.handshake_timeout.is_zero() || self.handshake_timeout > Duration::from_secs(3600) {
            return Err(Error::Config("handshake_timeout out of range"));
        }
        Ok(())
    }
}

/// What is done when the peer's newest record comes from another address (RFC 9146 6). Only with a Connection ID of
/// ours, only for a record that is authentic and newer than any before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressChange {
    /// Nothing: the old address is kept. The record counts.
    Ignore,
    /// The driver decides: the address waits for [`crate::Connection::follow`], whose reachability
    /// [`crate::Connection::probe`] can prove before.
    Ask,
    /// The new address is the peer's at once. Somebody on the path who forwards a record from an address of a victim
    /// turns the session's next datagrams there, until the peer's next record.
    Follow,
}

/// What a server chooses.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// What both sides choose.
    pub session: SessionConfig,
    /// The PSK identity hint (RFC 4279 5.2), `3GPP-AKMA` for AKMA; DTLS 1.3 has none. Default: none.
    pub identity_hint: Option<Vec<u8>>,
    /// What a client is told whose identity is not known. Default: [`UnknownIdentity::Tell`].
    pub unknown_identity: UnknownIdentity,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            session: SessionConfig::new(Duration::from_secs(60)),
            identity_hint: None,
            unknown_identity: UnknownIdentity::Tell,
        }
    }
}

impl ServerConfig {
    pub(crate) fn speaks(&self, version: ProtocolVersion) -> bool {
        self.session.speaks(version)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.session.check()?;
        if self.identity_hint.as_ref().is_some_and(|hint| hint.len() > PSK_IDENTITY_OCTETS_MAX) {
            return Err(Error::Config("identity_hint too long"));
        }
        Ok(())
    }
}

/// What a client is told whose identity is not known. RFC 4279 2 allows both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownIdentity {
    /// unknown_psk_identity: a device learns that it must authenticate anew. So does everybody who asks.
    Tell,
    /// The handshake goes on with a key that nobody has, so that it ends as one with a wrong key does: with
    /// decrypt_error when its time has passed; with DTLS 1.3 at once, since the binder tells. An unknown identity then
    /// costs what a half handshake costs.
    Hide,
}

/// What a client chooses.
#[derive(Clone)]
pub struct ClientConfig {
    /// What both sides choose.
    pub session: SessionConfig,
    /// The PSK identity, at most [`PSK_IDENTITY_OCTETS_MAX`] octets.
    pub identity: Vec<u8>,
    /// The host name to put in server_name (RFC 6066 3). Default: none.
    pub server_name: Option<String>,
    /// The Connection ID that the server shall write into its records; empty: the extension is sent, the server's ID
    /// used, none wanted here; `None`: no extension. Default: empty.
    pub connection_id: Option<ConnectionId>,
}

impl ClientConfig {
    /// A client that names itself `identity`.
    pub fn new(identity: &[u8]) -> Self {
        Self {
            session: SessionConfig::new(Duration::from_secs(120)),
            identity: identity.to_vec(),
            server_name: None,
            connection_id: Some(ConnectionId::EMPTY),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.session.check()?;
        if self.identity.is_empty() || self.identity.len() > PSK_IDENTITY_OCTETS_MAX {
            return Err(Error::Config("identity empty or too long"));
        }
        if let Some(name) = &self.server_name
            && (name.is_empty() || name.len() > SERVER_NAME_OCTETS_MAX || !is_host_name(name.as_bytes()))
        {
            return Err(Error::Config("server_name is not a host name"));
        }
        Ok(())
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An identity names a subscriber.
        f.debug_struct("ClientConfig")
            .field("session", &self.session)
            .field("identity_octets", &self.identity.len())
            .field("server_name", &self.server_name)
            .field("connection_id", &self.connection_id)
            .finish()
    }
}

/// Letters, digits, hyphens, dots and underscores.
pub(crate) fn is_host_name(name: &[u8]) -> bool {
    name.iter().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(octet))
}
