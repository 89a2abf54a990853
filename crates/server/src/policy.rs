//! Who may do what with which Messaging Topic or broadcast area, as the operator writes it.
//!
//! Nothing in TS 23.554 says how a server decides this (clause 8.8.1: "authorised"); the rules are ours (INFERRED): the
//! first `[[topic]]` whose name matches decides alone, and what no rule allows is refused.

use message::{Address, IdentityPattern, MessagingTopic};
use serde::Deserialize;

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
