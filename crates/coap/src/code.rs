//! Codes of CoAP messages (RFC 7252 12.1, RFC 8323 5.1).

use std::fmt;

/// The code of a CoAP message: three bits of class, five of detail.
///
/// The numbers are checked against those of `coap-lite` in a test; its own types cannot serve, because they turn a code
/// that they do not know into another one, and lack the signalling codes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u8);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $class:literal, $detail:literal;)+) => {
        impl Code {
            $($(#[$doc])* pub const $name: Code = Code::new($class, $detail);)+
        }
    };
}

codes! {
    /// 0.00: an empty message, which is ignored.
    EMPTY = 0, 0;
    /// 0.01.
    GET = 0, 1;
    /// 0.02.
    POST = 0, 2;
    /// 0.03.
    PUT = 0, 3;
    /// 0.04.
    DELETE = 0, 4;
    /// 0.05 (RFC 8132).
    FETCH = 0, 5;
    /// 0.06 (RFC 8132).
    PATCH = 0, 6;
    /// 0.07 (RFC 8132).
    IPATCH = 0, 7;
    /// 2.01.
    CREATED = 2, 1;
    /// 2.02.
    DELETED = 2, 2;
    /// 2.03.
    VALID = 2, 3;
    /// 2.04.
    CHANGED = 2, 4;
    /// 2.05.
    CONTENT = 2, 5;
    /// 2.31 (RFC 7959): send the next block.
    CONTINUE = 2, 31;
    /// 4.00.
    BAD_REQUEST = 4, 0;
    /// 4.01.
    UNAUTHORIZED = 4, 1;
    /// 4.02.
    BAD_OPTION = 4, 2;
    /// 4.03.
    FORBIDDEN = 4, 3;
    /// 4.04.
    NOT_FOUND = 4, 4;
    /// 4.05.
    METHOD_NOT_ALLOWED = 4, 5;
    /// 4.06.
    NOT_ACCEPTABLE = 4, 6;
    /// 4.08 (RFC 7959): blocks are missing.
    REQUEST_ENTITY_INCOMPLETE = 4, 8;
    /// 4.09 (RFC 8132).
    CONFLICT = 4, 9;
    /// 4.13.
    REQUEST_ENTITY_TOO_LARGE = 4, 13;
    /// 4.15.
    UNSUPPORTED_CONTENT_FORMAT = 4, 15;
    /// 4.29 (RFC 8516): come back after Max-Age.
    TOO_MANY_REQUESTS = 4, 29;
    /// 5.00.
    INTERNAL = 5, 0;
    /// 5.01.
    NOT_IMPLEMENTED = 5, 1;
    /// 5.03: come back after Max-Age.
    SERVICE_UNAVAILABLE = 5, 3;
    /// 5.05.
    PROXYING_NOT_SUPPORTED = 5, 5;
    /// 7.01: Capabilities and Settings (RFC 8323 5.3).
    CSM = 7, 1;
    /// 7.02 (RFC 8323 5.4).
    PING = 7, 2;
    /// 7.03 (RFC 8323 5.4).
    PONG = 7, 3;
    /// 7.04 (RFC 8323 5.5).
    RELEASE = 7, 4;
    /// 7.05 (RFC 8323 5.6).
    ABORT = 7, 5;
}

/// What the class of a code makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Empty,
    Request,
    Response,
    Signal,
    Reserved,
}

impl Code {
    /// The code `class.detail`; what does not fit into three and five bits is cut off.
    #[must_use]
    pub const fn new(class: u8, detail: u8) -> Self {
        Self(((class & 0x07) << 5) | (detail & 0x1f))
    }

    /// The code of that octet.
    #[must_use]
    pub const fn from_octet(octet: u8) -> Self {
        Self(octet)
    }

    /// The octet that goes over the wire.
    #[must_use]
    pub const fn octet(self) -> u8 {
        self.0
    }

    /// Class, 0 to 7.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// Detail, 0 to 31.
    #[must_use]
    pub const fn detail(self) -> u8 {
        self.0 & 0x1f
    }

