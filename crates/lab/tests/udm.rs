//! What UDM keeps: subscribers, and sequence numbers that are never used twice.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;

use akma::{Amf, Sqn, Usim};
use common::{Core, credentials, refusal};
use lab::{AuthenticationMethod, LabError, LabSubscriber, SecretHex, Subscription};
use sbi::nudm::{AuthEvent, AuthType, AuthenticationInfoRequest, AuthenticationVector, NudmClient};
use serde_json::{Value, json};

/// One vector from UDM, asked for as the AUSF does: RAND and AUTN.
async fn vector(core: &Core, subscriber: &LabSubscriber) -> ([u8; 16], [u8; 16]) {
    let udm = NudmClient::new(core.with_tokens("ausf", "AUSF"), core.root_of_udm());
    let request = AuthenticationInfoRequest {
        supported_features: None,
        serving_network_name: core.snn(),
        resynchronization_info: None,
        ausf_instance_id: core.directory.nf_instance_id("ausf").unwrap().to_string(),
    };
    let result = udm.generate_auth_data(&subscriber.supi.clone().into(), &request).await.unwrap();
    match result.authentication_vector.unwrap() {
        AuthenticationVector::FiveGHeAka(vector) => (*vector.rand.as_bytes(), *vector.autn.as_bytes()),
        AuthenticationVector::EapAkaPrime(vector) => (*vector.rand.as_bytes(), *vector.autn.as_bytes()),
    }
}

fn sqn(subscriber: &LabSubscriber, (rand, autn): &([u8; 16], [u8; 16])) -> Sqn {
    let ak = credentials(subscriber).vector(rand, Sqn::ZERO, Amf::FIVE_G).ak;
    let mut octets = [0; 6];
    for (index, octet) in octets.iter_mut().enumerate() {
        *octet = autn[index] ^ ak.expose()[index];
    }
    Sqn::from_bytes(octets)
}

#[tokio::test]
async fn a_usim_accepts_every_vector_over_a_restart_of_udm() {
    let mut core = Core::start().await;
    let subscriber = core.subscriber(1);
    let mut usim = Usim::new(credentials(&subscriber), Sqn::ZERO);
    for _ in 0..3 {
        for _ in 0..3 {
            let (rand, autn) = vector(&core, &subscriber).await;
            usim.authenticate(&rand, &autn).expect("a fresh sequence number");
        }
        core.stop_udm().await;
        core.start_udm().await;
        core.all_registered().await;
    }
}

#[tokio::test]
async fn vectors_asked_for_at_once_have_different_sequence_numbers() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let vectors = futures_util::future::join_all((0..40).map(|_| vector(&core, &subscriber))).await;
    let numbers: BTreeSet<Sqn> = vectors.iter().map(|vector| sqn(&subscriber, vector)).collect();
    assert_eq!(numbers.len(), 40);
    let indices: BTreeSet<usize> = numbers.iter().map(|number| number.ind()).collect();
    assert_eq!(indices.len(), Sqn::IND_COUNT, "the index goes round");
}

#[tokio::test]
async fn a_subscriber_that_is_replaced_or_comes_back_goes_on_with_its_sequence_number() {
    let core = Core::start().await;
    let subscriber = core.subscriber(1);
    let mut subscription = core.directory.subscriptions().remove(0);
    let first = sqn(&subscriber, &vector(&core, &subscriber).await);
    assert!(!core.subscribers().put(&subscription).await.unwrap(), "it was there before");
    let second = sqn(&subscriber, &vector(&core, &subscriber).await);
    assert!(second > first);
    core.subscribers().remove(&subscription.supi).await.unwrap();
    assert!(core.subscribers().put(&subscription).await.unwrap(), "it is new");
    let third = sqn(&subscriber, &vector(&core, &subscriber).await);
    assert!(third > second);
    subscription.sequence_number = Some(Sqn::new(1 << 30).unwrap());
    core.subscribers().put(&subscription).await.unwrap();
    assert!(sqn(&subscriber, &vector(&core, &subscriber).await).value() > 1 << 30);
}

#[tokio::test]
async fn a_subscription_whose_sequence_numbers_are_used_up_gets_no_vector() {
    let core = Core::start().await;
    let mut subscription = core.directory.subscriptions().remove(0);
    subscription.sequence_number = Some(Sqn::MAX);
    core.subscribers().put(&subscription).await.unwrap();
    let answer = core.ausf().authenticate(&core.info(subscription.supi.as_str())).await;
    assert_eq!(refusal(answer), (500, "AV_GENERATION_PROBLEM".to_owned()));
}

