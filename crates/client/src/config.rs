//! What a client needs to know.

use std::{path::PathBuf, time::Duration};

use akma::Fqdn;
use message::UeServiceId;
use transport::PskClientConfig;

use crate::{error::ClientError, limits::ClientLimits};

/// Uri-Path of the server's resource where nothing else is configured.
pub const PATH_DEFAULT: &str = "msgin5g";

/// Settings of a client. Start from [`ClientConfig::new`] and change what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Where the server listens for CoAP over TLS: `host:port`. Names are looked up at each connection.
    pub server: String,
    /// The server's name, for SNI and AF_ID. Both sides derive K_AF from it, so it must be the server's own.
    pub server_fqdn: Fqdn,
    /// Uri-Path of the one CoAP resource, on both sides (`MSGin5G-Server-address`, TS 24.538 clause 7.2.3).
    pub path: String,
    /// Who the client is.
    pub ue_service_id: UeServiceId,
    /// Supported Maximum MSGin5G segment size, told at registration, in octets of payload.
    pub segment_size: Option<u32>,
    /// Where to keep what was handed over, so that a restarted client hands nothing over twice; made if missing.
    /// Without it only this process remembers.
    pub state_dir: Option<PathBuf>,
    /// Authenticate anew when keys are this old, before the operator's K_AF lifetime ends. Without it, when the server
    /// refuses them.
    pub authenticate_after: Option<Duration>,
    /// TLS versions and time-out.
    pub tls: PskClientConfig,
    /// Limits.
    pub limits: ClientLimits,
}

impl ClientConfig {
    /// Settings for the server at `server` (`host:port`), whose name is `server_fqdn`.
    pub fn new(server: impl Into<String>, server_fqdn: Fqdn, ue_service_id: UeServiceId) -> Self {
        Self {
            server: server.into(),
            server_fqdn,
            path: PATH_DEFAULT.to_owned(),
            ue_service_id,
            segment_size: None,
            state_dir: None,
            authenticate_after: None,
            tls: PskClientConfig::default(),
            limits: ClientLimits::default(),
        }
    }

    /// The Uri-Path segments of the resource.
    pub(crate) fn path_segments(&self) -> Vec<String> {
        self.path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
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
    fn a_limit_of_zero_is_refused_by_name() {
        let mut config = config();
        config.limits.unanswered_max = 0;
        assert!(config.check().unwrap_err().to_string().contains("limits.unanswered_max"));
    }
}
