//! Policy files: the rules of who may do what, apart from the rest of a function's configuration.
//!
//! A policy file is TOML and holds a function's rules in the sections that they have in its configuration. [`read`] reads
//! one; [`Rules`] holds what a function decides by, and makes it anew when the file changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use transport::LogThrottle;

use crate::file_version::FileVersion;

/// Why a policy file cannot be used. Says where, and quotes nothing of the file.
#[derive(Debug, Error)]
#[error("policy file {}{place}: {reason}", path.display())]
pub struct InvalidPolicy {
    path: PathBuf,
    /// Line and column, where there is one.
    place: String,
    reason: String,
}

impl InvalidPolicy {
    /// A file whose rules can be read and make no sense; `reason` names the section.
    #[must_use]
    pub fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), place: String::new(), reason: reason.into() }
    }
}

/// Reads a policy file.
///
/// # Errors
/// [`InvalidPolicy`]: it cannot be read, is longer than 16 MiB, is no TOML, or holds something else than these rules.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, InvalidPolicy> {
    let fault = |error: std::io::Error| InvalidPolicy::new(path, error.to_string());
    if std::fs::metadata(path).map_err(fault)?.len() > POLICY_OCTETS_MAX {
        return Err(InvalidPolicy::new(path, format!("longer than {POLICY_OCTETS_MAX} octets")));
    }
    let text = std::fs::read_to_string(path).map_err(fault)?;
    toml::from_str(&text).map_err(|error| {
        let place = error.span().map(|span| place(&text, span.start)).unwrap_or_default();
        InvalidPolicy { path: path.to_owned(), place, reason: error.message().to_owned() }
    })
}

fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    format!(" (line {line}, column {column})")
}

/// What a function decides by: fixed, or made anew from a policy file whenever that changes.
pub struct Rules<P> {
    current: RwLock<Arc<P>>,
    file: Option<Source<P>>,
    refreshes: Family<Vec<(&'static str, &'static str)>, Counter>,
}

type Make<P> = Box<dyn Fn(&Path) -> Result<P, InvalidPolicy> + Send + Sync>;

struct Source<P> {
    path: PathBuf,
    make: Make<P>,
    /// What the current rules were made of; `None` after a failure, so that the next look tries again.
    seen: Mutex<Option<FileVersion>>,
}

impl<P: Send + Sync + 'static> Rules<P> {
    /// Rules that stay as they are.
    #[must_use]
    pub fn fixed(rules: P) -> Self {
        Self { current: RwLock::new(Arc::new(rules)), file: None, refreshes: Family::default() }
    }

    /// Rules that `make` makes of the file at `path`.
    ///
    /// # Errors
    /// What `make` says.
    pub fn of_file(
        path: PathBuf,
        make: impl Fn(&Path) -> Result<P, InvalidPolicy> + Send + Sync + 'static,
    ) -> Result<Self, InvalidPolicy> {
        // First: a file that is replaced while it is read counts as changed at the next look.
        let seen = Mutex::new(FileVersion::of(&path).ok());
        let current = RwLock::new(Arc::new(make(&path)?));
        Ok(Self { current, file: Some(Source { path, make: Box::new(make), seen }), refreshes: Family::default() })
    }

    /// Adds `sbi_policy_refreshes_total{outcome}` to `registry`: how often a changed file was `taken`, and how often looking at
    /// one `failed`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("sbi");
        registry.register("policy_refreshes", "Changed policy files, by outcome", self.refreshes.clone());
    }

    /// The rules in force.
    #[must_use]
    pub fn current(&self) -> Arc<P> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the file, and takes it anew if it is another than before. One that cannot be used leaves the rules as
    /// they are, and is reported. Says whether there are new rules.
    pub fn refresh(&self) -> bool {
        let Some(source) = &self.file else { return false };
        let mut seen = source.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = FileVersion::of(&source.path).ok();
        if found.is_some() && *seen == found {
            return false;
        }
        match (source.make)(&source.path) {
            Ok(rules) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
                *seen = found;
                self.count("taken");
                tracing::info!(target: "security", policy = %source.path.display(), "policy file taken anew");
                true
            }
            Err(error) => {
                *seen = None;
                self.count("failed");
                if let Some(unlogged) = NOT_READ.admit() {
                    tracing::error!(target: "security", %error, unlogged,
                        "the policy file cannot be used, the earlier rules stay");
                }
                false
            }
        }
    }

    fn count(&self, outcome: &'static str) {
        self.refreshes.get_or_create(&vec![("outcome", outcome)]).inc();
    }

    /// Looks at the file every [`LOOK_INTERVAL`], until `shutdown`; ends at once where there is none.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        self.follow_with(shutdown, |_| std::future::ready(())).await;
    }

    /// The same; whenever there are new rules, `reconcile` does with the earlier ones what has to be done, before the next look.
    pub async fn follow_with<F: Future<Output = ()>>(
        self: Arc<Self>,
        shutdown: CancellationToken,
        reconcile: impl Fn(Arc<P>) -> F,
    ) {
        while self.file.is_some() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = shutdown.cancelled() => return,
            }
            let looked = Arc::clone(&self);
            let earlier = self.current();
            // A panic in there would be ours; the earlier rules then stay.
            if tokio::task::spawn_blocking(move || looked.refresh()).await.unwrap_or(false) {
                reconcile(earlier).await;
            }
        }
    }
}

