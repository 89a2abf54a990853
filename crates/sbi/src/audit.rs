//! Audit: who may do what was decided so, as events on the tracing target `audit` and as a counter.
//!
//! One event for each decision, with the fields `subject` (NF instance ID or DNS name, never a SUPI), `action` (service
//! and operation), `object` (what it was to be done to, where there is such), `outcome` (`allowed`, `refused`, or `failed`:
//! nobody was refused, and it came to nothing by a fault or a want on our side) and `reason` (one of few fixed words, since the
//! counter has a value for each). What was refused or failed, and what was allowed and changes who may do what, is told at level
//! INFO, the rest at level DEBUG.
//!
//! Events at level INFO are bounded: of those on one subject and action the first [`TOLD_EACH_MAX`] within [`WINDOW`] are told
//! each. The others are told at its end as sums, one for each outcome, reason and object, with `count`: what repeats is not told
//! again, and nothing else is lost. At the bounds of what is counted apart ([`SUMS_EACH_MAX`], [`SUMS_MAX`],
//! [`COUNTED_APART_MAX`]) sums have `others` in place of the object, or of subject and action. The counter counts all of them at
//! once.

mod ledger;

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use transport::profile::PeerIdentity;

pub use ledger::{COUNTED_APART_MAX, OTHERS, SUMS_EACH_MAX, SUMS_MAX, TOLD_EACH_MAX, WINDOW};

use crate::problem::ProblemDetails;
use ledger::{Ledger, Sum};

/// Where decisions are told. A clone counts into the same.
#[derive(Debug, Clone)]
pub struct Audit {
    decisions: Family<Decision, Counter>,
    ledger: Arc<Ledger>,
}

/// How a decision came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Allowed,
    Refused,
    Failed,
}

