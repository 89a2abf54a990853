//! What can go wrong for a client, and what most likely caused it.

use std::{path::PathBuf, sync::Arc};

use akma::AKid;
use message::MessageId;
use thiserror::Error;
use transport::{ClientHandshakeError, websocket::UpgradeError};

use crate::{key_source::KeySourceError, ue_configuration::UeConfigurationError};

/// Every failure of this crate but those of key sources on their own.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration cannot work, such as an empty path or a limit of zero.
    #[error("configuration: {0}")]
    Configuration(String),
    /// The key source yields no keys.
    #[error(transparent)]
    Keys(Arc<KeySourceError>),
    /// The key source took too long.
    #[error("the key source gave no keys in time")]
    KeysTimedOut,
    /// No TCP connection: the server is down, or the address is wrong.
    #[error("no connection to {server}: {source}")]
    Unreachable {
        /// The server's address as configured.
        server: String,
        /// What the operating system said.
        source: Arc<std::io::Error>,
    },
    /// No TLS connection, for a reason other than the keys.
    #[error("no TLS connection: {0}")]
    Handshake(Arc<ClientHandshakeError>),
    /// No WebSocket: something else answers at this address, or WebSocket is not served there.
    #[error("no WebSocket: {0}")]
    WebSocket(Arc<UpgradeError>),
    /// The server does not take the keys, not even new ones: the network has not registered them at its AAnF, AKMA is not
    /// allowed for the subscriber, or the server's name differs between client and server.
    #[error("the server does not take the keys of A-KID {0}")]
    KeysRefused(AKid),
    /// The server refused the registration.
    #[error("registration refused with {code}: {cause}")]
    RegistrationRefused {
        /// CoAP response code, as `4.03`.
        code: String,
        /// Its failure cause, such as `NOT_ASSOCIATED`; empty if it gave none.
        cause: String,
        /// Whether coming back later may help (5.xx and 4.29).
        temporary: bool,
    },
    /// The Configuration Function has no configuration for this UE, or does not give it.
    #[error("the Configuration Function refused with {code}: {cause}")]
    ConfigurationRefused {
        /// CoAP response code, as `4.04`.
        code: String,
        /// Its cause, such as `NOT_ASSOCIATED`; empty if it gave none.
        cause: String,
        /// Whether coming back later may help (5.xx and 4.29).
        temporary: bool,
    },
    /// What the Configuration Function gave is no UE configuration that can be used.
    #[error(transparent)]
    UeConfiguration(#[from] UeConfigurationError),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Disconnected(String),
    /// The server answered something that is not MSGin5G: most likely it is another kind of server.
    #[error("unusable answer: {0}")]
    Protocol(String),
    /// The server gave no answer to this message in time. It may or may not have taken it; sending it again with the same
    /// Message ID is safe, since the server gives a repeated message the same answer.
    #[error("no answer to message {message_id} in time; it may or may not be delivered")]
    NoAnswer {
        /// The message.
        message_id: MessageId,
    },
    /// The payload, or the whole message, is over the limit. Nothing was sent.
    #[error("the message has {octets} octets, {octets_max} are allowed")]
    TooLarge {
        /// What it has.
        octets: usize,
        /// What is allowed.
        octets_max: usize,
    },
    /// The call cannot be meant, such as a subscription to no topic. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// The server, or a limit of this client, refused what was asked for.
    #[error("refused: {cause}")]
    Refused {
        /// The failure cause, such as `TOPIC_NOT_ALLOWED`.
        cause: String,
        /// Whether coming back later may help (5.xx and 4.29).
        temporary: bool,
    },
    /// The state directory cannot be read or written.
    #[error("cannot use {path}: {source}")]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<std::io::Error>,
    },
    /// The state directory belongs to a client that runs now; two would take each other's connection and messages.
    #[error("{path} is in use by another client; stop it first")]
    StateInUse {
        /// The state directory.
        path: PathBuf,
    },
    /// Somebody serves the applications' socket already.
    #[error("{path} is served by another program; stop it first, or use another path")]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// The client was closed or de-registered.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// Whether trying again without changing anything is of no use.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Keys(error) => !error.is_temporary(),
            Self::Handshake(error) => matches!(**error, ClientHandshakeError::ServerName),
            Self::RegistrationRefused { temporary, .. }
            | Self::Refused { temporary, .. }
            | Self::ConfigurationRefused { temporary, .. } => !temporary,
            // What it says may be put right by whoever writes it, but not by asking again at once.
            Self::UeConfiguration(_) => true,
            Self::Invalid(_) => true,
            Self::Configuration(_) | Self::KeysRefused(_) | Self::StateInUse { .. } | Self::State { .. } => true,
            Self::TooLarge { .. } | Self::SocketInUse { .. } | Self::Closed => true,
            Self::KeysTimedOut
            | Self::Unreachable { .. }
            | Self::WebSocket(_)
            | Self::Disconnected(_)
            | Self::Protocol(_)
            | Self::NoAnswer { .. } => false,
        }
    }
}

impl From<KeySourceError> for ClientError {
    fn from(error: KeySourceError) -> Self {
        Self::Keys(Arc::new(error))
    }
}
