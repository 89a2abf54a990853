//! What follows from a change of what may be done: who is told, and what is withheld.
//!
//! The access control policy of a service API says which invokers may use it, and how much (TS 29.222 clause 8.6). It follows
//! from the state and the operator's entries together, and is computed when it is asked for. So is what changed of it, by looking
//! before and after: at a change of the state only as far as that can reach, and where somebody wants to know; at a change of the
//! entries at everything.

use std::collections::{BTreeMap, BTreeSet};

use sbi::capif::events::{AccessControlPolicyListExt, CapifEventDetail, event};
use sbi::capif::policy::ApiInvokerPolicy;
use sbi::capif::security::{SecurityNotification, UNEXPECTED_REASON};

use super::apis::{self, Withdrawn};
use super::events::{self, Event};
use super::grants::Grants;
use super::security::{Revoked, usable};
use super::service::Service;
use super::state::{Api, Change, SecurityContext, State};

/// The part of all policies that is looked at.
enum Part {
    Everything,
    Of { invokers: BTreeSet<String>, apis: BTreeSet<String> },
}

/// By service API and invoker.
type Policies = BTreeMap<String, BTreeMap<String, ApiInvokerPolicy>>;
/// Invoker, AEF, service API.
type Authorized = BTreeSet<(String, String, String)>;

/// Policies as they were before a change of the state.
pub(crate) struct Watch {
    part: Part,
    before: Policies,
}

impl Watch {
    /// Looks at what `changes` may change, if anybody has subscribed to hear of it.
    pub(crate) fn begin(grants: &Grants, state: &State, changes: &[Change]) -> Option<Self> {
        if !events::anybody_wants(state, event::ACCESS_CONTROL_POLICY_UPDATE) {
            return None;
        }
        let (mut invokers, mut apis) = (BTreeSet::new(), BTreeSet::new());
        for change in changes {
            match change {
                Change::Invoker(id, _) | Change::Context(id, _) => drop(invokers.insert(id.clone())),
                Change::Api(id, _) => drop(apis.insert(id.clone())),
                Change::Provider(..) | Change::Subscription(..) | Change::Spent(_) => {}
            }
        }
        let part = Part::Of { invokers, apis };
        let (before, _) = in_force(grants, state, &part);
        Some(Self { part, before })
    }

    /// Tells what is another now.
    pub(crate) fn end(self, service: &Service, grants: &Grants) {
        let (after, _) = in_force(grants, &service.registry.read(), &self.part);
        tell_policies(service, &self.before, &after);
    }
}

/// Brings what was allowed by `earlier` entries in line with those in force: APIs that may not be published any more are withheld,
/// those that may be again are offered, and whoever may no longer, or something else, is told.
pub(crate) async fn reconcile(service: &Service, earlier: &Grants) {
    let grants = service.grants();
    let before = in_force(earlier, &service.registry.read(), &Part::Everything);
    let changed = service.registry.change(|state| {
        let (gone, back) = out_of_line(&grants, state);
        let changes = gone.iter().map(|id| (id, true)).chain(back.iter().map(|id| (id, false)));
        let changes = changes.filter_map(|(id, withheld)| with(state, id, withheld)).collect();
        let gone: Vec<_> = withdrawn(state, &gone);
        let back = back.into_iter().filter_map(|id| state.apis.get(&id).map(|api| (id, api.description.clone())));
        Ok(((gone, back.collect()), changes))
    });
    let (gone, back): (_, Vec<_>) = match changed.await {
        Ok(changed) => changed,
        Err(_) => {
            // The reason stands in the log. What is withdrawn is so all the same; what is allowed again waits for the next change.
            tracing::error!(target: "security", "service APIs are withheld in memory alone, until the next start");
            let gone = service.registry.change_in_memory(|state| {
                let (gone, _) = out_of_line(&grants, state);
                (withdrawn(state, &gone), gone.iter().filter_map(|id| with(state, id, true)).collect())
            });
            (gone.await, Vec::new())
        }
    };
    apis::tell_withdrawn(service, gone);
    for (id, description) in back {
        events::emit(service, &apis::described(event::SERVICE_API_AVAILABLE, &id, &description));
    }
    let after = in_force(&grants, &service.registry.read(), &Part::Everything);
    tell_revoked(service, &before.1, &after.1);
    tell_policies(service, &before.0, &after.0);
}

/// The service APIs that are offered and may not be, and those that are withheld and need not be.
fn out_of_line(grants: &Grants, state: &State) -> (Vec<String>, Vec<String>) {
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for (id, api) in &state.apis {
        let provider = state.provider_of(&api.apf_id);
        let allowed = provider.is_some_and(|(_, provider)| grants.may_publish(provider, &api.description.api_name));
        match (allowed, api.withheld) {
            (false, false) => gone.push(id.clone()),
            (true, true) => back.push(id.clone()),
            _ => {}
        }
    }
    (gone, back)
}

