//! `api-invocation-logs/v1` and `logs/v1` (TS 29.222 clauses 8.7 and 8.8).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::non_empty;
use super::publish::InterfaceDescription;

/// Calls of one invoker at one API exposing function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvocationLog {
    /// Where.
    pub aef_id: String,
    /// Whose.
    pub api_invoker_id: String,
    /// The calls.
    #[serde(deserialize_with = "non_empty")]
    pub logs: Vec<Log>,
    /// Features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// Service API.
    pub api_id: String,
    /// Its name.
    pub api_name: String,
    /// Its version.
    pub api_version: String,
    /// Resource.
    pub resource_name: String,
    /// URI of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// `HTTP_2`.
    pub protocol: String,
    /// HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// HTTP status.
    pub result: String,
    /// When.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub invocation_time: Option<time::OffsetDateTime>,
    /// How long, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_latency: Option<u64>,
    /// Never sent by us: payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_parameters: Option<Value>,
    /// Never sent by us: payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_parameters: Option<Value>,
    /// Of the invoker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_interface: Option<InterfaceDescription>,
    /// Of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_interface: Option<InterfaceDescription>,
    /// Who forwarded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwd_interface: Option<String>,
}

/// Several logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvocationLogs {
    /// The logs.
    #[serde(deserialize_with = "non_empty")]
    pub multiple_invocation_logs: Vec<InvocationLog>,
    /// Features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_features: Option<String>,
}

/// Answer of a query: one log bare, several in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum InvocationLogsRetrieveRes {
    /// Several.
    Several(InvocationLogs),
    /// One.
    One(InvocationLog),
}

/// The query of an audit; every filter that is there must match.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AuditQuery {
    /// API exposing function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aef_id: Option<String>,
    /// API invoker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_invoker_id: Option<String>,
    /// Calls from then on.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub time_range_start: Option<time::OffsetDateTime>,
    /// Calls until then.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub time_range_end: Option<time::OffsetDateTime>,
    /// Service API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_id: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_name: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// JSON text of an InterfaceDescription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_interface: Option<String>,
    /// JSON text of an InterfaceDescription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_interface: Option<String>,
}

impl AuditQuery {
    /// `log` with the calls that match, or `None` when none does.
    #[must_use]
    pub fn find(&self, log: &InvocationLog) -> Option<InvocationLog> {
        let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
        let may_be = |wanted: &Option<String>, has: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| has.is_some_and(|has| has == wanted))
        };
        if !is(&self.aef_id, &log.aef_id) || !is(&self.api_invoker_id, &log.api_invoker_id) {
            return None;
        }
        let at = |wanted: &Option<String>, has: &Option<InterfaceDescription>| match wanted {
            None => true,
            Some(text) => {
                serde_json::from_str::<InterfaceDescription>(text).ok().as_ref() == has.as_ref() && has.is_some()
            }
        };
        let logs: Vec<Log> = log
            .logs
            .iter()
            .filter(|call| {
                is(&self.api_id, &call.api_id)
                    && is(&self.api_name, &call.api_name)
                    && is(&self.api_version, &call.api_version)
                    && is(&self.protocol, &call.protocol)
                    && may_be(&self.operation, call.operation.as_deref())
                    && is(&self.result, &call.result)
                    && is(&self.resource_name, &call.resource_name)
                    && at(&self.src_interface, &call.src_interface)
                    && at(&self.dest_interface, &call.dest_interface)
                    && self.time_range_start.is_none_or(|from| call.invocation_time.is_some_and(|at| at >= from))
                    && self.time_range_end.is_none_or(|until| call.invocation_time.is_some_and(|at| at <= until))
            })
            .cloned()
            .collect();
        (!logs.is_empty()).then(|| InvocationLog { logs, ..log.clone() })
    }
}
