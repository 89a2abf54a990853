//! Many UEs at once: subscribers of the lab, provisioned, associated and authenticated as any other is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use akma::{AKid, HomeNetwork, RoutingIndicator, Supi, UsimCredentials};
use client::{
    AkmaMaterial, Client, ClientConfig, ClientError, IncomingStream, KeySource, KeySourceError, SoftUsim,
    SoftUsimConfig,
};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use lab::{SecretHex, SubscriberClient, Subscription};
use message::UeServiceId;
use sbi::association::AssociationClient;
use sbi::ss_gm::{SsGmClient, VALGroupDocument};
use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig};
use serde_json::Value;

use super::{Lab, msgin5g};

/// UEs made at once.
const CONCURRENT: usize = 16;

/// The UEs of one lab.
pub struct Fleet {
    pub ues: Vec<FleetUe>,
}

/// One UE with the soft USIM of its own.
#[derive(Clone)]
pub struct FleetUe {
    pub supi: Supi,
    pub service_id: UeServiceId,
    pub config: ClientConfig,
    /// What its USIM and the UDM share.
    pub k: [u8; 16],
    pub opc: [u8; 16],
    usim: Arc<SoftUsim>,
}

/// A key source may be shared by the clients that follow each other.
struct Shared(Arc<SoftUsim>);

impl KeySource for Shared {
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        self.0.obtain(refused)
    }
}

/// The same keys whatever becomes of them.
struct Given(AkmaMaterial);

impl KeySource for Given {
    fn obtain<'a>(&'a self, _: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

impl Fleet {
    /// Provisions so many UEs, named `fleet-<number>@lab.example`.
    pub async fn provision(lab: &Lab, count: usize) -> Self {
        let ausf = lab.lab_json()["core"]["ausf"].as_str().unwrap().to_owned();
        Self::provision_for(lab, count, &ausf).await
    }

    /// The same, to authenticate at another AUSF than the lab's.
    pub async fn provision_for(lab: &Lab, count: usize, ausf: &str) -> Self {
        let indicators = vec![RoutingIndicator::default(); count];
        Self::provision_with(lab, &indicators, ausf).await
    }

    /// The same, one with each of these routing indicators.
    pub async fn provision_with(lab: &Lab, indicators: &[RoutingIndicator], ausf: &str) -> Self {
        let description = lab.lab_json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let http = |certificate: String, key: String| {
            let tls = CertificateFiles {
                certificate: lab.path(&certificate),
                key: lab.path(&key),
                ca: lab.path(&text(&description["ca"])),
                crl: None,
            };
            SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap()
        };
        let provisioner = http("pki/provisioner.pem".into(), "pki/provisioner.key".into());
        let access_network = http(text(&description["nf_client"]["cert"]), text(&description["nf_client"]["key"]));
        let subscribers = SubscriberClient::new(provisioner.clone(), &text(&description["core"]["udm"]));
        let associations = AssociationClient::new(provisioner, text(&description["core"]["configuration"]));
        let network = &description["home_network"];
        let home_network = HomeNetwork::new(&text(&network["mcc"]), &text(&network["mnc"])).unwrap();
        let server = &description["server"];
        let make = |number: usize| {
            let (subscribers, associations, access_network) = (&subscribers, &associations, access_network.clone());
            let (home_network, ausf) = (home_network.clone(), ausf.to_owned());
            let routing_indicator = indicators[number].clone();
            let (address, fqdn, path) = (text(&server["coaps_tcp"]), text(&server["fqdn"]), text(&server["path"]));
            async move {
                let supi: Supi =
                    format!("imsi-{}{}{:010}", home_network.mcc(), home_network.mnc(), 600_000_000 + number)
                        .parse()
                        .unwrap();
                let k: [u8; 16] = std::array::from_fn(|index| (number >> (8 * (index % 4))) as u8 ^ index as u8);
                let opc = [0x0f; 16];
                let secret = |octets: &[u8]| SecretHex::new(octets.to_vec());
                let mut subscription = Subscription::new(supi.clone(), secret(&k), secret(&opc));
                subscription.routing_indicator = routing_indicator.clone();
                subscribers.put(&subscription).await.unwrap();
                let service_id: UeServiceId = format!("fleet-{number}@lab.example").parse().unwrap();
                associations.associate(&supi.clone().into(), &service_id).await.unwrap();
                let usim = SoftUsimConfig {
                    supi: supi.clone(),
                    credentials: UsimCredentials::milenage_opc(&k, &opc),
                    routing_indicator,
                    serving_network: home_network.serving_network_name(),
                    home_network,
                    ausf,
                    state: None,
                };
                let mut config = ClientConfig::new(address, fqdn.parse().unwrap(), service_id.clone());
                config.path = path;
                config.limits.backoff_first_milliseconds = 50;
                config.limits.backoff_max_milliseconds = 500;
                let usim = Arc::new(SoftUsim::new(usim, access_network).unwrap());
                Ok::<_, std::convert::Infallible>(FleetUe { supi, service_id, config, k, opc, usim })
            }
        };
        let ues = stream::iter(0..indicators.len())
            .map(make)
            .buffered(CONCURRENT)
            .try_collect()
            .await
            .unwrap_or_else(|never| match never {});
        Self { ues }
    }

    /// Makes a group of all of them.
    pub async fn group(&self, lab: &Lab, name: &str) {
        let description = lab.lab_json();
        let tls = CertificateFiles {
            certificate: lab.path("pki/provisioner.pem"),
            key: lab.path("pki/provisioner.key"),
            ca: lab.path(description["ca"].as_str().unwrap()),
            crl: None,
        };
        let http = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
        let root = description["core"]["configuration"].as_str().unwrap();
        let document = VALGroupDocument::new(name.parse().unwrap());
        let document = document.with_members(self.ues.iter().map(|ue| &ue.service_id));
        SsGmClient::new(http, root).create(&document).await.unwrap();
    }
}

impl FleetUe {
    /// The keys of a primary authentication.
    pub async fn keys(&self) -> AkmaMaterial {
        self.usim.obtain(None).await.unwrap()
    }

    /// Its USIM, which authenticates when it is asked for keys.
    pub fn usim(&self) -> Arc<SoftUsim> {
        Arc::clone(&self.usim)
    }

    /// Connects, and tries again while the server is being killed.
    pub async fn connect(&self) -> (Client, IncomingStream) {
        self.connect_with(self.config.clone()).await
    }

    /// The same with another configuration.
    pub async fn connect_with(&self, config: ClientConfig) -> (Client, IncomingStream) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            match Client::connect(config.clone(), Shared(self.usim.clone())).await {
                Ok(connected) => return connected,
                Err(error) => assert!(Instant::now() < deadline, "never connected: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Connects with these keys and no others, or does not.
    pub async fn connect_by(&self, keys: &AkmaMaterial) -> Result<(Client, IncomingStream), ClientError> {
        Client::connect(self.config.clone(), Given(keys.clone())).await
    }

    /// Has the UDM know it, again or otherwise than before.
    pub fn subscribe(&self, lab: &Lab, arguments: &[&str]) {
        let [k, opc] = [&self.k, &self.opc].map(|octets| octets.map(|octet| format!("{octet:02x}")).concat());
        let mut command = msgin5g();
        command.args(["subscriber", "add", "--lab"]).arg(lab.lab_json_path());
        command.args(["--supi", self.supi.as_str(), "--k", &k, "--opc", &opc]).args(arguments);
        assert!(command.status().unwrap().success());
    }
}
