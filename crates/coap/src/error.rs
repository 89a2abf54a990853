//! What can go wrong on a connection.

use crate::code::Code;

pub use ConnectionError as StreamError;

/// Why a call on a [`crate::StreamConnection`] or [`crate::DatagramConnection`] failed.
///
/// [`ConnectionError::is_fatal`] tells the peer's offences, after which an Abort waits in
/// [`crate::StreamConnection::poll_transmit`] and the connection is closed, from calls that could not be served and left
/// everything as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer's first message was not a CSM (RFC 8323 5.3): it speaks another protocol, or the stream is out of step.
    #[error("first message is not a CSM")]
    CsmExpected,
    /// The peer's CSM has a critical option that is not known here.
    #[error("unknown critical option {number} in a CSM")]
    BadCsmOption {
        /// The option.
        number: u16,
    },
    /// Another signalling message has a critical option that is not known here.
    #[error("unknown critical option {number} in signalling message {code}")]
    BadSignalOption {
        /// The message.
        code: Code,
        /// The option.
        number: u16,
    },
    /// A message of a reserved class, or an unassigned signalling message.
    #[error("message with the reserved code {code}")]
    ReservedCode {
        /// The code.
        code: Code,
    },
    /// A message is larger than [`crate::StreamConfig::max_message_size_own`].
    #[error("message of {octets} octets, at most {octets_max} are taken")]
    MessageTooLarge {
        /// The size its header announced.
        octets: u64,
        /// The limit.
        octets_max: u32,
    },
    /// A token length above 8.
    #[error("token length {0} is reserved")]
    TokenLengthReserved(u8),
    /// A message cannot be taken apart.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The peer makes us answer and does not take the answers; see
    /// [`crate::StreamLimits::transmit_octets_max`].
    #[error("peer does not read what it asks for")]
    PeerNotReading,
    /// The message is larger than the peer takes: over a stream its Max-Message-Size, or 1152 before its CSM; over
    /// datagrams [`crate::DatagramConfig::max_message_size_peer`].
    #[error("message of {octets} octets, the peer takes at most {octets_max}")]
    MessageTooLargeForPeer {
        /// Its size.
        octets: u64,
        /// What the peer takes.
        octets_max: u32,
    },
    /// [`crate::StreamLimits::requests_outstanding_max`] (over datagrams, its namesake of
    /// [`crate::DatagramLimits`]) requests wait for an answer.
    #[error("too many requests without an answer")]
    TooManyRequests,
    /// [`crate::StreamLimits::pings_outstanding_max`] (over datagrams, its namesake) Pings wait for a Pong.
    #[error("too many pings without an answer")]
    TooManyPings,
    /// [`crate::StreamLimits::transmit_octets_max`] (over datagrams, its namesake) octets wait to be sent.
    #[error("too much waits to be sent")]
    TransmitFull,
    /// A path segment, query or other option value is longer than its option allows, or `.` or `..`.
    #[error("option value out of its range")]
    InvalidOption,
    /// A code that is no request's in a request, or no response's in a response.
    #[error("code {0} is of another kind of message")]
    InvalidCode(Code),
    /// No request of that name waits for an answer: it was answered already, or the name is another connection's.
    #[error("no such exchange")]
    UnknownExchange,
    /// One side has released the connection (RFC 8323 5.5): no new requests.
    #[error("connection is released")]
    Released,
    /// The connection was aborted, by us or by the peer.
    #[error("connection is closed")]
    Closed,
}

impl ConnectionError {
    /// Whether this ended the connection.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::CsmExpected
                | Self::BadCsmOption { .. }
                | Self::BadSignalOption { .. }
                | Self::ReservedCode { .. }
                | Self::MessageTooLarge { .. }
                | Self::TokenLengthReserved(_)
                | Self::Malformed(_)
                | Self::PeerNotReading
                | Self::Closed
        )
    }
}
