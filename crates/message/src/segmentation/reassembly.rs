//! Segments put together, whatever order they come in, within bounds that hold for each originator and for all.
//!
//! ```text
//! insert ─▶ Held ... Held ─▶ Complete ─▶ (kept, so that a repeat completes again) ─▶ remove ─▶ Duplicate for a while
//!             │ nothing new for wait_milliseconds
//!             └▶ due: Missing, up to recoveries_max times, then Failed
//! ```
//!
//! A set is what one originator calls by one segmentation set identifier. Its first segment says how many there are, its
//! last that it is the last. A contradiction (another content under a number that is held, two totals, two lasts, a
//! number beyond either, another Message ID or recipient) ends the whole set: which of the two is true could only be
//! guessed. The first number is 1; a peer that counts from 0 is understood, because its first segment, which alone
//! carries the total, is then numbered 0.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::cause::FailureCause;
use crate::identity::{Address, MessageId, SegmentationSetId};
use crate::limits::SEGMENTS_MAX;
use crate::model::{Message, SegmentParameters};

/// What a segment counts for beside its payload, so that empty segments are not free.
pub const SEGMENT_OVERHEAD_OCTETS: usize = 64;

/// What a set counts for beside its segments.
pub const SET_OVERHEAD_OCTETS: usize = 1_024;

/// Bounds of a [`Reassembler`]. Octets are those of payload, with [`SEGMENT_OVERHEAD_OCTETS`] for each segment and
/// [`SET_OVERHEAD_OCTETS`] for each set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// Sets of one originator at a time. A segment of one more is refused with [`FailureCause::ReassemblyFull`].
    pub sets_per_peer_max: usize,
    /// Octets held of one originator. A segment that goes over it is refused with [`FailureCause::ReassemblyFull`].
    pub octets_per_peer_max: usize,
    /// Sets of all. As `sets_per_peer_max`.
    pub sets_max: usize,
    /// Octets held of all. As `octets_per_peer_max`.
    pub octets_max: usize,
    /// Payload of one whole message. Over it the set is refused with [`FailureCause::PayloadTooLarge`].
    pub payload_octets_max: usize,
    /// How long nothing new may come of a set before what is missing is asked for ("expected time" of TS 23.554 8.5).
    pub wait_milliseconds: u64,
    /// How often what is missing is asked for. After that the set has failed.
    pub recoveries_max: u32,
    /// How long a set may take in all, however steadily its segments drip in. After that it has failed.
    pub lifetime_milliseconds_max: u64,
    /// Completed and removed sets that are remembered, so that late repeats do not begin them anew; the oldest are
    /// forgotten first.
    pub completed_max: usize,
    /// How long they are remembered.
    pub completed_milliseconds: u64,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        Self {
            sets_per_peer_max: 16,
            octets_per_peer_max: 256 * 1_024,
            sets_max: 4_096,
            octets_max: 64 * 1_024 * 1_024,
            payload_octets_max: 65_536,
            wait_milliseconds: 5_000,
            recoveries_max: 3,
            lifetime_milliseconds_max: 120_000,
            completed_max: 4_096,
            completed_milliseconds: 120_000,
        }
    }
}

/// What tells one set from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetKey {
    /// Who cut the message: the peer of the limits.
    pub originator: Address,
    /// What it calls the set.
    pub set_id: SegmentationSetId,
}

impl SetKey {
    /// The set that `message` is a segment of, if it is one.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let segment = message.segment.as_ref()?;
        Some(Self { originator: message.originator.clone(), set_id: segment.set_id.clone() })
    }
}

/// What became of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insert {
    /// It is kept; others are missing.
    Held,
    /// It was there before, or its set was completed and removed: there is nothing more to do.
    Duplicate,
    /// With it the message is whole, and no segment any more. The set is kept until [`Reassembler::remove`]: if the
    /// message cannot be taken now, a repeat of any of its segments completes it again. What is no segment at all is
    /// whole by itself.
    Complete(Box<Message>),
    /// It was not taken. With [`FailureCause::Malformed`] and [`FailureCause::PayloadTooLarge`] its set is gone, with
    /// [`FailureCause::ReassemblyFull`] what was held of it still is.
    Refused(FailureCause),
}

