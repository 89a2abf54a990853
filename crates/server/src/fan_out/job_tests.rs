//! A job under any order of answers, reports, writes that fail and originators that are not there: nobody is forgotten,
//! and nobody told twice.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use message::{MessageId, Priority};
use proptest::prelude::*;

use super::*;

fn ue(name: &str) -> Address {
    Address::ue(&name.parse().unwrap())
}

fn message(report_wanted: bool) -> Message {
    Message {
        originator: ue("alice"),
        destination: Address::topic(&"alerts".parse().unwrap()),
        recipient: None,
        message_id: MessageId::new("1").unwrap(),
        application_id: None,
        delivery_status_required: report_wanted,
        store_and_forward: true,
        expiration_time: None,
        priority: Priority::Middle,
        payload: Vec::new(),
        segment: None,
        latency: None,
    }
}

/// A job's surroundings, played.
struct World {
    job: Arc<Job>,
    cursor: usize,
    under_way: Vec<usize>,
    /// What the originator was told of each member, and how often.
    told: BTreeMap<usize, (Outcome, usize)>,
    /// The first that was said of each member.
    first: BTreeMap<usize, Outcome>,
    waiters: Vec<oneshot::Receiver<bool>>,
    over: bool,
}

#[derive(Clone, Debug)]
enum Step {
    HandOver(usize),
    /// Of the copies under way, the one at this place; whether it was taken, refused, or found no room.
    Answer(usize, u8),
    Report(usize, bool),
    Save(bool),
    Tell(bool),
    HandOverAgain,
    Discard,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_usize..6).prop_map(Step::HandOver),
        6 => (0_usize..8, 0_u8..3).prop_map(|(place, kind)| Step::Answer(place, kind)),
        6 => (0_usize..8, any::<bool>()).prop_map(|(index, success)| Step::Report(index, success)),
        4 => any::<bool>().prop_map(Step::Save),
        3 => any::<bool>().prop_map(Step::Tell),
        2 => Just(Step::HandOverAgain),
        1 => Just(Step::Discard),
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 0..60)
}

impl World {
    fn new(members: usize, report_wanted: bool) -> Self {
        let members = (0..members).map(|number| ue(&format!("m{number}"))).collect();
        let job = Job::new(*ID, message(report_wanted), members, Duration::from_secs(1), Instant::now());
        Self {
            job,
            cursor: 0,
            under_way: Vec::new(),
            told: BTreeMap::new(),
            first: BTreeMap::new(),
            waiters: Vec::new(),
            over: false,
        }
    }

    fn hand_over(&mut self, window: usize) {
        for number in 0..window {
            let Some(index) = self.job.next_waiting(&mut self.cursor) else { return };
            let way = [Way::There, Way::Away, Way::Apart][number % 3];
            assert!(self.job.begin(index, way).is_some());
            assert!(self.job.begin(index, way).is_none(), "nobody has two copies");
            self.under_way.push(index);
        }
    }

    fn hand_over_again(&mut self) {
        self.job.copies_begin();
        self.cursor = 0;
    }

    fn answer(&mut self, place: usize, kind: u8) {
        if self.under_way.is_empty() {
            return;
        }
        let index = self.under_way.remove(place % self.under_way.len());
        let answer = match kind {
            0 => Answer::Delivered,
            1 => Answer::Failed(FailureCause::TargetRefused),
            _ => Answer::Failed(FailureCause::Overloaded),
        };
        let cause = match kind {
            1 => Some("TARGET_REFUSED"),
            2 if lock(&self.job.state).discarded => Some("DISCARDED"),
            _ => None,
        };
        if let Some(cause) = cause {
            self.first.entry(index).or_insert(Outcome { success: false, cause: Some(cause.to_owned()) });
        }
        self.job.copy_answered(index, &answer, OffsetDateTime::UNIX_EPOCH);
    }

    fn report(&mut self, index: usize, success: bool) {
        let (sender, durable) = oneshot::channel();
        let outcome = Outcome { success, cause: None };
        if self.job.collects() && self.job.take_report(index, outcome.clone(), Waiter::Task(sender)).is_ok() {
            self.waiters.push(durable);
            self.first.entry(index).or_insert(outcome);
        }
    }

    fn discard(&mut self) {
        let waiting = |fate: &Fate| *fate == Fate::Waiting;
        let fates = lock(&self.job.state).fates.clone();
        let (sender, durable) = oneshot::channel();
        let discarded = self.job.discard(Waiter::Task(sender));
        assert_eq!(discarded, fates.iter().filter(|fate| waiting(fate)).count());
        if discarded > 0 {
            self.waiters.push(durable);
        }
        for (index, _) in fates.iter().enumerate().filter(|(_, fate)| waiting(fate)) {
            self.first.entry(index).or_insert(Outcome { success: false, cause: Some("DISCARDED".to_owned()) });
        }
    }

