//! `access-control-policy/v1` (TS 29.222 clause 8.6).

use serde::{Deserialize, Serialize};

/// Who may use a service API, and how much of it. Whoever is not in it may not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessControlPolicyList {
    /// One entry per invoker.
    #[serde(default)]
    pub api_invoker_policies: Vec<ApiInvokerPolicy>,
}

/// What one invoker may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiInvokerPolicy {
    /// Who.
    pub api_invoker_id: String,
    /// Calls in all; any number if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_total_invocations: Option<u64>,
    /// Calls per second; any number if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_invocations_per_second: Option<u64>,
    /// When; always if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_invocation_time_range_list: Vec<TimeRangeList>,
}

/// From when to when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeRangeList {
    /// Not before this time.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<time::OffsetDateTime>,
    /// Not after this time.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub stop_time: Option<time::OffsetDateTime>,
}

impl TimeRangeList {
    /// Whether `now` lies within.
    #[must_use]
    pub fn includes(&self, now: time::OffsetDateTime) -> bool {
        self.start_time.is_none_or(|start| start <= now) && self.stop_time.is_none_or(|stop| now <= stop)
    }
}
