//! Who is to be told when a UE's associations change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use akma::UeId;
use tokio::sync::watch;

/// The UE IDs that somebody watches. There are never more than connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Arc<Mutex<Watched>>);

type Watched = HashMap<UeId, watch::Sender<()>>;

impl Changes {
    /// Tells all who watch `ue_id` that its associations may have changed.
    pub(crate) fn tell(&self, ue_id: &UeId) {
        if let Some(sender) = self.watched().get(ue_id) {
            sender.send_replace(());
        }
    }

    /// Watches `ue_id`. Watch first, then read: no change is missed.
    pub(crate) fn watch(&self, ue_id: &UeId) -> Watch {
        let receiver = self.watched().entry(ue_id.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        Watch { changes: self.clone(), ue_id: ue_id.clone(), receiver: Some(receiver) }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    changes: Changes,
    ue_id: UeId,
    /// There until this is dropped.
    receiver: Option<watch::Receiver<()>>,
}

impl Watch {
    /// Waits for the next change; several that came at once are one. May be dropped at any time.
    pub(crate) async fn changed(&mut self) {
        match &mut self.receiver {
            // The sender stays as long as this does.
            Some(receiver) => drop(receiver.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.changes.watched();
        // Under the lock, so that the last of several that go at once knows that it is the last.
        self.receiver = None;
        if watched.get(&self.ue_id).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(&self.ue_id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_change_reaches_all_who_watch_and_nobody_is_remembered_who_does_not() {
        let (changes, ue_id, other) =
            (Changes::default(), "imsi-001010000000001".parse().unwrap(), "imsi-001010000000002".parse().unwrap());
        let (mut first, mut second) = (changes.watch(&ue_id), changes.watch(&ue_id));
        changes.tell(&other);
        let changed = |watch: &Watch| watch.receiver.as_ref().unwrap().has_changed().unwrap();
        assert!(!changed(&first));
        changes.tell(&ue_id);
        changes.tell(&ue_id);
        first.changed().await;
        second.changed().await;
        assert!(!changed(&first), "two at once are one");
        drop(first);
        changes.tell(&ue_id);
        second.changed().await;
        drop(second);
        assert!(changes.watched().is_empty());
    }
}
