//! Who is registered here, and whose is what arrives.
//!
//! Order: what the server delivers for one application is handed to it in that order. What was put off comes again later,
//! so until the first of it is here again, or the time that the server was told is over, everything that follows for the
//! same application is put off, too; for the others nothing changes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use message::{ApplicationId, DeliveryStatusReport, Message, MessageId};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    bucket::TokenBucket,
    policy::{ApplicationConfig, Policy, WhenAway},
    tag::Tag,
};
use crate::{
    hand_over::HandOverKey,
    incoming::{Incoming, Received},
};

/// Tells a connection from every other one of this interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionId(pub(super) u64);

/// Something for an application.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A message.
    Message(Received<Message>),
    /// A report, with the Message ID that the application knows.
    Report(Received<DeliveryStatusReport>, MessageId),
}

impl Delivery {
    fn key(&self) -> HandOverKey {
        match self {
            Self::Message(message) => HandOverKey::of_message(message.content()),
            Self::Report(report, _) => HandOverKey::of_report(report.content()),
        }
    }

    fn put_off(self) {
        match self {
            Self::Message(message) => message.put_off(),
            Self::Report(report, _) => report.put_off(),
        }
    }

    pub(super) fn refuse(self) {
        match self {
            Self::Message(message) => message.refuse(),
            Self::Report(report, _) => report.refuse(),
        }
    }
}

/// A registered application.
#[derive(Debug)]
struct Registered {
    connection: ConnectionId,
    deliveries: mpsc::Sender<Delivery>,
    /// Ends the connection.
    replaced: CancellationToken,
    /// Connections that it was registered on before and that may still have something unanswered: until they have given
    /// it back, nothing is handed on.
    predecessors: Vec<ConnectionId>,
}

/// What was put off for an application.
#[derive(Debug)]
struct Held {
    first: HandOverKey,
    until: Instant,
}

#[derive(Debug, Default)]
struct State {
    registered: HashMap<ApplicationId, Registered>,
    held: HashMap<ApplicationId, Held>,
    buckets: HashMap<ApplicationId, TokenBucket>,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) policy: Policy,
    come_back: Duration,
    state: Mutex<State>,
}

impl Desk {
    /// `come_back` is what the server is told when something is put off.
    pub(super) fn new(policy: Policy, come_back: Duration) -> Self {
        Self { policy, come_back, state: Mutex::default() }
    }

    /// Nothing panics while it holds the lock; if it did, the tables would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers an application on a connection; ends the connection that it was registered on before. `replaced` ends
    /// this one.
    pub(super) fn register(
        &self,
        application: &ApplicationId,
        connection: ConnectionId,
        replaced: CancellationToken,
    ) -> mpsc::Receiver<Delivery> {
        let (deliveries, receiver) = mpsc::channel(self.policy.limits.deliveries_waiting_max);
        let mut registered = Registered { connection, deliveries, replaced, predecessors: Vec::new() };
        let mut state = self.state();
        if let Some(before) = state.registered.remove(application) {
            before.replaced.cancel();
            registered.predecessors = before.predecessors;
            registered.predecessors.push(before.connection);
        }
        state.registered.insert(application.clone(), registered);
        receiver
    }

    /// A connection is no longer an application's: takes it off if nobody followed, and puts off what is unanswered, in
    /// order.
    pub(super) fn leave(
        &self,
        application: &ApplicationId,
        connection: ConnectionId,
        unanswered: Vec<Delivery>,
        mut deliveries: mpsc::Receiver<Delivery>,
    ) {
        let mut state = self.state();
        match state.registered.get_mut(application) {
            Some(registered) if registered.connection == connection => drop(state.registered.remove(application)),
            Some(registered) => registered.predecessors.retain(|before| *before != connection),
            None => {}
        }
        deliveries.close();
        let waiting = std::iter::from_fn(|| deliveries.try_recv().ok());
        let mut back = unanswered.into_iter().chain(waiting).peekable();
        if let Some(first) = back.peek() {
            // It was handed on before anything that was put off since.
            let key = first.key();
            if let Some(held) = state.held.get_mut(application) {
                held.first = key;
            }
        }
        back.for_each(|delivery| self.put_off(&mut state, application, delivery));
    }

    /// Puts off what an application cannot take now.
    pub(super) fn not_now(&self, application: &ApplicationId, delivery: Delivery) {
        self.put_off(&mut self.state(), application, delivery);
    }

