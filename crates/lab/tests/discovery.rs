//! Functions that find each other through the NRF: one that moves is found without a restart of those that ask it, and one that
//! the NRF does not know is asked where the configuration says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use akma::{AKid, UeId, Usim};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use common::Core;
use lab::LabSubscriber;
use sbi::nausf::FiveGAuthData;
use sbi::nrf::{NFProfile, NrfApi, NrfClient};
use sbi::nudm::NudmClient;
use sbi::ss_upr::SsUprClient;
use sbi::{Json, SbiError, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const SUPI: &str = "imsi-001010000000001";
const GPSI: &str = "msisdn-491700000001";

/// A producer of ours in one place: it has the certificate of `name`, and counts what it is asked.
struct Place {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    server: SbiServer,
    shutdown: CancellationToken,
}

impl Place {
    async fn open(core: &Core, name: &str, path: &str, answer: Value) -> Self {
        let asked = Arc::new(AtomicUsize::default());
        let told = move |State(asked): State<Arc<AtomicUsize>>| async move {
            asked.fetch_add(1, SeqCst);
            Json(answer)
        };
        let router = Router::new().route(path, get(told)).with_state(Arc::clone(&asked));
        let tls = core.directory.certificate(name);
        let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls, limits: ServerLimits::default() };
        let shutdown = CancellationToken::new();
        let server = SbiServer::start(config, router, shutdown.clone()).await.unwrap();
        Self { address: server.local_addr(), asked, server, shutdown }
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.server.stopped().await;
    }

    /// Has the NRF believe that function `name` of this type offers the service here.
    async fn registered(&self, core: &Core, name: &str, nf_type: &str, service: &str) {
        let id = core.directory.nf_instance_id(name).unwrap();
        let profile = json!({
            "nfInstanceId": id, "nfType": nf_type, "nfStatus": "REGISTERED", "ipv4Addresses": ["127.0.0.1"],
            "nfServices": [{
                "serviceInstanceId": "1", "serviceName": service, "scheme": "https", "nfServiceStatus": "REGISTERED",
                "versions": [{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0"}],
                "ipEndPoints": [{"ipv4Address": "127.0.0.1", "port": self.address.port()}],
            }],
        });
        let profile: NFProfile = serde_json::from_value(profile).unwrap();
        let root = format!("https://{}", core.ports.nrf);
        NrfApi::new(core.http(name), root).register(&profile).await.unwrap();
    }
}

fn nrf(core: &Core, name: &str, nf_type: &str) -> NrfClient {
    NrfClient::new(&core.directory.nrf_section(&core.ports), &core.directory.certificate(name), nf_type).unwrap()
}

/// A network whose own UDM is away, so that the NRF believes what a test says of it.
async fn without_udm() -> Core {
    let mut core = Core::start().await;
    core.stop_udm().await;
    core
}

fn translation() -> Value {
    json!({"supi": SUPI, "gpsi": GPSI})
}

const TRANSLATION: &str = "/nudm-sdm/v2/{supi}/id-translation-result";

#[tokio::test]
async fn a_udm_that_registers_elsewhere_is_found_by_whoever_translates_identifiers() {
    let core = without_udm().await;
    let first = Place::open(&core, "udm", TRANSLATION, translation()).await;
    first.registered(&core, "udm", "UDM", "nudm-sdm").await;
    let client = NudmClient::found(core.http("aanf"), "nrf", Some(&nrf(&core, "aanf", "AANF"))).unwrap();
    let supi = SUPI.parse().unwrap();
    let ask = async || Ok::<_, SbiError>(client.id_translation(&supi).await?.unwrap().gpsi.unwrap());
    assert_eq!(ask().await.unwrap().as_str(), GPSI);
    assert_eq!(first.asked.load(SeqCst), 1);

    let second = Place::open(&core, "udm", TRANSLATION, translation()).await;
    second.registered(&core, "udm", "UDM", "nudm-sdm").await;
    first.close().await;
    // What was found a moment ago may be believed for a second yet.
    let found = async {
        while ask().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.unwrap();
    assert!(second.asked.load(SeqCst) >= 1);
    second.close().await;
}

#[tokio::test]
async fn the_configuration_function_is_found_as_an_application_function_that_offers_ss_upr() {
    let core = Core::start().await;
    let path = "/ss-upr/v1/val-services";
    let profile = json!([{"profileInformation": "{\"ueServiceIds\":[\"meter\"]}", "valTgtUe": {"valUeId": SUPI}}]);
    let place = Place::open(&core, "configuration", path, profile.clone()).await;
    place.registered(&core, "configuration", "AF", "ss-upr").await;
    let client = SsUprClient::found(&core.http("server"), "nrf", Some(&nrf(&core, "server", "AF"))).unwrap();
    let ue_id: UeId = SUPI.parse().unwrap();
    assert_eq!(client.ue_service_ids(&ue_id).await.unwrap().len(), 1);

    let moved = Place::open(&core, "configuration", path, profile).await;
    moved.registered(&core, "configuration", "AF", "ss-upr").await;
    place.close().await;
    let found = async {
        while client.ue_service_ids(&ue_id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.unwrap();
    assert!(moved.asked.load(SeqCst) >= 1);
    moved.close().await;
}

#[tokio::test]
async fn where_the_nrf_finds_none_or_is_away_the_configured_root_is_asked_if_there_is_one() {
    let mut core = without_udm().await;
    let place = Place::open(&core, "udm", TRANSLATION, translation()).await;
    let asker = nrf(&core, "aanf", "AANF");
    let (supi, configured) = (SUPI.parse().unwrap(), format!("nrf, https://{}", place.address));
    let alone = NudmClient::found(core.http("aanf"), "nrf", Some(&asker)).unwrap();
    let refused = alone.id_translation(&supi).await;
    assert!(matches!(refused, Err(SbiError::NrfRefused { transient: true, .. })), "{refused:?}");
    let client = NudmClient::found(core.http("aanf"), &configured, Some(&asker)).unwrap();
    assert!(client.id_translation(&supi).await.unwrap().is_some(), "the NRF knows none");
    core.stop_nrf().await;
    let client = NudmClient::found(core.http("aanf"), &configured, Some(&nrf(&core, "aanf", "AANF"))).unwrap();
    assert!(client.id_translation(&supi).await.unwrap().is_some(), "the NRF is away");
    assert!(NudmClient::found(core.http("aanf"), "nrf", None).is_err(), "there is none to ask");
    place.close().await;
}

#[tokio::test]
async fn an_ausf_finds_a_udm_and_an_aanf_that_move_and_its_ues_authenticate_again() {
    let mut core = Core::start_with(|config| {
        config.udm = "nrf".to_owned();
        config.aanf = Some("nrf".to_owned());
    })
    .await;
    let subscriber = core.subscriber(1);
    core.challenge(&subscriber).await;
    core.stop_udm().await;
    core.stop_aanf().await;
    let free = || TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    (core.ports.udm, core.ports.aanf) = (free(), free());
    core.start_udm().await;
    core.start_aanf().await;
    let again = async {
        while core.ausf().authenticate(&core.info(subscriber.supi.as_str())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.unwrap();
    core.all_registered().await;
    // The AAnF that moved takes a key no later than the AUSF has found it.
    let mut usim = common::usim(&subscriber);
    let known = async {
        loop {
            let a_kid = authenticated(&core, &subscriber, &mut usim).await;
            if core.k_af(&a_kid).await.is_some() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), known).await.unwrap();
}

/// Runs 5G AKA to its end; the A-KID that the UE has then.
async fn authenticated(core: &Core, subscriber: &LabSubscriber, usim: &mut Usim) -> AKid {
    let context = core.challenge(subscriber).await;
    let FiveGAuthData::Av5gAka(av) = &context.five_g_auth_data else { panic!("5G AKA was expected") };
    let answer = usim.authenticate(av.rand.as_bytes(), av.autn.as_bytes()).unwrap();
    let confirmed = core.ausf().confirm_5g_aka(&context, Some(answer.res_star(&core.snn()))).await.unwrap();
    assert!(confirmed.kseaf.is_some());
    let a_tid = akma::a_tid(&answer.k_ausf(&core.snn()), &subscriber.supi);
    AKid::format(&subscriber.routing_indicator.parse().unwrap(), &a_tid, core.directory.home_network())
}
