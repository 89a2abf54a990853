//! Every limit of the server in one place: what it bounds, its default, and what happens when it is hit.
//!
//! The same table, for operators, is `docs/reference/limits.md`; a test holds the two together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::deduplication::Rate;

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
    /// Octets of payload in one segment, or in one message of a UE (TS 23.554 clause 8.5: 2048, configurable). More: 4.13.
    /// A UE gets no more than this at once, whatever it says when it registers.
    pub payload_octets_max: usize,
    /// Octets of payload in one whole message: of an AS, or put together from segments. More: 4.13 or 413.
    pub message_payload_octets_max: usize,
    /// Messages that one originator may have in segments here, waiting to be put together. One more: 5.03 or 503
    /// `REASSEMBLY_FULL`.
    pub reassembly_sets_per_originator_max: usize,
    /// Octets of those segments: payload, 64 more for each and 1024 for each message. More: 5.03 or 503
    /// `REASSEMBLY_FULL`.
    pub reassembly_octets_per_originator_max: usize,
    /// Messages of everybody in segments here. One more: 5.03 or 503 `REASSEMBLY_FULL`.
    pub reassembly_sets_max: usize,
    /// Octets of everybody's segments, counted likewise. More: 5.03 or 503 `REASSEMBLY_FULL`.
    pub reassembly_octets_max: usize,
    /// How long the next segment of a message may stay away. Then the missing ones are asked for.
    pub reassembly_wait_seconds: u64,
    /// How often they are asked for. Then what there is of the message is thrown away, and reported as failed with
    /// `SEGMENTS_MISSING` if a report is wanted.
    pub reassembly_recoveries_max: u32,
    /// How long a small message for a UE that takes aggregates waits for others to go with it. 0: what waits anyway goes
    /// together, and nothing is held back.
    pub aggregation_wait_milliseconds: u64,
    /// Messages, segments, updates and reports that one UE may send in a second. More: 4.29 `RATE_EXCEEDED`. 0: no such limit.
    pub messages_per_second_per_ue_max: u32,
    /// As many of them at once after a silence.
    pub message_burst_per_ue_max: u32,
    /// Messages and reports that one AS may send in a second. More: 429 `RATE_EXCEEDED`. 0: no such limit.
    pub messages_per_second_per_application_server_max: u32,
    /// As many of them at once after a silence.
    pub message_burst_per_application_server_max: u32,
    /// Octets of one message as JSON. More: 4.13; past the CoAP Max-Message-Size, which is 1024 more, the connection is
    /// aborted (RFC 8323 section 5.3.1).
    pub message_octets_max: usize,
    /// Octets written for one connection and not yet taken by its peer. Above it nothing more is read from it or sent
    /// to it, until the write time-out.
    pub outbound_octets_max: usize,
    /// How long a peer may read nothing while there is something to write. Then the connection is closed.
    pub write_timeout_seconds: u64,
    /// Deliveries and separate answers to one UE over datagrams that are under way at once (NSTART, RFC 7252 clause 4.7); over
    /// streams `delivery_window` holds. Further ones wait in its queue.
    pub datagram_window: usize,
    /// How long nothing may come from a UE over datagrams. Then its session is closed. It is not pinged meanwhile: it may be
    /// asleep.
    pub datagram_idle_seconds: u64,
    /// How long nothing may come from a registered UE over DTLS, with nothing under way. Then its session is frozen to a few
    /// hundred octets, until something is to be done for it. 0: never. One without Connection IDs is not frozen.
    pub datagram_freeze_milliseconds: u64,
    /// How long a UE may leave a delivery unacknowledged. Then its connection is closed and what it did not
    /// acknowledge is stored or failed; over datagrams the UE counts as away until something comes from it.
    pub delivery_timeout_seconds: u64,
    /// How long a message may wait in a connected recipient's queue before its turn. Then it is stored, or failed
    /// with `TARGET_UNREACHABLE`.
    pub queue_timeout_seconds: u64,
    /// How long a connection may stay without a registration. Then it is closed.
    pub registration_timeout_seconds: u64,
    /// Registrations and de-registrations in a minute on one connection, and as many at once after a silence. More: 4.29
    /// `RATE_EXCEEDED`.
    pub registrations_per_minute_max: u32,
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
    /// Messages to one group or topic that wait for their turn. One more: 4.29 or 429 `TOO_MANY`.
    pub fan_out_queue_max: usize,
    /// Those of one originator among them. One more: 4.29 or 429 `TOO_MANY`.
    pub fan_out_queue_per_originator_max: usize,
    /// Copies of one message to a group or topic on their way to the disk at once, for recipients that are away. Further copies
    /// wait for the disk, but no longer than a second.
    pub fan_out_window: usize,
    /// Octets of copies of one message in memory at once, for recipients that are there, about. Further copies wait for
    /// acknowledgements, but no longer than a second.
    pub fan_out_octets_max: usize,
    /// How long after a restart a copy that may not be stored waits for its recipient to return. Then it fails with
    /// `TARGET_UNREACHABLE`.
    pub fan_out_return_seconds: u64,
    /// How long reports on a message to a group or topic are gathered before its originator is told of those that are there.
    pub report_aggregation_seconds: u64,
    /// How long they are gathered in all. Later ones reach the originator one by one.
    pub report_collection_seconds: u64,
    /// Look-ups of groups at once. One more: 5.03 or 503 `OVERLOADED`.
    pub group_lookups_max: usize,
    /// How long group management may take. Then 5.03 or 503 `MEMBERS_UNAVAILABLE`.
    pub group_timeout_seconds: u64,
    /// How long its answer is remembered. A member removed there gets nothing more after this time.
    pub group_cache_seconds: u64,
    /// Groups remembered, and their members and senders, together. The oldest group is forgotten first.
    pub group_cache_weight_max: usize,
    /// Members of one group. More: 5.03 or 503 `MEMBERS_UNAVAILABLE`.
    pub group_members_max: usize,
    /// How long a subscription to topics, or to the list of topics, lasts that does not say.
    pub topic_subscription_default_seconds: u64,
    /// Longest such subscription. A later expiration time is brought down to it.
    pub topic_subscription_max_seconds: u64,
    /// Topics whose coming or going one subscriber to the list waits to be told. Further ones it is not told.
    pub topic_notifications_queue_max: usize,
    /// Attempts to tell it that may fail in a row. Then what it was told in the last of them is given up.
    pub topic_notification_attempts_max: u32,
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
    /// UEs that are to be woken through the network at once. One more is not: its messages wait for it to come by itself.
    pub triggers_watched_max: usize,
    /// Requests to the NEF at once; one while it fails. Further ones wait.
    pub triggers_in_flight_max: usize,
    /// How long a UE may come by itself before it is triggered. It is triggered at once if this is 0.
    pub trigger_delay_seconds: u64,
    /// The same after a restart, which ends everybody's connection.
    pub trigger_restart_pause_seconds: u64,
    /// How often a UE that keeps coming and going is triggered at most. One that is triggered again is so later.
    pub trigger_interval_seconds: u64,
    /// How long the network may try to deliver a trigger. The UE is then triggered anew. Less if the messages expire, or
    /// the UE's communication window closes, earlier.
    pub trigger_validity_seconds: u64,
    /// How long a UE may take to connect after a trigger was delivered to it. Then it is triggered anew.
    pub trigger_connect_seconds: u64,
    /// First pause before a UE is triggered anew; doubled each time, with jitter.
    pub trigger_backoff_first_seconds: u64,
    /// Longest such pause.
    pub trigger_backoff_max_seconds: u64,
    /// Triggers for one UE. Then it is left alone.
    pub trigger_attempts_max: u32,
    /// How long it is left alone, or one that may not be triggered. Then what was stored for it meanwhile begins anew.
    pub trigger_rest_seconds: u64,
    /// How long the network may take to say that a UE is reachable. Then it is triggered all the same.
    pub reachability_wait_seconds: u64,
    /// Notification destinations of what is over that are remembered, so that the NEF's last words are answered with 204.
    /// The oldest is forgotten first.
    pub notifications_over_max: usize,
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
            message_payload_octets_max: 65_536,
            reassembly_sets_per_originator_max: 16,
            reassembly_octets_per_originator_max: 262_144,
            reassembly_sets_max: 16_384,
            reassembly_octets_max: 67_108_864,
            reassembly_wait_seconds: 5,
            reassembly_recoveries_max: 3,
            aggregation_wait_milliseconds: 0,
            messages_per_second_per_ue_max: 0,
            message_burst_per_ue_max: 256,
            messages_per_second_per_application_server_max: 0,
            message_burst_per_application_server_max: 4096,
            message_octets_max: 65_536,
            outbound_octets_max: 262_144,
            write_timeout_seconds: 10,
            datagram_window: 1,
            datagram_idle_seconds: 7 * 86_400,
            datagram_freeze_milliseconds: 30_000,
            delivery_timeout_seconds: 20,
            queue_timeout_seconds: 20,
            registration_timeout_seconds: 30,
            registrations_per_minute_max: 60,
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
            fan_out_queue_max: 256,
            fan_out_queue_per_originator_max: 64,
            fan_out_window: 256,
            fan_out_octets_max: 67_108_864,
            fan_out_return_seconds: 120,
            report_aggregation_seconds: 5,
            report_collection_seconds: 3600,
            group_lookups_max: 256,
            group_timeout_seconds: 3,
            group_cache_seconds: 10,
            group_cache_weight_max: 1_000_000,
            group_members_max: 10_000,
            topic_subscription_default_seconds: 30 * 86_400,
            topic_subscription_max_seconds: 365 * 86_400,
            topic_notifications_queue_max: 10_000,
            topic_notification_attempts_max: 8,
            application_server_timeout_seconds: 5,
            backoff_first_milliseconds: 500,
            backoff_max_seconds: 60,
            retry_after_seconds: 2,
            log_lines_per_minute_max: 60,
            triggers_watched_max: 100_000,
            triggers_in_flight_max: 32,
            trigger_delay_seconds: 2,
            trigger_restart_pause_seconds: 120,
            trigger_interval_seconds: 60,
            trigger_validity_seconds: 3600,
            trigger_connect_seconds: 120,
            trigger_backoff_first_seconds: 60,
            trigger_backoff_max_seconds: 3600,
            trigger_attempts_max: 5,
            trigger_rest_seconds: 6 * 3600,
            reachability_wait_seconds: 600,
            notifications_over_max: 10_000,
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
            ("datagram_window", self.datagram_window),
            ("application_server_window", self.application_server_window),
            ("recipient_queue_max", self.recipient_queue_max),
            ("store_queue_max", self.store_queue_max),
            ("payload_octets_max", self.payload_octets_max),
            ("message_payload_octets_max", self.message_payload_octets_max),
            ("reassembly_sets_per_originator_max", self.reassembly_sets_per_originator_max),
            ("reassembly_octets_per_originator_max", self.reassembly_octets_per_originator_max),
            ("reassembly_sets_max", self.reassembly_sets_max),
            ("reassembly_octets_max", self.reassembly_octets_max),
            ("message_octets_max", self.message_octets_max),
            ("outbound_octets_max", self.outbound_octets_max),
            ("association_lookups_max", self.association_lookups_max),
            ("registrations_per_minute_max", usize::try_from(self.registrations_per_minute_max).unwrap_or(usize::MAX)),
            ("fan_out_queue_max", self.fan_out_queue_max),
            ("fan_out_queue_per_originator_max", self.fan_out_queue_per_originator_max),
            ("fan_out_window", self.fan_out_window),
            ("fan_out_octets_max", self.fan_out_octets_max),
            ("group_lookups_max", self.group_lookups_max),
            ("group_members_max", self.group_members_max),
            ("topic_notifications_queue_max", self.topic_notifications_queue_max),
            (
                "topic_notification_attempts_max",
                usize::try_from(self.topic_notification_attempts_max).unwrap_or(usize::MAX),
            ),
            ("remembered_per_ue_max", self.remembered_per_ue_max),
            ("remembered_per_application_server_max", self.remembered_per_application_server_max),
        ];
        let triggers = [
            ("triggers_watched_max", self.triggers_watched_max),
            ("triggers_in_flight_max", self.triggers_in_flight_max),
            ("trigger_attempts_max", usize::try_from(self.trigger_attempts_max).unwrap_or(usize::MAX)),
        ];
        counts.into_iter().chain(triggers).find(|(_, value)| *value == 0).map(|(name, _)| name).or_else(|| {
            self.durations()
                .into_iter()
                .chain(self.trigger_durations())
                .find(|(_, value)| *value == 0)
                .map(|(name, _)| name)
        })
    }

    /// The name of the first duration that is longer than [`DURATION_MAX`], if any.
    #[must_use]
    pub(crate) fn endless_member(&self) -> Option<&'static str> {
        let may_be_zero = [
            ("revalidation_grace_seconds", self.revalidation_grace_seconds),
            ("remembered_seconds", self.remembered_seconds),
            ("remembered_stored_seconds", self.remembered_stored_seconds),
            ("group_cache_seconds", self.group_cache_seconds),
            ("fan_out_return_seconds", self.fan_out_return_seconds),
            ("report_aggregation_seconds", self.report_aggregation_seconds),
            ("report_collection_seconds", self.report_collection_seconds),
            ("drain_timeout_seconds", self.drain_timeout_seconds),
            ("aggregation_wait_milliseconds", self.aggregation_wait_milliseconds),
            ("datagram_freeze_milliseconds", self.datagram_freeze_milliseconds),
            ("trigger_delay_seconds", self.trigger_delay_seconds),
            ("trigger_restart_pause_seconds", self.trigger_restart_pause_seconds),
            ("trigger_interval_seconds", self.trigger_interval_seconds),
            ("reachability_wait_seconds", self.reachability_wait_seconds),
        ];
        let longest = DURATION_MAX.as_secs();
        self.durations()
            .into_iter()
            .chain(self.trigger_durations())
            .chain(may_be_zero)
            .find(|(_, value)| *value > longest)
            .map(|(name, _)| name)
    }

    /// Those that must not be zero.
    fn durations(&self) -> [(&'static str, u64); 19] {
        [
            ("write_timeout_seconds", self.write_timeout_seconds),
            ("datagram_idle_seconds", self.datagram_idle_seconds),
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
            ("group_timeout_seconds", self.group_timeout_seconds),
            ("topic_subscription_default_seconds", self.topic_subscription_default_seconds),
            ("topic_subscription_max_seconds", self.topic_subscription_max_seconds),
            ("reassembly_wait_seconds", self.reassembly_wait_seconds),
        ]
    }

    /// Those of device triggers that must not be zero.
    fn trigger_durations(&self) -> [(&'static str, u64); 5] {
        [
            ("trigger_validity_seconds", self.trigger_validity_seconds),
            ("trigger_connect_seconds", self.trigger_connect_seconds),
            ("trigger_backoff_first_seconds", self.trigger_backoff_first_seconds),
            ("trigger_backoff_max_seconds", self.trigger_backoff_max_seconds),
            ("trigger_rest_seconds", self.trigger_rest_seconds),
        ]
    }

    /// What an originator may send in a second; none if there is no such limit.
    pub(crate) fn rate_of(&self, application_server: bool) -> Option<Rate> {
        let (per_second, burst) = if application_server {
            (self.messages_per_second_per_application_server_max, self.message_burst_per_application_server_max)
        } else {
            (self.messages_per_second_per_ue_max, self.message_burst_per_ue_max)
        };
        (per_second > 0).then_some(Rate { per_second, burst })
    }

    pub(crate) fn report_aggregation(&self) -> Duration {
        Duration::from_secs(self.report_aggregation_seconds)
    }

    pub(crate) fn report_collection(&self) -> Duration {
        Duration::from_secs(self.report_collection_seconds)
    }

    pub(crate) fn topic_subscription_default(&self) -> time::Duration {
        saturating_seconds(self.topic_subscription_default_seconds.min(self.topic_subscription_max_seconds))
    }

    pub(crate) fn topic_subscription_max(&self) -> time::Duration {
        saturating_seconds(self.topic_subscription_max_seconds)
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

    pub(crate) fn datagram_idle(&self) -> Duration {
        Duration::from_secs(self.datagram_idle_seconds)
    }

    /// None: never.
    pub(crate) fn datagram_freeze(&self) -> Option<Duration> {
        (self.datagram_freeze_milliseconds > 0).then(|| Duration::from_millis(self.datagram_freeze_milliseconds))
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

fn saturating_seconds(count: u64) -> time::Duration {
    time::Duration::seconds(i64::try_from(count).unwrap_or(i64::MAX))
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
