//! `api-provider-management/v1` (TS 29.222 clause 8.9).

use std::collections::BTreeSet;

use axum::response::Response;
use http::StatusCode;
use sbi::capif::identity::Role;
use sbi::capif::provider::{
    ApiProviderEnrolmentDetails, ApiProviderFuncRole, ApiProviderFunctionDetails, RegistrationInformation,
};
use sbi::{Json, Path, ProblemDetails};
use uuid::Uuid;

use super::apis;
use super::config::RegistrationCredential;
use super::patch::{MergePatch, merged};
use super::public_key::SubjectKey;
use super::service::{
    Caller, Context, NOT_YOURS, Refusal, Service, became, created, digest, forbidden, full, incorrect, not_found,
    unauthorized,
};
use super::state::{Change, Function, FunctionRole, Provider, State};

/// POST: a domain comes with a credential, and each of its functions gets an identity and a certificate.
pub(crate) async fn register(
    service: Context,
    Json(details): Json<ApiProviderEnrolmentDetails>,
) -> Result<Response, Refusal> {
    let spent = digest(&details.reg_sec);
    let grants = service.grants();
    let granted = grants.registration(&spent).ok_or_else(|| unauthorized("REGISTRATION_CREDENTIAL_UNKNOWN"))?;
    let domain = Uuid::new_v4().to_string();
    let provider = service
        .change(|state| {
            if state.spent.contains(&spent) {
                return Err(unauthorized("REGISTRATION_CREDENTIAL_SPENT"));
            }
            if state.providers.len() >= service.tables.providers_max {
                return Err(full());
            }
            let functions = details.api_prov_funcs.clone().unwrap_or_default();
            // None of these exists yet: an identifier in a registration is not looked at.
            let functions =
                functions.into_iter().map(|one| ApiProviderFunctionDetails { api_prov_func_id: None, ..one });
            let provider = enrol(&service, granted, &domain, details, functions.collect(), None)?;
            let changes = vec![Change::Spent(spent), Change::Provider(domain.clone(), Some(provider.clone()))];
            Ok((provider, changes))
        })
        .await?;
    let answer =
        created(&service.uri(&format!("/api-provider-management/v1/registrations/{domain}")), provider.details)?;
    Ok(became(answer, "provider", &domain))
}

/// PUT.
pub(crate) async fn replace(
    service: Context,
    caller: Caller,
    Path(domain): Path<String>,
    Json(details): Json<ApiProviderEnrolmentDetails>,
) -> Result<Json<ApiProviderEnrolmentDetails>, Refusal> {
    change(&service, &caller, &domain, |_| Ok(details)).await.map(Json)
}

/// PATCH.
pub(crate) async fn modify(
    service: Context,
    caller: Caller,
    Path(domain): Path<String>,
    Json(patch): Json<MergePatch>,
) -> Result<Json<ApiProviderEnrolmentDetails>, Refusal> {
    if patch.get("apiProvFuncs").is_some_and(serde_json::Value::is_null) {
        return Err(incorrect("/apiProvFuncs", "a domain has a management function at least"));
    }
    let patched = |before: &ApiProviderEnrolmentDetails| merged(before, &patch, PATCHED);
    change(&service, &caller, &domain, patched).await.map(Json)
}

/// DELETE: the domain goes, with what it published.
pub(crate) async fn deregister(
    service: Context,
    caller: Caller,
    Path(domain): Path<String>,
) -> Result<StatusCode, Refusal> {
    let withdrawn = service
        .change(|state| {
            let provider = own(state, &caller, &domain)?;
            let gone: BTreeSet<&str> = provider.functions.iter().map(|function| function.id.as_str()).collect();
            let (withdrawn, mut changes) = withdraw(state, &gone);
            changes.push(Change::Provider(domain.clone(), None));
            Ok((withdrawn, changes))
        })
        .await?;
    apis::tell_withdrawn(&service, withdrawn);
    Ok(StatusCode::NO_CONTENT)
}

async fn change(
    service: &Service,
    caller: &Caller,
    domain: &str,
    to: impl FnOnce(&ApiProviderEnrolmentDetails) -> Result<ApiProviderEnrolmentDetails, Refusal>,
) -> Result<ApiProviderEnrolmentDetails, Refusal> {
    let (details, withdrawn) = service
        .change(|state| {
            let before = own(state, caller, domain)?;
            let details = to(&before.details)?;
            let functions =
                details.api_prov_funcs.clone().or_else(|| before.details.api_prov_funcs.clone()).unwrap_or_default();
            let grants = service.grants();
            let granted = grants.of_provider(before).ok_or_else(|| forbidden("REGISTRATION_WITHDRAWN"))?;
            let after = enrol(service, granted, domain, details, functions, Some(before))?;
            let kept: BTreeSet<&str> = after.functions.iter().map(|function| function.id.as_str()).collect();
            let gone: BTreeSet<&str> =
                before.functions.iter().map(|function| function.id.as_str()).filter(|id| !kept.contains(id)).collect();
            let (withdrawn, mut changes) = withdraw(state, &gone);
            changes.push(Change::Provider(domain.to_owned(), Some(after.clone())));
            Ok(((after.details, withdrawn), changes))
        })
        .await?;
    apis::tell_withdrawn(service, withdrawn);
    Ok(details)
}

