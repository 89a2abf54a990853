//! Audit: who may do what was decided so, as events on the tracing target `audit` and as a counter.
//!
//! One event for each decision, with the fields `subject` (NF instance ID or DNS name, never a SUPI), `action` (service
//! and operation), `outcome` (`allowed` or `refused`) and `reason` (one of few fixed words, since the counter has a value
//! for each). What was refused is logged at level INFO, once a second for each subject and reason, `unlogged` saying how
//! many before it were left out; what was allowed at level DEBUG, and at level INFO, with what it was done to as `object`, where it changes who may do what. The counter
//! counts all of them.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use transport::LogThrottle;
use transport::profile::PeerIdentity;

use crate::problem::ProblemDetails;

/// Where decisions are told. A clone counts into the same.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    decisions: Family<Decision, Counter>,
    throttles: Arc<Throttles>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    outcome: &'static str,
    reason: Cow<'static, str>,
}

impl Audit {
    /// Adds `sbi_authorizations_total{outcome,reason}` to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sbi");
        registry.register("authorizations", "Decisions on requests, by outcome and reason", self.decisions.clone());
    }

    /// `subject` may do `action`, because of `reason`.
    pub fn allowed(&self, subject: &str, action: &str, reason: impl Into<Cow<'static, str>>) {
        let reason = reason.into();
        tracing::debug!(target: "audit", subject, action, outcome = "allowed", reason = &*reason);
        self.count("allowed", reason);
    }

    /// `subject` was answered. With 403 or 429 it was refused; what failed in another way was allowed all the same, and
    /// `reason` says what came of it.
    pub fn answered(&self, subject: &str, action: &str, reason: &'static str, problem: Option<&ProblemDetails>) {
        if problem.is_some_and(is_refusal) {
            self.refused(subject, action, reason);
        } else {
            self.allowed(subject, action, reason);
        }
    }

    /// The same where `action` changes who may do what: `object` is what was changed, a name that is no UE ID.
    pub fn changed(
        &self,
        subject: &str,
        action: &str,
        object: &str,
        reason: &'static str,
        problem: Option<&ProblemDetails>,
    ) {
        if problem.is_some_and(is_refusal) {
            return self.refused(subject, action, reason);
        }
        self.count("allowed", reason.into());
        tracing::info!(target: "audit", subject, action, object, outcome = "allowed", reason);
    }

    /// `subject` may not do `action`, because of `reason`.
    pub fn refused(&self, subject: &str, action: &str, reason: impl Into<Cow<'static, str>>) {
        let reason = reason.into();
        if let Some(unlogged) = self.throttles.of(subject, &reason).and_then(LogThrottle::admit) {
            tracing::info!(target: "audit", subject, action, outcome = "refused", reason = &*reason, unlogged);
        }
        self.count("refused", reason);
    }

    fn count(&self, outcome: &'static str, reason: Cow<'static, str>) {
        self.decisions.get_or_create(&Decision { outcome, reason }).inc();
    }
}

fn is_refusal(problem: &ProblemDetails) -> bool {
    matches!(problem.status_code(), StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
}

/// What to call a peer in an audit event: its NF instance ID, else its first DNS name, else `unnamed`.
#[must_use]
pub fn subject(peer: &PeerIdentity) -> &str {
    peer.nf_instance_id.as_deref().or(peer.dns_names.first().map(String::as_str)).unwrap_or("unnamed")
}

/// So many that subjects rarely share one, and so few that nobody can make them grow.
#[derive(Debug)]
struct Throttles {
    hasher: RandomState,
    slots: [LogThrottle; SLOTS],
}

impl Default for Throttles {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: std::array::from_fn(|_| LogThrottle::new()) }
    }
}

impl Throttles {
    fn of(&self, subject: &str, reason: &str) -> Option<&LogThrottle> {
        let hash = self.hasher.hash_one((subject, reason));
        self.slots.get(usize::try_from(hash % SLOTS as u64).unwrap_or_default())
    }
}

