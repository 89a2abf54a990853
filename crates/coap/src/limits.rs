//! Every limit of a connection, in one place.

use std::time::Duration;

/// What a peer is known to take before its CSM says more (RFC 8323 5.3.1), in octets of a whole message.
pub const BASE_MESSAGE_SIZE: u32 = 1_152;

/// Longest token (RFC 7252 3; the extension of RFC 8974 is not offered), in octets.
pub const TOKEN_OCTETS_MAX: usize = 8;

/// Max-Age of the 4.29 that answers a request over `peer_requests_outstanding_max`, in seconds.
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

/// How datagrams to and from one peer behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramConfig {
    /// The largest payload that is taken, in octets, blocks put together. A request with more is answered 4.13, a response
    /// with more is [`crate::Failure::TooLarge`].
    pub max_message_size_own: u32,
    /// The largest payload that is sent, in octets, blocks put together. More:
    /// [`crate::ConnectionError::MessageTooLargeForPeer`].
    pub max_message_size_peer: u32,
    /// When what is sent again.
    pub transmission: Transmission,
    /// Limits on what is kept.
    pub limits: DatagramLimits,
}

impl Default for DatagramConfig {
    fn default() -> Self {
        Self {
            max_message_size_own: 66_560,
            max_message_size_peer: 66_560,
            transmission: Transmission::default(),
            limits: DatagramLimits::default(),
        }
    }
}

/// The transmission parameters of RFC 7252 4.8, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmission {
    /// ACK_TIMEOUT: how long the first acknowledgement may take, at least. Each further one may take twice as long.
    pub ack_timeout: Duration,
    /// ACK_RANDOM_FACTOR, in hundredths: by how much the first time-out is stretched at random, at most.
    pub ack_random_percent: u32,
    /// MAX_RETRANSMIT: how often a confirmable message is sent again.
    pub max_retransmit: u8,
    /// NSTART: interactions with the peer that are under way at once (RFC 7252 4.7). Further requests and confirmable
    /// responses wait for their turn. 0 counts as 1.
    pub nstart: usize,
    /// PROBING_RATE, in octets a second: how fast messages that ask for no acknowledgement go to a peer from which nothing
    /// comes. 0 counts as 1.
    pub probing_octets_per_second: u32,
    /// MAX_LATENCY: how long a datagram may be on its way.
    pub max_latency: Duration,
    /// How long a confirmable request waits for its response to go along with the acknowledgement. Then an empty
    /// acknowledgement goes first (RFC 7252 5.2.2). Less than the peer's ACK_TIMEOUT.
    pub piggyback_wait: Duration,
}

impl Default for Transmission {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(2),
            ack_random_percent: 150,
            max_retransmit: 4,
            nstart: 1,
            probing_octets_per_second: 1,
            max_latency: Duration::from_secs(100),
            piggyback_wait: Duration::from_millis(500),
        }
    }
}

impl Transmission {
    /// ACK_RANDOM_FACTOR.
    pub(crate) fn ack_random_factor(&self) -> f64 {
        f64::from(self.ack_random_percent.max(100)) / 100.0
    }

    /// ACK_TIMEOUT times `2^doublings - 1`, stretched as far as it can be at random.
    fn backed_off(&self, doublings: u32) -> Duration {
        let factor = 2_u32.checked_pow(doublings).map_or(u32::MAX, |power| power - 1);
        self.ack_timeout.saturating_mul(factor).saturating_mul(self.ack_random_percent.max(100)) / 100
    }

    /// MAX_TRANSMIT_SPAN: from the first transmission of a confirmable message to its last.
    #[must_use]
    pub fn max_transmit_span(&self) -> Duration {
        self.backed_off(self.max_retransmit.into())
    }

    /// MAX_TRANSMIT_WAIT: from the first transmission of a confirmable message to the end of waiting for its
    /// acknowledgement.
    #[must_use]
    pub fn max_transmit_wait(&self) -> Duration {
        self.backed_off(u32::from(self.max_retransmit) + 1)
    }

    /// EXCHANGE_LIFETIME: how long the Message ID of a confirmable message names that message alone.
    #[must_use]
    pub fn exchange_lifetime(&self) -> Duration {
        self.max_transmit_span() + self.max_latency * 2 + self.ack_timeout
    }

    /// NON_LIFETIME: how long the Message ID of a non-confirmable message names that message alone.
    #[must_use]
    pub fn non_lifetime(&self) -> Duration {
        self.max_transmit_span() + self.max_latency
    }
}

