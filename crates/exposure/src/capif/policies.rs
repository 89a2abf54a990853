//! `access-control-policy/v1` (TS 29.222 clause 8.6).

use sbi::capif::identity::Role;
use sbi::capif::policy::AccessControlPolicyList;
use sbi::{Json, Path, Query};
use serde::Deserialize;

use super::security::usable;
use super::service::{Caller, Context, Refusal, not_found};

/// Whose policies are asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Asked {
    aef_id: String,
    #[serde(default)]
    api_invoker_id: Option<String>,
}

/// GET: of the invokers that may use the API at the AEF. Whoever is not in the answer may not.
pub(crate) async fn read(
    service: Context,
    caller: Caller,
    Path(api_id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<AccessControlPolicyList>, Refusal> {
    caller.must_be(Role::Aef, &asked.aef_id)?;
    let (grants, state) = (service.grants(), service.registry.read());
    let api = state.apis.get(&api_id).filter(|api| api.is_at(&asked.aef_id));
    api.ok_or_else(|| not_found("SERVICE_API_NOT_FOUND"))?;
    let mut policies = Vec::new();
    for (id, context) in &state.contexts {
        if asked.api_invoker_id.as_ref().is_some_and(|only| only != id) {
            continue;
        }
        let Some(invoker) = state.invokers.get(id) else { continue };
        let Some(granted) = grants.of_invoker(invoker) else { continue };
        let entries = context.entries.iter().filter(|entry| entry.aef_id == asked.aef_id);
        if entries.into_iter().any(|entry| usable(&grants, &state, invoker, entry).any(|(usable, _)| usable == api_id))
        {
            policies.push(granted.policy(id));
        }
    }
    Ok(Json(AccessControlPolicyList { api_invoker_policies: policies }))
}