    /// Whether it is a response that says yes: class 2.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.class() == 2
    }

    pub(crate) const fn kind(self) -> Kind {
        match self.0 {
            0 => Kind::Empty,
            0x01..=0x1f => Kind::Request,
            0x40..=0x5f | 0x80..=0xbf => Kind::Response,
            0xe0..=0xff => Kind::Signal,
            _ => Kind::Reserved,
        }
    }
}

impl fmt::Display for Code {
    /// `4.04`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.detail())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}

#[cfg(test)]
mod tests {
    use coap_lite::{MessageClass, RequestType, ResponseType};

    use super::*;

    #[test]
    fn codes_are_those_of_coap_lite() {
        for (ours, theirs) in [
            (Code::GET, MessageClass::Request(RequestType::Get)),
            (Code::POST, MessageClass::Request(RequestType::Post)),
            (Code::PUT, MessageClass::Request(RequestType::Put)),
            (Code::DELETE, MessageClass::Request(RequestType::Delete)),
            (Code::FETCH, MessageClass::Request(RequestType::Fetch)),
            (Code::PATCH, MessageClass::Request(RequestType::Patch)),
            (Code::IPATCH, MessageClass::Request(RequestType::IPatch)),
            (Code::CREATED, MessageClass::Response(ResponseType::Created)),
            (Code::DELETED, MessageClass::Response(ResponseType::Deleted)),
            (Code::VALID, MessageClass::Response(ResponseType::Valid)),
            (Code::CHANGED, MessageClass::Response(ResponseType::Changed)),
            (Code::CONTENT, MessageClass::Response(ResponseType::Content)),
            (Code::CONTINUE, MessageClass::Response(ResponseType::Continue)),
            (Code::REQUEST_ENTITY_INCOMPLETE, MessageClass::Response(ResponseType::RequestEntityIncomplete)),
            (Code::BAD_REQUEST, MessageClass::Response(ResponseType::BadRequest)),
            (Code::UNAUTHORIZED, MessageClass::Response(ResponseType::Unauthorized)),
            (Code::BAD_OPTION, MessageClass::Response(ResponseType::BadOption)),
            (Code::FORBIDDEN, MessageClass::Response(ResponseType::Forbidden)),
            (Code::NOT_FOUND, MessageClass::Response(ResponseType::NotFound)),
            (Code::METHOD_NOT_ALLOWED, MessageClass::Response(ResponseType::MethodNotAllowed)),
            (Code::NOT_ACCEPTABLE, MessageClass::Response(ResponseType::NotAcceptable)),
            (Code::CONFLICT, MessageClass::Response(ResponseType::Conflict)),
            (Code::REQUEST_ENTITY_TOO_LARGE, MessageClass::Response(ResponseType::RequestEntityTooLarge)),
            (Code::UNSUPPORTED_CONTENT_FORMAT, MessageClass::Response(ResponseType::UnsupportedContentFormat)),
            (Code::TOO_MANY_REQUESTS, MessageClass::Response(ResponseType::TooManyRequests)),
            (Code::INTERNAL, MessageClass::Response(ResponseType::InternalServerError)),
            (Code::NOT_IMPLEMENTED, MessageClass::Response(ResponseType::NotImplemented)),
            (Code::SERVICE_UNAVAILABLE, MessageClass::Response(ResponseType::ServiceUnavailable)),
            (Code::PROXYING_NOT_SUPPORTED, MessageClass::Response(ResponseType::ProxyingNotSupported)),
        ] {
            assert_eq!(ours.octet(), u8::from(theirs), "{ours}");
            assert_eq!(ours.to_string(), theirs.to_string());
        }
    }

    #[test]
    fn every_octet_is_of_exactly_one_kind_and_classes_1_3_6_are_reserved() {
        for octet in 0..=255 {
            let code = Code::from_octet(octet);
            assert_eq!(code.octet(), octet);
            assert_eq!(Code::new(code.class(), code.detail()), code);
            assert_eq!(code.kind() == Kind::Reserved, matches!(code.class(), 1 | 3 | 6), "{code}");
        }
    }
}