    fn save(&mut self, works: bool) {
        if self.over {
            return;
        }
        match self.job.to_save() {
            ToSave::Nothing => {}
            ToSave::Progress(progress, waiters) => {
                match works {
                    true => self.job.saved(&progress),
                    false => self.job.not_saved(progress),
                }
                waiters.into_iter().for_each(|waiter| tell_task(waiter, works));
            }
            ToSave::Removal(waiters) => {
                self.over = true;
                waiters.into_iter().for_each(|waiter| tell_task(waiter, true));
            }
        }
    }

    fn tell(&mut self, works: bool) {
        if self.job.when_to_tell() == Tell::Later && !self.job.time_to_tell() {
            return;
        }
        if works {
            let untold = self.job.untold();
            for (index, outcome) in &untold {
                self.told.entry(*index).or_insert_with(|| (outcome.clone(), 0)).1 += 1;
            }
            self.job.told(&untold.iter().map(|(index, _)| *index).collect::<Vec<_>>());
        }
        self.job.telling_ended(false);
    }

    fn step(&mut self, step: &Step, members: usize) {
        match step {
            Step::HandOver(window) => self.hand_over(*window),
            Step::Answer(place, kind) => self.answer(*place, *kind),
            Step::Report(index, success) => self.report(*index % members, *success),
            Step::Save(works) => self.save(*works),
            Step::Tell(works) => self.tell(*works),
            Step::HandOverAgain => self.hand_over_again(),
            Step::Discard => self.discard(),
            Step::Close if lock(&self.job.state).unanswered == 0 => self.job.close(),
            Step::Close => {}
        }
        let state = lock(&self.job.state);
        let count = |wanted: fn(&Fate) -> bool| state.fates.iter().filter(|fate| wanted(fate)).count();
        assert_eq!(state.unsettled, count(|fate| *fate != Fate::Settled));
        assert_eq!(state.unanswered, count(|fate| matches!(fate, Fate::Waiting | Fate::UnderWay(..))));
        let open = |way| state.fates.iter().filter(|fate| **fate == Fate::UnderWay(way, state.round)).count();
        assert_eq!((state.there_open, state.away_open), (open(Way::There), open(Way::Away)));
        assert_eq!(state.message.is_some(), state.unanswered > 0, "kept as long as a copy may be made of it");
    }
}

/// Names of jobs are the store's to give.
static ID: LazyLock<JobId> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let store = store::EmbeddedStore::open(directory.path(), store::StoreOptions::default()).unwrap();
    let message = message(false);
    let job = store::NewFanOutJob {
        target: message.destination.clone(),
        originator: message.originator.clone(),
        message_id: message.message_id.clone(),
        body: Vec::new(),
        members: Vec::new(),
        expires_at: None,
        report_wanted: false,
        storable: false,
        priority: Priority::Middle,
        deduplication: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store::Store::put_job(&store, job)).unwrap()
});

fn tell_task(waiter: Waiter, durable: bool) {
    let Waiter::Task(sender) = waiter else { panic!() };
    sender.send(durable).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_job_ends_with_everybody_told_once_of_what_was_said_first(
        members in 1_usize..8,
        report_wanted in any::<bool>(),
        steps in steps(),
    ) {
        let mut world = World::new(members, report_wanted);
        for step in &steps {
            world.step(step, members);
        }
        // From here on everything works, and whoever has not reported does.
        for _ in 0..10 {
            world.hand_over_again();
            world.hand_over(members);
            while !world.under_way.is_empty() {
                world.step(&Step::Answer(0, 0), members);
            }
            for index in 0..members {
                world.step(&Step::Report(index, true), members);
            }
            world.save(true);
            world.save(true);
            world.tell(true);
        }
        world.save(true);
        prop_assert!(world.over);
        for durable in &mut world.waiters {
            prop_assert!(durable.try_recv().is_ok(), "somebody waits for ever");
        }
        let closed = lock(&world.job.state).closed;
        prop_assert!(world.told.values().all(|(_, times)| *times == 1));
        prop_assert!(world.told.iter().all(|(index, (outcome, _))| world.first.get(index) == Some(outcome)));
        if report_wanted && !closed {
            prop_assert_eq!(world.told.len(), members);
        } else if !report_wanted {
            prop_assert!(world.told.is_empty());
        }
    }
}
