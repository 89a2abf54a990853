//! Every limit of the client in one place: what it bounds, its default, and what happens when it is hit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits and times of a client; the `[limits]` section of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// Messages handed to [`Client::send`](crate::Client::send) and not yet taken up. Past it `send` waits for room.
    pub send_queue_max: usize,
    /// Messages sent and not yet answered by the server. Past it the next ones stay in the queue.
    pub unanswered_max: usize,
    /// Delivery status reports sent and not yet answered by the server, beside the messages. Past it the next ones wait.
    pub reports_unanswered_max: usize,
    /// Delivery status reports that the server has not taken. Past it the oldest is given up: whoever sent the message it
    /// is about may have made it undeliverable, and must not hold up what others send.
    pub reports_owed_max: usize,
    /// Messages and reports handed to the application and not yet accepted. Past it the server is told to wait
    /// (5.03 with Max-Age).
    pub unaccepted_max: usize,
    /// For how long the server is told to wait (Max-Age) when the application does not take something, and for how long
    /// nothing that follows is taken either, so that it does not overtake.
    pub come_back_seconds: u32,
    /// Hand-overs remembered, so that a message that comes again is not handed over again. The oldest is forgotten
    /// first, but of each originator and priority the latest 256 only if there is no other.
    pub remembered_max: usize,
    /// Octets of one message as JSON, and the CoAP Max-Message-Size announced. A longer one ends the connection.
    pub message_octets_max: usize,
    /// Octets of payload of one message or segment, and of all messages of an aggregate together. A longer one is refused
    /// with 4.13 when received, and sent as segments (TS 23.554 clause 8.5).
    pub payload_octets_max: usize,
    /// Octets of payload of one whole message, however it is sent. A longer one is not sent; its segments are refused with
    /// 4.13 when received.
    pub message_payload_octets_max: usize,
    /// Segments sent and not yet answered by the server, of all messages together. Past it the next ones wait, and what
    /// follows for the same recipient behind them.
    pub segments_unanswered_max: usize,
    /// Segmented messages that were stored and are kept for a recipient who may miss segments. Past it the oldest is
    /// forgotten: what its recipient then misses is lost, and reported as failed.
    pub segmented_kept_max: usize,
    /// For how long such a message is kept. Then it is forgotten.
    pub segmented_kept_milliseconds: u64,
    /// How often the segments that a recipient misses are sent again, for one message. Past it the recipient is refused
    /// with 4.04.
    pub segment_resends_max: u32,
    /// Messages of which some segments are here and others not. Past it segments of others are refused with 5.03.
    pub reassembly_sets_max: usize,
    /// The same, for one sender.
    pub reassembly_sets_per_peer_max: usize,
    /// Octets held of all incomplete messages: payload, 64 more for each segment and 1024 for each message. Past it
    /// segments are refused with 5.03.
    pub reassembly_octets_max: usize,
    /// The same, for one sender.
    pub reassembly_octets_per_peer_max: usize,
    /// For the next segment of an incomplete message, while registered. Then its sender is asked for those missing
    /// (SEGREC).
    pub segment_wait_milliseconds: u64,
    /// How often it is asked. Then the message is given up, and reported as failed if its sender wanted a report.
    pub segment_recoveries_max: u32,
    /// From the first segment of a message to the last, while registered. Then the message is given up, as above.
    pub reassembly_milliseconds_max: u64,
    /// Topics subscribed to and kept subscribed. Past it a subscription is not made.
    pub subscribed_topics_max: usize,
    /// Octets waiting to be written. Past it no message and no report is sent until the server has taken some, and an
    /// acknowledgement that finds no room is not sent: the server delivers again. Reading goes on, as a server may take
    /// nothing before it is read from.
    pub outbound_octets_max: usize,
    /// From opening the TCP connection to the end of the TLS handshake. Then the attempt counts as failed.
    pub connect_timeout_milliseconds: u64,
    /// For the answer to a registration or de-registration. Then the connection is given up.
    pub registration_timeout_milliseconds: u64,
    /// For the answer to one message, reconnections included. Then `send` returns
    /// [`ClientError::NoAnswer`](crate::ClientError::NoAnswer).
    pub send_timeout_milliseconds: u64,
    /// Silence after which the server is pinged (RFC 8323 section 5.4).
    pub keep_alive_milliseconds: u64,
    /// For the answer to that ping. Then the connection is given up and made anew.
    pub pong_timeout_milliseconds: u64,
    /// Longest first pause before reconnecting; doubled at each failure, drawn with full jitter.
    pub backoff_first_milliseconds: u64,
    /// Longest pause before reconnecting.
    pub backoff_max_milliseconds: u64,
    /// A connection that lived this long was a good one: the next pause is a first one again.
    pub stable_after_milliseconds: u64,
    /// Shortest time between two primary authentications that the client itself asks for, so that a server that
    /// refuses every key does not turn its clients against the home network.
    pub authentication_interval_milliseconds: u64,
    /// For the key source to yield keys. Then the attempt counts as failed.
    pub authentication_timeout_milliseconds: u64,
    /// For what is under way when the client is closed. Then the connection is closed regardless.
    pub close_timeout_milliseconds: u64,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            send_queue_max: 64,
            unanswered_max: 32,
            reports_unanswered_max: 16,
            reports_owed_max: 1024,
            unaccepted_max: 64,
            come_back_seconds: 5,
            remembered_max: 10_000,
            message_octets_max: 65_536,
            payload_octets_max: 2_048,
            message_payload_octets_max: 65_536,
            segments_unanswered_max: 16,
            segmented_kept_max: 16,
            segmented_kept_milliseconds: 600_000,
            segment_resends_max: 8,
            reassembly_sets_max: 64,
            reassembly_sets_per_peer_max: 16,
            reassembly_octets_max: 1_048_576,
            reassembly_octets_per_peer_max: 262_144,
            segment_wait_milliseconds: 30_000,
            segment_recoveries_max: 3,
            reassembly_milliseconds_max: 600_000,
            subscribed_topics_max: 256,
            outbound_octets_max: 262_144,
            connect_timeout_milliseconds: 15_000,
            registration_timeout_milliseconds: 15_000,
            send_timeout_milliseconds: 60_000,
            keep_alive_milliseconds: 300_000,
            pong_timeout_milliseconds: 20_000,
            backoff_first_milliseconds: 500,
            backoff_max_milliseconds: 60_000,
            stable_after_milliseconds: 10_000,
            authentication_interval_milliseconds: 10_000,
            authentication_timeout_milliseconds: 30_000,
            close_timeout_milliseconds: 5_000,
        }
    }
}

