//! The pipeline against a model of its owner, under any order of events.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use message::{Address, Priority};
use proptest::prelude::*;
use store::{EmbeddedStore, NewStoredMessage, Position, Store, StoreOptions, StoredKind};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::pipeline::{Aside, Batch, DiskWork, Gathering, Pipeline, Schedule, Take};
use super::{Delivery, Kind};
use crate::limits::Limits;

const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Middle, Priority::Low];

/// Messages of one run, and positions of one priority.
const MESSAGES_MAX: usize = 400;

/// Positions come from a store only.
static POSITIONS: LazyLock<[Vec<Position>; 3]> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), StoreOptions::default()).unwrap();
    let message = |priority| NewStoredMessage {
        recipient: Address::ue(&"bob".parse().unwrap()),
        originator: None,
        message_id: None,
        priority,
        expires_at: None,
        kind: StoredKind::Message,
        body: Vec::new(),
        deduplication: None,
    };
    PRIORITIES.map(|priority| {
        let writes = (0..MESSAGES_MAX).map(|_| store.store_message(message(priority)));
        let mut positions: Vec<_> = runtime.block_on(join_all(writes)).into_iter().map(Result::unwrap).collect();
        positions.sort();
        positions
    })
});

#[derive(Clone, Copy, Debug)]
enum Event {
    Send {
        originator: u8,
        priority: u8,
        storable: bool,
        latency: Option<u16>,
    },
    Take,
    /// Whatever may go together with the one sent last.
    TakeAlong,
    /// The recipient takes nothing for a while.
    Hold {
        milliseconds: u16,
    },
    /// The originator of something on disk wants it to live longer.
    Renew {
        which: u8,
    },
    Acknowledge {
        which: u8,
    },
    Refuse {
        which: u8,
    },
    Postpone {
        which: u8,
    },
    Attach,
    Detach,
    /// The oldest write is on disk.
    Written,
    /// The pipeline is told so.
    Told,
    DiskStart,
    DiskRead,
    DiskEnd,
    /// Something may be on disk that did not go through here.
    StoredBeside,
    Pass {
        milliseconds: u16,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..3_u8, 0..3_u8, prop::bool::weighted(0.8), prop::option::weighted(0.2, 0..2000_u16)).prop_map(
            |(originator, priority, storable, latency)| Event::Send { originator, priority, storable, latency }
        ),
        12 => Just(Event::Take),
        4 => Just(Event::TakeAlong),
        1 => (0..2000_u16).prop_map(|milliseconds| Event::Hold { milliseconds }),
        1 => any::<u8>().prop_map(|which| Event::Renew { which }),
        10 => any::<u8>().prop_map(|which| Event::Acknowledge { which }),
        1 => any::<u8>().prop_map(|which| Event::Refuse { which }),
        1 => any::<u8>().prop_map(|which| Event::Postpone { which }),
        2 => Just(Event::Attach),
        1 => Just(Event::Detach),
        8 => Just(Event::Written),
        8 => Just(Event::Told),
        4 => Just(Event::DiskStart),
        4 => Just(Event::DiskRead),
        4 => Just(Event::DiskEnd),
        1 => Just(Event::StoredBeside),
        2 => (0..3000_u16).prop_map(|milliseconds| Event::Pass { milliseconds }),
    ]
}

/// Who sent, how urgently, and the how-manieth of all.
type Name = (u8, u8, usize);

struct World {
    pipeline: Pipeline,
    schedule: Schedule,
    limits: Limits,
    now: Instant,
    next: usize,
    disk: BTreeMap<Position, Delivery>,
    positions_used: [usize; 3],
    writing: VecDeque<Delivery>,
    untold: VecDeque<Priority>,
    work: Option<(DiskWork, Option<Batch>)>,
    /// Sent and not answered by the recipient.
    open: Vec<(u64, Name, Option<Position>)>,
    storable: BTreeSet<Name>,
    accepted: BTreeSet<Name>,
    /// First copies, in the order the recipient saw them.
    seen: BTreeMap<(u8, u8), Vec<usize>>,
    last_taken: Option<Name>,
    acknowledged: BTreeSet<Name>,
    refused: BTreeSet<Name>,
    failed: BTreeSet<Name>,
}

