//! An anchor function with an AUSF, several AFs and strangers around it, for the tests.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, reason = "each test file uses its part")]

use std::collections::BTreeSet;

use aanf::{AfConfig, Config, NotificationConfig, Running, TableLimits};
use akma::{AfId, KAkma, UaProtocolId};
use sbi::authorization::AuthorizationConfig;
use sbi::naanf::{AkmaAfKeyData, AkmaAfKeyRequest, AkmaKeyInfo, NaanfClient};
use sbi::testing::TestAuthority;
use sbi::{ProblemDetails, SbiClient, SbiError, ServerLimits};
use store::DatabaseOptions;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub(crate) const AANF: &str = "a0000000-0000-4000-8000-000000000000";
pub(crate) const AUSF: &str = "b0000000-0000-4000-8000-000000000000";
/// In the operator's domain: may see the SUPI.
pub(crate) const INSIDE_AF: &str = "c0000000-0000-4000-8000-000000000000";
/// May not.
pub(crate) const OUTSIDE_AF: &str = "d0000000-0000-4000-8000-000000000000";
/// Its keys live for a second.
pub(crate) const HASTY_AF: &str = "e0000000-0000-4000-8000-000000000000";
pub(crate) const STRANGER: &str = "f0000000-0000-4000-8000-000000000000";
pub(crate) const UDM: &str = "90000000-0000-4000-8000-000000000000";

pub(crate) const INSIDE: &str = "inside.example.com";
pub(crate) const OUTSIDE: &str = "outside.example.com";
pub(crate) const HASTY: &str = "hasty.example.com";

/// Chain 1 of our vectors: K_AKMA and the K_AF for `msgin5g.example.com` with TLS 1.3.
pub(crate) const K_AKMA: &str = "176cdc89b8bc8634d912bf84cb7ed7b85afe1b8802afa110d1100a881df659a3";
pub(crate) const K_AF: &str = "57928ae6395cc0034792b1fbde071749542ec5c57da5e4d302ac654060923771";

pub(crate) struct Fixture {
    pub(crate) authority: TestAuthority,
    pub(crate) directory: TempDir,
    pub(crate) config: Config,
    pub(crate) running: Running,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) fn af(instance: &str, fqdns: &[&str]) -> AfConfig {
    AfConfig {
        nf_instance_id: Some(instance.to_owned()),
        fqdns: fqdns.iter().map(|fqdn| fqdn.parse().unwrap()).collect(),
        ..AfConfig::default()
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&TestAuthority, &mut Config)) -> Self {
        let authority = TestAuthority::new();
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            admin: Some(([127, 0, 0, 1], 0).into()),
            data: directory.path().join("aanf"),
            storage_key: None,
            kaf_lifetime_seconds: 3600,
            kaf_may_outlive_kakma: true,
            routing_indicators: BTreeSet::new(),
            notifications: NotificationConfig::default(),
            tables: TableLimits::default(),
            tls: authority.issue(AANF, &[]),
            limits: ServerLimits::default(),
            store: DatabaseOptions::default(),
            udm: None,
            authorization: AuthorizationConfig::tls_only(),
            nrf: None,
            policy: None,
            afs: vec![
                AfConfig { may_register: true, ..af(AUSF, &[]) },
                AfConfig { supi_access: true, ..af(INSIDE_AF, &[INSIDE, "msgin5g.example.com"]) },
                af(OUTSIDE_AF, &[OUTSIDE]),
                AfConfig { supi_access: true, kaf_lifetime_seconds: Some(1), ..af(HASTY_AF, &[HASTY]) },
            ],
        };
        change(&authority, &mut config);
        let shutdown = CancellationToken::new();
        let running = aanf::start(config.clone(), shutdown.clone()).await.unwrap();
        Self { authority, directory, config, running, shutdown }
    }

    pub(crate) async fn stop(&self) {
        self.shutdown.cancel();
        self.running.stopped().await;
    }

    /// Stops and starts again on the same state.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.shutdown = CancellationToken::new();
        self.running = aanf::start(self.config.clone(), self.shutdown.clone()).await.unwrap();
    }

    pub(crate) fn root(&self) -> String {
        format!("https://127.0.0.1:{}", self.running.local_addr().port())
    }

    pub(crate) fn client(&self, instance: &str) -> NaanfClient {
        NaanfClient::new(self.authority.client(instance), self.root())
    }

    pub(crate) fn http(&self, instance: &str) -> (SbiClient, String) {
        (self.authority.client(instance), format!("{}/naanf-akma/v1", self.root()))
    }

    pub(crate) async fn register(&self, supi: &str, a_kid: &str) {
        self.client(AUSF).register_anchorkey(&key_info(supi, a_kid, K_AKMA)).await.unwrap();
    }

    pub(crate) async fn retrieve(
        &self,
        instance: &str,
        fqdn: &str,
        a_kid: &str,
    ) -> Result<Option<AkmaAfKeyData>, SbiError> {
        self.client(instance).retrieve_applicationkey(&request(fqdn, a_kid)).await
    }
}

pub(crate) fn key_info(ue_id: &str, a_kid: &str, k_akma: &str) -> AkmaKeyInfo {
    AkmaKeyInfo {
        supp_feat: None,
        ue_id: ue_id.parse().unwrap(),
        a_kid: a_kid.parse().unwrap(),
        k_akma: KAkma::from_hex(k_akma).unwrap(),
    }
}

pub(crate) fn af_id(fqdn: &str) -> AfId {
    AfId::new(fqdn.parse().unwrap(), UaProtocolId::TLS_1_3)
}

pub(crate) fn request(fqdn: &str, a_kid: &str) -> AkmaAfKeyRequest {
    AkmaAfKeyRequest::new(af_id(fqdn), a_kid.parse().unwrap())
}

pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, SbiError>) -> ProblemDetails {
    match answer.unwrap_err() {
        SbiError::Problem(problem) => *problem,
        other => panic!("no refusal but {other:?}"),
    }
}

pub(crate) const SUPI: &str = "imsi-001010000000001";
pub(crate) const OTHER_SUPI: &str = "imsi-001010000000002";
pub(crate) const A_KID: &str = "0.first@5gc.mnc001.mcc001.3gppnetwork.org";
pub(crate) const NEW_A_KID: &str = "0.second@5gc.mnc001.mcc001.3gppnetwork.org";

pub(crate) async fn metrics(fixture: &Fixture) -> String {
    admin(fixture, "/metrics").await
}

pub(crate) async fn admin(fixture: &Fixture, path: &str) -> String {
    let mut stream = TcpStream::connect(fixture.running.admin_addr().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