fn with(state: &State, id: &str, withheld: bool) -> Option<Change> {
    let api = state.apis.get(id)?;
    Some(Change::Api(id.to_owned(), Some(Api { withheld, ..api.clone() })))
}

fn withdrawn(state: &State, ids: &[String]) -> Vec<Withdrawn> {
    ids.iter().filter_map(|id| state.apis.get(id).map(|api| Withdrawn::of(state, id, api))).collect()
}

/// Whoever could at an AEF what it no longer can: the AEF forgets at once, and the invoker hears of it.
fn tell_revoked(service: &Service, before: &Authorized, after: &Authorized) {
    let mut ended: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (invoker, aef_id, api_id) in before.difference(after) {
        ended.entry((invoker.clone(), aef_id.clone())).or_default().push(api_id.clone());
    }
    for ((api_invoker_id, aef_id), api_ids) in ended {
        let revoked = {
            let state = service.registry.read();
            // Of an API that went as a whole it was told already.
            let api_ids: Vec<String> =
                api_ids.into_iter().filter(|id| state.apis.get(id).is_some_and(|api| api.is_at(&aef_id))).collect();
            if api_ids.is_empty() {
                continue;
            }
            let destination =
                state.contexts.get(&api_invoker_id).map(|context| context.notification_destination.clone());
            let cause = UNEXPECTED_REASON.to_owned();
            let notification = SecurityNotification { api_invoker_id, aef_id: Some(aef_id), api_ids, cause };
            Revoked::of(&state, notification, destination)
        };
        revoked.tell(service);
    }
}

/// One event for each API whose policy is another; several where it changed for many invokers.
fn tell_policies(service: &Service, before: &Policies, after: &Policies) {
    let nobody = BTreeMap::new();
    let apis: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for api_id in apis {
        let (was, is) = (before.get(api_id).unwrap_or(&nobody), after.get(api_id).unwrap_or(&nobody));
        let invokers: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        let changed: Vec<&String> = invokers.into_iter().filter(|id| was.get(*id) != is.get(*id)).collect();
        // The policy of an API that is gone is not another, but unavailable.
        let aef_ids = match service.registry.read().apis.get(api_id).filter(|api| !api.withheld) {
            Some(api) => api.description.profiles().iter().map(|profile| profile.aef_id.clone()).collect(),
            None => continue,
        };
        let mut event = Event { name: event::ACCESS_CONTROL_POLICY_UPDATE, aef_ids, ..Event::default() };
        for some in changed.chunks(POLICIES_PER_EVENT_MAX) {
            let policies: Vec<ApiInvokerPolicy> = some.iter().filter_map(|id| is.get(*id).cloned()).collect();
            event.detail = CapifEventDetail {
                api_ids: Some(vec![api_id.clone()]),
                api_invoker_ids: Some(some.iter().map(|id| (*id).clone()).collect()),
                acc_ctrl_pol_list: Some(AccessControlPolicyListExt {
                    api_id: api_id.clone(),
                    api_invoker_policies: Some(policies).filter(|policies| !policies.is_empty()),
                }),
                ..CapifEventDetail::default()
            };
            events::emit(service, &event);
        }
    }
}

/// The policies of `part` as `grants` and `state` have them, and who is authorized by them where.
fn in_force(grants: &Grants, state: &State, part: &Part) -> (Policies, Authorized) {
    let (mut policies, mut authorized) = (Policies::new(), Authorized::new());
    let mut look = |id: &String, context: &SecurityContext, only: Option<&BTreeSet<String>>| {
        let Some(invoker) = state.invokers.get(id) else { return };
        let Some(entry_of) = grants.of_invoker(invoker) else { return };
        for entry in &context.entries {
            for (api_id, _) in usable(grants, state, invoker, entry) {
                if only.is_none_or(|only| only.contains(api_id)) {
                    policies.entry(api_id.to_owned()).or_default().insert(id.clone(), entry_of.policy(id));
                    authorized.insert((id.clone(), entry.aef_id.clone(), api_id.to_owned()));
                }
            }
        }
    };
    match part {
        Part::Everything => state.contexts.iter().for_each(|(id, context)| look(id, context, None)),
        Part::Of { invokers, apis } => {
            for (id, context) in invokers.iter().filter_map(|id| state.contexts.get_key_value(id)) {
                look(id, context, None);
            }
            if !apis.is_empty() {
                state.contexts.iter().for_each(|(id, context)| look(id, context, Some(apis)));
            }
        }
    }
    (policies, authorized)
}

/// Invokers whose policies one event tells; more are told in further events.
const POLICIES_PER_EVENT_MAX: usize = 256;