impl World {
    fn new(schedule: Schedule) -> Self {
        Self {
            pipeline: Pipeline::new(false, 0),
            schedule,
            limits: Limits { recipient_queue_max: 100, queue_timeout_seconds: 2, ..Limits::default() },
            now: Instant::now(),
            next: 0,
            disk: BTreeMap::new(),
            positions_used: [0; 3],
            writing: VecDeque::new(),
            untold: VecDeque::new(),
            work: None,
            open: Vec::new(),
            storable: BTreeSet::new(),
            accepted: BTreeSet::new(),
            seen: BTreeMap::new(),
            last_taken: None,
            acknowledged: BTreeSet::new(),
            refused: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Send { originator, priority, storable, latency } => {
                self.send_within(originator, priority, storable, latency);
            }
            Event::Take => self.take(),
            Event::TakeAlong => self.take_along(),
            Event::Hold { milliseconds } => {
                self.pipeline.hold_until(self.now + Duration::from_millis(milliseconds.into()));
                let asides = self.pipeline.settle();
                self.carry_out(asides);
            }
            Event::Renew { which } => self.renew(which),
            Event::Acknowledge { which } => self.answer(which, Self::acknowledge),
            Event::Refuse { which } => self.answer(which, Self::refuse),
            Event::Postpone { which } => self.answer(which, Self::postpone),
            Event::Attach => {
                self.open.clear();
                self.pipeline.attach();
            }
            Event::Detach => {
                self.open.clear();
                let asides = self.pipeline.detach();
                self.carry_out(asides);
            }
            Event::Written => self.write(),
            Event::Told => {
                if let Some(priority) = self.untold.pop_front() {
                    self.pipeline.store_ended(priority, true);
                }
            }
            Event::DiskStart => {
                if self.work.is_none() {
                    self.work = self.pipeline.disk_work().map(|work| (work, None));
                }
            }
            Event::DiskRead => self.read(),
            Event::DiskEnd => self.end_work(),
            Event::StoredBeside => self.pipeline.stored_beside(),
            Event::Pass { milliseconds } => {
                self.now += Duration::from_millis(milliseconds.into());
                let asides = self.pipeline.lapse(self.now, &self.limits);
                self.carry_out(asides);
            }
        }
    }

    fn send(&mut self, originator: u8, priority: u8, storable: bool) {
        self.send_within(originator, priority, storable, None);
    }

    fn send_within(&mut self, originator: u8, priority: u8, storable: bool, latency: Option<u16>) {
        if self.next >= MESSAGES_MAX {
            return;
        }
        let name = (originator, priority, self.next);
        self.next += 1;
        let delivery = Delivery {
            kind: Kind::Message,
            originator: Address::ue(&format!("ue-{originator}").parse().unwrap()),
            message_id: name.2.to_string().parse().unwrap(),
            priority: PRIORITIES[usize::from(priority)],
            storable,
            report_wanted: false,
            expires_at: None,
            body: Bytes::new(),
            asker: None,
            accepted_at: self.now,
            answer_by: latency.map(|milliseconds| self.now + Duration::from_millis(milliseconds.into())),
            position: None,
            payload_octets: 0,
            segment_name: None,
            aggregable: true,
        };
        if storable {
            self.storable.insert(name);
        }
        self.accepted.insert(name);
        if let Some(aside) = self.pipeline.accept(delivery, &self.limits) {
            self.carry_out(vec![aside]);
        }
    }

    fn carry_out(&mut self, asides: Vec<Aside>) {
        for aside in asides {
            match aside {
                Aside::Store(delivery) => self.writing.push_back(delivery),
                Aside::Tell(..) => {}
                Aside::Fail(delivery, _) => drop(self.failed.insert(name_of(&delivery))),
            }
        }
    }

