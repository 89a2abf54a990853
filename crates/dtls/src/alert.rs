//! Alerts (RFC 5246 7.2).

use std::fmt;

/// An alert's description. What we send is fatal, but for close_notify, user_canceled and no_renegotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alert(pub u8);

impl Alert {
    /// The sender will send no more.
    pub const CLOSE_NOTIFY: Self = Self(0);
    /// A message came out of order.
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    /// Nothing in common, or no extended master secret.
    pub const HANDSHAKE_FAILURE: Self = Self(40);
    /// A field has a value that it cannot have.
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    /// A message cannot be taken apart.
    pub const DECODE_ERROR: Self = Self(50);
    /// Finished, or the key that protects it, is wrong.
    pub const DECRYPT_ERROR: Self = Self(51);
    /// The version is not spoken here.
    pub const PROTOCOL_VERSION: Self = Self(70);
    /// The sender cannot go on for a reason of its own.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// The handshake is given up.
    pub const USER_CANCELED: Self = Self(90);
    /// Renegotiation is refused; a warning.
    pub const NO_RENEGOTIATION: Self = Self(100);
    /// A message lacks an extension that it must have.
    pub const MISSING_EXTENSION: Self = Self(109);
    /// An extension that was not offered.
    pub const UNSUPPORTED_EXTENSION: Self = Self(110);
    /// The host name of server_name is not served here.
    pub const UNRECOGNIZED_NAME: Self = Self(112);
    /// The PSK identity is not known (RFC 4279 2).
    pub const UNKNOWN_PSK_IDENTITY: Self = Self(115);

    const WARNING: u8 = 1;
    const FATAL: u8 = 2;

    /// Whether it is sent as a warning.
    pub fn is_warning(self) -> bool {
        matches!(self, Self::CLOSE_NOTIFY | Self::USER_CANCELED | Self::NO_RENEGOTIATION)
    }

    /// Whether it ends a session without an error.
    pub(crate) fn is_closure(self) -> bool {
        matches!(self, Self::CLOSE_NOTIFY | Self::USER_CANCELED)
    }

    pub(crate) fn encode(self) -> [u8; 2] {
        [if self.is_warning() { Self::WARNING } else { Self::FATAL }, self.0]
    }

    /// The alert in a record, and whether the peer calls it fatal.
    pub(crate) fn parse(content: &[u8]) -> Option<(Self, bool)> {
        match content {
            [level @ (Self::WARNING | Self::FATAL), description] => Some((Self(*description), *level == Self::FATAL)),
            _ => None,
        }
    }

    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            22 => "record_overflow",
            40 => "handshake_failure",
            47 => "illegal_parameter",
            50 => "decode_error",
            51 => "decrypt_error",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            112 => "unrecognized_name",
            115 => "unknown_psk_identity",
            _ => return None,
        })
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "alert {}", self.0),
        }
    }
}
