//! Hands each message and report to the application once, and acknowledges it when the application has it.
//!
//! The way of one message: it arrives and is *undecided*; the application accepts it; the acceptance is journalled; only
//! then is it *remembered*, acknowledged with 2.04, and its report owed. Arriving again it is acknowledged at once if
//! remembered; if undecided, only the new place for the acknowledgement is noted. A message that came as segments goes
//! this way once, when it is complete, under its Message ID.
//!
//! What was sent back to the server comes again later, but the server may have sent more in the meantime. Taking that
//! would let it overtake: until the pause that the server was told is over, or the first thing sent back is here again,
//! everything new is sent back too.

use std::{collections::HashMap, time::Duration};

use message::{Address, DeliveryStatusReport, Message, MessageId, Priority, SegmentationSetId};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, time::Instant};

use crate::{error::ClientError, remembered::Remembered};

/// Names one thing that is handed over once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct HandOverKey {
    pub(crate) kind: Kind,
    /// Who sent it.
    pub(crate) originator: Address,
    /// The sender's name for it; in a report, the name of the message reported on.
    #[serde(rename = "msgId")]
    pub(crate) message_id: MessageId,
    /// Set while a segment is on its own; all segments of a message share its Message ID (TS 23.554 clause 8.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<u32>,
}

/// A message and the report on it may bear the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Message,
    Report,
}

impl HandOverKey {
    pub(crate) fn of_message(message: &Message) -> Self {
        Self {
            kind: Kind::Message,
            originator: message.originator.clone(),
            message_id: message.message_id.clone(),
            segment: message.segment.as_ref().map(|segment| segment.number),
        }
    }

    /// The message that a segment is of.
    pub(crate) fn whole(&self) -> Self {
        Self { segment: None, ..self.clone() }
    }

    pub(crate) fn of_report(report: &DeliveryStatusReport) -> Self {
        Self {
            kind: Kind::Report,
            originator: report.originator.clone(),
            message_id: report.message_id.clone(),
            segment: None,
        }
    }
}

/// What to do with something that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Hand it to the application.
    New,
    /// The application has it since long: acknowledge.
    Remembered,
    /// The application has it before it: acknowledge when it decides.
    Undecided,
    /// It would overtake what was sent back before it: ask the server to come back.
    Later,
    /// There is no room.
    Full,
}

/// What the application has not decided about yet, or what is on its way to the disk.
#[derive(Debug)]
struct Undecided<X> {
    /// Where acknowledgements go; none if the connection it came on is gone.
    places: Vec<X>,
    terms: Terms,
    /// The application has accepted it, and waits to hear that this is on disk.
    accepted: Option<oneshot::Sender<Result<(), ClientError>>>,
}

/// What goes with something that arrived, besides its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The priority within which its order is kept.
    pub(crate) priority: Priority,
    /// What its sender is owed.
    pub(crate) owed: Owed,
}

/// What the sender of a message is owed once the application has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    /// The delivery status report that it asked for.
    pub(crate) report: bool,
    /// The confirmation that this set of segments is complete (SEGCONFIR).
    pub(crate) confirmation: Option<SegmentationSetId>,
}

/// Everything handed over: undecided, and remembered. `X` names a place on the current connection
/// that waits for an acknowledgement.
#[derive(Debug)]
pub(crate) struct HandOvers<X> {
    undecided: HashMap<HandOverKey, Undecided<X>>,
    undecided_max: usize,
    remembered: Remembered,
    pause: Option<Pause>,
}

/// The server was told to come back, on the current connection.
#[derive(Debug)]
struct Pause {
    /// With what: the first thing that it has to deliver again.
    first: HandOverKey,
    until: Instant,
}

/// What is left to do about something the application accepted.
#[derive(Debug)]
pub(crate) struct Settled<X> {
    /// Where acknowledgements go, if the connection is still there.
    pub(crate) places: Vec<X>,
    /// What its sender is owed.
    pub(crate) owed: Owed,
    /// Who waits to hear.
    pub(crate) waiting: Option<oneshot::Sender<Result<(), ClientError>>>,
}

impl<X> HandOvers<X> {
    pub(crate) fn new(undecided_max: usize, remembered_max: usize) -> Self {
        Self { undecided: HashMap::new(), undecided_max, remembered: Remembered::new(remembered_max), pause: None }
    }

    /// Notes an arrival, and where its acknowledgement goes.
    pub(crate) fn arrive(&mut self, key: &HandOverKey, place: X, terms: Terms, now: Instant) -> Arrival {
        let is_known = self.is_remembered(key) || self.is_undecided(key);
        if !is_known && self.overtakes(key, now) {
            return Arrival::Later;
        }
        let arrival = self.arrive_in_turn(key, place, terms);
        if arrival == Arrival::New {
            self.pause = None;
        }
        arrival
    }

