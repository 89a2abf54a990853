//! Why something was refused or failed: every cause string this system sends, in one place.

// RFC 7252 writes the detail of a code with two digits; the table below does too.
#![allow(clippy::zero_prefixed_literal)]

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::UnknownFailureCause;

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, coap $class:literal $detail:literal, http $http:literal;)+) => {
        /// Failure cause of TS 23.554 (tables 8.2.1-4, 8.3.2-3, 8.3.4-1). The standards give no values; these are ours:
        /// on MSGin5G-1 in `failureCause`, on MSGin5G-3 in `failureCause` or in `cause` of ProblemDetails.
        ///
        /// Each says when it is sent and by whom. [`FailureCause::coap_code`] and [`FailureCause::http_status`] give
        /// the status it travels with; 2.04 and 200 mean that the request was understood and that its answer
        /// (MSGRESP, MessageDeliveryAck) carries `DELY_FAILED` beside the cause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum FailureCause {
            $(
                $(#[$doc])*
                ///
                #[doc = concat!("CoAP ", $class, ".", stringify!($detail), ", HTTP ", $http, ".")]
                $variant,
            )+
        }

        impl FailureCause {
            /// Every cause there is.
            pub const ALL: &'static [FailureCause] = &[$(FailureCause::$variant,)+];

            /// The cause as it goes over the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The CoAP response code it travels with, as the octet of RFC 7252 12.1.2: class in the upper three
            /// bits, detail in the lower five.
            #[must_use]
            pub const fn coap_code(self) -> u8 {
                match self {
                    $(Self::$variant => ($class << 5) | $detail,)+
                }
            }

            /// The HTTP status it travels with.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self {
                    $(Self::$variant => $http,)+
                }
            }
        }

        impl FromStr for FailureCause {
            type Err = UnknownFailureCause;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownFailureCause),
                }
            }
        }
    };
}

