//! Which AAnF has a UE's keys (TS 33.535 clause 6.7): the one that serves the routing indicator of its A-KID.

use std::collections::BTreeSet;

use akma::{AKid, RoutingIndicator};
use serde::{Deserialize, Serialize};

/// An AAnF beside the general one, and the routing indicators it serves (TS 29.510 AanfInfo).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorRoute {
    /// API root, for example `https://aanf-2.example:8443`.
    pub root: String,
    /// The routing indicators of the A-KIDs it is asked about.
    pub routing_indicators: BTreeSet<RoutingIndicator>,
}

impl AnchorRoute {
    /// What is wrong with a list of routes, if anything.
    #[must_use]
    pub fn fault(routes: &[Self]) -> Option<&'static str> {
        let mut seen = BTreeSet::new();
        for route in routes {
            if !route.root.starts_with("https://") {
                return Some("root must be an https URI");
            }
            if route.routing_indicators.is_empty() {
                return Some("routing_indicators must not be empty");
            }
            if !route.routing_indicators.iter().all(|indicator| seen.insert(indicator)) {
                return Some("a routing indicator belongs to one AAnF");
            }
        }
        None
    }
}

/// The general AAnF and the routes beside it.
#[derive(Debug, Clone)]
pub(super) struct Anchors {
    pub(super) general: String,
    pub(super) routes: Vec<AnchorRoute>,
}

impl Anchors {
    /// The root of the AAnF for an A-KID. One without a routing indicator, or with one that no route names, goes to
    /// the general one.
    pub(super) fn root(&self, a_kid: &AKid) -> &str {
        if self.routes.is_empty() {
            return &self.general;
        }
        let indicator = a_kid.routing_indicator();
        let named = |route: &&AnchorRoute| {
            indicator.as_ref().is_some_and(|indicator| route.routing_indicators.contains(indicator))
        };
        self.routes.iter().find(named).map_or(&self.general, |route| &route.root)
    }

    /// Every AAnF there is.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.general).chain(self.routes.iter().map(|route| &route.root)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn route(root: &str, indicators: &[&str]) -> AnchorRoute {
        let routing_indicators = indicators.iter().map(|indicator| indicator.parse().unwrap()).collect();
        AnchorRoute { root: root.to_owned(), routing_indicators }
    }

    #[test]
    fn the_routing_indicator_alone_selects() {
        let anchors = Anchors {
            general: "https://general".to_owned(),
            routes: vec![route("https://one", &["1", "12"]), route("https://two", &["0012"])],
        };
        for (a_kid, root) in [
            ("1.a@b", "https://one"),
            ("12.whatever@elsewhere.example", "https://one"),
            ("0012.a@b", "https://two"),
            ("2.a@b", "https://general"),
            ("12345.a@b", "https://general"),
            ("opaque", "https://general"),
            ("12@b.c", "https://general"),
        ] {
            assert_eq!(anchors.root(&a_kid.parse().unwrap()), root, "{a_kid}");
        }
    }

    #[test]
    fn routes_that_make_no_sense_are_found() {
        assert_eq!(AnchorRoute::fault(&[route("https://one", &["1"]), route("https://two", &["2"])]), None);
        assert!(AnchorRoute::fault(&[route("http://one", &["1"])]).is_some());
        assert!(AnchorRoute::fault(&[route("https://one", &[])]).is_some());
        assert!(AnchorRoute::fault(&[route("https://one", &["1"]), route("https://two", &["1"])]).is_some());
    }
}