#[tokio::test]
async fn subscribers_are_added_listed_without_keys_and_removed() {
    let core = Core::start().await;
    let supi: akma::Supi = "imsi-001010000000777".parse().unwrap();
    let mut subscription =
        Subscription::new(supi.clone(), SecretHex::new(vec![0xA5; 16]), SecretHex::new(vec![0x5A; 16]));
    subscription.gpsi = Some("extid-pump@lab.example".parse().unwrap());
    subscription.authentication_method = AuthenticationMethod::EapAkaPrime;
    assert!(core.subscribers().put(&subscription).await.unwrap());
    let listed = core.subscribers().list().await.unwrap();
    assert_eq!(listed.len(), 9);
    assert!(listed.iter().any(|summary| *summary == subscription.summary()));
    let uri = format!("{}/lab-subscribers/v1/subscribers", core.root_of_udm());
    let text = core.http("provisioner").get::<Value>(&uri).await.unwrap().into_body().unwrap().to_string();
    assert!(text.contains(supi.as_str()) && !text.contains("a5a5") && !text.contains("5a5a"));
    core.subscribers().remove(&supi).await.unwrap();
    assert!(matches!(core.subscribers().remove(&supi).await, Err(LabError::UnknownSubscriber)));
    assert_eq!(core.subscribers().list().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_network_specific_identifier_is_a_subscriber_too() {
    let core = Core::start().await;
    let supi: akma::Supi = "nai-robot+7@factory.example".parse().unwrap();
    let subscription = Subscription::new(supi.clone(), SecretHex::new(vec![1; 16]), SecretHex::new(vec![2; 16]));
    core.subscribers().put(&subscription).await.unwrap();
    core.ausf().authenticate(&core.info(supi.as_str())).await.unwrap();
    core.subscribers().remove(&supi).await.unwrap();
}

#[tokio::test]
async fn a_list_longer_than_one_answer_is_read_in_pages() {
    let core = Core::start().await;
    let uri = |after: &str| format!("{}/lab-subscribers/v1/subscribers?limit=3{after}", core.root_of_udm());
    let page: Vec<Value> = core.http("provisioner").get(&uri("")).await.unwrap().into_body().unwrap();
    assert_eq!(page.len(), 3);
    let after = format!("&after={}", page[2]["supi"].as_str().unwrap());
    let next: Vec<Value> = core.http("provisioner").get(&uri(&after)).await.unwrap().into_body().unwrap();
    assert_eq!(next[0]["supi"], core.subscriber(4).supi.as_str());
}

#[tokio::test]
async fn a_subscription_that_could_never_be_authenticated_is_refused() {
    let core = Core::start().await;
    let good = serde_json::to_value(&core.directory.subscriptions()[0]).unwrap();
    let uri = format!("{}/lab-subscribers/v1/subscribers/{}", core.root_of_udm(), good["supi"].as_str().unwrap());
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    for (body, why) in [
        (with("k", json!("00ff")), "K too short"),
        (with("k", json!("not hex")), "K not hex"),
        (with("opc", json!("00".repeat(32))), "TOPc with MILENAGE"),
        (with("op", json!("00".repeat(16))), "both OP and OPc"),
        (with("authenticationManagementField", json!("0000")), "no separation bit"),
        (with("supi", json!("imsi-001010000000002")), "another SUPI than in the path"),
        (with("gpsi", json!(core.subscriber(2).gpsi.as_str())), "another subscriber's GPSI"),
        (with("sequenceNumber", json!("1")), "no 48 bits"),
        (with("routingIndicator", json!("12345")), "five digits"),
        (with("algorithm", json!("comp128")), "unknown algorithm"),
        (with("surprise", json!(1)), "unknown member"),
    ] {
        let (status, _) = refusal(core.http("provisioner").put::<_, Value>(&uri, &body).await);
        assert_eq!(status, 400, "{why}");
    }
    core.http("provisioner").put::<_, Value>(&uri, &good).await.unwrap();
}

#[tokio::test]
async fn udm_keeps_the_latest_authentication_event() {
    let core = Core::start().await;
    let supi = core.subscriber(1).supi.clone();
    let udm = NudmClient::new(core.with_tokens("ausf", "AUSF"), core.root_of_udm());
    let mut event = AuthEvent {
        nf_instance_id: core.directory.nf_instance_id("ausf").unwrap().to_string(),
        success: true,
        time_stamp: time::OffsetDateTime::now_utc(),
        auth_type: AuthType::FiveGAka,
        serving_network_name: core.snn(),
        auth_removal_ind: false,
    };
    let id = |location: Option<String>| location.unwrap().rsplit('/').next().unwrap().to_owned();
    let first = id(udm.confirm_auth(&supi, &event).await.unwrap());
    let second = id(udm.confirm_auth(&supi, &event).await.unwrap());
    assert_eq!(refusal(udm.delete_auth(&supi, &second, &event).await).0, 400, "without authRemovalInd");
    event.auth_removal_ind = true;
    assert_eq!(refusal(udm.delete_auth(&supi, &first, &event).await).0, 404, "a later one took its place");
    udm.delete_auth(&supi, &second, &event).await.unwrap();
    assert_eq!(refusal(udm.delete_auth(&supi, &second, &event).await).0, 404);
    let nobody = "imsi-001010000099999".parse().unwrap();
    assert_eq!(refusal(udm.confirm_auth(&nobody, &event).await), (404, "USER_NOT_FOUND".to_owned()));
}