    fn take(&mut self) {
        let Take::Send(tag, delivery) = self.pipeline.take(OffsetDateTime::now_utc(), 8, self.schedule) else { return };
        let (name, position) = (name_of(delivery), delivery.position);
        self.see(tag, name, position);
    }

    fn see(&mut self, tag: u64, name: Name, position: Option<Position>) {
        self.open.push((tag, name, position));
        self.last_taken = Some(name);
        let seen = self.seen.entry((name.0, name.1)).or_default();
        if !seen.contains(&name.2) {
            seen.push(name.2);
        }
    }

    /// As the owner does it: at once after a take, and only if the carrier is a stream.
    fn take_along(&mut self) {
        self.last_taken = None;
        self.take();
        let Some((originator, priority, _)) = self.last_taken else { return };
        let address = Address::ue(&format!("ue-{originator}").parse().unwrap());
        while self.schedule == Schedule::Stream {
            let utc = OffsetDateTime::now_utc();
            let along =
                self.pipeline.take_along(utc, (Kind::Message, &address, PRIORITIES[usize::from(priority)]), 100);
            let Some((tag, delivery)) = along else { return };
            let (name, position) = (name_of(delivery), delivery.position);
            assert_eq!((name.0, name.1), (originator, priority));
            self.see(tag, name, position);
        }
    }

    /// Nobody claims it meanwhile, and it loses neither its place nor itself.
    fn renew(&mut self, which: u8) {
        let Some(position) = self.disk.keys().nth(usize::from(which) % self.disk.len().max(1)).copied() else { return };
        if self.pipeline.begin_renewal(position) {
            assert!(!self.pipeline.claim(position));
            assert!(!self.pipeline.begin_renewal(position));
            self.pipeline.end_renewal(position, Some(OffsetDateTime::now_utc() + time::Duration::DAY));
        }
    }

    fn answer(&mut self, which: u8, how: impl FnOnce(&mut Self, u64, Name, Option<Position>)) {
        if self.open.is_empty() {
            return;
        }
        let (tag, name, position) = self.open.remove(usize::from(which) % self.open.len());
        how(self, tag, name, position);
        let asides = self.pipeline.settle();
        self.carry_out(asides);
    }

    fn acknowledge(&mut self, tag: u64, name: Name, _: Option<Position>) {
        assert_eq!(self.pipeline.acknowledge(tag).map(|delivery| name_of(&delivery)), Some(name));
        self.acknowledged.insert(name);
    }

    fn refuse(&mut self, tag: u64, name: Name, position: Option<Position>) {
        assert!(self.pipeline.refuse(tag).is_some());
        self.refused.insert(name);
        if let Some(position) = position {
            self.disk.remove(&position);
            self.pipeline.buried(position);
        }
    }

    fn postpone(&mut self, tag: u64, name: Name, _: Option<Position>) {
        if self.pipeline.postpone(tag, self.now + Duration::from_secs(1)).is_some() {
            self.failed.insert(name);
        }
    }

    fn write(&mut self) {
        let Some(mut delivery) = self.writing.pop_front() else { return };
        let lane = delivery.priority as usize;
        let position = POSITIONS[lane][self.positions_used[lane]];
        self.positions_used[lane] += 1;
        delivery.position = Some(position);
        self.untold.push_back(delivery.priority);
        self.disk.insert(position, delivery);
    }

    fn read(&mut self) {
        let Some((DiskWork { fetch: Some(fetch), .. }, batch @ None)) = &mut self.work else { return };
        let following = self.disk.iter().filter(|(position, _)| fetch.after.is_none_or(|after| **position > after));
        let deliveries: Vec<_> = following.take(fetch.limit).map(|(_, delivery)| copy_of(delivery)).collect();
        *batch = Some(Batch { is_last: deliveries.len() < fetch.limit, deliveries });
    }

    fn end_work(&mut self) {
        self.read();
        let Some((work, batch)) = self.work.take() else { return };
        for position in &work.remove {
            assert!(self.disk.remove(position).is_some(), "removed twice");
        }
        self.pipeline.disk_done(true, work.fetch, batch);
    }

