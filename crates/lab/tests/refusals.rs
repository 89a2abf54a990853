//! Who is refused at UDM and AUSF, and with which cause.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;

use akma::{Suci, SuciHomeKey, SuciPublicKey};
use common::{Core, refusal};
use lab::{CertificateAuthority, CertificateRequest, SubscriberClient};
use sbi::authorization::{AuthorizationConfig, IssuerConfig};
use sbi::nausf::NausfClient;
use sbi::testing::audit::AuditLog;
use sbi::token::TokenSigner;
use sbi::{CertificateFiles, SbiClient, SbiError};
use serde_json::{Value, json};
use uuid::Uuid;

fn user_not_found() -> (u16, String) {
    (404, "USER_NOT_FOUND".to_owned())
}

fn caller_not_allowed() -> (u16, String) {
    (403, "CALLER_NOT_ALLOWED".to_owned())
}

fn token_missing() -> (u16, String) {
    (401, "TOKEN_MISSING".to_owned())
}

/// A certificate of the network for another function of type `nf_type`.
fn another(core: &Core, id: Uuid, nf_type: &str) -> CertificateFiles {
    let realm = core.directory.home_network().realm();
    let authority = CertificateAuthority::open_or_create(&core.directory.root().join("pki"), &realm).unwrap();
    let request = CertificateRequest {
        common_name: "another".to_owned(),
        nf_instance_id: id,
        nf_type: nf_type.to_owned(),
        dns_names: Vec::new(),
        addresses: Vec::new(),
    };
    authority.issue(&format!("another-{nf_type}"), &request).unwrap()
}

#[tokio::test]
async fn an_unknown_ue_is_not_found() {
    let core = Core::start().await;
    assert_eq!(refusal(core.ausf().authenticate(&core.info("imsi-001010000099999")).await), user_not_found());
}

#[tokio::test]
async fn a_serving_network_that_is_not_on_the_list_is_refused() {
    let core = Core::start().await;
    let mut info = core.info(core.subscriber(1).supi.as_str());
    info.serving_network_name = "5G:mnc070.mcc901.3gppnetwork.org".parse().unwrap();
    let answer = core.ausf().authenticate(&info).await;
    assert_eq!(refusal(answer), (403, "SERVING_NETWORK_NOT_AUTHORIZED".to_owned()));

    let network = info.serving_network_name.clone();
    let core = Core::start_with(|config| config.serving_networks.push(network)).await;
    info.supi_or_suci = core.subscriber(1).supi.clone().into();
    core.ausf().authenticate(&info).await.expect("a roaming partner may");
}

#[tokio::test]
async fn only_an_amf_on_the_list_uses_the_ausf() {
    let core = Core::start().await;
    for name in ["as-billing", "server", "provisioner", "ausf"] {
        let stranger = NausfClient::new(core.http(name), core.root_of_ausf());
        let info = core.info(core.subscriber(1).supi.as_str());
        assert_eq!(refusal(stranger.authenticate(&info).await), token_missing(), "{name}");
        assert_eq!(refusal(stranger.deregister(&core.subscriber(1).supi).await), token_missing(), "{name}");
    }
    // Another AMF gets a token as every AMF does, and is not on the list.
    let http = core.authorized(another(&core, Uuid::new_v4(), "AMF"), "AMF");
    let stranger = NausfClient::new(http, core.root_of_ausf());
    let info = core.info(core.subscriber(1).supi.as_str());
    assert_eq!(refusal(stranger.authenticate(&info).await), caller_not_allowed());
    assert_eq!(refusal(stranger.deregister(&core.subscriber(1).supi).await), caller_not_allowed());
}

#[tokio::test]
async fn an_authentication_belongs_to_the_amf_that_began_it() {
    let other_id = Uuid::new_v4();
    let core = Core::start_with(|config| {
        config.callers.insert(other_id);
    })
    .await;
    let other = core.authorized(another(&core, other_id, "AMF"), "AMF");
    let context = core.challenge(&core.subscriber(1)).await;
    let meddling = NausfClient::new(other, core.root_of_ausf()).confirm_5g_aka(&context, None).await;
    assert_eq!(refusal(meddling), (404, "CONTEXT_NOT_FOUND".to_owned()));
    core.ausf().confirm_5g_aka(&context, None).await.expect("it is still there for its own AMF");
}

