//! What can go wrong.

use crate::alert::Alert;

/// Why a call failed, or a session ended.
///
/// No variant carries key material, an identity or a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration cannot work.
    #[error("configuration: {0}")]
    Config(&'static str),
    /// A pre-shared key is shorter than [`crate::limits::PSK_OCTETS_MIN`] or longer than
    /// [`crate::limits::PSK_OCTETS_MAX`].
    #[error("pre-shared key of {0} octets")]
    KeyLength(usize),
    /// A Connection ID is longer than [`crate::limits::CONNECTION_ID_OCTETS_MAX`].
    #[error("Connection ID of {0} octets")]
    ConnectionIdLength(usize),
    /// The system gives no randomness.
    #[error("no randomness")]
    Random,
    /// The cryptographic library refuses what it never should: most likely it has no memory.
    #[error("the cryptographic library failed")]
    Cryptography,

    /// The handshake is not done yet.
    #[error("not established")]
    NotEstablished,
    /// The session has ended.
    #[error("closed")]
    Closed,
    /// No key was asked for, or it was given already.
    #[error("no key is waited for")]
    NoKeyAwaited,
    /// The payload does not fit in one datagram of the path.
    #[error("payload too large, at most {octets_max} octets")]
    PayloadTooLarge {
        /// What fits.
        octets_max: usize,
    },
    /// [`crate::limits::TRANSMITS_MAX`] datagrams wait to be sent.
    #[error("too many datagrams wait to be sent")]
    TransmitQueueFull,
    /// DTLS 1.2 has no KeyUpdate.
    #[error("no KeyUpdate in this version")]
    NoKeyUpdate,
    /// The peer has not acknowledged a KeyUpdate yet, or a client's Finished.
    #[error("the peer has not acknowledged the KeyUpdate or Finished before")]
    UpdatePending,
    /// The key has protected as many records as it may; a new handshake makes another.
    #[error("the write key is used up")]
    WriteKeyExhausted,
    /// As many messages were sent, or have come, as have numbers: 65,535 (RFC 9147 5.2). A new handshake starts anew.
    #[error("the numbers of messages are used up")]
    MessageNumbers,
    /// The address is not the one that waits for a decision.
    #[error("no such address waits to be followed")]
    NoSuchAddress,
    /// More was to be sent to an unproven address than [`crate::limits::PROBE_OCTETS_FACTOR`] allows.
    #[error("too much for an unproven address")]
    ProbeTooLarge,
    /// Something is still under way: a flight is held for the peer, datagrams or events wait, or an address is unproven.
    #[error("not idle")]
    NotIdle,

    /// A frozen or sealed form is not one of ours, was changed, or was sealed under another key.
    #[error("not a session of ours")]
    FrozenForm,
    /// A sealed form is opened by the start of the server that sealed it, or by an earlier one: its counters could repeat.
    #[error("sealed by this or a later start of the server")]
    SealedNow,
    /// A sealed form was opened before by this start of the server: its counters would repeat.
    #[error("opened before by this start of the server")]
    OpenedBefore,
    /// A session was handed over to an earlier start of the server, which may have gone on with it: its counters would repeat.
    #[error("handed over to an earlier start of the server")]
    HandedOverEarlier,
    /// This start of the server has opened [`crate::limits::SEALED_OPENED_MAX`] sealed forms.
    #[error("too many sealed forms opened by this start of the server")]
    OpenedTooMany,

    /// The handshake, or a KeyUpdate, took longer than [`crate::SessionConfig::handshake_timeout`]. `unauthentic` tells that protected
    /// records came which our key does not open: most likely the peers have different keys.
    #[error("handshake timed out{}", if *.unauthentic { ", most likely the keys differ" } else { "" })]
    HandshakeTimeout {
        /// Whether records came that did not open.
        unauthentic: bool,
    },
    /// The peer sent a fatal alert.
    #[error("the peer sent {0}")]
    PeerAlert(Alert),
    /// A message cannot be taken apart.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A message of the handshake came when it may not.
    #[error("unexpected message")]
    UnexpectedMessage,
    /// No version in common.
    #[error("no common version")]
    Version,
    /// No cipher suite in common.
    #[error("no common cipher suite")]
    CipherSuite,
    /// The peer does not do extended master secret (RFC 7627), which is required.
    #[error("the peer does not do extended master secret")]
    ExtendedMasterSecret,
    /// A field of a message has a value that it cannot have.
    #[error("illegal {0}")]
    IllegalParameter(&'static str),
    /// The server answers with an extension that was not offered.
    #[error("an extension that was not offered")]
    UnsupportedExtension,
    /// A message lacks an extension that it must have.
    #[error("{0} is missing")]
    MissingExtension(&'static str),
    /// The client offers no pre-shared key with an ephemeral exchange, and nothing else is done here.
    #[error("no pre-shared key with an ephemeral exchange is offered")]
    NoPresharedKey,
    /// The server speaks DTLS 1.3 but answers with 1.2: somebody has changed what was offered (RFC 8446 4.1.3).
    #[error("downgraded")]
    Downgrade,
    /// The client's binder does not verify: it has another key for its identity.
    #[error("the binder does not verify")]
    Binder,
    /// The key for the identity is refused.
    #[error("key refused: {0:?}")]
    KeyRefused(crate::KeyRefusal),
    /// The peer's public key is not on the curve, or of low order.
    #[error("bad public key")]
    PublicKey,
    /// The peer's Finished is wrong: the handshake was tampered with.
    #[error("Finished does not verify")]
    Finished,
    /// More records failed to authenticate than the suite's AEAD allows for one key.
    #[error("too many records did not authenticate")]
    ReadKeyExhausted,
    /// The server keeps asking for another cookie.
    #[error("too many HelloVerifyRequests")]
    HelloVerifyRequests,
}

/// What ends a session on our side: the alert for the peer, and the reason for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) alert: Alert,
    pub(crate) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let alert = match error {
            Error::Malformed(_) => Alert::DECODE_ERROR,
            Error::UnexpectedMessage | Error::HelloVerifyRequests => Alert::UNEXPECTED_MESSAGE,
            Error::Version => Alert::PROTOCOL_VERSION,
            Error::CipherSuite | Error::ExtendedMasterSecret | Error::NoPresharedKey => Alert::HANDSHAKE_FAILURE,
            Error::IllegalParameter(_) | Error::PublicKey | Error::Downgrade => Alert::ILLEGAL_PARAMETER,
            Error::MissingExtension(_) => Alert::MISSING_EXTENSION,
            Error::UnsupportedExtension => Alert::UNSUPPORTED_EXTENSION,
            Error::Finished | Error::Binder => Alert::DECRYPT_ERROR,
            _ => Alert::INTERNAL_ERROR,
        };
        Self { alert, error }
    }
}
