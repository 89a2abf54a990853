//! What a client needs to know.

use std::{path::PathBuf, time::Duration};

use akma::{DigestUaProtocol, Fqdn};
use message::{
    ClientProfile, CommunicationAvailability, DecodeLimits, Registration, TriggeringInformation, UeMessage, UeServiceId,
};
use serde::Deserialize;
use transport::PskClientConfig;

use crate::{
    aggregation::AggregationPolicy, error::ClientError, limits::ClientLimits, ue_configuration::UeConfiguration,
};

/// Uri-Path of the server's resource where nothing else is configured.
pub const PATH_DEFAULT: &str = "msgin5g";

/// What carries CoAP to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum Transport {
    /// TCP and TLS (`coaps+tcp`, RFC 8323).
    #[default]
    #[serde(rename = "tcp")]
    Tcp,
    /// WebSocket, TCP and TLS (`coaps+ws`, RFC 8323), where only port 443 is let through.
    #[serde(rename = "websocket")]
    WebSocket,
    /// UDP without TLS, each message under OSCORE (`coap`, TS 33.535 Annex D).
    #[serde(rename = "oscore-udp")]
    OscoreUdp,
    /// TCP without TLS, each message under OSCORE (`coap+tcp`).
    #[serde(rename = "oscore-tcp")]
    OscoreTcp,
    /// UDP and DTLS (`coaps`, RFC 7252), for devices that sleep or change their address.
    #[serde(rename = "udp")]
    Udp,
}

/// Settings of a client. Start from [`ClientConfig::new`] and change what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Where the server listens for CoAP over [`ClientConfig::transport`]: `host:port`. Names are looked up at each
    /// connection.
    pub server: String,
    /// What carries CoAP to it.
    pub transport: Transport,
    /// The server's name, for SNI and AF_ID. Both sides derive K_AF from it, so it must be the server's own.
    pub server_fqdn: Fqdn,
    /// Uri-Path of the one CoAP resource, on both sides (`MSGin5G-Server-address`, TS 24.538 clause 7.2.3).
    pub path: String,
    /// Who the client is.
    pub ue_service_id: UeServiceId,
    /// Supported Maximum MSGin5G segment size, told at registration, in octets of payload. What is sent is cut to the same
    /// size (INFERRED), or to [`ClientLimits::payload_octets_max`] if that is smaller.
    pub segment_size: Option<u32>,
    /// Sends small messages for one recipient as one (TS 23.554 clause 8.4), and tells the server at registration that it
    /// may do so, too. Without it every message goes on its own.
    pub aggregation: Option<AggregationPolicy>,
    /// When the client can be reached (TS 23.554 table 8.2.1-3), told at registration: outside these times the server
    /// delivers nothing.
    pub availability: Option<CommunicationAvailability>,
    /// How the device is triggered when it cannot be reached (TS 23.554 table 8.2.1-2), told at registration.
    pub triggering: Option<TriggeringInformation>,
    /// Where to keep what was handed over, so that a restarted client hands nothing over twice; made if missing.
    /// Without it only this process remembers.
    pub state_dir: Option<PathBuf>,
    /// Authenticate anew when keys are this old, before the operator's K_AF lifetime ends. Without it, when the server
    /// refuses them.
    pub authenticate_after: Option<Duration>,
    /// Versions of TLS, or those of DTLS that go with them, and time-out.
    pub tls: PskClientConfig,
    /// PEM: the authority of the server's certificate. With it the server is reached over HTTPS and HTTP Digest (TS 33.535 Annex
    /// B.1.2), at `server`; without it over CoAP and TLS with a pre-shared key.
    pub https_ca: Option<PathBuf>,
    /// Which Ua* protocol identifier K_AF has over HTTPS: that of the server's `https.ua_protocol`.
    pub https_ua_protocol: DigestUaProtocol,
    /// Limits.
    pub limits: ClientLimits,
}

impl ClientConfig {
    /// Settings for the server at `server` (`host:port`), whose name is `server_fqdn`.
    pub fn new(server: impl Into<String>, server_fqdn: Fqdn, ue_service_id: UeServiceId) -> Self {
        Self {
            server: server.into(),
            transport: Transport::default(),
            server_fqdn,
            path: PATH_DEFAULT.to_owned(),
            ue_service_id,
            segment_size: None,
            aggregation: None,
            availability: None,
            triggering: None,
            state_dir: None,
            authenticate_after: None,
            tls: PskClientConfig::default(),
            https_ca: None,
            https_ua_protocol: DigestUaProtocol::default(),
            limits: ClientLimits::default(),
        }
    }

    /// Settings as the Configuration Function says.
    #[must_use]
    pub fn from_ue_configuration(configuration: &UeConfiguration) -> Self {
        let server = &configuration.server;
        let mut config = Self::new(server.socket(), server.fqdn.clone(), configuration.ue_service_id.clone());
        config.path.clone_from(&server.path);
        config.segment_size = configuration.segment_size;
        config
    }

