//! What waits for one recipient, and in which order it goes. No I/O: the owner passes in acknowledgements, batches from
//! disk and the time, and carries out what comes back.
//!
//! The driving contract: after every call that may change what can be sent, the carrier calls [`Pipeline::take`] until it
//! yields nothing, starts the disk work of [`Pipeline::disk_work`] if there is any, and calls [`Pipeline::lapse`] no later
//! than [`Pipeline::next_deadline`]. Deliveries that come back as [`Aside::Store`] are handed to the disk's writer before
//! the lock around the pipeline is let go, and their end is told by [`Pipeline::store_ended`].

use std::collections::VecDeque;
use std::time::Duration;

use message::{Address, FailureCause, INDIVIDUAL_MESSAGES_MAX, Priority};
use store::Position;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Asker, Delivery, Kind};
use crate::limits::Limits;

/// Deliveries read from disk at once, and removed from it at once.
pub(crate) const DISK_BATCH: usize = 256;

/// Backlog on disk up to which a new message for a connected recipient waits in memory instead of joining the backlog.
/// Without it, a steady stream of messages would keep going through the disk for ever: each would find the one before it
/// still being stored.
const BACKLOG_SHORT: usize = 64;

/// How a carrier keeps the order of one originator's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// The carrier is a stream: what is sent first arrives first.
    Stream,
    /// The carrier's deliveries overtake each other: an originator's next one waits for the answer to the one before.
    PerOriginator,
}

/// How what may go together is given time to come together (TS 23.554 8.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gathering {
    /// How long the first one waits for others.
    pub(crate) wait: Duration,
    /// Octets of payload that go into one; once there is as much, nothing more is waited for.
    pub(crate) payload_octets_max: usize,
}

/// What [`Pipeline::take`] yields.
#[derive(Debug)]
pub(crate) enum Take<'a> {
    /// Send this now and report back under the tag.
    Send(u64, &'a Delivery),
    /// This one expired in the queue: answer its sender.
    Expired(Delivery),
    /// Nothing can be sent now.
    Nothing,
}

/// A delivery that does not wait in the queue, or not any longer.
#[derive(Debug)]
pub(crate) enum Aside {
    /// Hand it to the disk's writer.
    Store(Delivery),
    /// Answer its sender.
    Fail(Delivery, FailureCause),
    /// Answer its sender, who waits no longer; the delivery is on its way all the same.
    Tell(Asker, FailureCause),
}

/// A read of the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetch {
    /// Read what follows this position.
    pub(crate) after: Option<Position>,
    /// At most so many; fewer only at the end.
    pub(crate) limit: usize,
    /// Whether the answer is still wanted when it comes.
    epoch: u64,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Batch {
    /// In order.
    pub(crate) deliveries: Vec<Delivery>,
    /// Nothing was on disk after these.
    pub(crate) is_last: bool,
}

/// What the disk should be asked to do for this recipient.
#[derive(Debug, Default)]
pub(crate) struct DiskWork {
    /// Remove these: the recipient acknowledged them.
    pub(crate) remove: Vec<Position>,
    /// Read more.
    pub(crate) fetch: Option<Fetch>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Read from disk, in order.
    fetched: VecDeque<Delivery>,
    /// Accepted while the recipient was there, in order.
    waiting: VecDeque<Delivery>,
    /// How many are on the way to the disk.
    storing: usize,
    /// There may be something on disk after `cursor`.
    unread: bool,
    /// The last position read.
    cursor: Option<Position>,
}

impl Lane {
    /// What goes before anything new. Unread counts as much, because how much it is takes a read to know.
    fn backlog(&self) -> usize {
        self.storing + self.fetched.len() + if self.unread { DISK_BATCH } else { 0 }
    }
}

#[derive(Debug)]
struct Sent {
    tag: u64,
    delivery: Delivery,
}

