//! `ss-upr` and `ss-gm` of SEAL (TS 29.549).

use super::api::{Api, MERGE_PATCH, delete, get, patch, post, put};
use super::common::{service_id, supported_features, uri};
use super::schema::{Schema, any, boolean, list, list_of_some, object, optional, required, text, unsigned};
use crate::location::{LocationArea5G, LocationInfo, UpCumEvtRep};
use crate::ss_gm::VALGroupDocument;
use crate::ss_upr::{ProfileDoc, ValTargetUe};
use crate::{ss_gm, ss_upr};

/// SS_UserProfileRetrieval.
#[must_use]
pub fn ss_user_profile_retrieval() -> Api {
    let profile = object(
        "ProfileDoc",
        vec![
            required("profileInformation", text("{\"ueServiceIds\":[\"meter-7@lab.example\"]}")),
            required("valTgtUe", val_target_ue()),
        ],
    );
    Api::new("SS_UserProfileRetrieval", "TS29549_SS_UserProfileRetrieval", ss_upr::API_PATH).with(
        get("/val-services", "Say which UE Service IDs go with a UE ID")
            .query("val-service-id", text(ss_upr::VAL_SERVICE_ID))
            .json_query("val-tgt-ue", val_target_ue())
            .answers(200, list(profile.of::<ProfileDoc>())),
    )
}

/// SS_GroupManagement.
#[must_use]
pub fn ss_group_management() -> Api {
    const DOCUMENTS: &str = "/group-documents";
    const DOCUMENT: &str = "/group-documents/{groupDocId}";
    Api::new("SS_GroupManagement", "TS29549_SS_GroupManagement", ss_gm::API_PATH)
        .with(
            post(DOCUMENTS, "Make a group")
                .takes(val_group_document())
                .answers(201, val_group_document())
                .with_location(),
        )
        .with(
            get(DOCUMENTS, "Give groups")
                .query("val-group-id", text("fleet@lab.example"))
                .query("val-service-id", text(ss_upr::VAL_SERVICE_ID))
                .query("after", text("fleet@lab.example"))
                .query("limit", unsigned(10))
                .answers(200, list(val_group_document())),
        )
        .with(
            get(DOCUMENT, "Give a group, or parts of it")
                .at("groupDocId", service_id("fleet@lab.example"))
                .query("group-members", boolean())
                .query("group-configuration", boolean())
                .answers(200, val_group_document()),
        )
        .with(
            put(DOCUMENT, "Replace a group")
                .at("groupDocId", service_id("fleet@lab.example"))
                .takes(val_group_document())
                .answers(200, val_group_document()),
        )
        .with(
            patch(DOCUMENT, "Change a group")
                .at("groupDocId", service_id("fleet@lab.example"))
                .takes_as(MERGE_PATCH, val_group_document_patch())
                .answers(200, val_group_document()),
        )
        .with(delete(DOCUMENT, "Remove a group").at("groupDocId", service_id("fleet@lab.example")).answers_nothing())
}

fn val_target_ue() -> Schema {
    object(
        "ValTargetUe",
        vec![optional("valUserId", text("meter-7@lab.example")), optional("valUeId", text("imsi-001010000000001"))],
    )
    .exactly_one(&["valUserId", "valUeId"])
    .of::<ValTargetUe>()
}

fn val_group_document() -> Schema {
    object(
        "VALGroupDocument",
        vec![
            required("valGroupId", service_id("fleet@lab.example")),
            optional("grpDesc", text("lorries")),
            optional("members", list_of_some(val_target_ue())),
            optional("valGrpConf", text("{\"senders\":[\"AS:billing@lab.example\"]}")),
            optional("valServiceIds", list_of_some(text(ss_upr::VAL_SERVICE_ID))),
            optional("valSvcInf", text("x")),
            optional("suppFeat", supported_features()),
            optional("resUri", uri("/ss-gm/v1/group-documents/fleet%40lab.example")),
            optional("locInfo", location_info()),
            optional("addLocInfo", location_area()),
            optional("valSvcAreaId", any()),
            optional("extGrpId", text("fleet@example.com")),
            optional("com5GLanType", text("IPV4")),
        ],
    )
    .of::<VALGroupDocument>()
}

fn location_info() -> Schema {
    let reports = object("UpCumEvtRep", vec![optional("upLocRepStat", unsigned(3))]);
    object(
        "LocationInfo",
        vec![
            optional("ageOfLocationInfo", unsigned(5)),
            optional("cellId", text("1")),
            optional("enodeBId", text("1")),
            optional("routingAreaId", text("1")),
            optional("trackingAreaId", text("1")),
            optional("plmnId", text("00101")),
            optional("twanId", text("1")),
            optional("userLocation", any()),
            optional("geographicArea", any()),
            optional("civicAddress", any()),
            optional("positionMethod", any()),
            optional("qosFulfilInd", any()),
            optional("ueVelocity", any()),
            optional("ldrType", any()),
            optional("achievedQos", any()),
            optional("relAppLayerId", text("1")),
            optional("rangeDirection", any()),
            optional("twoDRelLoc", any()),
            optional("threeDRelLoc", any()),
            optional("relVelocity", any()),
            optional("upCumEvtRep", reports.of::<UpCumEvtRep>()),
        ],
    )
    .of::<LocationInfo>()
}

fn location_area() -> Schema {
    object(
        "LocationArea5G",
        vec![
            optional("geographicAreas", list(any())),
            optional("civicAddresses", list(any())),
            optional("nwAreaInfo", any()),
        ],
    )
    .of::<LocationArea5G>()
}

fn val_group_document_patch() -> Schema {
    object(
        "VALGroupDocumentPatch",
        vec![
            optional("grpDesc", text("lorries")),
            optional("members", list_of_some(val_target_ue())),
            optional("valGrpConf", text("{}")),
            optional("valServiceIds", list_of_some(text(ss_upr::VAL_SERVICE_ID))),
            optional("locInfo", location_info()),
            optional("addLocInfo", location_area()),
            optional("valSvcAreaId", any()),
            optional("extGrpId", text("fleet@example.com")),
            optional("com5GLanType", text("IPV4")),
        ],
    )
}