#[tokio::test]
async fn only_the_ausf_in_its_own_name_gets_vectors_from_udm() {
    let core = Core::start().await;
    let supi = core.subscriber(1).supi.clone();
    let uri = format!("{}/nudm-ueau/v1/{}/security-information/generate-auth-data", core.root_of_udm(), supi.as_str());
    let ausf_id = core.directory.nf_instance_id("ausf").unwrap();
    let body = |id: Uuid| json!({"servingNetworkName": core.snn().as_str(), "ausfInstanceId": id});
    for name in ["lab-nf", "aanf", "as-fleet", "ausf"] {
        let answer = core.http(name).post::<_, Value>(&uri, &body(ausf_id)).await;
        assert_eq!(refusal(answer), token_missing(), "{name}");
    }
    let for_udm = |http: SbiClient| http.for_service("UDM", "nudm-ueau");
    let answer = for_udm(core.http("provisioner")).post::<_, Value>(&uri, &body(ausf_id)).await;
    assert_eq!(refusal(answer), caller_not_allowed(), "a certificate is enough for the provisioner, and not for this");
    let another = for_udm(core.authorized(another(&core, Uuid::new_v4(), "AUSF"), "AUSF"));
    assert_eq!(refusal(another.post::<_, Value>(&uri, &body(ausf_id)).await), caller_not_allowed());
    let aanf = core.with_tokens("aanf", "AANF");
    let answer = for_udm(aanf.clone()).post::<_, Value>(&uri, &body(ausf_id)).await;
    assert!(matches!(answer, Err(SbiError::NrfRefused { .. })), "no token, no request: {answer:?}");
    let answer = aanf.for_service("UDM", "nudm-sdm").post::<_, Value>(&uri, &body(ausf_id)).await;
    assert_eq!(refusal(answer), (403, "TOKEN_SCOPE".to_owned()));
    let ausf = for_udm(core.with_tokens("ausf", "AUSF"));
    let answer = ausf.post::<_, Value>(&uri, &body(Uuid::new_v4())).await;
    assert_eq!(refusal(answer), (403, "AUTHENTICATION_REJECTED".to_owned()));
    ausf.post::<_, Value>(&uri, &body(ausf_id)).await.unwrap();
}

#[tokio::test]
async fn only_the_provisioner_sees_and_changes_subscribers() {
    let core = Core::start().await;
    let uri = format!("{}/lab-subscribers/v1/subscribers", core.root_of_udm());
    let one = format!("{uri}/{}", core.subscriber(1).supi.as_str());
    let subscription = core.directory.subscriptions().remove(0);
    for name in ["lab-nf", "ausf", "aanf", "server"] {
        let http = core.http(name);
        assert_eq!(refusal(http.get::<Value>(&uri).await), token_missing(), "{name}");
        assert_eq!(refusal(http.put::<_, Value>(&one, &subscription).await), token_missing(), "{name}");
        assert_eq!(refusal(http.delete::<Value>(&one).await), token_missing(), "{name}");
    }
}

#[tokio::test]
async fn only_the_aanf_translates_identifiers() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let uri = |ue: &str| format!("{}/nudm-sdm/v2/{ue}/id-translation-result", core.root_of_udm());
    let sdm = |name: &str, nf_type: &str| core.with_tokens(name, nf_type).for_service("UDM", "nudm-sdm");
    let aanf = sdm("aanf", "AANF");
    let by_supi: Value = aanf.get(&uri(subscriber.supi.as_str())).await.unwrap().into_body().unwrap();
    let expected = json!({"supi": subscriber.supi.as_str(), "gpsi": subscriber.gpsi.as_str()});
    assert_eq!(by_supi, expected);
    let by_gpsi: Value = aanf.get(&uri(subscriber.gpsi.as_str())).await.unwrap().into_body().unwrap();
    assert_eq!(by_gpsi, expected);
    assert_eq!(refusal(aanf.get::<Value>(&uri("msisdn-11111")).await), user_not_found());
    assert_eq!(refusal(core.http("server").get::<Value>(&uri(subscriber.supi.as_str())).await), token_missing());
    // A NEF may in general, and gets a token; this one is not on the list.
    let nef = sdm("nef", "NEF").get::<Value>(&uri(subscriber.supi.as_str())).await;
    assert_eq!(refusal(nef), caller_not_allowed());
}