/// The recipient answered "not now".
#[derive(Debug)]
struct Pause {
    until: Instant,
    /// What it answered so; decided on once nothing is in flight any more.
    held: Vec<Sent>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    lanes: [Lane; 3],
    /// Sent and not acknowledged, in the order sent.
    in_flight: VecDeque<Sent>,
    next_tag: u64,
    connected: bool,
    pause: Option<Pause>,
    /// Acknowledged, to be removed from disk.
    acknowledged: Vec<Position>,
    /// Being removed from disk.
    removing: Vec<Position>,
    /// In the hands of whoever reports their failure and then removes them.
    set_apart: Vec<Position>,
    /// Getting another expiry on disk.
    renewing: Vec<Position>,
    /// Got another expiry on disk while that was being read, perhaps as it was before.
    renewed: Vec<(Position, OffsetDateTime)>,
    /// Being discarded on disk, and what was read of it.
    discarding: Vec<(Position, Option<Delivery>)>,
    /// Discarded on disk while that was being read, perhaps before.
    discarded: Vec<Position>,
    disk_busy: bool,
    /// The lanes from this one on are being read.
    reading: Option<usize>,
    /// Set while the recipient takes aggregates and time is given to make them.
    gathering: Option<Gathering>,
    /// When the earliest is over that a lane was passed over for.
    gathers_until: Option<Instant>,
    /// Something in memory may have a latency bound.
    latency_bound: bool,
    /// Counts the times that reading began anew, so that a batch read for an earlier carrier is recognised.
    epoch: u64,
}

impl Pipeline {
    /// A pipeline with nothing in it. Its tags begin with `first_tag`: what comes late of an earlier pipeline of the same recipient
    /// is to mean nothing in this one.
    pub(crate) fn new(connected: bool, first_tag: u64) -> Self {
        Self { connected, next_tag: first_tag, ..Self::default() }
    }

    /// The tag of what is sent next.
    pub(crate) fn next_tag(&self) -> u64 {
        self.next_tag
    }

