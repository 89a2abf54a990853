//! The services spoken here, with their scopes: what producers check and what consumers ask for, in one place.
//!
//! A service's name is its scope (TS 33.501 clause 13.4.1). Finer scopes are those of the OpenAPI files. NF types are
//! those of TS 29.510 clause 6.1.6.3.3, which has none for the MSGin5G Server, Application Servers, Message Gateways and
//! SEAL servers: all of them are application functions.

use crate::authorization::{OperationScope, ServiceScopes};

/// NF type of the AKMA anchor function.
pub const AANF: &str = "AANF";
/// NF type of application functions: MSGin5G Server, Configuration Function, Application Server, Message Gateway.
pub const AF: &str = "AF";
/// NF type of the authentication server function.
pub const AUSF: &str = "AUSF";
/// NF type of the network exposure function.
pub const NEF: &str = "NEF";
/// NF type of the unified data management.
pub const UDM: &str = "UDM";

/// The SUPI may be in the answer to a request for K_AF.
pub const SUPI_ACCESS: &str = "naanf-akma:applicationkeyget:supi-access";

/// Naanf_AKMA (TS 29.535 clause A.2).
pub static NAANF_AKMA: ServiceScopes = ServiceScopes {
    service: "naanf-akma",
    operations: &[
        post("/naanf-akma/v1/register-anchorkey", &["naanf-akma:anchorkey"]),
        post("/naanf-akma/v1/retrieve-applicationkey", &["naanf-akma:applicationkeyget", SUPI_ACCESS]),
        post("/naanf-akma/v1/remove-context", &["naanf-akma:anchorkey"]),
    ],
};
/// What an AUSF asks an NRF for.
pub const NAANF_ANCHORKEY: &str = "naanf-akma naanf-akma:anchorkey";
/// What an AF inside the operator's domain that may see the SUPI asks an NRF for.
pub const NAANF_APPLICATIONKEY_SUPI: &str =
    "naanf-akma naanf-akma:applicationkeyget naanf-akma:applicationkeyget:supi-access";
/// What any other AF or a NEF asks an NRF for.
pub const NAANF_APPLICATIONKEY: &str = "naanf-akma naanf-akma:applicationkeyget";

/// Nausf_UEAuthentication (TS 29.509 clause A.2).
pub static NAUSF_AUTH: ServiceScopes = ServiceScopes {
    service: "nausf-auth",
    operations: &[
        post("/nausf-auth/v1/ue-authentications", UE_AUTHENTICATIONS),
        post("/nausf-auth/v1/ue-authentications/deregister", UE_AUTHENTICATIONS),
        put("/nausf-auth/v1/ue-authentications/{id}/5g-aka-confirmation", UE_AUTHENTICATIONS),
        delete("/nausf-auth/v1/ue-authentications/{id}/5g-aka-confirmation", UE_AUTHENTICATIONS),
        post("/nausf-auth/v1/ue-authentications/{id}/eap-session", UE_AUTHENTICATIONS),
        delete("/nausf-auth/v1/ue-authentications/{id}/eap-session", UE_AUTHENTICATIONS),
    ],
};
const UE_AUTHENTICATIONS: &[&str] = &["nausf-auth:ue-authentications"];

/// Nudm_UEAuthentication (TS 29.503 clause A.4).
pub static NUDM_UEAU: ServiceScopes = ServiceScopes {
    service: "nudm-ueau",
    operations: &[
        post(
            "/nudm-ueau/v1/{ue}/security-information/generate-auth-data",
            &["nudm-ueau:security-information:generate-auth-data:invoke"],
        ),
        post("/nudm-ueau/v1/{supi}/auth-events", &["nudm-ueau:auth-events:create"]),
        put("/nudm-ueau/v1/{supi}/auth-events/{id}", &["nudm-ueau:auth-event-id:modify"]),
    ],
};

/// Nudm_SubscriberDataManagement, of which the identifier translation is spoken here (TS 29.503 clause A.2).
pub static NUDM_SDM: ServiceScopes = ServiceScopes {
    service: "nudm-sdm",
    operations: &[get("/nudm-sdm/v2/{ue}/id-translation-result", &["nudm-sdm:id-translation-result:read"])],
};

/// SS_UserProfileRetrieval (TS 29.549 clause A.3), whose file names no scope.
pub static SS_UPR: ServiceScopes = ServiceScopes { service: "ss-upr", operations: &[] };
/// SS_GroupManagement (TS 29.549 clause A.2), whose file names no scope.
pub static SS_GM: ServiceScopes = ServiceScopes { service: "ss-gm", operations: &[] };
/// The provisioning API of the Configuration Function, which is ours.
pub static CONFIGURATION: ServiceScopes = ServiceScopes { service: "msgin5g-configuration", operations: &[] };

/// MSGS_ASRegistration (TS 29.538).
pub static MSGS_ASREGISTRATION: ServiceScopes = ServiceScopes { service: "msgs-asregistration", operations: &[] };
/// MSGS_MSGDelivery (TS 29.538).
pub static MSGS_MSGDELIVERY: ServiceScopes = ServiceScopes { service: "msgs-msgdelivery", operations: &[] };
/// MSGS_TopiclistEvent (TS 29.538).
pub static MSGS_TOPICLISTEVENT: ServiceScopes = ServiceScopes { service: "msgs-topiclistevent", operations: &[] };

/// Scope of MSGG_L3GDelivery (TS 29.538).
pub const MSGG_L3GDELIVERY: &str = "msgg-l3gdelivery";
/// Scope of MSGG_N3GDelivery (TS 29.538).
pub const MSGG_N3GDELIVERY: &str = "msgg-n3gdelivery";
/// Scope of MSGG_BGDelivery (TS 29.538).
pub const MSGG_BGDELIVERY: &str = "msgg-bgdelivery";

/// Scope of the NEF's device triggering (TS 29.122 clause A.6), whose file names none.
pub const DEVICE_TRIGGERING: &str = "3gpp-device-triggering";
/// Scope of the NEF's event monitoring (TS 29.122 clause A.3), whose file names none.
pub const MONITORING_EVENT: &str = "3gpp-monitoring-event";

const fn get(path: &'static str, scopes: &'static [&'static str]) -> OperationScope {
    OperationScope { method: "GET", path, scopes }
}

const fn post(path: &'static str, scopes: &'static [&'static str]) -> OperationScope {
    OperationScope { method: "POST", path, scopes }
}

const fn put(path: &'static str, scopes: &'static [&'static str]) -> OperationScope {
    OperationScope { method: "PUT", path, scopes }
}

const fn delete(path: &'static str, scopes: &'static [&'static str]) -> OperationScope {
    OperationScope { method: "DELETE", path, scopes }
}
