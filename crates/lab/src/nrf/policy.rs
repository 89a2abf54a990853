//! What the NRF's configuration says of producers and scopes, beside what profiles say.

use std::collections::BTreeSet;

use sbi::nrf::NFType;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::LabError;

/// A producer that does not register itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerConfig {
    /// Its NF instance ID.
    pub nf_instance_id: Uuid,
    /// Its NF type.
    pub nf_type: NFType,
    /// Names of the services it offers.
    pub services: BTreeSet<String>,
    /// NF types that may use them; all if empty.
    #[serde(default)]
    pub consumers: BTreeSet<NFType>,
}

/// Who may have a scope. Where there is an entry for a scope, nobody else gets it; a scope finer than a service
/// (`service:operation`) nobody gets without an entry, unless the producer's profile allows the operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeConfig {
    /// The scope.
    pub name: String,
    /// NF types that may have it.
    #[serde(default)]
    pub nf_types: BTreeSet<NFType>,
    /// NF instances that may have it.
    #[serde(default)]
    pub nf_instance_ids: BTreeSet<Uuid>,
}

#[derive(Debug)]
pub(super) struct Policy {
    producers: Vec<ProducerConfig>,
    scopes: Vec<ScopeConfig>,
}

/// What the entries for a scope say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Refused,
    /// There is no entry.
    Silent,
}

impl Policy {
    pub(super) fn new(producers: Vec<ProducerConfig>, scopes: Vec<ScopeConfig>) -> Result<Self, LabError> {
        if let Some(empty) = scopes.iter().find(|scope| scope.nf_types.is_empty() && scope.nf_instance_ids.is_empty()) {
            let reason = format!("scope {:?} is for nobody: give it nf_types or nf_instance_ids", empty.name);
            return Err(LabError::Configuration(reason));
        }
        Ok(Self { producers, scopes })
    }

    pub(super) fn of_scope(&self, scope: &str, nf_type: &NFType, id: Uuid) -> Verdict {
        let mut entries = self.scopes.iter().filter(|entry| entry.name == scope).peekable();
        if entries.peek().is_none() {
            return Verdict::Silent;
        }
        let allowed = entries.any(|entry| entry.nf_types.contains(nf_type) || entry.nf_instance_ids.contains(&id));
        if allowed { Verdict::Allowed } else { Verdict::Refused }
    }

    /// Configured producers of `nf_type`, if given, with `id`, if given.
    pub(super) fn producers(
        &self,
        nf_type: Option<&NFType>,
        id: Option<Uuid>,
    ) -> impl Iterator<Item = &ProducerConfig> {
        self.producers.iter().filter(move |producer| {
            nf_type.is_none_or(|wanted| *wanted == producer.nf_type)
                && id.is_none_or(|wanted| wanted == producer.nf_instance_id)
        })
    }
}

impl ProducerConfig {
    pub(super) fn offers(&self, service: &str, consumer: &NFType) -> bool {
        self.services.contains(service) && (self.consumers.is_empty() || self.consumers.contains(consumer))
    }
}
