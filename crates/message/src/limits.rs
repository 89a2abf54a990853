//! Every limit on what is read and made, in one place.

/// Most individual messages in one aggregated message (TS 23.554 8.4), and most individual responses in its answer.
pub const INDIVIDUAL_MESSAGES_MAX: usize = 64;

/// Most individual reports in one aggregated delivery status report.
pub const INDIVIDUAL_REPORTS_MAX: usize = 512;

/// Most segments that one message is cut into, or put together from (TS 23.554 8.5).
pub const SEGMENTS_MAX: u32 = 1_024;

/// Most segment numbers in one segments recovery (TS 24.538 7.1 `SEGREC`).
pub const MISSING_SEGMENTS_MAX: usize = SEGMENTS_MAX as usize;

/// Most Messaging Topics in one subscription or unsubscription (TS 23.554 8.8).
pub const TOPICS_PER_REQUEST_MAX: usize = 64;

/// Most Messaging Topics in one topic list notification (TS 29.538 TopicListNotification).
pub const TOPICS_PER_NOTIFICATION_MAX: usize = 256;

/// Most ports in Client Triggering Information (TS 23.554 table 8.2.1-2).
pub const TRIGGERING_PORTS_MAX: usize = 16;

/// Longest protocol name in Client Triggering Information, in octets.
pub const TRIGGERING_PROTOCOL_OCTETS_MAX: usize = 32;

/// Longest UE identifier in Client Triggering Information, in octets.
pub const UE_IDENTIFIER_OCTETS_MAX: usize = 255;

/// Limits on one message read from a peer. What is over a limit is refused before memory is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Octets of the whole message as it arrived. Over it: [`crate::DecodeError::MessageTooLarge`].
    pub message_octets_max: usize,
    /// Octets of payload after base64, of one message or segment (TS 23.554 8.5.1: 2048 unless configured), and of all
    /// individual messages of an aggregated one together (8.4.2). Over it: [`crate::DecodeError::PayloadTooLarge`].
    pub payload_octets_max: usize,
    /// Objects and arrays inside one another, the message itself included. Over it:
    /// [`crate::DecodeError::NestedTooDeeply`]. At most [`DecodeLimits::DEPTH_MAX`] counts.
    pub depth_max: usize,
    /// Segments of one message; no segment number or total may be greater. Over it: [`crate::DecodeError::Invalid`].
    pub segments_max: u32,
}

impl DecodeLimits {
    /// The deepest nesting that can be configured: skipping what is unknown uses the stack.
    pub const DEPTH_MAX: usize = 64;
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { message_octets_max: 65_536, payload_octets_max: 2_048, depth_max: 8, segments_max: 65_535 }
    }
}
