//! Every limit of MSGin5G-5 in one place: what it bounds, its default, and what happens when it is hit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits and times of the local interface; the `[limits]` section of an applications file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalLimits {
    /// Connections at once, registered or not. One more is closed as soon as it is accepted.
    pub connections_max: usize,
    /// For the first registration on a connection. Then it is aborted.
    pub registration_timeout_milliseconds: u64,
    /// Octets of one message as JSON, and the CoAP Max-Message-Size announced. A longer one ends the connection with an
    /// Abort.
    pub message_octets_max: usize,
    /// Octets of payload of one message of an application. A longer one is refused: 4.13 `PAYLOAD_TOO_LARGE`.
    pub payload_octets_max: usize,
    /// Requests of one application that are not answered yet. One more is refused: 4.29 with Max-Age, no payload.
    pub requests_unanswered_max: usize,
    /// Messages and reports sent to one application and not answered by it. Past it the next ones wait.
    pub deliveries_unanswered_max: usize,
    /// Messages and reports that wait for that. Past it they are put off: the server keeps what it may.
    pub deliveries_waiting_max: usize,
    /// For an application's answer to a message or report. Then its connection is aborted, and what it has not answered
    /// is put off.
    pub delivery_timeout_milliseconds: u64,
    /// Answered messages of an application that its own delivery status reports may still name. The oldest is forgotten,
    /// and a report on it is refused: 4.04 `UNKNOWN_TARGET`.
    pub answered_max: usize,
    /// Octets that wait to be written to one application. Past it nothing is delivered to it until it reads; an answer
    /// that finds no room ends the connection.
    pub outbound_octets_max: usize,
    /// For an application to read something of what waits for it. Then its connection is closed.
    pub write_timeout_milliseconds: u64,
    /// Refused registrations on one connection. The one that reaches it ends the connection with an Abort.
    pub registrations_refused_max: u32,
    /// For what is under way when the interface is closed. Then connections are closed regardless.
    pub close_timeout_milliseconds: u64,
}

impl Default for LocalLimits {
    fn default() -> Self {
        Self {
            connections_max: 32,
            registration_timeout_milliseconds: 10_000,
            message_octets_max: 131_072,
            payload_octets_max: 65_536,
            requests_unanswered_max: 16,
            deliveries_unanswered_max: 8,
            deliveries_waiting_max: 8,
            delivery_timeout_milliseconds: 60_000,
            answered_max: 256,
            outbound_octets_max: 262_144,
            write_timeout_milliseconds: 20_000,
            registrations_refused_max: 3,
            close_timeout_milliseconds: 5_000,
        }
    }
}

impl LocalLimits {
    /// The name of the first member that is zero and must not be, if any.
    #[must_use]
    pub fn zero_member(&self) -> Option<&'static str> {
        let members: [(&'static str, u64); 12] = [
            ("connections_max", self.connections_max as u64),
            ("registration_timeout_milliseconds", self.registration_timeout_milliseconds),
            ("message_octets_max", self.message_octets_max as u64),
            ("payload_octets_max", self.payload_octets_max as u64),
            ("requests_unanswered_max", self.requests_unanswered_max as u64),
            ("deliveries_unanswered_max", self.deliveries_unanswered_max as u64),
            ("deliveries_waiting_max", self.deliveries_waiting_max as u64),
            ("delivery_timeout_milliseconds", self.delivery_timeout_milliseconds),
            ("answered_max", self.answered_max as u64),
            ("outbound_octets_max", self.outbound_octets_max as u64),
            ("write_timeout_milliseconds", self.write_timeout_milliseconds),
            ("registrations_refused_max", self.registrations_refused_max.into()),
        ];
        members.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name)
    }

    pub(super) fn registration_timeout(&self) -> Duration {
        Duration::from_millis(self.registration_timeout_milliseconds)
    }

    pub(super) fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery_timeout_milliseconds)
    }

    pub(super) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_milliseconds)
    }

    pub(super) fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout_milliseconds)
    }
}
