//! A Configuration Function with its certificates and files, for each test its own.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses what it needs")]

use std::collections::BTreeSet;

use akma::UeId;
use configuration::{Config, Running, TableLimits};
use message::UeServiceId;
use sbi::association::AssociationClient;
use sbi::authorization::AuthorizationConfig;
use sbi::ss_gm::SsGmClient;
use sbi::ss_upr::SsUprClient;
use sbi::testing::TestAuthority;
use sbi::{PeerName, ProblemDetails, SbiError, ServerLimits};
use store::DatabaseOptions;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const CONFIGURATION: &str = "a0000000-0000-4000-8000-000000000000";
pub const PROVISIONER: &str = "b0000000-0000-4000-8000-000000000000";
pub const SERVER: &str = "c0000000-0000-4000-8000-000000000000";
pub const STRANGER: &str = "f0000000-0000-4000-8000-000000000000";

pub const SUPI: &str = "imsi-001010000000001";
pub const GPSI: &str = "msisdn-491700000001";

pub struct Fixture {
    pub authority: TestAuthority,
    pub directory: TempDir,
    pub config: Config,
    pub running: Running,
    pub shutdown: CancellationToken,
}

impl Fixture {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_of(TestAuthority::new(), change).await
    }

    pub async fn start_of(authority: TestAuthority, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let peer = |instance: &str| PeerName { nf_instance_id: Some(instance.to_owned()), dns_name: None };
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            admin: None,
            data: directory.path().join("configuration"),
            tables: TableLimits::default(),
            coap: None,
            nrf: None,
            policy: None,
            tls: authority.issue(CONFIGURATION, &[]),
            limits: ServerLimits { request_body_bytes_max: 262_144, ..ServerLimits::default() },
            store: DatabaseOptions::default(),
            authorization: AuthorizationConfig::tls_only(),
            provisioners: vec![peer(PROVISIONER)],
            readers: vec![peer(SERVER)],
        };
        change(&mut config);
        let shutdown = CancellationToken::new();
        let running = configuration::start(config.clone(), shutdown.clone()).await.unwrap();
        Self { authority, directory, config, running, shutdown }
    }

    pub async fn stop(&self) {
        self.shutdown.cancel();
        self.running.stopped().await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.shutdown = CancellationToken::new();
        self.running = configuration::start(self.config.clone(), self.shutdown.clone()).await.unwrap();
    }

    pub fn root(&self) -> String {
        format!("https://127.0.0.1:{}", self.running.local_addr().port())
    }

    pub fn provisioner(&self, instance: &str) -> AssociationClient {
        AssociationClient::new(self.authority.client(instance), self.root())
    }

    pub fn reader(&self, instance: &str) -> SsUprClient {
        SsUprClient::new(self.authority.client(instance), self.root())
    }

    pub fn groups(&self, instance: &str) -> SsGmClient {
        SsGmClient::new(self.authority.client(instance), self.root())
    }

    pub async fn may_register(&self, ue_id: &str) -> BTreeSet<UeServiceId> {
        self.reader(SERVER).ue_service_ids(&ue(ue_id)).await.unwrap()
    }

    pub async fn associate(&self, ue_id: &str, ue_service_id: &str) -> bool {
        self.provisioner(PROVISIONER).associate(&ue(ue_id), &service(ue_service_id)).await.unwrap()
    }
}

pub fn ue(text: &str) -> UeId {
    text.parse().unwrap()
}

pub fn service(text: &str) -> UeServiceId {
    text.parse().unwrap()
}

pub fn services<const N: usize>(texts: [&str; N]) -> BTreeSet<UeServiceId> {
    texts.into_iter().map(service).collect()
}

pub fn refused<T: std::fmt::Debug>(answer: Result<T, SbiError>) -> ProblemDetails {
    match answer.unwrap_err() {
        SbiError::Problem(problem) => *problem,
        other => panic!("no refusal but {other:?}"),
    }
}
