//! Users: subscribers of the lab, provisioned, associated and authenticated as any other is.

use std::path::Path;

use akma::{HomeNetwork, RoutingIndicator, Supi, UsimCredentials};
use client::{AkmaMaterial, KeySource, SoftUsim, SoftUsimConfig};
use futures_util::{StreamExt, TryStreamExt};
use lab::{LabJson, SecretHex, SubscriberClient, Subscription};
use message::UeServiceId;
use sbi::association::AssociationClient;
use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig};

use crate::BenchError;

/// One user, with the keys of its last authentication.
pub(super) struct User {
    pub(super) ue_service_id: UeServiceId,
    pub(super) keys: AkmaMaterial,
}

/// Makes `count` users.
pub(super) async fn provision(lab: &LabJson, directory: &Path, count: usize) -> Result<Vec<User>, BenchError> {
    let provisioner = http(lab, directory, "pki/provisioner.pem", "pki/provisioner.key")?;
    let provisioning = Provisioning {
        subscribers: SubscriberClient::new(provisioner.clone(), &lab.core.udm),
        associations: AssociationClient::new(provisioner, lab.core.configuration.clone()),
        access_network: http(lab, directory, &lab.nf_client.cert, &lab.nf_client.key)?,
        ausf: lab.core.ausf.clone(),
        home_network: HomeNetwork::new(&lab.home_network.mcc, &lab.home_network.mnc).map_err(failed)?,
    };
    futures_util::stream::iter(0..count)
        .map(|number| provisioning.user(number))
        .buffered(CONCURRENT)
        .try_collect()
        .await
}

struct Provisioning {
    subscribers: SubscriberClient,
    associations: AssociationClient,
    access_network: SbiClient,
    ausf: String,
    home_network: HomeNetwork,
}

impl Provisioning {
    async fn user(&self, number: usize) -> Result<User, BenchError> {
        let supi = self.supi(number)?;
        let k: [u8; 16] = std::array::from_fn(|index| (number >> (8 * (index % 4))) as u8 ^ index as u8);
        let opc = [0x0c; 16];
        let subscription = Subscription::new(supi.clone(), SecretHex::new(k.to_vec()), SecretHex::new(opc.to_vec()));
        self.subscribers.put(&subscription).await.map_err(failed)?;
        let ue_service_id: UeServiceId = format!("bench-{number}@lab.example").parse().map_err(failed)?;
        self.associations.associate(&supi.clone().into(), &ue_service_id).await.map_err(failed)?;
        let config = SoftUsimConfig {
            supi,
            credentials: UsimCredentials::milenage_opc(&k, &opc),
            routing_indicator: RoutingIndicator::default(),
            home_network: self.home_network.clone(),
            serving_network: self.home_network.serving_network_name(),
            ausf: self.ausf.clone(),
            state: None,
        };
        let usim = SoftUsim::new(config, self.access_network.clone()).map_err(failed)?;
        Ok(User { ue_service_id, keys: usim.obtain(None).await.map_err(failed)? })
    }

    /// An IMSI of 15 digits: MCC, MNC, then a number apart from the lab's own subscribers.
    fn supi(&self, number: usize) -> Result<Supi, BenchError> {
        let network = format!("{}{}", self.home_network.mcc(), self.home_network.mnc());
        let digits = 15_usize.saturating_sub(network.len());
        format!("imsi-{network}{:0digits$}", 700_000_000 + number).parse().map_err(failed)
    }
}

fn http(lab: &LabJson, directory: &Path, certificate: &str, key: &str) -> Result<SbiClient, BenchError> {
    let tls = CertificateFiles {
        certificate: directory.join(certificate),
        key: directory.join(key),
        ca: directory.join(&lab.ca),
        crl: None,
    };
    SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Provision(error.to_string())
}

/// Users made at once.
const CONCURRENT: usize = 32;
