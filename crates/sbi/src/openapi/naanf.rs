//! Naanf_AKMA (TS 29.535), and the types that it shares with the NEF's `3gpp-akma` (TS 29.522).

use super::api::{Api, Operation, post};
use super::common::{date_time, gpsi, hex_32, supi, supported_features, uri};
use super::schema::{Schema, boolean, object, optional, pattern, required, visible};
use crate::naanf::{
    API_PATH, AkmaAfKeyData, AkmaAfKeyRequest, AkmaKeyInfo, CtxRemove, NotificationUri, ServiceDisableNotif,
};
use crate::services;

/// Naanf_AKMA.
#[must_use]
pub fn naanf_akma() -> Api {
    Api::new("Naanf_AKMA", "TS29535_Naanf_AKMA", API_PATH)
        .scoped(&services::NAANF_AKMA)
        .with(
            post("/register-anchorkey", "Keep the key material of a UE")
                .takes(akma_key_info())
                .answers(200, akma_key_info()),
        )
        .with(
            post("/retrieve-applicationkey", "Give K_AF and its expiry")
                .takes(akma_af_key_request())
                .answers(200, akma_af_key_data())
                .answers_nothing()
                .calls_back("serviceDisableNotification", "{$request.body#/notifUri}", service_disable_notification()),
        )
        .with(
            post("/remove-context", "Forget the key material of a UE")
                .takes(object("CtxRemove", vec![required("supi", supi())]).of::<CtxRemove>())
                .answers_nothing(),
        )
}

/// `3gpp-akma` of a NEF (TS 29.522), for application functions outside the domain.
#[must_use]
pub fn nef_akma() -> Api {
    Api::new("AKMA", "TS29522_AKMA", crate::nef_akma::API_PATH).with(
        post("/retrieve", "Give K_AF and its expiry, and no SUPI")
            .takes(akma_af_key_request())
            .answers(200, akma_af_key_data())
            .answers_nothing()
            .calls_back("serviceDisableNotification", "{$request.body#/notifUri}", service_disable_notification()),
    )
}

fn service_disable_notification() -> Operation {
    let body = object("ServiceDisableNotif", vec![required("aKId", a_kid())]).of::<ServiceDisableNotif>();
    post("", "Tell that AKMA is not to be used any more").takes(body).answers_nothing()
}

fn akma_key_info() -> Schema {
    object(
        "AkmaKeyInfo",
        vec![
            optional("suppFeat", supported_features()),
            optional("supi", supi()),
            optional("gpsi", gpsi()),
            required("aKId", a_kid()),
            required("kAkma", hex_32()),
        ],
    )
    .exactly_one(&["supi", "gpsi"])
    .of::<AkmaKeyInfo>()
}

pub(super) fn akma_af_key_request() -> Schema {
    object(
        "AkmaAfKeyRequest",
        vec![
            optional("suppFeat", supported_features()),
            required("afId", af_id()),
            required("aKId", a_kid()),
            optional("anonInd", boolean()),
            optional("notifUri", uri("https://msgin5g.example.com/akma-notifications").of::<NotificationUri>()),
        ],
    )
    .of::<AkmaAfKeyRequest>()
}

pub(super) fn akma_af_key_data() -> Schema {
    object(
        "AkmaAfKeyData",
        vec![
            optional("suppFeat", supported_features()),
            optional("gpsi", gpsi()),
            required("expiry", date_time()),
            required("kaf", hex_32()),
            optional("supi", supi()),
        ],
    )
    .of::<AkmaAfKeyData>()
}

fn a_kid() -> Schema {
    visible(akma::AKid::OCTETS_MAX, "17.00a1@5gc.mnc001.mcc001.3gppnetwork.org").of::<akma::AKid>()
}

fn af_id() -> Schema {
    pattern("^[A-Za-z0-9.-]+:[A-Fa-f0-9]{10}$", "msgin5g.example.com:0100000007").of::<akma::AfId>()
}