/// A set of which nothing new has come for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Segments are missing: ask for them (`SEGREC`). The set is kept, and overdue again in
    /// [`ReassemblyLimits::wait_milliseconds`] unless something new comes.
    Missing {
        /// Which set.
        key: SetKey,
        /// What is known of the message, as in [`Overdue::Failed`].
        message: Box<Message>,
        /// Numbers known to be missing, as the originator counts, ascending: 1 to [`SEGMENTS_MAX`] of them. If neither
        /// total nor last is known yet, there may be more.
        missing: Vec<u32>,
    },
    /// They stayed away: the set is gone.
    Failed {
        /// Which set.
        key: SetKey,
        /// What is known of the message, from the first of its segments that came: no payload, no segment parameters.
        /// Whether a delivery status is required is known only if the first segment came.
        message: Box<Message>,
    },
}

/// Puts segments together. See the module.
#[derive(Debug)]
pub struct Reassembler {
    limits: ReassemblyLimits,
    sets: HashMap<SetKey, Set>,
    /// When each set is overdue.
    deadlines: BTreeSet<(u64, SetKey)>,
    peers: HashMap<Address, Usage>,
    octets: usize,
    completed: Completed,
    /// The latest time that came in.
    now: u64,
}

#[derive(Debug, Default)]
struct Usage {
    sets: usize,
    octets: usize,
}

impl Reassembler {
    /// One that holds nothing yet.
    #[must_use]
    pub fn new(limits: ReassemblyLimits) -> Self {
        Self {
            limits,
            sets: HashMap::new(),
            deadlines: BTreeSet::new(),
            peers: HashMap::new(),
            octets: 0,
            completed: Completed::default(),
            now: 0,
        }
    }

    /// Takes a segment at the time `now`, in milliseconds of a clock that does not go back.
    pub fn insert(&mut self, mut message: Message, now: u64) -> Insert {
        self.now = self.now.max(now);
        let now = self.now;
        let Some(segment) = message.segment.take() else { return Insert::Complete(Box::new(message)) };
        let key = SetKey { originator: message.originator.clone(), set_id: segment.set_id.clone() };
        if self.completed.holds(&key, &message.message_id, now) {
            return Insert::Duplicate;
        }
        if let Some(cause) = implausible(&segment) {
            return self.refuse_set(&key, cause);
        }
        if let Some(set) = self.sets.get(&key) {
            match set.repeats(&message, &segment) {
                Some(true) if set.is_complete() => return Insert::Complete(Box::new(set.whole())),
                Some(true) => return Insert::Duplicate,
                Some(false) => return self.refuse_set(&key, FailureCause::Malformed),
                None if set.contradicts(&message, &segment) => {
                    return self.refuse_set(&key, FailureCause::Malformed);
                }
                None if set.payload_octets + message.payload.len() > self.limits.payload_octets_max => {
                    return self.refuse_set(&key, FailureCause::PayloadTooLarge);
                }
                None => {}
            }
        } else if message.payload.len() > self.limits.payload_octets_max {
            return Insert::Refused(FailureCause::PayloadTooLarge);
        }
        if !self.take_room(&key, message.payload.len()) {
            return Insert::Refused(FailureCause::ReassemblyFull);
        }
        self.enter(key, message, &segment, now)
    }