const SLOTS: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    #[test]
    fn every_decision_is_counted_and_refusals_are_throttled() {
        let audit = Audit::default();
        for _ in 0..3 {
            audit.refused("somebody", "naanf-akma", "token_missing");
        }
        audit.allowed("somebody", "naanf-akma", "token");
        let mut registry = Registry::default();
        audit.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap_or_default();
        assert!(text.contains(r#"sbi_authorizations_total{outcome="refused",reason="token_missing"} 3"#), "{text}");
        assert!(text.contains(r#"sbi_authorizations_total{outcome="allowed",reason="token"} 1"#), "{text}");
        let throttle = audit.throttles.of("somebody", "token_missing");
        assert!(throttle.is_some_and(|throttle| throttle.admit().is_none()));
    }

    /// Notes the fields of events.
    #[derive(Default)]
    struct Notes(Mutex<Vec<BTreeMap<&'static str, String>>>);

    impl Subscriber for &'static Notes {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "audit"
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            struct Fields(BTreeMap<&'static str, String>);
            impl Visit for Fields {
                fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                    self.0.insert(field.name(), format!("{value:?}"));
                }
                fn record_str(&mut self, field: &Field, value: &str) {
                    self.0.insert(field.name(), value.to_owned());
                }
            }
            let mut fields = Fields(BTreeMap::new());
            event.record(&mut fields);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fields.0);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn an_event_has_subject_action_outcome_and_reason_and_a_change_its_object() {
        static NOTES: LazyLock<Notes> = LazyLock::new(Notes::default);
        let audit = Audit::default();
        tracing::subscriber::with_default(&*NOTES, || {
            audit.answered("somebody", "retrieve", "found", None);
            audit.changed("somebody", "disable-af", "af.example", "disabled", None);
            audit.changed("stranger", "disable-af", "af.example", "not_allowed", Some(&ProblemDetails::forbidden("X")));
        });
        let events = NOTES.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen: Vec<Vec<Option<&str>>> = events
            .iter()
            .map(|event| {
                ["subject", "action", "object", "outcome", "reason"]
                    .map(|field| event.get(field).map(String::as_str))
                    .to_vec()
            })
            .collect();
        assert_eq!(
            seen,
            [
                [Some("somebody"), Some("retrieve"), None, Some("allowed"), Some("found")],
                [Some("somebody"), Some("disable-af"), Some("af.example"), Some("allowed"), Some("disabled")],
                [Some("stranger"), Some("disable-af"), None, Some("refused"), Some("not_allowed")],
            ]
        );
    }

    #[test]
    fn what_fails_was_allowed_and_what_is_forbidden_was_not() {
        let audit = Audit::default();
        let (forbidden, failed) = (ProblemDetails::forbidden("NOT_YOURS"), ProblemDetails::internal());
        audit.answered("somebody", "retrieve", "found", None);
        audit.answered("somebody", "retrieve", "failed", Some(&failed));
        audit.answered("somebody", "retrieve", "not_yours", Some(&forbidden));
        audit.changed("somebody", "add", "thing", "added", None);
        audit.changed("somebody", "add", "thing", "too_many", Some(&forbidden));
        let count = |outcome, reason: &'static str| {
            audit.decisions.get_or_create(&Decision { outcome, reason: reason.into() }).get()
        };
        for (outcome, reason) in [
            ("allowed", "found"),
            ("allowed", "failed"),
            ("refused", "not_yours"),
            ("allowed", "added"),
            ("refused", "too_many"),
        ] {
            assert_eq!(count(outcome, reason), 1, "{outcome} {reason}");
        }
    }

    #[test]
    fn a_peer_is_called_by_its_instance_then_by_its_name() {
        let named = |nf_instance_id: Option<&str>, dns: &[&str]| PeerIdentity {
            nf_instance_id: nf_instance_id.map(str::to_owned),
            dns_names: dns.iter().map(|&name| name.to_owned()).collect(),
            ..PeerIdentity::default()
        };
        assert_eq!(subject(&named(Some("aaaa"), &["af.example"])), "aaaa");
        assert_eq!(subject(&named(None, &["af.example"])), "af.example");
        assert_eq!(subject(&named(None, &[])), "unnamed");
    }
}