    /// There may be something on disk for this recipient that did not go through here: from before a restart, or a report
    /// on a message that failed there.
    pub(crate) fn stored_beside(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.unread = true);
    }

    /// True if it holds nothing that a new one would not.
    pub(crate) fn is_idle(&self) -> bool {
        self.pause.is_none()
            && self.in_flight.is_empty()
            && !self.disk_busy
            && self.acknowledged.is_empty()
            && self.set_apart.is_empty()
            && self.renewing.is_empty()
            && self.lanes.iter().all(|lane| lane.waiting.is_empty() && lane.backlog() == 0)
    }

    /// Decides what becomes of a new delivery. None: it waits for the carrier, which is to be knocked up.
    ///
    /// Away: to disk if storable, else refused with `TARGET_UNREACHABLE`. There: queued, or, behind a long backlog on
    /// disk with nothing older in memory, added to that backlog, so that its sender need not wait for all of it.
    pub(crate) fn accept(&mut self, delivery: Delivery, limits: &Limits) -> Option<Aside> {
        self.latency_bound |= delivery.answer_by.is_some();
        let settling = self.pause.is_some() && !self.in_flight.is_empty();
        let available = self.connected && self.pause.is_none();
        if !available && !settling {
            return Some(self.set_aside(delivery));
        }
        let lane = self.lane(delivery.priority);
        let long_backlog = lane.waiting.is_empty() && lane.backlog() > BACKLOG_SHORT;
        if available && delivery.storable && long_backlog && !self.direct_in_flight(&delivery) {
            return Some(self.set_aside(delivery));
        }
        if self.waiting_total() >= limits.recipient_queue_max {
            // What was promised to its sender already is tried again by whoever puts the answers together: this queue has
            // room again soon, or goes to disk.
            let cause = if delivery.is_promised() { FailureCause::Overloaded } else { FailureCause::TooMany };
            return Some(Aside::Fail(delivery, cause));
        }
        self.lane(delivery.priority).waiting.push_back(delivery);
        None
    }

    /// The next delivery to send, if the window and the order allow one. `window` bounds what is sent and not
    /// acknowledged.
    pub(crate) fn take(&mut self, utc: OffsetDateTime, window: usize, schedule: Schedule) -> Take<'_> {
        self.gathers_until = None;
        if self.in_flight.len() >= window {
            return Take::Nothing;
        }
        self.take_of(utc, schedule, self.lanes.len())
    }

    /// The next delivery that goes before one of this priority, whatever is under way.
    pub(crate) fn take_above(&mut self, utc: OffsetDateTime, schedule: Schedule, priority: Priority) -> Take<'_> {
        self.take_of(utc, schedule, priority as usize)
    }

    fn take_of(&mut self, utc: OffsetDateTime, schedule: Schedule, lanes: usize) -> Take<'_> {
        if !self.connected || self.pause.is_some() {
            return Take::Nothing;
        }
        let Some(delivery) = self.next(utc, schedule, lanes) else { return Take::Nothing };
        if delivery.is_expired(utc) {
            return Take::Expired(delivery);
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        self.in_flight.push_back(Sent { tag, delivery });
        match self.in_flight.back() {
            Some(sent) => Take::Send(tag, &sent.delivery),
            None => Take::Nothing,
        }
    }

    /// What may go out together with the delivery just taken: the one that would follow it in its lane, if it is of the
    /// same kind and originator, may go with others, and has no more than so many octets of payload.
    pub(crate) fn take_along(
        &mut self,
        utc: OffsetDateTime,
        (kind, originator, priority): (Kind, &Address, Priority),
        payload_octets_max: usize,
    ) -> Option<(u64, &Delivery)> {
        let being_read = self.reading.is_some_and(|from| priority as usize >= from);
        let lane = self.lane(priority);
        let queue = match lane {
            Lane { fetched, .. } if !fetched.is_empty() => fetched,
            Lane { unread: false, storing: 0, waiting, .. } if !being_read => waiting,
            _ => return None,
        };
        let delivery = queue.pop_front_if(|next| {
            next.aggregable
                && next.kind == kind
                && next.originator == *originator
                && next.payload_octets <= payload_octets_max
                && !next.is_expired(utc)
        })?;
        let tag = self.next_tag;
        self.next_tag += 1;
        self.in_flight.push_back(Sent { tag, delivery });
        self.in_flight.back().map(|sent| (tag, &sent.delivery))
    }

    /// What comes for this recipient from now on is given time to come together, or is not.
    pub(crate) fn gather(&mut self, gathering: Option<Gathering>) {
        self.gathering = gathering;
    }

    /// Of each of the highest lanes: what was read from disk, then, once nothing is left there or on its way there, what waits in memory.
    fn next(&mut self, utc: OffsetDateTime, schedule: Schedule, lanes_max: usize) -> Option<Delivery> {
        let Self { lanes, in_flight, reading, renewing, gathering, gathers_until, .. } = self;
        let now = gathering.map(|_| Instant::now());
        for (index, lane) in lanes.iter_mut().enumerate().take(lanes_max) {
            let expired = |next: &mut Delivery| next.is_expired(utc);
            let renewed = |next: &Delivery| next.position.is_some_and(|position| renewing.contains(&position));
            // The sweep finds them on disk, reports and removes them.
            while lane.fetched.pop_front_if(|next| expired(next) && !renewed(next)).is_some() {}
            // It may have another expiry at once.
            if lane.fetched.front_mut().is_some_and(expired) {
                continue;
            }
            if !lane.fetched.is_empty() {
                match pick(&mut lane.fetched, in_flight, schedule) {
                    Some(delivery) => return Some(delivery),
                    None => continue,
                }
            }
            if lane.unread || reading.is_some_and(|from| index >= from) {
                return None;
            }
            if lane.storing > 0 {
                continue;
            }
            let until = gathering.and_then(|gathering| gathering.until(&lane.waiting));
            if let Some(until) = until.filter(|until| now.is_some_and(|now| now < *until)) {
                // By this reading of the clock, not by a later one that may be past it.
                *gathers_until = Some(gathers_until.map_or(until, |earlier| earlier.min(until)));
                continue;
            }
            if let Some(delivery) = pick(&mut lane.waiting, in_flight, schedule) {
                return Some(delivery);
            }
        }
        None
    }

    /// The recipient has what was sent under `tag`.
    pub(crate) fn acknowledge(&mut self, tag: u64) -> Option<Delivery> {
        let delivery = self.landed(tag)?.delivery;
        self.acknowledged.extend(delivery.position);
        Some(delivery)
    }

    /// The recipient refused it for good. If it lies on disk, the caller reports the failure and then removes it
    /// ([`Pipeline::buried`]).
    pub(crate) fn refuse(&mut self, tag: u64) -> Option<Delivery> {
        let delivery = self.landed(tag)?.delivery;
        self.set_apart.extend(delivery.position);
        Some(delivery)
    }

    /// The recipient cannot take it before `until`, and neither anything else. Comes back if it may not wait so long.
    pub(crate) fn postpone(&mut self, tag: u64, until: Instant) -> Option<Delivery> {
        let sent = self.landed(tag)?;
        let pause = self.pause.get_or_insert_with(|| Pause { until, held: Vec::new() });
        pause.until = pause.until.max(until);
        if sent.delivery.storable || sent.delivery.position.is_some() {
            pause.held.push(sent);
            None
        } else {
            Some(sent.delivery)
        }
    }

    /// During a pause, once nothing is in flight: decides on everything in memory. Call after every landing.
    pub(crate) fn settle(&mut self) -> Vec<Aside> {
        match &mut self.pause {
            Some(pause) if self.in_flight.is_empty() => {
                let held = std::mem::take(&mut pause.held);
                self.empty_into_aside(held)
            }
            _ => Vec::new(),
        }
    }

    /// Nothing is sent before `until`, whoever is there: the recipient takes nothing outside its windows (TS 23.554 table
    /// 8.2.1-3). Followed by [`Pipeline::settle`].
    pub(crate) fn hold_until(&mut self, until: Instant) {
        let pause = self.pause.get_or_insert_with(|| Pause { until, held: Vec::new() });
        pause.until = pause.until.max(until);
    }

    /// A carrier is there. What an earlier one left unacknowledged goes first.
    pub(crate) fn attach(&mut self) {
        self.connected = true;
        for sent in self.take_sent().into_iter().rev() {
            let lane = self.lane(sent.delivery.priority);
            let queue = if sent.delivery.position.is_some() { &mut lane.fetched } else { &mut lane.waiting };
            queue.push_front(sent.delivery);
        }
    }

    /// The carrier is gone: what can be stored is, the rest fails, what came from the disk is there still.
    pub(crate) fn detach(&mut self) -> Vec<Aside> {
        self.connected = false;
        let sent = self.take_sent();
        self.empty_into_aside(sent)
    }

    /// The recipient is no more: everything in memory fails.
    pub(crate) fn dissolve(&mut self) -> Vec<Delivery> {
        self.connected = false;
        let sent = self.take_sent().into_iter().map(|sent| sent.delivery);
        let waiting = self.lanes.iter_mut().flat_map(|lane| lane.waiting.drain(..));
        let all = sent.chain(waiting).filter(|delivery| delivery.position.is_none()).collect();
        self.read_anew();
        all
    }

    /// What waited too long goes to disk or fails; a pause that is over ends.
    pub(crate) fn lapse(&mut self, now: Instant, limits: &Limits) -> Vec<Aside> {
        if self
            .pause
            .as_ref()
            .is_some_and(|pause| pause.until <= now && pause.held.is_empty() && self.in_flight.is_empty())
        {
            self.pause = None;
        }
        // What gathered for long enough is the next to be taken.
        self.gathers_until = self.gathers_until.filter(|until| *until > now);
        let mut asides = Vec::new();
        for index in 0..self.lanes.len() {
            while let Some(delivery) = self.overdue(index, now, limits) {
                asides.push(self.set_aside(delivery));
            }
        }
        if self.latency_bound {
            self.exceed_latency(now, &mut asides);
        }
        asides
    }

    /// Answers what was not acknowledged within the latency its originator asked for. What waits in memory goes to disk if it
    /// may and overtakes nothing there, else it fails. What is on its way has failed for its sender, although it may still
    /// arrive, and is not stored any more. What was promised to its sender before stays where it is.
    fn exceed_latency(&mut self, now: Instant, asides: &mut Vec<Aside>) {
        for index in 0..self.lanes.len() {
            while let Some((place, overtakes)) = self.late(index, now)
                && let Some(delivery) = self.lanes.get_mut(index).and_then(|lane| lane.waiting.remove(place))
            {
                asides.push(match delivery.storable && !overtakes {
                    true => self.set_aside(delivery),
                    false => Aside::Fail(delivery, FailureCause::LatencyExceeded),
                });
            }
        }
        let held = self.pause.iter_mut().flat_map(|pause| &mut pause.held);
        for sent in self.in_flight.iter_mut().chain(held) {
            if sent.delivery.answer_by.is_some_and(|by| by <= now) {
                sent.delivery.answer_by = None;
                if !sent.delivery.is_promised() {
                    sent.delivery.storable = false;
                    let asker = sent.delivery.asker.take();
                    asides.extend(asker.map(|asker| Aside::Tell(asker, FailureCause::LatencyExceeded)));
                }
            }
        }
    }

    /// The first in a lane that waits in memory for too long and may leave it, and whether on disk it would overtake.
    fn late(&self, index: usize, now: Instant) -> Option<(usize, bool)> {
        let waiting = &self.lanes.get(index)?.waiting;
        (0..waiting.len()).find_map(|place| {
            let (by, overtakes) = self.latency_deadline(waiting, place)?;
            (by <= now).then_some((place, overtakes))
        })
    }

    /// When a delivery that waits in memory is to leave it for its latency, and whether something older of its originator has
    /// to go first: on disk it would overtake that. None if it was promised and has to wait for that.
    fn latency_deadline(&self, waiting: &VecDeque<Delivery>, place: usize) -> Option<(Instant, bool)> {
        let delivery = waiting.get(place)?;
        let by = delivery.answer_by?;
        let overtakes = self.direct_in_flight(delivery)
            || waiting.iter().take(place).any(|older| older.originator == delivery.originator);
        (!overtakes || !delivery.is_promised()).then_some((by, overtakes))
    }

    fn overdue(&mut self, index: usize, now: Instant, limits: &Limits) -> Option<Delivery> {
        let first = self.lanes.get(index)?.waiting.front()?;
        if first.accepted_at + limits.queue_timeout() > now || self.direct_in_flight(first) {
            return None;
        }
        self.lanes.get_mut(index)?.waiting.pop_front()
    }

    /// When [`Pipeline::lapse`] has something to do next.
    pub(crate) fn next_deadline(&mut self, limits: &Limits) -> Option<Instant> {
        let latency = self.next_latency_deadline();
        let waiting = self
            .lanes
            .iter()
            .filter_map(|lane| lane.waiting.front())
            .filter(|first| !self.direct_in_flight(first))
            .map(|first| first.accepted_at + limits.queue_timeout());
        let settled = self.in_flight.is_empty();
        let pause = self.pause.iter().filter(|pause| settled && pause.held.is_empty()).map(|pause| pause.until);
        waiting.chain(pause).chain(latency).chain(self.gathers_until).min()
    }

    fn next_latency_deadline(&mut self) -> Option<Instant> {
        if !self.latency_bound {
            return None;
        }
        let held = self.pause.iter().flat_map(|pause| &pause.held);
        let sent = || self.in_flight.iter().chain(held.clone()).map(|sent| &sent.delivery);
        let waiting = || self.lanes.iter().map(|lane| &lane.waiting);
        let (this, places) = (&*self, |queue: &VecDeque<Delivery>| 0..queue.len());
        let in_queues = waiting().flat_map(|queue| places(queue).filter_map(|at| this.latency_deadline(queue, at)));
        let in_queues = in_queues.map(|(by, _)| by);
        let on_their_way = sent().filter_map(|delivery| delivery.answer_by);
        let next = in_queues.chain(on_their_way).min();
        let still_bound = sent().chain(waiting().flatten()).any(|delivery| delivery.answer_by.is_some());
        self.latency_bound = still_bound;
        next
    }

    /// The writer is done with a delivery that was set aside: it is on disk, or it is not.
    pub(crate) fn store_ended(&mut self, priority: Priority, stored: bool) {
        let lane = self.lane(priority);
        lane.storing = lane.storing.saturating_sub(1);
        lane.unread |= stored;
    }

    /// What the disk should do now, if anything. One at a time: after it, [`Pipeline::disk_done`].
    ///
    /// Reading starts while there is still something to send. Acknowledged messages are removed in batches, and
    /// whenever something is read anyway or nothing more is to come.
    pub(crate) fn disk_work(&mut self) -> Option<DiskWork> {
        if self.disk_busy {
            return None;
        }
        let fetched = |lanes: usize| self.lanes.iter().take(lanes).map(|lane| lane.fetched.len()).sum::<usize>();
        let reader = self.connected && self.pause.is_none();
        let first_unread = self.lanes.iter().position(|lane| lane.unread).filter(|_| reader);
        // Nothing of a lower lane is sent before this one is read: what was fetched there is no reason to wait.
        let from = first_unread.filter(|from| fetched(from + 1) < DISK_BATCH / 2);
        let nothing_more = first_unread.is_none() && fetched(self.lanes.len()) == 0;
        let removal_due = self.acknowledged.len() >= DISK_BATCH || !reader || nothing_more;
        if from.is_none() && (self.acknowledged.is_empty() || !removal_due) {
            return None;
        }
        self.disk_busy = true;
        self.removing = std::mem::take(&mut self.acknowledged);
        self.reading = from;
        let fetch = from.map(|from| {
            let after = self.lanes.iter().take(from + 1).rev().find_map(|lane| lane.cursor);
            self.lanes.iter_mut().skip(from).for_each(|lane| lane.unread = false);
            Fetch { after, limit: DISK_BATCH, epoch: self.epoch }
        });
        Some(DiskWork { remove: self.removing.clone(), fetch })
    }

    /// The disk work is over. `removed` says whether the removal succeeded; `batch` is what was read, or nothing if
    /// reading failed.
    pub(crate) fn disk_done(&mut self, removed: bool, fetch: Option<Fetch>, batch: Option<Batch>) {
        self.disk_busy = false;
        let from = self.reading.take().unwrap_or(0);
        match (fetch, batch) {
            (Some(fetch), Some(batch)) if fetch.epoch == self.epoch => {
                if !batch.is_last {
                    let last = batch.deliveries.last().map_or(from, |delivery| delivery.priority as usize);
                    self.lanes.iter_mut().skip(last).for_each(|lane| lane.unread = true);
                }
                self.take_in(batch.deliveries);
            }
            (Some(_), _) => self.lanes.iter_mut().skip(from).for_each(|lane| lane.unread = true),
            (None, _) => {}
        }
        self.renewed.clear();
        self.discarded.clear();
        if removed {
            self.removing.clear();
        } else {
            self.acknowledged.append(&mut self.removing);
        }
    }

    /// Reading for a higher lane goes over lower ones again: what is before a lane's cursor was read before.
    fn take_in(&mut self, batch: Vec<Delivery>) {
        for mut delivery in batch {
            let Some(position) = delivery.position else { continue };
            if let Some((_, expires_at)) = self.renewed.iter().rev().find(|(renewed, _)| *renewed == position) {
                delivery.renew(*expires_at);
            }
            let gone = [&self.acknowledged, &self.removing, &self.set_apart, &self.discarded]
                .iter()
                .any(|positions| positions.contains(&position));
            let lane = self.lane(delivery.priority);
            if lane.cursor.is_some_and(|cursor| cursor >= position) {
                continue;
            }
            lane.cursor = Some(position);
            if !gone {
                lane.fetched.push_back(delivery);
            } else if let Some((_, kept)) = self.discarding.iter_mut().find(|(discarding, _)| *discarding == position) {
                *kept = Some(delivery);
            }
        }
    }

    /// A message on disk that has expired: true if the caller is to remove it, which it ends with [`Pipeline::buried`]. False
    /// while its delivery is under way, or if somebody else is at it.
    pub(crate) fn claim(&mut self, position: Position) -> bool {
        self.set_one_apart(position).is_some()
    }

    /// Takes a message out of what was read, if it is there. None while its delivery is under way, or if somebody else is at
    /// it.
    fn set_one_apart(&mut self, position: Position) -> Option<Option<Delivery>> {
        let mut sent = self.in_flight.iter().chain(self.pause.iter().flat_map(|pause| &pause.held));
        let taken = [&self.acknowledged, &self.removing, &self.set_apart, &self.renewing];
        if sent.any(|sent| sent.delivery.position == Some(position))
            || taken.iter().any(|positions| positions.contains(&position))
        {
            return None;
        }
        self.set_apart.push(position);
        let fetched = &mut self.lane(position.priority()).fetched;
        let place = fetched.iter().position(|delivery| delivery.position == Some(position));
        Some(place.and_then(|place| fetched.remove(place)))
    }

    /// The same for one that its originator wants discarded, which the caller ends with [`Pipeline::end_discard`].
    pub(crate) fn begin_discard(&mut self, position: Position) -> bool {
        let read = self.set_one_apart(position);
        let is_ours = read.is_some();
        self.discarding.extend(read.map(|read| (position, read)));
        is_ours
    }

    /// A message on disk is about to get another expiry: nobody claims it until [`Pipeline::end_renewal`]. False if it is
    /// being removed, or if somebody else is at it.
    pub(crate) fn begin_renewal(&mut self, position: Position) -> bool {
        let taken = [&self.acknowledged, &self.removing, &self.set_apart, &self.renewing];
        if taken.iter().any(|positions| positions.contains(&position)) {
            return false;
        }
        self.renewing.push(position);
        true
    }

    /// It has got it, or, with none, has not.
    pub(crate) fn end_renewal(&mut self, position: Position, expires_at: Option<OffsetDateTime>) {
        self.renewing.retain(|renewing| *renewing != position);
        let Some(expires_at) = expires_at else { return };
        let fetched = &mut self.lane(position.priority()).fetched;
        if let Some(delivery) = fetched.iter_mut().find(|delivery| delivery.position == Some(position)) {
            delivery.renew(expires_at);
        } else if self.reading.is_some() {
            self.renewed.push((position, expires_at));
        }
    }

    /// A message is off the disk as its originator wished: a read under way may have found it before, and is not to bring it
    /// back. Or it is not: what was read of it goes back to its place.
    pub(crate) fn end_discard(&mut self, position: Position, removed: bool) {
        self.buried(position);
        let place = self.discarding.iter().position(|(discarding, _)| *discarding == position);
        let read = place.and_then(|place| self.discarding.swap_remove(place).1);
        if removed {
            if self.reading.is_some() {
                self.discarded.push(position);
            }
        } else if let Some(delivery) = read {
            let fetched = &mut self.lane(position.priority()).fetched;
            let place = fetched.partition_point(|other| other.position < Some(position));
            fetched.insert(place, delivery);
        }
    }

    /// A message set apart is off the disk, or is given up for now.
    pub(crate) fn buried(&mut self, position: Position) {
        self.set_apart.retain(|apart| *apart != position);
    }

    fn lane(&mut self, priority: Priority) -> &mut Lane {
        let [high, middle, low] = &mut self.lanes;
        match priority {
            Priority::High => high,
            Priority::Middle => middle,
            Priority::Low => low,
        }
    }

    fn waiting_total(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// True while a message of the same originator and priority that is not on disk is under way: what is stored now
    /// would go before it if it came back.
    fn direct_in_flight(&self, delivery: &Delivery) -> bool {
        self.in_flight.iter().chain(self.pause.iter().flat_map(|pause| &pause.held)).any(|sent| {
            sent.delivery.position.is_none()
                && sent.delivery.priority == delivery.priority
                && sent.delivery.originator == delivery.originator
        })
    }

    fn landed(&mut self, tag: u64) -> Option<Sent> {
        let index = self.in_flight.iter().position(|sent| sent.tag == tag)?;
        self.in_flight.remove(index)
    }

    /// Everything sent and not acknowledged, in the order sent.
    fn take_sent(&mut self) -> Vec<Sent> {
        let mut sent = self.pause.take().map(|pause| pause.held).unwrap_or_default();
        sent.extend(self.in_flight.drain(..));
        sent.sort_by_key(|sent| sent.tag);
        sent
    }

    /// Decides on what was sent, then on what waited. What came from the disk is read from there again.
    fn empty_into_aside(&mut self, sent: Vec<Sent>) -> Vec<Aside> {
        let mut asides = Vec::new();
        for delivery in sent.into_iter().map(|sent| sent.delivery) {
            if delivery.position.is_none() {
                asides.push(self.set_aside(delivery));
            }
        }
        for index in 0..self.lanes.len() {
            let waiting = self.lanes.get_mut(index).map(|lane| std::mem::take(&mut lane.waiting));
            for delivery in waiting.into_iter().flatten() {
                asides.push(self.set_aside(delivery));
            }
        }
        self.read_anew();
        asides
    }

    fn read_anew(&mut self) {
        self.epoch += 1;
        self.discarding.iter_mut().for_each(|(_, read)| *read = None);
        let reading = self.reading;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.fetched = VecDeque::new();
            lane.unread |= lane.cursor.take().is_some() || reading.is_some_and(|from| index >= from);
        }
    }

    fn set_aside(&mut self, delivery: Delivery) -> Aside {
        if !delivery.storable {
            return Aside::Fail(delivery, FailureCause::TargetUnreachable);
        }
        self.lane(delivery.priority).storing += 1;
        Aside::Store(delivery)
    }
}

