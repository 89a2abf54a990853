//! What was sent to a device and is not acknowledged, and who reads it.
//!
//! The events of one link, in order. A listener goes over them from the oldest on, those that an earlier listener saw
//! included: what was lost with that one's connection comes again, under the same identifier. An event leaves when it is
//! acknowledged, or when the link takes it back. It holds as many as the session's window lets out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use coap::ExchangeId;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::sync::lock;

/// What a device is sent: one request of the session.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Names it towards the device; no other link has the same.
    pub(super) id: String,
    /// The JSON of MSGin5G-1.
    pub(super) body: Bytes,
    number: u64,
    exchange: ExchangeId,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Of this link's identifiers.
    prefix: String,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    next: u64,
    /// Who listens: the latest of them.
    listener: Option<u64>,
    listeners: u64,
    /// When the last one left.
    left_at: Option<Instant>,
    closed: bool,
}

impl Outbox {
    pub(super) fn new() -> Arc<Self> {
        let prefix = Uuid::new_v4().simple().to_string();
        Arc::new(Self { state: Mutex::default(), changed: watch::Sender::default(), prefix })
    }

    pub(super) fn add(&self, exchange: ExchangeId, body: Bytes) {
        let mut state = lock(&self.state);
        state.next += 1;
        let number = state.next;
        state.events.push_back(Event { id: format!("{}-{number}", self.prefix), body, number, exchange });
        drop(state);
        self.changed.send_replace(());
    }

    /// Takes an event out; none if it is not there any more.
    pub(super) fn acknowledge(&self, id: &str) -> Option<ExchangeId> {
        let mut state = lock(&self.state);
        let index = state.events.iter().position(|event| event.id == id)?;
        state.events.remove(index).map(|event| event.exchange)
    }

    /// Takes everything out.
    pub(super) fn take_back(&self) -> Vec<ExchangeId> {
        lock(&self.state).events.drain(..).map(|event| event.exchange).collect()
    }

    /// Nothing comes any more; whoever listens is told.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.send_replace(());
    }

    /// Somebody listens.
    pub(super) fn is_listened_to(&self) -> bool {
        lock(&self.state).listener.is_some()
    }

    /// When the last listener left, if nobody listens.
    pub(super) fn left_at(&self) -> Option<Instant> {
        lock(&self.state).left_at
    }

    /// Told of every change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Listens, in the place of whoever does.
    pub(super) fn listen(self: &Arc<Self>) -> Listener {
        let mut state = lock(&self.state);
        state.listeners += 1;
        let number = state.listeners;
        state.listener = Some(number);
        drop(state);
        self.changed.send_replace(());
        Listener { outbox: Arc::clone(self), changes: self.changes(), number, seen: 0 }
    }
}

/// One connection's view of an outbox.
#[derive(Debug)]
pub(super) struct Listener {
    outbox: Arc<Outbox>,
    changes: watch::Receiver<()>,
    number: u64,
    seen: u64,
}

impl Listener {
    /// The next event; none once the link is over or somebody else listens. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            self.changes.mark_unchanged();
            match self.peek() {
                Ok(found) => return found,
                Err(NotYet) => self.changes.changed().await.ok()?,
            }
        }
    }

    /// The next event, if it is there.
    pub(super) fn next_now(&mut self) -> Option<Event> {
        self.peek().ok().flatten()
    }

    fn peek(&mut self) -> Result<Option<Event>, NotYet> {
        let state = lock(&self.outbox.state);
        if state.closed || state.listener != Some(self.number) {
            return Ok(None);
        }
        let event = state.events.iter().find(|event| event.number > self.seen).cloned().ok_or(NotYet)?;
        self.seen = event.number;
        Ok(Some(event))
    }
}

struct NotYet;

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = lock(&self.outbox.state);
        if state.listener == Some(self.number) {
            state.listener = None;
            state.left_at = Some(Instant::now());
            drop(state);
            self.outbox.changed.send_replace(());
        }
    }
}
