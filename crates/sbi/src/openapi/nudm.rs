//! Nudm_UEAuthentication (TS 29.503), as far as AUSF needs it.

use super::api::{Api, post, put};
use super::common::{
    auth_type, date_time, hex_14, hex_16, hex_32, nf_instance_id, res, routing_indicator, serving_network_name, supi,
    supi_or_suci, supported_features,
};
use super::schema::{Schema, boolean, closed_enumeration, object, one_of, optional, required, text};
use crate::nudm::{
    AuthEvent, AuthenticationInfoRequest, AuthenticationInfoResult, AuthenticationVector, ResynchronizationInfo,
    UEAU_API_PATH,
};
use crate::services;

/// Nudm_UEAuthentication.
#[must_use]
pub fn nudm_ue_authentication() -> Api {
    Api::new("Nudm_UEAU", "TS29503_Nudm_UEAU", UEAU_API_PATH)
        .scoped(&services::NUDM_UEAU)
        .with(
            post("/{supiOrSuci}/security-information/generate-auth-data", "Make the next vector")
                .at("supiOrSuci", supi_or_suci())
                .takes(authentication_info_request())
                .answers(200, authentication_info_result())
                .refuses(501),
        )
        .with(
            post("/{supi}/auth-events", "Note the outcome of an authentication")
                .at("supi", supi())
                .takes(auth_event())
                .answers(201, auth_event())
                .with_location(),
        )
        .with(
            put("/{supi}/auth-events/{authEventId}", "Withdraw it")
                .at("supi", supi())
                .at("authEventId", text("1"))
                .takes(auth_event())
                .answers_nothing(),
        )
}

pub(super) fn resynchronization_info() -> Schema {
    object("ResynchronizationInfo", vec![required("rand", hex_16()), required("auts", hex_14())])
        .of::<ResynchronizationInfo>()
}

fn authentication_info_request() -> Schema {
    object(
        "AuthenticationInfoRequest",
        vec![
            optional("supportedFeatures", supported_features()),
            required("servingNetworkName", serving_network_name()),
            optional("resynchronizationInfo", resynchronization_info()),
            required("ausfInstanceId", nf_instance_id()),
        ],
    )
    .of::<AuthenticationInfoRequest>()
}

fn authentication_info_result() -> Schema {
    let av_5g_he_aka = object(
        "Av5GHeAka",
        vec![
            required("avType", closed_enumeration(&["5G_HE_AKA"])),
            required("rand", hex_16()),
            required("xresStar", hex_16()),
            required("autn", hex_16()),
            required("kausf", hex_32()),
        ],
    );
    let av_eap_aka_prime = object(
        "AvEapAkaPrime",
        vec![
            required("avType", closed_enumeration(&["EAP_AKA_PRIME"])),
            required("rand", hex_16()),
            required("xres", res()),
            required("autn", hex_16()),
            required("ckPrime", hex_16()),
            required("ikPrime", hex_16()),
        ],
    );
    let vector = one_of(vec![av_5g_he_aka.of::<AuthenticationVector>(), av_eap_aka_prime.of::<AuthenticationVector>()]);
    object(
        "AuthenticationInfoResult",
        vec![
            required("authType", auth_type()),
            optional("supportedFeatures", supported_features()),
            optional("authenticationVector", vector.named("AuthenticationVector")),
            optional("supi", supi()),
            optional("akmaInd", boolean()),
            optional("routingId", routing_indicator()),
        ],
    )
    .of::<AuthenticationInfoResult>()
}

fn auth_event() -> Schema {
    object(
        "AuthEvent",
        vec![
            required("nfInstanceId", nf_instance_id()),
            required("success", boolean()),
            required("timeStamp", date_time()),
            required("authType", auth_type()),
            required("servingNetworkName", serving_network_name()),
            optional("authRemovalInd", boolean()),
        ],
    )
    .of::<AuthEvent>()
}
