//! Every limit of the server in one place: what it bounds, its default, and what happens when it is hit.
//!
//! The same table, for operators, is `docs/reference/limits.md`; a test holds the two together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The `[limits]` section. Every member has a default; zero is refused where it would stop the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// MSGin5G-1 connections at once, handshakes included. One more is closed right after it is accepted.
    pub connections_max: usize,
    /// UE Service IDs registered, connected or away. One more: 5.03 `OVERLOADED`.
    pub registrations_max: usize,
    /// Requests of one connection that wait for their answer. One more: 4.29 `TOO_MANY`.
    pub requests_per_connection_max: usize,
    /// Messages and reports of everybody that wait for their answer. One more: 5.03 or 503 `OVERLOADED`.
    pub requests_total_max: usize,
    /// Deliveries a UE has not acknowledged yet. Further ones wait in its queue.
    pub delivery_window: usize,
    /// Deliveries an AS has not answered yet. Further ones wait in its queue.
    pub application_server_window: usize,
    /// Messages that wait in memory for one recipient. One more: 4.29 or 429 `TOO_MANY`.
    pub recipient_queue_max: usize,
    /// Messages on their way to the disk, for each of the writers. One more: 5.03 or 503 `OVERLOADED`.
    pub store_queue_max: usize,
    /// Octets of payload in one message (TS 23.554 clause 8.5: 2048, configurable). More: 4.13 or 413.
    pub payload_octets_max: usize,
    /// Octets of one message as JSON. More: 4.13; past the CoAP Max-Message-Size, which is 1024 more, the connection is
    /// aborted (RFC 8323 section 5.3.1).
    pub message_octets_max: usize,
    /// Octets written for one connection and not yet taken by its peer. Above it nothing more is read from it or sent
    /// to it, until the write time-out.
    pub outbound_octets_max: usize,
    /// How long a peer may read nothing while there is something to write. Then the connection is closed.
    pub write_timeout_seconds: u64,
    /// How long a UE may leave a delivery unacknowledged. Then its connection is closed and what it did not
    /// acknowledge is stored or failed.
    pub delivery_timeout_seconds: u64,
    /// How long a message may wait in a connected recipient's queue before its turn. Then it is stored, or failed
    /// with `TARGET_UNREACHABLE`.
    pub queue_timeout_seconds: u64,
    /// How long a connection may stay without a registration. Then it is closed.
    pub registration_timeout_seconds: u64,
    /// Silence after which the server pings a connection (RFC 8323 section 5.4).
    pub idle_ping_seconds: u64,
    /// How long the answer to that ping may take. Then the connection is closed.
    pub pong_timeout_seconds: u64,
    /// How often a connection's key and association are asked for again, give or take a tenth. A connection whose
    /// A-KID was superseded or whose association was removed ends within this time.
    pub revalidation_seconds: u64,
    /// How long a connection lives on while AAnF or Configuration Function give no answer to that. Then it is closed.
    pub revalidation_grace_seconds: u64,
    /// How long the Configuration Function may take. Then 5.03 `ASSOCIATION_UNKNOWN`.
    pub association_timeout_seconds: u64,
    /// Association look-ups at once. One more: 5.03 `OVERLOADED`.
    pub association_lookups_max: usize,
    /// Answers remembered for one UE, so that a repeated message gets the same one. The oldest is forgotten first.
    pub remembered_per_ue_max: usize,
    /// The same for one AS.
    pub remembered_per_application_server_max: usize,
    /// How long an answer is remembered in memory.
    pub remembered_seconds: u64,
    /// How long the answer to a stored message is remembered on disk.
    pub remembered_stored_seconds: u64,
    /// Delivered messages of one recipient whose report is awaited. The oldest is forgotten first.
    pub reports_awaited_max: usize,
    /// Expiry of a stored message that names none.
    pub expiry_default_seconds: u64,
    /// Longest expiry. A later expiration time is brought down to it.
    pub expiry_max_seconds: u64,
    /// How often expired messages are looked for.
    pub expiry_sweep_seconds: u64,
    /// How long an AS may take for one delivery. Then it counts as away.
    pub application_server_timeout_seconds: u64,
    /// First pause after an AS failed; doubled each time, with jitter.
    pub backoff_first_milliseconds: u64,
    /// Longest pause.
    pub backoff_max_seconds: u64,
    /// Max-Age and Retry-After of a refusal that asks to come back.
    pub retry_after_seconds: u32,
    /// How long a graceful stop waits for what is in flight. Then it is stored, or failed with `TARGET_UNREACHABLE`.
    pub drain_timeout_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            registrations_max: 1_000_000,
            requests_per_connection_max: 64,
            requests_total_max: 100_000,
            delivery_window: 32,
            application_server_window: 64,
            recipient_queue_max: 256,
            store_queue_max: 8192,
            payload_octets_max: 2048,
            message_octets_max: 65_536,
            outbound_octets_max: 262_144,
            write_timeout_seconds: 10,
            delivery_timeout_seconds: 20,
            queue_timeout_seconds: 20,
            registration_timeout_seconds: 30,
            idle_ping_seconds: 900,
            pong_timeout_seconds: 60,
            revalidation_seconds: 600,
            revalidation_grace_seconds: 3600,
            association_timeout_seconds: 3,
            association_lookups_max: 1024,
            remembered_per_ue_max: 256,
            remembered_per_application_server_max: 65_536,
            remembered_seconds: 300,
            remembered_stored_seconds: 600,
            reports_awaited_max: 256,
            expiry_default_seconds: 7 * 86_400,
            expiry_max_seconds: 30 * 86_400,
            expiry_sweep_seconds: 1,
            application_server_timeout_seconds: 5,
            backoff_first_milliseconds: 500,
            backoff_max_seconds: 60,
            retry_after_seconds: 2,
            drain_timeout_seconds: 10,
        }
    }
}

