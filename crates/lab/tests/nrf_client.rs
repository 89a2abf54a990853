//! The consumer side of the NRF: functions stay registered whatever becomes of it, and get their tokens from it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::Duration;

use lab::{Directory, Ports, nrf};
use prometheus_client::registry::Registry;
use sbi::admin::Health;
use sbi::nrf::{NrfClient, NrfConfig, NrfLimits, OwnFunction, OwnService};
use sbi::token::{AccessTokenClaims, TokenKeys};
use sbi::{SbiError, TokenSource, TokenTarget};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

struct Network {
    directory: Directory,
    ports: Ports,
    running: Option<(nrf::Running, CancellationToken)>,
    _folder: TempDir,
}

impl Network {
    /// Without an NRF yet.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::open_or_create(&folder.path().join("lab")).unwrap();
        let ports = directory.choose_ports(None).unwrap();
        Self { directory, ports, running: None, _folder: folder }
    }

    async fn start(&mut self, change: impl FnOnce(&mut nrf::Config)) {
        let mut config = self.directory.nrf_configuration(&self.ports).unwrap();
        change(&mut config);
        let shutdown = CancellationToken::new();
        let running = nrf::start(config, shutdown.clone()).await.unwrap();
        self.running = Some((running, shutdown));
    }

    async fn stop(&mut self) {
        let (running, shutdown) = self.running.take().unwrap();
        shutdown.cancel();
        running.stopped().await;
    }

    fn registered(&self) -> usize {
        self.running.as_ref().map_or(0, |(running, _)| running.registered().len())
    }

    /// A client with the certificate of `name`, in a hurry.
    fn client(&self, name: &str, nf_type: &str, change: impl FnOnce(&mut NrfConfig)) -> Function {
        let mut config = NrfConfig {
            limits: NrfLimits { retry_min_milliseconds: 20, retry_max_milliseconds: 50, ..NrfLimits::default() },
            ..self.directory.nrf_section(&self.ports)
        };
        change(&mut config);
        let client = NrfClient::new(&config, &self.directory.certificate(name), nf_type).unwrap();
        let mut registry = Registry::default();
        client.register_metrics(&mut registry);
        Function { client, registry, health: Health::new(), shutdown: CancellationToken::new() }
    }

    /// The AAnF, registered and staying so.
    async fn aanf(&self) -> Function {
        let aanf = self.client("aanf", "AANF", |_| {});
        aanf.keep_registered();
        until(|| self.registered() == 1).await;
        aanf
    }
}

struct Function {
    client: NrfClient,
    registry: Registry,
    health: Health,
    shutdown: CancellationToken,
}

impl Function {
    fn keep_registered(&self) {
        let listen: SocketAddr = ([127, 0, 0, 1], 8443).into();
        let service = OwnService { name: "naanf-akma", version: "v1", listen, consumers: &["AUSF", "AF"] };
        let own =
            OwnFunction { services: vec![service], routing_indicators: vec!["0".to_owned()], ..OwnFunction::default() };
        self.client.keep_registered(&own, self.health.clone(), self.shutdown.clone());
    }

    /// The figure of a metric, 0 if it is not there.
    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |figure| figure.parse().unwrap())
    }

    fn tokens_fetched(&self) -> u64 {
        self.metric("nrf_requests_total{operation=\"token\",result=\"success\"}")
    }

    async fn token(&self) -> Result<std::sync::Arc<str>, SbiError> {
        self.client.token(&target(), "naanf-akma").await
    }
}

fn target() -> TokenTarget {
    TokenTarget { nf_type: "AANF".to_owned(), nf_instance_id: None }
}

/// Waits for something that must come.
async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

#[tokio::test]
async fn a_function_registers_once_there_is_an_nrf_and_leaves_when_it_stops() {
    let mut network = Network::new();
    let aanf = network.client("aanf", "AANF", |_| {});
    aanf.keep_registered();
    until(|| aanf.metric("nrf_requests_total{operation=\"registration\",result=\"failed\"}") > 0).await;
    assert!(aanf.health.is_ready(), "it works without");
    assert_eq!(aanf.metric("nrf_registered"), 0);
    network.start(|_| {}).await;
    until(|| network.registered() == 1 && aanf.metric("nrf_registered") == 1).await;

    let id = aanf.client.nf_instance_id();
    assert_eq!(id, network.directory.nf_instance_id("aanf").unwrap(), "from the certificate");
    let profile = aanf.client.api().profile(id).await.unwrap();
    assert_eq!(sbi::nrf::api_root(&profile, "naanf-akma").unwrap(), "https://127.0.0.1:8443");
    assert!(profile.fqdn.unwrap().starts_with("aanf."));

    aanf.shutdown.cancel();
    aanf.client.stopped().await;
    assert_eq!(network.registered(), 0);
}

#[tokio::test]
async fn a_function_registers_anew_when_the_nrf_has_forgotten_it_and_gives_signs_of_life_meanwhile() {
    let mut network = Network::new();
    let hurried = |config: &mut nrf::Config| {
        config.limits.heart_beat_seconds = 1;
        config.limits.heart_beat_grace_seconds = 5;
    };
    network.start(hurried).await;
    let aanf = network.aanf().await;
    until(|| aanf.metric("nrf_requests_total{operation=\"heartbeat\",result=\"success\"}") > 1).await;
    assert_eq!(network.registered(), 1);

    network.stop().await;
    until(|| aanf.metric("nrf_requests_total{operation=\"heartbeat\",result=\"failed\"}") > 0).await;
    network.start(hurried).await;
    until(|| network.registered() == 1).await;
}

