//! How many connections the process has file descriptors for.
//!
//! The store opens files, too, and one that it is refused while it writes ends the service for everybody. So strangers'
//! connections stop short of the system's limit, whatever is configured.

use rustix::process::{Resource, getrlimit};

use crate::config::Config;

/// Descriptors that no connection of a peer may take: for the store's files, our own requests to others, health and
/// metrics, and what the runtime holds.
pub(crate) const DESCRIPTORS_RESERVED: usize = 512;

/// The share of what is left that Application Servers' connections may take when there is not enough for all.
const API_SHARE: usize = 4;

/// The same of connections of devices over HTTPS.
const DEVICE_SHARE: usize = 4;

/// Connections at once, one descriptor each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    ues: usize,
    application_servers: usize,
    /// Devices over HTTPS; 0 where none are served.
    devices: usize,
}

impl Bounds {
    /// What of this fits under a limit on open files, at least one each.
    fn within(self, files_max: usize) -> Self {
        let left = files_max.saturating_sub(DESCRIPTORS_RESERVED);
        if self.ues.saturating_add(self.application_servers).saturating_add(self.devices) <= left {
            return self;
        }
        let application_servers = self.application_servers.min(left / API_SHARE).max(1);
        let devices = self.devices.min((left / DEVICE_SHARE).max(1));
        let left = left.saturating_sub(application_servers).saturating_sub(devices);
        Self { application_servers, devices, ues: self.ues.min(left).max(1) }
    }
}

/// Brings the configured numbers of connections down to what this process may have open, and says so.
pub(crate) fn bound_connections(config: &mut Config) {
    // None is no limit.
    let Some(files_max) = getrlimit(Resource::Nofile).current else { return };
    let configured = Bounds {
        ues: config.limits.connections_max,
        application_servers: config.api.limits.connections_max,
        devices: config.https.as_ref().map_or(0, |https| https.limits.connections_max),
    };
    let bounds = configured.within(usize::try_from(files_max).unwrap_or(usize::MAX));
    if bounds != configured {
        tracing::warn!(
            files_max,
            reserved = DESCRIPTORS_RESERVED,
            connections_max = bounds.ues,
            connections_configured = configured.ues,
            api_connections_max = bounds.application_servers,
            api_connections_configured = configured.application_servers,
            https_connections_max = bounds.devices,
            https_connections_configured = configured.devices,
            "fewer connections than configured: the limit on open files (`ulimit -n`) is too low"
        );
    }
    config.limits.connections_max = bounds.ues;
    config.api.limits.connections_max = bounds.application_servers;
    if let Some(https) = &mut config.https {
        https.limits.connections_max = bounds.devices;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_as_configured() {
        let configured = Bounds { ues: 300, application_servers: 100, devices: 100 };
        assert_eq!(configured.within(DESCRIPTORS_RESERVED + 500), configured);
        assert_eq!(configured.within(usize::MAX), configured);
    }

    #[test]
    fn connections_leave_the_store_its_files_whatever_is_configured() {
        let configured = Bounds { ues: 100_000, application_servers: 1024, devices: 0 };
        assert_eq!(configured.within(1024), Bounds { ues: 384, application_servers: 128, devices: 0 });
        assert_eq!(configured.within(65_536), Bounds { ues: 64_000, application_servers: 1024, devices: 0 });
        let with_devices = Bounds { devices: 20_000, ..configured };
        assert_eq!(with_devices.within(1024), Bounds { ues: 256, application_servers: 128, devices: 128 });
        let many = Bounds { ues: usize::MAX, application_servers: usize::MAX, devices: usize::MAX }.within(4096);
        assert_eq!(many.ues + many.application_servers + many.devices, 4096 - DESCRIPTORS_RESERVED);
    }

    #[test]
    fn a_limit_below_the_reserve_leaves_one_connection_each() {
        let configured = Bounds { ues: 10, application_servers: 10, devices: 0 };
        assert_eq!(configured.within(64), Bounds { ues: 1, application_servers: 1, devices: 0 });
    }
}
