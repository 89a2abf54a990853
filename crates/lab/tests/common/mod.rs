//! A home network on loopback: real UDM, AUSF and AAnF behind mutual TLS, made as `msgin5g lab` makes them.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use akma::{AKid, AfId, KAf, ServingNetworkName, Supi, UaProtocolId, Usim, UsimCredentials};
use lab::{Algorithm, Directory, LabSubscriber, Ports, SubscriberClient, ausf, nrf, udm};
use sbi::naanf::{AkmaAfKeyRequest, NaanfClient};
use sbi::nausf::{AuthenticationInfo, NausfClient, UEAuthenticationCtx};
use sbi::nrf::NrfClient;
use sbi::{CertificateFiles, ClientLimits, ProblemDetails, SbiClient, SbiClientConfig, SbiError};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub struct Core {
    pub directory: Directory,
    pub ports: Ports,
    aanf: Option<Function<aanf::Running>>,
    ausf: Option<Function<ausf::Running>>,
    udm: Option<Function<udm::Running>>,
    nrf: Option<Function<nrf::Running>>,
    _folder: TempDir,
}

struct Function<T> {
    running: T,
    shutdown: CancellationToken,
}

impl Core {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a network with the subscribers of the lab, its AUSF changed by `change`.
    pub async fn start_with(change: impl FnOnce(&mut ausf::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::open_or_create(&folder.path().join("lab")).unwrap();
        let ports = directory.choose_ports(None).unwrap();
        let mut core = Self { directory, ports, aanf: None, ausf: None, udm: None, nrf: None, _folder: folder };
        core.start_nrf().await;
        core.start_udm().await;
        core.start_aanf().await;
        core.start_ausf(change).await;
        for subscription in core.directory.subscriptions() {
            core.subscribers().put(&subscription).await.unwrap();
        }
        core.all_registered().await;
        core
    }

    pub async fn start_nrf(&mut self) {
        let shutdown = CancellationToken::new();
        let config = self.directory.nrf_configuration(&self.ports).unwrap();
        let running = nrf::start(config, shutdown.clone()).await.unwrap();
        self.nrf = Some(Function { running, shutdown });
    }

    pub async fn stop_nrf(&mut self) {
        let Function { running, shutdown } = self.nrf.take().unwrap();
        shutdown.cancel();
        running.stopped().await;
    }

    /// Waits until UDM, AAnF and AUSF are registered at the NRF.
    pub async fn all_registered(&self) {
        let nrf = &self.nrf.as_ref().unwrap().running;
        let wait = async {
            while nrf.registered().len() < 3 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.unwrap();
    }

    pub async fn start_udm(&mut self) {
        let shutdown = CancellationToken::new();
        let config = self.directory.udm_configuration(&self.ports).unwrap();
        let running = udm::start(config, shutdown.clone()).await.unwrap();
        self.udm = Some(Function { running, shutdown });
    }

    pub async fn stop_udm(&mut self) {
        let Function { running, shutdown } = self.udm.take().unwrap();
        shutdown.cancel();
        running.stopped().await;
    }

    pub async fn start_aanf(&mut self) {
        let shutdown = CancellationToken::new();
        let config = toml::from_str(&self.directory.configuration("aanf", &self.ports).unwrap()).unwrap();
        let running = aanf::start(config, shutdown.clone()).await.unwrap();
        self.aanf = Some(Function { running, shutdown });
    }

    pub async fn stop_aanf(&mut self) {
        let Function { running, shutdown } = self.aanf.take().unwrap();
        shutdown.cancel();
        running.stopped().await;
    }

    pub async fn start_ausf(&mut self, change: impl FnOnce(&mut ausf::Config)) {
        let shutdown = CancellationToken::new();
        let mut config = self.directory.ausf_configuration(&self.ports).unwrap();
        change(&mut config);
        let running = ausf::start(config, shutdown.clone()).await.unwrap();
        self.ausf = Some(Function { running, shutdown });
    }

    /// A client with the certificate of `name`, without tokens.
    pub fn http(&self, name: &str) -> SbiClient {
        Self::http_with(self.directory.certificate(name))
    }

    /// The same, with tokens that the NRF gives this function of type `nf_type`.
    pub fn with_tokens(&self, name: &str, nf_type: &str) -> SbiClient {
        self.authorized(self.directory.certificate(name), nf_type)
    }

    /// A client with this certificate, and with tokens that the NRF gives its function.
    pub fn authorized(&self, tls: CertificateFiles, nf_type: &str) -> SbiClient {
        let nrf = NrfClient::new(&self.directory.nrf_section(&self.ports), &tls, nf_type).unwrap();
        nrf.authorize(Self::http_with(tls))
    }

    fn http_with(tls: CertificateFiles) -> SbiClient {
        SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap()
    }

    pub fn root_of_udm(&self) -> String {
        format!("https://{}", self.ports.udm)
    }

    pub fn root_of_ausf(&self) -> String {
        format!("https://{}", self.ports.ausf)
    }

    /// The AUSF as an AMF sees it.
    pub fn ausf(&self) -> NausfClient {
        NausfClient::new(self.http("lab-nf"), self.root_of_ausf())
    }

    pub fn subscribers(&self) -> SubscriberClient {
        SubscriberClient::new(self.http("provisioner"), &self.root_of_udm())
    }

    pub fn snn(&self) -> ServingNetworkName {
        self.directory.home_network().serving_network_name()
    }

    /// The subscriber with this number in `lab.json`, from 1.
    pub fn subscriber(&self, number: usize) -> LabSubscriber {
        self.directory.network().subscribers[number - 1].clone()
    }

    pub fn info(&self, ue: &str) -> AuthenticationInfo {
        AuthenticationInfo {
            supi_or_suci: ue.parse().unwrap(),
            serving_network_name: self.snn(),
            resynchronization_info: None,
            routing_indicator: None,
            supported_features: None,
        }
    }

    pub async fn challenge(&self, subscriber: &LabSubscriber) -> UEAuthenticationCtx {
        self.ausf().authenticate(&self.info(subscriber.supi.as_str())).await.unwrap()
    }

    /// What the AAnF gives the MSGin5G Server for an A-KID.
    pub async fn k_af(&self, a_kid: &AKid) -> Option<(KAf, Supi)> {
        let aanf = NaanfClient::new(self.with_tokens("server", "AF"), format!("https://{}", self.ports.aanf));
        let af_id = AfId::new(self.directory.server_fqdn().parse().unwrap(), UaProtocolId::TLS_1_3);
        let data = aanf.retrieve_applicationkey(&AkmaAfKeyRequest::new(af_id, a_kid.clone())).await.unwrap()?;
        Some((data.kaf, data.supi.unwrap()))
    }
}

pub fn credentials(subscriber: &LabSubscriber) -> UsimCredentials {
    let (k, opc) = (subscriber.k.expose(), subscriber.opc.expose());
    match subscriber.algorithm {
        Algorithm::Tuak => UsimCredentials::tuak_topc(k, opc.try_into().unwrap()).unwrap(),
        _ => UsimCredentials::milenage_opc(k.try_into().unwrap(), opc.try_into().unwrap()),
    }
}

pub fn usim(subscriber: &LabSubscriber) -> Usim {
    Usim::new(credentials(subscriber), akma::Sqn::ZERO)
}

/// The refusal behind an error.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, SbiError>) -> (u16, String) {
    match result {
        Err(SbiError::Problem(problem)) => {
            let ProblemDetails { status, cause, .. } = *problem;
            (status.unwrap(), cause.map(String::from).unwrap_or_default())
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}