#[tokio::test]
async fn many_requests_at_once_fetch_one_token_and_later_ones_use_it() {
    let mut network = Network::new();
    network.start(|_| {}).await;
    let _aanf = network.aanf().await;
    let ausf = network.client("ausf", "AUSF", |_| {});
    let tokens = futures_util::future::join_all((0..20).map(|_| ausf.token())).await;
    let first = tokens[0].as_ref().unwrap();
    assert!(tokens.iter().all(|token| token.as_ref().unwrap() == first));
    assert_eq!(*first, ausf.token().await.unwrap());
    assert_eq!(ausf.tokens_fetched(), 1);
    let keys = TokenKeys::from_file(&network.directory.nrf_jwks()).unwrap();
    let claims: AccessTokenClaims = keys.verify(first).unwrap();
    assert_eq!(claims.sub, ausf.client.nf_instance_id().to_string());
    // Another scope is another token.
    ausf.client.token(&target(), "naanf-akma naanf-akma:anchorkey").await.unwrap();
    assert_eq!(ausf.tokens_fetched(), 2);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_goes_on_being_good_while_the_nrf_is_away() {
    let mut network = Network::new();
    let configured = |config: &mut nrf::Config| {
        let producer =
            serde_json::json!({"nf_instance_id": config.nf_instance_id, "nf_type": "AANF", "services": ["naanf-akma"]});
        config.producers = vec![serde_json::from_value(producer).unwrap()];
    };
    network
        .start(|config| {
            configured(config);
            config.token_lifetime_seconds = 12;
        })
        .await;
    let ausf = network.client("ausf", "AUSF", |_| {});
    let first = ausf.token().await.unwrap();
    network.stop().await;
    assert_eq!(ausf.token().await.unwrap(), first, "kept");
    network.start(configured).await;
    let renewed = async {
        while ausf.token().await.unwrap() == first {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.unwrap();
    assert_eq!(ausf.tokens_fetched(), 2);
}

#[tokio::test]
async fn a_rejected_token_is_not_given_out_again_unless_it_is_new() {
    let mut network = Network::new();
    network.start(|_| {}).await;
    let _aanf = network.aanf().await;
    let ausf = network.client("ausf", "AUSF", |config| config.limits.refusal_milliseconds = 300);
    let first = ausf.token().await.unwrap();
    ausf.client.rejected(&target(), "naanf-akma", &first);
    assert_eq!(ausf.token().await.unwrap(), first, "another would fare no better just now");
    tokio::time::sleep(Duration::from_millis(300)).await;
    ausf.client.rejected(&target(), "naanf-akma", "another token");
    assert_eq!(ausf.token().await.unwrap(), first);
    ausf.client.rejected(&target(), "naanf-akma", &first);
    ausf.token().await.unwrap();
    assert_eq!(ausf.tokens_fetched(), 2);
}

#[tokio::test]
async fn a_refusal_is_remembered_for_a_while_so_that_the_nrf_is_not_asked_for_each_request() {
    let mut network = Network::new();
    network.start(|_| {}).await;
    let ausf = network.client("ausf", "AUSF", |config| config.limits.refusal_milliseconds = 60_000);
    let refused = "nrf_requests_total{operation=\"token\",result=\"refused\"}";
    for _ in 0..5 {
        let error = ausf.token().await.unwrap_err();
        assert!(matches!(&error, SbiError::NrfRefused { reason, transient: false } if reason == "invalid_scope"));
    }
    assert_eq!(ausf.metric(refused), 1);
    network.stop().await;
    let other = network.client("ausf", "AUSF", |_| {});
    assert!(other.token().await.unwrap_err().is_transient(), "an NRF that is away may come back");
}

#[tokio::test]
async fn functions_are_found_by_service_and_routing_indicator() {
    let mut network = Network::new();
    network.start(|_| {}).await;
    let _aanf = network.aanf().await;
    let server = network.client("server", "AF", |_| {});
    let aanf = "AANF".parse().unwrap();
    let roots = server.client.roots(&aanf, "naanf-akma", Some("0")).await.unwrap();
    assert_eq!(roots, ["https://127.0.0.1:8443"]);
    assert!(server.client.roots(&aanf, "naanf-akma", Some("9")).await.unwrap().is_empty());
    server.client.roots(&aanf, "naanf-akma", Some("0")).await.unwrap();
    assert_eq!(server.metric("nrf_requests_total{operation=\"discovery\",result=\"success\"}"), 2, "kept");
}

#[tokio::test]
async fn tokens_come_with_an_assertion_where_that_is_configured() {
    let mut network = Network::new();
    network.start(|_| {}).await;
    let _aanf = network.aanf().await;
    let ausf = network.client("ausf", "AUSF", |config| config.cca = true);
    ausf.token().await.unwrap();
}

#[test]
fn a_certificate_without_nf_instance_needs_one_in_the_configuration() {
    let network = Network::new();
    let mut tls = network.directory.certificate("aanf");
    tls.certificate.clone_from(&tls.ca);
    let section = network.directory.nrf_section(&network.ports);
    assert!(NrfClient::new(&section, &tls, "AANF").is_err());
}