#[tokio::test]
async fn malformed_bodies_are_refused_by_the_member_at_fault() {
    let core = Core::start().await;
    let supi = core.subscriber(1).supi.as_str().to_owned();
    let uri = format!("{}/nausf-auth/v1/ue-authentications", core.root_of_ausf());
    let network = core.snn().as_str().to_owned();
    let incorrect = (400, "MANDATORY_IE_INCORRECT".to_owned());
    let missing = (400, "MANDATORY_IE_MISSING".to_owned());
    for (body, expected) in [
        (json!({"servingNetworkName": network}), &missing),
        (json!({"supiOrSuci": supi}), &missing),
        (json!({"supiOrSuci": "001010000000001", "servingNetworkName": network}), &incorrect),
        (json!({"supiOrSuci": supi, "servingNetworkName": "somewhere"}), &incorrect),
        (json!({"supiOrSuci": 7, "servingNetworkName": network}), &incorrect),
        (
            json!({"supiOrSuci": supi, "servingNetworkName": network, "resynchronizationInfo": {"rand": "00", "auts": "00"}}),
            &incorrect,
        ),
        (json!([]), &incorrect),
    ] {
        let answer = core.http("lab-nf").post::<_, Value>(&uri, &body).await;
        assert_eq!(refusal(answer), *expected, "{body}");
    }
    let context = core.challenge(&core.subscriber(1)).await;
    let link = &context.links[sbi::nausf::LINK_5G_AKA].href;
    for body in [json!({}), json!({"resStar": "00"}), json!({"resStar": "zz".repeat(16)})] {
        let (status, _) = refusal(core.http("lab-nf").put::<_, Value>(link, &body).await);
        assert_eq!(status, 400, "{body}");
    }
    core.ausf().confirm_5g_aka(&context, None).await.expect("a malformed body decides nothing");
}

#[tokio::test]
async fn an_authentication_that_does_not_exist_is_not_found() {
    let core = Core::start().await;
    for id in [Uuid::new_v4().to_string(), "1".to_owned(), "%2E%2E".to_owned()] {
        let uri = format!("{}/nausf-auth/v1/ue-authentications/{id}/5g-aka-confirmation", core.root_of_ausf());
        let body = json!({"resStar": "00".repeat(16)});
        let answer = core.http("lab-nf").put::<_, Value>(&uri, &body).await;
        assert_eq!(refusal(answer), (404, "CONTEXT_NOT_FOUND".to_owned()), "{id}");
    }
}

#[tokio::test]
async fn too_many_authentications_under_way_are_refused_for_now() {
    let core = Core::start_with(|config| config.limits.contexts_max = 2).await;
    let first = core.challenge(&core.subscriber(1)).await;
    core.challenge(&core.subscriber(2)).await;
    let info = core.info(core.subscriber(3).supi.as_str());
    assert_eq!(refusal(core.ausf().authenticate(&info).await), (503, "NF_CONGESTION".to_owned()));
    core.ausf().confirm_5g_aka(&first, None).await.unwrap();
    core.ausf().authenticate(&info).await.expect("one that ended makes room");
}

#[tokio::test]
async fn an_answer_after_its_time_finds_no_authentication() {
    let core = Core::start_with(|config| config.limits.context_lifetime_seconds = 0).await;
    let context = core.challenge(&core.subscriber(1)).await;
    let late = core.ausf().confirm_5g_aka(&context, None).await;
    assert_eq!(refusal(late), (404, "CONTEXT_NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn without_udm_nobody_is_authenticated() {
    let mut core = Core::start().await;
    core.stop_udm().await;
    let info = core.info(core.subscriber(1).supi.as_str());
    assert_eq!(refusal(core.ausf().authenticate(&info).await), (504, "UPSTREAM_SERVER_ERROR".to_owned()));
}

/// The public keys as a USIM has them: from the lab's directory.
fn public_key(core: &Core, id: u8, file: &str) -> SuciPublicKey {
    let text = std::fs::read_to_string(core.directory.root().join("pki").join(file)).unwrap();
    let octets = hex::decode(text.trim()).unwrap();
    match octets.len() {
        32 => SuciPublicKey::profile_a(id, octets.try_into().unwrap()).unwrap(),
        _ => SuciPublicKey::profile_b(id, octets.try_into().unwrap()).unwrap(),
    }
}

#[tokio::test]
async fn a_concealed_ue_is_found_with_either_profile_and_with_none() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let home = core.directory.home_network();
    let rid = "0".parse().unwrap();
    let sucis = [
        Suci::conceal(&subscriber.supi, home, &rid, None).unwrap(),
        Suci::conceal(&subscriber.supi, home, &rid, Some(&public_key(&core, 1, "suci-a.pub"))).unwrap(),
        Suci::conceal(&subscriber.supi, home, &rid, Some(&public_key(&core, 2, "suci-b.pub"))).unwrap(),
    ];
    let mut seen = BTreeSet::new();
    for suci in sucis {
        assert!(seen.insert(suci.to_string()));
        let context = core.ausf().authenticate(&core.info(&suci.to_string())).await.unwrap();
        let sbi::nausf::FiveGAuthData::Av5gAka(av) = &context.five_g_auth_data else { panic!() };
        let answer = common::usim(&subscriber).authenticate(av.rand.as_bytes(), av.autn.as_bytes()).unwrap();
        let confirmation = core.ausf().confirm_5g_aka(&context, Some(answer.res_star(&core.snn()))).await.unwrap();
        assert_eq!(confirmation.supi.as_ref(), Some(&subscriber.supi));
    }
}

#[tokio::test]
async fn a_suci_that_cannot_be_opened_is_refused_with_its_cause() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let home = core.directory.home_network();
    let rid = "0".parse().unwrap();
    let refused = async |suci: String| refusal(core.ausf().authenticate(&core.info(&suci)).await);

    let suci =
        Suci::conceal(&subscriber.supi, home, &rid, Some(&public_key(&core, 1, "suci-a.pub"))).unwrap().to_string();
    let last = if suci.ends_with('0') { '1' } else { '0' };
    let altered = format!("{}{last}", &suci[..suci.len() - 1]);
    assert_eq!(refused(altered).await, (403, "INVALID_SCHEME_OUTPUT".to_owned()));

    let stranger = SuciHomeKey::profile_a(9, [7; 32]).unwrap().public_key();
    let suci = Suci::conceal(&subscriber.supi, home, &rid, Some(&stranger)).unwrap().to_string();
    assert_eq!(refused(suci).await, (403, "INVALID_HN_PUBLIC_KEY_IDENTIFIER".to_owned()));

    let unknown_scheme = "suci-0-001-01-0-c-1-00ff".to_owned();
    assert_eq!(refused(unknown_scheme).await, (501, "UNSUPPORTED_PROTECTION_SCHEME".to_owned()));

    let nobody = Suci::conceal(&"imsi-001010000099999".parse().unwrap(), home, &rid, None).unwrap();
    assert_eq!(refused(nobody.to_string()).await, user_not_found());
}

