//! Every limit of the server in one place: what it bounds, its default, and what happens when it is hit.
//!
//! The same table, for operators, is `docs/reference/limits.md`; a test holds the two together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest duration that can be set. Every clock the server reckons with goes further, whatever is added up.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The `[limits]` section. Every member has a default; zero is refused where it would stop the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// MSGin5G-1 connections at once, handshakes included. One more is closed right after it is accepted.
    pub connections_max: usize,
    /// Connections of one A-KID at once, after their handshake. One more is answered with an Abort (RFC 8323 section 5.6).
    pub connections_per_a_kid_max: usize,
    /// UE Service IDs registered, connected or away. One more: 5.03 `OVERLOADED`.
    pub registrations_max: usize,
    /// Requests of one UE that wait for their answer, those of an earlier connection included. One more: 4.29 `TOO_MANY`.
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
    /// Log lines of one kind, about requests that their sender could do without, in a minute. Further ones are counted, and
    /// their number logged at the end of it.
    pub log_lines_per_minute_max: u64,
    /// How long a graceful stop waits for what is in flight. Then it is stored, or failed with `TARGET_UNREACHABLE`.
    pub drain_timeout_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            connections_per_a_kid_max: 8,
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
            log_lines_per_minute_max: 60,
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
            ("connections_per_a_kid_max", self.connections_per_a_kid_max),
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
        counts
            .into_iter()
            .find(|(_, value)| *value == 0)
            .map(|(name, _)| name)
            .or_else(|| self.durations().into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name))
    }

    /// The name of the first duration that is longer than [`DURATION_MAX`], if any.
    #[must_use]
    pub(crate) fn endless_member(&self) -> Option<&'static str> {
        let may_be_zero = [
            ("revalidation_grace_seconds", self.revalidation_grace_seconds),
            ("remembered_seconds", self.remembered_seconds),
            ("remembered_stored_seconds", self.remembered_stored_seconds),
            ("drain_timeout_seconds", self.drain_timeout_seconds),
        ];
        let longest = DURATION_MAX.as_secs();
        self.durations().into_iter().chain(may_be_zero).find(|(_, value)| *value > longest).map(|(name, _)| name)
    }

    /// Those that must not be zero.
    fn durations(&self) -> [(&'static str, u64); 14] {
        [
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
        ]
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

    #[test]
    fn every_duration_beyond_the_clocks_is_named() {
        assert_eq!(Limits::default().endless_member(), None);
        let serde_json::Value::Object(members) = serde_json::to_value(Limits::default()).unwrap() else { panic!() };
        let durations = members.keys().filter(|name| name.ends_with("_seconds") || name.ends_with("_milliseconds"));
        for name in durations.filter(|name| *name != "retry_after_seconds") {
            let mut members = members.clone();
            members.insert(name.clone(), u64::MAX.into());
            let limits: Limits = serde_json::from_value(members.into()).unwrap();
            assert_eq!(limits.endless_member(), Some(name.as_str()));
        }
    }
}
