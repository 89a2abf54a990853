//! Sleeping UEs, and the network exposure function by which they are woken.

mod failures;
mod monitoring;
mod nef;
mod notifications;
mod restart;
mod triggers;

use std::net::SocketAddr;

use akma::Gpsi;
use message::TriggeringInformation;
use nef::{Asked, Conduct, Nef, destination, notify_as};
use sbi::{PeerName, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::ExposureSection;

const OWN: &str = "msisdn-491700000001";
const OTHER: &str = "extid-meter-8@example.com";
const SUPI: &str = "imsi-001010000000007";

/// The server of notifications, until it is stopped or dropped.
struct Exposed {
    server: SbiServer,
    stop: CancellationToken,
}

impl Exposed {
    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.server.stopped()).await.unwrap();
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn limits() -> Limits {
    Limits {
        trigger_delay_seconds: 0,
        trigger_restart_pause_seconds: 0,
        trigger_backoff_first_seconds: 1,
        backoff_first_milliseconds: 50,
        backoff_max_seconds: 1,
        ..Limits::default()
    }
}

fn section(nef: SocketAddr) -> ExposureSection {
    ExposureSection {
        nef: format!("https://{nef}"),
        scs_as_id: "msgin5g".to_owned(),
        notification_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        notification_uri: None,
        // Every certificate here names 127.0.0.1.
        notifier: PeerName { dns_name: Some("nef.example".to_owned()), ..PeerName::default() },
        reachability_monitoring: false,
        monitoring_reports: 1,
        monitoring_seconds: None,
        application_port: 5684,
        limits: ServerLimits { drain_timeout_seconds: 0, ..ServerLimits::default() },
        requests: ClientLimits::default(),
    }
}

async fn expose(net: &Net, section: &ExposureSection) -> Exposed {
    let stop = CancellationToken::new();
    let tls = pki::server(net.directory.path());
    let limits = section.requests.clone();
    let client = sbi::SbiClient::new(sbi::SbiClientConfig { tls: tls.clone(), limits }).unwrap();
    let server = crate::reachability::serve(&net.core, section, client, tls, stop.clone()).await.unwrap();
    Exposed { server, stop }
}

async fn net_and_nef() -> (Net, Nef, Exposed) {
    let net = Net::with(limits()).await;
    let nef = Nef::start(&net).await;
    let exposed = expose(&net, &section(nef.address)).await;
    (net, nef, exposed)
}

async fn monitored() -> (Net, Nef, Exposed) {
    let net = Net::with(limits()).await;
    let nef = Nef::start(&net).await;
    let exposed = expose(&net, &ExposureSection { reachability_monitoring: true, ..section(nef.address) }).await;
    (net, nef, exposed)
}

fn triggering(ue_identifier: Option<&str>) -> ClientProfile {
    ClientProfile {
        triggering: Some(TriggeringInformation {
            ue_identifier: ue_identifier.map(str::to_owned),
            ports: vec![5000, 5001],
            protocol: None,
        }),
        ..ClientProfile::default()
    }
}

impl Net {
    /// A UE that the AAnF told `ue_id` of, and `gpsi` beside it, registered with `profile`.
    async fn sleeper(&self, name: &str, ue_id: &str, gpsi: Option<&str>, profile: &ClientProfile) -> Ue {
        self.associate(ue_id, name);
        let gpsi = gpsi.map(|gpsi| gpsi.parse::<Gpsi>().unwrap());
        let mut ue = self.connect_as(ProvenPeer { gpsi, ..peer(Some(ue_id), None) }, STREAM_OCTETS);
        let registration = Registration { ue_service_id: name.parse().unwrap(), client_profile: Some(profile.clone()) };
        assert_eq!(ue.exchange(&registration.encode()).await.code, Code::CREATED);
        ue
    }

    /// One with its own GPSI proven, that went away.
    async fn asleep(&self, name: &str) {
        self.sleeper(name, OWN, None, &triggering(None)).await.leave().await;
    }

    fn outcomes(&self, family: &str, outcome: &'static str) -> u64 {
        self.core.reachability.metrics.count(family, outcome)
    }
}