impl<P> std::fmt::Debug for Rules<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.file.as_ref().map(|source| source.path.display().to_string());
        f.debug_struct("Rules").field("file", &path).finish_non_exhaustive()
    }
}

static NOT_READ: LogThrottle = LogThrottle::new();

/// How often a policy file is looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Longest policy file, in octets.
const POLICY_OCTETS_MAX: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        rule: Vec<String>,
    }

    fn file(directory: &tempfile::TempDir, text: &str) -> PathBuf {
        let (path, fresh) = (directory.path().join("policy.toml"), directory.path().join("policy.new"));
        std::fs::write(&fresh, text).unwrap();
        // In one step: nobody reads half of it.
        std::fs::rename(fresh, &path).unwrap();
        path
    }

    fn rules(path: &Path) -> Result<Vec<String>, InvalidPolicy> {
        read::<Sample>(path).map(|sample| sample.rule)
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_with_its_place_and_without_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let wrong = |text: &str| rules(&file(&directory, text)).unwrap_err().to_string();
        let unknown = wrong("rule = []\nrules = [\"secret\"]\n");
        assert!(unknown.contains("policy.toml (line 2, column 1): unknown field `rules`"), "{unknown}");
        let no_toml = wrong("rule = secret\n");
        assert!(no_toml.contains("line 1") && !no_toml.contains("secret"), "{no_toml}");
        assert!(
            rules(&directory.path().join("none.toml")).unwrap_err().to_string().contains("none.toml: No such file")
        );
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, "");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(POLICY_OCTETS_MAX + 1).unwrap();
        assert!(rules(&path).unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn a_changed_file_brings_new_rules_and_a_broken_one_leaves_the_earlier() {
        let directory = tempfile::tempdir().unwrap();
        let held = Rules::of_file(file(&directory, "rule = ['a']"), rules).unwrap();
        assert!(!held.refresh() && *held.current() == ["a"]);
        file(&directory, "rule = ['b']");
        assert!(held.refresh() && *held.current() == ["b"]);
        file(&directory, "rule = [");
        assert!(!held.refresh() && *held.current() == ["b"]);
        std::fs::remove_file(directory.path().join("policy.toml")).unwrap();
        assert!(!held.refresh() && *held.current() == ["b"]);
        file(&directory, "rule = ['c']");
        assert!(held.refresh() && *held.current() == ["c"]);
        assert!(!Rules::fixed(1).refresh());
    }
}
