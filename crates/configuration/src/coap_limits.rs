//! Every limit of `su-uc` over CoAP, with the answer when it is reached.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of the CoAP listener and its connections. Limits on handshakes and key look-ups stand beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoapLimits {
    /// Connections at once, handshakes included. One more is closed right after it is accepted.
    pub connections_max: usize,
    /// Connections of one A-KID at once. One more is answered with an Abort.
    pub connections_per_a_kid_max: usize,
    /// Observations on one connection. One more is answered without Observe, as any GET.
    pub observations_per_connection_max: usize,
    /// How long a peer may read nothing while there is something to write; then the connection is closed.
    pub write_timeout_seconds: u64,
    /// How long a connection without an observation may stay without a request; then it is released.
    pub idle_timeout_seconds: u64,
    /// Silence after which a connection with an observation is pinged.
    pub idle_ping_seconds: u64,
    /// How long the answer to that ping may take; then the connection is closed.
    pub pong_timeout_seconds: u64,
    /// How often a connection's key is asked for again, give or take a tenth. One whose A-KID is known no more ends.
    pub revalidation_seconds: u64,
    /// How long a connection lives on while the AAnF gives no answer to that; then it is closed.
    pub revalidation_grace_seconds: u64,
    /// Max-Age of a document: how long a UE that does not observe may go by it.
    pub max_age_seconds: u32,
    /// How long connections may take to end when the function stops.
    pub drain_timeout_seconds: u64,
}

impl Default for CoapLimits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_a_kid_max: 4,
            observations_per_connection_max: 4,
            write_timeout_seconds: 10,
            idle_timeout_seconds: 60,
            idle_ping_seconds: 900,
            pong_timeout_seconds: 60,
            revalidation_seconds: 600,
            revalidation_grace_seconds: 3_600,
            max_age_seconds: 3_600,
            drain_timeout_seconds: 5,
        }
    }
}

impl CoapLimits {
    /// The first duration that is none: 0, or beyond what timers take.
    pub(crate) fn wrong_duration(&self) -> Option<&'static str> {
        [
            ("write_timeout_seconds", self.write_timeout_seconds),
            ("idle_timeout_seconds", self.idle_timeout_seconds),
            ("idle_ping_seconds", self.idle_ping_seconds),
            ("pong_timeout_seconds", self.pong_timeout_seconds),
            ("revalidation_seconds", self.revalidation_seconds),
            ("revalidation_grace_seconds", self.revalidation_grace_seconds),
            ("drain_timeout_seconds", self.drain_timeout_seconds),
        ]
        .into_iter()
        .find(|(_, seconds)| !(1..=SECONDS_MAX).contains(seconds))
        .map(|(name, _)| name)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_timeout_seconds)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds)
    }

    pub(crate) fn idle_ping(&self) -> Duration {
        Duration::from_secs(self.idle_ping_seconds)
    }

    pub(crate) fn pong_timeout(&self) -> Duration {
        Duration::from_secs(self.pong_timeout_seconds)
    }

    pub(crate) fn revalidation(&self) -> Duration {
        Duration::from_secs(self.revalidation_seconds)
    }

    pub(crate) fn revalidation_grace(&self) -> Duration {
        Duration::from_secs(self.revalidation_grace_seconds)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }
}

/// A hundred years.
const SECONDS_MAX: u64 = 3_155_760_000;
