//! Every limit on what is read, in one place.

/// Limits on one message read from a peer. What is over a limit is refused before memory is taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Octets of the whole message as it arrived. Over it: [`crate::DecodeError::MessageTooLarge`].
    pub message_octets_max: usize,
    /// Octets of payload after base64, of one message or segment (TS 23.554 8.5.1: 2048 unless configured). Over it:
    /// [`crate::DecodeError::PayloadTooLarge`].
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
