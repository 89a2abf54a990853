//! What can be wrong with something that came from outside.

use std::fmt;

use crate::cause::FailureCause;

/// Why a text is not an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It is longer than allowed.
    #[error("is longer than {octets_max} octets")]
    TooLong {
        /// The limit.
        octets_max: usize,
    },
    /// It holds a control character, or (service identities and message identities) a space or anything but ASCII.
    #[error("holds a character that is not allowed")]
    NotPrintable,
}

impl IdentityError {
    /// The same in words without numbers, for [`DecodeError::Invalid`].
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::TooLong { .. } => "is too long",
            Self::NotPrintable => "holds a character that is not allowed",
        }
    }
}

/// A failure cause that this version does not know; a peer of another make or a later version sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known failure cause")]
pub struct UnknownFailureCause;

/// Which member a [`DecodeError`] is about: `msgId`, `destAddr.addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberPath {
    /// The member that holds `name`, if that is not a member of the message itself.
    pub parent: Option<&'static str>,
    /// The member.
    pub name: &'static str,
}

impl MemberPath {
    pub(crate) const fn top(name: &'static str) -> Self {
        Self { parent: None, name }
    }
}

impl fmt::Display for MemberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)
    }
}

/// Why octets are not a message. The text holds member names and limits only, never what the peer sent, so it may be
/// logged and returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The whole message is over [`crate::DecodeLimits::message_octets_max`]; nothing of it was read.
    #[error("message of {octets} octets, at most {octets_max} are taken")]
    MessageTooLarge {
        /// Its size.
        octets: usize,
        /// The limit.
        octets_max: usize,
    },
    /// The payload is over [`crate::DecodeLimits::payload_octets_max`]; it was not decoded.
    #[error("payload larger than {octets_max} octets")]
    PayloadTooLarge {
        /// The limit.
        octets_max: usize,
    },
    /// Not JSON (RFC 8259), not UTF-8, cut short, or followed by something else.
    #[error("not JSON (line {line}, column {column})")]
    NotJson {
        /// Where reading stopped, from 1; 0 if the text as a whole is not UTF-8.
        line: usize,
        /// Where reading stopped.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// Objects and arrays nested deeper than [`crate::DecodeLimits::depth_max`].
    #[error("nested deeper than {depth_max}")]
    NestedTooDeeply {
        /// The limit.
        depth_max: usize,
    },
    /// A member that this message type must have is not there.
    #[error("member {member} is missing")]
    Missing {
        /// Which.
        member: MemberPath,
    },
    /// A known member is there twice: two readers could take different ones.
    #[error("member {member} is there twice")]
    Duplicate {
        /// Which.
        member: MemberPath,
    },
    /// A known member is of another JSON type.
    #[error("member {member} is not {expected}")]
    WrongType {
        /// Which.
        member: MemberPath,
        /// What it should be.
        expected: &'static str,
    },
    /// A known member has a value that it must not have.
    #[error("member {member} {reason}")]
    Invalid {
        /// Which.
        member: MemberPath,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A message type of TS 24.538 7.1 that is not served here, or of a later release.
    #[error("message type is not supported")]
    MessageTypeNotSupported,
}

impl DecodeError {
    /// The cause to answer with.
    #[must_use]
    pub fn cause(&self) -> FailureCause {
        match self {
            Self::MessageTooLarge { .. } | Self::PayloadTooLarge { .. } => FailureCause::PayloadTooLarge,
            Self::MessageTypeNotSupported => FailureCause::MessageTypeNotSupported,
            _ => FailureCause::Malformed,
        }
    }

    /// The member it is about, if it is about one.
    #[must_use]
    pub fn member(&self) -> Option<MemberPath> {
        match self {
            Self::Missing { member }
            | Self::Duplicate { member }
            | Self::WrongType { member, .. }
            | Self::Invalid { member, .. } => Some(*member),
            _ => None,
        }
    }
}
