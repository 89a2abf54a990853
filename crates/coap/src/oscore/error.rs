//! What can go wrong, and what a server answers to it.

use super::message::{Message, number};
use crate::code::Code;

/// Why a message was not protected, not verified, or why a context could not be made.
///
/// [`OscoreError::answer`] is what a server sends for it, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OscoreError {
    /// A parameter of a context is out of its range, most likely configuration or the other side's choice of an ID.
    #[error("context parameter out of range: {0}")]
    InvalidParameter(&'static str),
    /// A code that is no request's in a request, or no response's in a response. Signalling is left as it is.
    #[error("code {0} is of another kind of message")]
    InvalidCode(Code),
    /// The message to be protected is protected already (RFC 8613 4.1.3.7).
    #[error("message is protected already")]
    Nested,
    /// The message to be protected has Proxy-Uri or Proxy-Scheme: proxies are not served.
    #[error("proxy options are not supported")]
    ProxyNotSupported,
    /// The message is no CoAP: an option reaches beyond the end, is longer than any may be, or a marker has no payload.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// [`super::OPTIONS_MAX`] is exceeded.
    #[error("too many options")]
    TooManyOptions,
    /// [`super::MESSAGE_OCTETS_MAX`] or [`super::PLAINTEXT_OCTETS_MAX`] is exceeded.
    #[error("message of {octets} octets, at most {octets_max} are taken")]
    MessageTooLarge {
        /// Its size.
        octets: usize,
        /// The limit.
        octets_max: usize,
    },
    /// There is no OSCORE option. A response without it is the peer's refusal of the request, or anybody's: nothing
    /// vouches for it. 4.01 most likely means that the peer has lost the context.
    #[error("message with code {code} is not protected")]
    NotProtected {
        /// The code of the message.
        code: Code,
    },
    /// The OSCORE option or what belongs to it cannot be read.
    #[error("COSE object cannot be decoded: {0}")]
    NotDecoded(&'static str),
    /// The message names another context: it has expired, was replaced, or was never there.
    #[error("no such security context")]
    ContextNotFound,
    /// The Partial IV was seen before or is too old: a repetition, by the network or by somebody.
    #[error("replayed message")]
    Replay,
    /// The message was changed on its way, or made with other keys.
    #[error("decryption failed")]
    DecryptionFailed,
    /// The peer protected something that is no CoAP message of this kind.
    #[error("protected message is malformed: {0}")]
    PlaintextMalformed(&'static str),
    /// A response says that it is a notification, of a request that did not ask for them.
    #[error("notification of something that is not observed")]
    UnexpectedObserve,
    /// The request has had its only or last response.
    #[error("request is answered already")]
    AlreadyAnswered,
    /// So many sequence numbers are not on disk yet. See [`super::SecurityContext::sequence_to_persist`].
    #[error("sequence numbers are not durable below {persist_at_least}")]
    SequenceNotDurable {
        /// What is to be on disk before anything is sent.
        persist_at_least: u64,
    },
    /// [`super::SEQUENCE_NUMBER_MAX`] is used up: agree on a new context.
    #[error("sequence numbers are used up")]
    SequenceExhausted,
    /// The body of an `/akma` message cannot be read.
    #[error("body of /akma cannot be decoded: {0}")]
    AkmaNotDecoded(&'static str),
    /// An `/akma` request names another protocol, or algorithms that are not ours.
    #[error("/akma asks for something that is not supported: {0}")]
    AkmaNotSupported(&'static str),
}

impl OscoreError {
    /// What a server answers to a request that ended so, without protection and with Max-Age 0, so that no proxy keeps
    /// it (RFC 8613 8.2, 7.4). None: the fault is on this side, or the message was no request with OSCORE.
    #[must_use]
    pub fn answer(&self) -> Option<Message> {
        let (code, diagnostic) = match self {
            Self::NotDecoded(_) => (Code::BAD_OPTION, "Failed to decode COSE"),
            Self::ContextNotFound => (Code::UNAUTHORIZED, "Security context not found"),
            Self::Replay => (Code::UNAUTHORIZED, "Replay detected"),
            // The same for what decrypts to nonsense: nobody learns which it was.
            Self::DecryptionFailed | Self::PlaintextMalformed(_) => (Code::BAD_REQUEST, "Decryption failed"),
            Self::TooManyOptions => (Code::BAD_REQUEST, "too many options"),
            Self::MessageTooLarge { .. } => (Code::REQUEST_ENTITY_TOO_LARGE, ""),
            Self::AkmaNotDecoded(what) | Self::AkmaNotSupported(what) => (Code::BAD_REQUEST, *what),
            _ => return None,
        };
        // Max-Age 0 is an empty value.
        Message::new(code, &[(number::MAX_AGE, &[])], diagnostic.as_bytes()).ok()
    }
}
