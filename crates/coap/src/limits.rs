//! Every limit of a connection, in one place.

/// What a peer is known to take before its CSM says more (RFC 8323 5.3.1), in octets of a whole message.
pub const BASE_MESSAGE_SIZE: u32 = 1_152;

/// Longest token (RFC 7252 3; the extension of RFC 8974 is not offered), in octets.
pub const TOKEN_OCTETS_MAX: usize = 8;

/// Max-Age of the 4.29 that answers a request over [`StreamLimits::peer_requests_outstanding_max`], in seconds.
pub const TOO_MANY_REQUESTS_MAX_AGE_SECONDS: u32 = 1;

/// Longest diagnostic text that is taken from a peer's Abort, in octets; the rest is cut off.
pub const DIAGNOSTIC_OCTETS_MAX: usize = 256;

/// How a connection behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// The largest message that is taken, in octets from the first of the header to the last of the payload; told to the
    /// peer in the CSM. A larger one ends the connection with an Abort. Values below [`BASE_MESSAGE_SIZE`] count as that,
    /// because the peer may send so much before it has read the CSM.
    pub max_message_size_own: u32,
    /// Limits on what is kept.
    pub limits: StreamLimits,
}

impl Default for StreamConfig {
    fn default() -> Self {
        // A message of 64 KiB with its header and options.
        Self { max_message_size_own: 66_560, limits: StreamLimits::default() }
    }
}

/// Limits of one connection. Besides what these count, a connection keeps one unfinished message, never more than
/// twice what has arrived of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Requests of ours without an answer. Over it: [`crate::StreamError::TooManyRequests`] from
    /// [`crate::StreamConnection::request`].
    pub requests_outstanding_max: usize,
    /// Requests of the peer that have not been answered. Over it: 4.29 with a Max-Age of
    /// [`TOO_MANY_REQUESTS_MAX_AGE_SECONDS`], and the request is not handed on.
    pub peer_requests_outstanding_max: usize,
    /// Octets that wait for [`crate::StreamConnection::poll_transmit`]. Over it: requests and responses get
    /// [`crate::StreamError::TransmitFull`]; if it is reached by what is answered by itself (a peer that sends Pings and
    /// reads nothing), the connection ends with [`crate::StreamError::PeerNotReading`].
    pub transmit_octets_max: usize,
    /// Options of one message. Over it: 4.00 to a request, [`crate::StreamEvent::Failed`] for a response, an Abort for a
    /// signal.
    pub options_max: usize,
    /// Pings of ours without a Pong. Over it: [`crate::StreamError::TooManyPings`].
    pub pings_outstanding_max: usize,
    /// Pings of the peer with a Custody option that wait for what came before them. Over it: a Pong at once, without
    /// Custody.
    pub peer_pings_delayed_max: usize,
    /// Observations of ours. Over it: the answer is handed over as if the peer had not granted one, and what comes later
    /// is ignored.
    pub observations_max: usize,
    /// Observations of the peer. Over it: its request is answered without Observe, as any GET. 0 serves none.
    pub peer_observations_max: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            requests_outstanding_max: 256,
            peer_requests_outstanding_max: 256,
            transmit_octets_max: 262_144,
            options_max: 32,
            pings_outstanding_max: 4,
            peer_pings_delayed_max: 4,
            observations_max: 4,
            peer_observations_max: 0,
        }
    }
}
