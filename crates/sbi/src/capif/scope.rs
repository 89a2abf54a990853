//! The scope of a CAPIF access token: `3gpp#<aefId>:<apiName>[,<apiName>...][;<aefId>:...]`.
//!
//! TS 33.122 clause C.2.2 writes `AEF1:Service1,Service2;AEF2:...`, TS 29.222 clause 8.5.4.2.6 sets `3gpp#` before it. Read are
//! both, written is the second.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Which service APIs of which API exposing functions. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapifScope(BTreeMap<String, BTreeSet<String>>);

/// The text is no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a CAPIF scope")]
pub struct InvalidScope;

impl CapifScope {
    /// The scope of these pairs of AEF and API name; `None` when there are none, or a name cannot stand in a scope.
    #[must_use]
    pub fn of_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut scope = BTreeMap::<String, BTreeSet<String>>::new();
        for (aef, api) in pairs {
            if !is_name(aef) || !is_name(api) {
                return None;
            }
            scope.entry(aef.to_owned()).or_default().insert(api.to_owned());
        }
        (!scope.is_empty()).then_some(Self(scope))
    }

    /// The pairs of AEF and API name.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(aef, apis)| apis.iter().map(move |api| (aef.as_str(), api.as_str())))
    }

    /// Whether it includes API `api` at `aef`.
    #[must_use]
    pub fn includes(&self, aef: &str, api: &str) -> bool {
        self.0.get(aef).is_some_and(|apis| apis.contains(api))
    }
}

impl FromStr for CapifScope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        if text.len() > SCOPE_OCTETS_MAX {
            return Err(InvalidScope);
        }
        let mut scope = BTreeMap::<String, BTreeSet<String>>::new();
        for part in text.strip_prefix(PREFIX).unwrap_or(text).split(';') {
            let (aef, apis) = part.split_once(':').ok_or(InvalidScope)?;
            if !is_name(aef) || !apis.split(',').all(is_name) {
                return Err(InvalidScope);
            }
            scope.entry(aef.to_owned()).or_default().extend(apis.split(',').map(str::to_owned));
        }
        Ok(Self(scope))
    }
}

impl fmt::Display for CapifScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        for (at, (aef, apis)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(";")?;
            }
            let apis: Vec<&str> = apis.iter().map(String::as_str).collect();
            write!(f, "{aef}:{}", apis.join(","))?;
        }
        Ok(())
    }
}

/// A scope-token of RFC 6749 clause 3.3 without the separators.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_OCTETS_MAX
        && text
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'"' | b'\\' | b':' | b',' | b';' | b'#'))
}

const PREFIX: &str = "3gpp#";
/// A longer scope is none.
pub const SCOPE_OCTETS_MAX: usize = 8_192;
const NAME_OCTETS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_spellings_are_read_and_one_is_written() {
        for text in ["3gpp#aef1:api1,api2;aef2:api3", "aef1:api1,api2;aef2:api3", "aef2:api3;aef1:api2;aef1:api1"] {
            let scope: CapifScope = text.parse().unwrap();
            assert_eq!(scope.to_string(), "3gpp#aef1:api1,api2;aef2:api3");
            assert!(scope.includes("aef1", "api2") && !scope.includes("aef2", "api2"));
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        let long = format!("a:{}", "b".repeat(SCOPE_OCTETS_MAX));
        for text in ["", "3gpp#", "a", "a:", ":b", "a:b;", "a:b,,c", "a:b c", "a:b:c", "a:b\n", "3gpp#3gpp#a:b", &long]
        {
            assert_eq!(text.parse::<CapifScope>(), Err(InvalidScope), "{text:?}");
        }
        assert_eq!(CapifScope::of_pairs([]), None);
        assert_eq!(CapifScope::of_pairs([("a", "b;c:d")]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_scope_that_is_read_means_the_same_when_written(text in "(3gpp#)?[a-c:;, ]{0,20}") {
            if let Ok(scope) = text.parse::<CapifScope>() {
                prop_assert_eq!(scope.to_string().parse::<CapifScope>().unwrap(), scope.clone());
                let again = CapifScope::of_pairs(scope.pairs()).unwrap();
                prop_assert_eq!(again, scope);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            let _ = text.parse::<CapifScope>();
        }
    }
}
