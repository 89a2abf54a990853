//! Who may do what, as the operator writes it: which Application Servers there are, and what is allowed with which Messaging Topic
//! or broadcast area. The rules are the configuration's, or those of a policy file, and then another whenever that changes.
//!
//! Nothing in TS 23.554 says how a server decides this (clause 8.8.1: "authorised"); the rules are ours (INFERRED): the
//! first `[[topic]]` whose name matches decides alone, and what no rule allows is refused.

use std::path::Path;
use std::sync::Arc;

use message::{Address, AsServiceId, IdentityPattern, MessagingTopic};
use sbi::policy::{self, InvalidPolicy, Rules};
use serde::Deserialize;

use crate::broadcast::BroadcastAreaSection;
use crate::config::{ApplicationServerSection, Config, PolicyFile};
use crate::destinations::TopicServerSection;
use crate::error::ServerError;

/// The rules as they are now, for whoever decides by them.
pub(crate) type ServerRules = Arc<Rules<Policy>>;

/// Every rule there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// Application Servers that may register.
    pub(crate) application_servers: Vec<ApplicationServerSection>,
    pub(crate) topics: TopicPolicy,
    /// Who may subscribe on behalf of others.
    pub(crate) topic_servers: Vec<TopicServerSection>,
    pub(crate) areas: Vec<BroadcastAreaSection>,
}

impl From<PolicyFile> for Policy {
    fn from(file: PolicyFile) -> Self {
        let PolicyFile { application_server, topic, topic_server, broadcast_area } = file;
        Self {
            application_servers: application_server,
            topics: TopicPolicy::new(topic),
            topic_servers: topic_server,
            areas: broadcast_area,
        }
    }
}

impl Policy {
    /// The bindings of this Application Server.
    pub(crate) fn bindings_of(&self, id: &AsServiceId) -> impl Iterator<Item = &ApplicationServerSection> {
        self.application_servers.iter().filter(move |binding| binding.as_service_id == *id)
    }
}

/// The configuration, checked, and the rules in force: those of the policy file as they stand there, if one is named.
pub(crate) fn open(config: Config) -> Result<(Config, ServerRules), ServerError> {
    let named = config.policy.clone();
    let base = config.clone();
    let config = config.with_policy()?;
    config.check()?;
    let rules = match named {
        Some(path) => Rules::of_file(path, move |path| read(&base, path))?,
        None => Rules::fixed(config.rules().into()),
    };
    Ok((config, Arc::new(rules)))
}

/// The rules in the file at `path`, if they make sense with the rest of the configuration.
fn read(base: &Config, path: &Path) -> Result<Policy, InvalidPolicy> {
    let PolicyFile { application_server, topic, topic_server, broadcast_area } = policy::read(path)?;
    let config = Config { policy: None, application_server, topic, topic_server, broadcast_area, ..base.clone() };
    config.check().map_err(|error| match error {
        ServerError::Configuration { key, reason } => InvalidPolicy::new(path, format!("{key} {reason}")),
        error => InvalidPolicy::new(path, error.to_string()),
    })?;
    Ok(config.rules().into())
}

/// Whether any of `patterns` matches.
pub(crate) fn any_matches(patterns: &[IdentityPattern], address: &Address) -> bool {
    patterns.iter().any(|pattern| pattern.matches(address))
}

/// `[[topic]]`: who may publish to and subscribe to the Messaging Topics of a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSection {
    /// A Messaging Topic, or the beginning of some followed by `*`.
    pub name: String,
    /// Who may send messages to them.
    #[serde(default)]
    pub publishers: Vec<IdentityPattern>,
    /// Who may subscribe to them, and may know that they exist.
    #[serde(default)]
    pub subscribers: Vec<IdentityPattern>,
}

impl TopicSection {
    fn covers(&self, topic: &MessagingTopic) -> bool {
        match self.name.strip_suffix('*') {
            Some(beginning) => topic.as_str().starts_with(beginning),
            None => topic.as_str() == self.name,
        }
    }
}

/// All `[[topic]]` rules, in the order written.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicPolicy(Vec<TopicSection>);

impl TopicPolicy {
    pub(crate) fn new(sections: Vec<TopicSection>) -> Self {
        Self(sections)
    }

    /// Whether there is any rule at all: without one, topics are not served.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn may_publish(&self, topic: &MessagingTopic, originator: &Address) -> bool {
        self.rule(topic).is_some_and(|rule| any_matches(&rule.publishers, originator))
    }

    pub(crate) fn may_subscribe(&self, topic: &MessagingTopic, subscriber: &Address) -> bool {
        self.rule(topic).is_some_and(|rule| any_matches(&rule.subscribers, subscriber))
    }

    fn rule(&self, topic: &MessagingTopic) -> Option<&TopicSection> {
        self.0.iter().find(|section| section.covers(topic))
    }
}

/// Words for audit events: why a rule or an identity decided so.
pub(crate) mod word {
    /// A rule allows it.
    pub(crate) const RULE: &str = "rule";
    /// No rule allows it.
    pub(crate) const NOT_ALLOWED: &str = "not_allowed";
    /// A rule allowed it, which is gone.
    pub(crate) const WITHDRAWN: &str = "rule_withdrawn";
    /// In the name of somebody else.
    pub(crate) const NOT_YOURS: &str = "not_yours";
    /// More often than is allowed.
    pub(crate) const TOO_OFTEN: &str = "too_often";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ue(name: &str) -> Address {
        Address::ue(&name.parse().unwrap())
    }

    fn pattern(text: &str) -> IdentityPattern {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_rule_that_names_a_topic_decides_alone_and_none_is_a_refusal() {
        let rule = |name: &str, publishers: &[&str], subscribers: &[&str]| TopicSection {
            name: name.to_owned(),
            publishers: publishers.iter().map(|text| pattern(text)).collect(),
            subscribers: subscribers.iter().map(|text| pattern(text)).collect(),
        };
        let policy =
            TopicPolicy::new(vec![rule("alerts/fire", &["UE:chief"], &["*"]), rule("alerts/*", &["*"], &["*@x"])]);
        let (fire, flood, other) =
            ("alerts/fire".parse().unwrap(), "alerts/flood".parse().unwrap(), "alert".parse().unwrap());
        assert!(policy.may_publish(&fire, &ue("chief")) && !policy.may_publish(&fire, &ue("alice")));
        assert!(policy.may_publish(&flood, &ue("alice")));
        assert!(policy.may_subscribe(&fire, &ue("alice")) && !policy.may_subscribe(&flood, &ue("alice")));
        assert!(policy.may_subscribe(&flood, &ue("a@x")));
        assert!(!policy.may_publish(&other, &ue("chief")) && !policy.may_subscribe(&other, &ue("a@x")));
    }
}
