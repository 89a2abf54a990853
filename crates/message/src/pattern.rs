//! Whom a rule of the operator's is about.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::identity::Address;

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

impl Serialize for IdentityPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdentityPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
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
