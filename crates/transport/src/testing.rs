//! What is told, for tests of what operators see.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

/// The fields of an event, as text.
pub type Fields = BTreeMap<&'static str, String>;

/// Hands on the events of one target.
pub struct Recorder {
    target: &'static str,
    level: Level,
    take: Box<dyn Fn(Fields) + Send + Sync>,
}

impl Recorder {
    /// Those of `target` that are of `level` or weightier go to `take`.
    pub fn new(target: &'static str, level: Level, take: impl Fn(Fields) + Send + Sync + 'static) -> Self {
        Self { target, level, take: Box::new(take) }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("target", &self.target).field("level", &self.level).finish_non_exhaustive()
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == self.target && *metadata.level() <= self.level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Read(Fields);
        impl Visit for Read {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0.insert(field.name(), format!("{value:?}"));
            }
            fn record_str(&mut self, field: &Field, value: &str) {
                self.0.insert(field.name(), value.to_owned());
            }
        }
        let mut read = Read(Fields::new());
        event.record(&mut read);
        (self.take)(read.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Events of the target `security` that are told on this thread from [`SecurityLog::record`] on, which is all of a test whose
/// runtime has one thread. Of each kind it is one a second, in the whole process.
#[derive(Debug)]
pub struct SecurityLog {
    events: Arc<Mutex<Vec<Fields>>>,
    _recording: DefaultGuard,
}

impl SecurityLog {
    /// Has events recorded until this is dropped.
    #[must_use]
    pub fn record() -> Self {
        let events: Arc<Mutex<Vec<Fields>>> = Arc::default();
        let into = Arc::clone(&events);
        // What operators are told to have logged.
        let recorder = Recorder::new("security", Level::INFO, move |fields| into.lock().unwrap().push(fields));
        Self { events, _recording: tracing::subscriber::set_default(recorder) }
    }

    /// Whether there was such an event with these fields.
    #[must_use]
    pub fn has(&self, event: &str, fields: &[(&str, &str)]) -> bool {
        let is = |told: &Fields, name: &str, value: &str| told.get(name).is_some_and(|is| is == value);
        let events = self.events.lock().unwrap();
        events.iter().any(|told| is(told, "message", event) && fields.iter().all(|(name, value)| is(told, name, value)))
    }

    /// Waits for such an event.
    ///
    /// # Panics
    /// If there is none in a minute.
    pub async fn tells(&self, event: &str, fields: &[(&str, &str)]) {
        let wait = async {
            while !self.has(event, fields) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(Duration::from_secs(60), wait).await.is_err() {
            panic!("no {event} with {fields:?} in {:#?}", self.events.lock().unwrap());
        }
    }
}