    /// The Uri-Path segments of the resource.
    pub(crate) fn path_segments(&self) -> Vec<String> {
        self.path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    }

    /// Octets of payload of one segment that is sent.
    pub(crate) fn segment_octets(&self) -> usize {
        let own = self.segment_size.map_or(usize::MAX, |octets| usize::try_from(octets).unwrap_or(usize::MAX));
        own.min(self.limits.payload_octets_max)
    }

    /// What the client tells about itself at registration, if anything.
    fn client_profile(&self) -> Option<ClientProfile> {
        let profile = ClientProfile {
            segment_size: self.segment_size,
            aggregation: self.aggregation.is_some().then_some(true),
            triggering: self.triggering.clone(),
            availability: self.availability,
        };
        (profile != ClientProfile::default()).then_some(profile)
    }

    /// The registration request (TS 23.554 table 8.2.1-1), coded.
    pub(crate) fn registration(&self) -> Vec<u8> {
        let (ue_service_id, client_profile) = (self.ue_service_id.clone(), self.client_profile());
        UeMessage::Registration(Registration { ue_service_id, client_profile }).encode()
    }

    pub(crate) fn check(&self) -> Result<(), ClientError> {
        if let Some(member) = self.limits.zero_member() {
            return Err(ClientError::Configuration(format!("limits.{member} must not be zero")));
        }
        if self.path_segments().is_empty() {
            return Err(ClientError::Configuration("path must name a resource, such as msgin5g".into()));
        }
        if self.path_segments().iter().any(|segment| segment.len() > 255) {
            return Err(ClientError::Configuration("a path segment has at most 255 octets".into()));
        }
        if self.segment_size == Some(0) {
            return Err(ClientError::Configuration("segment_size must not be zero".into()));
        }
        if self.segment_size.is_some_and(|octets| u64::from(octets) > self.limits.payload_octets_max as u64) {
            let text = "segment_size must not be larger than limits.payload_octets_max";
            return Err(ClientError::Configuration(text.into()));
        }
        if let Some(policy) = &self.aggregation {
            if policy.octets_max == 0 || policy.octets_max > self.segment_octets() {
                let text = format!("aggregation.octets_max must be from 1 to {}", self.segment_octets());
                return Err(ClientError::Configuration(text));
            }
            if policy.wait >= self.limits.send_timeout() {
                let text = "aggregation.wait must be shorter than limits.send_timeout_milliseconds";
                return Err(ClientError::Configuration(text.into()));
            }
        }
        // What the server could not read is better found here.
        UeMessage::decode(&self.registration(), &DecodeLimits::default())
            .map_err(|error| ClientError::Configuration(format!("registration: {error}")))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config() -> ClientConfig {
        ClientConfig::new("127.0.0.1:5684", "server.example".parse().unwrap(), "ue@example".parse().unwrap())
    }

    #[test]
    fn a_path_may_have_several_segments_and_must_have_one() {
        let mut config = config();
        assert_eq!(config.path_segments(), ["msgin5g"]);
        config.path = "/iot/messages/".into();
        assert_eq!(config.path_segments(), ["iot", "messages"]);
        assert!(config.check().is_ok());
        config.path = "/".into();
        assert!(matches!(config.check(), Err(ClientError::Configuration(_))));
    }

    #[test]
    fn what_is_told_at_registration_can_be_read_or_is_refused_beforehand() {
        let mut config = config();
        assert_eq!(config.client_profile(), None);
        config.segment_size = Some(256);
        config.aggregation = Some(AggregationPolicy { wait: Duration::from_millis(50), octets_max: 256 });
        let start = time::macros::datetime!(2026-12-01 0:00 UTC);
        let hourly = CommunicationAvailability { start, duration_seconds: 60, interval_seconds: Some(3600) };
        config.availability = Some(hourly);
        config.triggering = Some(TriggeringInformation { ports: vec![4000], ..TriggeringInformation::default() });
        config.check().unwrap();
        let profile = config.client_profile().unwrap();
        assert_eq!((profile.aggregation, profile.availability), (Some(true), Some(hourly)));
        config.availability = Some(CommunicationAvailability { interval_seconds: Some(59), ..hourly });
        assert!(config.check().unwrap_err().to_string().contains("registration"));
        config.availability = None;
        config.aggregation = Some(AggregationPolicy { wait: Duration::from_millis(50), octets_max: 257 });
        assert!(config.check().unwrap_err().to_string().contains("aggregation.octets_max"));
        config.aggregation = Some(AggregationPolicy { wait: Duration::from_secs(60), octets_max: 256 });
        assert!(config.check().unwrap_err().to_string().contains("aggregation.wait"));
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let mut config = config();
        config.limits.unanswered_max = 0;
        assert!(config.check().unwrap_err().to_string().contains("limits.unanswered_max"));
    }
}
