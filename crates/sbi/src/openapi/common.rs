//! Schemas that several APIs share (TS 29.571, TS 29.122).

use super::schema::{
    Schema, format, integer, list_of_some, object, open_enumeration, optional, pattern, required, text, unsigned,
    visible,
};
use crate::problem::{InvalidParam, ProblemDetails};
use crate::{AuthType, Link};

pub(super) fn problem_details() -> Schema {
    let invalid_param =
        object("InvalidParam", vec![required("param", text("/aKId")), optional("reason", text("missing"))]);
    object(
        "ProblemDetails",
        vec![
            optional("type", uri("https://example.com/problems/1")),
            optional("title", text("Bad Request")),
            optional("status", unsigned(400)),
            optional("detail", text("not JSON from line 1 column 2 on")),
            optional("instance", uri("https://example.com/occurrences/1")),
            optional("cause", text("MANDATORY_IE_MISSING")),
            optional("invalidParams", list_of_some(invalid_param.of::<InvalidParam>())),
        ],
    )
    .of::<ProblemDetails>()
}

pub(super) fn uri(example: &'static str) -> Schema {
    text(example)
}

pub(super) fn date_time() -> Schema {
    format("date-time", "2026-12-01T00:00:00Z")
}

pub(super) fn supported_features() -> Schema {
    pattern("^[A-Fa-f0-9]*$", "0")
}

pub(super) fn supi() -> Schema {
    pattern("^(imsi-[0-9]{5,15}|(nai|gci|gli)-.+)$", "imsi-001010000000001").of::<akma::Supi>()
}

pub(super) fn gpsi() -> Schema {
    pattern("^(msisdn-[0-9]{5,15}|extid-[^@]+@[^@]+)$", "msisdn-491700000001").of::<akma::Gpsi>()
}

pub(super) fn supi_or_suci() -> Schema {
    pattern("^(imsi-[0-9]{5,15}|(nai|gci|gli|suci)-.+)$", "imsi-001010000000001").of::<crate::SupiOrSuci>()
}

pub(super) fn routing_indicator() -> Schema {
    pattern("^[0-9]{1,4}$", "17").of::<akma::RoutingIndicator>()
}

pub(super) fn serving_network_name() -> Schema {
    pattern(
        "^(5G:mnc[0-9]{3}[.]mcc[0-9]{3}[.]3gppnetwork[.]org(:[A-F0-9]{11})?|5G:NSWO)$",
        "5G:mnc001.mcc001.3gppnetwork.org",
    )
    .of::<akma::ServingNetworkName>()
}

/// Octets in hexadecimal.
macro_rules! hexadecimal {
    ($($name:ident = $pattern:literal, $example:literal;)*) => {$(
        pub(super) fn $name() -> Schema {
            pattern($pattern, $example)
        }
    )*};
}

hexadecimal! {
    hex_14 = "^[A-Fa-f0-9]{28}$", "000102030405060708090a0b0c0d";
    hex_16 = "^[A-Fa-f0-9]{32}$", "000102030405060708090a0b0c0d0e0f";
    hex_32 = "^[A-Fa-f0-9]{64}$", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    hex_64 = "^[A-Fa-f0-9]{128}$", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    res = "^([A-Fa-f0-9]{2}){4,16}$", "0001020304050607";
}

pub(super) fn nf_instance_id() -> Schema {
    text("6f1c5c1e-2f55-4ac1-9f3e-0a3c7b8f1d20")
}

pub(super) fn auth_type() -> Schema {
    open_enumeration(&["5G_AKA", "EAP_AKA_PRIME"]).of::<AuthType>()
}

pub(super) fn link() -> Schema {
    object("Link", vec![required("href", uri("https://ausf.example/nausf-auth/v1/ue-authentications/1"))]).of::<Link>()
}

pub(super) fn service_id(example: &'static str) -> Schema {
    visible(message::SERVICE_ID_OCTETS_MAX, example)
}

/// A period of seconds (TS 29.122 DurationSec).
pub(super) fn duration_seconds() -> Schema {
    integer(60)
}