/// The domain, if the caller is its management function.
pub(crate) fn own<'a>(state: &'a State, caller: &Caller, domain: &str) -> Result<&'a Provider, Refusal> {
    let id = caller.must_be_a(Role::Amf)?;
    let provider = state.providers.get(domain).ok_or_else(|| not_found("REGISTRATION_NOT_FOUND"))?;
    let is_own = provider.functions.iter().any(|function| function.id == id);
    if is_own { Ok(provider) } else { Err(forbidden(NOT_YOURS)) }
}

/// What functions that go had published, or exposed: it goes with them, subscriptions too.
fn withdraw(state: &State, gone: &BTreeSet<&str>) -> (Vec<apis::Withdrawn>, Vec<Change>) {
    let mut changes = Vec::new();
    let mut withdrawn = Vec::new();
    for (id, api) in &state.apis {
        let orphan = gone.contains(api.apf_id.as_str());
        if orphan || api.description.profiles().iter().any(|profile| gone.contains(profile.aef_id.as_str())) {
            withdrawn.push(apis::Withdrawn::of(state, id, api));
            changes.push(Change::Api(id.clone(), None));
        }
    }
    let subscriptions = state.subscriptions.keys();
    let orphans = subscriptions.filter(|key| key.split('/').next().is_some_and(|subscriber| gone.contains(subscriber)));
    changes.extend(orphans.map(|key| Change::Subscription(key.clone(), None)));
    (withdrawn, changes)
}

/// The domain with `functions`: those of `before` that keep their identifier and key keep their certificate.
fn enrol(
    service: &Service,
    granted: &RegistrationCredential,
    domain: &str,
    details: ApiProviderEnrolmentDetails,
    functions: Vec<ApiProviderFunctionDetails>,
    before: Option<&Provider>,
) -> Result<Provider, Refusal> {
    if functions.len() > service.tables.functions_per_provider_max {
        return Err(forbidden("TOO_MANY_FUNCTIONS"));
    }
    let mut enrolled = Vec::new();
    let mut described = Vec::new();
    for (at, one) in functions.into_iter().enumerate() {
        let pointer = |member: &str| format!("/apiProvFuncs/{at}/{member}");
        let role = match one.api_prov_func_role {
            ApiProviderFuncRole::Aef => FunctionRole::Aef,
            ApiProviderFuncRole::Apf => FunctionRole::Apf,
            ApiProviderFuncRole::Amf => FunctionRole::Amf,
            ApiProviderFuncRole::Other(_) => return Err(incorrect(&pointer("apiProvFuncRole"), "not AEF, APF or AMF")),
        };
        let known = match &one.api_prov_func_id {
            None => None,
            Some(id) => Some(
                known_function(before, id, role)
                    .filter(|_| !enrolled.iter().any(|other: &Function| other.id == *id))
                    .ok_or_else(|| incorrect(&pointer("apiProvFuncId"), "not a function of this domain and role"))?,
            ),
        };
        let key_text = one.reg_info.api_prov_pub_key;
        let (function, certificate) = match known {
            Some((function, old)) if old.reg_info.api_prov_pub_key == key_text => {
                (function.clone(), old.reg_info.api_prov_cert.clone())
            }
            known => {
                let key = SubjectKey::parse(&key_text)
                    .map_err(|error| incorrect(&pointer("regInfo/apiProvPubKey"), &error.to_string()))?;
                let id = known.map_or_else(|| Uuid::new_v4().to_string(), |(function, _)| function.id.clone());
                let issued = service.authority.issue(&key, role.into(), &id, &granted.dns_names).map_err(|error| {
                    tracing::error!(%error, "no certificate could be issued");
                    ProblemDetails::internal()
                })?;
                (Function { id, role, serial: issued.serial }, Some(issued.pem))
            }
        };
        described.push(ApiProviderFunctionDetails {
            api_prov_func_id: Some(function.id.clone()),
            reg_info: RegistrationInformation { api_prov_pub_key: key_text, api_prov_cert: certificate },
            api_prov_func_role: one.api_prov_func_role,
            api_prov_func_info: one.api_prov_func_info,
        });
        enrolled.push(function);
    }
    // Without one, nobody could change or end the registration.
    if !enrolled.iter().any(|function| function.role == FunctionRole::Amf) {
        return Err(incorrect("/apiProvFuncs", "no function with role AMF"));
    }
    let details = ApiProviderEnrolmentDetails {
        api_prov_dom_id: Some(domain.to_owned()),
        reg_sec: SPENT.to_owned(),
        api_prov_funcs: Some(described),
        supp_feat: details.supp_feat.map(|_| super::NO_FEATURES.to_owned()),
        fail_reason: None,
        ..details
    };
    Ok(Provider { details, functions: enrolled, credential: granted.name.clone() })
}

fn known_function<'a>(
    before: Option<&'a Provider>,
    id: &str,
    role: FunctionRole,
) -> Option<(&'a Function, &'a ApiProviderFunctionDetails)> {
    let before = before?;
    let function = before.functions.iter().find(|function| function.id == id && function.role == role)?;
    let described = before.details.api_prov_funcs.as_ref()?;
    let details = described.iter().find(|details| details.api_prov_func_id.as_deref() == Some(id))?;
    Some((function, details))
}

/// What `regSec`, which the schema demands in answers, reads there: the credential was used up.
const SPENT: &str = "spent";

/// What PATCH may change (TS 29.222).
const PATCHED: &[&str] = &["apiProvFuncs", "apiProvDomInfo"];