    /// Everything comes to rest with the recipient there and acknowledging.
    fn finish(&mut self) {
        self.apply(Event::Attach);
        for _ in 0..4 * MESSAGES_MAX {
            self.apply(Event::Pass { milliseconds: 1500 });
            for event in [Event::Written, Event::Told, Event::DiskStart, Event::DiskEnd, Event::Take] {
                self.apply(event);
            }
            self.apply(Event::Acknowledge { which: 0 });
        }
        assert!(self.disk.is_empty(), "left on disk: {:?}", self.disk.values().map(name_of).collect::<Vec<_>>());
        assert!(self.pipeline.is_idle(), "{:?}", self.pipeline);
        for name in &self.accepted {
            let ends = [&self.acknowledged, &self.refused, &self.failed];
            assert!(ends.iter().any(|end| end.contains(name)), "{name:?} was lost");
            if self.storable.contains(name) && self.failed.contains(name) {
                // Only a full queue fails what may be stored.
                assert!(!self.acknowledged.contains(name));
            }
        }
        for (of, seen) in &self.seen {
            assert!(seen.is_sorted(), "out of order from {of:?}: {seen:?}");
        }
    }
}

fn name_of(delivery: &Delivery) -> Name {
    let originator = delivery.originator.addr.as_str().strip_prefix("ue-").unwrap().parse().unwrap();
    (originator, delivery.priority as u8, delivery.message_id.as_str().parse().unwrap())
}