impl Outcome {
    /// Of what was answered with this problem, or without one. What is not there, or is asked for in a wrong way, was allowed to
    /// be asked for.
    fn of(problem: Option<&ProblemDetails>) -> Self {
        match problem.map(ProblemDetails::status_code) {
            Some(StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) => Self::Refused,
            Some(status) if status.is_server_error() => Self::Failed,
            _ => Self::Allowed,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decision {
    outcome: &'static str,
    reason: Cow<'static, str>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { decisions: Family::default(), ledger: Arc::new(Ledger::new(tell_sum)) }
    }
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
        self.count(Outcome::Allowed, reason);
    }

    /// `subject` may do `action` to `object`, a name that is no UE ID, because of `reason`.
    pub fn allowed_for(&self, subject: &str, action: &str, object: &str, reason: impl Into<Cow<'static, str>>) {
        let (object, reason) = (shown(object), reason.into());
        tracing::debug!(target: "audit", subject, action, object, outcome = "allowed", reason = &*reason);
        self.count(Outcome::Allowed, reason);
    }

    /// `subject` was answered: refused with 403 or 429, failed with 5xx, and allowed otherwise; `reason` says what came of it.
    pub fn answered(&self, subject: &str, action: &str, reason: &'static str, problem: Option<&ProblemDetails>) {
        match Outcome::of(problem) {
            Outcome::Allowed => self.allowed(subject, action, reason),
            outcome => self.told(subject, action, "", outcome, reason.into()),
        }
    }

    /// The same with what it was to be done to: `object`, a name that is no UE ID.
    pub fn answered_for(
        &self,
        subject: &str,
        action: &str,
        object: &str,
        reason: &'static str,
        problem: Option<&ProblemDetails>,
    ) {
        match Outcome::of(problem) {
            Outcome::Allowed => self.allowed_for(subject, action, object, reason),
            outcome => self.told(subject, action, object, outcome, reason.into()),
        }
    }

    /// The same where `action` changes who may do what.
    pub fn changed(
        &self,
        subject: &str,
        action: &str,
        object: &str,
        reason: &'static str,
        problem: Option<&ProblemDetails>,
    ) {
        self.told(subject, action, object, Outcome::of(problem), reason.into());
    }

    /// `action` of `subject` was not refused, and came to nothing because of `reason`.
    pub fn failed(&self, subject: &str, action: &str, reason: impl Into<Cow<'static, str>>) {
        self.told(subject, action, "", Outcome::Failed, reason.into());
    }

    /// `subject` may not do `action`, because of `reason`.
    pub fn refused(&self, subject: &str, action: &str, reason: impl Into<Cow<'static, str>>) {
        self.told(subject, action, "", Outcome::Refused, reason.into());
    }

    /// `subject` may not do `action` to `object`, a name that is no UE ID, because of `reason`.
    pub fn refused_for(&self, subject: &str, action: &str, object: &str, reason: impl Into<Cow<'static, str>>) {
        self.told(subject, action, object, Outcome::Refused, reason.into());
    }

    fn told(&self, subject: &str, action: &str, object: &str, outcome: Outcome, reason: Cow<'static, str>) {
        let object = shown(object);
        if self.ledger.admit(subject, action, outcome, reason.clone(), object) {
            let outcome = outcome.as_str();
            tracing::info!(target: "audit", subject, action, object, outcome, reason = &*reason);
        }
        self.count(outcome, reason);
    }

    fn count(&self, outcome: Outcome, reason: Cow<'static, str>) {
        self.decisions.get_or_create(&Decision { outcome: outcome.as_str(), reason }).inc();
    }
}

fn tell_sum(sum: &Sum) {
    let (subject, action, reason) = (sum.subject.as_str(), sum.action.as_str(), &*sum.reason);
    let (object, outcome) = (sum.object.as_deref(), sum.outcome.as_str());
    tracing::info!(target: "audit", subject, action, object, outcome, reason, count = sum.count);
}

/// An object as it is told; `None` where there is none. It may come from a peer: as much of it as tells what was meant, and
/// nothing of what is spelled as a SUPI (TS 29.571 clause 5.3.2), wherever that stands in it.
fn shown(object: &str) -> Option<&str> {
    let end = object.char_indices().nth(OBJECT_CHARACTERS_MAX).map_or(object.len(), |(at, _)| at);
    let names_a_ue = SUPI_TYPES.iter().any(|start| contains_without_case(object, start));
    let text = if names_a_ue { UE } else { object.get(..end).unwrap_or_default() };
    Some(text).filter(|text| !text.is_empty())
}

fn contains_without_case(text: &str, wanted: &str) -> bool {
    text.as_bytes().windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// What a UE is called.
const UE: &str = "ue";
const SUPI_TYPES: [&str; 4] = ["imsi-", "nai-", "gci-", "gli-"];
/// Characters of an object that are told.
const OBJECT_CHARACTERS_MAX: usize = 256;

/// What to call a peer in an audit event: its NF instance ID, else its first DNS name, else `unnamed`.
#[must_use]
pub fn subject(peer: &PeerIdentity) -> &str {
    peer.nf_instance_id.as_deref().or(peer.dns_names.first().map(String::as_str)).unwrap_or("unnamed")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    #[test]
    fn every_decision_is_counted() {
        let audit = Audit::default();
        for _ in 0..TOLD_EACH_MAX + 3 {
            audit.refused("somebody", "naanf-akma", "token_missing");
        }
        audit.allowed("somebody", "naanf-akma", "token");
        let mut registry = Registry::default();
        audit.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap_or_default();
        assert!(text.contains(r#"sbi_authorizations_total{outcome="refused",reason="token_missing"} 23"#), "{text}");
        assert!(text.contains(r#"sbi_authorizations_total{outcome="allowed",reason="token"} 1"#), "{text}");
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
    fn an_event_has_subject_action_object_outcome_and_reason_and_no_supi() {
        static NOTES: LazyLock<Notes> = LazyLock::new(Notes::default);
        let audit = Audit::default();
        tracing::subscriber::with_default(&*NOTES, || {
            audit.answered("somebody", "retrieve", "found", None);
            audit.changed("somebody", "disable-af", "af.example", "disabled", None);
            audit.changed("stranger", "disable-af", "af.example", "not_allowed", Some(&ProblemDetails::forbidden("X")));
            audit.refused_for("stranger", "associate", "of IMSI-001010000000001", "not_allowed");
            audit.refused_for("stranger", "associate", &"x".repeat(OBJECT_CHARACTERS_MAX + 1), "not_allowed");
            for _ in 0..TOLD_EACH_MAX {
                audit.refused_for("stranger", "associate", "meter", "not_allowed");
            }
            audit.refused_for("stranger", "associate", "imsi-001010000000002", "not_allowed");
            drop(audit);
        });
        let events = NOTES.0.lock().unwrap_or_else(PoisonError::into_inner);
        let field = |event: &BTreeMap<&'static str, String>, name| event.get(name).cloned();
        let object = |at: usize| events.get(at).and_then(|event| field(event, "object"));
        assert_eq!(object(3).as_deref(), Some("ue"), "whoever wrote it there");
        assert_eq!(object(4).map(|object| object.len()), Some(OBJECT_CHARACTERS_MAX));
        let sums = events.iter().skip(3 + TOLD_EACH_MAX as usize);
        let sums: Vec<_> = sums.map(|event| ["object", "count"].map(|name| field(event, name))).collect();
        let sum = |object: &str, count: &str| [Some(object.to_owned()), Some(count.to_owned())];
        assert_eq!(sums, [sum("meter", "2"), sum("ue", "1")]);
        let seen: Vec<Vec<Option<&str>>> = events
            .iter()
            .take(3)
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
                [Some("stranger"), Some("disable-af"), Some("af.example"), Some("refused"), Some("not_allowed")],
            ]
        );
    }

    #[test]
    fn what_fails_was_neither_allowed_nor_refused() {
        let audit = Audit::default();
        let (forbidden, failed) = (ProblemDetails::forbidden("NOT_YOURS"), ProblemDetails::internal());
        audit.answered("somebody", "retrieve", "found", None);
        audit.answered("somebody", "retrieve", "failed", Some(&failed));
        audit.answered("somebody", "retrieve", "not_yours", Some(&forbidden));
        audit.changed("somebody", "add", "thing", "added", None);
        audit.changed("somebody", "add", "thing", "too_many", Some(&forbidden));
        audit.changed("somebody", "add", "thing", "failed", Some(&failed));
        audit.answered_for("somebody", "read", "thing", "unknown", Some(&ProblemDetails::not_found("X")));
        audit.failed("somebody", "read", "failed");
        let count = |outcome, reason: &'static str| {
            audit.decisions.get_or_create(&Decision { outcome, reason: reason.into() }).get()
        };
        for (outcome, reason, times) in [
            ("allowed", "found", 1),
            ("failed", "failed", 3),
            ("refused", "not_yours", 1),
            ("allowed", "added", 1),
            ("allowed", "unknown", 1),
            ("refused", "too_many", 1),
        ] {
            assert_eq!(count(outcome, reason), times, "{outcome} {reason}");
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
