//! Notifications that wait to be sent, durable: table `aanf_notifications`, number → [`Notification`].
//!
//! They are written with the commit that gives rise to them, so that none is lost with a crash, and deleted once they
//! are delivered or given up. In memory there is only, by host, which numbers wait: a host that does not answer keeps
//! nobody else waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use akma::AKid;
use sbi::naanf::NotificationUri;
use serde::{Deserialize, Serialize};
use store::{Batch, Database, Table};
use tokio::sync::Notify;

use crate::error::AanfError;

/// One notification: to whom, of which A-KID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notification {
    pub(crate) uri: NotificationUri,
    pub(crate) a_kid: AKid,
    /// When it is not worth sending any more, in seconds since 1970.
    pub(crate) give_up_at: i64,
}

/// The table, and what waits in it.
pub(crate) struct Outbox {
    database: Database,
    table: Table,
    next: AtomicU64,
    pending: AtomicU64,
    pending_max: u64,
    hosts: Mutex<HashMap<String, Host>>,
    /// Something waits that nobody looks after.
    pub(crate) wake: Notify,
    /// There is room again.
    room: Notify,
}

#[derive(Default)]
struct Host {
    waiting: VecDeque<u64>,
    /// Whether somebody sends what waits here.
    attended: bool,
}

/// Notifications that are part of a batch. They wait from [`Queued::committed`] on; dropped without, they never were.
pub(crate) struct Queued {
    outbox: Arc<Outbox>,
    numbers: Vec<(String, u64)>,
    /// Those for which there was no room.
    pub(crate) lost: u64,
}

impl Outbox {
    /// Opens the table. Blocks while it reads what waits.
    pub(crate) fn open(database: &Database, pending_max: u64) -> Result<Arc<Self>, AanfError> {
        let table = database.table("aanf_notifications")?;
        let mut hosts: HashMap<String, Host> = HashMap::new();
        let (mut pending, mut last) = (0, None::<Vec<u8>>);
        loop {
            let page = table.scan_prefix(b"", last.as_deref(), PAGE)?;
            let Some((key, _)) = page.last() else { break };
            last = Some(key.clone());
            for (key, value) in &page {
                let notification: Notification = serde_json::from_slice(value).map_err(|_| AanfError::Corrupt)?;
                hosts.entry(notification.uri.host()).or_default().waiting.push_back(number(key)?);
                pending += 1;
            }
        }
        let next = last.map_or(Ok(0), |key| number(&key))?.saturating_add(1);
        Ok(Arc::new(Self {
            database: database.clone(),
            table,
            next: AtomicU64::new(next),
            pending: AtomicU64::new(pending),
            pending_max,
            hosts: Mutex::new(hosts),
            wake: Notify::new(),
            room: Notify::new(),
        }))
    }

    /// How many wait.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Waits until there is room for some more.
    pub(crate) async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            if self.pending() < self.pending_max {
                return;
            }
            room.await;
        }
    }

    /// Adds `notifications` to `batch`, as many as there is room for.
    pub(crate) fn queue(
        self: &Arc<Self>,
        mut batch: Batch,
        notifications: Vec<Notification>,
    ) -> Result<(Batch, Queued), AanfError> {
        let mut queued = Queued { outbox: Arc::clone(self), numbers: Vec::new(), lost: 0 };
        for notification in notifications {
            let more = |pending| (pending < self.pending_max).then_some(pending + 1);
            if self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                queued.lost += 1;
                continue;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            queued.numbers.push((notification.uri.host(), number));
            let value = serde_json::to_vec(&notification).map_err(|_| AanfError::Corrupt)?;
            batch = batch.put(&self.table, number.to_be_bytes(), value);
        }
        Ok((batch, queued))
    }

    /// The hosts for which something waits and that nobody attends to; whoever takes them does from now on.
    pub(crate) fn unattended(&self) -> Vec<String> {
        let mut hosts = self.hosts();
        let waiting = hosts.iter_mut().filter(|(_, host)| !host.attended && !host.waiting.is_empty());
        waiting
            .map(|(name, host)| {
                host.attended = true;
                name.clone()
            })
            .collect()
    }

    /// Up to `count` of what waits for a host, the oldest first. When nothing does, nobody attends to it any more.
    pub(crate) fn take(&self, host: &str, count: usize) -> Vec<u64> {
        let mut hosts = self.hosts();
        let Some(entry) = hosts.get_mut(host) else { return Vec::new() };
        let count = count.min(entry.waiting.len());
        let taken: Vec<u64> = entry.waiting.drain(..count).collect();
        if taken.is_empty() {
            hosts.remove(host);
        }
        taken
    }

    /// Has one that was taken wait again, behind the others of its host.
    pub(crate) fn put_back(&self, host: &str, number: u64) {
        self.hosts().entry(host.to_owned()).or_default().waiting.push_back(number);
    }

    /// One that was taken; `None` if it is settled.
    pub(crate) fn read(&self, number: u64) -> Result<Option<Notification>, AanfError> {
        let Some(value) = self.table.read(&number.to_be_bytes())? else { return Ok(None) };
        serde_json::from_slice(&value).map(Some).map_err(|_| AanfError::Corrupt)
    }

    /// Forgets one that was delivered or given up. It may come back with a crash: consumers get a notification at least
    /// once.
    pub(crate) async fn settle(&self, number: u64) -> Result<(), AanfError> {
        self.database.commit_unsynced(Batch::new().delete(&self.table, number.to_be_bytes())).await?;
        self.release(1);
        Ok(())
    }

    fn release(&self, count: u64) {
        self.pending.fetch_sub(count, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queued {
    /// The batch is on disk.
    pub(crate) fn committed(mut self) {
        {
            let mut hosts = self.outbox.hosts();
            for (host, number) in self.numbers.drain(..) {
                hosts.entry(host).or_default().waiting.push_back(number);
            }
        }
        self.outbox.wake.notify_one();
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.numbers.is_empty() {
            self.outbox.release(self.numbers.len() as u64);
        }
    }
}

fn number(key: &[u8]) -> Result<u64, AanfError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| AanfError::Corrupt)
}

