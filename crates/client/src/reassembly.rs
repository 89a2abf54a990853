//! Segments of messages for this client (TS 23.554 clause 8.5), from their arrival to the application, without I/O.
//!
//! ```text
//! segment ─▶ held ─▶ written down ─▶ acknowledged          (without a state directory: held ─▶ acknowledged)
//!    │          └ nothing new for a while: SEGREC, a few times, then given up
//!    └▶ completes the message ─▶ handed over ─▶ accepted ─▶ acknowledged, SEGCONFIR
//!                                   └▶ given back: kept until a segment of it comes again
//! ```
//!
//! So the server has at least one segment until the application has the message, and what it no longer has is on disk
//! here. Without a state directory a crash loses the segments held; the one that comes again brings about a SEGREC, and
//! the sender, who keeps a message until it is confirmed, sends them again. (Two crashes during one message can leave
//! nobody who knows that something is missing; the sender, whom nobody sends a SEGCONFIR, is then in doubt.)
//!
//! Time passes only while the client is registered: nothing can arrive otherwise.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use message::{
    FailureCause, Message, SegmentationSetId, UeMessage,
    segmentation::{Insert, Overdue, Reassembler, ReassemblyLimits, SetKey},
};
use tokio::time::Instant;

use crate::{hand_over::HandOverKey, journal::Record, limits::ClientLimits};

/// Whether a segment that is held may be acknowledged.
#[derive(Debug)]
enum Safety<X> {
    /// It is being written down; these places wait.
    Writing(Vec<X>),
    Safe,
}

/// What is known about the segments of one set, by their numbers.
#[derive(Debug)]
struct Set<X> {
    whole: HandOverKey,
    segments: BTreeMap<u32, Safety<X>>,
}

/// A complete message that the application has not accepted.
#[derive(Debug)]
struct Whole<X> {
    message: Message,
    set_id: SegmentationSetId,
    set: Set<X>,
    /// The application gave it back; when to forget it if no segment of it comes again.
    parked_until: Option<u64>,
}

/// What to do with a segment that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is safe: acknowledge it.
    Acknowledge,
    /// Write it down; it is acknowledged when that is done.
    Write(Record),
    /// It is being written down.
    Wait,
    /// Its message is complete: offer it to the application; the acknowledgement waits for its decision.
    Complete,
    /// It cannot be taken.
    Refuse(FailureCause),
}

/// What to do about a set of which nothing came for too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Ask for these segments.
    Recover { message: Box<Message>, set_id: SegmentationSetId, missing: Vec<u32> },
    /// The message is given up.
    Failed { message: Box<Message> },
    /// What was written down about it no longer matters.
    Forget(Record),
}

/// Messages of which segments are here. `X` names a place that waits for an acknowledgement.
#[derive(Debug)]
pub(crate) struct Reassembly<X> {
    reassembler: Reassembler,
    sets: HashMap<SetKey, Set<X>>,
    wholes: HashMap<HandOverKey, Whole<X>>,
    wholes_max: usize,
    parked_milliseconds: u64,
    /// Whether segments are written down before they are acknowledged.
    is_recorded: bool,
    /// Milliseconds that have passed, and since when they pass.
    elapsed: u64,
    running_since: Option<Instant>,
}

impl<X> Reassembly<X> {
    pub(crate) fn new(limits: &ClientLimits, is_recorded: bool) -> Self {
        let wait = limits.segment_wait_milliseconds;
        let reassembler = Reassembler::new(ReassemblyLimits {
            sets_per_peer_max: limits.reassembly_sets_per_peer_max,
            octets_per_peer_max: limits.reassembly_octets_per_peer_max,
            sets_max: limits.reassembly_sets_max,
            octets_max: limits.reassembly_octets_max,
            payload_octets_max: limits.message_payload_octets_max,
            wait_milliseconds: wait,
            recoveries_max: limits.segment_recoveries_max,
            lifetime_milliseconds_max: limits.reassembly_milliseconds_max,
            // Whether a message was accepted is remembered elsewhere, and only that counts.
            completed_max: 0,
            completed_milliseconds: 0,
        });
        Self {
            reassembler,
            sets: HashMap::new(),
            wholes: HashMap::new(),
            wholes_max: limits.reassembly_sets_max,
            parked_milliseconds: wait.saturating_mul(u64::from(limits.segment_recoveries_max).saturating_add(1)),
            is_recorded,
            elapsed: 0,
            running_since: None,
        }
    }

