//! `api-provider-management/v1` (TS 29.222 clause 8.9): an API provider domain and its functions.

use serde::{Deserialize, Serialize};

use super::some_non_empty;

/// An API provider domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiProviderEnrolmentDetails {
    /// The core function's identifier of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prov_dom_id: Option<String>,
    /// The registration credential. Spent by the registration; answers have the word `spent` instead.
    pub reg_sec: String,
    /// Its functions.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub api_prov_funcs: Option<Vec<ApiProviderFunctionDetails>>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prov_dom_info: Option<String>,
    /// Features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supp_feat: Option<String>,
    /// Why some functions are not registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_reason: Option<String>,
    /// The provider's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prov_name: Option<String>,
}

/// What PATCH changes; absent members stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiProviderEnrolmentDetailsPatch {
    /// Replaces all functions.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub api_prov_funcs: Option<Vec<ApiProviderFunctionDetails>>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prov_dom_info: Option<String>,
}

/// A function of a provider domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiProviderFunctionDetails {
    /// The core function's identifier of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prov_func_id: Option<String>,
    /// Its key and certificate.
    pub reg_info: RegistrationInformation,
    /// What it is.
    pub api_prov_func_role: ApiProviderFuncRole,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prov_func_info: Option<String>,
}

/// Key and certificate of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationInformation {
    /// Public key, PEM: SubjectPublicKeyInfo, or a certificate signing request.
    pub api_prov_pub_key: String,
    /// The certificate that the core function issued for it, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_prov_cert: Option<String>,
}

/// What a function is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiProviderFuncRole {
    /// API exposing function.
    #[serde(rename = "AEF")]
    Aef,
    /// API publishing function.
    #[serde(rename = "APF")]
    Apf,
    /// API management function.
    #[serde(rename = "AMF")]
    Amf,
    /// One of a later release; refused.
    #[serde(untagged)]
    Other(String),
}