impl ClientLimits {
    /// The name of the first member that is zero and must not be, if any.
    #[must_use]
    pub fn zero_member(&self) -> Option<&'static str> {
        let members: [(&'static str, u64); 25] = [
            ("send_queue_max", self.send_queue_max as u64),
            ("unanswered_max", self.unanswered_max as u64),
            ("reports_unanswered_max", self.reports_unanswered_max as u64),
            ("reports_owed_max", self.reports_owed_max as u64),
            ("unaccepted_max", self.unaccepted_max as u64),
            ("come_back_seconds", self.come_back_seconds.into()),
            ("remembered_max", self.remembered_max as u64),
            ("message_octets_max", self.message_octets_max as u64),
            ("payload_octets_max", self.payload_octets_max as u64),
            ("message_payload_octets_max", self.message_payload_octets_max as u64),
            ("segments_unanswered_max", self.segments_unanswered_max as u64),
            ("reassembly_sets_max", self.reassembly_sets_max as u64),
            ("reassembly_sets_per_peer_max", self.reassembly_sets_per_peer_max as u64),
            ("reassembly_octets_max", self.reassembly_octets_max as u64),
            ("reassembly_octets_per_peer_max", self.reassembly_octets_per_peer_max as u64),
            ("segment_wait_milliseconds", self.segment_wait_milliseconds),
            ("reassembly_milliseconds_max", self.reassembly_milliseconds_max),
            ("subscribed_topics_max", self.subscribed_topics_max as u64),
            ("outbound_octets_max", self.outbound_octets_max as u64),
            ("connect_timeout_milliseconds", self.connect_timeout_milliseconds),
            ("registration_timeout_milliseconds", self.registration_timeout_milliseconds),
            ("send_timeout_milliseconds", self.send_timeout_milliseconds),
            ("keep_alive_milliseconds", self.keep_alive_milliseconds),
            ("pong_timeout_milliseconds", self.pong_timeout_milliseconds),
            ("authentication_timeout_milliseconds", self.authentication_timeout_milliseconds),
        ];
        members.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name)
    }

    pub(crate) fn come_back(&self) -> Duration {
        Duration::from_secs(self.come_back_seconds.into())
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_milliseconds)
    }

    pub(crate) fn registration_timeout(&self) -> Duration {
        Duration::from_millis(self.registration_timeout_milliseconds)
    }

    pub(crate) fn send_timeout(&self) -> Duration {
        Duration::from_millis(self.send_timeout_milliseconds)
    }

    pub(crate) fn segmented_kept(&self) -> Duration {
        Duration::from_millis(self.segmented_kept_milliseconds)
    }

    pub(crate) fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.keep_alive_milliseconds)
    }

    pub(crate) fn pong_timeout(&self) -> Duration {
        Duration::from_millis(self.pong_timeout_milliseconds)
    }

    pub(crate) fn backoff_first(&self) -> Duration {
        Duration::from_millis(self.backoff_first_milliseconds)
    }

    pub(crate) fn backoff_max(&self) -> Duration {
        Duration::from_millis(self.backoff_max_milliseconds)
    }

    pub(crate) fn stable_after(&self) -> Duration {
        Duration::from_millis(self.stable_after_milliseconds)
    }

    pub(crate) fn authentication_interval(&self) -> Duration {
        Duration::from_millis(self.authentication_interval_milliseconds)
    }

    pub(crate) fn authentication_timeout(&self) -> Duration {
        Duration::from_millis(self.authentication_timeout_milliseconds)
    }

    pub(crate) fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout_milliseconds)
    }
}