impl Gathering {
    /// Until when the first of `waiting` waits for others to go with it. None if it does not: it goes alone, or there is
    /// enough, or something follows that cannot go with it.
    fn until(self, waiting: &VecDeque<Delivery>) -> Option<Instant> {
        let first = waiting.front().filter(|first| first.aggregable)?;
        let like_first =
            |next: &&Delivery| next.aggregable && next.kind == first.kind && next.originator == first.originator;
        let alike = || waiting.iter().take_while(like_first);
        let octets: usize = alike().map(|delivery| delivery.payload_octets).sum();
        let (count, room) = (alike().count(), octets < self.payload_octets_max);
        (count == waiting.len() && count < INDIVIDUAL_MESSAGES_MAX && room).then(|| first.accepted_at + self.wait)
    }
}

/// How far ahead a carrier without order looks for an originator that has nothing under way.
const LOOK_AHEAD: usize = 256;

fn pick(queue: &mut VecDeque<Delivery>, in_flight: &VecDeque<Sent>, schedule: Schedule) -> Option<Delivery> {
    match schedule {
        Schedule::Stream => queue.pop_front(),
        Schedule::PerOriginator => {
            let free = queue.iter().take(LOOK_AHEAD).position(|delivery| {
                !in_flight.iter().any(|sent| {
                    sent.delivery.priority == delivery.priority && sent.delivery.originator == delivery.originator
                })
            })?;
            queue.remove(free)
        }
    }
}