causes! {
    /// The receiver could not read the request: not JSON, a member missing, repeated, of the wrong type or out of its
    /// range. Sent by server and client.
    Malformed = "MALFORMED", coap 4 00, http 400;
    /// The message type exists but is not served here, or not in this direction (a client that gets `REG`). Sent by
    /// server and client.
    MessageTypeNotSupported = "MESSAGE_TYPE_NOT_SUPPORTED", coap 4 00, http 400;
    /// The same originator used the same Message ID for another content while the first was remembered. Sent by the
    /// server.
    MessageIdReused = "MESSAGE_ID_REUSED", coap 4 00, http 400;
    /// A message, report or de-registration came before a registration on this connection, or from an AS that has none.
    /// Sent by the server. On HTTP 403, because 401 would announce a challenge (RFC 9110 15.5.2) that there is not.
    NotRegistered = "NOT_REGISTERED", coap 4 01, http 403;
    /// The key that the connection was proven with is past its lifetime (TS 33.535 5.2): authenticate again. Sent by the
    /// server.
    AuthenticationExpired = "AUTHENTICATION_EXPIRED", coap 4 01, http 401;
    /// The originating service identity is not the one registered on this connection, or not the one that the AS's
    /// certificate is for. Sent by the server.
    OriginatorNotAllowed = "ORIGINATOR_NOT_ALLOWED", coap 4 03, http 403;
    /// The proven UE ID is not associated with the UE Service ID it wants to register (TS 33.501 Y.2). Sent by the
    /// server.
    NotAssociated = "NOT_ASSOCIATED", coap 4 03, http 403;
    /// The originator may not publish to this Messaging Topic, or the subscriber not subscribe to it (TS 23.554 8.8): the
    /// topic's policy says so, or no policy names the topic. Sent by the server.
    TopicNotAllowed = "TOPIC_NOT_ALLOWED", coap 4 03, http 403;
    /// The originator may not send to this group (TS 23.554 8.7.4). Sent by the server.
    GroupNotAllowed = "GROUP_NOT_ALLOWED", coap 4 03, http 403;
    /// The originator may not send to this broadcast area. Sent by the server.
    BroadcastNotAllowed = "BROADCAST_NOT_ALLOWED", coap 4 03, http 403;
    /// An application that the client does not know, that has not proven to be it, or that may not name this Application
    /// ID (TS 23.554 8.11). Sent by the client, on MSGin5G-5.
    ApplicationNotAllowed = "APPLICATION_NOT_ALLOWED", coap 4 03, http 403;
    /// The application may not send to this destination. Sent by the client, on MSGin5G-5.
    DestinationNotAllowed = "DESTINATION_NOT_ALLOWED", coap 4 03, http 403;
    /// The application may not send with this priority. Sent by the client, on MSGin5G-5.
    PriorityNotAllowed = "PRIORITY_NOT_ALLOWED", coap 4 03, http 403;
    /// Nobody is known by the destination's identity. Sent by the server.
    UnknownTarget = "UNKNOWN_TARGET", coap 4 04, http 404;
    /// Destinations of this address type (group, broadcast area, topic, a later release's) are not served here. Sent by
    /// the server.
    TargetTypeNotSupported = "TARGET_TYPE_NOT_SUPPORTED", coap 4 04, http 404;
    /// An update or a discard named a message that is not stored: delivered, expired, or never there (TS 23.554
    /// 8.3.6.1). Sent by the server.
    MessageNotStored = "MESSAGE_NOT_STORED", coap 4 04, http 404;
    /// The payload, or the whole message, is larger than the receiver's limit. Sent by server and client.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", coap 4 13, http 413;
    /// The body is not JSON by its Content-Format or Content-Type. Sent by server and client.
    ContentFormatNotSupported = "CONTENT_FORMAT_NOT_SUPPORTED", coap 4 15, http 415;
    /// This sender has reached a limit of its own (requests in flight, messages a second, messages kept for one
    /// recipient). Sent by the server.
    TooMany = "TOO_MANY", coap 4 29, http 429;
    /// This originator sends more messages a second than it may: come back after Max-Age or Retry-After. Sent by the
    /// server.
    RateExceeded = "RATE_EXCEEDED", coap 4 29, http 429;
    /// Something failed inside the receiver that is nobody's request's fault. Sent by server and client.
    Internal = "INTERNAL", coap 5 00, http 500;
    /// The receiver as a whole has reached a limit: come back after Max-Age or Retry-After. Sent by server and client.
    Overloaded = "OVERLOADED", coap 5 03, http 503;
    /// The MSGin5G Configuration Function did not say in time whether UE ID and UE Service ID belong together, so the
    /// registration is refused. Sent by the server.
    AssociationUnknown = "ASSOCIATION_UNKNOWN", coap 5 03, http 503;
    /// The message could not be put on disk, so nothing was promised. Sent by the server.
    StorageFailed = "STORAGE_FAILED", coap 5 03, http 503;
    /// The Application Server that validates messages to this group gave no answer, so the message was not sent on (TS
    /// 23.554 8.7.4). Sent by the server.
    ValidationUnavailable = "VALIDATION_UNAVAILABLE", coap 5 03, http 503;
    /// Group management gave no answer, so that nobody knows who the members are. Sent by the server.
    MembersUnavailable = "MEMBERS_UNAVAILABLE", coap 5 03, http 503;
    /// There is no room to put segments together: of this originator, or of all (TS 23.554 8.5). The segment was not
    /// taken; those taken before it are kept. Sent by server and client.
    ReassemblyFull = "REASSEMBLY_FULL", coap 5 03, http 503;
    /// The receiver is shutting down and takes nothing new. Sent by server and client.
    Stopping = "STOPPING", coap 5 03, http 503;
    /// The server gave no answer in time: it may or may not have the message. The same one again, under the same Message
    /// ID, is safe. Sent by the client, on MSGin5G-5.
    NoAnswer = "NO_ANSWER", coap 5 04, http 504;
    /// The recipient is known but away, and the message was not to be stored. Sent by the server.
    TargetUnreachable = "TARGET_UNREACHABLE", coap 2 04, http 200;
    /// The recipient's client or AS was reached and refused the message for good. Sent by the server.
    TargetRefused = "TARGET_REFUSED", coap 2 04, http 200;
    /// The Application Server that validates messages to this group refused this one (TS 23.554 8.7.4). Sent by the
    /// server.
    RejectedByAs = "REJECTED_BY_AS", coap 2 04, http 200;
    /// The message could not be delivered within the latency that its originator asked for, and was not to be stored.
    /// Sent by the server.
    LatencyExceeded = "LATENCY_EXCEEDED", coap 2 04, http 200;
    /// Segments of the message stayed away, also when they were asked for again (TS 23.554 8.5). Sent by server and
    /// client, in a delivery status report.
    SegmentsMissing = "SEGMENTS_MISSING", coap 2 04, http 200;
    /// The originator had the stored message discarded (TS 23.554 8.3.6.1). Sent by the server.
    Discarded = "DISCARDED", coap 2 04, http 200;
    /// The message's expiration time passed before it could be delivered. Sent by the server: in the answer if it had
    /// passed on arrival, in a delivery status report if it passed while stored.
    Expired = "EXPIRED", coap 2 04, http 200;
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<FailureCause> for String {
    fn from(cause: FailureCause) -> Self {
        cause.as_str().to_owned()
    }
}

impl Serialize for FailureCause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_reads_back_from_its_text_and_no_two_share_one() {
        let mut seen = BTreeSet::new();
        for cause in FailureCause::ALL {
            assert_eq!(cause.as_str().parse(), Ok(*cause));
            assert!(seen.insert(cause.as_str()), "{cause} twice");
            assert!(cause.as_str().bytes().all(|octet| octet.is_ascii_uppercase() || octet == b'_'));
        }
        assert_eq!("malformed".parse::<FailureCause>(), Err(UnknownFailureCause));
    }

    #[test]
    fn coap_codes_are_those_of_the_interface() {
        assert_eq!(FailureCause::Malformed.coap_code(), 0x80);
        assert_eq!(FailureCause::NotRegistered.coap_code(), 0x81);
        assert_eq!(FailureCause::OriginatorNotAllowed.coap_code(), 0x83);
        assert_eq!(FailureCause::UnknownTarget.coap_code(), 0x84);
        assert_eq!(FailureCause::PayloadTooLarge.coap_code(), 0x8d);
        assert_eq!(FailureCause::TooMany.coap_code(), 0x9d);
        assert_eq!(FailureCause::Overloaded.coap_code(), 0xa3);
        assert_eq!(FailureCause::TargetUnreachable.coap_code(), 0x44);
    }
}
