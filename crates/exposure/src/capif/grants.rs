//! What the operator lets API invokers and providers do: the entries `[[onboarding]]` and `[[registration]]`, of the
//! configuration or of a policy file.
//!
//! An entry is more than a credential that is good once: as long as it is there, it says what whoever came with it may do. One
//! that is gone denies everything, although the identity stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use sbi::policy::{self, Rules};

use super::config::{Config, OnboardingCredential, PolicyFile, RegistrationCredential};
use super::state::{Invoker, Provider};
use crate::error::ExposureError;

/// The entries in force.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    onboardings: Entries<OnboardingCredential>,
    registrations: Entries<RegistrationCredential>,
}

#[derive(Debug)]
struct Entries<E> {
    by_digest: BTreeMap<String, Arc<E>>,
    by_name: BTreeMap<String, Arc<E>>,
}

impl<E> Default for Entries<E> {
    fn default() -> Self {
        Self { by_digest: BTreeMap::new(), by_name: BTreeMap::new() }
    }
}

impl<E> Entries<E> {
    fn insert(&mut self, digest: String, name: String, entry: E) {
        let entry = Arc::new(entry);
        self.by_digest.insert(digest, Arc::clone(&entry));
        self.by_name.insert(name, entry);
    }
}

impl Grants {
    pub(crate) fn new(onboardings: Vec<OnboardingCredential>, registrations: Vec<RegistrationCredential>) -> Self {
        let mut grants = Self::default();
        for entry in onboardings {
            grants.onboardings.insert(entry.token_sha256.clone(), entry.name.clone(), entry);
        }
        for entry in registrations {
            grants.registrations.insert(entry.token_sha256.clone(), entry.name.clone(), entry);
        }
        grants
    }

    /// The entry of an invoker to come, by the digest of its credential.
    pub(crate) fn onboarding(&self, digest: &str) -> Option<&OnboardingCredential> {
        self.onboardings.by_digest.get(digest).map(Arc::as_ref)
    }

    /// The entry that `invoker` came by, if it is still there.
    pub(crate) fn of_invoker(&self, invoker: &Invoker) -> Option<&OnboardingCredential> {
        self.onboardings.by_name.get(&invoker.credential).map(Arc::as_ref)
    }

    /// The entry of a provider domain to come, by the digest of its credential.
    pub(crate) fn registration(&self, digest: &str) -> Option<&RegistrationCredential> {
        self.registrations.by_digest.get(digest).map(Arc::as_ref)
    }

    /// The entry that `provider` came by, if it is still there.
    pub(crate) fn of_provider(&self, provider: &Provider) -> Option<&RegistrationCredential> {
        self.registrations.by_name.get(&provider.credential).map(Arc::as_ref)
    }

    /// Whether `invoker` may use the API called `api_name`: it asked for it, and the operator lets it.
    pub(crate) fn may_use(&self, invoker: &Invoker, api_name: &str) -> bool {
        self.of_invoker(invoker).is_some_and(|entry| entry.allows(api_name))
            && invoker.wanted.as_ref().is_none_or(|wanted| wanted.contains(api_name))
    }

    /// Whether functions of `provider` may publish an API called `api_name`.
    pub(crate) fn may_publish(&self, provider: &Provider, api_name: &str) -> bool {
        self.of_provider(provider).is_some_and(|entry| entry.allows(api_name))
    }
}

/// The configuration, checked, and the entries in force: those of the policy file as they stand there, if one is named.
pub(crate) fn open(config: Config) -> Result<(Config, Rules<Grants>), ExposureError> {
    let Some(path) = config.policy.clone() else {
        config.check()?;
        let grants = Grants::new(config.onboardings.clone(), config.registrations.clone());
        return Ok((config, Rules::fixed(grants)));
    };
    let base = config.clone();
    let config = config.with_policy()?;
    config.check()?;
    let rules = Rules::of_file(path, move |path| {
        let PolicyFile { onboardings, registrations } = policy::read(path)?;
        let config = Config { policy: None, onboardings, registrations, ..base.clone() };
        config.check().map_err(|error| error.in_policy(path, "capif."))?;
        Ok(Grants::new(config.onboardings, config.registrations))
    })?;
    Ok((config, rules))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_providers_record_without_the_name_of_its_credential_is_of_no_entry() {
        let registration = |name: &str| RegistrationCredential {
            name: name.to_owned(),
            token_sha256: "ab".repeat(32),
            dns_names: Vec::new(),
            apis: Vec::new(),
            may_audit: true,
        };
        let grants = Grants::new(Vec::new(), vec![registration("nef")]);
        let mut record = serde_json::json!({"details": {"regSec": "x"}, "functions": []});
        let earlier: Provider = serde_json::from_value(record.clone()).unwrap();
        assert!(grants.of_provider(&earlier).is_none() && !grants.may_publish(&earlier, "3gpp-akma"));
        record["credential"] = "nef".into();
        let today: Provider = serde_json::from_value(record).unwrap();
        assert!(grants.of_provider(&today).is_some() && grants.may_publish(&today, "3gpp-akma"));
    }
}