    /// Takes back what an earlier run of this client has written down.
    pub(crate) fn restore(&mut self, segment: Message) {
        let (Some(key), Some(number)) = (SetKey::of(&segment), number(&segment)) else { return };
        let whole = HandOverKey::of_message(&segment).whole();
        match self.reassembler.insert(segment, self.elapsed) {
            Insert::Held | Insert::Duplicate | Insert::Complete(_) => {
                let set = self.sets.entry(key).or_insert_with(|| Set { whole, segments: BTreeMap::new() });
                set.segments.insert(number, Safety::Safe);
            }
            // The limits were larger then, or the file is not ours.
            Insert::Refused(cause) => {
                tracing::warn!(message_id = %whole.message_id, %cause, "a segment of an earlier run is not kept");
                self.sets.remove(&key);
            }
        }
    }

    /// Takes a segment of a message that was not accepted yet.
    pub(crate) fn take(&mut self, segment: Message, place: X, now: Instant) -> Taken {
        let whole = HandOverKey::of_message(&segment).whole();
        if self.wholes.contains_key(&whole) {
            return Taken::Complete;
        }
        let (Some(key), Some(number)) = (SetKey::of(&segment), number(&segment)) else {
            return Taken::Refuse(FailureCause::Malformed);
        };
        let record = self.is_recorded.then(|| held(&whole, number, &key.set_id, &segment));
        let now = self.now(now);
        match self.reassembler.insert(segment, now) {
            Insert::Held | Insert::Duplicate => {
                let set = self.sets.entry(key).or_insert_with(|| Set { whole, segments: BTreeMap::new() });
                match (set.segments.get_mut(&number), record) {
                    (Some(Safety::Safe), _) => Taken::Acknowledge,
                    (Some(Safety::Writing(places)), _) => {
                        places.push(place);
                        Taken::Wait
                    }
                    (None, Some(record)) => {
                        set.segments.insert(number, Safety::Writing(vec![place]));
                        Taken::Write(record)
                    }
                    (None, None) => {
                        set.segments.insert(number, Safety::Safe);
                        Taken::Acknowledge
                    }
                }
            }
            // The set stays where it is until there is room.
            Insert::Complete(_) if self.wholes.len() >= self.wholes_max => Taken::Refuse(FailureCause::ReassemblyFull),
            Insert::Complete(message) => {
                self.reassembler.remove(&key);
                let set = self.sets.remove(&key);
                let set = set.unwrap_or_else(|| Set { whole: whole.clone(), segments: BTreeMap::new() });
                // Should the application give it back: nothing comes again while it is undecided.
                let entry = Whole { message: *message, set_id: key.set_id, set, parked_until: None };
                self.wholes.insert(whole, entry);
                Taken::Complete
            }
            Insert::Refused(cause) => Taken::Refuse(cause),
        }
    }

    /// What was held of a segment's set, if the set is gone: places that wait in vain, and what to write down.
    pub(crate) fn refused(&mut self, key: &SetKey) -> (Vec<X>, Option<Record>) {
        if self.reassembler.holds(key) {
            return (Vec::new(), None);
        }
        let Some(set) = self.sets.remove(key) else { return (Vec::new(), None) };
        let record = self.is_recorded.then(|| dropped(&set.whole, &key.set_id));
        (set.into_places(), record)
    }

    /// The complete message, and its set.
    pub(crate) fn whole(&self, key: &HandOverKey) -> Option<(&Message, &SegmentationSetId)> {
        self.wholes.get(key).map(|whole| (&whole.message, &whole.set_id))
    }

    /// The application has it, undecided.
    pub(crate) fn handed_over(&mut self, key: &HandOverKey) {
        if let Some(whole) = self.wholes.get_mut(key) {
            whole.parked_until = None;
        }
    }

    /// The application does not have it, and may get it when one of its segments comes again.
    pub(crate) fn park(&mut self, key: &HandOverKey, now: Instant) {
        let until = self.now(now).saturating_add(self.parked_milliseconds);
        if let Some(whole) = self.wholes.get_mut(key) {
            whole.parked_until.get_or_insert(until);
        }
    }