impl Limits {
    /// The name of the first member that is zero and must not be, if any.
    #[must_use]
    pub(crate) fn zero_member(&self) -> Option<&'static str> {
        let counts = [
            ("connections_max", self.connections_max),
            ("registrations_max", self.registrations_max),
            ("requests_per_connection_max", self.requests_per_connection_max),
            ("requests_total_max", self.requests_total_max),
            ("delivery_window", self.delivery_window),
            ("application_server_window", self.application_server_window),
            ("recipient_queue_max", self.recipient_queue_max),
            ("store_queue_max", self.store_queue_max),
            ("payload_octets_max", self.payload_octets_max),
            ("message_octets_max", self.message_octets_max),
            ("outbound_octets_max", self.outbound_octets_max),
            ("association_lookups_max", self.association_lookups_max),
            ("remembered_per_ue_max", self.remembered_per_ue_max),
            ("remembered_per_application_server_max", self.remembered_per_application_server_max),
        ];
        let seconds = [
            ("write_timeout_seconds", self.write_timeout_seconds),
            ("delivery_timeout_seconds", self.delivery_timeout_seconds),
            ("queue_timeout_seconds", self.queue_timeout_seconds),
            ("registration_timeout_seconds", self.registration_timeout_seconds),
            ("idle_ping_seconds", self.idle_ping_seconds),
            ("pong_timeout_seconds", self.pong_timeout_seconds),
            ("revalidation_seconds", self.revalidation_seconds),
            ("association_timeout_seconds", self.association_timeout_seconds),
            ("expiry_default_seconds", self.expiry_default_seconds),
            ("expiry_max_seconds", self.expiry_max_seconds),
            ("expiry_sweep_seconds", self.expiry_sweep_seconds),
            ("application_server_timeout_seconds", self.application_server_timeout_seconds),
            ("backoff_first_milliseconds", self.backoff_first_milliseconds),
            ("backoff_max_seconds", self.backoff_max_seconds),
        ];
        counts
            .into_iter()
            .find(|(_, value)| *value == 0)
            .map(|(name, _)| name)
            .or_else(|| seconds.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name))
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_timeout_seconds)
    }

    pub(crate) fn delivery_timeout(&self) -> Duration {
        Duration::from_secs(self.delivery_timeout_seconds)
    }

    pub(crate) fn queue_timeout(&self) -> Duration {
        Duration::from_secs(self.queue_timeout_seconds)
    }

    pub(crate) fn registration_timeout(&self) -> Duration {
        Duration::from_secs(self.registration_timeout_seconds)
    }

    pub(crate) fn idle_ping(&self) -> Duration {
        Duration::from_secs(self.idle_ping_seconds)
    }

    pub(crate) fn pong_timeout(&self) -> Duration {
        Duration::from_secs(self.pong_timeout_seconds)
    }

    pub(crate) fn association_timeout(&self) -> Duration {
        Duration::from_secs(self.association_timeout_seconds)
    }

    pub(crate) fn remembered(&self) -> Duration {
        Duration::from_secs(self.remembered_seconds)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }

    pub(crate) fn application_server_timeout(&self) -> Duration {
        Duration::from_secs(self.application_server_timeout_seconds)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_documented_table_is_this_one() {
        let table = include_str!("../../../docs/reference/limits.md");
        let serde_json::Value::Object(members) = serde_json::to_value(Limits::default()).unwrap() else { panic!() };
        let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| `") && !line.contains("[limits]")).collect();
        assert_eq!(rows.len(), members.len());
        for (name, default) in members {
            let start = format!("| `{name}` | {default} | ");
            assert!(rows.iter().any(|row| row.starts_with(&start)), "{start}");
        }
    }

    #[test]
    fn a_limit_of_zero_that_would_stop_the_service_is_named() {
        assert_eq!(Limits::default().zero_member(), None);
        let limits = Limits { delivery_window: 0, ..Limits::default() };
        assert_eq!(limits.zero_member(), Some("delivery_window"));
        let limits = Limits { expiry_sweep_seconds: 0, ..Limits::default() };
        assert_eq!(limits.zero_member(), Some("expiry_sweep_seconds"));
    }
}