/// Notifications read at once at start.
const PAGE: usize = 4_096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use store::DatabaseOptions;

    use super::*;

    fn notification(host: &str, a_kid: &str) -> Notification {
        let uri = format!("https://{host}/x").parse().unwrap();
        Notification { uri, a_kid: a_kid.parse().unwrap(), give_up_at: 7 }
    }

    async fn commit(database: &Database, outbox: &Arc<Outbox>, notifications: Vec<Notification>) -> u64 {
        let (batch, queued) = outbox.queue(Batch::new(), notifications).unwrap();
        let lost = queued.lost;
        database.commit(batch).await.unwrap();
        queued.committed();
        lost
    }

    #[tokio::test]
    async fn what_waits_waits_by_host_in_order_and_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path(), DatabaseOptions::default()).unwrap();
        let outbox = Outbox::open(&database, 10).unwrap();
        let all =
            vec![notification("a.example", "1.x"), notification("b.example", "2.x"), notification("a.example", "3.x")];
        assert_eq!(commit(&database, &outbox, all).await, 0);
        let reopened = Outbox::open(&database, 10).unwrap();
        for outbox in [&outbox, &reopened] {
            assert_eq!(outbox.pending(), 3);
            let mut hosts = outbox.unattended();
            hosts.sort();
            assert_eq!(hosts, ["a.example", "b.example"]);
            assert!(outbox.unattended().is_empty(), "they are attended to");
            let taken = outbox.take("a.example", 8);
            let a_kids: Vec<_> = taken.iter().map(|number| outbox.read(*number).unwrap().unwrap().a_kid).collect();
            assert_eq!(a_kids, ["1.x".parse().unwrap(), "3.x".parse().unwrap()]);
        }
        assert_eq!(commit(&database, &reopened, vec![notification("c.example", "4.x")]).await, 0);
        let fourth = *reopened.take("c.example", 1).first().unwrap();
        assert_eq!(reopened.read(fourth).unwrap().unwrap().a_kid.as_str(), "4.x", "numbers go on");
        reopened.settle(fourth).await.unwrap();
        assert_eq!((reopened.read(fourth).unwrap(), reopened.pending()), (None, 3));
    }

    #[tokio::test]
    async fn what_finds_no_room_is_told_and_what_is_not_committed_never_was() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path(), DatabaseOptions::default()).unwrap();
        let outbox = Outbox::open(&database, 2).unwrap();
        drop(outbox.queue(Batch::new(), vec![notification("a.example", "0.x")]).unwrap());
        assert_eq!(outbox.pending(), 0);
        let three = ["1.x", "2.x", "3.x"].map(|a_kid| notification("a.example", a_kid));
        assert_eq!(commit(&database, &outbox, three.to_vec()).await, 1);
        let waiting = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { outbox.wait_for_room().await }
        });
        outbox.unattended();
        for number in outbox.take("a.example", 1) {
            outbox.settle(number).await.unwrap();
        }
        waiting.await.unwrap();
        assert_eq!(outbox.pending(), 1);
    }
}