    /// Puts a segment for which there is room into its set.
    fn enter(&mut self, key: SetKey, message: Message, segment: &SegmentParameters, now: u64) -> Insert {
        let set = self.sets.entry(key.clone()).or_insert_with(|| Set::new(&message, segment, now));
        set.enter(message, segment);
        let lifetime_ends = set.began.saturating_add(self.limits.lifetime_milliseconds_max);
        let (deadline, outcome) = if set.is_complete() {
            (lifetime_ends, Insert::Complete(Box::new(set.whole())))
        } else {
            (now.saturating_add(self.limits.wait_milliseconds).min(lifetime_ends), Insert::Held)
        };
        let before = std::mem::replace(&mut set.deadline, deadline);
        self.deadlines.remove(&(before, key.clone()));
        self.deadlines.insert((deadline, key));
        outcome
    }

    /// When [`Reassembler::due`] has something to do next, if nothing comes before.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The sets of which nothing new has come until `now` for too long. A whole message that nobody removed in its
    /// lifetime is dropped without a word: whoever it was given to knows of it.
    pub fn due(&mut self, now: u64) -> Vec<Overdue> {
        self.now = self.now.max(now);
        let now = self.now;
        let mut overdue = Vec::new();
        while self.deadlines.first().is_some_and(|(deadline, _)| *deadline <= now) {
            let Some((_, key)) = self.deadlines.pop_first() else { break };
            let Some(set) = self.sets.get_mut(&key) else { continue };
            let lifetime_ends = set.began.saturating_add(self.limits.lifetime_milliseconds_max);
            let recovers = !set.is_complete() && set.recoveries < self.limits.recoveries_max && now < lifetime_ends;
            if recovers {
                set.recoveries += 1;
                // At least a millisecond later, so that this ends whatever the limits are.
                set.deadline = now.saturating_add(self.limits.wait_milliseconds.max(1)).min(lifetime_ends);
                let (message, missing) = (Box::new(set.head.clone()), set.missing());
                self.deadlines.insert((set.deadline, key.clone()));
                overdue.push(Overdue::Missing { key, message, missing });
            } else if let Some(set) = self.drop_set(&key)
                && !set.is_complete()
            {
                overdue.push(Overdue::Failed { key, message: Box::new(set.head) });
            }
        }
        overdue
    }

    /// Forgets a set, and says whether it was held. One that was complete is remembered for
    /// [`ReassemblyLimits::completed_milliseconds`]: repeats of its segments are duplicates.
    pub fn remove(&mut self, key: &SetKey) -> bool {
        let Some(set) = self.drop_set(key) else { return false };
        if set.is_complete() {
            self.completed.remember(key.clone(), set.head.message_id, self.now, &self.limits);
        }
        true
    }

    /// Forgets every set of `originator`, and says how many there were.
    pub fn remove_peer(&mut self, originator: &Address) -> usize {
        let keys: Vec<SetKey> = self.sets.keys().filter(|key| key.originator == *originator).cloned().collect();
        keys.iter().filter_map(|key| self.drop_set(key)).count()
    }

    /// Whether something of this set is held.
    #[must_use]
    pub fn holds(&self, key: &SetKey) -> bool {
        self.sets.contains_key(key)
    }

    /// Sets held.
    #[must_use]
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Octets held, counted as [`ReassemblyLimits`] says.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Counts a segment of `payload_octets` in, if the limits allow it.
    fn take_room(&mut self, key: &SetKey, payload_octets: usize) -> bool {
        let begins = !self.sets.contains_key(key);
        let cost = payload_octets + SEGMENT_OVERHEAD_OCTETS + if begins { SET_OVERHEAD_OCTETS } else { 0 };
        let (peer_sets, peer_octets) = self.peers.get(&key.originator).map_or((0, 0), |peer| (peer.sets, peer.octets));
        let full = peer_octets.saturating_add(cost) > self.limits.octets_per_peer_max
            || self.octets.saturating_add(cost) > self.limits.octets_max
            || begins && (peer_sets >= self.limits.sets_per_peer_max || self.sets.len() >= self.limits.sets_max);
        if full {
            return false;
        }
        let peer = self.peers.entry(key.originator.clone()).or_default();
        peer.sets += usize::from(begins);
        peer.octets += cost;
        self.octets += cost;
        true
    }

