//! Fatal alerts that we send ourselves while the handshake is in plaintext (RFC 8446 clause 6.2).

/// The description of a fatal alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alert {
    UnexpectedMessage = 10,
    RecordOverflow = 22,
    HandshakeFailure = 40,
    DecodeError = 50,
    InternalError = 80,
    UnrecognizedName = 112,
    UnknownPskIdentity = 115,
}

impl Alert {
    /// The plaintext record.
    pub(crate) fn record(self) -> [u8; 7] {
        const FATAL: u8 = 2;
        [21, 3, 3, 0, 2, FATAL, self as u8]
    }
}

/// The alert in a reason code of OpenSSL's, if the peer sent one (SSL_AD_REASON_OFFSET).
pub(crate) fn received_alert(reason: i32) -> Option<u8> {
    u8::try_from(reason.checked_sub(1000)?).ok()
}
