//! `api-invocation-logs/v1` and `logs/v1` (TS 29.222 clauses 8.7 and 8.8).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::response::Response;
use sbi::capif::events::{CapifEventDetail, event};
use sbi::capif::identity::Role;
use sbi::capif::logging::{AuditQuery, InvocationLog, InvocationLogs, InvocationLogsRetrieveRes};
use sbi::capif::publish::InterfaceDescription;
use sbi::{Json, Path, ProblemDetails, Query};

use super::events::{self, Event};
use super::service::{Caller, Context, Refusal, created, forbidden, incorrect, not_found};
use super::state::FunctionRole;

/// POST.
pub(crate) async fn keep(
    service: Context,
    caller: Caller,
    Path(aef_id): Path<String>,
    Json(log): Json<InvocationLog>,
) -> Result<Response, Refusal> {
    caller.must_be(Role::Aef, &aef_id)?;
    if log.aef_id != aef_id {
        return Err(incorrect("/aefId", "not the AEF of the path"));
    }
    let log =
        InvocationLog { supported_features: log.supported_features.map(|_| super::NO_FEATURES.to_owned()), ..log };
    let number = service.registry.keep_log(&log, service.tables.logs_max).await?;
    let (succeeded, failed): (Vec<_>, Vec<_>) = log.logs.iter().cloned().partition(|call| call.result.starts_with('2'));
    for (name, logs) in
        [(event::SERVICE_API_INVOCATION_SUCCESS, succeeded), (event::SERVICE_API_INVOCATION_FAILURE, failed)]
    {
        if !logs.is_empty() {
            let detail = CapifEventDetail {
                api_ids: Some(
                    logs.iter().map(|call| call.api_id.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
                ),
                api_invoker_ids: Some(vec![log.api_invoker_id.clone()]),
                invocation_logs: Some(vec![InvocationLog { logs, ..log.clone() }]),
                ..CapifEventDetail::default()
            };
            let event = Event { name, detail, aef_ids: vec![aef_id.clone()], api_name: None };
            events::emit(&service, &event);
        }
    }
    created(&service.uri(&format!("/api-invocation-logs/v1/{aef_id}/logs/{number}")), log)
}

/// GET: by a management function, of the AEFs of its own domain; the newest first.
pub(crate) async fn audit(
    service: Context,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<InvocationLogsRetrieveRes>, Refusal> {
    let id = caller.must_be_a(Role::Amf)?;
    for (name, text) in [("src-interface", &query.src_interface), ("dest-interface", &query.dest_interface)] {
        if text.as_ref().is_some_and(|text| serde_json::from_str::<InterfaceDescription>(text).is_err()) {
            return Err(ProblemDetails::bad_request(sbi::cause::INVALID_QUERY_PARAM)
                .with_invalid_param(format!("query {name}"), "no InterfaceDescription")
                .into());
        }
    }
    let own: BTreeSet<String> = {
        let (grants, state) = (service.grants(), service.registry.read());
        let provider = state.provider_of(id).map(|(_, provider)| provider);
        if !provider.and_then(|provider| grants.of_provider(provider)).is_some_and(|entry| entry.may_audit) {
            return Err(forbidden("AUDIT_NOT_ALLOWED"));
        }
        let functions = provider.map(|provider| provider.functions.as_slice()).unwrap_or_default();
        functions
            .iter()
            .filter(|function| function.role == FunctionRole::Aef)
            .map(|function| function.id.clone())
            .collect()
    };
    let reader = Arc::clone(&service.0);
    let found = tokio::task::spawn_blocking(move || {
        let find = |log: &InvocationLog| if own.contains(&log.aef_id) { query.find(log) } else { None };
        reader.registry.find_logs(reader.tables.audit_logs_max, find)
    })
    .await;
    let mut found = match found {
        Ok(Ok(found)) => found,
        _ => return Err(ProblemDetails::internal().into()),
    };
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(not_found("NO_LOGS")),
        (Some(only), true) => Ok(Json(InvocationLogsRetrieveRes::One(only))),
        (Some(last), false) => {
            found.push(last);
            let several = InvocationLogs { multiple_invocation_logs: found, supported_features: None };
            Ok(Json(InvocationLogsRetrieveRes::Several(several)))
        }
    }
}
