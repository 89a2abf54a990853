//! A home network with two AKMA anchor functions, each for some routing indicators (TS 33.535 clause 6.7): whoever registers a
//! key or wants one goes to the right one, AUSF, MSGin5G Server, NEF and Configuration Function alike.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::sync::Arc;

use akma::{AfId, UaProtocolId};
use client::{Client, ClientError, ConfigurationFunction, Incoming, KeySource, Outcome, OutgoingMessage};
use common::Lab;
use common::fleet::{Fleet, FleetUe};
use common::function::{Function, ausf_of};
use sbi::association::AssociationClient;
use sbi::client_credentials::ClientCredentials;
use sbi::naanf::{AkmaAfKeyRequest, AnchorRoute};
use sbi::nef_akma::NefAkmaClient;
use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig};

/// Of the general AAnF, of the other, and of none.
const INDICATORS: [&str; 3] = ["0", "17", "99"];

/// AUSF, server, NEF and Configuration Function that know both AAnFs.
struct Network {
    lab: Lab,
    _general: Function,
    other: Function,
    server: Function,
    nef: Function,
    configuration: Function,
    /// One with each of [`INDICATORS`].
    fleet: Fleet,
}

impl Network {
    async fn start() -> Self {
        let lab = Lab::start();
        let general = Function::aanf(&lab, &[("MSGIN5G_ROUTING_INDICATORS", r#"["0"]"#)]);
        let data = lab.path("state/third-aanf").display().to_string();
        let other = Function::aanf(&lab, &[("MSGIN5G_ROUTING_INDICATORS", r#"["17"]"#), ("MSGIN5G_DATA", &data)]);
        let (root, routes) =
            (general.root(), format!("[{{root = \"{}\", routing_indicators = [\"17\"]}}]", other.root()));
        let server = Function::server(
            &lab,
            &[("MSGIN5G_AKMA__AANF", root.as_str()), ("MSGIN5G_AKMA__AANF_ROUTES", routes.as_str())],
        );
        let nef = Function::nef(
            &lab,
            &[("MSGIN5G_NEF__AKMA__AANF", root.as_str()), ("MSGIN5G_NEF__AKMA__AANF_ROUTES", routes.as_str())],
        );
        let configuration = Function::configuration(
            &lab,
            &[("MSGIN5G_COAP__AANF", root.as_str()), ("MSGIN5G_COAP__AANF_ROUTES", routes.as_str())],
        );
        let route =
            AnchorRoute { root: other.root(), routing_indicators: ["17".parse().unwrap()].into_iter().collect() };
        let ausf = ausf_of(&lab, &root, vec![route]).await;
        let indicators = INDICATORS.map(|indicator| indicator.parse().unwrap());
        let mut fleet = Fleet::provision_with(&lab, &indicators, &ausf).await;
        for ue in &mut fleet.ues {
            ue.config.server = server.address().to_string();
        }
        Self { lab, _general: general, other, server, nef, configuration, fleet }
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
    let network = Network::start().await;
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
    let network = Network::start().await;
    let weather = network.outside("af-weather");
    let tls = CertificateFiles {
        certificate: network.lab.path("pki/provisioner.pem"),
        key: network.lab.path("pki/provisioner.key"),
        ca: network.lab.path("pki/ca.pem"),
        crl: None,
    };
    let provisioner = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap();
    let associations = AssociationClient::new(provisioner, network.configuration.root());
    let fqdn = network.lab.lab_json()["core"]["configuration_fqdn"].as_str().unwrap().parse().unwrap();
    let function = ConfigurationFunction::new(network.configuration.coap_address().to_string(), fqdn);
    for (ue, indicator) in network.ues().into_iter().zip(INDICATORS) {
        let served = indicator != "99";
        associations.associate(&ue.supi.clone().into(), &ue.service_id).await.unwrap();
        let keys = ue.usim().obtain(None).await.unwrap();
        assert_eq!(keys.a_kid.as_str().split('.').next(), Some(indicator));

        let af_id = AfId::new("weather.outside.example".parse().unwrap(), UaProtocolId::TLS_1_3);
        let request = AkmaAfKeyRequest::new(af_id.clone(), keys.a_kid.clone());
        let answer = weather.retrieve_key(&request).await;
        if served {
            let key = answer.unwrap().unwrap_or_else(|| panic!("no key for routing indicator {indicator}")).kaf;
            assert!(key == akma::k_af(&keys.k_akma, &af_id), "not the UE's K_AF");
        } else {
            let refused = answer.unwrap_err();
            let problem = refused.problem().unwrap_or_else(|| panic!("{refused}"));
            assert_eq!(problem.status, Some(404), "{problem}");
            assert_eq!(problem.cause.as_deref(), Some("ROUTING_INDICATOR_NOT_SERVED"));
        }

        let retrieved = function.retrieve(ue.usim()).await;
        match retrieved {
            Ok(retrieved) if served => {
                let document = String::from_utf8(retrieved.document).unwrap();
                assert!(document.contains(ue.service_id.as_str()), "{document}");
            }
            Err(ClientError::KeysRefused(_)) if !served => {}
            other => panic!("routing indicator {indicator}: {:?}", other.map(|retrieved| retrieved.fresh_for)),
        }
    }
    drop(network.server);
    drop(network.other);
}