/// Limits of what is kept for one peer of a [`crate::DatagramConnection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramLimits {
    /// Requests of ours without an answer, those included that wait for their turn. Over it:
    /// [`crate::ConnectionError::TooManyRequests`] from [`crate::DatagramConnection::request`].
    pub requests_outstanding_max: usize,
    /// Requests of the peer that have not been answered, and those whose response is confirmable and has not been
    /// acknowledged or given up. Over it: 4.29 with a Max-Age of [`TOO_MANY_REQUESTS_MAX_AGE_SECONDS`], and the request is
    /// not handed on.
    pub peer_requests_outstanding_max: usize,
    /// Octets of the peer's requests that are held: those in blocks and incomplete, and those handed over that have not been
    /// answered, each with its payload and what it is told apart by. Over it, of those incomplete the one that has waited
    /// longest is thrown away; if that does not help, the request or block is answered 4.29 as above. A request is taken
    /// if there is nothing besides.
    pub requests_octets_max: usize,
    /// Octets that wait for [`crate::DatagramConnection::poll_transmit`]. Over it: requests and notifications get
    /// [`crate::ConnectionError::TransmitFull`]; what else would be sent is dropped, as a network drops it, and sent
    /// again when its time has come.
    pub transmit_octets_max: usize,
    /// Options of one message. Over it: 4.00 to a request, [`crate::ConnectionEvent::Failed`] for a response.
    pub options_max: usize,
    /// Pings of ours that have been neither answered nor given up. Over it: [`crate::ConnectionError::TooManyPings`].
    pub pings_outstanding_max: usize,
    /// Observations of ours. Over it: the answer is handed over as if the peer had not granted one, and what comes later
    /// is rejected with a Reset.
    pub observations_max: usize,
    /// Observations of the peer. Over it: its request is answered without Observe, as any GET. 0 serves none.
    pub peer_observations_max: usize,
    /// Message IDs of the peer that are remembered so that nothing is taken twice. Over it the oldest is forgotten before
    /// its time: a copy of that message that comes still later is taken for a new one.
    pub message_ids_max: usize,
    /// Octets of answers remembered to be repeated. Over it the oldest is forgotten: a copy of its request gets no further
    /// answer, and is not handed on either.
    pub answers_octets_max: usize,
    /// The largest datagram that is sent, in octets without what protects it (RFC 7252 4.6). A larger message goes in
    /// blocks.
    pub datagram_octets_max: usize,
    /// The largest block that is sent, in octets: 16 to 1024, a power of 2; what lies between counts as the next below. A
    /// peer that wants smaller ones gets them.
    pub block_octets_max: u16,
    /// Requests of the peer that come in blocks and are not complete. Over it the one that has waited longest is thrown
    /// away, and its next block is answered 4.08. Each is of at most [`DatagramConfig::max_message_size_own`] octets, and
    /// is thrown away when its next block does not come within EXCHANGE_LIFETIME.
    pub assemblies_max: usize,
    /// Responses to the peer that are larger than a block and have not been fetched to the end. Over it the oldest is thrown
    /// away: its next block is answered 4.08, or comes out of a new response if the request was a GET or FETCH. Each is
    /// kept for EXCHANGE_LIFETIME after its last block was asked for.
    pub responses_kept_max: usize,
    /// Responses held back until the peer's address is proven (RFC 9175 2.4). Over it the oldest is thrown away, and its
    /// request is handed on once more if the peer repeats it.
    pub responses_held_max: usize,
    /// Octets of the responses kept, and as many of those held back, each with what its request is told apart by. Over it
    /// the oldest is thrown away, as above, but never the only one.
    pub responses_octets_max: usize,
    /// Responses that ask for no acknowledgement and for which no Message ID is free: the peer asked for more than 65,536
    /// in an EXCHANGE_LIFETIME. Over it a response is dropped, as a network drops it. 0 counts as 1.
    pub responses_waiting_max: usize,
}

impl Default for DatagramLimits {
    fn default() -> Self {
        Self {
            requests_outstanding_max: 256,
            peer_requests_outstanding_max: 256,
            // Four of the largest.
            requests_octets_max: 266_240,
            transmit_octets_max: 262_144,
            options_max: 32,
            pings_outstanding_max: 4,
            observations_max: 4,
            peer_observations_max: 0,
            message_ids_max: 4_096,
            answers_octets_max: 65_536,
            datagram_octets_max: 1_152,
            block_octets_max: 1_024,
            assemblies_max: 4,
            responses_kept_max: 4,
            responses_held_max: 4,
            // Two of the largest.
            responses_octets_max: 133_120,
            responses_waiting_max: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7252 4.8.2: table 3.
    #[test]
    fn the_times_that_follow_from_the_defaults_are_those_of_rfc_7252() {
        let transmission = Transmission::default();
        assert_eq!(transmission.max_transmit_span(), Duration::from_secs(45));
        assert_eq!(transmission.max_transmit_wait(), Duration::from_secs(93));
        assert_eq!(transmission.exchange_lifetime(), Duration::from_secs(247));
        assert_eq!(transmission.non_lifetime(), Duration::from_secs(145));
    }
}
