//! `[https]`

use std::net::SocketAddr;
use std::time::Duration;

use akma::DigestUaProtocol;
use sbi::{CertificateFiles, ServerLimits};
use serde::{Deserialize, Serialize};

use crate::limits::DURATION_MAX;

/// `[https]`: MSGin5G-1 over HTTPS with HTTP Digest (TS 33.535 Annex B.1.2). Without it, it is not served.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpsSection {
    /// Where devices connect. Port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The certificate that proves the server to devices: it must carry `server.fqdn`. Its `ca` is not used. None:
    /// `[certificates]`.
    #[serde(default)]
    pub certificates: Option<CertificateFiles>,
    /// Whether a request with a body must be covered by `auth-int`, so that nobody between TLS and here can change the body. Many
    /// HTTP stacks, curl's included, have only `auth`: for them this is to be false.
    #[serde(default = "default_body_integrity")]
    pub body_integrity: bool,
    /// Which Ua* protocol identifier K_AF has (INFERRED): `http_digest`, `0100000002`, or `cipher_suite`, `010001` and the suite of the
    /// device's TLS connection. Devices must have the same.
    #[serde(default)]
    pub ua_protocol: DigestUaProtocol,
    /// Limits on devices.
    #[serde(default)]
    pub devices: DeviceLimits,
    /// Limits of the HTTP server. Its request time-out must be longer than a delivery may take, and than a long poll.
    #[serde(default = "default_limits")]
    pub limits: ServerLimits,
}

/// `[https.devices]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceLimits {
    /// Devices, each one A-KID, that have proven themselves and are remembered. One more takes the place of one without a session
    /// that has been silent for `nonce_lifetime_seconds`, of the longest silent of them; where there is none: 503 `NF_CONGESTION`.
    pub devices_max: usize,
    /// Silence after which a device is forgotten: it is away until it registers again. At least `nonce_lifetime_seconds`.
    pub device_idle_seconds: u64,
    /// How long a nonce is good. Then 401 with `stale`, and a new one.
    pub nonce_lifetime_seconds: u64,
    /// Nonces that one device uses at once. One more: those as old as its oldest are not good any more.
    pub nonces_per_device_max: usize,
    /// Keys that are looked up for one nonce before somebody is proven with it. One more: 401 with `stale`, and a new one.
    pub lookups_per_nonce_max: u32,
    /// Nonces of which that is counted. Beyond, the oldest is counted anew: what one source may look up bounds it.
    pub lookup_nonces_max: usize,
    /// Requests of one device that wait to be handed on. One more: 429 `TOO_MANY`.
    pub requests_per_device_max: usize,
    /// How long a long poll waits that does not say, and at most.
    pub poll_wait_seconds: u64,
    /// How long a device that stopped listening counts as listening. Then what it did not acknowledge is stored or failed, and
    /// it is away.
    pub listen_gap_seconds: u64,
    /// How often a stream of events that has none shows that it lives.
    pub comment_interval_seconds: u64,
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            devices_max: 10_000,
            device_idle_seconds: 3600,
            nonce_lifetime_seconds: 300,
            nonces_per_device_max: 64,
            lookups_per_nonce_max: 8,
            lookup_nonces_max: 16_384,
            requests_per_device_max: 64,
            poll_wait_seconds: 25,
            listen_gap_seconds: 10,
            comment_interval_seconds: 15,
        }
    }
}

/// How often silent devices are looked for, at most.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(10);

impl DeviceLimits {
    pub(crate) fn device_idle(&self) -> Duration {
        Duration::from_secs(self.device_idle_seconds)
    }

    pub(crate) fn nonce_lifetime(&self) -> Duration {
        Duration::from_secs(self.nonce_lifetime_seconds)
    }

    pub(crate) fn poll_wait(&self) -> Duration {
        Duration::from_secs(self.poll_wait_seconds)
    }

    pub(crate) fn listen_gap(&self) -> Duration {
        Duration::from_secs(self.listen_gap_seconds)
    }

    pub(crate) fn comment_interval(&self) -> Duration {
        Duration::from_secs(self.comment_interval_seconds)
    }

    pub(crate) fn sweep_interval(&self) -> Duration {
        self.device_idle().min(SWEEP_INTERVAL_MAX)
    }

    fn members(&self) -> [(&'static str, u64); 10] {
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        [
            ("devices_max", count(self.devices_max)),
            ("nonces_per_device_max", count(self.nonces_per_device_max)),
            ("lookups_per_nonce_max", u64::from(self.lookups_per_nonce_max)),
            ("lookup_nonces_max", count(self.lookup_nonces_max)),
            ("requests_per_device_max", count(self.requests_per_device_max)),
            ("device_idle_seconds", self.device_idle_seconds),
            ("nonce_lifetime_seconds", self.nonce_lifetime_seconds),
            ("poll_wait_seconds", self.poll_wait_seconds),
            ("listen_gap_seconds", self.listen_gap_seconds),
            ("comment_interval_seconds", self.comment_interval_seconds),
        ]
    }
}

impl HttpsSection {
    /// What is wrong with it, if anything: the key, and why. A delivery may take `delivery_seconds`.
    pub(crate) fn fault(&self, delivery_seconds: u64) -> Option<(String, &'static str)> {
        let of_devices = |name: &str| format!("https.devices.{name}");
        let members = self.devices.members();
        if let Some((name, _)) = members.iter().find(|(_, value)| *value == 0) {
            return Some((of_devices(name), "must not be 0"));
        }
        let longest = DURATION_MAX.as_secs();
        if let Some((name, _)) = members.iter().find(|(name, value)| name.ends_with("_seconds") && *value > longest) {
            return Some((of_devices(name), "must not be longer than a hundred years"));
        }
        if self.devices.device_idle_seconds < self.devices.nonce_lifetime_seconds {
            return Some((
                of_devices("device_idle_seconds"),
                "must not be less than https.devices.nonce_lifetime_seconds",
            ));
        }
        let request_seconds = self.limits.request_timeout_seconds;
        if self.devices.poll_wait_seconds >= request_seconds {
            return Some((
                of_devices("poll_wait_seconds"),
                "must be shorter than https.limits.request_timeout_seconds",
            ));
        }
        (request_seconds <= delivery_seconds).then(|| {
            let reason = "must be longer than a delivery may take: \
                limits.queue_timeout_seconds and limits.delivery_timeout_seconds together";
            ("https.limits.request_timeout_seconds".to_owned(), reason)
        })
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8445))
}

fn default_body_integrity() -> bool {
    true
}

/// Devices are many and strangers, and each has a connection or two.
fn default_limits() -> ServerLimits {
    ServerLimits {
        connections_max: 20_000,
        // A long poll is a request all the time that it waits.
        requests_max: 20_000,
        // Strangers' among them.
        bodies_per_peer_max: 128,
        streams_per_connection_max: 32,
        request_timeout_seconds: 60,
        unknown_server_name_refused: true,
        ..ServerLimits::default()
    }
}
