//! Why a connection was not accepted, and what the peer is told.

use std::io;

use openssl::error::ErrorStack;
use thiserror::Error;

use crate::alert::{Alert, received_alert};
use crate::handshake_sniffer::SniffError;
use crate::key_source::LookupRefusal;
use crate::psk_profile::TlsVersion;

/// Why a connection was not accepted. What the peer is told stands with each.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Its source has all the handshakes under way that it may have. TCP closed, no alert.
    #[error("too many handshakes are under way from this source")]
    TooManyFromSource,
    /// No further handshake may be under way. TCP closed, no alert.
    #[error("too many handshakes are under way")]
    TooMany,
    /// The ClientHello, or the handshake as a whole, took too long. TCP closed, no alert.
    #[error("the handshake took too long")]
    TimedOut,
    /// The peer closed the connection before the handshake was done.
    #[error("the peer left before the handshake was done")]
    Closed,
    /// The first octets are no acceptable ClientHello. Not TLS: TCP closed, no alert; a record over 2^14 octets:
    /// `record_overflow`; another message: `unexpected_message`; else `decode_error`.
    #[error("{0}")]
    Sniff(#[from] SniffError),
    /// The ClientHello names another server, or none. `unrecognized_name`.
    #[error("the peer asks for another server")]
    ServerName,
    /// TLS 1.3 is offered without psk_dhe_ke, hence without forward secrecy. `handshake_failure`.
    #[error("the peer offers no forward secrecy")]
    NoForwardSecrecy,
    /// The peer's PSK identities hold no A-KID, or it offers no PSK at all. TLS 1.3: `handshake_failure`; TLS 1.2:
    /// `unknown_psk_identity`.
    #[error("the peer names no A-KID")]
    NoAKid,
    /// No version, suite or group in common. `handshake_failure` or `protocol_version`.
    #[error("the peer offers no version, suite or group of this profile")]
    NothingInCommon,
    /// There is no key. Unknown or expired: TLS 1.3 `handshake_failure`, TLS 1.2 `unknown_psk_identity`; busy, timed
    /// out or unavailable: `internal_error`.
    #[error("there is no key for the peer: {0}")]
    Lookup(#[from] LookupRefusal),
    /// The peer holds another key than K_AF. TLS 1.3: `decrypt_error`; TLS 1.2: `bad_record_mac`.
    #[error("the peer has another key for this A-KID")]
    WrongKey,
    /// The peer sent this alert.
    #[error("the peer sent alert {0}")]
    PeerAlert(u8),
    /// A breach of the TLS protocol. OpenSSL has sent the alert.
    #[error("TLS failed: {0}")]
    Protocol(&'static str),
    /// A breach of the DTLS protocol, or a failure of ours; the alert is the protocol's.
    #[error("DTLS failed: {0}")]
    Dtls(dtls::Error),
    /// DTLS: another handshake has begun at the same address. Nothing is sent.
    #[error("another handshake has begun at this address")]
    Displaced,
    /// DTLS: there are as many sessions as there may be. Nothing is sent.
    #[error("too many sessions")]
    TooManySessions,
    /// OpenSSL could not set the connection up; most likely memory is short. TCP closed, no alert.
    #[error("OpenSSL cannot take another connection")]
    OpenSsl(#[from] ErrorStack),
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

impl HandshakeError {
    /// As in metrics and logs.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::TooManyFromSource => "too_many_from_source",
            Self::TooMany => "too_many",
            Self::TimedOut => "timed_out",
            Self::Closed | Self::Io(_) => "closed",
            Self::Sniff(SniffError::NotTls) => "not_tls",
            Self::Sniff(SniffError::TooLong | SniffError::RecordTooLong) => "too_long",
            Self::Sniff(_) => "malformed",
            Self::ServerName => "server_name",
            Self::NoForwardSecrecy => "no_forward_secrecy",
            Self::NoAKid => "no_a_kid",
            Self::NothingInCommon => "nothing_in_common",
            Self::Lookup(LookupRefusal::Unknown) => "unknown_a_kid",
            Self::Lookup(LookupRefusal::Expired) => "expired_key",
            Self::Lookup(LookupRefusal::Busy) => "lookup_busy",
            Self::Lookup(LookupRefusal::TimedOut) => "lookup_timed_out",
            Self::Lookup(LookupRefusal::Unavailable) => "lookup_unavailable",
            Self::WrongKey => "wrong_key",
            Self::PeerAlert(_) => "peer_alert",
            Self::Protocol(_) | Self::Dtls(_) => "protocol",
            Self::Displaced => "displaced",
            Self::TooManySessions => "too_many_sessions",
            Self::OpenSsl(_) => "openssl",
        }
    }

    /// The alert to send, unless OpenSSL has sent its own; `None` when nothing is to be said.
    pub(crate) fn alert(&self, version: TlsVersion) -> Option<Alert> {
        let no_identity = match version {
            TlsVersion::Tls13 | TlsVersion::Dtls13 => Alert::HandshakeFailure,
            TlsVersion::Tls12 | TlsVersion::Dtls12 | TlsVersion::Oscore => Alert::UnknownPskIdentity,
        };
        match self {
            Self::Sniff(SniffError::RecordTooLong) => Some(Alert::RecordOverflow),
            Self::Sniff(SniffError::Unexpected) => Some(Alert::UnexpectedMessage),
            Self::Sniff(SniffError::Malformed | SniffError::TooLong) => Some(Alert::DecodeError),
            Self::ServerName => Some(Alert::UnrecognizedName),
            Self::NoForwardSecrecy | Self::NothingInCommon => Some(Alert::HandshakeFailure),
            Self::NoAKid | Self::Lookup(LookupRefusal::Unknown | LookupRefusal::Expired) => Some(no_identity),
            Self::Lookup(_) => Some(Alert::InternalError),
            _ => None,
        }
    }

    /// What OpenSSL's complaint means.
    pub(crate) fn of_openssl(error: openssl::ssl::Error) -> Self {
        match error.ssl_error().map(Self::of_stack) {
            Some(meaning) => meaning,
            None => match error.into_io_error() {
                Ok(io) => Self::Io(io),
                Err(_) => Self::Closed,
            },
        }
    }

    fn of_stack(stack: &ErrorStack) -> Self {
        for error in stack.errors() {
            match error.reason_code() {
                BINDER_DOES_NOT_VERIFY | BAD_RECORD_MAC => return Self::WrongKey,
                NO_SHARED_CIPHER
                | NO_SUITABLE_KEY_SHARE
                | NO_SUITABLE_GROUPS
                | UNSUPPORTED_PROTOCOL
                | VERSION_TOO_LOW => return Self::NothingInCommon,
                other => {
                    if let Some(alert) = received_alert(other) {
                        return Self::PeerAlert(alert);
                    }
                }
            }
        }
        Self::Protocol(stack.errors().first().and_then(openssl::error::Error::reason).unwrap_or("unknown"))
    }
}

// Reason codes of openssl/sslerr.h. Part of OpenSSL's stable API.
const BINDER_DOES_NOT_VERIFY: i32 = 253;
const BAD_RECORD_MAC: i32 = 281;
const NO_SHARED_CIPHER: i32 = 193;
const NO_SUITABLE_KEY_SHARE: i32 = 101;
const NO_SUITABLE_GROUPS: i32 = 295;
const UNSUPPORTED_PROTOCOL: i32 = 258;
const VERSION_TOO_LOW: i32 = 396;
