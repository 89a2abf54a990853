//! The NRF over real sockets: registration, signs of life, subscriptions, discovery, and who gets which token.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use lab::{CertificateAuthority, Directory, Ports, nrf};
use sbi::assertion::AssertionSigner;
use sbi::nrf::{
    AccessTokenReq, DiscoveryQuery, NFProfile, NFStatus, NotificationData, NotificationEventType, NrfApi, PatchItem,
    SubscrCond, SubscriptionData,
};
use sbi::testing::audit::AuditLog;
use sbi::token::{AccessTokenClaims, Audience, TokenKeys};
use sbi::{ClientLimits, SbiClient, SbiClientConfig, SbiError, SbiServer, SbiServerConfig, ServerLimits};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct Network {
    directory: Directory,
    ports: Ports,
    running: nrf::Running,
    shutdown: CancellationToken,
    _folder: TempDir,
}

impl Network {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut nrf::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut directory = Directory::open_or_create(&folder.path().join("lab")).unwrap();
        let ports = directory.choose_ports(None).unwrap();
        let mut config = directory.nrf_configuration(&ports).unwrap();
        change(&mut config);
        let shutdown = CancellationToken::new();
        let running = nrf::start(config, shutdown.clone()).await.unwrap();
        Self { directory, ports, running, shutdown, _folder: folder }
    }

    /// The NRF stopped, and another started in its place.
    async fn restart(&mut self) {
        self.shutdown.cancel();
        self.running.stopped().await;
        self.shutdown = CancellationToken::new();
        let config = self.directory.nrf_configuration(&self.ports).unwrap();
        self.running = nrf::start(config, self.shutdown.clone()).await.unwrap();
    }

    fn root(&self) -> String {
        format!("https://{}", self.ports.nrf)
    }

    fn http(&self, name: &str) -> SbiClient {
        let tls = self.directory.certificate(name);
        SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap()
    }

    fn api(&self, name: &str) -> NrfApi {
        NrfApi::new(self.http(name), self.root())
    }

    fn id(&self, name: &str) -> Uuid {
        self.directory.nf_instance_id(name).unwrap()
    }

    /// A profile of function `name` with services that `consumers` may use.
    fn profile(&self, name: &str, nf_type: &str, services: &[&str], consumers: &[&str]) -> NFProfile {
        let services: Vec<_> = services
            .iter()
            .map(|service| {
                json!({
                    "serviceInstanceId": service, "serviceName": service, "scheme": "https",
                    "versions": [{"apiVersionInUri": "v1", "apiFullVersion": "1.0.0"}],
                    "nfServiceStatus": "REGISTERED", "allowedNfTypes": consumers,
                    "ipEndPoints": [{"ipv4Address": "127.0.0.1", "port": 8443}],
                })
            })
            .collect();
        serde_json::from_value(json!({
            "nfInstanceId": self.id(name), "nfType": nf_type, "nfStatus": "REGISTERED",
            "fqdn": "aanf.lab.example", "nfServices": services, "customInfo": {"kept": true},
        }))
        .unwrap()
    }

    async fn register_aanf(&self) -> NFProfile {
        let profile = self.profile("aanf", "AANF", &["naanf-akma"], &["AUSF", "AF", "NEF"]);
        self.api("aanf").register(&profile).await.unwrap()
    }

    fn request(&self, name: &str, nf_type: &str, scope: &str) -> AccessTokenReq {
        AccessTokenReq {
            nf_type: Some(nf_type.parse().unwrap()),
            target_nf_type: Some("AANF".parse().unwrap()),
            ..AccessTokenReq::new(self.id(name), scope)
        }
    }

    /// What the token that `name` gets says.
    async fn claims(&self, name: &str, request: &AccessTokenReq) -> AccessTokenClaims {
        let granted = self.api(name).token(request).await.unwrap();
        assert_eq!((granted.token_type.as_str(), granted.expires_in), ("Bearer", Some(600)));
        let keys = TokenKeys::from_file(&self.directory.nrf_jwks()).unwrap();
        keys.verify(&granted.access_token).unwrap()
    }

    /// The name of the error that `name` gets.
    async fn token_error(&self, name: &str, request: &AccessTokenReq) -> String {
        match self.api(name).token(request).await {
            Err(SbiError::NrfRefused { reason, transient: false }) => reason,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

fn status<T: std::fmt::Debug>(answer: Result<T, SbiError>) -> u16 {
    match answer {
        Err(SbiError::Problem(problem)) => problem.status.unwrap(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Waits for something that must come.
async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

#[tokio::test]
async fn a_function_registers_is_read_changes_its_profile_and_leaves() {
    let network = Network::start().await;
    let registered = network.register_aanf().await;
    assert_eq!(registered.heart_beat_timer, Some(10), "the NRF decides");
    assert_eq!(registered.rest.get("customInfo"), Some(&json!({"kept": true})));

    let (aanf, other) = (network.api("aanf"), network.api("ausf"));
    let id = network.id("aanf");
    assert_eq!(other.profile(id).await.unwrap(), registered);
    assert_eq!(aanf.heart_beat(id).await.unwrap(), None, "204: nothing changed");
    let changed = aanf.update(id, &[PatchItem::replace("/customInfo", json!(7))]).await.unwrap().unwrap();
    assert_eq!(changed.rest.get("customInfo"), Some(&json!(7)));
    let again = network.register_aanf().await;
    assert_eq!(again.rest.get("customInfo"), Some(&json!({"kept": true})), "replaced as a whole");

    aanf.deregister(id).await.unwrap();
    assert_eq!(status(other.profile(id).await), 404);
    assert_eq!(status(aanf.heart_beat(id).await), 404);
    assert_eq!(status(aanf.deregister(id).await), 404);
}

#[tokio::test]
async fn the_first_registration_says_where_it_is_and_a_list_names_it() {
    let network = Network::start().await;
    let uri = format!("{}/nnrf-nfm/v1/nf-instances", network.root());
    let profile = network.profile("aanf", "AANF", &["naanf-akma"], &[]);
    let own = format!("{uri}/{}", network.id("aanf"));
    let http = network.http("aanf");
    let created = http.put::<_, NFProfile>(&own, &profile).await.unwrap();
    assert_eq!((created.status.as_u16(), created.location.as_deref()), (201, Some(own.as_str())));
    assert_eq!(http.put::<_, NFProfile>(&own, &profile).await.unwrap().status, 200);
    let list = http.get::<serde_json::Value>(&format!("{uri}?nf-type=AANF")).await.unwrap().body.unwrap();
    assert_eq!(list, json!({"_links": {"self": {"href": uri}, "item": [{"href": own}]}, "totalItemCount": 1}));
    let none = http.get::<serde_json::Value>(&format!("{uri}?nf-type=UDM&limit=3")).await.unwrap().body.unwrap();
    assert_eq!(none["totalItemCount"], 0);
}

#[tokio::test]
async fn nobody_registers_changes_or_removes_another_and_nobody_is_what_its_certificate_does_not_say() {
    let network = Network::start().await;
    network.register_aanf().await;
    let ausf = network.api("ausf");
    let foreign = network.profile("aanf", "AANF", &["naanf-akma"], &[]);
    assert_eq!(status(ausf.register(&foreign).await), 403);
    assert_eq!(status(ausf.heart_beat(network.id("aanf")).await), 403);
    assert_eq!(status(ausf.deregister(network.id("aanf")).await), 403);
    let disguised = network.profile("ausf", "AANF", &["naanf-akma"], &[]);
    assert_eq!(status(ausf.register(&disguised).await), 403);

    let aanf = network.api("aanf");
    let id = network.id("aanf");
    let other_type = [PatchItem::replace("/nfType", json!("UDM"))];
    assert_eq!(status(aanf.update(id, &other_type).await), 400);
    let other_id = [PatchItem::replace("/nfInstanceId", json!(network.id("udm")))];
    assert_eq!(status(aanf.update(id, &other_id).await), 400);
    let no_place = [PatchItem::replace("/no/such", json!(1))];
    assert_eq!(status(aanf.update(id, &no_place).await), 400);
    assert_eq!(aanf.profile(id).await.unwrap().nf_type.as_str(), "AANF");
    let mut elsewhere = foreign.clone();
    elsewhere.nf_instance_id = network.id("udm");
    let uri = format!("{}/nnrf-nfm/v1/nf-instances/{id}", network.root());
    assert_eq!(status(network.http("aanf").put::<_, NFProfile>(&uri, &elsewhere).await), 400);
}

#[tokio::test]
async fn a_function_without_signs_of_life_is_suspended_not_found_and_comes_back_with_the_next() {
    let network = Network::start_with(|config| {
        config.limits.heart_beat_seconds = 1;
        config.limits.heart_beat_grace_seconds = 0;
    })
    .await;
    network.register_aanf().await;
    let (aanf, id) = (network.api("aanf"), network.id("aanf"));
    until(|| network.running.registered().is_empty()).await;
    assert_eq!(aanf.profile(id).await.unwrap().nf_status, NFStatus::Suspended);
    let query = DiscoveryQuery::new("AANF".parse().unwrap(), "AUSF".parse().unwrap());
    assert!(network.api("ausf").discover(&query).await.unwrap().nf_instances.is_empty());
    assert_eq!(network.token_error("ausf", &network.request("ausf", "AUSF", "naanf-akma")).await, "invalid_scope");

    let revived = aanf.heart_beat(id).await.unwrap().unwrap();
    assert_eq!(revived.nf_status, NFStatus::Registered);
}

#[tokio::test]
async fn a_suspended_function_is_forgotten_in_the_end() {
    let network = Network::start_with(|config| {
        config.limits.heart_beat_seconds = 1;
        config.limits.heart_beat_grace_seconds = 0;
        config.limits.suspended_kept_seconds = 0;
    })
    .await;
    network.register_aanf().await;
    let api = network.api("aanf");
    let gone = async {
        while api.profile(network.id("aanf")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
}

#[tokio::test]
async fn a_full_table_and_a_large_profile_are_refused() {
    let network = Network::start_with(|config| {
        config.limits.profiles_max = 1;
        config.limits.profile_octets_max = 2_000;
    })
    .await;
    let mut large = network.profile("aanf", "AANF", &["naanf-akma"], &[]);
    large.rest.insert("customInfo".to_owned(), json!("x".repeat(2_000)));
    assert_eq!(status(network.api("aanf").register(&large).await), 413);
    network.register_aanf().await;
    let grown = [PatchItem::replace("/customInfo", json!("x".repeat(2_000)))];
    assert_eq!(status(network.api("aanf").update(network.id("aanf"), &grown).await), 413);
    let second = network.profile("udm", "UDM", &["nudm-ueau"], &["AUSF"]);
    assert_eq!(status(network.api("udm").register(&second).await), 500);
    network.register_aanf().await;
}

/// Takes notifications as function `server`, and says what they were.
async fn listener(network: &Network) -> (String, mpsc::UnboundedReceiver<NotificationData>) {
    let (told, notifications) = mpsc::unbounded_channel();
    let take = async |State(told): State<mpsc::UnboundedSender<NotificationData>>,
                      sbi::Json(data): sbi::Json<NotificationData>| {
        told.send(data).unwrap();
        http_no_content()
    };
    let router = Router::new().route("/told", post(take)).with_state(told);
    let config = SbiServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: network.directory.certificate("server"),
        limits: ServerLimits::default(),
    };
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    (format!("https://{}/told", server.local_addr()), notifications)
}

fn http_no_content() -> axum::http::StatusCode {
    axum::http::StatusCode::NO_CONTENT
}

fn subscription(uri: &str) -> SubscriptionData {
    serde_json::from_value(json!({"nfStatusNotificationUri": uri, "subscrCond": {"nfType": "AANF"}})).unwrap()
}

#[tokio::test]
async fn subscribers_are_told_of_registration_change_and_leave_without_who_may_use_it() {
    let network = Network::start().await;
    let (uri, mut notifications) = listener(&network).await;
    let api = network.api("server");
    let taken = api.subscribe(&subscription(&uri)).await.unwrap();
    let id = taken.subscription_id.unwrap();
    assert!(!id.contains('-') && taken.validity_time.is_some());

    network.api("udm").register(&network.profile("udm", "UDM", &["nudm-ueau"], &[])).await.unwrap();
    network.register_aanf().await;
    let aanf = network.api("aanf");
    aanf.update(network.id("aanf"), &[PatchItem::replace("/customInfo", json!(7))]).await.unwrap();
    aanf.deregister(network.id("aanf")).await.unwrap();
    for event in [
        NotificationEventType::NfRegistered,
        NotificationEventType::NfProfileChanged,
        NotificationEventType::NfDeregistered,
    ] {
        let told = notifications.recv().await.unwrap();
        assert_eq!(told.event, event);
        assert!(told.nf_instance_uri.ends_with(&network.id("aanf").to_string()), "{told:?}");
        assert_eq!(told.nf_profile.is_some(), event != NotificationEventType::NfDeregistered);
        assert!(
            told.nf_profile.iter().flat_map(NFProfile::services).all(|service| service.allowed_nf_types.is_empty())
        );
    }

    api.unsubscribe(&id).await.unwrap();
    assert_eq!(status(api.unsubscribe(&id).await), 404);
    network.register_aanf().await;
    api.subscribe(&SubscriptionData {
        subscr_cond: Some(SubscrCond::Service { service_name: "nudm-ueau".to_owned() }),
        ..subscription(&uri)
    })
    .await
    .unwrap();
    network.api("udm").deregister(network.id("udm")).await.unwrap();
    let told = notifications.recv().await.unwrap();
    assert!(told.nf_instance_uri.ends_with(&network.id("udm").to_string()), "nothing came after unsubscribing");
}

#[tokio::test]
async fn subscriptions_are_bounded_and_their_owners_own() {
    let network = Network::start_with(|config| {
        config.limits.subscriptions_max = 3;
        config.limits.subscriptions_per_instance_max = 2;
    })
    .await;
    let (server, ausf, udm) = (network.api("server"), network.api("ausf"), network.api("udm"));
    let wanted = subscription("https://127.0.0.1:1/told");
    let first = server.subscribe(&wanted).await.unwrap().subscription_id.unwrap();
    server.subscribe(&wanted).await.unwrap();
    assert_eq!(status(server.subscribe(&wanted).await), 403);
    ausf.subscribe(&wanted).await.unwrap();
    assert_eq!(status(udm.subscribe(&wanted).await), 500);
    assert_eq!(status(ausf.unsubscribe(&first).await), 404, "another's");
    for wrong in [
        json!({"nfStatusNotificationUri": "http://127.0.0.1:1/told"}),
        json!({"nfStatusNotificationUri": "https://a/", "subscrCond": {"amfSetId": "1", "amfRegionId": "2"}}),
        json!({"nfStatusNotificationUri": "https://a/", "validityTime": "2001-01-01T00:00:00Z"}),
    ] {
        let wrong: SubscriptionData = serde_json::from_value(wrong).unwrap();
        assert_eq!(status(udm.subscribe(&wrong).await), 400, "{wrong:?}");
    }
    let for_another = SubscriptionData { req_nf_instance_id: Some(network.id("ausf")), ..wanted };
    assert_eq!(status(udm.subscribe(&for_another).await), 403);
}

#[tokio::test]
async fn discovery_finds_by_type_service_and_routing_indicator_for_whoever_may_use_it() {
    let network = Network::start().await;
    let mut profile = network.profile("aanf", "AANF", &["naanf-akma"], &["AUSF"]);
    profile
        .aanf_info_list
        .insert("0".to_owned(), serde_json::from_value(json!({"routingIndicators": ["678"]})).unwrap());
    network.api("aanf").register(&profile).await.unwrap();
    let query = |requester: &str, change: fn(&mut DiscoveryQuery)| {
        let mut query = DiscoveryQuery::new("AANF".parse().unwrap(), requester.parse().unwrap());
        query.service_names = vec!["naanf-akma".to_owned()];
        change(&mut query);
        query
    };
    let ausf = network.api("ausf");
    let found = ausf.discover(&query("AUSF", |query| query.routing_indicator = Some("678".to_owned()))).await.unwrap();
    assert_eq!((found.validity_period, found.nf_instances.len()), (30, 1));
    assert_eq!(sbi::nrf::api_root(&found.nf_instances[0], "naanf-akma").unwrap(), "https://127.0.0.1:8443");
    let none = ausf.discover(&query("AUSF", |query| query.routing_indicator = Some("9".to_owned()))).await.unwrap();
    assert!(none.nf_instances.is_empty());
    let none = ausf.discover(&query("AUSF", |query| query.target_nf_instance_id = Some(Uuid::nil()))).await.unwrap();
    assert!(none.nf_instances.is_empty());
    let none = network.api("lab-nf").discover(&query("AMF", |_| {})).await.unwrap();
    assert!(none.nf_instances.is_empty(), "not for an AMF");

    assert_eq!(status(network.api("lab-nf").discover(&query("AUSF", |_| {})).await), 403);
    let other = query("AUSF", |query| query.requester_nf_instance_id = Some(Uuid::nil()));
    assert_eq!(status(ausf.discover(&other).await), 403);
    let uri = format!("{}/nnrf-disc/v1/nf-instances?requester-nf-type=AUSF", network.root());
    assert_eq!(status(network.http("ausf").get::<serde_json::Value>(&uri).await), 400);
    let uri = format!("{uri}&target-nf-type=AANF&preferred-locality=here");
    let found = network.http("ausf").get::<serde_json::Value>(&uri).await.unwrap().body.unwrap();
    assert_eq!(found["ignoredQueryParams"], json!(["preferred-locality"]));
}

#[tokio::test]
async fn a_token_says_who_for_whom_and_what_and_verifies_with_the_key_given_out() {
    let network = Network::start().await;
    network.register_aanf().await;
    let request = network.request("ausf", "AUSF", "naanf-akma naanf-akma:anchorkey");
    let claims = network.claims("ausf", &request).await;
    assert_eq!(claims.iss, network.id("nrf").to_string());
    assert_eq!(claims.sub, network.id("ausf").to_string());
    assert_eq!(claims.aud, Audience::NfType("AANF".to_owned()));
    assert_eq!(claims.scope, "naanf-akma naanf-akma:anchorkey");

    let one = AccessTokenReq { target_nf_instance_id: Some(network.id("aanf")), ..request };
    let claims = network.claims("ausf", &one).await;
    assert_eq!(claims.aud, Audience::Instances(vec![network.id("aanf").to_string()]));

    let uri = format!("{}{}", network.root(), nrf::JWKS_PATH);
    let served = network.http("ausf").get::<serde_json::Value>(&uri).await.unwrap().body.unwrap();
    let written = std::fs::read_to_string(network.directory.nrf_jwks()).unwrap();
    assert_eq!(served, serde_json::from_str::<serde_json::Value>(&written).unwrap());
}

#[tokio::test]
async fn tokens_are_refused_with_the_names_of_rfc_6749() {
    let network = Network::start().await;
    network.register_aanf().await;
    let request = network.request("ausf", "AUSF", "naanf-akma");
    let error = async |name: &str, request: &AccessTokenReq| network.token_error(name, request).await;
    // Another's identity, and a type that is not one's own.
    assert_eq!(error("server", &request).await, "invalid_client");
    assert_eq!(error("lab-nf", &network.request("lab-nf", "AUSF", "naanf-akma")).await, "invalid_client");
    let named = AccessTokenReq { requester_fqdn: Some("udm.example".to_owned()), ..request.clone() };
    assert_eq!(error("ausf", &named).await, "invalid_client");
    // A type that may not use the service, a service or producer that is not there, a scope not for this function.
    assert_eq!(error("lab-nf", &network.request("lab-nf", "AMF", "naanf-akma")).await, "invalid_scope");
    assert_eq!(error("ausf", &network.request("ausf", "AUSF", "nudm-ueau")).await, "invalid_scope");
    let elsewhere = AccessTokenReq { target_nf_instance_id: Some(network.id("udm")), ..request.clone() };
    assert_eq!(error("ausf", &elsewhere).await, "invalid_scope");
    let finer = "naanf-akma naanf-akma:applicationkeyget:supi-access";
    assert_eq!(error("ausf", &network.request("ausf", "AUSF", finer)).await, "invalid_scope");
    assert_eq!(error("ausf", &network.request("ausf", "AUSF", "naanf-akma:unheard-of")).await, "invalid_scope");
    assert_eq!(network.claims("server", &network.request("server", "AF", finer)).await.scope, finer);
    // Nobody in particular, another network, what this NRF does not do.
    let nobody = AccessTokenReq { target_nf_type: None, ..request.clone() };
    assert_eq!(error("ausf", &nobody).await, "invalid_request");
    let plmn = sbi::token::PlmnId { mcc: "999".to_owned(), mnc: "99".to_owned() };
    let abroad = AccessTokenReq { target_plmn: Some(plmn), ..request.clone() };
    assert_eq!(error("ausf", &abroad).await, "invalid_request");
    let set = AccessTokenReq { target_nf_set_id: Some("set1".to_owned()), ..request };
    assert_eq!(error("ausf", &set).await, "invalid_scope");
}

#[tokio::test]
async fn a_producer_can_be_configured_and_a_profile_can_allow_its_own_operations() {
    let network = Network::start_with(|config| {
        let producer = json!({
            "nf_instance_id": Uuid::nil(), "nf_type": "UDM", "services": ["nudm-ueau"], "consumers": ["AUSF"]
        });
        config.producers = vec![serde_json::from_value(producer).unwrap()];
    })
    .await;
    let of_udm = |name: &str, nf_type: &str| AccessTokenReq {
        target_nf_type: Some("UDM".parse().unwrap()),
        ..network.request(name, nf_type, "nudm-ueau")
    };
    assert_eq!(network.claims("ausf", &of_udm("ausf", "AUSF")).await.scope, "nudm-ueau");
    assert_eq!(network.token_error("server", &of_udm("server", "AF")).await, "invalid_scope");

    let mut profile = network.profile("udm", "UDM", &["nudm-sdm"], &["AANF", "NEF"]);
    let operation = "nudm-sdm:id-translation-result:read";
    profile.nf_services[0].rest.insert("allowedOperationsPerNfType".to_owned(), json!({"AANF": [operation]}));
    network.api("udm").register(&profile).await.unwrap();
    let finer = |name: &str, nf_type: &str| AccessTokenReq {
        target_nf_type: Some("UDM".parse().unwrap()),
        ..network.request(name, nf_type, operation)
    };
    assert_eq!(network.claims("aanf", &finer("aanf", "AANF")).await.scope, operation);
    assert_eq!(network.token_error("nef", &finer("nef", "NEF")).await, "invalid_scope");
}

#[tokio::test]
async fn an_assertion_proves_who_asks_where_the_connection_does_not() {
    let network = Network::start().await;
    network.register_aanf().await;
    let profile = network.profile("ausf", "AUSF", &["nausf-auth"], &["AMF"]);
    network.api("ausf").register(&profile).await.unwrap();
    let credentials =
        |id: &str, files: &str| AssertionSigner::new(network.id(id), &network.directory.certificate(files)).unwrap();
    let request = network.request("ausf", "AUSF", "naanf-akma");
    // The connection is that of lab-nf, as if it were a proxy.
    let relayed = network.api("lab-nf").with_credentials(Some(credentials("ausf", "ausf")));
    assert!(relayed.token(&request).await.is_ok());
    let wrong = |api: NrfApi| {
        let request = request.clone();
        async move { api.token(&request).await.unwrap_err().to_string() }
    };
    let of_another = network.api("lab-nf").with_credentials(Some(credentials("udm", "udm")));
    assert!(wrong(of_another).await.contains("invalid_client"));
    let signed_by_another = network.api("lab-nf").with_credentials(Some(credentials("ausf", "udm")));
    assert!(wrong(signed_by_another).await.contains("invalid_client"));
    let in_own_connection = network.api("ausf").with_credentials(Some(credentials("udm", "udm")));
    assert!(wrong(in_own_connection).await.contains("invalid_client"), "an assertion that is shown counts");
}

#[tokio::test]
async fn every_refusal_is_told_with_who_what_and_why() {
    let log = AuditLog::record();
    let network = Network::start().await;
    let registered = network.register_aanf().await;
    let (aanf, ausf) = (network.id("aanf").to_string(), network.id("ausf").to_string());
    let told = async |subject: &str, action: &str, object: &str, outcome: &str, reason: &str| {
        let fields = [("subject", subject), ("action", action), ("object", object), ("outcome", outcome)];
        assert_eq!(log.next_with(&fields).await["reason"], reason, "{fields:?}");
    };
    told(&aanf, "nnrf-nfm:register", "AANF", "allowed", "registered").await;
    let api = network.api("ausf");
    assert_eq!(status(api.register(&registered).await), 403);
    told(&ausf, "nnrf-nfm:register", &aanf, "refused", "another_nf_instance").await;
    let disguised = NFProfile { nf_instance_id: network.id("ausf"), ..registered };
    assert_eq!(status(api.register(&disguised).await), 403);
    told(&ausf, "nnrf-nfm:register", "AANF", "refused", "another_nf_type").await;
    assert_eq!(status(api.heart_beat(network.id("aanf")).await), 403);
    told(&ausf, "nnrf-nfm:update", &aanf, "refused", "another_nf_instance").await;
    assert_eq!(status(api.deregister(network.id("aanf")).await), 403);
    told(&ausf, "nnrf-nfm:deregister", &aanf, "refused", "another_nf_instance").await;
    let query = DiscoveryQuery::new("AANF".parse().unwrap(), "UDM".parse().unwrap());
    assert_eq!(status(api.discover(&query).await), 403);
    told(&ausf, "nnrf-disc:discover", "UDM", "refused", "another_nf_type").await;
    let subscription = json!({"nfStatusNotificationUri": "https://127.0.0.1:1/x", "reqNfType": "UDM"});
    let mut subscription: SubscriptionData = serde_json::from_value(subscription).unwrap();
    assert_eq!(status(api.subscribe(&subscription).await), 403);
    told(&ausf, "nnrf-nfm:subscribe", "UDM", "refused", "another_nf_type").await;
    subscription.req_nf_type = None;
    let id = api.subscribe(&subscription).await.unwrap().subscription_id.unwrap();
    told(&ausf, "nnrf-nfm:subscribe", &id, "allowed", "subscribed").await;
    for _ in 1..nrf::Limits::default().subscriptions_per_instance_max {
        api.subscribe(&subscription).await.unwrap();
    }
    assert_eq!(status(api.subscribe(&subscription).await), 403);
    let one_too_many = [("subject", &*ausf), ("action", "nnrf-nfm:subscribe"), ("reason", "not_taken")];
    assert_eq!(log.next_with(&one_too_many).await["outcome"], "refused");
}

#[tokio::test]
async fn an_assertion_of_a_revoked_certificate_gets_no_token() {
    let network = Network::start().await;
    network.register_aanf().await;
    let profile = network.profile("ausf", "AUSF", &["nausf-auth"], &["AMF"]);
    network.api("ausf").register(&profile).await.unwrap();
    let credentials = AssertionSigner::new(network.id("ausf"), &network.directory.certificate("ausf")).unwrap();
    let request = network.request("ausf", "AUSF", "naanf-akma");
    // The connection is another's: only the assertion can be refused.
    let relayed = network.api("lab-nf").with_credentials(Some(credentials));
    relayed.token(&request).await.unwrap();
    let realm = network.directory.home_network().realm();
    let pki = network.directory.root().join("pki");
    CertificateAuthority::open(&pki, &realm).unwrap().revoke("ausf").unwrap();
    let refused = async {
        loop {
            match relayed.token(&request).await {
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                Err(error) => return error.to_string(),
            }
        }
    };
    let refused = tokio::time::timeout(std::time::Duration::from_secs(60), refused).await.unwrap();
    assert!(refused.contains("invalid_client"), "{refused}");
}

#[tokio::test]
async fn the_key_is_kept_over_a_restart_and_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let mut network = Network::start().await;
    let key = network.directory.nrf_configuration(&network.ports).unwrap().token_key;
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read_to_string(network.directory.nrf_jwks()).unwrap();
    network.restart().await;
    assert_eq!(std::fs::read_to_string(network.directory.nrf_jwks()).unwrap(), before);
    assert_eq!(status(network.api("aanf").heart_beat(network.id("aanf")).await), 404, "registrations are not kept");
}

#[tokio::test]
async fn a_form_of_another_media_type_is_refused_and_answers_are_not_to_be_stored() {
    let network = Network::start().await;
    let uri = format!("{}/oauth2/token", network.root());
    let answer = network.http("ausf").post::<_, serde_json::Value>(&uri, &json!({"grant_type": "x"})).await;
    assert_eq!(status(answer), 415);
}

/// Shares the network between tasks that ask at once.
#[tokio::test]
async fn many_ask_at_once() {
    let network = Arc::new(Network::start().await);
    network.register_aanf().await;
    let ask = |network: Arc<Network>| async move {
        let request = network.request("ausf", "AUSF", "naanf-akma");
        network.api("ausf").token(&request).await.is_ok()
    };
    let asked: Vec<_> = (0..32).map(|_| tokio::spawn(ask(Arc::clone(&network)))).collect();
    for one in asked {
        assert!(one.await.unwrap());
    }
}
