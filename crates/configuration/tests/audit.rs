//! The audit: each decision of this function over HTTP is one event, with who, what, how it came out and why. Alone in its
//! process, so that every event is of this test. What UEs are told over CoAP is in `ue_configuration`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Fixture, PROVISIONER, SERVER, STRANGER, SUPI, refused, service, ue};
use sbi::association::PageQuery;
use sbi::ss_gm::{GroupQuery, VALGroupDocument, VALGroupDocumentPatch};
use sbi::testing::audit::{AuditLog, Told};

#[tokio::test]
async fn each_decision_on_associations_is_one_event_that_never_names_the_ue() {
    const API: &str = "msgin5g-configuration";
    const GPSI: &str = common::GPSI;
    let log = AuditLog::record();
    let mut told = Told::of(log);
    let fixture = Fixture::start_with(|config| config.tables.associations_per_ue_max = 1).await;
    let (provisioner, stranger) = (fixture.provisioner(PROVISIONER), fixture.provisioner(STRANGER));
    let (this, first, second) = (ue(SUPI), service("a@lab.example"), service("b@lab.example"));

    provisioner.associate(&this, &first).await.unwrap();
    told.once(PROVISIONER, API, "add a@lab.example allowed added");
    provisioner.associate(&this, &first).await.unwrap();
    told.once(PROVISIONER, API, "add a@lab.example allowed already");
    refused(provisioner.associate(&this, &second).await);
    told.once(PROVISIONER, API, "add b@lab.example refused too_many");
    provisioner.of_ue(&this).await.unwrap();
    told.once(PROVISIONER, API, "get allowed found");
    provisioner.page(&PageQuery::default()).await.unwrap();
    told.once(PROVISIONER, API, "list allowed found");
    fixture.may_register(SUPI).await;
    told.once(SERVER, "ss-upr", "retrieve-profile allowed found");
    fixture.may_register(GPSI).await;
    told.once(SERVER, "ss-upr", "retrieve-profile allowed unknown");

    // Refused for what would have been done: who looks for an action finds who was not let do it.
    refused(stranger.associate(&this, &second).await);
    told.once(STRANGER, API, "add b@lab.example refused not_allowed");
    refused(stranger.dissociate(&this, &first).await);
    told.once(STRANGER, API, "remove a@lab.example refused not_allowed");
    refused(stranger.dissociate_all(&ue(GPSI)).await);
    told.once(STRANGER, API, "remove every association of a UE refused not_allowed");
    refused(stranger.of_ue(&ue(GPSI)).await);
    told.once(STRANGER, API, "get refused not_allowed");
    refused(stranger.page(&PageQuery::default()).await);
    told.once(STRANGER, API, "list refused not_allowed");
    refused(fixture.reader(STRANGER).ue_service_ids(&this).await);
    told.once(STRANGER, "ss-upr", "retrieve-profile refused not_allowed");

    provisioner.dissociate(&this, &first).await.unwrap();
    told.once(PROVISIONER, API, "remove a@lab.example allowed removed");
    provisioner.dissociate_all(&this).await.unwrap();
    told.once(PROVISIONER, API, "remove every association of a UE allowed unknown");
    groups(&fixture, &mut told).await;
    assert!(!log.mentions(SUPI) && !log.mentions(GPSI));
}

async fn groups(fixture: &Fixture, told: &mut Told) {
    const API: &str = "ss-gm";
    let (provisioner, reader, stranger) =
        (fixture.groups(PROVISIONER), fixture.groups(SERVER), fixture.groups(STRANGER));
    let group = VALGroupDocument::new("fleet@lab.example".parse().unwrap());
    let (id, patch) = (group.val_group_id.clone(), VALGroupDocumentPatch::default());

    provisioner.create(&group).await.unwrap();
    told.once(PROVISIONER, API, "group-create fleet@lab.example allowed created");
    refused(provisioner.create(&group).await);
    told.once(PROVISIONER, API, "group-create fleet@lab.example refused exists");
    provisioner.modify(&id, &patch).await.unwrap();
    told.once(PROVISIONER, API, "group-update fleet@lab.example allowed updated");
    reader.document(&id).await.unwrap().unwrap();
    told.once(SERVER, API, "group-get allowed found");
    reader.documents(&GroupQuery::default()).await.unwrap();
    told.once(SERVER, API, "group-list allowed found");

    for client in [(&reader, SERVER), (&stranger, STRANGER)] {
        refused(client.0.create(&group).await);
        told.once(client.1, API, "group-create refused not_allowed");
        refused(client.0.replace(&group).await);
        told.once(client.1, API, "group-update fleet@lab.example refused not_allowed");
        refused(client.0.modify(&id, &patch).await);
        told.once(client.1, API, "group-update fleet@lab.example refused not_allowed");
        refused(client.0.remove(&id).await);
        told.once(client.1, API, "group-delete fleet@lab.example refused not_allowed");
    }
    refused(stranger.document(&id).await);
    told.once(STRANGER, API, "group-get fleet@lab.example refused not_allowed");
    refused(stranger.documents(&GroupQuery::default()).await);
    told.once(STRANGER, API, "group-list refused not_allowed");
    assert!(provisioner.remove(&id).await.unwrap());
    told.once(PROVISIONER, API, "group-delete fleet@lab.example allowed removed");
}
