//! Audit events as they are told, for tests of who tells what.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::Level;
pub use transport::testing::Fields;
use transport::testing::Recorder;

/// Every audit event of this process, from the first [`AuditLog::record`] on, whichever test caused it.
#[derive(Debug, Default)]
pub struct AuditLog(Mutex<Vec<Fields>>);

impl AuditLog {
    /// Has them recorded.
    #[must_use]
    pub fn record() -> &'static Self {
        static LOG: OnceLock<AuditLog> = OnceLock::new();
        LOG.get_or_init(|| {
            let take = |fields| AuditLog::record().events().push(fields);
            tracing::subscriber::set_global_default(Recorder::new("audit", Level::TRACE, take)).unwrap();
            AuditLog::default()
        })
    }

    /// The events so far that have these fields.
    #[must_use]
    pub fn with(&self, fields: &[(&'static str, &str)]) -> Vec<Fields> {
        let has = |event: &&Fields| fields.iter().all(|(name, value)| event.get(name).is_some_and(|is| is == value));
        self.events().iter().filter(has).cloned().collect()
    }

    /// Waits for the first event that has these fields.
    pub async fn next_with(&self, fields: &[(&'static str, &str)]) -> Fields {
        let wait = async {
            loop {
                if let Some(event) = self.with(fields).into_iter().next() {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), wait).await;
        found.unwrap_or_else(|_| panic!("no event with {fields:?} in {:#?}", self.events()))
    }

    /// Every event so far in the order told, each as `subject action [object] outcome reason`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |event: &Fields| {
            let shown =
                ["subject", "action", "object", "outcome", "reason"].map(|name| event.get(name).map(String::as_str));
            shown.into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        self.events().iter().map(line).collect()
    }

    /// Whether this text stands in any event.
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        self.events().iter().flat_map(BTreeMap::values).any(|value| value.contains(text))
    }

    fn events(&self) -> MutexGuard<'_, Vec<Fields>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the log request by request.
#[derive(Debug)]
pub struct Told {
    log: &'static AuditLog,
    seen: usize,
}

impl Told {
    /// From the log's beginning on.
    #[must_use]
    pub fn of(log: &'static AuditLog) -> Self {
        Self { log, seen: 0 }
    }

    /// What was told since this was asked the last time.
    pub fn news(&mut self) -> Vec<String> {
        let lines = self.log.lines().split_off(self.seen);
        self.seen += lines.len();
        lines
    }

    /// That there was one decision since then, and this.
    ///
    /// # Panics
    /// If it was not so.
    #[track_caller]
    pub fn alone(&mut self, subject: &str, decision: &str) {
        assert_eq!(self.news(), [format!("{subject} {decision}")]);
    }

    /// That the one request since then was authorised once for `service`, or its operation, by its certificate, and decided on
    /// once so.
    ///
    /// # Panics
    /// If it was not so.
    #[track_caller]
    pub fn once(&mut self, subject: &str, service: &str, decision: &str) {
        let expected = [format!("{subject} {service} allowed tls"), format!("{subject} {decision}")];
        assert_eq!(self.news(), expected);
    }
}