    fn refuse_set(&mut self, key: &SetKey, cause: FailureCause) -> Insert {
        self.drop_set(key);
        Insert::Refused(cause)
    }

    fn drop_set(&mut self, key: &SetKey) -> Option<Set> {
        let set = self.sets.remove(key)?;
        self.deadlines.remove(&(set.deadline, key.clone()));
        let cost = set.payload_octets + set.segments.len() * SEGMENT_OVERHEAD_OCTETS + SET_OVERHEAD_OCTETS;
        self.octets -= cost.min(self.octets);
        if let Some(peer) = self.peers.get_mut(&key.originator) {
            peer.sets -= 1.min(peer.sets);
            peer.octets -= cost.min(peer.octets);
            if peer.sets == 0 {
                self.peers.remove(&key.originator);
            }
        }
        Some(set)
    }
}

/// What is wrong with a segment whatever else is known of its set.
fn implausible(segment: &SegmentParameters) -> Option<FailureCause> {
    if segment.number > SEGMENTS_MAX || segment.total_count.is_some_and(|total| total > SEGMENTS_MAX) {
        Some(FailureCause::PayloadTooLarge)
    } else if segment.total_count.is_some_and(|total| total == 0 || segment.number > total)
        || segment.number == 0 && segment.total_count.is_none()
    {
        // What is numbered 0 is the first, and the first says how many there are.
        Some(FailureCause::Malformed)
    } else {
        None
    }
}

#[derive(Debug)]
struct Set {
    /// The message as its lowest segment so far says it, without payload.
    head: Message,
    head_number: u32,
    segments: BTreeMap<u32, Held>,
    total: Option<u32>,
    last: Option<u32>,
    payload_octets: usize,
    began: u64,
    deadline: u64,
    recoveries: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    payload: Box<[u8]>,
    total: Option<u32>,
    last: bool,
}

impl Set {
    fn new(message: &Message, segment: &SegmentParameters, now: u64) -> Self {
        Self {
            head: head_of(message),
            head_number: segment.number,
            segments: BTreeMap::new(),
            total: None,
            last: None,
            payload_octets: 0,
            began: now,
            deadline: now,
            recoveries: 0,
        }
    }

    /// None: a segment of this number was not here yet. Else whether it was the same.
    fn repeats(&self, message: &Message, segment: &SegmentParameters) -> Option<bool> {
        let held = self.segments.get(&segment.number)?;
        let same = *held.payload == *message.payload && (held.total, held.last) == (segment.total_count, segment.last);
        Some(same && self.is_of(message))
    }

    fn is_of(&self, message: &Message) -> bool {
        (&self.head.message_id, &self.head.destination, &self.head.recipient)
            == (&message.message_id, &message.destination, &message.recipient)
    }

    /// Whether a new segment cannot be of the same message as those that are here.
    fn contradicts(&self, message: &Message, segment: &SegmentParameters) -> bool {
        if !self.is_of(message) {
            return true;
        }
        let (lowest, highest) = match (self.segments.first_key_value(), self.segments.last_key_value()) {
            (Some((lowest, _)), Some((highest, _))) => ((*lowest).min(segment.number), (*highest).max(segment.number)),
            _ => (segment.number, segment.number),
        };
        let last = segment.last.then_some(segment.number);
        let differ = |held: Option<u32>, new: Option<u32>| held.is_some() && new.is_some() && held != new;
        if differ(self.total, segment.total_count) || differ(self.last, last) {
            return true;
        }
        let (total, last) = (self.total.or(segment.total_count), self.last.or(last));
        let beyond_last = last.is_some_and(|last| highest > last);
        // Counted from 1 the highest is the total, counted from 0 one less: 0 and the total are never both there.
        let beyond_total = total.is_some_and(|total| highest > total || lowest == 0 && highest == total);
        let ends_elsewhere =
            total.zip(last).is_some_and(|(total, last)| last != total && last.saturating_add(1) != total);
        beyond_last || beyond_total || ends_elsewhere
    }

