//! Groups (TS 23.554 clause 8.7.4): who is a member, who else may send, and which Application Server is asked first.
//!
//! A SEAL group management server knows (TS 23.434, `ss-gm/v1` of TS 29.549). What it said is remembered for
//! `group_cache_seconds`, so that a busy group costs it one question now and then; a member added there gets messages,
//! and one removed gets none, within that time. Messages to one group are taken one after the other
//! ([`crate::fan_out`]), so that one look-up at a time is under way for each. No answer is a refusal.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use message::{Address, AsServiceId, FailureCause, ServiceAddress};
use sbi::ss_gm::{SsGmClient, VALGroupDocument};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use transport::BoxFuture;

use crate::core::Core;
use crate::limits::Limits;
use crate::log_budget::Topic;
use crate::sync::lock;

/// Whoever holds the groups: a SEAL group management server, or our Configuration Function.
pub trait GroupSource: Send + Sync {
    /// The group of that Group Service ID; none if it is not known. Needs no time-out of its own.
    fn group(&self, id: ServiceAddress) -> BoxFuture<'_, Result<Option<Group>, GroupError>>;
}

/// A group as the message service sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its members, each once: they get every message, and may send.
    pub members: Arc<[Address]>,
    /// Who may send without being a member.
    pub senders: HashSet<Address>,
    /// The Application Server that gets a copy of each message first and may refuse it.
    pub validating_as: Option<AsServiceId>,
}

impl Group {
    /// Whether `address` may send to the group.
    #[must_use]
    pub fn admits(&self, address: &Address) -> bool {
        self.members.contains(address) || self.senders.contains(address)
    }
}

/// There is no answer, or none that can be used. The text is for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("group management cannot be asked: {0}")]
pub struct GroupError(pub String);

impl GroupSource for SsGmClient {
    fn group(&self, id: ServiceAddress) -> BoxFuture<'_, Result<Option<Group>, GroupError>> {
        Box::pin(async move {
            let document = SsGmClient::group(self, &id).await.map_err(|error| GroupError(error.to_string()))?;
            document.as_ref().map(group_of).transpose()
        })
    }
}

/// A document that cannot be understood whole is no group: a member left out, or a restriction overlooked, would be worse
/// than a message refused.
fn group_of(document: &VALGroupDocument) -> Result<Group, GroupError> {
    let members = document.ue_service_ids().map_err(|error| GroupError(error.to_string()))?;
    let configuration = document.configuration().map_err(|error| GroupError(error.to_string()))?;
    Ok(Group {
        members: members.iter().map(Address::ue).collect(),
        senders: configuration.senders.iter().map(|sender| sender.address().clone()).collect(),
        validating_as: configuration.validating_as,
    })
}

/// Groups, asked for and remembered.
pub(crate) struct Groups {
    source: Option<Arc<dyn GroupSource>>,
    lookups: Semaphore,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    known: HashMap<ServiceAddress, (Instant, Option<Arc<Group>>)>,
    /// Oldest first; all live equally long.
    order: VecDeque<(Instant, ServiceAddress)>,
    /// One for each group, and one for each of their members and senders.
    weight: usize,
}

impl Groups {
    /// Without a source no group is served.
    pub(crate) fn new(source: Option<Arc<dyn GroupSource>>, limits: &Limits) -> Self {
        Self { source, lookups: Semaphore::new(limits.group_lookups_max), cache: Mutex::default() }
    }

    pub(crate) fn are_served(&self) -> bool {
        self.source.is_some()
    }

    /// What is known of that group without anybody being asked: nothing, that it is none, or what it is.
    pub(crate) fn remembered(&self, id: &ServiceAddress, limits: &Limits) -> Option<Option<Arc<Group>>> {
        lock(&self.cache).find(id, limits)
    }

    /// The group of that Group Service ID.
    ///
    /// # Errors
    /// The cause to refuse a message with.
    pub(crate) async fn find(&self, core: &Core, id: &ServiceAddress) -> Result<Arc<Group>, FailureCause> {
        let limits = &core.limits;
        let source = self.source.as_ref().ok_or(FailureCause::TargetTypeNotSupported)?;
        if let Some(known) = lock(&self.cache).find(id, limits) {
            return known.ok_or(FailureCause::UnknownTarget);
        }
        let Ok(_slot) = self.lookups.try_acquire() else { return Err(FailureCause::Overloaded) };
        let asked_at = Instant::now();
        let answer = timeout(Duration::from_secs(limits.group_timeout_seconds), source.group(id.clone())).await;
        core.fan_out.metrics.group_asked(asked_at.elapsed());
        let answer = answer.unwrap_or_else(|_| Err(GroupError("no answer in time".to_owned())));
        let group = answer.and_then(|group| match group {
            Some(group) if group.members.len() > limits.group_members_max => {
                Err(GroupError("the group has more members than group_members_max".to_owned()))
            }
            group => Ok(group),
        });
        let group = group.map_err(|error| {
            if core.log_budget.admits(Topic::Groups) {
                tracing::error!(group = %id, %error, "nobody knows who the members of a group are");
            }
            FailureCause::MembersUnavailable
        })?;
        let group = group.map(Arc::new);
        lock(&self.cache).remember(id, group.clone(), limits);
        group.ok_or(FailureCause::UnknownTarget)
    }
}