    fn put_off(&self, state: &mut State, application: &ApplicationId, delivery: Delivery) {
        let now = Instant::now();
        // A time that runs is not made longer by what follows, or a server that keeps delivering would never get through.
        if state.held.get(application).is_none_or(|held| held.until <= now) {
            state.held.remove(application);
            if state.held.len() >= HELD_MAX {
                state.held.retain(|_, held| now < held.until);
            }
            if state.held.len() >= HELD_MAX {
                // Dropped, it holds up whatever follows, for any application: nothing overtakes.
                return drop(delivery);
            }
            let held = Held { first: delivery.key(), until: now + self.come_back };
            state.held.insert(application.clone(), held);
        }
        delivery.put_off();
    }

    /// Whether the application has to wait before it sends another message; counts this one if not.
    pub(super) fn is_too_fast(&self, application: &ApplicationId, config: &ApplicationConfig) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let known = state.buckets.len();
        let bucket =
            state.buckets.entry(application.clone()).or_insert_with(|| TokenBucket::full(config.burst_max, now));
        let taken = bucket.take(config.messages_per_second_max, config.burst_max, now);
        if known > BUCKETS_MAX {
            // Only with an entry for any: a bucket that is full again is as good as a new one.
            state.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        !taken
    }

    /// Hands on something that arrived, or decides about it at once.
    pub(super) fn arrived(&self, incoming: Incoming) {
        match incoming {
            Incoming::Message(message) => self.message(message),
            Incoming::Report(report) => self.report(report),
        }
    }

    fn message(&self, message: Received<Message>) {
        let named = message.content().application_id.as_ref();
        let Some(application) = named.or(self.policy.unnamed()).cloned() else {
            tracing::info!(message_id = %message.content().message_id, "a message for no application is refused");
            return message.refuse();
        };
        match self.policy.of(&application).cloned() {
            Some(config) => self.hand_on(&application, config.when_away, Delivery::Message(message)),
            None => {
                tracing::info!(message_id = %message.content().message_id, "a message for an unknown application is refused");
                message.refuse();
            }
        }
    }

    /// A report belongs to whoever sent the message.
    fn report(&self, report: Received<DeliveryStatusReport>) {
        let known = Tag::take_off(&report.content().message_id);
        let Some((tag, message_id)) = known else { return self.report_for_nobody(report) };
        let application = self.policy.tagged(tag).cloned().or_else(|| {
            // One that only the entry for any could be is known while it is registered.
            self.state().registered.keys().find(|application| Tag::of(application) == tag).cloned()
        });
        match (application, self.policy.any()) {
            (Some(application), _) => {
                let when_away = self.policy.of(&application).map(|config| config.when_away).unwrap_or_default();
                self.hand_on(&application, when_away, Delivery::Report(report, message_id));
            }
            (None, Some(any)) if any.when_away == WhenAway::PutOff => report.put_off(),
            (None, _) => self.report_for_nobody(report),
        }
    }

    fn report_for_nobody(&self, report: Received<DeliveryStatusReport>) {
        tracing::info!(message_id = %report.content().message_id, "a report on no application's message is refused");
        report.refuse();
    }

    fn hand_on(&self, application: &ApplicationId, when_away: WhenAway, delivery: Delivery) {
        let mut state = self.state();
        let Some(registered) = state.registered.get(application) else {
            return match when_away {
                WhenAway::Refuse => delivery.refuse(),
                WhenAway::PutOff => self.put_off(&mut state, application, delivery),
            };
        };
        let held = state.held.get(application);
        let overtakes = held.is_some_and(|held| Instant::now() < held.until && held.first != delivery.key());
        if overtakes || !registered.predecessors.is_empty() {
            return self.put_off(&mut state, application, delivery);
        }
        state.held.remove(application);
        let Some(registered) = state.registered.get(application) else { return };
        if let Err(refused) = registered.deliveries.try_send(delivery) {
            let (mpsc::error::TrySendError::Full(delivery) | mpsc::error::TrySendError::Closed(delivery)) = refused;
            self.put_off(&mut state, application, delivery);
        }
    }
}

/// Applications for which something is put off at a time. Senders choose the names, where there is an entry for any.
const HELD_MAX: usize = 256;

/// Rates remembered before those that have nothing to remember are forgotten.
const BUCKETS_MAX: usize = 256;