#[tokio::test]
async fn an_ausf_that_needs_tokens_takes_no_certificate_alone() {
    let folder = tempfile::tempdir().unwrap();
    let signer = TokenSigner::from_pem(TokenSigner::generate_pem().unwrap().as_bytes()).unwrap();
    let keys = folder.path().join("nrf.jwks");
    std::fs::write(&keys, signer.jwks().to_string()).unwrap();
    let issuer = IssuerConfig { nf_instance_id: "nrf".to_owned(), keys };
    let section = AuthorizationConfig { issuers: vec![issuer], ..AuthorizationConfig::default() };
    let core = Core::start_with(|config| config.authorization = section).await;
    let answer = core.ausf().authenticate(&core.info(core.subscriber(1).supi.as_str())).await;
    assert_eq!(refusal(answer), (401, "TOKEN_MISSING".to_owned()));
}

#[tokio::test]
async fn who_is_not_on_the_list_is_told_with_the_operation_and_without_the_subscriber() {
    let log = AuditLog::record();
    let core = Core::start().await;
    let supi = core.subscriber(1).supi.clone();
    let told = async |subject: &str, action: &str, outcome: &str| {
        log.next_with(&[("subject", subject), ("action", action), ("outcome", outcome)]).await
    };
    let stranger = Uuid::new_v4();
    let amf = core.authorized(another(&core, stranger, "AMF"), "AMF");
    let ausf = NausfClient::new(amf, core.root_of_ausf());
    assert_eq!(refusal(ausf.authenticate(&core.info(supi.as_str())).await), caller_not_allowed());
    let refused = told(&stranger.to_string(), "nausf-auth:authenticate", "refused").await;
    assert_eq!(refused["reason"], "not_listed");
    assert_eq!(refusal(ausf.deregister(&supi).await), caller_not_allowed());
    told(&stranger.to_string(), "nausf-auth:deregister", "refused").await;

    let id = core.directory.nf_instance_id("ausf").unwrap();
    let uri = format!("{}/nudm-ueau/v1/{}/security-information/generate-auth-data", core.root_of_udm(), supi.as_str());
    let body = json!({"servingNetworkName": core.snn().as_str(), "ausfInstanceId": stranger});
    let as_ausf = core.with_tokens("ausf", "AUSF").for_service("UDM", "nudm-ueau");
    assert!(as_ausf.post::<_, Value>(&uri, &body).await.is_err());
    let in_another_name = told(&id.to_string(), "nudm-ueau:generate-auth-data", "refused").await;
    assert_eq!((&*in_another_name["reason"], &*in_another_name["object"]), ("another_ausf", &*stranger.to_string()));
    let aanf = core.with_tokens("aanf", "AANF").for_service("UDM", "nudm-sdm");
    let subscribers = SubscriberClient::new(aanf, &core.root_of_udm());
    assert!(subscribers.remove(&supi).await.is_err());
    core.subscribers().remove(&supi).await.unwrap();
    let provisioner = core.directory.nf_instance_id("provisioner").unwrap().to_string();
    let removed = [("subject", &*provisioner), ("action", "lab-subscribers:remove"), ("reason", "removed")];
    assert_eq!(log.next_with(&removed).await["object"], "ue");
    assert!(!log.mentions(supi.as_str()) && !log.mentions(supi.as_str().trim_start_matches("imsi-")));
}