    /// The message was accepted, or refused for good: forgets everything about it. Yields the places of segments that
    /// were being written down: they need it no more.
    pub(crate) fn settled(&mut self, key: &HandOverKey) -> Vec<X> {
        let mut places = self.wholes.remove(key).map(|whole| whole.set.into_places()).unwrap_or_default();
        // A server that cuts a message anew calls the same message by another set.
        for (set_key, set) in self.sets.extract_if(|_, set| set.whole == *key) {
            self.reassembler.remove(&set_key);
            places.extend(set.into_places());
        }
        places
    }

    /// A segment was written down, or could not be: yields the places that waited for it.
    pub(crate) fn written(&mut self, key: &HandOverKey, set_id: &SegmentationSetId, is_written: bool) -> Vec<X> {
        let Some(number) = key.segment else { return Vec::new() };
        let set_key = SetKey { originator: key.originator.clone(), set_id: set_id.clone() };
        let set = match self.sets.get_mut(&set_key) {
            Some(set) => set,
            None => match self.wholes.get_mut(&key.whole()) {
                Some(whole) if whole.set_id == *set_id => &mut whole.set,
                _ => return Vec::new(),
            },
        };
        let safety = if is_written { set.segments.insert(number, Safety::Safe) } else { set.segments.remove(&number) };
        match safety {
            Some(Safety::Writing(places)) => places,
            _ => Vec::new(),
        }
    }

    /// Time passes from here on.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.running_since.get_or_insert(now);
    }

    /// The connection is gone, and time stands still.
    pub(crate) fn disconnected(&mut self, now: Instant) {
        self.elapsed = self.now(now);
        self.running_since = None;
        let in_wholes = self.wholes.values_mut().map(|whole| &mut whole.set);
        for set in self.sets.values_mut().chain(in_wholes) {
            for safety in set.segments.values_mut() {
                if let Safety::Writing(places) = safety {
                    places.clear();
                }
            }
        }
    }

    fn now(&self, now: Instant) -> u64 {
        let running = self.running_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.elapsed.saturating_add(u64::try_from(running.as_millis()).unwrap_or(u64::MAX))
    }

    /// When to ask for what is [due](Self::due).
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let since = self.running_since?;
        let parked = self.wholes.values().filter_map(|whole| whole.parked_until).min();
        let due = [self.reassembler.next_due(), parked].into_iter().flatten().min()?;
        since.checked_add(Duration::from_millis(due.saturating_sub(self.elapsed)))
    }

    /// What to do about messages of which nothing came for too long.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Due> {
        let now = self.now(now);
        let mut due = Vec::new();
        for overdue in self.reassembler.due(now) {
            match overdue {
                Overdue::Missing { key, message, missing } => {
                    due.push(Due::Recover { message, set_id: key.set_id, missing });
                }
                Overdue::Failed { message, .. } => due.push(Due::Failed { message }),
            }
        }
        // A complete set that found no room in time is gone without a word.
        for (key, set) in self.sets.extract_if(|key, _| !self.reassembler.holds(key)) {
            due.extend(self.is_recorded.then(|| Due::Forget(dropped(&set.whole, &key.set_id))));
        }
        let over = |whole: &Whole<X>| whole.parked_until.is_some_and(|until| until <= now);
        for (key, whole) in self.wholes.extract_if(|_, whole| over(whole)) {
            tracing::warn!(message_id = %key.message_id, "a message that the application gave back did not come again");
            due.extend(self.is_recorded.then(|| Due::Forget(dropped(&key, &whole.set_id))));
        }
        due
    }
}

impl<X> Set<X> {
    fn into_places(self) -> Vec<X> {
        let places = |safety| match safety {
            Safety::Writing(places) => places,
            Safety::Safe => Vec::new(),
        };
        self.segments.into_values().flat_map(places).collect()
    }
}

fn number(segment: &Message) -> Option<u32> {
    segment.segment.as_ref().map(|segment| segment.number)
}

fn held(whole: &HandOverKey, number: u32, set_id: &SegmentationSetId, segment: &Message) -> Record {
    let coded = UeMessage::Message(Box::new(segment.clone())).encode();
    // What we code is JSON; should it ever not be, the record is one that cannot be read, and the segment comes again.
    let body = serde_json::from_slice(&coded).unwrap_or_default();
    Record::Held { key: HandOverKey { segment: Some(number), ..whole.clone() }, set_id: set_id.clone(), body }
}

fn dropped(whole: &HandOverKey, set_id: &SegmentationSetId) -> Record {
    Record::Dropped { key: whole.clone(), set_id: set_id.clone() }
}

#[cfg(test)]
mod tests;
