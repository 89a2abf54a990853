//! The audit: each decision of this function is one event, with who, what, how it came out and why; from outside, over real
//! HTTP/2. Alone in its process, so that every event is of this test.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use aanf::{AfConfig, PROVISIONING_PATH};
use common::*;
use sbi::testing::audit::{AuditLog, Told};
use serde_json::{Value, json};

#[tokio::test]
async fn each_decision_is_one_event_with_subject_action_object_outcome_and_reason() {
    const REGISTER: &str = "/naanf-akma/v1/register-anchorkey";
    const RETRIEVE: &str = "/naanf-akma/v1/retrieve-applicationkey";
    const REMOVE: &str = "/naanf-akma/v1/remove-context";
    const PROVISION: &str = "aanf-provisioning";
    let log = AuditLog::record();
    let mut told = Told::of(log);
    let fixture = Fixture::start_with(|_, config| {
        config.afs.push(AfConfig { may_provision: true, ..af(UDM, &[]) });
        config.afs[2].requests_per_second_max = Some(1);
        config.tables.disabled_afs_max = 1;
    })
    .await;

    fixture.register(SUPI, A_KID).await;
    told.once(AUSF, REGISTER, "register-anchorkey allowed added");
    refused(fixture.client(AUSF).register_anchorkey(&key_info(OTHER_SUPI, A_KID, K_AKMA)).await);
    told.once(AUSF, REGISTER, "register-anchorkey refused a_kid_in_use");
    refused(fixture.client(INSIDE_AF).register_anchorkey(&key_info(SUPI, A_KID, K_AKMA)).await);
    told.once(INSIDE_AF, REGISTER, "register-anchorkey refused may_not_register");

    fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().unwrap();
    told.once(INSIDE_AF, RETRIEVE, "retrieve-applicationkey inside.example.com allowed found");
    assert!(fixture.retrieve(INSIDE_AF, INSIDE, NEW_A_KID).await.unwrap().is_none());
    told.once(INSIDE_AF, RETRIEVE, "retrieve-applicationkey inside.example.com allowed unknown");
    refused(fixture.retrieve(INSIDE_AF, OUTSIDE, A_KID).await);
    told.once(INSIDE_AF, RETRIEVE, "retrieve-applicationkey outside.example.com refused af_id_not_allowed");
    refused(fixture.retrieve(STRANGER, INSIDE, A_KID).await);
    told.once(STRANGER, RETRIEVE, "retrieve-applicationkey refused no_policy_entry");
    let mut request = request(INSIDE, A_KID);
    request.notif_uri = Some("https://elsewhere.example/x".parse().unwrap());
    refused(fixture.client(INSIDE_AF).retrieve_applicationkey(&request).await);
    told.once(INSIDE_AF, RETRIEVE, "retrieve-applicationkey inside.example.com refused notification_uri");

    let (http, root) = fixture.http(INSIDE_AF);
    refused(http.post::<_, Value>(&format!("{root}/remove-context"), &json!({"supi": SUPI})).await);
    told.once(INSIDE_AF, REMOVE, "remove-context refused may_not_register");

    let (udm, stranger) = (fixture.authority.client(UDM), fixture.authority.client(INSIDE_AF));
    let disabled = |what: &str| format!("{}{PROVISIONING_PATH}/{what}", fixture.root());
    let (ue, af) = (disabled(&format!("disabled-ues/{SUPI}")), disabled(&format!("disabled-afs/{INSIDE}")));
    refused(stranger.put::<_, Value>(&ue, &()).await);
    told.once(INSIDE_AF, PROVISION, "disable-ue refused may_not_provision");
    refused(stranger.delete::<Value>(&ue).await);
    told.once(INSIDE_AF, PROVISION, "enable-ue refused may_not_provision");
    refused(stranger.put::<_, Value>(&af, &()).await);
    told.once(INSIDE_AF, PROVISION, "disable-af refused may_not_provision");
    udm.put::<_, Value>(&af, &()).await.unwrap();
    told.once(UDM, PROVISION, "disable-af inside.example.com allowed disabled");
    refused(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await);
    told.once(INSIDE_AF, RETRIEVE, "retrieve-applicationkey inside.example.com refused af_disabled");
    refused(udm.put::<_, Value>(&disabled("disabled-afs/third.example"), &()).await);
    told.once(UDM, PROVISION, "disable-af third.example failed full");
    udm.delete::<Value>(&af).await.unwrap();
    told.once(UDM, PROVISION, "enable-af inside.example.com allowed enabled");
    udm.put::<_, Value>(&ue, &()).await.unwrap();
    told.once(UDM, PROVISION, "disable-ue ue allowed disabled");
    refused(fixture.client(AUSF).register_anchorkey(&key_info(SUPI, A_KID, K_AKMA)).await);
    told.once(AUSF, REGISTER, "register-anchorkey refused disabled");

    // Until the one of a second is used up.
    let (asker, mut too_often) = (fixture.client(OUTSIDE_AF), false);
    for _ in 0..200 {
        let answer = asker.retrieve_applicationkey(&common::request(OUTSIDE, A_KID)).await;
        too_often = answer.is_err();
        let decision = if too_often { "refused too_often" } else { "outside.example.com allowed unknown" };
        told.once(OUTSIDE_AF, RETRIEVE, &format!("retrieve-applicationkey {decision}"));
        if too_often {
            break;
        }
    }
    assert!(too_often);
    assert!(!log.mentions(SUPI) && !log.mentions(OTHER_SUPI) && !log.mentions(K_AKMA));
    fixture.stop().await;
}