fn copy_of(delivery: &Delivery) -> Delivery {
    Delivery {
        originator: delivery.originator.clone(),
        message_id: delivery.message_id.clone(),
        body: delivery.body.clone(),
        asker: None,
        answer_by: None,
        segment_name: None,
        ..*delivery
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_and_order_holds_whatever_happens(
        events in prop::collection::vec(event(), 0..600),
        stream in any::<bool>(),
    ) {
        let mut world = World::new(if stream { Schedule::Stream } else { Schedule::PerOriginator });
        for event in events {
            world.apply(event);
        }
        world.finish();
    }
}

/// A recipient that was away for long: what was stored meanwhile goes first, a batch after the other, and what came later
/// waits for it.
#[test]
fn a_long_backlog_is_drained_before_what_came_later() {
    let mut world = World::new(Schedule::Stream);
    for _ in 0..300 {
        world.send(0, 1, true);
        world.apply(Event::Written);
        world.apply(Event::Told);
    }
    world.apply(Event::Attach);
    for _ in 0..100 {
        world.send(0, 1, true);
        world.take();
    }
    world.finish();
    assert_eq!(world.seen[&(0, 1)].len(), 400);
}

/// Most of a batch of a lower priority waits in memory when something of a higher one is found on disk.
#[test]
fn what_is_stored_late_of_a_higher_priority_holds_nothing_up() {
    for late in [Event::Told, Event::StoredBeside] {
        let mut world = World::new(Schedule::Stream);
        for _ in 0..300 {
            world.send(0, 1, true);
            world.apply(Event::Written);
            world.apply(Event::Told);
        }
        world.send(0, 0, true);
        world.apply(Event::Attach);
        for event in [Event::DiskStart, Event::DiskEnd, Event::Written, late, Event::Told] {
            world.apply(event);
        }
        world.finish();
        assert_eq!((world.seen[&(0, 1)].len(), world.seen[&(0, 0)].len()), (300, 1));
    }
}

/// A steady stream of storable messages to a recipient that is there does not keep going through the disk.
#[test]
fn a_steady_stream_leaves_the_disk_once_its_recipient_is_back() {
    let mut world = World::new(Schedule::Stream);
    for _ in 0..10 {
        world.send(0, 1, true);
    }
    world.apply(Event::Attach);
    let mut through_disk = 0;
    for _ in 0..200 {
        world.send(0, 1, true);
        for event in [Event::Written, Event::Told, Event::DiskStart, Event::DiskEnd, Event::Take, Event::Take] {
            world.apply(event);
        }
        world.apply(Event::Acknowledge { which: 0 });
        world.apply(Event::Acknowledge { which: 0 });
        through_disk = world.positions_used[1];
    }
    assert!(through_disk <= 12, "{through_disk} went through the disk");
    world.finish();
}

#[test]
fn higher_priorities_go_first_whenever_there_is_a_choice() {
    let mut world = World::new(Schedule::Stream);
    world.apply(Event::Attach);
    for priority in [2, 1, 0, 2, 1, 0] {
        world.send(0, priority, true);
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        world.take();
        order.push(world.open.last().unwrap().1.1);
    }
    assert_eq!(order, [0, 0, 1, 1, 2, 2]);
}

/// The removal of a message that its originator wants discarded fails, whether it was read before or is read meanwhile.
#[test]
fn what_could_not_be_discarded_goes_where_it_was() {
    for read_before in [true, false] {
        let mut world = World::new(Schedule::Stream);
        for _ in 0..3 {
            world.send(0, 1, true);
            world.apply(Event::Written);
            world.apply(Event::Told);
        }
        world.apply(Event::Attach);
        let read = |world: &mut World| {
            for event in [Event::DiskStart, Event::DiskRead, Event::DiskEnd] {
                world.apply(event);
            }
        };
        if read_before {
            read(&mut world);
        }
        let second = *world.disk.keys().nth(1).unwrap();
        assert!(world.pipeline.begin_discard(second));
        assert!(!world.pipeline.begin_discard(second) && !world.pipeline.claim(second), "somebody is at it");
        if !read_before {
            read(&mut world);
        }
        world.pipeline.end_discard(second, false);
        world.finish();
        assert_eq!(world.seen[&(0, 1)], [0, 1, 2]);
    }
}

/// What expired is left to the sweep, but for what may have another expiry at once.
#[test]
fn what_gets_another_expiry_when_its_time_is_over_is_not_passed_over() {
    let mut world = World::new(Schedule::Stream);
    world.send(0, 1, true);
    world.apply(Event::Written);
    world.apply(Event::Told);
    let position = *world.disk.keys().next().unwrap();
    let soon = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(1);
    world.disk.get_mut(&position).unwrap().expires_at = Some(soon);
    world.apply(Event::Attach);
    for event in [Event::DiskStart, Event::DiskRead, Event::DiskEnd] {
        world.apply(event);
    }
    let (after, later) = (soon + time::Duration::seconds(1), soon + time::Duration::seconds(2));
    assert!(world.pipeline.begin_renewal(position));
    assert!(matches!(world.pipeline.take(after, 8, Schedule::Stream), Take::Nothing));
    world.pipeline.end_renewal(position, Some(later));
    assert!(matches!(world.pipeline.take(after, 8, Schedule::Stream), Take::Send(..)));
}

/// The clock goes on between the look at the queue and the question when to look again.
#[test]
fn what_waits_for_company_is_looked_at_when_that_is_over_whatever_the_clock_says_meanwhile() {
    let wait = Duration::from_millis(500);
    let mut world = World::new(Schedule::Stream);
    world.apply(Event::Attach);
    world.pipeline.gather(Some(Gathering { wait, payload_octets_max: 2048 }));
    world.now = Instant::now();
    world.send(0, 1, true);
    let (utc, over) = (OffsetDateTime::UNIX_EPOCH, world.now + wait);
    assert!(matches!(world.pipeline.take(utc, 8, Schedule::Stream), Take::Nothing));
    while Instant::now() < over {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(world.pipeline.next_deadline(&Limits::default()), Some(over));
    assert!(world.pipeline.lapse(Instant::now(), &Limits::default()).is_empty());
    assert_ne!(world.pipeline.next_deadline(&Limits::default()), Some(over), "the timer is not kept busy");
    assert!(matches!(world.pipeline.take(utc, 8, Schedule::Stream), Take::Send(..)));
}