impl Cache {
    fn find(&mut self, id: &ServiceAddress, limits: &Limits) -> Option<Option<Arc<Group>>> {
        self.forget_old(limits);
        self.known.get(id).map(|(_, group)| group.clone())
    }

    fn remember(&mut self, id: &ServiceAddress, group: Option<Arc<Group>>, limits: &Limits) {
        if limits.group_cache_seconds == 0 {
            return;
        }
        self.forget(id);
        let now = Instant::now();
        self.weight += weight(group.as_ref());
        self.known.insert(id.clone(), (now, group));
        self.order.push_back((now, id.clone()));
        while self.weight > limits.group_cache_weight_max {
            let Some((since, oldest)) = self.order.pop_front() else { return };
            self.forget_if_since(&oldest, since);
        }
    }

    fn forget_old(&mut self, limits: &Limits) {
        let lifetime = Duration::from_secs(limits.group_cache_seconds);
        while let Some((since, id)) = self.order.front().cloned() {
            if since.elapsed() < lifetime {
                break;
            }
            self.order.pop_front();
            self.forget_if_since(&id, since);
        }
    }

    /// What was asked for anew since then is left alone.
    fn forget_if_since(&mut self, id: &ServiceAddress, since: Instant) {
        if self.known.get(id).is_some_and(|(known_since, _)| *known_since == since) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: &ServiceAddress) {
        if let Some((_, group)) = self.known.remove(id) {
            self.weight = self.weight.saturating_sub(weight(group.as_ref()));
        }
    }
}

fn weight(group: Option<&Arc<Group>>) -> usize {
    1 + group.map_or(0, |group| group.members.len() + group.senders.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn group(members: usize) -> Option<Arc<Group>> {
        let members = (0..members).map(|number| Address::ue(&format!("m{number}").parse().unwrap())).collect();
        Some(Arc::new(Group { members, senders: HashSet::new(), validating_as: None }))
    }

    fn id(number: usize) -> ServiceAddress {
        format!("group-{number}").parse().unwrap()
    }

    #[test]
    fn the_cache_forgets_the_oldest_rather_than_grow() {
        let limits = Limits { group_cache_weight_max: 100, ..Limits::default() };
        let mut cache = Cache::default();
        for number in 0..1000 {
            cache.remember(&id(number % 300), group(number % 30), &limits);
            assert!(cache.weight <= 100, "{}", cache.weight);
            assert_eq!(cache.weight, cache.known.values().map(|(_, group)| weight(group.as_ref())).sum::<usize>());
        }
        assert!(cache.order.len() < 400);
        assert!(cache.find(&id(999 % 300), &limits).is_some());
        cache.remember(&id(7), group(200), &limits);
        assert!(cache.find(&id(7), &limits).is_none(), "what is too heavy is not kept");
    }

    #[test]
    fn with_no_time_nothing_is_remembered() {
        let limits = Limits { group_cache_seconds: 0, ..Limits::default() };
        let mut cache = Cache::default();
        cache.remember(&id(1), group(3), &limits);
        assert!(cache.find(&id(1), &limits).is_none());
    }

    #[test]
    fn a_document_that_is_not_understood_whole_is_no_group() {
        let mut document = VALGroupDocument::new("crew".parse().unwrap());
        document = document.with_members([&"a".parse().unwrap()]);
        document.val_grp_conf = Some(r#"{"senders":["AS:billing"],"validatingAs":"audit"}"#.to_owned());
        let group = group_of(&document).unwrap();
        assert!(group.admits(&Address::ue(&"a".parse().unwrap())));
        assert!(group.admits(&Address::application_server(&"billing".parse().unwrap())));
        assert!(!group.admits(&Address::ue(&"billing".parse().unwrap())));
        assert_eq!(group.validating_as.unwrap().as_str(), "audit");
        document.val_grp_conf = Some(r#"{"readers":["UE:x"]}"#.to_owned());
        assert!(group_of(&document).is_err());
    }
}
