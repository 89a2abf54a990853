//! What a client is doing, for people and programs that look.

use akma::AKid;
use time::OffsetDateTime;

use crate::error::ClientError;

/// Where a client is on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientState {
    /// It obtains keys, connects or registers.
    Connecting,
    /// It is registered, and messages flow.
    Registered,
    /// It waits before the next attempt; [`ClientStatus::last_error`] says why.
    Waiting,
    /// It was closed or de-registered.
    Closed,
}

/// A snapshot of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientStatus {
    /// Where it is.
    pub state: ClientState,
    /// The A-KID in use.
    pub a_kid: Option<AKid>,
    /// TLS version of the current connection, such as `TLS 1.3`.
    pub tls_version: Option<String>,
    /// Cipher suite of the current connection, IANA's name.
    pub cipher: Option<&'static str>,
    /// Since when it has been registered on the current connection.
    pub registered_since: Option<OffsetDateTime>,
    /// Registrations so far.
    pub registrations: u64,
    /// Messages sent and not answered.
    pub unanswered: usize,
    /// Messages and reports handed to the application and not accepted.
    pub unaccepted: usize,
    /// Why the last attempt failed or the last connection ended.
    pub last_error: Option<ClientError>,
}

impl ClientStatus {
    pub(crate) fn new() -> Self {
        Self {
            state: ClientState::Connecting,
            a_kid: None,
            tls_version: None,
            cipher: None,
            registered_since: None,
            registrations: 0,
            unanswered: 0,
            unaccepted: 0,
            last_error: None,
        }
    }
}
