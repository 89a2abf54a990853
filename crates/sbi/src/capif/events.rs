//! `capif-events/v1` (TS 29.222 clause 8.3).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exposing_function::WebsockNotifConfig;
use super::invoker_management::ApiList;
use super::policy::ApiInvokerPolicy;
use super::publish::ServiceApiDescription;
use super::{non_empty, some_non_empty};

/// A subscription to events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSubscription {
    /// Which.
    #[serde(deserialize_with = "non_empty")]
    pub events: Vec<String>,
    /// Only about these.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub event_filters: Option<Vec<CapifEventFilter>>,
    /// Reporting; kept and answered, otherwise without effect: each event is reported at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_req: Option<Value>,
    /// Where.
    pub notification_destination: String,
    /// Not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_test_notification: Option<bool>,
    /// Not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websock_notif_config: Option<WebsockNotifConfig>,
    /// Features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
}

/// What PATCH changes; absent members stay.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSubscriptionPatch {
    /// As in the subscription.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// As in the subscription.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub event_filters: Option<Vec<CapifEventFilter>>,
    /// As in the subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_req: Option<Value>,
    /// As in the subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_destination: Option<String>,
}

/// What an event must be about: one of each list that is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapifEventFilter {
    /// Service APIs.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub api_ids: Option<Vec<String>>,
    /// API invokers.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub api_invoker_ids: Option<Vec<String>>,
    /// API exposing functions.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub aef_ids: Option<Vec<String>>,
}

/// A notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventNotification {
    /// Of which subscription.
    pub subscription_id: String,
    /// What happened.
    pub events: String,
    /// To what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_detail: Option<CapifEventDetail>,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapifEventDetail {
    /// Service APIs, described.
    #[serde(
        rename = "serviceAPIDescriptions",
        default,
        deserialize_with = "some_non_empty",
        skip_serializing_if = "Option::is_none"
    )]
    pub service_api_descriptions: Option<Vec<ServiceApiDescription>>,
    /// Service APIs.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub api_ids: Option<Vec<String>>,
    /// API invokers.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub api_invoker_ids: Option<Vec<String>>,
    /// Invocation logs.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub invocation_logs: Option<Vec<super::logging::InvocationLog>>,
    /// An access control policy that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acc_ctrl_pol_list: Option<AccessControlPolicyListExt>,
}

/// The access control policy of a service API, as far as it changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessControlPolicyListExt {
    /// Of which service API.
    pub api_id: String,
    /// What is so from now on.
    #[serde(default, deserialize_with = "some_non_empty", skip_serializing_if = "Option::is_none")]
    pub api_invoker_policies: Option<Vec<ApiInvokerPolicy>>,
}

/// Notification of an onboarding or update that was decided later. Ours are decided at once; the type is for invokers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnboardingNotification {
    /// Whether it succeeded.
    pub result: bool,
    /// Service APIs that may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_list: Option<ApiList>,
}

/// The events that there are here.
pub mod event {
    /// A service API was published.
    pub const SERVICE_API_AVAILABLE: &str = "SERVICE_API_AVAILABLE";
    /// A service API was unpublished.
    pub const SERVICE_API_UNAVAILABLE: &str = "SERVICE_API_UNAVAILABLE";
    /// What is published of a service API changed.
    pub const SERVICE_API_UPDATE: &str = "SERVICE_API_UPDATE";
    /// An invoker came.
    pub const API_INVOKER_ONBOARDED: &str = "API_INVOKER_ONBOARDED";
    /// An invoker went.
    pub const API_INVOKER_OFFBOARDED: &str = "API_INVOKER_OFFBOARDED";
    /// An invoker changed.
    pub const API_INVOKER_UPDATED: &str = "API_INVOKER_UPDATED";
    /// An invoker may no longer use a service API.
    pub const API_INVOKER_AUTHORIZATION_REVOKED: &str = "API_INVOKER_AUTHORIZATION_REVOKED";
    /// Who may use a service API, or how much of it, changed.
    pub const ACCESS_CONTROL_POLICY_UPDATE: &str = "ACCESS_CONTROL_POLICY_UPDATE";
    /// Nobody may use a service API any more.
    pub const ACCESS_CONTROL_POLICY_UNAVAILABLE: &str = "ACCESS_CONTROL_POLICY_UNAVAILABLE";
    /// A call was logged that succeeded.
    pub const SERVICE_API_INVOCATION_SUCCESS: &str = "SERVICE_API_INVOCATION_SUCCESS";
    /// A call was logged that failed.
    pub const SERVICE_API_INVOCATION_FAILURE: &str = "SERVICE_API_INVOCATION_FAILURE";
}