    fn enter(&mut self, message: Message, segment: &SegmentParameters) {
        if segment.number < self.head_number {
            let wanted = self.head.delivery_status_required;
            self.head = head_of(&message);
            self.head.delivery_status_required |= wanted;
            self.head_number = segment.number;
        } else {
            self.head.delivery_status_required |= message.delivery_status_required;
        }
        self.total = self.total.or(segment.total_count);
        self.last = self.last.or(segment.last.then_some(segment.number));
        self.payload_octets += message.payload.len();
        let payload = message.payload.into_boxed_slice();
        self.segments.insert(segment.number, Held { payload, total: segment.total_count, last: segment.last });
    }

    /// All are here when as many are as there should be: [`Set::contradicts`] has kept out every number that could make
    /// a gap among them.
    fn is_complete(&self) -> bool {
        self.total.is_some_and(|total| usize::try_from(total) == Ok(self.segments.len()))
    }

    fn whole(&self) -> Message {
        let mut payload = Vec::with_capacity(self.payload_octets);
        self.segments.values().for_each(|held| payload.extend_from_slice(&held.payload));
        Message { payload, ..self.head.clone() }
    }

    /// The numbers known to be missing.
    fn missing(&self) -> Vec<u32> {
        let first = self.first_number();
        let end = match (self.total, self.last) {
            (Some(total), _) => first + total,
            (None, Some(last)) => last + 1,
            (None, None) => self.segments.last_key_value().map_or(first, |(highest, _)| *highest) + 1,
        };
        (first..end).filter(|number| !self.segments.contains_key(number)).collect()
    }

    /// What the originator counts from, as far as that is known: 0 if it has sent that, if its last number is one less
    /// than the total, or if what it calls 1 is not the first because it has no total. Else 1.
    fn first_number(&self) -> u32 {
        let ends_below_total = self.last.zip(self.total).is_some_and(|(last, total)| last < total);
        let one_is_not_first = self.total.is_none() && self.segments.contains_key(&1);
        u32::from(!(self.segments.contains_key(&0) || ends_below_total || one_is_not_first))
    }
}

fn head_of(message: &Message) -> Message {
    Message {
        originator: message.originator.clone(),
        destination: message.destination.clone(),
        recipient: message.recipient.clone(),
        message_id: message.message_id.clone(),
        application_id: message.application_id.clone(),
        delivery_status_required: message.delivery_status_required,
        store_and_forward: message.store_and_forward,
        expiration_time: message.expiration_time,
        priority: message.priority,
        payload: Vec::new(),
        segment: None,
        latency: message.latency,
    }
}

/// Sets that were completed and removed, the oldest first.
#[derive(Debug, Default)]
struct Completed {
    sets: HashMap<SetKey, (MessageId, u64)>,
    order: VecDeque<(SetKey, u64)>,
}

impl Completed {
    /// Whether `message_id` was completed as this set. An originator that uses an identifier again for another message
    /// (a counter that starts anew with the device) begins a new set.
    fn holds(&mut self, key: &SetKey, message_id: &MessageId, now: u64) -> bool {
        match self.sets.get(key) {
            Some((completed, until)) if completed == message_id && now < *until => true,
            Some(_) => {
                self.sets.remove(key);
                false
            }
            None => false,
        }
    }

    fn remember(&mut self, key: SetKey, message_id: MessageId, now: u64, limits: &ReassemblyLimits) {
        let until = now.saturating_add(limits.completed_milliseconds);
        self.sets.insert(key.clone(), (message_id, until));
        self.order.push_back((key, until));
        while self.order.len() > limits.completed_max || self.order.front().is_some_and(|(_, until)| *until <= now) {
            let Some((key, until)) = self.order.pop_front() else { break };
            // It may have been completed once more since.
            if self.sets.get(&key).is_some_and(|(_, later)| *later == until) {
                self.sets.remove(&key);
            }
        }
    }
}