    /// As [`HandOvers::arrive`], for what came before whatever was sent back.
    pub(crate) fn arrive_in_turn(&mut self, key: &HandOverKey, place: X, terms: Terms) -> Arrival {
        if self.is_remembered(key) {
            return Arrival::Remembered;
        }
        if let Some(undecided) = self.undecided.get_mut(key) {
            undecided.places.push(place);
            return Arrival::Undecided;
        }
        if self.undecided.len() >= self.undecided_max {
            return Arrival::Full;
        }
        self.undecided.insert(key.clone(), Undecided { places: vec![place], terms, accepted: None });
        Arrival::New
    }

    /// Whether taking it now would let it overtake what was sent back before it.
    pub(crate) fn overtakes(&self, key: &HandOverKey, now: Instant) -> bool {
        self.pause.as_ref().is_some_and(|pause| now < pause.until && pause.first != *key)
    }

    /// Whether the application has accepted it.
    pub(crate) fn is_remembered(&self, key: &HandOverKey) -> bool {
        self.remembered.contains(key)
    }

    /// Whether it is with the application, undecided.
    pub(crate) fn is_undecided(&self, key: &HandOverKey) -> bool {
        self.undecided.contains_key(key)
    }

    /// The application accepted it: yields what the journal is to say of it.
    pub(crate) fn accept(
        &mut self,
        key: &HandOverKey,
        waiting: oneshot::Sender<Result<(), ClientError>>,
    ) -> Option<Terms> {
        let undecided = self.undecided.get_mut(key)?;
        undecided.accepted = Some(waiting);
        Some(undecided.terms.clone())
    }

    /// The acceptance is on disk: remembers it.
    pub(crate) fn settle(&mut self, key: &HandOverKey) -> Option<Settled<X>> {
        let undecided = self.undecided.remove(key)?;
        self.remember(key.clone(), undecided.terms.priority);
        Some(Settled { places: undecided.places, owed: undecided.terms.owed, waiting: undecided.accepted })
    }

    /// The application does not have it, or its acceptance could not be written: forgets that it ever came.
    pub(crate) fn give_back(&mut self, key: &HandOverKey) -> Option<Settled<X>> {
        let undecided = self.undecided.remove(key)?;
        Some(Settled { places: undecided.places, owed: Owed::default(), waiting: undecided.accepted })
    }

    /// The server is told to come back with `key`: takes nothing new for as long as this says. A pause that runs is not
    /// made longer by what it sends back, or a server that keeps sending would never get through.
    pub(crate) fn hold_back(&mut self, key: &HandOverKey, now: Instant, pause: Duration) -> Duration {
        let until = match &self.pause {
            Some(pause) if now < pause.until => pause.until,
            _ => {
                self.pause = Some(Pause { first: key.clone(), until: now + pause });
                now + pause
            }
        };
        until.duration_since(now)
    }

    /// Remembers something as handed over.
    pub(crate) fn remember(&mut self, key: HandOverKey, priority: Priority) {
        self.remembered.insert(key, priority);
    }

    /// The connection is gone, and its exchanges with it.
    pub(crate) fn disconnected(&mut self) {
        self.undecided.values_mut().for_each(|undecided| undecided.places.clear());
        // On the next one the server begins with the oldest that it has.
        self.pause = None;
    }

    /// How many are undecided.
    pub(crate) fn undecided(&self) -> usize {
        self.undecided.len()
    }

    /// How many are remembered.
    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.remembered.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(originator: &str, id: &str) -> HandOverKey {
        HandOverKey {
            kind: Kind::Message,
            originator: Address::ue(&originator.parse().unwrap()),
            message_id: id.parse().unwrap(),
            segment: None,
        }
    }

    fn owed(report: bool) -> Terms {
        Terms { priority: Priority::Middle, owed: Owed { report, confirmation: None } }
    }

    fn accept(hand_overs: &mut HandOvers<u32>, key: &HandOverKey) -> Settled<u32> {
        let (waiting, _) = oneshot::channel();
        hand_overs.accept(key, waiting).unwrap();
        hand_overs.settle(key).unwrap()
    }

    #[test]
    fn a_message_is_new_once_and_remembered_after_acceptance() {
        let mut hand_overs = HandOvers::new(4, 4);
        let first = key("a@x", "1");
        assert_eq!(hand_overs.arrive(&first, 1, owed(true), Instant::now()), Arrival::New);
        assert_eq!(hand_overs.arrive(&first, 2, owed(true), Instant::now()), Arrival::Undecided);
        let settled = accept(&mut hand_overs, &first);
        assert_eq!(settled.places, [1, 2], "each is acknowledged");
        assert_eq!(settled.owed, owed(true).owed);
        assert_eq!(hand_overs.arrive(&first, 3, owed(true), Instant::now()), Arrival::Remembered);
    }

