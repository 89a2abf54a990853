//! `api-invoker-management/v1` (TS 29.222 clause 8.4): onboarding of API invokers.

use serde::{Deserialize, Serialize};

use super::exposing_function::WebsockNotifConfig;
use super::publish::ServiceApiDescription;
use super::some_non_empty;

/// An API invoker.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiInvokerEnrolmentDetails {
    /// The core function's identifier of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_invoker_id: Option<String>,
    /// Its key and certificate.
    pub onboarding_information: OnboardingInformation,
    /// Where it is notified.
    pub notification_destination: String,
    /// Not supported: notifications come when there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_test_notification: Option<bool>,
    /// Not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websock_notif_config: Option<WebsockNotifConfig>,
    /// In a request: the APIs wanted; in an answer: those it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_list: Option<ApiList>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_invoker_information: Option<String>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp_time: Option<String>,
    /// Features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
}

/// What PATCH changes; absent members stay.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiInvokerEnrolmentDetailsPatch {
    /// Another key gets another certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onboarding_information: Option<OnboardingInformation>,
    /// As in the details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_destination: Option<String>,
    /// As in the details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_list: Option<ApiList>,
    /// As in the details.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_invoker_information: Option<String>,
}

/// Key and certificate of an API invoker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnboardingInformation {
    /// Public key, PEM: SubjectPublicKeyInfo, or a certificate signing request.
    pub api_invoker_public_key: String,
    /// The certificate that the core function issued for it, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_invoker_certificate: Option<String>,
    /// Not given out: the certificate is what proves an invoker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onboarding_secret: Option<String>,
}

/// A list of service APIs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ApiList {
    /// The APIs.
    #[serde(
        rename = "serviceAPIDescriptions",
        default,
        deserialize_with = "some_non_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub service_api_descriptions: Option<Vec<ServiceApiDescription>>,
}
