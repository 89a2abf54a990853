//! Nausf_UEAuthentication (TS 29.509), as far as AUSF and SEAF need it for AKMA.

use super::api::{Api, HAL_JSON, delete, post, put};
use super::common::{
    auth_type, hex_16, hex_32, hex_64, link, routing_indicator, serving_network_name, supi, supi_or_suci,
    supported_features,
};
use super::nudm::resynchronization_info;
use super::schema::{Schema, closed_enumeration, format, map, object, one_of, optional, required, text};
use crate::nausf::{
    API_PATH, AuthResult, AuthenticationInfo, Av5gAka, ConfirmationData, ConfirmationDataResponse, DeregistrationInfo,
    EapSession, UEAuthenticationCtx,
};
use crate::services;

/// Nausf_UEAuthentication.
#[must_use]
pub fn nausf_ue_authentication() -> Api {
    const CONFIRMATION: &str = "/ue-authentications/{authCtxId}/5g-aka-confirmation";
    const SESSION: &str = "/ue-authentications/{authCtxId}/eap-session";
    Api::new("Nausf_UEAuthentication", "TS29509_Nausf_UEAuthentication", API_PATH)
        .scoped(&services::NAUSF_AUTH)
        .with(
            post("/ue-authentications", "Begin the authentication of a UE")
                .takes(authentication_info())
                .answers_as(201, HAL_JSON, ue_authentication_ctx())
                .with_location()
                .refuses(501),
        )
        .with(
            post("/ue-authentications/deregister", "Forget the security context of a UE")
                .takes(
                    object(
                        "DeregistrationInfo",
                        vec![required("supi", supi()), optional("supportedFeatures", supported_features())],
                    )
                    .of::<DeregistrationInfo>(),
                )
                .answers_nothing(),
        )
        .with(
            put(CONFIRMATION, "Confirm 5G AKA")
                .at("authCtxId", authentication())
                .takes(confirmation_data())
                .answers(200, confirmation_data_response()),
        )
        .with(delete(CONFIRMATION, "Withdraw a result").at("authCtxId", authentication()).answers_nothing())
        .with(
            post(SESSION, "Carry EAP packets")
                .at("authCtxId", authentication())
                .takes(eap_session())
                .answers(200, eap_session())
                .answers_as(200, HAL_JSON, eap_session_under_way()),
        )
        .with(delete(SESSION, "Withdraw a result").at("authCtxId", authentication()).answers_nothing())
}

fn authentication() -> Schema {
    text("0b8f3d58-54b0-4f4f-8a1c-2b6f1f1c7a10")
}

fn authentication_info() -> Schema {
    object(
        "AuthenticationInfo",
        vec![
            required("supiOrSuci", supi_or_suci()),
            required("servingNetworkName", serving_network_name()),
            optional("resynchronizationInfo", resynchronization_info()),
            optional("routingIndicator", routing_indicator()),
            optional("supportedFeatures", supported_features()),
        ],
    )
    .of::<AuthenticationInfo>()
}

fn ue_authentication_ctx() -> Schema {
    let av_5g_aka = object(
        "Av5gAka",
        vec![required("rand", hex_16()), required("hxresStar", hex_16()), required("autn", hex_16())],
    )
    .of::<Av5gAka>();
    object(
        "UEAuthenticationCtx",
        vec![
            required("authType", auth_type()),
            required("5gAuthData", one_of(vec![av_5g_aka, eap_payload()])),
            required("_links", map(link())),
            optional("servingNetworkName", serving_network_name()),
        ],
    )
    .of::<UEAuthenticationCtx>()
}

fn confirmation_data() -> Schema {
    object(
        "ConfirmationData",
        vec![required("resStar", hex_16().or_null()), optional("supportedFeatures", supported_features())],
    )
    .of::<ConfirmationData>()
}

fn confirmation_data_response() -> Schema {
    object(
        "ConfirmationDataResponse",
        vec![required("authResult", auth_result()), optional("supi", supi()), optional("kseaf", hex_32())],
    )
    .of::<ConfirmationDataResponse>()
}

fn eap_session() -> Schema {
    object(
        "EapSession",
        vec![
            required("eapPayload", eap_payload()),
            optional("kSeaf", hex_32()),
            optional("_links", map(link())),
            optional("authResult", auth_result()),
            optional("supi", supi()),
            optional("supportedFeatures", supported_features()),
            optional("msk", hex_64()),
        ],
    )
    .of::<EapSession>()
}

/// An answer that the session goes on after.
fn eap_session_under_way() -> Schema {
    object(
        "EapSessionUnderWay",
        vec![
            required("eapPayload", eap_payload()),
            required("_links", map(link())),
            optional("authResult", auth_result()),
        ],
    )
}

fn eap_payload() -> Schema {
    format("byte", "AQIABA==").or_null()
}

fn auth_result() -> Schema {
    closed_enumeration(&["AUTHENTICATION_SUCCESS", "AUTHENTICATION_FAILURE", "AUTHENTICATION_ONGOING"])
        .of::<AuthResult>()
}