    #[test]
    fn originator_kind_and_segment_tell_messages_apart() {
        let mut hand_overs = HandOvers::new(8, 8);
        let message = key("a@x", "1");
        let others = [
            key("b@x", "1"),
            HandOverKey { kind: Kind::Report, ..message.clone() },
            HandOverKey { segment: Some(2), ..message.clone() },
        ];
        hand_overs.remember(message, Priority::Middle);
        for other in others {
            assert_eq!(hand_overs.arrive(&other, 1, owed(false), Instant::now()), Arrival::New, "{other:?}");
        }
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_only_when_room_is_needed() {
        let mut hand_overs = HandOvers::<u32>::new(4, 3);
        for id in ["1", "2", "3", "3", "4"] {
            hand_overs.remember(key("a@x", id), Priority::Middle);
        }
        assert_eq!(hand_overs.remembered(), 3);
        assert_eq!(hand_overs.arrive(&key("a@x", "2"), 1, owed(false), Instant::now()), Arrival::Remembered);
        assert_eq!(hand_overs.arrive(&key("a@x", "1"), 1, owed(false), Instant::now()), Arrival::New);
    }

    #[test]
    fn what_is_given_back_is_new_when_it_comes_again() {
        let mut hand_overs = HandOvers::new(4, 4);
        let first = key("a@x", "1");
        assert_eq!(hand_overs.arrive(&first, 1, owed(false), Instant::now()), Arrival::New);
        assert_eq!(hand_overs.give_back(&first).unwrap().places, [1]);
        assert_eq!(hand_overs.arrive(&first, 2, owed(false), Instant::now()), Arrival::New);
    }

    #[test]
    fn what_is_undecided_takes_room_until_it_is_accepted() {
        let mut hand_overs = HandOvers::new(2, 4);
        assert_eq!(hand_overs.arrive(&key("a@x", "1"), 1, owed(false), Instant::now()), Arrival::New);
        assert_eq!(hand_overs.arrive(&key("a@x", "2"), 2, owed(false), Instant::now()), Arrival::New);
        assert_eq!(hand_overs.arrive(&key("a@x", "3"), 3, owed(false), Instant::now()), Arrival::Full);
        assert_eq!(hand_overs.arrive(&key("a@x", "1"), 4, owed(false), Instant::now()), Arrival::Undecided);
        accept(&mut hand_overs, &key("a@x", "1"));
        assert_eq!(hand_overs.arrive(&key("a@x", "3"), 3, owed(false), Instant::now()), Arrival::New);
    }

    #[test]
    fn a_lost_connection_takes_its_exchanges_along() {
        let mut hand_overs = HandOvers::new(4, 4);
        let first = key("a@x", "1");
        hand_overs.arrive(&first, 1, owed(false), Instant::now());
        hand_overs.disconnected();
        assert_eq!(accept(&mut hand_overs, &first).places, [] as [u32; 0]);
    }

    #[test]
    fn nothing_overtakes_what_was_sent_back_until_it_is_here_again_or_the_pause_is_over() {
        let (pause, now) = (Duration::from_secs(5), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut hand_overs = HandOvers::new(8, 8);
        let [first, second, third] = ["1", "2", "3"].map(|id| key("a@x", id));
        let known = key("a@x", "0");
        hand_overs.remember(known.clone(), Priority::Middle);
        assert_eq!(hand_overs.hold_back(&first, now, pause), pause);
        assert_eq!(hand_overs.arrive(&second, 2, owed(false), later(2)), Arrival::Later);
        assert_eq!(
            hand_overs.hold_back(&second, later(2), pause),
            Duration::from_secs(3),
            "it ends when the first does"
        );
        assert_eq!(hand_overs.arrive(&known, 0, owed(false), later(2)), Arrival::Remembered);
        assert_eq!(hand_overs.arrive(&first, 3, owed(false), later(3)), Arrival::New);
        assert_eq!(hand_overs.arrive(&second, 4, owed(false), later(3)), Arrival::New);
        hand_overs.give_back(&first);
        hand_overs.hold_back(&first, later(4), pause);
        assert_eq!(hand_overs.arrive(&second, 5, owed(false), later(4)), Arrival::Undecided, "the application has it");
        assert_eq!(hand_overs.arrive(&third, 6, owed(false), later(8)), Arrival::Later);
        assert_eq!(hand_overs.arrive(&third, 6, owed(false), later(9)), Arrival::New);
    }

    #[test]
    fn a_pause_ends_with_its_connection() {
        let mut hand_overs = HandOvers::new(4, 4);
        hand_overs.hold_back(&key("a@x", "1"), Instant::now(), Duration::from_secs(3600));
        assert_eq!(hand_overs.arrive(&key("a@x", "2"), 1, owed(false), Instant::now()), Arrival::Later);
        hand_overs.disconnected();
        assert_eq!(hand_overs.arrive(&key("a@x", "2"), 2, owed(false), Instant::now()), Arrival::New);
    }
}
