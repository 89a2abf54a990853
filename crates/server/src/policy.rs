//! Who may do what with which Messaging Topic or broadcast area, as the operator writes it.
//!
//! Nothing in TS 23.554 says how a server decides this (clause 8.8.1: "authorised"); the rules are ours (INFERRED): the
//! first `[[topic]]` whose name matches decides alone, and what no rule allows is refused.

use std::fmt;
use std::str::FromStr;

use message::{Address, MessagingTopic};
use serde::{Deserialize, Deserializer};

/// Whom a rule is about: the text `UE:meter-7@lab.example` or `AS:billing@lab.example`, in which one `*` stands for
/// anything. `*` alone is everybody, `*@lab.example` everybody of that domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPattern {
    before: String,
    /// What follows the `*`, if there is one.
    after: Option<String>,
}

/// The text is empty, longer than [`PATTERN_OCTETS_MAX`], or has more than one `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identity (`UE:x`, `AS:x`) or a pattern with one `*`")]
pub struct InvalidPattern;

/// Longest pattern, in octets: a type, a colon and a service identity.
pub const PATTERN_OCTETS_MAX: usize = 320;

impl IdentityPattern {
    /// Whether the rule is about `address`.
    #[must_use]
    pub fn matches(&self, address: &Address) -> bool {
        self.matches_text(&address.to_string())
    }

    fn matches_text(&self, text: &str) -> bool {
        match &self.after {
            None => text == self.before,
            Some(after) => text.strip_prefix(self.before.as_str()).is_some_and(|rest| rest.ends_with(after.as_str())),
        }
    }
}

impl FromStr for IdentityPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let well_formed = !text.is_empty() && text.len() <= PATTERN_OCTETS_MAX;
        let (before, after) = match text.split_once('*') {
            Some((before, after)) => (before, Some(after)),
            None => (text, None),
        };
        if !well_formed || after.is_some_and(|after| after.contains('*')) {
            return Err(InvalidPattern);
        }
        Ok(Self { before: before.to_owned(), after: after.map(str::to_owned) })
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            None => f.write_str(&self.before),
            Some(after) => write!(f, "{}*{after}", self.before),
        }
    }
}

impl<'de> Deserialize<'de> for IdentityPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn ue(name: &str) -> Address {
        Address::ue(&name.parse().unwrap())
    }

    fn pattern(text: &str) -> IdentityPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_is_an_identity_or_has_one_star() {
        assert!(pattern("UE:a@x").matches(&ue("a@x")));
        assert!(!pattern("UE:a@x").matches(&ue("a@xy")));
        assert!(!pattern("AS:a@x").matches(&ue("a@x")));
        assert!(!pattern("a@x").matches(&ue("a@x")), "an identity names its type");
        assert!(pattern("*").matches(&ue("a@x")));
        assert!(pattern("*@x").matches(&ue("a@x")) && !pattern("*@x").matches(&ue("a@y")));
        assert!(pattern("UE:a*").matches(&ue("ab")) && !pattern("UE:a*").matches(&ue("b")));
        assert!(!pattern("UE:ab*bc").matches(&ue("abc")), "beginning and end do not overlap");
        for wrong in ["", "**", "a*b*c", &"x".repeat(PATTERN_OCTETS_MAX + 1)] {
            assert_eq!(wrong.parse::<IdentityPattern>(), Err(InvalidPattern), "{wrong:?}");
        }
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_a_pattern_or_is_refused_and_comes_back(text in ".{0,40}") {
            if let Ok(pattern) = text.parse::<IdentityPattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }

        #[test]
        fn an_identity_matches_itself_its_beginning_and_its_end(name in "[a-z@.-]{1,20}", cut in 0_usize..20) {
            let text = format!("UE:{name}");
            let cut = cut.min(name.len()) + 3;
            prop_assert!(pattern(&text).matches(&ue(&name)));
            let beginning = format!("{}*", text.get(..cut).unwrap());
            prop_assert!(pattern(&beginning).matches(&ue(&name)));
            let end = format!("*{}", text.get(cut..).unwrap());
            prop_assert!(pattern(&end).matches(&ue(&name)));
        }
    }
}
