//! A home network with two AKMA anchor functions, each for some routing indicators (TS 33.535 clause 6.7): whoever registers a
//! key or wants one goes to the right one, AUSF, MSGin5G Server, NEF and Configuration Function alike.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use akma::{AfId, UaProtocolId};
use client::{Client, ClientError, ConfigurationFunction, Incoming, KeySource, Outcome, OutgoingMessage};
use common::Lab;
use common::fleet::{Fleet, FleetUe};
use common::function::{Function, ausf_of, configuration};
use sbi::association::AssociationClient;
use sbi::client_credentials::ClientCredentials;
use sbi::naanf::{AkmaAfKeyData, AkmaAfKeyRequest, AnchorRoute};
use sbi::nef_akma::NefAkmaClient;
use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig, SbiError};
use serde_json::{Value, json};

/// Of the general AAnF, of the other, and of none.
const INDICATORS: [&str; 3] = ["0", "17", "99"];

/// AUSF, server, NEF and Configuration Function that know both AAnFs.
struct Network {
    lab: Lab,
    general: Function,
    other: Function,
    server: Function,
    nef: Function,
    configuration: Function,
    /// One with each of [`INDICATORS`].
    fleet: Fleet,
}

impl Network {
    /// Their addresses are in everybody's configuration.
    async fn configured() -> Self {
        let lab = Lab::start();
        let data = lab.path("state/third-aanf").display().to_string();
        let general = Function::aanf(&lab, &[("MSGIN5G_ROUTING_INDICATORS", r#"["0"]"#), ADMIN]);
        let other =
            Function::aanf(&lab, &[("MSGIN5G_ROUTING_INDICATORS", r#"["17"]"#), ADMIN, ("MSGIN5G_DATA", &data)]);
        let route =
            AnchorRoute { root: other.root(), routing_indicators: ["17".parse().unwrap()].into_iter().collect() };
        let root = general.root();
        Self::of(lab, general, other, &root, vec![route]).await
    }

    /// They register at the lab's NRF, and nobody is told where they are.
    async fn at_the_nrf() -> Self {
        let lab = Lab::start();
        let register = ("MSGIN5G_NRF__REGISTER", "true");
        // With the identity of the lab's own AAnF, whose profile, which serves everybody, it thereby replaces.
        let general = Function::aanf(&lab, &[("MSGIN5G_ROUTING_INDICATORS", r#"["0", "8"]"#), ADMIN, register]);
        issue(&lab, OTHER_NAME, "AANF", OTHER_ID);
        let mut config = configuration(&lab, "aanf");
        // UDM translates identifiers for the lab's AAnF alone.
        config.remove("udm");
        config.insert("routing_indicators".to_owned(), vec!["17", "678"].into());
        let text = |name: &str| toml::Value::from(lab.path(name).display().to_string());
        config["tls"].as_table_mut().unwrap().extend([
            ("certificate".to_owned(), text(&format!("pki/{OTHER_NAME}.pem"))),
            ("key".to_owned(), text(&format!("pki/{OTHER_NAME}.key"))),
        ]);
        config.extend([
            ("listen".to_owned(), "127.0.0.1:0".into()),
            ("admin".to_owned(), "127.0.0.1:0".into()),
            ("data".to_owned(), text("state/third-aanf")),
        ]);
        let other = Function::configured(&lab, "aanf", "other-aanf.toml", &config);
        for function in [&general, &other] {
            function.metric_reaches("nrf_registered", 1);
        }
        Self::of(lab, general, other, "nrf", Vec::new()).await
    }

    async fn of(lab: Lab, general: Function, other: Function, aanf: &str, routes: Vec<AnchorRoute>) -> Self {
        let listed: Vec<String> = routes
            .iter()
            .map(|route| format!("{{root = \"{}\", routing_indicators = [\"17\"]}}", route.root))
            .collect();
        let listed = format!("[{}]", listed.join(", "));
        let server =
            Function::server(&lab, &[("MSGIN5G_AKMA__AANF", aanf), ("MSGIN5G_AKMA__AANF_ROUTES", listed.as_str())]);
        let nef = Function::nef(
            &lab,
            &[("MSGIN5G_NEF__AKMA__AANF", aanf), ("MSGIN5G_NEF__AKMA__AANF_ROUTES", listed.as_str())],
        );
        let configuration =
            Function::configuration(&lab, &[("MSGIN5G_COAP__AANF", aanf), ("MSGIN5G_COAP__AANF_ROUTES", &listed)]);
        let ausf = ausf_of(&lab, aanf, routes).await;
        let indicators = INDICATORS.map(|indicator| indicator.parse().unwrap());
        let mut fleet = Fleet::provision_with(&lab, &indicators, &ausf).await;
        for ue in &mut fleet.ues {
            ue.config.server = server.address().to_string();
        }
        Self { lab, general, other, server, nef, configuration, fleet }
    }

    /// What each of the two AAnFs has answered of this operation.
    fn answered(&self, operation: &str) -> [u64; 2] {
        [&self.general, &self.other].map(|function| {
            let prefix = format!("aanf_answers_total{{operation=\"{operation}\",");
            let (_, page) = function.admin("/metrics");
            let samples = page.lines().filter(|line| line.starts_with(&prefix));
            samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        })
    }

    /// Asserts that since `before` only the AAnF of `indicator` was asked for this operation: neither, if it is nobody's.
    #[track_caller]
    fn only_its_own_was_asked(&self, operation: &str, before: [u64; 2], indicator: &str, who: &str) {
        let now = self.answered(operation);
        let asked = [now[0] > before[0], now[1] > before[1]];
        assert_eq!(asked, [indicator == "0", indicator == "17"], "{who}, {operation}, routing indicator {indicator}");
    }

    fn ues(&self) -> [&FleetUe; 3] {
        self.fleet.ues.iter().collect::<Vec<_>>().try_into().ok().unwrap()
    }

    /// Application function `name` outside, at the second NEF.
    fn outside(&self, name: &str) -> NefAkmaClient {
        let file = |name: &str| self.lab.path(&format!("pki/{name}"));
        let tls = CertificateFiles {
            certificate: file(&format!("{name}.pem")),
            key: file(&format!("{name}.key")),
            ca: file("ca.pem"),
            crl: None,
        };
        let http = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
        let root = self.nef.root();
        let tokens = ClientCredentials::new(http.clone(), format!("{root}/oauth2/token"), name, None);
        NefAkmaClient::new(&http, root, Arc::new(tokens))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ues_of_two_anchor_functions_write_to_each_other_and_one_of_neither_is_refused() {
    let network = Network::configured().await;
    let [general, other, nobodys] = network.ues();
    let (from, _kept) = general.connect().await;
    let (_to, mut arriving) = other.connect().await;
    let outcome = tokio::spawn(async move {
        let Some(Incoming::Message(message)) = arriving.next().await else { panic!("no message") };
        let payload = message.content().payload.clone();
        message.accept().await.unwrap();
        payload
    });
    let sent = from.send(OutgoingMessage::to_ue(&other.service_id, "between two anchor functions")).await.unwrap();
    assert_eq!(sent, Outcome::Delivered);
    assert_eq!(outcome.await.unwrap(), b"between two anchor functions");
    // Its primary authentication succeeds; no AAnF takes its key, and the server finds none.
    let refused = Client::connect(nobodys.config.clone(), Shared(nobodys.usim())).await;
    assert!(matches!(refused, Err(ClientError::KeysRefused(_))), "{:?}", refused.err());
    let keys = nobodys.usim().obtain(None).await.unwrap();
    assert!(keys.a_kid.as_str().starts_with("99."), "{}", keys.a_kid);

    // Without the other AAnF, those of the general one are served as before.
    let Network { mut other, server, fleet, .. } = network;
    other.kill();
    fleet.ues[0].connect().await;
    drop(server);
}

/// A key source may be shared.
struct Shared(Arc<client::SoftUsim>);

impl KeySource for Shared {
    fn obtain<'a>(
        &'a self,
        refused: Option<&'a akma::AKid>,
    ) -> futures_util::future::BoxFuture<'a, Result<client::AkmaMaterial, client::KeySourceError>> {
        self.0.obtain(refused)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nef_and_configuration_function_ask_the_anchor_function_of_the_routing_indicator() {
    let network = Network::configured().await;
    for (ue, indicator) in network.ues().into_iter().zip(INDICATORS) {
        ask_of_nef_and_configuration_function(&network, ue, indicator).await;
    }
}

/// NEF and Configuration Function ask for a key of the UE, and get it from its AAnF, or are told that there is none. At the
/// AAnFs themselves nothing of it is seen where the NRF has none to name; a configured general one refuses.
async fn ask_of_nef_and_configuration_function(network: &Network, ue: &FleetUe, indicator: &str) {
    let served = indicator != "99";
    let keys = ue.usim().obtain(None).await.unwrap();
    assert_eq!(keys.a_kid.as_str().split('.').next(), Some(indicator));

    let af_id = AfId::new("weather.outside.example".parse().unwrap(), UaProtocolId::TLS_1_3);
    let request = AkmaAfKeyRequest::new(af_id.clone(), keys.a_kid.clone());
    let before = network.answered(RETRIEVE);
    let answer = key_for(&network.outside("af-weather"), &request).await;
    if served {
        let key = answer.unwrap().unwrap_or_else(|| panic!("no key for routing indicator {indicator}")).kaf;
        assert!(key == akma::k_af(&keys.k_akma, &af_id), "not the UE's K_AF");
        network.only_its_own_was_asked(RETRIEVE, before, indicator, "NEF");
    } else {
        let refused = answer.unwrap_err();
        let problem = refused.problem().unwrap_or_else(|| panic!("{refused}"));
        assert_eq!(problem.status, Some(404), "{problem}");
        assert_eq!(problem.cause.as_deref(), Some("ROUTING_INDICATOR_NOT_SERVED"));
    }

    associate(network, ue).await;
    let fqdn = network.lab.lab_json()["core"]["configuration_fqdn"].as_str().unwrap().parse().unwrap();
    let function = ConfigurationFunction::new(network.configuration.coap_address().to_string(), fqdn);
    let before = network.answered(RETRIEVE);
    match function.retrieve(ue.usim()).await {
        Ok(retrieved) if served => {
            let document = String::from_utf8(retrieved.document).unwrap();
            assert!(document.contains(ue.service_id.as_str()), "{document}");
            network.only_its_own_was_asked(RETRIEVE, before, indicator, "Configuration Function");
        }
        Err(ClientError::KeysRefused(_)) if !served => {}
        other => panic!("routing indicator {indicator}: {:?}", other.map(|retrieved| retrieved.fresh_for)),
    }
}

/// K_AF through the NEF, which for a while may have to say that the AAnF has yet to hear the UE's GPSI from UDM.
async fn key_for(nef: &NefAkmaClient, request: &AkmaAfKeyRequest) -> Result<Option<AkmaAfKeyData>, SbiError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = nef.retrieve_key(request).await;
        let cause = answer.as_ref().err().and_then(SbiError::problem).and_then(|problem| problem.cause.as_deref());
        if cause != Some("GPSI_NOT_YET_KNOWN") || Instant::now() > deadline {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// At the second Configuration Function, which has associations of its own.
async fn associate(network: &Network, ue: &FleetUe) {
    let tls = CertificateFiles {
        certificate: network.lab.path("pki/provisioner.pem"),
        key: network.lab.path("pki/provisioner.key"),
        ca: network.lab.path("pki/ca.pem"),
        crl: None,
    };
    let provisioner = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
    let associations = AssociationClient::new(provisioner, network.configuration.root());
    associations.associate(&ue.supi.clone().into(), &ue.service_id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_the_nrf_each_consumer_finds_the_anchor_function_whose_profile_has_the_routing_indicator() {
    let network = Network::at_the_nrf().await;
    for (ue, indicator) in network.ues().into_iter().zip(INDICATORS) {
        let (registered, retrieved) = (network.answered(REGISTER), network.answered(RETRIEVE));
        let keys = ue.keys().await;
        network.only_its_own_was_asked(REGISTER, registered, indicator, "AUSF");
        assert!(keys.a_kid.as_str().starts_with(&format!("{indicator}.")), "{}", keys.a_kid);

        ask_of_nef_and_configuration_function(&network, ue, indicator).await;
        let asked_before = if indicator == "99" { retrieved } else { network.answered(RETRIEVE) };
        if indicator == "99" {
            let refused = Client::connect(ue.config.clone(), Shared(ue.usim())).await;
            assert!(matches!(refused, Err(ClientError::KeysRefused(_))), "{:?}", refused.err());
        } else {
            let (client, _incoming) = ue.connect().await;
            assert_eq!(client.status().registrations, 1);
        }
        network.only_its_own_was_asked(RETRIEVE, asked_before, indicator, "MSGin5G Server");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nrf_tells_an_ausf_of_another_make_which_anchor_function_serves_a_routing_indicator() {
    let network = Network::at_the_nrf().await;
    let found = |indicator: &str| discovered(&network.lab, &format!("&routing-indicator={indicator}"));
    let general_id = own_identity(&network.lab, "aanf");
    for (indicators, id, root, named) in [
        (["0", "8"], general_id.as_str(), network.general.root(), json!(["0", "8"])),
        (["17", "678"], OTHER_ID, network.other.root(), json!(["17", "678"])),
    ] {
        for indicator in indicators {
            let found = found(indicator);
            let [profile] = found.as_slice() else { panic!("{indicator}: {found:?}") };
            assert_eq!(profile["nfInstanceId"], id);
            assert_eq!(profile["nfType"], "AANF");
            assert_eq!(profile["aanfInfoList"], json!({"0": {"routingIndicators": named}}), "{profile}");
            let service = &profile["nfServices"][0];
            assert_eq!(service["serviceName"], "naanf-akma", "{profile}");
            assert_eq!(service["oauth2Required"], true, "{profile}");
            let at = &service["ipEndPoints"][0];
            assert_eq!(format!("https://{}:{}", at["ipv4Address"].as_str().unwrap(), at["port"]), root);
        }
    }
    assert_eq!(found("99"), Vec::<Value>::new(), "nobody's");
    assert_eq!(discovered(&network.lab, "").len(), 2, "whoever does not say which");
}

/// The AAnFs that the lab's NRF tells curl, which has the AUSF's certificate.
fn discovered(lab: &Lab, further: &str) -> Vec<Value> {
    let root = lab.lab_json()["core"]["nrf"].as_str().unwrap().to_owned();
    let query = format!("target-nf-type=AANF&requester-nf-type=AUSF&service-names=naanf-akma{further}");
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail-with-body", "--http2", "--max-time", "60"])
        .arg("--cacert")
        .arg(lab.path("pki/ca.pem"))
        .arg("--cert")
        .arg(lab.path("pki/ausf.pem"))
        .arg("--key")
        .arg(lab.path("pki/ausf.key"))
        .arg(format!("{root}/nnrf-disc/v1/nf-instances?{query}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["nfInstances"].as_array().unwrap().clone()
}

/// The NF instance ID in the certificate of the lab's function `name`.
fn own_identity(lab: &Lab, name: &str) -> String {
    let pem = std::fs::read(lab.path(&format!("pki/{name}.pem"))).unwrap();
    let certificate = openssl::x509::X509::from_pem(&pem).unwrap();
    let names = certificate.subject_alt_names().unwrap();
    names.iter().find_map(|name| name.uri()?.strip_prefix("urn:uuid:").map(str::to_owned)).unwrap()
}

/// Certificate and key `pki/NAME.pem` and `pki/NAME.key`.
fn issue(lab: &Lab, name: &str, nf_type: &str, nf_instance_id: &str) {
    let issued = common::msgin5g()
        .args(["lab", "issue", "--dir"])
        .arg(lab.directory())
        .args(["--name", name, "--nf-type", nf_type, "--nf-instance-id", nf_instance_id])
        .output()
        .unwrap();
    assert!(issued.status.success(), "{issued:?}");
}

const ADMIN: (&str, &str) = ("MSGIN5G_ADMIN", "127.0.0.1:0");
/// The other AAnF where it has an identity of its own.
const OTHER_NAME: &str = "aanf-other";
const OTHER_ID: &str = "5b0c4a0e-6d53-4c0f-9a41-0a7c1de0f017";
const REGISTER: &str = "register-anchorkey";
const RETRIEVE: &str = "retrieve-applicationkey";
