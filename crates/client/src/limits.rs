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
    /// first.
    pub remembered_max: usize,
    /// Octets of one message as JSON, and the CoAP Max-Message-Size announced. A longer one ends the connection.
    pub message_octets_max: usize,
    /// Octets of payload of one message. A longer one is refused with 4.13 when received, and not sent.
    pub payload_octets_max: usize,
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
        let members: [(&'static str, u64); 16] = [
            ("send_queue_max", self.send_queue_max as u64),
            ("unanswered_max", self.unanswered_max as u64),
            ("reports_unanswered_max", self.reports_unanswered_max as u64),
            ("reports_owed_max", self.reports_owed_max as u64),
            ("unaccepted_max", self.unaccepted_max as u64),
            ("come_back_seconds", self.come_back_seconds.into()),
            ("remembered_max", self.remembered_max as u64),
            ("message_octets_max", self.message_octets_max as u64),
            ("payload_octets_max", self.payload_octets_max as u64),
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
