//! Limits of a server.

use serde::{Deserialize, Serialize};
use transport::{Limit, LimitFault};

/// Every limit of a server, and what a peer sees when it is hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerLimits {
    /// Authenticated connections open at once; one more is closed after its handshake.
    pub connections_max: usize,
    /// The same, of one peer: an NF instance, a certificate without one, a pre-shared key, or for whoever proves nothing an
    /// IPv4 address or IPv6 /64. One peer cannot take all of `connections_max`.
    pub connections_per_peer_max: usize,
    /// Handshakes under way at once; one more connection is closed unanswered.
    pub handshakes_max: usize,
    /// The same, from one source, an IPv4 address or an IPv6 /64: strangers in one place cannot take all of `handshakes_max`.
    pub handshakes_per_source_max: usize,
    /// Time for the TLS handshake and the first octet of HTTP/2; then the connection is closed.
    pub handshake_timeout_seconds: u64,
    /// Requests at once on one connection (SETTINGS_MAX_CONCURRENT_STREAMS); one more is reset by HTTP/2.
    pub streams_per_connection_max: u32,
    /// Requests at once on all connections; one more gets 503, NF_CONGESTION and `Retry-After`.
    pub requests_max: usize,
    /// Octets of a request body; a longer one gets 413.
    pub request_body_bytes_max: usize,
    /// Octets of a request's header list; a longer one gets 431, one far longer ends the connection.
    pub header_list_bytes_max: u32,
    /// Requests that a peer took back before they were looked at; one more ends the connection (ENHANCE_YOUR_CALM).
    pub reset_streams_max: usize,
    /// Streams reset for the peer's faults; one more ends the connection (ENHANCE_YOUR_CALM).
    pub faulty_streams_max: usize,
    /// Octets that a peer may send ahead on one stream (SETTINGS_INITIAL_WINDOW_SIZE); more ends the connection.
    pub stream_window_bytes: u32,
    /// Octets that a peer may send ahead on all streams of a connection; more ends it.
    pub connection_window_bytes: u32,
    /// Octets of an answer that are buffered for a stream whose peer does not read; then its sending waits.
    pub send_buffer_bytes_max: usize,
    /// Bodies of one peer's requests that are on their way at once; one more gets 429, NF_CONGESTION_RISK and `Retry-After`.
    /// A peer is counted as in `connections_per_peer_max`.
    pub bodies_per_peer_max: usize,
    /// Time for a request's body to come; then it gets 408.
    pub body_timeout_seconds: u64,
    /// Time for a request, its body included; then it gets 504, TIMED_OUT_REQUEST.
    pub request_timeout_seconds: u64,
    /// Time for a peer to take an answer that is there, or the next piece of one that lasts; then its connection is closed.
    pub answer_timeout_seconds: u64,
    /// Silence after which a peer is pinged.
    pub keepalive_interval_seconds: u64,
    /// Time for the answer to that ping; then the connection is closed.
    pub keepalive_timeout_seconds: u64,
    /// Time that requests under way get to finish when the server stops.
    pub drain_timeout_seconds: u64,
    /// What `Retry-After` says when the server is overloaded.
    pub retry_after_seconds: u32,
    /// How often certificate, key, authorities and CRL are looked at for changes.
    pub reload_interval_seconds: u64,
    /// How often a connection's certificate is verified anew without such a change: for when it, or a CRL, runs out.
    pub reverify_interval_seconds: u64,
    /// Whether a client that asks for a server name that is not in the certificate is refused (`unrecognized_name`).
    pub unknown_server_name_refused: bool,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_peer_max: 128,
            handshakes_max: 256,
            handshakes_per_source_max: 64,
            handshake_timeout_seconds: 5,
            streams_per_connection_max: 256,
            requests_max: 4096,
            request_body_bytes_max: 65_536,
            header_list_bytes_max: 16_384,
            reset_streams_max: 32,
            faulty_streams_max: 64,
            stream_window_bytes: 65_536,
            connection_window_bytes: 1_048_576,
            send_buffer_bytes_max: 65_536,
            bodies_per_peer_max: 1024,
            body_timeout_seconds: 10,
            request_timeout_seconds: 10,
            answer_timeout_seconds: 30,
            keepalive_interval_seconds: 30,
            keepalive_timeout_seconds: 10,
            drain_timeout_seconds: 10,
            retry_after_seconds: 1,
            reload_interval_seconds: 5,
            reverify_interval_seconds: 60,
            unknown_server_name_refused: false,
        }
    }
}

impl ServerLimits {
    /// The limit that makes no sense, and what it must be: with it nobody would be served, or HTTP/2 has no such value.
    #[must_use]
    pub fn fault(&self) -> Option<LimitFault> {
        let octets = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        Limit::fault([
            Limit::count("connections_max", self.connections_max),
            Limit::count("connections_per_peer_max", self.connections_per_peer_max),
            Limit::count("handshakes_max", self.handshakes_max),
            Limit::count("handshakes_per_source_max", self.handshakes_per_source_max),
            Limit::seconds("handshake_timeout_seconds", self.handshake_timeout_seconds),
            Limit::number("streams_per_connection_max", self.streams_per_connection_max.into()),
            Limit::count("requests_max", self.requests_max),
            Limit::count("request_body_bytes_max", self.request_body_bytes_max),
            Limit::within("header_list_bytes_max", self.header_list_bytes_max.into(), HEADER_LIST_BYTES),
            Limit::count("reset_streams_max", self.reset_streams_max).or_none(),
            Limit::count("faulty_streams_max", self.faulty_streams_max).or_none(),
            Limit::within("stream_window_bytes", self.stream_window_bytes.into(), WINDOW_BYTES),
            Limit::within("connection_window_bytes", self.connection_window_bytes.into(), WINDOW_BYTES),
            Limit::within("send_buffer_bytes_max", octets(self.send_buffer_bytes_max), WINDOW_BYTES),
            Limit::count("bodies_per_peer_max", self.bodies_per_peer_max),
            Limit::seconds("body_timeout_seconds", self.body_timeout_seconds),
            Limit::seconds("request_timeout_seconds", self.request_timeout_seconds),
            Limit::seconds("answer_timeout_seconds", self.answer_timeout_seconds),
            Limit::seconds("keepalive_interval_seconds", self.keepalive_interval_seconds),
            Limit::seconds("keepalive_timeout_seconds", self.keepalive_timeout_seconds),
            Limit::seconds("drain_timeout_seconds", self.drain_timeout_seconds).or_none(),
            Limit::seconds("reload_interval_seconds", self.reload_interval_seconds),
            Limit::seconds("reverify_interval_seconds", self.reverify_interval_seconds),
        ])
    }
}

/// RFC 9113 clause 6.9.1.
const WINDOW_BYTES: std::ops::RangeInclusive<u64> = 1..=2_147_483_647;
/// With less than this a path and an access token find no room; a gibibyte is no limit.
pub(crate) const HEADER_LIST_BYTES: std::ops::RangeInclusive<u64> = 1_024..=1_073_741_824;
